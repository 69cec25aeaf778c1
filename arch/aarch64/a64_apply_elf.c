/* a64_apply_elf.c - writes relocated fields, once all addresses are known.
 *
 * The formulas are those of AAELF64 5.7, in its letters (elf_apply.h). */
#include "arch/aarch64/a64_elf.h"
#include "formats/elf/elf_apply.h"

/* ---- fields ---- */

/* A distance in words, `width` bits of it at bit `lo` */
static void put_words(const struct elf_fixup *f, uint64_t distance, unsigned lo, unsigned width)
{
    elf_check_range(f, distance, width + 2, true);
    if (distance & 3)
        elf_report_alignment(f, distance, 4);
    a64_put_bits(f->field, lo, width, distance >> 2);
}

/* Where erratum 843419 may be (a64_erratum_elf.c), an adr of the page does the same as the adrp
 * without it, within 1 MiB. */
static bool avoid_erratum(const struct elf_fixup *f, uint64_t target)
{
    int64_t distance = (int64_t)(a64_page(target) - f->p);
    if (!a64_is_adrp(kld_get32(f->field)) || distance < -(1 << 20) || distance >= 1 << 20)
        return false;
    kld_put32(f->field, kld_get32(f->field) & 0x7fffffff);
    a64_put_adr(f->field, (uint64_t)distance);
    return true;
}

/* adrp */
static void put_page(const struct elf_fixup *f, uint64_t target)
{
    uint64_t distance = a64_page(target) - a64_page(f->p);
    if (f->ctx->options.fix_cortex_a53_843419 && a64_ends_page(f->p) && avoid_erratum(f, target))
        return;
    elf_check_range(f, distance, 33, true);
    a64_put_adr(f->field, distance >> 12);
}

/* Loads and stores of 1 << scale bytes; add with scale 0 */
static void put_low(const struct elf_fixup *f, uint64_t value, unsigned scale)
{
    if (value & ((1u << scale) - 1))
        elf_report_alignment(f, value, 1u << scale);
    a64_put_imm12(f->field, value, scale);
}

/* movz, movk: 16 bits of the value */
static void put_movw(const struct elf_fixup *f, uint64_t value, unsigned shift, bool check)
{
    if (check && value >> (shift + 16))
        elf_report_overflow(f, value, 0, (1ull << (shift + 16)) - 1);
    a64_put_bits(f->field, 5, 16, value >> shift);
}

/* movz, or movn of the inverse if the value is negative. A movk stays one. */
static void put_signed_movw(const struct elf_fixup *f, uint64_t value, unsigned shift)
{
    enum { OPCODE_AT = 29, MOVN = 0, MOVZ = 2, MOVK = 3 };
    bool negative = (int64_t)value < 0;
    if (shift < 48)
        elf_check_range(f, value, shift + 17, true);
    if ((kld_get32(f->field) >> OPCODE_AT & 3) != MOVK) {
        a64_put_bits(f->field, OPCODE_AT, 2, negative ? MOVN : MOVZ);
        value = negative ? ~value : value;
    }
    a64_put_bits(f->field, 5, 16, value >> shift);
}

/* Loads and stores, and add, without a second instruction for the high bits. */
static void put_whole_low(const struct elf_fixup *f, uint64_t value, unsigned scale)
{
    if (value >> 12)
        elf_report_overflow(f, value, 0, (1u << 12) - 1);
    put_low(f, value, scale);
}

static void put_high(const struct elf_fixup *f, uint64_t value)
{
    if (value >> 24)
        elf_report_overflow(f, value, 0, (1u << 24) - 1);
    put_low(f, value >> 12, 0);
}

/* A load from a slot, by its distance from `base` */
static void put_slot_offset(const struct elf_fixup *f, uint64_t slot, uint64_t base)
{
    uint64_t offset = slot - base;
    if (offset >> 15)
        elf_report_overflow(f, offset, 0, (1u << 15) - 1);
    a64_put_bits(f->field, 10, 12, offset >> 3);
}

static void put_adr(const struct elf_fixup *f, uint64_t distance)
{
    elf_check_range(f, distance, 21, true);
    a64_put_adr(f->field, distance);
}

