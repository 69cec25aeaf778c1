/* fuzz_state - a state whose hashes are right and whose contents are anybody's: small objects are linked
 * with "incremental", the state is edited and sealed again, one of the objects is edited, and the next
 * link must come to an end, patched or full. What its output is like does not matter: a state is guarded
 * against accidents only.
 *
 * An input is a byte of options (MODE_*), a byte for the edited object, and edits of 12 bytes: struct edit. */
#define XXH_INLINE_ALL
#include <kld/kld.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "src/incremental/state.h"

enum {
    MODE_SHARED = 1 << 0, /* a library instead of a program */
    MODE_GC = 1 << 1,
    MODE_ARCHIVE = 1 << 2,  /* the edited object is a member of an archive */
    MODE_VERIFY = 1 << 3,   /* --incremental-verify of the edited state as well */
    MODE_BUILD_ID = 1 << 4, /* and an index of unwind records */
    MODE_AGAIN = 1 << 5,    /* the object is edited once more */
};

struct edit {
    uint8_t table; /* of KLD_STATE_TABLES, which is the header; taken modulo */
    uint8_t how;   /* EDIT_*, and 2 bits for the width */
    uint8_t offset[2];
    uint8_t value[8];
};
enum { EDIT_SET, EDIT_ADD, EDIT_XOR, EDIT_COPY };

/* ---- the host ---- */

enum { MOST_MEMORY = 64 << 20 }; /* what a state claims must not be believed */

static void *take(void *context, size_t size)
{
    size_t *used = context;
    if (size > MOST_MEMORY - *used)
        abort();
    *used += size;
    return calloc(1, size);
}

static void give(void *context, void *block, size_t size)
{
    *(size_t *)context -= size;
    free(block);
}

static bool no_files(void *context, const char *path, const void **data, size_t *length)
{
    (void)context, (void)path, (void)data, (void)length;
    return false;
}

static void hear(void *context, const kld_message *message)
{
    (void)context;
    if (!message->text || strlen(message->text) > 1 << 20)
        abort();
}

/* ---- objects ---- */

/* One of two that call each other, as variant v: its code and data, strings, unwind records. */
enum {
    LONGER = 1 << 0,   /* its code grows */
    STRINGS = 1 << 1,  /* other strings */
    NEW_GOT = 1 << 2,  /* it has a use of the GOT that it had not */
    DATA = 1 << 3,     /* its data grows */
    NO_CALL = 1 << 4,  /* it does not call any more */
    FAR = 1 << 5,      /* its code grows out of its place */
    UNIT = 1 << 6,     /* its function does not begin its section */
    NO_UNWIND = 1 << 7 /* it has no unwind records any more */
};

struct builder {
    uint8_t bytes[4096];
    size_t used;
    Elf64_Shdr shdrs[12];
    Elf64_Half nshdrs;
    char names[200];
    size_t nnames;
};

static Elf64_Word add_name(struct builder *b, const char *name)
{
    size_t at = b->nnames;
    memcpy(b->names + at, name, strlen(name) + 1);
    b->nnames += strlen(name) + 1;
    return (Elf64_Word)at;
}

static Elf64_Half add_section(struct builder *b, Elf64_Shdr header, const char *name,
                              const void *data, size_t size)
{
    b->used = (b->used + 7) & ~(size_t)7;
    header.sh_name = add_name(b, name);
    header.sh_offset = b->used;
    header.sh_size = size;
    memcpy(b->bytes + b->used, data, size);
    b->used += size;
    b->shdrs[b->nshdrs] = header;
    return b->nshdrs++;
}

static void add_relocations(struct builder *b, Elf64_Half of, const char *name,
                            const Elf64_Rela *rela, size_t n)
{
    Elf64_Shdr header = {.sh_type = SHT_RELA,
                         .sh_link = 8,
                         .sh_info = of,
                         .sh_entsize = sizeof(*rela),
                         .sh_addralign = 8};
    add_section(b, header, name, rela, n * sizeof(*rela));
}

