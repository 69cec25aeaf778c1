/* An output that is patched in place, or in a copy, and everybody else who may have it. */
#define _GNU_SOURCE
#include "src/incremental/update.h"
#include <dlfcn.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include "unit.h"
#include "unit_files.h"

/* ---- a session that notes which temporary file it announced ---- */

static char announced[256];
static int announcements;

static void note_temporary(KLD_UNUSED void *context, const char *path)
{
    snprintf(announced, sizeof(announced), "%s", path ? path : "");
    announcements++;
}

static kld_session *new_session(void)
{
    const kld_host host = {.size = sizeof(host), .temporary_file = note_temporary};
    kld_session *s = kld_new(&host);
    if (!s || setjmp(s->oom))
        exit(1);
    return s;
}

/* Whether this file system lets it be known who has a file. */
static bool can_know(kld_session *s)
{
    struct kld_update u;
    unit_put("probe", "x");
    bool can = kld_update_open(s, "probe", &u) == KLD_UPDATE_OK;
    kld_update_close(s, &u);
    unlink("probe");
    if (!can)
        unit_skip("no leases here");
    return can;
}

static kld_session *prepare(const char *parent)
{
    unit_enter_folder(parent);
    unit_put("app", "0123456789");
    return new_session();
}

static enum kld_update_problem problem_with(kld_session *s, const char *path)
{
    struct kld_update u;
    enum kld_update_problem problem = kld_update_open(s, path, &u);
    kld_update_close(s, &u);
    return problem;
}

/* ---- the protocol ---- */

static void patch(kld_session *s, bool copy)
{
    struct kld_update u;
    struct kld_identity before, after;
    CHECK(kld_identify(s, "app", &before));
    CHECK(chmod("app", 0751) == 0 && kld_identify(s, "app", &before));
    int seen = open("app", O_RDONLY); /* by whom a copy is needed */
    if (!copy)
        close(seen);
    CHECK_INT((copy ? kld_update_open_copy : kld_update_open)(s, "app", &u), KLD_UPDATE_OK);
    CHECK(kld_same_identity(&before, &u.id));
    CHECK_INT(u.size, 10);
    CHECK(memcmp(u.bytes, "0123456789", 10) == 0);
    const uint8_t *bytes = u.bytes;
    CHECK_TEXT(u.hidden, NULL);
    CHECK(!kld_update_write(s, &u, 0, "x", 1)); /* not started */
    CHECK(kld_update_start(s, &u));
    CHECK_TEXT(announced, u.hidden);
    CHECK(strncmp(u.hidden, ".kld-", 5) == 0);
    CHECK((access("app", F_OK) == 0) == copy);
    CHECK(kld_update_write(s, &u, 3, "xyz", 3));
    CHECK(kld_update_write(s, &u, 10, "", 0));
    CHECK(!kld_update_write(s, &u, 9, "xy", 2));
    CHECK(u.bytes == bytes && memcmp(u.bytes, "012xyz6789", 10) == 0);
    CHECK(kld_update_commit(s, &u));
    CHECK_TEXT(announced, "");
    CHECK_TEXT(unit_text("app"), "012xyz6789");
    CHECK(kld_identify(s, "app", &after) && kld_same_identity(&after, &u.id));
    CHECK((after.inode == before.inode) == !copy);
    CHECK(!kld_same_identity(&before, &after));
    struct stat st;
    CHECK(stat("app", &st) == 0);
    CHECK_INT(st.st_mode & 07777, 0751);
    kld_update_close(s, &u);
    kld_update_close(s, &u);
    CHECK_TEXT(unit_text("app"), "012xyz6789");
    CHECK_INT(unit_temporaries(), 0);
    if (copy) {
        char text[10];
        CHECK(read(seen, text, 10) == 10 && memcmp(text, "0123456789", 10) == 0);
        close(seen);
    }
    kld_free(s);
}

