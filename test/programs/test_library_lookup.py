"""Large shared libraries, whose names are looked up in their own hash tables when something mentions them.

Each link is made twice: as it is, and with an option that has kld take all names of its libraries
(-y of a name that nobody has). Nothing but the time that this takes may differ.
"""

import re
import struct

import pytest

from kldtest import deviates

FILLERS = 3000
FILLER_NAMES = ''.join(f'.globl filler_{i}; filler_{i}:\n' for i in range(FILLERS)) + 'ret\n'
OWN_OPTION = dict.fromkeys(('bfd', 'gold', 'lld', 'mold'), "reads kld's statistics")


def wide(t, name, source, *args):
    """A shared library with so many names that it is not worth while to take them all."""
    stem = name.removesuffix('.so')
    t.link(name, '-shared', '-nostdlib', t.cc(f'{stem}.o', source, '-fPIC'),
           t.asm(f'{stem}_fillers.o', FILLER_NAMES), *args)
    return name


def look(elf):
    """What the dynamic linker is told; and which names have the same address."""
    copies = {}
    for s in elf.dynsyms:
        if s.name and s.section != 'UNDEF':
            copies.setdefault(s.value, set()).add(s.name)
    return {
        'needed': elf.needed,
        'symbols': sorted((s.name, s.version or '', s.bind, s.type, s.section == 'UNDEF')
                          for s in elf.dynsyms),
        'relocations': sorted((r.kind, r.symbol or '') for r in elf.dynrelocs),
        'places': sorted(map(sorted, copies.values())),
    }


def link(t, *args, via='cc'):
    """Links 'app', and compares it with the link that takes all names."""
    said = t.link('app', *args, via=via)
    t.link('all', *args, '-Wl,-y,no_such_name', via=via)
    assert look(t.elf('app')) == look(t.elf('all'))
    return said


def names_taken(t, *args):
    said = t.link('app', *args, '-Wl,--stats')
    return int(re.search(r'names taken of them +(\d+)', said.stdout + said.stderr)[1])


@deviates(**OWN_OPTION)
def test_only_what_is_mentioned_is_taken(t):
    wide(t, 'liba.so', 'int a(void) { return 4; }')
    m = t.cc('m.o', 'int a(void); int main(void) { return a(); }')
    link(t, m, 'liba.so')
    t.run('app', status=4)
    assert names_taken(t, m, 'liba.so') < 1000
    assert names_taken(t, m, 'liba.so', '-Wl,-y,no_such_name') > FILLERS


def test_variable_that_is_copied_goes_by_all_its_names(t, compiler):
    """The program names only one of three; a library in front has another one for itself."""
    wide(t, 'libfirst.so', 'int third_name = 77; int *first_third(void) { return &third_name; }')
    wide(t, 'liba.so', r'''
        int name[2] = { 3, 4 };
        extern int second_name[2] __attribute__((alias("name")));
        extern int third_name[2] __attribute__((alias("name")));
        int get(void) { return second_name[1]; }
        ''')
    m = t.cc('m.o', 'extern int name[2]; int get(void);'
                    'int main(void) { name[1] = 9; return get(); }', '-fno-pie')
    link(t, '-no-pie', m, 'libfirst.so', 'liba.so')
    elf = t.elf('app')
    assert elf.dynrelocs_of('name') == ['COPY']
    t.run('app', status=9)


VERSIONED = r'''
    __asm__(".symver old, f@V1"); int old(void) { return 1; }
    __asm__(".symver new, f@@V2"); int new(void) { return 2; }
'''


@pytest.mark.parametrize('reference, status', [('', 2), ('f@V1', 1), ('f@V2', 2)])
def test_versions(t, compiler, reference, status):
    t.write('x.map', 'V1 { global: f; filler_*; local: *; }; V2 { global: f; } V1;')
    wide(t, 'liba.so', VERSIONED, '-Wl,--version-script=x.map')
    symver = f'__asm__(".symver f, {reference}");' if reference else ''
    m = t.cc('m.o', f'{symver} int f(void); int main(void) {{ return f(); }}')
    link(t, m, 'liba.so')
    assert t.elf('app').dynsym('f').version == ('V1' if status == 1 else 'V2')
    t.run('app', status=status)


def test_version_that_the_library_does_not_have(t):
    t.write('x.map', 'V1 { global: f; filler_*; local: *; }; V2 { global: f; } V1;')
    wide(t, 'liba.so', VERSIONED, '-Wl,--version-script=x.map')
    m = t.cc('m.o', '__asm__(".symver f, f@V3"); int f(void); int main(void) { return f(); }')
    t.link('app', m, 'liba.so', ok=False).says('f@V3')


# -- members of archives ------------------------------------------------------------------------

