/* elf_symbols.c - what becomes of symbols once their definitions are known.
 *
 * Needs: every symbol bound to the definition that won. Afterwards each is known to be local to
 * the output, exported, or imported, and whether another module may preempt it; shared
 * libraries that nothing needs are out; COMMON symbols have atoms; linker-defined ones exist,
 * though their values come with the layout. */
#include "formats/elf/elf_symbols.h"
#include <stdlib.h>
#include "formats/elf/elf_arch.h"
#include "formats/elf/elf_version.h"
#include "formats/elf/elf_warning.h"
#include "src/assign.h"
#include "src/layout.h"
#include "src/resolve.h"
#include "src/undefined.h"

/* ---- looking for symbols ---- */

struct search {
    elf_symbol_test *test;
    const void *arg;
    elf_symid_list *found; /* by block */
};

static void search_block(struct kld_session *ctx, struct kld_worker *worker, void *arg,
                         size_t block)
{
    const struct search *s = arg;
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * ELF_SYMBOL_BLOCK, ctx->nsymbols);
    for (kld_symid id = (kld_symid)(block * ELF_SYMBOL_BLOCK); id < end; id++)
        if (s->test(s->arg, &ctx->symbols[id]))
            *kld_vec_push(&worker->arena, &s->found[block]) = id;
}

elf_symid_list elf_symbols_where(struct kld_session *ctx, elf_symbol_test *test, const void *arg)
{
    size_t blocks = (ctx->nsymbols + ELF_SYMBOL_BLOCK - 1) / ELF_SYMBOL_BLOCK;
    struct search s = {test, arg, KLD_NEW_ARRAY(&ctx->arena, elf_symid_list, blocks)};
    elf_symid_list all = {0};
    kld_parallel_for(ctx, blocks, 1, search_block, &s);
    for (size_t i = 0; i < blocks; i++)
        all.cap += s.found[i].len;
    all.data = KLD_NEW_ARRAY(&ctx->arena, kld_symid, all.cap);
    for (size_t i = 0; i < blocks; i++) {
        if (s.found[i].len)
            memcpy(all.data + all.len, s.found[i].data, s.found[i].len * sizeof(*all.data));
        all.len += s.found[i].len;
    }
    return all;
}

/* ---- linker-defined symbols ---- */

/* What a linker-defined symbol stands for. */
enum edge_of { AT_START, AT_END };

/* At the start or end of an output section. A section that is not in the output makes both the
 * same (arbitrary) address, so that loops between them do not run. */
static const struct {
    const char *name, *section;
    enum edge_of at;
} section_symbols[] = {
    {"__preinit_array_start", ".preinit_array", AT_START},
    {"__preinit_array_end", ".preinit_array", AT_END},
    {"__init_array_start", ".init_array", AT_START},
    {"__init_array_end", ".init_array", AT_END},
    {"__fini_array_start", ".fini_array", AT_START},
    {"__fini_array_end", ".fini_array", AT_END},
    {"__GNU_EH_FRAME_HDR", ".eh_frame_hdr", AT_START},
    {"_DYNAMIC", ".dynamic", AT_START},
};

/* Of the image as a whole; the value is set by elf_fix_symbols. */
static const struct {
    const char *name;
    enum elf_image_point point;
    bool hidden;
} image_symbols[] = {
    {"__ehdr_start", ELF_AT_HEADERS, true},
    {"__executable_start", ELF_AT_HEADERS, false},
    {"__dso_handle", ELF_AT_HEADERS, true},
    {"etext", ELF_AT_ETEXT, false},
    {"_etext", ELF_AT_ETEXT, false},
    {"__etext", ELF_AT_ETEXT, false},
    {"edata", ELF_AT_EDATA, false},
    {"_edata", ELF_AT_EDATA, false},
    {"__bss_start", ELF_AT_BSS, false},
    {"end", ELF_AT_END, false},
    {"_end", ELF_AT_END, false},
    {"__rela_iplt_start", ELF_AT_IPLT_START, true},
    {"__rela_iplt_end", ELF_AT_IPLT_END, true},
    {"_GLOBAL_OFFSET_TABLE_", ELF_AT_GOT, true},
    {"_TLS_MODULE_BASE_", ELF_AT_TLS, true},
};

