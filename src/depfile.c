#include "src/depfile.h"
#include "src/session.h"
#include "src/text.h"

/* As gcc escapes names in its own dependency files: make understands these and no others. */
static void add_name(struct kld_text *text, const char *name)
{
    size_t slashes = 0;
    for (const char *at = name; *at; at++) {
        if (*at == ' ' || *at == '\t') {
            /* Backslashes before a blank stand for half their number. */
            for (size_t i = 0; i < slashes + 1; i++)
                kld_text_add(text, KLD_STR("\\"));
        } else if (*at == '#') {
            kld_text_add(text, KLD_STR("\\"));
        } else if (*at == '$') {
            kld_text_add(text, KLD_STR("$"));
        }
        slashes = *at == '\\' ? slashes + 1 : 0;
        kld_text_add(text, (struct kld_str){at, 1});
    }
}

void kld_write_depfile(struct kld_session *ctx)
{
    if (!ctx->options.dependency_file)
        return;
    struct kld_text text = {.arena = &ctx->arena};
    const char **paths;
    size_t count = kld_io_paths(ctx, &paths);
    add_name(&text, ctx->options.output);
    kld_text_add(&text, KLD_STR(":"));
    for (size_t i = 0; i < count; i++) {
        kld_text_add(&text, KLD_STR(" \\\n  "));
        add_name(&text, paths[i]);
    }
    kld_text_add(&text, KLD_STR("\n"));
    /* A rule for each input, so that make goes on when one has been deleted. */
    for (size_t i = 0; i < count; i++) {
        kld_text_add(&text, KLD_STR("\n"));
        add_name(&text, paths[i]);
        kld_text_add(&text, KLD_STR(":\n"));
    }
    kld_io_write_file(ctx, ctx->options.dependency_file, text.data, text.len);
}
