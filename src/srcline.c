#include "src/srcline.h"
#include "src/session.h"

/* DWARF 5, sections 6.2.4 and 7.5.6 */
enum {
    LNCT_PATH = 1,
    LNCT_DIRECTORY = 2,
    FORM_DATA2 = 0x05,
    FORM_DATA4 = 0x06,
    FORM_DATA8 = 0x07,
    FORM_STRING = 0x08,
    FORM_BLOCK = 0x09,
    FORM_DATA1 = 0x0b,
    FORM_STRP = 0x0e,
    FORM_UDATA = 0x0f,
    FORM_DATA16 = 0x1e,
    FORM_LINE_STRP = 0x1f,
    LNS_COPY = 1,
    LNS_ADVANCE_PC = 2,
    LNS_ADVANCE_LINE = 3,
    LNS_SET_FILE = 4,
    LNS_CONST_ADD_PC = 8,
    LNS_FIXED_ADVANCE_PC = 9,
    LNE_END_SEQUENCE = 1,
    LNE_SET_ADDRESS = 2,
};

struct reader {
    struct kld_bytes bytes;
    size_t pos;
    bool bad; /* it ran over the end: all that is read is zero */
};

/* One unit of the table. */
struct unit {
    struct kld_session *ctx;
    struct kld_arena *arena;
    const struct kld_atom *table;
    const struct kld_edge *edges; /* of the table, sorted by offset */
    size_t nedges;
    unsigned version, offset_size, address_size;
    size_t end, program;
    uint8_t min_length, line_range, opcode_base;
    int8_t line_base;
    uint8_t lengths[256]; /* of standard opcodes */
    size_t lists;         /* where directories and files are */
};

struct row {
    const struct kld_atom *atom;
    uint64_t address;
    uint64_t file;
    uint32_t line;
};

/* ---- reading ---- */

static uint64_t read_number(struct reader *r, unsigned size)
{
    struct kld_bytes part;
    if (r->bad || !kld_bytes_part(r->bytes, r->pos, size, &part)) {
        r->bad = true;
        return 0;
    }
    r->pos += size;
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)part.ptr[i] << 8 * i;
    return value;
}

static uint64_t read_uleb(struct reader *r)
{
    uint64_t value = 0;
    if (r->bad || !kld_uleb(r->bytes, &r->pos, &value))
        r->bad = true;
    return r->bad ? 0 : value;
}

static int64_t read_sleb(struct reader *r)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint64_t byte = read_number(r, 1);
        value |= (byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            if (byte & 0x40 && shift + 7 < 64)
                value |= UINT64_MAX << (shift + 7);
            return (int64_t)value;
        }
    }
    r->bad = true;
    return 0;
}

static void skip(struct reader *r, uint64_t size)
{
    if (r->bad || !kld_in_bounds(r->pos, size, r->bytes.len))
        r->bad = true;
    else
        r->pos += size;
}

static struct kld_str read_string(struct reader *r)
{
    struct kld_str text = {0};
    if (r->bad || !kld_bytes_string(r->bytes, r->pos, &text))
        r->bad = true;
    else
        r->pos += text.len + 1;
    return text;
}

/* ---- edges of the table ---- */

