/* state.h - the state file: tables of fixed-size records, usable as they are mapped.
 *
 * The file is a header page, a table of page hashes, and the tables. A relink looks at the pages it
 * needs and at no others: a page is checked against its hash when something on it is first asked
 * for. What is damaged reads as zeros and sets `damaged`, which the relink looks at before it
 * changes anything; so that nobody who reads a record needs an error path of his own. Hashes keep
 * out accidents, not malice: what is read is still only used after a check of bounds.
 *
 * Changes are made in memory (the store's bytes are copy-on-write) and written by kld_state_flush,
 * page by page. The state grows at its end only.
 *
 * Records refer to each other by index. Nothing in a state is a pointer. */
#ifndef KLD_SRC_INCREMENTAL_STATE_H
#define KLD_SRC_INCREMENTAL_STATE_H

#include "src/incremental/update.h"

enum { KLD_STATE_PAGE = 4096 };

enum kld_state_table {
    KLD_T_INPUTS,   /* struct kld_state_input: files that were opened, or looked for in vain */
    KLD_T_ITEMS,    /* struct kld_state_item: the list of inputs as it was given */
    KLD_T_FILES,    /* struct kld_state_file: objects and libraries of the link, in its order */
    KLD_T_SECTIONS, /* struct kld_state_section, by id */
    KLD_T_NAMES,    /* uint32_t: 1 + symbol, by hash of its name; open addressing in the
                       2^n slots of its partition (names.h) */
    KLD_T_AUX,      /* the format's numbers of a symbol */
    KLD_T_CHUNKS,   /* struct kld_state_chunk: hashes of the output */
    KLD_T_SLOTS,    /* struct kld_state_slot: free space */
    KLD_T_MERGED,   /* struct kld_state_merged */
    KLD_T_AREAS,    /* struct kld_state_area: merged contents of files that were relinked */
    KLD_T_FORMAT,   /* one record: what else the format knows */
    KLD_T_SYMBOLS,  /* struct kld_state_symbol */
    KLD_T_HEAP,     /* bytes: paths, and the contents of files (record.h) */
    KLD_STATE_TABLES,
};

struct kld_state_header {
    char magic[8];
    uint32_t version;
    uint32_t trusted;  /* 0: a patch was under way */
    uint64_t build[2]; /* of the linker */
    uint64_t search;   /* library path: text in the heap */
    uint32_t search_length;
    uint32_t kept;                 /* 1: the output has a second name (kept.h) */
    uint64_t options[2], items[2]; /* hashes: kld_state_options, kld_state_items */
    struct kld_identity output;
    char boot[KLD_BOOT_ID_SIZE + 4];    /* kld_boot_id when the output was last written */
    uint64_t links, patches, fallbacks; /* counted since the first link of this output */
    uint64_t length;                    /* of the state */
    uint64_t sums, sums_capacity;       /* offset and number of page hashes */
    uint64_t sums_hash;
    uint64_t heap_used;
    struct {
        uint64_t offset, count, capacity; /* records */
        uint32_t stride, unused;
    } tables[KLD_STATE_TABLES];
    char arch[16], format[16];
    uint64_t hash; /* of all before it */
};

enum kld_state_input_kind {
    KLD_INPUT_IS_OBJECT,
    KLD_INPUT_IS_ARCHIVE,
    KLD_INPUT_IS_SHARED,
    KLD_INPUT_IS_TEXT,   /* scripts and all else that is read as a whole */
    KLD_INPUT_IS_ABSENT, /* looked for and not found */
    KLD_INPUT_IS_STREAM, /* a pipe or a device: cannot be read again to see whether it has changed */
};

struct kld_state_input {
    uint64_t path; /* in the heap, of path_length bytes and a NUL */
    uint32_t path_length;
    uint32_t kind;
    struct kld_identity id; /* of a file, or of what the host hands out: kld_identity_of_bytes */
    uint64_t hash;          /* archive: its index; library: its interface; text: its bytes */
    uint32_t first_file, nfiles;
    uint32_t item;  /* 1 + index in the list of inputs: bytes of the host; 0: by its path */
    uint32_t flags; /* KLD_STATE_INPUT_UNREAD */
};
/* An archive of which the state has no hashes: members.h */
enum { KLD_STATE_INPUT_UNREAD = 1 << 0 };

