/* elf_property.c - .note.gnu.property: what all objects agree on.
 *
 * An object says in a note what its code was compiled for: "every indirect branch lands on an
 * endbr64", "needs x86-64-v3". Some of that holds for the program only if it holds for every
 * object, some if it holds for one. The number of a property tells which: the ABIs have set aside
 * ranges for each rule. An object without the note has none of the properties.
 *
 * Sources: "Linux Extensions to gABI" (GNU_PROPERTY_*); x86-64 psABI 1.0, appendix on program
 * properties; AArch64 and RISC-V ELF specifications. */
#include "formats/elf/elf_property.h"
#include "formats/elf/elf_arch.h"

enum {
    STACK_SIZE = 1,
    NO_COPY_ON_PROTECTED = 2,
    NOTE_HEADER = 16, /* sizes, type, "GNU" */
};

enum rule {
    DROP,   /* unknown: cannot be said of the whole */
    AND,    /* bits that all objects have */
    OR,     /* bits that some object has */
    OR_ALL, /* bits that some object has, if all say something */
    LARGEST,
    PRESENT, /* no value */
};

static const struct {
    uint32_t first, last;
    uint16_t machine; /* 0: any */
    uint8_t rule;
} rules[] = {
    {STACK_SIZE, STACK_SIZE, 0, LARGEST},
    {NO_COPY_ON_PROTECTED, NO_COPY_ON_PROTECTED, 0, PRESENT},
    {0xb0000000, 0xb0007fff, 0, AND},
    {0xb0008000, 0xb000ffff, 0, OR},
    {0xc0000000, 0xc0000000, EM_AARCH64, AND},
    {0xc0000000, 0xc0000000, EM_RISCV, AND},
    {0xc0000002, 0xc0007fff, EM_X86_64, AND},
    {0xc0008000, 0xc000ffff, EM_X86_64, OR},
    {0xc0010000, 0xc0017fff, EM_X86_64, OR_ALL},
};

struct property {
    uint32_t type;
    uint64_t value;
    uint32_t holders; /* objects that have it */
};

struct elf_properties {
    KLD_VEC(struct property) list; /* by type */
};

static enum rule rule_of(const struct kld_session *ctx, uint32_t type)
{
    uint16_t machine = elf_state(ctx)->arch->machine;
    for (size_t i = 0; i < KLD_COUNT(rules); i++)
        if (type >= rules[i].first && type <= rules[i].last &&
            (!rules[i].machine || rules[i].machine == machine))
            return rules[i].rule;
    return DROP;
}

static uint32_t value_size(enum rule rule)
{
    return rule == LARGEST ? 8 : rule == PRESENT ? 0 : 4;
}

/* The property of that type, made if it is not there. */
static struct property *property_of(struct kld_session *ctx, struct elf_properties *p,
                                    uint32_t type)
{
    size_t at = 0;
    while (at < p->list.len && p->list.data[at].type < type)
        at++;
    if (at < p->list.len && p->list.data[at].type == type)
        return &p->list.data[at];
    kld_vec_push(&ctx->arena, &p->list);
    for (size_t i = p->list.len - 1; i > at; i--)
        p->list.data[i] = p->list.data[i - 1];
    p->list.data[at] = (struct property){.type = type};
    return &p->list.data[at];
}

static void add_value(struct kld_session *ctx, struct elf_properties *p, uint32_t type,
                      enum rule rule, uint64_t value)
{
    struct property *q = property_of(ctx, p, type);
    if (!q->holders)
        q->value = value;
    else if (rule == AND)
        q->value &= value;
    else if (rule == LARGEST)
        q->value = KLD_MAX(q->value, value);
    else
        q->value |= value;
    q->holders++;
}

/* ---- reading ---- */

static bool bad_note(struct kld_session *ctx, const struct elf_object *obj, uint64_t offset,
                     const char *text)
{
    struct kld_where where = {.file = &obj->base,
                              .section = ".note.gnu.property",
                              .offset = offset,
                              .has_offset = true,
                              .order = obj->property_section};
    kld_error(ctx, "bad-property-note", &where, "%s", text);
    return false;
}

