/* rv64_isa.h - architecture strings: "rv64i2p1_m2p0_a2p1_zicsr2p0". */
#ifndef KLD_RV64_ISA_H
#define KLD_RV64_ISA_H

#include "src/session.h"

struct rv64_extension {
    struct kld_str name; /* points into the string it was read from */
    uint32_t major, minor;
};

struct rv64_isa {
    uint32_t xlen;                       /* 0: nothing was added yet */
    KLD_VEC(struct rv64_extension) list; /* in canonical order, the base first */
};

/* Adds what the string says: each extension once, in its newest version. Returns what is wrong, a
 * text in the arena, and then part of it may have been added; or NULL. The text has to live as long
 * as isa. */
const char *rv64_isa_add(struct kld_arena *arena, struct rv64_isa *isa, struct kld_str text);
/* The string for all that was added, in the arena. */
char *rv64_isa_text(struct kld_arena *arena, const struct rv64_isa *isa);

#endif
