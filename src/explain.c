#include "src/explain.h"
#include <sys/resource.h>
#include "src/incremental/incremental.h"
#include "src/place.h"
#include "src/resolve.h"
#include "src/text.h"

/* ---- --trace-symbol ---- */

static const char *mention_of(const struct kld_file *file, uint32_t i)
{
    bool shared = file->kind == KLD_FILE_SHARED;
    switch (KLD_NAME_CLASS(file->classes[i])) {
    case KLD_NAME_UNDEF: return "reference to";
    case KLD_NAME_UNDEF_WEAK: return "weak reference to";
    case KLD_NAME_DEF: return shared ? "shared definition of" : "definition of";
    case KLD_NAME_DEF_WEAK: return shared ? "shared definition of" : "weak definition of";
    case KLD_NAME_COMMON: return "common definition of";
    default: return NULL;
    }
}

static void trace_file(struct kld_session *ctx, const struct kld_file *file)
{
    for (uint32_t i = 0; i < file->nglobals; i++) {
        const struct kld_symbol *sym = &ctx->symbols[file->ids[i]];
        const char *mention = mention_of(file, i);
        if (!mention || !kld_symbol_has(sym, KLD_SYM_TRACED))
            continue;
        struct kld_where where = {.file = file, .order = i};
        where.symbol = kld_arena_strndup(&ctx->arena, sym->name, sym->name_len);
        kld_note(ctx, "trace-symbol", &where, "%s %s", mention,
                 kld_shown_name(ctx, &ctx->arena, kld_symbol_name(sym)));
    }
}

void kld_report_traced_symbols(struct kld_session *ctx)
{
    const kld_text_list *names = &ctx->options.trace_symbol;
    bool any = false;
    for (size_t i = 0; i < names->len; i++) {
        struct kld_symbol *sym = kld_symbol_find(ctx, kld_str(names->data[i]));
        if (sym)
            kld_symbol_flag(sym, KLD_SYM_TRACED);
        any |= sym != NULL;
    }
    for (uint32_t i = 0; any && i < ctx->nfiles; i++)
        trace_file(ctx, ctx->files[i]);
}

/* ---- --why-extract ---- */

struct extraction {
    const struct kld_file *by; /* NULL: was there from the beginning */
    kld_symid name;
    bool joined;
};

static bool defines(const struct kld_file *file, uint32_t i)
{
    unsigned class = KLD_NAME_CLASS(file->classes[i]);
    return class == KLD_NAME_DEF || class == KLD_NAME_DEF_WEAK || class == KLD_NAME_COMMON;
}

static bool wants(const struct kld_file *file, uint32_t i)
{
    unsigned class = KLD_NAME_CLASS(file->classes[i]);
    return class == KLD_NAME_UNDEF || class == KLD_NAME_COMMON;
}

/* Goes from the files that are there anyway along references to lazy definitions: a breadth-first
 * search, so each member is explained by one of the shortest chains to it. Load keeps no record
 * of why it took a member; this costs nothing when nobody asks. */
static void explain(struct kld_session *ctx, struct extraction *why)
{
    uint32_t n = ctx->nfiles, tail = 0;
    uint32_t *definer = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, ctx->nsymbols); /* 1 + number */
    uint32_t *queue = KLD_NEW_ARRAY(&ctx->scratch, uint32_t, n);
    for (uint32_t f = n; f-- > 0;) /* the first one is to stay */
        for (uint32_t i = 0; ctx->files[f]->lazy && i < ctx->files[f]->nglobals; i++)
            if (defines(ctx->files[f], i))
                definer[ctx->files[f]->ids[i]] = f + 1;
    for (uint32_t f = 0; f < n; f++)
        if (!ctx->files[f]->lazy) {
            why[f].joined = true;
            queue[tail++] = f;
        }
    for (uint32_t head = 0; head < tail; head++) {
        const struct kld_file *file = ctx->files[queue[head]];
        for (uint32_t i = 0; i < file->nglobals && file->kind != KLD_FILE_SHARED; i++) {
            uint32_t f = wants(file, i) ? definer[file->ids[i]] : 0;
            if (!f || why[f - 1].joined)
                continue;
            why[f - 1] = (struct extraction){file, file->ids[i], true};
            queue[tail++] = f - 1;
        }
    }
}

