/* elf_patch_tables.c - .rela.dyn and .eh_frame_hdr of an output that is being patched.
 *
 * Both have an entry for each of many addresses. The entries of what was in a changed file go, those of
 * what is there now come; the rest, which grows with the program, is looked at as little as can be. */
#include <stdlib.h>
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_update.h"

struct range {
    uint64_t start, end;
};

/* Where things were that are gone. */
struct gone {
    KLD_VEC(struct range) ranges; /* sorted before the first look */
    /* Tables are about in order, most of their entries between two ranges: the last such gap. */
    struct range gap;
};

static int compare_ranges(const void *a, const void *b)
{
    uint64_t x = ((const struct range *)a)->start, y = ((const struct range *)b)->start;
    return x < y ? -1 : x > y;
}

static void add_gone(struct elf_relink *e, struct gone *g, uint64_t start, uint64_t size)
{
    *kld_vec_push(&e->ctx->arena, &g->ranges) = (struct range){start, start + size};
}

static void sort_gone(struct gone *g)
{
    if (g->ranges.len)
        qsort(g->ranges.data, g->ranges.len, sizeof(struct range), compare_ranges);
}

static bool find_gone(struct gone *g, uint64_t place)
{
    const struct range *ranges = g->ranges.data;
    size_t lo = 0, hi = g->ranges.len;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (ranges[mid].start <= place)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo && place < ranges[lo - 1].end)
        return true;
    g->gap.start = lo ? ranges[lo - 1].end : 0;
    g->gap.end = lo < g->ranges.len ? ranges[lo].start : UINT64_MAX;
    return false;
}

static inline bool is_gone(struct gone *g, uint64_t place)
{
    return place - g->gap.start >= g->gap.end - g->gap.start && find_gone(g, place);
}

typedef KLD_VEC(uint64_t) entry_list;

/* ---- dynamic relocations ---- */

struct dynrels {
    struct gone gone;        /* entries for places in these go */
    elf_dynrel_list new;     /* and these come, */
    elf_dynrel_list changed; /* or take the place of the one that is for the same place */
};

static int compare_places(const void *a, const void *b)
{
    uint64_t x = ((const struct elf_dynrel_entry *)a)->place,
             y = ((const struct elf_dynrel_entry *)b)->place;
    return x < y ? -1 : x > y;
}

static void collect_of_changed(struct elf_relink *e, const struct kld_relink_file *rf,
                               struct dynrels *d)
{
    elf_dynrel_of_file(e->ctx, elf_object(rf->file), &d->new);
    for (uint32_t i = 0; i < rf->old.head.natoms; i++) {
        const struct kld_state_atom *a = &rf->old.atoms[i];
        /* (.tbss has addresses that the sections behind it have as well) */
        if (a->live && (a->flags & KLD_ATOM_ALLOC) && !(a->flags & KLD_ATOM_ZERO) && a->size)
            add_gone(e, &d->gone, a->addr, a->size);
    }
}

static void collect_of_referrer(struct elf_relink *e, const struct kld_relink_file *rf,
                                struct dynrels *d)
{
    struct elf_object *obj = elf_object(rf->file);
    elf_dynrel_runs all = obj->dynrels;
    obj->dynrels = (elf_dynrel_runs){0};
    for (size_t i = 0; i < all.len; i++) {
        const struct elf_dynrel *r = &all.data[i];
        const elf_rela *rels = obj->base.atoms[r->atom].edges;
        for (uint32_t edge = r->edge; edge < r->edge + r->count; edge++)
            if (elf_leads_to_shifted(e, obj, &rels[edge]))
                elf_dynrel_add(&e->ctx->arena, &obj->dynrels, r->atom, edge, r->kind);
    }
    elf_dynrel_of_file(e->ctx, obj, &d->changed);
}

