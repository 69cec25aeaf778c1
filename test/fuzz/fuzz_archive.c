/* fuzz_archive - any bytes as an archive: its index, its members, one after the other and by index. */
#include "src/archive.h"
#include "fuzz.h"

static void fuzz_one(struct kld_arena *arena, struct kld_bytes bytes)
{
    struct kld_archive archive;
    struct kld_archive_member member;
    struct kld_str name;
    uint64_t at, sum = 0;
    const char *error = kld_archive_parse(&archive, bytes, &at);
    if (error)
        return;
    struct kld_archive_index index = kld_archive_index(&archive);
    while (kld_archive_index_next(&index, &name, &at)) {
        for (size_t i = 0; i < name.len; i++)
            sum += (uint8_t)name.ptr[i];
        kld_archive_member(&archive, at, &member);
    }
    at = archive.first;
    while (kld_archive_next(&archive, &at, &member, &error)) {
        for (size_t i = 0; i < member.data.len; i++)
            sum += member.data.ptr[i];
        kld_archive_member_path(arena, "some/lib.a", member.name);
    }
    __asm__ volatile("" : : "r"(sum)); /* the bytes are read */
}
