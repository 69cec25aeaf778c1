/* elf_dynrel.c - dynamic relocations: .rela.dyn, .relr.dyn, .rela.plt.
 *
 * Scan notes which input relocations need one (elf_need_dynrel); slots bring their own. synth
 * decides and counts, when it is known what became of every symbol (a copy relocation turns a
 * symbolic relocation into a plain address); finish fills in. Order in .rela.dyn, as -z combreloc:
 * RELATIVE by address (DT_RELACOUNT of them), then by symbol, and IRELATIVE last, since resolvers may
 * use what the others set up.
 *
 * A large program has half a million of them, RELATIVE ones. They are made when they are written, part by part
 * of the table. For a file's are in the order of its sections, and its sections follow those of earlier files in
 * the output's; counts by file and output section say which ones a part has. Where that is not the order of
 * addresses (.init_array, by priority), a part is sorted. The others, and all of an incremental link, which keeps
 * room between them, are in a table. (With lists that grow, a list for synth and one for finish, and qsort, clang
 * took 80 MB and 90 ms more; with a table for all of them, 15 MB and 1% of the time.) */
#include "formats/elf/elf_symbols.h"
#include "formats/elf/elf_tables.h"
#include "src/incremental/slack.h"
#include "src/layout.h"
#include <stdlib.h>

enum { SPARE = 16 }; /* entries of .rela.dyn, at least, with slack */

/* Parts of .rela.dyn, in its order; and what is in .relr.dyn */
enum part { RELATIVE, SYMBOLIC, IRELATIVE, PARTS, RELR = PARTS, NOTHING };

struct counts {
    uint32_t n[PARTS + 1];
};

/* Output sections whose RELATIVE entries are counted; 0 stands for all others. */
enum { MOST_GROUPS = 32 };

enum { ENTRIES_A_PART = 16 << 10 };

/* RELATIVE entries that are made when they are written: what one atom has. */
struct relatives {
    uint32_t first, end;
};

struct elf_dynrels {
    struct counts *files; /* by file: how many it has; once all are counted, which ones are its */
    struct counts total;
    uint8_t *group_of; /* by output section */
    const struct kld_section *groups[MOST_GROUPS];
    uint32_t ngroups;
    uint8_t order[MOST_GROUPS];                /* of groups, by address */
    uint32_t *relative;                        /* by file and group, as `files` */
    uint32_t group_end[MOST_GROUPS];           /* where the group's end */
    bool late;                                 /* RELATIVE ones are made when they are written */
    uint32_t nslots[PARTS], first_slot[PARTS]; /* those of slots */
    elf_dynrel_list
        slots; /* those of slots: counted by synth, again with their addresses by finish */
    uint64_t *relr_places;
    elf_rela *entries;  /* .rela.dyn, or what follows the RELATIVE ones */
    size_t n, capacity; /* with slack there are more than n, which are free */
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

static bool fits_relr(const struct kld_session *ctx, const struct kld_atom *atom, uint64_t offset)
{
    return elf_packs_relative(ctx) && atom->p2align >= 1 && offset % 2 == 0;
}

/* Of number `k` of a run */
static enum part part_of(const struct kld_session *ctx, const struct elf_object *obj,
                         const struct elf_dynrel *d, uint32_t k)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct kld_atom *atom = &obj->base.atoms[d->atom];
    const elf_rela *rel = (const elf_rela *)atom->edges + d->edge + k;
    enum part relative = !elf->is_pic                          ? NOTHING
                         : fits_relr(ctx, atom, rel->r_offset) ? RELR
                                                               : RELATIVE;
    if (d->kind == ELF_DYNREL_RELATIVE)
        return relative; /* most of them: the symbol need not be looked at */
    const struct kld_symbol *sym =
        elf_resolve(ctx, obj, ELF64_R_SYM(rel->r_info), rel->r_addend).sym;
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
                                          uint32_t k, enum part part)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct elf_arch_ops *arch = elf->arch;
    const struct kld_atom *atom = &obj->base.atoms[d->atom];
    const elf_rela *rel = (const elf_rela *)atom->edges + d->edge + k;
    uint32_t r_sym = ELF64_R_SYM(rel->r_info);
    struct elf_dynrel_entry e = {.place = elf_atom_address(atom, rel->r_offset),
                                 .addend = rel->r_addend};
    if (part == RELATIVE || part == RELR) { /* most of them */
        e.type = arch->r_relative;
        e.addend += (int64_t)elf_value(ctx, obj, r_sym, rel->r_addend);
        return e;
    }
    const struct elf_target t = elf_resolve(ctx, obj, r_sym, rel->r_addend);
    if (part == IRELATIVE) {
        e.type = arch->r_irelative;
        e.addend += (int64_t)(t.sym ? resolver_address(t.sym) : t.value);
        return e;
    }
    e.dynsym = dynsym_of(ctx, t.sym);
    switch ((enum elf_dynrel_kind)d->kind) {
    case ELF_DYNREL_TPOFF:
        e.type = arch->r_tpoff;
        if (!e.dynsym)
            e.addend += (int64_t)(t.value - elf->tls_start);
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
            enum part part = part_of(ctx, obj, d, k);
            if (part < PARTS)
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
    struct counts *counts = &all->files[f];
    uint32_t *relative = &all->relative[f * all->ngroups];
    struct elf_object *obj = elf_object(ctx->files[f]);
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    size_t n = 0;
    bool packs = elf_packs_relative(ctx); /* else those of a run become the same */
    for (size_t i = 0; i < obj->dynrels.len; i++) {
        struct elf_dynrel d = obj->dynrels.data[i];
        uint32_t same = packs ? 1 : d.count;
        enum part part = NOTHING;
        for (uint32_t k = 0; k < d.count; k += same) {
            part = part_of(ctx, obj, &d, k);
            if (part == NOTHING)
                break;
            if (part == RELATIVE)
                relative[all->group_of[obj->base.atoms[d.atom].section]] += same;
            counts->n[part] += same;
        }
        if (part == NOTHING) /* all of the run */
            continue;
        if (part == RELATIVE || part == RELR)
            d.kind = ELF_DYNREL_RELATIVE;
        obj->dynrels.data[n++] = d;
    }
    obj->dynrels.len = n;
}

