#define _GNU_SOURCE
#define XXH_INLINE_ALL
#include "src/incremental/record.h"
#include <stdlib.h>
#include <xxhash.h>
#include "src/archive.h"
#include "src/incremental/incremental.h"
#include "src/incremental/members.h"
#include "src/layout.h"
#include "src/load.h"
#include "src/merge.h"
#include "src/resolve.h"
#include "src/text.h"

/* ---- the contents of a file ---- */

static uint8_t *take(uint8_t *block, uint64_t *at, uint64_t size)
{
    uint8_t *part = block ? block + *at : NULL;
    *at = kld_align_up(*at + size, 8);
    return part;
}

uint64_t kld_record_parts(const struct kld_state_contents *head, uint8_t *block,
                          struct kld_file_record *r)
{
    uint64_t at = 0;
    r->head = *head;
    take(block, &at, sizeof(*head));
    r->symbols = (uint32_t *)take(block, &at, 4ull * head->nnames);
    r->classes = take(block, &at, head->nnames);
    r->atoms =
        (struct kld_state_atom *)take(block, &at, (uint64_t)head->natoms * sizeof(*r->atoms));
    r->areas = (uint32_t *)take(block, &at, 4ull * head->nareas);
    r->format = take(block, &at, head->format_size);
    return at;
}

void kld_record_get(struct kld_state *st, uint32_t f, struct kld_file_record *r)
{
    const struct kld_state_file *file = kld_state_get(st, KLD_T_FILES, f, 1);
    struct kld_state_contents head = {0};
    uint64_t at = file->contents, size = file->contents_size;
    bool sound = size >= sizeof(head) && at % 8 == 0 &&
                 kld_in_bounds(at, size, kld_state_count(st, KLD_T_HEAP));
    if (sound)
        memcpy(&head, kld_state_get(st, KLD_T_HEAP, at, sizeof(head)), sizeof(head));
    if (!sound || head.nglobals > head.nnames || head.format_size > size ||
        kld_record_parts(&head, NULL, r) > size) {
        st->damaged = true;
        head = (struct kld_state_contents){0};
        kld_record_parts(&head, kld_arena_alloc(st->arena, sizeof(head), 8), r);
        return;
    }
    kld_record_parts(&head, (uint8_t *)kld_state_get(st, KLD_T_HEAP, at, size), r);
}

void kld_record_get_next(struct kld_state *st, uint32_t f, struct kld_file_record *r,
                         uint64_t *total)
{
    kld_record_get(st, f, r);
    *total += kld_record_parts(&r->head, NULL, &(struct kld_file_record){0});
    st->damaged |= *total > kld_state_count(st, KLD_T_HEAP);
}

/* ---- hashes of what was asked for ---- */

static void add_text(XXH3_state_t *to, const char *text)
{
    static const char none[] = "\1";
    text = text ? text : none;
    XXH3_128bits_update(to, text, strlen(text) + 1);
}

static void add_list(XXH3_state_t *to, const kld_text_list *list)
{
    XXH3_128bits_update(to, &list->len, sizeof(list->len));
    for (size_t i = 0; i < list->len; i++)
        add_text(to, list->data[i]);
}

static void take_hash(XXH3_state_t *from, uint64_t hash[2])
{
    XXH128_hash_t h = XXH3_128bits_digest(from);
    hash[0] = h.low64;
    hash[1] = h.high64;
}

const char *kld_record_search(struct kld_session *ctx)
{
    const kld_text_list *dirs = &ctx->options.library_path;
    struct kld_text text = {.arena = &ctx->arena};
    for (size_t i = 0; i < dirs->len; i++)
        kld_text_printf(&text, "%s\n", dirs->data[i]);
    return text.data ? kld_arena_strndup(&ctx->arena, text.data, text.len) : "";
}

