/* rv64_relax_elf.c - which sequences get shorter.
 *
 * psABI "Linker Relaxation": a relocation with R_RISCV_RELAX behind it may be relaxed, and
 * R_RISCV_ALIGN is padding of which as much has to go as the alignment does not need. What is left
 * of a sequence is written by rv64_apply_elf.c, with final addresses: low halves need no cut, and are
 * rewritten wherever the register they use may be another one. So an instruction that sets the
 * high half may go if all that its low halves can mean is within reach. */
#include "arch/riscv64/rv64_elf.h"

/* A relocation that may be relaxed, and what it refers to. */
struct candidate {
    struct kld_session *ctx;
    const struct elf_link *elf;
    const struct elf_object *obj;
    const struct kld_atom *atom;
    const elf_rela *rel;
    enum elf_class class;
    bool is_known;          /* the target has its address: what the linker defines gets it last */
    uint64_t place, target; /* S + A */
    uint64_t slack;         /* bytes that are to be left up to the limit of a jump */
};

/* ---- what it refers to ---- */

static bool is_call(uint32_t type)
{
    return type == R_RISCV_CALL || type == R_RISCV_CALL_PLT;
}

/* S + A, as rv64_apply_elf.c will have it: addresses are not in their table yet. */
static uint64_t target_address(const struct candidate *c)
{
    uint32_t r_sym = ELF64_R_SYM(c->rel->r_info);
    uint64_t a = (uint64_t)c->rel->r_addend;
    if (r_sym < c->obj->first_global) {
        const struct kld_symbol *local = elf_local_symbol(c->obj, r_sym);
        if (local && elf_has_plt(c->ctx, local)) /* an ifunc */
            return elf_plt_address(c->ctx, local) + a;
        return elf_resolve(c->ctx, c->obj, r_sym, c->rel->r_addend).value + a;
    }
    const struct kld_symbol *sym = elf_global(c->ctx, c->obj, r_sym);
    if (is_call(ELF64_R_TYPE(c->rel->r_info)) && elf_is_dynamic_symbol(sym) &&
        elf_has_plt(c->ctx, sym))
        return elf_plt_address(c->ctx, sym) + a;
    return elf_symbol_address(c->ctx, sym) + a;
}

static bool is_known(const struct candidate *c)
{
    uint32_t r_sym = ELF64_R_SYM(c->rel->r_info);
    if (r_sym < c->obj->first_global)
        return true;
    const struct kld_symbol *sym = elf_global(c->ctx, c->obj, r_sym);
    return sym->kind == KLD_SYM_DEFINED
               ? !sym->in_section
               : sym->kind != KLD_SYM_ABSOLUTE || sym->file != c->ctx->internal;
}

static struct candidate candidate_of(struct kld_session *ctx, const struct elf_object *obj,
                                     const struct kld_atom *atom, uint32_t edge, uint64_t slack)
{
    struct candidate c = {.ctx = ctx, .elf = elf_state(ctx), .obj = obj, .atom = atom};
    c.rel = (const elf_rela *)atom->edges + edge;
    c.class = elf_classify(ctx, obj, ELF64_R_SYM(c.rel->r_info));
    c.place = elf_atom_address(atom, c.rel->r_offset);
    c.target = target_address(&c);
    c.slack = slack;
    c.is_known = is_known(&c);
    return c;
}

/* How far past the target low halves may go that share this high half: to the last byte of the
 * symbol or, where that has no size, of what it is in. */
static uint64_t bytes_behind(const struct candidate *c)
{
    uint32_t r_sym = ELF64_R_SYM(c->rel->r_info);
    uint64_t size = r_sym >= c->obj->first_global ? elf_global(c->ctx, c->obj, r_sym)->size
                                                  : c->obj->syms[r_sym].st_size;
    struct elf_target t = elf_resolve(c->ctx, c->obj, r_sym, c->rel->r_addend);
    uint64_t a = (uint64_t)c->rel->r_addend;
    if (size)
        return size > a ? size - a - 1 : 0;
    uint64_t end = t.atom && t.atom->kind != KLD_ATOM_PIECES ? t.atom->addr + t.atom->size : 0;
    return end > c->target ? end - c->target - 1 : 0;
}

