"""Which definition a name gets, which names are missing or defined too often, and the options that
bend these rules."""

import re

import pytest

from kldtest import KINDS
from kldtest import deviates
from kldtest import only

# Prints nothing, answers with the value of `x`.
RETURNS_X = 'extern int x; int main(void) { return x; }'
CALLS_F = 'int f(void); int main(void) { return f(); }'


def shared(t, name, source, *args):
    t.link(name, '-shared', t.cc(f'{name}.o', source, '-fPIC'), *args)
    return name


# -- strong, weak, common -----------------------------------------------------------------------

STRONG = 'int x = 1;'
WEAK = '__attribute__((weak)) int x = 2;'
COMMON = 'int x;'
LIBRARY_VALUE = 5


@pytest.mark.parametrize('first, second, value', [
    pytest.param(STRONG, WEAK, 1, id='strong-weak'),
    pytest.param(WEAK, STRONG, 1, id='weak-strong'),
    pytest.param(STRONG, COMMON, 1, id='strong-common'),
    pytest.param(COMMON, STRONG, 1, id='common-strong'),
    pytest.param(WEAK, COMMON, 0, id='weak-common'),
    pytest.param(COMMON, WEAK, 0, id='common-weak'),
    pytest.param(COMMON, COMMON, 0, id='common-common'),
    pytest.param(WEAK, WEAK.replace('2', '3'), 2, id='weak-weak'),
])
def test_precedence_of_definitions(t, compiler, first, second, value):
    a = t.cc('a.o', first, '-fcommon')
    b = t.cc('b.o', second, '-fcommon')
    m = t.cc('m.o', RETURNS_X)
    t.link('app', m, a, b)
    t.run('app', status=value)


@pytest.mark.parametrize('source', [STRONG, WEAK], ids=['strong', 'weak'])
@pytest.mark.parametrize('library_first', [True, False])
def test_definition_in_an_object_beats_a_shared_object(t, source, library_first):
    """Even a weak one, and whichever comes first."""
    shared(t, 'libx.so', f'int x = {LIBRARY_VALUE};')
    a = t.cc('a.o', source)
    inputs = ['libx.so', a] if library_first else [a, 'libx.so']
    t.link('app', '-Wl,--no-as-needed', t.cc('m.o', RETURNS_X), *inputs)
    t.run('app', status=1 if source == STRONG else 2)


def test_first_shared_object_wins(t):
    """Also when its definition is weak."""
    shared(t, 'libone.so', '__attribute__((weak)) int f(void) { return 1; }')
    shared(t, 'libtwo.so', 'int f(void) { return 2; }')
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, 'libone.so', 'libtwo.so')
    t.run('app', status=1)


def test_size_of_common_grows_after_the_fact(t, compiler):
    """The largest of all sizes counts, whatever the order."""
    small = t.cc('small.o', 'char buffer[8];', '-fcommon')
    large = t.cc('large.o', 'char buffer[800];', '-fcommon')
    for out, order in (('app1', (small, large)), ('app2', (large, small))):
        t.link(out, t.cc('m.o', 'int main(void) { return 0; }'), *order)
        assert t.elf(out).symbol('buffer').size == 800


def test_weak_reference_binds_to_a_shared_object(t, compiler):
    shared(t, 'libf.so', 'int f(void) { return 3; }')
    m = t.cc('m.o', r'''
        __attribute__((weak)) int f(void);
        int main(void) { return f ? f() : 9; }''', '-fPIC')
    t.link('app', '-Wl,--no-as-needed', m, 'libf.so')
    assert t.elf('app').dynsym('f').bind == 'WEAK'
    t.run('app', status=3)
    shared(t, 'libf.so', 'int other(void) { return 3; }')
    t.run('app', status=9)


def test_strong_reference_in_one_object_makes_it_strong(t):
    shared(t, 'libf.so', 'int f(void) { return 3; }')
    a = t.cc('a.o', '__attribute__((weak)) int f(void); int g(void) { return f(); }', '-fPIC')
    b = t.cc('b.o', 'int f(void); int g(void); int main(void) { return f() + g(); }', '-fPIC')
    t.link('app', a, b, 'libf.so')
    assert t.elf('app').dynsym('f').bind == 'GLOBAL'
    t.run('app', status=6)


def test_symbol_types_are_kept(t):
    shared(t, 'liba.so', 'int data = 1; int zero; int function(void) { return 1; }'
           '__thread int local = 1; __attribute__((weak)) int weak_data = 2;')
    elf = t.elf('liba.so')
    assert elf.dynsym('data')[3:5] == ('GLOBAL', 'OBJECT')
    assert elf.dynsym('zero').section == '.bss'
    assert elf.dynsym('function')[3:5] == ('GLOBAL', 'FUNC')
    assert elf.dynsym('local')[3:5] == ('GLOBAL', 'TLS')
    assert elf.dynsym('weak_data')[3:5] == ('WEAK', 'OBJECT')


