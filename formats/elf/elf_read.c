/* elf_read.c - relocatable objects: headers, symbols and COMDAT groups into the graph.
 *
 * Reading has two steps. elf_parse looks at headers, the symbol table and groups only, since
 * most of what an archive holds is never linked. elf_make_atoms runs when the groups have been
 * decided, so that sections of groups that lost cost nothing but their header.
 *
 * Sources: gABI chapters 4 and 5 (object files), the Linux extensions of the GNU ABI. */
#include "formats/elf/elf_arch.h"
#include "formats/elf/elf_compress.h"
#include "formats/elf/elf_ctors.h"
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_names.h"
#include "src/incremental/record.h"
#include "src/layout.h"
#include "src/resolve.h"

struct kld_file *elf_new_file(struct kld_session *ctx, struct kld_arena *arena,
                              enum kld_file_kind kind)
{
    (void)ctx;
    struct kld_file *file = kind == KLD_FILE_SHARED ? &KLD_NEW(arena, struct elf_shared)->obj.base
                                                    : &KLD_NEW(arena, struct elf_object)->base;
    file->kind = (uint8_t)kind;
    return file;
}

enum kld_probe elf_probe(struct kld_bytes bytes, const struct kld_arch_ops **arch, const char **why)
{
    if (bytes.len < 4 || memcmp(bytes.ptr, ELFMAG, 4) != 0)
        return KLD_PROBE_NONE;
    const elf_ehdr *eh = (const void *)bytes.ptr;
    if (bytes.len < sizeof(*eh)) {
        *why = "file is too short for an ELF header";
        return KLD_PROBE_UNSUPPORTED;
    }
    if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_ident[EI_DATA] != ELFDATA2LSB) {
        *why = "not a 64-bit little-endian ELF file";
        return KLD_PROBE_UNSUPPORTED;
    }
    for (size_t i = 0; kld_archs[i]; i++) {
        const struct elf_arch_ops *ops = kld_archs[i]->by_format[0];
        if (ops && ops->machine == eh->e_machine)
            *arch = kld_archs[i];
    }
    if (!*arch) {
        *why = "unsupported machine";
        return KLD_PROBE_UNSUPPORTED;
    }
    if (eh->e_type == ET_REL)
        return KLD_PROBE_OBJECT;
    if (eh->e_type == ET_DYN)
        return KLD_PROBE_SHARED;
    *why = "an ELF file that is neither a relocatable object nor a shared library";
    return eh->e_type == ET_EXEC ? KLD_PROBE_PROGRAM : KLD_PROBE_UNSUPPORTED;
}

struct kld_where elf_where(const struct kld_atom *atom, uint64_t offset)
{
    const struct elf_object *obj = elf_object(atom->file);
    return (struct kld_where){
        .file = atom->file,
        .section = obj->nshdrs ? elf_section_name(obj, atom->input_index).ptr : NULL,
        .offset = offset,
        .has_offset = true,
        .order = atom->input_index,
    };
}

/* ---- headers ---- */

bool elf_section_bytes(struct kld_session *ctx, const struct elf_object *obj, uint32_t i,
                       struct kld_bytes *out)
{
    const elf_shdr *sh = &obj->shdrs[i];
    if (sh->sh_type == SHT_NOBITS) {
        *out = (struct kld_bytes){0};
        return true;
    }
    if (kld_bytes_part(obj->base.bytes, sh->sh_offset, sh->sh_size, out))
        return true;
    kld_bad_file(ctx, &obj->base,
                 "section %u: offset 0x%llx with size 0x%llx reaches past the end of the file", i,
                 (unsigned long long)sh->sh_offset, (unsigned long long)sh->sh_size);
    return false;
}

bool elf_string_table(struct kld_session *ctx, const struct elf_object *obj, uint32_t i,
                      struct kld_bytes *out)
{
    if (i == 0 || i >= obj->nshdrs || obj->shdrs[i].sh_type != SHT_STRTAB) {
        kld_bad_file(ctx, &obj->base, "section %u is not a string table", i);
        return false;
    }
    if (!elf_section_bytes(ctx, obj, i, out))
        return false;
    if (!out->len || out->ptr[out->len - 1] != 0) {
        kld_bad_file(ctx, &obj->base, "section %u: string table is not null-terminated", i);
        return false;
    }
    return true;
}

