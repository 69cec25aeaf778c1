/* gnu_text.c - what the GNU ld flavour prints when asked what it is.
 *
 * Build systems read it. The first line of the version begins with "GNU ld" and ends with the
 * version that configure scripts and the kernel's take for that of the binutils; libtool takes
 * " 0." or " 1." in it for a linker of the nineties, so kld's own version follows a dash. They
 * look for options, "supported targets:" and "supported emulations:" in the help. */
#include "driver/gnu.h"
#include <stdio.h>
#include <string.h>

/* The version of GNU ld whose options and behaviour are kld's measure. */
#define COMPATIBLE "2.40"

/* Column of the help texts. */
enum { COLUMN = 30 };

/* Emulations by name, and the name of their output format. */
static const struct {
    const char name[20], format[24];
} emulations[] = {
    {"elf_x86_64", "elf64-x86-64"},
    {"aarch64elf", "elf64-littleaarch64"},
    {"aarch64linux", "elf64-littleaarch64"},
    {"elf64lriscv", "elf64-littleriscv"},
    {"elf64lriscv_lp64f", "elf64-littleriscv"},
    {"elf64lriscv_lp64", "elf64-littleriscv"},
};

void kld_gnu_print(const kld_host *host, const char *text)
{
    if (host->print)
        host->print(host->context, text, strlen(text));
}

bool kld_gnu_knows_emulation(const char *name)
{
    for (size_t i = 0; i < sizeof(emulations) / sizeof(emulations[0]); i++)
        if (strcmp(emulations[i].name, name) == 0)
            return true;
    return false;
}

bool kld_gnu_knows_format(const char *name)
{
    for (size_t i = 0; i < sizeof(emulations) / sizeof(emulations[0]); i++)
        if (strcmp(emulations[i].format, name) == 0)
            return true;
    return false;
}

const char *kld_gnu_format_of(const char *emulation)
{
    for (size_t i = 0; emulation && i < sizeof(emulations) / sizeof(emulations[0]); i++)
        if (strcmp(emulations[i].name, emulation) == 0)
            return emulations[i].format;
    return emulations[0].format;
}

/* Each with something before and behind it. */
static void print_emulations(const kld_host *host, const char *before, const char *behind)
{
    for (size_t i = 0; i < sizeof(emulations) / sizeof(emulations[0]); i++) {
        kld_gnu_print(host, before);
        kld_gnu_print(host, emulations[i].name);
        kld_gnu_print(host, behind);
    }
}

/* Several emulations in a row have one format. */
static void print_formats(const kld_host *host)
{
    const char *last = "";
    for (size_t i = 0; i < sizeof(emulations) / sizeof(emulations[0]); i++) {
        if (strcmp(last, emulations[i].format) == 0)
            continue;
        last = emulations[i].format;
        kld_gnu_print(host, " ");
        kld_gnu_print(host, last);
    }
}

void kld_gnu_print_version(const kld_host *host, bool more, bool with_emulations)
{
    kld_gnu_print(host, "GNU ld (kld-" KLD_VERSION ") " COMPATIBLE "\n");
    if (more)
        kld_gnu_print(host, "This is kld, a linker compatible with GNU ld.\n");
    if (!with_emulations)
        return;
    kld_gnu_print(host, "  Supported emulations:\n");
    print_emulations(host, "   ", "\n");
}

/* "-z now", "-o FILE", "--output=FILE", "--build-id[=STYLE]" */
static size_t spell(char *out, size_t size, const struct kld_option *row, const char *name)
{
    bool letter = !name[1];
    const char *dashes = row->z ? "-z " : letter ? "-" : "--";
    const char *value = row->value_name ? row->value_name : "";
    const char *between = "";
    if (kld_option_arity(row) == KLD_TAKES_VALUE)
        between = letter && !row->z ? " " : "=";
    return (size_t)snprintf(out, size, "%s%s%s%s", dashes, name, between, value);
}

/* All spellings of an option, then what it does, in a column of its own. */
static void print_option(const kld_host *host, const struct kld_option *row)
{
    char one[160];
    size_t width = 0;
    for (const char *const *name = row->names; *name; name++) {
        kld_gnu_print(host, width ? ", " : "  ");
        width += 2 + spell(one, sizeof(one), row, *name);
        kld_gnu_print(host, one);
    }
    if (width + 2 > COLUMN) {
        kld_gnu_print(host, "\n");
        width = 0;
    }
    snprintf(one, sizeof(one), "%*s%s\n", (int)(COLUMN - width), "", row->help);
    kld_gnu_print(host, one);
}

/* Options that are not supported are left out: configure scripts take a name in the help for a
 * promise. They are in the manual. */
void kld_gnu_print_help(const kld_host *host)
{
    kld_gnu_print(host, "Usage: kld [options] file...\n");
    for (size_t i = 0; i < kld_gnu_option_count; i++) {
        const struct kld_option *row = &kld_gnu_options[i];
        bool last = row->action == KLD_DO_GROUP && i + 1 < kld_gnu_option_count &&
                    row[1].action == KLD_DO_UNSUPPORTED;
        if (last)
            break;
        if (row->action == KLD_DO_GROUP) {
            kld_gnu_print(host, row->help);
            kld_gnu_print(host, ":\n");
        } else if (row->action != KLD_DO_UNSUPPORTED) {
            print_option(host, row);
        }
    }
    kld_gnu_print(host, "  @FILE                       Read options from FILE\n"
                        "kld: supported targets:");
    print_formats(host);
    kld_gnu_print(host, "\nkld: supported emulations:");
    print_emulations(host, " ", "");
    kld_gnu_print(host, "\n");
}
