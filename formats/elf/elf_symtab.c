/* elf_symtab.c - .symtab, .symtab_shndx and .strtab.
 *
 * The tables consist of parts, and each part of every table is an atom of its own, so that they
 * are written in parallel: for each file its local names; those of islands; then for each file the
 * global names that have become local; then for each file the other global names that it defines;
 * and at the end of each kind those that no object defines. A part is never stored. What belongs to
 * it is decided once, a bit a symbol; then the same walk counts it and, later, writes each table,
 * through a file's own tables from front to back. */
#include "formats/elf/elf_symtab_walk.h"
#include <stdlib.h>
#include "formats/elf/elf_relocatable.h"
#include "formats/elf/elf_symbols.h"
#include "src/layout.h"

enum { SPARE_SYMBOLS = 12, SPARE_NAMES = 256 }; /* of each file, at least, with slack */

/* ---- writing ---- */

static struct elf_symtab_walk walk_of(struct kld_session *ctx, const struct kld_atom *atom)
{
    const struct elf_symtab_part *part = atom->extra;
    return (struct elf_symtab_walk){.ctx = ctx,
                                    .table = elf_symtab_table(ctx),
                                    .first = part->first,
                                    .names_at = part->names,
                                    .noted = part->noted};
}

static void write_symbols(struct kld_session *ctx, struct kld_worker *worker,
                          const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    const struct elf_symtab_part *part = atom->extra;
    struct elf_symtab_walk w = walk_of(ctx, atom);
    w.syms = (elf_sym *)out;
    if (w.table->notes_numbers)
        w.global_numbers = w.table->global_numbers;
    elf_symtab_walk(&w, part);
    while (w.count < part->capacity) /* spare */
        elf_symtab_put_file_name(&w, (struct kld_str){0});
}

static void write_indices(struct kld_session *ctx, struct kld_worker *worker,
                          const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct elf_symtab_walk w = walk_of(ctx, atom);
    w.indices = (elf_word *)out;
    elf_symtab_walk(&w, atom->extra);
}

static void write_names(struct kld_session *ctx, struct kld_worker *worker,
                        const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct elf_symtab_walk w = walk_of(ctx, atom);
    w.names = (char *)out;
    elf_symtab_walk(&w, atom->extra);
}

/* ---- numbers, for relocations ---- */

uint32_t elf_symtab_number(const struct kld_session *ctx, uint32_t f, uint32_t i)
{
    const struct elf_symtab_table *t = elf_symtab_table(ctx);
    const struct elf_object *obj = elf_object(ctx->files[f]);
    if (!t)
        return 0;
    return i < obj->first_global ? t->local_numbers[f][i]
                                 : t->global_numbers[obj->base.ids[i - obj->first_global]];
}

uint32_t elf_symtab_section(const struct kld_session *ctx, const struct kld_section *section)
{
    const struct elf_symtab_table *t = elf_symtab_table(ctx);
    return t && section->id < t->nsection_ids ? t->section_numbers[section->id] : 0;
}

static void number_part(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)worker;
    struct elf_symtab_table *t = arg;
    const struct elf_symtab_part *part = &t->parts[i];
    struct elf_symtab_walk w = {.ctx = ctx, .table = t, .first = part->first, .noted = part->noted};
    w.global_numbers = t->global_numbers;
    if (part->kind == ELF_PART_LOCALS)
        w.local_numbers = t->local_numbers[part->file];
    elf_symtab_walk(&w, part);
}

static void mark_needed(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t f)
{
    struct elf_symtab_table *t = arg;
    struct elf_object *obj = elf_object(ctx->files[f]);
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    t->needed[f] = KLD_NEW_ARRAY(&worker->arena, uint64_t, obj->first_global / 64 + 1);
    t->local_numbers[f] = KLD_NEW_ARRAY(&worker->arena, uint32_t, obj->first_global);
    elf_relocatable_needs(ctx, obj, t->needed[f], t->needed_globals);
}