static void put_field(const struct elf_fixup *f, enum a64_field field, uint64_t x)
{
    switch (field) {
    case A64_WORD64: kld_put64(f->field, x); break;
    case A64_WORD32:
        elf_check_range(f, x, 32, false);
        kld_put32(f->field, (uint32_t)x);
        break;
    case A64_WORD32S: elf_put_s32(f, f->field, x); break;
    case A64_WORD16:
        elf_check_range(f, x, 16, false);
        kld_put16(f->field, (uint16_t)x);
        break;
    case A64_DISTANCE64: kld_put64(f->field, x - f->p); break;
    case A64_DISTANCE32: elf_put_s32(f, f->field, x - f->p); break;
    case A64_DISTANCE16:
        elf_check_range(f, x - f->p, 16, false);
        kld_put16(f->field, (uint16_t)(x - f->p));
        break;
    case A64_MOVZ_G0:
    case A64_MOVZ_G1:
    case A64_MOVZ_G2: put_movw(f, x, 16 * (field - A64_MOVZ_G0), true); break;
    case A64_MOVS_G0:
    case A64_MOVS_G1:
    case A64_MOVS_G2:
    case A64_MOVS_G3: put_signed_movw(f, x, 16 * (field - A64_MOVS_G0)); break;
    case A64_MOVK_G0:
    case A64_MOVK_G1:
    case A64_MOVK_G2:
    case A64_MOVK_G3: put_movw(f, x, 16 * (field - A64_MOVK_G0), false); break;
    case A64_LITERAL: put_words(f, x - f->p, 5, 19); break;
    case A64_ADR: put_adr(f, x - f->p); break;
    case A64_ADRP: put_page(f, x); break;
    case A64_ADRP_NC: a64_put_adrp(f->field, f->p, x); break;
    case A64_HI12: put_high(f, x); break;
    case A64_LO12_1:
    case A64_LO12_2:
    case A64_LO12_4:
    case A64_LO12_8:
    case A64_LO12_16: put_low(f, x, field - A64_LO12_1); break;
    case A64_LO12C_1:
    case A64_LO12C_2:
    case A64_LO12C_4:
    case A64_LO12C_8:
    case A64_LO12C_16: put_whole_low(f, x, field - A64_LO12C_1); break;
    case A64_GOT_LO15: put_slot_offset(f, x, f->elf->got_addr); break;
    case A64_GOTPAGE_LO15: put_slot_offset(f, x, a64_page(f->elf->got_addr)); break;
    case A64_BRANCH14: /* apply_branch has these */
    case A64_BRANCH19:
    case A64_BRANCH26:
    case A64_NO_FIELD:
    case A64_MARK: break;
    }
}

/* ---- families ---- */

static uint64_t branch_target(const struct elf_fixup *f, unsigned width)
{
    uint64_t target = elf_fixup_branch(f) + (uint64_t)f->a;
    if (kld_unlikely(f->ctx->islands) && width == 26)
        return a64_island(f, target);
    return target;
}

/* A branch to what is undefined and weak goes on behind it (AAELF64 5.7.6). */
static void apply_branch(const struct elf_fixup *f, unsigned lo, unsigned width)
{
    if (elf_fixup_class(f) == ELF_TO_CONSTANT && !elf_fixup_value(f))
        kld_put32(f->field, A64_INSN_NOP);
    else
        put_words(f, branch_target(f, width) - f->p, lo, width);
}

/* TPREL(S + A); an undefined weak variable is at offset 0. */
static uint64_t tp_value(const struct elf_fixup *f)
{
    if (elf_fixup_class(f) == ELF_TO_CONSTANT)
        return (uint64_t)f->a;
    return (uint64_t)a64_tp_offset(f->ctx, elf_fixup_value(f)) + (uint64_t)f->a;
}

static uint64_t dtp_value(const struct elf_fixup *f)
{
    if (elf_fixup_class(f) == ELF_TO_CONSTANT)
        return (uint64_t)f->a;
    return elf_dtp_offset(f->elf, elf_fixup_value(f)) + (uint64_t)f->a;
}

/* The offset from the thread pointer, as the halves of movz and movk of the register `reg` */
static void put_tp_half(const struct elf_fixup *f, bool high, unsigned reg)
{
    uint64_t x = tp_value(f);
    elf_check_range(f, x, 32, false);
    kld_put32(f->field, (high ? A64_INSN_MOVZ_LSL16 : A64_INSN_MOVK) | reg);
    put_movw(f, x, high ? 16 : 0, false);
}

