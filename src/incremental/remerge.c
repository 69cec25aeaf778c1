/* remerge.c - mergeable sections of files that are linked again.
 *
 * Merged contents stay: other files use them, and who does is not known. The changed files are merged
 * among themselves; what comes of that is looked for in what the full link has merged, by going through
 * it once with a small table of what is wanted, which takes a tenth of what merging it would. The rest
 * is new, and goes to an area of free space, which the files that have changed together share, until
 * each of them has changed again. */
#define XXH_INLINE_ALL
#include "src/incremental/relink.h"
#include "src/merge.h"
#include <xxhash.h>

/* Merged contents that are looked through, which takes about 0.4 ms a MB: up to so many bytes, and more
 * if the files bring so large a part of that. Of larger ones all that the files bring is new. */
enum { LOOK_THROUGH = 4 << 20, LARGE_PART = 16 };

/* ---- areas ---- */

/* What older versions of the file had is free once nobody uses it. */
static bool release_areas(struct kld_relink *r, const struct kld_relink_file *rf)
{
    for (uint32_t i = 0; i < rf->old.head.nareas; i++) {
        struct kld_state_area *area = kld_state_edit(&r->st, KLD_T_AREAS, rf->old.areas[i], 1);
        if (!area->users || area->section >= r->ctx->sections.len) {
            r->st.damaged = true;
            return false;
        }
        if (--area->users == 0)
            kld_slots_give(r, r->ctx->sections.data[area->section], area->addr, area->size);
    }
    return true;
}

static bool take_area(struct kld_relink *r, const struct kld_section *s, uint64_t size,
                      uint64_t align, uint64_t *addr)
{
    uint64_t n = kld_state_count(&r->st, KLD_T_AREAS), k = 0, capacity;
    const struct kld_state_area *areas = kld_state_get(&r->st, KLD_T_AREAS, 0, n);
    while (k < n && areas[k].users)
        k++;
    if (k == n)
        return kld_relink_refuse(r, KLD_WHY_NO_ROOM, "too many areas of merged contents");
    if (!kld_slots_take(r, s, size, align, addr, &capacity))
        return kld_relink_refuse(r, KLD_WHY_NO_ROOM, "no room for more of section %s", s->name);
    kld_slots_gap(r, s->id, *addr + size, capacity - size);
    struct kld_state_area *area = kld_state_edit(&r->st, KLD_T_AREAS, k, 1);
    *area = (struct kld_state_area){.section = s->id, .addr = *addr, .size = capacity};
    for (size_t f = 0; f < r->files.len; f++) {
        area->users++;
        *kld_vec_push(&r->ctx->arena, &r->files.data[f].areas) = (uint32_t)k;
    }
    return true;
}

/* ---- what is wanted ---- */

/* One of equal pieces of the changed files. Units are characters or constants. */
struct wanted {
    const uint8_t *data;
    uint32_t place, units; /* in the new merge */
    uint32_t to;           /* units from the base of the group */
    bool known;
};

/* A group of the new merge, and where it comes to be. */
struct group {
    const struct kld_merged *merged;
    uint64_t base;         /* address that places count from */
    uint64_t *places;      /* bits: places where a piece begins */
    uint32_t *directory;   /* by word of them: how many there are before it */
    struct wanted *wanted; /* by place */
    uint32_t nwanted;
    uint32_t *table; /* 1 + number, by hash */
    uint32_t mask;
};

static struct wanted *wanted_at(const struct group *g, uint32_t place)
{
    uint64_t before = g->places[place / 64] & ((1ull << place % 64) - 1);
    return &g->wanted[g->directory[place / 64] + (uint32_t)__builtin_popcountll(before)];
}

typedef void each_piece(struct group *g, struct kld_atom *a, struct kld_piece *p);