bool elf_read_headers(struct kld_session *ctx, struct elf_object *obj)
{
    struct kld_bytes bytes = obj->base.bytes;
    const elf_ehdr *eh = obj->ehdr = (const void *)bytes.ptr;
    if (bytes.len < sizeof(*eh)) {
        kld_bad_file(ctx, &obj->base, "file is too short for an ELF header");
        return false;
    }
    if (!eh->e_shoff)
        return true;
    if (eh->e_shentsize != sizeof(Elf64_Shdr)) {
        kld_bad_file(ctx, &obj->base, "section headers of %u bytes, 64 expected", eh->e_shentsize);
        return false;
    }
    if (!kld_in_bounds(eh->e_shoff, sizeof(Elf64_Shdr), bytes.len)) {
        kld_bad_file(ctx, &obj->base, "section header table lies outside the file");
        return false;
    }
    obj->shdrs = (const void *)(bytes.ptr + eh->e_shoff);
    uint64_t n = eh->e_shnum ? eh->e_shnum : obj->shdrs[0].sh_size;
    if (n > (bytes.len - eh->e_shoff) / sizeof(Elf64_Shdr)) {
        kld_bad_file(ctx, &obj->base, "section header table lies outside the file (%llu entries)",
                     (unsigned long long)n);
        return false;
    }
    obj->nshdrs = (uint32_t)n;
    uint32_t names = eh->e_shstrndx == SHN_XINDEX ? obj->shdrs[0].sh_link : eh->e_shstrndx;
    return !n || elf_string_table(ctx, obj, names, &obj->shstrtab);
}

struct kld_str elf_section_name(const struct elf_object *obj, uint32_t i)
{
    return kld_str(elf_section_text(obj, i));
}

/* ---- symbols ---- */

static bool read_symtab(struct kld_session *ctx, struct elf_object *obj, uint32_t shndx)
{
    const elf_shdr *sh = &obj->shdrs[shndx];
    struct kld_bytes bytes;
    if (!elf_section_bytes(ctx, obj, shndx, &bytes) ||
        !elf_string_table(ctx, obj, sh->sh_link, &obj->strtab))
        return false;
    if (sh->sh_entsize != sizeof(Elf64_Sym) || bytes.len % sizeof(Elf64_Sym)) {
        kld_bad_file(ctx, &obj->base, "section %u: symbol table entries are not 24 bytes", shndx);
        return false;
    }
    if (bytes.len / sizeof(Elf64_Sym) > UINT32_MAX / 2) {
        kld_bad_file(ctx, &obj->base, "section %u: too many symbols", shndx);
        return false;
    }
    obj->syms = (const void *)bytes.ptr;
    obj->nsyms = (uint32_t)(bytes.len / sizeof(Elf64_Sym));
    obj->first_global = sh->sh_info;
    if (obj->first_global > obj->nsyms || (obj->nsyms && !obj->first_global)) {
        kld_bad_file(ctx, &obj->base,
                     "section %u: first global symbol %u out of range (table has %u)", shndx,
                     obj->first_global, obj->nsyms);
        return false;
    }
    obj->has_versions = memchr(obj->strtab.ptr, '@', obj->strtab.len);
    return true;
}

static bool read_xindex(struct kld_session *ctx, struct elf_object *obj, uint32_t shndx)
{
    struct kld_bytes bytes;
    if (!elf_section_bytes(ctx, obj, shndx, &bytes))
        return false;
    if (bytes.len / 4 < obj->nsyms) {
        kld_bad_file(ctx, &obj->base, "section %u: extended section indices for %zu of %u symbols",
                     shndx, bytes.len / 4, obj->nsyms);
        return false;
    }
    obj->xindex = (const void *)bytes.ptr;
    return true;
}

/* The class of a global symbol, or false (reported) if it is malformed. */
static bool classify(struct kld_session *ctx, struct elf_object *obj, uint32_t i, uint8_t *out)
{
    const elf_sym *sym = &obj->syms[i];
    unsigned bind = ELF64_ST_BIND(sym->st_info);
    uint32_t shndx = elf_sym_section(obj, i);
    uint8_t class;
    if (kld_unlikely(sym->st_name >= obj->strtab.len)) {
        kld_bad_file(ctx, &obj->base, "symbol %u: name at 0x%x lies outside the string table", i,
                     sym->st_name);
        return false;
    }
    if (kld_unlikely(bind != STB_GLOBAL && bind != STB_WEAK && bind != STB_GNU_UNIQUE)) {
        kld_bad_file(ctx, &obj->base, "symbol %u: binding %u among the global symbols", i, bind);
        return false;
    }
    bool weak = bind == STB_WEAK;
    if (shndx == SHN_UNDEF) {
        class = weak ? KLD_NAME_UNDEF_WEAK : KLD_NAME_UNDEF;
    } else if (shndx == ELF_RESERVED(SHN_COMMON)) {
        class = KLD_NAME_COMMON;
        obj->has_common = true;
    } else if (shndx < obj->nshdrs || shndx == ELF_RESERVED(SHN_ABS)) {
        class = weak ? KLD_NAME_DEF_WEAK : KLD_NAME_DEF;
    } else {
        kld_bad_file(ctx, &obj->base, "symbol %u: section index %u out of range (file has %u)", i,
                     shndx & 0xffff, obj->nshdrs);
        return false;
    }
    *out = (uint8_t)(class | ELF64_ST_VISIBILITY(sym->st_other) << 4);
    obj->st_other |= sym->st_other;
    return true;
}

