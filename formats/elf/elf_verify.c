/* elf_verify.c - --incremental-verify for ELF: the tables, and what is in them.
 *
 * Numbers of slots and of symbols are the state's; what the slots, relocations and symbols have to say
 * is worked out from them as a full link does it. Where the order in a table is a matter of history,
 * what is in it is compared as a set. */
#define XXH_INLINE_ALL
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_update.h"
#include <stdlib.h>
#include <xxhash.h>

static const struct elf_state_record *record_of(struct kld_verify *v)
{
    return kld_state_get(&v->st, KLD_T_FORMAT, 0, 1);
}

static const struct kld_section *section_of(const struct kld_verify *v, const struct kld_atom *a)
{
    return v->ctx->sections.data[a->section];
}

static struct kld_where at_symbol(struct kld_verify *v, const struct kld_symbol *sym)
{
    struct kld_where where = {.file = sym->file != v->ctx->internal ? sym->file : NULL};
    if (sym->name)
        where.symbol = kld_arena_strndup(&v->ctx->arena, sym->name, sym->name_len);
    return where;
}

/* ---- needs ---- */

enum { SLOT_NEEDS = KLD_SYM_NEEDS | KLD_SYM_NEED_DYNSYM };

static void check_flag(struct kld_verify *v, bool fresh, bool known, const char *what)
{
    if (fresh && !known)
        kld_verify_error(v, NULL, "the output needs %s, which the state does not know", what);
}

static void needs_of_link(struct kld_verify *v)
{
    struct elf_link *elf = elf_state(v->ctx);
    const struct elf_state_record *known = record_of(v);
    check_flag(v, atomic_load(&elf->static_tls), known->static_tls, "static thread-local storage");
    check_flag(v, atomic_load(&elf->needs_tlsld), known->needs_tlsld, "a local-dynamic TLS entry");
    check_flag(v, atomic_load(&elf->textrel), known->textrel, "text relocations");
    atomic_store(&elf->static_tls, known->static_tls);
    atomic_store(&elf->needs_tlsld, known->needs_tlsld);
    atomic_store(&elf->needs_got_base, known->needs_got_base);
    atomic_store(&elf->textrel, known->textrel);
    if (known->has_islands)
        kld_verify_error(v, NULL,
                         "the program has islands for branches: it is not patched, nor verified");
}

/* What it has an entry for, it needs: a patch may give other entries than a full link would. */
static uint16_t needs_of_slots(const struct elf_aux *aux)
{
    return (uint16_t)((aux->got != ELF_NONE ? KLD_SYM_NEED_GOT : 0) |
                      (aux->gottp != ELF_NONE ? KLD_SYM_NEED_GOTTP : 0) |
                      (aux->tlsgd != ELF_NONE ? KLD_SYM_NEED_TLSGD : 0) |
                      (aux->tlsdesc != ELF_NONE ? KLD_SYM_NEED_TLSDESC : 0));
}

static void needs_of_symbol(struct kld_verify *v, kld_symid id)
{
    struct kld_symbol *sym = &v->ctx->symbols[id];
    const struct kld_state_symbol *known = &v->symbols[v->numbers[id]];
    const struct elf_aux *aux = kld_state_get(&v->st, KLD_T_AUX, known->aux, 1);
    uint16_t missing = atomic_load(&sym->flags) & SLOT_NEEDS & ~known->needs;
    if (missing) {
        struct kld_where where = at_symbol(v, sym);
        kld_verify_error(v, &where, "%.*s needs 0x%x, the state has 0x%x for it",
                         KLD_FMT(kld_symbol_name(sym)), missing, known->needs);
    }
    kld_symbol_flag(sym, known->needs & SLOT_NEEDS);
    if (!known->aux)
        return;
    kld_symbol_flag(sym, needs_of_slots(aux));
    elf_state(v->ctx)->dynsym_numbers[id] = aux->dynsym;
}

static void needs(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    if (v->st.header->tables[KLD_T_FORMAT].stride != sizeof(struct elf_state_record) ||
        v->st.header->tables[KLD_T_AUX].stride != sizeof(struct elf_aux)) {
        v->st.damaged = true;
        return;
    }
    needs_of_link(v);
    elf_state(ctx)->dynsym_numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t, ctx->nsymbols);
    memset(elf_state(ctx)->dynsym_numbers, 0xff, ctx->nsymbols * sizeof(uint32_t));
    for (kld_symid id = 0; id < ctx->nsymbols; id++)
        if (v->numbers[id] != KLD_STATE_NONE)
            needs_of_symbol(v, id);
}

/* ---- the tables are where they were ---- */

/* What the symbol needs of an entry, and whether it has it. */
static bool has_slots(const struct kld_symbol *sym, const struct elf_aux *aux)
{
    uint16_t flags = atomic_load(&sym->flags);
    bool plt = aux->plt != ELF_NONE || aux->plt_got != ELF_NONE || aux->iplt != ELF_NONE;
    bool wants_plt = (flags & (KLD_SYM_NEED_PLT | KLD_SYM_NEED_CANONICAL_PLT)) &&
                     (sym->type == KLD_TYPE_IFUNC || elf_is_dynamic_symbol(sym));
    return (!(flags & KLD_SYM_NEED_GOT) || aux->got != ELF_NONE) &&
           (!(flags & KLD_SYM_NEED_GOTTP) || aux->gottp != ELF_NONE) &&
           (!(flags & KLD_SYM_NEED_TLSGD) || aux->tlsgd != ELF_NONE) &&
           (!(flags & KLD_SYM_NEED_TLSDESC) || aux->tlsdesc != ELF_NONE) && (!wants_plt || plt);
}

