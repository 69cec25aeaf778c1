/* elf_update.h - ELF in incremental links: what the state keeps, and how an output is patched.
 *
 * elf_record.c writes down what only this format knows, and finds it again. elf_relink.c compares the
 * files that have changed with what the state says of them, gives their atoms places, and finds out
 * what refers to what has moved. elf_patch.c and elf_patch_tables.c make the bytes. */
#ifndef KLD_ELF_UPDATE_H
#define KLD_ELF_UPDATE_H

#include "formats/elf/elf_symtab.h"
#include "src/incremental/relink.h"
#include "src/incremental/verify.h"

/* KLD_T_FORMAT: one record */
struct elf_state_record {
    struct {
        uint64_t addr, size;
        uint32_t section, there;
    } synth[ELF_SYNTH_COUNT];
    uint64_t tls_start, tls_end, tls_align, image_base, gp_addr;
    uint32_t got_slots, got_capacity, tlsld;
    uint32_t nplt, niplt, nplt_got, plt_got_capacity, plt_got_size, plt_header, got_plt_reserved;
    uint32_t naux; /* slots of KLD_T_AUX in use */
    uint8_t has_shared_inputs, is_dynamic, no_gotpcrelx, static_tls, needs_tlsld, needs_got_base,
        textrel, has_assigns, has_islands, unused[7];
};

/* Behind the atoms of a file: kld_file_record.format */
struct elf_file_state {
    uint64_t special; /* hash of what the file says to the linker: properties, attributes, stack */
    uint64_t commons; /* of sizes and alignments of its COMMON symbols */
    struct elf_symtab_locals locals;
    uint32_t nlocal_aux, unused;
    uint32_t local_aux[]; /* slots of its local symbols */
};

/* Members of kld_updater_ops: elf_record.c */
void elf_record(struct kld_session *ctx, struct kld_state_builder *b);
size_t elf_record_file(struct kld_session *ctx, const struct kld_file *file, uint8_t *out);
uint64_t elf_interface(struct kld_session *ctx, const struct kld_file *file);

/* Hashes of what a file says to the linker, and of its COMMON symbols. */
uint64_t elf_special_hash(const struct elf_object *obj);
uint64_t elf_commons_hash(const struct elf_object *obj);
/* elf_link as it was at the end of the full link, but for symbols; its sections, by their ids in the
 * state, as the session has them. False: the state is damaged. */
bool elf_restore_link(struct kld_session *ctx, struct kld_state *st,
                      struct kld_section *const *sections);
/* The same for a relink. False: refused. */
bool elf_restore(struct kld_relink *r);

/* The resolver of an ifunc that has moved. */
struct elf_moved_resolver {
    uint64_t from, to;
};

/* What a relink of ELF works on. */
struct elf_relink {
    struct kld_relink *r;
    struct kld_session *ctx;
    struct elf_link *elf;
    struct kld_worker *worker;
    uint8_t *old_classes, *new_classes; /* by id: of the file that is being compared */
    uint8_t *shifted;                   /* by symbol of the state: bits */
    uint64_t *places;                   /* by id: where what the changed files define is now */
    uint64_t *sizes;                    /* and their st_size */
    KLD_VEC(kld_symid) moved;           /* whose place is not what it was */
    KLD_VEC(kld_symid) seen;            /* by references as elsewhere than before: S has changed */
    KLD_VEC(struct elf_moved_resolver) resolvers;
    KLD_VEC(uint32_t) aux_numbers; /* by index in elf->aux: in KLD_T_AUX; 0: new */
    size_t first_got;              /* entries of elf->got from here on are new */
    size_t first_plt_got;
    uint32_t naux; /* of KLD_T_AUX in use */
};

static inline bool elf_is_shifted(const struct elf_relink *e, uint32_t number)
{
    return e->shifted[number / 8] >> number % 8 & 1;
}

/* The id of a symbol of the state, with its slots. */
kld_symid elf_relink_symbol(struct elf_relink *e, uint32_t number, struct kld_str name);

/* kld_state_atom.entry as an address, 0 if there is none; and the other way. */
static inline uint64_t elf_entry_address(const struct kld_section *s,
                                         const struct kld_state_atom *atom)
{
    return atom->entry ? s->addr + atom->entry - 1 : 0;
}
static inline uint32_t elf_entry_of(const struct kld_section *s, uint64_t addr)
{
    return (uint32_t)(addr - s->addr) + 1;
}

/* elf_relink.c: kld_updater_ops.relink */
bool elf_relink(struct kld_relink *r);

/* elf_replace.c: places for the atoms of the changed files, and what has moved by that.
 * False: refused. */
bool elf_replace_atoms(struct elf_relink *e);

/* elf_patch.c: queues all bytes that are to change. */
bool elf_patch(struct elf_relink *e);
bool elf_hash_chunk(struct kld_relink *r, const struct kld_state_chunk *chunk, uint64_t hash[2]);
bool elf_update_seal(struct kld_relink *r);

/* Queues bytes of a table that the linker has made. */
bool elf_patch_synth(struct elf_relink *e, enum elf_synth which, uint64_t offset, const void *data,
                     uint64_t size);
/* The table as it is in the output, of e->elf->synth[which]->size bytes, or NULL: damaged. */
const uint8_t *elf_synth_bytes(struct elf_relink *e, enum elf_synth which);
bool elf_patch_got(struct elf_relink *e, const struct elf_got_entry *g);
/* Whether the relocation is against a symbol that is seen elsewhere than before. */
bool elf_leads_to_shifted(const struct elf_relink *e, const struct elf_object *obj,
                          const elf_rela *rel);

/* elf_patch_tables.c: .rela.dyn and .eh_frame_hdr, which have entries by address. False: refused. */
bool elf_patch_dynrels(struct elf_relink *e);
bool elf_patch_eh_hdr(struct elf_relink *e);

/* elf_verify.c: kld_updater_ops.verify */
extern const struct kld_verify_ops elf_verify_ops;

#endif
