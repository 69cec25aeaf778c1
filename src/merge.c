/* merge.c - mergeable sections: equal strings and constants of all inputs are kept once.
 *
 * Needs the final live set. Afterwards every live mergeable section knows, for each of its
 * pieces, the offset of the one copy that is kept, and the copies are ordinary generated atoms.
 *
 * Debug information makes this one of the largest passes: a build with -g has tens of millions of
 * strings, most of them many times over. What follows from that:
 *
 * - The bytes of a section are gone through once: while they are in the cache, they are cut up
 *   (zero bytes are found 64 at a time), hashed, and looked up.
 * - Pieces are told apart by 96 bits of an XXH3-128 hash. Comparing bytes as well would touch two
 *   more lines of memory a piece, for a chance of error that is 1 in 10^13 with 10^8 pieces.
 * - The hash table is one for all threads, without locks. It grows as it fills, in a pause between
 *   two runs of the loop: its size follows the number of different pieces, which becomes clear by and by.
 *   A slot leads to an `entry`, whose number stays when the table grows.
 * - The entry holds the piece that comes first in input order of those that are equal (`leader`),
 *   whoever inserted it first, so that nothing depends on the timing.
 * - Leaders are laid out in input order. So in any section the leaders are those pieces whose
 *   place is the running end of what was placed before, and writing needs no list of them.
 *
 * A piece costs eight bytes for good, and a few for a while. Pieces are merged within a group:
 * same output section, character size, kind and alignment. All numbers of a group count in
 * characters (or constants), not bytes: 32 bits go further. */
#define XXH_INLINE_ALL
#include "src/layout.h"
#include "src/merge.h"
#include <xxhash.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    SERIAL_BELOW = 512 << 10, /* bytes in all: not worth a thread */
    PART = 256 << 10,         /* bytes in an atom of merged contents, about */
    BATCH = 32,               /* pieces hashed before the first is looked up: hides the misses */
    FIRST_SLOTS = 8192,
    AHEAD = 8,
};

/* In list[].out while leaders are being chosen: this piece is the leader of its entry. */
#define LEADER (1u << 31)
/* A group is closed when it holds that many characters: positions and entries fit in 31 bits. */
#define GROUP_UNITS ((1u << 31) - 16)

/* The key is taken first, then the value; whoever sets that decides whose slot it is. */
struct slot {
    _Atomic uint64_t key;   /* 64 bits of the hash; 0: free */
    _Atomic uint64_t value; /* 32 more bits << 32 | 1 + number of the entry; 0: not yet */
};

struct group {
    uint32_t section, entsize;
    uint8_t flags, p2align;
    bool strings;
    bool aligned; /* pieces must start at more than a multiple of entsize */
    bool closed;
    uint32_t number;
    uint32_t step;           /* characters between places that have the whole alignment */
    uint32_t ninputs, first; /* its part of merger.inputs */
    uint32_t units;          /* characters so far */
    /* While merging */
    struct slot *slots;
    uint64_t nslots;           /* a power of two */
    _Atomic uint32_t *entries; /* position of the leader; then its place */
    uint32_t block;            /* entries that a thread takes at a time */
    uint32_t limit;            /* entries before the table has to grow */
    uint64_t done;             /* characters that had been looked up when it grew last, */
    bool doubled;              /* and whether that was by two */
    double ratio; /* how many times the characters it took to fill a table twice as large, or 0 */
    _Atomic uint32_t taken;
    _Atomic bool full;
    struct part *parts; /* [total / part_units + 1] */
    /* Afterwards */
    struct input *inputs;
    uint32_t total;
};

/* A live section. Its piece k has position start + k in its group. */
struct input {
    struct kld_atom *atom;
    struct group *group;
    uint32_t start; /* position in the group */
    uint32_t next;  /* pieces that have been looked up */
    uint32_t base;  /* where its leaders begin in the output */
    uint32_t units; /* what they take up */
};

/* A run of merged contents: one generated atom. It starts with the leader `piece` of an input. */
struct part {
    struct group *group;
    uint32_t input; /* in the group */
    uint32_t piece;
    uint32_t start, end; /* places, in characters */
};

