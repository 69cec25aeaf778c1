/* test_live - sessions that link more than once: inputs change, outputs are patched. */
#include "api.h"
#include <errno.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static kld_input in_memory(const char *name, struct bytes b)
{
    return (kld_input){.size = sizeof(kld_input), .name = name, .data = b.data, .length = b.size};
}

static void write_file(const char *path, const void *data, size_t size)
{
    unlink(path);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
    CHECK(chmod(path, 0755) == 0);
}

/* What the program's status is; -1: it did not end well. */
static int status_of(const char *path)
{
    char command[80];
    snprintf(command, sizeof(command), "./%s", path);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* a.o and b.o, the latter one of the edits, as bytes. */
struct live {
    kld_session *s;
    kld_input_handle a, b;
    struct bytes a_bytes, b_bytes;
    const char *output; /* NULL: in memory */
};

static bool begin(struct live *l, const kld_host *host, const char *output)
{
    *l = (struct live){.output = output};
    l->s = kld_new(host);
    if (!l->s)
        return false;
    l->a_bytes = read_file("a.o");
    l->b_bytes = read_file("same/b.o");
    kld_input a = in_memory("a", l->a_bytes), b = in_memory("b", l->b_bytes);
    return kld_set(l->s, "incremental", "1") == KLD_OK &&
           kld_set(l->s, output ? "output" : "output-memory", output ? output : "1") == KLD_OK &&
           kld_add_input_handle(l->s, &a, &l->a) == KLD_OK &&
           kld_add_input_handle(l->s, &b, &l->b) == KLD_OK;
}

static kld_status edit(struct live *l, const char *path)
{
    struct bytes old = l->b_bytes;
    l->b_bytes = read_file(path);
    kld_input b = in_memory("b", l->b_bytes);
    kld_status status = kld_replace_input(l->s, l->b, &b);
    if (status == KLD_OK)
        memset(old.data, 0xdd, old.size); /* nobody needs it */
    free(old.data);
    return status;
}

static void end(struct live *l)
{
    kld_free(l->s);
    free(l->a_bytes.data);
    free(l->b_bytes.data);
}

/* What --incremental-verify says of output and state; also to the session. */
static void verify(struct live *l)
{
    CHECK(kld_set(l->s, "incremental-verify", "1") == KLD_OK);
    CHECK(kld_link(l->s) == KLD_OK);
    CHECK(kld_get_outcome(l->s, NULL) == KLD_OUTCOME_NONE);
    CHECK(kld_set(l->s, "incremental-verify", "0") == KLD_OK);
}

/* Links; the outcome must be that, and the program's status. */
static void check_link(struct live *l, kld_outcome outcome, int status)
{
    const char *reason = NULL, *path = l->output;
    const void *data = NULL;
    size_t size = 0;
    CHECK(kld_link(l->s) == KLD_OK);
    CHECK(kld_get_outcome(l->s, &reason) == outcome);
    if (kld_get_outcome(l->s, NULL) != outcome)
        printf("%s\n", reason ? reason : "no reason");
    CHECK((kld_output(l->s, &data, &size) == KLD_OK) == !path);
    if (!path) {
        path = "from_memory.out";
        write_file(path, data, size);
    }
    CHECK(status_of(path) == status);
}

static void check_edits(struct live *l)
{
    static const struct {
        const char *object;
        kld_outcome outcome;
        int status;
    } steps[] = {
        {"same/b.o", KLD_OUTCOME_FULL, 0},
        {"same/b.o", KLD_OUTCOME_PATCHED, 0},
        {"edited/b.o", KLD_OUTCOME_PATCHED, 1},
        {"edited/b.o", KLD_OUTCOME_PATCHED, 1}, /* at another place, but the same */
        {"grown/b.o", KLD_OUTCOME_PATCHED, 2},
        {"global/b.o", KLD_OUTCOME_FELL_BACK_FULL, 3},
        {"edited/b.o", KLD_OUTCOME_FELL_BACK_FULL, 1},
        {"same/b.o", KLD_OUTCOME_PATCHED, 0},
    };
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        CHECK(edit(l, steps[i].object) == KLD_OK);
        check_link(l, steps[i].outcome, steps[i].status);
        verify(l);
    }
}

