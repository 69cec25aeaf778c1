#include "src/expr.h"

enum { MAX_HEIGHT = 1000, MAX_NESTING = 200 };

struct parser {
    struct kld_arena *arena;
    struct kld_str text;
    size_t pos;
    unsigned nesting;
    const char *error;
};

/* ---- the tree ---- */

static const struct kld_expr *no_arg(void)
{
    static const struct kld_expr none = {.op = KLD_EXPR_NUMBER};
    return &none;
}

static const struct kld_expr *new_node(struct kld_arena *arena, enum kld_expr_op op,
                                       const struct kld_expr *a, const struct kld_expr *b,
                                       const struct kld_expr *c)
{
    unsigned height = KLD_MAX(a->height, KLD_MAX(b->height, c->height)) + 1u;
    if (height > MAX_HEIGHT)
        return NULL;
    struct kld_expr *e = KLD_NEW(arena, struct kld_expr);
    *e = (struct kld_expr){.op = op, .height = (uint16_t)height, .args = {a, b, c}};
    return e;
}

const struct kld_expr *kld_expr_binary(struct kld_arena *arena, enum kld_expr_op op,
                                       const struct kld_expr *a, const struct kld_expr *b)
{
    return new_node(arena, op, a, b, no_arg());
}

const struct kld_expr *kld_expr_symbol(struct kld_arena *arena, struct kld_str name)
{
    struct kld_expr *e = KLD_NEW(arena, struct kld_expr);
    *e = (struct kld_expr){.op = KLD_EXPR_SYMBOL, .name = name};
    return e;
}

/* ---- tokens ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.' || c == '$' ||
           (unsigned char)c >= 0x80;
}

static bool is_name(char c)
{
    return is_name_start(c) || is_digit(c);
}

bool kld_expr_skip_blanks(struct kld_str text, size_t *pos)
{
    while (*pos < text.len) {
        const char *p = text.ptr + *pos, *end = text.ptr + text.len;
        if (*p == ' ' || (*p >= '\t' && *p <= '\r')) {
            (*pos)++;
        } else if (*p == '#') {
            const char *newline = memchr(p, '\n', (size_t)(end - p));
            *pos = newline ? (size_t)(newline - text.ptr) : text.len;
        } else if (*p == '/' && end - p > 1 && p[1] == '*') {
            size_t close = *pos + 3;
            while (close < text.len && !(text.ptr[close] == '/' && text.ptr[close - 1] == '*'))
                close++;
            if (close >= text.len)
                return false;
            *pos = close + 1;
        } else {
            break;
        }
    }
    return true;
}

/* The next byte that matters, or 0 at the end. */
static char peek(struct parser *ps)
{
    if (!kld_expr_skip_blanks(ps->text, &ps->pos)) {
        if (!ps->error)
            ps->error = "comment is not closed";
        return 0;
    }
    return ps->pos < ps->text.len ? ps->text.ptr[ps->pos] : 0;
}

static const struct kld_expr *fail(struct parser *ps, const char *error)
{
    if (!ps->error)
        ps->error = error;
    return NULL;
}

static bool accept(struct parser *ps, char c)
{
    if (peek(ps) != c)
        return false;
    ps->pos++;
    return true;
}

static struct kld_str read_word(struct parser *ps)
{
    size_t start = ps->pos;
    while (ps->pos < ps->text.len && is_name(ps->text.ptr[ps->pos]))
        ps->pos++;
    return (struct kld_str){ps->text.ptr + start, ps->pos - start};
}

