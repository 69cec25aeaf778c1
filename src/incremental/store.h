/* store.h - where the state of incremental links is kept: the host's store, memory of the session, or
 * a file (store_posix.c). All three are a kld_state_store (kld.h), and only its callbacks are used.
 *
 * For the caller: at most one of open ... close at a time; close also after an open that failed.
 * replace and discard work without open: a link that found the store busy replaces what is there with
 * the state of its own output. */
#ifndef KLD_SRC_INCREMENTAL_STORE_H
#define KLD_SRC_INCREMENTAL_STORE_H

#include "src/session.h"

/* The store of this session. */
const kld_state_store *kld_store(struct kld_session *ctx);

/* In memory: a link's own state, or what kld_set_prior_state gave. Out of memory jumps, as an arena
 * does. */
kld_state_store kld_memory_store(struct kld_session *ctx);

/* A file, by the path that it is named by. store_posix.c. Temporaries of replace are announced to the
 * host, so it may not be called while the output has one.
 *
 * The file is locked from open to close, against other links only. Of two at once, the second finds
 * the store busy, links fully, and gives the name to a state and an output of its own; what the first
 * goes on to write goes to a file without a name. Whichever output is last to take the output's
 * name, the state belongs to one output alone, by its identity: they fit, or the next link is a full
 * one. After replace the lock is on the new file. */
kld_state_store kld_file_store(struct kld_session *ctx, const char *path);

/* What replaces the stored state, in pieces that do not overlap and leave nothing out. */
struct kld_store_writer {
    const kld_state_store *store;
    size_t length;
    uint8_t *bytes;  /* all of it, for a store that wants it at once; or NULL: */
    char *temporary; /* this file */
    int fd;
    atomic_bool failed;
};

/* False: nothing is begun. */
bool kld_store_begin(struct kld_session *ctx, const kld_state_store *store, size_t length,
                     struct kld_store_writer *w);
/* From any thread; what goes wrong makes the end fail. */
void kld_store_put(struct kld_store_writer *w, uint64_t offset, const void *data, size_t size);
/* Replaces what is stored, if it is good and all could be put; else that stays. */
bool kld_store_end(struct kld_store_writer *w, bool good);

/* The same of store_posix.c, for a store that is a file. */
bool kld_file_store_is(const kld_state_store *store);
bool kld_file_store_begin(const kld_state_store *store, struct kld_store_writer *w);
bool kld_file_store_end(struct kld_store_writer *w, bool good);

/* "incremental-state", or the name of the output with .kldstate. */
const char *kld_state_path(struct kld_session *ctx);

/* All that is in this session's store, which is not the host's. */
struct kld_memory_block *kld_store_read(struct kld_session *ctx);

/* Before the session's arena is freed: a store that this link has chosen is closed and forgotten;
 * what is in memory stays. */
void kld_store_end_link(struct kld_session *ctx);
void kld_store_free(struct kld_session *ctx);

#endif
