#define XXH_INLINE_ALL
#include "src/incremental/state.h"
#include <xxhash.h>
#include "src/names.h"
#include "src/session.h"

enum { VERSION = 1, PAGE = KLD_STATE_PAGE };
enum { PAGE_CHECKED = 1, PAGE_CHANGED = 2 };

static const char magic[8] = {'k', 'l', 'd', 's', 't', 'a', 't', 'e'};

/* Set by the Makefile: a hash of the sources. Two linkers that differ lay things out differently. */
#ifndef KLD_BUILD
#define KLD_BUILD KLD_VERSION
#endif

uint64_t kld_name_hash(struct kld_str name)
{
    return XXH3_64bits(name.ptr, name.len);
}

void kld_state_build(uint64_t build[2])
{
    static const char text[] = KLD_BUILD;
    XXH128_hash_t hash = XXH3_128bits(text, sizeof(text));
    build[0] = hash.low64;
    build[1] = hash.high64;
}

uint64_t kld_state_header_hash(const struct kld_state_header *h)
{
    return XXH3_64bits(h, offsetof(struct kld_state_header, hash));
}

void kld_state_stamp(struct kld_state_header *h)
{
    memcpy(h->magic, magic, sizeof(magic));
    h->version = VERSION;
    h->trusted = 1;
    kld_state_build(h->build);
}

/* ---- reading ---- */

/* Sizes of records; those of the format are for it to check. */
static const uint32_t strides[KLD_STATE_TABLES] = {
    [KLD_T_INPUTS] = sizeof(struct kld_state_input),
    [KLD_T_ITEMS] = sizeof(struct kld_state_item),
    [KLD_T_FILES] = sizeof(struct kld_state_file),
    [KLD_T_SECTIONS] = sizeof(struct kld_state_section),
    [KLD_T_SYMBOLS] = sizeof(struct kld_state_symbol),
    [KLD_T_NAMES] = sizeof(uint32_t),
    [KLD_T_CHUNKS] = sizeof(struct kld_state_chunk),
    [KLD_T_SLOTS] = sizeof(struct kld_state_slot),
    [KLD_T_MERGED] = sizeof(struct kld_state_merged),
    [KLD_T_AREAS] = sizeof(struct kld_state_area),
    [KLD_T_HEAP] = 1,
};

/* Tables are behind the page hashes and do not overlap: what is checked stays as it is when something
 * else is changed. */
static bool header_is_sound(const struct kld_state_header *h, uint64_t length)
{
    uint64_t pages = (h->length + PAGE - 1) / PAGE;
    if (h->length > length || h->length % PAGE || h->sums % PAGE || h->sums < PAGE ||
        h->sums_capacity > length / 8 || !kld_in_bounds(h->sums, h->sums_capacity * 8, h->length) ||
        pages > h->sums_capacity)
        return false;
    uint64_t end = h->sums + h->sums_capacity * 8;
    for (int i = 0; i < KLD_STATE_TABLES; i++) {
        if (h->tables[i].stride == 0 || (strides[i] && h->tables[i].stride != strides[i]) ||
            h->tables[i].offset % 8 || h->tables[i].offset < end ||
            h->tables[i].count > h->tables[i].capacity ||
            h->tables[i].capacity > h->length / h->tables[i].stride ||
            !kld_in_bounds(h->tables[i].offset, h->tables[i].capacity * h->tables[i].stride,
                           h->length))
            return false;
        end = h->tables[i].offset + h->tables[i].capacity * h->tables[i].stride;
    }
    uint64_t names = h->tables[KLD_T_NAMES].count;
    return h->heap_used <= h->tables[KLD_T_HEAP].count && (names == 0 || kld_is_pow2(names));
}

enum kld_state_problem kld_state_open(struct kld_state *st, struct kld_arena *arena, uint8_t *bytes,
                                      size_t length)
{
    struct kld_state_header *h = (void *)bytes;
    uint64_t build[2];
    *st = (struct kld_state){.bytes = bytes, .length = length, .arena = arena, .header = h};
    if (length < PAGE || memcmp(h->magic, magic, sizeof(magic)) != 0)
        return KLD_STATE_DAMAGED;
    kld_state_build(build);
    if (h->version != VERSION || memcmp(h->build, build, sizeof(build)) != 0)
        return KLD_STATE_VERSION;
    if (!h->trusted) /* that was written alone: the hash is of before */
        return KLD_STATE_UNTRUSTED;
    if (kld_state_header_hash(h) != h->hash || !header_is_sound(h, length))
        return KLD_STATE_DAMAGED;
    st->length = h->length;
    st->sums = (uint64_t *)(bytes + h->sums);
    st->npages = h->sums_capacity;
    if (XXH3_64bits(st->sums, h->sums_capacity * 8) != h->sums_hash)
        return KLD_STATE_DAMAGED;
    st->pages = KLD_NEW_ARRAY(arena, uint8_t, st->npages);
    return KLD_STATE_OK;
}

/* Where offset `at` of the state is in memory. */
static uint8_t *place(struct kld_state *st, uint64_t at)
{
    return at < st->length ? st->bytes + at : st->tail + (at - st->length);
}

static bool check_page(struct kld_state *st, uint64_t page)
{
    if (st->pages[page] & PAGE_CHECKED)
        return true;
    if (XXH3_64bits(place(st, page * PAGE), PAGE) != st->sums[page])
        return false;
    st->pages[page] |= PAGE_CHECKED;
    return true;
}

/* What is out of bounds reads as one record of zeros: who asks for more than one has looked at how
 * many there are. */
