/* elf_dynsym.c - .dynsym, .dynstr and the hash tables over them.
 *
 * Sources: gABI chapter 5 (hash table); the GNU hash section as the GNU C library reads it:
 * header, Bloom filter, buckets, chains of hashes whose lowest bit ends a chain. */
#include <stdlib.h>
#include "formats/elf/elf_symbols.h"
#include "formats/elf/elf_tables.h"
#include "formats/elf/elf_version.h"
#include "src/layout.h"

struct elf_dynsym {
    KLD_VEC(char) strings; /* .dynstr */
    /* Strings added so far, by hash: offset + 1. */
    uint32_t *slots;
    uint32_t mask, used;
    uint32_t *name_offsets; /* [dynsyms.len] */
    uint32_t *hashes;       /* [dynsyms.len] GNU hash */
    uint32_t nbuckets, nbloom;
};

enum { BLOOM_SHIFT = 26 };

uint32_t elf_gnu_hash(struct kld_str name)
{
    uint32_t h = 5381;
    for (size_t i = 0; i < name.len; i++)
        h = h * 33 + (uint8_t)name.ptr[i];
    return h;
}

uint32_t elf_sysv_hash(struct kld_str name)
{
    uint32_t h = 0;
    for (size_t i = 0; i < name.len; i++) {
        h = (h << 4) + (uint8_t)name.ptr[i];
        h ^= h >> 24 & 0xf0;
    }
    return h & 0x0fffffff;
}

/* ---- .dynstr ---- */

static struct elf_dynsym *state(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    if (!elf->dynsym) {
        elf->dynsym = KLD_NEW(&ctx->arena, struct elf_dynsym);
        *kld_vec_push(&ctx->arena, &elf->dynsym->strings) = 0;
    }
    return elf->dynsym;
}

static void put_slot(struct elf_dynsym *d, uint32_t hash, uint32_t offset)
{
    uint32_t at = hash & d->mask;
    while (d->slots[at])
        at = (at + 1) & d->mask;
    d->slots[at] = offset + 1;
}

static void grow_strings(struct kld_session *ctx, struct elf_dynsym *d)
{
    const uint32_t *old = d->slots;
    uint32_t n = old ? d->mask + 1 : 0;
    d->mask = n ? 2 * n - 1 : 255;
    d->slots = KLD_NEW_ARRAY(&ctx->arena, uint32_t, d->mask + 1);
    for (uint32_t i = 0; i < n; i++)
        if (old[i])
            put_slot(d, elf_gnu_hash(kld_str(d->strings.data + old[i] - 1)), old[i] - 1);
}

uint32_t elf_dynstr_add(struct kld_session *ctx, struct kld_str text)
{
    struct elf_dynsym *d = state(ctx);
    if (!text.len)
        return 0;
    if (d->used * 2 >= d->mask)
        grow_strings(ctx, d);
    uint32_t hash = elf_gnu_hash(text);
    for (uint32_t at = hash & d->mask; d->slots[at]; at = (at + 1) & d->mask) {
        const char *there = d->strings.data + d->slots[at] - 1;
        if (strncmp(there, text.ptr, text.len) == 0 && !there[text.len])
            return d->slots[at] - 1;
    }
    uint32_t offset = (uint32_t)d->strings.len;
    for (size_t i = 0; i < text.len; i++)
        *kld_vec_push(&ctx->arena, &d->strings) = text.ptr[i];
    *kld_vec_push(&ctx->arena, &d->strings) = 0;
    put_slot(d, hash, offset);
    d->used++;
    return offset;
}

/* ---- which symbols, in which order ---- */

/* The name in .dynsym: without a version suffix. */
struct kld_str elf_dynamic_name(const struct kld_symbol *sym)
{
    struct kld_str name = kld_symbol_name(sym);
    const char *at = memchr(name.ptr, '@', name.len);
    if (at && at != name.ptr)
        name.len = (size_t)(at - name.ptr);
    return name;
}

/* An imported function whose PLT entry is its address: the loader must find it here, so it is
 * hashed like a definition. */
