/* elf_shared.c - shared libraries: dynamic symbols, their versions, DT_SONAME, DT_NEEDED and DT_AUDIT.
 *
 * Sources: gABI chapter 5 (dynamic linking), LSB core 10.7 (symbol versioning). */
#include "formats/elf/elf_object.h"

/* Reads the names of the version definitions: versions[vd_ndx]. */
static bool read_verdef(struct kld_session *ctx, struct kld_worker *worker, struct elf_shared *lib,
                        uint32_t shndx)
{
    const elf_shdr *sh = &lib->obj.shdrs[shndx];
    struct kld_file *file = &lib->obj.base;
    struct kld_bytes bytes, names;
    if (!elf_section_bytes(ctx, &lib->obj, shndx, &bytes) ||
        !elf_string_table(ctx, &lib->obj, sh->sh_link, &names))
        return false;
    uint32_t count = 2;
    for (int round = 0; round < 2; round++) {
        if (round) {
            lib->nversions = count;
            lib->versions = KLD_NEW_ARRAY(&worker->arena, struct kld_str, count);
            lib->need_index = KLD_NEW_ARRAY(&worker->arena, uint16_t, count);
        }
        /* Every entry must lie behind the one before, so that the chain ends. */
        for (uint64_t at = 0;;) {
            struct kld_bytes part;
            if (!kld_bytes_part(bytes, at, sizeof(Elf64_Verdef), &part)) {
                kld_bad_file(ctx, file, "section %u: version definition at 0x%llx is cut off",
                             shndx, (unsigned long long)at);
                return false;
            }
            const elf_verdef *vd = (const void *)part.ptr;
            uint32_t index = vd->vd_ndx & 0x7fff;
            count = KLD_MAX(count, index + 1);
            if (round && !(vd->vd_flags & VER_FLG_BASE)) {
                if (!kld_bytes_part(bytes, at + vd->vd_aux, sizeof(Elf64_Verdaux), &part) ||
                    !kld_bytes_string(names,
                                      ((const elf_verdaux *)(const void *)part.ptr)->vda_name,
                                      &lib->versions[index])) {
                    kld_bad_file(ctx, file, "section %u: version definition %u has no name", shndx,
                                 index);
                    return false;
                }
            }
            if (!vd->vd_next)
                break;
            at += vd->vd_next;
        }
    }
    return true;
}

static bool read_dynamic(struct kld_session *ctx, struct kld_worker *worker, struct elf_shared *lib,
                         uint32_t shndx)
{
    struct kld_bytes bytes, names;
    if (!elf_section_bytes(ctx, &lib->obj, shndx, &bytes) ||
        !elf_string_table(ctx, &lib->obj, lib->obj.shdrs[shndx].sh_link, &names))
        return false;
    const elf_dyn *dyn = (const void *)bytes.ptr;
    for (size_t i = 0; i < bytes.len / sizeof(*dyn) && dyn[i].d_tag != DT_NULL; i++) {
        struct kld_str text;
        if (dyn[i].d_tag != DT_SONAME && dyn[i].d_tag != DT_NEEDED && dyn[i].d_tag != DT_AUDIT)
            continue;
        if (!kld_bytes_string(names, dyn[i].d_un.d_val, &text)) {
            kld_bad_file(ctx, &lib->obj.base,
                         "section %u: dynamic entry %zu: name at 0x%llx lies "
                         "outside the string table",
                         shndx, i, (unsigned long long)dyn[i].d_un.d_val);
            return false;
        }
        if (dyn[i].d_tag == DT_SONAME)
            lib->soname = text.ptr;
        else if (dyn[i].d_tag == DT_AUDIT)
            lib->audit = text.ptr;
        else
            *kld_vec_push(&worker->arena, &lib->needed) = text.ptr;
    }
    return true;
}

