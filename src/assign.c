/* assign.c - names that options and scripts bring in.
 *
 * They belong to the internal file, which comes first on the command line: a symbol assignment
 * overrides a definition in an object, as in GNU ld, and what an expression mentions is a
 * reference that pulls in archive members. */
#include "src/assign.h"
#include "src/resolve.h"

void kld_assign_add(struct kld_session *ctx, struct kld_str name, const struct kld_expr *expr,
                    bool provide, bool hidden)
{
    *kld_vec_push(&ctx->arena, &ctx->assigns) =
        (struct kld_assign){.name = name, .expr = expr, .provide = provide, .hidden = hidden};
}

void kld_builtin_name(struct kld_session *ctx, struct kld_str name, uint8_t class)
{
    *kld_vec_push(&ctx->arena, &ctx->builtins) = (struct kld_builtin){name, class};
}

static void add_list(struct kld_session *ctx, const kld_text_list *list, uint8_t class)
{
    for (size_t i = 0; i < list->len; i++)
        kld_builtin_name(ctx, kld_str(list->data[i]), class);
}

static void visit_symbol(void *context, struct kld_str name, bool needed)
{
    if (!kld_str_is(name, "."))
        kld_builtin_name(context, name, needed ? KLD_NAME_UNDEF : KLD_NAME_UNDEF_WEAK);
}

static void parse_defsyms(struct kld_session *ctx)
{
    for (size_t i = 0; i < ctx->options.defsym.len; i++) {
        const char *text = ctx->options.defsym.data[i], *error = NULL;
        struct kld_str name;
        const struct kld_expr *expr;
        if (kld_expr_parse_defsym(&ctx->arena, kld_str(text), &name, &expr, &error))
            kld_assign_add(ctx, name, expr, false, false);
        else
            kld_error(ctx, "bad-option", NULL, "--defsym: %s in '%s'", error, text);
    }
}

static bool is_symbol_name(const char *text)
{
    return text && !(text[0] >= '0' && text[0] <= '9');
}

void kld_builtin_names(struct kld_session *ctx)
{
    parse_defsyms(ctx);
    for (size_t i = 0; i < ctx->assigns.len; i++) {
        const struct kld_assign *a = &ctx->assigns.data[i];
        kld_builtin_name(ctx, a->name, a->provide ? KLD_NAME_IGNORED : KLD_NAME_DEF);
        if (a->expr)
            kld_expr_each_symbol(a->expr, visit_symbol, ctx);
    }
    add_list(ctx, &ctx->options.undefined, KLD_NAME_UNDEF);
    add_list(ctx, &ctx->options.require_defined, KLD_NAME_UNDEF);
    if (is_symbol_name(ctx->options.entry))
        kld_builtin_name(ctx, kld_str(ctx->options.entry), KLD_NAME_UNDEF);
}

/* ---- after binding ---- */

void kld_symbol_define(struct kld_session *ctx, struct kld_symbol *sym)
{
    sym->file = ctx->internal;
    sym->kind = KLD_SYM_ABSOLUTE;
    sym->value = 0;
    sym->size = 0;
    sym->type = KLD_TYPE_NONE;
    sym->weak = false;
    sym->version = 0;
    sym->in_section = false;
}

static bool is_defined(const struct kld_symbol *sym)
{
    return sym && (sym->kind == KLD_SYM_DEFINED || sym->kind == KLD_SYM_ABSOLUTE);
}

static void bind_one(struct kld_session *ctx, struct kld_assign *a)
{
    struct kld_str base;
    uint64_t addend;
    struct kld_symbol *sym = kld_symbol_find(ctx, a->name);
    if (!sym || (a->provide && (is_defined(sym) || sym->kind == KLD_SYM_COMMON ||
                                !kld_symbol_has(sym, KLD_SYM_REF_REGULAR))))
        return;
    a->sym = sym;
    kld_symbol_define(ctx, sym);
    if (a->hidden)
        atomic_store(&sym->visibility, KLD_VISIBILITY_HIDDEN);
    bool offset = kld_expr_as_offset(a->expr, &base, &addend);
    if (offset && !base.ptr) {
        sym->value = addend;
        a->done = true;
        return;
    }
    const struct kld_symbol *target = offset ? kld_symbol_find(ctx, base) : NULL;
    if (target && target != sym && is_defined(target) && !target->synthetic) {
        sym->kind = target->kind;
        sym->atom = target->atom;
        sym->in_section = target->in_section;
        sym->type = target->type;
        sym->size = target->size;
        sym->value = target->value + addend;
        a->done = true;
        return;
    }
    /* Its value comes later; it moves with the image, as all that is not a plain number does. */
    sym->kind = KLD_SYM_DEFINED;
    sym->in_section = true;
    sym->section = ctx->format->anchor(ctx);
}

void kld_assign_bind(struct kld_session *ctx)
{
    for (size_t i = 0; i < ctx->assigns.len; i++)
        if (ctx->assigns.data[i].name.len)
            bind_one(ctx, &ctx->assigns.data[i]);
    for (size_t i = 0; i < ctx->options.require_defined.len; i++) {
        const char *name = ctx->options.require_defined.data[i];
        const struct kld_symbol *sym = kld_symbol_find(ctx, kld_str(name));
        if (!is_defined(sym) &&
            !(sym && (sym->kind == KLD_SYM_COMMON || sym->kind == KLD_SYM_IMPORTED)))
            kld_error(ctx, "undefined-symbol", &(struct kld_where){.symbol = name},
                      "required symbol '%s' not defined", name);
    }
}

static bool look_up(void *context, struct kld_str name, struct kld_expr_value *value)
{
    struct kld_session *ctx = context;
    const struct kld_symbol *sym = kld_symbol_find(ctx, name);
    if (!is_defined(sym))
        return false;
    value->value = ctx->format->symbol_address(ctx, sym);
    value->base = sym->kind == KLD_SYM_DEFINED ? ctx->format->anchor(ctx) : NULL;
    return true;
}

static void evaluate(struct kld_session *ctx, struct kld_assign *a)
{
    struct kld_expr_value value;
    struct kld_expr_error error;
    if (!kld_expr_eval(a->expr, look_up, ctx, &value, &error)) {
        kld_error(ctx, "bad-expression", NULL, "%.*s: %s%s%.*s", KLD_FMT(a->name), error.text,
                  error.symbol.len ? ": " : "", KLD_FMT(error.symbol));
        return;
    }
    if (!a->name.len) {
        if (!value.value)
            kld_error(ctx, "assertion", NULL, "%.*s", KLD_FMT(a->message));
    } else if (value.base) {
        a->sym->section = ctx->format->anchor(ctx);
        a->sym->value = value.value - a->sym->section->addr;
    } else {
        a->sym->kind = KLD_SYM_ABSOLUTE;
        a->sym->in_section = false;
        a->sym->value = value.value;
    }
}

void kld_assign_evaluate(struct kld_session *ctx)
{
    for (size_t i = 0; i < ctx->assigns.len; i++) {
        struct kld_assign *a = &ctx->assigns.data[i];
        if (a->sym && !a->done)
            evaluate(ctx, a);
    }
}

void kld_assign_check(struct kld_session *ctx)
{
    for (size_t i = 0; i < ctx->assigns.len; i++)
        if (!ctx->assigns.data[i].name.len)
            evaluate(ctx, &ctx->assigns.data[i]);
}
