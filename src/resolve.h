/* resolve.h - loading inputs and choosing definitions: load.c, names.c, resolve.c. */
#ifndef KLD_SRC_RESOLVE_H
#define KLD_SRC_RESOLVE_H

#include "src/session.h"

/* load.c: opens and sniffs everything on the command line, expands scripts and libraries, parses
 * what may be needed and decides which archive members are part of the link. Afterwards
 * session.files is final and session.symbols has a named slot for every id. */
void kld_load(struct kld_session *ctx);

/* resolve.c: elects COMDAT groups, picks a definition for every name, makes atoms. Afterwards
 * every symbol is final but for what synth adds. */
void kld_resolve_names(struct kld_session *ctx);

/* The id of a name, made if there is none yet; during load, from the session's own thread. */
kld_symid kld_name_intern(struct kld_session *ctx, struct kld_str name);

/* After load: the symbol of a name that some input or option mentions, or NULL. */
struct kld_symbol *kld_symbol_find(struct kld_session *ctx, struct kld_str name);

/* The symbols of a file's names are all over the memory: a loop over names asks for the symbol of a later one,
 * this many names ahead, so that it is in the cache then. */
enum { KLD_ASK_AHEAD = 16 };

/* Of name number i, if there is one. */
static inline void kld_ask_for_symbol(const struct kld_session *ctx, const struct kld_file *file,
                                      uint32_t i)
{
    if (i < file->nglobals)
        __builtin_prefetch(&ctx->symbols[file->ids[i]], 1);
}

/* The same where the file defines the name. */
static inline void kld_ask_for_definition(const struct kld_session *ctx,
                                          const struct kld_file *file, uint32_t i)
{
    if (i < file->nglobals && KLD_NAME_CLASS(file->classes[i]) >= KLD_NAME_DEF)
        __builtin_prefetch(&ctx->symbols[file->ids[i]], 1);
}

/* The same of the atom that defines it, in a loop over symbols. */
static inline void kld_ask_for_atom(const struct kld_session *ctx, kld_symid id)
{
    if (id < ctx->nsymbols && ctx->symbols[id].kind == KLD_SYM_DEFINED)
        __builtin_prefetch(ctx->symbols[id].atom);
}

/* Whether this file's name number i is the definition that won. */
bool kld_resolve_won(const struct kld_session *ctx, const struct kld_file *file, uint32_t i);

#endif