uint8_t elf_shared_class(const struct elf_shared *lib, uint32_t i)
{
    const elf_sym *sym = &lib->obj.syms[i];
    unsigned bind = ELF64_ST_BIND(sym->st_info), vis = ELF64_ST_VISIBILITY(sym->st_other);
    if (bind == STB_LOCAL || vis == STV_HIDDEN || vis == STV_INTERNAL || i == 0)
        return KLD_NAME_IGNORED;
    if (sym->st_shndx == SHN_UNDEF)
        return bind == STB_WEAK ? KLD_NAME_UNDEF_WEAK : KLD_NAME_UNDEF;
    if (lib->versym && (lib->versym[i] & 0x7fff) == VER_NDX_LOCAL)
        return KLD_NAME_IGNORED;
    return bind == STB_WEAK ? KLD_NAME_DEF_WEAK : KLD_NAME_DEF;
}

bool elf_shared_is_hidden(const struct elf_shared *lib, uint32_t i)
{
    return lib->versym && (lib->versym[i] & 0x8000) && lib->obj.syms[i].st_shndx != SHN_UNDEF;
}

struct kld_str elf_shared_version(const struct elf_shared *lib, uint32_t i)
{
    struct kld_str version = elf_library_version(lib, lib->versym ? lib->versym[i] & 0x7fffu : 0);
    return version.ptr ? version : (struct kld_str){"", 0};
}

struct kld_str elf_shared_name_at(const struct elf_shared *lib, uint32_t k)
{
    if (lib->hidden_names && lib->hidden_names[k])
        return kld_str(lib->hidden_names[k]);
    return kld_str((const char *)lib->obj.strtab.ptr + lib->obj.syms[lib->numbers[k]].st_name);
}

/* Makes room for so many names. */
static void reserve(struct kld_arena *arena, struct elf_shared *lib, uint32_t cap)
{
    struct kld_file *file = &lib->obj.base;
    struct kld_file old = *file;
    const uint32_t *numbers = lib->numbers;
    const char **hidden = lib->hidden_names;
    file->ids = KLD_NEW_ARRAY(arena, kld_symid, cap);
    file->classes = KLD_NEW_ARRAY(arena, uint8_t, cap);
    lib->numbers = KLD_NEW_ARRAY(arena, uint32_t, cap);
    lib->names_cap = cap;
    if (hidden)
        lib->hidden_names = KLD_NEW_ARRAY(arena, const char *, cap);
    if (!old.nnames)
        return;
    memcpy(file->ids, old.ids, old.nnames * sizeof(*file->ids));
    memcpy(file->classes, old.classes, old.nnames);
    memcpy(lib->numbers, numbers, old.nnames * sizeof(*numbers));
    if (hidden)
        memcpy(lib->hidden_names, hidden, old.nnames * sizeof(*hidden));
}

/* A definition that is not of the default version is known as name@version only. (A third of libc's are such; printf
 * would take most of the time that it takes to list them.) */
static void name_hidden_version(struct kld_arena *arena, struct elf_shared *lib, uint32_t k)
{
    uint32_t i = lib->numbers[k];
    struct kld_str name = kld_str((const char *)lib->obj.strtab.ptr + lib->obj.syms[i].st_name),
                   version = elf_shared_version(lib, i);
    char *text = KLD_NEW_ARRAY(arena, char, name.len + 1 + version.len + 1);
    memcpy(text, name.ptr, name.len);
    text[name.len] = '@';
    memcpy(text + name.len + 1, version.ptr, version.len);
    if (!lib->hidden_names)
        lib->hidden_names = KLD_NEW_ARRAY(arena, const char *, lib->names_cap);
    lib->hidden_names[k] = text;
}

bool elf_shared_add(struct kld_session *ctx, struct kld_arena *arena, struct elf_shared *lib,
                    uint32_t i)
{
    struct elf_object *obj = &lib->obj;
    if (obj->syms[i].st_name >= obj->strtab.len) {
        kld_bad_file(ctx, &obj->base, "symbol %u: name at 0x%x lies outside the string table", i,
                     obj->syms[i].st_name);
        return false;
    }
    uint8_t class = elf_shared_class(lib, i);
    if (class == KLD_NAME_IGNORED)
        return true;
    uint32_t k = obj->base.nnames;
    if (k == lib->names_cap)
        reserve(arena, lib, KLD_MAX(2 * k, 16u));
    obj->base.nglobals = obj->base.nnames = k + 1;
    obj->base.classes[k] = class;
    obj->st_other |= obj->syms[i].st_other;
    lib->numbers[k] = i;
    if (elf_shared_is_hidden(lib, i))
        name_hidden_version(arena, lib, k);
    return true;
}

