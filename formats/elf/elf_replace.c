/* elf_replace.c - places for the atoms of files that have changed.
 *
 * An atom stays where its older version was if it fits; else it moves to free space in the same
 * section. Which is its older version is a matter of names, and of order where names repeat.
 *
 * What others see of a symbol that has moved with its atom stays where it was if a jump can be left
 * there (an island): for code that is entered at its start alone. All else that has moved is *seen*
 * elsewhere, and what refers to it is applied anew. Data never moves that others know by name. */
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_gc.h"
#include "formats/elf/elf_update.h"
#include "src/incremental/slack.h"
#include "src/layout.h"

/* ---- older versions ---- */

/* The atom's number in the older version of the file, or KLD_STATE_NONE, by number. */
static uint32_t *match_atoms(struct elf_relink *e, const struct kld_relink_file *rf)
{
    const struct kld_file *file = rf->file;
    uint64_t nold = rf->old.head.natoms, size = 16;
    while (size < nold)
        size *= 2;
    uint32_t *table = KLD_NEW_ARRAY(&e->ctx->arena, uint32_t, size); /* 1 + number of the first */
    uint32_t *next = KLD_NEW_ARRAY(&e->ctx->arena, uint32_t, nold + 1); /* and of the one behind */
    uint32_t *match = KLD_NEW_ARRAY(&e->ctx->arena, uint32_t, file->natoms + 1);
    for (uint32_t i = (uint32_t)nold; i-- > 0;) {
        uint32_t *first = &table[rf->old.atoms[i].name & (size - 1)];
        next[i] = *first;
        *first = i + 1;
    }
    for (uint32_t i = 0; i < file->natoms; i++) {
        const struct kld_atom *a = &file->atoms[i];
        uint32_t name = file->keys[i];
        uint32_t *at = &table[name & (size - 1)];
        while (*at && (rf->old.atoms[*at - 1].name != name ||
                       rf->old.atoms[*at - 1].section != a->section))
            at = &next[*at - 1];
        match[i] = *at ? *at - 1 : KLD_STATE_NONE;
        if (*at)
            *at = next[*at - 1]; /* it is taken */
    }
    return match;
}

/* ---- what lives ---- */

static void mark(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom)
{
    (void)ctx, (void)worker;
    if (!atom->live)
        atom->live = 2; /* and what it refers to is yet to be looked at */
}

static void follow(struct elf_relink *e, struct kld_atom *atom)
{
    struct kld_edge edges[64];
    size_t from = 0, n;
    while ((n = elf_edges(e->ctx, atom, &from, edges, KLD_COUNT(edges), NULL)) > 0)
        for (size_t i = 0; i < n; i++)
            if (edges[i].atom)
                mark(e->ctx, e->worker, edges[i].atom);
    if (atom->kind == KLD_ATOM_BYTES && atom->extra)
        elf_eh_follow(e->ctx, e->worker, atom, mark);
}

/* --gc-sections: what lived lives on, until the next full link; and all that it now refers to. */
static void find_live(struct elf_relink *e, const struct kld_relink_file *rf, const uint32_t *match)
{
    struct kld_file *file = rf->file;
    if (!e->ctx->options.gc_sections)
        return;
    for (uint32_t i = 0; i < file->natoms; i++) {
        struct kld_atom *a = &file->atoms[i];
        bool kept = match[i] != KLD_STATE_NONE && rf->old.atoms[match[i]].live;
        if ((a->flags & KLD_ATOM_ALLOC) && a->kind != KLD_ATOM_RECORDS)
            a->live = kept ? 2 : 0;
    }
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < file->natoms; i++) {
            if (file->atoms[i].live != 2)
                continue;
            file->atoms[i].live = 1;
            follow(e, &file->atoms[i]);
            more = true;
        }
    }
}

/* ---- slots ---- */

static bool give_got(struct elf_relink *e, struct kld_symbol *sym, uint32_t *slot,
                     enum elf_got_kind kind, uint32_t words)
{
    struct elf_link *elf = e->elf;
    if (*slot != ELF_NONE)
        return true;
    if (elf->got_capacity - elf->got_slots < words)
        return false;
    *slot = elf->got_slots;
    elf->got_slots += words;
    *kld_vec_push(&e->ctx->arena, &elf->got) = (struct elf_got_entry){sym, *slot, kind};
    return true;
}

