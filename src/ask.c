#include "src/ask.h"
#include "src/load.h"

static struct kld_str name_at(const void *from, uint32_t i)
{
    const struct kld_file *file = from;
    return file->format->name_at(file, i);
}

struct kld_name_source kld_names_of_file(const struct kld_file *file)
{
    return (struct kld_name_source){
        .from = file, .at = name_at, .count = file->nnames, .ids = file->ids};
}

/* ---- whom to ask ---- */

static void list_names(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t i)
{
    struct kld_file *file = ((struct kld_file **)arg)[i];
    ctx->format->list(ctx, w, file);
}

/* With Rust's hello world, whose files mention six times as many names as libc.so.6 has, the link takes the same time
 * either way. */
static bool is_better_listed(const struct kld_ask *ask, const struct kld_file *lib)
{
    return ask->mentions > 4 * (uint64_t)lib->unlisted;
}

size_t kld_ask_begin(struct kld_session *ctx, struct kld_arena *scratch, struct kld_ask *ask,
                     struct kld_file **files, size_t nfiles, struct kld_name_source *sources,
                     struct kld_name_source *more)
{
    size_t before = ask->libraries.len, kept = 0, nmore = 0;
    for (size_t i = 0; i < nfiles; i++) {
        if (files[i]->unlisted)
            *kld_vec_push(scratch, &ask->libraries) = files[i];
        if (files[i]->kind != KLD_FILE_SHARED)
            ask->mentions += files[i]->nglobals;
    }
    ask->listed.len = 0;
    for (size_t i = 0; i < ask->libraries.len; i++)
        if (is_better_listed(ask, ask->libraries.data[i]))
            *kld_vec_push(scratch, &ask->listed) = ask->libraries.data[i];
    kld_parallel_for(ctx, ask->listed.len, 1, list_names, ask->listed.data);
    for (size_t i = 0; i < ask->libraries.len; i++) {
        struct kld_file *lib = ask->libraries.data[i];
        if (lib->unlisted)
            ask->libraries.data[kept++] = lib;
        else if (i < before)
            more[nmore++] = kld_names_of_file(lib);
    }
    ask->libraries.len = kept;
    for (size_t i = 0; ask->listed.len && i < nfiles; i++)
        if (files[i]->kind == KLD_FILE_SHARED && !files[i]->unlisted)
            sources[i] = kld_names_of_file(files[i]);
    return nmore;
}

/* ---- what to ask ---- */

static void make_room(struct kld_arena *scratch, struct kld_ask *ask, uint32_t limit)
{
    if (limit <= ask->limit)
        return;
    bool *asked = KLD_NEW_ARRAY(scratch, bool, limit + limit / 4);
    if (ask->limit)
        memcpy(asked, ask->asked, ask->limit);
    ask->asked = asked;
    ask->limit = limit + limit / 4;
}

/* What only the index of an archive has is not mentioned. */
void kld_ask_libraries(struct kld_session *ctx, struct kld_arena *scratch, struct kld_ask *ask,
                       struct kld_file **files, size_t nfiles)
{
    KLD_VEC(kld_symid) ids = {0};
    if (!ask->libraries.len)
        return;
    make_room(scratch, ask, kld_names_limit(&ctx->resolver->names));
    for (size_t i = 0; i < nfiles; i++)
        for (uint32_t k = 0; k < files[i]->nglobals; k++) {
            kld_symid id = files[i]->ids[k];
            if (!ask->asked[id])
                *kld_vec_push(scratch, &ids) = id;
            ask->asked[id] = true;
        }
    ctx->format->ask(ctx, scratch, ask->libraries.data, ask->libraries.len, ids.data, ids.len);
}
