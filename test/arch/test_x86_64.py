"""x86-64 alone: relocation formulas, rewritten instructions, PLT shapes, code models.

Most cases link a few lines of assembly without a C library and look at the bytes; where a model
is at stake, programs run. Instructions are given as they were and as the psABI rewrites them.
"""

import struct

import pytest

from kldtest import KINDS
from kldtest import deviates
from kldtest import only

pytestmark = only('x86_64')

END = '\n.section .note.GNU-stack,"",@progbits\n'
STATIC = ('-static',)
PIE = ('-pie', '--no-dynamic-linker')
SHARED = ('-shared',)


def s32(data, offset=0):
    return struct.unpack_from('<i', data, offset)[0]


def assemble(t, name, source):
    return t.asm(name, source + END)


def link(t, source, *flags):
    """Links assembly without a C library and returns what came out."""
    t.ld('app', *flags, '-e', 'start', assemble(t, 'a.o', source))
    return t.elf('app')


def value(elf, name):
    symbol = elf.symbol(name)
    assert symbol, f'{name} is not in the symbol table'
    return symbol.value


def code_at(elf, name, size):
    return elf.at(value(elf, name), size)


# -- formulas -----------------------------------------------------------------------------------

DATA = r'''
    .globl start, far
    start: ret
    .data
    .globl var
    .type var, @object
    .size var, 24
    var: .quad 1, 2, 3
'''


@pytest.mark.parametrize('flags', [STATIC, PIE], ids=['static', 'pie'])
def test_distances(t, flags):
    elf = link(t, DATA + r'''
        at: .long var + 8 - .
        .quad var + 8 - .
        .word near - .
        .byte near - .
        near: .byte 0
        ''', *flags)
    at, var, near = (value(elf, n) for n in ('at', 'var', 'near'))
    assert struct.unpack('<iqhb', elf.at(at, 15)) == (
        var + 8 - at, var + 8 - at - 4, near - at - 12, near - at - 14)


def test_addresses(t):
    elf = link(t, DATA + r'''
        at: .long var + 4
        .quad var + 4
        .word small + 1
        .byte small + 2
        movq $var + 3, %rax
        ''', *STATIC, assemble(t, 'b.o', '.globl small\n.set small, 0x71'))
    var = value(elf, 'var')
    assert struct.unpack('<IQHB3si', elf.at(value(elf, 'at'), 22)) == (
        var + 4, var + 4, 0x72, 0x73, b'\x48\xc7\xc0', var + 3)


@pytest.mark.parametrize('flags', [STATIC, PIE], ids=['static', 'pie'])
def test_relative_to_the_got(t, flags):
    elf = link(t, DATA + r'''
        .globl got_at
        at: .quad var@GOTOFF + 1
        got_at: .quad var@GOT
        .quad start@PLTOFF + 2
        .long var@GOTPCREL + 0
        pc: .long 0
        lea _GLOBAL_OFFSET_TABLE_(%rip), %rax
        after: movabs $_GLOBAL_OFFSET_TABLE_ - after, %rbx
        ''', *flags)
    var, start, at, after = (value(elf, n) for n in ('var', 'start', 'at', 'after'))
    got = after + s32(elf.at(after - 4, 4))
    gotoff, slot, pltoff, gotpcrel = struct.unpack('<qqqi', elf.at(at, 28))
    assert (gotoff, pltoff) == (var + 1 - got, start + 2 - got)
    assert got + slot == at + 24 + gotpcrel
    assert elf.word(got + slot) == var
    assert struct.unpack('<q', elf.at(after + 2, 8))[0] == got - after


def test_sizes(t):
    elf = link(t, DATA + '.local_at: at: .quad var@SIZE + 1\n .long var@SIZE - 1', *STATIC)
    assert struct.unpack('<QI', elf.at(value(elf, 'at'), 12)) == (25, 23)


def test_merged_constants_keep_their_addends(t):
    """A distance to a string is given from the end of the instruction, not of the string."""
    elf = link(t, r'''
        .globl start
        start: lea .L1(%rip), %rax
        at: lea .L2(%rip), %rax
        .section .rodata.str1.1, "aMS", @progbits, 1
        .L1: .string "first"
        .L2: .string "second"
        ''', *STATIC)
    at = value(elf, 'at')
    assert elf.at(at + s32(elf.at(at - 4, 4)), 6) == b'first\0'
    assert elf.at(at + 7 + s32(elf.at(at + 3, 4)), 7) == b'second\0'


# -- ranges -------------------------------------------------------------------------------------

# 6 GiB away from everything, without filling a file
FAR = r'''
    .section .far, "aw", @nobits
    .skip 0x180000000
    far: .skip 8
'''
OVERFLOWS = {
    'R_X86_64_PC32': 'lea far(%rip), %rax',
    'R_X86_64_PLT32': 'call far',
    'R_X86_64_32': 'mov $far, %eax',
    'R_X86_64_32S': 'mov $far, %rax',
    'R_X86_64_16': '.word far',
    'R_X86_64_8': '.byte far',
    'R_X86_64_PC16': '.word far - .',
    'R_X86_64_PC8': '.byte far - .',
}


