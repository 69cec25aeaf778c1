"""Instructions and relocations of aarch64."""

import re
import struct

import pytest

from kldtest import KINDS
from kldtest import KLD
from kldtest import only
from test_islands import branch_target
from test_islands import words

pytestmark = only('aarch64')

NOTE = '.section .note.GNU-stack,"",%progbits\n'


def asm_as(t, name, source, **types):
    """Assembles, and gives relocations of a type another number, for those that as lacks."""
    numbers = {'ABS64': 257, 'ABS32': 258, 'LDST64_ABS_LO12_NC': 286, 'LDST128_ABS_LO12_NC': 299}
    path = t.path / t.asm(name, source)
    data = bytearray(path.read_bytes())
    for section in t.elf(name).sections:
        for at in range(section.offset, section.offset + section.size, 24):
            for old, new in types.items():
                if section.name.startswith('.rela') and \
                        int.from_bytes(data[at + 8:at + 12], 'little') == numbers[old]:
                    data[at + 8:at + 12] = new.to_bytes(4, 'little')
    path.write_bytes(data)
    return name


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


@pytest.mark.parametrize('option', ['--execute-only'])
def test_options_of_other_cpus(t, option):
    t.ld('app', option, t.asm('a.o', '.globl _start\n_start: ret\n' + NOTE),
         ok=False).says(option, 'not supported', 'aarch64')


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
    a = t.asm('a.o', '.globl _start\n_start: ret\n' + NOTE)
    t.ld('app', a, 'x64.o', ok=False).says('x64.o', '-m aarch64linux')
    for files in ([a, 'x64.o'], ['x64.o', a]):  # without -m the first object decides
        t.tool(KLD, '-o', 'app', *files, ok=False).says('x64.o', 'a.o', 'x86-64', 'aarch64')



# -- GOT slots that are not needed --------------------------------------------------------------

def instructions(t, name, start, end):
    """The instructions from one symbol to another, as objdump prints them."""
    elf = t.elf(name)
    a, b = (elf.symbol(n).value for n in (start, end))
    return disassembly(t, name, f'--start-address={a:#x}', f'--stop-address={b:#x}')


def mnemonics(code):
    return [c.split()[0] for c in code]


# Loads the address of v twice, uses it, and exits with what is there.
GOT_LOAD = """
.globl _start
_start: adrp x1, :got:v
ldr x1, [x1, :got_lo12:v]
end: ldr w0, [x1]
mov w8, #93
svc #0
{gap}
.data
.globl v
.hidden v
v: .word 5
""" + NOTE
FAR = '.space 0x200000\n'


@pytest.mark.parametrize('flags', [(), ('-pie', '--no-dynamic-linker'), ('-z', 'pac-plt')],
                         ids=['static', 'pie', 'pac'])
@pytest.mark.parametrize('gap, want', [('', ['nop', 'adr']), (FAR, ['adrp', 'add'])],
                         ids=['near', 'far'])
def test_got_load_computes_the_address(t, flags, gap, want):
    t.ld('app', *flags, t.asm('a.o', GOT_LOAD.format(gap=gap)))
    assert mnemonics(instructions(t, 'app', '_start', 'end')) == want
    assert not t.elf('app').section('.got')
    if not flags:
        t.run('app', status=5)


def test_got_load_of_a_local_symbol(t):
    t.ld('app', t.asm('a.o', GOT_LOAD.format(gap='').replace('.globl v\n.hidden v\n', '')))
    assert mnemonics(instructions(t, 'app', '_start', 'end')) == ['nop', 'adr']
    t.run('app', status=5)


PAIR = 'adrp x1, :got:v\nldr x1, [x1, :got_lo12:v]\n'


@pytest.mark.parametrize('flags, code', [
    (('--no-relax',), PAIR),
    (('--emit-relocs',), PAIR),
    ((), PAIR.replace('\n', '\nnop\n', 1)),
    ((), PAIR.replace('ldr x1', 'ldr x2') + 'mov x1, x2\n'),
    ((), 'adrp x2, :got:v\nldr x1, [x2, :got_lo12:v]\n'),
    # The load is reached from elsewhere too.
    ((), 'b 2f\n1: adrp x1, :got:v\nb 3f\n2: ' + PAIR.replace('ldr', '3: ldr') + '.hidden w\n'),
], ids=['no-relax', 'emit-relocs', 'apart', 'other-target', 'other-base', 'jumped-to'])
def test_got_load_is_kept(t, flags, code):
    a = t.asm('a.o', GOT_LOAD.format(gap='').replace(PAIR, code))
    t.ld('app', *flags, a)
    assert {'adrp', 'ldr'} <= set(mnemonics(instructions(t, 'app', '_start', 'end')))
    assert t.elf('app').section('.got')
    t.run('app', status=5)


