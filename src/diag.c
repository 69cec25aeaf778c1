/* diag.c - messages wait here for the next checkpoint, where they are put in input order.
 *
 * A message is composed in the memory of the thread that raises it and chained in under the lock;
 * so running out of memory never happens while the lock is held. */
#define _GNU_SOURCE
#include "src/session.h"
#include <errno.h>
#include <stdio.h>

/* Place of a message among the others. */
struct rank {
    uint64_t position; /* of the input, + 1; 0: concerns no input */
    uint64_t member_offset, order, offset;
};

struct kld_pending_message {
    struct kld_pending_message *next;
    struct rank rank;
    kld_message message;
};

enum { TRIM_AT = 4096 }; /* pending errors, before the hopeless ones among them are forgotten */

/* ---- order ---- */

static struct rank rank_of(const struct kld_where *where)
{
    struct rank rank = {0};
    if (where && where->file) {
        rank.position = (uint64_t)where->file->position + 1;
        rank.member_offset = where->file->member_offset;
    }
    if (where) {
        rank.order = where->order;
        rank.offset = where->has_offset ? where->offset : 0;
    }
    return rank;
}

static int compare(const struct rank *a, const struct rank *b)
{
    const uint64_t left[] = {a->position, a->member_offset, a->order, a->offset};
    const uint64_t right[] = {b->position, b->member_offset, b->order, b->offset};
    for (size_t i = 0; i < KLD_COUNT(left); i++)
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    return 0;
}

static struct kld_pending_message *merge(struct kld_pending_message *a,
                                         struct kld_pending_message *b)
{
    struct kld_pending_message *first = NULL, **end = &first;
    while (a && b) {
        struct kld_pending_message **least = compare(&b->rank, &a->rank) < 0 ? &b : &a;
        *end = *least;
        end = &(*least)->next;
        *least = (*least)->next;
    }
    *end = a ? a : b;
    return first;
}

/* Stable, and needs no memory: it also runs after memory has run out. */
static struct kld_pending_message *sort(struct kld_pending_message *list)
{
    struct kld_pending_message *runs[64] = {0}; /* [i]: 2^i messages, sorted, earlier ones */
    while (list) {
        struct kld_pending_message *run = list;
        list = list->next;
        run->next = NULL;
        unsigned i = 0;
        for (; runs[i]; i++) {
            run = merge(runs[i], run);
            runs[i] = NULL;
        }
        runs[i] = run;
    }
    struct kld_pending_message *all = NULL;
    for (unsigned i = 0; i < KLD_COUNT(runs); i++)
        all = merge(runs[i], all);
    return all;
}

static struct kld_pending_message *take_all(struct kld_diagnostics *diag)
{
    struct kld_pending_message *list = NULL;
    for (struct kld_pending_message *m = diag->pending, *next; m; m = next) {
        next = m->next; /* the newest is first */
        m->next = list;
        list = m;
    }
    diag->pending = NULL;
    diag->npending = 0;
    return sort(list);
}

/* Under the lock. A broken set of inputs can have millions of errors of which --error-limit shows
 * twenty: keeps those that may still be among them. */
static void trim(struct kld_session *ctx)
{
    struct kld_diagnostics *diag = &ctx->diag;
    uint64_t limit = ctx->options.error_limit, errors = diag->shown;
    struct kld_pending_message *list = take_all(diag);
    while (list) {
        struct kld_pending_message *m = list;
        list = m->next;
        if (m->message.severity == KLD_ERROR && errors++ > limit)
            continue;
        if (m->message.severity == KLD_ERROR) {
            /* Grows, so that the last one is the most. */
            diag->last[0] = m->rank.position;
            diag->last[1] = m->rank.member_offset;
            diag->last[2] = m->rank.order;
            diag->last[3] = m->rank.offset;
        }
        m->next = diag->pending;
        diag->pending = m;
        diag->npending++;
    }
    diag->trimmed = errors > limit;
    diag->trim_at = 2 * diag->npending + TRIM_AT;
}

/* Under the lock. Whether an error comes too late in input order to be shown. */
static bool is_hopeless(const struct kld_diagnostics *diag, const struct rank *rank)
{
    if (!diag->trimmed)
        return false;
    struct rank last = {diag->last[0], diag->last[1], diag->last[2], diag->last[3]};
    return compare(rank, &last) > 0;
}

/* ---- raising ---- */

/* "path(member):(section+0xoffset): text", as GNU ld and lld have it: tools look for that. */
static char *compose(struct kld_arena *arena, const struct kld_where *where, const char *body)
{
    const struct kld_file *file = where ? where->file : NULL;
    const char *path = file ? file->path : where ? where->path : NULL;
    if (!path || where->in_text)
        return kld_arena_strndup(arena, body, strlen(body));
    char place[32] = "";
    if (where->section && where->has_offset)
        snprintf(place, sizeof(place), "+0x%llx", (unsigned long long)where->offset);
    else if (where->has_offset && file)
        snprintf(place, sizeof(place), "offset 0x%llx: ", (unsigned long long)where->offset);
    else if (where->has_offset)
        snprintf(place, sizeof(place), "%llu:", (unsigned long long)where->offset);
    const char *member = file ? file->member : NULL;
    const char *open = member ? "(" : "", *close = member ? ")" : "";
    member = member ? member : "";
    if (where->section)
        return kld_arena_printf(arena, "%s%s%s%s:(%s%s): %s", path, open, member, close,
                                where->section, place, body);
    if (where->has_offset && !file) /* a line of a script */
        return kld_arena_printf(arena, "%s:%s %s", path, place, body);
    return kld_arena_printf(arena, "%s%s%s%s: %s%s", path, open, member, close, place, body);
}

