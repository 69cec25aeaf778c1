/* relink.c - patching instead of linking, where that is provably the same.
 *
 * The gate comes first and looks at as little as it can: the state's header, the options, one stat
 * for each input. What changed is read; the format compares it with what the state says of it and
 * works out what the output must be, in a session of its own (relink.h). All of that can be dropped
 * at any time. Only when nothing is left that could fail but the writing is the state marked, the
 * output taken out of sight, and written.
 *
 * A link that is killed before that leaves everything as it was. After it there is no output under
 * its name, or a right one with a state that says not to trust it. */
#define XXH_INLINE_ALL
#include "src/incremental/relink.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <xxhash.h>
#include "src/archive.h"
#include "src/incremental/incremental.h"
#include "src/inputs.h"
#include "src/layout.h"

bool kld_relink_refuse(struct kld_relink *r, enum kld_reason reason, const char *format, ...)
{
    if (r->reason)
        return false;
    va_list args;
    va_start(args, format);
    r->text = kld_arena_vprintf(&r->link->arena, format, args);
    va_end(args);
    r->reason = reason;
    return false;
}

static bool is_sound(struct kld_relink *r)
{
    if (r->st.damaged)
        kld_relink_refuse(r, KLD_WHY_STATE_DAMAGED, "the state is damaged");
    if (r->error)
        kld_relink_refuse(r, KLD_WHY_ERRORS, "%s", r->error);
    return !r->reason;
}

/* ---- the gate: what was asked for ---- */

static bool check_request(struct kld_relink *r)
{
    const struct kld_state_header *h = r->st.header;
    const struct kld_incremental *inc = r->link->incremental;
    if (memcmp(inc->options, h->options, sizeof(h->options)) != 0)
        return kld_relink_refuse(r, KLD_WHY_OPTIONS, "other options than those of the last link");
    if (memcmp(inc->items, h->items, sizeof(h->items)) != 0)
        return kld_relink_refuse(r, KLD_WHY_INPUTS,
                                 "the list of inputs is not that of the last link");
    return true;
}

/* ---- the gate: the output ---- */

static bool same_file(const struct kld_identity *a, const struct kld_identity *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->mtime == b->mtime;
}

static bool is_zero(const struct kld_relink *r, uint64_t from, uint64_t to)
{
    for (; from < to; from++)
        if (r->update.bytes[from])
            return false;
    return true;
}

/* The hashes that were made when the output was written still hold, and nothing is between what they
 * are of. */
static bool check_contents(struct kld_relink *r)
{
    uint64_t n = kld_state_count(&r->st, KLD_T_CHUNKS), end = 0;
    const struct kld_state_chunk *chunks = kld_state_get(&r->st, KLD_T_CHUNKS, 0, n);
    bool same = true;
    for (uint64_t i = 0; i < n && same && !r->st.damaged; i++) {
        uint64_t hash[2];
        const struct kld_state_chunk *c = &chunks[i];
        same = c->offset >= end && kld_in_bounds(c->offset, c->size, r->update.size) &&
               is_zero(r, end, c->offset) && r->ctx->format->updater->hash_chunk(r, c, hash) &&
               memcmp(hash, c->hash, sizeof(hash)) == 0;
        end = c->offset + c->size;
    }
    if (!same || !is_zero(r, end, r->update.size))
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_CHANGED,
                                 "the output is not what the last link wrote");
    return is_sound(r);
}

/* What the session's last link has left in memory. Whether the state is of it, its hashes say. */
static bool open_memory(struct kld_relink *r)
{
    struct kld_output *out = &r->link->output;
    if (!out->memory)
        return kld_relink_refuse(r, KLD_WHY_NO_OUTPUT, "there is no output in memory");
    kld_update_open_memory(&r->update, out->memory, out->size);
    if (!same_file(&r->update.id, &r->st.header->output))
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_CHANGED,
                                 "the output in memory is not of the last link");
    return true;
}