/* ---- whether a relaxation is possible ---- */

static bool jump_reaches(const struct candidate *c, unsigned bits)
{
    uint64_t distance = c->target - c->place, slack = c->slack;
    if (c->class == ELF_TO_CONSTANT && c->elf->is_pic)
        return false;
    return !(distance & 1) && rv64_fits(distance + slack, bits) &&
           rv64_fits(distance - slack, bits);
}

static bool is_compressed(const struct candidate *c)
{
    return c->obj->ehdr->e_flags & RV64_EF_RVC;
}

/* c.j has no link register. */
static bool may_be_c_j(const struct candidate *c)
{
    return is_compressed(c) && rv64_rd(c->atom->data + c->rel->r_offset + 4) == RV64_ZERO &&
           jump_reaches(c, 12);
}

static bool may_be_c_lui(const struct candidate *c)
{
    unsigned rd = rv64_rd(c->atom->data + c->rel->r_offset);
    uint64_t high = (c->target + 0x800) >> 12;
    return is_compressed(c) && rd != RV64_ZERO && rd != RV64_SP && high &&
           rv64_fits(c->target + 0x800, 18);
}

/* Whether lui or auipc can go because all that it is for is near 0 or gp. */
static bool may_use_register(const struct candidate *c)
{
    uint64_t offset, last = c->target + bytes_behind(c);
    if (c->elf->is_pic)
        return false;
    int reg = rv64_base_register(c->ctx, c->target, &offset);
    return reg >= 0 && rv64_fits(offset + (last - c->target), 12);
}

static bool may_use_tp(const struct candidate *c)
{
    uint64_t offset = (uint64_t)rv64_tp_offset(c->ctx, c->target);
    return !c->elf->is_shared && c->class != ELF_TO_CONSTANT && rv64_fits(offset, 12) &&
           rv64_fits(offset + bytes_behind(c), 12);
}

/* The high parts of a descriptor access go in programs; so does the low one's lui if it is 0. */
static bool is_descriptor_part_gone(const struct candidate *c)
{
    uint32_t edge, type = ELF64_R_TYPE(c->rel->r_info);
    if (type == RV64_R_TLSDESC_HI20)
        return elf_tls(c->elf, c->class) != ELF_TLS_KEEP;
    if (!rv64_high_part(c->obj, c->atom, c->rel, &edge))
        return false; /* scan has said so */
    struct candidate h = candidate_of(c->ctx, c->obj, c->atom, edge, 0);
    enum elf_tls to = elf_tls(c->elf, h.class);
    if (to == ELF_TLS_KEEP)
        return false;
    return type == RV64_R_TLSDESC_LOAD_LO12 || (to == ELF_TLS_LE && may_use_tp(&h));
}

static bool is_possible(const struct candidate *c, enum rv64_cut how)
{
    if (!c->is_known)
        return false;
    switch (how) {
    case RV64_CJ: return may_be_c_j(c);
    case RV64_JAL: return jump_reaches(c, 21);
    case RV64_C_LUI: return may_be_c_lui(c);
    case RV64_DELETE: break;
    default: return true;
    }
    switch (ELF64_R_TYPE(c->rel->r_info)) {
    case R_RISCV_HI20:
    case R_RISCV_PCREL_HI20: return may_use_register(c);
    case R_RISCV_TPREL_HI20:
    case R_RISCV_TPREL_ADD: return may_use_tp(c);
    default: return is_descriptor_part_gone(c);
    }
}

