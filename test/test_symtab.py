"""The symbol table: which symbols it has, what is said of them, and what the strip options leave.

GNU ld is the measure where it is installed: the same names, with the same types and sizes."""

import pytest

from kldtest import KINDS
from kldtest import deviates

pytestmark = deviates(strict=False, gold='keeps to rules of its own',
                      lld='keeps to rules of its own', mold='keeps to rules of its own')

C = r'''
    #include <stdio.h>
    extern int missing(void) __attribute__((weak));
    extern int hidden_missing(void) __attribute__((weak, visibility("hidden")));
    __attribute__((visibility("hidden"))) int hidden(void) { return 1; }
    static int local(void) { return 2; }
    __thread int thread = 3;
    static __thread volatile int local_thread = 4;
    int common;
    static int zeros[3];
    static const char *pointer = "text";
    int (*volatile function)(void) = local;
    int main(void)
    {
        puts("hello");
        return function() + hidden() + thread + local_thread + common + zeros[0] - 10 +
               (missing ? missing() : 0) + (hidden_missing ? hidden_missing() : 0) + (pointer == 0);
    }
'''
# No name of a source file, and labels of its own in a mergeable section.
ASM = '''
    .section .rodata.str1.1,"aMS",%progbits,1
    .Ltext: .asciz "hello"
    text: .asciz "world"
    .text
    plain: nop
    absolute = 5
    .globl global_absolute
    global_absolute = 6
    .globl hidden_label
    .hidden hidden_label
    hidden_label: load_address .Ltext
    load_address text
    .section .note.GNU-stack,"",%progbits
'''
# What GNU ld always defines or keeps; and where it differs by its own crt handling.
OF_THE_LINKER = {'', '_DYNAMIC', '_GLOBAL_OFFSET_TABLE_', '__GNU_EH_FRAME_HDR', '__FRAME_END__',
                 '__TMC_LIST__', '__bss_start', '_edata', '_end', '__TMC_END__',
                 # aarch64
                 '_TLS_MODULE_BASE_', '__bss_start__', '_bss_end__', '__bss_end__', '__end__',
                 # riscv64
                 '_PROCEDURE_LINKAGE_TABLE_', '__DATA_BEGIN__', '__SDATA_BEGIN__', '__BSS_END__',
                 '__global_pointer$'}

# What is code and what is data ($x, $d); linkers describe their own sections, too, or not.
MAPPING = ('$x', '$d')


def facts(elf):
    """Name, type, size and place of all symbols. Hidden ones count as local: GNU ld leaves some of
    them global."""
    return sorted((s.name, s.type, s.size, s.section if s.section in ('UNDEF', 'ABS') else '',
                   'LOCAL' if s.vis in ('HIDDEN', 'INTERNAL') else s.bind)
                  for s in elf.symbols if s.name not in OF_THE_LINKER and s.name[:2] not in MAPPING)


def names(elf, bind=None):
    return {s.name for s in elf.symbols if s.name and bind in (None, s.bind)}


def objects(t, kind='pie'):
    return [t.cc('a.o', C, '-O1', '-fcommon', *KINDS[kind].cflags), t.asm('b.o', ASM)]


@pytest.mark.parametrize('kind', ['pie', 'no-pie', 'static'])
@pytest.mark.parametrize('flag', [None, '-x', '-X', '--discard-none', '-S'])
def test_same_symbols_as_gnu_ld(t, kind, flag):
    files = objects(t, kind)
    # so that functions are as long here as there
    flags = ['-Wl,--no-relax', *KINDS[kind].ldflags, *([f'-Wl,{flag}'] if flag else [])]
    t.link('app', *files, *flags)
    t.link_with('bfd', 'bfd', *files, *flags)
    ours, theirs = facts(t.elf('app')), facts(t.elf('bfd'))
    if kind == 'no-pie': # where GNU ld lets the loader define no weak name
        ours, theirs = ([f for f in all if f[3:] != ('UNDEF', 'WEAK')] for all in (ours, theirs))
    assert ours == theirs


