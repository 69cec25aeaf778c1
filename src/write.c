/* write.c - the last pass: copy, relocate and write, a chunk at a time, in parallel.
 *
 * A chunk is a run of whole atoms of one section, about CHUNK bytes, or SMALL_CHUNK. A thread composes it in a
 * buffer that stays in its cache, applies the relocations there, hashes it if a build id is
 * wanted, and hands it to the kernel in one write; nothing of the output is ever mapped, which
 * saves the page faults of a fresh shared mapping and keeps the output out of the resident set.
 *
 * A file takes one write at a time, the others spin. So a thread that meets another at it
 * composes a few more chunks before it insists: of clang's CPU time that is 3%.
 *
 * Hashes are of parts of a chunk: a large table is one chunk, and a patch hashes anew what it touches. */
#define XXH_INLINE_ALL
#include "src/incremental/incremental.h"
#include "src/layout.h"
#include <xxhash.h>

enum { CHUNK = (int)KLD_CHUNK, HASHED = 128 << 10, HASH_SIZE = 16 };

/* Of small files chunks are smaller, so that threads share the work, and take less memory to compose them in. */
enum { SMALL_FILE = 4 << 20, SMALL_CHUNK = 64 << 10 };

enum { MOST_PENDING = 16, ROOM = 4 * CHUNK };

/* Chunks that follow one another, no further apart than NEAR in the file, are written together, if there are less bytes
 * of them than FEW: of a hello world, which has thirty sections, that is one write instead of thirty. */
enum { NEAR = 4 << 10, FEW = 128 << 10 };

/* What a thread has composed, one behind the other in its buffer. */
struct pending {
    struct run {
        uint64_t offset; /* in the file */
        const uint8_t *bytes;
        size_t size;
    } list[MOST_PENDING];
    size_t n, used, size;
    size_t next; /* the chunk that follows the last one */
};

struct writer {
    struct pending *pending; /* by worker */
    size_t room;             /* of a buffer */
    _Atomic bool busy;       /* some thread writes; a hint */
    kld_chunk_list chunks;
    uint8_t *hashes;    /* of parts of chunks, in file order; NULL: not wanted */
    size_t *first_part; /* by chunk: where its hashes are, and one more */
};

/* Offset of an atom in its section; addresses are final by now. */
static uint64_t atom_offset(const struct kld_section *s, const struct kld_atom *a)
{
    return a->addr - s->addr;
}

/* The first atom behind number `first` that ends more than `size` bytes behind `start`. Atoms are in the order
 * of their addresses; looking at each of them would wait for memory each time. */
static size_t end_of_chunk(const struct kld_section *s, size_t first, uint64_t start, uint64_t size)
{
    size_t lo = first + 1, hi = s->atoms.len;
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        if (atom_offset(s, s->atoms.data[middle]) + s->atoms.data[middle]->size - start <= size)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo;
}

void kld_chunks_add(struct kld_arena *arena, kld_chunk_list *chunks, struct kld_section *s,
                    uint64_t size)
{
    size_t i = 0;
    while (i < s->atoms.len) {
        struct kld_chunk *c = kld_vec_push(arena, chunks);
        c->section = s;
        c->first = i;
        c->start = i ? atom_offset(s, s->atoms.data[i]) : 0;
        i = end_of_chunk(s, i, c->start, size);
        c->end = i;
        c->limit = i < s->atoms.len ? atom_offset(s, s->atoms.data[i]) : s->size;
    }
}

static void compose(struct kld_session *ctx, struct kld_worker *worker, const struct kld_atom *a,
                    uint8_t *out)
{
    switch ((enum kld_atom_kind)a->kind) {
    case KLD_ATOM_GENERATED: a->generate(ctx, worker, a, out); break;
    case KLD_ATOM_RECORDS: ctx->format->write_records(ctx, worker, a, out); break;
    case KLD_ATOM_BYTES:
        if (a->data)
            memcpy(out, a->data, a->size);
        if (a->nedges)
            ctx->format->apply(ctx, worker, a, out);
        break;
    case KLD_ATOM_SHRUNK: ctx->format->apply(ctx, worker, a, out); break;
    case KLD_ATOM_PIECES: break;
    }
}

static void fill(const struct kld_session *ctx, const struct kld_section *s, uint64_t from,
                 uint64_t to, uint8_t *out)
{
    if (from < to)
        ctx->format->updater->fill(ctx, s, from, out, to - from);
}

/* Gaps are zero, except in code, where the CPU's padding keeps strays from running on. With slack
 * they mean something to the format, and the pool is one of its own. */
