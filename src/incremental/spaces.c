/* spaces.c - who has which bytes of an output, for --incremental-verify: nobody shares any, and those
 * that nobody has are filled. */
#include <stdlib.h>
#include "src/incremental/slack.h"
#include "src/incremental/verify.h"

struct space {
    uint32_t section; /* in the state */
    bool gap;         /* filled as a gap of its own */
    uint64_t addr, size;
    const struct kld_atom *atom; /* of an input, for messages */
    const char *what;
};

struct spaces {
    struct kld_verify *v;
    KLD_VEC(struct space) list;
    bool *has_atoms; /* by section of the state: it holds something of the inputs */
};

enum { ISLAND = 16 };

static void add(struct spaces *all, uint32_t section, uint64_t addr, uint64_t size, bool gap,
                const struct kld_atom *atom, const char *what)
{
    if (!size)
        return;
    *kld_vec_push(&all->v->ctx->arena, &all->list) =
        (struct space){section, gap, addr, size, atom, what};
}

/* ---- who there is ---- */

static void add_atom(struct spaces *all, const struct kld_atom *a, const struct kld_state_atom *s)
{
    if (!a->live || a->kind == KLD_ATOM_PIECES)
        return;
    all->has_atoms[s->section] = true;
    add(all, s->section, s->addr, a->size, false, a, "section");
    if (s->capacity > a->size)
        add(all, s->section, s->addr + a->size, s->capacity - a->size, true, a, "room behind");
    if (s->capacity < a->size && s->capacity < UINT32_MAX)
        kld_verify_error(all->v, &(struct kld_where){.file = a->file},
                         "more than has room at 0x%llx", (unsigned long long)s->addr);
    if (s->entry)
        add(all, s->section, kld_verify_entry(all->v, s), ISLAND, false, a, "the jump to");
}

static void add_files(struct spaces *all)
{
    struct kld_verify *v = all->v;
    for (uint32_t f = 0; f < v->ctx->nfiles; f++)
        for (uint32_t i = 0; i < v->ctx->files[f]->natoms; i++)
            add_atom(all, &v->ctx->files[f]->atoms[i], &v->records[f].atoms[i]);
}

static void add_merged(struct spaces *all)
{
    struct kld_verify *v = all->v;
    uint64_t n = kld_state_count(&v->st, KLD_T_MERGED), k = kld_state_count(&v->st, KLD_T_AREAS);
    const struct kld_state_merged *m = kld_state_get(&v->st, KLD_T_MERGED, 0, n);
    const struct kld_state_area *a = kld_state_get(&v->st, KLD_T_AREAS, 0, k);
    for (uint64_t i = 0; i < n; i++)
        if (m[i].size && m[i].section < v->nsections) {
            add(all, m[i].section, m[i].addr, m[i].size, false, NULL, "merged contents");
            all->has_atoms[m[i].section] = true;
        }
    for (uint64_t i = 0; i < k; i++)
        if (a[i].users)
            add(all, a[i].section, a[i].addr, a[i].size, false, NULL, "merged contents");
}

static void add_slots(struct spaces *all)
{
    struct kld_verify *v = all->v;
    uint64_t n = kld_state_count(&v->st, KLD_T_SLOTS);
    const struct kld_state_slot *s = kld_state_get(&v->st, KLD_T_SLOTS, 0, n);
    for (uint64_t i = 0; i < n; i++)
        if (s[i].section != KLD_STATE_NONE)
            add(all, s[i].section, s[i].addr, s[i].size, true, NULL, "free space");
}

/* The linker's own: addresses of those that are in one piece are known by now. */
static void add_made(struct spaces *all)
{
    struct kld_verify *v = all->v;
    for (size_t i = 0; i < v->ctx->made.len; i++) {
        const struct kld_atom *a = v->ctx->made.data[i];
        uint32_t section =
            a->section < v->ctx->sections.len ? v->section_ids[a->section] : KLD_STATE_NONE;
        if (a->live && a->addr && section != KLD_STATE_NONE)
            add(all, section, a->addr, a->size, false, NULL, "what the linker makes");
    }
}