static bool open_output(struct kld_relink *r)
{
    if (r->link->options.output_memory)
        return open_memory(r);
    const char *path = r->link->options.output;
    const struct kld_state_header *h = r->st.header;
    struct kld_identity now;
    if (!kld_identify(r->link, path, &now))
        return kld_relink_refuse(r, KLD_WHY_NO_OUTPUT, "%s is not there", path);
    if (!same_file(&now, &h->output))
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_CHANGED,
                                 "%s is not the file that the last link wrote", path);
    enum kld_update_problem problem = kld_update_open(r->link, path, &r->update);
    if (problem == KLD_UPDATE_IN_USE) /* that costs the copying, but not the linking */
        problem = kld_update_open_copy(r->link, path, &r->update);
    switch (problem) {
    case KLD_UPDATE_OK: break;
    case KLD_UPDATE_CHANGED:
    case KLD_UPDATE_MISSING:
        return kld_relink_refuse(r, KLD_WHY_NO_OUTPUT, "%s cannot be opened", path);
    case KLD_UPDATE_READ_ONLY:
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_READ_ONLY, "%s cannot be written", path);
    case KLD_UPDATE_IN_USE: return kld_relink_refuse(r, KLD_WHY_OUTPUT_BUSY, "%s is in use", path);
    }
    if (!same_file(&r->update.id, &h->output))
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_CHANGED, "%s is being changed", path);
    return true;
}

/* Text of the state that is kept: in the state it could be written over. */
static const char *text_of(struct kld_relink *r, uint64_t at, uint32_t length)
{
    const char *text = kld_state_text(&r->st, at, length);
    return kld_arena_strndup(&r->ctx->arena, text, r->st.damaged ? 0 : length);
}

/* ---- the gate: inputs ---- */

/* The bytes of an input as they are now. */
static bool open_input(struct kld_relink *r, const struct kld_state_input *in,
                       struct kld_bytes *bytes)
{
    if (!in->item)
        return kld_io_open(r->ctx, kld_state_text(&r->st, in->path, in->path_length), bytes);
    if (in->item > r->link->inputs.len)
        r->st.damaged = true;
    else
        *bytes = r->link->inputs.data[in->item - 1].bytes;
    return !r->st.damaged && bytes->ptr;
}

/* What it is now: a stat, where the file system knows; else it is read. */
static bool identify(struct kld_relink *r, const struct kld_state_input *in,
                     struct kld_identity *id)
{
    const char *path = kld_state_text(&r->st, in->path, in->path_length);
    struct kld_bytes bytes = {0};
    if (r->st.damaged || (!in->item && kld_identify_input(r->link, path, id)))
        return !r->st.damaged;
    if ((!in->item && errno != ENOTSUP) || !open_input(r, in, &bytes))
        return false;
    *id = kld_identity_of_bytes(bytes);
    return true;
}

static bool changed_text(struct kld_relink *r, const struct kld_state_input *in)
{
    struct kld_bytes bytes;
    return !open_input(r, in, &bytes) || XXH3_64bits(bytes.ptr, bytes.len) != in->hash;
}

/* A library's symbols are what the link depends on, not its code. */
static bool changed_library(struct kld_relink *r, const char *path,
                            const struct kld_state_input *in)
{
    struct kld_session *ctx = r->ctx;
    struct kld_bytes bytes;
    if (!open_input(r, in, &bytes))
        return true;
    const struct kld_arch_ops *arch = NULL;
    const char *why;
    if (ctx->format->probe(bytes, &arch, &why) != KLD_PROBE_SHARED || arch != ctx->arch)
        return true;
    struct kld_file *file = ctx->format->new_file(ctx, &ctx->arena, KLD_FILE_SHARED);
    file->format = ctx->format;
    file->path = path;
    file->bytes = bytes;
    ctx->format->parse(ctx, kld_pool_worker(ctx, 0), file);
    return r->error || ctx->format->updater->interface(ctx, file) != in->hash;
}