/* Locals are used as they stand in the file, unchecked from here on. */
static bool check_locals(struct kld_session *ctx, const struct elf_object *obj)
{
    for (uint32_t i = 0; i < obj->first_global; i++) {
        const elf_sym *sym = &obj->syms[i];
        uint32_t shndx = elf_sym_section(obj, i);
        if (kld_unlikely(sym->st_name >= obj->strtab.len)) {
            kld_bad_file(ctx, &obj->base, "symbol %u: name at 0x%x lies outside the string table",
                         i, sym->st_name);
            return false;
        }
        if (kld_unlikely(shndx >= obj->nshdrs && shndx != ELF_RESERVED(SHN_ABS) &&
                         shndx != ELF_RESERVED(SHN_COMMON))) {
            kld_bad_file(ctx, &obj->base, "symbol %u: section index %u out of range (file has %u)",
                         i, shndx & 0xffff, obj->nshdrs);
            return false;
        }
    }
    return true;
}

/* ---- groups ---- */

struct group_list {
    KLD_VEC(struct kld_group) v;
};

static void add_group(struct kld_worker *worker, struct elf_object *obj, struct group_list *groups,
                      uint32_t shndx, struct kld_str name)
{
    uint32_t number = obj->base.nglobals + (uint32_t)obj->group_names.len;
    *kld_vec_push(&worker->arena, &obj->group_names) = name;
    *kld_vec_push(&worker->arena, &groups->v) =
        (struct kld_group){.name = number, .input_index = shndx};
}

static bool read_group(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                       struct group_list *groups, uint32_t shndx)
{
    const elf_shdr *sh = &obj->shdrs[shndx];
    struct kld_bytes bytes;
    if (!elf_section_bytes(ctx, obj, shndx, &bytes))
        return false;
    if (bytes.len < 4 || bytes.len % 4) {
        kld_bad_file(ctx, &obj->base, "section %u: group of %zu bytes", shndx, bytes.len);
        return false;
    }
    if (!(kld_get32(bytes.ptr) & GRP_COMDAT)) {
        obj->has_links = true;
        return true;
    }
    uint32_t sig = sh->sh_info;
    if (sig >= obj->nsyms || sh->sh_link >= obj->nshdrs ||
        obj->shdrs[sh->sh_link].sh_type != SHT_SYMTAB) {
        kld_bad_file(ctx, &obj->base,
                     "section %u: signature: symbol index %u out of range (table has %u)", shndx,
                     sig, obj->nsyms);
        return false;
    }
    if (sig >= obj->first_global) {
        *kld_vec_push(&worker->arena, &groups->v) =
            (struct kld_group){.name = sig - obj->first_global, .input_index = shndx};
        return true;
    }
    const elf_sym *sym = &obj->syms[sig];
    struct kld_str name = ELF64_ST_TYPE(sym->st_info) == STT_SECTION
                              ? elf_section_name(obj, elf_sym_section(obj, sig))
                              : kld_str((const char *)obj->strtab.ptr + sym->st_name);
    add_group(worker, obj, groups, shndx, name);
    return true;
}

static bool read_groups(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj)
{
    struct group_list groups = {0};
    const char linkonce[] = ".gnu.linkonce.";
    for (uint32_t i = 1; i < obj->nshdrs; i++) {
        obj->has_links |= (obj->shdrs[i].sh_flags & SHF_LINK_ORDER) != 0;
        if (obj->shdrs[i].sh_type == SHT_GROUP) {
            if (!read_group(ctx, worker, obj, &groups, i))
                return false;
        } else if (obj->shdrs[i].sh_type == SHT_PROGBITS && !(obj->shdrs[i].sh_flags & SHF_GROUP)) {
            const char *name = elf_section_text(obj, i); /* not read to its end, in most cases */
            if (kld_unlikely(strncmp(name, linkonce, sizeof(linkonce) - 1) == 0 &&
                             name[sizeof(linkonce) - 1]))
                add_group(worker, obj, &groups, i, kld_str(name));
        }
    }
    obj->base.groups = groups.v.data;
    obj->base.ngroups = (uint32_t)groups.v.len;
    return true;
}

/* ---- versions ---- */

static bool same_place(const struct elf_object *obj, uint32_t a, uint32_t b)
{
    return elf_sym_section(obj, a) == elf_sym_section(obj, b) &&
           obj->syms[a].st_value == obj->syms[b].st_value;
}

/* `.symver foo, foo@@V` leaves both names in the object. They are one definition, not two: the
 * plain one only refers to the other. */
