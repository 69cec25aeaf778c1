/* pool.c - a session's threads.
 *
 * A loop is begun by the calling thread alone. Only when it has not ended after a moment are the
 * other threads started (once in a session), so that a small link never pays for them. From then
 * on they sleep between loops. Indices are handed out by one atomic counter.
 *
 * Started threads block all signals: these are the host's, for its own threads. */
#define _GNU_SOURCE
#include "src/session.h"
#include "src/jobserver.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

enum {
    MOST_THREADS = 1024,
    MOST_BY_DEFAULT = 32, /* memory bandwidth is used up long before */
    ALONE_NS = 400000,    /* before threads are started: several times what that costs */
};

struct loop {
    kld_task *task;
    void *arg;
    size_t count, grain;
    _Atomic size_t next;
    _Atomic bool no_memory;
};

struct kld_pool {
    struct kld_session *ctx;
    struct kld_worker *workers; /* [size] */
    pthread_t *threads;         /* [size]; [0] is unused */
    unsigned size;
    unsigned started; /* workers that run, the caller's included; 0: not tried yet */
    unsigned most;    /* that have run at a time */
    struct kld_jobserver *jobs;
    bool busy; /* in a loop */
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    struct loop *loop; /* open to all who come; under the lock like the rest */
    uint64_t turn;     /* of loops: nobody joins one twice */
    unsigned active;   /* threads in the loop */
    bool stop;
};

/* ---- workers ---- */

/* memory-limit: looks at it at each tick of a clock that is cheap to ask. */
static void keep_to_limit(struct kld_session *ctx, int64_t *last)
{
    struct timespec t;
    if (!ctx->options.memory_limit)
        return;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    if (t.tv_nsec == *last)
        return;
    *last = t.tv_nsec;
    kld_io_trim(ctx);
}

/* False: memory has run out. The recovery point is the worker's own for that long. */
static bool work(struct kld_session *ctx, struct kld_worker *worker, struct loop *loop)
{
    if (setjmp(worker->oom)) {
        atomic_store_explicit(&loop->no_memory, true, memory_order_relaxed);
        atomic_store_explicit(&loop->next, loop->count, memory_order_relaxed);
        return false;
    }
    int64_t last = -1;
    for (;;) {
        size_t i = atomic_fetch_add_explicit(&loop->next, loop->grain, memory_order_relaxed);
        if (i >= loop->count)
            return true;
        for (size_t end = KLD_MIN(i + loop->grain, loop->count); i < end; i++) {
            loop->task(ctx, worker, loop->arg, i);
            keep_to_limit(ctx, &last);
        }
    }
}

static void *thread_main(void *arg)
{
    struct kld_worker *worker = arg;
    struct kld_pool *pool = worker->pool;
    uint64_t turn = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->stop && (!pool->loop || pool->turn == turn))
            pthread_cond_wait(&pool->wake, &pool->lock);
        if (pool->stop)
            break;
        struct loop *loop = pool->loop;
        turn = pool->turn;
        pool->active++;
        pthread_mutex_unlock(&pool->lock);
        work(pool->ctx, worker, loop);
        pthread_mutex_lock(&pool->lock);
        if (--pool->active == 0)
            pthread_cond_signal(&pool->idle);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void start_threads(struct kld_pool *pool)
{
    unsigned wanted = pool->size;
    if (wanted > 1)
        wanted = 1 + kld_jobserver_take(pool->jobs, wanted - 1);
    pthread_attr_t attr;
    bool has_attr = pthread_attr_init(&attr) == 0;
    sigset_t all;
    sigfillset(&all);
#ifdef __GLIBC__
    /* The mask of the new thread; that of the calling thread is not touched. */
    if (has_attr)
        pthread_attr_setsigmask_np(&attr, &all);
#endif
    pool->started = 1;
    while (pool->started < wanted) {
        unsigned i = pool->started;
        /* No more threads to be had: then with those that there are. */
        if (pthread_create(&pool->threads[i], has_attr ? &attr : NULL, thread_main,
                           &pool->workers[i]) != 0)
            break;
        pool->started++;
    }
    if (has_attr)
        pthread_attr_destroy(&attr);
    pool->most = KLD_MAX(pool->most, pool->started);
    kld_jobserver_keep(pool->jobs, pool->started - 1);
}

/* ---- loops ---- */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Threads have not been started: works through indices until the loop has taken its time. True:
 * there are some left. */
static bool work_alone(struct kld_session *ctx, struct kld_worker *worker, struct loop *loop)
{
    if (setjmp(worker->oom)) {
        loop->no_memory = true;
        loop->next = loop->count;
        return false;
    }
    uint64_t start = now_ns();
    size_t at = 0; /* not read after a jump */
    while (at < loop->count) {
        for (size_t end = KLD_MIN(at + loop->grain, loop->count); at < end; at++)
            loop->task(ctx, worker, loop->arg, at);
        atomic_store_explicit(&loop->next, at, memory_order_relaxed);
        if (now_ns() - start > ALONE_NS)
            break;
    }
    return at < loop->count;
}

