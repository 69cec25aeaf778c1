#include "src/archive.h"

/* A header is text: name 16, date 12, uid 6, gid 6, mode 8, size 10, "`\n". */
enum { MAGIC = 8, HEADER = 60, NAME = 16, SIZE_AT = 48, SIZE_LEN = 10, END_AT = 58 };

/* Longer names are not looked for in the table of names: one without an end, referred to by all
 * members, would otherwise take quadratic time. */
enum { LONGEST_NAME = 64 << 10 };

static uint32_t big32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t big64(const uint8_t *p)
{
    return (uint64_t)big32(p) << 32 | big32(p + 4);
}

/* Reads decimal digits up to the end, or as far as they go; false if there are none, or too
 * many. */
static bool read_digits(const char **p, const char *end, uint64_t *value)
{
    const char *start = *p;
    uint64_t v = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(**p - '0'), &v))
            return false;
    }
    *value = v;
    return *p > start;
}

/* Whether only spaces (or what some archivers use for padding) are left. */
static bool is_padding(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\0'))
        p++;
    return p == end;
}

bool kld_archive_probe(struct kld_bytes bytes)
{
    return bytes.len >= MAGIC && (memcmp(bytes.ptr, "!<arch>\n", MAGIC) == 0 ||
                                  memcmp(bytes.ptr, "!<thin>\n", MAGIC) == 0);
}

/* "/123": an offset into the table of names; in a thin archive also "/123:456". Entries end with
 * "/\n" (GNU), "\n", or NUL (Windows). */
static const char *read_long_name(const struct kld_archive *archive, const char *p, const char *end,
                                  struct kld_archive_member *member)
{
    uint64_t start;
    if (!read_digits(&p, end, &start))
        return "malformed reference to a long member name";
    if (archive->thin && p < end && *p == ':') {
        p++;
        if (!read_digits(&p, end, &member->nested))
            return "malformed offset of a nested archive's member";
    }
    /* GNU ar leaves the '/' behind a file name of 15 characters where it was, in thin archives. */
    if (!is_padding(p, end[-1] == '/' ? end - 1 : end))
        return "malformed reference to a long member name";
    if (start >= archive->long_names.len)
        return "long member name lies outside the table of names";
    const char *name = (const char *)archive->long_names.ptr + start;
    size_t len = KLD_MIN(archive->long_names.len - start, LONGEST_NAME);
    const char *stop = memchr(name, '\n', len);
    if (stop)
        len = (size_t)(stop - name);
    const char *nul = memchr(name, '\0', len);
    if (nul)
        len = (size_t)(nul - name);
    else if (!stop)
        return "long member name has no end";
    if (len && name[len - 1] == '/')
        len--;
    member->name = (struct kld_str){name, len};
    return NULL;
}

/* "#1/LEN": the name is the first LEN bytes of the data, padded with NULs. */
static const char *read_bsd_name(const struct kld_archive *archive, const char *p, const char *end,
                                 struct kld_archive_member *member)
{
    uint64_t len;
    if (!read_digits(&p, end, &len) || !is_padding(p, end))
        return "malformed length of a member name";
    if (archive->thin)
        return "member name in the data of a thin archive";
    if (len > member->size || len > LONGEST_NAME)
        return "member name is longer than the member";
    const char *name = (const char *)member->data.ptr;
    const char *nul = len ? memchr(name, '\0', len) : NULL;
    member->name = (struct kld_str){name, nul ? (size_t)(nul - name) : (size_t)len};
    member->data.ptr += len;
    member->data.len -= len;
    member->size -= len;
    return NULL;
}

static bool is_bsd_index(struct kld_str name)
{
    return kld_str_is(name, "__.SYMDEF") || kld_str_is(name, "__.SYMDEF SORTED") ||
           kld_str_is(name, "__.SYMDEF_64") || kld_str_is(name, "__.SYMDEF_64 SORTED");
}

