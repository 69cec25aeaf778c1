/* elf_symtab.c - .symtab, .symtab_shndx and .strtab.
 *
 * The tables consist of parts, and each part of every table is an atom of its own, so that they
 * are written in parallel: for each file its local names; those of islands; then for each file the
 * global names that have become local; then for each file the other global names that it defines;
 * and at the end of each kind those that no object defines. A part is never stored. What belongs to
 * it is decided once, a bit a symbol; then the same walk counts it and, later, writes each table,
 * through a file's own tables from front to back.
 *
 * What is kept follows GNU ld: -s, -S, -x, -X, --retain-symbols-file; local names of mergeable
 * sections that begin with .L are dropped by default; a file that has no STT_FILE symbol gets one
 * with its name, so that its functions are not taken for those of the file before it. */
#include "formats/elf/elf_symtab.h"
#include <stdio.h>
#include <stdlib.h>
#include "formats/elf/elf_reloc.h"
#include "formats/elf/elf_relocatable.h"
#include "formats/elf/elf_symbols.h"
#include "src/layout.h"
#include "src/resolve.h"

/* In kld_file.classes, whose other bits are taken: how a global name of the file is kept. */
enum { KEPT_HIDDEN = 1 << 6, KEPT_GLOBAL = 1 << 7 };

enum { SPARE_SYMBOLS = 12, SPARE_NAMES = 256 }; /* of each file, at least, with slack */

enum kind {
    SECTIONS, /* one symbol for each output section */
    LOCALS,   /* of a file */
    ISLANDS,  /* code that the linker has made for branches */
    NO_FILE,  /* an STT_FILE symbol without a name: what follows is of no file in particular */
    HIDDEN,   /* global names that became local: of a file, or of table.rest */
    GLOBALS,  /* of a file, or of table.rest */
};
enum { KINDS = GLOBALS + 1 };

/* A name that a part has, in the string table of its file: noted once, so that later walks need not look at the
 * input's symbols and strings, which are cold, for more than what they copy. (Of clang's CPU time that is 4%.) */
struct noted {
    uint32_t text;
    uint32_t len : 31;
    uint32_t is_mapping : 1;
};

/* A run of symbols. Capacities are what it holds; with slack that is more for LOCALS. */
struct part {
    struct elf_object *obj; /* NULL: of table.rest */
    uint8_t kind;
    uint32_t file;  /* index in ctx->files */
    uint32_t first; /* number of its first symbol */
    uint32_t count, capacity;
    uint64_t names; /* offset in .strtab, */
    uint64_t size;  /* what they take there, */
    uint64_t names_capacity;
    const struct noted *noted; /* of `count` names of a file, or NULL */
    /* Of ISLANDS, which grow: the parts of the tables */
    struct kld_atom *symbols, *strings, *indices;
};

struct table {
    struct part *parts;
    uint32_t nparts;
    uint32_t objects_at[KINDS]; /* the first of those of that kind that are of objects */
    uint32_t nobjects;
    struct part **locals; /* by file: its part of kind LOCALS, or NULL */
    uint64_t **kept;      /* by file: bits of its local symbols */
    _Atomic bool gnu;     /* there is something that only ELFOSABI_GNU has */
    uint64_t nsymbols, strtab_size;
    kld_symid *rest; /* symbols that no object defines */
    uint32_t nrest;
    enum kld_discard discard;
    struct kld_str *retained; /* sorted; of --retain-symbols-file */
    size_t nretained;
    bool retains;
    bool relocatable;
    bool keeps_undefined; /* that nothing was found to need: not those of a complete program */
    bool notes_numbers;   /* writing it fills in global_numbers, for the state of the link */
    /* Only where relocations against .symtab are written: */
    bool keeps_relocs;
    struct kld_section **sections; /* that have a symbol, in its order */
    uint32_t nsections;
    uint32_t *section_numbers; /* by section id */
    uint32_t nsection_ids;
    uint64_t **needed;               /* by file: bits of the local symbols that relocations name */
    uint32_t **local_numbers;        /* by file */
    uint32_t *global_numbers;        /* by id */
    _Atomic uint8_t *needed_globals; /* by id */
};

static struct table *get_table(const struct kld_session *ctx)
{
    struct kld_atom *atom = elf_state(ctx)->synth[ELF_SYMTAB];
    return atom ? atom->extra : NULL;
}

/* What a walk over a part is for: any of the pointers may be NULL. */
struct walk {
    struct kld_session *ctx;
    const struct table *table;
    elf_sym *syms;
    char *names;
    elf_word *indices;       /* .symtab_shndx */
    uint32_t *local_numbers; /* of symbols in their file */
    uint32_t *global_numbers;
    uint32_t first;    /* number of the part's first symbol */
    uint64_t names_at; /* offset of the part in .strtab */
    uint32_t count;
    uint64_t size;             /* of names */
    const struct noted *noted; /* names, by count, if they have been noted */
    struct kld_arena *arena;   /* where they are to be, if they have not */
    KLD_VEC(struct noted) notes;
    /* The last mapping symbol's name, in the input, and where it is: most of a file have one. */
    bool is_mapping; /* what is put next */
    const char *mapping;
    uint64_t mapping_at;
};

/* ---- one symbol ---- */

static void set_section(struct walk *w, elf_sym *out, uint32_t number)
{
    if (number < SHN_LORESERVE) {
        out->st_shndx = (uint16_t)number;
        return;
    }
    out->st_shndx = SHN_XINDEX;
    if (w->indices)
        w->indices[w->count] = number;
}

