/* test_session - one session: options, inputs, outputs, messages, and what the calls return. */
#include "api.h"
#include <errno.h>
#include <unistd.h>

static void add(kld_session *s, const char *name, const struct bytes *b, unsigned flags)
{
    kld_input in = {.size = sizeof(in), .name = name, .flags = flags};
    if (b) {
        in.data = b->data;
        in.length = b->size;
    }
    CHECK(kld_add_input(s, &in) == KLD_OK);
}

static void set(kld_session *s, const char *name, const char *value)
{
    CHECK(kld_set(s, name, value) == KLD_OK);
}

/* Links and compares with what the command made of small.args. */
static void check_small(kld_session *s)
{
    const void *data = NULL;
    size_t size = 0;
    struct bytes expected = expected_of("small");
    set(s, "output-memory", "1");
    CHECK(kld_link(s) == KLD_OK);
    CHECK(kld_output(s, &data, &size) == KLD_OK);
    CHECK(same(data, size, expected));
    free(expected.data);
    kld_free(s);
}

CASE(options_as_calls)
{
    kld_session *s = kld_new(NULL);
    set(s, "gc-sections", "1");
    set(s, "build-id", "sha1");
    add(s, "a.o", NULL, 0);
    add(s, "lib.a", NULL, 0);
    check_small(s);
}

CASE(options_as_argv)
{
    kld_session *s = kld_new(NULL);
    struct command c = command_of("small", NULL);
    CHECK(kld_parse(s, "gnu", c.argc, c.argv) == KLD_OK);
    free(c.text);
    check_small(s);
}

CASE(inputs_from_memory)
{
    kld_session *s = kld_new(NULL);
    struct bytes a = read_file("a.o"), lib = read_file("lib.a");
    char name[] = "a.o"; /* names are copied, data is not */
    add(s, name, &a, 0);
    memset(name, '?', 3);
    add(s, "somewhere/else.a", &lib, 0);
    set(s, "build-id", "sha1");
    set(s, "gc-sections", "1");
    check_small(s);
    free(a.data);
    free(lib.data);
}

CASE(output_to_a_file)
{
    kld_session *s = kld_new(NULL);
    struct command c = command_of("small", (const char *const[]){"-o", "file.out", NULL});
    const void *data;
    size_t size;
    CHECK(kld_parse(s, "gnu", c.argc, c.argv) == KLD_OK);
    CHECK(kld_link(s) == KLD_OK);
    CHECK(kld_output(s, &data, &size) == KLD_MISUSE);
    kld_free(s);
    struct bytes expected = expected_of("small"), made = read_file("file.out");
    CHECK(same(made.data, made.size, expected));
    CHECK(access("file.out", X_OK) == 0);
    free(c.text);
    free(made.data);
    free(expected.data);
}

CASE(large_links_agree_with_the_command)
{
    static const char *const kinds[] = {"dynamic", "static"};
    for (size_t i = 0; i < 2; i++) {
        struct command c = command_of(kinds[i], NULL);
        struct bytes expected = expected_of(kinds[i]);
        CHECK(links_as_expected(NULL, &c, expected));
        free(c.text);
        free(expected.data);
    }
}

/* Both are half-way through all the time. */
CASE(two_sessions_interleaved)
{
    struct bytes a = read_file("a.o"), small = expected_of("small"),
                 dynamic = expected_of("dynamic");
    struct command c = command_of("dynamic", NULL);
    const void *data = NULL;
    size_t size = 0;
    kld_session *one = kld_new(NULL), *two = kld_new(NULL);
    set(one, "output-memory", "1");
    CHECK(kld_parse(two, "gnu", c.argc, c.argv) == KLD_OK);
    set(one, "gc-sections", "1");
    set(two, "output-memory", "1");
    add(one, "a.o", &a, 0);
    CHECK(kld_set(two, "no-such-option", "1") == KLD_FAILED);
    add(one, "lib.a", NULL, 0);
    CHECK(kld_link(two) == KLD_FAILED); /* an error has been reported */
    set(one, "build-id", "sha1");
    kld_session *three = kld_new(NULL);
    CHECK(kld_parse(three, "gnu", c.argc, c.argv) == KLD_OK);
    CHECK(kld_link(one) == KLD_OK);
    kld_free(two);
    set(three, "output-memory", "1");
    CHECK(kld_link(three) == KLD_OK);
    CHECK(kld_output(one, &data, &size) == KLD_OK && same(data, size, small));
    kld_free(one);
    CHECK(kld_output(three, &data, &size) == KLD_OK && same(data, size, dynamic));
    kld_free(three);
    free(c.text);
    free(a.data);
    free(small.data);
    free(dynamic.data);
}