/* ---- cases ---- */

CASE(output_is_a_file)
{
    struct live l;
    CHECK(begin(&l, NULL, "live.out"));
    check_edits(&l);
    CHECK(access("live.out.kldstate", F_OK) == 0);
    end(&l);
}

CASE(state_is_in_memory)
{
    struct live l;
    CHECK(begin(&l, NULL, "live_state.out"));
    CHECK(kld_set_prior_state(l.s, NULL, 0) == KLD_OK);
    check_edits(&l);
    CHECK(access("live_state.out.kldstate", F_OK) != 0);
    end(&l);
}

CASE(output_is_in_memory)
{
    struct live l;
    CHECK(begin(&l, NULL, NULL));
    check_edits(&l);
    end(&l);
}

/* The bytes change where they are, and the host says nothing. */
CASE(bytes_are_edited)
{
    struct live l;
    CHECK(begin(&l, NULL, NULL));
    check_link(&l, KLD_OUTCOME_FULL, 0);
    struct bytes other = read_file("edited/b.o");
    CHECK(other.size == l.b_bytes.size);
    memcpy(l.b_bytes.data, other.data, other.size);
    check_link(&l, KLD_OUTCOME_PATCHED, 1);
    free(other.data);
    end(&l);
}

/* What the host has written to is not patched. */
CASE(output_in_memory_is_changed)
{
    struct live l;
    const void *data;
    size_t size;
    CHECK(begin(&l, NULL, NULL));
    check_link(&l, KLD_OUTCOME_FULL, 0);
    CHECK(kld_output(l.s, &data, &size) == KLD_OK);
    ((char *)data)[size / 2] ^= 1;
    check_link(&l, KLD_OUTCOME_FELL_BACK_FULL, 0);
    check_link(&l, KLD_OUTCOME_PATCHED, 0);
    end(&l);
}

CASE(from_session_to_session)
{
    static const char *const edits[] = {"same/b.o", "edited/b.o", "grown/b.o", "same/b.o"};
    static const int statuses[] = {0, 1, 2, 0};
    char *state = NULL;
    size_t length = 0;
    for (int i = 0; i < 4; i++) {
        struct live l;
        const void *data = NULL;
        CHECK(begin(&l, NULL, "sessions.out"));
        CHECK(edit(&l, edits[i]) == KLD_OK);
        CHECK(kld_set_prior_state(l.s, state, length) == KLD_OK);
        free(state);
        check_link(&l, i ? KLD_OUTCOME_PATCHED : KLD_OUTCOME_FULL, statuses[i]);
        CHECK(kld_serialize_state(l.s, &data, &length) == KLD_OK && data);
        state = malloc(length);
        memcpy(state, data, length);
        end(&l);
    }
    free(state);
}

CASE(inputs_are_files)
{
    struct bytes same_b = read_file("same/b.o"), edited = read_file("edited/b.o");
    kld_input a = {.size = sizeof(a), .name = "a.o"}, b = {.size = sizeof(b), .name = "live_b.o"};
    struct live l = {.s = kld_new(NULL), .output = "live_files.out"};
    CHECK(kld_set(l.s, "output", l.output) == KLD_OK);
    CHECK(kld_set(l.s, "incremental", "1") == KLD_OK);
    CHECK(kld_add_input(l.s, &a) == KLD_OK && kld_add_input_handle(l.s, &b, &l.b) == KLD_OK);
    write_file("live_b.o", same_b.data, same_b.size);
    check_link(&l, KLD_OUTCOME_FULL, 0);
    write_file("live_b.o", edited.data, edited.size);
    check_link(&l, KLD_OUTCOME_PATCHED, 1);
    b.name = "grown/b.o"; /* in the place of the other */
    CHECK(kld_replace_input(l.s, l.b, &b) == KLD_OK);
    check_link(&l, KLD_OUTCOME_PATCHED, 2);
    CHECK(kld_add_input(l.s, &(kld_input){.size = sizeof(kld_input), .name = "live_b.o"}) ==
          KLD_OK);
    CHECK(kld_remove_input(l.s, l.b) == KLD_OK); /* and now at another place */
    CHECK(kld_set(l.s, "z-now", "1") == KLD_OK); /* and another command line */
    check_link(&l, KLD_OUTCOME_FELL_BACK_FULL, 1);
    kld_free(l.s);
    free(same_b.data);
    free(edited.data);
}

