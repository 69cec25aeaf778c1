/* elf_dynrel.c - dynamic relocations: .rela.dyn, .relr.dyn, .rela.plt.
 *
 * Scan notes which input relocations need one (elf_need_dynrel); slots bring their own. synth
 * counts, when it is known what became of every symbol (a copy relocation turns a symbolic
 * relocation into a plain address); finish fills in, with the same function deciding. Order in
 * .rela.dyn, as -z combreloc: RELATIVE by address (DT_RELACOUNT of them), then by symbol, and
 * IRELATIVE last, since resolvers may use what the others set up. */
#include "formats/elf/elf_symbols.h"
#include "formats/elf/elf_tables.h"
#include "src/incremental/slack.h"
#include <stdlib.h>

enum { SPARE = 16 }; /* entries of .rela.dyn, at least, with slack */

struct elf_dynrels {
    uint32_t nrelative, nsymbolic, nirelative; /* in .rela.dyn */
    uint32_t nrelr;                            /* places in .relr.dyn */
    uint64_t *relr_places;
    KLD_VEC(struct elf_dynrel_entry) entries;
    size_t capacity; /* of .rela.dyn: with slack some entries at its end are spare */
};

static void note_textrel(struct kld_session *ctx, struct kld_atom *atom, uint64_t offset)
{
    struct elf_link *elf = elf_state(ctx);
    struct kld_where where = elf_where(atom, offset);
    switch ((enum kld_textrel)ctx->options.z_text) {
    case KLD_TEXTREL_ERROR:
        kld_error(ctx, "text-relocation", &where,
                  "relocation in a read-only section needs the dynamic linker to write there "
                  "(-z text); recompile with -fPIC");
        return;
    case KLD_TEXTREL_WARN:
        kld_warning(ctx, "text-relocation", &where, "relocation in a read-only section");
        break;
    case KLD_TEXTREL_AUTO:
        if (!atomic_exchange(&elf->textrel, true))
            kld_warning(ctx, "text-relocation", &where,
                        "relocation in a read-only section: creating DT_TEXTREL");
        break;
    case KLD_TEXTREL_ALLOW: break;
    }
    atomic_store(&elf->textrel, true);
}

void elf_need_dynrel(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                     struct kld_atom *atom, uint32_t edge, enum elf_dynrel_kind kind)
{
    const elf_rela *rel = (const elf_rela *)atom->edges + edge;
    uint32_t r_sym = ELF64_R_SYM(rel->r_info);
    if (r_sym >= obj->first_global) {
        struct kld_symbol *sym = elf_global(ctx, obj, r_sym);
        if (elf_is_dynamic_symbol(sym))
            kld_symbol_flag(sym, KLD_SYM_NEED_DYNSYM);
    }
    if (!(atom->flags & KLD_ATOM_WRITE))
        note_textrel(ctx, atom, rel->r_offset);
    *kld_vec_push(&worker->arena, &obj->dynrels) = (struct elf_dynrel){
        .atom = (uint32_t)(atom - obj->base.atoms), .edge = edge, .kind = (unsigned)kind};
}

/* ---- what a noted relocation became ---- */

enum outcome { NOTHING, RELATIVE, RELR, SYMBOLIC, IRELATIVE };

/* The address of an ifunc's resolver. */
static uint64_t resolver_address(const struct kld_symbol *sym)
{
    if (sym->kind != KLD_SYM_DEFINED)
        return sym->value;
    if (sym->in_section)
        return sym->section->addr + sym->value;
    return elf_atom_address(elf_output_atom(sym->atom), sym->value);
}

static bool fits_relr(const struct kld_session *ctx, const struct kld_atom *atom, uint64_t offset)
{
    return elf_packs_relative(ctx) && atom->p2align >= 1 && offset % 2 == 0;
}

