/* fuzz_version_script - text up to a NUL as a version script (or, if it starts with 'D', as a dynamic
 * list); the lines behind it as names that are looked up. */
#include "formats/elf/elf_version_script.h"
#include "fuzz.h"

static void fuzz_one(struct kld_arena *arena, struct kld_bytes bytes)
{
    struct kld_str all = {(const char *)bytes.ptr, bytes.len};
    enum elf_version_syntax syntax = ELF_VERSION_SCRIPT;
    if (kld_str_starts(all, "D")) {
        syntax = ELF_DYNAMIC_LIST;
        all = kld_str_from(all, 1);
    }
    const char *nul = all.len ? memchr(all.ptr, '\0', all.len) : NULL;
    struct kld_str text = {all.ptr, nul ? (size_t)(nul - all.ptr) : all.len};
    struct kld_str names = kld_str_from(all, text.len + 1);

    struct elf_version_script script = {0};
    if (elf_version_script_parse(arena, &script, text, 1, syntax) == (script.error != NULL))
        abort();
    if (script.error)
        return;
    const struct elf_version_patterns *patterns = elf_version_patterns_compile(arena, &script);
    struct kld_demangler demangler = {.arena = arena};
    while (names.len) {
        const char *end = memchr(names.ptr, '\n', names.len);
        struct kld_str name = {names.ptr, end ? (size_t)(end - names.ptr) : names.len};
        struct elf_version_match m = elf_version_lookup(patterns, &demangler, name);
        if (m.scope != ELF_VERSION_NONE && m.node >= script.nodes.len)
            abort();
        kld_demangle(&demangler, name);
        names = kld_str_from(names, name.len + 1);
    }
    /* An exact pattern finds itself. */
    for (size_t i = 0; i < script.patterns.len; i++) {
        const struct elf_version_pattern *p = &script.patterns.data[i];
        if (p->literal && !p->cxx &&
            elf_version_lookup(patterns, &demangler, p->text).scope == ELF_VERSION_NONE)
            abort();
    }
}
