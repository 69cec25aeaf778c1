/* rv64_apply_elf.c - writes relocated fields, once all addresses are known.
 *
 * The formulas are those of the psABI, "Relocations", in its letters (elf_apply.h). Where bytes were
 * cut out (rv64_relax_elf.c), the place is that in the output. */
#include "arch/riscv64/rv64_elf.h"

/* A relocation in an atom that may have been shortened. */
struct edge {
    struct elf_fixup f;
    const struct elf_shrunk *shrunk; /* or NULL */
    const struct elf_cut *cut;       /* made for this relocation, or NULL */
    uint32_t number;
    uint8_t *out; /* where the atom is */
};

/* Makes f the relocation `rel` of the atom, wherever that has come to be. */
static void go_to(struct elf_fixup *f, const struct elf_shrunk *shrunk, const elf_rela *rel,
                  uint8_t *out)
{
    elf_fixup_next(f, rel, out);
    if (!shrunk)
        return;
    uint64_t before = elf_shrunk_before(shrunk, rel->r_offset);
    f->p -= before;
    f->field -= before;
}

/* ---- values ---- */

static uint64_t slot(const struct elf_fixup *f, uint32_t number)
{
    return elf_got_address(f->ctx, number) + (uint64_t)f->a;
}

static uint64_t tp_value(const struct elf_fixup *f)
{
    if (elf_fixup_class(f) == ELF_TO_CONSTANT)
        return (uint64_t)f->a;
    return (uint64_t)rv64_tp_offset(f->ctx, elf_fixup_value(f)) + (uint64_t)f->a;
}

/* The address that an auipc goes to. */
static uint64_t high_target(const struct elf_fixup *f)
{
    switch (f->type) {
    case R_RISCV_GOT_HI20: return slot(f, elf_fixup_aux(f)->got);
    case R_RISCV_TLS_GOT_HI20: return slot(f, elf_fixup_aux(f)->gottp);
    case R_RISCV_TLS_GD_HI20: return slot(f, elf_fixup_aux(f)->tlsgd);
    case RV64_R_TLSDESC_HI20: return slot(f, elf_fixup_aux(f)->tlsdesc);
    default: return elf_fixup_value(f) + (uint64_t)f->a;
    }
}

/* ---- instructions ---- */

static void put_high(const struct elf_fixup *f, uint8_t *field, uint64_t value)
{
    elf_check_range(f, value + 0x800, 32, true);
    rv64_put_u(field, value);
}

/* A jump or branch by `bits` bits. */
static void put_jump(const struct elf_fixup *f, unsigned bits, void (*put)(uint8_t *, uint64_t))
{
    uint64_t distance = elf_fixup_branch(f) + (uint64_t)f->a - f->p;
    elf_check_range(f, distance, bits, true);
    if (distance & 1)
        elf_report_alignment(f, distance, 2);
    put(f->field, distance);
}

static bool is_store(uint32_t type)
{
    return type == R_RISCV_LO12_S || type == R_RISCV_PCREL_LO12_S || type == R_RISCV_TPREL_LO12_S;
}

static void put_low(const struct elf_fixup *f, uint64_t value)
{
    if (is_store(f->type))
        rv64_put_s(f->field, value);
    else
        rv64_put_i(f->field, value);
}

static void put_low_from(const struct elf_fixup *f, int reg, uint64_t offset)
{
    rv64_put_rs1(f->field, (unsigned)reg);
    put_low(f, offset);
}

/* auipc, jalr */
static void apply_call(const struct edge *e)
{
    const struct elf_fixup *f = &e->f;
    unsigned link = rv64_rd(f->atom->data + f->rel->r_offset + 4);
    if (e->cut && e->cut->how == RV64_CJ) {
        kld_put16(f->field, 0xa001);
        put_jump(f, 12, rv64_put_cj);
    } else if (e->cut) {
        kld_put32(f->field, 0x6f | link << 7);
        put_jump(f, 21, rv64_put_j);
    } else {
        uint64_t distance = elf_fixup_branch(f) + (uint64_t)f->a - f->p;
        put_high(f, f->field, distance);
        rv64_put_i(f->field + 4, distance);
    }
}

