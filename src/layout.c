/* layout.c - output sections and the offsets of their atoms; the same for every format. */
#include "src/layout.h"
#include <pthread.h>
#include "src/incremental/slack.h"

/* ---- finding sections ---- */

struct kld_section *kld_section_find(struct kld_session *ctx, const char *name)
{
    for (size_t i = 0; i < ctx->sections.len; i++)
        if (!ctx->sections.data[i]->nameless && strcmp(ctx->sections.data[i]->name, name) == 0)
            return ctx->sections.data[i];
    return NULL;
}

static uint32_t name_hash(struct kld_str name)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < name.len; i++)
        h = (h ^ (uint8_t)name.ptr[i]) * 16777619u;
    return h;
}

/* Memory for one more section, made outside the lock: running out of it must not keep the lock. */
struct spare {
    struct kld_section *section;
    struct kld_section **sections; /* [cap] */
    uint32_t *ids;                 /* [2 * cap] */
    uint32_t cap;
};

static void use_larger_table(struct kld_session *ctx, struct spare *spare)
{
    struct kld_section_index *index = &ctx->section_index;
    if (ctx->sections.len)
        memcpy(spare->sections, ctx->sections.data, ctx->sections.len * sizeof(*spare->sections));
    ctx->sections.data = spare->sections;
    ctx->sections.cap = spare->cap;
    index->ids = spare->ids;
    index->mask = 2 * spare->cap - 1;
    for (uint32_t i = 0; i < ctx->sections.len; i++) {
        if (ctx->sections.data[i]->nameless)
            continue;
        uint32_t at = name_hash(kld_str(ctx->sections.data[i]->name)) & index->mask;
        while (index->ids[at])
            at = (at + 1) & index->mask;
        index->ids[at] = i + 1;
    }
    spare->cap = 0;
}

/* Under the lock. NULL: needs what *spare lacks. */
static struct kld_section *find_or_add(struct kld_session *ctx, struct kld_str name,
                                       struct spare *spare, bool *added)
{
    struct kld_section_index *index = &ctx->section_index;
    uint32_t at = name_hash(name) & index->mask;
    for (; index->ids && index->ids[at]; at = (at + 1) & index->mask) {
        struct kld_section *s = ctx->sections.data[index->ids[at] - 1];
        if (kld_str_is(name, s->name))
            return s;
    }
    if (!spare->section)
        return NULL;
    if (ctx->sections.len == ctx->sections.cap) {
        if (spare->cap <= ctx->sections.cap)
            return NULL;
        use_larger_table(ctx, spare);
        return find_or_add(ctx, name, spare, added);
    }
    struct kld_section *s = spare->section;
    s->id = (uint32_t)ctx->sections.len;
    s->first = UINT64_MAX;
    ctx->sections.data[ctx->sections.len++] = s;
    index->ids[at] = (uint32_t)ctx->sections.len;
    *added = true;
    return s;
}

struct kld_section *kld_section_get(struct kld_session *ctx, struct kld_arena *arena,
                                    struct kld_str name, uint32_t type, uint64_t format_flags,
                                    uint64_t entsize)
{
    struct spare spare = {0};
    for (;;) {
        bool added = false;
        pthread_mutex_lock(&ctx->section_index.lock);
        struct kld_section *s = find_or_add(ctx, name, &spare, &added);
        uint32_t cap = (uint32_t)ctx->sections.cap;
        bool full = ctx->sections.len == cap;
        if (added) {
            s->type = type;
            s->format_flags = format_flags;
            s->entsize = entsize;
        } else if (s) {
            ctx->format->combine(s, type, format_flags, entsize);
        }
        pthread_mutex_unlock(&ctx->section_index.lock);
        if (s)
            return s;
        if (!spare.section) {
            spare.section = KLD_NEW(arena, struct kld_section);
            spare.section->name = kld_arena_strndup(arena, name.ptr, name.len);
        }
        if (!full)
            continue;
        spare.cap = cap ? cap * 2 : 64;
        spare.sections = KLD_NEW_ARRAY(arena, struct kld_section *, spare.cap);
        spare.ids = KLD_NEW_ARRAY(arena, uint32_t, 2 * (size_t)spare.cap);
    }
}

