#define XXH_INLINE_ALL
#include "src/names.h"
#include <xxhash.h>
#include "src/session.h"

/* Below this many names a batch is interned on the calling thread. */
enum { SMALL_BATCH = 6000, FIRST_NAMES = 8 };

/* A batch. What all threads go through is apart from the rest of the sources. */
struct scatter {
    struct kld_names *names;
    struct kld_name_source *sources;
    size_t count;
    struct kld_name_ref **refs; /* [count] */
    uint32_t **starts;          /* [count] */
};

static uint64_t hash_name(const char *ptr, size_t len)
{
    return XXH3_64bits(ptr, len);
}

static unsigned partition_of(uint64_t hash)
{
    return hash % KLD_NAME_PARTITIONS;
}

static bool same_name(const struct kld_name *n, uint64_t hash, const char *ptr, uint32_t len)
{
    return n->hash == hash && n->len == len && memcmp(n->ptr, ptr, len) == 0;
}

static uint32_t first_slot(const struct kld_name_partition *p, uint64_t hash)
{
    return (uint32_t)(hash / KLD_NAME_PARTITIONS) & p->mask;
}

/* A power of two, of at least two slots a name. */
static uint32_t slots_for(uint64_t names)
{
    uint32_t slots = 2 * FIRST_NAMES;
    while (slots < 2 * names)
        slots *= 2;
    return slots;
}

/* Enters all names into a table that is empty. */
static void fill_slots(struct kld_name_partition *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        uint32_t at = first_slot(p, p->names[i].hash);
        while (p->slots[at].number)
            at = (at + 1) & p->mask;
        p->slots[at] = (struct kld_name_slot){i + 1, (uint32_t)(p->names[i].hash >> 32)};
    }
}

/* Moves the partition to where it has room for so many names. */
static void resize(struct kld_name_partition *p, struct kld_arena *arena, uint32_t cap)
{
    struct kld_name *names = KLD_NEW_ARRAY(arena, struct kld_name, cap);
    if (p->count)
        memcpy(names, p->names, p->count * sizeof(*names));
    p->names = names;
    p->cap = cap;
    p->mask = slots_for(cap) - 1;
    p->slots = KLD_NEW_ARRAY(arena, struct kld_name_slot, p->mask + 1);
    fill_slots(p);
}

/* References to names that are taken to be the same as those of the table with the same tag in their slot, while
 * what tells whether they are is on its way to the cache. Comparing at once would wait for memory three times
 * each: 7% of a clang link. */
struct guesses {
    struct guess {
        const struct kld_name_ref *ref;
        uint32_t number;
    } list[32];
    unsigned count;
    bool wrong; /* some had the same tag alone */
};

static void check_guesses(struct guesses *g, const struct kld_name *names)
{
    for (unsigned i = 0; i < g->count; i++)
        __builtin_prefetch(names[g->list[i].number].ptr);
    for (unsigned i = 0; i < g->count; i++) {
        const struct kld_name_ref *ref = g->list[i].ref;
        g->wrong |= !same_name(&names[g->list[i].number], ref->hash, ref->ptr, ref->len);
    }
    g->count = 0;
}

static void note_guess(struct guesses *g, const struct kld_name *names,
                       const struct kld_name_ref *ref, uint32_t number)
{
    if (g->count == KLD_COUNT(g->list))
        check_guesses(g, names);
    __builtin_prefetch(&names[number]);
    __builtin_prefetch(ref->ptr);
    g->list[g->count++] = (struct guess){ref, number};
}

/* The number of the name in the partition: with `guesses`, in all likelihood. */
static uint32_t find_or_add(struct kld_name_partition *p, struct kld_arena *arena,
                            const struct kld_name_ref *ref, struct guesses *guesses)
{
    if (kld_unlikely(p->count == p->cap))
        resize(p, arena, KLD_MAX(p->cap + p->cap / 2, FIRST_NAMES));
    uint32_t tag = (uint32_t)(ref->hash >> 32);
    uint32_t at = first_slot(p, ref->hash);
    for (; p->slots[at].number; at = (at + 1) & p->mask) {
        uint32_t i = p->slots[at].number - 1;
        if (p->slots[at].tag != tag)
            continue;
        if (guesses)
            note_guess(guesses, p->names, ref, i);
        else if (!same_name(&p->names[i], ref->hash, ref->ptr, ref->len))
            continue;
        return i;
    }
    p->slots[at] = (struct kld_name_slot){p->count + 1, tag};
    p->names[p->count] = (struct kld_name){ref->ptr, ref->hash, ref->len};
    return p->count++;
}

static kld_symid make_id(unsigned partition, uint32_t number)
{
    return number * KLD_NAME_PARTITIONS + partition;
}

