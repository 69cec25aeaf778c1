/* reproduce.h - --reproduce: everything the link read, in one archive. */
#ifndef KLD_SRC_REPRODUCE_H
#define KLD_SRC_REPRODUCE_H

#include "src/base.h"

/* Writes the archive that --reproduce names, if it does: also after a link that failed. Reports
 * if it cannot be written. */
void kld_reproduce(struct kld_session *ctx);

#endif