struct kld_state_item {
    uint64_t name; /* in the heap, with a NUL */
    uint32_t name_length, flags;
    uint32_t input; /* an object by its path; else KLD_STATE_NONE */
    uint32_t unused;
};

struct kld_state_file {
    uint32_t input;
    uint32_t flags;  /* KLD_STATE_FILE_* */
    uint64_t member; /* archive: name in the heap, with a NUL */
    uint32_t member_length;
    uint32_t puller;             /* the symbol that brought it from its archive, or KLD_NO_SYMBOL */
    uint64_t offset, size, hash; /* archive: of the member's contents */
    uint64_t turn;               /* archive: of the member in the index: kld_turns; 0: none */
    uint64_t contents, contents_size, contents_capacity; /* in the heap: record.h */
};
enum {
    KLD_STATE_FILE_LAZY = 1 << 0,
    KLD_STATE_FILE_OBJECT = 1 << 1,
    KLD_STATE_FILE_THIN = 1 << 2, /* a member that is a file of its own: input is that file */
};

struct kld_state_section {
    uint64_t name; /* in the heap, with a NUL */
    uint32_t name_length;
    uint32_t type, number, rank;
    uint8_t flags, p2align, relro, nameless;
    uint64_t format_flags, entsize, addr, offset, size, used;
};

/* enum kld_symbol_kind and so on in bits */
struct kld_state_symbol {
    uint64_t hash;  /* kld_name_hash of the name */
    uint64_t value; /* what references see (S) */
    uint64_t place; /* where the definition is */
    uint64_t size;
    uint32_t file;    /* that defines it; KLD_STATE_NONE: none of this link */
    uint32_t section; /* it is defined in; KLD_STATE_NONE */
    uint32_t aux;
    uint32_t number; /* of the format: in the output's symbol table, 0: not there */
    uint16_t needs, version;
    uint8_t kind, type, visibility, other;
    uint8_t bits; /* KLD_STATE_SYM_* */
    uint8_t unused[7];
};
enum {
    KLD_STATE_SYM_WEAK = 1 << 0,
    KLD_STATE_SYM_UNIQUE = 1 << 1,
    KLD_STATE_SYM_EXPORTED = 1 << 2,
    KLD_STATE_SYM_IMPORTED = 1 << 3,
    KLD_STATE_SYM_PREEMPTIBLE = 1 << 4,
    KLD_STATE_SYM_SYNTHETIC = 1 << 5,
    KLD_STATE_SYM_FORCED_LOCAL = 1 << 6,
    KLD_STATE_SYM_DEAD = 1 << 7, /* its atom is not in the output */
};
#define KLD_STATE_NONE UINT32_MAX

struct kld_state_chunk {
    uint64_t offset, size; /* in the output */
    uint64_t hash[2];
};

struct kld_state_slot {
    uint32_t section, unused; /* KLD_STATE_NONE: not in use */
    uint64_t addr, size;
};

/* The merged contents of a group of sections, as the full link made them. */
struct kld_state_merged {
    uint64_t addr, size;
    uint32_t section, entsize;
    uint8_t flags, p2align, strings, aligned, unused[4];
};

struct kld_state_area {
    uint32_t section;
    uint32_t users; /* files; 0: not in use */
    uint64_t addr, size;
};

/* ---- reading and changing ---- */

struct kld_state {
    uint8_t *bytes; /* of the store; writable, private */
    size_t length;
    struct kld_arena *arena;
    struct kld_state_header *header; /* in bytes */
    uint64_t *sums;                  /* in bytes */
    uint8_t *pages;                  /* by page: what is known of it */
    size_t npages;
    uint8_t *tail; /* pages behind length that were added since */
    size_t tail_used, tail_capacity;
    bool damaged, full;
    bool changed; /* some record is */
};

