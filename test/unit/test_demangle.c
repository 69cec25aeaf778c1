#include "src/demangle.h"
#include "unit.h"

#define IS(name, expected) CHECK_TEXT(kld_demangle_name(arena, unit_str(name)), expected)

CASE(demangle_cxx)
{
    IS("_ZN2ns1fEi", "ns::f(int)");
    IS("_ZNSt6vectorIiSaIiEE9push_backEOi",
       "std::vector<int, std::allocator<int> >::push_back(int&&)");
    IS("_ZTV3Foo", "vtable for Foo");
    IS("_ZN2ns1gE", "ns::g");
}

CASE(demangle_rust)
{
    IS("_RNvCskwGfYPst2Cb_7example3foo", "example::foo");
    IS("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt");
}

CASE(demangle_leaves_the_rest)
{
    IS("", "");
    IS("main", "main");
    IS("_Z", "_Z");
    IS("_R", "_R");
    IS("_ZN", "_ZN");
    IS("_ZN99999999999999999999fE", "_ZN99999999999999999999fE");
    IS("__ZN2ns1fEi", "__ZN2ns1fEi");
}

CASE(demangle_nul_inside)
{
    struct kld_str name = {(const char *)unit_bytes("_Z1f\0v", 6).ptr, 6};
    struct kld_demangler d = {.arena = arena};
    CHECK(kld_demangle(&d, name).ptr == name.ptr);
}

CASE(demangle_reuses_its_buffer)
{
    struct kld_demangler d = {.arena = arena};
    CHECK(!d.buffer);
    struct kld_str name = unit_str("main");
    CHECK(kld_demangle(&d, name).ptr == name.ptr);
    CHECK(!d.buffer);
    CHECK_STR(kld_demangle(&d, unit_str("_Z1fv")), "f()");
    size_t total = arena->total;
    for (int i = 0; i < 1000; i++)
        CHECK_STR(kld_demangle(&d, unit_str("_Z1gv")), "g()");
    CHECK(arena->total < total + (1 << 20));
}

CASE(demangle_long_and_deep)
{
    static const char *const parts[] = {"P", "N1a", "I", "1aI", "F", "K", "A1_", "T_", "S_", "L"};
    static const size_t counts[] = {500, 2000, 100000};
    struct kld_demangler d = {.arena = arena};
    for (size_t i = 0; i < KLD_COUNT(parts); i++) {
        for (size_t k = 0; k < KLD_COUNT(counts); k++) {
            char *text = unit_repeat(arena, parts[i], counts[k]);
            kld_demangle(&d, unit_str(kld_arena_printf(arena, "_Z1f%si", text)));
            kld_demangle(&d, unit_str(kld_arena_printf(arena, "_RNv%s", text)));
        }
    }
}

CASE(demangle_result_is_limited)
{
    /* each argument is twice the one before: 2^100 words in all */
    KLD_VEC(char) name = {0};
    const char *start = "_Z1f1aI1bS0_E";
    for (const char *p = start; *p; p++)
        *kld_vec_push(arena, &name) = *p;
    for (int i = 0; i < 100; i++) {
        const char *seq = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        char one[16];
        if (i < 36)
            sprintf(one, "1aIS%c_S%c_E", seq[i], seq[i]);
        else
            sprintf(one, "1aIS%c%c_S%c%c_E", seq[i / 36 - 1], seq[i % 36], seq[i / 36 - 1],
                    seq[i % 36]);
        for (const char *p = one; *p; p++)
            *kld_vec_push(arena, &name) = *p;
    }
    struct kld_demangler d = {.arena = arena};
    struct kld_str text = kld_demangle(&d, (struct kld_str){name.data, name.len});
    CHECK(text.len <= 64 << 10);
}
