/* session.h - one link: everything it knows, in named parts. First argument everywhere. */
#ifndef KLD_SRC_SESSION_H
#define KLD_SRC_SESSION_H

#include <pthread.h>
#include "src/diag.h"
#include "src/graph.h"
#include "src/io.h"
#include "src/merge.h"
#include "src/ops.h"
#include "src/options.h"
#include "src/pool.h"

struct kld_input_item {
    const char *name;
    struct kld_bytes bytes; /* ptr NULL: a file */
    unsigned flags;         /* KLD_INPUT_* */
    kld_input_handle handle;
};

struct kld_expr;
struct kld_pending_message;
struct kld_undefined;
struct kld_resolver;
struct kld_gc;
struct kld_islands;
struct kld_folding;
struct kld_incremental;

struct kld_diagnostics {
    pthread_mutex_t lock;
    struct kld_pending_message *pending; /* since the last checkpoint, the newest first */
    size_t npending, trim_at;
    _Atomic uint32_t errors, warnings;
    uint32_t shown; /* errors */
    bool truncated; /* --error-limit has been reached: no more messages */
    bool trimmed;   /* errors behind `last` in input order need not be kept */
    uint64_t last[4];
    _Atomic bool internal; /* an error was a defect of kld */
};

/* A pass that --time shows. */
struct kld_timing {
    const char *name;
    double wall, cpu; /* seconds */
};

/* A symbol assignment, of --defsym or a script; without a name: an ASSERT. assign.c. */
struct kld_assign {
    struct kld_str name, message;
    const struct kld_expr *expr;
    struct kld_symbol *sym; /* NULL until it is defined */
    bool provide, hidden;
    bool done; /* an alias or a number: nothing is left to evaluate */
};

/* A name that an option or a script mentions: a symbol of the internal file. */
struct kld_builtin {
    struct kld_str name;
    uint8_t class; /* enum kld_name_class */
};

/* Sections by name: layout.c. Made by several threads, under the lock. */
struct kld_section_index {
    pthread_mutex_t lock;
    uint32_t *ids; /* 1 + id, 0: free */
    uint32_t mask;
};

/* Bytes of the host's allocator. */
struct kld_memory_block {
    uint8_t *data;
    size_t length, size;
};

/* What the host said of incremental links, and what it is told of this one. */
struct kld_state_io {
    kld_state_store store;                /* size 0: not chosen yet; see kld_store */
    bool of_host, in_memory;              /* the host chose it: for all links, not for this one */
    bool asked_for;                       /* by the last link's options */
    struct kld_memory_block kept, opened; /* the store in memory, and what the link sees of it */
    struct kld_memory_block serialized;   /* what kld_serialize_state read from another store */
    kld_outcome outcome;                  /* NONE until the end means FULL, if it went well */
    const char *reason;                   /* why it fell back: "12 new-global: ..." */
};

/* Where a session stands. */
enum kld_phase {
    KLD_PHASE_ASKING,   /* no link yet, or the last one has been dropped */
    KLD_PHASE_RUNNING,  /* in a link: whoever calls now is a callback */
    KLD_PHASE_RESOLVED, /* between kld_resolve and kld_emit */
    KLD_PHASE_DONE,     /* the graph of the last link is still there, but nobody needs it */
};

struct kld_session {
    /* What stays from one link to the next: what the host asks for, and where it is told. */
    kld_host host;
    struct kld_alloc alloc;
    jmp_buf oom;
    enum kld_phase phase;
    bool linked;              /* the last link has succeeded */
    bool no_memory;           /* it has run out: the session can only be freed */
    struct kld_arena request; /* of the next two */
    struct kld_options asked;
    KLD_VEC(struct kld_input_item) inputs; /* in the order of their handles */
    kld_input_handle last_handle;
    struct kld_diagnostics diag;
    struct kld_state_io state_io;
    struct kld_output output;

    /* One link: all from here on is dropped before the next one, which begins with zeros. */
    struct kld_arena arena;     /* of the session's own thread */
    struct kld_arena scratch;   /* of the pass at hand, which frees it; likewise its own thread's */
    struct kld_options options; /* as asked; scripts add to them */
    struct kld_pool *pool;
    struct kld_io *io;
    struct kld_undefined *undefined; /* references to report: undefined.c */

    /* The target, once known. */
    const struct kld_format_ops *format;
    const struct kld_arch_ops *arch;
    const char *arch_from; /* what fixed it: an option or a file, for messages */
    void *format_state;    /* of the format, e.g. struct elf_link */

    KLD_VEC(struct kld_assign) assigns;
    KLD_VEC(struct kld_builtin) builtins;
    KLD_VEC(const char *) version_texts; /* VERSION { } of scripts: what is between the braces */

    /* The graph. */
    struct kld_resolver *resolver; /* names, lazy members, who won */
    struct kld_symbol *symbols;    /* by id; slots without a name are unused */
    uint32_t nsymbols;
    struct kld_file **files; /* live objects, and shared libraries, in input order */
    uint32_t nfiles;
    struct kld_folding *icf;                /* while equal atoms are being found */
    struct kld_gc *gc;                      /* while unreferenced atoms are being found */
    struct kld_file *internal;              /* owner of the linker's own atoms */
    KLD_VEC(struct kld_section *) sections; /* by id */
    struct kld_section_index section_index;
    KLD_VEC(struct kld_atom *) made;   /* the linker's own atoms */
    KLD_VEC(struct kld_merged) merged; /* merge.h */
    struct kld_section **order;        /* those of the output, in its order */
    uint32_t norder;
    KLD_VEC(struct kld_segment) segments;

    struct kld_islands *islands; /* NULL: all branches reach their targets */

    uint64_t file_size; /* of the output, set by layout */
    bool executable;    /* the output gets the x permission bits */
    bool wants_hashes;  /* seal wants a hash of every chunk */
    bool slack;         /* the layout has room for edits: --incremental, in a mode that has it */
    struct kld_incremental *incremental; /* NULL without --incremental */
    KLD_VEC(struct kld_timing) timings;
};

#endif