/* The best that is possible. */
static enum rv64_cut choose(const struct candidate *c)
{
    static const struct {
        uint32_t type;
        enum rv64_cut how;
    } choices[] = {
        {R_RISCV_CALL, RV64_CJ},
        {R_RISCV_CALL, RV64_JAL},
        {R_RISCV_CALL_PLT, RV64_CJ},
        {R_RISCV_CALL_PLT, RV64_JAL},
        {R_RISCV_HI20, RV64_DELETE},
        {R_RISCV_HI20, RV64_C_LUI},
        {R_RISCV_PCREL_HI20, RV64_DELETE},
        {R_RISCV_TPREL_HI20, RV64_DELETE},
        {R_RISCV_TPREL_ADD, RV64_DELETE},
        {RV64_R_TLSDESC_HI20, RV64_DELETE},
        {RV64_R_TLSDESC_LOAD_LO12, RV64_DELETE},
        {RV64_R_TLSDESC_ADD_LO12, RV64_DELETE},
    };
    for (size_t i = 0; i < KLD_COUNT(choices); i++)
        if (choices[i].type == ELF64_R_TYPE(c->rel->r_info) && is_possible(c, choices[i].how))
            return choices[i].how;
    return RV64_TAKEN_BACK;
}

/* ---- alignment ---- */

/* psABI: the alignment is the smallest power of two that is greater than the padding. */
static uint64_t alignment_of(const elf_rela *rel)
{
    return 1ull << (64 - __builtin_clzll((uint64_t)rel->r_addend));
}

static bool check_padding(struct kld_session *ctx, const struct kld_atom *atom, const elf_rela *rel)
{
    if (rel->r_addend >= 0 && kld_in_bounds(rel->r_offset, (uint64_t)rel->r_addend, atom->size) &&
        rel->r_addend <= 1 << 30)
        return true;
    struct kld_where where = elf_where(atom, rel->r_offset);
    kld_error(
        ctx, "bad-relocation", &where,
        "relocation R_RISCV_ALIGN: padding of 0x%llx bytes reaches past the end of the section",
        (unsigned long long)rel->r_addend);
    return false;
}

static uint32_t padding_to_go(struct kld_session *ctx, const struct kld_atom *atom,
                              const elf_rela *rel, uint64_t at)
{
    uint64_t align = alignment_of(rel), need = -at & (align - 1);
    if (need <= (uint64_t)rel->r_addend)
        return (uint32_t)((uint64_t)rel->r_addend - need);
    struct kld_where where = elf_where(atom, rel->r_offset);
    kld_error(ctx, "bad-relocation", &where,
              "relocation R_RISCV_ALIGN: an alignment to %llu bytes takes %llu bytes of padding, "
              "but there are only %lld",
              (unsigned long long)align, (unsigned long long)need, (long long)rel->r_addend);
    return 0;
}

/* ---- the operations of layout ---- */

uint32_t rv64_cut_size(struct kld_session *ctx, const struct elf_object *obj,
                       const struct kld_atom *atom, const struct elf_cut *cut, uint64_t at)
{
    (void)obj;
    switch ((enum rv64_cut)cut->how) {
    case RV64_TAKEN_BACK: return 0;
    case RV64_ALIGN: return padding_to_go(ctx, atom, (const elf_rela *)atom->edges + cut->edge, at);
    case RV64_CJ: return 6;
    case RV64_JAL: return 4;
    case RV64_C_LUI: return 2;
    case RV64_DELETE: return 4;
    }
    return 0;
}

/* Where the bytes that go begin: what is left of a sequence stands at its start. */
static uint32_t cut_offset(const elf_rela *rel, enum rv64_cut how)
{
    uint32_t left = how == RV64_JAL ? 4 : how == RV64_CJ || how == RV64_C_LUI ? 2 : 0;
    return (uint32_t)rel->r_offset + left;
}

static bool is_relaxable(uint32_t type)
{
    return is_call(type) || type == R_RISCV_PCREL_HI20 || type == R_RISCV_HI20 ||
           type == R_RISCV_TPREL_HI20 || type == R_RISCV_TPREL_ADD || type == RV64_R_TLSDESC_HI20 ||
           type == RV64_R_TLSDESC_LOAD_LO12 || type == RV64_R_TLSDESC_ADD_LO12;
}

