/* elf_arch.h - what a CPU must provide for ELF: one const table a CPU (arch/<cpu>/..._elf.c).
 *
 * Only the CPU's own file knows relocation numbers beyond the dynamic ones named here. */
#ifndef KLD_ELF_ARCH_H
#define KLD_ELF_ARCH_H

#include "formats/elf/elf_object.h"

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
    /* Applies one relocation that generic code met outside an atom's loop (unwind records):
     * writes value s + addend - place. False: not possible for this type. */
    bool (*apply_one)(uint32_t type, uint8_t *out, uint64_t place, uint64_t value, int64_t addend);
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
    bool execstack_default;    /* objects without .note.GNU-stack need an executable stack */
    uint32_t got_plt_reserved; /* slots at the start of .got.plt */
    /* Slots at the start of .got, the first with the address of .dynamic: where there are some,
     * _GLOBAL_OFFSET_TABLE_ is .got, else it is .got.plt. */
    uint32_t got_reserved;
    /* First value of a lazy .got.plt slot: address in the PLT entry that pushes the index. */
    uint64_t (*lazy_target)(const struct kld_session *ctx, uint64_t plt_entry);

    /* Thread-local storage: the offset of an address inside the PT_TLS image from the thread
     * pointer, and how far behind the start of a module's block its DTPREL offsets count from. */
    int64_t (*tp_offset)(const struct kld_session *ctx, uint64_t address);
    uint32_t dtp_bias;
};

#endif
