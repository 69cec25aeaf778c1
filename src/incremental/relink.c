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
#include <stdarg.h>
#include <xxhash.h>
#include "src/archive.h"
#include "src/incremental/gate.h"
#include "src/incremental/incremental.h"
#include "src/incremental/kept.h"
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

bool kld_relink_is_sound(struct kld_relink *r)
{
    if (r->st.damaged)
        kld_relink_refuse(r, KLD_WHY_STATE_DAMAGED, "the state is damaged");
    if (r->error)
        kld_relink_refuse(r, KLD_WHY_ERRORS, "%s", r->error);
    return !r->reason;
}

/* Text of the state that is kept: in the state it could be written over. */
static const char *text_of(struct kld_relink *r, uint64_t at, uint32_t length)
{
    const char *text = kld_state_text(&r->st, at, length);
    return kld_arena_strndup(&r->ctx->arena, text, r->st.damaged ? 0 : length);
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
        return kld_relink_is_sound(r);
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
    return kld_relink_is_sound(r);
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
    if (!kld_gate_open_input(r, kld_state_get(&r->st, KLD_T_INPUTS, from->input, 1), bytes))
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
    if (r->files.len <= 64 || r->files.len <= n / 4)
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
    if (!kld_relink_is_sound(r) || !find_bytes(r, from, path, member, from->offset, &bytes))
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
    if (!kld_relink_is_sound(r))
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

/* The member that the file is now. One of another name in the same turn is the same one: rustc makes up names
 * for each build. */
static bool find_file(struct kld_relink *r, const struct kld_archive *archive,
                      const struct kld_turns *turns, const struct kld_state_file *from,
                      uint32_t nth, struct kld_archive_member *member)
{
    if (from->turn && from->turn < turns->count)
        return !kld_archive_member(archive, turns->offsets[from->turn], member) &&
               !member->special && member->name.len;
    return find_member(archive, kld_state_text(&r->st, from->member, from->member_length), nth,
                       member);
}

/* What the state says of it. False: it has not changed, but for where it is. */
static bool update_file(struct kld_relink *r, uint32_t f, const struct kld_archive_member *member)
{
    const struct kld_state_file *from = kld_state_get(&r->st, KLD_T_FILES, f, 1);
    uint64_t hash = XXH3_64bits(member->data.ptr, member->data.len);
    bool named =
        kld_str_is(member->name, kld_state_text(&r->st, from->member, from->member_length));
    bool same = member->data.len == from->size && hash == from->hash && named;
    if (same && member->offset == from->offset)
        return false;
    struct kld_state_file *to = kld_state_edit(&r->st, KLD_T_FILES, f, 1);
    to->offset = member->offset;
    to->size = member->data.len;
    to->hash = hash;
    if (!named) {
        const char *name = kld_arena_strndup(&r->ctx->arena, member->name.ptr, member->name.len);
        to->member_length = (uint32_t)member->name.len;
        to->member = kld_state_add(&r->st, name, member->name.len + 1, member->name.len + 1);
    }
    return !same;
}

static bool load_archive(struct kld_relink *r, const struct kld_changed_input *changed)
{
    uint32_t input = changed->number;
    const struct kld_state_input *in = kld_state_get(&r->st, KLD_T_INPUTS, input, 1);
    const char *path = kld_state_text(&r->st, in->path, in->path_length);
    struct kld_archive archive;
    struct kld_bytes bytes;
    uint64_t where;
    if (!kld_gate_open_input(r, in, &bytes) || kld_archive_parse(&archive, bytes, &where))
        return kld_relink_refuse(r, KLD_WHY_ARCHIVE, "%s is not an archive any more", path);
    if (!archive.has_index)
        return kld_relink_refuse(r, KLD_WHY_UNSUPPORTED, "%s has no index", path);
    if (archive.thin)
        return true; /* its members are inputs of their own */
    uint32_t nth = 0;
    const char *last = NULL;
    uint64_t before = 0;
    uint64_t end = (uint64_t)in->first_file + in->nfiles;
    for (uint64_t f = in->first_file; f < end && !r->st.damaged; f++) {
        const struct kld_state_file *from = kld_state_get(&r->st, KLD_T_FILES, f, 1);
        const char *name = text_of(r, from->member, from->member_length);
        struct kld_archive_member member;
        nth = last && strcmp(last, name) == 0 ? nth + 1 : 0;
        last = name;
        if (from->input != input || !find_file(r, &archive, &changed->turns, from, nth, &member))
            return kld_relink_refuse(r, KLD_WHY_ARCHIVE, "%s has no %s any more", path, name);
        if (member.offset <= before)
            return kld_relink_refuse(r, KLD_WHY_ARCHIVE, "members of %s have changed places", path);
        before = member.offset;
        if (update_file(r, (uint32_t)f, &member) && !kld_relink_load(r, (uint32_t)f, true))
            return false;
    }
    return kld_relink_is_sound(r);
}

static bool load_changed(struct kld_relink *r)
{
    for (size_t i = 0; i < r->changed_inputs.len; i++) {
        const struct kld_changed_input *changed = &r->changed_inputs.data[i];
        const struct kld_state_input *in = kld_state_get(&r->st, KLD_T_INPUTS, changed->number, 1);
        if (in->kind == KLD_INPUT_IS_ARCHIVE) {
            if (!load_archive(r, changed))
                return false;
            continue;
        }
        /* An object may be named twice, or be one that the link left out. */
        for (uint64_t f = 0, n = kld_state_count(&r->st, KLD_T_FILES); in->nfiles && f < n; f++) {
            const struct kld_state_file *from = kld_state_get(&r->st, KLD_T_FILES, f, 1);
            if (from->input == changed->number && !kld_relink_load(r, (uint32_t)f, true))
                return false;
        }
        if (!in->nfiles)
            return kld_relink_refuse(r, KLD_WHY_INPUTS, "an object that was left out has changed");
    }
    return kld_relink_is_sound(r);
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

/* The first chunk that ends behind the offset; they are in file order. */
static uint64_t find_chunk(const struct kld_state_chunk *chunks, uint64_t n, uint64_t offset)
{
    uint64_t lo = 0, hi = n;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (chunks[mid].offset + chunks[mid].size <= offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool rehash(struct kld_relink *r)
{
    uint64_t n = kld_state_count(&r->st, KLD_T_CHUNKS);
    const struct kld_state_chunk *chunks = kld_state_get(&r->st, KLD_T_CHUNKS, 0, n);
    uint8_t *touched = KLD_NEW_ARRAY(&r->ctx->arena, uint8_t, n + 1);
    for (size_t k = 0; k < r->writes.len; k++) {
        const struct kld_write *w = &r->writes.data[k];
        for (uint64_t i = find_chunk(chunks, n, w->offset);
             i < n && chunks[i].offset < w->offset + w->size; i++)
            touched[i] = 1;
    }
    for (uint64_t i = 0; i < n && !r->st.damaged; i++) {
        if (!touched[i])
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

/* Of a kept output even that has to be written which stays as it is: it is not there. */
static bool is_written(const struct kld_relink *r)
{
    return r->writes.len || r->update.kept;
}

/* From here on things can only go wrong by what the system does. */
bool kld_relink_commit(struct kld_relink *r)
{
    const kld_state_store *store = &r->link->incremental->store;
    const char *path = r->link->options.output;
    r->link->incremental->patches++; /* in the state only if that is written anyway */
    if (!is_written(r) && !r->st.changed && kld_same_identity(&r->update.id, &r->st.header->output))
        return true; /* nothing has happened since */
    if (!kld_state_distrust(&r->st, store))
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_READ_ONLY, "the state cannot be written");
    if (is_written(r)) {
        if (!kld_update_start(r->link, &r->update))
            return kld_relink_refuse(r, KLD_WHY_OUTPUT_READ_ONLY, "%s cannot be renamed", path);
        if ((r->writes.len && !write_all(r)) || !kld_update_commit(r->link, &r->update))
            return kld_relink_refuse(r, KLD_WHY_OUTPUT_READ_ONLY, "%s cannot be written", path);
    }
    if (r->update.kept)
        r->st.header->kept = kld_kept_make(r->link, &r->update.id);
    r->st.header->output = r->update.id;
    kld_boot_id(r->st.header->boot);
    r->st.header->patches = r->link->incremental->patches;
    /* The output is right in any case; with this state the next link is a full one. */
    return kld_state_flush(&r->st, store) || true;
}

/* ---- all of it ---- */

bool kld_relink(struct kld_relink *r)
{
    if (!kld_gate_request(r) || !kld_gate_output(r) || !begin_session(r) || !restore_sections(r) ||
        !kld_gate_inputs(r) || !kld_gate_contents(r))
        return false;
    if (r->changed_inputs.len) {
        kld_slots_load(r);
        if (!make_room(r) || !load_changed(r) || is_too_much(r))
            return false;
        bool done = !r->files.len || r->ctx->format->updater->relink(r);
        if (!kld_relink_is_sound(r) || !done)
            return false;
        kld_slots_fill(r);
        kld_slots_store(r);
    }
    if (!kld_relink_is_sound(r))
        return false;
    if (r->st.full)
        return kld_relink_refuse(r, KLD_WHY_NO_ROOM, "the state has no room left");
    return true;
}
