/* layout.h - output sections: finding and filling them, offsets of their atoms; writing. */
#ifndef KLD_SRC_LAYOUT_H
#define KLD_SRC_LAYOUT_H

#include "src/session.h"

/* The output section of that name, type and format flags, made if need be. Safe from any thread
 * while atoms are being made; ids depend on timing, the order of the output does not. arena: the calling
 * thread's. */
struct kld_section *kld_section_get(struct kld_session *ctx, struct kld_arena *arena,
                                    struct kld_str name, uint32_t type, uint64_t format_flags,
                                    uint64_t entsize);

/* A section that may share its name with others, and that no lookup finds. From the session's own
 * thread. The name is kept. */
struct kld_section *kld_section_new(struct kld_session *ctx, const char *name);

/* The section of that name, or NULL. */
struct kld_section *kld_section_find(struct kld_session *ctx, const char *name);

/* A linker-made atom of the internal file, live, at the end of the section. generate may be NULL
 * when data is set before writing. */
struct kld_atom *kld_atom_new(struct kld_session *ctx, struct kld_section *section, uint8_t flags,
                              uint8_t p2align, uint64_t size);

/* place: gathers the live atoms of every section, in input order, into section->atoms. */
void kld_gather(struct kld_session *ctx);

/* More than any address space has; sums of a few such sizes do not wrap. */
#define KLD_LARGEST_IMAGE ((uint64_t)1 << 48)

/* Offsets of the atoms in their section, its size and alignment. In parallel over sections. */
void kld_section_offsets(struct kld_session *ctx);

/* After the format fixed section addresses: turns atom offsets into addresses. */
void kld_fix_addresses(struct kld_session *ctx);

/* write.c: a run of whole atoms of one section, to be composed in one go. */
struct kld_chunk {
    struct kld_section *section;
    size_t first, end;     /* atoms */
    uint64_t start, limit; /* offsets in the section */
};
typedef KLD_VEC(struct kld_chunk) kld_chunk_list;

/* Bytes of a chunk, about, unless it is one larger atom. */
#define KLD_CHUNK ((uint64_t)512 << 10)

/* Cuts a section up, into chunks of about `size` bytes. */
void kld_chunks_add(struct kld_arena *arena, kld_chunk_list *chunks, struct kld_section *section,
                    uint64_t size);
/* Writes the chunk's bytes, limit - start of them, relocated. Addresses are final. */
void kld_chunk_compose(struct kld_session *ctx, struct kld_worker *worker,
                       const struct kld_chunk *chunk, uint8_t *buffer);

/* write.c: copies, applies and writes everything to session.output (open, of file_size bytes), in
 * parallel. */
void kld_write(struct kld_session *ctx);

#endif
