/* vec.h - growing arrays in an arena. KLD_VEC(int) v = {0}; *kld_vec_push(arena, &v) = 1; */
#ifndef KLD_SRC_VEC_H
#define KLD_SRC_VEC_H

#include "src/arena.h"

#define KLD_VEC(type)                                                                              \
    struct {                                                                                       \
        type *data;                                                                                \
        size_t len, cap;                                                                           \
    }

/* A pointer to a new zeroed element at the end. */
#define kld_vec_push(arena, v)                                                                     \
    ({                                                                                             \
        __auto_type kld_v_ = (v);                                                                  \
        if (kld_v_->len == kld_v_->cap)                                                            \
            kld_v_->data = kld_vec_grow_((arena), kld_v_->data, kld_v_->len, &kld_v_->cap,         \
                                         sizeof(*kld_v_->data));                                   \
        &kld_v_->data[kld_v_->len++];                                                              \
    })

/* Doubles the capacity; old memory stays in the arena, or is extended if it is the arena's last. */
static inline void *kld_vec_grow_(struct kld_arena *arena, void *old, size_t len, size_t *cap,
                                  size_t elem)
{
    size_t old_size = *cap * elem;
    *cap = *cap ? *cap * 2 : 8;
    if (old && old_size <= SIZE_MAX / 2 && kld_arena_extend(arena, old, old_size, old_size * 2))
        return old;
    void *data = kld_arena_array(arena, *cap, elem, 16);
    if (len)
        memcpy(data, old, len * elem);
    return data;
}

#endif
