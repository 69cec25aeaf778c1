/* gate.c - whether an output may be patched at all: what was asked for, the output, the inputs.
 *
 * Decided from metadata where that is possible: hashes of the options and of the list of inputs, one stat
 * for each file. Only what seems to have changed is read. */
#define XXH_INLINE_ALL
#include "src/incremental/gate.h"
#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>
#include "src/archive.h"
#include "src/incremental/incremental.h"
#include "src/incremental/kept.h"

/* ---- what was asked for ---- */

/* An object that was given by another path, alone in its place: rustc makes up a new name for a file
 * each time. It counts as changed. */
static bool rename_item(struct kld_relink *r, uint32_t i)
{
    const struct kld_input_item *now = &r->link->inputs.data[i];
    struct kld_state_item *item = kld_state_edit(&r->st, KLD_T_ITEMS, i, 1);
    if (item->input == KLD_STATE_NONE || now->bytes.ptr || item->flags != now->flags ||
        (now->flags & KLD_INPUT_LIBRARY))
        return false;
    item->name_length = (uint32_t)strlen(now->name);
    item->name = kld_state_add(&r->st, now->name, item->name_length, item->name_length + 1ull);
    struct kld_state_input *in = kld_state_edit(&r->st, KLD_T_INPUTS, item->input, 1);
    if (in->kind != KLD_INPUT_IS_OBJECT)
        return false;
    in->path = item->name;
    in->path_length = item->name_length;
    in->id = (struct kld_identity){0};
    return true;
}

static bool same_item(struct kld_relink *r, uint32_t i)
{
    const struct kld_input_item *now = &r->link->inputs.data[i];
    const struct kld_state_item *item = kld_state_get(&r->st, KLD_T_ITEMS, i, 1);
    return item->flags == now->flags &&
           strcmp(kld_state_text(&r->st, item->name, item->name_length), now->name) == 0;
}

/* Whether the name was that of another input: then inputs have changed places. */
static bool is_known_item(struct kld_relink *r, const char *name)
{
    uint64_t n = kld_state_count(&r->st, KLD_T_INPUTS);
    for (uint64_t i = 0; i < n; i++) {
        const struct kld_state_input *in = kld_state_get(&r->st, KLD_T_INPUTS, i, 1);
        if (strcmp(kld_state_text(&r->st, in->path, in->path_length), name) == 0)
            return true;
    }
    return false;
}

/* Whether the list of inputs is the same but for names of a few objects. */
static bool check_items(struct kld_relink *r)
{
    enum { FEW = 1024 }; /* a crate has up to 256 */
    size_t n = r->link->inputs.len, renamed = 0;
    if (n != kld_state_count(&r->st, KLD_T_ITEMS))
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (same_item(r, i))
            continue;
        if (++renamed > FEW || is_known_item(r, r->link->inputs.data[i].name) || !rename_item(r, i))
            return false;
    }
    memcpy(r->st.header->items, r->link->incremental->items, sizeof(r->st.header->items));
    return !r->st.damaged && !r->st.full;
}

/* The first n lines of a list of folders are passed over. */
static struct kld_str line_of(const char *text, size_t n)
{
    for (; n && *text; n--)
        text = strchr(text, '\n') + 1;
    const char *end = strchr(text, '\n');
    return (struct kld_str){text, end ? (size_t)(end - text) : 0};
}

