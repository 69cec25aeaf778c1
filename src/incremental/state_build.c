/* state_build.c - a new state, in pieces that are hashed and stored while they are in cache: of a large
 * program all of it together would be many pages that nothing else needs. */
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "src/incremental/state.h"
#include "src/incremental/store.h"
#include "src/session.h"

enum { PAGE = KLD_STATE_PAGE, PIECE = 64 * PAGE };

uint64_t kld_builder_text(struct kld_state_builder *b, const char *text, size_t length)
{
    uint64_t at = kld_align_up(b->text.len, 8), end = at + length + 1;
    if (end > b->text.cap) {
        b->text.cap = KLD_MAX(2 * b->text.cap, end + PAGE);
        uint8_t *more = kld_arena_array(&b->ctx->arena, b->text.cap, 1, 8);
        if (b->text.len)
            memcpy(more, b->text.data, b->text.len);
        b->text.data = more;
    }
    memcpy(b->text.data + at, text, length);
    b->text.len = b->heap = end;
    return at;
}

void kld_builder_table(struct kld_state_builder *b, enum kld_state_table table, const void *data,
                       uint64_t count, uint32_t stride)
{
    b->tables[table].data = data;
    b->tables[table].count = count;
    b->tables[table].stride = stride;
}

static void add_part(struct kld_state_builder *b, const struct kld_state_part *part)
{
    *kld_vec_push(&b->ctx->arena, &b->parts) = *part;
}

void kld_builder_symbols(struct kld_state_builder *b, uint64_t count, kld_state_compose *compose,
                         void *arg)
{
    enum { STRIDE = sizeof(struct kld_state_symbol), AT_ONCE = PIECE / STRIDE };
    static_assert(PIECE % STRIDE == 0, "symbols fill whole pages");
    kld_builder_table(b, KLD_T_SYMBOLS, NULL, count, STRIDE);
    for (uint64_t first = 0; first < count; first += AT_ONCE) {
        uint64_t n = KLD_MIN(count - first, (uint64_t)AT_ONCE);
        add_part(b, &(struct kld_state_part){KLD_T_SYMBOLS, first * STRIDE, n * STRIDE, first, n,
                                             compose, arg});
    }
}

uint64_t kld_builder_contents(struct kld_state_builder *b, uint64_t size, uint64_t first,
                              uint64_t count, kld_state_compose *compose, void *arg)
{
    uint64_t at = kld_align_up(b->heap, PAGE);
    add_part(b, &(struct kld_state_part){KLD_T_HEAP, at, size, first, count, compose, arg});
    b->heap = at + size;
    return at;
}

/* ---- writing ---- */

struct job {
    const struct kld_state_builder *b;
    struct kld_store_writer *to;
    uint64_t *sums;
    uint64_t ends[2]; /* of what is in memory: the tables, then the heap's text */
    size_t pieces[2]; /* that they are written in; those of the parts come after */
};

/* What is made of parts begins at a page, so that no page has two writers. */
static uint64_t place_tables(struct kld_state_builder *b, uint64_t at)
{
    struct kld_state_header *h = &b->header;
    for (int i = 0; i < KLD_STATE_TABLES; i++) {
        uint64_t size = b->tables[i].count * b->tables[i].stride;
        at = kld_align_up(at, i < KLD_T_SYMBOLS ? 8 : PAGE);
        h->tables[i].offset = at;
        h->tables[i].count = h->tables[i].capacity = b->tables[i].count;
        h->tables[i].stride = b->tables[i].stride;
        at += size;
    }
    return kld_align_up(at, PAGE);
}

/* What the tables in memory have in [from, from + size). */
static void copy_tables(const struct kld_state_builder *b, uint64_t from, uint64_t size,
                        uint8_t *out)
{
    for (int i = 0; i < KLD_STATE_TABLES; i++) {
        const uint8_t *data = i == KLD_T_HEAP ? b->text.data : b->tables[i].data;
        uint64_t length = i == KLD_T_HEAP ? b->text.len : b->tables[i].count * b->tables[i].stride;
        uint64_t at = b->header.tables[i].offset;
        uint64_t start = KLD_MAX(at, from), end = KLD_MIN(at + length, from + size);
        if (data && start < end)
            memcpy(out + (start - from), data + (start - at), end - start);
    }
}