@pytest.mark.parametrize('kind', OVERFLOWS)
def test_overflow_names_the_place(t, kind):
    source = f'''
        .globl start, far
        start: nop
        {OVERFLOWS[kind]}
        {FAR}'''
    a = assemble(t, 'a.o', source)
    result = t.ld('app', *STATIC, '-e', 'start', a, ok=False)
    result.says('a.o', '.text', kind, 'out of range', 'far')


def test_limits_are_reachable(t):
    elf = link(t, r'''
        .globl start
        start: ret
        .set half, 0x7fffffff
        .globl big, low, byte
        .long big
        mov $low, %rax
        .byte byte
        ''', *STATIC, assemble(t, 'b.o', r'''
        .globl big, low, byte
        .set big, 0xffffffff
        .set low, -0x80000000
        .set byte, 0xff'''))
    at = value(elf, 'start') + 1
    assert struct.unpack('<I3siB', elf.at(at, 12)) == (
        0xffffffff, b'\x48\xc7\xc0', -0x80000000, 0xff)


# -- malformed input ----------------------------------------------------------------------------

def patched(t, offset=None, kind=None, symbol=None):
    """An object whose first relocation in .text is changed."""
    a = assemble(t, 'bad.o', '.globl start\nstart: call other\nother: ret\n.globl other')
    raw = bytearray((t.path / a).read_bytes())
    at = t.elf(a).section('.rela.text').offset
    if offset is not None:
        struct.pack_into('<Q', raw, at, offset)
    if kind is not None:
        struct.pack_into('<I', raw, at + 8, kind)
    if symbol is not None:
        struct.pack_into('<I', raw, at + 12, symbol)
    return t.write('bad.o', bytes(raw))


@pytest.mark.parametrize('change, message', [
    (dict(offset=1000), '.text'),
    (dict(offset=0xfffffffffffffffe), '.text'),
    (dict(kind=200), 'unknown relocation (200)'),
    (dict(kind=0xffffffff), 'unknown relocation (4294967295)'),
    (dict(symbol=5000), 'symbol index 5000 out of range'),
    (dict(symbol=0xffffffff), 'symbol index 4294967295 out of range'),
    (dict(kind=8), 'R_X86_64_RELATIVE'),
    (dict(kind=37), 'R_X86_64_IRELATIVE'),
    (dict(kind=5), 'R_X86_64_COPY'),
    (dict(kind=19), 'R_X86_64_TLSGD'),
], ids=str)
def test_malformed_relocation(t, change, message):
    t.ld('app', *STATIC, '-e', 'start', patched(t, **change), ok=False).says('bad.o', message)


def test_rewritable_relocation_at_the_start_of_a_section(t):
    """There is no instruction in front of it: it keeps its slot."""
    elf = link(t, r'''
        .globl start
        .section .text.x, "ax", @progbits
        start: .long 0
        .reloc start, R_X86_64_REX_GOTPCRELX, start - 4
        ''', *STATIC)
    at = value(elf, 'start')
    assert elf.word(at + 4 + s32(elf.at(at, 4))) == at


# -- what the kind of output rules out ----------------------------------------------------------

@pytest.mark.parametrize('code', ['lea foo(%rip), %rax', 'movl foo(%rip), %eax'])
def test_distance_to_a_preemptible_symbol(t, code):
    a = assemble(t, 'a.o', f'.globl foo\n{code}\n.data\nfoo: .quad 0')
    t.ld('liba.so', '-shared', a, ok=False).says('a.o', 'R_X86_64_PC32', 'foo', '-fPIC')
    for flag in '-Bsymbolic', '--version-script=v':
        t.write('v', '{ local: *; };')
        t.ld('liba.so', '-shared', flag, a)


@pytest.mark.parametrize('flags, advice', [(SHARED, '-fPIC'), (PIE, '-fPIE')], ids=['so', 'pie'])
@pytest.mark.parametrize('code', ['mov $foo, %eax', 'mov $foo, %rax', '.word foo'])
def test_narrow_address(t, code, flags, advice):
    a = assemble(t, 'a.o', f'.globl start\nstart: {code}\n.data\nfoo: .quad 0')
    t.ld('app', *flags, '-e', 'start', a, ok=False).says('a.o', 'R_X86_64_', advice)


def test_narrow_constant_in_position_independent_code(t):
    elf = link(t, '.globl start, five\nstart: mov $five, %eax', *PIE,
               assemble(t, 'b.o', '.globl five\n.set five, 5'))
    assert code_at(elf, 'start', 5) == b'\xb8\x05\0\0\0'


