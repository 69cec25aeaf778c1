"""Instructions, relaxation and relocations of riscv64."""

import re
import struct

import pytest

from kldtest import KLD
from kldtest import only
from kldtest import renumber

pytestmark = only('riscv64')

NOTE = '.section .note.GNU-stack,"",%progbits\n'
EXIT = 'li a7, 93\necall\n'
MIB = 1 << 20


def disassembly(t, name, *flags):
    text = t.tool('riscv64-linux-gnu-objdump', '-d', '--no-show-raw-insn', '-M', 'no-aliases',
                  *flags, name).stdout
    return [re.sub(r'\s+', ' ', line.split(':', 1)[1].strip())
            for line in text.splitlines() if re.match(r'\s+[0-9a-f]+:', line)]


def count(code, *words):
    """How many instructions begin with one of the words."""
    return sum(c.split(' ')[0] in words for c in code)


def program(t, source, *flags, name='app'):
    t.ld(name, *flags, t.asm(f'{name}.o', '.globl _start\n' + source + NOTE))
    return disassembly(t, name)


# -- calls --------------------------------------------------------------------------------------

# Forward: the distance is taken from the first layout, in which the call has 8 bytes.
# Backward: nothing between the two gets shorter.
@pytest.mark.parametrize('gap, near', [(MIB - 2, True), (MIB, False)])
def test_call_forward_at_the_edge_of_jal(t, gap, near):
    code = program(t, f'_start: call f\n{EXIT}.space {gap} - 16\nf: li a0, 7\nret\n')
    assert (count(code, 'jal'), count(code, 'auipc')) == ((1, 0) if near else (0, 1))
    t.run('app', status=7)


@pytest.mark.parametrize('gap, near', [(MIB, True), (MIB + 2, False)])
def test_call_backward_at_the_edge_of_jal(t, gap, near):
    code = program(t, f'f: li a0, 7\nret\n.space {gap} - 4\n_start: call f\n{EXIT}')
    assert (count(code, 'jal'), count(code, 'auipc')) == ((1, 0) if near else (0, 1))
    t.run('app', status=7)


def test_alignment_pushes_a_target_out_of_reach(t):
    """f stays where it is while the call of it moves away by the bytes that the others lose."""
    calls = 5 * 'call g\n'
    t.asm('a.o', f'''.globl _start
        _start: {calls} call f
        {EXIT}
        g: ret
        .space {MIB} + 32 - 58
        .section .text.f, "ax", %progbits
        .p2align 5
        .globl f
        f: li a0, 9
        ret
        ''' + NOTE)
    t.ld('app', 'a.o', '--section-start=.text=0x20000')
    start, f = (t.elf('app').symbol(n).value for n in ('_start', 'f'))
    assert f - start == MIB + 32
    code = disassembly(t, 'app')
    assert (count(code, 'jal'), count(code, 'auipc')) == (5, 1), code[:8]
    t.run('app', status=9)


def test_tail_calls_become_c_j(t):
    code = program(t, f'_start: tail f\n.space 100\nf: li a0, 3\n{EXIT}')
    assert count(code, 'c.j') == 1 and count(code, 'auipc', 'jal') == 0
    t.run('app', status=3)


def test_tail_calls_without_compression(t):
    t.asm('a.o', f'.globl _start\n_start: tail f\n.space 100\nf: li a0, 3\n{EXIT}' + NOTE,
          '-march=rv64g')
    t.ld('app', 'a.o')
    code = disassembly(t, 'app')
    assert (count(code, 'c.j'), count(code, 'jal')) == (0, 1)
    t.run('app', status=3)


def test_no_relax(t):
    code = program(t, f'_start: call f\n{EXIT}f: li a0, 3\nret\n', '--no-relax')
    assert count(code, 'auipc') == 1 and count(code, 'jal') == 0
    t.run('app', status=3)


def test_calls_that_forbid_it(t):
    code = program(t, f'.option norelax\n_start: call f\n{EXIT}f: li a0, 3\nret\n')
    assert count(code, 'auipc') == 1 and count(code, 'jal') == 0
    t.run('app', status=3)


