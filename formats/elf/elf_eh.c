/* elf_eh.c - .eh_frame by record, and .eh_frame_hdr.
 *
 * A compiler writes one .eh_frame section an object, with a record (FDE, "frame description
 * entry") for every function and one or two (CIE, "common information entry") that many FDEs
 * refer to. The linker has to take it apart: FDEs of functions that are not in the output would
 * refer to nothing, every object brings the same few CIEs, and .eh_frame_hdr wants the FDEs
 * sorted by address.
 *
 * An FDE belongs to the atom that its first field, pc_begin, is relocated against. While objects
 * are read, FDEs of functions in discarded groups are dropped for good; what else is kept of one
 * is 16 bytes, since its size and its CIE can be read from its bytes again. From then on an FDE
 * lives if its function does.
 *
 * In the output the contribution of a section is its CIEs (those not written elsewhere), then its
 * live FDEs. Contributions follow each other without gaps: zeros would look like the terminator.
 *
 * Relocations of records are applied by the CPU's ordinary loop on a copy with the offsets in the
 * contribution. The copy is made in passing, a few at a time, and thrown away again, unless one of
 * them may need a dynamic relocation: those are found again by number, so that the whole
 * contribution keeps its copy (`fixed`), and then its CIEs are not shared. So it is with
 * --emit-relocs. Nor are they with slack, so that a contribution depends on its own object alone;
 * then there are gaps, which hold CIEs that nothing refers to (elf_slack.c).
 *
 * Sources: LSB Core 5.0, 10.6 (.eh_frame, .eh_frame_hdr); x86-64 psABI 4.2.4. */
#define XXH_INLINE_ALL
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_reloc.h"
#include "src/incremental/slack.h"
#include "src/layout.h"
#include <stdlib.h>
#include <xxhash.h>

enum { BATCH = 128 }; /* relocations applied at a time */

struct elf_eh_output {
    uint32_t nrows;
    bool any;       /* there is an .eh_frame */
    uint64_t *rows; /* pc << 32 | fde, both relative to .eh_frame_hdr; pc with its sign flipped */
};

/* Where the parts of a record are. LSB: a length of 0xffffffff is followed by one of 64 bits; the
 * field behind it (0 in a CIE, the distance back to the CIE in an FDE) is 4 bytes even then. */
struct record {
    uint32_t offset, size; /* with the length field */
    uint32_t id_at;        /* of that field; contents follow */
    uint32_t id;
};

static bool read_record(const uint8_t *data, uint64_t size, uint64_t offset, struct record *r)
{
    if (!kld_in_bounds(offset, 8, size))
        return false;
    uint64_t length = kld_get32(data + offset), head = 4;
    if (length == UINT32_MAX) {
        head = 12;
        if (!kld_in_bounds(offset, 16, size))
            return false;
        length = kld_get64(data + offset + 4);
    }
    if (length < 4 || !kld_in_bounds(offset + head, length, size))
        return false;
    r->offset = (uint32_t)offset;
    r->size = (uint32_t)(head + length);
    r->id_at = (uint32_t)(offset + head);
    r->id = kld_get32(data + r->id_at);
    return true;
}

/* For records that were accepted before. */
static struct record record_at(const struct elf_eh_section *s, uint32_t offset)
{
    struct record r = {0};
    read_record(s->data, s->size, offset, &r);
    return r;
}

/* The relocations of a record: from number `rel` on, as long as they are within it. */
static uint32_t rels_of(const struct elf_eh_section *s, const struct record *r, uint32_t rel)
{
    uint32_t end = rel;
    while (end < s->nrelas && s->relas[end].r_offset < (uint64_t)r->offset + r->size)
        end++;
    return end - rel;
}

