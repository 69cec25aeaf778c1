/* test_many - a thousand links in one process, and many at once: the same bytes every time, nothing
 * left behind. */
#include "api.h"
#include <unistd.h>

static size_t number(const char *name, size_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 10) : otherwise;
}

static size_t resident_pages(void)
{
    size_t size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file) {
        if (fscanf(file, "%zu %zu", &size, &resident) != 2)
            resident = 0;
        fclose(file);
    }
    return resident;
}

static int open_files(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++) {
        char path[32], target[8];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        count += readlink(path, target, sizeof(target)) > 0;
    }
    return count;
}

CASE(a_thousand_links)
{
    static const char *const kinds[] = {"small", "dynamic", "static"};
    struct command commands[3];
    struct bytes expected[3];
    for (int i = 0; i < 3; i++) {
        commands[i] = command_of(kinds[i], NULL);
        expected[i] = expected_of(kinds[i]);
    }
    size_t links = number("KLD_TEST_LINKS", 1000), early = 0;
    int files = open_files();
    for (size_t i = 0; i < links; i++) {
        struct counts counts = {0};
        kld_host host = counting_host(&counts);
        int kind = i % 50 == 49 ? 2 : i % 4 == 3;
        bool own = i % 2; /* of allocators: the library's */
        if (own) {
            host.alloc = NULL;
            host.free = NULL;
        }
        bool good = links_as_expected(&host, &commands[kind], expected[kind]);
        CHECK(good);
        CHECK(counts.live_blocks == 0 && counts.live_bytes == 0);
        CHECK(own || counts.allocations);
        if (!good)
            return;
        if (i == links / 5)
            early = resident_pages();
    }
    CHECK(open_files() == files);
    size_t late = resident_pages(), page = (size_t)sysconf(_SC_PAGESIZE);
    if (getenv("KLD_TEST_RESIDENT"))
        CHECK(late <= early + (2u << 20) / page);
    for (int i = 0; i < 3; i++) {
        free(commands[i].text);
        free(expected[i].data);
    }
}

enum { AT_ONCE = 16 };

struct job {
    const char *kind, *threads;
    size_t links;
    bool good;
};

static void *run_job(void *arg)
{
    struct job *job = arg;
    struct command c = command_of(job->kind, (const char *const[]){job->threads, NULL});
    struct bytes expected = expected_of(job->kind);
    job->good = true;
    for (size_t i = 0; i < job->links && job->good; i++) {
        struct counts counts = {0};
        kld_host host = counting_host(&counts);
        job->good = links_as_expected(&host, &c, expected) && counts.live_blocks == 0;
    }
    free(c.text);
    free(expected.data);
    return NULL;
}

CASE(sixteen_sessions_at_once)
{
    static const char *const kinds[] = {"small", "dynamic", "static", "dynamic"};
    static const char *const threads[] = {"--threads=1", "--threads=2", "--threads=4"};
    struct job jobs[AT_ONCE];
    pthread_t ids[AT_ONCE];
    for (size_t i = 0; i < AT_ONCE; i++) {
        jobs[i] = (struct job){.kind = kinds[i % 4],
                               .threads = threads[i % 3],
                               .links = number("KLD_TEST_LINKS", 1000) / 100};
        CHECK(pthread_create(&ids[i], NULL, run_job, &jobs[i]) == 0);
    }
    for (size_t i = 0; i < AT_ONCE; i++) {
        pthread_join(ids[i], NULL);
        CHECK(jobs[i].good);
    }
}
