/* island.h - code that the linker puts between the code, for branches that do not reach their
 * target.
 *
 * An island is a generated atom among those of an executable section, at first an empty one, every
 * so many bytes. Layout grows them in rounds: when addresses are assigned, all edges are looked at,
 * and what does not reach asks for an entry in an island that it does reach. An entry is never
 * taken away, so the rounds end. What an entry is, and how many bytes it has, is the business of
 * the CPU and the format. */
#ifndef KLD_SRC_ISLAND_H
#define KLD_SRC_ISLAND_H

#include "src/session.h"

/* From a place, the addresses in [place + back, place + ahead]. */
struct kld_reach {
    int64_t back, ahead;
};

static inline bool kld_reaches(struct kld_reach reach, uint64_t place, uint64_t address)
{
    int64_t distance = (int64_t)(address - place);
    return distance >= reach.back && distance <= reach.ahead;
}

/* What an entry stands for: all that ask for the same share it. */
struct kld_island_key {
    const void *target; /* an atom or symbol; NULL: an absolute address */
    uint64_t offset;
    uint32_t kind; /* of the CPU's */
};

struct kld_island_entry {
    struct kld_island_key key;
    const struct kld_atom *atom; /* with the edge that asked first: */
    uint32_t edge;
    uint32_t offset; /* in the island */
};

struct kld_island {
    struct kld_atom *atom; /* atom->extra is the island */
    uint8_t p2align;       /* of the atom, once it has an entry */
    uint32_t used;         /* bytes of the atom, but for what pads it */
    KLD_VEC(struct kld_island_entry) entries;
    uint32_t *index; /* by hash of the key: 1 + number of the entry, 0: free */
    uint32_t mask;
};

struct kld_islands {
    KLD_VEC(struct kld_island *) list; /* in the order of the output */
    uint32_t unit;                     /* the size of an island is a multiple of it */
    bool used;                         /* there is an entry */
};

/* An entry that some edge asks for. */
struct kld_want {
    struct kld_island_key key;
    struct kld_reach reach;
    uint64_t place; /* that the entry must be in reach of */
    uint32_t size;
    uint32_t edge;
    const struct kld_atom *atom;
};
typedef KLD_VEC(struct kld_want) kld_wants;

/* Where islands go and what they are. */
struct kld_island_policy {
    uint64_t gap;  /* at most so many bytes between two, unless an atom is larger */
    uint32_t unit; /* a power of two */
    uint8_t p2align;
    bool (*holds)(const struct kld_session *ctx, const struct kld_section *section);
    void (*generate)(struct kld_session *ctx, struct kld_worker *worker,
                     const struct kld_atom *atom, uint8_t *out);
};

/* Makes session.islands and places them, all empty: no address changes. Addresses are assigned. */
void kld_islands_place(struct kld_session *ctx, const struct kld_island_policy *policy);

/* Adds what edges of the atom ask for that no island has. In parallel; the worker's arena. */
typedef void kld_find_wants(struct kld_session *ctx, struct kld_worker *worker,
                            const struct kld_atom *atom, kld_wants *wants);

/* Looks at all executable atoms. True: islands have grown, addresses are stale. */
bool kld_islands_grow(struct kld_session *ctx, kld_find_wants *find);

/* The address of an entry of that key that is in reach of the place. False: there is none. */
bool kld_island_find(const struct kld_islands *islands, const struct kld_island_key *key,
                     uint64_t place, struct kld_reach reach, uint64_t *address);

#endif
