"""Where the linker looks for libraries, and the text files that stand for libraries."""

import pytest

from kldtest import deviates

CALLS_F = 'int f(void); int main(void) { return f(); }'


def static(t, name, value, function='f'):
    """An archive whose function returns the value."""
    t.write(f'{name}.keep', '')
    t.ar(name, t.cc(f'{name}.o', f'int {function}(void) {{ return {value}; }}', '-fPIC'))
    return name


def shared(t, name, value, function='f'):
    t.write(f'{name}.keep', '')
    x = t.cc(f'{name}.o', f'int {function}(void) {{ return {value}; }}', '-fPIC')
    t.link(name, '-shared', x, f'-Wl,-soname,{name.split("/")[-1]}')
    return name


# -- -l and -L ----------------------------------------------------------------------------------

def test_directories_are_searched_in_order(t):
    static(t, 'one/libf.a', 1)
    static(t, 'two/libf.a', 2)
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, '-Lone', '-Ltwo', '-lf')
    t.run('app', status=1)
    t.link('app', m, '-L', 'two', '-L', 'one', '-lf')
    t.run('app', status=2)


def test_library_path_applies_to_libraries_before_it(t):
    static(t, 'one/libf.a', 1)
    t.ld('both.o', '-r', t.cc('m.o', CALLS_F), '-lf', '-Lone')
    assert t.elf('both.o').symbol('f').section != 'UNDEF'


def test_shared_object_is_preferred_in_one_directory(t):
    static(t, 'one/libf.a', 1)
    shared(t, 'one/libf.so', 2)
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, '-Lone', '-lf', '-Wl,-rpath,$ORIGIN/one')
    t.run('app', status=2)


def test_earlier_directory_beats_preference(t):
    static(t, 'one/libf.a', 1)
    shared(t, 'two/libf.so', 2)
    t.link('app', t.cc('m.o', CALLS_F), '-Lone', '-Ltwo', '-lf')
    t.run('app', status=1)


@pytest.mark.parametrize('static_word', ['-Bstatic', '-dn', '-non_shared', '-static'])
@pytest.mark.parametrize('dynamic_word', ['-Bdynamic', '-dy', '-call_shared'])
def test_static_and_dynamic_libraries_on_request(t, static_word, dynamic_word):
    static(t, 'libf.a', 1)
    shared(t, 'libf.so', 2)
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, '-L.', f'-Wl,{static_word}', '-lf', f'-Wl,{dynamic_word}')
    t.run('app', status=1)
    t.link('app', m, '-L.', f'-Wl,{static_word}', f'-Wl,{dynamic_word}', '-lf')
    t.run('app', status=2)


def test_static_link_ignores_shared_objects(t):
    static(t, 'libf.a', 1)
    shared(t, 'libf.so', 2)
    t.link('app', '-static', t.cc('m.o', CALLS_F), '-L.', '-lf')
    t.run('app', status=1)


def test_shared_object_in_a_static_link_is_refused(t):
    shared(t, 'libf.so', 2)
    t.link('app', '-static', t.cc('m.o', CALLS_F), 'libf.so', ok=False).says('libf.so')


@deviates(gold='takes it', mold='takes it')
def test_shared_object_after_bstatic_is_refused(t):
    """Also without -static: for some CPUs gcc -static passes -Bstatic alone."""
    shared(t, 'libf.so', 2)
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, '-Wl,-Bstatic', 'libf.so', '-Wl,-Bdynamic', ok=False).says('libf.so')
    t.link('app', m, '-Wl,-Bstatic', '-L.', '-l:libf.so', '-Wl,-Bdynamic', ok=False).says('libf.so')
    t.link('app', m, '-Wl,-Bstatic', '-Wl,-Bdynamic', 'libf.so')
    t.run('app', status=2)


def test_exact_file_name(t):
    static(t, 'libf.a', 1)
    shared(t, 'libf.so', 2)
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, '-L.', '-l:libf.a')
    t.run('app', status=1)
    t.cc('odd-name', 'int f(void) { return 3; }')
    t.link('app', m, '-L.', '-l:odd-name')
    t.run('app', status=3)


def test_missing_library_is_named(t):
    t.link('app', t.cc('m.o', 'int main(void) { return 0; }'), '-lnot_there', ok=False) \
        .says('not_there')


def test_missing_file_is_named(t):
    t.link('app', t.cc('m.o', 'int main(void) { return 0; }'), '-Wl,not_there.o', ok=False) \
        .says('not_there.o')


