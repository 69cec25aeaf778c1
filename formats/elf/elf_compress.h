/* elf_compress.h - debug sections compressed with zlib or zstd: SHF_COMPRESSED, and GNU's older
 * .zdebug_ sections, on the way in. */
#ifndef KLD_ELF_COMPRESS_H
#define KLD_ELF_COMPRESS_H

#include "formats/elf/elf_object.h"

/* Whether section `shndx`, whose bytes are `in`, is compressed. */
bool elf_is_compressed(const struct elf_object *obj, uint32_t shndx, struct kld_bytes in);

/* Decompresses such a section into memory of the worker: *out, and *align, the alignment of what it
 * holds. False (reported) if it is malformed. */
bool elf_decompress(struct kld_session *ctx, struct kld_worker *worker,
                    const struct elf_object *obj, uint32_t shndx, struct kld_bytes in,
                    struct kld_bytes *out, uint64_t *align);

/* finish, after all other tables: --compress-debug-sections. Composes the .debug_ sections and
 * replaces them by what they compress to; moves what follows them in the file. */
void elf_compress_debug(struct kld_session *ctx);

#endif