# -- errors -------------------------------------------------------------------------------------

def test_duplicate_definition_names_both_files(t, compiler):
    a = t.cc('first.o', 'int f(void) { return 1; }')
    b = t.cc('second.o', 'int f(void) { return 2; }')
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, a, b, ok=False).says('f', 'first.', 'second.')


def test_duplicate_definition_in_an_archive_member(t):
    """A member that is needed for one name defines another name again."""
    t.ar('liba.a', t.cc('member.o', 'int g(void) { return 1; } int f(void) { return 2; }'))
    m = t.cc('m.o', 'int g(void); int f(void) { return 3; } int main(void) { return f() + g(); }')
    t.link('app', m, 'liba.a', ok=False).says('f', 'm.', 'member.')


def test_undefined_symbol_names_the_place(t, compiler):
    a = t.cc('a.o', 'int missing_thing(void); int caller(void) { return missing_thing(); }')
    m = t.cc('m.o', 'int caller(void); int main(void) { return caller(); }')
    t.link('app', m, a, ok=False).says('undefined', 'missing_thing', 'caller', 'a.')


def test_undefined_symbol_names_the_line(t, compiler):
    m = t.cc('m.o', 'int missing(void);\n\nint main(void)\n{\n    return missing();\n}\n', '-g')
    t.link('app', m, ok=False).says('m.c:5')


def test_all_undefined_symbols_are_reported(t):
    m = t.cc('m.o', 'int one(void), two(void), three(void);'
             'int main(void) { return one() + two() + three(); }')
    t.link('app', m, ok=False).says('one', 'two', 'three')


def test_unused_undefined_symbol_is_no_error(t):
    """A declaration without a reference leaves an undefined symbol without relocation."""
    t.asm('a.o', '.globl nowhere\n.section .note.GNU-stack,"",%progbits\n')
    t.cc('m.o', 'int main(void) { return 4; }')
    t.link('app', 'm.o', 'a.o')
    t.run('app', status=4)


def test_shared_objects_may_have_undefined_symbols(t, compiler):
    shared(t, 'liba.so', 'int missing(void); int f(void) { return missing(); }')
    assert 'missing' in t.elf('liba.so').imports()


@pytest.mark.parametrize('option', ['-Wl,-z,defs', '-Wl,--no-undefined'])
def test_no_undefined_symbols_in_a_shared_object(t, option):
    a = t.cc('a.o', 'int missing(void); int f(void) { return missing(); }', '-fPIC')
    t.link('liba.so', '-shared', option, a, ok=False).says('missing', 'a.')
    t.link('libb.so', '-shared', option, a, t.cc('b.o', 'int missing(void) { return 1; }', '-fPIC'))


def test_undefs_overrides_defs(t):
    a = t.cc('a.o', 'int missing(void); int f(void) { return missing(); }', '-fPIC')
    t.link('liba.so', '-shared', '-Wl,-z,defs', '-Wl,-z,undefs', a)


def test_undefined_symbols_of_shared_objects_are_errors(t):
    """A program must be complete with its libraries (--no-allow-shlib-undefined)."""
    shared(t, 'liba.so', 'int missing(void); int f(void) { return missing(); }')
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, 'liba.so', ok=False).says('missing', 'liba.so')
    t.link('app', m, 'liba.so', '-Wl,--allow-shlib-undefined')
    t.link('liba2.so', '-shared', m, 'liba.so')


@deviates(lld='asks for the library to need the other one itself')
def test_undefined_symbols_of_shared_objects_that_another_brings(t):
    """What is not named here, but needed by another library, has the symbol."""
    shared(t, 'libc2.so', 'int found(void) { return 3; }', '-Wl,-soname,libc2.so')
    shared(t, 'liba.so', 'int found(void); int f(void) { return found(); }', '-Wl,-soname,liba.so')
    b = t.cc('b.o', 'int found(void); int g(void) { return found(); }', '-fPIC')
    t.link('libb.so', '-shared', b, 'libc2.so', '-Wl,-soname,libb.so')
    m = t.cc('m.o', 'int f(void), g(void); int main(void) { return f() + g(); }')
    t.link('app', m, 'liba.so', 'libb.so', '-Wl,-rpath-link,.')
    t.run('app', status=6)


@pytest.mark.parametrize('option', ['-z muldefs', '--allow-multiple-definition'])
def test_multiple_definitions_on_request(t, option):
    a = t.cc('a.o', 'int f(void) { return 1; }')
    b = t.cc('b.o', 'int f(void) { return 2; }')
    m = t.cc('m.o', CALLS_F)
    option = '-Wl,' + option.replace(' ', ',')
    t.link('app', option, m, a, b)
    t.run('app', status=1)
    t.link('app', option, m, b, a)
    t.run('app', status=2)


