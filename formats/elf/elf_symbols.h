/* elf_symbols.h - what becomes of symbols once their definitions are known. */
#ifndef KLD_ELF_SYMBOLS_H
#define KLD_ELF_SYMBOLS_H

#include "formats/elf/elf_object.h"

/* format.begin: the state, from the options; names that options refer to. */
void elf_begin(struct kld_session *ctx);

/* format.bind_all: linker-defined symbols, COMMON, versions; exported, imported, preemptible. */
void elf_bind_all(struct kld_session *ctx);

/* Once addresses are assigned: values of the linker-defined symbols and of --defsym, and
 * elf_link.addresses. */
void elf_fix_symbols(struct kld_session *ctx);

/* Ids of the symbols that test(arg, symbol) holds for, in their order, from the session's arena. All threads look. */
typedef KLD_VEC(kld_symid) elf_symid_list;
typedef bool elf_symbol_test(const void *arg, const struct kld_symbol *sym);
elf_symid_list elf_symbols_where(struct kld_session *ctx, elf_symbol_test *test, const void *arg);

/* A symbol that the linker defines, hidden, at an output section (or absolute if NULL): only if
 * something refers to it and nothing defines it. value is relative to the section's start. */
struct kld_symbol *elf_provide(struct kld_session *ctx, const char *name);

#endif