static enum outcome outcome_of(const struct kld_session *ctx, const struct elf_object *obj,
                               const struct elf_dynrel *d, struct elf_target *target)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct kld_atom *atom = &obj->base.atoms[d->atom];
    const elf_rela *rel = (const elf_rela *)atom->edges + d->edge;
    *target = elf_resolve(ctx, obj, ELF64_R_SYM(rel->r_info), rel->r_addend);
    const struct kld_symbol *sym = target->sym;
    enum outcome relative = !elf->is_pic                          ? NOTHING
                            : fits_relr(ctx, atom, rel->r_offset) ? RELR
                                                                  : RELATIVE;
    bool dynamic = sym && elf_is_dynamic_symbol(sym);
    switch ((enum elf_dynrel_kind)d->kind) {
    case ELF_DYNREL_RELATIVE: return relative;
    case ELF_DYNREL_SYMBOLIC:
        return dynamic ? SYMBOLIC
               : sym && (sym->kind == KLD_SYM_ABSOLUTE || sym->kind == KLD_SYM_UNDEFINED)
                   ? NOTHING
                   : relative;
    case ELF_DYNREL_IRELATIVE:
        return sym && kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT) ? relative : IRELATIVE;
    case ELF_DYNREL_TPOFF:
    case ELF_DYNREL_DTPMOD:
    case ELF_DYNREL_DTPOFF: return SYMBOLIC;
    }
    return NOTHING;
}

static uint32_t dynsym_of(const struct kld_session *ctx, const struct kld_symbol *sym)
{
    if (!sym || !sym->aux || !elf_is_dynamic_symbol(sym))
        return 0;
    uint32_t n = elf_aux(ctx, sym)->dynsym;
    return n == ELF_NONE ? 0 : n;
}

static struct elf_dynrel_entry make_entry(const struct kld_session *ctx,
                                          const struct elf_object *obj, const struct elf_dynrel *d,
                                          enum outcome outcome, const struct elf_target *t)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct elf_arch_ops *arch = elf->arch;
    const struct kld_atom *atom = &obj->base.atoms[d->atom];
    const elf_rela *rel = (const elf_rela *)atom->edges + d->edge;
    struct elf_dynrel_entry e = {.place = elf_atom_address(atom, rel->r_offset),
                                 .addend = rel->r_addend};
    if (outcome == IRELATIVE) {
        e.type = arch->r_irelative;
        e.addend += (int64_t)(t->sym ? resolver_address(t->sym) : t->value);
        return e;
    }
    if (outcome != SYMBOLIC) {
        e.type = arch->r_relative;
        e.addend += (int64_t)t->value;
        return e;
    }
    e.dynsym = dynsym_of(ctx, t->sym);
    switch ((enum elf_dynrel_kind)d->kind) {
    case ELF_DYNREL_TPOFF:
        e.type = arch->r_tpoff;
        if (!e.dynsym)
            e.addend += (int64_t)(t->value - elf->tls_start);
        break;
    case ELF_DYNREL_DTPMOD:
        e.type = arch->r_dtpmod;
        e.addend = 0;
        break;
    case ELF_DYNREL_DTPOFF: e.type = arch->r_dtpoff; break;
    default: e.type = arch->r_abs; break;
    }
    return e;
}

static void put_rela(uint8_t *out, uint64_t place, uint32_t sym, uint32_t type, int64_t addend)
{
    kld_put64(out, place);
    kld_put64(out + 8, ELF64_R_INFO((uint64_t)sym, type));
    kld_put64(out + 16, (uint64_t)addend);
}

/* ---- those of slots ---- */

static void add(struct kld_session *ctx, uint32_t type, uint32_t dynsym, uint64_t place,
                int64_t addend)
{
    struct elf_dynrels *d = elf_state(ctx)->dynrels;
    *kld_vec_push(&ctx->arena, &d->entries) =
        (struct elf_dynrel_entry){type, dynsym, place, addend};
}

/* Calls add() for every dynamic relocation of the entry. With addresses still unknown the
 * number and the types are right already. */
