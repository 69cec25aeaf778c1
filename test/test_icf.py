"""--icf: what is folded, what is not, and that programs do not notice."""

import pytest

from kldtest import deviates

pytestmark = deviates(strict=False, bfd='has no --icf', lld='folds by other rules in places')

SPLIT = ('-ffunction-sections', '-fdata-sections', '-O1')


def without_ipa_icf(compiler):
    return ['-fno-ipa-icf'] if compiler == 'gcc' else []


def icf(t, *objects, mode='all', via='cc', args=()):
    return t.link('app', f'-Wl,--icf={mode}', *args, *objects, via=via)


def same(t, *names, out='app'):
    """Whether all these symbols have one address."""
    elf = t.elf(out)
    return len({elf.symbol(n).value for n in names}) == 1


TWINS = '''
int %(a)s(int x) { return x * 17 + 3; }
int %(b)s(int x) { return x * 17 + 3; }
int %(c)s(int x) { return x * 17 + 4; }
'''
MAIN = 'int a(int), b(int), c(int); int main(void) { return a(1) + b(1) - 2 * c(1) + 2; }'


def twins(t):
    return (t.cc('twins.o', TWINS % dict(a='a', b='b', c='c'), *SPLIT), t.cc('main.o', MAIN, *SPLIT))


@pytest.mark.parametrize('mode', ['all', 'safe'])
def test_equal_functions_are_folded(t, compiler, mode):
    icf(t, *twins(t), mode=mode)
    t.run('app')
    assert same(t, 'a', 'b') and not same(t, 'a', 'c')


@pytest.mark.parametrize('args', [['-Wl,--icf=none'], [], ['-Wl,--icf=all', '-Wl,--no-icf']])
def test_without_the_option_nothing_is_folded(t, args):
    t.link('app', *args, *twins(t))
    assert not same(t, 'a', 'b')


def test_functions_of_different_files_are_folded(t, compiler):
    for n in 'abc':
        t.cc(f'{n}.o', f'int {n}(int x) {{ return x * 17 + {3 if n != "c" else 4}; }}', *SPLIT)
    icf(t, 'a.o', 'b.o', 'c.o', t.cc('main.o', MAIN, *SPLIT))
    t.run('app')
    assert same(t, 'a', 'b') and not same(t, 'a', 'c')


def test_what_they_call_decides(t, compiler):
    icf(t, t.cc('a.o', '''
        #define NI __attribute__((noinline))
        NI int leaf1(int x) { return x * 5; }
        NI int leaf2(int x) { return x * 5; }
        NI int leaf3(int x) { return x * 7; }
        NI int a(int x) { return leaf1(x) + 1; }
        NI int b(int x) { return leaf2(x) + 1; }
        NI int c(int x) { return leaf3(x) + 1; }
        int main(void) { return a(1) + b(1) + c(1) - 6 - 6 - 8; }''',
        *SPLIT, *without_ipa_icf(compiler)))
    t.run('app')
    assert same(t, 'leaf1', 'leaf2') and same(t, 'a', 'b')
    assert not same(t, 'a', 'c') and not same(t, 'leaf1', 'leaf3')


def test_functions_that_call_each_other_in_a_circle(t):
    body = '.section .text.{0},"ax"\n.globl {0}\n{0}: do_call {1}\n{2}\nret\n'
    t.asm('a.o', body.format('ping1', 'pong1', 'nop') + body.format('pong1', 'ping1', 'nop\nnop') +
          body.format('ping2', 'pong2', 'nop') + body.format('pong2', 'ping2', 'nop\nnop') +
          body.format('ping3', 'pong3', 'nop') + body.format('pong3', 'ping3', 'nop\nnop\nnop') +
          '.section .text.self1,"ax"\n.globl self1\nself1: do_call self1\n'
          '.section .text.self2,"ax"\n.globl self2\nself2: do_call self2\n'
          '.text\n.globl _start\n_start: do_call ping1\ndo_call ping2\ndo_call ping3\n'
          'do_call self1\ndo_call self2\n'
          '.section .note.GNU-stack,""\n')
    t.ld('app', '--icf=all', 'a.o')
    assert same(t, 'ping1', 'ping2') and same(t, 'pong1', 'pong2') and same(t, 'self1', 'self2')
    assert not same(t, 'ping1', 'ping3') and not same(t, 'pong1', 'pong3')