/* Entries that one thread may use next. */
struct supply {
    uint32_t next, end;
};

struct merger {
    struct input *inputs;
    size_t ninputs;
    KLD_VEC(struct group *) groups;
    struct supply *supplies; /* [worker * groups.len + group] */
};

struct found {
    struct kld_atom **atoms;
    uint32_t count;
};

/* ---- pieces of a section ---- */

/* Bit i: byte i of the 64 at p is zero. */
static inline uint64_t zero_bytes(const uint8_t *p)
{
    uint64_t bits = 0;
#ifdef __SSE2__
    for (unsigned i = 0; i < 64; i += 16) {
        __m128i v = _mm_loadu_si128((const void *)(p + i));
        unsigned m = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_setzero_si128()));
        bits |= (uint64_t)m << i;
    }
#else
    const uint64_t low = 0x7f7f7f7f7f7f7f7f;
    for (unsigned i = 0; i < 64; i += 8) {
        uint64_t v = kld_get64(p + i);
        v = ~(((v & low) + low) | v | low); /* 0x80 where the byte is zero */
        bits |= (v >> 7) * 0x0102040810204080 >> 56 << i;
    }
#endif
    return bits;
}

static bool is_zero(const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (p[i])
            return false;
    return true;
}

/* Bit i: character i of the up to 64 at p is zero. */
static inline uint64_t zero_characters(const uint8_t *p, uint32_t entsize, size_t count)
{
    if (kld_likely(entsize == 1 && count >= 64))
        return zero_bytes(p);
    uint64_t bits = 0;
    for (size_t i = 0; i < KLD_MIN(count, 64u); i++)
        bits |= (uint64_t)is_zero(p + i * entsize, entsize) << i;
    return bits;
}

