/* fuzz_script - any bytes as a linker script; its expressions are evaluated. */
#include "src/script.h"
#include "fuzz.h"

static bool lookup(void *context, struct kld_str name, struct kld_expr_value *value)
{
    *value = (struct kld_expr_value){name.len, name.len & 1 ? context : NULL};
    return name.len < 8;
}

static void visit(void *context, KLD_UNUSED struct kld_str name, bool needed)
{
    *(unsigned *)context += needed;
}

static void fuzz_one(struct kld_arena *arena, struct kld_bytes bytes)
{
    struct kld_script script;
    unsigned count = 0;
    kld_script_probe(bytes);
    if (kld_script_parse(arena, bytes, &script) == (script.error != NULL))
        abort();
    for (size_t i = 0; i < script.commands.len; i++) {
        const struct kld_script_command *c = &script.commands.data[i];
        struct kld_str symbol;
        struct kld_expr_value value, plain;
        struct kld_expr_error error;
        uint64_t addend;
        if (!c->expr)
            continue;
        bool known = kld_expr_eval(c->expr, lookup, &count, &value, &error);
        bool offset = kld_expr_as_offset(c->expr, &symbol, &addend);
        /* The two agree on constants, and on symbols that are known. */
        if (known && offset && symbol.ptr && lookup(&count, symbol, &plain))
            addend += plain.value;
        if (known && offset && value.value != addend)
            abort();
        kld_expr_each_symbol(c->expr, visit, &count);
    }
}
