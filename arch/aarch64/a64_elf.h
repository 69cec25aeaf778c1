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
/* a64_island_elf.c: where a branch goes that does not reach its target, or just the target. */
uint64_t a64_island(const struct elf_fixup *f, uint64_t target);
extern const struct elf_island_ops a64_islands;
int64_t a64_tp_offset(const struct kld_session *ctx, uint64_t address);

#endif