static void join_versioned(struct elf_object *obj)
{
    const char *names = (const char *)obj->strtab.ptr;
    for (uint32_t i = 0; i < obj->base.nglobals; i++) {
        const char *name = names + obj->syms[obj->first_global + i].st_name;
        const char *at = strstr(name, "@@");
        if (!at || KLD_NAME_CLASS(obj->base.classes[i]) == KLD_NAME_UNDEF)
            continue;
        size_t len = (size_t)(at - name);
        for (uint32_t k = 0; k < obj->base.nglobals; k++) {
            const char *plain = names + obj->syms[obj->first_global + k].st_name;
            if (same_place(obj, obj->first_global + i, obj->first_global + k) &&
                strncmp(plain, name, len) == 0 && !plain[len])
                obj->base.classes[k] = (uint8_t)((obj->base.classes[k] & ~7) | KLD_NAME_UNDEF);
        }
    }
}

/* ---- parse ---- */

static bool parse_object(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj)
{
    if (!elf_read_headers(ctx, obj))
        return false;
    uint32_t symtab = 0, xindex = 0;
    for (uint32_t i = 1; i < obj->nshdrs; i++) {
        uint32_t type = obj->shdrs[i].sh_type;
        if (obj->shdrs[i].sh_name >= obj->shstrtab.len) {
            kld_bad_file(ctx, &obj->base, "section %u: name at 0x%x lies outside the string table",
                         i, obj->shdrs[i].sh_name);
            return false;
        }
        if (type == SHT_SYMTAB) {
            if (symtab) {
                kld_bad_file(ctx, &obj->base, "section %u: a second symbol table", i);
                return false;
            }
            symtab = i;
        } else if (type == SHT_SYMTAB_SHNDX) {
            xindex = i;
        }
    }
    if (symtab && !read_symtab(ctx, obj, symtab))
        return false;
    if (xindex && !read_xindex(ctx, obj, xindex))
        return false;
    if (!check_locals(ctx, obj))
        return false;
    struct kld_file *file = &obj->base;
    file->nglobals = obj->nsyms - obj->first_global;
    if (!read_groups(ctx, worker, obj))
        return false;
    file->nnames = file->nglobals + (uint32_t)obj->group_names.len;
    file->ids = KLD_NEW_ARRAY(&worker->arena, kld_symid, file->nnames);
    file->classes = KLD_NEW_ARRAY(&worker->arena, uint8_t, file->nnames);
    for (uint32_t i = 0; i < file->nglobals; i++)
        if (!classify(ctx, obj, obj->first_global + i, &file->classes[i]))
            return false;
    for (uint32_t i = file->nglobals; i < file->nnames; i++)
        file->classes[i] = KLD_NAME_GROUP;
    if (obj->has_versions)
        join_versioned(obj);
    return true;
}

static void set_broken(struct elf_object *obj)
{
    obj->base.broken = true;
    obj->base.nnames = obj->base.nglobals = obj->base.ngroups = 0;
    obj->nshdrs = obj->nsyms = obj->first_global = 0;
}

/* The internal file has the names that options and scripts mention, and no contents. */
static void parse_internal(struct kld_session *ctx, struct kld_worker *worker,
                           struct elf_object *obj)
{
    struct kld_file *file = &obj->base;
    file->nnames = file->nglobals = (uint32_t)ctx->builtins.len;
    file->ids = KLD_NEW_ARRAY(&worker->arena, kld_symid, file->nnames);
    file->classes = KLD_NEW_ARRAY(&worker->arena, uint8_t, file->nnames);
    for (uint32_t i = 0; i < file->nnames; i++) {
        *kld_vec_push(&worker->arena, &obj->group_names) = ctx->builtins.data[i].name;
        file->classes[i] = ctx->builtins.data[i].class;
    }
}

void elf_parse(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file)
{
    file->parsed = true;
    if (file->kind == KLD_FILE_INTERNAL)
        parse_internal(ctx, worker, elf_object(file));
    else if (file->kind == KLD_FILE_SHARED)
        elf_parse_shared(ctx, worker, elf_shared(file));
    else if (!parse_object(ctx, worker, elf_object(file)))
        set_broken(elf_object(file));
}

struct kld_str elf_name_at(const struct kld_file *file, uint32_t i)
{
    const struct elf_object *obj = elf_object(file);
    if (file->kind == KLD_FILE_INTERNAL || i >= file->nglobals)
        return obj->group_names.data[i - (file->kind == KLD_FILE_INTERNAL ? 0 : file->nglobals)];
    if (file->kind == KLD_FILE_SHARED)
        return elf_shared_name_at((const struct elf_shared *)obj, i);
    struct kld_str name =
        kld_str((const char *)obj->strtab.ptr + obj->syms[obj->first_global + i].st_name);
    if (kld_unlikely(obj->has_versions)) {
        /* foo@@V defines foo, by default in version V; foo@V is a name of its own. */
        const char *at = memchr(name.ptr, '@', name.len);
        if (at && at[1] == '@' && KLD_NAME_CLASS(file->classes[i]) != KLD_NAME_UNDEF)
            name.len = (size_t)(at - name.ptr);
    }
    return name;
}

/* ---- atoms ---- */

/* So many sections before the name of one is looked at, it is asked for: 1% of clang's CPU time. */
enum { NAMES_AHEAD = 8 };