def test_local_symbols_come_first(t, kind):
    t.link('app', *objects(t, kind.name), *kind.ldflags)
    elf = t.elf('app')
    table = elf.section('.symtab')
    assert [s.bind == 'LOCAL' for s in elf.symbols].index(False) == table.info
    assert all(s.bind != 'LOCAL' for s in elf.symbols[table.info:])
    assert elf.sections[table.link].name == '.strtab'
    assert elf.symbols[0] == ('', 0, 0, 'LOCAL', 'NOTYPE', 'DEFAULT', 'UNDEF', None, True)


def test_addresses_are_those_that_the_program_sees(t, compiler):
    a = t.cc('a.o', r'''
        #include <stdio.h>
        static int one(void) { return 1; }
        static int two[4];
        int three = 3;
        const char four[] = "four";
        int main(void)
        {
            printf("one %p\ntwo %p\nthree %p\nfour %p\nmain %p\n", (void *)one, (void *)two,
                   (void *)&three, (void *)four, (void *)main);
            return one() - 1 + two[0];
        }''', '-fno-pie')
    t.link('app', '-no-pie', a)
    elf = t.elf('app')
    for line in t.run('app').stdout.splitlines():
        name, address = line.split()
        symbol = elf.symbol(name)
        section = elf.section(symbol.section)
        assert symbol.value == int(address, 16)
        assert section.addr <= symbol.value < section.end


@deviates(bfd='leaves such symbols global')
def test_files_have_names(t):
    """The functions of a file without STT_FILE are not to be taken for those of the one before."""
    t.link('app', *objects(t))
    symbols = t.elf('app').symbols
    file_of, file = {}, None
    for s in symbols:
        if s.type == 'FILE':
            file = s.name
        elif s.bind == 'LOCAL' and s.name:
            file_of[s.name] = file
    assert file_of['local'] == 'a.c'
    assert file_of['plain'] == file_of['absolute'] == 'b.o'
    assert file_of['hidden_label'] == ''


@deviates(bfd='leaves those of assembly files global')
def test_hidden_symbols_are_local(t):
    t.link('app', *objects(t))
    for name in ('hidden', 'hidden_label'):
        symbol = t.elf('app').symbol(name)
        assert (symbol.bind, symbol.vis) == ('LOCAL', 'DEFAULT')


def test_protected_symbols_stay_global(t):
    a = t.cc('a.o', '__attribute__((visibility("protected"))) int p(void) { return 1; }', '-fPIC')
    t.link('lib.so', '-shared', a)
    symbol = t.elf('lib.so').symbol('p')
    assert (symbol.bind, symbol.vis) == ('GLOBAL', 'PROTECTED')


def test_imported_symbols_are_named_with_their_version(t):
    t.link('app', t.cc('a.o', C, '-fPIE'), '-pie')
    puts = [s for s in t.elf('app').symbols if s.name.split('@')[0] == 'puts']
    assert len(puts) == 1
    assert puts[0].name.startswith('puts@GLIBC_') and '@@' not in puts[0].name
    assert (puts[0].section, puts[0].bind, puts[0].type, puts[0].value) == \
        ('UNDEF', 'GLOBAL', 'FUNC', 0)


def test_versions_of_definitions_are_kept_in_names(t):
    a = t.cc('a.o', r'''
        int old_f(void) { return 1; }
        int new_f(void) { return 2; }
        __asm__(".symver old_f, f@V1");
        __asm__(".symver new_f, f@@V2");''', '-fPIC')
    t.write('v.map', 'V1 { global: f; local: *; }; V2 { global: f; } V1;')
    t.link('lib.so', '-shared', a, '-Wl,--version-script=v.map')
    elf = t.elf('lib.so')
    assert elf.versioned_exports() == {'f@V1', 'f@@V2'}


