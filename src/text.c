#include "src/text.h"
#include <stdio.h>

static char *room(struct kld_text *text, size_t more)
{
    if (more > text->cap - text->len) {
        size_t cap = KLD_MAX(text->cap * 2, text->len + more);
        cap = KLD_MAX(cap, (size_t)4096);
        char *larger = kld_arena_alloc(text->arena, cap, 1);
        if (text->len)
            memcpy(larger, text->data, text->len);
        text->data = larger;
        text->cap = cap;
    }
    return text->data + text->len;
}

void kld_text_add(struct kld_text *text, struct kld_str more)
{
    if (!more.len)
        return;
    memcpy(room(text, more.len), more.ptr, more.len);
    text->len += more.len;
}

void kld_text_printf(struct kld_text *text, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    char *at = room(text, 1);
    size_t free = text->cap - text->len;
    int len = vsnprintf(at, free, format, args);
    if (len > 0 && (size_t)len >= free) {
        at = room(text, (size_t)len + 1);
        vsnprintf(at, (size_t)len + 1, format, again);
    }
    text->len += len > 0 ? (size_t)len : 0;
    va_end(again);
    va_end(args);
}

void kld_text_column(struct kld_text *text, size_t start, size_t column)
{
    size_t at = text->len - start, n = at < column ? column - at : 1;
    memset(room(text, n), ' ', n);
    text->len += n;
}
