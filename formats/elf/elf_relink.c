/* elf_relink.c - the gate for ELF: what a changed file may differ in, and which files refer to what
 * has moved by it.
 *
 * A patch is right if resolution would come out the same. That is so if each changed file defines
 * the same names in the same way, if what it newly refers to is there already, and if what it does
 * not refer to any more is not what brought some other file into the link. Members of archives are
 * in the link because of a name each (kld_file.puller): while the files and references that these
 * name stay, all of them stay, and none joins that only defines what is defined. */
#include "formats/elf/elf_eh.h"
#include "formats/elf/elf_update.h"
#include "src/merge.h"

/* ---- symbols ---- */

kld_symid elf_relink_symbol(struct elf_relink *e, uint32_t number, struct kld_str name)
{
    uint32_t before = e->ctx->nsymbols;
    kld_symid id = kld_relink_symbol(e->r, number, name);
    if (id < before)
        return id;
    struct kld_symbol *sym = &e->ctx->symbols[id];
    if (!sym->aux)
        return id;
    const struct elf_aux *from = kld_state_get(&e->r->st, KLD_T_AUX, sym->aux, 1);
    uint32_t n = elf_add_aux(e->ctx);
    e->elf->aux.data[n] = *from;
    *kld_vec_push(&e->ctx->arena, &e->aux_numbers) = sym->aux;
    sym->aux = n;
    return id;
}

static bool defines(unsigned class)
{
    class = KLD_NAME_CLASS(class);
    return class == KLD_NAME_DEF || class == KLD_NAME_DEF_WEAK || class == KLD_NAME_COMMON;
}

