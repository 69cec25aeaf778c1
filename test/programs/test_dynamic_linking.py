"""What programs and shared objects share at run time: data, functions, relocations, paths."""

import pytest

from kldtest import deviates


def shared(t, name, source, *args, cflags=()):
    """Compiles one C file to the shared object `name`."""
    t.link(name, '-shared', t.cc(f'{name}.o', source, '-fPIC', *cflags), *args)
    return name


# -- data ---------------------------------------------------------------------------------------

COUNTER = r'''
    int counter = 5;
    int read_counter(void) { return counter; }
    void bump(void) { counter++; }
'''


@pytest.mark.parametrize('pie', [('-fPIE', '-pie'), ('-fno-pie', '-no-pie')], ids=['pie', 'no-pie'])
def test_program_and_library_share_a_variable(t, compiler, pie):
    shared(t, 'libc1.so', COUNTER)
    a = t.cc('a.o', r'''
        #include <stdio.h>
        extern int counter;
        int read_counter(void); void bump(void);
        int main(void)
        {
            counter += 10;
            bump();
            printf("%d %d\n", counter, read_counter());
            return 0;
        }''', pie[0])
    t.link('app', pie[1], a, 'libc1.so')
    t.run('app', expect='16 16\n')


def test_copy_relocation(t):
    shared(t, 'libc1.so', COUNTER)
    a = t.cc('a.o', 'extern int counter; int main(void) { return counter; }', '-fno-pie')
    t.link('app', '-no-pie', a, 'libc1.so')
    elf = t.elf('app')
    assert elf.dynrelocs_of('counter') == ['COPY']
    assert elf.dynsym('counter').size == 4
    t.run('app', status=5)


@deviates(bfd='moves weak aliases only')
def test_copy_relocation_moves_all_aliases(t, compiler):
    """The program names only one of three names of the variable, like environ and __environ."""
    shared(t, 'liba.so', r'''
        int strong_name[2] = { 3, 4 };
        extern int weak_name[2] __attribute__((weak, alias("strong_name")));
        extern int other_name[2] __attribute__((alias("strong_name")));
        void set(int n) { strong_name[1] = n; }
        int get(void) { return other_name[1]; }
        ''')
    a = t.cc('a.o', r'''
        #include <stdio.h>
        extern int weak_name[2];
        void set(int); int get(void);
        int main(void)
        {
            printf("%d ", weak_name[1]);
            set(8);
            printf("%d ", weak_name[1]);
            weak_name[1] = 9;
            printf("%d\n", get());
            return 0;
        }''', '-fno-pie')
    t.link('app', '-no-pie', a, 'liba.so')
    elf = t.elf('app')
    addresses = {elf.dynsym(n).value for n in ('strong_name', 'weak_name', 'other_name')}
    assert len(addresses) == 1
    t.run('app', expect='4 8 9\n')


def test_environ_and_its_alias(t, compiler):
    a = t.cc('a.o', r'''
        #include <stdio.h>
        #include <stdlib.h>
        extern char **environ, **__environ;
        int main(void)
        {
            setenv("NEW_VARIABLE", "1", 1);
            printf("%d%d\n", environ == __environ, environ != 0);
            return 0;
        }''', '-fno-pie')
    t.link('app', '-no-pie', a)
    t.run('app', expect='11\n')


def test_copied_variable_keeps_its_alignment(t, compiler):
    shared(t, 'liba.so', 'char a = 1; _Alignas(1024) char table[2048] = "table";')
    a = t.cc('a.o', r'''
        #include <stdint.h>
        extern char a, table[2048];
        int main(void)
        {
            char *volatile p = table;
            return a + (int)((uintptr_t)p % 1024) + table[0];
        }''', '-fno-pie')
    t.link('app', '-no-pie', a, 'liba.so')
    t.run('app', status=1 + ord('t'))


