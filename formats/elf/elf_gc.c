/* elf_gc.c - what --gc-sections keeps in ELF.
 *
 * Roots, as GNU ld and lld agree on them: the entry point, what is exported, -u and the like;
 * sections that the startup code or the loader finds by their place (.init, .init_array, .ctors
 * ...); notes, unless they belong to a group; SHF_GNU_RETAIN. Sections that are not in memory
 * (debug information) are kept, unless they belong to something that is not.
 *
 * Beside its relocations, a section keeps alive
 * - the other members of its group: a group stays or goes as a whole (gABI);
 * - the sections linked to it by SHF_LINK_ORDER, which describe it;
 * - what its unwind records refer to.
 * And a reference to __start_NAME or __stop_NAME keeps all sections NAME, since it says that
 * somebody walks through them (-z start-stop-gc takes that away). */
#include "formats/elf/elf_gc.h"
#include "formats/elf/elf_eh.h"
#include "src/resolve.h"

enum { SYMBOL_BLOCK = 4096 };

enum section_class { ORDINARY, ROOT, NOTE, WALKED };

/* Sections whose name is a C identifier: what __start_ and __stop_ stand for. */
struct walked {
    struct kld_section *section;
    const struct kld_symbol *start, *stop;
    _Atomic bool kept;
};

struct elf_gc {
    uint8_t *classes; /* enum section_class, by output section */
    struct walked *walked;
    uint32_t nwalked;
    KLD_VEC(struct kld_atom *) * atoms; /* in walked sections, by worker */
    kld_mark *mark;
};

/* Relations between the sections of an object, by section number; NULL if there are none. */
struct elf_gc_links {
    uint32_t *group_next;   /* the next member of the group, in a circle; 0: alone */
    uint32_t *first, *next; /* sections linked to this one; the next one linked to the same */
};

struct kld_str elf_atom_name(const struct kld_atom *atom)
{
    return elf_section_name(elf_object(atom->file), atom->input_index);
}

/* ---- edges ---- */

bool elf_edge(const struct kld_session *ctx, const struct elf_object *obj, const elf_rela *rel,
              struct kld_edge *e)
{
    uint32_t r_sym = ELF64_R_SYM(rel->r_info);
    if (kld_unlikely(r_sym >= obj->nsyms))
        return false; /* scan reports it */
    e->offset = rel->r_offset;
    e->addend = rel->r_addend;
    e->type = ELF64_R_TYPE(rel->r_info);
    if (r_sym >= obj->first_global) {
        struct kld_symbol *sym = elf_global(ctx, obj, r_sym);
        e->symbol = sym;
        e->atom = sym->kind == KLD_SYM_DEFINED && !sym->in_section ? sym->atom : NULL;
        e->value = sym->value;
        return true;
    }
    uint32_t shndx = elf_sym_section(obj, r_sym);
    e->symbol = NULL;
    e->atom = shndx ? elf_section_atom(obj, shndx) : NULL;
    e->value = obj->syms[r_sym].st_value;
    if (e->atom && e->atom->kind == KLD_ATOM_PIECES &&
        ELF64_ST_TYPE(obj->syms[r_sym].st_info) == STT_SECTION) {
        e->value += (uint64_t)e->addend; /* which piece it is depends on the sum */
        e->addend = 0;
    }
    return e->atom != NULL;
}

/* The symbol itself is not looked at, which would be a cache miss. */
static bool was_seen(const struct elf_object *obj, const elf_rela *rel, const struct kld_seen *seen)
{
    uint32_t r_sym = ELF64_R_SYM(rel->r_info);
    if (!seen || r_sym >= obj->nsyms)
        return false;
    if (r_sym < obj->first_global) {
        uint64_t *word = &seen->own[r_sym / 64], bit = 1ull << r_sym % 64;
        bool was = *word & bit;
        *word |= bit;
        return was;
    }
    _Atomic uint8_t *byte = &seen->global[obj->base.ids[r_sym - obj->first_global]];
    if (atomic_load_explicit(byte, memory_order_relaxed))
        return true;
    atomic_store_explicit(byte, 1, memory_order_relaxed);
    return false;
}

