/* merge.c - mergeable sections: equal strings and constants of all inputs are kept once.
 *
 * Needs the final live set. Afterwards every live mergeable section knows, for each of its
 * pieces, the offset of the one copy that is kept, and the copies are ordinary generated atoms.
 *
 * Debug information makes this one of the largest passes: a build with -g has tens of millions of
 * strings, most of them many times over. What follows from that:
 *
 * - A section is cut up by turning its zero bytes into a bitmap, 64 bytes at a time. The bitmap is
 *   the map of the pieces as well: nothing else is kept of where a piece starts.
 * - Each piece is hashed once. Until it has its place, out[] of the section holds 32 bits of the
 *   hash, then the slot of the hash table in which the piece was found: a piece costs four bytes
 *   and a bit a byte from beginning to end, whatever the phase.
 * - The hash table is one for all threads, without locks: a slot is a word that is set by
 *   compare-and-swap. It holds the piece that comes first in input order of those that are equal
 *   (`leader`), whoever inserted it first, so that nothing depends on the timing. Its size comes
 *   from an estimate of the number of different pieces, not from the number of pieces.
 * - Leaders are laid out in input order. So in any section the leaders are those pieces whose
 *   place is the running end of what was placed before, and writing needs no list of them.
 *
 * Pieces are merged within a group: same output section, character size, kind and alignment. All
 * numbers of a group count in characters (or constants), not bytes: 32 bits go further. */
#define XXH_INLINE_ALL
#include "src/layout.h"
#include "src/merge.h"
#include <xxhash.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    SKETCH_BITS = 10, /* of the estimate: 1,024 registers, 3 % off on average */
    SKETCH = 1 << SKETCH_BITS,
    SKETCH_FROM = 16 << 10,   /* smaller groups just get a table for all their pieces */
    SERIAL_BELOW = 512 << 10, /* bytes in all: not worth a thread */
    PART = 256 << 10,         /* bytes in an atom of merged contents, about */
    AHEAD = 8,                /* pieces by which memory is asked for early */
};

/* In out[] while leaders are being chosen: this piece is the leader of its slot. */
#define LEADER (1u << 31)
/* A group is closed when it holds that many characters: positions and slots fit in 31 bits. */
#define GROUP_UNITS ((1u << 31) - 16)

/* A live section as a stretch of its group's numbering. Positions begin at 1: an empty slot of the
 * table is 0. */
struct place {
    const uint8_t *data;
    uint32_t start; /* position in the group */
    uint32_t units;
};

struct group {
    uint32_t section, entsize;
    uint8_t flags, p2align;
    bool strings;
    bool aligned; /* pieces must start at more than a multiple of entsize */
    bool closed;
    _Atomic bool full;       /* the table has turned out too small */
    uint32_t step;           /* characters between places that have the whole alignment */
    uint32_t ninputs, first; /* its part of merger.inputs */
    uint32_t units;          /* positions so far; the last one + 1 */
    uint32_t npieces;
    /* While merging */
    struct place *places;
    uint32_t *directory; /* place of every 2^shift'th position */
    unsigned shift;
    _Atomic uint64_t *slots; /* hash << 32 | position of the leader; then its place */
    uint64_t nslots;
    _Atomic uint8_t *sketch;
    struct part *parts; /* [total / part_units + 1] */
    /* Afterwards */
    struct input *inputs;
    uint32_t total;
};

struct input {
    struct kld_atom *atom;
    struct group *group;
    uint32_t base;  /* where its leaders begin in the output */
    uint32_t units; /* what they take up */
};

/* A run of merged contents: one generated atom. It starts with the leader `piece` of an input. */
struct part {
    struct group *group;
    uint32_t input;      /* in the group */
    uint32_t piece, at;  /* number of the piece; its offset in the section */
    uint32_t start, end; /* places, in characters */
};

struct merger {
    struct input *inputs;
    size_t ninputs;
    KLD_VEC(struct group *) groups;
};

struct found {
    struct kld_atom **atoms;
    uint32_t count;
};

