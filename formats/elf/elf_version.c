/* elf_version.c - symbol versions, in and out.
 *
 * Out: versions that a script or `.symver` in an object defines (.gnu.version_d); in: versions of
 * the libraries that are used (.gnu.version_r). In memory sym->version is, for what a library
 * provides, the index in that library; for our own definitions the index that .gnu.version gets,
 * HIDDEN_VERSION set for foo@V.
 *
 * Source: LSB core 10.7. */
#include "formats/elf/elf_version.h"
#include <errno.h>
#include "formats/elf/elf_tables.h"
#include "formats/elf/elf_version_script.h"
#include "src/assign.h"
#include "src/inputs.h"
#include "src/layout.h"
#include "src/resolve.h"

enum { HIDDEN_VERSION = 0x8000 };

struct elf_versions {
    struct elf_version_script script, list;            /* list: dynamic symbols by name */
    const struct elf_version_patterns *rules, *listed; /* NULL: none */
    KLD_VEC(struct kld_str) defs; /* names of versions by index; [0] unused, [1] the base */
    uint32_t nverneed;
};

/* ---- reading ---- */

static void read_text(struct kld_session *ctx, struct elf_version_script *into, const char *path,
                      struct kld_str text, enum elf_version_syntax syntax)
{
    if (elf_version_script_parse(&ctx->arena, into, text, 1, syntax))
        return;
    const char *place = kld_arena_printf(&ctx->arena, "%s:%u", path, into->error_line);
    kld_error(ctx, "bad-version-script", &(struct kld_where){.path = place}, "%s", into->error);
    *into = (struct elf_version_script){0};
}

static void read_files(struct kld_session *ctx, struct elf_version_script *into,
                       const kld_text_list *paths, enum elf_version_syntax syntax)
{
    for (size_t i = 0; i < paths->len; i++) {
        struct kld_bytes bytes;
        if (kld_io_open(ctx, paths->data[i], &bytes))
            read_text(ctx, into, paths->data[i],
                      (struct kld_str){(const char *)bytes.ptr, bytes.len}, syntax);
        else
            kld_error(ctx, "cannot-open", NULL, "cannot open %s: %s", paths->data[i],
                      kld_error_text(ctx, errno));
    }
}

/* What the output calls itself: the base version. */
static const char *own_name(const struct kld_session *ctx)
{
    if (ctx->options.soname)
        return ctx->options.soname;
    const char *slash = strrchr(ctx->options.output, '/');
    return slash ? slash + 1 : ctx->options.output;
}

static void set_def(struct kld_session *ctx, struct elf_versions *v, uint32_t index,
                    struct kld_str name)
{
    while (v->defs.len <= index)
        *kld_vec_push(&ctx->arena, &v->defs) = (struct kld_str){0};
    v->defs.data[index] = name;
}

static void add_cxx(struct kld_session *ctx, struct elf_versions *v, const char *a, const char *b)
{
    elf_dynamic_list_add(&ctx->arena, &v->list, kld_str(a), true);
    elf_dynamic_list_add(&ctx->arena, &v->list, kld_str(b), true);
}

static void read_all(struct kld_session *ctx, struct elf_versions *v)
{
    const struct kld_options *o = &ctx->options;
    read_files(ctx, &v->script, &o->version_script, ELF_VERSION_SCRIPT);
    for (size_t i = 0; i < ctx->version_texts.len; i++)
        read_text(ctx, &v->script, "VERSION", kld_str(ctx->version_texts.data[i]),
                  ELF_VERSION_SCRIPT);
    read_files(ctx, &v->list, &o->dynamic_list, ELF_DYNAMIC_LIST);
    read_files(ctx, &v->list, &o->export_dynamic_symbol_list, ELF_DYNAMIC_LIST);
    for (size_t i = 0; i < o->export_dynamic_symbol.len; i++)
        elf_dynamic_list_add(&ctx->arena, &v->list, kld_str(o->export_dynamic_symbol.data[i]),
                             false);
    if (o->dynamic_list_cpp_new)
        add_cxx(ctx, v, "operator new*", "operator delete*");
    if (o->dynamic_list_cpp_typeinfo)
        add_cxx(ctx, v, "typeinfo for*", "typeinfo name for*");
    if (v->script.nodes.len)
        v->rules = elf_version_patterns_compile(&ctx->arena, &v->script);
    if (v->list.nodes.len)
        v->listed = elf_version_patterns_compile(&ctx->arena, &v->list);
    elf_state(ctx)->has_dynamic_list = o->dynamic_list.len || o->dynamic_list_data ||
                                       o->dynamic_list_cpp_new || o->dynamic_list_cpp_typeinfo;
    for (uint32_t i = 0; i < v->script.nodes.len; i++)
        if (v->script.nodes.data[i].name.len)
            set_def(ctx, v, elf_version_number(&v->script, i), v->script.nodes.data[i].name);
}

