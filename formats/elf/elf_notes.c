/* elf_notes.c - notes that the linker adds: properties, build id, package metadata.
 *
 * The build id is made when everything else is written. It is a hash of the hashes of the
 * output's chunks (write.c makes those while the bytes are in the cache), with zeros where the
 * id itself will be: so hashing runs in parallel, and a patched output need only rehash the
 * chunks that changed.
 *
 * Sources: gABI (note sections), the documents of build ids in GNU ld, "Package Metadata for
 * Executable Files" of the UAPI group. */
#define XXH_INLINE_ALL
#include <nettle/md5.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <unistd.h>
#include <xxhash.h>
#include "formats/elf/elf_property.h"
#include "formats/elf/elf_tables.h"
#include "src/layout.h"

enum { NT_PACKAGE_METADATA = 0xcafe1a7e, NOTE_HEADER = 12, OWNER = 4 };

/* ---- notes ---- */

/* An allocated note section with one note; returns where its contents go. */
static uint8_t *make_note(struct kld_session *ctx, enum elf_synth which, const char *section,
                          const char *owner, uint32_t type, size_t size)
{
    size_t whole = NOTE_HEADER + OWNER + kld_align_up(size, 4);
    struct kld_atom *atom = elf_make(ctx, which, section, SHT_NOTE, SHF_ALLOC, 0, 2, whole);
    uint8_t *data = KLD_NEW_ARRAY(&ctx->arena, uint8_t, whole);
    kld_put32(data, OWNER);
    kld_put32(data + 4, (uint32_t)size);
    kld_put32(data + 8, type);
    memcpy(data + NOTE_HEADER, owner, OWNER);
    atom->data = data;
    return data + NOTE_HEADER + OWNER;
}

/* ---- build id ---- */

static size_t hash_none(const uint8_t *data, size_t size, uint8_t *out)
{
    (void)data, (void)size, (void)out;
    return 0;
}

static size_t hash_fast(const uint8_t *data, size_t size, uint8_t *out)
{
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(data, size));
    memcpy(out, hash.digest, sizeof(hash.digest));
    return sizeof(hash.digest);
}

static size_t hash_md5(const uint8_t *data, size_t size, uint8_t *out)
{
    struct md5_ctx md5;
    md5_init(&md5);
    md5_update(&md5, size, data);
    md5_digest(&md5, MD5_DIGEST_SIZE, out);
    return MD5_DIGEST_SIZE;
}

static size_t hash_sha1(const uint8_t *data, size_t size, uint8_t *out)
{
    struct sha1_ctx sha1;
    sha1_init(&sha1);
    sha1_update(&sha1, size, data);
    sha1_digest(&sha1, SHA1_DIGEST_SIZE, out);
    return SHA1_DIGEST_SIZE;
}

static size_t hash_sha256(const uint8_t *data, size_t size, uint8_t *out)
{
    struct sha256_ctx sha256;
    sha256_init(&sha256);
    sha256_update(&sha256, size, data);
    sha256_digest(&sha256, SHA256_DIGEST_SIZE, out);
    return SHA256_DIGEST_SIZE;
}

/* hash writes the id of what the hashes stand for. "tree" is what gold and mold call sha1. */
static const struct style {
    const char *name;
    uint8_t size;
    size_t (*hash)(const uint8_t *data, size_t size, uint8_t *out);
} styles[] = {
    {"fast", 16, hash_fast},
    {"md5", MD5_DIGEST_SIZE, hash_md5},
    {"none", 0, hash_none},
    {"sha1", SHA1_DIGEST_SIZE, hash_sha1},
    {"sha256", SHA256_DIGEST_SIZE, hash_sha256},
    {"tree", SHA1_DIGEST_SIZE, hash_sha1},
    {"uuid", 16, NULL},
};

