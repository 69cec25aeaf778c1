#include "src/incremental/verify.h"
#include "src/incremental/incremental.h"
#include "src/incremental/store.h"
#include "src/layout.h"
#include "src/merge.h"

/* ---- messages ---- */

static struct kld_where in_atom(struct kld_verify *v, const struct kld_atom *a)
{
    struct kld_str name = v->ctx->format->atom_name(a);
    return (struct kld_where){
        .file = a->file,
        .section = kld_arena_strndup(kld_pool_arena(v->ctx), name.ptr, name.len),
        .order = a->input_index,
    };
}

static bool is_sound(struct kld_verify *v)
{
    if (v->st.damaged)
        kld_verify_error(v, NULL, "the state is damaged");
    return !v->st.damaged && !kld_has_failed(v->ctx);
}

/* ---- the output ---- */

const uint8_t *kld_verify_output(struct kld_verify *v, uint64_t offset, uint64_t size)
{
    if (kld_in_bounds(offset, size, v->output.size))
        return v->output.bytes + offset;
    kld_verify_error(v, NULL, "0x%llx bytes at offset 0x%llx are not within the output",
                     (unsigned long long)size, (unsigned long long)offset);
    return NULL;
}

const uint8_t *kld_verify_output_at(struct kld_verify *v, const struct kld_section *s,
                                    uint64_t addr, uint64_t size)
{
    if (addr >= s->addr && kld_in_bounds(addr - s->addr, size, s->size))
        return kld_verify_output(v, s->offset + (addr - s->addr), size);
    kld_verify_error(v, NULL, "0x%llx bytes at 0x%llx are not within section %s",
                     (unsigned long long)size, (unsigned long long)addr, s->name);
    return NULL;
}

static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t size)
{
    uint64_t i = 0;
    while (i < size && a[i] == b[i])
        i++;
    return i;
}

void kld_verify_bytes(struct kld_verify *v, const struct kld_section *s, uint64_t addr,
                      const uint8_t *bytes, uint64_t size, const char *what)
{
    const uint8_t *out = kld_verify_output_at(v, s, addr, size);
    if (!size || !out || memcmp(out, bytes, size) == 0)
        return;
    uint64_t i = first_difference(out, bytes, size);
    kld_verify_error(
        v, NULL,
        "section %s, offset 0x%llx: %s (at 0x%llx, 0x%llx bytes) has 0x%02x instead of "
        "0x%02x",
        s->name, (unsigned long long)(addr - s->addr + i), what, (unsigned long long)addr,
        (unsigned long long)size, out[i], bytes[i]);
}

/* ---- the state ---- */

static bool open_state(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    struct kld_incremental *inc = ctx->incremental;
    const char *path = ctx->options.output;
    void *data;
    size_t length;
    bool busy = false;
    inc->stored = inc->store.open(inc->store.context, &data, &length, &busy);
    if (busy)
        kld_verify_error(v, NULL, "another link is using the state of %s", path);
    else if (!inc->stored)
        kld_verify_error(v, NULL, "there is no state of %s", path);
    if (!inc->stored || busy)
        return false;
    switch (kld_state_open(&v->st, &ctx->arena, data, length)) {
    case KLD_STATE_OK: return true;
    case KLD_STATE_DAMAGED: kld_verify_error(v, NULL, "the state is damaged"); break;
    case KLD_STATE_VERSION: kld_verify_error(v, NULL, "the state is another linker's"); break;
    case KLD_STATE_UNTRUSTED:
        kld_verify_error(v, NULL, "the state is not to be trusted: a patch was not finished");
        break;
    }
    return false;
}

/* All of it, whatever nobody needs. */
static bool check_state(struct kld_verify *v)
{
    for (int t = 0; t < KLD_STATE_TABLES; t++)
        kld_state_get(&v->st, (enum kld_state_table)t, 0,
                      kld_state_count(&v->st, (enum kld_state_table)t));
    return is_sound(v);
}

