/* io_posix.c - input files and the output on POSIX systems. */
#define _GNU_SOURCE
#include "src/incremental/update.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/magic.h>
#include <sys/vfs.h>
#endif

enum {
    BUCKETS = 512,
    READ_AT_ONCE = 64 << 10, /* from what cannot be mapped */
    MOST_LINKS = 40,         /* symbolic ones in a row: as many as Linux follows */
};

struct input_file {
    struct input_file *next;
    const char *path;
    struct kld_bytes bytes;
    uint8_t *block; /* of the host's allocator, if the file could not be mapped */
    size_t block_size;
    bool mapped, of_host, no_memory;
    struct kld_identity id; /* all 0: not of the file system */
};

struct kld_io {
    pthread_mutex_t lock;
    struct input_file *buckets[BUCKETS];
    struct input_file *absent; /* what was looked for in vain; noted for incremental links */
    _Atomic uint64_t trim_at;  /* bytes resident; 0: memory-limit */
};

/* ---- inputs ---- */

void kld_io_init(struct kld_session *ctx)
{
    ctx->io = KLD_NEW(&ctx->arena, struct kld_io);
    pthread_mutex_init(&ctx->io->lock, NULL);
}

static struct input_file **bucket_of(struct kld_io *io, const char *path)
{
    uint32_t h = 2166136261u;
    for (; *path; path++)
        h = (h ^ (uint8_t)*path) * 16777619u;
    return &io->buckets[h % BUCKETS];
}

static struct input_file *find(struct input_file *list, const char *path)
{
    while (list && strcmp(list->path, path) != 0)
        list = list->next;
    return list;
}

/* Pipes, and files of /proc that claim to be empty. False with errno. */
static bool read_stream(const struct kld_alloc *from, int fd, struct input_file *file)
{
    size_t len = 0;
    for (;;) {
        if (len == file->block_size) {
            size_t size = len ? len * 2 : READ_AT_ONCE;
            uint8_t *larger = from->alloc(from->context, size);
            if (!larger) {
                file->no_memory = true;
                return false;
            }
            if (len) {
                memcpy(larger, file->block, len);
                from->free(from->context, file->block, file->block_size);
            }
            file->block = larger;
            file->block_size = size;
        }
        ssize_t n = read(fd, file->block + len, file->block_size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    file->bytes = (struct kld_bytes){file->block, len};
    return true;
}

/* A named fifo that nobody has opened for writing yet would read as empty. (Of a pipe that is known
 * as /dev/fd/N the writer may have come and gone.) */
static void wait_for_writer(const char *path, int fd)
{
    struct stat st;
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    if (lstat(path, &st) == 0 && S_ISFIFO(st.st_mode))
        while (poll(&poll_fd, 1, -1) < 0 && errno == EINTR)
            continue;
}

static bool read_file(const struct kld_alloc *from, const char *path, int fd,
                      struct input_file *file)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return false;
    if (S_ISDIR(st.st_mode)) {
        errno = EISDIR;
        return false;
    }
    if (S_ISFIFO(st.st_mode))
        wait_for_writer(path, fd);
    if (!S_ISREG(st.st_mode))
        fcntl(fd, F_SETFL, 0); /* now wait for whoever writes */
    if (S_ISREG(st.st_mode))
        file->id = kld_identity_of(&st);
    if (!S_ISREG(st.st_mode) || st.st_size == 0)
        return read_stream(from, fd, file);
    void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED)
        return errno == ENODEV && read_stream(from, fd, file);
    file->bytes = (struct kld_bytes){at, (size_t)st.st_size};
    file->mapped = true;
    return true;
}

const char *kld_io_real_path(struct kld_session *ctx, const char *path)
{
    if (!ctx->options.chroot || path[0] != '/')
        return path;
    return kld_arena_printf(kld_pool_arena(ctx), "%s%s", ctx->options.chroot, path);
}

