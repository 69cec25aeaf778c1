/* bytes.h - bounds-checked views of file contents, and unaligned little-endian access.
 *
 * Nothing read from a file is used as an offset, size or index before it went through here. */
#ifndef KLD_SRC_BYTES_H
#define KLD_SRC_BYTES_H

#include "src/str.h"

struct kld_bytes {
    const uint8_t *ptr;
    size_t len;
};

/* Whether [offset, offset + size) lies within the first len bytes. */
static inline bool kld_in_bounds(uint64_t offset, uint64_t size, uint64_t len)
{
    return offset <= len && size <= len - offset;
}

/* The part [offset, offset + size), or false if it is not wholly inside. */
static inline bool kld_bytes_part(struct kld_bytes b, uint64_t offset, uint64_t size,
                                  struct kld_bytes *part)
{
    if (!kld_in_bounds(offset, size, b.len))
        return false;
    *part = (struct kld_bytes){b.ptr + offset, (size_t)size};
    return true;
}

/* The NUL-terminated string at offset, or false if it does not end within b. */
static inline bool kld_bytes_string(struct kld_bytes b, uint64_t offset, struct kld_str *out)
{
    if (offset >= b.len)
        return false;
    const uint8_t *end = memchr(b.ptr + offset, 0, b.len - offset);
    if (!end)
        return false;
    *out = (struct kld_str){(const char *)b.ptr + offset, (size_t)(end - b.ptr) - offset};
    return true;
}

#define KLD_ACCESS_(bits, swap)                                                                    \
    static inline uint##bits##_t kld_get##bits(const void *p)                                      \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof(v));                                                                  \
        return swap(v);                                                                            \
    }                                                                                              \
    static inline void kld_put##bits(void *p, uint##bits##_t v)                                    \
    {                                                                                              \
        v = swap(v);                                                                               \
        memcpy(p, &v, sizeof(v));                                                                  \
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define KLD_SAME_(v) (v)
KLD_ACCESS_(16, KLD_SAME_)
KLD_ACCESS_(32, KLD_SAME_)
KLD_ACCESS_(64, KLD_SAME_)
#undef KLD_SAME_
#else
KLD_ACCESS_(16, __builtin_bswap16)
KLD_ACCESS_(32, __builtin_bswap32)
KLD_ACCESS_(64, __builtin_bswap64)
#endif
#undef KLD_ACCESS_

static inline void kld_put_words(uint8_t *p, const uint32_t *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        kld_put32(p + 4 * i, words[i]);
}

/* Reads a LEB128 number at *pos and moves *pos behind it; false if it runs over the end or over
 * 64 bits. */
static inline bool kld_uleb(struct kld_bytes b, size_t *pos, uint64_t *value)
{
    uint64_t v = 0;
    for (unsigned shift = 0; *pos < b.len; shift += 7) {
        uint8_t byte = b.ptr[(*pos)++];
        if (shift >= 64 || (shift == 63 && (byte & 0x7e)))
            return false;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *value = v;
            return true;
        }
    }
    return false;
}

#endif
