/* slack.h - room for edits: how the cold link of --incremental spaces atoms, and what fills gaps.
 *
 * session.slack says whether this link's layout has slack. An atom's capacity is the distance to
 * the next atom of its section (for the last one, to section.used); from section.used to
 * section.pool_end is the section's pool, one free slot for atoms that move. */
#ifndef KLD_SRC_INCREMENTAL_SLACK_H
#define KLD_SRC_INCREMENTAL_SLACK_H

#include "src/session.h"

/* Which budget a section draws on. */
enum kld_slack_kind {
    KLD_SLACK_NONE, /* contiguous: no gap may ever be in it (arrays that code walks, .init, notes) */
    KLD_SLACK_CODE, /* --incremental-code-slack */
    KLD_SLACK_DATA, /* --incremental-data-slack */
};

/* What the format says of a section. A gap in it is of no bytes at all, or of at least `least` and
 * a multiple of `granule`. */
struct kld_slack_rule {
    enum kld_slack_kind kind;
    uint32_t least, granule;
    uint32_t pool;      /* bytes of pool, at least */
    bool constant;      /* what is in a gap is the same byte throughout */
    bool tight;         /* there is a pool, but no room between atoms */
    bool ends;          /* the last atom ends the section: the pool is in front of it */
    const void *filler; /* of the format: what is in gaps */
};

/* layout: bytes from the start of an atom of the section to where the next one may begin; before
 * that one's alignment. >= its size; leaves a gap that keeps to the rule. */
uint64_t kld_slack_capacity(const struct kld_session *ctx, const struct kld_section *s,
                            const struct kld_atom *atom, const struct kld_slack_rule *rule);

/* layout: log2 of what the atom is aligned to. */
uint8_t kld_slack_p2align(const struct kld_session *ctx, const struct kld_section *s,
                          const struct kld_atom *atom, const struct kld_slack_rule *rule);

/* layout: the first multiple of align from `at` on that leaves a gap behind `end`, where the atom
 * before it ends, that keeps to the rule. */
uint64_t kld_slack_align(const struct kld_slack_rule *rule, uint64_t end, uint64_t at,
                         uint64_t align);

/* layout: bytes of pool behind the atoms, `used` bytes of them. Keeps to the rule. */
uint64_t kld_slack_pool(const struct kld_session *ctx, const struct kld_section *s, uint64_t used,
                        const struct kld_slack_rule *rule);

/* Spare entries for a table of n. */
uint64_t kld_slack_spare(const struct kld_session *ctx, enum kld_slack_kind kind, uint64_t n);

#endif