def test_copied_constant_stays_read_only(t):
    """The copy of a read-only variable lies within the part that is protected after relocation."""
    shared(t, 'liba.so', 'extern const int constant; const int constant = 77;')
    a = t.cc('a.o', 'extern const int constant; int main(void) { return constant; }',
             '-fno-pie')
    t.link('app', '-no-pie', '-Wl,-z,relro', a, 'liba.so')
    elf = t.elf('app')
    copy, relro = elf.dynsym('constant'), elf.segment('GNU_RELRO')
    assert relro.vaddr <= copy.value < relro.vaddr + relro.memsz
    t.run('app', status=77)


def test_nocopyreloc_refuses_copy_relocations(t):
    shared(t, 'libc1.so', COUNTER)
    a = t.cc('a.o', r'''
        extern int counter;
        int main(void) { return counter; }''', '-fno-pie',
        '-fPIC' if t.target.name == 'riscv64' else '-mcmodel=large')
    t.link('app', '-no-pie', '-Wl,-z,nocopyreloc', '-Wl,-z,notext', a, 'libc1.so')
    assert 'COPY' not in t.elf('app').dynrelocs_of('counter')
    t.run('app', status=5)


def test_pointer_to_imported_variable_in_data(t, compiler):
    shared(t, 'libc1.so', COUNTER)
    a = t.cc('a.o', r'''
        extern int counter;
        int *pointer = &counter;
        int main(void) { return *pointer; }''', '-fPIE')
    t.link('app', '-pie', a, 'libc1.so')
    assert t.elf('app').dynrelocs_of('counter') == ['ABS64']
    t.run('app', status=5)


# -- functions ----------------------------------------------------------------------------------

@pytest.mark.parametrize('pie', [('-fPIE', '-pie'), ('-fno-pie', '-no-pie')], ids=['pie', 'no-pie'])
def test_function_pointers_are_equal_everywhere(t, compiler, opt, pie):
    """The address of a library function is the same from the program, its data and the library."""
    shared(t, 'liba.so', r'''
        typedef void fn(void);
        void f(void) {}
        fn *const in_library = f;
        fn *get(void) { return f; }
        ''')
    a = t.cc('a.o', r'''
        #include <stdio.h>
        typedef void fn(void);
        void f(void); fn *get(void); extern fn *const in_library;
        static fn *in_data = f;
        int main(void)
        {
            fn *mine = f;
            mine();
            printf("%d%d%d\n", mine == get(), in_data == get(), in_library == mine);
            return 0;
        }''', opt, pie[0])
    t.link('app', pie[1], a, 'liba.so')
    t.run('app', expect='111\n')


def test_canonical_plt_entry_is_exported(t):
    """A non-PIC program that takes the address of an imported function gives it that address."""
    shared(t, 'liba.so', 'void f(void) {} void *get(void) { return (void *)f; }')
    a = t.cc('a.o', r'''
        void f(void); void *get(void);
        int main(void) { return (void *)f == get() ? 0 : 1; }''', '-fno-pie', '-fno-pic')
    t.link('app', '-no-pie', a, 'liba.so')
    f = t.elf('app').dynsym('f')
    assert f.section == 'UNDEF' and f.value != 0
    t.run('app')


@deviates(strict=False, bfd='not for riscv64')
def test_called_function_has_no_canonical_plt_entry(t):
    shared(t, 'liba.so', 'int f(void) { return 3; }')
    a = t.cc('a.o', 'int f(void); int main(void) { return f(); }', '-fno-pie')
    t.link('app', '-no-pie', a, 'liba.so')
    elf = t.elf('app')
    assert elf.dynsym('f').value == 0
    assert elf.dynrelocs_of('f') == ['JUMP_SLOT']
    t.run('app', status=3)


def test_function_called_and_addressed(t, compiler):
    """One symbol with both a PLT entry and a GOT entry."""
    shared(t, 'liba.so', 'int f(int n) { return n + 1; }')
    a = t.cc('a.o', r'''
        int f(int);
        int (*volatile p)(int);
        int main(void) { p = f; return f(1) + p(10); }''', '-fPIC', '-fplt')
    t.link('app', '-pie', a, 'liba.so')
    t.run('app', status=13)


def test_library_calls_back_into_the_program(t, compiler):
    shared(t, 'liba.so', 'int callback(int); int f(int n) { return callback(n) + 1; }')
    a = t.cc('a.o', r'''
        int f(int);
        int callback(int n) { return n * 2; }
        int main(void) { return f(10); }''')
    t.link('app', a, 'liba.so')
    assert 'callback' in t.elf('app').exports()
    t.run('app', status=21)