/* An input whose identity has changed. */
static bool check_changed(struct kld_relink *r, uint32_t i, const char *path,
                          const struct kld_identity *now)
{
    const struct kld_state_input *in = kld_state_get(&r->st, KLD_T_INPUTS, i, 1);
    struct kld_bytes bytes;
    switch ((enum kld_state_input_kind)in->kind) {
    case KLD_INPUT_IS_ABSENT:
        return kld_relink_refuse(r, KLD_WHY_SEARCH, "%s was not there before", path);
    case KLD_INPUT_IS_STREAM:
        return kld_relink_refuse(r, KLD_WHY_INPUTS, "%s can be read once only", path);
    case KLD_INPUT_IS_TEXT:
        if (changed_text(r, in))
            return kld_relink_refuse(r, KLD_WHY_SCRIPT, "%s has changed", path);
        break;
    case KLD_INPUT_IS_SHARED:
        if (changed_library(r, path, in))
            return kld_relink_refuse(r, KLD_WHY_SHARED_LIBRARY, "the symbols of %s have changed",
                                     path);
        break;
    case KLD_INPUT_IS_ARCHIVE:
        if (!open_input(r, in, &bytes) || !kld_archive_probe(bytes) ||
            kld_record_archive(r->ctx, bytes) != in->hash)
            return kld_relink_refuse(r, KLD_WHY_ARCHIVE, "the index of %s has changed", path);
        /* fall through */
    case KLD_INPUT_IS_OBJECT: *kld_vec_push(&r->ctx->arena, &r->changed_inputs) = i; break;
    default: r->st.damaged = true; return is_sound(r);
    }
    if (now)
        ((struct kld_state_input *)kld_state_edit(&r->st, KLD_T_INPUTS, i, 1))->id = *now;
    return true;
}

static bool same_input(const struct kld_identity *a, const struct kld_identity *b)
{
    return same_file(a, b) && a->ctime == b->ctime;
}

static bool check_input(struct kld_relink *r, uint32_t i)
{
    const struct kld_state_input *in = kld_state_get(&r->st, KLD_T_INPUTS, i, 1);
    const char *path = kld_state_text(&r->st, in->path, in->path_length);
    struct kld_identity now = {0};
    bool there = in->kind != KLD_INPUT_IS_STREAM && identify(r, in, &now);
    if (in->kind == KLD_INPUT_IS_ABSENT)
        return !there || check_changed(r, i, path, NULL);
    if (in->kind == KLD_INPUT_IS_STREAM)
        return check_changed(r, i, path, NULL);
    if (there && same_input(&now, &in->id))
        return true;
    if (!there)
        return kld_relink_refuse(r, KLD_WHY_INPUTS, "%s is not there any more", path);
    return check_changed(r, i, path, &now);
}

/* --incremental-changed: a sorted list of paths. */
struct changed_list {
    KLD_VEC(struct kld_str) paths;
};