/* An object lacks a feature that the user wants to be everywhere. */
static void report_feature(struct kld_session *ctx, const struct elf_object *obj,
                           const struct elf_feature *f)
{
    const struct kld_options *o = &ctx->options;
    bool forced = f->wish(o) == ELF_FEATURE_FORCED;
    enum kld_report report = f->report_of ? f->report_of(o) : KLD_REPORT_AUTO;
    const char *option = report == KLD_REPORT_AUTO ? f->force : f->report;
    struct kld_where where = {.file = &obj->base};
    if (report == KLD_REPORT_ERROR)
        kld_error(ctx, "no-feature", &where, "%s: no %s property", option, f->property);
    else if (report == KLD_REPORT_WARNING || (report == KLD_REPORT_AUTO && forced))
        kld_warning(ctx, "no-feature", &where, "%s: no %s property", option, f->property);
}

static void check_features(struct kld_session *ctx, const struct elf_object *obj, uint32_t features)
{
    const struct elf_arch_ops *arch = elf_state(ctx)->arch;
    for (uint32_t i = 0; i < arch->nfeatures; i++)
        if (!(features & arch->features[i].bit))
            report_feature(ctx, obj, &arch->features[i]);
}

static uint32_t feature_type(const struct kld_session *ctx)
{
    return elf_state(ctx)->arch->feature_1_and;
}

/* The properties in the descriptor of one note. */
static bool read_properties(struct kld_session *ctx, const struct elf_object *obj,
                            struct elf_properties *p, struct kld_bytes desc, uint64_t offset,
                            uint32_t *features)
{
    for (size_t at = 0; at < desc.len;) {
        if (!kld_in_bounds(at, 8, desc.len))
            return bad_note(ctx, obj, offset + at, "property reaches past the end of its note");
        uint32_t type = kld_get32(desc.ptr + at), size = kld_get32(desc.ptr + at + 4);
        if (!kld_in_bounds(at + 8, size, desc.len))
            return bad_note(ctx, obj, offset + at, "property reaches past the end of its note");
        enum rule rule = rule_of(ctx, type);
        const uint8_t *data = desc.ptr + at + 8;
        if (rule != DROP && size != value_size(rule))
            return bad_note(ctx, obj, offset + at, "property of a wrong size");
        uint64_t value = rule == LARGEST ? kld_get64(data) : size == 4 ? kld_get32(data) : 0;
        if (type == feature_type(ctx))
            *features |= (uint32_t)value;
        else if (rule != DROP)
            add_value(ctx, p, type, rule, value);
        at = (size_t)kld_align_up(at + 8 + size, 8);
    }
    return true;
}

static void read_object(struct kld_session *ctx, const struct elf_object *obj,
                        struct elf_properties *p)
{
    struct kld_bytes bytes;
    uint32_t features = 0;
    if (obj->property_section && elf_section_bytes(ctx, obj, obj->property_section, &bytes)) {
        for (size_t at = 0; at < bytes.len;) {
            if (!kld_in_bounds(at, 12, bytes.len)) {
                bad_note(ctx, obj, at, "note reaches past the end of its section");
                break;
            }
            uint32_t name = kld_get32(bytes.ptr + at), size = kld_get32(bytes.ptr + at + 4);
            uint32_t type = kld_get32(bytes.ptr + at + 8);
            uint64_t desc_at = kld_align_up(at + 12 + (uint64_t)name, 8);
            struct kld_bytes desc;
            if (!kld_bytes_part(bytes, desc_at, size, &desc)) {
                bad_note(ctx, obj, at, "note reaches past the end of its section");
                break;
            }
            if (type == NT_GNU_PROPERTY_TYPE_0 && name == 4 &&
                memcmp(bytes.ptr + at + 12, "GNU", 4) == 0 &&
                !read_properties(ctx, obj, p, desc, desc_at, &features))
                break;
            at = (size_t)kld_align_up(desc_at + size, 8);
        }
    }
    check_features(ctx, obj, features);
    if (features)
        add_value(ctx, p, feature_type(ctx), AND, features);
}

/* ---- merging ---- */

