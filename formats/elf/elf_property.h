/* elf_property.h - .note.gnu.property: what all objects agree on. */
#ifndef KLD_ELF_PROPERTY_H
#define KLD_ELF_PROPERTY_H

#include "formats/elf/elf_object.h"

/* Merges the properties of all objects; once, after bind_all and before what asks for them. Reads
 * elf_object.property_section. */
void elf_property_merge(struct kld_session *ctx);

/* GNU_PROPERTY_..._FEATURE_1_AND of the output: IBT and SHSTK, or BTI and PAC. */
uint32_t elf_property_feature_1(const struct kld_session *ctx);

/* Size of the merged note (section alignment 8), 0 if there is nothing to say. Its contents, as
 * generate() of an atom. */
uint64_t elf_property_size(const struct kld_session *ctx);
void elf_property_write(struct kld_session *ctx, struct kld_worker *worker,
                        const struct kld_atom *atom, uint8_t *out);

#endif
