/* elf_scan.c - what a relocation needs, by families that every CPU has. */
#include "formats/elf/elf_scan.h"
#include "src/undefined.h"

static const struct elf_reloc_info *row_of(const struct elf_edge *e)
{
    return &e->elf->arch->info[e->type];
}

/* ---- messages ---- */

void elf_reject(const struct elf_edge *e, const char *problem)
{
    struct kld_str name = elf_target_name(e->ctx, e->obj, e->r_sym);
    struct kld_where where = elf_where(e->atom, e->rel->r_offset);
    kld_error(e->ctx, "bad-relocation", &where, "relocation %s against %s '%.*s' %s",
              elf_reloc_name(e->ctx, e->type),
              ELF64_ST_TYPE(e->obj->syms[e->r_sym].st_info) == STT_SECTION ? "section" : "symbol",
              KLD_FMT(name), problem);
}

void elf_reject_in_pic(const struct elf_edge *e)
{
    elf_reject(e, e->elf->is_shared
                      ? "can not be used when making a shared object; recompile with -fPIC"
                      : "can not be used when making a PIE object; recompile with -fPIE");
}

/* Unwind and exception tables may describe functions of a COMDAT group that lost: by address, not
 * through slots, which nobody would fill. */
static bool may_refer_to_discarded(const struct elf_edge *e)
{
    if (row_of(e)->kind != ELF_RELOC_DIRECT)
        return false;
    if (e->atom->kind == KLD_ATOM_RECORDS)
        return true;
    struct kld_str name = elf_section_name(e->obj, e->atom->input_index);
    return kld_str_starts(name, ".gcc_except_table") || kld_str_starts(name, ".eh_frame");
}

static void report_discarded(const struct elf_edge *e)
{
    if (may_refer_to_discarded(e))
        return;
    struct kld_str name = elf_target_name(e->ctx, e->obj, e->r_sym);
    struct kld_str section = elf_section_name(e->obj, elf_sym_section(e->obj, e->r_sym));
    struct kld_where where = elf_where(e->atom, e->rel->r_offset);
    kld_error(e->ctx, "discarded-section", &where,
              "relocation refers to a symbol in a discarded section: %.*s (in %.*s)", KLD_FMT(name),
              KLD_FMT(section));
}

/* ---- needs ---- */

struct kld_symbol *elf_edge_symbol(const struct elf_edge *e)
{
    if (e->r_sym >= e->obj->first_global)
        return elf_global(e->ctx, e->obj, e->r_sym);
    return elf_make_local_symbol(e->ctx, e->worker, e->obj, e->r_sym);
}

void elf_need(const struct elf_edge *e, uint16_t flag)
{
    kld_symbol_flag(elf_edge_symbol(e), flag);
}

void elf_edge_dynrel(const struct elf_edge *e, enum elf_dynrel_kind kind)
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
static void need_address(const struct elf_edge *e)
{
    struct kld_symbol *sym = elf_edge_symbol(e);
    if (sym->kind != KLD_SYM_IMPORTED)
        return; /* undefined: 0 */
    bool function = sym->type == KLD_TYPE_FUNCTION || sym->type == KLD_TYPE_IFUNC ||
                    (sym->type == KLD_TYPE_NONE && !sym->size);
    if (function)
        kld_symbol_flag(sym, KLD_SYM_NEED_CANONICAL_PLT);
    else if (e->ctx->options.z_copyreloc == KLD_NO)
        elf_reject(e,
                   "needs a copy relocation, which -z nocopyreloc forbids; recompile with -fPIE");
    else if (is_protected_in_library(sym))
        elf_reject(e, "needs a copy relocation, but the symbol is protected; recompile with -fPIE");
    else if (!sym->size)
        elf_reject(e, "needs a copy relocation, but the symbol has no size");
    else
        kld_symbol_flag(sym, KLD_SYM_NEED_COPY);
}

