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
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#endif

#ifdef SYS_close_range
enum { MUCH = 64 << 20 }; /* less is taken down as soon as a child is made */

/* The most that was resident is that of whoever started this process, too: it saves small links a look at what is. */
static bool has_much(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0 || usage.ru_maxrss < MUCH / 1024)
        return false;
    char text[128] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
        return false;
    const char *pages = strchr(text, ' ');
    return pages && strtol(pages, NULL, 10) > MUCH / sysconf(_SC_PAGESIZE);
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
 * still open for writing could not be run. That the child has ended is told to nobody but init, or who stands for it. */
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

/* After an error there may be more than inputs in memory, such as files that are locked. */
void kld_leave(int status, bool alone)
{
    if (status == 0 && !alone)
        leave_memory_behind();
    _exit(status);
}