def test_distance_to_an_absolute_symbol(t):
    a = assemble(t, 'a.o', '.globl start\nstart: lea five(%rip), %rax')
    b = assemble(t, 'b.o', '.globl five\n.set five, 5')
    t.ld('app', *STATIC, '-e', 'start', a, b)
    t.ld('app2', *PIE, '-e', 'start', a, b, ok=False).says('a.o', 'five')


LIBRARY = r'''
    int var = 3, same;
    __attribute__((visibility("protected"))) int guarded = 4;
    int function(void) { return 5; }
    int *address(void) { return &guarded; }
'''


def test_copy_relocation(t):
    t.link('liba.so', '-shared', t.cc('l.o', LIBRARY, '-fPIC'))
    a = t.cc('a.o', 'extern int var; int main(void) { return var; }', '-fno-pie')
    t.link('app', '-no-pie', a, 'liba.so')
    assert t.elf('app').dynrelocs_of('var') == ['COPY']
    t.run('app', status=3)
    t.link('app2', '-no-pie', '-Wl,-z,nocopyreloc', a, 'liba.so', ok=False).says('a.o', 'var')


def test_pointers_in_data_need_no_copy(t):
    t.link('liba.so', '-shared', t.cc('l.o', LIBRARY, '-fPIC'))
    a = t.cc('a.o', r'''
        extern int var, function(void);
        int *p = &var, (*f)(void) = function;
        int main(void) { return *p + f(); }''', '-fno-pie')
    t.link('app', '-no-pie', a, 'liba.so')
    assert t.elf('app').dynrelocs_of('var') == ['ABS64']
    assert t.elf('app').dynrelocs_of('function') == ['ABS64']
    t.run('app', status=8)


def test_copy_of_a_protected_variable(t):
    t.link('liba.so', '-shared', t.cc('l.o', LIBRARY, '-fPIC'))
    a = t.cc('a.o', 'extern int guarded; int main(void) { return guarded; }', '-fno-pie')
    t.link('app', '-no-pie', a, 'liba.so', ok=False).says('a.o', 'guarded', 'protected')


def test_read_only_table_of_imported_functions(t):
    """A fixed-position program prefers a PLT entry with a known address to a text relocation."""
    t.link('liba.so', '-shared', t.cc('l.o', LIBRARY, '-fPIC'))
    a = t.cc('a.o', r'''
        int function(void);
        int (*const table[])(void) = { function };
        int main(void) { return table[0]() + (table[0] == function); }''', '-fno-pie')
    t.link('app', '-no-pie', a, 'liba.so')
    elf = t.elf('app')
    assert 'TEXTREL' not in elf.dyn_flags() and elf.dyn('TEXTREL') is None
    assert elf.dynsym('function').value
    t.run('app', status=6)


# -- GOT slots that are not needed --------------------------------------------------------------

# As assembled with a slot; the bytes in front of the field when the target is near, in any output
# and in one at a fixed position (None: the slot stays).
BINOPS = {'add': 0, 'or': 1, 'adc': 2, 'sbb': 3, 'and': 4, 'sub': 5, 'xor': 6, 'cmp': 7}
LOADS = [
    ('mov foo@GOTPCREL(%rip), %rax', '488d05', '488d05'),
    ('mov foo@GOTPCREL(%rip), %r15', '4c8d3d', '4c8d3d'),
    ('mov foo@GOTPCREL(%rip), %eax', '8d05', '8d05'),
    ('mov foo@GOTPCREL(%rip), %r9d', '448d0d', '448d0d'),
    ('call *foo@GOTPCREL(%rip)', '67e8', '67e8'),
    ('test %rax, foo@GOTPCREL(%rip)', None, '48f7c0'),
    ('test %r10, foo@GOTPCREL(%rip)', None, '49f7c2'),
    ('test %ecx, foo@GOTPCREL(%rip)', None, 'f7c1'),
    *[(f'{op} foo@GOTPCREL(%rip), %rdx', None, f'4881{0xc2 + 8 * n:x}') for op, n in BINOPS.items()],
    *[(f'{op} foo@GOTPCREL(%rip), %r14', None, f'4981{0xc6 + 8 * n:x}') for op, n in BINOPS.items()],
    *[(f'{op} foo@GOTPCREL(%rip), %ebx', None, f'81{0xc3 + 8 * n:x}') for op, n in BINOPS.items()],
]


@pytest.mark.parametrize('code, anywhere, fixed', LOADS, ids=[row[0] for row in LOADS])
def test_load_from_the_got(t, code, anywhere, fixed):
    source = f'''
        .globl start, foo
        start: {code}
        after: ret
        .data
        foo: .quad 0
        '''
    for flags, want in (STATIC, fixed), (PIE, anywhere):
        elf = link(t, source, *flags)
        start, after, foo = (value(elf, n) for n in ('start', 'after', 'foo'))
        data = elf.at(start, after - start)
        if want is None:
            assert elf.word(after + s32(data, len(data) - 4)) == foo
            continue
        assert data[:-4].hex() == want
        immediate = want in (fixed,) and anywhere is None
        assert s32(data, len(data) - 4) == (foo if immediate else foo - after)
        assert not elf.section('.got')