/* Options that change what is said, or where, but not the output; and what kld_record_search has. */
static bool changes_nothing(const char *name)
{
    static const char *const names[] = {
        "command-line",
        "cref",
        "dependency-file",
        "error-limit",
        "fatal-warnings",
        "incremental",
        "incremental-changed",
        "incremental-report",
        "incremental-state",
        "incremental-verify",
        "library-path",
        "map",
        "memory-limit",
        "no-warnings",
        "output",
        "output-memory",
        "reproduce",
        "stats",
        "threads",
        "time",
        "trace",
        "trace-symbol",
        "why-extract",
    };
    for (size_t i = 0; i < KLD_COUNT(names); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

#define KLD_HASH_BOOL(field)   XXH3_128bits_update(&to, &field, sizeof(field))
#define KLD_HASH_U64(field)    XXH3_128bits_update(&to, &field, sizeof(field))
#define KLD_HASH_CHOICE(field) XXH3_128bits_update(&to, &field, sizeof(field))
#define KLD_HASH_TEXT(field)   add_text(&to, field)
#define KLD_HASH_LIST(field)   add_list(&to, &field)

void kld_record_options(struct kld_session *ctx, uint64_t hash[2])
{
    XXH3_state_t to;
    XXH3_128bits_reset(&to);
#define KLD_OPTION(type, field, name, value)                                                       \
    if (!changes_nothing(name))                                                                    \
        KLD_HASH_##type(ctx->options.field);
#include "src/options.def"
#undef KLD_OPTION
    take_hash(&to, hash);
}

void kld_record_items(struct kld_session *ctx, uint64_t hash[2])
{
    XXH3_state_t to;
    XXH3_128bits_reset(&to);
    for (size_t i = 0; i < ctx->inputs.len; i++) {
        const struct kld_input_item *item = &ctx->inputs.data[i];
        XXH3_128bits_update(&to, &item->flags, sizeof(item->flags));
        add_text(&to, item->name);
        bool in_memory = item->bytes.ptr;
        XXH3_128bits_update(&to, &in_memory, sizeof(in_memory));
    }
    take_hash(&to, hash);
}

struct kld_identity kld_identity_of_bytes(struct kld_bytes bytes)
{
    XXH128_hash_t h = XXH3_128bits(bytes.ptr, bytes.len);
    return (struct kld_identity){
        .size = bytes.len, .mtime = (int64_t)h.low64, .ctime = (int64_t)h.high64};
}

/* ---- the tables ---- */

struct recorder {
    struct kld_session *ctx;
    struct kld_state_builder b;
    uint32_t *numbers; /* by symbol id: in the state, or KLD_STATE_NONE */
    uint32_t nsymbols;
    uint32_t *starts; /* by block of ids: the first number */
    uint32_t *slots;  /* KLD_T_NAMES */
    uint32_t nslots;
    kld_symid *ids; /* of the symbols, by number in the state */
    struct kld_state_file *files;
    struct kld_state_contents *heads; /* by file */
    uint32_t *capacities;             /* room of the atoms, one file's after the other's */
    uint64_t *first_capacity;         /* by file */
    struct kld_state_input *inputs;
    struct kld_io_known *known; /* by path; behind them what is in memory, in its order */
    size_t nknown, ninputs;
    struct kld_members members;
    uint32_t *by_place;             /* [ninputs - nknown] what is in memory, by address */
    const uint32_t *format_numbers; /* by symbol id */
    atomic_bool unsupported;        /* there is something that a state does not hold */
};

enum { BLOCK = 8192 }; /* ids at a time */

/* Signatures of groups are wanted whatever they are. */
static void want_signatures(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    r->numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t, ctx->nsymbols);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f];
        if (file->kind == KLD_FILE_OBJECT)
            for (uint32_t g = 0; g < file->ngroups; g++)
                r->numbers[file->ids[file->groups[g].name]] = 1;
    }
}

/* Symbols that objects mention: how many, or (starts are known) what numbers they get. */
static void count_block(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t block)
{
    (void)w;
    struct recorder *r = arg;
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * BLOCK, ctx->nsymbols);
    uint32_t n = 0;
    for (kld_symid id = (kld_symid)(block * BLOCK); id < end; id++) {
        const struct kld_symbol *sym = &ctx->symbols[id];
        bool wanted = sym->name && (r->numbers[id] || kld_symbol_has(sym, KLD_SYM_REF_REGULAR));
        r->numbers[id] = wanted ? n++ : KLD_STATE_NONE;
    }
    r->starts[block] = n;
}

