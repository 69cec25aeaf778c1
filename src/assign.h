/* assign.h - names that options and scripts bring in: --defsym, `a = b;`, -u and their kin. */
#ifndef KLD_SRC_ASSIGN_H
#define KLD_SRC_ASSIGN_H

#include "src/expr.h"
#include "src/session.h"

/* A symbol assignment of a script (options' --defsym is added by kld_builtin_names). The name and
 * the expression's text must outlive the link. */
void kld_assign_add(struct kld_session *ctx, struct kld_str name, const struct kld_expr *expr,
                    bool provide, bool hidden);

/* Notes a name of the internal file, with what it says of it (enum kld_name_class). */
void kld_builtin_name(struct kld_session *ctx, struct kld_str name, uint8_t class);

/* Before the internal file is parsed: all names that options and scripts mention. */
void kld_builtin_names(struct kld_session *ctx);

/* After binding: makes the symbol one that the linker defines, as the number 0, whatever it was. */
void kld_symbol_define(struct kld_session *ctx, struct kld_symbol *sym);

/* After binding: assigned symbols are defined, as aliases where they are; PROVIDE decides. */
void kld_assign_bind(struct kld_session *ctx);

/* Addresses are assigned: values of those that are not aliases. Again, when they have changed. */
void kld_assign_evaluate(struct kld_session *ctx);

/* Addresses are final: ASSERT. */
void kld_assign_check(struct kld_session *ctx);

#endif
