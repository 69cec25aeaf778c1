/* elf_slots.c - needs become slots: GOT and PLT entries, copy relocations.
 *
 * Needs: scan has set the KLD_SYM_NEED_* flags. Symbols get their slots in the order of their ids
 * (which depends on the inputs alone), locals after them in file order; the tables become atoms.
 * The dynamic relocations of the slots are elf_dynrel.c's. */
#include "formats/elf/elf_apply.h"
#include "formats/elf/elf_symbols.h"
#include "formats/elf/elf_tables.h"
#include "src/incremental/slack.h"
#include "src/layout.h"

enum { SPARE_GOT = 16, SPARE_PLT_GOT = 8 }; /* at least, with slack */

struct kld_atom *elf_make(struct kld_session *ctx, enum elf_synth which, const char *section,
                          uint32_t type, uint64_t flags, uint64_t entsize, uint8_t p2align,
                          uint64_t size)
{
    struct kld_section *s =
        kld_section_get(ctx, &ctx->arena, kld_str(section), type, flags, entsize);
    uint8_t atom_flags =
        (uint8_t)((flags & SHF_ALLOC ? KLD_ATOM_ALLOC : 0) |
                  (flags & SHF_WRITE ? KLD_ATOM_WRITE : 0) |
                  (flags & SHF_EXECINSTR ? KLD_ATOM_EXEC : 0) |
                  (flags & SHF_TLS ? KLD_ATOM_TLS : 0) | (type == SHT_NOBITS ? KLD_ATOM_ZERO : 0));
    struct kld_atom *atom = kld_atom_new(ctx, s, atom_flags, p2align, size);
    elf_state(ctx)->synth[which] = atom;
    return atom;
}

/* ---- giving out slots ---- */

uint32_t elf_add_aux(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    struct elf_aux *aux = kld_vec_push(&ctx->arena, &elf->aux);
    memset(aux, 0xff, sizeof(*aux)); /* every slot is ELF_NONE */
    return (uint32_t)elf->aux.len - 1;
}

struct elf_aux *elf_make_aux(struct kld_session *ctx, struct kld_symbol *sym)
{
    if (!sym->aux)
        sym->aux = elf_add_aux(ctx);
    return &elf_state(ctx)->aux.data[sym->aux];
}

static uint32_t got_entry(struct kld_session *ctx, struct kld_symbol *sym, enum elf_got_kind kind,
                          uint32_t words)
{
    struct elf_link *elf = elf_state(ctx);
    uint32_t slot = elf->got_slots;
    elf->got_slots += words;
    *kld_vec_push(&ctx->arena, &elf->got) = (struct elf_got_entry){sym, slot, kind};
    return slot;
}

static bool is_local_ifunc(const struct kld_symbol *sym)
{
    return sym->type == KLD_TYPE_IFUNC && !elf_is_dynamic_symbol(sym);
}

static void give_plt(struct kld_session *ctx, struct kld_symbol *sym, struct elf_aux *aux)
{
    struct elf_link *elf = elf_state(ctx);
    if (is_local_ifunc(sym)) {
        aux->iplt = (uint32_t)elf->iplt.len;
        *kld_vec_push(&ctx->arena, &elf->iplt) = sym;
    } else if (!elf_is_dynamic_symbol(sym)) {
        return; /* a branch goes to the symbol itself */
    } else if (aux->got != ELF_NONE && !kld_symbol_has(sym, KLD_SYM_NEED_CANONICAL_PLT)) {
        /* The GOT slot is bound at start anyway: jump through it. */
        aux->plt_got = (uint32_t)elf->plt_got.len;
        *kld_vec_push(&ctx->arena, &elf->plt_got) = sym;
    } else {
        aux->plt = (uint32_t)elf->plt.len;
        *kld_vec_push(&ctx->arena, &elf->plt) = sym;
    }
}

