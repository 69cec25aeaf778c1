#include "src/options.h"

/* The names of the values of CHOICE options. Several may stand for one value; the first is the one
 * that messages list. */
static const struct choice {
    const char *option, *name;
    int value;
} choices[] = {
    {"allow-shlib-undefined", "auto", KLD_AUTO},
    {"allow-shlib-undefined", "0", KLD_NO},
    {"allow-shlib-undefined", "1", KLD_YES},
    {"bsymbolic", "none", KLD_BSYMBOLIC_NONE},
    {"bsymbolic", "all", KLD_BSYMBOLIC_ALL},
    {"bsymbolic", "functions", KLD_BSYMBOLIC_FUNCTIONS},
    {"bsymbolic", "non-weak", KLD_BSYMBOLIC_NON_WEAK},
    {"bsymbolic", "non-weak-functions", KLD_BSYMBOLIC_NON_WEAK_FUNCTIONS},
    {"compress-debug-sections", "none", KLD_COMPRESS_NONE},
    {"compress-debug-sections", "zlib", KLD_COMPRESS_ZLIB},
    {"compress-debug-sections", "zlib-gabi", KLD_COMPRESS_ZLIB},
    {"compress-debug-sections", "zstd", KLD_COMPRESS_ZSTD},
    {"discard", "default", KLD_DISCARD_DEFAULT},
    {"discard", "none", KLD_DISCARD_NONE},
    {"discard", "locals", KLD_DISCARD_LOCALS},
    {"discard", "all", KLD_DISCARD_ALL},
    {"hash-style", "both", KLD_HASH_BOTH},
    {"hash-style", "sysv", KLD_HASH_SYSV},
    {"hash-style", "gnu", KLD_HASH_GNU},
    {"hash-style", "none", KLD_HASH_NONE},
    {"icf", "none", KLD_ICF_NONE},
    {"icf", "safe", KLD_ICF_SAFE},
    {"icf", "all", KLD_ICF_ALL},
    {"incremental", "0", KLD_INCREMENTAL_OFF},
    {"incremental", "1", KLD_INCREMENTAL_ON},
    {"incremental", "full", KLD_INCREMENTAL_FULL},
    {"kind", "executable", KLD_KIND_EXECUTABLE},
    {"kind", "pie", KLD_KIND_PIE},
    {"kind", "shared", KLD_KIND_SHARED},
    {"kind", "relocatable", KLD_KIND_RELOCATABLE},
    {"orphan-handling", "place", KLD_ORPHAN_PLACE},
    {"orphan-handling", "warn", KLD_ORPHAN_WARN},
    {"orphan-handling", "error", KLD_ORPHAN_ERROR},
    {"sort-common", "none", KLD_SORT_COMMON_NONE},
    {"sort-common", "descending", KLD_SORT_COMMON_DESCENDING},
    {"sort-common", "ascending", KLD_SORT_COMMON_ASCENDING},
    {"strip", "none", KLD_STRIP_NONE},
    {"strip", "debug", KLD_STRIP_DEBUG},
    {"strip", "all", KLD_STRIP_ALL},
    {"unresolved-symbols", "auto", KLD_UNRESOLVED_AUTO},
    {"unresolved-symbols", "report-all", KLD_UNRESOLVED_REPORT_ALL},
    {"unresolved-symbols", "ignore-all", KLD_UNRESOLVED_IGNORE_ALL},
    {"unresolved-symbols", "ignore-in-object-files", KLD_UNRESOLVED_IGNORE_IN_OBJECT_FILES},
    {"unresolved-symbols", "ignore-in-shared-libs", KLD_UNRESOLVED_IGNORE_IN_SHARED_LIBS},
    {"z-bti-report", "auto", KLD_REPORT_AUTO},
    {"z-bti-report", "none", KLD_REPORT_NONE},
    {"z-bti-report", "warning", KLD_REPORT_WARNING},
    {"z-bti-report", "error", KLD_REPORT_ERROR},
    {"z-copyreloc", "auto", KLD_AUTO},
    {"z-copyreloc", "0", KLD_NO},
    {"z-copyreloc", "1", KLD_YES},
    {"z-execstack", "auto", KLD_AUTO},
    {"z-execstack", "0", KLD_NO},
    {"z-execstack", "1", KLD_YES},
    {"z-gcs", "implicit", KLD_AUTO},
    {"z-gcs", "never", KLD_NO},
    {"z-gcs", "always", KLD_YES},
    {"z-gcs-report", "auto", KLD_REPORT_AUTO},
    {"z-gcs-report", "none", KLD_REPORT_NONE},
    {"z-gcs-report", "warning", KLD_REPORT_WARNING},
    {"z-gcs-report", "error", KLD_REPORT_ERROR},
    {"z-separate-code", "code", KLD_SEPARATE_CODE},
    {"z-separate-code", "none", KLD_SEPARATE_NONE},
    {"z-separate-code", "loadable", KLD_SEPARATE_LOADABLE},
    {"z-start-stop-visibility", "default", KLD_VISIBILITY_DEFAULT},
    {"z-start-stop-visibility", "internal", KLD_VISIBILITY_INTERNAL},
    {"z-start-stop-visibility", "hidden", KLD_VISIBILITY_HIDDEN},
    {"z-start-stop-visibility", "protected", KLD_VISIBILITY_PROTECTED},
    {"z-text", "auto", KLD_TEXTREL_AUTO},
    {"z-text", "error", KLD_TEXTREL_ERROR},
    {"z-text", "warn", KLD_TEXTREL_WARN},
    {"z-text", "allow", KLD_TEXTREL_ALLOW},
};