static int compare_names(const void *a, const void *b)
{
    const struct kld_str *x = a, *y = b;
    int order = memcmp(x->ptr, y->ptr, KLD_MIN(x->len, y->len));
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

static bool read_changed(struct kld_relink *r, struct changed_list *list)
{
    const char *path = r->link->options.incremental_changed;
    struct kld_bytes bytes;
    if (!kld_io_open(r->ctx, path, &bytes))
        return kld_relink_refuse(r, KLD_WHY_INPUTS, "cannot open %s", path);
    for (size_t at = 0; at < bytes.len;) {
        const uint8_t *end = memchr(bytes.ptr + at, '\n', bytes.len - at);
        size_t n = end ? (size_t)(end - bytes.ptr) - at : bytes.len - at;
        if (n)
            *kld_vec_push(&r->ctx->arena, &list->paths) =
                (struct kld_str){(const char *)bytes.ptr + at, n};
        at += n + 1;
    }
    if (list->paths.len)
        qsort(list->paths.data, list->paths.len, sizeof(struct kld_str), compare_names);
    return true;
}

static bool is_listed(struct kld_relink *r, const struct changed_list *list, uint32_t i)
{
    const struct kld_state_input *in = kld_state_get(&r->st, KLD_T_INPUTS, i, 1);
    struct kld_str path = {kld_state_text(&r->st, in->path, in->path_length), in->path_length};
    return list->paths.len &&
           bsearch(&path, list->paths.data, list->paths.len, sizeof(path), compare_names) != NULL;
}

static bool check_inputs(struct kld_relink *r)
{
    struct changed_list list = {0};
    bool all = !r->link->options.incremental_changed;
    if (!all && !read_changed(r, &list))
        return false;
    uint32_t n = (uint32_t)kld_state_count(&r->st, KLD_T_INPUTS);
    for (uint32_t i = 0; i < n; i++)
        if ((all || is_listed(r, &list, i)) && (!check_input(r, i) || !is_sound(r)))
            return false;
    return is_sound(r);
}

/* ---- the session ---- */

static const struct kld_arch_ops *arch_named(const char *name)
{
    for (size_t i = 0; kld_archs[i]; i++)
        if (strncmp(kld_archs[i]->name, name, 15) == 0)
            return kld_archs[i];
    return NULL;
}

static const struct kld_format_ops *format_named(const char *name)
{
    for (size_t i = 0; kld_formats[i]; i++)
        if (strncmp(kld_formats[i]->name, name, 15) == 0)
            return kld_formats[i];
    return NULL;
}

static bool begin_session(struct kld_relink *r)
{
    struct kld_session *ctx = r->ctx;
    ctx->format = format_named(r->st.header->format);
    ctx->arch = arch_named(r->st.header->arch);
    if (!ctx->format || !ctx->arch || !ctx->format->updater) {
        r->st.damaged = true;
        return is_sound(r);
    }
    ctx->arch_from = "the state";
    ctx->slack = true;
    ctx->format->begin(ctx);
    return true;
}

/* The output's sections, under the ids that they had. The first ones begin() has made. */
static bool restore_sections(struct kld_relink *r)
{
    struct kld_session *ctx = r->ctx;
    uint64_t n = kld_state_count(&r->st, KLD_T_SECTIONS);
    r->st.damaged |= n < ctx->sections.len || n > KLD_STATE_MOST_SECTIONS;
    for (uint64_t i = 0; i < n && !r->st.damaged; i++) {
        const struct kld_state_section *from = kld_state_get(&r->st, KLD_T_SECTIONS, i, 1);
        const char *name = text_of(r, from->name, from->name_length);
        struct kld_section *s = i < ctx->sections.len ? ctx->sections.data[i]
                                : from->nameless
                                    ? kld_section_new(ctx, name)
                                    : kld_section_get(ctx, &ctx->arena, kld_str(name), from->type,
                                                      from->format_flags, from->entsize);
        if (s->id != i || strcmp(s->name, name) != 0 ||
            !kld_record_section_is_sound(from, r->update.size)) {
            r->st.damaged = true;
            break;
        }
        s->type = from->type;
        s->format_flags = from->format_flags;
        s->entsize = from->entsize;
        s->number = from->number;
        s->rank = from->rank;
        s->flags = from->flags;
        s->p2align = from->p2align;
        s->relro = from->relro;
        s->addr = from->addr;
        s->offset = from->offset;
        s->size = from->size;
        s->used = from->used;
    }
    return is_sound(r);
}

/* ---- what the format uses ---- */

kld_symid kld_relink_symbol(struct kld_relink *r, uint32_t number, struct kld_str name)
{
    struct kld_session *ctx = r->ctx;
    if (number >= kld_state_count(&r->st, KLD_T_SYMBOLS)) {
        r->st.damaged = true;
        number = 0;
    }
    if (r->ids[number])
        return r->ids[number] - 1;
    kld_symid id = ctx->nsymbols++;
    r->ids[number] = id + 1;
    r->numbers[id] = number;
    const struct kld_state_symbol *from = kld_state_get(&r->st, KLD_T_SYMBOLS, number, 1);
    struct kld_symbol *sym = &ctx->symbols[id];
    sym->name = name.ptr;
    sym->name_len = (uint32_t)name.len;
    sym->file = ctx->internal;
    sym->size = from->size;
    sym->aux = from->aux;
    sym->version = from->version;
    sym->kind = from->kind;
    sym->type = from->type;
    atomic_store_explicit(&sym->flags, from->needs, memory_order_relaxed);
    atomic_store_explicit(&sym->visibility, from->visibility, memory_order_relaxed);
    atomic_store_explicit(&sym->other, from->other, memory_order_relaxed);
    sym->weak = from->bits & KLD_STATE_SYM_WEAK;
    sym->unique = from->bits & KLD_STATE_SYM_UNIQUE;
    sym->exported = from->bits & KLD_STATE_SYM_EXPORTED;
    sym->imported = from->bits & KLD_STATE_SYM_IMPORTED;
    sym->preemptible = from->bits & KLD_STATE_SYM_PREEMPTIBLE;
    sym->synthetic = from->bits & KLD_STATE_SYM_SYNTHETIC;
    sym->forced_local = from->bits & KLD_STATE_SYM_FORCED_LOCAL;
    sym->value = from->place;
    if (from->kind > KLD_SYM_IMPORTED || from->type > KLD_TYPE_FILE ||
        from->visibility > KLD_VISIBILITY_PROTECTED)
        r->st.damaged = true;
    if (sym->kind == KLD_SYM_DEFINED) {
        if (from->section >= ctx->sections.len) {
            r->st.damaged = true;
            sym->kind = KLD_SYM_UNDEFINED;
            return id;
        }
        sym->in_section = true;
        sym->section = ctx->sections.data[from->section];
        sym->value -= sym->section->addr;
    }
    return id;
}

/* The bytes of a file as they are now. */
static bool find_bytes(struct kld_relink *r, const struct kld_state_file *from, const char *path,
                       const char *member, uint64_t offset, struct kld_bytes *bytes)
{
    if (!open_input(r, kld_state_get(&r->st, KLD_T_INPUTS, from->input, 1), bytes))
        return kld_relink_refuse(r, KLD_WHY_INPUTS, "cannot open %s", path);
    if (!from->member_length || (from->flags & KLD_STATE_FILE_THIN))
        return true;
    struct kld_archive archive;
    struct kld_archive_member m;
    uint64_t where;
    if (!kld_archive_probe(*bytes) || kld_archive_parse(&archive, *bytes, &where) ||
        kld_archive_member(&archive, offset, &m) || !kld_str_is(m.name, member) || archive.thin)
        return kld_relink_refuse(r, KLD_WHY_ARCHIVE, "%s does not have %s where it was", path,
                                 member);
    *bytes = m.data;
    return true;
}

static bool is_too_much(struct kld_relink *r)
{
    uint64_t n = kld_state_count(&r->st, KLD_T_FILES);
    if (r->files.len <= 8 || r->files.len <= n / 4)
        return false;
    kld_relink_refuse(r, KLD_WHY_TOO_MANY, "%zu of %llu files have changed", r->files.len,
                      (unsigned long long)n);
    return true;
}

struct kld_relink_file *kld_relink_load(struct kld_relink *r, uint32_t f, bool changed)
{
    struct kld_session *ctx = r->ctx;
    const struct kld_state_file *from = kld_state_get(&r->st, KLD_T_FILES, f, 1);
    const struct kld_state_input *in = kld_state_get(&r->st, KLD_T_INPUTS, from->input, 1);
    const char *path = text_of(r, in->path, in->path_length);
    const char *member = from->member_length ? text_of(r, from->member, from->member_length) : NULL;
    struct kld_bytes bytes;
    if (changed && is_too_much(r))
        return NULL;
    if (!is_sound(r) || !find_bytes(r, from, path, member, from->offset, &bytes))
        return NULL;
    const struct kld_arch_ops *arch = NULL;
    const char *why;
    if (ctx->format->probe(bytes, &arch, &why) != KLD_PROBE_OBJECT || arch != ctx->arch) {
        kld_relink_refuse(r, KLD_WHY_INPUTS, "%s is not an object for this program any more", path);
        return NULL;
    }
    struct kld_file *file = ctx->format->new_file(ctx, &ctx->arena, KLD_FILE_OBJECT);
    file->format = ctx->format;
    file->path = path;
    file->member = member;
    file->member_offset = from->offset;
    file->bytes = bytes;
    file->live = true;
    file->lazy = from->flags & KLD_STATE_FILE_LAZY;
    file->index = (uint32_t)r->files.len + 1;
    ctx->format->parse(ctx, kld_pool_worker(ctx, 0), file);
    if (!is_sound(r))
        return NULL;
    struct kld_relink_file *rf = kld_vec_push(&ctx->arena, &r->files);
    rf->file = file;
    rf->number = f;
    rf->changed = changed;
    kld_record_get(&r->st, f, &rf->old);
    return rf;
}

const uint8_t *kld_relink_output(struct kld_relink *r, uint64_t offset, uint64_t size)
{
    if (kld_in_bounds(offset, size, r->update.size))
        return r->update.bytes + offset;
    r->st.damaged = true;
    return NULL;
}

static void queue(struct kld_relink *r, uint64_t offset, const uint8_t *data, size_t size)
{
    *kld_vec_push(&r->ctx->arena, &r->writes) = (struct kld_write){offset, data, size};
}

/* Equal bytes between two differences that are so few are written along. */
enum { JOIN = 64 };

bool kld_relink_write(struct kld_relink *r, uint64_t offset, const uint8_t *data, uint64_t size)
{
    const uint8_t *old = kld_relink_output(r, offset, size);
    if (!old)
        return false;
    for (uint64_t at = 0; at < size;) {
        while (at + 64 <= size && memcmp(data + at, old + at, 64) == 0)
            at += 64;
        while (at < size && data[at] == old[at])
            at++;
        uint64_t end = at, same = 0;
        for (uint64_t i = at; i < size && same < JOIN; i++) {
            same = data[i] == old[i] ? same + 1 : 0;
            if (!same)
                end = i + 1;
        }
        if (end > at)
            queue(r, offset + at, data + at, end - at);
        at = end;
        if (at < size && same < JOIN)
            break;
    }
    return true;
}

bool kld_relink_write_at(struct kld_relink *r, const struct kld_section *s, uint64_t addr,
                         const uint8_t *data, uint64_t size)
{
    if (s->flags & KLD_ATOM_ZERO)
        return true;
    if (addr < s->addr || !kld_in_bounds(addr - s->addr, size, s->size)) {
        r->st.damaged = true;
        return false;
    }
    return kld_relink_write(r, s->offset + (addr - s->addr), data, size);
}

/* ---- the changed files ---- */

/* Members by name, counted where names repeat; the archive's index has not changed, so that they
 * are the same ones in the same order. */
static bool find_member(const struct kld_archive *archive, const char *name, uint32_t nth,
                        struct kld_archive_member *member)
{
    uint64_t at = archive->first;
    const char *error = NULL;
    while (kld_archive_next(archive, &at, member, &error))
        if (kld_str_is(member->name, name) && nth-- == 0)
            return true;
    return false;
}

static bool load_archive(struct kld_relink *r, const struct kld_state_input *in)
{
    const char *path = kld_state_text(&r->st, in->path, in->path_length);
    struct kld_archive archive;
    struct kld_bytes bytes;
    uint64_t where;
    if (!open_input(r, in, &bytes) || kld_archive_parse(&archive, bytes, &where))
        return kld_relink_refuse(r, KLD_WHY_ARCHIVE, "%s is not an archive any more", path);
    if (!archive.has_index)
        return kld_relink_refuse(r, KLD_WHY_UNSUPPORTED, "%s has no index", path);
    if (archive.thin)
        return true; /* its members are inputs of their own */
    uint32_t nth = 0;
    const char *last = NULL;
    uint64_t end = (uint64_t)in->first_file + in->nfiles;
    for (uint64_t f = in->first_file; f < end && !r->st.damaged; f++) {
        const struct kld_state_file *from = kld_state_get(&r->st, KLD_T_FILES, f, 1);
        const char *name = kld_state_text(&r->st, from->member, from->member_length);
        struct kld_archive_member member;
        nth = last && strcmp(last, name) == 0 ? nth + 1 : 0;
        last = name;
        if (!find_member(&archive, name, nth, &member))
            return kld_relink_refuse(r, KLD_WHY_ARCHIVE, "%s has no %s any more", path, name);
        bool same = member.data.len == from->size &&
                    XXH3_64bits(member.data.ptr, member.data.len) == from->hash;
        if (same && member.offset == from->offset)
            continue;
        struct kld_state_file *to = kld_state_edit(&r->st, KLD_T_FILES, f, 1);
        to->offset = member.offset;
        if (same)
            continue;
        to->size = member.data.len;
        to->hash = XXH3_64bits(member.data.ptr, member.data.len);
        if (!kld_relink_load(r, (uint32_t)f, true))
            return false;
    }
    return is_sound(r);
}

static bool load_changed(struct kld_relink *r)
{
    for (size_t i = 0; i < r->changed_inputs.len; i++) {
        const struct kld_state_input *in =
            kld_state_get(&r->st, KLD_T_INPUTS, r->changed_inputs.data[i], 1);
        if (in->kind == KLD_INPUT_IS_ARCHIVE) {
            if (!load_archive(r, in))
                return false;
            continue;
        }
        /* An object may be named twice, or be one that the link left out. */
        for (uint64_t f = 0, n = kld_state_count(&r->st, KLD_T_FILES); in->nfiles && f < n; f++) {
            const struct kld_state_file *from = kld_state_get(&r->st, KLD_T_FILES, f, 1);
            if (from->input == r->changed_inputs.data[i] && !kld_relink_load(r, (uint32_t)f, true))
                return false;
        }
        if (!in->nfiles)
            return kld_relink_refuse(r, KLD_WHY_INPUTS, "an object that was left out has changed");
    }
    return is_sound(r);
}

static bool make_room(struct kld_relink *r)
{
    struct kld_session *ctx = r->ctx;
    uint64_t n = kld_state_count(&r->st, KLD_T_SYMBOLS);
    r->ids = KLD_NEW_ARRAY(&ctx->arena, uint32_t, n + 1);
    r->numbers = KLD_NEW_ARRAY(&ctx->arena, uint32_t, n + 1);
    ctx->symbols = KLD_NEW_ARRAY(&ctx->arena, struct kld_symbol, n + 1);
    return n > 0;
}

/* ---- writing ---- */

static bool overlaps(const struct kld_write *w, const struct kld_state_chunk *c)
{
    return w->offset < c->offset + c->size && c->offset < w->offset + w->size;
}

static bool rehash(struct kld_relink *r)
{
    uint64_t n = kld_state_count(&r->st, KLD_T_CHUNKS);
    const struct kld_state_chunk *chunks = kld_state_get(&r->st, KLD_T_CHUNKS, 0, n);
    for (uint64_t i = 0; i < n && !r->st.damaged; i++) {
        bool touched = false;
        for (size_t k = 0; k < r->writes.len && !touched; k++)
            touched = overlaps(&r->writes.data[k], &chunks[i]);
        if (!touched)
            continue;
        struct kld_state_chunk *c = kld_state_edit(&r->st, KLD_T_CHUNKS, i, 1);
        if (!r->ctx->format->updater->hash_chunk(r, c, c->hash))
            return false;
    }
    return true;
}

static bool write_all(struct kld_relink *r)
{
    for (size_t i = 0; i < r->writes.len; i++)
        if (!kld_update_write(r->link, &r->update, r->writes.data[i].offset, r->writes.data[i].data,
                              r->writes.data[i].size))
            return false;
    size_t written = r->writes.len;
    if (!rehash(r) || !r->ctx->format->updater->seal(r))
        return false;
    for (size_t i = written; i < r->writes.len; i++)
        if (!kld_update_write(r->link, &r->update, r->writes.data[i].offset, r->writes.data[i].data,
                              r->writes.data[i].size))
            return false;
    return true;
}

/* From here on things can only go wrong by what the system does. */
bool kld_relink_commit(struct kld_relink *r)
{
    const kld_state_store *store = &r->link->incremental->store;
    const char *path = r->link->options.output;
    r->link->incremental->patches++; /* in the state only if that is written anyway */
    if (!r->writes.len && !r->st.changed && kld_same_identity(&r->update.id, &r->st.header->output))
        return true; /* nothing has happened since */
    if (!kld_state_distrust(&r->st, store))
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_READ_ONLY, "the state cannot be written");
    if (r->writes.len) {
        if (!kld_update_start(r->link, &r->update))
            return kld_relink_refuse(r, KLD_WHY_OUTPUT_READ_ONLY, "%s cannot be renamed", path);
        if (!write_all(r) || !kld_update_commit(r->link, &r->update))
            return kld_relink_refuse(r, KLD_WHY_OUTPUT_READ_ONLY, "%s cannot be written", path);
    }
    r->st.header->output = r->update.id;
    kld_boot_id(r->st.header->boot);
    r->st.header->patches = r->link->incremental->patches;
    /* The output is right in any case; with this state the next link is a full one. */
    return kld_state_flush(&r->st, store) || true;
}

/* ---- all of it ---- */

static bool is_trusted(const struct kld_relink *r)
{
    /* A crash of the system may have lost writes in any order. */
    char boot[KLD_BOOT_ID_SIZE];
    return !r->update.memory && r->update.id.ctime == r->st.header->output.ctime &&
           kld_boot_id(boot) && memcmp(boot, r->st.header->boot, sizeof(boot)) == 0;
}

bool kld_relink(struct kld_relink *r)
{
    if (!check_request(r) || !open_output(r) || !begin_session(r) || !restore_sections(r) ||
        !check_inputs(r) || (!is_trusted(r) && !check_contents(r)))
        return false;
    if (r->changed_inputs.len) {
        kld_slots_load(r);
        if (!make_room(r) || !load_changed(r) || is_too_much(r))
            return false;
        bool done = !r->files.len || r->ctx->format->updater->relink(r);
        if (!is_sound(r) || !done)
            return false;
        kld_slots_fill(r);
        kld_slots_store(r);
    }
    if (!is_sound(r))
        return false;
    if (r->st.full)
        return kld_relink_refuse(r, KLD_WHY_NO_ROOM, "the state has no room left");
    return true;
}