static bool open_output(struct kld_verify *v)
{
    const char *path = v->ctx->options.output;
    const struct kld_identity *id = &v->output.id, *known = &v->st.header->output;
    enum kld_update_problem problem = KLD_UPDATE_OK;
    if (!v->ctx->options.output_memory)
        problem = kld_update_look(v->ctx, path, &v->output);
    else if (v->ctx->output.memory)
        kld_update_open_memory(&v->output, v->ctx->output.memory, v->ctx->output.size);
    else
        problem = KLD_UPDATE_MISSING;
    switch (problem) {
    case KLD_UPDATE_OK: break;
    case KLD_UPDATE_IN_USE:
        kld_verify_error(v, NULL, "another link is using %s", path);
        return false;
    default: kld_verify_error(v, NULL, "cannot open %s", path); return false;
    }
    if (id->device == known->device && id->inode == known->inode && id->size == known->size &&
        id->mtime == known->mtime)
        return true;
    kld_verify_error(v, NULL, "%s is not the file that the state belongs to", path);
    return false;
}

static void check_request(struct kld_verify *v)
{
    const struct kld_state_header *h = v->st.header;
    const struct kld_incremental *inc = v->ctx->incremental;
    if (memcmp(inc->options, h->options, sizeof(h->options)) != 0)
        kld_verify_error(v, NULL, "the options are not those of the last link");
    if (memcmp(inc->items, h->items, sizeof(h->items)) != 0)
        kld_verify_error(v, NULL, "the list of inputs is not that of the last link");
}

/* What a link says by the way has been said. */
static void be_silent(struct kld_options *o)
{
    o->no_warnings = true;
    o->fatal_warnings = false;
    o->trace = false;
    o->trace_symbol.len = 0;
    o->print_gc_sections = false;
    o->why_extract = NULL;
}

void kld_verify_open(struct kld_session *ctx)
{
    struct kld_incremental *inc = ctx->incremental = KLD_NEW(&ctx->arena, struct kld_incremental);
    struct kld_verify *v = inc->verify = KLD_NEW(&ctx->arena, struct kld_verify);
    const char *mode = kld_incremental_unpatchable(ctx);
    v->ctx = ctx;
    v->output.fd = -1;
    inc->store = *kld_store(ctx);
    kld_record_options(ctx, inc->options);
    kld_record_items(ctx, inc->items);
    inc->search = kld_record_search(ctx);
    be_silent(&ctx->options);
    if (mode)
        kld_verify_error(v, NULL, "there is no state of a link with %s", mode);
    else if (open_state(v) && check_state(v) && open_output(v))
        check_request(v);
}

/* ---- sections ---- */

/* all: also those that only the output has */
static void map_sections(struct kld_verify *v, bool all)
{
    struct kld_session *ctx = v->ctx;
    v->nsections = (uint32_t)kld_state_count(&v->st, KLD_T_SECTIONS);
    v->known = kld_state_get(&v->st, KLD_T_SECTIONS, 0, v->nsections);
    for (uint32_t i = 0; i < v->nsections; i++)
        v->st.damaged |= !kld_record_section_is_sound(&v->known[i], v->output.size);
    v->sections = KLD_NEW_ARRAY(&ctx->arena, struct kld_section *, v->nsections);
    size_t most = ctx->sections.len + v->nsections;
    v->section_ids = KLD_NEW_ARRAY(&ctx->arena, uint32_t, most);
    memset(v->section_ids, 0xff, most * sizeof(*v->section_ids));
    for (uint32_t i = 0; i < v->nsections; i++) {
        const char *name = kld_state_text(&v->st, v->known[i].name, v->known[i].name_length);
        struct kld_section *s = v->known[i].nameless ? NULL : kld_section_find(ctx, name);
        if (!s && all && !v->known[i].nameless) /* nothing is in it any more */
            s = kld_section_get(ctx, &ctx->arena, kld_str(name), v->known[i].type,
                                v->known[i].format_flags, v->known[i].entsize);
        v->sections[i] = s;
        if (s)
            v->section_ids[s->id] = i;
    }
}

