/* a64_apply_elf.c - writes relocated fields, once all addresses are known.
 *
 * The formulas are those of AAELF64 5.7, in its letters (elf_apply.h). */
#include "arch/aarch64/a64_elf.h"
#include "formats/elf/elf_apply.h"

enum { NOP = 0xd503201f };

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
    if (check && shift < 48 && value >> (shift + 16))
        elf_report_overflow(f, value, 0, (1ull << (shift + 16)) - 1);
    a64_put_bits(f->field, 5, 16, value >> shift);
}

/* ---- families ---- */

/* S + A; what the dynamic linker adds a symbol to stays 0. */
static void apply_word(const struct elf_fixup *f, uint64_t x)
{
    enum elf_word_need word = elf_word_need(f->ctx, f->atom, elf_fixup_class(f));
    kld_put64(f->field, word == ELF_WORD_SYMBOLIC ? 0 : x);
}

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
        kld_put32(f->field, NOP);
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

static uint64_t slot(const struct elf_fixup *f, uint32_t number)
{
    return elf_got_address(f->ctx, number) + (uint64_t)f->a;
}

/*  adrp x0, v; ldr x1, [x0, v]; add x0, x0, v; blr x1      of a descriptor become
 *  adrp x0, v; ldr x0, [x0, v]; nop; nop                   of a GOT slot with the offset, or
 *  movz x0, v, lsl 16; movk x0, v; nop; nop                with the offset itself */
static void apply_tlsdesc(const struct elf_fixup *f)
{
    enum elf_tls to = elf_tls(f->elf, elf_fixup_class(f));
    if (to != ELF_TLS_KEEP &&
        (f->type == R_AARCH64_TLSDESC_ADD_LO12 || f->type == R_AARCH64_TLSDESC_CALL)) {
        kld_put32(f->field, NOP);
        return;
    }
    bool high = f->type == R_AARCH64_TLSDESC_ADR_PAGE21;
    if (to == ELF_TLS_LE) {
        uint64_t x = tp_value(f);
        elf_check_range(f, x, 32, false);
        kld_put32(f->field, high ? 0xd2a00000 : 0xf2800000);
        put_movw(f, x, high ? 16 : 0, false);
        return;
    }
    if (f->type == R_AARCH64_TLSDESC_CALL)
        return;
    const struct elf_aux *aux = elf_fixup_aux(f);
    uint64_t at = slot(f, to == ELF_TLS_IE ? aux->gottp : aux->tlsdesc);
    if (to == ELF_TLS_IE)
        kld_put32(f->field, high ? 0x90000000 : 0xf9400000);
    if (high)
        put_page(f, at);
    else
        put_low(f, at, f->type == R_AARCH64_TLSDESC_LD64_LO12 ? 3 : 0);
}

/* Local exec: an add of 24 bits in two halves, or an access within the first 4 KiB. */
static void apply_local_exec(const struct elf_fixup *f)
{
    uint64_t x = tp_value(f);
    switch (f->type) {
    case R_AARCH64_TLSLE_ADD_TPREL_HI12:
        if (x >> 24)
            elf_report_overflow(f, x, 0, (1u << 24) - 1);
        put_low(f, x >> 12, 0);
        return;
    case R_AARCH64_TLSLE_ADD_TPREL_LO12:
    case R_AARCH64_TLSLE_LDST8_TPREL_LO12:
    case R_AARCH64_TLSLE_LDST16_TPREL_LO12:
    case R_AARCH64_TLSLE_LDST32_TPREL_LO12:
    case R_AARCH64_TLSLE_LDST64_TPREL_LO12:
        if (x >> 12)
            elf_report_overflow(f, x, 0, (1u << 12) - 1);
        break;
    default: break;
    }
    unsigned scale = f->type < R_AARCH64_TLSLE_LDST8_TPREL_LO12
                         ? 0
                         : (f->type - R_AARCH64_TLSLE_LDST8_TPREL_LO12) / 2;
    put_low(f, x, scale);
}

