/* elf_lookup.c - names of shared libraries, looked up in their own hash tables.
 *
 * A library may define tens of thousands of names, of which a program mentions some. The dynamic linker finds
 * them by .gnu.hash, and so does kld where that is less work than to intern all of them: the names that
 * objects mention are the questions, and what the library does not have is mostly told by its Bloom filter.
 *
 * Source: the GNU hash section as the GNU C library reads it (elf_dynsym.c writes one). */
#include <stdlib.h>
#include "formats/elf/elf_object.h"
#include "formats/elf/elf_tables.h"
#include "src/load.h"
#include "src/resolve.h"

/* A name that something mentions. */
struct question {
    struct kld_str name; /* with the version in foo@V */
    uint32_t plain_len;  /* without */
    uint32_t hash;       /* without */
    kld_symid id;
};

typedef KLD_VEC(struct question) question_list;

/* A name nobody mentions has an effect where it could be traced or reported; and states of incremental links are of
 * what could be mentioned later as well. */
static bool wants_all_names(const struct kld_session *ctx)
{
    return ctx->options.incremental || ctx->options.trace_symbol.len ||
           ctx->options.undefined_glob.len;
}

bool elf_lookup_begin(struct kld_session *ctx, struct kld_worker *worker, struct elf_shared *lib,
                      uint32_t shndx)
{
    enum { HEADER = 16, BLOOM_WORD = 8 };
    const elf_shdr *sh = &lib->obj.shdrs[shndx];
    struct kld_bytes bytes;
    if (wants_all_names(ctx) ||
        !kld_bytes_part(lib->obj.base.bytes, sh->sh_offset, sh->sh_size, &bytes) ||
        bytes.len < HEADER)
        return false;
    struct elf_hash_table t = {.nbuckets = kld_get32(bytes.ptr),
                               .first = kld_get32(bytes.ptr + 4),
                               .bloom_mask = kld_get32(bytes.ptr + 8) - 1,
                               .shift = kld_get32(bytes.ptr + 12)};
    uint64_t nbloom = (uint64_t)t.bloom_mask + 1;
    if (!t.nbuckets || !t.first || t.first > lib->obj.nsyms || !kld_is_pow2(nbloom) ||
        nbloom > UINT32_MAX || t.shift > 31)
        return false;
    uint64_t buckets = HEADER + nbloom * BLOOM_WORD, chains = buckets + 4ull * t.nbuckets;
    if (!kld_in_bounds(chains, 4ull * (lib->obj.nsyms - t.first), bytes.len))
        return false;
    t.bloom = bytes.ptr + HEADER;
    t.buckets = bytes.ptr + buckets;
    t.chains = bytes.ptr + chains;
    lib->hash = t;
    lib->listed = KLD_NEW_ARRAY(&worker->arena, uint64_t, lib->obj.nsyms / 64 + 1);
    lib->obj.base.unlisted = lib->obj.nsyms - t.first;
    return true;
}

static bool is_listed(const struct elf_shared *lib, uint32_t i)
{
    return lib->listed[i / 64] >> i % 64 & 1;
}

void elf_list(struct kld_session *ctx, struct kld_worker *worker, struct kld_file *file)
{
    struct elf_shared *lib = elf_shared(file);
    file->unlisted = 0;
    for (uint32_t i = lib->hash.first; i < lib->obj.nsyms; i++)
        if (!is_listed(lib, i))
            elf_shared_add(ctx, &worker->arena, lib, i);
}

struct kld_str elf_unlisted(const struct kld_file *file, uint32_t i)
{
    const struct elf_shared *lib = elf_shared(file);
    struct kld_str name = {0};
    uint32_t n = lib->hash.first + i;
    if (elf_shared_class(lib, n) != KLD_NAME_IGNORED)
        kld_bytes_string(lib->obj.strtab, lib->obj.syms[n].st_name, &name);
    return name;
}

/* ---- questions ---- */

static struct question ask(struct kld_str name, kld_symid id)
{
    const char *at = memchr(name.ptr, '@', name.len);
    struct kld_str plain = {name.ptr, at ? (size_t)(at - name.ptr) : name.len};
    return (struct question){name, (uint32_t)plain.len, elf_gnu_hash(plain), id};
}

/* foo@V is a library's old foo of that version, or refers to its default one, foo@@V, which is known as foo. */
static void add_question(struct kld_session *ctx, struct kld_arena *scratch, question_list *list,
                         kld_symid id)
{
    struct kld_str name = kld_names_get(&ctx->resolver->names, id);
    struct question *q = kld_vec_push(scratch, list);
    *q = ask(name, id);
    if (q->plain_len == name.len)
        return;
    name.len = q->plain_len;
    *kld_vec_push(scratch, list) = ask(name, kld_name_intern(ctx, name));
}

/* ---- answers ---- */