/* Its slots are those with that number in the state. */
static void take_aux(struct kld_verify *v, struct kld_symbol *sym, uint32_t number)
{
    struct kld_where where = at_symbol(v, sym);
    if (!number && !sym->aux)
        return;
    if (!number || number >= record_of(v)->naux) {
        kld_verify_error(v, &where, "the state has no entries of %.*s",
                         KLD_FMT(kld_symbol_name(sym)));
        return;
    }
    const struct elf_aux *from = kld_state_get(&v->st, KLD_T_AUX, number, 1);
    struct elf_aux *to = elf_make_aux(v->ctx, sym);
    if (to->dynsym != from->dynsym)
        kld_verify_error(v, &where, "%.*s is dynamic symbol %u, the state says %u",
                         KLD_FMT(kld_symbol_name(sym)), to->dynsym, from->dynsym);
    *to = *from;
    if (!has_slots(sym, to))
        kld_verify_error(v, &where, "%.*s does not have all entries that it needs",
                         KLD_FMT(kld_symbol_name(sym)));
}

static void take_local_aux(struct kld_verify *v, uint32_t f)
{
    const struct elf_object *obj = elf_object(v->ctx->files[f]);
    const struct kld_file_record *r = &v->records[f];
    const struct elf_file_state *state = (const void *)r->format;
    uint32_t n = 0;
    for (uint32_t i = 0; i < obj->nlocals; i++)
        n += obj->locals[i]->aux != 0;
    if (r->head.format_size < sizeof(*state) ||
        r->head.format_size < sizeof(*state) + 4ull * state->nlocal_aux) {
        v->st.damaged = true;
        return;
    }
    if (n != state->nlocal_aux) {
        kld_verify_error(v, &(struct kld_where){.file = &obj->base},
                         "%u local symbols need entries, the state has some of %u", n,
                         state->nlocal_aux);
        return;
    }
    for (uint32_t i = 0, k = 0; i < obj->nlocals; i++)
        if (obj->locals[i]->aux)
            take_aux(v, obj->locals[i], state->local_aux[k++]);
}

static void check_file_state(struct kld_verify *v, uint32_t f)
{
    const struct elf_object *obj = elf_object(v->ctx->files[f]);
    const struct elf_file_state *state = (const void *)v->records[f].format;
    if (elf_special_hash(obj) != state->special || elf_commons_hash(obj) != state->commons)
        kld_verify_error(v, &(struct kld_where){.file = &obj->base},
                         "the state has other properties or COMMON symbols of it");
}

static uint32_t slot_of(const struct kld_session *ctx, const struct elf_got_entry *g)
{
    const struct elf_aux *aux = g->sym ? elf_aux(ctx, g->sym) : NULL;
    switch (g->kind) {
    case ELF_GOT_ADDRESS: return aux->got;
    case ELF_GOT_TPOFF: return aux->gottp;
    case ELF_GOT_TLSGD: return aux->tlsgd;
    case ELF_GOT_TLSDESC: return aux->tlsdesc;
    case ELF_GOT_TLSLD: return elf_state(ctx)->tlsld;
    }
    return ELF_NONE;
}

/* Symbols by the number of their entry in a PLT. */
static void number_plt(struct kld_verify *v, struct kld_symbol *sym)
{
    struct elf_link *elf = elf_state(v->ctx);
    const struct elf_aux *aux = elf_aux(v->ctx, sym);
    if (aux->plt < elf->plt.len)
        elf->plt.data[aux->plt] = sym;
    if (aux->iplt < elf->iplt.len)
        elf->iplt.data[aux->iplt] = sym;
    if (aux->plt_got < elf->plt_got.len)
        elf->plt_got.data[aux->plt_got] = sym;
}

static bool is_full(struct kld_symbol *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!list[i])
            return false;
    return true;
}

static void number_plts(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    struct elf_link *elf = elf_state(ctx);
    elf->plt.data = KLD_NEW_ARRAY(&ctx->arena, struct kld_symbol *, elf->plt.len);
    elf->iplt.data = KLD_NEW_ARRAY(&ctx->arena, struct kld_symbol *, elf->iplt.len);
    elf->plt_got.data = KLD_NEW_ARRAY(&ctx->arena, struct kld_symbol *, elf->plt_got.len);
    for (kld_symid id = 0; id < ctx->nsymbols; id++)
        if (ctx->symbols[id].aux)
            number_plt(v, &ctx->symbols[id]);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_object *obj = elf_object(ctx->files[f]);
        for (uint32_t i = 0; obj->base.kind == KLD_FILE_OBJECT && i < obj->nlocals; i++)
            if (obj->locals[i]->aux)
                number_plt(v, obj->locals[i]);
    }
    if (!is_full(elf->plt.data, elf->plt.len) || !is_full(elf->iplt.data, elf->iplt.len) ||
        !is_full(elf->plt_got.data, elf->plt_got.len))
        kld_verify_error(v, NULL, "an entry of the procedure linkage table is nobody's");
}

/* Those that are, all of them, as a full link makes them. */
static const struct {
    enum elf_synth which;
    const char *what;
} whole_tables[] = {
    {ELF_INTERP, "the name of the dynamic linker"},
    {ELF_NOTE_PROPERTY, "a note"},
    {ELF_NOTE_PACKAGE, "a note"},
    {ELF_ATTRIBUTES, "an attribute"},
    {ELF_GNU_HASH, "the hash table"},
    {ELF_HASH, "the hash table"},
    {ELF_DYNSYM, "the dynamic symbol table"},
    {ELF_DYNSTR, "a dynamic string"},
    {ELF_VERSYM, "a version"},
    {ELF_VERDEF, "a version"},
    {ELF_VERNEED, "a version"},
    {ELF_DYNAMIC, "the dynamic section"},
    {ELF_FILLER_ABBREV, "an abbreviation"},
    {ELF_FILLER_UNITS, "a unit"},
};