/* Members of an archive, and an archive that is given twice: the same bytes are two inputs. */
CASE(archives_in_memory)
{
    for (int twice = 0; twice < 2; twice++) {
        struct bytes a = read_file("a.o"), lib = read_file("lib.a"), other = read_file("lib2.a");
        kld_input in_a = in_memory("a", a), in_lib = in_memory("lib", lib);
        struct live l = {.s = kld_new(NULL)};
        CHECK(kld_set(l.s, "output-memory", "1") == KLD_OK);
        CHECK(kld_set(l.s, "incremental", "1") == KLD_OK);
        CHECK(kld_add_input(l.s, &in_a) == KLD_OK);
        CHECK(kld_add_input_handle(l.s, &in_lib, &l.b) == KLD_OK);
        CHECK(!twice || kld_add_input(l.s, &in_lib) == KLD_OK);
        check_link(&l, KLD_OUTCOME_FULL, 0);
        check_link(&l, KLD_OUTCOME_PATCHED, 0);
        in_lib = in_memory("lib", other);
        CHECK(kld_replace_input(l.s, l.b, &in_lib) == KLD_OK);
        check_link(&l, twice ? KLD_OUTCOME_FELL_BACK_FULL : KLD_OUTCOME_PATCHED, 1);
        verify(&l);
        kld_free(l.s);
        free(a.data);
        free(lib.data);
        free(other.data);
    }
}

/* The host has the files. */
struct files {
    struct bytes a, b;
    int opened, closed;
};

static bool open_one(void *context, const char *path, const void **data, size_t *length)
{
    struct files *f = context;
    const struct bytes *b = strcmp(path, "/host/a.o") == 0   ? &f->a
                            : strcmp(path, "/host/b.o") == 0 ? &f->b
                                                             : NULL;
    errno = ENOENT;
    if (!b)
        return false;
    *data = b->data;
    *length = b->size;
    f->opened++;
    return true;
}

static void close_one(void *context, const char *path, const void *data, size_t length)
{
    struct files *f = context;
    (void)path, (void)data, (void)length;
    f->closed++;
}

CASE(files_of_the_host)
{
    struct files f = {.a = read_file("a.o"), .b = read_file("same/b.o")};
    kld_host host = {
        .size = sizeof(host), .context = &f, .open_file = open_one, .close_file = close_one};
    kld_input a = {.size = sizeof(a), .name = "/host/a.o"};
    kld_input b = {.size = sizeof(b), .name = "/host/b.o"};
    struct live l = {.s = kld_new(&host), .output = "host_files.out"};
    CHECK(kld_set(l.s, "output", l.output) == KLD_OK);
    CHECK(kld_set(l.s, "incremental", "1") == KLD_OK);
    CHECK(kld_add_input(l.s, &a) == KLD_OK && kld_add_input(l.s, &b) == KLD_OK);
    check_link(&l, KLD_OUTCOME_FULL, 0);
    check_link(&l, KLD_OUTCOME_PATCHED, 0);
    free(f.b.data);
    f.b = read_file("edited/b.o");
    check_link(&l, KLD_OUTCOME_PATCHED, 1);
    verify(&l);
    kld_free(l.s);
    CHECK(f.opened && f.opened == f.closed);
    free(f.a.data);
    free(f.b.data);
}