static void collect_dynrels(struct elf_relink *e, struct dynrels *d)
{
    for (size_t f = 0; f < e->r->files.len; f++) {
        const struct kld_relink_file *rf = &e->r->files.data[f];
        if (rf->changed)
            collect_of_changed(e, rf, d);
        else
            collect_of_referrer(e, rf, d);
    }
    for (size_t i = e->first_got; i < e->elf->got.len; i++)
        elf_dynrel_of_got(e->ctx, &e->elf->got.data[i], &d->new);
    for (size_t i = 0; i < e->seen.len; i++) {
        struct kld_symbol *sym = &e->ctx->symbols[e->seen.data[i]];
        uint32_t got = sym->aux ? elf_aux(e->ctx, sym)->got : ELF_NONE;
        struct elf_got_entry g = {sym, got, ELF_GOT_ADDRESS};
        if (got != ELF_NONE && elf_patch_got(e, &g))
            elf_dynrel_of_got(e->ctx, &g, &d->changed);
    }
    sort_gone(&d->gone);
    if (d->changed.len)
        qsort(d->changed.data, d->changed.len, sizeof(*d->changed.data), compare_places);
}

static bool put_entry(struct elf_relink *e, uint64_t i, const struct elf_dynrel_entry *entry)
{
    uint8_t *out = KLD_NEW_ARRAY(&e->ctx->arena, uint8_t, 24);
    elf_put_rela(out, entry);
    return elf_patch_synth(e, ELF_RELA_DYN, 24 * i, out, 24);
}

/* Entries that become free, or are so, get the new ones. IRELATIVE ones go to the end: their
 * resolvers may use what the others set up. */
static bool fill_entries(struct elf_relink *e, const struct dynrels *d, const entry_list *freed,
                         const entry_list *spare)
{
    const struct elf_dynrel_entry none = {.type = e->elf->arch->r_none};
    size_t first = 0, last = freed->len + spare->len;
    if (d->new.len > last)
        return kld_relink_refuse(e->r, KLD_WHY_SLOTS, "no spare dynamic relocations");
    for (size_t i = 0; i < d->new.len; i++) {
        bool late = d->new.data[i].type == e->elf->arch->r_irelative;
        size_t k = late ? --last : first++;
        uint64_t to = k < freed->len ? freed->data[k] : spare->data[k - freed->len];
        if (!put_entry(e, to, &d->new.data[i]))
            return false;
    }
    for (size_t i = first; i < last && i < freed->len; i++)
        if (!put_entry(e, freed->data[i], &none))
            return false;
    return true;
}

bool elf_patch_dynrels(struct elf_relink *e)
{
    struct dynrels d = {0};
    collect_dynrels(e, &d);
    const struct kld_atom *atom = e->elf->synth[ELF_RELA_DYN];
    if (!atom || !e->elf->is_dynamic)
        return (!d.new.len && !d.changed.len) ||
               kld_relink_refuse(e->r, KLD_WHY_SLOTS, "no dynamic relocations");
    const uint8_t *old = elf_synth_bytes(e, ELF_RELA_DYN);
    entry_list freed = {0}, spare = {0};
    for (uint64_t i = 0; old && i < atom->size / 24; i++) {
        struct elf_dynrel_entry key = {.place = kld_get64(old + 24 * i)};
        if (ELF64_R_TYPE(kld_get64(old + 24 * i + 8)) == e->elf->arch->r_none) {
            *kld_vec_push(&e->ctx->arena, &spare) = i;
        } else if (is_gone(&d.gone, key.place)) {
            *kld_vec_push(&e->ctx->arena, &freed) = i;
        } else if (d.changed.len) {
            const struct elf_dynrel_entry *to =
                bsearch(&key, d.changed.data, d.changed.len, sizeof(key), compare_places);
            if (to && !put_entry(e, i, to))
                return false;
        }
    }
    return old && fill_entries(e, &d, &freed, &spare);
}

/* ---- .eh_frame_hdr ---- */

enum { HEAD = 12, ROW = 8 };

/* The table in the output, in the order of the addresses of functions. */
struct table {
    const uint8_t *rows;
    uint64_t addr; /* of the section */
    uint32_t n, capacity;
};

struct rows {
    struct gone records; /* contributions that were */
    struct gone code;    /* and the code of the same files */
    size_t nrecords;     /* descriptions of functions that were in them */
    uint64_t *new;
    size_t nnew;
};

