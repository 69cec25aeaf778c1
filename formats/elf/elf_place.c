/* elf_place.c - the order of output sections and the segments over them: the default policy.
 *
 * The order is that of GNU ld's built-in script: headers, notes and tables of the dynamic linker;
 * code; read-only data; thread-local data and what becomes read-only after relocation (RELRO);
 * data; zero-filled data; then what is not in memory. A linker script would be another way to
 * fill session.order; layout takes it from there.
 *
 * Afterwards: session.order holds the sections of the output in file order, numbered from 1, and
 * session.segments the program headers, each with its first and last section. */
#include <stdlib.h>
#include "formats/elf/elf_arch.h"
#include "formats/elf/elf_names.h"
#include "formats/elf/elf_tables.h"
#include "formats/elf/elf_version.h"
#include "src/layout.h"

enum rank {
    RANK_HEADERS,
    RANK_GROUP, /* in front of their members (gABI) */
    RANK_INTERP,
    RANK_NOTE,
    RANK_HASH,
    RANK_DYNSYM,
    RANK_DYNSTR,
    RANK_VERSION,
    RANK_RELA,
    RANK_RELA_PLT,
    RANK_INIT,
    RANK_PLT,
    RANK_TEXT,
    RANK_FINI,
    RANK_OTHER_TEXT,
    RANK_RODATA,
    RANK_EH_FRAME_HDR,
    RANK_EH_FRAME,
    RANK_EXCEPT_TABLE,
    RANK_OTHER_RODATA,
    RANK_TDATA,
    RANK_TBSS,
    RANK_PREINIT_ARRAY,
    RANK_INIT_ARRAY,
    RANK_FINI_ARRAY,
    RANK_CTORS,
    RANK_DTORS,
    RANK_RELRO,
    RANK_DYNAMIC,
    RANK_RELRO_GOT,
    RANK_RELRO_BSS, /* the last of PT_GNU_RELRO */
    RANK_GOT,
    RANK_GOT_PLT,
    RANK_DATA,
    RANK_OTHER_DATA,
    RANK_SDATA,
    RANK_SBSS,
    RANK_BSS,
    RANK_OTHER_BSS,
    RANK_LDATA,
    RANK_LBSS,
    RANK_DEBUG,
    RANK_COMMENT,
    RANK_OTHER,
    RANK_SYMTAB,
    RANK_SYMTAB_SHNDX,
    RANK_STRTAB,
    RANK_SHSTRTAB,
    RANK_SECTION_HEADERS,
};

static const struct {
    const char *name;
    enum rank rank;
} named[] = {
    {".bss", RANK_BSS},
    {".bss.rel.ro", RANK_RELRO_BSS},
    {".comment", RANK_COMMENT},
    {".ctors", RANK_CTORS},
    {".data", RANK_DATA},
    {".data.rel.ro", RANK_RELRO},
    {".dtors", RANK_DTORS},
    {".dynamic", RANK_DYNAMIC},
    {".dynstr", RANK_DYNSTR},
    {".dynsym", RANK_DYNSYM},
    {".eh_frame", RANK_EH_FRAME},
    {".eh_frame_hdr", RANK_EH_FRAME_HDR},
    {".fini", RANK_FINI},
    {".fini_array", RANK_FINI_ARRAY},
    {".gcc_except_table", RANK_EXCEPT_TABLE},
    {".gnu.hash", RANK_HASH},
    {".gnu.version", RANK_VERSION},
    {".gnu.version_d", RANK_VERSION},
    {".gnu.version_r", RANK_VERSION},
    {".got", RANK_GOT},
    {".got.plt", RANK_GOT_PLT},
    {".hash", RANK_HASH},
    {".init", RANK_INIT},
    {".init_array", RANK_INIT_ARRAY},
    {".interp", RANK_INTERP},
    {".jcr", RANK_RELRO},
    {".lbss", RANK_LBSS},
    {".ldata", RANK_LDATA},
    {".lrodata", RANK_OTHER_RODATA},
    {".plt", RANK_PLT},
    {".plt.got", RANK_PLT},
    {".plt.sec", RANK_PLT},
    {".preinit_array", RANK_PREINIT_ARRAY},
    {".rela.dyn", RANK_RELA},
    {".rela.plt", RANK_RELA_PLT},
    {".relr.dyn", RANK_RELA},
    {".rodata", RANK_RODATA},
    {".sbss", RANK_SBSS},
    {".sdata", RANK_SDATA},
    {".shstrtab", RANK_SHSTRTAB},
    {".strtab", RANK_STRTAB},
    {".symtab", RANK_SYMTAB},
    {".symtab_shndx", RANK_SYMTAB_SHNDX},
    {".tbss", RANK_TBSS},
    {".tdata", RANK_TDATA},
    {".text", RANK_TEXT},
};

