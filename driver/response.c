/* response.c - @FILE on the command line, by the rules of the GNU tools.
 *
 * Words are separated by white space. Single and double quotes keep white space in a word; a
 * backslash takes the next character as it is, in quotes too. There are no comments. Files may
 * name others. An @FILE that cannot be read is an ordinary word. */
#include "driver/args.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 2000 }; /* as in GNU ld: a file that names itself has to end somewhere */

struct text {
    const char *ptr;
    size_t length;
};

static bool push(struct kld_args *args, const char *word)
{
    if (args->count == args->capacity) {
        size_t capacity = args->capacity ? args->capacity * 2 : 64;
        const char **words = kld_args_alloc(args, capacity * sizeof(*words));
        if (!words)
            return false;
        if (args->count)
            memcpy(words, args->words, args->count * sizeof(*words));
        args->words = words;
        args->capacity = capacity;
    }
    args->words[args->count++] = word;
    return true;
}

/* Until the end and not by size: FILE may be a pipe. */
static bool read_all(struct kld_args *args, int fd, size_t guess, struct text *text)
{
    size_t capacity = guess + 1, length = 0;
    char *data = kld_args_alloc(args, capacity);
    while (data) {
        ssize_t n = read(fd, data + length, capacity - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            *text = (struct text){data, length};
            return n == 0;
        }
        length += (size_t)n;
        if (length < capacity)
            continue;
        char *more = kld_args_alloc(args, capacity *= 2);
        if (more)
            memcpy(more, data, length);
        data = more;
    }
    return false;
}

/* False: no such file, or args->error or no_memory is set. */
static bool read_file(struct kld_args *args, const char *path, struct text *text)
{
    const kld_host *host = args->host;
    if (host->open_file) {
        const void *data;
        size_t length;
        if (!host->open_file(host->context, path, &data, &length))
            return false;
        text->length = length;
        text->ptr = kld_args_copy(args, data, length);
        if (host->close_file)
            host->close_file(host->context, path, data, length);
        return text->ptr;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    struct stat st;
    bool done = fstat(fd, &st) == 0;
    if (done && S_ISDIR(st.st_mode)) {
        args->error = kld_args_printf(args, "response file '%s' is a directory", path);
        done = false;
    }
    size_t guess = done && S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size : 4096;
    done = done && read_all(args, fd, guess, text);
    close(fd);
    return done;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Takes the next word off the text, without its quotes, and writes it to *out with a NUL. False
 * at the end. No word is longer than what it is made of: out needs the text's size and one. */
static bool take_word(struct text *text, char **out)
{
    const char *at = text->ptr, *end = at + text->length;
    while (at < end && is_space(*at))
        at++;
    bool found = at < end;
    char quote = 0;
    for (; at < end && (quote || !is_space(*at)); at++) {
        if (*at == '\\') {
            if (++at == end)
                break;
            *(*out)++ = *at;
        } else if (*at == quote) {
            quote = 0;
        } else if (!quote && (*at == '\'' || *at == '"')) {
            quote = *at;
        } else {
            *(*out)++ = *at;
        }
    }
    *(*out)++ = '\0';
    *text = (struct text){at, (size_t)(end - at)};
    return found;
}

static bool add_word(struct kld_args *args, const char *word);

static bool add_file(struct kld_args *args, struct text text)
{
    if (++args->expanded > FILES_MAX) {
        args->error = "too many response files (does one name itself?)";
        return false;
    }
    const char *nul = memchr(text.ptr, '\0', text.length);
    if (nul)
        text.length = (size_t)(nul - text.ptr);
    char *out = kld_args_alloc(args, text.length + 2);
    if (!out)
        return false;
    for (char *word = out; take_word(&text, &out); word = out)
        if (!add_word(args, word))
            return false;
    return true;
}

static bool add_word(struct kld_args *args, const char *word)
{
    struct text text = {0};
    if (word[0] == '@' && word[1] && read_file(args, word + 1, &text))
        return add_file(args, text);
    return !args->error && !args->no_memory && push(args, word);
}

bool kld_args_add(struct kld_args *args, int argc, const char *const *argv)
{
    for (int i = 0; i < argc; i++)
        if (!add_word(args, argv[i]))
            return false;
    return true;
}