static bool has_plt(const struct elf_aux *aux)
{
    return aux->plt != ELF_NONE || aux->plt_got != ELF_NONE || aux->iplt != ELF_NONE;
}

/* A branch goes through an entry that jumps through a GOT slot: those of .plt have no spares. */
static bool give_plt(struct elf_relink *e, struct kld_symbol *sym, struct elf_aux *aux)
{
    struct elf_link *elf = e->elf;
    bool ifunc = sym->type == KLD_TYPE_IFUNC && !elf_is_dynamic_symbol(sym);
    if (has_plt(aux) || (!ifunc && !elf_is_dynamic_symbol(sym)))
        return true;
    if (ifunc || elf->plt_got.len >= elf->plt_got_capacity ||
        !give_got(e, sym, &aux->got, ELF_GOT_ADDRESS, 1))
        return false;
    aux->plt_got = (uint32_t)elf->plt_got.len;
    *kld_vec_push(&e->ctx->arena, &elf->plt_got) = sym;
    return true;
}

static bool give_slots(struct elf_relink *e, struct kld_symbol *sym)
{
    uint16_t flags = atomic_load_explicit(&sym->flags, memory_order_relaxed);
    if (!sym->aux) {
        sym->aux = elf_add_aux(e->ctx);
        *kld_vec_push(&e->ctx->arena, &e->aux_numbers) = 0;
    }
    struct elf_aux *aux = &e->elf->aux.data[sym->aux];
    if ((flags & KLD_SYM_NEED_DYNSYM) && elf_is_dynamic_symbol(sym) && aux->dynsym == ELF_NONE)
        return false;
    return (!(flags & KLD_SYM_NEED_GOT) || give_got(e, sym, &aux->got, ELF_GOT_ADDRESS, 1)) &&
           (!(flags & KLD_SYM_NEED_GOTTP) || give_got(e, sym, &aux->gottp, ELF_GOT_TPOFF, 1)) &&
           (!(flags & KLD_SYM_NEED_TLSGD) || give_got(e, sym, &aux->tlsgd, ELF_GOT_TLSGD, 2)) &&
           (!(flags & KLD_SYM_NEED_TLSDESC) ||
            give_got(e, sym, &aux->tlsdesc, ELF_GOT_TLSDESC, 2)) &&
           (!(flags & KLD_SYM_NEED_PLT) || give_plt(e, sym, aux));
}

enum { SLOT_NEEDS = KLD_SYM_NEEDS | KLD_SYM_NEED_DYNSYM };

/* Slots for what the changed files newly need. */
static bool give_all_slots(struct elf_relink *e)
{
    struct kld_session *ctx = e->ctx;
    const struct elf_state_record *known = kld_state_get(&e->r->st, KLD_T_FORMAT, 0, 1);
    for (kld_symid id = 0; id < ctx->nsymbols; id++) {
        struct kld_symbol *sym = &ctx->symbols[id];
        uint16_t had = kld_relink_known(e->r, id)->needs;
        uint16_t more = atomic_load_explicit(&sym->flags, memory_order_relaxed) & ~had & SLOT_NEEDS;
        if (!more)
            continue;
        if ((more & (KLD_SYM_NEED_COPY | KLD_SYM_NEED_CANONICAL_PLT)) || !give_slots(e, sym))
            return kld_relink_refuse(e->r, KLD_WHY_SLOTS, "%.*s needs an entry and none is spare",
                                     KLD_FMT(kld_symbol_name(sym)));
    }
    if ((atomic_load(&e->elf->static_tls) && !known->static_tls) ||
        (atomic_load(&e->elf->needs_tlsld) && e->elf->tlsld == ELF_NONE) ||
        (atomic_load(&e->elf->textrel) && !known->textrel))
        return kld_relink_refuse(e->r, KLD_WHY_SLOTS, "another kind of thread-local access");
    return true;
}