/* A symbol for each output section that holds something from an input, in input order. */
static void number_sections(struct kld_session *ctx, struct elf_symtab_table *t)
{
    t->nsection_ids = (uint32_t)ctx->sections.len;
    t->section_numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t, ctx->sections.len);
    t->sections = KLD_NEW_ARRAY(&ctx->arena, struct kld_section *, ctx->sections.len);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f];
        for (uint32_t i = 0; i < file->natoms; i++) {
            const struct kld_atom *atom = elf_symtab_kept_atom(ctx, &file->atoms[i]);
            if (!atom)
                continue;
            struct kld_section *section = elf_symtab_section_of(ctx, atom);
            if (t->section_numbers[section->id])
                continue;
            t->sections[t->nsections] = section;
            t->section_numbers[section->id] = ++t->nsections;
        }
    }
}

static void prepare_relocs(struct kld_session *ctx, struct elf_symtab_table *t)
{
    t->global_numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t, ctx->nsymbols);
    t->needed_globals = KLD_NEW_ARRAY(&ctx->arena, _Atomic uint8_t, ctx->nsymbols);
    t->needed = KLD_NEW_ARRAY(&ctx->arena, uint64_t *, ctx->nfiles);
    t->local_numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t *, ctx->nfiles);
    kld_parallel_for(ctx, ctx->nfiles, 4, mark_needed, t);
    number_sections(ctx, t);
}

static bool is_rest(const void *table, const struct kld_symbol *sym)
{
    return elf_symtab_is_rest(table, sym);
}

static void list_rest(struct kld_session *ctx, struct elf_symtab_table *t)
{
    elf_symid_list rest = elf_symbols_where(ctx, is_rest, t);
    t->rest = rest.data;
    t->nrest = (uint32_t)rest.len;
    for (size_t i = 0; i < rest.len; i++)
        if (elf_symtab_is_gnu(&ctx->symbols[rest.data[i]]))
            elf_symtab_note_gnu(t);
}

/* ---- sizes ---- */

static void count_part(struct kld_session *ctx, struct kld_worker *worker,
                       struct elf_symtab_table *t, struct elf_symtab_part *part)
{
    struct elf_symtab_walk w = {.ctx = ctx, .table = t, .arena = part->obj ? &worker->arena : NULL};
    elf_symtab_walk(&w, part);
    part->count = w.count;
    part->size = w.size;
    part->noted = w.notes.data;
}

static struct elf_symtab_part *object_part(const struct elf_symtab_table *t,
                                           enum elf_symtab_kind kind, size_t number)
{
    return &t->parts[t->objects_at[kind] + number];
}

/* What is kept of the object of that number, and how much that is: at once, while its symbols are in the cache. */
static void size_object(struct kld_session *ctx, struct kld_worker *worker, void *arg,
                        size_t number)
{
    struct elf_symtab_table *t = arg;
    const struct elf_symtab_part *locals = object_part(t, ELF_PART_LOCALS, number);
    struct elf_symtab_walk w = {.ctx = ctx, .table = t};
    elf_symtab_decide_locals(worker, &w, t, locals->file);
    elf_symtab_decide_globals(&w, t, locals->obj);
    count_part(ctx, worker, t, object_part(t, ELF_PART_LOCALS, number));
    if (!t->relocatable)
        count_part(ctx, worker, t, object_part(t, ELF_PART_HIDDEN, number));
    count_part(ctx, worker, t, object_part(t, ELF_PART_GLOBALS, number));
}

static void size_parts(struct kld_session *ctx, struct elf_symtab_table *t)
{
    t->kept = KLD_NEW_ARRAY(&ctx->arena, uint64_t *, ctx->nfiles);
    kld_parallel_for(ctx, t->nobjects, 4, size_object, t);
    for (uint32_t i = 0; i < t->nparts; i++)
        if (!t->parts[i].obj)
            count_part(ctx, kld_pool_worker(ctx, 0), t, &t->parts[i]);
}

static void list_objects(struct kld_session *ctx, struct elf_symtab_table *t,
                         enum elf_symtab_kind kind)
{
    t->objects_at[kind] = t->nparts;
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind == KLD_FILE_OBJECT)
            t->parts[t->nparts++] =
                (struct elf_symtab_part){.obj = obj, .kind = (uint8_t)kind, .file = f};
    }
    t->nobjects = t->nparts - t->objects_at[kind];
}