/* Adds the name, and the symbol's record, which *out then points at, if it is wanted. */
static bool put(struct walk *w, struct kld_str name, elf_sym **out, elf_sym *scratch)
{
    uint64_t at = w->size;
    if (name.len && name.ptr == w->mapping) {
        at = w->mapping_at;
    } else if (name.len) {
        w->size += name.len + 1;
        if (w->names)
            memcpy(w->names + at, name.ptr, name.len);
    }
    if (w->is_mapping) {
        w->mapping = name.ptr;
        w->mapping_at = at;
        w->is_mapping = false;
    }
    *out = w->syms ? &w->syms[w->count] : scratch;
    if (!w->syms && !w->indices)
        return false;
    (*out)->st_name = name.len ? (uint32_t)(w->names_at + at) : 0;
    return true;
}

/* The record's section: a real one, or SHN_ABS where it did not make it into the output. The
 * headers are none, but what is in them moves with the image, as does the section behind them. */
static void set_place(struct walk *w, elf_sym *out, const struct kld_section *section)
{
    uint32_t number = section ? section->number : 0;
    if (section && section == elf_state(w->ctx)->headers)
        number = 1;
    if (number)
        set_section(w, out, number);
    else
        out->st_shndx = SHN_ABS;
}

static uint64_t tls_value(const struct walk *w, uint64_t address)
{
    return w->table->relocatable ? address : address - elf_state(w->ctx)->tls_start;
}

static struct kld_section *section_of(const struct kld_session *ctx, const struct kld_atom *atom)
{
    if (atom->kind == KLD_ATOM_PIECES && atom->pieces->merged)
        atom = atom->pieces->merged;
    return ctx->sections.data[atom->section];
}

/* ---- what is kept ---- */

