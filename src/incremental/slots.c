/* slots.c - free space in the sections of an output that is being patched.
 *
 * Slots never overlap and never touch: what is given back is joined with its neighbours. A slot is
 * a gap: it keeps to the section's rule, and is filled so that nobody who walks the section stumbles
 * over it. First fit, in the order of the state, so that the same edits give the same bytes. */
#include "src/incremental/relink.h"
#include "src/incremental/slack.h"

static struct kld_slack_rule rule_of(const struct kld_relink *r, const struct kld_section *s)
{
    return r->ctx->format->updater->slack_rule(r->ctx, s);
}

static bool is_gap(const struct kld_slack_rule *rule, uint64_t size)
{
    return !size || (size >= rule->least && size % KLD_MAX(rule->granule, 1u) == 0);
}

bool kld_slots_fit(const struct kld_relink *r, const struct kld_section *s, uint64_t size,
                   uint64_t capacity)
{
    struct kld_slack_rule rule = rule_of(r, s);
    if (rule.kind == KLD_SLACK_NONE)
        return size == capacity;
    if (rule.tight && size != capacity)
        return false;
    return size <= capacity && is_gap(&rule, capacity - size);
}

enum { BEHIND_ATOM, SLOT }; /* gap.unused */

static bool is_within(const struct kld_section *s, uint64_t addr, uint64_t size)
{
    return addr >= s->addr && kld_in_bounds(addr - s->addr, size, s->size);
}

static void add_gap(struct kld_relink *r, uint32_t section, uint64_t addr, uint64_t size, int what)
{
    if (size)
        *kld_vec_push(&r->ctx->arena, &r->gaps) =
            (struct kld_state_slot){section, (uint32_t)what, addr, size};
}

void kld_slots_gap(struct kld_relink *r, uint32_t section, uint64_t addr, uint64_t size)
{
    add_gap(r, section, addr, size, BEHIND_ATOM);
}

/* What is left in front of an aligned address must be a gap of its own. */
static bool place_in(const struct kld_slack_rule *rule, const struct kld_state_slot *slot,
                     uint64_t size, uint64_t align, uint64_t *addr)
{
    for (uint64_t at = kld_align_up(slot->addr, align); at - slot->addr <= slot->size;
         at += KLD_MAX(align, 1u)) {
        if (size > slot->size - (at - slot->addr))
            return false;
        if (!is_gap(rule, at - slot->addr))
            continue;
        *addr = at;
        return true;
    }
    return false;
}

static void give(struct kld_relink *r, const struct kld_section *s, uint64_t addr, uint64_t size,
                 bool filled);

bool kld_slots_take(struct kld_relink *r, const struct kld_section *s, uint64_t size,
                    uint64_t align, uint64_t *addr, uint64_t *capacity)
{
    struct kld_slack_rule rule = rule_of(r, s);
    struct kld_atom model = {.size = size};
    if (rule.kind == KLD_SLACK_NONE)
        return false;
    uint64_t wanted = kld_slack_capacity(r->ctx, s, &model, &rule);
    for (size_t i = 0; i < r->slots.len; i++) {
        struct kld_state_slot slot = r->slots.data[i];
        uint64_t at;
        if (slot.section != s->id || !place_in(&rule, &slot, size, align, &at))
            continue;
        uint64_t room = slot.size - (at - slot.addr), rest = room - KLD_MIN(room, wanted);
        if (!is_gap(&rule, rest) || !is_gap(&rule, room - rest - size)) {
            rest = 0; /* all of it, if that is a gap behind the bytes */
            if (!is_gap(&rule, room - size))
                continue;
        }
        uint64_t end = at + room - rest;
        r->slots.data[i].section = KLD_STATE_NONE;
        if (at != slot.addr)
            give(r, s, slot.addr, at - slot.addr, true);
        if (rest)
            give(r, s, end, rest, true);
        *addr = at;
        *capacity = end - at;
        return true;
    }
    return false;
}

