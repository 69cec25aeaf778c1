"""Mergeable sections: equal strings and constants of all inputs are kept once."""

import struct

import pytest

from kldtest import deviates

START = '.globl _start\n.text\n_start: nop\n'


def strings(section):
    return section.data.split(b'\0')[:-1]


def test_equal_strings_of_two_files_are_kept_once(t):
    source = 'const char *%s(void) { return "a string that both files have"; }'
    a = t.cc('a.o', source % 'a', '-O2')
    b = t.cc('b.o', source % 'b', '-O2')
    main = t.cc('main.o', '''
        const char *a(void), *b(void);
        int main(void) { return a() != b(); }''')
    t.link('app', a, b, main)
    t.run('app')
    assert t.elf('app').bytes.count(b'a string that both files have\0') == 1


@pytest.mark.parametrize('kind', ['wchar_t', 'char16_t', 'char'])
def test_characters_of_every_width(t, kind):
    prefix = {'wchar_t': 'L', 'char16_t': 'u', 'char': ''}[kind]
    source = f'''
        #include <stddef.h>
        #include <uchar.h>
        const {kind} *FUNC(int i)
        {{
            static const {kind} *const all[] = {{
                {prefix}"", {prefix}"one", {prefix}"two", {prefix}"FUNC", {prefix}"one and two",
            }};
            return all[i];
        }}'''
    a = t.cc('a.o', source.replace('FUNC', 'alpha'), '-O2')
    b = t.cc('b.o', source.replace('FUNC', 'beta'), '-O2')
    main = t.cc('main.o', f'''
        #include <stdio.h>
        #include <uchar.h>
        #include <wchar.h>
        const {kind} *alpha(int), *beta(int);
        int main(void)
        {{
            for (int i = 0; i < 5; i++) {{
                const {kind} *p = alpha(i), *q = beta(i);
                putchar(p == q ? '=' : '#');
                for (; *p; p++) putchar((int)*p);
                putchar(' ');
                for (; *q; q++) putchar((int)*q);
                putchar('\\n');
            }}
        }}''')
    t.link('app', a, b, main)
    t.run('app', expect='= \n=one one\n=two two\n#alpha beta\n=one and two one and two\n')


def test_a_reference_into_the_middle_of_a_string(t):
    t.asm('a.o', START + '''
        .section .rodata.str1.1,"aMS",%progbits,1
        .string "unused"
        .Lhello: .string "hello world"
        .section .data
        .globl whole, part, end
        whole: .8byte .Lhello
        part: .8byte .Lhello + 6
        end: .8byte .Lhello + 11
        ''')
    b = t.asm('b.o', '.section .rodata.str1.1,"aMS",%progbits,1\n.string "other"\n'
                     '.string "hello world"\n')
    t.ld('app', b, 'a.o')
    elf = t.elf('app')
    for name, text in [('whole', b'hello world\0'), ('part', b'world\0'), ('end', b'\0')]:
        at = elf.word(elf.symbol(name).value)
        assert elf.at(at, len(text)) == text


def test_a_section_symbol_with_an_addend_leads_to_the_right_piece(t):
    t.asm('a.o', START + '''
        .section .rodata.str1.1,"aMS",%progbits,1
        .string "first"
        .string "second"
        .section .data
        .globl p
        p: .8byte .rodata.str1.1 + 6
        ''')
    b = t.asm('b.o', '.section .rodata.str1.1,"aMS",%progbits,1\n.string "second"\n.string "x"\n')
    t.ld('app', b, 'a.o')
    elf = t.elf('app')
    assert elf.at(elf.word(elf.symbol('p').value), 7) == b'second\0'


def test_symbols_in_mergeable_sections_move_with_their_pieces(t):
    t.asm('a.o', START + '''
        .section .rodata.str1.1,"aMS",%progbits,1
        .string "shared"
        .globl one, two
        one: .string "one"
        two: .string "two"
        ''')
    b = t.asm('b.o', '.section .rodata.str1.1,"aMS",%progbits,1\n.string "two"\n.string "one"\n')
    t.ld('app', b, 'a.o')
    elf = t.elf('app')
    assert elf.at(elf.symbol('one').value, 4) == b'one\0'
    assert elf.at(elf.symbol('two').value, 4) == b'two\0'


@pytest.mark.parametrize('size', [4, 8, 12, 16, 24, 32])
def test_constants_of_any_size(t, size):
    def section(*values):
        lines = [f'.section .rodata.cst,"aM",%progbits,{size}']
        for v in values:
            lines.append(f'c{v}: .4byte {v}\n.zero {size - 4}')
        lines += ['.section .data'] + [f'.globl p{v}\np{v}: .8byte c{v}' for v in values]
        return '\n'.join(lines)
    t.asm('a.o', START + section(1, 2, 3))
    t.asm('b.o', section(3, 2, 4).replace('.globl p3\np3:', 'q3:').replace('.globl p2\np2:', 'q2:'))
    t.ld('app', 'a.o', 'b.o')
    elf = t.elf('app')
    for v in 1, 2, 3, 4:
        at = elf.word(elf.symbol(f'p{v}').value)
        assert elf.at(at, size) == v.to_bytes(size, 'little')
    assert elf.word(elf.symbol('p3').value) == elf.word(elf.symbol('q3').value)
    assert elf.section('.rodata').size == 4 * size