@pytest.mark.parametrize('branch, reach', [('j', MIB), ('.reloc ., R_RISCV_BRANCH, f\nbeq a0, a0, .\n#', 4096)])
@pytest.mark.parametrize('gap, over', [(-8, False), (-4, True)])
def test_branches_reach_exactly_so_far(t, branch, reach, gap, over):
    t.asm('a.o', f'''.option norvc
        .option norelax
        .globl _start
        _start: {branch} f
        .space {reach + gap}
        .section .text.f, "ax", %progbits
        .globl f
        f: li a0, 5
        {EXIT}
        ''' + NOTE)
    if over:
        t.ld('app', 'a.o', ok=False).says('a.o', 'out of range', "'f'")
    else:
        t.ld('app', 'a.o')
        t.run('app', status=5)


# -- data ---------------------------------------------------------------------------------------

SET_GP = '''.option push
    .option norelax
    lla gp, __global_pointer$
    .option pop
    '''


@pytest.mark.parametrize('load', ['lui a1, %hi(x)\nlw a0, %lo(x)(a1)',
                                  'lw a0, x',
                                  'lla a1, x\nlw a0, 0(a1)'])
def test_small_data_from_gp(t, load):
    code = program(t, f'''_start: {SET_GP} {load}
        addi a0, a0, 1
        {EXIT}
        .section .sdata, "aw", %progbits
        .globl x
        x: .word 41
        .size x, 4
        ''')
    assert count(code, 'auipc') == 1 and count(code, 'lui', 'c.lui') == 0, code
    assert any('(gp)' in c or c.endswith(',gp') or ',gp,' in c for c in code[2:]), code
    t.run('app', status=42)


def test_stores_from_gp(t):
    code = program(t, f'''_start: {SET_GP} li a2, 6
        lui a1, %hi(x)
        sw a2, %lo(x)(a1)
        lw a0, x
        {EXIT}
        .section .sbss, "aw", %nobits
        .globl x
        x: .space 4
        .size x, 4
        ''')
    assert count(code, 'lui', 'c.lui') == 0 and count(code, 'auipc') == 1
    t.run('app', status=6)


def test_symbol_that_is_only_partly_in_reach(t):
    """The high part stays: a low part of the same symbol may refer to its end."""
    code = program(t, f'''_start: {SET_GP} lui a1, %hi(x)
        lw a0, %lo(x)(a1)
        lw a2, %lo(x + 0x7f8)(a1)
        add a0, a0, a2
        {EXIT}
        .section .sdata, "aw", %progbits
        .p2align 12
        .space 0xc00
        .globl x
        x: .word 40
        .space 0x7f4
        .word 3
        .size x, 0x7fc
        ''')
    assert count(code, 'lui', 'c.lui') == 1, code
    t.run('app', status=43)


@pytest.mark.parametrize('flags', [('-pie', '--no-dynamic-linker'), ('-shared',)])
def test_no_gp_in_position_independent_code(t, flags):
    code = program(t, f'''_start: lw a0, x
        {EXIT}
        .section .sdata, "aw", %progbits
        x: .word 41
        ''', *flags)
    assert count(code, 'auipc') == 1, code


def test_upper_half_becomes_c_lui(t):
    code = program(t, f'_start: lui a1, %hi(x)\nlw a0, %lo(x)(a1)\n{EXIT}'
                      '.section .rodata\n.globl x\nx: .word 8\n.size x, 4\n')
    assert count(code, 'c.lui') == 1 and count(code, 'lui') == 0, code
    t.run('app', status=8)


def test_absolute_addresses_near_zero(t):
    code = program(t, f'_start: lui a0, %hi(x)\naddi a0, a0, %lo(x)\n{EXIT}', '--defsym=x=77')
    assert 'addi' in code[-3] or count(code, 'addi', 'c.li', 'lui', 'c.addi') >= 1
    t.run('app', status=77)


# -- thread-local storage -----------------------------------------------------------------------

LOCAL_EXEC = '''
    lui a1, %tprel_hi(x)
    add a1, a1, tp, %tprel_add(x)
    lw a0, %tprel_lo(x)(a1)
    '''


@pytest.mark.parametrize('gap, near', [(0, True), (2044, True), (2048, False)])
def test_local_exec(t, gap, near):
    code = program(t, f'''_start: lla tp, block
        {LOCAL_EXEC}
        {EXIT}
        .section .tdata, "awT", %progbits
        .globl block
        .space {gap}
        .globl x
        .type x, %object
        .size x, 4
        x: .word 13
        .section .rodata
        '''.replace('lla tp, block', 'lla tp, image').replace('.globl block\n', '')
        + f'.data\nimage: .space {gap}\n.word 13\n')
    assert (count(code, 'lui', 'c.lui') == 0) == near, code
    t.run('app', status=13)