static int compare_names(const void *a, const void *b)
{
    const struct kld_str *x = a, *y = b;
    int order = memcmp(x->ptr, y->ptr, KLD_MIN(x->len, y->len));
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

static bool is_retained(const struct table *t, struct kld_str name)
{
    if (!t->retains)
        return true;
    return t->nretained &&
           bsearch(&name, t->retained, t->nretained, sizeof(name), compare_names) != NULL;
}

/* The names that assemblers and compilers give to labels of their own. */
static bool is_label_name(struct kld_str name)
{
    return kld_str_starts(name, ".L") || kld_str_starts(name, "..") ||
           kld_str_starts(name, "_.L_") || kld_str_starts(name, "L0\001");
}

static const char *text_of(const struct elf_object *obj, uint32_t symbol)
{
    return (const char *)obj->strtab.ptr + obj->syms[symbol].st_name;
}

static struct kld_str global_name(const struct elf_object *obj, uint32_t i)
{
    return kld_str(text_of(obj, obj->first_global + i));
}

static void note(struct walk *w, struct noted noted)
{
    if (w->arena)
        *kld_vec_push(w->arena, &w->notes) = noted;
}

static struct kld_str noted_name(const struct walk *w, const struct elf_object *obj)
{
    const struct noted *noted = &w->noted[w->count];
    return (struct kld_str){(const char *)obj->strtab.ptr + noted->text, noted->len};
}

/* The name of a local symbol, which is put next. Mapping symbols ($x, $d) have names of this form. */
static struct kld_str next_local_name(struct walk *w, const struct elf_object *obj, uint32_t symbol)
{
    if (w->noted) {
        w->is_mapping = w->noted[w->count].is_mapping;
        return noted_name(w, obj);
    }
    struct kld_str name = kld_str(text_of(obj, symbol));
    w->is_mapping = name.len && *name.ptr == '$';
    note(w, (struct noted){obj->syms[symbol].st_name, (uint32_t)name.len, w->is_mapping});
    return name;
}

/* global_name of a global name that the file defines, which is put next. The symbol knows the length, unless the
 * name in the file is one with a version. */
static struct kld_str next_global_name(struct walk *w, const struct elf_object *obj, uint32_t i)
{
    if (w->noted)
        return noted_name(w, obj);
    struct kld_str name = {text_of(obj, obj->first_global + i), 0};
    name.len = kld_unlikely(obj->has_versions) ? strlen(name.ptr)
                                               : w->ctx->symbols[obj->base.ids[i]].name_len;
    note(w, (struct noted){obj->syms[obj->first_global + i].st_name, (uint32_t)name.len, false});
    return name;
}

static bool is_needed(const struct walk *w, uint32_t file, uint32_t i)
{
    return w->table->needed && (w->table->needed[file][i / 64] >> i % 64 & 1);
}

static const struct kld_atom *kept_atom(const struct kld_session *ctx, const struct kld_atom *atom)
{
    if (atom)
        atom = elf_output_atom(atom);
    if (!atom || !atom->live || ctx->sections.data[atom->section]->discarded)
        return NULL;
    return atom;
}

/* Whether a local symbol of the file is dropped for its name. */
static bool is_discarded_name(const struct walk *w, const struct elf_object *obj, uint32_t shndx,
                              const elf_sym *sym)
{
    const struct table *t = w->table;
    const char *name = (const char *)obj->strtab.ptr + sym->st_name;
    if (t->retains && !is_retained(t, kld_str(name)))
        return true;
    bool labels = t->discard == KLD_DISCARD_LOCALS;
    if (t->discard == KLD_DISCARD_DEFAULT && !t->relocatable && shndx < obj->nshdrs)
        labels = obj->shdrs[shndx].sh_flags & SHF_MERGE;
    return labels && is_label_name(kld_str(name));
}

/* Of a loop over global names, at number i, that looks at the symbols of those with that bit */
static void ask_ahead(const struct walk *w, const struct elf_object *obj, uint32_t i, uint8_t bit)
{
    uint32_t next = i + KLD_ASK_AHEAD;
    if (next < obj->base.nglobals && (obj->base.classes[next] & bit))
        kld_ask_for_symbol(w->ctx, &obj->base, next);
}

/* The symbol, if this file defines its global name number i and it is part of the output. */
static struct kld_symbol *defined_by(const struct walk *w, const struct elf_object *obj, uint32_t i)
{
    if (!(obj->base.classes[i] & KLD_NAME_WON))
        return NULL;
    struct kld_symbol *sym = &w->ctx->symbols[obj->base.ids[i]];
    if (sym->file != &obj->base || sym->index != obj->first_global + i || sym->synthetic)
        return NULL;
    switch ((enum kld_symbol_kind)sym->kind) {
    case KLD_SYM_DEFINED: return sym->in_section || kept_atom(w->ctx, sym->atom) ? sym : NULL;
    case KLD_SYM_ABSOLUTE:
    case KLD_SYM_COMMON: return sym;
    case KLD_SYM_UNDEFINED:
    case KLD_SYM_IMPORTED: break;
    }
    return NULL;
}

static bool is_definition(const struct kld_symbol *sym)
{
    return sym->kind == KLD_SYM_DEFINED || sym->kind == KLD_SYM_ABSOLUTE;
}

static bool becomes_local(const struct table *t, const struct kld_symbol *sym)
{
    unsigned vis = atomic_load_explicit(&sym->visibility, memory_order_relaxed);
    return !t->relocatable && is_definition(sym) &&
           (sym->forced_local || vis == KLD_VISIBILITY_HIDDEN || vis == KLD_VISIBILITY_INTERNAL);
}

static bool is_kept_global(const struct walk *w, kld_symid id, struct kld_str name)
{
    return is_retained(w->table, name) ||
           (w->table->needed_globals && w->table->needed_globals[id]);
}

/* ---- local symbols ---- */

static void put_file_name(struct walk *w, struct kld_str name)
{
    elf_sym *out, scratch;
    note(w, (struct noted){.len = (uint32_t)name.len});
    if (put(w, name, &out, &scratch)) {
        out->st_info = ELF64_ST_INFO(STB_LOCAL, STT_FILE);
        out->st_shndx = SHN_ABS;
    }
    w->count++;
}

static struct kld_str file_name(const struct kld_file *file)
{
    const char *path = file->member ? file->member : file->path;
    const char *slash = strrchr(path, '/');
    return kld_str(slash ? slash + 1 : path);
}

/* In an atom, or (the signature of a group) in a section only, or (absolute) in neither. */
struct place {
    const struct kld_atom *atom;
    const struct kld_section *section;
};

static uint64_t local_value(const struct walk *w, const struct kld_atom *atom, const elf_sym *sym)
{
    if (!atom)
        return sym->st_value;
    uint64_t value = elf_atom_address(atom, sym->st_value);
    return ELF64_ST_TYPE(sym->st_info) == STT_TLS ? tls_value(w, value) : value;
}

/* Where a local symbol is; false if that is not part of the output. */
static bool find_local(const struct walk *w, const struct part *part, uint32_t shndx,
                       struct place *place)
{
    const struct elf_object *obj = part->obj;
    *place = (struct place){0};
    if (shndx == ELF_RESERVED(SHN_ABS))
        return true;
    if (w->table->relocatable && shndx < obj->nshdrs && obj->shdrs[shndx].sh_type == SHT_GROUP) {
        place->section = elf_relocatable_group(w->ctx, part->file, shndx);
        return place->section;
    }
    place->atom = kept_atom(w->ctx, elf_section_atom(obj, shndx));
    if (place->atom)
        place->section = section_of(w->ctx, place->atom);
    return place->atom;
}

static void put_local(struct walk *w, const struct part *part, uint32_t i)
{
    elf_sym *out, scratch;
    const elf_sym *sym = &part->obj->syms[i];
    if (w->local_numbers)
        w->local_numbers[i] = w->first + w->count;
    if (put(w, next_local_name(w, part->obj, i), &out, &scratch)) {
        struct place place;
        find_local(w, part, elf_sym_section(part->obj, i), &place);
        out->st_info = sym->st_info;
        out->st_other = sym->st_other;
        out->st_size =
            place.atom ? elf_size_in(place.atom, sym->st_value, sym->st_size) : sym->st_size;
        set_place(w, out, place.section);
        out->st_value = local_value(w, place.atom, sym);
    }
    w->count++;
}

static bool is_kept_local(const struct walk *w, const struct part *part, uint32_t i)
{
    const struct elf_object *obj = part->obj;
    const elf_sym *sym = &obj->syms[i];
    uint32_t shndx = elf_sym_section(obj, i);
    struct place place;
    if (ELF64_ST_TYPE(sym->st_info) == STT_SECTION || shndx == SHN_UNDEF)
        return false;
    bool needed = is_needed(w, part->file, i);
    if (!needed && w->table->discard == KLD_DISCARD_ALL)
        return false;
    if (!find_local(w, part, shndx, &place))
        return false;
    return needed || !is_discarded_name(w, obj, shndx, sym);
}

static void walk_locals(struct walk *w, const struct part *part)
{
    const struct elf_object *obj = part->obj;
    const uint64_t *kept = w->table->kept[part->file];
    bool has_file = w->table->discard == KLD_DISCARD_ALL;
    for (uint32_t word = 0; kept && word <= obj->first_global / 64; word++)
        for (uint64_t bits = kept[word]; bits; bits &= bits - 1) {
            uint32_t i = word * 64 + (uint32_t)__builtin_ctzll(bits);
            const elf_sym *sym = &obj->syms[i];
            if (!has_file && ELF64_ST_TYPE(sym->st_info) != STT_FILE)
                put_file_name(w, file_name(&obj->base));
            has_file = true;
            put_local(w, part, i);
        }
}

/* ---- global symbols ---- */

/* Whether to other modules the symbol is its PLT entry: an imported function whose address this
 * program takes, and an exported ifunc, which is a plain function to them. */
static bool is_plt_entry(const struct kld_symbol *sym)
{
    return sym->aux && kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT) &&
           (sym->kind == KLD_SYM_IMPORTED || (sym->type == KLD_TYPE_IFUNC && sym->exported));
}

