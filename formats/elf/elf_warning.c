/* elf_warning.c - warnings that libraries attach to symbols.
 *
 * The text of a section .gnu.warning.SYMBOL is for whoever refers to SYMBOL: "the use of `mktemp'
 * is dangerous". GNU ld says it for every reference; here it is once a symbol, with the first
 * object that refers to it. */
#include "formats/elf/elf_warning.h"
#include "src/resolve.h"

static const char prefix[] = ".gnu.warning.";

/* The first object other than the one with the warning that has the name undefined. */
static const struct kld_file *first_user(const struct kld_session *ctx,
                                         const struct kld_file *owner, const struct kld_symbol *sym)
{
    kld_symid id = (kld_symid)(sym - ctx->symbols);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f];
        if (file == owner || file->kind != KLD_FILE_OBJECT)
            continue;
        for (uint32_t i = 0; i < file->nglobals; i++)
            if (file->ids[i] == id && (KLD_NAME_CLASS(file->classes[i]) == KLD_NAME_UNDEF ||
                                       KLD_NAME_CLASS(file->classes[i]) == KLD_NAME_UNDEF_WEAK))
                return file;
    }
    return NULL;
}

static void warn_of(struct kld_session *ctx, const struct elf_object *obj, uint32_t shndx,
                    struct kld_str name)
{
    struct kld_bytes text;
    const struct kld_symbol *sym = kld_symbol_find(ctx, kld_str_from(name, sizeof(prefix) - 1));
    const struct kld_file *user = sym ? first_user(ctx, &obj->base, sym) : NULL;
    if (!user || !elf_section_bytes(ctx, obj, shndx, &text))
        return;
    size_t len = text.len ? strnlen((const char *)text.ptr, text.len) : 0;
    kld_warning(ctx, "symbol-warning", &(struct kld_where){.file = user, .symbol = sym->name},
                "%.*s", (int)KLD_MIN(len, (size_t)4096), (const char *)text.ptr);
}

void elf_warn_of_symbols(struct kld_session *ctx)
{
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind != KLD_FILE_OBJECT || !obj->has_warnings)
            continue;
        for (uint32_t i = 1; i < obj->nshdrs; i++) {
            struct kld_str name = elf_section_name(obj, i);
            if (kld_str_starts(name, prefix))
                warn_of(ctx, obj, i, name);
        }
    }
}