@pytest.mark.parametrize('flags', [STATIC, PIE], ids=['static', 'pie'])
def test_jump_through_the_got(t, flags):
    elf = link(t, '.globl start, foo\nstart: jmp *foo@GOTPCREL(%rip)\nafter: nop\nfoo: ret', *flags)
    data = code_at(elf, 'start', 6)
    assert (data[0], data[5]) == (0xe9, 0x90)
    assert s32(data, 1) == value(elf, 'foo') - value(elf, 'after') + 1


def test_without_relaxation(t):
    elf = link(t, '.globl start\nstart: mov start@GOTPCREL(%rip), %rax\nafter: ret', *STATIC,
               '--no-relax')
    after = value(elf, 'after')
    assert elf.at(after - 7, 3).hex() == '488b05'
    assert elf.word(after + s32(elf.at(after - 4, 4))) == value(elf, 'start')


def test_plain_gotpcrel_keeps_its_slot(t):
    """Only the X types promise an instruction that may be rewritten."""
    elf = link(t, r'''
        .globl start
        start: .byte 0x48, 0x8b, 0x05
        .reloc ., R_X86_64_GOTPCREL, start - 4
        .long 0
        after: ret
        ''', *STATIC)
    after = value(elf, 'after')
    assert elf.word(after + s32(elf.at(after - 4, 4))) == value(elf, 'start')


@pytest.mark.parametrize('flags', [STATIC, PIE], ids=['static', 'pie'])
def test_undefined_weak_through_the_got(t, flags):
    elf = link(t, '.weak foo\n.globl start\nstart: mov foo@GOTPCREL(%rip), %rax\nafter: ret', *flags)
    data = code_at(elf, 'start', 7)
    if data[:3].hex() == '48c7c0':
        assert s32(data, 3) == 0
    else:
        assert elf.word(value(elf, 'after') + s32(data, 3)) == 0


def test_undefined_through_the_got(t):
    """For those who link nevertheless: as if it were weak."""
    elf = link(t, r'''
        .globl start
        start: mov foo@GOTPCREL(%rip), %rax
        call *foo@GOTPCREL(%rip)
        lea foo(%rip), %rax
        mov x@gottpoff(%rip), %rax
        .byte 0x66
        lea x@tlsgd(%rip), %rdi
        .value 0x6666
        rex64
        call __tls_get_addr@PLT
        .section .tdata, "awT", @progbits
        .quad 1
        ''', *STATIC, '--unresolved-symbols=ignore-all')
    assert code_at(elf, 'start', 7).hex() in ('48c7c000000000',) or elf.section('.got')


@pytest.mark.parametrize('code', ['.long local@GOTPCREL', '.quad local@GOT'])
def test_slot_of_a_discarded_symbol(t, code):
    group = r'''
        .section .text.f, "axG", @progbits, f, comdat
        .weak f
        f: ret
        local: ret
        '''
    a = assemble(t, 'a.o', group + '.text\n.globl start\nstart: ret')
    b = assemble(t, 'b.o', group + f'''
        .section .gcc_except_table, "a"
        .quad local
        {code}
        ''')
    t.ld('app', *STATIC, '-e', 'start', a, b, ok=False).says('b.o', 'local', 'discarded')


def test_constant_through_the_got(t):
    source = '.globl start\nstart: mov foo@GOTPCREL(%rip), %rax\nafter: ret'
    for number in 5, 0x7fffffff, 0x80000000, 0x123456789a:
        b = assemble(t, 'b.o', f'.globl foo\n.set foo, {number}')
        for flags in STATIC, PIE:
            elf = link(t, source, *flags, b)
            data = code_at(elf, 'start', 7)
            if data[:3].hex() == '48c7c0':
                assert s32(data, 3) == number
            else:
                assert data[:3].hex() == '488b05'
                assert elf.word(value(elf, 'after') + s32(data, 3)) == number


def test_preemptible_symbol_keeps_its_slot(t):
    elf = link(t, '.globl start, foo\nstart: mov foo@GOTPCREL(%rip), %rax\nret\n.data\nfoo: .quad 1',
               *SHARED)
    assert code_at(elf, 'start', 3).hex() == '488b05'
    assert elf.dynrelocs_of('foo') == ['GLOB_DAT']


@deviates(bfd='overflows', lld='overflows')
def test_too_far_for_a_rewritten_load(t):
    """The distance only shows at layout; then all loads keep their slots."""
    source = r'''
        .globl start, far
        start: mov far@GOTPCREL(%rip), %rax
        after: ret
        ''' + FAR
    elf = link(t, source, *STATIC)
    after = value(elf, 'after')
    assert elf.at(after - 7, 3).hex() == '488b05'
    assert elf.word(after + s32(elf.at(after - 4, 4))) == value(elf, 'far')