static bool read_dynsym(struct kld_session *ctx, struct elf_shared *lib, uint32_t shndx,
                        uint32_t versym)
{
    struct elf_object *obj = &lib->obj;
    const elf_shdr *sh = &obj->shdrs[shndx];
    struct kld_bytes bytes;
    if (!elf_section_bytes(ctx, obj, shndx, &bytes) ||
        !elf_string_table(ctx, obj, sh->sh_link, &obj->strtab))
        return false;
    if (sh->sh_entsize != sizeof(Elf64_Sym) || bytes.len / sizeof(Elf64_Sym) > UINT32_MAX / 2) {
        kld_bad_file(ctx, &obj->base, "section %u: symbol table entries are not 24 bytes", shndx);
        return false;
    }
    obj->syms = (const void *)bytes.ptr;
    obj->nsyms = (uint32_t)(bytes.len / sizeof(Elf64_Sym));
    if (versym) {
        if (!elf_section_bytes(ctx, obj, versym, &bytes))
            return false;
        if (bytes.len / 2 < obj->nsyms) {
            kld_bad_file(ctx, &obj->base, "section %u: versions for %zu of %u symbols", versym,
                         bytes.len / 2, obj->nsyms);
            return false;
        }
        lib->versym = (const void *)bytes.ptr;
    }
    return true;
}

/* Those that are not looked up when something mentions them (elf_lookup.c). */
static bool list_names(struct kld_session *ctx, struct kld_worker *worker, struct elf_shared *lib,
                       uint32_t gnu_hash)
{
    bool some = gnu_hash && elf_lookup_begin(ctx, worker, lib, gnu_hash);
    uint32_t end = some ? lib->hash.first : lib->obj.nsyms;
    reserve(&worker->arena, lib, end);
    for (uint32_t i = 0; i < end; i++)
        if (!elf_shared_add(ctx, &worker->arena, lib, i))
            return false;
    return true;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool parse(struct kld_session *ctx, struct kld_worker *worker, struct elf_shared *lib)
{
    struct elf_object *obj = &lib->obj;
    if (!elf_read_headers(ctx, obj))
        return false;
    uint32_t dynsym = 0, versym = 0, verdef = 0, dynamic = 0, gnu_hash = 0;
    for (uint32_t i = 1; i < obj->nshdrs; i++) {
        switch (obj->shdrs[i].sh_type) {
        case SHT_DYNSYM: dynsym = i; break;
        case SHT_GNU_versym: versym = i; break;
        case SHT_GNU_verdef: verdef = i; break;
        case SHT_DYNAMIC: dynamic = i; break;
        case SHT_GNU_HASH: gnu_hash = i; break;
        }
    }
    if (!dynamic) {
        kld_bad_file(ctx, &obj->base, "shared library without a dynamic section");
        return false;
    }
    if (!read_dynamic(ctx, worker, lib, dynamic))
        return false;
    if (verdef && !read_verdef(ctx, worker, lib, verdef))
        return false;
    return !dynsym ||
           (read_dynsym(ctx, lib, dynsym, versym) && list_names(ctx, worker, lib, gnu_hash));
}

void elf_parse_shared(struct kld_session *ctx, struct kld_worker *worker, struct elf_shared *lib)
{
    struct elf_object *obj = &lib->obj;
    lib->versions = NULL;
    if (!parse(ctx, worker, lib)) {
        obj->base.broken = true;
        obj->base.nnames = obj->base.nglobals = obj->base.unlisted = 0;
        obj->nsyms = 0;
    }
    /* As GNU ld: a library without a soname is recorded as it was named on the command line. */
    if (!lib->soname)
        lib->soname = obj->base.by_library_name ? base_name(obj->base.path) : obj->base.path;
}