/* Sections: 1 code, 2 data, 3 strings, 4 unwind records, 5 to 7 relocations, 8 symbols, 9 names.
 * Symbols: 1 to 4 these sections, 5 something local, then the function and its data, which it defines,
 * and those of the other. */
static void make_object(struct builder *b, bool first, unsigned v)
{
    static const char strings[2][40] = {"hello\0world\0some text that is merged",
                                        "hello\0there\0some text that is merged"};
    static const uint8_t unwind[] = {
        20, 0, 0,  0, 0, 0, 0,  0, 1, 'z', 'R', 0, 1, 0x78, 16, 1, 0x1b, 12, 7, 8, 0x90, 1,
        0,  0, 16, 0, 0, 0, 28, 0, 0, 0,   0,   0, 0, 0,    48, 0, 0,    0,  0, 0, 0,    0,
    };
    uint8_t code[400], data[64] = {1};
    memset(code, 0x90, sizeof(code));
    size_t size = 48 + (v & LONGER ? 4 : 0) + (v & FAR ? 300 : 0), start = v & UNIT ? 16 : 0;
    *b = (struct builder){.used = sizeof(Elf64_Ehdr), .nshdrs = 1, .nnames = 1};
    const Elf64_Xword alloc = SHF_ALLOC;
    add_section(b,
                (Elf64_Shdr){
                    .sh_type = SHT_PROGBITS, .sh_flags = alloc | SHF_EXECINSTR, .sh_addralign = 16},
                first ? ".text.f" : ".text.g", code, size);
    add_section(
        b, (Elf64_Shdr){.sh_type = SHT_PROGBITS, .sh_flags = alloc | SHF_WRITE, .sh_addralign = 8},
        first ? ".data.f" : ".data.g", data, v & DATA ? 48 : 24);
    add_section(b,
                (Elf64_Shdr){.sh_type = SHT_PROGBITS,
                             .sh_flags = alloc | SHF_MERGE | SHF_STRINGS,
                             .sh_addralign = 1,
                             .sh_entsize = 1},
                ".rodata.str1.1", strings[!!(v & STRINGS)], 37);
    add_section(b, (Elf64_Shdr){.sh_type = SHT_PROGBITS, .sh_flags = alloc, .sh_addralign = 8},
                ".eh_frame", unwind, v & NO_UNWIND ? 0 : sizeof(unwind));
    const Elf64_Rela of_code[] = {
        {start + 1, ELF64_R_INFO(8, v & NO_CALL ? R_X86_64_NONE : R_X86_64_PLT32), -4},
        {start + 8, ELF64_R_INFO(9, R_X86_64_GOTPCREL), -4},
        {start + 16, ELF64_R_INFO(3, R_X86_64_PC32), 6 - 4},
        {start + 24, ELF64_R_INFO(5, v & NEW_GOT ? R_X86_64_GOTPCREL : R_X86_64_PC32), -4},
    };
    const Elf64_Rela of_data[] = {{0, ELF64_R_INFO(8, R_X86_64_64), 0},
                                  {8, ELF64_R_INFO(3, R_X86_64_64), 12},
                                  {16, ELF64_R_INFO(6, R_X86_64_64), 0}};
    const Elf64_Rela of_unwind[] = {{32, ELF64_R_INFO(1, R_X86_64_PC32), 0}};
    add_relocations(b, 1, ".rela.text", of_code, 4);
    add_relocations(b, 2, ".rela.data", of_data, 3);
    add_relocations(b, 4, ".rela.eh_frame", of_unwind, v & NO_UNWIND ? 0 : 1);
    Elf64_Sym syms[10] = {{0}};
    for (Elf64_Half i = 1; i <= 4; i++)
        syms[i] = (Elf64_Sym){.st_info = ELF64_ST_INFO(STB_LOCAL, STT_SECTION), .st_shndx = i};
    syms[5] = (Elf64_Sym){add_name(b, "local"), ELF64_ST_INFO(STB_LOCAL, STT_OBJECT), 0, 2, 4, 4};
    for (int i = 0; i < 4; i++) {
        static const char *const names[2][4] = {{"_start", "start_data", "g", "g_data"},
                                                {"g", "g_data", "_start", "start_data"}};
        Elf64_Sym *s = &syms[6 + i];
        s->st_name = add_name(b, names[!first][i]);
        s->st_info = ELF64_ST_INFO(STB_GLOBAL, i > 1 ? STT_NOTYPE : i ? STT_OBJECT : STT_FUNC);
        s->st_shndx = (Elf64_Half)(i < 2 ? 1 + i : SHN_UNDEF);
        s->st_value = i ? 0 : start;
        s->st_size = i > 1 ? 0 : i ? 24 : 32;
    }
    add_section(b,
                (Elf64_Shdr){.sh_type = SHT_SYMTAB,
                             .sh_link = 9,
                             .sh_info = 6,
                             .sh_entsize = sizeof(*syms),
                             .sh_addralign = 8},
                ".symtab", syms, sizeof(syms));
    add_section(b, (Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_addralign = 1}, ".strtab", b->names,
                sizeof(b->names));
    b->used = (b->used + 7) & ~(size_t)7;
    const Elf64_Ehdr ehdr = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_REL,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_shoff = b->used,
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_shentsize = sizeof(Elf64_Shdr),
        .e_shnum = b->nshdrs,
        .e_shstrndx = 9};
    memcpy(b->bytes, &ehdr, sizeof(ehdr));
    memcpy(b->bytes + b->used, b->shdrs, b->nshdrs * sizeof(*b->shdrs));
    b->used += b->nshdrs * sizeof(*b->shdrs);
}

