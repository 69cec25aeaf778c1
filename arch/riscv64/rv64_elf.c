/* rv64_elf.c - riscv64 ELF: relocation types, PLT, and what generic code asks of the CPU.
 *
 * RISC-V ELF Specification (riscv-elf-psabi-doc) 1.0 and later. The loops over relocations are in
 * rv64_scan_elf.c and rv64_apply_elf.c, relaxation is in rv64_relax_elf.c. */
#include "arch/riscv64/rv64_elf.h"

#define ROW(name, width, pc_relative, kind, address_taken)                                         \
    [R_RISCV_##                                                                                    \
        name] = {"R_RISCV_" #name, width, pc_relative, ELF_RELOC_##kind, address_taken, 0, false}
#define OWN_ROW(name, width, pc_relative, kind, address_taken)                                     \
    [RV64_R_##                                                                                     \
        name] = {"R_RISCV_" #name, width, pc_relative, ELF_RELOC_##kind, address_taken, 0, false}

/* Differences (ADD, SUB, SET) count as relative to the place: they are what a distance is made of. */
const struct elf_reloc_info rv64_info[RV64_NINFO] = {
    ROW(NONE, 0, false, ANY, false),
    ROW(32, 4, false, DIRECT, true),
    ROW(64, 8, false, DIRECT, true),
    ROW(RELATIVE, 8, false, SLOT, false),
    ROW(COPY, 0, false, SLOT, false),
    ROW(JUMP_SLOT, 8, false, SLOT, false),
    ROW(TLS_DTPMOD32, 4, false, SLOT, false),
    ROW(TLS_DTPMOD64, 8, false, SLOT, false),
    ROW(TLS_DTPREL32, 4, false, TLS, false),
    ROW(TLS_DTPREL64, 8, false, TLS, false),
    ROW(TLS_TPREL32, 4, false, SLOT, false),
    ROW(TLS_TPREL64, 8, false, SLOT, false),
    OWN_ROW(TLSDESC, 0, false, SLOT, false),
    ROW(BRANCH, 4, true, DIRECT, false),
    ROW(JAL, 4, true, DIRECT, false),
    ROW(CALL, 8, true, DIRECT, false),
    ROW(CALL_PLT, 8, true, DIRECT, false),
    ROW(GOT_HI20, 4, false, SLOT, true),
    ROW(TLS_GOT_HI20, 4, false, TLS, false),
    ROW(TLS_GD_HI20, 4, false, TLS, false),
    ROW(PCREL_HI20, 4, true, DIRECT, true),
    ROW(PCREL_LO12_I, 4, true, ANY, false),
    ROW(PCREL_LO12_S, 4, true, ANY, false),
    ROW(HI20, 4, false, DIRECT, true),
    ROW(LO12_I, 4, false, DIRECT, true),
    ROW(LO12_S, 4, false, DIRECT, true),
    ROW(TPREL_HI20, 4, false, TLS, false),
    ROW(TPREL_LO12_I, 4, false, TLS, false),
    ROW(TPREL_LO12_S, 4, false, TLS, false),
    ROW(TPREL_ADD, 4, false, TLS, false),
    ROW(ADD8, 1, true, DIRECT, true),
    ROW(ADD16, 2, true, DIRECT, true),
    ROW(ADD32, 4, true, DIRECT, true),
    ROW(ADD64, 8, true, DIRECT, true),
    ROW(SUB8, 1, true, DIRECT, true),
    ROW(SUB16, 2, true, DIRECT, true),
    ROW(SUB32, 4, true, DIRECT, true),
    ROW(SUB64, 8, true, DIRECT, true),
    OWN_ROW(GOT32_PCREL, 4, false, SLOT, true),
    ROW(ALIGN, 0, true, ANY, false),
    ROW(RVC_BRANCH, 2, true, DIRECT, false),
    ROW(RVC_JUMP, 2, true, DIRECT, false),
    ROW(RELAX, 0, true, ANY, false),
    ROW(SUB6, 1, true, DIRECT, true),
    ROW(SET6, 1, true, DIRECT, true),
    ROW(SET8, 1, true, DIRECT, true),
    ROW(SET16, 2, true, DIRECT, true),
    ROW(SET32, 4, true, DIRECT, true),
    ROW(32_PCREL, 4, true, DIRECT, true),
    ROW(IRELATIVE, 8, false, SLOT, false),
    OWN_ROW(PLT32, 4, true, DIRECT, false),
    [RV64_R_SET_ULEB128] = {"R_RISCV_SET_ULEB128", 1, true, ELF_RELOC_DIRECT, true, 0, true},
    [RV64_R_SUB_ULEB128] = {"R_RISCV_SUB_ULEB128", 1, true, ELF_RELOC_DIRECT, true, 0, true},
    OWN_ROW(TLSDESC_HI20, 4, false, TLS, false),
    OWN_ROW(TLSDESC_LOAD_LO12, 4, false, ANY, false),
    OWN_ROW(TLSDESC_ADD_LO12, 4, false, ANY, false),
    OWN_ROW(TLSDESC_CALL, 4, false, ANY, false),
};

/* ---- thread-local storage: variant I, and tp points at the block itself ---- */

int64_t rv64_tp_offset(const struct kld_session *ctx, uint64_t address)
{
    return (int64_t)(address - elf_state(ctx)->tls_start);
}

/* ---- pairs ---- */

static bool is_high_part(uint32_t type)
{
    return type == R_RISCV_PCREL_HI20 || type == R_RISCV_GOT_HI20 || type == R_RISCV_TLS_GOT_HI20 ||
           type == R_RISCV_TLS_GD_HI20 || type == RV64_R_TLSDESC_HI20;
}

const elf_rela *rv64_high_part(const struct elf_object *obj, const struct kld_atom *atom,
                               const elf_rela *low, uint32_t *edge)
{
    const elf_rela *rels = atom->edges;
    uint32_t label = ELF64_R_SYM(low->r_info), lo = 0, hi = atom->nedges;
    if (elf_sym_section(obj, label) != atom->input_index)
        return NULL;
    /* GNU as makes a section and an addend of a label in .reloc. */
    bool section = ELF64_ST_TYPE(obj->syms[label].st_info) == STT_SECTION;
    uint64_t offset = obj->syms[label].st_value + (section ? (uint64_t)low->r_addend : 0);
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (rels[mid].r_offset < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < atom->nedges && rels[lo].r_offset == offset; lo++)
        if (is_high_part(ELF64_R_TYPE(rels[lo].r_info))) {
            *edge = lo;
            return &rels[lo];
        }
    return NULL;
}

static bool is_low_part(uint32_t type)
{
    return type == R_RISCV_PCREL_LO12_I || type == R_RISCV_PCREL_LO12_S ||
           (type > RV64_R_TLSDESC_HI20 && type <= RV64_R_TLSDESC_CALL);
}

static const elf_rela *decisive(const struct elf_object *obj, const struct kld_atom *atom,
                                const elf_rela *rel)
{
    uint32_t edge;
    const elf_rela *high =
        is_low_part(ELF64_R_TYPE(rel->r_info)) ? rv64_high_part(obj, atom, rel, &edge) : NULL;
    return high ? high : rel;
}

/* ---- --emit-relocs ---- */

static uint32_t type_after(const struct elf_object *obj, const struct kld_atom *atom,
                           const elf_rela *in)
{
    const struct elf_shrunk *s = elf_shrunk(atom);
    uint32_t edge = (uint32_t)(in - (const elf_rela *)atom->edges), high;
    uint32_t type = ELF64_R_TYPE(in->r_info);
    bool low = type == R_RISCV_PCREL_LO12_I || type == R_RISCV_PCREL_LO12_S;
    if (type == R_RISCV_RELAX || type == R_RISCV_ALIGN)
        return R_RISCV_NONE;
    if (low && rv64_high_part(obj, atom, in, &high) && elf_shrunk_cut(s, high))
        return R_RISCV_NONE; /* the label it refers to has no auipc any more */
    const struct elf_cut *cut = elf_shrunk_cut(s, edge);
    switch (cut ? (enum rv64_cut)cut->how : RV64_TAKEN_BACK) {
    case RV64_CJ: return R_RISCV_RVC_JUMP;
    case RV64_JAL: return R_RISCV_JAL;
    case RV64_C_LUI:
    case RV64_DELETE: return R_RISCV_NONE;
    default: return type;
    }
}

/* Of a sequence that was shortened: what is left is what it is now. */
static void emitted(const struct kld_session *ctx, const struct elf_object *obj,
                    const struct kld_atom *atom, const elf_rela *in, elf_rela *out)
{
    (void)ctx;
    if (elf_shrunk(atom))
        out->r_info = ELF64_R_INFO(ELF64_R_SYM(out->r_info), type_after(obj, atom, in));
}

/* ---- PLT: psABI "Program Linkage Table" ---- */

enum { PLT_HEADER_SIZE = 32, PLT_ENTRY_SIZE = 16 };

/* 1: auipc t2, %pcrel_hi(.got.plt); sub t1, t1, t3; ld t3, %pcrel_lo(1b)(t2)
 *    addi t1, t1, -(PLT_HEADER_SIZE + 12); addi t0, t2, %pcrel_lo(1b); srli t1, t1, 1
 *    ld t0, 8(t0); jr t3
 * An entry comes here with t1 behind its jump and t3 as the slot had it, the start of .plt: half
 * of the distance is the offset of the slot that is to be bound. */
static void write_plt_header(struct kld_session *ctx, uint8_t *out)
{
    static const uint32_t code[] = {0x00000397, 0x41c30333, 0x0003be03, 0xfd430313,
                                    0x00038293, 0x00135313, 0x0082b283, 0x000e0067};
    const struct elf_link *elf = elf_state(ctx);
    uint64_t distance = elf->got_plt_addr - elf->plt_addr;
    kld_put_words(out, code, KLD_COUNT(code));
    rv64_put_u(out, distance);
    rv64_put_i(out + 8, distance);
    rv64_put_i(out + 16, distance);
}

/* 1: auipc t3, %pcrel_hi(slot); ld t3, %pcrel_lo(1b)(t3); jalr t1, t3; nop */
static void put_entry(uint8_t *out, uint64_t at, uint64_t slot)
{
    static const uint32_t code[] = {0x00000e17, 0x000e3e03, 0x000e0367, RV64_NOP};
    kld_put_words(out, code, KLD_COUNT(code));
    rv64_put_u(out, slot - at);
    rv64_put_i(out + 4, slot - at);
}

static void write_plt_entry(struct kld_session *ctx, uint8_t *out, uint64_t at, uint64_t slot,
                            uint32_t n)
{
    (void)ctx, (void)n;
    put_entry(out, at, slot);
}

static void write_plt_got_entry(struct kld_session *ctx, uint8_t *out, uint64_t at, uint64_t slot)
{
    (void)ctx;
    put_entry(out, at, slot);
}

/* ---- incremental links ---- */

enum { JUMP_SIZE = 12 };

/* lpad (Zicfilp), if the code begins with it, so that indirect branches may come here as well; then jal,
 * or where that does not reach auipc t1; jr t1. The label of the landing pad is in t2. t1 is what PLT
 * entries and tail calls leave undefined. */
static bool write_jump(uint8_t *out, const uint8_t *code, uint64_t size, uint64_t at, uint64_t to)
{
    enum { LPAD = 0x17, LPAD_MASK = 0xfff, JAL = 0x6f, AUIPC_T1 = 0x317, JR_T1 = 0x30067 };
    if (size >= 4 && (kld_get32(code) & LPAD_MASK) == LPAD) {
        memcpy(out, code, 4);
        out += 4;
        at += 4;
    }
    uint64_t distance = to - at;
    if (rv64_fits(distance, 21)) {
        kld_put32(out, JAL);
        rv64_put_j(out, distance);
        return true;
    }
    kld_put32(out, AUIPC_T1);
    kld_put32(out + 4, JR_T1);
    rv64_put_u(out, distance);
    rv64_put_i(out + 4, distance);
    return rv64_fits(distance + 0x800, 32);
}

static const struct elf_attributes attributes = {".riscv.attributes", RV64_SHT_ATTRIBUTES,
                                                 RV64_PT_ATTRIBUTES};

static const struct elf_point_name points[] = {
    {"__DATA_BEGIN__", ELF_AT_DATA},
    {"__SDATA_BEGIN__", ELF_AT_SDATA},
    {"__BSS_END__", ELF_AT_END},
};

const struct elf_arch_ops rv64_elf = {
    .machine = EM_RISCV,
    .r_none = R_RISCV_NONE,
    .r_abs = R_RISCV_64,
    .r_relative = R_RISCV_RELATIVE,
    .r_irelative = R_RISCV_IRELATIVE,
    .r_glob_dat = R_RISCV_64,
    .r_jump_slot = R_RISCV_JUMP_SLOT,
    .r_copy = R_RISCV_COPY,
    .r_dtpmod = R_RISCV_TLS_DTPMOD64,
    .r_dtpoff = R_RISCV_TLS_DTPREL64,
    .r_tpoff = R_RISCV_TLS_TPREL64,
    .r_tlsdesc = RV64_R_TLSDESC,
    .info = rv64_info,
    .ninfo = RV64_NINFO,
    .decisive = decisive,
    .jump_size = JUMP_SIZE,
    .write_jump = write_jump,
    .scan = rv64_scan,
    .apply = rv64_apply,
    .apply_debug = rv64_apply_debug,
    .emitted = emitted,
    .plan_cuts = rv64_plan_cuts,
    .check_cuts = rv64_check_cuts,
    .cut_size = rv64_cut_size,
    .points = points,
    .npoints = KLD_COUNT(points),
    .gp_symbol = "__global_pointer$",
    .attributes = &attributes,
    .merge = rv64_merge,
    .plt_header_size = PLT_HEADER_SIZE,
    .plt_entry_size = PLT_ENTRY_SIZE,
    .plt_got_entry_size = PLT_ENTRY_SIZE,
    .write_plt_header = write_plt_header,
    .write_plt_entry = write_plt_entry,
    .write_plt_got_entry = write_plt_got_entry,
    .got_plt_reserved = 2,
    .got_reserved = 1,
    .tp_offset = rv64_tp_offset,
    .dtp_bias = 0x800,
    .drops_labels = true,
    .st_other_variant = 0x80, /* STO_RISCV_VARIANT_CC, DT_RISCV_VARIANT_CC */
    .dt_variant = 0x70000001,
};
