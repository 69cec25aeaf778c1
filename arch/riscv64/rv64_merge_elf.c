/* rv64_merge_elf.c - what objects say of their code, and whether they go together.
 *
 * psABI "File Header" (e_flags) and "Attributes". The section is one of build attributes: a format
 * version, then for each vendor a length, a name and sub-sections, of which the one for the whole
 * file is read; even tags have a number, odd ones a text. */
#include "arch/riscv64/rv64_elf.h"
#include "arch/riscv64/rv64_isa.h"

enum {
    TAG_FILE = 1,
    TAG_STACK_ALIGN = 4,
    TAG_ARCH = 5,
    TAG_UNALIGNED_ACCESS = 6,
    TAG_PRIV_SPEC = 8,
    TAG_PRIV_SPEC_MINOR = 10,
    TAG_PRIV_SPEC_REVISION = 12,
    TAG_ATOMIC_ABI = 14,
    TAG_X3_REG_USAGE = 16,
    NTAGS = 18,
};
enum atomic_abi { ATOMIC_UNKNOWN, ATOMIC_A6C, ATOMIC_A6S, ATOMIC_A7 };
static const char vendor[] = "riscv";

struct merged {
    struct kld_session *ctx;
    const struct elf_object *flags_of;    /* who set e_flags, */
    const struct elf_object *from[NTAGS]; /* and each value */
    uint64_t values[NTAGS];
    struct rv64_isa isa;
};

/* ---- e_flags ---- */

static const char *float_abi(uint32_t flags)
{
    static const char *const names[] = {"soft-float", "single-float", "double-float", "quad-float"};
    return names[(flags & RV64_EF_FLOAT_ABI) >> 1];
}

static void conflict(const struct merged *m, const struct elf_object *obj,
                     const struct elf_object *other, const char *text)
{
    struct kld_where where = {.file = &obj->base};
    kld_error(m->ctx, "incompatible", &where, "%s (%s%s%s%s)", text, other->base.path,
              other->base.member ? "(" : "", other->base.member ? other->base.member : "",
              other->base.member ? ")" : "");
}

/* Data alone, as -b binary makes it, goes with any code. */
static bool has_code(const struct elf_object *obj)
{
    for (uint32_t i = 1; i < obj->nshdrs; i++)
        if ((obj->shdrs[i].sh_flags & SHF_EXECINSTR) && obj->shdrs[i].sh_size)
            return true;
    return false;
}

static void merge_flags(struct merged *m, const struct elf_object *obj)
{
    struct elf_link *elf = elf_state(m->ctx);
    uint32_t flags = obj->ehdr->e_flags;
    if (!has_code(obj)) {
        if (!elf->e_flags) /* glibc looks at those of a library without code, too */
            elf->e_flags = flags;
        return;
    }
    if (!m->flags_of) {
        m->flags_of = obj;
        elf->e_flags = flags;
    }
    if ((flags ^ elf->e_flags) & RV64_EF_FLOAT_ABI)
        conflict(m, obj, m->flags_of,
                 kld_arena_printf(&m->ctx->arena,
                                  "code for the %s ABI does not go with code for "
                                  "the %s ABI",
                                  float_abi(flags), float_abi(elf->e_flags)));
    if ((flags ^ elf->e_flags) & RV64_EF_RVE)
        conflict(m, obj, m->flags_of,
                 flags & RV64_EF_RVE ? "code for RVE does not go with code that is not"
                                     : "code that is not for RVE does not go with code that is");
    elf->e_flags |= flags & (RV64_EF_RVC | RV64_EF_TSO);
}

/* ---- attributes: reading ---- */

static void malformed(const struct merged *m, const struct elf_object *obj, uint64_t offset,
                      const char *text)
{
    struct kld_where where = {.file = &obj->base,
                              .section = ".riscv.attributes",
                              .offset = offset,
                              .has_offset = true,
                              .order = obj->attributes_section};
    kld_error(m->ctx, "bad-attributes", &where, "%s", text);
}

/* ---- attributes: merging ---- */

static void must_agree(struct merged *m, const struct elf_object *obj, uint64_t tag, uint64_t value,
                       const char *what)
{
    if (m->values[tag] && value && m->values[tag] != value)
        conflict(m, obj, m->from[tag],
                 kld_arena_printf(&m->ctx->arena, "%s %llu does not go with %llu", what,
                                  (unsigned long long)value, (unsigned long long)m->values[tag]));
    if (value)
        m->values[tag] = value;
}

/* psABI, Tag_RISCV_atomic_abi: A6S goes with both of the others. */
static void merge_atomic_abi(struct merged *m, const struct elf_object *obj, uint64_t value)
{
    uint64_t *mine = &m->values[TAG_ATOMIC_ABI];
    uint64_t low = KLD_MIN(*mine, value), high = KLD_MAX(*mine, value);
    if (low == ATOMIC_A6C && high == ATOMIC_A7)
        conflict(m, obj, m->from[TAG_ATOMIC_ABI], "the atomic ABIs A6C and A7 do not go together");
    *mine = low == ATOMIC_A6C ? low : high;
}