CASE(misuse_is_told)
{
    const void *data;
    size_t size;
    kld_input unnamed = {.size = sizeof(unnamed)};
    CHECK(kld_set(NULL, "output", "x") == KLD_MISUSE);
    CHECK(kld_link(NULL) == KLD_MISUSE);
    CHECK(kld_add_input(NULL, &unnamed) == KLD_MISUSE);
    CHECK(kld_parse(NULL, "gnu", 0, NULL) == KLD_MISUSE);
    CHECK(kld_output(NULL, &data, &size) == KLD_MISUSE);
    CHECK(kld_report(NULL, KLD_ERROR, "a", "b") == KLD_MISUSE);
    kld_free(NULL);
    kld_session *s = kld_new(NULL);
    CHECK(kld_set(s, NULL, "x") == KLD_MISUSE);
    CHECK(kld_add_input(s, NULL) == KLD_MISUSE);
    CHECK(kld_add_input(s, &unnamed) == KLD_MISUSE);
    CHECK(kld_output(s, &data, &size) == KLD_MISUSE);
    add(s, "a.o", NULL, 0);
    add(s, "lib.a", NULL, 0);
    set(s, "output-memory", "1");
    CHECK(kld_output(s, &data, &size) == KLD_MISUSE);
    CHECK(kld_emit(s) == KLD_MISUSE);
    CHECK(kld_link(s) == KLD_OK);
    CHECK(kld_emit(s) == KLD_MISUSE);
    kld_session *unused = kld_new(NULL);
    add(unused, "a.o", NULL, 0);
    kld_free(unused);
    unused = kld_new(NULL);
    CHECK(kld_link(unused) == KLD_FAILED); /* no inputs */
    kld_free(unused);
    CHECK(kld_output(s, NULL, &size) == KLD_MISUSE);
    CHECK(kld_output(s, &data, &size) == KLD_OK);
    kld_free(s);
    CHECK(strcmp(kld_version(), KLD_VERSION) == 0);
}

CASE(hosts_of_other_versions)
{
    /* Members that this library does not know; and fewer than it knows. */
    struct {
        kld_host host;
        void *later[4];
    } larger = {.host = {.size = sizeof(larger)}};
    kld_host smaller = {.size = offsetof(kld_host, open_file)};
    struct command c = command_of("small", NULL);
    struct bytes expected = expected_of("small");
    memset(&smaller.open_file, 0x55, sizeof(smaller) - offsetof(kld_host, open_file));
    CHECK(links_as_expected(&larger.host, &c, expected));
    CHECK(links_as_expected(&smaller, &c, expected));
    free(c.text);
    free(expected.data);
}

/* ---- messages ---- */

static void check_says(const struct counts *c, const char *text)
{
    if (strstr(c->messages, text))
        return;
    api_failures++;
    printf("'%s' is not in the messages:\n%s", text, c->messages);
}

