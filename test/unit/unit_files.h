/* unit_files.h - for tests of what handles files: a folder of their own, other processes, mounts.
 * After unit.h. */
#ifndef KLD_TEST_UNIT_FILES_H
#define KLD_TEST_UNIT_FILES_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "src/session.h"

static char unit_folder[200];
static char unit_mounted[300];

static void unit_remove_folder(void)
{
    char command[300];
    if (geteuid() != getuid() && seteuid(getuid()) != 0)
        return;
    if (chdir("/") == 0) {
        while (umount2(unit_mounted, MNT_DETACH) == 0)
            continue;
        snprintf(command, sizeof(command), "rm -rf '%s'", unit_folder);
        if (system(command) != 0)
            printf("%s stays\n", unit_folder);
    }
}

/* An empty folder, where the test then is. Children have to leave by _exit. */
static KLD_UNUSED void unit_enter_folder(const char *parent)
{
    if (!parent)
        parent = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    snprintf(unit_folder, sizeof(unit_folder), "%s/kld-unit-XXXXXX", parent);
    if (!mkdtemp(unit_folder) || chdir(unit_folder) != 0)
        exit(1);
    atexit(unit_remove_folder);
}

static KLD_UNUSED void unit_put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* What is in the file, in a buffer of this function's; NULL if it is not there. */
static KLD_UNUSED const char *unit_text(const char *path)
{
    static char text[4096];
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n < 0 ? 0 : n] = 0;
    return text;
}

static KLD_UNUSED void unit_copy(const char *from, const char *to)
{
    char buffer[65536];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    CHECK(in >= 0 && out >= 0);
    for (ssize_t n; (n = read(in, buffer, sizeof(buffer))) > 0;)
        CHECK(write(out, buffer, (size_t)n) == n);
    close(in);
    close(out);
}

/* How many names of temporary files there are in the folder. */
static KLD_UNUSED int unit_temporaries(void)
{
    return system("exit $(ls -A | grep -c '^[.]kld-')") >> 8;
}

/* ---- another process that holds something until it is told to go ---- */

struct unit_holder {
    pid_t pid;
    int to, from;
};

/* hold says whether it has what it is to hold. */
static KLD_UNUSED struct unit_holder unit_hold(bool (*hold)(void *arg), void *arg)
{
    int to[2], from[2];
    char c = 0;
    struct unit_holder h = {.pid = -1};
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        exit(1);
    h.pid = fork();
    if (h.pid == 0) {
        close(to[1]);
        c = hold(arg) ? 'y' : 'n';
        if (write(from[1], &c, 1) != 1 || read(to[0], &c, 1) < 0)
            _exit(1);
        _exit(0);
    }
    close(to[0]);
    close(from[1]);
    h.to = to[1];
    h.from = from[0];
    CHECK(read(h.from, &c, 1) == 1 && c == 'y');
    return h;
}

static KLD_UNUSED void unit_let_go(struct unit_holder *h)
{
    int status = 0;
    close(h->to);
    close(h->from);
    CHECK(waitpid(h->pid, &status, 0) == h->pid && status == 0);
}

/* ---- mounts, in a name space of this process's own ---- */

static KLD_UNUSED bool unit_may_mount(void)
{
    return geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
           mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

/* At that place in the folder; one in a test. */
static KLD_UNUSED bool unit_mount_tmpfs(const char *path, const char *options)
{
    mkdir(path, 0755);
    snprintf(unit_mounted, sizeof(unit_mounted), "%s/%s", unit_folder, path);
    return mount("none", path, "tmpfs", 0, options) == 0;
}

static KLD_UNUSED bool unit_make_read_only(const char *path)
{
    return mount("none", path, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0;
}

/* Becomes somebody whom permissions bind, and who owns the folder. */
static KLD_UNUSED bool unit_give_up_root(void)
{
    enum { NOBODY = 65534 };
    if (geteuid() != 0)
        return true;
    return chown(".", NOBODY, NOBODY) == 0 && seteuid(NOBODY) == 0 && access(".", R_OK) == 0;
}

static KLD_UNUSED void unit_skip(const char *why)
{
    printf("skipped: %s\n", why);
}

#endif