def test_got_load_of_what_is_far_away(t):
    """Addresses are not known yet when slots are: an option that spreads them keeps all loads."""
    text = GOT_LOAD.format(gap='').replace('.data', '.section .far, "aw", %progbits')
    t.ld('app', '--section-start=.far=0x300000000', t.asm('a.o', text))
    assert mnemonics(instructions(t, 'app', '_start', 'end')) == ['adrp', 'ldr']
    t.run('app', status=5)


def test_got_load_of_a_huge_image(t):
    gap = '.section .bss.huge, "aw", %nobits\n.globl huge\nhuge: .space 0x78000000\n'
    t.ld('app', t.asm('a.o', GOT_LOAD.format(gap=gap)))
    assert mnemonics(instructions(t, 'app', '_start', 'end')) == ['adrp', 'ldr']


def test_got_loads_of_several_symbols(t):
    """One symbol's odd use leaves the others alone."""
    text = GOT_LOAD.format(gap='').replace('end:', 'adrp x2, :got:w\nnop\n'
                                           'ldr x2, [x2, :got_lo12:w]\nend:')
    t.ld('app', t.asm('a.o', text + '.data\n.globl w\n.hidden w\nw: .word 1\n'))
    assert mnemonics(instructions(t, 'app', '_start', 'end')) == ['nop', 'adr', 'adrp', 'nop', 'ldr']
    t.run('app', status=5)


@pytest.mark.parametrize('define', ['.globl v\n.set v, 0x12345', '.weak v\n.hidden v',
                                    '.globl v\n.type v, %gnu_indirect_function\n.text\nv: ret'])
@pytest.mark.parametrize('flags', [(), ('-pie', '--no-dynamic-linker')], ids=['static', 'pie'])
def test_got_load_of_what_is_not_a_place(t, flags, define):
    a = t.asm('a.o', '.globl _start\n_start: ' + PAIR + 'end: ret\n' + NOTE + define + '\n')
    t.ld('app', *flags, a)
    assert mnemonics(instructions(t, 'app', '_start', 'end')) == ['adrp', 'ldr']


def test_got_load_of_a_preemptible_symbol(t):
    text = '.globl v, f, end\nf: ' + PAIR + 'end: ret\n.data\nv: .word 1\n' + NOTE
    t.ld('a.so', '-shared', t.asm('a.o', text))
    assert mnemonics(instructions(t, 'a.so', 'f', 'end')) == ['adrp', 'ldr']
    assert t.elf('a.so').dynrelocs_of('v') == ['GLOB_DAT']


def test_got_load_of_a_local_symbol_in_its_section(t):
    """as makes .data + 8 of a local symbol there: there is no slot for that, but an address is."""
    a = t.asm('a.o', GOT_LOAD.format(gap='').replace('.globl v\n.hidden v\n', '.xword 0\n'))
    t.ld('app', a)
    assert mnemonics(instructions(t, 'app', '_start', 'end')) == ['nop', 'adr']
    t.run('app', status=5)
    t.ld('app', '--no-relax', a, ok=False).says('a.o', 'ADR_GOT_PAGE', 'addend')


def test_got_load_with_an_addend(t):
    a = t.asm('a.o', '.globl _start\n_start: adrp x0, :got:_start+8\n' + NOTE)
    t.ld('app', a, ok=False).says('a.o', 'ADR_GOT_PAGE', '_start', 'addend')


ADDRESS = """
.globl _start
_start: adrp x1, v
add {to}, x1, :lo12:v
end: ldr w0, [{to}]
mov w8, #93
svc #0
{gap}
.data
.word 1
v: .word 7
""" + NOTE


@pytest.mark.parametrize('flags, to, gap, want', [
    ((), 'x1', '', ['nop', 'adr']),
    (('-pie', '--no-dynamic-linker'), 'x1', '', ['nop', 'adr']),
    ((), 'x1', FAR, ['adrp', 'add']),
    ((), 'x2', '', ['adrp', 'add']),
    (('--no-relax',), 'x1', '', ['adrp', 'add']),
], ids=['near', 'pie', 'far', 'other-target', 'no-relax'])
def test_address_in_one_instruction(t, flags, to, gap, want):
    t.ld('app', *flags, t.asm('a.o', ADDRESS.format(to=to, gap=gap)))
    assert mnemonics(instructions(t, 'app', '_start', 'end')) == want
    t.run('app', status=7)


