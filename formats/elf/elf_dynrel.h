/* elf_dynrel.h - what the files that make the tables of dynamic relocations share.
 *
 *   elf_dynrel.c    which ones there are, .rela.dyn and .rela.plt
 *   elf_relative.c  the RELATIVE ones of .rela.dyn, made when they are written
 *   elf_relr.c      .relr.dyn
 *   elf_relas.c     the order of entries */
#ifndef KLD_ELF_DYNREL_H
#define KLD_ELF_DYNREL_H

#include "formats/elf/elf_symbols.h"
#include "formats/elf/elf_tables.h"

/* Parts of .rela.dyn, in its order; what is in .relr.dyn; and what needs none after all */
enum elf_rela_part {
    ELF_RELA_RELATIVE,
    ELF_RELA_SYMBOLIC,
    ELF_RELA_IRELATIVE,
    ELF_RELA_PARTS,
    ELF_RELA_RELR = ELF_RELA_PARTS,
    ELF_RELA_NOTHING
};

struct elf_rela_counts {
    uint32_t n[ELF_RELA_PARTS + 1];
};

/* Output sections whose RELATIVE entries are counted; 0 stands for all others. */
enum { ELF_RELA_GROUPS = 32 };

struct elf_dynrels {
    /* By file: how many it has; once all are counted, which ones are its. The same of RELATIVE ones by file and
     * group. */
    struct elf_rela_counts *files;
    uint32_t *relative;
    struct elf_rela_counts total;
    uint8_t *group_of; /* by output section */
    const struct kld_section *groups[ELF_RELA_GROUPS];
    uint32_t ngroups;
    uint8_t order[ELF_RELA_GROUPS];      /* of groups, by address */
    uint32_t group_end[ELF_RELA_GROUPS]; /* where the group's end */
    bool late;                           /* RELATIVE ones are made when they are written */
    /* Those of slots: counted by synth, again with their addresses by finish */
    elf_dynrel_list slots;
    uint32_t nslots[ELF_RELA_PARTS], first_slot[ELF_RELA_PARTS];
    uint64_t *relr_places;
    elf_rela *entries;  /* .rela.dyn, or what follows the RELATIVE ones */
    size_t n, capacity; /* with slack there are more than n, which are free */
};

/* What number `k` of a run became, now that every symbol is known. */
enum elf_rela_part elf_dynrel_part(const struct kld_session *ctx, const struct elf_object *obj,
                                   const struct elf_dynrel *d, uint32_t k);

/* Its entry, of part RELATIVE or RELR */
static inline struct elf_dynrel_entry elf_dynrel_relative(const struct kld_session *ctx,
                                                          const struct elf_object *obj,
                                                          const struct elf_dynrel *d, uint32_t k)
{
    const struct kld_atom *atom = &obj->base.atoms[d->atom];
    const elf_rela *rel = (const elf_rela *)atom->edges + d->edge + k;
    uint64_t value = elf_value(ctx, obj, ELF64_R_SYM(rel->r_info), rel->r_addend);
    return (struct elf_dynrel_entry){.type = elf_state(ctx)->arch->r_relative,
                                     .place = elf_atom_address(atom, rel->r_offset),
                                     .addend = rel->r_addend + (int64_t)value};
}

/* The part of .rela.dyn that entries of that type are in */
enum elf_rela_part elf_dynrel_type_part(const struct elf_arch_ops *arch, uint32_t type);

/* Whether a relative relocation goes to .relr.dyn: one of an input, one of a slot. */
bool elf_dynrel_fits_relr(const struct kld_session *ctx, const struct kld_atom *atom,
                          uint64_t offset);
bool elf_got_is_relr(const struct kld_session *ctx, const struct elf_got_entry *g);

/* One more atom of .rela.dyn, of n entries */
struct kld_atom *elf_rela_dyn_add(struct kld_session *ctx, size_t n);

/* Makes the atoms of RELATIVE entries, which write themselves (d->late). */
void elf_relative_synth(struct kld_session *ctx, const struct elf_dynrels *d);

/* Makes the atom of .relr.dyn, without a size yet. */
void elf_relr_synth(struct kld_session *ctx);

/* Sorts entries by the places that they are for; with by_symbol by symbol first. */
void elf_relas_sort(struct kld_session *ctx, elf_rela *rels, size_t n, bool by_symbol);
bool elf_relas_are_sorted(const elf_rela *rels, size_t n);

#endif
