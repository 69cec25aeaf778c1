/* command.h - kld_run with what only a process of its own wants. */
#ifndef KLD_DRIVER_COMMAND_H
#define KLD_DRIVER_COMMAND_H

#include "driver/gnu.h"

struct kld_command_hooks {
    void *context;
    /* Called once, before any message, with what the options say on messages and the process. */
    void (*present)(void *context, const struct kld_presentation *presentation);
    /* The process ends after this: do not spend time on freeing the session. */
    bool leave_session;
};

/* As kld_run; hooks may be NULL. host must not be. */
int kld_command_run(int argc, const char *const *argv, const kld_host *host,
                    const struct kld_command_hooks *hooks);

#endif
