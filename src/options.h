/* options.h - what the user asked for. Set before the link, constant during it.
 *
 * Rows and defaults: options.def. */
#ifndef KLD_SRC_OPTIONS_H
#define KLD_SRC_OPTIONS_H

#include <kld/kld.h>
#include "src/vec.h"

typedef KLD_VEC(const char *) kld_text_list;

enum kld_tristate { KLD_AUTO, KLD_NO, KLD_YES };
enum kld_bsymbolic {
    KLD_BSYMBOLIC_NONE,
    KLD_BSYMBOLIC_ALL,
    KLD_BSYMBOLIC_FUNCTIONS,
    KLD_BSYMBOLIC_NON_WEAK,
    KLD_BSYMBOLIC_NON_WEAK_FUNCTIONS,
};
enum kld_compress { KLD_COMPRESS_NONE, KLD_COMPRESS_ZLIB, KLD_COMPRESS_ZSTD };
/* default: drop .L names of sections that are merged; all: -x; locals: -X; none */
enum kld_discard { KLD_DISCARD_DEFAULT, KLD_DISCARD_NONE, KLD_DISCARD_LOCALS, KLD_DISCARD_ALL };
enum kld_hash_style { KLD_HASH_BOTH, KLD_HASH_SYSV, KLD_HASH_GNU, KLD_HASH_NONE };
enum kld_icf { KLD_ICF_NONE, KLD_ICF_SAFE, KLD_ICF_ALL };
/* full: the prior state is not used */
enum kld_incremental_mode { KLD_INCREMENTAL_OFF, KLD_INCREMENTAL_ON, KLD_INCREMENTAL_FULL };
enum kld_kind { KLD_KIND_EXECUTABLE, KLD_KIND_PIE, KLD_KIND_SHARED, KLD_KIND_RELOCATABLE };
enum kld_orphan { KLD_ORPHAN_PLACE, KLD_ORPHAN_WARN, KLD_ORPHAN_ERROR };
enum kld_sort_common {
    KLD_SORT_COMMON_NONE,
    KLD_SORT_COMMON_DESCENDING,
    KLD_SORT_COMMON_ASCENDING
};
enum kld_strip { KLD_STRIP_NONE, KLD_STRIP_DEBUG, KLD_STRIP_ALL };
enum kld_unresolved {
    KLD_UNRESOLVED_AUTO, /* report-all for executables, ignore for shared libraries */
    KLD_UNRESOLVED_REPORT_ALL,
    KLD_UNRESOLVED_IGNORE_ALL,
    KLD_UNRESOLVED_IGNORE_IN_OBJECT_FILES,
    KLD_UNRESOLVED_IGNORE_IN_SHARED_LIBS,
};
enum kld_report { KLD_REPORT_AUTO, KLD_REPORT_NONE, KLD_REPORT_WARNING, KLD_REPORT_ERROR };
enum kld_separate { KLD_SEPARATE_CODE, KLD_SEPARATE_NONE, KLD_SEPARATE_LOADABLE };
enum kld_textrel { KLD_TEXTREL_AUTO, KLD_TEXTREL_ERROR, KLD_TEXTREL_WARN, KLD_TEXTREL_ALLOW };
enum kld_visibility {
    KLD_VISIBILITY_DEFAULT = 0,
    KLD_VISIBILITY_INTERNAL = 1,
    KLD_VISIBILITY_HIDDEN = 2,
    KLD_VISIBILITY_PROTECTED = 3,
};

#define KLD_FIELD_BOOL   bool
#define KLD_FIELD_U64    uint64_t
#define KLD_FIELD_TEXT   const char *
#define KLD_FIELD_LIST   kld_text_list
#define KLD_FIELD_CHOICE int
struct kld_options {
#define KLD_OPTION(type, field, name, value) KLD_FIELD_##type field;
#include "src/options.def"
#undef KLD_OPTION
};

/* All defaults. */
void kld_options_init(struct kld_options *options);

/* Sets one option from text; what is kept is copied to the arena. NULL, or a message without
 * place ("unknown option 'x'", "x: 'y' is not a number") allocated from the arena. */
const char *kld_options_set(struct kld_options *options, struct kld_arena *arena, const char *name,
                            const char *value);

#endif
