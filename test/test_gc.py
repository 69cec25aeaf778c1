"""--gc-sections: what is kept, what goes, and what is said about it."""

import pytest

from kldtest import deviates

GC = '-Wl,--gc-sections'
SPLIT = ('-ffunction-sections', '-fdata-sections')


def names(t, out='app'):
    return {s.name for s in t.elf(out).symbols if s.section != 'UNDEF'}


def gc(t, source, *args, cflags=(), lang='c'):
    obj = t.cc('a.o', source, *SPLIT, *cflags, lang=lang)
    return t.link('app', GC, *args, obj, via='c++' if lang == 'c++' else 'cc')


@deviates(strict=False, bfd='lets unwind records of clang for riscv64 keep functions')
def test_unreferenced_functions_and_data_go(t, compiler, kind):
    # clang for riscv64 has small data in one section all the same
    whole = ['-msmall-data-limit=0'] if t.target.name == 'riscv64' else []
    t.link('app', GC, *kind.ldflags, t.cc('a.o', '''
        int used_data = 1, unused_data = 2;
        int used(void) { return used_data; }
        int unused(void) { return unused_data; }
        int chain_b(void) { return unused(); }
        int chain_a(void) { return chain_b(); }
        int main(void) { return used() - 1; }''', '-O0', *SPLIT, *whole, *kind.cflags))
    t.run('app')
    assert {'used', 'used_data', 'main'} <= names(t)
    assert not {'unused', 'unused_data', 'chain_a', 'chain_b'} & names(t)


def test_cycles_that_nobody_enters_go(t):
    gc(t, 'void b(void); void a(void) { b(); } void b(void) { a(); } int main(void) { return 0; }')
    assert not {'a', 'b'} & names(t)


def test_nothing_goes_without_the_option(t):
    t.link('app', t.cc('a.o', 'void unused(void) {} int main(void) { return 0; }', *SPLIT))
    assert 'unused' in names(t)


def test_no_gc_sections_takes_it_back(t):
    gc(t, 'void unused(void) {} int main(void) { return 0; }', '-Wl,--no-gc-sections')
    assert 'unused' in names(t)


def test_constructors_and_what_they_need_stay(t, compiler):
    gc(t, r'''
        #include <stdio.h>
        static void say(const char *s) { puts(s); }
        __attribute__((constructor)) static void first(void) { say("first"); }
        __attribute__((constructor(200))) static void zeroth(void) { say("zeroth"); }
        __attribute__((destructor)) static void last(void) { say("last"); }
        int main(void) { return 0; }''')
    t.run('app', expect='zeroth\nfirst\nlast\n')


@pytest.mark.parametrize('section', ['.init_array', '.ctors', '.preinit_array', '.fini_array.00010'])
def test_tables_of_the_startup_code_stay(t, section):
    t.asm('a.o', f'''
        .section .text.f,"ax"
        .globl f
        f: ret
        .section {section},"aw"
        .8byte f
        .section .note.GNU-stack,""
        ''')
    t.link('app', GC, 'a.o', t.cc('m.o', 'int main(void) { return 0; }'))
    assert 'f' in names(t)


def test_retained_sections_stay(t):
    t.asm('a.o', '''
        .section .data.kept,"awR"
        .globl kept
        kept: .8byte from_kept
        .section .data.from_kept,"aw"
        .globl from_kept
        from_kept: .8byte 0
        .section .data.gone,"aw"
        .globl gone
        gone: .8byte 0
        .section .note.GNU-stack,""
        ''')
    t.link('app', GC, 'a.o', t.cc('m.o', 'int main(void) { return 0; }'))
    assert {'kept', 'from_kept'} <= names(t) and 'gone' not in names(t)


@deviates(lld='keeps no --require-defined', strict=False)
@pytest.mark.parametrize('option', ['-u', '--undefined', '--require-defined'])
def test_symbols_asked_for_stay(t, option):
    gc(t, 'void kept(void) {} void gone(void) {} int main(void) { return 0; }',
       f'-Wl,{option},kept')
    assert 'kept' in names(t) and 'gone' not in names(t)


