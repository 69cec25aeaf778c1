/* elf_icf.h - --icf for ELF: what may be folded. */
#ifndef KLD_ELF_ICF_H
#define KLD_ELF_ICF_H

#include "formats/elf/elf_object.h"

/* The members of kld_format_ops of these names. */
void elf_icf_keep(struct kld_session *ctx, kld_mark *keep);
void elf_icf_more(struct kld_session *ctx, const struct kld_atom *atom, struct kld_sink *sink);

#endif
