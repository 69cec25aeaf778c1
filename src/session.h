/* session.h - one link: everything it knows, in named parts. First argument everywhere. */
#ifndef KLD_SRC_SESSION_H
#define KLD_SRC_SESSION_H

#include <pthread.h>
#include "src/diag.h"
#include "src/graph.h"
#include "src/io.h"
#include "src/ops.h"
#include "src/options.h"
#include "src/pool.h"

struct kld_input_item {
    const char *name;
    struct kld_bytes bytes; /* ptr NULL: a file */
    unsigned flags;         /* KLD_INPUT_* */
};

struct kld_pending_message;
struct kld_resolver;

struct kld_diagnostics {
    pthread_mutex_t lock;
    struct kld_arena arena;
    struct kld_pending_message *pending;
    size_t npending, cap, sequence;
    _Atomic uint32_t errors, warnings;
    uint32_t shown;
    bool truncated;
};

/* A pass that --time shows. */
struct kld_timing {
    const char *name;
    double wall, cpu; /* seconds */
};

/* Sections by name: layout.c. Made by several threads, under the lock. */
struct kld_section_index {
    pthread_mutex_t lock;
    uint32_t *ids; /* 1 + id, 0: free */
    uint32_t mask;
};

struct kld_session {
    kld_host host;
    struct kld_alloc alloc;
    jmp_buf oom;
    struct kld_arena arena; /* of the session's own thread */
    bool used;              /* kld_link was called */
    struct kld_options options;
    struct kld_diagnostics diag;
    struct kld_pool *pool;
    struct kld_io *io;

    KLD_VEC(struct kld_input_item) inputs;

    /* The target, once known. */
    const struct kld_format_ops *format;
    const struct kld_arch_ops *arch;
    void *format_state; /* of the format, e.g. struct elf_link */

    /* The graph. */
    struct kld_resolver *resolver; /* names, lazy members, who won */
    struct kld_symbol *symbols;    /* by id; slots without a name are unused */
    uint32_t nsymbols;
    struct kld_file **files; /* live objects, and shared libraries, in input order */
    uint32_t nfiles;
    struct kld_file *internal; /* owner of the linker's own atoms */
    KLD_VEC(struct kld_section *) sections; /* by id */
    struct kld_section_index section_index;
    KLD_VEC(struct kld_atom *) made; /* the linker's own atoms */
    struct kld_section **order;             /* those of the output, in its order */
    uint32_t norder;
    KLD_VEC(struct kld_segment) segments;

    uint64_t file_size; /* of the output, set by layout */
    bool executable;    /* the output gets the x permission bits */
    bool wants_hashes;  /* seal wants a hash of every chunk */
    struct kld_output output;
    KLD_VEC(struct kld_timing) timings;
};

#endif