/* Local symbols get the slots that the older version's had, if they are of the same kinds. */
static bool give_local_slots(struct elf_relink *e, const struct kld_relink_file *rf)
{
    const struct elf_file_state *state = (const void *)rf->old.format;
    struct elf_object *obj = elf_object(rf->file);
    uint32_t next = 0;
    for (uint32_t i = 0; i < obj->nlocals; i++) {
        struct kld_symbol *sym = obj->locals[i];
        if (!kld_symbol_has(sym, KLD_SYM_NEEDS))
            continue;
        if (sym->type == KLD_TYPE_IFUNC)
            return kld_relink_refuse(e->r, KLD_WHY_UNSUPPORTED, "a local function with a resolver");
        sym->aux = elf_add_aux(e->ctx);
        *kld_vec_push(&e->ctx->arena, &e->aux_numbers) = 0;
        if (next < state->nlocal_aux) {
            uint32_t number = state->local_aux[next++];
            const struct elf_aux *from = kld_state_get(&e->r->st, KLD_T_AUX, number, 1);
            e->elf->aux.data[sym->aux] = *from;
            e->aux_numbers.data[sym->aux] = number;
        }
        if (!give_slots(e, sym))
            return kld_relink_refuse(e->r, KLD_WHY_SLOTS, "%s: no spare entry for a local symbol",
                                     rf->file->path);
    }
    return true;
}

/* ---- places ---- */

static const struct kld_section *section_of(const struct elf_relink *e, const struct kld_atom *a)
{
    return e->ctx->sections.data[a->section];
}

static bool refuse_room(struct elf_relink *e, const struct kld_atom *a)
{
    return kld_relink_refuse(e->r, KLD_WHY_NO_ROOM, "%s: no room for section %.*s", a->file->path,
                             KLD_FMT(elf_atom_name(a)));
}

/* The section comes to be aligned as its strictest atom; addresses of this one see to the rest, as
 * long as the loader maps whole pages. */
static bool raise_alignment(struct elf_relink *e, const struct kld_atom *a)
{
    struct kld_section *s = e->ctx->sections.data[a->section];
    if ((1ull << a->p2align) > elf_common_page(e->ctx))
        return false;
    s->p2align = a->p2align;
    ((struct kld_state_section *)kld_state_edit(&e->r->st, KLD_T_SECTIONS, s->id, 1))->p2align =
        a->p2align;
    return true;
}

/* Where the older version was. */
static bool keep_place(struct elf_relink *e, struct kld_atom *a, struct kld_state_atom *to,
                       const struct kld_state_atom *from)
{
    const struct kld_section *s = section_of(e, a);
    if (a->p2align > from->p2align && from->addr % (1ull << a->p2align))
        return false;
    if (a->size != from->size && !kld_slots_fit(e->r, s, a->size, from->capacity))
        return false;
    *to = *from;
    if (a->size != from->size)
        kld_slots_gap(e->r, s->id, from->addr + a->size, from->capacity - a->size);
    return true;
}

static bool take_place(struct elf_relink *e, struct kld_atom *a, struct kld_state_atom *to)
{
    uint64_t capacity;
    const struct kld_section *s = section_of(e, a);
    if (!a->size) { /* nothing is at it, but labels may be */
        to->addr = s->addr;
        to->capacity = 0;
        return true;
    }
    if (!kld_slots_take(e->r, s, a->size, 1ull << a->p2align, &to->addr, &capacity) ||
        capacity > UINT32_MAX)
        return false;
    to->capacity = (uint32_t)capacity;
    kld_slots_gap(e->r, s->id, to->addr + a->size, capacity - a->size);
    return true;
}

/* Offsets of thread-local variables are all over the program. */
static bool check_tls(struct elf_relink *e, const struct kld_atom *a,
                      const struct kld_state_atom *from)
{
    if (!(a->flags & KLD_ATOM_TLS) ||
        (from && from->live && from->size == a->size && from->p2align == a->p2align))
        return true;
    if (!a->size && !from)
        return true;
    return kld_relink_refuse(e->r, KLD_WHY_TLS, "%s: thread-local storage has changed",
                             a->file->path);
}