static void number_block(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t block)
{
    struct recorder *r = arg;
    (void)w;
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * BLOCK, ctx->nsymbols);
    for (kld_symid id = (kld_symid)(block * BLOCK); id < end; id++)
        if (r->numbers[id] != KLD_STATE_NONE) {
            r->numbers[id] += r->starts[block];
            r->ids[r->numbers[id]] = id;
        }
}

static void number_symbols(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    size_t blocks = (ctx->nsymbols + BLOCK - 1) / BLOCK;
    want_signatures(r);
    r->starts = KLD_NEW_ARRAY(&ctx->arena, uint32_t, blocks);
    kld_parallel_for(ctx, blocks, 2, count_block, r);
    for (size_t i = 0; i < blocks; i++) {
        uint32_t n = r->starts[i];
        r->starts[i] = r->nsymbols;
        r->nsymbols += n;
    }
    r->ids = KLD_NEW_ARRAY(&ctx->arena, kld_symid, r->nsymbols);
    kld_parallel_for(ctx, blocks, 2, number_block, r);
}

static uint32_t section_of(const struct kld_session *ctx, const struct kld_symbol *sym)
{
    (void)ctx;
    if (sym->in_section)
        return sym->section->id;
    const struct kld_atom *atom = sym->atom;
    if (atom->flags & KLD_ATOM_FOLDED)
        atom = atom->folded_into;
    if (atom->kind == KLD_ATOM_PIECES && atom->pieces->merged)
        atom = atom->pieces->merged;
    return atom->section;
}

static uint8_t symbol_bits(const struct kld_symbol *sym)
{
    return (uint8_t)((sym->weak ? KLD_STATE_SYM_WEAK : 0) |
                     (sym->unique ? KLD_STATE_SYM_UNIQUE : 0) |
                     (sym->exported ? KLD_STATE_SYM_EXPORTED : 0) |
                     (sym->imported ? KLD_STATE_SYM_IMPORTED : 0) |
                     (sym->preemptible ? KLD_STATE_SYM_PREEMPTIBLE : 0) |
                     (sym->synthetic ? KLD_STATE_SYM_SYNTHETIC : 0) |
                     (sym->forced_local ? KLD_STATE_SYM_FORCED_LOCAL : 0));
}

static void record_symbol(struct recorder *r, kld_symid id, struct kld_state_symbol *out)
{
    struct kld_session *ctx = r->ctx;
    const struct kld_symbol *sym = &ctx->symbols[id];
    *out = (struct kld_state_symbol){
        .hash = kld_names_hash(&ctx->resolver->names, id),
        .value = ctx->format->symbol_address(ctx, sym),
        .size = sym->size,
        .file = sym->file && sym->file != ctx->internal ? sym->file->index : KLD_STATE_NONE,
        .section = KLD_STATE_NONE,
        .aux = sym->aux,
        .number = r->format_numbers ? r->format_numbers[id] : 0,
        .needs = atomic_load_explicit(&sym->flags, memory_order_relaxed),
        .version = sym->version,
        .kind = sym->kind,
        .type = sym->type,
        .visibility = atomic_load_explicit(&sym->visibility, memory_order_relaxed),
        .other = atomic_load_explicit(&sym->other, memory_order_relaxed),
        .bits = symbol_bits(sym),
    };
    out->place = out->value;
    if (sym->kind != KLD_SYM_DEFINED)
        return;
    out->section = section_of(ctx, sym);
    out->place = sym->in_section ? sym->section->addr + sym->value
                                 : ctx->format->place_address(sym->atom, sym->value);
    if (!sym->in_section && !sym->atom->live && sym->atom->kind != KLD_ATOM_PIECES)
        out->bits |= KLD_STATE_SYM_DEAD;
}