CASE(update_in_place)
{
    kld_session *s = prepare(NULL);
    if (can_know(s))
        patch(s, false);
}

CASE(update_in_place_in_memory)
{
    if (access("/dev/shm", W_OK) != 0)
        return unit_skip("no /dev/shm");
    kld_session *s = prepare("/dev/shm");
    if (can_know(s))
        patch(s, false);
}

CASE(update_of_a_copy)
{
    patch(prepare(NULL), true);
}

CASE(update_dropped_before_it_starts)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    struct kld_identity before, after;
    kld_identify(s, "app", &before);
    CHECK_INT(kld_update_open_copy(s, "app", &u), KLD_UPDATE_OK);
    kld_update_close(s, &u);
    if (can_know(s))
        CHECK_INT(problem_with(s, "app"), KLD_UPDATE_OK);
    CHECK(kld_identify(s, "app", &after) && kld_same_identity(&before, &after));
    kld_update_close(s, &(struct kld_update){0});
    kld_free(s);
}

CASE(update_dropped_half_way)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    CHECK_INT(kld_update_open_copy(s, "app", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u) && kld_update_write(s, &u, 0, "x", 1));
    kld_update_close(s, &u);
    CHECK_TEXT(unit_text("app"), "0123456789");
    if (can_know(s)) {
        CHECK_INT(kld_update_open(s, "app", &u), KLD_UPDATE_OK);
        CHECK(kld_update_start(s, &u) && kld_update_write(s, &u, 0, "x", 1));
        kld_update_close(s, &u);
        CHECK(access("app", F_OK) != 0);
    }
    CHECK_INT(unit_temporaries(), 0);
    CHECK_TEXT(announced, "");
    kld_free(s);
}

/* The names that are there already, of whatever died, stay. */
CASE(update_hidden_names_are_not_taken_twice)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    char name[40];
    if (!can_know(s))
        return;
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), ".kld-%ld-%d", (long)getpid(), i);
        unit_put(name, "old");
    }
    CHECK_INT(kld_update_open(s, "app", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u));
    CHECK(strstr(u.hidden, "-3"));
    CHECK(kld_update_commit(s, &u));
    kld_update_close(s, &u);
    CHECK_INT(unit_temporaries(), 3);
    CHECK_TEXT(unit_text(name), "old");
    kld_free(s);
}

CASE(update_of_what_is_no_file)
{
    kld_session *s = prepare(NULL);
    struct kld_identity id;
    mkdir("dir", 0755);
    CHECK(mkfifo("fifo", 0644) == 0);
    unit_put("empty", "");
    CHECK(symlink("loop", "loop") == 0 && symlink("nowhere", "dangling") == 0);
    static const char *const none[] = {"gone", "dir",      "fifo",      "empty",
                                       "loop", "dangling", "/dev/null", "app/app"};
    for (size_t i = 0; i < KLD_COUNT(none); i++) {
        struct kld_update u;
        CHECK_INT(problem_with(s, none[i]), KLD_UPDATE_MISSING);
        CHECK_INT(kld_update_open_copy(s, none[i], &u), KLD_UPDATE_MISSING);
        CHECK_INT(u.fd, -1);
        CHECK(kld_identify(s, none[i], &id) == (strcmp(none[i], "empty") == 0));
    }
    CHECK(!kld_identify(s, "dir", &id) && errno == EINVAL);
    CHECK(!kld_identify(s, "gone", &id) && errno == ENOENT);
    kld_free(s);
}

