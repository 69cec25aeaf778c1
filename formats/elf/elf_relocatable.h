/* elf_relocatable.h - relocations that stay in the output: -r and --emit-relocs. */
#ifndef KLD_ELF_RELOCATABLE_H
#define KLD_ELF_RELOCATABLE_H

#include "formats/elf/elf_tables.h"

/* Notes the symbols that relocations and groups of the output name: local ones as bits of
 * `locals`, global ones by id. */
void elf_relocatable_needs(struct kld_session *ctx, const struct elf_object *obj, uint64_t *locals,
                           _Atomic uint8_t *globals);

/* The output's section for group section shndx of ctx->files[f] under -r; NULL if the group is not
 * in it. */
const struct kld_section *elf_relocatable_group(const struct kld_session *ctx, uint32_t f,
                                                uint32_t shndx);

#endif
