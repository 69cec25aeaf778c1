/* load.c - from the command line to the set of files that are linked.
 *
 * Three steps:
 *
 * 1. Open and sniff every input in order; libraries are searched, text scripts expanded. Archives
 *    without an index, or with --whole-archive, are walked, objects and shared libraries parsed,
 *    archive indices read, and all their names interned, in parallel.
 * 2. Guess, in waves: members that some undefined name may want are parsed ahead, in parallel.
 *    A wave looks only at what the wave before brought. The guess may hold a few members too
 *    many; it decides nothing.
 * 3. Decide, walking the inputs in order on compact arrays: an archive member joins the link when
 *    it defines a name that is undefined at that point, or that becomes undefined later (GNU ld
 *    stops looking when it has passed an archive; lld and mold do not, and neither does kld. What
 *    GNU ld links, links the same way here).
 *
 * Files are ranked by where they stand on the command line and in their archive, not by when they
 * were pulled in: output and messages depend on the inputs alone. */
#include "src/load.h"
#include <errno.h>
#include <stdlib.h>
#include "src/archive.h"
#include "src/ask.h"
#include "src/assign.h"
#include "src/glob.h"
#include "src/inputs.h"

/* A member that an index or a lazy object offers. */
struct lazy_member {
    struct kld_archive_input *archive; /* NULL: file is a --start-lib object */
    uint64_t offset;
    struct kld_file *file; /* once parsed */
    kld_symid puller;      /* the name it was extracted for */
    _Atomic bool wished;   /* a wave has found that it may be wanted */
    bool wanted;           /* parsed or about to be */
    bool extracted;
};

/* An archive with an index. */
struct kld_archive_input {
    struct kld_input_file from;
    struct kld_archive archive;
    uint32_t nentries;
    struct kld_str *names; /* of the index, until they have ids */
    kld_symid *ids;
    uint32_t *member_of; /* [nentries] index into members */
    struct lazy_member *members;
    uint32_t nmembers;
};

/* An archive whose members are all files of the command line: --whole-archive, and those without an index. */
struct walk {
    struct kld_input_file from;
    struct kld_archive archive;
    KLD_VEC(struct kld_file *) files; /* those of its members that are objects */
    bool lazy;
};

/* One step of the walk in command-line order. */
struct input {
    struct kld_file *file;             /* object or shared library, or */
    struct kld_archive_input *archive; /* an archive with an index */
    struct walk *walk;                 /* or other archive, until its files have taken its place */
    struct lazy_member *lazy;          /* file is lazy: its own member */
};
typedef KLD_VEC(struct input) input_list;

enum { SEEN_DEF = 1, SEEN_UNDEF = 2, SEEN_COMMON = 4 };

struct loader {
    struct kld_session *ctx;
    struct kld_arena *scratch;
    input_list inputs;
    KLD_VEC(struct kld_file *) parse_queue;
    KLD_VEC(struct kld_archive_input *) archives;
    KLD_VEC(struct walk *) walks;
    /* By id: */
    uint8_t *seen;
    struct lazy_member **lazy;
    uint32_t limit;
    uint64_t *offered; /* bits, once they are known: names that an archive or lazy object offers, */
    uint32_t noffered; /* of so many ids */
    KLD_VEC(kld_symid) forced; /* by --undefined-glob */
    size_t parsed;             /* files of parse_queue that are */
    struct kld_ask ask;
    KLD_VEC(struct lazy_member *) extract_queue;
    KLD_VEC(struct kld_file *) live;
};

/* ---- step 1: opening ---- */

static struct kld_file *new_file(struct loader *l, struct kld_arena *arena,
                                 const struct kld_input_file *from, enum kld_file_kind kind,
                                 struct kld_bytes bytes, const char *member, uint64_t member_offset)
{
    struct kld_session *ctx = l->ctx;
    struct kld_file *file = ctx->format->new_file(ctx, arena, kind);
    file->format = ctx->format;
    file->path = from->path;
    file->member = member;
    file->member_offset = member_offset;
    file->bytes = bytes;
    file->position = from->position;
    file->as_needed = from->flags & KLD_INPUT_AS_NEEDED;
    file->in_group = from->flags & KLD_INPUT_GROUP;
    file->just_symbols = from->flags & KLD_INPUT_JUST_SYMBOLS;
    file->by_library_name = from->flags & KLD_INPUT_LIBRARY;
    file->exclude_libs = from->exclude_libs && member;
    return file;
}

/* Sniffs bytes as an object or a library of the link's target. NULL if reported or to be
 * ignored. */