static void give_slots(struct kld_session *ctx, struct kld_symbol *sym)
{
    uint16_t flags = atomic_load_explicit(&sym->flags, memory_order_relaxed);
    struct elf_aux *aux = elf_make_aux(ctx, sym);
    if (flags & KLD_SYM_NEED_GOT)
        aux->got = got_entry(ctx, sym, ELF_GOT_ADDRESS, 1);
    if (flags & KLD_SYM_NEED_GOTTP)
        aux->gottp = got_entry(ctx, sym, ELF_GOT_TPOFF, 1);
    if (flags & KLD_SYM_NEED_TLSGD)
        aux->tlsgd = got_entry(ctx, sym, ELF_GOT_TLSGD, 2);
    if (flags & KLD_SYM_NEED_TLSDESC)
        aux->tlsdesc = got_entry(ctx, sym, ELF_GOT_TLSDESC, 2);
    if ((flags & (KLD_SYM_NEED_PLT | KLD_SYM_NEED_CANONICAL_PLT)) ||
        ((flags & KLD_SYM_NEED_GOT) && is_local_ifunc(sym) && (flags & KLD_SYM_NEED_CANONICAL_PLT)))
        give_plt(ctx, sym, aux);
}

/* ---- copy relocations ---- */

/* Whether the library has the symbol in memory that is read-only once relocated. */
static bool is_readonly_in(const struct elf_shared *lib, uint64_t address)
{
    const elf_ehdr *eh = lib->obj.ehdr;
    if (eh->e_phentsize != sizeof(Elf64_Phdr) ||
        !kld_in_bounds(eh->e_phoff, (uint64_t)eh->e_phnum * sizeof(Elf64_Phdr),
                       lib->obj.base.bytes.len))
        return false;
    for (uint32_t i = 0; i < eh->e_phnum; i++) {
        Elf64_Phdr ph;
        memcpy(&ph, lib->obj.base.bytes.ptr + eh->e_phoff + i * sizeof(ph), sizeof(ph));
        if ((ph.p_type == PT_GNU_RELRO || (ph.p_type == PT_LOAD && !(ph.p_flags & PF_W))) &&
            address >= ph.p_vaddr && address - ph.p_vaddr < ph.p_memsz)
            return true;
    }
    return false;
}

/* The strictest alignment that the symbol's address and section allow to conclude. */
static uint8_t copy_alignment(const struct elf_shared *lib, const struct kld_symbol *sym)
{
    uint32_t shndx = lib->obj.syms[sym->index].st_shndx;
    uint64_t align = shndx < lib->obj.nshdrs ? lib->obj.shdrs[shndx].sh_addralign : 16;
    unsigned p2 = kld_is_pow2(align) ? kld_log2(align) : 0;
    if (sym->value)
        p2 = KLD_MIN(p2, (unsigned)__builtin_ctzll(sym->value));
    return (uint8_t)KLD_MIN(p2, 12u);
}

static void copy_alias(struct kld_session *ctx, struct kld_symbol *sym, struct kld_atom *atom)
{
    sym->kind = KLD_SYM_DEFINED;
    sym->atom = atom;
    sym->value = 0;
    sym->exported = true;
    sym->imported = false;
    sym->preemptible = false;
    kld_symbol_flag(sym, KLD_SYM_NEED_DYNSYM);
    elf_make_aux(ctx, sym);
}

/* The variable moves into this program's .bss; every name that the library has for it moves
 * along, so that the library and the program see one object under all of them. */
