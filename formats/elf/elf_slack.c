/* elf_slack.c - room for edits in ELF sections: which may have some, and what is in the gaps.
 *
 * Only sections that are known to be read by address alone have room between their atoms, or those
 * that are walked in records which can be made to mean nothing. A gap stands on its own: nobody
 * knows what is in front of it.
 *
 * .debug_info: a unit whose only attribute is a block that takes up the rest. Its abbreviation is in an
 * atom of .debug_abbrev. .debug_aranges: gdb wants no unit to have two tables, so that there are empty
 * units for tables to refer to, in an atom of .debug_info: one for every 32 bytes of .debug_aranges, which
 * is the size of the smallest table.
 *
 * .debug_addr, .debug_str_offsets: readelf wants tables without gaps, in the order of the units that
 * they are of. They have a pool alone.
 *
 * Sources: DWARF 5, 6.1.2 (aranges), 6.2.4 (line tables), 6.4.1 (.debug_frame), 7; LSB Core 5.0, 10.6
 * (.eh_frame). */
#include "formats/elf/elf_slack.h"
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_update.h"
#include "src/incremental/slack.h"
#include "src/layout.h"

/* DWARF's numbers */
enum {
    DW_TAG_compile_unit = 0x11,
    DW_AT_const_value = 0x1c,
    DW_FORM_block4 = 0x04,
    DW_LNS_negate_stmt = 6,
    DW_LLE_default_location = 5,
    DW_OP_nop = 0x96,
};

enum {
    LENGTH = 4,     /* of the field with the length of what follows */
    UNIT_HEAD = 11, /* DWARF 4: with that field */
    /* Abbreviation codes of the units here */
    FILLER = 1,
    EMPTY = 2,
    EMPTY_UNIT = UNIT_HEAD + 1,
    LEAST_LOCLISTS = 12 + 4 + 1 + 5 + 1,
    ARANGES_GRAIN = 32,
};

static const uint8_t abbreviations[] = {
    FILLER,
    DW_TAG_compile_unit,
    0,
    DW_AT_const_value,
    DW_FORM_block4,
    0,
    0, /* no children */
    EMPTY,
    DW_TAG_compile_unit,
    0,
    0,
    0, /* nor attributes */
    0,
};

/* ---- what is in gaps ---- */

struct gap {
    const struct kld_session *ctx;
    uint64_t offset; /* in the section */
    uint8_t *out;
    uint64_t size;
};

static void put16(uint8_t *out, uint16_t v)
{
    out[0] = (uint8_t)v;
    out[1] = (uint8_t)(v >> 8);
}

/* The size as DWARF has it, of what is zero so far. */
static void begin(const struct gap *g)
{
    memset(g->out, 0, g->size);
    kld_put32(g->out, (uint32_t)(g->size - LENGTH));
}

static void fill_zero(const struct gap *g)
{
    memset(g->out, 0, g->size);
}

static void fill_code(const struct gap *g)
{
    memset(g->out, g->ctx->arch->code_fill, g->size);
}

/* A CIE that nobody refers to, of version 1 and without augmentation: factors 1 and -8, return
 * address in register 0, and DW_CFA_nop, which is 0, to the end. */
static void fill_frame(const struct gap *g, uint32_t id)
{
    begin(g);
    kld_put32(g->out + 4, id);
    g->out[8] = 1;
    g->out[10] = 1;
    g->out[11] = 0x78;
}

static void fill_eh_frame(const struct gap *g)
{
    fill_frame(g, 0);
}

static void fill_debug_frame(const struct gap *g)
{
    fill_frame(g, UINT32_MAX);
}

static void put_unit_head(const struct kld_session *ctx, uint8_t *out, uint64_t size, uint8_t code)
{
    kld_put32(out, (uint32_t)(size - LENGTH));
    put16(out + 4, 4);
    kld_put32(out + 6, (uint32_t)elf_state(ctx)->synth[ELF_FILLER_ABBREV]->addr);
    out[10] = 8;
    out[UNIT_HEAD] = code;
}

static void fill_info(const struct gap *g)
{
    begin(g);
    put_unit_head(g->ctx, g->out, g->size, FILLER);
    kld_put32(g->out + UNIT_HEAD + 1, (uint32_t)(g->size - UNIT_HEAD - 1 - 4));
}

/* Version 3, no directories and no files, and a program that does nothing. */
static void fill_line(const struct gap *g)
{
    enum { HEAD = 10, OPCODE_BASE = 10, HEADER = HEAD + 5 + OPCODE_BASE - 1 + 2 };
    static const uint8_t rest[HEADER - HEAD] = {
        1, 1, 1, 1, OPCODE_BASE, 0, 1, 1, 1, 1, 0, 0, 0, 1, /* operands of opcodes from 1 on */
    };
    begin(g);
    put16(g->out + 4, 3);
    kld_put32(g->out + 6, HEADER - HEAD);
    memcpy(g->out + HEAD, rest, sizeof(rest));
    memset(g->out + HEADER, DW_LNS_negate_stmt, g->size - HEADER);
}

