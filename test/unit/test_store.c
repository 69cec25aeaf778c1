/* Where the state of incremental links is kept: in a file, in memory. */
#define _GNU_SOURCE
#include "src/incremental/store.h"
#include <sys/file.h>
#include <sys/resource.h>
#include "unit.h"
#include "unit_files.h"

static char announced[256];

static void note_temporary(KLD_UNUSED void *context, const char *path)
{
    snprintf(announced, sizeof(announced), "%s", path ? path : "");
}

static kld_session *new_session(void)
{
    const kld_host host = {.size = sizeof(host), .temporary_file = note_temporary};
    kld_session *s = kld_new(&host);
    if (!s || setjmp(s->oom))
        exit(1);
    return s;
}

/* What open gives. */
struct opened {
    bool ok, busy;
    char *data;
    size_t length;
};

static struct opened open_store(const kld_state_store *store)
{
    struct opened o = {0};
    void *data = NULL;
    o.ok = store->open(store->context, &data, &o.length, &o.busy);
    o.data = data;
    return o;
}

static void check_state(const kld_state_store *store, const char *expected)
{
    struct opened o = open_store(store);
    CHECK(o.ok == (expected != NULL));
    CHECK(!o.busy);
    if (o.ok && expected) {
        CHECK_INT(o.length, strlen(expected));
        CHECK(memcmp(o.data, expected, KLD_MIN(o.length, strlen(expected))) == 0);
    }
    store->close(store->context);
}

static bool replace(const kld_state_store *store, const char *text)
{
    return store->replace(store->context, text, strlen(text));
}

static bool update(const kld_state_store *store, uint64_t offset, const char *text)
{
    return store->update(store->context, offset, text, strlen(text));
}

/* What holds of any store. */
static void check_store(const kld_state_store *store)
{
    CHECK_INT(store->size, sizeof(*store));
    check_state(store, NULL);
    CHECK(replace(store, "0123456789"));
    store->close(store->context);
    check_state(store, "0123456789");
    struct opened o = open_store(store);
    CHECK(o.ok && o.length == 10);
    o.data[0] = 'x'; /* seen by nobody else */
    CHECK(update(store, 2, "ab"));
    CHECK(update(store, 9, "defg"));
    CHECK(update(store, 0, ""));
    CHECK(!update(store, UINT64_MAX, "ab"));
    CHECK(!update(store, INT64_MAX, "ab"));
    CHECK(o.data[0] == 'x' && o.data[9] == '9');
    store->close(store->context);
    check_state(store, "01ab45678defg");
    /* Replaced while it is open: what was given stays. */
    o = open_store(store);
    CHECK(o.ok && replace(store, "new"));
    CHECK(memcmp(o.data, "01ab45678defg", 13) == 0);
    CHECK(update(store, 0, "N"));
    CHECK(update(store, 5, "!"));
    store->close(store->context);
    o = open_store(store);
    CHECK(o.ok && o.length == 6 && memcmp(o.data, "New\0\0!", 6) == 0);
    store->discard(store->context);
    store->close(store->context);
    check_state(store, NULL);
    store->discard(store->context);
    store->close(store->context);
    CHECK(replace(store, ""));
    store->close(store->context);
    check_state(store, NULL);
}

CASE(store_in_memory)
{
    kld_session *s = new_session();
    kld_state_store store = kld_memory_store(s);
    check_store(&store);
    char *large = unit_repeat(arena, "large ", 1000000);
    CHECK(replace(&store, large));
    check_state(&store, large);
    CHECK(open_store(&store).ok);
    kld_free(s);
}

CASE(store_in_a_file)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session();
    kld_state_store store = kld_file_store(s, "app.kldstate");
    check_store(&store);
    CHECK_INT(unit_temporaries(), 0);
    CHECK_TEXT(announced, "");
    CHECK(!update(&store, 0, "x") && errno == EBADF); /* not open */
    kld_free(s);
}

