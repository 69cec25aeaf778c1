/* undefined.h - undefined and duplicate symbols, as people want to be told of them.
 *
 * References to undefined symbols are noted by whoever meets them, and reported together: one
 * error a symbol, with the first few places that refer to it, and what may have been meant. */
#ifndef KLD_SRC_UNDEFINED_H
#define KLD_SRC_UNDEFINED_H

#include "src/graph.h"

void kld_undefined_init(struct kld_session *ctx);
void kld_undefined_free(struct kld_session *ctx);

/* Notes that byte `offset` of the atom refers to sym, which is undefined, unless that is allowed
 * (weak symbols, --unresolved-symbols, shared output). Thread-safe. */
void kld_undefined_reference(struct kld_session *ctx, struct kld_symbol *sym,
                             const struct kld_atom *atom, uint64_t offset);

/* The same for a shared library (--no-allow-shlib-undefined), whatever the policy. */
void kld_undefined_in_file(struct kld_session *ctx, struct kld_symbol *sym,
                           const struct kld_file *file);

/* Reports what has been noted, in input order. From the session's own thread. */
void kld_report_undefined(struct kld_session *ctx);

/* A place that defines a symbol; atom may be NULL if it is not in one. */
struct kld_definition {
    const struct kld_file *file;
    const struct kld_atom *atom;
    uint64_t offset; /* in the atom */
};

/* Reports that `second` defines sym again. From any thread. */
void kld_report_duplicate(struct kld_session *ctx, const struct kld_symbol *sym,
                          const struct kld_definition *first, const struct kld_definition *second);

#endif
