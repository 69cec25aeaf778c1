/* elf_content.c - a relocatable object in canonical form (src/content.h).
 *
 * Atoms are all sections but the tables that describe others. Of an atom: its name, type, flags,
 * alignment, size of entries, size, bytes, the section it is ordered by, its relocations as they stand:
 * offset, type, addend and target. A global target is a name; a local one is a section and an offset in
 * it, and the type of the symbol, which decides what some relocations mean. Sections are named, and
 * numbered where names repeat.
 *
 * Of the object: machine, its flags, groups with their signatures and members, and symbols with
 * binding, type, visibility, section, value and size, sorted.
 *
 * Left out: where in the file things are, numbers of sections and symbols, string tables, the order of
 * symbols, section symbols, the name of the source file (STT_FILE), and .llvm_addrsig, which is
 * made of numbers of symbols and asks for nothing but more folding. */
#define _GNU_SOURCE
#include "formats/elf/elf_object.h"
#include "src/content.h"
#include <stdlib.h>

struct describer {
    struct kld_session *ctx;
    const struct elf_object *obj;
    struct kld_content *to;
    uint32_t *nth;    /* [nshdrs] among the sections of its name */
    uint32_t *relocs; /* [nshdrs] the section of its relocations, or 0 */
    uint32_t *order;  /* of symbols */
};

static bool is_atom(const elf_shdr *sh)
{
    switch (sh->sh_type) {
    case SHT_NULL:
    case SHT_SYMTAB:
    case SHT_STRTAB:
    case SHT_RELA:
    case SHT_REL:
    case SHT_CREL:
    case SHT_GROUP:
    case SHT_SYMTAB_SHNDX:
    case SHT_LLVM_ADDRSIG: return false;
    default: return true;
    }
}

/* ---- names of sections ---- */

