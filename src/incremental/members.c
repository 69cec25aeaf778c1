#define XXH_INLINE_ALL
#include "src/incremental/members.h"
#include <time.h>
#include <xxhash.h>
#include "src/archive.h"
#include "src/incremental/incremental.h"
#include "src/incremental/relink.h"

/* ---- the index ---- */

/* With --whole-archive members are part of the link of which the index says nothing. */
static uint64_t count_members(const struct kld_archive *archive)
{
    struct kld_archive_member member;
    const char *error;
    uint64_t at = archive->first, n = 0;
    while (kld_archive_next(archive, &at, &member, &error))
        n++;
    return n;
}

/* Offsets of members change whenever one before them does: members count. The order of the names of
 * one member does not matter. */
uint64_t kld_record_archive(struct kld_arena *arena, struct kld_bytes bytes,
                            struct kld_turns *turns)
{
    struct kld_archive archive;
    uint64_t where, offset, last = 0, hash = 0;
    struct kld_str name;
    KLD_VEC(uint64_t) offsets = {0};
    *kld_vec_push(arena, &offsets) = 0;
    *turns = (struct kld_turns){offsets.data, offsets.len};
    if (kld_archive_parse(&archive, bytes, &where))
        return 0;
    if (archive.thin)
        hash = XXH3_64bits(archive.long_names.ptr, archive.long_names.len);
    uint64_t members = count_members(&archive);
    hash += XXH3_64bits(&members, sizeof(members));
    struct kld_archive_index index = kld_archive_index(&archive);
    while (kld_archive_index_next(&index, &name, &offset)) {
        if (offset != last)
            *kld_vec_push(arena, &offsets) = offset;
        last = offset;
        hash += XXH3_64bits_withSeed(name.ptr, name.len, offsets.len - 1);
    }
    *turns = (struct kld_turns){offsets.data, offsets.len};
    return hash;
}

/* The files are in the order of their offsets; those of an index need not be. */
static void note_turns(struct kld_members *m, const struct kld_state_input *in,
                       const struct kld_turns *turns)
{
    for (size_t t = turns->count - 1; in->nfiles && t; t--) {
        uint32_t from = in->first_file, to = in->first_file + in->nfiles;
        while (from < to) {
            uint32_t mid = from + (to - from) / 2;
            if (m->files[mid].offset < turns->offsets[t])
                from = mid + 1;
            else
                to = mid;
        }
        if (from < in->first_file + in->nfiles && m->files[from].offset == turns->offsets[t] &&
            m->files[from].input == in - m->inputs)
            m->files[from].turn = t;
    }
}

/* ---- what need not be read ---- */

enum how { READ, TAKEN_OVER, LEFT_ALONE };

/* A day without a change is too long for something that is being worked on. */
static bool is_old(const struct kld_io_known *k, int64_t now)
{
    const int64_t day = 24ll * 3600 * 1000000000;
    return !k->by_content && k->id.mtime < now - day;
}

/* The record of the member at the offset, among those of its archive. */
static const struct kld_state_file *find_old(struct kld_state *old,
                                             const struct kld_state_input *in, uint64_t offset)
{
    uint64_t from = in->first_file, end = from + in->nfiles, to = end;
    while (from < to) {
        uint64_t mid = from + (to - from) / 2;
        if (((const struct kld_state_file *)kld_state_get(old, KLD_T_FILES, mid, 1))->offset <
            offset)
            from = mid + 1;
        else
            to = mid;
    }
    const struct kld_state_file *file =
        from < end ? kld_state_get(old, KLD_T_FILES, from, 1) : NULL;
    return file && file->offset == offset ? file : NULL;
}

/* The archive has not changed. False: it has members that the last link did not need. */
static bool take_over(struct kld_members *m, uint32_t i, struct kld_state *old,
                      const struct kld_state_input *from)
{
    struct kld_state_input *in = &m->inputs[i];
    for (uint32_t f = in->first_file, end = f + in->nfiles; f < end; f++) {
        const struct kld_state_file *file =
            m->files[f].input == i ? find_old(old, from, m->files[f].offset) : NULL;
        if (!file || file->size != m->files[f].size)
            return false;
        m->files[f].hash = file->hash;
        m->files[f].turn = file->turn;
    }
    in->hash = from->hash;
    in->flags = from->flags;
    return true;
}

static bool was_changed(const struct kld_relink *r, uint32_t input)
{
    for (size_t i = 0; i < r->changed_inputs.len; i++)
        if (r->changed_inputs.data[i].number == input)
            return true;
    return false;
}

/* Both lists are sorted by path. What the relink found to be changed has been changed in its copy of the state,
 * too. */
static void take_over_all(struct kld_members *m, size_t npaths, struct kld_relink *r)
{
    struct kld_state *old = &r->st;
    uint32_t n = (uint32_t)kld_state_count(old, KLD_T_INPUTS);
    for (uint32_t i = 0, k = 0; i < npaths && k < n && !old->damaged;) {
        const struct kld_state_input *from = kld_state_get(old, KLD_T_INPUTS, k, 1);
        int order = from->item ? -1
                               : strcmp(m->known[i].path,
                                        kld_state_text(old, from->path, from->path_length));
        if (order == 0 && m->inputs[i].kind == KLD_INPUT_IS_ARCHIVE &&
            from->kind == KLD_INPUT_IS_ARCHIVE && kld_same_identity(&m->inputs[i].id, &from->id) &&
            !was_changed(r, k) && take_over(m, i, old, from))
            m->how[i] = TAKEN_OVER;
        i += order <= 0;
        k += order >= 0;
    }
    if (old->damaged)
        memset(m->how, READ, m->ninputs * sizeof(*m->how));
}

void kld_members_begin(struct kld_members *m, size_t npaths)
{
    struct kld_session *ctx = m->ctx;
    struct kld_incremental *inc = ctx->incremental;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    m->how = KLD_NEW_ARRAY(&ctx->arena, uint8_t, m->ninputs);
    if (inc->relink && !inc->tried->st.damaged)
        take_over_all(m, npaths, inc->tried);
    for (size_t i = 0; i < m->ninputs; i++)
        if (m->inputs[i].kind == KLD_INPUT_IS_ARCHIVE && m->how[i] == READ &&
            is_old(&m->known[i], now.tv_sec * 1000000000ll + now.tv_nsec)) {
            m->how[i] = LEFT_ALONE;
            m->inputs[i].flags |= KLD_STATE_INPUT_UNREAD;
        }
}

/* ---- what is ---- */

void kld_members_hash(struct kld_members *m, uint32_t f)
{
    struct kld_state_file *file = &m->files[f];
    struct kld_bytes bytes = m->ctx->files[f]->bytes;
    if (file->input != KLD_STATE_NONE && m->inputs[file->input].kind == KLD_INPUT_IS_ARCHIVE &&
        m->how[file->input] == READ)
        file->hash = XXH3_64bits(bytes.ptr, bytes.len);
}

void kld_members_index(struct kld_members *m, struct kld_arena *arena, uint32_t i)
{
    struct kld_turns turns;
    if (m->how[i] != READ)
        return;
    m->inputs[i].hash = kld_record_archive(arena, m->known[i].bytes, &turns);
    note_turns(m, &m->inputs[i], &turns);
}