static struct elf_eh_cie *cie_at(const struct elf_eh_section *s, uint32_t offset)
{
    uint32_t lo = 0, hi = s->ncies;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (s->cies[mid].offset < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->ncies && s->cies[lo].offset == offset ? &s->cies[lo] : NULL;
}

static struct elf_eh_cie *cie_of(const struct elf_eh_section *s, const struct record *r)
{
    return cie_at(s, r->id_at - r->id);
}

/* The relocation of an FDE's pc_begin, or NULL. */
static const elf_rela *pc_begin_rel(const struct elf_eh_section *s, const struct record *r,
                                    uint32_t rel)
{
    for (uint32_t n = rels_of(s, r, rel); n; n--, rel++)
        if (s->relas[rel].r_offset == (uint64_t)r->id_at + 4)
            return &s->relas[rel];
    return NULL;
}

static bool is_live(const struct elf_object *obj, const struct elf_eh_fde *fde)
{
    return !fde->owner || obj->base.atoms[fde->owner - 1].live;
}

/* ---- parse ---- */

static bool bad_record(struct kld_session *ctx, const struct kld_atom *atom, uint64_t offset,
                       const char *text)
{
    struct kld_where where = elf_where(atom, offset);
    kld_error(ctx, "bad-eh-frame", &where, "%s", text);
    return false;
}

/* Checks the chain of records and counts them, so that what is kept of them fits exactly. */
static bool count_records(struct kld_session *ctx, struct elf_eh_section *s)
{
    uint64_t at = 0;
    struct record r;
    while (at < s->size) {
        if (s->size - at >= 4 && kld_get32(s->data + at) == 0) {
            at += 4; /* a terminator: one is written at the very end */
            continue;
        }
        if (!read_record(s->data, s->size, at, &r))
            return bad_record(ctx, s->atom, at,
                              "unwind record reaches past the end of its section");
        if (r.id)
            s->nfdes++;
        else
            s->ncies++;
        at += r.size;
    }
    return true;
}

enum ownership { OWNED, UNKNOWN, GONE, BAD };

/* Which atom an FDE describes. */
static enum ownership find_owner(const struct elf_object *obj, const elf_rela *rel, uint32_t r_none,
                                 uint32_t *owner)
{
    *owner = 0;
    if (!rel || ELF64_R_TYPE(rel->r_info) == r_none)
        return UNKNOWN;
    uint32_t sym = ELF64_R_SYM(rel->r_info);
    if (sym >= obj->nsyms)
        return BAD;
    uint32_t shndx = elf_sym_section(obj, sym);
    if (shndx == SHN_UNDEF || shndx >= obj->nshdrs)
        return UNKNOWN;
    uint32_t a = obj->atom_of[shndx];
    if (a == ELF_NO_ATOM || a == ELF_DISCARDED)
        return GONE;
    *owner = a;
    return OWNED;
}

static bool add_fde(struct kld_session *ctx, struct elf_object *obj, struct elf_eh_section *s,
                    const struct record *r, uint32_t rel)
{
    uint32_t owner;
    const struct elf_eh_cie *cie = r->id > r->id_at ? NULL : cie_of(s, r);
    const elf_rela *pc = pc_begin_rel(s, r, rel);
    if (!cie)
        return bad_record(ctx, s->atom, r->offset, "frame description refers to no CIE before it");
    switch (find_owner(obj, pc, elf_state(ctx)->arch->r_none, &owner)) {
    case BAD:
        return bad_record(ctx, s->atom, r->id_at + 4, "relocation: symbol index out of range");
    case GONE: return true;
    case OWNED:
    case UNKNOWN: break;
    }
    struct elf_eh_fde *fde = &s->fdes[s->nfdes++];
    *fde = (struct elf_eh_fde){.offset = r->offset, .rel = rel & INT32_MAX, .owner = owner};
    fde->is_long = cie->nrel || rels_of(s, r, rel) != (pc ? 1 : 0);
    return true;
}

static bool read_records(struct kld_session *ctx, struct elf_object *obj, struct elf_eh_section *s)
{
    uint64_t at = 0;
    uint32_t rel = 0;
    struct record r;
    s->nfdes = s->ncies = 0;
    while (at < s->size) {
        if (kld_get32(s->data + at) == 0) {
            at += 4;
            continue;
        }
        read_record(s->data, s->size, at, &r);
        while (rel < s->nrelas && s->relas[rel].r_offset < at)
            rel++;
        if (!r.id)
            s->cies[s->ncies++] = (struct elf_eh_cie){.offset = r.offset,
                                                      .size = r.size,
                                                      .rel = rel,
                                                      .nrel = rels_of(s, &r, rel),
                                                      .in = s};
        else if (!add_fde(ctx, obj, s, &r, rel))
            return false;
        at += r.size;
    }
    return true;
}

/* Chains the FDEs of each function. From the back, so that chains are in their order. */
static void hang_on_functions(struct elf_object *obj, struct elf_eh_section *s)
{
    for (uint32_t i = s->nfdes; i-- > 0;) {
        if (!s->fdes[i].owner)
            continue;
        struct kld_atom *function = &obj->base.atoms[s->fdes[i].owner - 1];
        if (function->kind != KLD_ATOM_BYTES)
            continue;
        s->fdes[i].next = (uint32_t)(uintptr_t)function->extra;
        function->extra = (void *)(uintptr_t)(s->first + i + 1);
    }
}

void elf_eh_parse(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                  struct kld_atom *atom)
{
    struct elf_eh_section *s = KLD_NEW(&worker->arena, struct elf_eh_section);
    *s = (struct elf_eh_section){.atom = atom,
                                 .data = atom->data,
                                 .size = atom->size,
                                 .relas = atom->edges,
                                 .nrelas = atom->nedges};
    atom->kind = KLD_ATOM_RECORDS;
    atom->edges = NULL;
    atom->nedges = 0;
    if (!obj->eh)
        obj->eh = KLD_NEW(&worker->arena, struct elf_eh);
    struct elf_eh_section **last = &obj->eh->sections;
    while (*last)
        last = &(*last)->next;
    *last = s;
    s->first = obj->eh->nfdes;
    if (s->size > INT32_MAX) {
        bad_record(ctx, atom, 0, "section is too large");
        return;
    }
    if (!count_records(ctx, s)) {
        s->nfdes = s->ncies = 0;
        return;
    }
    s->relas = elf_sorted_relas(worker, s->relas, s->nrelas);
    s->cies = KLD_NEW_ARRAY(&worker->arena, struct elf_eh_cie, s->ncies);
    /* Most of the records of a C++ object are of groups that another object keeps. */
    struct elf_eh_fde *all =
        (void *)kld_worker_buffer(worker, (size_t)s->nfdes * sizeof(struct elf_eh_fde));
    s->fdes = all;
    read_records(ctx, obj, s);
    s->fdes = KLD_NEW_ARRAY(&worker->arena, struct elf_eh_fde, s->nfdes);
    if (s->nfdes)
        memcpy(s->fdes, all, s->nfdes * sizeof(*all));
    obj->eh->nfdes += s->nfdes;
    hang_on_functions(obj, s);
}

/* ---- the records of a function ---- */

static const struct elf_eh_fde *fde_number(const struct elf_object *obj, uint32_t number,
                                           struct elf_eh_section **in)
{
    struct elf_eh_section *s = obj->eh->sections;
    while (number - s->first >= s->nfdes)
        s = s->next;
    *in = s;
    return &s->fdes[number - s->first];
}

static void follow_rel(struct kld_session *ctx, struct kld_worker *worker,
                       const struct elf_object *obj, const elf_rela *rel, kld_mark *mark)
{
    uint32_t sym = ELF64_R_SYM(rel->r_info);
    if (sym >= obj->nsyms)
        return; /* scan reports it */
    struct kld_atom *target = elf_resolve(ctx, obj, sym, 0).atom;
    if (target)
        mark(ctx, worker, target);
}

void elf_eh_follow(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom,
                   kld_mark *mark)
{
    const struct elf_object *obj = elf_object(atom->file);
    uint32_t number = (uint32_t)(uintptr_t)atom->extra;
    while (number) {
        struct elf_eh_section *s;
        const struct elf_eh_fde *fde = fde_number(obj, number - 1, &s);
        number = fde->next;
        if (!fde->is_long) /* most of them: the record need not be read */
            continue;
        struct record r = record_at(s, fde->offset);
        const elf_rela *pc = pc_begin_rel(s, &r, fde->rel);
        for (uint32_t i = fde->rel, n = rels_of(s, &r, fde->rel); n; n--, i++)
            if (&s->relas[i] != pc)
                follow_rel(ctx, worker, obj, &s->relas[i], mark);
        const struct elf_eh_cie *cie = cie_of(s, &r);
        for (uint32_t i = 0; i < cie->nrel; i++)
            follow_rel(ctx, worker, obj, &s->relas[cie->rel + i], mark);
    }
}

void elf_eh_each(const struct kld_atom *atom, elf_eh_see *see, void *arg)
{
    const struct elf_object *obj = elf_object(atom->file);
    uint32_t number = atom->kind == KLD_ATOM_BYTES ? (uint32_t)(uintptr_t)atom->extra : 0;
    while (number) {
        struct elf_eh_section *s;
        const struct elf_eh_fde *fde = fde_number(obj, number - 1, &s);
        struct record r = record_at(s, fde->offset);
        struct elf_eh_record out = {.data = s->data + r.offset,
                                    .offset = r.offset,
                                    .size = r.size,
                                    .relas = s->relas + fde->rel,
                                    .nrelas = rels_of(s, &r, fde->rel)};
        see(arg, obj, &out);
        const struct elf_eh_cie *cie = cie_of(s, &r);
        out = (struct elf_eh_record){.data = s->data + cie->offset,
                                     .offset = cie->offset,
                                     .size = cie->size,
                                     .relas = s->relas + cie->rel,
                                     .nrelas = cie->nrel,
                                     .is_cie = true};
        see(arg, obj, &out);
        number = fde->next;
    }
}

/* ---- relocations of the contribution ---- */

typedef void take_batch(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                        struct kld_atom *atom, void *arg);

/* Collects relocations, their offsets moved into the contribution, for the CPU's loops, which
 * want them in an atom. */
struct batch {
    struct kld_session *ctx;
    struct kld_worker *worker;
    struct elf_object *obj;
    struct kld_atom *atom;
    take_batch *take;
    void *arg;
    uint32_t n;
    Elf64_Rela relas[BATCH];
};

static void batch_flush(struct batch *b)
{
    if (!b->n)
        return;
    b->atom->edges = b->relas;
    b->atom->nedges = b->n;
    b->take(b->ctx, b->worker, b->obj, b->atom, b->arg);
    b->atom->edges = NULL;
    b->atom->nedges = 0;
    b->n = 0;
}

static void batch_add(struct batch *b, const elf_rela *rel, uint32_t from, uint32_t to)
{
    if (b->n == BATCH)
        batch_flush(b);
    Elf64_Rela *r = &b->relas[b->n++];
    *r = *rel;
    r->r_offset = rel->r_offset - from + to;
}

/* ---- scan ---- */

static bool is_pc_relative(const struct elf_arch_ops *arch, const elf_rela *rel)
{
    uint32_t type = ELF64_R_TYPE(rel->r_info);
    return type == arch->r_none || (type < arch->ninfo && arch->info[type].pc_relative);
}

/* Bytes that the relocation writes; scan reports types that there are not. */
static uint32_t width_of(const struct elf_arch_ops *arch, const elf_rela *rel)
{
    uint32_t type = ELF64_R_TYPE(rel->r_info);
    return type < arch->ninfo ? arch->info[type].width : 0;
}

/* A distance to something in the same object needs nothing: most relocations of the table. */
static bool needs_nothing(const struct elf_arch_ops *arch, const struct elf_object *obj,
                          const elf_rela *rel)
{
    uint32_t sym = ELF64_R_SYM(rel->r_info);
    return sym < obj->first_global && is_pc_relative(arch, rel) &&
           ELF64_ST_TYPE(obj->syms[sym].st_info) != STT_GNU_IFUNC;
}

/* Marks the CIEs in use, sums up the live FDEs. False if a relocation may need a dynamic one. */
static bool survey(struct kld_session *ctx, const struct elf_object *obj, struct elf_eh_section *s)
{
    const struct elf_arch_ops *arch = elf_state(ctx)->arch;
    bool relative = true;
    s->live_size = 0;
    s->nrows = 0;
    for (uint32_t i = 0; i < s->nfdes; i++) {
        const struct elf_eh_fde *fde = &s->fdes[i];
        if (!is_live(obj, fde))
            continue;
        struct record r = record_at(s, fde->offset);
        cie_of(s, &r)->live = true;
        s->live_size += r.size;
        s->nrows += fde->owner != 0;
        for (uint32_t k = fde->rel, n = rels_of(s, &r, fde->rel); n; n--, k++)
            relative &= is_pc_relative(arch, &s->relas[k]);
    }
    for (uint32_t i = 0; i < s->ncies; i++)
        for (uint32_t k = 0; s->cies[i].live && k < s->cies[i].nrel; k++)
            relative &= is_pc_relative(arch, &s->relas[s->cies[i].rel + k]);
    return relative;
}

/* Offsets of the CIEs that are written here; returns where the FDEs begin. */
static uint32_t place_cies(struct elf_eh_section *s)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->ncies; i++)
        if (s->cies[i].live && s->cies[i].leader == &s->cies[i]) {
            s->cies[i].out = at;
            at += s->cies[i].size;
        }
    return at;
}

