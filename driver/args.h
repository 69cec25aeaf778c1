/* args.h - the words of a command line after response files, and the memory of its parser.
 *
 * The library does not use the process's heap where the host has one of its own: all memory here
 * comes from the host and is freed as one. */
#ifndef KLD_DRIVER_ARGS_H
#define KLD_DRIVER_ARGS_H

#include <kld/kld.h>

struct kld_args {
    const kld_host *host; /* never NULL; its members may be */
    struct kld_args_block *blocks;
    const char **words;
    size_t count, capacity;
    unsigned expanded; /* response files read so far */
    bool no_memory;    /* an allocation failed */
    const char *error; /* what is wrong with a response file, or NULL */
};

/* host must outlive args. */
void kld_args_init(struct kld_args *args, const kld_host *host);
void kld_args_free(struct kld_args *args);

/* Zeroed memory that lives as long as args; NULL, and no_memory is set, if there is none. */
void *kld_args_alloc(struct kld_args *args, size_t size);
/* The text, or a constant one that says that there is no memory. */
__attribute__((format(printf, 2, 3))) const char *kld_args_printf(struct kld_args *args,
                                                                  const char *format, ...);
/* A copy of length bytes and a NUL, or NULL. */
char *kld_args_copy(struct kld_args *args, const char *text, size_t length);

/* Appends words, replacing each @FILE by the words of the file (response.c). False if no_memory
 * or error is set. */
bool kld_args_add(struct kld_args *args, int argc, const char *const *argv);

#endif