/* Tables whose being there depends on the inputs of a time. */
static bool may_differ(int which)
{
    static const enum elf_synth tables[] = {
        ELF_FILLER_ABBREV, ELF_FILLER_UNITS, ELF_RELA_PLT, ELF_PLT,
        ELF_PLT_SEC,       ELF_PLT_GOT,      ELF_GOT,      ELF_GOT_PLT,
    };
    for (size_t i = 0; i < KLD_COUNT(tables); i++)
        if ((int)tables[i] == which)
            return true;
    return false;
}

static bool has_its_size(struct kld_verify *v, int which)
{
    const struct kld_atom *atom = elf_state(v->ctx)->synth[which];
    for (size_t i = 0; i < KLD_COUNT(whole_tables); i++)
        if ((int)whole_tables[i].which == which && which != ELF_DYNAMIC &&
            which != ELF_FILLER_UNITS)
            return atom->size == record_of(v)->synth[which].size;
    return true;
}

static void match_table(struct kld_verify *v, int which)
{
    struct elf_link *elf = elf_state(v->ctx);
    bool there = record_of(v)->synth[which].there;
    if (there && elf->synth[which] && !has_its_size(v, which))
        kld_verify_error(v, NULL, "table %d of the linker's own has %llu bytes instead of %llu",
                         which, (unsigned long long)record_of(v)->synth[which].size,
                         (unsigned long long)elf->synth[which]->size);
    if (!elf->synth[which] == !there)
        return;
    if (!may_differ(which))
        kld_verify_error(v, NULL, "the output %s table %d of the linker's own",
                         there ? "has" : "does not have", which);
    if (!there)
        elf->synth[which] = NULL; /* who needs an entry of it does not have one */
}

static void restore(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    struct elf_link *elf = elf_state(ctx);
    for (int i = 0; i < ELF_SYNTH_COUNT; i++)
        match_table(v, i);
    if (!elf_restore_link(ctx, &v->st, v->sections))
        return;
    for (kld_symid id = 0; id < ctx->nsymbols; id++)
        if (v->numbers[id] != KLD_STATE_NONE)
            take_aux(v, &ctx->symbols[id], v->symbols[v->numbers[id]].aux);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (ctx->files[f]->kind == KLD_FILE_OBJECT) {
            elf_shrink_file(ctx, kld_pool_worker(ctx, 0), elf_object(ctx->files[f]));
            take_local_aux(v, f);
            if (!v->st.damaged)
                check_file_state(v, f);
        }
    if (kld_has_failed(ctx) || v->st.damaged)
        return;
    for (size_t i = 0; i < elf->got.len; i++)
        elf->got.data[i].slot = slot_of(ctx, &elf->got.data[i]);
    number_plts(v);
    for (size_t i = 0; i < ctx->made.len; i++) {
        const struct kld_section *s = section_of(v, ctx->made.data[i]);
        if (elf_is_eh_terminator(ctx->made.data[i]))
            ctx->made.data[i]->addr = s->addr + s->size - ctx->made.data[i]->size;
    }
}

/* ---- addresses ---- */

/* A slot for the address of a string says where that is: the only thing that may. */
static void fix_pieces(struct kld_verify *v, const struct elf_got_entry *g)
{
    const struct kld_symbol *sym = g->sym;
    const struct kld_atom *got = elf_state(v->ctx)->synth[ELF_GOT];
    if (g->kind != ELF_GOT_ADDRESS || sym->kind != KLD_SYM_DEFINED || sym->in_section ||
        sym->atom->kind != KLD_ATOM_PIECES || !got)
        return;
    const uint8_t *word =
        kld_verify_output_at(v, section_of(v, got), got->addr + 8ull * g->slot, 8);
    if (word)
        kld_contents_fix(v, sym->atom, sym->value, kld_get64(word));
}

static void addresses(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    struct elf_link *elf = elf_state(ctx);
    for (size_t i = 0; i < elf->got.len; i++)
        fix_pieces(v, &elf->got.data[i]);
    elf->addresses = KLD_NEW_ARRAY(&ctx->arena, uint64_t, ctx->nsymbols);
    for (kld_symid id = 0; id < ctx->nsymbols; id++)
        if (v->numbers[id] != KLD_STATE_NONE)
            elf->addresses[id] = v->symbols[v->numbers[id]].value;
        else if (ctx->symbols[id].name)
            elf->addresses[id] = elf_symbol_address(ctx, &ctx->symbols[id]);
}

/* ---- fields ---- */

/* The relocation of the atom at that offset, which a label marks for others to refer to. */
static const elf_rela *rel_at(const struct kld_atom *atom, uint64_t offset)
{
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges; i++)
        if (rels[i].r_offset == offset)
            return &rels[i];
    return NULL;
}

static void find_pieces(const struct kld_atom *atom, const elf_rela *rel, bool label,
                        struct kld_field *out)
{
    const struct elf_object *obj = elf_object(atom->file);
    uint32_t i = ELF64_R_SYM(rel->r_info);
    if (i >= obj->first_global)
        return; /* places of global symbols are known */
    struct kld_atom *to = elf_section_atom(obj, elf_sym_section(obj, i));
    const elf_rela *other;
    uint64_t inside =
        ELF64_ST_TYPE(obj->syms[i].st_info) == STT_SECTION ? (uint64_t)rel->r_addend : 0;
    if (to && to->kind == KLD_ATOM_PIECES) {
        out->pieces = to;
        out->offset = obj->syms[i].st_value + inside;
    } else if (to == atom && !label && (other = rel_at(atom, obj->syms[i].st_value))) {
        find_pieces(atom, other, true, out);
    }
}

