/* icf.h - --icf: atoms that mean the same are kept once. */
#ifndef KLD_SRC_ICF_H
#define KLD_SRC_ICF_H

#include "src/session.h"

/* Folds atoms: flags get KLD_ATOM_FOLDED, folded_into the one that is kept, live becomes 0, and
 * symbols move to the one that is kept. Without --icf it does nothing. */
void kld_icf(struct kld_session *ctx);

#endif
