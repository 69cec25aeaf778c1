"""Cold links of --incremental: programs work as without it, there is room for edits where there may
be some and none elsewhere, and tools that walk the output find nothing wrong in the gaps."""

import re
import shutil
import struct
import subprocess
from collections import Counter

import pytest

from kldtest import TIMEOUT
from kldtest import only

INCREMENTAL = '-Wl,--incremental'

CXX = r'''
    #include <cstdio>
    #include <stdexcept>
    #include <string>
    int library(int n);
    extern "C" int in_c(int n);
    thread_local int own = 40;
    thread_local int zero;
    static int zeroed[100];
    struct Base { virtual ~Base() {} virtual int get() { return 1; } };
    struct Derived : Base { int get() override { return 2; } };
    static Derived derived;
    static int order;
    struct Early { Early() { order = order * 10 + 1; } } early;
    __attribute__((constructor)) static void construct() { order = order * 10 + 2; }
    static int thrower(int depth)
    {
        if (depth == 0)
            throw std::runtime_error("thrown"); /* THE THROW */
        return thrower(depth - 1) + 1;
    }
    int main(int argc, char **)
    {
        Base *base = &derived;
        try {
            thrower(argc + 2);
        } catch (const std::exception &e) {
            std::printf("%s\n", e.what()); /* THE HANDLER */
        }
        std::string text = "text";
        std::printf("%s %d %d\n", text.c_str(), base->get(), order > 0);
        int first = library(own++ + zero + zeroed[7]);
        std::printf("%d %d\n", first, in_c(own));
        return 0;
    }
'''
LIBRARY = r'''
    #include <string.h>
    #ifdef __cplusplus
    #error "C"
    #endif
    static int table[] = { 1, 2, 3 };
    static const char *const names[] = { "one", "two", "three" };
    __attribute__((section("counted"), used)) static int counted_1 = 1;
    extern int __start_counted[], __stop_counted[];
    static int local_1(int n) { return n + table[n % 3]; }
    __attribute__((noinline)) static int deeper(int n)
    {
        return local_1(n) + (int)strlen(names[n % 3]); /* IN THE LIBRARY */
    }
    int in_c(int n) { return deeper(n) + 100 * (int)(__stop_counted - __start_counted); }
'''
SECOND = r'''
    __attribute__((section("counted"), used)) static int counted_2 = 2;
    static int small(int n) { return n + 1; }
    int library(int n) { return small(n) + counted_2 * 0; }
'''
SAYS = 'thrown\ntext 2 1\n41 249\n'

CONTIGUOUS = ['.init', '.fini', '.init_array', '.fini_array', '.tdata', '.tbss', '.interp', '.dynamic',
              '.dynsym', '.dynstr', '.gnu.hash', '.gnu.version', '.gnu.version_r', '.note.ABI-tag',
              '.note.gnu.property', '.note.gnu.build-id', '.tm_clone_table', 'counted', '.plt',
              '.got.plt', '.rela.plt']


def compile_all(t, *flags):
    return [t.cxx('main.o', CXX, *flags), t.cc('library.o', LIBRARY, *flags),
            t.cxx('second.o', SECOND, *flags)]


def link_both(t, objects, *flags, via='c++'):
    t.link('plain', *flags, *objects, via=via)
    t.link('app', *flags, INCREMENTAL, *objects, via=via)
    return t.elf('plain'), t.elf('app')


def functions(elf):
    """{name: (address, size)} of the functions of the program itself."""
    return {s.name: (s.value, s.size) for s in elf.symbols if s.type == 'FUNC' and s.size}


# -- they work --------------------------------------------------------------------------------------

@pytest.mark.parametrize('sections', [(), ('-ffunction-sections', '-fdata-sections')],
                         ids=['plain', 'sections'])
def test_programs_run(t, compiler, kind, sections):
    objects = compile_all(t, '-O1', *kind.cflags, *sections)
    link_both(t, objects, *kind.ldflags)
    t.run('plain', expect=SAYS)
    t.run('app', expect=SAYS)