static enum part part_of_type(const struct elf_arch_ops *arch, uint32_t type)
{
    return type == arch->r_relative ? RELATIVE : type == arch->r_irelative ? IRELATIVE : SYMBOLIC;
}

static void collect_slots(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    elf->dynrels->slots.len = 0;
    for (size_t i = 0; i < elf->got.len; i++)
        if (!got_is_relr(ctx, &elf->got.data[i]))
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
    for (size_t i = 0; i < ctx->sections.len && d->ngroups < MOST_GROUPS; i++) {
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
    d->files = KLD_NEW_ARRAY(&ctx->arena, struct counts, ctx->nfiles);
    make_groups(ctx, d);
    kld_parallel_for(ctx, ctx->nfiles, 16, decide_file, d);
    collect_slots(ctx);
    for (size_t i = 0; i < d->slots.len; i++)
        d->nslots[part_of_type(elf->arch, d->slots.data[i].type)]++;
    for (int part = 0; part < PARTS; part++)
        d->total.n[part] = d->nslots[part];
    for (size_t i = 0; i < elf->got.len; i++)
        d->total.n[RELR] += got_is_relr(ctx, &elf->got.data[i]);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        for (int part = 0; part <= PARTS; part++) {
            uint32_t n = d->files[f].n[part];
            d->files[f].n[part] = d->total.n[part];
            d->total.n[part] += n;
        }
    for (int part = 0; part < PARTS; part++)
        d->n += d->total.n[part];
}

/* ---- filling in ---- */

static elf_rela *start_of(const struct elf_dynrels *d, enum part part)
{
    elf_rela *at = d->entries;
    for (int i = d->late ? RELATIVE + 1 : RELATIVE; i < (int)part; i++)
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
            d->first_slot[RELATIVE] = at;
            at += d->nslots[RELATIVE];
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
    elf_rela *out[PARTS];
    uint32_t *relative = &d->relative[f * d->ngroups];
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    for (int part = 0; part < PARTS; part++)
        out[part] = start_of(d, (enum part)part) + d->files[f].n[part];
    for (size_t i = 0; i < obj->dynrels.len; i++) {
        const struct elf_dynrel *r = &obj->dynrels.data[i];
        if (d->late && r->kind == ELF_DYNREL_RELATIVE)
            continue;
        uint32_t *next = &relative[d->group_of[obj->base.atoms[r->atom].section]];
        for (uint32_t k = 0; k < r->count; k++) {
            enum part part = part_of(ctx, obj, r, k);
            if (part >= PARTS)
                continue;
            struct elf_dynrel_entry e = make_entry(ctx, obj, r, k, part);
            put(part == RELATIVE ? &d->entries[(*next)++] : out[part]++, &e);
        }
    }
}

static void fill_slots(struct kld_session *ctx)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct elf_dynrels *d = elf->dynrels;
    elf_rela *out[PARTS];
    for (int part = 0; part < PARTS; part++)
        out[part] = start_of(d, (enum part)part) + d->first_slot[part];
    collect_slots(ctx);
    for (size_t i = 0; i < d->slots.len; i++) {
        enum part part = part_of_type(elf->arch, d->slots.data[i].type);
        if (part != RELATIVE || !d->late)
            put(out[part]++, &d->slots.data[i]);
    }
}

