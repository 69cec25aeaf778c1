/* kept.h - a second name of the output, for builds that remove it before every link, as Cargo does:
 * kept_posix.c.
 *
 * Such a build leaves a state and nothing that it is of. So a link that finds the output gone although
 * there is a state gives its own output a hard link beside the state, and says so in the state
 * (kld_state_header.kept). The next one that finds the output gone patches what has that name. It is the
 * file that the state names, by device, inode, size, and time of writing. The time of the last change to
 * the inode does not help: removing a name changes it. So the contents are compared with the hashes in
 * the state (kld_gate_contents), and nobody need be trusted to have left them alone.
 *
 * A link that finds the output where it was drops the name: with it the output would have to be copied
 * to be patched. */
#ifndef KLD_SRC_INCREMENTAL_KEPT_H
#define KLD_SRC_INCREMENTAL_KEPT_H

#include "src/incremental/update.h"

/* The name: that of the state's file and ".kept". NULL: the state or the output is not in a file. */
const char *kld_kept_path(struct kld_session *ctx);

/* Gives it to the output, which has the identity *id, and afterwards another one: it has a name more.
 * What had the name before loses it, but for what is not a regular file. False: there is no such name,
 * or it leads to something else; *id is as it was. */
bool kld_kept_make(struct kld_session *ctx, struct kld_identity *id);

/* Takes the name away, from a regular file. */
void kld_kept_drop(struct kld_session *ctx);

#endif