def test_shared_library_and_gc_sections(t, compiler):
    main, library, second = compile_all(t, '-O1', '-fPIC', '-ffunction-sections', '-g')
    t.link('libpart.so', '-shared', INCREMENTAL, '-Wl,--gc-sections', library, second, via='c++')
    t.link('app', INCREMENTAL, '-Wl,--gc-sections,-z,now', main, 'libpart.so', via='c++')
    t.run('app', expect=SAYS)


def test_links_are_the_same_every_time(t):
    objects = compile_all(t, '-g', '-O1', '-fPIE', '-ffunction-sections')
    t.link('one', INCREMENTAL, *objects, via='c++')
    t.link('two', INCREMENTAL, '-Wl,--threads=1', *objects, via='c++')
    assert (t.path / 'one').read_bytes() == (t.path / 'two').read_bytes()


@pytest.mark.parametrize('flags', [[], ['-Wl,--incremental', '-Wl,--no-incremental']],
                         ids=['not asked for', 'taken back'])
def test_without_the_option_there_is_no_slack(t, flags):
    objects = compile_all(t, '-g', '-fPIE')
    t.link('plain', *objects, via='c++')
    t.link('app', *flags, *objects, via='c++')
    assert (t.path / 'plain').read_bytes() == (t.path / 'app').read_bytes()


@pytest.mark.parametrize('flag', ['-s', '--emit-relocs', '--icf=all', '--compress-debug-sections=zlib',
                                  '--section-start=.data=0x100000'])
def test_modes_that_are_not_patched_have_no_slack(t, flag):
    objects = compile_all(t, '-g', '-fPIE')
    plain, app = link_both(t, objects, f'-Wl,{flag}')
    assert [s.size for s in plain.sections] == [s.size for s in app.sections]


# -- where there is room ---------------------------------------------------------------------------