static bool place_atom(struct elf_relink *e, struct kld_relink_file *rf, uint32_t i, uint32_t match)
{
    struct kld_atom *a = &rf->file->atoms[i];
    const struct kld_section *s = section_of(e, a);
    struct kld_state_atom *to = &rf->atoms[i];
    const struct kld_state_atom *from = match == KLD_STATE_NONE ? NULL : &rf->old.atoms[match];
    bool was = from && from->live && from->kind == kld_record_kind(a);
    if (!check_tls(e, a, from))
        return false;
    if (a->size > UINT32_MAX || (a->p2align > s->p2align && !raise_alignment(e, a)))
        return kld_relink_refuse(e->r, KLD_WHY_SECTION, "%s: size or alignment of %.*s",
                                 rf->file->path, KLD_FMT(elf_atom_name(a)));
    if (was && keep_place(e, a, to, from))
        return true;
    *to = (struct kld_state_atom){0};
    bool fixed = e->ctx->format->updater->slack_rule(e->ctx, s).kind == KLD_SLACK_NONE;
    if (fixed && (was || a->size))
        return kld_relink_refuse(e->r, KLD_WHY_SECTION, "%s: section %.*s has changed",
                                 rf->file->path, KLD_FMT(elf_atom_name(a)));
    if (was && !(a->flags & KLD_ATOM_EXEC)) /* no jump stays there: may be part of the new place */
        kld_slots_give(e->r, s, from->addr, from->capacity);
    if (!take_place(e, a, to))
        return refuse_room(e, a);
    if (was) {
        /* of the jump, if there will be one */
        to->entry = from->entry ? from->entry : elf_entry_of(s, from->addr);
        e->r->nmoved++;
    }
    return true;
}

/* Atoms of the older version that nothing has taken the place of. */
static bool release(struct elf_relink *e, const struct kld_relink_file *rf, const uint32_t *match)
{
    uint8_t *used = KLD_NEW_ARRAY(&e->ctx->arena, uint8_t, rf->old.head.natoms + 1);
    for (uint32_t i = 0; i < rf->file->natoms; i++)
        if (match[i] != KLD_STATE_NONE && rf->file->atoms[i].live)
            used[match[i]] = 1;
    for (uint32_t k = 0; k < rf->old.head.natoms; k++) {
        const struct kld_state_atom *old = &rf->old.atoms[k];
        if (used[k] || !old->live || !old->capacity || old->kind == KLD_ATOM_PIECES)
            continue;
        if (old->section >= e->ctx->sections.len)
            return false;
        const struct kld_section *s = e->ctx->sections.data[old->section];
        if (e->ctx->format->updater->slack_rule(e->ctx, s).kind == KLD_SLACK_NONE)
            return kld_relink_refuse(e->r, KLD_WHY_SECTION, "%s: part of section %s is gone",
                                     rf->file->path, s->name);
        kld_slots_give(e->r, s, old->addr, old->capacity);
    }
    return true;
}

/* The section that the slack rule allows no gap in is as it was: the atom has the size it had, or
 * the link is refused above. */
static bool place_file(struct elf_relink *e, struct kld_relink_file *rf, const uint32_t *match)
{
    struct kld_file *file = rf->file;
    if (!release(e, rf, match))
        return false;
    for (uint32_t i = 0; i < file->natoms; i++) {
        struct kld_atom *a = &file->atoms[i];
        struct kld_state_atom *to = &rf->atoms[i];
        if (a->live && a->kind != KLD_ATOM_PIECES && !place_atom(e, rf, i, match[i]))
            return false;
        to->name = file->keys[i];
        to->size = (uint32_t)a->size;
        to->section = (uint16_t)a->section;
        to->kind = kld_record_kind(a);
        to->flags = a->flags;
        to->p2align = a->p2align;
        to->live = a->live != 0;
        a->addr = to->addr;
    }
    return true;
}

/* ---- what has moved ---- */

/* Whether something of the file refers to the start of the atom without its global name, other than
 * by a branch, and not from unwind or debug information: then an island would give one function two
 * addresses. */
static bool is_taken_locally(struct elf_relink *e, const struct kld_file *file,
                             const struct kld_atom *atom)
{
    const struct elf_object *obj = elf_object(file);
    const struct elf_arch_ops *arch = e->elf->arch;
    for (uint32_t i = 0; i < file->natoms; i++) {
        const struct kld_atom *from = &file->atoms[i];
        if (!from->live || !(from->flags & KLD_ATOM_ALLOC) ||
            kld_record_kind(from) != KLD_ATOM_BYTES)
            continue;
        const elf_rela *rels = from->edges;
        for (uint32_t k = 0; k < from->nedges; k++) {
            uint32_t sym = ELF64_R_SYM(rels[k].r_info), type = ELF64_R_TYPE(rels[k].r_info);
            if (sym >= obj->first_global || sym >= obj->nsyms || type >= arch->ninfo)
                continue;
            if (elf_section_atom(obj, elf_sym_section(obj, sym)) != atom)
                continue;
            int64_t to = (int64_t)obj->syms[sym].st_value + rels[k].r_addend;
            if (arch->info[type].address_taken && to >= -16 && to <= 16)
                return true;
        }
    }
    return false;
}