CASE(update_through_symbolic_links)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    struct kld_identity a, b;
    mkdir("real", 0755);
    CHECK(rename("app", "real/app") == 0 && symlink("real/app", "second") == 0 &&
          symlink("second", "app") == 0);
    CHECK(kld_identify(s, "app", &a) && kld_identify(s, "real/app", &b));
    CHECK(kld_same_identity(&a, &b));
    CHECK_INT(kld_update_open_copy(s, "app", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u));
    CHECK(strncmp(u.hidden, "real/.kld-", 10) == 0);
    CHECK(kld_update_write(s, &u, 0, "copy", 4) && kld_update_commit(s, &u));
    kld_update_close(s, &u);
    CHECK_TEXT(unit_text("real/app"), "copy456789");
    if (can_know(s)) {
        CHECK_INT(kld_update_open(s, "app", &u), KLD_UPDATE_OK);
        CHECK(kld_update_start(s, &u));
        CHECK(strncmp(u.hidden, "real/.kld-", 10) == 0);
        CHECK(kld_update_write(s, &u, 0, "here", 4) && kld_update_commit(s, &u));
        kld_update_close(s, &u);
        CHECK_TEXT(unit_text("real/app"), "here456789");
    }
    struct stat st;
    CHECK(lstat("app", &st) == 0 && S_ISLNK(st.st_mode));
    kld_free(s);
}

CASE(update_inputs_are_identified)
{
    kld_session *s = prepare(NULL);
    struct kld_identity a, b;
    char path[300];
    snprintf(path, sizeof(path), "%s/app", unit_folder);
    CHECK(kld_identify(s, "app", &a) && kld_identify_input(s, "app", &b));
    CHECK(kld_same_identity(&a, &b));
    s->options.chroot = unit_folder;
    CHECK(kld_identify_input(s, "/app", &b) && kld_same_identity(&a, &b));
    CHECK(!kld_identify_input(s, path, &b));
    kld_free(s);
}

CASE(update_knows_the_start_of_the_machine)
{
    char id[KLD_BOOT_ID_SIZE], again[KLD_BOOT_ID_SIZE];
    bool known = kld_boot_id(id);
    CHECK(kld_boot_id(again) == known);
    CHECK(memcmp(id, again, sizeof(id)) == 0);
    CHECK(known == (id[0] != 0));
}

/* ---- an output that is there under another name alone ---- */

static kld_session *prepare_kept(void)
{
    kld_session *s = prepare(NULL);
    mkdir("states", 0755);
    CHECK(rename("app", "states/kept") == 0);
    return s;
}

static void become_app(kld_session *s, struct kld_update *u, bool copy, const char *written)
{
    struct kld_identity kept, app;
    CHECK(kld_identify(s, "states/kept", &kept));
    CHECK_INT(kld_update_open_kept(s, "states/kept", "app", u), KLD_UPDATE_OK);
    CHECK(kld_same_identity(&kept, &u->id) && u->copy == copy);
    CHECK(kld_update_start(s, u));
    CHECK(strncmp(u->hidden, copy ? ".kld-" : "states/.kld-", copy ? 5 : 12) == 0);
    CHECK(access("app", F_OK) != 0 && (access("states/kept", F_OK) == 0) == copy);
    CHECK(kld_update_write(s, u, 0, written, strlen(written)) && kld_update_commit(s, u));
    CHECK(kld_identify(s, "app", &app) && kld_same_identity(&app, &u->id));
    CHECK((app.inode == kept.inode) == !copy);
    CHECK(app.mtime > kept.mtime);
    kld_update_close(s, u);
    CHECK_INT(unit_temporaries(), 0);
    CHECK_TEXT(announced, "");
}

CASE(update_of_a_kept_name)
{
    kld_session *s = prepare_kept();
    struct kld_update u;
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    if (!can_know(s))
        return;
    for (int i = 0; i < 2; i++) { /* also if nothing is written */
        CHECK(utimensat(AT_FDCWD, "states/kept", times, 0) == 0);
        become_app(s, &u, false, i ? "" : "here");
        CHECK_TEXT(unit_text("app"), "here456789");
        CHECK(access("states/kept", F_OK) != 0);
        CHECK(rename("app", "states/kept") == 0);
    }
    kld_free(s);
}

