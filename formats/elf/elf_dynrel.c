/* elf_dynrel.c - dynamic relocations: which ones there are; .rela.dyn and .rela.plt.
 *
 * Scan notes which input relocations need one (elf_need_dynrel); slots bring their own. synth
 * decides and counts, when it is known what became of every symbol (a copy relocation turns a
 * symbolic relocation into a plain address); finish fills in. Order in .rela.dyn, as -z combreloc:
 * RELATIVE by address (DT_RELACOUNT of them), then by symbol, and IRELATIVE last, since resolvers may
 * use what the others set up.
 *
 * RELATIVE ones, which most are, are made when they are written (elf_relative.c). The others, and all of an
 * incremental link, which keeps room between them, are in a table. (With lists that grow, a list for synth and one
 * for finish, and qsort, clang took 80 MB and 90 ms more.) */
#include "formats/elf/elf_dynrel.h"
#include "src/incremental/slack.h"
#include "src/layout.h"
#include <stdlib.h>

enum { SPARE = 16 }; /* entries of .rela.dyn, at least, with slack */

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
    if (r_sym >= obj->first_global && kind != ELF_DYNREL_RELATIVE) {
        struct kld_symbol *sym = elf_global(ctx, obj, r_sym);
        if (elf_is_dynamic_symbol(sym))
            kld_symbol_flag(sym, KLD_SYM_NEED_DYNSYM);
    }
    if (!(atom->flags & KLD_ATOM_WRITE))
        note_textrel(ctx, atom, rel->r_offset);
    elf_dynrel_add(&worker->arena, &obj->dynrels, (uint32_t)(atom - obj->base.atoms), edge, kind);
}

void elf_dynrel_add(struct kld_arena *arena, elf_dynrel_runs *runs, uint32_t atom, uint32_t edge,
                    enum elf_dynrel_kind kind)
{
    struct elf_dynrel *last = runs->len ? &runs->data[runs->len - 1] : NULL;
    if (last && kind == ELF_DYNREL_RELATIVE && last->kind == ELF_DYNREL_RELATIVE &&
        last->atom == atom && last->edge + last->count == edge)
        last->count++;
    else
        *kld_vec_push(arena, runs) =
            (struct elf_dynrel){.atom = atom, .edge = edge, .kind = (unsigned)kind, .count = 1};
}

/* ---- what a noted relocation became ---- */

/* The address of an ifunc's resolver. */
static uint64_t resolver_address(const struct kld_symbol *sym)
{
    if (sym->kind != KLD_SYM_DEFINED)
        return sym->value;
    if (sym->in_section)
        return sym->section->addr + sym->value;
    return elf_atom_address(elf_output_atom(sym->atom), sym->value);
}

bool elf_dynrel_fits_relr(const struct kld_session *ctx, const struct kld_atom *atom,
                          uint64_t offset)
{
    return elf_packs_relative(ctx) && atom->p2align >= 1 && offset % 2 == 0;
}

enum elf_rela_part elf_dynrel_part(const struct kld_session *ctx, const struct elf_object *obj,
                                   const struct elf_dynrel *d, uint32_t k)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct kld_atom *atom = &obj->base.atoms[d->atom];
    const elf_rela *rel = (const elf_rela *)atom->edges + d->edge + k;
    enum elf_rela_part relative = !elf->is_pic ? ELF_RELA_NOTHING
                                  : elf_dynrel_fits_relr(ctx, atom, rel->r_offset)
                                      ? ELF_RELA_RELR
                                      : ELF_RELA_RELATIVE;
    if (d->kind == ELF_DYNREL_RELATIVE)
        return relative; /* most of them: the symbol need not be looked at */
    const struct kld_symbol *sym =
        elf_resolve(ctx, obj, ELF64_R_SYM(rel->r_info), rel->r_addend).sym;
    bool dynamic = sym && elf_is_dynamic_symbol(sym);
    switch ((enum elf_dynrel_kind)d->kind) {
    case ELF_DYNREL_RELATIVE: return relative;
    case ELF_DYNREL_SYMBOLIC:
        return dynamic ? ELF_RELA_SYMBOLIC
               : sym && (sym->kind == KLD_SYM_ABSOLUTE || sym->kind == KLD_SYM_UNDEFINED)
                   ? ELF_RELA_NOTHING
                   : relative;
    case ELF_DYNREL_IRELATIVE:
        return sym && kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT) ? relative
                                                                      : ELF_RELA_IRELATIVE;
    case ELF_DYNREL_TPOFF:
    case ELF_DYNREL_DTPMOD:
    case ELF_DYNREL_DTPOFF: return ELF_RELA_SYMBOLIC;
    }
    return ELF_RELA_NOTHING;
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
                                          uint32_t k, enum elf_rela_part part)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct elf_arch_ops *arch = elf->arch;
    const struct kld_atom *atom = &obj->base.atoms[d->atom];
    const elf_rela *rel = (const elf_rela *)atom->edges + d->edge + k;
    if (part == ELF_RELA_RELATIVE || part == ELF_RELA_RELR)
        return elf_dynrel_relative(ctx, obj, d, k);
    struct elf_dynrel_entry e = {.place = elf_atom_address(atom, rel->r_offset),
                                 .addend = rel->r_addend};
    const struct elf_target t = elf_resolve(ctx, obj, ELF64_R_SYM(rel->r_info), rel->r_addend);
    if (part == ELF_RELA_IRELATIVE) {
        e.type = arch->r_irelative;
        e.addend = kld_add_wrapping(e.addend, t.sym ? resolver_address(t.sym) : t.value);
        return e;
    }
    e.dynsym = dynsym_of(ctx, t.sym);
    switch ((enum elf_dynrel_kind)d->kind) {
    case ELF_DYNREL_TPOFF:
        e.type = arch->r_tpoff;
        if (!e.dynsym)
            e.addend = kld_add_wrapping(e.addend, t.value - elf->tls_start);
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
    *kld_vec_push(&ctx->arena, &d->slots) = (struct elf_dynrel_entry){type, dynsym, place, addend};
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

bool elf_got_is_relr(const struct kld_session *ctx, const struct elf_got_entry *g)
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
    size_t first = d->slots.len;
    add_got_entry(ctx, g);
    for (size_t i = first; i < d->slots.len; i++)
        *kld_vec_push(&ctx->arena, out) = d->slots.data[i];
    d->slots.len = first;
}

