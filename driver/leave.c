/* leave.c - the end of the process, and who takes its memory down.
 *
 * To take the pages of large inputs out of memory takes the kernel a twelfth of the time of a large link, in one
 * thread, and whoever waits for the process waits for that: of clang 19 ms of 240, of llvm-objdump 24 of 196. But
 * memory that a child shares is taken down when the child ends. */
#define _GNU_SOURCE
#include "driver/leave.h"
#include <unistd.h>
#ifdef __linux__
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#endif

#ifdef SYS_close_range
enum { MUCH = 64 << 10 }; /* KiB; less is taken down as soon as a child is made */

static bool has_much(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 && usage.ru_maxrss > MUCH;
}

/* The child. Its file descriptors are its own, its errno is that of the parent: it makes system calls only. Somebody
 * may wait for the end of what comes through the standard ones, so it closes all but its end of the pipe from its
 * parent: nothing comes through that until the parent has ended. */
static int outlive(void *pipe_ends)
{
    int end = ((const int *)pipe_ends)[0];
    char byte;
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fd != end)
            syscall(SYS_close, fd);
    syscall(SYS_close, ((const int *)pipe_ends)[1]);
    while (syscall(SYS_read, end, &byte, 1) > 0)
        continue;
    return 0;
}

/* If that fails, the memory goes with this process. What is open is closed first: a program that the child had
 * still open for writing could not be run. The child has no signal to send when it ends: it is nobody's business. */
static void leave_memory_behind(void)
{
    static _Alignas(16) char stack[16 << 10];
    static int pipe_ends[2];
    if (has_much() && syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0) == 0 &&
        pipe2(pipe_ends, O_CLOEXEC) == 0)
        clone(outlive, stack + sizeof(stack), CLONE_VM, pipe_ends);
}
#else
static void leave_memory_behind(void) {}
#endif

void kld_leave(int status, bool alone)
{
    if (!alone)
        leave_memory_behind();
    _exit(status);
}
