/* store.c - which store the state is in, and the one in memory. */
#include "src/incremental/store.h"

/* ---- in memory ---- */

static uint8_t *take(struct kld_session *ctx, size_t size)
{
    uint8_t *block = ctx->alloc.alloc(ctx->alloc.context, size);
    if (!block)
        longjmp(ctx->oom, 1);
    return block;
}

static void drop(struct kld_session *ctx, struct kld_memory_block *block)
{
    if (block->data)
        ctx->alloc.free(ctx->alloc.context, block->data, block->size);
    *block = (struct kld_memory_block){0};
}

/* Room for size bytes; what is there stays. */
static void grow(struct kld_session *ctx, struct kld_memory_block *block, size_t size)
{
    if (size <= block->size)
        return;
    size = KLD_MAX(size, block->size + block->size / 2);
    uint8_t *larger = take(ctx, size);
    if (block->length)
        memcpy(larger, block->data, block->length);
    size_t length = block->length;
    drop(ctx, block);
    *block = (struct kld_memory_block){larger, length, size};
}

/* The link gets a copy: what it changes there must not be seen here. */
static bool memory_open(void *context, void **data, size_t *length, bool *busy)
{
    struct kld_session *ctx = context;
    struct kld_state_io *io = &ctx->state_io;
    *busy = false;
    if (!io->kept.length)
        return false;
    drop(ctx, &io->opened);
    grow(ctx, &io->opened, io->kept.length);
    memcpy(io->opened.data, io->kept.data, io->kept.length);
    io->opened.length = io->kept.length;
    *data = io->opened.data;
    *length = io->opened.length;
    return true;
}

static bool memory_update(void *context, uint64_t offset, const void *data, size_t length)
{
    struct kld_session *ctx = context;
    struct kld_memory_block *kept = &ctx->state_io.kept;
    uint64_t end;
    if (__builtin_add_overflow(offset, length, &end) || end > PTRDIFF_MAX)
        return false;
    if (!length)
        return true;
    grow(ctx, kept, (size_t)end);
    memcpy(kept->data + offset, data, length); /* between the old end and offset: zero */
    kept->length = KLD_MAX(kept->length, (size_t)end);
    return true;
}

static bool memory_replace(void *context, const void *data, size_t length)
{
    struct kld_session *ctx = context;
    struct kld_memory_block new = {0};
    if (length) {
        grow(ctx, &new, length);
        memcpy(new.data, data, length);
        new.length = length;
    }
    drop(ctx, &ctx->state_io.kept);
    ctx->state_io.kept = new;
    return true;
}

static void memory_discard(void *context)
{
    struct kld_session *ctx = context;
    drop(ctx, &ctx->state_io.kept);
}

static void memory_close(void *context)
{
    struct kld_session *ctx = context;
    drop(ctx, &ctx->state_io.opened);
}

kld_state_store kld_memory_store(struct kld_session *ctx)
{
    return (kld_state_store){
        .size = sizeof(kld_state_store),
        .context = ctx,
        .open = memory_open,
        .update = memory_update,
        .replace = memory_replace,
        .discard = memory_discard,
        .close = memory_close,
    };
}

/* ---- which ---- */

const char *kld_state_path(struct kld_session *ctx)
{
    if (ctx->options.incremental_state)
        return ctx->options.incremental_state;
    return kld_arena_printf(&ctx->arena, "%s.kldstate", ctx->options.output);
}

const kld_state_store *kld_store(struct kld_session *ctx)
{
    struct kld_state_io *io = &ctx->state_io;
    if (io->store.size)
        return &io->store;
    /* An output in memory has no file beside it. */
    if (ctx->options.output_memory && !ctx->options.incremental_state)
        io->store = kld_memory_store(ctx);
    else
        io->store = kld_file_store(ctx, kld_state_path(ctx));
    return &io->store;
}

struct kld_memory_block *kld_store_read(struct kld_session *ctx)
{
    struct kld_state_io *io = &ctx->state_io;
    const kld_state_store *store = kld_store(ctx);
    if (store->open == memory_open)
        return &io->kept;
    drop(ctx, &io->serialized);
    void *data = NULL;
    size_t length = 0;
    bool busy;
    if (store->open(store->context, &data, &length, &busy) && data) {
        grow(ctx, &io->serialized, length);
        if (length)
            memcpy(io->serialized.data, data, length);
        io->serialized.length = length;
    }
    store->close(store->context);
    return &io->serialized;
}

/* ---- in pieces ---- */

bool kld_store_begin(struct kld_session *ctx, const kld_state_store *store, size_t length,
                     struct kld_store_writer *w)
{
    *w = (struct kld_store_writer){.store = store, .length = length, .fd = -1};
    if (kld_file_store_is(store))
        return kld_file_store_begin(store, w);
    w->bytes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, length);
    return true;
}

void kld_store_put(struct kld_store_writer *w, uint64_t offset, const void *data, size_t size)
{
    if (!kld_in_bounds(offset, size, w->length))
        atomic_store(&w->failed, true);
    else if (w->bytes)
        memcpy(w->bytes + offset, data, size);
    else if (!kld_io_write_all(w->fd, data, size, offset, false))
        atomic_store(&w->failed, true);
}

bool kld_store_end(struct kld_store_writer *w, bool good)
{
    good = good && !atomic_load(&w->failed);
    if (!w->bytes)
        return kld_file_store_end(w, good);
    return good && w->store->replace(w->store->context, w->bytes, w->length);
}

/* The next one may have another output, and so another file. */
void kld_store_end_link(struct kld_session *ctx)
{
    struct kld_state_io *io = &ctx->state_io;
    if (io->of_host || io->in_memory || !io->store.size)
        return;
    io->store.close(io->store.context);
    io->store.size = 0;
}

void kld_store_free(struct kld_session *ctx)
{
    drop(ctx, &ctx->state_io.opened);
    drop(ctx, &ctx->state_io.kept);
    drop(ctx, &ctx->state_io.serialized);
}