/* ---- what is wrong ---- */

static int compare(const void *a, const void *b)
{
    const struct space *x = a, *y = b;
    if (x->section != y->section)
        return x->section < y->section ? -1 : 1;
    if (x->addr != y->addr)
        return x->addr < y->addr ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

static struct kld_where where_of(const struct spaces *all, const struct space *s)
{
    struct kld_where where = {0};
    if (!s->atom)
        return where;
    struct kld_str name = all->v->ctx->format->atom_name(s->atom);
    where.file = s->atom->file;
    where.section = kld_arena_strndup(&all->v->ctx->arena, name.ptr, name.len);
    return where;
}

static void report_overlap(const struct spaces *all, const struct space *a, const struct space *b)
{
    const struct kld_section *s = all->v->sections[a->section];
    struct kld_where where = where_of(all, a->atom ? a : b);
    kld_verify_error(all->v, &where,
                     "%s at 0x%llx (0x%llx bytes) and %s at 0x%llx (0x%llx bytes) overlap in %s",
                     a->what, (unsigned long long)a->addr, (unsigned long long)a->size, b->what,
                     (unsigned long long)b->addr, (unsigned long long)b->size, s->name);
}

static void check_gap(const struct spaces *all, const struct kld_section *s, uint64_t addr,
                      uint64_t size, const char *what)
{
    struct kld_session *ctx = all->v->ctx;
    if (s->flags & KLD_ATOM_ZERO)
        return;
    uint8_t *bytes = KLD_NEW_ARRAY(&ctx->scratch, uint8_t, size);
    ctx->format->updater->fill(ctx, s, addr - s->addr, bytes, size);
    kld_verify_bytes(all->v, s, addr, bytes, size, what);
}

/* The spaces from `from` to `end` of one section, in the order of their addresses. */
static void check_section(const struct spaces *all, uint32_t id, size_t from, size_t end)
{
    const struct kld_section *s = all->v->sections[id];
    uint64_t at = s->addr;
    for (size_t i = from; i < end; i++) {
        const struct space *x = &all->list.data[i];
        if (x->addr < s->addr || !kld_in_bounds(x->addr - s->addr, x->size, s->size)) {
            struct kld_where where = where_of(all, x);
            kld_verify_error(all->v, &where, "%s at 0x%llx is not within %s", x->what,
                             (unsigned long long)x->addr, s->name);
            return;
        }
        if (x->addr < at) {
            report_overlap(all, x - 1, x);
            return;
        }
        if (x->addr > at)
            check_gap(all, s, at, x->addr - at, "what belongs to nobody");
        if (x->gap)
            check_gap(all, s, x->addr, x->size, x->what);
        at = x->addr + x->size;
    }
    if (at < s->addr + s->size)
        check_gap(all, s, at, s->addr + s->size - at, "what belongs to nobody");
}

void kld_verify_spaces(struct kld_verify *v)
{
    struct spaces all = {.v = v, .has_atoms = KLD_NEW_ARRAY(&v->ctx->arena, bool, v->nsections)};
    kld_arena_init(&v->ctx->scratch, &v->ctx->alloc, &v->ctx->oom);
    add_files(&all);
    add_merged(&all);
    add_slots(&all);
    add_made(&all);
    if (all.list.len)
        qsort(all.list.data, all.list.len, sizeof(*all.list.data), compare);
    for (size_t i = 0, end; i < all.list.len; i = end) {
        uint32_t section = all.list.data[i].section;
        for (end = i + 1; end < all.list.len && all.list.data[end].section == section;)
            end++;
        if (section >= v->nsections || !v->sections[section])
            kld_verify_error(v, NULL, "the state has something in a section that is not there");
        else if (all.has_atoms[section])
            check_section(&all, section, i, end);
    }
    kld_arena_free(&v->ctx->scratch);
}
