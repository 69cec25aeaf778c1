/* unit.h - what the C unit tests share. Included once, by the one file that is a test program.
 *
 * CASE(name) { ... } is a test; test_units.py finds it by that line and runs it alone. CHECK goes on
 * after a failure. */
#ifndef KLD_TEST_UNIT_H
#define KLD_TEST_UNIT_H

#include <stdio.h>
#include <stdlib.h>
#include "src/arena.h"
#include "src/bytes.h"
#include "src/vec.h"

struct unit_case {
    const char *name;
    void (*run)(struct kld_arena *arena);
    struct unit_case *next;
};

static struct unit_case *unit_cases;
static int unit_failures;
static void *unit_blocks[10000];
static size_t unit_nblocks;

#define CASE(case_name)                                                                            \
    static void case_name(struct kld_arena *arena);                                                \
    static void __attribute__((constructor)) register_##case_name(void)                            \
    {                                                                                              \
        static struct unit_case c = {#case_name, case_name, NULL};                                 \
        c.next = unit_cases;                                                                       \
        unit_cases = &c;                                                                           \
    }                                                                                              \
    static void case_name(KLD_UNUSED struct kld_arena *arena)

#define CHECK(condition)                                                                           \
    ((condition) ? (void)0                                                                         \
                 : (void)(unit_failures++, printf("%s:%d: %s\n", __FILE__, __LINE__, #condition)))
#define CHECK_INT(value, expected)                                                                 \
    unit_check_int(__FILE__, __LINE__, #value, (uint64_t)(value), (uint64_t)(expected))
#define CHECK_TEXT(value, expected) unit_check_text(__FILE__, __LINE__, #value, value, expected)
/* Of a struct kld_str */
#define CHECK_STR(value, expected)                                                                 \
    CHECK_TEXT(kld_arena_strndup(arena, (value).ptr, (value).len), expected)

static KLD_UNUSED void unit_check_int(const char *file, int line, const char *what, uint64_t value,
                                      uint64_t expected)
{
    if (value == expected)
        return;
    unit_failures++;
    printf("%s:%d: %s is %llu (0x%llx), not %llu\n", file, line, what, (unsigned long long)value,
           (unsigned long long)value, (unsigned long long)expected);
}

static KLD_UNUSED void unit_check_text(const char *file, int line, const char *what,
                                       const char *value, const char *expected)
{
    if (value == expected || (value && expected && strcmp(value, expected) == 0))
        return;
    unit_failures++;
    printf("%s:%d: %s is '%s', not '%s'\n", file, line, what, value ? value : "(null)",
           expected ? expected : "(null)");
}

/* A copy in a block of exactly that size, so that a sanitizer sees what reads past its end. */
static KLD_UNUSED struct kld_bytes unit_bytes(const void *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (len)
        memcpy(copy, data, len);
    if (unit_nblocks < KLD_COUNT(unit_blocks))
        unit_blocks[unit_nblocks++] = copy;
    return (struct kld_bytes){copy, len};
}

static KLD_UNUSED struct kld_str unit_str(const char *text)
{
    struct kld_bytes b = unit_bytes(text, strlen(text));
    return (struct kld_str){(const char *)b.ptr, b.len};
}

/* text, count times */
static KLD_UNUSED char *unit_repeat(struct kld_arena *arena, const char *text, size_t count)
{
    size_t len = strlen(text);
    char *all = kld_arena_alloc(arena, len * count + 1, 1);
    for (size_t i = 0; i < count; i++)
        memcpy(all + i * len, text, len);
    return all;
}

static void *unit_alloc(KLD_UNUSED void *context, size_t size)
{
    return calloc(1, size);
}

static void unit_free(KLD_UNUSED void *context, void *block, KLD_UNUSED size_t size)
{
    free(block);
}

int main(int argc, char **argv)
{
    static const struct kld_alloc alloc = {NULL, unit_alloc, unit_free, NULL};
    jmp_buf oom;
    static bool found;
    if (setjmp(oom)) {
        printf("out of memory\n");
        return 1;
    }
    for (struct unit_case *c = unit_cases; c; c = c->next) {
        if (argc > 1 && strcmp(argv[1], c->name) != 0)
            continue;
        found = true;
        struct kld_arena arena;
        kld_arena_init(&arena, &alloc, &oom);
        c->run(&arena);
        kld_arena_free(&arena);
        while (unit_nblocks)
            free(unit_blocks[--unit_nblocks]);
    }
    if (!found)
        printf("no such case\n");
    return !found || unit_failures;
}

#endif
