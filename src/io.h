/* io.h - files: whole inputs in memory, the output under a temporary name. io_posix.c. */
#ifndef KLD_SRC_IO_H
#define KLD_SRC_IO_H

#include "src/bytes.h"

void kld_io_init(struct kld_session *ctx);

/* Maps the file at path for reading, through the host if it wants to. The bytes stay until the
 * session ends. On failure false with errno set; nothing is reported. */
bool kld_io_open(struct kld_session *ctx, const char *path, struct kld_bytes *bytes);

/* With memory-limit, and if the process has more than that resident: gives the pages of the inputs back,
 * which are read again when they are looked at. From any thread, at any time. */
void kld_io_trim(struct kld_session *ctx);

/* Whether path names something that can be opened for reading and is not a directory. */
bool kld_io_exists(struct kld_session *ctx, const char *path);

/* Paths of all inputs that have been opened, sorted; from the session's arena. Returns how many. */
size_t kld_io_paths(struct kld_session *ctx, const char ***paths);

/* Whether there is nothing in the folder, or no folder of that name. */
bool kld_io_is_empty_folder(const char *path);

/* The output being written. */
struct kld_output {
    int fd;          /* -1: in memory */
    uint8_t *memory; /* output-memory */
    char *path;      /* final name */
    char *temporary; /* name while it is being written; NULL when written in place (/dev/null) */
    uint64_t size;
    bool whole;          /* has no offsets (a pipe): kept in memory until commit */
    _Atomic bool failed; /* an error was reported */
};

/* Opens a temporary file beside path with mode 0777 or 0666 less the umask (or memory, with
 * output-memory). On failure reports and returns false. */
bool kld_output_open(struct kld_session *ctx, struct kld_output *out, const char *path,
                     uint64_t size, bool executable);
/* Says that all of the output will be written, so that its blocks are worth to be taken from the file system at
 * once. Does nothing where that is no gain, or fails: then the writes say so. */
void kld_output_reserve(const struct kld_output *out);
/* Writes at an offset; from any thread. Reports and returns false on failure (disk full ...). */
bool kld_output_write(struct kld_session *ctx, struct kld_output *out, uint64_t offset,
                      const void *data, size_t length);
/* Gives the output its final name. */
bool kld_output_commit(struct kld_session *ctx, struct kld_output *out);
/* Removes what has been written. Safe at any time. */
void kld_output_abandon(struct kld_session *ctx, struct kld_output *out);

/* Writes a whole small file (map, dependency file, reproduce) at once; "-" is the host's print.
 * Reports and returns false on failure. */
bool kld_io_write_file(struct kld_session *ctx, const char *path, const void *data, size_t length);

/* ---- for others who handle files of the link ---- */

/* Where the file really is: --chroot puts absolute paths of inputs into another root. */
const char *kld_io_real_path(struct kld_session *ctx, const char *path);
/* Where a symbolic link leads in the end, or a copy of path if it is none. */
char *kld_io_follow(struct kld_session *ctx, const char *path);
/* Opens a new file beside path, under a hidden *name that is announced. -1 with errno. */
int kld_io_create_temporary(struct kld_session *ctx, const char *path, unsigned mode, char **name);
/* Gives the file at path a hidden *name beside it that nothing had, which is announced. False with
 * errno: nothing was changed. */
bool kld_io_hide(struct kld_session *ctx, const char *path, char **name);
/* Gives a temporary file its final name, atomically; what had that name is gone. False with errno. */
bool kld_io_replace(const char *temporary, const char *path);
/* Tells the host which file to remove should a signal end the process; NULL: none any more. There
 * is one at a time. */
void kld_io_announce(struct kld_session *ctx, const char *temporary);
/* All of it, at an offset or (stream) where the file stands. False with errno. */
bool kld_io_write_all(int fd, const uint8_t *data, size_t length, uint64_t offset, bool stream);

/* Closes all inputs. */
void kld_io_free(struct kld_session *ctx);

#endif
