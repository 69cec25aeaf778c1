#define XXH_INLINE_ALL
#include "src/names.h"
#include <xxhash.h>
#include "src/session.h"

/* Below this many names a batch is interned one by one on the calling thread. */
enum { SMALL_BATCH = 20000, FIRST_SLOTS = 16, FILES_AT_ONCE = 16 };

/* A name on its way to its partition. */
struct name_ref {
    uint64_t hash;
    const char *ptr;
    uint32_t len;
    uint32_t index; /* in its source */
};

struct scatter {
    struct kld_names *names;
    struct kld_name_source *sources;
    size_t count;
    struct name_ref **refs;                      /* [count] sorted by partition */
    uint32_t (*starts)[KLD_NAME_PARTITIONS + 1]; /* [count] */
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

static void grow(struct kld_name_partition *p, struct kld_arena *arena)
{
    uint32_t slots = p->mask ? (p->mask + 1) * 2 : FIRST_SLOTS;
    p->mask = slots - 1;
    p->slots = KLD_NEW_ARRAY(arena, struct kld_name_slot, slots);
    struct kld_name *names = KLD_NEW_ARRAY(arena, struct kld_name, slots / 2);
    if (p->count)
        memcpy(names, p->names, p->count * sizeof(*names));
    p->names = names;
    p->cap = slots / 2;
    for (uint32_t i = 0; i < p->count; i++) {
        uint32_t at = first_slot(p, names[i].hash);
        while (p->slots[at].number)
            at = (at + 1) & p->mask;
        p->slots[at] = (struct kld_name_slot){i + 1, (uint32_t)(names[i].hash >> 32)};
    }
}

static uint32_t find_or_add(struct kld_name_partition *p, struct kld_arena *arena, uint64_t hash,
                            const char *ptr, uint32_t len)
{
    if (kld_unlikely(p->count == p->cap))
        grow(p, arena);
    uint32_t tag = (uint32_t)(hash >> 32);
    uint32_t at = first_slot(p, hash);
    for (; p->slots[at].number; at = (at + 1) & p->mask) {
        uint32_t i = p->slots[at].number - 1;
        if (p->slots[at].tag == tag && same_name(&p->names[i], hash, ptr, len))
            return i;
    }
    p->slots[at] = (struct kld_name_slot){p->count + 1, tag};
    p->names[p->count] = (struct kld_name){ptr, hash, len};
    return p->count++;
}

static kld_symid make_id(unsigned partition, uint32_t number)
{
    return number * KLD_NAME_PARTITIONS + partition;
}

kld_symid kld_names_intern_one(struct kld_session *ctx, struct kld_names *names,
                               struct kld_str name)
{
    uint64_t hash = hash_name(name.ptr, name.len);
    unsigned part = partition_of(hash);
    return make_id(
        part, find_or_add(&names->parts[part], &ctx->arena, hash, name.ptr, (uint32_t)name.len));
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

/* Hashes the names of one source and sorts them by partition (counting sort). */
static void scatter_source(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)ctx;
    struct scatter *s = arg;
    struct kld_name_source *src = &s->sources[i];
    struct name_ref *refs = s->refs[i];
    uint32_t *starts = s->starts[i];
    struct name_ref *unsorted =
        (struct name_ref *)kld_worker_buffer(worker, (size_t)src->count * sizeof(*unsorted));
    uint32_t counts[KLD_NAME_PARTITIONS] = {0};
    for (uint32_t n = 0; n < src->count; n++) {
        struct kld_str name = src->at(src->from, n);
        uint64_t hash = hash_name(name.ptr, name.len);
        unsorted[n] = (struct name_ref){hash, name.ptr, (uint32_t)name.len, n};
        counts[partition_of(hash)]++;
    }
    uint32_t next[KLD_NAME_PARTITIONS];
    uint32_t at = 0;
    for (unsigned p = 0; p < KLD_NAME_PARTITIONS; p++) {
        starts[p] = next[p] = at;
        at += counts[p];
    }
    starts[KLD_NAME_PARTITIONS] = at;
    for (uint32_t n = 0; n < src->count; n++)
        refs[next[partition_of(unsorted[n].hash)]++] = unsorted[n];
}

static void fill_partition(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t p)
{
    (void)ctx;
    struct scatter *s = arg;
    struct kld_name_partition *part = &s->names->parts[p];
    for (size_t i = 0; i < s->count; i++) {
        const struct name_ref *refs = s->refs[i];
        kld_symid *ids = s->sources[i].ids;
        uint32_t end = s->starts[i][p + 1];
        for (uint32_t k = s->starts[i][p]; k < end; k++)
            ids[refs[k].index] =
                make_id((unsigned)p,
                        find_or_add(part, &worker->arena, refs[k].hash, refs[k].ptr, refs[k].len));
    }
}

static void intern_parallel(struct kld_session *ctx, struct kld_names *names,
                            struct kld_name_source *sources, size_t count, size_t total)
{
    struct kld_arena *scratch = &ctx->scratch;
    struct scatter s = {.names = names, .sources = sources, .count = count};
    s.refs = KLD_NEW_ARRAY(scratch, struct name_ref *, count);
    s.starts = kld_arena_array(scratch, count, sizeof(*s.starts), 8);
    struct name_ref *all = KLD_NEW_ARRAY(scratch, struct name_ref, total);
    for (size_t i = 0; i < count; i++) {
        s.refs[i] = all;
        all += sources[i].count;
    }
    kld_parallel_for(ctx, count, 1, scatter_source, &s);
    kld_parallel_for(ctx, KLD_NAME_PARTITIONS, 1, fill_partition, &s);
    kld_arena_free(scratch);
}

void kld_names_intern(struct kld_session *ctx, struct kld_names *names,
                      struct kld_name_source *sources, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += sources[i].count;
    if (total >= SMALL_BATCH) {
        intern_parallel(ctx, names, sources, count, total);
        return;
    }
    for (size_t i = 0; i < count; i++)
        for (uint32_t n = 0; n < sources[i].count; n++)
            sources[i].ids[n] = kld_names_intern_one(ctx, names, sources[i].at(sources[i].from, n));
}
