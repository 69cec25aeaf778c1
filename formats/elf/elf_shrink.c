/* elf_shrink.c - relaxation: the rounds, and offsets in atoms that were cut.
 *
 * All distances only shrink but for those over an alignment or the start of a segment, so that
 * nearly all that is found in the first round holds. What does not is taken back, which makes others
 * longer in turn: later rounds take back what is merely near the limit, so that there are few. In
 * a round files are looked at in parallel and see the sizes of the round before; new sizes are set
 * when all have been seen. */
#include "formats/elf/elf_shrink.h"
#include "formats/elf/elf_arch.h"

/* ---- offsets ---- */

/* The number of cuts that begin in front of the offset or, by_edge, are for earlier relocations. */
static uint32_t cuts_before(const struct elf_shrunk *s, uint64_t key, bool by_edge)
{
    uint32_t lo = 0, hi = s->ncuts;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if ((by_edge ? s->cuts[mid].edge : s->cuts[mid].offset) < key)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static uint32_t removed_before(const struct elf_shrunk *s, uint32_t cut)
{
    return cut ? s->cuts[cut - 1].removed : 0;
}

uint64_t elf_shrunk_before(const struct elf_shrunk *s, uint64_t offset)
{
    uint32_t n = cuts_before(s, offset, false);
    if (!n)
        return 0;
    const struct elf_cut *last = &s->cuts[n - 1];
    uint64_t before = removed_before(s, n - 1);
    return before + KLD_MIN(offset - last->offset, last->removed - before); /* it may be inside */
}

const struct elf_cut *elf_shrunk_cut(const struct elf_shrunk *s, uint32_t edge)
{
    uint32_t n = cuts_before(s, edge, true);
    return n < s->ncuts && s->cuts[n].edge == edge && s->cuts[n].how ? &s->cuts[n] : NULL;
}

void elf_shrunk_copy(const struct kld_atom *atom, uint8_t *out)
{
    const struct elf_shrunk *s = elf_shrunk(atom);
    uint64_t from = 0;
    for (uint32_t i = 0; i < s->ncuts; i++) {
        const struct elf_cut *cut = &s->cuts[i];
        uint64_t before = removed_before(s, i);
        if (cut->removed == before)
            continue;
        memcpy(out + (from - before), atom->data + from, cut->offset - from);
        from = cut->offset + (cut->removed - before);
    }
    memcpy(out + (from - removed_before(s, s->ncuts)), atom->data + from, s->size - from);
}

/* ---- rounds ---- */

struct rounds {
    uint64_t slack;
    bool first;
    _Atomic bool changed;
};

static void plan_file(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj)
{
    struct elf_shrunk **last = &obj->shrunk;
    for (uint32_t i = 0; i < obj->base.natoms; i++) {
        struct kld_atom *atom = &obj->base.atoms[i];
        if (!atom->live || !atom->nedges || atom->kind != KLD_ATOM_BYTES ||
            !(atom->flags & KLD_ATOM_ALLOC) || (atom->flags & KLD_ATOM_FOLDED))
            continue;
        *last = elf_state(ctx)->arch->plan_cuts(ctx, worker, obj, atom);
        if (*last)
            last = &(*last)->next;
    }
}

static void look_at(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    struct rounds *r = arg;
    struct elf_object *obj = elf_object(ctx->files[i]);
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    bool changed = false;
    if (r->first) {
        plan_file(ctx, worker, obj);
        changed = obj->shrunk;
    }
    for (struct elf_shrunk *s = r->first ? NULL : obj->shrunk; s; s = s->next)
        changed |= elf_state(ctx)->arch->check_cuts(ctx, obj, s, r->slack);
    if (changed)
        atomic_store_explicit(&r->changed, true, memory_order_relaxed);
}

static void set_sizes_of(struct kld_session *ctx, struct elf_object *obj)
{
    for (struct elf_shrunk *s = obj->shrunk; s; s = s->next) {
        uint32_t removed = 0;
        for (uint32_t k = 0; k < s->ncuts; k++) {
            struct elf_cut *cut = &s->cuts[k];
            removed +=
                elf_state(ctx)->arch->cut_size(ctx, obj, s->atom, cut, cut->offset - removed);
            cut->removed = removed;
        }
        s->atom->kind = KLD_ATOM_SHRUNK;
        s->atom->extra = s;
        s->atom->size = s->size - removed;
    }
}

static void set_sizes(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)worker, (void)arg;
    if (ctx->files[i]->kind == KLD_FILE_OBJECT)
        set_sizes_of(ctx, elf_object(ctx->files[i]));
}

bool elf_shrink(struct kld_session *ctx, int round)
{
    if (!elf_state(ctx)->arch->plan_cuts || elf_state(ctx)->is_relocatable)
        return false;
    struct rounds r = {.first = !round, .slack = round > 2 ? 256ull << round : 0};
    kld_parallel_for(ctx, ctx->nfiles, 1, look_at, &r);
    if (!atomic_load(&r.changed))
        return false;
    kld_parallel_for(ctx, ctx->nfiles, 16, set_sizes, NULL);
    return true;
}

void elf_shrink_file(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj)
{
    if (!elf_state(ctx)->arch->plan_cuts)
        return;
    plan_file(ctx, worker, obj);
    set_sizes_of(ctx, obj);
}
