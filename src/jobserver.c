#define _GNU_SOURCE
#include "src/jobserver.h"
#include "src/session.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_TOKENS = 1024 };

struct kld_jobserver {
    const char *fifo; /* or NULL: */
    int read_fd, write_fd;
    /* While tokens are held: */
    int fd; /* where they go back to; -1: none held */
    unsigned ntokens;
    char tokens[MOST_TOKENS];
};

/* The value of the last --jobserver-auth or --jobserver-fds: make appends. */
static struct kld_str find_auth(const char *flags)
{
    static const char *const names[] = {"--jobserver-auth=", "--jobserver-fds="};
    struct kld_str auth = {0};
    for (const char *word = flags; *word;) {
        word += strspn(word, " \t");
        size_t len = strcspn(word, " \t");
        /* Behind a lone "--" come variables, which may say anything. */
        if (len == 2 && memcmp(word, "--", 2) == 0)
            break;
        for (size_t i = 0; i < KLD_COUNT(names); i++)
            if (kld_str_starts((struct kld_str){word, len}, names[i]))
                auth = kld_str_from((struct kld_str){word, len}, strlen(names[i]));
        word += len;
    }
    return auth;
}

static bool is_pipe(int fd, int wanted)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) != 0 || !S_ISFIFO(st.st_mode))
        return false;
    int mode = flags & O_ACCMODE;
    return mode == wanted || mode == O_RDWR;
}

struct kld_jobserver *kld_jobserver_new(struct kld_session *ctx)
{
    const char *flags =
        ctx->host.environment ? ctx->host.environment(ctx->host.context, "MAKEFLAGS") : NULL;
    struct kld_str auth = find_auth(flags ? flags : "");
    if (!auth.len)
        return NULL;
    struct kld_jobserver found = {.read_fd = -1, .write_fd = -1, .fd = -1};
    char *text = kld_arena_strndup(&ctx->arena, auth.ptr, auth.len);
    if (kld_str_starts(auth, "fifo:")) {
        found.fifo = text + 5;
    } else {
        char *end;
        found.read_fd = (int)strtol(text, &end, 10);
        if (end == text || *end != ',')
            return NULL;
        found.write_fd = (int)strtol(end + 1, &end, 10);
        /* Make closes them for a recipe that it does not take for a make of its own, and the
         * numbers may by now be something else. Such a command uses what the machine has. */
        if (found.read_fd < 0 || found.write_fd < 0 || !is_pipe(found.read_fd, O_RDONLY) ||
            !is_pipe(found.write_fd, O_WRONLY))
            return NULL;
    }
    struct kld_jobserver *jobs = KLD_NEW(&ctx->arena, struct kld_jobserver);
    *jobs = found;
    return jobs;
}

/* A description of our own for the pipe: setting O_NONBLOCK on the one that is shared with make
 * would change make's. */
static int open_pipe(const struct kld_jobserver *jobs)
{
    if (jobs->fifo)
        return open(jobs->fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", jobs->read_fd);
    return open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

unsigned kld_jobserver_take(struct kld_jobserver *jobs, unsigned count)
{
    if (!jobs)
        return count;
    int fd = open_pipe(jobs);
    if (fd < 0)
        return jobs->fifo ? count : 0; /* a stale path: make is long gone */
    unsigned want = KLD_MIN(count, (unsigned)MOST_TOKENS);
    ssize_t n;
    do
        n = read(fd, jobs->tokens, want);
    while (n < 0 && errno == EINTR);
    jobs->ntokens = n > 0 ? (unsigned)n : 0;
    jobs->fd = jobs->fifo ? fd : jobs->write_fd;
    if (!jobs->fifo)
        close(fd);
    return jobs->ntokens;
}

void kld_jobserver_keep(struct kld_jobserver *jobs, unsigned count)
{
    if (!jobs || jobs->fd < 0)
        return;
    while (jobs->ntokens > count) {
        ssize_t n = write(jobs->fd, jobs->tokens + count, jobs->ntokens - count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* make has gone */
        memmove(jobs->tokens + count, jobs->tokens + count + n, jobs->ntokens - count - (size_t)n);
        jobs->ntokens -= (unsigned)n;
    }
    if (count == 0) {
        if (jobs->fifo)
            close(jobs->fd);
        jobs->fd = -1;
        jobs->ntokens = 0;
    }
}