/* Keeps the relocations of the contribution as the atom's own. */
static void fix_relocations(struct kld_worker *worker, struct elf_object *obj,
                            struct elf_eh_section *s)
{
    for (uint32_t i = 0; i < s->ncies; i++)
        s->cies[i].leader = &s->cies[i];
    uint32_t at = place_cies(s), n = 0;
    Elf64_Rela *out = KLD_NEW_ARRAY(&worker->arena, Elf64_Rela, s->nrelas);
    for (uint32_t i = 0; i < s->ncies; i++)
        for (uint32_t k = 0; s->cies[i].live && k < s->cies[i].nrel; k++) {
            out[n] = s->relas[s->cies[i].rel + k];
            out[n++].r_offset += (uint64_t)s->cies[i].out - s->cies[i].offset;
        }
    for (uint32_t i = 0; i < s->nfdes; i++) {
        if (!is_live(obj, &s->fdes[i]))
            continue;
        struct record r = record_at(s, s->fdes[i].offset);
        for (uint32_t k = s->fdes[i].rel, left = rels_of(s, &r, k); left; left--, k++) {
            out[n] = s->relas[k];
            out[n++].r_offset += (uint64_t)at - r.offset;
        }
        at += r.size;
    }
    s->atom->edges = out;
    s->atom->nedges = n;
    s->fixed = true;
}

