"""C programs, linked in every kind of output and run."""

import pytest

from kldtest import deviates

# A program of two files that uses most of what plain C asks of a linker: calls and data across
# files, tables of pointers, string literals, COMMON and large zeroed data, stdio from libc.
GREETER = r'''
#include <stdio.h>
#include <string.h>
extern int counter;
extern const char *const names[];
int twice(int);
int shared_zero[1000];
static int (*operations[])(int) = { twice, 0 };
int main(int argc, char **argv)
{
    for (int i = 0; names[i]; i++)
        printf("%s %d\n", names[i], operations[0](i) + counter++);
    printf("%d %zu %s\n", shared_zero[999], strlen(names[1]), argv[argc]? "?" : "end");
    return argc == 1 ? 7 : 0;
}
'''
HELPER = r'''
int counter = 40;
const char *const names[] = { "one", "two", "three", 0 };
int twice(int n) { return 2 * n + counter - counter; }
'''
GREETING = 'one 40\ntwo 43\nthree 46\n0 3 end\n'


@pytest.mark.parametrize('debug', ['-g0', '-g'])
def test_executable_of_two_files(t, compiler, kind, opt, debug):
    a = t.cc('a.o', GREETER, opt, debug, *kind.cflags)
    b = t.cc('b.o', HELPER, opt, debug, *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect=GREETING, status=7)


@pytest.mark.parametrize('debug', ['-g0', '-g'])
def test_executable_and_shared_object(t, compiler, opt, debug):
    a = t.cc('a.o', GREETER, opt, debug, '-fPIE')
    b = t.cc('b.o', HELPER, opt, debug, '-fPIC')
    t.link('libhelper.so', '-shared', b)
    t.link('app', '-pie', a, 'libhelper.so')
    assert 'libhelper.so' in t.elf('app').needed
    t.run('app', expect=GREETING, status=7)


def test_non_pie_executable_and_shared_object(t, compiler, opt):
    a = t.cc('a.o', GREETER, opt, '-fno-pie')
    b = t.cc('b.o', HELPER, opt, '-fPIC')
    t.link('libhelper.so', '-shared', b)
    t.link('app', '-no-pie', a, 'libhelper.so')
    t.run('app', expect=GREETING, status=7)


@pytest.mark.parametrize('debug', ['-g0', '-g'])
def test_relocatable_output_links_again(t, compiler, kind, opt, debug):
    a = t.cc('a.o', GREETER, opt, debug, *kind.cflags)
    b = t.cc('b.o', HELPER, opt, debug, *kind.cflags)
    t.ld('both.o', '-r', a, b)
    assert t.elf('both.o').type == 'REL'
    t.link('app', *kind.ldflags, 'both.o')
    t.run('app', expect=GREETING, status=7)


def test_relocatable_output_of_relocatable_outputs(t, compiler):
    a = t.cc('a.o', GREETER, '-fPIE')
    b = t.cc('b.o', HELPER, '-fPIE')
    c = t.cc('c.o', 'int unused(void) { return 3; }', '-fPIE')
    t.ld('ab.o', '-r', a, b)
    t.ld('abc.o', '-r', 'ab.o', c)
    t.link('app', '-pie', 'abc.o')
    t.run('app', expect=GREETING, status=7)


def test_kinds_have_the_right_headers(t, kind):
    t.link('app', *kind.ldflags, t.cc('a.o', 'int main(void) { return 0; }', *kind.cflags))
    elf = t.elf('app')
    assert elf.type == ('DYN' if kind.pie else 'EXEC')
    assert elf.interp == (t.target.interp if kind.dynamic else None)
    assert bool(elf.segment('DYNAMIC')) == (kind.dynamic or kind.pie)
    assert ('1.PIE' in elf.dyn_flags()) == kind.pie
    assert (elf.dyn('DEBUG') is not None) == kind.dynamic or kind.name == 'static-pie'
    t.run('app', status=0)


def test_shared_object_headers(t, compiler):
    t.link('libx.so', '-shared', '-Wl,-soname,libx.so.3', t.cc('x.o', HELPER, '-fPIC'))
    elf = t.elf('libx.so')
    assert elf.type == 'DYN'
    assert elf.interp is None
    assert elf.soname == 'libx.so.3'
    assert {'counter', 'names', 'twice'} <= elf.exports()
    assert elf.dyn('DEBUG') is None


