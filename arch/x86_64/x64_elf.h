/* x64_elf.h - what the loops over x86-64 ELF relocations share.
 *
 * Scan asks for slots and dynamic relocations, apply writes fields that rely on them. Whatever
 * both must agree on is decided here, from what both see: the input's bytes, the kind of output,
 * and the class of the target. The class changes between them in one way only: a symbol that
 * got a copy relocation is DYNAMIC to scan and LOCAL to apply, which needs less, never more. */
#ifndef KLD_X64_ELF_H
#define KLD_X64_ELF_H

#include "arch/x86_64/x64_relax.h"
#include "formats/elf/elf_arch.h"

#ifndef R_X86_64_RELATIVE64
#define R_X86_64_RELATIVE64 38
#endif
/* Withdrawn with MPX: as PC32 and PLT32 */
#define X64_R_PC32_BND  39
#define X64_R_PLT32_BND 40

/* APX: of instructions with a REX2 (4 bytes before the field) or EVEX prefix (5 or 6) */
enum {
    X64_R_CODE_4_GOTPCRELX = 43,
    X64_R_CODE_4_GOTTPOFF,
    X64_R_CODE_4_TLSDESC,
    X64_R_CODE_5_GOTPCRELX,
    X64_R_CODE_5_GOTTPOFF,
    X64_R_CODE_5_TLSDESC,
    X64_R_CODE_6_GOTPCRELX,
    X64_R_CODE_6_GOTTPOFF,
    X64_R_CODE_6_TLSDESC,
    X64_NINFO,
};
extern const struct elf_reloc_info x64_info[X64_NINFO];
extern const struct elf_arch_ops x64_elf;

/* x64_scan_elf.c, x64_apply_elf.c: members of struct elf_arch_ops */
void x64_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
              struct kld_atom *atom);
void x64_apply(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
               const struct kld_atom *atom, uint8_t *out);
void x64_apply_debug(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                     const struct kld_atom *atom, uint8_t *out);
int64_t x64_tp_offset(const struct kld_session *ctx, uint64_t address);
int64_t x64_dtp_offset(const struct kld_session *ctx, uint64_t address);

/* ---- messages ---- */

/* Name of a relocation type, for messages. */
const char *x64_type_name(uint32_t type);
/* Name of symbol number r_sym for messages; a section's name for a section symbol. */
struct kld_str x64_symbol_name(const struct kld_session *ctx, const struct elf_object *obj,
                               uint32_t r_sym);
/* Whether the relocation's numbers are sound: type, symbol, place. Reports what is not. */
bool x64_is_valid(struct kld_session *ctx, const struct elf_object *obj,
                  const struct kld_atom *atom, const elf_rela *rel);

/* ---- classes of targets ---- */

enum x64_class {
    X64_LOCAL,     /* in this output, moves with it */
    X64_IFUNC,     /* the same, but its address is what a resolver returns */
    X64_THREAD,    /* in this output, thread-local; global names only */
    X64_DYNAMIC,   /* known at run time only */
    X64_CONSTANT,  /* an absolute value; 0 for what is undefined and weak */
    X64_UNDEFINED, /* an error */
    X64_DISCARDED, /* local to a section that is not in the output */
};

static inline enum x64_class x64_classify_global(const struct kld_symbol *sym)
{
    if (kld_unlikely(elf_is_dynamic_symbol(sym)))
        return X64_DYNAMIC;
    if (kld_likely(sym->kind == KLD_SYM_DEFINED)) {
        if (kld_unlikely(sym->type == KLD_TYPE_IFUNC))
            return X64_IFUNC;
        return kld_unlikely(sym->type == KLD_TYPE_TLS) ? X64_THREAD : X64_LOCAL;
    }
    return sym->kind == KLD_SYM_UNDEFINED && !sym->weak ? X64_UNDEFINED : X64_CONSTANT;
}

static inline enum x64_class x64_classify_local(const struct elf_object *obj, uint32_t r_sym)
{
    uint32_t shndx = elf_sym_section(obj, r_sym);
    if (kld_unlikely(shndx == SHN_UNDEF || shndx >= obj->nshdrs))
        return X64_CONSTANT;
    uint32_t a = obj->atom_of[shndx];
    if (kld_unlikely(a == ELF_NO_ATOM || a == ELF_DISCARDED))
        return X64_DISCARDED;
    return kld_unlikely(ELF64_ST_TYPE(obj->syms[r_sym].st_info) == STT_GNU_IFUNC) ? X64_IFUNC
                                                                                  : X64_LOCAL;
}

/* r_sym < obj->nsyms */
static inline enum x64_class x64_classify(const struct kld_session *ctx,
                                          const struct elf_object *obj, uint32_t r_sym)
{
    if (r_sym >= obj->first_global)
        return x64_classify_global(elf_global(ctx, obj, r_sym));
    return x64_classify_local(obj, r_sym);
}

