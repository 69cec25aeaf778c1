/* a64_scan_elf.c - what each relocation of live, allocated atoms needs. */
#include "arch/aarch64/a64_elf.h"

/* TLSDESC sequences: kept in shared objects, rewritten in programs (AAELF64 5.7.11). */
static void scan_tlsdesc(const struct elf_edge *e)
{
    switch (elf_tls(e->elf, e->class)) {
    case ELF_TLS_KEEP: elf_need(e, KLD_SYM_NEED_TLSDESC); break;
    case ELF_TLS_IE: elf_need(e, KLD_SYM_NEED_GOTTP); break;
    case ELF_TLS_LE: break;
    }
}

static void scan_local_exec(const struct elf_edge *e)
{
    if (e->elf->is_shared)
        elf_reject_in_pic(e);
    else if (e->class == ELF_TO_DYNAMIC)
        elf_reject(e, "needs the variable in this program, but a shared library defines it; "
                      "recompile with -fPIC");
}

/* The low half of an address whose high half is page-relative: any constant will do. */
static void scan_low(const struct elf_edge *e)
{
    if (e->class != ELF_TO_CONSTANT)
        elf_scan_distance(e);
}

/* Through a lazily bound PLT entry, which saves only what the base procedure call standard does, a
 * vector function must not go: DT_AARCH64_VARIANT_PCS, which says so, is not written yet. */
static void scan_branch(const struct elf_edge *e)
{
    enum { STO_VARIANT_PCS = 0x80 };
    if (e->class == ELF_TO_DYNAMIC && (e->obj->syms[e->r_sym].st_other & STO_VARIANT_PCS))
        elf_reject(e, "calls a function of the vector procedure call standard in another module, "
                      "which is not supported");
    else if (e->class != ELF_TO_CONSTANT)
        elf_scan_branch(e);
}

static void scan_edge(const struct elf_edge *e)
{
    switch (e->type) {
    case R_AARCH64_ABS64: elf_scan_word(e); break;
    case R_AARCH64_ABS32:
    case R_AARCH64_ABS16:
    case R_AARCH64_MOVW_UABS_G0:
    case R_AARCH64_MOVW_UABS_G0_NC:
    case R_AARCH64_MOVW_UABS_G1:
    case R_AARCH64_MOVW_UABS_G1_NC:
    case R_AARCH64_MOVW_UABS_G2:
    case R_AARCH64_MOVW_UABS_G2_NC:
    case R_AARCH64_MOVW_UABS_G3: elf_scan_narrow(e); break;
    case R_AARCH64_PREL64:
    case R_AARCH64_PREL32:
    case R_AARCH64_PREL16:
    case R_AARCH64_LD_PREL_LO19:
    case R_AARCH64_ADR_PREL_LO21:
    case R_AARCH64_ADR_PREL_PG_HI21:
    case R_AARCH64_ADR_PREL_PG_HI21_NC: elf_scan_distance(e); break;
    case R_AARCH64_ADD_ABS_LO12_NC:
    case R_AARCH64_LDST8_ABS_LO12_NC:
    case R_AARCH64_LDST16_ABS_LO12_NC:
    case R_AARCH64_LDST32_ABS_LO12_NC:
    case R_AARCH64_LDST64_ABS_LO12_NC:
    case R_AARCH64_LDST128_ABS_LO12_NC: scan_low(e); break;
    case R_AARCH64_TSTBR14:
    case R_AARCH64_CONDBR19:
    case R_AARCH64_JUMP26:
    case R_AARCH64_CALL26:
    case A64_R_PLT32: scan_branch(e); break;
    case R_AARCH64_LD64_GOTPAGE_LO15:
    case R_AARCH64_GOT_LD_PREL19:
    case R_AARCH64_ADR_GOT_PAGE:
    case R_AARCH64_LD64_GOT_LO12_NC:
    case A64_R_GOTPCREL32: elf_need(e, KLD_SYM_NEED_GOT); break;
    case R_AARCH64_TLSGD_ADR_PAGE21:
    case R_AARCH64_TLSGD_ADD_LO12_NC: elf_need(e, KLD_SYM_NEED_TLSGD); break;
    case R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21:
    case R_AARCH64_TLSIE_LD64_GOTTPREL_LO12_NC:
        elf_need(e, KLD_SYM_NEED_GOTTP);
        if (e->elf->is_shared)
            elf_note(&e->elf->static_tls);
        break;
    case R_AARCH64_TLSDESC_ADR_PAGE21:
    case R_AARCH64_TLSDESC_LD64_LO12:
    case R_AARCH64_TLSDESC_ADD_LO12: scan_tlsdesc(e); break;
    case R_AARCH64_TLSDESC_CALL:
    case R_AARCH64_TLS_DTPREL: break;
    default:
        if (a64_info[e->type].kind == ELF_RELOC_TLS)
            scan_local_exec(e);
        else
            elf_reject(e, "is for the dynamic linker, and can not be in a relocatable file");
        break;
    }
}

void a64_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
              struct kld_atom *atom)
{
    struct elf_edge e = {
        .ctx = ctx, .worker = worker, .obj = obj, .atom = atom, .elf = elf_state(ctx)};
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges; i++) {
        const elf_rela *rel = &rels[i];
        if (kld_unlikely(!elf_is_sound(a64_info, A64_NINFO, obj, atom, rel))) {
            elf_report_unsound(ctx, obj, atom, rel);
            continue;
        }
        e.rel = rel;
        e.index = i;
        e.type = ELF64_R_TYPE(rel->r_info);
        e.r_sym = ELF64_R_SYM(rel->r_info);
        e.class = elf_classify(ctx, obj, e.r_sym);
        if (e.type != R_AARCH64_NONE && e.type != A64_R_NONE2 && elf_has_target(&e))
            scan_edge(&e);
    }
}
