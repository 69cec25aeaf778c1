#include "src/script.h"
#include "unit.h"

static const char *const kinds[] = {
    "INPUT",       "GROUP(", ")",     "STARTUP", "SEARCH_DIR", "OUTPUT", "OUTPUT_FORMAT",
    "OUTPUT_ARCH", "TARGET", "ENTRY", "EXTERN",  "VERSION",    "ASSIGN", "ASSERT",
};

static const char *join(struct kld_arena *arena, const char *all, const char *more)
{
    return kld_arena_printf(arena, "%s%s%s", all, *all ? " " : "", more);
}

/* All commands on one line, or the error. */
static const char *parse(struct kld_arena *arena, const char *text)
{
    struct kld_script script;
    if (!kld_script_parse(arena, unit_bytes(text, strlen(text)), &script))
        return kld_arena_printf(arena, "%u: %s", script.error_line, script.error);
    const char *all = "";
    for (size_t i = 0; i < script.commands.len; i++) {
        const struct kld_script_command *c = &script.commands.data[i];
        const char *one = kld_arena_printf(
            arena, "%s%s%s%s%s%.*s", c->kind == KLD_SCRIPT_INPUT ? "" : kinds[c->kind],
            c->as_needed ? "?" : "", c->provide ? "?" : "", c->hidden ? "-" : "",
            c->is_library                                ? "-l"
            : c->text.ptr && c->kind != KLD_SCRIPT_INPUT ? ":"
                                                         : "",
            KLD_FMT(c->text));
        all = join(arena, all, one);
    }
    return all;
}

#define IS(text, expected) CHECK_TEXT(parse(arena, text), expected)

CASE(script_libc)
{
    IS("/* GNU ld script\n   Use the shared library. */\nOUTPUT_FORMAT(elf64-x86-64)\n"
       "GROUP ( /lib/libc.so.6 /usr/lib/libc_nonshared.a  AS_NEEDED ( /lib64/ld.so.2 ) )\n",
       "OUTPUT_FORMAT:elf64-x86-64 GROUP( /lib/libc.so.6 /usr/lib/libc_nonshared.a ?/lib64/ld.so.2 "
       ")");
}

CASE(script_inputs)
{
    IS("INPUT(a.o b.o)", "a.o b.o");
    IS("INPUT(a.o,b.o , c.o)", "a.o b.o c.o");
    IS("INPUT(-lm -l:libx.so.1 \"-lfoo bar\" \"a b.o\")", "-lm -l:libx.so.1 -lfoo bar a b.o");
    IS("INPUT(=/lib/x.o $SYSROOT/y[1].o ../a+b~c:d@e.o)",
       "=/lib/x.o $SYSROOT/y[1].o ../a+b~c:d@e.o");
    IS("INPUT(a/**/b)", "a b");
    IS("INPUT(AS_NEEDED(a AS_NEEDED(b) c) d)", "?a ?b ?c d");
    IS("INPUT(AS_NEEDED b)", "AS_NEEDED b");
    IS("INPUT()", "");
    IS("GROUP(-lgcc)GROUP(x)INPUT(y);;", "GROUP( -lgcc ) GROUP( x ) y");
}

CASE(script_other_commands)
{
    IS("ENTRY(_start)", "ENTRY:_start");
    IS("SEARCH_DIR(/a) SEARCH_DIR(\"=/b c\");", "SEARCH_DIR:/a SEARCH_DIR:=/b c");
    IS("OUTPUT(a.out) STARTUP(crt.o) TARGET(binary) OUTPUT_ARCH(i386:x86-64)",
       "OUTPUT:a.out STARTUP:crt.o TARGET:binary OUTPUT_ARCH:i386:x86-64");
    IS("EXTERN(a, b c)", "EXTERN:a EXTERN:b EXTERN:c");
    struct kld_script script;
    const char *text = "OUTPUT_FORMAT(\"little\", \"big\", little)";
    CHECK(kld_script_parse(arena, unit_bytes(text, strlen(text)), &script));
    CHECK_STR(script.commands.data[0].text, "little");
    CHECK_STR(script.commands.data[0].endian[0], "big");
    CHECK_STR(script.commands.data[0].endian[1], "little");
}

