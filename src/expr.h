/* expr.h - expressions of linker scripts and of --defsym.
 *
 * As "Expressions in Linker Scripts" of the GNU ld manual has them: the operators of C without
 * assignment and comma, on 64-bit numbers; '/' and '%' are signed, all else is unsigned; decimal,
 * 0x and 0 prefixes, the suffixes K and M (times 1024 and 1024 * 1024) or h, o, b and d (the
 * base); symbols, plain or quoted; '.', the location counter; the functions ABSOLUTE, ALIGN,
 * DEFINED, LOG2CEIL, MAX and MIN. Comments as in C, or from '#' to the end of the line.
 *
 * deviates from GNU ld: '/' is not part of a name, "a/2" divides; a shift by 64 or more gives 0; a
 * number that does not fit or has digits of another base is an error.
 *
 * The text must outlive the expression, which refers to names in it. */
#ifndef KLD_SRC_EXPR_H
#define KLD_SRC_EXPR_H

#include "src/arena.h"
#include "src/str.h"

enum kld_expr_op {
    KLD_EXPR_NUMBER,
    KLD_EXPR_SYMBOL, /* "." too */
    KLD_EXPR_DEFINED,
    /* one operand */
    KLD_EXPR_NEG,
    KLD_EXPR_NOT,
    KLD_EXPR_COMPLEMENT,
    KLD_EXPR_ABSOLUTE,
    KLD_EXPR_LOG2CEIL,
    /* two */
    KLD_EXPR_MUL,
    KLD_EXPR_DIV,
    KLD_EXPR_MOD,
    KLD_EXPR_ADD,
    KLD_EXPR_SUB,
    KLD_EXPR_SHL,
    KLD_EXPR_SHR,
    KLD_EXPR_LT,
    KLD_EXPR_LE,
    KLD_EXPR_GT,
    KLD_EXPR_GE,
    KLD_EXPR_EQ,
    KLD_EXPR_NE,
    KLD_EXPR_AND,
    KLD_EXPR_XOR,
    KLD_EXPR_OR,
    KLD_EXPR_ANDAND,
    KLD_EXPR_OROR,
    KLD_EXPR_ALIGN,
    KLD_EXPR_MAX,
    KLD_EXPR_MIN,
    /* three */
    KLD_EXPR_COND,
};

struct kld_expr {
    uint8_t op;
    uint16_t height; /* of the tree; limited, so that walking it may recurse */
    union {
        uint64_t number;
        struct kld_str name; /* SYMBOL, DEFINED */
        const struct kld_expr *args[3];
    };
};

/* Parses an expression that starts at *pos and ends where no operator follows; *pos is then
 * behind it and the blanks after it. NULL on error: *error is a text (from the arena, or
 * constant) and *pos the place. */
const struct kld_expr *kld_expr_parse(struct kld_arena *arena, struct kld_str text, size_t *pos,
                                      const char **error);

/* Parses "name=expression" as --defsym has it. False on error, with *error as above. */
bool kld_expr_parse_defsym(struct kld_arena *arena, struct kld_str text, struct kld_str *name,
                           const struct kld_expr **expr, const char **error);

/* op(a, b): for "name += expression" and the like. NULL if the tree would be too high. */
const struct kld_expr *kld_expr_binary(struct kld_arena *arena, enum kld_expr_op op,
                                       const struct kld_expr *a, const struct kld_expr *b);
const struct kld_expr *kld_expr_symbol(struct kld_arena *arena, struct kld_str name);

/* Moves *pos over blanks and comments. False if a comment is not closed. */
bool kld_expr_skip_blanks(struct kld_str text, size_t *pos);

/* A value is an address; base says what it moves with (an atom, a section: whatever the lookup
 * means by it), or is NULL for a plain number. */
struct kld_expr_value {
    uint64_t value;
    const void *base;
};

/* The value of a symbol, or of "."; false if it has none. */
typedef bool kld_expr_lookup(void *context, struct kld_str name, struct kld_expr_value *value);

struct kld_expr_error {
    const char *text;      /* constant: "division by zero", "undefined symbol" */
    struct kld_str symbol; /* the one that is undefined */
};

/* Evaluates; parts that do not matter (the other side of "?:", "&&", "||") are not looked at.
 * Adding a number to an address and subtracting one keep the base; what else has an address for
 * an operand gives a plain number. */
bool kld_expr_eval(const struct kld_expr *expr, kld_expr_lookup *lookup, void *context,
                   struct kld_expr_value *value, struct kld_expr_error *error);

/* Whether the expression is a symbol plus a constant, or a constant (symbol->ptr is then NULL)
 * whatever symbols are worth. */
bool kld_expr_as_offset(const struct kld_expr *expr, struct kld_str *symbol, uint64_t *addend);

/* Calls visit for each symbol mentioned; needed is false inside DEFINED(). */
typedef void kld_expr_visit(void *context, struct kld_str name, bool needed);
void kld_expr_each_symbol(const struct kld_expr *expr, kld_expr_visit *visit, void *context);

#endif
