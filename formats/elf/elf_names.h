/* elf_names.h - which output section an input section goes to, by name, type and flags. */
#ifndef KLD_ELF_NAMES_H
#define KLD_ELF_NAMES_H

#include "formats/elf/elf_object.h"

/* Sets the atom's output section, and `unit` and `ordered`, by the name of its input section. */
void elf_set_output_section(struct kld_session *ctx, struct kld_worker *worker,
                            struct kld_atom *atom);

/* What that needs, one for each worker. */
struct elf_name_cache *elf_name_caches_new(struct kld_session *ctx);

/* Where an input section goes in .text: smaller numbers are in front, most are the last one. */
enum { ELF_TEXT_ORDERS = 5 };
unsigned elf_text_order(const char *name);

/* Whether sections of that name are debug information: what --strip-debug drops. */
bool elf_is_debug_name(struct kld_str name);

#endif