static struct kld_section *of_synth(const struct kld_session *ctx, enum elf_synth which)
{
    const struct kld_atom *a = elf_state(ctx)->synth[which];
    return a ? ctx->sections.data[a->section] : NULL;
}

static bool wants_relro(const struct kld_session *ctx)
{
    return ctx->options.z_relro && !elf_state(ctx)->is_relocatable;
}

/* With -z now nothing of .got.plt is written after start. */
static bool got_plt_is_relro(const struct kld_session *ctx)
{
    return wants_relro(ctx) && ctx->options.z_now;
}

/* -r: as they come, and the tables of symbols behind them. */
static enum rank rank_in_object(const struct kld_session *ctx, const struct kld_section *s)
{
    static const struct {
        enum elf_synth which;
        enum rank rank;
    } tables[] = {
        {ELF_SYMTAB, RANK_SYMTAB},
        {ELF_SYMTAB_SHNDX, RANK_SYMTAB_SHNDX},
        {ELF_STRTAB, RANK_STRTAB},
        {ELF_SHSTRTAB, RANK_SHSTRTAB},
    };
    for (size_t i = 0; i < KLD_COUNT(tables); i++)
        if (s == of_synth(ctx, tables[i].which))
            return tables[i].rank;
    return s->type == SHT_GROUP ? RANK_GROUP : RANK_OTHER;
}

static enum rank rank_of(const struct kld_session *ctx, const struct kld_section *s)
{
    const struct elf_link *elf = elf_state(ctx);
    if (s == elf->headers)
        return RANK_HEADERS;
    if (s == elf->section_headers)
        return RANK_SECTION_HEADERS;
    if (elf->is_relocatable)
        return rank_in_object(ctx, s);
    for (size_t i = 0; i < KLD_COUNT(named); i++) {
        if (strcmp(s->name, named[i].name) != 0)
            continue;
        if ((s->flags & KLD_ATOM_ALLOC) != (named[i].rank < RANK_DEBUG ? KLD_ATOM_ALLOC : 0))
            break; /* somebody's own use of the name */
        if (named[i].rank == RANK_GOT)
            return wants_relro(ctx) ? RANK_RELRO_GOT : RANK_GOT;
        if (named[i].rank == RANK_GOT_PLT && got_plt_is_relro(ctx))
            return RANK_RELRO_GOT;
        if ((named[i].rank == RANK_BSS || named[i].rank == RANK_SBSS) &&
            !(s->flags & KLD_ATOM_ZERO))
            return RANK_OTHER_DATA;
        return named[i].rank;
    }
    if (!(s->flags & KLD_ATOM_ALLOC))
        return strncmp(s->name, ".debug", 6) == 0 ? RANK_DEBUG : RANK_OTHER;
    if (s->flags & KLD_ATOM_TLS)
        return s->flags & KLD_ATOM_ZERO ? RANK_TBSS : RANK_TDATA;
    if (s->type == SHT_NOTE && !(s->flags & KLD_ATOM_WRITE))
        return RANK_NOTE;
    if (s->flags & KLD_ATOM_EXEC)
        return RANK_OTHER_TEXT;
    if (!(s->flags & KLD_ATOM_WRITE))
        return RANK_OTHER_RODATA;
    return s->flags & KLD_ATOM_ZERO ? RANK_OTHER_BSS : RANK_OTHER_DATA;
}

