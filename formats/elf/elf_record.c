/* elf_record.c - what the state keeps of an ELF link, and how it is found again. */
#define XXH_INLINE_ALL
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_property.h"
#include "formats/elf/elf_update.h"
#include <xxhash.h>

enum { SPARE_AUX = 256 };

/* ---- all of the link ---- */

static struct elf_state_record *make_record(struct kld_session *ctx)
{
    const struct elf_link *elf = elf_state(ctx);
    struct elf_state_record *out = KLD_NEW(&ctx->arena, struct elf_state_record);
    for (int i = 0; i < ELF_SYNTH_COUNT; i++) {
        const struct kld_atom *atom = elf->synth[i];
        if (!atom)
            continue;
        out->synth[i].there = 1;
        out->synth[i].addr = atom->addr;
        out->synth[i].size = atom->size;
        out->synth[i].section = atom->section;
    }
    out->tls_start = elf->tls_start;
    out->tls_end = elf->tls_end;
    out->tls_align = elf->tls_align;
    out->image_base = elf->image_base;
    out->gp_addr = elf->gp_addr;
    out->got_slots = elf->got_slots;
    out->got_capacity = elf->got_capacity;
    out->tlsld = elf->tlsld;
    out->nplt = (uint32_t)elf->plt.len;
    out->niplt = (uint32_t)elf->iplt.len;
    out->nplt_got = (uint32_t)elf->plt_got.len;
    out->plt_got_capacity = elf->plt_got_capacity;
    out->plt_got_size = elf->plt_got_size;
    out->plt_header = elf->plt_header;
    out->got_plt_reserved = elf->got_plt_reserved;
    out->naux = (uint32_t)elf->aux.len;
    out->has_shared_inputs = elf->has_shared_inputs;
    out->is_dynamic = elf->is_dynamic;
    out->no_gotpcrelx = elf->no_gotpcrelx;
    out->static_tls = atomic_load(&elf->static_tls);
    out->needs_tlsld = atomic_load(&elf->needs_tlsld);
    out->needs_got_base = atomic_load(&elf->needs_got_base);
    out->textrel = atomic_load(&elf->textrel);
    out->has_assigns = ctx->assigns.len != 0;
    out->has_islands = ctx->islands && ctx->islands->used;
    return out;
}

void elf_record(struct kld_session *ctx, struct kld_state_builder *b)
{
    struct elf_link *elf = elf_state(ctx);
    kld_builder_table(b, KLD_T_FORMAT, make_record(ctx), 1, sizeof(struct elf_state_record));
    size_t used = elf->aux.len;
    for (int i = 0; i < SPARE_AUX; i++)
        elf_add_aux(ctx);
    kld_builder_table(b, KLD_T_AUX, elf->aux.data, used + SPARE_AUX, sizeof(struct elf_aux));
}

/* The linker's own atom, at the place that it had. */
static bool restore_atom(struct kld_session *ctx, struct kld_state *st, enum elf_synth which,
                         const struct elf_state_record *from, struct kld_section *const *sections)
{
    struct elf_link *elf = elf_state(ctx);
    uint64_t section = from->synth[which].section;
    const struct kld_section *s =
        section < kld_state_count(st, KLD_T_SECTIONS) ? sections[section] : NULL;
    if (!from->synth[which].there)
        return true;
    uint64_t addr = from->synth[which].addr, size = from->synth[which].size;
    if (!s || addr < s->addr || !kld_in_bounds(addr - s->addr, size, s->size)) {
        st->damaged = true;
        return false;
    }
    struct kld_atom *atom = elf->synth[which];
    if (!atom) {
        atom = elf->synth[which] = KLD_NEW(&ctx->arena, struct kld_atom);
        atom->file = ctx->internal;
        atom->flags = s->flags & KLD_ATOM_ALLOC;
        atom->kind = KLD_ATOM_GENERATED;
        atom->live = 1;
    }
    atom->addr = addr;
    atom->size = size;
    atom->section = s->id;
    return true;
}

