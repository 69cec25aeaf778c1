/* fuzz.h - what the fuzzers share: an arena over malloc, and a copy of the input without slack. */
#ifndef KLD_TEST_FUZZ_H
#define KLD_TEST_FUZZ_H

#include <stdlib.h>
#include "src/arena.h"
#include "src/bytes.h"

static void *fuzz_alloc(KLD_UNUSED void *context, size_t size)
{
    return calloc(1, size);
}

static void fuzz_free(KLD_UNUSED void *context, void *block, KLD_UNUSED size_t size)
{
    free(block);
}

/* What a fuzzer does with one input. */
static void fuzz_one(struct kld_arena *arena, struct kld_bytes bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct kld_alloc alloc = {NULL, fuzz_alloc, fuzz_free, NULL};
    jmp_buf oom;
    struct kld_arena arena;
    kld_arena_init(&arena, &alloc, &oom);
    if (setjmp(oom))
        abort();
    fuzz_one(&arena, (struct kld_bytes){data, size});
    /* What is claimed to be large must not be. */
    if (arena.total > (16u << 20) + size * 1000)
        abort();
    kld_arena_free(&arena);
    return 0;
}

#endif
