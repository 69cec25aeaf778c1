/* inputs.c - the command line's inputs one by one: libraries searched, scripts expanded. */
#include "src/inputs.h"
#include <errno.h>
#include "src/assign.h"
#include "src/glob.h"
#include "src/script.h"

enum { MAX_SCRIPT_DEPTH = 16 };

struct expander {
    struct kld_session *ctx;
    void (*take)(void *arg, const struct kld_input_file *from, struct kld_bytes bytes);
    void *arg;
    uint32_t position;
    unsigned depth;
};

const char *kld_error_text(struct kld_session *ctx, int error)
{
    enum { SIZE = 128 };
    return kld_errno_text(error, kld_arena_alloc(&ctx->arena, SIZE, 1), SIZE);
}

/* ---- search paths ---- */

/* A path of -L or SEARCH_DIR: "=dir" and "$SYSROOTdir" are inside the sysroot. */
static const char *in_sysroot(struct kld_session *ctx, const char *path)
{
    const char *root = ctx->options.sysroot ? ctx->options.sysroot : "";
    if (path[0] == '=')
        return kld_arena_printf(&ctx->arena, "%s%s", root, path + 1);
    if (strncmp(path, "$SYSROOT", 8) == 0)
        return kld_arena_printf(&ctx->arena, "%s%s", root, path + 8);
    return path;
}

static const char *try_name(struct kld_session *ctx, const char *directory, const char *prefix,
                            const char *name, const char *suffix)
{
    const char *path = kld_arena_printf(&ctx->arena, "%s/%s%s%s", in_sysroot(ctx, directory),
                                        prefix, name, suffix);
    return kld_io_exists(ctx, path) ? path : NULL;
}

static const char *try_directory(struct kld_session *ctx, const char *directory, const char *name,
                                 unsigned flags)
{
    const char *path = NULL;
    if (name[0] == ':')
        return try_name(ctx, directory, "", name + 1, "");
    if (!(flags & KLD_INPUT_STATIC) && ctx->options.kind != KLD_KIND_RELOCATABLE)
        path = try_name(ctx, directory, "lib", name, ".so");
    return path ? path : try_name(ctx, directory, "lib", name, ".a");
}

/* The default library path is the CPU's; before an input fixed the target it is that of the
 * first CPU that is built, which -m would have named. */
static const struct kld_arch_ops *path_arch(const struct kld_session *ctx)
{
    return ctx->arch ? ctx->arch : kld_archs[0];
}

const char *kld_find_library(struct kld_session *ctx, const char *name, unsigned flags)
{
    const kld_text_list *dirs = &ctx->options.library_path;
    for (size_t i = 0; i < dirs->len; i++) {
        const char *path = try_directory(ctx, dirs->data[i], name, flags);
        if (path)
            return path;
    }
    const char *const *defaults = path_arch(ctx)->library_path;
    for (size_t i = 0; ctx->options.default_library_path && defaults[i]; i++) {
        const char *path = try_directory(ctx, defaults[i], name, flags);
        if (path)
            return path;
    }
    return NULL;
}

/* ---- the target ---- */

static void set_target(struct kld_session *ctx, const struct kld_format_ops *format,
                       const struct kld_arch_ops *arch, const char *because)
{
    ctx->format = format;
    ctx->arch = arch;
    ctx->arch_from = because;
    format->begin(ctx);
}

static bool emulation_matches(const struct kld_arch_ops *arch, const char *name)
{
    for (size_t i = 0; arch->emulations[i]; i++)
        if (strcmp(arch->emulations[i], name) == 0)
            return true;
    return false;
}

static void target_from_option(struct kld_session *ctx)
{
    const char *name = ctx->options.machine;
    if (!name)
        return;
    for (size_t i = 0; kld_archs[i]; i++)
        if (emulation_matches(kld_archs[i], name)) {
            set_target(ctx, kld_formats[0], kld_archs[i],
                       kld_arena_printf(&ctx->arena, "-m %s", name));
            return;
        }
    kld_error(ctx, "bad-option", NULL, "-m %s: this emulation is not built yet", name);
}

static void report_probe(struct kld_session *ctx, const struct kld_input_file *from,
                         const char *member, const char *text)
{
    struct kld_where where = {.path = from->path, .order = from->position};
    if (member)
        where.path = kld_arena_printf(kld_pool_arena(ctx), "%s(%s)", from->path, member);
    kld_error(ctx, "bad-input", &where, "%s", text);
}