CASE(inputs_come_and_go)
{
    struct counts counts = {0};
    kld_host host = counting_host(&counts);
    struct live l;
    CHECK(begin(&l, &host, "come_and_go.out"));
    check_link(&l, KLD_OUTCOME_FULL, 0);
    CHECK(kld_remove_input(l.s, l.b) == KLD_OK);
    CHECK(kld_remove_input(l.s, l.b) == KLD_MISUSE);
    CHECK(edit(&l, "edited/b.o") == KLD_MISUSE);
    CHECK(kld_link(l.s) == KLD_FAILED);
    CHECK(counts.errors == 1 && strstr(counts.messages, "undefined-symbol"));
    CHECK(kld_get_outcome(l.s, NULL) == KLD_OUTCOME_NONE);
    CHECK(status_of("come_and_go.out") == 0); /* the last good one */
    kld_input b = in_memory("b", l.b_bytes);
    kld_input_handle old = l.b;
    CHECK(kld_add_input_handle(l.s, &b, &l.b) == KLD_OK && l.b != old);
    check_link(&l, KLD_OUTCOME_PATCHED, 1); /* the failed link has changed nothing */
    CHECK(edit(&l, "same/b.o") == KLD_OK);
    check_link(&l, KLD_OUTCOME_PATCHED, 0);
    /* Options are compared, too. */
    CHECK(kld_set(l.s, "gc-sections", "1") == KLD_OK);
    check_link(&l, KLD_OUTCOME_FELL_BACK_FULL, 0);
    check_link(&l, KLD_OUTCOME_PATCHED, 0);
    /* Another output has another state. */
    CHECK(kld_set(l.s, "output", l.output = "come_and_go2.out") == KLD_OK);
    check_link(&l, KLD_OUTCOME_FULL, 0);
    CHECK(access("come_and_go2.out.kldstate", F_OK) == 0);
    CHECK(kld_set(l.s, "incremental", "0") == KLD_OK);
    check_link(&l, KLD_OUTCOME_FULL, 0);
    CHECK(counts.errors == 1);
    end(&l);
    CHECK(counts.live_blocks == 0);
}

/* An error before a link makes that one fail, and no other. */
CASE(errors_are_of_one_link)
{
    struct live l;
    CHECK(begin(&l, NULL, NULL));
    CHECK(kld_set(l.s, "no-such-option", "1") == KLD_FAILED);
    CHECK(kld_link(l.s) == KLD_FAILED);
    check_link(&l, KLD_OUTCOME_FULL, 0);
    CHECK(kld_report(l.s, KLD_ERROR, "mine", "of the host") == KLD_OK);
    CHECK(kld_resolve(l.s) == KLD_FAILED);
    CHECK(kld_emit(l.s) == KLD_MISUSE);
    check_link(&l, KLD_OUTCOME_PATCHED, 0);
    end(&l);
}

CASE(in_two_steps)
{
    struct live l;
    const void *data;
    size_t size;
    CHECK(begin(&l, NULL, "two_steps.out"));
    unlink(l.output);
    CHECK(kld_resolve(l.s) == KLD_OK);
    CHECK(access(l.output, F_OK) != 0);
    CHECK(kld_get_outcome(l.s, NULL) == KLD_OUTCOME_NONE);
    CHECK(kld_serialize_state(l.s, &data, &size) == KLD_MISUSE);
    CHECK(kld_emit(l.s) == KLD_OK);
    CHECK(status_of(l.output) == 0);
    CHECK(edit(&l, "edited/b.o") == KLD_OK);
    CHECK(kld_resolve(l.s) == KLD_OK);
    CHECK(kld_output(l.s, &data, &size) == KLD_MISUSE);
    struct bytes before = read_file(l.output);
    CHECK(edit(&l, "grown/b.o") == KLD_OK); /* not what was resolved */
    CHECK(kld_emit(l.s) == KLD_MISUSE);
    CHECK(kld_resolve(l.s) == KLD_OK);
    CHECK(kld_resolve(l.s) == KLD_OK);
    struct bytes after = read_file(l.output);
    CHECK(same(before.data, before.size, after));
    CHECK(kld_emit(l.s) == KLD_OK);
    CHECK(kld_get_outcome(l.s, NULL) == KLD_OUTCOME_PATCHED);
    CHECK(kld_emit(l.s) == KLD_MISUSE);
    CHECK(status_of(l.output) == 2);
    CHECK(kld_resolve(l.s) == KLD_OK);
    check_link(&l, KLD_OUTCOME_PATCHED, 2);
    CHECK(kld_resolve(l.s) == KLD_OK); /* freed in between */
    free(before.data);
    free(after.data);
    end(&l);
    CHECK(status_of("two_steps.out") == 2);
}