def test_the_entry_point_is_the_root(t):
    t.cc('a.o', 'void mine(void) {} void _start(void) {} ', *SPLIT)
    t.ld('app', '--gc-sections', '-e', 'mine', 'a.o')
    assert 'mine' in names(t) and '_start' not in names(t)


def test_exported_symbols_of_a_library_stay(t, compiler):
    t.link('lib.so', '-shared', GC, t.cc('a.o', '''
        static void helper(void) {}
        void exported(void) { helper(); }
        __attribute__((visibility("hidden"))) void hidden(void) {}
        static void __attribute__((used)) unreferenced(void) {}''', '-O0', '-fPIC', *SPLIT))
    assert {'exported', 'helper'} <= names(t, 'lib.so')
    assert 'hidden' not in names(t, 'lib.so')


def test_symbols_that_a_library_refers_to_stay(t):
    t.link('lib.so', '-shared', t.cc('l.o', 'void back(void); void f(void) { back(); }', '-fPIC'))
    main = t.cc('a.o', 'void f(void); void back(void) {} void other(void) {} '
                'int main(void) { f(); return 0; }', *SPLIT)
    t.link('app', GC, main, 'lib.so')
    t.run('app')
    assert 'back' in names(t) and 'other' not in names(t)


def test_export_dynamic_keeps(t):
    gc(t, 'void kept(void) {} int main(void) { return 0; }', '-rdynamic')
    assert 'kept' in names(t)


# -- __start_ and __stop_ -----------------------------------------------------------------------

WALKED = '''
    #include <stdio.h>
    __attribute__((section("things"), used)) static const char *a = "a";
    __attribute__((section("things"), used)) static const char *b = "b";
    __attribute__((section("others"), used)) static const char *c = "c";
    extern const char *__start_things[], *__stop_things[];
    void walk(void) { for (const char **p = __start_things; p < __stop_things; p++) puts(*p); }
    '''


@deviates(lld='has -z start-stop-gc as its default')
def test_a_walked_section_stays_whole(t, compiler, kind):
    main = t.cc('main.o', WALKED + 'int main(void) { walk(); }', *SPLIT, *kind.cflags)
    other = t.cc('o.o', '__attribute__((section("things"), used)) static const char *d = "d";',
                 *SPLIT, *kind.cflags)
    t.link('app', GC, *kind.ldflags, main, other)
    t.run('app', expect='a\nb\nd\n')


def test_a_section_nobody_walks_goes(t):
    t.cc('a.o', WALKED + 'int main(void) { return 0; }', *SPLIT)
    t.asm('b.o', '''
        .section unwalked,"aw"
        .8byte 1
        .section .note.GNU-stack,""
        ''')
    t.link('app', GC, 'a.o', 'b.o')
    assert not t.elf('app').section('unwalked')


def test_start_stop_gc_lets_it_go(t):
    t.asm('a.o', '''
        .section things,"aw"
        .8byte 1
        .section .note.GNU-stack,""
        ''')
    t.cc('m.o', '__attribute__((weak)) extern char __start_things[]; '
         'int main(void) { return __start_things != 0; }')
    t.link('app', GC, '-Wl,-z,start-stop-gc', 'a.o', 'm.o')
    assert not t.elf('app').section('things')
    t.link('kept', GC, '-Wl,-z,nostart-stop-gc', 'a.o', 'm.o')
    assert t.elf('kept').section('things').size == 8


# -- groups and linked sections -----------------------------------------------------------------

