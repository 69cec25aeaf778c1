/* arena.h - memory that is freed all at once.
 *
 * All memory of a session comes from arenas over the host's allocator, which returns zeroed
 * blocks; an arena never reuses memory, so whatever it returns is zero. When the host has no
 * memory left, the allocation does not return: it jumps to the recovery point of the thread
 * (*oom), set at the API boundary or in the pool's worker loop. Callers need no checks. */
#ifndef KLD_SRC_ARENA_H
#define KLD_SRC_ARENA_H

#include <setjmp.h>
#include <stdarg.h>
#include "src/base.h"

struct kld_alloc {
    void *context;
    void *(*alloc)(void *context, size_t size);
    void (*free)(void *context, void *block, size_t size);
    /* NULL, or brings a block of alloc's in that is going to be used up, all at once. Nothing of it has been used. */
    void (*bring_in)(void *block, size_t size);
};

struct kld_arena_block;

struct kld_arena {
    const struct kld_alloc *from;
    jmp_buf *oom;
    struct kld_arena_block *blocks;
    char *ptr, *end; /* free space of the newest block */
    size_t total;    /* bytes taken from the host */
    size_t next_block;
};

void kld_arena_init(struct kld_arena *arena, const struct kld_alloc *from, jmp_buf *oom);

/* Blocks are of the largest size from now on, which the kernel has cheap pages for, instead of growing to it. */
void kld_arena_expect_much(struct kld_arena *arena);

/* Returns all blocks to the host; the arena can be used again. */
void kld_arena_free(struct kld_arena *arena);

/* size zeroed bytes; align is a power of two up to 4096. Never NULL. */
void *kld_arena_alloc(struct kld_arena *arena, size_t size, size_t align);

/* count * size bytes, checked for overflow. */
void *kld_arena_array(struct kld_arena *arena, size_t count, size_t size, size_t align);

/* Whether what was allocated last, at `block`, could be made size bytes instead of old_size where it
 * is. */
bool kld_arena_extend(struct kld_arena *arena, const void *block, size_t old_size, size_t size);

/* A NUL-terminated copy. */
char *kld_arena_strndup(struct kld_arena *arena, const char *text, size_t len);
char *kld_arena_printf(struct kld_arena *arena, const char *format, ...) KLD_PRINTF(2, 3);
char *kld_arena_vprintf(struct kld_arena *arena, const char *format, va_list args);

#define KLD_NEW(arena, type) ((type *)kld_arena_alloc(arena, sizeof(type), _Alignof(type)))
#define KLD_NEW_ARRAY(arena, type, count)                                                          \
    ((type *)kld_arena_array(arena, count, sizeof(type), _Alignof(type)))

#endif