void elf_scan_word(const struct elf_edge *e)
{
    switch (elf_word_need(e->ctx, e->atom, e->class)) {
    case ELF_WORD_RELATIVE: elf_edge_dynrel(e, ELF_DYNREL_RELATIVE); return;
    case ELF_WORD_SYMBOLIC: elf_edge_dynrel(e, ELF_DYNREL_SYMBOLIC); return;
    case ELF_WORD_IRELATIVE:
        elf_edge_symbol(e); /* another reference may make its PLT entry canonical */
        elf_edge_dynrel(e, ELF_DYNREL_IRELATIVE);
        return;
    case ELF_WORD_FIXED: break;
    }
    if (e->class == ELF_TO_DYNAMIC)
        need_address(e);
    else if (e->class == ELF_TO_IFUNC)
        elf_need(e, KLD_SYM_NEED_CANONICAL_PLT);
}

void elf_scan_narrow(const struct elf_edge *e)
{
    if (e->class == ELF_TO_CONSTANT)
        return;
    if (e->elf->is_pic)
        elf_reject_in_pic(e);
    else if (e->class == ELF_TO_DYNAMIC)
        need_address(e);
    else if (e->class == ELF_TO_IFUNC)
        elf_need(e, KLD_SYM_NEED_CANONICAL_PLT);
}

static bool is_absolute_symbol(const struct elf_edge *e)
{
    if (e->r_sym < e->obj->first_global)
        return true;
    return elf_global(e->ctx, e->obj, e->r_sym)->kind == KLD_SYM_ABSOLUTE;
}

void elf_scan_distance(const struct elf_edge *e)
{
    switch (e->class) {
    case ELF_TO_DYNAMIC:
        if (e->elf->is_shared)
            elf_reject_in_pic(e);
        else
            need_address(e);
        return;
    case ELF_TO_IFUNC: elf_need(e, KLD_SYM_NEED_CANONICAL_PLT); return;
    case ELF_TO_CONSTANT:
        if (e->elf->is_pic && is_absolute_symbol(e))
            elf_reject(e, "is a distance to an absolute address, unknown in position-independent "
                          "output");
        return;
    default: return;
    }
}

void elf_scan_branch(const struct elf_edge *e)
{
    if (elf_uses_plt(e->class))
        elf_need(e, KLD_SYM_NEED_PLT);
    else
        elf_scan_distance(e);
}

void elf_scan_local_exec(const struct elf_edge *e)
{
    if (e->elf->is_shared)
        elf_reject_in_pic(e);
    else if (e->class == ELF_TO_DYNAMIC)
        elf_reject(e, "needs the variable in this program, but a shared library defines it; "
                      "recompile with -fPIC");
}

/* ---- the target itself ---- */

/* Thread-local for one file, ordinary for the other: reported. */
static bool is_tls_mismatch(const struct elf_edge *e)
{
    bool access = row_of(e)->kind == ELF_RELOC_TLS;
    if (e->r_sym < e->obj->first_global || (!access && e->class == ELF_TO_LOCAL))
        return false;
    const struct kld_symbol *sym = elf_global(e->ctx, e->obj, e->r_sym);
    bool definition = sym->type == KLD_TYPE_TLS;
    if (access == definition || sym->kind == KLD_SYM_UNDEFINED ||
        row_of(e)->kind == ELF_RELOC_ANY || (access && sym->type == KLD_TYPE_NONE))
        return false;
    struct kld_where where = elf_where(e->atom, e->rel->r_offset);
    kld_error(e->ctx, "tls-mismatch", &where,
              "%s reference to '%.*s' (%s), which %s defines as %s symbol",
              access ? "TLS" : "non-TLS", KLD_FMT(kld_symbol_name(sym)),
              elf_reloc_name(e->ctx, e->type), sym->file ? sym->file->path : "the linker",
              definition ? "a TLS" : "an ordinary");
    return true;
}

bool elf_has_target(struct elf_edge *e)
{
    if (e->class == ELF_TO_DISCARDED) {
        report_discarded(e);
        return false;
    }
    if (e->class == ELF_TO_UNDEFINED) {
        struct kld_symbol *sym = elf_global(e->ctx, e->obj, e->r_sym);
        kld_undefined_reference(e->ctx, sym, e->atom, e->rel->r_offset);
        e->class = ELF_TO_CONSTANT; /* 0, if policy allows it */
    }
    return !is_tls_mismatch(e);
}