def test_functions_have_room_behind_them(t, compiler):
    objects = compile_all(t, '-O0', '-fPIE', '-ffunction-sections')
    _, app = link_both(t, objects)
    found = functions(app)
    names = [n for n in ('deeper', 'local_1', 'in_c') if n in found]
    starts = sorted(a for a, _ in found.values())
    text = app.section('.text')
    for name in names:
        address, size = found[name]
        following = min([a for a in starts if a > address] + [text.end])
        assert following - address >= size + max(8, size // 10), name


def test_sections_have_pools(t, compiler):
    objects = compile_all(t, '-g', '-O0', '-fPIE')
    plain, app = link_both(t, objects)
    for name, least in (('.text', 16 << 10), ('.rodata', 4 << 10), ('.data', 4 << 10), ('.bss', 4 << 10),
                        ('.eh_frame', 4 << 10), ('.debug_info', 16 << 10), ('.debug_line', 16 << 10),
                        ('.debug_abbrev', 8 << 10), ('.debug_str', 64)):
        assert app.section(name).size >= plain.section(name).size + least, name
    assert app.section_names() == plain.section_names() or '.plt.got' in app.section_names()


def test_percentages(t):
    body = ' '.join(f'x = x * {n} + *(volatile int *)&x;' for n in range(2000))
    obj = t.cc('big.o', f'int big(int x) {{ {body} return x; }} int data[4000] = {{1}};'
                        'int main(void) { return 0; }', '-O0', '-fPIE')
    sizes = {}
    for code, data in ((0, 0), (50, 0), (0, 50)):
        t.link('app', INCREMENTAL, f'-Wl,--incremental-code-slack={code}',
               f'-Wl,--incremental-data-slack={data}', obj)
        sizes[code, data] = [t.elf('app').section(n).size for n in ('.text', '.data')]
    text, init = sizes[0, 0]
    assert sizes[50, 0][0] >= 1.4 * (text - (64 << 10)) + (64 << 10) and sizes[50, 0][1] == init
    assert sizes[0, 50][1] >= init + 8000 and sizes[0, 50][0] == text


def test_what_is_contiguous_has_no_gaps(t, compiler, kind):
    objects = compile_all(t, '-g', '-O1', *kind.cflags, '-ffunction-sections', '-fdata-sections')
    plain, app = link_both(t, objects, *kind.ldflags)
    for name in CONTIGUOUS:
        if plain.section(name) and name != '.dynamic':
            assert app.section(name).size == plain.section(name).size, name
    assert app.segment('TLS').memsz == plain.segment('TLS').memsz
    t.run('app', expect=SAYS)


def test_a_section_of_an_unknown_name_has_no_gaps(t):
    """Somebody may go through it from one end to the other."""
    flags = ('-fPIE', '-fdata-sections')
    one = t.cc('one.o', 'int a[5] __attribute__((section(".mine"))) = {1};'
                        'int main(void) { return 0; }', *flags)
    two = t.cc('two.o', 'int b[5] __attribute__((section(".mine"))) = {1};', *flags)
    plain, app = link_both(t, [one, two], via='cc')
    assert app.section('.mine').size == plain.section('.mine').size


@only('riscv64')
def test_code_is_not_shortened(t):
    """What is near now may be far after an edit."""
    objects = compile_all(t, '-O1', '-fno-pie')
    t.link('relaxed', '-no-pie', *objects, via='c++')
    t.link('kept', '-no-pie', '-Wl,--no-relax', *objects, via='c++')
    t.link('app', '-no-pie', INCREMENTAL, *objects, via='c++')
    relaxed, kept, app = (functions(t.elf(name))['main'][1] for name in ('relaxed', 'kept', 'app'))
    assert app == kept > relaxed


# -- tables ----------------------------------------------------------------------------------------

def test_dynamic_tables_have_spare_entries(t, compiler):
    objects = compile_all(t, '-O1', '-fPIE')
    plain, app = link_both(t, objects, '-pie', '-Wl,-z,pack-relative-relocs')
    spare = [r for r in app.relocs_in('.rela.dyn') if r.kind == 'NONE']
    assert len(spare) >= 16 and all(r.offset == 0 and r.addend == 0 for r in spare)
    assert app.relocs_in('.rela.dyn')[-16:] == spare[-16:]
    assert app.dyn('RELACOUNT') is None and app.dyn('RELR') is None
    assert not any('ABI_DT_RELR' in name for _, name, _ in app.verneeds.values())
    assert app.section('.got').size >= plain.section('.got').size + 16 * 8
    assert app.section('.got').data[-16 * 8:] == bytes(16 * 8)
    assert app.section('.plt.got')
    t.run('app', expect=SAYS)


def test_symbol_table_has_spare_entries_for_each_file(t, compiler):
    objects = compile_all(t, '-O0', '-fPIE')
    plain, app = link_both(t, objects)
    spare = [s for s in app.symbols if s.type == 'FILE' and not s.name]
    assert len(spare) >= 4 * len(objects)
    assert {s.name for s in app.symbols} == {s.name for s in plain.symbols}
    table = app.section('.symtab')
    assert all((s.bind == 'LOCAL') == (i < table.info) for i, s in enumerate(app.symbols))
    names = [s.name for s in app.symbols]
    at = names.index('local_1')
    assert 'library' in next(s.name for s in app.symbols[at::-1] if s.type == 'FILE')


# -- what is in the gaps ---------------------------------------------------------------------------

def frame_records(data):
    """[(offset, size, id)] of .eh_frame; the terminator has to be at the very end."""
    at, found = 0, []
    while at < len(data):
        length, = struct.unpack_from('<I', data, at)
        if length == 0:
            assert at + 4 == len(data), f'a terminator at {at:#x} of {len(data):#x}'
            return found
        found.append((at, length + 4, struct.unpack_from('<I', data, at + 4)[0]))
        at += length + 4
    raise AssertionError('no terminator')


def test_eh_frame_is_a_chain_of_records(t, compiler, kind):
    objects = compile_all(t, '-O1', *kind.cflags, '-ffunction-sections')
    plain, app = link_both(t, objects, *kind.ldflags)
    records = frame_records(app.section('.eh_frame').data)
    fdes = [r for r in records if r[2]]
    assert len(fdes) == sum(1 for r in frame_records(plain.section('.eh_frame').data) if r[2])
    cies = {at for at, _, number in records if not number}
    used = {at + 4 - number for at, _, number in fdes}
    assert used <= cies and cies - used, 'gaps are CIEs that nobody refers to'
    header = app.section('.eh_frame_hdr')
    if not header:  # compilers ask for none in some static programs
        return
    count, = struct.unpack_from('<I', header.data, 8)
    assert count == struct.unpack_from('<I', plain.section('.eh_frame_hdr').data, 8)[0]
    assert header.size >= 12 + 8 * (count + 64) and header.data[12 + 8 * count:].strip(b'\0') == b''


def test_aranges_refer_to_different_units(t):
    """gdb takes no notice of any of them if two tables are of one unit."""
    objects = compile_all(t, '-g', '-O0', '-fPIE', '-ffunction-sections')
    _, app = link_both(t, objects)
    data, at, units = app.section('.debug_aranges').data, 0, []
    while at < len(data):
        length, version, unit = struct.unpack_from('<IHI', data, at)
        assert version == 2
        units.append(unit)
        at += length + 4
    starts, at, data = set(), 0, app.section('.debug_info').data
    while at < len(data):
        starts.add(at)
        at += struct.unpack_from('<I', data, at)[0] + 4
    assert at == len(data)
    assert len(set(units)) == len(units) > len(objects) and set(units) <= starts


# -- tools -----------------------------------------------------------------------------------------

C_PROGRAM = r'''
    #include <stdio.h>
    int library(int n);
    static const char *names[] = { "a", "bb" };
    int main(int argc, char **argv)
    {
        printf("%s %d\n", names[argc % 2], library(argc)); /* IN MAIN */
        return argv == 0;
    }
'''
C_LIBRARY = r'''
    static int table[] = { 1, 2, 3 };
    __attribute__((noinline)) static int deeper(int n)
    {
        for (int i = 0; i < n; i++) {
            int k = table[i % 3];
            if (k > 1)
                n -= k; /* IN THE BRANCH */
        }
        return n + table[n % 3]; /* IN THE LIBRARY */
    }
    int library(int n) { return deeper(n) + 1; }
'''
TOOLS = {
    'readelf': ['-W', '-a'],
    'readelf ': ['--debug-dump=info,abbrev,rawline,decodedline,frames,str,loc,Ranges,aranges,'
                 'str-offsets,addr'],
    'llvm-dwarfdump': ['-a'],
    'eu-readelf': [f'--debug-dump={name}' for name in ('abbrev', 'aranges', 'frame', 'info', 'loc',
                                                       'line', 'ranges', 'str', 'addr')],
    'objdump': ['-d'],
    'nm': [],
}
# What readelf says of lists that no unit refers to, and eu-readelf of tables; none of them looks at
# them for anything else.
KNOWN = re.compile('There is a hole .* in .debug_loc|unused bytes at the end of section .debug_loc|'
                   'debug_loclists section contains a table without offset|'
                   'No CU references .debug_(addr|str_offsets)|LLE of kind .* not supported')


def line_of(source, words):
    return next(n for n, line in enumerate(source.split('\n'), 1) if words in line)


def complaints(t, tool, flags, program):
    """What the tool says on its standard error, numbers left out; its status does not matter."""
    said = subprocess.run([tool.strip(), *flags, program], cwd=t.path, capture_output=True, text=True,
                          errors='replace', timeout=TIMEOUT).stderr
    said = re.sub(r'0x[0-9a-f]+|\b[0-9a-f]{2,}\b', 'N', said.replace(program, ''))
    return Counter(line for line in said.split('\n') if not KNOWN.search(line))


DEBUG = [('-gdwarf-5', '-O0'), ('-gdwarf-5', '-O2'), ('-gdwarf-4', '-O0'), ('-gdwarf-4', '-O2')]


@only('x86_64')
@pytest.mark.parametrize('flags', DEBUG, ids=' '.join)
def test_tools_find_nothing_that_they_do_not_find_without_slack(t, compiler, flags):
    objects = [t.cc('main.o', C_PROGRAM, '-fPIE', *flags), t.cc('part.o', C_LIBRARY, '-fPIE', *flags)]
    link_both(t, objects, via='cc')
    for tool, arguments in TOOLS.items():
        if shutil.which(tool.strip()):
            more = complaints(t, tool, arguments, 'app') - complaints(t, tool, arguments, 'plain')
            assert not more, tool
    if shutil.which('llvm-dwarfdump') and '-O0' in flags:  # that of LLVM 14 hangs on -O2 code of gcc
        said = t.tool('llvm-dwarfdump', '--verify', 'app').stdout
        assert 'No errors' in said and 'warning' not in said


@only('x86_64')
@pytest.mark.parametrize('flags', DEBUG, ids=' '.join)
def test_gdb_finds_its_way(t, compiler, flags):
    if not shutil.which('gdb'):
        pytest.skip('gdb is not installed')
    objects = [t.cc('main.o', C_PROGRAM, '-fPIE', *flags, '-ffunction-sections'),
               t.cc('part.o', C_LIBRARY, '-fPIE', *flags, '-ffunction-sections')]
    t.link('app', INCREMENTAL, *objects)
    line = line_of(C_LIBRARY, 'IN THE LIBRARY')
    commands = ['set pagination off', 'set width 0', 'set breakpoint pending off',
                'set debuginfod enabled off', f'break part.c:{line}', 'run', 'backtrace',
                'maint expand-symtabs', f'info line main.c:{line_of(C_PROGRAM, "IN MAIN")}', 'continue']
    said = t.tool('gdb', '-nx', '-batch', *[a for c in commands for a in ('-ex', c)], './app',
                  env={'HOME': str(t.path)})
    if re.search('ptrace: Operation not permitted|Cannot trace|Could not trace', said.stderr):
        pytest.skip('processes cannot be traced here: gdb has to be allowed to use ptrace')
    assert not re.search('warning|DW_|debug_', said.stderr), said
    frames = re.findall(r'^#\d+ +(?:0x\w+ in )?(\w+)', said.stdout, re.M)
    assert frames[-3:] == ['deeper', 'library', 'main'], said
    assert 'exited normally' in said.stdout and 'starts at address' in said.stdout


@pytest.mark.parametrize('flags', [(), ('-ffunction-sections',)], ids=['plain', 'sections'])
def test_addr2line(t, compiler, flags):
    objects = [t.cc('main.o', C_PROGRAM, '-g', '-fPIE', *flags),
               t.cc('part.o', C_LIBRARY, '-g', '-fPIE', *flags)]
    t.link('app', INCREMENTAL, *objects)
    found = functions(t.elf('app'))
    for name, file, source in (('main', 'main.c', C_PROGRAM), ('deeper', 'part.c', C_LIBRARY),
                               ('library', 'part.c', C_LIBRARY)):
        address = found[name][0]
        said = t.tool(*t.target.command('addr2line'), '-f', '-e', 'app', hex(address)).stdout.split('\n')
        assert said[0] == name
        line = line_of(source, f'int {name}(')
        assert re.search(rf'{file}:({line}|{line + 1})$', said[1]), said


# -- cost ------------------------------------------------------------------------------------------

def test_a_program_of_a_megabyte_grows_by_less_than_a_third(t):
    objects = []
    for n in range(40):
        body = '\n'.join(f'int f_{n}_{k}(int x) {{ static int own = {k}; for (int i = 0; i < x; i++)'
                         f' own += puts("string {k} of file {n}") + f_{n}_{k - 1}(x - i); return own; }}'
                         for k in range(1, 60))
        source = f'#include <stdio.h>\nint f_{n}_0(int x) {{ return x; }}\n{body}\n'
        objects.append(t.cc(f'part{n}.o', source, '-g', '-O1', '-fPIE', '-ffunction-sections'))
    main = t.cc('main.o', 'int main(void) { return 0; }', '-g', '-fPIE')
    link_both(t, [main, *objects], via='cc')
    plain, app = ((t.path / name).stat().st_size for name in ('plain', 'app'))
    assert plain >= 1 << 20
    assert app <= 1.3 * plain
    t.run('app')