def test_library_of_another_kind_of_machine_is_skipped(t):
    """A 32-bit library on the path is passed over, with the search going on."""
    t.write('one/.keep', '')
    data = bytearray((t.path / t.cc('x.o', 'int f(void) { return 9; }')).read_bytes())
    data[18:20] = (40).to_bytes(2, 'little')
    t.write('one/x.o', bytes(data))
    t.tool('llvm-ar', 'rcS', 'one/libf.a', 'one/x.o')
    static(t, 'two/libf.a', 2)
    t.link('app', t.cc('m.o', CALLS_F), '-Ltwo', '-lf')
    t.run('app', status=2)


@pytest.mark.parametrize('prefix', [
    '=',
    pytest.param('$SYSROOT', marks=deviates(lld='does not know it')),
])
def test_paths_below_the_sysroot(t, prefix):
    """-L=dir and -L$SYSROOT/dir; the direct call keeps the compiler's own paths out."""
    static(t, 'root/opt/lib/libf.a', 3)
    t.ld('both.o', '-r', '--sysroot=root', t.cc('m.o', CALLS_F), f'-L{prefix}/opt/lib', '-lf')
    assert t.elf('both.o').symbol('f').section != 'UNDEF'
    t.ld('both.o', '-r', 'm.o', f'-L{prefix}/opt/lib', '-lf', ok=False)


def test_sysroot_does_not_apply_to_other_paths(t):
    static(t, 'root/opt/libf.a', 3)
    t.ld('both.o', '-r', '--sysroot=root', t.cc('m.o', CALLS_F), '-Lopt', '-lf', ok=False)


def test_nostdlib_searches_given_directories_only(t):
    m = t.cc('m.o', 'int main(void) { return 0; }')
    t.ld('app', '-nostdlib', '-e', 'main', m, '-lm', ok=False).says('m')


# -- text files in place of libraries -----------------------------------------------------------

def test_input_command(t, compiler):
    static(t, 'libone.a', 1, 'f')
    t.write('libf.so', 'INPUT(libone.a)\n')
    t.link('app', t.cc('m.o', CALLS_F), '-L.', '-lf')
    t.run('app', status=1)


@deviates(lld='does not take commas')
def test_group_command_with_comments_and_commas(t):
    t.cc('one.o', 'int g(void); int f(void) { return g() + 1; }')
    t.cc('two.o', 'int h(void); int g(void) { return h() + 1; }')
    t.cc('three.o', 'int h(void) { return 1; }')
    t.ar('libone.a', 'one.o', 'three.o')
    t.ar('libtwo.a', 'two.o')
    t.write('libf.so', '''/* GNU ld script
           Use the shared library, ... */
        GROUP ( ./libone.a , "./libtwo.a" )
        ''')
    t.link('app', t.cc('m.o', CALLS_F), '-L.', '-lf')
    t.run('app', status=3)


def test_as_needed_in_a_script(t):
    shared(t, 'libused.so', 4)
    shared(t, 'libunused.so', 5, 'g')
    shared(t, 'libalways.so', 6, 'h')
    t.write('libf.so', 'INPUT ( AS_NEEDED ( -lused libunused.so ) libalways.so )')
    t.link('app', t.cc('m.o', CALLS_F), '-Wl,--no-as-needed', '-L.', '-lf')
    needed = t.elf('app').needed
    assert 'libused.so' in needed and 'libalways.so' in needed and 'libunused.so' not in needed
    t.run('app', status=4)


def test_as_needed_in_a_script_ends_there(t):
    shared(t, 'libunused.so', 5, 'g')
    shared(t, 'libafter.so', 5, 'h')
    t.write('libf.so', 'GROUP ( AS_NEEDED ( libunused.so ) )')
    t.link('app', t.cc('m.o', 'int main(void) { return 0; }'), '-Wl,--no-as-needed', '-L.', '-lf',
           'libafter.so')
    assert [n for n in t.elf('app').needed if n.startswith('lib') and '.so.' not in n] \
        == ['libafter.so']


def test_search_dir_command(t):
    static(t, 'inner/libone.a', 7)
    t.write('script', f'SEARCH_DIR("{t.path}/inner") INPUT(-lone)')
    t.link('app', t.cc('m.o', CALLS_F), 'script')
    t.run('app', status=7)