static struct kld_file *sniff(struct loader *l, struct kld_arena *arena,
                              const struct kld_input_file *from, struct kld_bytes bytes,
                              const char *member, uint64_t offset)
{
    struct kld_session *ctx = l->ctx;
    enum kld_probe kind = kld_probe_bytes(ctx, from, bytes, member);
    if (kind == KLD_PROBE_OBJECT)
        return new_file(l, arena, from, KLD_FILE_OBJECT, bytes, member, offset);
    if (kind == KLD_PROBE_SHARED && !member &&
        (ctx->options.is_static || (from->flags & KLD_INPUT_STATIC) ||
         ctx->options.kind == KLD_KIND_RELOCATABLE)) {
        kld_error(ctx, "bad-input",
                  &(struct kld_where){.path = from->path, .order = from->position},
                  "attempted static link of dynamic object");
        return NULL;
    }
    if (kind == KLD_PROBE_SHARED && !member)
        return new_file(l, arena, from, KLD_FILE_SHARED, bytes, NULL, 0);
    return NULL;
}

static void add_file(struct loader *l, struct kld_file *file, bool lazy)
{
    struct kld_session *ctx = l->ctx;
    struct input *in = kld_vec_push(l->scratch, &l->inputs);
    in->file = file;
    file->lazy = lazy;
    if (lazy) {
        in->lazy = KLD_NEW(&ctx->arena, struct lazy_member);
        *in->lazy = (struct lazy_member){.file = file, .wanted = true};
    }
}

static void bad_archive(struct kld_session *ctx, const struct kld_input_file *from,
                        const char *error, uint64_t offset)
{
    kld_error(ctx, "bad-archive", &(struct kld_where){.path = from->path, .order = from->position},
              "archive: %s, at offset 0x%llx", error, (unsigned long long)offset);
}

/* The bytes and name of a member; for a thin archive those of the file it names. False if
 * reported. */
static bool member_bytes(struct loader *l, struct kld_arena *arena,
                         const struct kld_input_file *from, const struct kld_archive *archive,
                         const struct kld_archive_member *member, struct kld_bytes *bytes,
                         const char **name)
{
    struct kld_session *ctx = l->ctx;
    *name = kld_arena_strndup(arena, member->name.ptr, member->name.len);
    *bytes = member->data;
    if (!archive->thin)
        return true;
    const char *path = kld_archive_member_path(arena, from->path, member->name);
    if (!kld_io_open(ctx, path, bytes)) {
        kld_error(ctx, "cannot-open",
                  &(struct kld_where){.path = from->path, .order = from->position},
                  "cannot open member %s: %s", path, kld_error_text(ctx, errno));
        return false;
    }
    if (!member->nested)
        return true;
    struct kld_archive inner;
    struct kld_archive_member real;
    uint64_t where = member->nested;
    const char *error = kld_archive_parse(&inner, *bytes, &where);
    if (!error)
        error = kld_archive_member(&inner, where = member->nested, &real);
    if (error) {
        bad_archive(l->ctx, from, error, where);
        return false;
    }
    *name = kld_arena_strndup(arena, real.name.ptr, real.name.len);
    *bytes = real.data;
    return true;
}

/* Members that hold no object: metadata of Rust libraries and the like are passed over. */
static struct kld_file *sniff_member(struct loader *l, struct kld_arena *arena,
                                     const struct kld_input_file *from,
                                     const struct kld_archive *archive,
                                     const struct kld_archive_member *member)
{
    struct kld_bytes bytes;
    const char *name;
    if (!member_bytes(l, arena, from, archive, member, &bytes, &name))
        return NULL;
    return sniff(l, arena, from, bytes, name, member->offset);
}

static void walk_members(struct loader *l, struct kld_arena *arena, struct walk *walk)
{
    uint64_t at = walk->archive.first;
    struct kld_archive_member member;
    const char *error = NULL;
    while (kld_archive_next(&walk->archive, &at, &member, &error)) {
        struct kld_file *file = sniff_member(l, arena, &walk->from, &walk->archive, &member);
        if (file)
            *kld_vec_push(arena, &walk->files) = file;
    }
    if (error)
        bad_archive(l->ctx, &walk->from, error, at);
}

static void walk_archive(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    struct loader *l = arg;
    (void)ctx;
    walk_members(l, &w->arena, l->walks.data[i]);
}

static int compare_sizes(const void *a, const void *b)
{
    size_t x = (*(struct walk *const *)a)->archive.bytes.len,
           y = (*(struct walk *const *)b)->archive.bytes.len;
    return x > y ? -1 : x < y;
}

/* The header of each member is a page that nobody has looked at yet, so that other threads help: all but
 * with the first object, which may fix the target, and in thin archives, which open files. */
static void add_members(struct loader *l, const struct kld_input_file *from,
                        const struct kld_archive *archive, bool lazy)
{
    struct kld_session *ctx = l->ctx;
    struct walk *walk = KLD_NEW(&ctx->arena, struct walk);
    *walk = (struct walk){.from = *from, .archive = *archive, .lazy = lazy};
    if (ctx->format && !archive->thin)
        *kld_vec_push(l->scratch, &l->walks) = walk;
    else
        walk_members(l, &ctx->arena, walk);
    kld_vec_push(l->scratch, &l->inputs)->walk = walk;
}