static void clear_gap(const struct kld_session *ctx, const struct kld_section *s, uint64_t from,
                      uint64_t to, uint8_t *out)
{
    if (!ctx->slack) {
        memset(out, s->flags & KLD_ATOM_EXEC ? ctx->arch->code_fill : 0, to - from);
        return;
    }
    uint64_t used = from < s->used && s->used < to ? s->used : to;
    fill(ctx, s, from, used, out);
    fill(ctx, s, used, to, out + (used - from));
}

static void clear_gaps(const struct kld_session *ctx, const struct kld_chunk *c, uint8_t *buffer)
{
    uint64_t at = c->start;
    for (size_t i = c->first; i < c->end; i++) {
        const struct kld_atom *a = c->section->atoms.data[i];
        uint64_t offset = atom_offset(c->section, a);
        if (offset > at)
            clear_gap(ctx, c->section, at, offset, buffer + (at - c->start));
        if (a->kind != KLD_ATOM_BYTES || !a->data)
            memset(buffer + (offset - c->start), 0, a->size);
        at = offset + a->size;
    }
    clear_gap(ctx, c->section, at, c->limit, buffer + (at - c->start));
}

void kld_chunk_compose(struct kld_session *ctx, struct kld_worker *worker,
                       const struct kld_chunk *c, uint8_t *buffer)
{
    clear_gaps(ctx, c, buffer);
    for (size_t k = c->first; k < c->end; k++) {
        const struct kld_atom *a = c->section->atoms.data[k];
        compose(ctx, worker, a, buffer + (atom_offset(c->section, a) - c->start));
    }
}

/* A large zero-filled atom among others with bytes: the output is zero where nothing is written. */
static bool is_hole(const struct kld_chunk *c)
{
    const struct kld_atom *a = c->section->atoms.data[c->first];
    return c->end == c->first + 1 && a->kind == KLD_ATOM_BYTES && !a->data && !a->nedges &&
           a->size > CHUNK;
}

/* The bytes of a chunk that are written: not a hole, nor a wide gap behind it, unless that is
 * slack, which need not be zero. */
static size_t written_size(const struct kld_session *ctx, const struct kld_chunk *c)
{
    if (is_hole(c))
        return 0;
    if (ctx->slack)
        return (size_t)(c->limit - c->start);
    const struct kld_atom *last = c->section->atoms.data[c->end - 1];
    uint64_t end = atom_offset(c->section, last) + last->size;
    return (size_t)((c->limit - end > CHUNK ? end : c->limit) - c->start);
}

/* Bytes of a chunk that are in memory as they are written: large tables are not copied. */
static const uint8_t *bytes_of(const struct kld_chunk *c, size_t size)
{
    const struct kld_atom *a = c->section->atoms.data[c->first];
    return c->end == c->first + 1 && a->kind == KLD_ATOM_BYTES && !a->nedges && a->size == size
               ? a->data
               : NULL;
}

static void hash_parts(uint8_t *hashes, const uint8_t *bytes, size_t size)
{
    for (size_t at = 0; at < size; at += HASHED, hashes += HASH_SIZE) {
        XXH128_canonical_t hash;
        XXH128_canonicalFromHash(&hash, XXH3_128bits(bytes + at, KLD_MIN(size - at, HASHED)));
        memcpy(hashes, hash.digest, HASH_SIZE);
    }
}

static void flush(struct kld_session *ctx, struct pending *p)
{
    for (size_t i = 0; i < p->n; i++)
        kld_output_write(ctx, &ctx->output, p->list[i].offset, p->list[i].bytes, p->list[i].size);
    p->n = p->used = p->size = 0;
}

static void add_run(struct pending *p, uint64_t offset, const uint8_t *bytes, size_t size)
{
    p->list[p->n++] = (struct run){offset, bytes, size};
}

/* Makes room in the buffer for a chunk: behind the one before it as in the file, if that is there and near, with zeros
 * between; else at a multiple of 64 as its offset (some write their tables as words). */
static uint8_t *make_place(struct pending *p, uint8_t *buffer, size_t chunk, uint64_t offset,
                           size_t size)
{
    struct run *last = p->n && chunk == p->next ? &p->list[p->n - 1] : NULL;
    uint64_t gap = last ? offset - (last->offset + last->size) : 0;
    if (last && last->bytes + last->size == buffer + p->used && gap < NEAR) {
        memset(buffer + p->used, 0, gap);
        p->used += gap;
        last->size += gap + size;
    } else {
        p->used = kld_align_up(p->used, 64) + offset % 64;
        add_run(p, offset, buffer + p->used, size);
    }
    p->used += size;
    return buffer + p->used - size;
}