static uint32_t popcount(uint64_t v)
{
    v -= v >> 1 & 0x5555555555555555;
    v = (v & 0x3333333333333333) + (v >> 2 & 0x3333333333333333);
    return (uint32_t)(((v + (v >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56);
}

static uint32_t unit_count(const struct kld_atom *atom)
{
    return (uint32_t)(atom->size / atom->pieces->entsize);
}

static void bad_section(struct kld_session *ctx, const struct kld_atom *atom, const char *text)
{
    struct kld_where where = {
        .file = atom->file,
        .section = ctx->sections.data[atom->section]->name,
        .order = atom->input_index,
    };
    kld_error(ctx, "bad-mergeable-section", &where, "%s", text);
}

/* Makes the list of a section's pieces, still empty. Strings end with a zero character each. */
static void make_list(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom)
{
    struct kld_pieces *p = atom->pieces;
    uint32_t units = unit_count(atom), count = units;
    if (p->strings) {
        count = 0;
        for (uint32_t at = 0; at < units; at += 64)
            count += popcount(
                zero_characters(atom->data + (size_t)at * p->entsize, p->entsize, units - at));
        if (!is_zero(atom->data + (size_t)(units - 1) * p->entsize, p->entsize)) {
            bad_section(ctx, atom, "string is not null terminated");
            count++;
        }
        p->directory =
            KLD_NEW_ARRAY(&worker->arena, uint32_t, (units - 1) / KLD_PIECES_DIRECTORY + 1);
    }
    p->count = count;
    p->list = KLD_NEW_ARRAY(&worker->arena, struct kld_piece, (size_t)count + 1);
    p->list[count].start = units;
}

/* Finds where pieces end, one after the other. */
struct scanner {
    const uint8_t *data;
    uint64_t zeros; /* of the 64 characters at `at`, those that are not behind us */
    uint32_t at, units, entsize;
    bool strings;
};

static struct scanner scan_from(const struct kld_atom *atom, uint32_t start)
{
    const struct kld_pieces *p = atom->pieces;
    struct scanner s = {.data = atom->data,
                        .at = start & ~63u,
                        .units = unit_count(atom),
                        .entsize = p->entsize,
                        .strings = p->strings};
    if (s.strings && s.at < s.units)
        s.zeros = zero_characters(s.data + (size_t)s.at * s.entsize, s.entsize, s.units - s.at) &
                  UINT64_MAX << start % 64;
    return s;
}

/* The end of the piece at `start`, which is the next one. */
static inline uint32_t scan_end(struct scanner *s, uint32_t start)
{
    if (!s->strings)
        return start + 1;
    while (!s->zeros) {
        s->at += 64;
        if (s->at >= s->units)
            return s->units;
        s->zeros =
            zero_characters(s->data + (size_t)s->at * s->entsize, s->entsize, s->units - s->at);
    }
    uint32_t end = s->at + (uint32_t)__builtin_ctzll(s->zeros) + 1;
    s->zeros &= s->zeros - 1;
    return end;
}

/* ---- alignment ---- */

/* Log2 of what a piece may be aligned to: what its offset in its section had promised. */
static unsigned piece_alignment(const struct group *g, uint32_t at)
{
    uint64_t offset = (uint64_t)at * g->entsize;
    return offset ? KLD_MIN((unsigned)__builtin_ctzll(offset), g->p2align) : g->p2align;
}

/* The first place from `place` on that is aligned as the piece at `at` was. */
static uint64_t aligned_place(const struct group *g, uint64_t place, uint32_t at)
{
    unsigned want = piece_alignment(g, at), have = (unsigned)__builtin_ctz(g->entsize);
    return want > have ? kld_align_up(place, 1ull << (want - have)) : place;
}

/* ---- groups ---- */

static struct group *group_of(struct kld_session *ctx, struct merger *m,
                              const struct kld_atom *atom, uint32_t units)
{
    const uint8_t kept =
        KLD_ATOM_ALLOC | KLD_ATOM_WRITE | KLD_ATOM_EXEC | KLD_ATOM_TLS | KLD_ATOM_DEBUG;
    const struct kld_pieces *p = atom->pieces;
    for (size_t i = 0; i < m->groups.len; i++) {
        struct group *g = m->groups.data[i];
        if (g->section != atom->section || g->entsize != p->entsize || g->strings != p->strings ||
            g->p2align != atom->p2align || g->flags != (atom->flags & kept) || g->closed)
            continue;
        if (units <= GROUP_UNITS - g->units)
            return g;
        g->closed = true;
    }
    struct group *g = KLD_NEW(&ctx->arena, struct group);
    unsigned have = (unsigned)__builtin_ctz(p->entsize);
    *g = (struct group){.section = atom->section,
                        .entsize = p->entsize,
                        .flags = atom->flags & kept,
                        .p2align = atom->p2align,
                        .strings = p->strings,
                        .aligned = atom->p2align > have,
                        .step = 1,
                        .number = (uint32_t)m->groups.len};
    if (g->aligned)
        g->step = 1u << KLD_MIN(atom->p2align - have, 31u);
    *kld_vec_push(&ctx->arena, &m->groups) = g;
    return g;
}

static void find_inputs(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    struct found *found = (struct found *)arg + i;
    struct kld_file *file = ctx->files[i];
    KLD_VEC(struct kld_atom *) v = {0};
    for (uint32_t k = 0; k < file->natoms; k++)
        if (file->atoms[k].kind == KLD_ATOM_PIECES && file->atoms[k].live)
            *kld_vec_push(&worker->arena, &v) = &file->atoms[k];
    found->atoms = v.data;
    found->count = (uint32_t)v.len;
}

/* Whether the section can be cut up at all; reports it if not. */
static bool check_input(struct kld_session *ctx, struct kld_atom *atom)
{
    const struct kld_pieces *p = atom->pieces;
    if (atom->size / p->entsize > GROUP_UNITS - 1) {
        bad_section(ctx, atom, "mergeable section is too large");
        return false;
    }
    if (atom->size % p->entsize) {
        bad_section(ctx, atom, "size of mergeable section is not a multiple of its entry size");
        return false;
    }
    return true;
}

/* With slack: what one file brings to each section, at most. */
static void note_largest(struct kld_session *ctx, const struct found *found)
{
    struct sum {
        uint64_t size;
        uint32_t file; /* 1 + index of the file that it is of */
    } *sums = KLD_NEW_ARRAY(&ctx->scratch, struct sum, ctx->sections.len);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        for (uint32_t k = 0; k < found[f].count; k++) {
            const struct kld_atom *atom = found[f].atoms[k];
            struct kld_section *s = ctx->sections.data[atom->section];
            struct sum *sum = &sums[atom->section];
            if (sum->file != f + 1)
                *sum = (struct sum){.file = f + 1};
            sum->size += atom->size;
            s->largest = KLD_MAX(s->largest, sum->size);
        }
}

/* All live mergeable sections, by group, in input order. */
static void gather(struct kld_session *ctx, struct merger *m)
{
    struct found *found = KLD_NEW_ARRAY(&ctx->scratch, struct found, ctx->nfiles);
    kld_parallel_for(ctx, ctx->nfiles, 64, find_inputs, found);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        m->ninputs += found[f].count;
    if (ctx->slack)
        note_largest(ctx, found);
    struct input *inputs = KLD_NEW_ARRAY(&ctx->scratch, struct input, m->ninputs);
    size_t n = 0;
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        for (uint32_t k = 0; k < found[f].count; k++) {
            struct kld_atom *atom = found[f].atoms[k];
            if (!check_input(ctx, atom))
                continue;
            struct group *g = group_of(ctx, m, atom, unit_count(atom));
            inputs[n++] = (struct input){.atom = atom, .group = g, .start = g->units};
            g->ninputs++;
            g->units += unit_count(atom);
        }
    m->ninputs = n;
    m->inputs = KLD_NEW_ARRAY(&ctx->arena, struct input, n);
    uint32_t first = 0;
    for (size_t i = 0; i < m->groups.len; i++) {
        struct group *g = m->groups.data[i];
        g->inputs = m->inputs + first;
        g->first = first;
        first += g->ninputs;
        g->ninputs = 0;
    }
    for (size_t i = 0; i < n; i++)
        inputs[i].group->inputs[inputs[i].group->ninputs++] = inputs[i];
}

/* ---- the table ---- */

static void set_size(struct kld_session *ctx, struct group *g, uint64_t nslots)
{
    _Atomic uint32_t *old = g->entries;
    uint32_t used = g->limit;
    g->nslots = nslots;
    g->slots = KLD_NEW_ARRAY(&ctx->scratch, struct slot, nslots);
    g->limit = (uint32_t)KLD_MIN(nslots / 8 * 5, LEADER - 1);
    g->block = KLD_MIN(KLD_MAX(g->limit / 256, 1u), 64u);
    g->limit -= g->limit % g->block;
    g->entries = KLD_NEW_ARRAY(&ctx->scratch, _Atomic uint32_t, g->limit);
    if (used)
        memcpy((void *)g->entries, (void *)old, used * sizeof(*old));
    g->taken = used;
    g->full = false;
}

/* Small, but with room for a key that each thread may have taken in vain. */
static void make_table(struct kld_session *ctx, struct group *g)
{
    uint64_t nslots = 64 + 4ull * KLD_MIN(g->ninputs, kld_pool_size(ctx));
    nslots = KLD_MAX(nslots, KLD_MIN(g->units / 8, (uint32_t)FIRST_SLOTS));
    set_size(ctx, g, 1ull << (kld_log2(nslots - 1) + 1));
}

static inline uint64_t home_slot(const struct group *g, XXH128_hash_t hash)
{
    return hash.low64 >> 20 & (g->nslots - 1);
}

static inline uint64_t key_of(XXH128_hash_t hash)
{
    return hash.low64 | 1; /* never 0 */
}

struct move {
    const struct group *group;
    const struct slot *slots; /* of the smaller table, */
    uint64_t nslots;          /* and how many it has */
};

enum { MOVED = 4096 }; /* slots at a time */

static void move_slots(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t block)
{
    (void)ctx, (void)worker;
    const struct move *m = arg;
    const struct group *g = m->group;
    uint64_t end = KLD_MIN((block + 1) * MOVED, m->nslots);
    for (uint64_t k = block * MOVED; k < end; k++) {
        uint64_t value = m->slots[k].value, key = m->slots[k].key, none = 0;
        if (!value)
            continue;
        uint64_t i = key >> 20 & (g->nslots - 1);
        while (!atomic_compare_exchange_strong_explicit(
            &g->slots[i].key, &none, key, memory_order_relaxed, memory_order_relaxed)) {
            i = (i + 1) & (g->nslots - 1);
            none = 0;
        }
        atomic_store_explicit(&g->slots[i].value, value, memory_order_relaxed);
    }
}

static uint64_t characters_done(const struct group *g)
{
    uint64_t done = 0;
    for (uint32_t i = 0; i < g->ninputs; i++) {
        const struct input *in = &g->inputs[i];
        done += in->next ? in->atom->pieces->list[in->next].start : 0;
    }
    return done;
}

/* By how much the table of a group grows that is full: by two, and from then on by as many times two as the rest
 * of the characters will need, if twice as many different pieces take as many times the characters as they did; at
 * most by 16, since the rest may be more of the same, unless hardly a piece was so far. Each growth saved is a pause,
 * and memory that is cleared for nothing: of links with debug information 2%. */
static uint64_t growth(struct group *g)
{
    uint64_t done = characters_done(g), factor = 2;
    if (g->doubled && g->done)
        g->ratio = (double)done / (double)g->done;
    double reached = (double)done * g->ratio;
    uint64_t most = g->ratio < 2.2 ? 128 : 16;
    for (; g->ratio > 1.5 && reached < g->units && factor < most; reached *= g->ratio)
        factor *= 2;
    g->done = done;
    g->doubled = factor == 2;
    return factor;
}

/* Between two runs: makes room in the groups that need it. False if none does. */
static bool grow_tables(struct kld_session *ctx, const struct merger *m)
{
    bool any = false;
    for (size_t i = 0; i < m->groups.len; i++) {
        struct group *g = m->groups.data[i];
        if (!g->full)
            continue;
        struct move move = {.group = g, .slots = g->slots, .nslots = g->nslots};
        set_size(ctx, g, g->nslots * growth(g));
        kld_parallel_for(ctx, (move.nslots + MOVED - 1) / MOVED, 4, move_slots, &move);
        any = true;
    }
    return any;
}

/* ---- looking up ---- */

static bool take_entries(struct group *g, struct supply *supply)
{
    uint32_t first = atomic_load_explicit(&g->taken, memory_order_relaxed);
    do {
        if (first >= g->limit) {
            g->full = true;
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&g->taken, &first, first + g->block,
                                                    memory_order_relaxed, memory_order_relaxed));
    *supply = (struct supply){first, first + g->block};
    return true;
}

/* The piece at that position leads no more: an equal one before it has come. */
static void demote(const struct group *g, uint32_t position)
{
    uint32_t lo = 0, hi = g->ninputs - 1;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo + 1) / 2;
        if (g->inputs[mid].start <= position)
            lo = mid;
        else
            hi = mid - 1;
    }
    g->inputs[lo].atom->pieces->list[position - g->inputs[lo].start].out &= ~LEADER;
}

/* Finds the piece's entry, or makes one, and notes it in *out. A piece is noted as the leader
 * before the table says so: the thread that finds it there may have to take that back. False if
 * the table must grow first. */
static bool look_up(struct group *g, struct supply *supply, XXH128_hash_t hash, uint32_t position,
                    uint32_t *out)
{
    uint64_t key = key_of(hash), check = hash.high64 & UINT64_MAX << 32;
    for (uint64_t i = home_slot(g, hash);; i = (i + 1) & (g->nslots - 1)) {
        struct slot *slot = &g->slots[i];
        uint64_t k = atomic_load_explicit(&slot->key, memory_order_relaxed);
        if (!k && atomic_compare_exchange_strong_explicit(&slot->key, &k, key, memory_order_relaxed,
                                                          memory_order_relaxed))
            k = key;
        if (k != key)
            continue;
        uint64_t v = atomic_load_explicit(&slot->value, memory_order_acquire);
        if (!v) {
            if (supply->next == supply->end && !take_entries(g, supply))
                return false;
            uint32_t entry = supply->next;
            atomic_store_explicit(&g->entries[entry], position, memory_order_relaxed);
            *out = entry | LEADER;
            if (atomic_compare_exchange_strong_explicit(&slot->value, &v, check | (entry + 1),
                                                        memory_order_acq_rel,
                                                        memory_order_acquire)) {
                supply->next++;
                return true;
            }
        }
        if ((v & UINT64_MAX << 32) != check)
            continue;
        uint32_t entry = (uint32_t)v - 1;
        uint32_t leader = atomic_load_explicit(&g->entries[entry], memory_order_relaxed);
        while (position < leader) {
            *out = entry | LEADER;
            if (atomic_compare_exchange_weak_explicit(&g->entries[entry], &leader, position,
                                                      memory_order_acq_rel, memory_order_acquire)) {
                demote(g, leader);
                return true;
            }
        }
        *out = entry;
        return true;
    }
}

/* Cuts off and hashes the next n pieces, and asks for the memory that looking them up will need. */
static void hash_batch(const struct input *in, struct scanner *s, uint32_t k, uint32_t n,
                       XXH128_hash_t *hashes)
{
    const struct group *g = in->group;
    struct kld_piece *list = in->atom->pieces->list;
    for (uint32_t j = 0; j < n; j++) {
        uint32_t start = list[k + j].start, end = scan_end(s, start);
        list[k + j + 1].start = end;
        hashes[j] =
            XXH3_128bits(s->data + (size_t)start * s->entsize, (size_t)(end - start) * s->entsize);
        if (g->aligned)
            hashes[j].low64 += piece_alignment(g, start) * 0x9e3779b97f4a7c15;
        __builtin_prefetch(&g->slots[home_slot(g, hashes[j])]);
    }
}

static void merge_input(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    struct merger *m = arg;
    struct input *in = &m->inputs[i];
    struct group *g = in->group;
    struct kld_pieces *p = in->atom->pieces;
    if (g->full || !unit_count(in->atom))
        return;
    if (!p->list)
        make_list(ctx, worker, in->atom);
    if (in->next == p->count)
        return;
    struct supply *supply = &m->supplies[worker->index * m->groups.len + g->number];
    struct scanner s = scan_from(in->atom, p->list[in->next].start);
    XXH128_hash_t hashes[BATCH];
    while (in->next < p->count) {
        uint32_t k = in->next, n = KLD_MIN(p->count - k, (uint32_t)BATCH);
        hash_batch(in, &s, k, n, hashes);
        for (uint32_t j = 0; j < n; j++, in->next++)
            if (!look_up(g, supply, hashes[j], in->start + k + j, &p->list[k + j].out))
                return;
    }
}

/* ---- places ---- */

/* What the leaders of a section take up, given that they begin at a multiple of g->step. */
static void measure(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)ctx, (void)worker;
    struct input *in = &((struct merger *)arg)->inputs[i];
    const struct kld_pieces *p = in->atom->pieces;
    uint64_t end = 0;
    for (uint32_t k = 0; k < p->count; k++)
        if (p->list[k].out & LEADER) {
            if (in->group->aligned)
                end = aligned_place(in->group, end, p->list[k].start);
            end += p->list[k + 1].start - p->list[k].start;
        }
    in->units = (uint32_t)KLD_MIN(end, UINT32_MAX);
}

