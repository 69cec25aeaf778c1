/* elf_island.h - islands (src/island.h) in ELF outputs. */
#ifndef KLD_ELF_ISLAND_H
#define KLD_ELF_ISLAND_H

#include "formats/elf/elf_apply.h"

/* layout: places islands if the output needs them, and grows them for the current addresses, which
 * are stale if it returns true. Symbols have their addresses. */
bool elf_islands_update(struct kld_session *ctx);

/* The edge number `edge` of the atom. Its field must not be written: there is none. */
struct elf_fixup elf_fixup_at(struct kld_session *ctx, const struct kld_atom *atom, uint32_t edge);

/* The atom that the branch of f goes to, and where in it; NULL: a PLT entry, or no atom is known. */
const struct kld_atom *elf_branch_atom(const struct elf_fixup *f, uint64_t *offset);

/* What the branch of f goes to, whatever its address is, as the key of an island entry. */
struct kld_island_key elf_branch_key(const struct elf_fixup *f, uint32_t kind);

#endif
