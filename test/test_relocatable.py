"""-r and --emit-relocs: objects made of objects, and programs that keep their relocations."""

import shutil
import struct

import pytest

from elfview import RELOC_KINDS
from kldtest import deviates
from kldtest import only

GROUP_COMDAT = 1

pytestmark = deviates(strict=False, gold='keeps to rules of its own',
                      lld='keeps to rules of its own', mold='keeps to rules of its own')


def has(tool):
    return pytest.mark.skipif(not shutil.which(tool), reason=f'{tool} is not installed')


def groups(elf):
    """{signature: sorted names of the members} of all groups."""
    found = {}
    for s in elf.sections:
        if s.type != 'GROUP':
            continue
        words = struct.unpack(f'<{s.size // 4}I', s.data)
        symbols = elf.symbols
        signature = symbols[s.info]
        name = signature.name or signature.section
        assert elf.sections[s.link].type == 'SYMTAB'
        assert name not in found, f'two groups {name}'
        for member in words[1:]:
            assert 'G' in elf.sections[member].flags
            assert member > s.index, 'a group comes before its members'
        found[name] = (words[0], sorted(elf.sections[m].name for m in words[1:]))
    return found


def check(t, name):
    """Everything in the object refers to something that is there."""
    elf = t.elf(name)
    assert elf.type == 'REL' and not elf.segments and elf.entry == 0
    table = elf.section('.symtab')
    for s in elf.sections:
        assert s.addr == 0
        if s.type == 'RELA':
            assert elf.sections[s.link] is table
            target = elf.sections[s.info]
            assert s.name == '.rela' + target.name
            for offset, info, _ in struct.iter_unpack('<QQq', s.data):
                assert offset < target.size and info >> 32 < len(elf.symbols)
    for symbol in elf.symbols:
        if symbol.section not in ('UNDEF', 'ABS', 'COMMON') and symbol.type != 'SECTION':
            assert symbol.value <= max(s.size for s in elf.sections if s.name == symbol.section)
    return elf


CXX = [
    r'''
    #include <cstdio>
    #include <stdexcept>
    #include <string>
    #include <vector>
    template<class T> struct Box { virtual ~Box() {} virtual T get(T x) { return x + 1; } };
    inline int counter() { static int n; return ++n; }
    thread_local std::string word = "tls";
    int other(int);
    int main()
    {
        std::vector<std::string> words{"a", "b"};
        Box<int> box;
        try {
            other(counter());
        } catch (std::exception &e) {
            std::printf("%s %d %d %s %zu\n", e.what(), counter(), box.get(1), word.c_str(),
                        words.size());
        }
    }''',
    r'''
    #include <stdexcept>
    #include <string>
    template<class T> struct Box { virtual ~Box() {} virtual T get(T x) { return x + 1; } };
    inline int counter() { static int n; return ++n; }
    int other(int n)
    {
        Box<int> box;
        throw std::runtime_error("n = " + std::to_string(box.get(n) + counter()));
    }''',
]
EXPECTED = 'n = 4 3 2 tls 2\n'


def cxx_objects(t, *flags):
    return [t.cxx(f'{i}.o', source, *flags) for i, source in enumerate(CXX)]


@pytest.mark.parametrize('flags', [('-O0', '-g'), ('-O2',), ('-O2', '-ffunction-sections', '-g')])
def test_cxx_program_by_way_of_r(t, compiler, kind, flags):
    t.ld('all.o', '-r', *cxx_objects(t, *flags, *kind.cflags))
    check(t, 'all.o')
    t.link('app', 'all.o', *kind.ldflags, via='c++')
    t.run('app', expect=EXPECTED)


@pytest.mark.parametrize('linker', ['bfd', 'lld', 'gold', 'mold'])
def test_other_linkers_take_the_object(t, linker):
    t.ld('all.o', '-r', *cxx_objects(t, '-g'))
    t.link_with(linker, 'app', 'all.o', via='c++')
    t.run('app', expect=EXPECTED)


def test_r_of_r(t):
    a, b = cxx_objects(t, '-g')
    t.ld('a1.o', '-r', a)
    t.ld('b1.o', '-r', b)
    t.ld('ab.o', '-r', 'a1.o', 'b1.o')
    t.ld('ba.o', '-r', b, 'a1.o')
    check(t, 'ab.o')
    t.link('one', 'ab.o', via='c++')
    t.run('one', expect=EXPECTED)
    t.link('two', 'ba.o', via='c++')
    t.run('two', expect=EXPECTED)


