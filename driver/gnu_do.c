/* gnu_do.c - what each option of the GNU ld flavour does. */
#include "driver/gnu.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* What --push-state saves, by GNU ld's manual. */
enum { STATE_FLAGS = KLD_INPUT_AS_NEEDED | KLD_INPUT_WHOLE_ARCHIVE | KLD_INPUT_STATIC };

static void set(struct kld_gnu *gnu, const char *option, const char *value)
{
    if (value)
        kld_gnu_note_status(gnu, kld_set(gnu->session, option, value));
    else
        gnu->args->no_memory = true;
}

static const char *value_of(struct kld_gnu_use use)
{
    return use.value ? use.value : use.row->argument;
}

/* --- inputs ----------------------------------------------------------------------------------- */

void kld_gnu_add_input(struct kld_gnu *gnu, const char *name, unsigned flags)
{
    kld_input input = {.size = sizeof(input), .name = name, .flags = gnu->flags | flags};
    gnu->inputs++;
    kld_gnu_note_status(gnu, kld_add_input(gnu->session, &input));
}

static void set_flag(struct kld_gnu *gnu, unsigned flag, bool on)
{
    gnu->flags = on ? gnu->flags | flag : gnu->flags & ~flag;
}

static void do_state(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    const char *name = use.row->option;
    bool on = use.row->argument[0] == '1';
    if (strcmp(name, "as-needed") == 0)
        set_flag(gnu, KLD_INPUT_AS_NEEDED, on);
    else if (strcmp(name, "whole-archive") == 0)
        set_flag(gnu, KLD_INPUT_WHOLE_ARCHIVE, on);
    else
        set_flag(gnu, KLD_INPUT_STATIC, on);
    /* -Bdynamic takes back -static; -Bstatic is about the libraries that follow only. */
    if (strcmp(name, "static") == 0 && !on)
        set(gnu, "static", "0");
}

static void do_archives(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    bool archive = strcmp(use.value, "archive") == 0;
    if (!archive && strcmp(use.value, "shared") != 0 && strcmp(use.value, "default") != 0)
        kld_gnu_error(gnu, "bad-option", "%s: '%s' is not one of archive, shared, default",
                      use.spelled, use.value);
    set_flag(gnu, KLD_INPUT_STATIC, archive);
}

static void do_format(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    bool binary = strcmp(use.value, "binary") == 0;
    if (!binary && strcmp(use.value, "elf") != 0 && strcmp(use.value, "default") != 0 &&
        !kld_gnu_knows_format(use.value))
        kld_gnu_error(gnu, "unsupported-option", "%s: input format '%s' is not supported",
                      use.spelled, use.value);
    set_flag(gnu, KLD_INPUT_BINARY, binary);
}

static void do_push(struct kld_gnu *gnu)
{
    struct kld_gnu_state *state = kld_args_alloc(gnu->args, sizeof(*state));
    if (!state)
        return;
    *state = (struct kld_gnu_state){gnu->pushed, gnu->flags & STATE_FLAGS};
    gnu->pushed = state;
}

static void do_pop(struct kld_gnu *gnu)
{
    if (!gnu->pushed) {
        kld_gnu_error(gnu, "bad-option", "--pop-state without --push-state");
        return;
    }
    gnu->flags = (gnu->flags & ~(unsigned)STATE_FLAGS) | gnu->pushed->flags;
    gnu->pushed = gnu->pushed->next;
}

/* Groups change nothing but what --warn-backrefs says: an archive is searched for whatever is
 * missing, wherever it stands. They have to be well-formed. */
static void do_group(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    if (use.row->action == KLD_DO_GROUP_START)
        gnu->groups++;
    else if (gnu->groups)
        gnu->groups--;
    else
        kld_gnu_error(gnu, "bad-option", "%s: no group has begun", use.spelled);
    set_flag(gnu, KLD_INPUT_GROUP, gnu->groups > 0);
}

static void do_lib(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    bool start = use.row->action == KLD_DO_LIB_START, inside = gnu->flags & KLD_INPUT_LAZY;
    if (start && inside)
        kld_gnu_error(gnu, "bad-option", "--start-lib inside --start-lib");
    else if (!start && !inside)
        kld_gnu_error(gnu, "bad-option", "--end-lib without --start-lib");
    set_flag(gnu, KLD_INPUT_LAZY, start);
}

/* -R: a file is one of symbols; a directory is for the run path, and so is what is no file here,
 * such as $ORIGIN or what will exist only where the program runs. */
static void do_file_or_rpath(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    struct stat st;
    if (stat(use.value, &st) == 0 && !S_ISDIR(st.st_mode)) {
        kld_gnu_add_input(gnu, use.value, KLD_INPUT_JUST_SYMBOLS);
        return;
    }
    gnu->has_rpath = true;
    set(gnu, "rpath", use.value);
}

