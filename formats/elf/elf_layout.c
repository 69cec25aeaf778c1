/* elf_layout.c - addresses, file offsets and headers.
 *
 * Needs: session.order and session.segments (elf_place.c). One bounded loop gives addresses;
 * it runs again only when sizes that depend on addresses have changed: relaxation shortens code,
 * .relr.dyn and islands grow. Afterwards addresses, symbols and file offsets are final. */
#include "formats/elf/elf_island.h"
#include "formats/elf/elf_symbols.h"
#include "formats/elf/elf_tables.h"
#include "src/assign.h"
#include "src/layout.h"
#include "src/resolve.h"
#include <stdlib.h>

enum { MAX_ROUNDS = 64 };

/* ---- headers ---- */

static uint16_t file_type(const struct elf_link *elf)
{
    return elf->is_relocatable ? ET_REL : elf->is_pic ? ET_DYN : ET_EXEC;
}

static uint64_t entry_address(const struct kld_session *ctx)
{
    const struct kld_symbol *sym = elf_state(ctx)->entry;
    return sym && (sym->kind == KLD_SYM_DEFINED || sym->kind == KLD_SYM_ABSOLUTE)
               ? elf_symbol_address(ctx, sym)
               : elf_state(ctx)->entry_number;
}

static uint32_t section_count(const struct kld_session *ctx)
{
    uint32_t n = 1;
    for (uint32_t i = 0; i < ctx->norder; i++)
        n += ctx->order[i]->number != 0;
    return n;
}

static void write_segment(uint8_t *out, const struct kld_segment *seg)
{
    Elf64_Phdr ph = {.p_type = seg->type,
                     .p_flags = seg->flags,
                     .p_offset = seg->offset,
                     .p_vaddr = seg->addr,
                     .p_paddr = seg->addr,
                     .p_filesz = seg->filesize,
                     .p_memsz = seg->memsize,
                     .p_align = seg->align};
    memcpy(out, &ph, sizeof(ph));
}

static void write_headers(struct kld_session *ctx, struct kld_worker *w,
                          const struct kld_atom *atom, uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_link *elf = elf_state(ctx);
    uint32_t n = section_count(ctx);
    uint32_t names = ctx->sections.data[elf->synth[ELF_SHSTRTAB]->section]->number;
    Elf64_Ehdr eh = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT,
                    elf->uses_gnu_osabi ? ELFOSABI_GNU : ELFOSABI_NONE},
        .e_type = file_type(elf),
        .e_machine = elf->arch->machine,
        .e_version = EV_CURRENT,
        .e_entry = elf->is_relocatable ? 0 : entry_address(ctx),
        .e_phoff = ctx->segments.len ? sizeof(Elf64_Ehdr) : 0,
        .e_shoff = elf->section_headers->offset,
        .e_flags = elf->e_flags,
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = ctx->segments.len ? sizeof(Elf64_Phdr) : 0,
        .e_phnum = (uint16_t)ctx->segments.len,
        .e_shentsize = sizeof(Elf64_Shdr),
        .e_shnum = n < SHN_LORESERVE ? (uint16_t)n : 0,
        .e_shstrndx = names < SHN_LORESERVE ? (uint16_t)names : SHN_XINDEX,
    };
    memcpy(out, &eh, sizeof(eh));
    for (size_t i = 0; i < ctx->segments.len; i++)
        write_segment(out + sizeof(eh) + i * sizeof(Elf64_Phdr), &ctx->segments.data[i]);
}

static void write_section_headers(struct kld_session *ctx, struct kld_worker *w,
                                  const struct kld_atom *atom, uint8_t *out)
{
    (void)w, (void)atom;
    uint32_t n = section_count(ctx);
    uint32_t names = ctx->sections.data[elf_state(ctx)->synth[ELF_SHSTRTAB]->section]->number;
    Elf64_Shdr first = {.sh_size = n >= SHN_LORESERVE ? n : 0,
                        .sh_link = names >= SHN_LORESERVE ? names : 0};
    memcpy(out, &first, sizeof(first));
    for (uint32_t i = 0; i < ctx->norder; i++) {
        const struct kld_section *s = ctx->order[i];
        if (!s->number)
            continue;
        Elf64_Shdr sh = {
            .sh_name = s->name_offset,
            .sh_type = s->type,
            .sh_flags = s->format_flags,
            .sh_addr = s->flags & KLD_ATOM_ALLOC ? s->addr : 0,
            .sh_offset = s->offset,
            .sh_size = s->size,
            .sh_link = s->link ? s->link->number : 0,
            .sh_info = s->info_section ? s->info_section->number : s->info,
            .sh_addralign = s->size || s->p2align ? 1ull << s->p2align : 1,
            .sh_entsize = s->entsize,
        };
        memcpy(out + s->number * sizeof(sh), &sh, sizeof(sh));
    }
}

