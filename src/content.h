/* content.h - an object in canonical form: what a link with it depends on, and no more.
 *
 * Formats write it (kld_format_ops.describe) as atoms, in their order, each with a part of its own, and
 * what belongs to none of them. References are symbolic: by name, or by section and offset. */
#ifndef KLD_SRC_CONTENT_H
#define KLD_SRC_CONTENT_H

#include "src/bytes.h"
#include "src/str.h"

struct kld_content {
    /* What follows is of an atom, until end. */
    void (*begin)(struct kld_content *c, struct kld_str name);
    void (*end)(struct kld_content *c);
    void (*add)(struct kld_content *c, const void *data, size_t size);
};

static inline void kld_content_number(struct kld_content *c, uint64_t number)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(number >> 8 * i);
    c->add(c, bytes, sizeof(bytes));
}

static inline void kld_content_bytes(struct kld_content *c, struct kld_bytes bytes)
{
    kld_content_number(c, bytes.len);
    if (bytes.len)
        c->add(c, bytes.ptr, bytes.len);
}

static inline void kld_content_text(struct kld_content *c, struct kld_str text)
{
    kld_content_bytes(c, (struct kld_bytes){(const uint8_t *)text.ptr, text.len});
}

#endif
