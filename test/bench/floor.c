/* What no linker with one thread can do without: reads the inputs and writes an output.
 *
 *   floor LIST OUTPUT SIZE
 *
 * LIST has a line OFFSET LENGTH FILE for each part of a file that is read; OUTPUT gets SIZE bytes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Fits into a level 2 cache. */
static char buffer[256 << 10];

static void fail(const char *name)
{
    perror(name);
    exit(1);
}

static void read_part(int file, const char *name, long offset, long length)
{
    while (length > 0) {
        size_t want = (size_t)length < sizeof(buffer) ? (size_t)length : sizeof(buffer);
        ssize_t n = pread(file, buffer, want, offset);
        if (n <= 0)
            fail(name);
        offset += n;
        length -= n;
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: floor LIST OUTPUT SIZE\n");
        return 2;
    }
    FILE *list = fopen(argv[1], "r");
    if (!list)
        fail(argv[1]);
    /* Members of an archive follow each other: it is opened once. */
    char open_name[4096] = "", name[4096];
    int file = -1;
    for (long offset, length; fscanf(list, "%ld %ld %4095[^\n]", &offset, &length, name) == 3;) {
        if (strcmp(name, open_name) != 0) {
            if (file >= 0)
                close(file);
            file = open(name, O_RDONLY | O_CLOEXEC);
            if (file < 0)
                fail(name);
            strcpy(open_name, name);
        }
        read_part(file, name, offset, length);
    }
    int out = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    if (out < 0)
        fail(argv[2]);
    for (long left = atol(argv[3]); left > 0;) {
        size_t want = (size_t)left < sizeof(buffer) ? (size_t)left : sizeof(buffer);
        ssize_t n = write(out, buffer, want);
        if (n <= 0)
            fail(argv[2]);
        left -= n;
    }
    return 0;
}