CASE(messages_have_fields)
{
    struct counts counts = {0};
    kld_host host = counting_host(&counts);
    kld_session *s = kld_new(&host);
    struct bytes bad = read_file("bad.o");
    add(s, "a.o", NULL, 0);
    add(s, "label of bytes", &bad, 0);
    set(s, "output-memory", "1");
    CHECK(kld_link(s) == KLD_FAILED);
    check_says(&counts, "error undefined-symbol a.o - .text b_value ");
    check_says(&counts, "undefined symbol: b_value");
    check_says(&counts, "error undefined-symbol label of bytes - .text gone +");
    CHECK(counts.errors == 2);
    kld_free(s);

    memset(counts.messages, 0, sizeof(counts.messages));
    s = kld_new(&host);
    add(s, "a.o", NULL, 0);
    add(s, "twice.a", NULL, KLD_INPUT_WHOLE_ARCHIVE);
    set(s, "output-memory", "1");
    CHECK(kld_link(s) == KLD_FAILED);
    check_says(&counts, "twice.a");
    check_says(&counts, "c.o");
    kld_free(s);

    memset(counts.messages, 0, sizeof(counts.messages));
    s = kld_new(&host);
    add(s, "gone.o", NULL, 0);
    CHECK(kld_set(s, "threads", "many") == KLD_FAILED);
    check_says(&counts, "error option - - - - 0: ");
    CHECK(kld_report(s, KLD_WARNING, "mine", "a word of the host's") == KLD_OK);
    check_says(&counts, "warning mine - - - - 0: a word of the host's");
    CHECK(kld_link(s) == KLD_FAILED);
    kld_free(s);

    memset(counts.messages, 0, sizeof(counts.messages));
    s = kld_new(&host);
    add(s, "gone.o", NULL, 0);
    CHECK(kld_link(s) == KLD_FAILED);
    check_says(&counts, "error cannot-open gone.o ");
    kld_free(s);
    CHECK(counts.live_blocks == 0);
    free(bad.data);
}

/* ---- the host's files ---- */

struct files {
    int open, closed;
    bool fail;
};

static bool open_file(void *context, const char *path, const void **data, size_t *length)
{
    struct files *files = context;
    if (strncmp(path, "virtual/", 8) != 0 || files->fail) {
        errno = files->fail ? EACCES : ENOENT;
        return false;
    }
    struct bytes b = read_file(path + 8);
    *data = b.data;
    *length = b.size;
    files->open++;
    return true;
}

static void close_file(void *context, const char *path, const void *data, size_t length)
{
    struct files *files = context;
    CHECK(strncmp(path, "virtual/", 8) == 0 && length > 0);
    free((void *)data);
    files->closed++;
}

CASE(files_of_the_host)
{
    struct files files = {0};
    kld_host host = {
        .size = sizeof(host), .context = &files, .open_file = open_file, .close_file = close_file};
    kld_session *s = kld_new(&host);
    add(s, "virtual/a.o", NULL, 0);
    set(s, "library-path", "virtual");
    add(s, ":lib.a", NULL, KLD_INPUT_LIBRARY);
    set(s, "gc-sections", "1");
    set(s, "build-id", "sha1");
    check_small(s);
    CHECK(files.open >= 2 && files.open == files.closed);

    files.fail = true;
    s = kld_new(&host);
    add(s, "virtual/a.o", NULL, 0);
    CHECK(kld_link(s) == KLD_FAILED);
    kld_free(s);
    CHECK(files.open == files.closed);
}

/* ---- the command in process ---- */

CASE(the_command_in_process)
{
    struct counts counts = {0};
    kld_host host = counting_host(&counts);
    struct command c = command_of("small", (const char *const[]){"-o", "run.out", NULL});
    CHECK(kld_run(c.argc, c.argv, &host) == 0);
    CHECK(kld_run(c.argc, c.argv, NULL) == 0);
    struct bytes expected = expected_of("small"), made = read_file("run.out");
    CHECK(same(made.data, made.size, expected));
    CHECK(kld_run(2, (const char *const[]){"kld", "--version"}, &host) == 0);
    CHECK(strstr(counts.printed, KLD_VERSION));
    CHECK(counts.errors == 0);
    CHECK(kld_run(1, (const char *const[]){"kld"}, &host) == 1);
    check_says(&counts, "no input files");
    CHECK(kld_run(4, (const char *const[]){"kld", "bad.o", "-o", "run.out"}, &host) == 1);
    check_says(&counts, "undefined symbol: gone");
    CHECK(kld_run(3, (const char *const[]){"kld", "-flavor", "klingon"}, &host) == 1);
    check_says(&counts, "klingon");
    CHECK(kld_run(0, NULL, &host) == 1);
    CHECK(counts.live_blocks == 0);
    free(c.text);
    free(made.data);
    free(expected.data);
}
