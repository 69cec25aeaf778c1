/* merge.h - mergeable sections: cut into pieces, equal pieces kept once. */
#ifndef KLD_SRC_MERGE_H
#define KLD_SRC_MERGE_H

#include "src/graph.h"

/* A string or constant of a mergeable section. */
struct kld_piece {
    uint32_t start; /* in its section, in characters */
    uint32_t out;   /* its place in the merged contents, in characters */
};

enum { KLD_PIECES_DIRECTORY = 256 };

/* The pieces of one input section (atom of kind KLD_ATOM_PIECES). Set by the reader: entsize,
 * strings. By kld_merge: the rest. */
struct kld_pieces {
    struct kld_atom *merged; /* the generated atom at which places begin */
    struct kld_piece *list;  /* [count + 1]; the last one is the end */
    uint32_t *directory;     /* strings: the piece that holds every 256th character */
    uint32_t count;
    uint32_t entsize; /* bytes a character or constant */
    bool strings;     /* ends with a zero character; else fixed-size constants */
};

/* The piece with byte `offset` of a mergeable section, in constant time; the last one if that is past the end. */
static inline const struct kld_piece *kld_piece_at(const struct kld_pieces *p, uint64_t offset)
{
    uint64_t at = p->entsize == 1 ? offset : offset / p->entsize;
    if (kld_unlikely(at >= p->list[p->count].start))
        at = p->list[p->count].start - 1;
    const struct kld_piece *piece = &p->list[at];
    if (p->directory) {
        piece = &p->list[p->directory[at / KLD_PIECES_DIRECTORY]];
        while (piece[1].start <= at)
            piece++;
    }
    return piece;
}

static inline uint64_t kld_piece_address(const struct kld_pieces *p, const struct kld_piece *piece,
                                         uint64_t offset)
{
    return p->merged->addr + (uint64_t)piece->out * p->entsize +
           (offset - (uint64_t)piece->start * p->entsize);
}

/* Address (or, not allocated, offset in the output section) of byte `offset` of a mergeable
 * section. After layout. */
static inline uint64_t kld_pieces_address(const struct kld_atom *atom, uint64_t offset)
{
    const struct kld_pieces *p = atom->pieces;
    if (kld_unlikely(!p->merged || !p->count))
        return 0;
    return kld_piece_address(p, kld_piece_at(p, offset), offset);
}

/* The same in a section of strings, for a run of references: *last is the piece of the one before (or NULL), and
 * becomes that of this one. Tables of debug information refer to one string after the other. */
static inline uint64_t kld_strings_address(const struct kld_atom *atom, uint64_t offset,
                                           const struct kld_piece **last)
{
    const struct kld_pieces *p = atom->pieces;
    const struct kld_piece *piece = *last ? *last + 1 : NULL;
    if (!piece || piece >= p->list + p->count || offset < piece->start || offset >= piece[1].start)
        piece = kld_piece_at(p, offset);
    *last = piece;
    return kld_piece_address(p, piece, offset);
}

/* The merged contents of one group of sections, all of them: session.merged. */
struct kld_merged {
    struct kld_atom *atom; /* the first of those that hold it, one behind the other */
    uint64_t size;
    uint32_t entsize;
    uint8_t p2align;
    bool strings;
    bool aligned; /* there are gaps between pieces */
};

/* The merge pass: see merge.c. */
void kld_merge(struct kld_session *ctx);

#endif