uint32_t elf_own_symbols(const struct kld_file *file)
{
    return elf_object(file)->first_global;
}

size_t elf_edges(struct kld_session *ctx, const struct kld_atom *atom, size_t *from,
                 struct kld_edge *out, size_t cap, const struct kld_seen *seen)
{
    const struct elf_object *obj = elf_object(atom->file);
    const elf_rela *relas = atom->edges;
    size_t n = 0, i = *from;
    for (; i < atom->nedges && n < cap; i++)
        if (!was_seen(obj, &relas[i], seen))
            n += elf_edge(ctx, obj, &relas[i], &out[n]);
    *from = i;
    return n;
}

/* ---- groups and linked sections ---- */

static struct elf_gc_links *links_of(struct kld_worker *worker, struct elf_object *obj)
{
    if (!obj->gc_links)
        obj->gc_links = KLD_NEW(&worker->arena, struct elf_gc_links);
    return obj->gc_links;
}

/* Chains the members that have an atom, if there are several. */
static void link_group(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                       uint32_t shndx)
{
    struct kld_bytes bytes;
    uint32_t first = 0, last = 0;
    if (!elf_section_bytes(ctx, obj, shndx, &bytes))
        return;
    for (size_t at = 4; at + 4 <= bytes.len; at += 4) {
        uint32_t member = kld_get32(bytes.ptr + at);
        if (!elf_section_atom(obj, member))
            continue;
        if (!first) {
            first = last = member;
            continue;
        }
        struct elf_gc_links *links = links_of(worker, obj);
        if (!links->group_next)
            links->group_next = KLD_NEW_ARRAY(&worker->arena, uint32_t, obj->nshdrs);
        if (links->group_next[member] || member == first)
            continue; /* in two groups */
        links->group_next[last] = member;
        links->group_next[member] = first;
        last = member;
    }
}

static void link_order(struct kld_worker *worker, struct elf_object *obj, uint32_t i)
{
    uint32_t to = obj->shdrs[i].sh_link;
    if (!to || to >= obj->nshdrs)
        return;
    struct elf_gc_links *links = links_of(worker, obj);
    if (!links->first) {
        links->first = KLD_NEW_ARRAY(&worker->arena, uint32_t, obj->nshdrs);
        links->next = KLD_NEW_ARRAY(&worker->arena, uint32_t, obj->nshdrs);
    }
    links->next[i] = links->first[to];
    links->first[to] = i;
}

static void link_sections(struct kld_session *ctx, struct kld_worker *worker,
                          struct elf_object *obj)
{
    for (uint32_t g = 0; g < obj->base.ngroups && !obj->has_links; g++) {
        const struct kld_group *group = &obj->base.groups[g];
        if (!group->discarded && obj->shdrs[group->input_index].sh_type == SHT_GROUP)
            link_group(ctx, worker, obj, group->input_index);
    }
    for (uint32_t i = 1; i < obj->nshdrs && obj->has_links; i++) {
        if (obj->shdrs[i].sh_type == SHT_GROUP)
            link_group(ctx, worker, obj, i);
        else if ((obj->shdrs[i].sh_flags & SHF_LINK_ORDER) && elf_section_atom(obj, i))
            link_order(worker, obj, i);
    }
}

/* ---- roots ---- */

bool elf_is_c_identifier(const char *s)
{
    for (const char *c = s; *c; c++) {
        bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '_';
        if (!letter && !(c > s && *c >= '0' && *c <= '9'))
            return false;
    }
    return *s != 0;
}

static enum section_class classify(const struct kld_section *s)
{
    static const char *const kept[] = {".ctors", ".dtors", ".fini",
                                       ".init",  ".jcr",   ".preinit_array"};
    if (s->type == SHT_NOTE)
        return NOTE;
    if (s->type == SHT_INIT_ARRAY || s->type == SHT_FINI_ARRAY || s->type == SHT_PREINIT_ARRAY)
        return ROOT;
    for (size_t i = 0; i < KLD_COUNT(kept); i++)
        if (kld_str_starts(kld_str(s->name), kept[i]))
            return ROOT;
    return elf_is_c_identifier(s->name) ? WALKED : ORDINARY;
}