# -- thread-local storage -----------------------------------------------------------------------

TLS = r'''
    .globl x
    .section .tdata, "awT", @progbits
    .align 16
    pad: .quad 0
    .type x, @object
    x: .long 77
    .align 16
    .text
    .globl start, __tls_get_addr
    .weak __tls_get_addr
'''
X = 8 - 16   # offset of x from the thread pointer
GD = '.byte 0x66\nlea x@tlsgd(%rip), %rdi\n'
LD = 'lea x@tlsld(%rip), %rdi\n'
LARGE = 'movabs $__tls_get_addr@pltoff, %rax\nadd %rbx, %rax\ncall *%rax'
SEQUENCES = {
    'gd': (GD + '.value 0x6666\nrex64\ncall __tls_get_addr@PLT',
           '64488b042500000000 488d80', ''),
    'gd-no-plt': (GD + '.byte 0x66\nrex64\ncall *__tls_get_addr@GOTPCREL(%rip)',
                  '64488b042500000000 488d80', ''),
    'gd-large': ('lea x@tlsgd(%rip), %rdi\n' + LARGE,
                 '64488b042500000000 488d80', '660f1f440000'),
    'gd-large-r15': ('lea x@tlsgd(%rip), %rdi\n' + LARGE.replace('rbx', 'r15'),
                     '64488b042500000000 488d80', '660f1f440000'),
    'ie-mov': ('mov x@gottpoff(%rip), %rax', '48c7c0', ''),
    'ie-mov-r12': ('mov x@gottpoff(%rip), %r12', '49c7c4', ''),
    'ie-add': ('add x@gottpoff(%rip), %rax', '488d80', ''),
    'ie-add-r13': ('add x@gottpoff(%rip), %r13', '4d8dad', ''),
    'ie-add-r12': ('add x@gottpoff(%rip), %r12', '4981c4', ''),
    'ie-add-rsp': ('add x@gottpoff(%rip), %rsp', '4881c4', ''),
    'desc': ('lea x@tlsdesc(%rip), %rax\ncall *x@tlscall(%rax)', '48c7c0', '6690'),
}


@pytest.mark.parametrize('flags', [STATIC, PIE], ids=['static', 'pie'])
@pytest.mark.parametrize('name', SEQUENCES)
def test_local_exec(t, name, flags):
    code, before, behind = SEQUENCES[name]
    elf = link(t, TLS + f'start: {code}\nafter: ret', *flags)
    start, after = value(elf, 'start'), value(elf, 'after')
    assert elf.at(start, after - start).hex() == (
        before.replace(' ', '') + struct.pack('<i', X).hex() + behind)


@pytest.mark.parametrize('code, want', [
    ('call __tls_get_addr@PLT', '66666664488b042500000000'),
    ('call *__tls_get_addr@GOTPCREL(%rip)', '6666666664488b042500000000'),
    (LARGE, '66666664488b042500000000 662e0f1f840000000000'),
], ids=['plt', 'no-plt', 'large'])
def test_local_dynamic_to_local_exec(t, code, want):
    elf = link(t, TLS + f'start: {LD}{code}\nlea x@dtpoff(%rax), %rcx\nafter: ret', *PIE)
    start, after = value(elf, 'start'), value(elf, 'after')
    assert elf.at(start, after - start).hex() == (
        want.replace(' ', '') + '488d88' + struct.pack('<i', X).hex())


@pytest.mark.parametrize('name, before, behind', [
    ('gd', '64488b042500000000 480305', ''),
    ('gd-no-plt', '64488b042500000000 480305', ''),
    ('gd-large', '64488b042500000000 480305', '660f1f440000'),
    ('ie-mov-r12', '4c8b25', ''),
    ('ie-add', '480305', ''),
    ('desc', '488b05', '6690'),
])
def test_initial_exec(t, name, before, behind):
    """The variable is in a library: its offset comes from the GOT."""
    t.ld('libx.so', '-shared', assemble(t, 'x.o', TLS))
    code = SEQUENCES[name][0]
    a = assemble(t, 'a.o', f'.globl start\nstart: {code}\nafter: ret\n.weak __tls_get_addr')
    t.ld('app', '-pie', '-e', 'start', a, 'libx.so')
    elf = t.elf('app')
    start, after = value(elf, 'start'), value(elf, 'after')
    data = elf.at(start, after - start)
    before = bytes.fromhex(before)
    assert data.startswith(before) and data.endswith(bytes.fromhex(behind))
    slot = start + len(before) + 4 + s32(data, len(before))
    assert [(r.kind, r.symbol, r.offset) for r in elf.dynrelocs if r.symbol == 'x'] == [
        ('TPOFF', 'x', slot)]


