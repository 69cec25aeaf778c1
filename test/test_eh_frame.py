""".eh_frame by record and .eh_frame_hdr: what debuggers and unwinders find in them."""

import struct
from collections import namedtuple

import pytest

from kldtest import deviates

Record = namedtuple('Record', 'offset cie data')
SPLIT = ('-ffunction-sections',)


def records(elf):
    """The records of .eh_frame; cie is the offset of an FDE's CIE, or None for a CIE."""
    s = elf.section('.eh_frame')
    at, found = 0, []
    while at < s.size:
        length, = struct.unpack_from('<I', s.data, at)
        if length == 0:
            assert at + 4 == s.size, 'the terminator is not the end'
            return found
        head = 4
        if length == 0xffffffff:
            length, = struct.unpack_from('<Q', s.data, at + 4)
            head = 12
        ident, = struct.unpack_from('<I', s.data, at + head)
        found.append(Record(at, at + head - ident if ident else None,
                            s.data[at + head + 4:at + head + length]))
        at += head + length
    return found


def functions(elf):
    """{start address: size} from the FDEs (of the encoding pcrel sdata4)."""
    s, found = elf.section('.eh_frame'), {}
    for r in records(elf):
        if r.cie is not None:
            start, size = struct.unpack_from('<iI', r.data)
            place = s.data.index(r.data, r.offset) + s.addr
            found[start + place] = size
    return found


def header(elf):
    """The rows of .eh_frame_hdr as (function address, address of its FDE)."""
    s = elf.section('.eh_frame_hdr')
    assert s.data[:4] == bytes([1, 0x1b, 3, 0x3b])
    frame, count = struct.unpack_from('<iI', s.data, 4)
    assert s.addr + 4 + frame == elf.section('.eh_frame').addr
    assert s.size == 12 + 8 * count
    return [(s.addr + pc, s.addr + fde) for pc, fde in struct.iter_unpack('<ii', s.data[12:])]


def check(elf):
    """Every CIE is used, every FDE has one, and the search table lists all of them in order."""
    found = records(elf)
    cies = {r.offset for r in found if r.cie is None}
    assert {r.cie for r in found if r.cie is not None} == cies
    rows = header(elf)
    assert rows == sorted(rows)
    start = elf.section('.eh_frame').addr
    assert {fde - start for _, fde in rows} == {r.offset for r in found if r.cie is not None}
    assert {pc for pc, _ in rows} == set(functions(elf))


FUNCTION = '''
    .section .text.{0},"ax{2}
    .globl {0}
    {0}: .cfi_startproc
    {1}
    ret
    .cfi_endproc
    .size {0}, . - {0}
    '''
END = '.section .note.GNU-stack,""\n'


def function(name, body='nop', group=''):
    return FUNCTION.format(name, body, f'G",%progbits,{group},comdat' if group else '",%progbits')


def sizes(elf, *names):
    """{address: size} of these functions."""
    return {elf.symbol(n).value: elf.symbol(n).size for n in names}


def test_one_record_for_every_function(t, compiler, kind):
    t.link('app', *kind.ldflags, '-Wl,--eh-frame-hdr', t.cc('a.o', '''
        int f(int x) { return x + 1; }
        int g(int x) { return f(x) + f(x); }
        int main(void) { return g(0) - 2; }''', '-O0', '-fasynchronous-unwind-tables', *SPLIT,
        *kind.cflags))
    t.run('app')
    elf = t.elf('app')
    check(elf)
    ranges = functions(elf)
    for name in 'f', 'g', 'main':
        s = elf.symbol(name)
        assert ranges[s.value] == s.size


def test_equal_cies_are_written_once(t):
    for n in range(10):
        t.asm(f'{n}.o', function(f'f{n}') + END)
    t.ld('app', '--eh-frame-hdr', '-e', 'f0', *[f'{n}.o' for n in range(10)])
    found = records(t.elf('app'))
    assert len([r for r in found if r.cie is None]) == 1
    assert len(found) == 11
    check(t.elf('app'))


@deviates(strict=False, bfd='looks at the section symbol only',
          lld='looks at the section symbol only')
def test_cies_with_different_personalities_are_kept_apart(t):
    personality = '.cfi_personality 0x9b, {}\n.cfi_lsda 0x1b, lsda'
    t.asm('a.o', function('f', personality.format('p1')) + function('g', personality.format('p2')) +
          '''
        .text
        target1: ret
        target2: ret
        .data
        p1: .8byte target1
        p2: .8byte target2
        .section .gcc_except_table,"a"
        lsda: .byte 0
        ''' + END)
    t.asm('b.o', function('h', personality.format('p1')) + '''
        .text
        target: ret
        .data
        p1: .8byte target
        .section .gcc_except_table,"a"
        lsda: .byte 0
        ''' + END)
    t.ld('app', '--eh-frame-hdr', '-e', 'f', 'a.o', 'b.o')
    found = records(t.elf('app'))
    assert len([r for r in found if r.cie is None]) == 3
    check(t.elf('app'))


