/* x64_apply_elf.c - writes relocated fields, once all addresses are known.
 *
 * The formulas are the psABI's, in its letters (elf_apply.h). */
#include "arch/x86_64/x64_elf.h"
#include "formats/elf/elf_apply.h"

/* ---- fields of 8 and 16 bits ---- */

static void put_small(const struct elf_fixup *f, uint64_t value, unsigned bits, bool is_signed)
{
    elf_check_range(f, value, bits, is_signed);
    if (bits == 8)
        *f->field = (uint8_t)value;
    else
        kld_put16(f->field, (uint16_t)value);
}

/* ---- values ---- */

/* _TLS_MODULE_BASE_, to which code adds x@DTPOFF. */
static bool is_module_base(const struct elf_fixup *f)
{
    const struct kld_symbol *sym = elf_fixup_symbol(f);
    return sym && sym->synthetic && sym->type == KLD_TYPE_TLS;
}

/* x@TPOFF + a; an undefined weak variable is at offset 0. So is the module's base: in a program
 * the x@DTPOFF added to it is x@TPOFF (x64_dtpoff_is_tpoff). */
static uint64_t tp_value(const struct elf_fixup *f, int64_t a)
{
    if (elf_fixup_class(f) == ELF_TO_CONSTANT || is_module_base(f))
        return (uint64_t)a;
    return (uint64_t)x64_tp_offset(f->ctx, elf_fixup_value(f)) + (uint64_t)a;
}

static uint64_t dtp_value(const struct elf_fixup *f)
{
    if (x64_dtpoff_is_tpoff(f->elf, f->atom))
        return tp_value(f, f->a);
    if (elf_fixup_class(f) == ELF_TO_CONSTANT)
        return (uint64_t)f->a;
    return elf_dtp_offset(f->elf, elf_fixup_value(f)) + (uint64_t)f->a;
}

/* ---- families ---- */

static void apply_load(const struct elf_fixup *f)
{
    bool rex = f->type == R_X86_64_REX_GOTPCRELX;
    uint8_t *field = f->field;
    switch (x64_load(f->ctx, f->obj, f->atom, f->rel, elf_fixup_class(f))) {
    case X64_LOAD_GOT: elf_put_s32(f, field, elf_fixup_got(f) + (uint64_t)f->a - f->p); break;
    case X64_LOAD_LEA:
        x64_mov_to_lea(field);
        elf_put_s32(f, field, elf_fixup_value(f) - 4 - f->p);
        break;
    case X64_LOAD_CALL:
        x64_got_to_call(field);
        elf_put_s32(f, field, elf_fixup_value(f) - 4 - f->p);
        break;
    case X64_LOAD_JMP:
        x64_got_to_jmp(field);
        elf_put_s32(f, field - 1, elf_fixup_value(f) - 4 - (f->p - 1));
        break;
    case X64_LOAD_IMMEDIATE:
        x64_got_to_immediate(field, rex);
        elf_put_s32(f, field, elf_fixup_value(f));
        break;
    }
}

/* Distance from the end of the 32-bit field to the slot with the offset from the thread pointer */
static void put_gottpoff(const struct elf_fixup *f, uint8_t *field)
{
    uint64_t end = f->p + (uint64_t)(field - f->field) + 4;
    elf_put_s32(f, field,
                elf_got_address(f->ctx, elf_fixup_aux(f)->gottp) + (uint64_t)(f->a + 4) - end);
}

/* TLSGD, TLSLD: returns how many relocations were dealt with. */
static uint32_t apply_tls_call(const struct elf_fixup *f, uint32_t edge, bool gd)
{
    enum elf_tls to = elf_tls(f->elf, gd ? elf_fixup_class(f) : ELF_TO_LOCAL);
    if (to == ELF_TLS_KEEP) {
        uint32_t slot = gd ? elf_fixup_aux(f)->tlsgd : f->elf->tlsld;
        elf_put_s32(f, f->field, elf_got_address(f->ctx, slot) + (uint64_t)f->a - f->p);
        return 1;
    }
    enum x64_tls_call call = x64_tls_call(f->atom, edge, gd);
    if (!gd)
        x64_ld_to_le(f->field, call);
    else if (to == ELF_TLS_LE)
        elf_put_s32(f, x64_gd_to_le(f->field, call), tp_value(f, f->a + 4));
    else
        put_gottpoff(f, x64_gd_to_ie(f->field, call));
    return 2;
}

