/* elf_slack.h - room for edits in ELF sections: which may have some, and what is in the gaps. */
#ifndef KLD_ELF_SLACK_H
#define KLD_ELF_SLACK_H

#include "formats/elf/elf_tables.h"

extern const struct kld_updater_ops elf_updater;

/* synth, with slack: the atoms that what is in gaps of debug information refers to. */
void elf_slack_synth(struct kld_session *ctx);

#endif
