/* ops.h - the two seams of the linker: what a format and what a CPU must provide.
 *
 * Everything in src/ works through these tables. A new format or CPU adds a folder and a line
 * in targets.c. */
#ifndef KLD_SRC_OPS_H
#define KLD_SRC_OPS_H

#include "src/graph.h"

struct kld_arch_ops;
struct kld_content;
struct kld_relink;
struct kld_slack_rule;
struct kld_state_builder;
struct kld_state_chunk;
struct kld_verify_ops;
/* gc: keeps an atom. From any thread, with its own worker. */
typedef void kld_mark(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom);

/* Symbols that some edge has led to already */
struct kld_seen {
    _Atomic uint8_t *global; /* by id */
    uint64_t *own;           /* of the atom's file, a bit each */
};

enum kld_probe {
    KLD_PROBE_NONE, /* not of this format */
    KLD_PROBE_OBJECT,
    KLD_PROBE_SHARED,
    KLD_PROBE_PROGRAM,     /* a linked program: for --just-symbols; else *why says why not */
    KLD_PROBE_UNSUPPORTED, /* of this format, but not linkable: *why says why */
};

/* A relocation as generic passes see it: decoded on the fly from the input's table. */
struct kld_edge {
    uint64_t offset; /* in the atom */
    int64_t addend;
    struct kld_symbol *symbol; /* global target, or NULL */
    struct kld_atom *atom;     /* target's atom when it is defined in one, or NULL */
    uint64_t value;            /* offset of the target in `atom` (without the addend) */
    uint32_t type;             /* the CPU's number; only to be compared with one of the same kind */
};

/* Where icf_more says what there is. */
struct kld_sink {
    void (*bytes)(struct kld_sink *sink, const void *data, size_t size);
    void (*edge)(struct kld_sink *sink, const struct kld_edge *edge);
};

/* A local symbol, for messages and the map file. */
struct kld_local {
    struct kld_str name;
    const struct kld_atom *atom; /* NULL: in none that is part of the output */
    uint64_t value, size;        /* in the atom */
    uint8_t type;                /* enum kld_symbol_type */
};

/* How a format takes part in incremental links. */
struct kld_updater_ops {
    /* What room for edits the section may have (incremental/slack.h). */
    struct kld_slack_rule (*slack_rule)(const struct kld_session *ctx, const struct kld_section *s);
    /* Writes what is in a gap: size > 0 bytes from that offset in the section on. The gap may be
     * any that keeps to the rule, and means nothing to whoever walks the section. */
    void (*fill)(const struct kld_session *ctx, const struct kld_section *s, uint64_t offset,
                 uint8_t *out, uint64_t size);

    /* After a full link, for its state (incremental/record.h): the tables KLD_T_AUX and
     * KLD_T_FORMAT; */
    void (*record)(struct kld_session *ctx, struct kld_state_builder *b);
    /* what is to be known of a file beyond its names and atoms: to out, if that is not NULL; its
     * size; */
    size_t (*record_file)(struct kld_session *ctx, const struct kld_file *file, uint8_t *out);
    /* the numbers that symbols have in the output's symbol table, by id; NULL: there is none. */
    const uint32_t *(*symbol_numbers)(struct kld_session *ctx);
    /* A hash of what a link with the (parsed) shared library depends on. */
    uint64_t (*interface)(struct kld_session *ctx, const struct kld_file *file);

    /* All of a relink but the writing (incremental/relink.h): r->files are loaded. */
    bool (*relink)(struct kld_relink *r);
    /* The hash of a chunk of the output as it is now, made as seal wants it. */
    bool (*hash_chunk)(struct kld_relink *r, const struct kld_state_chunk *chunk, uint64_t hash[2]);
    /* Queues what depends on the hashes. */
    bool (*seal)(struct kld_relink *r);

    /* --incremental-verify: incremental/verify.h. */
    const struct kld_verify_ops *verify;
};