def test_groups_stay_groups(t):
    a, b = cxx_objects(t, '-g')
    t.ld('all.o', '-r', a, b)
    merged = groups(check(t, 'all.o'))
    for name in (a, b):
        for signature, (flags, _) in groups(t.elf(name)).items():
            assert merged[signature][0] == flags == GROUP_COMDAT
    assert merged['_Z7counterv'][1] == ['.rela.text._Z7counterv', '.text._Z7counterv']
    # The second copy is gone, and a third object's gives way as well.
    assert [s.name for s in t.elf('all.o').sections].count('.text._Z7counterv') == 1
    t.link('app', 'all.o', b, via='c++', ok=False).says('other(int)')


def test_signature_that_is_local(t):
    """Constructors share a group whose signature is no symbol of the program."""
    source = 'struct S { inline S(); int n; }; S::S() : n(1) {} int %s() { S s; return s.n; }'
    a, b = (t.cxx(f'{n}.o', source % n) for n in 'ab')
    main = t.cxx('main.o', 'int a(), b(); int main() { return a() + b() - 2; }')
    t.ld('ab.o', '-r', a, b)
    assert '_ZN1SC5Ev' in groups(check(t, 'ab.o'))
    t.link('app', main, 'ab.o', t.cxx('c.o', source % 'c'), via='c++')
    t.run('app')
    assert [s.name for s in t.elf('app').symbols].count('_ZN1SC2Ev') == 1


def test_groups_that_are_not_comdat(t):
    a = t.asm('a.o', '.section .one,"aG",%progbits,sig\n.4byte 1\n'
              '.section .two,"aG",%progbits,sig\n.8byte sym\n.globl sig\nsig: .4byte 2\n')
    t.ld('r.o', '-r', a)
    assert groups(check(t, 'r.o')) == {'sig': (0, ['.one', '.rela.two', '.two'])}


@deviates(bfd='joins all of a name')
def test_sections_are_joined_if_they_are_of_one_kind(t):
    a = t.asm('a.o', '.text\n.4byte 0\n.section .x,"a"\n.4byte 1\n.section .text.f,"ax"\n.4byte 0\n'
              '.section .str,"aMS",%progbits,1\n.asciz "a"\n')
    b = t.asm('b.o', '.text\n.4byte 0\n.section .x,"aw"\n.4byte 2\n.section .text.f,"ax"\n.4byte 0\n'
              '.section .str,"aMS",%progbits,2\n.2byte 1, 0\n')
    t.ld('r.o', '-r', a, b, b)
    elf = check(t, 'r.o')
    kinds = sorted((s.name, s.flags, s.size, s.entsize) for s in elf.sections
                   if s.name in ('.text', '.x', '.text.f', '.str'))
    assert kinds == [('.str', 'AMS', 2, 1), ('.str', 'AMS', 8, 2), ('.text', 'AX', 12, 0),
                     ('.text.f', 'AX', 12, 0), ('.x', 'A', 4, 0), ('.x', 'WA', 8, 0)]


def test_relocations_against_sections_move_with_them(t):
    a = t.asm('a.o', '.data\n.8byte 1\n.text\n.4byte 0\n')
    b = t.asm('b.o', '.data\n.8byte .data + 4\n.8byte .text\n.text\n.4byte 0, 0\n'
              'load_address .data\n')
    t.ld('r.o', '-r', a, b)
    elf = check(t, 'r.o')
    data = [(r.offset, r.kind, r.addend) for r in elf.relocs_in('.rela.data')]
    assert data == [(8, 'ABS64', 8 + 4), (16, 'ABS64', 4)]
    names = [elf.symbols[info >> 32].section for _, info, _ in
             struct.iter_unpack('<QQq', elf.section('.rela.data').data)]
    assert names == ['.data', '.text']
    code = {(r.offset, r.addend) for r in elf.relocs_in('.rela.text')}
    assert code >= {'x86_64': {(12 + 3, 8 - 4)}, 'aarch64': {(12, 8), (16, 8)},
                    'riscv64': {(12, 8)}}[t.target.name]


def sections(elf):
    return {(s.name, s.type, s.size, s.flags) for s in elf.sections
            if s.type not in ('STRTAB', 'SYMTAB')}


def symbols(elf):
    return sorted(s for s in elf.symbols if s.type != 'SECTION' or
                  s.section not in ('.note.GNU-stack', '.riscv.attributes'))