static bool is_canonical(const struct kld_symbol *sym)
{
    return sym->kind == KLD_SYM_IMPORTED && kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT);
}

static bool is_reference(const struct kld_symbol *sym)
{
    return sym->imported && !is_canonical(sym) &&
           (sym->aux || kld_symbol_has(sym, KLD_SYM_NEED_DYNSYM));
}

static bool is_export(const struct kld_symbol *sym)
{
    if (is_canonical(sym))
        return true;
    if (!sym->exported)
        return false;
    return sym->kind != KLD_SYM_DEFINED || sym->in_section || sym->atom->live ||
           (sym->atom->flags & KLD_ATOM_FOLDED) || sym->atom->kind == KLD_ATOM_PIECES;
}

struct sortable {
    struct kld_symbol *sym;
    uint32_t hash, bucket;
};

static int compare_buckets(const void *a, const void *b)
{
    const struct sortable *x = a, *y = b;
    if (x->bucket != y->bucket)
        return x->bucket < y->bucket ? -1 : 1;
    if (x->sym->file->index != y->sym->file->index)
        return x->sym->file->index < y->sym->file->index ? -1 : 1;
    return x->sym->index < y->sym->index ? -1 : x->sym->index > y->sym->index;
}

static bool is_listed(const void *arg, const struct kld_symbol *sym)
{
    (void)arg;
    return is_reference(sym) || is_export(sym);
}

static void list_references(struct kld_session *ctx, const elf_symid_list *listed)
{
    struct elf_link *elf = elf_state(ctx);
    *kld_vec_push(&ctx->arena, &elf->dynsyms) = NULL;
    for (size_t i = 0; i < listed->len; i++)
        if (is_reference(&ctx->symbols[listed->data[i]]))
            *kld_vec_push(&ctx->arena, &elf->dynsyms) = &ctx->symbols[listed->data[i]];
    elf->first_exported = (uint32_t)elf->dynsyms.len;
}

/* Definitions, grouped by bucket as .gnu.hash wants them. */
static void list_exports(struct kld_session *ctx, const elf_symid_list *listed)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_dynsym *d = state(ctx);
    KLD_VEC(struct sortable) list = {0};
    for (size_t i = 0; i < listed->len; i++)
        if (is_export(&ctx->symbols[listed->data[i]]))
            kld_vec_push(&ctx->arena, &list)->sym = &ctx->symbols[listed->data[i]];
    d->nbuckets = (uint32_t)(list.len / 4 + 1);
    for (size_t i = 0; i < list.len; i++) {
        list.data[i].hash = elf_gnu_hash(elf_dynamic_name(list.data[i].sym));
        list.data[i].bucket = list.data[i].hash % d->nbuckets;
    }
    if (list.len)
        qsort(list.data, list.len, sizeof(*list.data), compare_buckets);
    d->hashes = KLD_NEW_ARRAY(&ctx->arena, uint32_t, elf->dynsyms.len + list.len);
    for (size_t i = 0; i < list.len; i++) {
        d->hashes[elf->dynsyms.len] = list.data[i].hash;
        *kld_vec_push(&ctx->arena, &elf->dynsyms) = list.data[i].sym;
    }
    d->nbloom = 1;
    while (d->nbloom * 64 < list.len * 12) /* about 12 bits a symbol: 2 % false hits */
        d->nbloom *= 2;
}

/* The order that the output has: ties in the order above are decided by the inputs of the time. What does
 * not fit stays where it is. */
static void take_order(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_dynsym *d = state(ctx);
    size_t n = elf->dynsyms.len;
    struct kld_symbol **syms = KLD_NEW_ARRAY(&ctx->arena, struct kld_symbol *, n);
    uint32_t *hashes = KLD_NEW_ARRAY(&ctx->arena, uint32_t, n);
    for (size_t i = 1; i < n; i++) {
        uint32_t to = elf->dynsym_numbers[elf->dynsyms.data[i] - ctx->symbols];
        if (to >= n || !to || syms[to])
            return;
        syms[to] = elf->dynsyms.data[i];
        hashes[to] = d->hashes[i];
    }
    memcpy(elf->dynsyms.data, syms, n * sizeof(*syms));
    memcpy(d->hashes, hashes, n * sizeof(*hashes));
}