def test_library_in_front_keeps_members_out(t):
    """What only a member of an archive mentions is defined by the library, and by a later archive."""
    wide(t, 'liba.so', 'int wanted(void) { return 5; }')
    t.ar('libm.a', t.cc('member.o', 'int wanted(void); int member(void) { return wanted(); }'))
    t.ar('liblate.a', t.cc('late.o', 'int late_was_linked; int wanted(void) { return 6; }'))
    m = t.cc('m.o', 'int member(void); int main(void) { return member(); }')
    link(t, m, 'liba.so', 'libm.a', 'liblate.a')
    assert not t.elf('app').symbol('late_was_linked')
    t.run('app', status=5)


def test_archive_in_front_of_the_library(t):
    wide(t, 'liba.so', 'int wanted(void) { return 5; }')
    t.ar('libm.a', t.cc('member.o', 'int wanted(void); int member(void) { return wanted(); }'))
    t.ar('libearly.a', t.cc('early.o', 'int wanted(void) { return 6; }'))
    m = t.cc('m.o', 'int member(void); int main(void) { return member(); }')
    link(t, m, 'libm.a', 'libearly.a', 'liba.so')
    t.run('app', status=6)


@deviates(bfd='does not look into an archive again', gold='does not look into an archive again')
def test_common_symbol_and_members(t):
    """Members that nobody could guess are parsed when all has been decided but them."""
    wide(t, 'liba.so', 'int deep(void) { return 7; }')
    t.ar('libm.a', t.cc('member.o', 'int deep(void); int value = 3;'
                                    'int use(void) { return deep(); }'))
    t.ar('liblate.a', t.cc('late.o', 'int late_was_linked; int deep(void) { return 60; }'))
    m = t.cc('m.o', 'int value; int use(void) __attribute__((weak));'
                    'int main(void) { return value + use(); }', '-fcommon')
    link(t, m, 'liba.so', 'libm.a', 'liblate.a')
    assert not t.elf('app').symbol('late_was_linked')
    t.run('app', status=10)


@deviates(**OWN_OPTION)
def test_library_lists_its_names_when_much_asks_for_them(t):
    """A member mentions far more names than the library has: that is not known before."""
    wide(t, 'liba.so', 'int a(void) { return 4; }')
    names = ''.join(f'.8byte filler_{i}\n'
                    + ''.join(f'.weak none_{i}_{k}; .8byte none_{i}_{k}\n' for k in range(5))
                    for i in range(FILLERS))
    t.ar('libm.a', t.asm('member.o', f'.data; .globl member; member:\n{names}'))
    t.ar('liblate.a', t.cc('late.o', 'int late_was_linked; void filler_9(void) {}'))
    m = t.cc('m.o', 'extern void *member[], *filler_7[]; int a(void);'
                    'int main(void) { return a() + (member[6 * 7] == (void *)filler_7); }')
    link(t, m, 'libm.a', 'liba.so', 'liblate.a')
    assert not t.elf('app').symbol('late_was_linked')
    t.run('app', status=5)
    assert names_taken(t, m, 'libm.a', 'liba.so', 'liblate.a') > FILLERS


# -- both ways ----------------------------------------------------------------------------------

def test_program_takes_the_place_of_a_function(t, compiler):
    wide(t, 'liba.so', 'int f(void) { return 1; } int call_f(void) { return f(); }')
    m = t.cc('m.o', 'int call_f(void); int f(void) { return 8; } int main(void) { return call_f(); }')
    link(t, m, 'liba.so')
    assert 'f' in t.elf('app').exports()
    t.run('app', status=8)


def test_library_finds_what_another_one_defines(t):
    wide(t, 'libb.so', 'int b(void) { return 3; }')
    wide(t, 'liba.so', 'int b(void); int a(void) { return b(); }')
    m = t.cc('m.o', 'int a(void); int main(void) { return a(); }')
    link(t, m, '-Wl,--as-needed', 'liba.so', 'libb.so')
    assert t.elf('app').needed[:2] == ['liba.so', 'libb.so']
    t.run('app', status=3)


def test_shared_object_of_libraries(t):
    wide(t, 'liba.so', 'int a = 3;')
    link(t, '-shared', t.cc('s.o', 'extern int a; int s(void) { return a; }', '-fPIC'), 'liba.so')
    assert 'a' in t.elf('app').imports()


@pytest.mark.parametrize('option', ['-u,filler_5', '--wrap=filler_5', '-e,filler_5',
                                    '--export-dynamic-symbol=filler_5', '-init,filler_5', '--cref'])