static size_t count_lines(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

/* Whether an input of the link is below the folder. */
static bool holds_input(struct kld_relink *r, struct kld_str dir)
{
    uint64_t n = kld_state_count(&r->st, KLD_T_INPUTS);
    for (uint64_t i = 0; i < n; i++) {
        const struct kld_state_input *in = kld_state_get(&r->st, KLD_T_INPUTS, i, 1);
        const char *path = kld_state_text(&r->st, in->path, in->path_length);
        if (in->kind != KLD_INPUT_IS_ABSENT && in->path_length > dir.len &&
            memcmp(path, dir.ptr, dir.len) == 0)
            return true;
    }
    return false;
}

/* A folder of the library path may have another name if neither has anything to find in it: rustc makes
 * one for each link. */
static bool check_search(struct kld_relink *r)
{
    const struct kld_state_header *h = r->st.header;
    const char *old = kld_state_text(&r->st, h->search, h->search_length);
    const char *now = r->link->incremental->search;
    size_t n = count_lines(now);
    if (strcmp(old, now) == 0)
        return true;
    if (h->search_length && old[h->search_length - 1] != '\n')
        return false; /* not one of ours */
    if (n != count_lines(old))
        return false;
    for (size_t i = 0; i < n; i++) {
        struct kld_str was = line_of(old, i), is = line_of(now, i);
        if (!kld_str_eq(was, is) &&
            (holds_input(r, was) ||
             !kld_io_is_empty_folder(kld_arena_strndup(&r->link->arena, is.ptr, is.len))))
            return false;
    }
    return true;
}

bool kld_gate_request(struct kld_relink *r)
{
    const struct kld_state_header *h = r->st.header;
    const struct kld_incremental *inc = r->link->incremental;
    if (memcmp(inc->options, h->options, sizeof(h->options)) != 0 || !check_search(r))
        return kld_relink_refuse(r, KLD_WHY_OPTIONS, "other options than those of the last link");
    if (memcmp(inc->items, h->items, sizeof(h->items)) != 0 && !check_items(r))
        return kld_relink_refuse(r, KLD_WHY_INPUTS,
                                 "the list of inputs is not that of the last link");
    return true;
}

/* ---- the output ---- */

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
    return kld_relink_is_sound(r);
}

static bool is_trusted(const struct kld_relink *r)
{
    /* A crash of the system may have lost writes in any order. */
    char boot[KLD_BOOT_ID_SIZE];
    return !r->update.memory && r->update.id.ctime == r->st.header->output.ctime &&
           kld_boot_id(boot) && memcmp(boot, r->st.header->boot, sizeof(boot)) == 0;
}

bool kld_gate_contents(struct kld_relink *r)
{
    return is_trusted(r) || check_contents(r);
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

static bool check_open(struct kld_relink *r, enum kld_update_problem problem, const char *path)
{
    switch (problem) {
    case KLD_UPDATE_OK: break;
    case KLD_UPDATE_CHANGED:
    case KLD_UPDATE_MISSING:
        return kld_relink_refuse(r, KLD_WHY_NO_OUTPUT, "%s cannot be opened", path);
    case KLD_UPDATE_READ_ONLY:
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_READ_ONLY, "%s cannot be written", path);
    case KLD_UPDATE_IN_USE: return kld_relink_refuse(r, KLD_WHY_OUTPUT_BUSY, "%s is in use", path);
    }
    return true;
}

/* The output is gone, but for the name that the last link has kept. */
static bool open_kept(struct kld_relink *r, const char *kept, const char *path)
{
    enum kld_update_problem problem = kld_update_open_kept(r->link, kept, path, &r->update);
    if (problem == KLD_UPDATE_MISSING ||
        (problem == KLD_UPDATE_OK && !same_file(&r->update.id, &r->st.header->output)))
        return kld_relink_refuse(r, KLD_WHY_NO_OUTPUT, "%s is not there, and %s is not what it was",
                                 path, kept);
    return check_open(r, problem, path);
}

/* The output stays between links: it has to have one name, so that it can be patched in place. */
static void stop_keeping(struct kld_relink *r)
{
    kld_kept_drop(r->link);
    r->st.header->kept = 0;
    r->st.changed = true;
}

bool kld_gate_output(struct kld_relink *r)
{
    if (r->link->options.output_memory)
        return open_memory(r);
    const char *path = r->link->options.output;
    const struct kld_state_header *h = r->st.header;
    struct kld_identity now;
    if (!kld_identify(r->link, path, &now)) {
        const char *kept = errno == ENOENT && h->kept ? kld_kept_path(r->link) : NULL;
        return kept ? open_kept(r, kept, path)
                    : kld_relink_refuse(r, KLD_WHY_NO_OUTPUT, "%s is not there", path);
    }
    if (h->kept)
        stop_keeping(r);
    if (!same_file(&now, &h->output))
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_CHANGED,
                                 "%s is not the file that the last link wrote", path);
    enum kld_update_problem problem = kld_update_open(r->link, path, &r->update);
    if (problem == KLD_UPDATE_IN_USE) /* that costs the copying, but not the linking */
        problem = kld_update_open_copy(r->link, path, &r->update);
    if (!check_open(r, problem, path))
        return false;
    if (!same_file(&r->update.id, &h->output))
        return kld_relink_refuse(r, KLD_WHY_OUTPUT_CHANGED, "%s is being changed", path);
    return true;
}

/* ---- inputs ---- */