STRIP_ASM = '''
    .text
    .globl global
    global: do_call .text.b
    load_address needed
    load_tls thread
    .section .text.b,"ax"
    unneeded: ret
    .section .rodata.str1.1,"aMS",%progbits,1
    .Llabel: .asciz "he"
    needed: .asciz "world"
    .section .tdata,"awT"
    thread: .4byte 1
    .comm common,16,8
    .data
    .8byte common, .Llabel
    .section .note.GNU-stack,"",%progbits
'''


@pytest.mark.parametrize('flags', [(), ('-s',), ('-S',), ('-x',), ('-X',), ('-d',)])
def test_symbols_as_gnu_ld_leaves_them(t, flags):
    a = t.asm('a.o', STRIP_ASM)
    c = t.cc('c.o', 'static int n; __attribute__((visibility("hidden"))) int h; int f(void);'
             'extern int w __attribute__((weak)); int g(void) { return ++n + h + f() + w; }',
             '-g', '-fPIC')
    t.ld('r.o', '-r', *flags, a, c)
    t.link_with('bfd', 'bfd.o', '-r', *flags, a, c, via=None)
    ours, theirs = check(t, 'r.o'), t.elf('bfd.o')
    assert symbols(ours) == symbols(theirs)
    for s in theirs.sections:
        if s.type == 'RELA':
            assert [(r.offset, r.number, r.symbol, r.addend) for r in theirs.relocs_in(s.name)] == \
                [(r.offset, r.number, r.symbol, r.addend) for r in ours.relocs_in(s.name)]
    assert sections(ours) == sections(theirs)


def test_common_symbols_stay_common(t):
    a = t.cc('a.o', 'int c[4]; int other;', '-fcommon')
    b = t.cc('b.o', 'int c[8]; int other = 1;', '-fcommon')
    t.ld('r.o', '-r', a, b)
    elf = check(t, 'r.o')
    assert (elf.symbol('c').section, elf.symbol('c').size) == ('COMMON', 32)
    assert elf.symbol('c').value in (8, 16, 32), 'the alignment'
    assert elf.symbol('other').section == '.data'
    t.ld('d.o', '-r', '-d', a, b)
    assert (check(t, 'd.o').symbol('c').section, t.elf('d.o').section('.bss').size) == ('.bss', 32)


def test_undefined_symbols_stay_undefined(t):
    a = t.cc('a.o', 'int f(void); extern int w __attribute__((weak, visibility("hidden")));'
             'int main(void) { return &w ? f() : 0; }')
    t.ld('r.o', '-r', a).silent()
    elf = check(t, 'r.o')
    assert (elf.symbol('f').section, elf.symbol('f').bind) == ('UNDEF', 'GLOBAL')
    assert (elf.symbol('w').bind, elf.symbol('w').vis) == ('WEAK', 'HIDDEN')


def test_symbols_keep_what_they_say(t):
    a = t.asm('a.o', '''
        .globl hidden, protected, base
        .hidden hidden
        .protected protected
        .weak weak
        .type weak, %function
        .type base, %gnu_indirect_function
        hidden: nop
        protected: nop
        weak: nop
        .size weak, 1
        base: ret
        one: nop
        .symver one, versioned@V1
        .type unique, %gnu_unique_object
        .data
        unique: .4byte 1''')
    t.ld('r.o', '-r', a)
    elf = check(t, 'r.o')
    assert [(elf.symbol(n).bind, elf.symbol(n).type, elf.symbol(n).vis) for n in
            ('hidden', 'protected', 'weak', 'base', 'unique')] == [
                ('GLOBAL', 'NOTYPE', 'HIDDEN'), ('GLOBAL', 'NOTYPE', 'PROTECTED'),
                ('WEAK', 'FUNC', 'DEFAULT'), ('GLOBAL', 'IFUNC', 'DEFAULT'),
                ('UNIQUE', 'OBJECT', 'DEFAULT')]
    assert elf.symbol('versioned@V1')
    assert elf.bytes[7] == 3, 'ELFOSABI_GNU'


@deviates(bfd='keeps the plain name too')
def test_versioned_definitions_by_way_of_r(t):
    a = t.cc('a.o', r'''
        int old_f(void) { return 1; }
        int f(void) { return 2; }
        __asm__(".symver old_f, f@V1");
        __asm__(".symver f, f@@V2");''', '-fPIC')
    t.write('v.map', 'V1 { global: f; local: *; }; V2 { global: f; } V1;')
    t.ld('r.o', '-r', a)
    t.link('lib.so', '-shared', 'r.o', '-Wl,--version-script=v.map')
    assert t.elf('lib.so').versioned_exports() == {'f@V1', 'f@@V2'}


