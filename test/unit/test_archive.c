#include "src/archive.h"
#include "unit.h"

struct builder {
    struct kld_arena *arena;
    KLD_VEC(char) out;
};

static void put(struct builder *b, const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        *kld_vec_push(b->arena, &b->out) = ((const char *)data)[i];
}

/* A header with any text for a size; returns its offset. */
static uint64_t put_header(struct builder *b, const char *name, const char *size)
{
    uint64_t at = b->out.len;
    char *h = kld_arena_printf(b->arena, "%-16s%-12s%-6s%-6s%-8s%-10s`\n", name, "0", "0", "0",
                               "644", size);
    put(b, h, 60);
    return at;
}

static uint64_t put_member(struct builder *b, const char *name, const void *data, size_t len)
{
    uint64_t at = put_header(b, name, kld_arena_printf(b->arena, "%zu", len));
    put(b, data, len);
    if (len & 1)
        put(b, "\n", 1);
    return at;
}

static struct builder begin(struct kld_arena *arena, const char *magic)
{
    struct builder b = {.arena = arena};
    put(&b, magic, 8);
    return b;
}

static struct kld_bytes bytes_of(const struct builder *b)
{
    return unit_bytes(b->out.data, b->out.len);
}

static const char *parse(const struct builder *b, struct kld_archive *archive)
{
    uint64_t where;
    return kld_archive_parse(archive, bytes_of(b), &where);
}

/* All there is to read, for input that only must not crash; an error or NULL. */
static const char *walk(struct kld_bytes bytes)
{
    struct kld_archive archive;
    struct kld_archive_member member;
    struct kld_str name;
    uint64_t at, count = 0;
    const char *error = kld_archive_parse(&archive, bytes, &at);
    if (error)
        return error;
    struct kld_archive_index index = kld_archive_index(&archive);
    while (kld_archive_index_next(&index, &name, &at))
        kld_archive_member(&archive, at, &member);
    at = archive.first;
    while (kld_archive_next(&archive, &at, &member, &error)) {
        CHECK(member.offset < member.next);
        CHECK(++count <= bytes.len / 60);
    }
    return error ? error : index.error;
}

CASE(archive_empty)
{
    struct builder b = begin(arena, "!<arch>\n");
    struct kld_archive archive;
    CHECK_TEXT(parse(&b, &archive), NULL);
    CHECK(!archive.has_index && !archive.thin);
    CHECK_INT(archive.first, 8);
    CHECK_TEXT(walk(bytes_of(&b)), NULL);
}

CASE(archive_not_one)
{
    CHECK(!kld_archive_probe(unit_bytes("", 0)));
    CHECK(!kld_archive_probe(unit_bytes("!<arch>", 7)));
    CHECK_TEXT(walk(unit_bytes("!<arch>", 7)), "not an archive");
}

CASE(archive_gnu)
{
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "/", "\0\0\0\2\0\0\0\x0A\0\0\0\x0Bone\0two", 20);
    put_member(&b, "//", "a_rather_long_name.o/\nanother_long_name.o/\n", 43);
    uint64_t first = put_member(&b, "a b.o/", "x", 1);
    put_member(&b, "/22", "yy", 2);
    put_member(&b, "/0", "", 0);
    struct kld_archive archive;
    struct kld_archive_member m;
    const char *error;
    CHECK_TEXT(parse(&b, &archive), NULL);
    CHECK_INT(archive.first, first);
    CHECK_INT(archive.nindex, 2);
    CHECK(archive.has_index);
    uint64_t at = archive.first;
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "a b.o");
    CHECK_INT(m.data.len, 1);
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "another_long_name.o");
    CHECK_STR(((struct kld_str){(const char *)m.data.ptr, m.data.len}), "yy");
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "a_rather_long_name.o");
    CHECK_INT(m.size, 0);
    CHECK(!kld_archive_next(&archive, &at, &m, &error));
    CHECK_TEXT(error, NULL);
}

