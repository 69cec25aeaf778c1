/* elf_symtab_walk.c - the symbols of .symtab: which ones are kept, and what is said of each.
 *
 * What is kept follows GNU ld: -s, -S, -x, -X, --retain-symbols-file; local names of mergeable
 * sections that begin with .L are dropped by default; a file that has no STT_FILE symbol gets one
 * with its name, so that its functions are not taken for those of the file before it. */
#include "formats/elf/elf_symtab_walk.h"
#include <stdio.h>
#include <stdlib.h>
#include "formats/elf/elf_reloc.h"
#include "formats/elf/elf_relocatable.h"
#include "formats/elf/elf_symbols.h"
#include "src/resolve.h"

/* In kld_file.classes, whose other bits are taken: how a global name of the file is kept. */
enum { KEPT_HIDDEN = 1 << 6, KEPT_GLOBAL = 1 << 7 };

/* ---- one symbol ---- */

static void set_section(struct elf_symtab_walk *w, elf_sym *out, uint32_t number)
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
static bool put(struct elf_symtab_walk *w, struct kld_str name, elf_sym **out, elf_sym *scratch)
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
static void set_place(struct elf_symtab_walk *w, elf_sym *out, const struct kld_section *section)
{
    uint32_t number = section ? section->number : 0;
    if (section && section == elf_state(w->ctx)->headers)
        number = 1;
    if (number)
        set_section(w, out, number);
    else
        out->st_shndx = SHN_ABS;
}

static uint64_t tls_value(const struct elf_symtab_walk *w, uint64_t address)
{
    return w->table->relocatable ? address : address - elf_state(w->ctx)->tls_start;
}

struct kld_section *elf_symtab_section_of(const struct kld_session *ctx,
                                          const struct kld_atom *atom)
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

static bool is_retained(const struct elf_symtab_table *t, struct kld_str name)
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

static void note(struct elf_symtab_walk *w, struct elf_symtab_noted noted)
{
    if (w->arena)
        *kld_vec_push(w->arena, &w->notes) = noted;
}

static struct kld_str noted_name(const struct elf_symtab_walk *w, const struct elf_object *obj)
{
    const struct elf_symtab_noted *noted = &w->noted[w->count];
    return (struct kld_str){(const char *)obj->strtab.ptr + noted->text, noted->len};
}

/* The name of a local symbol, which is put next. Mapping symbols ($x, $d) have names of this form. */
static struct kld_str next_local_name(struct elf_symtab_walk *w, const struct elf_object *obj,
                                      uint32_t symbol)
{
    if (w->noted) {
        w->is_mapping = w->noted[w->count].is_mapping;
        return noted_name(w, obj);
    }
    struct kld_str name = kld_str(text_of(obj, symbol));
    w->is_mapping = name.len && *name.ptr == '$';
    note(w,
         (struct elf_symtab_noted){obj->syms[symbol].st_name, (uint32_t)name.len, w->is_mapping});
    return name;
}

/* global_name of a global name that the file defines, which is put next. The symbol knows the length, unless the
 * name in the file is one with a version. */
static struct kld_str next_global_name(struct elf_symtab_walk *w, const struct elf_object *obj,
                                       uint32_t i)
{
    if (w->noted)
        return noted_name(w, obj);
    struct kld_str name = {text_of(obj, obj->first_global + i), 0};
    name.len = kld_unlikely(obj->has_versions) ? strlen(name.ptr)
                                               : w->ctx->symbols[obj->base.ids[i]].name_len;
    note(w, (struct elf_symtab_noted){obj->syms[obj->first_global + i].st_name, (uint32_t)name.len,
                                      false});
    return name;
}

static bool is_needed(const struct elf_symtab_walk *w, uint32_t file, uint32_t i)
{
    return w->table->needed && (w->table->needed[file][i / 64] >> i % 64 & 1);
}

const struct kld_atom *elf_symtab_kept_atom(const struct kld_session *ctx,
                                            const struct kld_atom *atom)
{
    if (atom)
        atom = elf_output_atom(atom);
    if (!atom || !atom->live || ctx->sections.data[atom->section]->discarded)
        return NULL;
    return atom;
}

