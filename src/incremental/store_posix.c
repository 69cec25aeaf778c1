/* store_posix.c - the state of incremental links in a file, on POSIX systems. */
#define _GNU_SOURCE
#include "src/incremental/store.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_TRIES = 16 };

struct file_store {
    struct kld_session *ctx;
    const char *path; /* behind symbolic links, as of the first use */
    const char *named;
    int fd; /* -1: not open; else locked */
    void *data;
    size_t length;
};

static const char *path_of(struct file_store *store)
{
    if (!store->path)
        store->path = kld_io_follow(store->ctx, store->named);
    return store->path;
}

/* The lock ends at once, although a child that another thread of the host has just forked may have
 * the file open, too. */
static void close_file(struct file_store *store)
{
    if (store->fd >= 0) {
        flock(store->fd, LOCK_UN);
        close(store->fd);
    }
    store->fd = -1;
}

static void file_close(void *context)
{
    struct file_store *store = context;
    if (store->data)
        munmap(store->data, store->length);
    store->data = NULL;
    close_file(store);
}

/* Whether the open file still has its name. */
static bool has_its_name(struct file_store *store)
{
    struct stat st, named;
    return store->fd >= 0 && fstat(store->fd, &st) == 0 && lstat(path_of(store), &named) == 0 &&
           st.st_dev == named.st_dev && st.st_ino == named.st_ino;
}

/* Locked. A directory, a device or a fifo in its place is no state, and is not opened: that may do
 * things. */
static bool open_locked(struct file_store *store, bool *busy)
{
    struct stat st;
    const char *path = path_of(store);
    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    store->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (store->fd < 0)
        return false;
    if (flock(store->fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    *busy = errno == EWOULDBLOCK;
    close_file(store);
    return false;
}

/* Private: the link marks in memory what it has done, and only pages that it touches are read. A file
 * that somebody cuts short while it is mapped is a bus error, as with any input; links do not do that
 * to one another. */
static bool map(struct file_store *store)
{
    struct stat st;
    if (fstat(store->fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 ||
        (uint64_t)st.st_size > PTRDIFF_MAX)
        return false;
    void *at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
                    store->fd, 0);
    if (at == MAP_FAILED)
        return false;
    store->data = at;
    store->length = (size_t)st.st_size;
    return true;
}

static bool file_open(void *context, void **data, size_t *length, bool *busy)
{
    struct file_store *store = context;
    *busy = false;
    file_close(store);
    for (int i = 0; i < MOST_TRIES; i++) {
        if (!open_locked(store, busy))
            return false;
        /* Between open and flock another link may have put a new state there, and be done. */
        if (has_its_name(store)) {
            if (!map(store))
                break;
            *data = store->data;
            *length = store->length;
            return true;
        }
        close_file(store);
    }
    close_file(store);
    return false;
}

static bool file_update(void *context, uint64_t offset, const void *data, size_t length)
{
    struct file_store *store = context;
    uint64_t end;
    if (store->fd < 0 || __builtin_add_overflow(offset, length, &end) || end > INT64_MAX) {
        errno = store->fd < 0 ? EBADF : EFBIG;
        return false;
    }
    return kld_io_write_all(store->fd, data, length, offset, false);
}

bool kld_file_store_begin(const kld_state_store *store, struct kld_store_writer *w)
{
    struct file_store *file = store->context;
    const char *path = path_of(file);
    struct stat st;
    /* rename would put a file in the place of a device. */
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
        return false;
    }
    w->fd = kld_io_create_temporary(file->ctx, path, 0666, &w->temporary);
    if (w->fd < 0)
        return false;
    flock(w->fd, LOCK_EX | LOCK_NB); /* if there are no locks here, nothing is lost */
    return true;
}

/* What opens the new file finds it complete and, until close, locked. */
bool kld_file_store_end(struct kld_store_writer *w, bool good)
{
    struct file_store *file = w->store->context;
    bool ok = good && kld_io_replace(w->temporary, path_of(file));
    int error = errno;
    if (!ok) {
        unlink(w->temporary);
        close(w->fd);
    } else {
        close_file(file);
        file->fd = w->fd;
    }
    kld_io_announce(file->ctx, NULL);
    errno = error;
    return ok;
}

static bool file_replace(void *context, const void *data, size_t length)
{
    const kld_state_store store = {.context = context};
    struct kld_store_writer w = {.store = &store, .length = length, .fd = -1};
    if (!kld_file_store_begin(&store, &w))
        return false;
    kld_store_put(&w, 0, data, length);
    return kld_file_store_end(&w, !w.failed);
}

/* Not that of another link, which has replaced this one's. */
static void file_discard(void *context)
{
    struct file_store *store = context;
    struct stat st;
    if (store->fd >= 0 && !has_its_name(store))
        return;
    if (lstat(path_of(store), &st) == 0 && S_ISREG(st.st_mode))
        unlink(path_of(store));
}

bool kld_file_store_is(const kld_state_store *store)
{
    return store->replace == file_replace;
}

kld_state_store kld_file_store(struct kld_session *ctx, const char *path)
{
    struct file_store *store = KLD_NEW(&ctx->arena, struct file_store);
    *store = (struct file_store){
        .ctx = ctx, .named = kld_arena_strndup(&ctx->arena, path, strlen(path)), .fd = -1};
    return (kld_state_store){
        .size = sizeof(kld_state_store),
        .context = store,
        .open = file_open,
        .update = file_update,
        .replace = file_replace,
        .discard = file_discard,
        .close = file_close,
    };
}