CASE(archive_gnu_index)
{
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "/", "\0\0\0\3\0\0\0\x60\0\0\0\x60\1\2\3\4one\0\0two", 24);
    put_member(&b, "x.o/", "x", 1);
    struct kld_archive archive;
    parse(&b, &archive);
    struct kld_archive_index index = kld_archive_index(&archive);
    struct kld_str name;
    uint64_t at;
    CHECK(kld_archive_index_next(&index, &name, &at));
    CHECK_STR(name, "one");
    CHECK_INT(at, 0x60);
    CHECK(kld_archive_index_next(&index, &name, &at));
    CHECK_STR(name, "");
    CHECK(!kld_archive_index_next(&index, &name, &at)); /* "two" has no end */
    CHECK_TEXT(index.error, "name in the symbol index extends past its end");
    CHECK(!kld_archive_index_next(&index, &name, &at));
}

CASE(archive_gnu_index_64)
{
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "/SYM64/", "\0\0\0\0\0\0\0\1\0\0\0\1\0\0\0\7sym", 20);
    struct kld_archive archive;
    CHECK_TEXT(parse(&b, &archive), NULL);
    struct kld_archive_index index = kld_archive_index(&archive);
    struct kld_str name;
    struct kld_archive_member m;
    uint64_t at;
    CHECK(kld_archive_index_next(&index, &name, &at));
    CHECK_STR(name, "sym");
    CHECK_INT(at, 0x100000007);
    CHECK_TEXT(kld_archive_member(&archive, at, &m), "member header lies outside the archive");
    CHECK_TEXT(kld_archive_member(&archive, UINT64_MAX, &m),
               "member header lies outside the archive");
    CHECK(!kld_archive_index_next(&index, &name, &at));
    CHECK_TEXT(index.error, NULL);
}

CASE(archive_index_claims_too_much)
{
    static const char *const names[] = {"/", "/SYM64/", "__.SYMDEF", "__.SYMDEF_64"};
    static const char *const data[] = {
        "\xff\xff\xff\xff\0\0\0\0",
        "\x80\0\0\0",
        "\0\0\0",
        "",
        "\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "\0\0\0\0\xff\xff\xff\xff",
        "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"};
    static const size_t sizes[] = {8, 4, 3, 0, 16, 8, 16};
    for (size_t n = 0; n < KLD_COUNT(names); n++) {
        for (size_t d = 0; d < KLD_COUNT(data); d++) {
            struct builder b = begin(arena, "!<arch>\n");
            put_member(&b, names[n], data[d], sizes[d]);
            walk(bytes_of(&b));
        }
        struct builder b = begin(arena, "!<arch>\n");
        put_member(&b, names[n], data[6], sizes[6]);
        CHECK_TEXT(walk(bytes_of(&b)), "symbol index has more entries than room");
    }
}

CASE(archive_bsd)
{
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "#1/20",
               "__.SYMDEF SORTED\0\0\0\0\x10\0\0\0\0\0\0\0\x99\0\0\0\4\0\0\0\x98\0\0\0\4\0\0\0one",
               44 + 4);
    put_member(&b, "#1/12", "long name.o\0data", 16);
    put_member(&b, "plain.o", "xyz", 3);
    put_member(&b, "#1/4", "full", 4);
    struct kld_archive archive;
    struct kld_archive_member m;
    const char *error;
    CHECK_TEXT(parse(&b, &archive), NULL);
    CHECK_INT(archive.index_kind, KLD_ARCHIVE_BSD32);
    CHECK_INT(archive.nindex, 2);
    struct kld_archive_index index = kld_archive_index(&archive);
    struct kld_str name;
    uint64_t at;
    CHECK(kld_archive_index_next(&index, &name, &at));
    CHECK_STR(name, "one");
    CHECK_INT(at, 0x99);
    CHECK(!kld_archive_index_next(&index, &name, &at));
    CHECK(index.error); /* string 4 is past the end */
    at = archive.first;
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "long name.o");
    CHECK_STR(((struct kld_str){(const char *)m.data.ptr, m.data.len}), "data");
    CHECK_INT(m.size, 4);
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "plain.o");
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "full");
    CHECK_INT(m.data.len, 0);
    CHECK(!kld_archive_next(&archive, &at, &m, &error));
}