/* .debug_rnglists: no offsets, and then DW_RLE_end_of_list and its like, one at least. */
static void fill_rnglists(const struct gap *g)
{
    begin(g);
    put16(g->out + 4, 5);
    g->out[6] = 8;
}

/* One list, to which one offset leads: in all other places (that are none) it is what an expression
 * that does nothing says. readelf wants lists without gaps between them. */
static void fill_loclists(const struct gap *g)
{
    uint64_t length = g->size - LEAST_LOCLISTS;
    uint8_t *at = g->out + 12;
    fill_rnglists(g);
    g->out[8] = 1;
    kld_put32(at, 4);
    at[4] = DW_LLE_default_location;
    for (unsigned i = 0; i < 5; i++)
        at[5 + i] = (uint8_t)((length >> 7 * i & 0x7f) | (i < 4 ? 0x80 : 0));
    memset(at + 10, DW_OP_nop, length);
    at[10 + length] = 0; /* DW_LLE_end_of_list */
}

static void fill_str_offsets(const struct gap *g)
{
    begin(g);
    put16(g->out + 4, 5);
}

static void fill_addr(const struct gap *g)
{
    begin(g);
    put16(g->out + 4, 5);
    g->out[6] = 8;
}

/* A table of the last byte but 15 of all, as often as fits. */
static void fill_aranges(const struct gap *g)
{
    enum { HEAD = 16, TUPLE = 16 };
    uint64_t unit = g->offset / ARANGES_GRAIN;
    begin(g);
    put16(g->out + 4, 2);
    const struct kld_atom *units = elf_state(g->ctx)->synth[ELF_FILLER_UNITS];
    kld_put32(g->out + 6, (uint32_t)(units->addr + unit * EMPTY_UNIT));
    g->out[10] = 8;
    for (uint64_t at = HEAD; at + 2 * TUPLE <= g->size; at += TUPLE) {
        kld_put64(g->out + at, UINT64_MAX - 15);
        kld_put64(g->out + at + 8, 1);
    }
}

/* ---- sections ---- */

enum needs { NOTHING, ABBREV, UNITS };

static const struct row {
    const char *name;
    bool dotted; /* as well as what begins with the name and a dot */
    bool alloc;
    enum kld_slack_kind kind;
    uint32_t least, granule;
    uint32_t pool; /* at least */
    void (*fill)(const struct gap *g);
    enum needs needs;
} rows[] = {
    {".text", true, true, KLD_SLACK_CODE, 1, 1, 64 << 10, fill_code, NOTHING},
    {".rodata", false, true, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".data", false, true, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".data.rel.ro", false, true, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".bss", false, true, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".eh_frame", false, true, KLD_SLACK_DATA, 16, 4, 4 << 10, fill_eh_frame, NOTHING},
    {".gcc_except_table", false, true, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".sdata", false, true, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".sbss", false, true, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".ldata", false, true, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".lrodata", false, true, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".lbss", false, true, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".debug_info", false, false, KLD_SLACK_DATA, UNIT_HEAD + 6, 1, 16 << 10, fill_info, ABBREV},
    {".debug_abbrev", false, false, KLD_SLACK_DATA, 1, 1, 8 << 10, fill_zero, NOTHING},
    {".debug_line", false, false, KLD_SLACK_DATA, 26, 1, 16 << 10, fill_line, NOTHING},
    {".debug_str", false, false, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".debug_line_str", false, false, KLD_SLACK_DATA, 1, 1, 4 << 10, fill_zero, NOTHING},
    {".debug_rnglists", false, false, KLD_SLACK_DATA, 13, 1, 4 << 10, fill_rnglists, NOTHING},
    {".debug_loclists", false, false, KLD_SLACK_DATA, LEAST_LOCLISTS, 1, 8 << 10, fill_loclists,
     NOTHING},
    {".debug_str_offsets", false, false, KLD_SLACK_DATA, 8, 4, 4 << 10, fill_str_offsets, NOTHING},
    {".debug_addr", false, false, KLD_SLACK_DATA, 8, 8, 4 << 10, fill_addr, NOTHING},
    {".debug_aranges", false, false, KLD_SLACK_DATA, 32, 16, 1 << 10, fill_aranges, UNITS},
    {".debug_frame", false, false, KLD_SLACK_DATA, 16, 4, 4 << 10, fill_debug_frame, NOTHING},
    {".debug_ranges", false, false, KLD_SLACK_DATA, 16, 16, 4 << 10, fill_zero, NOTHING},
    {".debug_loc", false, false, KLD_SLACK_DATA, 16, 16, 8 << 10, fill_zero, NOTHING},
    {".comment", false, false, KLD_SLACK_DATA, 1, 1, 0, fill_zero, NOTHING},
};

static bool has_name(const struct row *row, const char *name)
{
    size_t n = strlen(row->name);
    return strncmp(name, row->name, n) == 0 && (name[n] == '\0' || (row->dotted && name[n] == '.'));
}

/* What is known of a section of that name and those flags, or NULL. */
static const struct row *row_of(const struct kld_section *s)
{
    for (size_t i = 0; i < KLD_COUNT(rows); i++)
        if (rows[i].alloc == !!(s->flags & KLD_ATOM_ALLOC) && has_name(&rows[i], s->name))
            return &rows[i];
    return NULL;
}