void a64_apply_edge(const struct elf_fixup *f)
{
    uint64_t x = 0;
    if (a64_info[f->type].kind == ELF_RELOC_DIRECT && f->type != R_AARCH64_NONE)
        x = elf_fixup_value(f) + (uint64_t)f->a;
    switch (f->type) {
    case R_AARCH64_ABS64: apply_word(f, x); break;
    case R_AARCH64_ABS32:
        elf_check_range(f, x, 32, false);
        kld_put32(f->field, (uint32_t)x);
        break;
    case R_AARCH64_ABS16:
        elf_check_range(f, x, 16, false);
        kld_put16(f->field, (uint16_t)x);
        break;
    case R_AARCH64_PREL64: kld_put64(f->field, x - f->p); break;
    case R_AARCH64_PREL32: elf_put_s32(f, f->field, x - f->p); break;
    case A64_R_PLT32: elf_put_s32(f, f->field, elf_fixup_branch(f) + (uint64_t)f->a - f->p); break;
    case R_AARCH64_PREL16:
        elf_check_range(f, x - f->p, 16, false);
        kld_put16(f->field, (uint16_t)(x - f->p));
        break;
    case R_AARCH64_MOVW_UABS_G0: put_movw(f, x, 0, true); break;
    case R_AARCH64_MOVW_UABS_G0_NC: put_movw(f, x, 0, false); break;
    case R_AARCH64_MOVW_UABS_G1: put_movw(f, x, 16, true); break;
    case R_AARCH64_MOVW_UABS_G1_NC: put_movw(f, x, 16, false); break;
    case R_AARCH64_MOVW_UABS_G2: put_movw(f, x, 32, true); break;
    case R_AARCH64_MOVW_UABS_G2_NC: put_movw(f, x, 32, false); break;
    case R_AARCH64_MOVW_UABS_G3: put_movw(f, x, 48, false); break;
    case R_AARCH64_LD_PREL_LO19: put_words(f, x - f->p, 5, 19); break;
    case R_AARCH64_ADR_PREL_LO21:
        elf_check_range(f, x - f->p, 21, true);
        a64_put_adr(f->field, x - f->p);
        break;
    case R_AARCH64_ADR_PREL_PG_HI21: put_page(f, x); break;
    case R_AARCH64_ADR_PREL_PG_HI21_NC: a64_put_adrp(f->field, f->p, x); break;
    case R_AARCH64_ADD_ABS_LO12_NC:
    case R_AARCH64_LDST8_ABS_LO12_NC: put_low(f, x, 0); break;
    case R_AARCH64_LDST16_ABS_LO12_NC: put_low(f, x, 1); break;
    case R_AARCH64_LDST32_ABS_LO12_NC: put_low(f, x, 2); break;
    case R_AARCH64_LDST64_ABS_LO12_NC: put_low(f, x, 3); break;
    case R_AARCH64_LDST128_ABS_LO12_NC: put_low(f, x, 4); break;
    case R_AARCH64_TSTBR14: apply_branch(f, 5, 14); break;
    case R_AARCH64_CONDBR19: apply_branch(f, 5, 19); break;
    case R_AARCH64_JUMP26:
    case R_AARCH64_CALL26: apply_branch(f, 0, 26); break;
    case A64_R_GOTPCREL32:
        elf_put_s32(f, f->field, elf_fixup_got(f) + (uint64_t)f->a - f->p);
        break;
    case R_AARCH64_GOT_LD_PREL19: put_words(f, elf_fixup_got(f) - f->p, 5, 19); break;
    case R_AARCH64_ADR_GOT_PAGE: put_page(f, elf_fixup_got(f)); break;
    case R_AARCH64_LD64_GOT_LO12_NC: put_low(f, elf_fixup_got(f), 3); break;
    case R_AARCH64_LD64_GOTPAGE_LO15: {
        uint64_t offset = elf_fixup_got(f) - a64_page(f->elf->got_addr);
        if (offset >> 15)
            elf_report_overflow(f, offset, 0, (1u << 15) - 1);
        a64_put_bits(f->field, 10, 12, offset >> 3);
        break;
    }
    case R_AARCH64_TLSGD_ADR_PAGE21: put_page(f, slot(f, elf_fixup_aux(f)->tlsgd)); break;
    case R_AARCH64_TLSGD_ADD_LO12_NC: put_low(f, slot(f, elf_fixup_aux(f)->tlsgd), 0); break;
    case R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21: put_page(f, slot(f, elf_fixup_aux(f)->gottp)); break;
    case R_AARCH64_TLSIE_LD64_GOTTPREL_LO12_NC:
        put_low(f, slot(f, elf_fixup_aux(f)->gottp), 3);
        break;
    case R_AARCH64_TLSDESC_ADR_PAGE21:
    case R_AARCH64_TLSDESC_LD64_LO12:
    case R_AARCH64_TLSDESC_ADD_LO12:
    case R_AARCH64_TLSDESC_CALL: apply_tlsdesc(f); break;
    default:
        if (a64_info[f->type].kind == ELF_RELOC_TLS)
            apply_local_exec(f);
        break;
    }
}

void a64_apply(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
               const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct elf_fixup f = {.ctx = ctx, .obj = obj, .elf = elf_state(ctx), .atom = atom};
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges; i++) {
        elf_fixup_next(&f, &rels[i], out);
        a64_apply_edge(&f);
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
        default: {
            struct kld_where where = elf_where(atom, rel->r_offset);
            kld_error(ctx, "bad-relocation", &where,
                      "relocation %s in a section that is not loaded", elf_reloc_name(ctx, f.type));
            break;
        }
        }
    }
}
