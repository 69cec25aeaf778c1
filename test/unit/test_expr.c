#include "src/expr.h"
#include "unit.h"

static const char section_a[1], section_b[1];

/* a = 0x1000 and a2 = 0x1010 in one section, b = 0x2000 in another, abs = 7, . = 0x500 */
static bool lookup(KLD_UNUSED void *context, struct kld_str name, struct kld_expr_value *value)
{
    static const struct {
        const char *name;
        struct kld_expr_value value;
    } symbols[] = {
        {"a", {0x1000, section_a}}, {"a2", {0x1010, section_a}}, {"b", {0x2000, section_b}},
        {"abs", {7, NULL}},         {".", {0x500, section_a}},   {"two words", {2, NULL}},
    };
    for (size_t i = 0; i < KLD_COUNT(symbols); i++) {
        if (kld_str_is(name, symbols[i].name)) {
            *value = symbols[i].value;
            return true;
        }
    }
    return false;
}

static const struct kld_expr *parse(struct kld_arena *arena, const char *text, const char **error)
{
    size_t pos = 0;
    struct kld_str s = unit_str(text);
    const struct kld_expr *e = kld_expr_parse(arena, s, &pos, error);
    if (e && pos != s.len) {
        *error = "behind the expression";
        return NULL;
    }
    return e;
}

static const char *error_of(struct kld_arena *arena, const char *text)
{
    const char *error = NULL;
    return parse(arena, text, &error) ? NULL : error;
}

static struct kld_expr_value eval(struct kld_arena *arena, const char *text)
{
    const char *error;
    struct kld_expr_error eval_error;
    struct kld_expr_value value = {0xbad, NULL};
    const struct kld_expr *e = parse(arena, text, &error);
    if (!e)
        printf("%s: %s\n", text, error);
    else if (!kld_expr_eval(e, lookup, NULL, &value, &eval_error))
        printf("%s: %s\n", text, eval_error.text);
    return value;
}

static const char *eval_error(struct kld_arena *arena, const char *text)
{
    const char *error;
    struct kld_expr_error eval_error;
    struct kld_expr_value value;
    const struct kld_expr *e = parse(arena, text, &error);
    if (!e || kld_expr_eval(e, lookup, NULL, &value, &eval_error))
        return NULL;
    return kld_arena_printf(arena, "%s %.*s", eval_error.text, KLD_FMT(eval_error.symbol));
}

#define IS(text, expected) CHECK_INT(eval(arena, text).value, expected)

CASE(expr_numbers)
{
    IS("0", 0);
    IS("10", 10);
    IS("010", 8);
    IS("0x1F", 31);
    IS("0Xff", 255);
    IS("4K", 4096);
    IS("1M", 1048576);
    IS("0x10k", 16384);
    IS("10h", 16);
    IS("17o", 15);
    IS("11b", 3);
    IS("12d", 12);
    IS("0x1b", 27);
    IS("0x1d", 29);
    IS("18446744073709551615", UINT64_MAX);
}

CASE(expr_bad_numbers)
{
    CHECK_TEXT(error_of(arena, "18446744073709551616"), "number too large");
    CHECK_TEXT(error_of(arena, "0xfffffffffffffffffffff"), "number too large");
    CHECK_TEXT(error_of(arena, "18446744073709551615K"), "number too large");
    CHECK_TEXT(error_of(arena, "08"), "malformed number");
    CHECK_TEXT(error_of(arena, "0x"), "malformed number");
    CHECK_TEXT(error_of(arena, "0xg"), "malformed number");
    CHECK_TEXT(error_of(arena, "12b"), "malformed number");
    CHECK_TEXT(error_of(arena, "1KK"), "malformed number");
    CHECK_TEXT(error_of(arena, "1foo"), "malformed number");
}

CASE(expr_operators)
{
    IS("2+3*4", 14);
    IS("(2+3)*4", 20);
    IS("10-4-3", 3);
    IS("100/10/5", 2);
    IS("17%5", 2);
    IS("1<<4|1", 17);
    IS("0xff>>4&3", 3);
    IS("6^3", 5);
    IS("2&3==3", 0);
    IS("1|2&4", 1);
    IS("~0", UINT64_MAX);
    IS("!5", 0);
    IS("!0", 1);
    IS("- -5", 5);
    IS("+5", 5);
    IS("1==1==1", 1);
    IS("1!=2", 1);
    IS("3<=3", 1);
    IS("3>=4", 0);
    IS("3>2", 1);
    IS("2<3", 1);
    IS("1&&2", 1);
    IS("1&&0", 0);
    IS("0||2", 1);
    IS("0||0", 0);
    IS("1?2:3", 2);
    IS("0?2:0?4:5", 5);
    IS("1 ? 0 ? 1 : 2 : 3", 2);
    IS("1<<70", 0);
    IS("1>>64", 0);
}