def test_output_format_command_is_accepted(t):
    static(t, 'libone.a', 8)
    fmt = {'x86_64': 'elf64-x86-64', 'aarch64': 'elf64-littleaarch64',
           'riscv64': 'elf64-littleriscv'}[t.target.name]
    t.write('libf.so', f'OUTPUT_FORMAT({fmt})\nOUTPUT_ARCH(i386:x86-64)\nGROUP(libone.a)\n'
            if t.target.name == 'x86_64' else f'OUTPUT_FORMAT({fmt})\nGROUP(libone.a)\n')
    t.link('app', t.cc('m.o', CALLS_F), '-L.', '-lf')
    t.run('app', status=8)


def test_files_beside_the_script_are_found(t):
    """A relative name is looked for in the current directory, beside the script, and on -L."""
    static(t, 'deep/libone.a', 9)
    t.write('deep/libf.so', 'INPUT(libone.a)')
    t.link('app', t.cc('m.o', CALLS_F), '-Ldeep', '-lf')
    t.run('app', status=9)


def test_absolute_paths_in_a_script_below_the_sysroot(t):
    """A script inside the sysroot names files as seen from within."""
    static(t, 'root/lib/libone.a', 10)
    t.write('root/usr/lib/libf.a', 'INPUT(/lib/libone.a)')
    t.ld('both.o', '-r', f'--sysroot={t.path}/root', t.cc('m.o', CALLS_F), '-L=/usr/lib', '-lf')
    assert t.elf('both.o').symbol('f').section != 'UNDEF'


def test_symbol_assignment_in_a_script(t, compiler):
    t.write('symbols.ld', 'x = 40; y = x + 0x2; PROVIDE(z = 5); /* used */ PROVIDE(w = 6);')
    m = t.cc('m.o', r'''
        extern char x[], y[], z[];
        int w = 1;
        int main(void) { return (int)(long)y + (int)(long)z + w - (int)(long)x; }''', '-fno-pie')
    t.link('app', '-no-pie', m, 'symbols.ld')
    t.run('app', status=8)


def test_symbol_assignment_refers_to_program_symbols(t, kind):
    t.write('symbols.ld', 'alias = real + 4;\n')
    m = t.cc('m.o', 'int real[2] = { 1, 22 }; extern int alias; int main(void) { return alias; }',
             *kind.cflags)
    t.link('app', *kind.ldflags, m, 'symbols.ld')
    t.run('app', status=22)


def test_version_command_in_a_script(t):
    t.write('versions.ld', 'VERSION { V1 { global: f; local: *; }; }')
    x = t.cc('x.o', 'int f(void) { return 1; } int g(void) { return 2; }', '-fPIC')
    t.link('libx.so', '-shared', x, 'versions.ld')
    assert t.elf('libx.so').versioned_exports() == {'f@@V1'}


def test_entry_command_in_a_script(t):
    t.write('entry.ld', 'ENTRY(other)')
    m = t.cc('m.o', 'int main(void) { return 0; } int other(void) { return 1; }', '-fno-pie')
    t.link('app', '-no-pie', m, 'entry.ld')
    elf = t.elf('app')
    assert elf.entry == elf.symbol('other').value


def test_extern_command_in_a_script(t):
    static(t, 'liba.a', 3, 'wanted')
    t.write('extern.ld', 'EXTERN(wanted)')
    t.link('app', t.cc('m.o', 'int main(void) { return 0; }'), 'extern.ld', 'liba.a')
    assert t.elf('app').symbol('wanted')


def test_script_that_names_a_missing_file(t):
    t.write('libf.so', 'INPUT(libnowhere.a)')
    t.link('app', t.cc('m.o', CALLS_F), '-L.', '-lf', ok=False).says('libnowhere.a')


def test_script_with_a_syntax_error(t):
    t.write('bad.ld', '\n\nINPUT(libone.a\n')
    t.link('app', t.cc('m.o', CALLS_F), 'bad.ld', ok=False).says('bad.ld')


def test_file_that_is_no_object(t):
    t.write('text.o', 'this is ? no object at all\n')
    t.link('app', t.cc('m.o', 'int main(void) { return 0; }'), 'text.o', ok=False).says('text.o')


def test_libc_script_of_the_system(t, compiler):
    """libc.so is such a script: GROUP ( libc.so.6 libc_nonshared.a AS_NEEDED ( ld.so ) )."""
    m = t.cc('m.o', r'''
        #include <stdio.h>
        #include <sys/stat.h>
        #include <stdlib.h>
        static void last(void) { puts("last"); }
        int main(void) { return atexit(last) + at_quick_exit(last); }''')
    t.link('app', m)
    assert t.elf('app').needed == ['libc.so.6']
    t.run('app', expect='last\n')
