""".note.gnu.property: what all objects agree on."""

import struct

import pytest

from kldtest import deviates
from kldtest import only

pytestmark = only('x86_64')

FEATURE_1 = 0xc0000002
FEATURE_2_NEEDED = 0xc0008001
FEATURE_2_USED = 0xc0010001
ISA_1_NEEDED = 0xc0008002
ISA_1_USED = 0xc0010002
NEEDED_1 = 0xb0008000
STACK_SIZE = 1
NO_COPY_ON_PROTECTED = 2
IBT, SHSTK = 1, 2


def note(properties):
    """Assembly of a note with {type: value}; a value of None has no data."""
    lines = ['.section .note.gnu.property,"a",%note', '.balign 8',
             '.4byte 4, .Lend - .Ldesc, 5', '.asciz "GNU"', '.Ldesc:']
    for kind, value in properties.items():
        size = 0 if value is None else 8 if kind == STACK_SIZE else 4
        lines += [f'.4byte {kind:#x}, {size}']
        if size:
            lines += [f'.{size}byte {value}', '.balign 8']
    return '\n'.join(lines + ['.Lend:']) + '\n'


def properties(elf):
    """{type: value} of the output's note, or None without one."""
    s = elf.section('.note.gnu.property')
    if not s:
        return None
    p = elf.segment('GNU_PROPERTY')
    assert p and (p.vaddr, p.memsz) == (s.addr, s.size) and s.align == 8
    namesz, descsz, kind = struct.unpack_from('<III', s.data)
    assert (namesz, kind, s.data[12:16]) == (4, 5, b'GNU\0') and s.size == 16 + descsz
    found, at = {}, 16
    while at < s.size:
        kind, size = struct.unpack_from('<II', s.data, at)
        found[kind] = int.from_bytes(s.data[at + 8:at + 8 + size], 'little') if size else None
        at += 8 + (size + 7 & -8)
    assert list(found) == sorted(found)
    return found


def link(t, *objects, args=()):
    """Links one object for each set of properties (None: without a note)."""
    names = []
    for i, p in enumerate(objects):
        text = '.globl _start\n_start: ret\n' if i == 0 else ''
        names.append(t.asm(f'{i}.o', text + (note(p) if p is not None else '') +
                           '.section .note.GNU-stack,""\n'))
    t.ld('app', *args, *names)
    return properties(t.elf('app'))


BOTH = IBT | SHSTK


@pytest.mark.parametrize('objects, expected', [
    pytest.param([{FEATURE_1: BOTH}, {FEATURE_1: BOTH}], {FEATURE_1: BOTH}, id='and-both'),
    pytest.param([{FEATURE_1: BOTH}, {FEATURE_1: IBT}], {FEATURE_1: IBT}, id='and-one'),
    pytest.param([{FEATURE_1: SHSTK}, {FEATURE_1: IBT}], None, id='and-none'),
    pytest.param([{FEATURE_1: BOTH}, None], None, id='and-missing'),
    pytest.param([{ISA_1_NEEDED: 1}, {ISA_1_NEEDED: 4}], {ISA_1_NEEDED: 5}, id='or'),
    pytest.param([{ISA_1_NEEDED: 2}, None], {ISA_1_NEEDED: 2}, id='or-missing'),
    pytest.param([{ISA_1_USED: 1}, {ISA_1_USED: 2}], {ISA_1_USED: 3}, id='or-all'),
    pytest.param([{ISA_1_USED: 1}, None], None, id='or-all-missing'),
    pytest.param([{FEATURE_2_USED: 1, FEATURE_2_NEEDED: 1}, {FEATURE_2_NEEDED: 2}],
                 {FEATURE_2_NEEDED: 3}, id='feature-2'),
    pytest.param([{STACK_SIZE: 4096}, {STACK_SIZE: 65536}, {STACK_SIZE: 1}], {STACK_SIZE: 65536},
                 id='stack-size'),
    pytest.param([{NO_COPY_ON_PROTECTED: None}, None], {NO_COPY_ON_PROTECTED: None},
                 id='no-copy-on-protected'),
    pytest.param([{NEEDED_1: 1}, {NEEDED_1: 2}], {NEEDED_1: 3}, id='1-needed'),
    pytest.param([None, None], None, id='nothing'),
    pytest.param([{STACK_SIZE: 4096, NO_COPY_ON_PROTECTED: None, FEATURE_1: BOTH, ISA_1_NEEDED: 1}],
                 {STACK_SIZE: 4096, NO_COPY_ON_PROTECTED: None, FEATURE_1: BOTH, ISA_1_NEEDED: 1},
                 id='several'),
])
@deviates(strict=False, lld='looks at FEATURE_1_AND only')
def test_rules(t, objects, expected):
    assert link(t, *objects) == expected


@deviates(strict=False, lld='has another set of options')
@pytest.mark.parametrize('option, expected', [
    ('ibt', {FEATURE_1: IBT}),
    ('shstk', {FEATURE_1: SHSTK}),
    ('x86-64-v3', {ISA_1_NEEDED: 4}),
])
def test_options_add_properties(t, option, expected):
    assert link(t, None, args=['-z', option]) == expected


@deviates(bfd='has no -z force-ibt')
def test_force_ibt(t):
    t.asm('a.o', '.globl _start\n_start: ret\n.section .note.GNU-stack,""\n')
    t.asm('b.o', note({FEATURE_1: IBT}) + '.section .note.GNU-stack,""\n')
    t.ld('app', '-z', 'force-ibt', 'a.o', 'b.o').says('a.o', 'IBT')
    assert properties(t.elf('app')) == {FEATURE_1: IBT}


def test_compiled_objects(t, compiler):
    a = t.cc('a.o', 'int f(void); int _start(void) { return f(); }', '-fcf-protection=full')
    b = t.cc('b.o', 'int f(void) { return 0; }', '-fcf-protection=branch')
    t.ld('app', a, b)
    assert properties(t.elf('app'))[FEATURE_1] == IBT


@deviates(strict=False, bfd='warns', lld='says it differently')
@pytest.mark.parametrize('text', [
    '.4byte 4, 100, 5\n.asciz "GNU"\n',
    '.4byte 4, 16, 5\n.asciz "GNU"\n.4byte 0xc0000002, 200\n.8byte 0\n',
    '.4byte 4, 16, 5\n.asciz "GNU"\n.4byte 0xc0000002, 8\n.8byte 0\n',
    '.4byte 4\n',
    '.4byte -1, -1, 5\n',
])
def test_malformed_notes(t, text):
    t.asm('a.o', '.globl _start\n_start: ret\n.section .note.gnu.property,"a",%note\n' + text)
    t.link('app', 'a.o', via=None, ok=False).says('a.o', '.note.gnu.property')
