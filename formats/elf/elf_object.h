/* elf_object.h - a relocatable ELF object or shared library as the graph knows it. */
#ifndef KLD_ELF_OBJECT_H
#define KLD_ELF_OBJECT_H

#include "formats/elf/elf.h"
#include "src/merge.h"
#include "src/session.h"

struct elf_eh;
struct elf_gc_links;
struct elf_properties;
struct elf_shrunk;

/* atom_of[] of sections that have no atom. Discarded: member of a COMDAT group that lost. */
#define ELF_NO_ATOM   0u
#define ELF_DISCARDED UINT32_MAX

/* Largest alignment of a section or a common symbol. */
#define ELF_LARGEST_ALIGN (1ull << 32)

/* Dynamic relocations that a run of an atom's input relocations need. Runs of more than one are of kind
 * ELF_DYNREL_RELATIVE: tables of pointers, such as vtables, are most of them. */
struct elf_dynrel {
    uint32_t atom;      /* index into base.atoms */
    uint32_t edge : 28; /* the first one */
    uint32_t kind : 4;  /* enum elf_dynrel_kind */
    uint32_t count;
};
typedef KLD_VEC(struct elf_dynrel) elf_dynrel_runs;

struct elf_object {
    struct kld_file base;
    const elf_ehdr *ehdr;
    const elf_shdr *shdrs;
    uint32_t nshdrs;
    struct kld_bytes shstrtab;
    const elf_sym *syms;
    uint32_t nsyms;
    uint32_t first_global; /* base.ids[i] is symbol first_global + i, of objects */
    struct kld_bytes strtab;
    const elf_word *xindex; /* SHT_SYMTAB_SHNDX, or NULL */
    uint32_t *atom_of;      /* [nshdrs] 1 + index into base.atoms, or ELF_NO_ATOM/ELF_DISCARDED */
    /* Symbols of local names that need a GOT, PLT or TLS entry: local_syms[i] belongs to
     * local_index[i], sorted by index; built while scanning (one thread a file). */
    struct kld_symbol **locals;
    uint32_t *local_index;
    uint32_t nlocals, locals_cap;
    /* [first_global] enum elf_class of local symbols, while scan is at this file */
    const uint8_t *local_classes;
    bool has_versions; /* some name holds an '@' */
    bool execstack;    /* its .note.GNU-stack asks for an executable stack, or it has none */
    bool has_gnu_stack;
    bool has_warnings; /* .gnu.warning.SYMBOL sections: elf_warning.c */
    bool has_common;
    bool
        has_links; /* sections that live with others: SHF_LINK_ORDER, or in groups that are not COMDAT ones */
    uint8_t st_other;            /* the bits that some global symbol has there */
    uint32_t property_section;   /* .note.gnu.property, or 0 */
    uint32_t addrsig_section;    /* .llvm_addrsig, or 0 */
    uint32_t attributes_section; /* of the CPU: elf_arch_ops.attributes, or 0 */
    /* Names of groups that are not global symbols: base.ids[base.nglobals + k] */
    KLD_VEC(struct kld_str) group_names;
    struct elf_eh *eh;             /* unwind records: elf_eh.h */
    struct elf_gc_links *gc_links; /* elf_gc.c */
    /* Dynamic relocations of its atoms: noted by scan (elf_need_dynrel), written by finish. */
    elf_dynrel_runs dynrels;
    struct elf_shrunk *shrunk; /* atoms that layout shortened: elf_shrink.h */
};

/* Section number of symbol i, SHN_XINDEX resolved; values >= SHN_LORESERVE that are not indices
 * (SHN_ABS, SHN_COMMON) come back as 0xffff0000 | shndx. */
#define ELF_RESERVED(shndx) (0xffff0000u | (shndx))
static inline uint32_t elf_sym_section(const struct elf_object *obj, uint32_t i)
{
    uint16_t shndx = obj->syms[i].st_shndx;
    if (kld_likely(shndx < SHN_LORESERVE))
        return shndx;
    if (shndx == SHN_XINDEX && obj->xindex)
        return obj->xindex[i];
    return ELF_RESERVED(shndx);
}

