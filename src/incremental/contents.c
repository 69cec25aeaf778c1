/* contents.c - where strings and constants may be, for --incremental-verify.
 *
 * The state does not say which piece of a mergeable section is where: a patch finds equal ones that are
 * there, or brings new ones. So what the output has of such contents is cut up as the inputs are, and
 * whatever is equal is a place for a piece. Mostly there is one; of several, references tell which. */
#define XXH_INLINE_ALL
#include "src/incremental/verify.h"
#include "src/merge.h"
#include <xxhash.h>

/* Contents of one kind: in a section, of that size of characters or constants. */
struct kind {
    uint32_t section; /* id in the session */
    uint32_t entsize;
    bool strings;
    uint8_t p2align; /* as merge.c groups them: each group counts from a place of its own */
    bool based;
    struct kld_atom *base; /* where places count from */
};

struct entry {
    const uint8_t *data; /* in the output */
    uint64_t hash, addr;
    uint32_t kind, next; /* next: of those in the bucket; addresses rise. 0: none */
};

/* A mergeable section of an input. */
struct input {
    struct kind *kind;
    uint32_t *at; /* by piece: 1 + entry; 0: it has no place */
    bool open;
};

struct kld_contents {
    KLD_VEC(struct kind) kinds;
    KLD_VEC(struct entry) entries;
    uint32_t *buckets, *tails; /* 1 + entry */
    uint64_t mask;
    struct input **inputs; /* by file: by atom */
    bool *open;            /* by file */
};

/* ---- what the output has ---- */

static struct kind *kind_of(struct kld_verify *v, uint32_t section, uint32_t entsize, bool strings,
                            uint8_t p2align)
{
    struct kld_contents *c = v->contents;
    for (size_t i = 0; i < c->kinds.len; i++) {
        struct kind *k = &c->kinds.data[i];
        if (k->section == section && k->entsize == entsize && k->strings == strings &&
            k->p2align == p2align)
            return k;
    }
    return NULL;
}

static void add_kinds(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    for (size_t i = 0; i < ctx->merged.len; i++) {
        const struct kld_merged *m = &ctx->merged.data[i];
        if (!m->atom || kind_of(v, m->atom->section, m->entsize, m->strings, m->p2align))
            continue;
        struct kld_atom *base = KLD_NEW(&ctx->arena, struct kld_atom);
        *base = (struct kld_atom){.file = ctx->internal,
                                  .section = m->atom->section,
                                  .flags = m->atom->flags,
                                  .kind = KLD_ATOM_GENERATED,
                                  .live = 1};
        *kld_vec_push(&ctx->arena, &v->contents->kinds) = (struct kind){.section = m->atom->section,
                                                                        .entsize = m->entsize,
                                                                        .strings = m->strings,
                                                                        .p2align = m->p2align,
                                                                        .base = base};
    }
}

static void add_piece(struct kld_verify *v, uint32_t kind, const uint8_t *data, uint64_t size,
                      uint64_t addr)
{
    *kld_vec_push(&v->ctx->arena, &v->contents->entries) =
        (struct entry){.data = data, .hash = XXH3_64bits(data, size), .addr = addr, .kind = kind};
}

static bool is_zero(const uint8_t *p, uint32_t size)
{
    while (size && !p[size - 1])
        size--;
    return !size;
}

/* All pieces of a range of the output. */
static void add_range(struct kld_verify *v, uint32_t kind, uint64_t addr, uint64_t size)
{
    struct kind *k = &v->contents->kinds.data[kind];
    const struct kld_section *s = v->ctx->sections.data[k->section];
    const uint8_t *data = kld_verify_output_at(v, s, addr, size);
    if (!data)
        return;
    if (!k->based)
        k->base->addr = s->addr + (addr - s->addr) % k->entsize;
    k->based = true;
    for (uint64_t at = 0, end; at + k->entsize <= size; at = end) {
        end = at + k->entsize;
        while (k->strings && end + k->entsize <= size &&
               !is_zero(data + end - k->entsize, k->entsize))
            end += k->entsize;
        if (!k->strings || is_zero(data + end - k->entsize, k->entsize))
            add_piece(v, kind, data + at, end - at, addr + at);
    }
}

