#include "src/glob.h"
#include "unit.h"

static bool matches(struct kld_arena *arena, const char *pattern, const char *text)
{
    struct kld_glob glob = kld_glob_compile(arena, unit_str(pattern));
    return kld_glob_match(&glob, unit_str(text));
}

#define YES(pattern, text) CHECK(matches(arena, pattern, text))
#define NO(pattern, text)  CHECK(!matches(arena, pattern, text))

static int kind_of(struct kld_arena *arena, const char *pattern)
{
    return kld_glob_compile(arena, unit_str(pattern)).kind;
}

CASE(glob_kinds)
{
    CHECK_INT(kind_of(arena, ""), KLD_GLOB_EXACT);
    CHECK_INT(kind_of(arena, "foo"), KLD_GLOB_EXACT);
    CHECK_INT(kind_of(arena, "fo\\*"), KLD_GLOB_EXACT);
    CHECK_INT(kind_of(arena, "*"), KLD_GLOB_ANY);
    CHECK_INT(kind_of(arena, "foo*"), KLD_GLOB_PREFIX);
    CHECK_INT(kind_of(arena, "f\\?o*"), KLD_GLOB_PREFIX);
    CHECK_INT(kind_of(arena, "f\\\\*"), KLD_GLOB_PREFIX);
    CHECK_INT(kind_of(arena, "foo**"), KLD_GLOB_GENERAL);
    CHECK_INT(kind_of(arena, "f?o*"), KLD_GLOB_GENERAL);
    CHECK_INT(kind_of(arena, "f?o\\*"), KLD_GLOB_GENERAL);
}

CASE(glob_exact)
{
    YES("", "");
    NO("", "a");
    YES("foo", "foo");
    NO("foo", "fooo");
    NO("foo", "fo");
    YES("a\\*b", "a*b");
    NO("a\\*b", "axb");
    YES("a\\b", "ab");
    YES("a\\", "a\\");
    YES("\\\\", "\\");
}

CASE(glob_star)
{
    YES("*", "");
    YES("foo*", "foo");
    YES("foo*", "foobar");
    NO("foo*", "fo");
    YES("*bar", "foobar");
    NO("*bar", "foobarx");
    YES("*a*b*c*", "xxaxxbxxcxx");
    NO("*a*b*c*", "xxaxxcxxbxx");
    YES("**", "");
    YES("a**b", "ab");
    YES("*ab", "aab");
    YES("*aab*", "aaab");
    YES("f?o\\*", "fxo*");
    NO("f?o\\*", "fxoo");
    YES("f\\\\*", "f\\oo");
}

CASE(glob_question_mark)
{
    YES("?", "a");
    NO("?", "");
    NO("?", "ab");
    YES("a?c", "abc");
    YES("?*", "a");
    NO("?*", "");
    YES("?", "\xff");
}

CASE(glob_sets)
{
    YES("[abc]", "b");
    NO("[abc]", "d");
    NO("[abc]", "");
    YES("[a-c]x", "bx");
    NO("[a-c]", "d");
    YES("[!a-c]", "d");
    NO("[!a-c]", "a");
    YES("[^a-c]", "d");
    NO("[^a-c]", "b");
    YES("[]a]", "]");
    YES("[!]a]", "b");
    NO("[!]a]", "]");
    YES("[a-]", "-");
    YES("[-a]", "-");
    YES("[a\\]b]", "]");
    YES("[\\a-\\c]", "b");
    YES("x[0-9]*[a-f]", "x1foo_e");
    YES("[a^]", "^");
    YES("[\x80-\xff]", "\xc3");
    NO("[c-a]", "b");
}

CASE(glob_open_set_is_a_bracket)
{
    YES("[abc", "[abc");
    NO("[abc", "a");
    YES("a[", "a[");
    YES("[!", "[!");
    YES("[]", "[]");
    YES("[a-", "[a-");
    YES("[\\", "[\\");
    YES("*[", "foo[");
}

CASE(glob_time_is_bounded)
{
    char *stars = unit_repeat(arena, "*a", 2000), *text = unit_repeat(arena, "a", 5000);
    YES(stars, text);
    NO(kld_arena_printf(arena, "%s*b", stars), text);
    NO(kld_arena_printf(arena, "%s*b*", unit_repeat(arena, "a*", 20)), text);
}
