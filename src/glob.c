#include "src/glob.h"

bool kld_glob_is_pattern(struct kld_str pattern)
{
    for (size_t i = 0; i < pattern.len; i++) {
        switch (pattern.ptr[i]) {
        case '*':
        case '?':
        case '[': return true;
        case '\\': i++; break;
        default: break;
        }
    }
    return false;
}

/* Drops the backslashes that make the next byte literal. */
static struct kld_str unescape(struct kld_arena *arena, struct kld_str s)
{
    if (!s.len || !memchr(s.ptr, '\\', s.len))
        return s;
    char *copy = kld_arena_alloc(arena, s.len, 1);
    size_t len = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '\\' && i + 1 < s.len)
            i++;
        copy[len++] = s.ptr[i];
    }
    return (struct kld_str){copy, len};
}

struct kld_glob kld_glob_compile(struct kld_arena *arena, struct kld_str pattern)
{
    if (kld_str_is(pattern, "*"))
        return (struct kld_glob){.kind = KLD_GLOB_ANY};
    if (!kld_glob_is_pattern(pattern))
        return (struct kld_glob){unescape(arena, pattern), KLD_GLOB_EXACT};
    /* No escaped star can be the last byte here: the byte before it is then no pattern either, or
     * the text before the backslash has one and the pattern is general. */
    struct kld_str head = {pattern.ptr, pattern.len - 1};
    if (pattern.ptr[head.len] == '*' && !kld_glob_is_pattern(head))
        return (struct kld_glob){unescape(arena, head), KLD_GLOB_PREFIX};
    return (struct kld_glob){pattern, KLD_GLOB_GENERAL};
}

/* A set "[...]" that starts at *at: whether it has the byte. Moves *at behind the set; if it is
 * not closed, the bracket is an ordinary byte. */
static bool match_set(struct kld_str p, size_t *at, unsigned char byte)
{
    size_t i = *at + 1;
    bool negated = i < p.len && (p.ptr[i] == '!' || p.ptr[i] == '^');
    i += negated;
    bool found = false;
    for (size_t first = i; i < p.len; i++) {
        if (p.ptr[i] == ']' && i > first) {
            *at = i + 1;
            return found != negated;
        }
        if (p.ptr[i] == '\\' && i + 1 < p.len)
            i++;
        unsigned char low = (unsigned char)p.ptr[i], high = low;
        if (i + 2 < p.len && p.ptr[i + 1] == '-' && p.ptr[i + 2] != ']') {
            i += 2;
            if (p.ptr[i] == '\\' && i + 1 < p.len)
                i++;
            high = (unsigned char)p.ptr[i];
        }
        found |= low <= byte && byte <= high;
    }
    (*at)++;
    return byte == '[';
}

/* One element of the pattern, not a star, against a byte. */
static bool match_one(struct kld_str p, size_t *at, char byte)
{
    switch (p.ptr[*at]) {
    case '?': (*at)++; return true;
    case '[': return match_set(p, at, (unsigned char)byte);
    case '\\':
        if (*at + 1 < p.len)
            (*at)++;
        break;
    default: break;
    }
    return p.ptr[(*at)++] == byte;
}

/* When an element does not match, only the latest star needs to take one byte more: an earlier
 * one taking more could not help. So there is nothing to recurse into. */
static bool match_general(struct kld_str p, struct kld_str text)
{
    size_t at = 0, i = 0, star = SIZE_MAX, star_text = 0;
    while (i < text.len) {
        if (at < p.len && p.ptr[at] == '*') {
            star = ++at;
            star_text = i;
            if (star == p.len)
                return true;
            continue;
        }
        if (at < p.len && match_one(p, &at, text.ptr[i])) {
            i++;
            continue;
        }
        if (star == SIZE_MAX)
            return false;
        at = star;
        i = ++star_text;
    }
    while (at < p.len && p.ptr[at] == '*')
        at++;
    return at == p.len;
}

bool kld_glob_match(const struct kld_glob *glob, struct kld_str text)
{
    switch (glob->kind) {
    case KLD_GLOB_ANY: return true;
    case KLD_GLOB_EXACT: return kld_str_eq(glob->text, text);
    case KLD_GLOB_PREFIX:
        return text.len >= glob->text.len &&
               (!glob->text.len || memcmp(text.ptr, glob->text.ptr, glob->text.len) == 0);
    default: return match_general(glob->text, text);
    }
}