@deviates(bfd='joins all of a name')
def test_flags_of_sections_stay(t):
    a = t.asm('a.o', '''
        .section .kept,"awR",%progbits
        .4byte 1
        .section .linked,"ao",%progbits,.text.a
        .8byte .text.a
        .section .text.a,"ax"
        nop
        .section .linked,"ao",%progbits,.text.b,unique,1
        .8byte .text.b
        .section .text.b,"ax"
        nop
        .section .out,"e"
        .4byte 3
        .section .array,"aw",%init_array
        .8byte .text.a''')
    t.ld('r.o', '-r', a)
    elf = check(t, 'r.o')
    assert elf.section('.kept').flags == 'WAR' and elf.section('.out').flags == 'E'
    assert elf.section('.array').type == 'INIT_ARRAY'
    linked = [s for s in elf.sections if s.name == '.linked']
    assert [elf.sections[s.link].name for s in linked] == ['.text.a', '.text.b']
    assert all('L' in s.flags for s in linked)


@pytest.mark.parametrize('notes, expected', [
    ([',"",%progbits'], ''), ([',"",%progbits', ',"x",%progbits'], 'X'), ([None], None),
    ([None, ',"",%progbits'], 'X on x86_64'),
])
def test_note_of_the_stack(t, notes, expected):
    if expected == 'X on x86_64':
        expected = 'X' if t.target.name == 'x86_64' else ''
    files = [t.asm(f'{i}.o', '.text\nnop\n' + (f'.section .note.GNU-stack{n}\n' if n else ''))
             for i, n in enumerate(notes)]
    t.ld('r.o', '-r', *files)
    section = check(t, 'r.o').section('.note.GNU-stack')
    assert (section and section.flags) == expected


@only('x86_64', 'aarch64')
def test_property_notes_are_merged(t):
    number, flag, both, one = {
        'x86_64': (0xc0000002, '-fcf-protection', 'full', 'branch'),
        'aarch64': (0xc0000000, '-mbranch-protection', 'standard', 'bti')}[t.target.name]
    a = t.cc('a.o', 'int a(void) { return 1; }', f'{flag}={both}')
    b = t.cc('b.o', 'int b(void) { return 1; }', f'{flag}={one}')
    t.ld('r.o', '-r', a, b)
    data = check(t, 'r.o').section('.note.gnu.property').data
    assert data == struct.pack('<III4sIIII', 4, 16, 5, b'GNU', number, 4, 1, 0)
    t.ld('none.o', '-r', a, t.cc('c.o', 'int c;', f'{flag}=none'))
    assert not t.elf('none.o').section('.note.gnu.property')


def test_unwind_records_of_dropped_functions_are_dead(t):
    a, b = cxx_objects(t, '-O0')
    t.ld('r.o', '-r', a, b)
    elf = check(t, 'r.o')
    dead = [info for _, info, _ in struct.iter_unpack('<QQq', elf.section('.rela.eh_frame').data)
            if not info]
    assert dead
    t.link('app', 'r.o', via='c++')
    t.run('app', expect=EXPECTED)


GC = r'''
    int used_data = 1, unused_data = 2;
    static int callee(void) { return used_data; }
    int root(void) { return callee(); }
    int unused(void) { return unused_data; }'''


@pytest.mark.parametrize('flag', [('-u', 'root'), ('-e', 'root')])
def test_gc_sections_with_roots(t, flag):
    a = t.cc('a.o', GC, '-ffunction-sections', '-fdata-sections', '-O0')
    t.ld('r.o', '-r', '--gc-sections', *flag, a)
    found = {s.name for s in check(t, 'r.o').symbols}
    assert {'root', 'callee', 'used_data'} <= found and not found & {'unused', 'unused_data'}


def test_gc_sections_without_roots(t):
    a = t.cc('a.o', GC, '-ffunction-sections')
    t.ld('r.o', '-r', '--gc-sections', a, ok=False).says('root')


