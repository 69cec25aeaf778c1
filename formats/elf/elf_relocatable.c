/* elf_relocatable.c - relocations that stay in the output: -r and --emit-relocs.
 *
 * -r makes one object of many. Input sections join where name, type and flags are equal, and
 * nothing more is done to them: no merging of strings, no splitting of unwind tables, no COMMON
 * symbols placed. Sections of a COMDAT group stay by themselves, since a later link may keep
 * another object's group. --emit-relocs adds to a finished program what -r would have kept.
 *
 * Relocations are not stored: each input section's are translated while they are written. One
 * against a section is against the output section then, with the offset in the addend; one whose
 * target is gone becomes the CPU's R_..._NONE, at its old place, which readers of unwind tables
 * and debug information take for a dead entry.
 *
 * Sources: gABI chapter 4 (relocatable files, section groups, SHF_LINK_ORDER). */
#include "formats/elf/elf_relocatable.h"
#include "formats/elf/elf_symtab.h"
#include "src/layout.h"

/* One of the output sections of a name: those that differ in type or flags are not joined. */
struct variant {
    struct variant *next;
    struct kld_section *section;
    const struct kld_section *linked; /* SHF_LINK_ORDER */
    uint64_t flags, entsize;
    uint32_t type;
};

/* A group of the output; its members are the sections of one input group. */
struct group {
    const struct elf_object *obj;
    uint32_t file;
    uint32_t input_index;
    struct kld_section *section;
};

/* The relocations of one input section; extra of the atom that writes them. */
struct relocs {
    const struct kld_atom *atom;
    uint32_t file;
};

struct elf_relocatable {
    struct variant **variants; /* by id of the section of that name */
    size_t nvariants;
    KLD_VEC(struct group) groups; /* by file and input section */
    struct kld_section **rela_of; /* by section id */
    size_t nrela;
};

static const struct kld_atom *live_atom(const struct elf_object *obj, uint32_t shndx)
{
    const struct kld_atom *atom = elf_section_atom(obj, shndx);
    return atom && atom->live && !(atom->flags & KLD_ATOM_FOLDED) ? atom : NULL;
}

/* ---- sections of -r ---- */

static struct kld_section *join(struct kld_session *ctx, struct elf_relocatable *r,
                                struct kld_section *named, struct variant want)
{
    struct variant **at = named->id < r->nvariants ? &r->variants[named->id] : NULL;
    struct variant *first = at ? *at : NULL;
    for (; at && *at; at = &(*at)->next)
        if ((*at)->type == want.type && (*at)->flags == want.flags &&
            (*at)->entsize == want.entsize && (*at)->linked == want.linked)
            return (*at)->section;
    struct kld_section *s = first || !at ? kld_section_new(ctx, named->name) : named;
    s->type = want.type;
    s->format_flags = want.flags;
    s->entsize = want.entsize;
    s->link = (struct kld_section *)want.linked;
    s->keep = true;
    if (at) {
        *at = KLD_NEW(&ctx->arena, struct variant);
        **at = want;
        (*at)->section = s;
    }
    return s;
}

static struct kld_section *section_of(const struct kld_session *ctx, const struct kld_atom *atom)
{
    if (atom->kind == KLD_ATOM_PIECES && atom->pieces->merged)
        atom = atom->pieces->merged;
    return ctx->sections.data[atom->section];
}

static struct variant variant_of(const struct elf_object *obj, const struct kld_atom *atom)
{
    const elf_shdr *sh = &obj->shdrs[atom->input_index];
    uint64_t flags = sh->sh_flags & ~(uint64_t)(SHF_INFO_LINK | SHF_COMPRESSED | SHF_GROUP);
    return (struct variant){.type = sh->sh_type == SHT_X86_64_UNWIND ? SHT_PROGBITS : sh->sh_type,
                            .flags = flags,
                            .entsize = sh->sh_entsize};
}

