#include "formats/elf/elf_local.h"

bool elf_local(const struct kld_file *file, uint32_t i, struct kld_local *out)
{
    const struct elf_object *obj = elf_object(file);
    if (file->kind != KLD_FILE_OBJECT || i >= obj->first_global)
        return false;
    const elf_sym *sym = &obj->syms[i];
    uint32_t shndx = elf_sym_section(obj, i);
    *out = (struct kld_local){
        .atom = shndx ? elf_section_atom(obj, shndx) : NULL,
        .value = sym->st_value,
        .size = sym->st_size,
        .type = elf_symbol_type(ELF64_ST_TYPE(sym->st_info)),
    };
    kld_bytes_string(obj->strtab, sym->st_name, &out->name);
    return true;
}