static void add_got_entry(struct kld_session *ctx, const struct elf_got_entry *g)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct elf_arch_ops *arch = elf->arch;
    uint64_t place = elf_got_address(ctx, g->slot);
    if (g->kind == ELF_GOT_TLSLD) {
        if (elf->is_shared)
            add(ctx, arch->r_dtpmod, 0, place, 0);
        return;
    }
    const struct kld_symbol *sym = g->sym;
    bool dynamic = elf_is_dynamic_symbol(sym);
    uint32_t n = dynsym_of(ctx, sym);
    uint64_t address = dynamic ? 0 : elf_symbol_address(ctx, sym);
    int64_t in_block = dynamic ? 0 : (int64_t)(address - elf->tls_start);
    switch (g->kind) {
    case ELF_GOT_ADDRESS:
        if (dynamic)
            add(ctx, arch->r_glob_dat, n, place, 0);
        else if (sym->type == KLD_TYPE_IFUNC && !kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT))
            add(ctx, arch->r_irelative, 0, place, (int64_t)resolver_address(sym));
        else if (elf->is_pic && sym->kind == KLD_SYM_DEFINED)
            add(ctx, arch->r_relative, 0, place, (int64_t)address);
        break;
    case ELF_GOT_TPOFF:
        if (dynamic || elf->is_shared)
            add(ctx, arch->r_tpoff, n, place, in_block);
        break;
    case ELF_GOT_TLSGD:
        if (dynamic || elf->is_shared)
            add(ctx, arch->r_dtpmod, n, place, 0);
        if (dynamic)
            add(ctx, arch->r_dtpoff, n, place + 8, 0);
        break;
    case ELF_GOT_TLSDESC: add(ctx, arch->r_tlsdesc, n, place, in_block); break;
    case ELF_GOT_TLSLD: break;
    }
}

static bool got_is_relr(const struct kld_session *ctx, const struct elf_got_entry *g)
{
    return elf_packs_relative(ctx) && g->kind == ELF_GOT_ADDRESS && elf_state(ctx)->is_pic &&
           !elf_is_dynamic_symbol(g->sym) && g->sym->kind == KLD_SYM_DEFINED &&
           (g->sym->type != KLD_TYPE_IFUNC || kld_symbol_has(g->sym, KLD_SYM_NEED_CANONICAL_PLT));
}

void elf_dynrel_of_got(struct kld_session *ctx, const struct elf_got_entry *g, elf_dynrel_list *out)
{
    struct elf_link *elf = elf_state(ctx);
    if (!elf->dynrels)
        elf->dynrels = KLD_NEW(&ctx->arena, struct elf_dynrels);
    struct elf_dynrels *d = elf->dynrels;
    size_t first = d->entries.len;
    add_got_entry(ctx, g);
    for (size_t i = first; i < d->entries.len; i++)
        *kld_vec_push(&ctx->arena, out) = d->entries.data[i];
    d->entries.len = first;
}

void elf_dynrel_of_file(struct kld_session *ctx, const struct elf_object *obj, elf_dynrel_list *out)
{
    for (size_t i = 0; i < obj->dynrels.len; i++) {
        struct elf_target target;
        enum outcome o = outcome_of(ctx, obj, &obj->dynrels.data[i], &target);
        if (o != NOTHING && o != RELR)
            *kld_vec_push(&ctx->arena, out) =
                make_entry(ctx, obj, &obj->dynrels.data[i], o, &target);
    }
}

void elf_put_rela(uint8_t *out, const struct elf_dynrel_entry *e)
{
    put_rela(out, e->place, e->dynsym, e->type, e->addend);
}

/* All entries of .rela.dyn, and the places of .relr.dyn, from slots and noted relocations. */
static void collect(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_dynrels *d = elf->dynrels;
    d->entries.len = 0;
    for (size_t i = 0; i < elf->got.len; i++)
        if (!got_is_relr(ctx, &elf->got.data[i]))
            add_got_entry(ctx, &elf->got.data[i]);
    for (size_t i = 0; i < elf->copies.len; i++) {
        const struct kld_symbol *sym = elf->copies.data[i];
        add(ctx, elf->arch->r_copy, elf_aux(ctx, sym)->dynsym, sym->atom->addr, 0);
    }
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind != KLD_FILE_OBJECT)
            continue;
        for (size_t i = 0; i < obj->dynrels.len; i++) {
            struct elf_target target;
            enum outcome o = outcome_of(ctx, obj, &obj->dynrels.data[i], &target);
            if (o != NOTHING && o != RELR)
                *kld_vec_push(&ctx->arena, &d->entries) =
                    make_entry(ctx, obj, &obj->dynrels.data[i], o, &target);
        }
    }
}