static bool field(struct kld_verify *v, const struct kld_atom *atom, uint32_t i,
                  struct kld_field *out)
{
    const struct elf_arch_ops *arch = elf_state(v->ctx)->arch;
    const elf_rela *rel = (const elf_rela *)atom->edges + i;
    uint32_t type = ELF64_R_TYPE(rel->r_info);
    if (type >= arch->ninfo || !arch->info[type].width ||
        !kld_in_bounds(rel->r_offset, arch->info[type].width,
                       atom->kind == KLD_ATOM_SHRUNK ? elf_shrunk(atom)->size : atom->size))
        return false;
    uint64_t before = atom->flags & KLD_ATOM_ALLOC ? arch->info[type].before : 0;
    uint64_t start = rel->r_offset - KLD_MIN(before, rel->r_offset);
    *out = (struct kld_field){
        .start = elf_atom_address(atom, start) - atom->addr,
        .end = elf_atom_address(atom, rel->r_offset + arch->info[type].width) - atom->addr};
    find_pieces(atom, rel, false, out);
    return true;
}

/* ---- tables that are as a full link makes them ---- */

static void check_whole_tables(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    struct kld_worker *w = kld_pool_worker(ctx, 0);
    for (size_t i = 0; i < KLD_COUNT(whole_tables); i++) {
        const struct kld_atom *a = elf_state(ctx)->synth[whole_tables[i].which];
        if (!a || !a->size || (a->kind == KLD_ATOM_GENERATED ? !a->generate : !a->data))
            continue;
        /* .dynamic may have to hold more by now. */
        uint8_t *bytes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, a->size + 4096);
        if (a->kind == KLD_ATOM_GENERATED)
            a->generate(ctx, w, a, bytes);
        else
            memcpy(bytes, a->data, a->size);
        kld_verify_bytes(v, section_of(v, a), a->addr, bytes, a->size, whole_tables[i].what);
    }
}

/* ---- PLT ---- */

static void check_plt(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    const struct elf_link *elf = elf_state(ctx);
    const struct elf_arch_ops *arch = elf->arch;
    const struct kld_atom *plt = elf->synth[ELF_PLT], *sec = elf->synth[ELF_PLT_SEC];
    uint32_t n = (uint32_t)(elf->plt.len + elf->iplt.len), size = arch->plt_entry_size;
    if (!plt || !n)
        return;
    uint8_t *bytes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, elf->plt_header + (uint64_t)n * size);
    if (elf->plt_header)
        arch->write_plt_header(ctx, bytes);
    for (uint32_t i = 0; i < n; i++)
        arch->write_plt_entry(ctx, bytes + elf->plt_header + (uint64_t)i * size,
                              plt->addr + elf->plt_header + (uint64_t)i * size,
                              elf->got_plt_addr + 8ull * (elf->got_plt_reserved + i), i);
    kld_verify_bytes(v, section_of(v, plt), plt->addr, bytes, elf->plt_header + (uint64_t)n * size,
                     "the procedure linkage table");
    for (uint32_t i = 0; sec && i < n; i++) {
        uint8_t entry[64] = {0};
        uint64_t at = sec->addr + (uint64_t)i * arch->plt_entry_size_ibt;
        arch->write_plt_sec_entry(ctx, entry, at,
                                  elf->got_plt_addr + 8ull * (elf->got_plt_reserved + i));
        kld_verify_bytes(v, section_of(v, sec), at, entry, arch->plt_entry_size_ibt,
                         "an entry of the procedure linkage table");
    }
}

static void check_plt_got(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    const struct elf_link *elf = elf_state(ctx);
    const struct kld_atom *a = elf->synth[ELF_PLT_GOT];
    if (!a)
        return;
    uint8_t *bytes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, a->size);
    memset(bytes, ctx->arch->code_fill, a->size);
    for (uint32_t i = 0; i < elf->plt_got.len; i++) {
        uint64_t at = (uint64_t)i * elf->plt_got_size;
        uint32_t got = elf_aux(ctx, elf->plt_got.data[i])->got;
        memset(bytes + at, 0, elf->plt_got_size);
        elf->arch->write_plt_got_entry(ctx, bytes + at, a->addr + at, elf_got_address(ctx, got));
    }
    kld_verify_bytes(v, section_of(v, a), a->addr, bytes, a->size,
                     "an entry of the procedure linkage table");
}

static void check_got_plt(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    const struct elf_link *elf = elf_state(ctx);
    const struct kld_atom *a = elf->synth[ELF_GOT_PLT];
    if (!a)
        return;
    uint64_t used = 8 * (elf->got_plt_reserved + elf->plt.len);
    uint8_t *bytes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, KLD_MAX(a->size, used));
    if (elf->got_plt_reserved && elf->synth[ELF_DYNAMIC])
        kld_put64(bytes, elf->synth[ELF_DYNAMIC]->addr);
    for (uint32_t i = 0; i < elf->plt.len; i++) {
        uint64_t entry = elf->plt_addr + elf->plt_header + (uint64_t)i * elf->arch->plt_entry_size;
        kld_put64(bytes + 8ull * (elf->got_plt_reserved + i),
                  elf->arch->lazy_target ? elf->arch->lazy_target(ctx, entry) : elf->plt_addr);
    }
    kld_verify_bytes(v, section_of(v, a), a->addr, bytes, KLD_MAX(a->size, used),
                     "a slot of .got.plt");
}

/* ---- GOT ---- */