static enum rv64_cut plan_edge(struct kld_session *ctx, struct elf_object *obj,
                               struct kld_atom *atom, uint32_t i)
{
    const elf_rela *rel = (const elf_rela *)atom->edges + i;
    uint32_t type = ELF64_R_TYPE(rel->r_info);
    if (type == R_RISCV_ALIGN) {
        if (!check_padding(ctx, atom, rel) || !rel->r_addend)
            return RV64_TAKEN_BACK;
        atom->p2align = KLD_MAX(atom->p2align, (uint8_t)kld_log2(alignment_of(rel)));
        return RV64_ALIGN;
    }
    if (!is_relaxable(type) || !rv64_may_relax(ctx, atom, i))
        return RV64_TAKEN_BACK;
    struct candidate c = candidate_of(ctx, obj, atom, i, 0);
    return choose(&c);
}

/* Finds cuts, none of which takes away what another relocation writes. */
struct planning {
    struct kld_session *ctx;
    struct kld_atom *atom;
    struct elf_cut *cuts;
    uint32_t n;
    uint64_t written; /* end of the bytes that relocations seen so far write, */
    uint64_t cut;     /* and of those that may go with the last cut */
};

static void report_overlap(const struct planning *p, const elf_rela *rel)
{
    struct kld_where where = elf_where(p->atom, rel->r_offset);
    kld_error(p->ctx, "bad-relocation", &where,
              "relocation R_RISCV_ALIGN: another relocation is for a part of the padding");
}

/* The relocation writes to bytes that the last cut may take away: leaves them there. */
static void take_back_last(struct planning *p)
{
    struct elf_cut *last = &p->cuts[p->n - 1];
    if (last->how == RV64_ALIGN)
        report_overlap(p, (const elf_rela *)p->atom->edges + last->edge);
    last->how = RV64_TAKEN_BACK;
    p->cut = 0;
}

static void add_cut(struct planning *p, uint32_t edge, enum rv64_cut how)
{
    const elf_rela *rel = (const elf_rela *)p->atom->edges + edge;
    uint32_t width = rv64_info[ELF64_R_TYPE(rel->r_info)].width;
    if (rel->r_offset < p->cut && (width || how != RV64_TAKEN_BACK))
        take_back_last(p);
    if (how != RV64_TAKEN_BACK && rel->r_offset < p->written) {
        if (how == RV64_ALIGN)
            report_overlap(p, rel);
    } else if (how != RV64_TAKEN_BACK) {
        p->cuts[p->n++] =
            (struct elf_cut){.offset = cut_offset(rel, how), .edge = edge, .how = (uint32_t)how};
        p->cut = rel->r_offset + (how == RV64_ALIGN ? (uint64_t)rel->r_addend : width);
    }
    p->written = KLD_MAX(p->written, rel->r_offset + width);
}

struct elf_shrunk *rv64_plan_cuts(struct kld_session *ctx, struct kld_worker *worker,
                                  struct elf_object *obj, struct kld_atom *atom)
{
    if (atom->size > UINT32_MAX)
        return NULL;
    struct planning p = {.ctx = ctx, .atom = atom};
    p.cuts = (void *)kld_worker_buffer(worker, atom->nedges * sizeof(*p.cuts));
    for (uint32_t i = 0; i < atom->nedges; i++)
        add_cut(&p, i, plan_edge(ctx, obj, atom, i));
    uint32_t n = p.n;
    if (!n)
        return NULL;
    struct elf_shrunk *s = KLD_NEW(&worker->arena, struct elf_shrunk);
    *s = (struct elf_shrunk){.atom = atom, .size = atom->size, .ncuts = n};
    s->cuts = KLD_NEW_ARRAY(&worker->arena, struct elf_cut, n);
    memcpy(s->cuts, p.cuts, n * sizeof(*p.cuts));
    return s;
}

bool rv64_check_cuts(struct kld_session *ctx, struct elf_object *obj, struct elf_shrunk *s,
                     uint64_t slack)
{
    bool changed = false;
    for (uint32_t i = 0; i < s->ncuts; i++) {
        struct elf_cut *cut = &s->cuts[i];
        if (cut->how == RV64_TAKEN_BACK || cut->how == RV64_ALIGN)
            continue;
        struct candidate c = candidate_of(ctx, obj, s->atom, cut->edge, slack);
        if (is_possible(&c, (enum rv64_cut)cut->how))
            continue;
        cut->how = RV64_TAKEN_BACK;
        changed = true;
    }
    return changed;
}
