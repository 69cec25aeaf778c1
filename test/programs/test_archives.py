"""Archives: which members are taken, and the forms in which archives come."""

import struct

import pytest

from kldtest import deviates

CALLS_F = 'int f(void); int main(void) { return f(); }'


def members(t, *functions):
    """Objects n.o, each with a function of its own name that returns its position from 1."""
    return [t.cc(f'{n}.o', f'int {n}(void) {{ return {i}; }}') for i, n in enumerate(functions, 1)]


def names(t, out='app'):
    return {s.name for s in t.elf(out).symbols}


# -- extraction ---------------------------------------------------------------------------------

def test_only_needed_members_are_taken(t, compiler, kind):
    f = t.cc('f.o', 'int f(void) { return 7; }', *kind.cflags)
    g = t.cc('g.o', 'int g(void) { return 8; }', *kind.cflags)
    t.ar('liba.a', f, g)
    t.link('app', *kind.ldflags, t.cc('m.o', CALLS_F, *kind.cflags), 'liba.a')
    assert 'f' in names(t) and 'g' not in names(t)
    t.run('app', status=7)


def test_members_need_members(t):
    """One archive is searched until nothing changes, also for members before the last taken."""
    t.ar('liba.a', t.cc('1.o', 'int h(void) { return 5; }'),
         t.cc('2.o', 'int h(void); int g(void) { return h() + 1; }'),
         t.cc('3.o', 'int g(void); int f(void) { return g() + 1; }'))
    t.link('app', t.cc('m.o', CALLS_F), 'liba.a')
    t.run('app', status=7)


def test_weak_references_do_not_extract(t):
    t.ar('liba.a', *members(t, 'f'))
    m = t.cc('m.o', '__attribute__((weak)) int f(void); int main(void) { return f ? f() : 9; }')
    t.link('app', m, 'liba.a')
    assert t.elf('app').symbol('f').section == 'UNDEF'
    t.run('app', status=9)


def test_weak_definition_is_not_replaced_by_a_member(t):
    t.ar('liba.a', *members(t, 'f'))
    m = t.cc('m.o', '__attribute__((weak)) int f(void) { return 6; }'
             'int main(void) { return f(); }')
    t.link('app', m, 'liba.a')
    t.run('app', status=6)


def test_common_symbol_extracts_a_definition(t):
    """A tentative definition is filled by the archive's initialised one."""
    t.ar('liba.a', t.cc('x.o', 'int x = 12;'))
    m = t.cc('m.o', 'int x; int main(void) { return x; }', '-fcommon')
    t.link('app', m, 'liba.a')
    t.run('app', status=12)


def test_common_symbol_does_not_extract_a_function_or_common(t):
    t.ar('liba.a', t.cc('x.o', 'int x[10]; int other = 4;', '-fcommon'))
    m = t.cc('m.o', 'int x[10]; int main(void) { return x[3]; }', '-fcommon')
    t.link('app', m, 'liba.a')
    assert 'other' not in names(t)
    t.run('app')


def test_undefined_reference_extracts_a_common_definition(t):
    t.ar('liba.a', t.cc('x.o', 'int x;', '-fcommon'))
    t.link('app', t.cc('m.o', 'extern int x; int main(void) { return x; }'), 'liba.a')
    t.run('app')


def test_shared_object_reference_extracts(t):
    """A shared object's undefined symbol is filled from an archive of the program."""
    t.link('libx.so', '-shared', t.cc('x.o', 'int f(void); int x(void) { return f(); }', '-fPIC'))
    t.ar('liba.a', *members(t, 'e', 'f'))
    m = t.cc('m.o', 'int x(void); int main(void) { return x(); }')
    t.link('app', m, 'libx.so', 'liba.a')
    assert 'f' in t.elf('app').exports()
    t.run('app', status=2)


def test_shared_object_before_the_archive_wins(t):
    t.link('libx.so', '-shared', t.cc('x.o', 'int f(void) { return 50; }', '-fPIC'))
    t.ar('liba.a', *members(t, 'f'))
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, 'libx.so', 'liba.a')
    t.run('app', status=50)
    t.link('app', m, 'liba.a', 'libx.so')
    t.run('app', status=1)