const char *kld_archive_member(const struct kld_archive *archive, uint64_t offset,
                               struct kld_archive_member *member)
{
    *member = (struct kld_archive_member){.offset = offset};
    struct kld_bytes header;
    if (!kld_bytes_part(archive->bytes, offset, HEADER, &header))
        return "member header lies outside the archive";
    const char *name = (const char *)header.ptr;
    if (memcmp(name + END_AT, "`\n", 2) != 0)
        return "malformed member header";
    const char *p = name + SIZE_AT, *end = p + SIZE_LEN;
    while (p < end && *p == ' ')
        p++;
    if (!read_digits(&p, end, &member->size) || !is_padding(p, end))
        return "malformed member size";

    /* Index and tables start with a slash that no digit follows, and have data even in a thin
     * archive. */
    member->special = name[0] == '/' && !(name[1] >= '0' && name[1] <= '9');
    uint64_t in_archive = archive->thin && !member->special ? 0 : member->size;
    uint64_t data = offset + HEADER;
    if (!kld_bytes_part(archive->bytes, data, in_archive, &member->data))
        return "member extends past the end of the archive";
    member->next = kld_align_up(data + in_archive, 2);

    if (name[0] == '/' && !member->special)
        return read_long_name(archive, name + 1, name + NAME, member);
    if (name[0] == '#' && name[1] == '1' && name[2] == '/' && name[3] >= '0' && name[3] <= '9') {
        const char *error = read_bsd_name(archive, name + 3, name + NAME, member);
        member->special = !error && is_bsd_index(member->name);
        return error;
    }
    size_t len = NAME;
    const char *slash = member->special ? NULL : memchr(name, '/', NAME);
    if (slash)
        len = (size_t)(slash - name);
    else
        while (len && (name[len - 1] == ' ' || name[len - 1] == '\0'))
            len--;
    member->name = (struct kld_str){name, len};
    /* A GNU name has its slash; "__.SYMDEF/" is an object that is called so. */
    if (!slash && is_bsd_index(member->name))
        member->special = true;
    return NULL;
}

static const char *read_gnu_index(struct kld_archive *archive, struct kld_bytes data, unsigned word)
{
    if (data.len < word)
        return "truncated symbol index";
    uint64_t count = word == 8 ? big64(data.ptr) : big32(data.ptr);
    if (count > (data.len - word) / word)
        return "symbol index has more entries than room";
    uint64_t size = count * word;
    archive->nindex = count;
    kld_bytes_part(data, word, size, &archive->entries);
    kld_bytes_part(data, word + size, data.len - word - size, &archive->strings);
    return NULL;
}

/* Size of the entries in bytes, entries {string, member}, size of the strings, strings. */
static const char *read_bsd_index(struct kld_archive *archive, struct kld_bytes data, unsigned word)
{
    if (data.len < word)
        return "truncated symbol index";
    uint64_t size = word == 8 ? kld_get64(data.ptr) : kld_get32(data.ptr);
    if (size % (2 * word) || !kld_bytes_part(data, word, size, &archive->entries))
        return "symbol index has more entries than room";
    struct kld_bytes length;
    if (!kld_bytes_part(data, word + size, word, &length))
        return "truncated symbol index";
    uint64_t strings = word == 8 ? kld_get64(length.ptr) : kld_get32(length.ptr);
    if (!kld_bytes_part(data, 2 * word + size, strings, &archive->strings))
        return "names of the symbol index extend past its end";
    archive->nindex = size / (2 * word);
    return NULL;
}

static const char *read_index(struct kld_archive *archive, uint8_t kind, struct kld_bytes data)
{
    if (archive->has_index) /* Windows has a second one, sorted, that says the same */
        return NULL;
    archive->has_index = true;
    archive->index_kind = kind;
    switch (kind) {
    case KLD_ARCHIVE_GNU32: return read_gnu_index(archive, data, 4);
    case KLD_ARCHIVE_GNU64: return read_gnu_index(archive, data, 8);
    case KLD_ARCHIVE_BSD32: return read_bsd_index(archive, data, 4);
    default: return read_bsd_index(archive, data, 8);
    }
}