static void put(struct job *job, uint64_t at, const uint8_t *bytes, uint64_t size)
{
    for (uint64_t page = 0; page < size / PAGE; page++)
        job->sums[at / PAGE + page] = XXH3_64bits(bytes + page * PAGE, PAGE);
    kld_store_put(job->to, at, bytes, size);
}

static void write_part(struct job *job, struct kld_worker *w, const struct kld_state_part *part)
{
    uint64_t size = kld_align_up(part->size, PAGE);
    uint8_t *buffer = kld_worker_buffer(w, size);
    memset(buffer, 0, size);
    part->compose(part->arg, part->first, part->count, buffer);
    put(job, job->b->header.tables[part->table].offset + part->offset, buffer, size);
}

static void write_piece(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)ctx;
    struct job *job = arg;
    const struct kld_state_header *h = &job->b->header;
    size_t in_memory = job->pieces[0] + job->pieces[1];
    if (i >= in_memory) {
        write_part(job, w, &job->b->parts.data[i - in_memory]);
        return;
    }
    bool text = i >= job->pieces[0];
    uint64_t at = text ? h->tables[KLD_T_HEAP].offset + (i - job->pieces[0]) * PIECE
                       : h->sums + h->sums_capacity * 8 + i * PIECE;
    uint64_t size = KLD_MIN(job->ends[text] - at, (uint64_t)PIECE);
    uint8_t *buffer = kld_worker_buffer(w, size);
    memset(buffer, 0, size);
    copy_tables(job->b, at, size, buffer);
    put(job, at, buffer, size);
}

static void write_pieces(struct job *job)
{
    const struct kld_state_header *h = &job->b->header;
    uint64_t starts[2] = {h->sums + h->sums_capacity * 8, h->tables[KLD_T_HEAP].offset};
    job->ends[0] = h->tables[KLD_T_SYMBOLS].offset;
    job->ends[1] = starts[1] + kld_align_up(job->b->text.len, PAGE);
    for (int i = 0; i < 2; i++)
        job->pieces[i] = (job->ends[i] - starts[i] + PIECE - 1) / PIECE;
    kld_parallel_for(job->b->ctx, job->pieces[0] + job->pieces[1] + job->b->parts.len, 1,
                     write_piece, job);
}

bool kld_builder_write(struct kld_state_builder *b, const kld_state_store *store,
                       const atomic_bool *invalid)
{
    struct kld_state_header *h = &b->header;
    struct kld_store_writer to;
    kld_builder_table(b, KLD_T_HEAP, NULL, b->heap, 1);
    kld_state_stamp(h);
    uint64_t size = place_tables(b, 0);
    /* Room for a state that doubles before a full link makes a new one. */
    h->sums_capacity = kld_align_up(2 * (size / PAGE) + 512, PAGE / 8);
    h->sums = PAGE;
    h->heap_used = b->heap;
    h->length = place_tables(b, PAGE + h->sums_capacity * 8);
    uint8_t *head = KLD_NEW_ARRAY(&b->ctx->arena, uint8_t, PAGE + h->sums_capacity * 8);
    struct job job = {.b = b, .to = &to, .sums = (uint64_t *)(head + PAGE)};
    if (!kld_store_begin(b->ctx, store, h->length, &to))
        return false;
    write_pieces(&job);
    h->sums_hash = XXH3_64bits(job.sums, h->sums_capacity * 8);
    h->hash = kld_state_header_hash(h);
    memcpy(head, h, sizeof(*h));
    kld_store_put(&to, 0, head, PAGE + h->sums_capacity * 8);
    return kld_store_end(&to, !atomic_load(invalid));
}
