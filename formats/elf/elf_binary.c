/* elf_binary.c - `-b binary`: any file as an object with its bytes in .data.
 *
 * The object is composed in memory as an assembler would have written it, so that nothing behind
 * the reader knows of it. Its symbols are those of GNU ld: _binary_NAME_start, _end and _size, the
 * name as on the command line with everything but letters and digits turned to '_'. */
#include "formats/elf/elf_binary.h"
#include "formats/elf/elf_arch.h"

enum { NULL_SECTION, DATA, SYMTAB, STRTAB, SHSTRTAB, SECTIONS };
enum { START, END, SIZE, SYMBOLS }; /* in the order of their names */

static const char section_names[] = "\0.data\0.symtab\0.strtab\0.shstrtab";

struct builder {
    uint8_t *out;
    size_t size;
    Elf64_Shdr shdrs[SECTIONS];
};

/* Reserves room for a section and fills in its header. */
static void add(struct builder *b, int number, uint32_t name, uint32_t type, uint64_t flags,
                uint64_t size, uint64_t align)
{
    b->size = kld_align_up(b->size, align);
    b->shdrs[number] = (Elf64_Shdr){.sh_name = name,
                                    .sh_type = type,
                                    .sh_flags = flags,
                                    .sh_offset = b->size,
                                    .sh_size = size,
                                    .sh_addralign = align};
    b->size += size;
}

static char *symbol_stem(struct kld_arena *arena, const char *name)
{
    char *stem = kld_arena_strndup(arena, name, strlen(name));
    for (char *c = stem; *c; c++)
        if (!((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z')))
            *c = '_';
    return stem;
}

struct kld_bytes elf_binary_object(struct kld_session *ctx, const char *name,
                                   struct kld_bytes bytes)
{
    const char *stem = symbol_stem(&ctx->arena, name);
    char *names = kld_arena_printf(&ctx->arena, "_binary_%s_start|_binary_%s_end|_binary_%s_size|",
                                   stem, stem, stem);
    size_t names_size = strlen(names) + 1;
    const struct elf_arch_ops *arch = ctx->arch->by_format[0];
    struct builder b = {.size = sizeof(Elf64_Ehdr)};
    add(&b, DATA, 1, SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, bytes.len, 1);
    add(&b, SYMTAB, 7, SHT_SYMTAB, 0, (1 + SYMBOLS) * sizeof(Elf64_Sym), 8);
    b.shdrs[SYMTAB].sh_link = STRTAB;
    b.shdrs[SYMTAB].sh_info = 1;
    b.shdrs[SYMTAB].sh_entsize = sizeof(Elf64_Sym);
    add(&b, STRTAB, 15, SHT_STRTAB, 0, names_size, 1);
    add(&b, SHSTRTAB, 23, SHT_STRTAB, 0, sizeof(section_names), 1);
    uint64_t shoff = kld_align_up(b.size, 8);
    b.size = shoff + sizeof(b.shdrs);
    b.out = kld_arena_alloc(&ctx->arena, b.size, 16);
    Elf64_Ehdr eh = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_REL,
        .e_machine = arch->machine,
        .e_version = EV_CURRENT,
        .e_shoff = shoff,
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_shentsize = sizeof(Elf64_Shdr),
        .e_shnum = SECTIONS,
        .e_shstrndx = SHSTRTAB};
    memcpy(b.out, &eh, sizeof(eh));
    memcpy(b.out + shoff, b.shdrs, sizeof(b.shdrs));
    if (bytes.len)
        memcpy(b.out + b.shdrs[DATA].sh_offset, bytes.ptr, bytes.len);
    memcpy(b.out + b.shdrs[SHSTRTAB].sh_offset, section_names, sizeof(section_names));
    char *strings = (char *)b.out + b.shdrs[STRTAB].sh_offset;
    /* The bars become the ends of the names; the table's first byte is the empty name. */
    memcpy(strings + 1, names, names_size - 1);
    size_t at = 1;
    for (size_t i = 0; i < SYMBOLS; i++) {
        Elf64_Sym sym = {.st_name = (uint32_t)at,
                         .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE),
                         .st_shndx = i == SIZE ? SHN_ABS : DATA,
                         .st_value = i == START ? 0 : bytes.len};
        memcpy(b.out + b.shdrs[SYMTAB].sh_offset + (i + 1) * sizeof(sym), &sym, sizeof(sym));
        at += strcspn(strings + at, "|");
        strings[at++] = 0;
    }
    return (struct kld_bytes){b.out, b.size};
}