/*  adrp x0, v; ldr x1, [x0, v]; add x0, x0, v; blr x1      of a descriptor become
 *  adrp x0, v; ldr x0, [x0, v]; nop; nop                   of a GOT slot with the offset, or
 *  movz x0, v, lsl 16; movk x0, v; nop; nop                with the offset itself
 * and of the tiny code model
 *  ldr x1, v; adr x0, v; blr x1
 *  ldr x0, v; nop; nop
 *  movz x0, v, lsl 16; movk x0, v; nop */
static void apply_tlsdesc(const struct elf_fixup *f)
{
    enum elf_tls to = elf_tls(f->elf, elf_fixup_class(f));
    bool first = f->type == A64_R_TLSDESC_ADR_PAGE21 || f->type == A64_R_TLSDESC_LD_PREL19;
    bool second = f->type == A64_R_TLSDESC_LD64_LO12 ||
                  (to == ELF_TLS_LE && f->type == A64_R_TLSDESC_ADR_PREL21);
    if (to != ELF_TLS_KEEP && !first && !second) {
        kld_put32(f->field, A64_INSN_NOP);
        return;
    }
    if (to == ELF_TLS_LE) {
        put_tp_half(f, first, 0);
        return;
    }
    if (f->type == A64_R_TLSDESC_CALL)
        return;
    const struct elf_aux *aux = elf_fixup_aux(f);
    uint64_t at = elf_got_address(f->ctx, to == ELF_TLS_IE ? aux->gottp : aux->tlsdesc);
    if (to == ELF_TLS_IE)
        kld_put32(f->field, f->type == A64_R_TLSDESC_ADR_PAGE21  ? A64_INSN_ADRP
                            : f->type == A64_R_TLSDESC_LD_PREL19 ? A64_INSN_LDR64_LITERAL
                                                                 : A64_INSN_LDR64);
    put_field(f, a64_meaning[f->type].field, at);
}

static void apply_tls_slot(const struct elf_fixup *f, struct a64_kept *kept)
{
    uint32_t edge = (uint32_t)(f->rel - (const elf_rela *)f->atom->edges);
    bool high = f->type == A64_R_TLSIE_ADR_GOTTPREL_PAGE21;
    if (a64_bypasses_tls_slot(f->ctx, f->atom, edge, elf_fixup_class(f), kept))
        put_tp_half(f, high, kld_get32(f->field) & 31);
    else
        put_field(f, a64_meaning[f->type].field, elf_got_address(f->ctx, elf_fixup_aux(f)->gottp));
}

/* Of two instructions for one address nop and adr are enough within 1 MiB. */
static bool put_near_address(const struct elf_fixup *f, uint64_t address)
{
    int64_t distance = (int64_t)(address - (f->p + 4));
    if (distance < -(1 << 20) || distance >= 1 << 20)
        return false;
    uint32_t reg = kld_get32(f->field) & 31;
    kld_put32(f->field, A64_INSN_NOP);
    kld_put32(f->field + 4, A64_INSN_ADR | reg);
    a64_put_adr(f->field + 4, (uint64_t)distance);
    return true;
}

/* adrp x, v; ldr x, [x, v] of a GOT slot become adrp x, v; add x, x, v. */
static void put_address(const struct elf_fixup *f, uint64_t address)
{
    uint32_t reg = kld_get32(f->field) & 31;
    if (put_near_address(f, address))
        return;
    put_page(f, address);
    kld_put32(f->field + 4, A64_INSN_ADD64 | reg << 5 | reg);
    a64_put_imm12(f->field + 4, address, 0);
}

/* ---- all of them ---- */

static uint64_t value_of(const struct elf_fixup *f, enum a64_value value)
{
    uint64_t a = (uint64_t)f->a;
    switch (value) {
    case A64_ABS: return elf_fixup_value(f) + a;
    case A64_PREL: return elf_fixup_value(f) + a - f->p;
    case A64_BRANCH: return elf_fixup_branch(f) + a;
    case A64_GOTREL: return elf_fixup_value(f) + a - f->elf->got_addr;
    case A64_GOT: return elf_fixup_got(f) + a;
    case A64_DTPREL: return dtp_value(f);
    case A64_TPREL: return tp_value(f);
    case A64_TLSGD: return elf_got_address(f->ctx, elf_fixup_aux(f)->tlsgd);
    case A64_TLSLD: return elf_got_address(f->ctx, f->elf->tlsld);
    default: return 0;
    }
}

