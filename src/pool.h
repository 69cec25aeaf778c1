/* pool.h - the session's threads: parallel loops, and an arena a thread.
 *
 * Threads start with the first loop that is worth it and end with the session. */
#ifndef KLD_SRC_POOL_H
#define KLD_SRC_POOL_H

#include "src/arena.h"

struct kld_pool;

/* What a thread owns. Worker 0 is the thread that called the library. */
struct kld_worker {
    unsigned index;
    struct kld_pool *pool;
    struct kld_arena arena;   /* lives as long as the session */
    struct kld_arena scratch; /* of the pass at hand, which frees it */
    jmp_buf oom;
    uint8_t *buffer; /* scratch of the pass at hand; see kld_worker_buffer */
    size_t buffer_size;
    bool expects_much;
};

typedef void kld_task(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t index);

/* Calls task(ctx, worker, arg, i) for each i in [0, count), grain indices at a time, in no
 * particular order. Runs on the calling thread alone when count <= grain. Out of memory in any
 * task unwinds to the caller's recovery point after all threads have stopped. */
void kld_parallel_for(struct kld_session *ctx, size_t count, size_t grain, kld_task *task,
                      void *arg);

/* At least size bytes of scratch, contents undefined, valid until the worker asks again. */
uint8_t *kld_worker_buffer(struct kld_worker *worker, size_t size);

/* A large link is at hand: its memory comes in large blocks, which the kernel has cheap pages for. */
void kld_worker_expect_much(struct kld_worker *worker);

/* Number of workers that kld_parallel_for may use, at least 1. */
unsigned kld_pool_size(const struct kld_session *ctx);
/* Threads that have been needed so far, the caller's included. */
unsigned kld_pool_started(const struct kld_session *ctx);
struct kld_worker *kld_pool_worker(struct kld_session *ctx, unsigned index);

/* The arena of the calling thread, for what any code may be called from (messages, files). */
struct kld_arena *kld_pool_arena(struct kld_session *ctx);

/* threads: 0 means one for each core that the process may use. */
void kld_pool_init(struct kld_session *ctx, unsigned threads);
/* Ends the threads and returns the job tokens; what they have allocated stays. A loop that is worth it
 * starts them again. */
void kld_pool_stop(struct kld_session *ctx);
/* The same, and frees what the threads have allocated. */
void kld_pool_free(struct kld_session *ctx);

#endif