void elf_versions_read(struct kld_session *ctx)
{
    if (elf_state(ctx)->is_relocatable)
        return;
    struct elf_versions *v = elf_state(ctx)->versions = KLD_NEW(&ctx->arena, struct elf_versions);
    read_all(ctx, v);
    for (size_t i = 2; i < v->defs.len; i++)
        kld_builtin_name(ctx, v->defs.data[i], KLD_NAME_IGNORED);
    if (ctx->options.default_symver)
        kld_builtin_name(ctx, kld_str(own_name(ctx)), KLD_NAME_IGNORED);
}

/* ---- versions of definitions ---- */

/* The index of a version of ours, made if it is new (`.symver` without a script). */
static uint16_t def_index(struct kld_session *ctx, struct kld_str name)
{
    struct elf_versions *v = elf_state(ctx)->versions;
    for (size_t i = 2; i < v->defs.len; i++)
        if (kld_str_eq(v->defs.data[i], name))
            return (uint16_t)i;
    uint32_t index = (uint32_t)KLD_MAX(v->defs.len, (size_t)2);
    set_def(ctx, v, index, name);
    return (uint16_t)index;
}

/* The text behind the '@' that the object gave the symbol, or an empty one. */
static struct kld_str suffix_of(const struct kld_symbol *sym, bool *is_default)
{
    struct kld_str none = {0};
    *is_default = false;
    if (sym->file->kind != KLD_FILE_OBJECT || sym->synthetic)
        return none;
    const struct elf_object *obj = elf_object(sym->file);
    if (!obj->has_versions || sym->index >= obj->nsyms)
        return none;
    struct kld_str raw = kld_str((const char *)obj->strtab.ptr + obj->syms[sym->index].st_name);
    const char *at = memchr(raw.ptr, '@', raw.len);
    if (!at || at == raw.ptr)
        return none;
    *is_default = at[1] == '@';
    size_t start = (size_t)(at - raw.ptr) + (*is_default ? 2 : 1);
    return kld_str_from(raw, start);
}

static bool is_known(const struct elf_versions *v, struct kld_str name)
{
    for (size_t i = 2; i < v->defs.len; i++)
        if (kld_str_eq(v->defs.data[i], name))
            return true;
    return false;
}

static void assign_one(struct kld_session *ctx, struct kld_demangler *demangler,
                       struct kld_symbol *sym)
{
    struct elf_versions *v = elf_state(ctx)->versions;
    bool is_default;
    struct kld_str suffix = suffix_of(sym, &is_default);
    if (suffix.len && elf_state(ctx)->is_shared && !is_known(v, suffix)) {
        kld_error(ctx, "undefined-version",
                  &(struct kld_where){.file = sym->file, .symbol = sym->name},
                  "version '%.*s' of symbol '%.*s' is in no version script", KLD_FMT(suffix),
                  KLD_FMT(elf_dynamic_name(sym)));
        return;
    }
    if (suffix.len) {
        sym->version = (uint16_t)(def_index(ctx, suffix) | (is_default ? 0 : HIDDEN_VERSION));
        return;
    }
    if (sym->file->exclude_libs) {
        sym->forced_local = true;
        return;
    }
    if (v->rules) {
        struct elf_version_match m = elf_version_lookup(v->rules, demangler, kld_symbol_name(sym));
        if (m.scope == ELF_VERSION_LOCAL)
            sym->forced_local = true;
        else if (m.scope == ELF_VERSION_GLOBAL && elf_version_number(&v->script, m.node) > 1)
            sym->version = elf_version_number(&v->script, m.node);
    }
    if (!sym->version && !sym->forced_local && ctx->options.default_symver)
        sym->version = def_index(ctx, kld_str(own_name(ctx)));
}