/* Pairs of instructions that are rewritten together */
static bool apply_pair(const struct elf_fixup *f, struct a64_kept *kept)
{
    uint32_t edge = (uint32_t)(f->rel - (const elf_rela *)f->atom->edges);
    if (f->type == A64_R_ADR_GOT_PAGE &&
        a64_bypasses_got(f->ctx, f->atom, edge, elf_fixup_class(f), kept)) {
        put_address(f, elf_fixup_value(f) + (uint64_t)f->a);
        return true;
    }
    return f->type == A64_R_ADR_PREL_PG_HI21 && a64_is_address_pair(f->ctx, f->atom, edge) &&
           put_near_address(f, elf_fixup_value(f) + (uint64_t)f->a);
}

/* Returns how many relocations were dealt with. */
static uint32_t apply_edge(const struct elf_fixup *f, struct a64_kept *kept)
{
    enum a64_value value = a64_meaning[f->type].value;
    enum a64_field field = a64_meaning[f->type].field;
    if (field == A64_ADRP && apply_pair(f, kept))
        return 2;
    if (value == A64_NOTHING)
        return 1;
    if (value == A64_TLSDESC)
        apply_tlsdesc(f);
    else if (value == A64_TLSIE)
        apply_tls_slot(f, kept);
    else if (value == A64_ABS && field == A64_WORD64)
        elf_put_word(f);
    else if (field == A64_BRANCH14)
        apply_branch(f, 5, 14);
    else if (field == A64_BRANCH19)
        apply_branch(f, 5, 19);
    else if (field == A64_BRANCH26)
        apply_branch(f, 0, 26);
    else
        put_field(f, field, value_of(f, value));
    return 1;
}

uint32_t a64_apply_edge(const struct elf_fixup *f)
{
    struct a64_kept kept = {0};
    return apply_edge(f, &kept);
}

void a64_apply(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
               const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct elf_fixup f = {.ctx = ctx, .obj = obj, .elf = elf_state(ctx), .atom = atom};
    struct a64_kept kept = {0};
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges;) {
        elf_fixup_next(&f, &rels[i], out);
        i += apply_edge(&f, &kept);
    }
    if (ctx->options.fix_cortex_a53_843419 && (atom->flags & KLD_ATOM_EXEC))
        a64_apply_erratum(ctx, atom, out);
}

/* ---- sections that are not in memory ---- */

void a64_apply_debug(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                     const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct elf_fixup f = {.ctx = ctx, .obj = obj, .elf = elf_state(ctx), .atom = atom};
    const elf_rela *rels = atom->edges;
    const uint64_t dead = elf_tombstone(obj, atom);
    for (uint32_t i = 0; i < atom->nedges; i++) {
        const elf_rela *rel = &rels[i];
        if (kld_unlikely(!elf_is_sound(a64_info, A64_NINFO, obj, atom, rel))) {
            elf_report_unsound(ctx, obj, atom, rel);
            continue;
        }
        elf_fixup_next(&f, rel, out);
        struct elf_target t = elf_resolve(ctx, obj, f.r_sym, rel->r_addend);
        uint64_t x = kld_unlikely(t.discarded) ? dead : t.value + (uint64_t)rel->r_addend;
        if (t.discarded)
            f.p = 0;
        switch (f.type) {
        case R_AARCH64_NONE:
        case A64_R_NONE2: break;
        case R_AARCH64_ABS64: kld_put64(f.field, x); break;
        case R_AARCH64_ABS32: elf_put_u32(&f, f.field, x); break;
        case R_AARCH64_PREL64: kld_put64(f.field, x - f.p); break;
        case R_AARCH64_PREL32: elf_put_s32(&f, f.field, x - f.p); break;
        case R_AARCH64_TLS_DTPREL:
            kld_put64(f.field, t.discarded ? 0 : elf_dtp_offset(f.elf, x));
            break;
        default: elf_report_not_loaded(&f); break;
        }
    }
}
