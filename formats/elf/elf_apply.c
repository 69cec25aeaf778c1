/* elf_apply.c - the less usual values of relocated fields, and what does not fit. */
#include "formats/elf/elf_apply.h"

void elf_report_overflow(const struct elf_fixup *f, uint64_t value, int64_t min, uint64_t max)
{
    struct kld_str name = elf_target_name(f->ctx, f->obj, f->r_sym);
    struct kld_where where = elf_where(f->atom, f->rel->r_offset);
    bool negative = min < 0 && (int64_t)value < 0;
    kld_error(f->ctx, "relocation-overflow", &where,
              "relocation %s out of range: %s0x%llx is not in [%lld, %llu]; references '%.*s'",
              elf_reloc_name(f->ctx, f->type), negative ? "-" : "",
              (unsigned long long)(negative ? -value : value), (long long)min,
              (unsigned long long)max, KLD_FMT(name));
}

void elf_report_alignment(const struct elf_fixup *f, uint64_t value, unsigned align)
{
    struct kld_str name = elf_target_name(f->ctx, f->obj, f->r_sym);
    struct kld_where where = elf_where(f->atom, f->rel->r_offset);
    kld_error(f->ctx, "bad-relocation", &where,
              "relocation %s: 0x%llx is not a multiple of %u; references '%.*s'",
              elf_reloc_name(f->ctx, f->type), (unsigned long long)value, align, KLD_FMT(name));
}

void elf_report_not_loaded(const struct elf_fixup *f)
{
    struct kld_where where = elf_where(f->atom, f->rel->r_offset);
    kld_error(f->ctx, "bad-relocation", &where, "relocation %s in a section that is not loaded",
              elf_reloc_name(f->ctx, f->type));
}

bool elf_has_plt(const struct kld_session *ctx, const struct kld_symbol *sym)
{
    if (!sym || !sym->aux)
        return false;
    const struct elf_aux *aux = elf_aux(ctx, sym);
    return aux->plt != ELF_NONE || aux->plt_got != ELF_NONE || aux->iplt != ELF_NONE;
}

/* Two entries of 0 end a list in .debug_loc and .debug_ranges (DWARF 4), so 1 stands there. */
uint64_t elf_tombstone(const struct elf_object *obj, const struct kld_atom *atom)
{
    struct kld_str name = elf_section_name(obj, atom->input_index);
    return kld_str_is(name, ".debug_loc") || kld_str_is(name, ".debug_ranges") ||
           kld_str_is(name, ".zdebug_loc") || kld_str_is(name, ".zdebug_ranges");
}