static void apply_gottpoff(const struct elf_fixup *f)
{
    if (x64_tls_load(f->elf, f->atom, f->rel, elf_fixup_class(f)) == ELF_TLS_LE) {
        x64_ie_to_le(f->field);
        elf_put_s32(f, f->field, tp_value(f, f->a + 4));
    } else {
        put_gottpoff(f, f->field);
    }
}

static void apply_tlsdesc(const struct elf_fixup *f)
{
    switch (x64_tls_desc(f->elf, f->type, elf_fixup_class(f))) {
    case ELF_TLS_KEEP:
        elf_put_s32(f, f->field,
                    elf_got_address(f->ctx, elf_fixup_aux(f)->tlsdesc) + (uint64_t)f->a - f->p);
        break;
    case ELF_TLS_IE:
        x64_desc_to_ie(f->field);
        put_gottpoff(f, f->field);
        break;
    case ELF_TLS_LE:
        x64_desc_to_le(f->field);
        elf_put_s32(f, f->field, tp_value(f, f->a + 4));
        break;
    }
}

/* ---- the loop ---- */

/* Returns how many relocations were dealt with. */
static uint32_t apply_edge(const struct elf_fixup *f, uint32_t edge)
{
    uint64_t a = (uint64_t)f->a;
    switch (f->type) {
    case R_X86_64_NONE: break;
    case R_X86_64_64: elf_put_word(f); break;
    case R_X86_64_PC32:
    case X64_R_PC32_BND: elf_put_s32(f, f->field, elf_fixup_value(f) + a - f->p); break;
    case R_X86_64_PLT32:
    case X64_R_PLT32_BND: elf_put_s32(f, f->field, elf_fixup_branch(f) + a - f->p); break;
    case R_X86_64_32: elf_put_u32(f, f->field, elf_fixup_value(f) + a); break;
    case R_X86_64_32S: elf_put_s32(f, f->field, elf_fixup_value(f) + a); break;
    case R_X86_64_GOTPCRELX:
    case R_X86_64_REX_GOTPCRELX: apply_load(f); break;
    case R_X86_64_GOTPCREL:
    case X64_R_CODE_4_GOTPCRELX:
    case X64_R_CODE_5_GOTPCRELX:
    case X64_R_CODE_6_GOTPCRELX: elf_put_s32(f, f->field, elf_fixup_got(f) + a - f->p); break;
    case R_X86_64_16: put_small(f, elf_fixup_value(f) + a, 16, false); break;
    case R_X86_64_8: put_small(f, elf_fixup_value(f) + a, 8, false); break;
    case R_X86_64_PC16: put_small(f, elf_fixup_value(f) + a - f->p, 16, true); break;
    case R_X86_64_PC8: put_small(f, elf_fixup_value(f) + a - f->p, 8, true); break;
    case R_X86_64_PC64: kld_put64(f->field, elf_fixup_value(f) + a - f->p); break;
    case R_X86_64_GOT32:
        elf_put_s32(f, f->field, elf_fixup_got(f) + a - elf_got_base(f->elf));
        break;
    case R_X86_64_GOT64:
    case R_X86_64_GOTPLT64: kld_put64(f->field, elf_fixup_got(f) + a - elf_got_base(f->elf)); break;
    case R_X86_64_GOTPCREL64: kld_put64(f->field, elf_fixup_got(f) + a - f->p); break;
    case R_X86_64_GOTOFF64:
        kld_put64(f->field, elf_fixup_value(f) + a - elf_got_base(f->elf));
        break;
    case R_X86_64_PLTOFF64:
        kld_put64(f->field, elf_fixup_branch(f) + a - elf_got_base(f->elf));
        break;
    case R_X86_64_GOTPC32: elf_put_s32(f, f->field, elf_got_base(f->elf) + a - f->p); break;
    case R_X86_64_GOTPC64: kld_put64(f->field, elf_got_base(f->elf) + a - f->p); break;
    case R_X86_64_SIZE32: elf_put_u32(f, f->field, elf_fixup_size(f) + a); break;
    case R_X86_64_SIZE64: kld_put64(f->field, elf_fixup_size(f) + a); break;
    case R_X86_64_TLSGD: return apply_tls_call(f, edge, true);
    case R_X86_64_TLSLD: return apply_tls_call(f, edge, false);
    case R_X86_64_DTPOFF32: elf_put_s32(f, f->field, dtp_value(f)); break;
    case R_X86_64_DTPOFF64: kld_put64(f->field, dtp_value(f)); break;
    case R_X86_64_GOTTPOFF:
    case X64_R_CODE_4_GOTTPOFF:
    case X64_R_CODE_5_GOTTPOFF:
    case X64_R_CODE_6_GOTTPOFF: apply_gottpoff(f); break;
    case R_X86_64_TPOFF32: elf_put_s32(f, f->field, tp_value(f, f->a)); break;
    case R_X86_64_TPOFF64:
        /* In a shared object the dynamic linker's (x64_scan_elf.c). */
        kld_put64(f->field, f->elf->is_shared ? 0 : tp_value(f, f->a));
        break;
    case R_X86_64_GOTPC32_TLSDESC:
    case X64_R_CODE_4_TLSDESC:
    case X64_R_CODE_5_TLSDESC:
    case X64_R_CODE_6_TLSDESC: apply_tlsdesc(f); break;
    case R_X86_64_TLSDESC_CALL:
        if (!f->elf->is_shared)
            x64_desc_call_to_nop(f->field);
        break;
    default: break;
    }
    return 1;
}

