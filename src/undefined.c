/* undefined.c - who refers to what is not defined, and what may have been meant. */
#include "src/undefined.h"
#include <stdio.h>
#include "src/demangle.h"
#include "src/place.h"
#include "src/session.h"

enum {
    BUCKETS = 256,
    SHOWN = 3,         /* references of a symbol */
    SHORTEST_GUESS = 4 /* of two shorter names that differ in a letter none is meant */
};

struct reference {
    const struct kld_file *file;
    const struct kld_atom *atom; /* NULL: somewhere in the file */
    uint64_t offset;
};

struct undefined {
    struct undefined *next; /* in the bucket */
    struct kld_symbol *sym;
    struct reference refs[SHOWN]; /* the first ones in input order */
    uint64_t count;               /* of all */
};

struct kld_undefined {
    pthread_mutex_t lock;
    struct undefined *buckets[BUCKETS];
    size_t count;
};

void kld_undefined_init(struct kld_session *ctx)
{
    ctx->undefined = KLD_NEW(&ctx->arena, struct kld_undefined);
    pthread_mutex_init(&ctx->undefined->lock, NULL);
}

void kld_undefined_free(struct kld_session *ctx)
{
    if (ctx->undefined)
        pthread_mutex_destroy(&ctx->undefined->lock);
    ctx->undefined = NULL;
}

/* ---- noting ---- */

static bool comes_before(const struct reference *a, const struct reference *b)
{
    if (a->file != b->file)
        return a->file->index < b->file->index;
    uint32_t left = a->atom ? a->atom->input_index : 0, right = b->atom ? b->atom->input_index : 0;
    return left != right ? left < right : a->offset < b->offset;
}

static void insert(struct undefined *u, struct reference ref)
{
    size_t n = KLD_MIN(u->count, (uint64_t)SHOWN);
    size_t i = n;
    while (i > 0 && comes_before(&ref, &u->refs[i - 1]))
        i--;
    u->count++;
    if (i == SHOWN)
        return;
    size_t moved = KLD_MIN(n, (size_t)SHOWN - 1) - i;
    memmove(&u->refs[i + 1], &u->refs[i], moved * sizeof(ref));
    u->refs[i] = ref;
}

static struct undefined **bucket_of(struct kld_undefined *all, const struct kld_symbol *sym)
{
    return &all->buckets[((uintptr_t)sym / sizeof(*sym)) % BUCKETS];
}

static bool add(struct kld_undefined *all, struct kld_symbol *sym, struct reference ref,
                struct undefined *fresh)
{
    struct undefined **bucket = bucket_of(all, sym);
    pthread_mutex_lock(&all->lock);
    struct undefined *u = *bucket;
    while (u && u->sym != sym)
        u = u->next;
    if (!u && fresh) {
        u = fresh;
        u->sym = sym;
        u->next = *bucket;
        *bucket = u;
        all->count++;
    }
    if (u)
        insert(u, ref);
    pthread_mutex_unlock(&all->lock);
    return u;
}

static void note(struct kld_session *ctx, struct kld_symbol *sym, struct reference ref)
{
    /* Memory is taken outside the lock, which must be free when there is none. */
    if (!add(ctx->undefined, sym, ref, NULL))
        add(ctx->undefined, sym, ref, KLD_NEW(kld_pool_arena(ctx), struct undefined));
}

static bool is_allowed(const struct kld_session *ctx, const struct kld_symbol *sym)
{
    if (sym->weak || ctx->options.kind == KLD_KIND_RELOCATABLE)
        return true;
    switch (ctx->options.unresolved) {
    case KLD_UNRESOLVED_IGNORE_ALL:
    case KLD_UNRESOLVED_IGNORE_IN_OBJECT_FILES: return true;
    case KLD_UNRESOLVED_AUTO:
        /* A shared library may leave it to the program, but not what is not visible there. */
        return ctx->options.kind == KLD_KIND_SHARED &&
               atomic_load_explicit(&sym->visibility, memory_order_relaxed) ==
                   KLD_VISIBILITY_DEFAULT;
    default: return false;
    }
}

void kld_undefined_reference(struct kld_session *ctx, struct kld_symbol *sym,
                             const struct kld_atom *atom, uint64_t offset)
{
    if (!is_allowed(ctx, sym))
        note(ctx, sym, (struct reference){atom->file, atom, offset});
}

void kld_undefined_in_file(struct kld_session *ctx, struct kld_symbol *sym,
                           const struct kld_file *file)
{
    note(ctx, sym, (struct reference){file, NULL, 0});
}

/* ---- guessing ---- */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool differs_in_case(struct kld_str a, struct kld_str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.ptr[i]) != lower(b.ptr[i]))
            return false;
    return true;
}