/* The object as the only member of an archive. */
static void make_archive(struct builder *b)
{
    static const char index[22] = "\0\0\0\2\0\0\0\x5a\0\0\0\x5a"
                                  "g\0g_data\0\n"; /* it is at 90 */
    char head[151];
    int n = snprintf(head, sizeof(head), "!<arch>\n%-16s%-12d%-6d%-6d%-8d%-10zu`\n", "/", 0, 0, 0,
                     0, sizeof(index));
    memcpy(head + n, index, sizeof(index));
    n += (int)sizeof(index);
    n += snprintf(head + n, sizeof(head) - (size_t)n, "%-16s%-12d%-6d%-6d%-8d%-10zu`\n", "g.o/", 0,
                  0, 0, 644, b->used);
    memmove(b->bytes + n, b->bytes, b->used);
    memcpy(b->bytes, head, (size_t)n);
    b->used += (size_t)n;
}

static void make_input(struct builder *b, unsigned mode, unsigned v)
{
    make_object(b, false, v);
    if (mode & MODE_ARCHIVE)
        make_archive(b);
}

/* ---- the state ---- */

static uint64_t get64(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, 8);
    return value;
}

static void apply(const struct edit *edit, const struct kld_state_header *h, uint8_t *state)
{
    unsigned table = edit->table % (KLD_STATE_TABLES + 1u), how = edit->how & 3;
    uint64_t offset = (uint64_t)(edit->offset[0] | edit->offset[1] << 8), start = 0,
             size = sizeof(*h), width = 1u << (edit->how >> 2 & 3), value = get64(edit->value),
             old = 0;
    if (table < KLD_STATE_TABLES) {
        start = h->tables[table].offset;
        size = h->tables[table].count * h->tables[table].stride;
    }
    if (size < width)
        return;
    offset = offset % (size - width + 1) / width * width;
    memcpy(&old, state + start + offset, width);
    if (how == EDIT_ADD)
        value += old;
    else if (how == EDIT_XOR)
        value ^= old;
    else if (how == EDIT_COPY)
        memcpy(&value, state + start + value % (size - width + 1), width);
    memcpy(state + start + offset, &value, width);
}

