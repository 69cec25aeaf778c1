/* test_content - ids of objects and of their atoms. */
#include "api.h"

struct ids {
    char names[64][64];
    unsigned char ids[64][KLD_CONTENT_ID_SIZE];
    int count;
};

static void keep(void *context, const char *section, const unsigned char id[KLD_CONTENT_ID_SIZE])
{
    struct ids *all = context;
    CHECK(all->count < 64);
    snprintf(all->names[all->count], sizeof(all->names[0]), "%s", section);
    memcpy(all->ids[all->count++], id, KLD_CONTENT_ID_SIZE);
}

struct object {
    struct bytes bytes;
    unsigned char id[KLD_CONTENT_ID_SIZE];
    struct ids atoms;
};

static struct object read_object(const char *path)
{
    struct object o = {.bytes = read_file(path)};
    CHECK(kld_obj_content_id(NULL, o.bytes.data, o.bytes.size, o.id) == KLD_OK);
    CHECK(kld_obj_atom_ids(NULL, o.bytes.data, o.bytes.size, keep, &o.atoms) == KLD_OK);
    CHECK(o.atoms.count > 0);
    free(o.bytes.data);
    return o;
}

/* The atoms that differ, of two objects with the same ones; "" if none do. */
static const char *difference(const struct object *a, const struct object *b, char *to, size_t size)
{
    to[0] = 0;
    CHECK(a->atoms.count == b->atoms.count);
    for (int i = 0; i < a->atoms.count && i < b->atoms.count; i++) {
        CHECK(strcmp(a->atoms.names[i], b->atoms.names[i]) == 0);
        if (memcmp(a->atoms.ids[i], b->atoms.ids[i], KLD_CONTENT_ID_SIZE) != 0)
            snprintf(to + strlen(to), size - strlen(to), "%s%s", *to ? " " : "", a->atoms.names[i]);
    }
    return to;
}

static bool same_id(const struct object *a, const struct object *b)
{
    return memcmp(a->id, b->id, KLD_CONTENT_ID_SIZE) == 0;
}

/* ---- cases ---- */

CASE(two_compiles_are_equal)
{
    char text[1000];
    struct object first = read_object("content/first.o"), again = read_object("content/again.o");
    CHECK(same_id(&first, &again));
    CHECK(strcmp(difference(&first, &again, text, sizeof(text)), "") == 0);
    /* Put together otherwise: other order of symbols and tables. */
    struct object other = read_object("content/other.o");
    CHECK(same_id(&first, &other));
    CHECK(strcmp(difference(&first, &other, text, sizeof(text)), "") == 0);
}

CASE(one_byte_is_one_atom)
{
    char text[1000];
    struct object first = read_object("content/first.o"), edited = read_object("content/byte.o");
    CHECK(!same_id(&first, &edited));
    CHECK(strcmp(difference(&first, &edited, text, sizeof(text)), ".text.get") == 0);
    puts(text);
}

/* What a function calls is part of it, and where its strings are. */
CASE(references_count)
{
    char text[1000];
    struct object first = read_object("content/first.o"), edited = read_object("content/call.o");
    CHECK(!same_id(&first, &edited));
    CHECK(strcmp(difference(&first, &edited, text, sizeof(text)), ".text.sum") == 0);
    puts(text);
}

/* In no atom, but in the object. */
CASE(symbols_count)
{
    char text[1000];
    struct object first = read_object("content/first.o"), weak = read_object("content/weak.o"),
                  hidden = read_object("content/hidden.o");
    CHECK(!same_id(&first, &weak) && !same_id(&first, &hidden) && !same_id(&weak, &hidden));
    CHECK(strcmp(difference(&first, &weak, text, sizeof(text)), "") == 0);
    CHECK(strcmp(difference(&first, &hidden, text, sizeof(text)), "") == 0);
}

