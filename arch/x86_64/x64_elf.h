/* x64_elf.h - what the loops over x86-64 ELF relocations share: rows, and the decisions on
 * instructions that scan and apply must agree on (elf_reloc.h has those of every CPU). */
#ifndef KLD_X64_ELF_H
#define KLD_X64_ELF_H

#include "arch/x86_64/x64_relax.h"
#include "formats/elf/elf_scan.h"

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

/* ---- decisions ---- */

/* The input's bytes; none for a section that is all zeros. */
static inline struct kld_bytes x64_bytes(const struct kld_atom *atom)
{
    return (struct kld_bytes){atom->data, atom->data ? atom->size : 0};
}

/* What a GOTPCRELX instruction becomes.
 *
 * Addresses are unknown when scan leaves the GOT slot out. The rewritten forms reach their target
 * if the image spans less than 2 GiB and, for the immediates of position-dependent output, if
 * its addresses fit a sign-extended 32-bit field. Layout checks that; where it does not hold, it
 * sets elf_link.no_gotpcrelx and scans again, and all uses keep their slots. */
enum x64_load { X64_LOAD_GOT, X64_LOAD_LEA, X64_LOAD_CALL, X64_LOAD_JMP, X64_LOAD_IMMEDIATE };

enum x64_load x64_load(const struct kld_session *ctx, const struct elf_object *obj,
                       const struct kld_atom *atom, const elf_rela *rel, enum elf_class class);

/* elf_tls for lea x@TLSDESC(%rip), %reg. With REX2 the GOT serves for a constant offset too. */
static inline enum elf_tls x64_tls_desc(const struct elf_link *elf, uint32_t type,
                                        enum elf_class class)
{
    enum elf_tls to = elf_tls(elf, class);
    return type != R_X86_64_GOTPC32_TLSDESC && to == ELF_TLS_LE ? ELF_TLS_IE : to;
}

/* The same for an instruction that loads the offset from the GOT (GOTTPOFF). */
static inline enum elf_tls x64_tls_load(const struct elf_link *elf, const struct kld_atom *atom,
                                        const elf_rela *rel, enum elf_class class)
{
    if (ELF64_R_TYPE(rel->r_info) == R_X86_64_GOTTPOFF && elf_tls(elf, class) == ELF_TLS_LE &&
        x64_ie_is_relaxable(x64_bytes(atom), rel->r_offset))
        return ELF_TLS_LE;
    return ELF_TLS_IE;
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