struct kld_format_ops {
    const char *name;
    /* NULL: outputs are never patched, and have no slack. */
    const struct kld_updater_ops *updater;

    /* What the bytes are. On OBJECT and SHARED *arch is the CPU. */
    enum kld_probe (*probe)(struct kld_bytes bytes, const struct kld_arch_ops **arch,
                            const char **why);
    /* A new file of this format, not yet parsed (the format's own, larger struct). */
    struct kld_file *(*new_file)(struct kld_session *ctx, struct kld_arena *arena,
                                 enum kld_file_kind kind);
    /* Reads headers and symbols: allocates ids[nnames] and classes[nnames], fills classes and
     * groups. In parallel, one file a thread. Reports errors and sets file->broken. */
    void (*parse)(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file);
    /* The name with number i < nnames of a parsed file. */
    struct kld_str (*name_at)(const struct kld_file *file, uint32_t i);

    /* Optional, all three. A shared library whose definitions can be looked up by name need not have them among its
     * names from the beginning; parse says in file->unlisted how many these are at most. list adds them all, without
     * ids. In parallel, one file a thread. */
    void (*list)(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file);
    /* Adds to the names of these libraries, with ids, what they define of the names with these ids, and what comes along
     * with that, for which names may be interned. The rest of the link has no use for the others. */
    void (*ask)(struct kld_session *ctx, struct kld_arena *scratch, struct kld_file **libs,
                size_t nlibs, const kld_symid *ids, size_t nids);
    /* Number i < file->unlisted of those, for messages; ptr is NULL if it is none. */
    struct kld_str (*unlisted)(const struct kld_file *file, uint32_t i);

    /* Whether two shared libraries are the same to the loader. */
    bool (*same_library)(const struct kld_file *a, const struct kld_file *b);

    /* Once, when the target is known: the format's state. */
    void (*begin)(struct kld_session *ctx);
    /* Once, when all scripts have been read: kld_builtin_name for what only the format knows of. */
    void (*builtin_names)(struct kld_session *ctx);
    /* -b binary: an object that holds the bytes, and symbols for their start, end and size made
     * from the name. */
    struct kld_bytes (*binary_object)(struct kld_session *ctx, const char *name,
                                      struct kld_bytes bytes);
    /* Groups are decided (group.discarded): definitions inside discarded ones become references
     * (classes), and atoms are made of the sections that stay. In parallel. */
    void (*make_atoms)(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file);
    /* An input section of that type and flags joins the output section. The order in which
     * inputs come must not matter. */
    void (*combine)(struct kld_section *section, uint32_t type, uint64_t flags, uint64_t entsize);
    /* Fills in the symbol of each name of which this file has the definition that won
     * (kld_resolve_won). In parallel. */
    void (*bind)(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file);
    /* The atom in which the file defines its name number i, or NULL, and the offset there. */
    const struct kld_atom *(*definition)(const struct kld_file *file, uint32_t i, uint64_t *offset);
    /* Whether that definition is a plain number, and which. */
    bool (*is_absolute)(const struct kld_file *file, uint32_t i, uint64_t *value);
    /* Once, after all files are bound: linker-defined symbols, COMMON, versions, exports. */
    void (*bind_all)(struct kld_session *ctx);

    /* The section whose address is that of the image: what a symbol is relative to that moves with
     * the image but is in no section. */
    struct kld_section *(*anchor)(struct kld_session *ctx);
    /* The address of a symbol, once addresses are final. */
    uint64_t (*symbol_address)(const struct kld_session *ctx, const struct kld_symbol *sym);

    /* The address in the output of an offset that the input has in the atom. */
    uint64_t (*place_address)(const struct kld_atom *atom, uint64_t offset);

