/* a64_elf.h - what the loops over aarch64 ELF relocations share.
 *
 * ELF for the Arm 64-bit Architecture (AAELF64), 5.7 "Relocation". */
#ifndef KLD_A64_ELF_H
#define KLD_A64_ELF_H

#include "arch/aarch64/a64_insn.h"
#include "formats/elf/elf_scan.h"

/* Of those that elf.h lacks */
enum {
    A64_R_NONE2 = 256, /* R_AARCH64_NONE of older tools */
    A64_R_PLT32 = 314,
    A64_R_GOTPCREL32 = 315,
    A64_NINFO = R_AARCH64_IRELATIVE + 1,
};
extern const struct elf_reloc_info a64_info[A64_NINFO];
extern const struct elf_arch_ops a64_elf;

/* a64_scan_elf.c, a64_apply_elf.c: members of struct elf_arch_ops */
void a64_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
              struct kld_atom *atom);
void a64_apply(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
               const struct kld_atom *atom, uint8_t *out);
void a64_apply_debug(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                     const struct kld_atom *atom, uint8_t *out);
int64_t a64_tp_offset(const struct kld_session *ctx, uint64_t address);
/* One relocation: writes f->field. */
void a64_apply_edge(const struct elf_fixup *f);

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

#endif
