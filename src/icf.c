/* icf.c - --icf: identical code folding.
 *
 * Needs the live set. Afterwards of atoms that mean the same one is left, the first in input
 * order; the others point at it.
 *
 * Two atoms mean the same if they have the same bytes and flags, the same unwind data, and if
 * their edges lead to the same places, where two atoms that mean the same are the same place. That
 * is circular, on purpose: two functions that call themselves, or each other's twins, can be
 * folded. The pass starts from the assumption that all that looks alike is alike, and takes it
 * back where edges disagree: every candidate has a colour (the first candidate that is thought to
 * be the same); each round gives a new colour to those whose edges lead to other colours than
 * those of their fellows, until nothing changes. An atom that is alone in its colour is done with,
 * which after the first round is nearly all of them.
 *
 * Colours are told apart by a hash. What is folded in the end is compared in full, edges by final
 * colours: if all pairs hold, so does the assumption.
 *
 * What may be folded at all is the format's to say (icf_keep): with --icf=safe nothing whose
 * address somebody might compare. */
#define XXH_INLINE_ALL
#include "src/icf.h"
#include "src/merge.h"
#include <xxhash.h>

enum { NONE = UINT32_MAX, EDGES = 64, GRAIN = 64, SYMBOL_BLOCK = 4096 };

struct candidate {
    struct kld_atom *atom;
    uint64_t hash; /* of what does not depend on colours */
    uint64_t now;  /* of the round */
};

struct kld_folding {
    uint32_t *first; /* by file: number of its first atom */
    uint32_t natoms;
    uint32_t *colour;      /* by atom number: candidate that stands for it, or NONE */
    _Atomic uint8_t *kept; /* by atom number */
    struct candidate *candidates;
    uint32_t *number; /* by candidate: of its atom */
    uint32_t ncandidates;
    uint32_t *active; /* candidates that are not alone in their colour */
    uint32_t nactive;
    uint32_t *next;        /* colours of the active ones in the round to come */
    _Atomic bool deceived; /* by equal hashes of what is not equal */
};

static uint32_t atom_number(const struct kld_folding *icf, const struct kld_atom *atom)
{
    if (atom->file->kind != KLD_FILE_OBJECT)
        return NONE;
    return icf->first[atom->file->index] + (uint32_t)(atom - atom->file->atoms);
}

/* ---- candidates ---- */

static void keep(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom)
{
    (void)worker;
    uint32_t n = atom_number(ctx->icf, atom);
    if (n != NONE && !atomic_load_explicit(&ctx->icf->kept[n], memory_order_relaxed))
        atomic_store_explicit(&ctx->icf->kept[n], 1, memory_order_relaxed);
}

static bool may_fold(const struct kld_folding *icf, const struct kld_atom *a, uint32_t number)
{
    const uint8_t never = KLD_ATOM_WRITE | KLD_ATOM_TLS | KLD_ATOM_ZERO | KLD_ATOM_RETAIN;
    return a->live && a->kind == KLD_ATOM_BYTES && (a->flags & KLD_ATOM_ALLOC) &&
           !(a->flags & never) && a->size && a->data && !icf->kept[number];
}

static void number_atoms(struct kld_session *ctx, struct kld_folding *icf)
{
    icf->first = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, ctx->nfiles);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        icf->first[f] = icf->natoms;
        icf->natoms += ctx->files[f]->natoms;
    }
    icf->kept = KLD_NEW_ARRAY(&ctx->scratch, _Atomic uint8_t, icf->natoms);
    icf->colour = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, icf->natoms);
}

static void find_candidates(struct kld_session *ctx, struct kld_folding *icf)
{
    uint32_t n = 0;
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        for (uint32_t i = 0; i < ctx->files[f]->natoms; i++)
            n += may_fold(icf, &ctx->files[f]->atoms[i], icf->first[f] + i);
    icf->candidates = KLD_NEW_ARRAY(&ctx->scratch, struct candidate, n);
    icf->number = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, n);
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        for (uint32_t i = 0; i < ctx->files[f]->natoms; i++) {
            uint32_t number = icf->first[f] + i;
            icf->colour[number] = NONE;
            if (!may_fold(icf, &ctx->files[f]->atoms[i], number))
                continue;
            icf->colour[number] = icf->ncandidates;
            icf->number[icf->ncandidates] = number;
            icf->candidates[icf->ncandidates++].atom = &ctx->files[f]->atoms[i];
        }
}

