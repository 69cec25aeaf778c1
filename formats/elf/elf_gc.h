/* elf_gc.h - the edges of an ELF object's atoms, and what --gc-sections keeps. */
#ifndef KLD_ELF_GC_H
#define KLD_ELF_GC_H

#include "formats/elf/elf_object.h"

/* One relocation as the core sees it; false if it leads nowhere. */
bool elf_edge(const struct kld_session *ctx, const struct elf_object *obj, const elf_rela *rel,
              struct kld_edge *e);

/* Names of sections that __start_ and __stop_ symbols may refer to. */
bool elf_is_c_identifier(const char *s);

/* The members of kld_format_ops of these names. */
uint32_t elf_own_symbols(const struct kld_file *file);
size_t elf_edges(struct kld_session *ctx, const struct kld_atom *atom, size_t *from,
                 struct kld_edge *out, size_t cap, const struct kld_seen *seen);
void elf_gc_roots(struct kld_session *ctx, kld_mark *mark);
void elf_gc_follow(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom,
                   kld_mark *mark);
void elf_gc_symbol(struct kld_session *ctx, struct kld_worker *worker, const struct kld_symbol *sym,
                   kld_mark *mark);
struct kld_str elf_atom_name(const struct kld_atom *atom);

#endif