static uint32_t part_units(const struct group *g)
{
    return KLD_MAX(PART / g->entsize, 1u);
}

static void place_group(struct kld_session *ctx, struct group *g)
{
    uint64_t at = 0;
    for (uint32_t k = 0; k < g->ninputs; k++) {
        struct input *in = &g->inputs[k];
        in->base = (uint32_t)at;
        if (in->units) {
            at = kld_align_up(at, g->step);
            in->base = (uint32_t)at;
            at += in->units;
        }
        if (at > UINT32_MAX) {
            bad_section(ctx, in->atom, "merged section is too large");
            at = 0;
        }
    }
    g->total = (uint32_t)at;
    g->parts = KLD_NEW_ARRAY(&ctx->scratch, struct part, g->total / part_units(g) + 1);
}

/* A new part begins at the first leader at or behind every multiple of part_units. */
static void start_parts(struct part *parts, uint32_t from, uint32_t to, const struct part *start)
{
    for (uint32_t j = from; j <= to; j++)
        if (!parts[j].group)
            parts[j] = *start;
}

static void place_leaders(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)ctx, (void)worker;
    struct input *in = &((struct merger *)arg)->inputs[i];
    struct group *g = in->group;
    const struct kld_pieces *p = in->atom->pieces;
    if (!in->units)
        return;
    uint64_t place = in->base;
    uint32_t unit = part_units(g), last = in->base / unit;
    for (uint32_t k = 0; k < p->count; k++) {
        if (!(p->list[k].out & LEADER))
            continue;
        if (g->aligned)
            place = aligned_place(g, place, p->list[k].start);
        if (place / unit > last) {
            struct part start = {.group = g,
                                 .input = (uint32_t)(in - g->inputs),
                                 .piece = k,
                                 .start = (uint32_t)place};
            start_parts(g->parts, last + 1, (uint32_t)(place / unit), &start);
            last = (uint32_t)(place / unit);
        }
        atomic_store_explicit(&g->entries[p->list[k].out & ~LEADER], (uint32_t)place,
                              memory_order_relaxed);
        place += p->list[k + 1].start - p->list[k].start;
    }
}