struct kld_symbol *elf_provide(struct kld_session *ctx, const char *name)
{
    struct kld_symbol *sym = kld_symbol_find(ctx, kld_str(name));
    if (!sym || !kld_symbol_has(sym, KLD_SYM_REF_REGULAR) ||
        (sym->kind != KLD_SYM_UNDEFINED && sym->kind != KLD_SYM_IMPORTED))
        return NULL;
    kld_symbol_define(ctx, sym);
    sym->kind = KLD_SYM_DEFINED; /* moves with the image: a place, if not yet the right one */
    sym->in_section = true;
    sym->section = elf_state(ctx)->headers;
    sym->synthetic = true;
    return sym;
}

static void hide(struct kld_symbol *sym)
{
    if (atomic_load(&sym->visibility) == KLD_VISIBILITY_DEFAULT ||
        atomic_load(&sym->visibility) == KLD_VISIBILITY_PROTECTED)
        atomic_store(&sym->visibility, KLD_VISIBILITY_HIDDEN);
}

static void at_section(struct kld_session *ctx, struct kld_symbol *sym, const char *section,
                       enum edge_of at)
{
    struct elf_defined *d = kld_vec_push(&ctx->arena, &elf_state(ctx)->defined);
    *d = (struct elf_defined){.sym = sym, .section = section, .at_end = at == AT_END};
}

static bool is_c_identifier(struct kld_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && !(i && c >= '0' && c <= '9'))
            return false;
    }
    return s.len > 0;
}

static void define_start_stop(struct kld_session *ctx)
{
    static const char *const prefixes[] = {"__start_", "__stop_"};
    for (size_t i = 0; i < ctx->sections.len; i++) {
        const char *name = ctx->sections.data[i]->name;
        if (!is_c_identifier(kld_str(name)))
            continue;
        for (int k = 0; k < 2; k++) {
            struct kld_symbol *sym =
                elf_provide(ctx, kld_arena_printf(&ctx->arena, "%s%s", prefixes[k], name));
            if (!sym)
                continue;
            if (atomic_load(&sym->visibility) == KLD_VISIBILITY_DEFAULT)
                atomic_store(&sym->visibility, (uint8_t)ctx->options.z_start_stop_visibility);
            at_section(ctx, sym, name, k ? AT_END : AT_START);
        }
    }
}

/* NULL: nothing asks for it. */
static struct kld_symbol *define_point(struct kld_session *ctx, const char *name,
                                       enum elf_image_point point)
{
    struct kld_symbol *sym = elf_provide(ctx, name);
    if (sym)
        *kld_vec_push(&ctx->arena, &elf_state(ctx)->defined) =
            (struct elf_defined){.sym = sym, .point = point};
    return sym;
}

static void define_symbols_of_cpu(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    for (uint32_t i = 0; i < elf->arch->npoints; i++)
        define_point(ctx, elf->arch->points[i].name, elf->arch->points[i].point);
    if (elf->arch->gp_symbol && !elf->is_shared) /* a library has to use that of the program */
        elf->gp_symbol = define_point(ctx, elf->arch->gp_symbol, ELF_AT_GP);
}

static void define_linker_symbols(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    for (size_t i = 0; i < KLD_COUNT(section_symbols); i++) {
        bool dynamic = strcmp(section_symbols[i].name, "_DYNAMIC") == 0;
        struct kld_symbol *sym = dynamic && !elf->is_dynamic
                                     ? NULL /* a static program has none: asks for it weakly */
                                     : elf_provide(ctx, section_symbols[i].name);
        if (!sym)
            continue;
        hide(sym);
        at_section(ctx, sym, section_symbols[i].section, section_symbols[i].at);
    }
    for (size_t i = 0; i < KLD_COUNT(image_symbols); i++) {
        struct kld_symbol *sym = define_point(ctx, image_symbols[i].name, image_symbols[i].point);
        if (!sym)
            continue;
        if (image_symbols[i].hidden)
            hide(sym);
        if (image_symbols[i].point == ELF_AT_TLS)
            sym->type = KLD_TYPE_TLS;
        if (image_symbols[i].point == ELF_AT_GOT)
            elf->got_symbol = sym;
    }
    define_symbols_of_cpu(ctx);
    define_start_stop(ctx);
}