static void list_parts(struct kld_session *ctx, struct elf_symtab_table *t)
{
    t->parts = KLD_NEW_ARRAY(&ctx->arena, struct elf_symtab_part, 3 * (size_t)ctx->nfiles + 5);
    if (t->keeps_relocs)
        t->parts[t->nparts++] = (struct elf_symtab_part){.kind = ELF_PART_SECTIONS};
    list_objects(ctx, t, ELF_PART_LOCALS);
    if (!t->relocatable) {
        if (elf_state(ctx)->arch->islands)
            t->parts[t->nparts++] = (struct elf_symtab_part){.kind = ELF_PART_ISLANDS};
        t->parts[t->nparts++] = (struct elf_symtab_part){.kind = ELF_PART_NO_FILE};
        list_objects(ctx, t, ELF_PART_HIDDEN);
        t->parts[t->nparts++] = (struct elf_symtab_part){.kind = ELF_PART_HIDDEN};
    }
    list_objects(ctx, t, ELF_PART_GLOBALS);
    t->parts[t->nparts++] = (struct elf_symtab_part){.kind = ELF_PART_GLOBALS};
}

/* The symbol without a name is for others behind it, where there are names of files at all. */
static void drop_no_file(struct elf_symtab_table *t)
{
    struct elf_symtab_part *no_file = NULL;
    bool hidden = false;
    for (uint32_t i = 0; i < t->nparts; i++) {
        if (t->parts[i].kind == ELF_PART_NO_FILE)
            no_file = &t->parts[i];
        hidden |= t->parts[i].kind == ELF_PART_HIDDEN && t->parts[i].count;
    }
    if (no_file && (!hidden || t->discard == KLD_DISCARD_ALL || t->retains))
        no_file->count = 0;
}

/* What the parts hold: with slack, locals may join those that a file has. */
static void set_capacities(struct kld_session *ctx, struct elf_symtab_table *t)
{
    t->locals = KLD_NEW_ARRAY(&ctx->arena, struct elf_symtab_part *, ctx->nfiles);
    bool grows = ctx->slack && t->discard != KLD_DISCARD_ALL && !t->retains;
    for (uint32_t i = 0; i < t->nparts; i++) {
        struct elf_symtab_part *part = &t->parts[i];
        part->capacity = part->count;
        part->names_capacity = part->size;
        if (part->kind != ELF_PART_LOCALS)
            continue;
        t->locals[part->file] = part;
        if (!grows)
            continue;
        part->capacity += KLD_MAX(part->count / 4, (uint32_t)SPARE_SYMBOLS);
        part->names_capacity += KLD_MAX(part->size / 4, (uint64_t)SPARE_NAMES);
    }
}

/* Numbers and offsets of the parts; returns the number of the first global symbol. */
static uint32_t sum_parts(struct elf_symtab_table *t)
{
    uint64_t first_global = 0;
    t->nsymbols = 1;
    t->strtab_size = 1;
    for (uint32_t i = 0; i < t->nparts; i++) {
        struct elf_symtab_part *part = &t->parts[i];
        if (part->kind == ELF_PART_GLOBALS && !first_global)
            first_global = t->nsymbols;
        part->first = (uint32_t)t->nsymbols;
        part->names = t->strtab_size;
        t->nsymbols += part->capacity;
        t->strtab_size += part->names_capacity;
    }
    return (uint32_t)first_global;
}

/* ---- the atoms ---- */

typedef void generate_fn(struct kld_session *ctx, struct kld_worker *worker,
                         const struct kld_atom *atom, uint8_t *out);

/* One table: its atom for the entry 0, then one for each part. */
static struct kld_section *make_table(struct kld_session *ctx, struct elf_symtab_table *t,
                                      enum elf_synth which, const char *name, uint32_t type,
                                      uint32_t entsize, generate_fn *generate)
{
    uint8_t p2align = type == SHT_STRTAB ? 0 : entsize == 4 ? 2 : 3;
    struct kld_atom *first =
        elf_make(ctx, which, name, type, 0, type == SHT_STRTAB ? 0 : entsize, p2align, entsize);
    struct kld_section *section = ctx->sections.data[first->section];
    for (uint32_t i = 0; i < t->nparts; i++) {
        struct elf_symtab_part *part = &t->parts[i];
        uint64_t size =
            type == SHT_STRTAB ? part->names_capacity : (uint64_t)part->capacity * entsize;
        if (!size && part->kind != ELF_PART_ISLANDS)
            continue;
        struct kld_atom *atom = kld_atom_new(ctx, section, 0, p2align, size);
        atom->kind = KLD_ATOM_GENERATED;
        atom->generate = generate;
        atom->extra = part;
        if (type == SHT_SYMTAB)
            part->symbols = atom;
        else if (type == SHT_STRTAB)
            part->strings = atom;
        else
            part->indices = atom;
    }
    return section;
}

