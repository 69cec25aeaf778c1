/* rv64_scan_elf.c - what each relocation of live, allocated atoms needs. */
#include "arch/riscv64/rv64_elf.h"

/* TLSDESC sequences: kept in shared objects, rewritten in programs. */
static void scan_tlsdesc(const struct elf_edge *e)
{
    switch (elf_tls(e->elf, e->class)) {
    case ELF_TLS_KEEP: elf_need(e, KLD_SYM_NEED_TLSDESC); break;
    case ELF_TLS_IE: elf_need(e, KLD_SYM_NEED_GOTTP); break;
    case ELF_TLS_LE: break;
    }
}

/* Branches, and what differences are made of: a constant will do. */
static void scan_unless_constant(const struct elf_edge *e, void (*scan)(const struct elf_edge *))
{
    if (e->class != ELF_TO_CONSTANT)
        scan(e);
}

static void scan_low_part(const struct elf_edge *e)
{
    uint32_t edge;
    if (!rv64_high_part(e->obj, e->atom, e->rel, &edge))
        elf_reject(e, "is not paired: no high part (R_RISCV_..._HI20) is at that label");
}

/* A second relocation of the same number has to follow. */
static void scan_uleb128(const struct elf_edge *e)
{
    bool paired = e->index + 1 < e->atom->nedges && e->rel[1].r_offset == e->rel->r_offset &&
                  ELF64_R_TYPE(e->rel[1].r_info) == RV64_R_SUB_ULEB128;
    if (paired)
        scan_unless_constant(e, elf_scan_distance);
    else
        elf_reject(e, "is not paired: R_RISCV_SUB_ULEB128 has to follow at the same place");
}

static void scan_edge(const struct elf_edge *e)
{
    switch (e->type) {
    case R_RISCV_64: elf_scan_word(e); break;
    case R_RISCV_32:
    case R_RISCV_HI20:
    case R_RISCV_LO12_I:
    case R_RISCV_LO12_S: elf_scan_narrow(e); break;
    case R_RISCV_PCREL_HI20:
    case R_RISCV_32_PCREL: elf_scan_distance(e); break;
    case R_RISCV_PCREL_LO12_I:
    case R_RISCV_PCREL_LO12_S:
    case RV64_R_TLSDESC_LOAD_LO12:
    case RV64_R_TLSDESC_ADD_LO12:
    case RV64_R_TLSDESC_CALL: scan_low_part(e); break;
    case R_RISCV_BRANCH:
    case R_RISCV_JAL:
    case R_RISCV_CALL:
    case R_RISCV_CALL_PLT:
    case R_RISCV_RVC_BRANCH:
    case R_RISCV_RVC_JUMP:
    case RV64_R_PLT32: scan_unless_constant(e, elf_scan_branch); break;
    case R_RISCV_GOT_HI20:
    case RV64_R_GOT32_PCREL: elf_need(e, KLD_SYM_NEED_GOT); break;
    case R_RISCV_TLS_GOT_HI20:
        elf_need(e, KLD_SYM_NEED_GOTTP);
        if (e->elf->is_shared)
            elf_note(&e->elf->static_tls);
        break;
    case R_RISCV_TLS_GD_HI20: elf_need(e, KLD_SYM_NEED_TLSGD); break;
    case RV64_R_TLSDESC_HI20: scan_tlsdesc(e); break;
    case R_RISCV_TPREL_HI20:
    case R_RISCV_TPREL_LO12_I:
    case R_RISCV_TPREL_LO12_S:
    case R_RISCV_TPREL_ADD: elf_scan_local_exec(e); break;
    case R_RISCV_ADD8:
    case R_RISCV_ADD16:
    case R_RISCV_ADD32:
    case R_RISCV_ADD64:
    case R_RISCV_SUB6:
    case R_RISCV_SUB8:
    case R_RISCV_SUB16:
    case R_RISCV_SUB32:
    case R_RISCV_SUB64:
    case R_RISCV_SET6:
    case R_RISCV_SET8:
    case R_RISCV_SET16:
    case R_RISCV_SET32:
    case RV64_R_SUB_ULEB128: scan_unless_constant(e, elf_scan_distance); break;
    case RV64_R_SET_ULEB128: scan_uleb128(e); break;
    case R_RISCV_TLS_DTPREL32:
    case R_RISCV_TLS_DTPREL64:
    case R_RISCV_ALIGN:
    case R_RISCV_RELAX: break;
    default:
        elf_reject(e, "is for the dynamic linker, and can not be in a relocatable file");
        break;
    }
}

void rv64_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
               struct kld_atom *atom)
{
    if (atom->kind == KLD_ATOM_BYTES) /* pairs are found by place, cuts follow the relocations */
        atom->edges = elf_sorted_relas(worker, atom->edges, atom->nedges);
    struct elf_edge e = {
        .ctx = ctx, .worker = worker, .obj = obj, .atom = atom, .elf = elf_state(ctx)};
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges; i++) {
        const elf_rela *rel = &rels[i];
        if (kld_unlikely(!elf_is_sound(rv64_info, RV64_NINFO, obj, atom, rel))) {
            elf_report_unsound(ctx, obj, atom, rel);
            continue;
        }
        e.rel = rel;
        e.index = i;
        e.type = ELF64_R_TYPE(rel->r_info);
        e.r_sym = ELF64_R_SYM(rel->r_info);
        if (e.type == R_RISCV_NONE || e.type == R_RISCV_RELAX || e.type == R_RISCV_ALIGN)
            continue;
        e.class = elf_scan_class(ctx, obj, e.r_sym);
        if (elf_has_target(&e))
            scan_edge(&e);
    }
}
