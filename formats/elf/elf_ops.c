/* elf_ops.c - ELF as the core sees it: the table of kld_format_ops, and the passes that only call
 * the files of this folder in order. */
#include "formats/elf/elf_arch.h"
#include "formats/elf/elf_binary.h"
#include "formats/elf/elf_compress.h"
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_gc.h"
#include "formats/elf/elf_local.h"
#include "formats/elf/elf_names.h"
#include "formats/elf/elf_reloc.h"
#include "formats/elf/elf_icf.h"
#include "formats/elf/elf_relocatable.h"
#include "formats/elf/elf_slack.h"
#include "formats/elf/elf_symbols.h"
#include "formats/elf/elf_tables.h"
#include "formats/elf/elf_version.h"
#include "src/layout.h"
#include "src/resolve.h"
#include <stddef.h>
#include <stdlib.h>

static bool has_option(const struct elf_arch_ops *arch, size_t option)
{
    for (uint32_t i = 0; i < arch->noptions; i++)
        if (arch->options[i] == option)
            return true;
    return false;
}

/* Options that change code in ways that not every CPU knows */
static void check_cpu_options(struct kld_session *ctx)
{
    static const struct {
        size_t option; /* a bool */
        const char *name;
    } cpu_options[] = {
        {offsetof(struct kld_options, z_pac_plt), "-z pac-plt"},
        {offsetof(struct kld_options, z_force_bti), "-z force-bti"},
        {offsetof(struct kld_options, execute_only), "--execute-only"},
        {offsetof(struct kld_options, fix_cortex_a53_835769), "--fix-cortex-a53-835769"},
        {offsetof(struct kld_options, fix_cortex_a53_843419), "--fix-cortex-a53-843419"},
    };
    for (size_t i = 0; i < KLD_COUNT(cpu_options); i++) {
        bool given;
        memcpy(&given, (const char *)&ctx->options + cpu_options[i].option, sizeof(given));
        if (given && !has_option(elf_state(ctx)->arch, cpu_options[i].option))
            kld_error(ctx, "bad-option", NULL, "%s is not supported on %s", cpu_options[i].name,
                      ctx->arch->name);
    }
}

void elf_begin(struct kld_session *ctx)
{
    struct elf_link *elf = KLD_NEW(&ctx->arena, struct elf_link);
    const struct kld_options *o = &ctx->options;
    ctx->format_state = elf;
    elf->arch = ctx->arch->by_format[0];
    elf->is_shared = o->kind == KLD_KIND_SHARED;
    elf->is_relocatable = o->kind == KLD_KIND_RELOCATABLE;
    elf->is_pic = elf->is_shared || o->kind == KLD_KIND_PIE;
    elf->image_base = o->image_base != UINT64_MAX          ? o->image_base
                      : elf->is_pic || elf->is_relocatable ? 0
                                                           : ctx->arch->image_base;
    elf->tlsld = ELF_NONE;
    elf->name_caches = elf_name_caches_new(ctx);
    elf_add_aux(ctx); /* number 0 is no slots */
    check_cpu_options(ctx);
    if (o->orphan_handling != KLD_ORPHAN_PLACE)
        kld_error(ctx, "bad-option", NULL,
                  "--orphan-handling is not supported: without a linker script every section is "
                  "placed by its name");
    ctx->executable = !elf->is_relocatable;
    ctx->internal = elf_new_file(ctx, &ctx->arena, KLD_FILE_INTERNAL);
    ctx->internal->format = ctx->format;
    ctx->internal->path = "<internal>";
    elf_headers_begin(ctx);
}

static bool same_library(const struct kld_file *a, const struct kld_file *b)
{
    return strcmp(elf_shared(a)->soname, elf_shared(b)->soname) == 0;
}

/* gABI: what several inputs of one name and of different types make. */
static void combine(struct kld_section *s, uint32_t type, uint64_t flags, uint64_t entsize)
{
    const uint64_t all_have = SHF_MERGE | SHF_STRINGS;
    if (s->type == SHT_NOBITS)
        s->type = type;
    else if (type != SHT_NOBITS)
        s->type = KLD_MIN(s->type, type);
    uint64_t both = s->format_flags & flags & all_have;
    s->format_flags = ((s->format_flags | flags) & ~all_have) | both;
    if (s->entsize != entsize) {
        s->entsize = 0;
        s->format_flags &= ~all_have;
    }
}

static struct kld_section *anchor(struct kld_session *ctx)
{
    return elf_state(ctx)->headers;
}

static uint64_t place_address(const struct kld_atom *atom, uint64_t offset)
{
    return elf_atom_address(atom, offset);
}

static void classify_block(struct kld_session *ctx, struct kld_worker *worker, void *arg,
                           size_t block)
{
    (void)worker;
    uint8_t *classes = arg;
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * ELF_SYMBOL_BLOCK, ctx->nsymbols);
    for (kld_symid id = (kld_symid)(block * ELF_SYMBOL_BLOCK); id < end; id++)
        classes[id] = (uint8_t)elf_classify_global(&ctx->symbols[id]);
}

static void scan_begin(struct kld_session *ctx)
{
    size_t blocks = (ctx->nsymbols + ELF_SYMBOL_BLOCK - 1) / ELF_SYMBOL_BLOCK;
    uint8_t *classes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, ctx->nsymbols);
    kld_parallel_for(ctx, blocks, 4, classify_block, classes);
    elf_state(ctx)->classes = classes;
}

