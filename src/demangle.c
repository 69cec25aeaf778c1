#include "src/demangle.h"
#include <libiberty/demangle.h>

/* libiberty gives up on C++ names of more than 1024 bytes. What a name expands to has no bound
 * but this one. */
enum { LONGEST_NAME = 4096, LONGEST_RESULT = 64 << 10 };

struct result {
    char *text;
    size_t len;
    jmp_buf too_long;
};

/* The only way to stop libiberty is to leave. It holds no memory then, save for the one identifier
 * being printed if that is Rust's and not ASCII. */
static void append(const char *text, size_t len, void *opaque)
{
    struct result *r = opaque;
    if (!len) /* text may be NULL then */
        return;
    if (len > LONGEST_RESULT - r->len)
        longjmp(r->too_long, 1);
    memcpy(r->text + r->len, text, len);
    r->len += len;
}

static bool is_mangled(struct kld_str name)
{
    return name.len <= LONGEST_NAME && (kld_str_starts(name, "_Z") || kld_str_starts(name, "_R")) &&
           !memchr(name.ptr, '\0', name.len);
}

/* buffer has room for the name and its NUL, and then for the result. */
static struct kld_str demangle(char *buffer, struct kld_str name)
{
    struct result r = {.text = buffer + LONGEST_NAME + 1};
    memcpy(buffer, name.ptr, name.len);
    buffer[name.len] = '\0';
    if (setjmp(r.too_long))
        return name;
    int options = DMGL_PARAMS | DMGL_ANSI;
    if (rust_demangle_callback(buffer, options, append, &r) && r.len)
        return (struct kld_str){r.text, r.len};
    r.len = 0;
    if (buffer[1] == 'Z' && cplus_demangle_v3_callback(buffer, options, append, &r) && r.len)
        return (struct kld_str){r.text, r.len};
    return name;
}

struct kld_str kld_demangle(struct kld_demangler *demangler, struct kld_str name)
{
    if (!is_mangled(name))
        return name;
    if (!demangler->buffer)
        demangler->buffer = kld_arena_alloc(demangler->arena, LONGEST_NAME + 1 + LONGEST_RESULT, 1);
    return demangle(demangler->buffer, name);
}

char *kld_demangle_name(struct kld_arena *arena, struct kld_str name)
{
    char buffer[LONGEST_NAME + 1 + LONGEST_RESULT];
    struct kld_str text = is_mangled(name) ? demangle(buffer, name) : name;
    return kld_arena_strndup(arena, text.ptr, text.len);
}
