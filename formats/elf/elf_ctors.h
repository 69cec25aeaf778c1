/* elf_ctors.h - old-style constructor tables made to run: elf_ctors.c. */
#ifndef KLD_ELF_CTORS_H
#define KLD_ELF_CTORS_H

#include "formats/elf/elf_object.h"

/* Whether a section is a .ctors or .dtors table that goes to .init_array or .fini_array: any but
 * those of the crt files, which mark the ends of the old tables. */
bool elf_is_ctors(const struct elf_object *obj, const char *name);

/* Turns such an atom's entries round, and its relocations with them. */
void elf_reverse_ctors(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom);

#endif
