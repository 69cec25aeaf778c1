/* elf_reloc.c - messages on relocations, the same for every CPU. */
#include "formats/elf/elf_reloc.h"

const char *elf_reloc_name(const struct kld_session *ctx, uint32_t type)
{
    const struct elf_arch_ops *arch = elf_state(ctx)->arch;
    return type < arch->ninfo && arch->info[type].name ? arch->info[type].name
                                                       : "unknown relocation";
}

struct kld_str elf_target_name(const struct kld_session *ctx, const struct elf_object *obj,
                               uint32_t r_sym)
{
    if (r_sym >= obj->first_global)
        return kld_symbol_name(elf_global(ctx, obj, r_sym));
    const elf_sym *sym = &obj->syms[r_sym];
    struct kld_str name;
    if (sym->st_name && kld_bytes_string(obj->strtab, sym->st_name, &name))
        return name;
    return elf_section_name(obj, elf_sym_section(obj, r_sym));
}

void elf_report_unsound(struct kld_session *ctx, const struct elf_object *obj,
                        const struct kld_atom *atom, const elf_rela *rel)
{
    const struct elf_arch_ops *arch = elf_state(ctx)->arch;
    uint32_t type = ELF64_R_TYPE(rel->r_info), r_sym = ELF64_R_SYM(rel->r_info);
    struct kld_where where = elf_where(atom, rel->r_offset);
    if (type >= arch->ninfo || !arch->info[type].name)
        kld_error(ctx, "bad-relocation", &where, "unknown relocation (%u)", type);
    else if (r_sym >= obj->nsyms)
        kld_error(ctx, "bad-relocation", &where, "%s: symbol index %u out of range (table has %u)",
                  arch->info[type].name, r_sym, obj->nsyms);
    else
        kld_error(ctx, "bad-relocation", &where, "%s: outside of the section (%llu bytes)",
                  arch->info[type].name, (unsigned long long)atom->size);
}

/* ---- order ---- */

/* Merges two sorted halves, the first one's first where they are equal. */
static void merge(Elf64_Rela *out, const Elf64_Rela *a, size_t na, const Elf64_Rela *b, size_t nb)
{
    while (na || nb) {
        bool first = na && (!nb || a->r_offset <= b->r_offset);
        *out++ = first ? *a++ : *b++;
        na -= first;
        nb -= !first;
    }
}

static void sort(Elf64_Rela *relas, size_t n, Elf64_Rela *scratch)
{
    if (n < 2)
        return;
    size_t half = n / 2;
    sort(relas, half, scratch);
    sort(relas + half, n - half, scratch);
    merge(scratch, relas, half, relas + half, n - half);
    memcpy(relas, scratch, n * sizeof(*relas));
}

const elf_rela *elf_sorted_relas(struct kld_worker *worker, const elf_rela *relas, uint32_t n)
{
    uint32_t i = 1;
    while (i < n && relas[i - 1].r_offset <= relas[i].r_offset)
        i++;
    if (i >= n)
        return relas;
    Elf64_Rela *copy = KLD_NEW_ARRAY(&worker->arena, Elf64_Rela, n);
    memcpy(copy, relas, n * sizeof(*copy));
    sort(copy, n, KLD_NEW_ARRAY(&worker->arena, Elf64_Rela, n));
    return copy;
}