static void number_symbols(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_dynsym *d = state(ctx);
    d->name_offsets = KLD_NEW_ARRAY(&ctx->arena, uint32_t, elf->dynsyms.len);
    for (uint32_t i = 1; i < elf->dynsyms.len; i++) {
        struct kld_symbol *sym = elf->dynsyms.data[i];
        d->name_offsets[i] = elf_dynstr_add(ctx, elf_dynamic_name(sym));
        elf_make_aux(ctx, sym)->dynsym = i;
    }
}

/* ---- contents ---- */

static uint8_t dynamic_type(const struct kld_symbol *sym)
{
    switch (sym->type) {
    case KLD_TYPE_OBJECT: return STT_OBJECT;
    case KLD_TYPE_FUNCTION: return STT_FUNC;
    case KLD_TYPE_TLS: return STT_TLS;
    case KLD_TYPE_IFUNC:
        return kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT) ? STT_FUNC : STT_GNU_IFUNC;
    default: return STT_NOTYPE;
    }
}

static const struct kld_section *home_section(const struct kld_session *ctx,
                                              const struct kld_symbol *sym)
{
    if (sym->kind != KLD_SYM_DEFINED)
        return NULL;
    if (sym->in_section)
        return sym->section;
    return ctx->sections.data[elf_output_atom(sym->atom)->section];
}

static void fill_symbol(const struct kld_session *ctx, const struct kld_symbol *sym, Elf64_Sym *out)
{
    const struct elf_link *elf = elf_state(ctx);
    unsigned bind = sym->weak ? STB_WEAK : sym->unique ? STB_GNU_UNIQUE : STB_GLOBAL;
    out->st_info = ELF64_ST_INFO(bind, dynamic_type(sym));
    out->st_other = atomic_load_explicit(&sym->other, memory_order_relaxed);
    out->st_size = elf_symbol_size(sym);
    if (sym->imported && sym->kind != KLD_SYM_DEFINED) {
        if (sym->kind == KLD_SYM_IMPORTED) {
            bind = kld_symbol_has(sym, KLD_SYM_REF_STRONG) ? STB_GLOBAL : STB_WEAK;
            out->st_info = ELF64_ST_INFO(bind, dynamic_type(sym));
        }
        out->st_size = 0;
        /* psABI: an undefined function with a value is one whose PLT entry is its address. */
        if (kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT))
            out->st_value = elf_symbol_address(ctx, sym);
        return;
    }
    out->st_other |= atomic_load_explicit(&sym->visibility, memory_order_relaxed);
    const struct kld_section *section = home_section(ctx, sym);
    out->st_shndx = section ? (uint16_t)elf_section_number(section) : SHN_ABS;
    out->st_value = elf_symbol_address(ctx, sym);
    if (sym->type == KLD_TYPE_TLS)
        out->st_value -= elf->tls_start;
    else if (sym->type == KLD_TYPE_IFUNC && !kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT) &&
             section)
        out->st_value = sym->in_section ? section->addr + sym->value
                                        : elf_atom_address(elf_output_atom(sym->atom), sym->value);
}

static void write_dynsym(struct kld_session *ctx, struct kld_worker *w, const struct kld_atom *atom,
                         uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_link *elf = elf_state(ctx);
    for (uint32_t i = 1; i < elf->dynsyms.len; i++) {
        Elf64_Sym sym = {.st_name = elf->dynsym->name_offsets[i]};
        fill_symbol(ctx, elf->dynsyms.data[i], &sym);
        memcpy(out + i * sizeof(sym), &sym, sizeof(sym));
    }
}

