/* gnu.h - the GNU ld flavour: a command line becomes options and inputs of a session.
 *
 *   gnu.c       words: which option, which value
 *   gnu_do.c    what each option does
 *   gnu_text.c  --help, --version
 *   table.h     the options */
#ifndef KLD_DRIVER_GNU_H
#define KLD_DRIVER_GNU_H

#include "driver/args.h"
#include "driver/table.h"

/* What is of interest to the process only: how messages are shown, how it ends. */
struct kld_presentation {
    bool json;
    bool alone; /* --no-fork */
    enum { KLD_COLOUR_AUTO, KLD_COLOUR_NEVER, KLD_COLOUR_ALWAYS } colour;
};

/* What --push-state saves. */
struct kld_gnu_state {
    struct kld_gnu_state *next;
    unsigned flags;
};

struct kld_gnu {
    kld_session *session;
    const kld_host *host;
    struct kld_args *args;
    size_t next;    /* the word after those that were looked at */
    unsigned flags; /* KLD_INPUT_* of the inputs that follow */
    struct kld_gnu_state *pushed;
    unsigned groups;     /* open */
    size_t inputs;       /* so far */
    bool only_inputs;    /* after "--" */
    bool stop;           /* --help and its like: there is nothing to link */
    bool showed_version; /* -v */
    bool print_format, print_sysroot;
    bool has_rpath;
    const char *kind, *output, *sysroot, *machine, *map;
    const char *reproduce; /* "" for --repro */
    const char *filter;    /* as spelled: only with -shared */
    kld_status status;     /* the worst so far */
};

/* An option of the command line and its value. */
struct kld_gnu_use {
    const struct kld_option *row;
    const char *spelled; /* "--soname", "-h", "-z now" */
    const char *value;   /* or NULL */
};

/* All words of args. */
kld_status kld_gnu_parse(struct kld_gnu *gnu);

/* Looks through args for those options, before there is a session. */
void kld_gnu_presentation(const struct kld_args *args, struct kld_presentation *presentation);

/* Does what an option says. */
void kld_gnu_do(struct kld_gnu *gnu, struct kld_gnu_use use);
void kld_gnu_add_input(struct kld_gnu *gnu, const char *name, unsigned flags);
/* What can be said only at the end of the command line. */
void kld_gnu_finish(struct kld_gnu *gnu);

/* The word after those that were looked at, or NULL; stays there. */
const char *kld_gnu_peek(const struct kld_gnu *gnu);

/* Reports an error in the command line and remembers that there was one. */
__attribute__((format(printf, 3, 4))) void kld_gnu_error(struct kld_gnu *gnu, const char *id,
                                                         const char *format, ...);
__attribute__((format(printf, 3, 4))) void kld_gnu_warn(struct kld_gnu *gnu, const char *id,
                                                        const char *format, ...);
/* For the results of calls of the library. */
void kld_gnu_note_status(struct kld_gnu *gnu, kld_status status);

/* gnu_text.c: through host->print. */
void kld_gnu_print_help(const kld_host *host);
void kld_gnu_print_version(const kld_host *host, bool more, bool emulations);
void kld_gnu_print(const kld_host *host, const char *text);
/* Whether GNU ld has that name for the objects of one of them (-b). */
bool kld_gnu_knows_format(const char *name);
bool kld_gnu_knows_emulation(const char *name);
const char *kld_gnu_format_of(const char *emulation);

#endif
