/* glob.h - wildcard patterns as in linker scripts and version scripts.
 *
 * '*' any text, '?' any byte, "[a-z]" one byte of a set, "[!a-z]" or "[^a-z]" one outside it, '\'
 * takes the next byte literally. A '[' without its ']' and a '\' at the end stand for themselves.
 * As fnmatch() of POSIX with no flags, without its named classes. */
#ifndef KLD_SRC_GLOB_H
#define KLD_SRC_GLOB_H

#include "src/arena.h"
#include "src/str.h"

enum kld_glob_kind {
    KLD_GLOB_EXACT,  /* text is all */
    KLD_GLOB_PREFIX, /* text, then anything: "foo*" */
    KLD_GLOB_ANY,    /* "*" */
    KLD_GLOB_GENERAL,
};

struct kld_glob {
    struct kld_str text; /* EXACT, PREFIX: without backslashes; GENERAL: the pattern */
    uint8_t kind;
};

/* Whether the pattern has a '*', '?' or '[' that is not escaped. */
bool kld_glob_is_pattern(struct kld_str pattern);

/* Prepares a pattern. Its text must outlive the result; a copy is made, from the arena, only if
 * it has backslashes to drop. */
struct kld_glob kld_glob_compile(struct kld_arena *arena, struct kld_str pattern);

/* In time proportional to the lengths of pattern and text multiplied, at worst. */
bool kld_glob_match(const struct kld_glob *glob, struct kld_str text);

#endif
