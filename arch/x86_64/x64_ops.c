/* x64_ops.c - x86-64 as the core sees it: names, page size, and what it does for each format. */
#include "src/ops.h"

struct elf_arch_ops;
extern const struct elf_arch_ops x64_elf;

static const char *const emulations[] = {"elf_x86_64", NULL};

/* Where GNU ld of Debian looks for libraries, in its order. */
static const char *const library_path[] = {
    "=/usr/local/lib/x86_64-linux-gnu",
    "=/lib/x86_64-linux-gnu",
    "=/usr/lib/x86_64-linux-gnu",
    "=/usr/lib/x86_64-linux-gnu64",
    "=/usr/local/lib64",
    "=/lib64",
    "=/usr/lib64",
    "=/usr/local/lib",
    "=/lib",
    "=/usr/lib",
    "=/usr/x86_64-linux-gnu/lib64",
    "=/usr/x86_64-linux-gnu/lib",
    NULL,
};

const struct kld_arch_ops kld_arch_x86_64 = {
    .name = "x86-64",
    .emulations = emulations,
    .max_page_size = 0x1000,
    .common_page_size = 0x1000,
    .image_base = 0x400000,
    .dynamic_linker = "/lib64/ld-linux-x86-64.so.2",
    .library_path = library_path,
    .by_format = {&x64_elf, NULL, NULL},
};