static int compare_text(struct kld_str a, struct kld_str b)
{
    int order = memcmp(a.ptr, b.ptr, KLD_MIN(a.len, b.len));
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_sections(const void *a, const void *b, void *arg)
{
    const struct describer *d = arg;
    uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
    int order = compare_text(elf_section_name(d->obj, i), elf_section_name(d->obj, k));
    return order ? order : (i > k) - (i < k);
}

static void number_sections(struct describer *d)
{
    const struct elf_object *obj = d->obj;
    struct kld_arena *arena = &d->ctx->arena;
    uint32_t *sorted = KLD_NEW_ARRAY(arena, uint32_t, obj->nshdrs), n = 0;
    d->nth = KLD_NEW_ARRAY(arena, uint32_t, obj->nshdrs);
    for (uint32_t i = 1; i < obj->nshdrs; i++)
        if (is_atom(&obj->shdrs[i]))
            sorted[n++] = i;
    if (n)
        qsort_r(sorted, n, sizeof(*sorted), compare_sections, d);
    for (uint32_t i = 1; i < n; i++)
        if (kld_str_eq(elf_section_name(obj, sorted[i]), elf_section_name(obj, sorted[i - 1])))
            d->nth[sorted[i]] = d->nth[sorted[i - 1]] + 1;
}

static void name_section(struct describer *d, uint32_t shndx)
{
    bool known = shndx < d->obj->nshdrs && is_atom(&d->obj->shdrs[shndx]);
    kld_content_number(d->to, known);
    kld_content_text(d->to, known ? elf_section_name(d->obj, shndx) : KLD_STR(""));
    /* Else it is a reserved number, or that of a table, which may have any. */
    kld_content_number(d->to, known                    ? d->nth[shndx]
                              : shndx < d->obj->nshdrs ? shndx != SHN_UNDEF
                                                       : shndx);
}

/* ---- atoms ---- */

static void find_relocs(struct describer *d)
{
    const struct elf_object *obj = d->obj;
    d->relocs = KLD_NEW_ARRAY(&d->ctx->arena, uint32_t, obj->nshdrs);
    for (uint32_t i = 1; i < obj->nshdrs; i++) {
        const elf_shdr *sh = &obj->shdrs[i];
        if (sh->sh_type == SHT_CREL || (sh->sh_type == SHT_REL && sh->sh_size))
            kld_bad_file(d->ctx, &obj->base, "section %u: relocations that are not SHT_RELA", i);
        if (sh->sh_type != SHT_RELA)
            continue;
        if (sh->sh_info == 0 || sh->sh_info >= obj->nshdrs || d->relocs[sh->sh_info])
            kld_bad_file(d->ctx, &obj->base, "section %u: relocations for section %u", i,
                         sh->sh_info);
        else
            d->relocs[sh->sh_info] = i;
    }
}

static struct kld_str symbol_name(const struct elf_object *obj, uint32_t i)
{
    return kld_str((const char *)obj->strtab.ptr + obj->syms[i].st_name);
}

static void describe_target(struct describer *d, uint32_t i)
{
    const struct elf_object *obj = d->obj;
    const elf_sym *sym = &obj->syms[i];
    bool global = i >= obj->first_global;
    kld_content_number(d->to, global);
    if (global) {
        kld_content_text(d->to, symbol_name(obj, i));
        return;
    }
    name_section(d, elf_sym_section(obj, i));
    kld_content_number(d->to, sym->st_value);
    kld_content_number(d->to, ELF64_ST_TYPE(sym->st_info));
}

static void describe_relocs(struct describer *d, uint32_t shndx)
{
    const struct elf_object *obj = d->obj;
    struct kld_bytes bytes = {0};
    if (shndx && !elf_section_bytes(d->ctx, obj, shndx, &bytes))
        return;
    if (bytes.len &&
        (obj->shdrs[shndx].sh_entsize != sizeof(elf_rela) || bytes.len % sizeof(elf_rela))) {
        kld_bad_file(d->ctx, &obj->base, "section %u: relocation entries are not 24 bytes", shndx);
        return;
    }
    const elf_rela *relas = (const void *)bytes.ptr;
    size_t n = bytes.len / sizeof(*relas);
    kld_content_number(d->to, n);
    for (size_t i = 0; i < n; i++) {
        uint32_t symbol = (uint32_t)ELF64_R_SYM(relas[i].r_info);
        /* Symbol 0 is in every table, also in one that is not there. */
        if (symbol && symbol >= obj->nsyms) {
            kld_bad_file(d->ctx, &obj->base,
                         "section %u: relocation %zu: symbol index %u out of range (table has %u)",
                         shndx, i, symbol, obj->nsyms);
            return;
        }
        kld_content_number(d->to, relas[i].r_offset);
        kld_content_number(d->to, ELF64_R_TYPE(relas[i].r_info));
        kld_content_number(d->to, (uint64_t)relas[i].r_addend);
        kld_content_number(d->to, symbol != 0);
        if (symbol)
            describe_target(d, symbol);
    }
}

static void describe_atom(struct describer *d, uint32_t i)
{
    const elf_shdr *sh = &d->obj->shdrs[i];
    struct kld_bytes bytes;
    if (!elf_section_bytes(d->ctx, d->obj, i, &bytes))
        return;
    d->to->begin(d->to, elf_section_name(d->obj, i));
    kld_content_number(d->to, sh->sh_type);
    kld_content_number(d->to, sh->sh_flags);
    kld_content_number(d->to, sh->sh_addralign);
    kld_content_number(d->to, sh->sh_entsize);
    kld_content_number(d->to, sh->sh_size);
    kld_content_bytes(d->to, bytes);
    if (sh->sh_flags & SHF_LINK_ORDER)
        name_section(d, sh->sh_link);
    describe_relocs(d, d->relocs[i]);
    d->to->end(d->to);
}

/* ---- the object ---- */

static void describe_group(struct describer *d, uint32_t i)
{
    const struct elf_object *obj = d->obj;
    struct kld_bytes bytes;
    if (!elf_section_bytes(d->ctx, obj, i, &bytes) || bytes.len < 4)
        return;
    uint32_t signature = obj->shdrs[i].sh_info;
    kld_content_number(d->to, bytes.len / 4);
    kld_content_number(d->to, kld_get32(bytes.ptr));
    if (signature < obj->nsyms) {
        bool section = ELF64_ST_TYPE(obj->syms[signature].st_info) == STT_SECTION;
        kld_content_text(d->to, section ? elf_section_name(obj, elf_sym_section(obj, signature))
                                        : symbol_name(obj, signature));
    }
    for (size_t at = 4; at + 4 <= bytes.len; at += 4) {
        uint32_t member = kld_get32(bytes.ptr + at);
        name_section(d, member < obj->nshdrs && is_atom(&obj->shdrs[member]) ? member : 0);
    }
}

static int compare_numbers(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_symbols(const void *a, const void *b, void *arg)
{
    const struct describer *d = arg;
    uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
    const elf_sym *x = &d->obj->syms[i], *y = &d->obj->syms[k];
    int order = compare_text(symbol_name(d->obj, i), symbol_name(d->obj, k));
    if (!order)
        order = compare_numbers(x->st_info, y->st_info);
    if (!order) /* the order of sections is that of the form */
        order = compare_numbers(elf_sym_section(d->obj, i), elf_sym_section(d->obj, k));
    if (!order)
        order = compare_numbers(x->st_value, y->st_value);
    if (!order)
        order = compare_numbers(x->st_size, y->st_size);
    return order ? order : compare_numbers(x->st_other, y->st_other);
}

static void describe_symbols(struct describer *d)
{
    const struct elf_object *obj = d->obj;
    uint32_t n = 0;
    d->order = KLD_NEW_ARRAY(&d->ctx->arena, uint32_t, obj->nsyms);
    for (uint32_t i = 1; i < obj->nsyms; i++) {
        unsigned type = ELF64_ST_TYPE(obj->syms[i].st_info);
        if (type != STT_SECTION && type != STT_FILE)
            d->order[n++] = i;
    }
    if (n)
        qsort_r(d->order, n, sizeof(*d->order), compare_symbols, d);
    kld_content_number(d->to, n);
    for (uint32_t k = 0; k < n; k++) {
        const elf_sym *sym = &obj->syms[d->order[k]];
        kld_content_text(d->to, symbol_name(obj, d->order[k]));
        kld_content_number(d->to, sym->st_info);
        kld_content_number(d->to, sym->st_other);
        name_section(d, elf_sym_section(obj, d->order[k]));
        kld_content_number(d->to, sym->st_value);
        kld_content_number(d->to, sym->st_size);
    }
}

void elf_describe(struct kld_session *ctx, const struct kld_file *file, struct kld_content *to)
{
    const struct elf_object *obj = elf_object(file);
    struct describer d = {.ctx = ctx, .obj = obj, .to = to};
    kld_content_text(to, KLD_STR("ELF"));
    kld_content_number(to, obj->ehdr->e_machine);
    kld_content_number(to, obj->ehdr->e_flags);
    kld_content_number(to, obj->ehdr->e_ident[EI_OSABI]);
    number_sections(&d);
    find_relocs(&d);
    for (uint32_t i = 1; i < obj->nshdrs; i++)
        if (is_atom(&obj->shdrs[i]))
            describe_atom(&d, i);
    uint32_t groups = 0;
    for (uint32_t i = 1; i < obj->nshdrs; i++)
        groups += obj->shdrs[i].sh_type == SHT_GROUP;
    kld_content_number(to, groups);
    for (uint32_t i = 1; i < obj->nshdrs; i++)
        if (obj->shdrs[i].sh_type == SHT_GROUP)
            describe_group(&d, i);
    describe_symbols(&d);
}