/* All pieces go where their leaders are; the list is complete now, and gets its directory. */
static void place_pieces(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)ctx, (void)worker;
    struct input *in = &((struct merger *)arg)->inputs[i];
    const struct group *g = in->group;
    struct kld_pieces *p = in->atom->pieces;
    uint32_t d = 0;
    for (uint32_t k = 0; k < p->count; k++) {
        if (k + AHEAD < p->count)
            __builtin_prefetch((const void *)&g->entries[p->list[k + AHEAD].out & ~LEADER]);
        p->list[k].out =
            atomic_load_explicit(&g->entries[p->list[k].out & ~LEADER], memory_order_relaxed);
        if (p->directory)
            for (; (uint64_t)d * KLD_PIECES_DIRECTORY < p->list[k + 1].start; d++)
                p->directory[d] = k;
    }
}

/* ---- the merged contents as atoms ---- */

struct run {
    const uint8_t *from;
    size_t size;
    uint8_t *to;
};

static inline void add_to_run(struct run *run, const uint8_t *from, size_t size, uint8_t *to)
{
    if (run->size && run->from + run->size == from && run->to + run->size == to) {
        run->size += size;
        return;
    }
    if (run->size)
        memcpy(run->to, run->from, run->size);
    *run = (struct run){from, size, to};
}