static void apply_hi20(const struct edge *e)
{
    const struct elf_fixup *f = &e->f;
    uint64_t x = elf_fixup_value(f) + (uint64_t)f->a;
    if (!e->cut)
        put_high(f, f->field, x);
    else if (e->cut->how == RV64_C_LUI)
        rv64_put_c_lui(f->field, rv64_rd(f->atom->data + f->rel->r_offset), x);
}

static void apply_lo12(const struct edge *e)
{
    const struct elf_fixup *f = &e->f;
    uint64_t x = elf_fixup_value(f) + (uint64_t)f->a, offset;
    int reg =
        rv64_may_relax(f->ctx, f->atom, e->number) ? rv64_base_register(f->ctx, x, &offset) : -1;
    if (reg >= 0)
        put_low_from(f, reg, offset);
    else
        put_low(f, x);
}

/* The low half of what the auipc at the label begins. */
static void apply_pcrel_lo12(const struct edge *e)
{
    uint32_t edge;
    struct elf_fixup high = e->f;
    const elf_rela *rel = rv64_high_part(e->f.obj, e->f.atom, e->f.rel, &edge);
    go_to(&high, e->shrunk, rel, e->out);
    uint64_t x = high_target(&high), offset;
    if (e->shrunk && elf_shrunk_cut(e->shrunk, edge)) {
        int reg = rv64_base_register(e->f.ctx, x, &offset);
        put_low_from(&e->f, reg, offset);
    } else {
        put_low(&e->f, x - high.p);
    }
}

static void apply_tprel(const struct edge *e)
{
    const struct elf_fixup *f = &e->f;
    uint64_t x = tp_value(f);
    switch (f->type) {
    case R_RISCV_TPREL_HI20:
        if (!e->cut)
            put_high(f, f->field, x);
        break;
    case R_RISCV_TPREL_ADD: break;
    default:
        if (rv64_may_relax(f->ctx, f->atom, e->number) && rv64_fits(x, 12))
            put_low_from(f, RV64_TP, x);
        else
            put_low(f, x);
        break;
    }
}

/* ---- TLS descriptors ---- */

/* The place of the third instruction of the sequence that begins with relocation number `edge`:
 * where the auipc of an initial-exec access is put. */
static uint64_t third_place(const struct edge *e, uint32_t edge)
{
    const elf_rela *rels = e->f.atom->edges;
    for (uint32_t i = edge; i < e->f.atom->nedges; i++)
        if (ELF64_R_TYPE(rels[i].r_info) == RV64_R_TLSDESC_ADD_LO12 &&
            ELF64_R_SYM(rels[i].r_info) == e->f.r_sym && rels[i].r_addend == e->f.a)
            return elf_atom_address(e->f.atom, rels[i].r_offset);
    return e->f.p - 4;
}

/*  auipc rX, hi; ld rY, lo(rX); addi a0, rX, lo; jalr t0, rY      of a descriptor become
 *  nop; nop; auipc a0, hi; ld a0, lo(a0)                          of a GOT slot with the offset, or
 *  nop; nop; lui a0, hi; addi a0, a0, lo                          with the offset itself */
