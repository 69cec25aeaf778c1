/* island.c - where islands go, and which entries they have. See island.h.
 *
 * Wants are gathered in parallel, a list a file, and granted one after the other in input order:
 * which island gets which entry does not depend on threads. */
#include "src/island.h"
#include "src/layout.h"

/* Entries are added only where this much of the reach is left, if there is such a place: islands
 * between the two ends of a branch may still grow. */
enum { MARGIN = 1 << 20 };

/* Two sections that are no further apart are taken for one run of code. */
enum { NEAR = 1 << 20 };

/* ---- placing ---- */

struct placing {
    struct kld_session *ctx;
    const struct kld_island_policy *policy;
    struct kld_islands *islands;
    uint64_t last; /* address of the newest island, */
    bool bare;     /* or of the start of a run of code that has none yet */
};

static bool is_code(const struct kld_section *s)
{
    return (s->flags & KLD_ATOM_EXEC) && (s->flags & KLD_ATOM_ALLOC);
}

static bool holds(const struct placing *p, const struct kld_section *s)
{
    return is_code(s) && !(s->flags & KLD_ATOM_ZERO) && s->atoms.len && p->policy->holds(p->ctx, s);
}

static void add_island(struct placing *p, struct kld_section *s, uint64_t addr)
{
    struct kld_session *ctx = p->ctx;
    /* Its alignment comes with the first entry. */
    struct kld_atom *atom = kld_atom_new(ctx, s, KLD_ATOM_ALLOC | KLD_ATOM_EXEC, 0, 0);
    atom->kind = KLD_ATOM_GENERATED;
    atom->generate = p->policy->generate;
    atom->addr = addr;
    struct kld_island *island = KLD_NEW(&ctx->arena, struct kld_island);
    island->atom = atom;
    atom->extra = island;
    *kld_vec_push(&ctx->arena, &p->islands->list) = island;
    *kld_vec_push(&ctx->arena, &s->atoms) = atom;
    p->last = addr;
    p->bare = false;
}

/* Whether code goes on within sight of the section's end. */
static bool goes_on(const struct placing *p, uint32_t i)
{
    const struct kld_session *ctx = p->ctx;
    uint64_t end = ctx->order[i]->addr + ctx->order[i]->size;
    for (uint32_t k = i + 1; k < ctx->norder; k++)
        if (holds(p, ctx->order[k]))
            return ctx->order[k]->addr >= end && ctx->order[k]->addr - end <= NEAR;
    return false;
}

/* Whether there must be one before atom k: as it would end too far from the newest island. Not
 * before the first one, whose address somebody may have asked for, if it reaches one behind it. */
static bool needs_island(const struct placing *p, const struct kld_atom *a, bool is_first)
{
    if (is_first)
        return a->size > 2 * p->policy->gap - NEAR;
    return a->addr + a->size - p->last > p->policy->gap;
}

static void place_in_section(struct placing *p, uint32_t i)
{
    struct kld_section *s = p->ctx->order[i];
    struct kld_atom **atoms = s->atoms.data;
    size_t n = s->atoms.len;
    s->atoms.data = NULL;
    s->atoms.len = s->atoms.cap = 0;
    if (s->addr < p->last || s->addr - p->last > p->policy->gap) {
        p->last = s->addr;
        p->bare = true;
    }
    uint64_t at = s->addr;
    for (size_t k = 0; k < n; k++) {
        struct kld_atom *a = atoms[k];
        if (needs_island(p, a, k == 0))
            add_island(p, s, at);
        *kld_vec_push(&p->ctx->arena, &s->atoms) = a;
        at = a->addr + a->size;
    }
    if (at - p->last > p->policy->gap || (!goes_on(p, i) && (p->bare || at - p->last > NEAR)))
        add_island(p, s, at);
}

void kld_islands_place(struct kld_session *ctx, const struct kld_island_policy *policy)
{
    ctx->islands = KLD_NEW(&ctx->arena, struct kld_islands);
    ctx->islands->unit = policy->unit;
    struct placing p = {.ctx = ctx, .policy = policy, .islands = ctx->islands, .last = UINT64_MAX};
    for (uint32_t i = 0; i < ctx->norder; i++)
        if (holds(&p, ctx->order[i]))
            place_in_section(&p, i);
    for (size_t i = 0; i < ctx->islands->list.len; i++)
        ctx->islands->list.data[i]->p2align = policy->p2align;
}

/* ---- entries ---- */

static uint32_t hash_key(const struct kld_island_key *key)
{
    uint64_t h = (uint64_t)(uintptr_t)key->target * 0x9e3779b97f4a7c15;
    h = (h ^ key->offset ^ (uint64_t)key->kind << 56) * 0xff51afd7ed558ccd;
    return (uint32_t)(h >> 32);
}

static bool same_key(const struct kld_island_key *a, const struct kld_island_key *b)
{
    return a->target == b->target && a->offset == b->offset && a->kind == b->kind;
}