/* Walks the archives that are left, and has the files that were found take their places; all are to be parsed. */
static void finish_walks(struct loader *l)
{
    input_list all = l->inputs;
    if (l->walks.len) /* so that no thread begins with a large one when the others have ended */
        qsort(l->walks.data, l->walks.len, sizeof(*l->walks.data), compare_sizes);
    kld_parallel_for(l->ctx, l->walks.len, 1, walk_archive, l);
    l->inputs = (input_list){0};
    for (size_t i = 0; i < all.len; i++) {
        const struct walk *walk = all.data[i].walk;
        for (size_t k = 0; walk && k < walk->files.len; k++)
            add_file(l, walk->files.data[k], walk->lazy);
        if (!walk)
            *kld_vec_push(l->scratch, &l->inputs) = all.data[i];
    }
    for (size_t i = 0; i < l->inputs.len; i++)
        if (l->inputs.data[i].file)
            *kld_vec_push(l->scratch, &l->parse_queue) = l->inputs.data[i].file;
}

/* Given again, as compilers do with libgcc.a, an archive adds nothing: members are taken for names that become
 * undefined later as well. */
static bool is_known_archive(const struct loader *l, struct kld_bytes bytes)
{
    for (size_t i = 0; i < l->archives.len; i++)
        if (l->archives.data[i]->archive.bytes.ptr == bytes.ptr)
            return true;
    return false;
}

static void add_archive(struct loader *l, const struct kld_input_file *from, struct kld_bytes bytes)
{
    struct kld_session *ctx = l->ctx;
    struct kld_archive archive;
    uint64_t where = 0;
    const char *error = kld_archive_parse(&archive, bytes, &where);
    if (error) {
        bad_archive(l->ctx, from, error, where);
        return;
    }
    if ((from->flags & KLD_INPUT_WHOLE_ARCHIVE) || !archive.has_index) {
        add_members(l, from, &archive, !(from->flags & KLD_INPUT_WHOLE_ARCHIVE));
        return;
    }
    if (is_known_archive(l, bytes))
        return;
    struct kld_archive_input *in = KLD_NEW(&ctx->arena, struct kld_archive_input);
    in->from = *from;
    in->archive = archive;
    *kld_vec_push(l->scratch, &l->archives) = in;
    kld_vec_push(l->scratch, &l->inputs)->archive = in;
}

/* kld_inputs_expand calls this for every file of the command line, in order. */
static void take_input(void *arg, const struct kld_input_file *from, struct kld_bytes bytes)
{
    struct loader *l = arg;
    if (kld_archive_probe(bytes)) {
        add_archive(l, from, bytes);
        return;
    }
    struct kld_file *file = sniff(l, &l->ctx->arena, from, bytes, NULL, 0);
    if (file)
        add_file(l, file, (from->flags & KLD_INPUT_LAZY) && file->kind == KLD_FILE_OBJECT);
}

/* ---- archive indices ---- */

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Sorts offsets, if archivers have not done so, and takes out those that are there twice; returns how many are
 * left. */
static uint32_t sort_offsets(uint64_t *offsets, uint32_t count)
{
    bool sorted = true;
    for (uint32_t i = 1; i < count; i++)
        sorted &= offsets[i - 1] <= offsets[i];
    if (!sorted)
        qsort(offsets, count, sizeof(*offsets), compare_offsets);
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!n || offsets[i] != offsets[n - 1])
            offsets[n++] = offsets[i];
    return n;
}

/* Where the offset is in sorted[n]. Nearly always it is there that the one before was, or next to it. */
static uint32_t find_offset(const uint64_t *sorted, uint32_t n, uint32_t before, uint64_t offset)
{
    if (sorted[before] == offset)
        return before;
    if (before + 1 < n && sorted[before + 1] == offset)
        return before + 1;
    const uint64_t *found = bsearch(&offset, sorted, n, sizeof(*sorted), compare_offsets);
    return (uint32_t)(found - sorted);
}

/* The members that the index names, in the order of the archive; of each name, which one it is. There is room for
 * as many offsets in `sorted`. */
static void number_members(struct kld_worker *w, struct kld_archive_input *in,
                           const uint64_t *offsets, uint64_t *sorted)
{
    if (!in->nentries)
        return;
    memcpy(sorted, offsets, in->nentries * sizeof(*sorted));
    uint32_t n = in->nmembers = sort_offsets(sorted, in->nentries);
    in->members = KLD_NEW_ARRAY(&w->arena, struct lazy_member, n);
    for (uint32_t i = 0; i < n; i++)
        in->members[i] = (struct lazy_member){.archive = in, .offset = sorted[i]};
    in->member_of = KLD_NEW_ARRAY(&w->arena, uint32_t, in->nentries);
    uint32_t at = 0;
    for (uint32_t i = 0; i < in->nentries; i++)
        in->member_of[i] = at = find_offset(sorted, n, at, offsets[i]);
}

