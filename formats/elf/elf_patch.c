/* elf_patch.c - the bytes of an output that is being patched, and what its state then says.
 *
 * All places are known. Atoms of changed files are composed as in any link; of the others only the
 * fields that refer to what has moved are written. Tables are patched entry by entry: GOT, dynamic
 * relocations, symbol tables, the table of unwind records. */
#define XXH_INLINE_ALL
#include "formats/elf/elf_apply.h"
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_update.h"
#include <stdlib.h>
#include <xxhash.h>
#include "src/merge.h"

static const struct kld_section *section_of(const struct elf_relink *e, const struct kld_atom *a)
{
    return e->ctx->sections.data[a->section];
}

bool elf_patch_synth(struct elf_relink *e, enum elf_synth which, uint64_t offset, const void *data,
                     uint64_t size)
{
    const struct kld_atom *atom = e->elf->synth[which];
    if (!atom || !kld_in_bounds(offset, size, atom->size)) {
        e->r->st.damaged = true;
        return false;
    }
    return kld_relink_write_at(e->r, section_of(e, atom), atom->addr + offset, data, size);
}

const uint8_t *elf_synth_bytes(struct elf_relink *e, enum elf_synth which)
{
    const struct kld_atom *atom = e->elf->synth[which];
    const struct kld_section *s = section_of(e, atom);
    return kld_relink_output(e->r, s->offset + (atom->addr - s->addr), atom->size);
}

/* ---- addresses ---- */

static void set_addresses(struct elf_relink *e)
{
    struct kld_session *ctx = e->ctx;
    e->elf->addresses = KLD_NEW_ARRAY(&ctx->arena, uint64_t, ctx->nsymbols);
    for (kld_symid id = 0; id < ctx->nsymbols; id++)
        e->elf->addresses[id] = kld_relink_known(e->r, id)->value;
    for (size_t i = 0; i < e->seen.len; i++)
        e->elf->addresses[e->seen.data[i]] =
            elf_symbol_address(ctx, &ctx->symbols[e->seen.data[i]]);
}

/* Mergeable sections of files that are only referred from are not cut up again: their bytes are not
 * written, and whatever refers to them is something near. */
static void stand_in_for_pieces(struct elf_relink *e, struct kld_file *file)
{
    for (uint32_t i = 0; i < file->natoms; i++) {
        struct kld_atom *a = &file->atoms[i];
        if (a->kind != KLD_ATOM_PIECES)
            continue;
        struct kld_atom *start = KLD_NEW(&e->ctx->arena, struct kld_atom);
        start->addr = section_of(e, a)->addr;
        start->section = a->section;
        a->pieces->merged = start;
        a->pieces->list = KLD_NEW_ARRAY(&e->ctx->arena, struct kld_piece, 2);
        a->pieces->list[1].start = 1; /* one piece, as large as any */
        a->pieces->directory = NULL;
        a->pieces->entsize = UINT32_MAX;
        a->pieces->count = 1;
    }
}

/* ---- atoms ---- */

static uint8_t *compose(struct elf_relink *e, const struct kld_atom *a)
{
    uint8_t *out = KLD_NEW_ARRAY(&e->ctx->arena, uint8_t, a->size);
    if (a->kind == KLD_ATOM_RECORDS) {
        elf_eh_write(e->ctx, e->worker, a, out);
    } else {
        if (a->data)
            memcpy(out, a->data, a->size);
        if (a->nedges)
            e->ctx->format->apply(e->ctx, e->worker, a, out);
    }
    return out;
}

static bool write_atom(struct elf_relink *e, const struct kld_atom *a)
{
    const struct kld_section *s = section_of(e, a);
    size_t before = e->r->writes.len;
    if (!a->size || (s->flags & KLD_ATOM_ZERO))
        return true;
    if (!kld_relink_write_at(e->r, s, a->addr, compose(e, a), a->size))
        return false;
    e->r->natoms += e->r->writes.len > before;
    return true;
}

