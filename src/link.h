/* link.h - the pass list: link.c. */
#ifndef KLD_SRC_LINK_H
#define KLD_SRC_LINK_H

#include "src/base.h"

/* Everything from inputs and options to the finished output, in two steps: what can be known before
 * anything is written, and the rest. False if an error was raised; the caller then abandons the
 * output. Out of memory unwinds to session.oom. */
bool kld_resolve_passes(struct kld_session *ctx);
bool kld_emit_passes(struct kld_session *ctx);

#endif
