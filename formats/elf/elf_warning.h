/* elf_warning.h - warnings that libraries attach to symbols: elf_warning.c. */
#ifndef KLD_ELF_WARNING_H
#define KLD_ELF_WARNING_H

#include "formats/elf/elf_object.h"

/* Says what the .gnu.warning.SYMBOL sections of live objects say, for symbols in use. */
void elf_warn_of_symbols(struct kld_session *ctx);

#endif