static struct kld_symbol *find_prefixed(struct kld_session *ctx, const char *prefix,
                                        const char *name)
{
    return kld_symbol_find(ctx, kld_str(kld_arena_printf(&ctx->scratch, "%s%s", prefix, name)));
}

static void classify_sections(struct kld_session *ctx, struct elf_gc *gc)
{
    gc->classes = KLD_NEW_ARRAY(&ctx->scratch, uint8_t, ctx->sections.len);
    gc->walked = KLD_NEW_ARRAY(&ctx->scratch, struct walked, ctx->sections.len);
    gc->atoms = KLD_NEW_ARRAY(&ctx->scratch, __typeof__(*gc->atoms), kld_pool_size(ctx));
    for (size_t i = 0; i < ctx->sections.len; i++) {
        struct kld_section *s = ctx->sections.data[i];
        gc->classes[i] = (uint8_t)classify(s);
        if (gc->classes[i] != WALKED)
            continue;
        struct walked *w = &gc->walked[gc->nwalked];
        w->section = s;
        w->start = find_prefixed(ctx, "__start_", s->name);
        w->stop = find_prefixed(ctx, "__stop_", s->name);
        if ((w->start || w->stop) && !ctx->options.z_start_stop_gc)
            gc->nwalked++;
        else
            gc->classes[i] = ORDINARY;
    }
}

/* Whether the group that this section is in holds something that is in memory. */
static bool group_has_memory(const struct elf_object *obj, uint32_t shndx)
{
    if (!obj->gc_links || !obj->gc_links->group_next)
        return false;
    uint32_t i = obj->gc_links->group_next[shndx];
    for (; i && i != shndx; i = obj->gc_links->group_next[i])
        if (obj->shdrs[i].sh_flags & SHF_ALLOC)
            return true;
    return false;
}

static bool is_root(const struct elf_gc *gc, const struct elf_object *obj,
                    const struct kld_atom *atom)
{
    if (atom->flags & KLD_ATOM_RETAIN)
        return true;
    const elf_shdr *sh = &obj->shdrs[atom->input_index];
    if (atom->flags & KLD_ATOM_ALLOC) {
        enum section_class class = gc->classes[atom->section];
        return class == ROOT || (class == NOTE && !(sh->sh_flags & SHF_GROUP));
    }
    if ((sh->sh_flags & SHF_LINK_ORDER) && sh->sh_link)
        return false;
    return !(sh->sh_flags & SHF_GROUP) || !group_has_memory(obj, atom->input_index);
}

static void file_roots(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t f)
{
    struct elf_gc *gc = arg;
    struct elf_object *obj = elf_object(ctx->files[f]);
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    link_sections(ctx, worker, obj);
    for (uint32_t i = 0; i < obj->base.natoms; i++) {
        struct kld_atom *atom = &obj->base.atoms[i];
        if (is_root(gc, obj, atom))
            gc->mark(ctx, worker, atom);
        else if (gc->classes[atom->section] == WALKED)
            *kld_vec_push(&worker->arena, &gc->atoms[worker->index]) = atom;
    }
}

static void mark_symbol(struct kld_session *ctx, struct kld_worker *worker, kld_mark *mark,
                        const struct kld_symbol *sym)
{
    if (!sym || sym->kind != KLD_SYM_DEFINED)
        return;
    if (!sym->in_section && sym->atom)
        mark(ctx, worker, sym->atom);
    else
        elf_gc_symbol(ctx, worker, sym, mark);
}

static void symbol_roots(struct kld_session *ctx, struct kld_worker *worker, void *arg,
                         size_t block)
{
    const struct elf_gc *gc = arg;
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * SYMBOL_BLOCK, ctx->nsymbols);
    for (kld_symid id = (kld_symid)(block * SYMBOL_BLOCK); id < end; id++) {
        const struct kld_symbol *sym = &ctx->symbols[id];
        if (sym->name && (sym->exported || kld_symbol_has(sym, KLD_SYM_ROOT)))
            mark_symbol(ctx, worker, gc->mark, sym);
    }
}