/* ---- RELATIVE entries, when they are written ---- */

/* What is of one atom: numbers from first to end, which go to out. */
struct relative_writer {
    const struct kld_session *ctx;
    uint32_t first, end;
    elf_rela *out;
};

static void put_relative(const struct relative_writer *w, uint32_t number,
                         const struct elf_dynrel_entry *e)
{
    if (number >= w->first && number < w->end)
        put(&w->out[number - w->first], e);
}

/* Those of slots; the first of them has that number. */
static void put_slots(const struct relative_writer *w, uint32_t number)
{
    const struct elf_link *elf = elf_state(w->ctx);
    for (size_t i = 0; i < elf->dynrels->slots.len; i++)
        if (part_of_type(elf->arch, elf->dynrels->slots.data[i].type) == RELATIVE)
            put_relative(w, number++, &elf->dynrels->slots.data[i]);
}

/* Those of a file in one group */
static void put_file(const struct relative_writer *w, uint32_t f, uint32_t group)
{
    const struct elf_dynrels *d = elf_state(w->ctx)->dynrels;
    const struct elf_object *obj = elf_object(w->ctx->files[f]);
    uint32_t number = d->relative[(size_t)f * d->ngroups + group];
    bool packs = elf_packs_relative(w->ctx);
    for (size_t i = 0; i < obj->dynrels.len && number < w->end; i++) {
        const struct elf_dynrel *r = &obj->dynrels.data[i];
        if (r->kind != ELF_DYNREL_RELATIVE ||
            d->group_of[obj->base.atoms[r->atom].section] != group)
            continue;
        if (!packs && number + r->count <= w->first) {
            number += r->count;
            continue;
        }
        for (uint32_t k = 0; k < r->count; k++) {
            if (packs && part_of(w->ctx, obj, r, k) != RELATIVE)
                continue;
            struct elf_dynrel_entry e = make_entry(w->ctx, obj, r, k, RELATIVE);
            put_relative(w, number++, &e);
        }
    }
}

/* The last file whose entries of the group begin at or before that number; those behind it may be empty. */
static uint32_t file_with(const struct kld_session *ctx, const struct elf_dynrels *d,
                          uint32_t group, uint32_t number)
{
    uint32_t lo = 0, hi = ctx->nfiles - 1;
    while (lo < hi) {
        uint32_t middle = hi - (hi - lo) / 2;
        if (d->relative[(size_t)middle * d->ngroups + group] <= number)
            lo = middle;
        else
            hi = middle - 1;
    }
    return lo;
}

static int compare_relas(const void *a, const void *b)
{
    uint64_t x = ((const elf_rela *)a)->r_offset, y = ((const elf_rela *)b)->r_offset;
    return x < y ? -1 : x > y;
}

