/* srcline.h - the line of source that a byte of an input comes from, by its debug information.
 *
 * A small reader of DWARF line tables, versions 2 to 5, for messages only. It works on the graph:
 * what the addresses in an unlinked table mean is said by its edges. */
#ifndef KLD_SRC_SRCLINE_H
#define KLD_SRC_SRCLINE_H

#include "src/graph.h"

/* False if it is not known. *source is from the arena; relative to where it was compiled. */
bool kld_source_line(struct kld_session *ctx, struct kld_arena *arena, const struct kld_atom *atom,
                     uint64_t offset, const char **source, uint32_t *line);

#endif
