/* ask.h - shared libraries that are asked for the names that something mentions, instead of listing all of theirs:
 * load.c's helper.
 *
 * Of the thousands of names of a C library a small program mentions a dozen. Where the format can look names up in
 * a library (kld_format_ops.ask), only these are interned. Where objects mention many names it is less work to intern
 * those of the library, and that is what happens from then on. */
#ifndef KLD_SRC_ASK_H
#define KLD_SRC_ASK_H

#include "src/names.h"

struct kld_ask {
    KLD_VEC(struct kld_file *) libraries; /* that are asked */
    KLD_VEC(struct kld_file *) listed;    /* that have listed their names for the last files */
    uint64_t mentions; /* names of objects so far, each time counted, and those expected */
    bool *asked;       /* by id, whether the libraries have been */
    uint32_t limit;    /* ids for which there is room in it */
};

/* The source of the names of a file that has been parsed. */
struct kld_name_source kld_names_of_file(const struct kld_file *file);

/* Files have been parsed, whose names are to be interned: sources[i] is that of files[i]. Decides which libraries are
 * asked; the sources of others become those of all their names. Those of libraries that came with earlier files
 * are put into `more`, where there is room for ask->libraries.len; returns how many are. */
size_t kld_ask_begin(struct kld_session *ctx, struct kld_arena *scratch, struct kld_ask *ask,
                     struct kld_file **files, size_t nfiles, struct kld_name_source *sources,
                     struct kld_name_source *more);

/* The names of these files have ids: asks the libraries for them. Names may be interned. */
void kld_ask_libraries(struct kld_session *ctx, struct kld_arena *scratch, struct kld_ask *ask,
                       struct kld_file **files, size_t nfiles);

#endif