@pytest.mark.parametrize('gap, fits', [(0x100000 - 4, True), (0x100000, False)])
def test_reach_of_adr(t, gap, fits):
    """From the second instruction, 1 MiB less a byte forwards."""
    code = f'.globl _start\n_start: adrp x1, v\nadd x1, x1, :lo12:v\n.space {gap - 4}\nv: nop\n'
    t.ld('app', t.asm('a.o', code + NOTE))
    first = disassembly(t, 'app')[:2]
    assert mnemonics(first) == (['nop', 'adr'] if fits else ['adrp', 'add'])
    assert not fits or '<v>' in first[1], first


# -- values and fields --------------------------------------------------------------------------

def constants(code):
    """What a sequence of movz, movn, movk leaves in a register."""
    x = 0
    for line in code:
        op, rest = line.split(' ', 1)
        if op in ('mov', 'movz', 'movn', 'movk'):
            n, shift = re.search(r'#(-?\w+)(?:, lsl #(\d+))?', rest).groups()
            n, shift = int(n, 0), int(shift or 0)
            x = (x & ~(0xffff << shift) | n << shift if op == 'movk'
                 else ~(n << shift) if op == 'movn' else n << shift)
    return x & (1 << 64) - 1


@pytest.mark.parametrize('value', [0, 5, 0x1234567, 0x123456789abc, -1, -5, -0x1234567])
def test_signed_constants(t, value):
    def code(top, low):
        return f'movz x0, #:abs_g{top}_s:v\n' + ''.join(f'movk x0, #:abs_g{n}_nc:v\n' for n in low)
    for top, low in (0, ()), (1, (0,)), (2, (1, 0)):
        text = f'.globl _start, v, end\n_start: {code(top, low)}end: ret\n.set v, {value}\n' + NOTE
        fits = -(1 << 16 * top + 16) <= value < 1 << 16 * top + 16
        result = t.ld('app', t.asm('a.o', text), ok=fits)
        if fits:
            assert constants(instructions(t, 'app', '_start', 'end')) == value & (1 << 64) - 1
        else:
            result.says(f'MOVW_SABS_G{top}', 'out of range', "'v'")


@pytest.mark.parametrize('top', [0, 1, 2, 3])
@pytest.mark.parametrize('back', [False, True])
def test_distance_in_a_register(t, top, back):
    lines = [f'movz x1, #:prel_g{top}:v' + ('+4' if top != 0 else '')]
    lines += [f'movk x1, #:prel_g{n}_nc:v+{4 * (top - n + 1)}' for n in range(top - 1, -1, -1)]
    code = 'adr x0, 1f\n1: ' + '\n'.join(lines)
    if top == 0:
        code = 'adr x0, 1f\n1: movz x1, #:prel_g0:v'
        bias = 0
    else:
        bias = 4
    v = '.balign 4\nv: .word 9\n'
    text = (f'.globl _start\n{v if back else ""}_start: {code}\nadd x0, x0, x1\nsub x0, x0, #{bias}\n'
            f'ldr w0, [x0]\nmov w8, #93\nsvc #0\n{"" if back else v}') + NOTE
    t.ld('app', '-pie', '--no-dynamic-linker', t.asm('a.o', text))
    t.run('app', status=9)


def test_offsets_from_the_got(t):
    a = asm_as(t, 'a.o', """
.globl _start, f
_start: adrp x1, f
ldr x0, [x1, :gotpage_lo15:f]
ldr x0, [x1, :lo12:f]
f: ret
.data
.globl d
d: .xword f
e: .word d
""" + NOTE, ABS64=307, ABS32=308, LDST64_ABS_LO12_NC=310)
    t.ld('app', a)
    elf = t.elf('app')
    got, f, d = elf.section('.got'), elf.symbol('f').value, elf.symbol('d').value
    assert elf.word(d) == f - got.addr & (1 << 64) - 1
    assert int.from_bytes(elf.at(d + 8, 4), 'little') == d - got.addr & 0xffffffff
    code = disassembly(t, 'app')
    for line, base in (code[1], got.addr & ~0xfff), (code[2], got.addr):
        offset = int(re.search(r'#(\d+)', line).group(1)) if '#' in line else 0
        assert elf.word(base + offset) == f


