/* elf_scan.h - what a relocation needs, by families that every CPU has: for the scan loops of the
 * CPUs, which know the numbers. */
#ifndef KLD_ELF_SCAN_H
#define KLD_ELF_SCAN_H

#include "formats/elf/elf_reloc.h"

/* One relocation, and where it was found. */
struct elf_edge {
    struct kld_session *ctx;
    struct kld_worker *worker;
    struct elf_object *obj;
    struct kld_atom *atom;
    struct elf_link *elf;
    const elf_rela *rel;
    uint32_t index; /* in the atom */
    uint32_t type, r_sym;
    enum elf_class class;
};

/* Reports targets that are not there or cannot be meant; an undefined one becomes a constant, 0.
 * False: nothing more to say of this relocation. */
bool elf_has_target(struct elf_edge *e);

/* "relocation R_X86_64_PC32 against symbol 'foo' <problem>" */
void elf_reject(const struct elf_edge *e, const char *problem);
/* ... can not be used in this position-independent output */
void elf_reject_in_pic(const struct elf_edge *e);

/* The target's symbol; one is made for a local name. */
struct kld_symbol *elf_edge_symbol(const struct elf_edge *e);
/* Sets KLD_SYM_NEED_* on it. */
void elf_need(const struct elf_edge *e, uint16_t flag);
/* The relocation needs a dynamic one. */
void elf_edge_dynrel(const struct elf_edge *e, enum elf_dynrel_kind kind);

/* Sets a flag of elf_link that all threads share, writing only if it changes. */
static inline void elf_note(_Atomic bool *flag)
{
    if (!atomic_load_explicit(flag, memory_order_relaxed))
        atomic_store_explicit(flag, true, memory_order_relaxed);
}

/* An address in a field as wide as addresses. */
void elf_scan_word(const struct elf_edge *e);
/* An address in a field too small for a dynamic relocation. */
void elf_scan_narrow(const struct elf_edge *e);
/* A distance, from the place or from the GOT. */
void elf_scan_distance(const struct elf_edge *e);
/* An offset from the thread pointer that is known when the program is linked. */
void elf_scan_local_exec(const struct elf_edge *e);
/* A branch, which may go through the PLT. */
void elf_scan_branch(const struct elf_edge *e);

#endif
