/* elf_version.h - symbol versions, in and out: elf_version.c. */
#ifndef KLD_ELF_VERSION_H
#define KLD_ELF_VERSION_H

#include "formats/elf/elf_object.h"

/* load: reads version scripts and dynamic lists. */
void elf_versions_read(struct kld_session *ctx);

/* Gives every definition its version and locality (sym->version, forced_local); connects references to foo@V
 * with definitions of foo@@V; defines a symbol for each version. */
void elf_versions_assign(struct kld_session *ctx);

/* Whether --dynamic-list, --export-dynamic-symbol or one of their kin names the symbol. */
bool elf_in_dynamic_list(struct kld_session *ctx, struct kld_worker *worker,
                         const struct kld_symbol *sym);

/* .gnu.version, .gnu.version_d, .gnu.version_r for elf_link.dynsyms. */
void elf_versions_synth(struct kld_session *ctx);

/* Entries of the tables, for DT_VERDEFNUM and DT_VERNEEDNUM. */
uint32_t elf_verdef_count(const struct kld_session *ctx);
uint32_t elf_verneed_count(const struct kld_session *ctx);

/* The name of an exported symbol's version, or an empty string; *is_default: foo@@V. */
struct kld_str elf_version_name(const struct kld_session *ctx, const struct kld_symbol *sym,
                                bool *is_default);

/* The name in .dynsym: without a version suffix. */
struct kld_str elf_dynamic_name(const struct kld_symbol *sym);

#endif
