/* rv64_insn.h - fields of RISC-V instructions: written into words that hold the rest already.
 *
 * The RISC-V Instruction Set Manual, Volume I, "Base Instruction Formats" and "Compressed Instruction
 * Formats". Values are cut to the field: whoever calls has checked their range. */
#ifndef KLD_RV64_INSN_H
#define KLD_RV64_INSN_H

#include "src/bytes.h"

enum { RV64_NOP = 0x13, RV64_C_NOP = 0x0001 };
enum { RV64_ZERO = 0, RV64_SP = 2, RV64_GP = 3, RV64_TP = 4, RV64_A0 = 10 };

/* Bits [lo, lo + width) of a value, at bit `at`. */
static inline uint32_t rv64_bits(uint64_t value, unsigned lo, unsigned width, unsigned at)
{
    return (uint32_t)(value >> lo & ((1ull << width) - 1)) << at;
}

static inline bool rv64_fits(uint64_t value, unsigned bits)
{
    int64_t v = (int64_t)value, limit = 1ll << (bits - 1);
    return v >= -limit && v < limit;
}

static inline unsigned rv64_rd(const uint8_t *p)
{
    return kld_get32(p) >> 7 & 31;
}

/* auipc, lui: the upper 20 bits, rounded so that a signed 12-bit offset makes up for the rest */
static inline void rv64_put_u(uint8_t *p, uint64_t value)
{
    kld_put32(p, (kld_get32(p) & 0xfff) | (uint32_t)((value + 0x800) & 0xfffff000));
}

/* addi, loads, jalr */
static inline void rv64_put_i(uint8_t *p, uint64_t value)
{
    kld_put32(p, (kld_get32(p) & 0x000fffff) | rv64_bits(value, 0, 12, 20));
}

/* stores */
static inline void rv64_put_s(uint8_t *p, uint64_t value)
{
    kld_put32(p,
              (kld_get32(p) & 0x01fff07f) | rv64_bits(value, 5, 7, 25) | rv64_bits(value, 0, 5, 7));
}

/* beq and its kin: 13 bits, even */
static inline void rv64_put_b(uint8_t *p, uint64_t value)
{
    kld_put32(p, (kld_get32(p) & 0x01fff07f) | rv64_bits(value, 12, 1, 31) |
                     rv64_bits(value, 5, 6, 25) | rv64_bits(value, 1, 4, 8) |
                     rv64_bits(value, 11, 1, 7));
}

/* jal: 21 bits, even */
static inline void rv64_put_j(uint8_t *p, uint64_t value)
{
    kld_put32(p, (kld_get32(p) & 0xfff) | rv64_bits(value, 20, 1, 31) |
                     rv64_bits(value, 1, 10, 21) | rv64_bits(value, 11, 1, 20) |
                     rv64_bits(value, 12, 8, 12));
}

/* c.beqz, c.bnez: 9 bits, even */
static inline void rv64_put_cb(uint8_t *p, uint64_t value)
{
    kld_put16(p, (uint16_t)((kld_get16(p) & 0xe383) | rv64_bits(value, 8, 1, 12) |
                            rv64_bits(value, 3, 2, 10) | rv64_bits(value, 6, 2, 5) |
                            rv64_bits(value, 1, 2, 3) | rv64_bits(value, 5, 1, 2)));
}

/* c.j: 12 bits, even */
static inline void rv64_put_cj(uint8_t *p, uint64_t value)
{
    kld_put16(p, (uint16_t)((kld_get16(p) & 0xe003) | rv64_bits(value, 11, 1, 12) |
                            rv64_bits(value, 4, 1, 11) | rv64_bits(value, 8, 2, 9) |
                            rv64_bits(value, 10, 1, 8) | rv64_bits(value, 6, 1, 7) |
                            rv64_bits(value, 7, 1, 6) | rv64_bits(value, 1, 3, 3) |
                            rv64_bits(value, 5, 1, 2)));
}

/* c.lui rd, of the upper 20 bits as in lui: six bits of them, not 0 */
static inline void rv64_put_c_lui(uint8_t *p, unsigned rd, uint64_t value)
{
    uint64_t high = (value + 0x800) >> 12;
    kld_put16(p,
              (uint16_t)(0x6001 | rd << 7 | rv64_bits(high, 5, 1, 12) | rv64_bits(high, 0, 5, 2)));
}

/* The base register of an addi, a load or a store */
static inline void rv64_put_rs1(uint8_t *p, unsigned reg)
{
    kld_put32(p, (kld_get32(p) & ~(31u << 15)) | reg << 15);
}

#endif