/* ---- COMMON ---- */

/* Largest size and alignment that any file asks for (gABI: st_value is the alignment). */
static void measure_commons(struct kld_session *ctx)
{
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind != KLD_FILE_OBJECT || !obj->has_common)
            continue;
        for (uint32_t i = 0; i < obj->base.nglobals; i++) {
            if (KLD_NAME_CLASS(obj->base.classes[i]) != KLD_NAME_COMMON)
                continue;
            struct kld_symbol *sym = &ctx->symbols[obj->base.ids[i]];
            const elf_sym *raw = &obj->syms[obj->first_global + i];
            if (raw->st_value > 1 &&
                (!kld_is_pow2(raw->st_value) || raw->st_value > ELF_LARGEST_ALIGN))
                kld_bad_file(ctx, &obj->base, "symbol %u: alignment %llu of a common symbol",
                             obj->first_global + i, (unsigned long long)raw->st_value);
            else if (sym->kind == KLD_SYM_COMMON) {
                sym->size = KLD_MAX(sym->size, raw->st_size);
                sym->value = KLD_MAX(sym->value, raw->st_value);
            }
            if (ctx->options.warn_common && sym->file != &obj->base)
                kld_warning(ctx, "common", &(struct kld_where){.file = &obj->base},
                            "%s common of '%.*s'",
                            sym->kind == KLD_SYM_COMMON ? "multiple" : "definition overriding",
                            KLD_FMT(kld_symbol_name(sym)));
        }
    }
}

struct common {
    struct kld_symbol *sym;
    uint32_t order;
};

static int compare_commons(const void *a, const void *b, void *arg)
{
    const struct common *x = a, *y = b;
    bool ascending = *(const int *)arg == KLD_SORT_COMMON_ASCENDING;
    if (*(const int *)arg != KLD_SORT_COMMON_NONE && x->sym->value != y->sym->value)
        return (x->sym->value < y->sym->value) == ascending ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static void place_common(struct kld_session *ctx, struct kld_symbol *sym)
{
    bool tls = sym->type == KLD_TYPE_TLS;
    struct kld_section *section =
        kld_section_get(ctx, &ctx->arena, tls ? KLD_STR(".tbss") : KLD_STR(".bss"), SHT_NOBITS,
                        SHF_ALLOC | SHF_WRITE | (tls ? SHF_TLS : 0), 0);
    uint8_t flags = KLD_ATOM_ALLOC | KLD_ATOM_WRITE | KLD_ATOM_ZERO;
    struct kld_atom *atom =
        kld_atom_new(ctx, section, (uint8_t)(flags | (tls ? KLD_ATOM_TLS : 0)),
                     (uint8_t)(sym->value > 1 ? kld_log2(sym->value) : 0), sym->size);
    sym->kind = KLD_SYM_DEFINED;
    sym->atom = atom;
    sym->value = 0;
    if (!tls)
        sym->type = KLD_TYPE_OBJECT;
}

static void place_commons(struct kld_session *ctx)
{
    KLD_VEC(struct common) list = {0};
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind != KLD_FILE_OBJECT || !obj->has_common)
            continue;
        for (uint32_t i = 0; i < obj->base.nglobals; i++) {
            struct kld_symbol *sym = &ctx->symbols[obj->base.ids[i]];
            if (sym->kind == KLD_SYM_COMMON && sym->file == &obj->base &&
                sym->index == obj->first_global + i)
                *kld_vec_push(&ctx->arena, &list) = (struct common){sym, (uint32_t)list.len};
        }
    }
    if (list.len)
        qsort_r(list.data, list.len, sizeof(*list.data), compare_commons,
                &ctx->options.sort_common);
    for (size_t i = 0; i < list.len; i++)
        place_common(ctx, list.data[i].sym);
}

/* ---- shared libraries ---- */

static bool names_library(const struct elf_shared *lib, const char *soname)
{
    for (size_t i = 0; i < lib->needed.len; i++)
        if (strcmp(lib->needed.data[i], soname) == 0)
            return true;
    return false;
}