@pytest.mark.parametrize('name', ['pie', 'no-pie'])
@deviates(strict=False, bfd='ld.so refuses the PIE')
def test_unresolved_symbols_ignored_everywhere(t, name):
    kind = KINDS[name]
    m = t.cc('m.o', r'''
        int missing(void);
        int main(int argc, char **argv) { return argc > 1 ? missing() : 6; }''', *kind.cflags)
    t.link('app', *kind.ldflags, '-Wl,--unresolved-symbols=ignore-all', m).silent()
    t.run('app', status=6)
    t.link('app', *kind.ldflags, '-Wl,--unresolved-symbols=report-all', m, ok=False).says('missing')


def test_unresolved_symbols_ignored_in_objects(t):
    shared(t, 'liba.so', 'int gone(void); int f(void) { return gone(); }')
    m = t.cc('m.o', r'''
        int missing(void), f(void);
        int main(int argc, char **argv) { return argc > 1 ? missing() : argc > 2 ? f() : 6; }''')
    t.link('app', '-Wl,--unresolved-symbols=ignore-in-object-files', m, 'liba.so', ok=False) \
        .says('gone')
    t.link('app', '-Wl,--unresolved-symbols=ignore-in-shared-libs', m, 'liba.so', ok=False) \
        .says('missing')
    t.link('app', '-Wl,--unresolved-symbols=ignore-all', m, 'liba.so')


def test_warn_unresolved_symbols(t):
    m = t.cc('m.o', r'''
        int missing(void);
        int main(int argc, char **argv) { return argc > 1 ? missing() : 6; }''', '-fno-pie')
    t.link('app', '-no-pie', '-Wl,--warn-unresolved-symbols', m).says('warning', 'missing')
    t.run('app', status=6)
    t.link('app', '-Wl,--warn-unresolved-symbols', '-Wl,--error-unresolved-symbols', m, ok=False)


def test_fatal_warnings(t):
    m = t.cc('m.o', 'int missing(void); int main(void) { return missing(); }')
    t.link('app', '-Wl,--warn-unresolved-symbols', '-Wl,--fatal-warnings', m, ok=False)
    t.link('app', '-Wl,--warn-unresolved-symbols', '-Wl,--fatal-warnings',
           '-Wl,--no-fatal-warnings', m)


def test_warn_common(t):
    a, b = (t.cc(n, s, '-fcommon') for n, s in
            (('a.o', 'int buffer[4];'), ('b.o', 'int buffer[40];')))
    m = t.cc('m.o', 'int main(void) { return 0; }')
    t.link('app', '-Wl,--warn-common', m, a, b).says('warning', 'buffer')
    t.link('app', m, a, b).silent()


# -- names given on the command line ------------------------------------------------------------

def test_defsym_with_a_number(t):
    m = t.cc('m.o', 'extern char x[]; int main(void) { return (int)(long)x; }', '-fno-pie')
    t.link('app', '-no-pie', '-Wl,--defsym=x=0x2a', m)
    t.run('app', status=42)
    assert t.elf('app').symbol('x')[1] == 42 and t.elf('app').symbol('x').section == 'ABS'


def test_defsym_with_a_symbol(t, compiler, kind):
    m = t.cc('m.o', 'int g(void) { return 8; } ' + CALLS_F, *kind.cflags)
    t.link('app', *kind.ldflags, '-Wl,--defsym=f=g', m)
    t.run('app', status=8)


@pytest.mark.parametrize('expression, value', [
    ('1+2*3', 7),
    ('(1+2)*3', 9),
    ('0x10-6', 10),
    ('100/7%5', 4),
    ('1<<4|3', 19),
    ('~0&0x1f', 31),
    pytest.param('5>3?11:12', 11, marks=deviates(lld='wants spaces')),
    ('7==7&&2!=3', 1),
    ('2K/64', 32),
    ('-3+10', 7),
    ('!0', 1),
    pytest.param('017', 15, marks=deviates(lld='reads it as decimal')),
])
def test_defsym_with_an_expression(t, expression, value):
    m = t.cc('m.o', 'extern char x[]; int main(void) { return (int)(long)x; }', '-fno-pie')
    t.link('app', '-no-pie', f'-Wl,--defsym=x={expression}', m)
    t.run('app', status=value)


def test_defsym_with_a_symbol_and_an_offset(t, kind):
    m = t.cc('m.o', 'int table[] = { 1, 2, 3 }; ' + RETURNS_X, *kind.cflags)
    t.link('app', *kind.ldflags, '-Wl,--defsym=x=table+8', m)
    t.run('app', status=3)


@deviates(lld='extracts the member')
def test_defsym_overrides_a_reference_to_an_archive(t):
    """A name that is defined by the option needs no member."""
    t.ar('liba.a', t.cc('member.o', 'int f(void) { return 1; } int extra(void) { return 0; }'))
    m = t.cc('m.o', 'int g(void) { return 5; } ' + CALLS_F)
    t.link('app', m, '-Wl,--defsym=f=g', 'liba.a')
    t.run('app', status=5)
    assert t.elf('app').symbol('extra') is None