CASE(store_choice)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session();
    CHECK_TEXT(kld_state_path(s), "a.out.kldstate");
    kld_set(s, "output", "bin/app");
    CHECK_TEXT(kld_state_path(s), "bin/app.kldstate");
    kld_set(s, "incremental-state", "elsewhere/x");
    CHECK_TEXT(kld_state_path(s), "elsewhere/x");
    kld_free(s);

    s = new_session();
    CHECK(replace(kld_store(s), "state"));
    CHECK(kld_store(s) == kld_store(s));
    kld_free(s); /* closes it */
    CHECK_TEXT(unit_text("a.out.kldstate"), "state");
    s = new_session();
    CHECK_INT(kld_store_read(s)->length, 5);
    CHECK(memcmp(kld_store_read(s)->data, "state", 5) == 0);
    kld_free(s);

    s = new_session();
    kld_set(s, "output-memory", "1");
    CHECK_INT(kld_store_read(s)->length, 0);
    CHECK(replace(kld_store(s), "other"));
    CHECK_INT(kld_store_read(s)->length, 5);
    kld_free(s);
    CHECK_TEXT(unit_text("a.out.kldstate"), "state");
}

CASE(store_of_what_is_no_file)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session();
    mkdir("dir", 0755);
    CHECK(mkfifo("fifo", 0644) == 0 && symlink("loop", "loop") == 0);
    static const char *const none[] = {"dir", "fifo", "loop", "/dev/null", "gone/state"};
    for (size_t i = 0; i < KLD_COUNT(none); i++) {
        kld_state_store store = kld_file_store(s, none[i]);
        check_state(&store, NULL);
        CHECK(!replace(&store, "x") && errno != 0);
        store.discard(store.context);
        CHECK((access(none[i], F_OK) == 0) == (i != 2 && i != 4));
    }
    kld_state_store store = kld_file_store(s, "dir");
    CHECK(!replace(&store, "x") && errno == EISDIR);
    CHECK_INT(unit_temporaries(), 0);
    kld_free(s);
}

CASE(store_through_symbolic_links)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session();
    struct stat st;
    mkdir("real", 0755);
    CHECK(symlink("real/state", "state") == 0);
    kld_state_store store = kld_file_store(s, "state");
    check_store(&store);
    CHECK(replace(&store, "text"));
    CHECK_TEXT(unit_text("real/state"), "text");
    CHECK(lstat("state", &st) == 0 && S_ISLNK(st.st_mode));
    kld_free(s);
}

/* ---- two links at once ---- */

static bool hold_store(void *arg)
{
    kld_session *s = new_session();
    kld_state_store store = kld_file_store(s, arg);
    return open_store(&store).ok;
}

static bool hold_replaced(void *arg)
{
    kld_session *s = new_session();
    kld_state_store store = kld_file_store(s, arg);
    return replace(&store, "theirs");
}

CASE(store_busy)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session();
    kld_state_store store = kld_file_store(s, "state");
    bool (*const holds[])(void *) = {hold_store, hold_replaced};
    for (size_t i = 0; i < KLD_COUNT(holds); i++) {
        unit_put("state", "first");
        struct unit_holder h = unit_hold(holds[i], "state");
        struct opened o = open_store(&store);
        CHECK(!o.ok && o.busy);
        store.close(store.context);
        CHECK(replace(&store, "ours")); /* the one who comes second has linked fully */
        check_state(&store, "ours");
        unit_let_go(&h);
        check_state(&store, "ours");
    }
    kld_free(s);
}

/* Sessions of one process; the first goes on with a file that has no name any more. */
CASE(store_replaced_by_another)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session(), *t = new_session();
    kld_state_store first = kld_file_store(s, "state"), second = kld_file_store(t, "state");
    CHECK(replace(&first, "first"));
    struct opened o = open_store(&second);
    CHECK(!o.ok && o.busy);
    second.close(second.context);
    CHECK(replace(&second, "second"));
    CHECK(update(&first, 0, "FIRST"));
    first.discard(first.context); /* its own, which has no name */
    first.close(first.context);
    second.close(second.context);
    check_state(&first, "second");
    kld_free(s);
    kld_free(t);
}

/* Between a reader's open and its flock the file is replaced, again and again: what it gets is whole
 * and has its name. */