bool elf_restore_link(struct kld_session *ctx, struct kld_state *st,
                      struct kld_section *const *sections)
{
    struct elf_link *elf = elf_state(ctx);
    const struct elf_state_record *from = kld_state_get(st, KLD_T_FORMAT, 0, 1);
    if (st->header->tables[KLD_T_FORMAT].stride != sizeof(*from) ||
        st->header->tables[KLD_T_AUX].stride != sizeof(struct elf_aux)) {
        st->damaged = true;
        return false;
    }
    for (int i = 0; i < ELF_SYNTH_COUNT; i++)
        if (!restore_atom(ctx, st, (enum elf_synth)i, from, sections))
            return false;
    elf->tls_start = from->tls_start;
    elf->tls_end = from->tls_end;
    elf->tls_align = from->tls_align;
    elf->image_base = from->image_base;
    elf->gp_addr = from->gp_addr;
    elf->got_slots = from->got_slots;
    elf->got_capacity = from->got_capacity;
    elf->tlsld = from->tlsld;
    elf->plt_got_capacity = from->plt_got_capacity;
    elf->plt_got_size = from->plt_got_size;
    elf->plt_header = from->plt_header;
    elf->got_plt_reserved = from->got_plt_reserved;
    elf->has_shared_inputs = from->has_shared_inputs;
    elf->is_dynamic = from->is_dynamic;
    elf->no_gotpcrelx = from->no_gotpcrelx;
    atomic_store(&elf->static_tls, from->static_tls);
    atomic_store(&elf->needs_tlsld, from->needs_tlsld);
    atomic_store(&elf->needs_got_base, from->needs_got_base);
    atomic_store(&elf->textrel, from->textrel);
    const struct elf_arch_ops *arch = elf->arch;
    if (from->nplt > kld_state_count(st, KLD_T_AUX) ||
        from->niplt > kld_state_count(st, KLD_T_AUX) || from->got_slots > from->got_capacity ||
        (from->plt_header && from->plt_header != arch->plt_header_size) ||
        (from->got_plt_reserved && from->got_plt_reserved != arch->got_plt_reserved) ||
        ((from->plt_got_capacity || from->plt_got_size) &&
         from->plt_got_size != arch->plt_got_entry_size &&
         from->plt_got_size != arch->plt_got_entry_size_ibt) ||
        from->nplt_got > from->plt_got_capacity ||
        (from->synth[ELF_GOT].there && 8ull * from->got_capacity > from->synth[ELF_GOT].size) ||
        (uint64_t)from->plt_got_capacity * from->plt_got_size > from->synth[ELF_PLT_GOT].size) {
        st->damaged = true;
        return false;
    }
    /* Addresses of entries behind those of .plt count from their number alone. */
    elf->plt.len = from->nplt;
    elf->iplt.len = from->niplt;
    elf->plt_got.data = KLD_NEW_ARRAY(&ctx->arena, struct kld_symbol *, from->plt_got_capacity);
    elf->plt_got.len = from->nplt_got;
    elf->plt_got.cap = from->plt_got_capacity;
    elf->got_addr = elf->synth[ELF_GOT] ? elf->synth[ELF_GOT]->addr : 0;
    elf->got_plt_addr = elf->synth[ELF_GOT_PLT] ? elf->synth[ELF_GOT_PLT]->addr : 0;
    elf->plt_addr = elf->synth[ELF_PLT] ? elf->synth[ELF_PLT]->addr : 0;
    elf->plt_got_addr = elf->synth[ELF_PLT_GOT] ? elf->synth[ELF_PLT_GOT]->addr : 0;
    elf->plt_sec_addr = elf->synth[ELF_PLT_SEC] ? elf->synth[ELF_PLT_SEC]->addr : 0;
    if (from->naux > kld_state_count(st, KLD_T_AUX))
        st->damaged = true;
    return !st->damaged;
}

bool elf_restore(struct kld_relink *r)
{
    if (!elf_restore_link(r->ctx, &r->st, r->ctx->sections.data))
        return false;
    const struct elf_state_record *from = kld_state_get(&r->st, KLD_T_FORMAT, 0, 1);
    if (from->has_islands)
        return kld_relink_refuse(r, KLD_WHY_UNSUPPORTED, "the program has islands for branches");
    return true;
}

/* ---- a file ---- */

static void hash_section(XXH3_state_t *to, const struct elf_object *obj, uint32_t section)
{
    struct kld_bytes bytes;
    if (section && section < obj->nshdrs &&
        kld_bytes_part(obj->base.bytes, obj->shdrs[section].sh_offset, obj->shdrs[section].sh_size,
                       &bytes))
        XXH3_64bits_update(to, bytes.ptr, bytes.len);
}

