/* x64_relax.c - instruction forms, as bytes before and after the relocated field.
 *
 * ModRM is mod:2 reg:3 rm:3. A RIP-relative operand is mod 00, rm 101: 05 with the register in
 * bits 3-5. REX is 0100WRXB: W 64-bit operands, R the fourth bit of reg, B that of rm. When a
 * register moves from reg to rm, REX.R becomes REX.B. */
#include "arch/x86_64/x64_relax.h"

enum { REX_B = 1, REX_R = 4, REX_W = 8 };

static bool is_rex(uint8_t byte)
{
    return (byte & 0xf0) == 0x40;
}

static bool is_rip_operand(uint8_t modrm)
{
    return (modrm & 0xc7) == 0x05;
}

static uint8_t reg_of(uint8_t modrm)
{
    return modrm >> 3 & 7;
}

/* REX with the register moved from reg to rm. */
static uint8_t rex_reg_to_rm(uint8_t rex)
{
    return (uint8_t)((rex & ~(REX_R | REX_B)) | (rex & REX_R ? REX_B : 0));
}

/* Whether data[offset, offset + n) is bytes. */
static bool matches(struct kld_bytes data, uint64_t offset, const uint8_t *bytes, size_t n)
{
    return kld_in_bounds(offset, n, data.len) && memcmp(data.ptr + offset, bytes, n) == 0;
}

/* ---- GOTPCRELX ---- */

/* opcode   instruction with a memory operand (r: reg is the destination)
 * 8b       mov  foo(%rip), %r
 * 85       test %r, foo(%rip)
 * 03 0b 13 1b 23 2b 33 3b   add or adc sbb and sub xor cmp  foo(%rip), %r
 * ff 15    call *foo(%rip)
 * ff 25    jmp  *foo(%rip) */
enum x64_got_use x64_got_use(struct kld_bytes data, uint64_t offset, bool rex)
{
    if (offset < (rex ? 3u : 2u) || !kld_in_bounds(offset, 4, data.len))
        return X64_USE_OTHER;
    const uint8_t *p = data.ptr + offset;
    if (rex && !is_rex(p[-3]))
        return X64_USE_OTHER;
    if (!rex && p[-2] == 0xff)
        return p[-1] == 0x15 ? X64_USE_CALL : p[-1] == 0x25 ? X64_USE_JMP : X64_USE_OTHER;
    if (!is_rip_operand(p[-1]))
        return X64_USE_OTHER;
    if (p[-2] == 0x8b)
        return X64_USE_MOV;
    return p[-2] == 0x85 || (p[-2] & 0xc7) == 0x03 ? X64_USE_BINOP : X64_USE_OTHER;
}

void x64_mov_to_lea(uint8_t *field)
{
    field[-2] = 0x8d; /* lea foo(%rip), %r */
}

void x64_got_to_call(uint8_t *field)
{
    field[-2] = 0x67; /* addr32 */
    field[-1] = 0xe8; /* call foo */
}

void x64_got_to_jmp(uint8_t *field)
{
    field[-2] = 0xe9; /* jmp foo */
    field[3] = 0x90;  /* nop */
}

void x64_got_to_immediate(uint8_t *field, bool rex)
{
    uint8_t opcode = field[-2], reg = reg_of(field[-1]);
    if (rex)
        field[-3] = rex_reg_to_rm(field[-3]);
    if (opcode == 0x8b) {
        field[-2] = 0xc7; /* mov $foo, %r: c7 /0 */
        field[-1] = 0xc0 | reg;
    } else if (opcode == 0x85) {
        field[-2] = 0xf7; /* test $foo, %r: f7 /0 */
        field[-1] = 0xc0 | reg;
    } else {
        field[-2] = 0x81; /* op $foo, %r: 81 /n, n as in the opcode */
        field[-1] = (uint8_t)(0xc0 | (opcode & 0x38) | reg);
    }
}

/* ---- __tls_get_addr ---- */

/* movabs $__tls_get_addr@PLTOFF, %rax   48 b8 <8>
 * add %got, %rax                        48|4c 01 <11 reg 000>
 * call *%rax                            ff d0 */