CASE(store_replaced_all_the_time)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session();
    kld_state_store store = kld_file_store(s, "state");
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        kld_session *t = new_session();
        store = kld_file_store(t, "state");
        for (int i = 0; i < 2000; i++) {
            if (!replace(&store, i % 2 ? "odd state" : "even state that is longer"))
                _exit(1);
            store.close(store.context);
        }
        _exit(0);
    }
    int opened = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        struct opened o = open_store(&store);
        if (o.ok) {
            opened++;
            CHECK(o.length == 9 || o.length == 25);
            CHECK(memcmp(o.data, o.length == 9 ? "odd state" : "even state that is longer",
                         o.length) == 0);
            store.discard(store.context);
        }
        store.close(store.context);
    }
    CHECK(opened > 0);
    CHECK_INT(status, 0);
    CHECK_INT(unit_temporaries(), 0);
    kld_free(s);
}

/* Whoever reads what is gone gets a bus error, which the command reports; all else goes on. */
CASE(store_cut_short_while_open)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session();
    kld_state_store store = kld_file_store(s, "state");
    CHECK(replace(&store, unit_repeat(arena, "0123456789abcdef", 4096)));
    store.close(store.context);
    struct opened o = open_store(&store);
    CHECK(o.ok && o.length == 65536);
    CHECK(truncate("state", 5000) == 0);
    CHECK(o.data[0] == '0' && o.data[4999] == '7');
    CHECK(update(&store, 0, "y"));
    CHECK(replace(&store, "new"));
    store.close(store.context);
    check_state(&store, "new");
    kld_free(s);
}

/* ---- disks ---- */

CASE(store_file_size_limit)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session();
    kld_state_store store = kld_file_store(s, "state");
    signal(SIGXFSZ, SIG_IGN);
    CHECK(replace(&store, "0123"));
    struct rlimit limit = {8, RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHECK(update(&store, 4, "4567"));
    CHECK(!update(&store, 8, "8") && errno == EFBIG);
    CHECK(!replace(&store, "0123456789") && errno == EFBIG);
    CHECK_TEXT(unit_text("state"), "01234567");
    store.discard(store.context);
    CHECK(access("state", F_OK) != 0);
    CHECK_INT(unit_temporaries(), 0);
    CHECK_TEXT(announced, "");
    kld_free(s);
}

CASE(store_full_disk)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session();
    if (!unit_may_mount() || !unit_mount_tmpfs("small", "size=64k"))
        return unit_skip("cannot mount");
    kld_state_store store = kld_file_store(s, "small/state");
    CHECK(replace(&store, "old"));
    CHECK(!replace(&store, unit_repeat(arena, "0123456789abcdef", 8192)) && errno == ENOSPC);
    CHECK(!store.update(store.context, 3, unit_repeat(arena, "x", 100000), 100000));
    CHECK_INT(errno, ENOSPC);
    store.discard(store.context);
    CHECK(access("small/state", F_OK) != 0);
    CHECK(chdir("small") == 0);
    CHECK_INT(unit_temporaries(), 0);
    kld_free(s);
}

CASE(store_read_only)
{
    unit_enter_folder(NULL);
    kld_session *s = new_session();
    if (unit_may_mount() && unit_mount_tmpfs("ro", NULL)) {
        kld_state_store store = kld_file_store(s, "ro/state");
        CHECK(replace(&store, "old"));
        store.close(store.context);
        CHECK(unit_make_read_only("ro"));
        check_state(&store, NULL);
        CHECK(!replace(&store, "new") && errno == EROFS);
        store.discard(store.context);
        CHECK_TEXT(unit_text("ro/state"), "old");
    }
    if (!unit_give_up_root())
        return unit_skip("the rest: permissions do not bind root");
    mkdir("dir", 0755);
    kld_state_store store = kld_file_store(s, "dir/state");
    CHECK(replace(&store, "old"));
    store.close(store.context);
    chmod("dir/state", 0444);
    check_state(&store, NULL);
    CHECK(replace(&store, "new")); /* the folder allows it */
    chmod("dir", 0555);
    CHECK(!replace(&store, "newer") && errno == EACCES);
    store.close(store.context);
    check_state(&store, "new"); /* can be changed in place, though */
    chmod("dir", 0755);
    kld_free(s);
}