static void apply_tlsdesc(const struct edge *e)
{
    const struct elf_fixup *f = &e->f;
    struct elf_fixup high = *f;
    uint32_t edge = e->number;
    if (f->type != RV64_R_TLSDESC_HI20)
        go_to(&high, e->shrunk, rv64_high_part(f->obj, f->atom, f->rel, &edge), e->out);
    enum elf_tls to = elf_tls(f->elf, elf_fixup_class(&high));
    bool third = f->type == RV64_R_TLSDESC_ADD_LO12, last = f->type == RV64_R_TLSDESC_CALL;
    if (to == ELF_TLS_KEEP) {
        uint64_t distance = high_target(&high) - high.p;
        if (f->type == RV64_R_TLSDESC_HI20)
            put_high(f, f->field, distance);
        else if (!last)
            rv64_put_i(f->field, distance);
        return;
    }
    if (e->cut)
        return;
    if (!third && !last) {
        kld_put32(f->field, RV64_NOP);
    } else if (to == ELF_TLS_IE) {
        uint64_t distance =
            slot(&high, elf_fixup_aux(&high)->gottp) - (third ? f->p : third_place(e, edge));
        kld_put32(f->field, third ? 0x00000517 : 0x00053503);
        if (third)
            put_high(f, f->field, distance);
        else
            rv64_put_i(f->field, distance);
    } else {
        uint64_t x = tp_value(&high);
        bool is_short = rv64_fits(x, 12);
        kld_put32(f->field, third ? (is_short ? RV64_NOP : 0x00000537)
                                  : (is_short ? 0x00000513 : 0x00050513));
        if (!third)
            rv64_put_i(f->field, x);
        else if (!is_short)
            put_high(f, f->field, x);
    }
}

/* ---- padding ---- */

/* What is left of it: c.nop first, if it takes one. */
static void apply_align(const struct edge *e)
{
    if (!e->cut)
        return;
    const struct elf_shrunk *s = e->shrunk;
    uint64_t end = (uint64_t)e->f.rel->r_offset + (uint64_t)e->f.a;
    uint8_t *p = e->f.field, *limit = e->out + (end - elf_shrunk_before(s, end));
    if ((limit - p) % 4 >= 2) {
        kld_put16(p, RV64_C_NOP);
        p += 2;
    }
    for (; limit - p >= 4; p += 4)
        kld_put32(p, RV64_NOP);
}

/* ---- differences ---- */

/* Replaces the value at p, of the length that it has. */
static bool put_uleb128(uint8_t *p, const uint8_t *limit, uint64_t value)
{
    bool more = true;
    for (; more && p < limit; p++) {
        more = *p & 0x80;
        *p = (uint8_t)((value & 0x7f) | (more ? 0x80 : 0));
        value >>= 7;
    }
    return !more && !value;
}

/* Both relocations of a pair: the value is that of the first less that of the second. */
static void apply_uleb128(const struct elf_fixup *f, const uint8_t *limit, uint64_t first,
                          uint64_t second)
{
    if (put_uleb128(f->field, limit, first - second))
        return;
    struct kld_where where = elf_where(f->atom, f->rel->r_offset);
    kld_error(f->ctx, "relocation-overflow", &where,
              "relocation R_RISCV_SET_ULEB128: 0x%llx does not fit into the bytes that are there",
              (unsigned long long)(first - second));
}

/* Fields that are no instruction. x: S + A. False: not one of these. */
static bool apply_data(const struct elf_fixup *f, uint64_t x)
{
    uint8_t *p = f->field;
    switch (f->type) {
    case R_RISCV_32:
        elf_check_range(f, x, 32, false);
        kld_put32(p, (uint32_t)x);
        return true;
    case R_RISCV_32_PCREL: elf_put_s32(f, p, x - f->p); return true;
    case R_RISCV_ADD8: *p = (uint8_t)(*p + x); return true;
    case R_RISCV_ADD16: kld_put16(p, (uint16_t)(kld_get16(p) + x)); return true;
    case R_RISCV_ADD32: kld_put32(p, (uint32_t)(kld_get32(p) + x)); return true;
    case R_RISCV_ADD64: kld_put64(p, kld_get64(p) + x); return true;
    case R_RISCV_SUB6: *p = (uint8_t)((*p & 0xc0) | ((*p - x) & 0x3f)); return true;
    case R_RISCV_SUB8: *p = (uint8_t)(*p - x); return true;
    case R_RISCV_SUB16: kld_put16(p, (uint16_t)(kld_get16(p) - x)); return true;
    case R_RISCV_SUB32: kld_put32(p, (uint32_t)(kld_get32(p) - x)); return true;
    case R_RISCV_SUB64: kld_put64(p, kld_get64(p) - x); return true;
    case R_RISCV_SET6: *p = (uint8_t)((*p & 0xc0) | (x & 0x3f)); return true;
    case R_RISCV_SET8: *p = (uint8_t)x; return true;
    case R_RISCV_SET16: kld_put16(p, (uint16_t)x); return true;
    case R_RISCV_SET32: kld_put32(p, (uint32_t)x); return true;
    case RV64_R_SUB_ULEB128: return true; /* with the one before it */
    default: return false;
    }
}

