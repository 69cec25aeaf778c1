"""What runs before main and after it: init_array, ctors, their priorities and their order."""

from kldtest import deviates
from kldtest import only

SAY = r'''
#include <stdio.h>
#include <stdlib.h>
#define SAYS(name, ...) __attribute__((__VA_ARGS__)) static void name(void) { puts(#name); }
#define CTOR(name, ...) SAYS(name, constructor __VA_ARGS__)
#define DTOR(name, ...) SAYS(name, destructor __VA_ARGS__)
'''


def test_priorities_across_files(t, compiler, kind):
    a = t.cc('a.o', SAY + r'''
        CTOR(a_none) CTOR(a_300, (300)) CTOR(a_1000, (1000))
        int main(void) { return 0; }''', *kind.cflags)
    b = t.cc('b.o', SAY + r'''
        CTOR(b_1001, (1001)) CTOR(b_none) CTOR(b_101, (101)) CTOR(b_20000, (20000))
        ''', *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect='b_101\na_300\na_1000\nb_1001\nb_20000\na_none\nb_none\n')


def test_destructors_run_in_reverse(t, compiler, kind):
    a = t.cc('a.o', SAY + r'''
        DTOR(a_none) DTOR(a_300, (300))
        int main(void) { puts("main"); return 0; }''', *kind.cflags)
    b = t.cc('b.o', SAY + 'DTOR(b_none) DTOR(b_101, (101))', *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect='main\nb_none\na_none\na_300\nb_101\n')


def test_equal_priorities_keep_the_command_line_order(t, kind):
    def ctor(name):
        return t.cc(f'{name}.o', SAY + f'CTOR({name}, (500))', *kind.cflags)
    main = t.cc('main.o', 'int main(void) { return 0; }', *kind.cflags)
    t.link('app', *kind.ldflags, ctor('c'), ctor('a'), main, ctor('b'))
    t.run('app', expect='c\na\nb\n')


def test_unpadded_priority_suffixes_sort_as_numbers(t):
    a = t.asm('a.o', r'''
        .section .init_array.200,"aw",%init_array
        .8byte two_hundred
        .section .init_array.3000,"aw",%init_array
        .8byte three_thousand
        .section .init_array.00150,"aw",%init_array
        .8byte one_fifty
        .section .note.GNU-stack,"",%progbits
        ''')
    b = t.cc('b.o', r'''
        #include <stdio.h>
        void two_hundred(void) { puts("200"); }
        void three_thousand(void) { puts("3000"); }
        void one_fifty(void) { puts("150"); }
        int main(void) { return 0; }
        ''')
    t.link('app', a, b)
    t.run('app', expect='150\n200\n3000\n')


CTORS = r'''
    .section .ctors,"aw",%progbits
    .8byte plain_one, plain_two
    .section .ctors.65435,"aw",%progbits
    .8byte early
    .section .dtors,"aw",%progbits
    .8byte at_end
    .section .note.GNU-stack,"",%progbits
'''
CTORS_MAIN = r'''
    #include <stdio.h>
    void plain_one(void) { puts("one"); }
    void plain_two(void) { puts("two"); }
    void early(void) { puts("early"); }
    void at_end(void) { puts("end"); }
    __attribute__((constructor)) static void modern(void) { puts("modern"); }
    int main(void) { puts("main"); return 0; }
'''


@deviates(lld='leaves .ctors to crtbegin.o, which no longer runs it')
def test_ctors_and_dtors_sections_run(t, kind):
    """They join .init_array and .fini_array; the entries of one .ctors run last to first."""
    a = t.asm('a.o', CTORS)
    b = t.cc('b.o', CTORS_MAIN, *kind.cflags)
    t.link('app', *kind.ldflags, b, a)
    t.run('app', expect='early\nmodern\ntwo\none\nmain\nend\n')


@deviates(lld='leaves .ctors to crtbegin.o, which no longer runs it')
def test_ctors_sections_run_in_a_shared_object(t):
    a = t.asm('a.o', CTORS)
    b = t.cc('b.o', CTORS_MAIN.replace('int main', 'int lib'), '-fPIC')
    t.link('liba.so', '-shared', a, b)
    t.link('app', t.cc('m.o', 'int lib(void); int main(void) { return lib(); }'), 'liba.so')
    t.run('app', expect='early\ntwo\none\nmodern\nmain\nend\n')


def test_relocatable_output_keeps_constructors(t, compiler, kind):
    a = t.cc('a.o', SAY + 'CTOR(a_none) CTOR(a_300, (300)) DTOR(d_a) int main(void) { return 0; }',
             *kind.cflags)
    b = t.cc('b.o', SAY + 'CTOR(b_101, (101)) CTOR(b_none)', *kind.cflags)
    t.ld('ab.o', '-r', a, b)
    t.link('app', *kind.ldflags, 'ab.o')
    t.run('app', expect='b_101\na_300\na_none\nb_none\nd_a\n')


# Functions that crt1.o adds to .preinit_array.
STARTUP = {'x86_64': 0, 'aarch64': 0, 'riscv64': 1}