def test_more_sections_than_fit_a_symbol(t):
    count = 33000 # with as many for relocations
    lines = [f'.section s{i},"aw"\nv{i}: .globl v{i}\n.quad v{i}\nl{i}:' for i in range(count)]
    a = t.asm('a.o', '\n'.join(lines) + '\n.section .note.GNU-stack,"",%progbits\n')
    t.ld('r.o', '-r', a)
    elf = t.elf('r.o')
    assert len(elf.sections) > 2 * count
    assert [elf.symbol(n).section for n in ('v0', f'v{count - 1}', f'l{count - 1}')] == \
        ['s0', f's{count - 1}', f's{count - 1}']
    main = t.cc('main.o', f'extern char *v0, *v{count - 1}; int main(void)'
                f'{{ return v0 != (char *)&v0 || v{count - 1} != (char *)&v{count - 1}; }}')
    t.link('app', main, 'r.o')
    t.run('app')


@deviates(bfd='has no such option')
def test_threads_do_not_matter(t):
    files = cxx_objects(t, '-g')
    outputs = []
    for n in ('--no-threads', '--threads=2', '--threads=7'):
        t.ld('r.o', '-r', n, *files)
        outputs.append((t.path / 'r.o').read_bytes())
    assert outputs[0] == outputs[1] == outputs[2]


def test_archives_and_whole_archives(t):
    a, b = cxx_objects(t)
    t.ar('lib.a', b)
    t.ld('lazy.o', '-r', a, 'lib.a')
    assert t.elf('lazy.o').symbol('_Z5otheri').section == '.text'
    t.ld('whole.o', '-r', '--whole-archive', 'lib.a')
    assert t.elf('whole.o').symbol('_Z5otheri')
    t.link('app', a, 'whole.o', via='c++')
    t.run('app', expect=EXPECTED)


def test_shared_libraries_cannot_be_part_of_an_object(t):
    a = t.cc('a.o', 'int f(void) { return 1; }', '-fPIC')
    t.link('lib.so', '-shared', a)
    t.ld('r.o', '-r', a, 'lib.so', ok=False).says('static link of dynamic object')


def test_symbols_defined_on_the_command_line(t):
    a = t.cc('a.o', 'int f(void) { return 1; } extern char five[]; char *p = five;')
    t.ld('r.o', '-r', a, '--defsym=five=5', '--defsym=g=f')
    elf = check(t, 'r.o')
    assert (elf.symbol('five').section, elf.symbol('five').value) == ('ABS', 5)
    main = t.cc('main.o', 'int g(void); int main(void) { return g() - 1; }', '-fno-pie')
    t.link('app', '-no-pie', main, 'r.o')
    t.run('app')


@has('gdb')
def test_debug_information_survives(t):
    t.ld('r.o', '-r', *cxx_objects(t, '-g', '-O0'))
    t.link('app', 'r.o', via='c++')
    if not t.target.native:
        pytest.skip('needs the native debugger')
    text = t.tool('gdb', '-batch', '-nx', '-ex', 'break other', '-ex', 'run', '-ex', 'bt',
                  './app').stdout
    assert '1.cc:' in text and '0.cc:' in text


# ---- --emit-relocs ----

EMIT = r'''
    #include <stdio.h>
    static int zeros[4];
    int data = 7;
    int *pointer = &data;
    static const char *text = "some text";
    __attribute__((noinline)) static int add(int a) { return a + data; }
    int main(void) { puts(text); return add(*pointer) + zeros[1] - 14; }'''


@pytest.mark.parametrize('flag', ['-q', '--emit-relocs'])
def test_emit_relocs(t, kind, flag):
    a = t.cc('a.o', EMIT, *kind.cflags)
    t.link('app', a, *kind.ldflags, f'-Wl,{flag}')
    t.run('app', expect='some text\n')
    elf = t.elf('app')
    table = elf.section('.symtab')
    for s in elf.sections:
        if s.type == 'RELA' and 'A' not in s.flags:
            target = elf.sections[s.info]
            assert elf.sections[s.link] is table and s.name == '.rela' + target.name
            for r in elf.relocs_in(s.name):
                if 'A' in target.flags and r.number:
                    assert target.addr <= r.offset < target.end
    pointer = elf.symbol('pointer').value
    found = [r for name in ('.data', '.data.rel', '.data.rel.local', '.sdata')
             for r in elf.relocs_in('.rela' + name) if r.offset == pointer]
    assert [(r.kind, r.symbol, r.addend) for r in found] == [('ABS64', 'data', 0)]


PC_RELATIVE = {'x86_64': 2, 'aarch64': 261, 'riscv64': 57}