static void give_copy(struct kld_session *ctx, struct kld_symbol *sym)
{
    struct elf_shared *lib = elf_shared(sym->file);
    uint64_t address = sym->value;
    bool relro = ctx->options.z_relro && is_readonly_in(lib, address);
    struct kld_section *section =
        kld_section_get(ctx, &ctx->arena, relro ? KLD_STR(".bss.rel.ro") : KLD_STR(".bss"),
                        SHT_NOBITS, SHF_ALLOC | SHF_WRITE, 0);
    struct kld_atom *atom =
        kld_atom_new(ctx, section, KLD_ATOM_ALLOC | KLD_ATOM_WRITE | KLD_ATOM_ZERO,
                     copy_alignment(lib, sym), sym->size);
    for (uint32_t k = 0; k < lib->obj.base.nnames; k++) {
        const elf_sym *from = &lib->obj.syms[lib->numbers[k]];
        if (from->st_value != address || from->st_shndx == SHN_UNDEF)
            continue;
        struct kld_symbol *alias = &ctx->symbols[lib->obj.base.ids[k]];
        if (alias != sym && alias->file == &lib->obj.base && alias->kind == KLD_SYM_IMPORTED &&
            alias->type != KLD_TYPE_TLS)
            copy_alias(ctx, alias, atom);
    }
    copy_alias(ctx, sym, atom);
    *kld_vec_push(&ctx->arena, &elf_state(ctx)->copies) = sym;
}

/* ---- the tables ---- */

uint64_t elf_got_address(const struct kld_session *ctx, uint32_t slot)
{
    return elf_state(ctx)->got_addr + 8ull * slot;
}

/* Where a call lands: .plt, or .plt.sec where that is split. */
uint64_t elf_plt_address(const struct kld_session *ctx, const struct kld_symbol *sym)
{
    const struct elf_link *elf = elf_state(ctx);
    const struct elf_aux *aux = elf_aux(ctx, sym);
    if (aux->plt_got != ELF_NONE)
        return elf->plt_got_addr + (uint64_t)aux->plt_got * elf->plt_got_size;
    uint32_t n = aux->plt != ELF_NONE ? aux->plt : (uint32_t)elf->plt.len + aux->iplt;
    if (elf->synth[ELF_PLT_SEC])
        return elf->plt_sec_addr + (uint64_t)n * elf->arch->plt_entry_size_ibt;
    return elf->plt_addr + elf->plt_header + (uint64_t)n * elf->arch->plt_entry_size;
}

/* Address of entry n in .plt itself. */
static uint64_t lazy_entry(const struct elf_link *elf, uint32_t n)
{
    return elf->plt_addr + elf->plt_header + (uint64_t)n * elf->arch->plt_entry_size;
}

static uint64_t got_plt_slot(const struct elf_link *elf, uint32_t n)
{
    return elf->got_plt_addr + 8ull * (elf->got_plt_reserved + n);
}

static void write_plt(struct kld_session *ctx, struct kld_worker *w, const struct kld_atom *atom,
                      uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_link *elf = elf_state(ctx);
    if (elf->plt_header)
        elf->arch->write_plt_header(ctx, out);
    out += elf->plt_header;
    for (uint32_t n = 0; n < elf->plt.len + elf->iplt.len; n++)
        elf->arch->write_plt_entry(ctx, out + (size_t)n * elf->arch->plt_entry_size,
                                   lazy_entry(elf, n), got_plt_slot(elf, n), n);
}

static void write_plt_sec(struct kld_session *ctx, struct kld_worker *w,
                          const struct kld_atom *atom, uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_link *elf = elf_state(ctx);
    uint32_t size = elf->arch->plt_entry_size_ibt;
    for (uint32_t n = 0; n < elf->plt.len + elf->iplt.len; n++)
        elf->arch->write_plt_sec_entry(ctx, out + (size_t)n * size,
                                       elf->plt_sec_addr + (uint64_t)n * size,
                                       got_plt_slot(elf, n));
}

