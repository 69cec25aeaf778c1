#include "driver/report.h"
#include <inttypes.h>
#include <string.h>

static const char bold[] = "\033[1m", red[] = "\033[1;31m", magenta[] = "\033[1;35m",
                  plain[] = "\033[0m";

static void write_text(const struct kld_report_style *style, FILE *to, const kld_message *message)
{
    bool error = message->severity == KLD_ERROR;
    const char *kind = error ? "error:" : "warning:";
    if (style->colour)
        fprintf(to, "%skld: %s%s%s ", bold, error ? red : magenta, kind, plain);
    else
        fprintf(to, "kld: %s ", kind);
    fprintf(to, "%s\n", message->text);
}

/* Length of the UTF-8 sequence at text, 0 if there is none that is valid. */
static size_t utf8_length(const unsigned char *text)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = text[0] < 0x80       ? 1
               : text[0] >> 5 == 6  ? 2
               : text[0] >> 4 == 14 ? 3
               : text[0] >> 3 == 30 ? 4
                                    : 0;
    if (n < 2)
        return n;
    uint32_t code = text[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if (text[i] >> 6 != 2)
            return 0;
        code = code << 6 | (text[i] & 0x3fu);
    }
    bool surrogate = code >= 0xd800 && code < 0xe000;
    return code < least[n] || code > 0x10ffff || surrogate ? 0 : n;
}

/* File and symbol names are any bytes; JSON is UTF-8. What is not becomes U+FFFD. */
static void write_string(FILE *to, const char *text)
{
    putc('"', to);
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        size_t n = utf8_length(at);
        if (!n)
            fputs("\\ufffd", to);
        else if (*at == '"' || *at == '\\')
            fprintf(to, "\\%c", *at);
        else if (*at == '\n')
            fputs("\\n", to);
        else if (*at < 0x20 || *at == 0x7f)
            fprintf(to, "\\u%04x", *at);
        else
            fwrite(at, 1, n, to);
        at += n ? n : 1;
    }
    putc('"', to);
}

static void write_field(FILE *to, const char *name, const char *value)
{
    if (!value)
        return;
    fprintf(to, ",\"%s\":", name);
    write_string(to, value);
}

static void write_json(FILE *to, const kld_message *message)
{
    static const char *const severities[] = {"note", "warning", "error"};
    fprintf(to, "{\"severity\":\"%s\"", severities[message->severity]);
    write_field(to, "id", message->id);
    write_field(to, "file", message->file);
    write_field(to, "member", message->member);
    write_field(to, "section", message->section);
    write_field(to, "symbol", message->symbol);
    if (message->has_offset)
        fprintf(to, ",\"offset\":%" PRIu64, message->offset);
    write_field(to, "text", message->text);
    fputs("}\n", to);
}

void kld_report_message(const struct kld_report_style *style, FILE *out, FILE *err,
                        const kld_message *message)
{
    if (style->json) {
        write_json(err, message);
        fflush(err);
    } else if (message->severity == KLD_NOTE) {
        fprintf(out, "%s\n", message->text);
    } else {
        write_text(style, err, message);
        fflush(err);
    }
}
