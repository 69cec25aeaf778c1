/* a64_ops.c - aarch64 as the core sees it: names, page size, and what it does for each format. */
#include "src/ops.h"

struct elf_arch_ops;
extern const struct elf_arch_ops a64_elf;

static const char *const emulations[] = {"aarch64linux", "aarch64elf", NULL};

/* Where Debian's aarch64-linux-gnu-ld looks for libraries, in its order. */
static const char *const library_path[] = {
    "=/usr/local/lib/aarch64-linux-gnu",
    "=/lib/aarch64-linux-gnu",
    "=/usr/lib/aarch64-linux-gnu",
    "=/usr/local/lib",
    "=/lib",
    "=/usr/lib",
    "=/usr/aarch64-linux-gnu/lib",
    NULL,
};

const struct kld_arch_ops kld_arch_aarch64 = {
    .name = "aarch64",
    .emulations = emulations,
    .max_page_size = 0x10000,
    .common_page_size = 0x1000,
    .image_base = 0x400000,
    .dynamic_linker = "/lib/ld-linux-aarch64.so.1",
    .library_path = library_path,
    .by_format = {&a64_elf, NULL, NULL},
};
