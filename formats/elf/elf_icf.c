/* elf_icf.c - --icf for ELF: what may be folded.
 *
 *                      --icf=safe                           --icf=all
 * functions            whose address nobody can compare     all
 * exception tables     all                                  all
 * other constants      not listed in .llvm_addrsig          the same
 *
 * Whether an address can be compared: an object with .llvm_addrsig lists the symbols whose address
 * means something to it. For an object without, its relocations tell: every one that is not a
 * branch takes the address of what it leads to, except in virtual tables, since calls through
 * them do not look at the address. What other modules can see is not folded in safe mode either.
 *
 * Constants are treated alike in both modes since C and C++ programs do compare the addresses of
 * objects (functions are folded in mode `all` because the user says so). Only LLVM's tables say
 * that it does not matter.
 *
 * Never folded: what is found by its place (.init, .ctors, sections that __start_ refers to), and
 * sections that others are linked to by SHF_LINK_ORDER. */
#include "formats/elf/elf_icf.h"
#include "formats/elf/elf_arch.h"
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_gc.h"

enum { SYMBOL_BLOCK = 4096 };

struct icf {
    kld_mark *keep;
    uint8_t *by_place; /* by output section: found by its place */
};

static bool found_by_place(const struct kld_section *s)
{
    static const char *const names[] = {".ctors", ".dtors", ".fini", ".init", ".jcr"};
    for (size_t i = 0; i < KLD_COUNT(names); i++)
        if (kld_str_is(kld_str(s->name), names[i]))
            return true;
    return s->type != SHT_PROGBITS || elf_is_c_identifier(s->name);
}

/* ---- whose address means something ---- */

static void keep_address(struct kld_session *ctx, struct kld_worker *worker, const struct icf *icf,
                         struct kld_atom *target)
{
    if (!target || !target->live)
        return;
    if (!(target->flags & KLD_ATOM_EXEC) || ctx->options.icf == KLD_ICF_SAFE)
        icf->keep(ctx, worker, target);
}

static bool bad_addrsig(struct kld_session *ctx, const struct elf_object *obj)
{
    struct kld_where where = {.file = &obj->base, .order = obj->addrsig_section};
    kld_error(ctx, "bad-addrsig", &where,
              "section %u: malformed table of address-significant symbols", obj->addrsig_section);
    return false;
}

/* .llvm_addrsig: ULEB128 numbers of symbols. */
static bool read_addrsig(struct kld_session *ctx, struct kld_worker *worker, const struct icf *icf,
                         const struct elf_object *obj)
{
    struct kld_bytes bytes;
    if (!elf_section_bytes(ctx, obj, obj->addrsig_section, &bytes))
        return false;
    for (size_t at = 0; at < bytes.len;) {
        uint64_t sym;
        if (!kld_uleb(bytes, &at, &sym) || sym >= obj->nsyms)
            return bad_addrsig(ctx, obj);
        elf_rela rel = {.r_info = ELF64_R_INFO(sym, 0)};
        struct kld_edge e;
        if (elf_edge(ctx, obj, &rel, &e))
            keep_address(ctx, worker, icf, e.atom);
    }
    return true;
}

/* The compilers' virtual tables, and those of classes under construction. */
static bool is_vtable(const struct elf_object *obj, const struct kld_atom *atom)
{
    static const char *const prefixes[] = {".data.rel.ro._ZTV", ".data.rel.ro.local._ZTV",
                                           ".data.rel.ro._ZTC", ".data.rel.ro.local._ZTC",
                                           ".rodata._ZTV",      ".rodata._ZTC"};
    if (atom->flags & KLD_ATOM_EXEC)
        return false;
    struct kld_str name = elf_section_name(obj, atom->input_index);
    for (size_t i = 0; i < KLD_COUNT(prefixes); i++)
        if (kld_str_starts(name, prefixes[i]))
            return true;
    return false;
}

static void read_relocations(struct kld_session *ctx, struct kld_worker *worker,
                             const struct icf *icf, const struct elf_object *obj,
                             const struct kld_atom *atom)
{
    const struct elf_arch_ops *arch = elf_state(ctx)->arch;
    const elf_rela *relas = atom->edges;
    bool vtable = is_vtable(obj, atom);
    for (uint32_t i = 0; i < atom->nedges; i++) {
        uint32_t type = ELF64_R_TYPE(relas[i].r_info);
        struct kld_edge e;
        if ((type < arch->ninfo && !arch->info[type].address_taken) ||
            !elf_edge(ctx, obj, &relas[i], &e) || !e.atom)
            continue;
        if (!vtable || !(e.atom->flags & KLD_ATOM_EXEC))
            keep_address(ctx, worker, icf, e.atom);
    }
}