/* --- values ----------------------------------------------------------------------------------- */

/* "a:1 b:2": the value is one of the words before the colons; what follows is set. */
static void do_choose(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    const char *given = use.value ? use.value : "", *at = use.row->argument;
    size_t n = strlen(given);
    for (; *at; at += strcspn(at, " "), at += *at == ' ') {
        if (strncmp(at, given, n) != 0 || at[n] != ':')
            continue;
        const char *chosen = at + n + 1;
        size_t length = strcspn(chosen, " ");
        if (length && use.row->option)
            set(gnu, use.row->option, kld_args_copy(gnu->args, chosen, length));
        return;
    }
    kld_gnu_error(gnu, "unsupported-option", "%s: '%s' is not supported", use.spelled, given);
}

static void do_split(struct kld_gnu *gnu, struct kld_gnu_use use, const char *separators)
{
    for (const char *at = use.value; *at; at += *at != '\0') {
        size_t length = strcspn(at, separators);
        if (length)
            set(gnu, use.row->option, kld_args_copy(gnu->args, at, length));
        at += length;
        if (!*at)
            return;
    }
}

/* Addresses on the command line are hexadecimal, whether or not they say so. */
static const char *hexadecimal(struct kld_gnu *gnu, struct kld_gnu_use use, const char *text)
{
    const char *digits = text;
    if (digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X'))
        digits += 2;
    if (*digits && !digits[strspn(digits, "0123456789abcdefABCDEF")])
        return kld_args_printf(gnu->args, "0x%s", digits);
    kld_gnu_error(gnu, "bad-option", "%s: '%s' is not a hexadecimal number", use.spelled, text);
    return NULL;
}

static void do_address(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    const char *address = hexadecimal(gnu, use, use.value);
    if (address)
        set(gnu, use.row->option, address);
}

static void do_section(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    const char *name = use.row->argument, *address = use.value;
    if (!name) {
        const char *equals = strchr(use.value, '=');
        if (!equals || equals == use.value) {
            kld_gnu_error(gnu, "bad-option", "%s: '%s' is not NAME=ADDRESS", use.spelled,
                          use.value);
            return;
        }
        name = kld_args_copy(gnu->args, use.value, (size_t)(equals - use.value));
        address = equals + 1;
    }
    address = hexadecimal(gnu, use, address);
    if (name && address)
        set(gnu, use.row->option, kld_args_printf(gnu->args, "%s=%s", name, address));
}

static void do_unsupported(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    const char *reason = use.row->argument;
    kld_gnu_error(gnu, "unsupported-option", "option '%s' is not supported%s%s", use.spelled,
                  reason ? ": " : "", reason ? reason : "");
}

/* An unknown keyword is a warning, as GNU ld has it: they come and go with systems. */
static void do_z(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    size_t length = strcspn(use.value, "=");
    const char *value = use.value[length] ? use.value + length + 1 : NULL;
    const struct kld_option *row = kld_option_long(use.value, length, true);
    if (!row) {
        kld_gnu_warn(gnu, "unknown-keyword", "unknown keyword '-z %s' is ignored", use.value);
        return;
    }
    struct kld_gnu_use keyword = {
        .row = row,
        .spelled = kld_args_printf(gnu->args, "-z %.*s", (int)length, use.value),
        .value = value,
    };
    enum kld_arity arity = kld_option_arity(row);
    if (arity == KLD_TAKES_VALUE && !value)
        kld_gnu_error(gnu, "bad-option", "option '%s' needs a value", keyword.spelled);
    else if (arity == KLD_TAKES_NONE && value)
        kld_gnu_error(gnu, "bad-option", "option '%s' takes no value", keyword.spelled);
    else
        kld_gnu_do(gnu, keyword);
}

/* --- what is remembered ----------------------------------------------------------------------- */

static void do_kind(struct kld_gnu *gnu, const char *kind)
{
    gnu->kind = kind;
    set(gnu, "kind", kind);
}

/* -no-pie undoes -pie; it does not turn a library into a program. */
static void do_no_pie(struct kld_gnu *gnu)
{
    if (gnu->kind && strcmp(gnu->kind, "pie") == 0)
        do_kind(gnu, "executable");
}

/* -static, and -n and -N, which imply it for libraries. */
static void do_static(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    set_flag(gnu, KLD_INPUT_STATIC, true);
    set(gnu, use.row->option, use.row->argument);
}

/* -G SIZE is about small data, for which no target here has a use; -G alone is -shared. */
static void do_small_data(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    const char *next = use.value ? use.value : kld_gnu_peek(gnu);
    bool number =
        next && *next >= '0' && *next <= '9' && !next[strspn(next, "0123456789abcdefABCDEFx")];
    if (!use.value && number)
        gnu->next++;
    else if (!use.value)
        do_kind(gnu, "shared");
    else if (!number)
        kld_gnu_error(gnu, "bad-option", "%s: '%s' is not a number", use.spelled, use.value);
}

static void do_emulation(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    if (!kld_gnu_knows_emulation(use.value)) {
        kld_gnu_error(gnu, "unsupported-option", "%s: emulation '%s' is not supported", use.spelled,
                      use.value);
        return;
    }
    gnu->machine = use.value;
    set(gnu, "machine", use.value);
}

/* Sets an option and keeps the value for the end. */
static void keep(struct kld_gnu *gnu, struct kld_gnu_use use, const char **where)
{
    *where = value_of(use);
    set(gnu, use.row->option, *where);
}

static void do_presentation(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    static const char known[][8] = {"text", "json", "auto", "always", "never"};
    bool diagnostics = strcmp(use.row->names[0], "diagnostics") == 0;
    if (!use.value)
        return;
    for (size_t i = diagnostics ? 0 : 2, end = diagnostics ? 2 : 5; i < end; i++)
        if (strcmp(use.value, known[i]) == 0)
            return;
    kld_gnu_error(gnu, "bad-option", "%s: '%s' is not one of %s", use.spelled, use.value,
                  diagnostics ? "text, json" : "auto, always, never");
}

static void do_verbose(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    kld_gnu_print_version(gnu->host, false, true);
    gnu->showed_version = true;
    set(gnu, use.row->option, use.row->argument);
}

/* --- all -------------------------------------------------------------------------------------- */

/* What only prints. */
static void do_print(struct kld_gnu *gnu, enum kld_action action)
{
    switch (action) {
    case KLD_DO_HELP:
    case KLD_DO_TARGET_HELP:
        kld_gnu_print_help(gnu->host);
        gnu->stop = true;
        break;
    case KLD_DO_VERSION:
        kld_gnu_print_version(gnu->host, true, false);
        gnu->stop = true;
        break;
    case KLD_DO_VERSION_ONLY:
    case KLD_DO_VERSION_EMULATIONS:
        kld_gnu_print_version(gnu->host, false, action == KLD_DO_VERSION_EMULATIONS);
        gnu->showed_version = true;
        break;
    case KLD_DO_PRINT_FORMAT: gnu->print_format = true; break;
    case KLD_DO_PRINT_SYSROOT: gnu->print_sysroot = true; break;
    default: break;
    }
}

/* What is about one input or those that follow; false if it is something else. */
static bool do_input(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    switch (use.row->action) {
    case KLD_DO_LIBRARY: kld_gnu_add_input(gnu, use.value, KLD_INPUT_LIBRARY); break;
    case KLD_DO_JUST_SYMBOLS: kld_gnu_add_input(gnu, use.value, KLD_INPUT_JUST_SYMBOLS); break;
    case KLD_DO_FILE_OR_RPATH: do_file_or_rpath(gnu, use); break;
    case KLD_DO_STATE: do_state(gnu, use); break;
    case KLD_DO_ARCHIVES: do_archives(gnu, use); break;
    case KLD_DO_FORMAT: do_format(gnu, use); break;
    case KLD_DO_PUSH: do_push(gnu); break;
    case KLD_DO_POP: do_pop(gnu); break;
    case KLD_DO_GROUP_START:
    case KLD_DO_GROUP_END: do_group(gnu, use); break;
    case KLD_DO_LIB_START:
    case KLD_DO_LIB_END: do_lib(gnu, use); break;
    default: return false;
    }
    return true;
}

/* What is remembered for the end; false if it is something else. */
static bool do_remembered(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    switch (use.row->action) {
    case KLD_DO_KIND: do_kind(gnu, use.row->argument); break;
    case KLD_DO_NO_PIE: do_no_pie(gnu); break;
    case KLD_DO_STATIC:
    case KLD_DO_MAGIC: do_static(gnu, use); break;
    case KLD_DO_OUTPUT: keep(gnu, use, &gnu->output); break;
    case KLD_DO_SYSROOT: keep(gnu, use, &gnu->sysroot); break;
    case KLD_DO_MAP: gnu->map = value_of(use); break;
    case KLD_DO_EMULATION: do_emulation(gnu, use); break;
    case KLD_DO_REPRODUCE: gnu->reproduce = use.value ? use.value : ""; break;
    case KLD_DO_SMALL_DATA: do_small_data(gnu, use); break;
    case KLD_DO_RPATH:
        gnu->has_rpath = true;
        set(gnu, use.row->option, use.value);
        break;
    case KLD_DO_FILTER:
        gnu->filter = use.spelled;
        set(gnu, use.row->option, use.value);
        break;
    default: return false;
    }
    return true;
}

void kld_gnu_do(struct kld_gnu *gnu, struct kld_gnu_use use)
{
    const struct kld_option *row = use.row;
    if (do_input(gnu, use) || do_remembered(gnu, use))
        return;
    switch (row->action) {
    case KLD_DO_SET: set(gnu, row->option, value_of(use)); break;
    case KLD_DO_FIX: set(gnu, row->option, row->argument); break;
    case KLD_DO_CHOOSE: do_choose(gnu, use); break;
    case KLD_DO_SPLIT: do_split(gnu, use, ",:"); break;
    case KLD_DO_SPLIT_PATH: do_split(gnu, use, ":"); break;
    case KLD_DO_ADDRESS: do_address(gnu, use); break;
    case KLD_DO_SECTION: do_section(gnu, use); break;
    case KLD_DO_NO_EFFECT: break;
    case KLD_DO_UNSUPPORTED: do_unsupported(gnu, use); break;
    case KLD_DO_Z: do_z(gnu, use); break;
    case KLD_DO_PRESENTATION: do_presentation(gnu, use); break;
    case KLD_DO_VERBOSE: do_verbose(gnu, use); break;
    case KLD_DO_FLAVOUR:
        kld_gnu_error(gnu, "bad-option", "%s has to be the first option", use.spelled);
        break;
    default: do_print(gnu, row->action); break;
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

static const char *environment(const struct kld_gnu *gnu, const char *name)
{
    const kld_host *host = gnu->host;
    const char *value = host->environment ? host->environment(host->context, name) : NULL;
    return value && *value ? value : NULL;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* -Map=FILE may name a directory, and "%" stands for the output's name; see GNU ld's manual. */
static const char *map_path(struct kld_gnu *gnu, const char *map)
{
    const char *output = gnu->output ? gnu->output : "a.out";
    const char *percent = strchr(map, '%');
    struct stat st;
    if (percent && strchr(percent + 1, '%')) {
        kld_gnu_error(gnu, "bad-option", "-Map: '%s' has more than one '%%'", map);
        return NULL;
    }
    if (percent)
        return kld_args_printf(gnu->args, "%.*s%s%s", (int)(percent - map), map, output,
                               percent[1] ? percent + 1 : ".map");
    if (stat(map, &st) == 0 && S_ISDIR(st.st_mode))
        return kld_args_printf(gnu->args, "%s/%s.map", map, base_name(output));
    return map;
}

/* What collect2 and users of GNU ld say through the environment. */
static void finish_environment(struct kld_gnu *gnu)
{
    const char *path = environment(gnu, "LD_RUN_PATH");
    if (path && !gnu->has_rpath)
        set(gnu, "rpath", path);
    const char *emulation = environment(gnu, "LDEMULATION");
    if (emulation && !gnu->machine && kld_gnu_knows_emulation(emulation))
        set(gnu, "machine", gnu->machine = emulation);
}

static void finish_reproduce(struct kld_gnu *gnu)
{
    const char *path = gnu->reproduce;
    if (!*path)
        path = kld_args_printf(gnu->args, "%s.tar", gnu->output ? gnu->output : "a.out");
    set(gnu, "reproduce", path);
    for (size_t i = 0; i < gnu->args->count; i++)
        set(gnu, "command-line", gnu->args->words[i]);
}

static void finish_printing(struct kld_gnu *gnu)
{
    if (gnu->print_sysroot) {
        kld_gnu_print(gnu->host, gnu->sysroot ? gnu->sysroot : "");
        kld_gnu_print(gnu->host, "\n");
    }
    if (gnu->print_format) {
        kld_gnu_print(gnu->host, kld_gnu_format_of(gnu->machine));
        kld_gnu_print(gnu->host, "\n");
    }
    gnu->stop = gnu->print_sysroot || gnu->print_format;
}

void kld_gnu_finish(struct kld_gnu *gnu)
{
    if (gnu->groups)
        kld_gnu_warn(gnu, "bad-option", "missing --end-group");
    if (gnu->flags & KLD_INPUT_LAZY)
        kld_gnu_warn(gnu, "bad-option", "missing --end-lib");
    if (gnu->filter && (!gnu->kind || strcmp(gnu->kind, "shared") != 0))
        kld_gnu_error(gnu, "bad-option", "%s is only for --shared", gnu->filter);
    finish_environment(gnu);
    if (gnu->map) {
        const char *path = map_path(gnu, gnu->map);
        if (path)
            set(gnu, "map", path);
    }
    if (gnu->reproduce)
        finish_reproduce(gnu);
    finish_printing(gnu);
}
