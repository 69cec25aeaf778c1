/* elf_arch.h - what a CPU must provide for ELF: one const table a CPU (arch/<cpu>/..._elf.c).
 *
 * Only the CPU's own file knows relocation numbers beyond the dynamic ones named here. */
#ifndef KLD_ELF_ARCH_H
#define KLD_ELF_ARCH_H

#include "formats/elf/elf_object.h"
#include "src/island.h"

/* What a relocation refers to. */
enum elf_reloc_kind {
    ELF_RELOC_SLOT,   /* something that the linker makes for the symbol: GOT, PLT */
    ELF_RELOC_DIRECT, /* the symbol's address, or the distance to it */
    ELF_RELOC_TLS,    /* a thread-local symbol */
    ELF_RELOC_ANY,    /* nothing that its type matters to: a size, the module */
};

/* One row a relocation number: what generic code may know of it. */
struct elf_reloc_info {
    const char *name;   /* "R_X86_64_PC32"; NULL: no such relocation */
    uint8_t width;      /* bytes written; 0: none */
    bool pc_relative;   /* S + A - P: needs nothing if the target is local to the output */
    uint8_t kind;       /* enum elf_reloc_kind */
    bool address_taken; /* the target's address becomes data, not just a branch: for icf */
    uint8_t before;     /* bytes in front of the field that apply may rewrite */
    bool is_leb128;     /* the field is as long as the LEB128 number in it, at least width */
};

/* The section in which objects say what they were compiled for, where the CPU has one: merged
 * (elf_arch_ops.merge), and part of the output with a segment of its own. */
struct elf_attributes {
    const char *section;
    uint32_t type;    /* SHT_* */
    uint32_t segment; /* PT_* */
};

/* What options say of a feature (below). */
enum elf_feature_wish {
    ELF_FEATURE_AGREED, /* the output has it if all objects do */
    ELF_FEATURE_FORCED, /* it has it, and objects that do not are reported */
    ELF_FEATURE_SET,
    ELF_FEATURE_NEVER,
};

/* One bit of GNU_PROPERTY_<CPU>_FEATURE_1_AND: what all code keeps to. */
struct elf_feature {
    uint32_t bit;
    const char *property;
    const char *force, *report; /* the options, for messages */
    enum elf_feature_wish (*wish)(const struct kld_options *o);
    enum kld_report (*report_of)(const struct kld_options *o); /* or NULL */
};

/* An entry of .dynamic that some outputs have, with the value 0. */
struct elf_cpu_dynamic {
    int64_t tag;
    bool (*wanted)(const struct kld_session *ctx);
};

struct elf_fixup;

/* Islands (src/island.h): for a CPU with branches that do not reach all of a large program. */
struct elf_island_ops {
    struct kld_reach reach; /* of a branch: code that spans no more needs none */
    /* Whether the output needs them for something else, however small it is; and then the unit. */
    bool (*always)(const struct kld_session *ctx);
    uint32_t unit;
    uint8_t p2align;
    /* Adds what the atom's edges ask for; `far`: branches as well. */
    void (*find)(struct kld_session *ctx, struct kld_worker *worker, const struct kld_atom *atom,
                 bool far, kld_wants *wants);
    /* Writes an entry of that kind, for the edge of f, at address `at`. */
    void (*write)(const struct elf_fixup *f, const struct kld_island_key *key, uint8_t *out,
                  uint64_t at);
    /* Names in .symtab: that of the target is between the two. */
    const char *const (*names)[2];
    const char *mapping; /* the symbol that marks code, or NULL */
};

struct elf_point_name {
    const char *name;
    enum elf_image_point point;
};

struct elf_arch_ops {
    uint16_t machine; /* EM_* */
    /* Dynamic relocations */
    uint32_t r_none, r_abs, r_relative, r_irelative, r_glob_dat, r_jump_slot, r_copy, r_dtpmod,
        r_dtpoff, r_tpoff, r_tlsdesc;
    const struct elf_reloc_info *info;
    uint32_t ninfo;