def test_copied_variables_are_defined(t):
    lib = t.cc('lib.o', 'int shared[4] = {1, 2, 3, 4};', '-fPIC')
    t.link('libv.so', '-shared', lib)
    main = t.cc('main.o', 'extern int shared[4]; int main(void) { return shared[2] - 3; }',
                '-fno-pie')
    t.link('app', '-no-pie', main, 'libv.so')
    t.run('app')
    symbol = t.elf('app').symbol('shared')
    assert (symbol.type, symbol.size, symbol.bind) == ('OBJECT', 16, 'GLOBAL')
    assert symbol.section.startswith('.bss')


def test_thread_local_values_are_offsets(t):
    t.link('app', *objects(t))
    elf = t.elf('app')
    tls = elf.segment('TLS')
    for name in ('thread', 'local_thread'):
        symbol = elf.symbol(name)
        assert symbol.type == 'TLS' and symbol.value < tls.memsz
        value = elf.at(tls.vaddr + symbol.value, 4)
        assert value == (b'\3\0\0\0' if name == 'thread' else b'\4\0\0\0')


def test_ifuncs_keep_their_type(t, kind):
    a = t.cc('a.o', r'''
        static int one(void) { return 1; }
        static int (*choose(void))(void) { return one; }
        int f(void) __attribute__((ifunc("choose")));
        static int g(void) __attribute__((ifunc("choose")));
        int main(void) { return f() + g() - 2; }''', *kind.cflags)
    t.link('app', a, *kind.ldflags)
    t.run('app')
    elf = t.elf('app')
    assert elf.symbol('f').type == elf.symbol('g').type == 'IFUNC'
    assert elf.symbol('f').value == elf.symbol('choose').value
    assert elf.bytes[7] == 3, 'the type is of ELFOSABI_GNU'


def test_unique_symbols(t):
    a = t.cxx('a.o', 'template<class T> struct S { static int n; }; template<class T> int S<T>::n;'
              'int f() { return S<int>::n; }', '-fPIC')
    t.link('lib.so', '-shared', a, via='c++')
    symbol = t.elf('lib.so').symbol('_ZN1SIiE1nE')
    assert symbol.bind == 'UNIQUE'
    assert t.elf('lib.so').bytes[7] == 3


def test_unused_weak_names_are_left_out(t):
    """Of a program whose loader has nothing more to say about them."""
    t.link('app', '-static', '-no-pie', t.cc('a.o', C, '-fno-pie'))
    assert not names(t.elf('app')) & {'missing', 'hidden_missing'}


def test_sections_that_are_gone_take_their_symbols_along(t):
    a = t.cc('a.o', 'static int n; int used(void) { return 1; } int unused(void) { return ++n; }'
             'int main(void) { return used() - 1; }', '-ffunction-sections', '-fdata-sections')
    t.link('app', a, '-Wl,--gc-sections')
    found = names(t.elf('app'))
    assert 'used' in found and not found & {'unused', 'n'}


def test_symbols_of_comdat_groups_that_lost(t):
    source = 'inline int %%s() { static int n; return ++n; } int %s() { return f(); }'
    a = t.cxx('a.o', source.replace('%%s', 'f') % 'a')
    b = t.cxx('b.o', source.replace('%%s', 'f') % 'b')
    main = t.cxx('main.o', 'int a(), b(); int main() { a(); return b() - 2; }')
    t.link('app', main, a, b, via='c++')
    t.run('app')
    found = [s.name for s in t.elf('app').symbols]
    assert found.count('_Z1fv') == 1 and found.count('_ZZ1fvE1n') == 1


@pytest.mark.parametrize('flags', [(), ('-Wl,-x',), ('-Wl,-X',), ('-Wl,--discard-none',)])
def test_labels_of_mergeable_sections(t, flags):
    t.link('app', *objects(t), *flags)
    found = names(t.elf('app'), 'LOCAL')
    in_object = '.Ltext' in names(t.elf('b.o'))  # not all assemblers leave it there
    assert ('.Ltext' in found) == (in_object and flags == ('-Wl,--discard-none',))
    assert ('text' in found) == (flags != ('-Wl,-x',))
    assert ('local' in found) == (flags != ('-Wl,-x',))