/* What is left where code was that has moved. */
static bool write_island(struct elf_relink *e, const struct kld_atom *a, uint64_t entry)
{
    enum { SIZE = 16 };
    const uint8_t *code = compose(e, a);
    uint8_t *out = KLD_NEW_ARRAY(&e->ctx->arena, uint8_t, SIZE);
    memset(out, e->ctx->arch->code_fill, SIZE);
    if (!e->elf->arch->write_jump(out, code, a->size, entry, a->addr))
        return kld_relink_refuse(e->r, KLD_WHY_NO_ROOM, "moved code is out of reach");
    return kld_relink_write_at(e->r, section_of(e, a), entry, out, SIZE);
}

static bool write_file(struct elf_relink *e, const struct kld_relink_file *rf)
{
    for (uint32_t i = 0; i < rf->file->natoms; i++) {
        const struct kld_atom *a = &rf->file->atoms[i];
        if (!a->live || a->kind == KLD_ATOM_PIECES)
            continue;
        if (!write_atom(e, a))
            return false;
        if (rf->atoms[i].entry &&
            !write_island(e, a, elf_entry_address(section_of(e, a), &rf->atoms[i])))
            return false;
    }
    return true;
}

/* ---- references from elsewhere ---- */

bool elf_leads_to_shifted(const struct elf_relink *e, const struct elf_object *obj,
                          const elf_rela *rel)
{
    uint32_t sym = ELF64_R_SYM(rel->r_info);
    return sym >= obj->first_global && sym < obj->nsyms &&
           elf_is_shifted(e, e->r->numbers[obj->base.ids[sym - obj->first_global]]);
}

/* The same, for one as well that refers to another that does. (Debug information has none.) */
static bool depends_on_shifted(const struct elf_relink *e, const struct elf_object *obj,
                               const struct kld_atom *a, const elf_rela *rel)
{
    const struct elf_arch_ops *arch = e->elf->arch;
    if (arch->decisive && (a->flags & KLD_ATOM_ALLOC))
        rel = arch->decisive(obj, a, rel);
    return elf_leads_to_shifted(e, obj, rel);
}

/* Bytes of the field, as it is. */
static uint64_t field_width(const struct elf_reloc_info *info, const uint8_t *field,
                            const uint8_t *limit)
{
    uint64_t n = info->width;
    while (info->is_leb128 && n && n < (uint64_t)(limit - field) && (field[n - 1] & 0x80))
        n++;
    return n;
}

static bool write_field(struct elf_relink *e, const struct kld_atom *a, const elf_rela *rel,
                        const uint8_t *bytes)
{
    const struct elf_arch_ops *arch = e->elf->arch;
    uint32_t type = ELF64_R_TYPE(rel->r_info);
    uint64_t at = elf_atom_address(a, rel->r_offset) - a->addr;
    if (type >= arch->ninfo || !kld_in_bounds(at, arch->info[type].width, a->size))
        return false;
    uint64_t end = at + field_width(&arch->info[type], bytes + at, bytes + a->size);
    uint64_t before = a->flags & KLD_ATOM_ALLOC ? arch->info[type].before : 0;
    uint64_t start = at - KLD_MIN(before, at);
    e->r->nreferences++;
    return kld_relink_write_at(e->r, section_of(e, a), a->addr + start, bytes + start, end - start);
}

/* Whether the field is made of something merged as well, whose address is not known here. */
static bool is_mixed(const struct elf_object *obj, const struct kld_atom *a, uint32_t edge)
{
    const elf_rela *rels = a->edges;
    uint32_t first = edge, end = edge + 1;
    while (first && rels[first - 1].r_offset == rels[edge].r_offset)
        first--;
    while (end < a->nedges && rels[end].r_offset == rels[edge].r_offset)
        end++;
    for (; end - first > 1 && first < end; first++) {
        uint32_t sym = ELF64_R_SYM(rels[first].r_info);
        const struct kld_atom *to = sym < obj->first_global && sym < obj->nsyms
                                        ? elf_section_atom(obj, elf_sym_section(obj, sym))
                                        : NULL;
        if (to && to->kind == KLD_ATOM_PIECES)
            return true;
    }
    return false;
}