static bool open_file(struct kld_session *ctx, struct input_file *file)
{
    if (ctx->host.open_file) {
        const void *data = NULL;
        size_t length = 0;
        file->of_host = true;
        errno = EIO; /* of hosts that do not say */
        if (!ctx->host.open_file(ctx->host.context, kld_io_real_path(ctx, file->path), &data,
                                 &length))
            return false;
        file->bytes = (struct kld_bytes){data, length};
        return true;
    }
    /* O_NONBLOCK: looking at a fifo must not hang before it is known to be one. */
    const char *path = kld_io_real_path(ctx, file->path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 && errno == EWOULDBLOCK) /* a regular file that another link is patching just now */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return false;
    bool ok = read_file(&ctx->alloc, path, fd, file);
    int error = errno;
    close(fd);
    errno = error;
    return ok;
}

/* Bytes that the process has resident; 0: not known. */
static uint64_t resident_size(void)
{
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    text[KLD_MAX(n, 0)] = '\0';
    const char *second = strchr(text, ' ');
    return second ? strtoull(second, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

/* Where what stays is more than the limit, the next time is a good deal above that: inputs that are
 * read over and over for each other's sake would be of no help. */
void kld_io_trim(struct kld_session *ctx)
{
    struct kld_io *io = ctx->io;
    uint64_t limit = ctx->options.memory_limit;
    if (!limit || !io)
        return;
    uint64_t at = atomic_load_explicit(&io->trim_at, memory_order_relaxed);
    if (resident_size() <= KLD_MAX(at, limit))
        return;
    pthread_mutex_lock(&io->lock);
    for (size_t i = 0; i < BUCKETS; i++)
        for (const struct input_file *f = io->buckets[i]; f; f = f->next)
            if (f->mapped)
                madvise((void *)f->bytes.ptr, f->bytes.len, MADV_DONTNEED);
    pthread_mutex_unlock(&io->lock);
    atomic_store_explicit(&io->trim_at, resident_size() + limit / 4, memory_order_relaxed);
}

static void close_file(struct kld_session *ctx, struct input_file *file)
{
    if (file->of_host && ctx->host.close_file)
        ctx->host.close_file(ctx->host.context, file->path, file->bytes.ptr, file->bytes.len);
    if (file->mapped)
        munmap((void *)file->bytes.ptr, file->bytes.len);
    if (file->block)
        ctx->alloc.free(ctx->alloc.context, file->block, file->block_size);
}

static struct input_file *find_locked(struct kld_io *io, struct input_file **bucket,
                                      const char *path)
{
    pthread_mutex_lock(&io->lock);
    struct input_file *file = find(*bucket, path);
    pthread_mutex_unlock(&io->lock);
    return file;
}

/* The file now of that name in the table: another thread may have been faster. */
static struct input_file *add(struct kld_session *ctx, struct input_file **bucket,
                              struct input_file *file)
{
    pthread_mutex_lock(&ctx->io->lock);
    struct input_file *known = find(*bucket, file->path);
    if (!known) {
        file->next = *bucket;
        *bucket = file;
    }
    pthread_mutex_unlock(&ctx->io->lock);
    if (known)
        close_file(ctx, file);
    return known ? known : file;
}

static void note_absent(struct kld_io *io, struct input_file *file)
{
    pthread_mutex_lock(&io->lock);
    if (!find(io->absent, file->path)) {
        file->next = io->absent;
        io->absent = file;
    }
    pthread_mutex_unlock(&io->lock);
}

bool kld_io_open(struct kld_session *ctx, const char *path, struct kld_bytes *bytes)
{
    struct input_file **bucket = bucket_of(ctx->io, path);
    struct input_file *file = find_locked(ctx->io, bucket, path);
    if (!file) {
        /* All memory before the file is opened: what is open must get into the table. */
        struct kld_arena *arena = kld_pool_arena(ctx);
        file = KLD_NEW(arena, struct input_file);
        file->path = kld_arena_strndup(arena, path, strlen(path));
        if (!open_file(ctx, file)) {
            int error = errno;
            if (file->block)
                ctx->alloc.free(ctx->alloc.context, file->block, file->block_size);
            if (file->no_memory)
                longjmp(*arena->oom, 1);
            if (ctx->options.incremental)
                note_absent(ctx->io, file);
            errno = error;
            return false;
        }
        file = add(ctx, bucket, file);
    }
    *bytes = file->bytes;
    return true;
}

bool kld_io_exists(struct kld_session *ctx, const char *path)
{
    /* What is looked for is opened next. */
    struct kld_bytes bytes;
    return kld_io_open(ctx, path, &bytes);
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted, since threads may have opened some in any order. */
size_t kld_io_paths(struct kld_session *ctx, const char ***paths)
{
    size_t count = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct input_file *f = ctx->io->buckets[i]; f; f = f->next)
            count++;
    *paths = KLD_NEW_ARRAY(&ctx->arena, const char *, count);
    size_t n = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct input_file *f = ctx->io->buckets[i]; f; f = f->next)
            (*paths)[n++] = f->path;
    if (count)
        qsort(*paths, count, sizeof(**paths), compare_paths);
    return count;
}

static int compare_known(const void *a, const void *b)
{
    return strcmp(((const struct kld_io_known *)a)->path, ((const struct kld_io_known *)b)->path);
}

size_t kld_io_known(struct kld_session *ctx, struct kld_io_known **list)
{
    size_t count = 0, n = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct input_file *f = ctx->io->buckets[i]; f; f = f->next)
            count++;
    for (struct input_file *f = ctx->io->absent; f; f = f->next)
        count++;
    *list = KLD_NEW_ARRAY(&ctx->arena, struct kld_io_known, count);
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct input_file *f = ctx->io->buckets[i]; f; f = f->next)
            (*list)[n++] = (struct kld_io_known){
                .path = f->path, .bytes = f->bytes, .id = f->id, .by_content = f->of_host};
    for (struct input_file *f = ctx->io->absent; f; f = f->next)
        (*list)[n++] = (struct kld_io_known){.path = f->path, .absent = true};
    if (count)
        qsort(*list, count, sizeof(**list), compare_known);
    return count;
}