def test_a_group_stays_as_a_whole(t):
    t.asm('a.o', '''
        .section .text.f,"axG",%progbits,group,comdat
        .globl f
        f: ret
        .section .data.with_f,"awG",%progbits,group,comdat
        .globl with_f
        with_f: .8byte 1
        .section .text.g,"axG",%progbits,other,comdat
        .globl g
        g: ret
        .section .data.with_g,"awG",%progbits,other,comdat
        .globl with_g
        with_g: .8byte 1
        .section .note.GNU-stack,""
        ''')
    t.link('app', GC, 'a.o', t.cc('m.o', 'void f(void); int main(void) { f(); return 0; }'))
    assert {'f', 'with_f'} <= names(t)
    assert not {'g', 'with_g'} & names(t)


def test_linked_sections_follow_what_they_describe(t):
    t.asm('a.o', '''
        .section .text.f,"ax",%progbits
        .globl f
        f: ret
        .section about,"ao",%progbits,.text.f
        .8byte 1
        .section .text.g,"ax",%progbits
        .globl g
        g: ret
        .section about_g,"ao",%progbits,.text.g
        .8byte 2
        .section .note.GNU-stack,""
        ''')
    t.link('app', GC, 'a.o', t.cc('m.o', 'void f(void); int main(void) { f(); return 0; }'))
    assert t.elf('app').section('about').size == 8
    assert not t.elf('app').section('about_g')


def test_notes_stay(t):
    t.asm('a.o', '''
        .section .note.mine,"a",%note
        .4byte 4, 4, 1
        .asciz "abc"
        .4byte 7
        .section .note.GNU-stack,""
        ''')
    t.link('app', GC, 'a.o', t.cc('m.o', 'int main(void) { return 0; }'))
    assert t.elf('app').note('abc', 1) == b'\7\0\0\0'


# -- unwind and debug information ---------------------------------------------------------------

def test_exceptions_still_work(t, compiler, kind):
    if kind.name.startswith('static') and compiler == 'clang':
        pytest.skip('one compiler is enough here')
    main = t.cxx('a.o', r'''
        #include <cstdio>
        struct Guard { ~Guard() { puts("guard"); } };
        static void thrower() { Guard g; throw 42; }
        void never() { try { thrower(); } catch (...) { puts("never"); } }
        int main() { try { thrower(); } catch (int i) { printf("%d\n", i); } }
        ''', *SPLIT, *kind.cflags)
    t.link('app', GC, *kind.ldflags, main, via='c++')
    t.run('app', expect='guard\n42\n')
    assert '_Z5neverv' not in names(t)


def test_unwind_records_keep_no_function(t):
    gc(t, 'void f(int *); void unused(void) { int i; f(&i); } int main(void) { return 0; }',
       cflags=['-fexceptions'])
    assert 'unused' not in names(t)
    assert '.eh_frame' in t.elf('app').section_names()


def test_debug_information_keeps_nothing_and_stays(t, compiler):
    gc(t, 'int unused(void) { return 1; } int main(void) { return 0; }', cflags=['-g'])
    assert 'unused' not in names(t)
    assert 'DW_AT_name\t("unused")' in t.tool('llvm-dwarfdump', '--debug-info', 'app').stdout
    t.tool('llvm-dwarfdump', '--verify', 'app')


# -- messages -----------------------------------------------------------------------------------

@deviates(bfd='says it differently')
def test_print_gc_sections_in_input_order(t):
    for n in 'abc':
        t.cc(f'{n}.o', f'void {n}1(void) {{}} void {n}2(void) {{}}', *SPLIT)
    t.ar('lib.a', 'c.o')
    main = t.cc('m.o', 'void c1(void); int main(void) { c1(); return 0; }')
    done = t.link('app', GC, '-Wl,--print-gc-sections', main, 'b.o', 'a.o', 'lib.a')
    lines = [line for line in (done.stdout + done.stderr).split('\n')
             if 'removing unused section' in line and '.text.' in line]
    assert [line.split('section ', 1)[1] for line in lines] == [
        'b.o:(.text.b1)', 'b.o:(.text.b2)', 'a.o:(.text.a1)', 'a.o:(.text.a2)',
        'lib.a(c.o):(.text.c2)']