CASE(misuse_is_told)
{
    unsigned char id[KLD_CONTENT_ID_SIZE];
    CHECK(kld_obj_content_id(NULL, NULL, 0, id) == KLD_MISUSE);
    CHECK(kld_obj_content_id(NULL, "x", 1, NULL) == KLD_MISUSE);
    CHECK(kld_obj_atom_ids(NULL, NULL, 0, keep, NULL) == KLD_MISUSE);
    CHECK(kld_obj_atom_ids(NULL, "x", 1, NULL, NULL) == KLD_MISUSE);
    CHECK(kld_obj_content_id(NULL, "x", 1, id) == KLD_FAILED);
}

/* Messages and memory are the session's, and nothing else of it. */
CASE(session_is_left_alone)
{
    struct counts counts = {0};
    kld_host host = counting_host(&counts);
    unsigned char id[KLD_CONTENT_ID_SIZE];
    struct bytes lib = read_file("lib.a"), a = read_file("a.o");
    kld_session *s = kld_new(&host);
    CHECK(kld_obj_content_id(s, lib.data, lib.size, id) == KLD_FAILED);
    CHECK(counts.errors == 1 && strstr(counts.messages, "content-id"));
    CHECK(kld_obj_content_id(s, a.data, a.size, id) == KLD_OK);
    kld_input in_a = {.size = sizeof(in_a), .name = "a.o"}, in_b = in_a;
    in_b.name = "b.o";
    CHECK(kld_add_input(s, &in_a) == KLD_OK && kld_add_input(s, &in_b) == KLD_OK);
    CHECK(kld_set(s, "output-memory", "1") == KLD_OK);
    CHECK(kld_link(s) == KLD_OK); /* the error was not its own */
    CHECK(kld_obj_content_id(s, a.data, a.size, id) == KLD_OK);
    kld_free(s);
    CHECK(counts.live_blocks == 0);
    free(lib.data);
    free(a.data);
}

/* Of what is damaged there is an id or an error. */
CASE(damage)
{
    unsigned char id[KLD_CONTENT_ID_SIZE];
    struct bytes whole = read_file("content/first.o");
    for (size_t size = 1; size <= whole.size; size++) {
        char *part = malloc(size); /* of that size: what is behind it is out of bounds */
        memcpy(part, whole.data, size);
        kld_status status = kld_obj_content_id(NULL, part, size, id);
        CHECK(status == (size == whole.size ? KLD_OK : KLD_FAILED) || status == KLD_OK);
        free(part);
    }
    for (size_t at = 0; at < whole.size; at++) {
        static const unsigned char values[] = {0x00, 0xff, 0x80};
        unsigned char *byte = (unsigned char *)whole.data + at, old = *byte;
        for (size_t i = 0; i < sizeof(values); i++) {
            struct ids ids = {0};
            *byte = values[i];
            kld_status status = kld_obj_content_id(NULL, whole.data, whole.size, id);
            CHECK(status == KLD_OK || status == KLD_FAILED);
            CHECK(kld_obj_atom_ids(NULL, whole.data, whole.size, keep, &ids) == status);
            CHECK(status == KLD_OK || !ids.count);
        }
        *byte = old;
    }
    free(whole.data);
}

CASE(memory_runs_out)
{
    unsigned char id[KLD_CONTENT_ID_SIZE];
    struct bytes b = read_file("content/first.o");
    for (size_t n = 0, last = 1; n <= last; n++) {
        struct counts counts = {0};
        kld_host host = counting_host(&counts);
        kld_session *s = kld_new(&host);
        counts.allocations = 0;
        counts.fail_from = n;
        counts.fail_to = n ? n + 1 : 0;
        CHECK(kld_obj_content_id(s, b.data, b.size, id) == (n ? KLD_NO_MEMORY : KLD_OK));
        last = n ? last : counts.allocations;
        kld_free(s);
        CHECK(counts.live_blocks == 0);
    }
    free(b.data);
}