static bool is_relro(enum rank rank)
{
    return rank >= RANK_TDATA && rank <= RANK_RELRO_BSS;
}

static int compare_sections(const void *a, const void *b)
{
    const struct kld_section *x = *(struct kld_section *const *)a;
    const struct kld_section *y = *(struct kld_section *const *)b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->p2align != y->p2align && x->rank == RANK_NOTE)
        return x->p2align > y->p2align ? -1 : 1; /* one PT_NOTE for an alignment */
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* ---- the order of atoms inside a section ---- */

/* Priority of .init_array.N, .ctors.N and their kin; the plain ones come last (or, for .ctors,
 * where the crt files put them). */
static uint32_t priority(const struct kld_atom *a)
{
    const struct elf_object *obj = elf_object(a->file);
    if (a->file->kind != KLD_FILE_OBJECT)
        return 65536;
    struct kld_str name = elf_section_name(obj, a->input_index);
    bool ctors = kld_str_starts(name, ".ctors") || kld_str_starts(name, ".dtors");
    size_t digits = name.len;
    while (digits && name.ptr[digits - 1] >= '0' && name.ptr[digits - 1] <= '9')
        digits--;
    if (digits == name.len || !digits || name.ptr[digits - 1] != '.' || name.len - digits > 9)
        return 65536;
    uint32_t value = 0;
    for (size_t i = digits; i < name.len; i++)
        value = value * 10 + (uint32_t)(name.ptr[i] - '0');
    return ctors ? 65535 - KLD_MIN(value, 65535u) : value;
}

struct keyed {
    struct kld_atom *atom;
    uint32_t key;
    uint32_t order;
};

