/* elf_eh.h - unwind tables: .eh_frame by record, .eh_frame_hdr.
 *
 * In the order of the link: parse, gc_follow, scan, synth, size, finish, write. */
#ifndef KLD_ELF_EH_H
#define KLD_ELF_EH_H

#include "formats/elf/elf_object.h"

/* A frame description of a function that is there (those of discarded groups are not kept). */
struct elf_eh_fde {
    uint32_t offset;   /* in its section */
    uint32_t rel : 31; /* number of its first relocation */
    uint32_t
        is_long : 1; /* it, or its CIE, refers to more than the function: personality, exception table */
    uint32_t owner; /* 1 + index of the function's atom; 0: not known, always kept */
    uint32_t next;  /* 1 + number of the next one of that atom, in the object; 0: none */
};

/* What frame descriptions have in common; equal ones are written once. */
struct elf_eh_cie {
    uint32_t offset, size;
    uint32_t rel, nrel;
    uint32_t out;              /* offset in its section's contribution */
    bool live;                 /* some live record refers to it */
    struct elf_eh_section *in; /* where it is */
    struct elf_eh_cie *leader; /* the one that is written */
};

/* One input section. */
struct elf_eh_section {
    struct elf_eh_section *next;
    struct kld_atom *atom;
    const uint8_t *data; /* the input's bytes; atom->size becomes that of the contribution */
    uint64_t size;
    const elf_rela *relas;
    uint32_t nrelas;
    uint32_t first; /* number of its first frame description in the object */
    uint32_t nfdes, ncies;
    struct elf_eh_fde *fdes;
    struct elf_eh_cie *cies;
    uint64_t live_size; /* of the live frame descriptions together */
    uint32_t first_row; /* in the table of .eh_frame_hdr */
    uint32_t nrows;
    bool fixed; /* atom->edges are the relocations of the contribution */
};

struct elf_eh {
    struct elf_eh_section *sections; /* in input order */
    uint32_t nfdes;
};

/* make_atoms: the object's atoms exist, this one of them is an .eh_frame section. Makes it an atom
 * of kind RECORDS; hangs the frame descriptions of a function on its atom (extra). */
void elf_eh_parse(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                  struct kld_atom *atom);

/* gc: marks what the frame descriptions of a live function refer to: personality routine and
 * exception table. */
void elf_eh_follow(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom,
                   kld_mark *mark);

/* icf: calls see(arg, bytes, size, relocations, count) for each frame description of a function,
 * in the order of the object's, then with its CIE. */
struct elf_eh_record {
    const uint8_t *data;
    uint32_t offset, size; /* of the record in its section */
    const elf_rela *relas;
    uint32_t nrelas;
    bool is_cie;
};
typedef void elf_eh_see(void *arg, const struct elf_object *obj, const struct elf_eh_record *r);
void elf_eh_each(const struct kld_atom *atom, elf_eh_see *see, void *arg);

/* scan: notes what the relocations of live records need. */
void elf_eh_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj);

/* synth: chooses one of equal CIEs; sizes of the contributions (without any, the atom dies); adds
 * the terminator of .eh_frame. */
void elf_eh_synth(struct kld_session *ctx);

/* Whether the atom is that terminator: nothing may come behind it. */
bool elf_is_eh_terminator(const struct kld_atom *atom);

/* A relink: sizes of the contributions of an object that has been scanned. */
void elf_eh_settle(struct elf_object *obj);

/* The s->nrows rows of .eh_frame_hdr, which is at hdr, for a contribution: pc << 32 | record, both
 * relative to hdr, the sign of pc flipped. Addresses are final. */
void elf_eh_rows(struct kld_session *ctx, const struct elf_object *obj,
                 const struct elf_eh_section *s, uint64_t hdr, uint64_t *row);

/* Size of .eh_frame_hdr after synth, with slack including spare rows behind those that count; 0 if
 * there is no .eh_frame. */
uint64_t elf_eh_hdr_size(const struct kld_session *ctx);

/* finish: addresses are final; makes the rows of .eh_frame_hdr, if there is one. Writing sorts them,
 * while other threads write something else. */
void elf_eh_finish(struct kld_session *ctx);

/* The format's write_records, and generate() of .eh_frame_hdr. */
void elf_eh_write(struct kld_session *ctx, struct kld_worker *worker, const struct kld_atom *atom,
                  uint8_t *out);
void elf_eh_hdr_write(struct kld_session *ctx, struct kld_worker *worker,
                      const struct kld_atom *atom, uint8_t *out);

#endif
