/* session.c - the public API: a session's life, and the recovery point for want of memory.
 *
 * Every call that may allocate sets session->oom first; whatever runs out of memory below comes
 * back here. The session is then good for kld_free only. */
#define _GNU_SOURCE
#include "src/session.h"
#include <stdlib.h>
#include <sys/mman.h>
#include "src/incremental/incremental.h"
#include "src/incremental/store.h"
#include "src/link.h"
#include "src/load.h"
#include "src/undefined.h"

/* ---- the library's own allocator ---- */

enum { MAP_FROM = 128 << 10, ALIGN_FROM = 1 << 20, HUGE_FROM = 4 << 20 };
enum { HUGE_PAGE = 2 << 20, LARGEST_PAGE = 64 << 10 /* of the other ones, on any CPU */ };

/* What a block takes: its last page can be a huge one if that is filled by half. */
static size_t mapped_size(size_t size)
{
    return kld_align_up(size, size % HUGE_PAGE >= ALIGN_FROM ? HUGE_PAGE : LARGEST_PAGE);
}

static void *map(size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* The kernel itself aligns to huge pages what is a number of them in size, and nothing else. */
static void *map_aligned(size_t size)
{
    uint8_t *at = map(size + HUGE_PAGE);
    if (!at)
        return NULL;
    size_t before = -(uintptr_t)at % HUGE_PAGE;
    if (before)
        munmap(at, before);
    munmap(at + before + size, HUGE_PAGE - before);
    return at + before;
}

/* In huge pages, as far as there are some: new memory is five times as cheap then. */
static void use_huge_pages(void *block, size_t size)
{
#ifdef MADV_HUGEPAGE
    madvise(block, size, MADV_HUGEPAGE); /* may be refused */
#else
    (void)block, (void)size;
#endif
}

/* Large blocks come from the kernel directly: they are zero already, and go back when freed. */
static void *default_alloc(void *context, size_t size)
{
    (void)context;
    if (size < MAP_FROM)
        return calloc(1, size);
    size_t mapped = mapped_size(size);
    void *block = size < ALIGN_FROM ? map(mapped) : map_aligned(mapped);
    if (block && size >= HUGE_FROM)
        use_huge_pages(block, mapped);
    return block;
}

/* Each small page would be a fault, and in tables that are read before they are written two, of which the second
 * interrupts the other threads. Of clang's CPU time that is 5%. */
static void bring_in(void *block, size_t size)
{
    if (size < MAP_FROM || size >= HUGE_FROM)
        return;
    if (size >= ALIGN_FROM)
        use_huge_pages(block, mapped_size(size));
#ifdef MADV_POPULATE_WRITE
    madvise(block, size, MADV_POPULATE_WRITE); /* Linux 5.14 has it */
#endif
}

static void default_free(void *context, void *block, size_t size)
{
    (void)context;
    if (size < MAP_FROM)
        free(block);
    else
        munmap(block, mapped_size(size));
}

static void never_free(void *context, void *block, size_t size)
{
    (void)context, (void)block, (void)size;
}

/* ---- a session's life ---- */

static void begin_link_part(kld_session *s)
{
    kld_arena_init(&s->arena, &s->alloc, &s->oom);
    kld_arena_init(&s->scratch, &s->alloc, &s->oom);
    pthread_mutex_init(&s->section_index.lock, NULL);
    s->options = s->asked;
}

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
    s->alloc =
        (struct kld_alloc){h.context, h.alloc, h.free, h.alloc == default_alloc ? bring_in : NULL};
    kld_arena_init(&s->request, &s->alloc, &s->oom);
    pthread_mutex_init(&s->diag.lock, NULL);
    kld_options_init(&s->asked);
    s->output.fd = -1;
    begin_link_part(s);
    return s;
}

/* The graph of a link, and all else that it has taken. The output stays. */
static void free_link_part(kld_session *session)
{
    kld_incremental_close(session);
    kld_store_end_link(session);
    kld_io_free(session);
    kld_undefined_free(session);
    kld_pool_free(session);
    if (session->resolver)
        kld_arena_free(&session->resolver->arena);
    kld_arena_free(&session->scratch);
    kld_arena_free(&session->arena);
    pthread_mutex_destroy(&session->section_index.lock);
}

void kld_free(kld_session *session)
{
    if (!session)
        return;
    free_link_part(session);
    kld_output_abandon(session, &session->output);
    kld_store_free(session);
    kld_arena_free(&session->request);
    pthread_mutex_destroy(&session->diag.lock);
    kld_host host = session->host;
    host.free(host.context, session, sizeof(*session));
}