enum kld_probe kld_probe_bytes(struct kld_session *ctx, const struct kld_input_file *from,
                               struct kld_bytes bytes, const char *member)
{
    for (size_t i = 0; kld_formats[i]; i++) {
        const struct kld_arch_ops *arch = NULL;
        const char *why = "cannot be linked";
        enum kld_probe kind = kld_formats[i]->probe(bytes, &arch, &why);
        if (kind == KLD_PROBE_NONE)
            continue;
        bool symbols_only = from->flags & KLD_INPUT_JUST_SYMBOLS;
        if (kind == KLD_PROBE_UNSUPPORTED || (kind == KLD_PROBE_PROGRAM && !symbols_only)) {
            report_probe(ctx, from, member, why);
            return kind;
        }
        if (!ctx->format)
            set_target(ctx, kld_formats[i], arch, from->path);
        if (ctx->format != kld_formats[i] || ctx->arch != arch) {
            report_probe(ctx, from, member,
                         kld_arena_printf(kld_pool_arena(ctx), "is for %s, but %s is for %s",
                                          arch->name, ctx->arch_from, ctx->arch->name));
            return KLD_PROBE_UNSUPPORTED;
        }
        return symbols_only ? KLD_PROBE_OBJECT : kind;
    }
    if (bytes.len >= 4 && (memcmp(bytes.ptr, "BC\xc0\xde", 4) == 0 ||
                           memcmp(bytes.ptr, "\xde\xc0\x17\x0b", 4) == 0)) {
        report_probe(ctx, from, member,
                     "LLVM bitcode: link-time optimisation is not supported; compile without "
                     "-flto");
        return KLD_PROBE_UNSUPPORTED;
    }
    if (!member)
        report_probe(ctx, from, NULL, "file format not recognized");
    return KLD_PROBE_NONE;
}

/* ---- scripts ---- */

static void take_file(struct expander *e, const char *path, struct kld_bytes bytes, unsigned flags);
static void take_library(struct expander *e, const char *name, unsigned flags);

/* A file named in a script: as it is, beside the script, or in the library path. */
static void take_script_input(struct expander *e, const char *script, const char *name,
                              unsigned flags)
{
    struct kld_session *ctx = e->ctx;
    struct kld_bytes bytes;
    const char *root = ctx->options.sysroot ? ctx->options.sysroot : "";
    const char *path = name;
    bool rooted = *root && strncmp(script, root, strlen(root)) == 0;
    if (name[0] == '/' && rooted)
        path = kld_arena_printf(&ctx->arena, "%s%s", root, name);
    if (name[0] == '=')
        path = in_sysroot(ctx, name);
    if (kld_io_exists(ctx, path) && kld_io_open(ctx, path, &bytes)) {
        take_file(e, path, bytes, flags);
        return;
    }
    const char *slash = strrchr(script, '/');
    if (slash && name[0] != '/') {
        path = kld_arena_printf(&ctx->arena, "%.*s/%s", (int)(slash - script), script, name);
        if (kld_io_exists(ctx, path) && kld_io_open(ctx, path, &bytes)) {
            take_file(e, path, bytes, flags);
            return;
        }
    }
    take_library(e, kld_arena_printf(&ctx->arena, ":%s", name), flags);
}

static char *text_of(struct kld_session *ctx, struct kld_str text)
{
    return kld_arena_strndup(&ctx->arena, text.ptr, text.len);
}

static void run_command(struct expander *e, const char *path, unsigned flags,
                        const struct kld_script_command *c)
{
    struct kld_session *ctx = e->ctx;
    char *text = text_of(ctx, c->text);
    unsigned as = flags | (c->as_needed ? KLD_INPUT_AS_NEEDED : 0u);
    switch ((enum kld_script_kind)c->kind) {
    case KLD_SCRIPT_INPUT:
    case KLD_SCRIPT_STARTUP:
        if (c->is_library)
            take_library(e, text, as);
        else
            take_script_input(e, path, text, as);
        break;
    case KLD_SCRIPT_SEARCH_DIR:
        *kld_vec_push(&ctx->arena, &ctx->options.library_path) = text;
        break;
    case KLD_SCRIPT_ENTRY:
        if (!ctx->options.entry)
            ctx->options.entry = text;
        break;
    case KLD_SCRIPT_EXTERN: *kld_vec_push(&ctx->arena, &ctx->options.undefined) = text; break;
    case KLD_SCRIPT_VERSION: *kld_vec_push(&ctx->arena, &ctx->version_texts) = text; break;
    case KLD_SCRIPT_ASSIGN: kld_assign_add(ctx, c->text, c->expr, c->provide, c->hidden); break;
    case KLD_SCRIPT_ASSERT:
        kld_assign_add(ctx, (struct kld_str){0}, c->expr, false, false);
        ctx->assigns.data[ctx->assigns.len - 1].message = c->text;
        break;
    case KLD_SCRIPT_OUTPUT: ctx->options.output = text; break;
    case KLD_SCRIPT_GROUP_BEGIN: /* every archive is searched until nothing new is found anyway */
    case KLD_SCRIPT_GROUP_END:
    case KLD_SCRIPT_OUTPUT_FORMAT: /* the first object fixes the target */
    case KLD_SCRIPT_OUTPUT_ARCH:
    case KLD_SCRIPT_TARGET: break;
    }
}

