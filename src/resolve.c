/* resolve.c - which definition of a name wins, in parallel and independent of timing.
 *
 * Needs: the files of the link are known and parsed, all names are interned (kld_load).
 * Afterwards: COMDAT groups are elected, live files have atoms, every symbol is bound.
 *
 * Each file votes for its definition of a name with a 64-bit key: rank of the kind of
 * definition, then the file's place in input order. The smallest key wins; an atomic minimum
 * makes the result independent of who comes first. GNU ld and lld agree on the ranks: a strong
 * definition, then COMMON, then weak, then one in a shared library; among equals the first. */
#include "src/resolve.h"
#include "src/load.h"
#include "src/undefined.h"

enum rank { RANK_STRONG = 1, RANK_COMMON = 2, RANK_WEAK = 3, RANK_SHARED = 4 };

static uint64_t make_key(uint64_t rank, const struct kld_file *file, uint32_t i)
{
    return rank << 60 | (uint64_t)file->index << 32 | i;
}

/* The vote of a file for its name i, or 0 if it does not define it. */
static uint64_t vote_of(const struct kld_file *file, uint32_t i)
{
    bool shared = file->kind == KLD_FILE_SHARED;
    switch (KLD_NAME_CLASS(file->classes[i])) {
    case KLD_NAME_DEF: return make_key(shared ? RANK_SHARED : RANK_STRONG, file, i);
    case KLD_NAME_DEF_WEAK: return make_key(shared ? RANK_SHARED : RANK_WEAK, file, i);
    case KLD_NAME_COMMON: return make_key(shared ? RANK_SHARED : RANK_COMMON, file, i);
    default: return 0;
    }
}

