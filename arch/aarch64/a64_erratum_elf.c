/* a64_erratum_elf.c - erratum 843419 of the Cortex-A53, out of reach of what a64_apply_elf.c does.
 *
 * Arm Cortex-A53 MPCore Software Developers Errata Notice: an adrp in the last two words of a page,
 * then a load or store, then (with at most one instruction between, that is no branch) a load or
 * store with an unsigned offset from the adrp's register may use a wrong address. What is looked for
 * is a little more than what has it.
 *
 * That last load or store moves to an entry of an island, a branch behind it goes back, and a branch
 * to the entry takes its place. Islands have whole pages then, so that code behind them stays where
 * it is in its page and no new place comes to have the erratum. */
#include "arch/aarch64/a64_elf.h"
#include "formats/elf/elf_island.h"

enum { ENTRY_SIZE = 8, LONGEST = 16 };

/* ---- the pattern ---- */

static bool is_load_or_store(uint32_t insn)
{
    return (insn & 0x0a000000) == 0x08000000;
}

/* ... with an unsigned offset from that register */
static bool is_offset_from(uint32_t insn, unsigned reg)
{
    return (insn & 0x3b000000) == 0x39000000 && (insn >> 5 & 31) == reg;
}

/* b, bl, cbz, tbz, b.cond, br and their kin */
static bool is_branch(uint32_t insn)
{
    return (insn & 0x7c000000) == 0x14000000 || (insn & 0x7c000000) == 0x34000000 ||
           (insn & 0xfe000000) == 0x54000000 || (insn & 0xfe000000) == 0xd6000000;
}

/* How far behind the adrp at p, of `size` bytes, the instruction is that has the erratum; 0: none */
static uint32_t find_pattern(const uint8_t *p, uint64_t size)
{
    if (size < 12 || !a64_is_adrp(kld_get32(p)) || !is_load_or_store(kld_get32(p + 4)))
        return 0;
    unsigned reg = kld_get32(p) & 31;
    if (is_offset_from(kld_get32(p + 8), reg))
        return 8;
    if (size >= 16 && !is_branch(kld_get32(p + 8)) && is_offset_from(kld_get32(p + 12), reg))
        return 12;
    return 0;
}

/* ---- the bytes there, as they will be ---- */

struct window {
    uint8_t before[16]; /* what a relocation may change around its place */
    uint8_t bytes[LONGEST];
    uint8_t behind[16];
};

/* From the adrp that f is of; returns how many bytes. Branches stay branches, and may be out of
 * reach while islands grow. */
static uint32_t compose(const struct elf_fixup *f, struct window *window)
{
    uint64_t start = f->rel->r_offset;
    uint32_t size = (uint32_t)KLD_MIN(f->atom->size - start, (uint64_t)LONGEST);
    const elf_rela *rels = f->atom->edges;
    memcpy(window->bytes, f->atom->data + start, size);
    for (uint32_t i = 0, done; i < f->atom->nedges; i += done) {
        done = 1;
        if (rels[i].r_offset < start || rels[i].r_offset >= start + size)
            continue;
        struct elf_fixup at = elf_fixup_at(f->ctx, f->atom, i);
        at.field = window->bytes + (rels[i].r_offset - start);
        if (!is_branch(kld_get32(at.field)))
            done = a64_apply_edge(&at);
    }
    return size;
}

/* ---- finding, writing, applying ---- */

/* The pattern at the edge of f as it will be: not where the adrp becomes an adr, nor where what
 * follows is relaxed to something else. That makes no new ones. */
static uint32_t find_erratum(const struct elf_fixup *f)
{
    struct window window = {0};
    uint64_t start = f->rel->r_offset;
    if (!f->atom->data || !find_pattern(f->atom->data + start, f->atom->size - start))
        return 0;
    return find_pattern(window.bytes, compose(f, &window));
}

void a64_want_erratum(struct kld_worker *worker, const struct elf_fixup *f, kld_wants *wants)
{
    uint32_t moved = find_erratum(f);
    struct kld_island_key key = {f->atom, f->rel->r_offset + moved, A64_ERRATUM};
    if (moved)
        a64_want(worker, f, &key, f->p + moved, ENTRY_SIZE, wants);
}

void a64_write_erratum(const struct elf_fixup *f, uint64_t offset, uint8_t *out, uint64_t at)
{
    struct window window = {0};
    uint64_t moved = offset - f->rel->r_offset;
    compose(f, &window);
    memcpy(out, window.bytes + moved, 4);
    a64_put_branch(out + 4, at + 4, f->p + moved + 4);
}

void a64_apply_erratum(struct kld_session *ctx, const struct kld_atom *atom, uint8_t *out)
{
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges; i++) {
        uint64_t start = rels[i].r_offset, entry;
        if (!a64_ends_page(atom->addr + start))
            continue;
        uint64_t offset = find_pattern(out + start, atom->size - start);
        if (!offset)
            continue;
        offset += start;
        struct kld_where where = elf_where(atom, start);
        if (a64_find_erratum(ctx, atom, offset, &entry))
            a64_put_branch(out + offset, atom->addr + offset, entry);
        else
            kld_error(ctx, "erratum-843419", &where,
                      "--fix-cortex-a53-843419: no place for an island is in reach");
    }
}