static unsigned symbol_type(const struct kld_symbol *sym)
{
    switch ((enum kld_symbol_type)sym->type) {
    case KLD_TYPE_OBJECT: return STT_OBJECT;
    case KLD_TYPE_FUNCTION: return STT_FUNC;
    case KLD_TYPE_TLS: return STT_TLS;
    case KLD_TYPE_IFUNC: return is_plt_entry(sym) ? STT_FUNC : STT_GNU_IFUNC;
    case KLD_TYPE_SECTION: return STT_SECTION;
    case KLD_TYPE_FILE: return STT_FILE;
    case KLD_TYPE_NONE: break;
    }
    return STT_NOTYPE;
}

static unsigned symbol_bind(const struct table *t, const struct kld_symbol *sym)
{
    if (becomes_local(t, sym))
        return STB_LOCAL;
    if (sym->kind == KLD_SYM_UNDEFINED || sym->kind == KLD_SYM_IMPORTED)
        return kld_symbol_has(sym, KLD_SYM_REF_STRONG) ? STB_GLOBAL : STB_WEAK;
    return sym->unique ? STB_GNU_UNIQUE : sym->weak ? STB_WEAK : STB_GLOBAL;
}

static const struct kld_section *plt_section(const struct kld_session *ctx,
                                             const struct kld_symbol *sym)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct kld_atom *atom = elf->synth[ELF_PLT];
    if (elf_aux(ctx, sym)->plt_got != ELF_NONE)
        atom = elf->synth[ELF_PLT_GOT];
    else if (elf->synth[ELF_PLT_SEC])
        atom = elf->synth[ELF_PLT_SEC];
    return atom ? ctx->sections.data[atom->section] : NULL;
}

/* Where the symbol itself is. An ifunc is its resolver unless its PLT entry is its address. */
static void set_definition(struct walk *w, elf_sym *out, const struct kld_symbol *sym)
{
    if (sym->in_section) {
        out->st_value = sym->section->addr + sym->value;
        if (sym->value <= sym->section->size)
            set_place(w, out, sym->section);
        else /* it only moves with the image, as the middle of small data does */
            out->st_shndx = SHN_ABS;
    } else {
        const struct kld_atom *atom = elf_output_atom(sym->atom);
        out->st_value = elf_atom_address(atom, sym->value);
        set_place(w, out, section_of(w->ctx, atom));
    }
    if (sym->type == KLD_TYPE_TLS)
        out->st_value = tls_value(w, out->st_value);
}

static void set_value(struct walk *w, elf_sym *out, const struct kld_symbol *sym)
{
    bool plt = is_plt_entry(sym);
    out->st_size = elf_symbol_size(sym);
    switch ((enum kld_symbol_kind)sym->kind) {
    case KLD_SYM_DEFINED:
        if (plt) {
            out->st_value = elf_symbol_address(w->ctx, sym);
            set_place(w, out, plt_section(w->ctx, sym));
        } else {
            set_definition(w, out, sym);
        }
        break;
    case KLD_SYM_ABSOLUTE:
        out->st_value = sym->value;
        out->st_shndx = SHN_ABS;
        break;
    case KLD_SYM_COMMON:
        out->st_value = sym->value;
        out->st_shndx = SHN_COMMON;
        break;
    case KLD_SYM_IMPORTED:
    case KLD_SYM_UNDEFINED:
        out->st_value = plt ? elf_symbol_address(w->ctx, sym) : 0;
        out->st_size = 0;
        out->st_shndx = SHN_UNDEF;
        break;
    }
}

static void put_global(struct walk *w, kld_symid id, struct kld_str name)
{
    elf_sym *out, scratch;
    const struct kld_symbol *sym = &w->ctx->symbols[id];
    if (w->global_numbers)
        w->global_numbers[id] = w->first + w->count;
    if (put(w, name, &out, &scratch)) {
        unsigned bind = symbol_bind(w->table, sym);
        out->st_info = (unsigned char)ELF64_ST_INFO(bind, symbol_type(sym));
        /* As GNU ld: a symbol that has become local has nothing to hide. */
        out->st_other = bind == STB_LOCAL
                            ? STV_DEFAULT
                            : atomic_load_explicit(&sym->visibility, memory_order_relaxed);
        out->st_other |= atomic_load_explicit(&sym->other, memory_order_relaxed);
        set_value(w, out, sym);
    }
    w->count++;
}

static void walk_globals(struct walk *w, const struct part *part)
{
    const struct elf_object *obj = part->obj;
    uint8_t bit = part->kind == HIDDEN ? KEPT_HIDDEN : KEPT_GLOBAL;
    for (uint32_t i = 0; i < obj->base.nglobals; i++) {
        if (w->syms || !w->noted) /* else there is no look at symbols */
            ask_ahead(w, obj, i, bit);
        if (obj->base.classes[i] & bit)
            put_global(w, obj->base.ids[i], next_global_name(w, obj, i));
    }
}

/* ---- deciding ---- */

static bool is_gnu(const struct kld_symbol *sym)
{
    return is_definition(sym) && (sym->unique || sym->type == KLD_TYPE_IFUNC);
}

static void note_gnu(struct table *t)
{
    if (!atomic_load_explicit(&t->gnu, memory_order_relaxed))
        atomic_store_explicit(&t->gnu, true, memory_order_relaxed);
}

static void decide_locals(struct kld_worker *worker, struct walk *w, struct table *t, uint32_t f)
{
    struct part part = {.obj = elf_object(w->ctx->files[f]), .file = f};
    uint64_t *kept = NULL;
    if (t->discard == KLD_DISCARD_ALL && !t->needed)
        return;
    for (uint32_t i = 1; i < part.obj->first_global; i++) {
        if (!is_kept_local(w, &part, i))
            continue;
        if (!kept)
            kept = KLD_NEW_ARRAY(&worker->arena, uint64_t, part.obj->first_global / 64 + 1);
        kept[i / 64] |= 1ull << i % 64;
        if (ELF64_ST_TYPE(part.obj->syms[i].st_info) == STT_GNU_IFUNC)
            note_gnu(t);
    }
    t->kept[f] = kept;
}

