/* incremental.c - the beginning and the end of an incremental link. */
#include "src/incremental/incremental.h"
#include <errno.h>
#include "src/incremental/kept.h"
#include "src/incremental/record.h"
#include "src/incremental/relink.h"
#include "src/incremental/store.h"
#include "src/incremental/verify.h"
#include "src/undefined.h"

static const char *slug_of(enum kld_reason reason)
{
    switch (reason) {
    case KLD_WHY_NOT_ASKED: break;
#define KLD_REASON(number, name, slug)                                                             \
    case KLD_WHY_##name:                                                                           \
        return slug;
#include "src/incremental/reasons.def"
#undef KLD_REASON
    }
    return "";
}

/* ---- modes ---- */

const char *kld_incremental_unpatchable(const struct kld_session *ctx)
{
    const struct kld_options *o = &ctx->options;
    if (o->kind == KLD_KIND_RELOCATABLE)
        return "-r";
    if (o->emit_relocs)
        return "--emit-relocs";
    if (o->icf != KLD_ICF_NONE)
        return "--icf";
    if (o->strip == KLD_STRIP_ALL)
        return "-s";
    if (o->compress_debug != KLD_COMPRESS_NONE)
        return "--compress-debug-sections";
    if (o->section_start.len) /* between sections with addresses there may be no room */
        return "--section-start";
    return NULL;
}

/* Reports that only a full link has the facts for. */
static const char *full_report(const struct kld_options *o)
{
    if (o->map_file)
        return "--Map";
    if (o->cref)
        return "--cref";
    if (o->reproduce)
        return "--reproduce";
    if (o->why_extract)
        return "--why-extract";
    if (o->print_gc_sections)
        return "--print-gc-sections";
    if (o->trace || o->trace_symbol.len)
        return "--trace";
    return NULL;
}

/* ---- trying ---- */

static void hear(void *context, const kld_message *message)
{
    struct kld_relink *r = context;
    if (message->severity == KLD_ERROR && !r->error)
        r->error = kld_arena_strndup(&r->link->arena, message->text, strlen(message->text));
}

/* The host's own, as it knows them: the relink's context is not its. */
static void *forward_alloc(void *context, size_t size)
{
    const kld_host *host = &((struct kld_relink *)context)->link->host;
    return host->alloc(host->context, size);
}

static void forward_free(void *context, void *block, size_t size)
{
    const kld_host *host = &((struct kld_relink *)context)->link->host;
    host->free(host->context, block, size);
}

static bool forward_open(void *context, const char *path, const void **data, size_t *length)
{
    const kld_host *host = &((struct kld_relink *)context)->link->host;
    return host->open_file(host->context, path, data, length);
}

static void forward_close(void *context, const char *path, const void *data, size_t length)
{
    const kld_host *host = &((struct kld_relink *)context)->link->host;
    host->close_file(host->context, path, data, length);
}

static bool refuse_state(struct kld_relink *r, enum kld_state_problem problem)
{
    switch (problem) {
    case KLD_STATE_OK: return false;
    case KLD_STATE_DAMAGED:
        return kld_relink_refuse(r, KLD_WHY_STATE_DAMAGED, "the state is damaged");
    case KLD_STATE_VERSION:
        return kld_relink_refuse(r, KLD_WHY_STATE_VERSION, "the state is another linker's");
    case KLD_STATE_UNTRUSTED:
        return kld_relink_refuse(r, KLD_WHY_STATE_UNTRUSTED, "the last patch was not finished");
    }
    return false;
}

/* The recovery point of the session in which patching is tried. */
static bool relink_or_run_out(struct kld_relink *r)
{
    if (setjmp(r->ctx->oom))
        return kld_relink_refuse(r, KLD_WHY_ERRORS, "out of memory");
    kld_pool_init(r->ctx, 1);
    kld_io_init(r->ctx);
    kld_undefined_init(r->ctx);
    return kld_relink(r);
}

static bool commit_or_run_out(struct kld_relink *r)
{
    if (setjmp(r->ctx->oom))
        return kld_relink_refuse(r, KLD_WHY_ERRORS, "out of memory");
    return kld_relink_commit(r);
}

static bool try(struct kld_session *ctx, struct kld_relink *r)
{
    struct kld_incremental *inc = ctx->incremental;
    void *data;
    size_t length;
    bool busy = false;
    r->link = ctx;
    r->update.fd = -1;
    inc->stored = inc->store.open(inc->store.context, &data, &length, &busy);
    inc->known = inc->kept = inc->stored || busy;
    if (busy)
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_BUSY, "another link is using the state");
    if (!inc->stored || ctx->options.incremental == KLD_INCREMENTAL_FULL)
        return false;
    enum kld_state_problem problem = kld_state_open(&r->st, &ctx->arena, data, length);
    if (problem == KLD_STATE_OK || problem == KLD_STATE_UNTRUSTED)
        inc->kept = r->st.header->kept;
    if (refuse_state(r, problem) || r->reason)
        return false;
    inc->links = r->st.header->links;
    inc->patches = r->st.header->patches;
    inc->fallbacks = r->st.header->fallbacks;
    const char *report = full_report(&ctx->options);
    if (report)
        return kld_relink_refuse(r, KLD_WHY_OPTIONS, "%s needs a full link", report);
    /* What it says is what it said: the list of inputs is the same. */
    struct kld_identity id;
    const char *rule = ctx->options.dependency_file;
    if (rule && !kld_identify(ctx, rule, &id))
        return kld_relink_refuse(r, KLD_WHY_OPTIONS, "%s is not there", rule);
    kld_host host = {
        .size = sizeof(host),
        .context = r,
        .alloc = forward_alloc,
        .free = forward_free,
        .message = hear,
        .open_file = ctx->host.open_file ? forward_open : NULL,
        .close_file = ctx->host.close_file ? forward_close : NULL,
    };
    inc->relink = r->ctx = kld_new(&host);
    if (!r->ctx)
        return kld_relink_refuse(r, KLD_WHY_ERRORS, "out of memory");
    r->ctx->options = ctx->options;
    return relink_or_run_out(r);
}