static void work_together(struct kld_pool *pool, struct kld_worker *worker, struct loop *loop)
{
    pthread_mutex_lock(&pool->lock);
    pool->loop = loop;
    pool->turn++;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    work(pool->ctx, worker, loop);
    pthread_mutex_lock(&pool->lock);
    pool->loop = NULL; /* who has not woken up by now need not */
    while (pool->active)
        pthread_cond_wait(&pool->idle, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

static struct kld_worker *current(struct kld_pool *pool)
{
    pthread_t self = pthread_self();
    for (unsigned i = 1; i < pool->started; i++)
        if (pthread_equal(pool->threads[i], self))
            return &pool->workers[i];
    return &pool->workers[0];
}

void kld_parallel_for(struct kld_session *ctx, size_t count, size_t grain, kld_task *task,
                      void *arg)
{
    struct kld_pool *pool = ctx->pool;
    if (pool->busy) { /* a loop within a task */
        struct kld_worker *worker = current(pool);
        for (size_t i = 0; i < count; i++)
            task(ctx, worker, arg, i);
        return;
    }
    struct loop loop = {.task = task, .arg = arg, .count = count, .grain = grain ? grain : 1};
    struct kld_worker *worker = &pool->workers[0];
    pool->busy = true;
    worker->arena.oom = worker->scratch.oom = &worker->oom;
    if (pool->size < 2 || count <= loop.grain) {
        work(ctx, worker, &loop);
    } else {
        if (!pool->started && work_alone(ctx, worker, &loop))
            start_threads(pool);
        if (pool->started > 1)
            work_together(pool, worker, &loop);
        else
            work(ctx, worker, &loop);
    }
    worker->arena.oom = worker->scratch.oom = &ctx->oom;
    pool->busy = false;
    if (loop.no_memory)
        longjmp(ctx->oom, 1);
}

uint8_t *kld_worker_buffer(struct kld_worker *worker, size_t size)
{
    if (size <= worker->buffer_size)
        return worker->buffer;
    const struct kld_alloc *from = worker->arena.from;
    if (worker->buffer)
        from->free(from->context, worker->buffer, worker->buffer_size);
    size_t wanted = KLD_MAX(size, worker->buffer_size + worker->buffer_size / 2);
    wanted = KLD_MAX(wanted, (size_t)16 << 10);
    worker->buffer_size = 0;
    worker->buffer = from->alloc(from->context, wanted);
    if (!worker->buffer)
        longjmp(*worker->arena.oom, 1);
    if (worker->expects_much && from->bring_in)
        from->bring_in(worker->buffer, wanted);
    worker->buffer_size = wanted;
    return worker->buffer;
}

void kld_worker_expect_much(struct kld_worker *worker)
{
    kld_arena_expect_much(&worker->arena);
    kld_arena_expect_much(&worker->scratch);
    worker->expects_much = true;
}

unsigned kld_pool_size(const struct kld_session *ctx)
{
    return ctx->pool->size;
}

unsigned kld_pool_started(const struct kld_session *ctx)
{
    return KLD_MAX(ctx->pool->most, 1u);
}

struct kld_worker *kld_pool_worker(struct kld_session *ctx, unsigned index)
{
    return &ctx->pool->workers[index];
}

struct kld_arena *kld_pool_arena(struct kld_session *ctx)
{
    return ctx->pool ? &current(ctx->pool)->arena : &ctx->arena;
}

/* ---- the pool itself ---- */

static unsigned cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return MOST_BY_DEFAULT; /* more than the set can hold */
    return KLD_MIN((unsigned)CPU_COUNT(&set), (unsigned)MOST_BY_DEFAULT);
}

void kld_pool_init(struct kld_session *ctx, unsigned threads)
{
    struct kld_pool *pool = KLD_NEW(&ctx->arena, struct kld_pool);
    pool->ctx = ctx;
    pool->size = threads ? KLD_MIN(threads, MOST_THREADS) : KLD_MAX(cores(), 1u);
    pool->workers = KLD_NEW_ARRAY(&ctx->arena, struct kld_worker, pool->size);
    pool->threads = KLD_NEW_ARRAY(&ctx->arena, pthread_t, pool->size);
    pool->jobs = threads ? NULL : kld_jobserver_new(ctx); /* an explicit number is an order */
    for (unsigned i = 0; i < pool->size; i++) {
        pool->workers[i].index = i;
        pool->workers[i].pool = pool;
        jmp_buf *oom = i ? &pool->workers[i].oom : &ctx->oom;
        kld_arena_init(&pool->workers[i].arena, &ctx->alloc, oom);
        kld_arena_init(&pool->workers[i].scratch, &ctx->alloc, oom);
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->idle, NULL);
    ctx->pool = pool;
}

void kld_pool_stop(struct kld_session *ctx)
{
    struct kld_pool *pool = ctx->pool;
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 1; i < pool->started; i++)
        pthread_join(pool->threads[i], NULL);
    pool->started = 0;
    pool->stop = false;
    kld_jobserver_keep(pool->jobs, 0);
}

void kld_pool_free(struct kld_session *ctx)
{
    struct kld_pool *pool = ctx->pool;
    if (!pool)
        return;
    kld_pool_stop(ctx);
    for (unsigned i = 0; i < pool->size; i++) {
        struct kld_worker *worker = &pool->workers[i];
        if (worker->buffer)
            ctx->alloc.free(ctx->alloc.context, worker->buffer, worker->buffer_size);
        kld_arena_free(&worker->arena);
        kld_arena_free(&worker->scratch);
    }
    pthread_cond_destroy(&pool->idle);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    ctx->pool = NULL;
}