/* The pseudo-sections that headers are placed by; they have no number. */
static struct kld_section *pseudo_section(
    struct kld_session *ctx, const char *name, uint8_t flags, enum elf_synth which,
    void (*generate)(struct kld_session *, struct kld_worker *, const struct kld_atom *, uint8_t *))
{
    struct kld_section *s = kld_section_get(ctx, &ctx->arena, kld_str(name), 0, 0, 0);
    struct kld_atom *atom = kld_atom_new(ctx, s, flags, 3, 0);
    atom->kind = KLD_ATOM_GENERATED;
    atom->generate = generate;
    if (which != ELF_SYNTH_COUNT)
        elf_state(ctx)->synth[which] = atom;
    return s;
}

void elf_headers_begin(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    elf->headers = pseudo_section(ctx, "(headers)", elf->is_relocatable ? 0 : KLD_ATOM_ALLOC,
                                  ELF_HEADERS, write_headers);
    elf->section_headers =
        pseudo_section(ctx, "(section headers)", 0, ELF_SYNTH_COUNT, write_section_headers);
    elf_make(ctx, ELF_SHSTRTAB, ".shstrtab", SHT_STRTAB, 0, 0, 0, 0);
}

/* Section names, once it is known which sections there are. */
static void make_names(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    uint32_t size = 1;
    for (uint32_t i = 0; i < ctx->norder; i++)
        if (ctx->order[i]->number) {
            ctx->order[i]->name_offset = size;
            size += (uint32_t)strlen(ctx->order[i]->name) + 1;
        }
    char *names = KLD_NEW_ARRAY(&ctx->arena, char, size);
    for (uint32_t i = 0; i < ctx->norder; i++)
        if (ctx->order[i]->number)
            strcpy(names + ctx->order[i]->name_offset, ctx->order[i]->name);
    elf->synth[ELF_SHSTRTAB]->data = (const uint8_t *)names;
    elf->synth[ELF_SHSTRTAB]->size = size;
    elf->synth[ELF_HEADERS]->size = sizeof(Elf64_Ehdr) + ctx->segments.len * sizeof(Elf64_Phdr);
    ctx->sections.data[elf->section_headers->id]->atoms.data[0]->size =
        section_count(ctx) * sizeof(Elf64_Shdr);
}

/* ---- addresses ---- */

static bool takes_memory(const struct kld_section *s)
{
    return (s->flags & KLD_ATOM_ALLOC) &&
           !((s->flags & KLD_ATOM_TLS) && (s->flags & KLD_ATOM_ZERO));
}

static struct kld_segment *load_starting_at(struct kld_session *ctx, const struct kld_section *s)
{
    for (size_t i = 0; i < ctx->segments.len; i++)
        if (ctx->segments.data[i].type == PT_LOAD && ctx->segments.data[i].first == s)
            return &ctx->segments.data[i];
    return NULL;
}

static uint64_t tls_alignment(struct kld_session *ctx, const struct kld_section *s)
{
    for (size_t i = 0; i < ctx->segments.len; i++)
        if (ctx->segments.data[i].type == PT_TLS && ctx->segments.data[i].first == s)
            return ctx->segments.data[i].align;
    return 1;
}

/* Whether a page of the file may be mapped by both segments: not next to code, which -z
 * separate-code keeps by itself. */
static bool may_share_page(const struct kld_session *ctx, const struct kld_segment *before,
                           const struct kld_segment *seg)
{
    if (ctx->options.z_separate_code == KLD_SEPARATE_LOADABLE)
        return false;
    if (ctx->options.z_separate_code == KLD_SEPARATE_NONE)
        return true;
    return !((before->flags | seg->flags) & PF_X);
}

struct cursor {
    uint64_t addr, offset;
    struct kld_segment *load;
    bool in_relro;
};