void elf_dynrel_of_file(struct kld_session *ctx, const struct elf_object *obj, elf_dynrel_list *out)
{
    for (size_t i = 0; i < obj->dynrels.len; i++) {
        const struct elf_dynrel *d = &obj->dynrels.data[i];
        for (uint32_t k = 0; k < d->count; k++) {
            enum elf_rela_part part = elf_dynrel_part(ctx, obj, d, k);
            if (part < ELF_RELA_PARTS)
                *kld_vec_push(&ctx->arena, out) = make_entry(ctx, obj, d, k, part);
        }
    }
}

void elf_put_rela(uint8_t *out, const struct elf_dynrel_entry *e)
{
    put_rela(out, e->place, e->dynsym, e->type, e->addend);
}

/* ---- deciding ---- */

/* Leaves in the file's list what an entry is needed for, as of the kind that it has become, so that
 * part_of need not be asked what its symbol is again. */
static void decide_file(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t f)
{
    (void)w;
    struct elf_dynrels *all = arg;
    struct elf_rela_counts *counts = &all->files[f];
    uint32_t *relative = &all->relative[f * all->ngroups];
    struct elf_object *obj = elf_object(ctx->files[f]);
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    size_t n = 0;
    bool packs = elf_packs_relative(ctx); /* else those of a run become the same */
    for (size_t i = 0; i < obj->dynrels.len; i++) {
        struct elf_dynrel d = obj->dynrels.data[i];
        uint32_t same = packs ? 1 : d.count;
        enum elf_rela_part part = ELF_RELA_NOTHING;
        for (uint32_t k = 0; k < d.count; k += same) {
            part = elf_dynrel_part(ctx, obj, &d, k);
            if (part == ELF_RELA_NOTHING)
                break;
            if (part == ELF_RELA_RELATIVE)
                relative[all->group_of[obj->base.atoms[d.atom].section]] += same;
            counts->n[part] += same;
        }
        if (part == ELF_RELA_NOTHING) /* all of the run */
            continue;
        if (part == ELF_RELA_RELATIVE || part == ELF_RELA_RELR)
            d.kind = ELF_DYNREL_RELATIVE;
        obj->dynrels.data[n++] = d;
    }
    obj->dynrels.len = n;
}

enum elf_rela_part elf_dynrel_type_part(const struct elf_arch_ops *arch, uint32_t type)
{
    return type == arch->r_relative    ? ELF_RELA_RELATIVE
           : type == arch->r_irelative ? ELF_RELA_IRELATIVE
                                       : ELF_RELA_SYMBOLIC;
}

static void collect_slots(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    elf->dynrels->slots.len = 0;
    for (size_t i = 0; i < elf->got.len; i++)
        if (!elf_got_is_relr(ctx, &elf->got.data[i]))
            add_got_entry(ctx, &elf->got.data[i]);
    for (size_t i = 0; i < elf->copies.len; i++) {
        const struct kld_symbol *sym = elf->copies.data[i];
        add(ctx, elf->arch->r_copy, elf_aux(ctx, sym)->dynsym, sym->atom->addr, 0);
    }
}

