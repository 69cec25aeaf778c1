/* elf_local.h - local symbols of an object, for messages and the map file. */
#ifndef KLD_ELF_LOCAL_H
#define KLD_ELF_LOCAL_H

#include "formats/elf/elf_object.h"

/* The member of kld_format_ops of this name. */
bool elf_local(const struct kld_file *file, uint32_t i, struct kld_local *out);

#endif
