#include "src/script.h"

struct parser {
    struct kld_arena *arena;
    struct kld_script *script;
    struct kld_str text;
    size_t pos;
    size_t counted; /* line is that of this position */
    uint32_t line;
};

bool kld_script_probe(struct kld_bytes bytes)
{
    for (size_t i = 0; i < KLD_MIN(bytes.len, 512u); i++) {
        uint8_t c = bytes.ptr[i];
        if (c == 0x7f || (c < ' ' && !(c >= '\t' && c <= '\r')))
            return false;
    }
    return true;
}

/* ---- tokens ---- */

static uint32_t line_of(struct parser *ps, size_t pos)
{
    for (; ps->counted < pos; ps->counted++)
        ps->line += ps->text.ptr[ps->counted] == '\n';
    return ps->line;
}

static bool fail(struct parser *ps, const char *error)
{
    if (!ps->script->error) {
        ps->script->error = error;
        ps->script->error_line = line_of(ps, ps->pos);
    }
    return false;
}

static bool fail_at_token(struct parser *ps, const char *what)
{
    size_t len = 0, left = ps->text.len - ps->pos;
    const char *p = ps->text.ptr + ps->pos;
    while (len < left && len < 40 && (unsigned char)p[len] > ' ')
        len++;
    if (!left)
        return fail(ps, kld_arena_printf(ps->arena, "%s at the end", what));
    return fail(ps, kld_arena_printf(ps->arena, "%s at '%.*s'", what, (int)len, p));
}

/* The next byte that matters, or 0 at the end. A NUL does not pass for the end. */
static char peek(struct parser *ps)
{
    if (!kld_expr_skip_blanks(ps->text, &ps->pos)) {
        fail(ps, "comment is not closed");
        ps->pos = ps->text.len;
    }
    if (ps->pos >= ps->text.len)
        return 0;
    char c = ps->text.ptr[ps->pos];
    return c ? c : 1;
}

static bool accept(struct parser *ps, char c)
{
    if (peek(ps) != c)
        return false;
    ps->pos++;
    return true;
}

static bool expect(struct parser *ps, char c)
{
    return accept(ps, c) || fail_at_token(ps, kld_arena_printf(ps->arena, "expected '%c'", c));
}

static bool read_quoted(struct parser *ps, struct kld_str *word)
{
    const char *p = ps->text.ptr + ps->pos + 1;
    const char *close = memchr(p, '"', ps->text.len - ps->pos - 1);
    if (!close)
        return fail(ps, "missing closing quote");
    *word = (struct kld_str){p, (size_t)(close - p)};
    ps->pos += word->len + 2;
    return true;
}

/* A file name: anything up to a blank or to one of ",();{}" and the quote. */
static bool read_file_name(struct parser *ps, struct kld_str *word)
{
    if (peek(ps) == '"')
        return read_quoted(ps, word);
    size_t start = ps->pos;
    for (; ps->pos < ps->text.len; ps->pos++) {
        char c = ps->text.ptr[ps->pos];
        if (!c || c == ' ' || (c >= '\t' && c <= '\r') || strchr(",();{}\"", c))
            break;
        if (c == '/' && ps->pos + 1 < ps->text.len && ps->text.ptr[ps->pos + 1] == '*')
            break;
    }
    *word = (struct kld_str){ps->text.ptr + start, ps->pos - start};
    return word->len || fail_at_token(ps, "expected a name");
}

static bool is_symbol_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '$' || c == '-' || (unsigned char)c >= 0x80;
}

/* A command or symbol. May have a '-', unless that starts "-=". */
static bool read_symbol(struct parser *ps, struct kld_str *word)
{
    if (peek(ps) == '"')
        return read_quoted(ps, word) && (word->len || fail(ps, "empty name"));
    size_t start = ps->pos;
    for (; ps->pos < ps->text.len && is_symbol_byte(ps->text.ptr[ps->pos]); ps->pos++)
        if (ps->text.ptr[ps->pos] == '-' && ps->pos + 1 < ps->text.len &&
            ps->text.ptr[ps->pos + 1] == '=')
            break;
    *word = (struct kld_str){ps->text.ptr + start, ps->pos - start};
    return word->len || fail_at_token(ps, "expected a command or symbol");
}

/* ---- commands ---- */

static struct kld_script_command *add(struct parser *ps, enum kld_script_kind kind)
{
    struct kld_script_command *c = kld_vec_push(ps->arena, &ps->script->commands);
    c->kind = kind;
    c->line = line_of(ps, ps->pos);
    return c;
}