static void drop_link(kld_session *session)
{
    free_link_part(session);
    size_t first = offsetof(struct kld_session, arena);
    memset((char *)session + first, 0, sizeof(*session) - first);
    begin_link_part(session);
    session->phase = KLD_PHASE_ASKING;
}

static kld_status out_of_memory(kld_session *session)
{
    session->no_memory = true;
    return KLD_NO_MEMORY;
}

/* Whether the host may ask for something now. What has been resolved is then no longer what it asks
 * for. */
static bool may_ask(kld_session *session)
{
    if (!session || session->phase == KLD_PHASE_RUNNING)
        return false;
    if (session->phase == KLD_PHASE_RESOLVED)
        drop_link(session);
    return true;
}

/* ---- before a link ---- */

kld_status kld_set(kld_session *session, const char *name, const char *value)
{
    if (!name || !may_ask(session))
        return KLD_MISUSE;
    if (session->no_memory || setjmp(session->oom))
        return out_of_memory(session);
    const char *problem = kld_options_set(&session->asked, &session->request, name, value);
    session->options = session->asked; /* some say how messages are given */
    if (!problem)
        return KLD_OK;
    kld_error(session, "option", NULL, "%s", problem);
    kld_checkpoint(session);
    return KLD_FAILED;
}

/* Of a host that may be older. False: it makes no sense. */
static bool take_input(const kld_input *input, kld_input *in)
{
    *in = (kld_input){0};
    if (!input)
        return false;
    memcpy(in, input, KLD_MIN(input->size, sizeof(*in)));
    return in->name;
}

static void fill_item(kld_session *session, struct kld_input_item *item, const kld_input *in)
{
    /* The old one is as good if nothing but bytes are replaced. */
    if (strcmp(item->name, in->name) != 0)
        item->name = kld_arena_strndup(&session->request, in->name, strlen(in->name));
    item->bytes = (struct kld_bytes){in->data, in->length};
    item->flags = in->flags;
}

kld_status kld_add_input_handle(kld_session *session, const kld_input *input,
                                kld_input_handle *handle)
{
    kld_input in;
    if (!handle || !take_input(input, &in) || !may_ask(session))
        return KLD_MISUSE;
    *handle = 0;
    if (session->no_memory || setjmp(session->oom))
        return out_of_memory(session);
    struct kld_input_item *item = kld_vec_push(&session->request, &session->inputs);
    item->name = ""; /* should there be no memory for the copy */
    item->handle = *handle = ++session->last_handle;
    fill_item(session, item, &in);
    return KLD_OK;
}

kld_status kld_add_input(kld_session *session, const kld_input *input)
{
    kld_input_handle unused;
    return kld_add_input_handle(session, input, &unused);
}

/* The index of an input, or that behind the last one. */
static size_t find_input(const kld_session *session, kld_input_handle handle)
{
    size_t from = 0, to = session->inputs.len;
    while (from < to) {
        size_t mid = from + (to - from) / 2;
        if (session->inputs.data[mid].handle < handle)
            from = mid + 1;
        else
            to = mid;
    }
    bool found = from < session->inputs.len && session->inputs.data[from].handle == handle;
    return found ? from : session->inputs.len;
}

kld_status kld_replace_input(kld_session *session, kld_input_handle handle, const kld_input *input)
{
    kld_input in;
    if (!session || !take_input(input, &in))
        return KLD_MISUSE;
    if (find_input(session, handle) == session->inputs.len || !may_ask(session))
        return KLD_MISUSE;
    if (session->no_memory || setjmp(session->oom))
        return out_of_memory(session);
    fill_item(session, &session->inputs.data[find_input(session, handle)], &in);
    return KLD_OK;
}

kld_status kld_remove_input(kld_session *session, kld_input_handle handle)
{
    if (!session)
        return KLD_MISUSE;
    size_t i = find_input(session, handle);
    if (i == session->inputs.len || !may_ask(session))
        return KLD_MISUSE;
    if (session->no_memory)
        return KLD_NO_MEMORY;
    struct kld_input_item *at = &session->inputs.data[i];
    memmove(at, at + 1, (session->inputs.len - i - 1) * sizeof(*at));
    /* What an array grows into is zero. */
    session->inputs.data[--session->inputs.len] = (struct kld_input_item){0};
    return KLD_OK;
}

