#include "src/tar.h"
#include "unit.h"

static struct kld_bytes pack(struct kld_arena *arena, const char *path, const char *data)
{
    struct kld_tar_buffer *buffer = KLD_NEW(arena, struct kld_tar_buffer);
    buffer->arena = arena;
    struct kld_tar tar = {arena, kld_tar_to_buffer, buffer, false};
    CHECK(kld_tar_add(&tar, unit_str(path), unit_bytes(data, strlen(data))));
    CHECK(kld_tar_finish(&tar));
    return (struct kld_bytes){buffer->bytes.data, buffer->bytes.len};
}

CASE(tar_layout)
{
    struct kld_bytes t = pack(arena, "dir/file.txt", "hello");
    CHECK_INT(t.len, 4 * 512);
    const char *h = (const char *)t.ptr;
    CHECK_TEXT(h, "dir/file.txt");
    CHECK_TEXT(h + 100, "0000644");
    CHECK_TEXT(h + 124, "00000000005");
    CHECK_TEXT(h + 136, "00000000000");
    CHECK_TEXT(h + 257, "ustar");
    CHECK_INT(h[156], '0');
    CHECK_TEXT(h + 512, "hello");
    unsigned sum = 0;
    for (int i = 0; i < 512; i++)
        sum += i >= 148 && i < 156 ? ' ' : t.ptr[i];
    CHECK_INT(strtoul(h + 148, NULL, 8), sum);
    CHECK_INT(h[154], 0);
    CHECK_INT(h[155], ' ');
}

CASE(tar_empty_file)
{
    CHECK_INT(pack(arena, "x", "").len, 3 * 512);
}

CASE(tar_file_of_whole_blocks)
{
    CHECK_INT(pack(arena, "x", unit_repeat(arena, "x", 1024)).len, 5 * 512);
}

CASE(tar_name_of_100)
{
    char *name = unit_repeat(arena, "x", 100);
    struct kld_bytes t = pack(arena, name, "");
    CHECK_INT(t.len, 3 * 512);
    CHECK(memcmp(t.ptr, name, 100) == 0);
}

CASE(tar_prefix)
{
    char *dir = unit_repeat(arena, "d", 150), *file = unit_repeat(arena, "f", 100);
    struct kld_bytes t = pack(arena, kld_arena_printf(arena, "%s/%s", dir, file), "");
    CHECK_INT(t.len, 3 * 512);
    CHECK(memcmp(t.ptr, file, 100) == 0);
    CHECK_TEXT((const char *)t.ptr + 345, dir);
}

CASE(tar_name_that_cannot_be_split)
{
    static const size_t lengths[] = {101, 120, 155, 256, 257, 989, 990, 991, 5000, 99990};
    for (size_t i = 0; i < KLD_COUNT(lengths); i++) {
        char *name = unit_repeat(arena, "x", lengths[i]);
        struct kld_bytes t = pack(arena, name, "data");
        CHECK_INT(t.ptr[156], 'x');
        const char *record = (const char *)t.ptr + 512;
        size_t length = strtoul(record, NULL, 10);
        CHECK_INT(strtoul((const char *)t.ptr + 124, NULL, 8), length);
        CHECK_INT(record[length - 1], '\n');
        CHECK(strncmp(strchr(record, ' '), " path=xxx", 9) == 0);
        CHECK_INT(length - (size_t)(strchr(record, '=') + 1 - record) - 1, lengths[i]);
    }
}

CASE(tar_slashes_at_the_edges)
{
    char *x = unit_repeat(arena, "x", 100);
    pack(arena, kld_arena_printf(arena, "/%s", x), "");
    CHECK_INT(pack(arena, kld_arena_printf(arena, "/%s", x), "").ptr[156], 'x');
    CHECK_INT(pack(arena, kld_arena_printf(arena, "%s/", x), "").ptr[156], 'x');
    CHECK_INT(pack(arena, kld_arena_printf(arena, "a/%s", x), "").ptr[156], '0');
}

static bool give_up(void *context, KLD_UNUSED const void *data, KLD_UNUSED size_t length)
{
    return --*(int *)context >= 0;
}

CASE(tar_sink_gives_up)
{
    for (int calls = 0; calls < 4; calls++) {
        int left = calls;
        struct kld_tar tar = {arena, give_up, &left, false};
        kld_tar_add(&tar, KLD_STR("x"), unit_bytes("data", 4));
        CHECK(kld_tar_finish(&tar) == (calls >= 4));
        CHECK(tar.failed);
    }
}