static void *span(struct kld_state *st, enum kld_state_table table, uint64_t first, uint64_t count,
                  uint8_t mark)
{
    uint64_t stride = st->header->tables[table].stride;
    bool sound = kld_in_bounds(first, count, st->header->tables[table].count);
    uint64_t at = st->header->tables[table].offset + first * stride, size = count * stride;
    if (!sound)
        size = stride;
    /* Nothing reaches from the mapped part into the tail. */
    sound = sound && (at >= st->length || at + size <= st->length);
    if (sound && size)
        for (uint64_t page = at / PAGE; page <= (at + size - 1) / PAGE; page++) {
            sound = sound && check_page(st, page);
            st->pages[page] |= mark;
        }
    st->changed |= mark != 0;
    if (sound)
        return place(st, at);
    st->damaged = true;
    return kld_arena_alloc(st->arena, KLD_MAX(size, 8u), 8);
}

const void *kld_state_get(struct kld_state *st, enum kld_state_table table, uint64_t first,
                          uint64_t count)
{
    return span(st, table, first, count, 0);
}

void *kld_state_edit(struct kld_state *st, enum kld_state_table table, uint64_t first,
                     uint64_t count)
{
    return span(st, table, first, count, PAGE_CHANGED);
}

const char *kld_state_text(struct kld_state *st, uint64_t at, uint32_t length)
{
    uint64_t size = (uint64_t)length + 1;
    bool sound = kld_in_bounds(at, size, kld_state_count(st, KLD_T_HEAP));
    const char *text = sound ? kld_state_get(st, KLD_T_HEAP, at, size) : NULL;
    if (text && text[length] == 0)
        return text;
    st->damaged = true;
    return "";
}

uint32_t kld_state_find(struct kld_state *st, struct kld_str name)
{
    uint64_t hash = kld_name_hash(name);
    uint64_t slots = kld_state_count(st, KLD_T_NAMES) / KLD_NAME_PARTITIONS;
    uint64_t first = hash % KLD_NAME_PARTITIONS * slots;
    for (uint64_t i = 0; i < slots; i++) {
        uint64_t at = first + ((hash / KLD_NAME_PARTITIONS + i) & (slots - 1));
        uint32_t n = *(const uint32_t *)kld_state_get(st, KLD_T_NAMES, at, 1);
        if (!n)
            break;
        const struct kld_state_symbol *sym = kld_state_get(st, KLD_T_SYMBOLS, n - 1, 1);
        if (sym->hash == hash)
            return n - 1;
    }
    return KLD_STATE_NONE;
}

/* ---- changing ---- */

static bool grow_tail(struct kld_state *st, uint64_t size)
{
    uint64_t used = st->length + st->tail_used + size;
    if (used / PAGE + 1 > st->header->sums_capacity)
        return false;
    if (st->tail_used + size <= st->tail_capacity)
        return true;
    size_t capacity = KLD_MAX(2 * st->tail_capacity, st->tail_used + size + (64 << 10));
    capacity = kld_align_up(capacity, PAGE);
    uint8_t *tail = kld_arena_alloc(st->arena, capacity, 8);
    if (st->tail_used)
        memcpy(tail, st->tail, st->tail_used);
    st->tail = tail;
    st->tail_capacity = capacity;
    return true;
}

uint64_t kld_state_add(struct kld_state *st, const void *data, uint64_t size, uint64_t capacity)
{
    struct kld_state_header *h = st->header;
    uint64_t heap = h->tables[KLD_T_HEAP].offset, at = kld_align_up(h->heap_used, 8);
    capacity = kld_align_up(capacity, 8);
    if (heap + at + capacity > st->length) {
        at = KLD_MAX(at, st->length - heap);
        uint64_t end = heap + at + capacity;
        if (end > st->length + st->tail_used) {
            uint64_t more = kld_align_up(end - st->length, PAGE) - st->tail_used;
            if (!grow_tail(st, more)) {
                st->full = true;
                return 0;
            }
            for (uint64_t p = (st->length + st->tail_used) / PAGE, n = more / PAGE; n; n--)
                st->pages[p++] = PAGE_CHECKED | PAGE_CHANGED;
            st->tail_used += more;
        }
    }
    h->heap_used = at + capacity;
    h->tables[KLD_T_HEAP].count = h->tables[KLD_T_HEAP].capacity =
        KLD_MAX(h->tables[KLD_T_HEAP].count, h->heap_used);
    if (size)
        memcpy(kld_state_edit(st, KLD_T_HEAP, at, size), data, size);
    return at;
}

bool kld_state_distrust(struct kld_state *st, const kld_state_store *store)
{
    /* The rest of the header stays as it was stored. */
    uint32_t trusted = 0;
    return store->update(store->context, offsetof(struct kld_state_header, trusted), &trusted,
                         sizeof(trusted));
    (void)st;
}

bool kld_state_flush(struct kld_state *st, const kld_state_store *store)
{
    struct kld_state_header *h = st->header;
    h->length = st->length + st->tail_used;
    uint64_t sums_first = h->sums / PAGE, sums_last = (h->sums + h->sums_capacity * 8 - 1) / PAGE;
    for (uint64_t page = 1; page < h->length / PAGE; page++) {
        if (!(st->pages[page] & PAGE_CHANGED) || (page >= sums_first && page <= sums_last))
            continue;
        st->sums[page] = XXH3_64bits(place(st, page * PAGE), PAGE);
        if (!store->update(store->context, page * PAGE, place(st, page * PAGE), PAGE) ||
            !store->update(store->context, h->sums + page * 8, &st->sums[page], 8))
            return false;
    }
    h->sums_hash = XXH3_64bits(st->sums, h->sums_capacity * 8);
    h->trusted = 1;
    h->hash = kld_state_header_hash(h);
    return store->update(store->context, 0, h, sizeof(*h));
}