/* Whether a local symbol of the file is dropped for its name. */
static bool is_discarded_name(const struct elf_symtab_walk *w, const struct elf_object *obj,
                              uint32_t shndx, const elf_sym *sym)
{
    const struct elf_symtab_table *t = w->table;
    const char *name = (const char *)obj->strtab.ptr + sym->st_name;
    if (t->retains && !is_retained(t, kld_str(name)))
        return true;
    bool labels = t->discard == KLD_DISCARD_LOCALS;
    if (t->discard == KLD_DISCARD_DEFAULT && !t->relocatable && shndx < obj->nshdrs)
        labels = obj->shdrs[shndx].sh_flags & SHF_MERGE;
    return labels && is_label_name(kld_str(name));
}

/* Of a loop over global names, at number i, that looks at the symbols of those with that bit */
static void ask_ahead(const struct elf_symtab_walk *w, const struct elf_object *obj, uint32_t i,
                      uint8_t bit)
{
    uint32_t next = i + KLD_ASK_AHEAD;
    if (next < obj->base.nglobals && (obj->base.classes[next] & bit))
        kld_ask_for_symbol(w->ctx, &obj->base, next);
}

/* The symbol, if this file defines its global name number i and it is part of the output. */
static struct kld_symbol *defined_by(const struct elf_symtab_walk *w, const struct elf_object *obj,
                                     uint32_t i)
{
    if (!(obj->base.classes[i] & KLD_NAME_WON))
        return NULL;
    struct kld_symbol *sym = &w->ctx->symbols[obj->base.ids[i]];
    if (sym->file != &obj->base || sym->index != obj->first_global + i || sym->synthetic)
        return NULL;
    switch ((enum kld_symbol_kind)sym->kind) {
    case KLD_SYM_DEFINED:
        return sym->in_section || elf_symtab_kept_atom(w->ctx, sym->atom) ? sym : NULL;
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

static bool becomes_local(const struct elf_symtab_table *t, const struct kld_symbol *sym)
{
    unsigned vis = atomic_load_explicit(&sym->visibility, memory_order_relaxed);
    return !t->relocatable && is_definition(sym) &&
           (sym->forced_local || vis == KLD_VISIBILITY_HIDDEN || vis == KLD_VISIBILITY_INTERNAL);
}

static bool is_kept_global(const struct elf_symtab_walk *w, kld_symid id, struct kld_str name)
{
    return is_retained(w->table, name) ||
           (w->table->needed_globals && w->table->needed_globals[id]);
}

/* ---- local symbols ---- */

void elf_symtab_put_file_name(struct elf_symtab_walk *w, struct kld_str name)
{
    elf_sym *out, scratch;
    note(w, (struct elf_symtab_noted){.len = (uint32_t)name.len});
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

static uint64_t local_value(const struct elf_symtab_walk *w, const struct kld_atom *atom,
                            const elf_sym *sym)
{
    if (!atom)
        return sym->st_value;
    uint64_t value = elf_atom_address(atom, sym->st_value);
    return ELF64_ST_TYPE(sym->st_info) == STT_TLS ? tls_value(w, value) : value;
}

/* Where a local symbol is; false if that is not part of the output. */
static bool find_local(const struct elf_symtab_walk *w, const struct elf_symtab_part *part,
                       uint32_t shndx, struct place *place)
{
    const struct elf_object *obj = part->obj;
    *place = (struct place){0};
    if (shndx == ELF_RESERVED(SHN_ABS))
        return true;
    if (w->table->relocatable && shndx < obj->nshdrs && obj->shdrs[shndx].sh_type == SHT_GROUP) {
        place->section = elf_relocatable_group(w->ctx, part->file, shndx);
        return place->section;
    }
    place->atom = elf_symtab_kept_atom(w->ctx, elf_section_atom(obj, shndx));
    if (place->atom)
        place->section = elf_symtab_section_of(w->ctx, place->atom);
    return place->atom;
}

static void put_local(struct elf_symtab_walk *w, const struct elf_symtab_part *part, uint32_t i)
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

static bool is_kept_local(const struct elf_symtab_walk *w, const struct elf_symtab_part *part,
                          uint32_t i)
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

static void walk_locals(struct elf_symtab_walk *w, const struct elf_symtab_part *part)
{
    const struct elf_object *obj = part->obj;
    const uint64_t *kept = w->table->kept[part->file];
    bool has_file = w->table->discard == KLD_DISCARD_ALL;
    for (uint32_t word = 0; kept && word <= obj->first_global / 64; word++)
        for (uint64_t bits = kept[word]; bits; bits &= bits - 1) {
            uint32_t i = word * 64 + (uint32_t)__builtin_ctzll(bits);
            const elf_sym *sym = &obj->syms[i];
            if (!has_file && ELF64_ST_TYPE(sym->st_info) != STT_FILE)
                elf_symtab_put_file_name(w, file_name(&obj->base));
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

static unsigned symbol_bind(const struct elf_symtab_table *t, const struct kld_symbol *sym)
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
static void set_definition(struct elf_symtab_walk *w, elf_sym *out, const struct kld_symbol *sym)
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
        set_place(w, out, elf_symtab_section_of(w->ctx, atom));
    }
    if (sym->type == KLD_TYPE_TLS)
        out->st_value = tls_value(w, out->st_value);
}

static void set_value(struct elf_symtab_walk *w, elf_sym *out, const struct kld_symbol *sym)
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

static void put_global(struct elf_symtab_walk *w, kld_symid id, struct kld_str name)
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

static void walk_globals(struct elf_symtab_walk *w, const struct elf_symtab_part *part)
{
    const struct elf_object *obj = part->obj;
    uint8_t bit = part->kind == ELF_PART_HIDDEN ? KEPT_HIDDEN : KEPT_GLOBAL;
    for (uint32_t i = 0; i < obj->base.nglobals; i++) {
        if (w->syms || !w->noted) /* else there is no look at symbols */
            ask_ahead(w, obj, i, bit);
        if (obj->base.classes[i] & bit)
            put_global(w, obj->base.ids[i], next_global_name(w, obj, i));
    }
}

/* ---- deciding ---- */

bool elf_symtab_is_gnu(const struct kld_symbol *sym)
{
    return is_definition(sym) && (sym->unique || sym->type == KLD_TYPE_IFUNC);
}

void elf_symtab_note_gnu(struct elf_symtab_table *t)
{
    if (!atomic_load_explicit(&t->gnu, memory_order_relaxed))
        atomic_store_explicit(&t->gnu, true, memory_order_relaxed);
}

void elf_symtab_decide_locals(struct kld_worker *worker, struct elf_symtab_walk *w,
                              struct elf_symtab_table *t, uint32_t f)
{
    struct elf_symtab_part part = {.obj = elf_object(w->ctx->files[f]), .file = f};
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
            elf_symtab_note_gnu(t);
    }
    t->kept[f] = kept;
}

void elf_symtab_decide_globals(struct elf_symtab_walk *w, struct elf_symtab_table *t,
                               struct elf_object *obj)
{
    for (uint32_t i = 0; i < obj->base.nglobals; i++) {
        ask_ahead(w, obj, i, KLD_NAME_WON);
        const struct kld_symbol *sym = defined_by(w, obj, i);
        if (!sym || (t->retains && !is_kept_global(w, obj->base.ids[i], global_name(obj, i))))
            continue;
        obj->base.classes[i] |= becomes_local(t, sym) ? KEPT_HIDDEN : KEPT_GLOBAL;
        if (elf_symtab_is_gnu(sym))
            elf_symtab_note_gnu(t);
    }
}

/* ---- symbols that no object defines ---- */

bool elf_symtab_is_rest(const struct elf_symtab_table *t, const struct kld_symbol *sym)
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
    struct kld_str version = elf_library_version(elf_shared(sym->file), sym->version);
    if (!version.len || name.len + version.len + 1 > size)
        return name;
    memcpy(buffer, name.ptr, name.len);
    buffer[name.len] = '@';
    memcpy(buffer + name.len + 1, version.ptr, version.len);
    return (struct kld_str){buffer, name.len + 1 + version.len};
}

static void walk_rest(struct elf_symtab_walk *w, bool local)
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

static void walk_sections(struct elf_symtab_walk *w)
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

static void put_code(struct elf_symtab_walk *w, const struct kld_island *island,
                     struct kld_str name, unsigned type, uint32_t start, uint32_t end)
{
    elf_sym *out, scratch;
    if (!is_retained(w->table, name))
        return;
    if (put(w, name, &out, &scratch)) {
        out->st_info = (unsigned char)ELF64_ST_INFO(STB_LOCAL, type);
        out->st_value = island->atom->addr + start;
        out->st_size = end - start;
        set_place(w, out, elf_symtab_section_of(w->ctx, island->atom));
    }
    w->count++;
}

/* The name of the target between the two strings that the CPU has for the kind of entry. */
static struct kld_str entry_name(const struct elf_symtab_walk *w, const struct kld_island_entry *e,
                                 char *buffer, size_t size)
{
    const char *const *names = elf_state(w->ctx)->arch->islands->names[e->key.kind];
    const elf_rela *rel = (const elf_rela *)e->atom->edges + e->edge;
    struct kld_str target =
        elf_target_name(w->ctx, elf_object(e->atom->file), ELF64_R_SYM(rel->r_info));
    int len = snprintf(buffer, size, "%s%.*s%s", names[0], KLD_FMT(target), names[1]);
    return (struct kld_str){buffer, KLD_MIN((size_t)len, size - 1)};
}

static void walk_island(struct elf_symtab_walk *w, const struct kld_island *island)
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

static void walk_islands(struct elf_symtab_walk *w)
{
    const struct kld_islands *islands = w->ctx->islands;
    if (!islands || !islands->used || w->table->discard == KLD_DISCARD_ALL)
        return;
    if (!w->table->retains)
        elf_symtab_put_file_name(w, (struct kld_str){0});
    for (size_t i = 0; i < islands->list.len; i++)
        walk_island(w, islands->list.data[i]);
}

/* ---- walking ---- */

void elf_symtab_walk(struct elf_symtab_walk *w, const struct elf_symtab_part *part)
{
    switch ((enum elf_symtab_kind)part->kind) {
    case ELF_PART_SECTIONS: walk_sections(w); break;
    case ELF_PART_LOCALS: walk_locals(w, part); break;
    case ELF_PART_ISLANDS: walk_islands(w); break;
    case ELF_PART_NO_FILE: elf_symtab_put_file_name(w, (struct kld_str){0}); break;
    case ELF_PART_HIDDEN:
    case ELF_PART_GLOBALS:
        if (part->obj)
            walk_globals(w, part);
        else
            walk_rest(w, part->kind == ELF_PART_HIDDEN);
        break;
    }
}

/* ---- --retain-symbols-file ---- */

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

void elf_symtab_read_retained(struct kld_session *ctx, struct elf_symtab_table *t)
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

void elf_symtab_set_discard(const struct kld_session *ctx, struct elf_symtab_table *t)
{
    t->discard = (enum kld_discard)ctx->options.discard;
    if (t->discard == KLD_DISCARD_DEFAULT && elf_state(ctx)->arch->drops_labels)
        t->discard = KLD_DISCARD_LOCALS;
}

struct kld_str elf_symtab_global(struct kld_session *ctx, kld_symid id, elf_sym *out, char *buffer,
                                 size_t size)
{
    const struct kld_symbol *sym = &ctx->symbols[id];
    struct elf_symtab_walk w = {.ctx = ctx, .table = elf_symtab_table(ctx), .syms = out};
    struct kld_str name = versioned_name(sym, buffer, size);
    if (sym->file && sym->file->kind == KLD_FILE_OBJECT && !sym->synthetic && is_definition(sym))
        name = global_name(elf_object(sym->file), sym->index - elf_object(sym->file)->first_global);
    memset(out, 0, sizeof(*out));
    put_global(&w, id, name);
    return name;
}
