/* x64_plt.h - the shapes of PLT entries: bytes for given addresses, of no format in particular. */
#ifndef KLD_X64_PLT_H
#define KLD_X64_PLT_H

#include "src/bytes.h"

enum {
    X64_PLT_HEADER_SIZE = 16,
    X64_PLT_ENTRY_SIZE = 16,
    X64_PLT_GOT_ENTRY_SIZE = 8,
    X64_PLT_GOT_ENTRY_SIZE_IBT = 16,
    X64_PLT_PUSH = 6, /* where in a lazy entry its slot points at first */
};

/* The header at `at`: pushes GOT[1] and jumps to GOT[2], the dynamic linker's resolver. */
void x64_plt_header(uint8_t *out, uint64_t at, uint64_t got);

/* Entry n at `at`: jumps through the slot, which at first leads back to push n; jmp header. */
void x64_plt_lazy(uint8_t *out, uint64_t at, uint64_t slot, uint32_t n, uint64_t header);

/* The same without a way back: the slot is filled before anything runs. */
void x64_plt_bound(uint8_t *out, uint64_t at, uint64_t slot);

/* Entry n with IBT: only the way back; the jump is x64_plt_ibt's. */
void x64_plt_lazy_ibt(uint8_t *out, uint64_t at, uint32_t n, uint64_t header);

/* A jump through the slot that an indirect branch may land on: 16 bytes. */
void x64_plt_ibt(uint8_t *out, uint64_t at, uint64_t slot);

/* A jump through the slot: 8 bytes. */
void x64_plt_short(uint8_t *out, uint64_t at, uint64_t slot);

#endif
