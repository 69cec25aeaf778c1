/* elf_dynamic.c - the dynamic section: what the program loader is told (gABI chapter 5, and the
 * GNU and Solaris extensions that glibc reads). */
#include "formats/elf/elf_symbols.h"
#include "formats/elf/elf_tables.h"
#include "formats/elf/elf_version.h"
#include "src/layout.h"
#include "src/resolve.h"

struct dyn {
    int64_t tag;
    uint64_t value;
};

struct elf_dynamic {
    KLD_VEC(struct dyn) entries;
};

/* Strings are added to .dynstr in the first round, and found again in the second. */
static void put(struct kld_session *ctx, int64_t tag, uint64_t value)
{
    *kld_vec_push(&ctx->arena, &elf_state(ctx)->dynamic->entries) = (struct dyn){tag, value};
}

static void put_text(struct kld_session *ctx, int64_t tag, const char *text)
{
    put(ctx, tag, elf_dynstr_add(ctx, kld_str(text)));
}

static uint64_t address_of(const struct kld_session *ctx, enum elf_synth which)
{
    return elf_state(ctx)->synth[which]->addr;
}

static uint64_t size_of(const struct kld_session *ctx, enum elf_synth which)
{
    return which == ELF_RELA_DYN ? elf_rela_dyn_size(ctx) : elf_state(ctx)->synth[which]->size;
}

/* tag: address of a table; size_tag (or 0): its size. Nothing if the output does not have it. */
static bool put_table(struct kld_session *ctx, enum elf_synth which, int64_t tag, int64_t size_tag)
{
    if (!elf_state(ctx)->synth[which])
        return false;
    put(ctx, tag, address_of(ctx, which));
    if (size_tag)
        put(ctx, size_tag, size_of(ctx, which));
    return true;
}

/* An array section like .init_array: its input atoms, not ours, make it up. Whether it is in the
 * output is known after place; the first round counts it in any case. */
static void put_array(struct kld_session *ctx, const char *name, int64_t tag, int64_t size_tag)
{
    struct kld_section *s = kld_section_find(ctx, name);
    if (!s || (ctx->order && !s->number))
        return;
    put(ctx, tag, s->addr);
    put(ctx, size_tag, s->size);
}

/* The texts with colons between them, each once. */
static char *join(struct kld_session *ctx, const kld_text_list *list)
{
    char *text = kld_arena_printf(&ctx->arena, "%s", list->data[0]);
    for (size_t i = 1; i < list->len; i++) {
        bool again = false;
        for (size_t k = 0; k < i; k++)
            again |= strcmp(list->data[k], list->data[i]) == 0;
        if (!again)
            text = kld_arena_printf(&ctx->arena, "%s:%s", text, list->data[i]);
    }
    return text;
}

/* What --depaudit names, and what libraries that are needed want to be audited by. */
static void put_depaudit(struct kld_session *ctx)
{
    kld_text_list list = {0};
    for (size_t i = 0; i < ctx->options.depaudit.len; i++)
        *kld_vec_push(&ctx->arena, &list) = ctx->options.depaudit.data[i];
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_shared *lib = elf_needed_library(ctx, f);
        if (lib && lib->audit)
            *kld_vec_push(&ctx->arena, &list) = lib->audit;
    }
    if (list.len)
        put_text(ctx, DT_DEPAUDIT, join(ctx, &list));
}

static void put_libraries(struct kld_session *ctx)
{
    const struct kld_options *o = &ctx->options;
    for (size_t i = 0; i < o->filter.len; i++)
        put_text(ctx, DT_FILTER, o->filter.data[i]);
    for (size_t i = 0; i < o->auxiliary.len; i++)
        put_text(ctx, DT_AUXILIARY, o->auxiliary.data[i]);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (elf_needed_library(ctx, f))
            put_text(ctx, DT_NEEDED, elf_needed_library(ctx, f)->soname);
    if (elf_state(ctx)->is_shared && o->soname)
        put_text(ctx, DT_SONAME, o->soname);
    if (o->audit.len)
        put_text(ctx, DT_AUDIT, join(ctx, &o->audit));
    put_depaudit(ctx);
    if (o->rpath.len)
        put_text(ctx, o->enable_new_dtags ? DT_RUNPATH : DT_RPATH, join(ctx, &o->rpath));
}