static void write_plt_got(struct kld_session *ctx, struct kld_worker *w,
                          const struct kld_atom *atom, uint8_t *out)
{
    (void)w;
    const struct elf_link *elf = elf_state(ctx);
    uint32_t size = elf->plt_got_size;
    for (uint32_t n = 0; n < elf->plt_got.len; n++)
        elf->arch->write_plt_got_entry(
            ctx, out + (size_t)n * size, elf->plt_got_addr + (uint64_t)n * size,
            elf_got_address(ctx, elf_aux(ctx, elf->plt_got.data[n])->got));
    size_t used = elf->plt_got.len * size;
    memset(out + used, ctx->arch->code_fill, atom->size - used);
}

static void write_got_plt(struct kld_session *ctx, struct kld_worker *w,
                          const struct kld_atom *atom, uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_link *elf = elf_state(ctx);
    if (elf->got_plt_reserved && elf->synth[ELF_DYNAMIC])
        kld_put64(out, elf->synth[ELF_DYNAMIC]->addr);
    out += 8ull * elf->got_plt_reserved;
    for (uint32_t n = 0; n < elf->plt.len; n++)
        kld_put64(out + 8ull * n, elf->arch->lazy_target
                                      ? elf->arch->lazy_target(ctx, lazy_entry(elf, n))
                                      : elf->plt_addr);
}

/* The value of a slot that needs no dynamic relocation, or that of a RELATIVE one. */
void elf_write_got_entry(struct kld_session *ctx, const struct elf_got_entry *e, uint8_t *out)
{
    const struct elf_link *elf = elf_state(ctx);
    if (e->kind == ELF_GOT_TLSLD) {
        if (!elf->is_shared)
            kld_put64(out, 1);
        return;
    }
    if (elf_is_dynamic_symbol(e->sym))
        return;
    uint64_t address = elf_symbol_address(ctx, e->sym);
    bool undefined = e->sym->kind == KLD_SYM_UNDEFINED;
    switch (e->kind) {
    case ELF_GOT_ADDRESS:
        if (e->sym->type != KLD_TYPE_IFUNC || kld_symbol_has(e->sym, KLD_SYM_NEED_CANONICAL_PLT))
            kld_put64(out, address);
        break;
    case ELF_GOT_TPOFF:
        if (!elf->is_shared && !undefined)
            kld_put64(out, (uint64_t)elf->arch->tp_offset(ctx, address));
        break;
    case ELF_GOT_TLSGD:
        if (!elf->is_shared)
            kld_put64(out, 1);
        kld_put64(out + 8, elf_dtp_offset(elf, address));
        break;
    case ELF_GOT_TLSDESC:
    case ELF_GOT_TLSLD: break;
    }
}

static void write_got(struct kld_session *ctx, struct kld_worker *w, const struct kld_atom *atom,
                      uint8_t *out)
{
    (void)w, (void)atom;
    const struct elf_link *elf = elf_state(ctx);
    if (elf->arch->got_reserved && elf->synth[ELF_DYNAMIC])
        kld_put64(out, elf->synth[ELF_DYNAMIC]->addr);
    for (size_t i = 0; i < elf->got.len; i++)
        elf_write_got_entry(ctx, &elf->got.data[i], out + 8ull * elf->got.data[i].slot);
}

static void make_generated(struct kld_session *ctx, enum elf_synth which, const char *name,
                           uint64_t flags, uint64_t entsize, uint8_t p2align, uint64_t size,
                           void (*generate)(struct kld_session *, struct kld_worker *,
                                            const struct kld_atom *, uint8_t *))
{
    struct kld_atom *atom = elf_make(ctx, which, name, SHT_PROGBITS, flags, entsize, p2align, size);
    atom->kind = KLD_ATOM_GENERATED;
    atom->generate = generate;
}

/* With slack some entries are spare. What there is not, for other reasons than that nobody needs it
 * yet, stays away. */
static void set_capacities(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    elf->got_capacity = elf->got_slots;
    elf->plt_got_capacity = (uint32_t)elf->plt_got.len;
    if (!ctx->slack)
        return;
    elf->got_capacity += SPARE_GOT + (uint32_t)kld_slack_spare(ctx, KLD_SLACK_DATA, elf->got_slots);
    if (elf->is_dynamic)
        elf->plt_got_capacity +=
            SPARE_PLT_GOT + (uint32_t)kld_slack_spare(ctx, KLD_SLACK_CODE, elf->plt_got.len);
}