/* What a needed library leaves undefined makes the library needed that has it, unless it says so
 * itself. True if some became so. */
static bool need_for(struct kld_session *ctx, const struct elf_shared *lib)
{
    bool more = false;
    for (uint32_t i = 0; i < lib->obj.base.nglobals; i++) {
        const struct kld_symbol *sym = &ctx->symbols[lib->obj.base.ids[i]];
        if (KLD_NAME_CLASS(lib->obj.base.classes[i]) != KLD_NAME_UNDEF ||
            sym->kind != KLD_SYM_IMPORTED || sym->file->needed ||
            names_library(lib, elf_shared(sym->file)->soname))
            continue;
        sym->file->needed = more = true;
    }
    return more;
}

static bool is_needed_import(const void *arg, const struct kld_symbol *sym)
{
    (void)arg;
    return sym->kind == KLD_SYM_IMPORTED && kld_symbol_has(sym, KLD_SYM_REF_STRONG);
}

/* Whether something asks for each library; symbols of those nobody needs are undefined again. */
static void drop_unneeded(struct kld_session *ctx)
{
    elf_symid_list imports = elf_symbols_where(ctx, is_needed_import, NULL);
    for (size_t i = 0; i < imports.len; i++)
        ctx->symbols[imports.data[i]].file->needed = true;
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (ctx->files[f]->kind == KLD_FILE_SHARED && !ctx->files[f]->as_needed)
            ctx->files[f]->needed = true;
    for (bool more = true; more;) {
        more = false;
        for (uint32_t f = 0; f < ctx->nfiles; f++)
            if (elf_needed_library(ctx, f))
                more |= need_for(ctx, elf_needed_library(ctx, f));
    }
}

/* Whether what the library itself needs is part of the link. */
static bool has_all_needed(const struct kld_session *ctx, const struct elf_shared *lib)
{
    for (size_t i = 0; i < lib->needed.len; i++) {
        bool found = false;
        for (uint32_t f = 0; f < ctx->nfiles && !found; f++)
            found = ctx->files[f]->kind == KLD_FILE_SHARED &&
                    strcmp(elf_shared(ctx->files[f])->soname, lib->needed.data[i]) == 0;
        if (!found)
            return false;
    }
    return true;
}

/* Whether every library that is needed is part of the link, so that what libraries leave undefined must be
 * defined here. One that is missing may have any symbol: at run time a library finds also what only another one
 * brings. GNU ld looks for the missing ones (-rpath-link); kld, like lld, trusts them. */
static bool has_all_libraries(const struct kld_session *ctx)
{
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (elf_needed_library(ctx, f) && !has_all_needed(ctx, elf_needed_library(ctx, f)))
            return false;
    return true;
}

static void check_library(struct kld_session *ctx, const struct elf_shared *lib)
{
    const struct kld_file *file = &lib->obj.base;
    for (uint32_t i = 0; i < file->nglobals; i++) {
        struct kld_symbol *sym = &ctx->symbols[file->ids[i]];
        if (KLD_NAME_CLASS(file->classes[i]) == KLD_NAME_UNDEF && sym->kind == KLD_SYM_UNDEFINED)
            kld_undefined_in_file(ctx, sym, file);
    }
}

/* --no-allow-shlib-undefined, the default for programs. */
static void check_libraries(struct kld_session *ctx)
{
    int unresolved = ctx->options.unresolved;
    bool check = ctx->options.allow_shlib_undefined == KLD_AUTO
                     ? !elf_state(ctx)->is_shared && unresolved != KLD_UNRESOLVED_IGNORE_ALL &&
                           unresolved != KLD_UNRESOLVED_IGNORE_IN_SHARED_LIBS
                     : ctx->options.allow_shlib_undefined == KLD_NO;
    if (!check || !has_all_libraries(ctx))
        return;
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (elf_needed_library(ctx, f))
            check_library(ctx, elf_needed_library(ctx, f));
}

/* ---- exported, imported, preemptible ---- */

static bool is_definition(const struct kld_symbol *sym)
{
    return sym->kind == KLD_SYM_DEFINED || sym->kind == KLD_SYM_ABSOLUTE;
}