/* As elf_eh_rows makes them. */
static uint64_t get_row(const struct table *t, uint32_t i)
{
    return (uint64_t)(kld_get32(t->rows + ROW * i) ^ 0x80000000) << 32 |
           kld_get32(t->rows + ROW * i + 4);
}

static void put_row(uint8_t *to, uint64_t row)
{
    kld_put32(to, (uint32_t)(row >> 32) ^ 0x80000000);
    kld_put32(to + 4, (uint32_t)row);
}

/* Where the record is that the row is of. */
static uint64_t row_record(const struct table *t, uint64_t row)
{
    return t->addr + (uint64_t)(int64_t)(int32_t)row;
}

/* The first row that is not before that one. */
static uint32_t lower_bound(const struct table *t, uint64_t row)
{
    uint32_t lo = 0, hi = t->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (get_row(t, mid) < row)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static int compare_rows(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Frame descriptions in a contribution as it is in the output: all records but CIEs. */
static size_t count_records(struct elf_relink *e, const struct kld_state_atom *a)
{
    if (a->section >= e->ctx->sections.len) {
        e->r->st.damaged = true;
        return 0;
    }
    const struct kld_section *s = e->ctx->sections.data[a->section];
    const uint8_t *bytes = kld_relink_output(e->r, s->offset + (a->addr - s->addr), a->size);
    size_t n = 0;
    for (uint64_t at = 0; bytes && kld_in_bounds(at, 8, a->size); at += 4 + kld_get32(bytes + at))
        n += kld_get32(bytes + at + 4) != 0;
    return n;
}

static void collect_gone_rows(struct elf_relink *e, struct rows *rows)
{
    for (size_t f = 0; f < e->r->files.len; f++) {
        const struct kld_relink_file *rf = &e->r->files.data[f];
        for (uint32_t i = 0; rf->changed && i < rf->old.head.natoms; i++) {
            const struct kld_state_atom *a = &rf->old.atoms[i];
            if (a->live && a->kind == KLD_ATOM_RECORDS) {
                add_gone(e, &rows->records, a->addr, a->capacity);
                rows->nrecords += count_records(e, a);
            } else if (a->live && (a->flags & KLD_ATOM_EXEC)) {
                add_gone(e, &rows->code, a->addr, a->size ? a->size : 1);
            }
        }
    }
    sort_gone(&rows->records);
    sort_gone(&rows->code);
}

static void collect_new_rows(struct elf_relink *e, uint64_t hdr, struct rows *rows)
{
    size_t n = 0;
    for (size_t f = 0; f < e->r->files.len; f++) {
        const struct elf_object *obj = elf_object(e->r->files.data[f].file);
        if (e->r->files.data[f].changed && obj->eh)
            for (const struct elf_eh_section *s = obj->eh->sections; s; s = s->next)
                n += s->nrows;
    }
    rows->new = KLD_NEW_ARRAY(&e->ctx->arena, uint64_t, n + 1);
    for (size_t f = 0; f < e->r->files.len; f++) {
        const struct elf_object *obj = elf_object(e->r->files.data[f].file);
        if (!e->r->files.data[f].changed || !obj->eh)
            continue;
        for (const struct elf_eh_section *s = obj->eh->sections; s; s = s->next) {
            elf_eh_rows(e->ctx, obj, s, hdr, rows->new + rows->nnew);
            rows->nnew += s->nrows;
        }
    }
    if (n)
        qsort(rows->new, n, sizeof(uint64_t), compare_rows);
}

/* The rows that go, in order. They are about code of the files that they are of, so that they are found by its
 * addresses; all rows are looked at only where some record has none, or is about something else. */
static void find_gone_rows(struct elf_relink *e, const struct table *t, struct rows *rows,
                           entry_list *gone)
{
    struct kld_arena *arena = &e->ctx->arena;
    for (size_t k = 0; k < rows->code.ranges.len; k++) {
        const struct range *code = &rows->code.ranges.data[k];
        uint64_t end = ((code->end - t->addr) ^ 0x80000000) & UINT32_MAX;
        uint32_t i = lower_bound(t, ((code->start - t->addr) ^ 0x80000000) << 32);
        if (gone->len && i <= gone->data[gone->len - 1])
            i = (uint32_t)gone->data[gone->len - 1] + 1;
        for (; i < t->n && get_row(t, i) >> 32 < end; i++)
            if (is_gone(&rows->records, row_record(t, get_row(t, i))))
                *kld_vec_push(arena, gone) = i;
    }
    if (gone->len == rows->nrecords)
        return;
    gone->len = 0;
    for (uint32_t i = 0; i < t->n; i++)
        if (is_gone(&rows->records, row_record(t, get_row(t, i))))
            *kld_vec_push(arena, gone) = i;
}

/* The rows from `first` to `last` as they will be: without those that go, with the new ones. */
static uint8_t *merge_rows(struct elf_relink *e, const struct table *t, const struct rows *rows,
                           const entry_list *gone, uint32_t first, uint32_t last, uint64_t space)
{
    uint8_t *out = KLD_NEW_ARRAY(&e->ctx->arena, uint8_t, ROW * space + 1);
    uint8_t *to = out;
    size_t g = 0, next = 0;
    for (uint32_t i = first; i < last || next < rows->nnew;) {
        uint32_t turn = next < rows->nnew ? lower_bound(t, rows->new[next]) : last;
        uint32_t stop = g < gone->len ? KLD_MIN(turn, (uint32_t)gone->data[g]) : turn;
        memcpy(to, t->rows + (size_t)ROW * i, (size_t)ROW * (stop - i));
        to += (size_t)ROW * (stop - i);
        i = stop;
        if (next < rows->nnew && turn == i) {
            put_row(to, rows->new[next++]);
            to += ROW;
        } else if (g < gone->len && gone->data[g] == i) {
            g++;
            i++;
        }
    }
    return out;
}

static bool patch_rows(struct elf_relink *e, const struct table *t, const struct rows *rows,
                       const entry_list *gone)
{
    uint64_t n = t->n - gone->len + rows->nnew;
    if (n > t->capacity)
        return kld_relink_refuse(e->r, KLD_WHY_NO_ROOM, "no room in .eh_frame_hdr");
    uint32_t first = t->n, last = 0;
    if (gone->len) {
        first = (uint32_t)gone->data[0];
        last = (uint32_t)gone->data[gone->len - 1] + 1;
    }
    if (rows->nnew) {
        first = KLD_MIN(first, lower_bound(t, rows->new[0]));
        last = KLD_MAX(last, lower_bound(t, rows->new[rows->nnew - 1]));
    }
    if (gone->len != rows->nnew)
        last = t->n; /* all behind it change places */
    uint64_t space = KLD_MAX(n, t->n) - first - (t->n - KLD_MAX(last, first));
    uint8_t *count = KLD_NEW_ARRAY(&e->ctx->arena, uint8_t, 4);
    kld_put32(count, (uint32_t)n);
    return elf_patch_synth(e, ELF_EH_FRAME_HDR, 8, count, 4) &&
           elf_patch_synth(e, ELF_EH_FRAME_HDR, HEAD + (uint64_t)ROW * first,
                           merge_rows(e, t, rows, gone, first, last, space), ROW * space);
}

bool elf_patch_eh_hdr(struct elf_relink *e)
{
    const struct kld_atom *atom = e->elf->synth[ELF_EH_FRAME_HDR];
    if (!atom)
        return true;
    const uint8_t *old = elf_synth_bytes(e, ELF_EH_FRAME_HDR);
    bool sound = old && atom->size >= HEAD;
    uint32_t n = sound ? kld_get32(old + 8) : 0;
    if (!sound || n > (atom->size - HEAD) / ROW) {
        e->r->st.damaged = true;
        return false;
    }
    struct table t = {old + HEAD, atom->addr, n, (uint32_t)((atom->size - HEAD) / ROW)};
    struct rows rows = {0};
    entry_list gone = {0};
    collect_gone_rows(e, &rows);
    collect_new_rows(e, atom->addr, &rows);
    find_gone_rows(e, &t, &rows, &gone);
    return patch_rows(e, &t, &rows, &gone);
}