CASE(misuse_is_told)
{
    struct live l;
    kld_input_handle handle = 5;
    CHECK(begin(&l, NULL, NULL));
    kld_input in = in_memory("x", l.b_bytes), unnamed = in;
    unnamed.name = NULL;
    CHECK(kld_add_input_handle(NULL, &in, &handle) == KLD_MISUSE);
    CHECK(kld_add_input_handle(l.s, NULL, &handle) == KLD_MISUSE);
    CHECK(kld_add_input_handle(l.s, &in, NULL) == KLD_MISUSE);
    CHECK(kld_add_input_handle(l.s, &unnamed, &handle) == KLD_MISUSE && handle == 5);
    CHECK(kld_replace_input(NULL, l.b, &in) == KLD_MISUSE);
    CHECK(kld_replace_input(l.s, 0, &in) == KLD_MISUSE);
    CHECK(kld_replace_input(l.s, 99, &in) == KLD_MISUSE);
    CHECK(kld_replace_input(l.s, l.b, NULL) == KLD_MISUSE);
    CHECK(kld_replace_input(l.s, l.b, &unnamed) == KLD_MISUSE);
    CHECK(kld_remove_input(NULL, l.b) == KLD_MISUSE);
    CHECK(kld_remove_input(l.s, 0) == KLD_MISUSE);
    CHECK(kld_remove_input(l.s, 99) == KLD_MISUSE);
    CHECK(kld_resolve(NULL) == KLD_MISUSE);
    CHECK(kld_emit(NULL) == KLD_MISUSE);
    CHECK(kld_emit(l.s) == KLD_MISUSE);
    check_link(&l, KLD_OUTCOME_FULL, 0);
    end(&l);
}

/* A callback may not change what is being linked. */
struct meddler {
    kld_session *s;
    int calls;
};

static void meddle(void *context, const kld_message *message)
{
    struct meddler *m = context;
    kld_input in = {.size = sizeof(in), .name = "a.o"};
    kld_input_handle handle;
    (void)message;
    m->calls++;
    CHECK(kld_set(m->s, "output", "x") == KLD_MISUSE);
    CHECK(kld_add_input_handle(m->s, &in, &handle) == KLD_MISUSE);
    CHECK(kld_replace_input(m->s, 1, &in) == KLD_MISUSE);
    CHECK(kld_remove_input(m->s, 1) == KLD_MISUSE);
    CHECK(kld_set_prior_state(m->s, NULL, 0) == KLD_MISUSE);
    CHECK(kld_link(m->s) == KLD_MISUSE);
    CHECK(kld_resolve(m->s) == KLD_MISUSE);
    CHECK(kld_emit(m->s) == KLD_MISUSE);
}

CASE(callbacks_change_nothing)
{
    struct meddler m = {0};
    struct live l;
    kld_host host = {.size = sizeof(host), .context = &m, .message = meddle};
    CHECK(begin(&l, &host, NULL));
    m.s = l.s;
    CHECK(kld_set(l.s, "trace", "1") == KLD_OK);
    CHECK(kld_link(l.s) == KLD_OK);
    CHECK(m.calls);
    end(&l);
}

