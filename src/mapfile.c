/* mapfile.c - the map in the columns of lld's, which people and tools know:
 *
 *              VMA              LMA     Size Align Out     In      Symbol
 *           401000           401000      1b4    16 .text
 *           401000           401000       22    16         main.o:(.text)
 *           401010           401010       12     1                 main
 *
 * Sections that are not loaded show their offsets in the section instead of addresses. */
#include "src/mapfile.h"
#include <stdlib.h>
#include "src/demangle.h"
#include "src/session.h"
#include "src/text.h"

/* A symbol in the order of the output. */
struct entry {
    uint32_t section; /* number in session.order */
    uint64_t address;
    const struct kld_atom *atom; /* NULL: of the section itself */
    struct kld_str name;
    uint64_t size;
    uint64_t sequence; /* in the inputs */
};

struct map {
    struct kld_session *ctx;
    struct kld_arena *arena;
    struct kld_demangler demangler;
    struct kld_text text;
    uint32_t *place_of; /* by section id: 1 + number in session.order */
    KLD_VEC(struct entry) entries;
};

/* ---- symbols ---- */

static void add_symbol(struct map *m, const struct kld_atom *atom, struct kld_str name,
                       uint64_t value, uint64_t size)
{
    if (!atom->live || atom->kind == KLD_ATOM_PIECES || (atom->flags & KLD_ATOM_FOLDED) ||
        !m->place_of[atom->section] || !name.len)
        return;
    struct entry *e = kld_vec_push(m->arena, &m->entries);
    uint64_t address = m->ctx->format->place_address(atom, value);
    size = m->ctx->format->place_address(atom, value + size) - address;
    *e = (struct entry){m->place_of[atom->section] - 1, address, atom, name, size, m->entries.len};
}

static void add_locals(struct map *m, const struct kld_file *file)
{
    struct kld_local local;
    for (uint32_t i = 0; m->ctx->format->local && m->ctx->format->local(file, i, &local); i++)
        if (local.atom && local.type != KLD_TYPE_SECTION && local.type != KLD_TYPE_FILE)
            add_symbol(m, local.atom, local.name, local.value, local.size);
}

static void add_globals(struct map *m)
{
    struct kld_session *ctx = m->ctx;
    for (kld_symid id = 0; id < ctx->nsymbols; id++) {
        const struct kld_symbol *sym = &ctx->symbols[id];
        if (!sym->name || sym->kind != KLD_SYM_DEFINED)
            continue;
        if (!sym->in_section) {
            if (sym->atom)
                add_symbol(m, sym->atom, kld_symbol_name(sym), sym->value, sym->size);
        } else if (sym->section && m->place_of[sym->section->id]) {
            *kld_vec_push(m->arena, &m->entries) = (struct entry){
                .section = m->place_of[sym->section->id] - 1,
                .address = sym->section->addr + sym->value,
                .name = kld_symbol_name(sym),
                .sequence = UINT64_MAX,
            };
        }
    }
}

static int compare_names(struct kld_str a, struct kld_str b)
{
    int order = memcmp(a.ptr, b.ptr, KLD_MIN(a.len, b.len));
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_entries(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->section != b->section)
        return a->section < b->section ? -1 : 1;
    if (a->address != b->address)
        return a->address < b->address ? -1 : 1;
    int order = compare_names(a->name, b->name);
    return order ? order : (a->sequence > b->sequence) - (a->sequence < b->sequence);
}

static void gather(struct map *m)
{
    struct kld_session *ctx = m->ctx;
    m->place_of = KLD_NEW_ARRAY(m->arena, uint32_t, ctx->sections.len);
    for (uint32_t i = 0; i < ctx->norder; i++)
        m->place_of[ctx->order[i]->id] = i + 1;
    for (uint32_t i = 0; i < ctx->nfiles; i++)
        if (ctx->files[i]->kind == KLD_FILE_OBJECT)
            add_locals(m, ctx->files[i]);
    add_globals(m);
    if (m->entries.len)
        qsort(m->entries.data, m->entries.len, sizeof(*m->entries.data), compare_entries);
}

/* ---- rows ---- */

static void add_row(struct map *m, uint64_t address, uint64_t size, uint64_t align, int indent)
{
    kld_text_printf(&m->text, "%16llx %16llx %8llx %5llu %*s", (unsigned long long)address,
                    (unsigned long long)address, (unsigned long long)size,
                    (unsigned long long)align, indent, "");
}

static void add_name(struct map *m, struct kld_str name)
{
    kld_text_add(&m->text, m->ctx->options.demangle ? kld_demangle(&m->demangler, name) : name);
}

static void add_file(struct map *m, const struct kld_file *file)
{
    kld_text_add(&m->text, kld_str(file->path));
    if (file->member)
        kld_text_printf(&m->text, "(%s)", file->member);
}