static bool rewrite_atom(struct elf_relink *e, const struct elf_object *obj,
                         const struct kld_atom *a)
{
    const elf_rela *rels = a->edges;
    const uint8_t *bytes = NULL;
    for (uint32_t i = 0; i < a->nedges; i++) {
        if (!depends_on_shifted(e, obj, a, &rels[i]))
            continue;
        if (is_mixed(obj, a, i))
            return kld_relink_refuse(e->r, KLD_WHY_UNSUPPORTED, "%s: a distance from a string",
                                     obj->base.path);
        if (!bytes)
            bytes = compose(e, a);
        if (!write_field(e, a, &rels[i], bytes))
            return false;
    }
    return true;
}

static bool rewrite_records(struct elf_relink *e, const struct elf_object *obj)
{
    for (const struct elf_eh_section *s = obj->eh ? obj->eh->sections : NULL; s; s = s->next) {
        bool any = false;
        for (uint32_t i = 0; i < s->nrelas && !any; i++)
            any = elf_leads_to_shifted(e, obj, &s->relas[i]);
        if (any && s->atom->live && !write_atom(e, s->atom))
            return false;
    }
    return true;
}

static bool rewrite_references(struct elf_relink *e, const struct kld_relink_file *rf)
{
    const struct elf_object *obj = elf_object(rf->file);
    for (uint32_t i = 0; i < rf->file->natoms; i++) {
        const struct kld_atom *a = &rf->file->atoms[i];
        if (a->live && kld_record_kind(a) == KLD_ATOM_BYTES && !rewrite_atom(e, obj, a))
            return false;
    }
    return rewrite_records(e, obj);
}

/* ---- GOT and PLT ---- */

bool elf_patch_got(struct elf_relink *e, const struct elf_got_entry *g)
{
    enum { WORDS = 2 };
    bool pair = g->kind == ELF_GOT_TLSGD || g->kind == ELF_GOT_TLSDESC;
    uint8_t *out = KLD_NEW_ARRAY(&e->ctx->arena, uint8_t, 8 * WORDS);
    elf_write_got_entry(e->ctx, g, out);
    return elf_patch_synth(e, ELF_GOT, 8ull * g->slot, out, pair ? 16 : 8);
}

static bool write_new_slots(struct elf_relink *e)
{
    const struct elf_link *elf = e->elf;
    for (size_t i = e->first_got; i < elf->got.len; i++)
        if (!elf_patch_got(e, &elf->got.data[i]))
            return false;
    for (size_t n = e->first_plt_got; n < elf->plt_got.len; n++) {
        uint32_t size = elf->plt_got_size;
        uint8_t *out = KLD_NEW_ARRAY(&e->ctx->arena, uint8_t, size);
        elf->arch->write_plt_got_entry(
            e->ctx, out, elf->plt_got_addr + n * size,
            elf_got_address(e->ctx, elf_aux(e->ctx, elf->plt_got.data[n])->got));
        if (!elf_patch_synth(e, ELF_PLT_GOT, n * size, out, size))
            return false;
    }
    return true;
}

/* ---- resolvers ---- */

/* IRELATIVE relocations hold the address of the resolver. */
static bool patch_resolvers(struct elf_relink *e, enum elf_synth which)
{
    const struct kld_atom *atom = e->elf->synth[which];
    const uint8_t *old = atom && e->resolvers.len ? elf_synth_bytes(e, which) : NULL;
    for (uint64_t i = 0; old && i < atom->size / 24; i++) {
        if (ELF64_R_TYPE(kld_get64(old + 24 * i + 8)) != e->elf->arch->r_irelative)
            continue;
        for (size_t k = 0; k < e->resolvers.len; k++) {
            if (kld_get64(old + 24 * i + 16) != e->resolvers.data[k].from)
                continue;
            uint8_t *out = KLD_NEW_ARRAY(&e->ctx->arena, uint8_t, 8);
            kld_put64(out, e->resolvers.data[k].to);
            if (!elf_patch_synth(e, which, 24 * i + 16, out, 8))
                return false;
        }
    }
    return true;
}