    /* Notes what the atom's relocations need: flags on symbols (kld_symbol_flag), TLS use and the
     * like in elf_link, dynamic relocations through elf_need_dynrel. Reports relocations that
     * are malformed or that this output kind cannot have. Only live, allocated atoms. */
    void (*scan)(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                 struct kld_atom *atom);
    /* Writes the atom's relocated fields into out (its bytes are already there). */
    void (*apply)(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                  const struct kld_atom *atom, uint8_t *out);
    /* The same for sections that are not in memory (debug information). */
    void (*apply_debug)(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                        const struct kld_atom *atom, uint8_t *out);
    /* Relaxation (elf_shrink.h); plan_cuts NULL: there is none. plan_cuts finds what may go of an
     * atom and returns it with offset, edge and how set, not yet the atom's; NULL: nothing. Cuts
     * that check_cuts finds out of reach, or within slack bytes of that, are taken back (how 0);
     * it returns whether there were some. cut_size tells how many bytes a cut takes out when it
     * comes to be at offset `at` of the shortened atom. */
    struct elf_shrunk *(*plan_cuts)(struct kld_session *ctx, struct kld_worker *worker,
                                    struct elf_object *obj, struct kld_atom *atom);
    bool (*check_cuts)(struct kld_session *ctx, struct elf_object *obj, struct elf_shrunk *s,
                       uint64_t slack);
    uint32_t (*cut_size)(struct kld_session *ctx, const struct elf_object *obj,
                         const struct kld_atom *atom, const struct elf_cut *cut, uint64_t at);
    /* More names that GNU ld has for points of the image on this CPU. */
    const struct elf_point_name *points;
    uint32_t npoints;
    /* Name of the symbol whose address programs keep in a register, to reach small data from; or
     * NULL. */
    const char *gp_symbol;
    const struct elf_attributes *attributes; /* or NULL */
    /* Once, when all objects are known: e_flags of the output (elf_link.e_flags), and its
     * attributes (elf_link.attributes); reports objects that do not go together. May be NULL. */
    void (*merge)(struct kld_session *ctx);

    /* The relocation whose symbol decides what the atom's relocation rel makes of its field: for one
     * that refers to another; NULL: there are none like that. */
    const elf_rela *(*decisive)(const struct elf_object *obj, const struct kld_atom *atom,
                                const elf_rela *rel);

    /* --emit-relocs: if apply makes another instruction of the one at `in`, changes *out, which is
     * the relocation as it is written, accordingly. May be NULL. */
    void (*emitted)(const struct kld_session *ctx, const struct elf_object *obj,
                    const struct kld_atom *atom, const elf_rela *in, elf_rela *out);

    /* PLT: a header and entries of fixed size; .plt.got-like entries jump through a GOT slot. */
    uint32_t plt_header_size, plt_entry_size, plt_got_entry_size;
    uint32_t plt_entry_size_ibt;     /* with -z ibtplt: entries in .plt.sec; 0: has none */
    uint32_t plt_got_entry_size_ibt; /* of .plt.got, there */
    void (*write_plt_header)(struct kld_session *ctx, uint8_t *out);
    /* Entry number n (of .rela.plt) at address `at`, for the .got.plt slot at `slot`. */
    void (*write_plt_entry)(struct kld_session *ctx, uint8_t *out, uint64_t at, uint64_t slot,
                            uint32_t n);
    void (*write_plt_got_entry)(struct kld_session *ctx, uint8_t *out, uint64_t at, uint64_t slot);
    /* .plt.sec entry under -z ibtplt */
    void (*write_plt_sec_entry)(struct kld_session *ctx, uint8_t *out, uint64_t at, uint64_t slot);
    /* Incremental links: a jump of jump_size bytes at address `at` to code that has moved, and starts
     * with those bytes of an input. 0: there is none. */
    uint32_t jump_size;
    bool (*write_jump)(uint8_t *out, const uint8_t *code, uint64_t size, uint64_t at, uint64_t to);
    bool drops_labels;         /* GNU ld for this CPU takes -X for granted */
    bool execstack_default;    /* objects without .note.GNU-stack need an executable stack */
    uint32_t got_plt_reserved; /* slots at the start of .got.plt */
    /* Slots at the start of .got, the first with the address of .dynamic: where there are some,
     * _GLOBAL_OFFSET_TABLE_ is .got, else it is .got.plt. */
    uint32_t got_reserved;
    /* First value of a lazy .got.plt slot: address in the PLT entry that pushes the index.
     * NULL: the start of .plt, where code finds out by itself which slot it is for. */
    uint64_t (*lazy_target)(const struct kld_session *ctx, uint64_t plt_entry);

    /* Thread-local storage: the offset of an address inside the PT_TLS image from the thread
     * pointer, and how far behind the start of a module's block its DTPREL offsets count from. */
    int64_t (*tp_offset)(const struct kld_session *ctx, uint64_t address);
    uint32_t dtp_bias;
    bool dtprel_is_tprel; /* in programs, since local dynamic accesses become local exec */

    /* Program properties: the number of the one with the features (0: has none), and that of the
     * level of the instruction set, with the names of its bits. */
    uint32_t feature_1_and, isa_1_needed;
    const struct elf_feature *features;
    uint32_t nfeatures;
    const char *const *isa_levels; /* to NULL */

    const struct elf_cpu_dynamic *dynamic;
    uint32_t ndynamic;
    /* The bit of st_other of functions that do not keep to the base calling convention, and so are
     * not bound lazily; dt_variant says that some have PLT entries. 0: there is none. */
    uint8_t st_other_variant;
    int64_t dt_variant;

    /* Of the options that not all CPUs have (elf_ops.c), those that this one has: offsets in
     * struct kld_options. */
    const uint16_t *options;
    uint32_t noptions;

    const struct elf_island_ops *islands; /* NULL: branches reach everything */
};

#endif