static void check_got(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    const struct elf_link *elf = elf_state(ctx);
    const struct kld_atom *got = elf->synth[ELF_GOT];
    if (!got)
        return;
    uint8_t *used = KLD_NEW_ARRAY(&ctx->arena, uint8_t, elf->got_capacity + 2);
    for (size_t i = 0; i < elf->got.len; i++) {
        const struct elf_got_entry *g = &elf->got.data[i];
        bool pair =
            g->kind == ELF_GOT_TLSGD || g->kind == ELF_GOT_TLSDESC || g->kind == ELF_GOT_TLSLD;
        uint8_t word[16] = {0};
        if (g->slot >= elf->got_slots || used[g->slot] || (pair && used[g->slot + 1])) {
            kld_verify_error(v, NULL, "slot %u of the global offset table is not of one symbol",
                             g->slot);
            continue;
        }
        used[g->slot] = used[g->slot + pair] = 1;
        elf_write_got_entry(ctx, g, word);
        kld_verify_bytes(v, section_of(v, got), got->addr + 8ull * g->slot, word, pair ? 16 : 8,
                         "a slot of the global offset table");
    }
    uint64_t spare = 8ull * (elf->got_capacity - KLD_MIN(elf->got_slots, elf->got_capacity));
    kld_verify_bytes(v, section_of(v, got), got->addr + 8ull * elf->got_slots,
                     KLD_NEW_ARRAY(&ctx->arena, uint8_t, spare), spare,
                     "a spare slot of the global offset table");
}

/* ---- islands ---- */

static void check_island(struct kld_verify *v, const struct kld_atom *a, uint64_t entry)
{
    enum { SIZE = 16 };
    const struct elf_arch_ops *arch = elf_state(v->ctx)->arch;
    uint8_t bytes[SIZE];
    memset(bytes, v->ctx->arch->code_fill, SIZE);
    const uint8_t *code = a->data;
    if (elf_shrunk(a)) {
        uint8_t *copy = KLD_NEW_ARRAY(&v->ctx->arena, uint8_t, a->size);
        elf_shrunk_copy(a, copy);
        code = copy;
    }
    if (!arch->jump_size || !(a->flags & KLD_ATOM_EXEC) ||
        !arch->write_jump(bytes, code, a->size, entry, a->addr)) {
        struct kld_where where = elf_where(a, 0);
        kld_verify_error(v, &where, "no jump can lead to it from 0x%llx",
                         (unsigned long long)entry);
        return;
    }
    kld_verify_bytes(v, section_of(v, a), entry, bytes, SIZE, "a jump to code that has moved");
}

static void check_islands(struct kld_verify *v)
{
    for (uint32_t f = 0; f < v->ctx->nfiles; f++)
        for (uint32_t i = 0; i < v->ctx->files[f]->natoms; i++) {
            const struct kld_atom *a = &v->ctx->files[f]->atoms[i];
            uint64_t entry = kld_verify_entry(v, &v->records[f].atoms[i]);
            if (a->live && a->kind != KLD_ATOM_PIECES && entry)
                check_island(v, a, entry);
        }
}

/* ---- dynamic relocations ---- */

static int compare_entries(const void *a, const void *b)
{
    const struct elf_dynrel_entry *x = a, *y = b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    if (x->type != y->type)
        return x->type < y->type ? -1 : 1;
    if (x->dynsym != y->dynsym)
        return x->dynsym < y->dynsym ? -1 : 1;
    return x->addend < y->addend ? -1 : x->addend > y->addend;
}

static void sort_entries(elf_dynrel_list *list)
{
    if (list->len)
        qsort(list->data, list->len, sizeof(*list->data), compare_entries);
}

static void expect_dynrels(struct kld_verify *v, elf_dynrel_list *list)
{
    struct kld_session *ctx = v->ctx;
    struct elf_link *elf = elf_state(ctx);
    for (size_t i = 0; i < elf->got.len; i++)
        elf_dynrel_of_got(ctx, &elf->got.data[i], list);
    for (size_t i = 0; i < elf->copies.len; i++) {
        const struct kld_symbol *sym = elf->copies.data[i];
        *kld_vec_push(&ctx->arena, list) =
            (struct elf_dynrel_entry){.type = elf->arch->r_copy,
                                      .dynsym = elf_aux(ctx, sym)->dynsym,
                                      .place = elf_symbol_address(ctx, sym)};
    }
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (ctx->files[f]->kind == KLD_FILE_OBJECT)
            elf_dynrel_of_file(ctx, elf_object(ctx->files[f]), list);
}

static struct elf_dynrel_entry get_entry(const uint8_t *in)
{
    uint64_t info = kld_get64(in + 8);
    return (struct elf_dynrel_entry){.type = (uint32_t)ELF64_R_TYPE(info),
                                     .dynsym = (uint32_t)ELF64_R_SYM(info),
                                     .place = kld_get64(in),
                                     .addend = (int64_t)kld_get64(in + 16)};
}

static void read_dynrels(struct kld_verify *v, const struct kld_atom *table, uint64_t from,
                         elf_dynrel_list *list)
{
    const uint8_t *out = kld_verify_output_at(v, section_of(v, table), table->addr, table->size);
    for (uint64_t at = from; out && at + 24 <= table->size; at += 24) {
        struct elf_dynrel_entry e = get_entry(out + at);
        if (e.type != elf_state(v->ctx)->arch->r_none)
            *kld_vec_push(&v->ctx->arena, list) = e;
    }
}