void kld_io_free(struct kld_session *ctx)
{
    if (!ctx->io)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct input_file *f = ctx->io->buckets[i]; f; f = f->next)
            close_file(ctx, f);
    pthread_mutex_destroy(&ctx->io->lock);
    ctx->io = NULL;
}

bool kld_io_is_empty_folder(const char *path)
{
    DIR *dir = opendir(path);
    bool empty = dir || errno == ENOENT;
    for (const struct dirent *e; dir && empty && (e = readdir(dir));)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    if (dir)
        closedir(dir);
    return empty;
}

/* ---- the output ---- */

static bool fail(struct kld_session *ctx, const char *path, const char *what, int error)
{
    char buffer[40];
    kld_error(ctx, "output", &(struct kld_where){.path = path}, "%s: %s", what,
              kld_errno_text(error, buffer, sizeof(buffer)));
    return false;
}

/* Length of the directory part of a path, with the slash. */
static size_t directory_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash + 1 - path) : 0;
}

/* The path that a symbolic link leads to, or NULL. */
static char *link_target(struct kld_session *ctx, const char *link)
{
    char target[4096];
    ssize_t n = readlink(link, target, sizeof(target) - 1);
    if (n <= 0)
        return NULL;
    target[n] = 0;
    size_t dir = target[0] == '/' ? 0 : directory_length(link);
    return kld_arena_printf(&ctx->arena, "%.*s%s", (int)dir, link, target);
}

char *kld_io_follow(struct kld_session *ctx, const char *path)
{
    char *final = kld_arena_strndup(&ctx->arena, path, strlen(path));
    for (int i = 0; i < MOST_LINKS; i++) {
        char *target = link_target(ctx, final);
        if (!target)
            break;
        final = target;
    }
    return final;
}

/* GNU ld replaces a symbolic link, but writes through one whose target is missing or empty; and
 * so do we. */
static char *final_path(struct kld_session *ctx, const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size != 0)
        return kld_arena_strndup(&ctx->arena, path, strlen(path));
    return kld_io_follow(ctx, path);
}

void kld_io_announce(struct kld_session *ctx, const char *temporary)
{
    if (ctx->host.temporary_file)
        ctx->host.temporary_file(ctx->host.context, temporary);
}

enum { MOST_TEMPORARIES = 1000 };

static char *temporary_name(struct kld_session *ctx, const char *path, unsigned number)
{
    return kld_arena_printf(&ctx->arena, "%.*s.kld-%ld-%u", (int)directory_length(path), path,
                            (long)getpid(), number);
}

/* Mode: what the kernel leaves of it with the umask, which nobody can ask for without changing
 * it. */
