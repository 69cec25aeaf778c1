"""What depends on the CPU: sequences of relocations of which a part refers to what has moved, code
models, padding that the linker takes out, landing pads, jumps that are far."""

import struct

import pytest

import inc
from inc import SPLIT
from inc import Link
from inc import Sources
from kldtest import only

GROWN = inc.growth('    n += n == 12345;', 60)

MODELS = {
    'x86_64': ['small', 'large'],
    'aarch64': ['tiny', 'small', 'large'],
    'riscv64': ['medlow', 'medany'],
}

MOVING = r'''
    static int first(int n)
    {
        /* first */
        return n + 1;
    }
    int called(int n) { return first(n) * 2; }
    int taken(int n) { return first(n) * 3; }
    int numbers[4] = {1, 2, 3, 4};
    /* data */
    long wide = 5;
    const char letters[] = "letters";
    double real = 2.5;
    short half = -7;
    signed char byte = 9;
    int zeroed[8];
    int *inside = &numbers[2];
'''
# Loads, stores and addresses, with offsets.
USING = r'''
    #include <stdio.h>
    int called(int), taken(int), moved(int);
    extern int numbers[4], zeroed[8], *inside;
    extern long wide;
    extern const char letters[];
    extern double real;
    extern short half;
    extern signed char byte;
    static int (*const table[])(int) = {taken, called};
    int (*volatile pointer)(int) = taken;
    int main(void)
    {
        numbers[1] += 10;
        zeroed[5] = numbers[3];
        wide++;
        half--;
        byte -= 20;
        real *= 2;
        printf("%d %d %d %d\n", called(1), taken(1), table[0](2), table[1](2));
        printf("%d %d %d %d\n", numbers[1], zeroed[5], *inside, inside == numbers + 2);
        printf("%ld %s %c %.1f %d %d %d\n", wide, letters, letters[3], real, half, byte,
               pointer == taken && pointer == table[0]);
        return 0;
    }
'''
SAYS = '4 6 9 6\n12 4 3 1\n6 letters t 5.0 -8 -11 1\n'


@pytest.mark.parametrize('split', [(), SPLIT], ids=['unit', 'split'])
@pytest.mark.parametrize('opt', ['-O0', '-O2'])
@pytest.mark.parametrize('model', range(3))
def test_code_models(t, model, opt, split):
    """Everything of one unit moves, and another refers to it in all ways that the compiler has."""
    models = MODELS[t.target.name]
    if model >= len(models):
        pytest.skip('no such model')
    s = Sources(t, f'-mcmodel={models[model]}', '-fno-pie', opt, *split, moving_c=MOVING, main_c=USING)
    app = Link(t, 'app', '-static', '-no-pie', 'main.o', 'moving.o')
    app.full()
    app.run(expect=SAYS)
    for n in range(3):
        s.edit('moving.c', '/* first */', f'/* first */\n{GROWN}')
        app.patched()
        app.run(expect=SAYS)
        before = 'static' if n else '__attribute__((used)) static'
        s.edit('moving.c', '/* data */', f'/* data */ {before} int more{n}[{n + 1}] = {{1}};\n'
               f'int *user{n}(void) __attribute__((visibility("hidden")));'.split('\n')[0])
        app.right() if split else app.right()
        app.run(expect=SAYS)


@only('aarch64', 'x86_64')
@pytest.mark.parametrize('kind', ['pie', 'static'])
def test_a_moved_function_may_be_entered_indirectly(t, kind):
    """Pages are guarded where the emulator or the CPU can: what is left has a landing pad."""
    flag = '-fcf-protection' if t.target.name == 'x86_64' else '-mbranch-protection=standard'
    s = Sources(t, flag, *SPLIT, moving_c='int moving(int n)\n{\n    /* here */\n    return n + 1;\n}',
                main_c='int moving(int);\nint (*volatile to)(int) = moving;\n'
                       'int main(void) { return to(2) + moving(3); }')
    app = Link(t, 'app', *(['-static', '-no-pie'] if kind == 'static' else ['-pie']), '-Wl,-z,force-bti'
               if t.target.name == 'aarch64' else '-Wl,-z,ibt', 'main.o', 'moving.o')
    app.full()
    app.run(status=7)
    old = app.elf().symbol('moving').value
    s.edit('moving.c', '/* here */', f'/* here */\n{GROWN}')
    app.patched()
    app.run(status=7)
    elf = app.elf()
    pad = b'\x5f\x24\x03\xd5' if t.target.name == 'aarch64' else b'\xf3\x0f\x1e\xfa'
    assert inc.PLAIN or elf.at(old, 4) == pad
    assert inc.PLAIN or inc.island_target(elf, old) == elf.symbol('moving').value != old


