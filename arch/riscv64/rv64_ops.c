/* rv64_ops.c - riscv64 as the core sees it: names, page size, and what it does for each format. */
#include "src/ops.h"

struct elf_arch_ops;
extern const struct elf_arch_ops rv64_elf;

static const char *const emulations[] = {"elf64lriscv", "elf64lriscv_lp64f", "elf64lriscv_lp64",
                                         NULL};

/* Where Debian's riscv64-linux-gnu-ld looks for libraries, in its order. */
static const char *const library_path[] = {
    "=/usr/local/lib/riscv64-linux-gnu",
    "=/lib/riscv64-linux-gnu",
    "=/usr/lib/riscv64-linux-gnu",
    "=/usr/local/lib64/lp64d",
    "=/usr/local/lib64",
    "=/lib64/lp64d",
    "=/lib64",
    "=/usr/lib64/lp64d",
    "=/usr/lib64",
    "=/usr/local/lib",
    "=/lib",
    "=/usr/lib",
    "=/usr/riscv64-linux-gnu/lib64/lp64d",
    "=/usr/riscv64-linux-gnu/lib64",
    "=/usr/riscv64-linux-gnu/lib",
    NULL,
};

const struct kld_arch_ops kld_arch_riscv64 = {
    .name = "riscv64",
    .emulations = emulations,
    .max_page_size = 0x1000,
    .common_page_size = 0x1000,
    .image_base = 0x10000,
    .dynamic_linker = "/lib/ld-linux-riscv64-lp64d.so.1",
    .library_path = library_path,
    .by_format = {&rv64_elf, NULL, NULL},
};