/* ---- symbol tables ---- */

/* The record in the output, copied. */
static Elf64_Sym *copy_symbol(struct elf_relink *e, const struct kld_section *s, uint64_t start,
                              uint32_t number)
{
    const uint8_t *old =
        kld_relink_output(e->r, s->offset + start + 24ull * number, sizeof(Elf64_Sym));
    Elf64_Sym *sym = KLD_NEW(&e->ctx->arena, Elf64_Sym);
    if (old)
        memcpy(sym, old, sizeof(*sym));
    return sym;
}

/* Where the loader is to find the resolver of an ifunc. */
static uint64_t moved_resolver(const struct elf_relink *e, uint64_t from, bool dynamic,
                               kld_symid id)
{
    for (size_t i = 0; i < e->resolvers.len; i++)
        if (e->resolvers.data[i].from == from)
            return e->resolvers.data[i].to;
    return dynamic ? e->places[id] : from;
}

/* The section that a symbol of a changed file is in: data may come to be zero, or not any more. */
static const struct kld_section *section_of_symbol(const struct elf_relink *e,
                                                   const struct kld_symbol *sym)
{
    return sym->in_section ? sym->section : section_of(e, sym->atom);
}

static void set_section(const struct elf_relink *e, Elf64_Sym *out, const struct kld_symbol *sym)
{
    uint32_t number = section_of_symbol(e, sym)->number;
    if (out->st_shndx < SHN_LORESERVE && out->st_shndx != SHN_UNDEF && number < SHN_LORESERVE)
        out->st_shndx = (uint16_t)number;
}

/* .symtab says where the definition is, .dynsym where others are to see it. */
static bool patch_symbol(struct elf_relink *e, kld_symid id)
{
    const struct kld_symbol *sym = &e->ctx->symbols[id];
    const struct kld_state_symbol *known = kld_relink_known(e->r, id);
    const struct kld_atom *symtab = e->elf->synth[ELF_SYMTAB], *dynsym = e->elf->synth[ELF_DYNSYM];
    uint32_t exported = sym->aux && sym->exported ? elf_aux(e->ctx, sym)->dynsym : ELF_NONE;
    if (symtab && known->number) {
        const struct kld_section *s = section_of(e, symtab);
        Elf64_Sym *out = copy_symbol(e, s, 0, known->number);
        bool plt = out->st_value != known->place; /* that of an ifunc that is its PLT entry */
        out->st_size = e->sizes[id];
        if (!plt) {
            out->st_value = e->places[id];
            set_section(e, out, sym);
        }
        if (!kld_relink_write(e->r, s->offset + 24ull * known->number, (uint8_t *)out,
                              sizeof(*out)))
            return false;
    }
    if (dynsym && exported != ELF_NONE) {
        const struct kld_section *s = section_of(e, dynsym);
        uint64_t start = dynsym->addr - s->addr;
        Elf64_Sym *out = copy_symbol(e, s, start, exported);
        if (sym->type == KLD_TYPE_IFUNC && out->st_value != known->value)
            out->st_value = moved_resolver(e, out->st_value, elf_is_dynamic_symbol(sym), id);
        else if (out->st_value == known->value) {
            out->st_value = elf_symbol_address(e->ctx, sym);
            set_section(e, out, sym);
        }
        out->st_size = e->sizes[id];
        if (!kld_relink_write(e->r, s->offset + start + 24ull * exported, (uint8_t *)out,
                              sizeof(*out)))
            return false;
    }
    return true;
}

