#include "src/arena.h"
#include <stdio.h>

struct kld_arena_block {
    struct kld_arena_block *next;
    size_t size; /* of the whole block, this header included */
};

#ifdef KLD_DEBUG
/* Small ones, so that running out of memory can be tested at many places. */
enum { FIRST_BLOCK = 2 << 10, LARGEST_BLOCK = 32 << 10, HEADER = 64 };
#else
enum { FIRST_BLOCK = 16 << 10, LARGEST_BLOCK = 4 << 20, HEADER = 64 };
#endif

/* AddressSanitizer is told what of a block is in use, and sees a write behind it. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONS
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define POISONS
#endif
#ifdef POISONS
#include <sanitizer/asan_interface.h>
enum { GAP = 16 };
#define POISON(at, size)   ASAN_POISON_MEMORY_REGION(at, size)
#define UNPOISON(at, size) ASAN_UNPOISON_MEMORY_REGION(at, size)
#else
enum { GAP = 0 };
#define POISON(at, size)   ((void)0)
#define UNPOISON(at, size) ((void)0)
#endif

void kld_arena_init(struct kld_arena *arena, const struct kld_alloc *from, jmp_buf *oom)
{
    *arena = (struct kld_arena){.from = from, .oom = oom, .next_block = FIRST_BLOCK};
}

void kld_arena_expect_much(struct kld_arena *arena)
{
    arena->next_block = LARGEST_BLOCK;
}

void kld_arena_free(struct kld_arena *arena)
{
    for (struct kld_arena_block *b = arena->blocks, *next; b; b = next) {
        next = b->next;
        UNPOISON(b, b->size);
        arena->from->free(arena->from->context, b, b->size);
    }
    kld_arena_init(arena, arena->from, arena->oom);
}

static struct kld_arena_block *new_block(struct kld_arena *arena, size_t size, bool used_up)
{
    struct kld_arena_block *b = arena->from->alloc(arena->from->context, size);
    if (!b)
        longjmp(*arena->oom, 1);
    if (used_up && arena->from->bring_in)
        arena->from->bring_in(b, size);
    b->size = size;
    POISON((char *)b + HEADER, size - HEADER);
    arena->total += size;
    return b;
}

void *kld_arena_alloc(struct kld_arena *arena, size_t size, size_t align)
{
    uintptr_t at = ((uintptr_t)arena->ptr + align - 1) & ~(uintptr_t)(align - 1);
    if (kld_likely(at + size + GAP <= (uintptr_t)arena->end && at + size >= at)) {
        arena->ptr = (char *)(at + size + GAP);
        UNPOISON((void *)at, size);
        return (void *)at;
    }
    if (size > SIZE_MAX / 2)
        longjmp(*arena->oom, 1);
    if (size + align > arena->next_block / 4) {
        /* A block of its own behind the current one, whose free space stays in use. */
        struct kld_arena_block *b = new_block(arena, HEADER + size + align + GAP, true);
        if (arena->blocks) {
            b->next = arena->blocks->next;
            arena->blocks->next = b;
        } else {
            arena->blocks = b;
        }
        at = ((uintptr_t)b + HEADER + align - 1) & ~(uintptr_t)(align - 1);
        UNPOISON((void *)at, size);
        return (void *)at;
    }
    struct kld_arena_block *b = new_block(arena, arena->next_block, false);
    b->next = arena->blocks;
    arena->blocks = b;
    arena->ptr = (char *)b + HEADER;
    arena->end = (char *)b + b->size;
    if (arena->next_block < LARGEST_BLOCK)
        arena->next_block *= 2;
    return kld_arena_alloc(arena, size, align);
}

bool kld_arena_extend(struct kld_arena *arena, const void *block, size_t old_size, size_t size)
{
    if ((const char *)block + old_size + GAP != arena->ptr ||
        (size_t)(arena->end - arena->ptr) < size - old_size)
        return false;
    arena->ptr += size - old_size;
    UNPOISON(block, size);
    return true;
}

void *kld_arena_array(struct kld_arena *arena, size_t count, size_t size, size_t align)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        longjmp(*arena->oom, 1);
    return kld_arena_alloc(arena, bytes, align);
}

char *kld_arena_strndup(struct kld_arena *arena, const char *text, size_t len)
{
    char *copy = kld_arena_alloc(arena, len + 1, 1);
    if (len)
        memcpy(copy, text, len);
    return copy;
}

char *kld_arena_vprintf(struct kld_arena *arena, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    char *text = kld_arena_alloc(arena, len < 0 ? 1 : (size_t)len + 1, 1);
    if (len > 0)
        vsnprintf(text, (size_t)len + 1, format, again);
    va_end(again);
    return text;
}

char *kld_arena_printf(struct kld_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = kld_arena_vprintf(arena, format, args);
    va_end(args);
    return text;
}