def test_a_piece_keeps_the_alignment_of_its_offset(t):
    t.asm('a.o', START + '''
        .section .rodata.str1.16,"aMS",%progbits,1
        .balign 16
        a0: .string "aligned to 16"
        .balign 16
        a1: .string "again"
        .balign 4
        a2: .string "to 4"
        .section .data
        .globl p0, p1, p2
        p0: .8byte a0
        p1: .8byte a1
        p2: .8byte a2
        ''')
    t.asm('b.o', '''
        .section .rodata.str1.16,"aMS",%progbits,1
        .balign 16
        .string "x"
        .balign 2
        .string "again"
        .string "again"
        ''')
    t.ld('app', 'b.o', 'a.o')
    elf = t.elf('app')
    for name, align, text in [('p0', 16, b'aligned'), ('p1', 16, b'again'), ('p2', 4, b'to 4')]:
        at = elf.word(elf.symbol(name).value)
        assert at % align == 0 and elf.at(at, len(text)) == text


def test_strings_are_not_merged_across_output_sections(t):
    t.asm('a.o', START + '''
        .section mine,"aMS",%progbits,1
        .string "text"
        .section yours,"aMS",%progbits,1
        .string "text"
        ''')
    t.ld('app', 'a.o')
    elf = t.elf('app')
    assert elf.section('mine').data == elf.section('yours').data == b'text\0'


@deviates(bfd='merges them', lld='merges them')
def test_writable_mergeable_sections_are_left_alone(t):
    t.asm('a.o', START + '.section .data.str,"awMS",%progbits,1\n.string "text"\n.string "text"\n')
    t.ld('app', 'a.o')
    assert t.elf('app').bytes.count(b'text\0text\0') == 1


def test_debug_strings_are_merged(t, compiler):
    source = 'struct shared_by_both { int a_member_of_both; } %s; '
    a = t.cc('a.o', source % 'a' + 'int main(void) { return 0; }', '-g')
    b = t.cc('b.o', source % 'b', '-g')
    t.link('app', a, b)
    found = strings(t.elf('app').section('.debug_str'))
    assert found.count(b'shared_by_both') == 1 and found.count(b'a_member_of_both') == 1
    assert len(found) == len(set(found))


def test_debug_references_to_merged_strings(t, compiler):
    a = t.cc('a.o', 'int first_name; int common_name_of_something; int main(void) { return 0; }', '-g')
    b = t.cc('b.o', 'static int common_name_of_something; int last_name = (int)sizeof common_name_of_something; '
             'int *use(void) { return &common_name_of_something; }', '-g')
    t.link('app', a, b)
    dump = t.tool('llvm-dwarfdump', '--debug-info', 'app').stdout
    for name in 'first_name', 'common_name_of_something', 'last_name', 'use':
        assert f'DW_AT_name\t("{name}")' in dump
    t.tool('llvm-dwarfdump', '--verify', 'app')


def test_many_strings_in_parts(t):
    """More than fits into one generated atom, some of them larger than such an atom."""
    big = 'B' * 700_000
    lines = ['.section .rodata.str1.1,"aMS",%progbits,1']
    lines += [f'.string "a string with the number {i * 7919 % 20000}"' for i in range(20000)]
    lines += [f'.Lbig: .string "{big}"', '.Ltail: .string "the very last"']
    lines += ['.data', '.globl big, tail', 'big: .8byte .Lbig', 'tail: .8byte .Ltail']
    t.asm('a.o', START + '\n'.join(lines) + '\n')
    t.asm('b.o', '\n'.join(lines[:1] + lines[9000:20001]) + '\n')
    t.ld('app', 'a.o', 'b.o')
    elf = t.elf('app')
    assert elf.at(elf.word(elf.symbol('big').value), 700_001) == big.encode() + b'\0'
    assert elf.at(elf.word(elf.symbol('tail').value), 14) == b'the very last\0'
    found = strings(elf.section('.rodata'))
    assert len(found) == len(set(found)) == 20002


@deviates(bfd='knows no --threads=N')
def test_the_output_does_not_depend_on_the_number_of_threads(t):
    files = []
    for n in range(40):
        lines = ['.section .rodata.str1.1,"aMS",%progbits,1']
        lines += [f'.string "{(i * (n + 3)) % 4001:x}"' for i in range(3000)]
        lines += ['.section .rodata.cst8,"aM",%progbits,8']
        lines += [f'.8byte {(i * (n + 5)) % 997}' for i in range(1000)]
        files.append(t.asm(f'f{n}.o', (START if n == 0 else '') + '\n'.join(lines) + '\n'))
    outputs = []
    for threads in 1, 2, 7:
        t.ld('app', f'--threads={threads}', *files)
        outputs.append(t.elf('app').bytes)
    assert outputs[0] == outputs[1] == outputs[2]


# -- malformed ----------------------------------------------------------------------------------

@deviates(bfd='links it unmerged')
def test_a_string_without_an_end_is_an_error(t):
    t.asm('a.o', START + '.section .rodata.str1.1,"aMS",%progbits,1\n.string "x"\n.ascii "open"\n')
    t.link('app', 'a.o', via=None, ok=False).says('string is not null terminated')


@deviates(bfd='links it unmerged', lld='says it differently')
def test_a_size_that_is_no_multiple_is_an_error(t):
    t.asm('a.o', START + '.section .rodata.cst8,"aM",%progbits,8\n.8byte 1\n.4byte 1\n')
    elf = t.elf('a.o')
    s = elf.section('.rodata.cst8')
    data = bytearray(elf.bytes)
    header = elf.bytes.rindex(struct.pack('<QQQ', s.addr, s.offset, s.size))
    data[header + 16:header + 24] = struct.pack('<Q', 12)
    t.write('a.o', bytes(data))
    t.link('app', 'a.o', via=None, ok=False).says('not a multiple of its entry size')