def test_names_that_options_mention(t, option):
    wide(t, 'liba.so', 'int a(void) { return 4; }')
    m = t.cc('m.o', 'int a(void); int main(void) { return a(); }')
    said = link(t, m, 'liba.so', f'-Wl,{option}')
    all_said = t.link('all', m, 'liba.so', f'-Wl,{option}', '-Wl,-y,no_such_name')
    assert (said.stdout, said.stderr) == (all_said.stdout, all_said.stderr)


def test_assignment_of_what_a_library_has(t):
    wide(t, 'liba.so', 'int a(void) { return 4; }')
    m = t.cc('m.o', 'int main(void) { return 0; }')
    t.link('app', m, 'liba.so', '-Wl,--defsym=mine=filler_5', ok=False).says('filler_5')


@deviates(bfd='does not guess', gold='does not guess', mold='does not guess')
def test_name_that_may_have_been_meant(t):
    wide(t, 'liba.so', 'int telephone(void) { return 4; }')
    m = t.cc('m.o', 'int telefone(void), telephon(void); int main(void) { return telephon(); }')
    t.link('app', m, 'liba.so', ok=False).says('did you mean: telephone', 'defined in: liba.so')


# -- tables -------------------------------------------------------------------------------------

@pytest.mark.parametrize('style', ['sysv', 'gnu', 'both'])
def test_styles_of_hash_tables(t, style):
    wide(t, 'liba.so', 'int a(void) { return 4; }', f'-Wl,--hash-style={style}')
    m = t.cc('m.o', 'int a(void); int main(void) { return a(); }')
    link(t, m, 'liba.so')
    t.run('app', status=4)


def damage(t, field, value):
    """Changes the 32-bit word number `field` of liba.so's table; -1: of its last chain."""
    section = t.elf('liba.so').section('.gnu.hash')
    data = bytearray((t.path / 'liba.so').read_bytes())
    at = section.offset + (4 * field if field >= 0 else section.size - 4)
    struct.pack_into('<I', data, at, value)
    (t.path / 'liba.so').write_bytes(data)


@pytest.mark.parametrize('field, value', [
    (0, 0), (0, 1 << 30), (1, 0), (1, 1 << 20), (2, 0), (2, 3), (2, 1 << 31), (3, 32), (3, 1 << 31)])
def test_table_of_no_use(t, field, value):
    """The names are in .dynsym as well."""
    wide(t, 'liba.so', 'int a(void) { return 4; }')
    damage(t, field, value)
    m = t.cc('m.o', 'int a(void); int main(void) { return a(); }')
    link(t, m, 'liba.so')


@pytest.mark.parametrize('what', ['buckets', 'chains'])
def test_table_that_leads_out_of_the_file(t, what):
    """Such a library is of no use at run time, either; what counts is that the linker ends."""
    wide(t, 'liba.so', 'int a(void) { return 4; }')
    section = t.elf('liba.so').section('.gnu.hash')
    nbuckets, first, nbloom, _ = struct.unpack_from('<IIII', section.data)
    buckets = 4 + 2 * nbloom
    chains = buckets + nbuckets
    for i in range(buckets, chains) if what == 'buckets' else range(chains, section.size // 4):
        damage(t, i, 0xfffffff0 if what == 'buckets' else 0xfffffffe)
    m = t.cc('m.o', 'int a(void); int main(void) { return a(); }')
    t.link('app', m, 'liba.so', ok=False).says('a')


@deviates(bfd='has other messages', gold='has other messages', lld='has other messages',
          mold='has other messages')
def test_name_outside_of_the_string_table(t):
    """It is the name of a symbol that the table gives as an answer."""
    wide(t, 'liba.so', 'int a(void) { return 4; }')
    elf = t.elf('liba.so')
    number = next(i for i, s in enumerate(elf.dynsyms) if s.name == 'a')
    data = bytearray((t.path / 'liba.so').read_bytes())
    struct.pack_into('<I', data, elf.section('.dynsym').offset + 24 * number, 0x7fffffff)
    (t.path / 'liba.so').write_bytes(data)
    m = t.cc('m.o', 'int a(void); int main(void) { return a(); }')
    t.link('app', m, 'liba.so', ok=False).says(
        f'liba.so: symbol {number}: name at 0x7fffffff lies outside the string table')


# -- real ones ----------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', ['-pie', '-no-pie'])
def test_standard_library(t, compiler, kind):
    """iostreams: variables that are copied, with aliases; virtual tables; old versions."""
    source = r'''
        #include <iostream>
        #include <stdexcept>
        #include <string>
        int main(int argc, char **argv)
        {
            try {
                throw std::runtime_error(std::to_string(argc));
            } catch (const std::exception &e) {
                std::cout << e.what() << std::endl;
            }
        }'''
    m = t.cxx('m.o', source, '-fPIE' if kind == '-pie' else '-fno-pie')
    link(t, kind, m, via='c++')
    t.run('app', expect='1\n')
