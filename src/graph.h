/* graph.h - files, atoms, symbols and output sections: what every pass works on.
 *
 * An atom is bytes that move together (for most formats: one input section). A symbol is a name
 * on an atom. A file owns its atoms and its view of the symbols. Edges (relocations) are not
 * stored here: they stay in the input's own table, which the loops of the (CPU, format) pair
 * decode in place.
 *
 * Things refer to each other by pointer into session memory or by 32-bit id; neither outlives
 * the link. */
#ifndef KLD_SRC_GRAPH_H
#define KLD_SRC_GRAPH_H

#include <stdatomic.h>
#include "src/bytes.h"
#include "src/vec.h"

struct kld_format_ops;
struct kld_worker;
struct kld_section;
struct kld_pieces;

/* Id of an interned global name; index into session.symbols once they exist. */
typedef uint32_t kld_symid;
#define KLD_NO_SYMBOL UINT32_MAX

/* ---- atoms ---- */

enum kld_atom_kind {
    KLD_ATOM_BYTES,     /* data (or zeros) of size bytes, with edges to apply */
    KLD_ATOM_GENERATED, /* written by generate() */
    KLD_ATOM_PIECES,    /* a mergeable section, cut up: see merge.h; has no place of its own */
    KLD_ATOM_RECORDS,   /* the format splits and writes it itself (unwind tables) */
    KLD_ATOM_SHRUNK,    /* layout took bytes out of it: apply copies those that are left as well */
};

enum {
    KLD_ATOM_ALLOC = 1 << 0, /* in memory at run time */
    KLD_ATOM_WRITE = 1 << 1,
    KLD_ATOM_EXEC = 1 << 2,
    KLD_ATOM_TLS = 1 << 3,
    KLD_ATOM_ZERO = 1 << 4,   /* no bytes in the file */
    KLD_ATOM_RETAIN = 1 << 5, /* a root of --gc-sections */
    KLD_ATOM_FOLDED = 1 << 6, /* replaced by `folded_into` (icf) */
    KLD_ATOM_DEBUG = 1 << 7,  /* debug information: not a root, not stripped by gc */
};

/* Atoms and symbols are a line of the cache each (on 64-bit hosts), since all but a few are looked up one by
 * one, far apart. */
enum { KLD_CACHE_LINE = 64 };

struct kld_atom {
    _Alignas(KLD_CACHE_LINE) struct kld_file *file;
    const uint8_t *data; /* the input's bytes; NULL if zero-filled or generated */
    uint64_t size;
    /* Before layout: offset in its output section. After: address; for atoms without
     * KLD_ATOM_ALLOC, the offset in the output section. */
    uint64_t addr;
    union {
        const void *edges; /* the input's relocation records */
        void (*generate)(struct kld_session *, struct kld_worker *, const struct kld_atom *,
                         uint8_t *out);
        struct kld_atom *folded_into;
    };
    union {
        struct kld_pieces *pieces; /* KLD_ATOM_PIECES */
        void *extra;               /* of the format: unwind records of a function, ... */
    };
    uint32_t nedges;
    uint32_t section;     /* id of the output section, index into session.sections */
    uint32_t input_index; /* section number in the input */
    uint8_t kind : 6;
    uint8_t unit : 1;    /* called as its output section is: a compilation unit has one of these */
    uint8_t ordered : 1; /* its name may say where in its output section it goes */
    uint8_t flags;
    uint8_t p2align;
    _Atomic uint8_t live; /* 0: not part of the output */
};

/* ---- symbols ---- */

enum kld_symbol_kind {
    KLD_SYM_UNDEFINED,
    KLD_SYM_DEFINED,  /* in an atom (or, atom NULL, at the start of section `section`) */
    KLD_SYM_ABSOLUTE, /* value is all there is */
    KLD_SYM_COMMON,   /* becomes DEFINED before gc */
    KLD_SYM_IMPORTED, /* by a shared library */
};

enum kld_symbol_type {
    KLD_TYPE_NONE,
    KLD_TYPE_OBJECT,
    KLD_TYPE_FUNCTION,
    KLD_TYPE_TLS,
    KLD_TYPE_IFUNC,
    KLD_TYPE_SECTION,
    KLD_TYPE_FILE,
};