/* The atom of a section, or NULL if it has none. */
static inline struct kld_atom *elf_section_atom(const struct elf_object *obj, uint32_t shndx)
{
    if (shndx >= obj->nshdrs)
        return NULL;
    uint32_t a = obj->atom_of[shndx];
    return a == ELF_NO_ATOM || a == ELF_DISCARDED ? NULL : &obj->base.atoms[a - 1];
}

/* The global symbol with number i >= first_global in the object's table. */
static inline struct kld_symbol *elf_global(const struct kld_session *ctx,
                                            const struct elf_object *obj, uint32_t i)
{
    return &ctx->symbols[obj->base.ids[i - obj->first_global]];
}

/* What a relocation points at. */
struct elf_target {
    uint64_t value;         /* S, such that S + A is right for the addend given; 0 if undefined */
    struct kld_symbol *sym; /* global, or a local one with a GOT/PLT/TLS entry; else NULL */
    struct kld_atom *atom;  /* where it is defined, folding seen through, or NULL */
    uint32_t sym_index;     /* r_sym */
    bool discarded;         /* into a section that was discarded (COMDAT, gc, /DISCARD/) */
};

/* The local's symbol struct if scan made one, else NULL. */
struct kld_symbol *elf_local_symbol(const struct elf_object *obj, uint32_t i);
/* The same, making it: scan only, by the thread that has the file. */
struct kld_symbol *elf_make_local_symbol(struct kld_session *ctx, struct kld_worker *worker,
                                         struct elf_object *obj, uint32_t i);

/* Resolves symbol number r_sym of obj for a relocation with that addend. After layout the value
 * is final; before it only sym, atom and discarded mean something. r_sym < nsyms. */
static inline struct elf_target elf_resolve(const struct kld_session *ctx,
                                            const struct elf_object *obj, uint32_t r_sym,
                                            int64_t addend);

#include "formats/elf/elf_link.h"
#include "formats/elf/elf_shrink.h"

/* The address of an offset of the input in an atom of the output. */
static inline uint64_t elf_atom_address(const struct kld_atom *atom, uint64_t offset)
{
    if (kld_unlikely(atom->kind == KLD_ATOM_PIECES))
        return kld_pieces_address(atom, offset);
    if (kld_unlikely(atom->kind == KLD_ATOM_SHRUNK))
        offset -= elf_shrunk_before(atom->extra, offset);
    return atom->addr + offset;
}

/* The atom that is in the output for this one: another if it was folded into that. */
static inline const struct kld_atom *elf_output_atom(const struct kld_atom *atom)
{
    return kld_unlikely(atom->flags & KLD_ATOM_FOLDED) ? atom->folded_into : atom;
}

/* Size in the output of what is at an offset of the input. */
static inline uint64_t elf_size_in(const struct kld_atom *atom, uint64_t offset, uint64_t size)
{
    if (kld_unlikely(atom->kind == KLD_ATOM_SHRUNK))
        size -=
            elf_shrunk_before(atom->extra, offset + size) - elf_shrunk_before(atom->extra, offset);
    return size;
}

/* st_size of a symbol in the output. */
static inline uint64_t elf_symbol_size(const struct kld_symbol *sym)
{
    if (sym->kind != KLD_SYM_DEFINED || sym->in_section || !sym->atom)
        return sym->size;
    return elf_size_in(elf_output_atom(sym->atom), sym->value, sym->size);
}

/* The address of a symbol in the output, PLT entries and copies seen through. */
uint64_t elf_symbol_address(const struct kld_session *ctx, const struct kld_symbol *sym);

/* The value of a local symbol in that atom, for a relocation with that addend. */
static inline uint64_t elf_local_value(const struct kld_session *ctx, const struct elf_object *obj,
                                       uint32_t r_sym, const struct kld_atom *atom, int64_t addend)
{
    const elf_sym *sym = &obj->syms[r_sym];
    if (kld_unlikely(obj->nlocals) && elf_state(ctx)->addresses) {
        const struct kld_symbol *local = elf_local_symbol(obj, r_sym);
        if (local && local->type == KLD_TYPE_IFUNC)
            return elf_symbol_address(ctx, local);
    }
    /* Where bytes move on their own, an addend to a section is part of the place. */
    uint64_t inside = ELF64_ST_TYPE(sym->st_info) == STT_SECTION ? (uint64_t)addend : 0;
    return elf_atom_address(atom, sym->st_value + inside) - inside;
}

