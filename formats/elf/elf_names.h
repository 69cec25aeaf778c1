/* elf_names.h - which output section an input section goes to, by name, type and flags. */
#ifndef KLD_ELF_NAMES_H
#define KLD_ELF_NAMES_H

#include "formats/elf/elf_object.h"

/* The sections that the names of one object led to last: most of its sections go to a few. */
struct elf_name_cache {
    struct {
        struct kld_section *section;
        uint64_t flags, entsize;
        uint32_t type;
    } entries[16];
};

/* The output section of input section i, and whether that has its name. The cache is of the object at
 * hand. */
struct kld_section *elf_output_section(struct kld_session *ctx, struct kld_arena *arena,
                                       const struct elf_object *obj, uint32_t i,
                                       struct elf_name_cache *cache, bool *unit);

/* Whether sections of that name are debug information: what --strip-debug drops. */
bool elf_is_debug_name(struct kld_str name);

#endif