CASE(update_of_a_kept_name_that_is_not_the_only_one)
{
    kld_session *s = prepare_kept();
    struct kld_update u;
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    struct kld_identity before, after;
    CHECK(link("states/kept", "other") == 0);
    CHECK(utimensat(AT_FDCWD, "other", times, 0) == 0 && kld_identify(s, "other", &before));
    become_app(s, &u, true, "copy");
    CHECK_TEXT(unit_text("app"), "copy456789");
    CHECK_TEXT(unit_text("other"), "0123456789");
    CHECK_TEXT(unit_text("states/kept"), "0123456789");
    CHECK(kld_identify(s, "other", &after) && kld_same_identity(&before, &after));
    kld_free(s);
}

CASE(update_of_a_kept_name_dropped)
{
    kld_session *s = prepare_kept();
    struct kld_update u;
    for (int i = 0; i < 2; i++) {
        CHECK_INT(kld_update_open_kept(s, "states/kept", "app", &u), KLD_UPDATE_OK);
        kld_update_close(s, &u);
        CHECK(access("app", F_OK) != 0);
        CHECK_TEXT(unit_text("states/kept"), "0123456789");
        if (i == 0)
            CHECK(link("states/kept", "other") == 0);
    }
    CHECK_INT(kld_update_open_kept(s, "states/kept", "app", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u) && kld_update_write(s, &u, 0, "x", 1));
    kld_update_close(s, &u);
    CHECK(access("app", F_OK) != 0);
    CHECK_TEXT(unit_text("states/kept"), "0123456789");
    CHECK_INT(unit_temporaries(), 0);
    kld_free(s);
}

CASE(update_of_a_kept_name_that_is_no_file)
{
    kld_session *s = prepare_kept();
    struct kld_update u;
    CHECK(symlink("states/kept", "link") == 0 && mkfifo("fifo", 0644) == 0);
    static const char *const none[] = {"link", "fifo", "states", "gone", "/dev/null"};
    for (size_t i = 0; i < KLD_COUNT(none); i++) {
        CHECK_INT(kld_update_open_kept(s, none[i], "app", &u), KLD_UPDATE_MISSING);
        CHECK_INT(u.fd, -1);
    }
    kld_free(s);
}

/* ---- others who have it ---- */

static bool hold_open(void *arg)
{
    return open(arg, O_RDONLY) >= 0;
}

static bool hold_open_for_writing(void *arg)
{
    return open(arg, O_RDWR) >= 0;
}