static void write_relatives(struct kld_session *ctx, struct kld_worker *worker,
                            const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    const struct relatives *part = atom->extra;
    const struct elf_dynrels *d = elf_state(ctx)->dynrels;
    const struct relative_writer w = {ctx, part->first, part->end, (elf_rela *)out};
    uint32_t begin = 0, nslots = d->nslots[RELATIVE];
    for (uint32_t i = 0; i < d->ngroups && begin < w.end; i++) {
        uint32_t group = d->order[i], end = d->group_end[group];
        if (end > w.first && end > begin) {
            if (nslots && d->first_slot[RELATIVE] == begin)
                put_slots(&w, begin);
            for (uint32_t f = file_with(ctx, d, group, KLD_MAX(w.first, begin)); f < ctx->nfiles;
                 f++) {
                if (d->relative[(size_t)f * d->ngroups + group] >= w.end)
                    break;
                if (ctx->files[f]->kind == KLD_FILE_OBJECT)
                    put_file(&w, f, group);
            }
        }
        begin = end;
    }
    bool sorted = true;
    for (uint32_t i = 1; i < w.end - w.first; i++)
        sorted &= w.out[i - 1].r_offset <= w.out[i].r_offset;
    if (!sorted)
        qsort(out, w.end - w.first, sizeof(elf_rela), compare_relas);
}

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };

static uint64_t place_key(const elf_rela *rel)
{
    return rel->r_offset;
}

static uint64_t symbol_key(const elf_rela *rel)
{
    return ELF64_R_SYM(rel->r_info);
}

enum { BLOCK = 16 << 10 };

struct check {
    const elf_rela *rels;
    size_t n;
    _Atomic bool unsorted;
};

static void check_block(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t block)
{
    (void)ctx, (void)w;
    struct check *c = arg;
    bool sorted = true;
    size_t end = KLD_MIN(c->n, (block + 1) * BLOCK);
    for (size_t i = KLD_MAX(block * BLOCK, 1); i < end; i++)
        sorted &= c->rels[i - 1].r_offset <= c->rels[i].r_offset;
    if (!sorted)
        atomic_store(&c->unsorted, true);
}

static bool are_by_place(struct kld_session *ctx, const elf_rela *rels, size_t n)
{
    struct check c = {.rels = rels, .n = n};
    kld_parallel_for(ctx, (n + BLOCK - 1) / BLOCK, 1, check_block, &c);
    return !c.unsorted;
}

/* A stable radix sort; other: n more. */
static inline void sort_by(elf_rela *rels, elf_rela *other, size_t n,
                           uint64_t (*key)(const elf_rela *))
{
    uint64_t all = 0; /* bits that some key has */
    elf_rela *from = rels, *to = other;
    for (size_t i = 0; i < n; i++)
        all |= key(&rels[i]);
    for (unsigned shift = 0; shift < 64 && all >> shift; shift += DIGIT_BITS) {
        uint32_t counts[DIGITS] = {0}, sum = 0;
        for (size_t i = 0; i < n; i++)
            counts[key(&from[i]) >> shift & (DIGITS - 1)]++;
        for (uint32_t i = 0; i < DIGITS; i++) {
            uint32_t here = counts[i];
            counts[i] = sum;
            sum += here;
        }
        for (size_t i = 0; i < n; i++)
            to[counts[key(&from[i]) >> shift & (DIGITS - 1)]++] = from[i];
        elf_rela *last = from;
        from = to;
        to = last;
    }
    if (from != rels)
        memcpy(rels, from, n * sizeof(*rels));
}

static void sort_part(struct kld_session *ctx, enum part part)
{
    const struct elf_dynrels *d = elf_state(ctx)->dynrels;
    elf_rela *rels = start_of(d, part);
    size_t n = d->total.n[part];
    bool by_place = are_by_place(ctx, rels, n);
    if (!n || (by_place && part != SYMBOLIC))
        return;
    /* The write pass uses it again. */
    elf_rela *other = (elf_rela *)kld_worker_buffer(kld_pool_worker(ctx, 0), n * sizeof(*other));
    if (!by_place)
        sort_by(rels, other, n, place_key);
    if (part == SYMBOLIC)
        sort_by(rels, other, n, symbol_key);
}

/* ---- RELR (gABI draft "Relative relocations": an address, then bitmaps of 63 words) ---- */