static bool is_scanned(const struct kld_atom *atom)
{
    return atom->live && atom->nedges && (atom->flags & KLD_ATOM_ALLOC) &&
           atom->kind == KLD_ATOM_BYTES;
}

/* All at once, in order: relocations ask for them in any order, and would wait for memory each time. They stay in
 * the worker's buffer, for which scan has no other use. */
static void classify_locals(struct kld_worker *worker, struct elf_object *obj)
{
    uint8_t *classes = kld_worker_buffer(worker, obj->first_global);
    for (uint32_t i = 0; i < obj->first_global; i++)
        classes[i] = (uint8_t)elf_classify_local(obj, i);
    obj->local_classes = classes;
}

static void scan(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file)
{
    struct elf_object *obj = elf_object(file);
    if (file->kind != KLD_FILE_OBJECT || elf_state(ctx)->is_relocatable)
        return;
    for (uint32_t i = 0; i < file->natoms; i++)
        if (is_scanned(&file->atoms[i])) {
            if (!obj->local_classes)
                classify_locals(worker, obj);
            elf_state(ctx)->arch->scan(ctx, worker, obj, &file->atoms[i]);
        }
    elf_eh_scan(ctx, worker, obj);
    obj->local_classes = NULL;
}

static void apply(struct kld_session *ctx, struct kld_worker *worker, const struct kld_atom *atom,
                  uint8_t *out)
{
    const struct elf_arch_ops *arch = elf_state(ctx)->arch;
    struct elf_object *obj = elf_object(atom->file);
    if (elf_state(ctx)->is_relocatable)
        return;
    if (atom->flags & KLD_ATOM_ALLOC)
        arch->apply(ctx, worker, obj, atom, out);
    else
        arch->apply_debug(ctx, worker, obj, atom, out);
}

/* The entry point, and what GNU ld says if there is none. */
static void find_entry(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    const char *name = ctx->options.entry ? ctx->options.entry : "_start";
    if (name[0] >= '0' && name[0] <= '9') {
        elf->entry_number = strtoull(name, NULL, 0);
        return;
    }
    elf->entry = kld_symbol_find(ctx, kld_str(name));
    bool found =
        elf->entry && (elf->entry->kind == KLD_SYM_DEFINED || elf->entry->kind == KLD_SYM_ABSOLUTE);
    if (!found && (!elf->is_shared || ctx->options.entry))
        kld_warning(ctx, "no-entry", NULL, "cannot find entry symbol %s; not setting start address",
                    name);
}

static void make_eh_frame_hdr(struct kld_session *ctx)
{
    uint64_t size = elf_eh_hdr_size(ctx);
    if (!ctx->options.eh_frame_hdr || !size)
        return;
    struct kld_atom *atom =
        elf_make(ctx, ELF_EH_FRAME_HDR, ".eh_frame_hdr", SHT_PROGBITS, SHF_ALLOC, 0, 2, size);
    atom->kind = KLD_ATOM_GENERATED;
    atom->generate = elf_eh_hdr_write;
}

static void synth(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    if (elf->is_relocatable) {
        elf_relocatable_synth(ctx);
        return;
    }
    find_entry(ctx);
    elf_eh_synth(ctx);
    make_eh_frame_hdr(ctx);
    elf_slots_synth(ctx);
    elf_notes_synth(ctx);
    if (elf->is_dynamic)
        elf_dynsym_synth(ctx);
    elf_dynrel_synth(ctx);
    if (elf->is_dynamic) {
        elf_dynamic_synth(ctx);
        elf_dynstr_seal(ctx);
    }
    elf_symtab_synth(ctx);
    if (ctx->slack)
        elf_slack_synth(ctx);
    if (ctx->options.emit_relocs)
        elf_relocatable_synth(ctx);
}

static void finish(struct kld_session *ctx)
{
    if (elf_state(ctx)->is_relocatable)
        return;
    elf_eh_finish(ctx);
    elf_dynrel_finish(ctx);
    elf_dynamic_finish(ctx);
    elf_compress_debug(ctx);
}

const struct kld_format_ops kld_format_elf = {
    .name = "ELF",
    .updater = &elf_updater,
    .probe = elf_probe,
    .new_file = elf_new_file,
    .parse = elf_parse,
    .name_at = elf_name_at,
    .list = elf_list,
    .ask = elf_ask,
    .unlisted = elf_unlisted,
    .same_library = same_library,
    .begin = elf_begin,
    .builtin_names = elf_versions_read,
    .binary_object = elf_binary_object,
    .make_atoms = elf_make_atoms,
    .combine = combine,
    .bind = elf_bind,
    .definition = elf_definition,
    .is_absolute = elf_is_absolute,
    .bind_all = elf_bind_all,
    .anchor = anchor,
    .symbol_address = elf_symbol_address,
    .place_address = place_address,
    .atom_name = elf_atom_name,
    .describe = elf_describe,
    .local = elf_local,
    .own_symbols = elf_own_symbols,
    .edges = elf_edges,
    .gc_roots = elf_gc_roots,
    .gc_follow = elf_gc_follow,
    .gc_symbol = elf_gc_symbol,
    .icf_keep = elf_icf_keep,
    .icf_more = elf_icf_more,
    .scan_begin = scan_begin,
    .scan = scan,
    .synth = synth,
    .place = elf_place,
    .layout = elf_layout,
    .finish = finish,
    .apply = apply,
    .write_records = elf_eh_write,
    .seal = elf_seal,
};
