/* main.c - the kld command: what libkld leaves to a process. Files of standard output and error,
 * signals, the environment, the exit status. */
#include "driver/command.h"
#include "driver/leave.h"
#include "driver/report.h"
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Names of temporary outputs, the newest first; empty once it is gone. A signal handler reads them
 * at any time, so an old name is neither freed nor changed. */
struct temporary {
    struct temporary *older;
    char path[];
};
static _Atomic(struct temporary *) temporaries;

static void remember_temporary(void *context, const char *path)
{
    (void)context;
    size_t size = path ? strlen(path) + 1 : 1;
    struct temporary *t = malloc(sizeof(*t) + size);
    if (!t)
        return;
    memcpy(t->path, path ? path : "", size);
    t->older = atomic_load(&temporaries);
    while (!atomic_compare_exchange_weak(&temporaries, &t->older, t))
        continue;
}

/* Removes the half-written output; the process then dies of the same signal, whose default action
 * is back in force (SA_RESETHAND). */
static void on_signal(int number)
{
    static const char truncated[] = "kld: error: cannot read a mapped file any more: an input was "
                                    "cut short during the link, or the disk failed\n";
    struct temporary *newest = atomic_load(&temporaries);
    if (newest && newest->path[0])
        unlink(newest->path);
    if (number == SIGBUS && write(STDERR_FILENO, truncated, sizeof(truncated) - 1) < 0)
        _exit(1);
    raise(number);
}

/* A signal that is ignored stays so: nohup, a shell's background jobs. */
static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGXCPU, SIGBUS};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct sigaction old, action = {.sa_handler = on_signal};
        action.sa_flags = (int)SA_RESETHAND;
        sigemptyset(&action.sa_mask);
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
    }
    signal(SIGXFSZ, SIG_IGN); /* `ulimit -f`: the write fails, which is reported */
}

struct process {
    struct kld_report_style style;
    bool alone; /* leaves nothing to a child */
};

static void show(void *context, const kld_message *message)
{
    const struct process *process = context;
    kld_report_message(&process->style, stdout, stderr, message);
}

static void print(void *context, const char *text, size_t length)
{
    (void)context;
    fwrite(text, 1, length, stdout);
}

static const char *environment(void *context, const char *name)
{
    (void)context;
    return getenv(name);
}

static bool terminal_shows_colours(void)
{
    const char *term = getenv("TERM"), *none = getenv("NO_COLOR");
    return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0 && !(none && *none);
}

static void present(void *context, const struct kld_presentation *presentation)
{
    struct process *process = context;
    process->alone = presentation->alone;
    process->style.json = presentation->json;
    if (presentation->colour != KLD_COLOUR_AUTO)
        process->style.colour = presentation->colour == KLD_COLOUR_ALWAYS;
}

/* What was printed must have arrived: `kld --print-map > /dev/full` has failed. */
static int finish_output(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fputs("kld: error: cannot write to the standard output\n", stderr);
    return 1;
}

int main(int argc, char **argv)
{
    static char buffer[8192];
    setvbuf(stderr, buffer, _IOFBF, sizeof(buffer));
    catch_signals();
    struct process process = {.style.colour = terminal_shows_colours()};
    const kld_host host = {
        .size = sizeof(host),
        .context = &process,
        .message = show,
        .temporary_file = remember_temporary,
        .print = print,
        .environment = environment,
        .colour = process.style.colour,
    };
    struct kld_command_hooks hooks = {.context = &process, .present = present};
#ifndef KLD_DEBUG
    hooks.leave_session = true;
#endif
    int status = kld_command_run(argc, (const char *const *)argv, &host, &hooks);
    status = finish_output(status);
    fflush(stderr);
#ifndef KLD_DEBUG
    /* The kernel takes big mappings down faster than anything here would. */
    kld_leave(status, process.alone);
#endif
    return status;
}
