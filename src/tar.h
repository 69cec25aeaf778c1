/* tar.h - writing a tar archive: --reproduce.
 *
 * ustar of POSIX.1-2017 (pax, "ustar Interchange Format"), with a pax header before a file whose
 * name or size does not fit. All files belong to nobody in particular, are as old as 1970 and may
 * be read by all: the same files give the same bytes. */
#ifndef KLD_SRC_TAR_H
#define KLD_SRC_TAR_H

#include "src/bytes.h"
#include "src/vec.h"

/* Takes the archive's bytes in order; false to give up. */
typedef bool kld_tar_sink(void *context, const void *data, size_t length);

struct kld_tar {
    struct kld_arena *arena; /* for pax headers */
    kld_tar_sink *sink;
    void *context;
    bool failed; /* the sink gave up: nothing more is written */
};

/* Appends a file. The path is written as it is: making it relative and free of ".." is up to the
 * caller. False if the sink gave up. */
bool kld_tar_add(struct kld_tar *tar, struct kld_str path, struct kld_bytes data);

/* Writes the end of the archive. False if the sink gave up, now or before. */
bool kld_tar_finish(struct kld_tar *tar);

/* A sink that keeps all in memory; its context is a struct kld_tar_buffer. */
struct kld_tar_buffer {
    struct kld_arena *arena;
    KLD_VEC(uint8_t) bytes;
};
bool kld_tar_to_buffer(void *buffer, const void *data, size_t length);

#endif
