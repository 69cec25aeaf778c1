/* elf_names.c - the default policy of GNU ld's built-in scripts: .text.foo goes to .text, and so
 * on. A linker script would be another policy in this place. */
#include "formats/elf/elf_names.h"
#include "formats/elf/elf_ctors.h"
#include "src/layout.h"

/* Input sections called `name` or, where it is followed by a dot, `name.*`. Longer prefixes of
 * one another first. At most as many rows as elf_name_cache has entries. */
static const struct {
    const char *name;
    uint8_t len;
} rules[] = {
#define RULE(text)                                                                                 \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }
    RULE(".text"),       RULE(".rodata"),     RULE(".data.rel.ro"),
    RULE(".data"),       RULE(".bss.rel.ro"), RULE(".bss"),
    RULE(".tdata"),      RULE(".tbss"),       RULE(".gcc_except_table"),
    RULE(".init_array"), RULE(".fini_array"), RULE(".sdata"),
    RULE(".sbss"),       RULE(".ldata"),      RULE(".lrodata"),
    RULE(".lbss"),
#undef RULE
};

enum { WHOLE_NAMES = 32 };

/* Where a thread's last sections went: nearly all go to few, and asking for one takes a lock that all threads
 * want. By rule, and by hash of the whole name where none fits and the output section is called as the input's. */
struct elf_name_cache {
    struct cached {
        struct kld_section *section;
        uint64_t flags, entsize;
        uint32_t type;
    } by_rule[KLD_COUNT(rules)], by_name[WHOLE_NAMES];
};

/* -z keep-text-section-prefix */
static const char *const text_prefixes[] = {".text.exit", ".text.hot", ".text.startup",
                                            ".text.unknown", ".text.unlikely"};

/* .gnu.linkonce.X. as if it were the name on the right */
static const struct {
    const char *prefix, *name;
} linkonce[] = {
    {".gnu.linkonce.b.", ".bss"},
    {".gnu.linkonce.d.rel.ro.", ".data.rel.ro"},
    {".gnu.linkonce.d.", ".data"},
    {".gnu.linkonce.r.", ".rodata"},
    {".gnu.linkonce.t.", ".text"},
    {".gnu.linkonce.tb.", ".tbss"},
    {".gnu.linkonce.td.", ".tdata"},
    {".gnu.linkonce.wi.", ".debug_info"},
    {".gnu.linkonce.armexidx.", ".ARM.exidx"},
};

bool elf_is_debug_name(struct kld_str name)
{
    if (name.len < 5 || name.ptr[0] != '.')
        return false;
    switch (name.ptr[1]) {
    case 'd': return kld_str_starts(name, ".debug");
    case 'z': return kld_str_starts(name, ".zdebug");
    case 's': return kld_str_starts(name, ".stab");
    case 'l': return kld_str_is(name, ".line");
    case 'g':
        return kld_str_is(name, ".gdb_index") || kld_str_starts(name, ".gnu.debuglto_") ||
               kld_str_starts(name, ".gnu.linkonce.wi.");
    default: return false;
    }
}

static int find_rule(const char *name)
{
    for (size_t i = 0; i < KLD_COUNT(rules) && name[0] == '.'; i++) {
        size_t len = rules[i].len;
        if (name[1] == rules[i].name[1] && strncmp(name, rules[i].name, len) == 0 &&
            (name[len] == '\0' || name[len] == '.'))
            return (int)i;
    }
    return -1;
}

/* GNU ld's script puts them in front of the rest of .text, in this order. */
static const char *const early_text[ELF_TEXT_ORDERS - 1] = {"unlikely", "exit", "startup", "hot"};

static bool is_or_begins(const char *name, const char *prefix)
{
    while (*prefix && *name == *prefix)
        name++, prefix++;
    return !*prefix && (*name == '\0' || *name == '.');
}

unsigned elf_text_order(const char *name)
{
    unsigned i = 0;
    if (strncmp(name, ".text.", 6) != 0)
        return ELF_TEXT_ORDERS - 1;
    while (i < KLD_COUNT(early_text) && !is_or_begins(name + 6, early_text[i]))
        i++;
    return i;
}

static struct kld_str keep_text_prefix(struct kld_str name, struct kld_str out)
{
    for (size_t i = 0; i < KLD_COUNT(text_prefixes); i++) {
        struct kld_str p = kld_str(text_prefixes[i]);
        if (kld_str_starts(name, p.ptr) && (name.len == p.len || name.ptr[p.len] == '.'))
            return p;
    }
    return out;
}

static struct kld_str output_name(struct kld_session *ctx, struct kld_str name, int rule)
{
    if (rule >= 0) {
        struct kld_str out = {rules[rule].name, rules[rule].len};
        return ctx->options.z_keep_text_section_prefix ? keep_text_prefix(name, out) : out;
    }
    if (kld_str_starts(name, ".gnu.linkonce."))
        for (size_t i = 0; i < KLD_COUNT(linkonce); i++)
            if (kld_str_starts(name, linkonce[i].prefix))
                return kld_str(linkonce[i].name);
    return name;
}