static void compose_symbols(void *arg, uint64_t first, uint64_t count, uint8_t *out)
{
    struct recorder *r = arg;
    struct kld_state_symbol *symbols = (void *)out;
    for (uint64_t i = 0; i < count; i++) {
        if (i + 2 * KLD_ASK_AHEAD < count)
            __builtin_prefetch(&r->ctx->symbols[r->ids[first + i + 2 * KLD_ASK_AHEAD]]);
        if (i + KLD_ASK_AHEAD < count)
            kld_ask_for_atom(r->ctx, r->ids[first + i + KLD_ASK_AHEAD]);
        record_symbol(r, r->ids[first + i], &symbols[i]);
    }
}

/* The names of one partition of names.c have a part of the index of their own. */
static void index_partition(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t part)
{
    (void)w;
    struct recorder *r = arg;
    uint32_t size = r->nslots / KLD_NAME_PARTITIONS;
    uint32_t *slots = r->slots + part * size;
    for (kld_symid id = (kld_symid)part; id < ctx->nsymbols; id += KLD_NAME_PARTITIONS) {
        uint32_t n = r->numbers[id];
        if (n == KLD_STATE_NONE)
            continue;
        uint64_t hash = kld_names_hash(&ctx->resolver->names, id);
        uint32_t at = (uint32_t)(hash / KLD_NAME_PARTITIONS) & (size - 1);
        while (slots[at])
            at = (at + 1) & (size - 1);
        slots[at] = n + 1;
    }
}

static void index_names(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    /* Partitions are about equally full; at worst one has all ids that there are in it. */
    uint32_t size = 16, most = ctx->nsymbols / KLD_NAME_PARTITIONS + 1;
    while (size < most + most / 2)
        size *= 2;
    r->nslots = size * KLD_NAME_PARTITIONS;
    r->slots = KLD_NEW_ARRAY(&ctx->arena, uint32_t, r->nslots);
    kld_parallel_for(ctx, KLD_NAME_PARTITIONS, r->nsymbols < 4 * BLOCK ? KLD_NAME_PARTITIONS : 4,
                     index_partition, r);
}

static void record_symbols(struct recorder *r)
{
    number_symbols(r);
    index_names(r);
    kld_builder_symbols(&r->b, r->nsymbols, compose_symbols, r);
    kld_builder_table(&r->b, KLD_T_NAMES, r->slots, r->nslots, sizeof(*r->slots));
}

/* ---- sections ---- */

static void record_sections(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    size_t n = ctx->sections.len;
    struct kld_state_section *out = KLD_NEW_ARRAY(&ctx->arena, struct kld_state_section, n);
    for (size_t i = 0; i < n; i++) {
        const struct kld_section *s = ctx->sections.data[i];
        size_t length = strlen(s->name);
        out[i] = (struct kld_state_section){
            .name = kld_builder_text(&r->b, s->name, length),
            .name_length = (uint32_t)length,
            .type = s->type,
            .number = s->number,
            .rank = s->rank,
            .flags = s->flags,
            .p2align = s->p2align,
            .relro = s->relro,
            .nameless = s->nameless,
            .format_flags = s->format_flags,
            .entsize = s->entsize,
            .addr = s->addr,
            .offset = s->offset,
            .size = s->size,
            .used = s->used,
        };
    }
    kld_builder_table(&r->b, KLD_T_SECTIONS, out, n, sizeof(*out));
}

/* Room that each atom of a section has. */
static void record_capacities(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)w;
    struct recorder *r = arg;
    const struct kld_section *s = ctx->sections.data[i];
    for (size_t k = 0; k < s->atoms.len; k++) {
        const struct kld_atom *a = s->atoms.data[k];
        if (a->file->kind != KLD_FILE_OBJECT)
            continue;
        /* One of no bytes may be where the pool begins, which is not its. */
        uint64_t end = s->addr + (a->addr - s->addr <= s->used ? s->used : s->size);
        uint64_t next = k + 1 < s->atoms.len ? KLD_MIN(s->atoms.data[k + 1]->addr, end) : end;
        uint64_t capacity = next - a->addr;
        r->capacities[r->first_capacity[a->file->index] + (uint64_t)(a - a->file->atoms)] =
            (uint32_t)KLD_MIN(capacity, UINT32_MAX);
    }
}

/* ---- files ---- */

static const struct kld_updater_ops *updater(const struct kld_session *ctx)
{
    return ctx->format->updater;
}

