/* x64_plt.c - the shapes of PLT entries (psABI 5.2 "Procedure Linkage Table", and its section on
 * IBT: the lazy half stays in .plt, what is called moves to .plt.sec).
 *
 * Displacements are relative to the end of the instruction. Distances are those within one image
 * of less than 2 GiB, which layout sees to. */
#include "arch/x86_64/x64_plt.h"

/* Writes the displacement at out + field, where the instruction ends, to the target. */
static void put_rel(uint8_t *out, uint64_t at, unsigned field, uint64_t target)
{
    kld_put32(out + field, (uint32_t)(target - (at + field + 4)));
}

void x64_plt_header(uint8_t *out, uint64_t at, uint64_t got)
{
    static const uint8_t code[X64_PLT_HEADER_SIZE] = {
        0xff, 0x35, 0,    0,    0, 0, /* pushq GOT+8(%rip) */
        0xff, 0x25, 0,    0,    0, 0, /* jmp *GOT+16(%rip) */
        0x0f, 0x1f, 0x40, 0x00,       /* nopl 0(%rax) */
    };
    memcpy(out, code, sizeof(code));
    put_rel(out, at, 2, got + 8);
    put_rel(out, at, 8, got + 16);
}

void x64_plt_lazy(uint8_t *out, uint64_t at, uint64_t slot, uint32_t n, uint64_t header)
{
    static const uint8_t code[X64_PLT_ENTRY_SIZE] = {
        0xff, 0x25, 0, 0, 0, 0, /* jmp *slot(%rip) */
        0x68, 0,    0, 0, 0,    /* pushq $n */
        0xe9, 0,    0, 0, 0,    /* jmp header */
    };
    memcpy(out, code, sizeof(code));
    put_rel(out, at, 2, slot);
    kld_put32(out + 7, n);
    put_rel(out, at, 12, header);
}

void x64_plt_bound(uint8_t *out, uint64_t at, uint64_t slot)
{
    memset(out, 0xcc, X64_PLT_ENTRY_SIZE); /* int3 */
    out[0] = 0xff;                         /* jmp *slot(%rip) */
    out[1] = 0x25;
    put_rel(out, at, 2, slot);
}

void x64_plt_lazy_ibt(uint8_t *out, uint64_t at, uint32_t n, uint64_t header)
{
    static const uint8_t code[X64_PLT_ENTRY_SIZE] = {
        0xf3, 0x0f, 0x1e, 0xfa,    /* endbr64 */
        0x68, 0,    0,    0,    0, /* pushq $n */
        0xe9, 0,    0,    0,    0, /* jmp header */
        0x66, 0x90,                /* xchg %ax,%ax */
    };
    memcpy(out, code, sizeof(code));
    kld_put32(out + 5, n);
    put_rel(out, at, 10, header);
}

void x64_plt_ibt(uint8_t *out, uint64_t at, uint64_t slot)
{
    static const uint8_t code[X64_PLT_ENTRY_SIZE] = {
        0xf3, 0x0f, 0x1e, 0xfa,             /* endbr64 */
        0xff, 0x25, 0,    0,    0,    0,    /* jmp *slot(%rip) */
        0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00, /* nopw 0(%rax,%rax,1) */
    };
    memcpy(out, code, sizeof(code));
    put_rel(out, at, 6, slot);
}

void x64_plt_short(uint8_t *out, uint64_t at, uint64_t slot)
{
    static const uint8_t code[X64_PLT_GOT_ENTRY_SIZE] = {
        0xff, 0x25, 0, 0, 0, 0, /* jmp *slot(%rip) */
        0x66, 0x90,             /* xchg %ax,%ax */
    };
    memcpy(out, code, sizeof(code));
    put_rel(out, at, 2, slot);
}
