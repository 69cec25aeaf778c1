/* test_state - incremental links as a host sees them: where the state is, what the link was. */
#include "api.h"
#include <errno.h>
#include <unistd.h>

static kld_session *session(const kld_host *host, bool incremental)
{
    kld_session *s = kld_new(host);
    kld_input a = {.size = sizeof(a), .name = "a.o"}, lib = {.size = sizeof(lib), .name = "lib.a"};
    CHECK(kld_add_input(s, &a) == KLD_OK && kld_add_input(s, &lib) == KLD_OK);
    CHECK(kld_set(s, "incremental", incremental ? "1" : "0") == KLD_OK);
    return s;
}

/* ---- a store that counts ---- */

struct keeper {
    int opened, updated, replaced, discarded, closed;
    bool fails;
};

static bool keeper_open(void *context, void **data, size_t *length, bool *busy)
{
    struct keeper *k = context;
    (void)data, (void)length;
    k->opened++;
    *busy = false;
    return false;
}

static bool keeper_update(void *context, uint64_t offset, const void *data, size_t length)
{
    struct keeper *k = context;
    (void)offset, (void)data, (void)length;
    k->updated++;
    errno = ENOSPC;
    return !k->fails;
}

static bool keeper_replace(void *context, const void *data, size_t length)
{
    struct keeper *k = context;
    (void)data, (void)length;
    k->replaced++;
    errno = ENOSPC;
    return !k->fails;
}

static void keeper_discard(void *context)
{
    struct keeper *k = context;
    k->discarded++;
}

static void keeper_close(void *context)
{
    struct keeper *k = context;
    k->closed++;
}

static kld_state_store store_of(struct keeper *k)
{
    return (kld_state_store){.size = sizeof(kld_state_store),
                             .context = k,
                             .open = keeper_open,
                             .update = keeper_update,
                             .replace = keeper_replace,
                             .discard = keeper_discard,
                             .close = keeper_close};
}

/* ---- cases ---- */

CASE(misuse_is_told)
{
    struct keeper k = {0};
    kld_state_store store = store_of(&k), small = store, without = store;
    const void *data;
    size_t size;
    small.size = offsetof(kld_state_store, close);
    without.replace = NULL;
    kld_session *s = session(NULL, true);
    CHECK(kld_set_state_store(NULL, &store) == KLD_MISUSE);
    CHECK(kld_set_state_store(s, NULL) == KLD_MISUSE);
    CHECK(kld_set_state_store(s, &small) == KLD_MISUSE);
    CHECK(kld_set_state_store(s, &without) == KLD_MISUSE);
    CHECK(kld_set_prior_state(NULL, "x", 1) == KLD_MISUSE);
    CHECK(kld_set_prior_state(s, NULL, 1) == KLD_MISUSE);
    CHECK(kld_serialize_state(NULL, &data, &size) == KLD_MISUSE);
    CHECK(kld_serialize_state(s, &data, &size) == KLD_MISUSE); /* not linked */
    CHECK(kld_set_prior_state(s, NULL, 0) == KLD_OK);
    CHECK(kld_set(s, "output-memory", "1") == KLD_OK);
    CHECK(kld_link(s) == KLD_OK);
    CHECK(kld_serialize_state(s, NULL, &size) == KLD_MISUSE);
    CHECK(kld_serialize_state(s, &data, NULL) == KLD_MISUSE);
    kld_free(s);

    s = session(NULL, true);
    CHECK(kld_set_state_store(s, &store) == KLD_OK);
    CHECK(kld_set(s, "output-memory", "1") == KLD_OK);
    CHECK(kld_link(s) == KLD_OK);
    CHECK(kld_serialize_state(s, &data, &size) == KLD_MISUSE); /* the host has it */
    kld_free(s);

    s = session(NULL, false);
    CHECK(kld_set(s, "output-memory", "1") == KLD_OK);
    CHECK(kld_link(s) == KLD_OK);
    CHECK(kld_serialize_state(s, &data, &size) == KLD_MISUSE); /* not incremental */
    kld_free(s);
}

CASE(outcomes)
{
    const char *reason = "?";
    CHECK(kld_get_outcome(NULL, &reason) == KLD_OUTCOME_NONE && !reason);
    CHECK(kld_get_outcome(NULL, NULL) == KLD_OUTCOME_NONE);
    kld_session *s = session(NULL, false);
    reason = "?";
    CHECK(kld_get_outcome(s, &reason) == KLD_OUTCOME_NONE && !reason);
    CHECK(kld_set(s, "output-memory", "1") == KLD_OK);
    CHECK(kld_link(s) == KLD_OK);
    reason = "?";
    CHECK(kld_get_outcome(s, &reason) == KLD_OUTCOME_FULL && !reason);
    CHECK(kld_get_outcome(s, NULL) == KLD_OUTCOME_FULL);
    kld_free(s);
    s = kld_new(NULL);
    CHECK(kld_link(s) == KLD_FAILED); /* no inputs */
    CHECK(kld_get_outcome(s, &reason) == KLD_OUTCOME_NONE && !reason);
    kld_free(s);
}