CASE(expr_signs)
{
    IS("-8/2", -4);
    IS("-7%2", -1);
    IS("-8>>1", 0x7ffffffffffffffc);
    IS("-8<1", 0);
    IS("(-0x7fffffffffffffff-1)/-1", 0x8000000000000000);
    IS("(-0x7fffffffffffffff-1)%-1", 0);
}

CASE(expr_functions)
{
    IS("MAX(1,2)", 2);
    IS("MIN(1,2)", 1);
    IS("MAX(2,2)", 2);
    IS("ALIGN(5,4)", 8);
    IS("ALIGN(5,0)", 5);
    IS("ALIGN(9,6)", 12);
    IS("ALIGN(0x1000)", 0x1000);
    IS("ABSOLUTE(a)", 0x1000);
    IS("LOG2CEIL(0)", 0);
    IS("LOG2CEIL(1)", 0);
    IS("LOG2CEIL(1025)", 11);
    IS("LOG2CEIL(0x8000000000000001)", 64);
    IS("DEFINED(a)", 1);
    IS("DEFINED ( \"two words\" )", 1);
    IS("DEFINED(zz) ? zz : 9", 9);
    CHECK_TEXT(error_of(arena, "ADDR(.text)"), "ADDR() is not supported yet");
    CHECK_TEXT(error_of(arena, "MAX(1)"), "too few operands of MAX()");
    CHECK_TEXT(error_of(arena, "MAX(1,2,3)"), "too many operands of MAX()");
    CHECK_TEXT(error_of(arena, "DEFINED(1)"), "a symbol is missing in DEFINED()");
    CHECK_TEXT(error_of(arena, "DEFINED(\"a)"), "missing closing quote");
}

CASE(expr_blanks_and_comments)
{
    IS(" 1 /* one */ + # rest\n2\t", 3);
    IS("1/**/+/***/2/*/*/", 3);
    CHECK_TEXT(error_of(arena, "1 /* one"), "comment is not closed");
    CHECK_TEXT(error_of(arena, "1 /*/"), "comment is not closed");
}

CASE(expr_symbols)
{
    IS("a", 0x1000);
    IS("\"two words\"+1", 3);
    IS(". + 4", 0x504);
    IS("a-1", 0xfff);
    IS("b/2", 0x1000);
    CHECK_TEXT(eval_error(arena, "a + nope"), "undefined symbol nope");
}

CASE(expr_bases)
{
    CHECK(eval(arena, "a").base == section_a);
    CHECK(eval(arena, "a+4").base == section_a);
    CHECK(eval(arena, "4+a").base == section_a);
    CHECK(eval(arena, "a-4").base == section_a);
    CHECK(eval(arena, "a2-a").base == NULL);
    IS("a2-a", 0x10);
    CHECK(eval(arena, "a+b").base == NULL);
    CHECK(eval(arena, "4-a").base == NULL);
    CHECK(eval(arena, "a*1").base == NULL);
    CHECK(eval(arena, "ABSOLUTE(a)").base == NULL);
    CHECK(eval(arena, "ALIGN(a,16)").base == section_a);
    CHECK(eval(arena, "MAX(a,a2)").base == section_a);
    CHECK(eval(arena, "MAX(a,b)").base == NULL);
    CHECK(eval(arena, "0?a:b").base == section_b);
    CHECK(eval(arena, "abs").base == NULL);
}

CASE(expr_division_by_zero)
{
    CHECK_TEXT(eval_error(arena, "1/0"), "division by zero ");
    CHECK_TEXT(eval_error(arena, "1%(a-a)"), "division by zero ");
    IS("0?1/0:3", 3);
    IS("0&&1/0", 0);
    IS("1||1/0", 1);
    CHECK_TEXT(eval_error(arena, "1&&1/0"), "division by zero ");
}

CASE(expr_syntax_errors)
{
    static const char *const texts[] = {"",    "1+",   "(1",   "1)",    "1 2",      "*1", "1?2",
                                        "1?",  "1?2:", "a b",  "@",     "\"a",      "=1", "MAX(",
                                        "MAX", "1;",   "a@V1", "1 = 2", "DEFINED(", "()", "1 + + "};
    for (size_t i = 0; i < KLD_COUNT(texts); i++)
        if (strcmp(texts[i], "MAX") != 0) /* a symbol of that name */
            CHECK(error_of(arena, texts[i]));
}