static void add_entry(struct map *m, const struct entry *e)
{
    add_row(m, e->address, e->size, 1, 16);
    add_name(m, e->name);
    kld_text_add(&m->text, KLD_STR("\n"));
}

static void add_atom(struct map *m, const struct kld_section *s, const struct kld_atom *atom)
{
    bool internal = atom->file->kind == KLD_FILE_INTERNAL;
    add_row(m, atom->addr, atom->size, 1ull << atom->p2align, 8);
    add_file(m, atom->file);
    kld_text_add(&m->text, KLD_STR(":("));
    kld_text_add(&m->text, internal ? kld_str(s->name) : m->ctx->format->atom_name(atom));
    kld_text_add(&m->text, KLD_STR(")\n"));
}

/* entries[first, end) are its symbols. Of those with the same address some may belong to a
 * neighbour of the atom, where one of them is empty. */
static void add_section(struct map *m, uint32_t number, size_t first, size_t end)
{
    const struct kld_section *s = m->ctx->order[number];
    const struct entry *entries = m->entries.data;
    add_row(m, s->addr, s->size, 1ull << s->p2align, 0);
    kld_text_printf(&m->text, "%s\n", s->name);
    for (size_t i = first; i < end; i++)
        if (!entries[i].atom)
            add_entry(m, &entries[i]);
    size_t at = first;
    for (size_t k = 0; k < s->atoms.len; k++) {
        const struct kld_atom *atom = s->atoms.data[k];
        if (!atom->size && atom->file->kind == KLD_FILE_INTERNAL)
            continue;
        add_atom(m, s, atom);
        while (at < end && entries[at].address < atom->addr)
            at++;
        for (size_t i = at; i < end && entries[i].address <= atom->addr + atom->size; i++)
            if (entries[i].atom == atom)
                add_entry(m, &entries[i]);
    }
}

static void add_map(struct map *m)
{
    gather(m);
    kld_text_printf(&m->text, "%16s %16s %8s %5s Out     In      Symbol\n", "VMA", "LMA", "Size",
                    "Align");
    size_t at = 0;
    for (uint32_t i = 0; i < m->ctx->norder; i++) {
        size_t end = at;
        while (end < m->entries.len && m->entries.data[end].section == i)
            end++;
        add_section(m, i, at, end);
        at = end;
    }
}

/* ---- cross references ---- */

struct mention {
    struct kld_str name;
    const struct kld_file *file;
    bool defines;
};

static int compare_mentions(const void *left, const void *right)
{
    const struct mention *a = left, *b = right;
    int order = compare_names(a->name, b->name);
    if (order)
        return order;
    if (a->defines != b->defines)
        return a->defines ? -1 : 1;
    return (a->file->index > b->file->index) - (a->file->index < b->file->index);
}

static bool is_mentioned(const struct kld_file *file, uint32_t i)
{
    unsigned class = KLD_NAME_CLASS(file->classes[i]);
    return class != KLD_NAME_IGNORED && class != KLD_NAME_GROUP;
}

static void add_cross_references(struct map *m)
{
    struct kld_session *ctx = m->ctx;
    KLD_VEC(struct mention) all = {0};
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f];
        for (uint32_t i = 0; i < file->nglobals; i++) {
            const struct kld_symbol *sym = &ctx->symbols[file->ids[i]];
            if (is_mentioned(file, i) && kld_symbol_has(sym, KLD_SYM_REF_REGULAR) && sym->name &&
                file->kind != KLD_FILE_INTERNAL)
                *kld_vec_push(m->arena, &all) =
                    (struct mention){kld_symbol_name(sym), file, sym->file == file};
        }
    }
    if (all.len)
        qsort(all.data, all.len, sizeof(*all.data), compare_mentions);
    /* The heading is GNU ld's, to the column. */
    kld_text_printf(&m->text, "\nCross Reference Table\n\n%-50sFile\n", "Symbol");
    for (size_t i = 0; i < all.len; i++) {
        size_t start = m->text.len;
        if (!i || !kld_str_eq(all.data[i].name, all.data[i - 1].name))
            add_name(m, all.data[i].name);
        kld_text_column(&m->text, start, 50);
        add_file(m, all.data[i].file);
        kld_text_add(&m->text, KLD_STR("\n"));
    }
}

void kld_write_map(struct kld_session *ctx)
{
    const char *path = ctx->options.map_file;
    bool cross = ctx->options.cref;
    if (!path && !cross)
        return;
    kld_arena_init(&ctx->scratch, &ctx->alloc, &ctx->oom);
    struct kld_arena *arena = &ctx->scratch;
    struct map m = {.ctx = ctx, .arena = arena, .demangler.arena = arena, .text.arena = arena};
    if (path)
        add_map(&m);
    if (cross)
        add_cross_references(&m);
    kld_io_write_file(ctx, path ? path : "-", m.text.data, m.text.len);
    kld_arena_free(&ctx->scratch);
}
