/* x64_scan_elf.c - what each relocation of live, allocated atoms needs.
 *
 * Most relocations need nothing: direct references within the output. They leave the loop after
 * one test of a bit mask. The others go through scan_edge, a function for each family. */
#include "arch/x86_64/x64_elf.h"
#include "src/undefined.h"

/* One relocation, and where it was found. */
struct edge {
    struct kld_session *ctx;
    struct kld_worker *worker;
    struct elf_object *obj;
    struct kld_atom *atom;
    struct elf_link *elf;
    const elf_rela *rel;
    uint32_t index; /* in the atom */
    uint32_t type, r_sym;
    enum x64_class class;
};

#define BIT(type) (1ull << (type))

/* Types that need nothing when the target is local to the output: always, and at fixed
 * addresses only. */
#define EASY                                                                                       \
    (BIT(R_X86_64_NONE) | BIT(R_X86_64_PC32) | BIT(R_X86_64_PLT32) | BIT(R_X86_64_PC64) |          \
     BIT(R_X86_64_SIZE32) | BIT(R_X86_64_SIZE64))
#define EASY_FIXED (BIT(R_X86_64_64) | BIT(R_X86_64_32) | BIT(R_X86_64_32S))

/* ---- messages ---- */

/* "relocation R_X86_64_PC32 against symbol 'foo' <problem>" */
static void reject(const struct edge *e, const char *problem)
{
    struct kld_str name = x64_symbol_name(e->ctx, e->obj, e->r_sym);
    struct kld_where where = elf_where(e->atom, e->rel->r_offset);
    kld_error(e->ctx, "bad-relocation", &where, "relocation %s against %s '%.*s' %s",
              x64_type_name(e->type),
              ELF64_ST_TYPE(e->obj->syms[e->r_sym].st_info) == STT_SECTION ? "section" : "symbol",
              KLD_FMT(name), problem);
}

static void reject_in_pic(const struct edge *e)
{
    reject(e, e->elf->is_shared
                  ? "can not be used when making a shared object; recompile with -fPIC"
                  : "can not be used when making a PIE object; recompile with -fPIE");
}

/* Unwind and exception tables may describe functions of a COMDAT group that lost: by address, not
 * through slots, which nobody would fill. */
static bool may_refer_to_discarded(const struct edge *e)
{
    if (!((EASY | EASY_FIXED) >> e->type & 1))
        return false;
    if (e->atom->kind == KLD_ATOM_RECORDS)
        return true;
    struct kld_str name = elf_section_name(e->obj, e->atom->input_index);
    return kld_str_starts(name, ".gcc_except_table") || kld_str_starts(name, ".eh_frame");
}

static void report_discarded(const struct edge *e)
{
    if (may_refer_to_discarded(e))
        return;
    struct kld_str name = x64_symbol_name(e->ctx, e->obj, e->r_sym);
    struct kld_str section = elf_section_name(e->obj, elf_sym_section(e->obj, e->r_sym));
    struct kld_where where = elf_where(e->atom, e->rel->r_offset);
    kld_error(e->ctx, "discarded-section", &where,
              "relocation refers to a symbol in a discarded section: %.*s (in %.*s)", KLD_FMT(name),
              KLD_FMT(section));
}

/* ---- needs ---- */

/* The target's symbol; one is made for a local name. */
static struct kld_symbol *symbol_of(const struct edge *e)
{
    if (e->r_sym >= e->obj->first_global)
        return elf_global(e->ctx, e->obj, e->r_sym);
    return elf_make_local_symbol(e->ctx, e->worker, e->obj, e->r_sym);
}

static void need(const struct edge *e, uint16_t flag)
{
    kld_symbol_flag(symbol_of(e), flag);
}

static void set(_Atomic bool *flag)
{
    if (!atomic_load_explicit(flag, memory_order_relaxed))
        atomic_store_explicit(flag, true, memory_order_relaxed);
}

static void need_dynrel(const struct edge *e, enum elf_dynrel_kind kind)
{
    elf_need_dynrel(e->ctx, e->worker, e->obj, e->atom, e->index, kind);
}

/* ---- direct references ---- */

