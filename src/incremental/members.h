/* members.h - what a state has of the contents of archives, by which a relink knows which of the members of one that
 * has changed are the same as before.
 *
 * To hash all contents costs a cold link of clang, which is linked from 480 MB of archives, 7% of its time. Most
 * archives of most links never change: those of the system, and of packages. So one that has been the same for a
 * day when it is linked is not read for this (KLD_STATE_INPUT_UNREAD); if it does change, the next link is a full
 * one, which reads it. And a full link takes over what the last state has of archives that are still the same. */
#ifndef KLD_SRC_INCREMENTAL_MEMBERS_H
#define KLD_SRC_INCREMENTAL_MEMBERS_H

#include "src/incremental/state.h"

/* Where members are in the archive, by their turns: first in the index is turn 1. A member whose names are
 * not in a row has several. Offset 0: there is no such turn. */
struct kld_turns {
    uint64_t *offsets; /* by turn */
    size_t count;      /* one more than there are */
};

/* What decides whether a changed archive may offer other members: a hash of its index. As long as it stays,
 * turns mean the same members, whatever they are called. */
uint64_t kld_record_archive(struct kld_arena *arena, struct kld_bytes bytes,
                            struct kld_turns *turns);

struct kld_members {
    struct kld_session *ctx;
    const struct kld_io_known *known; /* by input, those that have a path first, sorted by it */
    struct kld_state_input *inputs;
    struct kld_state_file *files; /* by file of the link */
    size_t ninputs;
    uint8_t *how; /* by input */
};

/* Decides which archives are read. Inputs, and offsets and sizes of files, are known. */
void kld_members_begin(struct kld_members *m, size_t npaths);
/* The hash of file f, if it is a member of one of these. In parallel. */
void kld_members_hash(struct kld_members *m, uint32_t f);
/* The hash of the index of archive i, and the turns of its members in it. In parallel. */
void kld_members_index(struct kld_members *m, struct kld_arena *arena, uint32_t i);

#endif
