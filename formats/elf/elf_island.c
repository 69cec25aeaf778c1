/* elf_island.c - islands in ELF outputs: whether there are any, what branches go to, the bytes.
 *
 * Zero cost where there are none: one comparison of the size of the code a link. */
#include "formats/elf/elf_island.h"
#include "formats/elf/elf_symtab.h"
#include "formats/elf/elf_tables.h"

struct elf_fixup elf_fixup_at(struct kld_session *ctx, const struct kld_atom *atom, uint32_t edge)
{
    const elf_rela *rel = (const elf_rela *)atom->edges + edge;
    return (struct elf_fixup){.ctx = ctx,
                              .obj = elf_object(atom->file),
                              .elf = elf_state(ctx),
                              .atom = atom,
                              .rel = rel,
                              .type = ELF64_R_TYPE(rel->r_info),
                              .r_sym = ELF64_R_SYM(rel->r_info),
                              .p = atom->addr + rel->r_offset,
                              .a = rel->r_addend};
}

/* ---- keys ---- */

static const struct kld_atom *global_atom(const struct elf_fixup *f, uint64_t *offset)
{
    const struct kld_symbol *sym = elf_global(f->ctx, f->obj, f->r_sym);
    *offset = sym->value + (uint64_t)f->a;
    return elf_classify_global(sym) == ELF_TO_LOCAL && !sym->in_section ? sym->atom : NULL;
}

static const struct kld_atom *local_atom(const struct elf_fixup *f, uint64_t *offset)
{
    struct elf_target t = elf_resolve(f->ctx, f->obj, f->r_sym, f->a);
    *offset = f->obj->syms[f->r_sym].st_value + (uint64_t)f->a;
    return t.sym && t.sym->type == KLD_TYPE_IFUNC ? NULL : t.atom;
}

const struct kld_atom *elf_branch_atom(const struct elf_fixup *f, uint64_t *offset)
{
    const struct kld_atom *atom =
        f->r_sym < f->obj->first_global ? local_atom(f, offset) : global_atom(f, offset);
    if (atom && (atom->flags & KLD_ATOM_FOLDED))
        atom = atom->folded_into;
    return atom && atom->kind != KLD_ATOM_PIECES ? atom : NULL;
}

struct kld_island_key elf_branch_key(const struct elf_fixup *f, uint32_t kind)
{
    uint64_t offset;
    const struct kld_atom *atom = elf_branch_atom(f, &offset);
    if (atom)
        return (struct kld_island_key){atom, offset, kind};
    const struct kld_symbol *sym = elf_fixup_symbol(f);
    if (sym)
        return (struct kld_island_key){sym, (uint64_t)f->a, kind};
    return (struct kld_island_key){NULL, elf_fixup_value(f) + (uint64_t)f->a, kind};
}

/* ---- contents ---- */

static void write_island(struct kld_session *ctx, struct kld_worker *worker,
                         const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    const struct elf_island_ops *ops = elf_state(ctx)->arch->islands;
    const struct kld_island *island = atom->extra;
    for (size_t i = 0; i < island->entries.len; i++) {
        const struct kld_island_entry *e = &island->entries.data[i];
        struct elf_fixup f = elf_fixup_at(ctx, e->atom, e->edge);
        ops->write(&f, &e->key, out + e->offset, atom->addr + e->offset);
    }
}

/* ---- placing and growing ---- */

static bool is_identifier(const char *name)
{
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") ==
           strlen(name);
}

/* Nothing may come between the parts of what is one function, nor into a table of the linker's, nor
 * into what a program goes through from __start_NAME to __stop_NAME. */
static bool holds(const struct kld_session *ctx, const struct kld_section *s)
{
    static const char *const whole[] = {".init", ".fini", ".plt", ".plt.got", ".plt.sec"};
    (void)ctx;
    for (size_t i = 0; i < KLD_COUNT(whole); i++)
        if (strcmp(s->name, whole[i]) == 0)
            return false;
    return s->type == SHT_PROGBITS && !is_identifier(s->name);
}

/* Bytes from the first executable section to the end of the last. */
static uint64_t code_span(const struct kld_session *ctx)
{
    uint64_t start = UINT64_MAX, end = 0;
    for (uint32_t i = 0; i < ctx->norder; i++) {
        const struct kld_section *s = ctx->order[i];
        if (!(s->flags & KLD_ATOM_EXEC) || !(s->flags & KLD_ATOM_ALLOC))
            continue;
        start = KLD_MIN(start, s->addr);
        end = KLD_MAX(end, s->addr + s->size);
    }
    return end > start ? end - start : 0;
}

static bool is_far(const struct kld_session *ctx)
{
    return code_span(ctx) > (uint64_t)elf_state(ctx)->arch->islands->reach.ahead;
}

static void find_near(struct kld_session *ctx, struct kld_worker *worker,
                      const struct kld_atom *atom, kld_wants *wants)
{
    elf_state(ctx)->arch->islands->find(ctx, worker, atom, false, wants);
}

static void find_far(struct kld_session *ctx, struct kld_worker *worker,
                     const struct kld_atom *atom, kld_wants *wants)
{
    elf_state(ctx)->arch->islands->find(ctx, worker, atom, true, wants);
}

bool elf_islands_update(struct kld_session *ctx)
{
    const struct elf_island_ops *ops = elf_state(ctx)->arch->islands;
    if (!ops || elf_state(ctx)->is_relocatable)
        return false;
    bool far = is_far(ctx), always = ops->always(ctx);
    if (!far && !always)
        return false;
    if (!ctx->islands)
        kld_islands_place(ctx, &(struct kld_island_policy){
                                   .gap = (uint64_t)ops->reach.ahead / 2,
                                   .unit = always ? ops->unit : 1,
                                   .p2align = ops->p2align,
                                   .holds = holds,
                                   .generate = write_island,
                               });
    bool grown = kld_islands_grow(ctx, far ? find_far : find_near);
    if (grown)
        elf_symtab_islands(ctx);
    return grown;
}