static void add_merged(struct kld_verify *v)
{
    uint64_t n = kld_state_count(&v->st, KLD_T_MERGED);
    const struct kld_state_merged *m = kld_state_get(&v->st, KLD_T_MERGED, 0, n);
    for (uint64_t i = 0; i < n; i++) {
        const struct kld_section *s =
            m[i].section < v->nsections ? v->sections[m[i].section] : NULL;
        struct kind *k = s ? kind_of(v, s->id, m[i].entsize, m[i].strings, m[i].p2align) : NULL;
        if (k && m[i].size)
            add_range(v, (uint32_t)(k - v->contents->kinds.data), m[i].addr, m[i].size);
    }
}

/* What is in an area is of any kind that its section has. */
static void add_areas(struct kld_verify *v)
{
    uint64_t n = kld_state_count(&v->st, KLD_T_AREAS);
    const struct kld_state_area *a = kld_state_get(&v->st, KLD_T_AREAS, 0, n);
    for (uint64_t i = 0; i < n; i++) {
        const struct kld_section *s =
            a[i].section < v->nsections ? v->sections[a[i].section] : NULL;
        for (uint32_t k = 0; a[i].users && s && k < v->contents->kinds.len; k++)
            if (v->contents->kinds.data[k].section == s->id)
                add_range(v, k, a[i].addr, a[i].size);
    }
}

static void index_entries(struct kld_verify *v)
{
    struct kld_contents *c = v->contents;
    uint64_t n = 64;
    while (n < 2 * c->entries.len)
        n *= 2;
    c->mask = n - 1;
    c->buckets = KLD_NEW_ARRAY(&v->ctx->arena, uint32_t, n);
    c->tails = KLD_NEW_ARRAY(&v->ctx->arena, uint32_t, n);
    for (size_t i = 0; i < c->entries.len; i++) {
        uint64_t at = c->entries.data[i].hash & c->mask;
        if (c->tails[at])
            c->entries.data[c->tails[at] - 1].next = (uint32_t)i + 1;
        else
            c->buckets[at] = (uint32_t)i + 1;
        c->tails[at] = (uint32_t)i + 1;
    }
}

/* ---- places of pieces ---- */

static struct input *input_of(const struct kld_verify *v, const struct kld_atom *atom)
{
    struct input *inputs = v->contents->inputs[atom->file->index];
    return inputs ? &inputs[atom - atom->file->atoms] : NULL;
}