/* The bytes of an input as they are now. */
bool kld_gate_open_input(struct kld_relink *r, const struct kld_state_input *in,
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

/* What the file system says of an input. */
struct answer {
    const char *path; /* NULL: it was not asked */
    struct kld_identity id;
    int error; /* 0, or errno */
};

static void ask(struct kld_session *link, struct kld_worker *worker, void *arg, size_t i)
{
    struct answer *a = (struct answer *)arg + i;
    (void)worker;
    if (a->path && !kld_identify_input(link, a->path, &a->id))
        a->error = errno;
}

/* What it is now: the file system's answer, if there is one; else it is read. */
static bool identify(struct kld_relink *r, const struct kld_state_input *in,
                     const struct answer *answer, struct kld_identity *id)
{
    struct kld_bytes bytes = {0};
    *id = answer->id;
    if (r->st.damaged || (answer->path && !answer->error))
        return !r->st.damaged;
    if ((answer->path && answer->error != ENOTSUP) || !kld_gate_open_input(r, in, &bytes))
        return false;
    *id = kld_identity_of_bytes(bytes);
    return true;
}

static bool changed_text(struct kld_relink *r, const struct kld_state_input *in)
{
    struct kld_bytes bytes;
    return !kld_gate_open_input(r, in, &bytes) || XXH3_64bits(bytes.ptr, bytes.len) != in->hash;
}

/* A library's symbols are what the link depends on, not its code. */
static bool changed_library(struct kld_relink *r, const char *path,
                            const struct kld_state_input *in)
{
    struct kld_session *ctx = r->ctx;
    struct kld_bytes bytes;
    if (!kld_gate_open_input(r, in, &bytes))
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
    struct kld_changed_input changed = {.number = i};
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
        if (in->flags & KLD_STATE_INPUT_UNREAD)
            return kld_relink_refuse(
                r, KLD_WHY_ARCHIVE, "%s has changed, which it had not for a day when it was linked",
                path);
        if (!kld_gate_open_input(r, in, &bytes) || !kld_archive_probe(bytes) ||
            kld_record_archive(&r->ctx->arena, bytes, &changed.turns) != in->hash)
            return kld_relink_refuse(r, KLD_WHY_ARCHIVE, "the index of %s has changed", path);
        /* fall through */
    case KLD_INPUT_IS_OBJECT: *kld_vec_push(&r->ctx->arena, &r->changed_inputs) = changed; break;
    default: r->st.damaged = true; return kld_relink_is_sound(r);
    }
    if (now)
        ((struct kld_state_input *)kld_state_edit(&r->st, KLD_T_INPUTS, i, 1))->id = *now;
    return true;
}

static bool same_input(const struct kld_identity *a, const struct kld_identity *b)
{
    return same_file(a, b) && a->ctime == b->ctime;
}

static bool check_input(struct kld_relink *r, uint32_t i, const struct answer *answer)
{
    const struct kld_state_input *in = kld_state_get(&r->st, KLD_T_INPUTS, i, 1);
    const char *path = kld_state_text(&r->st, in->path, in->path_length);
    struct kld_identity now = {0};
    bool there = in->kind != KLD_INPUT_IS_STREAM && identify(r, in, answer, &now);
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

/* One stat for each input that may have changed: nearly all that a relink of a large program costs, and so
 * on all threads. */
static struct answer *ask_all(struct kld_relink *r, const struct changed_list *list, uint32_t n)
{
    struct answer *answers = KLD_NEW_ARRAY(&r->ctx->arena, struct answer, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct kld_state_input *in = kld_state_get(&r->st, KLD_T_INPUTS, i, 1);
        if (!in->item && in->kind != KLD_INPUT_IS_STREAM && (!list || is_listed(r, list, i)))
            answers[i].path = kld_state_text(&r->st, in->path, in->path_length);
    }
    kld_parallel_for(r->link, n, 64, ask, answers);
    return answers;
}

bool kld_gate_inputs(struct kld_relink *r)
{
    struct changed_list list = {0};
    bool all = !r->link->options.incremental_changed;
    if (!all && !read_changed(r, &list))
        return false;
    uint32_t n = (uint32_t)kld_state_count(&r->st, KLD_T_INPUTS);
    const struct answer *answers = ask_all(r, all ? NULL : &list, n);
    for (uint32_t i = 0; i < n; i++)
        if ((all || is_listed(r, &list, i)) &&
            (!check_input(r, i, &answers[i]) || !kld_relink_is_sound(r)))
            return false;
    return kld_relink_is_sound(r);
}