/* The version of a default definition, foo@@V, whoever has it. */
static struct kld_str default_version(const struct kld_session *ctx, const struct kld_symbol *sym)
{
    bool is_default = false;
    if (sym->kind == KLD_SYM_IMPORTED)
        return elf_library_version(elf_shared(sym->file), sym->version);
    (void)ctx;
    if (sym->kind != KLD_SYM_DEFINED && sym->kind != KLD_SYM_ABSOLUTE)
        return (struct kld_str){0};
    struct kld_str suffix = suffix_of(sym, &is_default);
    return is_default ? suffix : (struct kld_str){0};
}

/* A reference to foo@V is satisfied by the default definition foo@@V. */
static void connect(struct kld_session *ctx, struct kld_symbol *sym, const char *at)
{
    struct kld_str base = {sym->name, (size_t)(at - sym->name)};
    struct kld_str version = kld_str_from(kld_symbol_name(sym), base.len + 1);
    const struct kld_symbol *def = kld_symbol_find(ctx, base);
    if (!def || !version.len || !kld_str_eq(default_version(ctx, def), version))
        return;
    sym->kind = def->kind;
    sym->type = def->type;
    sym->file = def->file;
    sym->atom = def->atom;
    sym->in_section = def->in_section;
    sym->value = def->value;
    sym->size = def->size;
    sym->index = def->index;
    sym->version = def->version;
    sym->weak = def->weak;
    if (def->kind == KLD_SYM_IMPORTED && kld_symbol_has(sym, KLD_SYM_REF_STRONG))
        def->file->needed = true;
    else
        sym->forced_local = def->kind != KLD_SYM_IMPORTED;
}

static void connect_all(struct kld_session *ctx)
{
    for (kld_symid id = 0; id < ctx->nsymbols; id++) {
        struct kld_symbol *sym = &ctx->symbols[id];
        if (sym->kind != KLD_SYM_UNDEFINED || !sym->name ||
            !kld_symbol_has(sym, KLD_SYM_REF_REGULAR))
            continue;
        const char *at = memchr(sym->name, '@', sym->name_len);
        if (at && at != sym->name)
            connect(ctx, sym, at);
    }
}

static bool some_object_has_versions(const struct kld_session *ctx)
{
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (ctx->files[f]->kind == KLD_FILE_OBJECT && elf_object(ctx->files[f])->has_versions)
            return true;
    return false;
}

/* --no-undefined-version: every exact name of the script must be defined. */
static void check_names(struct kld_session *ctx, const struct elf_versions *v)
{
    for (size_t i = 0; i < v->script.patterns.len; i++) {
        const struct elf_version_pattern *p = &v->script.patterns.data[i];
        if (p->cxx || p->local || (!p->literal && kld_glob_is_pattern(p->text)))
            continue;
        const struct kld_symbol *sym = kld_symbol_find(ctx, p->text);
        if (sym && sym->kind != KLD_SYM_UNDEFINED && sym->kind != KLD_SYM_IMPORTED)
            continue;
        kld_error(ctx, "undefined-version", NULL,
                  "version script assignment of '%.*s' to symbol '%.*s' failed: symbol not defined",
                  KLD_FMT(v->script.nodes.data[p->node].name), KLD_FMT(p->text));
    }
}

/* GNU ld and gold define an absolute symbol for each version, in the version of its name; Debian's lists of
 * symbols (dpkg-gensymbols) have them, and they are all that is known of a version without others. A definition of
 * that name is left as it is. */
