/* verify.h - --incremental-verify: an output is checked against its state and its inputs.
 *
 * The inputs are resolved anew, all of them, so that nothing depends on what a relink took for
 * unchanged. Then everything gets the place that the state says, and what there has to be is made as a
 * full link makes it, and compared byte by byte. Nothing is written.
 *
 * What a fresh link does not decide is taken from the state, if it is possible at all: places; which
 * of several equal strings is meant; slots that something needed once; with --gc-sections what was
 * needed once. */
#ifndef KLD_SRC_INCREMENTAL_VERIFY_H
#define KLD_SRC_INCREMENTAL_VERIFY_H

#include "src/incremental/record.h"

struct kld_contents;

struct kld_verify {
    struct kld_session *ctx;
    struct kld_state st;
    struct kld_update output; /* open to be looked at */
    /* Sections: the state's, by id, and the session's for each; NULL: it has none of that name */
    const struct kld_state_section *known;
    struct kld_section **sections;
    uint32_t nsections;
    uint32_t *section_ids;           /* by id in the session: in the state, or KLD_STATE_NONE */
    struct kld_file_record *records; /* by file */
    const struct kld_state_symbol *symbols;
    uint32_t *numbers; /* by symbol of the session: in the state, or KLD_STATE_NONE */
    uint64_t *places; /* by symbol: where the definition is; `value` of the state is what is seen */
    bool *moved;      /* by symbol: a jump to it is what is seen, and what the symbol now says */
    struct kld_contents *contents;
};

/* A field that a relocation writes. */
struct kld_field {
    uint64_t start, end;     /* in its atom */
    struct kld_atom *pieces; /* the mergeable section that it refers to, or NULL */
    uint64_t offset;         /* there */
};

/* What the format does of it: kld_updater_ops.verify. All of them report what is wrong. */
struct kld_verify_ops {
    /* scan is done: what the output has slots for is needed as well. */
    void (*needs)(struct kld_verify *v);
    /* synth is done: the format's tables are where the state says. Sections have their places. */
    void (*restore)(struct kld_verify *v);
    /* All has its place, and symbols are what others see. Addresses of symbols are final. */
    void (*addresses)(struct kld_verify *v);
    /* Checks everything but the bytes of the inputs' atoms. */
    void (*check)(struct kld_verify *v);
    /* What relocation number i of the atom writes; false: nothing. */
    bool (*field)(struct kld_verify *v, const struct kld_atom *atom, uint32_t i,
                  struct kld_field *out);
};

/* In the order of the passes: link.c. */
void kld_verify_open(struct kld_session *ctx);
void kld_verify_files(struct kld_session *ctx);
void kld_verify_needs(struct kld_session *ctx);
void kld_verify(struct kld_session *ctx);

/* Where the jump to an atom is that has moved; 0: there is none. */
static inline uint64_t kld_verify_entry(const struct kld_verify *v, const struct kld_state_atom *a)
{
    return a->entry && a->section < v->nsections ? v->known[a->section].addr + a->entry - 1 : 0;
}

#define kld_verify_error(v, where, ...)                                                            \
    kld_error((v)->ctx, "incremental-verify", where, __VA_ARGS__)

/* The bytes of the output, or NULL: reported. */
const uint8_t *kld_verify_output(struct kld_verify *v, uint64_t offset, uint64_t size);
/* Those at an address in a section. */
const uint8_t *kld_verify_output_at(struct kld_verify *v, const struct kld_section *s,
                                    uint64_t addr, uint64_t size);
/* Compares with the output, and reports the first difference as one of `what`. */
void kld_verify_bytes(struct kld_verify *v, const struct kld_section *s, uint64_t addr,
                      const uint8_t *bytes, uint64_t size, const char *what);

/* contents.c: mergeable sections. Looks for each piece in what the output has merged, and gives it the
 * first of the places that it may have. Sections have their places. */
void kld_contents_find(struct kld_verify *v);
/* Whether some piece of the file may have several places. */
bool kld_contents_is_open(const struct kld_verify *v, const struct kld_file *file);
/* The piece is not at the place that it has: the next one. False: there is none. */
bool kld_contents_next(struct kld_verify *v, struct kld_atom *pieces, uint64_t offset);
/* That offset of the section is at this address, and nowhere else. False: it cannot be. */
bool kld_contents_fix(struct kld_verify *v, struct kld_atom *pieces, uint64_t offset,
                      uint64_t address);

/* spaces.c: nothing overlaps, and what belongs to nobody is filled as it has to be. */
void kld_verify_spaces(struct kld_verify *v);

#endif
