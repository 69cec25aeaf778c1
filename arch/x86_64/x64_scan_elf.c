/* x64_scan_elf.c - what each relocation of live, allocated atoms needs.
 *
 * Most relocations need nothing: direct references within the output. They leave the loop after
 * one test of a bit mask. The others go through scan_edge, a function for each family. */
#include "arch/x86_64/x64_elf.h"

#define BIT(type) (1ull << (type))

/* Types that need nothing when the target is local to the output: always, and at fixed
 * addresses only. */
#define EASY                                                                                       \
    (BIT(R_X86_64_NONE) | BIT(R_X86_64_PC32) | BIT(R_X86_64_PLT32) | BIT(R_X86_64_PC64) |          \
     BIT(R_X86_64_SIZE32) | BIT(R_X86_64_SIZE64))
#define EASY_FIXED (BIT(R_X86_64_64) | BIT(R_X86_64_32) | BIT(R_X86_64_32S))

/* ---- thread-local storage ---- */

static void reject_tls(const struct elf_edge *e)
{
    elf_reject(e,
               "is not part of a code sequence that the psABI defines, so that the access can not "
               "be adapted to an executable");
}

/* TLSGD, TLSLD: returns how many relocations were dealt with. */
static uint32_t scan_tls_call(const struct elf_edge *e, bool gd)
{
    enum elf_tls to = elf_tls(e->elf, gd ? e->class : ELF_TO_LOCAL);
    if (to == ELF_TLS_KEEP) {
        if (gd)
            elf_need(e, KLD_SYM_NEED_TLSGD);
        else
            elf_note(&e->elf->needs_tlsld);
        return 1;
    }
    if (x64_tls_call(e->atom, e->index, gd) == X64_CALL_UNKNOWN) {
        reject_tls(e);
        return 1;
    }
    if (to == ELF_TLS_IE)
        elf_need(e, KLD_SYM_NEED_GOTTP);
    return 2; /* __tls_get_addr is not called any more */
}

static void scan_gottpoff(const struct elf_edge *e)
{
    if (x64_tls_load(e->elf, e->atom, e->rel, e->class) == ELF_TLS_LE)
        return;
    elf_need(e, KLD_SYM_NEED_GOTTP);
    if (e->elf->is_shared)
        elf_note(&e->elf->static_tls);
}

static void scan_tlsdesc(const struct elf_edge *e)
{
    enum elf_tls to = x64_tls_desc(e->elf, e->type, e->class);
    bool rex2 = e->type != R_X86_64_GOTPC32_TLSDESC;
    if (to == ELF_TLS_KEEP)
        elf_need(e, KLD_SYM_NEED_TLSDESC);
    else if (!x64_desc_is_lea(x64_bytes(e->atom), e->rel->r_offset, rex2))
        reject_tls(e);
    else if (to == ELF_TLS_IE)
        elf_need(e, KLD_SYM_NEED_GOTTP);
}

static void scan_tlsdesc_call(const struct elf_edge *e)
{
    if (!e->elf->is_shared && !x64_desc_is_call(x64_bytes(e->atom), e->rel->r_offset))
        reject_tls(e);
}

/* TPOFF32, TPOFF64 */
static void scan_tpoff(const struct elf_edge *e)
{
    if (!e->elf->is_shared) {
        if (e->class == ELF_TO_DYNAMIC)
            elf_reject(e, "needs the variable in this program, but a shared library defines it; "
                          "recompile with -fPIC");
    } else if (e->type == R_X86_64_TPOFF64) {
        elf_note(&e->elf->static_tls);
        elf_edge_dynrel(e, ELF_DYNREL_TPOFF);
    } else {
        elf_reject_in_pic(e);
    }
}

/* ---- all families ---- */

