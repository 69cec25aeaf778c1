/* reproduce.c - --reproduce: everything the link read, in one archive.
 *
 * The archive unpacks into one folder: response.txt with the options, version.txt, and every file
 * that was opened, under its absolute path. The options end with --chroot=., so that inside the
 * folder `kld @response.txt` finds the files there, those that scripts and search paths name by
 * absolute paths among them. Relative paths on the command line are made absolute for that. */
#include "src/reproduce.h"
#include <errno.h>
#include <limits.h>
#include <unistd.h>
#include "src/inputs.h"
#include "src/session.h"
#include "src/tar.h"

struct reproduce {
    struct kld_session *ctx;
    struct kld_tar tar;
    struct kld_tar_buffer buffer;
    const char *base; /* the folder */
    const char *cwd;
};

/* "a.tar" and "dir/a.tar" unpack into "a". */
static const char *base_of(struct kld_session *ctx, const char *path)
{
    const char *slash = strrchr(path, '/');
    struct kld_str name = kld_str(slash ? slash + 1 : path);
    if (kld_str_ends(name, ".tar") && name.len > 4)
        name.len -= 4;
    return kld_arena_strndup(&ctx->arena, name.ptr, name.len);
}

/* Absolute, without "." and ".." and empty parts: nothing unpacks outside the folder. */
static const char *absolute(struct reproduce *r, const char *path)
{
    struct kld_arena *arena = &r->ctx->arena;
    const char *full = path[0] == '/' ? path : kld_arena_printf(arena, "%s/%s", r->cwd, path);
    char *out = kld_arena_alloc(arena, strlen(full) + 2, 1);
    size_t len = 0;
    while (*full) {
        full += strspn(full, "/");
        size_t n = strcspn(full, "/");
        if (n == 2 && full[0] == '.' && full[1] == '.') {
            while (len && out[--len] != '/')
                ;
        } else if (n && !(n == 1 && full[0] == '.')) {
            out[len++] = '/';
            memcpy(out + len, full, n);
            len += n;
        }
        full += n;
    }
    out[len] = 0;
    return len ? out : "/";
}

static void add(struct reproduce *r, const char *path, struct kld_bytes data)
{
    kld_tar_add(
        &r->tar,
        kld_str(kld_arena_printf(&r->ctx->arena, "%s/%s", r->base, path + (path[0] == '/'))), data);
}

static void add_text(struct reproduce *r, const char *path, const char *text)
{
    add(r, path, (struct kld_bytes){(const uint8_t *)text, strlen(text)});
}

static bool names_a_path(const char *path)
{
    return path[0] && path[0] != '-' && path[0] != '=' && access(path, F_OK) == 0;
}

/* Where in the word a path starts that options join to their name, or NULL. */
static const char *joined_path(const char *word)
{
    const char *equals = strchr(word, '=');
    if (word[0] != '-')
        return word;
    if (word[1] == 'L' && word[2])
        return word + 2;
    return word[1] == '-' && equals ? equals + 1 : NULL;
}

/* One word of the command line in the response file's quoting, relative paths made absolute. */
static const char *rewrite(struct reproduce *r, const char *word)
{
    struct kld_arena *arena = &r->ctx->arena;
    const char *path = joined_path(word);
    if (path && names_a_path(path))
        word = kld_arena_printf(arena, "%.*s%s", (int)(path - word), word, absolute(r, path));
    char *quoted = kld_arena_alloc(arena, 2 * strlen(word) + 4, 1);
    char *out = quoted;
    *out++ = '"';
    for (; *word; word++) {
        if (*word == '"' || *word == '\\')
            *out++ = '\\';
        *out++ = *word;
    }
    *out++ = '"';
    *out++ = '\n';
    return quoted;
}

static bool is_own_option(const char *word)
{
    return strncmp(word + strspn(word, "-"), "reproduce", 9) == 0 ||
           strncmp(word + strspn(word, "-"), "chroot", 6) == 0;
}

static const char *response_text(struct reproduce *r)
{
    const kld_text_list *words = &r->ctx->options.command_line;
    KLD_VEC(char) text = {0};
    for (size_t i = 0; i < words->len; i++) {
        const char *word = words->data[i];
        if (word[0] == '-' && is_own_option(word)) {
            i += !strchr(word, '='); /* its value is a word of its own */
            continue;
        }
        /* The output goes into the folder, wherever it went. */
        bool output = i && (strcmp(words->data[i - 1], "-o") == 0 ||
                            strcmp(words->data[i - 1], "--output") == 0);
        const char *slash = output ? strrchr(word, '/') : NULL;
        for (const char *c = slash ? slash + 1 : output ? word : rewrite(r, word); *c; c++)
            *kld_vec_push(&r->ctx->arena, &text) = *c;
        if (output)
            *kld_vec_push(&r->ctx->arena, &text) = '\n';
    }
    for (const char *c = "--chroot=.\n"; *c; c++)
        *kld_vec_push(&r->ctx->arena, &text) = *c;
    *kld_vec_push(&r->ctx->arena, &text) = 0;
    return text.data;
}

void kld_reproduce(struct kld_session *ctx)
{
    struct reproduce r = {.ctx = ctx, .buffer = {.arena = &ctx->arena}};
    const char *path = ctx->options.reproduce, **files;
    char cwd[PATH_MAX];
    if (!path)
        return;
    if (!getcwd(cwd, sizeof(cwd))) {
        kld_error(ctx, "cannot-write", NULL, "--reproduce: %s", kld_error_text(ctx, errno));
        return;
    }
    r.base = base_of(ctx, path);
    r.cwd = cwd;
    r.tar = (struct kld_tar){.arena = &ctx->arena, .sink = kld_tar_to_buffer, .context = &r.buffer};
    add_text(&r, "response.txt", response_text(&r));
    add_text(&r, "version.txt", "kld " KLD_VERSION "\n");
    size_t n = kld_io_paths(ctx, &files);
    for (size_t i = 0; i < n; i++) {
        struct kld_bytes bytes;
        if (kld_io_open(ctx, files[i], &bytes))
            add(&r, absolute(&r, files[i]), bytes);
    }
    kld_tar_finish(&r.tar);
    kld_io_write_file(ctx, path, r.buffer.bytes.data, r.buffer.bytes.len);
}
