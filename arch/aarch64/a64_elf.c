/* a64_elf.c - aarch64 ELF: relocation types, PLT, and what generic code asks of the CPU.
 *
 * ELF for the Arm 64-bit Architecture (AAELF64) 2024Q3: 5.7 lists the relocations. The loops over
 * them are in a64_scan_elf.c and a64_apply_elf.c. */
#include "arch/aarch64/a64_elf.h"

#define ROW(name, width, pc_relative, kind, address_taken)                                         \
    [R_AARCH64_##name] = {"R_AARCH64_" #name, width, pc_relative, ELF_RELOC_##kind, address_taken}

const struct elf_reloc_info a64_info[A64_NINFO] = {
    ROW(NONE, 0, false, DIRECT, false),
    [A64_R_NONE2] = {"R_AARCH64_NONE", 0, false, ELF_RELOC_DIRECT, false},
    ROW(ABS64, 8, false, DIRECT, true),
    ROW(ABS32, 4, false, DIRECT, true),
    ROW(ABS16, 2, false, DIRECT, true),
    ROW(PREL64, 8, true, DIRECT, true),
    ROW(PREL32, 4, true, DIRECT, true),
    ROW(PREL16, 2, true, DIRECT, true),
    [A64_R_PLT32] = {"R_AARCH64_PLT32", 4, true, ELF_RELOC_DIRECT, false},
    [A64_R_GOTPCREL32] = {"R_AARCH64_GOTPCREL32", 4, false, ELF_RELOC_SLOT, true},
    ROW(MOVW_UABS_G0, 4, false, DIRECT, true),
    ROW(MOVW_UABS_G0_NC, 4, false, DIRECT, true),
    ROW(MOVW_UABS_G1, 4, false, DIRECT, true),
    ROW(MOVW_UABS_G1_NC, 4, false, DIRECT, true),
    ROW(MOVW_UABS_G2, 4, false, DIRECT, true),
    ROW(MOVW_UABS_G2_NC, 4, false, DIRECT, true),
    ROW(MOVW_UABS_G3, 4, false, DIRECT, true),
    ROW(LD_PREL_LO19, 4, true, DIRECT, true),
    ROW(ADR_PREL_LO21, 4, true, DIRECT, true),
    ROW(ADR_PREL_PG_HI21, 4, true, DIRECT, true),
    ROW(ADR_PREL_PG_HI21_NC, 4, true, DIRECT, true),
    ROW(ADD_ABS_LO12_NC, 4, false, DIRECT, true),
    ROW(LDST8_ABS_LO12_NC, 4, false, DIRECT, true),
    ROW(LDST16_ABS_LO12_NC, 4, false, DIRECT, true),
    ROW(LDST32_ABS_LO12_NC, 4, false, DIRECT, true),
    ROW(LDST64_ABS_LO12_NC, 4, false, DIRECT, true),
    ROW(LDST128_ABS_LO12_NC, 4, false, DIRECT, true),
    ROW(TSTBR14, 4, true, DIRECT, false),
    ROW(CONDBR19, 4, true, DIRECT, false),
    ROW(JUMP26, 4, true, DIRECT, false),
    ROW(CALL26, 4, true, DIRECT, false),
    ROW(GOT_LD_PREL19, 4, false, SLOT, true),
    ROW(ADR_GOT_PAGE, 4, false, SLOT, true),
    ROW(LD64_GOT_LO12_NC, 4, false, SLOT, true),
    ROW(LD64_GOTPAGE_LO15, 4, false, SLOT, true),
    ROW(TLSGD_ADR_PAGE21, 4, false, TLS, false),
    ROW(TLSGD_ADD_LO12_NC, 4, false, TLS, false),
    ROW(TLSIE_ADR_GOTTPREL_PAGE21, 4, false, TLS, false),
    ROW(TLSIE_LD64_GOTTPREL_LO12_NC, 4, false, TLS, false),
    ROW(TLSLE_ADD_TPREL_HI12, 4, false, TLS, false),
    ROW(TLSLE_ADD_TPREL_LO12, 4, false, TLS, false),
    ROW(TLSLE_ADD_TPREL_LO12_NC, 4, false, TLS, false),
    ROW(TLSLE_LDST8_TPREL_LO12, 4, false, TLS, false),
    ROW(TLSLE_LDST8_TPREL_LO12_NC, 4, false, TLS, false),
    ROW(TLSLE_LDST16_TPREL_LO12, 4, false, TLS, false),
    ROW(TLSLE_LDST16_TPREL_LO12_NC, 4, false, TLS, false),
    ROW(TLSLE_LDST32_TPREL_LO12, 4, false, TLS, false),
    ROW(TLSLE_LDST32_TPREL_LO12_NC, 4, false, TLS, false),
    ROW(TLSLE_LDST64_TPREL_LO12, 4, false, TLS, false),
    ROW(TLSLE_LDST64_TPREL_LO12_NC, 4, false, TLS, false),
    ROW(TLSDESC_ADR_PAGE21, 4, false, TLS, false),
    ROW(TLSDESC_LD64_LO12, 4, false, TLS, false),
    ROW(TLSDESC_ADD_LO12, 4, false, TLS, false),
    ROW(TLSDESC_CALL, 4, false, TLS, false),
    ROW(COPY, 0, false, SLOT, false),
    ROW(GLOB_DAT, 8, false, SLOT, false),
    ROW(JUMP_SLOT, 8, false, SLOT, false),
    ROW(RELATIVE, 8, false, SLOT, false),
    ROW(TLS_DTPMOD, 8, false, SLOT, false),
    ROW(TLS_DTPREL, 8, false, TLS, false),
    ROW(TLS_TPREL, 8, false, SLOT, false),
    ROW(TLSDESC, 0, false, SLOT, false),
    ROW(IRELATIVE, 8, false, SLOT, false),
};

/* ---- thread-local storage: variant I, the block follows the 16 bytes of the TCB ---- */

int64_t a64_tp_offset(const struct kld_session *ctx, uint64_t address)
{
    const struct elf_link *elf = elf_state(ctx);
    return (int64_t)(address - elf->tls_start + kld_align_up(16, elf->tls_align));
}

/* ---- single relocations ---- */

static bool apply_one(uint32_t type, uint8_t *out, uint64_t place, uint64_t value, int64_t addend)
{
    uint64_t x = value + (uint64_t)addend;
    switch (type) {
    case R_AARCH64_NONE:
    case A64_R_NONE2: return true;
    case R_AARCH64_ABS64: kld_put64(out, x); return true;
    case R_AARCH64_PREL64: kld_put64(out, x - place); return true;
    case R_AARCH64_ABS32: kld_put32(out, (uint32_t)x); return x <= UINT32_MAX;
    case R_AARCH64_PREL32:
        x -= place;
        kld_put32(out, (uint32_t)x);
        return (int64_t)x == (int32_t)x;
    default: return false;
    }
}

/* ---- PLT: sysvabi64 "Dynamic linking" ---- */

/* All begin with bti c, a nop to older CPUs, so that they may stand on guarded pages: the output
 * is marked for BTI if its inputs are. */
enum { PLT_HEADER_SIZE = 32, PLT_ENTRY_SIZE = 24, BTI_C = 0xd503245f, NOP = 0xd503201f };

static void put_words(uint8_t *out, const uint32_t *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        kld_put32(out + 4 * i, words[i]);
}

/* adrp x16, slot; ldr x17, [x16, :lo12:slot]; add x16, x16, :lo12:slot; br x17 */
static void put_jump(uint8_t *out, uint64_t at, uint64_t slot)
{
    static const uint32_t code[] = {0x90000010, 0xf9400211, 0x91000210, 0xd61f0220};
    put_words(out, code, KLD_COUNT(code));
    a64_put_adrp(out, at, slot);
    a64_put_imm12(out + 4, slot, 3);
    a64_put_imm12(out + 8, slot, 0);
}

/* bti c; the jump; nop */
static void put_entry(uint8_t *out, uint64_t at, uint64_t slot)
{
    kld_put32(out, BTI_C);
    put_jump(out + 4, at + 4, slot);
    kld_put32(out + 20, NOP);
}

/* bti c; stp x16, x30, [sp, #-16]!; then the jump through the third slot, to the resolver */
static void write_plt_header(struct kld_session *ctx, uint8_t *out)
{
    const struct elf_link *elf = elf_state(ctx);
    static const uint32_t start[] = {BTI_C, 0xa9bf7bf0}, end[] = {NOP, NOP};
    put_words(out, start, KLD_COUNT(start));
    put_jump(out + 8, elf->plt_addr + 8, elf->got_plt_addr + 16);
    put_words(out + 24, end, KLD_COUNT(end));
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

static uint64_t lazy_target(const struct kld_session *ctx, uint64_t plt_entry)
{
    (void)plt_entry;
    return elf_state(ctx)->plt_addr;
}

const struct elf_arch_ops a64_elf = {
    .machine = EM_AARCH64,
    .r_none = R_AARCH64_NONE,
    .r_abs = R_AARCH64_ABS64,
    .r_relative = R_AARCH64_RELATIVE,
    .r_irelative = R_AARCH64_IRELATIVE,
    .r_glob_dat = R_AARCH64_GLOB_DAT,
    .r_jump_slot = R_AARCH64_JUMP_SLOT,
    .r_copy = R_AARCH64_COPY,
    .r_dtpmod = R_AARCH64_TLS_DTPMOD,
    .r_dtpoff = R_AARCH64_TLS_DTPREL,
    .r_tpoff = R_AARCH64_TLS_TPREL,
    .r_tlsdesc = R_AARCH64_TLSDESC,
    .info = a64_info,
    .ninfo = A64_NINFO,
    .scan = a64_scan,
    .apply = a64_apply,
    .apply_debug = a64_apply_debug,
    .apply_one = apply_one,
    .plt_header_size = PLT_HEADER_SIZE,
    .plt_entry_size = PLT_ENTRY_SIZE,
    .plt_got_entry_size = PLT_ENTRY_SIZE,
    .write_plt_header = write_plt_header,
    .write_plt_entry = write_plt_entry,
    .write_plt_got_entry = write_plt_got_entry,
    .got_plt_reserved = 3,
    .got_reserved = 1,
    .lazy_target = lazy_target,
    .tp_offset = a64_tp_offset,
    .islands = &a64_islands,
};
