/* targets.c - the one list of what is built: formats and CPUs. */
#include "src/ops.h"

extern const struct kld_format_ops kld_format_elf;
extern const struct kld_arch_ops kld_arch_aarch64;
extern const struct kld_arch_ops kld_arch_riscv64;
extern const struct kld_arch_ops kld_arch_x86_64;

const struct kld_format_ops *const kld_formats[] = {
    &kld_format_elf,
    NULL,
};

const struct kld_arch_ops *const kld_archs[] = {
    &kld_arch_x86_64,
    &kld_arch_aarch64,
    &kld_arch_riscv64,
    NULL,
};