DESCRIPTOR = '''
    .Lhigh: auipc a2, 0
    .reloc .Lhigh, R_RISCV_SET8, x
    {relax}
    2: ld a3, 0(a2)
    .reloc 2b, R_RISCV_SET16, .Lhigh
    {relax}
    3: addi a0, a2, 0
    .reloc 3b, R_RISCV_SET32, .Lhigh
    {relax}
    4: jalr t0, 0(a3)
    .reloc 4b, R_RISCV_SUB6, .Lhigh
    '''
DESCRIPTOR_NUMBERS = {54: 62, 55: 63, 56: 64, 52: 65}


@pytest.mark.parametrize('gap', [0, 4096])
@pytest.mark.parametrize('relax', [True, False])
@pytest.mark.parametrize('model', ['local', 'imported'])
def test_descriptors_in_programs(t, gap, relax, model):
    """GNU as 2.40 does not know their relocations: others stand for them."""
    relax = '.reloc . - 4, R_RISCV_RELAX' if relax else ''
    code = DESCRIPTOR.format(relax=relax)
    t.asm('f.o', f'.option norvc\n.option norelax\n.globl f\nf: mv a5, ra\n{code}\n'
                 f'add a0, a0, tp\nlw a0, 0(a0)\njr a5\n' + NOTE)
    for old, new in DESCRIPTOR_NUMBERS.items():
        renumber(t, 'f.o', old, new)
    t.cc('x.o', f'__thread char gap[{gap + 8}] = {{1}}; __thread int x = 23;', '-fPIC')
    t.cc('m.o', 'int f(void); extern __thread char gap[]; int main(void) { return f(); }', '-fPIC')
    if model == 'imported':
        t.link('libx.so', '-shared', 'x.o')
        t.link('app', 'm.o', 'f.o', 'libx.so')
    else:
        t.link('app', 'm.o', 'f.o', 'x.o')
    assert 'TLSDESC' not in {r.kind for r in t.elf('app').dynrelocs}
    t.run('app', status=23)


def test_descriptor_in_a_library_is_kept(t):
    t.asm('f.o', '.option norvc\n.globl f\nf: ' + DESCRIPTOR.format(relax='') + 'ret\n' + NOTE)
    for old, new in DESCRIPTOR_NUMBERS.items():
        renumber(t, 'f.o', old, new)
    t.ld('libf.so', '-shared', 'f.o')
    (reloc,) = t.elf('libf.so').dynrelocs
    assert (reloc.number, reloc.symbol) == (12, 'x'), reloc


# -- alignment ----------------------------------------------------------------------------------

@pytest.mark.parametrize('align', [4, 8, 16, 64, 4096])
@pytest.mark.parametrize('flags', [(), ('--no-relax',)])
def test_alignment_holds(t, align, flags):
    code = program(t, f'''_start: call f
        c.nop
        .balign {align}
        .globl g
        g: call f
        .balign {align}
        .globl h
        h: {EXIT}
        .globl f
        f: li a0, 4
        ret
        ''', *flags)
    elf = t.elf('app')
    assert elf.symbol('g').value % align == 0 and elf.symbol('h').value % align == 0
    code = code[:code.index('c.jr ra')] # behind it the assembler pads with zeros
    assert not any('.2byte' in c or 'unimp' in c for c in code), code
    t.run('app', status=4)


def test_symbols_move_along(t):
    """Sizes and values of what lies behind a call, of locals too."""
    program(t, f'''.type _start, %function
        _start: call f
        call f
        {EXIT}
        .size _start, . - _start
        .type local, %function
        local: ret
        .size local, . - local
        .globl f
        .type f, %function
        f: li a0, 4
        ret
        .size f, . - f
        ''')
    elf = t.elf('app')
    start, local, f = (elf.symbol(n) for n in ('_start', 'local', 'f'))
    assert start.size == 4 + 4 + 4 + 4
    assert (local.value, local.size) == (start.value + start.size, 2)
    assert (f.value, f.size) == (local.value + 2, 4)