/* `names` is where they stay until they have ids. */
static void read_index(struct kld_session *ctx, struct kld_worker *w, struct kld_archive_input *in,
                       struct kld_arena *names)
{
    struct kld_archive_index index = kld_archive_index(&in->archive);
    uint64_t offset;
    uint64_t count = in->archive.nindex;
    in->names = KLD_NEW_ARRAY(names, struct kld_str, count);
    uint64_t *offsets = (uint64_t *)kld_worker_buffer(w, 2 * count * sizeof(*offsets));
    while (kld_archive_index_next(&index, &in->names[in->nentries], &offset))
        offsets[in->nentries++] = offset;
    if (index.error)
        bad_archive(ctx, &in->from, index.error, 0);
    in->ids = KLD_NEW_ARRAY(&w->arena, kld_symid, in->nentries);
    number_members(w, in, offsets, offsets + count);
}

/* ---- parsing and interning ---- */

static struct kld_str index_name_at(const void *from, uint32_t i)
{
    return ((const struct kld_archive_input *)from)->names[i];
}

/* What is parsed at a time: files of the parse queue, and archives. Names are hashed right after they have been
 * read, if there is memory to keep all of that: kld_names_intern can go on in portions. */
struct batch {
    const struct loader *loader;
    struct kld_file **files;
    struct kld_archive_input **archives;
    struct kld_name_source *sources; /* of the files, then of the archives */
    size_t nfiles, narchives;
    bool scatters;
};

static void parse_file(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    struct batch *b = arg;
    struct kld_file *file = b->files[i];
    ctx->format->parse(ctx, w, file);
    b->sources[i] = kld_names_of_file(file);
    if (b->scatters)
        kld_names_scatter(w, &b->sources[i]);
}

static void parse_archive(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    struct batch *b = arg;
    struct kld_archive_input *in = b->archives[i];
    read_index(ctx, w, in, b->scatters ? &w->scratch : &w->arena);
    b->sources[b->nfiles + i] = (struct kld_name_source){
        .from = in, .at = index_name_at, .count = in->nentries, .ids = in->ids};
    if (b->scatters)
        kld_names_scatter(w, &b->sources[b->nfiles + i]);
}

/* References to wrapped names go to their wrappers (--wrap). */
static void apply_wrap(struct loader *l, struct kld_file *file)
{
    const struct kld_wraps *wraps = &l->ctx->resolver->wraps;
    if (file->kind == KLD_FILE_SHARED)
        return;
    for (size_t w = 0; w < wraps->len; w++)
        for (uint32_t i = 0; i < file->nglobals; i++) {
            unsigned class = KLD_NAME_CLASS(file->classes[i]);
            if (class != KLD_NAME_UNDEF && class != KLD_NAME_UNDEF_WEAK)
                continue;
            if (file->ids[i] == wraps->data[w].name)
                file->ids[i] = wraps->data[w].wrapper;
            else if (file->ids[i] == wraps->data[w].real)
                file->ids[i] = wraps->data[w].name;
        }
}

/* Arrays by id keep up with the ids. */
static void grow_arrays(struct loader *l)
{
    uint32_t limit = kld_names_limit(&l->ctx->resolver->names);
    if (limit <= l->limit)
        return;
    uint32_t cap = limit + limit / 4;
    uint8_t *seen = KLD_NEW_ARRAY(l->scratch, uint8_t, cap);
    struct lazy_member **lazy = KLD_NEW_ARRAY(l->scratch, struct lazy_member *, cap);
    if (l->limit) {
        memcpy(seen, l->seen, l->limit);
        memcpy(lazy, l->lazy, l->limit * sizeof(*lazy));
    }
    l->seen = seen;
    l->lazy = lazy;
    l->limit = cap;
}

static void offer_bit(struct loader *l, kld_symid id)
{
    l->offered[id / 64] |= 1ull << id % 64;
}

static bool is_offered(const struct loader *l, kld_symid id)
{
    return id < l->noffered && (l->offered[id / 64] >> id % 64 & 1);
}

/* All archives and lazy objects of the command line are read. */
static void collect_offers(struct loader *l)
{
    l->noffered = kld_names_limit(&l->ctx->resolver->names);
    l->offered = KLD_NEW_ARRAY(l->scratch, uint64_t, l->noffered / 64 + 1);
    for (size_t i = 0; i < l->inputs.len; i++) {
        const struct input *in = &l->inputs.data[i];
        for (uint32_t k = 0; in->archive && k < in->archive->nentries; k++)
            offer_bit(l, in->archive->ids[k]);
        for (uint32_t k = 0; in->lazy && k < in->file->nglobals; k++)
            offer_bit(l, in->file->ids[k]);
    }
}