/* Moves to the start of a PT_LOAD; offset and address stay congruent modulo the page size. */
static void start_load(struct kld_session *ctx, struct cursor *at, struct kld_segment *seg,
                       uint64_t align)
{
    uint64_t page = seg->align;
    if (ctx->options.omagic || ctx->options.nmagic) {
        at->addr = kld_align_up(at->addr, align);
        at->offset = kld_align_up(at->offset, align);
        seg->align = KLD_MAX(align, 8u);
    } else if (at->load) {
        if (may_share_page(ctx, at->load, seg)) {
            at->addr = kld_align_up(at->addr, page) + at->offset % page;
        } else {
            at->addr = kld_align_up(at->addr, page);
            at->offset = kld_align_up(at->offset, page);
        }
    }
    seg->offset = at->offset;
    seg->addr = at->addr;
    at->load = seg;
}

static bool fixed_address(struct kld_session *ctx, const struct kld_section *s, uint64_t *addr)
{
    for (size_t i = 0; i < ctx->options.section_start.len; i++) {
        const char *text = ctx->options.section_start.data[i];
        size_t n = strlen(s->name);
        if (strncmp(text, s->name, n) == 0 && text[n] == '=') {
            *addr = strtoull(text + n + 1, NULL, 16);
            return true;
        }
    }
    return false;
}

static void place_section(struct kld_session *ctx, struct cursor *at, struct kld_section *s)
{
    uint64_t align = KLD_MAX(1ull << s->p2align, tls_alignment(ctx, s));
    struct kld_segment *seg = load_starting_at(ctx, s);
    if (at->in_relro && !s->relro && takes_memory(s)) {
        at->addr = kld_align_up(at->addr, elf_common_page(ctx));
        at->in_relro = false;
    }
    at->in_relro |= s->relro;
    uint64_t fixed;
    if (fixed_address(ctx, s, &fixed) && seg) {
        uint64_t page = elf_max_page(ctx);
        at->offset = kld_align_up(at->offset, page) + fixed % page;
        at->addr = fixed;
        seg->offset = at->offset;
        seg->addr = at->addr;
        at->load = seg;
    } else if (seg) {
        start_load(ctx, at, seg, align);
    }
    uint64_t addr = kld_align_up(at->addr, align);
    s->addr = addr;
    if (seg && (ctx->options.omagic || ctx->options.nmagic || addr != at->addr) &&
        !(s->flags & KLD_ATOM_ZERO)) {
        /* The segment begins with the section. */
        seg->offset += addr - seg->addr;
        seg->addr = addr;
    }
    s->offset = at->load->offset + (addr - at->load->addr);
    if (!takes_memory(s)) {
        if (seg) { /* what follows is not to come before the segment */
            at->addr = addr;
            at->offset = s->offset;
        }
        return;
    }
    at->addr = addr + s->size;
    if (!(s->flags & KLD_ATOM_ZERO))
        at->offset = s->offset + s->size;
}

/* p_align of the segments: pages, or what the most strictly aligned section asks for. */
static void align_loads(struct kld_session *ctx)
{
    struct kld_segment *seg = NULL;
    for (uint32_t i = 0; i < ctx->norder; i++) {
        struct kld_segment *next = load_starting_at(ctx, ctx->order[i]);
        if (next) {
            seg = next;
            seg->align = elf_max_page(ctx);
        }
        if (seg && takes_memory(ctx->order[i]))
            seg->align = KLD_MAX(seg->align, 1ull << ctx->order[i]->p2align);
    }
}

static void assign_addresses(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    align_loads(ctx);
    struct cursor at = {.addr = elf->image_base};
    uint32_t i = 0;
    for (; i < ctx->norder && (ctx->order[i]->flags & KLD_ATOM_ALLOC); i++)
        place_section(ctx, &at, ctx->order[i]);
    for (; i < ctx->norder; i++) {
        struct kld_section *s = ctx->order[i];
        s->addr = 0;
        s->offset = at.offset = kld_align_up(at.offset, 1ull << s->p2align);
        if (!(s->flags & KLD_ATOM_ZERO))
            at.offset += s->size;
    }
    ctx->file_size = at.offset;
}

/* Hostile sizes, or addresses given by options. */
static void check_size(struct kld_session *ctx)
{
    for (uint32_t i = 0; i < ctx->norder; i++) {
        const struct kld_section *s = ctx->order[i];
        if (takes_memory(s) && s->size && s->addr + s->size - 1 < s->addr) {
            kld_error(ctx, "too-large", NULL,
                      "section %s is too large: 0x%llx bytes at 0x%llx reach past the end of the "
                      "address space",
                      s->name, (unsigned long long)s->size, (unsigned long long)s->addr);
            return;
        }
    }
    if (ctx->file_size > KLD_LARGEST_IMAGE)
        kld_error(ctx, "too-large", NULL, "the output is too large: 0x%llx bytes",
                  (unsigned long long)ctx->file_size);
}