CASE(script_assignments)
{
    IS("a = 1;", "ASSIGN:a");
    IS("a=b;c=d", "ASSIGN:a ASSIGN:c");
    IS("a = 1, b = 2;", "ASSIGN:a ASSIGN:b");
    IS("\"a b\" = 1; a-b = 2;", "ASSIGN:a b ASSIGN:a-b");
    IS("a-=1; a += 1; a *= 2; a /= 2; a <<= 1; a >>= 1; a &= 1; a |= 1; a ^= 1;",
       "ASSIGN:a ASSIGN:a ASSIGN:a ASSIGN:a ASSIGN:a ASSIGN:a ASSIGN:a ASSIGN:a ASSIGN:a");
    IS("PROVIDE(a = 1); PROVIDE_HIDDEN(b = a + 1) HIDDEN(c = 2);",
       "ASSIGN?:a ASSIGN?-:b ASSIGN-:c");
    IS("SECTIONS = 1;", "ASSIGN:SECTIONS");
}

static bool lookup(KLD_UNUSED void *context, KLD_UNUSED struct kld_str name,
                   struct kld_expr_value *value)
{
    value->value = 100;
    return true;
}

static uint64_t value_of(struct kld_arena *arena, const char *text)
{
    struct kld_script script;
    struct kld_expr_value value = {0};
    struct kld_expr_error error;
    if (kld_script_parse(arena, unit_bytes(text, strlen(text)), &script))
        kld_expr_eval(script.commands.data[0].expr, lookup, NULL, &value, &error);
    return value.value;
}

CASE(script_assigned_values)
{
    CHECK_INT(value_of(arena, "a = 3 + 4;"), 7);
    CHECK_INT(value_of(arena, "a += 3;"), 103);
    CHECK_INT(value_of(arena, "a-=3;"), 97);
    CHECK_INT(value_of(arena, "a <<= 1;"), 200);
    CHECK_INT(value_of(arena, "ASSERT(a == 100, \"no\")"), 1);
}

CASE(script_assert)
{
    IS("ASSERT(a < 2, \"a is too large\");", "ASSERT:a is too large");
    IS("ASSERT(1)", "1: expected ',' at ')'");
    IS("ASSERT(1, a)", "1: expected a quoted message at 'a)'");
}

CASE(script_version)
{
    IS("VERSION { V1 { global: \"a}\"; /* } */ # }\n b; }; } INPUT(x)",
       "VERSION: V1 { global: \"a}\"; /* } */ # }\n b; };  x");
    IS("VERSION { V1 {", "1: expected '}' at the end");
    IS("VERSION { \"", "1: missing closing quote");
    IS("VERSION(x)", "1: expected '{' at '(x)'");
    struct kld_script script;
    const char *text = "\n\nVERSION\n{ x; }";
    CHECK(kld_script_parse(arena, unit_bytes(text, strlen(text)), &script));
    CHECK_INT(script.commands.data[0].line, 4);
}

CASE(script_full_scripts_are_refused)
{
    IS("ENTRY(x)\nSECTIONS { .text : { *(.text) } }",
       "2: full linker scripts are not supported yet: SECTIONS");
    IS("MEMORY { }", "1: full linker scripts are not supported yet: MEMORY");
    IS("\n\n\nPHDRS { }", "4: full linker scripts are not supported yet: PHDRS");
    IS("INCLUDE foo.ld", "1: full linker scripts are not supported yet: INCLUDE");
    IS(". = 5;", "1: full linker scripts are not supported yet: assignment to '.'");
    IS(". += 5;", "1: full linker scripts are not supported yet: assignment to '.'");
}