static void seal(const struct kld_state_header *before, uint8_t *state, size_t length)
{
    struct kld_state_header *h = (void *)state;
    uint64_t npages = length / KLD_STATE_PAGE;
    uint64_t sums =
        h->sums % 8 == 0 && kld_in_bounds(h->sums, npages * 8, length) ? h->sums : before->sums;
    for (uint64_t i = 0; i < npages; i++) {
        uint64_t hash = XXH3_64bits(state + i * KLD_STATE_PAGE, KLD_STATE_PAGE);
        memcpy(state + sums + 8 * i, &hash, 8);
    }
    if (h->sums_capacity <= length / 8 && kld_in_bounds(sums, h->sums_capacity * 8, length))
        h->sums_hash = XXH3_64bits(state + sums, h->sums_capacity * 8);
    h->hash = XXH3_64bits(h, offsetof(struct kld_state_header, hash));
}

/* What the session has as its state, edited. */
static void edit_state(kld_session *s, const uint8_t *edits, size_t size)
{
    const void *data;
    size_t length;
    if (kld_serialize_state(s, &data, &length) != KLD_OK || length < KLD_STATE_PAGE)
        abort();
    uint8_t *state = malloc(length);
    struct kld_state_header before;
    memcpy(state, data, length);
    memcpy(&before, data, sizeof(before));
    for (; size >= sizeof(struct edit); size -= sizeof(struct edit), edits += sizeof(struct edit))
        apply((const struct edit *)edits, &before, state);
    seal(&before, state, length);
    if (kld_set_prior_state(s, state, length) != KLD_OK)
        abort();
    free(state);
}

/* ---- the links ---- */

static void set(kld_session *s, const char *name, const char *value)
{
    if (kld_set(s, name, value) != KLD_OK)
        abort();
}

static void link_it(kld_session *s)
{
    if (kld_link(s) != KLD_OK)
        abort();
}

static kld_input input_of(const char *name, const struct builder *b)
{
    return (kld_input){
        .size = sizeof(kld_input), .name = name, .data = b->bytes, .length = b->used};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t used = 0;
    kld_host host = {.size = sizeof(host),
                     .context = &used,
                     .alloc = take,
                     .free = give,
                     .message = hear,
                     .open_file = no_files};
    if (size < 2)
        return 0;
    unsigned mode = data[0];
    kld_session *s = kld_new(&host);
    static struct builder a, b[3];
    kld_input_handle handle;
    if (!s)
        abort();
    set(s, "output-memory", "1");
    set(s, "incremental", "1");
    set(s, "threads", "1");
    set(s, "kind", mode & MODE_SHARED ? "shared" : "executable");
    set(s, "gc-sections", mode & MODE_GC ? "1" : "0");
    if (mode & MODE_BUILD_ID) {
        set(s, "build-id", "fast");
        set(s, "eh-frame-hdr", "1");
    }
    make_object(&a, true, 0);
    make_input(&b[0], mode, 0);
    make_input(&b[1], mode, data[1]);
    make_input(&b[2], mode, data[1] >> 1);
    kld_input input = input_of("a", &a);
    if (kld_add_input(s, &input) != KLD_OK)
        abort();
    input = input_of("b", &b[0]);
    if (kld_add_input_handle(s, &input, &handle) != KLD_OK)
        abort();
    link_it(s);
    edit_state(s, data + 2, size - 2);
    if (mode & MODE_VERIFY) {
        set(s, "incremental-verify", "1");
        kld_link(s);
        set(s, "incremental-verify", "0");
    }
    for (int i = 1; i <= (mode & MODE_AGAIN ? 2 : 1); i++) {
        input = input_of("b", &b[i]);
        if (kld_replace_input(s, handle, &input) != KLD_OK)
            abort();
        link_it(s);
    }
    kld_free(s);
    if (used)
        abort();
    return 0;
}
