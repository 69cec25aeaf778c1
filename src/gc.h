/* gc.h - --gc-sections: only what is reachable from the roots stays. */
#ifndef KLD_SRC_GC_H
#define KLD_SRC_GC_H

#include "src/session.h"

/* Sets atom->live. Without --gc-sections what the format made is live already, and stays so. */
void kld_gc(struct kld_session *ctx);

#endif