@pytest.mark.parametrize('code', [
    'lea x@tlsgd(%rip), %rsi\ncall __tls_get_addr@PLT',
    'nop; nop; nop; lea x@tlsld(%rip), %rdi\nnop\ncall __tls_get_addr@PLT',
    '.byte 0x66\nlea x@tlsgd(%rip), %rdi\nret',
])
def test_unknown_sequence(t, code):
    """Not what the psABI defines: cannot be adapted to an executable."""
    a = assemble(t, 'a.o', TLS + f'start: {code}')
    t.ld('app', *STATIC, '-e', 'start', a, ok=False).says('a.o', 'R_X86_64_TLS')


def test_initial_exec_in_another_instruction(t):
    """cmp: nothing to rewrite it to, so it keeps its slot."""
    elf = link(t, TLS + 'start: cmp x@gottpoff(%rip), %rax\nafter: ret', *STATIC)
    after = value(elf, 'after')
    assert elf.at(after - 7, 3).hex() == '483b05'
    assert struct.pack('<Q', elf.word(after + s32(elf.at(after - 4, 4)))) == struct.pack('<q', X)


# As other relocations, of instructions with the prefixes of APX; this assembler has none of them.
APX = {
    'R_X86_64_CODE_4_GOTPCRELX': (43, 'd5488b05', 'd5488b05', 'foo'),
    'R_X86_64_CODE_4_GOTTPOFF': (44, 'd5488b05', 'd5488b05', 'tpoff'),
    'R_X86_64_CODE_4_GOTPC32_TLSDESC': (45, 'd5488d05', 'd5488b05', 'tpoff'),
    'R_X86_64_CODE_6_GOTTPOFF': (50, '6274fc100105', '6274fc100105', 'tpoff'),
}


@deviates(bfd='too old', lld='too old')
@pytest.mark.parametrize('name', APX)
def test_extended_registers(t, name):
    number, before, after, what = APX[name]
    a = assemble(t, 'a.o', TLS.replace('.type x', '.globl foo\n.type x') + f'''
        start: .byte {', '.join(f'0x{b:x}' for b in bytes.fromhex(before))}
        .reloc ., R_X86_64_{'GOTPCREL' if what == 'foo' else 'GOTTPOFF'}, {'foo' if what == 'foo' else 'x'} - 4
        .long 0
        end: ret
        foo: ret
        ''')
    raw = bytearray((t.path / a).read_bytes())
    struct.pack_into('<I', raw, t.elf(a).section('.rela.text').offset + 8, number)
    t.ld('app', *STATIC, '-e', 'start', t.write('b.o', bytes(raw)))
    elf = t.elf('app')
    start, end = value(elf, 'start'), value(elf, 'end')
    assert elf.at(start, end - start - 4).hex() == after
    slot = elf.word(end + s32(elf.at(end - 4, 4)))
    assert slot == (value(elf, 'foo') if what == 'foo' else X + (1 << 64))


def test_offsets_as_data(t):
    """In data a DTPOFF means the module's block, whatever became of the code."""
    elf = link(t, TLS + 'start: ret\n.data\nat: .quad x@tpoff\n.long x@tpoff + 1\n.quad x@dtpoff',
               *STATIC)
    assert struct.unpack('<qiq', elf.at(value(elf, 'at'), 20)) == (X, X + 1, 8)


def test_offset_as_data_in_a_shared_object(t):
    elf = link(t, TLS + 'start: ret\n.data\nat: .quad x@tpoff\n.quad y@tpoff\n'
               '.section .tdata\ny: .long 4', *SHARED)
    at = value(elf, 'at')
    assert [(r.kind, r.symbol, r.offset) for r in elf.dynrelocs if r.kind == 'TPOFF'
            and r.symbol] == [('TPOFF', 'x', at)]
    assert [(r.offset, r.addend) for r in elf.dynrelocs if r.kind == 'TPOFF'
            and not r.symbol] == [(at + 8, 16)]
    assert 'STATIC_TLS' in elf.dyn_flags()


@deviates(lld='does not look')
@pytest.mark.parametrize('code', ['mov x(%rip), %eax', 'mov x@GOTPCREL(%rip), %rax'])
def test_ordinary_access_to_a_thread_local(t, code):
    a = assemble(t, 'a.o', f'.globl start\nstart: {code}')
    x = assemble(t, 'x.o', TLS)
    t.ld('app', *STATIC, '-e', 'start', a, x, ok=False).says('a.o', 'x.o', 'TLS')


@deviates(lld='does not look')
def test_thread_local_access_to_an_ordinary_variable(t):
    a = assemble(t, 'a.o', '.globl start\nstart: mov x@gottpoff(%rip), %rax')
    x = assemble(t, 'x.o', '.globl x\n.data\n.type x, @object\nx: .quad 0')
    t.ld('app', *STATIC, '-e', 'start', a, x, ok=False).says('a.o', 'x.o', 'TLS')


