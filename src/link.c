/* link.c - the linker on one page: the passes, their order, and what holds after each. */
#define _GNU_SOURCE
#include "src/link.h"
#include <time.h>
#include "src/depfile.h"
#include "src/gc.h"
#include "src/icf.h"
#include "src/incremental/incremental.h"
#include "src/incremental/verify.h"
#include "src/layout.h"
#include "src/mapfile.h"
#include "src/merge.h"
#include "src/explain.h"
#include "src/reproduce.h"
#include "src/resolve.h"
#include "src/undefined.h"

/* ---- passes that are no more than a few calls ---- */

static void load(struct kld_session *ctx)
{
    kld_load(ctx);
    /* The mode is one for it, and now the format is known. */
    ctx->slack = ctx->incremental && ctx->format && ctx->format->updater;
    if (!kld_has_failed(ctx))
        kld_report_extracted(ctx);
}

static void resolve(struct kld_session *ctx)
{
    kld_resolve_names(ctx);
    kld_report_traced_symbols(ctx);
}

static void scan_file(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)arg;
    ctx->format->scan(ctx, worker, ctx->files[i]);
}

static void scan(struct kld_session *ctx)
{
    ctx->format->scan_begin(ctx);
    kld_parallel_for(ctx, ctx->nfiles, 1, scan_file, NULL);
    kld_report_undefined(ctx);
}

static void synth(struct kld_session *ctx)
{
    ctx->format->synth(ctx);
}

static void place(struct kld_session *ctx)
{
    ctx->format->place(ctx);
}

static void layout(struct kld_session *ctx)
{
    ctx->format->layout(ctx);
}

static void finish(struct kld_session *ctx)
{
    ctx->format->finish(ctx);
}

static void write_output(struct kld_session *ctx)
{
    if (kld_output_open(ctx, &ctx->output, ctx->options.output, ctx->file_size, ctx->executable))
        kld_write(ctx);
}

static void describe(struct kld_session *ctx)
{
    kld_write_map(ctx);
    kld_write_depfile(ctx);
}

/* The previous output stays in place until here: a link that fails leaves it as it was, as lld
 * and mold do (GNU ld removes it). */
static void commit(struct kld_session *ctx)
{
    kld_pool_stop(ctx); /* others may want the job tokens */
    kld_output_commit(ctx, &ctx->output);
}

/* ---- the list ---- */

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --time. (To ask for the CPU time of a process is a system call.) */
static void run_timed(struct kld_session *ctx, const char *name, void (*run)(struct kld_session *))
{
    double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    run(ctx);
    struct kld_timing *timing = kld_vec_push(&ctx->arena, &ctx->timings);
    timing->name = name;
    timing->wall = seconds(CLOCK_MONOTONIC) - wall;
    timing->cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
}

/* Runs one pass and hands out what it had to say. False: there were errors, stop here. */
static bool pass(struct kld_session *ctx, const char *name, void (*run)(struct kld_session *))
{
    if (ctx->options.time)
        run_timed(ctx, name, run);
    else
        run(ctx);
    kld_io_trim(ctx);
    return kld_checkpoint(ctx);
}

/* All that can be known of the program before anything is made of it. */
static bool front(struct kld_session *ctx)
{
    return kld_checkpoint(ctx) && /* an option may have been wrong */

           /* Every input that is part of the link is mapped and parsed; names have ids. */
           pass(ctx, "load", load) &&
           /* Every symbol is bound to its definition; COMDAT groups are elected; atoms exist. */
           pass(ctx, "resolve", resolve) &&
           /* atom.live is final, but for what folding takes away. */
           pass(ctx, "gc", kld_gc) &&
           /* Of atoms that mean the same one is left; the others point at it. */
           pass(ctx, "icf", kld_icf) &&
           /* Mergeable sections are pieces of generated atoms: the live set is final. */
           pass(ctx, "merge", kld_merge) &&
           /* Symbols carry what they need: GOT, PLT, copies, dynamic relocations. */
           pass(ctx, "scan", scan);
}

static bool back(struct kld_session *ctx)
{
    return
        /* Needs have become atoms; all of the format's tables are there: no new symbols. */
        pass(ctx, "synth", synth) &&
        /* Sections hold their atoms in order and are themselves in the order of the output. */
        pass(ctx, "place", place) &&
        /* Every section, atom and symbol has its address; the file has its size. */
        pass(ctx, "layout", layout) &&
        /* The tables that are made of addresses have their contents. */
        pass(ctx, "finish", finish) &&
        /* All bytes are in the output, relocated, with the build id of what they are. */
        pass(ctx, "write", write_output) &&
        /* The files that describe the output are there: map, dependencies. */
        pass(ctx, "describe", describe);
}

/* --incremental-verify: the same, as far as there are no addresses. Those are the state's, and what has to
 * be there is compared with what is. */
static bool run_verify(struct kld_session *ctx)
{
    return kld_checkpoint(ctx) &&
           /* The state and the output are open, and belong together. */
           pass(ctx, "open", kld_verify_open) && pass(ctx, "load", load) &&
           pass(ctx, "resolve", resolve) && pass(ctx, "gc", kld_gc) &&
           /* The state is of these files and sections; the live set is the output's. */
           pass(ctx, "files", kld_verify_files) && pass(ctx, "merge", kld_merge) &&
           pass(ctx, "scan", scan) &&
           /* Symbols need what the output has for them. */
           pass(ctx, "needs", kld_verify_needs) && pass(ctx, "synth", synth) &&
           pass(ctx, "verify", kld_verify);
}

static void record(struct kld_session *ctx)
{
    kld_incremental_end(ctx);
}

static void end(struct kld_session *ctx)
{
    kld_report_statistics(ctx);
    kld_incremental_close(ctx);
}

bool kld_resolve_passes(struct kld_session *ctx)
{
    kld_pool_init(ctx, (unsigned)KLD_MIN(ctx->options.threads, UINT32_MAX));
    kld_io_init(ctx);
    kld_undefined_init(ctx);
    if (ctx->options.incremental_verify) {
        bool right = run_verify(ctx);
        kld_incremental_close(ctx);
        return right;
    }
    /* With --incremental, the output of the last link may be all but right. */
    if ((kld_checkpoint(ctx) && kld_incremental_begin(ctx)) || front(ctx))
        return true;
    kld_reproduce(ctx); /* a link that failed, too */
    kld_checkpoint(ctx);
    end(ctx);
    return false;
}

bool kld_emit_passes(struct kld_session *ctx)
{
    if (ctx->options.incremental_verify)
        return true; /* that was all */
    bool planned = kld_incremental_is_planned(ctx);
    bool done = planned && kld_incremental_patch(ctx);
    if (done) {
        kld_reproduce(ctx);
    } else {
        kld_output_abandon(ctx, &ctx->output); /* of the last link, in memory */
        done = (!planned || front(ctx)) && back(ctx);
        kld_reproduce(ctx);
        /* The output has its name, if all went well. */
        done = kld_checkpoint(ctx) && done && pass(ctx, "commit", commit) &&
               pass(ctx, "record", record);
    }
    end(ctx);
    return done;
}