int kld_io_create_temporary(struct kld_session *ctx, const char *path, unsigned mode, char **name)
{
    for (unsigned i = 0; i < MOST_TEMPORARIES; i++) {
        *name = temporary_name(ctx, path, i);
        int fd = open(*name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
        if (fd >= 0) {
            kld_io_announce(ctx, *name);
            return fd;
        }
        if (errno != EEXIST) /* of another session, or left over */
            break;
    }
    *name = NULL;
    return -1;
}

/* For file systems that cannot rename to free names only: an empty file keeps the name for us. */
static bool hide_over(struct kld_session *ctx, const char *path, char **name)
{
    int fd = kld_io_create_temporary(ctx, path, 0600, name);
    if (fd < 0)
        return false;
    close(fd);
    if (rename(path, *name) == 0)
        return true;
    int error = errno;
    unlink(*name);
    kld_io_announce(ctx, NULL);
    *name = NULL;
    errno = error;
    return false;
}

/* Announced before it is done: a signal in between removes nothing, or what is left of somebody. */
bool kld_io_hide(struct kld_session *ctx, const char *path, char **name)
{
    errno = EINVAL;
#ifdef RENAME_NOREPLACE
    for (unsigned i = 0; i < MOST_TEMPORARIES; i++) {
        *name = temporary_name(ctx, path, i);
        kld_io_announce(ctx, *name);
        if (renameat2(AT_FDCWD, path, AT_FDCWD, *name, RENAME_NOREPLACE) == 0)
            return true;
        if (errno != EEXIST)
            break;
    }
    int error = errno;
    kld_io_announce(ctx, NULL);
    errno = error;
#endif
    *name = NULL;
    return (errno == EINVAL || errno == ENOSYS) && hide_over(ctx, path, name);
}

/* ext4 takes a file that replaces another for one that must survive a power failure, and starts to
 * write all of it to the disk before rename returns: 40 ms for 200 MB. It does not if the two swap
 * their names. */
bool kld_io_replace(const char *temporary, const char *path)
{
#ifdef RENAME_EXCHANGE
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
        renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        unlink(temporary);
        return true;
    }
#endif
    return rename(temporary, path) == 0;
}