# -- thread-local storage -----------------------------------------------------------------------

TLS = """
.section .tdata, "awT", %progbits
.globl pad, x
.type x, %object
pad: .space {pad}
x: .word 42
.word 0, 0, 0
""" + NOTE

TLS_LE = {
    '12': 'add x1, x1, :tprel_lo12:x\nldr w0, [x1]',
    '24': 'add x1, x1, :tprel_hi12:x\nadd x1, x1, :tprel_lo12_nc:x\nldr w0, [x1]',
    'ldst32': 'add x1, x1, :tprel_hi12:x\nldr w0, [x1, :tprel_lo12_nc:x]',
    'ldst32-near': 'ldr w0, [x1, :tprel_lo12:x]',
    'ldst128': 'add x1, x1, :tprel_hi12:x\nldr q0, [x1, :lo12:x]\nfmov w0, s0',
    'g0': 'movz x2, :tprel_g0:x\nldr w0, [x1, x2]',
    'g1': 'movz x2, :tprel_g1:x\nmovk x2, :tprel_g0_nc:x\nldr w0, [x1, x2]',
    'g2': 'movz x2, :tprel_g2:x\nmovk x2, :tprel_g1_nc:x\nmovk x2, :tprel_g0_nc:x\n'
               'ldr w0, [x1, x2]',
}
RUN = '.globl main\nmain: mrs x1, tpidr_el0\n{}\nret\n'


@pytest.mark.parametrize('form', TLS_LE)
@pytest.mark.parametrize('kind', ['pie', 'static'])
def test_local_exec(t, form, kind):
    pad = 64 if form in ('12', 'ldst32-near') else 0x9000
    a = asm_as(t, 'a.o', RUN.format(TLS_LE[form]), LDST128_ABS_LO12_NC=571)
    kind = KINDS[kind]
    t.link('app', *kind.ldflags, a, t.asm('b.o', TLS.format(pad=pad)))
    t.run('app', status=42)


@pytest.mark.parametrize('form, texts', [
    ('12', ['TLSLE_ADD_TPREL_LO12', 'out of range', "'x'"]),
    ('ldst32-near', ['TLSLE_LDST32_TPREL_LO12', 'out of range', "'x'"]),
])
def test_local_exec_out_of_range(t, form, texts):
    a = t.asm('a.o', RUN.format(TLS_LE[form]).replace('main', '_start'))
    t.ld('app', a, t.asm('b.o', TLS.format(pad=0x9000)), ok=False).says('a.o', *texts)


def test_local_exec_in_a_library(t):
    a = t.asm('a.o', RUN.format(TLS_LE['g1']))
    t.ld('a.so', '-shared', a, t.asm('b.o', TLS.format(pad=0)), ok=False).says(
        'a.o', 'TLSLE_MOVW_TPREL_G1', "'x'", '-fPIC')


TLS_GD = {
    'gd': 'adrp x0, :tlsgd:x\nadd x0, x0, :tlsgd_lo12:x\nbl __tls_get_addr\nldr w0, [x0]',
    'gd-tiny': 'adr x0, :tlsgd:x\nbl __tls_get_addr\nldr w0, [x0]',
    'ld': 'adrp x0, :tlsldm:x\nadd x0, x0, :tlsldm_lo12_nc:x\nbl __tls_get_addr\n'
          'add x0, x0, :dtprel_hi12:x, lsl #12\nadd x0, x0, :dtprel_lo12_nc:x\nldr w0, [x0]',
    'ld-tiny': 'adr x0, :tlsldm:x\nbl __tls_get_addr\nadd x0, x0, :dtprel_hi12:x, lsl #12\n'
               'ldr w0, [x0, :dtprel_lo12_nc:x]',
    'ld-movw': 'adr x0, :tlsldm:x\nbl __tls_get_addr\nmovz x1, :dtprel_g1:x\n'
               'movk x1, :dtprel_g0_nc:x\nldr w0, [x0, x1]',
    'ie': 'adrp x0, :gottprel:x\nldr x0, [x0, :gottprel_lo12:x]\nmrs x1, tpidr_el0\n'
          'ldr w0, [x0, x1]',
    'ie-apart': 'adrp x3, :gottprel:x\nmrs x1, tpidr_el0\nldr x3, [x3, :gottprel_lo12:x]\n'
                'ldr w0, [x3, x1]',
    'ie-other': 'adrp x3, :gottprel:x\nldr x2, [x3, :gottprel_lo12:x]\nmrs x1, tpidr_el0\n'
                'ldr w0, [x2, x1]',
    'ie-tiny': 'ldr x0, :gottprel:x\nmrs x1, tpidr_el0\nldr w0, [x0, x1]',
    'desc': 'adrp x0, :tlsdesc:x\nldr x1, [x0, :tlsdesc_lo12:x]\nadd x0, x0, :tlsdesc_lo12:x\n'
            '.tlsdesccall x\nblr x1\nmrs x1, tpidr_el0\nldr w0, [x0, x1]',
    'desc-tiny': 'ldr x1, :tlsdesc:x\nadr x0, :tlsdesc:x\n.tlsdesccall x\nblr x1\n'
                 'mrs x1, tpidr_el0\nldr w0, [x0, x1]',
}
CALLER = '.globl {0}\n{0}: stp x29, x30, [sp, #-16]!\n{1}\nldp x29, x30, [sp], #16\nret\n'


