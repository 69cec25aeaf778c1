#include "src/tar.h"
#include <stdio.h>

enum { BLOCK = 512 };

/* The header block. Numbers are octal digits with a NUL. */
struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
    char magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], unused[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is one block");

static const uint64_t LARGEST_SIZE = 077777777777;

static bool put(struct kld_tar *tar, const void *data, size_t length)
{
    if (!tar->failed && length && !tar->sink(tar->context, data, length))
        tar->failed = true;
    return !tar->failed;
}

static bool put_padded(struct kld_tar *tar, const void *data, size_t length)
{
    static const char zeros[BLOCK];
    return put(tar, data, length) && put(tar, zeros, -length % BLOCK);
}

/* Splits a path at a slash so that both parts fit; false if that cannot be. */
static bool set_path(struct header *h, struct kld_str path)
{
    if (path.len <= sizeof(h->name)) {
        memcpy(h->name, path.ptr, path.len);
        return true;
    }
    if (path.len > sizeof(h->name) + 1 + sizeof(h->prefix))
        return false;
    /* Neither part may be empty. */
    size_t i = KLD_MAX(path.len - sizeof(h->name) - 1, 1u);
    for (; i <= sizeof(h->prefix) && i + 1 < path.len; i++) {
        if (path.ptr[i] != '/')
            continue;
        memcpy(h->prefix, path.ptr, i);
        memcpy(h->name, path.ptr + i + 1, path.len - i - 1);
        return true;
    }
    return false;
}

static bool put_header(struct kld_tar *tar, struct header *h, char type, uint64_t size)
{
    memcpy(h->mode, "0000644", 8);
    memcpy(h->uid, "0000000", 8);
    memcpy(h->gid, "0000000", 8);
    snprintf(h->size, sizeof(h->size), "%011llo", (unsigned long long)size);
    memcpy(h->mtime, "00000000000", 12);
    memset(h->checksum, ' ', sizeof(h->checksum));
    h->type = type;
    memcpy(h->magic, "ustar", 6);
    memcpy(h->version, "00", 2);
    unsigned sum = 0;
    for (size_t i = 0; i < BLOCK; i++)
        sum += ((const unsigned char *)h)[i];
    snprintf(h->checksum, 7, "%06o", sum);
    return put(tar, h, BLOCK);
}

/* One record of a pax header, "LENGTH KEY=VALUE\n", where LENGTH counts its own digits. */
static void add_record(struct kld_arena *arena, struct kld_tar_buffer *to, const char *key,
                       struct kld_str value)
{
    size_t length = strlen(key) + value.len + 4;
    for (size_t limit = 10; length >= limit; limit *= 10)
        length++;
    char *start = kld_arena_printf(arena, "%zu %s=", length, key);
    kld_tar_to_buffer(to, start, strlen(start));
    kld_tar_to_buffer(to, value.ptr, value.len);
    kld_tar_to_buffer(to, "\n", 1);
}

static bool put_pax(struct kld_tar *tar, struct kld_str path, uint64_t size)
{
    struct kld_tar_buffer records = {.arena = tar->arena};
    add_record(tar->arena, &records, "path", path);
    if (size > LARGEST_SIZE)
        add_record(tar->arena, &records, "size",
                   kld_str(kld_arena_printf(tar->arena, "%llu", (unsigned long long)size)));
    struct header h = {.name = "pax"};
    return put_header(tar, &h, 'x', records.bytes.len) &&
           put_padded(tar, records.bytes.data, records.bytes.len);
}

bool kld_tar_add(struct kld_tar *tar, struct kld_str path, struct kld_bytes data)
{
    struct header h = {0};
    bool fits = set_path(&h, path);
    if (!fits)
        memcpy(h.name, path.ptr, sizeof(h.name)); /* for who does not know pax */
    if ((!fits || data.len > LARGEST_SIZE) && !put_pax(tar, path, data.len))
        return false;
    return put_header(tar, &h, '0', KLD_MIN(data.len, LARGEST_SIZE)) &&
           put_padded(tar, data.ptr, data.len);
}

bool kld_tar_finish(struct kld_tar *tar)
{
    static const char zeros[2 * BLOCK];
    return put(tar, zeros, sizeof(zeros));
}

bool kld_tar_to_buffer(void *context, const void *data, size_t length)
{
    struct kld_tar_buffer *buffer = context;
    size_t needed = buffer->bytes.len + length;
    while (buffer->bytes.cap < needed)
        buffer->bytes.data = kld_vec_grow_(buffer->arena, buffer->bytes.data, buffer->bytes.len,
                                           &buffer->bytes.cap, 1);
    if (length)
        memcpy(buffer->bytes.data + buffer->bytes.len, data, length);
    buffer->bytes.len = needed;
    return true;
}
