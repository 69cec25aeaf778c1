/* gate.h - whether an output may be patched at all: relink.c asks in this order. gate.c.
 *
 * Each returns false if it has refused (kld_relink_refuse). */
#ifndef KLD_SRC_INCREMENTAL_GATE_H
#define KLD_SRC_INCREMENTAL_GATE_H

#include "src/incremental/relink.h"

/* Options and list of inputs are those of the last link. */
bool kld_gate_request(struct kld_relink *r);

/* The output is the file that the last link wrote: r->update is open. */
bool kld_gate_output(struct kld_relink *r);

/* Needs the session: what has changed among the inputs is an object, or does not matter
 * (r->changed_inputs). */
bool kld_gate_inputs(struct kld_relink *r);

/* The output holds what was written, by its hashes where its times do not say so. */
bool kld_gate_contents(struct kld_relink *r);

/* The bytes of an input as they are now. */
bool kld_gate_open_input(struct kld_relink *r, const struct kld_state_input *in,
                         struct kld_bytes *bytes);

#endif
