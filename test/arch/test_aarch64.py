"""Instructions and relocations of aarch64."""

import re

import pytest

from kldtest import only
from test_islands import branch_target
from test_islands import words

pytestmark = only('aarch64')

NOTE = '.section .note.GNU-stack,"",%progbits\n'


def disassembly(t, name, *flags):
    text = t.tool('aarch64-linux-gnu-objdump', '-d', '--no-show-raw-insn', *flags, name).stdout
    return [re.sub(r'\s+', ' ', line.split(':', 1)[1].strip())
            for line in text.splitlines() if re.match(r'\s+[0-9a-f]+:', line)]


ERRATUM = """
.text
.balign 4096
.globl _start
_start:
.space 4096 - 8
adrp x0, there
ldr x1, [x2]
ldr x3, [x0, :lo12:there]
ret
.section .there, "aw", %progbits
{gap}
.globl there
there: .xword 1
""" + NOTE


@pytest.mark.parametrize('fix, word', [('--fix-cortex-a53-843419', 'adr x0,'),
                                       ('--no-fix-cortex-a53-843419', 'adrp x0,')])
def test_erratum_843419(t, fix, word):
    t.ld('app', fix, t.asm('a.o', ERRATUM.format(gap='')))
    code = disassembly(t, 'app')
    assert [c for c in code if c.startswith(word)], code
    page = t.elf('app').symbol('there').value & ~0xfff
    assert [c for c in code if c.startswith(word) and f'{page:x}' in c], code


def erratum(t, name, code, at):
    """An object with `code` at that offset in a page, run with 40 in x0 and x2 = there; its data
    and its GOT are out of reach of an adr."""
    return t.asm(name, f'''
        .section .text.{name[0]}, "ax", %progbits
        .balign 4096
        .globl _start
        _start: adrp x2, there
        add x2, x2, :lo12:there
        mov x0, #40
        b code
        .space {at} - 16
        .globl code
        code: {code}
        mov w8, #93
        svc #0
        .section .there, "aw", %progbits
        .balign 16
        .globl there
        there: .xword 1, 2, 3, 4
        .section .rodata, "a", %progbits
        .space 0x200000
        ''' + NOTE)


FIX = '--fix-cortex-a53-843419'


@pytest.mark.parametrize('at', [0xff8, 0xffc])
@pytest.mark.parametrize('moved, code', [
    (2, 'adrp x1, there\nldr x0, [x2, #16]\nldr x3, [x1, :lo12:there]\nadd x0, x0, x3'),
    (2, 'adrp x1, there\nldr x0, [x2, #16]\nldr x3, [x1, :lo12:there + 8]\nadd x0, x0, x3'),
    (2, 'adrp x1, there\nldr x0, [x2, #16]\nldr x3, [x1]\nldr x3, [x2]\nadd x0, x0, x3'),
    (3, 'adrp x1, there\nstr x0, [x2, #16]\nadd x0, x0, #1\nldr x3, [x1, :lo12:there]\n'
        'add x0, x0, x3'),
    (3, 'adrp x1, there\nldp x0, x4, [x2]\nmov x0, #5\nstr w0, [x1, :lo12:there]\nldr x0, [x2]'),
    (2, 'adrp x1, :got:there\nldr x0, [x2]\nldr x1, [x1, :got_lo12:there]\nldr x3, [x1]\n'
        'add x0, x0, x3'),
])
def test_erratum_843419_out_of_reach(t, at, moved, code):
    """The load or store has moved to an island, and does there what it did."""
    a = erratum(t, 'a.o', code, at)
    t.ld('plain', '--no-fix-cortex-a53-843419', a)
    t.ld('app', FIX, a).silent()
    here, plain = ([line for line in t.tool('aarch64-linux-gnu-objdump', '-d', '--no-show-raw-insn',
                                            '--disassemble=code', name).stdout.splitlines()
                    if re.match(r' +[0-9a-f]+:\t', line)] for name in ('app', 'plain'))
    there = t.elf('plain')
    place = there.symbol('code').value + 4 * moved
    assert place & 0xfff == (at + 4 * moved) & 0xfff
    assert re.search(r'\tb\t[0-9a-f]+ <__\S+_843419_veneer>', here[moved]), here
    entry = int(here[moved].split('\t')[-1].split()[0], 16)
    assert words(t.elf('app'), entry, 1) == words(there, place, 1)
    assert branch_target(t.elf('app'), entry + 4) == place + 4
    status = t.tool(*t.target.runner, './plain', ok=False).status
    t.run('app', status=status)


