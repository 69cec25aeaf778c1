/* archive.h - reading ar archives, decoded in place.
 *
 * Understood: "!<arch>\n" and "!<thin>\n"; the GNU (System V) dialect with its index "/" or
 * "/SYM64/" and table of long names "//", which libraries for Windows share; the BSD dialect with
 * names behind the header ("#1/LEN") and index "__.SYMDEF[_64][ SORTED]". Formats: ar(5) of
 * FreeBSD, "ar File Format" of the System V ABI, chapter 7, "Archive (Library) File Format" in
 * the specification of the PE format.
 *
 * Nothing here allocates (kld_archive_member_path aside) or changes the archive, so that any
 * number of threads may read one. Names and data are slices of the archive's bytes. A function
 * that can fail returns NULL, or a constant text that says what is wrong. */
#ifndef KLD_SRC_ARCHIVE_H
#define KLD_SRC_ARCHIVE_H

#include "src/arena.h"
#include "src/bytes.h"

enum kld_archive_index_kind {
    KLD_ARCHIVE_NO_INDEX,
    KLD_ARCHIVE_GNU32,
    KLD_ARCHIVE_GNU64,
    KLD_ARCHIVE_BSD32,
    KLD_ARCHIVE_BSD64,
};

struct kld_archive {
    struct kld_bytes bytes;
    bool thin;      /* members are files of their own */
    bool has_index; /* even if it lists nothing */
    uint8_t index_kind;
    uint64_t first;              /* offset of the first header behind index and name table */
    uint64_t nindex;             /* entries of the index */
    struct kld_bytes entries;    /* of the index: offsets (GNU), or names and offsets (BSD) */
    struct kld_bytes strings;    /* of the index */
    struct kld_bytes long_names; /* "//" */
};

struct kld_archive_member {
    struct kld_str name;
    struct kld_bytes data; /* empty in a thin archive */
    uint64_t size;         /* as the header says; in a thin archive that of the file */
    uint64_t offset;       /* of its header: identifies the member, and is what the index has */
    uint64_t next;         /* offset of the next header */
    uint64_t nested;       /* thin: if not 0, the member at this offset of archive `name` */
    bool special;          /* an index or name table, not a member proper */
};

/* Whether the bytes start like an archive. */
bool kld_archive_probe(struct kld_bytes bytes);

/* Reads the special members at the start. On failure *where is the offset of the broken header.
 * The bytes must outlive the archive. */
const char *kld_archive_parse(struct kld_archive *archive, struct kld_bytes bytes, uint64_t *where);

/* The member whose header is at the offset, which need not be trusted. */
const char *kld_archive_member(const struct kld_archive *archive, uint64_t offset,
                               struct kld_archive_member *member);

/* All members proper in order:
 *
 *     uint64_t at = archive.first;
 *     while (kld_archive_next(&archive, &at, &member, &error))
 *         ...
 *     if (error) ... at offset `at`
 */
bool kld_archive_next(const struct kld_archive *archive, uint64_t *at,
                      struct kld_archive_member *member, const char **error);

/* All names of the index in its order:
 *
 *     struct kld_archive_index index = kld_archive_index(&archive);
 *     while (kld_archive_index_next(&index, &name, &offset))
 *         ...
 *     if (index.error) ...
 *
 * offset is that of a member's header, still to be checked by kld_archive_member. Together the
 * names are not much longer than the archive, even if entries of a hostile one overlap. */
struct kld_archive_index {
    const struct kld_archive *archive;
    const char *error;
    uint64_t i;      /* entries read */
    uint64_t string; /* GNU: where the next name starts */
    uint64_t budget; /* bytes of names that may still be returned */
};

struct kld_archive_index kld_archive_index(const struct kld_archive *archive);
bool kld_archive_index_next(struct kld_archive_index *index, struct kld_str *name,
                            uint64_t *offset);

/* Where a thin archive's member is: its name, relative to the directory of the archive unless it
 * is absolute. From the arena, NUL-terminated. */
char *kld_archive_member_path(struct kld_arena *arena, const char *archive_path,
                              struct kld_str name);

#endif