/* Dynamic relocations that were noted are taken back: their numbers are those of the batch. */
static void scan_batch(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                       struct kld_atom *atom, void *arg)
{
    size_t noted = obj->dynrels.len;
    elf_state(ctx)->arch->scan(ctx, worker, obj, atom);
    if (obj->dynrels.len > noted) {
        obj->dynrels.len = noted;
        *(bool *)arg = true;
    }
}

/* Relocations of one record, which ends at `end`: they are applied to a copy of it alone. */
static void scan_rels(struct batch *b, const struct elf_eh_section *s, uint32_t rel, uint32_t n,
                      uint64_t end)
{
    const struct elf_arch_ops *arch = elf_state(b->ctx)->arch;
    for (; n; n--, rel++)
        if (ELF64_R_SYM(s->relas[rel].r_info) >= b->obj->nsyms)
            bad_record(b->ctx, s->atom, s->relas[rel].r_offset,
                       "relocation: symbol index out of range");
        else if (s->relas[rel].r_offset + width_of(arch, &s->relas[rel]) > end)
            bad_record(b->ctx, s->atom, s->relas[rel].r_offset,
                       "relocation reaches past the end of its record");
        else if (!needs_nothing(arch, b->obj, &s->relas[rel]))
            batch_add(b, &s->relas[rel], 0, 0);
}