static void define_versions(struct kld_session *ctx, const struct elf_versions *v)
{
    for (size_t i = 2; i < v->defs.len; i++) {
        struct kld_symbol *sym = kld_symbol_find(ctx, v->defs.data[i]);
        if (!sym || (sym->kind != KLD_SYM_UNDEFINED && sym->kind != KLD_SYM_IMPORTED))
            continue;
        kld_symbol_define(ctx, sym);
        sym->type = KLD_TYPE_OBJECT;
        sym->version = (uint16_t)i;
        sym->synthetic = true;
        /* The script is as good as an object that mentions it; programs export it, too. */
        kld_symbol_flag(sym, KLD_SYM_REF_REGULAR | KLD_SYM_REF_SHARED);
    }
}

void elf_versions_assign(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_versions *v = elf->versions;
    bool suffixes = some_object_has_versions(ctx);
    if (ctx->options.no_undefined_version)
        check_names(ctx, v);
    if (suffixes)
        connect_all(ctx);
    if (!elf->is_dynamic ||
        (!v->rules && !suffixes && !ctx->options.default_symver && !ctx->options.exclude_libs.len))
        return;
    struct kld_demangler demangler = {.arena = &ctx->arena};
    for (kld_symid id = 0; id < ctx->nsymbols; id++) {
        struct kld_symbol *sym = &ctx->symbols[id];
        if ((sym->kind == KLD_SYM_DEFINED || sym->kind == KLD_SYM_ABSOLUTE) && !sym->synthetic)
            assign_one(ctx, &demangler, sym);
    }
    define_versions(ctx, v);
}

bool elf_in_dynamic_list(struct kld_session *ctx, struct kld_worker *worker,
                         const struct kld_symbol *sym)
{
    const struct elf_versions *v = elf_state(ctx)->versions;
    if (ctx->options.dynamic_list_data && sym->type == KLD_TYPE_OBJECT)
        return true;
    if (!v->listed)
        return false;
    struct kld_demangler demangler = {.arena = &worker->arena};
    return elf_version_lookup(v->listed, &demangler, elf_dynamic_name(sym)).scope ==
           ELF_VERSION_GLOBAL;
}

/* ---- tables ---- */

uint32_t elf_verdef_count(const struct kld_session *ctx)
{
    const struct elf_versions *v = elf_state(ctx)->versions;
    return v->defs.len > 2 ? (uint32_t)v->defs.len - 1 : 0;
}

uint32_t elf_verneed_count(const struct kld_session *ctx)
{
    return elf_state(ctx)->versions->nverneed;
}

/* Its version is then an index in that library, also if it is copied into the output. */
static bool is_of_library(const struct kld_symbol *sym)
{
    return sym->file && sym->file->kind == KLD_FILE_SHARED;
}

struct kld_str elf_version_name(const struct kld_session *ctx, const struct kld_symbol *sym,
                                bool *is_default)
{
    const struct elf_versions *v = elf_state(ctx)->versions;
    uint16_t n = sym->version & ~HIDDEN_VERSION;
    *is_default = !(sym->version & HIDDEN_VERSION);
    if (is_of_library(sym)) {
        *is_default = false;
        return n >= 2 ? elf_library_version(elf_shared(sym->file), n) : (struct kld_str){0};
    }
    return v && n >= 2 && n < v->defs.len ? v->defs.data[n] : (struct kld_str){0};
}

/* Parents of a version that the script names. */
static uint32_t parents_of(const struct elf_versions *v, uint32_t index, const uint32_t **list)
{
    *list = NULL;
    if (index < 2 || index - 2 >= v->script.nodes.len)
        return 0;
    *list = v->script.nodes.data[index - 2].parents.data;
    return (uint32_t)v->script.nodes.data[index - 2].parents.len;
}

/* As GNU ld has it: a version that nothing is said of and nothing has is weak, so that a library without it will
 * do. [i]: version i is not one. */