static void decide_globals(struct walk *w, struct table *t, struct elf_object *obj)
{
    for (uint32_t i = 0; i < obj->base.nglobals; i++) {
        ask_ahead(w, obj, i, KLD_NAME_WON);
        const struct kld_symbol *sym = defined_by(w, obj, i);
        if (!sym || (t->retains && !is_kept_global(w, obj->base.ids[i], global_name(obj, i))))
            continue;
        obj->base.classes[i] |= becomes_local(t, sym) ? KEPT_HIDDEN : KEPT_GLOBAL;
        if (is_gnu(sym))
            note_gnu(t);
    }
}

/* ---- symbols that no object defines ---- */

static bool is_rest(const struct table *t, const struct kld_symbol *sym)
{
    if (!sym->name)
        return false;
    switch ((enum kld_symbol_kind)sym->kind) {
    case KLD_SYM_UNDEFINED:
        if (!t->keeps_undefined && !sym->imported)
            return false; /* only dead code has it, or it is weak and zero for good */
        return kld_symbol_has(sym, KLD_SYM_REF_REGULAR);
    case KLD_SYM_IMPORTED: return kld_symbol_has(sym, KLD_SYM_REF_REGULAR);
    case KLD_SYM_DEFINED:
    case KLD_SYM_ABSOLUTE:
    case KLD_SYM_COMMON: return sym->synthetic || !sym->file || sym->file->kind != KLD_FILE_OBJECT;
    }
    return false;
}

/* foo@V: what a shared library provides is named with its version. */
static struct kld_str versioned_name(const struct kld_symbol *sym, char *buffer, size_t size)
{
    struct kld_str name = kld_symbol_name(sym);
    if (!sym->file || sym->file->kind != KLD_FILE_SHARED || sym->version < 2 ||
        memchr(name.ptr, '@', name.len))
        return name;
    const struct elf_shared *lib = elf_shared(sym->file);
    struct kld_str version =
        sym->version < lib->nversions ? lib->versions[sym->version] : (struct kld_str){0};
    if (!version.len || name.len + version.len + 1 > size)
        return name;
    memcpy(buffer, name.ptr, name.len);
    buffer[name.len] = '@';
    memcpy(buffer + name.len + 1, version.ptr, version.len);
    return (struct kld_str){buffer, name.len + 1 + version.len};
}

static void walk_rest(struct walk *w, bool local)
{
    char buffer[4096];
    for (uint32_t i = 0; i < w->table->nrest; i++) {
        kld_symid id = w->table->rest[i];
        const struct kld_symbol *sym = &w->ctx->symbols[id];
        if (becomes_local(w->table, sym) != local || !is_kept_global(w, id, kld_symbol_name(sym)))
            continue;
        put_global(w, id, versioned_name(sym, buffer, sizeof(buffer)));
    }
}

static void walk_sections(struct walk *w)
{
    elf_sym *out, scratch;
    for (uint32_t i = 0; i < w->table->nsections; i++) {
        if (put(w, (struct kld_str){0}, &out, &scratch)) {
            out->st_info = ELF64_ST_INFO(STB_LOCAL, STT_SECTION);
            out->st_value = w->table->sections[i]->addr;
            set_place(w, out, w->table->sections[i]);
        }
        w->count++;
    }
}

/* ---- islands ---- */

static void put_code(struct walk *w, const struct kld_island *island, struct kld_str name,
                     unsigned type, uint32_t start, uint32_t end)
{
    elf_sym *out, scratch;
    if (!is_retained(w->table, name))
        return;
    if (put(w, name, &out, &scratch)) {
        out->st_info = (unsigned char)ELF64_ST_INFO(STB_LOCAL, type);
        out->st_value = island->atom->addr + start;
        out->st_size = end - start;
        set_place(w, out, section_of(w->ctx, island->atom));
    }
    w->count++;
}

/* The name of the target between the two strings that the CPU has for the kind of entry. */
static struct kld_str entry_name(const struct walk *w, const struct kld_island_entry *e,
                                 char *buffer, size_t size)
{
    const char *const *names = elf_state(w->ctx)->arch->islands->names[e->key.kind];
    const elf_rela *rel = (const elf_rela *)e->atom->edges + e->edge;
    struct kld_str target =
        elf_target_name(w->ctx, elf_object(e->atom->file), ELF64_R_SYM(rel->r_info));
    int len = snprintf(buffer, size, "%s%.*s%s", names[0], KLD_FMT(target), names[1]);
    return (struct kld_str){buffer, KLD_MIN((size_t)len, size - 1)};
}

static void walk_island(struct walk *w, const struct kld_island *island)
{
    char buffer[4096];
    const char *mapping = elf_state(w->ctx)->arch->islands->mapping;
    if (mapping && island->entries.len)
        put_code(w, island, kld_str(mapping), STT_NOTYPE, 0, 0);
    for (size_t i = 0; i < island->entries.len; i++) {
        const struct kld_island_entry *e = &island->entries.data[i];
        uint32_t end = i + 1 < island->entries.len ? e[1].offset : island->used;
        put_code(w, island, entry_name(w, e, buffer, sizeof(buffer)), STT_FUNC, e->offset, end);
    }
}

static void walk_islands(struct walk *w)
{
    const struct kld_islands *islands = w->ctx->islands;
    if (!islands || !islands->used || w->table->discard == KLD_DISCARD_ALL)
        return;
    if (!w->table->retains)
        put_file_name(w, (struct kld_str){0});
    for (size_t i = 0; i < islands->list.len; i++)
        walk_island(w, islands->list.data[i]);
}