/* Sections have all they will have. */
static void place_sections(struct kld_verify *v)
{
    for (uint32_t i = 0; i < v->nsections; i++) {
        const struct kld_state_section *from = &v->known[i];
        struct kld_section *s = v->sections[i];
        if (!s)
            continue;
        if (from->number && (s->type != from->type || s->format_flags != from->format_flags))
            kld_verify_error(v, NULL, "type or flags of section %s are not what they were",
                             s->name);
        s->number = from->number;
        s->flags = from->flags;
        s->p2align = from->p2align;
        s->relro = from->relro;
        s->addr = from->addr;
        s->offset = from->offset;
        s->size = from->size;
        s->used = from->used;
    }
}

/* ---- files ---- */

static bool same_text(struct kld_verify *v, uint64_t at, uint32_t length, const char *text)
{
    return strcmp(kld_state_text(&v->st, at, length), text) == 0;
}

static bool match_file(struct kld_verify *v, uint32_t f)
{
    const struct kld_file *file = v->ctx->files[f];
    const struct kld_state_file *known = kld_state_get(&v->st, KLD_T_FILES, f, 1);
    bool object = file->kind == KLD_FILE_OBJECT;
    bool same = object == !!(known->flags & KLD_STATE_FILE_OBJECT) &&
                file->lazy == !!(known->flags & KLD_STATE_FILE_LAZY) &&
                !file->member == !known->member_length;
    if (same && file->member)
        same = same_text(v, known->member, known->member_length, file->member);
    if (same && known->input != KLD_STATE_NONE && !(known->flags & KLD_STATE_FILE_THIN)) {
        const struct kld_state_input *in = kld_state_get(&v->st, KLD_T_INPUTS, known->input, 1);
        same = same_text(v, in->path, in->path_length, file->path);
    }
    if (!same)
        kld_verify_error(v, &(struct kld_where){.file = file},
                         "file %u of the link is not the one of the state", f);
    return same && object;
}

static void match_names(struct kld_verify *v, uint32_t f)
{
    const struct kld_file *file = v->ctx->files[f];
    const struct kld_file_record *r = &v->records[f];
    struct kld_where where = {.file = file};
    if (r->head.nnames != file->nnames || r->head.nglobals != file->nglobals) {
        kld_verify_error(v, &where, "the state has %u names of it instead of %u", r->head.nnames,
                         file->nnames);
        return;
    }
    uint8_t *groups = KLD_NEW_ARRAY(&v->ctx->arena, uint8_t, file->nnames);
    for (uint32_t g = 0; g < file->ngroups; g++)
        groups[file->groups[g].name] |=
            KLD_RECORD_GROUP | (file->groups[g].discarded ? KLD_RECORD_DISCARDED : 0);
    for (uint32_t i = 0; i < file->nnames; i++) {
        struct kld_str name = v->ctx->format->name_at(file, i);
        if (kld_state_find(&v->st, kld_symbol_name(&v->ctx->symbols[file->ids[i]])) !=
            r->symbols[i])
            kld_verify_error(v, &where, "the state has another symbol for %.*s", KLD_FMT(name));
        if (r->classes[i] != ((file->classes[i] & KLD_RECORD_CLASS) | groups[i]))
            kld_verify_error(v, &where, "the state has %.*s as 0x%02x instead of 0x%02x",
                             KLD_FMT(name), r->classes[i],
                             (file->classes[i] & KLD_RECORD_CLASS) | groups[i]);
    }
}

/* Whether the output has the atom is for the state to say, as long as it has what is needed. */
static void match_live(struct kld_verify *v, struct kld_atom *a, const struct kld_state_atom *s)
{
    struct kld_where where = in_atom(v, a);
    bool extra = v->ctx->options.gc_sections && (a->flags & KLD_ATOM_ALLOC);
    if (a->kind == KLD_ATOM_RECORDS || !a->live == !s->live)
        return;
    if (!s->live)
        kld_verify_error(v, &where, "is needed, but the output does not have it");
    else if (!extra)
        kld_verify_error(v, &where, "is not needed, but the output has it");
    a->live = s->live;
}