static bool patch_locals(struct elf_relink *e, uint32_t f, struct elf_symtab_locals *now)
{
    const struct kld_relink_file *rf = &e->r->files.data[f];
    const struct elf_file_state *state = (const void *)rf->old.format;
    const struct kld_atom *symtab = e->elf->synth[ELF_SYMTAB], *strtab = e->elf->synth[ELF_STRTAB];
    uint8_t *symbols, *names;
    *now = state->locals;
    if (!symtab || !strtab)
        return true;
    const struct kld_section *s = section_of(e, symtab), *n = section_of(e, strtab);
    if (!kld_in_bounds(24ull * now->first, 24ull * now->capacity, s->size) ||
        !kld_in_bounds(now->names, now->names_capacity, n->size)) {
        e->r->st.damaged = true;
        return false;
    }
    if (!elf_symtab_again(e->ctx, f, &state->locals, now, &symbols, &names))
        return kld_relink_refuse(e->r, KLD_WHY_NO_ROOM, "%s: no room for its local symbols",
                                 rf->file->path);
    return kld_relink_write(e->r, s->offset + 24ull * now->first, symbols, 24ull * now->capacity) &&
           kld_relink_write(e->r, n->offset + now->names, names, now->names_capacity);
}

/* ---- section headers ---- */

static bool patch_alignments(struct elf_relink *e)
{
    const uint8_t *head = kld_relink_output(e->r, 0, sizeof(Elf64_Ehdr));
    uint64_t at = head ? kld_get64(head + offsetof(Elf64_Ehdr, e_shoff)) : 0;
    for (size_t i = 0; i < e->ctx->sections.len; i++) {
        const struct kld_section *s = e->ctx->sections.data[i];
        if (!s->number)
            continue;
        uint64_t field = at + sizeof(Elf64_Shdr) * s->number + offsetof(Elf64_Shdr, sh_addralign);
        const uint8_t *old = kld_relink_output(e->r, field, 8);
        if (!old)
            return false;
        if (kld_get64(old) >= 1ull << s->p2align)
            continue;
        uint8_t *align = KLD_NEW_ARRAY(&e->ctx->arena, uint8_t, 8);
        kld_put64(align, 1ull << s->p2align);
        if (!kld_relink_write(e->r, field, align, 8))
            return false;
    }
    return true;
}

/* ---- the state ---- */

static void store_symbol(struct elf_relink *e, kld_symid id)
{
    const struct kld_symbol *sym = &e->ctx->symbols[id];
    const struct kld_state_symbol *known = kld_relink_known(e->r, id);
    struct kld_state_symbol now = *known;
    now.needs |= atomic_load_explicit(&sym->flags, memory_order_relaxed);
    now.aux = e->aux_numbers.data[sym->aux];
    now.value = e->elf->addresses[id];
    if (e->places[id]) {
        now.section = section_of_symbol(e, sym)->id;
        now.place = e->places[id];
        now.size = sym->size;
    }
    if (memcmp(&now, known, sizeof(now)) != 0)
        memcpy(kld_state_edit(&e->r->st, KLD_T_SYMBOLS, e->r->numbers[id], 1), &now, sizeof(now));
}

/* Slots that are new get numbers; all of them their records. */
static bool store_aux(struct elf_relink *e, uint32_t *naux)
{
    uint64_t n = kld_state_count(&e->r->st, KLD_T_AUX);
    for (size_t i = 1; i < e->elf->aux.len; i++) {
        uint32_t number = e->aux_numbers.data[i];
        if (!number) {
            if (*naux >= n)
                return kld_relink_refuse(e->r, KLD_WHY_SLOTS, "no room for more slots");
            e->aux_numbers.data[i] = number = (*naux)++;
        }
        const struct elf_aux *now = &e->elf->aux.data[i];
        if (memcmp(kld_state_get(&e->r->st, KLD_T_AUX, number, 1), now, sizeof(*now)) != 0)
            memcpy(kld_state_edit(&e->r->st, KLD_T_AUX, number, 1), now, sizeof(*now));
    }
    return true;
}

static void store_format(struct elf_relink *e, uint32_t naux)
{
    const struct elf_state_record *known = kld_state_get(&e->r->st, KLD_T_FORMAT, 0, 1);
    struct elf_state_record now = *known;
    now.got_slots = e->elf->got_slots;
    now.nplt_got = (uint32_t)e->elf->plt_got.len;
    now.naux = naux;
    if (memcmp(&now, known, sizeof(now)) != 0)
        memcpy(kld_state_edit(&e->r->st, KLD_T_FORMAT, 0, 1), &now, sizeof(now));
}

