/* x64_elf.c - x86-64 ELF: relocation types, and what generic code asks of the CPU.
 *
 * System V ABI, AMD64 Architecture Processor Supplement, 1.0: table 4.9 lists the relocations.
 * The loops over them are in x64_scan_elf.c and x64_apply_elf.c. */
#include "arch/x86_64/x64_elf.h"
#include "arch/x86_64/x64_plt.h"

#define ROW(number, name, width, pc_relative, kind, address_taken)                                 \
    [number] = {name, width, pc_relative, ELF_RELOC_##kind, address_taken, 0, false}

/* pc_relative: the target's own distance; those of GOT slots need the slot.
 * address_taken: PC32 and GOTPCRELX are also those of branches, but of lea and mov as well.
 * TLSDESC_CALL writes nothing of its own; two bytes are the instruction that it marks. */
const struct elf_reloc_info x64_info[X64_NINFO] = {
    ROW(R_X86_64_NONE, "R_X86_64_NONE", 0, false, DIRECT, false),
    ROW(R_X86_64_64, "R_X86_64_64", 8, false, DIRECT, true),
    ROW(R_X86_64_PC32, "R_X86_64_PC32", 4, true, DIRECT, true),
    ROW(R_X86_64_GOT32, "R_X86_64_GOT32", 4, false, SLOT, true),
    ROW(R_X86_64_PLT32, "R_X86_64_PLT32", 4, true, DIRECT, false),
    ROW(R_X86_64_COPY, "R_X86_64_COPY", 0, false, SLOT, false),
    ROW(R_X86_64_GLOB_DAT, "R_X86_64_GLOB_DAT", 8, false, SLOT, false),
    ROW(R_X86_64_JUMP_SLOT, "R_X86_64_JUMP_SLOT", 8, false, SLOT, false),
    ROW(R_X86_64_RELATIVE, "R_X86_64_RELATIVE", 8, false, SLOT, false),
    ROW(R_X86_64_GOTPCREL, "R_X86_64_GOTPCREL", 4, false, SLOT, true),
    ROW(R_X86_64_32, "R_X86_64_32", 4, false, DIRECT, true),
    ROW(R_X86_64_32S, "R_X86_64_32S", 4, false, DIRECT, true),
    ROW(R_X86_64_16, "R_X86_64_16", 2, false, DIRECT, true),
    ROW(R_X86_64_PC16, "R_X86_64_PC16", 2, true, DIRECT, true),
    ROW(R_X86_64_8, "R_X86_64_8", 1, false, DIRECT, true),
    ROW(R_X86_64_PC8, "R_X86_64_PC8", 1, true, DIRECT, true),
    ROW(R_X86_64_DTPMOD64, "R_X86_64_DTPMOD64", 8, false, SLOT, false),
    ROW(R_X86_64_DTPOFF64, "R_X86_64_DTPOFF64", 8, false, TLS, false),
    ROW(R_X86_64_TPOFF64, "R_X86_64_TPOFF64", 8, false, TLS, false),
    ROW(R_X86_64_TLSGD, "R_X86_64_TLSGD", 4, false, TLS, false),
    ROW(R_X86_64_TLSLD, "R_X86_64_TLSLD", 4, false, ANY, false),
    ROW(R_X86_64_DTPOFF32, "R_X86_64_DTPOFF32", 4, false, TLS, false),
    ROW(R_X86_64_GOTTPOFF, "R_X86_64_GOTTPOFF", 4, false, TLS, false),
    ROW(R_X86_64_TPOFF32, "R_X86_64_TPOFF32", 4, false, TLS, false),
    ROW(R_X86_64_PC64, "R_X86_64_PC64", 8, true, DIRECT, true),
    ROW(R_X86_64_GOTOFF64, "R_X86_64_GOTOFF64", 8, false, SLOT, true),
    ROW(R_X86_64_GOTPC32, "R_X86_64_GOTPC32", 4, false, SLOT, false),
    ROW(R_X86_64_GOT64, "R_X86_64_GOT64", 8, false, SLOT, true),
    ROW(R_X86_64_GOTPCREL64, "R_X86_64_GOTPCREL64", 8, false, SLOT, true),
    ROW(R_X86_64_GOTPC64, "R_X86_64_GOTPC64", 8, false, SLOT, false),
    ROW(R_X86_64_GOTPLT64, "R_X86_64_GOTPLT64", 8, false, SLOT, true),
    ROW(R_X86_64_PLTOFF64, "R_X86_64_PLTOFF64", 8, false, SLOT, false),
    ROW(R_X86_64_SIZE32, "R_X86_64_SIZE32", 4, false, ANY, false),
    ROW(R_X86_64_SIZE64, "R_X86_64_SIZE64", 8, false, ANY, false),
    ROW(R_X86_64_GOTPC32_TLSDESC, "R_X86_64_GOTPC32_TLSDESC", 4, false, TLS, false),
    ROW(R_X86_64_TLSDESC_CALL, "R_X86_64_TLSDESC_CALL", 2, false, TLS, false),
    ROW(R_X86_64_TLSDESC, "R_X86_64_TLSDESC", 0, false, SLOT, false),
    ROW(R_X86_64_IRELATIVE, "R_X86_64_IRELATIVE", 8, false, SLOT, false),
    ROW(R_X86_64_RELATIVE64, "R_X86_64_RELATIVE64", 8, false, SLOT, false),
    ROW(X64_R_PC32_BND, "R_X86_64_PC32_BND", 4, true, DIRECT, true),
    ROW(X64_R_PLT32_BND, "R_X86_64_PLT32_BND", 4, true, DIRECT, false),
    /* Opcode and ModRM byte, and the prefix, become those of another instruction. */
    [R_X86_64_GOTPCRELX] = {"R_X86_64_GOTPCRELX", 4, false, ELF_RELOC_SLOT, true, 2, false},
    [R_X86_64_REX_GOTPCRELX] = {"R_X86_64_REX_GOTPCRELX", 4, false, ELF_RELOC_SLOT, true, 3, false},
    ROW(X64_R_CODE_4_GOTPCRELX, "R_X86_64_CODE_4_GOTPCRELX", 4, false, SLOT, true),
    ROW(X64_R_CODE_4_GOTTPOFF, "R_X86_64_CODE_4_GOTTPOFF", 4, false, TLS, false),
    ROW(X64_R_CODE_4_TLSDESC, "R_X86_64_CODE_4_GOTPC32_TLSDESC", 4, false, TLS, false),
    ROW(X64_R_CODE_5_GOTPCRELX, "R_X86_64_CODE_5_GOTPCRELX", 4, false, SLOT, true),
    ROW(X64_R_CODE_5_GOTTPOFF, "R_X86_64_CODE_5_GOTTPOFF", 4, false, TLS, false),
    ROW(X64_R_CODE_5_TLSDESC, "R_X86_64_CODE_5_GOTPC32_TLSDESC", 4, false, TLS, false),
    ROW(X64_R_CODE_6_GOTPCRELX, "R_X86_64_CODE_6_GOTPCRELX", 4, false, SLOT, true),
    ROW(X64_R_CODE_6_GOTTPOFF, "R_X86_64_CODE_6_GOTTPOFF", 4, false, TLS, false),
    ROW(X64_R_CODE_6_TLSDESC, "R_X86_64_CODE_6_GOTPC32_TLSDESC", 4, false, TLS, false),
};

/* ---- decisions ---- */

/* Whether the symbol's value is a constant known already, of 31 bits. */
static bool is_small_constant(const struct kld_session *ctx, const struct elf_object *obj,
                              uint32_t r_sym)
{
    if (r_sym < obj->first_global)
        return obj->syms[r_sym].st_value <= INT32_MAX;
    const struct kld_symbol *sym = elf_global(ctx, obj, r_sym);
    if (sym->kind == KLD_SYM_UNDEFINED)
        return true;
    /* Those of the linker and of --defsym get theirs later. */
    return sym->file && sym->file->kind == KLD_FILE_OBJECT && sym->value <= INT32_MAX;
}

enum x64_load x64_load(const struct kld_session *ctx, const struct elf_object *obj,
                       const struct kld_atom *atom, const elf_rela *rel, enum elf_class class)
{
    const struct elf_link *elf = elf_state(ctx);
    uint32_t r_sym = ELF64_R_SYM(rel->r_info);
    if (class == ELF_TO_UNDEFINED)
        class = ELF_TO_CONSTANT; /* 0, as for scan */
    if (!ctx->options.relax || elf->no_gotpcrelx || rel->r_addend != -4 ||
        (class != ELF_TO_LOCAL && class != ELF_TO_CONSTANT) ||
        ELF64_ST_TYPE(obj->syms[r_sym].st_info) == STT_SECTION)
        return X64_LOAD_GOT;
    bool rex = ELF64_R_TYPE(rel->r_info) == R_X86_64_REX_GOTPCRELX;
    enum x64_got_use use = x64_got_use(x64_bytes(atom), rel->r_offset, rex);
    if (class == ELF_TO_CONSTANT) /* out of reach of a distance, but good for an immediate */
        return (use == X64_USE_MOV || use == X64_USE_BINOP) && is_small_constant(ctx, obj, r_sym)
                   ? X64_LOAD_IMMEDIATE
                   : X64_LOAD_GOT;
    switch (use) {
    case X64_USE_MOV: return X64_LOAD_LEA;
    case X64_USE_CALL: return X64_LOAD_CALL;
    case X64_USE_JMP: return X64_LOAD_JMP;
    case X64_USE_BINOP: return elf->is_pic ? X64_LOAD_GOT : X64_LOAD_IMMEDIATE;
    case X64_USE_OTHER: break;
    }
    return X64_LOAD_GOT;
}

/* Types that the relocation of each form of call may have. */
static bool fits_call(enum x64_tls_call call, uint32_t type)
{
    switch (call) {
    case X64_CALL_DIRECT: return type == R_X86_64_PLT32 || type == R_X86_64_PC32;
    case X64_CALL_INDIRECT:
        return type == R_X86_64_GOTPCRELX || type == R_X86_64_GOTPCREL ||
               type == R_X86_64_REX_GOTPCRELX;
    case X64_CALL_LARGE: return type == R_X86_64_PLTOFF64;
    case X64_CALL_UNKNOWN: break;
    }
    return false;
}

enum x64_tls_call x64_tls_call(const struct kld_atom *atom, uint32_t edge, bool gd)
{
    const elf_rela *rel = (const elf_rela *)atom->edges + edge;
    struct kld_bytes data = x64_bytes(atom);
    uint64_t second = 0;
    enum x64_tls_call call =
        gd ? x64_gd_call(data, rel->r_offset, &second) : x64_ld_call(data, rel->r_offset, &second);
    if (edge + 1 >= atom->nedges || rel[1].r_offset != second ||
        !fits_call(call, ELF64_R_TYPE(rel[1].r_info)))
        return X64_CALL_UNKNOWN;
    return call;
}

/* ---- thread-local storage: variant II, blocks end at the thread pointer ---- */

int64_t x64_tp_offset(const struct kld_session *ctx, uint64_t address)
{
    const struct elf_link *elf = elf_state(ctx);
    return (int64_t)(address - kld_align_up(elf->tls_end, elf->tls_align));
}

/* ---- PLT ---- */

static void write_plt_header(struct kld_session *ctx, uint8_t *out)
{
    const struct elf_link *elf = elf_state(ctx);
    x64_plt_header(out, elf->plt_addr, elf->got_plt_addr);
}

static void write_plt_entry(struct kld_session *ctx, uint8_t *out, uint64_t at, uint64_t slot,
                            uint32_t n)
{
    const struct elf_link *elf = elf_state(ctx);
    if (ctx->options.z_ibtplt)
        x64_plt_lazy_ibt(out, at, n, elf->plt_addr);
    else if (!elf->plt.len) /* ifuncs alone, and no header */
        x64_plt_bound(out, at, slot);
    else
        x64_plt_lazy(out, at, slot, n, elf->plt_addr);
}

static void write_plt_got_entry(struct kld_session *ctx, uint8_t *out, uint64_t at, uint64_t slot)
{
    if (ctx->options.z_ibtplt)
        x64_plt_ibt(out, at, slot);
    else
        x64_plt_short(out, at, slot);
}

static void write_plt_sec_entry(struct kld_session *ctx, uint8_t *out, uint64_t at, uint64_t slot)
{
    (void)ctx;
    x64_plt_ibt(out, at, slot);
}

static uint64_t lazy_target(const struct kld_session *ctx, uint64_t plt_entry)
{
    return ctx->options.z_ibtplt ? plt_entry : plt_entry + X64_PLT_PUSH;
}

/* Thread-local accesses keep what they were compiled to, as with GNU ld. */
static void emitted(const struct kld_session *ctx, const struct elf_object *obj,
                    const struct kld_atom *atom, const elf_rela *in, elf_rela *out)
{
    uint32_t type = ELF64_R_TYPE(in->r_info);
    if (type != R_X86_64_GOTPCRELX && type != R_X86_64_REX_GOTPCRELX)
        return;
    switch (x64_load(ctx, obj, atom, in, elf_classify(ctx, obj, ELF64_R_SYM(in->r_info)))) {
    case X64_LOAD_GOT: return;
    case X64_LOAD_JMP: out->r_offset--; __attribute__((fallthrough));
    case X64_LOAD_LEA:
    case X64_LOAD_CALL: type = R_X86_64_PC32; break;
    case X64_LOAD_IMMEDIATE:
        type = type == R_X86_64_REX_GOTPCRELX ? R_X86_64_32S : R_X86_64_32;
        out->r_addend = 0;
        break;
    }
    out->r_info = ELF64_R_INFO(ELF64_R_SYM(out->r_info), type);
}

/* ---- program properties: psABI, appendix on GNU_PROPERTY_X86_* ---- */

static enum elf_feature_wish ibt_wish(const struct kld_options *o)
{
    return o->z_force_ibt ? ELF_FEATURE_FORCED : o->z_ibt ? ELF_FEATURE_SET : ELF_FEATURE_AGREED;
}

static enum elf_feature_wish shstk_wish(const struct kld_options *o)
{
    return o->z_shstk ? ELF_FEATURE_SET : ELF_FEATURE_AGREED;
}

static const struct elf_feature features[] = {
    {1, "GNU_PROPERTY_X86_FEATURE_1_IBT", "-z force-ibt", NULL, ibt_wish, NULL},
    {2, "GNU_PROPERTY_X86_FEATURE_1_SHSTK", NULL, NULL, shstk_wish, NULL},
};

static const char *const isa_levels[] = {"x86-64-baseline", "x86-64-v2", "x86-64-v3", "x86-64-v4",
                                         NULL};

/* endbr64, if the code begins with it: an indirect branch may come here; jmp rel32 */
static bool write_jump(uint8_t *out, const uint8_t *code, uint64_t size, uint64_t at, uint64_t to)
{
    static const uint8_t endbr64[4] = {0xf3, 0x0f, 0x1e, 0xfa};
    unsigned n = 0;
    if (size >= sizeof(endbr64) && memcmp(code, endbr64, sizeof(endbr64)) == 0) {
        memcpy(out, endbr64, sizeof(endbr64));
        n = sizeof(endbr64);
    }
    int64_t distance = (int64_t)(to - (at + n + 5));
    out[n] = 0xe9;
    kld_put32(out + n + 1, (uint32_t)distance);
    return distance == (int32_t)distance;
}

const struct elf_arch_ops x64_elf = {
    .machine = EM_X86_64,
    .r_none = R_X86_64_NONE,
    .r_abs = R_X86_64_64,
    .r_relative = R_X86_64_RELATIVE,
    .r_irelative = R_X86_64_IRELATIVE,
    .r_glob_dat = R_X86_64_GLOB_DAT,
    .r_jump_slot = R_X86_64_JUMP_SLOT,
    .r_copy = R_X86_64_COPY,
    .r_dtpmod = R_X86_64_DTPMOD64,
    .r_dtpoff = R_X86_64_DTPOFF64,
    .r_tpoff = R_X86_64_TPOFF64,
    .r_tlsdesc = R_X86_64_TLSDESC,
    .info = x64_info,
    .ninfo = X64_NINFO,
    .jump_size = 9,
    .write_jump = write_jump,
    .scan = x64_scan,
    .apply = x64_apply,
    .apply_debug = x64_apply_debug,
    .emitted = emitted,
    .plt_header_size = X64_PLT_HEADER_SIZE,
    .plt_entry_size = X64_PLT_ENTRY_SIZE,
    .plt_got_entry_size = X64_PLT_GOT_ENTRY_SIZE,
    .plt_entry_size_ibt = X64_PLT_ENTRY_SIZE,
    .plt_got_entry_size_ibt = X64_PLT_GOT_ENTRY_SIZE_IBT,
    .write_plt_header = write_plt_header,
    .write_plt_entry = write_plt_entry,
    .write_plt_got_entry = write_plt_got_entry,
    .write_plt_sec_entry = write_plt_sec_entry,
    .execstack_default = true,
    .got_plt_reserved = 3,
    .lazy_target = lazy_target,
    .tp_offset = x64_tp_offset,
    .dtprel_is_tprel = true,
    .feature_1_and = 0xc0000002,
    .features = features,
    .nfeatures = KLD_COUNT(features),
    .isa_1_needed = 0xc0008002,
    .isa_levels = isa_levels,
};