static void place_atom(struct kld_session *ctx, struct elf_relocatable *r, struct elf_object *obj,
                       struct kld_atom *atom)
{
    struct variant v = variant_of(obj, atom);
    if (v.flags & SHF_LINK_ORDER) {
        const struct kld_atom *to = live_atom(obj, obj->shdrs[atom->input_index].sh_link);
        v.linked = to ? section_of(ctx, to) : NULL;
    }
    atom->section = join(ctx, r, ctx->sections.data[atom->section], v)->id;
}

/* Each member of a group is an output section of its own. */
static void place_member(struct kld_session *ctx, const struct elf_object *obj,
                         struct kld_atom *atom)
{
    struct variant v = variant_of(obj, atom);
    struct kld_section *s = kld_section_new(ctx, ctx->sections.data[atom->section]->name);
    s->type = v.type;
    s->format_flags = v.flags | SHF_GROUP;
    s->entsize = v.entsize;
    s->keep = true;
    if (v.flags & SHF_LINK_ORDER) {
        const struct kld_atom *to = live_atom(obj, obj->shdrs[atom->input_index].sh_link);
        s->link = to ? section_of(ctx, to) : NULL;
    }
    atom->section = s->id;
}

/* The members of a group: section numbers of the input. */
static struct kld_bytes group_words(const struct elf_object *obj, uint32_t shndx)
{
    const elf_shdr *sh = &obj->shdrs[shndx];
    struct kld_bytes words;
    if (sh->sh_type != SHT_GROUP || sh->sh_size < 4 ||
        !kld_bytes_part(obj->base.bytes, sh->sh_offset, sh->sh_size & ~3ull, &words))
        return (struct kld_bytes){0};
    return words;
}

/* Whether the group's number k (from 1) is a live section, and which. */
static struct kld_atom *group_member(const struct elf_object *obj, struct kld_bytes words, size_t k)
{
    return (struct kld_atom *)live_atom(obj, kld_get32(words.ptr + 4 * k));
}

static void take_group(struct kld_session *ctx, struct elf_relocatable *r, uint32_t f,
                       uint32_t shndx, uint8_t *grouped)
{
    struct elf_object *obj = elf_object(ctx->files[f]);
    struct kld_bytes words = group_words(obj, shndx);
    bool any = false;
    for (size_t k = 1; k < words.len / 4; k++) {
        struct kld_atom *atom = group_member(obj, words, k);
        if (!atom || grouped[atom->input_index])
            continue;
        grouped[atom->input_index] = 1;
        place_member(ctx, obj, atom);
        any = true;
    }
    if (!any)
        return;
    struct kld_str name = elf_section_name(obj, shndx);
    struct kld_section *s =
        kld_section_new(ctx, kld_arena_strndup(&ctx->arena, name.ptr, name.len));
    s->type = SHT_GROUP;
    s->entsize = 4;
    *kld_vec_push(&ctx->arena, &r->groups) = (struct group){obj, f, shndx, s};
}

/* Sections that refer to others come after them: their place depends on where those went. */
static void place_file(struct kld_session *ctx, struct elf_relocatable *r, uint32_t f)
{
    struct elf_object *obj = elf_object(ctx->files[f]);
    uint8_t *grouped = kld_worker_buffer(kld_pool_worker(ctx, 0), obj->nshdrs + 1);
    memset(grouped, 0, obj->nshdrs);
    for (uint32_t i = 1; i < obj->nshdrs; i++)
        if (obj->shdrs[i].sh_type == SHT_GROUP)
            take_group(ctx, r, f, i, grouped);
    for (int linked = 0; linked < 2; linked++)
        for (uint32_t i = 0; i < obj->base.natoms; i++) {
            struct kld_atom *atom = &obj->base.atoms[i];
            const elf_shdr *sh = &obj->shdrs[atom->input_index];
            if (atom->live && !grouped[atom->input_index] &&
                !(sh->sh_flags & SHF_LINK_ORDER) == !linked)
                place_atom(ctx, r, obj, atom);
        }
}