static bool is_protected_in_library(const struct kld_symbol *sym)
{
    const struct elf_object *lib = elf_object(sym->file);
    return sym->file->kind == KLD_FILE_SHARED &&
           ELF64_ST_VISIBILITY(lib->syms[sym->index].st_other) == STV_PROTECTED;
}

/* The program needs an address of its own for what a library defines: a canonical PLT entry, or
 * a copy of the variable. */
static void need_address(const struct edge *e)
{
    struct kld_symbol *sym = symbol_of(e);
    if (sym->kind != KLD_SYM_IMPORTED)
        return; /* undefined: 0 */
    bool function = sym->type == KLD_TYPE_FUNCTION || sym->type == KLD_TYPE_IFUNC ||
                    (sym->type == KLD_TYPE_NONE && !sym->size);
    if (function)
        kld_symbol_flag(sym, KLD_SYM_NEED_CANONICAL_PLT);
    else if (e->ctx->options.z_copyreloc == KLD_NO)
        reject(e, "needs a copy relocation, which -z nocopyreloc forbids; recompile with -fPIE");
    else if (is_protected_in_library(sym))
        reject(e, "needs a copy relocation, but the symbol is protected; recompile with -fPIE");
    else if (!sym->size)
        reject(e, "needs a copy relocation, but the symbol has no size");
    else
        kld_symbol_flag(sym, KLD_SYM_NEED_COPY);
}

/* R_X86_64_64 */
static void scan_word(const struct edge *e)
{
    switch (x64_word(e->ctx, e->atom, e->class)) {
    case X64_WORD_RELATIVE: need_dynrel(e, ELF_DYNREL_RELATIVE); return;
    case X64_WORD_SYMBOLIC: need_dynrel(e, ELF_DYNREL_SYMBOLIC); return;
    case X64_WORD_IRELATIVE:
        symbol_of(e); /* another reference may make its PLT entry canonical */
        need_dynrel(e, ELF_DYNREL_IRELATIVE);
        return;
    case X64_WORD_FIXED: break;
    }
    if (e->class == X64_DYNAMIC)
        need_address(e);
    else if (e->class == X64_IFUNC)
        need(e, KLD_SYM_NEED_CANONICAL_PLT);
}

/* Absolute addresses in fields too small for a dynamic relocation */
static void scan_narrow(const struct edge *e)
{
    if (e->class == X64_CONSTANT)
        return;
    if (e->elf->is_pic)
        reject_in_pic(e);
    else if (e->class == X64_DYNAMIC)
        need_address(e);
    else if (e->class == X64_IFUNC)
        need(e, KLD_SYM_NEED_CANONICAL_PLT);
}

static bool is_absolute_symbol(const struct edge *e)
{
    if (e->r_sym < e->obj->first_global)
        return true;
    return elf_global(e->ctx, e->obj, e->r_sym)->kind == KLD_SYM_ABSOLUTE;
}

/* Distances from the place or from the GOT */
static void scan_distance(const struct edge *e)
{
    switch (e->class) {
    case X64_DYNAMIC:
        if (e->elf->is_shared)
            reject_in_pic(e);
        else
            need_address(e);
        return;
    case X64_IFUNC: need(e, KLD_SYM_NEED_CANONICAL_PLT); return;
    case X64_CONSTANT:
        if (e->elf->is_pic && is_absolute_symbol(e))
            reject(e, "is a distance to an absolute address, unknown in position-independent "
                      "output");
        return;
    default: return;
    }
}

/* PLT32, PLTOFF64 */
static void scan_branch(const struct edge *e)
{
    if (x64_uses_plt(e->class))
        need(e, KLD_SYM_NEED_PLT);
    else
        scan_distance(e);
}

/* ---- thread-local storage ---- */

static void reject_tls(const struct edge *e)
{
    reject(e, "is not part of a code sequence that the psABI defines, so that the access can not "
              "be adapted to an executable");
}