@pytest.mark.parametrize('form', TLS_GD)
@pytest.mark.parametrize('kind', ['pie', 'no-pie', 'static', 'static-pie'])
def test_any_model_in_a_program(t, form, kind):
    a = t.asm('a.o', CALLER.format('main', TLS_GD[form]))
    t.link('app', *KINDS[kind].ldflags, a, t.asm('b.o', TLS.format(pad=0x12344)))
    t.run('app', status=42)


@pytest.mark.parametrize('form', TLS_GD)
def test_any_model_in_a_library(t, form):
    a = t.asm('a.o', CALLER.format('get', TLS_GD[form]))
    hidden = TLS.format(pad=0x1230) + ('.hidden x\n' if form.startswith('ld') else '')
    t.link('a.so', '-shared', a, t.asm('b.o', hidden))
    m = t.cc('m.o', 'int get(void); int main(void) { return get(); }')
    t.link('app', m, 'a.so')
    t.run('app', status=42)


@pytest.mark.parametrize('form', [f for f in TLS_GD if not f.startswith('ld')])
def test_any_model_for_a_variable_of_a_library(t, form):
    t.link('b.so', '-shared', t.asm('b.o', TLS.format(pad=16)))
    a = t.asm('a.o', CALLER.format('main', TLS_GD[form]))
    t.link('app', a, 'b.so')
    t.run('app', status=42)


@pytest.mark.parametrize('kind', ['pie', 'no-pie', 'static', 'static-pie', 'shared'])
def test_descriptor_of_the_module(t, kind):
    """Local dynamic by way of a descriptor of _TLS_MODULE_BASE_."""
    t.compiler = 'clang'
    a = t.cc('a.o', """
        static __thread int a = 3, b[1000] = {4};
        int get(int x) { a += x; b[0] += a; return a * 10 + b[0]; }""",
             '-O1', '-fPIC', '-mllvm', '-aarch64-elf-ldtls-generation')
    m = t.cc('m.o', 'int get(int); int main(void) { return get(1); }', '-fPIC')
    if kind == 'shared':
        t.link('a.so', '-shared', a)
        t.link('app', m, 'a.so')
    else:
        t.link('app', *KINDS[kind].ldflags, a, m)
    t.run('app', status=48)


@pytest.mark.parametrize('form, flags, slot', [
    ('ie', (), False), ('ie-apart', (), False), ('ie-other', (), True), ('ie-tiny', (), True),
    ('ie', ('--no-relax',), True), ('desc', (), False), ('desc-tiny', (), False)])
def test_slots_of_constant_offsets(t, form, flags, slot):
    a = t.asm('a.o', f'.globl _start\n_start: {TLS_GD[form]}\nend: ret\n')
    t.ld('app', *flags, a, t.asm('b.o', TLS.format(pad=0x12344)))
    assert bool(t.elf('app').section('.got')) == slot
    if not slot:
        first = [c for c in instructions(t, 'app', '_start', 'end') if '#' in c or 'mov' in c]
        assert constants([c for c in first if not c.startswith('mrs')][:2]) == 16 + 0x12344


# -- code models --------------------------------------------------------------------------------

