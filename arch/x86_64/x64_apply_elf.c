/* x64_apply_elf.c - writes relocated fields, once all addresses are known.
 *
 * The formulas are the psABI's: S the target's value, A the addend, P the place, G a GOT slot,
 * GOT the table's base, L a PLT entry, Z the target's size. Scan has checked the numbers. */
#include "arch/x86_64/x64_elf.h"

/* What the formulas of one relocation need. */
struct place {
    struct kld_session *ctx;
    struct elf_object *obj;
    const struct elf_link *elf;
    const struct kld_atom *atom;
    const elf_rela *rel;
    uint32_t type, r_sym;
    uint64_t p;
    int64_t a;
    uint8_t *field;
};

/* ---- range checks ---- */

static void report_overflow(const struct place *f, uint64_t value, int64_t min, uint64_t max)
{
    struct kld_str name = elf_target_name(f->ctx, f->obj, f->r_sym);
    struct kld_where where = elf_where(f->atom, f->rel->r_offset);
    bool negative = min < 0 && (int64_t)value < 0;
    kld_error(f->ctx, "relocation-overflow", &where,
              "relocation %s out of range: %s0x%llx is not in [%lld, %llu]; references '%.*s'",
              elf_reloc_name(f->ctx, f->type), negative ? "-" : "",
              (unsigned long long)(negative ? -value : value), (long long)min,
              (unsigned long long)max, KLD_FMT(name));
}

static inline void put_s32(const struct place *f, uint8_t *field, uint64_t value)
{
    if (kld_unlikely((int64_t)value != (int32_t)value))
        report_overflow(f, value, INT32_MIN, INT32_MAX);
    kld_put32(field, (uint32_t)value);
}

static inline void put_u32(const struct place *f, uint8_t *field, uint64_t value)
{
    if (kld_unlikely(value > UINT32_MAX))
        report_overflow(f, value, 0, UINT32_MAX);
    kld_put32(field, (uint32_t)value);
}

/* Fields of 8 and 16 bits: distances are signed, addresses may be meant either way. */
static void put_small(const struct place *f, uint64_t value, unsigned bits, bool is_signed)
{
    int64_t min = -(1ll << (bits - 1));
    uint64_t max = (1ull << (is_signed ? bits - 1 : bits)) - 1;
    if ((int64_t)value < min || (int64_t)value > (int64_t)max)
        report_overflow(f, value, min, max);
    if (bits == 8)
        *f->field = (uint8_t)value;
    else
        kld_put16(f->field, (uint16_t)value);
}

/* ---- values ---- */

static enum elf_class class_of(const struct place *f)
{
    /* To scan too, what is undefined is 0 once it has been reported (or may be: an option). */
    enum elf_class class = elf_classify(f->ctx, f->obj, f->r_sym);
    return class == ELF_TO_UNDEFINED ? ELF_TO_CONSTANT : class;
}

/* The target's symbol: of a local one only if scan made it. */
static struct kld_symbol *symbol_of(const struct place *f)
{
    if (f->r_sym >= f->obj->first_global)
        return elf_global(f->ctx, f->obj, f->r_sym);
    return elf_local_symbol(f->obj, f->r_sym);
}

static const struct elf_aux *aux_of(const struct place *f)
{
    return elf_aux(f->ctx, symbol_of(f));
}

static bool has_plt(const struct kld_session *ctx, const struct kld_symbol *sym)
{
    if (!sym || !sym->aux)
        return false;
    const struct elf_aux *aux = elf_aux(ctx, sym);
    return aux->plt != ELF_NONE || aux->plt_got != ELF_NONE || aux->iplt != ELF_NONE;
}

static uint64_t local_value(const struct place *f)
{
    return elf_resolve(f->ctx, f->obj, f->r_sym, f->a).value;
}

/* S. That of a global name takes no look at the symbol, which would be a cache miss. */
static inline uint64_t value_of(const struct place *f)
{
    if (f->r_sym < f->obj->first_global)
        return local_value(f);
    return f->elf->addresses[f->obj->base.ids[f->r_sym - f->obj->first_global]];
}