def test_needed_entry_is_the_soname(t):
    t.link('libx.so', '-shared', '-Wl,-soname,libother.so.3', t.cc('x.o', HELPER, '-fPIC'))
    t.link('app', t.cc('a.o', GREETER), 'libx.so')
    assert 'libother.so.3' in t.elf('app').needed
    assert 'libx.so' not in t.elf('app').needed


def test_output_is_executable_and_respects_umask(t):
    t.link('app', t.cc('a.o', 'int main(void) { return 0; }'))
    assert (t.path / 'app').stat().st_mode & 0o111


def test_output_replaces_an_older_file(t):
    t.write('app', 'something much older\n' * 100000)
    t.link('app', t.cc('a.o', 'int main(void) { return 4; }'))
    t.run('app', status=4)
    t.link('app', t.cc('a.o', 'int main(void) { return 5; }'))
    t.run('app', status=5)


def test_file_names_with_spaces(t):
    t.cc('my object.o', GREETER)
    t.cc('my other.o', HELPER)
    t.ar('lib my.a', 'my other.o')
    t.link('the app', 'my object.o', 'lib my.a')
    t.run('the app', expect=GREETING, status=7)


def test_program_without_libc(t):
    """The linker called directly, with nothing but one object."""
    t.asm('a.o', r'''
        .globl _start
        _start:
        #if defined(__x86_64__)
            mov $60, %eax
            mov value(%rip), %edi
            syscall
        #elif defined(__aarch64__)
            adrp x0, value
            ldr w0, [x0, :lo12:value]
            mov x8, #93
            svc #0
        #else
            lw a0, value
            li a7, 93
            ecall
        #endif
        .data
        value: .4byte 42
        .section .note.GNU-stack,"",%progbits
    ''')
    t.ld('app', 'a.o')
    assert t.elf('app').type == 'EXEC'
    t.run('app', status=42)


@deviates(strict=False, lld='has no default library path', mold='has none',
          bfd='has a wrong default for riscv64')
def test_direct_call_finds_libc(t):
    """As in `kld -o app *.o libcore.a`: start files by hand, the rest by default."""
    def startfile(name):
        return t.tool(*t.driver(), f'-print-file-name={name}').stdout.strip()
    t.cc('a.o', GREETER, '-fno-pie')
    t.ar('libcore.a', t.cc('b.o', HELPER, '-fno-pie'))
    objects = (startfile('crt1.o'), startfile('crti.o'), 'a.o', 'libcore.a', '-lc',
               startfile('crtn.o'))
    t.ld('app', *objects)
    assert t.elf('app').interp in (t.target.interp, '/lib/ld64.so.1')
    t.ld('app', '-dynamic-linker', t.target.interp, *objects)
    t.run('app', expect=GREETING, status=7)


def test_entry_option(t):
    t.cc('a.o', 'int main(void) { return 0; } void other(void) {}', '-fno-pie')
    t.link('app', '-static', '-no-pie', '-Wl,-e,other', 'a.o')
    elf = t.elf('app')
    assert elf.entry == elf.symbol('other').value


def test_entry_option_takes_an_address(t):
    t.cc('a.o', 'int main(void) { return 0; }', '-fno-pie')
    t.link('app', '-static', '-no-pie', '-Wl,--entry=0x401234', 'a.o')
    assert t.elf('app').entry == 0x401234


