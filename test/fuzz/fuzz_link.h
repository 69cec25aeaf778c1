/* fuzz_link.h - links the bytes of a fuzzer as an input, between small fixed ones, to memory. */
#ifndef KLD_TEST_FUZZ_LINK_H
#define KLD_TEST_FUZZ_LINK_H

#include <kld/kld.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

/* The host's memory, of which there is an end: an input must not ask for what it is not worth. */
struct fuzz_memory {
    size_t used;
};

enum { FUZZ_MOST_MEMORY = 1 << 30 };

static void *fuzz_alloc(void *context, size_t size)
{
    struct fuzz_memory *memory = context;
    if (size > FUZZ_MOST_MEMORY - memory->used)
        return NULL;
    memory->used += size;
    return calloc(1, size);
}

static void fuzz_free(void *context, void *block, size_t size)
{
    struct fuzz_memory *memory = context;
    memory->used -= size;
    free(block);
}

static bool fuzz_no_files(void *context, const char *path, const void **data, size_t *length)
{
    (void)context, (void)path, (void)data, (void)length;
    return false;
}

static void fuzz_message(void *context, const kld_message *message)
{
    (void)context;
    if (message->severity == KLD_ERROR && (!message->text || !*message->text))
        abort();
}

/* An object that defines _start, which refers to `used`, `pointer` and `thread`. */
struct fuzz_start {
    Elf64_Ehdr ehdr;
    uint8_t text[32];
    Elf64_Rela rela[3];
    Elf64_Sym syms[5];
    char strtab[40];
    char shstrtab[48];
    Elf64_Shdr shdrs[6];
};

#define FUZZ_PART(member)                                                                          \
    offsetof(struct fuzz_start, member), sizeof(((struct fuzz_start *)0)->member)

static const struct fuzz_start fuzz_start = {
    .ehdr = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
             .e_type = ET_REL,
             .e_machine = EM_X86_64,
             .e_version = EV_CURRENT,
             .e_shoff = offsetof(struct fuzz_start, shdrs),
             .e_ehsize = sizeof(Elf64_Ehdr),
             .e_shentsize = sizeof(Elf64_Shdr),
             .e_shnum = 6,
             .e_shstrndx = 5},
    .rela = {{1, ELF64_R_INFO(2, R_X86_64_PLT32), -4},
             {8, ELF64_R_INFO(3, R_X86_64_GOTPCREL), -4},
             {16, ELF64_R_INFO(4, R_X86_64_GOTTPOFF), -4}},
    .syms = {{0},
             {1, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), 0, 1, 0, 32},
             {8, ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE), 0, 0, 0, 0},
             {13, ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE), 0, 0, 0, 0},
             {21, ELF64_ST_INFO(STB_WEAK, STT_TLS), 0, 0, 0, 0}},
    .strtab = "\0_start\0used\0pointer\0thread",
    .shstrtab = "\0.text\0.rela.text\0.symtab\0.strtab\0.shstrtab",
    .shdrs = {{0},
              {1, SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, 0, FUZZ_PART(text), 0, 0, 16, 0},
              {7, SHT_RELA, 0, 0, FUZZ_PART(rela), 3, 1, 8, sizeof(Elf64_Rela)},
              {18, SHT_SYMTAB, 0, 0, FUZZ_PART(syms), 4, 1, 8, sizeof(Elf64_Sym)},
              {26, SHT_STRTAB, 0, 0, FUZZ_PART(strtab), 0, 0, 1, 0},
              {34, SHT_STRTAB, 0, 0, FUZZ_PART(shstrtab), 0, 0, 1, 0}},
};

/* The same for the machine that the bytes are for, if there is one. Types: a call, a slot of the GOT,
 * a slot with an offset of thread-local storage. */
static struct fuzz_start fuzz_start_for(const uint8_t *data, size_t size)
{
    static const struct {
        Elf64_Half machine;
        uint32_t types[3];
    } others[] = {
        {EM_AARCH64,
         {R_AARCH64_CALL26, R_AARCH64_ADR_GOT_PAGE, R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21}},
        {EM_RISCV, {R_RISCV_CALL_PLT, R_RISCV_GOT_HI20, R_RISCV_TLS_GOT_HI20}},
    };
    struct fuzz_start start = fuzz_start;
    Elf64_Half machine = size < 20 ? EM_NONE : (Elf64_Half)(data[18] | data[19] << 8);
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        if (others[i].machine != machine)
            continue;
        start.ehdr.e_machine = machine;
        for (int k = 0; k < 3; k++) {
            start.rela[k].r_offset &= ~3ull;
            start.rela[k].r_addend = 0;
            start.rela[k].r_info =
                ELF64_R_INFO(ELF64_R_SYM(start.rela[k].r_info), others[i].types[k]);
        }
    }
    return start;
}

static void fuzz_add(kld_session *s, const char *name, const void *data, size_t size)
{
    kld_input in = {.size = sizeof(in), .name = name, .data = data, .length = size};
    kld_add_input(s, &in);
}

/* One link with those options, "name=value" each, up to NULL. */
static void fuzz_link(const uint8_t *data, size_t size, const char *const *options)
{
    struct fuzz_memory memory = {0};
    kld_host host = {.size = sizeof(host),
                     .context = &memory,
                     .alloc = fuzz_alloc,
                     .free = fuzz_free,
                     .message = fuzz_message,
                     .open_file = fuzz_no_files};
    kld_session *s = kld_new(&host);
    if (!s)
        abort();
    kld_set(s, "output-memory", "1");
    kld_set(s, "threads", "1");
    kld_set(s, "unresolved-symbols", "ignore-all");
    for (; *options; options++) {
        char name[64];
        const char *value = strchr(*options, '=');
        memcpy(name, *options, (size_t)(value - *options));
        name[value - *options] = 0;
        if (kld_set(s, name, value + 1) != KLD_OK)
            abort();
    }
    struct fuzz_start start = fuzz_start_for(data, size);
    fuzz_add(s, "start.o", &start, sizeof(start));
    fuzz_add(s, "input", data, size);
    if (kld_link(s) == KLD_INTERNAL)
        abort();
    kld_free(s);
    if (memory.used)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
