/* update.h - an existing output that is patched: files on POSIX systems, update_posix.c.
 *
 * Protocol: open (nothing has changed yet, and everything can still be dropped), then start, which
 * takes the output's name away so that a relink that is killed leaves no half-patched program under
 * it, then writes, then commit, which gives it the name back. close at the end, always.
 *
 * An output that somebody uses is not changed under their feet. open says so; the caller may then
 * open it with kld_update_open_copy, which goes through the same protocol with a copy of the file:
 * that takes the output's name at commit, as the output of a full link does, and costs the copying
 * instead of the linking.
 *
 * An output that is gone but has a second name (kept.h) is opened by that name, with
 * kld_update_open_kept: in place, or as a copy if the file has still other names or users. Either takes the
 * output's name at commit, and the time of then: for who looks at it, it is a new file.
 *
 * open and start may run out of memory, which jumps: keep the kld_update where the failed link finds
 * it and closes it.
 *
 * While the output is being patched its hidden name is the one that is announced to the host
 * (kld_host.temporary_file): no other temporary file may be made between start and commit. */
#ifndef KLD_SRC_INCREMENTAL_UPDATE_H
#define KLD_SRC_INCREMENTAL_UPDATE_H

#include <sys/stat.h>
#include "src/session.h"

/* What tells one file, in one condition, from any other. Times in nanoseconds. (Where the kernel's
 * clock for files moves in steps, a change of the same size within the step of the last one is not
 * seen: 4 ms at most, and none from Linux 6.13 on.) */
struct kld_identity {
    uint64_t device, inode, size;
    int64_t mtime, ctime;
};

struct kld_identity kld_identity_of(const struct stat *st);

/* Of what is not of the file system: by its contents. Of no device and no inode. */
struct kld_identity kld_identity_of_bytes(struct kld_bytes bytes);

/* Every file that the session has opened, or (absent) failed to open, by path; from its arena.
 * Failures are noted with the option "incremental" only. io_posix.c. */
struct kld_io_known {
    const char *path;
    struct kld_bytes bytes;
    struct kld_identity id; /* when it was opened; all 0: not of the file system */
    bool absent;
    bool by_content; /* the host has it: its identity is that of its bytes */
};
size_t kld_io_known(struct kld_session *ctx, struct kld_io_known **list);

static inline bool kld_same_identity(const struct kld_identity *a, const struct kld_identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->mtime == b->mtime && a->ctime == b->ctime;
}

/* Of the file that path leads to; one stat. False with errno if there is none; only regular files
 * are identified (errno EINVAL for others). */
bool kld_identify(struct kld_session *ctx, const char *path, struct kld_identity *id);

/* Of an input, by the path that it is opened with. False with errno; ENOTSUP if the host provides
 * the files: the file system knows nothing of what it would hand out. From any thread. */
bool kld_identify_input(struct kld_session *ctx, const char *path, struct kld_identity *id);

/* Which start of the machine this is. Nothing that is written for a link is forced to the disk, so
 * when the machine stops, what was written shortly before may be lost, and leave zeros in a file of the
 * right identity: a state that was written before the last start is not to be trusted. False: not
 * known, id is zero. */
enum { KLD_BOOT_ID_SIZE = 36 };
bool kld_boot_id(char id[KLD_BOOT_ID_SIZE]);

enum kld_update_problem {
    KLD_UPDATE_OK,
    KLD_UPDATE_MISSING, /* no regular file of that name that has contents, or it cannot be opened */
    KLD_UPDATE_READ_ONLY, /* it, or its directory, cannot be written */
    KLD_UPDATE_IN_USE,    /* it runs, is mapped or open somewhere, has other names, or it cannot be
                             known; or another link is at it */
    KLD_UPDATE_CHANGED,   /* it is not the file any more that was opened */
};

struct kld_update {
    int fd;               /* -1: not open */
    char *path;           /* of the file itself, behind symbolic links */
    char *target;         /* the name that it takes at commit: path, unless that is a kept one */
    char *hidden;         /* its name between start and commit, or that of the copy; else NULL */
    const uint8_t *bytes; /* the output as it is: a read-only mapping of size bytes; until commit */
    uint64_t size;
    uint8_t *memory; /* an output in memory: it is patched where it is */
    struct kld_identity id;
    bool copy, kept, started;
    enum kld_update_problem problem; /* why start returned false */
};

/* Opens the output at path. Compare u->id with what the state says before anything else: the file
 * may be any. Not KLD_UPDATE_OK: *u is closed. */
enum kld_update_problem kld_update_open(struct kld_session *ctx, const char *path,
                                        struct kld_update *u);

/* The same for an output that is in use: what is changed is a copy. */
enum kld_update_problem kld_update_open_copy(struct kld_session *ctx, const char *path,
                                             struct kld_update *u);

/* The output is not there: what has the name `kept` is opened, to become the output at path. */
enum kld_update_problem kld_update_open_kept(struct kld_session *ctx, const char *kept,
                                             const char *path, struct kld_update *u);

/* To look at it only: start must not follow. */
enum kld_update_problem kld_update_look(struct kld_session *ctx, const char *path,
                                        struct kld_update *u);

/* An output in memory, which the session keeps. It always opens. */
void kld_update_open_memory(struct kld_update *u, uint8_t *memory, uint64_t size);
/* Nothing tells two of the same size apart but their contents. */
struct kld_identity kld_identity_in_memory(uint64_t size);

/* From here on the output is not to be trusted until commit. False: nothing was changed, u->problem
 * says why (KLD_UPDATE_OK: errno does, for a copy that could not be made). */
bool kld_update_start(struct kld_session *ctx, struct kld_update *u);
/* Writes at an offset within the size. From the session's own thread. False on failure (disk full),
 * with errno. u->bytes shows what was written. */
bool kld_update_write(struct kld_session *ctx, struct kld_update *u, uint64_t offset,
                      const void *data, size_t length);
/* Gives the output its name back, and its new identity in u->id; nothing else of u can be used
 * afterwards. False on failure, with errno: the output is gone, or is another link's. */
bool kld_update_commit(struct kld_session *ctx, struct kld_update *u);
/* Closes it. Not committed: before start the output is as it was; after it, it is removed (a copy
 * is, the output then stays). Safe at any time on what is all zero or closed; keeps errno. */
void kld_update_close(struct kld_session *ctx, struct kld_update *u);

#endif