uint64_t elf_special_hash(const struct elf_object *obj)
{
    XXH3_state_t to;
    uint8_t flags[4] = {obj->has_gnu_stack, obj->execstack, obj->has_warnings,
                        obj->st_other & ~3u}; /* visibility is compared name by name */
    XXH3_64bits_reset(&to);
    XXH3_64bits_update(&to, flags, sizeof(flags));
    uint32_t e_flags = obj->ehdr ? obj->ehdr->e_flags : 0;
    XXH3_64bits_update(&to, &e_flags, sizeof(e_flags));
    hash_section(&to, obj, obj->property_section);
    hash_section(&to, obj, obj->attributes_section);
    return XXH3_64bits_digest(&to);
}

uint64_t elf_commons_hash(const struct elf_object *obj)
{
    uint64_t hash = 0;
    for (uint32_t i = obj->first_global; i < obj->nsyms && obj->has_common; i++) {
        const elf_sym *sym = &obj->syms[i];
        struct kld_str name;
        if (sym->st_shndx != SHN_COMMON || !kld_bytes_string(obj->strtab, sym->st_name, &name))
            continue;
        uint64_t parts[3] = {sym->st_size, sym->st_value, kld_name_hash(name)};
        hash += XXH3_64bits(parts, sizeof(parts)); /* their order does not matter */
    }
    return hash;
}

size_t elf_record_file(struct kld_session *ctx, const struct kld_file *file, uint8_t *out)
{
    const struct elf_object *obj = elf_object(file);
    uint32_t n = 0;
    for (uint32_t i = 0; i < obj->nlocals; i++)
        n += obj->locals[i]->aux != 0;
    if (out) {
        struct elf_file_state *to = (void *)out;
        to->special = elf_special_hash(obj);
        to->commons = elf_commons_hash(obj);
        elf_symtab_locals(ctx, file->index, &to->locals);
        to->nlocal_aux = n;
        for (uint32_t i = 0, k = 0; i < obj->nlocals; i++)
            if (obj->locals[i]->aux)
                to->local_aux[k++] = obj->locals[i]->aux;
    }
    return sizeof(struct elf_file_state) + 4 * n;
}

/* ---- shared libraries ---- */

/* Names, versions, kinds and sizes; addresses only where they show which names share a place, which
 * a copy relocation depends on. */
uint64_t elf_interface(struct kld_session *ctx, const struct kld_file *file)
{
    (void)ctx;
    if (!file || file->kind != KLD_FILE_SHARED)
        return 0;
    const struct elf_shared *lib = elf_shared(file);
    XXH3_state_t to;
    XXH3_64bits_reset(&to);
    XXH3_64bits_update(&to, lib->soname, strlen(lib->soname) + 1);
    for (size_t i = 0; i < lib->needed.len; i++)
        XXH3_64bits_update(&to, lib->needed.data[i], strlen(lib->needed.data[i]) + 1);
    for (uint32_t i = 0; i < lib->nversions; i++)
        if (lib->versions[i].len)
            XXH3_64bits_update(&to, lib->versions[i].ptr, lib->versions[i].len + 1);
    for (uint32_t i = 1; i < lib->obj.nsyms; i++) {
        const elf_sym *sym = &lib->obj.syms[i];
        unsigned type = ELF64_ST_TYPE(sym->st_info);
        bool object = type == STT_OBJECT || type == STT_TLS || type == STT_COMMON;
        struct {
            uint64_t size, place;
            uint16_t version;
            uint8_t info, other;
            uint32_t defined;
        } s = {object ? sym->st_size : 0,
               object ? sym->st_value : 0,
               lib->versym ? lib->versym[i] : 0,
               sym->st_info,
               sym->st_other,
               sym->st_shndx != SHN_UNDEF};
        XXH3_64bits_update(&to, &s, sizeof(s));
        struct kld_str name;
        if (kld_bytes_string(lib->obj.strtab, sym->st_name, &name))
            XXH3_64bits_update(&to, name.ptr, name.len + 1);
    }
    return XXH3_64bits_digest(&to);
}