/* Devices and pipes are written as they are. */
static bool open_special(struct kld_session *ctx, struct kld_output *out, mode_t mode)
{
    out->fd = open(out->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (out->fd < 0)
        return fail(ctx, out->path, "cannot open output file", errno);
    out->whole = !S_ISBLK(mode) && lseek(out->fd, 0, SEEK_CUR) < 0;
    return true;
}

/* A directory in which nothing can be created, but the file is there and may be written. */
static bool open_in_place(struct kld_output *out)
{
    struct stat st;
    if (stat(out->path, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    out->fd = open(out->path, O_RDWR | O_TRUNC | O_CLOEXEC);
    return out->fd >= 0;
}

static bool open_destination(struct kld_session *ctx, struct kld_output *out, const char *path,
                             bool executable)
{
    struct stat st;
    bool exists = stat(path, &st) == 0;
    out->path = exists && !S_ISREG(st.st_mode) ? kld_arena_strndup(&ctx->arena, path, strlen(path))
                                               : final_path(ctx, path);
    if (exists && S_ISDIR(st.st_mode))
        return fail(ctx, path, "cannot open output file", EISDIR);
    if (exists && !S_ISREG(st.st_mode))
        return open_special(ctx, out, st.st_mode);
    out->fd = kld_io_create_temporary(ctx, out->path, executable ? 0777 : 0666, &out->temporary);
    int error = errno;
    if (out->fd < 0 && ((error != EACCES && error != EPERM) || !open_in_place(out)))
        return fail(ctx, path, "cannot open output file", error);
    /* The bytes between what is written are zero. This reserves nothing: on a full disk the
     * writes fail. */
    if (ftruncate(out->fd, (off_t)out->size) != 0)
        return fail(ctx, path, "cannot set the size of the output file", errno);
    return true;
}

bool kld_output_open(struct kld_session *ctx, struct kld_output *out, const char *path,
                     uint64_t size, bool executable)
{
    *out = (struct kld_output){.fd = -1, .size = size};
    bool memory = ctx->options.output_memory;
    if (!memory && !open_destination(ctx, out, path, executable)) {
        kld_output_abandon(ctx, out);
        return false;
    }
    if (memory || out->whole) {
        out->memory = ctx->alloc.alloc(ctx->alloc.context, KLD_MAX(size, 1));
        if (!out->memory)
            longjmp(ctx->oom, 1);
    }
    return true;
}

/* ext4 looks for each block that is written whether it has been promised, and promises it; of blocks that are there
 * it knows at once. Of clang's time that is 2 to 5%. It is ext4's alone: elsewhere this is no faster, and on tmpfs
 * as dear as writing. */
void kld_output_reserve(const struct kld_output *out)
{
#ifdef __linux__
    enum { FROM = 1 << 20 }; /* smaller ones have few blocks */
    struct statfs fs;
    if (!out->memory && out->size >= FROM && fstatfs(out->fd, &fs) == 0 &&
        fs.f_type == EXT4_SUPER_MAGIC)
        fallocate(out->fd, 0, 0, (off_t)out->size); /* may be refused */
#else
    (void)out;
#endif
}

bool kld_io_write_all(int fd, const uint8_t *data, size_t length, uint64_t offset, bool stream)
{
    while (length) {
        size_t once = KLD_MIN(length, (size_t)1 << 30);
        ssize_t n = stream ? write(fd, data, once) : pwrite(fd, data, once, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n == 0)
                errno = ENOSPC;
            return false;
        }
        data += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return true;
}

bool kld_output_write(struct kld_session *ctx, struct kld_output *out, uint64_t offset,
                      const void *data, size_t length)
{
    if (!length)
        return true;
    if (!kld_in_bounds(offset, length, out->size)) {
        kld_internal_error(ctx, NULL, "write beyond the end of the output");
        return false;
    }
    if (out->memory) {
        memcpy(out->memory + offset, data, length);
        return true;
    }
    if (atomic_load_explicit(&out->failed, memory_order_relaxed))
        return false;
    if (kld_io_write_all(out->fd, data, length, offset, false))
        return true;
    int error = errno;
    /* The other threads will run into it as well: say it once. */
    if (!atomic_exchange(&out->failed, true))
        fail(ctx, out->path, "cannot write output file", error);
    return false;
}

static void free_memory(struct kld_session *ctx, struct kld_output *out)
{
    if (out->memory)
        ctx->alloc.free(ctx->alloc.context, out->memory, KLD_MAX(out->size, 1));
    out->memory = NULL;
}

bool kld_output_commit(struct kld_session *ctx, struct kld_output *out)
{
    if (out->fd < 0)
        return true;
    if (out->whole) {
        if (!kld_io_write_all(out->fd, out->memory, out->size, 0, true)) {
            fail(ctx, out->path, "cannot write output file", errno);
            kld_output_abandon(ctx, out);
            return false;
        }
        free_memory(ctx, out);
    }
    int fd = out->fd;
    out->fd = -1;
    /* Some file systems say only now that the disk is full. */
    bool ok = close(fd) == 0 || errno == EINTR;
    if (!ok)
        fail(ctx, out->path, "cannot write output file", errno);
    if (ok && out->temporary) {
        ok = kld_io_replace(out->temporary, out->path);
        if (!ok)
            fail(ctx, out->path, "cannot rename output file into place", errno);
    }
    if (ok && out->temporary) {
        out->temporary = NULL;
        kld_io_announce(ctx, NULL);
    }
    if (!ok)
        kld_output_abandon(ctx, out);
    return ok;
}

void kld_output_abandon(struct kld_session *ctx, struct kld_output *out)
{
    if (out->path && out->fd >= 0)
        close(out->fd);
    if (out->temporary) {
        unlink(out->temporary);
        kld_io_announce(ctx, NULL);
    }
    free_memory(ctx, out);
    *out = (struct kld_output){.fd = -1};
}

bool kld_io_write_file(struct kld_session *ctx, const char *path, const void *data, size_t length)
{
    if (strcmp(path, "-") == 0) {
        kld_print(ctx, data, length);
        return true;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0)
        return fail(ctx, path, "cannot open", errno);
    bool ok = kld_io_write_all(fd, data, length, 0, true);
    int error = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        error = errno;
    }
    return ok || fail(ctx, path, "cannot write", error);
}
