/* contentids FILE... - the content id of each object, and those of its atoms, a line each:
 *
 *     object ID
 *     atom ID NAME */
#include <kld/kld.h>
#include <stdio.h>
#include <stdlib.h>

static void print_id(const char *what, const unsigned char id[KLD_CONTENT_ID_SIZE],
                     const char *name)
{
    printf("%s ", what);
    for (int i = 0; i < KLD_CONTENT_ID_SIZE; i++)
        printf("%02x", id[i]);
    printf("%s%s\n", *name ? " " : "", name);
}

static void print_atom(void *context, const char *section,
                       const unsigned char id[KLD_CONTENT_ID_SIZE])
{
    (void)context;
    print_id("atom", id, section);
}

static void *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        return NULL;
    *length = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(*length + 1);
    if (data && fread(data, 1, *length, file) != *length)
        data = NULL;
    fclose(file);
    return data;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        unsigned char id[KLD_CONTENT_ID_SIZE];
        size_t length;
        void *data = read_file(argv[i], &length);
        if (!data || kld_obj_content_id(NULL, data, length, id) != KLD_OK)
            return 1;
        print_id("object", id, "");
        if (kld_obj_atom_ids(NULL, data, length, print_atom, NULL) != KLD_OK)
            return 1;
        free(data);
    }
    return 0;
}
