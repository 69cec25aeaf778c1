"""Instructions and relocations of aarch64."""

import re

import pytest

from kldtest import only

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


def test_erratum_843419_out_of_reach(t):
    a = t.asm('a.o', ERRATUM.format(gap='.space 0x200000'))
    t.ld('app', '--fix-cortex-a53-843419', a).says('843419', 'left as it is')
    t.ld('app', a).silent()


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