# -- PLT ----------------------------------------------------------------------------------------

CALLER = r'''
    #include <stdio.h>
    #include <stdlib.h>
    int function(void), other(void);
    int (*pointer)(void) = other;
    int main(void) { return function() + other() + pointer(); }
'''
CALLEE = 'int function(void) { return 5; } int other(void) { return 7; }'


def jump_slot(elf, name):
    return next(r.offset for r in elf.dynrelocs if r.symbol == name and r.kind == 'JUMP_SLOT')


def test_lazy_entries(t, compiler):
    t.link('liba.so', '-shared', t.cc('l.o', CALLEE, '-fPIC'))
    t.link('app', '-Wl,-z,lazy', t.cc('a.o', CALLER), 'liba.so')
    elf = t.elf('app')
    plt, got = elf.section('.plt'), elf.section('.got.plt')
    assert (plt.data[:2].hex(), plt.data[6:8].hex()) == ('ff35', 'ff25')
    assert plt.addr + 6 + s32(plt.data, 2) == got.addr + 8
    assert plt.addr + 12 + s32(plt.data, 8) == got.addr + 16
    slots = [r for r in elf.relocs_in('.rela.plt')]
    assert len(slots) * 16 + 16 == plt.size
    for i, r in enumerate(slots):
        at = plt.addr + 16 * (i + 1)
        data = elf.at(at, 16)
        assert (data[:2].hex(), data[6], data[11]) == ('ff25', 0x68, 0xe9)
        assert at + 6 + s32(data, 2) == r.offset
        assert elf.word(r.offset) == at + 6
        assert s32(data, 7) == i
        assert at + 16 + s32(data, 12) == plt.addr
    t.run('app', status=19)


@deviates(lld='orders the halves differently')
@pytest.mark.parametrize('mode', ['lazy', 'now'])
def test_entries_for_indirect_branch_tracking(t, mode):
    t.link('liba.so', '-shared', t.cc('l.o', CALLEE, '-fPIC'))
    t.link('app', '-Wl,-z,ibtplt', f'-Wl,-z,{mode}', t.cc('a.o', CALLER), 'liba.so')
    elf = t.elf('app')
    plt, sec = elf.section('.plt'), elf.section('.plt.sec')
    for i, r in enumerate(elf.relocs_in('.rela.plt')):
        at, back = sec.addr + 16 * i, plt.addr + 16 * (i + 1)
        jump, push = elf.at(at, 16), elf.at(back, 16)
        assert jump[:6].hex() == 'f30f1efaff25' and push[:5].hex() == 'f30f1efa68'
        assert at + 10 + s32(jump, 6) == r.offset
        assert elf.word(r.offset) == back
        assert s32(push, 5) == i
        assert back + 14 + s32(push, 10) == plt.addr
    t.run('app', status=19)


def test_entry_through_a_got_slot(t):
    """Called, and its address taken through the GOT: one slot serves both."""
    t.link('liba.so', '-shared', t.cc('l.o', CALLEE, '-fPIC'))
    a = t.cc('a.o', r'''
        int function(void);
        int (*take(void))(void) { return function; }
        int main(void) { return function() + take()(); }''', '-fPIC', '-O2')
    t.link('app', '-pie', a, 'liba.so')
    elf = t.elf('app')
    assert elf.dynrelocs_of('function') == ['GLOB_DAT']
    got = elf.section('.plt.got')
    assert got and got.data[:2].hex() == 'ff25'
    t.run('app', status=10)


def test_address_of_an_imported_function_in_a_pie(t):
    """lea function(%rip): the program's PLT entry becomes the function's address everywhere."""
    t.link('liba.so', '-shared', t.cc('l.o', CALLEE + r'''
        int (*theirs(void))(void) { return function; }''', '-fPIC'))
    a = t.asm('a.o', '.globl mine\nmine: lea function(%rip), %rax\nret' + END)
    m = t.cc('m.o', r'''
        int (*mine(void))(void), (*theirs(void))(void);
        int main(void) { return mine() == theirs() ? mine()() : 1; }''')
    t.link('app', '-pie', a, m, 'liba.so')
    t.run('app', status=5)


@pytest.mark.parametrize('option', ['-z pac-plt', '-z force-bti', '--execute-only',
                                    '--fix-cortex-a53-835769', '--fix-cortex-a53-843419'])
@deviates(strict=False, bfd='ignores some', lld='says it differently')
def test_options_of_other_cpus(t, option):
    a = assemble(t, 'a.o', '.globl start\nstart: ret')
    t.ld('app', '-e', 'start', *option.split(), a, ok=False).says(option, 'not supported')


# -- code models --------------------------------------------------------------------------------