/* ---- walking ---- */

static void walk_part(struct walk *w, const struct part *part)
{
    switch ((enum kind)part->kind) {
    case SECTIONS: walk_sections(w); break;
    case LOCALS: walk_locals(w, part); break;
    case ISLANDS: walk_islands(w); break;
    case NO_FILE: put_file_name(w, (struct kld_str){0}); break;
    case HIDDEN:
    case GLOBALS:
        if (part->obj)
            walk_globals(w, part);
        else
            walk_rest(w, part->kind == HIDDEN);
        break;
    }
}

static struct walk walk_of(struct kld_session *ctx, const struct kld_atom *atom)
{
    const struct part *part = atom->extra;
    return (struct walk){.ctx = ctx,
                         .table = get_table(ctx),
                         .first = part->first,
                         .names_at = part->names,
                         .noted = part->noted};
}

static void write_symbols(struct kld_session *ctx, struct kld_worker *worker,
                          const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    const struct part *part = atom->extra;
    struct walk w = walk_of(ctx, atom);
    w.syms = (elf_sym *)out;
    if (w.table->notes_numbers)
        w.global_numbers = w.table->global_numbers;
    walk_part(&w, part);
    while (w.count < part->capacity) /* spare */
        put_file_name(&w, (struct kld_str){0});
}

static void write_indices(struct kld_session *ctx, struct kld_worker *worker,
                          const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct walk w = walk_of(ctx, atom);
    w.indices = (elf_word *)out;
    walk_part(&w, atom->extra);
}

static void write_names(struct kld_session *ctx, struct kld_worker *worker,
                        const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct walk w = walk_of(ctx, atom);
    w.names = (char *)out;
    walk_part(&w, atom->extra);
}

/* ---- numbers, for relocations ---- */

uint32_t elf_symtab_number(const struct kld_session *ctx, uint32_t f, uint32_t i)
{
    const struct table *t = get_table(ctx);
    const struct elf_object *obj = elf_object(ctx->files[f]);
    if (!t)
        return 0;
    return i < obj->first_global ? t->local_numbers[f][i]
                                 : t->global_numbers[obj->base.ids[i - obj->first_global]];
}

uint32_t elf_symtab_section(const struct kld_session *ctx, const struct kld_section *section)
{
    const struct table *t = get_table(ctx);
    return t && section->id < t->nsection_ids ? t->section_numbers[section->id] : 0;
}

static void number_part(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)worker;
    struct table *t = arg;
    const struct part *part = &t->parts[i];
    struct walk w = {.ctx = ctx, .table = t, .first = part->first, .noted = part->noted};
    w.global_numbers = t->global_numbers;
    if (part->kind == LOCALS)
        w.local_numbers = t->local_numbers[part->file];
    walk_part(&w, part);
}

static void mark_needed(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t f)
{
    struct table *t = arg;
    struct elf_object *obj = elf_object(ctx->files[f]);
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    t->needed[f] = KLD_NEW_ARRAY(&worker->arena, uint64_t, obj->first_global / 64 + 1);
    t->local_numbers[f] = KLD_NEW_ARRAY(&worker->arena, uint32_t, obj->first_global);
    elf_relocatable_needs(ctx, obj, t->needed[f], t->needed_globals);
}

/* A symbol for each output section that holds something from an input, in input order. */
static void number_sections(struct kld_session *ctx, struct table *t)
{
    t->nsection_ids = (uint32_t)ctx->sections.len;
    t->section_numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t, ctx->sections.len);
    t->sections = KLD_NEW_ARRAY(&ctx->arena, struct kld_section *, ctx->sections.len);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f];
        for (uint32_t i = 0; i < file->natoms; i++) {
            const struct kld_atom *atom = kept_atom(ctx, &file->atoms[i]);
            if (!atom)
                continue;
            struct kld_section *section = section_of(ctx, atom);
            if (t->section_numbers[section->id])
                continue;
            t->sections[t->nsections] = section;
            t->section_numbers[section->id] = ++t->nsections;
        }
    }
}

static void prepare_relocs(struct kld_session *ctx, struct table *t)
{
    t->global_numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t, ctx->nsymbols);
    t->needed_globals = KLD_NEW_ARRAY(&ctx->arena, _Atomic uint8_t, ctx->nsymbols);
    t->needed = KLD_NEW_ARRAY(&ctx->arena, uint64_t *, ctx->nfiles);
    t->local_numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t *, ctx->nfiles);
    kld_parallel_for(ctx, ctx->nfiles, 4, mark_needed, t);
    number_sections(ctx, t);
}

/* ---- the list of symbols that no object defines ---- */

struct rest_blocks {
    struct table *table;
    uint32_t *starts; /* by block: how many, then where they go */
};

static void count_rest(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t block)
{
    (void)worker;
    struct rest_blocks *r = arg;
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * ELF_SYMBOL_BLOCK, ctx->nsymbols);
    uint32_t n = r->starts[block];
    for (kld_symid id = (kld_symid)(block * ELF_SYMBOL_BLOCK); id < end; id++) {
        if (!is_rest(r->table, &ctx->symbols[id]))
            continue;
        if (r->table->rest)
            r->table->rest[n] = id;
        if (is_gnu(&ctx->symbols[id]))
            note_gnu(r->table);
        n++;
    }
    r->starts[block] = n;
}

static void list_rest(struct kld_session *ctx, struct table *t)
{
    size_t blocks = (ctx->nsymbols + ELF_SYMBOL_BLOCK - 1) / ELF_SYMBOL_BLOCK;
    struct rest_blocks r = {t, KLD_NEW_ARRAY(&ctx->arena, uint32_t, blocks)};
    kld_parallel_for(ctx, blocks, 4, count_rest, &r);
    for (size_t b = 0; b < blocks; b++) {
        uint32_t n = r.starts[b];
        r.starts[b] = t->nrest;
        t->nrest += n;
    }
    t->rest = KLD_NEW_ARRAY(&ctx->arena, kld_symid, t->nrest);
    kld_parallel_for(ctx, blocks, 4, count_rest, &r);
}