def test_chains_of_any_length(t):
    """a_i calls a_(i+1); only the far ends differ, or not."""
    n, text = 60, ''
    for chain, end in ('p', 'nop'), ('q', 'nop'), ('r', 'nop\nnop'):
        for i in range(n):
            text += (f'.section .text.{chain}{i},"ax"\n.globl {chain}{i}\n{chain}{i}: '
                     f'do_call {chain}{i + 1}\nret\n')
        text += f'.section .text.{chain}{n},"ax"\n.globl {chain}{n}\n{chain}{n}: {end}\nret\n'
    t.asm('a.o', text + '.text\n.globl _start\n_start: do_call p0\ndo_call q0\ndo_call r0\n'
          '.section .note.GNU-stack,""\n')
    t.ld('app', '--icf=all', 'a.o')
    for i in range(n + 1):
        assert same(t, f'p{i}', f'q{i}') and not same(t, f'p{i}', f'r{i}')


def test_equal_strings_are_equal_before_they_are_merged(t):
    source = 'const char *%s(void) { return "the same text"; }'
    a, b = t.cc('a.o', source % 'a', *SPLIT), t.cc('b.o', source % 'b', *SPLIT)
    c = t.cc('c.o', 'const char *c(void) { return "another text"; }', *SPLIT)
    main = t.cc('main.o', r'''
        #include <stdio.h>
        const char *a(void), *b(void), *c(void);
        int main(void) { puts(a()); puts(b()); puts(c()); }''', *SPLIT)
    icf(t, a, b, c, main)
    t.run('app', expect='the same text\nthe same text\nanother text\n')
    assert same(t, 'a', 'b') and not same(t, 'a', 'c')


def test_data_that_may_be_written_is_never_folded(t):
    icf(t, t.cc('a.o', 'int x = 5, y = 5; int *p = &x; int *q = &y; '
                'int main(void) { x = 6; return y - 5; }', *SPLIT))
    t.run('app')
    assert not same(t, 'x', 'y')


def test_addresses_of_constants_stay_different(t, compiler):
    icf(t, t.cc('a.o', 'const int x = 5, y = 5; const int *volatile p = &x, *volatile q = &y; '
                'int main(void) { return p == q; }', *SPLIT))
    t.run('app')


# -- safe ---------------------------------------------------------------------------------------

ADDRESSES = '''
__attribute__((noinline)) int a(int x) { return x * 17 + 3; }
__attribute__((noinline)) int b(int x) { return x * 17 + 3; }
__attribute__((noinline)) int c(int x) { return x * 17 + 3; }
__attribute__((noinline)) int d(int x) { return x * 17 + 3; }
int (*volatile pa)(int) = a;
int (*volatile pb)(int) = b;
int main(void) { return (pa == pb) + a(1) + b(1) + c(1) + d(1) - 80; }
'''


@pytest.mark.parametrize('table', [True, False])
def test_safe_leaves_functions_whose_address_is_taken(t, compiler, table):
    flags = [*SPLIT, *without_ipa_icf(compiler)]
    if compiler == 'clang':
        flags.append('-faddrsig' if table else '-fno-addrsig')
    icf(t, t.cc('a.o', ADDRESSES, *flags), mode='safe')
    t.run('app')
    assert not same(t, 'a', 'b') and same(t, 'c', 'd')