/* A slot that nobody needs any more. */
static bool is_of_unused_slot(const struct kld_verify *v, const struct elf_dynrel_entry *e)
{
    const struct elf_link *elf = elf_state(v->ctx);
    const struct kld_atom *got = elf->synth[ELF_GOT];
    if (!got || e->place < got->addr || e->place - got->addr >= 8ull * elf->got_slots)
        return false;
    uint64_t slot = (e->place - got->addr) / 8;
    for (size_t i = 0; i < elf->got.len; i++)
        if (elf->got.data[i].slot == slot || elf->got.data[i].slot + 1 == slot)
            return false;
    return true;
}

static void report_dynrel(struct kld_verify *v, const struct elf_dynrel_entry *e, const char *what)
{
    kld_verify_error(
        v, NULL, "dynamic relocation %s: type %u, symbol %u, place 0x%llx, addend 0x%llx", what,
        e->type, e->dynsym, (unsigned long long)e->place, (unsigned long long)e->addend);
}

static void check_dynrels(struct kld_verify *v)
{
    const struct elf_link *elf = elf_state(v->ctx);
    elf_dynrel_list wanted = {0}, found = {0};
    uint64_t nplt = 24ull * (elf->plt.len + elf->iplt.len);
    expect_dynrels(v, &wanted);
    if (elf->is_dynamic && elf->synth[ELF_RELA_DYN])
        read_dynrels(v, elf->synth[ELF_RELA_DYN], 0, &found);
    else if (!elf->is_dynamic && elf->synth[ELF_RELA_PLT])
        read_dynrels(v, elf->synth[ELF_RELA_PLT], nplt, &found);
    sort_entries(&wanted);
    sort_entries(&found);
    size_t i = 0, k = 0;
    while (i < wanted.len || k < found.len) {
        int order = i == wanted.len  ? 1
                    : k == found.len ? -1
                                     : compare_entries(&wanted.data[i], &found.data[k]);
        if (order < 0)
            report_dynrel(v, &wanted.data[i], "is missing");
        else if (order > 0 && !is_of_unused_slot(v, &found.data[k]))
            report_dynrel(v, &found.data[k], "is too much");
        i += order <= 0;
        k += order >= 0;
    }
}

/* Resolvers run when all else is done; spare entries say nothing. */
static void check_order(struct kld_verify *v)
{
    const struct elf_link *elf = elf_state(v->ctx);
    const struct kld_atom *table = elf->synth[ELF_RELA_DYN];
    bool late = false;
    if (!elf->is_dynamic || !table)
        return;
    const uint8_t *out = kld_verify_output_at(v, section_of(v, table), table->addr, table->size);
    for (uint64_t at = 0; out && at + 24 <= table->size; at += 24) {
        struct elf_dynrel_entry e = get_entry(out + at), none = {.type = elf->arch->r_none};
        if (e.type == none.type && compare_entries(&e, &none) != 0)
            report_dynrel(v, &e, "is none, and not empty");
        if (e.type == none.type)
            continue;
        if (late && e.type != elf->arch->r_irelative)
            report_dynrel(v, &e, "is behind an IRELATIVE one");
        late |= e.type == elf->arch->r_irelative;
    }
}

static void check_plt_relocations(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    const struct elf_link *elf = elf_state(ctx);
    const struct kld_atom *table = elf->synth[ELF_RELA_PLT];
    uint64_t n = elf->plt.len + elf->iplt.len;
    uint8_t *bytes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, 24 * n + 1);
    if (!table || !n)
        return;
    for (uint64_t i = 0; i < n; i++) {
        const struct kld_symbol *sym =
            i < elf->plt.len ? elf->plt.data[i] : elf->iplt.data[i - elf->plt.len];
        struct elf_dynrel_entry e = {
            .place = elf->got_plt_addr + 8 * (elf->got_plt_reserved + i),
            .type = elf->arch->r_jump_slot,
            .dynsym = elf_aux(ctx, sym)->dynsym,
        };
        if (i >= elf->plt.len) {
            e.type = elf->arch->r_irelative;
            e.dynsym = 0;
            e.addend = (int64_t)(sym->in_section
                                     ? sym->section->addr + sym->value
                                     : elf_atom_address(elf_output_atom(sym->atom), sym->value));
        }
        elf_put_rela(bytes + 24 * i, &e);
    }
    kld_verify_bytes(v, section_of(v, table), table->addr, bytes, 24 * n, ".rela.plt");
}

/* ---- .eh_frame_hdr ---- */

static int compare_rows(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void check_unwind_table(struct kld_verify *v)
{
    enum { HEAD = 12, ROW = 8 };
    static const uint8_t head[4] = {1, 0x1b, 0x03, 0x3b};
    struct kld_session *ctx = v->ctx;
    const struct kld_atom *hdr = elf_state(ctx)->synth[ELF_EH_FRAME_HDR];
    const struct kld_section *frame = NULL;
    size_t n = 0;
    if (!hdr || hdr->size < HEAD)
        return;
    uint64_t most = hdr->size / ROW, *rows = KLD_NEW_ARRAY(&ctx->arena, uint64_t, most + 1);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind != KLD_FILE_OBJECT || !obj->eh)
            continue;
        for (const struct elf_eh_section *s = obj->eh->sections; s; s = s->next) {
            frame = !frame && s->atom->size ? section_of(v, s->atom) : frame;
            if (n + s->nrows > (hdr->size - HEAD) / ROW) {
                kld_verify_error(v, NULL, ".eh_frame_hdr is too small");
                return;
            }
            elf_eh_rows(ctx, obj, s, hdr->addr, rows + n);
            n += s->nrows;
        }
    }
    qsort(rows, n, sizeof(*rows), compare_rows);
    uint8_t *bytes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, hdr->size);
    memcpy(bytes, head, sizeof(head));
    kld_put32(bytes + 4, frame ? (uint32_t)(frame->addr - (hdr->addr + 4)) : 0);
    kld_put32(bytes + 8, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        kld_put32(bytes + HEAD + ROW * i, (uint32_t)(rows[i] >> 32) ^ 0x80000000);
        kld_put32(bytes + HEAD + ROW * i + 4, (uint32_t)rows[i]);
    }
    kld_verify_bytes(v, section_of(v, hdr), hdr->addr, bytes, hdr->size,
                     "the table of unwind records");
}