static int compare_places(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void fill_relr_of_file(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t f)
{
    (void)w;
    const struct elf_dynrels *d = arg;
    const struct elf_object *obj = elf_object(ctx->files[f]);
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    uint64_t *out = d->relr_places + d->files[f].n[RELR];
    for (size_t i = 0; i < obj->dynrels.len; i++) {
        const struct elf_dynrel *r = &obj->dynrels.data[i];
        const struct kld_atom *atom = &obj->base.atoms[r->atom];
        const elf_rela *rels = (const elf_rela *)atom->edges + r->edge;
        for (uint32_t k = 0; r->kind == ELF_DYNREL_RELATIVE && k < r->count; k++)
            if (fits_relr(ctx, atom, rels[k].r_offset))
                *out++ = elf_atom_address(atom, rels[k].r_offset);
    }
}

static void fill_relr(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_dynrels *d = elf->dynrels;
    uint32_t n = 0;
    if (!d->relr_places)
        d->relr_places = KLD_NEW_ARRAY(&ctx->arena, uint64_t, d->total.n[RELR]);
    for (size_t i = 0; i < elf->got.len; i++)
        if (got_is_relr(ctx, &elf->got.data[i]))
            d->relr_places[n++] = elf_got_address(ctx, elf->got.data[i].slot);
    kld_parallel_for(ctx, ctx->nfiles, 64, fill_relr_of_file, d);
    if (d->total.n[RELR])
        qsort(d->relr_places, d->total.n[RELR], 8, compare_places);
}

/* Encodes into out (NULL: only counts); returns the number of words. */
static size_t encode_relr(const struct elf_dynrels *d, uint8_t *out)
{
    size_t n = 0;
    for (uint32_t i = 0; i < d->total.n[RELR];) {
        uint64_t base = d->relr_places[i];
        if (out)
            kld_put64(out + 8 * n, base);
        n++;
        i++;
        base += 8;
        for (;;) {
            uint64_t bits = 0;
            for (; i < d->total.n[RELR] && d->relr_places[i] - base < 63 * 8 &&
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
    fill_relr(ctx);
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

/* One more atom of .rela.dyn, of n entries */
static struct kld_atom *make_part(struct kld_session *ctx, size_t n)
{
    const struct kld_atom *first = elf_state(ctx)->synth[ELF_RELA_DYN];
    if (!first)
        return elf_make(ctx, ELF_RELA_DYN, ".rela.dyn", SHT_RELA, SHF_ALLOC, 24, 3, 24 * n);
    return kld_atom_new(ctx, ctx->sections.data[first->section], first->flags, 3, 24 * n);
}

static void make_relatives(struct kld_session *ctx, const struct elf_dynrels *d)
{
    for (uint32_t at = 0, n; at < d->total.n[RELATIVE]; at += n) {
        n = KLD_MIN(d->total.n[RELATIVE] - at, (uint32_t)ENTRIES_A_PART);
        struct relatives *part = KLD_NEW(&ctx->arena, struct relatives);
        *part = (struct relatives){at, at + n};
        struct kld_atom *atom = make_part(ctx, n);
        atom->kind = KLD_ATOM_GENERATED;
        atom->generate = write_relatives;
        atom->extra = part;
    }
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
        d->capacity -= d->total.n[RELATIVE];
    if (elf->is_dynamic && ctx->slack)
        d->capacity += SPARE + kld_slack_spare(ctx, KLD_SLACK_DATA, d->n);
    if (d->capacity)
        d->entries = KLD_NEW_ARRAY(&ctx->arena, elf_rela, d->capacity);
    if (d->late)
        make_relatives(ctx, d);
    if (elf->is_dynamic && d->capacity)
        make_part(ctx, d->capacity)->data = (const uint8_t *)d->entries;
    if (elf->is_dynamic && d->total.n[RELR]) {
        struct kld_atom *a = elf_make(ctx, ELF_RELR_DYN, ".relr.dyn", SHT_RELR, SHF_ALLOC, 8, 3, 0);
        a->kind = KLD_ATOM_GENERATED;
        a->generate = write_relr;
    }
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
    return ctx->slack ? 0 : elf_state(ctx)->dynrels->total.n[RELATIVE];
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
    for (int part = d->late ? RELATIVE + 1 : RELATIVE; part < PARTS; part++)
        sort_part(ctx, (enum part)part);
    const struct elf_dynrel_entry none = {.type = elf->arch->r_none};
    for (size_t i = d->n; i < d->capacity; i++)
        put(&d->entries[i], &none);
}