static void write_gnu_hash(struct kld_session *ctx, struct kld_worker *w,
                           const struct kld_atom *atom, uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_link *elf = elf_state(ctx);
    const struct elf_dynsym *d = elf->dynsym;
    uint32_t first = elf->first_exported, n = (uint32_t)elf->dynsyms.len;
    kld_put32(out, d->nbuckets);
    kld_put32(out + 4, first);
    kld_put32(out + 8, d->nbloom);
    kld_put32(out + 12, BLOOM_SHIFT);
    uint8_t *bloom = out + 16, *buckets = bloom + 8ull * d->nbloom;
    uint8_t *chain = buckets + 4ull * d->nbuckets;
    for (uint32_t i = first; i < n; i++) {
        uint32_t h = d->hashes[i];
        uint8_t *word = bloom + 8 * (h / 64 % d->nbloom);
        kld_put64(word, kld_get64(word) | 1ull << h % 64 | 1ull << (h >> BLOOM_SHIFT) % 64);
        uint32_t bucket = h % d->nbuckets;
        if (!kld_get32(buckets + 4ull * bucket))
            kld_put32(buckets + 4ull * bucket, i);
        bool last = i + 1 == n || d->hashes[i + 1] % d->nbuckets != bucket;
        kld_put32(chain + 4ull * (i - first), last ? h | 1 : h & ~1u);
    }
}

static void write_hash(struct kld_session *ctx, struct kld_worker *w, const struct kld_atom *atom,
                       uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_link *elf = elf_state(ctx);
    uint32_t n = (uint32_t)elf->dynsyms.len;
    kld_put32(out, n); /* buckets: one a symbol */
    kld_put32(out + 4, n);
    uint8_t *buckets = out + 8, *chain = buckets + 4ull * n;
    for (uint32_t i = 1; i < n; i++) {
        uint32_t h = elf_sysv_hash(elf_dynamic_name(elf->dynsyms.data[i])) % n;
        kld_put32(chain + 4ull * i, kld_get32(buckets + 4ull * h));
        kld_put32(buckets + 4ull * h, i);
    }
}

static struct kld_atom *make_table(struct kld_session *ctx, enum elf_synth which, const char *name,
                                   uint32_t type, uint64_t entsize, uint8_t p2align, uint64_t size,
                                   void (*generate)(struct kld_session *, struct kld_worker *,
                                                    const struct kld_atom *, uint8_t *))
{
    struct kld_atom *atom = elf_make(ctx, which, name, type, SHF_ALLOC, entsize, p2align, size);
    atom->kind = KLD_ATOM_GENERATED;
    atom->generate = generate;
    return atom;
}

void elf_dynsym_synth(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    elf_symid_list listed = elf_symbols_where(ctx, is_listed, NULL);
    list_references(ctx, &listed);
    list_exports(ctx, &listed);
    if (elf->dynsym_numbers)
        take_order(ctx);
    number_symbols(ctx);
    const struct elf_dynsym *d = state(ctx);
    uint64_t n = elf->dynsyms.len;
    int style = ctx->options.hash_style;
    if (style == KLD_HASH_BOTH || style == KLD_HASH_GNU)
        make_table(ctx, ELF_GNU_HASH, ".gnu.hash", SHT_GNU_HASH, 0, 3,
                   16 + 8ull * d->nbloom + 4ull * d->nbuckets + 4 * (n - elf->first_exported),
                   write_gnu_hash);
    if (style == KLD_HASH_BOTH || style == KLD_HASH_SYSV)
        make_table(ctx, ELF_HASH, ".hash", SHT_HASH, 4, 3, 8 + 8 * n, write_hash);
    make_table(ctx, ELF_DYNSYM, ".dynsym", SHT_DYNSYM, sizeof(Elf64_Sym), 3, n * sizeof(Elf64_Sym),
               write_dynsym);
    elf_versions_synth(ctx);
    elf_make(ctx, ELF_DYNSTR, ".dynstr", SHT_STRTAB, SHF_ALLOC, 0, 0, 0);
}

void elf_dynstr_seal(struct kld_session *ctx)
{
    struct elf_dynsym *d = state(ctx);
    struct kld_atom *atom = elf_state(ctx)->synth[ELF_DYNSTR];
    atom->data = (const uint8_t *)d->strings.data;
    atom->size = d->strings.len;
}