def test_differences_in_data(t):
    program(t, f'''_start: call f
        lla a1, table
        lw a0, 0(a1)
        {EXIT}
        f: ret
        end:
        .section .rodata
        table: .word end - _start
        ''')
    t.run('app', status=t.elf('app').section('.text').size)


def test_uleb128_differences(t):
    t.asm('a.o', f'''.globl _start
        _start: call f
        lla a1, table
        lbu a0, 0(a1)
        {EXIT}
        f: ret
        end:
        .section .rodata
        table: .reloc ., R_RISCV_SET8, end
        .reloc ., R_RISCV_SET16, _start
        .byte 0x80, 0
        ''' + NOTE)
    renumber(t, 'a.o', 54, 60)
    renumber(t, 'a.o', 55, 61)
    t.ld('app', 'a.o')
    t.run('app', status=0x80 + t.elf('app').section('.text').size)


def test_emitted_relocations_are_of_what_is_there(t):
    program(t, f'_start: call f\ntail f\nf: li a0, 3\n{EXIT}', '--emit-relocs')
    text = t.tool('riscv64-linux-gnu-objdump', '-dr', 'app').stdout
    kinds = re.findall(r'R_RISCV_\w+', text)
    assert 'R_RISCV_JAL' in kinds and 'R_RISCV_RVC_JUMP' in kinds
    assert 'R_RISCV_CALL_PLT' not in kinds and 'R_RISCV_RELAX' not in kinds


# -- what objects say ---------------------------------------------------------------------------

def test_attributes_are_merged(t):
    t.asm('a.o', '.attribute arch, "rv64i2p1_m2p0_f2p2_d2p2_zbb1p0"\n.attribute stack_align, 16\n'
                 '.globl _start\n_start: nop\n' + NOTE)
    t.asm('b.o', '.attribute arch, "rv64i2p1_a2p1_f2p2_d2p2_zba1p0_xventanacondops1p0"\n'
                 '.attribute unaligned_access, 1\nnop\n' + NOTE)
    t.ld('app', 'a.o', 'b.o')
    text = t.tool('riscv64-linux-gnu-readelf', '-A', '-lW', 'app').stdout
    assert '"rv64i2p1_m2p0_a2p1_f2p2_d2p2_zicsr2p0_zmmul1p0_zba1p0_zbb1p0_xventanacondops1p0"' in text
    assert '16-bytes' in text and 'unaligned' in text.lower()
    assert 'RISCV_ATTRIBUT' in text


@pytest.mark.parametrize('other, texts', [
    ('align', ['stack alignment', '32', '16']),
    ('xlen', ['rv32', 'rv64']),
])
def test_attributes_conflict(t, other, texts):
    base = '.attribute arch, "rv64i2p1_f2p2_d2p2"\n.attribute stack_align, 16\n'
    t.asm('a.o', base + '.globl _start\n_start: nop\n' + NOTE)
    t.asm('b.o', base.replace('16', '32' if other == 'align' else '16') + 'nop\n' + NOTE)
    if other == 'xlen':
        replace(t, 'b.o', b'rv64i', b'rv32i')
    t.ld('app', 'a.o', 'b.o', ok=False).says('b.o', *texts)


def test_float_abis_do_not_mix(t):
    t.asm('a.o', '.globl _start\n_start: nop\n' + NOTE)
    t.asm('b.o', 'nop\n' + NOTE, '-mabi=lp64', '-march=rv64imac')
    t.ld('app', 'a.o', 'b.o', ok=False).says('b.o', 'soft-float', 'double-float', 'a.o')


def test_flags_of_the_output(t):
    t.asm('a.o', '.globl _start\n_start: nop\n' + NOTE, '-march=rv64g')
    t.ld('app', 'a.o')
    assert struct.unpack_from('<I', (t.path / 'app').read_bytes(), 48)[0] == 4
    t.asm('b.o', 'nop\n' + NOTE)
    t.ld('app', 'a.o', 'b.o')
    assert struct.unpack_from('<I', (t.path / 'app').read_bytes(), 48)[0] == 5


VARIANT_CC = 0x70000001                  # DT_RISCV_VARIANT_CC