/* ---- sizes ---- */

static void count_part(struct kld_session *ctx, struct kld_worker *worker, struct table *t,
                       struct part *part)
{
    struct walk w = {.ctx = ctx, .table = t, .arena = part->obj ? &worker->arena : NULL};
    walk_part(&w, part);
    part->count = w.count;
    part->size = w.size;
    part->noted = w.notes.data;
}

static struct part *object_part(const struct table *t, enum kind kind, size_t number)
{
    return &t->parts[t->objects_at[kind] + number];
}

/* What is kept of the object of that number, and how much that is: at once, while its symbols are in the cache. */
static void size_object(struct kld_session *ctx, struct kld_worker *worker, void *arg,
                        size_t number)
{
    struct table *t = arg;
    const struct part *locals = object_part(t, LOCALS, number);
    struct walk w = {.ctx = ctx, .table = t};
    decide_locals(worker, &w, t, locals->file);
    decide_globals(&w, t, locals->obj);
    count_part(ctx, worker, t, object_part(t, LOCALS, number));
    if (!t->relocatable)
        count_part(ctx, worker, t, object_part(t, HIDDEN, number));
    count_part(ctx, worker, t, object_part(t, GLOBALS, number));
}

static void size_parts(struct kld_session *ctx, struct table *t)
{
    t->kept = KLD_NEW_ARRAY(&ctx->arena, uint64_t *, ctx->nfiles);
    kld_parallel_for(ctx, t->nobjects, 4, size_object, t);
    for (uint32_t i = 0; i < t->nparts; i++)
        if (!t->parts[i].obj)
            count_part(ctx, kld_pool_worker(ctx, 0), t, &t->parts[i]);
}

static void list_objects(struct kld_session *ctx, struct table *t, enum kind kind)
{
    t->objects_at[kind] = t->nparts;
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind == KLD_FILE_OBJECT)
            t->parts[t->nparts++] = (struct part){.obj = obj, .kind = (uint8_t)kind, .file = f};
    }
    t->nobjects = t->nparts - t->objects_at[kind];
}

static void list_parts(struct kld_session *ctx, struct table *t)
{
    t->parts = KLD_NEW_ARRAY(&ctx->arena, struct part, 3 * (size_t)ctx->nfiles + 5);
    if (t->keeps_relocs)
        t->parts[t->nparts++] = (struct part){.kind = SECTIONS};
    list_objects(ctx, t, LOCALS);
    if (!t->relocatable) {
        if (elf_state(ctx)->arch->islands)
            t->parts[t->nparts++] = (struct part){.kind = ISLANDS};
        t->parts[t->nparts++] = (struct part){.kind = NO_FILE};
        list_objects(ctx, t, HIDDEN);
        t->parts[t->nparts++] = (struct part){.kind = HIDDEN};
    }
    list_objects(ctx, t, GLOBALS);
    t->parts[t->nparts++] = (struct part){.kind = GLOBALS};
}

/* The symbol without a name is for others behind it, where there are names of files at all. */
static void drop_no_file(struct table *t)
{
    struct part *no_file = NULL;
    bool hidden = false;
    for (uint32_t i = 0; i < t->nparts; i++) {
        if (t->parts[i].kind == NO_FILE)
            no_file = &t->parts[i];
        hidden |= t->parts[i].kind == HIDDEN && t->parts[i].count;
    }
    if (no_file && (!hidden || t->discard == KLD_DISCARD_ALL || t->retains))
        no_file->count = 0;
}

/* What the parts hold: with slack, locals may join those that a file has. */
static void set_capacities(struct kld_session *ctx, struct table *t)
{
    t->locals = KLD_NEW_ARRAY(&ctx->arena, struct part *, ctx->nfiles);
    bool grows = ctx->slack && t->discard != KLD_DISCARD_ALL && !t->retains;
    for (uint32_t i = 0; i < t->nparts; i++) {
        struct part *part = &t->parts[i];
        part->capacity = part->count;
        part->names_capacity = part->size;
        if (part->kind != LOCALS)
            continue;
        t->locals[part->file] = part;
        if (!grows)
            continue;
        part->capacity += KLD_MAX(part->count / 4, (uint32_t)SPARE_SYMBOLS);
        part->names_capacity += KLD_MAX(part->size / 4, (uint64_t)SPARE_NAMES);
    }
}

/* Numbers and offsets of the parts; returns the number of the first global symbol. */
static uint32_t sum_parts(struct table *t)
{
    uint64_t first_global = 0;
    t->nsymbols = 1;
    t->strtab_size = 1;
    for (uint32_t i = 0; i < t->nparts; i++) {
        struct part *part = &t->parts[i];
        if (part->kind == GLOBALS && !first_global)
            first_global = t->nsymbols;
        part->first = (uint32_t)t->nsymbols;
        part->names = t->strtab_size;
        t->nsymbols += part->capacity;
        t->strtab_size += part->names_capacity;
    }
    return (uint32_t)first_global;
}

/* ---- --retain-symbols-file ---- */

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void read_retained(struct kld_session *ctx, struct table *t)
{
    const char *path = ctx->options.retain_symbols_file;
    struct kld_bytes bytes;
    KLD_VEC(struct kld_str) names = {0};
    if (!path)
        return;
    t->retains = true;
    if (!kld_io_open(ctx, path, &bytes)) {
        kld_error(ctx, "cannot-open", &(struct kld_where){.path = path}, "cannot open the file");
        return;
    }
    for (size_t at = 0; at < bytes.len;) {
        size_t start = at;
        while (at < bytes.len && !is_space(bytes.ptr[at]))
            at++;
        if (at > start)
            *kld_vec_push(&ctx->arena, &names) =
                (struct kld_str){(const char *)bytes.ptr + start, at - start};
        else
            at++;
    }
    t->retained = names.data;
    t->nretained = names.len;
    if (names.len)
        qsort(names.data, names.len, sizeof(*names.data), compare_names);
}

