#include "formats/elf/elf_version_script.h"
#include "unit.h"

static struct elf_version_script script_of(struct kld_arena *arena, const char *text)
{
    struct elf_version_script script = {0};
    elf_version_script_parse(arena, &script, unit_str(text), 1, ELF_VERSION_SCRIPT);
    return script;
}

static const char *error_of(struct kld_arena *arena, const char *text,
                            enum elf_version_syntax syntax)
{
    struct elf_version_script script = {0};
    if (elf_version_script_parse(arena, &script, unit_str(text), 1, syntax))
        return NULL;
    return kld_arena_printf(arena, "%u: %s", script.error_line, script.error);
}

/* The node's name, "local", "global" for the anonymous node, or "none". */
static const char *ask(struct kld_arena *arena, const struct elf_version_script *script,
                       const char *name)
{
    struct kld_demangler demangler = {.arena = arena};
    const struct elf_version_patterns *patterns = elf_version_patterns_compile(arena, script);
    struct elf_version_match m = elf_version_lookup(patterns, &demangler, unit_str(name));
    if (m.scope != ELF_VERSION_GLOBAL)
        return m.scope == ELF_VERSION_NONE ? "none" : "local";
    struct kld_str node = script->nodes.data[m.node].name;
    return node.len ? kld_arena_strndup(arena, node.ptr, node.len) : "global";
}

static const char *version_of(struct kld_arena *arena, const char *text, const char *name)
{
    struct elf_version_script script = script_of(arena, text);
    return script.error ? script.error : ask(arena, &script, name);
}

#define IS(text, name, expected) CHECK_TEXT(version_of(arena, text, name), expected)
#define FAILS(text, expected)    CHECK_TEXT(error_of(arena, text, ELF_VERSION_SCRIPT), expected)

CASE(version_script_nodes)
{
    struct elf_version_script s =
        script_of(arena, "V1 { global: a; local: *; };\nV2{b;}V1;\nV3 { } V1 V2; ");
    CHECK_TEXT(s.error, NULL);
    CHECK_INT(s.nodes.len, 3);
    CHECK_STR(s.nodes.data[1].name, "V2");
    CHECK_INT(s.nodes.data[1].line, 2);
    CHECK_INT(s.nodes.data[1].parents.len, 1);
    CHECK_INT(s.nodes.data[1].parents.data[0], 0);
    CHECK_INT(s.nodes.data[2].parents.len, 2);
    CHECK_INT(s.nodes.data[2].parents.data[1], 1);
    CHECK_INT(s.patterns.len, 3);
    CHECK(s.patterns.data[1].local && !s.patterns.data[2].local);
    CHECK_INT(s.patterns.data[2].node, 1);
    CHECK_INT(s.patterns.data[2].line, 2);
    CHECK_INT(elf_version_number(&s, 2), 4);
}

CASE(version_script_anonymous)
{
    const char *text = "# exports\n{ global: foo; /* bar; */ local: *; };";
    IS(text, "foo", "global");
    IS(text, "bar", "local");
    struct elf_version_script s = script_of(arena, text);
    CHECK_INT(elf_version_number(&s, 0), 1);
}

CASE(version_script_lenient_syntax)
{
    IS("V1 { foo };", "foo", "V1");
    IS("V1 { local: *; global: foo; };", "foo", "V1");
    IS("V1 { global: local: *; global: ; foo; };", "foo", "V1");
    IS("V1{extern\"C\"{foo}};", "foo", "V1");
    IS("V1 { global; local; extern; };", "extern", "V1");
    IS("V1 { foo#bar\n; };", "foo", "V1");
    IS("V-1.2+x { foo; };", "foo", "V-1.2+x");
}

CASE(version_script_exact_beats_glob)
{
    IS("V1 { foo; }; V2 { fo*; };", "foo", "V1");
    IS("V1 { fo*; }; V2 { foo; };", "foo", "V2");
    IS("V1 { foo; local: fo*; *; };", "foo", "V1");
    IS("V1 { local: foo; }; V2 { fo*; };", "foo", "local");
    IS("V1 { fo*; }; V2 { local: foo; };", "foo", "local");
}

CASE(version_script_first_exact_wins)
{
    IS("V1 { foo; }; V2 { foo; };", "foo", "V1");
    IS("V1 { foo; local: foo; };", "foo", "V1");
    IS("V1 { local: foo; global: foo; };", "foo", "V1");
    IS("V1 { extern \"C++\" { foo; }; }; V2 { foo; };", "foo", "V1");
    IS("V1 { foo; }; V2 { extern \"C++\" { foo; }; };", "foo", "V1");
}

CASE(version_script_last_glob_wins)
{
    IS("V1 { foo*; }; V2 { fo*; };", "foo", "V2");
    IS("V1 { foo*; }; V2 { local: foo*; };", "foo", "V1");
    IS("V1 { local: foo*; }; V2 { fo*; };", "foo", "V2");
    IS("V1 { local: foo*; }; V2 { local: fo*; }; V3 { bar; };", "foo", "local");
}