static bool is_large_call(struct kld_bytes data, uint64_t offset)
{
    static const uint8_t movabs[] = {0x48, 0xb8}, call[] = {0xff, 0xd0};
    if (!matches(data, offset, movabs, 2) || !matches(data, offset + 13, call, 2))
        return false;
    const uint8_t *add = data.ptr + offset + 10;
    return (add[0] & ~REX_R) == 0x48 && add[1] == 0x01 && (add[2] & 0xc7) == 0xc0;
}

/*      66 48 8d 3d <4>   data16 lea x@TLSGD(%rip), %rdi
 *      66 66 48 e8 <4>   data16 data16 rex.W call __tls_get_addr@PLT
 * or   66 48 ff 15 <4>   data16 rex.W call *__tls_get_addr@GOTPCREL(%rip)
 * Large: without the first prefix, and is_large_call. */
enum x64_tls_call x64_gd_call(struct kld_bytes data, uint64_t offset, uint64_t *second)
{
    static const uint8_t lea[] = {0x66, 0x48, 0x8d, 0x3d};
    static const uint8_t direct[] = {0x66, 0x66, 0x48, 0xe8}, indirect[] = {0x66, 0x48, 0xff, 0x15};
    if (offset < 3 || !matches(data, offset - 3, lea + 1, 3))
        return X64_CALL_UNKNOWN;
    if (is_large_call(data, offset + 4)) {
        *second = offset + 6;
        return X64_CALL_LARGE;
    }
    if (offset < 4 || data.ptr[offset - 4] != lea[0] || !kld_in_bounds(offset, 12, data.len))
        return X64_CALL_UNKNOWN;
    *second = offset + 8;
    return matches(data, offset + 4, direct, 4)     ? X64_CALL_DIRECT
           : matches(data, offset + 4, indirect, 4) ? X64_CALL_INDIRECT
                                                    : X64_CALL_UNKNOWN;
}

/*      48 8d 3d <4>   lea x@TLSLD(%rip), %rdi
 *      e8 <4>         call __tls_get_addr@PLT
 * or   ff 15 <4>      call *__tls_get_addr@GOTPCREL(%rip)
 * Large: is_large_call. */
enum x64_tls_call x64_ld_call(struct kld_bytes data, uint64_t offset, uint64_t *second)
{
    static const uint8_t lea[] = {0x48, 0x8d, 0x3d}, direct[] = {0xe8}, indirect[] = {0xff, 0x15};
    if (offset < 3 || !matches(data, offset - 3, lea, 3))
        return X64_CALL_UNKNOWN;
    if (is_large_call(data, offset + 4)) {
        *second = offset + 6;
        return X64_CALL_LARGE;
    }
    if (matches(data, offset + 4, direct, 1) && kld_in_bounds(offset, 9, data.len)) {
        *second = offset + 5;
        return X64_CALL_DIRECT;
    }
    if (matches(data, offset + 4, indirect, 2) && kld_in_bounds(offset, 10, data.len)) {
        *second = offset + 6;
        return X64_CALL_INDIRECT;
    }
    return X64_CALL_UNKNOWN;
}

/* mov %fs:0, %rax */
#define MOV_FS_RAX 0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0

/* The 16 bytes of both small forms, or the 22 of the large one, become
 *      mov %fs:0, %rax
 *      <three bytes of an instruction that changes %rax> <4>
 *      nopw 0(%rax,%rax,1)     large only */
static uint8_t *rewrite_gd(uint8_t *field, enum x64_tls_call call, const uint8_t *insn)
{
    static const uint8_t mov[] = {MOV_FS_RAX};
    static const uint8_t nop6[] = {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00};
    uint8_t *out = call == X64_CALL_LARGE ? field - 3 : field - 4;
    memcpy(out, mov, 9);
    memcpy(out + 9, insn, 3);
    if (call == X64_CALL_LARGE)
        memcpy(out + 16, nop6, 6);
    return out + 12;
}

uint8_t *x64_gd_to_le(uint8_t *field, enum x64_tls_call call)
{
    static const uint8_t lea[] = {0x48, 0x8d, 0x80}; /* lea x@TPOFF(%rax), %rax */
    return rewrite_gd(field, call, lea);
}

