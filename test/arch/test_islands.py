"""Branches of aarch64 that reach further than their 128 MiB: through islands between the code.

The space between caller and callee is zero-filled (NOBITS) input in .text, so that the objects are
small and the outputs have holes.
"""

import re
import struct

import pytest

from kldtest import only

pytestmark = only('aarch64')

MIB = 1 << 20
REACH = 128 * MIB
NOTE = '.section .note.GNU-stack,"",%progbits\n'
EXIT = 'mov w8, #93\nsvc #0\n'
BTI_NOTE = """
.section .note.gnu.property, "a"
.balign 8
.word 4, 16, 5
.asciz "GNU"
.word 0xc0000000, 4, 1, 0
"""


def text(name, code):
    return f'.section .text.{name}, "ax", %progbits\n.p2align 2\n{code}\n'


def pad(name, size):
    return f'.section .text.{name}, "ax", %nobits\n{name}: .space {size}\n'


def function(name, code):
    return text(name, f'.globl {name}\n.type {name}, %function\n{name}:\n{code}')


def words(elf, at, n):
    return struct.unpack(f'<{n}I', elf.at(at, 4 * n))


def signed(value, bits):
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def branch_target(elf, at):
    """Where the b or bl at that address goes."""
    word, = words(elf, at, 1)
    assert word & 0x7c000000 == 0x14000000, f'{word:x} at {at:x} is no branch'
    return at + 4 * signed(word & 0x3ffffff, 26)


def entry_target(elf, at):
    """Where adrp x16; add x16, x16, #; br x16 goes."""
    adrp, add, br = words(elf, at, 3)
    assert adrp & 0x9f00001f == 0x90000010, f'{adrp:x} at {at:x} is no adrp x16'
    assert add & 0xffc003ff == 0x91000210 and br == 0xd61f0200, f'{add:x} {br:x} at {at:x}'
    pages = signed((adrp >> 5 & 0x7ffff) << 2 | adrp >> 29 & 3, 21)
    return (at & ~0xfff) + pages * 4096 + (add >> 10 & 0xfff)


def value(elf, name):
    return elf.symbol(name).value


def islands(t, name):
    """Symbols of island entries, by address."""
    rows = re.findall(r'^([0-9a-f]+) t (\S+_veneer)$', t.nm(name, '-n'), re.M)
    return [(int(at, 16), symbol) for at, symbol in rows]


# -- reach ------------------------------------------------------------------------------------------

CALL = function('_start', 'bl there\n' + EXIT)
THERE = function('there', 'mov w0, #7\nret')
CALL_SIZE, THERE_SIZE = 12, 8


@pytest.mark.parametrize('branch', ['bl', 'b'])
@pytest.mark.parametrize('distance', [REACH - 4, REACH, -REACH, -REACH - 4])
def test_reach_to_the_byte(t, branch, distance):
    call = CALL.replace('bl there', f'{branch} there')
    there = THERE if branch == 'bl' else THERE.replace('ret', EXIT)
    size = 8 if branch == 'bl' else 12
    if distance > 0:
        source = call + pad('gap', distance - CALL_SIZE) + there
    else:
        source = there + pad('gap', -distance - size) + call
    t.ld('app', t.asm('a.o', source + NOTE))
    elf = t.elf('app')
    at = branch_target(elf, value(elf, '_start'))
    if -REACH <= distance < REACH:
        assert at == value(elf, 'there') == value(elf, '_start') + distance
        assert not islands(t, 'app')
    else:
        assert entry_target(elf, at) == value(elf, 'there')
        assert islands(t, 'app') == [(at, '__there_veneer')]
    t.run('app', status=7)


def far_functions(sizes):
    """Functions f0, f1, ... with gaps of those sizes between; each calls all others, once, and
    returns the sum of 1 << number of all that were called."""
    source = '.bss\n.balign 4\ncalled: .space 4\n'
    for i in range(len(sizes) + 1):
        code = f"""stp x29, x30, [sp, #-16]!
            adrp x1, called
            ldr w0, [x1, :lo12:called]
            tbnz w0, #{i}, 1f
            orr w0, w0, #{1 << i}
            str w0, [x1, :lo12:called]
            """
        if i < len(sizes):
            code = f'.reloc ., R_AARCH64_NONE, gap{i}\n' + code
        code += ''.join(f'bl f{k}\n' for k in range(len(sizes) + 1) if k != i)
        source += function(f'f{i}', code + '1: ldp x29, x30, [sp], #16\nret')
        if i < len(sizes):
            source += pad(f'gap{i}', sizes[i])
    return source


START = function('_start', 'bl f2\nadrp x1, called\nldr w0, [x1, :lo12:called]\n' + EXIT)


