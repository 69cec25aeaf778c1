/* merge.h - mergeable sections: cut into pieces, equal pieces kept once. */
#ifndef KLD_SRC_MERGE_H
#define KLD_SRC_MERGE_H

#include "src/graph.h"

struct kld_merged; /* the merged contents of one output section and entry size */

/* The pieces of one input section (atom of kind KLD_ATOM_PIECES). An offset in the section is
 * turned into its place in the output by a bitmap of piece starts with a rank directory:
 * constant time, and small. Set by the reader: entsize, strings. By kld_merge: the rest. */
struct kld_pieces {
    struct kld_atom *merged; /* the generated atom that holds the pieces */
    uint64_t *starts;        /* bit i: a piece starts at byte i * unit */
    uint32_t *rank;          /* pieces before word i of starts */
    uint32_t *out;           /* [count] offset of the piece in `merged`, in units */
    uint32_t count;
    uint32_t entsize; /* bytes a character or constant */
    bool strings;     /* ends with a zero character; else fixed-size constants */
};

/* Address (or, not allocated, offset in the output section) of byte `offset` of a mergeable
 * section. Offsets past the end refer to the last piece. After layout. */
uint64_t kld_pieces_address(const struct kld_atom *atom, uint64_t offset);

/* The merge pass: see merge.c. */
void kld_merge(struct kld_session *ctx);

#endif