static void measure_file(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t f)
{
    (void)w;
    struct recorder *r = arg;
    const struct kld_file *file = ctx->files[f];
    struct kld_state_contents *head = &r->heads[f];
    kld_members_hash(&r->members, (uint32_t)f);
    if (file->kind == KLD_FILE_OBJECT) {
        head->nnames = file->nnames;
        head->nglobals = file->nglobals;
        head->natoms = file->natoms;
        head->format_size = updater(ctx)->record_file(ctx, file, NULL);
    }
    r->files[f].contents_size = kld_record_parts(head, NULL, &(struct kld_file_record){0});
}

static void record_classes(const struct kld_file *file, uint8_t *classes)
{
    for (uint32_t i = 0; i < file->nnames; i++)
        classes[i] = file->classes[i] & KLD_RECORD_CLASS;
    for (uint32_t g = 0; g < file->ngroups; g++)
        classes[file->groups[g].name] |=
            KLD_RECORD_GROUP | (file->groups[g].discarded ? KLD_RECORD_DISCARDED : 0);
}

static void record_atoms(struct recorder *r, const struct kld_file *file,
                         struct kld_state_atom *out)
{
    const uint32_t *capacities = r->capacities + r->first_capacity[file->index];
    for (uint32_t i = 0; i < file->natoms; i++) {
        const struct kld_atom *a = &file->atoms[i];
        out[i].name = file->keys[i];
        out[i].addr = a->addr;
        out[i].size = (uint32_t)a->size;
        out[i].capacity = capacities[i];
        out[i].section = (uint16_t)a->section;
        out[i].kind = kld_record_kind(a);
        out[i].flags = a->flags;
        out[i].p2align = a->p2align;
        out[i].live = a->live;
        if (a->size > UINT32_MAX || a->section > UINT16_MAX)
            atomic_store(&r->unsupported, true);
    }
}

static void record_file(struct recorder *r, const struct kld_file *file, uint8_t *out)
{
    struct kld_file_record to;
    const struct kld_state_contents *head = &r->heads[file->index];
    kld_record_parts(head, out, &to);
    memcpy(out, head, sizeof(*head));
    if (file->kind != KLD_FILE_OBJECT)
        return;
    for (uint32_t i = 0; i < file->nnames; i++)
        to.symbols[i] = r->numbers[file->ids[i]];
    record_classes(file, to.classes);
    record_atoms(r, file, to.atoms);
    updater(r->ctx)->record_file(r->ctx, file, to.format);
}

static void compose_files(void *arg, uint64_t first, uint64_t count, uint8_t *out)
{
    const struct recorder *r = arg;
    for (uint64_t f = first; f < first + count; f++)
        record_file(arg, r->ctx->files[f], out + (r->files[f].contents - r->files[first].contents));
}

static int compare_known(const void *key, const void *element)
{
    return strcmp(key, ((const struct kld_io_known *)element)->path);
}

static bool holds(const struct kld_io_known *k, const struct kld_file *file)
{
    return file->bytes.ptr >= k->bytes.ptr && file->bytes.ptr < k->bytes.ptr + k->bytes.len;
}

static uint32_t input_in_memory(const struct recorder *r, const struct kld_file *file)
{
    size_t from = 0, to = r->ninputs - r->nknown;
    while (from < to) {
        size_t mid = from + (to - from) / 2;
        if (r->known[r->by_place[mid]].bytes.ptr <= file->bytes.ptr)
            from = mid + 1;
        else
            to = mid;
    }
    return from && holds(&r->known[r->by_place[from - 1]], file) ? r->by_place[from - 1]
                                                                 : KLD_STATE_NONE;
}

/* The file that the bytes are in: for a member of a thin archive it is one of its own. */
static uint32_t input_of(const struct recorder *r, const struct kld_file *file)
{
    const struct kld_io_known *k =
        r->nknown ? bsearch(file->path, r->known, r->nknown, sizeof(*k), compare_known) : NULL;
    if (k && holds(k, file))
        return (uint32_t)(k - r->known);
    for (uint32_t i = 0; i < r->nknown && file->member; i++)
        if (holds(&r->known[i], file) && r->known[i].bytes.ptr == file->bytes.ptr)
            return i;
    return input_in_memory(r, file);
}

