/* a64_relax_elf.c - which instructions are rewritten to do without a GOT slot.
 *
 * AAELF64 5.7.12 "Static link-time optimizations": an adrp and a ldr next to each other that load
 * an address from the GOT may compute it instead. The slot is left out only if nothing else uses
 * it, so both loops ask here, before and after addresses are known.
 *
 * Code may also reach the second instruction of a pair from an adrp elsewhere, which then is a use
 * outside of any pair. So pairs are rewritten only where the atom has no other use of that symbol. */
#include "arch/aarch64/a64_elf.h"

static void mark(uint64_t *set, uint32_t r_sym)
{
    set[r_sym / 64 % 16] |= 1ull << r_sym % 64;
}

static bool is_marked(const uint64_t *set, uint32_t r_sym)
{
    return set[r_sym / 64 % 16] >> r_sym % 64 & 1;
}

/* Whether edge i and the next, of these types, are for two instructions in a row on one symbol,
 * the first an adrp to the register (not 31) that is all that the second has as operands. */
static bool is_pair(const struct kld_atom *atom, uint32_t i, uint32_t first, uint32_t second,
                    uint32_t insn)
{
    const elf_rela *rel = (const elf_rela *)atom->edges + i;
    if (i + 1 >= atom->nedges || ELF64_R_TYPE(rel[0].r_info) != first ||
        ELF64_R_TYPE(rel[1].r_info) != second ||
        ELF64_R_SYM(rel[0].r_info) != ELF64_R_SYM(rel[1].r_info) ||
        rel[1].r_offset != rel[0].r_offset + 4 || rel[0].r_addend != rel[1].r_addend ||
        !atom->data || !kld_in_bounds(rel->r_offset, 8, atom->size))
        return false;
    uint32_t adrp = kld_get32(atom->data + rel->r_offset), reg = adrp & 31;
    return a64_is_adrp(adrp) && reg != 31 &&
           (kld_get32(atom->data + rel->r_offset + 4) & 0xffc003ff) == (insn | reg << 5 | reg);
}

static bool is_got_pair(const struct kld_atom *atom, uint32_t i)
{
    return is_pair(atom, i, A64_R_ADR_GOT_PAGE, A64_R_LD64_GOT_LO12_NC, A64_INSN_LDR64);
}

/* adrp x, v; and ldr x, [x, v], be there others between them or not */
static bool is_tls_load(const struct kld_atom *atom, const elf_rela *rel)
{
    if (!atom->data || !kld_in_bounds(rel->r_offset, 4, atom->size))
        return false;
    uint32_t insn = kld_get32(atom->data + rel->r_offset), reg = insn & 31;
    if (reg == 31)
        return false;
    return ELF64_R_TYPE(rel->r_info) == A64_R_TLSIE_ADR_GOTTPREL_PAGE21
               ? a64_is_adrp(insn)
               : (insn & 0xffc003ff) == (A64_INSN_LDR64 | reg << 5 | reg);
}

static void fill(struct a64_kept *kept, const struct kld_atom *atom)
{
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges; i++) {
        uint32_t r_sym = ELF64_R_SYM(rels[i].r_info);
        switch (ELF64_R_TYPE(rels[i].r_info)) {
        case A64_R_ADR_GOT_PAGE:
        case A64_R_LD64_GOT_LO12_NC:
            if (is_got_pair(atom, i))
                i++;
            else
                mark(kept->got, r_sym);
            break;
        case A64_R_TLSIE_ADR_GOTTPREL_PAGE21:
        case A64_R_TLSIE_LD64_GOTTPREL_LO12_NC:
            if (!is_tls_load(atom, &rels[i]))
                mark(kept->tls, r_sym);
            break;
        default: break;
        }
    }
    kept->known = true;
}

/* Relocations that are kept for other tools describe the instructions as they are. */
static bool may_rewrite(const struct kld_session *ctx)
{
    return ctx->options.relax && !ctx->options.emit_relocs;
}

bool a64_bypasses_got(const struct kld_session *ctx, const struct kld_atom *atom, uint32_t i,
                      enum elf_class class, struct a64_kept *kept)
{
    if (class != ELF_TO_LOCAL || !may_rewrite(ctx) || elf_state(ctx)->no_gotpcrelx ||
        !is_got_pair(atom, i))
        return false;
    if (!kept->known)
        fill(kept, atom);
    return !is_marked(kept->got, ELF64_R_SYM(((const elf_rela *)atom->edges + i)->r_info));
}

bool a64_bypasses_tls_slot(const struct kld_session *ctx, const struct kld_atom *atom, uint32_t i,
                           enum elf_class class, struct a64_kept *kept)
{
    const elf_rela *rel = (const elf_rela *)atom->edges + i;
    if (elf_tls(elf_state(ctx), class) != ELF_TLS_LE || !may_rewrite(ctx) ||
        ELF64_R_TYPE(rel->r_info) == A64_R_TLSIE_LD_GOTTPREL_PREL19)
        return false;
    if (!kept->known)
        fill(kept, atom);
    return !is_marked(kept->tls, ELF64_R_SYM(rel->r_info));
}

bool a64_is_address_pair(const struct kld_session *ctx, const struct kld_atom *atom, uint32_t i)
{
    return may_rewrite(ctx) &&
           is_pair(atom, i, A64_R_ADR_PREL_PG_HI21, A64_R_ADD_ABS_LO12_NC, A64_INSN_ADD64);
}