static void mark_name(struct kld_session *ctx, kld_mark *mark, const char *name)
{
    if (name)
        mark_symbol(ctx, kld_pool_worker(ctx, 0), mark, kld_symbol_find(ctx, kld_str(name)));
}

static bool is_defined_name(struct kld_session *ctx, const char *name)
{
    const struct kld_symbol *sym = name ? kld_symbol_find(ctx, kld_str(name)) : NULL;
    return sym && (sym->kind == KLD_SYM_DEFINED || sym->kind == KLD_SYM_COMMON);
}

/* -r keeps what it is told to: there is no entry point that it could begin at. */
static void check_object_roots(struct kld_session *ctx)
{
    const struct kld_options *o = &ctx->options;
    bool found = is_defined_name(ctx, o->entry);
    for (size_t i = 0; i < o->undefined.len; i++)
        found |= is_defined_name(ctx, o->undefined.data[i]);
    for (size_t i = 0; i < o->require_defined.len; i++)
        found |= is_defined_name(ctx, o->require_defined.data[i]);
    if (!found)
        kld_error(ctx, "gc-sections", NULL,
                  "--gc-sections requires a defined symbol root specified by -e or -u");
}

void elf_gc_roots(struct kld_session *ctx, kld_mark *mark)
{
    const struct kld_options *o = &ctx->options;
    if (elf_state(ctx)->is_relocatable)
        check_object_roots(ctx);
    struct elf_gc *gc = KLD_NEW(&ctx->scratch, struct elf_gc);
    elf_state(ctx)->gc = gc;
    gc->mark = mark;
    classify_sections(ctx, gc);
    kld_parallel_for(ctx, ctx->nfiles, 32, file_roots, gc);
    kld_parallel_for(ctx, (ctx->nsymbols + SYMBOL_BLOCK - 1) / SYMBOL_BLOCK, 4, symbol_roots, gc);
    mark_name(ctx, mark, o->entry ? o->entry : "_start");
    mark_name(ctx, mark, o->init);
    mark_name(ctx, mark, o->fini);
    for (size_t i = 0; i < o->undefined.len; i++)
        mark_name(ctx, mark, o->undefined.data[i]);
    for (size_t i = 0; i < o->require_defined.len; i++)
        mark_name(ctx, mark, o->require_defined.data[i]);
}

/* ---- what lives with a live section ---- */

void elf_gc_follow(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom,
                   kld_mark *mark)
{
    const struct elf_object *obj = elf_object(atom->file);
    const struct elf_gc_links *links = obj->gc_links;
    if (atom->extra)
        elf_eh_follow(ctx, worker, atom, mark);
    if (!links)
        return;
    if (links->group_next)
        for (uint32_t i = links->group_next[atom->input_index]; i && i != atom->input_index;
             i = links->group_next[i])
            mark(ctx, worker, elf_section_atom(obj, i));
    if (links->first)
        for (uint32_t i = links->first[atom->input_index]; i; i = links->next[i])
            mark(ctx, worker, elf_section_atom(obj, i));
}

void elf_gc_symbol(struct kld_session *ctx, struct kld_worker *worker, const struct kld_symbol *sym,
                   kld_mark *mark)
{
    struct elf_gc *gc = elf_state(ctx)->gc;
    for (uint32_t i = 0; i < gc->nwalked; i++) {
        struct walked *w = &gc->walked[i];
        if ((sym != w->start && sym != w->stop) || atomic_exchange(&w->kept, true))
            continue;
        for (unsigned k = 0; k < kld_pool_size(ctx); k++)
            for (size_t a = 0; a < gc->atoms[k].len; a++)
                if (gc->atoms[k].data[a]->section == w->section->id)
                    mark(ctx, worker, gc->atoms[k].data[a]);
    }
}