/* TLSGD, TLSLD: returns how many relocations were dealt with. */
static uint32_t scan_tls_call(const struct edge *e, bool gd)
{
    enum x64_tls to = x64_tls(e->elf, gd ? e->class : X64_LOCAL);
    if (to == X64_TLS_KEEP) {
        if (gd)
            need(e, KLD_SYM_NEED_TLSGD);
        else
            set(&e->elf->needs_tlsld);
        return 1;
    }
    if (x64_tls_call(e->atom, e->index, gd) == X64_CALL_UNKNOWN) {
        reject_tls(e);
        return 1;
    }
    if (to == X64_TLS_IE)
        need(e, KLD_SYM_NEED_GOTTP);
    return 2; /* __tls_get_addr is not called any more */
}

static void scan_gottpoff(const struct edge *e)
{
    if (x64_tls_load(e->elf, e->atom, e->rel, e->class) == X64_TLS_LE)
        return;
    need(e, KLD_SYM_NEED_GOTTP);
    if (e->elf->is_shared)
        set(&e->elf->static_tls);
}

static void scan_tlsdesc(const struct edge *e)
{
    enum x64_tls to = x64_tls_desc(e->elf, e->type, e->class);
    bool rex2 = e->type != R_X86_64_GOTPC32_TLSDESC;
    if (to == X64_TLS_KEEP)
        need(e, KLD_SYM_NEED_TLSDESC);
    else if (!x64_desc_is_lea(x64_bytes(e->atom), e->rel->r_offset, rex2))
        reject_tls(e);
    else if (to == X64_TLS_IE)
        need(e, KLD_SYM_NEED_GOTTP);
}

static void scan_tlsdesc_call(const struct edge *e)
{
    if (!e->elf->is_shared && !x64_desc_is_call(x64_bytes(e->atom), e->rel->r_offset))
        reject_tls(e);
}

/* TPOFF32, TPOFF64 */
static void scan_tpoff(const struct edge *e)
{
    if (!e->elf->is_shared) {
        if (e->class == X64_DYNAMIC)
            reject(e, "needs the variable in this program, but a shared library defines it; "
                      "recompile with -fPIC");
    } else if (e->type == R_X86_64_TPOFF64) {
        set(&e->elf->static_tls);
        need_dynrel(e, ELF_DYNREL_TPOFF);
    } else {
        reject_in_pic(e);
    }
}

/* ---- all families ---- */

/* Returns how many relocations were dealt with. */
static uint32_t scan_edge(const struct edge *e)
{
    switch (e->type) {
    case R_X86_64_64: scan_word(e); break;
    case R_X86_64_32:
    case R_X86_64_32S:
    case R_X86_64_16:
    case R_X86_64_8: scan_narrow(e); break;
    case R_X86_64_GOTOFF64:
        set(&e->elf->needs_got_base);
        scan_distance(e);
        break;
    case R_X86_64_PC32:
    case R_X86_64_PC64:
    case R_X86_64_PC16:
    case R_X86_64_PC8:
    case X64_R_PC32_BND: scan_distance(e); break;
    case R_X86_64_PLTOFF64:
        set(&e->elf->needs_got_base);
        scan_branch(e);
        break;
    case R_X86_64_PLT32:
    case X64_R_PLT32_BND: scan_branch(e); break;
    case R_X86_64_GOT32:
    case R_X86_64_GOT64:
    case R_X86_64_GOTPLT64:
        set(&e->elf->needs_got_base);
        need(e, KLD_SYM_NEED_GOT);
        break;
    case R_X86_64_GOTPCREL:
    case R_X86_64_GOTPCREL64:
    case X64_R_CODE_4_GOTPCRELX:
    case X64_R_CODE_5_GOTPCRELX:
    case X64_R_CODE_6_GOTPCRELX: need(e, KLD_SYM_NEED_GOT); break;
    case R_X86_64_GOTPCRELX:
    case R_X86_64_REX_GOTPCRELX:
        if (x64_load(e->ctx, e->obj, e->atom, e->rel, e->class) == X64_LOAD_GOT)
            need(e, KLD_SYM_NEED_GOT);
        break;
    case R_X86_64_GOTPC32:
    case R_X86_64_GOTPC64: set(&e->elf->needs_got_base); break;
    case R_X86_64_TLSGD: return scan_tls_call(e, true);
    case R_X86_64_TLSLD: return scan_tls_call(e, false);
    case R_X86_64_DTPOFF32:
    case R_X86_64_DTPOFF64:
        if (e->class == X64_DYNAMIC && symbol_of(e)->kind != KLD_SYM_DEFINED)
            reject(e, "is an offset in this module, but another one defines the variable");
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
    default: reject(e, "is for the dynamic linker, and can not be in a relocatable file"); break;
    }
    return 1;
}