static bool hold_mapping(void *arg)
{
    int fd = open(arg, O_RDONLY);
    void *at = mmap(NULL, 10, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    return at != MAP_FAILED;
}

static bool hold_library(void *arg)
{
    return dlopen(arg, RTLD_NOW | RTLD_LOCAL);
}

static bool hold_lock(void *arg)
{
    int fd = open(arg, O_RDONLY);
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static const struct {
    const char *what;
    bool (*hold)(void *arg);
} holders[] = {
    {"open", hold_open},
    {"open for writing", hold_open_for_writing},
    {"mapped", hold_mapping},
};

static void check_holders(const char *parent)
{
    kld_session *s = prepare(parent);
    if (!can_know(s))
        return;
    for (size_t i = 0; i < KLD_COUNT(holders); i++) {
        int failures = unit_failures;
        struct unit_holder h = unit_hold(holders[i].hold, "app");
        CHECK_INT(problem_with(s, "app"), KLD_UPDATE_IN_USE);
        rename("app", "moved");
        CHECK_INT(problem_with(s, "moved"), KLD_UPDATE_IN_USE);
        rename("moved", "app");
        unit_let_go(&h);
        CHECK_INT(problem_with(s, "app"), KLD_UPDATE_OK);
        if (failures != unit_failures)
            printf("  %s\n", holders[i].what);
    }
    kld_free(s);
}

CASE(update_in_use)
{
    check_holders(NULL);
}

CASE(update_in_use_in_memory)
{
    if (access("/dev/shm", W_OK) != 0)
        return unit_skip("no /dev/shm");
    check_holders("/dev/shm");
}

/* Between open and start. */
CASE(update_comes_into_use)
{
    kld_session *s = prepare(NULL);
    if (!can_know(s))
        return;
    for (size_t i = 0; i < KLD_COUNT(holders); i++) {
        struct kld_update u;
        CHECK_INT(kld_update_open(s, "app", &u), KLD_UPDATE_OK);
        struct unit_holder h = unit_hold(holders[i].hold, "app");
        CHECK(!kld_update_start(s, &u));
        CHECK_INT(u.problem, KLD_UPDATE_IN_USE);
        CHECK_TEXT(announced, "");
        unit_let_go(&h);
        kld_update_close(s, &u);
        CHECK_TEXT(unit_text("app"), "0123456789");
        CHECK_INT(unit_temporaries(), 0);
    }
    kld_free(s);
}

CASE(update_changes_before_it_starts)
{
    kld_session *s = prepare(NULL);
    bool can = can_know(s);
    for (int copy = can ? 0 : 1; copy < 2; copy++) {
        for (int how = 0; how < 4; how++) {
            struct kld_update u;
            int failures = unit_failures;
            unit_put("app", "0123456789");
            CHECK_INT((copy ? kld_update_open_copy : kld_update_open)(s, "app", &u), KLD_UPDATE_OK);
            usleep(10000); /* a step of the clock */
            if (how == 0) {
                unlink("app");
            } else if (how == 1) {
                unit_put("new", "abcdefghij");
                rename("new", "app");
            } else if (how == 2) {
                unit_put("app", "abcdefghij");
            } else {
                chmod("app", 0700);
            }
            CHECK(!kld_update_start(s, &u));
            CHECK_INT(u.problem, KLD_UPDATE_CHANGED);
            kld_update_close(s, &u);
            CHECK_TEXT(unit_text("app"), how == 0 ? NULL : how == 3 ? "0123456789" : "abcdefghij");
            CHECK_INT(unit_temporaries(), 0);
            if (failures != unit_failures)
                printf("  %d, copy %d\n", how, copy);
        }
    }
    kld_free(s);
}

/* cat, which is at work once it has given something back. */
static pid_t run_cat(const char *path, int *in)
{
    int to[2], from[2];
    char c = 'x';
    CHECK(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        execl(path, path, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    CHECK(write(to[1], &c, 1) == 1 && read(from[0], &c, 1) == 1);
    close(from[0]);
    *in = to[1];
    return pid;
}

CASE(update_of_what_runs)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    int in, status;
    if (!can_know(s))
        return;
    unit_copy("/bin/cat", "cat");
    CHECK_INT(problem_with(s, "cat"), KLD_UPDATE_OK);
    pid_t pid = run_cat("./cat", &in);
    CHECK_INT(problem_with(s, "cat"), KLD_UPDATE_IN_USE);
    rename("cat", "other");
    CHECK_INT(problem_with(s, "other"), KLD_UPDATE_IN_USE);
    CHECK_INT(kld_update_open_copy(s, "other", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u) && kld_update_write(s, &u, 0, "X", 1) &&
          kld_update_commit(s, &u));
    kld_update_close(s, &u);
    CHECK_INT(problem_with(s, "other"), KLD_UPDATE_OK); /* nobody runs that one */
    close(in);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    kld_free(s);
}

/* What has been committed can be executed although the session is still there. */
CASE(update_can_be_run_at_once)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    int in, status;
    bool can = can_know(s);
    unit_copy("/bin/cat", "cat");
    for (int copy = can ? 0 : 1; copy < 2; copy++) {
        CHECK_INT((copy ? kld_update_open_copy : kld_update_open)(s, "cat", &u), KLD_UPDATE_OK);
        CHECK(kld_update_start(s, &u) && kld_update_write(s, &u, 1, "E", 1) &&
              kld_update_commit(s, &u));
        pid_t pid = run_cat("./cat", &in);
        close(in);
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        kld_update_close(s, &u);
    }
    kld_free(s);
}

CASE(update_of_a_library_in_use)
{
    kld_session *s = prepare(NULL);
    Dl_info info;
    if (!can_know(s))
        return;
    if (!dladdr(dlsym(RTLD_DEFAULT, "zlibVersion"), &info) || !strstr(info.dli_fname, ".so"))
        return unit_skip("zlib is not a shared library here");
    unit_copy(info.dli_fname, "lib.so");
    CHECK_INT(problem_with(s, "lib.so"), KLD_UPDATE_OK);
    struct unit_holder h = unit_hold(hold_library, "./lib.so");
    CHECK_INT(problem_with(s, "lib.so"), KLD_UPDATE_IN_USE);
    unit_let_go(&h);
    CHECK_INT(problem_with(s, "lib.so"), KLD_UPDATE_OK);
    kld_free(s);
}

CASE(update_of_a_file_with_two_names)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    if (!can_know(s))
        return;
    CHECK(link("app", "kept") == 0);
    CHECK_INT(problem_with(s, "app"), KLD_UPDATE_IN_USE);
    unlink("kept");
    CHECK_INT(kld_update_open(s, "app", &u), KLD_UPDATE_OK);
    CHECK(link("app", "kept") == 0);
    CHECK(!kld_update_start(s, &u));
    kld_update_close(s, &u);
    CHECK_INT(kld_update_open_copy(s, "app", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u) && kld_update_write(s, &u, 0, "X", 1) &&
          kld_update_commit(s, &u));
    kld_update_close(s, &u);
    CHECK_TEXT(unit_text("kept"), "0123456789");
    CHECK_TEXT(unit_text("app"), "X123456789");
    kld_free(s);
}

CASE(update_by_two_links)
{
    kld_session *s = prepare(NULL), *other = new_session();
    struct kld_update u, v;
    struct unit_holder h = unit_hold(hold_lock, "app");
    CHECK_INT(problem_with(s, "app"), KLD_UPDATE_IN_USE);
    CHECK_INT(kld_update_open_copy(s, "app", &u), KLD_UPDATE_IN_USE);
    unit_let_go(&h);
    /* Two sessions of one process are others to one another, too. */
    CHECK_INT(kld_update_open_copy(s, "app", &u), KLD_UPDATE_OK);
    CHECK_INT(kld_update_open_copy(other, "app", &v), KLD_UPDATE_IN_USE);
    CHECK_INT(kld_update_open(other, "app", &v), KLD_UPDATE_IN_USE);
    kld_update_close(s, &u);
    CHECK_INT(kld_update_open_copy(other, "app", &v), KLD_UPDATE_OK);
    kld_update_close(other, &v);
    kld_free(s);
    kld_free(other);
}

/* An output of another link that took the name while this one was being patched is replaced. */
CASE(update_name_taken_meanwhile)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    if (!can_know(s))
        return;
    CHECK_INT(kld_update_open(s, "app", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u) && kld_update_write(s, &u, 0, "X", 1));
    unit_put("app", "other");
    CHECK(kld_update_commit(s, &u));
    kld_update_close(s, &u);
    CHECK_TEXT(unit_text("app"), "X123456789");
    kld_free(s);
}