static void report(struct kld_session *ctx, const struct kld_relink *r, bool patched)
{
    ctx->state_io.outcome = patched     ? KLD_OUTCOME_PATCHED
                            : r->reason ? KLD_OUTCOME_FELL_BACK_FULL
                                        : KLD_OUTCOME_FULL;
    if (r->reason)
        ctx->state_io.reason =
            kld_arena_printf(&ctx->arena, "%d %s: %s", r->reason, slug_of(r->reason), r->text);
    if (!ctx->options.incremental_report)
        return;
    uint32_t changed = 0;
    for (size_t i = 0; i < r->files.len; i++)
        changed += r->files.data[i].differs;
    if (patched)
        kld_note(ctx, "incremental", NULL,
                 "incremental: PATCHED: %u files changed, %u atoms written, %u moved, "
                 "%u references",
                 changed, r->natoms, r->nmoved, r->nreferences);
    else if (r->reason)
        kld_note(ctx, "incremental", NULL, "incremental: FELL_BACK_FULL: %s", ctx->state_io.reason);
    else
        kld_note(ctx, "incremental", NULL, "incremental: FULL");
}

static bool is_removed(struct kld_session *ctx)
{
    struct kld_identity id;
    return ctx->incremental->known && !kld_identify(ctx, ctx->options.output, &id) &&
           errno == ENOENT;
}

/* The full link needs the output for itself. */
static void give_up(struct kld_session *ctx)
{
    struct kld_incremental *inc = ctx->incremental;
    inc->removed = inc->tried->update.kept || is_removed(ctx);
    inc->fell_back = inc->tried->reason != 0;
    report(ctx, inc->tried, false);
    kld_update_close(ctx, &inc->tried->update);
}

bool kld_incremental_begin(struct kld_session *ctx)
{
    if (ctx->options.incremental == KLD_INCREMENTAL_OFF)
        return false;
    struct kld_relink *r = KLD_NEW(&ctx->arena, struct kld_relink);
    const char *mode = kld_incremental_unpatchable(ctx);
    if (mode) {
        r->link = ctx;
        kld_relink_refuse(r, KLD_WHY_MODE, "the output of a link with %s cannot be patched", mode);
        kld_warning(ctx, "incremental", NULL,
                    "--incremental has no effect: the output of a link with %s cannot be patched",
                    mode);
        report(ctx, r, false);
        return false;
    }
    struct kld_incremental *inc = ctx->incremental = KLD_NEW(&ctx->arena, struct kld_incremental);
    kld_record_options(ctx, inc->options);
    kld_record_items(ctx, inc->items);
    inc->search = kld_record_search(ctx);
    inc->store = *kld_store(ctx);
    inc->tried = r;
    inc->planned = try(ctx, r);
    if (!inc->planned)
        give_up(ctx);
    return inc->planned;
}

bool kld_incremental_is_planned(const struct kld_session *ctx)
{
    return ctx->incremental && ctx->incremental->planned;
}

bool kld_incremental_patch(struct kld_session *ctx)
{
    struct kld_incremental *inc = ctx->incremental;
    kld_pool_stop(ctx); /* others may want the job tokens */
    bool patched = commit_or_run_out(inc->tried);
    inc->planned = false;
    if (!patched) {
        give_up(ctx);
        return false;
    }
    report(ctx, inc->tried, true);
    kld_update_close(ctx, &inc->tried->update);
    return true;
}

/* ---- the state of a full link ---- */

/* Before the state says what the output is: names are part of that. */
static void settle_kept(struct kld_session *ctx)
{
    struct kld_incremental *inc = ctx->incremental;
    struct kld_identity id;
    if (inc->kept && !inc->removed)
        kld_kept_drop(ctx);
    inc->kept =
        inc->removed && kld_identify(ctx, ctx->options.output, &id) && kld_kept_make(ctx, &id);
}

void kld_incremental_end(struct kld_session *ctx)
{
    struct kld_incremental *inc = ctx->incremental;
    if (!inc || !ctx->slack)
        return;
    inc->links++;
    inc->fallbacks += inc->fell_back;
    settle_kept(ctx);
    if (!kld_record_link(ctx)) {
        inc->store.discard(inc->store.context);
        if (inc->kept)
            kld_kept_drop(ctx);
        kld_warning(ctx, "incremental-state", NULL,
                    "cannot write the state of the link: the next one will be a full one");
    }
}

void kld_incremental_close(struct kld_session *ctx)
{
    struct kld_incremental *inc = ctx->incremental;
    if (!inc)
        return;
    if (inc->tried)
        kld_update_close(ctx, &inc->tried->update);
    inc->store.close(inc->store.context);
    if (inc->verify)
        kld_update_close(ctx, &inc->verify->output);
    if (inc->relink)
        kld_free(inc->relink);
    ctx->incremental = NULL;
}
