/* elf_reloc.h - what the loops over ELF relocations decide alike on every CPU.
 *
 * Scan asks for slots and dynamic relocations, apply writes fields that rely on them. Whatever
 * both must agree on is decided here, from what both see: the kind of output and the class of the
 * target. The class changes between them in one way only: a symbol that got a copy relocation is
 * ELF_TO_DYNAMIC to scan and ELF_TO_LOCAL to apply, which needs less, never more. */
#ifndef KLD_ELF_RELOC_H
#define KLD_ELF_RELOC_H

#include "formats/elf/elf_arch.h"

/* ---- messages: elf_reloc.c ---- */

/* Name of a relocation type. */
const char *elf_reloc_name(const struct kld_session *ctx, uint32_t type);
/* Name of symbol number r_sym; a section's name for a section symbol. */
struct kld_str elf_target_name(const struct kld_session *ctx, const struct elf_object *obj,
                               uint32_t r_sym);
/* Reports what is wrong with a relocation that is not sound. */
void elf_report_unsound(struct kld_session *ctx, const struct elf_object *obj,
                        const struct kld_atom *atom, const elf_rela *rel);

/* The relocations in the order of their offsets, those of one offset in the order they have: the
 * same ones, or a copy in the worker's arena. */
const elf_rela *elf_sorted_relas(struct kld_worker *worker, const elf_rela *relas, uint32_t n);

/* Whether the relocation's numbers mean something: type, symbol, place. The rows are an argument
 * so that they are constants in the loop of a CPU. */
static inline bool elf_is_sound(const struct elf_reloc_info *info, uint32_t ninfo,
                                const struct elf_object *obj, const struct kld_atom *atom,
                                const elf_rela *rel)
{
    uint32_t type = ELF64_R_TYPE(rel->r_info);
    return kld_likely(type < ninfo && ELF64_R_SYM(rel->r_info) < obj->nsyms &&
                      kld_in_bounds(rel->r_offset, info[type].width, atom->size) &&
                      info[type].name);
}

/* ---- classes of targets ---- */

enum elf_class {
    ELF_TO_LOCAL,     /* in this output, moves with it */
    ELF_TO_IFUNC,     /* the same, but its address is what a resolver returns */
    ELF_TO_THREAD,    /* in this output, thread-local; global names only */
    ELF_TO_DYNAMIC,   /* known at run time only */
    ELF_TO_CONSTANT,  /* an absolute value; 0 for what is undefined and weak */
    ELF_TO_UNDEFINED, /* an error */
    ELF_TO_DISCARDED, /* local to a section that is not in the output */
};

static inline enum elf_class elf_classify_global(const struct kld_symbol *sym)
{
    if (kld_unlikely(elf_is_dynamic_symbol(sym)))
        return ELF_TO_DYNAMIC;
    if (kld_likely(sym->kind == KLD_SYM_DEFINED)) {
        if (kld_unlikely(sym->type == KLD_TYPE_IFUNC))
            return ELF_TO_IFUNC;
        return kld_unlikely(sym->type == KLD_TYPE_TLS) ? ELF_TO_THREAD : ELF_TO_LOCAL;
    }
    return sym->kind == KLD_SYM_UNDEFINED && !sym->weak ? ELF_TO_UNDEFINED : ELF_TO_CONSTANT;
}

static inline enum elf_class elf_classify_local(const struct elf_object *obj, uint32_t r_sym)
{
    uint32_t shndx = elf_sym_section(obj, r_sym);
    if (kld_unlikely(shndx == SHN_UNDEF || shndx >= obj->nshdrs))
        return ELF_TO_CONSTANT;
    uint32_t a = obj->atom_of[shndx];
    if (kld_unlikely(a == ELF_NO_ATOM || a == ELF_DISCARDED))
        return ELF_TO_DISCARDED;
    return kld_unlikely(ELF64_ST_TYPE(obj->syms[r_sym].st_info) == STT_GNU_IFUNC) ? ELF_TO_IFUNC
                                                                                  : ELF_TO_LOCAL;
}

/* r_sym < obj->nsyms */
static inline enum elf_class elf_classify(const struct kld_session *ctx,
                                          const struct elf_object *obj, uint32_t r_sym)
{
    if (r_sym >= obj->first_global)
        return elf_classify_global(elf_global(ctx, obj, r_sym));
    return elf_classify_local(obj, r_sym);
}

/* The same while scan runs: it takes no look at the symbol, which would be a cache miss. */
static inline enum elf_class elf_scan_class(const struct kld_session *ctx,
                                            const struct elf_object *obj, uint32_t r_sym)
{
    const uint8_t *classes = elf_state(ctx)->classes;
    if (r_sym < obj->first_global && kld_likely(obj->local_classes))
        return (enum elf_class)obj->local_classes[r_sym];
    if (r_sym >= obj->first_global && kld_likely(classes))
        return (enum elf_class)classes[obj->base.ids[r_sym - obj->first_global]];
    return elf_classify(ctx, obj, r_sym);
}

/* ---- decisions ---- */

/* What a 64-bit word that holds an address needs at run time. */
enum elf_word_need {
    ELF_WORD_FIXED, /* nothing: the address is final, or that of a PLT entry or a copy */
    ELF_WORD_RELATIVE,
    ELF_WORD_SYMBOLIC,
    ELF_WORD_IRELATIVE,
};

static inline enum elf_word_need elf_word_need(const struct kld_session *ctx,
                                               const struct kld_atom *atom, enum elf_class class)
{
    const struct kld_options *o = &ctx->options;
    bool pic = elf_state(ctx)->is_pic;
    /* A read-only word of a fixed-position program: a copy of the variable or a canonical PLT
     * entry is better than writing to it, unless the user says otherwise. */
    bool writes = pic || (atom->flags & KLD_ATOM_WRITE) ||
                  (o->z_copyreloc == KLD_NO && o->z_text == KLD_TEXTREL_ALLOW);
    switch (class) {
    case ELF_TO_LOCAL: return pic ? ELF_WORD_RELATIVE : ELF_WORD_FIXED;
    case ELF_TO_IFUNC: return writes ? ELF_WORD_IRELATIVE : ELF_WORD_FIXED;
    case ELF_TO_DYNAMIC: return writes ? ELF_WORD_SYMBOLIC : ELF_WORD_FIXED;
    default: return ELF_WORD_FIXED;
    }
}

/* Whether a branch to it goes through the PLT. */
static inline bool elf_uses_plt(enum elf_class class)
{
    return class == ELF_TO_DYNAMIC || class == ELF_TO_IFUNC;
}

/* The access model that a thread-local access compiled for any module is rewritten to. Not a
 * matter of --no-relax: a static program has no __tls_get_addr to call that knew its block. */
enum elf_tls { ELF_TLS_KEEP, ELF_TLS_IE, ELF_TLS_LE };

static inline enum elf_tls elf_tls(const struct elf_link *elf, enum elf_class class)
{
    if (elf->is_shared)
        return ELF_TLS_KEEP;
    return class == ELF_TO_DYNAMIC ? ELF_TLS_IE : ELF_TLS_LE;
}

#endif