static bool binds_locally(const struct kld_session *ctx, const struct kld_symbol *sym)
{
    bool function = sym->type == KLD_TYPE_FUNCTION || sym->type == KLD_TYPE_IFUNC;
    if (sym->unique)
        return false;
    switch ((enum kld_bsymbolic)ctx->options.bsymbolic) {
    case KLD_BSYMBOLIC_ALL: return true;
    case KLD_BSYMBOLIC_FUNCTIONS: return function;
    case KLD_BSYMBOLIC_NON_WEAK: return !sym->weak;
    case KLD_BSYMBOLIC_NON_WEAK_FUNCTIONS: return function && !sym->weak;
    case KLD_BSYMBOLIC_NONE: break;
    }
    return false;
}

static void decide_definition(struct kld_session *ctx, struct kld_worker *worker,
                              struct kld_symbol *sym)
{
    struct elf_link *elf = elf_state(ctx);
    unsigned vis = atomic_load_explicit(&sym->visibility, memory_order_relaxed);
    if (vis == KLD_VISIBILITY_HIDDEN || vis == KLD_VISIBILITY_INTERNAL || sym->forced_local ||
        sym->file->kind == KLD_FILE_SHARED)
        return;
    bool listed = elf_in_dynamic_list(ctx, worker, sym);
    if (!elf->is_shared && sym->synthetic && !kld_symbol_has(sym, KLD_SYM_REF_SHARED))
        return;
    sym->exported = elf->is_shared || ctx->options.export_dynamic || listed ||
                    kld_symbol_has(sym, KLD_SYM_REF_SHARED | KLD_SYM_DEF_SHARED);
    sym->preemptible =
        sym->exported && elf->is_shared && vis == KLD_VISIBILITY_DEFAULT && !sym->synthetic &&
        (elf->has_dynamic_list ? listed || !binds_locally(ctx, sym) : !binds_locally(ctx, sym));
    if (elf->has_dynamic_list && elf->is_shared && !listed)
        sym->preemptible = false;
}

static void decide_undefined(struct kld_session *ctx, struct kld_symbol *sym)
{
    struct elf_link *elf = elf_state(ctx);
    unsigned vis = atomic_load_explicit(&sym->visibility, memory_order_relaxed);
    sym->weak = !kld_symbol_has(sym, KLD_SYM_REF_STRONG);
    if (vis != KLD_VISIBILITY_DEFAULT || !kld_symbol_has(sym, KLD_SYM_REF_REGULAR))
        return;
    int policy = ctx->options.unresolved;
    bool allowed = policy == KLD_UNRESOLVED_IGNORE_ALL ||
                   policy == KLD_UNRESOLVED_IGNORE_IN_OBJECT_FILES ||
                   (policy == KLD_UNRESOLVED_AUTO && elf->is_shared);
    if (sym->weak)
        allowed = elf->is_shared ||
                  (ctx->options.z_dynamic_undefined_weak && !ctx->options.no_dynamic_linker);
    sym->imported = allowed;
    sym->preemptible = allowed;
}

static void decide(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t block)
{
    (void)arg;
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * ELF_SYMBOL_BLOCK, ctx->nsymbols);
    for (kld_symid id = (kld_symid)(block * ELF_SYMBOL_BLOCK); id < end; id++) {
        struct kld_symbol *sym = &ctx->symbols[id];
        if (!sym->name)
            continue;
        /* gABI: a symbol that is not of default visibility is defined in the output itself. */
        bool elsewhere =
            atomic_load_explicit(&sym->visibility, memory_order_relaxed) == KLD_VISIBILITY_DEFAULT;
        if (sym->kind == KLD_SYM_IMPORTED && (!sym->file->needed || !elsewhere)) {
            sym->kind = KLD_SYM_UNDEFINED;
            sym->type = KLD_TYPE_NONE;
            sym->version = 0;
            sym->file = NULL;
        }
        if (sym->kind == KLD_SYM_UNDEFINED)
            sym->weak = !kld_symbol_has(sym, KLD_SYM_REF_STRONG);
        if (!elf_state(ctx)->is_dynamic)
            continue;
        if (is_definition(sym))
            decide_definition(ctx, w, sym);
        else if (sym->kind == KLD_SYM_IMPORTED)
            sym->imported = kld_symbol_has(sym, KLD_SYM_REF_REGULAR);
        else
            decide_undefined(ctx, sym);
    }
}

