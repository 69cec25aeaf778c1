/* diag.h - errors, warnings and notes of a session.
 *
 * A message may be raised by any thread. Messages are kept until the next checkpoint and then
 * handed to the host in input order (file, section, offset), so that the same inputs give the
 * same messages whatever the threads did. An error does not stop the code that raised it: it
 * goes on with a sane value, and the pass list (link.c) stops at the next checkpoint. */
#ifndef KLD_SRC_DIAG_H
#define KLD_SRC_DIAG_H

#include <kld/kld.h>
#include "src/base.h"

struct kld_file;
struct kld_atom;
struct kld_symbol;

/* Where a problem is. All members are optional. */
struct kld_where {
    const struct kld_file *file;
    const char *path;    /* when there is no file yet (scripts, options) */
    const char *section; /* section name */
    const char *symbol;
    uint64_t offset;
    bool has_offset;
    bool in_text; /* the text says where it is: no prefix */
    /* Rank among the messages of a file: the section's number, so that threads do not matter. */
    uint32_t order;
};

/* The message is prefixed with the place: "path(member):(section+0xoffset): text". `id` is the
 * stable id of the kind of message ("bad-relocation"). where may be NULL. */
void kld_error(struct kld_session *ctx, const char *id, const struct kld_where *where,
               const char *format, ...) KLD_PRINTF(4, 5);
void kld_warning(struct kld_session *ctx, const char *id, const struct kld_where *where,
                 const char *format, ...) KLD_PRINTF(4, 5);
void kld_note(struct kld_session *ctx, const char *id, const struct kld_where *where,
              const char *format, ...) KLD_PRINTF(4, 5);

/* A defect of kld: reported like an error; kld_link then returns KLD_INTERNAL. */
/* What was reported so far does not count any more. */
void kld_forget_errors(struct kld_session *ctx);
void kld_internal_error(struct kld_session *ctx, const struct kld_where *where, const char *format,
                        ...) KLD_PRINTF(3, 4);

/* What an errno value means, in English. buffer is for those that have no name. */
const char *kld_errno_text(int error, char *buffer, size_t size);

/* "file F is broken": the usual case of kld_error with only a file for a place. */
#define kld_bad_file(ctx, f, ...)                                                                  \
    kld_error(ctx, "bad-input", &(struct kld_where){.file = (f)}, __VA_ARGS__)

/* Hands the messages so far to the host. Call from the session's own thread only. True if no
 * error has been raised since the session began. */
bool kld_checkpoint(struct kld_session *ctx);

/* Whether an error has been raised; cheap, from any thread. */
bool kld_has_failed(struct kld_session *ctx);

/* Text for the user that is not a diagnostic (--print-map and the like). */
void kld_print(struct kld_session *ctx, const char *text, size_t length);

#endif