/* ---- the loop ---- */

static void apply_edge(const struct edge *e)
{
    const struct elf_fixup *f = &e->f;
    switch (f->type) {
    case R_RISCV_NONE:
    case R_RISCV_RELAX: break;
    case R_RISCV_ALIGN: apply_align(e); break;
    case R_RISCV_64: elf_put_word(f); break;
    case R_RISCV_CALL:
    case R_RISCV_CALL_PLT: apply_call(e); break;
    case R_RISCV_JAL: put_jump(f, 21, rv64_put_j); break;
    case R_RISCV_BRANCH: put_jump(f, 13, rv64_put_b); break;
    case R_RISCV_RVC_BRANCH: put_jump(f, 9, rv64_put_cb); break;
    case R_RISCV_RVC_JUMP: put_jump(f, 12, rv64_put_cj); break;
    case R_RISCV_HI20: apply_hi20(e); break;
    case R_RISCV_LO12_I:
    case R_RISCV_LO12_S: apply_lo12(e); break;
    case R_RISCV_PCREL_HI20:
    case R_RISCV_GOT_HI20:
    case R_RISCV_TLS_GOT_HI20:
    case R_RISCV_TLS_GD_HI20:
        if (!e->cut)
            put_high(f, f->field, high_target(f) - f->p);
        break;
    case R_RISCV_PCREL_LO12_I:
    case R_RISCV_PCREL_LO12_S: apply_pcrel_lo12(e); break;
    case R_RISCV_TPREL_HI20:
    case R_RISCV_TPREL_LO12_I:
    case R_RISCV_TPREL_LO12_S:
    case R_RISCV_TPREL_ADD: apply_tprel(e); break;
    case RV64_R_TLSDESC_HI20:
    case RV64_R_TLSDESC_LOAD_LO12:
    case RV64_R_TLSDESC_ADD_LO12:
    case RV64_R_TLSDESC_CALL: apply_tlsdesc(e); break;
    case RV64_R_PLT32: elf_put_s32(f, f->field, elf_fixup_branch(f) + (uint64_t)f->a - f->p); break;
    case RV64_R_GOT32_PCREL: elf_put_s32(f, f->field, slot(f, elf_fixup_aux(f)->got) - f->p); break;
    case R_RISCV_TLS_DTPREL32:
    case R_RISCV_TLS_DTPREL64: {
        uint64_t x = elf_dtp_offset(f->elf, elf_fixup_value(f) + (uint64_t)f->a);
        if (f->type == R_RISCV_TLS_DTPREL32)
            kld_put32(f->field, (uint32_t)x);
        else
            kld_put64(f->field, x);
        break;
    }
    case RV64_R_SET_ULEB128: {
        struct elf_fixup second = *f;
        elf_fixup_next(&second, f->rel + 1, e->out);
        apply_uleb128(f, e->out + f->atom->size, elf_fixup_value(f) + (uint64_t)f->a,
                      elf_fixup_value(&second) + (uint64_t)second.a);
        break;
    }
    default: apply_data(f, elf_fixup_value(f) + (uint64_t)f->a); break;
    }
}