@pytest.mark.parametrize('flags', [[], ['-pie', '--no-dynamic-linker'], ['--gc-sections'],
                                   ['--icf=all'], ['--emit-relocs'],
                                   ['--no-fix-cortex-a53-843419']], ids=str)
def test_all_call_all(t, flags):
    t.asm('a.o', far_functions([50 * MIB, 70 * MIB, 90 * MIB, 40 * MIB]) + START + NOTE)
    t.ld('app', *flags, 'a.o', '--fatal-warnings')
    assert len(islands(t, 'app')) >= 4
    t.run('app', status=31)


def test_one_entry_for_all_callers(t):
    callers = ''.join(function(f'c{i}', 'b there') for i in range(5))
    t.ld('app', t.asm('a.o', callers + CALL + pad('gap', REACH) + THERE + NOTE))
    elf = t.elf('app')
    at, = {branch_target(elf, value(elf, name)) for name in ['_start', 'c0', 'c1', 'c4']}
    assert entry_target(elf, at) == value(elf, 'there')
    t.run('app', status=7)


def test_addends_have_entries_of_their_own(t):
    there = function('there', 'mov w0, #1\nmov w0, #9\nret')
    source = function('_start', 'bl there + 4\nmov w9, w0\nbl there\n'
                      'mov w0, w9\n' + EXIT) + pad('gap', REACH) + there
    t.ld('app', t.asm('a.o', source + NOTE))
    t.run('app', status=9)
    assert len(islands(t, 'app')) == 2


