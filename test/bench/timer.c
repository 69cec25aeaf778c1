/* Runs one command and tells what it cost, its orphans included.
 *
 *   timer [-s] LOG COMMAND [ARGUMENT...]
 *
 * One line of numbers on standard output:
 *   wall  seconds until the command has exited: what a build waits for
 *   all   seconds until the last of its descendants has exited. A linker may leave one behind that
 *         gives memory back after the command has said that it is done.
 *   user, system   CPU seconds of all of them
 *   peak  bytes: the largest resident set of any of them. With -s the sum over all of them at one
 *         instant is sampled each 0.2 ms as well, and the larger one counts.
 *   anon  bytes: with -s, the sampled peak of memory that is no file's (RssAnon); otherwise 0
 *   status   exit status, or 128 + signal
 *
 * It is a program of its own because a process starts with the peak of its parent's resident set,
 * and this one's is small. LOG receives what the command prints. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static atomic_bool done;
static long peak, anon;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* Adds up the pages of all descendants of this thread's or process's task folder. */
static void add_children(const char *task, long *resident, long *shared)
{
    char name[512];
    snprintf(name, sizeof(name), "%s/children", task);
    FILE *children = fopen(name, "r");
    if (!children)
        return;
    int pid;
    while (fscanf(children, "%d", &pid) == 1) {
        long r, s;
        snprintf(name, sizeof(name), "/proc/%d/statm", pid);
        FILE *statm = fopen(name, "r");
        if (statm) {
            if (fscanf(statm, "%*d %ld %ld", &r, &s) == 2) {
                *resident += r;
                *shared += s;
            }
            fclose(statm);
        }
        snprintf(name, sizeof(name), "/proc/%d/task", pid);
        DIR *tasks = opendir(name);
        for (struct dirent *e; tasks && (e = readdir(tasks));) {
            if (e->d_name[0] == '.')
                continue;
            snprintf(name, sizeof(name), "/proc/%d/task/%.20s", pid, e->d_name);
            add_children(name, resident, shared);
        }
        if (tasks)
            closedir(tasks);
    }
    fclose(children);
}

static void *sample(void *arg)
{
    char task[64];
    snprintf(task, sizeof(task), "/proc/self/task/%d", getpid());
    long page = sysconf(_SC_PAGESIZE);
    while (!atomic_load(&done)) {
        long resident = 0, shared = 0;
        add_children(task, &resident, &shared);
        if (resident * page > peak)
            peak = resident * page;
        if ((resident - shared) * page > anon)
            anon = (resident - shared) * page;
        usleep(200);
    }
    return arg;
}

int main(int argc, char **argv)
{
    bool sampling = argc > 1 && strcmp(argv[1], "-s") == 0;
    char **command = argv + 2 + sampling;
    if (argc < 3 + sampling) {
        fprintf(stderr, "usage: timer [-s] LOG COMMAND [ARGUMENT...]\n");
        return 2;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, argv[1 + sampling], O_WRONLY | O_CREAT | O_TRUNC,
                                     0644);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    pthread_t sampler;
    if (sampling)
        pthread_create(&sampler, NULL, sample, NULL);

    double start = now();
    pid_t pid;
    if (posix_spawn(&pid, command[0], &files, NULL, command, environ) != 0) {
        fprintf(stderr, "timer: cannot start %s\n", command[0]);
        return 2;
    }
    double wall = 0, user = 0, system = 0;
    long largest = 0;
    int status = 0, one;
    struct rusage used;
    for (pid_t p; (p = wait4(-1, &one, 0, &used)) > 0;) {
        if (p == pid) {
            wall = now() - start;
            status = WIFEXITED(one) ? WEXITSTATUS(one) : 128 + WTERMSIG(one);
        }
        user += seconds(used.ru_utime);
        system += seconds(used.ru_stime);
        if (used.ru_maxrss * 1024 > largest)
            largest = used.ru_maxrss * 1024;
    }
    double all = now() - start;
    if (sampling) {
        atomic_store(&done, true);
        pthread_join(sampler, NULL);
    }
    printf("%.6f %.6f %.6f %.6f %ld %ld %d\n", wall, all, user, system,
           peak > largest ? peak : largest, anon, status);
    return 0;
}