def test_preinit_array_runs_first(t, compiler):
    a = t.cc('a.o', SAY + r'''
        CTOR(init_101, (101))
        static void preinit(void) { puts("preinit"); }
        __attribute__((section(".preinit_array"), used)) static void (*entry)(void) = preinit;
        int main(void) { return 0; }''')
    t.link('app', a)
    t.run('app', expect='preinit\ninit_101\n')
    assert t.elf('app').dyn('PREINIT_ARRAYSZ') == 8 + 8 * STARTUP[t.target.name]


def test_shared_object_constructors_run_before_the_program(t, compiler):
    lib = t.cc('lib.o', SAY + 'CTOR(library) DTOR(library_end) void f(void) {}', '-fPIC')
    t.link('liba.so', '-shared', lib)
    app = t.cc('app.o', SAY + r'''
        void f(void);
        CTOR(program) DTOR(program_end)
        int main(void) { f(); return 0; }''')
    t.link('app', app, 'liba.so')
    t.run('app', expect='library\nprogram\nprogram_end\nlibrary_end\n')


def test_dependencies_are_initialised_first(t):
    t.link('libbase.so', '-shared', t.cc('base.o', SAY + 'CTOR(base) void b(void) {}', '-fPIC'))
    t.link('libtop.so', '-shared',
           t.cc('top.o', SAY + 'void b(void); CTOR(top) void f(void) { b(); }', '-fPIC'),
           'libbase.so')
    t.link('app', t.cc('app.o', 'void f(void); int main(void) { f(); return 0; }'), 'libtop.so',
           'libbase.so')
    t.run('app', expect='base\ntop\n')


def test_init_and_fini_options(t, compiler):
    lib = t.cc('lib.o', SAY + r'''
        void begin(void) { puts("begin"); }
        void finish(void) { puts("finish"); }
        CTOR(array)
        void f(void) { puts("f"); }''', '-fPIC')
    t.link('liba.so', '-shared', '-Wl,-init,begin', '-Wl,-fini=finish', lib)
    elf = t.elf('liba.so')
    assert elf.dyn('INIT') == elf.symbol('begin').value
    assert elf.dyn('FINI') == elf.symbol('finish').value
    t.link('app', t.cc('app.o', 'void f(void); int main(void) { f(); return 0; }'), 'liba.so')
    if t.target.name == 'riscv64':  # whose ld.so knows the arrays only
        t.run('app', expect='array\nf\n')
    else:
        t.run('app', expect='begin\narray\nf\nfinish\n')


@only('x86_64', 'aarch64')  # others have no code there
def test_init_section_fragments_are_joined_in_order(t, kind):
    """Code that objects add to .init runs between the prologue of crti.o and the end in crtn.o."""
    a = t.asm('a.o', r'''
        .section .init,"ax",%progbits
            do_call from_init
        .section .note.GNU-stack,"",%progbits
        ''')
    b = t.cc('b.o', SAY + r'''
        void from_init(void) { puts("from .init"); }
        CTOR(array)
        int main(void) { return 0; }''', *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect='from .init\narray\n')


def test_array_bounds_symbols(t, compiler, kind):
    """A program may walk the arrays itself."""
    a = t.cc('a.o', r'''
        #include <stdio.h>
        extern void (*__init_array_start[])(void), (*__init_array_end[])(void);
        extern void (*__fini_array_start[])(void), (*__fini_array_end[])(void);
        extern void (*__preinit_array_start[])(void), (*__preinit_array_end[])(void);
        #pragma GCC visibility push(default)
        __attribute__((constructor)) static void one(void) {}
        __attribute__((constructor)) static void two(void) {}
        __attribute__((destructor)) static void last(void) {}
        int main(void)
        {
            int ones = 0;
            for (void (**p)(void) = __init_array_start; p < __init_array_end; p++)
                ones += *p == one || *p == two;
            printf("%d %d %d\n", ones, __fini_array_end - __fini_array_start >= 1,
                   (int)(__preinit_array_end - __preinit_array_start));
            return 0;
        }''', *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', expect=f'2 1 {STARTUP[t.target.name]}\n')


def test_constructors_survive_gc_sections(t, compiler, kind):
    a = t.cc('a.o', SAY + 'CTOR(one) CTOR(two, (200)) DTOR(three) int main(void) { return 0; }',
             '-ffunction-sections', *kind.cflags)
    t.link('app', *kind.ldflags, '-Wl,--gc-sections', a)
    t.run('app', expect='two\none\nthree\n')


def test_sections_of_init_array_have_their_type(t, compiler):
    a = t.cc('a.o', SAY + 'CTOR(one) CTOR(two, (200)) DTOR(three) int main(void) { return 0; }')
    t.link('app', a)
    elf = t.elf('app')
    assert elf.section('.init_array').type == 'INIT_ARRAY'
    assert elf.section('.fini_array').type == 'FINI_ARRAY'
    assert elf.dyn('INIT_ARRAY') == elf.section('.init_array').addr
    assert elf.dyn('INIT_ARRAYSZ') == elf.section('.init_array').size
    assert elf.dyn('FINI_ARRAY') == elf.section('.fini_array').addr
    assert not [n for n in elf.section_names() if n.startswith('.init_array.')]