def test_local_targets(t):
    """Of a file's own names: by section symbol and addend, or by a local symbol; names of two files
    that are equal are not the same target."""
    for n in 1, 2:
        source = (function(f'f{n}', 'b here') + pad('gap', REACH // 2 + 4096) +
                  text('x', f'here: mov w{n}, #{n}\nret'))
        t.asm(f'{n}.o', source + NOTE)
    t.asm('s.o', function('_start', 'bl f1\nbl f2\nadd w0, w1, w2\n' + EXIT) + NOTE)
    t.asm('gap.o', pad('gap', REACH // 2) + NOTE)
    t.ld('app', 's.o', '1.o', 'gap.o', '2.o')
    t.run('app', status=3)


def test_symbols_of_the_linker(t):
    """Whose addresses are known when those of all sections are."""
    source = (function('_start', 'bl __start_last\nbl alias\n' + EXIT) + pad('gap', REACH) +
              function('there', 'add w0, w0, #2\nret') +
              '.section last, "ax"\nmov w0, #5\nret\n')
    t.ld('app', '--defsym=alias=there', t.asm('a.o', source + NOTE))
    t.run('app', status=7)


def test_weak_call_goes_on(t):
    source = '.weak nowhere\n' + function('_start', 'mov w0, #3\nbl nowhere\n' + EXIT)
    t.ld('app', t.asm('a.o', pad('gap', REACH) + source + NOTE))
    assert not islands(t, 'app')
    t.run('app', status=3)


@pytest.mark.parametrize('branch', ['cbz w0, there', 'tbz w0, #0, there'])
def test_conditional_branches_have_no_islands(t, branch):
    source = function('_start', branch) + pad('gap', REACH) + THERE
    t.ld('app', t.asm('a.o', source + NOTE), ok=False).says('out of range', 'there')


# -- outputs ----------------------------------------------------------------------------------------

def test_plt_out_of_reach(t):
    t.link('libf.so', '-shared', t.cc('f.o', 'int f(void) { return 4; }', '-fPIC'))
    t.asm('a.o', pad('gap', REACH) + function('g', 'b f') + NOTE)
    t.cc('m.o', 'int g(void); int main(void) { return g() + 1; }')
    t.link('app', 'm.o', 'a.o', 'libf.so')
    elf = t.elf('app')
    entry = entry_target(elf, branch_target(elf, value(elf, 'g')))
    plt = elf.section('.plt')
    assert plt.addr < entry < plt.addr + plt.size
    t.run('app', status=5)


def test_ifunc_out_of_reach(t):
    t.cc('m.o', """static int five(void) { return 5; }
         static void *pick(void) { return five; }
         int f(void) __attribute__((ifunc("pick")));
         int g(void); int main(void) { return g(); }""")
    t.asm('a.o', pad('gap', REACH) + function('g', 'b f') + NOTE)
    t.link('app', '-static', 'm.o', 'a.o')
    t.run('app', status=5)


def test_shared_library(t):
    """A far function of its own: hidden ones directly, others through the PLT."""
    t.asm('a.o', function('f', 'stp x29, x30, [sp, #-16]!\nbl inner\nbl outer\n'
                          'ldp x29, x30, [sp], #16\nret') +
          pad('gap', REACH) + '.hidden inner\n' + function('inner', 'mov w0, #2\nret') +
          function('outer', 'add w0, w0, #40\nret') + function('back', 'b outer') + NOTE)
    t.link('libf.so', '-shared', 'a.o')
    t.link('app', t.cc('m.o', 'int f(void), back(int);'
                       'int main(void) { return f() + back(2); }'), 'libf.so')
    t.run('app', status=84)


def test_same_bytes_with_any_number_of_threads(t):
    for i in range(6):
        t.asm(f'{i}.o', far_functions([1 * MIB, 1 * MIB]).replace('f0', f'{"fgh"[i % 3]}{i}') +
              pad('gap', 60 * MIB) + NOTE if i == 0 else
              ''.join(function(f'x{i}_{k}', f'bl f1\nbl f2\nbl x{(i + k) % 5 + 1}_{k}')
                      for k in range(9)) + pad('gap', 70 * MIB) + NOTE)
    t.asm('s.o', function('_start', 'bl f1\n') + NOTE)
    names = ['s.o', *(f'{i}.o' for i in range(6))]
    out = []
    for n in 1, 2, 7:
        t.ld('app', f'--threads={n}', '--build-id', '-Map=map', *names)
        out.append((t.elf('app').note('GNU', 3), t.nm('app', '-n'), t.read('map')))
    assert out[0] == out[1] == out[2]
    assert len(islands(t, 'app')) > 20


def test_map_and_symbols(t):
    source = CALL + text('data', '.xword 1') + pad('gap', REACH) + THERE
    t.ld('app', '-Map=map', t.asm('a.o', source + NOTE))
    (at, name), = islands(t, 'app')
    assert re.search(rf'^ +{at:x} .*<internal>:\(\.text\)$', t.read('map'), re.M)
    assert f'{at:016x} t $x' in t.nm('app', '-n', '--special-syms')
    code = t.tool('aarch64-linux-gnu-objdump', '-d', f'--start-address={at}',
                  f'--stop-address={at + 12}', 'app').stdout
    assert name in code and 'br\tx16' in code
    table = t.elf('app').section('.symtab')
    binds = [s.bind for s in t.elf('app').symbols]
    assert set(binds[:table.info]) == {'LOCAL'} and 'LOCAL' not in binds[table.info:]


def test_stripped(t):
    t.ld('app', '-s', t.asm('a.o', CALL + pad('gap', REACH) + THERE + NOTE))
    t.run('app', status=7)


def test_relocatable_output_has_none(t):
    t.ld('r.o', '-r', t.asm('a.o', CALL + pad('gap', REACH) + THERE + NOTE))
    assert not islands(t, 'r.o')
    t.ld('app', 'r.o')
    t.run('app', status=7)


def test_small_outputs_have_none(t):
    t.ld('app', t.asm('a.o', CALL + pad('gap', MIB) + THERE + NOTE))
    assert not islands(t, 'app')


def test_no_island_in_reach(t):
    """Nothing is put into .init, which is one function in parts."""
    source = '.section .init, "ax"\nbl there\n' + THERE + function('_start', 'ret')
    t.asm('a.o', source + NOTE)
    t.asm('gap.o', f'.section .init, "ax", %nobits\n.space {REACH}\n' + NOTE)
    t.ld('app', 'a.o', 'gap.o', ok=False).says('a.o', 'R_AARCH64_CALL26 out of range', 'there')


def test_sections_far_apart(t):
    """Each has islands of its own."""
    source = (CALL + '.section .far, "awx"\n.globl there\nthere: mov w0, #1\nb back\n' +
              function('back', 'add w0, w0, #6\nret'))
    t.ld('app', '--section-start=.far=0x20000000', t.asm('a.o', source + NOTE))
    assert value(t.elf('app'), 'there') == 0x20000000
    t.run('app', status=7)


# -- guarded pages ----------------------------------------------------------------------------------

def test_landing_pads(t):
    """br x16 may only land on bti c or its like: where there is none, on a pad near the target."""
    source = (function('_start', 'bti c\nbl with\nbl without\n' + EXIT) + pad('gap', REACH) +
              function('with', 'bti c\nmov w0, #3\nret') +
              function('without', 'add w0, w0, #4\nret'))
    t.ld('app', t.asm('a.o', '.arch armv8.5-a\n' + source + BTI_NOTE + NOTE))
    elf = t.elf('app')
    start = value(elf, '_start')
    assert entry_target(elf, branch_target(elf, start + 4)) == value(elf, 'with')
    landing = entry_target(elf, branch_target(elf, start + 8))
    assert words(elf, landing, 1) == (0xd503245f,)
    assert branch_target(elf, landing + 4) == value(elf, 'without')
    t.run('app', status=7)