static void make_groups(struct kld_session *ctx, struct elf_dynrels *d)
{
    d->group_of = KLD_NEW_ARRAY(&ctx->arena, uint8_t, ctx->sections.len + 1);
    d->ngroups = 1;
    for (size_t i = 0; i < ctx->sections.len && d->ngroups < ELF_RELA_GROUPS; i++) {
        const struct kld_section *s = ctx->sections.data[i];
        if ((s->format_flags & (SHF_WRITE | SHF_ALLOC)) != (SHF_WRITE | SHF_ALLOC) ||
            s->type == SHT_NOBITS)
            continue;
        d->groups[d->ngroups] = s;
        d->group_of[i] = (uint8_t)d->ngroups++;
    }
    d->relative = KLD_NEW_ARRAY(&ctx->arena, uint32_t, (size_t)ctx->nfiles * d->ngroups + 1);
}

/* Each part but RELATIVE begins with the entries of slots. */
static void count(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_dynrels *d = elf->dynrels;
    d->files = KLD_NEW_ARRAY(&ctx->arena, struct elf_rela_counts, ctx->nfiles);
    make_groups(ctx, d);
    kld_parallel_for(ctx, ctx->nfiles, 16, decide_file, d);
    collect_slots(ctx);
    for (size_t i = 0; i < d->slots.len; i++)
        d->nslots[elf_dynrel_type_part(elf->arch, d->slots.data[i].type)]++;
    for (int part = 0; part < ELF_RELA_PARTS; part++)
        d->total.n[part] = d->nslots[part];
    for (size_t i = 0; i < elf->got.len; i++)
        d->total.n[ELF_RELA_RELR] += elf_got_is_relr(ctx, &elf->got.data[i]);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        for (int part = 0; part <= ELF_RELA_PARTS; part++) {
            uint32_t n = d->files[f].n[part];
            d->files[f].n[part] = d->total.n[part];
            d->total.n[part] += n;
        }
    for (int part = 0; part < ELF_RELA_PARTS; part++)
        d->n += d->total.n[part];
}

/* ---- filling in ---- */

static elf_rela *start_of(const struct elf_dynrels *d, enum elf_rela_part part)
{
    elf_rela *at = d->entries;
    for (int i = d->late ? ELF_RELA_RELATIVE + 1 : ELF_RELA_RELATIVE; i < (int)part; i++)
        at += d->total.n[i];
    return at;
}

static void put(elf_rela *out, const struct elf_dynrel_entry *e)
{
    elf_put_rela((uint8_t *)out, e);
}

static int compare_groups(const void *a, const void *b, void *arg)
{
    const struct elf_dynrels *d = arg;
    const struct kld_section *x = d->groups[*(const uint8_t *)a],
                             *y = d->groups[*(const uint8_t *)b];
    uint64_t p = x ? x->addr : 0, q = y ? y->addr : 0;
    return p < q ? -1 : p > q;
}

/* Where each file's RELATIVE entries of each group begin; and those of slots, in .got. */
static void place_groups(struct kld_session *ctx, struct elf_dynrels *d)
{
    const struct kld_atom *got = elf_state(ctx)->synth[ELF_GOT];
    uint8_t with_slots = got ? d->group_of[got->section] : 0;
    uint32_t at = 0;
    for (uint32_t g = 0; g < d->ngroups; g++)
        d->order[g] = (uint8_t)g;
    qsort_r(d->order, d->ngroups, 1, compare_groups, d);
    for (uint32_t i = 0; i < d->ngroups; i++) {
        if (d->order[i] == with_slots) {
            d->first_slot[ELF_RELA_RELATIVE] = at;
            at += d->nslots[ELF_RELA_RELATIVE];
        }
        for (uint32_t f = 0; f < ctx->nfiles; f++) {
            uint32_t *first = &d->relative[(size_t)f * d->ngroups + d->order[i]], n = *first;
            *first = at;
            at += n;
        }
        d->group_end[d->order[i]] = at;
    }
}

static void fill_file(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t f)
{
    (void)w;
    const struct elf_dynrels *d = arg;
    const struct elf_object *obj = elf_object(ctx->files[f]);
    elf_rela *out[ELF_RELA_PARTS];
    uint32_t *relative = &d->relative[f * d->ngroups];
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    for (int part = 0; part < ELF_RELA_PARTS; part++)
        out[part] = start_of(d, (enum elf_rela_part)part) + d->files[f].n[part];
    for (size_t i = 0; i < obj->dynrels.len; i++) {
        const struct elf_dynrel *r = &obj->dynrels.data[i];
        if (d->late && r->kind == ELF_DYNREL_RELATIVE)
            continue;
        uint32_t *next = &relative[d->group_of[obj->base.atoms[r->atom].section]];
        for (uint32_t k = 0; k < r->count; k++) {
            enum elf_rela_part part = elf_dynrel_part(ctx, obj, r, k);
            if (part >= ELF_RELA_PARTS)
                continue;
            struct elf_dynrel_entry e = make_entry(ctx, obj, r, k, part);
            put(part == ELF_RELA_RELATIVE ? &d->entries[(*next)++] : out[part]++, &e);
        }
    }
}

