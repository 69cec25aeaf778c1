"""STT_GNU_IFUNC: functions whose address is chosen at start-up."""

import pytest

from kldtest import KINDS
from kldtest import deviates
from kldtest import only

IFUNC = r'''
    static int fast(int n) { return n + 1; }
    static int slow(int n) { return n + 2; }
    int choose_fast = 1;
    static int (*resolve(void))(int) { return sizeof(long) == 8 ? fast : slow; }
    int chosen(int n) __attribute__((ifunc("resolve")));
'''
STATIC_IFUNC = IFUNC.replace('int chosen(', 'static int chosen(')


def test_call_within_one_file(t, compiler, kind, opt):
    a = t.cc('a.o', IFUNC + 'int main(void) { return chosen(10); }', opt, *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', status=11)


def test_call_from_another_file(t, compiler, kind, opt):
    a = t.cc('a.o', IFUNC, opt, *kind.cflags)
    b = t.cc('b.o', 'int chosen(int); int main(void) { return chosen(10); }', opt, *kind.cflags)
    t.link('app', *kind.ldflags, b, a)
    t.run('app', status=11)


def test_call_without_plt(t, compiler, kind):
    a = t.cc('a.o', IFUNC, *kind.cflags)
    b = t.cc('b.o', 'int chosen(int); int main(void) { return chosen(10); }', '-fno-plt', '-O2',
             *kind.cflags)
    t.link('app', *kind.ldflags, b, a)
    t.run('app', status=11)


def test_static_ifunc(t, compiler, kind, opt):
    a = t.cc('a.o', STATIC_IFUNC + r'''
        int (*volatile p)(int) = chosen;
        int main(void) { return chosen(10) + p(20); }''', opt, *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', status=32)


@deviates(strict=False, bfd='a pointer in the data of a PIE differs from one in the code')
def test_address_is_the_same_everywhere(t, compiler, kind, opt):
    """From code, from initialised data, and from another file."""
    a = t.cc('a.o', IFUNC + r'''
        typedef int fn(int);
        fn *here(void) { return chosen; }
        fn *const in_data = chosen;
        ''', opt, *kind.cflags)
    b = t.cc('b.o', r'''
        #include <stdio.h>
        typedef int fn(int);
        fn chosen, *here(void);
        extern fn *const in_data;
        static fn *in_data_too = chosen;
        int main(void)
        {
            fn *mine = chosen;
            printf("%d%d%d %d %d\n", mine == here(), mine == in_data, mine == in_data_too,
                   mine(10), in_data(20) + chosen(30));
            return 0;
        }''', opt, *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect='111 11 52\n')


def test_many_ifuncs(t, kind):
    count = 40
    a = t.cc('a.o', ''.join(f'''
        static int impl{i}(void) {{ return {i}; }}
        static int (*resolve{i}(void))(void) {{ return impl{i}; }}
        int f{i}(void) __attribute__((ifunc("resolve{i}")));
        ''' for i in range(count)), *kind.cflags)
    table = ', '.join(f'f{i}' for i in range(count))
    b = t.cc('b.o', ''.join(f'int f{i}(void);' for i in range(count)) + f'''
        int (*const table[])(void) = {{ {table} }};
        int main(void)
        {{
            for (int i = 0; i < {count}; i++)
                if (table[i]() != i)
                    return 1;
            return {' + '.join(f'f{i}()' for i in range(count))} == {sum(range(count))} ? 7 : 2;
        }}''', *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', status=7)


@pytest.mark.parametrize('mode', ['now', 'lazy'])
def test_exported_by_a_shared_object(t, compiler, mode):
    t.link('liba.so', '-shared', f'-Wl,-z,{mode}', t.cc('a.o', IFUNC, '-fPIC'))
    assert t.elf('liba.so').dynsym('chosen').type == 'IFUNC'
    b = t.cc('b.o', 'int chosen(int); int main(void) { return chosen(10); }')
    t.link('app', f'-Wl,-z,{mode}', b, 'liba.so')
    t.run('app', status=11)


def test_used_inside_a_shared_object(t, compiler):
    t.link('liba.so', '-shared', t.cc('a.o', IFUNC + r'''
        static int (*const pointer)(int) = chosen;
        int use(void) { return chosen(1) + pointer(2); }''', '-fPIC'))
    b = t.cc('b.o', 'int use(void); int main(void) { return use(); }')
    t.link('app', b, 'liba.so')
    t.run('app', status=5)


def test_hidden_in_a_shared_object(t, compiler):
    """Nobody can interpose it: IRELATIVE relocations, no symbol lookup."""
    hidden = IFUNC.replace('int chosen(', '__attribute__((visibility("hidden"))) int chosen(')
    t.link('liba.so', '-shared', t.cc('a.o', hidden + r'''
        int (*pointer)(int) = chosen;
        int use(void) { return chosen(1) + pointer(2); }''', '-fPIC'))
    elf = t.elf('liba.so')
    assert 'chosen' not in elf.exports()
    assert 'IRELATIVE' in [r.kind for r in elf.dynrelocs]
    b = t.cc('b.o', 'int use(void); int main(void) { return use(); }')
    t.link('app', b, 'liba.so')
    t.run('app', status=5)


@deviates(strict=False, bfd='ld.so refuses the PIE')
@pytest.mark.parametrize('pie', [('-fPIE', '-pie'), ('-fno-pie', '-no-pie')], ids=['pie', 'no-pie'])
def test_address_agrees_between_program_and_library(t, compiler, pie):
    """The program defines the function, the library refers to it."""
    t.link('liba.so', '-shared', t.cc('l.o', r'''
        typedef int fn(int);
        fn chosen;
        fn *theirs(void) { return chosen; }''', '-fPIC'))
    a = t.cc('a.o', IFUNC + r'''
        typedef int fn(int);
        fn *theirs(void);
        int main(void) { return theirs() == chosen ? theirs()(4) : 1; }''', pie[0])
    t.link('app', pie[1], a, 'liba.so')
    t.run('app', status=5)


def test_address_of_imported_ifunc_agrees(t, compiler):
    """The library defines the function, a non-PIC program takes its address."""
    t.link('liba.so', '-shared', t.cc('l.o', IFUNC + r'''
        typedef int fn(int);
        fn *theirs(void) { return chosen; }''', '-fPIC'))
    a = t.cc('a.o', r'''
        typedef int fn(int);
        fn chosen, *theirs(void);
        int main(void) { return theirs() == chosen ? theirs()(4) : 1; }''', '-fno-pie')
    t.link('app', '-no-pie', a, 'liba.so')
    t.run('app', status=5)


def test_weak_ifunc_yields_to_a_function(t, kind):
    a = t.cc('a.o', IFUNC, *kind.cflags)
    t.objcopy('--weaken-symbol=chosen', a)
    b = t.cc('b.o', 'int chosen(int n) { return n; } int main(void) { return chosen(10); }',
             *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', status=10)


@deviates(strict=False, bfd='has holes in the table for riscv64')
def test_pointer_relocation_in_static_program_is_irelative(t):
    kind = KINDS['static']
    a = t.cc('a.o', IFUNC + 'int main(void) { return chosen(10); }', *kind.cflags)
    t.link('app', *kind.ldflags, a)
    elf = t.elf('app')
    start, end = elf.symbol('__rela_iplt_start'), elf.symbol('__rela_iplt_end')
    relocs = next((s for s in elf.sections if s.type == 'RELA'), None)
    assert relocs, 'there is no table of relocations'
    assert {r.kind for r in elf.relocs_in(relocs.name)} == {'IRELATIVE'}
    if start and end:
        assert (start.value, end.value) == (relocs.addr, relocs.end)
    t.run('app', status=11)


def test_no_irelative_table_bounds_in_dynamic_programs(t):
    """ld.so applies these; a start file that did so again would call the resolvers twice."""
    a = t.cc('a.o', r'''
        extern char start[] __asm__("__rela_iplt_start") __attribute__((weak));
        extern char end[] __asm__("__rela_iplt_end") __attribute__((weak));
        ''' + IFUNC + r'''
        int main(void) { return (int)(end - start) + chosen(2); }''', '-fPIE')
    t.link('app', '-pie', a)
    t.run('app', status=3)


@only('x86_64')
def test_absolute_address_of_ifunc_in_code(t):
    """mov $chosen, %eax: the function needs an entry whose address is a constant."""
    a = t.cc('a.o', IFUNC, '-fno-pie')
    b = t.asm('b.o', r'''
        .globl main
        main:
            push %rbx
            mov $chosen, %eax
            mov $10, %edi
            call *%rax
            pop %rbx
            ret
        .section .note.GNU-stack,"",@progbits
        ''')
    for kind in (KINDS['static'], KINDS['no-pie']):
        t.link('app', *kind.ldflags, a, b)
        t.run('app', status=11)