MODEL = r"""
    #include <stdio.h>
    extern int imported, function(int);
    int data[4000] = { 1, 2, 3 }, zero[4000];
    static const char *const names[] = { "zero", "one" };
    static int local = 4;
    static __thread int thread = 5;
    extern __thread int shared_thread;
    __attribute__((noinline)) static int call(int (*f)(int), int n) { return f(n); }
    __attribute__((noinline)) static int twice(int n) { return 2 * n + local; }
    int (*volatile pointer)(int) = twice;
    int main(int argc, char **argv)
    {
        (void)argv;
        zero[3999] = argc;
        printf("%d %d %d %d %s %d %d\n", data[2], zero[3999], call(function, 10),
               call(pointer, imported), names[argc], thread, shared_thread);
        return 0;
    }
"""
MODEL_LIBRARY = ('int imported = 20; __thread int shared_thread = 6;'
                 'int function(int n) { return n + 1; }')


@pytest.mark.parametrize('model', ['tiny', 'small', 'large'])
def test_code_model(t, compiler, kind, opt, model):
    if model == 'large' and kind.pie:
        pytest.skip('the large model is for fixed positions')
    flags = (opt, f'-mcmodel={model}', *kind.cflags)
    if model == 'large':
        flags += ('-ftls-model=local-exec',)  # clang has no other
    a, b = t.cc('a.o', MODEL, *flags), t.cc('b.o', MODEL_LIBRARY, *flags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect='3 1 11 44 one 5 6\n')


@pytest.mark.parametrize('model', ['tiny', 'small', 'large'])
def test_code_model_with_a_library(t, compiler, opt, model):
    if compiler == 'clang' and model == 'large':
        pytest.skip('clang has no variables of other modules in the large model')
    pic = 'small' if model == 'large' else model
    library = t.cc('b.o', MODEL_LIBRARY, opt, f'-mcmodel={pic}', '-fPIC')
    t.link('libb.so', '-shared', library)
    for kind in (KINDS['no-pie'],) if model == 'large' else (KINDS['pie'], KINDS['no-pie']):
        t.link('app', *kind.ldflags, t.cc('a.o', MODEL, opt, f'-mcmodel={model}', *kind.cflags),
               'libb.so')
        t.run('app', expect='3 1 11 44 one 5 6\n')


@pytest.mark.parametrize('flags', [('-mtls-size=12',), ('-mtls-size=24',), ('-mtls-size=32',),
                                   ('-mtls-size=48', '-mcmodel=large', '-fno-pie'),
                                   ('-mtls-dialect=trad', '-fPIC'), ('-ftls-model=initial-exec',)])
def test_thread_local_of_gcc(t, opt, flags):
    a = t.cc('a.o', MODEL, opt, *flags)
    b = t.cc('b.o', MODEL_LIBRARY, opt, *flags)
    t.link('app', '-no-pie', a, b)
    t.run('app', expect='3 1 11 44 one 5 6\n')


# -- program properties and PLT -----------------------------------------------------------------

BTI, PAC, GCS = 1, 2, 4
BTI_PLT, PAC_PLT, VARIANT_PCS = '0x70000001', '0x70000003', '0x70000005'


def with_features(t, name, features, text=''):
    """An object whose note says that it has these features; None: without a note."""
    note = '' if features is None else f"""
.section .note.gnu.property, "a", %note
.balign 8
.word 4, 16, 5
.asciz "GNU"
.word 0xc0000000, 4, {features}, 0
"""
    return t.asm(name, text + note + NOTE)


def features_of(elf):
    note = elf.note('GNU', 5)
    if not note:
        return 0
    kind, size, value = struct.unpack_from('<III', note)
    assert (kind, size, len(note)) == (0xc0000000, 4, 16)
    return value


def link_features(t, *objects, args=(), **how):
    names = [with_features(t, f'{i}.o', f, '' if i else '.globl _start\n_start: ret\n')
             for i, f in enumerate(objects)]
    return t.ld('app', *args, *names, **how)


@pytest.mark.parametrize('objects, want', [
    ((BTI | PAC | GCS, BTI | PAC | GCS), BTI | PAC | GCS),
    ((BTI | PAC, BTI | GCS), BTI),
    ((BTI, GCS), 0),
    ((BTI | GCS, None), 0),
])
def test_features_that_all_have(t, objects, want):
    link_features(t, *objects).silent()
    assert features_of(t.elf('app')) == want