/* The steps below go through the names of these files only, one file after the other: with --whole-archive
 * there are few. */
static void find_mention(const struct loader *l, struct kld_file *file)
{
    for (uint32_t k = 0; k < file->nglobals && !file->meets_lazy; k++)
        file->meets_lazy = is_offered(l, file->ids[k]);
}

static void find_mentions(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)ctx, (void)w;
    const struct batch *b = arg;
    find_mention(b->loader, b->files[i]);
}

/* What these libraries define has become known later than they were parsed. */
static void meet_libraries(struct loader *l, struct kld_file **libraries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct kld_file *lib = libraries[i];
        find_mention(l, lib);
        for (uint32_t k = 0; lib->live && k < lib->nglobals; k++)
            if (KLD_NAME_CLASS(lib->classes[k]) >= KLD_NAME_DEF)
                l->seen[lib->ids[k]] |= SEEN_DEF;
    }
}

/* Parses what is queued, from `first` on, and interns its names. */
static void parse_and_intern(struct loader *l, size_t first, size_t first_archive)
{
    struct kld_session *ctx = l->ctx;
    struct batch b = {.loader = l,
                      .files = l->parse_queue.data + first,
                      .archives = l->archives.len ? l->archives.data + first_archive : NULL,
                      .nfiles = l->parse_queue.len - first,
                      .narchives = l->archives.len - first_archive,
                      .scatters = !ctx->options.memory_limit};
    size_t nsources = b.nfiles + b.narchives;
    b.sources = KLD_NEW_ARRAY(l->scratch, struct kld_name_source, nsources + l->ask.libraries.len);
    kld_parallel_for(ctx, b.nfiles, 1, parse_file, &b);
    kld_parallel_for(ctx, b.narchives, 1, parse_archive, &b);
    l->parsed = l->parse_queue.len;
    nsources +=
        kld_ask_begin(ctx, l->scratch, &l->ask, b.files, b.nfiles, b.sources, b.sources + nsources);
    kld_names_intern(ctx, &ctx->resolver->names, b.sources, nsources);
    for (size_t i = 0; i < b.narchives; i++)
        b.archives[i]->names = NULL;
    for (size_t i = 0; ctx->resolver->wraps.len && i < b.nfiles; i++)
        apply_wrap(l, b.files[i]);
    kld_ask_libraries(ctx, l->scratch, &l->ask, b.files, b.nfiles);
    grow_arrays(l);
    if (!l->offered)
        collect_offers(l);
    if (first) { /* libraries are all in the first batch */
        meet_libraries(l, l->ask.libraries.data, l->ask.libraries.len);
        meet_libraries(l, l->ask.listed.data, l->ask.listed.len);
    }
    kld_parallel_for(ctx, b.nfiles, 16, find_mentions, &b);
}

/* ---- step 2: guessing ---- */

static void open_member(struct loader *l, struct kld_arena *arena, struct lazy_member *m)
{
    struct kld_archive_member member;
    const char *error = kld_archive_member(&m->archive->archive, m->offset, &member);
    m->wanted = true;
    if (error)
        bad_archive(l->ctx, &m->archive->from, error, m->offset);
    else
        m->file = sniff_member(l, arena, &m->archive->from, &m->archive->archive, &member);
}

static void queue_member(struct loader *l, struct lazy_member *m)
{
    if (!m->file)
        return;
    m->file->lazy = true;
    *kld_vec_push(l->scratch, &l->parse_queue) = m->file;
}

static void want(struct loader *l, struct lazy_member *m)
{
    if (m->wanted)
        return;
    open_member(l, &l->ctx->arena, m);
    queue_member(l, m);
}

/* The first offer of every name, and what objects on the command line define. */
static void note_offers(struct loader *l)
{
    for (size_t i = 0; i < l->inputs.len; i++) {
        const struct input *in = &l->inputs.data[i];
        if (in->archive) {
            for (uint32_t k = 0; k < in->archive->nentries; k++) {
                struct lazy_member **first = &l->lazy[in->archive->ids[k]];
                if (!*first)
                    *first = &in->archive->members[in->archive->member_of[k]];
            }
            continue;
        }
        for (uint32_t k = 0; !in->lazy && in->file->meets_lazy && k < in->file->nglobals; k++) {
            unsigned class = KLD_NAME_CLASS(in->file->classes[k]);
            if (class == KLD_NAME_DEF || class == KLD_NAME_DEF_WEAK)
                l->seen[in->file->ids[k]] = SEEN_DEF;
        }
    }
}