static void set_discard(const struct kld_session *ctx, struct table *t)
{
    t->discard = (enum kld_discard)ctx->options.discard;
    if (t->discard == KLD_DISCARD_DEFAULT && elf_state(ctx)->arch->drops_labels)
        t->discard = KLD_DISCARD_LOCALS;
}

/* ---- the atoms ---- */

typedef void generate_fn(struct kld_session *ctx, struct kld_worker *worker,
                         const struct kld_atom *atom, uint8_t *out);

/* One table: its atom for the entry 0, then one for each part. */
static struct kld_section *make_table(struct kld_session *ctx, struct table *t,
                                      enum elf_synth which, const char *name, uint32_t type,
                                      uint32_t entsize, generate_fn *generate)
{
    uint8_t p2align = type == SHT_STRTAB ? 0 : entsize == 4 ? 2 : 3;
    struct kld_atom *first =
        elf_make(ctx, which, name, type, 0, type == SHT_STRTAB ? 0 : entsize, p2align, entsize);
    struct kld_section *section = ctx->sections.data[first->section];
    for (uint32_t i = 0; i < t->nparts; i++) {
        struct part *part = &t->parts[i];
        uint64_t size =
            type == SHT_STRTAB ? part->names_capacity : (uint64_t)part->capacity * entsize;
        if (!size && part->kind != ISLANDS)
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

static void make_tables(struct kld_session *ctx, struct table *t)
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

static bool check_size(struct kld_session *ctx, const struct table *t)
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
static void note_abi(struct kld_session *ctx, struct table *t)
{
    struct elf_link *elf = elf_state(ctx);
    bool gnu = elf->uses_gnu_osabi || atomic_load(&t->gnu);
    for (size_t i = 1; i < elf->dynsyms.len && !gnu; i++)
        gnu = is_gnu(elf->dynsyms.data[i]);
    elf->uses_gnu_osabi = gnu;
}

void elf_symtab_synth(struct kld_session *ctx)
{
    struct table *t = KLD_NEW(&ctx->arena, struct table);
    t->relocatable = elf_state(ctx)->is_relocatable;
    t->keeps_relocs = elf_keeps_relocs(ctx);
    t->keeps_undefined = keeps_undefined(ctx);
    set_discard(ctx, t);
    note_abi(ctx, t);
    if (ctx->options.strip == KLD_STRIP_ALL) {
        if (!t->keeps_relocs)
            return;
        t->discard = KLD_DISCARD_ALL; /* relocations need a symbol table */
    }
    read_retained(ctx, t);
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
    const struct table *t = get_table(ctx);
    if (!t || !t->locals[f])
        return false;
    const struct part *part = t->locals[f];
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
    const struct table *t = arg;
    if (t->parts[i].kind == HIDDEN || t->parts[i].kind == GLOBALS)
        number_part(ctx, worker, arg, i);
}

const uint32_t *elf_symbol_numbers(struct kld_session *ctx)
{
    struct table *t = get_table(ctx);
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
    struct table t = {.kept = KLD_NEW_ARRAY(&ctx->arena, uint64_t *, ctx->nfiles)};
    struct part part = {.obj = elf_object(ctx->files[f]),
                        .kind = LOCALS,
                        .file = f,
                        .first = old->first,
                        .names = old->names};
    set_discard(ctx, &t);
    read_retained(ctx, &t);
    struct walk w = {.ctx = ctx, .table = &t};
    decide_locals(worker, &w, &t, f);
    walk_part(&w, &part);
    *out = *old;
    out->count = w.count;
    out->names_size = w.size;
    if (w.count > old->capacity || w.size > old->names_capacity)
        return false;
    *symbols = (uint8_t *)KLD_NEW_ARRAY(&ctx->arena, Elf64_Sym, old->capacity);
    *names = KLD_NEW_ARRAY(&ctx->arena, uint8_t, old->names_capacity);
    w = (struct walk){.ctx = ctx, .table = &t, .first = part.first, .names_at = part.names};
    w.syms = (elf_sym *)*symbols;
    w.names = (char *)*names;
    walk_part(&w, &part);
    while (w.count < old->capacity)
        put_file_name(&w, (struct kld_str){0});
    return true;
}

struct kld_str elf_symtab_global(struct kld_session *ctx, kld_symid id, elf_sym *out, char *buffer,
                                 size_t size)
{
    const struct kld_symbol *sym = &ctx->symbols[id];
    struct walk w = {.ctx = ctx, .table = get_table(ctx), .syms = out};
    struct kld_str name = versioned_name(sym, buffer, size);
    if (sym->file && sym->file->kind == KLD_FILE_OBJECT && !sym->synthetic && is_definition(sym))
        name = global_name(elf_object(sym->file), sym->index - elf_object(sym->file)->first_global);
    memset(out, 0, sizeof(*out));
    put_global(&w, id, name);
    return name;
}

/* ---- growing ---- */

static struct part *islands_part(struct table *t)
{
    for (uint32_t i = 0; t && i < t->nparts; i++)
        if (t->parts[i].kind == ISLANDS)
            return &t->parts[i];
    return NULL;
}

void elf_symtab_islands(struct kld_session *ctx)
{
    struct table *t = get_table(ctx);
    struct part *part = islands_part(t);
    if (!part)
        return;
    struct walk w = {.ctx = ctx, .table = t};
    walk_part(&w, part);
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