void x64_apply(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
               const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct elf_fixup f = {.ctx = ctx, .obj = obj, .elf = elf_state(ctx), .atom = atom};
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges;) {
        elf_fixup_next(&f, &rels[i], out);
        i += apply_edge(&f, i);
    }
}

/* ---- sections that are not in memory ---- */

static void apply_debug_edge(const struct elf_fixup *f, uint64_t x)
{
    switch (f->type) {
    case R_X86_64_64:
    case R_X86_64_DTPOFF64:
    case R_X86_64_SIZE64: kld_put64(f->field, x); break;
    case R_X86_64_32: elf_put_u32(f, f->field, x); break;
    case R_X86_64_32S:
    case R_X86_64_DTPOFF32: elf_put_s32(f, f->field, x); break;
    case R_X86_64_SIZE32: elf_put_u32(f, f->field, x); break;
    case R_X86_64_PC64: kld_put64(f->field, x - f->p); break;
    case R_X86_64_PC32:
    case R_X86_64_PLT32: elf_put_s32(f, f->field, x - f->p); break;
    case R_X86_64_16: put_small(f, x, 16, false); break;
    case R_X86_64_8: put_small(f, x, 8, false); break;
    case R_X86_64_NONE: break;
    default: elf_report_not_loaded(f); break;
    }
}

void x64_apply_debug(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                     const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct elf_fixup f = {.ctx = ctx, .obj = obj, .elf = elf_state(ctx), .atom = atom};
    const elf_rela *rels = atom->edges;
    const uint64_t dead = elf_tombstone(obj, atom);
    struct elf_strings strings = {.r_sym = 0};
    for (uint32_t i = 0; i < atom->nedges; i++) {
        const elf_rela *rel = &rels[i];
        uint32_t type = ELF64_R_TYPE(rel->r_info), r_sym = ELF64_R_SYM(rel->r_info);
        if (kld_unlikely(!elf_is_sound(x64_info, X64_NINFO, obj, atom, rel))) {
            elf_report_unsound(ctx, obj, atom, rel);
            continue;
        }
        if (type == R_X86_64_32 && r_sym && r_sym == strings.r_sym) {
            uint64_t x = kld_strings_address(strings.atom, (uint64_t)rel->r_addend, &strings.last);
            if (kld_likely(x <= UINT32_MAX)) {
                kld_put32(out + rel->r_offset, (uint32_t)x);
                continue;
            }
        }
        struct elf_target t = elf_resolve(ctx, obj, r_sym, rel->r_addend);
        elf_note_strings(&strings, obj, &t);
        uint64_t x = kld_unlikely(t.discarded) ? dead : t.value + (uint64_t)rel->r_addend;
        uint8_t *field = out + rel->r_offset;
        if (kld_likely(type == R_X86_64_32 && x <= UINT32_MAX)) {
            kld_put32(field, (uint32_t)x);
            continue;
        }
        if (kld_likely(type == R_X86_64_64)) {
            kld_put64(field, x);
            continue;
        }
        elf_fixup_next(&f, rel, out);
        if (t.discarded)
            f.p = 0;
        if (type == R_X86_64_SIZE32 || type == R_X86_64_SIZE64)
            x = elf_fixup_size(&f) + (uint64_t)rel->r_addend;
        else if ((type == R_X86_64_DTPOFF32 || type == R_X86_64_DTPOFF64) && !t.discarded)
            x = elf_dtp_offset(f.elf, x);
        apply_debug_edge(&f, x);
    }
}