#define REFUSE(reason, name, ...)                                                                  \
    kld_relink_refuse(e->r, KLD_WHY_##reason, __VA_ARGS__, KLD_FMT(name))

/* A name that nothing in the program has. */
static bool refuse_unknown(struct elf_relink *e, const struct kld_file *file, uint32_t i)
{
    struct kld_str name = elf_name_at(file, i);
    if (file->classes[i] == KLD_NAME_GROUP)
        return REFUSE(COMDAT, name, "%s has a new group %.*s", file->path);
    if (defines(file->classes[i]))
        return REFUSE(NEW_GLOBAL, name, "%s defines %.*s", file->path);
    return REFUSE(UNDEFINED, name, "%s refers to %.*s, which is not in the program", file->path);
}

static bool number_names(struct elf_relink *e, struct kld_relink_file *rf)
{
    struct kld_file *file = rf->file;
    if (e->ctx->options.wrap.len)
        return kld_relink_refuse(e->r, KLD_WHY_UNSUPPORTED, "--wrap");
    for (uint32_t i = 0; i < file->nnames; i++) {
        struct kld_str name = elf_name_at(file, i);
        uint32_t number = kld_state_find(&e->r->st, name);
        if (number == KLD_STATE_NONE)
            return refuse_unknown(e, file, i);
        file->ids[i] = elf_relink_symbol(e, number, name);
    }
    return true;
}

/* ---- groups ---- */

/* The file's group of that name: kept if it was; a new one only if an earlier file has it. */
static bool decide_group(struct elf_relink *e, struct kld_relink_file *rf, struct kld_group *g)
{
    kld_symid id = rf->file->ids[g->name];
    uint8_t old = e->old_classes[id];
    if (old & KLD_RECORD_GROUP) {
        g->discarded = old & KLD_RECORD_DISCARDED;
        return true;
    }
    const struct kld_state_symbol *known = kld_relink_known(e->r, id);
    g->discarded = true;
    if (known->kind == KLD_SYM_DEFINED && known->file < rf->number &&
        (known->bits & (KLD_STATE_SYM_WEAK | KLD_STATE_SYM_UNIQUE)) && !(old & 7))
        return true;
    return REFUSE(COMDAT, kld_symbol_name(&e->ctx->symbols[id]), "%s has a new group %.*s",
                  rf->file->path);
}

static bool decide_groups(struct elf_relink *e, struct kld_relink_file *rf)
{
    struct kld_file *file = rf->file;
    for (uint32_t g = 0; g < file->ngroups; g++) {
        if (!decide_group(e, rf, &file->groups[g]))
            return false;
        e->new_classes[file->ids[file->groups[g].name]] |= KLD_RECORD_GROUP;
    }
    for (uint32_t i = 0; i < rf->old.head.nnames; i++) {
        kld_symid id = e->r->ids[rf->old.symbols[i]] - 1;
        bool kept =
            (rf->old.classes[i] & (KLD_RECORD_GROUP | KLD_RECORD_DISCARDED)) == KLD_RECORD_GROUP;
        if (kept && !(e->new_classes[id] & KLD_RECORD_GROUP))
            return kld_relink_refuse(e->r, KLD_WHY_COMDAT, "%s does not have a group any more",
                                     file->path);
    }
    return true;
}

/* ---- names ---- */

static bool has_other_user(struct elf_relink *e, uint32_t number, uint32_t except)
{
    uint64_t n = kld_state_count(&e->r->st, KLD_T_FILES), total = 0;
    for (uint32_t f = 0; f < n && !e->r->st.damaged; f++) {
        struct kld_file_record record;
        if (f == except)
            continue;
        kld_record_get_next(&e->r->st, f, &record, &total);
        for (uint32_t i = 0; i < record.head.nglobals; i++)
            if (record.symbols[i] == number && KLD_NAME_CLASS(record.classes[i]) == KLD_NAME_UNDEF)
                return true;
    }
    return false;
}

/* The file does not refer to the name any more. */
static bool check_removed(struct elf_relink *e, const struct kld_relink_file *rf, kld_symid id)
{
    const struct kld_state_symbol *known = kld_relink_known(e->r, id);
    struct kld_str name = kld_symbol_name(&e->ctx->symbols[id]);
    uint32_t number = e->r->numbers[id];
    if (known->kind != KLD_SYM_DEFINED && known->kind != KLD_SYM_ABSOLUTE) {
        if (!has_other_user(e, number, rf->number))
            return REFUSE(UNDEFINED, name, "%s was the last to refer to %.*s", rf->file->path);
        return true;
    }
    if (known->file == KLD_STATE_NONE)
        return true;
    const struct kld_state_file *file = kld_state_get(&e->r->st, KLD_T_FILES, known->file, 1);
    if ((file->flags & KLD_STATE_FILE_LAZY) && file->puller == number)
        return REFUSE(UNDEFINED, name, "%s does not refer to %.*s any more", rf->file->path);
    return true;
}

/* The file refers to the name, which it did not. */
static bool check_added(struct elf_relink *e, const struct kld_relink_file *rf, kld_symid id,
                        uint8_t class)
{
    const struct kld_state_symbol *known = kld_relink_known(e->r, id);
    struct kld_str name = kld_symbol_name(&e->ctx->symbols[id]);
    bool weak = KLD_NAME_CLASS(class) == KLD_NAME_UNDEF_WEAK;
    bool there = known->kind == KLD_SYM_DEFINED || known->kind == KLD_SYM_ABSOLUTE ||
                 (known->kind == KLD_SYM_IMPORTED && (known->bits & KLD_STATE_SYM_IMPORTED) &&
                  (weak || (known->needs & KLD_SYM_REF_STRONG)));
    if ((known->bits & KLD_STATE_SYM_DEAD) || !(known->needs & KLD_SYM_REF_REGULAR) || !there)
        return REFUSE(UNDEFINED, name, "%s refers to %.*s", rf->file->path);
    return true;
}

static bool same_visibility(struct elf_relink *e, kld_symid id, uint8_t old, uint8_t new)
{
    unsigned vis = KLD_NAME_VISIBILITY(new);
    if (KLD_NAME_CLASS(old))
        return vis == KLD_NAME_VISIBILITY(old);
    return vis == KLD_VISIBILITY_DEFAULT || vis == kld_relink_known(e->r, id)->visibility;
}

/* One name, as the file had it and as it has it now; 0: not at all. */
static bool compare_name(struct elf_relink *e, const struct kld_relink_file *rf, kld_symid id)
{
    uint8_t old = e->old_classes[id], new = e->new_classes[id];
    unsigned was = KLD_NAME_CLASS(old), is = KLD_NAME_CLASS(new);
    struct kld_str name = kld_symbol_name(&e->ctx->symbols[id]);
    const char *path = rf->file->path;
    if (is && !same_visibility(e, id, old, new))
        return REFUSE(SYMBOL_CHANGED, name, "%s: visibility of %.*s", path);
    if (was == is || was == KLD_NAME_GROUP || is == KLD_NAME_GROUP)
        return true;
    if (defines(old) && !defines(new))
        return REFUSE(REMOVED_GLOBAL, name, "%s does not define %.*s any more", path);
    if (defines(new) && !defines(old))
        return REFUSE(NEW_GLOBAL, name, "%s defines %.*s", path);
    if (defines(new))
        return REFUSE(SYMBOL_CHANGED, name, "%s: binding of %.*s", path);
    if (!was)
        return check_added(e, rf, id, new);
    if (!is)
        return was == KLD_NAME_UNDEF_WEAK || check_removed(e, rf, id);
    return REFUSE(UNDEFINED, name, "%s: binding of the reference to %.*s", path);
}

static void set_classes(struct elf_relink *e, struct kld_relink_file *rf)
{
    memset(e->old_classes, 0, e->ctx->nsymbols);
    memset(e->new_classes, 0, e->ctx->nsymbols);
    for (uint32_t i = 0; i < rf->old.head.nnames; i++)
        e->old_classes[e->r->ids[rf->old.symbols[i]] - 1] |= rf->old.classes[i];
}

static bool compare_names(struct elf_relink *e, struct kld_relink_file *rf)
{
    struct kld_file *file = rf->file;
    for (uint32_t i = 0; i < file->nnames; i++)
        e->new_classes[file->ids[i]] |= file->classes[i] & KLD_RECORD_CLASS;
    for (uint32_t i = 0; i < file->nnames; i++)
        if (!compare_name(e, rf, file->ids[i]))
            return false;
    for (uint32_t i = 0; i < rf->old.head.nnames; i++)
        if (!compare_name(e, rf, e->r->ids[rf->old.symbols[i]] - 1))
            return false;
    return true;
}

/* ---- definitions ---- */

static bool bind_symbol(struct elf_relink *e, const struct kld_relink_file *rf, uint32_t i)
{
    const struct elf_object *obj = elf_object(rf->file);
    const elf_sym *from = &obj->syms[obj->first_global + i];
    kld_symid id = rf->file->ids[i];
    struct kld_symbol *sym = &e->ctx->symbols[id];
    const struct kld_state_symbol *known = kld_relink_known(e->r, id);
    struct kld_str name = kld_symbol_name(sym);
    const char *path = rf->file->path;
    if (!defines(rf->file->classes[i]) || known->file != rf->number)
        return true;
    uint32_t shndx = elf_sym_section(obj, obj->first_global + i);
    struct kld_atom *atom = elf_section_atom(obj, shndx);
    uint8_t type = elf_symbol_type(ELF64_ST_TYPE(from->st_info));
    bool common = KLD_NAME_CLASS(rf->file->classes[i]) == KLD_NAME_COMMON;
    if (type != known->type || (from->st_other & ~3u) != (known->other & ~3u))
        return REFUSE(SYMBOL_CHANGED, name, "%s: type of %.*s", path);
    if (from->st_size != known->size &&
        (common || ((known->bits & KLD_STATE_SYM_EXPORTED) && type != KLD_TYPE_FUNCTION &&
                    type != KLD_TYPE_IFUNC)))
        return REFUSE(SYMBOL_CHANGED, name, "%s: size of %.*s", path);
    if ((ELF64_ST_BIND(from->st_info) == STB_GNU_UNIQUE) != !!(known->bits & KLD_STATE_SYM_UNIQUE))
        return REFUSE(SYMBOL_CHANGED, name, "%s: binding of %.*s", path);
    if (common) {
        if (known->kind != KLD_SYM_DEFINED || known->value % KLD_MAX(from->st_value, 1u))
            return REFUSE(SYMBOL_CHANGED, name, "%s: alignment of %.*s", path);
        return true;
    }
    if ((known->kind == KLD_SYM_DEFINED) != (atom != NULL) ||
        (!atom && from->st_value != known->place))
        return REFUSE(SYMBOL_CHANGED, name, "%s: value of %.*s", path);
    sym->file = rf->file;
    sym->index = obj->first_global + i;
    sym->size = from->st_size;
    sym->value = from->st_value;
    sym->in_section = false;
    sym->atom = atom;
    return true;
}

/* ---- sections ---- */

/* What the new version does to output sections must be nothing. */
static bool check_sections(struct elf_relink *e)
{
    struct kld_session *ctx = e->ctx;
    uint64_t n = kld_state_count(&e->r->st, KLD_T_SECTIONS);
    if (ctx->sections.len != n) {
        const struct kld_section *s = ctx->sections.data[n];
        return kld_relink_refuse(e->r, s->format_flags & SHF_TLS ? KLD_WHY_TLS : KLD_WHY_SECTION,
                                 "there is a new section %s", s->name);
    }
    for (uint64_t i = 0; i < n; i++) {
        const struct kld_state_section *known = kld_state_get(&e->r->st, KLD_T_SECTIONS, i, 1);
        const struct kld_section *s = ctx->sections.data[i];
        if (s->type != known->type || s->format_flags != known->format_flags)
            return kld_relink_refuse(e->r, KLD_WHY_SECTION, "section %s has other flags", s->name);
    }
    return true;
}

static bool load_atoms(struct elf_relink *e, struct kld_relink_file *rf)
{
    const struct elf_file_state *state = (const void *)rf->old.format;
    if (rf->old.head.format_size < sizeof(*state) ||
        rf->old.head.format_size < sizeof(*state) + 4ull * state->nlocal_aux) {
        e->r->st.damaged = true;
        return false;
    }
    e->ctx->format->make_atoms(e->ctx, e->worker, rf->file);
    if (elf_commons_hash(elf_object(rf->file)) != state->commons)
        return kld_relink_refuse(e->r, KLD_WHY_SYMBOL_CHANGED, "%s: COMMON symbols have changed",
                                 rf->file->path);
    if (elf_special_hash(elf_object(rf->file)) != state->special)
        return kld_relink_refuse(e->r, KLD_WHY_SECTION, "%s: properties or attributes have changed",
                                 rf->file->path);
    return true;
}

/* A changed file: names, groups, atoms, definitions. */
static bool compare_file(struct elf_relink *e, struct kld_relink_file *rf)
{
    if (!number_names(e, rf))
        return false;
    for (uint32_t i = 0; i < rf->old.head.nnames; i++)
        elf_relink_symbol(e, rf->old.symbols[i], (struct kld_str){"an old name", 11});
    if (e->r->st.damaged)
        return false;
    set_classes(e, rf);
    if (!decide_groups(e, rf) || !load_atoms(e, rf) || !compare_names(e, rf))
        return false;
    for (uint32_t i = 0; i < rf->file->nglobals; i++)
        if (!bind_symbol(e, rf, i))
            return false;
    return true;
}

/* ---- files that refer to what has moved ---- */

static bool refers(struct elf_relink *e, uint32_t f, uint64_t *total)
{
    struct kld_file_record record;
    kld_record_get_next(&e->r->st, f, &record, total);
    for (uint32_t i = 0; i < record.head.nglobals; i++)
        if (record.symbols[i] < kld_state_count(&e->r->st, KLD_T_SYMBOLS) &&
            elf_is_shifted(e, record.symbols[i]))
            return true;
    return false;
}

static bool is_loaded(const struct elf_relink *e, uint32_t f)
{
    for (size_t i = 0; i < e->r->files.len; i++)
        if (e->r->files.data[i].number == f)
            return true;
    return false;
}

/* A file as it was linked: everything where the state says. */
static bool load_referrer(struct elf_relink *e, uint32_t f)
{
    struct kld_relink_file *rf = kld_relink_load(e->r, f, false);
    if (!rf)
        return false;
    struct kld_file *file = rf->file;
    const struct kld_file_record *old = &rf->old;
    if (file->nnames != old->head.nnames)
        return kld_relink_refuse(e->r, KLD_WHY_INPUTS, "%s has changed", file->path);
    for (uint32_t i = 0; i < file->nnames; i++)
        file->ids[i] = elf_relink_symbol(e, old->symbols[i], elf_name_at(file, i));
    for (uint32_t g = 0; g < file->ngroups; g++)
        file->groups[g].discarded = old->classes[file->groups[g].name] & KLD_RECORD_DISCARDED;
    if (!load_atoms(e, rf))
        return false;
    if (file->natoms != old->head.natoms)
        return kld_relink_refuse(e->r, KLD_WHY_INPUTS, "%s has changed", file->path);
    for (uint32_t i = 0; i < file->natoms; i++) {
        file->atoms[i].addr = old->atoms[i].addr;
        file->atoms[i].live = old->atoms[i].live;
        if (file->atoms[i].section >= e->ctx->sections.len)
            return false;
    }
    return true;
}

static bool load_referrers(struct elf_relink *e)
{
    uint32_t n = (uint32_t)kld_state_count(&e->r->st, KLD_T_FILES), loaded = 0;
    uint64_t total = 0;
    if (!e->seen.len)
        return true;
    for (uint32_t f = 0; f < n && !e->r->st.damaged; f++) {
        if (is_loaded(e, f) || !refers(e, f, &total))
            continue;
        if (++loaded > 64 && loaded > n / 4)
            return kld_relink_refuse(e->r, KLD_WHY_TOO_MANY,
                                     "more than %u of %u files refer to what has moved", n / 4, n);
        if (!load_referrer(e, f))
            return false;
    }
    return true;
}

/* ---- all of it ---- */

static void list_files(struct elf_relink *e)
{
    struct kld_session *ctx = e->ctx;
    ctx->files = KLD_NEW_ARRAY(&ctx->arena, struct kld_file *, e->r->files.len);
    ctx->nfiles = (uint32_t)e->r->files.len;
    for (uint32_t i = 0; i < ctx->nfiles; i++) {
        ctx->files[i] = e->r->files.data[i].file;
        ctx->files[i]->index = i;
    }
}

bool elf_relink(struct kld_relink *r)
{
    struct kld_session *ctx = r->ctx;
    struct elf_relink *e = KLD_NEW(&ctx->arena, struct elf_relink);
    uint64_t n = kld_state_count(&r->st, KLD_T_SYMBOLS);
    if (!elf_restore(r))
        return false;
    e->r = r;
    e->ctx = ctx;
    e->elf = elf_state(ctx);
    e->worker = kld_pool_worker(ctx, 0);
    e->old_classes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, n);
    e->new_classes = KLD_NEW_ARRAY(&ctx->arena, uint8_t, n);
    e->places = KLD_NEW_ARRAY(&ctx->arena, uint64_t, n);
    e->sizes = KLD_NEW_ARRAY(&ctx->arena, uint64_t, n);
    e->shifted = KLD_NEW_ARRAY(&ctx->arena, uint8_t, n / 8 + 1);
    *kld_vec_push(&ctx->arena, &e->aux_numbers) = 0;
    for (size_t i = 0; i < r->files.len; i++)
        if (!compare_file(e, &r->files.data[i]))
            return false;
    list_files(e);
    if (!check_sections(e) || !elf_replace_atoms(e) || !load_referrers(e))
        return false;
    list_files(e);
    return elf_patch(e);
}