def test_defsym_of_an_undefined_symbol(t):
    m = t.cc('m.o', RETURNS_X)
    t.link('app', '-Wl,--defsym=x=nowhere', m, ok=False).says('nowhere')


def test_defsym_is_exported_by_a_shared_object(t):
    shared(t, 'liba.so', 'int g(void) { return 7; }', '-Wl,--defsym=f=g')
    t.link('app', t.cc('m.o', CALLS_F), 'liba.so')
    t.run('app', status=7)


def test_wrap(t, compiler, kind):
    """References to f become __wrap_f, those to __real_f become f; definitions stay."""
    m = t.cc('m.o', r'''
        int f(int);
        int __real_f(int);
        int __wrap_f(int n) { return __real_f(n + 1) * 2; }
        int main(void) { return f(4); }''', *kind.cflags)
    a = t.cc('a.o', 'int f(int n) { return n; }', *kind.cflags)
    t.link('app', *kind.ldflags, '-Wl,--wrap=f', m, a)
    t.run('app', status=10)


def test_wrap_library_function(t, compiler):
    m = t.cc('m.o', r'''
        #include <stdlib.h>
        void *__real_malloc(size_t);
        static int calls;
        void *__wrap_malloc(size_t size) { calls++; return __real_malloc(size); }
        int main(void) { free(malloc(3)); free(malloc(4)); return calls; }''', '-fno-builtin')
    t.link('app', '-Wl,--wrap,malloc', m)
    t.run('app', status=2)
    assert '__wrap_malloc' not in t.elf('app').imports()


@deviates(lld='wraps them too')
def test_wrap_leaves_references_within_the_defining_object(t):
    """f is defined and called in the same file: the call was resolved by the assembler's symbol."""
    a = t.cc('a.o', 'int f(void) { return 1; } int g(void) { return f(); }')
    m = t.cc('m.o', 'int g(void); int __wrap_f(void) { return 2; } int main(void) { return g(); }')
    t.link('app', '-Wl,--wrap=f', m, a)
    t.run('app', status=1)


def test_wrap_extracts_from_an_archive(t):
    t.ar('libwrap.a', t.cc('w.o', 'int __real_f(void);'
                           'int __wrap_f(void) { return __real_f() + 1; }'))
    t.ar('libf.a', t.cc('f.o', 'int f(void) { return 4; }'))
    t.link('app', t.cc('m.o', CALLS_F), '-Wl,--wrap=f', 'libwrap.a', 'libf.a')
    t.run('app', status=5)


def test_wrap_of_an_unknown_name_changes_nothing(t):
    t.link('app', '-Wl,--wrap=unheard_of', t.cc('m.o', CALLS_F + ' int f(void) { return 3; }'))
    t.run('app', status=3)


@pytest.mark.parametrize('option', [
    '-Wl,-u,f',
    '-Wl,--undefined=f',
    pytest.param('-Wl,--require-defined=f', marks=deviates(lld='lld 14 does not know the option')),
])
def test_undefined_option_extracts_members(t, option):
    t.ar('liba.a', t.cc('f.o', 'int f(void) { return 4; }'),
         t.cc('g.o', 'int g(void) { return 4; }'))
    t.link('app', option, t.cc('m.o', 'int main(void) { return 0; }'), 'liba.a')
    assert t.elf('app').symbol('f') and not t.elf('app').symbol('g')


def test_undefined_option_keeps_sections(t):
    m = t.cc('m.o', 'int kept(void) { return 1; } int gone(void) { return 2; } '
             'int main(void) { return 0; }', '-ffunction-sections')
    t.link('app', '-Wl,--gc-sections', '-Wl,-u,kept', m)
    assert t.elf('app').symbol('kept') and not t.elf('app').symbol('gone')


def test_undefined_option_alone_is_no_error(t):
    t.link('app', '-Wl,-u,nowhere', t.cc('m.o', 'int main(void) { return 2; }'))
    t.run('app', status=2)


def test_require_defined_is_an_error_otherwise(t):
    t.link('app', '-Wl,--require-defined=nowhere', t.cc('m.o', 'int main(void) { return 2; }'),
           ok=False).says('nowhere')


@deviates(bfd='not known to GNU ld')
def test_undefined_glob(t):
    t.ar('liba.a', t.cc('f.o', 'int plug_one(void) { return 4; }'),
         t.cc('g.o', 'int plug_two(void) { return 4; }'),
         t.cc('h.o', 'int other(void) { return 4; }'))
    m = t.cc('m.o', 'int main(void) { return 0; }')
    t.link('app', '-Wl,--undefined-glob=plug_*', m, 'liba.a')
    names = {s.name for s in t.elf('app').symbols}
    assert {'plug_one', 'plug_two'} <= names and 'other' not in names


