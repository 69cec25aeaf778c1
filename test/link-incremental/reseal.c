/* reseal.c - makes the state of an incremental link believe an output that somebody has changed, so that
 * what --incremental-verify looks at behind the hashes is tested.
 *
 *     reseal OUTPUT STATE
 *
 * All hashes of the output, and its identity, become those of the file as it is. For outputs without a
 * build id, which would be one more hash. */
#define _GNU_SOURCE
#define XXH_INLINE_ALL
#include "src/incremental/state.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

static void *take(void *context, size_t size)
{
    (void)context;
    return calloc(1, size);
}

static void give(void *context, void *block, size_t size)
{
    (void)context, (void)size;
    free(block);
}

static bool update(void *context, uint64_t offset, const void *data, size_t length)
{
    return pwrite(*(int *)context, data, length, (off_t)offset) == (ssize_t)length;
}

static uint8_t *read_file(int fd, struct stat *st)
{
    if (fd < 0 || fstat(fd, st) != 0)
        return NULL;
    uint8_t *bytes = malloc((size_t)st->st_size + 1);
    return pread(fd, bytes, (size_t)st->st_size, 0) == st->st_size ? bytes : NULL;
}

static void hash(struct kld_state_chunk *c, const uint8_t *output)
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(output + c->offset, c->size));
    memcpy(c->hash, canonical.digest, sizeof(c->hash));
}

int main(int argc, char **argv)
{
    struct kld_alloc alloc = {NULL, take, give, NULL};
    struct kld_arena arena;
    struct kld_state st;
    struct stat is, of_state;
    jmp_buf oom;
    int fd = argc == 3 ? open(argv[2], O_RDWR) : -1;
    uint8_t *output = read_file(argc == 3 ? open(argv[1], O_RDONLY) : -1, &is);
    uint8_t *state = read_file(fd, &of_state);
    if (!output || !state || setjmp(oom))
        return 1;
    kld_arena_init(&arena, &alloc, &oom);
    if (kld_state_open(&st, &arena, state, (size_t)of_state.st_size) != KLD_STATE_OK)
        return 2;
    uint64_t n = kld_state_count(&st, KLD_T_CHUNKS);
    struct kld_state_chunk *chunks = kld_state_edit(&st, KLD_T_CHUNKS, 0, n);
    for (uint64_t i = 0; i < n; i++)
        if (kld_in_bounds(chunks[i].offset, chunks[i].size, (uint64_t)is.st_size))
            hash(&chunks[i], output);
    st.header->output = kld_identity_of(&is);
    const kld_state_store store = {.size = sizeof(store), .context = &fd, .update = update};
    bool done = kld_state_flush(&st, &store);
    kld_arena_free(&arena);
    free(output);
    free(state);
    return done ? 0 : 3;
}