static void discard_group(struct kld_session *ctx, struct elf_object *obj, uint32_t shndx)
{
    if (obj->shdrs[shndx].sh_type != SHT_GROUP) { /* .gnu.linkonce */
        obj->atom_of[shndx] = ELF_DISCARDED;
        return;
    }
    struct kld_bytes bytes;
    if (!elf_section_bytes(ctx, obj, shndx, &bytes))
        return;
    for (size_t at = 4; at + 4 <= bytes.len; at += 4) {
        uint32_t member = kld_get32(bytes.ptr + at);
        if (member == 0 || member >= obj->nshdrs) {
            kld_bad_file(ctx, &obj->base,
                         "section %u: group member %u out of range (file has %u sections)", shndx,
                         member, obj->nshdrs);
            return;
        }
        obj->atom_of[member] = ELF_DISCARDED;
    }
}

static uint8_t atom_flags(const elf_shdr *sh)
{
    return (uint8_t)((sh->sh_flags & SHF_ALLOC ? KLD_ATOM_ALLOC : 0) |
                     (sh->sh_flags & SHF_WRITE ? KLD_ATOM_WRITE : 0) |
                     (sh->sh_flags & SHF_EXECINSTR ? KLD_ATOM_EXEC : 0) |
                     (sh->sh_flags & SHF_TLS ? KLD_ATOM_TLS : 0) |
                     (sh->sh_flags & SHF_GNU_RETAIN ? KLD_ATOM_RETAIN : 0) |
                     (sh->sh_type == SHT_NOBITS ? KLD_ATOM_ZERO : 0));
}

/* GCC's header of its bytecode, in .gnu.lto_.lto.HASH: two 16-bit versions, then a byte that says
 * whether the object has no machine code beside it (gcc/lto-section-names.h, struct lto_section). */
static bool is_only_gimple(const struct elf_object *obj, const elf_shdr *sh, struct kld_str name)
{
    enum { SLIM = 4 };
    struct kld_bytes bytes;
    return kld_str_starts(name, ".gnu.lto_.lto.") && sh->sh_type != SHT_NOBITS &&
           kld_bytes_part(obj->base.bytes, sh->sh_offset, sh->sh_size, &bytes) &&
           bytes.len > SLIM && bytes.ptr[SLIM];
}

/* Sections that say something to the linker and are not copied. True if it was one. */
static bool take_special(struct kld_session *ctx, struct elf_object *obj, uint32_t i)
{
    const elf_shdr *sh = &obj->shdrs[i];
    if (sh->sh_flags & SHF_ALLOC) {
        if (sh->sh_type != SHT_NOTE || strcmp(elf_section_text(obj, i), ".note.gnu.property") != 0)
            return false;
        obj->property_section = i;
        return true;
    }
    struct kld_str name = elf_section_name(obj, i);
    if (kld_str_is(name, ".note.GNU-stack")) {
        obj->has_gnu_stack = true;
        obj->execstack = sh->sh_flags & SHF_EXECINSTR;
        return true;
    }
    if (sh->sh_type == SHT_LLVM_ADDRSIG) {
        /* Tools that do not know it clear sh_link, and have renumbered the symbols. */
        if (sh->sh_link)
            obj->addrsig_section = i;
        return true;
    }
    const struct elf_attributes *attributes = elf_state(ctx)->arch->attributes;
    if (attributes && sh->sh_type == attributes->type) {
        obj->attributes_section = i;
        return true;
    }
    if (kld_str_starts(name, ".gnu.lto_")) {
        if (is_only_gimple(obj, sh, name))
            kld_error(ctx, "lto", &(struct kld_where){.file = &obj->base},
                      "GIMPLE bytecode: link-time optimisation is not supported; compile without "
                      "-flto or with -ffat-lto-objects");
        return true;
    }
    if (ctx->options.strip != KLD_STRIP_NONE && elf_is_debug_name(name))
        return true;
    if (kld_str_starts(name, ".gnu.warning.")) {
        obj->has_warnings = true;
        return true;
    }
    return false;
}

static bool has_atom(struct kld_session *ctx, struct elf_object *obj, uint32_t i)
{
    const elf_shdr *sh = &obj->shdrs[i];
    switch (sh->sh_type) {
    case SHT_NULL:
    case SHT_SYMTAB:
    case SHT_STRTAB:
    case SHT_RELA:
    case SHT_GROUP:
    case SHT_SYMTAB_SHNDX: return false;
    case SHT_REL:
        if (sh->sh_size)
            kld_bad_file(ctx, &obj->base, "section %u: relocations without addends (SHT_REL)", i);
        return false;
    case SHT_CREL:
        kld_bad_file(ctx, &obj->base, "section %u: CREL relocations are not supported yet", i);
        return false;
    }
    if (take_special(ctx, obj, i))
        return false;
    return !(sh->sh_flags & SHF_EXCLUDE) || elf_state(ctx)->is_relocatable;
}