@pytest.mark.parametrize('args, want, says', [
    (('force-bti',), BTI, ['warning: 1.o', '-z force-bti', 'FEATURE_1_BTI']),
    (('force-bti', 'bti-report=none'), BTI, None),
    (('force-bti', 'bti-report=error'), None, ['error: 1.o', '-z bti-report', 'FEATURE_1_BTI']),
    (('bti-report=warning',), 0, ['warning: 1.o', '-z bti-report', 'FEATURE_1_BTI']),
    (('bti-report=error',), None, ['error: 1.o', 'FEATURE_1_BTI']),
    (('gcs',), GCS, ['warning: 1.o', '-z gcs', 'FEATURE_1_GCS']),
    (('gcs=always', 'gcs-report=none'), GCS, None),
    (('gcs=implicit',), 0, None),
    (('gcs-report=error',), None, ['error: 1.o', '-z gcs-report', 'FEATURE_1_GCS']),
])
def test_features_by_options(t, args, want, says):
    args = [word for a in args for word in ('-z', a)]
    result = link_features(t, BTI | GCS, None, args=args, ok=want is not None)
    if says is None:
        result.silent()
    else:
        result.says(*says)
        assert '0.o' not in result.stderr
    if want is not None:
        assert features_of(t.elf('app')) == want


def test_never_gcs(t):
    link_features(t, BTI | GCS, BTI | GCS, args=('-z', 'gcs=never')).silent()
    assert features_of(t.elf('app')) == BTI


def link_calls(t, *args):
    """A program with a lazily bound function, one bound at start, and an ifunc of its own."""
    t.link('libf.so', '-shared', t.cc('f.o', 'int f(void) { return 3; } int g(void) { return 4; }',
                                      '-fPIC', '-mbranch-protection=standard'))
    m = t.cc('m.o', """
        int f(void), g(void);
        int (*volatile pg)(void) = g;
        static int five(void) { return 5; }
        static int (*choose(void))(void) { return five; }
        static int h(void) __attribute__((ifunc("choose")));
        int main(void) { return f() + g() * 10 + (pg == g) + h() * 20; }""",
             '-O1', '-mbranch-protection=standard', '-fPIE')
    t.link('app', *args, m, 'libf.so')
    return t.elf('app')


def run_without_pac(t, status):
    """glibc signs no addresses in the GOT: on a CPU that knows no signatures none are needed."""
    t.tool('sh', '-c', f'LD_LIBRARY_PATH=. qemu-aarch64 -cpu cortex-a72 '
           f'{" ".join(t.target.runner[1:])} ./app; test $? = {status}')


def test_signed_plt(t):
    elf = link_calls(t, '-Wl,-z,pac-plt')
    assert elf.dyn(PAC_PLT) == 0
    code = disassembly(t, 'app', '-j', '.plt')
    entries = [mnemonics(code[i:i + 6]) for i in range(8, len(code), 6)]
    signed = ['bti', 'adrp', 'ldr', 'add', 'autia1716', 'br']
    plain = ['bti', 'adrp', 'ldr', 'add', 'br', 'nop']
    assert signed in entries and plain in entries
    assert entries.count(signed) == sum(r.kind == 'JUMP_SLOT' for r in elf.dynrelocs)
    run_without_pac(t, 144)


def test_plain_plt(t):
    elf = link_calls(t)
    assert not elf.dyn(PAC_PLT) and 'autia1716' not in disassembly(t, 'app', '-j', '.plt')
    t.run('app', status=144)


def test_plt_for_bti(t):
    def tags(*args):
        f = with_features(t, 'f.o', BTI, '.globl f\nf: ret\n')
        m = with_features(t, 'm.o', BTI, '.globl _start\n_start: bl f\n')
        n = with_features(t, 'n.o', None)
        t.ld('libf.so', '-shared', f)
        t.ld('app', m, 'libf.so', *(n if a == 'n' else a for a in args))
        return {tag for tag, _ in t.elf('app').dynamic}
    assert BTI_PLT in tags()
    assert BTI_PLT not in tags('n')
    assert BTI_PLT in tags('n', '-z', 'force-bti')


def st_other(t, name, symbol, table='--dyn-syms'):
    out = t.tool('aarch64-linux-gnu-readelf', '-W', table, name).stdout
    return [line for line in out.splitlines()
            if re.search(rf' {symbol}(@|$)', line) and 'VARIANT_PCS' in line]


VARIANT_CALL = '.globl _start\n_start: bl f\n{}'


