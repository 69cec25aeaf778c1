/* elf_relative.c - RELATIVE entries of .rela.dyn, made when they are written.
 *
 * A large program has half a million of them: in a table, they would be 15 MB and 1% of the time of clang. Instead,
 * they are made part by part of .rela.dyn. For a file's are in the order of its sections, and its sections follow those
 * of earlier files in the output's; counts by file and output section (elf_dynrels.relative) say which ones a part
 * has. Where that is not the order of addresses (.init_array, by priority), a part is sorted. */
#include "formats/elf/elf_dynrel.h"
#include "src/layout.h"
#include <stdlib.h>

enum { ENTRIES = 16 << 10 }; /* of an atom */

/* What an atom has: numbers from first to end. */
struct relatives {
    uint32_t first, end;
};

/* While they are written: they go to out. */
struct relative_writer {
    const struct kld_session *ctx;
    uint32_t first, end;
    elf_rela *out;
};

static void put_relative(const struct relative_writer *w, uint32_t number,
                         const struct elf_dynrel_entry *e)
{
    if (number >= w->first && number < w->end)
        elf_put_rela((uint8_t *)&w->out[number - w->first], e);
}

/* Those of slots; the first of them has that number. */
static void put_slots(const struct relative_writer *w, uint32_t number)
{
    const struct elf_link *elf = elf_state(w->ctx);
    for (size_t i = 0; i < elf->dynrels->slots.len; i++)
        if (elf_dynrel_type_part(elf->arch, elf->dynrels->slots.data[i].type) == ELF_RELA_RELATIVE)
            put_relative(w, number++, &elf->dynrels->slots.data[i]);
}

/* Those of a file in one group */
static void put_file(const struct relative_writer *w, uint32_t f, uint32_t group)
{
    const struct elf_dynrels *d = elf_state(w->ctx)->dynrels;
    const struct elf_object *obj = elf_object(w->ctx->files[f]);
    uint32_t number = d->relative[(size_t)f * d->ngroups + group];
    bool packs = elf_packs_relative(w->ctx);
    for (size_t i = 0; i < obj->dynrels.len && number < w->end; i++) {
        const struct elf_dynrel *r = &obj->dynrels.data[i];
        if (r->kind != ELF_DYNREL_RELATIVE ||
            d->group_of[obj->base.atoms[r->atom].section] != group)
            continue;
        if (!packs && number + r->count <= w->first) {
            number += r->count;
            continue;
        }
        for (uint32_t k = 0; k < r->count; k++) {
            if (packs && elf_dynrel_part(w->ctx, obj, r, k) != ELF_RELA_RELATIVE)
                continue;
            struct elf_dynrel_entry e = elf_dynrel_relative(w->ctx, obj, r, k);
            put_relative(w, number++, &e);
        }
    }
}

/* The last file whose entries of the group begin at or before that number; those behind it may be empty. */
static uint32_t file_with(const struct kld_session *ctx, const struct elf_dynrels *d,
                          uint32_t group, uint32_t number)
{
    uint32_t lo = 0, hi = ctx->nfiles - 1;
    while (lo < hi) {
        uint32_t middle = hi - (hi - lo) / 2;
        if (d->relative[(size_t)middle * d->ngroups + group] <= number)
            lo = middle;
        else
            hi = middle - 1;
    }
    return lo;
}

static int compare_relas(const void *a, const void *b)
{
    uint64_t x = ((const elf_rela *)a)->r_offset, y = ((const elf_rela *)b)->r_offset;
    return x < y ? -1 : x > y;
}

static void write_relatives(struct kld_session *ctx, struct kld_worker *worker,
                            const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    const struct relatives *part = atom->extra;
    const struct elf_dynrels *d = elf_state(ctx)->dynrels;
    const struct relative_writer w = {ctx, part->first, part->end, (elf_rela *)out};
    uint32_t begin = 0, nslots = d->nslots[ELF_RELA_RELATIVE];
    for (uint32_t i = 0; i < d->ngroups && begin < w.end; i++) {
        uint32_t group = d->order[i], end = d->group_end[group];
        if (end > w.first && end > begin) {
            if (nslots && d->first_slot[ELF_RELA_RELATIVE] == begin)
                put_slots(&w, begin);
            for (uint32_t f = file_with(ctx, d, group, KLD_MAX(w.first, begin)); f < ctx->nfiles;
                 f++) {
                if (d->relative[(size_t)f * d->ngroups + group] >= w.end)
                    break;
                if (ctx->files[f]->kind == KLD_FILE_OBJECT)
                    put_file(&w, f, group);
            }
        }
        begin = end;
    }
    if (!elf_relas_are_sorted(w.out, w.end - w.first))
        qsort(out, w.end - w.first, sizeof(elf_rela), compare_relas);
}

void elf_relative_synth(struct kld_session *ctx, const struct elf_dynrels *d)
{
    for (uint32_t at = 0, n; at < d->total.n[ELF_RELA_RELATIVE]; at += n) {
        n = KLD_MIN(d->total.n[ELF_RELA_RELATIVE] - at, (uint32_t)ENTRIES);
        struct relatives *part = KLD_NEW(&ctx->arena, struct relatives);
        *part = (struct relatives){at, at + n};
        struct kld_atom *atom = elf_rela_dyn_add(ctx, n);
        atom->kind = KLD_ATOM_GENERATED;
        atom->generate = write_relatives;
        atom->extra = part;
    }
}
