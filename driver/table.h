/* table.h - the options of the GNU ld flavour as data; rows and their meaning: gnu.def. */
#ifndef KLD_DRIVER_TABLE_H
#define KLD_DRIVER_TABLE_H

#include <stdbool.h>
#include <stddef.h>

enum kld_action {
    /* Of the table only: a heading, with its title as help. */
    KLD_DO_GROUP,

    KLD_DO_SET,         /* option = value, or argument when none is given */
    KLD_DO_FIX,         /* option = argument, whatever value is given */
    KLD_DO_CHOOSE,      /* argument lists "given:option-value" pairs; other values are errors */
    KLD_DO_SPLIT,       /* appends the parts between commas and colons */
    KLD_DO_SPLIT_PATH,  /* the same between colons only */
    KLD_DO_ADDRESS,     /* hexadecimal with or without 0x */
    KLD_DO_SECTION,     /* argument=ADDRESS, or the value is NAME=ADDRESS */
    KLD_DO_NO_EFFECT,   /* documented as such */
    KLD_DO_UNSUPPORTED, /* an error; argument: the reason */

    /* What is remembered while parsing, besides being set. */
    KLD_DO_KIND,
    KLD_DO_NO_PIE,
    KLD_DO_STATIC,
    KLD_DO_MAGIC,
    KLD_DO_OUTPUT,
    KLD_DO_SYSROOT,
    KLD_DO_RPATH,
    KLD_DO_FILTER,
    KLD_DO_MAP,
    KLD_DO_EMULATION,
    KLD_DO_REPRODUCE,
    KLD_DO_SMALL_DATA,

    /* Inputs, and the state that holds for those that follow. */
    KLD_DO_LIBRARY,
    KLD_DO_JUST_SYMBOLS,
    KLD_DO_FILE_OR_RPATH,
    KLD_DO_STATE,
    KLD_DO_ARCHIVES,
    KLD_DO_FORMAT,
    KLD_DO_PUSH,
    KLD_DO_POP,
    KLD_DO_GROUP_START,
    KLD_DO_GROUP_END,
    KLD_DO_LIB_START,
    KLD_DO_LIB_END,

    KLD_DO_Z,

    /* What is printed, and how. */
    KLD_DO_PRESENTATION,
    KLD_DO_FLAVOUR,
    KLD_DO_HELP,
    KLD_DO_TARGET_HELP,
    KLD_DO_VERSION,
    KLD_DO_VERSION_ONLY,
    KLD_DO_VERSION_EMULATIONS,
    KLD_DO_VERBOSE,
    KLD_DO_PRINT_FORMAT,
    KLD_DO_PRINT_SYSROOT,
};

enum { KLD_NAMES_MAX = 8 };

struct kld_option {
    const char *names[KLD_NAMES_MAX]; /* ends with NULL */
    const char *value_name;           /* NULL: takes no value; "[=X]": may have one */
    enum kld_action action;
    bool z; /* a keyword of -z */
    const char *option;
    const char *argument;
    const char *help;
};

extern const struct kld_option kld_gnu_options[];
extern const size_t kld_gnu_option_count;

enum kld_arity { KLD_TAKES_NONE, KLD_TAKES_VALUE, KLD_MAY_TAKE_VALUE };

enum kld_arity kld_option_arity(const struct kld_option *row);

/* The option of one letter, or NULL. */
const struct kld_option *kld_option_short(char letter);

/* The option, or with z the keyword of -z, of this name; or NULL. */
const struct kld_option *kld_option_long(const char *name, size_t length, bool z);

/* The option that this is the only abbreviation of, or NULL. */
const struct kld_option *kld_option_abbreviated(const char *name, size_t length);

/* A name that is spelled nearly so, or NULL. */
const char *kld_option_near(const char *name, size_t length);

#endif