CASE(script_errors)
{
    IS("hello world", "1: unknown command at 'hello'");
    IS("\n}", "2: expected a command or symbol at '}'");
    IS("INPUT", "1: expected '(' at the end");
    IS("INPUT(a.o\n", "2: expected ')' at the end");
    IS("INPUT(a.o;b.o)", "1: expected a name at ';b.o)'");
    IS("INPUT(\"\")", "1: expected a name");
    IS("INPUT(-l)", "1: expected a name");
    IS("INPUT(\"a.o)", "1: missing closing quote");
    IS("ENTRY()", "1: expected a name at ')'");
    IS("ENTRY(a b)", "1: expected ')' at 'b)'");
    IS("OUTPUT_FORMAT(a,b)", "1: expected ',' at ')'");
    IS("EXTERN(a", "1: expected a name at the end");
    IS("PROVIDE(a)", "1: expected an assignment at ')'");
    IS("PROVIDE(a = 1", "1: expected ')' at the end");
    IS("a = ;", "1: unexpected ';' in expression");
    IS("a = 1 b = 2;", "1: expected ';' at 'b'");
    IS("a == 1;", "1: unexpected '=' in expression");
    IS("\"\" = 1;", "1: empty name");
    IS("/* open", "1: comment is not closed");
    IS("INPUT(a /* open", "1: comment is not closed");
    IS("a = 1 /* open", "1: comment is not closed");
    IS("a = 1\n + \n *;", "3: unexpected '*' in expression");
    IS("a", "1: unknown command at 'a'");
    IS("(", "1: expected a command or symbol at '('");
}

CASE(script_nul_is_not_the_end)
{
    struct kld_script script;
    CHECK(!kld_script_parse(arena, unit_bytes("INPUT(a)\0INPUT(b)", 17), &script));
    CHECK(!kld_script_parse(arena, unit_bytes("INPUT(a\0)", 9), &script));
    CHECK(!kld_script_parse(arena, unit_bytes("VERSION {\0", 10), &script));
    CHECK(!kld_script_parse(arena, unit_bytes("a = 1\0;", 7), &script));
}

CASE(script_deep)
{
    enum { DEPTH = 100000 };
    struct kld_script script;
    const char *text =
        kld_arena_printf(arena, "INPUT(%sx%s)", unit_repeat(arena, "AS_NEEDED(", DEPTH),
                         unit_repeat(arena, ")", DEPTH));
    CHECK(kld_script_parse(arena, unit_bytes(text, strlen(text)), &script));
    CHECK(script.commands.data[0].as_needed);
    text = kld_arena_printf(arena, "VERSION %s%s", unit_repeat(arena, "{", DEPTH),
                            unit_repeat(arena, "}", DEPTH));
    CHECK(kld_script_parse(arena, unit_bytes(text, strlen(text)), &script));
    text = kld_arena_printf(arena, "a = %s;", unit_repeat(arena, "(", DEPTH));
    CHECK(!kld_script_parse(arena, unit_bytes(text, strlen(text)), &script));
}

CASE(script_cut_anywhere)
{
    const char *text = "/* c */ OUTPUT_FORMAT(a,b,c) GROUP(\"x\" -ly AS_NEEDED(z)) # c\n"
                       "PROVIDE_HIDDEN(a = DEFINED(b) ? 1 : MAX(2, 0x3)); ASSERT(a, \"b\")\n"
                       "VERSION { V1 { x; }; } EXTERN(a, b) a <<= 1;";
    struct kld_script script;
    CHECK(kld_script_parse(arena, unit_bytes(text, strlen(text)), &script));
    for (size_t len = 0; len < strlen(text); len++)
        kld_script_parse(arena, unit_bytes(text, len), &script);
}

CASE(script_probe)
{
    CHECK(kld_script_probe(unit_bytes("/* \xc3\xa4 */\r\n\f\tINPUT(x)", 20)));
    CHECK(kld_script_probe(unit_bytes("", 0)));
    CHECK(!kld_script_probe(unit_bytes("a\0b", 3)));
    CHECK(!kld_script_probe(unit_bytes("\x7f"
                                       "ELF",
                                       4)));
}
