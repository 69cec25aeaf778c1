/* content.c - ids of objects and of their atoms: BLAKE2b over the canonical form.
 *
 * These ids leave the machine, unlike the hashes in states: they must mean the same to every version
 * of kld of one number of the form, and nobody must be able to make two objects of one id. */
#include "src/content.h"
#include <blake2.h>
#include "src/session.h"

enum { FORM = 1 }; /* part of every id: changes with what formats write */

struct atom_id {
    struct kld_str name;
    uint8_t id[KLD_CONTENT_ID_SIZE];
};

struct hasher {
    struct kld_content to;
    struct kld_session *ctx;
    blake2b_state whole, atom;
    bool in_atom;
    KLD_VEC(struct atom_id) atoms;
};

static void start(blake2b_state *state)
{
    static const uint8_t form[] = {'k', 'l', 'd', FORM};
    blake2b_init(state, KLD_CONTENT_ID_SIZE);
    blake2b_update(state, form, sizeof(form));
}

static void begin(struct kld_content *c, struct kld_str name)
{
    struct hasher *h = kld_container(c, struct hasher, to);
    kld_vec_push(&h->ctx->arena, &h->atoms)->name = name;
    start(&h->atom);
    h->in_atom = true;
    kld_content_text(c, name);
}

static void add(struct kld_content *c, const void *data, size_t size)
{
    struct hasher *h = kld_container(c, struct hasher, to);
    blake2b_update(h->in_atom ? &h->atom : &h->whole, data, size);
}

static void end(struct kld_content *c)
{
    struct hasher *h = kld_container(c, struct hasher, to);
    struct atom_id *atom = &h->atoms.data[h->atoms.len - 1];
    blake2b_final(&h->atom, atom->id, sizeof(atom->id));
    h->in_atom = false;
    add(c, atom->id, sizeof(atom->id));
}

/* False: reported. */
static bool describe(struct hasher *h, struct kld_bytes bytes)
{
    struct kld_session *ctx = h->ctx;
    enum kld_probe probe = KLD_PROBE_NONE;
    const char *why = NULL;
    for (size_t i = 0; kld_formats[i] && probe == KLD_PROBE_NONE; i++) {
        ctx->format = kld_formats[i];
        probe = ctx->format->probe(bytes, &ctx->arch, &why);
    }
    if (probe != KLD_PROBE_OBJECT || !ctx->format->describe) {
        kld_error(ctx, "content-id", NULL, "%s", why ? why : "not a relocatable object");
        return false;
    }
    struct kld_file *file = ctx->format->new_file(ctx, &ctx->arena, KLD_FILE_OBJECT);
    file->format = ctx->format;
    file->path = "object";
    file->bytes = bytes;
    ctx->format->parse(ctx, kld_pool_worker(ctx, 0), file);
    if (!kld_has_failed(ctx))
        ctx->format->describe(ctx, file, &h->to);
    return !kld_has_failed(ctx);
}

/* The recovery point, in a function of its own. */
static struct hasher *hash_or_run_out(struct kld_session *ctx, struct kld_bytes bytes)
{
    if (setjmp(ctx->oom)) {
        ctx->no_memory = true;
        return NULL;
    }
    kld_pool_init(ctx, 1);
    struct hasher *h = KLD_NEW(&ctx->arena, struct hasher);
    h->ctx = ctx;
    h->to = (struct kld_content){begin, end, add};
    start(&h->whole);
    bool good = describe(h, bytes);
    kld_checkpoint(ctx);
    return good ? h : NULL;
}

static void give(struct hasher *h, unsigned char *id, kld_atom_id *each, void *context)
{
    uint8_t whole[KLD_CONTENT_ID_SIZE];
    blake2b_final(&h->whole, whole, sizeof(whole));
    if (id)
        memcpy(id, whole, sizeof(whole));
    for (size_t i = 0; each && i < h->atoms.len; i++)
        each(context, h->atoms.data[i].name.ptr, h->atoms.data[i].id);
}

/* In a session of its own: that of the caller may be in the middle of something. */
static kld_status identify(const kld_session *session, const void *data, size_t length,
                           unsigned char *id, kld_atom_id *each, void *context)
{
    kld_session *ctx = kld_new(session ? &session->host : NULL);
    if (!ctx)
        return KLD_NO_MEMORY;
    struct hasher *h = hash_or_run_out(ctx, (struct kld_bytes){data, length});
    if (h)
        give(h, id, each, context);
    kld_status status = ctx->no_memory       ? KLD_NO_MEMORY
                        : ctx->diag.internal ? KLD_INTERNAL
                        : h                  ? KLD_OK
                                             : KLD_FAILED;
    kld_free(ctx);
    return status;
}

kld_status kld_obj_content_id(const kld_session *session, const void *data, size_t length,
                              unsigned char id[KLD_CONTENT_ID_SIZE])
{
    if (!data || !id)
        return KLD_MISUSE;
    return identify(session, data, length, id, NULL, NULL);
}

kld_status kld_obj_atom_ids(const kld_session *session, const void *data, size_t length,
                            kld_atom_id *each, void *context)
{
    if (!data || !each)
        return KLD_MISUSE;
    return identify(session, data, length, NULL, each, context);
}
