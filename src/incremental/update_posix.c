/* update_posix.c - patching an output in place on POSIX systems.
 *
 * Who else uses the file is asked of the kernel by a lease for writing (F_SETLEASE), which it grants
 * only to the one who has the only open file of an inode. Running programs and mappings count: they
 * hold the file they came from. Text busy (ETXTBSY) says less: nothing of libraries, and nothing of
 * programs in Linux 6.11.
 *
 * A lease makes the kernel send a signal to its holder when somebody opens the file, SIGIO by
 * default, which would end the host's process. It is told to send SIGURG instead, which is ignored
 * unless the host does something else with it. When the output is opened, the lease is no more than
 * a question: it is given back at once. From start on it is held until the patch is complete, because
 * of those who have looked the name up before it was taken away but have not opened the file yet:
 * they wait until the lease ends, and find the finished output. (The kernel lets them wait for
 * 45 seconds.) By then nobody in this process can open the file: it has no name they know.
 *
 * Where leases are not to be had, or where not all uses are counted, the output is taken to be in
 * use. There is no other way to know: /proc shows only the processes of the same user and the same
 * name space. */
#define _GNU_SOURCE
#include "src/incremental/update.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* ---- identity ---- */

static int64_t nanoseconds(struct timespec t)
{
    return (int64_t)((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec);
}

struct kld_identity kld_identity_of(const struct stat *st)
{
    return (struct kld_identity){
        .device = st->st_dev,
        .inode = st->st_ino,
        .size = (uint64_t)st->st_size,
        .mtime = nanoseconds(st->st_mtim),
        .ctime = nanoseconds(st->st_ctim),
    };
}

bool kld_identify(struct kld_session *ctx, const char *path, struct kld_identity *id)
{
    (void)ctx;
    struct stat st;
    if (stat(path, &st) != 0)
        return false;
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return false;
    }
    *id = kld_identity_of(&st);
    return true;
}

bool kld_identify_input(struct kld_session *ctx, const char *path, struct kld_identity *id)
{
    if (ctx->host.open_file) {
        errno = ENOTSUP;
        return false;
    }
    return kld_identify(ctx, kld_io_real_path(ctx, path), id);
}

bool kld_boot_id(char id[KLD_BOOT_ID_SIZE])
{
    memset(id, 0, KLD_BOOT_ID_SIZE);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, id, KLD_BOOT_ID_SIZE);
    close(fd);
    return n == KLD_BOOT_ID_SIZE;
}

static bool is_same_file(const struct stat *st, const struct kld_identity *id)
{
    return st->st_dev == id->device && st->st_ino == id->inode;
}

/* ---- who else has the file ---- */

/* Whether all uses of a file are counted at its inode. So it is in file systems on a disk of this
 * machine alone, or in its memory. Not so in overlayfs, where a mapping holds the file of the layer
 * below and nothing of the one that was opened; with FUSE, which may do the same; nor on a network,
 * or on what a virtual machine shares with others. */
static bool counts_uses(int fd)
{
    static const uint32_t known[] = {
        0x0000ef53, /* ext2, ext3, ext4 */
        0x58465342, /* xfs */
        0x9123683e, /* btrfs */
        0x01021994, /* tmpfs */
        0x858458f6, /* ramfs */
        0xf2f52010, /* f2fs */
        0xca451a4e, /* bcachefs */
        0x2fc12fc1, /* zfs */
        0x3153464a, /* jfs */
    };
    struct statfs fs;
    if (fstatfs(fd, &fs) != 0)
        return false;
    for (size_t i = 0; i < KLD_COUNT(known); i++)
        if ((uint32_t)fs.f_type == known[i])
            return true;
    return false;
}

/* The signal first: there must be no moment with the lease and SIGIO. */
static bool take_lease(int fd)
{
#ifdef F_SETLEASE
    return counts_uses(fd) && fcntl(fd, F_SETSIG, SIGURG) == 0 &&
           fcntl(fd, F_SETLEASE, F_WRLCK) == 0;
#else
    (void)fd;
    return false;
#endif
}

static void end_lease(int fd)
{
#ifdef F_SETLEASE
    fcntl(fd, F_SETLEASE, F_UNLCK); /* fails if there is none */
#else
    (void)fd;
#endif
}

/* What opens the file in between waits for that long. */
static bool is_only_user(int fd)
{
    if (!take_lease(fd))
        return false;
    end_lease(fd);
    return true;
}

/* ---- open ---- */

static enum kld_update_problem problem_of(int error)
{
    switch (error) {
    case ETXTBSY:
    case EWOULDBLOCK: return KLD_UPDATE_IN_USE; /* the latter: another link has the lease */
    case EACCES:
    case EPERM:
    case EROFS: return KLD_UPDATE_READ_ONLY;
    default: return KLD_UPDATE_MISSING;
    }
}

