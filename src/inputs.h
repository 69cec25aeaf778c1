/* inputs.h - the command line's inputs one by one: search paths, scripts, what a file is. */
#ifndef KLD_SRC_INPUTS_H
#define KLD_SRC_INPUTS_H

#include "src/session.h"

/* A file that an input, or a script, named. */
struct kld_input_file {
    const char *path;
    uint32_t position; /* rank on the command line, scripts expanded */
    unsigned flags;    /* KLD_INPUT_* */
    bool exclude_libs; /* --exclude-libs names it */
};

/* Opens every input in order, searching libraries and expanding scripts, and hands each file's
 * contents to take. The target (session.format, .arch) is fixed by -m or the first object, and
 * format->begin is called, before the first file is handed out. Reports what it cannot find. */
void kld_inputs_expand(struct kld_session *ctx,
                       void (*take)(void *arg, const struct kld_input_file *from,
                                    struct kld_bytes bytes),
                       void *arg);

/* What the bytes are to this link. Reports files of another target or of no known kind
 * (member NULL); members of no known kind are passed over in silence. */
enum kld_probe kld_probe_bytes(struct kld_session *ctx, const struct kld_input_file *from,
                               struct kld_bytes bytes, const char *member);

/* The path of library `name` (what follows -l), from the arena, or NULL. */
const char *kld_find_library(struct kld_session *ctx, const char *name, unsigned flags);

/* A text of errno for messages. */
const char *kld_error_text(struct kld_session *ctx, int error);

#endif
