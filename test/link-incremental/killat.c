/* killat - runs a command and kills it at its Nth call that changes a file, before the call or in
 * the middle of it.
 *
 *   killat N whole|half COMMAND...      whole: that call is not made
 *                                       half: of what it was to write, the first half is written
 *
 * Exit status 99 if it was killed; else that of the command, which made fewer than N such calls.
 * What it does to files that are in memory (stores to a mapping) cannot be seen from here. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    OPTIONS = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
              PTRACE_O_TRACEVFORK | PTRACE_O_EXITKILL
};

/* The register that holds the length of what is written, if it is a write. */
static unsigned long long *length_of(struct user_regs_struct *regs)
{
    switch (regs->orig_rax) {
    case SYS_write:
    case SYS_pwrite64: return &regs->rdx;
    case SYS_copy_file_range: return &regs->r8;
    case SYS_sendfile: return &regs->r10;
    default: return NULL;
    }
}

static bool changes_a_file(const struct user_regs_struct *regs)
{
    switch (regs->orig_rax) {
    case SYS_write: return regs->rdi > 2;
    case SYS_pwrite64:
    case SYS_writev:
    case SYS_pwritev:
    case SYS_pwritev2:
    case SYS_copy_file_range:
    case SYS_sendfile:
    case SYS_ftruncate:
    case SYS_truncate:
    case SYS_fallocate:
    case SYS_msync:
    case SYS_rename:
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_link:
    case SYS_linkat:
    case SYS_unlink:
    case SYS_unlinkat:
    case SYS_fchmod:
    case SYS_utimensat:
    case SYS_fsync:
    case SYS_fdatasync: return true;
    default: return false;
    }
}

static int die(const char *what)
{
    perror(what);
    return 98;
}

/* The threads that are in a call: at the next stop they are at its end. */
enum { THREADS = 4096 };
static pid_t inside[THREADS];

static bool toggle_inside(pid_t thread)
{
    int spare = -1;
    for (int i = 0; i < THREADS; i++) {
        if (inside[i] == thread) {
            inside[i] = 0;
            return false;
        }
        if (!inside[i] && spare < 0)
            spare = i;
    }
    inside[spare] = thread;
    return true;
}

static int killed(pid_t child)
{
    int status;
    kill(child, SIGKILL);
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if ((thread < 0 && errno != EINTR) || (thread == child && WIFSIGNALED(status)))
            return 99;
    }
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return die("usage");
    long number = atol(argv[1]), seen = 0;
    bool half = !strcmp(argv[2], "half");
    pid_t child = fork(), cut = 0;
    if (child < 0)
        return die("fork");
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        execvp(argv[3], argv + 3);
        _exit(die(argv[3]));
    }
    int status, result = 98;
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
        return die("waitpid");
    if (ptrace(PTRACE_SETOPTIONS, child, NULL, OPTIONS) ||
        ptrace(PTRACE_SYSCALL, child, NULL, NULL))
        return die("ptrace");
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        if (thread < 0)
            return errno == ECHILD ? result : die("waitpid");
        if (!WIFSTOPPED(status)) {
            if (thread == child)
                result = WIFEXITED(status) ? WEXITSTATUS(status) : 97;
            continue;
        }
        int signal = WSTOPSIG(status);
        if (signal == (SIGTRAP | 0x80)) {
            struct user_regs_struct regs;
            if (ptrace(PTRACE_GETREGS, thread, NULL, &regs))
                return die("ptrace");
            bool start = toggle_inside(thread);
            if (!start && thread == cut)
                return killed(child);
            if (start && !cut && changes_a_file(&regs) && ++seen == number) {
                unsigned long long *length = length_of(&regs);
                if (!half || !length)
                    return killed(child);
                *length /= 2;
                if (ptrace(PTRACE_SETREGS, thread, NULL, &regs))
                    return die("ptrace");
                cut = thread;
            }
            signal = 0;
        } else if (signal == SIGTRAP || signal == SIGSTOP) {
            signal = 0; /* an event, or the start of a thread */
        }
        ptrace(PTRACE_SYSCALL, thread, NULL, (void *)(long)signal);
    }
}