CASE(version_script_star_is_weakest)
{
    IS("V1 { f*; }; V2 { *; };", "foo", "V1");
    IS("V1 { f*; }; V2 { *; };", "bar", "V2");
    IS("V1 { *; }; V2 { *; };", "foo", "V2");
    IS("V1 { *; local: fo*; };", "foo", "local");
    IS("V1 { *; local: **; };", "foo", "local");
    IS("V1 { *; local: *; };", "foo", "V1");
    IS("V1 { local: *; }; V2 { foo; };", "bar", "local");
    IS("V1 { extern \"C++\" { *; }; }; V2 { foo; };", "bar", "V1");
}

CASE(version_script_quoted_is_literal)
{
    IS("V1 { \"foo*\"; };", "foobar", "none");
    IS("V1 { \"foo*\"; };", "foo*", "V1");
    IS("V1 { foo\\*; };", "foo*", "V1");
    IS("V1 { \"a\\b\"; };", "a\\b", "V1");
    IS("V1 { \"*\"; };", "foo", "none");
}

CASE(version_script_cxx)
{
    const char *text = "V1 { extern \"C++\" { \"ns::f(int)\"; ns::S::*; }; local: *; };";
    IS(text, "_ZN2ns1fEi", "V1");
    IS(text, "_ZN2ns1fEl", "local");
    IS(text, "_ZN2ns1S1mEv", "V1");
    IS(text, "ns::f(int)", "V1"); /* no mangled name: taken as it is */
    IS("V1 { ns::*; };", "_ZN2ns1fEi", "none");
    IS("V1 { extern \"C++\" { ns::f; ns::g; }; };", "_ZN2ns1fEi", "none");
    IS("V1 { extern \"C++\" { ns::f; ns::g; }; };", "_ZN2ns1gE", "V1");
    IS("V1 { extern \"C++\" { extern \"C\" { _ZN2ns1fEi; }; ns::g; }; };", "_ZN2ns1fEi", "V1");
    IS("V1 { extern \"C++\" { extern \"C\" { x; }; ns::g; }; };", "_ZN2ns1gE", "V1");
}

CASE(version_script_needs_no_demangler)
{
    struct elf_version_script s = script_of(arena, "V1 { _Z*; extern \"C++\" { *; }; };");
    const struct elf_version_patterns *p = elf_version_patterns_compile(arena, &s);
    CHECK(!elf_version_needs_demangler(p));
    CHECK_INT(elf_version_lookup(p, NULL, KLD_STR("_ZN2ns1fEi")).scope, ELF_VERSION_GLOBAL);
}

CASE(version_script_errors)
{
    FAILS("", "1: no version");
    FAILS("V1", "1: expected '{' at the end");
    FAILS("V1 {", "1: expected '}' at the end");
    FAILS("V1 { foo", "1: expected ';' at the end");
    FAILS("V1 { }", "1: expected ';' at the end");
    FAILS("V1 { };\nV1 { };", "2: duplicate version 'V1'");
    FAILS("V1 { } V2; V2 { };", "1: unknown version 'V2' to depend on");
    FAILS("V1 { } V1;", "1: unknown version 'V1' to depend on");
    FAILS("{ }; V1 { };", "1: an anonymous version cannot be combined with other versions");
    FAILS("V1 { }; { };", "1: an anonymous version cannot be combined with other versions");
    FAILS("{ }; { };", "1: an anonymous version cannot be combined with other versions");
    FAILS("V1 { a b; };", "1: expected ';' at 'b;'");
    FAILS("V1 { a: b; };", "1: expected ';' at ':'");
    FAILS("V1 { :; };", "1: expected a name at ':;'");
    FAILS("V1 { extern \"D\" { x; }; };", "1: unknown language 'D'");
    FAILS("V1 { extern \"C++\" x; };", "1: expected '{' at 'x;'");
    FAILS("V1 { \"x; };", "1: missing closing quote");
    FAILS("V1 { \"\"; };", "1: empty name");
    FAILS("V1 { /* };", "1: comment is not closed");
    FAILS("V1 { { x; }; };", "1: expected a name at '{'");
    FAILS("VERSION { V1 { x; }; };", "1: expected ';' at '{'");
    FAILS("\n\n};", "3: expected a name at '};'");
    FAILS("V1 { extern \"C++\" { local: x; }; };", "1: expected ';' at ':'");
}

CASE(version_script_nesting_is_limited)
{
    char *text = kld_arena_printf(arena, "V1 {%s", unit_repeat(arena, "extern \"C++\" {", 100000));
    FAILS(text, "1: extern blocks are nested too deeply");
    FAILS(unit_repeat(arena, "{", 100000),
          kld_arena_printf(arena, "1: expected a name at '%s'", unit_repeat(arena, "{", 40)));
}

CASE(version_script_nul_is_not_the_end)
{
    struct elf_version_script script = {0};
    struct kld_str text = {(const char *)unit_bytes("V1 { a; };\0V2 {};", 17).ptr, 17};
    CHECK(!elf_version_script_parse(arena, &script, text, 1, ELF_VERSION_SCRIPT));
}

