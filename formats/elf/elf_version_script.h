/* elf_version_script.h - version scripts and dynamic lists: reading them, and asking them.
 *
 * "VERSION Command" of the GNU ld manual. A version script names versions and says which symbols
 * belong to them, or are local to the output; a dynamic list is a block of names alone.
 *
 *     V1 { global: foo; bar*; extern "C++" { "ns::f(int)"; ns::*; }; local: *; };
 *     V2 { baz; } V1;
 *
 * What is quoted is taken literally, else '*', '?', '[' and '\' are as in src/glob.h. Patterns
 * within extern "C++" are for the demangled name, with its parameters.
 *
 * More lenient than GNU ld: the last semicolon in braces may be missing, labels may come in any
 * order and number, a name that GNU ld finds in two places may be repeated. */
#ifndef KLD_ELF_VERSION_SCRIPT_H
#define KLD_ELF_VERSION_SCRIPT_H

#include "src/demangle.h"
#include "src/glob.h"
#include "src/vec.h"

/* One version, or the only, anonymous one. */
struct elf_version_node {
    struct kld_str name; /* empty: anonymous */
    uint32_t line;
    KLD_VEC(uint32_t) parents; /* nodes behind the braces, all earlier ones */
};

struct elf_version_pattern {
    struct kld_str text; /* as it stands in the script, without quotes */
    uint32_t node;
    uint32_t line;
    bool local;
    bool cxx;     /* for demangled names */
    bool literal; /* was quoted */
};

struct elf_version_names; /* of nodes */

/* Zero to begin with. */
struct elf_version_script {
    KLD_VEC(struct elf_version_node) nodes;
    KLD_VEC(struct elf_version_pattern) patterns;
    struct elf_version_names *names;
    const char *error; /* NULL, or what is wrong at line error_line */
    uint32_t error_line;
};

enum elf_version_syntax {
    ELF_VERSION_SCRIPT, /* --version-script, VERSION in a linker script */
    ELF_DYNAMIC_LIST,   /* --dynamic-list, --export-dynamic-symbol-list */
};

/* Appends what the text says to the script, so that several texts make one script. first_line is
 * the number of the text's first line: 1 for a file. False if there is an error, with
 * script->error from the arena; the script is then of no use. The text must outlive the script.
 *
 * A dynamic list makes one anonymous node whose patterns are all global. */
bool elf_version_script_parse(struct kld_arena *arena, struct elf_version_script *script,
                              struct kld_str text, uint32_t first_line,
                              enum elf_version_syntax syntax);

/* Appends one pattern to a dynamic list: --export-dynamic-symbol=GLOB. cxx: for demangled names. */
void elf_dynamic_list_add(struct kld_arena *arena, struct elf_version_script *script,
                          struct kld_str pattern, bool cxx);

/* The version number for .gnu.version of a node: 1, the output itself, for the anonymous one,
 * then 2, 3, ... */
static inline uint16_t elf_version_number(const struct elf_version_script *script, uint32_t node)
{
    return script->nodes.data[node].name.len ? (uint16_t)(node + 2) : 1;
}

/* A script made fast to ask: exact names in a hash table, patterns in order of precedence. */
struct elf_version_patterns;

/* From the arena; refers to the script, which must outlive it and no longer change. */
const struct elf_version_patterns *
elf_version_patterns_compile(struct kld_arena *arena, const struct elf_version_script *script);

enum elf_version_scope { ELF_VERSION_NONE, ELF_VERSION_GLOBAL, ELF_VERSION_LOCAL };

struct elf_version_match {
    uint8_t scope;
    uint32_t node;
};

/* What the script says of a symbol. By precedence, as GNU ld has it (seen by experiment; its
 * manual only says that exact names go first):
 *
 *   1. an exact name, plain or C++; of several in different nodes the first node's, of a global
 *      and a local one in a node the global one
 *   2. a global pattern other than "*"; the last node's
 *   3. a local pattern other than "*"; the last node's
 *   4. a global "*"; the last node's
 *   5. a local "*"; the last node's
 *
 * The name is demangled only if the script has C++ patterns. Any number of threads may ask, each
 * with its own demangler (which may be NULL if there are no C++ patterns). */
struct elf_version_match elf_version_lookup(const struct elf_version_patterns *patterns,
                                            struct kld_demangler *demangler, struct kld_str name);

/* Whether there are patterns for demangled names. */
bool elf_version_needs_demangler(const struct elf_version_patterns *patterns);

#endif