CASE(expr_stops_behind_the_expression)
{
    struct kld_str s = unit_str("1 + 2 /* c */ ; x");
    size_t pos = 0;
    const char *error;
    CHECK(kld_expr_parse(arena, s, &pos, &error));
    CHECK_INT(pos, 14);
    s = unit_str("1 + ; x");
    pos = 0;
    CHECK(!kld_expr_parse(arena, s, &pos, &error));
    CHECK_INT(pos, 4);
    CHECK_TEXT(error, "unexpected ';' in expression");
}

CASE(expr_nesting_is_limited)
{
    static const char *const parts[] = {"(",    "-",      "+",  "!",   "1?",
                                        "1?2:", "MAX(1,", "~(", "1+(", "1||("};
    for (size_t i = 0; i < KLD_COUNT(parts); i++)
        CHECK_TEXT(error_of(arena, unit_repeat(arena, parts[i], 100000)),
                   "expression is nested too deeply");
    CHECK_TEXT(error_of(arena, kld_arena_printf(arena, "%s1", unit_repeat(arena, "1+", 100000))),
               "expression is too complex");
    IS(kld_arena_printf(arena, "%s1", unit_repeat(arena, "1+", 500)), 501);
    IS(kld_arena_printf(arena, "%s1%s", unit_repeat(arena, "(", 150), unit_repeat(arena, ")", 150)),
       1);
}

static const char *offset_of(struct kld_arena *arena, const char *text)
{
    const char *error;
    const struct kld_expr *e = parse(arena, text, &error);
    struct kld_str symbol;
    uint64_t addend;
    if (!e || !kld_expr_as_offset(e, &symbol, &addend))
        return NULL;
    return kld_arena_printf(arena, "%.*s%+lld", KLD_FMT(symbol), (long long)addend);
}

CASE(expr_as_offset)
{
    CHECK_TEXT(offset_of(arena, "foo"), "foo+0");
    CHECK_TEXT(offset_of(arena, "(foo)+4*2"), "foo+8");
    CHECK_TEXT(offset_of(arena, "4+foo-1"), "foo+3");
    CHECK_TEXT(offset_of(arena, "foo-4"), "foo-4");
    CHECK_TEXT(offset_of(arena, "-4"), "-4");
    CHECK_TEXT(offset_of(arena, "1?2:zz"), "+2");
    CHECK_TEXT(offset_of(arena, "foo-foo"), NULL);
    CHECK_TEXT(offset_of(arena, "4-foo"), NULL);
    CHECK_TEXT(offset_of(arena, "foo+bar"), NULL);
    CHECK_TEXT(offset_of(arena, "foo*1"), NULL);
    CHECK_TEXT(offset_of(arena, "DEFINED(foo)"), NULL);
    CHECK_TEXT(offset_of(arena, "1/0"), NULL);
}

static void visit(void *context, struct kld_str name, bool needed)
{
    char *text = context;
    strncat(text, name.ptr, name.len);
    strcat(text, needed ? "! " : "? ");
}

CASE(expr_each_symbol)
{
    char text[100] = "";
    const char *error;
    kld_expr_each_symbol(parse(arena, "DEFINED(x) ? a + -b : MAX(c, .)", &error), visit, text);
    CHECK_TEXT(text, "x? a! b! c! .! ");
}

static const char *defsym(struct kld_arena *arena, const char *text)
{
    struct kld_str name;
    const struct kld_expr *e;
    const char *error;
    if (!kld_expr_parse_defsym(arena, unit_str(text), &name, &e, &error))
        return error;
    return kld_arena_printf(arena, "[%.*s]", KLD_FMT(name));
}

CASE(expr_defsym)
{
    CHECK_TEXT(defsym(arena, "a=1"), "[a]");
    CHECK_TEXT(defsym(arena, " a = b + 1 "), "[a]");
    CHECK_TEXT(defsym(arena, "a@V1=b"), "[a@V1]");
    CHECK_TEXT(defsym(arena, "\"x y\"=1"), "[x y]");
    CHECK_TEXT(defsym(arena, "a"), "expected NAME=EXPRESSION");
    CHECK_TEXT(defsym(arena, "=1"), "expected NAME=EXPRESSION");
    CHECK_TEXT(defsym(arena, ""), "expected NAME=EXPRESSION");
    CHECK_TEXT(defsym(arena, "a="), "expression ends too early");
    CHECK_TEXT(defsym(arena, "a=1;"), "unexpected ';' behind the expression");
    CHECK_TEXT(defsym(arena, "a==1"), "unexpected '=' in expression");
}
