/* a64_elf.c - aarch64 ELF: relocation types, PLT, and what generic code asks of the CPU.
 *
 * ELF for the Arm 64-bit Architecture (AAELF64) 2024Q3: 5.7 lists the relocations, as
 * a64_relocs.def does. The loops over them are in a64_scan_elf.c and a64_apply_elf.c. */
#include "arch/aarch64/a64_elf.h"
#include "formats/elf/elf_property.h"
#include <stddef.h>

/* ---- what a64_relocs.def says ---- */

#define IS_DISTANCE(value, field)                                                                  \
    ((value) == A64_PREL || ((field) >= A64_DISTANCE64 && (field) <= A64_DISTANCE16) ||            \
     ((field) >= A64_LITERAL && (field) <= A64_ADRP_NC) || (value) == A64_BRANCH)
#define IS_DIRECT(value)                                                                           \
    ((value) == A64_NOTHING || (value) == A64_ABS || (value) == A64_PREL ||                        \
     (value) == A64_BRANCH || (value) == A64_GOTREL)
#define IS_TLS(value) ((value) >= A64_DTPREL && (value) <= A64_TLSDESC)
#define WIDTH(field)                                                                               \
    ((field) == A64_NO_FIELD                              ? 0                                      \
     : (field) == A64_WORD64 || (field) == A64_DISTANCE64 ? 8                                      \
     : (field) == A64_WORD16 || (field) == A64_DISTANCE16 ? 2                                      \
                                                          : 4)

