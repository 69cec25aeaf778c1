/* elf_ctors.c - old-style constructor tables made to run.
 *
 * C libraries run .init_array from its start to its end; what crtbegin.o used to do for .ctors
 * went from its end to its start. Like GNU ld, .ctors of ordinary objects are put into
 * .init_array, each with its entries in reverse order, .ctors.N as .init_array.(65535 - N); and
 * .dtors into .fini_array. The tables of the crt files, which hold end marks only, stay. */
#include "formats/elf/elf_ctors.h"

enum { ENTRY = 8 };

static bool is_crt_file(const struct kld_file *file)
{
    const char *path = file->member ? file->member : file->path;
    const char *slash = strrchr(path, '/');
    struct kld_str base = kld_str(slash ? slash + 1 : path);
    return kld_str_starts(base, "crtbegin") || kld_str_starts(base, "crtend") ||
           kld_str_starts(base, "clang_rt.crt");
}

bool elf_is_ctors(const struct elf_object *obj, const char *name)
{
    if (name[0] != '.' || (name[1] != 'c' && name[1] != 'd') || strncmp(name + 2, "tors", 4) != 0)
        return false;
    return (name[6] == '\0' || name[6] == '.') && !is_crt_file(&obj->base);
}

void elf_reverse_ctors(struct kld_session *ctx, struct kld_worker *worker, struct kld_atom *atom)
{
    if (!atom->data || atom->size % ENTRY) {
        kld_bad_file(ctx, atom->file, "section %u: constructor table of %llu bytes",
                     atom->input_index, (unsigned long long)atom->size);
        return;
    }
    uint8_t *data = kld_arena_alloc(&worker->arena, atom->size, ENTRY);
    for (uint64_t at = 0; at < atom->size; at += ENTRY)
        memcpy(data + atom->size - ENTRY - at, atom->data + at, ENTRY);
    atom->data = data;
    const elf_rela *relas = atom->edges;
    Elf64_Rela *turned = KLD_NEW_ARRAY(&worker->arena, Elf64_Rela, atom->nedges);
    for (uint32_t i = 0; i < atom->nedges; i++) {
        turned[i] = relas[i];
        if (relas[i].r_offset < atom->size) /* others are reported by scan */
            turned[i].r_offset =
                atom->size - ENTRY - relas[i].r_offset / ENTRY * ENTRY + relas[i].r_offset % ENTRY;
    }
    if (atom->nedges)
        atom->edges = turned;
}