MODEL = r'''
    #include <stdio.h>
    extern int imported, function(int);
    int data[40000] = { 1, 2, 3 }, zero[40000];
    static const char *const names[] = { "zero", "one" };
    static int local = 4;
    static __thread int thread = 5;
    __attribute__((noinline)) static int call(int (*f)(int), int n) { return f(n); }
    __attribute__((noinline)) static int twice(int n) { return 2 * n + local; }
    int (*volatile pointer)(int) = twice;
    int main(int argc, char **argv)
    {
        (void)argv;
        zero[39999] = argc;
        printf("%d %d %d %d %s %d %d\n", data[2], zero[39999], call(function, 10),
               call(pointer, imported), names[argc], thread, printf == puts ? 1 : 0);
        return 0;
    }
'''
MODEL_LIBRARY = 'int imported = 20; int function(int n) { return n + 1; }'


@pytest.mark.parametrize('model', ['small', 'medium', 'large'])
def test_code_model(t, compiler, kind, opt, model):
    if compiler == 'clang' and model == 'large' and kind.pie and opt == '-O0':
        pass
    flags = (opt, f'-mcmodel={model}', *kind.cflags)
    a, b = t.cc('a.o', MODEL, *flags), t.cc('b.o', MODEL_LIBRARY, *flags)
    t.link('app', *kind.ldflags, a, b)
    t.run('app', expect='3 1 11 44 one 5 0\n')


@pytest.mark.parametrize('model', ['small', 'medium', 'large'])
def test_code_model_with_a_library(t, compiler, opt, model):
    flags = (opt, f'-mcmodel={model}')
    t.link('libb.so', '-shared', t.cc('b.o', MODEL_LIBRARY, *flags, '-fPIC'))
    for kind in KINDS['pie'], KINDS['no-pie']:
        t.link('app', *kind.ldflags, t.cc('a.o', MODEL, *flags, *kind.cflags), 'libb.so')
        t.run('app', expect='3 1 11 44 one 5 0\n')
    a = t.cc('a.o', MODEL.replace('main', 'go'), *flags, '-fPIC')
    t.link('liba.so', '-shared', a, 'libb.so')
    m = t.cc('m.o', 'int go(int, char **); int main(int n, char **v) { return go(n, v); }')
    t.link('app', m, 'liba.so', 'libb.so')
    t.run('app', expect='3 1 11 44 one 5 0\n')


def test_kernel_code_model(t):
    """Negative addresses: sign-extended fields reach them."""
    elf = link(t, r'''
        .globl start, var
        start: mov $var, %rax
        mov var, %eax
        mov var@GOTPCREL(%rip), %rax
        call start
        .data
        var: .quad start
        ''', *STATIC, '-Ttext=0xffffffff81000000', '-Tdata=0xffffffff81200000')
    start, var = value(elf, 'start'), value(elf, 'var')
    assert start == 0xffffffff81000000
    assert s32(elf.at(start + 3, 4)) == var - (1 << 64)
    assert elf.word(var) == start


# -- debug information --------------------------------------------------------------------------

DEBUG = r'''
    .globl start
    start: ret
    .section .text.dead, "ax", @progbits
    dead: ret
    .section {name}, "", @progbits
    .quad start
    .quad dead
    .quad dead + 8
    .long dead
    .quad start + 1
'''


@pytest.mark.parametrize('name, stone', [
    ('.debug_info', 0), ('.debug_line', 0), ('.debug_rnglists', 0),
    ('.debug_ranges', 1), ('.debug_loc', 1),
])
def test_debug_information_of_removed_code(t, name, stone):
    elf = link(t, DEBUG.format(name=name), *STATIC, '--gc-sections')
    start = value(elf, 'start')
    assert struct.unpack('<QQQIQ', elf.section(name).data) == (start, stone, stone, stone, start + 1)


def test_thread_local_in_debug_information(t):
    elf = link(t, TLS + 'start: ret\n.section .debug_info, "", @progbits\n'
               '.quad x@dtpoff\n.long x@dtpoff', *STATIC)
    assert struct.unpack('<Qi', elf.section('.debug_info').data) == (8, 8)


def test_unwind_table_with_a_got_reference(t):
    """Allowed, if unusual: the personality routine through a slot of its own."""
    elf = link(t, r'''
        .globl start
        start: .cfi_startproc
        ret
        .cfi_endproc
        local: ret
        .section .eh_frame, "a", @unwind
        .long 2f - 1f
        1: .long 0
        .byte 1
        .string "zPR"
        .uleb128 1
        .sleb128 -8
        .byte 16
        .uleb128 6
        .byte 0x9b
        .long local@GOTPCREL
        .byte 0x1b
        .balign 8
        2:
        .long 4f - 3f
        3: .long 3b - 1b + 4
        .long start - .
        .long 1
        .uleb128 0
        .balign 8
        4:
        ''', *STATIC)
    assert elf.section('.got') and elf.word(elf.section('.got').addr) == value(elf, 'local')