def test_large_bss_takes_no_room_in_the_file(t, kind):
    a = t.cc('a.o', r'''
        #include <stdio.h>
        static char big[512 << 20];
        static int last[3];
        int main(void)
        {
            big[sizeof big - 1] = 3;
            printf("%d %d\n", big[0] + big[sizeof big - 1], last[2]);
            return 0;
        }''', *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', expect='3 0\n')
    assert (t.path / 'app').stat().st_size < 4 << 20


def test_large_data_arrives_whole(t, kind):
    """Initialised data of several megabytes in two objects."""
    source = r'''
        .data
        .globl NAME
        .balign 8
        NAME:
        .set i, 0
        .rept 262144
            .8byte i * 2654435761 + ADD
            .set i, i + 1
        .endr
        .section .note.GNU-stack,"",%progbits
    '''
    t.asm('x.o', source, '-DNAME=x', '-DADD=0')
    t.asm('y.o', source, '-DNAME=y', '-DADD=7')
    a = t.cc('a.o', r'''
        #include <stdint.h>
        extern uint64_t x[262144], y[262144];
        int main(void)
        {
            for (uint64_t i = 0; i < 262144; i++)
                if (x[i] != i * 2654435761 || y[i] != i * 2654435761 + 7)
                    return 1;
            return 0;
        }''', *kind.cflags)
    t.link('app', *kind.ldflags, a, 'x.o', 'y.o')
    t.run('app')


def test_alignment_of_variables(t, compiler, kind):
    a = t.cc('a.o', r'''
        #include <stdint.h>
        #include <stdio.h>
        char c1 = 1;
        _Alignas(4096) char page = 2;
        char c2 = 3;
        _Alignas(65536) char big_bss[3];
        const char k = 1;
        _Alignas(256) const char table[5] = { 1, 2, 3 };
        static int rest(const void *volatile p, int n) { return (int)((uintptr_t)p % n); }
        int main(void)
        {
            printf("%d%d%d\n", rest(&page, 4096), rest(big_bss, 65536), rest(table, 256));
            return c1 + page + c2 + big_bss[2] + k + table[2];
        }''', *kind.cflags)
    t.link('app', *kind.ldflags, a)
    assert max(p.align for p in t.elf('app').loads()) == 65536
    t.run('app', expect='000\n', status=10)


def test_common_symbols_take_the_largest_size_and_alignment(t, compiler, kind):
    a = t.cc('a.o', r'''
        #include <stdint.h>
        #include <stdio.h>
        char padding[3];
        int shared[4];
        int only_here;
        int sum(void);
        int main(void)
        {
            int *volatile p = shared;
            shared[0] = 5;
            printf("%d %d\n", sum(), (int)((uintptr_t)p % 64));
            return only_here;
        }''', '-fcommon', *kind.cflags)
    b = t.cc('b.o', r'''
        int shared[100] __attribute__((aligned(64)));
        int sum(void) { shared[99] = 6; return shared[0] + shared[99] + shared[50]; }
        ''', '-fcommon', *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    assert t.elf('app').symbol('shared').size == 400
    t.run('app', expect='11 0\n')


def test_weak_undefined_symbols_are_null(t, compiler, kind, opt):
    a = t.cc('a.o', r'''
        #include <stdio.h>
        extern int absent_data __attribute__((weak));
        extern void absent_function(void) __attribute__((weak));
        static void (*volatile pointer)(void) = absent_function;
        int main(void)
        {
            if (absent_function)
                absent_function();
            printf("%d%d%d\n", &absent_data == 0, absent_function == 0, pointer == 0);
            return 0;
        }''', opt, *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', expect='111\n')


def test_weak_definition_yields_to_strong(t, compiler, kind):
    a = t.cc('a.o', r'''
        #include <stdio.h>
        __attribute__((weak)) int value(void) { return 1; }
        __attribute__((weak)) int data = 10;
        __attribute__((weak)) int alone(void) { return 300; }
        int main(void) { printf("%d\n", value() + data + alone()); return 0; }
        ''', *kind.cflags)
    b = t.cc('b.o', 'int value(void) { return 2; } int data = 20;', *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect='322\n')


def test_equal_string_literals_are_merged(t, compiler, kind):
    t.cc('a.o', r'''
        #include <stdio.h>
        const char *other(void), *tail(void);
        int main(void)
        {
            const char *mine = "a rather unusual literal";
            printf("%s %s %d\n", mine, tail(), mine == other());
            return 0;
        }''', '-O2', *kind.cflags)
    t.cc('b.o', r'''
        const char *other(void) { return "a rather unusual literal"; }
        const char *tail(void) { return "literal"; }
        ''', '-O2', *kind.cflags)
    t.link('app', *kind.ldflags, 'a.o', 'b.o')
    t.run('app', expect='a rather unusual literal literal 1\n')
    assert (t.path / 'app').read_bytes().count(b'a rather unusual literal') == 1


def test_wide_strings_and_constants_are_merged(t, kind):
    """SHF_MERGE with entry sizes 4, 8 and 16; each value still arrives where it is used."""
    a = t.cc('a.o', r'''
        #include <stdio.h>
        #include <wchar.h>
        double f(double); const wchar_t *wide(void); __int128 huge(void);
        int main(void)
        {
            printf("%.3f %d %d\n", f(2.0) + 1.234567,
                   (int)wcslen(L"wide text") - (int)wcslen(wide()), (int)(huge() >> 100));
            return 0;
        }''', '-O2', *kind.cflags)
    b = t.cc('b.o', r'''
        #include <stddef.h>
        double f(double x) { return x * 1.234567; }
        const wchar_t *wide(void) { return L"wide text"; }
        __int128 huge(void) { return ((__int128)5 << 100) + 77; }
        ''', '-O2', *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect='3.704 0 5\n')


def test_atexit_and_destructors(t, compiler, kind):
    a = t.cc('a.o', r'''
        #include <stdio.h>
        #include <stdlib.h>
        static void first(void) { puts("first"); }
        static void second(void) { puts("second"); }
        __attribute__((destructor)) static void last(void) { puts("destructor"); }
        int main(void) { atexit(first); atexit(second); puts("main"); return 0; }
        ''', *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', expect='main\nsecond\nfirst\ndestructor\n')


def test_static_tables_of_pointers(t, compiler, kind, opt):
    """Addresses in initialised data, with offsets, to local and global things."""
    a = t.cc('a.o', r'''
        #include <stdio.h>
        static int local[4] = { 1, 2, 3, 4 };
        extern int global[4];
        static int f(void) { return 100; }
        int g(void);
        struct { int *p, *q, *end; int (*f)(void), (*g)(void); const char *s; } table = {
            &local[2], &global[1], global + 4, f, g, "text" + 1
        };
        int main(void)
        {
            printf("%d %d %d %d %s\n", *table.p, *table.q, table.end[-1], table.f() + table.g(),
                   table.s);
            return 0;
        }''', opt, *kind.cflags)
    b = t.cc('b.o', 'int global[4] = { 5, 6, 7, 8 }; int g(void) { return 11; }', opt, *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect='3 6 8 111 ext\n')


def test_function_and_data_sections(t, compiler, kind, opt):
    flags = (opt, '-ffunction-sections', '-fdata-sections', *kind.cflags)
    a = t.cc('a.o', GREETER, *flags)
    b = t.cc('b.o', HELPER, *flags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect=GREETING, status=7)
    t.link('app-gc', *kind.ldflags, '-Wl,--gc-sections', a, b)
    t.run('app-gc', expect=GREETING, status=7)


def test_calls_without_plt(t, compiler, kind, opt):
    a = t.cc('a.o', GREETER, opt, '-fno-plt', *kind.cflags)
    b = t.cc('b.o', HELPER, opt, '-fno-plt', *kind.cflags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect=GREETING, status=7)


def test_computed_goto_and_jump_tables(t, compiler, kind, opt):
    a = t.cc('a.o', r'''
        #include <stdio.h>
        int kind_of(int n)
        {
            switch (n) {
            case 0: return 10; case 1: return 23; case 2: return 5; case 3: return 77;
            case 4: return 13; case 5: return 6; case 6: return 1; default: return 0;
            }
        }
        int main(int argc, char **argv)
        {
            static void *const labels[] = { &&one, &&two };
            int sum = 0;
            for (int i = 0; i < 8; i++)
                sum += kind_of(i);
            goto *labels[argc];
        one: return 1;
        two: printf("%d\n", sum); return 0;
        }''', opt, *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', expect='135\n')


MODELS = {'x86_64': ['medium', 'large'], 'aarch64': ['tiny', 'large'],
          'riscv64': ['medlow', 'medany']}


def test_code_models(t):
    for model in MODELS[t.target.name]:
        t.cc('a.o', GREETER, f'-mcmodel={model}', '-fno-pie')
        t.cc('b.o', HELPER, f'-mcmodel={model}', '-fno-pie')
        t.link('app', '-no-pie', 'a.o', 'b.o')
        t.run('app', expect=GREETING, status=7)


def test_debug_info_survives_and_names_the_line(t, compiler, kind):
    a = t.cc('a.o', '\n\n\nint main(void) { return 0; }\n', '-g', *kind.cflags)
    t.link('app', *kind.ldflags, a)
    address = hex(t.elf('app').symbol('main').value)
    assert 'a.c:4' in t.tool('addr2line', '-e', 'app', address).stdout


def test_objects_with_more_than_65280_sections(t):
    parts = ''.join(f'.section .text.f{i},"ax"\nf{i}: .byte 0x90\n' for i in range(66000))
    t.asm('many.o', parts + r'''
        .section .text.last,"ax"
        .globl last
        .type last, %function
        last: ret
        .section .data.last,"aw"
        .globl last_value
        last_value: .4byte 33
        .section .note.GNU-stack,"",%progbits
        ''')
    a = t.cc('a.o', r'''
        void last(void);
        extern int last_value;
        int main(void) { last(); return last_value; }
        ''')
    t.link('app', a, 'many.o')
    t.run('app', status=33)


def test_relocatable_output_with_more_than_65280_sections(t):
    """Sections of different names stay apart in -r output, so their count survives."""
    parts = ''.join(f'.section .text.f{i},"ax"\n.byte 0x90\n' for i in range(66000))
    t.asm('many.o', parts + '''
        .section .data.last,"aw"
        .globl last_value
        last_value: .4byte 34
        .section .note.GNU-stack,"",%progbits
        ''')
    t.ld('again.o', '-r', 'many.o')
    assert t.elf('again.o').symbol('last_value').section == '.data.last'
    a = t.cc('a.o', 'extern int last_value; int main(void) { return last_value; }')
    t.link('app', a, 'again.o')
    t.run('app', status=34)


def test_compressed_debug_sections_are_read(t, compiler):
    a = t.cc('a.o', '\n\nint main(void) { return 0; }\n' + 'int pad;' * 500, '-g', '-gz')
    assert 'C' in t.elf('a.o').section('.debug_info').flags or t.compiler == 'clang'
    t.link('app', a)
    address = hex(t.elf('app').symbol('main').value)
    assert 'a.c:3' in t.tool('addr2line', '-e', 'app', address).stdout


def test_local_symbols_of_the_same_name_stay_apart(t, compiler, kind):
    source = r'''
        static int value = N;
        static int get(void) { return value; }
        int PUBLIC(void) { return get(); }
    '''
    a = t.cc('a.o', source, '-DN=1', '-DPUBLIC=one', *kind.cflags)
    b = t.cc('b.o', source, '-DN=20', '-DPUBLIC=two', *kind.cflags)
    m = t.cc('m.o', 'int one(void), two(void); int main(void) { return one() + two(); }',
             *kind.cflags)
    t.link('app', *kind.ldflags, m, a, b)
    t.run('app', status=21)


def test_threads_and_math_library(t, compiler, kind):
    a = t.cc('a.o', r'''
        #include <math.h>
        #include <pthread.h>
        #include <stdio.h>
        static double results[4];
        static void *work(void *arg)
        {
            double *r = arg;
            *r = pow(2.0, (double)(r - results));
            return arg;
        }
        int main(void)
        {
            pthread_t threads[4];
            double sum = 0;
            for (int i = 0; i < 4; i++)
                pthread_create(&threads[i], 0, work, &results[i]);
            for (int i = 0; i < 4; i++) {
                pthread_join(threads[i], 0);
                sum += results[i];
            }
            printf("%.1f\n", sum);
            return 0;
        }''', '-pthread', *kind.cflags)
    t.link('app', *kind.ldflags, '-pthread', a, '-lm')
    t.run('app', expect='15.0\n')


def test_static_program_with_locale_and_stdio(t, kind):
    """Pulls in a good part of libc.a, with its IFUNCs, TLS and start/stop sections."""
    a = t.cc('a.o', r'''
        #include <locale.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <time.h>
        static int compare(const void *a, const void *b) { return *(char *)a - *(char *)b; }
        int main(void)
        {
            char text[64], word[] = "linker";
            time_t zero = 0;
            setlocale(LC_ALL, "C");
            qsort(word, 6, 1, compare);
            strftime(text, sizeof text, "%Y-%m-%d", gmtime(&zero));
            printf("%s %s %.2f %s\n", word, text, strtod("2.5", 0), strstr("haystack", "sta"));
            return 0;
        }''', *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', expect='eiklnr 1970-01-01 2.50 stack\n')