static int compare_keys(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static void sort_atoms(struct kld_session *ctx, struct kld_section *s,
                       uint32_t (*key)(const struct kld_atom *))
{
    struct keyed *list = KLD_NEW_ARRAY(&ctx->arena, struct keyed, s->atoms.len);
    for (uint32_t i = 0; i < s->atoms.len; i++)
        list[i] = (struct keyed){s->atoms.data[i], key(s->atoms.data[i]), i};
    qsort(list, s->atoms.len, sizeof(*list), compare_keys);
    for (uint32_t i = 0; i < s->atoms.len; i++)
        s->atoms.data[i] = list[i].atom;
    s->shapes = NULL; /* they are in the order of before; it is a short section */
}

static bool is_crt(const struct kld_atom *a, const char *name)
{
    const char *path = a->file->member ? a->file->member : a->file->path;
    if (!path)
        return false;
    const char *slash = strrchr(path, '/');
    return strncmp(slash ? slash + 1 : path, name, strlen(name)) == 0;
}

/* .ctors and .dtors: crtbegin's first, crtend's last, between them by priority. */
static uint32_t ctors_key(const struct kld_atom *a)
{
    if (is_crt(a, "crtbegin") || is_crt(a, "clang_rt.crtbegin"))
        return 0;
    if (is_crt(a, "crtend") || is_crt(a, "clang_rt.crtend"))
        return UINT32_MAX;
    return 1 + priority(a);
}

static unsigned text_order(const struct kld_section *s, size_t i)
{
    if (!(s->shapes[i] & KLD_SHAPE_ORDERED))
        return ELF_TEXT_ORDERS - 1;
    const struct kld_atom *a = s->atoms.data[i];
    return elf_text_order(elf_section_text(elf_object(a->file), a->input_index));
}

enum { TEXT_BLOCK = 8192 }; /* atoms at a time */

struct text_sort {
    const struct kld_section *section;
    struct kld_atom **sorted;
    kld_shape *shapes;                 /* of these */
    size_t (*counts)[ELF_TEXT_ORDERS]; /* by block; then where the next one of each order goes */
};

static void count_text(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t block)
{
    (void)ctx, (void)w;
    const struct text_sort *t = arg;
    size_t end = KLD_MIN((block + 1) * TEXT_BLOCK, t->section->atoms.len);
    for (size_t i = block * TEXT_BLOCK; i < end; i++)
        t->counts[block][text_order(t->section, i)]++;
}

static void place_text(struct kld_session *ctx, struct kld_worker *w, void *arg, size_t block)
{
    (void)ctx, (void)w;
    const struct text_sort *t = arg;
    size_t end = KLD_MIN((block + 1) * TEXT_BLOCK, t->section->atoms.len);
    for (size_t i = block * TEXT_BLOCK; i < end; i++) {
        size_t at = t->counts[block][text_order(t->section, i)]++;
        t->sorted[at] = t->section->atoms.data[i];
        t->shapes[at] = t->section->shapes[i];
    }
}

/* Unlikely, exit, startup and hot code in front of the rest. */
static void sort_text(struct kld_session *ctx, struct kld_section *s)
{
    size_t n = s->atoms.len, nblocks = (n + TEXT_BLOCK - 1) / TEXT_BLOCK, at = 0, early = 0;
    struct text_sort t = {.section = s};
    t.counts = kld_arena_array(&ctx->arena, nblocks, sizeof(*t.counts), 8);
    kld_parallel_for(ctx, nblocks, 1, count_text, &t);
    for (unsigned order = 0; order < ELF_TEXT_ORDERS; order++)
        for (size_t block = 0; block < nblocks; block++) {
            size_t here = t.counts[block][order];
            early += order < ELF_TEXT_ORDERS - 1 ? here : 0;
            t.counts[block][order] = at;
            at += here;
        }
    if (!early)
        return;
    t.sorted = KLD_NEW_ARRAY(&ctx->arena, struct kld_atom *, n);
    t.shapes = KLD_NEW_ARRAY(&ctx->arena, kld_shape, n);
    kld_parallel_for(ctx, nblocks, 1, place_text, &t);
    s->atoms.data = t.sorted;
    s->atoms.cap = n;
    s->shapes = t.shapes;
}

static void order_atoms(struct kld_session *ctx)
{
    for (uint32_t i = 0; i < ctx->norder; i++) {
        struct kld_section *s = ctx->order[i];
        switch (s->rank) {
        case RANK_TEXT: sort_text(ctx, s); break;
        case RANK_INIT_ARRAY:
        case RANK_FINI_ARRAY: sort_atoms(ctx, s, priority); break;
        case RANK_CTORS:
        case RANK_DTORS: sort_atoms(ctx, s, ctors_key); break;
        }
    }
}

/* ---- sections ---- */

static bool in_output(const struct kld_section *s)
{
    return s->atoms.len || s->keep;
}

static void order_sections(struct kld_session *ctx)
{
    ctx->order = KLD_NEW_ARRAY(&ctx->arena, struct kld_section *, ctx->sections.len);
    for (size_t i = 0; i < ctx->sections.len; i++) {
        struct kld_section *s = ctx->sections.data[i];
        if (!in_output(s))
            continue;
        s->rank = rank_of(ctx, s);
        s->relro = wants_relro(ctx) && is_relro(s->rank);
        if (s->type == SHT_NOBITS && !(s->flags & KLD_ATOM_ZERO))
            s->type = SHT_PROGBITS;
        else if ((s->flags & KLD_ATOM_ZERO) && s->type == SHT_PROGBITS && s->atoms.len)
            s->type = SHT_NOBITS;
        ctx->order[ctx->norder++] = s;
    }
    qsort(ctx->order, ctx->norder, sizeof(*ctx->order), compare_sections);
    uint32_t number = 0;
    for (uint32_t i = 0; i < ctx->norder; i++)
        if (ctx->order[i] != elf_state(ctx)->headers &&
            ctx->order[i] != elf_state(ctx)->section_headers)
            ctx->order[i]->number = ++number;
}

/* ---- segments ---- */

static struct kld_segment *add_segment(struct kld_session *ctx, uint32_t type, uint32_t flags,
                                       struct kld_section *s, uint64_t align)
{
    struct kld_segment *seg = kld_vec_push(&ctx->arena, &ctx->segments);
    *seg =
        (struct kld_segment){.type = type, .flags = flags, .first = s, .last = s, .align = align};
    return seg;
}

static uint32_t segment_flags(const struct kld_session *ctx, const struct kld_section *s)
{
    uint32_t flags =
        PF_R | (s->flags & KLD_ATOM_WRITE ? PF_W : 0u) | (s->flags & KLD_ATOM_EXEC ? PF_X : 0u);
    if (ctx->options.omagic)
        return PF_R | PF_W | PF_X;
    /* One text segment for everything that is not written. */
    bool one = ctx->options.z_separate_code == KLD_SEPARATE_NONE || !ctx->options.rosegment;
    if (one && !(flags & PF_W))
        flags |= PF_X;
    return flags;
}

static void load_segments(struct kld_session *ctx)
{
    struct kld_segment *seg = NULL;
    uint64_t page = elf_max_page(ctx);
    for (uint32_t i = 0; i < ctx->norder; i++) {
        struct kld_section *s = ctx->order[i];
        if (!(s->flags & KLD_ATOM_ALLOC))
            break;
        if (s->rank == RANK_TBSS && (s->flags & KLD_ATOM_ZERO) && seg &&
            seg->flags == segment_flags(ctx, s))
            continue; /* takes no room in the image */
        uint32_t flags = segment_flags(ctx, s);
        bool large = s->rank == RANK_LDATA;
        if (!seg || seg->flags != flags || large)
            seg = add_segment(ctx, PT_LOAD, flags, s, page);
        seg->last = s;
    }
}

static void note_segments(struct kld_session *ctx)
{
    for (uint32_t i = 0; i < ctx->norder;) {
        struct kld_section *s = ctx->order[i];
        if (s->type != SHT_NOTE || !(s->flags & KLD_ATOM_ALLOC)) {
            i++;
            continue;
        }
        struct kld_segment *seg = add_segment(ctx, PT_NOTE, PF_R, s, 1ull << s->p2align);
        for (i++; i < ctx->norder && ctx->order[i]->type == SHT_NOTE &&
                  ctx->order[i]->p2align == s->p2align && ctx->order[i]->rank == s->rank;
             i++)
            seg->last = ctx->order[i];
    }
    struct kld_section *property = of_synth(ctx, ELF_NOTE_PROPERTY);
    if (property)
        add_segment(ctx, PT_GNU_PROPERTY, PF_R, property, 8);
}

/* The run of sections for which test() holds as a segment. */
static void run_segment(struct kld_session *ctx, uint32_t type, uint32_t flags, uint64_t align,
                        bool (*test)(const struct kld_section *))
{
    struct kld_segment *seg = NULL;
    for (uint32_t i = 0; i < ctx->norder; i++)
        if ((ctx->order[i]->flags & KLD_ATOM_ALLOC) && test(ctx->order[i])) {
            if (!seg)
                seg = add_segment(ctx, type, flags, ctx->order[i], align);
            seg->last = ctx->order[i];
            if (type == PT_TLS)
                seg->align = KLD_MAX(seg->align, 1ull << ctx->order[i]->p2align);
        }
}

static bool is_tls_section(const struct kld_section *s)
{
    return s->flags & KLD_ATOM_TLS;
}

static bool is_relro_section(const struct kld_section *s)
{
    return s->relro;
}

/* GNU ld's policy: executable if an object asks for it, or (on some CPUs) says nothing at all. */
static uint32_t stack_flags(struct kld_session *ctx)
{
    if (ctx->options.z_execstack != KLD_AUTO)
        return PF_R | PF_W | (ctx->options.z_execstack == KLD_YES ? PF_X : 0u);
    bool silent_need_it = elf_state(ctx)->arch->execstack_default;
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        const struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind != KLD_FILE_OBJECT || obj->base.just_symbols || !obj->nshdrs)
            continue;
        if (obj->execstack || (silent_need_it && !obj->has_gnu_stack)) {
            if (ctx->options.warn_execstack || !obj->execstack)
                kld_warning(ctx, "executable-stack", &(struct kld_where){.file = &obj->base},
                            obj->execstack
                                ? "requires executable stack (because the .note.GNU-stack "
                                  "section is executable)"
                                : "missing .note.GNU-stack section implies executable stack");
            return PF_R | PF_W | PF_X;
        }
    }
    return PF_R | PF_W;
}