def test_program_interposes_a_library_function(t, compiler):
    shared(t, 'liba.so', 'int f(void) { return 1; } int g(void) { return f(); }')
    a = t.cc('a.o', 'int g(void); int f(void) { return 2; } int main(void) { return g(); }')
    t.link('app', a, 'liba.so')
    t.run('app', status=2)


def test_lazy_binding_resolves_at_the_first_call(t):
    source = 'int f(void) { return 1; } int never(void) { return 2; }'
    shared(t, 'liba.so', source)
    a = t.cc('a.o', r'''
        int f(void), never(void);
        int main(int argc, char **argv) { return argc > 1 ? never() : f(); }''')
    t.link('lazy', '-Wl,-z,lazy', a, 'liba.so')
    t.link('now', '-Wl,-z,now', a, 'liba.so')
    shared(t, 'liba.so', 'int f(void) { return 1; }')
    t.run('lazy', status=1)
    assert 'never' in t.run('lazy', 'x', status=127).stderr
    assert 'never' in t.run('now', status=127).stderr


def test_flags_of_now_and_lazy(t):
    a = t.cc('a.o', '#include <stdio.h>\nint main(void) { puts("x"); return 0; }')
    t.link('lazy', '-Wl,-z,lazy', a)
    t.link('now', '-Wl,-z,now', a)
    assert not {'BIND_NOW', '1.NOW'} & t.elf('lazy').dyn_flags()
    assert '1.NOW' in t.elf('now').dyn_flags()
    assert t.elf('lazy').dyn('JMPREL') is not None


@pytest.mark.parametrize('mode', ['lazy', 'now'])
def test_many_imports(t, compiler, mode):
    """Enough PLT entries that a wrong index shows."""
    names = [f'f{i}' for i in range(300)]
    shared(t, 'liba.so', '\n'.join(f'int {n}(void) {{ return {n[1:]}; }}' for n in names))
    calls = ''.join(f'if ({n}() != {n[1:]}) return 1;\n' for n in names)
    protos = ''.join(f'int {n}(void);' for n in names)
    a = t.cc('a.o', f'{protos} int main(void) {{ {calls} return 0; }}')
    t.link('app', f'-Wl,-z,{mode}', a, 'liba.so')
    t.run('app')


# -- visibility ---------------------------------------------------------------------------------

def test_hidden_and_internal_symbols_are_not_exported(t, compiler):
    shared(t, 'liba.so', r'''
        __attribute__((visibility("hidden"))) int hidden_data = 1;
        __attribute__((visibility("hidden"))) int hidden_function(void) { return hidden_data; }
        __attribute__((visibility("internal"))) int internal_function(void) { return 2; }
        int open_function(void) { return hidden_function() + internal_function(); }
        ''')
    elf = t.elf('liba.so')
    assert 'open_function' in elf.exports()
    assert not {'hidden_data', 'hidden_function', 'internal_function'} & elf.exports()
    a = t.cc('a.o', 'int open_function(void); int main(void) { return open_function(); }')
    t.link('app', a, 'liba.so')
    t.run('app', status=3)


def test_hidden_symbol_cannot_be_used_from_outside(t):
    shared(t, 'liba.so', '__attribute__((visibility("hidden"))) int secret(void) { return 1; }')
    a = t.cc('a.o', 'int secret(void); int main(void) { return secret(); }')
    t.link('app', a, 'liba.so', ok=False).says('secret', 'a.')


def test_visibility_of_a_reference_hides_the_definition(t, compiler):
    """The most constraining of all visibilities in the objects wins."""
    t.cc('a.o', 'int f(void) { return 1; } int both(void) { return 2; }', '-fPIC')
    t.cc('b.o', r'''
        __attribute__((visibility("hidden"))) int f(void);
        __attribute__((visibility("protected"))) int both(void);
        int g(void) { return f() + both(); }''', '-fPIC')
    t.link('liba.so', '-shared', 'a.o', 'b.o')
    elf = t.elf('liba.so')
    assert 'f' not in elf.exports()
    assert elf.dynsym('both').vis == 'PROTECTED'


