/* elf_binary.h - `-b binary`: elf_binary.c. */
#ifndef KLD_ELF_BINARY_H
#define KLD_ELF_BINARY_H

#include "formats/elf/elf_object.h"

/* The member of kld_format_ops of this name: bytes of any kind as an object of the link's CPU.
 * From the session's arena. */
struct kld_bytes elf_binary_object(struct kld_session *ctx, const char *name,
                                   struct kld_bytes bytes);

#endif