/* One character more, less, another, or two swapped. */
static bool is_one_edit_away(struct kld_str a, struct kld_str b)
{
    if (a.len > b.len) {
        struct kld_str t = a;
        a = b;
        b = t;
    }
    if (b.len - a.len > 1 || b.len < SHORTEST_GUESS)
        return false;
    size_t i = 0;
    while (i < a.len && a.ptr[i] == b.ptr[i])
        i++;
    if (a.len < b.len)
        return kld_str_eq(kld_str_from(a, i), kld_str_from(b, i + 1));
    if (kld_str_eq(kld_str_from(a, i + 1), kld_str_from(b, i + 1)))
        return true;
    return i + 1 < a.len && a.ptr[i] == b.ptr[i + 1] && a.ptr[i + 1] == b.ptr[i] &&
           kld_str_eq(kld_str_from(a, i + 2), kld_str_from(b, i + 2));
}

/* The C++ function name without parameters and scope that both spellings share: "_Z3fooi" -> foo.
 * Only of plain functions: a member can not be what a C name means. */
static struct kld_str plain_name(struct kld_str name)
{
    if (!kld_str_starts(name, "_Z"))
        return (struct kld_str){0};
    size_t at = 2, len = 0;
    while (at < name.len && name.ptr[at] >= '0' && name.ptr[at] <= '9' && len < name.len)
        len = len * 10 + (size_t)(name.ptr[at++] - '0');
    if (!len || len > name.len - at)
        return (struct kld_str){0};
    return (struct kld_str){name.ptr + at, len};
}

/* What a defined name has to do with the one that is not; the smallest is the best guess. */
enum likeness { IS_CASE = 1, IS_C, IS_CXX, IS_OVERLOAD, IS_TYPO, IS_NOTHING };

static enum likeness compare(struct kld_str wanted, struct kld_str wanted_plain,
                             struct kld_str name)
{
    if (differs_in_case(wanted, name))
        return IS_CASE;
    if (wanted_plain.len && kld_str_eq(wanted_plain, name))
        return IS_C;
    if (kld_str_starts(name, "_Z") && (wanted_plain.len || !kld_str_starts(wanted, "_Z"))) {
        struct kld_str plain = plain_name(name);
        if (plain.len && kld_str_eq(plain, wanted_plain))
            return IS_OVERLOAD;
        if (plain.len && kld_str_eq(plain, wanted))
            return IS_CXX;
    }
    return is_one_edit_away(wanted, name) ? IS_TYPO : IS_NOTHING;
}

static bool is_defined(const struct kld_symbol *sym)
{
    return sym->name && sym->kind != KLD_SYM_UNDEFINED && !sym->synthetic;
}

static bool is_less(struct kld_str a, struct kld_str b)
{
    int order = memcmp(a.ptr, b.ptr, KLD_MIN(a.len, b.len));
    return order ? order < 0 : a.len < b.len;
}

/* What may have been meant. */
struct candidate {
    struct kld_str name;
    const struct kld_file *file; /* that defines it, or NULL */
    enum likeness how;
};

/* Of equals the first by name, for the order of symbols depends on a hash. */
static void consider(struct candidate *best, struct kld_str wanted, struct kld_str wanted_plain,
                     struct kld_str name, const struct kld_file *file)
{
    enum likeness like = compare(wanted, wanted_plain, name);
    if (like < best->how || (like == best->how && like != IS_NOTHING && is_less(name, best->name)))
        *best = (struct candidate){name, file, like};
}

static struct candidate guess(struct kld_session *ctx, const struct kld_symbol *sym)
{
    struct kld_str wanted = kld_symbol_name(sym), plain = plain_name(wanted);
    struct candidate best = {.how = IS_NOTHING};
    for (kld_symid id = 0; id < ctx->nsymbols; id++) {
        const struct kld_symbol *s = &ctx->symbols[id];
        if (is_defined(s) && s != sym)
            consider(&best, wanted, plain, kld_symbol_name(s), s->file);
    }
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        for (uint32_t i = 0; i < ctx->files[f]->unlisted; i++) {
            struct kld_str name = ctx->format->unlisted(ctx->files[f], i);
            if (name.ptr)
                consider(&best, wanted, plain, name, ctx->files[f]);
        }
    return best;
}

static const char *hint(struct kld_session *ctx, struct kld_arena *arena,
                        const struct kld_symbol *sym)
{
    struct kld_str name = kld_symbol_name(sym);
    if (kld_str_starts(name, "_ZTV"))
        return "\n>>> a vtable is undefined when the class's key function, its first virtual "
               "function that is not inline or pure, has no definition";
    if (kld_str_starts(name, "_ZTI"))
        return "\n>>> typeinfo is undefined when the class's key function has no definition, or "
               "is compiled with -fno-rtti";
    struct candidate meant = guess(ctx, sym);
    if (meant.how == IS_NOTHING)
        return "";
    const char *shown = kld_shown_name(ctx, arena, meant.name);
    const char *where = meant.file ? kld_arena_printf(arena, "\n>>> defined in: %s",
                                                      kld_file_label(arena, meant.file))
                                   : "";
    if (meant.how == IS_C)
        return kld_arena_printf(arena, "\n>>> did you mean: extern \"C\" %s%s", shown, where);
    if (meant.how == IS_CXX)
        return kld_arena_printf(arena, "\n>>> did you mean to declare %s as extern \"C\"?%s", shown,
                                where);
    return kld_arena_printf(arena, "\n>>> did you mean: %s%s", shown, where);
}