def test_first_archive_wins(t):
    t.ar('libone.a', t.cc('one.o', 'int f(void) { return 1; }'))
    t.ar('libtwo.a', t.cc('two.o', 'int f(void) { return 2; }'))
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, 'libone.a', 'libtwo.a')
    t.run('app', status=1)
    t.link('app', m, 'libtwo.a', 'libone.a')
    t.run('app', status=2)


def test_first_of_two_members_wins(t):
    t.ar('liba.a', t.cc('one.o', 'int f(void) { return 1; }'),
         t.cc('two.o', 'int f(void) { return 2; }'))
    t.link('app', t.cc('m.o', CALLS_F), 'liba.a')
    t.run('app', status=1)


@deviates(bfd='searches an archive when it meets it')
def test_order_of_archives_does_not_matter(t):
    t.ar('liba.a', *members(t, 'e', 'f'))
    t.link('app', 'liba.a', t.cc('m.o', CALLS_F))
    assert 'e' not in names(t)
    t.run('app', status=2)


def two_archives_in_a_circle(t):
    t.ar('libone.a', t.cc('one.o', 'int g(void); int f(void) { return g() + 1; }'),
         t.cc('last.o', 'int h(void) { return 3; }'))
    t.ar('libtwo.a', t.cc('two.o', 'int h(void); int g(void) { return h() + 1; }'))
    return t.cc('m.o', CALLS_F)


def test_archives_in_a_group_are_searched_in_turns(t):
    m = two_archives_in_a_circle(t)
    for start, end in (('-Wl,--start-group', '-Wl,--end-group'), ('-Wl,-(', '-Wl,-)')):
        t.link('app', m, start, 'libone.a', 'libtwo.a', end)
        t.run('app', status=5)


def test_archive_may_be_named_twice(t):
    m = two_archives_in_a_circle(t)
    t.link('app', m, 'libone.a', 'libtwo.a', 'libone.a')
    t.run('app', status=5)


@deviates(bfd='wants a group')
def test_circle_needs_no_group(t):
    m = two_archives_in_a_circle(t)
    t.link('app', m, 'libone.a', 'libtwo.a')
    t.run('app', status=5)


def test_member_is_taken_once(t):
    """Named twice, wanted twice: no duplicate definitions."""
    t.ar('liba.a', *members(t, 'f'))
    m = t.cc('m.o', CALLS_F)
    t.link('app', m, 'liba.a', 'liba.a', '-Wl,-u,f', 'liba.a')
    t.run('app', status=1)


def test_whole_archive(t):
    t.ar('liba.a', *members(t, 'f', 'g', 'h'))
    m = t.cc('m.o', 'int main(void) { return 0; }')
    t.link('app', m, '-Wl,--whole-archive', 'liba.a', '-Wl,--no-whole-archive')
    assert {'f', 'g', 'h'} <= names(t)


def test_whole_archive_is_positional(t):
    t.ar('liba.a', *members(t, 'f'))
    t.ar('libb.a', *members(t, 'g'))
    m = t.cc('m.o', 'int main(void) { return 0; }')
    t.link('app', m, '-Wl,--whole-archive', 'liba.a', '-Wl,--no-whole-archive', 'libb.a')
    assert 'f' in names(t) and 'g' not in names(t)


def test_whole_archive_into_a_shared_object(t):
    t.ar('liba.a', *(t.cc(f'{n}.o', f'int {n}(void) {{ return 1; }}', '-fPIC') for n in 'fgh'))
    t.link('libx.so', '-shared', '-Wl,--whole-archive', 'liba.a', '-Wl,--no-whole-archive')
    assert {'f', 'g', 'h'} <= t.elf('libx.so').exports()


def test_whole_archive_with_members_of_one_name(t):
    """Two members x.o of different content."""
    t.write('one/.keep', '')
    t.write('two/.keep', '')
    t.cc('one/x.o', 'int f(void) { return 1; }')
    t.cc('two/x.o', 'int g(void) { return 2; }')
    t.ar('liba.a', 'one/x.o', 'two/x.o', flags='qcs')
    m = t.cc('m.o', 'int f(void), g(void); int main(void) { return f() + g(); }')
    t.link('app', m, '-Wl,--whole-archive', 'liba.a', '-Wl,--no-whole-archive')
    t.run('app', status=3)
    t.link('app2', m, 'liba.a')
    t.run('app2', status=3)


