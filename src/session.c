/* session.c - the public API: a session's life, and the recovery point for want of memory.
 *
 * Every call that may allocate sets session->oom first; whatever runs out of memory below comes
 * back here. The session is then good for kld_free only. */
#define _GNU_SOURCE
#include "src/session.h"
#include <stdlib.h>
#include <sys/mman.h>
#include "src/incremental/store.h"
#include "src/link.h"
#include "src/load.h"
#include "src/undefined.h"

/* ---- the library's own allocator ---- */

enum { MAP_FROM = 1 << 20, HUGE_FROM = 4 << 20 };

/* Large blocks come from the kernel directly: they are zero already, and go back when freed. */
static void *default_alloc(void *context, size_t size)
{
    (void)context;
    if (size < MAP_FROM)
        return calloc(1, size);
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
    if (at == MAP_FAILED)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (size >= HUGE_FROM)
        madvise(at, size, MADV_HUGEPAGE); /* one page fault instead of 512; may be refused */
#endif
    return at;
}

static void default_free(void *context, void *block, size_t size)
{
    (void)context;
    if (size < MAP_FROM)
        free(block);
    else
        munmap(block, size);
}

static void never_free(void *context, void *block, size_t size)
{
    (void)context, (void)block, (void)size;
}

/* ---- a session's life ---- */

kld_session *kld_new(const kld_host *host)
{
    kld_host h = {0};
    if (host) /* of an older library it has fewer members, of a newer one more */
        memcpy(&h, host, KLD_MIN(host->size, sizeof(h)));
    h.size = sizeof(h);
    if (!h.alloc) {
        h.alloc = default_alloc;
        h.free = default_free;
    } else if (!h.free) {
        h.free = never_free;
    }
    kld_session *s = h.alloc(h.context, sizeof(*s));
    if (!s)
        return NULL;
    s->host = h;
    s->alloc = (struct kld_alloc){h.context, h.alloc, h.free};
    kld_arena_init(&s->arena, &s->alloc, &s->oom);
    kld_arena_init(&s->scratch, &s->alloc, &s->oom);
    pthread_mutex_init(&s->diag.lock, NULL);
    pthread_mutex_init(&s->section_index.lock, NULL);
    kld_options_init(&s->options);
    s->output.fd = -1;
    return s;
}

void kld_free(kld_session *session)
{
    if (!session)
        return;
    kld_output_abandon(session, &session->output);
    kld_store_free(session);
    kld_io_free(session);
    kld_undefined_free(session);
    kld_pool_free(session);
    if (session->resolver)
        kld_arena_free(&session->resolver->arena);
    kld_arena_free(&session->scratch);
    kld_arena_free(&session->arena);
    pthread_mutex_destroy(&session->section_index.lock);
    pthread_mutex_destroy(&session->diag.lock);
    kld_host host = session->host;
    host.free(host.context, session, sizeof(*session));
}

static kld_status out_of_memory(kld_session *session)
{
    session->no_memory = true;
    return KLD_NO_MEMORY;
}

/* ---- before the link ---- */

kld_status kld_set(kld_session *session, const char *name, const char *value)
{
    if (!session || !name || session->used)
        return KLD_MISUSE;
    if (session->no_memory || setjmp(session->oom))
        return out_of_memory(session);
    const char *problem = kld_options_set(&session->options, &session->arena, name, value);
    if (!problem)
        return KLD_OK;
    kld_error(session, "option", NULL, "%s", problem);
    kld_checkpoint(session);
    return KLD_FAILED;
}

kld_status kld_add_input(kld_session *session, const kld_input *input)
{
    kld_input in = {0};
    if (!session || !input || session->used)
        return KLD_MISUSE;
    memcpy(&in, input, KLD_MIN(input->size, sizeof(in)));
    if (!in.name)
        return KLD_MISUSE;
    if (session->no_memory || setjmp(session->oom))
        return out_of_memory(session);
    struct kld_arena *arena = &session->arena;
    struct kld_input_item *item = kld_vec_push(arena, &session->inputs);
    item->name = ""; /* should there be no memory for the copy */
    item->name = kld_arena_strndup(arena, in.name, strlen(in.name));
    item->bytes = (struct kld_bytes){in.data, in.length};
    item->flags = in.flags;
    return KLD_OK;
}

kld_status kld_set_state_store(kld_session *session, const kld_state_store *store)
{
    kld_state_store copy = {0};
    if (!session || !store || session->used)
        return KLD_MISUSE;
    memcpy(&copy, store, KLD_MIN(store->size, sizeof(copy)));
    if (!copy.open || !copy.update || !copy.replace || !copy.discard || !copy.close)
        return KLD_MISUSE;
    copy.size = sizeof(copy);
    session->state_io.store = copy;
    session->state_io.of_host = true;
    return KLD_OK;
}

kld_status kld_set_prior_state(kld_session *session, const void *data, size_t length)
{
    if (!session || (!data && length) || session->used)
        return KLD_MISUSE;
    if (session->no_memory || setjmp(session->oom))
        return out_of_memory(session);
    kld_state_store store = kld_memory_store(session);
    store.replace(store.context, data, length);
    session->state_io.store = store;
    session->state_io.of_host = false;
    return KLD_OK;
}

/* ---- the link ---- */

/* The recovery point is here, in a function of its own that has no variables to lose. */
static bool link_or_run_out(kld_session *session)
{
    if (setjmp(session->oom)) {
        session->no_memory = true;
        return false;
    }
    return kld_link_passes(session);
}

kld_status kld_link(kld_session *session)
{
    if (!session || session->used)
        return KLD_MISUSE;
    if (session->no_memory)
        return KLD_NO_MEMORY;
    session->used = true;
    session->linked = link_or_run_out(session);
    if (!session->linked)
        kld_output_abandon(session, &session->output);
    struct kld_state_io *io = &session->state_io;
    if (!session->linked)
        io->outcome = KLD_OUTCOME_NONE;
    else if (io->outcome == KLD_OUTCOME_NONE && !session->options.incremental_verify)
        io->outcome = KLD_OUTCOME_FULL;
    kld_pool_stop(session);
    kld_checkpoint(session);
    if (session->no_memory)
        return KLD_NO_MEMORY;
    if (session->diag.internal)
        return KLD_INTERNAL;
    return session->linked ? KLD_OK : KLD_FAILED;
}

kld_status kld_output(kld_session *session, const void **data, size_t *length)
{
    if (!session || !data || !length || !session->linked || !session->options.output_memory)
        return KLD_MISUSE;
    *data = session->output.memory;
    *length = (size_t)session->output.size;
    return KLD_OK;
}

kld_outcome kld_get_outcome(kld_session *session, const char **reason)
{
    kld_outcome outcome = session ? session->state_io.outcome : KLD_OUTCOME_NONE;
    if (reason)
        *reason = outcome == KLD_OUTCOME_FELL_BACK_FULL ? session->state_io.reason : NULL;
    return outcome;
}

/* What is in a file is read again: a session that is not asked does not keep it. */
kld_status kld_serialize_state(kld_session *session, const void **data, size_t *length)
{
    if (!session || !data || !length || !session->linked || session->state_io.of_host ||
        session->options.incremental == KLD_INCREMENTAL_OFF)
        return KLD_MISUSE;
    if (session->no_memory || setjmp(session->oom))
        return out_of_memory(session);
    struct kld_memory_block *block = kld_store_read(session);
    *data = block->length ? block->data : NULL;
    *length = block->length;
    return KLD_OK;
}

const char *kld_version(void)
{
    return KLD_VERSION;
}
