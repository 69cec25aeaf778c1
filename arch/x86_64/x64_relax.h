/* x64_relax.h - instructions that refer to the GOT or to thread-local storage, recognised and
 * rewritten (psABI B.2 "Optimize GOTPCRELX relocations", 4.4/11 "Code models: thread-local
 * storage", and the TLS supplement). Bytes only: what to rewrite is decided elsewhere.
 *
 * `offset` is that of the relocated field in the section's bytes `data` of `size` bytes; the
 * writers get a pointer to the same field in the output. */
#ifndef KLD_X64_RELAX_H
#define KLD_X64_RELAX_H

#include "src/bytes.h"

/* ---- uses of a GOT slot: GOTPCRELX, REX_GOTPCRELX ---- */

enum x64_got_use {
    X64_USE_OTHER,
    X64_USE_MOV,   /* mov foo@GOTPCREL(%rip), %reg */
    X64_USE_CALL,  /* call *foo@GOTPCREL(%rip) */
    X64_USE_JMP,   /* jmp *foo@GOTPCREL(%rip) */
    X64_USE_BINOP, /* test, add, or, adc, sbb, and, sub, xor, cmp with a register */
};

enum x64_got_use x64_got_use(struct kld_bytes data, uint64_t offset, bool rex);

/* mov to lea foo(%rip), %reg; the field stays, and holds foo - P. */
void x64_mov_to_lea(uint8_t *field);
/* call to addr32 call foo; the field stays. */
void x64_got_to_call(uint8_t *field);
/* jmp to jmp foo; nop. The field moves to field - 1. */
void x64_got_to_jmp(uint8_t *field);
/* mov or binop to the same with $foo; the field stays. It is sign-extended if the operation has
 * 64 bits. */
void x64_got_to_immediate(uint8_t *field, bool rex);

/* ---- calls of __tls_get_addr: TLSGD, TLSLD ---- */

enum x64_tls_call {
    X64_CALL_UNKNOWN,
    X64_CALL_DIRECT,   /* call __tls_get_addr@PLT */
    X64_CALL_INDIRECT, /* call *__tls_get_addr@GOTPCREL(%rip), -fno-plt */
    X64_CALL_LARGE,    /* movabs $__tls_get_addr@PLTOFF, %rax; add %got, %rax; call *%rax */
};

/* Which sequence the field belongs to; *second is the offset of the call's own relocation. */
enum x64_tls_call x64_gd_call(struct kld_bytes data, uint64_t offset, uint64_t *second);
enum x64_tls_call x64_ld_call(struct kld_bytes data, uint64_t offset, uint64_t *second);

/* General dynamic to local exec or initial exec: returns the new field (32 bits), which holds
 * x@TPOFF, or the distance to the GOT slot from the end of the field. */
uint8_t *x64_gd_to_le(uint8_t *field, enum x64_tls_call call);
uint8_t *x64_gd_to_ie(uint8_t *field, enum x64_tls_call call);
/* Local dynamic to local exec: the thread pointer in place of the module's block; no field. */
void x64_ld_to_le(uint8_t *field, enum x64_tls_call call);

/* ---- loads of an offset: GOTTPOFF ---- */

/* mov or add foo@GOTTPOFF(%rip), %reg; anything else is left alone. */
bool x64_ie_is_relaxable(struct kld_bytes data, uint64_t offset);
/* To mov $x@TPOFF, %reg or lea x@TPOFF(%reg), %reg; the field stays. */
void x64_ie_to_le(uint8_t *field);

/* ---- descriptors: GOTPC32_TLSDESC, TLSDESC_CALL ---- */

/* lea x@TLSDESC(%rip), %reg; with a REX2 prefix, or with REX */
bool x64_desc_is_lea(struct kld_bytes data, uint64_t offset, bool rex2);
void x64_desc_to_le(uint8_t *field); /* mov $x@TPOFF, %reg; the field stays; not with REX2 */
void x64_desc_to_ie(uint8_t *field); /* mov x@GOTTPOFF(%rip), %reg; the field stays */
/* call *x@TLSCALL(%rax): offset is that of the instruction. */
bool x64_desc_is_call(struct kld_bytes data, uint64_t offset);
void x64_desc_call_to_nop(uint8_t *insn);

#endif