/* What -d made of COMMON symbols joins the inputs' .bss. */
static void place_commons(struct kld_session *ctx, struct elf_relocatable *r)
{
    for (size_t i = 0; i < ctx->made.len; i++) {
        struct kld_atom *atom = ctx->made.data[i];
        if (!(atom->flags & KLD_ATOM_ZERO))
            continue;
        struct variant v = {.type = SHT_NOBITS,
                            .flags = SHF_ALLOC | SHF_WRITE |
                                     (atom->flags & KLD_ATOM_TLS ? SHF_TLS : 0u)};
        atom->section = join(ctx, r, ctx->sections.data[atom->section], v)->id;
    }
}

static void place_inputs(struct kld_session *ctx, struct elf_relocatable *r)
{
    r->nvariants = ctx->sections.len;
    r->variants = KLD_NEW_ARRAY(&ctx->arena, struct variant *, r->nvariants);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (ctx->files[f]->kind == KLD_FILE_OBJECT && ctx->files[f]->natoms)
            place_file(ctx, r, f);
    place_commons(ctx, r);
    for (size_t i = 0; i < ctx->sections.len; i++)
        if (ctx->sections.data[i]->keep && (ctx->sections.data[i]->format_flags & SHF_GNU_RETAIN))
            elf_state(ctx)->uses_gnu_osabi = true;
}

/* On some CPUs an object without this note is taken to need an executable stack: the output has it
 * if an input has, and with it says so for all of them. */
static void mark_stack(struct kld_session *ctx)
{
    bool present = false, executable = false;
    bool silent_need_it = elf_state(ctx)->arch->execstack_default;
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind != KLD_FILE_OBJECT || obj->base.just_symbols)
            continue;
        present |= obj->has_gnu_stack;
        executable |= obj->execstack || (silent_need_it && !obj->has_gnu_stack);
    }
    if (ctx->options.z_execstack != KLD_AUTO)
        executable = ctx->options.z_execstack == KLD_YES;
    else if (!present)
        return;
    struct kld_section *s = kld_section_new(ctx, ".note.GNU-stack");
    s->type = SHT_PROGBITS;
    s->format_flags = executable ? SHF_EXECINSTR : 0;
    s->keep = true;
}

/* ---- relocations ---- */

/* The number of the section symbol that stands for a local section symbol of the input, which
 * moves into the addend where it is in that section. 0: it is gone. */
static uint32_t translate_section(const struct kld_session *ctx, const struct elf_object *obj,
                                  uint32_t sym, int64_t *addend)
{
    struct elf_target t = elf_resolve(ctx, obj, sym, *addend);
    if (t.discarded || !t.atom)
        return 0;
    const struct kld_section *section = section_of(ctx, t.atom);
    *addend = kld_add_wrapping(*addend, t.value - section->addr);
    return elf_symtab_section(ctx, section);
}

static void translate(const struct kld_session *ctx, const struct relocs *r, const elf_rela *in,
                      elf_rela *out)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct elf_object *obj = elf_object(ctx->files[r->file]);
    uint32_t sym = ELF64_R_SYM(in->r_info), type = ELF64_R_TYPE(in->r_info), number = 0;
    int64_t addend = in->r_addend;
    if (sym && sym < obj->first_global && ELF64_ST_TYPE(obj->syms[sym].st_info) == STT_SECTION)
        number = translate_section(ctx, obj, sym, &addend);
    else if (sym)
        number = elf_symtab_number(ctx, r->file, sym);
    if (sym && !number) {
        type = elf->arch->r_none;
        addend = 0;
    }
    out->r_offset = elf_atom_address(r->atom, in->r_offset);
    out->r_info = ELF64_R_INFO((uint64_t)number, type);
    out->r_addend = addend;
    if ((number || !sym) && !elf->is_relocatable && elf->arch->emitted &&
        (r->atom->flags & KLD_ATOM_ALLOC))
        elf->arch->emitted(ctx, obj, r->atom, in, out);
}

static void write_relocs(struct kld_session *ctx, struct kld_worker *worker,
                         const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    const struct relocs *r = atom->extra;
    const elf_rela *in = r->atom->edges;
    for (uint32_t i = 0; i < r->atom->nedges; i++)
        translate(ctx, r, &in[i], (elf_rela *)out + i);
}