/* False if some relocation needs a dynamic one after all. */
static bool scan_in_batches(struct kld_session *ctx, struct kld_worker *worker,
                            struct elf_object *obj, struct elf_eh_section *s)
{
    bool noted = false;
    struct batch b = {.ctx = ctx,
                      .worker = worker,
                      .obj = obj,
                      .atom = s->atom,
                      .take = scan_batch,
                      .arg = &noted};
    for (uint32_t i = 0; i < s->ncies; i++)
        if (s->cies[i].live)
            scan_rels(&b, s, s->cies[i].rel, s->cies[i].nrel,
                      (uint64_t)s->cies[i].offset + s->cies[i].size);
    for (uint32_t i = 0; i < s->nfdes; i++)
        if (is_live(obj, &s->fdes[i])) {
            struct record r = record_at(s, s->fdes[i].offset);
            scan_rels(&b, s, s->fdes[i].rel, rels_of(s, &r, s->fdes[i].rel),
                      (uint64_t)r.offset + r.size);
        }
    batch_flush(&b);
    return !noted;
}

static void scan_section(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                         struct elf_eh_section *s)
{
    bool fix = (!survey(ctx, obj, s) && elf_state(ctx)->is_pic) || ctx->options.emit_relocs;
    if (!fix)
        fix = !scan_in_batches(ctx, worker, obj, s);
    if (fix) {
        fix_relocations(worker, obj, s);
        elf_state(ctx)->arch->scan(ctx, worker, obj, s->atom);
    }
}

void elf_eh_scan(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj)
{
    if (obj->eh)
        for (struct elf_eh_section *s = obj->eh->sections; s; s = s->next)
            scan_section(ctx, worker, obj, s);
}

/* ---- synth ---- */

/* What a relocation of a CIE leads to, comparable across objects. */
struct identity {
    const void *what; /* symbol or atom */
    uint64_t value;
    uint32_t type;
    uint64_t at; /* in the record */
};

static struct identity identity_of(const struct kld_session *ctx, const struct elf_object *obj,
                                   const struct elf_eh_cie *cie, const elf_rela *rel)
{
    uint32_t sym = ELF64_R_SYM(rel->r_info);
    struct identity id = {.type = ELF64_R_TYPE(rel->r_info),
                          .at = rel->r_offset - cie->offset,
                          .value = (uint64_t)rel->r_addend};
    struct elf_target t = elf_resolve(ctx, obj, sym, 0);
    id.what = t.sym ? (const void *)t.sym : (const void *)t.atom;
    if (!t.sym)
        id.value += obj->syms[sym].st_value;
    return id;
}