/* Each with room to grow; those of several files are written together. */
static void place_contents(struct recorder *r)
{
    enum { AT_ONCE = 256 << 10 };
    struct kld_session *ctx = r->ctx;
    for (uint32_t f = 0; f < ctx->nfiles;) {
        uint32_t first = f;
        uint64_t total = 0;
        while (f < ctx->nfiles && total < AT_ONCE) {
            struct kld_state_file *file = &r->files[f++];
            file->contents = total;
            file->contents_capacity =
                kld_align_up(file->contents_size + file->contents_size / 32 + 64, 8);
            total += file->contents_capacity;
        }
        uint64_t at = kld_builder_contents(&r->b, total, first, f - first, compose_files, r);
        for (uint32_t i = first; i < f; i++)
            r->files[i].contents += at;
    }
}

static void note_capacities(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    uint64_t n = 0;
    r->first_capacity = KLD_NEW_ARRAY(&ctx->arena, uint64_t, ctx->nfiles);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        r->first_capacity[f] = n;
        n += ctx->files[f]->natoms;
    }
    r->capacities = KLD_NEW_ARRAY(&ctx->arena, uint32_t, n);
    kld_parallel_for(ctx, ctx->sections.len, 4, record_capacities, r);
}

static void record_files(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    r->files = KLD_NEW_ARRAY(&ctx->arena, struct kld_state_file, ctx->nfiles);
    r->heads = KLD_NEW_ARRAY(&ctx->arena, struct kld_state_contents, ctx->nfiles);
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f];
        struct kld_state_file *out = &r->files[f];
        out->input = input_of(r, file);
        out->flags = (file->lazy ? KLD_STATE_FILE_LAZY : 0) |
                     (file->kind == KLD_FILE_OBJECT ? KLD_STATE_FILE_OBJECT : 0);
        out->puller = file->lazy ? r->numbers[file->puller] : KLD_STATE_NONE;
        out->size = file->bytes.len;
        out->offset = file->member_offset;
        if (file->member) {
            out->member_length = (uint32_t)strlen(file->member);
            out->member = kld_builder_text(&r->b, file->member, out->member_length);
        }
        if (out->input == KLD_STATE_NONE) {
            if (file->kind == KLD_FILE_OBJECT)
                atomic_store(&r->unsupported, true);
            continue;
        }
        struct kld_state_input *in = &r->inputs[out->input];
        if (file->member && in->kind == KLD_INPUT_IS_OBJECT)
            out->flags |= KLD_STATE_FILE_THIN;
        if (!in->nfiles++)
            in->first_file = f;
    }
    r->members = (struct kld_members){ctx, r->known, r->inputs, r->files, .ninputs = r->ninputs};
    kld_members_begin(&r->members, r->nknown);
    note_capacities(r);
    kld_parallel_for(ctx, ctx->nfiles, 16, measure_file, r);
    kld_builder_table(&r->b, KLD_T_FILES, r->files, ctx->nfiles, sizeof(*r->files));
}

/* ---- inputs ---- */

static enum kld_state_input_kind kind_of(struct kld_session *ctx, const struct kld_io_known *k)
{
    const struct kld_arch_ops *arch = NULL;
    const char *why;
    if (k->absent)
        return KLD_INPUT_IS_ABSENT;
    if (!k->id.inode && !k->by_content)
        return KLD_INPUT_IS_STREAM;
    if (kld_archive_probe(k->bytes))
        return KLD_INPUT_IS_ARCHIVE;
    switch (ctx->format->probe(k->bytes, &arch, &why)) {
    case KLD_PROBE_OBJECT: return KLD_INPUT_IS_OBJECT;
    case KLD_PROBE_SHARED: return KLD_INPUT_IS_SHARED;
    default: return KLD_INPUT_IS_TEXT;
    }
}