@deviates(bfd='since 2.41 only')
def test_start_lib_makes_objects_lazy(t):
    f, g = members(t, 'f', 'g')
    t.link('app', t.cc('m.o', CALLS_F), '-Wl,--start-lib', f, g, '-Wl,--end-lib')
    assert 'f' in names(t) and 'g' not in names(t)
    t.run('app', status=1)


def test_definition_in_an_object_beats_members(t):
    t.ar('liba.a', t.cc('lib.o', 'int f(void) { return 1; } int g(void) { return 2; }'))
    m = t.cc('m.o', 'int f(void) { return 5; } int main(void) { return f(); }')
    t.link('app', m, 'liba.a')
    t.run('app', status=5)


def test_extraction_for_the_entry_symbol(t):
    t.ar('liba.a', t.cc('main.o', 'int main(void) { return 11; }'))
    t.link('app', 'liba.a')
    t.run('app', status=11)


# -- hiding -------------------------------------------------------------------------------------

def test_exclude_libs_hides_members(t):
    t.ar('liba.a', *(t.cc(f'{n}.o', f'int {n}(void) {{ return 1; }}', '-fPIC') for n in ('f', 'g')))
    t.ar('libb.a', t.cc('h.o', 'int h(void) { return 1; }', '-fPIC'))
    x = t.cc('x.o', 'int f(void), h(void); int x(void) { return f() + h(); }', '-fPIC')
    for option, hidden in (('ALL', {'f', 'h'}), ('liba.a', {'f'}), ('libb.a', {'h'}),
                           ('liba.a,libb.a', {'f', 'h'}), ('liba.a:libb.a', {'f', 'h'}),
                           ('libz.a', set())):
        # Through a compiler -Wl would cut the list at its commas.
        t.link('libx.so', '-shared', x, 'liba.a', 'libb.a', '-Xlinker', f'--exclude-libs={option}')
        assert t.elf('libx.so').exports() & {'f', 'h', 'x'} == {'f', 'h', 'x'} - hidden, option


# -- forms of archives --------------------------------------------------------------------------

def test_thin_archive(t, compiler):
    t.write('objects/.keep', '')
    f = t.cc('objects/f.o', 'int f(void) { return 3; }')
    t.ar('lib/liba.a', f, flags='rcs --thin')
    t.link('app', t.cc('m.o', CALLS_F), 'lib/liba.a')
    t.run('app', status=3)


@pytest.mark.parametrize('length', range(13, 18))
def test_file_names_of_about_16_characters_in_a_thin_archive(t, length):
    """The field for names has 16, of which GNU ar leaves the last as it was for a short name."""
    stem = 'f' * (length - 2)
    f = t.cc(f'lib.p/{stem}.o', 'int f(void) { return 0; }')
    t.ar('lib.a', f, flags='rcs --thin')
    t.link('app', t.cc('m.o', 'int f(void); int main(void) { return f(); }'), 'lib.a')
    t.run('app')


def test_thin_archive_of_llvm(t):
    t.write('objects/.keep', '')
    f = t.cc('objects/f.o', 'int f(void) { return 3; }')
    t.write('lib/.keep', '')
    t.ar('lib/liba.a', f, flags='rcs --thin', tool='llvm-ar')
    t.link('app', t.cc('m.o', CALLS_F), 'lib/liba.a')
    t.run('app', status=3)


def test_missing_member_of_a_thin_archive_is_named(t):
    f = t.cc('gone.o', 'int f(void) { return 3; }')
    t.ar('liba.a', f, flags='rcs --thin')
    (t.path / 'gone.o').unlink()
    t.link('app', t.cc('m.o', CALLS_F), 'liba.a', ok=False).says('gone.o')


@deviates(lld='does not read it')
def test_thin_archive_of_archives(t):
    """GNU ar flattens archives that are added to a thin one: members by path and offset."""
    t.ar('inner.a', *members(t, 'e', 'f'))
    t.ar('outer.a', 'inner.a', flags='rcs --thin')
    t.link('app', t.cc('m.o', CALLS_F), 'outer.a')
    t.run('app', status=2)