/* -z x86-64-v3 and its like */
static uint32_t wanted_isa(const struct kld_session *ctx)
{
    const char *const *levels = elf_state(ctx)->arch->isa_levels, *level = ctx->options.z_isa;
    for (size_t i = 0; level && levels && levels[i]; i++)
        if (strcmp(level, levels[i]) == 0)
            return 1u << i;
    return 0;
}

/* What the user says of the output, whatever the objects do. */
static void add_wanted(struct kld_session *ctx, struct elf_properties *p)
{
    const struct elf_arch_ops *arch = elf_state(ctx)->arch;
    for (uint32_t i = 0; i < arch->nfeatures; i++) {
        enum elf_feature_wish wish = arch->features[i].wish(&ctx->options);
        if (wish == ELF_FEATURE_NEVER)
            property_of(ctx, p, arch->feature_1_and)->value &= ~(uint64_t)arch->features[i].bit;
        else if (wish != ELF_FEATURE_AGREED)
            property_of(ctx, p, arch->feature_1_and)->value |= arch->features[i].bit;
    }
    uint32_t isa = wanted_isa(ctx);
    if (isa)
        property_of(ctx, p, arch->isa_1_needed)->value |= isa;
}

/* Drops what not all objects have where all would have to, and what says nothing. */
static void settle(const struct kld_session *ctx, struct elf_properties *p, uint32_t objects)
{
    for (size_t i = 0; i < p->list.len; i++) {
        struct property *q = &p->list.data[i];
        enum rule rule = rule_of(ctx, q->type);
        if ((rule == AND || rule == OR_ALL) && q->holders < objects)
            q->value = 0;
    }
}

static void drop_empty(const struct kld_session *ctx, struct elf_properties *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->list.len; i++)
        if (p->list.data[i].value || rule_of(ctx, p->list.data[i].type) == PRESENT)
            p->list.data[n++] = p->list.data[i];
    p->list.len = n;
}

void elf_property_merge(struct kld_session *ctx)
{
    struct elf_properties *p = KLD_NEW(&ctx->arena, struct elf_properties);
    uint32_t objects = 0;
    elf_state(ctx)->properties = p;
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f];
        if (file->kind != KLD_FILE_OBJECT || file->just_symbols || file->format != ctx->format)
            continue;
        objects++;
        read_object(ctx, elf_object(file), p);
    }
    settle(ctx, p, objects);
    add_wanted(ctx, p);
    drop_empty(ctx, p);
}

uint32_t elf_property_feature_1(const struct kld_session *ctx)
{
    const struct elf_properties *p = elf_state(ctx)->properties;
    for (size_t i = 0; p && i < p->list.len; i++)
        if (p->list.data[i].type == feature_type(ctx))
            return (uint32_t)p->list.data[i].value;
    return 0;
}

/* ---- writing ---- */

uint64_t elf_property_size(const struct kld_session *ctx)
{
    const struct elf_properties *p = elf_state(ctx)->properties;
    uint64_t size = 0;
    for (size_t i = 0; p && i < p->list.len; i++)
        size += 8 + kld_align_up(value_size(rule_of(ctx, p->list.data[i].type)), 8);
    return size ? NOTE_HEADER + size : 0;
}

void elf_property_write(struct kld_session *ctx, struct kld_worker *worker,
                        const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    const struct elf_properties *p = elf_state(ctx)->properties;
    kld_put32(out, 4);
    kld_put32(out + 4, (uint32_t)(atom->size - NOTE_HEADER));
    kld_put32(out + 8, NT_GNU_PROPERTY_TYPE_0);
    memcpy(out + 12, "GNU", 4);
    out += NOTE_HEADER;
    for (size_t i = 0; i < p->list.len; i++) {
        const struct property *q = &p->list.data[i];
        uint32_t size = value_size(rule_of(ctx, q->type));
        kld_put32(out, q->type);
        kld_put32(out + 4, size);
        if (size == 8)
            kld_put64(out + 8, q->value);
        else if (size == 4)
            kld_put32(out + 8, (uint32_t)q->value);
        out += 8 + kld_align_up(size, 8);
    }
}