/* ---- memory ---- */

/* Two links and an edit between them; how many allocations there are in all of it. */
static void edit_without_memory(struct counts *counts, const char *output)
{
    kld_host host = counting_host(counts);
    struct live l = {0};
    bool good = begin(&l, &host, output);
    good = good && kld_link(l.s) == KLD_OK && edit(&l, "edited/b.o") == KLD_OK;
    good = good && kld_resolve(l.s) == KLD_OK && kld_emit(l.s) == KLD_OK;
    if (good && output)
        CHECK(status_of(output) == 1);
    if (!good && l.s && counts->fail_to == SIZE_MAX) {
        kld_input in = {.size = sizeof(in), .name = "a.o"};
        CHECK(kld_link(l.s) == KLD_NO_MEMORY);
        CHECK(kld_resolve(l.s) == KLD_NO_MEMORY);
        CHECK(kld_replace_input(l.s, l.a, &in) == (l.a ? KLD_NO_MEMORY : KLD_MISUSE));
        CHECK(kld_remove_input(l.s, l.a) == (l.a ? KLD_NO_MEMORY : KLD_MISUSE));
    }
    CHECK(good || counts->fail_from);
    end(&l);
    CHECK(counts->live_blocks == 0 && counts->live_bytes == 0);
}

CASE(memory_runs_out)
{
    for (int in_file = 0; in_file < 2; in_file++) {
        const char *output = in_file ? "no_memory.out" : NULL;
        struct counts all = {0};
        unlink("no_memory.out");
        unlink("no_memory.out.kldstate");
        edit_without_memory(&all, output);
        for (size_t n = 1; n <= all.allocations; n++) {
            struct counts one = {.fail_from = n, .fail_to = n + 1};
            struct counts rest = {.fail_from = n, .fail_to = SIZE_MAX};
            edit_without_memory(&one, output);
            edit_without_memory(&rest, output);
        }
    }
}

/* ---- many ---- */

enum { AT_ONCE = 16 };

struct job {
    int number;
    struct bytes first, last;
};

static void *run_job(void *arg)
{
    struct job *job = arg;
    char output[40];
    snprintf(output, sizeof(output), "at_once_%d.out", job->number);
    struct live l;
    CHECK(begin(&l, NULL, job->number % 2 ? output : NULL));
    for (int i = 0; i < 10; i++) {
        static const char *const edits[] = {"same/b.o", "edited/b.o", "grown/b.o", "edited/b.o"};
        const void *data = NULL;
        size_t size;
        CHECK(edit(&l, edits[i % 4]) == KLD_OK);
        CHECK(kld_link(l.s) == KLD_OK);
        CHECK(kld_get_outcome(l.s, NULL) == (i ? KLD_OUTCOME_PATCHED : KLD_OUTCOME_FULL));
        if (kld_output(l.s, &data, &size) == KLD_OK)
            write_file(output, data, size);
        struct bytes made = read_file(output);
        free(i ? job->last.data : NULL);
        *(i ? &job->last : &job->first) = made;
    }
    end(&l);
    return NULL;
}

CASE(sixteen_sessions_at_once)
{
    struct job jobs[AT_ONCE];
    pthread_t ids[AT_ONCE];
    for (int i = 0; i < AT_ONCE; i++) {
        jobs[i] = (struct job){.number = i};
        CHECK(pthread_create(&ids[i], NULL, run_job, &jobs[i]) == 0);
    }
    for (int i = 0; i < AT_ONCE; i++)
        pthread_join(ids[i], NULL);
    for (int i = 0; i < AT_ONCE; i++) {
        CHECK(same(jobs[i].first.data, jobs[i].first.size, jobs[0].first));
        CHECK(same(jobs[i].last.data, jobs[i].last.size, jobs[0].last));
    }
    for (int i = 0; i < AT_ONCE; i++) {
        free(jobs[i].first.data);
        free(jobs[i].last.data);
    }
}