uint8_t *x64_gd_to_ie(uint8_t *field, enum x64_tls_call call)
{
    static const uint8_t add[] = {0x48, 0x03, 0x05}; /* add x@GOTTPOFF(%rip), %rax */
    return rewrite_gd(field, call, add);
}

void x64_ld_to_le(uint8_t *field, enum x64_tls_call call)
{
    /* The sequences have 12, 13 and 22 bytes: prefixes without effect and a nop fill up. */
    static const uint8_t mov[] = {0x66, 0x66, 0x66, 0x66, MOV_FS_RAX};
    static const uint8_t nop10[] = {0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0, 0, 0, 0};
    uint8_t *out = field - 3;
    if (call == X64_CALL_INDIRECT) {
        memcpy(out, mov, 13);
        return;
    }
    memcpy(out, mov + 1, 12);
    if (call == X64_CALL_LARGE)
        memcpy(out + 12, nop10, 10); /* nopw %cs:0(%rax,%rax,1) */
}

/* ---- GOTTPOFF ---- */

/* REX.W 8b|03 05   mov|add x@GOTTPOFF(%rip), %r */
bool x64_ie_is_relaxable(struct kld_bytes data, uint64_t offset)
{
    if (offset < 3 || !kld_in_bounds(offset, 4, data.len))
        return false;
    const uint8_t *p = data.ptr + offset;
    return (p[-3] & ~REX_R) == 0x48 && (p[-2] == 0x8b || p[-2] == 0x03) && is_rip_operand(p[-1]);
}

void x64_ie_to_le(uint8_t *field)
{
    uint8_t reg = reg_of(field[-1]), extended = field[-3] & REX_R;
    if (field[-2] == 0x8b) {
        field[-3] = rex_reg_to_rm(field[-3]);
        field[-2] = 0xc7; /* mov $x@TPOFF, %r: c7 /0 */
        field[-1] = 0xc0 | reg;
    } else if (reg == 4) {
        field[-3] = rex_reg_to_rm(field[-3]);
        field[-2] = 0x81; /* add $x@TPOFF, %r: 81 /0; %rsp and %r12 as a base need one byte more */
        field[-1] = 0xc0 | reg;
    } else {
        field[-3] = (uint8_t)(0x48 | (extended ? REX_R | REX_B : 0));
        field[-2] = 0x8d; /* lea x@TPOFF(%r), %r: mod 10 */
        field[-1] = (uint8_t)(0x80 | reg << 3 | reg);
    }
}

/* ---- TLSDESC ---- */

/* REX.W 8d 05     lea x@TLSDESC(%rip), %r
 * d5 <4x> 8d 05   the same with REX2: M0 (two-byte opcodes), R4, X4, B4, then W, R, X, B */
bool x64_desc_is_lea(struct kld_bytes data, uint64_t offset, bool rex2)
{
    if (offset < (rex2 ? 4u : 3u) || !kld_in_bounds(offset, 4, data.len))
        return false;
    const uint8_t *p = data.ptr + offset;
    bool wide = rex2 ? p[-4] == 0xd5 && (p[-3] & 0x88) == REX_W : (p[-3] & ~REX_R) == 0x48;
    return wide && p[-2] == 0x8d && is_rip_operand(p[-1]);
}

void x64_desc_to_le(uint8_t *field)
{
    field[-3] = rex_reg_to_rm(field[-3]);
    field[-2] = 0xc7; /* mov $x@TPOFF, %r: c7 /0 */
    field[-1] = 0xc0 | reg_of(field[-1]);
}

void x64_desc_to_ie(uint8_t *field)
{
    field[-2] = 0x8b; /* mov x@GOTTPOFF(%rip), %r */
}

bool x64_desc_is_call(struct kld_bytes data, uint64_t offset)
{
    static const uint8_t call[] = {0xff, 0x10}; /* call *(%rax) */
    return matches(data, offset, call, 2);
}

void x64_desc_call_to_nop(uint8_t *insn)
{
    insn[0] = 0x66; /* xchg %ax, %ax */
    insn[1] = 0x90;
}