/* filled: it is a part of what was free before. */
static void give(struct kld_relink *r, const struct kld_section *s, uint64_t addr, uint64_t size,
                 bool filled)
{
    struct kld_state_slot *unused = NULL;
    const uint64_t given = addr, given_size = size;
    if (!is_within(s, addr, size)) {
        r->st.damaged = true;
        return;
    }
    for (size_t i = 0; i < r->slots.len && size; i++) {
        struct kld_state_slot *slot = &r->slots.data[i];
        if (slot->section == KLD_STATE_NONE)
            unused = unused ? unused : slot;
        if (slot->section != s->id)
            continue;
        if (slot->addr + slot->size == addr) {
            addr = slot->addr;
        } else if (addr + size != slot->addr) {
            continue;
        }
        size += slot->size;
        slot->section = KLD_STATE_NONE;
        unused = slot;
    }
    if (!size)
        return;
    /* Without a free record the space is lost until the next full link; it is still filled. */
    if (unused)
        *unused = (struct kld_state_slot){.section = s->id, .addr = addr, .size = size};
    if (!rule_of(r, s).constant)
        add_gap(r, s->id, addr, size, unused ? SLOT : BEHIND_ATOM);
    else if (!filled) /* what it was joined with is as it is to be, however large it is */
        add_gap(r, s->id, given, given_size, unused ? SLOT : BEHIND_ATOM);
}

void kld_slots_give(struct kld_relink *r, const struct kld_section *s, uint64_t addr, uint64_t size)
{
    give(r, s, addr, size, false);
}

void kld_slots_load(struct kld_relink *r)
{
    uint64_t n = kld_state_count(&r->st, KLD_T_SLOTS);
    const struct kld_state_slot *slots = kld_state_get(&r->st, KLD_T_SLOTS, 0, n);
    if (n > r->ctx->sections.len + KLD_STATE_SPARE_SLOTS)
        r->st.damaged = true;
    for (uint64_t i = 0; i < n && !r->st.damaged; i++) {
        *kld_vec_push(&r->ctx->arena, &r->slots) = slots[i];
        if (slots[i].section == KLD_STATE_NONE)
            continue;
        const struct kld_section *s = slots[i].section < r->ctx->sections.len
                                          ? r->ctx->sections.data[slots[i].section]
                                          : NULL;
        if (!s || !is_within(s, slots[i].addr, slots[i].size))
            r->st.damaged = true;
    }
}

void kld_slots_store(struct kld_relink *r)
{
    uint64_t n = kld_state_count(&r->st, KLD_T_SLOTS);
    const struct kld_state_slot *old = kld_state_get(&r->st, KLD_T_SLOTS, 0, n);
    for (uint64_t i = 0; i < n && i < r->slots.len; i++)
        if (memcmp(&old[i], &r->slots.data[i], sizeof(*old)) != 0)
            memcpy(kld_state_edit(&r->st, KLD_T_SLOTS, i, 1), &r->slots.data[i], sizeof(*old));
}

static void fill(struct kld_relink *r, const struct kld_section *s, uint64_t addr, uint64_t size)
{
    if (!is_within(s, addr, size)) {
        r->st.damaged = true;
        return;
    }
    uint8_t *bytes = KLD_NEW_ARRAY(&r->ctx->arena, uint8_t, size);
    r->ctx->format->updater->fill(r->ctx, s, addr - s->addr, bytes, size);
    kld_relink_write_at(r, s, addr, bytes, size);
}

/* A slot may have been given and taken again since; of one whose contents depend on its size all is to
 * be there still. */
static void fill_slot(struct kld_relink *r, const struct kld_section *s,
                      const struct kld_state_slot *gap)
{
    bool constant = rule_of(r, s).constant;
    for (size_t i = 0; i < r->slots.len; i++) {
        const struct kld_state_slot *slot = &r->slots.data[i];
        if (slot->section != gap->section)
            continue;
        uint64_t start = KLD_MAX(slot->addr, gap->addr);
        uint64_t end = KLD_MIN(slot->addr + slot->size, gap->addr + gap->size);
        bool whole = slot->addr == gap->addr && slot->size == gap->size;
        if (start < end && (constant || whole))
            fill(r, s, start, end - start);
    }
}

void kld_slots_fill(struct kld_relink *r)
{
    for (size_t i = 0; i < r->gaps.len && !r->st.damaged; i++) {
        const struct kld_state_slot *gap = &r->gaps.data[i];
        const struct kld_section *s = r->ctx->sections.data[gap->section];
        if (s->flags & KLD_ATOM_ZERO)
            continue;
        if (gap->unused == SLOT)
            fill_slot(r, s, gap);
        else
            fill(r, s, gap->addr, gap->size);
    }
}