/* Copies the leaders among the pieces of one section from piece k on that have a place before
 * part->end; returns where the next one would go. */
static uint64_t write_input(const struct part *part, const struct input *in, uint32_t k,
                            uint64_t place, uint8_t *out)
{
    const struct group *g = part->group;
    const struct kld_pieces *p = in->atom->pieces;
    struct run run = {0};
    for (; k < p->count && place < part->end; k++) {
        uint32_t start = p->list[k].start, units = p->list[k + 1].start - start;
        uint64_t wanted = g->aligned ? aligned_place(g, place, start) : place;
        if (p->list[k].out != wanted)
            continue;
        if (wanted >= part->end)
            break;
        add_to_run(&run, in->atom->data + (size_t)start * g->entsize, (size_t)units * g->entsize,
                   out + (size_t)(wanted - part->start) * g->entsize);
        place = wanted + units;
    }
    if (run.size)
        memcpy(run.to, run.from, run.size);
    return place;
}

static void write_part(struct kld_session *ctx, struct kld_worker *worker,
                       const struct kld_atom *atom, uint8_t *out)
{
    (void)ctx, (void)worker;
    const struct part *part = atom->extra;
    const struct group *g = part->group;
    const struct input *in = &g->inputs[part->input];
    uint64_t place = write_input(part, in, part->piece, part->start, out);
    while (place < part->end && ++in < g->inputs + g->ninputs) {
        if (!in->units)
            continue;
        place = in->base;
        if (place >= part->end)
            break;
        place = write_input(part, in, 0, place, out);
    }
}