enum kld_state_problem {
    KLD_STATE_OK,
    KLD_STATE_DAMAGED,
    KLD_STATE_VERSION, /* of another version or build of the linker */
    KLD_STATE_UNTRUSTED,
};

/* Looks at the header and no further. bytes: length bytes that stay and may be written to. */
enum kld_state_problem kld_state_open(struct kld_state *st, struct kld_arena *arena, uint8_t *bytes,
                                      size_t length);

/* Records [first, first + count) of a table, checked; zeros, and st->damaged, if they are not all
 * there. Valid until the state is flushed. Never NULL. */
const void *kld_state_get(struct kld_state *st, enum kld_state_table table, uint64_t first,
                          uint64_t count);
/* The same, to be changed. */
void *kld_state_edit(struct kld_state *st, enum kld_state_table table, uint64_t first,
                     uint64_t count);
/* Text in the heap, with a NUL behind it. */
const char *kld_state_text(struct kld_state *st, uint64_t at, uint32_t length);
/* New bytes in the heap; their place. st->full is set if there is no room for them. */
uint64_t kld_state_add(struct kld_state *st, const void *data, uint64_t size, uint64_t capacity);

static inline uint64_t kld_state_count(const struct kld_state *st, enum kld_state_table table)
{
    return st->header->tables[table].count;
}

/* The symbol of that name, or KLD_STATE_NONE. */
uint32_t kld_state_find(struct kld_state *st, struct kld_str name);
uint64_t kld_name_hash(struct kld_str name);

/* Marks the stored state as not to be trusted. False: it cannot be written. */
bool kld_state_distrust(struct kld_state *st, const kld_state_store *store);
/* Writes what has changed, the header last. */
bool kld_state_flush(struct kld_state *st, const kld_state_store *store);

/* ---- making one: state_build.c ---- */

/* Writes `count` of something (symbols; files) from number `first` on into out, which is zero. In any
 * order, on several threads. */
typedef void kld_state_compose(void *arg, uint64_t first, uint64_t count, uint8_t *out);

/* What is composed when the state is written, so that it is never in memory as a whole. */
struct kld_state_part {
    enum kld_state_table table;
    uint64_t offset, size; /* in the table; from the start of a page */
    uint64_t first, count; /* for compose */
    kld_state_compose *compose;
    void *arg;
};

struct kld_state_builder {
    struct kld_session *ctx;
    struct {
        const void *data; /* NULL: made of parts */
        uint64_t count;
        uint32_t stride;
    } tables[KLD_STATE_TABLES];
    KLD_VEC(uint8_t) text; /* where the heap begins */
    uint64_t heap;         /* size of all of it */
    KLD_VEC(struct kld_state_part) parts;
    struct kld_state_header header;
};

/* Text for the heap, with a NUL; its place. Not after the first kld_builder_contents. */
uint64_t kld_builder_text(struct kld_state_builder *b, const char *text, size_t length);
/* count records that stay where they are until kld_builder_write. */
void kld_builder_table(struct kld_state_builder *b, enum kld_state_table table, const void *data,
                       uint64_t count, uint32_t stride);
/* The symbols, of which compose makes some at a time. */
void kld_builder_symbols(struct kld_state_builder *b, uint64_t count, kld_state_compose *compose,
                         void *arg);
/* size bytes more in the heap, for `count` files from number `first` on: their place. */
uint64_t kld_builder_contents(struct kld_state_builder *b, uint64_t size, uint64_t first,
                              uint64_t count, kld_state_compose *compose, void *arg);
/* Replaces what the store has by the new state. The header's fields but those of the container are the
 * caller's. *invalid, if compose sets it, makes it fail. */
bool kld_builder_write(struct kld_state_builder *b, const kld_state_store *store,
                       const atomic_bool *invalid);

/* Of all of the header before the hash. */
uint64_t kld_state_header_hash(const struct kld_state_header *h);
/* Magic number, version and build: a state that this linker trusts. */
void kld_state_stamp(struct kld_state_header *h);

/* The identity of the linker that is running, and of the boot of the system. */
void kld_state_build(uint64_t build[2]);

#endif
