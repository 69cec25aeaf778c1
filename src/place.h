/* place.h - "a.o:(.text+0x12), function main, at a.c:3": places in inputs for people to read. */
#ifndef KLD_SRC_PLACE_H
#define KLD_SRC_PLACE_H

#include "src/graph.h"

/* "path(member)" */
const char *kld_file_label(struct kld_arena *arena, const struct kld_file *file);

/* The input's name of an atom's section, NUL-terminated. */
const char *kld_atom_label(struct kld_session *ctx, struct kld_arena *arena,
                           const struct kld_atom *atom);

/* Lines that begin with lead (">>> referenced by "), each with a newline before it: where it is,
 * with the function and the line of source when the format knows them. atom may be NULL. */
const char *kld_describe_place(struct kld_session *ctx, struct kld_arena *arena, const char *lead,
                               const struct kld_file *file, const struct kld_atom *atom,
                               uint64_t offset);

/* The name as it is shown: demangled, unless --no-demangle. */
const char *kld_shown_name(struct kld_session *ctx, struct kld_arena *arena, struct kld_str name);

#endif