static const bool *find_strong(struct kld_session *ctx, const struct elf_versions *v)
{
    const struct elf_link *elf = elf_state(ctx);
    bool *strong = KLD_NEW_ARRAY(&ctx->arena, bool, v->defs.len);
    for (size_t i = 0; i < v->script.patterns.len; i++) {
        uint16_t number = elf_version_number(&v->script, v->script.patterns.data[i].node);
        if (number < v->defs.len)
            strong[number] = true;
    }
    for (size_t i = 1; i < elf->dynsyms.len; i++) {
        const struct kld_symbol *sym = elf->dynsyms.data[i];
        uint16_t number = sym->version & ~HIDDEN_VERSION;
        if (!sym->synthetic && !is_of_library(sym) && number < v->defs.len)
            strong[number] = true;
    }
    return strong;
}

static void make_verdef(struct kld_session *ctx)
{
    struct elf_versions *v = elf_state(ctx)->versions;
    uint32_t n = elf_verdef_count(ctx);
    if (!n)
        return;
    v->defs.data[1] = kld_str(own_name(ctx));
    const bool *strong = find_strong(ctx, v);
    size_t size = 0;
    for (uint32_t i = 1; i <= n; i++) {
        const uint32_t *parents;
        size += sizeof(Elf64_Verdef) + sizeof(Elf64_Verdaux) * (1 + parents_of(v, i, &parents));
    }
    uint8_t *out = KLD_NEW_ARRAY(&ctx->arena, uint8_t, size);
    struct kld_atom *atom =
        elf_make(ctx, ELF_VERDEF, ".gnu.version_d", SHT_GNU_verdef, SHF_ALLOC, 0, 3, size);
    atom->data = out;
    for (uint32_t i = 1; i <= n; i++) {
        const uint32_t *parents;
        uint32_t np = parents_of(v, i, &parents);
        uint32_t length = (uint32_t)(sizeof(Elf64_Verdef) + sizeof(Elf64_Verdaux) * (1 + np));
        Elf64_Verdef vd = {.vd_version = VER_DEF_CURRENT,
                           .vd_flags = i == 1      ? VER_FLG_BASE
                                       : strong[i] ? 0
                                                   : VER_FLG_WEAK,
                           .vd_ndx = (uint16_t)i,
                           .vd_cnt = (uint16_t)(1 + np),
                           .vd_hash = elf_sysv_hash(v->defs.data[i]),
                           .vd_aux = sizeof(Elf64_Verdef),
                           .vd_next = i < n ? length : 0};
        memcpy(out, &vd, sizeof(vd));
        for (uint32_t k = 0; k <= np; k++) {
            struct kld_str name = v->defs.data[k ? parents[k - 1] + 2 : i];
            Elf64_Verdaux aux = {.vda_name = elf_dynstr_add(ctx, name),
                                 .vda_next = k < np ? sizeof(Elf64_Verdaux) : 0};
            memcpy(out + sizeof(vd) + k * sizeof(aux), &aux, sizeof(aux));
        }
        out += length;
    }
}

/* glibc refuses DT_RELR without a dependency on this version, so that older ones refuse it too. */
static void need_relr(struct kld_session *ctx)
{
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_shared *lib = elf_needed_library(ctx, f);
        for (uint32_t k = 2; lib && k < lib->nversions; k++)
            if (kld_str_is(lib->versions[k], "GLIBC_ABI_DT_RELR"))
                lib->need_index[k] = 1;
    }
}

/* Marks the versions that .dynsym refers to, and numbers them behind our own. */
static uint32_t number_needs(struct kld_session *ctx, uint32_t *nfiles)
{
    const struct elf_link *elf = elf_state(ctx);
    for (uint32_t i = 1; i < elf->dynsyms.len; i++) {
        const struct kld_symbol *sym = elf->dynsyms.data[i];
        if (!is_of_library(sym))
            continue;
        struct elf_shared *lib = elf_shared(sym->file);
        if (sym->version >= 2 && sym->version < lib->nversions)
            lib->need_index[sym->version] = 1;
    }
    if (elf_packs_relative(ctx))
        need_relr(ctx);
    uint32_t next = KLD_MAX(2u, elf_verdef_count(ctx) + 1), total = 0;
    *nfiles = 0;
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        struct elf_shared *lib = elf_shared(ctx->files[f]);
        if (ctx->files[f]->kind != KLD_FILE_SHARED)
            continue;
        uint32_t here = 0;
        for (uint32_t k = 2; k < lib->nversions; k++)
            if (lib->need_index[k]) {
                lib->need_index[k] = (uint16_t)next++;
                here++;
            }
        total += here;
        *nfiles += here != 0;
    }
    return total;
}