static void make_segments(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct kld_section *interp = of_synth(ctx, ELF_INTERP);
    struct kld_section *dynamic = of_synth(ctx, ELF_DYNAMIC);
    struct kld_section *eh = of_synth(ctx, ELF_EH_FRAME_HDR);
    if (interp || elf->is_dynamic)
        add_segment(ctx, PT_PHDR, PF_R, elf->headers, 8);
    if (interp)
        add_segment(ctx, PT_INTERP, PF_R, interp, 1);
    load_segments(ctx);
    if (dynamic)
        add_segment(ctx, PT_DYNAMIC, PF_R | PF_W, dynamic, 8);
    note_segments(ctx);
    run_segment(ctx, PT_TLS, PF_R, 1, is_tls_section);
    if (eh)
        add_segment(ctx, PT_GNU_EH_FRAME, PF_R, eh, 4);
    if (of_synth(ctx, ELF_ATTRIBUTES))
        add_segment(ctx, elf->arch->attributes->segment, PF_R, of_synth(ctx, ELF_ATTRIBUTES), 1);
    struct kld_segment *stack = add_segment(ctx, PT_GNU_STACK, stack_flags(ctx), NULL, 16);
    stack->memsize = ctx->options.z_stack_size;
    run_segment(ctx, PT_GNU_RELRO, PF_R, 1, is_relro_section);
}