static void match_atom(struct kld_verify *v, struct kld_atom *a, const struct kld_state_atom *s)
{
    struct kld_where where = in_atom(v, a);
    const char *what = NULL;
    if (s->name != kld_record_name(v->ctx->format->atom_name(a)))
        what = "name";
    else if (s->section != v->section_ids[a->section])
        what = "section";
    else if (s->kind != a->kind)
        what = "kind";
    else if (s->flags != a->flags)
        what = "flags";
    else if (a->kind == KLD_ATOM_PIECES && s->size != a->size)
        what = "size";
    else if (a->kind != KLD_ATOM_RECORDS && s->p2align != a->p2align)
        what = "alignment";
    if (what)
        kld_verify_error(v, &where, "the state has another %s of it", what);
    match_live(v, a, s);
}

static void match_atoms(struct kld_verify *v, uint32_t f)
{
    struct kld_file *file = v->ctx->files[f];
    const struct kld_file_record *r = &v->records[f];
    if (r->head.natoms != file->natoms) {
        kld_verify_error(v, &(struct kld_where){.file = file},
                         "the state has %u sections of it instead of %u", r->head.natoms,
                         file->natoms);
        return;
    }
    for (uint32_t i = 0; i < file->natoms; i++)
        match_atom(v, &file->atoms[i], &r->atoms[i]);
}

static bool is_same_target(const struct kld_verify *v)
{
    const struct kld_state_header *h = v->st.header;
    return strncmp(v->ctx->arch->name, h->arch, sizeof(h->arch) - 1) == 0 &&
           strncmp(v->ctx->format->name, h->format, sizeof(h->format) - 1) == 0 &&
           v->ctx->format->updater;
}

void kld_verify_files(struct kld_session *ctx)
{
    struct kld_verify *v = ctx->incremental->verify;
    uint64_t n = kld_state_count(&v->st, KLD_T_FILES);
    if (!is_same_target(v)) {
        kld_verify_error(v, NULL, "the state is that of a link for another CPU");
        return;
    }
    if (n != ctx->nfiles) {
        kld_verify_error(v, NULL, "the link has %u files, the state %llu", ctx->nfiles,
                         (unsigned long long)n);
        return;
    }
    map_sections(v, false);
    v->records = KLD_NEW_ARRAY(&ctx->arena, struct kld_file_record, n);
    for (uint32_t f = 0; f < n && !v->st.damaged; f++) {
        kld_record_get(&v->st, f, &v->records[f]);
        if (!match_file(v, f))
            continue;
        match_names(v, f);
        match_atoms(v, f);
    }
    is_sound(v);
}

void kld_verify_needs(struct kld_session *ctx)
{
    struct kld_verify *v = ctx->incremental->verify;
    uint64_t n = kld_state_count(&v->st, KLD_T_SYMBOLS);
    v->symbols = kld_state_get(&v->st, KLD_T_SYMBOLS, 0, n);
    v->numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t, ctx->nsymbols);
    for (kld_symid id = 0; id < ctx->nsymbols; id++) {
        const struct kld_symbol *sym = &ctx->symbols[id];
        v->numbers[id] = sym->name ? kld_state_find(&v->st, kld_symbol_name(sym)) : KLD_STATE_NONE;
        if (sym->name && v->numbers[id] == KLD_STATE_NONE &&
            kld_symbol_has(sym, KLD_SYM_REF_REGULAR))
            kld_verify_error(v, NULL, "the state has no symbol %.*s",
                             KLD_FMT(kld_symbol_name(sym)));
    }
    ctx->format->updater->verify->needs(v);
    is_sound(v);
}

/* ---- places ---- */

static void place_atoms(struct kld_verify *v)
{
    for (uint32_t f = 0; f < v->ctx->nfiles; f++)
        for (uint32_t i = 0; i < v->ctx->files[f]->natoms; i++) {
            struct kld_atom *a = &v->ctx->files[f]->atoms[i];
            const struct kld_state_atom *s = &v->records[f].atoms[i];
            if (!a->live || a->kind == KLD_ATOM_PIECES)
                continue;
            struct kld_where where = in_atom(v, a);
            a->addr = s->addr;
            if (!s->live || s->size != a->size)
                kld_verify_error(v, &where, "the output has %u bytes of it instead of %llu",
                                 s->live ? s->size : 0, (unsigned long long)a->size);
            if (a->size && a->addr % (1ull << a->p2align) && a->kind != KLD_ATOM_RECORDS)
                kld_verify_error(v, &where, "is not aligned at 0x%llx",
                                 (unsigned long long)a->addr);
        }
}