def test_hidden_reference_needs_a_definition_in_the_output(t):
    """A definition in a shared object does not satisfy it."""
    shared(t, 'liba.so', 'int f(void) { return 1; }')
    a = t.cc('a.o', r'''
        __attribute__((visibility("hidden"))) int f(void);
        int main(void) { return f(); }''')
    t.link('app', a, 'liba.so', ok=False).says('f')


def test_protected_functions_are_not_interposed(t, compiler):
    shared(t, 'liba.so', r'''
        __attribute__((visibility("protected"))) int f(void) { return 1; }
        int g(void) { return f(); }''')
    assert t.elf('liba.so').dynsym('f').vis == 'PROTECTED'
    assert t.elf('liba.so').dynrelocs_of('f') == []
    a = t.cc('a.o', 'int g(void); int f(void) { return 2; }'
             'int main(void) { return g() * 10 + f(); }')
    t.link('app', a, 'liba.so')
    t.run('app', status=12)


def test_protected_data_is_read_directly(t):
    shared(t, 'liba.so', r'''
        __attribute__((visibility("protected"))) int value = 4;
        int get(void) { return value; }''', cflags=['-O2'])
    assert t.elf('liba.so').dynrelocs_of('value') == []
    a = t.cc('a.o', 'extern int value; int get(void); int main(void) { return value + get(); }',
             '-fPIC')
    t.link('app', a, 'liba.so')
    t.run('app', status=8)


@deviates(strict=False, bfd='only a warning for riscv64')
def test_copying_protected_data_is_refused(t):
    """The library would go on using its own instance."""
    shared(t, 'liba.so', '__attribute__((visibility("protected"))) int value = 4;')
    a = t.cc('a.o', 'extern int value; int main(void) { return value; }', '-fno-pie')
    t.link('app', '-no-pie', a, 'liba.so', ok=False).says('value', 'a.')


# -- dynamic relocations ------------------------------------------------------------------------

def test_local_pointers_are_relative_relocations(t, compiler):
    shared(t, 'liba.so', r'''
        static int x, y;
        int *const table[] = { &x, &y, &x + 1 };
        ''')
    relocs = [r for r in t.elf('liba.so').dynrelocs if r.symbol == '']
    assert sum(r.kind == 'RELATIVE' for r in relocs) >= 3
    assert {r.kind for r in relocs} == {'RELATIVE'}


def test_relative_relocations_come_first_and_are_counted(t):
    shared(t, 'liba.so', r'''
        extern int other;
        static int x;
        int *p[] = { &x, &other, &x, &other, &x };
        int *q = &x;''', '-Wl,-z,combreloc')
    elf = t.elf('liba.so')
    kinds = [r.kind for r in elf.dynrelocs]
    count = elf.dyn('RELACOUNT')
    assert count == kinds.count('RELATIVE')
    assert kinds[:count] == ['RELATIVE'] * count


@deviates(strict=False, bfd='moves them for riscv64')
def test_absolute_symbols_need_no_relocation(t):
    """The value of an absolute symbol does not move with a PIE."""
    t.asm('abs.o', '.globl fixed\nfixed = 0x1234\n.section .note.GNU-stack,"",%progbits\n')
    a = t.cc('a.o', r'''
        #include <stdio.h>
        extern char fixed[];
        char *pointer = fixed;
        int main(void) { printf("%p\n", (void *)pointer); return 0; }''', '-fPIE')
    t.link('app', '-pie', a, 'abs.o')
    t.run('app', expect='0x1234\n')