/* The piece that holds the offset; places of what is behind the end are those of the last one. */
static uint32_t piece_at(const struct kld_pieces *p, uint64_t offset)
{
    uint64_t at = offset / p->entsize;
    uint32_t lo = 0, hi = p->count;
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (p->list[mid].start <= at)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Whether the entry is a place for the piece: equal, and aligned as its offset had promised. */
static bool fits(const struct kld_verify *v, const struct kld_atom *a, const struct input *in,
                 uint32_t k, const struct entry *e, uint64_t hash)
{
    const struct kld_pieces *p = a->pieces;
    uint64_t offset = (uint64_t)p->list[k].start * p->entsize;
    uint64_t size = (uint64_t)(p->list[k + 1].start - p->list[k].start) * p->entsize;
    uint64_t distance = e->addr - in->kind->base->addr;
    unsigned align = offset ? KLD_MIN((unsigned)__builtin_ctzll(offset), a->p2align) : a->p2align;
    return e->hash == hash && &v->contents->kinds.data[e->kind] == in->kind &&
           e->addr % (1ull << align) == 0 && distance % p->entsize == 0 &&
           distance / p->entsize <= UINT32_MAX && memcmp(e->data, a->data + offset, size) == 0;
}

/* The first place among those from entry `at` on. */
static bool take(struct kld_verify *v, struct kld_atom *a, struct input *in, uint32_t k,
                 uint32_t at)
{
    const struct kld_pieces *p = a->pieces;
    uint64_t size = (uint64_t)(p->list[k + 1].start - p->list[k].start) * p->entsize;
    uint64_t hash = XXH3_64bits(a->data + (uint64_t)p->list[k].start * p->entsize, size);
    const struct kld_contents *c = v->contents;
    for (; at; at = c->entries.data[at - 1].next) {
        const struct entry *e = &c->entries.data[at - 1];
        if (!fits(v, a, in, k, e, hash))
            continue;
        in->at[k] = at;
        p->list[k].out = (uint32_t)((e->addr - in->kind->base->addr) / p->entsize);
        return true;
    }
    return false;
}

static bool has_other(struct kld_verify *v, struct kld_atom *a, struct input *in, uint32_t k)
{
    uint32_t at = in->at[k], out = a->pieces->list[k].out;
    bool other = take(v, a, in, k, v->contents->entries.data[at - 1].next);
    in->at[k] = at;
    a->pieces->list[k].out = out;
    return other;
}

static void find_pieces(struct kld_verify *v, struct kld_atom *a, struct input *in)
{
    struct kld_pieces *p = a->pieces;
    in->kind = kind_of(v, a->section, p->entsize, p->strings, a->p2align);
    in->at = KLD_NEW_ARRAY(&v->ctx->arena, uint32_t, p->count);
    p->merged = in->kind->base;
    for (uint32_t k = 0; k < p->count; k++) {
        uint64_t offset = (uint64_t)p->list[k].start * p->entsize;
        uint64_t size = (uint64_t)(p->list[k + 1].start - p->list[k].start) * p->entsize;
        uint64_t hash = XXH3_64bits(a->data + offset, size);
        if (take(v, a, in, k, v->contents->buckets[hash & v->contents->mask])) {
            if (!in->open)
                in->open = has_other(v, a, in, k);
            continue;
        }
        struct kld_str name = v->ctx->format->atom_name(a);
        const char *section = kld_arena_strndup(&v->ctx->arena, name.ptr, name.len);
        kld_verify_error(
            v,
            &(struct kld_where){
                .file = a->file, .section = section, .offset = offset, .has_offset = true},
            "%llu bytes of mergeable contents are not in the output", (unsigned long long)size);
        return;
    }
}

void kld_contents_find(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    struct kld_contents *c = v->contents = KLD_NEW(&ctx->arena, struct kld_contents);
    c->inputs = KLD_NEW_ARRAY(&ctx->arena, struct input *, ctx->nfiles);
    c->open = KLD_NEW_ARRAY(&ctx->arena, bool, ctx->nfiles);
    add_kinds(v);
    add_merged(v);
    add_areas(v);
    index_entries(v);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        struct kld_file *file = ctx->files[f];
        for (uint32_t i = 0; i < file->natoms; i++) {
            struct kld_atom *a = &file->atoms[i];
            if (a->kind != KLD_ATOM_PIECES || !a->live || !a->pieces->merged || !a->pieces->count)
                continue;
            if (!c->inputs[f])
                c->inputs[f] = KLD_NEW_ARRAY(&ctx->arena, struct input, file->natoms);
            find_pieces(v, a, &c->inputs[f][i]);
            c->open[f] |= c->inputs[f][i].open;
        }
    }
}

bool kld_contents_is_open(const struct kld_verify *v, const struct kld_file *file)
{
    return v->contents->open[file->index];
}

bool kld_contents_next(struct kld_verify *v, struct kld_atom *a, uint64_t offset)
{
    struct input *in = input_of(v, a);
    uint32_t k = in && in->kind ? piece_at(a->pieces, offset) : 0;
    if (!in || !in->kind || !in->at[k])
        return false;
    return take(v, a, in, k, v->contents->entries.data[in->at[k] - 1].next);
}

bool kld_contents_fix(struct kld_verify *v, struct kld_atom *a, uint64_t offset, uint64_t address)
{
    struct input *in = input_of(v, a);
    uint32_t k = in && in->kind ? piece_at(a->pieces, offset) : 0;
    if (!in || !in->kind)
        return false;
    bool found = kld_pieces_address(a, offset) == address;
    while (!found && in->at[k] && take(v, a, in, k, v->contents->entries.data[in->at[k] - 1].next))
        found = kld_pieces_address(a, offset) == address;
    in->at[k] = 0;
    return found;
}