/* Facts gathered by all threads: test before you set. */
enum {
    KLD_SYM_REF_REGULAR = 1 << 0, /* mentioned by a live object */
    KLD_SYM_REF_STRONG = 1 << 1,  /* by a non-weak undefined reference in an object */
    KLD_SYM_REF_SHARED = 1 << 2,  /* undefined in a shared library */
    KLD_SYM_DEF_SHARED = 1 << 3,  /* also defined by a shared library */
    KLD_SYM_NEED_GOT = 1 << 4,
    KLD_SYM_NEED_PLT = 1 << 5,
    KLD_SYM_NEED_COPY = 1 << 6,          /* copy relocation */
    KLD_SYM_NEED_CANONICAL_PLT = 1 << 7, /* its PLT entry is its address */
    KLD_SYM_NEED_TLSGD = 1 << 8,
    KLD_SYM_NEED_TLSDESC = 1 << 9,
    KLD_SYM_NEED_GOTTP = 1 << 10,
    KLD_SYM_NEED_DYNSYM = 1 << 11, /* a dynamic relocation names it */
    KLD_SYM_IN_DYNAMIC_RELOC = 1 << 12,
    KLD_SYM_WRAPPED = 1 << 13,
    KLD_SYM_ROOT = 1 << 14,   /* gc: kept whoever refers to it */
    KLD_SYM_TRACED = 1 << 15, /* --trace-symbol */
};
#define KLD_SYM_NEEDS                                                                              \
    (KLD_SYM_NEED_GOT | KLD_SYM_NEED_PLT | KLD_SYM_NEED_COPY | KLD_SYM_NEED_CANONICAL_PLT |        \
     KLD_SYM_NEED_TLSGD | KLD_SYM_NEED_TLSDESC | KLD_SYM_NEED_GOTTP)

struct kld_symbol {
    _Alignas(KLD_CACHE_LINE) const char *name; /* not terminated */
    struct kld_file *file; /* who defines it; for undefined ones the first that mentions it */
    union {
        struct kld_atom *atom;       /* DEFINED; NULL: see section */
        struct kld_section *section; /* DEFINED with in_section: relative to an output section */
    };
    uint64_t value; /* offset in atom or section; the value; COMMON: alignment */
    uint64_t size;
    uint32_t name_len;
    uint32_t index;   /* number in file's own symbol table */
    uint32_t aux;     /* 0, or index into the format's table of GOT/PLT/dynamic-symbol numbers */
    uint16_t version; /* of the format: version of an exported or imported symbol */
    _Atomic uint16_t flags; /* KLD_SYM_* */
    uint8_t kind;
    uint8_t type;
    _Atomic uint8_t visibility; /* enum kld_visibility, merged over all objects */
    _Atomic uint8_t other;      /* of the format: what else symbol tables say of the name */
    bool weak : 1;              /* the definition is; or, undefined, all references are */
    bool unique : 1;            /* one in the whole process, across shared libraries */
    bool exported : 1;          /* in the dynamic symbol table as a definition */
    bool imported : 1;          /* in the dynamic symbol table as a reference */
    bool preemptible : 1;       /* another module may provide it at run time */
    bool in_section : 1;
    bool synthetic : 1;    /* made by the linker */
    bool forced_local : 1; /* by a version script or --exclude-libs */
};

/* Sets bits in sym->flags, writing only if something changes. */
static inline void kld_symbol_flag(struct kld_symbol *sym, uint16_t bits)
{
    if ((atomic_load_explicit(&sym->flags, memory_order_relaxed) & bits) != bits)
        atomic_fetch_or_explicit(&sym->flags, bits, memory_order_relaxed);
}

static inline bool kld_symbol_has(const struct kld_symbol *sym, uint16_t bits)
{
    return atomic_load_explicit(&sym->flags, memory_order_relaxed) & bits;
}

static inline struct kld_str kld_symbol_name(const struct kld_symbol *sym)
{
    return (struct kld_str){sym->name, sym->name_len};
}

/* ---- files ---- */

enum kld_file_kind {
    KLD_FILE_OBJECT,
    KLD_FILE_SHARED,
    KLD_FILE_INTERNAL, /* the linker's own atoms and symbols */
};

/* What a file says of a global name: one byte a name, so that resolution walks dense memory.
 * Bits 0-2 the class, bit 3 that its definition is the one that counts (once that is decided), bits 4-5 the
 * visibility. */
enum kld_name_class {
    KLD_NAME_IGNORED,
    KLD_NAME_UNDEF,
    KLD_NAME_UNDEF_WEAK,
    KLD_NAME_DEF,
    KLD_NAME_DEF_WEAK,
    KLD_NAME_COMMON,
    KLD_NAME_GROUP, /* not a symbol: the signature of a COMDAT group */
};
enum { KLD_NAME_WON = 1 << 3 };
#define KLD_NAME_CLASS(c)      ((c)&7)
#define KLD_NAME_VISIBILITY(c) ((c) >> 4 & 3)