static int digit_value(char c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* "12", "0x1f", "017", "4K", "2M", "1fh", "17o", "11b", "12d". */
static const struct kld_expr *parse_number(struct parser *ps)
{
    size_t start = ps->pos;
    struct kld_str word = read_word(ps);
    unsigned base = 10;
    uint64_t scale = 1;
    char last = word.ptr[word.len - 1] | 0x20;
    if (word.len > 2 && word.ptr[0] == '0' && (word.ptr[1] | 0x20) == 'x') {
        base = 16;
        word = kld_str_from(word, 2);
    } else if (last == 'h' || last == 'o' || last == 'b' || last == 'd') {
        base = last == 'h' ? 16 : last == 'o' ? 8 : last == 'b' ? 2 : 10;
        word.len--;
        last = 0;
    } else if (word.ptr[0] == '0' && word.len > 1) {
        base = 8;
    }
    if (last == 'k' || last == 'm') {
        scale = last == 'k' ? 1 << 10 : 1 << 20;
        word.len--;
    }
    uint64_t value = 0;
    bool bad = !word.len, large = false;
    for (size_t i = 0; i < word.len; i++) {
        unsigned digit = (unsigned)digit_value(word.ptr[i]);
        bad |= digit >= base;
        large |= __builtin_mul_overflow(value, (uint64_t)base, &value);
        large |= __builtin_add_overflow(value, (uint64_t)digit, &value);
    }
    large |= __builtin_mul_overflow(value, scale, &value);
    if (bad || large) {
        ps->pos = start;
        return fail(ps, bad ? "malformed number" : "number too large");
    }
    struct kld_expr *e = KLD_NEW(ps->arena, struct kld_expr);
    *e = (struct kld_expr){.op = KLD_EXPR_NUMBER, .number = value};
    return e;
}

/* ---- grammar ---- */

static const struct kld_expr *parse_cond(struct parser *ps);

static const struct kld_expr *check_height(struct parser *ps, const struct kld_expr *e)
{
    return e ? e : fail(ps, "expression is too complex");
}

struct function {
    const char *name;
    uint8_t op;
    uint8_t min_args, max_args;
};

static const struct function functions[] = {
    {"ABSOLUTE", KLD_EXPR_ABSOLUTE, 1, 1}, {"ALIGN", KLD_EXPR_ALIGN, 1, 2},
    {"LOG2CEIL", KLD_EXPR_LOG2CEIL, 1, 1}, {"MAX", KLD_EXPR_MAX, 2, 2},
    {"MIN", KLD_EXPR_MIN, 2, 2},
};

static const struct kld_expr *parse_defined(struct parser *ps)
{
    struct kld_str name;
    if (accept(ps, '"')) {
        const char *p = ps->text.ptr + ps->pos;
        const char *close = memchr(p, '"', ps->text.len - ps->pos);
        if (!close)
            return fail(ps, "missing closing quote");
        name = (struct kld_str){p, (size_t)(close - p)};
        ps->pos += name.len + 1;
    } else if (is_name_start(peek(ps))) {
        name = read_word(ps);
    } else {
        return fail(ps, "a symbol is missing in DEFINED()");
    }
    if (!accept(ps, ')'))
        return fail(ps, "missing ')'");
    struct kld_expr *e = KLD_NEW(ps->arena, struct kld_expr);
    *e = (struct kld_expr){.op = KLD_EXPR_DEFINED, .name = name};
    return e;
}

/* Behind "NAME(". */
static const struct kld_expr *parse_call(struct parser *ps, struct kld_str name)
{
    if (kld_str_is(name, "DEFINED"))
        return parse_defined(ps);
    const struct function *f = functions;
    while (f < functions + KLD_COUNT(functions) && !kld_str_is(name, f->name))
        f++;
    if (f == functions + KLD_COUNT(functions))
        return fail(ps, kld_arena_printf(ps->arena, "%.*s() is not supported yet",
                                         (int)KLD_MIN(name.len, 64), name.ptr));
    const struct kld_expr *args[2] = {no_arg(), no_arg()};
    unsigned count = 0;
    do {
        if (count == f->max_args)
            return fail(ps, kld_arena_printf(ps->arena, "too many operands of %s()", f->name));
        args[count] = parse_cond(ps);
        if (!args[count++])
            return NULL;
    } while (accept(ps, ','));
    if (!accept(ps, ')'))
        return fail(ps, "missing ')'");
    if (count < f->min_args)
        return fail(ps, kld_arena_printf(ps->arena, "too few operands of %s()", f->name));
    if (f->op == KLD_EXPR_ALIGN && count == 1) { /* ALIGN(n) is ALIGN(., n) */
        args[1] = args[0];
        args[0] = kld_expr_symbol(ps->arena, KLD_STR("."));
    }
    return check_height(ps, new_node(ps->arena, f->op, args[0], args[1], no_arg()));
}

static const struct kld_expr *parse_primary(struct parser *ps)
{
    char c = peek(ps);
    if (is_digit(c))
        return parse_number(ps);
    if (is_name_start(c)) {
        struct kld_str name = read_word(ps);
        size_t after = ps->pos;
        if (accept(ps, '('))
            return parse_call(ps, name);
        ps->pos = after;
        return kld_expr_symbol(ps->arena, name);
    }
    if (c == '"') {
        const char *p = ps->text.ptr + ++ps->pos;
        const char *close = memchr(p, '"', ps->text.len - ps->pos);
        if (!close)
            return fail(ps, "missing closing quote");
        ps->pos += (size_t)(close - p) + 1;
        return kld_expr_symbol(ps->arena, (struct kld_str){p, (size_t)(close - p)});
    }
    if (c == '(') {
        ps->pos++;
        const struct kld_expr *e = parse_cond(ps);
        if (e && !accept(ps, ')'))
            return fail(ps, "missing ')'");
        return e;
    }
    if (!c)
        return fail(ps, "expression ends too early");
    return fail(ps, kld_arena_printf(ps->arena, "unexpected '%c' in expression",
                                     c >= ' ' && c < 0x7f ? c : '?'));
}

static const struct kld_expr *parse_unary(struct parser *ps)
{
    enum kld_expr_op op;
    switch (peek(ps)) {
    case '-': op = KLD_EXPR_NEG; break;
    case '!': op = KLD_EXPR_NOT; break;
    case '~': op = KLD_EXPR_COMPLEMENT; break;
    case '+': op = KLD_EXPR_NUMBER; break;
    default: return parse_primary(ps);
    }
    ps->pos++;
    if (++ps->nesting > MAX_NESTING)
        return fail(ps, "expression is nested too deeply");
    const struct kld_expr *e = parse_unary(ps);
    ps->nesting--;
    if (!e || op == KLD_EXPR_NUMBER)
        return e;
    return check_height(ps, new_node(ps->arena, op, e, no_arg(), no_arg()));
}

struct binary_op {
    char text[3];
    uint8_t op;
    uint8_t level; /* a higher one binds tighter */
};

/* Those of two bytes come first. */
static const struct binary_op operators[] = {
    {"||", KLD_EXPR_OROR, 1}, {"&&", KLD_EXPR_ANDAND, 2}, {"==", KLD_EXPR_EQ, 6},
    {"!=", KLD_EXPR_NE, 6},   {"<=", KLD_EXPR_LE, 7},     {">=", KLD_EXPR_GE, 7},
    {"<<", KLD_EXPR_SHL, 8},  {">>", KLD_EXPR_SHR, 8},    {"|", KLD_EXPR_OR, 3},
    {"^", KLD_EXPR_XOR, 4},   {"&", KLD_EXPR_AND, 5},     {"<", KLD_EXPR_LT, 7},
    {">", KLD_EXPR_GT, 7},    {"+", KLD_EXPR_ADD, 9},     {"-", KLD_EXPR_SUB, 9},
    {"*", KLD_EXPR_MUL, 10},  {"/", KLD_EXPR_DIV, 10},    {"%", KLD_EXPR_MOD, 10},
};

static const struct binary_op *peek_operator(struct parser *ps)
{
    char c = peek(ps);
    if (!c)
        return NULL;
    char next = ps->pos + 1 < ps->text.len ? ps->text.ptr[ps->pos + 1] : 0;
    for (size_t i = 0; i < KLD_COUNT(operators); i++) {
        const struct binary_op *o = &operators[i];
        if (o->text[0] == c && (!o->text[1] || o->text[1] == next))
            return o;
    }
    return NULL;
}

/* Operators of at least this level. */
static const struct kld_expr *parse_binary(struct parser *ps, unsigned level)
{
    const struct kld_expr *left = parse_unary(ps);
    while (left) {
        const struct binary_op *o = peek_operator(ps);
        if (!o || o->level < level)
            return left;
        ps->pos += strlen(o->text);
        const struct kld_expr *right = parse_binary(ps, o->level + 1u);
        if (!right)
            return NULL;
        left = check_height(ps, kld_expr_binary(ps->arena, o->op, left, right));
    }
    return NULL;
}

static const struct kld_expr *parse_cond(struct parser *ps)
{
    if (++ps->nesting > MAX_NESTING)
        return fail(ps, "expression is nested too deeply");
    const struct kld_expr *e = parse_binary(ps, 1);
    if (e && accept(ps, '?')) {
        const struct kld_expr *yes = parse_cond(ps);
        if (!yes)
            return NULL;
        if (!accept(ps, ':'))
            return fail(ps, "missing ':' after '?'");
        const struct kld_expr *no = parse_cond(ps);
        if (!no)
            return NULL;
        e = check_height(ps, new_node(ps->arena, KLD_EXPR_COND, e, yes, no));
    }
    ps->nesting--;
    return e;
}

const struct kld_expr *kld_expr_parse(struct kld_arena *arena, struct kld_str text, size_t *pos,
                                      const char **error)
{
    struct parser ps = {.arena = arena, .text = text, .pos = *pos};
    const struct kld_expr *e = parse_cond(&ps);
    if (e)
        peek(&ps);
    *pos = ps.pos;
    *error = ps.error;
    return ps.error ? NULL : e;
}

bool kld_expr_parse_defsym(struct kld_arena *arena, struct kld_str text, struct kld_str *name,
                           const struct kld_expr **expr, const char **error)
{
    const char *equals = text.len ? memchr(text.ptr, '=', text.len) : NULL;
    struct kld_str left = {text.ptr, equals ? (size_t)(equals - text.ptr) : 0};
    while (left.len && left.ptr[0] == ' ')
        left = kld_str_from(left, 1);
    while (left.len && left.ptr[left.len - 1] == ' ')
        left.len--;
    if (left.len > 1 && left.ptr[0] == '"' && left.ptr[left.len - 1] == '"')
        left = (struct kld_str){left.ptr + 1, left.len - 2};
    if (!left.len) {
        *error = "expected NAME=EXPRESSION";
        return false;
    }
    *name = left;
    size_t pos = (size_t)(equals - text.ptr) + 1;
    *expr = kld_expr_parse(arena, text, &pos, error);
    if (!*expr)
        return false;
    if (pos < text.len) {
        *error = kld_arena_printf(arena, "unexpected '%.*s' behind the expression",
                                  (int)KLD_MIN(text.len - pos, 20), text.ptr + pos);
        return false;
    }
    return true;
}

/* ---- values ---- */

struct evaluation {
    kld_expr_lookup *lookup;
    void *context;
    struct kld_expr_error *error;
};

static bool fail_eval(struct evaluation *ev, const char *text, struct kld_str symbol)
{
    *ev->error = (struct kld_expr_error){text, symbol};
    return false;
}

static uint64_t align_to(uint64_t value, uint64_t align)
{
    if (align <= 1)
        return value;
    uint64_t over = value % align;
    return over ? value + (align - over) : value;
}

/* Signed, as in GNU ld; the one overflowing quotient wraps instead of trapping. */
static bool divide(struct evaluation *ev, bool remainder, uint64_t a, uint64_t b, uint64_t *value)
{
    if (!b)
        return fail_eval(ev, "division by zero", (struct kld_str){0});
    if (b == UINT64_MAX)
        *value = remainder ? 0 : 0 - a;
    else
        *value = (uint64_t)(remainder ? (int64_t)a % (int64_t)b : (int64_t)a / (int64_t)b);
    return true;
}

static bool eval(struct evaluation *ev, const struct kld_expr *e, struct kld_expr_value *out);

/* Operators whose second operand may not matter. */
static bool eval_lazy(struct evaluation *ev, const struct kld_expr *e, struct kld_expr_value *out)
{
    struct kld_expr_value first;
    if (!eval(ev, e->args[0], &first))
        return false;
    if (e->op == KLD_EXPR_COND)
        return eval(ev, e->args[first.value ? 1 : 2], out);
    bool result = first.value != 0;
    if (result == (e->op == KLD_EXPR_ANDAND)) {
        if (!eval(ev, e->args[1], &first))
            return false;
        result = first.value != 0;
    }
    *out = (struct kld_expr_value){.value = result};
    return true;
}

static bool eval_binary(struct evaluation *ev, const struct kld_expr *e, struct kld_expr_value *out)
{
    struct kld_expr_value l, r;
    if (!eval(ev, e->args[0], &l) || !eval(ev, e->args[1], &r))
        return false;
    uint64_t a = l.value, b = r.value, v = 0;
    const void *base = NULL;
    switch (e->op) {
    case KLD_EXPR_ADD:
        v = a + b;
        base = !r.base ? l.base : !l.base ? r.base : NULL;
        break;
    case KLD_EXPR_SUB:
        v = a - b;
        base = !r.base ? l.base : NULL;
        break;
    case KLD_EXPR_MUL: v = a * b; break;
    case KLD_EXPR_DIV:
    case KLD_EXPR_MOD:
        if (!divide(ev, e->op == KLD_EXPR_MOD, a, b, &v))
            return false;
        break;
    case KLD_EXPR_SHL: v = b < 64 ? a << b : 0; break;
    case KLD_EXPR_SHR: v = b < 64 ? a >> b : 0; break;
    case KLD_EXPR_LT: v = a < b; break;
    case KLD_EXPR_LE: v = a <= b; break;
    case KLD_EXPR_GT: v = a > b; break;
    case KLD_EXPR_GE: v = a >= b; break;
    case KLD_EXPR_EQ: v = a == b; break;
    case KLD_EXPR_NE: v = a != b; break;
    case KLD_EXPR_AND: v = a & b; break;
    case KLD_EXPR_XOR: v = a ^ b; break;
    case KLD_EXPR_OR: v = a | b; break;
    case KLD_EXPR_ALIGN:
        v = align_to(a, b);
        base = l.base;
        break;
    default: /* MAX, MIN */
        v = (e->op == KLD_EXPR_MAX) == (a > b) ? a : b;
        base = l.base == r.base ? l.base : NULL;
        break;
    }
    *out = (struct kld_expr_value){v, base};
    return true;
}

static bool eval_unary(struct evaluation *ev, const struct kld_expr *e, struct kld_expr_value *out)
{
    struct kld_expr_value arg;
    if (!eval(ev, e->args[0], &arg))
        return false;
    uint64_t v = arg.value;
    switch (e->op) {
    case KLD_EXPR_NEG: v = 0 - v; break;
    case KLD_EXPR_NOT: v = !v; break;
    case KLD_EXPR_COMPLEMENT: v = ~v; break;
    case KLD_EXPR_LOG2CEIL: v = v > 1 ? kld_log2(v - 1) + 1 : 0; break;
    default: break; /* ABSOLUTE */
    }
    *out = (struct kld_expr_value){.value = v};
    return true;
}

/* Recurses as deep as the tree is high, which the parser limits. */
static bool eval(struct evaluation *ev, const struct kld_expr *e, struct kld_expr_value *out)
{
    switch (e->op) {
    case KLD_EXPR_NUMBER: *out = (struct kld_expr_value){.value = e->number}; return true;
    case KLD_EXPR_SYMBOL:
        *out = (struct kld_expr_value){0};
        if (!ev->lookup || !ev->lookup(ev->context, e->name, out))
            return fail_eval(ev, "undefined symbol", e->name);
        return true;
    case KLD_EXPR_DEFINED:
        if (!ev->lookup) /* no constant */
            return fail_eval(ev, "undefined symbol", e->name);
        out->value = ev->lookup(ev->context, e->name, &(struct kld_expr_value){0});
        out->base = NULL;
        return true;
    case KLD_EXPR_NEG:
    case KLD_EXPR_NOT:
    case KLD_EXPR_COMPLEMENT:
    case KLD_EXPR_ABSOLUTE:
    case KLD_EXPR_LOG2CEIL: return eval_unary(ev, e, out);
    case KLD_EXPR_ANDAND:
    case KLD_EXPR_OROR:
    case KLD_EXPR_COND: return eval_lazy(ev, e, out);
    default: return eval_binary(ev, e, out);
    }
}

bool kld_expr_eval(const struct kld_expr *expr, kld_expr_lookup *lookup, void *context,
                   struct kld_expr_value *value, struct kld_expr_error *error)
{
    *error = (struct kld_expr_error){0};
    struct evaluation ev = {lookup, context, error};
    return eval(&ev, expr, value);
}

bool kld_expr_as_offset(const struct kld_expr *e, struct kld_str *symbol, uint64_t *addend)
{
    *symbol = (struct kld_str){0};
    *addend = 0;
    if (e->op == KLD_EXPR_SYMBOL) {
        *symbol = e->name;
        return true;
    }
    if (e->op == KLD_EXPR_ADD || e->op == KLD_EXPR_SUB) {
        struct kld_str other;
        uint64_t number;
        if (!kld_expr_as_offset(e->args[0], symbol, addend) ||
            !kld_expr_as_offset(e->args[1], &other, &number))
            return false;
        if (other.ptr && (symbol->ptr || e->op == KLD_EXPR_SUB))
            return false;
        if (other.ptr)
            *symbol = other;
        *addend = e->op == KLD_EXPR_ADD ? *addend + number : *addend - number;
        return true;
    }
    struct kld_expr_value value;
    struct kld_expr_error error;
    if (!kld_expr_eval(e, NULL, NULL, &value, &error))
        return false;
    *addend = value.value;
    return true;
}

void kld_expr_each_symbol(const struct kld_expr *e, kld_expr_visit *visit, void *context)
{
    switch (e->op) {
    case KLD_EXPR_NUMBER: break;
    case KLD_EXPR_SYMBOL:
    case KLD_EXPR_DEFINED: visit(context, e->name, e->op == KLD_EXPR_SYMBOL); break;
    default:
        for (int i = 0; i < 3; i++)
            kld_expr_each_symbol(e->args[i], visit, context);
    }
}