static bool has_what_it_needs(const struct kld_session *ctx, const struct row *row)
{
    switch (row->needs) {
    case NOTHING: break;
    case ABBREV: return elf_state(ctx)->synth[ELF_FILLER_ABBREV];
    case UNITS: return elf_state(ctx)->synth[ELF_FILLER_UNITS];
    }
    return true;
}

static struct kld_slack_rule slack_rule(const struct kld_session *ctx, const struct kld_section *s)
{
    struct kld_slack_rule rule = {.kind = KLD_SLACK_NONE, .least = 1, .granule = 1};
    const struct row *row = row_of(s);
    bool is_contents = s->type == SHT_PROGBITS || s->type == SHT_NOBITS;
    if (!row || !is_contents || (s->format_flags & SHF_LINK_ORDER) || (s->flags & KLD_ATOM_TLS) ||
        !has_what_it_needs(ctx, row))
        return rule;
    if (!(s->flags & KLD_ATOM_EXEC) != (row->kind != KLD_SLACK_CODE))
        return rule; /* somebody's own use of the name */
    rule.kind = row->kind;
    rule.filler = row;
    rule.least = row->least;
    rule.granule = row->granule;
    rule.pool = row->pool;
    rule.constant = row->fill == fill_code || row->fill == fill_zero;
    rule.tight = row->fill == fill_addr || row->fill == fill_str_offsets;
    /* The terminator of .eh_frame is for those who walk it without .eh_frame_hdr. */
    rule.ends = row->fill == fill_eh_frame && s->atoms.len &&
                elf_is_eh_terminator(s->atoms.data[s->atoms.len - 1]);
    return rule;
}

static void fill(const struct kld_session *ctx, const struct kld_section *s, uint64_t offset,
                 uint8_t *out, uint64_t size)
{
    const struct gap g = {ctx, offset, out, size};
    const struct row *row = s->filler ? s->filler : slack_rule(ctx, s).filler;
    if (row && size >= row->least)
        row->fill(&g);
    else if (s->flags & KLD_ATOM_EXEC)
        fill_code(&g);
    else
        fill_zero(&g);
}

const struct kld_updater_ops elf_updater = {
    .slack_rule = slack_rule,
    .fill = fill,
    .record = elf_record,
    .record_file = elf_record_file,
    .symbol_numbers = elf_symbol_numbers,
    .interface = elf_interface,
    .relink = elf_relink,
    .hash_chunk = elf_hash_chunk,
    .seal = elf_update_seal,
    .verify = &elf_verify_ops,
};

/* ---- the atoms that gaps refer to ---- */

/* Bytes and number of the live atoms of the section. */
static uint64_t live_size(const struct kld_session *ctx, const struct kld_section *s,
                          uint32_t *count)
{
    uint64_t size = 0;
    *count = 0;
    for (uint32_t f = 0; s && f < ctx->nfiles; f++) {
        const struct kld_file *file = ctx->files[f];
        for (uint32_t i = 0; i < file->natoms; i++)
            if (file->atoms[i].section == s->id && file->atoms[i].live && file->atoms[i].size) {
                size += file->atoms[i].size;
                ++*count;
            }
    }
    return size;
}

static void write_units(struct kld_session *ctx, struct kld_worker *worker,
                        const struct kld_atom *atom, uint8_t *out)
{
    (void)worker;
    for (uint64_t at = 0; at < atom->size; at += EMPTY_UNIT)
        put_unit_head(ctx, out + at, EMPTY_UNIT, EMPTY);
}

void elf_slack_synth(struct kld_session *ctx)
{
    uint32_t count;
    struct kld_section *info = kld_section_find(ctx, ".debug_info");
    struct kld_section *aranges = kld_section_find(ctx, ".debug_aranges");
    if (!live_size(ctx, info, &count) || (info->flags & KLD_ATOM_ALLOC))
        return;
    struct kld_atom *abbrev = elf_make(ctx, ELF_FILLER_ABBREV, ".debug_abbrev", SHT_PROGBITS, 0, 0,
                                       0, sizeof(abbreviations));
    abbrev->data = abbreviations;
    abbrev->flags |= KLD_ATOM_DEBUG;
    uint64_t size = live_size(ctx, aranges, &count);
    if (!size)
        return;
    /* At most, with all gaps and the pool */
    uint64_t used = size + 64ull * count + kld_slack_spare(ctx, KLD_SLACK_DATA, size);
    uint64_t room = used + kld_slack_spare(ctx, KLD_SLACK_DATA, used) + row_of(aranges)->pool;
    uint64_t n = room / ARANGES_GRAIN + 1;
    struct kld_atom *units =
        elf_make(ctx, ELF_FILLER_UNITS, ".debug_info", SHT_PROGBITS, 0, 0, 0, n * EMPTY_UNIT);
    units->kind = KLD_ATOM_GENERATED;
    units->generate = write_units;
    units->flags |= KLD_ATOM_DEBUG;
}