/* ---- the lease ---- */

/* Who had looked the name up before it was taken away waits for the finished output; the signal that
 * this sends does not end the process. */
CASE(update_makes_others_wait)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    int status = 0;
    if (!can_know(s))
        return;
    CHECK(signal(SIGIO, SIG_DFL) != SIG_ERR && signal(SIGURG, SIG_DFL) != SIG_ERR);
    CHECK_INT(kld_update_open(s, "app", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u));
    CHECK(open(u.hidden, O_RDONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        close(u.fd); /* shares the parent's lock and lease */
        char text[10];
        int fd = open(u.hidden, O_RDONLY);
        _exit(read(fd, text, 10) == 10 && memcmp(text, "0123456xyz", 10) == 0 ? 0 : 1);
    }
    usleep(50000);
    CHECK(waitpid(pid, &status, WNOHANG) == 0); /* waits */
    CHECK(kld_update_write(s, &u, 7, "xyz", 3));
    usleep(50000);
    CHECK(kld_update_commit(s, &u));
    kld_update_close(s, &u);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    kld_free(s);
}

/* Links that read the output as an input of theirs meet the lease and wait as well. */
CASE(update_of_an_input_of_another_link)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    struct kld_bytes bytes;
    int status = 0;
    if (!can_know(s))
        return;
    CHECK_INT(kld_update_open(s, "app", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u));
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        kld_session *other = new_session();
        kld_io_init(other);
        close(u.fd);
        _exit(kld_io_open(other, u.hidden, &bytes) && memcmp(bytes.ptr, "X123456789", 10) == 0 ? 0
                                                                                               : 1);
    }
    usleep(50000);
    CHECK(kld_update_write(s, &u, 0, "X", 1));
    CHECK(kld_update_commit(s, &u));
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    kld_update_close(s, &u);
    kld_free(s);
}