static void make_tables(struct kld_session *ctx, struct elf_symtab_table *t)
{
    struct kld_section *symtab =
        make_table(ctx, t, ELF_SYMTAB, ".symtab", SHT_SYMTAB, sizeof(Elf64_Sym), write_symbols);
    elf_state(ctx)->synth[ELF_SYMTAB]->extra = t;
    struct kld_section *strtab =
        make_table(ctx, t, ELF_STRTAB, ".strtab", SHT_STRTAB, 1, write_names);
    symtab->link = strtab;
    /* More sections may follow: relocations of each, and a few. */
    if (ctx->sections.len * (t->keeps_relocs ? 2 : 1) + 64 >= SHN_LORESERVE)
        make_table(ctx, t, ELF_SYMTAB_SHNDX, ".symtab_shndx", SHT_SYMTAB_SHNDX, 4, write_indices)
            ->link = symtab;
}

static bool check_size(struct kld_session *ctx, const struct elf_symtab_table *t)
{
    if (t->nsymbols <= UINT32_MAX && t->strtab_size <= UINT32_MAX)
        return true;
    kld_error(ctx, "too-large", NULL,
              "the symbol table is too large: %llu symbols with %llu bytes of names",
              (unsigned long long)t->nsymbols, (unsigned long long)t->strtab_size);
    return false;
}

/* Which undefined names a complete program may have: none, but where the user said so. */
static bool keeps_undefined(const struct kld_session *ctx)
{
    const struct kld_options *o = &ctx->options;
    return elf_keeps_relocs(ctx) || o->warn_unresolved || o->no_inhibit_exec ||
           o->unresolved == KLD_UNRESOLVED_IGNORE_ALL ||
           o->unresolved == KLD_UNRESOLVED_IGNORE_IN_OBJECT_FILES;
}

/* Some types and bindings mean what they mean only in a file of that ABI. */
static void note_abi(struct kld_session *ctx, struct elf_symtab_table *t)
{
    struct elf_link *elf = elf_state(ctx);
    bool gnu = elf->uses_gnu_osabi || atomic_load(&t->gnu);
    for (size_t i = 1; i < elf->dynsyms.len && !gnu; i++)
        gnu = elf_symtab_is_gnu(elf->dynsyms.data[i]);
    elf->uses_gnu_osabi = gnu;
}

void elf_symtab_synth(struct kld_session *ctx)
{
    struct elf_symtab_table *t = KLD_NEW(&ctx->arena, struct elf_symtab_table);
    t->relocatable = elf_state(ctx)->is_relocatable;
    t->keeps_relocs = elf_keeps_relocs(ctx);
    t->keeps_undefined = keeps_undefined(ctx);
    elf_symtab_set_discard(ctx, t);
    note_abi(ctx, t);
    if (ctx->options.strip == KLD_STRIP_ALL) {
        if (!t->keeps_relocs)
            return;
        t->discard = KLD_DISCARD_ALL; /* relocations need a symbol table */
    }
    elf_symtab_read_retained(ctx, t);
    if (t->keeps_relocs)
        prepare_relocs(ctx, t);
    list_rest(ctx, t);
    list_parts(ctx, t);
    size_parts(ctx, t);
    drop_no_file(t);
    note_abi(ctx, t);
    set_capacities(ctx, t);
    uint32_t first_global = sum_parts(t);
    if (!check_size(ctx, t))
        return;
    make_tables(ctx, t);
    ctx->sections.data[elf_state(ctx)->synth[ELF_SYMTAB]->section]->info = first_global;
    if (t->keeps_relocs)
        kld_parallel_for(ctx, t->nparts, 4, number_part, t);
    t->notes_numbers = ctx->slack && !ctx->options.incremental_verify;
    if (t->notes_numbers)
        t->global_numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t, ctx->nsymbols);
}