/* L, or S for what a branch reaches without a PLT entry. */
static inline uint64_t branch_target(const struct place *f)
{
    if (f->r_sym < f->obj->first_global)
        return local_value(f);
    kld_symid id = f->obj->base.ids[f->r_sym - f->obj->first_global];
    const struct kld_symbol *sym = &f->ctx->symbols[id];
    if (kld_unlikely(elf_is_dynamic_symbol(sym)) && has_plt(f->ctx, sym))
        return elf_plt_address(f->ctx, sym);
    return f->elf->addresses[id];
}

/* G */
static uint64_t got_slot(const struct place *f)
{
    return elf_got_address(f->ctx, aux_of(f)->got);
}

/* GOT: what _GLOBAL_OFFSET_TABLE_ stands for */
static uint64_t got_base(const struct place *f)
{
    return f->elf->synth[ELF_GOT_PLT] ? f->elf->got_plt_addr : f->elf->got_addr;
}

static uint64_t size_of(const struct place *f)
{
    if (f->r_sym >= f->obj->first_global)
        return elf_global(f->ctx, f->obj, f->r_sym)->size;
    return f->obj->syms[f->r_sym].st_size;
}

/* _TLS_MODULE_BASE_, to which code adds x@DTPOFF. */
static bool is_module_base(const struct place *f)
{
    const struct kld_symbol *sym = symbol_of(f);
    return sym && sym->synthetic && sym->type == KLD_TYPE_TLS;
}

/* x@TPOFF + a; an undefined weak variable is at offset 0. So is the module's base: in a program
 * the x@DTPOFF added to it is x@TPOFF (x64_dtpoff_is_tpoff). */
static uint64_t tp_value(const struct place *f, int64_t a)
{
    if (class_of(f) == ELF_TO_CONSTANT || is_module_base(f))
        return (uint64_t)a;
    return (uint64_t)x64_tp_offset(f->ctx, value_of(f)) + (uint64_t)a;
}

static uint64_t dtp_value(const struct place *f)
{
    if (x64_dtpoff_is_tpoff(f->elf, f->atom))
        return tp_value(f, f->a);
    if (class_of(f) == ELF_TO_CONSTANT)
        return (uint64_t)f->a;
    return (uint64_t)x64_dtp_offset(f->ctx, value_of(f)) + (uint64_t)f->a;
}

/* ---- families ---- */

/* S + A; what the dynamic linker adds a symbol to stays 0. */
static void apply_word(const struct place *f)
{
    enum elf_word_need word = elf_word_need(f->ctx, f->atom, class_of(f));
    kld_put64(f->field, word == ELF_WORD_SYMBOLIC ? 0 : value_of(f) + (uint64_t)f->a);
}

static void apply_load(const struct place *f)
{
    bool rex = f->type == R_X86_64_REX_GOTPCRELX;
    uint8_t *field = f->field;
    switch (x64_load(f->ctx, f->obj, f->atom, f->rel, class_of(f))) {
    case X64_LOAD_GOT: put_s32(f, field, got_slot(f) + (uint64_t)f->a - f->p); break;
    case X64_LOAD_LEA:
        x64_mov_to_lea(field);
        put_s32(f, field, value_of(f) - 4 - f->p);
        break;
    case X64_LOAD_CALL:
        x64_got_to_call(field);
        put_s32(f, field, value_of(f) - 4 - f->p);
        break;
    case X64_LOAD_JMP:
        x64_got_to_jmp(field);
        put_s32(f, field - 1, value_of(f) - 4 - (f->p - 1));
        break;
    case X64_LOAD_IMMEDIATE:
        x64_got_to_immediate(field, rex);
        put_s32(f, field, value_of(f));
        break;
    }
}

/* Distance from the end of the 32-bit field to the slot with the offset from the thread pointer */
static void put_gottpoff(const struct place *f, uint8_t *field)
{
    uint64_t end = f->p + (uint64_t)(field - f->field) + 4;
    put_s32(f, field, elf_got_address(f->ctx, aux_of(f)->gottp) + (uint64_t)(f->a + 4) - end);
}

