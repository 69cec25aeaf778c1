/* record.h - a full link becomes a state: what is kept of each file, and who writes it down.
 *
 * The contents of a file are one block of the heap, in this order, each part 8-byte aligned:
 *
 *     struct kld_state_contents
 *     uint32_t symbols[nnames]     the symbol of its name i, as in kld_file.ids
 *     uint8_t classes[nnames]      kld_file.classes when groups had been decided, and bits of
 *                                  what became of the group of that name
 *     struct kld_state_atom atoms[natoms]
 *     uint32_t areas[nareas]       of merged contents that only later versions of the file use
 *     the format's own bytes */
#ifndef KLD_SRC_INCREMENTAL_RECORD_H
#define KLD_SRC_INCREMENTAL_RECORD_H

#include "src/incremental/state.h"

struct kld_state_contents {
    uint32_t nnames, nglobals, natoms, nareas;
    uint64_t format_size;
};

/* classes: of the signature of a group that the file has */
enum { KLD_RECORD_DISCARDED = 1 << 6, KLD_RECORD_GROUP = 1 << 7, KLD_RECORD_CLASS = 0x37 };

struct kld_state_atom {
    uint64_t addr; /* as kld_atom.addr after layout */
    uint32_t name; /* kld_record_name of what the input calls it */
    uint32_t size, capacity;
    uint32_t
        entry; /* where a jump to it is, for what refers to its start: 1 + offset in the section */
    uint16_t section; /* of at most KLD_STATE_MOST_SECTIONS */
    uint8_t kind, flags, p2align, live, unused[2];
};

/* No state has more: loops over one thing in the state for each of another stay short. */
enum { KLD_STATE_MOST_SECTIONS = 1 << 16, KLD_STATE_SPARE_SLOTS = 1024 };

/* What is said of a section of an output of that size is possible: who uses it does not ask again. */
static inline bool kld_record_section_is_sound(const struct kld_state_section *s, uint64_t output)
{
    return s->p2align < 64 && s->size <= UINT64_MAX - s->addr &&
           ((s->flags & KLD_ATOM_ZERO) || kld_in_bounds(s->offset, s->size, output));
}

/* kld_state_atom.kind: whether there was padding to take out is no matter. */
static inline uint8_t kld_record_kind(const struct kld_atom *atom)
{
    return atom->kind == KLD_ATOM_SHRUNK ? KLD_ATOM_BYTES : atom->kind;
}

/* Equal hashes of two names in a file make patches larger, not wrong. */
static inline uint32_t kld_record_name(struct kld_str name)
{
    return (uint32_t)kld_name_hash(name);
}

/* The parts of a file's contents, in memory. */
struct kld_file_record {
    struct kld_state_contents head;
    uint32_t *symbols;
    uint8_t *classes;
    struct kld_state_atom *atoms;
    uint32_t *areas;
    uint8_t *format;
};

/* Size of a block for that head; points the record at its parts in block if that is not NULL. */
uint64_t kld_record_parts(const struct kld_state_contents *head, uint8_t *block,
                          struct kld_file_record *record);

/* Reads that of file number f; parts of no length, and st->damaged, if it is damaged. */
void kld_record_get(struct kld_state *st, uint32_t f, struct kld_file_record *record);

/* The same for one file after the other: *total, 0 at first, is what those read so far take in the heap,
 * which cannot be more than there is. */
void kld_record_get_next(struct kld_state *st, uint32_t f, struct kld_file_record *record,
                         uint64_t *total);

/* After a full link with slack: puts its state into the store. False if that cannot be written, or the
 * link is one that cannot be recorded. */
bool kld_record_link(struct kld_session *ctx);

/* Hashes of the options, and of the list of inputs. */
void kld_record_options(struct kld_session *ctx, uint64_t hash[2]);
void kld_record_items(struct kld_session *ctx, uint64_t hash[2]);
/* The folders of the library path, a newline behind each; before scripts add to them. */
const char *kld_record_search(struct kld_session *ctx);

#endif
