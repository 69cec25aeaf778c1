/* base.h - what every file of kld includes: fixed-width types and a few macros.
 *
 * Integer policy: uint64_t for target addresses, offsets and sizes; size_t for host sizes;
 * uint32_t for ids and counts of things in one input. */
#ifndef KLD_SRC_BASE_H
#define KLD_SRC_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KLD_COUNT(array)      (sizeof(array) / sizeof((array)[0]))
#define KLD_MIN(a, b)         ((a) < (b) ? (a) : (b))
#define KLD_MAX(a, b)         ((a) > (b) ? (a) : (b))
#define KLD_UNUSED            __attribute__((unused))
#define KLD_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define kld_likely(x)         __builtin_expect(!!(x), 1)
#define kld_unlikely(x)       __builtin_expect(!!(x), 0)

/* The struct that holds the member at ptr. */
#define kld_container(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Rounds up to a power of two; 0 and 1 mean no alignment. Wraps at the top: callers check sizes. */
static inline uint64_t kld_align_up(uint64_t value, uint64_t align)
{
    return align > 1 ? (value + align - 1) & ~(align - 1) : value;
}

static inline bool kld_is_pow2(uint64_t value)
{
    return value && !(value & (value - 1));
}

/* floor(log2(value)), value != 0 */
static inline unsigned kld_log2(uint64_t value)
{
    return 63u - (unsigned)__builtin_clzll(value);
}

/* An addend from a file may be anything: it wraps, as addresses do. */
static inline int64_t kld_add_wrapping(int64_t addend, uint64_t value)
{
    return (int64_t)((uint64_t)addend + value);
}

struct kld_session;

#endif
