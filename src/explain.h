/* explain.h - what the user asked to be told of the link. */
#ifndef KLD_SRC_EXPLAIN_H
#define KLD_SRC_EXPLAIN_H

#include "src/base.h"

/* --why-extract: which reference brought in each archive member. Between load and resolve. */
void kld_report_extracted(struct kld_session *ctx);

/* --trace-symbol: every file that mentions one of these. After resolve. */
void kld_report_traced_symbols(struct kld_session *ctx);

/* --time and --stats, at the end. */
void kld_report_statistics(struct kld_session *ctx);

#endif