/* ---- what an atom says ---- */

/* Takes down all of an atom, in pieces. Edges to candidates are given by colour, or left open. */
struct scribe {
    struct kld_sink sink;
    struct kld_session *ctx;
    bool colours;     /* only the colours; else all but the colours */
    XXH3_state_t *to; /* NULL: into text */
    uint8_t *text;    /* NULL: only the size */
    size_t size;
};

static void put(struct scribe *s, const void *data, size_t size)
{
    if (!size)
        return;
    if (s->to)
        XXH3_64bits_update(s->to, data, size);
    else if (s->text)
        memcpy(s->text + s->size, data, size);
    s->size += size;
}

static void put_bytes(struct kld_sink *sink, const void *data, size_t size)
{
    struct scribe *s = (struct scribe *)sink;
    if (!s->colours) {
        put(s, &size, sizeof(size));
        put(s, data, size);
    }
}

/* A string or constant that has not been merged yet is where it says the same. */
static void put_piece(struct scribe *s, const struct kld_atom *atom, uint64_t offset)
{
    const struct kld_pieces *p = atom->pieces;
    uint64_t entsize = p->entsize, end = offset;
    struct {
        uint64_t section, entsize, within;
    } head = {atom->section, entsize, p->strings ? 0 : offset % entsize};
    put(s, &head, sizeof(head));
    if (offset >= atom->size) {
        const void *where[] = {atom, (const void *)(uintptr_t)offset};
        put(s, where, sizeof(where));
        return;
    }
    if (!p->strings) {
        offset -= head.within;
        put(s, atom->data + offset, KLD_MIN(entsize, atom->size - offset));
        return;
    }
    for (bool zero = false; !zero && end + entsize <= atom->size; end += entsize) {
        zero = true;
        for (uint64_t i = 0; i < entsize; i++)
            zero &= !atom->data[end + i];
    }
    uint64_t length = end - offset;
    put(s, &length, sizeof(length));
    put(s, atom->data + offset, length);
}

static void put_edge(struct kld_sink *sink, const struct kld_edge *e)
{
    struct scribe *s = (struct scribe *)sink;
    const struct kld_folding *icf = s->ctx->icf;
    struct kld_atom *atom = e->symbol && e->symbol->preemptible ? NULL : e->atom;
    uint32_t number = atom ? atom_number(icf, atom) : NONE;
    uint32_t colour = number == NONE ? NONE : icf->colour[number];
    if (s->colours) {
        if (colour != NONE)
            put(s, &colour, sizeof(colour));
        return;
    }
    struct {
        uint64_t offset, addend, value;
        const void *what;
        uint32_t type, open;
    } edge = {.offset = e->offset,
              .addend = (uint64_t)e->addend,
              .value = atom ? e->value : 0,
              .what = colour != NONE ? NULL
                      : atom         ? (const void *)atom
                                     : (const void *)e->symbol,
              .type = e->type,
              .open = colour != NONE};
    if (atom && atom->kind == KLD_ATOM_PIECES) {
        edge.what = NULL;
        edge.value = 0;
        put(s, &edge, sizeof(edge));
        put_piece(s, atom, e->value);
        return;
    }
    put(s, &edge, sizeof(edge));
}

static void take_down(struct scribe *s, const struct kld_atom *atom)
{
    struct kld_session *ctx = s->ctx;
    struct kld_edge edges[EDGES];
    size_t from = 0, n;
    s->sink = (struct kld_sink){put_bytes, put_edge};
    if (!s->colours) {
        uint64_t head[] = {atom->flags, atom->section, atom->nedges};
        put(s, head, sizeof(head));
        put_bytes(&s->sink, atom->data, atom->size);
    }
    if (atom->nedges)
        while ((n = ctx->format->edges(ctx, atom, &from, edges, EDGES, NULL)) > 0)
            for (size_t i = 0; i < n; i++)
                put_edge(&s->sink, &edges[i]);
    ctx->format->icf_more(ctx, atom, &s->sink);
}