/* ---- reporting ---- */

static struct undefined *merge(struct undefined *a, struct undefined *b)
{
    struct undefined *first = NULL, **end = &first;
    while (a && b) {
        struct undefined **least = comes_before(&b->refs[0], &a->refs[0]) ? &b : &a;
        *end = *least;
        end = &(*least)->next;
        *least = (*least)->next;
    }
    *end = a ? a : b;
    return first;
}

static struct undefined *sort(struct undefined *list, size_t count)
{
    if (count < 2)
        return list;
    struct undefined *last = list;
    for (size_t i = 1; i < count / 2; i++)
        last = last->next;
    struct undefined *rest = last->next;
    last->next = NULL;
    return merge(sort(list, count / 2), sort(rest, count - count / 2));
}

static struct undefined *take_all(struct kld_undefined *all)
{
    struct undefined *list = NULL;
    for (size_t i = 0; i < BUCKETS; i++) {
        struct undefined **end = &all->buckets[i];
        while (*end)
            end = &(*end)->next;
        *end = list;
        list = all->buckets[i];
        all->buckets[i] = NULL;
    }
    list = sort(list, all->count);
    all->count = 0;
    return list;
}

static const char *kind_of(const struct kld_symbol *sym)
{
    switch (atomic_load_explicit(&sym->visibility, memory_order_relaxed)) {
    case KLD_VISIBILITY_INTERNAL: return "undefined internal symbol";
    case KLD_VISIBILITY_HIDDEN: return "undefined hidden symbol";
    case KLD_VISIBILITY_PROTECTED: return "undefined protected symbol";
    default: return "undefined symbol";
    }
}

static const char *compose(struct kld_session *ctx, struct kld_arena *arena,
                           const struct undefined *u)
{
    const char *text = kld_arena_printf(arena, "%s: %s", kind_of(u->sym),
                                        kld_shown_name(ctx, arena, kld_symbol_name(u->sym)));
    if (!u->refs[0].atom)
        text = kld_arena_printf(arena, "%s (--no-allow-shlib-undefined)", text);
    size_t shown = KLD_MIN(u->count, (uint64_t)SHOWN);
    for (size_t i = 0; i < shown; i++)
        text =
            kld_arena_printf(arena, "%s%s", text,
                             kld_describe_place(ctx, arena, ">>> referenced by ", u->refs[i].file,
                                                u->refs[i].atom, u->refs[i].offset));
    if (u->count > shown)
        text = kld_arena_printf(arena, "%s\n>>> referenced %llu more times", text,
                                (unsigned long long)(u->count - shown));
    return kld_arena_printf(arena, "%s%s", text, hint(ctx, arena, u->sym));
}

static void report(struct kld_session *ctx, const struct undefined *u)
{
    struct kld_arena *arena = &ctx->arena;
    const struct reference *ref = &u->refs[0];
    struct kld_where where = {
        .file = ref->file,
        .section = ref->atom ? kld_atom_label(ctx, arena, ref->atom) : NULL,
        .symbol = kld_arena_strndup(arena, u->sym->name, u->sym->name_len),
        .offset = ref->offset,
        .has_offset = ref->atom,
        .order = ref->atom ? ref->atom->input_index : 0,
        .in_text = true,
    };
    if (ctx->options.warn_unresolved || ctx->options.no_inhibit_exec)
        kld_warning(ctx, "undefined-symbol", &where, "%s", compose(ctx, arena, u));
    else
        kld_error(ctx, "undefined-symbol", &where, "%s", compose(ctx, arena, u));
}

void kld_report_undefined(struct kld_session *ctx)
{
    uint64_t limit = ctx->options.error_limit, reported = 0;
    for (struct undefined *u = take_all(ctx->undefined); u; u = u->next) {
        /* More would not be shown, and looking for what was meant takes its time. */
        if (limit && reported++ > limit)
            break;
        report(ctx, u);
    }
}

/* ---- duplicates ---- */

void kld_report_duplicate(struct kld_session *ctx, const struct kld_symbol *sym,
                          const struct kld_definition *first, const struct kld_definition *second)
{
    struct kld_arena *arena = kld_pool_arena(ctx);
    const struct kld_atom *atom = second->atom;
    struct kld_where where = {
        .file = second->file,
        .section = atom ? kld_atom_label(ctx, arena, atom) : NULL,
        .symbol = kld_arena_strndup(arena, sym->name, sym->name_len),
        .offset = second->offset,
        .has_offset = atom,
        .order = atom ? atom->input_index : 0,
        .in_text = true,
    };
    kld_error(
        ctx, "duplicate-symbol", &where, "duplicate symbol: %s%s%s",
        kld_shown_name(ctx, arena, kld_symbol_name(sym)),
        kld_describe_place(ctx, arena, ">>> defined in ", first->file, first->atom, first->offset),
        kld_describe_place(ctx, arena, ">>> defined in ", second->file, second->atom,
                           second->offset));
}
