/* a64_insn.h - fields of A64 instructions: written into words that hold the rest already.
 *
 * Arm Architecture Reference Manual, C4 "A64 Instruction Set Encoding". Values are cut to the
 * field: whoever calls has checked their range. */
#ifndef KLD_A64_INSN_H
#define KLD_A64_INSN_H

#include "src/bytes.h"

/* Whole instructions, all operands 0 */
enum {
    A64_INSN_NOP = 0xd503201f,
    A64_INSN_BTI_C = 0xd503245f,
    A64_INSN_ADR = 0x10000000,
    A64_INSN_ADRP = 0x90000000,
    A64_INSN_ADD64 = 0x91000000, /* add x0, x0, #0 */
    A64_INSN_LDR64 = 0xf9400000, /* ldr x0, [x0] */
    A64_INSN_LDR64_LITERAL = 0x58000000,
    A64_INSN_MOVZ_LSL16 = 0xd2a00000, /* movz x0, #0, lsl #16 */
    A64_INSN_MOVK = 0xf2800000,       /* movk x0, #0 */
};

/* bits [lo, lo + width) of the word at p */
static inline void a64_put_bits(uint8_t *p, unsigned lo, unsigned width, uint64_t value)
{
    uint32_t mask = (width == 32 ? ~0u : (1u << width) - 1) << lo;
    kld_put32(p, (kld_get32(p) & ~mask) | ((uint32_t)(value << lo) & mask));
}

static inline uint64_t a64_page(uint64_t address)
{
    return address & ~(uint64_t)0xfff;
}

/* Whether an instruction is one of the last two of a page. */
static inline bool a64_ends_page(uint64_t address)
{
    return (address & 0xfff) >= 0xff8;
}

/* adr, adrp: immlo in bits 29-30, immhi in bits 5-23 */
static inline void a64_put_adr(uint8_t *p, uint64_t value)
{
    a64_put_bits(p, 29, 2, value);
    a64_put_bits(p, 5, 19, value >> 2);
}

/* adrp of the page distance from `at` */
static inline void a64_put_adrp(uint8_t *p, uint64_t at, uint64_t target)
{
    a64_put_adr(p, (a64_page(target) - a64_page(at)) >> 12);
}

/* add (immediate), and loads and stores with an unsigned offset, scaled by 1 << scale */
static inline void a64_put_imm12(uint8_t *p, uint64_t value, unsigned scale)
{
    a64_put_bits(p, 10, 12, (value & 0xfff) >> scale);
}

/* bti c, bti j, bti jc */
static inline bool a64_is_bti(uint32_t insn)
{
    return insn == A64_INSN_BTI_C || insn == 0xd503249f || insn == 0xd50324df;
}

/* What an indirect branch may go to on guarded pages: these, paciasp and pacibsp. */
static inline bool a64_is_landing_pad(uint32_t insn)
{
    return a64_is_bti(insn) || insn == 0xd503233f || insn == 0xd503237f;
}

static inline bool a64_is_adrp(uint32_t insn)
{
    return (insn & 0x9f000000) == 0x90000000;
}

#endif