static bool keeps_relocs_of(const struct kld_atom *atom)
{
    return atom->live && atom->nedges && !(atom->flags & KLD_ATOM_FOLDED) &&
           (atom->kind == KLD_ATOM_BYTES || atom->kind == KLD_ATOM_RECORDS);
}

static struct kld_section *rela_section(struct kld_session *ctx, struct elf_relocatable *r,
                                        struct kld_section *target)
{
    struct kld_section *s = r->rela_of[target->id];
    if (s)
        return s;
    s = kld_section_new(ctx, kld_arena_printf(&ctx->arena, ".rela%s", target->name));
    s->type = SHT_RELA;
    s->format_flags = SHF_INFO_LINK | (target->format_flags & SHF_GROUP);
    s->entsize = sizeof(Elf64_Rela);
    s->info_section = target;
    return r->rela_of[target->id] = s;
}

static void make_relocs(struct kld_session *ctx, struct elf_relocatable *r)
{
    r->nrela = ctx->sections.len;
    r->rela_of = KLD_NEW_ARRAY(&ctx->arena, struct kld_section *, r->nrela);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f];
        for (uint32_t i = 0; i < file->natoms; i++) {
            struct kld_atom *atom = &file->atoms[i];
            if (!keeps_relocs_of(atom))
                continue;
            struct kld_section *s = rela_section(ctx, r, section_of(ctx, atom));
            struct kld_atom *table =
                kld_atom_new(ctx, s, 0, 3, (uint64_t)atom->nedges * sizeof(Elf64_Rela));
            struct relocs *relocs = KLD_NEW(&ctx->arena, struct relocs);
            *relocs = (struct relocs){atom, f};
            table->kind = KLD_ATOM_GENERATED;
            table->generate = write_relocs;
            table->extra = relocs;
        }
    }
}

static void link_relocs(struct kld_session *ctx, const struct elf_relocatable *r)
{
    const struct kld_atom *symtab = elf_state(ctx)->synth[ELF_SYMTAB];
    for (size_t i = 0; symtab && i < r->nrela; i++)
        if (r->rela_of[i])
            r->rela_of[i]->link = ctx->sections.data[symtab->section];
}

/* ---- what .symtab has to hold ---- */

static void need_symbol(const struct elf_object *obj, uint32_t sym, uint64_t *locals,
                        _Atomic uint8_t *globals)
{
    if (sym < obj->first_global) {
        locals[sym / 64] |= 1ull << sym % 64;
        return;
    }
    kld_symid id = obj->base.ids[sym - obj->first_global];
    if (!atomic_load_explicit(&globals[id], memory_order_relaxed))
        atomic_store_explicit(&globals[id], 1, memory_order_relaxed);
}

static void check_relocs(struct kld_session *ctx, const struct elf_object *obj,
                         struct kld_atom *atom, uint64_t *locals, _Atomic uint8_t *globals)
{
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges; i++) {
        uint32_t sym = ELF64_R_SYM(rels[i].r_info);
        if (kld_likely(sym < obj->nsyms)) {
            need_symbol(obj, sym, locals, globals);
            continue;
        }
        struct kld_where where = elf_where(atom, rels[i].r_offset);
        kld_error(ctx, "bad-relocation", &where,
                  "relocation %u: symbol index %u out of range (table has %u)", i, sym, obj->nsyms);
        atom->nedges = 0;
        return;
    }
}

void elf_relocatable_needs(struct kld_session *ctx, const struct elf_object *obj, uint64_t *locals,
                           _Atomic uint8_t *globals)
{
    for (uint32_t i = 0; i < obj->base.natoms; i++)
        if (keeps_relocs_of(&obj->base.atoms[i]))
            check_relocs(ctx, obj, &obj->base.atoms[i], locals, globals);
    for (uint32_t i = 1; elf_state(ctx)->is_relocatable && i < obj->nshdrs; i++)
        if (obj->shdrs[i].sh_type == SHT_GROUP && obj->shdrs[i].sh_info < obj->nsyms)
            need_symbol(obj, obj->shdrs[i].sh_info, locals, globals);
}