/* The directory has to give the file another name. */
static bool directory_is_writable(struct kld_session *ctx, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *directory =
        slash ? kld_arena_strndup(&ctx->arena, path, (size_t)(slash + 1 - path)) : ".";
    return faccessat(AT_FDCWD, directory, W_OK | X_OK, AT_EACCESS) == 0;
}

/* Not a device: opening one may do things. */
static enum kld_update_problem open_regular(struct kld_update *u, int flags)
{
    struct stat st;
    if (lstat(u->path, &st) != 0 || !S_ISREG(st.st_mode))
        return KLD_UPDATE_MISSING;
    u->fd = open(u->path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (u->fd < 0)
        return problem_of(errno);
    /* Between links. The lock ends with the descriptor. */
    if (flock(u->fd, LOCK_EX | LOCK_NB) != 0)
        return KLD_UPDATE_IN_USE;
    if (fstat(u->fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= 0)
        return KLD_UPDATE_MISSING;
    u->id = kld_identity_of(&st);
    u->size = u->id.size;
    if (!u->copy && (st.st_nlink != 1 || !is_only_user(u->fd)))
        return KLD_UPDATE_IN_USE;
    return KLD_UPDATE_OK;
}

static bool map(struct kld_update *u)
{
    void *at = mmap(NULL, (size_t)u->size, PROT_READ, MAP_SHARED, u->fd, 0);
    if (at == MAP_FAILED)
        return false;
    u->bytes = at;
    return true;
}

/* u says which one, and what for. */
static enum kld_update_problem open_output(struct kld_session *ctx, struct kld_update *u)
{
    enum kld_update_problem problem = open_regular(u, u->copy ? O_RDONLY : O_RDWR);
    if (problem == KLD_UPDATE_OK &&
        (!directory_is_writable(ctx, u->path) || !directory_is_writable(ctx, u->target)))
        problem = KLD_UPDATE_READ_ONLY;
    if (problem == KLD_UPDATE_OK && !map(u))
        problem = KLD_UPDATE_MISSING;
    if (problem != KLD_UPDATE_OK)
        kld_update_close(ctx, u);
    return problem;
}

enum kld_update_problem kld_update_look(struct kld_session *ctx, const char *path,
                                        struct kld_update *u)
{
    *u = (struct kld_update){.fd = -1, .copy = true, .path = kld_io_follow(ctx, path)};
    enum kld_update_problem problem = open_regular(u, O_RDONLY);
    if (problem == KLD_UPDATE_OK && !map(u))
        problem = KLD_UPDATE_MISSING;
    if (problem != KLD_UPDATE_OK)
        kld_update_close(ctx, u);
    return problem;
}

enum kld_update_problem kld_update_open(struct kld_session *ctx, const char *path,
                                        struct kld_update *u)
{
    char *file = kld_io_follow(ctx, path);
    *u = (struct kld_update){.fd = -1, .path = file, .target = file};
    return open_output(ctx, u);
}

enum kld_update_problem kld_update_open_copy(struct kld_session *ctx, const char *path,
                                             struct kld_update *u)
{
    char *file = kld_io_follow(ctx, path);
    *u = (struct kld_update){.fd = -1, .path = file, .target = file, .copy = true};
    return open_output(ctx, u);
}

enum kld_update_problem kld_update_open_kept(struct kld_session *ctx, const char *kept,
                                             const char *path, struct kld_update *u)
{
    const struct kld_update closed = {.fd = -1,
                                      .path = kld_arena_strndup(&ctx->arena, kept, strlen(kept)),
                                      .target = kld_io_follow(ctx, path),
                                      .kept = true};
    *u = closed;
    enum kld_update_problem problem = open_output(ctx, u);
    if (problem != KLD_UPDATE_IN_USE)
        return problem;
    *u = closed;
    u->copy = true;
    return open_output(ctx, u);
}

struct kld_identity kld_identity_in_memory(uint64_t size)
{
    return (struct kld_identity){.size = size};
}

void kld_update_open_memory(struct kld_update *u, uint8_t *memory, uint64_t size)
{
    *u = (struct kld_update){.fd = -1,
                             .bytes = memory,
                             .size = size,
                             .memory = memory,
                             .id = kld_identity_in_memory(size)};
}

/* ---- start ---- */

/* Nobody may have changed the file since it was opened, in whatever way. */
static bool is_unchanged(const struct kld_update *u)
{
    struct stat named, st;
    if (lstat(u->path, &named) != 0 || fstat(u->fd, &st) != 0)
        return false;
    struct kld_identity id = kld_identity_of(&st);
    return is_same_file(&named, &u->id) && kld_same_identity(&id, &u->id);
}

static bool refuse(struct kld_update *u, enum kld_update_problem problem)
{
    u->problem = problem;
    return false;
}

static void forget_hidden(struct kld_session *ctx, struct kld_update *u)
{
    u->hidden = NULL;
    kld_io_announce(ctx, NULL);
}

static bool start_in_place(struct kld_session *ctx, struct kld_update *u)
{
    if (!is_unchanged(u))
        return refuse(u, KLD_UPDATE_CHANGED);
    if (!kld_io_hide(ctx, u->path, &u->hidden))
        return refuse(u, KLD_UPDATE_READ_ONLY);
    /* Now that no one can find it any more. What was renamed may be another link's output that took
     * the name a moment ago. */
    struct stat st;
    enum kld_update_problem problem = KLD_UPDATE_OK;
    if (lstat(u->hidden, &st) != 0 || !is_same_file(&st, &u->id))
        problem = KLD_UPDATE_CHANGED;
    else if (st.st_nlink != 1 || !take_lease(u->fd))
        problem = KLD_UPDATE_IN_USE;
    if (problem == KLD_UPDATE_OK)
        return true;
    rename(u->hidden, u->path);
    forget_hidden(ctx, u);
    return refuse(u, problem);
}

/* Shares the blocks where the file system can. */
static bool copy_bytes(const struct kld_update *u, int to)
{
    uint64_t done = 0;
    while (done < u->size) {
        off_t from_offset = (off_t)done, to_offset = (off_t)done;
        ssize_t n =
            copy_file_range(u->fd, &from_offset, to, &to_offset, (size_t)(u->size - done), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (uint64_t)n;
    }
    return done == u->size ||
           kld_io_write_all(to, u->bytes + done, (size_t)(u->size - done), done, false);
}

static bool fill_copy(struct kld_update *u, int to)
{
    struct stat st;
    if (fstat(u->fd, &st) != 0 || fchmod(to, st.st_mode & 0777) != 0 || !copy_bytes(u, to))
        return false;
    if (!is_unchanged(u))
        return refuse(u, KLD_UPDATE_CHANGED);
    /* At the same place: the caller has pointers into it. */
    if (mmap((void *)u->bytes, (size_t)u->size, PROT_READ, MAP_SHARED | MAP_FIXED, to, 0) ==
        MAP_FAILED)
        return false;
    return true;
}

static bool start_copy(struct kld_session *ctx, struct kld_update *u)
{
    int to = kld_io_create_temporary(ctx, u->target, 0666, &u->hidden);
    if (to < 0)
        return refuse(u, KLD_UPDATE_READ_ONLY);
    if (!fill_copy(u, to)) {
        int error = errno;
        close(to);
        unlink(u->hidden);
        forget_hidden(ctx, u);
        errno = error;
        return false;
    }
    close(u->fd);
    u->fd = to;
    return true;
}

bool kld_update_start(struct kld_session *ctx, struct kld_update *u)
{
    u->problem = KLD_UPDATE_OK;
    u->started = u->memory ? true : u->copy ? start_copy(ctx, u) : start_in_place(ctx, u);
    return u->started;
}

/* ---- the patch ---- */

bool kld_update_write(struct kld_session *ctx, struct kld_update *u, uint64_t offset,
                      const void *data, size_t length)
{
    if (!u->started || !kld_in_bounds(offset, length, u->size)) {
        kld_internal_error(ctx, NULL, "write beyond the end of the output that is patched");
        errno = EINVAL;
        return false;
    }
    if (!u->memory)
        return kld_io_write_all(u->fd, data, length, offset, false);
    memcpy(u->memory + offset, data, length);
    return true;
}

/* Mapping and descriptor both keep the file open for writing, and what is so cannot be executed. The
 * lease and the lock end at once, although a child that another thread of the host has just forked
 * may have them, too. */
static bool let_go(struct kld_update *u)
{
    int fd = u->fd;
    u->fd = -1;
    if (u->bytes)
        munmap((void *)u->bytes, (size_t)u->size);
    u->bytes = NULL;
    if (fd >= 0) {
        end_lease(fd);
        flock(fd, LOCK_UN);
    }
    return fd < 0 || close(fd) == 0 || errno == EINTR;
}

bool kld_update_commit(struct kld_session *ctx, struct kld_update *u)
{
    struct stat mine, st;
    if (u->memory) {
        u->started = false;
        return true;
    }
    if (u->kept) /* also if nothing was written; who must not have it so, has it so */
        futimens(u->fd, NULL);
    /* Some file systems say only when it is closed that the disk is full. */
    if (fstat(u->fd, &mine) != 0 || !let_go(u) || !kld_io_replace(u->hidden, u->target))
        return false;
    /* Should a signal end the process here, it removes a name that is not there any more. */
    forget_hidden(ctx, u);
    u->started = false;
    if (lstat(u->target, &st) != 0)
        return false;
    u->id = kld_identity_of(&mine);
    if (!is_same_file(&st, &u->id) || st.st_size != mine.st_size) {
        errno = ESTALE;
        return false;
    }
    u->id = kld_identity_of(&st);
    return true;
}

void kld_update_close(struct kld_session *ctx, struct kld_update *u)
{
    if (!u->path)
        return;
    int error = errno;
    if (u->hidden) {
        unlink(u->hidden);
        forget_hidden(ctx, u);
    }
    let_go(u);
    u->path = NULL;
    u->started = false;
    errno = error;
}