/* ---- RELR (gABI draft "Relative relocations": an address, then bitmaps of 63 words) ---- */

static int compare_places(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void collect_relr(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_dynrels *d = elf->dynrels;
    uint32_t n = 0;
    for (size_t i = 0; i < elf->got.len; i++)
        if (got_is_relr(ctx, &elf->got.data[i])) {
            if (d->relr_places)
                d->relr_places[n] = elf_got_address(ctx, elf->got.data[i].slot);
            n++;
        }
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind != KLD_FILE_OBJECT)
            continue;
        for (size_t i = 0; i < obj->dynrels.len; i++) {
            const struct elf_dynrel *r = &obj->dynrels.data[i];
            struct elf_target target;
            if (outcome_of(ctx, obj, r, &target) != RELR)
                continue;
            const struct kld_atom *atom = &obj->base.atoms[r->atom];
            if (d->relr_places)
                d->relr_places[n] =
                    elf_atom_address(atom, ((const elf_rela *)atom->edges + r->edge)->r_offset);
            n++;
        }
    }
    if (!d->relr_places)
        d->relr_places = KLD_NEW_ARRAY(&ctx->arena, uint64_t, n);
    d->nrelr = n;
}

/* Encodes into out (NULL: only counts); returns the number of words. */
static size_t encode_relr(const struct elf_dynrels *d, uint8_t *out)
{
    size_t n = 0;
    for (uint32_t i = 0; i < d->nrelr;) {
        uint64_t base = d->relr_places[i];
        if (out)
            kld_put64(out + 8 * n, base);
        n++;
        i++;
        base += 8;
        for (;;) {
            uint64_t bits = 0;
            for (; i < d->nrelr && d->relr_places[i] - base < 63 * 8 &&
                   (d->relr_places[i] - base) % 8 == 0;
                 i++)
                bits |= 1ull << ((d->relr_places[i] - base) / 8);
            if (!bits)
                break;
            if (out)
                kld_put64(out + 8 * n, bits << 1 | 1);
            n++;
            base += 63 * 8;
        }
    }
    return n;
}

bool elf_relr_update(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct kld_atom *atom = elf->synth[ELF_RELR_DYN];
    if (!atom)
        return false;
    collect_relr(ctx);
    if (elf->dynrels->nrelr)
        qsort(elf->dynrels->relr_places, elf->dynrels->nrelr, 8, compare_places);
    uint64_t size = 8 * encode_relr(elf->dynrels, NULL);
    if (size <= atom->size)
        return false; /* never shrinks, so that the loop ends; the rest is padded */
    atom->size = size;
    return true;
}

static void write_relr(struct kld_session *ctx, struct kld_worker *w, const struct kld_atom *atom,
                       uint8_t *out)
{
    (void)w;
    size_t n = encode_relr(elf_state(ctx)->dynrels, out);
    for (; n * 8 < atom->size; n++)
        kld_put64(out + 8 * n, 1); /* an empty bitmap */
}

/* ---- writing ---- */

static unsigned group_of(const struct elf_arch_ops *arch, const struct elf_dynrel_entry *e)
{
    return e->type == arch->r_relative ? 0 : e->type == arch->r_irelative ? 2 : 1;
}