/* The first link has no state; the second gets what the first one gave. */
CASE(state_in_memory)
{
    char *kept = NULL;
    size_t length = 0;
    for (int i = 0; i < 3; i++) {
        const void *data = "?";
        size_t size = 1;
        kld_session *s = session(NULL, true);
        CHECK(kld_set(s, "output", "state_in_memory.out") == KLD_OK);
        CHECK(kld_set_prior_state(s, kept, length) == KLD_OK);
        free(kept); /* copied */
        CHECK(kld_link(s) == KLD_OK);
        CHECK(kld_get_outcome(s, NULL) != KLD_OUTCOME_NONE);
        CHECK(i || kld_get_outcome(s, NULL) == KLD_OUTCOME_FULL);
        CHECK(kld_serialize_state(s, &data, &size) == KLD_OK);
        CHECK((data != NULL) == (size != 0));
        kept = malloc(size + 1);
        if (size)
            memcpy(kept, data, size);
        length = size;
        kld_free(s);
        CHECK(access("state_in_memory.out", X_OK) == 0);
        CHECK(access("state_in_memory.out.kldstate", F_OK) != 0);
    }
    free(kept);
}

CASE(foreign_state_is_of_no_harm)
{
    static char foreign[100000];
    memset(foreign, 'k', sizeof(foreign));
    for (size_t length = 0; length < 4; length++) {
        static const size_t lengths[] = {1, 64, 4096, sizeof(foreign)};
        const void *data;
        size_t size;
        kld_session *s = session(NULL, true);
        CHECK(kld_set(s, "output-memory", "1") == KLD_OK);
        CHECK(kld_set_prior_state(s, "other", 5) == KLD_OK); /* the last one counts */
        CHECK(kld_set_prior_state(s, foreign, lengths[length]) == KLD_OK);
        CHECK(kld_link(s) == KLD_OK);
        CHECK(kld_get_outcome(s, NULL) != KLD_OUTCOME_PATCHED);
        CHECK(kld_output(s, &data, &size) == KLD_OK && size > 0);
        CHECK(kld_serialize_state(s, &data, &size) == KLD_OK);
        kld_free(s);
    }
}

/* Without --incremental no state is read or written. */
CASE(store_is_left_alone)
{
    struct keeper k = {0};
    kld_state_store store = store_of(&k);
    kld_session *s = session(NULL, false);
    CHECK(kld_set_state_store(s, &store) == KLD_OK);
    CHECK(kld_set(s, "output", "left_alone.out") == KLD_OK);
    CHECK(kld_link(s) == KLD_OK);
    kld_free(s);
    CHECK(k.opened + k.updated + k.replaced + k.discarded + k.closed == 0);
    CHECK(access("left_alone.out.kldstate", F_OK) != 0);
}

/* A store that takes nothing is no reason for a link to fail. */
CASE(store_fails)
{
    for (int fails = 0; fails < 2; fails++) {
        struct keeper k = {.fails = fails};
        struct counts counts = {0};
        kld_host host = counting_host(&counts);
        kld_state_store store = store_of(&k);
        kld_session *s = session(&host, true);
        CHECK(kld_set_state_store(s, &store) == KLD_OK);
        memset(&store, 0, sizeof(store)); /* copied */
        CHECK(kld_set(s, "output", "store_fails.out") == KLD_OK);
        CHECK(kld_link(s) == KLD_OK);
        CHECK(kld_get_outcome(s, NULL) == KLD_OUTCOME_FULL);
        kld_free(s);
        CHECK(counts.errors == 0 && counts.live_blocks == 0);
        CHECK(access("store_fails.out", X_OK) == 0);
        CHECK(access("store_fails.out.kldstate", F_OK) != 0);
        CHECK(k.opened == k.closed || k.closed == 1);
    }
}

CASE(no_memory_for_the_state)
{
    static char state[100000];
    for (size_t n = 2; n < 4; n++) {
        struct counts counts = {.fail_from = n, .fail_to = SIZE_MAX};
        kld_host host = counting_host(&counts);
        kld_session *s = kld_new(&host);
        CHECK(s);
        CHECK(kld_set_prior_state(s, state, sizeof(state)) == (n == 2 ? KLD_NO_MEMORY : KLD_OK));
        CHECK(kld_set_prior_state(s, state, sizeof(state)) == KLD_NO_MEMORY);
        CHECK(kld_link(s) == KLD_NO_MEMORY);
        CHECK(kld_get_outcome(s, NULL) == KLD_OUTCOME_NONE);
        kld_free(s);
        CHECK(counts.live_blocks == 0);
    }
}