uint64_t elf_max_page(const struct kld_session *ctx)
{
    uint64_t page = ctx->options.z_max_page_size;
    return page ? page : ctx->arch->max_page_size;
}

uint64_t elf_common_page(const struct kld_session *ctx)
{
    uint64_t page = ctx->options.z_common_page_size;
    return page ? page : ctx->arch->common_page_size;
}

/* sh_link and sh_info of the tables. */
static void link_sections(struct kld_session *ctx)
{
    struct kld_section *dynsym = of_synth(ctx, ELF_DYNSYM), *dynstr = of_synth(ctx, ELF_DYNSTR);
    static const enum elf_synth to_dynstr[] = {ELF_DYNSYM, ELF_DYNAMIC, ELF_VERDEF, ELF_VERNEED};
    static const enum elf_synth to_dynsym[] = {ELF_HASH, ELF_GNU_HASH, ELF_VERSYM, ELF_RELA_DYN,
                                               ELF_RELA_PLT};
    for (size_t i = 0; i < KLD_COUNT(to_dynstr); i++)
        if (of_synth(ctx, to_dynstr[i]))
            of_synth(ctx, to_dynstr[i])->link = dynstr;
    for (size_t i = 0; i < KLD_COUNT(to_dynsym); i++)
        if (of_synth(ctx, to_dynsym[i]))
            of_synth(ctx, to_dynsym[i])->link = dynsym ? dynsym : of_synth(ctx, ELF_SYMTAB);
    if (dynsym)
        dynsym->info = 1;
    if (of_synth(ctx, ELF_RELA_PLT))
        of_synth(ctx, ELF_RELA_PLT)->info_section = of_synth(ctx, ELF_GOT_PLT);
    if (of_synth(ctx, ELF_SYMTAB))
        of_synth(ctx, ELF_SYMTAB)->link = of_synth(ctx, ELF_STRTAB);
    if (of_synth(ctx, ELF_SYMTAB_SHNDX))
        of_synth(ctx, ELF_SYMTAB_SHNDX)->link = of_synth(ctx, ELF_SYMTAB);
    if (of_synth(ctx, ELF_VERDEF))
        of_synth(ctx, ELF_VERDEF)->info = elf_verdef_count(ctx);
    if (of_synth(ctx, ELF_VERNEED))
        of_synth(ctx, ELF_VERNEED)->info = elf_verneed_count(ctx);
}

void elf_place(struct kld_session *ctx)
{
    kld_gather(ctx);
    order_sections(ctx);
    if (!elf_state(ctx)->is_relocatable) {
        order_atoms(ctx);
        make_segments(ctx);
    }
    link_sections(ctx);
}