/* A reference through the GOT that is turned into a direct one must reach from anywhere in the
 * image to anywhere. Addresses are not known when that is decided, sizes are: from 1.75 GiB on, or
 * where options spread the image out, the GOT is used as the code says. */
static bool may_be_large(const struct kld_session *ctx)
{
    const uint64_t limit = 7ull << 28;
    const struct elf_link *elf = elf_state(ctx);
    return atomic_load(&elf->memory_size) > limit || elf->image_base > limit ||
           ctx->options.section_start.len;
}

void elf_bind_all(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    measure_commons(ctx);
    if (elf->is_relocatable) {
        if (ctx->options.define_common)
            place_commons(ctx);
        kld_assign_bind(ctx);
        return;
    }
    elf->no_gotpcrelx = may_be_large(ctx);
    place_commons(ctx);
    drop_unneeded(ctx);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (ctx->files[f]->kind == KLD_FILE_SHARED)
            elf->has_shared_inputs = true;
    elf->is_dynamic = elf->is_pic || elf->has_shared_inputs;
    define_linker_symbols(ctx);
    kld_assign_bind(ctx);
    elf_versions_assign(ctx);
    elf_warn_of_symbols(ctx);
    check_libraries(ctx); /* while what unneeded libraries define still counts */
    kld_parallel_for(ctx, (ctx->nsymbols + ELF_SYMBOL_BLOCK - 1) / ELF_SYMBOL_BLOCK, 1, decide,
                     NULL);
}

/* ---- addresses ---- */

uint64_t elf_symbol_address(const struct kld_session *ctx, const struct kld_symbol *sym)
{
    if (sym->aux) {
        const struct elf_aux *aux = elf_aux(ctx, sym);
        if (kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT) || sym->type == KLD_TYPE_IFUNC ||
            (sym->kind == KLD_SYM_IMPORTED && aux->plt != ELF_NONE))
            if (aux->plt != ELF_NONE || aux->plt_got != ELF_NONE || aux->iplt != ELF_NONE)
                return elf_plt_address(ctx, sym);
    }
    switch (sym->kind) {
    case KLD_SYM_DEFINED:
        if (sym->in_section)
            return sym->section->addr + sym->value;
        return elf_atom_address(elf_output_atom(sym->atom), sym->value);
    case KLD_SYM_ABSOLUTE: return sym->value;
    default: return 0;
    }
}

static void fix_defined(struct kld_session *ctx, const struct elf_defined *d)
{
    struct elf_link *elf = elf_state(ctx);
    struct kld_section *section = elf->points[d->point].section;
    uint64_t address = elf->points[d->point].address;
    if (d->section) {
        section = kld_section_find(ctx, d->section);
        if (section && !section->number)
            section = NULL;
        address = section ? section->addr + (d->at_end ? section->size : 0) : 0;
    }
    if (!section) {
        section = elf->headers;
        address = section->addr;
    }
    d->sym->section = section;
    d->sym->value = address - section->addr;
}

static void fix_block(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t block)
{
    (void)w, (void)arg;
    struct elf_link *elf = elf_state(ctx);
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * ELF_SYMBOL_BLOCK, ctx->nsymbols);
    for (kld_symid id = (kld_symid)(block * ELF_SYMBOL_BLOCK); id < end; id++) {
        kld_ask_for_atom(ctx, id + KLD_ASK_AHEAD);
        if (ctx->symbols[id].name)
            elf->addresses[id] = elf_symbol_address(ctx, &ctx->symbols[id]);
    }
}

void elf_fix_symbols(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    for (size_t i = 0; i < elf->defined.len; i++)
        fix_defined(ctx, &elf->defined.data[i]);
    kld_assign_evaluate(ctx);
    if (!elf->addresses)
        elf->addresses = KLD_NEW_ARRAY(&ctx->arena, uint64_t, ctx->nsymbols);
    kld_parallel_for(ctx, (ctx->nsymbols + ELF_SYMBOL_BLOCK - 1) / ELF_SYMBOL_BLOCK, 1, fix_block,
                     NULL);
}