def test_archive_without_index(t):
    t.ar('liba.a', *members(t, 'e', 'f'), flags='rcS')
    t.link('app', t.cc('m.o', CALLS_F), '-Wl,--whole-archive', 'liba.a', '-Wl,--no-whole-archive')
    t.run('app', status=2)


@deviates(bfd='wants an index')
def test_archive_without_index_is_searched(t):
    t.ar('liba.a', *members(t, 'e', 'f'), flags='rcS')
    t.link('app', t.cc('m.o', CALLS_F), 'liba.a')
    assert 'f' in names(t) and 'e' not in names(t)
    t.run('app', status=2)


@pytest.mark.parametrize('format', [
    'gnu',
    pytest.param('bsd', marks=deviates(bfd='does not read it')),
    pytest.param('darwin', marks=deviates(bfd='does not read it')),
])
def test_formats_of_llvm_ar(t, format):
    objects = members(t, 'e', 'f')
    long_name = t.cc('a_member_with_quite_a_long_name_to_store.o', 'int g(void) { return 40; }')
    t.ar('liba.a', *objects, long_name, flags=f'rcs --format={format}', tool='llvm-ar')
    m = t.cc('m.o', 'int f(void), g(void); int main(void) { return f() + g(); }')
    t.link('app', m, 'liba.a')
    assert 'e' not in names(t)
    t.run('app', status=42)


@deviates(bfd='does not read it')
def test_bsd_archive_is_taken_whole(t):
    t.ar('liba.a', *members(t, 'e', 'f'), flags='rcs --format=bsd', tool='llvm-ar')
    m = t.cc('m.o', 'int main(void) { return 0; }')
    t.link('app', m, '-Wl,--whole-archive', 'liba.a', '-Wl,--no-whole-archive')
    assert {'e', 'f'} <= names(t)


def test_long_member_names(t):
    objects = [t.cc(f'{"long_" * 10}{n}.o', f'int {n}(void) {{ return {i}; }}')
               for i, n in enumerate('efg')]
    t.ar('liba.a', *objects)
    t.link('app', t.cc('m.o', CALLS_F), 'liba.a')
    t.run('app', status=1)


def test_members_of_odd_size(t):
    """Members are padded to an even offset."""
    t.write('odd.txt', 'x' * 31)
    f, g = members(t, 'f', 'g')
    (t.path / f).write_bytes((t.path / f).read_bytes() + b'\n')
    t.ar('liba.a', 'odd.txt', f, g)
    m = t.cc('m.o', 'int f(void), g(void); int main(void) { return f() + g(); }')
    t.link('app', m, 'liba.a')
    t.run('app', status=3)


def test_empty_archive(t):
    t.ar('libempty.a', flags='rcs')
    t.link('app', t.cc('m.o', 'int main(void) { return 1; }'), 'libempty.a', '-Wl,--whole-archive',
           'libempty.a', '-Wl,--no-whole-archive')
    t.run('app', status=1)


def test_64_bit_index(t):
    """As ar writes when the archive is larger than 4 GB."""
    f = members(t, 'f')[0]
    data = (t.path / f).read_bytes()
    data += b'\n' * (len(data) % 2)

    def header(name, size):
        return f'{name:<16}{0:<12}{0:<6}{0:<6}{"644":<8}{size:<10}`\n'.encode()
    index = (1).to_bytes(8, 'big') + (8 + 60 + 18 + 0).to_bytes(8, 'big') + b'f\0'
    t.write('liba.a', b'!<arch>\n' + header('/SYM64/', len(index)) + index
            + header('f.o/', len(data)) + data)
    t.link('app', t.cc('m.o', CALLS_F), 'liba.a')
    t.run('app', status=1)


def test_archive_with_foreign_members_is_no_error_when_unused(t):
    """A text file among the members, which the index does not name."""
    t.write('README', 'not an object\n')
    t.ar('liba.a', 'README', *members(t, 'f'))
    t.link('app', t.cc('m.o', CALLS_F), 'liba.a')
    t.run('app', status=1)


