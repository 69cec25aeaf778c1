/* rv64_isa.c - architecture strings, as compilers write them and as they are combined.
 *
 * The RISC-V Instruction Set Manual, Volume I, "ISA Extension Naming Conventions", for the grammar
 * and the canonical order; psABI "Attributes", Tag_RISCV_arch. */
#include "arch/riscv64/rv64_isa.h"

/* Single letters in their order; it also orders the Z extensions, by their second letter. */
static const char letters[] = "iemafdqlcbkjtpvnh";

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static unsigned letter_rank(char c)
{
    const char *at = c ? strchr(letters, c) : NULL;
    return at ? (unsigned)(at - letters) : (unsigned)sizeof(letters) + (uint8_t)c;
}

/* Single letters, then z..., then s..., then x... */
static unsigned class_rank(struct kld_str name)
{
    return name.len == 1 ? 0 : name.ptr[0] == 'z' ? 1 : name.ptr[0] == 's' ? 2 : 3;
}

static int compare(struct kld_str a, struct kld_str b)
{
    unsigned x = class_rank(a), y = class_rank(b);
    if (x != y)
        return x < y ? -1 : 1;
    if (x < 2) {
        unsigned i = letter_rank(a.ptr[x]), k = letter_rank(b.ptr[x]);
        if (i != k)
            return i < k ? -1 : 1;
    }
    int order = memcmp(a.ptr, b.ptr, KLD_MIN(a.len, b.len));
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static void add(struct kld_arena *arena, struct rv64_isa *isa, struct rv64_extension e)
{
    size_t at = 0;
    while (at < isa->list.len && compare(isa->list.data[at].name, e.name) < 0)
        at++;
    struct rv64_extension *old = at < isa->list.len ? &isa->list.data[at] : NULL;
    if (old && compare(old->name, e.name) == 0) {
        if (e.major > old->major || (e.major == old->major && e.minor > old->minor))
            *old = e;
        return;
    }
    kld_vec_push(arena, &isa->list);
    for (size_t i = isa->list.len - 1; i > at; i--)
        isa->list.data[i] = isa->list.data[i - 1];
    isa->list.data[at] = e;
}

static uint32_t number(struct kld_str text, size_t *at)
{
    uint32_t n = 0;
    for (; *at < text.len && is_digit(text.ptr[*at]); ++*at)
        n = n < 100000 ? n * 10 + (uint32_t)(text.ptr[*at] - '0') : n;
    return n;
}

/* A version, "2p1" or "2", at text[*at]. */
static void read_version(struct kld_str text, size_t *at, struct rv64_extension *e)
{
    e->major = number(text, at);
    if (*at + 1 < text.len && text.ptr[*at] == 'p' && is_digit(text.ptr[*at + 1])) {
        ++*at;
        e->minor = number(text, at);
    }
}

/* Where the version begins that ends a name like zvl128b1p0. */
static size_t version_start(struct kld_str name)
{
    size_t at = name.len;
    while (at && is_digit(name.ptr[at - 1]))
        at--;
    if (at == name.len || !at)
        return name.len;
    if (name.ptr[at - 1] != 'p' || at < 2 || !is_digit(name.ptr[at - 2]))
        return at;
    at--;
    while (at && is_digit(name.ptr[at - 1]))
        at--;
    return at;
}

static void add_long(struct kld_arena *arena, struct rv64_isa *isa, struct kld_str name)
{
    size_t at = version_start(name);
    struct rv64_extension e = {.name = {name.ptr, at}};
    read_version(name, &at, &e);
    add(arena, isa, e);
}

/* What stands between two underscores: one long name, or letters with or without versions. */
static const char *add_part(struct kld_arena *arena, struct rv64_isa *isa, struct kld_str part)
{
    char c = part.len ? part.ptr[0] : 0;
    if ((c == 'z' || c == 's' || c == 'x') && part.len > 1) {
        add_long(arena, isa, part);
        return NULL;
    }
    for (size_t at = 0; at < part.len;) {
        struct rv64_extension e = {.name = {part.ptr + at, 1}};
        if (part.ptr[at] < 'a' || part.ptr[at] > 'z')
            return kld_arena_printf(arena, "'%c' is not the name of an extension", part.ptr[at]);
        at++;
        read_version(part, &at, &e);
        add(arena, isa, e);
    }
    return NULL;
}

/* "e" is "i" with half of the registers. */
static const char *check_base(struct kld_arena *arena, const struct rv64_isa *isa)
{
    char first = isa->list.len ? isa->list.data[0].name.ptr[0] : 0;
    char second = isa->list.len > 1 ? isa->list.data[1].name.ptr[0] : 0;
    if (first == 'i' && second == 'e')
        return kld_arena_printf(arena, "the base instruction sets I and E do not go together");
    return first == 'i' || first == 'e' || first == 'g'
               ? NULL
               : kld_arena_printf(arena, "there is no base instruction set");
}

const char *rv64_isa_add(struct kld_arena *arena, struct rv64_isa *isa, struct kld_str text)
{
    size_t at = 2;
    if (!kld_str_starts(text, "rv"))
        return kld_arena_printf(arena, "'%.*s' does not begin with rv32 or rv64", KLD_FMT(text));
    uint32_t xlen = number(text, &at);
    if (xlen != 32 && xlen != 64)
        return kld_arena_printf(arena, "'%.*s' does not begin with rv32 or rv64", KLD_FMT(text));
    if (isa->xlen && isa->xlen != xlen)
        return kld_arena_printf(arena, "code for rv%u does not go with code for rv%u", xlen,
                                isa->xlen);
    isa->xlen = xlen;
    while (at < text.len) {
        size_t end = at;
        while (end < text.len && text.ptr[end] != '_')
            end++;
        const char *problem = add_part(arena, isa, (struct kld_str){text.ptr + at, end - at});
        if (problem)
            return problem;
        at = end + 1;
    }
    return check_base(arena, isa);
}

char *rv64_isa_text(struct kld_arena *arena, const struct rv64_isa *isa)
{
    char *text = kld_arena_printf(arena, "rv%u", isa->xlen);
    for (size_t i = 0; i < isa->list.len; i++) {
        const struct rv64_extension *e = &isa->list.data[i];
        text = kld_arena_printf(arena, "%s%s%.*s%up%u", text, i ? "_" : "", KLD_FMT(e->name),
                                e->major, e->minor);
    }
    return text;
}