struct kld_section *kld_section_new(struct kld_session *ctx, const char *name)
{
    struct kld_section *s = KLD_NEW(&ctx->arena, struct kld_section);
    if (ctx->sections.len == ctx->sections.cap) {
        struct spare spare = {.cap = ctx->sections.cap ? (uint32_t)ctx->sections.cap * 2 : 64};
        spare.sections = KLD_NEW_ARRAY(&ctx->arena, struct kld_section *, spare.cap);
        spare.ids = KLD_NEW_ARRAY(&ctx->arena, uint32_t, 2 * (size_t)spare.cap);
        use_larger_table(ctx, &spare);
    }
    s->name = name;
    s->nameless = true;
    s->first = UINT64_MAX;
    s->id = (uint32_t)ctx->sections.len;
    ctx->sections.data[ctx->sections.len++] = s;
    return s;
}

/* ---- atoms of the linker's own ---- */

struct kld_atom *kld_atom_new(struct kld_session *ctx, struct kld_section *section, uint8_t flags,
                              uint8_t p2align, uint64_t size)
{
    struct kld_atom *atom = KLD_NEW(&ctx->arena, struct kld_atom);
    atom->file = ctx->internal;
    atom->section = section->id;
    atom->flags = flags;
    atom->p2align = p2align;
    atom->size = size;
    atom->live = 1;
    *kld_vec_push(&ctx->arena, &ctx->made) = atom;
    return atom;
}

/* ---- gathering ---- */

static bool is_placed(const struct kld_atom *a)
{
    return a->live && a->kind != KLD_ATOM_PIECES;
}

/* What the atoms of some files bring to a section. */
struct tally {
    uint64_t first; /* as kld_section.first */
    size_t count;   /* then: where the next one of them goes */
    uint8_t flags, p2align;
    bool has_bytes;
};

/* Files are counted, and put where they go, in runs of about as many atoms each. */
enum { MOST_RUNS = 16, ATOMS_A_RUN = 1 << 14 };
struct gathering {
    uint32_t starts[MOST_RUNS + 1]; /* by run: its first file */
    uint32_t nruns;
    struct tally *tallies; /* [nruns + 1][sections]: the last of the linker's own atoms */
};

static void count_atom(struct tally *t, const struct kld_atom *a, uint64_t order)
{
    t->count++;
    t->flags |= a->flags & (KLD_ATOM_ALLOC | KLD_ATOM_WRITE | KLD_ATOM_EXEC | KLD_ATOM_TLS);
    t->p2align = KLD_MAX(t->p2align, a->p2align);
    t->has_bytes |= !(a->flags & KLD_ATOM_ZERO);
    t->first = KLD_MIN(t->first, order);
}

static void count_run(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t run)
{
    (void)w;
    struct gathering *g = arg;
    struct tally *tallies = g->tallies + run * ctx->sections.len;
    for (uint32_t f = g->starts[run]; f < g->starts[run + 1]; f++) {
        const struct kld_file *file = ctx->files[f];
        for (uint32_t i = 0; i < file->natoms; i++)
            if (is_placed(&file->atoms[i]))
                count_atom(&tallies[file->atoms[i].section], &file->atoms[i],
                           (uint64_t)file->index << 32 | i);
    }
}

static kld_shape shape_of(const struct kld_atom *a)
{
    return (kld_shape)KLD_MIN(a->size, (uint64_t)KLD_SHAPE_SIZE) |
           (kld_shape)a->p2align << KLD_SHAPE_P2ALIGN_SHIFT | (a->ordered ? KLD_SHAPE_ORDERED : 0);
}

static void place_run(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t run)
{
    (void)w;
    struct gathering *g = arg;
    struct tally *tallies = g->tallies + run * ctx->sections.len;
    for (uint32_t f = g->starts[run]; f < g->starts[run + 1]; f++) {
        struct kld_file *file = ctx->files[f];
        for (uint32_t i = 0; i < file->natoms; i++)
            if (is_placed(&file->atoms[i])) {
                struct kld_section *s = ctx->sections.data[file->atoms[i].section];
                size_t at = tallies[s->id].count++;
                s->atoms.data[at] = &file->atoms[i];
                s->shapes[at] = shape_of(&file->atoms[i]);
            }
    }
}

static void make_runs(struct kld_session *ctx, struct gathering *g)
{
    uint64_t all = 0, atoms = 0;
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        all += ctx->files[f]->natoms;
    uint64_t a_run = KLD_MAX(all / MOST_RUNS + 1, (uint64_t)ATOMS_A_RUN);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        if (atoms >= g->nruns * a_run)
            g->starts[g->nruns++] = f;
        atoms += ctx->files[f]->natoms;
    }
    g->starts[g->nruns] = ctx->nfiles;
    size_t n = (g->nruns + 1) * ctx->sections.len;
    g->tallies = KLD_NEW_ARRAY(&ctx->scratch, struct tally, n);
    for (size_t i = 0; i < n; i++)
        g->tallies[i].first = UINT64_MAX;
}

