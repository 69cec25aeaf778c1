#include "driver/args.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kld_args_block {
    struct kld_args_block *next;
    size_t size; /* of the whole block */
    _Alignas(16) char data[];
};

void kld_args_init(struct kld_args *args, const kld_host *host)
{
    *args = (struct kld_args){.host = host};
}

void kld_args_free(struct kld_args *args)
{
    const kld_host *host = args->host;
    for (struct kld_args_block *block = args->blocks, *next; block; block = next) {
        next = block->next;
        if (host->alloc && host->free)
            host->free(host->context, block, block->size);
        else if (!host->alloc)
            free(block);
    }
    kld_args_init(args, host);
}

void *kld_args_alloc(struct kld_args *args, size_t size)
{
    const kld_host *host = args->host;
    size_t whole;
    struct kld_args_block *block = NULL;
    if (!__builtin_add_overflow(size, sizeof(struct kld_args_block), &whole))
        block = host->alloc ? host->alloc(host->context, whole) : calloc(1, whole);
    if (!block) {
        args->no_memory = true;
        return NULL;
    }
    block->size = whole;
    block->next = args->blocks;
    args->blocks = block;
    return block->data;
}

const char *kld_args_printf(struct kld_args *args, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    int length = vsnprintf(NULL, 0, format, values);
    va_end(values);
    char *text = length < 0 ? NULL : kld_args_alloc(args, (size_t)length + 1);
    if (!text)
        return "out of memory";
    va_start(values, format);
    vsnprintf(text, (size_t)length + 1, format, values);
    va_end(values);
    return text;
}

char *kld_args_copy(struct kld_args *args, const char *text, size_t length)
{
    char *copy = kld_args_alloc(args, length + 1);
    if (copy && length)
        memcpy(copy, text, length);
    return copy;
}
