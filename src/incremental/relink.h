/* relink.h - the session in which patching is tried, and what it finds out.
 *
 * A relink is a session like any other, but its graph holds only the files that changed, those that
 * refer to what has moved, and the symbols that these mention; the rest of the program is in the
 * state. Ids of symbols are its own. Nothing is written before all is known: kld_relink_write
 * queues. */
#ifndef KLD_SRC_INCREMENTAL_RELINK_H
#define KLD_SRC_INCREMENTAL_RELINK_H

#include "src/incremental/members.h"
#include "src/incremental/record.h"

enum kld_reason {
    KLD_WHY_NOT_ASKED = 0,
#define KLD_REASON(number, name, slug) KLD_WHY_##name = number,
#include "src/incremental/reasons.def"
#undef KLD_REASON
};

/* A file that is loaded again. */
struct kld_relink_file {
    struct kld_file *file;
    uint32_t number; /* in the state */
    bool changed;    /* else it only refers to what has moved */
    bool differs;    /* in what is in the output */
    struct kld_file_record old;
    struct kld_state_atom *atoms; /* changed: what the state is to say of its atoms */
    KLD_VEC(uint32_t) areas;      /* changed: of merged contents, as the state is to say */
};

struct kld_write {
    uint64_t offset;
    const uint8_t *data;
    size_t size;
};

struct kld_changed_input {
    uint32_t number;        /* in the state */
    struct kld_turns turns; /* of an archive */
};

struct kld_relink {
    struct kld_session *ctx;  /* of the relink */
    struct kld_session *link; /* for which it is tried */
    struct kld_state st;
    struct kld_update update;
    KLD_VEC(struct kld_relink_file) files;
    KLD_VEC(struct kld_changed_input) changed_inputs;
    uint32_t *ids;     /* by symbol of the state: 1 + id in ctx->symbols; 0: not there */
    uint32_t *numbers; /* by id: symbol of the state */
    KLD_VEC(struct kld_write) writes;
    KLD_VEC(struct kld_state_slot) slots; /* free space; section KLD_STATE_NONE: not in use */
    KLD_VEC(struct kld_state_slot) gaps;  /* to be filled */
    const char *error;                    /* the first that the session reported */
    /* For the report: */
    uint32_t natoms, nmoved, nreferences;
    enum kld_reason reason; /* why not; 0: nothing against it so far */
    const char *text;
};

/* Gives up, for that reason if it is the first one. Returns false. */
bool kld_relink_refuse(struct kld_relink *r, enum kld_reason reason, const char *format, ...)
    KLD_PRINTF(3, 4);

/* Whether nothing has been found to be wrong: refuses if the state is damaged, or there was an error. */
bool kld_relink_is_sound(struct kld_relink *r);

/* The id of a symbol of the state, from now on part of the session: its name is set, and what the
 * state says of it but for where it is defined. */
kld_symid kld_relink_symbol(struct kld_relink *r, uint32_t number, struct kld_str name);
static inline const struct kld_state_symbol *kld_relink_known(struct kld_relink *r, kld_symid id)
{
    return kld_state_get(&r->st, KLD_T_SYMBOLS, r->numbers[id], 1);
}

/* Loads file number f of the state as the input now is: parsed, with no atoms yet. NULL if refused. */
struct kld_relink_file *kld_relink_load(struct kld_relink *r, uint32_t f, bool changed);

/* The output as it is, at that file offset; NULL if refused for being out of bounds. */
const uint8_t *kld_relink_output(struct kld_relink *r, uint64_t offset, uint64_t size);
/* Queues what of the bytes differs from the output. They must stay. */
bool kld_relink_write(struct kld_relink *r, uint64_t offset, const uint8_t *data, uint64_t size);
/* The same at an address of a section (for one not in memory: the offset in it). */
bool kld_relink_write_at(struct kld_relink *r, const struct kld_section *s, uint64_t addr,
                         const uint8_t *data, uint64_t size);

/* slots.c: space in a section for so many bytes; its address in *addr and what can be had there in
 * *capacity. False if there is none. */
bool kld_slots_take(struct kld_relink *r, const struct kld_section *s, uint64_t size,
                    uint64_t align, uint64_t *addr, uint64_t *capacity);
/* Gives space back. */
void kld_slots_give(struct kld_relink *r, const struct kld_section *s, uint64_t addr,
                    uint64_t size);
/* Whether size bytes may be written at the start of capacity bytes: the gap behind them must be one
 * that can be filled. */
bool kld_slots_fit(const struct kld_relink *r, const struct kld_section *s, uint64_t size,
                   uint64_t capacity);
/* From the state; back to it. */
void kld_slots_load(struct kld_relink *r);
void kld_slots_store(struct kld_relink *r);
/* Queues what is in gaps. */
void kld_slots_fill(struct kld_relink *r);
/* There is a gap to fill. */
void kld_slots_gap(struct kld_relink *r, uint32_t section, uint64_t addr, uint64_t size);

/* remerge.c: the mergeable sections of the changed files: every piece gets a place, an old one where
 * the program has an equal one, or one in a new area, whose contents are queued. Needs their atoms,
 * live or not. */
bool kld_remerge(struct kld_relink *r);

/* relink.c: decides, and works out what is to be written. The state is open, but nothing is known
 * of it. */
bool kld_relink(struct kld_relink *r);
/* Writes it. False: refused, the output may be gone. */
bool kld_relink_commit(struct kld_relink *r);

#endif
