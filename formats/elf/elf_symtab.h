/* elf_symtab.h - numbers in the output's .symtab, for those who write relocations into files. */
#ifndef KLD_ELF_SYMTAB_H
#define KLD_ELF_SYMTAB_H

#include "formats/elf/elf_tables.h"

/* Whether the output holds relocations against .symtab: -r, --emit-relocs. Only then the numbers
 * below exist, from elf_symtab_synth on. */
static inline bool elf_keeps_relocs(const struct kld_session *ctx)
{
    return elf_state(ctx)->is_relocatable || ctx->options.emit_relocs;
}

/* The local symbols of a file in .symtab, and their names in .strtab: what there is and, with
 * slack, room for more behind it. Spare entries are STT_FILE symbols without a name. */
struct elf_symtab_locals {
    uint32_t first, count, capacity;
    uint64_t names, names_size, names_capacity; /* offset in .strtab, bytes */
};

/* Those of ctx->files[f], after synth; false: it has none. */
bool elf_symtab_locals(const struct kld_session *ctx, uint32_t f, struct elf_symtab_locals *out);

/* The local symbols of ctx->files[f], a newer version of the file of which *old is said: as they are to
 * be in .symtab (all of the capacity) and .strtab, from the session's arena. False: no room. */
bool elf_symtab_again(struct kld_session *ctx, uint32_t f, const struct elf_symtab_locals *old,
                      struct elf_symtab_locals *out, uint8_t **symbols, uint8_t **names);

/* A global symbol as it is in .symtab, but for the place of its name in .strtab; that is returned, and may
 * be in the buffer. */
struct kld_str elf_symtab_global(struct kld_session *ctx, kld_symid id, elf_sym *out, char *buffer,
                                 size_t size);

/* kld_updater_ops.symbol_numbers */
const uint32_t *elf_symbol_numbers(struct kld_session *ctx);

/* Islands have grown: the table holds a symbol for each of their entries. */
void elf_symtab_islands(struct kld_session *ctx);

/* Number of symbol i of ctx->files[f] in .symtab; 0 if it is not in there. Section symbols have
 * no number of their own: elf_symtab_section. */
uint32_t elf_symtab_number(const struct kld_session *ctx, uint32_t f, uint32_t i);

/* Number of the section symbol of an output section, or 0. */
uint32_t elf_symtab_section(const struct kld_session *ctx, const struct kld_section *section);

#endif
