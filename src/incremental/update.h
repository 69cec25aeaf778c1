/* update.h - an existing output that is patched in place: files on POSIX systems, update_posix.c.
 *
 * Protocol: open (nothing has changed yet, and everything can still be dropped), then start, which
 * takes the output's name away so that a relink that is killed leaves no half-patched program under
 * it, then writes, then commit, which gives it the name back. */
#ifndef KLD_SRC_INCREMENTAL_UPDATE_H
#define KLD_SRC_INCREMENTAL_UPDATE_H

#include <sys/stat.h>
#include "src/session.h"

/* What tells one file, in one condition, from any other. Times in nanoseconds. */
struct kld_identity {
    uint64_t device, inode, size;
    int64_t mtime, ctime;
};

void kld_identity_of(const struct stat *st, struct kld_identity *id);

/* Every file that the session has opened, or (absent) failed to open, by path; from its arena.
 * Failures are noted with the option "incremental" only. io_posix.c. */
struct kld_io_known {
    const char *path;
    struct kld_bytes bytes;
    struct kld_identity id; /* when it was opened; all 0: not of the file system */
    bool absent;
};
size_t kld_io_known(struct kld_session *ctx, struct kld_io_known **list);

/* Of the file that path leads to. False with errno if there is none; `kind` of what it is: only
 * regular files are identified (errno EINVAL for others). */
bool kld_identify(struct kld_session *ctx, const char *path, struct kld_identity *id);

struct kld_update {
    int fd; /* -1: not open */
    char *path, *hidden;
    const uint8_t *bytes; /* the output as it is: a shared, read-only mapping of size bytes */
    uint64_t size;
    struct kld_identity id;
    bool started;
};

enum kld_update_problem {
    KLD_UPDATE_OK,
    KLD_UPDATE_MISSING,   /* no regular file of that name, or it cannot be opened for writing */
    KLD_UPDATE_READ_ONLY, /* it, or its directory, cannot be written */
    KLD_UPDATE_IN_USE,    /* it runs, is mapped or open somewhere, or another link is at it */
};

/* Opens the output at path. Anybody else who has it open or mapped is noticed (a lease on it is
 * refused then): patching would change a running program, or a library that it uses, under its
 * feet. */
enum kld_update_problem kld_update_open(struct kld_session *ctx, const char *path,
                                        struct kld_update *u);

/* From here on the output is not to be trusted until commit. False: nothing was changed. */
bool kld_update_start(struct kld_session *ctx, struct kld_update *u);
/* Writes at an offset within the size. From the session's own thread. False on failure (disk full),
 * with errno. */
bool kld_update_write(struct kld_session *ctx, struct kld_update *u, uint64_t offset,
                      const void *data, size_t length);
/* Gives the output its name back, and its new identity in u->id. False on failure, with errno. */
bool kld_update_commit(struct kld_session *ctx, struct kld_update *u);
/* Closes it. Not committed: before start the output is as it was; after it, it is removed. */
void kld_update_close(struct kld_session *ctx, struct kld_update *u);

#endif