CASE(archive_bsd_64)
{
    struct builder b = begin(arena, "!<arch>\n");
    char data[16 + 16 + 4] = {0};
    data[0] = 16;
    data[16] = 0x44;
    data[24] = 4;
    memcpy(data + 32, "abc", 4);
    put_member(&b, "__.SYMDEF_64", data, sizeof(data));
    struct kld_archive archive;
    CHECK_TEXT(parse(&b, &archive), NULL);
    struct kld_archive_index index = kld_archive_index(&archive);
    struct kld_str name;
    uint64_t at;
    CHECK(kld_archive_index_next(&index, &name, &at));
    CHECK_STR(name, "abc");
    CHECK_INT(at, 0x44);
}

CASE(archive_overlapping_index_names)
{
    /* 10,000 entries, all naming the same 10,000 bytes: more than the archive is worth */
    enum { COUNT = 10000, LENGTH = 10000 };
    struct builder b = begin(arena, "!<arch>\n");
    char *data = kld_arena_alloc(arena, 8 + COUNT * 8 + LENGTH + 1, 1);
    kld_put32(data, COUNT * 8);
    kld_put32(data + 4 + COUNT * 8, LENGTH + 1);
    memset(data + 8 + COUNT * 8, 'x', LENGTH);
    put_member(&b, "__.SYMDEF", data, 8 + COUNT * 8 + LENGTH + 1);
    CHECK_TEXT(walk(bytes_of(&b)), "names in the symbol index overlap");
}

CASE(archive_thin)
{
    struct builder b = begin(arena, "!<thin>\n");
    put_member(&b, "//", "sub/one.o/\n../in.a/\n/abs/two.o/\n", 32);
    put_header(&b, "/0", "123456");
    put_header(&b, "/11:68", "5");
    put_header(&b, "/20", "9999999999");
    struct kld_archive archive;
    struct kld_archive_member m;
    const char *error;
    CHECK_TEXT(parse(&b, &archive), NULL);
    CHECK(archive.thin);
    uint64_t at = archive.first;
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "sub/one.o");
    CHECK_INT(m.size, 123456);
    CHECK_INT(m.data.len, 0);
    CHECK_TEXT(kld_archive_member_path(arena, "lib/x.a", m.name), "lib/sub/one.o");
    CHECK_TEXT(kld_archive_member_path(arena, "x.a", m.name), "sub/one.o");
    CHECK_TEXT(kld_archive_member_path(arena, "/x.a", m.name), "/sub/one.o");
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "../in.a");
    CHECK_INT(m.nested, 68);
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_TEXT(kld_archive_member_path(arena, "lib/x.a", m.name), "/abs/two.o");
    CHECK(!kld_archive_next(&archive, &at, &m, &error));
    CHECK_TEXT(error, NULL);
}

CASE(archive_thin_has_no_bsd_names)
{
    struct builder b = begin(arena, "!<thin>\n");
    put_header(&b, "#1/4", "8");
    put(&b, "name", 4);
    CHECK_TEXT(walk(bytes_of(&b)), "member name in the data of a thin archive");
}

CASE(archive_windows)
{
    /* two indices, and names that end with NUL */
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "/", "\0\0\0\1\0\0\0\x55one", 12);
    put_member(&b, "/", "\1\0\0\0\x55\0\0\0\1\0\0\0\1\0one", 18);
    put_member(&b, "//", "long_name_of_member.obj\0", 24);
    put_member(&b, "/0", "x", 1);
    struct kld_archive archive;
    struct kld_archive_member m;
    const char *error;
    CHECK_TEXT(parse(&b, &archive), NULL);
    CHECK_INT(archive.nindex, 1);
    uint64_t at = archive.first;
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "long_name_of_member.obj");
}

CASE(archive_bad_sizes)
{
    static const char *const sizes[] = {"-1", "", "1x", "0x10", "99", "9999999999", "+1", "1 1"};
    for (size_t i = 0; i < KLD_COUNT(sizes); i++) {
        struct builder b = begin(arena, "!<arch>\n");
        put_header(&b, "a.o/", sizes[i]);
        put(&b, "0123456789", 10);
        CHECK(walk(bytes_of(&b)));
        struct builder special = begin(arena, "!<arch>\n");
        put_header(&special, "/", sizes[i]);
        CHECK(walk(bytes_of(&special)));
    }
    struct builder b = begin(arena, "!<arch>\n");
    put_header(&b, "a.o/", "  10");
    put(&b, "0123456789", 10);
    CHECK_TEXT(walk(bytes_of(&b)), NULL);
}