/* ---- the target itself ---- */

static bool is_tls_type(uint32_t type)
{
    switch (type) {
    case R_X86_64_TLSGD:
    case R_X86_64_DTPOFF32:
    case R_X86_64_DTPOFF64:
    case R_X86_64_GOTTPOFF:
    case R_X86_64_TPOFF32:
    case R_X86_64_TPOFF64:
    case R_X86_64_GOTPC32_TLSDESC:
    case R_X86_64_TLSDESC_CALL:
    case X64_R_CODE_4_GOTTPOFF:
    case X64_R_CODE_4_TLSDESC:
    case X64_R_CODE_5_GOTTPOFF:
    case X64_R_CODE_5_TLSDESC:
    case X64_R_CODE_6_GOTTPOFF:
    case X64_R_CODE_6_TLSDESC: return true;
    default: return false;
    }
}

/* Thread-local for one file, ordinary for the other: reported. */
static bool is_tls_mismatch(const struct edge *e)
{
    if (e->r_sym < e->obj->first_global)
        return false;
    const struct kld_symbol *sym = elf_global(e->ctx, e->obj, e->r_sym);
    bool access = is_tls_type(e->type), definition = sym->type == KLD_TYPE_TLS;
    if (access == definition || sym->kind == KLD_SYM_UNDEFINED || e->type == R_X86_64_TLSLD ||
        e->type == R_X86_64_SIZE32 || e->type == R_X86_64_SIZE64 ||
        (access && sym->type == KLD_TYPE_NONE))
        return false;
    struct kld_where where = elf_where(e->atom, e->rel->r_offset);
    kld_error(e->ctx, "tls-mismatch", &where,
              "%s reference to '%.*s' (%s), which %s defines as %s symbol",
              access ? "TLS" : "non-TLS", KLD_FMT(kld_symbol_name(sym)), x64_type_name(e->type),
              sym->file ? sym->file->path : "the linker", definition ? "a TLS" : "an ordinary");
    return true;
}

/* Reports targets that are not there or cannot be meant. False: nothing more to say of it. */
static bool has_target(struct edge *e)
{
    if (e->class == X64_DISCARDED) {
        report_discarded(e);
        return false;
    }
    if (e->class == X64_UNDEFINED) {
        struct kld_symbol *sym = elf_global(e->ctx, e->obj, e->r_sym);
        kld_undefined_reference(e->ctx, sym, e->atom, e->rel->r_offset);
        e->class = X64_CONSTANT; /* 0, if policy allows it */
    }
    return !is_tls_mismatch(e);
}

/* ---- the loop ---- */

void x64_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
              struct kld_atom *atom)
{
    struct edge e = {.ctx = ctx, .worker = worker, .obj = obj, .atom = atom, .elf = elf_state(ctx)};
    const elf_rela *rels = atom->edges;
    const uint64_t easy = e.elf->is_pic ? EASY : EASY | EASY_FIXED;
    for (uint32_t i = 0; i < atom->nedges;) {
        const elf_rela *rel = &rels[i];
        uint32_t type = ELF64_R_TYPE(rel->r_info), r_sym = ELF64_R_SYM(rel->r_info);
        if (kld_unlikely(type >= X64_NINFO || r_sym >= obj->nsyms ||
                         !kld_in_bounds(rel->r_offset, x64_info[type].width, atom->size) ||
                         !x64_info[type].name)) {
            x64_is_valid(ctx, obj, atom, rel);
            i++;
            continue;
        }
        enum x64_class class = x64_classify(ctx, obj, r_sym);
        if (kld_likely(class == X64_LOCAL && easy >> type & 1)) {
            i++;
            continue;
        }
        e.rel = rel;
        e.index = i;
        e.type = type;
        e.r_sym = r_sym;
        e.class = class;
        i += type == R_X86_64_NONE || !has_target(&e) ? 1 : scan_edge(&e);
    }
}