/* Flags of inputs that outputs of one name may share. */
static uint64_t output_flags(uint64_t flags)
{
    return flags &
           ~(uint64_t)(SHF_GROUP | SHF_COMPRESSED | SHF_GNU_RETAIN | SHF_INFO_LINK | SHF_EXCLUDE);
}

/* GNU ld makes PROGBITS of types that mean no more than contents. */
static uint32_t output_type(struct kld_str out, uint32_t type)
{
    if (type == SHT_X86_64_UNWIND || (type == SHT_PROGBITS && kld_str_is(out, ".eh_frame")))
        return SHT_PROGBITS;
    if (kld_str_is(out, ".init_array"))
        return SHT_INIT_ARRAY;
    if (kld_str_is(out, ".fini_array"))
        return SHT_FINI_ARRAY;
    return type;
}

static struct kld_section *section_by_name(struct kld_session *ctx, struct kld_arena *arena,
                                           struct kld_atom *atom, int rule)
{
    const struct elf_object *obj = elf_object(atom->file);
    const elf_shdr *sh = &obj->shdrs[atom->input_index];
    struct kld_str name = elf_section_name(obj, atom->input_index);
    bool relocatable = elf_state(ctx)->is_relocatable;
    uint64_t flags = output_flags(sh->sh_flags);
    struct kld_str out = relocatable ? name : output_name(ctx, name, rule);
    if (kld_str_starts(name, ".zdebug_") && !(flags & SHF_ALLOC))
        out = kld_str(
            kld_arena_printf(arena, ".%.*s", (int)name.len - 2, name.ptr + 2)); /* unpacked */
    if (!relocatable && elf_is_ctors(obj, name.ptr))
        out = name.ptr[1] == 'c' ? KLD_STR(".init_array") : KLD_STR(".fini_array");
    atom->unit = kld_str_eq(name, out);
    return kld_section_get(ctx, arena, out, output_type(out, sh->sh_type), flags, sh->sh_entsize);
}

/* Where those go depends on the file. */
static bool is_ctors_name(const char *name)
{
    return strncmp(name, ".ctors", 6) == 0 || strncmp(name, ".dtors", 6) == 0;
}

static struct cached *cached_name(struct elf_name_cache *cache, const char *name)
{
    size_t len = strlen(name);
    uint8_t last = len ? (uint8_t)name[len - 1] : 0, middle = (uint8_t)name[len / 2];
    return &cache->by_name[(len + 3 * last + 7 * middle) % WHOLE_NAMES];
}

static bool leads_on(const struct cached *cached, const elf_shdr *sh)
{
    return cached->section && cached->flags == output_flags(sh->sh_flags) &&
           cached->type == sh->sh_type && cached->entsize == sh->sh_entsize;
}

static void remember(struct cached *cached, struct kld_section *section, const elf_shdr *sh)
{
    *cached = (struct cached){.section = section,
                              .flags = output_flags(sh->sh_flags),
                              .entsize = sh->sh_entsize,
                              .type = sh->sh_type};
}

/* Most names that a rule is for are longer than what says so: they are not read to their end. */
void elf_set_output_section(struct kld_session *ctx, struct kld_worker *worker,
                            struct kld_atom *atom)
{
    const struct elf_object *obj = elf_object(atom->file);
    const elf_shdr *sh = &obj->shdrs[atom->input_index];
    const char *name = elf_section_text(obj, atom->input_index);
    struct elf_name_cache *cache = &elf_state(ctx)->name_caches[worker->index];
    int rule = elf_state(ctx)->is_relocatable ? -1 : find_rule(name);
    if (rule < 0) {
        struct cached *cached = cached_name(cache, name);
        if (leads_on(cached, sh) && strcmp(cached->section->name, name) == 0) {
            atom->section = cached->section->id;
            atom->unit = true;
            return;
        }
        struct kld_section *section = section_by_name(ctx, &worker->arena, atom, rule);
        atom->section = section->id;
        if (atom->unit && !is_ctors_name(name))
            remember(cached, section, sh);
        return;
    }
    struct cached *cached = &cache->by_rule[rule];
    if (!leads_on(cached, sh) || ctx->options.z_keep_text_section_prefix)
        remember(cached, section_by_name(ctx, &worker->arena, atom, rule), sh);
    atom->section = cached->section->id;
    atom->unit = name[rules[rule].len] == '\0';
    atom->ordered = !atom->unit && elf_text_order(name) < ELF_TEXT_ORDERS - 1;
}

struct elf_name_cache *elf_name_caches_new(struct kld_session *ctx)
{
    return KLD_NEW_ARRAY(&ctx->arena, struct elf_name_cache, kld_pool_size(ctx));
}