/* Where the definition of the name is by what its file says; false: that is for the state to say. */
static bool place_of(struct kld_verify *v, struct kld_symbol *sym,
                     const struct kld_state_symbol *known, uint64_t *place)
{
    *place = known->place;
    if (sym->kind != KLD_SYM_DEFINED)
        return false;
    if (sym->in_section || sym->atom->file == v->ctx->internal) {
        /* Of the linker's own making: section symbols, COMMON, copies, what --defsym says */
        struct kld_section *s = known->section < v->nsections ? v->sections[known->section] : NULL;
        if (!sym->in_section) {
            sym->atom->addr = known->place - sym->value;
        } else if (s) {
            sym->section = s;
            sym->value = known->place - s->addr;
        }
        return false;
    }
    if (sym->atom->kind == KLD_ATOM_PIECES)
        kld_contents_fix(v, sym->atom, sym->value, known->place); /* or it is elsewhere */
    *place = v->ctx->format->place_address(sym->atom, sym->value);
    return true;
}

/* The section of a definition, as the state counts them. */
static uint32_t section_of(const struct kld_verify *v, const struct kld_symbol *sym)
{
    if (sym->in_section)
        return v->section_ids[sym->section->id];
    const struct kld_atom *atom = sym->atom;
    if (atom->kind == KLD_ATOM_PIECES && atom->pieces->merged)
        atom = atom->pieces->merged;
    return v->section_ids[atom->section];
}

static uint8_t bits_of(const struct kld_symbol *sym)
{
    return (uint8_t)((sym->unique ? KLD_STATE_SYM_UNIQUE : 0) |
                     (sym->exported ? KLD_STATE_SYM_EXPORTED : 0) |
                     (sym->imported ? KLD_STATE_SYM_IMPORTED : 0) |
                     (sym->preemptible ? KLD_STATE_SYM_PREEMPTIBLE : 0) |
                     (sym->synthetic ? KLD_STATE_SYM_SYNTHETIC : 0) |
                     (sym->forced_local ? KLD_STATE_SYM_FORCED_LOCAL : 0));
}

/* What resolution says of the symbol is what it said then. */
static const char *compare_symbol(const struct kld_verify *v, const struct kld_symbol *sym,
                                  const struct kld_state_symbol *known)
{
    bool defined = sym->kind == KLD_SYM_DEFINED || sym->kind == KLD_SYM_ABSOLUTE;
    bool found = defined || sym->kind == KLD_SYM_IMPORTED;
    uint32_t file = sym->file && sym->file != v->ctx->internal ? sym->file->index : KLD_STATE_NONE;
    if (sym->kind != known->kind)
        return "kind";
    if (found && file != known->file)
        return "file";
    if (found && sym->type != known->type)
        return "type";
    if (atomic_load(&sym->visibility) != known->visibility)
        return "visibility";
    if (found && atomic_load(&sym->other) != known->other)
        return "st_other";
    /* (what a library's functions have is not looked at) */
    bool sized = defined || (found && sym->type != KLD_TYPE_FUNCTION &&
                             sym->type != KLD_TYPE_IFUNC && sym->type != KLD_TYPE_NONE);
    if (sized && sym->size != known->size)
        return "size";
    if (found && sym->version != known->version)
        return "version";
    if (defined && sym->weak != !!(known->bits & KLD_STATE_SYM_WEAK))
        return "binding";
    if (bits_of(sym) != (known->bits & (uint8_t) ~(KLD_STATE_SYM_WEAK | KLD_STATE_SYM_DEAD)))
        return "role for other modules";
    return NULL;
}