def test_a_table_that_lost_its_symbol_table_is_not_read(t, compiler):
    """GNU strip and objcopy leave the numbers of symbols as they are, and renumber the symbols: Debian's archives
    of LLVM are so."""
    if compiler != 'clang':
        pytest.skip('makes no such table')
    t.cc('a.o', ADDRESSES, *SPLIT, '-faddrsig', '-g')
    t.objcopy('--strip-debug', '--strip-unneeded', 'a.o')
    assert [s.link for s in t.elf('a.o').sections if s.name == '.llvm_addrsig'] == [0]
    icf(t, 'a.o', mode='safe')
    t.run('app')
    assert not same(t, 'a', 'b') and same(t, 'c', 'd')


def test_all_folds_them_too(t, compiler):
    icf(t, t.cc('a.o', ADDRESSES, *SPLIT, *without_ipa_icf(compiler)))
    assert same(t, 'a', 'b', 'c', 'd')
    t.run('app', status=1)


def test_safe_sees_addresses_taken_in_other_files(t, compiler):
    a = t.cc('twins.o', TWINS % dict(a='a', b='b', c='c'), *SPLIT, *without_ipa_icf(compiler))
    main = t.cc('main.o', '''
        int a(int), b(int), c(int);
        int same(int (*f)(int), int (*g)(int)) { return f == g; }
        int main(void) { return same(a, b); }''', '-O0')
    icf(t, a, main, mode='safe')
    t.run('app')
    assert not same(t, 'a', 'b')


def test_safe_leaves_what_a_library_exports(t):
    flags = ['-fPIC', *SPLIT]
    source = TWINS % dict(a='a', b='b', c='c') + '''
        __attribute__((visibility("hidden"))) int h1(int x) { return x * 17 + 3; }
        __attribute__((visibility("hidden"))) int h2(int x) { return x * 17 + 3; }'''
    t.link('lib.so', '-shared', '-Wl,--icf=safe', t.cc('a.o', source, *flags, '-fno-ipa-icf'))
    assert not same(t, 'a', 'b', out='lib.so')
    assert same(t, 'h1', 'h2', out='lib.so')


def test_safe_folds_virtual_functions(t):
    icf(t, t.cxx('a.o', r'''
        #include <cstdio>
        struct A { virtual int f(int x); virtual ~A() {} };
        struct B { virtual int g(int x); virtual ~B() {} };
        int A::f(int x) { return x * 17 + 3; }
        int B::g(int x) { return x * 17 + 3; }
        A *volatile a = new A; B *volatile b = new B;
        int main() { printf("%d %d\n", a->f(1), b->g(2)); }''', *SPLIT, '-fno-ipa-icf'),
        mode='safe', via='c++')
    t.run('app', expect='20 37\n')
    assert same(t, '_ZN1A1fEi', '_ZN1B1gEi')


# -- exceptions ---------------------------------------------------------------------------------

HANDLERS = r'''
#include <cstdio>
void thrower(int n);
struct E1 {}; struct E2 {};
int a(int n) { try { thrower(n); } catch (E1) { return 1; } return 0; }
int b(int n) { try { thrower(n); } catch (E1) { return 1; } return 0; }
int c(int n) { try { thrower(n); } catch (E2) { return 1; } return 0; }
'''
USE = r'''
#include <cstdio>
struct E1 {}; struct E2 {};
void thrower(int n) { if (n == 1) throw E1(); if (n == 2) throw E2(); }
int a(int), b(int), c(int);
int main()
{
    printf("%d%d%d %d%d\n", a(0), b(0), c(0), a(1), b(1));
    try { c(1); } catch (E1) { puts("E1 passed c"); }
    try { a(2); } catch (E2) { puts("E2 passed a"); }
    printf("%d\n", c(2));
}
'''