/* The slot of the index with the entry of that key, or the free one where it would be. */
static uint32_t slot_of(const struct kld_island *island, const struct kld_island_key *key)
{
    uint32_t at = hash_key(key) & island->mask;
    while (island->index[at] && !same_key(&island->entries.data[island->index[at] - 1].key, key))
        at = (at + 1) & island->mask;
    return at;
}

static const struct kld_island_entry *entry_of(const struct kld_island *island,
                                               const struct kld_island_key *key)
{
    uint32_t number = island->index ? island->index[slot_of(island, key)] : 0;
    return number ? &island->entries.data[number - 1] : NULL;
}

static void grow_index(struct kld_session *ctx, struct kld_island *island)
{
    uint32_t size = island->index ? 2 * (island->mask + 1) : 16;
    island->mask = size - 1;
    island->index = KLD_NEW_ARRAY(&ctx->arena, uint32_t, size);
    for (uint32_t i = 0; i < island->entries.len; i++)
        island->index[slot_of(island, &island->entries.data[i].key)] = i + 1;
}

static void add_entry(struct kld_session *ctx, struct kld_island *island,
                      const struct kld_want *want)
{
    if (!island->index || 2 * island->entries.len > island->mask)
        grow_index(ctx, island);
    struct kld_island_entry *entry = kld_vec_push(&ctx->arena, &island->entries);
    *entry = (struct kld_island_entry){want->key, want->atom, want->edge, island->used};
    island->index[slot_of(island, &want->key)] = (uint32_t)island->entries.len;
    island->used += want->size;
    island->atom->p2align = island->p2align;
    island->atom->size = kld_align_up(island->used, ctx->islands->unit);
    ctx->islands->used = true;
}

bool kld_island_find(const struct kld_islands *islands, const struct kld_island_key *key,
                     uint64_t place, struct kld_reach reach, uint64_t *address)
{
    for (size_t i = 0; i < islands->list.len; i++) {
        const struct kld_island *island = islands->list.data[i];
        uint64_t end = island->atom->addr + island->used;
        if (!kld_reaches(reach, place, island->atom->addr) && !kld_reaches(reach, place, end))
            continue;
        const struct kld_island_entry *entry = entry_of(island, key);
        if (!entry || !kld_reaches(reach, place, island->atom->addr + entry->offset))
            continue;
        *address = island->atom->addr + entry->offset;
        return true;
    }
    return false;
}

/* ---- granting wants ---- */

/* The furthest island ahead that is well within reach, so that as many as possible share its
 * entries; else the nearest. One that has such an entry already is known to be too far. */
static struct kld_island *choose(const struct kld_islands *islands, const struct kld_want *want)
{
    struct kld_reach well = {want->reach.back + MARGIN, want->reach.ahead - MARGIN};
    struct kld_island *best = NULL, *nearest = NULL;
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < islands->list.len; i++) {
        struct kld_island *island = islands->list.data[i];
        uint64_t at = island->atom->addr + island->used;
        uint64_t distance = at > want->place ? at - want->place : want->place - at;
        if (entry_of(island, &want->key))
            continue;
        if (kld_reaches(well, want->place, at) && (!best || at > best->atom->addr))
            best = island;
        if (kld_reaches(want->reach, want->place, at) && distance < least) {
            nearest = island;
            least = distance;
        }
    }
    return best ? best : nearest;
}

static bool grant(struct kld_session *ctx, const struct kld_want *want)
{
    uint64_t address;
    if (kld_island_find(ctx->islands, &want->key, want->place, want->reach, &address))
        return false; /* an earlier one has made it */
    struct kld_island *island = choose(ctx->islands, want);
    if (!island || island->used > UINT32_MAX / 2)
        return false; /* stays out of range, which is an error when it is applied */
    add_entry(ctx, island, want);
    return true;
}

struct growing {
    kld_find_wants *find;
    kld_wants *wants; /* by file */
};

static bool has_edges(const struct kld_atom *atom)
{
    const uint8_t code = KLD_ATOM_ALLOC | KLD_ATOM_EXEC;
    return atom->live && atom->nedges && (atom->flags & code) == code &&
           atom->kind == KLD_ATOM_BYTES;
}

static void find_in_file(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t f)
{
    struct growing *g = arg;
    const struct kld_file *file = ctx->files[f];
    for (uint32_t i = 0; file->kind == KLD_FILE_OBJECT && i < file->natoms; i++)
        if (has_edges(&file->atoms[i]))
            g->find(ctx, worker, &file->atoms[i], &g->wants[f]);
}

bool kld_islands_grow(struct kld_session *ctx, kld_find_wants *find)
{
    struct growing g = {find, KLD_NEW_ARRAY(&ctx->arena, kld_wants, ctx->nfiles)};
    kld_parallel_for(ctx, ctx->nfiles, 1, find_in_file, &g);
    bool grown = false;
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        for (size_t i = 0; i < g.wants[f].len; i++)
            grown |= grant(ctx, &g.wants[f].data[i]);
    return grown;
}
