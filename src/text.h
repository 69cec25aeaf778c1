/* text.h - text that grows in an arena. */
#ifndef KLD_SRC_TEXT_H
#define KLD_SRC_TEXT_H

#include "src/arena.h"
#include "src/str.h"

struct kld_text {
    struct kld_arena *arena;
    char *data; /* not terminated */
    size_t len, cap;
};

void kld_text_add(struct kld_text *text, struct kld_str more);
void kld_text_printf(struct kld_text *text, const char *format, ...) KLD_PRINTF(2, 3);

/* Spaces up to that column of the line that began at `start`, at least one. */
void kld_text_column(struct kld_text *text, size_t start, size_t column);

#endif