    /* What the input calls an atom (its section), for messages. */
    struct kld_str (*atom_name)(const struct kld_atom *atom);
    /* How many symbols of a file are its own: the numbers that `seen.own` of `edges` has bits for. */
    uint32_t (*own_symbols)(const struct kld_file *file);
    /* Decodes up to cap edges of the atom beginning with number *from; returns how many and
     * moves *from; 0 at the end. Edges that lead nowhere (no symbol, no atom) are left out; and, if `seen`
     * is not NULL, those to symbols that are set there, as these then are. */
    size_t (*edges)(struct kld_session *ctx, const struct kld_atom *atom, size_t *from,
                    struct kld_edge *out, size_t cap, const struct kld_seen *seen);
    /* gc: calls mark for every atom that is kept whatever refers to it. Once. */
    void (*gc_roots)(struct kld_session *ctx, kld_mark *mark);
    /* gc: calls mark for what lives because this atom does, beside its edges (unwind data, other
     * members of its group). In parallel. */
    void (*gc_follow)(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom,
                      kld_mark *mark);
    /* gc: the same for a symbol without an atom that a live atom refers to (__start_NAME).
     * In parallel. */
    void (*gc_symbol)(struct kld_session *ctx, struct kld_worker *worker,
                      const struct kld_symbol *sym, kld_mark *mark);

    /* icf: calls keep for every live atom that must not be folded, of those that are bytes in
     * memory which nobody may write. Once. */
    void (*icf_keep)(struct kld_session *ctx, kld_mark *keep);
    /* icf: beside its bytes and edges, what of an atom must be equal (unwind data). In parallel. */
    void (*icf_more)(struct kld_session *ctx, const struct kld_atom *atom, struct kld_sink *sink);

    /* The live set is final, and what symbols are: readies what scan looks up. */
    void (*scan_begin)(struct kld_session *ctx);
    /* The live set is final: notes what each live atom of the file needs. In parallel. */
    void (*scan)(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file);
    /* Needs become atoms; the format's tables are added. No new symbols after it. */
    void (*synth)(struct kld_session *ctx);
    /* Orders the sections (session.order) and makes the segments. */
    void (*place)(struct kld_session *ctx);
    /* Gives every section of the order, and every segment, its address and file offset. */
    void (*layout)(struct kld_session *ctx);
    /* Addresses are final: contents of the tables that depend on them. */
    void (*finish)(struct kld_session *ctx);
    /* Applies the atom's edges to its bytes at out (already copied). In parallel. */
    void (*apply)(struct kld_session *ctx, struct kld_worker *worker, const struct kld_atom *atom,
                  uint8_t *out);
    /* Where atoms of kind RECORDS are written (already zeroed). In parallel. */
    void (*write_records)(struct kld_session *ctx, struct kld_worker *worker,
                          const struct kld_atom *atom, uint8_t *out);
    /* The bytes are written, all but what depends on them (build id). hashes: one 16-byte hash
     * a chunk, in file order, `size` bytes in all. */
    void (*seal)(struct kld_session *ctx, const uint8_t *hashes, size_t size);

    /* Optional. Writes a parsed object in canonical form (content.h). Reports what is malformed. */
    void (*describe)(struct kld_session *ctx, const struct kld_file *file, struct kld_content *to);

    /* Optional. Local symbol number i of a file; false: there are no more. */
    bool (*local)(const struct kld_file *file, uint32_t i, struct kld_local *out);
};

struct kld_arch_ops {
    const char *name;              /* "x86-64" */
    const char *const *emulations; /* names for -m, NULL-terminated; the first is printed */
    uint64_t max_page_size, common_page_size;
    uint64_t image_base;             /* of programs at a fixed address */
    uint8_t code_fill;               /* byte between functions */
    const char *dynamic_linker;      /* of the usual C library */
    const char *const *library_path; /* default, NULL-terminated; '=' is the sysroot */
    /* What it does for each format, in the order of kld_formats; NULL: not built. */
    const void *by_format[3];
};

/* targets.c: all that are built, NULL-terminated. */
extern const struct kld_format_ops *const kld_formats[];
extern const struct kld_arch_ops *const kld_archs[];

#endif
