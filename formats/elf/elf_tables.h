/* elf_tables.h - the sections that the linker makes: who builds what, and when.
 *
 * Each table has a _synth step (after scan: its size, and its atom) and fills the atom's bytes in
 * a _finish step (addresses are final) or in the atom's generate callback (while writing). */
#ifndef KLD_ELF_TABLES_H
#define KLD_ELF_TABLES_H

#include "formats/elf/elf_arch.h"

/* A linker-made atom in a section of that name, entered as elf->synth[which]. size 0 is allowed:
 * the size may be set until place. The section gets type, flags and entsize. */
struct kld_atom *elf_make(struct kld_session *ctx, enum elf_synth which, const char *section,
                          uint32_t type, uint64_t flags, uint64_t entsize, uint8_t p2align,
                          uint64_t size);

/* elf_slots.c: the slots of a symbol, made (all ELF_NONE) if it has none yet; and a new set. */
struct elf_aux *elf_make_aux(struct kld_session *ctx, struct kld_symbol *sym);
uint32_t elf_add_aux(struct kld_session *ctx);

/* elf_slots.c: the words of a GOT entry, which are zero so far */
void elf_write_got_entry(struct kld_session *ctx, const struct elf_got_entry *e, uint8_t *out);

/* elf_slots.c: GOT, PLT, copy relocations */
void elf_slots_synth(struct kld_session *ctx);

/* elf_dynrel.c, elf_relr.c: .rela.dyn, .relr.dyn, .rela.plt */
void elf_dynrel_synth(struct kld_session *ctx);
/* Size of .relr.dyn for the current addresses; true if it has grown (addresses are stale). */
bool elf_relr_update(struct kld_session *ctx);
/* Of .rela.dyn, which is several atoms; bytes */
uint64_t elf_rela_dyn_size(const struct kld_session *ctx);
/* RELATIVE ones in .rela.dyn: DT_RELACOUNT; none with slack, when they may be anywhere in it */
uint32_t elf_relative_count(const struct kld_session *ctx);
void elf_dynrel_finish(struct kld_session *ctx);

/* One dynamic relocation, its symbol as an index into .dynsym. */
struct elf_dynrel_entry {
    uint32_t type, dynsym;
    uint64_t place;
    int64_t addend;
};
typedef KLD_VEC(struct elf_dynrel_entry) elf_dynrel_list;

/* Adds a relocation to the runs of its file. */
void elf_dynrel_add(struct kld_arena *arena, elf_dynrel_runs *runs, uint32_t atom, uint32_t edge,
                    enum elf_dynrel_kind kind);

/* Adds those of a GOT entry; those of the input relocations of a file; writes one. */
void elf_dynrel_of_got(struct kld_session *ctx, const struct elf_got_entry *g,
                       elf_dynrel_list *out);
void elf_dynrel_of_file(struct kld_session *ctx, const struct elf_object *obj,
                        elf_dynrel_list *out);
void elf_put_rela(uint8_t *out, const struct elf_dynrel_entry *e);

/* elf_dynsym.c: the hash functions: of the gABI, for .hash and for names of versions; for .gnu.hash */
uint32_t elf_sysv_hash(struct kld_str name);
uint32_t elf_gnu_hash(struct kld_str name);

/* elf_dynsym.c: .dynsym, .dynstr, .hash, .gnu.hash */
void elf_dynsym_synth(struct kld_session *ctx);
/* All strings are in: gives .dynstr its contents. */
void elf_dynstr_seal(struct kld_session *ctx);
/* Offset of a string in .dynstr, added if new. Before elf_dynsym_synth's atoms are sized. */
uint32_t elf_dynstr_add(struct kld_session *ctx, struct kld_str text);

/* elf_dynamic.c: .dynamic, .interp */
void elf_dynamic_synth(struct kld_session *ctx);
void elf_dynamic_finish(struct kld_session *ctx);

/* elf_notes.c: build id, package metadata, property note; .comment needs nothing: it is merged */
void elf_notes_synth(struct kld_session *ctx);
/* The build id of an output whose chunks have these hashes, at most 32 bytes; returns how many, 0: it
 * has none that depends on them. *offset: where it is in the file. */
size_t elf_build_id(struct kld_session *ctx, const uint8_t *hashes, size_t size, uint8_t *id,
                    uint64_t *offset);
/* format.seal */
void elf_seal(struct kld_session *ctx, const uint8_t *hashes, size_t size);

/* elf_symtab.c: .symtab, .symtab_shndx, .strtab, each of several generated atoms of exact size;
 * .shstrtab is elf_layout.c's. After the dynamic tables, before emitted relocations. */
void elf_symtab_synth(struct kld_session *ctx);

/* elf_relocatable.c: all of synth for -r; the last step for --emit-relocs. */
void elf_relocatable_synth(struct kld_session *ctx);

/* elf_layout.c: pseudo-sections for the headers. Called by elf_begin. */
void elf_headers_begin(struct kld_session *ctx);

/* -z max-page-size, or the CPU's */
uint64_t elf_max_page(const struct kld_session *ctx);
/* -z common-page-size, or the CPU's */
uint64_t elf_common_page(const struct kld_session *ctx);

/* elf_place.c, elf_layout.c: members of kld_format_ops */
void elf_place(struct kld_session *ctx);
void elf_layout(struct kld_session *ctx);

/* Section number for st_shndx of an output section; SHN_ABS without one. */
static inline uint32_t elf_section_number(const struct kld_section *section)
{
    return section && section->number ? section->number : SHN_ABS;
}

#endif