NO_RELR = deviates(strict=False, bfd='has none for aarch64 and riscv64')
RELR_PROGRAM = r'''
    #include <stdio.h>
    static int x[600];
    #define P8(n) &x[n], &x[n + 1], &x[n + 2], &x[n + 3], &x[n + 4], &x[n + 5], &x[n + 6], &x[n + 7]
    static int *dense[] = { P8(0), P8(8), P8(16), P8(24), P8(32), P8(40), P8(48), P8(56), P8(64) };
    static struct { char c; int *p; long gap[100]; int *q; } sparse =
        { 'a', &x[100], {0}, &x[200] };
    static struct { char c; int *p; } __attribute__((packed)) odd = { 'b', &x[300] };
    int main(void)
    {
        for (int i = 0; i < 600; i++)
            x[i] = i;
        for (int i = 0; i < 72; i++)
            if (*dense[i] != i)
                return 1;
        printf("%d %d %d\n", *sparse.p, *sparse.q, *odd.p);
        return 0;
    }
'''


@deviates(lld='lld 14 spells it --pack-dyn-relocs=relr')
@NO_RELR
def test_packed_relative_relocations(t, compiler):
    a = t.cc('a.o', RELR_PROGRAM, '-fPIE')
    t.link('app', '-pie', '-Wl,-z,pack-relative-relocs', a)
    elf = t.elf('app')
    assert len(elf.relr()) >= 74
    assert all(address % 2 == 0 for address in elf.relr())
    assert elf.dyn('RELRENT') == 8
    t.run('app', expect='100 200 300\n')


@deviates(lld='lld 14 does not know the version')
@NO_RELR
def test_packed_relocations_need_the_version_of_glibc(t):
    a = t.cc('a.o', RELR_PROGRAM, '-fPIE')
    t.link('app', '-pie', '-Wl,-z,pack-relative-relocs', a)
    assert 'GLIBC_ABI_DT_RELR' in [name for _, name, _ in t.elf('app').verneeds.values()]
    t.link('plain', '-pie', '-Wl,-z,nopack-relative-relocs', a)
    assert t.elf('plain').dyn('RELR') is None
    assert 'GLIBC_ABI_DT_RELR' not in [name for _, name, _ in t.elf('plain').verneeds.values()]


@deviates(bfd='takes -z pack-relative-relocs only')
def test_pack_dyn_relocs_option(t):
    a = t.cc('a.o', RELR_PROGRAM, '-fPIE')
    t.link('app', '-pie', '-Wl,--pack-dyn-relocs=relr', a)
    assert len(t.elf('app').relr()) >= 74
    t.link('plain', '-pie', '-Wl,--pack-dyn-relocs=none', a)
    assert t.elf('plain').relr() == []


@deviates(lld='lld 14 spells it --pack-dyn-relocs=relr')
@NO_RELR
def test_packed_relocations_in_static_pie(t):
    a = t.cc('a.o', RELR_PROGRAM, '-fPIE')
    t.link('app', '-static-pie', '-Wl,-z,pack-relative-relocs', a)
    assert t.elf('app').relr()
    t.run('app', expect='100 200 300\n')


TEXT_RELOCATION = r'''
    .section .rodata,"a",%progbits
    .globl pointer
    .type pointer, %object
    .balign 8
    pointer: .8byte target
    .size pointer, 8
    .section .note.GNU-stack,"",%progbits
'''
TEXT_RELOCATION_MAIN = r'''
    extern int *const pointer;
    int target = 12;
    int main(void) { return *pointer; }
'''


def test_text_relocations_on_request(t):
    t.asm('p.o', TEXT_RELOCATION)
    t.cc('a.o', TEXT_RELOCATION_MAIN, '-fPIE')
    t.link('app', '-pie', '-Wl,-z,notext', 'p.o', 'a.o')
    elf = t.elf('app')
    assert elf.dyn('TEXTREL') is not None or 'TEXTREL' in elf.dyn_flags()
    t.run('app', status=12)


@deviates(lld='lld 14 leaves the word as it is, without a message')
def test_text_relocations_are_an_error(t):
    t.asm('p.o', TEXT_RELOCATION)
    t.cc('a.o', TEXT_RELOCATION_MAIN, '-fPIE')
    t.link('app', '-pie', '-Wl,-z,text', 'p.o', 'a.o', ok=False).says('p.o')


@deviates(lld='flags it because of the option')
def test_no_text_relocation_flag_without_need(t):
    t.cc('a.o', 'int main(void) { return 1; }', '-fPIE')
    t.link('app', '-pie', '-Wl,-z,notext', 'a.o')
    elf = t.elf('app')
    assert elf.dyn('TEXTREL') is None and 'TEXTREL' not in elf.dyn_flags()