static void record_input(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    struct recorder *r = arg;
    struct kld_state_input *in = &r->inputs[i];
    switch ((enum kld_state_input_kind)in->kind) {
    case KLD_INPUT_IS_ARCHIVE: kld_members_index(&r->members, &w->arena, (uint32_t)i); break;
    case KLD_INPUT_IS_SHARED:
        in->hash = updater(ctx)->interface(ctx, in->nfiles ? ctx->files[in->first_file] : NULL);
        break;
    case KLD_INPUT_IS_TEXT:
        in->hash = XXH3_64bits(r->known[i].bytes.ptr, r->known[i].bytes.len);
        break;
    case KLD_INPUT_IS_OBJECT:
    case KLD_INPUT_IS_STREAM:
    case KLD_INPUT_IS_ABSENT: break;
    }
    if (r->known[i].by_content)
        in->id = kld_identity_of_bytes(r->known[i].bytes);
}

static int compare_places(const void *a, const void *b, void *arg)
{
    const struct recorder *r = arg;
    uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
    const uint8_t *x = r->known[i].bytes.ptr, *y = r->known[k].bytes.ptr;
    return x != y ? (x < y ? -1 : 1) : (i > k) - (i < k);
}

/* What the host gave as bytes. Where two inputs share some, it cannot be told whose a file of them is:
 * such inputs may not change. */
static void list_memory(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    size_t n = r->nknown;
    for (size_t i = 0; i < ctx->inputs.len; i++) {
        const struct kld_input_item *item = &ctx->inputs.data[i];
        if (!item->bytes.ptr)
            continue;
        r->known[n] = (struct kld_io_known){item->name, item->bytes, .by_content = true};
        r->inputs[n].item = (uint32_t)i + 1;
        r->inputs[n].kind = kind_of(ctx, &r->known[n]);
        r->by_place[n - r->nknown] = (uint32_t)n;
        n++;
    }
    r->ninputs = n;
    n -= r->nknown;
    if (n)
        qsort_r(r->by_place, n, sizeof(*r->by_place), compare_places, r);
    for (size_t i = 1; i < n; i++) {
        uint32_t a = r->by_place[i - 1], b = r->by_place[i];
        if (r->known[b].bytes.ptr < r->known[a].bytes.ptr + r->known[a].bytes.len)
            r->inputs[a].kind = r->inputs[b].kind = KLD_INPUT_IS_TEXT;
    }
}

static void record_items(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    size_t n = ctx->inputs.len;
    struct kld_state_item *out = KLD_NEW_ARRAY(&ctx->arena, struct kld_state_item, n);
    for (size_t i = 0; i < n; i++) {
        const struct kld_input_item *item = &ctx->inputs.data[i];
        const struct kld_io_known *k =
            r->nknown ? bsearch(item->name, r->known, r->nknown, sizeof(*k), compare_known) : NULL;
        out[i].name_length = (uint32_t)strlen(item->name);
        out[i].name = kld_builder_text(&r->b, item->name, out[i].name_length);
        out[i].flags = item->flags;
        out[i].input = KLD_STATE_NONE;
        if (k && !item->bytes.ptr && r->inputs[k - r->known].kind == KLD_INPUT_IS_OBJECT &&
            r->inputs[k - r->known].nfiles == 1)
            out[i].input = (uint32_t)(k - r->known);
    }
    kld_builder_table(&r->b, KLD_T_ITEMS, out, n, sizeof(*out));
}

static void list_inputs(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    struct kld_io_known *files;
    r->nknown = kld_io_known(ctx, &files);
    r->known = KLD_NEW_ARRAY(&ctx->arena, struct kld_io_known, r->nknown + ctx->inputs.len);
    r->inputs = KLD_NEW_ARRAY(&ctx->arena, struct kld_state_input, r->nknown + ctx->inputs.len);
    r->by_place = KLD_NEW_ARRAY(&ctx->arena, uint32_t, ctx->inputs.len);
    for (size_t i = 0; i < r->nknown; i++) {
        r->known[i] = files[i];
        r->inputs[i].kind = kind_of(ctx, &files[i]);
    }
    list_memory(r);
    for (size_t i = 0; i < r->ninputs; i++) {
        const struct kld_io_known *k = &r->known[i];
        r->inputs[i].id = k->id;
        r->inputs[i].path_length = (uint32_t)strlen(k->path);
        r->inputs[i].path = kld_builder_text(&r->b, k->path, r->inputs[i].path_length);
    }
}

