/* incremental.h - links that patch the output of the last one: what link.c calls.
 *
 * relink.c tries to patch; if it does not, the full link runs, and record.c writes down what the
 * next one needs. Nothing of this happens without the option "incremental". */
#ifndef KLD_SRC_INCREMENTAL_INCREMENTAL_H
#define KLD_SRC_INCREMENTAL_INCREMENTAL_H

#include "src/incremental/state.h"

/* What a link knows of its being incremental: session.incremental. */
struct kld_incremental {
    kld_state_store store;
    bool stored;                    /* store is open */
    bool known;                     /* there is a state, if only a bad one */
    bool removed;                   /* but no output: so it will be the next time (kept.h) */
    bool kept;                      /* the output has, or may have, a second name */
    struct kld_state_chunk *chunks; /* of the output: write.c */
    size_t nchunks;
    struct kld_relink *tried;           /* what came of trying to patch */
    kld_session *relink;                /* the session in which it was tried */
    uint64_t links, patches, fallbacks; /* of the state */
    uint64_t options[2], items[2];      /* hashes, before scripts add to them */
    bool planned;                       /* the output can be patched, and is not yet */
    const char *search;                 /* kld_record_search, likewise */
    bool fell_back;
    struct kld_verify *verify; /* --incremental-verify */
};

/* The option that asks for what cannot be patched, or NULL. */
const char *kld_incremental_unpatchable(const struct kld_session *ctx);

/* First of all: whether the mode can be patched (session.slack), and if there is a state, whether
 * the output can. True: nothing else need be done than to patch it. */
bool kld_incremental_begin(struct kld_session *ctx);
bool kld_incremental_is_planned(const struct kld_session *ctx);
/* Does it. False: the system would not have it, and a full link is needed after all. */
bool kld_incremental_patch(struct kld_session *ctx);

/* The output is in place: its state. A state that cannot be written is a warning. */
void kld_incremental_end(struct kld_session *ctx);

/* The link is done, well or not. Safe at any time. */
void kld_incremental_close(struct kld_session *ctx);

#endif