/* The edge of the field at that offset, or NULL. */
static const struct kld_edge *edge_at(const struct unit *u, uint64_t offset)
{
    size_t lo = 0, hi = u->nedges;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (u->edges[mid].offset < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < u->nedges && u->edges[lo].offset == offset ? &u->edges[lo] : NULL;
}

/* False if they are not sorted, as all compilers have them. */
static bool decode_edges(struct kld_session *ctx, struct kld_arena *arena, struct unit *u)
{
    struct kld_edge *edges = KLD_NEW_ARRAY(arena, struct kld_edge, u->table->nedges);
    size_t from = 0, n;
    while (u->nedges < u->table->nedges &&
           (n = ctx->format->edges(ctx, u->table, &from, edges + u->nedges,
                                   u->table->nedges - u->nedges, NULL)) > 0)
        u->nedges += n;
    u->edges = edges;
    for (size_t i = 1; i < u->nedges; i++)
        if (edges[i - 1].offset > edges[i].offset)
            return false;
    return true;
}

/* ---- strings ---- */

static const struct kld_atom *find_atom(struct kld_session *ctx, const struct kld_file *file,
                                        const char *name)
{
    for (uint32_t i = 0; i < file->natoms; i++) {
        const struct kld_atom *atom = &file->atoms[i];
        if ((atom->flags & KLD_ATOM_ALLOC) || !atom->data)
            continue;
        if (kld_str_ends(ctx->format->atom_name(atom), name))
            return atom;
    }
    return NULL;
}

/* A string in another section: the field leads there by an edge. */
static struct kld_str read_far_string(const struct unit *u, struct reader *r, const char *section)
{
    const struct kld_edge *e = edge_at(u, r->pos);
    uint64_t offset = read_number(r, u->offset_size);
    const struct kld_atom *atom = e ? e->atom : find_atom(u->ctx, u->table->file, section);
    if (e)
        offset = e->value + (uint64_t)e->addend;
    struct kld_str text = {0};
    if (atom && atom->data)
        kld_bytes_string((struct kld_bytes){atom->data, atom->size}, offset, &text);
    return text;
}

/* ---- directories and files ---- */

/* An entry of a list of version 5, described by `formats`: path and directory number. */
static struct kld_str read_entry(const struct unit *u, struct reader *r, struct reader formats,
                                 unsigned nformats, uint64_t *directory)
{
    struct kld_str path = {0};
    for (unsigned i = 0; i < nformats; i++) {
        uint64_t content = read_uleb(&formats), form = read_uleb(&formats), number = 0;
        struct kld_str text = {0};
        switch (form) {
        case FORM_STRING: text = read_string(r); break;
        case FORM_LINE_STRP: text = read_far_string(u, r, "debug_line_str"); break;
        case FORM_STRP: text = read_far_string(u, r, "debug_str"); break;
        case FORM_DATA1: number = read_number(r, 1); break;
        case FORM_DATA2: number = read_number(r, 2); break;
        case FORM_DATA4: number = read_number(r, 4); break;
        case FORM_DATA8: number = read_number(r, 8); break;
        case FORM_DATA16: skip(r, 16); break;
        case FORM_UDATA: number = read_uleb(r); break;
        case FORM_BLOCK: skip(r, read_uleb(r)); break;
        default: r->bad = true; break;
        }
        if (content == LNCT_PATH)
            path = text;
        else if (content == LNCT_DIRECTORY)
            *directory = number;
    }
    return path;
}

/* Entry `wanted` of the list at r, which is left behind its end. */
static struct kld_str read_list(const struct unit *u, struct reader *r, uint64_t wanted,
                                uint64_t *directory)
{
    unsigned nformats = (unsigned)read_number(r, 1);
    struct reader formats = *r;
    for (unsigned i = 0; i < 2 * nformats; i++)
        read_uleb(r);
    uint64_t count = read_uleb(r);
    struct kld_str found = {0};
    for (uint64_t i = 0; i < count && nformats && !r->bad; i++) {
        uint64_t dir = 0;
        struct kld_str path = read_entry(u, r, formats, nformats, &dir);
        if (i == wanted) {
            found = path;
            *directory = dir;
        }
    }
    return found;
}

/* Up to version 4: strings, the last one empty; files have three numbers each. */
static struct kld_str read_old_list(struct reader *r, bool files, uint64_t wanted,
                                    uint64_t *directory)
{
    struct kld_str found = {0};
    for (uint64_t i = 1;; i++) {
        struct kld_str path = read_string(r);
        if (!path.len)
            return found;
        uint64_t dir = files ? read_uleb(r) : 0;
        for (int k = 0; files && k < 2; k++)
            read_uleb(r);
        if (i == wanted) {
            found = path;
            *directory = dir;
        }
    }
}

static const char *file_name(const struct unit *u, struct reader r, uint64_t number)
{
    uint64_t dir = 0, none;
    bool old = u->version < 5;
    struct reader dirs = r;
    r.pos = dirs.pos = u->lists;
    if (old)
        read_old_list(&r, false, 0, &none);
    else
        read_list(u, &r, UINT64_MAX, &none);
    struct kld_str name =
        old ? read_old_list(&r, true, number, &dir) : read_list(u, &r, number, &dir);
    if (!name.len || r.bad)
        return NULL;
    /* Directory 0 is where the compiler ran. */
    struct kld_str in = {0};
    if (dir && name.ptr[0] != '/')
        in = old ? read_old_list(&dirs, false, dir, &none) : read_list(u, &dirs, dir, &none);
    return kld_arena_printf(u->arena, "%.*s%s%.*s", KLD_FMT(in), in.len ? "/" : "", KLD_FMT(name));
}

/* ---- the line program ---- */

/* Reads the header of the unit at r->pos; afterwards u->end is where the next one begins. */
static bool read_header(struct unit *u, struct reader *r)
{
    uint64_t length = read_number(r, 4);
    u->offset_size = length == UINT32_MAX ? 8 : 4;
    if (u->offset_size == 8)
        length = read_number(r, 8);
    if (r->bad || !kld_in_bounds(r->pos, length, r->bytes.len))
        return false;
    u->end = r->pos + length;
    u->version = (unsigned)read_number(r, 2);
    if (u->version < 2 || u->version > 5)
        return false;
    u->address_size = 8;
    if (u->version == 5) {
        u->address_size = (unsigned)read_number(r, 1);
        skip(r, 1);
    }
    uint64_t header = read_number(r, u->offset_size);
    if (r->bad || !kld_in_bounds(r->pos, header, u->end))
        return false;
    u->program = r->pos + header;
    u->min_length = (uint8_t)read_number(r, 1);
    skip(r, u->version >= 4 ? 2 : 1); /* operations an instruction; is_stmt */
    u->line_base = (int8_t)read_number(r, 1);
    u->line_range = (uint8_t)read_number(r, 1);
    u->opcode_base = (uint8_t)read_number(r, 1);
    for (unsigned i = 1; i < u->opcode_base; i++)
        u->lengths[i] = (uint8_t)read_number(r, 1);
    u->lists = r->pos;
    return !r->bad && u->line_range;
}

static void extended(const struct unit *u, struct reader *r, struct row *row, bool *end)
{
    uint64_t length = read_uleb(r);
    size_t next = r->pos;
    if (!kld_in_bounds(r->pos, length, u->end)) {
        r->bad = true;
        return;
    }
    next += length;
    uint64_t opcode = length ? read_number(r, 1) : 0;
    if (opcode == LNE_END_SEQUENCE) {
        *end = true;
    } else if (opcode == LNE_SET_ADDRESS) {
        const struct kld_edge *e = edge_at(u, r->pos);
        row->atom = e ? e->atom : NULL;
        row->address = e ? e->value + (uint64_t)e->addend : 0;
    }
    r->pos = next;
}

/* Where the linker may shorten code the operand is not a number yet, but the difference of the two
 * places that its edges lead to. */
static uint64_t fixed_advance(const struct unit *u, struct reader *r)
{
    const struct kld_edge *e = edge_at(u, r->pos);
    uint64_t number = read_number(r, 2);
    if (!e || e + 1 == u->edges + u->nedges || e[1].offset != e->offset)
        return number;
    return e->value + (uint64_t)e->addend - e[1].value - (uint64_t)e[1].addend;
}

static void standard(const struct unit *u, struct reader *r, struct row *row, unsigned opcode)
{
    switch (opcode) {
    case LNS_ADVANCE_PC: row->address += read_uleb(r) * u->min_length; break;
    case LNS_ADVANCE_LINE: row->line += (uint32_t)read_sleb(r); break;
    case LNS_SET_FILE: row->file = read_uleb(r); break;
    case LNS_CONST_ADD_PC:
        row->address += (uint64_t)((255 - u->opcode_base) / u->line_range) * u->min_length;
        break;
    case LNS_FIXED_ADVANCE_PC: row->address += fixed_advance(u, r); break;
    default:
        for (unsigned i = 0; i < u->lengths[opcode]; i++)
            read_uleb(r);
        break;
    }
}

/* Runs the program until a row covers the place: the one before the first that is behind it. */
static bool find_row(const struct unit *u, struct reader *r, const struct kld_atom *atom,
                     uint64_t offset, struct row *found)
{
    const struct row start = {.file = 1, .line = 1};
    struct row row = start, last = {0};
    r->pos = u->program;
    while (r->pos < u->end && !r->bad) {
        unsigned opcode = (unsigned)read_number(r, 1);
        bool end = false, emit = opcode == LNS_COPY || opcode >= u->opcode_base;
        if (opcode >= u->opcode_base) {
            unsigned adjusted = opcode - u->opcode_base;
            row.address += (uint64_t)(adjusted / u->line_range) * u->min_length;
            row.line += (uint32_t)(u->line_base + (int)(adjusted % u->line_range));
        } else if (opcode == 0) {
            extended(u, r, &row, &end);
        } else if (opcode != LNS_COPY) {
            standard(u, r, &row, opcode);
        }
        if (!emit && !end)
            continue;
        if (last.atom == atom && last.address <= offset && offset < row.address) {
            *found = last;
            return true;
        }
        last = end ? (struct row){0} : row;
        if (end)
            row = start;
    }
    return false;
}

bool kld_source_line(struct kld_session *ctx, struct kld_arena *arena, const struct kld_atom *atom,
                     uint64_t offset, const char **source, uint32_t *line)
{
    struct unit u = {.ctx = ctx, .arena = arena};
    u.table = find_atom(ctx, atom->file, "debug_line");
    if (!u.table || u.table->kind != KLD_ATOM_BYTES || !decode_edges(ctx, arena, &u))
        return false;
    struct reader r = {.bytes = {u.table->data, u.table->size}};
    while (r.pos < r.bytes.len && read_header(&u, &r)) {
        struct row row;
        struct reader program = r;
        if (find_row(&u, &program, atom, offset, &row)) {
            program.bad = false;
            *source = file_name(&u, program, row.file);
            *line = row.line;
            return *source;
        }
        r.pos = u.end;
    }
    return false;
}