/* The jump that is left where the symbol was, for what refers to it; 0: there is none. */
static uint64_t entry_of(const struct kld_verify *v, const struct kld_symbol *sym)
{
    if (sym->kind != KLD_SYM_DEFINED || sym->in_section || sym->preemptible ||
        sym->atom->file->kind != KLD_FILE_OBJECT ||
        v->ctx->format->place_address(sym->atom, sym->value) != sym->atom->addr)
        return 0;
    const struct kld_file *file = sym->atom->file;
    return kld_verify_entry(v, &v->records[file->index].atoms[sym->atom - file->atoms]);
}

/* What others see of the symbol: itself, an entry that the linker has made for it, or a jump to it. To
 * what calls the resolver of an ifunc, the jump is the resolver. */
static void check_value(struct kld_verify *v, kld_symid id, const struct kld_where *where)
{
    struct kld_symbol *sym = &v->ctx->symbols[id];
    const struct kld_state_symbol *known = &v->symbols[v->numbers[id]];
    uint64_t seen = v->ctx->format->symbol_address(v->ctx, sym), entry = entry_of(v, sym);
    struct kld_section *s = known->section < v->nsections ? v->sections[known->section] : NULL;
    bool as_it_is = seen == known->value;
    if (!as_it_is && (entry != known->value || !entry || !s))
        kld_verify_error(v, where, "%.*s is 0x%llx to others, the state says 0x%llx",
                         KLD_FMT(kld_symbol_name(sym)), (unsigned long long)seen,
                         (unsigned long long)known->value);
    else if (s && entry && (!as_it_is || sym->type == KLD_TYPE_IFUNC)) {
        v->moved[id] = true; /* all but the symbol table see the jump */
        sym->size =
            v->ctx->format->place_address(sym->atom, sym->value + sym->size) - sym->atom->addr;
        sym->section = s;
        sym->in_section = true;
        sym->value = entry - s->addr;
    }
}

static void check_symbol(struct kld_verify *v, kld_symid id)
{
    struct kld_symbol *sym = &v->ctx->symbols[id];
    const struct kld_state_symbol *known = &v->symbols[v->numbers[id]];
    struct kld_str name = kld_symbol_name(sym);
    struct kld_where where = {.file = sym->file != v->ctx->internal ? sym->file : NULL,
                              .symbol = kld_arena_strndup(&v->ctx->arena, name.ptr, name.len)};
    const char *other = compare_symbol(v, sym, known);
    if (other) {
        kld_verify_error(v, &where, "the state has another %s of %.*s", other, KLD_FMT(name));
        return;
    }
    bool dead = sym->kind == KLD_SYM_DEFINED && !sym->in_section && !sym->atom->live &&
                sym->atom->kind != KLD_ATOM_PIECES;
    if (dead != !!(known->bits & KLD_STATE_SYM_DEAD))
        kld_verify_error(v, &where, "the state has %.*s as %s", KLD_FMT(name),
                         dead ? "part of the output, which it is not" : "no part of the output");
    v->places[id] = known->place;
    uint64_t place;
    if (!dead && place_of(v, sym, known, &place) && place != known->place)
        kld_verify_error(v, &where, "%.*s is at 0x%llx, the state says 0x%llx", KLD_FMT(name),
                         (unsigned long long)place, (unsigned long long)known->place);
    if (dead)
        return;
    if (sym->kind == KLD_SYM_DEFINED && section_of(v, sym) != known->section)
        kld_verify_error(v, &where, "the state has another section of %.*s", KLD_FMT(name));
    check_value(v, id, &where);
}

static void check_symbols(struct kld_verify *v)
{
    struct kld_session *ctx = v->ctx;
    v->places = KLD_NEW_ARRAY(&ctx->arena, uint64_t, ctx->nsymbols);
    v->moved = KLD_NEW_ARRAY(&ctx->arena, bool, ctx->nsymbols);
    for (kld_symid id = 0; id < ctx->nsymbols; id++)
        if (v->numbers[id] != KLD_STATE_NONE &&
            kld_symbol_has(&ctx->symbols[id], KLD_SYM_REF_REGULAR))
            check_symbol(v, id);
}

/* ---- atoms ---- */

