/* api.h - what the tests of the public interface share. Included once by each test program, which
 * knows of kld no more than kld/kld.h.
 *
 * CASE(name) { ... } is a test; test_api.py finds it by that line and runs `program name` in a
 * folder with these files:
 *   a.o b.o bad.o lib.a   small objects without libc: _start in a.o calls b.o's; an archive of b.o
 *   content/<version>.o   of one source: test_content.c
 *   <edit>/b.o            what becomes of b.o: same, edited (the program's status is 1 instead of 0),
 *                         grown (2), global (3; what cannot be patched)
 *   <kind>.args           a command line without -o, a word a line: small, dynamic, static
 *   <kind>.out            what the command makes of it */
#ifndef KLD_TEST_API_H
#define KLD_TEST_API_H

#include <kld/kld.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNUSED __attribute__((unused))

static int api_failures;

#define CHECK(condition)                                                                           \
    ((condition) ? (void)0                                                                         \
                 : (void)(api_failures++, printf("%s:%d: %s\n", __FILE__, __LINE__, #condition)))

struct api_case {
    const char *name;
    void (*run)(void);
    struct api_case *next;
};
static struct api_case *api_cases;

#define CASE(case_name)                                                                            \
    static void case_name(void);                                                                   \
    static void __attribute__((constructor)) register_##case_name(void)                            \
    {                                                                                              \
        static struct api_case c = {#case_name, case_name, NULL};                                  \
        c.next = api_cases;                                                                        \
        api_cases = &c;                                                                            \
    }                                                                                              \
    static void case_name(void)

/* ---- files ---- */

struct bytes {
    void *data;
    size_t size;
};

static UNUSED struct bytes read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct bytes b = {0};
    if (!file) {
        printf("cannot open %s\n", path);
        exit(1);
    }
    fseek(file, 0, SEEK_END);
    b.size = (size_t)ftell(file);
    rewind(file);
    b.data = malloc(b.size + 1);
    if (!b.data || fread(b.data, 1, b.size, file) != b.size)
        exit(1);
    ((char *)b.data)[b.size] = 0;
    fclose(file);
    return b;
}

static UNUSED bool same(const void *data, size_t size, struct bytes b)
{
    return size == b.size && memcmp(data, b.data, size) == 0;
}

/* A command line: argv[0], the words of the file, and these, up to NULL. */
struct command {
    const char *argv[200];
    int argc;
    char *text;
};

static UNUSED struct command command_of(const char *kind, const char *const *more)
{
    char path[64];
    snprintf(path, sizeof(path), "%s.args", kind);
    struct command c = {.argv = {"kld"}, .argc = 1, .text = read_file(path).data};
    for (char *word = c.text, *end; (end = strchr(word, '\n')); word = end + 1) {
        *end = 0;
        c.argv[c.argc++] = word;
    }
    while (more && *more)
        c.argv[c.argc++] = *more++;
    return c;
}

static UNUSED struct bytes expected_of(const char *kind)
{
    char path[64];
    snprintf(path, sizeof(path), "%s.out", kind);
    return read_file(path);
}

/* ---- a host that counts ---- */

struct counts {
    atomic_size_t live_bytes, live_blocks, allocations;
    size_t fail_from, fail_to; /* numbers of the allocations that fail; 0: none */
    pthread_mutex_t lock;      /* of the texts */
    char messages[16384];      /* severity id file member section symbol offset: text */
    char printed[4096];
    size_t errors;
};

struct block {
    size_t size;
    _Alignas(64) char data[];
};

static void *counting_alloc(void *context, size_t size)
{
    struct counts *c = context;
    size_t number = atomic_fetch_add(&c->allocations, 1) + 1;
    if (number >= c->fail_from && number < c->fail_to)
        return NULL;
    struct block *b = aligned_alloc(64, (sizeof(*b) + size + 63) / 64 * 64);
    if (!b)
        return NULL;
    memset(b, 0, sizeof(*b) + size);
    b->size = size;
    atomic_fetch_add(&c->live_bytes, size);
    atomic_fetch_add(&c->live_blocks, 1);
    return b->data;
}

static void counting_free(void *context, void *block, size_t size)
{
    struct counts *c = context;
    struct block *b = (struct block *)((char *)block - offsetof(struct block, data));
    CHECK(b->size == size);
    atomic_fetch_sub(&c->live_bytes, size);
    atomic_fetch_sub(&c->live_blocks, 1);
    memset(block, 0xdd, size < 256 ? size : 256);
    free(b);
}

static const char *or_dash(const char *text)
{
    return text ? text : "-";
}

static void keep_message(void *context, const kld_message *m)
{
    static const char *const severities[] = {"note", "warning", "error"};
    struct counts *c = context;
    CHECK(m->size >= sizeof(*m));
    CHECK(m->id && *m->id);
    CHECK(m->text && *m->text);
    size_t used = strlen(c->messages);
    snprintf(c->messages + used, sizeof(c->messages) - used, "%s %s %s %s %s %s %s%llx: %s\n",
             severities[m->severity], m->id, or_dash(m->file), or_dash(m->member),
             or_dash(m->section), or_dash(m->symbol), m->has_offset ? "+" : "",
             (unsigned long long)m->offset, m->text);
    c->errors += m->severity == KLD_ERROR;
}

static void keep_print(void *context, const char *text, size_t length)
{
    struct counts *c = context;
    size_t used = strlen(c->printed);
    if (length < sizeof(c->printed) - used)
        memcpy(c->printed + used, text, length);
}

static UNUSED kld_host counting_host(struct counts *c)
{
    return (kld_host){.size = sizeof(kld_host),
                      .context = c,
                      .alloc = counting_alloc,
                      .free = counting_free,
                      .message = keep_message,
                      .print = keep_print};
}

/* ---- links ---- */

/* Links a command line to memory; true if it is the expected bytes. */
static UNUSED bool links_as_expected(const kld_host *host, const struct command *c,
                                     struct bytes expected)
{
    const void *data = NULL;
    size_t size = 0;
    kld_session *s = kld_new(host);
    if (!s)
        return false;
    bool good = kld_parse(s, "gnu", c->argc, c->argv) == KLD_OK &&
                kld_set(s, "output-memory", "1") == KLD_OK && kld_link(s) == KLD_OK &&
                kld_output(s, &data, &size) == KLD_OK && same(data, size, expected);
    kld_free(s);
    return good;
}

int main(int argc, char **argv)
{
    bool found = false;
    for (struct api_case *c = api_cases; c; c = c->next)
        if (argc < 2 || strcmp(argv[1], c->name) == 0) {
            found = true;
            c->run();
        }
    return found && !api_failures ? 0 : 1;
}

#endif