/* The section gets the sum of what is in the runs, which get where in it they begin. */
static void add_tally(struct kld_section *s, struct tally *t)
{
    size_t start = s->atoms.len;
    s->atoms.len += t->count;
    t->count = start;
    s->flags |= t->flags;
    s->p2align = KLD_MAX(s->p2align, t->p2align);
    s->has_bytes |= t->has_bytes;
    s->first = KLD_MIN(s->first, t->first);
}

/* The linker's own atoms come behind all others. */
static void count_own(struct kld_session *ctx, struct tally *tallies)
{
    for (size_t i = 0; i < ctx->made.len; i++)
        if (is_placed(ctx->made.data[i]))
            count_atom(&tallies[ctx->made.data[i]->section], ctx->made.data[i],
                       (uint64_t)UINT32_MAX << 32 | i);
}

static void place_own(struct kld_session *ctx, struct tally *tallies)
{
    for (size_t i = 0; i < ctx->made.len; i++) {
        struct kld_atom *atom = ctx->made.data[i];
        if (!is_placed(atom))
            continue;
        struct kld_section *s = ctx->sections.data[atom->section];
        size_t at = tallies[atom->section].count++;
        s->atoms.data[at] = atom;
        s->shapes[at] = KLD_SHAPE_SIZE; /* its size may not be known yet */
    }
}

void kld_gather(struct kld_session *ctx)
{
    struct gathering g = {.nruns = 0};
    make_runs(ctx, &g);
    struct tally *own = g.tallies + g.nruns * ctx->sections.len;
    kld_parallel_for(ctx, g.nruns, 1, count_run, &g);
    count_own(ctx, own);
    for (size_t i = 0; i < ctx->sections.len; i++) {
        struct kld_section *s = ctx->sections.data[i];
        for (uint32_t run = 0; run <= g.nruns; run++)
            add_tally(s, &g.tallies[run * ctx->sections.len + i]);
        s->atoms.cap = s->atoms.len;
        s->atoms.data = KLD_NEW_ARRAY(&ctx->arena, struct kld_atom *, s->atoms.cap);
        s->shapes = KLD_NEW_ARRAY(&ctx->arena, kld_shape, s->atoms.cap);
        if (!s->has_bytes)
            s->flags |= KLD_ATOM_ZERO;
    }
    kld_parallel_for(ctx, g.nruns, 1, place_run, &g);
    place_own(ctx, own);
    kld_arena_free(&ctx->scratch);
}

/* ---- offsets and addresses ---- */

static struct kld_slack_rule slack_rule(const struct kld_session *ctx, const struct kld_section *s)
{
    static const struct kld_slack_rule none = {.kind = KLD_SLACK_NONE, .least = 1, .granule = 1};
    return ctx->slack && s->atoms.len ? ctx->format->updater->slack_rule(ctx, s) : none;
}

/* Returns the end of the pool. */
static uint64_t add_pool(const struct kld_session *ctx, struct kld_section *s, uint64_t used,
                         const struct kld_slack_rule *rule)
{
    s->used = used;
    s->pool_end = used + kld_slack_pool(ctx, s, used, rule);
    return s->pool_end;
}

/* Sizes of sections come from the shapes of their atoms, one after the other; all threads then give the atoms
 * their addresses, a block at a time. (To walk the atoms themselves for both, .text on one thread, took twice as
 * long: 1% of the wall time of 10,000 objects.) */
enum { BLOCK = 8192, ATOMS_AHEAD = 16 };

struct block {
    struct kld_section *section;
    size_t index;
};

/* Where the next atom of a section may begin, and where the one before it ends. */
struct kld_cursor {
    uint64_t at, end;
};

struct extent {
    uint64_t size, capacity;
    uint8_t p2align;
};

static void ask_for_atom(const struct kld_section *s, size_t k)
{
    if (k < s->atoms.len)
        __builtin_prefetch(s->atoms.data[k], 1);
}