/* Returns how many relocations were dealt with. */
static uint32_t scan_edge(const struct elf_edge *e)
{
    switch (e->type) {
    case R_X86_64_64: elf_scan_word(e); break;
    case R_X86_64_32:
    case R_X86_64_32S:
    case R_X86_64_16:
    case R_X86_64_8: elf_scan_narrow(e); break;
    case R_X86_64_GOTOFF64:
        elf_note(&e->elf->needs_got_base);
        elf_scan_distance(e);
        break;
    case R_X86_64_PC32:
    case R_X86_64_PC64:
    case R_X86_64_PC16:
    case R_X86_64_PC8:
    case X64_R_PC32_BND: elf_scan_distance(e); break;
    case R_X86_64_PLTOFF64:
        elf_note(&e->elf->needs_got_base);
        elf_scan_branch(e);
        break;
    case R_X86_64_PLT32:
    case X64_R_PLT32_BND: elf_scan_branch(e); break;
    case R_X86_64_GOT32:
    case R_X86_64_GOT64:
    case R_X86_64_GOTPLT64:
        elf_note(&e->elf->needs_got_base);
        elf_need(e, KLD_SYM_NEED_GOT);
        break;
    case R_X86_64_GOTPCREL:
    case R_X86_64_GOTPCREL64:
    case X64_R_CODE_4_GOTPCRELX:
    case X64_R_CODE_5_GOTPCRELX:
    case X64_R_CODE_6_GOTPCRELX: elf_need(e, KLD_SYM_NEED_GOT); break;
    case R_X86_64_GOTPCRELX:
    case R_X86_64_REX_GOTPCRELX:
        if (x64_load(e->ctx, e->obj, e->atom, e->rel, e->class) == X64_LOAD_GOT)
            elf_need(e, KLD_SYM_NEED_GOT);
        break;
    case R_X86_64_GOTPC32:
    case R_X86_64_GOTPC64: elf_note(&e->elf->needs_got_base); break;
    case R_X86_64_TLSGD: return scan_tls_call(e, true);
    case R_X86_64_TLSLD: return scan_tls_call(e, false);
    case R_X86_64_DTPOFF32:
    case R_X86_64_DTPOFF64:
        if (e->class == ELF_TO_DYNAMIC && elf_edge_symbol(e)->kind != KLD_SYM_DEFINED)
            elf_reject(e, "is an offset in this module, but another one defines the variable");
        break;
    case R_X86_64_GOTTPOFF:
    case X64_R_CODE_4_GOTTPOFF:
    case X64_R_CODE_5_GOTTPOFF:
    case X64_R_CODE_6_GOTTPOFF: scan_gottpoff(e); break;
    case R_X86_64_TPOFF32:
    case R_X86_64_TPOFF64: scan_tpoff(e); break;
    case R_X86_64_GOTPC32_TLSDESC:
    case X64_R_CODE_4_TLSDESC:
    case X64_R_CODE_5_TLSDESC:
    case X64_R_CODE_6_TLSDESC: scan_tlsdesc(e); break;
    case R_X86_64_TLSDESC_CALL: scan_tlsdesc_call(e); break;
    case R_X86_64_NONE:
    case R_X86_64_SIZE32:
    case R_X86_64_SIZE64: break;
    default:
        elf_reject(e, "is for the dynamic linker, and can not be in a relocatable file");
        break;
    }
    return 1;
}

/* ---- the loop ---- */

void x64_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
              struct kld_atom *atom)
{
    struct elf_edge e = {
        .ctx = ctx, .worker = worker, .obj = obj, .atom = atom, .elf = elf_state(ctx)};
    const elf_rela *rels = atom->edges;
    const uint64_t easy = e.elf->is_pic ? EASY : EASY | EASY_FIXED;
    for (uint32_t i = 0; i < atom->nedges;) {
        const elf_rela *rel = &rels[i];
        uint32_t type = ELF64_R_TYPE(rel->r_info), r_sym = ELF64_R_SYM(rel->r_info);
        if (kld_unlikely(!elf_is_sound(x64_info, X64_NINFO, obj, atom, rel))) {
            elf_report_unsound(ctx, obj, atom, rel);
            i++;
            continue;
        }
        enum elf_class class = elf_scan_class(ctx, obj, r_sym);
        if (kld_likely(class == ELF_TO_LOCAL && easy >> type & 1)) {
            i++;
            continue;
        }
        e.rel = rel;
        e.index = i;
        e.type = type;
        e.r_sym = r_sym;
        e.class = class;
        i += type == R_X86_64_NONE || !elf_has_target(&e) ? 1 : scan_edge(&e);
    }
}