# -- dlopen and the hash tables -----------------------------------------------------------------

def test_plugin_uses_the_program(t, compiler):
    shared(t, 'plugin.so', 'int host(int); int plugin(void) { return host(20); }')
    a = t.cc('a.o', r'''
        #include <dlfcn.h>
        int host(int n) { return n + 1; }
        int main(void)
        {
            void *handle = dlopen("./plugin.so", RTLD_NOW);
            int (*plugin)(void) = handle ? (int (*)(void))dlsym(handle, "plugin") : 0;
            return plugin ? plugin() : 99;
        }''')
    t.link('app', '-rdynamic', a)
    t.run('app', status=21)
    t.link('closed', a)
    t.run('closed', status=99)


@pytest.mark.parametrize('style', ['gnu', 'sysv', 'both'])
def test_hash_styles_find_every_symbol(t, style):
    names = [f'symbol_{i * 7919 % 1000}_{"x" * (i % 5)}' for i in range(400)]
    shared(t, 'liba.so', '\n'.join(f'int {n} = {i};' for i, n in enumerate(names)),
           f'-Wl,--hash-style={style}')
    elf = t.elf('liba.so')
    assert (elf.dyn('GNU_HASH') is not None) == (style != 'sysv')
    assert (elf.dyn('HASH') is not None) == (style != 'gnu')
    table = ',\n'.join(f'"{n}"' for n in names)
    a = t.cc('a.o', r'''
        #include <dlfcn.h>
        #include <stdio.h>
        const char *names[] = { ''' + table + r''' };
        int main(void)
        {
            void *handle = dlopen("./liba.so", RTLD_NOW);
            int found = 0;
            for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
                int *p = dlsym(handle, names[i]);
                found += p && *p == i;
            }
            printf("%d %d\n", found, dlsym(handle, "symbol_1001_") != 0);
            return 0;
        }''')
    t.link('app', a)
    t.run('app', expect='400 0\n')


@pytest.mark.parametrize('style', ['gnu', 'sysv', 'both'])
def test_hash_table_without_exports(t, style):
    """An empty table still answers (with no)."""
    shared(t, 'liba.so', 'static int unused;', '-nostdlib', f'-Wl,--hash-style={style}')
    a = t.cc('a.o', r'''
        #include <dlfcn.h>
        int main(void)
        {
            void *handle = dlopen("./liba.so", RTLD_NOW);
            return !handle ? 1 : dlsym(handle, "anything") ? 2 : 3;
        }''')
    t.link('app', a)
    t.run('app', status=3)


# -- where libraries are found ------------------------------------------------------------------

def test_runpath_finds_the_library(t, compiler):
    t.write('deep/lib/.keep', '')
    shared(t, 'deep/lib/liba.so', 'int f(void) { return 6; }', '-Wl,-soname,liba.so')
    a = t.cc('a.o', 'int f(void); int main(void) { return f(); }')
    t.link('app', a, '-Ldeep/lib', '-la', '-Wl,--enable-new-dtags',
           '-Wl,-rpath,$ORIGIN/deep/lib')
    elf = t.elf('app')
    assert elf.dyn_strings('RUNPATH') == ['$ORIGIN/deep/lib']
    assert elf.dyn_strings('RPATH') == []
    t.run('app', status=6, env={'LD_LIBRARY_PATH': ''})


def test_rpath_with_old_tags(t):
    t.link('app', t.cc('a.o', 'int main(void) { return 0; }'), '-Wl,--disable-new-dtags',
           '-Wl,-rpath=/one:/two')
    elf = t.elf('app')
    assert elf.dyn_strings('RPATH') == ['/one:/two']
    assert elf.dyn_strings('RUNPATH') == []


def test_rpaths_are_joined(t):
    t.link('app', t.cc('a.o', 'int main(void) { return 0; }'), '-Wl,-rpath,/one',
           '-Wl,-rpath,/two', '-Wl,-R,/three')
    assert t.elf('app').dyn_strings('RUNPATH') == ['/one:/two:/three']