static void store_format_of_file(struct elf_relink *e, const struct kld_relink_file *rf,
                                 const struct elf_symtab_locals *locals, uint8_t *to)
{
    const struct elf_object *obj = elf_object(rf->file);
    struct elf_file_state *state = (void *)to;
    state->special = elf_special_hash(obj);
    state->commons = elf_commons_hash(obj);
    state->locals = *locals;
    for (uint32_t i = 0; i < obj->nlocals; i++)
        if (obj->locals[i]->aux)
            state->local_aux[state->nlocal_aux++] = e->aux_numbers.data[obj->locals[i]->aux];
}

static void store_file(struct elf_relink *e, const struct kld_relink_file *rf,
                       const struct elf_symtab_locals *locals)
{
    const struct kld_file *file = rf->file;
    struct kld_state_contents head = {.nnames = file->nnames,
                                      .nglobals = file->nglobals,
                                      .natoms = file->natoms,
                                      .nareas = (uint32_t)rf->areas.len,
                                      .format_size = elf_record_file(e->ctx, file, NULL)};
    struct kld_file_record to;
    uint64_t size = kld_record_parts(&head, NULL, &to);
    uint8_t *block = kld_arena_alloc(&e->ctx->arena, size, 8);
    kld_record_parts(&head, block, &to);
    memcpy(block, &head, sizeof(head));
    for (uint32_t i = 0; i < file->nnames; i++) {
        to.symbols[i] = e->r->numbers[file->ids[i]];
        to.classes[i] = file->classes[i] & KLD_RECORD_CLASS;
    }
    for (uint32_t g = 0; g < file->ngroups; g++)
        to.classes[file->groups[g].name] |=
            KLD_RECORD_GROUP | (file->groups[g].discarded ? KLD_RECORD_DISCARDED : 0);
    if (file->natoms)
        memcpy(to.atoms, rf->atoms, file->natoms * sizeof(*to.atoms));
    if (rf->areas.len)
        memcpy(to.areas, rf->areas.data, rf->areas.len * sizeof(*to.areas));
    store_format_of_file(e, rf, locals, to.format);
    struct kld_state_file *entry = kld_state_edit(&e->r->st, KLD_T_FILES, rf->number, 1);
    if (size <= entry->contents_capacity) {
        memcpy(kld_state_edit(&e->r->st, KLD_T_HEAP, entry->contents, size), block, size);
    } else {
        uint64_t capacity = kld_align_up(size + size / 2, 8);
        entry->contents = kld_state_add(&e->r->st, block, size, capacity);
        entry->contents_capacity = capacity;
    }
    entry->contents_size = size;
}

static bool store(struct elf_relink *e, const struct elf_symtab_locals *locals)
{
    uint32_t naux =
        ((const struct elf_state_record *)kld_state_get(&e->r->st, KLD_T_FORMAT, 0, 1))->naux;
    if (!store_aux(e, &naux))
        return false;
    for (kld_symid id = 0; id < e->ctx->nsymbols; id++)
        store_symbol(e, id);
    for (size_t f = 0; f < e->r->files.len; f++)
        if (e->r->files.data[f].changed)
            store_file(e, &e->r->files.data[f], &locals[f]);
    store_format(e, naux);
    return true;
}

/* ---- all of it ---- */

static bool patch_files(struct elf_relink *e)
{
    for (size_t f = 0; f < e->r->files.len; f++) {
        struct kld_relink_file *rf = &e->r->files.data[f];
        size_t before = e->r->writes.len;
        if (rf->changed ? !write_file(e, rf) : !rewrite_references(e, rf))
            return false;
        rf->differs = rf->changed && e->r->writes.len > before;
    }
    return true;
}