static void take_script(struct expander *e, const char *path, struct kld_bytes bytes,
                        unsigned flags)
{
    struct kld_session *ctx = e->ctx;
    struct kld_script script = {0};
    if (e->depth == MAX_SCRIPT_DEPTH) {
        kld_error(ctx, "bad-script", &(struct kld_where){.path = path},
                  "scripts nested too deeply");
        return;
    }
    if (!kld_script_parse(&ctx->arena, bytes, &script)) {
        kld_error(ctx, "bad-script",
                  &(struct kld_where){
                      .path = kld_arena_printf(&ctx->arena, "%s:%u", path, script.error_line)},
                  "%s", script.error);
        return;
    }
    e->depth++;
    flags &= ~(unsigned)(KLD_INPUT_LIBRARY | KLD_INPUT_SCRIPT);
    for (size_t i = 0; i < script.commands.len; i++)
        run_command(e, path, flags, &script.commands.data[i]);
    e->depth--;
}

/* ---- inputs ---- */

static bool excluded(struct kld_session *ctx, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    for (size_t i = 0; i < ctx->options.exclude_libs.len; i++) {
        /* Names separated by commas or colons, "ALL" for every archive. */
        const char *list = ctx->options.exclude_libs.data[i];
        while (*list) {
            size_t n = strcspn(list, ",:");
            if ((n == 3 && memcmp(list, "ALL", 3) == 0) ||
                (n == strlen(base) && memcmp(list, base, n) == 0))
                return true;
            list += n + (list[n] != 0);
        }
    }
    return false;
}

static void take_file(struct expander *e, const char *path, struct kld_bytes bytes, unsigned flags)
{
    struct kld_session *ctx = e->ctx;
    const struct kld_arch_ops *arch = NULL;
    const char *why;
    if (flags & KLD_INPUT_BINARY) {
        if (!ctx->format)
            set_target(ctx, kld_formats[0], kld_archs[0], "-b binary");
        bytes = ctx->format->binary_object(ctx, path, bytes);
    }
    bool known = bytes.len >= 8 && memcmp(bytes.ptr, "!<", 2) == 0;
    for (size_t i = 0; kld_formats[i] && !known; i++)
        known = kld_formats[i]->probe(bytes, &arch, &why) != KLD_PROBE_NONE;
    if ((flags & KLD_INPUT_SCRIPT) || (!known && kld_script_probe(bytes))) {
        take_script(e, path, bytes, flags);
        return;
    }
    struct kld_input_file from = {.path = path,
                                  .position = ++e->position,
                                  .flags = flags,
                                  .exclude_libs =
                                      ctx->options.exclude_libs.len && excluded(ctx, path)};
    if (ctx->options.trace)
        kld_note(ctx, "trace", NULL, "%s", path);
    e->take(e->arg, &from, bytes);
}

static void take_path(struct expander *e, const char *path, unsigned flags)
{
    struct kld_bytes bytes;
    if (kld_io_open(e->ctx, path, &bytes)) {
        take_file(e, path, bytes, flags);
        return;
    }
    kld_error(e->ctx, "cannot-open",
              &(struct kld_where){.path = path, .in_text = true, .order = e->position},
              "cannot open %s: %s", path, kld_error_text(e->ctx, errno));
}

static void take_library(struct expander *e, const char *name, unsigned flags)
{
    const char *path = kld_find_library(e->ctx, name, flags);
    if (path)
        take_path(e, path, flags | KLD_INPUT_LIBRARY);
    else if (name[0] == ':')
        kld_error(e->ctx, "cannot-find", NULL, "cannot find %s", name + 1);
    else
        kld_error(e->ctx, "cannot-find", NULL, "cannot find -l%s", name);
}

void kld_inputs_expand(struct kld_session *ctx,
                       void (*take)(void *arg, const struct kld_input_file *from,
                                    struct kld_bytes bytes),
                       void *arg)
{
    struct expander e = {.ctx = ctx, .take = take, .arg = arg};
    target_from_option(ctx);
    for (size_t i = 0; i < ctx->inputs.len; i++) {
        const struct kld_input_item *item = &ctx->inputs.data[i];
        if (item->bytes.ptr)
            take_file(&e, item->name, item->bytes, item->flags);
        else if (item->flags & KLD_INPUT_LIBRARY)
            take_library(&e, item->name, item->flags);
        else
            take_path(&e, item->name, item->flags);
    }
}