/* ---- the part of a file ---- */

bool elf_symtab_locals(const struct kld_session *ctx, uint32_t f, struct elf_symtab_locals *out)
{
    const struct elf_symtab_table *t = elf_symtab_table(ctx);
    if (!t || !t->locals[f])
        return false;
    const struct elf_symtab_part *part = t->locals[f];
    *out = (struct elf_symtab_locals){.first = part->first,
                                      .count = part->count,
                                      .capacity = part->capacity,
                                      .names = part->names,
                                      .names_size = part->size,
                                      .names_capacity = part->names_capacity};
    return true;
}

/* ---- incremental links ---- */

static void number_globals(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    const struct elf_symtab_table *t = arg;
    if (t->parts[i].kind == ELF_PART_HIDDEN || t->parts[i].kind == ELF_PART_GLOBALS)
        number_part(ctx, worker, arg, i);
}

const uint32_t *elf_symbol_numbers(struct kld_session *ctx)
{
    struct elf_symtab_table *t = elf_symtab_table(ctx);
    if (!t || t->notes_numbers)
        return t ? t->global_numbers : NULL;
    t->global_numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t, ctx->nsymbols);
    kld_parallel_for(ctx, t->nparts, 16, number_globals, t);
    return t->global_numbers;
}

bool elf_symtab_again(struct kld_session *ctx, uint32_t f, const struct elf_symtab_locals *old,
                      struct elf_symtab_locals *out, uint8_t **symbols, uint8_t **names)
{
    struct kld_worker *worker = kld_pool_worker(ctx, 0);
    struct elf_symtab_table t = {.kept = KLD_NEW_ARRAY(&ctx->arena, uint64_t *, ctx->nfiles)};
    struct elf_symtab_part part = {.obj = elf_object(ctx->files[f]),
                                   .kind = ELF_PART_LOCALS,
                                   .file = f,
                                   .first = old->first,
                                   .names = old->names};
    elf_symtab_set_discard(ctx, &t);
    elf_symtab_read_retained(ctx, &t);
    struct elf_symtab_walk w = {.ctx = ctx, .table = &t};
    elf_symtab_decide_locals(worker, &w, &t, f);
    elf_symtab_walk(&w, &part);
    *out = *old;
    out->count = w.count;
    out->names_size = w.size;
    if (w.count > old->capacity || w.size > old->names_capacity)
        return false;
    *symbols = (uint8_t *)KLD_NEW_ARRAY(&ctx->arena, Elf64_Sym, old->capacity);
    *names = KLD_NEW_ARRAY(&ctx->arena, uint8_t, old->names_capacity);
    w = (struct elf_symtab_walk){
        .ctx = ctx, .table = &t, .first = part.first, .names_at = part.names};
    w.syms = (elf_sym *)*symbols;
    w.names = (char *)*names;
    elf_symtab_walk(&w, &part);
    while (w.count < old->capacity)
        elf_symtab_put_file_name(&w, (struct kld_str){0});
    return true;
}

/* ---- growing ---- */

static struct elf_symtab_part *islands_part(struct elf_symtab_table *t)
{
    for (uint32_t i = 0; t && i < t->nparts; i++)
        if (t->parts[i].kind == ELF_PART_ISLANDS)
            return &t->parts[i];
    return NULL;
}

void elf_symtab_islands(struct kld_session *ctx)
{
    struct elf_symtab_table *t = elf_symtab_table(ctx);
    struct elf_symtab_part *part = islands_part(t);
    if (!part)
        return;
    struct elf_symtab_walk w = {.ctx = ctx, .table = t};
    elf_symtab_walk(&w, part);
    part->count = part->capacity = w.count;
    part->size = part->names_capacity = w.size;
    ctx->sections.data[part->symbols->section]->info = sum_parts(t);
    if (!check_size(ctx, t))
        return;
    part->symbols->size = part->count * sizeof(Elf64_Sym);
    part->strings->size = part->size;
    if (part->indices)
        part->indices->size = 4ull * part->count;
    if (t->keeps_relocs)
        kld_parallel_for(ctx, t->nparts, 4, number_part, t);
}