static void put_need(struct kld_session *ctx, const struct elf_shared *lib, uint8_t **at,
                     bool last_file)
{
    uint32_t count = 0, done = 0;
    for (uint32_t k = 2; k < lib->nversions; k++)
        count += lib->need_index[k] != 0;
    Elf64_Verneed vn = {
        .vn_version = VER_NEED_CURRENT,
        .vn_cnt = (uint16_t)count,
        .vn_file = elf_dynstr_add(ctx, kld_str(lib->soname)),
        .vn_aux = sizeof(Elf64_Verneed),
        .vn_next =
            last_file ? 0 : (uint32_t)(sizeof(Elf64_Verneed) + count * sizeof(Elf64_Vernaux))};
    memcpy(*at, &vn, sizeof(vn));
    *at += sizeof(vn);
    for (uint32_t k = 2; k < lib->nversions; k++) {
        if (!lib->need_index[k])
            continue;
        Elf64_Vernaux aux = {.vna_hash = elf_sysv_hash(lib->versions[k]),
                             .vna_other = lib->need_index[k],
                             .vna_name = elf_dynstr_add(ctx, lib->versions[k]),
                             .vna_next = ++done < count ? sizeof(Elf64_Vernaux) : 0};
        memcpy(*at, &aux, sizeof(aux));
        *at += sizeof(aux);
    }
}

static bool needs_versions(const struct elf_shared *lib)
{
    for (uint32_t k = 2; k < lib->nversions; k++)
        if (lib->need_index[k])
            return true;
    return false;
}

static void make_verneed(struct kld_session *ctx)
{
    struct elf_versions *v = elf_state(ctx)->versions;
    uint32_t total = number_needs(ctx, &v->nverneed);
    if (!total)
        return;
    size_t size = v->nverneed * sizeof(Elf64_Verneed) + total * sizeof(Elf64_Vernaux);
    uint8_t *out = KLD_NEW_ARRAY(&ctx->arena, uint8_t, size);
    struct kld_atom *atom =
        elf_make(ctx, ELF_VERNEED, ".gnu.version_r", SHT_GNU_verneed, SHF_ALLOC, 0, 3, size);
    atom->data = out;
    uint32_t left = v->nverneed;
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (ctx->files[f]->kind == KLD_FILE_SHARED && needs_versions(elf_shared(ctx->files[f])))
            put_need(ctx, elf_shared(ctx->files[f]), &out, --left == 0);
}

static uint16_t versym_of(const struct kld_symbol *sym)
{
    if (is_of_library(sym)) {
        const struct elf_shared *lib = elf_shared(sym->file);
        return sym->version >= 2 && sym->version < lib->nversions ? lib->need_index[sym->version]
                                                                  : VER_NDX_GLOBAL;
    }
    if (sym->kind == KLD_SYM_UNDEFINED)
        return VER_NDX_LOCAL;
    return sym->version ? sym->version : VER_NDX_GLOBAL;
}

void elf_versions_synth(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    make_verdef(ctx);
    make_verneed(ctx);
    if (!elf->synth[ELF_VERDEF] && !elf->synth[ELF_VERNEED])
        return;
    size_t n = elf->dynsyms.len;
    uint8_t *out = KLD_NEW_ARRAY(&ctx->arena, uint8_t, 2 * n);
    struct kld_atom *atom =
        elf_make(ctx, ELF_VERSYM, ".gnu.version", SHT_GNU_versym, SHF_ALLOC, 2, 1, 2 * n);
    atom->data = out;
    for (size_t i = 1; i < n; i++)
        kld_put16(out + 2 * i, versym_of(elf->dynsyms.data[i]));
}