def test_records_of_discarded_groups_go(t):
    source = function('f', group='f') + END
    t.asm('a.o', source)
    t.asm('b.o', source + function('only_b', 'nop\nnop'))
    t.ld('app', '--eh-frame-hdr', '-e', 'f', 'a.o', 'b.o')
    elf = t.elf('app')
    check(elf)
    assert functions(elf) == sizes(elf, 'f', 'only_b')


def test_records_of_collected_functions_go(t):
    t.asm('a.o', function('f') + function('unused', 'nop\nnop') + END)
    t.ld('app', '--eh-frame-hdr', '--gc-sections', '-e', 'f', 'a.o')
    elf = t.elf('app')
    check(elf)
    assert functions(elf) == sizes(elf, 'f')


def test_several_functions_in_a_section(t):
    t.asm('a.o', '.text\n' + '\n'.join(
        f'.globl f{n}\nf{n}: .cfi_startproc\n.zero {4 * n + 4}\n.cfi_endproc' for n in range(50)) +
        '\n' + END)
    t.ld('app', '--eh-frame-hdr', '-e', 'f0', 'a.o')
    elf = t.elf('app')
    check(elf)
    assert functions(elf) == {elf.symbol(f'f{n}').value: 4 * n + 4 for n in range(50)}


def test_the_search_table_is_sorted_where_the_code_is_not(t):
    """Code in sections that are placed apart from the order of the records."""
    for n in range(6):
        t.asm(f'{n}.o', ''.join(
            f'.section {section}.f{n}_{k},"ax"\n.globl f{n}_{k}\nf{n}_{k}: .cfi_startproc\nret\n'
            '.cfi_endproc\n'
            for k, section in enumerate(['.text', '.text.unlikely', '.text.hot', '.text.startup'])
        ) + END)
    t.ld('app', '--eh-frame-hdr', '-e', 'f0_0', *[f'{n}.o' for n in range(6)])
    check(t.elf('app'))
    assert len(header(t.elf('app'))) == 24


def test_without_the_option_there_is_no_header(t):
    t.asm('a.o', function('f') + END)
    t.ld('app', '-e', 'f', 'a.o')
    elf = t.elf('app')
    assert not elf.section('.eh_frame_hdr') and not elf.segment('GNU_EH_FRAME')
    assert len(records(elf)) == 2


def test_a_terminator_is_the_end(t):
    t.asm('a.o', function('f') + END)
    t.asm('b.o', function('g') + END)
    t.ld('app', '-e', 'f', 'a.o', 'b.o')
    assert t.elf('app').section('.eh_frame').data[-4:] == bytes(4)
    assert len(records(t.elf('app'))) == 3


def test_the_segment_of_the_header(t):
    t.asm('a.o', function('f') + END)
    t.ld('app', '--eh-frame-hdr', '-e', 'f', 'a.o')
    elf = t.elf('app')
    s, p = elf.section('.eh_frame_hdr'), elf.segment('GNU_EH_FRAME')
    assert (p.vaddr, p.memsz, p.flags) == (s.addr, s.size, 'R')


# Written by hand: what compilers do not write.

CIE = '''
    .Lcie{0}: .4byte .Lcie_end{0} - .Lcie_id{0}
    .Lcie_id{0}: .4byte 0
    .byte 1
    .asciz "zR"
    .uleb128 1
    .sleb128 -8
    .byte 16
    .uleb128 1
    .byte {1}
    .balign 8
    .Lcie_end{0}:
    '''


@deviates(bfd='writes no table then', lld='does not know them')
def test_records_with_lengths_of_64_bits(t):
    t.asm('a.o', '''
        .text
        .globl f
        f: ret
        .section .eh_frame,"a",%progbits
        ''' + CIE.format(0, '0x1b') + '''
        .4byte 0xffffffff
        .8byte .Lend - .Lid
        .Lid: .4byte .Lid - .Lcie0
        .4byte f - .
        .4byte 1
        .balign 8
        .Lend:
        ''' + END)
    t.ld('app', '--eh-frame-hdr', '-e', 'f', 'a.o')
    elf = t.elf('app')
    assert header(elf)[0][0] == elf.symbol('f').value
    assert records(elf)[1].cie == 0


@deviates(strict=False, bfd='writes no table then', lld='leaves rows out')
@pytest.mark.parametrize('kind', ['-no-pie', '-pie'])
def test_absolute_pointers(t, kind):
    """In a position-independent output these need dynamic relocations."""
    t.asm('a.o', '''
        .text
        .globl f, g
        f: ret
        g: ret
        .section .eh_frame,"aw",%progbits
        ''' + CIE.format(0, '0') + '''
        .4byte .Lend1 - .Lid1
        .Lid1: .4byte .Lid1 - .Lcie0
        .8byte f, 1
        .Lend1:
        .4byte .Lend2 - .Lid2
        .Lid2: .4byte .Lid2 - .Lcie0
        .8byte g, 1
        .Lend2:
        ''' + END)
    t.asm('b.o', function('other') + END)
    t.ld('app', '--eh-frame-hdr', kind, '-e', 'f', 'b.o', 'a.o')
    elf = t.elf('app')
    rows = header(elf)
    assert [pc for pc, _ in rows] == sorted(elf.symbol(n).value for n in ('f', 'g', 'other'))
    if kind == '-pie':
        assert [r.addend for r in elf.dynrelocs if r.kind == 'RELATIVE'] == [
            elf.symbol('f').value, elf.symbol('g').value]
        frame = elf.section('.eh_frame')
        assert all(frame.addr <= r.offset < frame.end for r in elf.dynrelocs)


