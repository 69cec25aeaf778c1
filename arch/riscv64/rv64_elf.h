/* rv64_elf.h - what the loops over riscv64 ELF relocations share.
 *
 * RISC-V ELF Specification (riscv-elf-psabi-doc), "Relocations" and "Linker Relaxation". */
#ifndef KLD_RV64_ELF_H
#define KLD_RV64_ELF_H

#include "arch/riscv64/rv64_insn.h"
#include "formats/elf/elf_apply.h"
#include "formats/elf/elf_scan.h"

/* Of those that elf.h lacks, or has under another name */
enum {
    RV64_R_TLSDESC = 12,
    RV64_R_GOT32_PCREL = 41,
    RV64_R_PLT32 = 59,
    RV64_R_SET_ULEB128 = 60,
    RV64_R_SUB_ULEB128 = 61,
    RV64_R_TLSDESC_HI20 = 62,
    RV64_R_TLSDESC_LOAD_LO12 = 63,
    RV64_R_TLSDESC_ADD_LO12 = 64,
    RV64_R_TLSDESC_CALL = 65,
    RV64_NINFO,
};
enum { RV64_EF_RVC = 1, RV64_EF_FLOAT_ABI = 6, RV64_EF_RVE = 8, RV64_EF_TSO = 0x10 };
enum { RV64_SHT_ATTRIBUTES = 0x70000003, RV64_PT_ATTRIBUTES = 0x70000003 };

extern const struct elf_reloc_info rv64_info[RV64_NINFO];
extern const struct elf_arch_ops rv64_elf;

/* What relaxation makes of a sequence: how of struct elf_cut. */
enum rv64_cut {
    RV64_TAKEN_BACK,
    RV64_ALIGN,  /* padding that is not needed */
    RV64_CJ,     /* auipc, jalr: c.j */
    RV64_JAL,    /* auipc, jalr: jal */
    RV64_C_LUI,  /* lui: c.lui */
    RV64_DELETE, /* one instruction: the next ones do without */
};

/* rv64_scan_elf.c, rv64_apply_elf.c, rv64_relax_elf.c, rv64_merge_elf.c: of struct elf_arch_ops */
void rv64_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
               struct kld_atom *atom);
void rv64_apply(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                const struct kld_atom *atom, uint8_t *out);
void rv64_apply_debug(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                      const struct kld_atom *atom, uint8_t *out);
int64_t rv64_tp_offset(const struct kld_session *ctx, uint64_t address);
struct elf_shrunk *rv64_plan_cuts(struct kld_session *ctx, struct kld_worker *worker,
                                  struct elf_object *obj, struct kld_atom *atom);
bool rv64_check_cuts(struct kld_session *ctx, struct elf_object *obj, struct elf_shrunk *s,
                     uint64_t slack);
uint32_t rv64_cut_size(struct kld_session *ctx, const struct elf_object *obj,
                       const struct kld_atom *atom, const struct elf_cut *cut, uint64_t at);
void rv64_merge(struct kld_session *ctx);

/* The relocation of the auipc at the label that a low half refers to (psABI: "the address of an
 * instruction with a relocation of type ..._HI20"), or NULL. edge: its number. */
const elf_rela *rv64_high_part(const struct elf_object *obj, const struct kld_atom *atom,
                               const elf_rela *low, uint32_t *edge);

/* Whether relocation number i may be relaxed: R_RISCV_RELAX stands behind it, at the same place. Not
 * where code may move later on: what was near may then be far. */
static inline bool rv64_may_relax(const struct kld_session *ctx, const struct kld_atom *atom,
                                  uint32_t i)
{
    const elf_rela *rel = (const elf_rela *)atom->edges + i;
    return ctx->options.relax && !ctx->slack && i + 1 < atom->nedges &&
           ELF64_R_TYPE(rel[1].r_info) == R_RISCV_RELAX && rel[1].r_offset == rel->r_offset;
}

/* The register that reaches the address with a 12-bit offset, and the offset; -1: none does. In
 * position-independent output gp need not be set, and 0 is not a place of its own. */
static inline int rv64_base_register(const struct kld_session *ctx, uint64_t address,
                                     uint64_t *offset)
{
    const struct elf_link *elf = elf_state(ctx);
    *offset = address;
    if (rv64_fits(address, 12))
        return RV64_ZERO;
    *offset = address - elf->gp_addr;
    return ctx->options.relax_gp && elf->gp_symbol && rv64_fits(*offset, 12) ? RV64_GP : -1;
}

#endif
