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

static void count_atom(struct kld_session *ctx, const struct kld_atom *a, uint64_t order)
{
    struct kld_section *s = ctx->sections.data[a->section];
    s->atoms.cap++;
    s->flags |= a->flags & (KLD_ATOM_ALLOC | KLD_ATOM_WRITE | KLD_ATOM_EXEC | KLD_ATOM_TLS);
    s->p2align = KLD_MAX(s->p2align, a->p2align);
    if (!(a->flags & KLD_ATOM_ZERO))
        s->has_bytes = true;
    if (order < s->first)
        s->first = order;
}

void kld_gather(struct kld_session *ctx)
{
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        struct kld_file *file = ctx->files[f];
        for (uint32_t i = 0; i < file->natoms; i++)
            if (is_placed(&file->atoms[i]))
                count_atom(ctx, &file->atoms[i], (uint64_t)file->index << 32 | i);
    }
    for (size_t i = 0; i < ctx->made.len; i++)
        if (is_placed(ctx->made.data[i]))
            count_atom(ctx, ctx->made.data[i], (uint64_t)UINT32_MAX << 32 | i);
    for (size_t i = 0; i < ctx->sections.len; i++) {
        struct kld_section *s = ctx->sections.data[i];
        s->atoms.data = KLD_NEW_ARRAY(&ctx->arena, struct kld_atom *, s->atoms.cap);
        if (!s->has_bytes)
            s->flags |= KLD_ATOM_ZERO;
    }
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        struct kld_file *file = ctx->files[f];
        for (uint32_t i = 0; i < file->natoms; i++)
            if (is_placed(&file->atoms[i])) {
                struct kld_section *s = ctx->sections.data[file->atoms[i].section];
                s->atoms.data[s->atoms.len++] = &file->atoms[i];
            }
    }
    for (size_t i = 0; i < ctx->made.len; i++)
        if (is_placed(ctx->made.data[i])) {
            struct kld_section *s = ctx->sections.data[ctx->made.data[i]->section];
            s->atoms.data[s->atoms.len++] = ctx->made.data[i];
        }
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

static void section_offsets(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)w, (void)arg;
    struct kld_section *s = ctx->sections.data[i];
    struct kld_slack_rule rule = slack_rule(ctx, s);
    size_t before_pool = s->atoms.len - (rule.ends ? 1 : 0);
    s->filler = rule.filler;
    uint64_t at = 0, end = 0;
    uint8_t p2align = 0;
    for (size_t k = 0; k < s->atoms.len; k++) {
        struct kld_atom *a = s->atoms.data[k];
        if (k == before_pool)
            at = end = add_pool(ctx, s, at, &rule);
        uint8_t aligned = kld_slack_p2align(ctx, s, a, &rule);
        at = kld_slack_align(&rule, end, at, 1ull << aligned);
        a->addr = at;
        if (a->size > KLD_LARGEST_IMAGE - KLD_MIN(at, KLD_LARGEST_IMAGE)) {
            kld_error(ctx, "too-large", &(struct kld_where){.file = a->file, .section = s->name},
                      "section %s is too large: 0x%llx bytes at offset 0x%llx", s->name,
                      (unsigned long long)a->size, (unsigned long long)at);
            continue; /* as if it were empty */
        }
        end = at + a->size;
        at += kld_slack_capacity(ctx, s, a, &rule);
        p2align = KLD_MAX(p2align, aligned);
    }
    if (before_pool == s->atoms.len)
        at = add_pool(ctx, s, at, &rule);
    s->size = at;
    s->p2align = p2align;
}

void kld_section_offsets(struct kld_session *ctx)
{
    kld_parallel_for(ctx, ctx->sections.len, 8, section_offsets, NULL);
}

static void fix_addresses(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)w, (void)arg;
    struct kld_section *s = ctx->sections.data[i];
    if (s->addr)
        for (size_t k = 0; k < s->atoms.len; k++)
            s->atoms.data[k]->addr += s->addr;
}

void kld_fix_addresses(struct kld_session *ctx)
{
    kld_parallel_for(ctx, ctx->sections.len, 8, fix_addresses, NULL);
}