/* --undefined-glob: names that an archive offers count as -u if they match. */
static void expand_undefined_globs(struct loader *l)
{
    struct kld_session *ctx = l->ctx;
    for (size_t i = 0; i < ctx->options.undefined_glob.len; i++) {
        struct kld_glob glob =
            kld_glob_compile(&ctx->arena, kld_str(ctx->options.undefined_glob.data[i]));
        for (kld_symid id = 0; id < kld_names_limit(&ctx->resolver->names); id++) {
            struct kld_str name = kld_names_get(&ctx->resolver->names, id);
            if (!name.ptr || !kld_glob_match(&glob, name))
                continue;
            *kld_vec_push(&ctx->arena, &ctx->options.undefined) =
                kld_arena_strndup(&ctx->arena, name.ptr, name.len);
            *kld_vec_push(l->scratch, &l->forced) = id;
            if (l->lazy[id] && !l->lazy[id]->wanted)
                want(l, l->lazy[id]);
        }
    }
}

/* A wave: files of the parse queue from `first` on. */
struct wave {
    const struct loader *l;
    size_t first;
};

static void find_wishes(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    (void)ctx, (void)w;
    const struct wave *wave = arg;
    const struct loader *l = wave->l;
    const struct kld_file *file = l->parse_queue.data[wave->first + i];
    for (uint32_t k = 0; file->meets_lazy && k < file->nglobals; k++) {
        struct lazy_member *m = l->lazy[file->ids[k]];
        if (m && !m->wanted && !m->wished && KLD_NAME_CLASS(file->classes[k]) == KLD_NAME_UNDEF &&
            !(l->seen[file->ids[k]] & SEEN_DEF))
            atomic_store_explicit(&m->wished, true, memory_order_relaxed);
    }
}

static void open_wished(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    struct loader *l = arg;
    const struct kld_archive_input *in = l->archives.data[i];
    (void)ctx;
    for (uint32_t k = 0; !in->archive.thin && k < in->nmembers; k++)
        if (in->members[k].wished && !in->members[k].wanted)
            open_member(l, &w->arena, &in->members[k]);
}

/* What the files from `first` on want is queued, in the order of the archives. */
static void queue_wanted(struct loader *l, size_t first)
{
    struct wave wave = {l, first};
    kld_parallel_for(l->ctx, l->parse_queue.len - first, 4, find_wishes, &wave);
    kld_parallel_for(l->ctx, l->archives.len, 1, open_wished, l);
    for (size_t i = 0; i < l->archives.len; i++)
        for (uint32_t k = 0; k < l->archives.data[i]->nmembers; k++) {
            struct lazy_member *m = &l->archives.data[i]->members[k];
            if (!m->wished)
                continue;
            m->wished = false;
            if (m->wanted)
                queue_member(l, m);
            else
                want(l, m);
        }
}

static void guess_members(struct loader *l)
{
    note_offers(l);
    expand_undefined_globs(l);
    if (l->forced.len)
        parse_and_intern(l, l->parsed, l->archives.len);
    for (size_t done = 0; done < l->parse_queue.len;) {
        size_t end = l->parse_queue.len;
        queue_wanted(l, done);
        done = end;
        if (l->parse_queue.len > end)
            parse_and_intern(l, end, l->archives.len);
    }
    if (l->limit) {
        memset(l->seen, 0, l->limit);
        memset(l->lazy, 0, l->limit * sizeof(*l->lazy));
    }
    for (size_t i = 0; i < l->forced.len; i++)
        l->seen[l->forced.data[i]] = SEEN_UNDEF;
}

/* ---- step 3: deciding ---- */

/* The member's file, parsed now if nobody guessed it. NULL if broken. */
static struct kld_file *member_file(struct loader *l, struct lazy_member *m)
{
    if (!m->wanted) {
        size_t first = l->parse_queue.len;
        want(l, m);
        parse_and_intern(l, first, l->archives.len);
    }
    return m->file;
}

static void offer_to(struct loader *l, struct lazy_member *m, kld_symid name)
{
    if (!m->extracted) {
        m->extracted = true;
        m->puller = name;
        *kld_vec_push(l->scratch, &l->extract_queue) = m;
    }
}

/* Whether the member really defines the name: an index does not tell COMMON from data. */
static bool defines(struct loader *l, struct lazy_member *m, kld_symid id)
{
    const struct kld_file *file = member_file(l, m);
    for (uint32_t k = 0; file && k < file->nglobals; k++)
        if (file->ids[k] == id)
            return KLD_NAME_CLASS(file->classes[k]) == KLD_NAME_DEF ||
                   KLD_NAME_CLASS(file->classes[k]) == KLD_NAME_DEF_WEAK;
    return false;
}

/* A lazy definition meets what is known of the name so far. */
static void meet_lazy(struct loader *l, kld_symid id, struct lazy_member *m)
{
    uint8_t seen = l->seen[id];
    if (seen & SEEN_DEF)
        return;
    if (seen & SEEN_COMMON) {
        if (defines(l, m, id))
            offer_to(l, m, id);
    } else if (seen & SEEN_UNDEF) {
        offer_to(l, m, id);
    }
    if (!l->lazy[id])
        l->lazy[id] = m;
}