@deviates(bfd='writes no table then')
def test_two_sections_in_one_object(t):
    t.asm('a.o', '''
        .section .text.f,"ax"
        .globl f
        f: ret
        .section .text.g,"ax"
        .globl g
        g: ret
        ''' + ''.join(f'''
        .section .eh_frame,"a",%progbits,unique,{n}
        {CIE.format(n, '0x1b')}
        .4byte .Lend{n} - .Lid{n}
        .Lid{n}: .4byte .Lid{n} - .Lcie{n}
        .4byte {'fg'[n]} - .
        .4byte 1
        .balign 8
        .Lend{n}:
        ''' for n in (0, 1)) + END)
    t.ld('app', '--eh-frame-hdr', '-e', 'f', 'a.o')
    elf = t.elf('app')
    check(elf)
    assert set(functions(elf)) == {elf.symbol('f').value, elf.symbol('g').value}
    t.ld('less', '--eh-frame-hdr', '--gc-sections', '-e', 'g', 'a.o')
    elf = t.elf('less')
    check(elf)
    assert set(functions(elf)) == {elf.symbol('g').value}


@deviates(bfd='writes no table then', lld='stops there')
def test_terminators_of_inputs_do_not_end_the_output(t):
    t.asm('a.o', function('f') + '.section .eh_frame,"a"\n.4byte 0\n' + END)
    t.asm('b.o', function('g') + END)
    t.ld('app', '--eh-frame-hdr', '-e', 'f', 'a.o', 'b.o')
    elf = t.elf('app')
    assert len(header(elf)) == 2 and len(records(elf)) == 3


@deviates(bfd='tolerates them', lld='says it differently')
@pytest.mark.parametrize('content, message', [
    pytest.param('.4byte 100\n.4byte 0\n', 'past the end of its section', id='too-long'),
    pytest.param('.4byte 2\n.2byte 0\n.2byte 0\n', 'past the end of its section', id='too-short'),
    pytest.param('.4byte 12\n.4byte 400\n.8byte 0\n', 'refers to no CIE', id='no-cie'),
    pytest.param('.4byte 0xffffffff\n.8byte -1\n.4byte 0\n', 'past the end of its section',
                 id='huge'),
])
def test_malformed_records(t, content, message):
    t.asm('a.o', '.globl _start\n_start: ret\n.section .eh_frame,"a"\n' + content + END)
    t.link('app', 'a.o', via=None, ok=False).says('a.o', '.eh_frame', message)


# -- the tables at work -------------------------------------------------------------------------

def test_exceptions_across_objects_and_libraries(t, compiler, kind):
    if compiler == 'clang' and not kind.dynamic:
        pytest.skip('gcc is enough')
    a = t.cxx('a.o', r'''
        #include <cstdio>
        #include <stdexcept>
        void thrower(int);
        struct Say { const char *s; ~Say() { puts(s); } };
        static void middle(int n) { Say say{"unwound"}; thrower(n); }
        int main()
        {
            for (int i = 0; i < 3; i++)
                try { middle(i); puts("no throw"); }
                catch (const std::runtime_error &e) { puts(e.what()); }
                catch (int n) { printf("int %d\n", n); }
        }''', *SPLIT, *kind.cflags)
    b = t.cxx('b.o', r'''
        #include <stdexcept>
        void thrower(int n)
        {
            if (n == 1) throw std::runtime_error("runtime_error");
            if (n == 2) throw n;
        }''', '-fPIC')
    expect = 'unwound\nno throw\nunwound\nruntime_error\nunwound\nint 2\n'
    t.link('app', *kind.ldflags, a, b, via='c++')
    t.run('app', expect=expect)
    if kind.dynamic:
        t.link('libb.so', '-shared', b, via='c++')
        t.link('app2', *kind.ldflags, a, 'libb.so', via='c++')
        t.run('app2', expect=expect)


@deviates(bfd='knows no --threads=N')
def test_the_output_does_not_depend_on_the_number_of_threads(t):
    files = [t.asm(f'{n}.o', function(f'f{n}', group='shared' if n % 3 else '') +
                   function(f'g{n}') + END) for n in range(60)]
    outputs = []
    for threads in 1, 2, 5:
        t.ld('app', f'--threads={threads}', '--eh-frame-hdr', '-e', 'f0', *files)
        outputs.append(t.elf('app').bytes)
    assert outputs[0] == outputs[1] == outputs[2]