/* ---- pieces of a section ---- */

/* Bit i: byte i of the 64 at p is zero. */
static uint64_t zero_bytes(const uint8_t *p)
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
static uint64_t zero_characters(const uint8_t *p, uint32_t entsize, size_t count)
{
    if (entsize == 1) {
        uint8_t padded[64];
        if (kld_likely(count >= 64))
            return zero_bytes(p);
        memset(padded, 0xff, sizeof(padded));
        memcpy(padded, p, count);
        return zero_bytes(padded);
    }
    uint64_t bits = 0;
    for (size_t i = 0; i < KLD_MIN(count, 64); i++)
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

/* Fills starts, rank and count: a piece starts at 0 and behind every zero character. */
static void split_strings(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom)
{
    struct kld_pieces *p = atom->pieces;
    uint32_t units = unit_count(atom), nwords = (units + 63) / 64;
    p->starts = KLD_NEW_ARRAY(&worker->arena, uint64_t, nwords);
    p->rank = KLD_NEW_ARRAY(&worker->arena, uint32_t, nwords);
    uint64_t carry = 1;
    uint32_t count = 0;
    for (uint32_t w = 0; w < nwords; w++) {
        uint32_t left = units - w * 64;
        uint64_t zero = zero_characters(atom->data + (size_t)w * 64 * p->entsize, p->entsize, left);
        uint64_t starts = zero << 1 | carry;
        carry = zero >> 63;
        if (left <= 64) {
            if (!(zero >> (left - 1) & 1))
                bad_section(ctx, atom, "string is not null terminated");
            starts &= UINT64_MAX >> (64 - left);
        }
        p->starts[w] = starts;
        p->rank[w] = count;
        count += popcount(starts);
    }
    p->count = count;
}

/* Walks the pieces of a section. */
struct cursor {
    const uint64_t *starts; /* NULL: constants */
    uint64_t word;          /* starts of the current word behind the current piece */
    uint32_t w, nwords;
    uint32_t at, next; /* the current piece, in characters */
    uint32_t units;
};

static uint32_t next_start(struct cursor *c)
{
    while (!c->word) {
        if (++c->w >= c->nwords)
            return c->units;
        c->word = c->starts[c->w];
    }
    uint32_t at = c->w * 64 + (uint32_t)__builtin_ctzll(c->word);
    c->word &= c->word - 1;
    return at;
}

/* The piece that starts at `at` becomes the current one. */
static struct cursor cursor_at(const struct kld_atom *atom, uint32_t at)
{
    const struct kld_pieces *p = atom->pieces;
    struct cursor c = {.starts = p->starts, .at = at, .next = at + 1, .units = unit_count(atom)};
    if (p->starts) {
        c.nwords = (c.units + 63) / 64;
        c.w = at / 64;
        c.word = p->starts[c.w] & ~(UINT64_MAX >> (63 - at % 64));
        c.next = next_start(&c);
    }
    return c;
}

static inline void cursor_next(struct cursor *c)
{
    c->at = c->next;
    c->next = c->starts ? next_start(c) : c->at + 1;
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
                        .units = 1};
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

/* All live mergeable sections, by group, in input order. */
static void gather(struct kld_session *ctx, struct merger *m)
{
    struct found *found = KLD_NEW_ARRAY(&ctx->scratch, struct found, ctx->nfiles);
    kld_parallel_for(ctx, ctx->nfiles, 64, find_inputs, found);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        m->ninputs += found[f].count;
    struct input *inputs = KLD_NEW_ARRAY(&ctx->scratch, struct input, m->ninputs);
    size_t n = 0;
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        for (uint32_t k = 0; k < found[f].count; k++) {
            struct kld_atom *atom = found[f].atoms[k];
            if (!check_input(ctx, atom))
                continue;
            struct group *g = group_of(ctx, m, atom, unit_count(atom));
            inputs[n++] = (struct input){.atom = atom, .group = g};
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

/* Numbers the characters of a group, and makes the directory that finds a section by them. */
static void number_group(struct kld_session *ctx, struct group *g)
{
    g->places = KLD_NEW_ARRAY(&ctx->scratch, struct place, g->ninputs);
    uint32_t at = 1;
    for (uint32_t i = 0; i < g->ninputs; i++) {
        const struct kld_atom *atom = g->inputs[i].atom;
        g->places[i] = (struct place){atom->data, at, unit_count(atom)};
        at += unit_count(atom);
    }
    g->shift = kld_log2(g->units / g->ninputs | 1);
    uint32_t n = (at >> g->shift) + 2, i = 0;
    g->directory = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, n);
    for (uint32_t d = 0; d < n; d++) {
        while (i + 1 < g->ninputs && g->places[i + 1].start <= (uint64_t)d << g->shift)
            i++;
        g->directory[d] = i;
    }
    if (g->units > SKETCH_FROM)
        g->sketch = KLD_NEW_ARRAY(&ctx->scratch, _Atomic uint8_t, SKETCH);
}

/* Number of the section that holds a position. */
static inline uint32_t find_place(const struct group *g, uint32_t position)
{
    uint32_t lo = g->directory[position >> g->shift];
    uint32_t hi = g->directory[(position >> g->shift) + 1];
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo + 1) / 2;
        if (g->places[mid].start <= position)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

/* ---- phase 1: cut up and hash ---- */

/* HyperLogLog: a register holds the longest run of zero bits seen in the hashes that chose it. */
static inline void note_hash(struct group *g, uint64_t hash)
{
    _Atomic uint8_t *r = &g->sketch[hash & (SKETCH - 1)];
    uint8_t run = (uint8_t)(__builtin_ctzll(hash >> SKETCH_BITS | 1ull << 53) + 1);
    uint8_t old = atomic_load_explicit(r, memory_order_relaxed);
    while (old < run && !atomic_compare_exchange_weak_explicit(r, &old, run, memory_order_relaxed,
                                                               memory_order_relaxed))
        continue;
}

static double estimate(const struct group *g)
{
    double sum = 0;
    for (unsigned i = 0; i < SKETCH; i++)
        sum += 1.0 / (double)(1ull << g->sketch[i]);
    return 0.7213 / (1 + 1.079 / SKETCH) * SKETCH * SKETCH / sum;
}

static void hash_pieces(struct input *in)
{
    struct group *g = in->group;
    struct kld_pieces *p = in->atom->pieces;
    struct cursor c = cursor_at(in->atom, 0);
    for (uint32_t k = 0; k < p->count; k++, cursor_next(&c)) {
        uint64_t hash = XXH3_64bits(in->atom->data + (size_t)c.at * p->entsize,
                                    (size_t)(c.next - c.at) * p->entsize);
        if (g->aligned)
            hash += piece_alignment(g, c.at) * 0x9e3779b97f4a7c15;
        if (g->sketch)
            note_hash(g, hash);
        p->out[k] = (uint32_t)(hash >> 32);
    }
}

static void split(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    struct merger *m = arg;
    struct kld_atom *atom = m->inputs[i].atom;
    struct kld_pieces *p = atom->pieces;
    if (!unit_count(atom))
        return;
    if (p->strings)
        split_strings(ctx, worker, atom);
    else
        p->count = unit_count(atom);
    p->out = KLD_NEW_ARRAY(&worker->arena, uint32_t, p->count);
    hash_pieces(&m->inputs[i]);
}

/* ---- phase 2: find the leaders ---- */

static void make_table(struct kld_session *ctx, struct group *g, bool for_all)
{
    uint64_t all = 0;
    for (uint32_t i = 0; i < g->ninputs; i++)
        all += g->inputs[i].atom->pieces->count;
    g->npieces = (uint32_t)all;
    g->nslots = all + all / 4 + 8;
    if (g->sketch && !for_all)
        g->nslots = KLD_MIN(g->nslots, (uint64_t)(estimate(g) * 1.5) + 8192);
    g->nslots = KLD_MIN(g->nslots, LEADER - 1);
    g->slots = KLD_NEW_ARRAY(&ctx->scratch, _Atomic uint64_t, g->nslots);
}

static inline uint64_t home_slot(const struct group *g, uint32_t tag)
{
    return tag * g->nslots >> 32;
}

struct piece {
    const uint8_t *data;
    size_t size;
    uint32_t position, at; /* in the group; in its section */
    uint32_t tag;
};

/* Where the bytes of the piece at a position are, and how many there are to the end of its
 * section. */
static inline const uint8_t *bytes_at(const struct group *g, uint32_t position, size_t *left,
                                      uint32_t *at)
{
    const struct place *place = &g->places[find_place(g, position)];
    *at = position - place->start;
    *left = (size_t)(place->units - *at) * g->entsize;
    return place->data + (size_t)*at * g->entsize;
}

/* The same bytes, and, where that matters, the same alignment. A string ends with the only zero
 * character in it, so that its length need not be known of the other. */
static bool same_piece(const struct group *g, const struct piece *p, uint32_t position)
{
    size_t left;
    uint32_t at;
    const uint8_t *data = bytes_at(g, position, &left, &at);
    return p->size <= left && memcmp(p->data, data, p->size) == 0 &&
           (!g->aligned || piece_alignment(g, at) == piece_alignment(g, p->at));
}

/* The piece at that position leads no more: an equal one before it has come. */
static void demote(const struct group *g, uint32_t position)
{
    const struct input *in = &g->inputs[find_place(g, position)];
    const struct kld_pieces *p = in->atom->pieces;
    uint32_t at = position - g->places[in - g->inputs].start, k = at;
    if (p->starts)
        k = p->rank[at / 64] + popcount(p->starts[at / 64] & ((1ull << at % 64) - 1));
    p->out[k] &= ~LEADER;
}

/* Finds or takes the piece's slot and notes it in *out. A piece is noted as the leader before the
 * slot says so: the thread that finds it there may have to take that back. */
static bool insert(const struct group *g, const struct piece *p, uint32_t *out)
{
    uint64_t mine = (uint64_t)p->tag << 32 | p->position, i = home_slot(g, p->tag);
    for (uint64_t tries = 0; tries < g->nslots; tries++) {
        uint64_t slot = atomic_load_explicit(&g->slots[i], memory_order_acquire);
        if (!slot) {
            *out = (uint32_t)i | LEADER;
            if (atomic_compare_exchange_strong_explicit(&g->slots[i], &slot, mine,
                                                        memory_order_acq_rel, memory_order_acquire))
                return true;
        }
        if (slot >> 32 == p->tag && same_piece(g, p, (uint32_t)slot)) {
            while ((uint32_t)slot > p->position) {
                *out = (uint32_t)i | LEADER;
                if (atomic_compare_exchange_weak_explicit(
                        &g->slots[i], &slot, mine, memory_order_acq_rel, memory_order_acquire)) {
                    demote(g, (uint32_t)slot);
                    return true;
                }
            }
            *out = (uint32_t)i;
            return true;
        }
        if (++i == g->nslots)
            i = 0;
    }
    return false;
}

/* Asks for the slot of a piece to come, and for the bytes that one nearer will be compared to. */
static inline void look_ahead(const struct group *g, const struct kld_pieces *p, uint32_t k)
{
    if (k + 2 * AHEAD < p->count)
        __builtin_prefetch((const void *)&g->slots[home_slot(g, p->out[k + 2 * AHEAD])]);
    if (k + AHEAD < p->count) {
        uint32_t tag = p->out[k + AHEAD];
        uint64_t slot = atomic_load_explicit(&g->slots[home_slot(g, tag)], memory_order_relaxed);
        if (slot >> 32 == tag && slot) {
            size_t left;
            uint32_t at;
            __builtin_prefetch(bytes_at(g, (uint32_t)slot, &left, &at));
        }
    }
}

static void insert_pieces(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)ctx, (void)worker;
    struct merger *m = arg;
    struct input *in = &m->inputs[i];
    struct group *g = in->group;
    struct kld_pieces *p = in->atom->pieces;
    if (!p->count || g->full)
        return;
    bool large = g->nslots > 32 << 10;
    uint32_t start = g->places[in - g->inputs].start;
    struct cursor c = cursor_at(in->atom, 0);
    for (uint32_t k = 0; k < p->count; k++, cursor_next(&c)) {
        struct piece piece = {
            .data = in->atom->data + (size_t)c.at * g->entsize,
            .size = (size_t)(c.next - c.at) * g->entsize,
            .position = start + c.at,
            .at = c.at,
            .tag = p->out[k],
        };
        if (large)
            look_ahead(g, p, k);
        if (kld_unlikely(!insert(g, &piece, &p->out[k]))) {
            g->full = true;
            return;
        }
    }
}

/* The estimate was far too low: once more, with a table that holds everything. */
static void retry_full(struct kld_session *ctx, struct merger *m)
{
    for (size_t i = 0; i < m->groups.len; i++) {
        struct group *g = m->groups.data[i];
        if (!g->full)
            continue;
        g->full = false;
        make_table(ctx, g, true);
        for (uint32_t k = 0; k < g->ninputs; k++)
            hash_pieces(&g->inputs[k]);
        for (uint32_t k = 0; k < g->ninputs; k++)
            insert_pieces(ctx, NULL, m, g->first + k);
    }
}

/* ---- phase 3: places ---- */

/* What the leaders of a section take up, given that they begin at a multiple of g->step. */
static void measure(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)ctx, (void)worker;
    struct input *in = &((struct merger *)arg)->inputs[i];
    const struct kld_pieces *p = in->atom->pieces;
    if (!p->count)
        return;
    uint64_t end = 0;
    struct cursor c = cursor_at(in->atom, 0);
    for (uint32_t k = 0; k < p->count; k++, cursor_next(&c))
        if (p->out[k] & LEADER) {
            if (in->group->aligned)
                end = aligned_place(in->group, end, c.at);
            end += c.next - c.at;
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
    struct cursor c = cursor_at(in->atom, 0);
    for (uint32_t k = 0; k < p->count; k++, cursor_next(&c)) {
        if (!(p->out[k] & LEADER))
            continue;
        if (g->aligned)
            place = aligned_place(g, place, c.at);
        if (place / unit > last) {
            struct part start = {.group = g,
                                 .input = (uint32_t)(in - g->inputs),
                                 .piece = k,
                                 .at = c.at,
                                 .start = (uint32_t)place};
            start_parts(g->parts, last + 1, (uint32_t)(place / unit), &start);
            last = (uint32_t)(place / unit);
        }
        atomic_store_explicit(&g->slots[p->out[k] & ~LEADER], place, memory_order_relaxed);
        place += c.next - c.at;
    }
}

static void place_pieces(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)ctx, (void)worker;
    struct input *in = &((struct merger *)arg)->inputs[i];
    struct kld_pieces *p = in->atom->pieces;
    for (uint32_t k = 0; k < p->count; k++) {
        if (k + AHEAD < p->count)
            __builtin_prefetch((const void *)&in->group->slots[p->out[k + AHEAD] & ~LEADER]);
        p->out[k] = (uint32_t)in->group->slots[p->out[k] & ~LEADER];
    }
}