@deviates(lld='keeps repeated entries')
def test_repeated_rpaths_are_dropped(t):
    t.link('app', t.cc('a.o', 'int main(void) { return 0; }'), '-Wl,-rpath,/one',
           '-Wl,-rpath,/two', '-Wl,-rpath,/one')
    assert t.elf('app').dyn_strings('RUNPATH') == ['/one:/two']


def test_rpath_link_finds_libraries_of_libraries(t):
    t.write('inner/.keep', '')
    shared(t, 'inner/libb.so', 'int b(void) { return 5; }', '-Wl,-soname,libb.so')
    shared(t, 'liba.so', 'int b(void); int a(void) { return b() + 1; }', 'inner/libb.so')
    m = t.cc('m.o', 'int a(void); int main(void) { return a(); }')
    t.link('app', m, 'liba.so', '-Wl,-rpath-link,inner')
    t.run('app', status=6, env={'LD_LIBRARY_PATH': f'{t.path}:{t.path}/inner'})


def test_auxiliary_and_filter_entries(t):
    shared(t, 'liba.so', 'int f(void) { return 6; }', '-Wl,-f,libaux.so', '-Wl,-F,libfilter.so')
    elf = t.elf('liba.so')
    assert elf.dyn_strings('AUXILIARY') == ['libaux.so']
    assert elf.dyn_strings('FILTER') == ['libfilter.so']


@deviates(lld='not known to it')
def test_libraries_that_audit(t):
    """What a library wants to be audited by, the program says of its dependencies."""
    source = 'int f(void) { return 1; }'
    shared(t, 'liba.so', source, '-Wl,--audit=x.so,--audit=y.so,--audit=x.so')
    elf = t.elf('liba.so')
    assert elf.dyn_strings('AUDIT') == ['x.so:y.so'] and elf.dyn('DEPAUDIT') is None
    m = t.cc('m.o', 'int f(void); int main(void) { return f(); }')
    t.link('app', m, 'liba.so', '-Wl,--depaudit=z.so,-P,y.so')
    elf = t.elf('app')
    assert elf.dyn('AUDIT') is None
    assert set(elf.dyn_strings('DEPAUDIT')[0].split(':')) >= {'x.so', 'y.so', 'z.so'}


@pytest.mark.parametrize('keyword, flag', [
    ('global', '1.GLOBAL'),
    pytest.param('globalaudit', '1.GLOBAUDIT', marks=deviates(lld='not known to it')),
    ('initfirst', '1.INITFIRST'),
    ('interpose', '1.INTERPOSE'),
    ('nodefaultlib', '1.NODEFLIB'),
    ('nodelete', '1.NODELETE'),
    ('nodlopen', '1.NOOPEN'),
    pytest.param('nodump', '1.NODUMP', marks=deviates(lld='not known to lld 14')),
    ('now', '1.NOW'),
    ('origin', '1.ORIGIN'),
])
def test_flags_for_the_dynamic_linker(t, keyword, flag):
    source = 'int f(void) { return 1; }'
    shared(t, 'plain.so', source)
    shared(t, 'flagged.so', source, f'-Wl,-z,{keyword}')
    assert flag not in t.elf('plain.so').dyn_flags()
    assert flag in t.elf('flagged.so').dyn_flags()


def test_dynamic_linker_option(t):
    a = t.cc('a.o', 'int main(void) { return 0; }')
    t.link('app', '-Wl,--dynamic-linker,/opt/ld.so', a)
    assert t.elf('app').interp == '/opt/ld.so'


@deviates(lld='not known to lld')
def test_short_dynamic_linker_option(t):
    a = t.cc('a.o', 'int main(void) { return 0; }')
    t.link('app2', '-Wl,-I/opt/other.so', a)
    assert t.elf('app2').interp == '/opt/other.so'


def test_no_dynamic_linker_option(t):
    a = t.cc('a.o', 'int main(void) { return 0; }', '-fPIE')
    t.link('app', '-pie', '-Wl,--no-dynamic-linker', a)
    assert t.elf('app').interp is None
    assert t.elf('app').segment('DYNAMIC')