/* Whether all names that others may use of the atom are those of its start, as they were; and it keeps
 * to the base calling convention, which leaves registers to a jump. */
static bool is_entered_at_start(struct elf_relink *e, const struct kld_file *file,
                                const struct kld_atom *atom, const struct kld_state_atom *to)
{
    const struct elf_object *obj = elf_object(file);
    for (uint32_t i = 0; i < file->nglobals; i++) {
        const struct kld_symbol *sym = &e->ctx->symbols[file->ids[i]];
        if (sym->file != file || sym->in_section || sym->atom != atom ||
            sym->index != obj->first_global + i || elf_is_dynamic_symbol(sym))
            continue;
        const struct kld_state_symbol *known = kld_relink_known(e->r, file->ids[i]);
        /* The resolver of an ifunc is called at an address that can be changed where it is kept. */
        if (elf_atom_address(atom, sym->value) != atom->addr || sym->type == KLD_TYPE_IFUNC ||
            known->value != elf_entry_address(section_of(e, atom), to) ||
            (atomic_load(&sym->other) & e->elf->arch->st_other_variant))
            return false;
    }
    return true;
}

/* Whether it has names that others in the output refer to. To what is preemptible they refer through
 * the dynamic symbol table. */
static bool has_globals(struct elf_relink *e, const struct kld_file *file,
                        const struct kld_atom *atom)
{
    for (uint32_t i = 0; i < file->nglobals; i++) {
        const struct kld_symbol *sym = &e->ctx->symbols[file->ids[i]];
        if (sym->file == file && !sym->in_section && sym->atom == atom &&
            !elf_is_dynamic_symbol(sym))
            return true;
    }
    return false;
}

enum { ISLAND = 16 }; /* bytes that are kept for a jump: all code has room for so many (slack.c) */

/* to->entry is where the atom was, or where a jump to it is since it first moved. Decides whether there
 * is to be a jump, and gives back what is not in use any more of the code that was there. */
static bool settle_entry(struct elf_relink *e, struct kld_relink_file *rf, uint32_t i,
                         const struct kld_state_atom *from)
{
    struct kld_atom *a = &rf->file->atoms[i];
    struct kld_state_atom *to = &rf->atoms[i];
    const struct kld_section *s = section_of(e, a);
    bool moved = from && from->live && from->kind == kld_record_kind(a) && to->addr != from->addr;
    if (!moved && !to->entry)
        return true;
    bool global = has_globals(e, rf->file, a);
    if (moved && global && !(a->flags & KLD_ATOM_EXEC))
        return refuse_room(e, a); /* data: nothing can lead from its old place to the new one */
    bool island = global && e->elf->arch->jump_size && from->capacity >= ISLAND &&
                  is_entered_at_start(e, rf->file, a, to) && !is_taken_locally(e, rf->file, a);
    if (!island)
        to->entry = 0;
    if (from->entry && !island)
        kld_slots_give(e->r, s, elf_entry_address(s, from), ISLAND);
    if (moved && (a->flags & KLD_ATOM_EXEC)) {
        uint64_t keep = island && !from->entry ? ISLAND : 0;
        kld_slots_give(e->r, s, from->addr + keep, from->capacity - keep);
    }
    return true;
}

static bool refuse_move(struct elf_relink *e, const struct kld_symbol *sym)
{
    return kld_relink_refuse(e->r, KLD_WHY_UNSUPPORTED, "%.*s has moved",
                             KLD_FMT(kld_symbol_name(sym)));
}

/* Names that are written down in places that are not applied anew. */
static bool is_pinned(const struct elf_relink *e, const struct kld_symbol *sym)
{
    const struct kld_options *o = &e->ctx->options;
    const struct elf_state_record *known = kld_state_get(&e->r->st, KLD_T_FORMAT, 0, 1);
    struct kld_str name = kld_symbol_name(sym);
    return known->has_assigns || sym->type == KLD_TYPE_TLS ||
           kld_str_is(name, o->entry ? o->entry : "_start") || kld_str_is(name, o->init) ||
           kld_str_is(name, o->fini);
}

/* Whether S is that of a PLT entry. */
static bool is_plt(const struct kld_symbol *sym)
{
    return sym->aux &&
           (sym->type == KLD_TYPE_IFUNC || kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT));
}

