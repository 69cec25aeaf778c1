/* elf_relas.c - the order of dynamic relocations. Mostly they have it: that is looked at first, by all threads. */
#include "formats/elf/elf_dynrel.h"

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };

static uint64_t place_key(const elf_rela *rel)
{
    return rel->r_offset;
}

static uint64_t symbol_key(const elf_rela *rel)
{
    return ELF64_R_SYM(rel->r_info);
}

enum { BLOCK = 16 << 10 };

struct check {
    const elf_rela *rels;
    size_t n;
    _Atomic bool unsorted;
};

bool elf_relas_are_sorted(const elf_rela *rels, size_t n)
{
    bool sorted = true;
    for (size_t i = 1; i < n; i++)
        sorted &= rels[i - 1].r_offset <= rels[i].r_offset;
    return sorted;
}

/* The block, and its first entry with the one before. */
static void check_block(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t block)
{
    (void)ctx, (void)w;
    struct check *c = arg;
    size_t first = block ? block * BLOCK - 1 : 0, end = KLD_MIN(c->n, (block + 1) * BLOCK);
    if (!elf_relas_are_sorted(c->rels + first, end - first))
        atomic_store(&c->unsorted, true);
}

static bool are_by_place(struct kld_session *ctx, const elf_rela *rels, size_t n)
{
    struct check c = {.rels = rels, .n = n};
    kld_parallel_for(ctx, (n + BLOCK - 1) / BLOCK, 1, check_block, &c);
    return !c.unsorted;
}

/* A stable radix sort; other: n more. */
static inline void sort_by(elf_rela *rels, elf_rela *other, size_t n,
                           uint64_t (*key)(const elf_rela *))
{
    uint64_t all = 0; /* bits that some key has */
    elf_rela *from = rels, *to = other;
    for (size_t i = 0; i < n; i++)
        all |= key(&rels[i]);
    for (unsigned shift = 0; shift < 64 && all >> shift; shift += DIGIT_BITS) {
        uint32_t counts[DIGITS] = {0}, sum = 0;
        for (size_t i = 0; i < n; i++)
            counts[key(&from[i]) >> shift & (DIGITS - 1)]++;
        for (uint32_t i = 0; i < DIGITS; i++) {
            uint32_t here = counts[i];
            counts[i] = sum;
            sum += here;
        }
        for (size_t i = 0; i < n; i++)
            to[counts[key(&from[i]) >> shift & (DIGITS - 1)]++] = from[i];
        elf_rela *last = from;
        from = to;
        to = last;
    }
    if (from != rels)
        memcpy(rels, from, n * sizeof(*rels));
}

void elf_relas_sort(struct kld_session *ctx, elf_rela *rels, size_t n, bool by_symbol)
{
    bool by_place = are_by_place(ctx, rels, n);
    if (!n || (by_place && !by_symbol))
        return;
    /* The write pass uses it again. */
    elf_rela *other = (elf_rela *)kld_worker_buffer(kld_pool_worker(ctx, 0), n * sizeof(*other));
    if (!by_place)
        sort_by(rels, other, n, place_key);
    if (by_symbol)
        sort_by(rels, other, n, symbol_key);
}
