/* elf_link.h - what an ELF link knows beyond the graph: tables, GOT and PLT numbers, TLS. */
#ifndef KLD_ELF_LINK_H
#define KLD_ELF_LINK_H

#include "src/session.h"

struct elf_arch_ops;
struct elf_object;
struct elf_versions;
struct elf_dynamic;
struct elf_relocatable;
struct elf_dynrels;
struct elf_dynsym;
struct elf_eh_output;
struct elf_gc;
struct elf_properties;

#define ELF_NONE UINT32_MAX

/* Slots of a symbol; each ELF_NONE if it has none. GOT slots count in words from the start of
 * .got; a TLSGD or TLSDESC entry is two words. */
struct elf_aux {
    uint32_t got, gottp, tlsgd, tlsdesc;
    uint32_t plt;     /* entry in .plt, and slot got_plt_reserved + plt in .got.plt */
    uint32_t plt_got; /* entry in .plt.got: for symbols with a GOT slot anyway */
    uint32_t dynsym;  /* index in .dynsym */
    uint32_t iplt;    /* entry in .iplt with an IRELATIVE slot (ifunc) */
};

/* The atoms that the linker makes. NULL when the output has none of it. */
enum elf_synth {
    ELF_HEADERS,
    ELF_INTERP,
    ELF_NOTE_PROPERTY,
    ELF_NOTE_BUILD_ID,
    ELF_NOTE_PACKAGE,
    ELF_ATTRIBUTES,
    ELF_GNU_HASH,
    ELF_HASH,
    ELF_DYNSYM,
    ELF_DYNSTR,
    ELF_VERSYM,
    ELF_VERDEF,
    ELF_VERNEED,
    ELF_RELA_DYN,
    ELF_RELR_DYN,
    ELF_RELA_PLT,
    ELF_PLT,
    ELF_PLT_GOT,
    ELF_PLT_SEC,
    ELF_EH_FRAME_HDR,
    ELF_DYNAMIC,
    ELF_GOT,
    ELF_GOT_PLT,
    ELF_COPY,       /* copy relocations, .bss */
    ELF_COPY_RELRO, /* of read-only data */
    ELF_COMMON,
    ELF_TLS_COMMON,
    ELF_COMMENT,
    ELF_FILLER_ABBREV, /* what is in the gaps of debug information: elf_slack.c */
    ELF_FILLER_UNITS,
    ELF_SYMTAB,
    ELF_SYMTAB_SHNDX,
    ELF_STRTAB,
    ELF_SHSTRTAB,
    ELF_SYNTH_COUNT,
};

/* Points of the image that linker-defined symbols stand for. */
enum elf_image_point {
    ELF_AT_HEADERS,
    ELF_AT_ETEXT, /* end of the last executable section */
    ELF_AT_EDATA, /* end of initialised data */
    ELF_AT_BSS,
    ELF_AT_DATA,  /* start of .data, or of what is behind it */
    ELF_AT_SDATA, /* the same of small data */
    ELF_AT_END,
    ELF_AT_IPLT_START,
    ELF_AT_IPLT_END,
    ELF_AT_GOT, /* .got.plt, or .got where there is none or the CPU wants it so */
    ELF_AT_GP,  /* elf_arch_ops.gp_symbol */
    ELF_AT_TLS,
    ELF_IMAGE_POINTS,
};

/* A linker-defined symbol: the start or end of a named section, or a point of the image. */
struct elf_defined {
    struct kld_symbol *sym;
    const char *section;
    bool at_end;
    enum elf_image_point point;
};

/* Passes over all symbols take this many at a time. */
enum { ELF_SYMBOL_BLOCK = 8192 };

/* A GOT entry that is not plain: in slot order. */
enum elf_got_kind { ELF_GOT_ADDRESS, ELF_GOT_TPOFF, ELF_GOT_TLSGD, ELF_GOT_TLSDESC, ELF_GOT_TLSLD };
struct elf_got_entry {
    struct kld_symbol *sym; /* NULL: TLSLD */
    uint32_t slot;
    enum elf_got_kind kind;
};