/* Parts that no leader inside a section begins start with the first leader of a section. */
static void complete_parts(struct group *g)
{
    uint32_t unit = part_units(g), next = 0;
    for (uint32_t k = 0; k < g->ninputs; k++) {
        const struct input *in = &g->inputs[k];
        if (!in->units)
            continue;
        struct part start = {.group = g, .input = k, .start = in->base};
        if (in->base / unit >= next) {
            start_parts(g->parts, next, in->base / unit, &start);
            next = in->base / unit + 1;
        }
    }
}

static void make_atom(struct kld_session *ctx, struct group *g, const struct part *part, bool first,
                      struct kld_atom **merged)
{
    struct part *kept = KLD_NEW(&ctx->arena, struct part);
    *kept = *part;
    struct kld_atom *atom =
        kld_atom_new(ctx, ctx->sections.data[g->section], g->flags, first ? g->p2align : 0,
                     (uint64_t)(part->end - part->start) * g->entsize);
    atom->kind = KLD_ATOM_GENERATED;
    atom->generate = write_part;
    atom->extra = kept;
    if (first)
        *merged = atom;
}

/* One atom after the other without gaps, so that an offset from the first leads anywhere. */
static void make_atoms(struct kld_session *ctx, struct group *g)
{
    struct kld_atom *merged = NULL;
    struct part *parts = g->parts;
    complete_parts(g);
    uint32_t n = g->total / part_units(g) + 1;
    struct part *open = NULL;
    for (uint32_t j = 0; j < n; j++) {
        if (!parts[j].group || (open && parts[j].start == open->start))
            continue;
        if (open) {
            open->end = parts[j].start;
            make_atom(ctx, g, open, !merged, &merged);
        }
        open = &parts[j];
    }
    if (open) {
        open->end = g->total;
        make_atom(ctx, g, open, !merged, &merged);
    }
    for (uint32_t k = 0; k < g->ninputs; k++)
        g->inputs[k].atom->pieces->merged = merged;
    *kld_vec_push(&ctx->arena, &ctx->merged) =
        (struct kld_merged){.atom = merged,
                            .size = (uint64_t)g->total * g->entsize,
                            .entsize = g->entsize,
                            .p2align = g->p2align,
                            .strings = g->strings,
                            .aligned = g->aligned};
}