static const char *read_special(struct kld_archive *archive,
                                const struct kld_archive_member *member)
{
    if (kld_str_is(member->name, "/"))
        return read_index(archive, KLD_ARCHIVE_GNU32, member->data);
    if (kld_str_is(member->name, "/SYM64/"))
        return read_index(archive, KLD_ARCHIVE_GNU64, member->data);
    if (kld_str_is(member->name, "//")) {
        if (!archive->long_names.ptr)
            archive->long_names = member->data;
        return NULL;
    }
    if (kld_str_starts(member->name, "__.SYMDEF_64"))
        return read_index(archive, KLD_ARCHIVE_BSD64, member->data);
    if (kld_str_starts(member->name, "__.SYMDEF"))
        return read_index(archive, KLD_ARCHIVE_BSD32, member->data);
    return NULL; /* something that only other tools know */
}

/* Whether a header could still follow. Some archivers pad the end by a byte. */
static bool at_end(const struct kld_archive *archive, uint64_t at)
{
    uint64_t len = archive->bytes.len;
    return at >= len || (len - at == 1 && archive->bytes.ptr[at] == '\n');
}

const char *kld_archive_parse(struct kld_archive *archive, struct kld_bytes bytes, uint64_t *where)
{
    *archive = (struct kld_archive){.bytes = bytes, .first = MAGIC};
    *where = 0;
    if (!kld_archive_probe(bytes))
        return "not an archive";
    archive->thin = bytes.ptr[2] == 't';
    while (!at_end(archive, archive->first)) {
        struct kld_archive_member member;
        *where = archive->first;
        const char *error = kld_archive_member(archive, archive->first, &member);
        /* A member proper is looked at again, and complained about, when it is its turn. */
        if (!member.special)
            break;
        if (!error)
            error = read_special(archive, &member);
        if (error)
            return error;
        archive->first = member.next;
    }
    return NULL;
}

bool kld_archive_next(const struct kld_archive *archive, uint64_t *at,
                      struct kld_archive_member *member, const char **error)
{
    *error = NULL;
    while (!at_end(archive, *at)) {
        *error = kld_archive_member(archive, *at, member);
        if (*error)
            return false;
        *at = member->next;
        if (!member->special)
            return true;
    }
    return false;
}

struct kld_archive_index kld_archive_index(const struct kld_archive *archive)
{
    /* Entries of a BSD index may share names, but not without limit. */
    return (struct kld_archive_index){
        .archive = archive,
        .budget = archive->strings.len + archive->bytes.len + (1 << 16),
    };
}

bool kld_archive_index_next(struct kld_archive_index *index, struct kld_str *name, uint64_t *offset)
{
    const struct kld_archive *archive = index->archive;
    if (index->i >= archive->nindex || index->error)
        return false;
    const uint8_t *p = archive->entries.ptr;
    uint64_t string = index->string;
    switch (archive->index_kind) {
    case KLD_ARCHIVE_GNU32: *offset = big32(p + 4 * index->i); break;
    case KLD_ARCHIVE_GNU64: *offset = big64(p + 8 * index->i); break;
    case KLD_ARCHIVE_BSD32:
        string = kld_get32(p + 8 * index->i);
        *offset = kld_get32(p + 8 * index->i + 4);
        break;
    default:
        string = kld_get64(p + 16 * index->i);
        *offset = kld_get64(p + 16 * index->i + 8);
        break;
    }
    if (!kld_bytes_string(archive->strings, string, name)) {
        index->error = "name in the symbol index extends past its end";
        return false;
    }
    if (name->len >= index->budget) {
        index->error = "names in the symbol index overlap";
        return false;
    }
    index->budget -= name->len + 1;
    index->string = string + name->len + 1;
    index->i++;
    return true;
}

char *kld_archive_member_path(struct kld_arena *arena, const char *archive_path,
                              struct kld_str name)
{
    const char *slash = strrchr(archive_path, '/');
    size_t dir =
        slash && !(name.len && name.ptr[0] == '/') ? (size_t)(slash - archive_path) + 1 : 0;
    char *path = kld_arena_alloc(arena, dir + name.len + 1, 1);
    if (dir)
        memcpy(path, archive_path, dir);
    if (name.len)
        memcpy(path + dir, name.ptr, name.len);
    return path;
}