/* --check-sections: only addresses given by options can make sections overlap. */
static void check_overlap(struct kld_session *ctx)
{
    if (!ctx->options.check_sections || !ctx->options.section_start.len)
        return;
    for (uint32_t i = 0; i < ctx->norder; i++)
        for (uint32_t k = 0; k < i; k++) {
            const struct kld_section *a = ctx->order[k], *b = ctx->order[i];
            if (takes_memory(a) && takes_memory(b) && a->size && b->size &&
                a->addr < b->addr + b->size && b->addr < a->addr + a->size)
                kld_error(ctx, "overlap", NULL,
                          "section %s [0x%llx, 0x%llx) overlaps section %s [0x%llx, 0x%llx)",
                          b->name, (unsigned long long)b->addr,
                          (unsigned long long)(b->addr + b->size), a->name,
                          (unsigned long long)a->addr, (unsigned long long)(a->addr + a->size));
        }
}

static void measure_segments(struct kld_session *ctx)
{
    for (size_t i = 0; i < ctx->segments.len; i++) {
        struct kld_segment *seg = &ctx->segments.data[i];
        if (!seg->first)
            continue;
        seg->addr = seg->first->addr;
        seg->offset = seg->first->offset;
        seg->filesize = seg->memsize = 0;
        bool inside = false;
        for (uint32_t k = 0; k < ctx->norder; k++) {
            const struct kld_section *s = ctx->order[k];
            inside |= s == seg->first;
            if (!inside)
                continue;
            if (seg->type == PT_TLS || takes_memory(s))
                seg->memsize = KLD_MAX(seg->memsize, s->addr + s->size - seg->addr);
            if (!(s->flags & KLD_ATOM_ZERO))
                seg->filesize = s->addr + s->size - seg->addr;
            if (s == seg->last)
                break;
        }
        if (seg->type == PT_PHDR) {
            seg->addr += sizeof(Elf64_Ehdr);
            seg->offset += sizeof(Elf64_Ehdr);
            seg->filesize = seg->memsize = ctx->segments.len * sizeof(Elf64_Phdr);
        } else if (seg->type == PT_GNU_RELRO) {
            /* Whole pages: layout has padded behind it. */
            seg->memsize = kld_align_up(seg->addr + seg->memsize, elf_common_page(ctx)) - seg->addr;
            seg->filesize = KLD_MIN(seg->memsize, KLD_MAX(seg->filesize, seg->memsize));
        }
    }
}

/* ---- what follows from addresses ---- */

static uint64_t synth_address(const struct elf_link *elf, enum elf_synth which)
{
    return elf->synth[which] ? elf->synth[which]->addr : 0;
}

static void set_point(struct elf_link *elf, enum elf_image_point point, struct kld_section *s,
                      uint64_t address)
{
    elf->points[point].section = s;
    elf->points[point].address = address;
}

/* Where data that is written begins, the small data in it, and where it all ends. */
struct data_bounds {
    uint64_t start, small, end;
};

static struct data_bounds data_bounds(const struct kld_session *ctx)
{
    struct data_bounds b = {UINT64_MAX, UINT64_MAX, 0};
    for (uint32_t i = 0; i < ctx->norder; i++) {
        const struct kld_section *s = ctx->order[i];
        if (!takes_memory(s) || s->relro || !(s->flags & KLD_ATOM_WRITE))
            continue;
        b.start = KLD_MIN(b.start, s->addr);
        b.end = s->addr + s->size;
        if (strcmp(s->name, ".sdata") == 0 || (s->flags & KLD_ATOM_ZERO))
            b.small = KLD_MIN(b.small, s->addr);
    }
    b.start = KLD_MIN(b.start, b.end);
    b.small = KLD_MIN(b.small, b.end);
    return b;
}

/* GNU ld's choice: in the middle of what is within reach of a 12-bit offset around the start of the
 * small data, but no further back than it takes to have the end of all data in reach. */
static uint64_t gp_address(const struct kld_session *ctx)
{
    enum { REACH = 0x800 };
    struct data_bounds b = data_bounds(ctx);
    uint64_t last = b.end > b.start + 2 * REACH ? b.end - REACH : b.start + REACH;
    return b.end ? KLD_MIN(b.small + REACH, last) : 0;
}