static void merge_inputs(struct kld_session *ctx, struct merger *m)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->ninputs; i++)
        bytes += m->inputs[i].atom->size;
    size_t grain = bytes < SERIAL_BELOW ? m->ninputs : 8;
    for (size_t i = 0; i < m->groups.len; i++)
        make_table(ctx, m->groups.data[i]);
    m->supplies = KLD_NEW_ARRAY(&ctx->scratch, struct supply, kld_pool_size(ctx) * m->groups.len);
    do
        kld_parallel_for(ctx, m->ninputs, grain, merge_input, m);
    while (grow_tables(ctx, m));
    kld_parallel_for(ctx, m->ninputs, grain, measure, m);
    for (size_t i = 0; i < m->groups.len; i++)
        place_group(ctx, m->groups.data[i]);
    if (kld_has_failed(ctx))
        return;
    kld_parallel_for(ctx, m->ninputs, grain, place_leaders, m);
    kld_parallel_for(ctx, m->ninputs, grain, place_pieces, m);
    for (size_t i = 0; i < m->groups.len; i++)
        make_atoms(ctx, m->groups.data[i]);
}

void kld_merge(struct kld_session *ctx)
{
    struct merger m = {0};
    kld_arena_init(&ctx->scratch, &ctx->alloc, &ctx->oom);
    gather(ctx, &m);
    merge_inputs(ctx, &m);
    kld_arena_free(&ctx->scratch);
}