static void atomic_min64(_Atomic uint64_t *at, uint64_t value)
{
    uint64_t old = atomic_load_explicit(at, memory_order_relaxed);
    while ((old == 0 || value < old) &&
           !atomic_compare_exchange_weak_explicit(at, &old, value, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

static void atomic_min32(_Atomic uint32_t *at, uint32_t value)
{
    uint32_t old = atomic_load_explicit(at, memory_order_relaxed);
    while ((old == 0 || value < old) &&
           !atomic_compare_exchange_weak_explicit(at, &old, value, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

bool kld_resolve_won(const struct kld_session *ctx, const struct kld_file *file, uint32_t i)
{
    uint64_t vote = vote_of(file, i);
    return vote &&
           atomic_load_explicit(&ctx->resolver->best[file->ids[i]], memory_order_relaxed) == vote;
}

/* ---- the steps, each a loop over files ---- */

static void claim_groups(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)w, (void)arg;
    struct kld_file *file = ctx->files[i];
    for (uint32_t g = 0; g < file->ngroups; g++)
        atomic_min32(&ctx->resolver->group_owner[file->ids[file->groups[g].name]], file->index + 1);
}

static void settle_groups(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)arg;
    struct kld_file *file = ctx->files[i];
    for (uint32_t g = 0; g < file->ngroups; g++)
        file->groups[g].discarded =
            atomic_load_explicit(&ctx->resolver->group_owner[file->ids[file->groups[g].name]],
                                 memory_order_relaxed) != file->index + 1;
    ctx->format->make_atoms(ctx, w, file);
}

/* Bits of visibility in the order of how much they restrict. */
static unsigned restriction(unsigned visibility)
{
    static const unsigned char order[] = {0, 3, 2, 1}; /* default internal hidden protected */
    return order[visibility];
}

static void merge_visibility(struct kld_symbol *sym, unsigned visibility)
{
    uint8_t old = atomic_load_explicit(&sym->visibility, memory_order_relaxed);
    while (restriction(visibility) > restriction(old) &&
           !atomic_compare_exchange_weak_explicit(&sym->visibility, &old, (uint8_t)visibility,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

static void vote(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)w, (void)arg;
    struct kld_file *file = ctx->files[i];
    bool shared = file->kind == KLD_FILE_SHARED;
    for (uint32_t n = 0; n < file->nglobals; n++) {
        uint8_t class = file->classes[n];
        kld_symid id = file->ids[n];
        if (KLD_NAME_CLASS(class) == KLD_NAME_IGNORED)
            continue;
        uint64_t v = vote_of(file, n);
        struct kld_symbol *sym = &ctx->symbols[id];
        kld_ask_for_symbol(ctx, file, n + KLD_ASK_AHEAD);
        if (v)
            atomic_min64(&ctx->resolver->best[id], v);
        if (shared) {
            kld_symbol_flag(sym, v ? KLD_SYM_DEF_SHARED : KLD_SYM_REF_SHARED);
            continue;
        }
        kld_symbol_flag(sym, KLD_NAME_CLASS(class) == KLD_NAME_UNDEF
                                 ? KLD_SYM_REF_REGULAR | KLD_SYM_REF_STRONG
                                 : KLD_SYM_REF_REGULAR);
        if (kld_unlikely(KLD_NAME_VISIBILITY(class)))
            merge_visibility(sym, KLD_NAME_VISIBILITY(class));
    }
}

/* ---- duplicates ---- */

static void report_duplicate(struct kld_session *ctx, const struct kld_file *file, uint32_t i,
                             const struct kld_symbol *sym)
{
    struct kld_definition first = {.file = sym->file}, second = {.file = file};
    if (sym->kind == KLD_SYM_DEFINED && !sym->in_section) {
        first.atom = sym->atom;
        first.offset = sym->value;
    }
    second.atom = ctx->format->definition(file, i, &second.offset);
    kld_report_duplicate(ctx, sym, &first, &second);
}

/* Two absolute definitions that agree do not clash. */
static bool same_number(const struct kld_session *ctx, const struct kld_file *file, uint32_t i,
                        const struct kld_symbol *sym)
{
    uint64_t value;
    return sym->kind == KLD_SYM_ABSOLUTE && ctx->format->is_absolute(file, i, &value) &&
           value == sym->value;
}

/* Runs after bind, so that sym->file names the winner. */
static void find_duplicates(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)w, (void)arg;
    struct kld_file *file = ctx->files[i];
    if (file->kind != KLD_FILE_OBJECT || file->just_symbols)
        return;
    for (uint32_t n = 0; n < file->nglobals; n++) {
        if (KLD_NAME_CLASS(file->classes[n]) != KLD_NAME_DEF)
            continue;
        kld_symid id = file->ids[n];
        uint64_t best = atomic_load_explicit(&ctx->resolver->best[id], memory_order_relaxed);
        bool assigned = (best >> 32 & 0xfffffff) == ctx->internal->index; /* overrides */
        if (best != make_key(RANK_STRONG, file, n) && best >> 60 == RANK_STRONG && !assigned &&
            !same_number(ctx, file, n, &ctx->symbols[id]))
            report_duplicate(ctx, file, n, &ctx->symbols[id]);
    }
}

static void bind_file(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)arg;
    ctx->format->bind(ctx, w, ctx->files[i]);
}

void kld_resolve_names(struct kld_session *ctx)
{
    struct kld_resolver *r = ctx->resolver;
    size_t n = ctx->nfiles;
    r->group_owner = KLD_NEW_ARRAY(&r->arena, _Atomic uint32_t, ctx->nsymbols);
    r->best = KLD_NEW_ARRAY(&r->arena, _Atomic uint64_t, ctx->nsymbols);
    kld_parallel_for(ctx, n, 4, claim_groups, NULL);
    kld_parallel_for(ctx, n, 1, settle_groups, NULL);
    kld_parallel_for(ctx, n, 4, vote, NULL);
    kld_parallel_for(ctx, n, 4, bind_file, NULL);
    if (!ctx->options.allow_multiple_definition)
        kld_parallel_for(ctx, n, 4, find_duplicates, NULL);
    ctx->format->bind_all(ctx);
    kld_arena_free(&r->arena);
    r->best = NULL;
    r->group_owner = NULL;
}