/* What elf_resolve finds for a local symbol, but for the value of one in an atom. */
static inline struct elf_target elf_resolve_local(const struct elf_object *obj, uint32_t r_sym)
{
    struct elf_target t = {.sym_index = r_sym};
    uint32_t shndx = elf_sym_section(obj, r_sym);
    if (shndx >= obj->nshdrs || shndx == SHN_UNDEF) {
        t.value = obj->syms[r_sym].st_value; /* SHN_ABS, or symbol 0 */
        return t;
    }
    uint32_t a = obj->atom_of[shndx];
    if (a == ELF_NO_ATOM || a == ELF_DISCARDED) {
        t.discarded = true;
        return t;
    }
    struct kld_atom *atom = &obj->base.atoms[a - 1];
    t.atom = kld_unlikely(atom->flags & KLD_ATOM_FOLDED) ? atom->folded_into : atom;
    t.discarded = !t.atom->live;
    return t;
}

static inline struct elf_target elf_resolve(const struct kld_session *ctx,
                                            const struct elf_object *obj, uint32_t r_sym,
                                            int64_t addend)
{
    if (r_sym < obj->first_global) {
        struct elf_target t = elf_resolve_local(obj, r_sym);
        if (t.atom)
            t.value = elf_local_value(ctx, obj, r_sym, t.atom, addend);
        if (t.atom && kld_unlikely(obj->nlocals))
            t.sym = elf_local_symbol(obj, r_sym);
        return t;
    }
    struct elf_target t = {.sym_index = r_sym};
    kld_symid id = obj->base.ids[r_sym - obj->first_global];
    t.sym = &ctx->symbols[id];
    t.value = elf_state(ctx)->addresses ? elf_state(ctx)->addresses[id] : 0;
    t.atom = t.sym->kind == KLD_SYM_DEFINED && !t.sym->in_section ? t.sym->atom : NULL;
    if (t.atom && t.atom->kind != KLD_ATOM_PIECES)
        t.discarded = !t.atom->live;
    return t;
}

/* elf_resolve's value alone, once there are addresses: that of a global name takes no look at the symbol,
 * nor at the atom, which would be cache misses. */
static inline uint64_t elf_value(const struct kld_session *ctx, const struct elf_object *obj,
                                 uint32_t r_sym, int64_t addend)
{
    if (r_sym >= obj->first_global)
        return elf_state(ctx)->addresses[obj->base.ids[r_sym - obj->first_global]];
    struct elf_target t = elf_resolve_local(obj, r_sym);
    return t.atom ? elf_local_value(ctx, obj, r_sym, t.atom, addend) : t.value;
}

/* .gnu.hash of a library, checked; the fields are little-endian and perhaps not aligned. */
struct elf_hash_table {
    const uint8_t *bloom;   /* [bloom_mask + 1] words of 64 bits */
    const uint8_t *buckets; /* [nbuckets] words of 32 bits */
    const uint8_t *chains;  /* [nsyms - first] */
    uint32_t nbuckets, bloom_mask, shift;
    uint32_t first; /* the symbols from here on are in it */
};

/* A shared library. obj.syms is its .dynsym. */
struct elf_shared {
    struct elf_object obj;
    const char *soname;       /* DT_SONAME, or the name it was given by */
    const char *audit;        /* DT_AUDIT, or NULL */
    const elf_half *versym;   /* [nsyms] or NULL */
    struct kld_str *versions; /* names by version index; [0] and [1] empty */
    uint32_t nversions;
    KLD_VEC(const char *) needed; /* DT_NEEDED */
    /* Version indices that this link refers to: elf_version.c */
    uint16_t *need_index;      /* [nversions], 0: not needed */
    uint32_t names_cap;        /* of base.ids, base.classes, numbers and hidden_names */
    uint32_t *numbers;         /* by name: of its symbol */
    const char **hidden_names; /* by name: name@version where it is known as that; or NULL */
    /* While base.unlisted: */
    struct elf_hash_table hash;
    uint64_t *listed; /* bits, by symbol from hash.first on */
};