CASE(version_script_too_many_versions)
{
    KLD_VEC(char) text = {0};
    for (int i = 0; i < 40000; i++) {
        char one[20];
        int len = snprintf(one, sizeof(one), "V%d{};", i);
        for (int k = 0; k < len; k++)
            *kld_vec_push(arena, &text) = one[k];
    }
    struct elf_version_script script = {0};
    CHECK(!elf_version_script_parse(arena, &script, (struct kld_str){text.data, text.len}, 1,
                                    ELF_VERSION_SCRIPT));
    CHECK_TEXT(script.error, "too many versions");
}

CASE(version_script_cut_anywhere)
{
    const char *text = "V1 { global: foo; ba*; extern \"C++\" { \"ns::f(int)\"; ns::*; }; # c\n"
                       "local: /* c */ *; }; V2 { x; } V1;";
    CHECK_TEXT(error_of(arena, text, ELF_VERSION_SCRIPT), NULL);
    for (size_t len = 0; len < strlen(text); len++) {
        struct elf_version_script script = {0};
        struct kld_str part = {(const char *)unit_bytes(text, len).ptr, len};
        elf_version_script_parse(arena, &script, part, 1, ELF_VERSION_SCRIPT);
        elf_version_patterns_compile(arena, &script);
    }
}

CASE(version_script_several_texts)
{
    struct elf_version_script s = {0};
    CHECK(elf_version_script_parse(arena, &s, KLD_STR("V1 { a; };"), 1, ELF_VERSION_SCRIPT));
    CHECK(elf_version_script_parse(arena, &s, KLD_STR("V2 { b; } V1;"), 1, ELF_VERSION_SCRIPT));
    CHECK_TEXT(ask(arena, &s, "b"), "V2");
    CHECK(!elf_version_script_parse(arena, &s, KLD_STR("\nV1 { };"), 10, ELF_VERSION_SCRIPT));
    CHECK_INT(s.error_line, 11);
}

CASE(version_script_many_names)
{
    enum { COUNT = 100000 };
    struct elf_version_script script = {0};
    char *text = kld_arena_alloc(arena, COUNT * 16 + 100, 1);
    size_t len = (size_t)sprintf(text, "V1 { global: ");
    for (int i = 0; i < COUNT; i++)
        len += (size_t)sprintf(text + len, "name%d;", i);
    len += (size_t)sprintf(text + len, "local: *; };");
    CHECK(elf_version_script_parse(arena, &script, (struct kld_str){text, len}, 1,
                                   ELF_VERSION_SCRIPT));
    const struct elf_version_patterns *patterns = elf_version_patterns_compile(arena, &script);
    for (int i = 0; i < 2 * COUNT; i++) {
        char name[20];
        sprintf(name, "name%d", i);
        struct elf_version_match m = elf_version_lookup(patterns, NULL, kld_str(name));
        if (m.scope != (i < COUNT ? ELF_VERSION_GLOBAL : ELF_VERSION_LOCAL))
            CHECK(!"scope of a name");
    }
}

CASE(dynamic_list)
{
    struct elf_version_script s = {0};
    const char *text = "{ foo; bar*; extern \"C++\" { \"ns::f(int)\"; }; }; { \"baz*\"; };";
    CHECK(elf_version_script_parse(arena, &s, unit_str(text), 1, ELF_DYNAMIC_LIST));
    CHECK(elf_version_script_parse(arena, &s, KLD_STR("{ more; };"), 1, ELF_DYNAMIC_LIST));
    elf_dynamic_list_add(arena, &s, KLD_STR("from_opt*"), false);
    CHECK_INT(s.nodes.len, 1);
    CHECK_TEXT(ask(arena, &s, "foo"), "global");
    CHECK_TEXT(ask(arena, &s, "bar1"), "global");
    CHECK_TEXT(ask(arena, &s, "_ZN2ns1fEi"), "global");
    CHECK_TEXT(ask(arena, &s, "baz1"), "none");
    CHECK_TEXT(ask(arena, &s, "baz*"), "global");
    CHECK_TEXT(ask(arena, &s, "more"), "global");
    CHECK_TEXT(ask(arena, &s, "from_option"), "global");
    CHECK_TEXT(ask(arena, &s, "other"), "none");
}

CASE(dynamic_list_from_options_alone)
{
    struct elf_version_script s = {0};
    elf_dynamic_list_add(arena, &s, KLD_STR("foo"), false);
    CHECK_TEXT(ask(arena, &s, "foo"), "global");
}

CASE(dynamic_list_errors)
{
    CHECK_TEXT(error_of(arena, "", ELF_DYNAMIC_LIST), "1: empty dynamic list");
    CHECK_TEXT(error_of(arena, "V1 { foo; };", ELF_DYNAMIC_LIST), "1: expected '{' at 'V1'");
    CHECK_TEXT(error_of(arena, "{ global: foo; };", ELF_DYNAMIC_LIST),
               "1: a dynamic list has no scopes");
    CHECK_TEXT(error_of(arena, "{ foo; } V1;", ELF_DYNAMIC_LIST), "1: expected ';' at 'V1;'");
}
