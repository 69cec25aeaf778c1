/* a64_island_elf.c - entries of islands (src/island.h): for b and bl, which reach 128 MiB.
 *
 *   adrp x16, target; add x16, x16, :lo12:target; br x16
 *
 * reaches 4 GiB and needs no relocation at run time. The ABI leaves x16 and x17 to the linker
 * between a branch and its target (AAPCS64 6.1.1).
 *
 * On guarded pages (BTI) br x16 must land on bti c or its like. A compiler leaves that out where it
 * sees all callers, or jumps into the middle of a function: if all inputs are marked for BTI, such
 * a target gets a second entry, in an island that a plain branch can reach it from:
 *
 *   bti c; b target
 *
 * and br x16 goes there. Conditional branches, which reach 1 MiB or less, have no islands: compilers
 * use them inside a section only.
 *
 * The entries for erratum 843419 are in a64_erratum_elf.c. */
#include "arch/aarch64/a64_elf.h"
#include "formats/elf/elf_island.h"
#include "formats/elf/elf_property.h"

enum { FAR_SIZE = 12, PAD_SIZE = 8, BTI_C = A64_INSN_BTI_C };

#define REACH                                                                                      \
    {                                                                                              \
        .back = -(128 << 20), .ahead = (128 << 20) - 4                                             \
    }
static const struct kld_reach reach = REACH;

static bool is_branch(uint32_t type)
{
    return type == R_AARCH64_CALL26 || type == R_AARCH64_JUMP26;
}

/* ---- guarded pages ---- */

/* PLT entries begin with one; of what is not in an atom nothing is known. */
static bool needs_pad(const struct elf_fixup *f)
{
    enum { BTI = 1 };
    uint64_t offset;
    if (!(elf_property_feature_1(f->ctx) & BTI))
        return false;
    const struct kld_atom *atom = elf_branch_atom(f, &offset);
    return atom && atom->data && kld_in_bounds(offset, 4, atom->size) &&
           !a64_is_landing_pad(kld_get32(atom->data + offset));
}

/* ---- finding ---- */

void a64_want(struct kld_worker *worker, const struct elf_fixup *f,
              const struct kld_island_key *key, uint64_t place, uint32_t size, kld_wants *wants)
{
    const elf_rela *first = f->atom->edges;
    uint64_t at;
    if (!kld_island_find(f->ctx->islands, key, place, reach, &at))
        *kld_vec_push(&worker->arena, wants) =
            (struct kld_want){*key, reach, place, size, (uint32_t)(f->rel - first), f->atom};
}

static void find_branch(struct kld_worker *worker, const struct elf_fixup *f, kld_wants *wants)
{
    uint64_t target = elf_fixup_branch(f) + (uint64_t)f->a;
    if (kld_reaches(reach, f->p, target))
        return;
    if (elf_fixup_class(f) == ELF_TO_CONSTANT && !elf_fixup_value(f))
        return; /* undefined and weak: a nop */
    struct kld_island_key key = elf_branch_key(f, A64_FAR);
    a64_want(worker, f, &key, f->p, FAR_SIZE, wants);
    if (!needs_pad(f))
        return;
    key.kind = A64_PAD;
    a64_want(worker, f, &key, target, PAD_SIZE, wants);
}

static bool always(const struct kld_session *ctx)
{
    return ctx->options.fix_cortex_a53_843419;
}

static void find(struct kld_session *ctx, struct kld_worker *worker, const struct kld_atom *atom,
                 bool far, kld_wants *wants)
{
    const elf_rela *rels = atom->edges;
    bool erratum = always(ctx);
    for (uint32_t i = 0; i < atom->nedges; i++) {
        bool branch = is_branch(ELF64_R_TYPE(rels[i].r_info));
        if (branch ? !far : !erratum || !a64_ends_page(atom->addr + rels[i].r_offset))
            continue;
        struct elf_fixup f = elf_fixup_at(ctx, atom, i);
        if (branch)
            find_branch(worker, &f, wants);
        else
            a64_want_erratum(worker, &f, wants);
    }
}

/* ---- applying ---- */

uint64_t a64_island(const struct elf_fixup *f, uint64_t target)
{
    uint64_t at;
    if (kld_reaches(reach, f->p, target))
        return target;
    struct kld_island_key key = elf_branch_key(f, A64_FAR);
    return kld_island_find(f->ctx->islands, &key, f->p, reach, &at) ? at : target;
}

bool a64_find_erratum(const struct kld_session *ctx, const struct kld_atom *atom, uint64_t offset,
                      uint64_t *entry)
{
    struct kld_island_key key = {atom, offset, A64_ERRATUM};
    return ctx->islands && kld_island_find(ctx->islands, &key, atom->addr + offset, reach, entry);
}

void a64_put_branch(uint8_t *out, uint64_t at, uint64_t target)
{
    kld_put32(out, 0x14000000);
    a64_put_bits(out, 0, 26, (target - at) >> 2);
}

static void write_far(const struct elf_fixup *f, uint8_t *out, uint64_t at, uint64_t target)
{
    struct kld_island_key pad = elf_branch_key(f, A64_PAD);
    if (needs_pad(f))
        kld_island_find(f->ctx->islands, &pad, target, reach, &target);
    elf_check_range(f, a64_page(target) - a64_page(at), 33, true);
    kld_put32(out, 0x90000010);     /* adrp x16 */
    kld_put32(out + 4, 0x91000210); /* add x16, x16 */
    kld_put32(out + 8, 0xd61f0200); /* br x16 */
    a64_put_adrp(out, at, target);
    a64_put_imm12(out + 4, target, 0);
}

static void write_entry(const struct elf_fixup *f, const struct kld_island_key *key, uint8_t *out,
                        uint64_t at)
{
    uint64_t target = key->kind == A64_ERRATUM ? 0 : elf_fixup_branch(f) + (uint64_t)f->a;
    switch ((enum a64_island)key->kind) {
    case A64_FAR: write_far(f, out, at, target); break;
    case A64_PAD:
        kld_put32(out, BTI_C);
        a64_put_branch(out + 4, at + 4, target);
        break;
    case A64_ERRATUM: a64_write_erratum(f, key->offset, out, at); break;
    }
}

/* The first are those of GNU ld. */
static const char *const names[][2] = {[A64_FAR] = {"__", "_veneer"},
                                       [A64_PAD] = {"__", "_bti_veneer"},
                                       [A64_ERRATUM] = {"__", "_843419_veneer"}};

const struct elf_island_ops a64_islands = {
    .reach = REACH,
    .always = always,
    .unit = 4096,
    .p2align = 2,
    .find = find,
    .write = write_entry,
    .names = names,
    .mapping = "$x",
};
