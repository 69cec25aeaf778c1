"""Warnings that do not change the output: of symbols, of references back to archives."""

STACK = '.section .note.GNU-stack\n'


def test_symbol_with_a_warning(t):
    """A .gnu.warning.NAME section speaks to who refers to NAME, and is not copied."""
    a = t.asm('a.o', '.globl old\nold: ret\n.section .gnu.warning.old\n.string "do not use old"\n' + STACK)
    m = t.asm('m.o', '.globl _start\n_start: do_call old\n' + STACK)
    t.ld('app', m, a).says('m.o', 'do not use old')
    assert t.elf('app').section('.gnu.warning.old') is None


def test_symbol_with_a_warning_that_nobody_uses(t):
    a = t.asm('a.o', '.globl old\nold: ret\n.section .gnu.warning.old\n.string "do not use old"\n' + STACK)
    m = t.asm('m.o', '.globl _start\n_start: ret\n' + STACK)
    t.ld('app', m, a).silent()


def test_reference_back_to_an_archive(t):
    t.ar('liba.a', t.asm('a.o', '.globl f\nf: ret\n' + STACK))
    m = t.asm('m.o', '.globl _start\n_start: do_call f\n' + STACK)
    t.ld('app', '--warn-backrefs', 'liba.a', m).says('m.o', 'f', 'liba.a')
    t.ld('app', '--warn-backrefs', m, 'liba.a').silent()
    t.ld('app', '--warn-backrefs', '--start-group', 'liba.a', m, '--end-group').silent()
    t.ld('app', '--warn-backrefs', '--no-warn-backrefs', 'liba.a', m).silent()


def test_orphan_handling_says_that_it_is_not_there(t):
    m = t.asm('m.o', '.globl _start\n_start: ret\n' + STACK)
    t.ld('app', '--orphan-handling=place', m)
    t.ld('app', '--orphan-handling=error', m, ok=False).says('--orphan-handling')
