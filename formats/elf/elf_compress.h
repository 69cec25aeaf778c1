/* elf_compress.h - SHF_COMPRESSED: debug sections compressed with zlib or zstd. */
#ifndef KLD_ELF_COMPRESS_H
#define KLD_ELF_COMPRESS_H

#include "formats/elf/elf_object.h"

/* Decompresses section `shndx`, whose bytes are `in`, into memory of the worker: *out, and *align,
 * the alignment of what it holds. False (reported) if it is malformed. */
bool elf_decompress(struct kld_session *ctx, struct kld_worker *worker,
                    const struct elf_object *obj, uint32_t shndx, struct kld_bytes in,
                    struct kld_bytes *out, uint64_t *align);

/* finish, after all other tables: --compress-debug-sections. Composes the .debug_ sections and
 * replaces them by what they compress to; moves what follows them in the file. */
void elf_compress_debug(struct kld_session *ctx);

#endif
