/* script.h - linker scripts of the kind that stand in for a library (libc.so).
 *
 * "Simple Linker Script Commands" of the GNU ld manual, without the description of an output:
 * commands that name files, symbols and the output, symbol assignments, ASSERT, VERSION. Comments
 * as in C, or from '#' to the end of the line. SECTIONS, MEMORY, PHDRS, INCLUDE and what belongs
 * to them are errors, as are assignments to '.'.
 *
 * deviates from GNU ld: a comma always ends a file name; "a=1;" needs no blanks; the last
 * semicolon may be missing. */
#ifndef KLD_SRC_SCRIPT_H
#define KLD_SRC_SCRIPT_H

#include "src/bytes.h"
#include "src/expr.h"
#include "src/vec.h"

enum kld_script_kind {
    KLD_SCRIPT_INPUT,         /* text: a file, or with is_library what follows "-l" */
    KLD_SCRIPT_GROUP_BEGIN,   /* GROUP(...): the inputs up to ... */
    KLD_SCRIPT_GROUP_END,     /* ... this are searched until nothing new is found */
    KLD_SCRIPT_STARTUP,       /* text: a file that goes first */
    KLD_SCRIPT_SEARCH_DIR,    /* text: as an argument of -L */
    KLD_SCRIPT_OUTPUT,        /* text: as an argument of -o */
    KLD_SCRIPT_OUTPUT_FORMAT, /* text: the name, endian: those for -EB and -EL or empty */
    KLD_SCRIPT_OUTPUT_ARCH,   /* text: as it stands there */
    KLD_SCRIPT_TARGET,        /* text: as an argument of -b */
    KLD_SCRIPT_ENTRY,         /* text: a symbol, as an argument of -e */
    KLD_SCRIPT_EXTERN,        /* text: a symbol, as an argument of -u */
    KLD_SCRIPT_VERSION,       /* text: between the braces, line: of its start */
    KLD_SCRIPT_ASSIGN,        /* text: a symbol; expr; provide, hidden */
    KLD_SCRIPT_ASSERT,        /* expr; text: the message if it is 0 */
};

struct kld_script_command {
    uint8_t kind;
    bool as_needed;  /* INPUT: within AS_NEEDED() */
    bool is_library; /* INPUT: "-lNAME" */
    bool provide;    /* ASSIGN: only if something refers to the symbol and nothing defines it */
    bool hidden;     /* ASSIGN: not visible outside */
    uint32_t line;   /* from 1 */
    struct kld_str text;
    struct kld_str endian[2];
    const struct kld_expr *expr;
};

struct kld_script {
    KLD_VEC(struct kld_script_command) commands; /* in order */
    const char *error;                           /* NULL, or what is wrong at line error_line */
    uint32_t error_line;
};

/* Whether a file that nothing else recognises looks like text: it has no control characters,
 * blanks aside, in its first bytes. */
bool kld_script_probe(struct kld_bytes bytes);

/* Parses a script. False if it has an error, with script->error from the arena. Texts are slices
 * of the script, whose bytes must outlive the result. */
bool kld_script_parse(struct kld_arena *arena, struct kld_bytes bytes, struct kld_script *script);

#endif