/* ---- groups ---- */

static void write_group(struct kld_session *ctx, struct kld_worker *worker,
                        const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    const struct group *g = atom->extra;
    struct kld_bytes words = group_words(g->obj, g->input_index);
    const uint8_t *end = out + atom->size;
    kld_put32(out, kld_get32(words.ptr));
    out += 4;
    for (size_t k = 1; k < words.len / 4 && out < end; k++) {
        const struct kld_atom *member = group_member(g->obj, words, k);
        if (!member)
            continue;
        kld_put32(out, ctx->sections.data[member->section]->number);
        out += 4;
        const struct kld_section *rela = ctx->sections.data[member->section]->extra;
        if (rela && out < end) {
            kld_put32(out, rela->number);
            out += 4;
        }
    }
}

static uint32_t signature(const struct kld_session *ctx, const struct group *g)
{
    uint32_t sym = g->obj->shdrs[g->input_index].sh_info;
    if (sym >= g->obj->nsyms)
        return 0;
    if (sym < g->obj->first_global && ELF64_ST_TYPE(g->obj->syms[sym].st_info) == STT_SECTION) {
        const struct kld_atom *atom = live_atom(g->obj, elf_sym_section(g->obj, sym));
        return atom ? elf_symtab_section(ctx, section_of(ctx, atom)) : 0;
    }
    return elf_symtab_number(ctx, g->file, sym);
}

const struct kld_section *elf_relocatable_group(const struct kld_session *ctx, uint32_t f,
                                                uint32_t shndx)
{
    const struct elf_relocatable *r = elf_state(ctx)->relocatable;
    size_t lo = 0, hi = r->groups.len;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct group *g = &r->groups.data[mid];
        if (g->file < f || (g->file == f && g->input_index < shndx))
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == r->groups.len || r->groups.data[lo].file != f ||
        r->groups.data[lo].input_index != shndx)
        return NULL;
    return r->groups.data[lo].section;
}

/* The contents: flags, then the members with their relocation sections behind them. */
static void make_groups(struct kld_session *ctx, struct elf_relocatable *r)
{
    const struct kld_atom *symtab = elf_state(ctx)->synth[ELF_SYMTAB];
    for (size_t i = 0; symtab && i < r->groups.len; i++) {
        struct group *g = &r->groups.data[i];
        struct kld_bytes words = group_words(g->obj, g->input_index);
        uint64_t size = 4;
        for (size_t k = 1; k < words.len / 4; k++) {
            const struct kld_atom *member = group_member(g->obj, words, k);
            if (!member)
                continue;
            struct kld_section *s = ctx->sections.data[member->section];
            s->extra = r->rela_of[s->id]; /* belongs to the group as well */
            size += s->extra ? 8 : 4;
        }
        g->section->link = ctx->sections.data[symtab->section];
        g->section->info = signature(ctx, g);
        struct kld_atom *atom = kld_atom_new(ctx, g->section, 0, 2, size);
        atom->kind = KLD_ATOM_GENERATED;
        atom->generate = write_group;
        atom->extra = g;
    }
}

/* ---- the pass ---- */

static void make_object(struct kld_session *ctx, struct elf_relocatable *r)
{
    place_inputs(ctx, r);
    mark_stack(ctx);
    elf_notes_synth(ctx);
    make_relocs(ctx, r);
    elf_symtab_synth(ctx);
    make_groups(ctx, r);
}

void elf_relocatable_synth(struct kld_session *ctx)
{
    struct elf_relocatable *r = KLD_NEW(&ctx->arena, struct elf_relocatable);
    elf_state(ctx)->relocatable = r;
    if (elf_state(ctx)->is_relocatable)
        make_object(ctx, r);
    else
        make_relocs(ctx, r);
    link_relocs(ctx, r);
}