def test_emitted_addends_are_relative_to_output_sections(t):
    """Applying them again gives what is in the file."""
    a = t.cc('a.o', EMIT, '-fno-pie')
    b = t.cc('b.o', EMIT.replace('main', 'other').replace('int data', 'static int data')
             .replace('int *pointer', 'static int *volatile pointer'), '-fno-pie')
    t.link('app', '-no-pie', a, b, '-Wl,-q')
    elf = t.elf('app')
    checked = 0
    for section in filter(None, map(elf.section, ('.rela.data', '.rela.sdata'))):
        for offset, info, addend in struct.iter_unpack('<QQq', section.data):
            if RELOC_KINDS[elf.machine].get(info & 0xffffffff) == 'ABS64':
                assert elf.word(offset) == elf.symbols[info >> 32].value + addend
                checked += 1
    assert checked >= 4
    for offset, info, addend in struct.iter_unpack('<QQq', elf.section('.rela.text').data):
        symbol = elf.symbols[info >> 32]
        if info & 0xffffffff == PC_RELATIVE[elf.machine] and symbol.type == 'SECTION':
            value = struct.unpack('<i', elf.at(offset, 4))[0]
            assert value == symbol.value + addend - offset


def test_emitted_relocations_of_unwind_tables(t):
    t.link('app', *cxx_objects(t), '-Wl,-q', via='c++')
    t.run('app', expect=EXPECTED)
    elf = t.elf('app')
    section = elf.section('.eh_frame')
    relocs = elf.relocs_in('.rela.eh_frame')
    assert relocs
    for offset, info, addend in struct.iter_unpack('<QQq', elf.section('.rela.eh_frame').data):
        assert section.addr <= offset < section.end
        if info & 0xffffffff == PC_RELATIVE[elf.machine]:
            value = struct.unpack('<i', elf.at(offset, 4))[0]
            assert value == elf.symbols[info >> 32].value + addend - offset


def test_emitted_relocations_as_gnu_ld(t):
    a = t.cc('a.o', EMIT, '-fPIE', '-O1')
    t.link('app', a, '-pie', '-Wl,-q,--no-relax')
    t.link_with('bfd', 'bfd', '-pie', '-Wl,-q,--no-relax', a)

    def facts(elf, section):
        return [(r.symbol, r.number) for r in elf.relocs_in(section)
                if r.number and r.symbol and not r.symbol.startswith('_')]

    ours, theirs = t.elf('app'), t.elf('bfd')
    for name in ('.rela.text', '.rela.data', '.rela.data.rel', '.rela.eh_frame', '.rela.init'):
        assert facts(ours, name) == facts(theirs, name)


def test_emit_relocs_with_sections_that_are_gone(t):
    a = t.cc('a.o', GC.replace('root', 'main').replace('callee()', 'callee() - 1'), '-g',
             '-ffunction-sections', '-fdata-sections')
    t.link('app', a, '-Wl,--gc-sections,-q')
    t.run('app')
    elf = t.elf('app')
    names = {r.symbol for s in elf.sections if s.type == 'RELA' and 'A' not in s.flags
             for r in elf.relocs_in(s.name)}
    assert 'unused_data' not in names


@deviates(strict=False, bfd='fails for riscv64')
def test_emit_relocs_needs_symbols(t):
    """As with GNU ld, -s leaves what relocations name."""
    t.link('app', t.cc('a.o', EMIT), '-Wl,-q,-s')
    t.run('app', expect='some text\n')
    elf = t.elf('app')
    assert any(s.type == 'RELA' and 'A' not in s.flags for s in elf.sections)
    assert elf.section('.symtab')


@has('eu-elflint')
@deviates(strict=False, bfd='flags text relocations for riscv64 without need')
def test_elflint_finds_nothing(t):
    t.link('app', *cxx_objects(t, '-g'), '-Wl,-q', via='c++')
    t.tool('eu-elflint', '--gnu-ld', '-q', 'app')
    t.ld('r.o', '-r', t.cc('a.o', EMIT, '-g'))
    t.tool('eu-elflint', '--gnu-ld', '-q', 'r.o')


def test_emitted_relocations_do_not_change_the_program(t, kind):
    a = t.cc('a.o', EMIT, *kind.cflags)
    # for aarch64 -q keeps the loads from the GOT, so that relocations describe what is there
    t.link('plain', a, *kind.ldflags, *(['-Wl,--no-relax'] if t.target.name == 'aarch64' else []))
    t.link('app', a, *kind.ldflags, '-Wl,-q')
    plain, app = t.elf('plain'), t.elf('app')
    for section in plain.sections:
        if 'A' in section.flags and section.name not in ('.eh_frame', '.eh_frame_hdr',
                                                         '.note.gnu.build-id'):
            assert app.section(section.name).size == section.size
