/* elf_symtab_walk.h - what .symtab and .strtab consist of, and the walk that makes it: between elf_symtab.c, which
 * decides how much there is and where it goes, and elf_symtab_walk.c, which knows what is kept and how it looks. */
#ifndef KLD_ELF_SYMTAB_WALK_H
#define KLD_ELF_SYMTAB_WALK_H

#include "formats/elf/elf_symtab.h"

enum elf_symtab_kind {
    ELF_PART_SECTIONS, /* one symbol for each output section */
    ELF_PART_LOCALS,   /* of a file */
    ELF_PART_ISLANDS,  /* code that the linker has made for branches */
    ELF_PART_NO_FILE, /* an STT_FILE symbol without a name: what follows is of no file in particular */
    ELF_PART_HIDDEN,  /* global names that became local: of a file, or of table.rest */
    ELF_PART_GLOBALS, /* of a file, or of table.rest */
};
enum { ELF_PART_KINDS = ELF_PART_GLOBALS + 1 };

/* A name that a part has, in the string table of its file: noted once, so that later walks need not look at the
 * input's symbols and strings, which are cold, for more than what they copy. (Of clang's CPU time that is 4%.) */
struct elf_symtab_noted {
    uint32_t text;
    uint32_t len : 31;
    uint32_t is_mapping : 1;
};

/* A run of symbols. Capacities are what it holds; with slack that is more for ELF_PART_LOCALS. */
struct elf_symtab_part {
    struct elf_object *obj; /* NULL: of table.rest */
    uint8_t kind;
    uint32_t file;  /* index in ctx->files */
    uint32_t first; /* number of its first symbol */
    uint32_t count, capacity;
    uint64_t names; /* offset in .strtab, */
    uint64_t size;  /* what they take there, */
    uint64_t names_capacity;
    const struct elf_symtab_noted *noted; /* of `count` names of a file, or NULL */
    /* Of ELF_PART_ISLANDS, which grow: the parts of the tables */
    struct kld_atom *symbols, *strings, *indices;
};

struct elf_symtab_table {
    struct elf_symtab_part *parts;
    uint32_t nparts;
    uint32_t objects_at[ELF_PART_KINDS]; /* the first of those of that kind that are of objects */
    uint32_t nobjects;
    struct elf_symtab_part **locals; /* by file: its part of kind ELF_PART_LOCALS, or NULL */
    uint64_t **kept;                 /* by file: bits of its local symbols */
    _Atomic bool gnu;                /* there is something that only ELFOSABI_GNU has */
    uint64_t nsymbols, strtab_size;
    kld_symid *rest; /* symbols that no object defines */
    uint32_t nrest;
    enum kld_discard discard;
    struct kld_str *retained; /* sorted; of --retain-symbols-file */
    size_t nretained;
    bool retains;
    bool relocatable;
    bool keeps_undefined; /* that nothing was found to need: not those of a complete program */
    bool notes_numbers;   /* writing it fills in global_numbers, for the state of the link */
    /* Only where relocations against .symtab are written: */
    bool keeps_relocs;
    struct kld_section **sections; /* that have a symbol, in its order */
    uint32_t nsections;
    uint32_t *section_numbers; /* by section id */
    uint32_t nsection_ids;
    uint64_t **needed;               /* by file: bits of the local symbols that relocations name */
    uint32_t **local_numbers;        /* by file */
    uint32_t *global_numbers;        /* by id */
    _Atomic uint8_t *needed_globals; /* by id */
};

/* The table of the link, or NULL. */
static inline struct elf_symtab_table *elf_symtab_table(const struct kld_session *ctx)
{
    struct kld_atom *atom = elf_state(ctx)->synth[ELF_SYMTAB];
    return atom ? atom->extra : NULL;
}

/* What a walk over a part is for: any of the pointers may be NULL. */
struct elf_symtab_walk {
    struct kld_session *ctx;
    const struct elf_symtab_table *table;
    elf_sym *syms;
    char *names;
    elf_word *indices;       /* .symtab_shndx */
    uint32_t *local_numbers; /* of symbols in their file */
    uint32_t *global_numbers;
    uint32_t first;    /* number of the part's first symbol */
    uint64_t names_at; /* offset of the part in .strtab */
    uint32_t count;
    uint64_t size;                        /* of names */
    const struct elf_symtab_noted *noted; /* names, by count, if they have been noted */
    struct kld_arena *arena;              /* where they are to be, if they have not */
    KLD_VEC(struct elf_symtab_noted) notes;
    /* The last mapping symbol's name, in the input, and where it is: most of a file have one. */
    bool is_mapping; /* what is put next */
    const char *mapping;
    uint64_t mapping_at;
};

/* Goes through the symbols of a part and does what the walk is for. */
void elf_symtab_walk(struct elf_symtab_walk *w, const struct elf_symtab_part *part);

/* Puts an STT_FILE symbol; one without a name stands where there is none. */
void elf_symtab_put_file_name(struct elf_symtab_walk *w, struct kld_str name);

/* What is kept of a file's names: bits in table.kept, and in kld_file.classes. By one thread a file. */
void elf_symtab_decide_locals(struct kld_worker *worker, struct elf_symtab_walk *w,
                              struct elf_symtab_table *t, uint32_t f);
void elf_symtab_decide_globals(struct elf_symtab_walk *w, struct elf_symtab_table *t,
                               struct elf_object *obj);

/* Whether a symbol that no object defines is kept. */
bool elf_symtab_is_rest(const struct elf_symtab_table *t, const struct kld_symbol *sym);
/* Whether only a file of ELFOSABI_GNU may have it; that there is such a one. */
bool elf_symtab_is_gnu(const struct kld_symbol *sym);
void elf_symtab_note_gnu(struct elf_symtab_table *t);

/* What is in the output for an atom, or NULL; and its section there. */
const struct kld_atom *elf_symtab_kept_atom(const struct kld_session *ctx,
                                            const struct kld_atom *atom);
struct kld_section *elf_symtab_section_of(const struct kld_session *ctx,
                                          const struct kld_atom *atom);

/* Options that say what is kept: -x, -X; --retain-symbols-file. */
void elf_symtab_set_discard(const struct kld_session *ctx, struct elf_symtab_table *t);
void elf_symtab_read_retained(struct kld_session *ctx, struct elf_symtab_table *t);

#endif
