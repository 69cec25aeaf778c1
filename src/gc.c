/* gc.c - --gc-sections: which atoms can be reached from the roots.
 *
 * Needs final symbols. Afterwards atom->live is 1 exactly for what is part of the output.
 *
 * The format names the roots, the edges of an atom, and what else lives because an atom does. An
 * atom is a candidate (live is 1, as the format made it) until it is marked; the last step makes
 * one of the two nothing. Atoms that are not in memory at run time are marked by the format's
 * rules and never followed: debug information mentions everything.
 *
 * Marking goes in rounds. Each starts from a list of marked atoms that have not been followed;
 * threads take from it, follow what they find on stacks of their own, and put down what is left
 * after a while, which makes the next list. There is no recursion, and nothing is shared but the
 * marks. The outcome does not depend on who came first. */
#include "src/gc.h"

enum {
    CANDIDATE = 1,
    MARKED = 2,
    PATIENCE = 256, /* atoms followed for one of the list before a thread moves on */
    EDGES = 64,     /* decoded at a time */
};

typedef KLD_VEC(struct kld_atom *) atom_stack;

struct kld_gc {
    atom_stack *stacks;    /* of each worker */
    atom_stack list;       /* of this round */
    _Atomic uint8_t *seen; /* by symbol id: some edge to it has been followed */
};

static void mark(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom)
{
    if (atomic_load_explicit(&atom->live, memory_order_relaxed) != CANDIDATE)
        return;
    uint8_t was = CANDIDATE;
    if (!atomic_compare_exchange_strong_explicit(&atom->live, &was, MARKED, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    if ((atom->flags & KLD_ATOM_ALLOC) && atom->kind == KLD_ATOM_BYTES)
        *kld_vec_push(&worker->arena, &ctx->gc->stacks[worker->index]) = atom;
}

static void follow(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom)
{
    struct kld_edge edges[EDGES];
    size_t from = 0, n;
    if (atom->nedges)
        while ((n = ctx->format->edges(ctx, atom, &from, edges, EDGES, ctx->gc->seen)) > 0)
            for (size_t i = 0; i < n; i++) {
                if (edges[i].atom)
                    mark(ctx, worker, edges[i].atom);
                else if (ctx->format->gc_symbol)
                    ctx->format->gc_symbol(ctx, worker, edges[i].symbol, mark);
            }
    ctx->format->gc_follow(ctx, worker, atom, mark);
}

static void follow_one(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    struct kld_gc *gc = arg;
    atom_stack *stack = &gc->stacks[worker->index];
    follow(ctx, worker, gc->list.data[i]);
    for (unsigned n = 0; n < PATIENCE && stack->len; n++)
        follow(ctx, worker, stack->data[--stack->len]);
}

/* What the threads have put down becomes the next list. False if that is nothing. */
static bool next_round(struct kld_session *ctx, struct kld_gc *gc)
{
    size_t n = 0;
    for (unsigned w = 0; w < kld_pool_size(ctx); w++)
        n += gc->stacks[w].len;
    if (n > gc->list.cap) {
        gc->list.cap = n * 2;
        gc->list.data = KLD_NEW_ARRAY(&ctx->scratch, struct kld_atom *, gc->list.cap);
    }
    gc->list.len = 0;
    for (unsigned w = 0; w < kld_pool_size(ctx); w++) {
        for (size_t i = 0; i < gc->stacks[w].len; i++)
            gc->list.data[gc->list.len++] = gc->stacks[w].data[i];
        gc->stacks[w].len = 0;
    }
    return n > 0;
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
    gc.stacks = KLD_NEW_ARRAY(&ctx->scratch, atom_stack, kld_pool_size(ctx));
    gc.seen = KLD_NEW_ARRAY(&ctx->scratch, _Atomic uint8_t, ctx->nsymbols);
    ctx->gc = &gc;
    ctx->format->gc_roots(ctx, mark);
    while (next_round(ctx, &gc))
        kld_parallel_for(ctx, gc.list.len, 16, follow_one, &gc);
    if (ctx->options.print_gc_sections)
        for (uint32_t f = 0; f < ctx->nfiles; f++)
            print_file(ctx, ctx->files[f]);
    kld_parallel_for(ctx, ctx->nfiles, 32, sweep, NULL);
    for (size_t i = 0; i < ctx->made.len; i++)
        ctx->made.data[i]->live = ctx->made.data[i]->live != 0;
    ctx->gc = NULL;
    kld_arena_free(&ctx->scratch);
}