static void record_merged(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    size_t n = ctx->merged.len;
    struct kld_state_merged *out = KLD_NEW_ARRAY(&ctx->arena, struct kld_state_merged, n);
    for (size_t i = 0; i < n; i++) {
        const struct kld_merged *m = &ctx->merged.data[i];
        if (!m->atom)
            continue;
        out[i] = (struct kld_state_merged){.addr = m->atom->addr,
                                           .size = m->size,
                                           .section = m->atom->section,
                                           .entsize = m->entsize,
                                           .flags = m->atom->flags,
                                           .p2align = m->p2align,
                                           .strings = m->strings,
                                           .aligned = m->aligned};
    }
    kld_builder_table(&r->b, KLD_T_MERGED, out, n, sizeof(*out));
}

/* ---- all of it ---- */

enum { SPARE_AREAS = 256 };

/* Behind the atoms of every section with a pool there is one free slot. */
static void record_slots(struct recorder *r)
{
    struct kld_session *ctx = r->ctx;
    size_t n = ctx->sections.len + KLD_STATE_SPARE_SLOTS;
    struct kld_state_slot *slots = KLD_NEW_ARRAY(&ctx->arena, struct kld_state_slot, n);
    for (size_t i = 0; i < n; i++) {
        const struct kld_section *s = i < ctx->sections.len ? ctx->sections.data[i] : NULL;
        slots[i].section = KLD_STATE_NONE;
        if (!s || s->used >= s->pool_end)
            continue;
        slots[i] = (struct kld_state_slot){
            .section = s->id, .addr = s->addr + s->used, .size = s->pool_end - s->used};
    }
    kld_builder_table(&r->b, KLD_T_SLOTS, slots, n, sizeof(*slots));
    kld_builder_table(&r->b, KLD_T_AREAS,
                      KLD_NEW_ARRAY(&ctx->arena, struct kld_state_area, SPARE_AREAS), SPARE_AREAS,
                      sizeof(struct kld_state_area));
}

bool kld_record_link(struct kld_session *ctx)
{
    struct recorder r = {.ctx = ctx, .b.ctx = ctx};
    struct kld_incremental *inc = ctx->incremental;
    memcpy(r.b.header.options, inc->options, sizeof(inc->options));
    memcpy(r.b.header.items, inc->items, sizeof(inc->items));
    r.b.header.search_length = (uint32_t)strlen(inc->search);
    r.b.header.search = kld_builder_text(&r.b, inc->search, r.b.header.search_length);
    r.b.header.links = inc->links;
    r.b.header.patches = inc->patches;
    r.b.header.fallbacks = inc->fallbacks;
    r.b.header.kept = inc->kept;
    kld_boot_id(r.b.header.boot);
    if (ctx->options.output_memory)
        r.b.header.output = kld_identity_in_memory(ctx->output.size);
    else if (!kld_identify(ctx, ctx->options.output, &r.b.header.output))
        return false;
    strncpy(r.b.header.arch, ctx->arch->name, sizeof(r.b.header.arch) - 1);
    strncpy(r.b.header.format, ctx->format->name, sizeof(r.b.header.format) - 1);
    list_inputs(&r);
    r.format_numbers = updater(ctx)->symbol_numbers(ctx);
    record_symbols(&r);
    record_sections(&r);
    record_files(&r);
    kld_parallel_for(ctx, r.ninputs, 4, record_input, &r);
    kld_builder_table(&r.b, KLD_T_INPUTS, r.inputs, r.ninputs, sizeof(*r.inputs));
    kld_builder_table(&r.b, KLD_T_CHUNKS, inc->chunks, inc->nchunks, sizeof(*inc->chunks));
    record_slots(&r);
    record_merged(&r);
    record_items(&r);
    place_contents(&r);
    updater(ctx)->record(ctx, &r.b);
    return kld_builder_write(&r.b, &inc->store, &r.unsupported);
}
