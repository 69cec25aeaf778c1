/* demangle.h - readable names of C++ and Rust symbols, by libiberty.
 *
 * Names come from files: what is too long to read, or not well formed, stays as it is. D is left
 * out, since libiberty's demangler of it ends the process when it runs out of memory. */
#ifndef KLD_SRC_DEMANGLE_H
#define KLD_SRC_DEMANGLE_H

#include "src/arena.h"
#include "src/str.h"

/* Memory to demangle many names in, one after the other; one a thread. */
struct kld_demangler {
    struct kld_arena *arena;
    char *buffer; /* from the arena, when first needed */
};

/* The demangled name, with parameters, valid until the next call; or the name itself. */
struct kld_str kld_demangle(struct kld_demangler *demangler, struct kld_str name);

/* The same as a string of the arena, NUL-terminated. */
char *kld_demangle_name(struct kld_arena *arena, struct kld_str name);

#endif
