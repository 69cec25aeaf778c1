/* load.h - what load.c and resolve.c share: names, lazy archive members. */
#ifndef KLD_SRC_LOAD_H
#define KLD_SRC_LOAD_H

#include "src/names.h"
#include "src/resolve.h"

struct kld_archive_input;

/* --wrap: references to name become references to wrapper, those to real become name. */
struct kld_wrap {
    kld_symid name, wrapper, real;
};
struct kld_wraps {
    struct kld_wrap *data;
    size_t len, cap;
};

struct kld_resolver {
    struct kld_wraps wraps;
    struct kld_names names;
    struct kld_arena arena;        /* for load and resolve only */
    _Atomic uint64_t *best;        /* by id: the winning vote */
    _Atomic uint32_t *group_owner; /* by id: 1 + index of the file whose group is kept */
};

#endif
