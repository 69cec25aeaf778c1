/* remerge.c - mergeable sections of files that are linked again.
 *
 * Merged contents stay: other files use them, and who does is not known. A string that the changed
 * files have is looked for in what the full link has merged, by merging that along with them as if it
 * were an input, the first one: since all of its pieces are different they come out where they are.
 * That goes through all of it, so it is done where there is little; of larger contents all that the
 * files bring is new. What is new goes to an area of free space, which the files that have changed
 * together share, until each of them has changed again. */
#include "src/incremental/relink.h"
#include "src/merge.h"

/* Merged contents that are looked through: about 1 ms a MB. */
enum { LOOK_THROUGH = 1 << 20 };

/* The merged contents of the program as a file. The numbers of atoms are those of KLD_T_MERGED. */
static struct kld_file *old_contents(struct kld_relink *r)
{
    struct kld_session *ctx = r->ctx;
    uint32_t n = (uint32_t)kld_state_count(&r->st, KLD_T_MERGED);
    struct kld_file *file = ctx->format->new_file(ctx, &ctx->arena, KLD_FILE_OBJECT);
    file->format = ctx->format;
    file->path = "<the output>";
    file->atoms = KLD_NEW_ARRAY(&ctx->arena, struct kld_atom, n);
    file->natoms = n;
    for (uint32_t i = 0; i < n; i++) {
        const struct kld_state_merged *m = kld_state_get(&r->st, KLD_T_MERGED, i, 1);
        struct kld_atom *a = &file->atoms[i];
        a->file = file;
        if (m->section >= ctx->sections.len || m->aligned || m->size > LOOK_THROUGH || !m->size ||
            !m->entsize || m->p2align > 16)
            continue;
        const struct kld_section *s = ctx->sections.data[m->section];
        if (m->addr < s->addr || m->size % m->entsize)
            continue;
        a->data = kld_relink_output(r, s->offset + (m->addr - s->addr), m->size);
        if (!a->data)
            return NULL;
        a->kind = KLD_ATOM_PIECES;
        a->pieces = KLD_NEW(&ctx->arena, struct kld_pieces);
        a->pieces->entsize = m->entsize;
        a->pieces->strings = m->strings;
        a->size = m->size;
        a->section = m->section;
        a->flags = m->flags;
        a->p2align = m->p2align;
        a->addr = m->addr;
        a->live = 1;
    }
    return file;
}

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

/* ---- groups ---- */

/* A group of the new merge, and what of it is in the program. */
struct group {
    const struct kld_merged *merged;
    const struct kld_atom *old; /* NULL: nothing */
    uint64_t base;              /* address that places count from */
    uint64_t known;             /* units that are there */
    uint64_t area;              /* address of the rest */
    uint8_t *bytes;             /* and its contents */
};

typedef void each_piece(struct group *g, struct kld_atom *a, struct kld_piece *p, uint32_t units);

static void place_new(struct group *g, struct kld_atom *a, struct kld_piece *p, uint32_t units)
{
    uint64_t entsize = g->merged->entsize;
    if (p->out < g->known)
        return;
    memcpy(g->bytes + (p->out - g->known) * entsize, a->data + p->start * entsize, units * entsize);
    p->out = (uint32_t)(p->out - g->known + (g->area - g->base) / entsize);
}

static void for_each_piece(struct kld_relink *r, struct group *g, each_piece *call)
{
    for (size_t f = 0; f < r->files.len; f++) {
        struct kld_file *file = r->files.data[f].file;
        for (uint32_t i = 0; i < file->natoms; i++) {
            struct kld_atom *a = &file->atoms[i];
            if (a->kind != KLD_ATOM_PIECES || !a->live || a->pieces->merged != g->merged->atom)
                continue;
            for (uint32_t k = 0; k < a->pieces->count; k++)
                call(g, a, &a->pieces->list[k],
                     a->pieces->list[k + 1].start - a->pieces->list[k].start);
        }
    }
}

/* The pieces of the program are where they are. */
static bool stays(const struct kld_atom *old)
{
    const struct kld_pieces *p = old->pieces;
    for (uint32_t k = 0; k < p->count; k++)
        if (p->list[k].out != p->list[k].start)
            return false;
    return true;
}

static bool place_group(struct kld_relink *r, struct group *g)
{
    const struct kld_merged *m = g->merged;
    const struct kld_section *s = r->ctx->sections.data[m->atom->section];
    uint64_t size = m->size - g->known * m->entsize;
    g->base = g->old ? g->old->addr : s->addr;
    if (size) {
        /* Places count in units from the base. */
        uint64_t align = KLD_MAX(1ull << m->p2align, m->entsize);
        if (!take_area(r, s, size, align, &g->area))
            return false;
        if ((g->area - g->base) % m->entsize || (g->area - g->base) / m->entsize > UINT32_MAX / 2)
            return kld_relink_refuse(r, KLD_WHY_NO_ROOM, "no room for more of section %s", s->name);
        g->bytes = KLD_NEW_ARRAY(&r->ctx->arena, uint8_t, size);
    }
    for_each_piece(r, g, place_new);
    m->atom->addr = g->base;
    return !size || kld_relink_write_at(r, s, g->area, g->bytes, size);
}

bool kld_remerge(struct kld_relink *r)
{
    struct kld_session *ctx = r->ctx;
    struct kld_file **files = ctx->files, *old = old_contents(r);
    uint32_t nfiles = ctx->nfiles;
    if (!old)
        return false;
    for (size_t f = 0; f < r->files.len; f++)
        if (!release_areas(r, &r->files.data[f]))
            return false;
    ctx->files = KLD_NEW_ARRAY(&ctx->arena, struct kld_file *, nfiles + 1);
    ctx->files[0] = old;
    if (nfiles)
        memcpy(ctx->files + 1, files, nfiles * sizeof(*files));
    ctx->nfiles = nfiles + 1;
    kld_merge(ctx);
    ctx->files = files;
    ctx->nfiles = nfiles;
    if (kld_has_failed(ctx)) {
        kld_checkpoint(ctx);
        return false;
    }
    for (size_t i = 0; i < ctx->merged.len; i++) {
        struct group g = {.merged = &ctx->merged.data[i]};
        for (uint32_t k = 0; k < old->natoms && g.merged->atom; k++)
            if (old->atoms[k].live && old->atoms[k].pieces->merged == g.merged->atom)
                g.old = &old->atoms[k];
        if (g.old && !stays(g.old)) {
            r->st.damaged = true;
            return false;
        }
        if (g.old)
            g.known = g.old->size / g.merged->entsize;
        if (g.merged->atom && !place_group(r, &g))
            return false;
    }
    return !r->st.damaged;
}