/* ---- decisions ---- */

/* The input's bytes; none for a section that is all zeros. */
static inline struct kld_bytes x64_bytes(const struct kld_atom *atom)
{
    return (struct kld_bytes){atom->data, atom->data ? atom->size : 0};
}

/* What a 64-bit word that holds an address needs at run time. */
enum x64_word {
    X64_WORD_FIXED, /* nothing: the address is final, or that of a PLT entry or a copy */
    X64_WORD_RELATIVE,
    X64_WORD_SYMBOLIC,
    X64_WORD_IRELATIVE,
};

static inline enum x64_word x64_word(const struct kld_session *ctx, const struct kld_atom *atom,
                                     enum x64_class class)
{
    const struct kld_options *o = &ctx->options;
    bool pic = elf_state(ctx)->is_pic;
    /* A read-only word of a fixed-position program: a copy of the variable or a canonical PLT
     * entry is better than writing to it, unless the user says otherwise. */
    bool writes = pic || (atom->flags & KLD_ATOM_WRITE) ||
                  (o->z_copyreloc == KLD_NO && o->z_text == KLD_TEXTREL_ALLOW);
    switch (class) {
    case X64_LOCAL: return pic ? X64_WORD_RELATIVE : X64_WORD_FIXED;
    case X64_IFUNC: return writes ? X64_WORD_IRELATIVE : X64_WORD_FIXED;
    case X64_DYNAMIC: return writes ? X64_WORD_SYMBOLIC : X64_WORD_FIXED;
    default: return X64_WORD_FIXED;
    }
}

/* Whether a branch to it goes through the PLT. */
static inline bool x64_uses_plt(enum x64_class class)
{
    return class == X64_DYNAMIC || class == X64_IFUNC;
}

/* What a GOTPCRELX instruction becomes.
 *
 * Addresses are unknown when scan leaves the GOT slot out. The rewritten forms reach their target
 * if the image spans less than 2 GiB and, for the immediates of position-dependent output, if
 * its addresses fit a sign-extended 32-bit field. Layout checks that; where it does not hold, it
 * sets elf_link.no_gotpcrelx and scans again, and all uses keep their slots. */
enum x64_load { X64_LOAD_GOT, X64_LOAD_LEA, X64_LOAD_CALL, X64_LOAD_JMP, X64_LOAD_IMMEDIATE };

enum x64_load x64_load(const struct kld_session *ctx, const struct elf_object *obj,
                       const struct kld_atom *atom, const elf_rela *rel, enum x64_class class);

/* The access model that a thread-local access compiled for any module is rewritten to. Not a
 * matter of --no-relax: a static program has no __tls_get_addr to call that knew its block. */
enum x64_tls { X64_TLS_KEEP, X64_TLS_IE, X64_TLS_LE };

static inline enum x64_tls x64_tls(const struct elf_link *elf, enum x64_class class)
{
    if (elf->is_shared)
        return X64_TLS_KEEP;
    return class == X64_DYNAMIC ? X64_TLS_IE : X64_TLS_LE;
}

/* The same for lea x@TLSDESC(%rip), %reg. With REX2 the GOT serves for a constant offset too. */
static inline enum x64_tls x64_tls_desc(const struct elf_link *elf, uint32_t type,
                                        enum x64_class class)
{
    enum x64_tls to = x64_tls(elf, class);
    return type != R_X86_64_GOTPC32_TLSDESC && to == X64_TLS_LE ? X64_TLS_IE : to;
}

/* The same for an instruction that loads the offset from the GOT (GOTTPOFF). */
static inline enum x64_tls x64_tls_load(const struct elf_link *elf, const struct kld_atom *atom,
                                        const elf_rela *rel, enum x64_class class)
{
    if (ELF64_R_TYPE(rel->r_info) == R_X86_64_GOTTPOFF && x64_tls(elf, class) == X64_TLS_LE &&
        x64_ie_is_relaxable(x64_bytes(atom), rel->r_offset))
        return X64_TLS_LE;
    return X64_TLS_IE;
}

/* Whether an offset in the module's block (DTPOFF) is one from the thread pointer instead:
 * in code of a program, where local dynamic has become local exec. */
static inline bool x64_dtpoff_is_tpoff(const struct elf_link *elf, const struct kld_atom *atom)
{
    return !elf->is_shared && (atom->flags & KLD_ATOM_EXEC);
}

/* The call that belongs to the TLSGD or TLSLD relocation `edge`, whose own relocation is the next
 * one; X64_CALL_UNKNOWN if that is not so. */
enum x64_tls_call x64_tls_call(const struct kld_atom *atom, uint32_t edge, bool gd);

#endif