/* Somebody opens the file all the time while it is asked who has it. */
CASE(update_asks_while_others_open)
{
    kld_session *s = prepare(NULL);
    if (!can_know(s))
        return;
    CHECK(signal(SIGIO, SIG_DFL) != SIG_ERR);
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            close(open("app", O_RDONLY));
    int ok = 0, in_use = 0;
    for (int i = 0; i < 20000; i++) {
        enum kld_update_problem problem = problem_with(s, "app");
        ok += problem == KLD_UPDATE_OK;
        in_use += problem == KLD_UPDATE_IN_USE;
    }
    CHECK_INT(ok + in_use, 20000);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    CHECK_INT(problem_with(s, "app"), KLD_UPDATE_OK);
    kld_free(s);
}

/* ---- kills, disks ---- */

CASE(update_killed_half_way)
{
    kld_session *s = prepare(NULL);
    int status;
    if (!can_know(s))
        return;
    pid_t pid = fork();
    if (pid == 0) {
        struct kld_update u;
        if (kld_update_open(s, "app", &u) == KLD_UPDATE_OK && kld_update_start(s, &u) &&
            kld_update_write(s, &u, 0, "x", 1))
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    CHECK(access("app", F_OK) != 0);
    CHECK_INT(problem_with(s, "app"), KLD_UPDATE_MISSING);
    kld_free(s);
}

/* A copy needs room for all of it, and says so before anything has changed. */
CASE(update_file_size_limit)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    signal(SIGXFSZ, SIG_IGN);
    bool can = can_know(s);
    struct rlimit limit = {4, RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHECK_INT(kld_update_open_copy(s, "app", &u), KLD_UPDATE_OK);
    CHECK(!kld_update_start(s, &u) && errno == EFBIG);
    CHECK_INT(u.problem, KLD_UPDATE_OK);
    kld_update_close(s, &u);
    CHECK_TEXT(unit_text("app"), "0123456789");
    CHECK_INT(unit_temporaries(), 0);
    if (can) {
        CHECK_INT(kld_update_open(s, "app", &u), KLD_UPDATE_OK);
        CHECK(kld_update_start(s, &u) && kld_update_write(s, &u, 0, "x", 1));
        CHECK(!kld_update_write(s, &u, 4, "y", 1) && errno == EFBIG);
        kld_update_close(s, &u);
        CHECK_INT(errno, EFBIG);
        CHECK(access("app", F_OK) != 0);
    }
    CHECK_INT(unit_temporaries(), 0);
    kld_free(s);
}

static void fill(const char *path)
{
    static const char block[4096];
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    while (write(fd, block, sizeof(block)) > 0)
        continue;
    CHECK_INT(errno, ENOSPC);
    close(fd);
}

CASE(update_full_disk)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    if (!unit_may_mount() || !unit_mount_tmpfs("small", "size=256k"))
        return unit_skip("cannot mount");
    unit_put("small/app", "x");
    CHECK(truncate("small/app", 65536) == 0); /* the rest has no blocks yet */
    fill("small/filler");
    CHECK_INT(kld_update_open(s, "small/app", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u) && kld_update_write(s, &u, 0, "y", 1));
    CHECK(!kld_update_write(s, &u, 40000, "y", 1) && errno == ENOSPC);
    kld_update_close(s, &u);
    CHECK(access("small/app", F_OK) != 0);
    unlink("small/filler");
    unit_put("small/app", "0123456789");
    fill("small/filler");
    CHECK_INT(kld_update_open_copy(s, "small/app", &u), KLD_UPDATE_OK);
    CHECK(!kld_update_start(s, &u) && errno == ENOSPC);
    kld_update_close(s, &u);
    CHECK_TEXT(unit_text("small/app"), "0123456789");
    CHECK(chdir("small") == 0);
    CHECK_INT(unit_temporaries(), 0);
    kld_free(s);
}