static const char *copy(struct kld_arena *arena, const char *text)
{
    return text ? kld_arena_strndup(arena, text, strlen(text)) : NULL;
}

static void raise_message(struct kld_session *ctx, kld_severity severity, const char *id,
                          const struct kld_where *where, const char *format, va_list args)
{
    struct kld_diagnostics *diag = &ctx->diag;
    struct rank rank = rank_of(where);
    if (severity == KLD_ERROR) {
        atomic_fetch_add_explicit(&diag->errors, 1, memory_order_relaxed);
        pthread_mutex_lock(&diag->lock);
        bool hopeless = diag->truncated || is_hopeless(diag, &rank);
        pthread_mutex_unlock(&diag->lock);
        if (hopeless)
            return;
    }
    struct kld_arena *arena = kld_pool_arena(ctx);
    struct kld_pending_message *m = KLD_NEW(arena, struct kld_pending_message);
    m->rank = rank;
    m->message = (kld_message){.size = sizeof(kld_message), .severity = severity, .id = id};
    m->message.text = compose(arena, where, kld_arena_vprintf(arena, format, args));
    if (where) {
        m->message.file = copy(arena, where->file ? where->file->path : where->path);
        m->message.member = where->file ? copy(arena, where->file->member) : NULL;
        m->message.section = copy(arena, where->section);
        m->message.symbol = copy(arena, where->symbol);
        m->message.offset = where->offset;
        m->message.has_offset = where->has_offset;
    }
    pthread_mutex_lock(&diag->lock);
    m->next = diag->pending;
    diag->pending = m;
    diag->npending++;
    if (ctx->options.error_limit && diag->npending >= KLD_MAX(diag->trim_at, TRIM_AT))
        trim(ctx);
    pthread_mutex_unlock(&diag->lock);
}

void kld_error(struct kld_session *ctx, const char *id, const struct kld_where *where,
               const char *format, ...)
{
    va_list args;
    va_start(args, format);
    raise_message(ctx, KLD_ERROR, id, where, format, args);
    va_end(args);
}

void kld_warning(struct kld_session *ctx, const char *id, const struct kld_where *where,
                 const char *format, ...)
{
    /* GNU ld: --no-warnings overrides --fatal-warnings. */
    if (ctx->options.no_warnings)
        return;
    bool fatal = ctx->options.fatal_warnings;
    if (!fatal)
        atomic_fetch_add_explicit(&ctx->diag.warnings, 1, memory_order_relaxed);
    va_list args;
    va_start(args, format);
    raise_message(ctx, fatal ? KLD_ERROR : KLD_WARNING, id, where, format, args);
    va_end(args);
}

void kld_note(struct kld_session *ctx, const char *id, const struct kld_where *where,
              const char *format, ...)
{
    va_list args;
    va_start(args, format);
    raise_message(ctx, KLD_NOTE, id, where, format, args);
    va_end(args);
}

void kld_internal_error(struct kld_session *ctx, const struct kld_where *where, const char *format,
                        ...)
{
    ctx->diag.internal = true;
    va_list args;
    va_start(args, format);
    raise_message(ctx, KLD_ERROR, "internal-error", where, format, args);
    va_end(args);
}

/* ---- delivering ---- */

static void deliver(struct kld_session *ctx, const kld_message *message)
{
    if (ctx->host.message)
        ctx->host.message(ctx->host.context, message);
}

/* Errors beyond the limit are dropped, and so are the warnings among them, as after a stop. */
static bool is_shown(struct kld_session *ctx, const kld_message *message)
{
    struct kld_diagnostics *diag = &ctx->diag;
    uint64_t limit = ctx->options.error_limit;
    if (diag->truncated)
        return false;
    if (message->severity != KLD_ERROR)
        return true;
    if (!limit || diag->shown < limit) {
        diag->shown++;
        return true;
    }
    diag->truncated = true;
    kld_message last = {
        .size = sizeof(last),
        .severity = KLD_ERROR,
        .id = "error-limit",
        .text = "too many errors emitted, stopping now (use --error-limit=0 to see all errors)",
    };
    deliver(ctx, &last);
    return false;
}

bool kld_checkpoint(struct kld_session *ctx)
{
    struct kld_diagnostics *diag = &ctx->diag;
    pthread_mutex_lock(&diag->lock);
    struct kld_pending_message *list = take_all(diag);
    diag->trimmed = false;
    diag->trim_at = 0;
    pthread_mutex_unlock(&diag->lock);
    for (; list; list = list->next)
        if (is_shown(ctx, &list->message))
            deliver(ctx, &list->message);
    return !kld_has_failed(ctx);
}

bool kld_has_failed(struct kld_session *ctx)
{
    return atomic_load_explicit(&ctx->diag.errors, memory_order_relaxed) != 0;
}

void kld_forget_errors(struct kld_session *ctx)
{
    struct kld_diagnostics *diag = &ctx->diag;
    diag->errors = diag->warnings = 0;
    diag->shown = 0;
    diag->truncated = false;
    diag->internal = false;
}

void kld_print(struct kld_session *ctx, const char *text, size_t length)
{
    if (ctx->host.print && length)
        ctx->host.print(ctx->host.context, text, length);
}

const char *kld_errno_text(int error, char *buffer, size_t size)
{
#ifdef __GLIBC__
    /* Untranslated: the same message whatever the host's locale. */
    const char *text = strerrordesc_np(error);
    if (text)
        return text;
#else
    if (strerror_r(error, buffer, size) == 0)
        return buffer;
#endif
    snprintf(buffer, size, "error %d", error);
    return buffer;
}