/* ---- .symtab ---- */

static void check_locals(struct kld_verify *v, uint32_t f)
{
    struct kld_session *ctx = v->ctx;
    const struct elf_file_state *state = (const void *)v->records[f].format;
    const struct kld_section *s = section_of(v, elf_state(ctx)->synth[ELF_SYMTAB]);
    const struct kld_section *strings = section_of(v, elf_state(ctx)->synth[ELF_STRTAB]);
    struct kld_where where = {.file = ctx->files[f]};
    struct elf_symtab_locals now;
    uint8_t *symbols, *names;
    if (!kld_in_bounds(24ull * state->locals.first, 24ull * state->locals.capacity, s->size) ||
        !kld_in_bounds(state->locals.names, state->locals.names_capacity, strings->size) ||
        !elf_symtab_again(ctx, f, &state->locals, &now, &symbols, &names)) {
        kld_verify_error(v, &where, "its local symbols have no room in .symtab");
        return;
    }
    if (now.count != state->locals.count || now.names_size != state->locals.names_size)
        kld_verify_error(v, &where, "the state has %u local symbols of it instead of %u",
                         state->locals.count, now.count);
    kld_verify_bytes(v, s, s->addr + 24ull * now.first, symbols, 24ull * now.capacity,
                     kld_arena_printf(&ctx->arena, "a local symbol of %s", ctx->files[f]->path));
    kld_verify_bytes(v, strings, strings->addr + now.names, names, now.names_capacity,
                     "the name of a local symbol");
}

static void check_name(struct kld_verify *v, const struct kld_symbol *sym, struct kld_str name,
                       uint32_t at)
{
    const struct kld_section *strings = section_of(v, elf_state(v->ctx)->synth[ELF_STRTAB]);
    const uint8_t *out = kld_verify_output_at(v, strings, strings->addr + at, name.len + 1);
    if (out && memcmp(out, name.ptr, name.len) == 0 && !out[name.len])
        return;
    struct kld_where where = at_symbol(v, sym);
    kld_verify_error(v, &where, "the name of %.*s in .symtab is another one", KLD_FMT(name));
}

/* The symbol table says where a definition is, not what others see. */
static void check_global(struct kld_verify *v, kld_symid id)
{
    struct kld_session *ctx = v->ctx;
    const struct kld_symbol *sym = &ctx->symbols[id];
    const struct kld_state_symbol *known = &v->symbols[v->numbers[id]];
    const struct kld_section *s = section_of(v, elf_state(ctx)->synth[ELF_SYMTAB]);
    const uint8_t *out = kld_verify_output_at(v, s, s->addr + 24ull * known->number, 24);
    char buffer[4096];
    Elf64_Sym wanted, found;
    if (!out)
        return;
    struct kld_str name = elf_symtab_global(ctx, id, (elf_sym *)&wanted, buffer, sizeof(buffer));
    if (v->moved[id] && wanted.st_value == sym->section->addr + sym->value)
        wanted.st_value = v->places[id];
    memcpy(&found, out, sizeof(found));
    check_name(v, sym, name, found.st_name);
    wanted.st_name = found.st_name;
    if (memcmp(&wanted, &found, sizeof(found)) == 0)
        return;
    struct kld_where where = at_symbol(v, sym);
    kld_verify_error(
        v, &where,
        "%.*s is in .symtab with value 0x%llx, size %llu, section %u, info 0x%02x, "
        "other 0x%02x instead of 0x%llx, %llu, %u, 0x%02x, 0x%02x",
        KLD_FMT(name), (unsigned long long)found.st_value, (unsigned long long)found.st_size,
        found.st_shndx, found.st_info, found.st_other, (unsigned long long)wanted.st_value,
        (unsigned long long)wanted.st_size, wanted.st_shndx, wanted.st_info, wanted.st_other);
}

static void check_symtab(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    if (!elf_state(ctx)->synth[ELF_SYMTAB] || elf_state(ctx)->synth[ELF_SYMTAB_SHNDX])
        return;
    const uint32_t *numbers = elf_symbol_numbers(ctx);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        if (ctx->files[f]->kind == KLD_FILE_OBJECT)
            check_locals(v, f);
    for (kld_symid id = 0; id < ctx->nsymbols; id++) {
        if (v->numbers[id] == KLD_STATE_NONE)
            continue;
        uint32_t known = v->symbols[v->numbers[id]].number;
        struct kld_where where = at_symbol(v, &ctx->symbols[id]);
        if (!numbers[id] != !known)
            kld_verify_error(v, &where, "%.*s is %s .symtab",
                             KLD_FMT(kld_symbol_name(&ctx->symbols[id])),
                             known ? "not to be in" : "not in");
        else if (known)
            check_global(v, id);
    }
}

/* ---- section headers ---- */

static const char *compare_header(const Elf64_Shdr *sh, const struct kld_state_section *s)
{
    if (sh->sh_type != s->type || sh->sh_flags != s->format_flags)
        return "type or flags";
    if (sh->sh_addr != (s->flags & KLD_ATOM_ALLOC ? s->addr : 0) || sh->sh_offset != s->offset)
        return "place";
    if (sh->sh_size != s->size)
        return "size";
    if ((s->size || s->p2align) && sh->sh_addralign < 1ull << s->p2align)
        return "alignment";
    return sh->sh_entsize == s->entsize ? NULL : "size of entries";
}