def test_variant_pcs(t):
    t.ld('libf.so', '-shared', t.asm('f.o', '.globl f\n.variant_pcs f\nf: ret\n' + NOTE))
    assert st_other(t, 'libf.so', 'f') and st_other(t, 'libf.so', 'f', '--syms')
    assert not t.elf('libf.so').dyn(VARIANT_PCS)
    for mark in '', '.variant_pcs f\n':
        t.ld('app', t.asm('a.o', VARIANT_CALL.format(mark) + NOTE), 'libf.so')
        assert t.elf('app').dyn(VARIANT_PCS) == 0
        assert st_other(t, 'app', 'f') and st_other(t, 'app', 'f', '--syms')


def test_variant_pcs_of_a_reference(t):
    """The library's own table may not say it."""
    t.ld('libf.so', '-shared', t.asm('f.o', '.globl f\nf: ret\n' + NOTE))
    t.ld('app', t.asm('a.o', VARIANT_CALL.format('.variant_pcs f\n') + NOTE), 'libf.so')
    assert t.elf('app').dyn(VARIANT_PCS) == 0 and st_other(t, 'app', 'f')
    t.ld('app', t.asm('a.o', VARIANT_CALL.format('') + NOTE), 'libf.so')
    assert t.elf('app').dyn(VARIANT_PCS) is None and not st_other(t, 'app', 'f')


def test_variant_pcs_within(t):
    a = t.asm('a.o', VARIANT_CALL.format('') + NOTE)
    b = t.asm('b.o', '.globl f\n.variant_pcs f\nf: ret\n' + NOTE)
    t.ld('app', '-pie', a, b)
    assert t.elf('app').dyn(VARIANT_PCS) is None and st_other(t, 'app', 'f', '--syms')
    t.ld('r.o', '-r', a, b)
    assert st_other(t, 'r.o', 'f', '--syms')


def test_variant_pcs_runs(t):
    t.link('libf.so', '-shared', t.cc('f.o', """
        #include <arm_neon.h>
        __attribute__((aarch64_vector_pcs)) float32x4_t f(float32x4_t x) { return x + x; }
        """, '-fPIC'))
    m = t.cc('m.o', """
        #include <arm_neon.h>
        __attribute__((aarch64_vector_pcs)) float32x4_t f(float32x4_t x);
        int main(void) { return (int)f(vdupq_n_f32(4))[2]; }""")
    t.link('app', m, 'libf.so')
    assert t.elf('app').dyn(VARIANT_PCS) == 0
    t.run('app', status=8)


# -- what can not be linked ---------------------------------------------------------------------

@pytest.mark.parametrize('code, texts', [
    ('adr x0, v\n.space 0x200000\n.globl v\nv: nop', ['ADR_PREL_LO21', 'out of range', "'v'"]),
    ('ldr x0, v\n.space 8\n.byte 0\n.globl v\nv: .byte 1', ['LD_PREL_LO19', 'multiple of 4']),
    ('movz x0, #:abs_g0:v\n.globl v\nv = 0x10000', ['MOVW_UABS_G0', 'out of range']),
    ('movz x0, #:abs_g1:v\n.globl v\nv = 0x100000000', ['MOVW_UABS_G1', 'out of range']),
    ('.hword v\n.globl v\nv = 0x10000', ['ABS16', 'out of range']),
    ('.word v - .\n.globl v\nv = 0x7000000000', ['PREL32', 'out of range']),
    ('tbz x0, #1, far\n.space 0x10000\n.globl far\nfar: nop', ['TSTBR14', 'out of range']),
])
def test_relocations_out_of_reach(t, code, texts):
    a = t.asm('a.o', f'.globl _start\n_start: {code}\n' + NOTE)
    message = t.ld('app', a, ok=False).says('a.o', *texts)
    assert message.stderr.count('error') == 1, message


@pytest.mark.parametrize('number, texts', [
    (300, ['MOVW_GOTOFF_G0', 'large code model', 'not supported']),
    (539, ['TLSIE_MOVW_GOTTPREL_G1', 'large code model']),
    (568, ['TLSDESC_ADD', 'large code model']),
    (580, ['AUTH_ABS64', 'signed pointer']),
    (590, ['AUTH_ADR_GOT_PAGE', 'signed pointer']),
    (999, ['unknown relocation (999)']),
    (5000, ['unknown relocation (5000)']),
])
def test_relocations_that_are_not_supported(t, number, texts):
    a = asm_as(t, 'a.o', f'.globl _start\n_start: nop\n.data\n.xword _start\n' + NOTE, ABS64=number)
    message = t.ld('app', a, ok=False).says('a.o', *texts)
    assert message.stderr.count('error') == 1, message