/* One COMDAT group (or .gnu.linkonce section) of a file. */
struct kld_group {
    uint32_t name;        /* index into file.ids */
    uint32_t input_index; /* the format's: where to find the members */
    bool discarded;       /* another file's group of this name is kept */
};

struct kld_file {
    const struct kld_format_ops *format;
    const char *path;
    const char *member; /* archive member, or NULL */
    struct kld_bytes bytes;
    uint32_t index;         /* rank in input order; smaller is earlier, unique among live files */
    uint32_t position;      /* of the input on the command line, */
    uint64_t member_offset; /* then of the member in its archive */
    uint8_t kind;
    bool live; /* part of the link */
    bool parsed;
    bool broken;          /* an error was reported; contents are not to be trusted */
    bool as_needed;       /* shared: only if something needs it */
    bool needed;          /* shared: something does */
    bool in_group;        /* of --start-group */
    bool by_library_name; /* -lfoo, not a path */
    bool just_symbols;    /* symbols only, no contents */
    bool meets_lazy;      /* has a global name that some archive or lazy object offers: load.c */
    bool lazy;            /* an object between --start-lib and --end-lib, or an archive member */
    bool exclude_libs;    /* its symbols are not exported */
    kld_symid puller;     /* lazy: the name for which it was taken */
    uint32_t nnames;      /* names of global symbols, then signatures of groups */
    uint32_t nglobals;
    uint32_t unlisted; /* shared: so many definitions may be no names yet (kld_format_ops.list) */
    kld_symid *ids;    /* [nnames] */
    uint8_t *classes;  /* [nnames] enum kld_name_class | visibility << 4 */
    uint32_t ngroups;
    struct kld_group *groups;
    uint32_t natoms;
    struct kld_atom *atoms;
    uint32_t *keys; /* with slack, by atom: kld_record_name, made when the name is read; or NULL */
};

/* ---- output sections and segments ---- */

/* What placing and layout need of an atom, beside the pointer to it. (With 10,000 objects a third of their time was
 * to wait for the atoms themselves.) */
typedef uint32_t kld_shape;
#define KLD_SHAPE_SIZE          0x1ffffffu /* bytes; all ones: the atom has to be asked */
#define KLD_SHAPE_P2ALIGN_SHIFT 25         /* then 6 bits: kld_atom.p2align */
#define KLD_SHAPE_ORDERED       0x80000000 /* kld_atom.ordered */

struct kld_section {
    const char *name;
    uint32_t id;     /* index into session.sections */
    uint32_t number; /* in the output's section table, once layout has ordered them; 0: none */
    uint8_t flags;   /* KLD_ATOM_ALLOC ... KLD_ATOM_ZERO, of its atoms together */
    uint8_t p2align;
    bool relro;
    bool has_bytes; /* some atom has contents in the file */
    bool keep;      /* written even if empty */
    bool discarded; /* not part of the output */
    bool nameless;  /* one of several of its name: no lookup finds it */
    uint32_t rank;  /* place in the output, of the format's policy */
    uint64_t first; /* input order of its first atom: breaks ties of rank */
    uint64_t addr;
    uint64_t offset; /* in the file */
    uint64_t size;
    /* With slack (incremental/slack.h): end of its atoms and of the room behind them; the pool, which
     * is free, reaches from there to pool_end. */
    uint64_t used, pool_end;
    const void *filler; /* with slack: kld_slack_rule.filler, once layout has asked for it */
    uint64_t largest;   /* with slack: bytes of mergeable contents that a file brought, at most */
    /* Of the format: */
    uint32_t type;
    uint64_t format_flags;
    uint64_t entsize;
    struct kld_section *link, *info_section;
    uint32_t info;
    uint32_t name_offset;
    void *extra;
    KLD_VEC(struct kld_atom *) atoms; /* in output order */
    /* [atoms.len], from gathering until the first addresses are given; NULL: the atoms have to be asked. */
    kld_shape *shapes;
    struct kld_cursor *starts; /* layout.c: where blocks of its atoms begin */
};

struct kld_segment {
    uint32_t type, flags;             /* of the format */
    struct kld_section *first, *last; /* of those ordered; NULL: covers headers only */
    bool headers;                     /* begins at the start of the file */
    uint64_t addr, offset, filesize, memsize, align;
};

#endif