/* --warn-backrefs: a linker that goes through archives once would not find the member. */
static void warn_backref(struct loader *l, const struct kld_file *file, uint32_t k,
                         const struct lazy_member *m)
{
    const struct kld_input_file *from = m->archive ? &m->archive->from : NULL;
    if (!l->ctx->options.warn_backrefs || !from || file->kind != KLD_FILE_OBJECT ||
        from->position >= file->position || m->extracted ||
        (file->in_group && (from->flags & KLD_INPUT_GROUP)))
        return;
    kld_warning(l->ctx, "backref", &(struct kld_where){.file = file},
                "backward reference detected: %.*s is defined in %s, which comes before",
                KLD_FMT(file->format->name_at(file, k)), from->path);
}

/* A live file's names join. */
static void join(struct loader *l, struct kld_file *file)
{
    file->live = true;
    *kld_vec_push(l->scratch, &l->live) = file;
    if (!file->meets_lazy)
        return;
    for (uint32_t k = 0; k < file->nglobals; k++) {
        unsigned class = KLD_NAME_CLASS(file->classes[k]);
        kld_symid id = file->ids[k];
        if (class == KLD_NAME_DEF || class == KLD_NAME_DEF_WEAK)
            l->seen[id] |= SEEN_DEF;
        else if (class == KLD_NAME_COMMON)
            l->seen[id] |= SEEN_COMMON;
    }
    for (uint32_t k = 0; k < file->nglobals; k++) {
        unsigned class = KLD_NAME_CLASS(file->classes[k]);
        kld_symid id = file->ids[k];
        if (class == KLD_NAME_UNDEF)
            l->seen[id] |= SEEN_UNDEF;
        if ((class == KLD_NAME_UNDEF && !(l->seen[id] & (SEEN_DEF | SEEN_COMMON))) ||
            (class == KLD_NAME_COMMON && !(l->seen[id] & SEEN_DEF)))
            if (l->lazy[id]) {
                warn_backref(l, file, k, l->lazy[id]);
                meet_lazy(l, id, l->lazy[id]);
            }
    }
}

static void drain(struct loader *l)
{
    for (size_t i = 0; i < l->extract_queue.len; i++) {
        struct lazy_member *m = l->extract_queue.data[i];
        struct kld_file *file = member_file(l, m);
        if (!file || file->live)
            continue;
        file->puller = m->puller;
        join(l, file);
    }
    l->extract_queue.len = 0;
}

static void decide_members(struct loader *l)
{
    for (size_t i = 0; i < l->inputs.len; i++) {
        const struct input *in = &l->inputs.data[i];
        if (in->archive) {
            const struct kld_archive_input *a = in->archive;
            for (uint32_t k = 0; k < a->nentries; k++) {
                struct lazy_member *m = &a->members[a->member_of[k]];
                if (!m->extracted)
                    meet_lazy(l, a->ids[k], m);
                if (l->extract_queue.len)
                    drain(l);
            }
        } else if (in->lazy) {
            for (uint32_t k = 0; k < in->file->nglobals; k++) {
                unsigned class = KLD_NAME_CLASS(in->file->classes[k]);
                if (class == KLD_NAME_DEF || class == KLD_NAME_DEF_WEAK || class == KLD_NAME_COMMON)
                    meet_lazy(l, in->file->ids[k], in->lazy);
            }
            drain(l);
        } else {
            join(l, in->file);
            drain(l);
        }
    }
}

/* ---- the result ---- */

static int compare_files(const void *a, const void *b)
{
    const struct kld_file *x = *(struct kld_file *const *)a, *y = *(struct kld_file *const *)b;
    if (x->position != y->position)
        return x->position < y->position ? -1 : 1;
    return x->member_offset < y->member_offset ? -1 : x->member_offset > y->member_offset;
}

static bool same_library(const struct kld_session *ctx, const struct kld_file *a,
                         const struct kld_file *b)
{
    return a->kind == KLD_FILE_SHARED && b->kind == KLD_FILE_SHARED &&
           ctx->format->same_library(a, b);
}

/* Live files in order; a shared library that is named twice counts once. */
static void list_files(struct loader *l)
{
    struct kld_session *ctx = l->ctx;
    qsort(l->live.data, l->live.len, sizeof(*l->live.data), compare_files);
    ctx->files = KLD_NEW_ARRAY(&ctx->arena, struct kld_file *, l->live.len);
    KLD_VEC(struct kld_file *) libraries = {0};
    for (size_t i = 0; i < l->live.len; i++) {
        struct kld_file *file = l->live.data[i];
        bool again = false;
        for (size_t k = 0; file->kind == KLD_FILE_SHARED && k < libraries.len; k++)
            if (same_library(ctx, libraries.data[k], file)) {
                again = true;
                libraries.data[k]->as_needed &= file->as_needed;
            }
        if (again)
            continue;
        if (file->kind == KLD_FILE_SHARED)
            *kld_vec_push(l->scratch, &libraries) = file;
        file->index = ctx->nfiles;
        ctx->files[ctx->nfiles++] = file;
    }
}

