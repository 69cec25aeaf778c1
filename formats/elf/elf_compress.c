/* elf_compress.c - SHF_COMPRESSED: debug sections compressed with zlib or zstd.
 *
 * A compressed section starts with a header that says how large it is when unpacked. That number
 * comes from a file, so it is believed only as far as the compressed bytes could possibly go:
 * deflate cannot do better than 1,032 to 1, and what goes beyond that with zstd is a bomb rather
 * than debug information. The libraries get their memory from us.
 *
 * On the way out, sections are compressed in pieces, in parallel. Both formats allow that: pieces
 * of a deflate stream can be put one after the other if each ends on a byte boundary, with a
 * checksum that can be computed from theirs; zstd data is any number of frames.
 *
 * Before SHF_COMPRESSED there were sections named .zdebug_X in place of .debug_X: "ZLIB", the
 * unpacked size as a big-endian number of 8 bytes, a zlib stream. They are read, never written.
 *
 * Sources: gABI, "Compressed sections"; RFC 1950; RFC 8878; the manual of GNU as,
 * --compress-debug-sections=zlib-gnu. */
#define ZSTD_STATIC_LINKING_ONLY
#include "formats/elf/elf_compress.h"
#include "src/layout.h"
#include <zlib.h>
#include <zstd.h>

