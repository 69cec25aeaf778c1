#include "formats/elf/elf_version_script.h"
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "src/expr.h"

/* A version number has 15 bits, and 0 and 1 are taken. */
enum { MAX_NODES = 0x7ffd };

/* ---- a table of names ---- */

struct name_entry {
    struct kld_str name;
    uint32_t value;
    bool cxx;
    bool used;
};

struct elf_version_names {
    struct name_entry *entries;
    size_t count, mask; /* mask + 1 entries */
};

static void names_init(struct elf_version_names *names, struct kld_arena *arena, size_t expected)
{
    size_t size = 16;
    while (size < expected * 2)
        size *= 2;
    names->entries = KLD_NEW_ARRAY(arena, struct name_entry, size);
    names->count = 0;
    names->mask = size - 1;
}

/* The entry of that name, or the free one where it would be. */
static struct name_entry *names_find(const struct elf_version_names *names, struct kld_str name,
                                     bool cxx)
{
    size_t at = XXH3_64bits_withSeed(name.ptr, name.len, cxx) & names->mask;
    while (names->entries[at].used &&
           !(names->entries[at].cxx == cxx && kld_str_eq(names->entries[at].name, name)))
        at = (at + 1) & names->mask;
    return &names->entries[at];
}

/* Adds a name unless it is there; if it is, the smaller value stays. */
static void names_add(struct elf_version_names *names, struct kld_arena *arena, struct kld_str name,
                      bool cxx, uint32_t value)
{
    if (names->count * 2 > names->mask) {
        struct elf_version_names old = *names;
        names_init(names, arena, old.count * 2);
        for (size_t i = 0; i <= old.mask; i++)
            if (old.entries[i].used)
                *names_find(names, old.entries[i].name, old.entries[i].cxx) = old.entries[i];
        names->count = old.count;
    }
    struct name_entry *entry = names_find(names, name, cxx);
    if (!entry->used) {
        *entry = (struct name_entry){name, value, cxx, true};
        names->count++;
    } else if (value < entry->value) {
        entry->value = value;
    }
}

/* ---- parser ---- */

struct parser {
    struct kld_arena *arena;
    struct elf_version_script *script;
    enum elf_version_syntax syntax;
    struct kld_str text;
    size_t pos;
    size_t counted; /* line is that of this position */
    uint32_t line;
};

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