/* "(file, -lname AS_NEEDED(file ...) ...)". AS_NEEDED may nest, to no effect. */
static bool parse_inputs(struct parser *ps)
{
    if (!expect(ps, '('))
        return false;
    for (size_t depth = 1, as_needed = 0; depth;) {
        char c = peek(ps);
        struct kld_str word;
        if (c == ')') {
            ps->pos++;
            depth--;
            as_needed -= as_needed > 0;
        } else if (c == ',') {
            ps->pos++;
        } else if (!c) {
            return fail_at_token(ps, "expected ')'");
        } else if (!read_file_name(ps, &word)) {
            return false;
        } else if (c != '"' && kld_str_is(word, "AS_NEEDED") && accept(ps, '(')) {
            depth++;
            as_needed++;
        } else {
            struct kld_script_command *input = add(ps, KLD_SCRIPT_INPUT);
            input->as_needed = as_needed > 0;
            input->is_library = kld_str_starts(word, "-l");
            input->text = input->is_library ? kld_str_from(word, 2) : word;
            if (!input->text.len)
                return fail(ps, "expected a name");
        }
    }
    return true;
}

static bool parse_input(struct parser *ps, uint8_t kind)
{
    if (kind == KLD_SCRIPT_INPUT)
        return parse_inputs(ps);
    add(ps, KLD_SCRIPT_GROUP_BEGIN);
    if (!parse_inputs(ps))
        return false;
    add(ps, KLD_SCRIPT_GROUP_END);
    return true;
}

/* "(word)" */
static bool parse_word(struct parser *ps, uint8_t kind)
{
    struct kld_str word;
    if (!expect(ps, '(') || !read_file_name(ps, &word))
        return false;
    add(ps, kind)->text = word;
    return expect(ps, ')');
}

static bool parse_output_format(struct parser *ps, uint8_t kind)
{
    struct kld_str word[3] = {0};
    if (!expect(ps, '(') || !read_file_name(ps, &word[0]))
        return false;
    if (accept(ps, ',') &&
        (!read_file_name(ps, &word[1]) || !expect(ps, ',') || !read_file_name(ps, &word[2])))
        return false;
    struct kld_script_command *c = add(ps, kind);
    c->text = word[0];
    c->endian[0] = word[1];
    c->endian[1] = word[2];
    return expect(ps, ')');
}

/* "(symbol, symbol symbol)" */
static bool parse_extern(struct parser *ps, uint8_t kind)
{
    if (!expect(ps, '('))
        return false;
    while (!accept(ps, ')')) {
        struct kld_str word;
        if (accept(ps, ','))
            continue;
        if (!read_file_name(ps, &word))
            return false;
        add(ps, kind)->text = word;
    }
    return true;
}

/* "{ ... }": kept as text, whose meaning is up to the format. */
static bool parse_version(struct parser *ps, uint8_t kind)
{
    if (!expect(ps, '{'))
        return false;
    size_t start = ps->pos;
    struct kld_script_command *c = add(ps, kind);
    for (size_t depth = 1; depth;) {
        struct kld_str ignored;
        switch (peek(ps)) {
        case 0: return fail_at_token(ps, "expected '}'");
        case '"':
            if (!read_quoted(ps, &ignored))
                return false;
            continue;
        case '{': depth++; break;
        case '}': depth--; break;
        default: break;
        }
        ps->pos++;
    }
    c->text = (struct kld_str){ps->text.ptr + start, ps->pos - 1 - start};
    return true;
}

static const struct kld_expr *parse_expr(struct parser *ps)
{
    const char *error;
    const struct kld_expr *e = kld_expr_parse(ps->arena, ps->text, &ps->pos, &error);
    if (!e)
        fail(ps, error);
    return e;
}

static bool parse_assert(struct parser *ps, uint8_t kind)
{
    if (!expect(ps, '('))
        return false;
    struct kld_script_command *c = add(ps, kind);
    c->expr = parse_expr(ps);
    if (!c->expr || !expect(ps, ','))
        return false;
    if (peek(ps) != '"')
        return fail_at_token(ps, "expected a quoted message");
    return read_quoted(ps, &c->text) && expect(ps, ')');
}

static const struct {
    char text[4];
    uint8_t op;
} assignments[] = {
    {"=", 0},
    {"+=", KLD_EXPR_ADD},
    {"-=", KLD_EXPR_SUB},
    {"*=", KLD_EXPR_MUL},
    {"/=", KLD_EXPR_DIV},
    {"<<=", KLD_EXPR_SHL},
    {">>=", KLD_EXPR_SHR},
    {"&=", KLD_EXPR_AND},
    {"|=", KLD_EXPR_OR},
    {"^=", KLD_EXPR_XOR},
};