static int compare_entries(const void *a, const void *b, void *arg)
{
    const struct elf_dynrel_entry *x = a, *y = b;
    unsigned gx = group_of(arg, x), gy = group_of(arg, y);
    if (gx != gy)
        return gx < gy ? -1 : 1;
    if (gx == 1 && x->dynsym != y->dynsym)
        return x->dynsym < y->dynsym ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

static void write_rela_dyn(struct kld_session *ctx, struct kld_worker *w,
                           const struct kld_atom *atom, uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_dynrels *d = elf_state(ctx)->dynrels;
    for (size_t i = 0; i < d->entries.len; i++) {
        const struct elf_dynrel_entry *e = &d->entries.data[i];
        put_rela(out + 24 * i, e->place, e->dynsym, e->type, e->addend);
    }
    for (size_t i = d->entries.len; i < d->capacity; i++)
        put_rela(out + 24 * i, 0, 0, elf_state(ctx)->arch->r_none, 0);
}

/* .rela.plt: a JUMP_SLOT for each PLT entry, an IRELATIVE for each ifunc; in a static executable
 * the IRELATIVE ones of GOT slots and data as well, between __rela_iplt_start and _end. */
static void write_rela_plt(struct kld_session *ctx, struct kld_worker *w,
                           const struct kld_atom *atom, uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_link *elf = elf_state(ctx);
    uint64_t slot = elf->got_plt_addr + 8ull * elf->got_plt_reserved;
    for (size_t i = 0; i < elf->plt.len; i++, out += 24, slot += 8)
        put_rela(out, slot, dynsym_of(ctx, elf->plt.data[i]), elf->arch->r_jump_slot, 0);
    for (size_t i = 0; i < elf->iplt.len; i++, out += 24, slot += 8)
        put_rela(out, slot, 0, elf->arch->r_irelative,
                 (int64_t)resolver_address(elf->iplt.data[i]));
    if (!elf->is_dynamic)
        write_rela_dyn(ctx, w, atom, out);
}

void elf_dynrel_synth(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_dynrels *d = elf->dynrels = KLD_NEW(&ctx->arena, struct elf_dynrels);
    collect(ctx);
    size_t nplt = elf->plt.len + elf->iplt.len;
    size_t in_plt = elf->is_dynamic ? nplt : nplt + d->entries.len;
    if (in_plt) {
        struct kld_atom *a = elf_make(ctx, ELF_RELA_PLT, ".rela.plt", SHT_RELA,
                                      SHF_ALLOC | SHF_INFO_LINK, 24, 3, 24 * in_plt);
        a->kind = KLD_ATOM_GENERATED;
        a->generate = write_rela_plt;
    }
    if (elf->is_dynamic && ctx->slack)
        d->capacity = d->entries.len + SPARE + kld_slack_spare(ctx, KLD_SLACK_DATA, d->entries.len);
    if (elf->is_dynamic && (d->entries.len || d->capacity)) {
        struct kld_atom *a = elf_make(ctx, ELF_RELA_DYN, ".rela.dyn", SHT_RELA, SHF_ALLOC, 24, 3,
                                      24 * KLD_MAX(d->entries.len, d->capacity));
        a->kind = KLD_ATOM_GENERATED;
        a->generate = write_rela_dyn;
    }
    for (size_t i = 0; i < d->entries.len && !ctx->slack; i++)
        d->nrelative += d->entries.data[i].type == elf->arch->r_relative;
    if (elf->is_dynamic && elf->is_pic && elf_packs_relative(ctx)) {
        collect_relr(ctx);
        if (d->nrelr) {
            struct kld_atom *a =
                elf_make(ctx, ELF_RELR_DYN, ".relr.dyn", SHT_RELR, SHF_ALLOC, 8, 3, 0);
            a->kind = KLD_ATOM_GENERATED;
            a->generate = write_relr;
        }
    }
}

uint32_t elf_relative_count(const struct kld_session *ctx)
{
    return elf_state(ctx)->dynrels->nrelative;
}

void elf_dynrel_finish(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    collect(ctx);
    if (elf->dynrels->entries.len)
        qsort_r(elf->dynrels->entries.data, elf->dynrels->entries.len,
                sizeof(struct elf_dynrel_entry), compare_entries, (void *)elf->arch);
}