static void fill_atom(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                      uint32_t i, struct kld_atom *atom)
{
    const elf_shdr *sh = &obj->shdrs[i];
    struct kld_bytes bytes;
    uint64_t align = sh->sh_addralign;
    atom->file = &obj->base;
    atom->input_index = i;
    atom->flags = atom_flags(sh);
    atom->live = 1;
    if (!elf_section_bytes(ctx, obj, i, &bytes))
        return;
    if (elf_is_compressed(obj, i, bytes)) {
        if (!elf_decompress(ctx, worker, obj, i, bytes, &bytes, &align))
            return;
        atom->size = bytes.len;
    } else {
        atom->size = sh->sh_size;
    }
    if (align > 1 && (!kld_is_pow2(align) || align > ELF_LARGEST_ALIGN)) {
        kld_bad_file(ctx, &obj->base, "section %u: alignment 0x%llx is not a power of two%s", i,
                     (unsigned long long)align, kld_is_pow2(align) ? " up to 4 GiB" : "");
        align = 1;
    }
    atom->data = sh->sh_type == SHT_NOBITS ? NULL : bytes.ptr;
    atom->p2align = (uint8_t)(align > 1 ? kld_log2(align) : 0);
    if (!(atom->flags & KLD_ATOM_ALLOC) && elf_is_debug_name(elf_section_name(obj, i)))
        atom->flags |= KLD_ATOM_DEBUG;
    if ((sh->sh_flags & SHF_MERGE) && sh->sh_entsize && sh->sh_size &&
        !(sh->sh_flags & SHF_WRITE) && sh->sh_entsize <= UINT32_MAX && atom->data &&
        !elf_state(ctx)->is_relocatable) {
        atom->kind = KLD_ATOM_PIECES;
        atom->pieces = KLD_NEW(&worker->arena, struct kld_pieces);
        atom->pieces->entsize = (uint32_t)sh->sh_entsize;
        atom->pieces->strings = sh->sh_flags & SHF_STRINGS;
    }
    elf_set_output_section(ctx, worker, atom);
}

/* Attaches the relocations of section i to the atom they are for. */
static void attach_relocs(struct kld_session *ctx, struct elf_object *obj, uint32_t i)
{
    const elf_shdr *sh = &obj->shdrs[i];
    struct kld_bytes bytes;
    if (sh->sh_info == 0 || sh->sh_info >= obj->nshdrs) {
        kld_bad_file(ctx, &obj->base, "section %u: relocations for section %u (file has %u)", i,
                     sh->sh_info, obj->nshdrs);
        return;
    }
    struct kld_atom *atom = elf_section_atom(obj, sh->sh_info);
    if (!atom)
        return;
    if (sh->sh_link >= obj->nshdrs || obj->shdrs[sh->sh_link].sh_type != SHT_SYMTAB) {
        kld_bad_file(ctx, &obj->base,
                     "section %u: relocations against section %u, which is not the symbol table", i,
                     sh->sh_link);
        return;
    }
    if (!elf_section_bytes(ctx, obj, i, &bytes))
        return;
    if (sh->sh_entsize != sizeof(Elf64_Rela) || bytes.len % sizeof(Elf64_Rela) ||
        bytes.len / sizeof(Elf64_Rela) > UINT32_MAX >> 4) {
        kld_bad_file(ctx, &obj->base, "section %u: relocation entries are not 24 bytes", i);
        return;
    }
    if (atom->nedges) {
        kld_bad_file(ctx, &obj->base, "section %u: a second relocation table for section %u", i,
                     sh->sh_info);
        return;
    }
    if (atom->kind == KLD_ATOM_PIECES) {
        atom->kind = KLD_ATOM_BYTES; /* what differs by relocation cannot be merged by content */
        atom->extra = NULL;
    }
    if (atom->flags & KLD_ATOM_ZERO) {
        if (bytes.len)
            kld_bad_file(ctx, &obj->base, "section %u: relocations for a section without contents",
                         i);
        return;
    }
    atom->edges = bytes.ptr;
    atom->nedges = (uint32_t)(bytes.len / sizeof(Elf64_Rela));
}

static bool is_unwind(const struct elf_object *obj, uint32_t i)
{
    const elf_shdr *sh = &obj->shdrs[i];
    return (sh->sh_flags & SHF_ALLOC) &&
           (sh->sh_type == SHT_PROGBITS || sh->sh_type == SHT_X86_64_UNWIND) &&
           strcmp(elf_section_text(obj, i), ".eh_frame") == 0;
}

