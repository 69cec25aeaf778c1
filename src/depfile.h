/* depfile.h - --dependency-file: a rule for make that says what the output was made of. */
#ifndef KLD_SRC_DEPFILE_H
#define KLD_SRC_DEPFILE_H

#include "src/base.h"

/* Writes it if the option is set; reports failure. */
void kld_write_depfile(struct kld_session *ctx);

#endif