static void prepare_referrers(struct elf_relink *e)
{
    for (size_t f = 0; f < e->r->files.len; f++) {
        struct kld_file *file = e->r->files.data[f].file;
        if (e->r->files.data[f].changed)
            continue;
        stand_in_for_pieces(e, file);
        e->ctx->format->scan(e->ctx, e->worker, file);
        if (!kld_has_failed(e->ctx))
            elf_shrink_file(e->ctx, e->worker, elf_object(file));
        elf_eh_settle(elf_object(file));
    }
}

bool elf_patch(struct elf_relink *e)
{
    set_addresses(e);
    prepare_referrers(e);
    struct elf_symtab_locals *locals =
        KLD_NEW_ARRAY(&e->ctx->arena, struct elf_symtab_locals, e->r->files.len);
    bool done = patch_files(e) && write_new_slots(e) && elf_patch_dynrels(e) &&
                patch_resolvers(e, ELF_RELA_DYN) && patch_resolvers(e, ELF_RELA_PLT) &&
                elf_patch_eh_hdr(e) && patch_alignments(e);
    for (size_t i = 0; done && i < e->moved.len; i++)
        done = patch_symbol(e, e->moved.data[i]);
    for (size_t i = 0; done && i < e->seen.len; i++)
        done = patch_symbol(e, e->seen.data[i]);
    for (uint32_t f = 0; done && f < e->r->files.len; f++)
        if (e->r->files.data[f].changed)
            done = patch_locals(e, f, &locals[f]);
    kld_checkpoint(e->ctx);
    return done && !kld_has_failed(e->ctx) && store(e, locals);
}

/* ---- build id ---- */

bool elf_hash_chunk(struct kld_relink *r, const struct kld_state_chunk *chunk, uint64_t hash[2])
{
    struct kld_session *ctx = r->ctx;
    const struct elf_state_record *known = kld_state_get(&r->st, KLD_T_FORMAT, 0, 1);
    const uint8_t *bytes = kld_relink_output(r, chunk->offset, chunk->size);
    if (!bytes || r->st.header->tables[KLD_T_FORMAT].stride != sizeof(*known))
        return false;
    uint64_t offset = 0;
    uint8_t id[32];
    size_t length = 0;
    if (known->synth[ELF_NOTE_BUILD_ID].there &&
        known->synth[ELF_NOTE_BUILD_ID].section < ctx->sections.len) {
        struct kld_atom note = {.addr = known->synth[ELF_NOTE_BUILD_ID].addr,
                                .section = known->synth[ELF_NOTE_BUILD_ID].section};
        struct elf_link *elf = elf_state(ctx);
        struct kld_atom *old = elf->synth[ELF_NOTE_BUILD_ID];
        elf->synth[ELF_NOTE_BUILD_ID] = &note;
        length = elf_build_id(ctx, NULL, 0, id, &offset);
        elf->synth[ELF_NOTE_BUILD_ID] = old;
    }
    uint64_t start = KLD_MAX(offset, chunk->offset),
             end = KLD_MIN(offset + length, chunk->offset + chunk->size);
    if (start < end) {
        uint8_t *copy = KLD_NEW_ARRAY(&ctx->arena, uint8_t, chunk->size);
        memcpy(copy, bytes, chunk->size);
        memset(copy + (start - chunk->offset), 0, end - start);
        bytes = copy;
    }
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, chunk->size));
    memcpy(hash, canonical.digest, sizeof(canonical.digest));
    return true;
}

bool elf_update_seal(struct kld_relink *r)
{
    uint64_t n = kld_state_count(&r->st, KLD_T_CHUNKS), offset;
    const struct kld_state_chunk *chunks = kld_state_get(&r->st, KLD_T_CHUNKS, 0, n);
    uint8_t *hashes = KLD_NEW_ARRAY(&r->ctx->arena, uint8_t, 16 * n + 1);
    uint8_t *id = KLD_NEW_ARRAY(&r->ctx->arena, uint8_t, 32);
    for (uint64_t i = 0; i < n; i++)
        memcpy(hashes + 16 * i, chunks[i].hash, 16);
    size_t length = elf_build_id(r->ctx, hashes, 16 * n, id, &offset);
    return !length || kld_relink_write(r, offset, id, length);
}