/* TLSGD, TLSLD: returns how many relocations were dealt with. */
static uint32_t apply_tls_call(const struct place *f, uint32_t edge, bool gd)
{
    enum elf_tls to = elf_tls(f->elf, gd ? class_of(f) : ELF_TO_LOCAL);
    if (to == ELF_TLS_KEEP) {
        uint32_t slot = gd ? aux_of(f)->tlsgd : f->elf->tlsld;
        put_s32(f, f->field, elf_got_address(f->ctx, slot) + (uint64_t)f->a - f->p);
        return 1;
    }
    enum x64_tls_call call = x64_tls_call(f->atom, edge, gd);
    if (!gd)
        x64_ld_to_le(f->field, call);
    else if (to == ELF_TLS_LE)
        put_s32(f, x64_gd_to_le(f->field, call), tp_value(f, f->a + 4));
    else
        put_gottpoff(f, x64_gd_to_ie(f->field, call));
    return 2;
}

static void apply_gottpoff(const struct place *f)
{
    if (x64_tls_load(f->elf, f->atom, f->rel, class_of(f)) == ELF_TLS_LE) {
        x64_ie_to_le(f->field);
        put_s32(f, f->field, tp_value(f, f->a + 4));
    } else {
        put_gottpoff(f, f->field);
    }
}

static void apply_tlsdesc(const struct place *f)
{
    switch (x64_tls_desc(f->elf, f->type, class_of(f))) {
    case ELF_TLS_KEEP:
        put_s32(f, f->field, elf_got_address(f->ctx, aux_of(f)->tlsdesc) + (uint64_t)f->a - f->p);
        break;
    case ELF_TLS_IE:
        x64_desc_to_ie(f->field);
        put_gottpoff(f, f->field);
        break;
    case ELF_TLS_LE:
        x64_desc_to_le(f->field);
        put_s32(f, f->field, tp_value(f, f->a + 4));
        break;
    }
}

/* ---- the loop ---- */

/* Returns how many relocations were dealt with. */
static uint32_t apply_edge(const struct place *f, uint32_t edge)
{
    uint64_t a = (uint64_t)f->a;
    switch (f->type) {
    case R_X86_64_NONE: break;
    case R_X86_64_64: apply_word(f); break;
    case R_X86_64_PC32:
    case X64_R_PC32_BND: put_s32(f, f->field, value_of(f) + a - f->p); break;
    case R_X86_64_PLT32:
    case X64_R_PLT32_BND: put_s32(f, f->field, branch_target(f) + a - f->p); break;
    case R_X86_64_32: put_u32(f, f->field, value_of(f) + a); break;
    case R_X86_64_32S: put_s32(f, f->field, value_of(f) + a); break;
    case R_X86_64_GOTPCRELX:
    case R_X86_64_REX_GOTPCRELX: apply_load(f); break;
    case R_X86_64_GOTPCREL:
    case X64_R_CODE_4_GOTPCRELX:
    case X64_R_CODE_5_GOTPCRELX:
    case X64_R_CODE_6_GOTPCRELX: put_s32(f, f->field, got_slot(f) + a - f->p); break;
    case R_X86_64_16: put_small(f, value_of(f) + a, 16, false); break;
    case R_X86_64_8: put_small(f, value_of(f) + a, 8, false); break;
    case R_X86_64_PC16: put_small(f, value_of(f) + a - f->p, 16, true); break;
    case R_X86_64_PC8: put_small(f, value_of(f) + a - f->p, 8, true); break;
    case R_X86_64_PC64: kld_put64(f->field, value_of(f) + a - f->p); break;
    case R_X86_64_GOT32: put_s32(f, f->field, got_slot(f) + a - got_base(f)); break;
    case R_X86_64_GOT64:
    case R_X86_64_GOTPLT64: kld_put64(f->field, got_slot(f) + a - got_base(f)); break;
    case R_X86_64_GOTPCREL64: kld_put64(f->field, got_slot(f) + a - f->p); break;
    case R_X86_64_GOTOFF64: kld_put64(f->field, value_of(f) + a - got_base(f)); break;
    case R_X86_64_PLTOFF64: kld_put64(f->field, branch_target(f) + a - got_base(f)); break;
    case R_X86_64_GOTPC32: put_s32(f, f->field, got_base(f) + a - f->p); break;
    case R_X86_64_GOTPC64: kld_put64(f->field, got_base(f) + a - f->p); break;
    case R_X86_64_SIZE32: put_u32(f, f->field, size_of(f) + a); break;
    case R_X86_64_SIZE64: kld_put64(f->field, size_of(f) + a); break;
    case R_X86_64_TLSGD: return apply_tls_call(f, edge, true);
    case R_X86_64_TLSLD: return apply_tls_call(f, edge, false);
    case R_X86_64_DTPOFF32: put_s32(f, f->field, dtp_value(f)); break;
    case R_X86_64_DTPOFF64: kld_put64(f->field, dtp_value(f)); break;
    case R_X86_64_GOTTPOFF:
    case X64_R_CODE_4_GOTTPOFF:
    case X64_R_CODE_5_GOTTPOFF:
    case X64_R_CODE_6_GOTTPOFF: apply_gottpoff(f); break;
    case R_X86_64_TPOFF32: put_s32(f, f->field, tp_value(f, f->a)); break;
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
    struct place f = {.ctx = ctx, .obj = obj, .elf = elf_state(ctx), .atom = atom};
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges;) {
        const elf_rela *rel = &rels[i];
        f.rel = rel;
        f.type = ELF64_R_TYPE(rel->r_info);
        f.r_sym = ELF64_R_SYM(rel->r_info);
        f.p = atom->addr + rel->r_offset;
        f.a = rel->r_addend;
        f.field = out + rel->r_offset;
        i += apply_edge(&f, i);
    }
}