static void make_tables(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    size_t nplt = elf->plt.len + elf->iplt.len;
    bool split = ctx->options.z_ibtplt && elf->arch->plt_entry_size_ibt;
    bool needs_base = elf->got_symbol || atomic_load(&elf->needs_got_base);
    elf->plt_got_size = split ? elf->arch->plt_got_entry_size_ibt : elf->arch->plt_got_entry_size;
    elf->plt_header = elf->plt.len ? elf->arch->plt_header_size : 0;
    elf->got_plt_reserved = elf->is_dynamic ? elf->arch->got_plt_reserved : 0;
    bool even = elf->arch->plt_header_size % elf->arch->plt_entry_size == 0;
    if (nplt)
        make_generated(ctx, ELF_PLT, ".plt", SHF_ALLOC | SHF_EXECINSTR,
                       even ? elf->arch->plt_entry_size : 0, 4,
                       elf->plt_header + nplt * elf->arch->plt_entry_size, write_plt);
    set_capacities(ctx);
    if (elf->plt_got_capacity)
        make_generated(ctx, ELF_PLT_GOT, ".plt.got", SHF_ALLOC | SHF_EXECINSTR, elf->plt_got_size,
                       3, (uint64_t)elf->plt_got_capacity * elf->plt_got_size, write_plt_got);
    if (nplt && split)
        make_generated(ctx, ELF_PLT_SEC, ".plt.sec", SHF_ALLOC | SHF_EXECINSTR, 16, 4,
                       nplt * elf->arch->plt_entry_size_ibt, write_plt_sec);
    if (elf->got_slots > elf->arch->got_reserved || elf->plt_got_capacity ||
        (elf->arch->got_reserved && needs_base))
        make_generated(ctx, ELF_GOT, ".got", SHF_ALLOC | SHF_WRITE, 8, 3, 8ull * elf->got_capacity,
                       write_got);
    if (nplt || (needs_base && !elf->arch->got_reserved))
        make_generated(ctx, ELF_GOT_PLT, ".got.plt", SHF_ALLOC | SHF_WRITE, 8, 3,
                       8ull * KLD_MAX(elf->got_plt_reserved + nplt, (size_t)1), write_got_plt);
}

static bool needs_something(const void *arg, const struct kld_symbol *sym)
{
    (void)arg;
    return kld_symbol_has(sym, KLD_SYM_NEEDS);
}

void elf_slots_synth(struct kld_session *ctx)
{
    struct elf_link *elf = elf_state(ctx);
    elf->tlsld = ELF_NONE;
    elf->got_slots = elf->arch->got_reserved;
    if (atomic_load(&elf->needs_tlsld))
        elf->tlsld = got_entry(ctx, NULL, ELF_GOT_TLSLD, 2);
    elf_symid_list needs = elf_symbols_where(ctx, needs_something, NULL);
    for (size_t i = 0; i < needs.len; i++) {
        struct kld_symbol *sym = &ctx->symbols[needs.data[i]];
        if (kld_symbol_has(sym, KLD_SYM_NEED_COPY) && sym->kind == KLD_SYM_IMPORTED)
            give_copy(ctx, sym);
        give_slots(ctx, sym);
    }
    for (uint32_t f = 0; f < ctx->nfiles; f++) {
        struct elf_object *obj = elf_object(ctx->files[f]);
        if (obj->base.kind == KLD_FILE_OBJECT)
            for (uint32_t i = 0; i < obj->nlocals; i++)
                if (kld_symbol_has(obj->locals[i], KLD_SYM_NEEDS))
                    give_slots(ctx, obj->locals[i]);
    }
    make_tables(ctx);
}
