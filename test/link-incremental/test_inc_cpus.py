"""What depends on the CPU: sequences of relocations of which a part refers to what has moved, code
models, padding that the linker takes out, landing pads, jumps that are far."""

import struct

import pytest

import inc
from inc import SPLIT
from inc import Link
from inc import Sources
from kldtest import only
from kldtest import renumber

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
        s.edit('moving.c', '/* data */', f'/* data */\nstatic int more{n}[{n + 1}] __attribute__((used)) = {{1}};')
        app.patched() if split else app.right()  # whether all of .data fits is luck
        app.run(expect=SAYS)


def test_a_moved_function_may_be_entered_indirectly(t):
    """What is left has a landing pad. Pages are guarded where the emulator or the CPU can."""
    flags = {'x86_64': ['-fcf-protection'], 'aarch64': ['-mbranch-protection=standard'], 'riscv64': []}
    exits = {'x86_64': 'register int a asm("rdi") = s; asm volatile("syscall" :: "r"(a), "a"(60));',
             'aarch64': 'register int a asm("x0") = s, n asm("x8") = 93; '
                        'asm volatile("svc 0" :: "r"(a), "r"(n));',
             'riscv64': 'register int a asm("a0") = s, n asm("a7") = 93; '
                        'asm volatile("ecall" :: "r"(a), "r"(n));'}
    s = Sources(t, *flags[t.target.name], *SPLIT, '-ffreestanding',
                moving_c='int other(int);\nint moving(int n)\n{\n    /* here */\n    return other(n);\n}',
                main_c='int moving(int);\nint other(int n) { return n + 1; }\n'
                       'int (*volatile to)(int) = moving;\nvoid _start(void)\n{\n'
                       f'    int s = to(2) + moving(3);\n    {exits[t.target.name]}\n}}')
    app = Link(t, 'app', '-static', '-nostdlib', 'main.o', 'moving.o')
    app.full()
    app.run(status=7)
    if t.target.name == 'aarch64':
        assert 'BTI' in t.tool('aarch64-linux-gnu-readelf', '-nW', 'app').stdout
    old = app.elf().symbol('moving').value
    for _ in range(3):
        s.edit('moving.c', '/* here */', f'/* here */\n{GROWN}')
        app.patched()
        app.run(status=7)
    elf = app.elf()
    pad = {'x86_64': b'\xf3\x0f\x1e\xfa', 'aarch64': b'\x5f\x24\x03\xd5', 'riscv64': b''}[t.target.name]
    assert inc.PLAIN or elf.at(old, len(pad)) == pad
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


WORDS = {
    'x86_64': '.long moving_b - .',
    'aarch64': '.word moving_b - .',
    'riscv64': """here: .word 0
        .reloc here, R_RISCV_ADD32, moving_b
        .reloc here, R_RISCV_SUB32, here
        .globl leb
        leb: .byte 0x80, 0x80, 0
        .reloc leb, R_RISCV_SET8, moving_b
        .reloc leb, R_RISCV_SET16, moving_a""",
}


def test_distances(t):
    """Numbers that are the distance of two symbols, of which one or both have moved."""
    s = Sources(t, moving_c='int moving_a(int n) { return n; }\nint between(int n)\n'
                '{\n    /* here */\n    return n;\n}\nint moving_b(int n) { return n + 1; }\n')
    t.asm('words.o', f'.section .rodata\n.balign 4\n.globl word\nword: {WORDS[t.target.name]}\n')
    if t.target.name == 'riscv64':
        renumber(t, 'words.o', 54, 60)  # SET_ULEB128, SUB_ULEB128: not all assemblers have them
        renumber(t, 'words.o', 55, 61)
    t.cc('main.o', """
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
        }""", '-fno-pie')
    app = Link(t, 'app', '-static', '-no-pie', 'main.o', 'words.o', 'moving.o')
    app.full()
    status = 3 if t.target.name == 'riscv64' else 1
    app.run(status=status)
    for _ in range(3):
        s.edit('moving.c', '/* here */', f'/* here */\n{GROWN}')
        app.patched()
        app.run(status=status)


@only('riscv64')
def test_distance_from_a_string(t):
    """A patch does not know where strings of other files are that have been merged."""
    s = Sources(t, moving_c='int between(int n)\n{\n    /* here */\n    return n;\n}\nint moving(void) { return 7; }\n')
    t.asm('words.o', '''.section .rodata.str1.1,"aMS",@progbits,1
        text: .asciz "a text"
        .section .rodata
        .balign 4
        .globl word
        word: .word 0
        .reloc word, R_RISCV_ADD32, text
        .reloc word, R_RISCV_SUB32, moving''')
    t.cc('main.o', '''
        int moving(void);
        extern const int word;
        int main(void) { return ((char *)moving)[word] == 'a' ? moving() : 1; }''', '-fno-pie')
    app = Link(t, 'app', '-static', '-no-pie', 'main.o', 'words.o', 'moving.o')
    app.full()
    app.run(status=7)
    s.edit('moving.c', '/* here */', f'/* here */\n{GROWN}')
    app.falls_back('unsupported')
    app.run(status=7)