enum { BLOCK = 8192 }; /* symbols at a time */

static void name_symbols(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t block)
{
    (void)w, (void)arg;
    kld_symid end = (kld_symid)KLD_MIN((block + 1) * BLOCK, ctx->nsymbols);
    for (kld_symid id = (kld_symid)(block * BLOCK); id < end; id++) {
        struct kld_str name = kld_names_get(&ctx->resolver->names, id);
        ctx->symbols[id].name = name.ptr;
        ctx->symbols[id].name_len = (uint32_t)name.len;
    }
}

static void make_symbols(struct kld_session *ctx)
{
    ctx->nsymbols = kld_names_limit(&ctx->resolver->names);
    ctx->symbols = KLD_NEW_ARRAY(&ctx->arena, struct kld_symbol, ctx->nsymbols);
    kld_parallel_for(ctx, (ctx->nsymbols + BLOCK - 1) / BLOCK, 2, name_symbols, NULL);
}

kld_symid kld_name_intern(struct kld_session *ctx, struct kld_str name)
{
    return kld_names_intern_one(ctx, &ctx->resolver->names, name);
}

struct kld_symbol *kld_symbol_find(struct kld_session *ctx, struct kld_str name)
{
    kld_symid id = kld_names_find(&ctx->resolver->names, name);
    return id == KLD_NO_SYMBOL || id >= ctx->nsymbols ? NULL : &ctx->symbols[id];
}

static void intern_wraps(struct kld_session *ctx)
{
    for (size_t i = 0; i < ctx->options.wrap.len; i++) {
        const char *name = ctx->options.wrap.data[i];
        *kld_vec_push(&ctx->arena, &ctx->resolver->wraps) = (struct kld_wrap){
            .name = kld_name_intern(ctx, kld_str(name)),
            .wrapper =
                kld_name_intern(ctx, kld_str(kld_arena_printf(&ctx->arena, "__wrap_%s", name))),
            .real = kld_name_intern(ctx, kld_str(kld_arena_printf(&ctx->arena, "__real_%s", name))),
        };
    }
}

/* The internal file comes before everything on the command line. */
static void add_internal(struct loader *l)
{
    add_file(l, l->ctx->internal, false);
    *kld_vec_push(l->scratch, &l->parse_queue) = l->ctx->internal;
    struct input internal = l->inputs.data[l->inputs.len - 1];
    memmove(l->inputs.data + 1, l->inputs.data, (l->inputs.len - 1) * sizeof(internal));
    l->inputs.data[0] = internal;
}

/* A large link will need many large blocks; a small one should not take one. Of archives about half is needed. */
static void expect(struct loader *l)
{
    enum { MUCH = 100 << 20 };
    struct kld_session *ctx = l->ctx;
    uint64_t size = 0;
    for (size_t i = 0; i < l->inputs.len; i++)
        size += l->inputs.data[i].archive ? l->inputs.data[i].archive->archive.bytes.len / 2
                                          : l->inputs.data[i].file->bytes.len;
    if (size < MUCH)
        return;
    kld_arena_expect_much(&ctx->arena);
    for (unsigned w = 0; w < kld_pool_size(ctx); w++)
        kld_worker_expect_much(kld_pool_worker(ctx, w));
}

/* Members that join later mention names as well: about one in 16 KiB of all archives, if they are few of many. */
static void expect_mentions(struct loader *l)
{
    for (size_t i = 0; i < l->archives.len; i++)
        l->ask.mentions += l->archives.data[i]->archive.bytes.len / (16 << 10);
}

void kld_load(struct kld_session *ctx)
{
    struct kld_resolver *r = ctx->resolver = KLD_NEW(&ctx->arena, struct kld_resolver);
    kld_arena_init(&r->arena, &ctx->alloc, &ctx->oom);
    struct loader l = {.ctx = ctx, .scratch = &r->arena};
    kld_inputs_expand(ctx, take_input, &l);
    if (!ctx->format) {
        if (!kld_has_failed(ctx))
            kld_error(ctx, "no-input", NULL, "%s",
                      ctx->inputs.len ? "no input says what the target is" : "no input files");
        return;
    }
    finish_walks(&l);
    expect(&l);
    expect_mentions(&l);
    intern_wraps(ctx);
    kld_builtin_names(ctx);
    ctx->format->builtin_names(ctx);
    add_internal(&l);
    parse_and_intern(&l, 0, 0);
    guess_members(&l);
    decide_members(&l);
    list_files(&l);
    make_symbols(ctx);
    kld_arena_free(&r->arena);
}
