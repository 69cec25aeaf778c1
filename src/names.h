/* names.h - interning of global names without locks: load.c's helper.
 *
 * Names are hashed once and scattered over a fixed number of partitions; each partition is
 * filled by one thread, in input order. So ids depend on the inputs alone. An id is the number
 * of the name within its partition times the number of partitions, plus the partition. */
#ifndef KLD_SRC_NAMES_H
#define KLD_SRC_NAMES_H

#include "src/graph.h"
#include "src/pool.h"

enum { KLD_NAME_PARTITIONS = 64 };

struct kld_name {
    const char *ptr;
    uint64_t hash;
    uint32_t len;
};

struct kld_name_partition {
    struct kld_name_slot {
        uint32_t number; /* 1 + index into names, 0: free */
        uint32_t tag;    /* high half of the hash */
    } * slots;
    uint32_t mask; /* slots - 1; 0: no table yet */
    uint32_t count, cap;
    struct kld_name *names;
};

struct kld_names {
    struct kld_name_partition parts[KLD_NAME_PARTITIONS];
};

/* A name on its way to its partition. */
struct kld_name_ref {
    uint64_t hash;
    const char *ptr;
    uint32_t len;
    uint32_t index; /* in its source */
};

/* Where a batch of names comes from and where their ids go. */
struct kld_name_source {
    const void *from;
    struct kld_str (*at)(const void *from, uint32_t i);
    uint32_t count;
    kld_symid *ids;
    /* Of kld_names_scatter: the names by partition, and where each one's begin (and one more) */
    struct kld_name_ref *refs;
    uint32_t *starts;
};

/* Hashes the names of a source and sorts them by partition, in the worker's scratch memory: best done when the names
 * have just been read. */
void kld_names_scatter(struct kld_worker *worker, struct kld_name_source *source);

/* Interns all names of all sources, in parallel where that pays; those that have not been scattered are. The names'
 * bytes must outlive the session's use of them. Frees the workers' scratch memory. */
void kld_names_intern(struct kld_session *ctx, struct kld_names *names,
                      struct kld_name_source *sources, size_t count);

/* One name, from the session's own thread. */
kld_symid kld_names_intern_one(struct kld_session *ctx, struct kld_names *names,
                               struct kld_str name);

/* The id, or KLD_NO_SYMBOL. */
kld_symid kld_names_find(const struct kld_names *names, struct kld_str name);

/* All ids are smaller than this. Not all below it are in use. */
uint32_t kld_names_limit(const struct kld_names *names);

/* kld_name_hash of a name that has an id: it was made when that was given. */
static inline uint64_t kld_names_hash(const struct kld_names *names, kld_symid id)
{
    return names->parts[id % KLD_NAME_PARTITIONS].names[id / KLD_NAME_PARTITIONS].hash;
}

/* The name of an id, or one with ptr NULL if the id is not in use. */
struct kld_str kld_names_get(const struct kld_names *names, kld_symid id);

#endif