static uint64_t hash_of(struct kld_session *ctx, const struct kld_atom *atom, bool colours,
                        uint64_t seed)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset(&state);
    struct scribe s = {.ctx = ctx, .colours = colours, .to = &state};
    put(&s, &seed, sizeof(seed));
    take_down(&s, atom);
    return XXH3_64bits_digest(&state);
}

/* ---- rounds ---- */

static void hash_fixed(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)worker;
    struct candidate *c = &((struct kld_folding *)arg)->candidates[i];
    c->hash = c->now = hash_of(ctx, c->atom, false, 0);
}

static void hash_colours(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)worker;
    const struct kld_folding *icf = arg;
    struct candidate *c = &icf->candidates[icf->active[i]];
    c->now = hash_of(ctx, c->atom, true, c->hash);
}

/* Gives the active candidates the colour of the first one with the same hash and colour. Those
 * alone in theirs are active no more. Returns the number of colours among the active before. */
static uint32_t colour_round(struct kld_folding *icf, uint32_t *table, uint32_t mask)
{
    uint32_t colours = 0, n = 0;
    memset(table, 0xff, ((size_t)mask + 1) * sizeof(*table));
    for (uint32_t i = 0; i < icf->nactive; i++) {
        uint32_t c = icf->active[i], old = icf->colour[icf->number[c]];
        uint64_t hash = icf->candidates[c].now;
        uint32_t at = (uint32_t)(hash ^ old * 0x9e3779b1u) & mask;
        for (; table[at] != NONE; at = (at + 1) & mask) {
            uint32_t leader = table[at];
            if (icf->candidates[leader].now == hash && icf->colour[icf->number[leader]] == old)
                break;
        }
        if (table[at] == NONE) {
            table[at] = c;
            colours++;
        }
        icf->next[i] = table[at];
    }
    for (uint32_t i = 0; i < icf->nactive; i++)
        icf->colour[icf->number[icf->active[i]]] = icf->next[i];
    /* Who has company: count by leader, in the table. */
    memset(table, 0, ((size_t)mask + 1) * sizeof(*table));
    for (uint32_t i = 0; i < icf->nactive; i++)
        if (icf->next[i] != icf->active[i])
            table[icf->next[i] & mask] = 1;
    for (uint32_t i = 0; i < icf->nactive; i++) {
        uint32_t c = icf->active[i];
        if (icf->next[i] != c || table[c & mask])
            icf->active[n++] = c;
    }
    icf->nactive = n;
    return colours;
}

static void find_equal(struct kld_session *ctx, struct kld_folding *icf)
{
    uint32_t mask = 63;
    while (mask < icf->ncandidates * 2ull)
        mask = mask * 2 + 1;
    uint32_t *table = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, (size_t)mask + 1);
    icf->active = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, icf->ncandidates);
    icf->next = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, icf->ncandidates);
    icf->nactive = icf->ncandidates;
    kld_parallel_for(ctx, icf->ncandidates, GRAIN, hash_fixed, icf);
    /* All that have the same hash start with one colour, so that the colours before do not tell
     * them apart. Meanwhile edges are hashed by "is a candidate" only. */
    for (uint32_t i = 0; i < icf->ncandidates; i++) {
        icf->active[i] = i;
        icf->colour[icf->number[i]] = 0;
    }
    colour_round(icf, table, mask);
    for (;;) {
        uint32_t before = 0;
        for (uint32_t i = 0; i < icf->nactive; i++)
            before += icf->colour[icf->number[icf->active[i]]] == icf->active[i];
        kld_parallel_for(ctx, icf->nactive, GRAIN, hash_colours, icf);
        if (colour_round(icf, table, mask) == before)
            return;
    }
}

/* ---- folding ---- */

static size_t text_of(struct kld_session *ctx, const struct kld_atom *atom, bool colours,
                      uint8_t *out)
{
    struct scribe s = {.ctx = ctx, .colours = colours, .text = out};
    take_down(&s, atom);
    return s.size;
}

static bool really_equal(struct kld_session *ctx, struct kld_worker *worker,
                         const struct kld_atom *a, const struct kld_atom *b)
{
    for (int colours = 0; colours < 2; colours++) {
        size_t size = text_of(ctx, a, colours, NULL);
        if (size != text_of(ctx, b, colours, NULL))
            return false;
        uint8_t *text = kld_worker_buffer(worker, 2 * size + 1);
        text_of(ctx, a, colours, text);
        text_of(ctx, b, colours, text + size);
        if (memcmp(text, text + size, size) != 0)
            return false;
    }
    return true;
}