static bool same_cie(const struct kld_session *ctx, const struct elf_eh_cie *a,
                     const struct elf_eh_cie *b)
{
    if (a->size != b->size || a->nrel != b->nrel ||
        memcmp(a->in->data + a->offset, b->in->data + b->offset, a->size) != 0)
        return false;
    for (uint32_t i = 0; i < a->nrel; i++) {
        struct identity x =
            identity_of(ctx, elf_object(a->in->atom->file), a, &a->in->relas[a->rel + i]);
        struct identity y =
            identity_of(ctx, elf_object(b->in->atom->file), b, &b->in->relas[b->rel + i]);
        if (x.what != y.what || x.value != y.value || x.type != y.type || x.at != y.at)
            return false;
    }
    return true;
}

/* CIEs by content. There are a handful of different ones, and thousands of equal ones. */
struct cie_table {
    struct entry {
        uint64_t hash;
        struct elf_eh_cie *cie;
    } * entries;
    size_t mask, count;
};

static void table_grow(struct kld_session *ctx, struct cie_table *t)
{
    struct entry *old = t->entries;
    size_t n = old ? t->mask + 1 : 0;
    t->mask = n ? n * 2 - 1 : 63;
    t->entries = KLD_NEW_ARRAY(&ctx->scratch, struct entry, t->mask + 1);
    for (size_t i = 0; i < n; i++) {
        if (!old[i].cie)
            continue;
        size_t at = old[i].hash & t->mask;
        while (t->entries[at].cie)
            at = (at + 1) & t->mask;
        t->entries[at] = old[i];
    }
}

static struct elf_eh_cie *table_leader(struct kld_session *ctx, struct cie_table *t,
                                       struct elf_eh_cie *cie)
{
    if (t->count * 2 >= t->mask)
        table_grow(ctx, t);
    uint64_t hash = XXH3_64bits(cie->in->data + cie->offset, cie->size);
    size_t at = hash & t->mask;
    for (; t->entries[at].cie; at = (at + 1) & t->mask)
        if (t->entries[at].hash == hash && same_cie(ctx, t->entries[at].cie, cie))
            return t->entries[at].cie;
    t->entries[at] = (struct entry){hash, cie};
    t->count++;
    return cie;
}

static void choose_leaders(struct kld_session *ctx, struct cie_table *t, struct elf_eh_section *s)
{
    for (uint32_t i = 0; i < s->ncies; i++)
        if (s->cies[i].live && !s->fixed)
            s->cies[i].leader = ctx->slack ? &s->cies[i] : table_leader(ctx, t, &s->cies[i]);
}

/* The contribution's size; the first one that is not empty brings the alignment. What was empty
 * stays: GCC's crtbeginT.o has its __EH_FRAME_BEGIN__ there. */
static void settle_section(struct elf_eh_output *out, struct elf_eh_section *s)
{
    struct kld_atom *atom = s->atom;
    atom->size = place_cies(s) + s->live_size;
    atom->live = atom->size != 0 || s->size == 0;
    atom->p2align = out->any ? 0 : 3;
    out->any |= atom->size != 0;
    s->first_row = out->nrows;
    out->nrows += s->nrows;
}

void elf_eh_settle(struct elf_object *obj)
{
    for (struct elf_eh_section *s = obj->eh ? obj->eh->sections : NULL; s; s = s->next) {
        for (uint32_t i = 0; i < s->ncies; i++)
            s->cies[i].leader = &s->cies[i];
        s->atom->size = place_cies(s) + s->live_size;
        s->atom->p2align = 0; /* as those of a full link but the first, which stays where it is */
    }
}

static const uint8_t terminator[4];

bool elf_is_eh_terminator(const struct kld_atom *atom)
{
    return atom->data == terminator;
}

void elf_eh_synth(struct kld_session *ctx)
{
    struct elf_eh_output *out = KLD_NEW(&ctx->arena, struct elf_eh_output);
    elf_state(ctx)->eh = out;
    kld_arena_init(&ctx->scratch, &ctx->alloc, &ctx->oom);
    struct cie_table table = {0};
    struct kld_atom *last = NULL;
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind != KLD_FILE_OBJECT || !obj->eh)
            continue;
        for (struct elf_eh_section *s = obj->eh->sections; s; s = s->next) {
            choose_leaders(ctx, &table, s);
            settle_section(out, s);
            last = s->atom->size ? s->atom : last;
        }
    }
    kld_arena_free(&ctx->scratch);
    if (last) {
        struct kld_atom *end = kld_atom_new(ctx, ctx->sections.data[last->section],
                                            last->flags & KLD_ATOM_ALLOC, 0, sizeof(terminator));
        end->data = terminator;
    }
}

