/* jobserver.h - GNU make's pool of job tokens, shared by all commands of a build.
 *
 * Each running command owns one token implicitly; every thread beyond the first needs another,
 * a byte read from make's pipe, which goes back when the threads have ended.
 * (GNU make manual, "POSIX Jobserver Interaction".) */
#ifndef KLD_SRC_JOBSERVER_H
#define KLD_SRC_JOBSERVER_H

#include "src/base.h"

struct kld_jobserver;

/* From the host's MAKEFLAGS. NULL: there is none that can be reached. */
struct kld_jobserver *kld_jobserver_new(struct kld_session *ctx);

/* Takes up to count tokens without waiting; returns how many there are: count if jobs is NULL. */
unsigned kld_jobserver_take(struct kld_jobserver *jobs, unsigned count);

/* Gives back all tokens but the first count. */
void kld_jobserver_keep(struct kld_jobserver *jobs, unsigned count);

#endif
