/* a64_elf.h - what the loops over aarch64 ELF relocations share.
 *
 * ELF for the Arm 64-bit Architecture (AAELF64), 5.7 "Relocation": each relocation is a value that
 * goes into a field. a64_relocs.def has both for all of them, so that the loops need no list. */
#ifndef KLD_A64_ELF_H
#define KLD_A64_ELF_H

#include "arch/aarch64/a64_insn.h"
#include "formats/elf/elf_scan.h"

/* In the letters of AAELF64; GOT slots: G(...) */
enum a64_value {
    A64_UNKNOWN, /* no such relocation */
    A64_NOTHING,
    A64_ABS,    /* S + A */
    A64_PREL,   /* S + A - P */
    A64_BRANCH, /* S + A, where S may be a PLT entry */
    A64_GOTREL, /* S + A - GOT */
    A64_GOT,    /* G(GDAT(S)) */
    A64_DTPREL,
    A64_TPREL,
    A64_TLSGD, /* G(GTLSIDX(S)) */
    A64_TLSLD, /* G(GLDM(S)) */
    A64_TLSIE, /* G(GTPREL(S)) */
    A64_TLSDESC,
    A64_DYNAMIC,   /* for the dynamic linker only */
    A64_LARGE_PIC, /* of the large model for position-independent code, which no compiler has */
    A64_AUTH,      /* a signed pointer */
};

/* Where the value goes. Distances are from P. Fields of one family are in the order of what they
 * are numbered by. */
enum a64_field {
    A64_NO_FIELD,
    A64_MARK, /* none: an instruction that belongs to others */
    A64_WORD64,
    A64_WORD32, /* signed or unsigned */
    A64_WORD32S,
    A64_WORD16,
    A64_DISTANCE64,
    A64_DISTANCE32,
    A64_DISTANCE16,
    A64_MOVZ_G0, /* movz of 16 bits of an unsigned value without more bits */
    A64_MOVZ_G1,
    A64_MOVZ_G2,
    A64_MOVS_G0, /* movz or movn of a signed value */
    A64_MOVS_G1,
    A64_MOVS_G2,
    A64_MOVS_G3,
    A64_MOVK_G0, /* movk of 16 bits of a value with more bits */
    A64_MOVK_G1,
    A64_MOVK_G2,
    A64_MOVK_G3,
    A64_LITERAL, /* load of 19 bits of distance */
    A64_ADR,
    A64_ADRP,
    A64_ADRP_NC,
    A64_HI12,   /* add of bits 12 to 23 of an unsigned value without more bits */
    A64_LO12_1, /* add, or access of 1 byte: the low 12 bits */
    A64_LO12_2,
    A64_LO12_4,
    A64_LO12_8,
    A64_LO12_16,
    A64_LO12C_1, /* the same, of a value without more bits */
    A64_LO12C_2,
    A64_LO12C_4,
    A64_LO12C_8,
    A64_LO12C_16,
    A64_GOT_LO15,     /* load from a slot less than 32 KiB behind the start of the GOT */
    A64_GOTPAGE_LO15, /* or of its page */
    A64_BRANCH14,
    A64_BRANCH19,
    A64_BRANCH26,
};

/* R_AARCH64_*, for those as well that elf.h lacks */
enum a64_type {
#define A64_RELOC(name, number, value, field) A64_R_##name = number,
#include "arch/aarch64/a64_relocs.def"
#undef A64_RELOC
    A64_NINFO = A64_R_IRELATIVE + 1,
};
extern const struct elf_reloc_info a64_info[A64_NINFO];
extern const struct a64_meaning {
    uint8_t value, field;
} a64_meaning[A64_NINFO];
extern const struct elf_arch_ops a64_elf;

/* a64_scan_elf.c, a64_apply_elf.c: members of struct elf_arch_ops */
void a64_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
              struct kld_atom *atom);
void a64_apply(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
               const struct kld_atom *atom, uint8_t *out);
void a64_apply_debug(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                     const struct kld_atom *atom, uint8_t *out);
int64_t a64_tp_offset(const struct kld_session *ctx, uint64_t address);
/* One relocation: writes f->field. Returns how many were dealt with: 2 for a pair. */
uint32_t a64_apply_edge(const struct elf_fixup *f);

/* ---- islands: a64_island_elf.c ---- */

/* What an entry is for: a branch out of reach, its landing pad, code with erratum 843419 */
enum a64_island { A64_FAR, A64_PAD, A64_ERRATUM };
extern const struct elf_island_ops a64_islands;

/* Where a branch goes that does not reach its target: to an entry, or (too far) to the target. */
uint64_t a64_island(const struct elf_fixup *f, uint64_t target);
/* Asks for an entry of that size within reach of the place, unless there is one. */
void a64_want(struct kld_worker *worker, const struct elf_fixup *f,
              const struct kld_island_key *key, uint64_t place, uint32_t size, kld_wants *wants);
/* The entry for the instruction at that offset of the atom. */
bool a64_find_erratum(const struct kld_session *ctx, const struct kld_atom *atom, uint64_t offset,
                      uint64_t *entry);
/* b target */
void a64_put_branch(uint8_t *out, uint64_t at, uint64_t target);

/* a64_erratum_elf.c: asks for an entry if the relocation is at code with the erratum; writes the
 * entry for the code at that offset; makes the atom's relocated code go there. */
void a64_want_erratum(struct kld_worker *worker, const struct elf_fixup *f, kld_wants *wants);
void a64_write_erratum(const struct elf_fixup *f, uint64_t offset, uint8_t *out, uint64_t at);
void a64_apply_erratum(struct kld_session *ctx, const struct kld_atom *atom, uint8_t *out);

/* ---- decisions: a64_relax_elf.c ---- */

/* Symbols whose uses in one atom are not all of a form that can be rewritten: a set of hashes. */
struct a64_kept {
    bool known; /* filled at the first use that asks */
    uint64_t got[16], tls[16];
};

/* Whether edge i and the next load the target's address from the GOT, and are rewritten to compute
 * it. */
bool a64_bypasses_got(const struct kld_session *ctx, const struct kld_atom *atom, uint32_t i,
                      enum elf_class class, struct a64_kept *kept);
/* Whether edge i, of an access through a GOT slot with the variable's offset (TLSIE), is
 * rewritten to use the offset itself. */
bool a64_bypasses_tls_slot(const struct kld_session *ctx, const struct kld_atom *atom, uint32_t i,
                           enum elf_class class, struct a64_kept *kept);
/* Whether edge i and the next are adrp and add of the same address in the same register, and may
 * be rewritten. */
bool a64_is_address_pair(const struct kld_session *ctx, const struct kld_atom *atom, uint32_t i);

#endif