enum type { TYPE_BOOL, TYPE_U64, TYPE_TEXT, TYPE_LIST, TYPE_CHOICE };

static const struct row {
    const char *name;
    enum type type;
    size_t offset; /* in struct kld_options */
} rows[] = {
#define KLD_OPTION(type, field, name, value)                                                       \
    {name, TYPE_##type, offsetof(struct kld_options, field)},
#include "src/options.def"
#undef KLD_OPTION
};

#define KLD_INIT_BOOL(v)   (v)
#define KLD_INIT_U64(v)    (v)
#define KLD_INIT_TEXT(v)   ((const char *)(v))
#define KLD_INIT_LIST(v)   ((kld_text_list){0})
#define KLD_INIT_CHOICE(v) (v)

void kld_options_init(struct kld_options *options)
{
    *options = (struct kld_options){
#define KLD_OPTION(type, field, name, value) .field = KLD_INIT_##type(value),
#include "src/options.def"
#undef KLD_OPTION
    };
}

/* The factor that a letter behind a number stands for; 0: none. */
static uint64_t factor_of(char c)
{
    switch (c) {
    case 'k':
    case 'K': return 1 << 10;
    case 'm':
    case 'M': return 1 << 20;
    case 'g':
    case 'G': return 1 << 30;
    }
    return 0;
}

/* Decimal, perhaps with K, M or G behind it, or hexadecimal with 0x; the whole text. */
static bool parse_u64(const char *text, uint64_t *out)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    if (hex)
        text += 2;
    uint64_t value = 0, base = hex ? 16 : 10;
    if (!*text)
        return false;
    for (const char *start = text; *text; text++) {
        unsigned c = (unsigned char)*text, digit = c - '0';
        uint64_t factor = hex || text == start || text[1] ? 0 : factor_of(*text);
        if (factor && !__builtin_mul_overflow(value, factor, &value))
            break;
        if (digit > 9)
            digit = hex && (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 16;
        if (digit >= base || __builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, digit, &value))
            return false;
    }
    *out = value;
    return true;
}

static const char *set_choice(int *field, struct kld_arena *arena, const char *name,
                              const char *value)
{
    const char *known = "";
    for (size_t i = 0; i < KLD_COUNT(choices); i++) {
        if (strcmp(choices[i].option, name) != 0)
            continue;
        if (strcmp(choices[i].name, value) == 0) {
            *field = choices[i].value;
            return NULL;
        }
        known = kld_arena_printf(arena, "%s%s%s", known, *known ? ", " : "", choices[i].name);
    }
    return kld_arena_printf(arena, "%s: '%s' is not one of %s", name, value, known);
}

static const char *set_field(void *field, enum type type, struct kld_arena *arena, const char *name,
                             const char *value)
{
    switch (type) {
    case TYPE_BOOL:
        if ((value[0] != '0' && value[0] != '1') || value[1])
            return kld_arena_printf(arena, "%s: '%s' is not 0 or 1", name, value);
        *(bool *)field = value[0] == '1';
        return NULL;
    case TYPE_U64:
        if (!parse_u64(value, field))
            return kld_arena_printf(arena, "%s: '%s' is not a number", name, value);
        return NULL;
    case TYPE_TEXT:
        *(const char **)field = kld_arena_strndup(arena, value, strlen(value));
        return NULL;
    case TYPE_LIST:
        *kld_vec_push(arena, (kld_text_list *)field) =
            kld_arena_strndup(arena, value, strlen(value));
        return NULL;
    case TYPE_CHOICE: return set_choice(field, arena, name, value);
    }
    return "internal error: an option of no type";
}

const char *kld_options_set(struct kld_options *options, struct kld_arena *arena, const char *name,
                            const char *value)
{
    for (size_t i = 0; i < KLD_COUNT(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return set_field((char *)options + rows[i].offset, rows[i].type, arena, name,
                             value ? value : "");
    return kld_arena_printf(arena, "unknown option '%s'", name);
}
