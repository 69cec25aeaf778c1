/* slack.c - how much room for edits there is, and where. See slack.h.
 *
 * Every atom of the inputs gets some room of its own, so that small edits stay where they are; the
 * pool takes what outgrows that. What is in memory gets the whole percentage for its atoms. Debug
 * information, the greater part of most outputs that have some, gets half: it may move at will. */
#include "src/incremental/slack.h"

enum {
    /* An island, which takes the place of code that has moved, fits into this. */
    LEAST_CODE = 16,
    /* Code grows by an instruction at least; less data than a word is not worth its alignment. */
    LEAST_CODE_GAP = 8,
    LEAST_DATA_GAP = 4,
    /* A section that a compilation unit has one of grows by whole statements and variables. */
    LEAST_UNIT_GAP = 64,
};

enum { CODE_PERCENT = 10, DATA_PERCENT = 20, FULL_SHARE = 4096 };

/* Edits are no larger for what they are made to being large: of all beyond the first 4 KiB a quarter of the
 * percentage will do, unless the user asks for one. (clang is 1.10 times as large then instead of 1.19, which
 * a cold link writes.) */
uint64_t kld_slack_spare(const struct kld_session *ctx, enum kld_slack_kind kind, uint64_t n)
{
    bool code = kind == KLD_SLACK_CODE;
    uint64_t percent =
        code ? ctx->options.incremental_code_slack : ctx->options.incremental_data_slack;
    if (percent != UINT64_MAX)
        return n * KLD_MIN(percent, 1000u) / 100;
    uint64_t share = n <= FULL_SHARE ? n : FULL_SHARE + (n - FULL_SHARE) / 4;
    return share * (code ? CODE_PERCENT : DATA_PERCENT) / 100;
}

/* A gap that keeps to the rule, of at least that size. */
static uint64_t keep_to_rule(const struct kld_slack_rule *rule, uint64_t gap)
{
    if (!gap)
        return 0;
    gap = KLD_MAX(gap, rule->least);
    return (gap + rule->granule - 1) / rule->granule * rule->granule;
}

static bool is_kept(const struct kld_slack_rule *rule, uint64_t gap)
{
    return gap == 0 || (gap >= rule->least && gap % rule->granule == 0);
}

uint64_t kld_slack_capacity(const struct kld_session *ctx, const struct kld_section *s,
                            const struct kld_atom *atom, const struct kld_slack_rule *rule)
{
    /* The linker's own have what they need, and those of merged contents must not be torn apart. */
    if (rule->kind == KLD_SLACK_NONE || rule->tight || atom->file == ctx->internal || !atom->size)
        return atom->size;
    uint64_t gap = kld_slack_spare(ctx, rule->kind, atom->size);
    if (!(s->flags & KLD_ATOM_ALLOC))
        gap /= 2;
    else if (atom->unit)
        gap = KLD_MAX(gap, (uint64_t)LEAST_UNIT_GAP);
    if (rule->kind == KLD_SLACK_CODE) {
        gap = KLD_MAX(gap, (uint64_t)LEAST_CODE_GAP);
        gap = KLD_MAX(gap, LEAST_CODE - KLD_MIN(atom->size, (uint64_t)LEAST_CODE));
    } else if (gap < LEAST_DATA_GAP && rule->least <= 1) {
        gap = 0;
    }
    return atom->size + keep_to_rule(rule, KLD_MAX(gap, rule->least > 1 ? 1u : 0u));
}

/* Compilers align what has 32 bytes or more to 32: data that grows is to stay where it is all the
 * same. */
uint8_t kld_slack_p2align(const struct kld_session *ctx, const struct kld_section *s,
                          const struct kld_atom *atom, const struct kld_slack_rule *rule)
{
    bool data = rule->kind == KLD_SLACK_DATA && rule->least == 1 && !rule->tight &&
                (s->flags & KLD_ATOM_ALLOC) && atom->file != ctx->internal && atom->size >= 32;
    return data ? KLD_MAX(atom->p2align, (uint8_t)5) : atom->p2align;
}

uint64_t kld_slack_align(const struct kld_slack_rule *rule, uint64_t end, uint64_t at,
                         uint64_t align)
{
    uint64_t start = kld_align_up(at, align);
    if (rule->kind == KLD_SLACK_NONE)
        return start;
    /* No size of gap need do: where the atom before has an odd end, the gap is what it is. */
    for (uint64_t tries = 0; tries <= rule->least / align + rule->granule; tries++)
        if (is_kept(rule, start + tries * align - end))
            return start + tries * align;
    return start;
}

/* What the largest atom of the inputs takes. */
static uint64_t largest_atom(const struct kld_session *ctx, const struct kld_section *s)
{
    uint64_t largest = 0;
    for (size_t i = 0; i < s->atoms.len; i++)
        if (s->atoms.data[i]->file != ctx->internal)
            largest = KLD_MAX(largest, s->atoms.data[i]->size);
    return largest;
}

uint64_t kld_slack_pool(const struct kld_session *ctx, const struct kld_section *s, uint64_t used,
                        const struct kld_slack_rule *rule)
{
    if (rule->kind == KLD_SLACK_NONE || !used)
        return 0;
    uint64_t share = kld_slack_spare(ctx, rule->kind, used);
    /* Merged contents of a file that has changed come once more; at most a third of all, for one file
     * may have brought nearly everything, as parts of Rust's standard library do. */
    uint64_t merged = KLD_MIN(2 * s->largest, KLD_MAX(share, used / 3) + rule->pool);
    uint64_t largest = largest_atom(ctx, s);
    if (!largest) /* there is nothing but merged contents */
        return keep_to_rule(rule, KLD_MAX(share, merged));
    /* Room for the largest to move, unless that would be a large part of all. */
    uint64_t pool = share / 4;
    if (s->flags & KLD_ATOM_ALLOC)
        pool = KLD_MAX(pool, KLD_MIN(2 * largest, share / 2));
    else if (
        rule->tight) /* one that needs an entry more moves as a whole; these sections are small */
        pool = KLD_MAX(pool, largest + largest / 4);
    return keep_to_rule(rule, KLD_MAX(KLD_MAX(pool, (uint64_t)rule->pool), merged));
}
