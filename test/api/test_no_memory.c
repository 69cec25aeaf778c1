/* test_no_memory - the host's allocator fails, now and then or for good, at each of the places where
 * it is asked: the call says so, nothing is left behind, the next session is none the worse. */
#include "api.h"

/* Links; every block has to come back, whatever happened. */
static kld_status link_once(struct counts *counts, const struct command *c, struct bytes expected)
{
    const void *data = NULL;
    size_t size = 0;
    kld_host host = counting_host(counts);
    kld_session *s = kld_new(&host);
    if (!s) {
        CHECK(counts->live_blocks == 0);
        return KLD_NO_MEMORY;
    }
    kld_status status = kld_parse(s, "gnu", c->argc, c->argv);
    if (status == KLD_OK)
        status = kld_set(s, "output-memory", "1");
    if (status == KLD_OK)
        status = kld_link(s);
    if (status == KLD_OK) {
        CHECK(kld_output(s, &data, &size) == KLD_OK);
        CHECK(same(data, size, expected));
    } else {
        CHECK(kld_output(s, &data, &size) == KLD_MISUSE);
        CHECK(kld_link(s) != KLD_OK);
    }
    kld_free(s);
    CHECK(counts->live_blocks == 0);
    CHECK(counts->live_bytes == 0);
    return status;
}

/* Fails one allocation, then (always) all from it on, at about `places` places. */
static void fail_everywhere(const char *kind, size_t places, const char *const *more)
{
    struct command c = command_of(kind, more);
    struct bytes expected = expected_of(kind);
    struct counts all = {0};
    CHECK(link_once(&all, &c, expected) == KLD_OK);
    size_t count = all.allocations, step = count / places + 1;
    CHECK(count > 3);
    for (size_t n = 1; n <= count; n += n < 20 ? 1 : step) {
        for (int always = 0; always < 2; always++) {
            struct counts one = {.fail_from = n, .fail_to = always ? SIZE_MAX : n + 1};
            kld_status status = link_once(&one, &c, expected);
            /* With threads there may be fewer allocations than in the run that counted. */
            bool reached = one.allocations >= n;
            CHECK(status == (reached ? KLD_NO_MEMORY : KLD_OK));
            CHECK(!one.errors || strstr(one.messages, ": out of memory"));
            if (api_failures) {
                printf("allocation %zu of %zu, status %d\n%s", n, count, status, one.messages);
                exit(1);
            }
        }
    }
    struct counts again = {0};
    CHECK(link_once(&again, &c, expected) == KLD_OK);
    free(c.text);
    free(expected.data);
}

CASE(small_link)
{
    fail_everywhere("small", 200, (const char *const[]){"--threads=1", NULL});
}

CASE(dynamic_link)
{
    fail_everywhere("dynamic", 60, (const char *const[]){"--threads=1", NULL});
}

CASE(static_link)
{
    fail_everywhere("static", 40, (const char *const[]){"--threads=1", NULL});
}

CASE(threads)
{
    fail_everywhere("static", 40, (const char *const[]){"--threads=4", NULL});
}

/* Many names, many strings: what small links do not do. */
CASE(large_link)
{
    fail_everywhere("large", 60, (const char *const[]){"--threads=2", NULL});
}

CASE(the_command)
{
    struct command c = command_of("small", (const char *const[]){"-o", "memory.out", NULL});
    struct counts all = {0};
    kld_host host = counting_host(&all);
    CHECK(kld_run(c.argc, c.argv, &host) == 0);
    for (size_t n = 1; n <= all.allocations; n++) {
        struct counts one = {.fail_from = n, .fail_to = n + 1};
        host.context = &one;
        CHECK(kld_run(c.argc, c.argv, &host) == 1);
        CHECK(strstr(one.messages, "out of memory"));
        CHECK(one.live_blocks == 0);
    }
    free(c.text);
}

CASE(between_calls)
{
    for (size_t n = 1; n < 6; n++) {
        struct counts counts = {.fail_from = n, .fail_to = SIZE_MAX};
        kld_host host = counting_host(&counts);
        kld_session *s = kld_new(&host);
        kld_status status = KLD_OK;
        static char name[200000];
        memset(name, 'x', sizeof(name) - 1);
        kld_input in = {.size = sizeof(in), .name = name};
        for (int i = 0; s && i < 8 && status == KLD_OK; i++)
            status = i % 2 ? kld_set(s, "library-path", name) : kld_add_input(s, &in);
        if (s) {
            CHECK(status == KLD_NO_MEMORY);
            CHECK(kld_set(s, "output", "x") == KLD_NO_MEMORY);
            CHECK(kld_add_input(s, &in) == KLD_NO_MEMORY);
            CHECK(kld_report(s, KLD_NOTE, "a", "b") == KLD_NO_MEMORY);
            CHECK(kld_link(s) == KLD_NO_MEMORY);
        }
        kld_free(s);
        CHECK(counts.live_blocks == 0);
    }
}