@deviates(lld='lld 14 does not know the option')
def test_just_symbols_of_a_program(t):
    """The addresses of another output, none of its content."""
    t.link('kernel', '-nostdlib', '-static', '-no-pie', '-Wl,-e,service', '-Wl,--build-id=none',
           t.cc('k.o', 'int service(void) { return 1; } int data = 4;', '-fno-pie'))
    m = t.cc('m.o', r'''
        #include <stdio.h>
        extern int service(void), data;
        int main(void) { printf("%p %p\n", (void *)service, (void *)&data); return 0; }
        ''', '-fno-pie')
    t.link('app', '-no-pie', m, '-Wl,-R,kernel')
    kernel = t.elf('kernel')
    t.run('app', expect=f'{kernel.symbol("service").value:#x} {kernel.symbol("data").value:#x}\n')
    assert t.elf('app').symbol('data').section == 'ABS'


def test_binary_input(t, kind):
    t.write('some-data.txt', 'the quick brown fox')
    m = t.cc('m.o', r'''
        #include <stdio.h>
        extern const char _binary_some_data_txt_start[], _binary_some_data_txt_end[];
        extern const char _binary_some_data_txt_size[];
        int main(void)
        {
            int n = (int)(_binary_some_data_txt_end - _binary_some_data_txt_start);
            printf("%.*s\n", n, _binary_some_data_txt_start);
            return n;
        }''', *kind.cflags)
    t.link('app', *kind.ldflags, m, '-Wl,-b,binary,some-data.txt,-b,default')
    t.run('app', expect='the quick brown fox\n', status=19)
    elf = t.elf('app')
    assert elf.symbol('_binary_some_data_txt_size').value == 19


def test_binary_input_through_format_option(t):
    t.write('raw', bytes(range(256)))
    m = t.cc('m.o', 'extern unsigned char _binary_raw_start[];'
             'int main(void) { return _binary_raw_start[200]; }')
    t.link('app', m, '-Wl,--format=binary', 'raw', '-Wl,--format=default')
    t.run('app', status=200)


# -- names that the linker defines --------------------------------------------------------------

def test_ends_of_text_data_and_bss(t, compiler, kind):
    m = t.cc('m.o', r'''
        #include <stdio.h>
        extern char etext[], _etext[], edata[], _edata[], end[], _end[], __bss_start[];
        static int data = 1, zero[100];
        static const int constant = 3;
        int main(void)
        {
            char *in_text = (char *)main, *in_data = (char *)&data, *in_bss = (char *)zero;
            printf("%d%d%d%d%d%d%d%d\n", in_text < etext, in_data >= etext, in_data < edata,
                   in_bss >= edata, in_bss >= __bss_start, in_bss < end,
                   etext == _etext && edata == _edata && end == _end, *(volatile int *)&constant);
            return zero[1];
        }''', *kind.cflags)
    t.link('app', *kind.ldflags, m)
    t.run('app', expect='11111113\n')


def test_end_is_where_the_heap_may_start(t):
    """end is behind everything that is loaded."""
    m = t.cc('m.o', 'char zero[5000]; extern char end[]; char *p = end;'
             'int main(void) { return 0; }')
    t.link('app', m)
    elf = t.elf('app')
    assert elf.symbol('end').value >= max(s.end for s in elf.sections
                                          if 'A' in s.flags and 'T' not in s.flags)


def test_own_definition_of_end_is_respected(t, compiler):
    m = t.cc('m.o', 'int end = 3, etext = 4, edata = 5;'
             'int main(void) { return end + etext + edata; }')
    t.link('app', m)
    t.run('app', status=12)


def test_file_header_and_dynamic_section(t, compiler, kind):
    m = t.cc('m.o', r'''
        #include <elf.h>
        #include <stdio.h>
        extern const Elf64_Ehdr __ehdr_start __attribute__((visibility("hidden")));
        extern Elf64_Dyn _DYNAMIC[] __attribute__((weak, visibility("hidden")));
        int main(void)
        {
            printf("%.3s %d\n", (const char *)__ehdr_start.e_ident + 1, _DYNAMIC != 0);
            return 0;
        }''', *kind.cflags)
    t.link('app', *kind.ldflags, m)
    t.run('app', expect=f'ELF {int(kind.dynamic or kind.pie)}\n')


def test_global_offset_table(t, kind):
    m = t.cc('m.o', r'''
        extern char _GLOBAL_OFFSET_TABLE_[] __attribute__((visibility("hidden")));
        int main(void) { return _GLOBAL_OFFSET_TABLE_ == 0; }''', *kind.cflags)
    t.link('app', *kind.ldflags, m)
    t.run('app')