static void for_each_piece(struct kld_relink *r, struct group *g, each_piece *call)
{
    for (size_t f = 0; f < r->files.len; f++) {
        struct kld_file *file = r->files.data[f].file;
        for (uint32_t i = 0; i < file->natoms; i++) {
            struct kld_atom *a = &file->atoms[i];
            if (a->kind != KLD_ATOM_PIECES || !a->live || a->pieces->merged != g->merged->atom)
                continue;
            for (uint32_t k = 0; k < a->pieces->count; k++)
                call(g, a, &a->pieces->list[k]);
        }
    }
}

static void note_place(struct group *g, struct kld_atom *a, struct kld_piece *p)
{
    (void)a;
    g->places[p->out / 64] |= 1ull << p->out % 64;
}

static void want(struct group *g, struct kld_atom *a, struct kld_piece *p)
{
    struct wanted *w = wanted_at(g, p->out);
    if (!w->data)
        *w = (struct wanted){.data = a->data + (uint64_t)p->start * g->merged->entsize,
                             .place = p->out,
                             .units = p[1].start - p->start};
}

static void set_place(struct group *g, struct kld_atom *a, struct kld_piece *p)
{
    (void)a;
    p->out = wanted_at(g, p->out)->to;
}

static void list_wanted(struct kld_relink *r, struct group *g)
{
    uint64_t words = g->merged->size / g->merged->entsize / 64 + 1;
    g->places = KLD_NEW_ARRAY(&r->ctx->arena, uint64_t, words);
    g->directory = KLD_NEW_ARRAY(&r->ctx->arena, uint32_t, words);
    for_each_piece(r, g, note_place);
    for (uint64_t i = 0; i < words; i++) {
        g->directory[i] = g->nwanted;
        g->nwanted += (uint32_t)__builtin_popcountll(g->places[i]);
    }
    g->wanted = KLD_NEW_ARRAY(&r->ctx->arena, struct wanted, g->nwanted);
    for_each_piece(r, g, want);
}

static void make_table(struct kld_relink *r, struct group *g)
{
    uint32_t size = 64;
    while (size < 4ull * g->nwanted)
        size *= 2;
    g->mask = size - 1;
    g->table = KLD_NEW_ARRAY(&r->ctx->arena, uint32_t, size);
    for (uint32_t i = 0; i < g->nwanted; i++) {
        const struct wanted *w = &g->wanted[i];
        uint32_t at =
            (uint32_t)XXH3_64bits(w->data, (size_t)w->units * g->merged->entsize) & g->mask;
        while (g->table[at])
            at = (at + 1) & g->mask;
        g->table[at] = i + 1;
    }
}

static void meet(struct group *g, const uint8_t *data, size_t size, uint64_t offset)
{
    uint32_t at = (uint32_t)XXH3_64bits(data, size) & g->mask;
    for (; g->table[at]; at = (at + 1) & g->mask) {
        struct wanted *w = &g->wanted[g->table[at] - 1];
        if ((size_t)w->units * g->merged->entsize != size || w->known ||
            memcmp(w->data, data, size) != 0)
            continue;
        w->known = true;
        w->to = (uint32_t)(offset / g->merged->entsize);
        return;
    }
}

static bool is_zero(const uint8_t *p, size_t size)
{
    while (size && !*p)
        p++, size--;
    return !size;
}

/* The end of the piece at `at`: bytes. */
static size_t piece_end(const struct kld_merged *m, const uint8_t *data, size_t at, size_t size)
{
    if (!m->strings)
        return at + m->entsize;
    if (m->entsize == 1) {
        const uint8_t *end = memchr(data + at, 0, size - at);
        return end ? (size_t)(end - data) + 1 : size;
    }
    while (at < size && !is_zero(data + at, m->entsize))
        at += m->entsize;
    return KLD_MIN(at + m->entsize, size);
}

/* Looks through what the full link has merged. */
static void look_through(struct kld_relink *r, struct group *g, const struct kld_state_merged *old)
{
    const struct kld_section *s = r->ctx->sections.data[old->section];
    const uint8_t *data = kld_relink_output(r, s->offset + (old->addr - s->addr), old->size);
    make_table(r, g);
    for (size_t at = 0, end; data && at < old->size; at = end) {
        end = piece_end(g->merged, data, at, old->size);
        meet(g, data + at, end - at, old->addr + at - g->base);
    }
}

