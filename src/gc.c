/* gc.c - --gc-sections: which atoms can be reached from the roots.
 *
 * Needs final symbols. Afterwards atom->live is 1 exactly for what is part of the output.
 *
 * The format names the roots, the edges of an atom, and what else lives because an atom does. An
 * atom is a candidate (live is 1, as the format made it) until it is marked; the last step makes
 * one of the two nothing. Atoms that are not in memory at run time are marked by the format's
 * rules and never followed: debug information mentions everything.
 *
 * Marking goes by file: a marked atom waits in a list of its file, and when it is the file's turn, all that wait
 * are followed, while what the file's relocations are read with is in the cache, and each symbol of the file's own
 * once. (Going from atom to atom took a quarter more time.) The files with lists make a round, in which threads take
 * one after the other; files that get a list once they had their turn, or had none yet, are the next round's. There
 * is no recursion, and nothing is shared but the marks and the lists. The outcome does not depend on who came first. */
#include "src/gc.h"

enum {
    CANDIDATE = 1,
    MARKED = 2,
    EDGES = 64, /* decoded at a time */
};

typedef KLD_VEC(uint32_t) file_list;

struct kld_gc {
    /* By file: the first atom that waits. kld_atom.addr leads to the next one for so long. */
    _Atomic(struct kld_atom *) *waiting;
    file_list *found;      /* by worker: for the next round */
    file_list files;       /* of this round */
    _Atomic uint8_t *seen; /* by symbol id: some edge to it has been followed */
};

/* The thread whose atom is the first to wait has the file's turn come. */
static void wait_in_file(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom)
{
    struct kld_gc *gc = ctx->gc;
    _Atomic(struct kld_atom *) *first = &gc->waiting[atom->file->index];
    struct kld_atom *next = atomic_load_explicit(first, memory_order_relaxed);
    do
        atom->addr = (uintptr_t)next;
    while (!atomic_compare_exchange_weak_explicit(first, &next, atom, memory_order_release,
                                                  memory_order_relaxed));
    if (!next)
        *kld_vec_push(&worker->arena, &gc->found[worker->index]) = atom->file->index;
}

static void mark(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom)
{
    if (atomic_load_explicit(&atom->live, memory_order_relaxed) != CANDIDATE)
        return;
    uint8_t was = CANDIDATE;
    if (!atomic_compare_exchange_strong_explicit(&atom->live, &was, MARKED, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    if ((atom->flags & KLD_ATOM_ALLOC) && atom->kind == KLD_ATOM_BYTES)
        wait_in_file(ctx, worker, atom);
}

static void follow(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom,
                   const struct kld_seen *seen)
{
    struct kld_edge edges[EDGES];
    size_t from = 0, n;
    if (atom->nedges)
        while ((n = ctx->format->edges(ctx, atom, &from, edges, EDGES, seen)) > 0)
            for (size_t i = 0; i < n; i++) {
                if (edges[i].atom)
                    mark(ctx, worker, edges[i].atom);
                else if (ctx->format->gc_symbol)
                    ctx->format->gc_symbol(ctx, worker, edges[i].symbol, mark);
            }
    ctx->format->gc_follow(ctx, worker, atom, mark);
}

/* What is marked meanwhile in the file itself is followed as well. */
static void follow_file(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    struct kld_gc *gc = arg;
    _Atomic(struct kld_atom *) *first = &gc->waiting[gc->files.data[i]];
    struct kld_atom *atom;
    size_t words = ctx->format->own_symbols(ctx->files[gc->files.data[i]]) / 64 + 1;
    struct kld_seen seen = {.global = gc->seen};
    seen.own = (uint64_t *)kld_worker_buffer(worker, words * sizeof(*seen.own));
    memset(seen.own, 0, words * sizeof(*seen.own));
    while ((atom = atomic_exchange_explicit(first, NULL, memory_order_acquire)))
        for (struct kld_atom *next; atom; atom = next) {
            next = (struct kld_atom *)(uintptr_t)atom->addr;
            atom->addr = 0;
            follow(ctx, worker, atom, &seen);
        }
}

/* False if there are no more files to look at. */
static bool next_round(struct kld_session *ctx, struct kld_gc *gc)
{
    gc->files.len = 0;
    for (unsigned w = 0; w < kld_pool_size(ctx); w++) {
        for (size_t i = 0; i < gc->found[w].len; i++)
            *kld_vec_push(&ctx->scratch, &gc->files) = gc->found[w].data[i];
        gc->found[w].len = 0;
    }
    return gc->files.len > 0;
}

/* ---- the rest goes ---- */

static void sweep(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t f)
{
    (void)worker, (void)arg;
    struct kld_file *file = ctx->files[f];
    for (uint32_t i = 0; i < file->natoms; i++) {
        struct kld_atom *a = &file->atoms[i];
        if (a->kind == KLD_ATOM_RECORDS) /* the format drops records one by one */
            a->live = a->live != 0;
        else
            a->live = a->live == MARKED;
    }
}

/* --print-gc-sections, before sweep. */
static void print_file(struct kld_session *ctx, const struct kld_file *file)
{
    for (uint32_t i = 0; i < file->natoms; i++) {
        const struct kld_atom *a = &file->atoms[i];
        if (a->live != CANDIDATE || a->kind == KLD_ATOM_RECORDS || !a->size)
            continue;
        struct kld_str name = ctx->format->atom_name(a);
        if (file->member)
            kld_note(ctx, "gc-section", NULL, "removing unused section %s(%s):(%.*s)", file->path,
                     file->member, KLD_FMT(name));
        else
            kld_note(ctx, "gc-section", NULL, "removing unused section %s:(%.*s)", file->path,
                     KLD_FMT(name));
    }
}

void kld_gc(struct kld_session *ctx)
{
    if (!ctx->options.gc_sections)
        return;
    struct kld_gc gc = {0};
    kld_arena_init(&ctx->scratch, &ctx->alloc, &ctx->oom);
    gc.waiting = KLD_NEW_ARRAY(&ctx->scratch, _Atomic(struct kld_atom *), ctx->nfiles);
    gc.found = KLD_NEW_ARRAY(&ctx->scratch, file_list, kld_pool_size(ctx));
    gc.seen = KLD_NEW_ARRAY(&ctx->scratch, _Atomic uint8_t, ctx->nsymbols);
    ctx->gc = &gc;
    ctx->format->gc_roots(ctx, mark);
    while (next_round(ctx, &gc))
        kld_parallel_for(ctx, gc.files.len, 1, follow_file, &gc);
    if (ctx->options.print_gc_sections)
        for (uint32_t f = 0; f < ctx->nfiles; f++)
            print_file(ctx, ctx->files[f]);
    kld_parallel_for(ctx, ctx->nfiles, 32, sweep, NULL);
    for (size_t i = 0; i < ctx->made.len; i++)
        ctx->made.data[i]->live = ctx->made.data[i]->live != 0;
    ctx->gc = NULL;
    kld_arena_free(&ctx->scratch);
}