static const char *clip(struct parser *ps, struct kld_str s)
{
    return kld_arena_strndup(ps->arena, s.ptr, KLD_MIN(s.len, 200u));
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

/* A quoted text, or anything up to a blank or one of ";{}#" and the quote. A colon ends a word too
 * unless it is one of two: "global:" but "ns::f". */
static bool read_word(struct parser *ps, struct kld_str *word, bool *quoted)
{
    *quoted = peek(ps) == '"';
    const char *text = ps->text.ptr;
    if (*quoted) {
        const char *p = text + ps->pos + 1;
        const char *close = memchr(p, '"', ps->text.len - ps->pos - 1);
        if (!close)
            return fail(ps, "missing closing quote");
        *word = (struct kld_str){p, (size_t)(close - p)};
        ps->pos += word->len + 2;
        return word->len || fail(ps, "empty name");
    }
    size_t start = ps->pos;
    for (; ps->pos < ps->text.len; ps->pos++) {
        char c = text[ps->pos], next = ps->pos + 1 < ps->text.len ? text[ps->pos + 1] : 0;
        if (!c || c == ' ' || (c >= '\t' && c <= '\r') || strchr(";{}#\"", c))
            break;
        if (c == '/' && next == '*')
            break;
        if (c == ':') {
            if (next != ':')
                break;
            ps->pos++;
        }
    }
    *word = (struct kld_str){text + start, ps->pos - start};
    return word->len || fail_at_token(ps, "expected a name");
}

static void add_pattern(struct parser *ps, struct kld_str text, bool quoted, bool local, bool cxx)
{
    *kld_vec_push(ps->arena, &ps->script->patterns) = (struct elf_version_pattern){
        .text = text,
        .node = (uint32_t)ps->script->nodes.len - 1,
        .line = line_of(ps, ps->pos),
        .local = local,
        .cxx = cxx,
        .literal = quoted,
    };
}

/* Behind the word extern, at "LANGUAGE" {. */
static bool parse_language(struct parser *ps, bool *cxx)
{
    struct kld_str language;
    bool quoted;
    if (!read_word(ps, &language, &quoted))
        return false;
    *cxx = kld_str_is(language, "C++");
    if (!*cxx && !kld_str_is(language, "C"))
        return fail(ps, kld_arena_printf(ps->arena, "unknown language '%s'", clip(ps, language)));
    return expect(ps, '{');
}

/* What is between the braces of a node, up to and with the closing one. The languages of extern
 * blocks that are open: a bit each, which limits how deep they nest. */
static bool parse_body(struct parser *ps)
{
    bool local = false;
    uint64_t languages = 0;
    for (unsigned depth = 0;;) {
        struct kld_str word;
        bool quoted;
        if (accept(ps, ';'))
            continue;
        if (accept(ps, '}')) {
            if (!depth)
                return true;
            depth--;
            languages >>= 1;
            continue;
        }
        if (!peek(ps))
            return fail_at_token(ps, "expected '}'");
        if (!read_word(ps, &word, &quoted))
            return false;
        char next = peek(ps);
        if (!quoted && next == '"' && kld_str_is(word, "extern")) {
            bool cxx;
            if (depth == 63)
                return fail(ps, "extern blocks are nested too deeply");
            if (!parse_language(ps, &cxx))
                return false;
            depth++;
            languages = languages << 1 | cxx;
            continue;
        }
        bool is_global = kld_str_is(word, "global");
        if (!quoted && next == ':' && !depth && (is_global || kld_str_is(word, "local"))) {
            if (ps->syntax == ELF_DYNAMIC_LIST)
                return fail(ps, "a dynamic list has no scopes");
            local = !is_global;
            ps->pos++;
            continue;
        }
        add_pattern(ps, word, quoted, local, languages & 1);
        if (next != '}' && !expect(ps, ';'))
            return false;
    }
}

static uint32_t *find_node(struct parser *ps, struct kld_str name)
{
    struct name_entry *entry = names_find(ps->script->names, name, false);
    return entry->used ? &entry->value : NULL;
}

/* "NAME {", or "{" for the anonymous node. */
static bool begin_node(struct parser *ps)
{
    struct elf_version_script *script = ps->script;
    struct kld_str name = {0};
    bool quoted;
    if (ps->syntax == ELF_DYNAMIC_LIST) {
        if (script->nodes.len)
            return expect(ps, '{');
    } else {
        if (peek(ps) != '{' && !read_word(ps, &name, &quoted))
            return false;
        if (script->nodes.len && (!name.len || !script->nodes.data[0].name.len))
            return fail(ps, "an anonymous version cannot be combined with other versions");
        if (name.len && find_node(ps, name))
            return fail(ps, kld_arena_printf(ps->arena, "duplicate version '%s'", clip(ps, name)));
        if (script->nodes.len == MAX_NODES)
            return fail(ps, "too many versions");
    }
    struct elf_version_node *node = kld_vec_push(ps->arena, &script->nodes);
    node->name = name;
    node->line = line_of(ps, ps->pos);
    return expect(ps, '{');
}

/* Behind the braces: names of earlier versions, and a semicolon. */
static bool end_node(struct parser *ps)
{
    uint32_t index = (uint32_t)ps->script->nodes.len - 1;
    struct elf_version_node *node = &ps->script->nodes.data[index];
    while (ps->syntax == ELF_VERSION_SCRIPT && peek(ps) && peek(ps) != ';') {
        struct kld_str name;
        bool quoted;
        if (!read_word(ps, &name, &quoted))
            return false;
        uint32_t *parent = find_node(ps, name);
        if (!parent)
            return fail(ps, kld_arena_printf(ps->arena, "unknown version '%s' to depend on",
                                             clip(ps, name)));
        *kld_vec_push(ps->arena, &node->parents) = *parent;
    }
    if (node->name.len)
        names_add(ps->script->names, ps->arena, node->name, false, index);
    return expect(ps, ';');
}

bool elf_version_script_parse(struct kld_arena *arena, struct elf_version_script *script,
                              struct kld_str text, uint32_t first_line,
                              enum elf_version_syntax syntax)
{
    struct parser ps = {
        .arena = arena,
        .script = script,
        .syntax = syntax,
        .text = text,
        .line = first_line,
    };
    if (!script->names) {
        script->names = KLD_NEW(arena, struct elf_version_names);
        names_init(script->names, arena, 0);
    }
    if (!peek(&ps))
        return fail(&ps, syntax == ELF_DYNAMIC_LIST ? "empty dynamic list" : "no version");
    while (peek(&ps))
        if (!begin_node(&ps) || !parse_body(&ps) || !end_node(&ps))
            break;
    return !script->error;
}

void elf_dynamic_list_add(struct kld_arena *arena, struct elf_version_script *script,
                          struct kld_str pattern, bool cxx)
{
    if (!script->nodes.len)
        kld_vec_push(arena, &script->nodes);
    struct elf_version_pattern *p = kld_vec_push(arena, &script->patterns);
    p->text = pattern;
    p->cxx = cxx;
}

/* ---- lookup ---- */

/* A pattern that is not exact. */
struct wildcard {
    struct kld_glob glob;
    uint32_t node;
    bool cxx;
};

/* In the order in which they are tried. A list ends with the last node's patterns, and is walked
 * from there. */
enum precedence { GLOBAL_GLOB, LOCAL_GLOB, GLOBAL_ANY, LOCAL_ANY, PRECEDENCES };

struct elf_version_patterns {
    struct elf_version_names exact; /* value: 2 * node, plus 1 if local */
    bool has_exact_cxx, has_cxx;
    KLD_VEC(struct wildcard) wildcards[PRECEDENCES];
};

const struct elf_version_patterns *
elf_version_patterns_compile(struct kld_arena *arena, const struct elf_version_script *script)
{
    struct elf_version_patterns *patterns = KLD_NEW(arena, struct elf_version_patterns);
    names_init(&patterns->exact, arena, 0);
    for (size_t i = 0; i < script->patterns.len; i++) {
        const struct elf_version_pattern *p = &script->patterns.data[i];
        struct kld_glob glob = {p->text, KLD_GLOB_EXACT};
        if (!p->literal)
            glob = kld_glob_compile(arena, p->text);
        if (glob.kind == KLD_GLOB_EXACT) {
            names_add(&patterns->exact, arena, glob.text, p->cxx, 2 * p->node + p->local);
            patterns->has_exact_cxx |= p->cxx;
        } else {
            enum precedence order = glob.kind == KLD_GLOB_ANY ? GLOBAL_ANY : GLOBAL_GLOB;
            *kld_vec_push(arena, &patterns->wildcards[order + p->local]) =
                (struct wildcard){glob, p->node, p->cxx};
        }
        /* "*" is for all names, whatever the language */
        patterns->has_cxx |= p->cxx && glob.kind != KLD_GLOB_ANY;
    }
    return patterns;
}

bool elf_version_needs_demangler(const struct elf_version_patterns *patterns)
{
    return patterns->has_cxx;
}

static bool find_exact(const struct elf_version_patterns *patterns, struct kld_str name,
                       struct kld_str demangled, uint32_t *value)
{
    if (!patterns->exact.count)
        return false;
    const struct name_entry *entry = names_find(&patterns->exact, name, false);
    bool found = entry->used;
    *value = found ? entry->value : UINT32_MAX;
    if (patterns->has_exact_cxx) {
        entry = names_find(&patterns->exact, demangled, true);
        if (entry->used) {
            found = true;
            *value = KLD_MIN(*value, entry->value);
        }
    }
    return found;
}

struct elf_version_match elf_version_lookup(const struct elf_version_patterns *patterns,
                                            struct kld_demangler *demangler, struct kld_str name)
{
    struct kld_str demangled = patterns->has_cxx ? kld_demangle(demangler, name) : name;
    uint32_t value;
    if (find_exact(patterns, name, demangled, &value))
        return (struct elf_version_match){
            .scope = value & 1 ? ELF_VERSION_LOCAL : ELF_VERSION_GLOBAL,
            .node = value >> 1,
        };
    for (unsigned order = 0; order < PRECEDENCES; order++) {
        for (size_t i = patterns->wildcards[order].len; i-- > 0;) {
            const struct wildcard *w = &patterns->wildcards[order].data[i];
            if (kld_glob_match(&w->glob, w->cxx ? demangled : name))
                return (struct elf_version_match){
                    .scope = order & 1 ? ELF_VERSION_LOCAL : ELF_VERSION_GLOBAL,
                    .node = w->node,
                };
        }
    }
    return (struct elf_version_match){.scope = ELF_VERSION_NONE};
}