def test_archive_of_a_rust_library_shape(t):
    """.rlib: a metadata member first, and sections that say they are to be left out."""
    t.write('lib.rmeta', b'rust\0\0\0\x08 metadata')
    t.asm('f.o', r'''
        .section .left_out,"e",%progbits
        .ascii "to be left out"
        .text
        .globl f
        .type f, %function
        f:
        #if defined(__x86_64__)
            mov $5, %eax
        #elif defined(__aarch64__)
            mov w0, #5
        #else
            li a0, 5
        #endif
            ret
        .section .note.GNU-stack,"",%progbits
        ''')
    t.ar('libx.rlib', 'lib.rmeta', 'f.o')
    t.link('app', t.cc('m.o', CALLS_F), 'libx.rlib')
    assert '.left_out' not in t.elf('app').section_names()
    t.run('app', status=5)


def test_archive_member_is_named_in_messages(t):
    t.ar('liba.a', t.cc('f.o', 'int missing(void); int f(void) { return missing(); }'))
    t.link('app', t.cc('m.o', CALLS_F), 'liba.a', ok=False).says('liba.a', 'f.o', 'missing')


# -- what is gone through by all threads -----------------------------------------------------------


def shuffle_index(path):
    """Entries of a GNU index (ar's System V format) in another order, each with its name."""
    data = bytearray(path.read_bytes())
    assert data[8:10] == b'/ '
    size, = struct.unpack_from('>I', data, 68)
    offsets = struct.unpack_from(f'>{size}I', data, 72)
    end = 68 + int(data[56:66])
    called = bytes(data[72 + 4 * size:end]).split(b'\0')[:size]
    pairs = sorted(zip(offsets, called), key=lambda pair: pair[1][::-1])
    assert [o for o, _ in pairs] != sorted(offsets)
    data[72:end] = (struct.pack(f'>{size}I', *(o for o, _ in pairs)) +
                    b''.join(n + b'\0' for _, n in pairs)).ljust(end - 72, b'\0')
    path.write_bytes(data)


def test_an_index_may_be_in_any_order(t):
    members = [t.cc(f'm{i}.o', f'int f{i}(void) {{ return {i}; }} int g{i}(void) {{ return f{i}(); }}')
               for i in range(30)]
    t.ar('libm30.a', *members)
    shuffle_index(t.path / 'libm30.a')
    t.cc('main.o', 'int f3(void), g17(void), g29(void);\n'
         'int main(void) { return f3() + g17() + g29() - 49; }')
    t.link('app', 'main.o', 'libm30.a')
    t.run('app')
    assert {'f3', 'g3', 'f17', 'g29'} <= names(t) and not {'f4', 'g16'} & names(t)


@pytest.mark.parametrize('how', ['whole', pytest.param('no index', marks=deviates(bfd='wants an index'))])
def test_members_are_linked_in_the_order_of_the_command_line(t, how):
    """Large archives are gone through first, which nobody sees."""
    def source(name, padding=0):
        return f'char pad_{name}[{padding + 1}] = {{1}}; char mark_{name}[] = "{name}";'
    for name, padding in (('a1', 0), ('a2', 0), ('b', 0), ('c1', 90000), ('c2', 90000)):
        t.cc(f'{name}.o', source(name, padding), '-fdata-sections')
    t.ar('liba.a', 'a1.o', 'a2.o', flags='rcS')
    t.ar('libc1.a', 'c1.o', 'c2.o', flags='rcS')
    t.cc('main.o', 'extern char mark_a1[], mark_a2[], mark_b[], mark_c1[], mark_c2[];\n'
         'int main(void) { return !(mark_a1 + mark_a2[0] && mark_b && mark_c1 + mark_c2[0]); }')
    inputs = ['main.o', 'liba.a', 'b.o', 'libc1.a']
    t.link('app', *(['-Wl,--whole-archive', *inputs, '-Wl,--no-whole-archive'] if how == 'whole' else inputs))
    t.run('app')
    at = {s.name: s.value for s in t.elf('app').symbols}
    marks = [at[f'mark_{n}'] for n in ('a1', 'a2', 'b', 'c1', 'c2')]
    assert marks == sorted(marks)
