/* elf_compress.c - SHF_COMPRESSED: debug sections compressed with zlib or zstd.
 *
 * A compressed section starts with a header that says how large it is when unpacked. That number
 * comes from a file, so it is believed only as far as the compressed bytes could possibly go:
 * deflate cannot do better than 1,032 to 1, and what goes beyond that with zstd is a bomb rather
 * than debug information. The libraries get their memory from us.
 *
 * Sources: gABI, "Compressed sections"; RFC 1950; RFC 8878. */
#define ZSTD_STATIC_LINKING_ONLY
#include "formats/elf/elf_compress.h"
#include <zlib.h>
#include <zstd.h>

enum {
    BEST_RATIO = 1032,
    SMALL = 1 << 20, /* bytes that any section may unpack to */
};

typedef Elf64_Chdr elf_chdr __attribute__((aligned(1)));

static bool bad_section(struct kld_session *ctx, const struct elf_object *obj, uint32_t shndx,
                        const char *text)
{
    struct kld_where where = {
        .file = &obj->base, .section = elf_section_name(obj, shndx).ptr, .order = shndx};
    kld_error(ctx, "bad-compressed-section", &where, "compressed section: %s", text);
    return false;
}

/* ---- unpacking ---- */

/* zlib asks for a few blocks and returns them all at the end. */
struct bump {
    uint8_t *ptr;
    size_t left;
};

enum { INFLATE_MEMORY = 64 << 10 };

static voidpf bump_alloc(voidpf opaque, uInt items, uInt size)
{
    struct bump *b = opaque;
    size_t n = ((size_t)items * size + 15) & ~(size_t)15;
    if (n > b->left)
        return Z_NULL;
    void *p = b->ptr;
    b->ptr += n;
    b->left -= n;
    return p;
}

static void bump_free(voidpf opaque, voidpf block)
{
    (void)opaque, (void)block;
}

static bool unpack_zlib(struct kld_worker *worker, struct kld_bytes in, uint8_t *out, size_t size)
{
    struct bump memory = {kld_worker_buffer(worker, INFLATE_MEMORY), INFLATE_MEMORY};
    z_stream z = {.zalloc = bump_alloc, .zfree = bump_free, .opaque = &memory};
    if (inflateInit(&z) != Z_OK)
        return false;
    int status = Z_OK;
    /* The library counts in 32 bits. */
    z.next_in = (z_const Bytef *)in.ptr;
    z.next_out = out;
    while (status == Z_OK) {
        size_t in_left = in.len - (size_t)(z.next_in - in.ptr);
        size_t out_left = size - (size_t)(z.next_out - out);
        z.avail_in = (uInt)KLD_MIN(in_left, UINT32_MAX);
        z.avail_out = (uInt)KLD_MIN(out_left, UINT32_MAX);
        status = inflate(&z, Z_NO_FLUSH);
    }
    size_t written = (size_t)(z.next_out - out);
    inflateEnd(&z);
    return status == Z_STREAM_END && written == size;
}

static bool unpack_zstd(struct kld_worker *worker, struct kld_bytes in, uint8_t *out, size_t size)
{
    size_t memory = ZSTD_estimateDCtxSize();
    ZSTD_DCtx *d = ZSTD_initStaticDCtx(kld_worker_buffer(worker, memory), memory);
    return d && ZSTD_decompressDCtx(d, out, size, in.ptr, in.len) == size;
}

bool elf_decompress(struct kld_session *ctx, struct kld_worker *worker,
                    const struct elf_object *obj, uint32_t shndx, struct kld_bytes in,
                    struct kld_bytes *out, uint64_t *align)
{
    const elf_chdr *header = (const void *)in.ptr;
    struct kld_bytes packed;
    if (!kld_bytes_part(in, sizeof(*header), in.len - sizeof(*header), &packed))
        return bad_section(ctx, obj, shndx, "too short for its header");
    uint64_t size = header->ch_size;
    if (size > SMALL && size / BEST_RATIO > packed.len)
        return bad_section(ctx, obj, shndx, "its unpacked size cannot be true");
    uint8_t *memory = kld_arena_alloc(&worker->arena, (size_t)size, 16);
    bool good;
    if (header->ch_type == ELFCOMPRESS_ZLIB)
        good = unpack_zlib(worker, packed, memory, (size_t)size);
    else if (header->ch_type == ELFCOMPRESS_ZSTD)
        good = unpack_zstd(worker, packed, memory, (size_t)size);
    else
        return bad_section(ctx, obj, shndx, "neither zlib nor zstd");
    if (!good)
        return bad_section(ctx, obj, shndx, "its data is corrupt");
    *align = header->ch_addralign;
    *out = (struct kld_bytes){memory, (size_t)size};
    return true;
}