static void fill_slots(struct kld_session *ctx)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct elf_dynrels *d = elf->dynrels;
    elf_rela *out[ELF_RELA_PARTS];
    for (int part = 0; part < ELF_RELA_PARTS; part++)
        out[part] = start_of(d, (enum elf_rela_part)part) + d->first_slot[part];
    collect_slots(ctx);
    for (size_t i = 0; i < d->slots.len; i++) {
        enum elf_rela_part part = elf_dynrel_type_part(elf->arch, d->slots.data[i].type);
        if (part != ELF_RELA_RELATIVE || !d->late)
            put(out[part]++, &d->slots.data[i]);
    }
}

/* ---- writing ---- */

static void write_rela_dyn(struct kld_session *ctx, struct kld_worker *w,
                           const struct kld_atom *atom, uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_dynrels *d = elf_state(ctx)->dynrels;
    if (d->n)
        memcpy(out, d->entries, d->n * sizeof(*d->entries));
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

struct kld_atom *elf_rela_dyn_add(struct kld_session *ctx, size_t n)
{
    const struct kld_atom *first = elf_state(ctx)->synth[ELF_RELA_DYN];
    if (!first)
        return elf_make(ctx, ELF_RELA_DYN, ".rela.dyn", SHT_RELA, SHF_ALLOC, 24, 3, 24 * n);
    return kld_atom_new(ctx, ctx->sections.data[first->section], first->flags, 3, 24 * n);
}

void elf_dynrel_synth(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_dynrels *d = elf->dynrels = KLD_NEW(&ctx->arena, struct elf_dynrels);
    count(ctx);
    size_t nplt = elf->plt.len + elf->iplt.len;
    size_t in_plt = elf->is_dynamic ? nplt : nplt + d->n;
    if (in_plt) {
        struct kld_atom *a = elf_make(ctx, ELF_RELA_PLT, ".rela.plt", SHT_RELA,
                                      SHF_ALLOC | SHF_INFO_LINK, 24, 3, 24 * in_plt);
        a->kind = KLD_ATOM_GENERATED;
        a->generate = write_rela_plt;
    }
    d->late = elf->is_dynamic && !ctx->slack && !ctx->options.incremental_verify;
    d->capacity = d->n;
    if (d->late)
        d->capacity -= d->total.n[ELF_RELA_RELATIVE];
    if (elf->is_dynamic && ctx->slack)
        d->capacity += SPARE + kld_slack_spare(ctx, KLD_SLACK_DATA, d->n);
    if (d->capacity)
        d->entries = KLD_NEW_ARRAY(&ctx->arena, elf_rela, d->capacity);
    if (d->late)
        elf_relative_synth(ctx, d);
    if (elf->is_dynamic && d->capacity)
        elf_rela_dyn_add(ctx, d->capacity)->data = (const uint8_t *)d->entries;
    if (elf->is_dynamic && d->total.n[ELF_RELA_RELR])
        elf_relr_synth(ctx);
}

uint64_t elf_rela_dyn_size(const struct kld_session *ctx)
{
    const struct elf_dynrels *d = elf_state(ctx)->dynrels;
    if (!d || !d->late) /* one atom, whose size an incremental link's state says */
        return elf_state(ctx)->synth[ELF_RELA_DYN]->size;
    return sizeof(elf_rela) * d->n;
}

uint32_t elf_relative_count(const struct kld_session *ctx)
{
    return ctx->slack ? 0 : elf_state(ctx)->dynrels->total.n[ELF_RELA_RELATIVE];
}

void elf_dynrel_finish(struct kld_session *ctx)
{
    const struct elf_link *elf = elf_state(ctx);
    struct elf_dynrels *d = elf->dynrels;
    if (!d->n)
        return;
    place_groups(ctx, d);
    fill_slots(ctx);
    kld_parallel_for(ctx, ctx->nfiles, 16, fill_file, d);
    for (int part = d->late ? ELF_RELA_RELATIVE + 1 : ELF_RELA_RELATIVE; part < ELF_RELA_PARTS;
         part++)
        elf_relas_sort(ctx, start_of(d, (enum elf_rela_part)part), d->total.n[part],
                       part == ELF_RELA_SYMBOLIC);
    const struct elf_dynrel_entry none = {.type = elf->arch->r_none};
    for (size_t i = d->n; i < d->capacity; i++)
        put(&d->entries[i], &none);
}