@only('aarch64', 'riscv64')
def test_bounds_of_the_image_as_the_cpu_names_them(t, kind):
    source = {
        'aarch64': """
            extern char __bss_start__[], _bss_end__[], __bss_end__[], __end__[], __bss_start[];
            #define RIGHT __bss_start__ == __bss_start && _bss_end__ == _end && \\
                          __bss_end__ == _end && __end__ == _end""",
        'riscv64': """
            extern char __DATA_BEGIN__[], __SDATA_BEGIN__[], __BSS_END__[];
            #define RIGHT __DATA_BEGIN__ <= (char *)&data && __BSS_END__ == _end && \\
                          __DATA_BEGIN__ <= __SDATA_BEGIN__ && __SDATA_BEGIN__ < __BSS_END__""",
    }[t.target.name]
    a = t.cc('a.o', source + """
        extern char _end[];
        int data = 1, zeroed[20];
        int main(void) { return RIGHT && (char *)zeroed < _end ? 7 : 1; }""", *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', status=7)


def test_start_and_stop_of_a_section(t, compiler, kind):
    source = r'''
        struct entry { int value, spare; };
        __attribute__((section("my_table"), used)) static struct entry NAME = { VALUE, 0 };
    '''
    a, b = (t.cc(f'{n}.o', source, f'-DNAME={n}', f'-DVALUE={v}', *kind.cflags)
            for n, v in (('a', 5), ('b', 6)))
    m = t.cc('m.o', r'''
        struct entry { int value, spare; };
        extern struct entry __start_my_table[], __stop_my_table[];
        int main(void)
        {
            int sum = 0;
            for (struct entry *e = __start_my_table; e < __stop_my_table; e++)
                sum += e->value;
            return sum * 10 + (int)(__stop_my_table - __start_my_table);
        }''', *kind.cflags)
    t.link('app', *kind.ldflags, m, a, b)
    t.run('app', status=112)


def test_start_and_stop_without_section(t, compiler, kind):
    """Weak references to the bounds of a section that does not exist are null."""
    m = t.cc('m.o', r'''
        extern int __start_nothing[] __attribute__((weak)), __stop_nothing[] __attribute__((weak));
        int main(void) { return __start_nothing || __stop_nothing; }''', *kind.cflags)
    t.link('app', *kind.ldflags, m)
    t.run('app')


def test_start_of_a_missing_section_is_undefined(t):
    m = t.cc('m.o', 'extern int __start_nothing[]; int main(void) { return __start_nothing[0]; }')
    t.link('app', m, ok=False).says('__start_nothing')


@deviates(lld='collects them by default')
def test_start_and_stop_keep_sections(t, compiler):
    """As GNU ld does by default: a reference to __start_x keeps all sections x."""
    m = t.cc('m.o', r'''
        __attribute__((section("things"))) int one = 1;
        __attribute__((section("things"))) int two = 2;
        extern int __start_things[], __stop_things[];
        int main(void) { return (int)(__stop_things - __start_things); }''', '-fdata-sections')
    t.link('app', '-Wl,--gc-sections', m)
    t.run('app', status=2)


def test_start_and_stop_do_not_keep_sections_on_request(t):
    t.cc('n.o', '__attribute__((section("things"))) int one = 1;')
    m = t.cc('m.o', r'''
        extern int __start_things[] __attribute__((weak)), __stop_things[] __attribute__((weak));
        int main(void) { return (int)(__stop_things - __start_things); }''')
    t.link('app', '-Wl,--gc-sections', '-Wl,-z,start-stop-gc', m, 'n.o')
    t.run('app')


def test_start_and_stop_are_not_exported(t):
    """They are protected: each module has its own."""
    for name in ('one', 'two'):
        shared(t, f'lib{name}.so', f'''
            __attribute__((section("things"), used)) static int value[{len(name) + len(name) % 2}];
            extern int __start_things[], __stop_things[];
            int {name}(void) {{ return (int)(__stop_things - __start_things); }}''')
        symbol = t.elf(f'lib{name}.so').dynsym('__start_things')
        assert symbol is None or symbol.vis == 'PROTECTED'
    m = t.cc('m.o', 'int one(void), two(void); int main(void) { return one() * 10 + two(); }')
    t.link('app', m, 'libone.so', 'libtwo.so')
    t.run('app', status=44)


# -- groups and old-style link-once sections ----------------------------------------------------

GROUP = r'''
    .section .text.f,"axG",%progbits,f,comdat
    .weak f
    .type f, %function
    f: .byte VALUE
    .section .data.mine,"aw",%progbits
    .globl NAME
    NAME: .8byte f
    .section .note.GNU-stack,"",%progbits
'''


def test_first_comdat_group_is_kept(t):
    t.asm('x.o', GROUP, '-DVALUE=0x11', '-DNAME=x')
    t.asm('y.o', GROUP, '-DVALUE=0x22', '-DNAME=y')
    m = t.cc('m.o', r'''
        extern const unsigned char *x, *y;
        int main(void) { return x == y ? *x : 99; }''')
    t.link('app', m, 'x.o', 'y.o')
    t.run('app', status=0x11)
    t.link('app', m, 'y.o', 'x.o')
    t.run('app', status=0x22)


def test_comdat_group_with_several_sections(t):
    """All members of a group go or stay together."""
    source = r'''
        .section .rodata.first,"aG",%progbits,signature,comdat
        .globl first
        first: .byte VALUE
        .section .rodata.second,"aG",%progbits,signature,comdat
        .globl second
        second: .byte VALUE + 1
        .section .note.GNU-stack,"",%progbits
    '''
    t.asm('x.o', source, '-DVALUE=10')
    t.asm('y.o', source, '-DVALUE=30')
    m = t.cc('m.o', 'extern char first, second; int main(void) { return first + second; }')
    t.link('app', m, 'x.o', 'y.o')
    t.run('app', status=21)


def test_group_without_comdat_is_not_merged(t):
    source = r'''
        .section .data.entries,"awG",%progbits,signature
        .byte VALUE
        .section .note.GNU-stack,"",%progbits
    '''
    t.asm('x.o', source.replace('.data.entries', 'entries'), '-DVALUE=1')
    t.asm('y.o', source.replace('.data.entries', 'entries'), '-DVALUE=2')
    m = t.cc('m.o', r'''
        extern char __start_entries[], __stop_entries[];
        int main(void) { return (int)(__stop_entries - __start_entries); }''')
    t.link('app', m, 'x.o', 'y.o')
    t.run('app', status=2)


def test_relocatable_output_keeps_groups(t):
    t.asm('x.o', GROUP, '-DVALUE=0x11', '-DNAME=x')
    t.asm('y.o', GROUP, '-DVALUE=0x22', '-DNAME=y')
    t.ld('x2.o', '-r', 'x.o')
    assert any(s.type == 'GROUP' for s in t.elf('x2.o').sections)
    m = t.cc('m.o', 'extern const unsigned char *x, *y;'
             'int main(void) { return x == y ? *x : 99; }')
    t.link('app', m, 'x2.o', 'y.o')
    t.run('app', status=0x11)


@deviates(lld='keeps all of them')
def test_link_once_sections(t):
    source = r'''
        .section .gnu.linkonce.d.value,"aw",%progbits
        .weak value
        value: .byte VALUE
        .section .data
        .globl NAME
        NAME: .8byte value
        .section .note.GNU-stack,"",%progbits
    '''
    t.asm('x.o', source, '-DVALUE=1', '-DNAME=x')
    t.asm('y.o', source, '-DVALUE=2', '-DNAME=y')
    m = t.cc('m.o', 'extern char *x, *y; int main(void) { return x == y ? *x : 99; }')
    t.link('app', m, 'x.o', 'y.o')
    t.run('app', status=1)
    values = [s for s in t.elf('app').sections if 'linkonce' in s.name]
    assert sum(s.size for s in values) <= 1


def test_a_link_once_section_in_a_group(t):
    """The group alone says whether it stays."""
    source = r'''
        .section .gnu.linkonce.d.value,"awG",%progbits,GROUP,comdat
        value: .byte VALUE
        .globl NAME
        NAME: .byte VALUE
        .section .note.GNU-stack,"",%progbits
    '''
    t.asm('x.o', source, '-DVALUE=1', '-DNAME=x', '-DGROUP=one')
    t.asm('y.o', source, '-DVALUE=2', '-DNAME=y', '-DGROUP=two')
    m = t.cc('m.o', 'extern char x, y; int main(void) { return x + y; }')
    t.link('app', m, 'x.o', 'y.o')
    t.run('app', status=3)


def test_reference_to_a_local_of_a_discarded_section(t):
    """From outside of the group, by a local symbol: an error, as there is nothing to refer to."""
    source = r'''
        .section .text.f,"axG",%progbits,f,comdat
        .weak f
        f:
        .Lx: local: .byte 1
        .section .data.mine,"aw",%progbits
        .globl NAME
        NAME: .8byte local
        .section .note.GNU-stack,"",%progbits
    '''
    t.asm('x.o', source, '-DNAME=x')
    t.asm('y.o', source, '-DNAME=y')
    m = t.cc('m.o', 'extern char *x, *y; int main(void) { return *x + *y; }')
    t.link('app', m, 'x.o', 'y.o', ok=False).says('discarded section', 'y.o')


# -- needed libraries ---------------------------------------------------------------------------

def libraries(t):
    for n in 'abd':
        shared(t, f'lib{n}.so', f'int {n}(void) {{ return 1; }}')
    return t.cc('m.o', 'int b(void); int main(void) { return b(); }')


def own(elf):
    return [n for n in elf.needed if re.fullmatch(r'lib[a-z]\.so', n)]


def test_as_needed_leaves_out_unused_libraries(t):
    m = libraries(t)
    t.link('app', m, '-Wl,--as-needed', 'liba.so', 'libb.so', 'libd.so')
    assert own(t.elf('app')) == ['libb.so']
    t.run('app', status=1)


def test_needed_libraries_keep_their_order(t):
    m = libraries(t)
    t.link('app', m, '-Wl,--no-as-needed', 'libd.so', 'liba.so', 'libb.so', 'liba.so')
    assert own(t.elf('app')) == ['libd.so', 'liba.so', 'libb.so']


def test_as_needed_is_positional(t):
    m = libraries(t)
    t.link('app', m, '-Wl,--no-as-needed', 'liba.so', '-Wl,--as-needed', 'libb.so', 'libd.so')
    assert own(t.elf('app')) == ['liba.so', 'libb.so']


def test_as_needed_applies_to_weak_references(t):
    """A weak reference alone does not make a library needed."""
    libraries(t)
    m = t.cc('m.o', '__attribute__((weak)) int b(void); int main(void) { return b ? b() : 7; }')
    t.link('app', m, '-Wl,--as-needed', 'libb.so')
    assert own(t.elf('app')) == []
    t.run('app', status=7)


@deviates(lld='counts references of the output only')
def test_as_needed_counts_references_of_shared_objects(t):
    """Another library needs the name, and has no DT_NEEDED of its own."""
    libraries(t)
    shared(t, 'libx.so', 'int b(void); int x(void) { return b(); }')
    m = t.cc('m.o', 'int x(void); int main(void) { return x(); }')
    t.link('app', m, '-Wl,--as-needed', 'libx.so', 'libb.so')
    assert own(t.elf('app')) == ['libx.so', 'libb.so']
    t.run('app', status=1)


def test_as_needed_ignores_names_defined_in_the_program(t):
    libraries(t)
    m = t.cc('m.o', 'int b(void) { return 3; } int main(void) { return b(); }')
    t.link('app', '-Wl,--as-needed', 'libb.so', m)
    assert own(t.elf('app')) == []


def test_as_needed_after_gc(t):
    """A reference from a section that is collected does not count."""
    libraries(t)
    m = t.cc('m.o', 'int b(void); int unused(void) { return b(); } int main(void) { return 0; }',
             '-ffunction-sections')
    t.link('app', '-Wl,--as-needed', '-Wl,--gc-sections', m, 'libb.so')
    t.run('app')


def test_push_and_pop_state(t):
    m = libraries(t)
    t.link('app', m, '-Wl,--no-as-needed', '-Wl,--push-state,--as-needed', 'liba.so',
           '-Wl,--pop-state', 'libb.so', 'libd.so')
    assert own(t.elf('app')) == ['libb.so', 'libd.so']


def test_library_named_twice_by_different_paths(t):
    m = libraries(t)
    t.link('app', m, './libb.so', 'libb.so', '-L.', '-lb')
    t.run('app', status=1)
    shared(t, 'libs.so', 'int b(void) { return 1; }', '-Wl,-soname,libs.so.1')
    t.link('app', m, './libs.so', 'libs.so', '-L.', '-ls')
    assert [n for n in t.elf('app').needed if 'libs' in n] == ['libs.so.1']


def test_equal_absolute_definitions_agree(t):
    x, same, other = [t.asm(name, f'.globl x\nx = {value}\n.section .note.GNU-stack\n')
                      for name, value in (('x.o', 5), ('same.o', 5), ('other.o', 6))]
    m = t.asm('m.o', '.globl _start\n_start: nop\n.data\n.8byte x\n.section .note.GNU-stack\n')
    t.ld('app', m, x, same)
    t.ld('app', m, x, other, ok=False).says('x')


def test_different_names_of_one_hash(t, compiler):
    """XXH3 multiplies the halves of 16 bytes; the first one of these is 0 then, whatever the second is."""
    zero = bytes.fromhex('b8fe6c3923a44bbe')
    ends = ['one_____', 'two_____']

    def with_zero(name):
        file = t.path / name
        file.write_bytes(file.read_bytes().replace(b'ZEROZERO', zero))
        return name

    names = [f'ZEROZERO{end}sixteen_letters_' for end in ends]
    many = ''.join(f'.globl n{i}\nn{i}:\n' for i in range(25000))
    first, second = (t.cc(f'{n}.o', f'int {name}(void) {{ return {n}; }}', '-fPIE')
                     for n, name in enumerate(names, 3))
    fillers = t.asm('many.o', f'.data\n{many}.section .note.GNU-stack\n')
    caller = t.cc('m.o', f'int {names[0]}(void), {names[1]}(void);'
                         f'int main(void) {{ return {names[0]}() * 10 + {names[1]}(); }}', '-fPIE')
    t.link('app', *map(with_zero, (caller, first, second)), fillers)
    t.run('app', status=34)
    t.link('app', fillers, *map(with_zero, (second, first, caller)))
    t.run('app', status=34)