@pytest.mark.parametrize('at, code', [
    (0xff4, 'adrp x1, there\nldr x0, [x2]\nldr x3, [x1, :lo12:there]'),
    (0xff8, 'adrp x1, there\nadd x0, x2, #1\nldr x3, [x1, :lo12:there]\nmov x0, #1'),
    (0xff8, 'adrp x1, there\nldr x0, [x2]\nb 1f\n1: ldr x3, [x1, :lo12:there]'),
    (0xff8, 'adrp x1, there\nldr x0, [x2]\nldr x3, [x2]\nmov x3, #1\nldr x3, [x1]'),
])
def test_no_erratum_843419(t, at, code):
    a = erratum(t, 'a.o', code, at)
    t.ld('plain', '--no-fix-cortex-a53-843419', a)
    t.ld('app', FIX, a)
    assert t.elf('app').section('.text').data == t.elf('plain').section('.text').data


def test_erratum_843419_in_large_programs(t):
    """Islands for it move the code by whole pages: no other code comes to have it."""
    code = 'adrp x1, there\nldr x0, [x2]\nldr x3, [x1, :lo12:there]\n'
    pages = ''.join(f'''
        .section .text.x{n}, "ax", %progbits
        .globl f{n}
        .balign 4096
        f{n}: adrp x2, there
        add x2, x2, :lo12:there
        b 2f
        .space 0xff8 - 12 - {4 * (n % 3)}
        2: {code}
        cmp x0, x3
        b.ne 1f
        ret
        1: udf #0
        .section .text.gap{n}, "ax", %nobits
        .space {13 << 20}
        ''' for n in range(16))
    calls = ''.join(f'bl f{n}\n' for n in range(16))
    t.asm('a.o', f'''{pages}
        .text
        .globl _start
        _start: {calls}
        mov w0, #9
        mov w8, #93
        svc #0
        .data
        .space 0x200000
        there: .xword 7
        ''' + NOTE)
    t.ld('app', FIX, 'a.o')
    t.ld('other', FIX, '--threads=7', 'a.o')
    assert t.nm('app') == t.nm('other')
    # Of f0, f3, ...
    assert len(re.findall('_843419_veneer', t.nm('app'))) == 6
    assert '__f0_veneer' not in t.nm('app') and '__f15_veneer' in t.nm('app')
    t.run('app', status=9)


def test_erratum_835769_is_not_supported(t):
    t.ld('app', '--fix-cortex-a53-835769', t.asm('a.o', ERRATUM.format(gap='')),
         ok=False).says('--fix-cortex-a53-835769')


def test_plt_entries_are_landing_pads(t):
    t.link('libf.so', '-shared', t.cc('f.o', 'void f(void) {}', '-fPIC'))
    t.link('app', t.cc('m.o', 'void f(void); int main(void) { f(); f(); return 0; }'), 'libf.so')
    code = disassembly(t, 'app', '-j', '.plt')
    assert code[0] == 'bti c' and code.count('bti c') >= 2
    t.run('app')


def test_descriptors_become_local_exec(t):
    source = '__thread int x = 5; int *f(void) { return &x; }'
    t.cc('a.o', source + 'int main(void) { return *f(); }', '-O2', '-fPIC')
    t.link('app', 'a.o')
    assert 'TLSDESC' not in {r.kind for r in t.elf('app').dynrelocs}
    t.run('app', status=5)


def test_weak_call_goes_on(t):
    a = t.asm('a.o', '.globl _start\n_start: mov w0, #3\nbl nowhere\nmov w8, #93\nsvc #0\n'
                     '.weak nowhere\n' + NOTE)
    t.ld('app', a)
    assert 'nop' in disassembly(t, 'app')
    t.run('app', status=3)


@pytest.mark.parametrize('code, texts', [
    ('bl far\n.globl far\nfar = 0x40000000', ['CALL26', 'out of range', 'far']),
    ('ldr x0, [x1, :lo12:odd]\n.data\n.byte 0\nodd: .xword 1', ['LDST64', 'multiple of 8']),
    ('.reloc ., R_AARCH64_GLOB_DAT, _start\nnop\nnop', ['GLOB_DAT', 'dynamic linker']),
])
def test_malformed_relocations(t, code, texts):
    a = t.asm('a.o', f'.globl _start\n_start: {code}\n' + NOTE)
    t.ld('app', a, ok=False).says('a.o', *texts)


def test_machines_do_not_mix(t):
    t.tool('gcc', '-c', '-o', 'x64.o', t.write('x.c', 'int x;'))
    t.ld('app', t.asm('a.o', '.globl _start\n_start: ret\n' + NOTE), 'x64.o',
         ok=False).says('x64.o')
