/* elf_relr.c - .relr.dyn: relative relocations as an address, then bitmaps of 63 words (gABI draft "Relative
 * relocations"). */
#include "formats/elf/elf_dynrel.h"
#include "src/layout.h"
#include <stdlib.h>

static int compare_places(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void fill_relr_of_file(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t f)
{
    (void)w;
    const struct elf_dynrels *d = arg;
    const struct elf_object *obj = elf_object(ctx->files[f]);
    if (obj->base.kind != KLD_FILE_OBJECT)
        return;
    uint64_t *out = d->relr_places + d->files[f].n[ELF_RELA_RELR];
    for (size_t i = 0; i < obj->dynrels.len; i++) {
        const struct elf_dynrel *r = &obj->dynrels.data[i];
        const struct kld_atom *atom = &obj->base.atoms[r->atom];
        const elf_rela *rels = (const elf_rela *)atom->edges + r->edge;
        for (uint32_t k = 0; r->kind == ELF_DYNREL_RELATIVE && k < r->count; k++)
            if (elf_dynrel_fits_relr(ctx, atom, rels[k].r_offset))
                *out++ = elf_atom_address(atom, rels[k].r_offset);
    }
}

static void fill_relr(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_dynrels *d = elf->dynrels;
    uint32_t n = 0;
    if (!d->relr_places)
        d->relr_places = KLD_NEW_ARRAY(&ctx->arena, uint64_t, d->total.n[ELF_RELA_RELR]);
    for (size_t i = 0; i < elf->got.len; i++)
        if (elf_got_is_relr(ctx, &elf->got.data[i]))
            d->relr_places[n++] = elf_got_address(ctx, elf->got.data[i].slot);
    kld_parallel_for(ctx, ctx->nfiles, 64, fill_relr_of_file, d);
    if (d->total.n[ELF_RELA_RELR])
        qsort(d->relr_places, d->total.n[ELF_RELA_RELR], 8, compare_places);
}

/* Encodes into out (NULL: only counts); returns the number of words. */
static size_t encode_relr(const struct elf_dynrels *d, uint8_t *out)
{
    size_t n = 0;
    for (uint32_t i = 0; i < d->total.n[ELF_RELA_RELR];) {
        uint64_t base = d->relr_places[i];
        if (out)
            kld_put64(out + 8 * n, base);
        n++;
        i++;
        base += 8;
        for (;;) {
            uint64_t bits = 0;
            for (; i < d->total.n[ELF_RELA_RELR] && d->relr_places[i] - base < 63 * 8 &&
                   (d->relr_places[i] - base) % 8 == 0;
                 i++)
                bits |= 1ull << ((d->relr_places[i] - base) / 8);
            if (!bits)
                break;
            if (out)
                kld_put64(out + 8 * n, bits << 1 | 1);
            n++;
            base += 63 * 8;
        }
    }
    return n;
}

bool elf_relr_update(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct kld_atom *atom = elf->synth[ELF_RELR_DYN];
    if (!atom)
        return false;
    fill_relr(ctx);
    uint64_t size = 8 * encode_relr(elf->dynrels, NULL);
    if (size <= atom->size)
        return false; /* never shrinks, so that the loop ends; the rest is padded */
    atom->size = size;
    return true;
}

static void write_relr(struct kld_session *ctx, struct kld_worker *w, const struct kld_atom *atom,
                       uint8_t *out)
{
    (void)w;
    size_t n = encode_relr(elf_state(ctx)->dynrels, out);
    for (; n * 8 < atom->size; n++)
        kld_put64(out + 8 * n, 1); /* an empty bitmap */
}

void elf_relr_synth(struct kld_session *ctx)
{
    struct kld_atom *a = elf_make(ctx, ELF_RELR_DYN, ".relr.dyn", SHT_RELR, SHF_ALLOC, 8, 3, 0);
    a->kind = KLD_ATOM_GENERATED;
    a->generate = write_relr;
}