kld_symid kld_names_intern_one(struct kld_session *ctx, struct kld_names *names,
                               struct kld_str name)
{
    struct kld_name_ref ref = {hash_name(name.ptr, name.len), name.ptr, (uint32_t)name.len, 0};
    unsigned part = partition_of(ref.hash);
    return make_id(part, find_or_add(&names->parts[part], &ctx->arena, &ref, NULL));
}

kld_symid kld_names_find(const struct kld_names *names, struct kld_str name)
{
    uint64_t hash = hash_name(name.ptr, name.len);
    const struct kld_name_partition *p = &names->parts[partition_of(hash)];
    if (!p->mask)
        return KLD_NO_SYMBOL;
    for (uint32_t at = first_slot(p, hash); p->slots[at].number; at = (at + 1) & p->mask) {
        uint32_t i = p->slots[at].number - 1;
        if (same_name(&p->names[i], hash, name.ptr, (uint32_t)name.len))
            return make_id(partition_of(hash), i);
    }
    return KLD_NO_SYMBOL;
}

uint32_t kld_names_limit(const struct kld_names *names)
{
    uint32_t most = 0;
    for (unsigned i = 0; i < KLD_NAME_PARTITIONS; i++)
        most = KLD_MAX(most, names->parts[i].count);
    return most * KLD_NAME_PARTITIONS;
}

struct kld_str kld_names_get(const struct kld_names *names, kld_symid id)
{
    const struct kld_name_partition *p = &names->parts[id % KLD_NAME_PARTITIONS];
    uint32_t number = id / KLD_NAME_PARTITIONS;
    if (number >= p->count)
        return (struct kld_str){0};
    return (struct kld_str){p->names[number].ptr, p->names[number].len};
}

/* A counting sort */
void kld_names_scatter(struct kld_worker *worker, struct kld_name_source *src)
{
    struct kld_name_ref *unsorted = (struct kld_name_ref *)kld_worker_buffer(
        worker, KLD_MAX((size_t)src->count, 1u) * sizeof(*unsorted));
    uint32_t counts[KLD_NAME_PARTITIONS] = {0}, next[KLD_NAME_PARTITIONS], at = 0;
    src->refs = KLD_NEW_ARRAY(&worker->scratch, struct kld_name_ref, src->count);
    src->starts = KLD_NEW_ARRAY(&worker->scratch, uint32_t, KLD_NAME_PARTITIONS + 1);
    for (uint32_t n = 0; n < src->count; n++) {
        struct kld_str name = src->at(src->from, n);
        uint64_t hash = hash_name(name.ptr, name.len);
        unsorted[n] = (struct kld_name_ref){hash, name.ptr, (uint32_t)name.len, n};
        counts[partition_of(hash)]++;
    }
    for (unsigned p = 0; p < KLD_NAME_PARTITIONS; p++) {
        src->starts[p] = next[p] = at;
        at += counts[p];
    }
    src->starts[KLD_NAME_PARTITIONS] = at;
    for (uint32_t n = 0; n < src->count; n++)
        src->refs[next[partition_of(unsorted[n].hash)]++] = unsorted[n];
}

static void scatter_source(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)ctx;
    struct scatter *s = arg;
    if (!s->sources[i].starts)
        kld_names_scatter(worker, &s->sources[i]);
    s->refs[i] = s->sources[i].refs;
    s->starts[i] = s->sources[i].starts;
}

static uint64_t count_refs(const struct scatter *s, size_t p)
{
    uint64_t n = 0;
    for (size_t i = 0; i < s->count; i++)
        n += s->starts[i][p + 1] - s->starts[i][p];
    return n;
}

/* A copy of the partition in the worker's buffer, with room for n more. */
static struct kld_name_partition make_draft(struct kld_worker *worker,
                                            const struct kld_name_partition *p, uint64_t n)
{
    struct kld_name_partition draft = *p;
    uint64_t cap = p->count + n;
    uint32_t slots = slots_for(cap);
    uint8_t *buffer =
        kld_worker_buffer(worker, slots * sizeof(*p->slots) + cap * sizeof(*p->names));
    draft.slots = (struct kld_name_slot *)buffer;
    draft.names = (struct kld_name *)(buffer + slots * sizeof(*p->slots));
    draft.mask = slots - 1;
    draft.cap = (uint32_t)cap;
    memset(draft.slots, 0, slots * sizeof(*p->slots));
    if (p->count)
        memcpy(draft.names, p->names, p->count * sizeof(*p->names));
    fill_slots(&draft);
    return draft;
}