static void set_points(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    set_point(elf, ELF_AT_HEADERS, elf->headers, elf->headers->addr);
    elf->points[ELF_AT_BSS].section = NULL;
    struct kld_section *last = NULL;
    for (uint32_t i = 0; i < ctx->norder; i++) {
        struct kld_section *s = ctx->order[i];
        if (!takes_memory(s))
            continue;
        last = s;
        if (s->flags & KLD_ATOM_EXEC)
            set_point(elf, ELF_AT_ETEXT, s, s->addr + s->size);
        if (!(s->flags & KLD_ATOM_ZERO))
            set_point(elf, ELF_AT_EDATA, s, s->addr + s->size);
        else if (!elf->points[ELF_AT_BSS].section && !s->relro)
            set_point(elf, ELF_AT_BSS, s, s->addr);
    }
    if (last)
        set_point(elf, ELF_AT_END, last, last->addr + last->size);
    if (!elf->points[ELF_AT_BSS].section)
        elf->points[ELF_AT_BSS] = elf->points[ELF_AT_EDATA];
    if (!elf->points[ELF_AT_ETEXT].section)
        elf->points[ELF_AT_ETEXT] = elf->points[ELF_AT_HEADERS];
    struct data_bounds b = data_bounds(ctx);
    set_point(elf, ELF_AT_DATA, elf->headers, b.start);
    set_point(elf, ELF_AT_SDATA, elf->headers, b.small);
    set_point(elf, ELF_AT_GP, elf->headers, elf->gp_addr);
    struct kld_atom *plt = elf->synth[ELF_RELA_PLT];
    elf->points[ELF_AT_IPLT_START] = elf->points[ELF_AT_IPLT_END] = elf->points[ELF_AT_HEADERS];
    if (plt) { /* ld.so, or the start code of a static PIE, finds it through .dynamic */
        struct kld_section *s = ctx->sections.data[plt->section];
        set_point(elf, ELF_AT_IPLT_START, s, plt->addr);
        set_point(elf, ELF_AT_IPLT_END, s, plt->addr + (elf->is_dynamic ? 0 : plt->size));
    }
    struct kld_atom *got = elf->synth[ELF_GOT_PLT] && !elf->arch->got_reserved
                               ? elf->synth[ELF_GOT_PLT]
                               : elf->synth[ELF_GOT];
    if (got)
        set_point(elf, ELF_AT_GOT, ctx->sections.data[got->section], got->addr);
}

static void set_table_addresses(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    elf->got_addr = synth_address(elf, ELF_GOT);
    elf->got_plt_addr = synth_address(elf, ELF_GOT_PLT);
    elf->plt_addr = synth_address(elf, ELF_PLT);
    elf->plt_got_addr = synth_address(elf, ELF_PLT_GOT);
    elf->plt_sec_addr = synth_address(elf, ELF_PLT_SEC);
    if (elf->gp_symbol)
        elf->gp_addr = gp_address(ctx);
    for (size_t i = 0; i < ctx->segments.len; i++) {
        const struct kld_segment *seg = &ctx->segments.data[i];
        if (seg->type != PT_TLS)
            continue;
        elf->tls_start = seg->addr;
        elf->tls_end = seg->addr + seg->memsize;
        elf->tls_align = seg->align;
        /* What DTPREL values are added to: at offset 0 from the thread pointer where a program's
         * link turns them into TPREL ones, else at the start of the module's block. */
        bool at_tp = !elf->is_shared && elf->arch->dtprel_is_tprel;
        set_point(elf, ELF_AT_TLS, seg->first,
                  at_tp ? seg->addr - (uint64_t)elf->arch->tp_offset(ctx, seg->addr) : seg->addr);
    }
}

void elf_layout(struct kld_session *ctx)
{
    make_names(ctx);
    for (int round = 0;; round++) {
        kld_section_offsets(ctx);
        assign_addresses(ctx);
        check_size(ctx);
        if (kld_has_failed(ctx))
            return;
        kld_fix_addresses(ctx);
        measure_segments(ctx);
        set_table_addresses(ctx);
        bool stale = elf_shrink(ctx, round);
        stale |= elf_relr_update(ctx);
        if (!stale) {
            set_points(ctx);
            elf_fix_symbols(ctx);
            stale = elf_islands_update(ctx);
        }
        if (!stale)
            break;
        if (round == MAX_ROUNDS) {
            kld_error(ctx, "internal", NULL, "internal error: addresses do not settle");
            break;
        }
    }
    check_overlap(ctx);
    kld_assign_check(ctx);
}