struct elf_link {
    const struct elf_arch_ops *arch;
    struct kld_atom *synth[ELF_SYNTH_COUNT];
    /* S of each global by id, after layout: PLT and copy addresses seen through. */
    uint64_t *addresses;
    KLD_VEC(struct elf_aux) aux;            /* [0] is unused */
    uint64_t tls_start, tls_end, tls_align; /* of PT_TLS; end is not rounded up */
    uint64_t image_base;
    struct elf_name_cache *name_caches; /* by worker */
    bool is_pic;                        /* position-independent output: PIE or shared */
    bool is_dynamic;                    /* has a dynamic section */
    bool is_shared, is_relocatable;
    bool has_shared_inputs;
    uint8_t *classes; /* enum elf_class of each global by id, for scan; NULL in a relink */
    /* Noted while scanning */
    _Atomic bool needs_tlsld;    /* a GOT pair for local-dynamic TLS */
    _Atomic bool static_tls;     /* DF_STATIC_TLS */
    _Atomic bool needs_got_base; /* _GLOBAL_OFFSET_TABLE_ is referred to */
    _Atomic bool textrel;        /* DF_TEXTREL */
    uint32_t tlsld;              /* GOT slot of that pair, or ELF_NONE */
    KLD_VEC(struct elf_defined) defined;
    struct {
        struct kld_section *section; /* that the address is in or behind */
        uint64_t address;
    } points[ELF_IMAGE_POINTS];
    KLD_VEC(struct elf_got_entry) got;    /* what .got holds */
    uint32_t got_slots;                   /* words in .got, */
    uint32_t got_capacity;                /* with slack those that are spare included */
    KLD_VEC(struct kld_symbol *) plt;     /* by plt entry number */
    KLD_VEC(struct kld_symbol *) plt_got; /* by .plt.got entry number */
    KLD_VEC(struct kld_symbol *) iplt;    /* ifuncs: entries behind those of plt */
    KLD_VEC(struct kld_symbol *) dynsyms; /* [0] is NULL; .dynsym in order */
    uint32_t *dynsym_numbers;             /* --incremental-verify: by id, that order; else NULL */
    KLD_VEC(struct kld_symbol *) copies;  /* with a copy relocation */
    uint32_t plt_got_size;                /* of an entry in .plt.got, */
    uint32_t plt_got_capacity; /* and how many there are, with slack spare ones included */
    uint32_t plt_header;       /* bytes before entry 0 of .plt */
    uint32_t got_plt_reserved; /* slots before entry 0 of .got.plt */
    uint32_t first_exported;   /* index in dynsyms of the first definition */
    bool has_dynamic_list;
    _Atomic uint64_t memory_size; /* of all atoms in memory, before gc: the image is no larger but
                                     for tables and padding */
    bool no_gotpcrelx;           /* the image may be too large for references that bypass the GOT */
    bool uses_gnu_osabi;         /* STT_GNU_IFUNC or STB_GNU_UNIQUE is defined here */
    struct kld_symbol *entry;    /* or NULL: */
    uint64_t entry_number;       /* -e NUMBER */
    struct kld_section *headers; /* pseudo-section of ELF and program headers */
    struct kld_section *section_headers;
    uint32_t e_flags;             /* of the ELF header */
    struct kld_bytes attributes;  /* contents of the CPU's own section: elf_arch_ops.attributes */
    struct kld_symbol *gp_symbol; /* elf_arch_ops.gp_symbol, if something refers to it, */
    uint64_t gp_addr;             /* and its address */
    uint64_t got_addr, got_plt_addr, plt_addr, plt_got_addr, plt_sec_addr;
    struct kld_symbol *got_symbol; /* _GLOBAL_OFFSET_TABLE_ */
    struct elf_versions *versions;
    struct elf_dynamic *dynamic;         /* elf_dynamic.c */
    struct elf_dynrels *dynrels;         /* elf_dynrel.c */
    struct elf_dynsym *dynsym;           /* elf_dynsym.c */
    struct elf_eh_output *eh;            /* elf_eh.c */
    struct elf_gc *gc;                   /* elf_gc.c */
    struct elf_properties *properties;   /* elf_property.c */
    struct elf_relocatable *relocatable; /* elf_relocatable.c */
};

static inline struct elf_link *elf_state(const struct kld_session *ctx)
{
    return ctx->format_state;
}

static inline const struct elf_aux *elf_aux(const struct kld_session *ctx,
                                            const struct kld_symbol *sym)
{
    return &elf_state(ctx)->aux.data[sym->aux];
}

/* Whether relative relocations go to .relr.dyn. That is a run of bits without room for another one. */
static inline bool elf_packs_relative(const struct kld_session *ctx)
{
    return ctx->options.z_pack_relative_relocs && !ctx->slack;
}

/* Whether the symbol's address is only known at run time: imported or preemptible. */
static inline bool elf_is_dynamic_symbol(const struct kld_symbol *sym)
{
    return sym->kind == KLD_SYM_IMPORTED || sym->preemptible;
}

/* Addresses of a symbol's slots (the slot must exist). */
uint64_t elf_got_address(const struct kld_session *ctx, uint32_t slot);
uint64_t elf_plt_address(const struct kld_session *ctx, const struct kld_symbol *sym);

/* How a dynamic relocation of an atom is written. */
enum elf_dynrel_kind {
    ELF_DYNREL_RELATIVE,  /* load address + value */
    ELF_DYNREL_SYMBOLIC,  /* r_abs against the symbol, with the addend */
    ELF_DYNREL_IRELATIVE, /* calls the resolver at value */
    ELF_DYNREL_TPOFF,     /* r_tpoff against the symbol, or the module's own block */
    ELF_DYNREL_DTPMOD,
    ELF_DYNREL_DTPOFF,
};

/* Called by scan: relocation number `edge` of the atom needs a dynamic relocation of that kind.
 * elf_dynrel.c writes it once addresses are known; apply need only write the field (which for
 * RELATIVE and with RELR holds the value itself). Marks the symbol for .dynsym and notes text
 * relocations (reporting them where -z text says so). */
void elf_need_dynrel(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                     struct kld_atom *atom, uint32_t edge, enum elf_dynrel_kind kind);

#endif