static uint8_t *compose(struct kld_session *ctx, struct kld_worker *w, const struct kld_atom *a)
{
    uint8_t *out = kld_worker_buffer(w, a->size);
    if (a->kind == KLD_ATOM_BYTES && a->data)
        memcpy(out, a->data, a->size);
    else
        memset(out, 0, a->size);
    if (a->kind == KLD_ATOM_RECORDS)
        ctx->format->write_records(ctx, w, a, out);
    else if (a->nedges)
        ctx->format->apply(ctx, w, a, out);
    return out;
}

static const struct kld_section *home_of(const struct kld_verify *v, const struct kld_atom *a)
{
    return v->ctx->sections.data[a->section];
}

static bool has_bytes(const struct kld_verify *v, const struct kld_atom *a)
{
    return a->live && a->size && a->kind != KLD_ATOM_PIECES &&
           !(home_of(v, a)->flags & KLD_ATOM_ZERO);
}

/* Other places for pieces that references in the output show not to be meant. Places that have been
 * ruled out do not come back, so that this ends. */
static void settle_atom(struct kld_verify *v, struct kld_worker *w, const struct kld_atom *a)
{
    const uint8_t *out = kld_verify_output_at(v, home_of(v, a), a->addr, a->size);
    for (bool again = out && a->nedges; again;) {
        const uint8_t *bytes = compose(v->ctx, w, a);
        again = false;
        if (memcmp(out, bytes, a->size) == 0)
            return;
        /* One at a time: two fields may refer to the same piece. */
        for (uint32_t i = 0; i < a->nedges && !again; i++) {
            struct kld_field f;
            if (v->ctx->format->updater->verify->field(v, a, i, &f) && f.pieces &&
                memcmp(out + f.start, bytes + f.start, f.end - f.start) != 0)
                again = kld_contents_next(v, f.pieces, f.offset);
        }
    }
}

static void settle_file(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t f)
{
    struct kld_verify *v = arg;
    struct kld_file *file = ctx->files[f];
    for (uint32_t i = 0; i < file->natoms && kld_contents_is_open(v, file); i++)
        if (has_bytes(v, &file->atoms[i]) && file->atoms[i].kind != KLD_ATOM_RECORDS)
            settle_atom(v, w, &file->atoms[i]);
}

static void check_atom(struct kld_verify *v, struct kld_worker *w, const struct kld_atom *a)
{
    const struct kld_section *s = home_of(v, a);
    const uint8_t *out = kld_verify_output_at(v, s, a->addr, a->size);
    const uint8_t *bytes = out ? compose(v->ctx, w, a) : NULL;
    if (!out || memcmp(out, bytes, a->size) == 0)
        return;
    uint64_t i = first_difference(out, bytes, a->size);
    struct kld_where where = in_atom(v, a);
    where.offset = i;
    where.has_offset = true;
    kld_verify_error(v, &where, "the output has 0x%02x instead of 0x%02x at 0x%llx, in section %s",
                     out[i], bytes[i], (unsigned long long)(a->addr + i), s->name);
}

static void check_file(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t f)
{
    struct kld_verify *v = arg;
    const struct kld_file *file = ctx->files[f];
    for (uint32_t i = 0; i < file->natoms; i++)
        if (has_bytes(v, &file->atoms[i]))
            check_atom(v, w, &file->atoms[i]);
}

/* ---- all of it ---- */

void kld_verify(struct kld_session *ctx)
{
    struct kld_verify *v = ctx->incremental->verify;
    map_sections(v, true);
    place_sections(v);
    if (!is_sound(v))
        return;
    ctx->format->updater->verify->restore(v);
    place_atoms(v);
    if (!is_sound(v))
        return;
    kld_contents_find(v);
    check_symbols(v);
    if (!is_sound(v))
        return;
    ctx->format->updater->verify->addresses(v);
    kld_parallel_for(ctx, ctx->nfiles, 4, settle_file, v);
    kld_parallel_for(ctx, ctx->nfiles, 4, check_file, v);
    ctx->format->updater->verify->check(v);
    kld_verify_spaces(v);
    is_sound(v);
}
