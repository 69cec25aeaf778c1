/* str.h - slices of text that need no terminator: names in mapped files, parts of options. */
#ifndef KLD_SRC_STR_H
#define KLD_SRC_STR_H

#include "src/base.h"

struct kld_str {
    const char *ptr;
    size_t len;
};

#define KLD_STR(literal) ((struct kld_str){(literal), sizeof(literal) - 1})
/* For printf: "%.*s", KLD_FMT(s) */
#define KLD_FMT(s) (int)(s).len, (s).ptr

static inline struct kld_str kld_str(const char *text)
{
    return (struct kld_str){text, text ? strlen(text) : 0};
}

static inline bool kld_str_eq(struct kld_str a, struct kld_str b)
{
    return a.len == b.len && (!a.len || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool kld_str_is(struct kld_str a, const char *b)
{
    return kld_str_eq(a, kld_str(b));
}

static inline bool kld_str_starts(struct kld_str a, const char *prefix)
{
    size_t n = strlen(prefix);
    return a.len >= n && memcmp(a.ptr, prefix, n) == 0;
}

static inline bool kld_str_ends(struct kld_str a, const char *suffix)
{
    size_t n = strlen(suffix);
    return a.len >= n && memcmp(a.ptr + a.len - n, suffix, n) == 0;
}

static inline struct kld_str kld_str_from(struct kld_str a, size_t start)
{
    return start < a.len ? (struct kld_str){a.ptr + start, a.len - start} : (struct kld_str){0};
}

#endif