static void put_function(struct kld_session *ctx, int64_t tag, const char *name)
{
    const struct kld_symbol *sym = name ? kld_symbol_find(ctx, kld_str(name)) : NULL;
    if (sym && sym->kind == KLD_SYM_DEFINED && sym->file->kind != KLD_FILE_SHARED)
        put(ctx, tag, elf_symbol_address(ctx, sym));
}

static void put_relocations(struct kld_session *ctx)
{
    const struct elf_link *elf = elf_state(ctx);
    if (elf->synth[ELF_RELA_PLT]) {
        if (elf->synth[ELF_GOT_PLT])
            put(ctx, DT_PLTGOT, address_of(ctx, ELF_GOT_PLT));
        put(ctx, DT_PLTRELSZ, size_of(ctx, ELF_RELA_PLT));
        put(ctx, DT_PLTREL, DT_RELA);
        put(ctx, DT_JMPREL, address_of(ctx, ELF_RELA_PLT));
    }
    if (put_table(ctx, ELF_RELA_DYN, DT_RELA, DT_RELASZ))
        put(ctx, DT_RELAENT, sizeof(Elf64_Rela));
    if (put_table(ctx, ELF_RELR_DYN, DT_RELR, DT_RELRSZ))
        put(ctx, DT_RELRENT, 8);
}

static uint64_t flags_of(const struct kld_session *ctx)
{
    const struct kld_options *o = &ctx->options;
    struct elf_link *elf = elf_state(ctx);
    return (o->z_origin ? DF_ORIGIN : 0u) |
           (o->bsymbolic == KLD_BSYMBOLIC_ALL && elf->is_shared ? DF_SYMBOLIC : 0u) |
           (atomic_load(&elf->textrel) ? DF_TEXTREL : 0u) | (o->z_now ? DF_BIND_NOW : 0u) |
           (atomic_load(&elf->static_tls) && elf->is_shared ? DF_STATIC_TLS : 0u);
}

static uint64_t flags_1_of(const struct kld_session *ctx)
{
    const struct kld_options *o = &ctx->options;
    return (o->z_now ? DF_1_NOW : 0u) | (o->z_global ? DF_1_GLOBAL : 0u) |
           (o->z_nodelete ? DF_1_NODELETE : 0u) | (o->z_initfirst ? DF_1_INITFIRST : 0u) |
           (o->z_nodlopen ? DF_1_NOOPEN : 0u) | (o->z_origin ? DF_1_ORIGIN : 0u) |
           (o->z_interpose ? DF_1_INTERPOSE : 0u) | (o->z_nodefaultlib ? DF_1_NODEFLIB : 0u) |
           (o->z_nodump ? DF_1_NODUMP : 0u) | (o->z_globalaudit ? DF_1_GLOBAUDIT : 0u) |
           (o->kind == KLD_KIND_PIE ? DF_1_PIE : 0u);
}

static void put_flags(struct kld_session *ctx)
{
    uint64_t flags = flags_of(ctx), flags_1 = flags_1_of(ctx);
    if (flags & DF_TEXTREL)
        put(ctx, DT_TEXTREL, 0);
    if (flags & DF_SYMBOLIC)
        put(ctx, DT_SYMBOLIC, 0);
    if (flags)
        put(ctx, DT_FLAGS, flags);
    if (flags_1)
        put(ctx, DT_FLAGS_1, flags_1);
}

static void put_versions(struct kld_session *ctx)
{
    if (put_table(ctx, ELF_VERDEF, DT_VERDEF, 0))
        put(ctx, DT_VERDEFNUM, elf_verdef_count(ctx));
    if (put_table(ctx, ELF_VERNEED, DT_VERNEED, 0))
        put(ctx, DT_VERNEEDNUM, elf_verneed_count(ctx));
    put_table(ctx, ELF_VERSYM, DT_VERSYM, 0);
    if (elf_state(ctx)->synth[ELF_RELA_DYN] && elf_relative_count(ctx) && ctx->options.z_combreloc)
        put(ctx, DT_RELACOUNT, elf_relative_count(ctx));
}