/* ---- writing .eh_frame ---- */

static struct elf_eh_section *section_of(const struct kld_atom *atom)
{
    struct elf_eh_section *s = elf_object(atom->file)->eh->sections;
    while (s->atom != atom)
        s = s->next;
    return s;
}

static void apply_batch(struct kld_session *ctx, struct kld_worker *worker, struct elf_object *obj,
                        struct kld_atom *atom, void *arg)
{
    elf_state(ctx)->arch->apply(ctx, worker, obj, atom, arg);
}

static void write_record(struct batch *b, const struct elf_eh_section *s, const struct record *r,
                         uint32_t rel, uint32_t nrel, uint32_t to)
{
    memcpy((uint8_t *)b->arg + to, s->data + r->offset, r->size);
    if (!s->fixed)
        for (; nrel; nrel--, rel++)
            batch_add(b, &s->relas[rel], r->offset, to);
}

/* Where in memory a CIE is written. */
static uint64_t cie_address(const struct elf_eh_cie *cie)
{
    return cie->leader->in->atom->addr + cie->leader->out;
}

void elf_eh_write(struct kld_session *ctx, struct kld_worker *worker, const struct kld_atom *atom,
                  uint8_t *out)
{
    struct elf_object *obj = elf_object(atom->file);
    const struct elf_eh_section *s = section_of(atom);
    /* The loops of the CPU see an atom like this one, with some of its relocations. */
    struct kld_atom view = {.file = atom->file,
                            .size = atom->size,
                            .addr = atom->addr,
                            .section = atom->section,
                            .input_index = atom->input_index,
                            .kind = atom->kind,
                            .flags = atom->flags,
                            .live = 1};
    struct batch b = {
        .ctx = ctx, .worker = worker, .obj = obj, .atom = &view, .take = apply_batch, .arg = out};
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->ncies; i++) {
        const struct elf_eh_cie *cie = &s->cies[i];
        if (!cie->live || cie->leader != cie)
            continue;
        struct record r = record_at(s, cie->offset);
        write_record(&b, s, &r, cie->rel, cie->nrel, at);
        at += r.size;
    }
    for (uint32_t i = 0; i < s->nfdes; i++) {
        if (!is_live(obj, &s->fdes[i]))
            continue;
        struct record r = record_at(s, s->fdes[i].offset);
        write_record(&b, s, &r, s->fdes[i].rel, rels_of(s, &r, s->fdes[i].rel), at);
        uint32_t id_at = at + (r.id_at - r.offset);
        kld_put32(out + id_at, (uint32_t)(atom->addr + id_at - cie_address(cie_of(s, &r))));
        at += r.size;
    }
    batch_flush(&b);
    if (s->fixed && atom->nedges)
        elf_state(ctx)->arch->apply(ctx, worker, obj, atom, out);
}

/* ---- .eh_frame_hdr ---- */

enum { HDR_SIZE = 12, ROW = 8 };

uint64_t elf_eh_hdr_size(const struct kld_session *ctx)
{
    const struct elf_eh_output *out = elf_state(ctx)->eh;
    if (!out || !out->any)
        return 0;
    uint64_t spare = ctx->slack ? kld_slack_spare(ctx, KLD_SLACK_DATA, out->nrows) + 64 : 0;
    return HDR_SIZE + ROW * (out->nrows + spare);
}

static bool fits_int32(int64_t v)
{
    return v == (int32_t)v;
}

void elf_eh_rows(struct kld_session *ctx, const struct elf_object *obj,
                 const struct elf_eh_section *s, uint64_t hdr, uint64_t *row)
{
    uint64_t at = s->atom->addr + s->atom->size - s->live_size;
    for (uint32_t i = 0; i < s->nfdes; i++) {
        if (!is_live(obj, &s->fdes[i]))
            continue;
        struct record r = record_at(s, s->fdes[i].offset);
        if (s->fdes[i].owner) {
            const elf_rela *rel = pc_begin_rel(s, &r, s->fdes[i].rel);
            struct elf_target t = elf_resolve(ctx, obj, ELF64_R_SYM(rel->r_info), rel->r_addend);
            int64_t pc = (int64_t)(t.value + (uint64_t)rel->r_addend - hdr);
            int64_t fde = (int64_t)(at - hdr);
            if (!fits_int32(pc) || !fits_int32(fde))
                bad_record(ctx, s->atom, r.offset,
                           "function or its unwind record is more than 2 GiB from .eh_frame_hdr");
            *row++ = (uint64_t)((uint32_t)pc ^ 0x80000000) << 32 | (uint32_t)fde;
        }
        at += r.size;
    }
}