/* Symbol i becomes one of the library's names, if it is not yet. */
static void answer(struct kld_session *ctx, struct elf_shared *lib, uint32_t i, kld_symid id)
{
    struct kld_file *file = &lib->obj.base;
    uint32_t before = file->nnames;
    if (is_listed(lib, i))
        return;
    lib->listed[i / 64] |= 1ull << i % 64;
    elf_shared_add(ctx, &ctx->arena, lib, i);
    if (file->nnames > before)
        file->ids[before] = id;
}

static bool is_asked_for(const struct elf_shared *lib, uint32_t i, const struct question *q)
{
    const struct elf_object *obj = &lib->obj;
    if (obj->syms[i].st_name >= obj->strtab.len)
        return true; /* elf_shared_add reports it */
    const char *text = (const char *)obj->strtab.ptr + obj->syms[i].st_name;
    if (strncmp(text, q->name.ptr, q->plain_len) != 0 || text[q->plain_len])
        return false;
    if (!elf_shared_is_hidden(lib, i))
        return q->plain_len == q->name.len;
    return q->plain_len < q->name.len &&
           kld_str_eq(elf_shared_version(lib, i), kld_str_from(q->name, q->plain_len + 1));
}

static void look_up(struct kld_session *ctx, struct elf_shared *lib, const struct question *q)
{
    const struct elf_hash_table *t = &lib->hash;
    uint64_t word = kld_get64(t->bloom + 8ull * (q->hash / 64 & t->bloom_mask));
    if (!(word >> q->hash % 64 & word >> (q->hash >> t->shift) % 64 & 1))
        return;
    uint32_t i = kld_get32(t->buckets + 4ull * (q->hash % t->nbuckets));
    if (i < t->first)
        return;
    for (bool last = false; i < lib->obj.nsyms && !last; i++) {
        uint32_t hash = kld_get32(t->chains + 4ull * (i - t->first));
        last = hash & 1;
        if ((hash | 1) == (q->hash | 1) && is_asked_for(lib, i, q))
            answer(ctx, lib, i, q->id);
    }
}

/* ---- other names of variables ---- */

/* Addresses of variables, sorted, and a filter for them. */
struct addresses {
    KLD_VEC(uint64_t) list;
    uint64_t filter;
};

static uint64_t filter_bit(uint64_t address)
{
    return 1ull << address / 8 % 64;
}

static int compare_addresses(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Of what the program could want a copy (elf_scan.c), among the library's names from `first` on. */
static void find_variables(struct kld_arena *scratch, const struct elf_shared *lib, uint32_t first,
                           struct addresses *found)
{
    for (uint32_t k = first; k < lib->obj.base.nnames; k++) {
        const elf_sym *sym = &lib->obj.syms[lib->numbers[k]];
        unsigned type = ELF64_ST_TYPE(sym->st_info);
        if (sym->st_shndx == SHN_UNDEF || !sym->st_size || type == STT_FUNC ||
            type == STT_GNU_IFUNC || type == STT_TLS)
            continue;
        *kld_vec_push(scratch, &found->list) = sym->st_value;
        found->filter |= filter_bit(sym->st_value);
    }
    if (found->list.len)
        qsort(found->list.data, found->list.len, sizeof(*found->list.data), compare_addresses);
}

static bool holds(const struct addresses *a, uint64_t address)
{
    return (a->filter & filter_bit(address)) &&
           bsearch(&address, a->list.data, a->list.len, sizeof(address), compare_addresses);
}

/* A variable that is copied into the program goes there under all its names (environ is __environ), and these may
 * be another library's as well: they become questions. */
static void add_aliases(struct kld_session *ctx, struct kld_arena *scratch, struct elf_shared *lib,
                        uint32_t first, question_list *list)
{
    struct elf_object *obj = &lib->obj;
    struct addresses variables = {.filter = 0};
    find_variables(scratch, lib, first, &variables);
    for (uint32_t i = lib->hash.first; variables.list.len && i < obj->nsyms; i++) {
        if (!holds(&variables, obj->syms[i].st_value) || is_listed(lib, i))
            continue;
        uint32_t number = obj->base.nnames;
        answer(ctx, lib, i, KLD_NO_SYMBOL);
        if (obj->base.nnames == number)
            continue;
        obj->base.ids[number] = kld_name_intern(ctx, elf_shared_name_at(lib, number));
        *kld_vec_push(scratch, list) = ask(elf_shared_name_at(lib, number), obj->base.ids[number]);
    }
}

void elf_ask(struct kld_session *ctx, struct kld_arena *scratch, struct kld_file **libs,
             size_t nlibs, const kld_symid *ids, size_t nids)
{
    bool copies = ctx->options.kind != KLD_KIND_SHARED;
    question_list list = {0};
    for (size_t i = 0; i < nids; i++)
        add_question(ctx, scratch, &list, ids[i]);
    for (size_t from = 0, to; from < list.len; from = to) {
        to = list.len;
        for (size_t l = 0; l < nlibs; l++) {
            struct elf_shared *lib = elf_shared(libs[l]);
            uint32_t first = libs[l]->nnames;
            for (size_t i = from; i < to; i++)
                look_up(ctx, lib, &list.data[i]);
            if (copies)
                add_aliases(ctx, scratch, lib, first, &list);
        }
    }
}
