#include "driver/table.h"
#include <string.h>

/* N("a", "b") makes one macro argument of several names. */
#define N(...)                                                                                     \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define KLD_OPT(names, value, action, option, argument, help)                                      \
    {names, value, KLD_DO_##action, false, option, argument, help},
#define KLD_Z(names, value, action, option, argument, help)                                        \
    {names, value, KLD_DO_##action, true, option, argument, help},
#define KLD_GROUP(title) {N(NULL), NULL, KLD_DO_GROUP, false, NULL, NULL, title},

const struct kld_option kld_gnu_options[] = {
#include "driver/gnu.def"
};
const size_t kld_gnu_option_count = sizeof(kld_gnu_options) / sizeof(kld_gnu_options[0]);

enum kld_arity kld_option_arity(const struct kld_option *row)
{
    if (!row->value_name)
        return KLD_TAKES_NONE;
    return row->value_name[0] == '[' ? KLD_MAY_TAKE_VALUE : KLD_TAKES_VALUE;
}

const struct kld_option *kld_option_short(char letter)
{
    for (size_t i = 0; i < kld_gnu_option_count; i++) {
        const struct kld_option *row = &kld_gnu_options[i];
        for (const char *const *name = row->names; !row->z && *name; name++)
            if ((*name)[0] == letter && !(*name)[1])
                return row;
    }
    return NULL;
}

/* Whether the name in the table stands for the one that was given. */
static bool matches(const char *name, const char *given, size_t length)
{
    if (name[0] != given[0] || !name[1])
        return false;
    size_t n = strlen(name);
    if (name[n - 1] == '*')
        return length >= n - 1 && memcmp(name, given, n - 1) == 0;
    return length == n && memcmp(name, given, n) == 0;
}

const struct kld_option *kld_option_long(const char *name, size_t length, bool z)
{
    for (size_t i = 0; length && i < kld_gnu_option_count; i++) {
        const struct kld_option *row = &kld_gnu_options[i];
        for (const char *const *known = row->names; row->z == z && *known; known++)
            if (matches(*known, name, length))
                return row;
    }
    return NULL;
}

const struct kld_option *kld_option_abbreviated(const char *name, size_t length)
{
    const struct kld_option *found = NULL;
    for (size_t i = 0; length > 1 && i < kld_gnu_option_count; i++) {
        const struct kld_option *row = &kld_gnu_options[i];
        for (const char *const *known = row->names; !row->z && *known; known++) {
            if (strncmp(*known, name, length) != 0)
                continue;
            if (found && found != row)
                return NULL;
            found = row;
        }
    }
    return found;
}

enum { LONGEST = 40 };

/* How many letters must be put in, taken out or replaced to make b of a; both at most LONGEST. */
static size_t distance(const char *a, size_t na, const char *b, size_t nb)
{
    size_t row[LONGEST + 1];
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            size_t changed = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replaced < changed ? replaced : changed;
        }
    }
    return row[nb];
}

const char *kld_option_near(const char *name, size_t length)
{
    if (length < 4 || length > LONGEST)
        return NULL;
    const char *best = NULL;
    size_t least = 3;
    for (size_t i = 0; i < kld_gnu_option_count; i++) {
        const struct kld_option *row = &kld_gnu_options[i];
        if (row->z || row->action == KLD_DO_UNSUPPORTED)
            continue;
        for (const char *const *known = row->names; *known; known++) {
            size_t n = strlen(*known);
            if (n < 2 || n > LONGEST || n + 2 < length || length + 2 < n)
                continue;
            size_t d = distance(name, length, *known, n);
            if (d < least) {
                least = d;
                best = *known;
            }
        }
    }
    return best;
}