const struct elf_reloc_info a64_info[A64_NINFO] = {
#define A64_RELOC(reloc, number, value, field)                                                     \
    [number] = {"R_AARCH64_" #reloc,                                                               \
                WIDTH(A64_##field),                                                                \
                IS_DIRECT(A64_##value) && IS_DISTANCE(A64_##value, A64_##field),                   \
                IS_TLS(A64_##value)      ? ELF_RELOC_TLS                                           \
                : IS_DIRECT(A64_##value) ? ELF_RELOC_DIRECT                                        \
                                         : ELF_RELOC_SLOT,                                         \
                A64_##value >= A64_ABS && A64_##value <= A64_GOT && A64_##value != A64_BRANCH,     \
                0,                                                                                 \
                false},
#include "arch/aarch64/a64_relocs.def"
#undef A64_RELOC
};

const struct a64_meaning a64_meaning[A64_NINFO] = {
#define A64_RELOC(name, number, value, field) [number] = {A64_##value, A64_##field},
#include "arch/aarch64/a64_relocs.def"
#undef A64_RELOC
};

/* ---- thread-local storage: variant I, the block follows the 16 bytes of the TCB ---- */

int64_t a64_tp_offset(const struct kld_session *ctx, uint64_t address)
{
    const struct elf_link *elf = elf_state(ctx);
    return (int64_t)(address - elf->tls_start + kld_align_up(16, elf->tls_align));
}

/* ---- PLT: sysvabi64 "Dynamic linking" ---- */

/* All begin with bti c, a nop to older CPUs, so that they may stand on guarded pages: the output
 * is marked for BTI if its inputs are. */
enum {
    PLT_HEADER_SIZE = 32,
    PLT_ENTRY_SIZE = 24,
    BTI_C = A64_INSN_BTI_C,
    AUTIA1716 = 0xd503219f,
    BR_X17 = 0xd61f0220,
    NOP = A64_INSN_NOP,
};

/* adrp x16, slot; ldr x17, [x16, :lo12:slot]; add x16, x16, :lo12:slot */
static void put_load(uint8_t *out, uint64_t at, uint64_t slot)
{
    static const uint32_t code[] = {0x90000010, 0xf9400211, 0x91000210};
    kld_put_words(out, code, KLD_COUNT(code));
    a64_put_adrp(out, at, slot);
    a64_put_imm12(out + 4, slot, 3);
    a64_put_imm12(out + 8, slot, 0);
}

/* bti c; the jump; nop. Where the slot's address is signed: bti c; the load; autia1716; br x17 */
static void put_entry(uint8_t *out, uint64_t at, uint64_t slot, bool is_signed)
{
    static const uint32_t checked[] = {AUTIA1716, BR_X17}, plain[] = {BR_X17, NOP};
    kld_put32(out, BTI_C);
    put_load(out + 4, at + 4, slot);
    kld_put_words(out + 16, is_signed ? checked : plain, 2);
}

/* bti c; stp x16, x30, [sp, #-16]!; then the jump through the third slot, to the resolver */
static void write_plt_header(struct kld_session *ctx, uint8_t *out)
{
    const struct elf_link *elf = elf_state(ctx);
    static const uint32_t start[] = {BTI_C, 0xa9bf7bf0}, end[] = {BR_X17, NOP, NOP};
    kld_put_words(out, start, KLD_COUNT(start));
    put_load(out + 8, elf->plt_addr + 8, elf->got_plt_addr + 16);
    kld_put_words(out + 20, end, KLD_COUNT(end));
}

static void write_plt_entry(struct kld_session *ctx, uint8_t *out, uint64_t at, uint64_t slot,
                            uint32_t n)
{
    /* Addresses of ifuncs, which come behind the others, are not signed. */
    put_entry(out, at, slot, ctx->options.z_pac_plt && n < elf_state(ctx)->plt.len);
}

static void write_plt_got_entry(struct kld_session *ctx, uint8_t *out, uint64_t at, uint64_t slot)
{
    (void)ctx;
    put_entry(out, at, slot, false);
}

/* ---- incremental links ---- */

/* Where code may be entered by an indirect branch, its old place may too. */
enum { JUMP_SIZE = 8 };

/* bti c or its like, if the code begins with it; b */
static bool write_jump(uint8_t *out, const uint8_t *code, uint64_t size, uint64_t at, uint64_t to)
{
    if (size >= 4 && a64_is_landing_pad(kld_get32(code))) {
        bool signs = !a64_is_bti(kld_get32(code));
        kld_put32(out, signs ? BTI_C : kld_get32(code));
        out += 4;
        at += 4;
    }
    a64_put_branch(out, at, to);
    return kld_reaches(a64_islands.reach, at, to);
}

/* ---- program properties and the dynamic section: sysvabi64 ---- */

enum { FEATURE_BTI = 1, FEATURE_GCS = 4 };

static enum elf_feature_wish bti_wish(const struct kld_options *o)
{
    return o->z_force_bti ? ELF_FEATURE_FORCED : ELF_FEATURE_AGREED;
}

static enum kld_report bti_report(const struct kld_options *o)
{
    return (enum kld_report)o->z_bti_report;
}

static enum elf_feature_wish gcs_wish(const struct kld_options *o)
{
    return o->z_gcs == KLD_YES  ? ELF_FEATURE_FORCED
           : o->z_gcs == KLD_NO ? ELF_FEATURE_NEVER
                                : ELF_FEATURE_AGREED;
}

static enum kld_report gcs_report(const struct kld_options *o)
{
    return (enum kld_report)o->z_gcs_report;
}

static const struct elf_feature features[] = {
    {FEATURE_BTI, "GNU_PROPERTY_AARCH64_FEATURE_1_BTI", "-z force-bti", "-z bti-report", bti_wish,
     bti_report},
    {FEATURE_GCS, "GNU_PROPERTY_AARCH64_FEATURE_1_GCS", "-z gcs", "-z gcs-report", gcs_wish,
     gcs_report},
};

static bool has_bti_plt(const struct kld_session *ctx)
{
    return elf_state(ctx)->synth[ELF_PLT] && (elf_property_feature_1(ctx) & FEATURE_BTI);
}

static bool has_pac_plt(const struct kld_session *ctx)
{
    return ctx->options.z_pac_plt && elf_state(ctx)->plt.len;
}

enum { DT_BTI_PLT = 0x70000001, DT_PAC_PLT = 0x70000003, DT_VARIANT_PCS = 0x70000005 };

static const struct elf_cpu_dynamic dynamic[] = {{DT_BTI_PLT, has_bti_plt},
                                                 {DT_PAC_PLT, has_pac_plt}};

static const uint16_t options[] = {offsetof(struct kld_options, z_pac_plt),
                                   offsetof(struct kld_options, z_force_bti),
                                   offsetof(struct kld_options, fix_cortex_a53_843419)};

static const struct elf_point_name points[] = {
    {"__bss_start__", ELF_AT_BSS},
    {"_bss_end__", ELF_AT_END},
    {"__bss_end__", ELF_AT_END},
    {"__end__", ELF_AT_END},
};

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
    .jump_size = JUMP_SIZE,
    .write_jump = write_jump,
    .scan = a64_scan,
    .apply = a64_apply,
    .apply_debug = a64_apply_debug,
    .plt_header_size = PLT_HEADER_SIZE,
    .plt_entry_size = PLT_ENTRY_SIZE,
    .plt_got_entry_size = PLT_ENTRY_SIZE,
    .write_plt_header = write_plt_header,
    .write_plt_entry = write_plt_entry,
    .write_plt_got_entry = write_plt_got_entry,
    .got_plt_reserved = 3,
    .got_reserved = 1,
    .tp_offset = a64_tp_offset,
    .feature_1_and = 0xc0000000,
    .features = features,
    .nfeatures = KLD_COUNT(features),
    .dynamic = dynamic,
    .ndynamic = KLD_COUNT(dynamic),
    .st_other_variant = 0x80, /* STO_AARCH64_VARIANT_PCS */
    .dt_variant = DT_VARIANT_PCS,
    .options = options,
    .noptions = KLD_COUNT(options),
    .points = points,
    .npoints = KLD_COUNT(points),
    .islands = &a64_islands,
};