def test_functions_with_different_handlers_are_kept_apart(t, compiler, kind):
    a = t.cxx('a.o', HANDLERS, *SPLIT, *without_ipa_icf(compiler), *kind.cflags)
    use = t.cxx('use.o', USE, *SPLIT, *kind.cflags)
    icf(t, a, use, via='c++', args=kind.ldflags)
    t.run('app', expect='000 11\nE1 passed c\nE2 passed a\n1\n')
    assert not same(t, '_Z1ai', '_Z1ci')


def test_functions_with_equal_handlers_are_folded(t):
    """Needs an exception table for each function: clang writes them so."""
    t.compiler = 'clang'
    a = t.cxx('a.o', HANDLERS, *SPLIT, '-fPIC')
    icf(t, a, t.cxx('use.o', USE, *SPLIT), via='c++')
    t.run('app', expect='000 11\nE1 passed c\nE2 passed a\n1\n')
    assert same(t, '_Z1ai', '_Z1bi')


def test_unwind_information_decides(t):
    text = '.section .text.{0},"ax"\n.globl {0}\n{0}: .cfi_startproc\n{1}\nret\n.cfi_endproc\n'
    t.asm('a.o', text.format('a', 'nop') + text.format('b', 'nop') +
          text.format('c', '.cfi_undefined 7\nnop') +
          '.section .text.d,"ax"\n.globl d\nd: nop\nret\n'
          '.text\n.globl _start\n_start: do_call a\ndo_call b\ndo_call c\ndo_call d\n'
          '.section .note.GNU-stack,""\n')
    t.ld('app', '--icf=all', 'a.o')
    assert same(t, 'a', 'b') and not same(t, 'a', 'c') and not same(t, 'a', 'd')


# -- messages, determinism ----------------------------------------------------------------------

def test_print_icf_sections(t):
    for n in 'abc':
        t.cc(f'{n}.o', f'int {n}(int x) {{ return x * 17 + 3; }}', *SPLIT)
    main = t.cc('main.o', 'int a(int), b(int), c(int); int main(void) { return a(b(c(1))) == 0; }', *SPLIT)
    done = icf(t, main, 'c.o', 'a.o', 'b.o', args=['-Wl,--print-icf-sections'])
    lines = [line for line in (done.stdout + done.stderr).split('\n') if '.text.' in line]
    text = '\n'.join(lines)
    order = [text.index(part) for part in ('selected section c.o:(.text.c)',
                                           'removing identical section a.o:(.text.a)',
                                           'removing identical section b.o:(.text.b)')]
    assert order == sorted(order)


def test_the_output_does_not_depend_on_the_number_of_threads(t):
    files = [t.cc(f'f{n}.o', '\n'.join(
        f'int f{n}_{i}(int x) {{ return x * {i % 7} + {i % 5}; }}' for i in range(100)), *SPLIT)
        for n in range(20)]
    main = t.cc('main.o', 'int main(void) { return 0; }')
    outputs = []
    for threads in 1, 2, 7:
        icf(t, main, *files, args=[f'-Wl,--threads={threads}'])
        outputs.append(t.elf('app').bytes)
    assert outputs[0] == outputs[1] == outputs[2]


def test_together_with_gc_sections(t, compiler, kind):
    main = t.cxx('a.o', r'''
        #include <map>
        #include <set>
        #include <string>
        #include <cstdio>
        template <class T> struct Box { std::map<T, int> m; void add(T v) { m[v]++; } };
        int main()
        {
            Box<long> a; Box<long long> b; Box<unsigned long> c;
            for (int i = 0; i < 100; i++) { a.add(i % 7); b.add(i % 5); c.add(i % 3); }
            printf("%zu %zu %zu\n", a.m.size(), b.m.size(), c.m.size());
            try { std::string("x").at(7); } catch (std::exception &e) { puts("caught"); }
        }''', *SPLIT, *kind.cflags)
    icf(t, main, via='c++', args=['-Wl,--gc-sections', *kind.ldflags])
    t.run('app', expect='7 5 3\ncaught\n')