/* Asks for what later sources have for the partition, step by step: where it is, what it is, its slots. */
static void ask_ahead(const struct scatter *s, size_t p, const struct kld_name_partition *table,
                      size_t source)
{
    enum { STEP = 4 };
    if (source + STEP < s->count)
        for (uint32_t k = s->starts[source + STEP][p]; k < s->starts[source + STEP][p + 1]; k++)
            __builtin_prefetch(&table->slots[first_slot(table, s->refs[source + STEP][k].hash)]);
    if (source + 2 * STEP < s->count)
        __builtin_prefetch(&s->refs[source + 2 * STEP][s->starts[source + 2 * STEP][p]]);
    if (source + 3 * STEP < s->count)
        __builtin_prefetch(&s->starts[source + 3 * STEP][p]);
}

/* Gives ids to all that the sources have for the partition. False: a guess was wrong, and the table and the
 * ids are of no use. */
static bool enter_all(struct scatter *s, size_t p, struct kld_name_partition *table,
                      struct kld_arena *arena, bool guess)
{
    struct guesses guesses = {.count = 0};
    for (size_t i = 0; i < s->count; i++) {
        const struct kld_name_ref *refs = s->refs[i];
        kld_symid *ids = s->sources[i].ids;
        uint32_t end = s->starts[i][p + 1];
        ask_ahead(s, p, table, i);
        for (uint32_t k = s->starts[i][p]; k < end; k++)
            ids[refs[k].index] =
                make_id((unsigned)p, find_or_add(table, arena, &refs[k], guess ? &guesses : NULL));
    }
    check_guesses(&guesses, table->names);
    return !guesses.wrong;
}

/* Takes out all names but the first ones. */
static void forget_from(struct kld_name_partition *p, uint32_t count)
{
    p->count = count;
    if (p->mask)
        memset(p->slots, 0, (p->mask + 1) * sizeof(*p->slots));
    fill_slots(p);
}

/* How many names are new is not known before, only that there are three references to each, about. A partition
 * that a batch might make more than twice as large grows in a draft, and then takes what it needs: tables that were
 * grown step by step took twice the memory, 12 MB of clang's 117, 40 of 324 with 10,000 objects. Batches of archive
 * members that come later bring few new names, and are entered in place. */
static void fill_partition(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t p)
{
    (void)ctx;
    struct scatter *s = arg;
    struct kld_name_partition *part = &s->names->parts[p];
    uint64_t n = count_refs(s, p);
    bool drafted =
        part->count < n && part->count + n > part->cap && part->count + n < UINT32_MAX / 4;
    struct kld_name_partition table = drafted ? make_draft(worker, part, n) : *part;
    if (!enter_all(s, p, &table, &worker->arena, true)) {
        forget_from(&table, part->count);
        enter_all(s, p, &table, &worker->arena, false);
    }
    if (drafted && table.count > part->count)
        resize(&table, &worker->arena, table.count + table.count / 16 + FIRST_NAMES);
    if (!drafted || table.count > part->count)
        *part = table;
}

/* The first names are mostly those of an archive's index or of a shared library, each of them once. */
static void fill_small(struct scatter *s, size_t p, struct kld_arena *arena)
{
    struct kld_name_partition *part = &s->names->parts[p];
    if (!part->cap)
        resize(part, arena, (uint32_t)count_refs(s, p) + FIRST_NAMES);
    enter_all(s, p, part, arena, false);
}

static void intern_batch(struct kld_session *ctx, struct kld_names *names,
                         struct kld_name_source *sources, size_t count, size_t total)
{
    struct kld_arena *scratch = &ctx->scratch;
    struct scatter s = {.names = names, .sources = sources, .count = count};
    s.refs = KLD_NEW_ARRAY(scratch, struct kld_name_ref *, count);
    s.starts = KLD_NEW_ARRAY(scratch, uint32_t *, count);
    kld_parallel_for(ctx, count, 16, scatter_source, &s);
    if (total >= SMALL_BATCH)
        kld_parallel_for(ctx, KLD_NAME_PARTITIONS, 1, fill_partition, &s);
    else
        for (size_t p = 0; p < KLD_NAME_PARTITIONS; p++)
            fill_small(&s, p, &ctx->arena);
    kld_arena_free(scratch);
    for (unsigned w = 0; w < kld_pool_size(ctx); w++)
        kld_arena_free(&kld_pool_worker(ctx, w)->scratch);
}

void kld_names_intern(struct kld_session *ctx, struct kld_names *names,
                      struct kld_name_source *sources, size_t count)
{
    /* In several batches names get the ids that they would get in one. */
    size_t limit = ctx->options.memory_limit / 16 / sizeof(struct kld_name_ref);
    size_t most = limit ? KLD_MAX(limit, (size_t)SMALL_BATCH) : SIZE_MAX;
    for (size_t from = 0, end; from < count; from = end) {
        size_t total = 0;
        for (end = from; end < count && total < most; end++)
            total += sources[end].count;
        intern_batch(ctx, names, sources + from, end - from, total);
    }
}