/* Definitions in sections that are gone become references to the definition that stays. */
static void forget_discarded(struct elf_object *obj)
{
    for (uint32_t i = 0; i < obj->base.nglobals; i++) {
        uint8_t c = obj->base.classes[i];
        if (KLD_NAME_CLASS(c) != KLD_NAME_DEF && KLD_NAME_CLASS(c) != KLD_NAME_DEF_WEAK)
            continue;
        uint32_t shndx = elf_sym_section(obj, obj->first_global + i);
        if (shndx < obj->nshdrs && obj->atom_of[shndx] == ELF_DISCARDED)
            obj->base.classes[i] = (uint8_t)((c & ~7) | KLD_NAME_UNDEF);
    }
}

void elf_make_atoms(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file)
{
    struct elf_object *obj = elf_object(file);
    if (file->kind != KLD_FILE_OBJECT || file->broken)
        return;
    obj->atom_of = KLD_NEW_ARRAY(&worker->arena, uint32_t, obj->nshdrs);
    bool discarded = false;
    for (uint32_t g = 0; g < file->ngroups; g++) {
        if (file->groups[g].discarded) {
            discard_group(ctx, obj, file->groups[g].input_index);
            discarded = true;
        }
    }
    if (file->just_symbols)
        return;
    uint32_t n = 0;
    for (uint32_t i = 1; i < obj->nshdrs; i++)
        if (obj->atom_of[i] != ELF_DISCARDED && has_atom(ctx, obj, i))
            obj->atom_of[i] = ++n;
    file->atoms = KLD_NEW_ARRAY(&worker->arena, struct kld_atom, n);
    file->natoms = n;
    if (ctx->slack)
        file->keys = KLD_NEW_ARRAY(&worker->arena, uint32_t, n);
    uint64_t size = 0;
    for (uint32_t i = 1; i < obj->nshdrs; i++) {
        struct kld_atom *atom = elf_section_atom(obj, i);
        if (i + NAMES_AHEAD < obj->nshdrs)
            __builtin_prefetch(elf_section_text(obj, i + NAMES_AHEAD));
        if (!atom)
            continue;
        fill_atom(ctx, worker, obj, i, atom);
        if (file->keys)
            file->keys[atom - file->atoms] = kld_record_name(elf_section_name(obj, i));
        if (atom->flags & KLD_ATOM_ALLOC)
            size += atom->size;
    }
    atomic_fetch_add_explicit(&elf_state(ctx)->memory_size, size, memory_order_relaxed);
    for (uint32_t i = 1; i < obj->nshdrs; i++)
        if (obj->shdrs[i].sh_type == SHT_RELA && obj->atom_of[i] != ELF_DISCARDED)
            attach_relocs(ctx, obj, i);
    for (uint32_t i = 0; i < n && !elf_state(ctx)->is_relocatable; i++) {
        struct kld_atom *atom = &file->atoms[i];
        if (is_unwind(obj, atom->input_index))
            elf_eh_parse(ctx, worker, obj, atom);
        else if (elf_is_ctors(obj, elf_section_text(obj, atom->input_index)))
            elf_reverse_ctors(ctx, worker, atom);
    }
    if (discarded)
        forget_discarded(obj);
}

/* ---- binding ---- */

uint8_t elf_symbol_type(unsigned type)
{
    switch (type) {
    case STT_OBJECT:
    case STT_COMMON: return KLD_TYPE_OBJECT;
    case STT_FUNC: return KLD_TYPE_FUNCTION;
    case STT_TLS: return KLD_TYPE_TLS;
    case STT_GNU_IFUNC: return KLD_TYPE_IFUNC;
    case STT_SECTION: return KLD_TYPE_SECTION;
    case STT_FILE: return KLD_TYPE_FILE;
    default: return KLD_TYPE_NONE;
    }
}

static void bind_object_symbol(const struct elf_object *obj, uint32_t i, struct kld_symbol *out)
{
    const elf_sym *sym = &obj->syms[i];
    uint32_t shndx = elf_sym_section(obj, i);
    out->type = elf_symbol_type(ELF64_ST_TYPE(sym->st_info));
    out->size = sym->st_size;
    out->value = sym->st_value;
    out->weak = ELF64_ST_BIND(sym->st_info) == STB_WEAK;
    out->unique = ELF64_ST_BIND(sym->st_info) == STB_GNU_UNIQUE;
    if (shndx == ELF_RESERVED(SHN_COMMON)) {
        out->kind = KLD_SYM_COMMON;
        return;
    }
    out->kind = KLD_SYM_ABSOLUTE;
    if (shndx < obj->nshdrs && (out->atom = elf_section_atom(obj, shndx)))
        out->kind = KLD_SYM_DEFINED;
}

static void bind_shared_symbol(struct elf_shared *lib, uint32_t i, struct kld_symbol *out)
{
    const elf_sym *sym = &lib->obj.syms[i];
    out->kind = KLD_SYM_IMPORTED;
    out->type = elf_symbol_type(ELF64_ST_TYPE(sym->st_info));
    if (out->type == KLD_TYPE_IFUNC)
        out->type = KLD_TYPE_FUNCTION; /* resolved by the loader: an ordinary function to us */
    out->size = sym->st_size;
    out->value = sym->st_value;
    out->weak = ELF64_ST_BIND(sym->st_info) == STB_WEAK;
    out->version = lib->versym ? lib->versym[i] & 0x7fff : 0;
}