/* ---- sections that are not in memory ---- */

/* What debug information says of code that is not in the output. Two entries of 0 end a list in
 * .debug_loc and .debug_ranges (DWARF 4), so 1 stands there. */
static uint64_t tombstone(const struct elf_object *obj, const struct kld_atom *atom)
{
    struct kld_str name = elf_section_name(obj, atom->input_index);
    return kld_str_is(name, ".debug_loc") || kld_str_is(name, ".debug_ranges") ||
           kld_str_is(name, ".zdebug_loc") || kld_str_is(name, ".zdebug_ranges");
}

static void apply_debug_edge(const struct place *f, uint64_t x)
{
    switch (f->type) {
    case R_X86_64_64:
    case R_X86_64_DTPOFF64:
    case R_X86_64_SIZE64: kld_put64(f->field, x); break;
    case R_X86_64_32: put_u32(f, f->field, x); break;
    case R_X86_64_32S:
    case R_X86_64_DTPOFF32: put_s32(f, f->field, x); break;
    case R_X86_64_SIZE32: put_u32(f, f->field, x); break;
    case R_X86_64_PC64: kld_put64(f->field, x - f->p); break;
    case R_X86_64_PC32:
    case R_X86_64_PLT32: put_s32(f, f->field, x - f->p); break;
    case R_X86_64_16: put_small(f, x, 16, false); break;
    case R_X86_64_8: put_small(f, x, 8, false); break;
    case R_X86_64_NONE: break;
    default: {
        struct kld_where where = elf_where(f->atom, f->rel->r_offset);
        kld_error(f->ctx, "bad-relocation", &where, "relocation %s in a section that is not loaded",
                  elf_reloc_name(f->ctx, f->type));
        break;
    }
    }
}

void x64_apply_debug(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                     const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct place f = {.ctx = ctx, .obj = obj, .elf = elf_state(ctx), .atom = atom};
    const elf_rela *rels = atom->edges;
    const uint64_t dead = tombstone(obj, atom);
    for (uint32_t i = 0; i < atom->nedges; i++) {
        const elf_rela *rel = &rels[i];
        uint32_t type = ELF64_R_TYPE(rel->r_info), r_sym = ELF64_R_SYM(rel->r_info);
        if (kld_unlikely(!elf_is_sound(x64_info, X64_NINFO, obj, atom, rel))) {
            elf_report_unsound(ctx, obj, atom, rel);
            continue;
        }
        struct elf_target t = elf_resolve(ctx, obj, r_sym, rel->r_addend);
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
        f.rel = rel;
        f.type = type;
        f.r_sym = r_sym;
        f.p = t.discarded ? 0 : atom->addr + rel->r_offset;
        f.field = field;
        if (type == R_X86_64_SIZE32 || type == R_X86_64_SIZE64)
            x = size_of(&f) + (uint64_t)rel->r_addend;
        else if ((type == R_X86_64_DTPOFF32 || type == R_X86_64_DTPOFF64) && !t.discarded)
            x = (uint64_t)x64_dtp_offset(ctx, x);
        apply_debug_edge(&f, x);
    }
}