@pytest.mark.parametrize('variant', [True, False])
def test_variant_calling_convention(t, variant):
    """Its functions are not bound lazily: ld.so has to know that there are some."""
    mark = '.variant_cc f\n' if variant else ''
    t.link('libf.so', '-shared', t.asm('f.o', f'.globl f\n.type f, %function\n{mark}f: li a0, 6\n'
                                              'ret\n' + NOTE))
    m = t.asm('m.o', f'.globl main\n.type main, %function\n{mark}main: tail f\n' + NOTE)
    t.link('app', m, 'libf.so', '-Wl,-z,lazy')
    text = t.tool('riscv64-linux-gnu-readelf', '-dW', '--dyn-syms', 'app').stdout
    assert ('VARIANT_CC' in text.split('Symbol table')[0] or f'{VARIANT_CC:x}' in text) == variant
    assert (re.search(r'VARIANT_CC.*\bf\b', text.split('Symbol table')[-1]) is not None) == variant
    t.run('app', status=6)


# -- what is malformed --------------------------------------------------------------------------

@pytest.mark.parametrize('code, texts', [
    ('.option norvc\n.reloc ., R_RISCV_PCREL_LO12_I, here\nhere: addi a0, a0, 0', ['PCREL_LO12_I', 'not paired']),
    ('.reloc ., R_RISCV_JUMP_SLOT, _start\nnop\nnop\nnop\nnop', ['JUMP_SLOT', 'dynamic linker']),
    ('.option norvc\n.option norelax\nbeq a0, a0, far\n.globl far\nfar = 0x40000000',
     ['R_RISCV_', 'out of range', 'far']),
    ('.option norvc\nj odd\nnop\nodd = . + 1', ['JAL', 'multiple of 2']),
    ('.reloc ., R_RISCV_ALIGN, 100\nnop', ['R_RISCV_ALIGN', 'end of the section']),
    ('.data\n.reloc ., R_RISCV_SET_ULEB128, _start\n.byte 0', ['not paired']),
])
def test_malformed_relocations(t, code, texts):
    if 'ULEB128' in code:
        source = code.replace('R_RISCV_SET_ULEB128', 'R_RISCV_SET8')
    else:
        source = code
    t.asm('a.o', f'.globl _start\n_start: {source}\n' + NOTE)
    if 'ULEB128' in code:
        renumber(t, 'a.o', 54, 60)
    t.ld('app', 'a.o', ok=False).says('a.o', *texts)


@pytest.mark.parametrize('flags', [(), ('--no-relax',)])
def test_padding_with_a_relocation_in_it(t, flags):
    t.asm('a.o', '''.option norvc
        .globl _start
        _start: .reloc ., R_RISCV_ALIGN, 12
        nop
        .reloc ., R_RISCV_SET32, _start
        nop
        nop
        ''' + NOTE)
    t.ld('app', *flags, 'a.o', ok=False).says('a.o', 'R_RISCV_ALIGN', 'part of the padding')


@pytest.mark.parametrize('place', ['- 2', '', '+ 4'])
def test_call_with_another_relocation_in_it_stays(t, place):
    """What the other one writes must have its bytes."""
    t.asm('a.o', f'''.option norvc
        .globl _start
        .globl f
        f: ret
        nop
        nop
        _start:
        .reloc . {place}, R_RISCV_SET32, f
        .reloc ., R_RISCV_CALL_PLT, f
        .reloc ., R_RISCV_RELAX
        auipc ra, 0
        jalr ra, 0(ra)
        ''' + NOTE)
    t.ld('app', 'a.o')
    text = t.elf('app').section('.text')
    assert text.size == t.elf('a.o').section('.text').size


def replace(t, name, old, new):
    data = (t.path / name).read_bytes()
    assert old in data
    (t.path / name).write_bytes(data.replace(old, new))


def test_unknown_relocation(t):
    t.asm('a.o', '.globl _start\n_start: .reloc ., R_RISCV_SET8, _start\nnop\n' + NOTE)
    renumber(t, 'a.o', 54, 191)
    t.ld('app', 'a.o', ok=False).says('a.o', '191')


def test_machines_do_not_mix(t):
    t.tool('gcc', '-c', '-o', 'x64.o', t.write('x.c', 'int x;'))
    a = t.asm('a.o', '.globl _start\n_start: ret\n' + NOTE)
    t.ld('app', a, 'x64.o', ok=False).says('x64.o', '-m elf64lriscv')
    for files in ([a, 'x64.o'], ['x64.o', a]):  # without -m the first object decides
        t.tool(KLD, '-o', 'app', *files, ok=False).says('x64.o', 'a.o', 'x86-64', 'riscv64')