static bool has_variant_plt(const struct elf_link *elf)
{
    for (size_t i = 0; i < elf->plt.len; i++)
        if (atomic_load_explicit(&elf->plt.data[i]->other, memory_order_relaxed) &
            elf->arch->st_other_variant)
            return true;
    return false;
}

static void put_cpu(struct kld_session *ctx)
{
    const struct elf_arch_ops *arch = elf_state(ctx)->arch;
    for (uint32_t i = 0; i < arch->ndynamic; i++)
        if (arch->dynamic[i].wanted(ctx))
            put(ctx, arch->dynamic[i].tag, 0);
    if (has_variant_plt(elf_state(ctx)))
        put(ctx, arch->dt_variant, 0);
}

/* All entries. Runs twice: to count (values may be wrong), and to write. */
static void list_entries(struct kld_session *ctx)
{
    elf_state(ctx)->dynamic->entries.len = 0;
    put_libraries(ctx);
    put_function(ctx, DT_INIT, ctx->options.init);
    put_function(ctx, DT_FINI, ctx->options.fini);
    if (!elf_state(ctx)->is_shared)
        put_array(ctx, ".preinit_array", DT_PREINIT_ARRAY, DT_PREINIT_ARRAYSZ);
    put_array(ctx, ".init_array", DT_INIT_ARRAY, DT_INIT_ARRAYSZ);
    put_array(ctx, ".fini_array", DT_FINI_ARRAY, DT_FINI_ARRAYSZ);
    put_table(ctx, ELF_HASH, DT_HASH, 0);
    put_table(ctx, ELF_GNU_HASH, DT_GNU_HASH, 0);
    put_table(ctx, ELF_DYNSTR, DT_STRTAB, 0);
    put_table(ctx, ELF_DYNSYM, DT_SYMTAB, 0);
    put(ctx, DT_STRSZ, size_of(ctx, ELF_DYNSTR));
    put(ctx, DT_SYMENT, sizeof(Elf64_Sym));
    if (!elf_state(ctx)->is_shared)
        put(ctx, DT_DEBUG, 0);
    put_relocations(ctx);
    put_flags(ctx);
    put_versions(ctx);
    put_cpu(ctx);
    put(ctx, DT_NULL, 0);
}

static void write_dynamic(struct kld_session *ctx, struct kld_worker *w,
                          const struct kld_atom *atom, uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_dynamic *d = elf_state(ctx)->dynamic;
    for (size_t i = 0; i < d->entries.len; i++) {
        kld_put64(out + 16 * i, (uint64_t)d->entries.data[i].tag);
        kld_put64(out + 16 * i + 8, d->entries.data[i].value);
    }
}

static void make_interp(struct kld_session *ctx)
{
    const char *path = ctx->options.dynamic_linker;
    if (elf_state(ctx)->is_shared && !path)
        return;
    if (!path)
        path = ctx->arch->dynamic_linker;
    if (ctx->options.no_dynamic_linker || !path)
        return;
    struct kld_atom *atom =
        elf_make(ctx, ELF_INTERP, ".interp", SHT_PROGBITS, SHF_ALLOC, 0, 0, strlen(path) + 1);
    atom->data = (const uint8_t *)path;
}

void elf_dynamic_synth(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    elf->dynamic = KLD_NEW(&ctx->arena, struct elf_dynamic);
    make_interp(ctx);
    list_entries(ctx);
    struct kld_atom *atom = elf_make(ctx, ELF_DYNAMIC, ".dynamic", SHT_DYNAMIC,
                                     SHF_ALLOC | SHF_WRITE, 16, 3, 16 * elf->dynamic->entries.len);
    atom->kind = KLD_ATOM_GENERATED;
    atom->generate = write_dynamic;
}

void elf_dynamic_finish(struct kld_session *ctx)
{
    if (elf_state(ctx)->dynamic)
        list_entries(ctx);
}