/* Checks what one of the active was coloured by. */
static void check(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    struct kld_folding *icf = arg;
    uint32_t c = icf->active[i], leader = icf->colour[icf->number[c]];
    if (leader != c &&
        !really_equal(ctx, worker, icf->candidates[leader].atom, icf->candidates[c].atom))
        icf->deceived = true;
}

static void note_atom(struct kld_session *ctx, const char *what, const struct kld_atom *atom)
{
    struct kld_str name = ctx->format->atom_name(atom);
    const struct kld_file *file = atom->file;
    if (file->member)
        kld_note(ctx, "icf-section", NULL, "%s section %s(%s):(%.*s)", what, file->path,
                 file->member, KLD_FMT(name));
    else
        kld_note(ctx, "icf-section", NULL, "%s section %s:(%.*s)", what, file->path, KLD_FMT(name));
}

/* --print-icf-sections: each atom that is kept for others, followed by these. */
static void print_folds(struct kld_session *ctx, const struct kld_folding *icf)
{
    uint32_t *first = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, icf->ncandidates);
    uint32_t *next = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, icf->ncandidates);
    for (uint32_t i = icf->nactive; i-- > 0;) {
        uint32_t c = icf->active[i], leader = icf->colour[icf->number[c]];
        if (leader == c)
            continue;
        next[c] = first[leader];
        first[leader] = c + 1;
    }
    for (uint32_t i = 0; i < icf->nactive; i++) {
        uint32_t c = icf->active[i];
        if (icf->colour[icf->number[c]] != c)
            continue;
        note_atom(ctx, "selected", icf->candidates[c].atom);
        for (uint32_t k = first[c]; k; k = next[k - 1])
            note_atom(ctx, "  removing identical", icf->candidates[k - 1].atom);
    }
}

static void fold(struct kld_atom *atom, struct kld_atom *into)
{
    into->p2align = KLD_MAX(into->p2align, atom->p2align);
    atom->flags |= KLD_ATOM_FOLDED;
    atom->nedges = 0;
    atom->folded_into = into;
    atom->live = 0;
}

static void move_symbols(struct kld_session *ctx, struct kld_worker *worker, void *arg,
                         size_t block)
{
    (void)worker, (void)arg;
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * SYMBOL_BLOCK, ctx->nsymbols);
    for (kld_symid id = (kld_symid)(block * SYMBOL_BLOCK); id < end; id++) {
        struct kld_symbol *sym = &ctx->symbols[id];
        if (sym->kind == KLD_SYM_DEFINED && !sym->in_section && sym->atom &&
            (sym->atom->flags & KLD_ATOM_FOLDED))
            sym->atom = sym->atom->folded_into;
    }
}

static void fold_all(struct kld_session *ctx, struct kld_folding *icf)
{
    if (ctx->options.print_icf_sections)
        print_folds(ctx, icf);
    for (uint32_t i = 0; i < icf->nactive; i++) {
        uint32_t c = icf->active[i], leader = icf->colour[icf->number[c]];
        if (leader != c)
            fold(icf->candidates[c].atom, icf->candidates[leader].atom);
    }
    kld_parallel_for(ctx, (ctx->nsymbols + SYMBOL_BLOCK - 1) / SYMBOL_BLOCK, 4, move_symbols, NULL);
}

void kld_icf(struct kld_session *ctx)
{
    if (ctx->options.icf == KLD_ICF_NONE || !ctx->format->icf_keep)
        return;
    struct kld_folding icf = {0};
    kld_arena_init(&ctx->scratch, &ctx->alloc, &ctx->oom);
    ctx->icf = &icf;
    number_atoms(ctx, &icf);
    ctx->format->icf_keep(ctx, keep);
    find_candidates(ctx, &icf);
    find_equal(ctx, &icf);
    kld_parallel_for(ctx, icf.nactive, GRAIN, check, &icf);
    if (!icf.deceived)
        fold_all(ctx, &icf);
    ctx->icf = NULL;
    kld_arena_free(&ctx->scratch);
}
