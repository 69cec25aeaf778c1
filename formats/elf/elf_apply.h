/* elf_apply.h - the values that relocated fields are made of: for the apply loops of the CPUs, which
 * know the formulas. Scan has checked the numbers. */
#ifndef KLD_ELF_APPLY_H
#define KLD_ELF_APPLY_H

#include "formats/elf/elf_reloc.h"

/* What the formulas of one relocation need. The letters are those of the psABIs: S the target's
 * value, A the addend, P the place, G a GOT slot, L a PLT entry. */
struct elf_fixup {
    struct kld_session *ctx;
    struct elf_object *obj;
    const struct elf_link *elf;
    const struct kld_atom *atom;
    const elf_rela *rel;
    uint32_t type, r_sym;
    uint64_t p;
    int64_t a;
    uint8_t *field;
};

/* ---- range checks ---- */

/* value is not in [min, max]. */
void elf_report_overflow(const struct elf_fixup *f, uint64_t value, int64_t min, uint64_t max);

static inline void elf_put_s32(const struct elf_fixup *f, uint8_t *field, uint64_t value)
{
    if (kld_unlikely((int64_t)value != (int32_t)value))
        elf_report_overflow(f, value, INT32_MIN, INT32_MAX);
    kld_put32(field, (uint32_t)value);
}

static inline void elf_put_u32(const struct elf_fixup *f, uint8_t *field, uint64_t value)
{
    if (kld_unlikely(value > UINT32_MAX))
        elf_report_overflow(f, value, 0, UINT32_MAX);
    kld_put32(field, (uint32_t)value);
}

/* Fields of `bits` bits: distances are signed; addresses may be meant either way. */
static inline void elf_check_range(const struct elf_fixup *f, uint64_t value, unsigned bits,
                                   bool is_signed)
{
    int64_t min = -(1ll << (bits - 1));
    uint64_t max = (1ull << (is_signed ? bits - 1 : bits)) - 1;
    if (kld_unlikely((int64_t)value < min || (int64_t)value > (int64_t)max))
        elf_report_overflow(f, value, min, max);
}

/* 0x... is not a multiple of `align` bytes. */
void elf_report_alignment(const struct elf_fixup *f, uint64_t value, unsigned align);

/* The relocation means nothing in a section that is not loaded, such as debug information. */
void elf_report_not_loaded(const struct elf_fixup *f);

/* ---- values ---- */

/* The section of strings that relocations of debug information refer to, one after the other */
struct elf_strings {
    uint32_t r_sym;              /* its symbol; 0: none yet */
    const struct kld_atom *atom; /* it */
    const struct kld_piece *last;
};

/* The target is that section from now on, if it is one of strings in the output. */
static inline void elf_note_strings(struct elf_strings *s, const struct elf_object *obj,
                                    const struct elf_target *t)
{
    const struct kld_atom *atom = t->atom;
    if (t->sym_index >= obj->first_global || !atom || t->discarded ||
        atom->kind != KLD_ATOM_PIECES || atom->pieces->entsize != 1 || !atom->pieces->merged ||
        !atom->pieces->count || ELF64_ST_TYPE(obj->syms[t->sym_index].st_info) != STT_SECTION ||
        obj->syms[t->sym_index].st_value)
        return;
    *s = (struct elf_strings){.r_sym = t->sym_index, .atom = atom};
}

/* Goes to the next relocation of the atom that f is of. */
static inline void elf_fixup_next(struct elf_fixup *f, const elf_rela *rel, uint8_t *out)
{
    f->rel = rel;
    f->type = ELF64_R_TYPE(rel->r_info);
    f->r_sym = ELF64_R_SYM(rel->r_info);
    f->p = f->atom->addr + rel->r_offset;
    f->a = rel->r_addend;
    f->field = out + rel->r_offset;
}

/* What stands in debug information for the address of code that is not in the output. */
uint64_t elf_tombstone(const struct elf_object *obj, const struct kld_atom *atom);
/* Whether branches to the symbol go to a PLT entry. */
bool elf_has_plt(const struct kld_session *ctx, const struct kld_symbol *sym);

/* Whether scan has found what it refers to, a global name, to be local to the output. That stays so, and to
 * look it up is no cache miss, other than a look at the symbol. */
static inline bool elf_is_local_global(const struct elf_fixup *f, kld_symid id)
{
    return f->elf->classes && f->elf->classes[id] == ELF_TO_LOCAL;
}

static inline enum elf_class elf_fixup_class(const struct elf_fixup *f)
{
    if (f->r_sym >= f->obj->first_global &&
        elf_is_local_global(f, f->obj->base.ids[f->r_sym - f->obj->first_global]))
        return ELF_TO_LOCAL;
    /* To scan too, what is undefined is 0 once it has been reported (or may be: an option). */
    enum elf_class class = elf_classify(f->ctx, f->obj, f->r_sym);
    return class == ELF_TO_UNDEFINED ? ELF_TO_CONSTANT : class;
}

/* The target's symbol: of a local one only if scan made it. */
static inline struct kld_symbol *elf_fixup_symbol(const struct elf_fixup *f)
{
    if (f->r_sym >= f->obj->first_global)
        return elf_global(f->ctx, f->obj, f->r_sym);
    return elf_local_symbol(f->obj, f->r_sym);
}

static inline const struct elf_aux *elf_fixup_aux(const struct elf_fixup *f)
{
    return elf_aux(f->ctx, elf_fixup_symbol(f));
}

/* S */
static inline uint64_t elf_fixup_value(const struct elf_fixup *f)
{
    return elf_value(f->ctx, f->obj, f->r_sym, f->a);
}

/* S + A in a field as wide as addresses; what the dynamic linker adds a symbol to stays 0. */
static inline void elf_put_word(const struct elf_fixup *f)
{
    enum elf_word_need word = elf_word_need(f->ctx, f->atom, elf_fixup_class(f));
    kld_put64(f->field, word == ELF_WORD_SYMBOLIC ? 0 : elf_fixup_value(f) + (uint64_t)f->a);
}

/* L, or S for what a branch reaches without a PLT entry. */
static inline uint64_t elf_fixup_branch(const struct elf_fixup *f)
{
    if (f->r_sym < f->obj->first_global)
        return elf_fixup_value(f);
    kld_symid id = f->obj->base.ids[f->r_sym - f->obj->first_global];
    if (kld_likely(elf_is_local_global(f, id)))
        return f->elf->addresses[id];
    const struct kld_symbol *sym = &f->ctx->symbols[id];
    if (elf_is_dynamic_symbol(sym) && elf_has_plt(f->ctx, sym))
        return elf_plt_address(f->ctx, sym);
    return f->elf->addresses[id];
}

/* G */
static inline uint64_t elf_fixup_got(const struct elf_fixup *f)
{
    return elf_got_address(f->ctx, elf_fixup_aux(f)->got);
}

/* GOT: what _GLOBAL_OFFSET_TABLE_ stands for */
static inline uint64_t elf_got_base(const struct elf_link *elf)
{
    return elf->synth[ELF_GOT_PLT] ? elf->got_plt_addr : elf->got_addr;
}

/* The offset of an address in the module's thread-local block, as DTPREL relocations have it */
static inline uint64_t elf_dtp_offset(const struct elf_link *elf, uint64_t address)
{
    return address - elf->tls_start - elf->arch->dtp_bias;
}

static inline uint64_t elf_fixup_size(const struct elf_fixup *f)
{
    if (f->r_sym >= f->obj->first_global)
        return elf_global(f->ctx, f->obj, f->r_sym)->size;
    return f->obj->syms[f->r_sym].st_size;
}

#endif