/* ---- what may be folded by its kind ---- */

static bool is_foldable_kind(const struct icf *icf, const struct elf_object *obj,
                             const struct kld_atom *atom)
{
    const elf_shdr *sh = &obj->shdrs[atom->input_index];
    if (icf->by_place[atom->section] || sh->sh_type != SHT_PROGBITS ||
        (sh->sh_flags & SHF_LINK_ORDER))
        return false;
    return (atom->flags & KLD_ATOM_EXEC) || obj->addrsig_section ||
           kld_str_starts(elf_section_name(obj, atom->input_index), ".gcc_except_table");
}

static void keep_in_file(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t f)
{
    const struct icf *icf = arg;
    struct elf_object *obj = elf_object(ctx->files[f]);
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    if (obj->addrsig_section)
        read_addrsig(ctx, worker, icf, obj);
    for (uint32_t i = 0; i < obj->base.natoms; i++) {
        struct kld_atom *atom = &obj->base.atoms[i];
        const elf_shdr *sh = &obj->shdrs[atom->input_index];
        if (!atom->live || !(atom->flags & KLD_ATOM_ALLOC) || atom->kind != KLD_ATOM_BYTES)
            continue;
        if (!(atom->flags & KLD_ATOM_WRITE) && !is_foldable_kind(icf, obj, atom))
            icf->keep(ctx, worker, atom);
        if ((sh->sh_flags & SHF_LINK_ORDER) && elf_section_atom(obj, sh->sh_link))
            icf->keep(ctx, worker, elf_section_atom(obj, sh->sh_link));
        if (!obj->addrsig_section && atom->nedges)
            read_relocations(ctx, worker, icf, obj, atom);
    }
}

static void keep_exported(struct kld_session *ctx, struct kld_worker *worker, void *arg,
                          size_t block)
{
    const struct icf *icf = arg;
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * SYMBOL_BLOCK, ctx->nsymbols);
    for (kld_symid id = (kld_symid)(block * SYMBOL_BLOCK); id < end; id++) {
        const struct kld_symbol *sym = &ctx->symbols[id];
        if (sym->exported && sym->kind == KLD_SYM_DEFINED && !sym->in_section)
            keep_address(ctx, worker, icf, sym->atom);
    }
}

void elf_icf_keep(struct kld_session *ctx, kld_mark *keep)
{
    struct icf icf = {.keep = keep};
    icf.by_place = KLD_NEW_ARRAY(&ctx->scratch, uint8_t, ctx->sections.len);
    for (size_t i = 0; i < ctx->sections.len; i++)
        icf.by_place[i] = found_by_place(ctx->sections.data[i]);
    kld_parallel_for(ctx, ctx->nfiles, 16, keep_in_file, &icf);
    kld_parallel_for(ctx, (ctx->nsymbols + SYMBOL_BLOCK - 1) / SYMBOL_BLOCK, 4, keep_exported,
                     &icf);
}

/* ---- unwind data ---- */

struct more {
    struct kld_session *ctx;
    struct kld_sink *sink;
};

/* All of a record but the distance between the two, and its relocations, that of pc_begin too:
 * it leads to the function itself, which equals its twin if all the rest does. */
static void see_record(void *arg, const struct elf_object *obj, const struct elf_eh_record *r)
{
    const struct more *m = arg;
    uint32_t head = kld_get32(r->data) == UINT32_MAX ? 12 : 4;
    uint32_t skip = r->is_cie ? 0 : head + 4;
    uint32_t end = r->size;
    while (end > skip && !r->data[end - 1])
        end--; /* padding: DW_CFA_nop, more of it in the last record of a section */
    m->sink->bytes(m->sink, r->data + skip, end - skip);
    for (uint32_t i = 0; i < r->nrelas; i++) {
        struct kld_edge e;
        if (!elf_edge(m->ctx, obj, &r->relas[i], &e))
            continue;
        e.offset -= r->offset;
        m->sink->edge(m->sink, &e);
    }
}

void elf_icf_more(struct kld_session *ctx, const struct kld_atom *atom, struct kld_sink *sink)
{
    struct more m = {.ctx = ctx, .sink = sink};
    elf_eh_each(atom, see_record, &m);
}