CASE(archive_bad_names)
{
    static const char *const names[] = {
        "/5",    "/99999",          "/1x",           "/0:", "/0:1", "#1/11",
        "#1/1x", "/99999999999999", "#1/99999999999"};
    for (size_t i = 0; i < KLD_COUNT(names); i++) {
        struct builder b = begin(arena, "!<arch>\n");
        put_member(&b, "//", "x.o/\n", 5);
        put_header(&b, names[i], "10");
        put(&b, "0123456789", 10);
        CHECK(walk(bytes_of(&b)));
    }
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "/0", "x", 1); /* no table */
    CHECK_TEXT(walk(bytes_of(&b)), "long member name lies outside the table of names");
    struct builder open = begin(arena, "!<arch>\n");
    put_member(&open, "//", "x.o/", 4);
    put_member(&open, "/0", "x", 1);
    CHECK_TEXT(walk(bytes_of(&open)), "long member name has no end");
}

CASE(archive_endless_long_name)
{
    /* a thousand members refer to a megabyte without an end: must not take a thousand megabytes */
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "//", unit_repeat(arena, "x", 1 << 20), 1 << 20);
    for (int i = 0; i < 1000; i++)
        put_header(&b, "/0", "0");
    CHECK_TEXT(walk(bytes_of(&b)), "long member name has no end");
}

CASE(archive_padding_at_end)
{
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "a.o/", "xx", 2);
    put(&b, "\n", 1);
    CHECK_TEXT(walk(bytes_of(&b)), NULL);
    put(&b, "\n", 1);
    CHECK_TEXT(walk(bytes_of(&b)), "member header lies outside the archive");
    struct builder odd = begin(arena, "!<arch>\n");
    put_header(&odd, "a.o/", "1");
    put(&odd, "x", 1); /* the last padding byte may be missing */
    CHECK_TEXT(walk(bytes_of(&odd)), NULL);
}

CASE(archive_members_called_like_tables)
{
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "__.SYMDEF/", "object", 6);
    put_member(&b, "/", "\0\0\0\0", 4); /* in the middle: passed over */
    put_member(&b, "b.o/", "object", 6);
    struct kld_archive archive;
    struct kld_archive_member m;
    const char *error;
    CHECK_TEXT(parse(&b, &archive), NULL);
    CHECK(!archive.has_index);
    uint64_t at = archive.first;
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "__.SYMDEF");
    CHECK(kld_archive_next(&archive, &at, &m, &error));
    CHECK_STR(m.name, "b.o");
}

CASE(archive_cut_anywhere)
{
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "/", "\0\0\0\2\0\0\0\x0A\0\0\0\x0Bone\0two", 20);
    put_member(&b, "//", "a_rather_long_name.o/\nanother_long_name.o/\n", 43);
    put_member(&b, "/22", "yy", 2);
    put_member(&b, "#1/12", "long name.o\0data", 16);
    for (size_t len = 0; len <= b.out.len; len++)
        walk(unit_bytes(b.out.data, len));
}

CASE(archive_any_byte_changed)
{
    struct builder b = begin(arena, "!<arch>\n");
    put_member(&b, "__.SYMDEF", "\x10\0\0\0\0\0\0\0\x99\0\0\0\4\0\0\0\x98\0\0\0\4\0\0\0one", 28);
    put_member(&b, "#1/12", "long name.o\0data", 16);
    for (size_t i = 0; i < b.out.len; i++) {
        for (int c = 0; c < 256; c += 5) {
            struct kld_bytes bytes = {(uint8_t *)b.out.data, b.out.len};
            char old = b.out.data[i];
            b.out.data[i] = (char)c;
            walk(bytes);
            b.out.data[i] = old;
        }
    }
}