/* The relocations of an atom and its cuts are in the same order. */
static void apply_shrunk(struct edge *e, const struct kld_atom *atom)
{
    const elf_rela *rels = atom->edges;
    const struct elf_shrunk *s = e->shrunk;
    uint32_t k = 0, before = 0;
    elf_shrunk_copy(atom, e->out);
    for (e->number = 0; e->number < atom->nedges; e->number++) {
        const elf_rela *rel = &rels[e->number];
        for (; k < s->ncuts && s->cuts[k].edge < e->number && s->cuts[k].offset < rel->r_offset;
             k++)
            before = s->cuts[k].removed;
        bool is_cut = k < s->ncuts && s->cuts[k].edge == e->number && s->cuts[k].how;
        e->cut = is_cut ? &s->cuts[k] : NULL;
        elf_fixup_next(&e->f, rel, e->out);
        e->f.p -= before;
        e->f.field -= before;
        apply_edge(e);
    }
}

void rv64_apply(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct edge e = {.f = {.ctx = ctx, .obj = obj, .elf = elf_state(ctx), .atom = atom},
                     .shrunk = elf_shrunk(atom),
                     .out = out};
    if (e.shrunk) {
        apply_shrunk(&e, atom);
        return;
    }
    const elf_rela *rels = atom->edges;
    for (e.number = 0; e.number < atom->nedges; e.number++) {
        elf_fixup_next(&e.f, &rels[e.number], out);
        apply_edge(&e);
    }
}

/* ---- sections that are not in memory ---- */

/* S + A, of which nothing is left where S is not in the output. */
static uint64_t debug_value(const struct elf_fixup *f, uint64_t dead, bool *discarded)
{
    struct elf_target t = elf_resolve(f->ctx, f->obj, f->r_sym, f->a);
    *discarded = t.discarded;
    return kld_unlikely(t.discarded) ? dead : t.value + (uint64_t)f->a;
}

static void apply_debug_uleb128(struct elf_fixup *f, uint64_t x, uint64_t dead, uint8_t *out)
{
    struct elf_fixup second = *f;
    bool discarded;
    if ((const elf_rela *)f->atom->edges + f->atom->nedges - 1 == f->rel ||
        ELF64_R_TYPE(f->rel[1].r_info) != RV64_R_SUB_ULEB128 ||
        f->rel[1].r_offset != f->rel->r_offset || ELF64_R_SYM(f->rel[1].r_info) >= f->obj->nsyms) {
        struct kld_where where = elf_where(f->atom, f->rel->r_offset);
        kld_error(f->ctx, "bad-relocation", &where,
                  "relocation R_RISCV_SET_ULEB128 is not paired: R_RISCV_SUB_ULEB128 has to follow "
                  "at the same place");
        return;
    }
    elf_fixup_next(&second, f->rel + 1, out);
    apply_uleb128(f, out + f->atom->size, x, debug_value(&second, dead, &discarded));
}

void rv64_apply_debug(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                      const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    struct elf_fixup f = {.ctx = ctx, .obj = obj, .elf = elf_state(ctx), .atom = atom};
    const elf_rela *rels = atom->edges;
    const uint64_t dead = elf_tombstone(obj, atom);
    for (uint32_t i = 0; i < atom->nedges; i++) {
        const elf_rela *rel = &rels[i];
        if (kld_unlikely(!elf_is_sound(rv64_info, RV64_NINFO, obj, atom, rel))) {
            elf_report_unsound(ctx, obj, atom, rel);
            continue;
        }
        bool discarded;
        elf_fixup_next(&f, rel, out);
        uint64_t x = debug_value(&f, dead, &discarded);
        if (discarded)
            f.p = 0;
        switch (f.type) {
        case R_RISCV_NONE:
        case R_RISCV_RELAX: break;
        case R_RISCV_64: kld_put64(f.field, x); break;
        case R_RISCV_TLS_DTPREL32:
            kld_put32(f.field, (uint32_t)(discarded ? 0 : elf_dtp_offset(f.elf, x)));
            break;
        case R_RISCV_TLS_DTPREL64:
            kld_put64(f.field, discarded ? 0 : elf_dtp_offset(f.elf, x));
            break;
        case RV64_R_SET_ULEB128: apply_debug_uleb128(&f, x, dead, out); break;
        default:
            if (!apply_data(&f, x))
                elf_report_not_loaded(&f);
            break;
        }
    }
}