static void fill_file(struct kld_session *ctx, struct kld_worker *worker, void *arg, size_t i)
{
    (void)worker;
    const struct elf_object *obj = elf_object(ctx->files[i]);
    if (obj->base.kind == KLD_FILE_OBJECT && obj->eh)
        for (const struct elf_eh_section *s = obj->eh->sections; s; s = s->next)
            if (s->nrows)
                elf_eh_rows(ctx, obj, s, *(const uint64_t *)arg,
                            elf_state(ctx)->eh->rows + s->first_row);
}

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };

/* One pass of a radix sort by the upper halves. */
static void sort_digit(const uint8_t *from, uint8_t *to, uint32_t n, unsigned shift)
{
    uint32_t count[DIGITS] = {0};
    for (uint32_t i = 0; i < n; i++)
        count[kld_get64(from + ROW * (size_t)i) >> shift & (DIGITS - 1)]++;
    for (uint32_t i = 0, sum = 0; i < DIGITS; i++) {
        uint32_t here = count[i];
        count[i] = sum;
        sum += here;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t row = kld_get64(from + ROW * (size_t)i);
        kld_put64(to + ROW * (size_t)count[row >> shift & (DIGITS - 1)]++, row);
    }
}

/* The rows in order; other: space for as many, which may be where they are then. */
static const uint8_t *sort_rows(const struct elf_eh_output *out, uint8_t *other)
{
    uint8_t *rows = (uint8_t *)out->rows;
    uint32_t n = out->nrows, i = 1;
    while (i < n && out->rows[i - 1] <= out->rows[i])
        i++;
    if (i >= n)
        return rows; /* one section of code, in input order: the usual case */
    sort_digit(rows, other, n, 32);
    sort_digit(other, rows, n, 32 + DIGIT_BITS);
    sort_digit(rows, other, n, 32 + 2 * DIGIT_BITS);
    return other;
}

void elf_eh_finish(struct kld_session *ctx)
{
    struct elf_eh_output *out = elf_state(ctx)->eh;
    const struct kld_atom *hdr = elf_state(ctx)->synth[ELF_EH_FRAME_HDR];
    if (!out || !hdr)
        return;
    uint64_t at = hdr->addr;
    out->rows = KLD_NEW_ARRAY(&ctx->arena, uint64_t, out->nrows);
    kld_parallel_for(ctx, ctx->nfiles, 64, fill_file, &at);
}

/* Address of the first contribution. */
static uint64_t eh_frame_address(const struct kld_session *ctx)
{
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind == KLD_FILE_OBJECT && obj->eh)
            for (const struct elf_eh_section *s = obj->eh->sections; s; s = s->next)
                if (s->atom->size)
                    return s->atom->addr;
    }
    return 0;
}

/* LSB 10.6.2: version 1; the address of .eh_frame as a distance from its field; a count of
 * 4 bytes; the table as distances from the start of this section, all of them signed 4 bytes. */
void elf_eh_hdr_write(struct kld_session *ctx, struct kld_worker *worker,
                      const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    const struct elf_eh_output *eh = elf_state(ctx)->eh;
    static const uint8_t head[4] = {1, 0x1b, 0x03, 0x3b};
    int64_t distance = (int64_t)(eh_frame_address(ctx) - (atom->addr + 4));
    if (!fits_int32(distance))
        kld_error(ctx, "overflow", NULL, ".eh_frame is more than 2 GiB from .eh_frame_hdr");
    memcpy(out, head, sizeof(head));
    kld_put32(out + 4, (uint32_t)distance);
    kld_put32(out + 8, eh->nrows);
    out += HDR_SIZE;
    const uint8_t *rows = sort_rows(eh, out);
    for (uint32_t i = 0; i < eh->nrows; i++, out += ROW, rows += ROW) {
        uint64_t row = kld_get64(rows);
        kld_put32(out, (uint32_t)(row >> 32) ^ 0x80000000);
        kld_put32(out + 4, (uint32_t)row);
    }
}