/* File number f of the link if it is a library that is needed, else NULL. */
static inline struct elf_shared *elf_needed_library(const struct kld_session *ctx, uint32_t f)
{
    struct kld_file *file = ctx->files[f];
    return file->kind == KLD_FILE_SHARED && file->needed ? (struct elf_shared *)file : NULL;
}

/* The name of a version of the library, empty if it has none of that number. */
static inline struct kld_str elf_library_version(const struct elf_shared *lib, uint32_t number)
{
    return number < lib->nversions ? lib->versions[number] : (struct kld_str){0};
}

/* elf_shared.c: what the library says of symbol i (enum kld_name_class); whether it is known as name@version only;
 * its version, which may be empty. */
uint8_t elf_shared_class(const struct elf_shared *lib, uint32_t i);
bool elf_shared_is_hidden(const struct elf_shared *lib, uint32_t i);
struct kld_str elf_shared_version(const struct elf_shared *lib, uint32_t i);
/* Name number k. */
struct kld_str elf_shared_name_at(const struct elf_shared *lib, uint32_t k);
/* Symbol i becomes the library's last name, unless it is none. False: it is malformed, which is reported. */
bool elf_shared_add(struct kld_session *ctx, struct kld_arena *arena, struct elf_shared *lib,
                    uint32_t i);

/* elf_lookup.c: whether names of the library can be looked up in that section, instead of being listed. */
bool elf_lookup_begin(struct kld_session *ctx, struct kld_worker *worker, struct elf_shared *lib,
                      uint32_t shndx);

static inline struct elf_object *elf_object(const struct kld_file *file)
{
    return (struct elf_object *)file;
}

static inline struct elf_shared *elf_shared(const struct kld_file *file)
{
    return (struct elf_shared *)file;
}

/* elf_read.c, elf_shared.c, elf_lookup.c: the members of kld_format_ops of these names. */
void elf_parse(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file);
void elf_parse_shared(struct kld_session *ctx, struct kld_worker *worker, struct elf_shared *lib);
struct kld_str elf_name_at(const struct kld_file *file, uint32_t i);
void elf_list(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file);
void elf_ask(struct kld_session *ctx, struct kld_arena *scratch, struct kld_file **libs,
             size_t nlibs, const kld_symid *ids, size_t nids);
struct kld_str elf_unlisted(const struct kld_file *file, uint32_t i);
void elf_describe(struct kld_session *ctx, const struct kld_file *file, struct kld_content *to);
void elf_make_atoms(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file);
void elf_bind(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file);
/* enum kld_symbol_type of an STT_ number. */
uint8_t elf_symbol_type(unsigned type);
bool elf_is_absolute(const struct kld_file *file, uint32_t i, uint64_t *value);
const struct kld_atom *elf_definition(const struct kld_file *file, uint32_t i, uint64_t *offset);
enum kld_probe elf_probe(struct kld_bytes bytes, const struct kld_arch_ops **arch,
                         const char **why);

/* The name of section i, or "?". */
static inline const char *elf_section_text(const struct elf_object *obj, uint32_t i)
{
    /* The table is known to end with a NUL. */
    return kld_likely(i < obj->nshdrs && obj->shdrs[i].sh_name < obj->shstrtab.len)
               ? (const char *)obj->shstrtab.ptr + obj->shdrs[i].sh_name
               : "?";
}

/* Reads and checks the ELF header and the section header table: ehdr, shdrs, nshdrs, shstrtab. */
bool elf_read_headers(struct kld_session *ctx, struct elf_object *obj);
/* The bytes of section i, or false (reported) if they lie outside the file. */
bool elf_section_bytes(struct kld_session *ctx, const struct elf_object *obj, uint32_t i,
                       struct kld_bytes *out);
/* A section as a string table: in bounds and NUL-terminated. */
bool elf_string_table(struct kld_session *ctx, const struct elf_object *obj, uint32_t i,
                      struct kld_bytes *out);

struct kld_file *elf_new_file(struct kld_session *ctx, struct kld_arena *arena,
                              enum kld_file_kind kind);

/* The name of section i, or "?" if it is malformed. */
struct kld_str elf_section_name(const struct elf_object *obj, uint32_t i);

/* A place in an atom of an object, for messages. */
struct kld_where elf_where(const struct kld_atom *atom, uint64_t offset);

#endif