/* "= expression" or "+= expression" and so on; false without an error if there is neither. */
static bool parse_assignment(struct parser *ps, struct kld_str name, bool provide, bool hidden)
{
    peek(ps);
    struct kld_str rest = kld_str_from(ps->text, ps->pos);
    for (size_t i = 0; i < KLD_COUNT(assignments); i++) {
        if (!kld_str_starts(rest, assignments[i].text))
            continue;
        if (kld_str_is(name, "."))
            return fail(ps, "full linker scripts are not supported yet: assignment to '.'");
        struct kld_script_command *c = add(ps, KLD_SCRIPT_ASSIGN);
        ps->pos += strlen(assignments[i].text);
        c->text = name;
        c->provide = provide;
        c->hidden = hidden;
        c->expr = parse_expr(ps);
        if (c->expr && assignments[i].op) {
            const struct kld_expr *old = kld_expr_symbol(ps->arena, name);
            c->expr = kld_expr_binary(ps->arena, assignments[i].op, old, c->expr);
            if (!c->expr)
                fail(ps, "expression is too complex");
        }
        return c->expr;
    }
    return false;
}

static bool parse_provided(struct parser *ps, bool provide, bool hidden)
{
    struct kld_str name;
    if (!expect(ps, '(') || !read_symbol(ps, &name))
        return false;
    if (!parse_assignment(ps, name, provide, hidden))
        return fail_at_token(ps, "expected an assignment");
    return expect(ps, ')');
}

static bool parse_provide(struct parser *ps, KLD_UNUSED uint8_t kind)
{
    return parse_provided(ps, true, false);
}

static bool parse_provide_hidden(struct parser *ps, KLD_UNUSED uint8_t kind)
{
    return parse_provided(ps, true, true);
}

static bool parse_hidden(struct parser *ps, KLD_UNUSED uint8_t kind)
{
    return parse_provided(ps, false, true);
}

static const struct {
    const char *name;
    bool (*parse)(struct parser *, uint8_t kind); /* NULL: not supported */
    uint8_t kind;
} commands[] = {
    {"ASSERT", parse_assert, KLD_SCRIPT_ASSERT},
    {"ENTRY", parse_word, KLD_SCRIPT_ENTRY},
    {"EXTERN", parse_extern, KLD_SCRIPT_EXTERN},
    {"FORCE_COMMON_ALLOCATION", NULL, 0},
    {"FORCE_GROUP_ALLOCATION", NULL, 0},
    {"GROUP", parse_input, KLD_SCRIPT_GROUP_BEGIN},
    {"HIDDEN", parse_hidden, 0},
    {"INCLUDE", NULL, 0},
    {"INHIBIT_COMMON_ALLOCATION", NULL, 0},
    {"INPUT", parse_input, KLD_SCRIPT_INPUT},
    {"INSERT", NULL, 0},
    {"LD_FEATURE", NULL, 0},
    {"MEMORY", NULL, 0},
    {"NOCROSSREFS", NULL, 0},
    {"NOCROSSREFS_TO", NULL, 0},
    {"OUTPUT", parse_word, KLD_SCRIPT_OUTPUT},
    {"OUTPUT_ARCH", parse_word, KLD_SCRIPT_OUTPUT_ARCH},
    {"OUTPUT_FORMAT", parse_output_format, KLD_SCRIPT_OUTPUT_FORMAT},
    {"OVERLAY", NULL, 0},
    {"PHDRS", NULL, 0},
    {"PROVIDE", parse_provide, 0},
    {"PROVIDE_HIDDEN", parse_provide_hidden, 0},
    {"REGION_ALIAS", NULL, 0},
    {"SEARCH_DIR", parse_word, KLD_SCRIPT_SEARCH_DIR},
    {"SECTIONS", NULL, 0},
    {"STARTUP", parse_word, KLD_SCRIPT_STARTUP},
    {"TARGET", parse_word, KLD_SCRIPT_TARGET},
    {"VERSION", parse_version, KLD_SCRIPT_VERSION},
};

/* A command has a parenthesis or brace behind its name; else the name is a symbol's. */
static bool parse_command(struct parser *ps)
{
    size_t start = ps->pos;
    struct kld_str name;
    if (!read_symbol(ps, &name))
        return false;
    if (parse_assignment(ps, name, false, false)) {
        if (accept(ps, ';') || accept(ps, ',') || !peek(ps))
            return !ps->script->error;
        return fail_at_token(ps, "expected ';'");
    }
    if (ps->script->error)
        return false;
    for (size_t i = 0; i < KLD_COUNT(commands); i++) {
        if (!kld_str_is(name, commands[i].name))
            continue;
        if (commands[i].parse)
            return commands[i].parse(ps, commands[i].kind);
        return fail(ps, kld_arena_printf(ps->arena, "full linker scripts are not supported yet: %s",
                                         commands[i].name));
    }
    ps->pos = start;
    return fail_at_token(ps, "unknown command");
}

bool kld_script_parse(struct kld_arena *arena, struct kld_bytes bytes, struct kld_script *script)
{
    *script = (struct kld_script){0};
    struct parser ps = {
        .arena = arena,
        .script = script,
        .text = {(const char *)bytes.ptr, bytes.len},
        .line = 1,
    };
    while (peek(&ps))
        if (!accept(&ps, ';') && !parse_command(&ps))
            break;
    return !script->error;
}