static uint8_t *compose_chunk(struct kld_session *ctx, struct kld_worker *worker, struct writer *w,
                              size_t chunk, size_t size)
{
    struct pending *p = &w->pending[worker->index];
    struct kld_chunk part = w->chunks.data[chunk];
    part.limit = part.start + size;
    if (p->used + NEAR + size > w->room)
        flush(ctx, p);
    uint8_t *buffer = kld_worker_buffer(worker, KLD_MAX(NEAR + size, w->room));
    uint8_t *out = make_place(p, buffer, chunk, part.section->offset + part.start, size);
    kld_chunk_compose(ctx, worker, &part, out);
    return out;
}

static void write_chunk(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    struct writer *w = arg;
    const struct kld_chunk *c = &w->chunks.data[i];
    struct pending *p = &w->pending[worker->index];
    size_t size = written_size(ctx, c);
    const uint8_t *bytes = size > FEW ? bytes_of(c, size) : NULL;
    if (!size)
        return;
    if (bytes)
        add_run(p, c->section->offset + c->start, bytes, size);
    else
        bytes = compose_chunk(ctx, worker, w, i, size);
    p->size += size;
    p->next = i + 1;
    if (w->hashes)
        hash_parts(w->hashes + w->first_part[i] * HASH_SIZE, bytes, size);
    if (p->size < FEW && p->n < MOST_PENDING)
        return;
    bool waits = atomic_exchange(&w->busy, true);
    if (!waits || p->n == MOST_PENDING)
        flush(ctx, p);
    if (!waits)
        atomic_store(&w->busy, false);
}

static void number_parts(struct kld_session *ctx, struct writer *w)
{
    size_t n = w->chunks.len, parts = 0;
    w->first_part = KLD_NEW_ARRAY(&ctx->arena, size_t, n + 1);
    for (size_t i = 0; i < n; i++) {
        w->first_part[i] = parts;
        parts += (written_size(ctx, &w->chunks.data[i]) + HASHED - 1) / HASHED;
    }
    w->first_part[n] = parts;
    w->hashes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, parts * HASH_SIZE + 1);
}

/* For the next link, which rehashes only what it patches. */
static void note_parts(struct kld_session *ctx, const struct writer *w)
{
    struct kld_incremental *inc = ctx->incremental;
    inc->nchunks = w->first_part[w->chunks.len];
    inc->chunks = KLD_NEW_ARRAY(&ctx->arena, struct kld_state_chunk, inc->nchunks);
    for (size_t i = 0; i < w->chunks.len; i++) {
        const struct kld_chunk *c = &w->chunks.data[i];
        uint64_t left = written_size(ctx, c), offset = c->section->offset + c->start;
        for (size_t k = w->first_part[i]; k < w->first_part[i + 1]; k++) {
            inc->chunks[k].offset = offset;
            inc->chunks[k].size = KLD_MIN(left, HASHED);
            memcpy(inc->chunks[k].hash, w->hashes + k * HASH_SIZE, HASH_SIZE);
            offset += HASHED;
            left -= inc->chunks[k].size;
        }
    }
}

/* Holes have to stay: who asks for a large zero-filled section with contents behind it does not want it on the
 * disk. */
static bool fills_file(const struct kld_session *ctx, const struct writer *w)
{
    uint64_t written = 0;
    for (size_t i = 0; i < w->chunks.len; i++)
        written += written_size(ctx, &w->chunks.data[i]);
    return written + CHUNK > ctx->file_size;
}

void kld_write(struct kld_session *ctx)
{
    bool small = ctx->file_size < SMALL_FILE;
    struct writer w = {.room = KLD_MIN(ctx->file_size + 2 * NEAR, small ? 4 * SMALL_CHUNK : ROOM)};
    if (ctx->options.memory_limit)
        w.room = 0;
    w.pending = KLD_NEW_ARRAY(&ctx->arena, struct pending, kld_pool_size(ctx));
    for (uint32_t i = 0; i < ctx->norder; i++)
        if (!(ctx->order[i]->flags & KLD_ATOM_ZERO))
            kld_chunks_add(&ctx->arena, &w.chunks, ctx->order[i], small ? SMALL_CHUNK : CHUNK);
    if (ctx->wants_hashes || ctx->slack)
        number_parts(ctx, &w);
    if (fills_file(ctx, &w))
        kld_output_reserve(&ctx->output);
    kld_parallel_for(ctx, w.chunks.len, 1, write_chunk, &w);
    for (unsigned i = 0; i < kld_pool_size(ctx); i++)
        flush(ctx, &w.pending[i]);
    if (ctx->slack)
        note_parts(ctx, &w);
    size_t nhashes = w.hashes ? w.first_part[w.chunks.len] : 0;
    if (!kld_has_failed(ctx))
        ctx->format->seal(ctx, w.hashes, nhashes * HASH_SIZE);
}