@only('riscv64')
def test_far_jump(t):
    """Farther than jal reaches: auipc and jr."""
    s = Sources(t, *SPLIT, moving_c='int moving(int n)\n{\n    /* here */\n    return n + 1;\n}',
                main_c='int moving(int);\nint main(void) { return moving(3); }')
    t.cc('far.o', 'asm(".text\\n.globl far\\nfar: .space 3 << 20\\n");')
    app = Link(t, 'app', 'main.o', 'moving.o', 'far.o', '-Wl,-u,far')
    app.full()
    old = app.elf().symbol('moving').value
    s.edit('moving.c', '/* here */', f'/* here */\n{GROWN}')
    app.patched()
    app.run(status=4)
    new = app.elf().symbol('moving').value
    assert inc.PLAIN or new - old > 1 << 20 and inc.island_target(app.elf(), old) == new


@only('riscv64')
def test_landing_pad_of_riscv64(t):
    """lpad, which older CPUs take for a nop: auipc zero, label."""
    s = Sources(t, main_c='int moving(void);\nint main(void) { return moving(); }')
    code = '.globl moving\n.type moving, @function\n.p2align 2\nmoving:\n.word 0x12345017\nli a0, {}\n{}ret\n.size moving, . - moving\n'
    t.asm('moving.o', code.format(5, ''))
    app = Link(t, 'app', 'main.o', 'moving.o')
    app.full()
    old = app.elf().symbol('moving').value
    t.asm('moving.o', code.format(6, '.rept 300\nnop\n.endr\n'))
    app.patched()
    app.run(status=6)
    elf = app.elf()
    assert inc.PLAIN or struct.unpack('<I', elf.at(old, 4))[0] == 0x12345017
    assert inc.PLAIN or inc.island_target(elf, old + 4) == elf.symbol('moving').value


ALIGNED = ['-O2', '-falign-functions=32', '-falign-loops=16']


@pytest.mark.parametrize('split', [(), SPLIT], ids=['unit', 'split'])
def test_padding_inside_of_code(t, split):
    """riscv64 leaves padding to the linker: in files that have changed, and those that refer to them."""
    loop = 'int {0}(int n)\n{{\n    int s = 0;\n    /* {0} */\n    for (int i = 0; i < n; i++)\n        s += other_{0}(i);\n    return s;\n}}\n'
    s = Sources(t, *ALIGNED, *split,
                one_c='int other_a(int n), other_b(int n);\n' + loop.format('a') + loop.format('b'),
                two_c='int a(int), b(int);\nint other_a(int n) { int s = 0; for (int i = 0; i < n; i++) s += i; return s; }\n'
                      'int other_b(int n) { int s = 1; for (int i = 0; i < n; i++) s += 2 * i; return s; }\n'
                      'int main(void) { return a(5) + b(4); }')
    app = Link(t, 'app', 'two.o', 'one.o')
    app.full()
    app.run(status=22)
    for n, name in enumerate('aabab'):
        s.edit('one.c', f'/* {name} */', f'/* {name} */\n' + inc.growth('    s += n == 12345 * s;', 3 + 5 * n))
        app.patched()
        app.run(status=22)
        elf = app.elf()
        for symbol in 'a', 'b':
            at = elf.symbol(symbol)
            assert at.value % 32 == 0
    inc.check_unwind(app.elf(), 'a', 'b', 'main')


def test_distances(t):
    """Words with the distance of two symbols, of which one has moved."""
    word = {'x86_64': '.long moving_b - .', 'aarch64': '.word moving_b - .', 'riscv64':
            'here: .word 0\n.reloc here, R_RISCV_ADD32, moving_b\n.reloc here, R_RISCV_SUB32, here\n'}[t.target.name]
    leb = '' if t.target.name != 'riscv64' else ('.globl leb\nleb: .byte 0x80, 0x80, 0\n'
        '.reloc leb, R_RISCV_SET_ULEB128, moving_b\n.reloc leb, R_RISCV_SUB_ULEB128, moving_a\n')
    s = Sources(t, moving_c='int moving_a(int n)\n{\n    /* here */\n    return n;\n}\nint moving_b(int n) { return n + 1; }\n')
    t.asm('words.o', f'.section .rodata\n.balign 4\n.globl word\nword: {word}\n{leb}')
    t.cc('main.o', '''
        int moving_a(int), moving_b(int);
        extern const int word;
        extern const unsigned char leb[] __attribute__((weak));
        int main(void)
        {
            int ok = (char *)&word + word == (char *)moving_b;
            if (leb)
                ok += 2 * ((char *)moving_b - (char *)moving_a ==
                           (leb[0] & 127) + ((leb[1] & 127) << 7) + (leb[2] << 14));
            return ok;
        }''', '-fno-pie')
    app = Link(t, 'app', '-static', '-no-pie', 'main.o', 'words.o', 'moving.o')
    app.full()
    status = 3 if leb else 1
    app.run(status=status)
    for _ in range(3):
        s.edit('moving.c', '/* here */', f'/* here */\n{GROWN}')
        app.patched()
        app.run(status=status)
