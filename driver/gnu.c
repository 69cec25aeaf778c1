#include "driver/gnu.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void kld_gnu_note_status(struct kld_gnu *gnu, kld_status status)
{
    if (status != KLD_OK && gnu->status == KLD_OK)
        gnu->status = status;
    if (status == KLD_NO_MEMORY)
        gnu->status = status;
}

static void report(struct kld_gnu *gnu, kld_severity severity, const char *id, const char *format,
                   va_list values)
{
    char text[1024]; /* names of options and files; what is longer is cut */
    vsnprintf(text, sizeof(text), format, values);
    kld_gnu_note_status(gnu, kld_report(gnu->session, severity, id, text));
}

void kld_gnu_error(struct kld_gnu *gnu, const char *id, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    report(gnu, KLD_ERROR, id, format, values);
    va_end(values);
    kld_gnu_note_status(gnu, KLD_FAILED);
}

void kld_gnu_warn(struct kld_gnu *gnu, const char *id, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    report(gnu, KLD_WARNING, id, format, values);
    va_end(values);
}

const char *kld_gnu_peek(const struct kld_gnu *gnu)
{
    return gnu->next < gnu->args->count ? gnu->args->words[gnu->next] : NULL;
}

/* What a word turned out to be. */
struct match {
    const struct kld_option *row;
    size_t spelled;    /* length of the word without its value */
    const char *value; /* in the word itself, or NULL */
};

/* -h and -hNAME. */
static struct match match_short(const char *word)
{
    struct match match = {.row = kld_option_short(word[1]), .spelled = 2};
    if (!match.row)
        return match;
    if (kld_option_arity(match.row) == KLD_TAKES_NONE && word[2])
        return (struct match){0};
    match.value = word[2] ? word + 2 : NULL;
    return match;
}

/* In the order that GNU ld documents: whole names; then one letter with its value joined; then
 * abbreviations. With one dash a name must not begin with "o", which -o takes. A letter that takes
 * a value goes before an abbreviation, so that -Lib is never --lib... */
static struct match find(const char *word)
{
    size_t dashes = word[1] == '-' ? 2 : 1;
    const char *name = word + dashes;
    size_t length = strcspn(name, "=");
    struct match match = {.spelled = dashes + length};
    if (name[length])
        match.value = name + length + 1;
    bool may_be_long = dashes == 2 || name[0] != 'o';
    if (may_be_long && (match.row = kld_option_long(name, length, false)))
        return match;
    if (dashes == 1) {
        struct match joined = match_short(word);
        if (joined.row)
            return joined;
    }
    if (may_be_long)
        match.row = kld_option_abbreviated(name, length);
    return match;
}

static void unknown(struct kld_gnu *gnu, const char *word)
{
    const char *name = word + (word[1] == '-' ? 2 : 1);
    size_t length = strcspn(name, "=");
    const char *near = kld_option_near(name, length);
    if (near)
        kld_gnu_error(gnu, "unknown-option", "unknown option '%s'; did you mean '--%s'?", word,
                      near);
    else
        kld_gnu_error(gnu, "unknown-option", "unknown option '%s'", word);
}

/* -sx: letters that all take no value, as GNU ld still allows. */
static bool take_cluster(struct kld_gnu *gnu, const char *word)
{
    if (word[1] == '-')
        return false;
    for (const char *c = word + 1; *c; c++) {
        const struct kld_option *row = kld_option_short(*c);
        if (!row || kld_option_arity(row) != KLD_TAKES_NONE)
            return false;
    }
    for (const char *c = word + 1; *c && !gnu->stop; c++)
        kld_gnu_do(gnu, (struct kld_gnu_use){.row = kld_option_short(*c),
                                             .spelled = kld_args_printf(gnu->args, "-%c", *c)});
    return true;
}

static void take_option(struct kld_gnu *gnu, const char *word)
{
    struct match match = find(word);
    if (!match.row) {
        if (!take_cluster(gnu, word))
            unknown(gnu, word);
        return;
    }
    struct kld_gnu_use use = {.row = match.row, .value = match.value};
    use.spelled = kld_args_copy(gnu->args, word, match.spelled);
    if (!use.spelled)
        return;
    enum kld_arity arity = kld_option_arity(match.row);
    if (arity == KLD_TAKES_NONE && use.value) {
        kld_gnu_error(gnu, "bad-option", "option '%s' takes no value", use.spelled);
        return;
    }
    if (arity == KLD_TAKES_VALUE && !use.value) {
        use.value = kld_gnu_peek(gnu);
        if (!use.value) {
            kld_gnu_error(gnu, "bad-option", "option '%s' needs a value", use.spelled);
            return;
        }
        gnu->next++;
    }
    kld_gnu_do(gnu, use);
}

kld_status kld_gnu_parse(struct kld_gnu *gnu)
{
    while (gnu->next < gnu->args->count && !gnu->stop && !gnu->args->no_memory) {
        const char *word = gnu->args->words[gnu->next++];
        if (gnu->only_inputs || word[0] != '-' || !word[1])
            kld_gnu_add_input(gnu, word, 0);
        else if (strcmp(word, "--") == 0)
            gnu->only_inputs = true;
        else
            take_option(gnu, word);
        if (gnu->status == KLD_NO_MEMORY)
            return gnu->status;
    }
    if (!gnu->stop)
        kld_gnu_finish(gnu);
    if (gnu->args->no_memory)
        gnu->status = KLD_NO_MEMORY;
    return gnu->status;
}

/* The value after "NAME=", NULL for another word. */
static const char *after(const char *word, const char *name)
{
    size_t n = strlen(name);
    return strncmp(word, name, n) == 0 && word[n] == '=' ? word + n + 1 : NULL;
}

static void present(struct kld_presentation *to, const char *name, const char *next)
{
    const char *value = after(name, "diagnostics");
    if (!value && strcmp(name, "diagnostics") == 0)
        value = next;
    if (value)
        to->json = strcmp(value, "json") == 0;

    const char *when = after(name, "color-diagnostics");
    if (strcmp(name, "color-diagnostics") == 0)
        when = "always";
    else if (strcmp(name, "no-color-diagnostics") == 0)
        when = "never";
    if (when)
        to->colour = strcmp(when, "always") == 0  ? KLD_COLOUR_ALWAYS
                     : strcmp(when, "never") == 0 ? KLD_COLOUR_NEVER
                                                  : KLD_COLOUR_AUTO;

    if (strcmp(name, "no-fork") == 0 || strcmp(name, "no-detach") == 0)
        to->alone = true;
    else if (strcmp(name, "fork") == 0 || strcmp(name, "detach") == 0)
        to->alone = false;
}

void kld_gnu_presentation(const struct kld_args *args, struct kld_presentation *presentation)
{
    for (size_t i = 0; i < args->count; i++) {
        const char *word = args->words[i];
        if (word[0] == '-')
            present(presentation, word + (word[1] == '-' ? 2 : 1),
                    i + 1 < args->count ? args->words[i + 1] : NULL);
    }
}