kld_status kld_set_state_store(kld_session *session, const kld_state_store *store)
{
    kld_state_store copy = {0};
    if (!store)
        return KLD_MISUSE;
    memcpy(&copy, store, KLD_MIN(store->size, sizeof(copy)));
    if (!copy.open || !copy.update || !copy.replace || !copy.discard || !copy.close ||
        !may_ask(session))
        return KLD_MISUSE;
    copy.size = sizeof(copy);
    session->state_io.store = copy;
    session->state_io.of_host = true;
    session->state_io.in_memory = false;
    return KLD_OK;
}

kld_status kld_set_prior_state(kld_session *session, const void *data, size_t length)
{
    if ((!data && length) || !may_ask(session))
        return KLD_MISUSE;
    if (session->no_memory || setjmp(session->oom))
        return out_of_memory(session);
    kld_state_store store = kld_memory_store(session);
    store.replace(store.context, data, length);
    session->state_io.store = store;
    session->state_io.of_host = false;
    session->state_io.in_memory = true;
    return KLD_OK;
}

/* ---- the link ---- */

/* The recovery point is here, in a function of its own that has no variables to lose. */
static bool run_or_run_out(kld_session *session, bool (*run)(kld_session *session))
{
    if (setjmp(session->oom)) {
        session->no_memory = true;
        return false;
    }
    return run(session);
}

/* Errors are of one link: what was reported before it counts for it, and not for the next one. */
static kld_status end_run(kld_session *session, bool good, enum kld_phase next)
{
    kld_pool_stop(session);
    kld_checkpoint(session);
    bool internal = session->diag.internal;
    session->phase = good ? next : KLD_PHASE_DONE;
    if (session->phase == KLD_PHASE_DONE)
        kld_forget_errors(session);
    return session->no_memory ? KLD_NO_MEMORY
           : internal         ? KLD_INTERNAL
           : good             ? KLD_OK
                              : KLD_FAILED;
}

static kld_status begin_run(kld_session *session)
{
    if (!session || session->phase == KLD_PHASE_RUNNING)
        return KLD_MISUSE;
    if (session->no_memory)
        return KLD_NO_MEMORY;
    if (session->phase != KLD_PHASE_ASKING)
        drop_link(session);
    struct kld_state_io *io = &session->state_io;
    io->outcome = KLD_OUTCOME_NONE;
    io->reason = NULL;
    io->asked_for = session->options.incremental != KLD_INCREMENTAL_OFF;
    /* An output in memory may be patched. */
    if (!io->asked_for || !session->options.output_memory)
        kld_output_abandon(session, &session->output);
    session->linked = false;
    session->phase = KLD_PHASE_RUNNING;
    return KLD_OK;
}

static bool resolve(kld_session *session)
{
    return run_or_run_out(session, kld_resolve_passes);
}

static bool emit(kld_session *session)
{
    struct kld_state_io *io = &session->state_io;
    session->linked = run_or_run_out(session, kld_emit_passes);
    if (!session->linked)
        kld_output_abandon(session, &session->output);
    else if (io->outcome == KLD_OUTCOME_NONE)
        io->outcome = session->options.incremental_verify ? KLD_OUTCOME_NONE : KLD_OUTCOME_FULL;
    return session->linked;
}

kld_status kld_resolve(kld_session *session)
{
    kld_status status = begin_run(session);
    return status == KLD_OK ? end_run(session, resolve(session), KLD_PHASE_RESOLVED) : status;
}

kld_status kld_emit(kld_session *session)
{
    if (!session || session->phase != KLD_PHASE_RESOLVED)
        return KLD_MISUSE;
    session->phase = KLD_PHASE_RUNNING;
    return end_run(session, emit(session), KLD_PHASE_DONE);
}

kld_status kld_link(kld_session *session)
{
    kld_status status = begin_run(session);
    if (status != KLD_OK)
        return status;
    return end_run(session, resolve(session) && emit(session), KLD_PHASE_DONE);
}

kld_status kld_output(kld_session *session, const void **data, size_t *length)
{
    if (!session || !data || !length || !session->linked || !session->output.memory)
        return KLD_MISUSE;
    *data = session->output.memory;
    *length = (size_t)session->output.size;
    return KLD_OK;
}

kld_outcome kld_get_outcome(kld_session *session, const char **reason)
{
    bool linked = session && session->linked;
    kld_outcome outcome = linked ? session->state_io.outcome : KLD_OUTCOME_NONE;
    if (reason)
        *reason = outcome == KLD_OUTCOME_FELL_BACK_FULL ? session->state_io.reason : NULL;
    return outcome;
}

/* What is in a file is read again: a session that is not asked does not keep it. */
kld_status kld_serialize_state(kld_session *session, const void **data, size_t *length)
{
    if (!session || !data || !length || !session->linked || session->state_io.of_host ||
        !session->state_io.asked_for)
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