static struct extent extent_of(const struct kld_session *ctx, const struct kld_section *s, size_t k,
                               const struct kld_slack_rule *rule)
{
    kld_shape shape = s->shapes ? s->shapes[k] : KLD_SHAPE_SIZE;
    uint64_t size = shape & KLD_SHAPE_SIZE;
    if (rule->kind == KLD_SLACK_NONE && size != KLD_SHAPE_SIZE)
        return (struct extent){size, size, shape >> KLD_SHAPE_P2ALIGN_SHIFT & 63};
    ask_for_atom(s, k + ATOMS_AHEAD);
    const struct kld_atom *a = s->atoms.data[k];
    return (struct extent){a->size, kld_slack_capacity(ctx, s, a, rule),
                           kld_slack_p2align(ctx, s, a, rule)};
}

/* The atom's offset in its section; the next one's place. */
static uint64_t add_extent(struct kld_cursor *place, const struct extent *e,
                           const struct kld_slack_rule *rule)
{
    uint64_t at = kld_slack_align(rule, place->end, place->at, 1ull << e->p2align);
    *place = (struct kld_cursor){at + e->capacity, at + e->size};
    return at;
}

/* Index of the atom that the pool is in front of. */
static size_t pool_index(const struct kld_section *s, const struct kld_slack_rule *rule)
{
    return s->atoms.len - (rule->ends ? 1 : 0);
}

static void report_too_large(struct kld_session *ctx, const struct kld_section *s,
                             const struct kld_atom *a, uint64_t at)
{
    kld_error(ctx, "too-large", &(struct kld_where){.file = a->file, .section = s->name},
              "section %s is too large: 0x%llx bytes at offset 0x%llx", s->name,
              (unsigned long long)a->size, (unsigned long long)at);
}

static void section_offsets(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)arg;
    struct kld_section *s = ctx->sections.data[i];
    struct kld_slack_rule rule = slack_rule(ctx, s);
    struct kld_cursor place = {0, 0};
    s->filler = rule.filler;
    s->p2align = 0;
    s->starts = KLD_NEW_ARRAY(&w->arena, struct kld_cursor, (s->atoms.len + BLOCK - 1) / BLOCK);
    for (size_t k = 0; k < s->atoms.len; k++) {
        if (k % BLOCK == 0)
            s->starts[k / BLOCK] = place;
        if (k == pool_index(s, &rule))
            place.at = place.end = add_pool(ctx, s, place.at, &rule);
        struct extent e = extent_of(ctx, s, k, &rule);
        struct kld_cursor before = place;
        uint64_t at = add_extent(&place, &e, &rule);
        s->p2align = KLD_MAX(s->p2align, e.p2align);
        if (e.size > KLD_LARGEST_IMAGE - KLD_MIN(at, KLD_LARGEST_IMAGE)) {
            report_too_large(ctx, s, s->atoms.data[k], at);
            place = before; /* as if it were empty */
        }
    }
    if (pool_index(s, &rule) == s->atoms.len)
        place.at = add_pool(ctx, s, place.at, &rule);
    s->size = place.at;
}

void kld_section_offsets(struct kld_session *ctx)
{
    kld_parallel_for(ctx, ctx->sections.len, 1, section_offsets, NULL);
}

static void fix_block(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)w;
    const struct block *block = (const struct block *)arg + i;
    const struct kld_section *s = block->section;
    struct kld_slack_rule rule = slack_rule(ctx, s);
    struct kld_cursor place = s->starts[block->index];
    size_t end = KLD_MIN((block->index + 1) * BLOCK, s->atoms.len);
    for (size_t k = block->index * BLOCK; k < end; k++) {
        ask_for_atom(s, k + ATOMS_AHEAD);
        if (k == pool_index(s, &rule))
            place.at = place.end = s->pool_end;
        struct extent e = extent_of(ctx, s, k, &rule);
        s->atoms.data[k]->addr = s->addr + add_extent(&place, &e, &rule);
    }
}

void kld_fix_addresses(struct kld_session *ctx)
{
    KLD_VEC(struct block) blocks = {NULL, 0, 0};
    for (size_t i = 0; i < ctx->sections.len; i++) {
        struct kld_section *s = ctx->sections.data[i];
        for (size_t k = 0; k * BLOCK < s->atoms.len; k++)
            *kld_vec_push(&ctx->scratch, &blocks) = (struct block){s, k};
    }
    kld_parallel_for(ctx, blocks.len, 1, fix_block, blocks.data);
    for (size_t i = 0; i < ctx->sections.len; i++)
        ctx->sections.data[i]->shapes = NULL; /* from here on sizes may change */
    kld_arena_free(&ctx->scratch);
}
