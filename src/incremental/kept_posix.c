/* kept_posix.c - a second name of the output, on POSIX systems. */
#define _GNU_SOURCE
#include "src/incremental/kept.h"
#include <sys/stat.h>
#include <unistd.h>
#include "src/incremental/store.h"

const char *kld_kept_path(struct kld_session *ctx)
{
    const struct kld_state_io *io = &ctx->state_io;
    if (ctx->options.output_memory || io->of_host || io->in_memory)
        return NULL;
    return kld_arena_printf(&ctx->arena, "%s.kept", kld_io_follow(ctx, kld_state_path(ctx)));
}

/* Whether nothing has the name now. */
static bool drop(const char *kept)
{
    struct stat st;
    return lstat(kept, &st) != 0 || (S_ISREG(st.st_mode) && unlink(kept) == 0);
}

bool kld_kept_make(struct kld_session *ctx, struct kld_identity *id)
{
    const char *kept = kld_kept_path(ctx);
    struct stat st;
    if (!kept || !drop(kept) || link(kld_io_follow(ctx, ctx->options.output), kept) != 0 ||
        lstat(kept, &st) != 0)
        return false;
    struct kld_identity now = kld_identity_of(&st);
    if (now.device != id->device || now.inode != id->inode)
        return false; /* another link's output has taken the name, and this one with it */
    *id = now;
    return true;
}

void kld_kept_drop(struct kld_session *ctx)
{
    const char *kept = kld_kept_path(ctx);
    if (kept)
        drop(kept);
}