enum {
    ZLIB_BEST_RATIO = 1032,
    ZSTD_BEST_RATIO = (128 << 10) / 4, /* a block of equal bytes */
    SMALL = 1 << 20,                   /* bytes that any section may unpack to */
    SHARD = 1 << 20,                   /* compressed in one go */
    ZLIB_LEVEL = 3,
    ZSTD_LEVEL = 3,
    INFLATE_MEMORY = 64 << 10,
    DEFLATE_MEMORY = 384 << 10,
    LARGEST_P2ALIGN = 12, /* of what is packed */
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

/* ---- memory for zlib ---- */

/* It asks for a few blocks and returns them all at the end. */
struct bump {
    uint8_t *ptr;
    size_t left;
};

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

/* ---- unpacking ---- */

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

enum { GNU_HEADER = 12 };

static bool is_gnu_compressed(const struct elf_object *obj, uint32_t shndx, struct kld_bytes in)
{
    return !(obj->shdrs[shndx].sh_flags & (SHF_ALLOC | SHF_COMPRESSED)) &&
           kld_str_starts(elf_section_name(obj, shndx), ".zdebug_") && in.len >= GNU_HEADER &&
           memcmp(in.ptr, "ZLIB", 4) == 0;
}

bool elf_is_compressed(const struct elf_object *obj, uint32_t shndx, struct kld_bytes in)
{
    return (obj->shdrs[shndx].sh_flags & SHF_COMPRESSED) || is_gnu_compressed(obj, shndx, in);
}

bool elf_decompress(struct kld_session *ctx, struct kld_worker *worker,
                    const struct elf_object *obj, uint32_t shndx, struct kld_bytes in,
                    struct kld_bytes *out, uint64_t *align)
{
    bool gnu = is_gnu_compressed(obj, shndx, in);
    size_t head = gnu ? (size_t)GNU_HEADER : sizeof(elf_chdr);
    struct kld_bytes packed;
    if (!kld_bytes_part(in, head, in.len - head, &packed))
        return bad_section(ctx, obj, shndx, "too short for its header");
    const elf_chdr *header = (const void *)in.ptr;
    uint32_t type = gnu ? ELFCOMPRESS_ZLIB : header->ch_type;
    uint64_t size = gnu ? __builtin_bswap64(kld_get64(in.ptr + 4)) : header->ch_size;
    uint32_t best = type == ELFCOMPRESS_ZSTD ? ZSTD_BEST_RATIO : ZLIB_BEST_RATIO;
    if (size > SMALL && size / best > packed.len)
        return bad_section(ctx, obj, shndx, "its unpacked size cannot be true");
    uint8_t *memory = kld_arena_alloc(&worker->arena, (size_t)size, 16);
    bool good;
    if (type == ELFCOMPRESS_ZLIB)
        good = unpack_zlib(worker, packed, memory, (size_t)size);
    else if (type == ELFCOMPRESS_ZSTD)
        good = unpack_zstd(worker, packed, memory, (size_t)size);
    else
        return bad_section(ctx, obj, shndx, "neither zlib nor zstd");
    if (!good)
        return bad_section(ctx, obj, shndx, "its data is corrupt");
    if (!gnu)
        *align = header->ch_addralign;
    *out = (struct kld_bytes){memory, (size_t)size};
    return true;
}

/* ---- packing ---- */

struct shard {
    uint8_t *data;
    size_t size, raw;
    uint32_t adler;
};

struct packed_chunk {
    struct shard *shards;
    uint32_t count;
    bool last; /* of its section */
};

struct packer {
    kld_chunk_list chunks;
    struct packed_chunk *packed; /* of each chunk */
    bool zstd;
    size_t memory; /* what the library needs */
};

static size_t packed_bound(const struct packer *p, size_t raw)
{
    return p->zstd ? ZSTD_compressBound(raw) : compressBound((uLong)raw) + 64;
}

/* One piece of a raw deflate stream; the last one ends it. Returns 0 if that fails. */
static size_t pack_zlib(const uint8_t *in, size_t size, uint8_t *out, size_t bound, uint8_t *memory,
                        bool last)
{
    struct bump bump = {memory, DEFLATE_MEMORY};
    z_stream z = {.zalloc = bump_alloc,
                  .zfree = bump_free,
                  .opaque = &bump,
                  .next_in = (z_const Bytef *)in,
                  .avail_in = (uInt)size,
                  .next_out = out,
                  .avail_out = (uInt)bound};
    if (deflateInit2(&z, ZLIB_LEVEL, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    int status = deflate(&z, last ? Z_FINISH : Z_SYNC_FLUSH);
    size_t n = (size_t)(z.next_out - out);
    deflateEnd(&z);
    return status == (last ? Z_STREAM_END : Z_OK) && !z.avail_in ? n : 0;
}

static size_t pack_zstd(const uint8_t *in, size_t size, uint8_t *out, size_t bound, uint8_t *memory,
                        size_t memory_size)
{
    ZSTD_CCtx *c = ZSTD_initStaticCCtx(memory, memory_size);
    size_t n = c ? ZSTD_compressCCtx(c, out, bound, in, size, ZSTD_LEVEL) : 0;
    return ZSTD_isError(n) ? 0 : n;
}

static void pack_chunk(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    const struct packer *p = arg;
    const struct kld_chunk *c = &p->chunks.data[i];
    struct packed_chunk *packed = &p->packed[i];
    size_t size = c->limit - c->start, bound = packed_bound(p, KLD_MIN(size, (size_t)SHARD));
    size_t memory_at = (size_t)kld_align_up(size, 64), out_at = memory_at + p->memory;
    uint8_t *buffer = kld_worker_buffer(worker, out_at + bound);
    uint8_t *memory = buffer + memory_at, *out = buffer + out_at;
    kld_chunk_compose(ctx, worker, c, buffer);
    packed->count = (uint32_t)((size + SHARD - 1) / SHARD);
    packed->shards = KLD_NEW_ARRAY(&worker->arena, struct shard, packed->count);
    for (uint32_t k = 0; k < packed->count; k++) {
        const uint8_t *in = buffer + (size_t)k * SHARD;
        size_t raw = KLD_MIN(size - (size_t)k * SHARD, (size_t)SHARD);
        bool last = packed->last && k + 1 == packed->count;
        size_t n = p->zstd ? pack_zstd(in, raw, out, bound, memory, p->memory)
                           : pack_zlib(in, raw, out, bound, memory, last);
        if (!n)
            kld_error(ctx, "internal", NULL, "internal error: %s could not be compressed",
                      c->section->name);
        struct shard *shard = &packed->shards[k];
        *shard = (struct shard){.size = n, .raw = raw};
        if (!p->zstd)
            shard->adler = (uint32_t)adler32(adler32(0, NULL, 0), in, (uInt)raw);
        shard->data = kld_arena_alloc(&worker->arena, n, 1);
        memcpy(shard->data, out, n);
    }
}

static uint64_t add_bytes(struct kld_session *ctx, struct kld_section *s, uint64_t at,
                          const uint8_t *data, size_t size)
{
    struct kld_atom *atom = kld_atom_new(ctx, s, KLD_ATOM_DEBUG, 0, size);
    atom->data = data;
    atom->addr = at;
    *kld_vec_push(&ctx->arena, &s->atoms) = atom;
    return at + size;
}

/* gABI: Elf64_Chdr, then the data; RFC 1950 puts two bytes before the deflate stream and the
 * checksum behind it. */
static uint64_t put_header(struct kld_session *ctx, const struct packer *p, struct kld_section *s)
{
    uint8_t *head = kld_arena_alloc(&ctx->arena, sizeof(Elf64_Chdr) + 2, 8);
    Elf64_Chdr header = {.ch_type = p->zstd ? ELFCOMPRESS_ZSTD : ELFCOMPRESS_ZLIB,
                         .ch_size = s->size,
                         .ch_addralign = 1ull << s->p2align};
    memcpy(head, &header, sizeof(header));
    head[sizeof(header)] = 0x78;
    head[sizeof(header) + 1] = 0x5e;
    return add_bytes(ctx, s, 0, head, sizeof(header) + (p->zstd ? 0 : 2));
}

static uint64_t put_checksum(struct kld_session *ctx, struct kld_section *s, uint64_t at,
                             uint32_t adler)
{
    uint8_t *sum = kld_arena_alloc(&ctx->arena, 4, 1);
    for (unsigned i = 0; i < 4; i++)
        sum[i] = (uint8_t)(adler >> (24 - 8 * i));
    return add_bytes(ctx, s, at, sum, 4);
}

/* The section whose chunks are [from, to) becomes compressed, if that makes it smaller. */
static void replace_section(struct kld_session *ctx, const struct packer *p, size_t from, size_t to)
{
    struct kld_section *s = p->chunks.data[from].section;
    uint64_t size = sizeof(Elf64_Chdr) + 6;
    for (size_t i = from; i < to; i++)
        for (uint32_t k = 0; k < p->packed[i].count; k++)
            size += p->packed[i].shards[k].size;
    if (size >= s->size)
        return;
    s->atoms.data = NULL;
    s->atoms.len = s->atoms.cap = 0;
    uint64_t at = put_header(ctx, p, s);
    uLong adler = adler32(0, NULL, 0);
    for (size_t i = from; i < to; i++)
        for (uint32_t k = 0; k < p->packed[i].count; k++) {
            const struct shard *shard = &p->packed[i].shards[k];
            at = add_bytes(ctx, s, at, shard->data, shard->size);
            if (!p->zstd)
                adler = adler32_combine(adler, shard->adler, (z_off_t)shard->raw);
        }
    if (!p->zstd)
        at = put_checksum(ctx, s, at, (uint32_t)adler);
    s->size = at;
    s->p2align = 3;
    s->format_flags |= SHF_COMPRESSED;
}

static bool is_candidate(const struct kld_section *s)
{
    if ((s->flags & (KLD_ATOM_ALLOC | KLD_ATOM_ZERO)) || !s->size || !s->atoms.len ||
        s->p2align > LARGEST_P2ALIGN || !kld_str_starts(kld_str(s->name), ".debug_"))
        return false;
    for (size_t i = 0; i < s->atoms.len; i++) /* zeros may be without end */
        if (s->atoms.data[i]->flags & KLD_ATOM_ZERO)
            return false;
    return true;
}

/* File offsets of what is not in memory, anew. */
static void move_sections(struct kld_session *ctx)
{
    uint64_t at = 0;
    uint32_t i = 0;
    while (i < ctx->norder && (ctx->order[i]->flags & KLD_ATOM_ALLOC))
        i++;
    for (uint32_t k = i; k < ctx->norder; k++) {
        struct kld_section *s = ctx->order[k];
        at = kld_align_up(k == i ? s->offset : at, 1ull << s->p2align);
        s->offset = at;
        if (!(s->flags & KLD_ATOM_ZERO))
            at += s->size;
    }
    if (i < ctx->norder)
        ctx->file_size = at;
}

void elf_compress_debug(struct kld_session *ctx)
{
    struct packer p = {.zstd = ctx->options.compress_debug == KLD_COMPRESS_ZSTD};
    if (ctx->options.compress_debug == KLD_COMPRESS_NONE)
        return;
    p.memory = p.zstd ? ZSTD_estimateCCtxSize(ZSTD_LEVEL) : DEFLATE_MEMORY;
    for (uint32_t i = 0; i < ctx->norder; i++)
        if (is_candidate(ctx->order[i]))
            kld_chunks_add(&ctx->arena, &p.chunks, ctx->order[i], KLD_CHUNK);
    p.packed = KLD_NEW_ARRAY(&ctx->arena, struct packed_chunk, p.chunks.len);
    for (size_t i = 0; i < p.chunks.len; i++)
        p.packed[i].last =
            i + 1 == p.chunks.len || p.chunks.data[i + 1].section != p.chunks.data[i].section;
    kld_parallel_for(ctx, p.chunks.len, 1, pack_chunk, &p);
    if (kld_has_failed(ctx))
        return;
    for (size_t from = 0, to; from < p.chunks.len; from = to) {
        for (to = from + 1; !p.packed[to - 1].last; to++)
            continue;
        replace_section(ctx, &p, from, to);
    }
    move_sections(ctx);
}