/* ---- phase 4: the merged contents as atoms ---- */

struct run {
    const uint8_t *from;
    size_t size;
    uint8_t *to;
};

static inline void add_to_run(struct run *run, const uint8_t *from, size_t size, uint8_t *to)
{
    if (run->from + run->size == from && run->to + run->size == to) {
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
                            struct cursor *c, uint64_t place, uint8_t *out)
{
    const struct group *g = part->group;
    const struct kld_pieces *p = in->atom->pieces;
    struct run run = {0};
    for (; k < p->count && place < part->end; k++, cursor_next(c)) {
        uint64_t wanted = g->aligned ? aligned_place(g, place, c->at) : place;
        if (p->out[k] != wanted)
            continue;
        if (wanted >= part->end)
            break;
        add_to_run(&run, in->atom->data + (size_t)c->at * g->entsize,
                   (size_t)(c->next - c->at) * g->entsize,
                   out + (size_t)(wanted - part->start) * g->entsize);
        place = wanted + (c->next - c->at);
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
    struct cursor c = cursor_at(in->atom, part->at);
    uint64_t place = write_input(part, in, part->piece, &c, part->start, out);
    while (place < part->end && ++in < g->inputs + g->ninputs) {
        if (!in->units)
            continue;
        place = in->base;
        if (place >= part->end)
            break;
        c = cursor_at(in->atom, 0);
        place = write_input(part, in, 0, &c, place, out);
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
}

static void merge_inputs(struct kld_session *ctx, struct merger *m)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->ninputs; i++)
        bytes += m->inputs[i].atom->size;
    size_t grain = bytes < SERIAL_BELOW ? m->ninputs : 8;
    for (size_t i = 0; i < m->groups.len; i++)
        number_group(ctx, m->groups.data[i]);
    kld_parallel_for(ctx, m->ninputs, grain, split, m);
    for (size_t i = 0; i < m->groups.len; i++)
        make_table(ctx, m->groups.data[i], false);
    kld_parallel_for(ctx, m->ninputs, grain, insert_pieces, m);
    retry_full(ctx, m);
    kld_parallel_for(ctx, m->ninputs, grain, measure, m);
    for (size_t i = 0; i < m->groups.len; i++)
        place_group(ctx, m->groups.data[i]);
    if (!kld_has_failed(ctx)) {
        kld_parallel_for(ctx, m->ninputs, grain, place_leaders, m);
        kld_parallel_for(ctx, m->ninputs, grain, place_pieces, m);
        for (size_t i = 0; i < m->groups.len; i++)
            make_atoms(ctx, m->groups.data[i]);
    }
}

void kld_merge(struct kld_session *ctx)
{
    struct merger m = {0};
    kld_arena_init(&ctx->scratch, &ctx->alloc, &ctx->oom);
    gather(ctx, &m);
    merge_inputs(ctx, &m);
    kld_arena_free(&ctx->scratch);
}

/* ---- where a byte of an input section has gone ---- */

/* The last piece that starts at or before character `at`: its start, and its number. */
static uint32_t piece_before(const struct kld_pieces *p, uint32_t at, uint32_t *number)
{
    uint32_t w = at / 64;
    uint64_t bits = p->starts[w] & (UINT64_MAX >> (63 - at % 64));
    *number = p->rank[w] + popcount(bits) - 1;
    if (!bits) {
        /* It began in an earlier word: the last one with fewer pieces before it. */
        uint32_t lo = 0, hi = w - 1, tries = 4;
        while (tries-- && hi > 0 && !p->starts[hi])
            hi--;
        if (!p->starts[hi]) {
            while (lo < hi) {
                uint32_t mid = lo + (hi - lo + 1) / 2;
                if (p->rank[mid] <= *number)
                    lo = mid;
                else
                    hi = mid - 1;
            }
        }
        w = hi;
        bits = p->starts[w];
    }
    return w * 64 + kld_log2(bits);
}

uint64_t kld_pieces_address(const struct kld_atom *atom, uint64_t offset)
{
    const struct kld_pieces *p = atom->pieces;
    if (kld_unlikely(!p->merged || !p->count))
        return p->merged ? p->merged->addr : 0;
    uint32_t entsize = p->entsize, number;
    uint64_t at = entsize == 1 ? offset : offset / entsize, start;
    uint32_t units = unit_count(atom);
    if (kld_unlikely(at >= units))
        at = units - 1;
    if (p->starts) {
        start = piece_before(p, (uint32_t)at, &number);
    } else {
        start = at;
        number = (uint32_t)at;
    }
    return p->merged->addr + (uint64_t)p->out[number] * entsize + (offset - start * entsize);
}
