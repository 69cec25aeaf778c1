/* elf_names.h - which output section an input section goes to, by name, type and flags. */
#ifndef KLD_ELF_NAMES_H
#define KLD_ELF_NAMES_H

#include "formats/elf/elf_object.h"

/* The sections that the names of one object led to last: most of its sections go to a few. */
struct elf_name_cache {
    struct elf_name_cache_entry {
        struct kld_section *section;
        uint64_t flags, entsize;
        uint32_t type;
    } entries[16];
};

/* Sets the atom's output section, and `unit` and `ordered`, by the name of its input section. The cache
 * is of the object at hand. */
void elf_set_output_section(struct kld_session *ctx, struct kld_arena *arena, struct kld_atom *atom,
                            struct elf_name_cache *cache);

/* Where an input section goes in .text: smaller numbers are in front, most are the last one. */
enum { ELF_TEXT_ORDERS = 5 };
unsigned elf_text_order(const char *name);

/* Whether sections of that name are debug information: what --strip-debug drops. */
bool elf_is_debug_name(struct kld_str name);

#endif