/* Contents of the same kind in the program, if they are worth going through. */
static const struct kld_state_merged *find_old(struct kld_relink *r, const struct kld_merged *m)
{
    const struct kld_section *s = r->ctx->sections.data[m->atom->section];
    for (uint64_t i = 0, n = kld_state_count(&r->st, KLD_T_MERGED); i < n; i++) {
        const struct kld_state_merged *old = kld_state_get(&r->st, KLD_T_MERGED, i, 1);
        if (old->section == s->id && old->entsize == m->entsize && old->strings == m->strings &&
            old->p2align == m->p2align && !old->aligned &&
            (old->size <= LOOK_THROUGH || old->size / LARGE_PART <= m->size) &&
            old->addr >= s->addr && kld_in_bounds(old->addr - s->addr, old->size, s->size) &&
            old->size % m->entsize == 0)
            return old;
    }
    return NULL;
}

/* ---- what is new ---- */

/* Pieces that need a stricter alignment than their size's stay as the merge has placed them. */
static uint64_t place_new(struct group *g, uint64_t start)
{
    uint64_t end = 0;
    for (size_t i = 0; i < g->nwanted; i++) {
        struct wanted *w = &g->wanted[i];
        if (w->known)
            continue;
        uint64_t at = g->merged->aligned ? w->place : end;
        w->to = (uint32_t)(start + at);
        end = KLD_MAX(end, at + w->units);
    }
    return end;
}

static bool write_new(struct kld_relink *r, struct group *g)
{
    const struct kld_merged *m = g->merged;
    const struct kld_section *s = r->ctx->sections.data[m->atom->section];
    uint64_t addr, size = place_new(g, 0) * m->entsize;
    if (!size)
        return true;
    if (!take_area(r, s, size, KLD_MAX(1ull << m->p2align, m->entsize), &addr))
        return false;
    if ((addr - g->base) % m->entsize || (addr - g->base) / m->entsize > UINT32_MAX / 2)
        return kld_relink_refuse(r, KLD_WHY_NO_ROOM, "no room for more of section %s", s->name);
    uint64_t start = (addr - g->base) / m->entsize;
    uint8_t *bytes = KLD_NEW_ARRAY(&r->ctx->arena, uint8_t, size);
    place_new(g, start);
    for (size_t i = 0; i < g->nwanted; i++) {
        const struct wanted *w = &g->wanted[i];
        if (!w->known)
            memcpy(bytes + (w->to - start) * m->entsize, w->data, (size_t)w->units * m->entsize);
    }
    return kld_relink_write_at(r, s, addr, bytes, size);
}

static bool place_group(struct kld_relink *r, const struct kld_merged *m)
{
    struct group g = {.merged = m, .base = r->ctx->sections.data[m->atom->section]->addr};
    list_wanted(r, &g);
    const struct kld_state_merged *old = find_old(r, m);
    if (old) {
        g.base = old->addr; /* so that places are whole units from it */
        look_through(r, &g, old);
    }
    if (!write_new(r, &g))
        return false;
    for_each_piece(r, &g, set_place);
    m->atom->addr = g.base;
    return true;
}

bool kld_remerge(struct kld_relink *r)
{
    struct kld_session *ctx = r->ctx;
    for (size_t f = 0; f < r->files.len; f++)
        if (!release_areas(r, &r->files.data[f]))
            return false;
    kld_merge(ctx);
    if (kld_has_failed(ctx)) {
        kld_checkpoint(ctx);
        return false;
    }
    for (size_t i = 0; i < ctx->merged.len; i++)
        if (ctx->merged.data[i].atom && !place_group(r, &ctx->merged.data[i]))
            return false;
    return !r->st.damaged;
}