def test_strip_all(t, kind):
    t.link('app', *objects(t, kind.name), *kind.ldflags, '-s')
    t.run('app', expect='hello\n')
    elf = t.elf('app')
    assert not elf.section('.symtab') and not elf.section('.strtab')
    assert bool(elf.dynsyms) == kind.dynamic or kind.name == 'static-pie'


def test_strip_debug(t):
    a = t.cc('a.o', C, '-g', '-fPIE')
    t.link('app', a, '-Wl,-S')
    elf = t.elf('app')
    assert not [s for s in elf.sections if s.name.startswith('.debug')]
    assert {'main', 'local', 'a.c'} <= names(elf)


def test_retain_symbols_file(t):
    t.write('keep', 'main\nlocal\n\nnothing')
    t.link('app', *objects(t), '-Wl,--retain-symbols-file=keep')
    t.run('app', expect='hello\n')
    assert {s.name for s in t.elf('app').symbols if s.name and s.type != 'FILE'} == \
        {'main', 'local'}


def test_retain_symbols_file_that_is_missing(t):
    t.link('app', *objects(t), '-Wl,--retain-symbols-file=none', ok=False).says('none')


def test_absolute_symbols(t):
    t.link('app', *objects(t), '-Wl,--defsym=given=0x1234')
    elf = t.elf('app')
    assert [(elf.symbol(n).section, elf.symbol(n).value)
            for n in ('absolute', 'global_absolute', 'given')] == \
        [('ABS', 5), ('ABS', 6), ('ABS', 0x1234)]


def test_symbols_of_linker_made_sections(t, kind):
    a = t.cc('a.o', r'''
        #include <stdio.h>
        __attribute__((section("mine"), used)) static int one = 1;
        extern int __start_mine[], __stop_mine[];
        extern char __ehdr_start[], _end[];
        int main(void)
        {
            return (int)(__stop_mine - __start_mine) - 1 + (_end < __ehdr_start);
        }''', *kind.cflags)
    t.link('app', a, *kind.ldflags)
    t.run('app')
    elf = t.elf('app')
    assert elf.symbol('__start_mine').value == elf.section('mine').addr
    assert elf.symbol('__stop_mine').value == elf.section('mine').end
    assert elf.symbol('__ehdr_start').section != 'ABS', 'it moves with the image'


@deviates(strict=False, bfd='has no room for them for riscv64')
def test_more_sections_than_fit_a_symbol(t):
    count = 66000
    lines = [f'.section s{i},"aw"\nv{i}: .globl v{i}\n.byte 1\nl{i}:' for i in range(count)]
    a = t.asm('a.o', '\n'.join(lines) + '\n.section .note.GNU-stack,"",%progbits\n')
    main = t.cc('main.o', f'extern char v0, v{count - 1}; int main(void)'
                f'{{ return v0 + v{count - 1} - 2; }}')
    t.link('app', main, a)
    t.run('app')
    elf = t.elf('app')
    assert elf.section('.symtab_shndx').size == elf.section('.symtab').size // 24 * 4
    for symbol in elf.symbols:
        if symbol.name[:1] == 'v' and symbol.name[1:].isdigit():
            assert symbol.section == f's{symbol.name[1:]}'
    assert elf.symbol(f'v{count - 1}').value == elf.section(f's{count - 1}').addr
    assert elf.symbol(f'l{count - 1}').section == f's{count - 1}'


@deviates(bfd='has no such option')
def test_threads_do_not_matter(t):
    files = []
    for i in range(40):
        files.append(t.cc(f'f{i}.o', f'static int l(void) {{ return {i}; }} '
                          f'int g{i}(void) {{ return l(); }} '
                          f'__attribute__((visibility("hidden"))) int h{i};'))
    main = t.cc('main.o', 'int main(void) { return 0; }')
    outputs = []
    for n in (1, 2, 7):
        t.link(f'app{n}', main, *files, f'-Wl,--threads={n}' if n > 1 else '-Wl,--no-threads')
        outputs.append((t.path / f'app{n}').read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]