void kld_report_extracted(struct kld_session *ctx)
{
    if (!ctx->options.why_extract)
        return;
    kld_arena_init(&ctx->scratch, &ctx->alloc, &ctx->oom);
    struct extraction *why = KLD_NEW_ARRAY(&ctx->scratch, struct extraction, ctx->nfiles);
    explain(ctx, why);
    struct kld_text text = {.arena = &ctx->scratch};
    kld_text_printf(&text, "reference\textracted\tsymbol\n"); /* lld's columns */
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f], *by = why[f].by;
        if (!file->lazy)
            continue;
        kld_text_printf(&text, "%s\t", by ? kld_file_label(&ctx->scratch, by) : "");
        kld_text_printf(&text, "%s\t", kld_file_label(&ctx->scratch, file));
        if (by)
            kld_text_printf(
                &text, "%s",
                kld_shown_name(ctx, &ctx->scratch, kld_symbol_name(&ctx->symbols[why[f].name])));
        kld_text_printf(&text, "\n");
    }
    kld_io_write_file(ctx, ctx->options.why_extract, text.data, text.len);
    kld_arena_free(&ctx->scratch);
}

/* ---- --time, --stats ---- */

static void report_time(struct kld_session *ctx)
{
    double wall = 0, cpu = 0;
    kld_note(ctx, "time", NULL, "%-10s %10s %10s", "pass", "wall ms", "cpu ms");
    for (size_t i = 0; i < ctx->timings.len; i++) {
        const struct kld_timing *t = &ctx->timings.data[i];
        wall += t->wall;
        cpu += t->cpu;
        kld_note(ctx, "time", NULL, "%-10s %10.3f %10.3f", t->name, t->wall * 1e3, t->cpu * 1e3);
    }
    kld_note(ctx, "time", NULL, "%-10s %10.3f %10.3f", "total", wall * 1e3, cpu * 1e3);
}

static void count(struct kld_session *ctx, const char *what, uint64_t number)
{
    kld_note(ctx, "stats", NULL, "%-24s %14llu", what, (unsigned long long)number);
}

static void report_counts(struct kld_session *ctx)
{
    uint64_t objects = 0, members = 0, shared = 0, listed = 0, input = 0, atoms = 0, live = 0,
             edges = 0;
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f];
        objects += file->kind == KLD_FILE_OBJECT;
        members += file->kind == KLD_FILE_OBJECT && file->member;
        shared += file->kind == KLD_FILE_SHARED;
        listed += file->kind == KLD_FILE_SHARED ? file->nglobals : 0;
        input += file->bytes.len;
        atoms += file->natoms;
        for (uint32_t i = 0; i < file->natoms; i++) {
            live += file->atoms[i].live != 0;
            edges += file->atoms[i].live ? file->atoms[i].nedges : 0;
        }
    }
    uint64_t names = 0, undefined = 0;
    for (kld_symid id = 0; id < ctx->nsymbols; id++) {
        const struct kld_symbol *sym = &ctx->symbols[id];
        bool mentioned = sym->name && kld_symbol_has(sym, KLD_SYM_REF_REGULAR);
        names += mentioned; /* the others are from shared libraries and indices of archives */
        undefined += mentioned && sym->kind == KLD_SYM_UNDEFINED;
    }
    const struct kld_incremental *inc = ctx->incremental;
    if (inc) {
        count(ctx, "incremental: full links", inc->links);
        count(ctx, "incremental: patched", inc->patches);
        count(ctx, "incremental: fell back", inc->fallbacks);
        count(ctx, "whole-program resolutions", inc->links); /* every full link is one */
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    count(ctx, "object files", objects);
    count(ctx, "  archive members", members);
    count(ctx, "shared libraries", shared);
    count(ctx, "  names taken of them", listed);
    count(ctx, "input bytes", input);
    count(ctx, "global names", names);
    count(ctx, "  undefined", undefined);
    count(ctx, "input sections", atoms);
    count(ctx, "  live", live);
    count(ctx, "relocations of these", edges);
    count(ctx, "output sections", ctx->norder);
    count(ctx, "output bytes", ctx->file_size);
    count(ctx, "threads", kld_pool_started(ctx));
    count(ctx, "peak memory, KiB", (uint64_t)usage.ru_maxrss);
}

void kld_report_statistics(struct kld_session *ctx)
{
    if (ctx->options.time)
        report_time(ctx);
    if (ctx->options.stats)
        report_counts(ctx);
}