/* Of a file's global name, in its symbol table. */
static uint32_t symbol_number(const struct kld_file *file, uint32_t i)
{
    if (file->kind == KLD_FILE_SHARED)
        return elf_shared(file)->numbers[i];
    return elf_object(file)->first_global + i;
}

/* How a function is to be called is said by definitions and by references. */
static void bind_variants(struct kld_session *ctx, const struct elf_object *obj)
{
    uint8_t bit = elf_state(ctx)->arch->st_other_variant;
    if (kld_likely(!(obj->st_other & bit)))
        return;
    for (uint32_t i = 0; i < obj->base.nglobals; i++)
        if (KLD_NAME_CLASS(obj->base.classes[i]) != KLD_NAME_IGNORED &&
            (obj->syms[symbol_number(&obj->base, i)].st_other & bit))
            atomic_fetch_or_explicit(&ctx->symbols[obj->base.ids[i]].other, bit,
                                     memory_order_relaxed);
}

void elf_bind(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file)
{
    (void)worker;
    for (uint32_t i = 0; i < file->nglobals; i++) {
        kld_ask_for_definition(ctx, file, i + KLD_ASK_AHEAD);
        if (!kld_resolve_won(ctx, file, i))
            continue;
        struct kld_symbol *sym = &ctx->symbols[file->ids[i]];
        file->classes[i] |= KLD_NAME_WON;
        sym->file = file;
        sym->index = symbol_number(file, i);
        if (file->kind == KLD_FILE_INTERNAL)
            sym->kind = KLD_SYM_ABSOLUTE; /* until kld_assign_bind */
        else if (file->kind == KLD_FILE_SHARED)
            bind_shared_symbol(elf_shared(file), sym->index, sym);
        else
            bind_object_symbol(elf_object(file), sym->index, sym);
    }
    if (file->kind != KLD_FILE_INTERNAL)
        bind_variants(ctx, elf_object(file));
}

const struct kld_atom *elf_definition(const struct kld_file *file, uint32_t i, uint64_t *offset)
{
    const struct elf_object *obj = elf_object(file);
    uint32_t n = obj->first_global + i;
    *offset = obj->syms[n].st_value;
    return elf_section_atom(obj, elf_sym_section(obj, n));
}

bool elf_is_absolute(const struct kld_file *file, uint32_t i, uint64_t *value)
{
    const struct elf_object *obj = elf_object(file);
    uint32_t n = obj->first_global + i;
    *value = obj->syms[n].st_value;
    return elf_sym_section(obj, n) == ELF_RESERVED(SHN_ABS);
}

/* ---- symbols of local names that need slots ---- */

struct kld_symbol *elf_local_symbol(const struct elf_object *obj, uint32_t i)
{
    uint32_t lo = 0, hi = obj->nlocals;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (obj->local_index[mid] < i)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < obj->nlocals && obj->local_index[lo] == i ? obj->locals[lo] : NULL;
}

static void grow_locals(struct kld_worker *worker, struct elf_object *obj)
{
    uint32_t cap = obj->locals_cap ? obj->locals_cap * 2 : 8;
    struct kld_symbol **locals = KLD_NEW_ARRAY(&worker->arena, struct kld_symbol *, cap);
    uint32_t *index = KLD_NEW_ARRAY(&worker->arena, uint32_t, cap);
    if (obj->nlocals) {
        memcpy(locals, obj->locals, obj->nlocals * sizeof(*locals));
        memcpy(index, obj->local_index, obj->nlocals * sizeof(*index));
    }
    obj->locals = locals;
    obj->local_index = index;
    obj->locals_cap = cap;
}

struct kld_symbol *elf_make_local_symbol(struct kld_session *ctx, struct kld_worker *worker,
                                         struct elf_object *obj, uint32_t i)
{
    (void)ctx;
    struct kld_symbol *sym = elf_local_symbol(obj, i);
    if (sym)
        return sym;
    if (obj->nlocals == obj->locals_cap)
        grow_locals(worker, obj);
    sym = KLD_NEW(&worker->arena, struct kld_symbol);
    struct kld_str name = kld_str((const char *)obj->strtab.ptr + obj->syms[i].st_name);
    sym->name = name.ptr;
    sym->name_len = (uint32_t)name.len;
    sym->file = &obj->base;
    sym->index = i;
    sym->forced_local = true;
    bind_object_symbol(obj, i, sym);
    uint32_t at = obj->nlocals++;
    for (; at > 0 && obj->local_index[at - 1] > i; at--) {
        obj->local_index[at] = obj->local_index[at - 1];
        obj->locals[at] = obj->locals[at - 1];
    }
    obj->local_index[at] = i;
    obj->locals[at] = sym;
    return sym;
}