static void merge_number(struct merged *m, const struct elf_object *obj, uint64_t tag,
                         uint64_t value)
{
    if (tag >= NTAGS)
        return; /* unknown: cannot be said of the whole */
    switch (tag) {
    case TAG_STACK_ALIGN: must_agree(m, obj, tag, value, "a stack alignment of"); break;
    case TAG_X3_REG_USAGE:
        must_agree(m, obj, tag, value, "a use of register x3 (gp) numbered");
        break;
    case TAG_ATOMIC_ABI: merge_atomic_abi(m, obj, value); break;
    default: m->values[tag] = KLD_MAX(m->values[tag], value); break;
    }
    if (value)
        m->from[tag] = obj;
}

static void merge_arch(struct merged *m, const struct elf_object *obj, struct kld_str text)
{
    const char *problem = rv64_isa_add(&m->ctx->arena, &m->isa, text);
    if (!problem)
        return;
    struct kld_where where = {.file = &obj->base, .section = ".riscv.attributes"};
    kld_error(m->ctx, "bad-attributes", &where, "architecture '%.*s': %s", KLD_FMT(text), problem);
}

/* The attributes of the whole file: tags and values. */
static bool read_tags(struct merged *m, const struct elf_object *obj, struct kld_bytes part)
{
    for (size_t at = 0; at < part.len;) {
        uint64_t tag, value;
        struct kld_str text;
        if (!kld_uleb(part, &at, &tag))
            return false;
        if (tag % 2 == 0) {
            if (!kld_uleb(part, &at, &value))
                return false;
            merge_number(m, obj, tag, value);
        } else {
            if (!kld_bytes_string(part, at, &text))
                return false;
            if (tag == TAG_ARCH)
                merge_arch(m, obj, text);
            at += text.len + 1;
        }
    }
    return true;
}

/* What one vendor says: sub-sections of a tag and a length that counts both. */
static bool read_vendor(struct merged *m, const struct elf_object *obj, struct kld_bytes part)
{
    for (size_t at = 0; at < part.len;) {
        size_t start = at;
        uint64_t tag;
        struct kld_bytes body;
        if (!kld_uleb(part, &at, &tag) || !kld_in_bounds(at, 4, part.len))
            return false;
        uint32_t size = kld_get32(part.ptr + at);
        at += 4;
        if (size < at - start || !kld_bytes_part(part, at, size - (at - start), &body))
            return false;
        if (tag == TAG_FILE && !read_tags(m, obj, body))
            return false;
        at = start + size;
    }
    return true;
}

static void read_attributes(struct merged *m, const struct elf_object *obj)
{
    struct kld_bytes bytes;
    if (!obj->attributes_section ||
        !elf_section_bytes(m->ctx, obj, obj->attributes_section, &bytes) || !bytes.len)
        return;
    if (bytes.ptr[0] != 'A') {
        malformed(m, obj, 0, "build attributes of an unknown version");
        return;
    }
    for (size_t at = 1; at < bytes.len;) {
        struct kld_bytes part;
        struct kld_str name;
        uint32_t size = kld_in_bounds(at, 4, bytes.len) ? kld_get32(bytes.ptr + at) : 0;
        if (size < 4 || !kld_bytes_part(bytes, at + 4, size - 4, &part) ||
            !kld_bytes_string(part, 0, &name)) {
            malformed(m, obj, at, "build attributes reach past the end of their section");
            return;
        }
        struct kld_bytes body = {part.ptr + name.len + 1, part.len - name.len - 1};
        if (kld_str_is(name, vendor) && !read_vendor(m, obj, body)) {
            malformed(m, obj, at, "build attributes reach past the end of their section");
            return;
        }
        at += size;
    }
}

/* ---- attributes: writing ---- */

static uint8_t *put_uleb128(uint8_t *p, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *p++ = (uint8_t)(value | 0x80);
    *p++ = (uint8_t)value;
    return p;
}

static void write_attributes(struct merged *m)
{
    enum { HEAD = 1 + 4 + sizeof(vendor), SUBHEAD = 1 + 4 };
    char *arch = m->isa.xlen ? rv64_isa_text(&m->ctx->arena, &m->isa) : NULL;
    size_t cap = HEAD + SUBHEAD + (arch ? strlen(arch) : 0) + NTAGS * 12 + 2;
    uint8_t *out = KLD_NEW_ARRAY(&m->ctx->arena, uint8_t, cap), *p = out + HEAD + SUBHEAD;
    for (uint64_t tag = 0; tag < NTAGS; tag++)
        if (m->values[tag]) {
            p = put_uleb128(p, tag);
            p = put_uleb128(p, m->values[tag]);
        } else if (tag == TAG_ARCH && arch) {
            p = put_uleb128(p, tag);
            p = (uint8_t *)stpcpy((char *)p, arch) + 1;
        }
    size_t size = (size_t)(p - out);
    if (size == HEAD + SUBHEAD)
        return;
    out[0] = 'A';
    kld_put32(out + 1, (uint32_t)(size - 1));
    memcpy(out + 5, vendor, sizeof(vendor));
    out[HEAD] = TAG_FILE;
    kld_put32(out + HEAD + 1, (uint32_t)(size - HEAD));
    elf_state(m->ctx)->attributes = (struct kld_bytes){out, size};
}

void rv64_merge(struct kld_session *ctx)
{
    struct merged *m = KLD_NEW(&ctx->arena, struct merged);
    m->ctx = ctx;
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind != KLD_FILE_OBJECT || obj->base.just_symbols ||
            obj->base.format != ctx->format || !obj->ehdr)
            continue;
        merge_flags(m, obj);
        read_attributes(m, obj);
    }
    write_attributes(m);
}
