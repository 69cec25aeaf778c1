/* a64_scan_elf.c - what each relocation of live, allocated atoms needs: a matter of its value. */
#include "arch/aarch64/a64_elf.h"

/* A slot, which is for the symbol alone: none is for S + A. */
static void need_slot(const struct elf_edge *e, uint16_t flag)
{
    if (e->rel->r_addend && e->type != A64_R_GOTPCREL32)
        elf_reject(e, "has an addend, which GOT slots do not have");
    else
        elf_need(e, flag);
}

/* TLSDESC sequences: kept in shared objects, rewritten in programs (AAELF64 5.7.11). */
static void scan_tlsdesc(const struct elf_edge *e)
{
    if (e->type == A64_R_TLSDESC_CALL)
        return;
    switch (elf_tls(e->elf, e->class)) {
    case ELF_TLS_KEEP: need_slot(e, KLD_SYM_NEED_TLSDESC); break;
    case ELF_TLS_IE: need_slot(e, KLD_SYM_NEED_GOTTP); break;
    case ELF_TLS_LE: break;
    }
}

static void scan_initial_exec(const struct elf_edge *e, struct a64_kept *kept)
{
    if (a64_bypasses_tls_slot(e->ctx, e->atom, e->index, e->class, kept))
        return;
    need_slot(e, KLD_SYM_NEED_GOTTP);
    if (e->elf->is_shared)
        elf_note(&e->elf->static_tls);
}

static void scan_local_dynamic(const struct elf_edge *e)
{
    if (e->class == ELF_TO_DYNAMIC && elf_edge_symbol(e)->kind != KLD_SYM_DEFINED)
        elf_reject(e, "is an offset in this module, but another one defines the variable");
}

static void scan_address(const struct elf_edge *e)
{
    enum a64_field field = a64_meaning[e->type].field;
    if (field == A64_WORD64)
        elf_scan_word(e);
    else if (a64_info[e->type].pc_relative)
        elf_scan_distance(e);
    else if (field < A64_LO12_1 || field > A64_LO12_16)
        elf_scan_narrow(e);
    else if (e->class != ELF_TO_CONSTANT) /* any will do where the high half is page-relative */
        elf_scan_distance(e);
}

/* Returns how many relocations were dealt with. */
static uint32_t scan_edge(const struct elf_edge *e, struct a64_kept *kept)
{
    switch ((enum a64_value)a64_meaning[e->type].value) {
    case A64_ABS: scan_address(e); break;
    case A64_PREL: elf_scan_distance(e); break;
    case A64_BRANCH:
        if (e->class != ELF_TO_CONSTANT)
            elf_scan_branch(e);
        break;
    case A64_GOTREL:
        elf_note(&e->elf->needs_got_base);
        elf_scan_distance(e);
        break;
    case A64_GOT:
        if (a64_bypasses_got(e->ctx, e->atom, e->index, e->class, kept))
            return 2;
        need_slot(e, KLD_SYM_NEED_GOT);
        break;
    case A64_DTPREL: scan_local_dynamic(e); break;
    case A64_TPREL: elf_scan_local_exec(e); break;
    case A64_TLSGD: need_slot(e, KLD_SYM_NEED_TLSGD); break;
    case A64_TLSLD: elf_note(&e->elf->needs_tlsld); break;
    case A64_TLSIE: scan_initial_exec(e, kept); break;
    case A64_TLSDESC: scan_tlsdesc(e); break;
    case A64_DYNAMIC:
        elf_reject(e, "is for the dynamic linker, and can not be in a relocatable file");
        break;
    case A64_LARGE_PIC:
        elf_reject(e, "is of the large code model for position-independent code, which is not "
                      "supported");
        break;
    case A64_AUTH: elf_reject(e, "needs a signed pointer, which is not supported"); break;
    case A64_UNKNOWN:
    case A64_NOTHING: break;
    }
    return 1;
}

void a64_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
              struct kld_atom *atom)
{
    struct elf_edge e = {
        .ctx = ctx, .worker = worker, .obj = obj, .atom = atom, .elf = elf_state(ctx)};
    struct a64_kept kept = {0};
    const elf_rela *rels = atom->edges;
    for (uint32_t i = 0; i < atom->nedges;) {
        const elf_rela *rel = &rels[i];
        if (kld_unlikely(!elf_is_sound(a64_info, A64_NINFO, obj, atom, rel))) {
            elf_report_unsound(ctx, obj, atom, rel);
            i++;
            continue;
        }
        e.rel = rel;
        e.index = i;
        e.type = ELF64_R_TYPE(rel->r_info);
        e.r_sym = ELF64_R_SYM(rel->r_info);
        e.class = elf_scan_class(ctx, obj, e.r_sym);
        bool nothing = a64_meaning[e.type].value == A64_NOTHING;
        i += nothing || !elf_has_target(&e) ? 1 : scan_edge(&e, &kept);
    }
}