CASE(update_read_only)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    if (unit_may_mount() && unit_mount_tmpfs("ro", NULL)) {
        unit_put("ro/app", "0123456789");
        CHECK(unit_make_read_only("ro"));
        CHECK_INT(problem_with(s, "ro/app"), KLD_UPDATE_READ_ONLY);
        CHECK_INT(kld_update_open_copy(s, "ro/app", &u), KLD_UPDATE_READ_ONLY);
    }
    if (!unit_give_up_root())
        return unit_skip("the rest: permissions do not bind root");
    bool can = can_know(s);
    mkdir("dir", 0755);
    unit_put("dir/app", "0123456789");
    chmod("dir/app", 0555);
    CHECK_INT(problem_with(s, "dir/app"), KLD_UPDATE_READ_ONLY);
    CHECK_INT(kld_update_open_copy(s, "dir/app", &u), KLD_UPDATE_OK);
    kld_update_close(s, &u);
    chmod("dir/app", 0755);
    chmod("dir", 0555);
    if (can)
        CHECK_INT(problem_with(s, "dir/app"), KLD_UPDATE_READ_ONLY);
    CHECK_INT(kld_update_open_copy(s, "dir/app", &u), KLD_UPDATE_READ_ONLY);
    chmod("dir", 0755);
    kld_free(s);
}

/* A mapping holds the file of the layer below: nothing is known of who has one. */
CASE(update_on_overlayfs)
{
    kld_session *s = prepare(NULL);
    struct kld_update u;
    if (!unit_may_mount() || !unit_mount_tmpfs("t", NULL) || mkdir("t/l", 0755) != 0 ||
        mkdir("t/u", 0755) != 0 || mkdir("t/w", 0755) != 0 || mkdir("t/m", 0755) != 0 ||
        mount("overlay", "t/m", "overlay", 0, "lowerdir=t/l,upperdir=t/u,workdir=t/w") != 0)
        return unit_skip("cannot mount");
    unit_put("t/m/app", "0123456789");
    CHECK_INT(problem_with(s, "t/m/app"), KLD_UPDATE_IN_USE);
    struct unit_holder h = unit_hold(hold_mapping, "t/m/app");
    CHECK_INT(problem_with(s, "t/m/app"), KLD_UPDATE_IN_USE);
    unit_let_go(&h);
    CHECK_INT(kld_update_open_copy(s, "t/m/app", &u), KLD_UPDATE_OK);
    CHECK(kld_update_start(s, &u) && kld_update_write(s, &u, 0, "X", 1) &&
          kld_update_commit(s, &u));
    CHECK_TEXT(unit_text("t/m/app"), "X123456789");
    struct kld_identity id;
    CHECK(kld_identify(s, "t/m/app", &id) && kld_same_identity(&id, &u.id));
    kld_update_close(s, &u);
    kld_free(s);
    umount2("t/m", MNT_DETACH);
}