static const struct style *find_style(const char *name)
{
    for (size_t i = 0; i < KLD_COUNT(styles); i++)
        if (strcmp(styles[i].name, name) == 0)
            return &styles[i];
    return NULL;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes of 0xHEX, which as for GNU ld may be divided by '-' and ':'. 0 if it is not that. out
 * may be NULL. */
static size_t parse_hex(const char *text, uint8_t *out)
{
    size_t n = 0;
    if (strncmp(text, "0x", 2) != 0 && strncmp(text, "0X", 2) != 0)
        return 0;
    for (text += 2; *text; n++) {
        while (*text == '-' || *text == ':')
            text++;
        if (!*text)
            break;
        int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0)
            return 0;
        if (out)
            out[n] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    return n;
}

/* RFC 4122, version 4 */
static void make_uuid(struct kld_session *ctx, uint8_t *out)
{
    if (getentropy(out, 16) != 0)
        kld_error(ctx, "build-id", NULL, "--build-id=uuid: the system gives no random numbers");
    out[6] = (uint8_t)((out[6] & 0x0f) | 0x40);
    out[8] = (uint8_t)((out[8] & 0x3f) | 0x80);
}

/* Ids of inputs (of an earlier -r link) would be taken for the output's. */
static void drop_old_ids(struct kld_session *ctx, const struct kld_section *section)
{
    for (uint32_t f = 0; f < ctx->nfiles; f++)
        for (uint32_t i = 0; i < ctx->files[f]->natoms; i++)
            if (ctx->files[f]->atoms[i].section == section->id)
                ctx->files[f]->atoms[i].live = 0;
}

static void build_id_synth(struct kld_session *ctx)
{
    static const char name[] = ".note.gnu.build-id";
    const char *text = ctx->options.build_id;
    if (!text)
        return;
    const struct style *style = find_style(text);
    size_t size = style ? style->size : parse_hex(text, NULL);
    if (!size) {
        if (!style)
            kld_warning(ctx, "build-id", NULL, "unrecognized --build-id style '%s' ignored", text);
        return;
    }
    struct kld_section *old = kld_section_find(ctx, name);
    if (old)
        drop_old_ids(ctx, old);
    uint8_t *id = make_note(ctx, ELF_NOTE_BUILD_ID, name, "GNU", NT_GNU_BUILD_ID, size);
    if (!style)
        parse_hex(text, id);
    else if (style->hash)
        ctx->wants_hashes = true;
}

size_t elf_build_id(struct kld_session *ctx, const uint8_t *hashes, size_t size, uint8_t *id,
                    uint64_t *offset)
{
    const struct kld_atom *atom = elf_state(ctx)->synth[ELF_NOTE_BUILD_ID];
    const struct style *style =
        atom && ctx->options.build_id ? find_style(ctx->options.build_id) : NULL;
    if (!style)
        return 0;
    const struct kld_section *section = ctx->sections.data[atom->section];
    *offset = section->offset + (atom->addr - section->addr) + NOTE_HEADER + OWNER;
    if (style->hash)
        return style->hash(hashes, size, id);
    make_uuid(ctx, id);
    return style->size;
}

void elf_seal(struct kld_session *ctx, const uint8_t *hashes, size_t size)
{
    uint8_t id[SHA256_DIGEST_SIZE];
    uint64_t offset;
    size_t length = elf_build_id(ctx, hashes, size, id, &offset);
    if (length)
        kld_output_write(ctx, &ctx->output, offset, id, length);
}

/* ---- package metadata ---- */

static const struct {
    const char *name;
    char c;
} named_characters[] = {
    {"[comma]", ','}, {"[lbrace]", '{'}, {"[quot]", '"'}, {"[rbrace]", '}'}, {"[space]", ' '},
};

/* What follows a '%': a byte in hexadecimal or a named character, so that the text survives
 * shells and compiler drivers. Returns how many characters that takes, 0 if it is neither. */
static size_t decode_escape(const char *text, char *c)
{
    int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);
    if (low >= 0) {
        *c = (char)(high << 4 | low);
        return 2;
    }
    for (size_t i = 0; i < KLD_COUNT(named_characters); i++) {
        size_t n = strlen(named_characters[i].name);
        if (strncmp(text, named_characters[i].name, n) == 0) {
            *c = named_characters[i].c;
            return n;
        }
    }
    return 0;
}

static void package_synth(struct kld_session *ctx)
{
    const char *text = ctx->options.package_metadata;
    if (!text || !*text)
        return;
    char *json = kld_arena_strndup(&ctx->arena, text, strlen(text));
    size_t length = 0;
    while (*text) {
        char c = *text++;
        if (c == '%')
            text += decode_escape(text, &c);
        json[length++] = c;
    }
    uint8_t *out =
        make_note(ctx, ELF_NOTE_PACKAGE, ".note.package", "FDO", NT_PACKAGE_METADATA, length + 1);
    memcpy(out, json, length);
}

/* ---- properties ---- */

static void property_synth(struct kld_session *ctx)
{
    if (!elf_state(ctx)->properties)
        elf_property_merge(ctx);
    uint64_t size = elf_property_size(ctx);
    if (!size)
        return;
    struct kld_atom *atom =
        elf_make(ctx, ELF_NOTE_PROPERTY, ".note.gnu.property", SHT_NOTE, SHF_ALLOC, 0, 3, size);
    atom->kind = KLD_ATOM_GENERATED;
    atom->generate = elf_property_write;
}

/* ---- what the CPU's own section says ---- */

static void attributes_synth(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    if (elf->arch->merge)
        elf->arch->merge(ctx);
    if (!elf->attributes.len)
        return;
    const struct elf_attributes *a = elf->arch->attributes;
    elf_make(ctx, ELF_ATTRIBUTES, a->section, a->type, 0, 0, 0, elf->attributes.len)->data =
        elf->attributes.ptr;
}

void elf_notes_synth(struct kld_session *ctx)
{
    property_synth(ctx);
    attributes_synth(ctx);
    build_id_synth(ctx);
    package_synth(ctx);
}