/* A symbol of a changed file: where it is now, and where references see it. */
static bool settle_symbol(struct elf_relink *e, struct kld_relink_file *rf, kld_symid id)
{
    struct kld_symbol *sym = &e->ctx->symbols[id];
    const struct kld_state_symbol *known = kld_relink_known(e->r, id);
    const struct kld_atom *atom = sym->atom;
    if (known->bits & KLD_STATE_SYM_DEAD)
        return true;
    if (!atom->live)
        return refuse_move(e, sym);
    uint64_t place = elf_atom_address(atom, sym->value);
    uint64_t entry = elf_entry_address(section_of(e, atom), &rf->atoms[atom - rf->file->atoms]);
    bool dynamic = elf_is_dynamic_symbol(sym);
    uint64_t seen = is_plt(sym) ? known->value : entry && !dynamic ? entry : place;
    e->places[id] = place;
    e->sizes[id] = elf_symbol_size(sym);
    if (place != known->place || sym->size != known->size)
        *kld_vec_push(&e->ctx->arena, &e->moved) = id;
    if (place != known->place && is_pinned(e, sym) && !entry)
        return refuse_move(e, sym);
    if (place != known->place && sym->type == KLD_TYPE_IFUNC && !entry)
        *kld_vec_push(&e->ctx->arena, &e->resolvers) =
            (struct elf_moved_resolver){known->place, place};
    if (seen != place && !is_plt(sym)) { /* to all but the symbol table it is its jump */
        sym->section = e->ctx->sections.data[atom->section];
        sym->in_section = true;
        sym->value = seen - sym->section->addr;
    }
    if (seen == known->value)
        return true;
    *kld_vec_push(&e->ctx->arena, &e->seen) = id;
    if (dynamic)
        return true; /* the fields that refer to it do not hold its address */
    e->shifted[e->r->numbers[id] / 8] |= (uint8_t)(1u << e->r->numbers[id] % 8);
    return true;
}

static bool find_moved(struct elf_relink *e, struct kld_relink_file *rf)
{
    struct kld_file *file = rf->file;
    for (uint32_t i = 0; i < file->nglobals; i++) {
        const struct kld_symbol *sym = &e->ctx->symbols[file->ids[i]];
        if (sym->file == file && sym->kind == KLD_SYM_DEFINED && !sym->in_section &&
            sym->index == elf_object(file)->first_global + i && !settle_symbol(e, rf, file->ids[i]))
            return false;
    }
    return true;
}

/* ---- all of it ---- */

bool elf_replace_atoms(struct elf_relink *e)
{
    struct kld_session *ctx = e->ctx;
    size_t n = e->r->files.len;
    uint32_t **match = KLD_NEW_ARRAY(&ctx->arena, uint32_t *, n);
    for (size_t f = 0; f < n; f++) {
        struct kld_relink_file *rf = &e->r->files.data[f];
        match[f] = match_atoms(e, rf);
        find_live(e, rf, match[f]);
        rf->atoms = KLD_NEW_ARRAY(&ctx->arena, struct kld_state_atom, rf->file->natoms);
    }
    if (!kld_remerge(e->r))
        return false;
    e->first_got = e->elf->got.len;
    e->first_plt_got = e->elf->plt_got.len;
    for (size_t f = 0; f < n; f++) {
        ctx->format->scan(ctx, e->worker, e->r->files.data[f].file);
        if (!kld_has_failed(ctx))
            elf_shrink_file(ctx, e->worker, elf_object(e->r->files.data[f].file));
    }
    if (kld_has_failed(ctx)) {
        kld_checkpoint(ctx);
        return false;
    }
    if (!give_all_slots(e))
        return false;
    for (size_t f = 0; f < n; f++) {
        elf_eh_settle(elf_object(e->r->files.data[f].file));
        if (!give_local_slots(e, &e->r->files.data[f]) ||
            !place_file(e, &e->r->files.data[f], match[f]))
            return false;
    }
    for (size_t f = 0; f < n; f++) {
        struct kld_relink_file *rf = &e->r->files.data[f];
        for (uint32_t i = 0; i < rf->file->natoms; i++)
            if (rf->file->atoms[i].live && rf->file->atoms[i].kind != KLD_ATOM_PIECES &&
                !settle_entry(e, rf, i,
                              match[f][i] == KLD_STATE_NONE ? NULL : &rf->old.atoms[match[f][i]]))
                return false;
        if (!find_moved(e, rf))
            return false;
    }
    return !e->r->st.damaged;
}
