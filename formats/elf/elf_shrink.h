/* elf_shrink.h - relaxation: atoms that get shorter because what they refer to turned out to be near.
 *
 * Compilers for some CPUs write every sequence in its longest form and mark, with relocations, what
 * the linker may shorten, and padding for the strictest alignment. The bytes that go are "cuts". An
 * atom with some becomes one of kind KLD_ATOM_SHRUNK; offsets in the input, which is where its
 * relocations and symbols are, are then turned into those in the output here. */
#ifndef KLD_ELF_SHRINK_H
#define KLD_ELF_SHRINK_H

#include "src/session.h"

struct elf_object;

struct elf_cut {
    uint32_t offset;  /* in the input, of the first byte that goes */
    uint32_t removed; /* bytes that go here and at the cuts before this one */
    uint32_t edge;    /* number of the relocation that it is for: cuts are in their order */
    uint32_t how;     /* of the CPU; 0: taken back, nothing goes */
};

/* What has been cut out of an atom: atom->extra of KLD_ATOM_SHRUNK. */
struct elf_shrunk {
    struct elf_shrunk *next; /* of the same object */
    struct kld_atom *atom;
    uint64_t size; /* in the input */
    uint32_t ncuts;
    struct elf_cut *cuts;
};

static inline const struct elf_shrunk *elf_shrunk(const struct kld_atom *atom)
{
    return atom->kind == KLD_ATOM_SHRUNK ? atom->extra : NULL;
}

/* Bytes taken out before an offset of the input. */
uint64_t elf_shrunk_before(const struct elf_shrunk *s, uint64_t offset);
/* The cut that was made for that relocation, or NULL: none, or taken back. */
const struct elf_cut *elf_shrunk_cut(const struct elf_shrunk *s, uint32_t edge);
/* Writes what is left of the atom's bytes. */
void elf_shrunk_copy(const struct kld_atom *atom, uint8_t *out);

/* Layout, after every round: the first time finds what can go, with the addresses of the whole;
 * then takes back what has got out of reach since, which an alignment can do. True if sizes have
 * changed and addresses have to be given once more. Ends, for nothing is cut after the first round. */
bool elf_shrink(struct kld_session *ctx, int round);

/* The same for one file, at once: with slack, when no cut depends on an address. */
void elf_shrink_file(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj);

#endif