static void check_section_headers(struct kld_verify *v)
{
    const uint8_t *head = kld_verify_output(v, 0, sizeof(Elf64_Ehdr));
    uint64_t at = head ? kld_get64(head + offsetof(Elf64_Ehdr, e_shoff)) : 0;
    const struct kld_atom *names = elf_state(v->ctx)->synth[ELF_SHSTRTAB];
    for (uint32_t i = 0; head && i < v->nsections; i++) {
        const struct kld_state_section *s = &v->known[i];
        const uint8_t *out = s->number ? kld_verify_output(v, at + sizeof(Elf64_Shdr) * s->number,
                                                           sizeof(Elf64_Shdr))
                                       : NULL;
        if (!out)
            continue;
        Elf64_Shdr sh;
        memcpy(&sh, out, sizeof(sh));
        const char *name = kld_state_text(&v->st, s->name, s->name_length);
        const char *what = compare_header(&sh, s);
        const uint8_t *text = kld_verify_output_at(
            v, section_of(v, names), names->addr + sh.sh_name, (uint64_t)s->name_length + 1);
        if (text && memcmp(text, name, (size_t)s->name_length + 1) != 0)
            what = "name";
        if (what)
            kld_verify_error(v, NULL, "the header of section %s has another %s", name, what);
    }
}

/* ---- hashes ---- */

/* Of a chunk, the build id in it being zero. */
static void hash_chunk(struct kld_verify *v, const struct kld_state_chunk *c, uint64_t id_at,
                       uint64_t id_size, uint8_t *hash)
{
    static const uint8_t zero[64];
    const uint8_t *bytes = kld_verify_output(v, c->offset, c->size);
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    uint64_t start = KLD_MIN(KLD_MAX(id_at, c->offset), c->offset + c->size) - c->offset;
    uint64_t end = KLD_MIN(KLD_MAX(id_at + id_size, c->offset), c->offset + c->size) - c->offset;
    if (bytes) {
        XXH3_128bits_update(&state, bytes, start);
        XXH3_128bits_update(&state, zero, KLD_MIN(end - start, sizeof(zero)));
        XXH3_128bits_update(&state, bytes + end, c->size - end);
    }
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state));
    memcpy(hash, canonical.digest, sizeof(canonical.digest));
}

/* There is nothing between what has a hash. */
static void check_between(struct kld_verify *v, uint64_t from, uint64_t to)
{
    const uint8_t *bytes = from < to ? kld_verify_output(v, from, to - from) : NULL;
    for (uint64_t i = 0; bytes && i < to - from; i++)
        if (bytes[i]) {
            kld_verify_error(v, NULL, "there is something at 0x%llx, between all contents",
                             (unsigned long long)(from + i));
            return;
        }
}

static void check_hashes(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    uint64_t n = kld_state_count(&v->st, KLD_T_CHUNKS), at = 0;
    const struct kld_state_chunk *chunks = kld_state_get(&v->st, KLD_T_CHUNKS, 0, n);
    uint8_t *hashes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, 16 * n + 1);
    uint8_t id[64];
    uint64_t end = 0;
    size_t size = elf_build_id(ctx, NULL, 0, id, &at);
    for (uint64_t i = 0; i < n; i++) {
        check_between(v, end, chunks[i].offset);
        end = chunks[i].offset + chunks[i].size;
        hash_chunk(v, &chunks[i], at, size, hashes + 16 * i);
        if (memcmp(hashes + 16 * i, chunks[i].hash, 16) != 0)
            kld_verify_error(v, NULL, "the output is not what was written at 0x%llx (0x%llx bytes)",
                             (unsigned long long)chunks[i].offset,
                             (unsigned long long)chunks[i].size);
    }
    check_between(v, end, v->output.size);
    if (!size || strcmp(ctx->options.build_id, "uuid") == 0)
        return;
    elf_build_id(ctx, hashes, 16 * n, id, &at);
    const uint8_t *out = kld_verify_output(v, at, size);
    if (out && memcmp(out, id, size) != 0)
        kld_verify_error(v, NULL, "the build id is not that of the contents");
}

/* ---- all of it ---- */

static void check_headers(struct kld_verify *v)
{
    const struct elf_link *elf = elf_state(v->ctx);
    const uint8_t *head = kld_verify_output(v, 0, sizeof(Elf64_Ehdr));
    uint64_t entry = elf->entry_number;
    if (elf->entry && (elf->entry->kind == KLD_SYM_DEFINED || elf->entry->kind == KLD_SYM_ABSOLUTE))
        entry = elf_symbol_address(v->ctx, elf->entry);
    if (head && kld_get64(head + offsetof(Elf64_Ehdr, e_entry)) != entry)
        kld_verify_error(v, NULL, "the entry point is 0x%llx instead of 0x%llx",
                         (unsigned long long)kld_get64(head + offsetof(Elf64_Ehdr, e_entry)),
                         (unsigned long long)entry);
}

static void check(struct kld_verify *v)
{
    elf_dynamic_finish(v->ctx);
    check_headers(v);
    check_section_headers(v);
    check_whole_tables(v);
    check_plt(v);
    check_plt_got(v);
    check_got_plt(v);
    check_got(v);
    check_islands(v);
    check_dynrels(v);
    check_order(v);
    check_plt_relocations(v);
    check_unwind_table(v);
    check_symtab(v);
    check_hashes(v);
}

const struct kld_verify_ops elf_verify_ops = {
    .needs = needs,
    .restore = restore,
    .addresses = addresses,
    .check = check,
    .field = field,
};
