#include "src/place.h"
#include "src/demangle.h"
#include "src/session.h"
#include "src/srcline.h"

const char *kld_file_label(struct kld_arena *arena, const struct kld_file *file)
{
    if (!file->member)
        return file->path;
    return kld_arena_printf(arena, "%s(%s)", file->path, file->member);
}

const char *kld_atom_label(struct kld_session *ctx, struct kld_arena *arena,
                           const struct kld_atom *atom)
{
    if (atom->file->kind == KLD_FILE_INTERNAL)
        return ctx->sections.data[atom->section]->name;
    struct kld_str name = ctx->format->atom_name(atom);
    return kld_arena_strndup(arena, name.ptr, name.len);
}

const char *kld_shown_name(struct kld_session *ctx, struct kld_arena *arena, struct kld_str name)
{
    if (ctx->options.demangle)
        return kld_demangle_name(arena, name);
    return kld_arena_strndup(arena, name.ptr, name.len);
}

/* ---- functions ---- */

struct best {
    struct kld_str name;
    uint64_t value;
};

/* Keeps the innermost symbol that covers the offset; one without size reaches to the next. */
static void consider(struct best *best, struct kld_str name, uint64_t value, uint64_t size,
                     uint64_t offset)
{
    if (value > offset || (size && offset - value >= size) || !name.len)
        return;
    if (best->name.len && best->value >= value)
        return;
    *best = (struct best){name, value};
}

static bool is_code(uint8_t type)
{
    return type == KLD_TYPE_FUNCTION || type == KLD_TYPE_IFUNC;
}

/* Looks at all symbols of the file: only for messages. */
static struct kld_str function_at(struct kld_session *ctx, const struct kld_atom *atom,
                                  uint64_t offset)
{
    struct best best = {0};
    const struct kld_file *file = atom->file;
    for (uint32_t i = 0; i < file->nglobals; i++) {
        const struct kld_symbol *sym = &ctx->symbols[file->ids[i]];
        if (sym->file == file && sym->kind == KLD_SYM_DEFINED && !sym->in_section &&
            sym->atom == atom && is_code(sym->type))
            consider(&best, kld_symbol_name(sym), sym->value, sym->size, offset);
    }
    struct kld_local local;
    for (uint32_t i = 0; ctx->format->local && ctx->format->local(file, i, &local); i++)
        if (local.atom == atom && is_code(local.type))
            consider(&best, local.name, local.value, local.size, offset);
    return best.name;
}

const char *kld_describe_place(struct kld_session *ctx, struct kld_arena *arena, const char *lead,
                               const struct kld_file *file, const struct kld_atom *atom,
                               uint64_t offset)
{
    const char *label = kld_file_label(arena, file);
    if (!atom)
        return kld_arena_printf(arena, "\n%s%s", lead, label);
    struct kld_str function = function_at(ctx, atom, offset);
    const char *place =
        kld_arena_printf(arena, "%s:(%s+0x%llx)", label, kld_atom_label(ctx, arena, atom),
                         (unsigned long long)offset);
    if (function.len)
        place =
            kld_arena_printf(arena, "%s, function %s", place, kld_shown_name(ctx, arena, function));
    const char *source = NULL;
    uint32_t line = 0;
    if (!kld_source_line(ctx, arena, atom, offset, &source, &line))
        return kld_arena_printf(arena, "\n%s%s", lead, place);
    return kld_arena_printf(arena, "\n%s%s:%u\n>>> %*s%s", lead, source, line,
                            (int)strlen(lead) - 4, "", place);
}
