"""Options on the command line that hold for the inputs after them, and values that reach the output."""

import pytest

from kldtest import deviates


# -- --push-state ------------------------------------------------------------------------------------

def two_libraries(t):
    """libpair as an archive and as a shared library, whose `which` differ; libother likewise."""
    t.asm('ar.o', '.globl which\nwhich = 4\n')
    t.asm('so.o', '.globl which\nwhich: ret\n.globl other\nother: ret\n')
    t.ar('libpair.a', 'ar.o')
    t.ld('libpair.so', '-shared', '-soname=libpair.so', 'so.o')
    t.ld('libother.so', '-shared', '-soname', 'libother.so', 'so.o')
    return t.asm('main.o', '.globl _start\n_start: do_call which\n')


def test_push_state_saves_bstatic(t):
    main = two_libraries(t)
    t.ld('a', main, '-L.', '--push-state', '-Bstatic', '--pop-state', '-lpair')
    assert t.elf('a').needed == ['libpair.so']
    t.ld('b', main, '-L.', '--push-state', '-Bstatic', '-lpair', '--pop-state')
    assert t.elf('b').needed == []


def test_push_state_saves_as_needed_and_nests(t):
    main = two_libraries(t)
    unused = ['libother.so']
    t.ld('a', main, 'libpair.so', '--push-state', '--as-needed', '--push-state', '--no-as-needed',
         '--pop-state', *unused, '--pop-state')
    assert t.elf('a').needed == ['libpair.so']
    t.ld('b', main, 'libpair.so', '--push-state', '--as-needed', '--pop-state', *unused)
    assert t.elf('b').needed == ['libpair.so', 'libother.so']


def test_push_state_saves_whole_archive(t):
    main = t.asm('main.o', '.globl _start\n_start: ret\n')
    t.ar('libextra.a', t.asm('extra.o', '.globl extra\nextra: ret\n'))
    t.ld('a', main, '--push-state', '--whole-archive', 'libextra.a', '--pop-state')
    assert t.elf('a').symbol('extra')
    t.ld('b', main, '--push-state', '--whole-archive', '--pop-state', 'libextra.a')
    assert 'extra' not in t.nm('b')


# -- values reach their place ------------------------------------------------------------------------

@pytest.mark.parametrize('words', [['-h', 'lib.so.1'], ['-hlib.so.1'], ['-soname', 'lib.so.1'],
                                   ['-soname=lib.so.1'], ['--soname', 'lib.so.1'],
                                   ['--soname=lib.so.1']])
def test_soname(t, words):
    t.ld('lib.so', '-shared', *words, t.asm('a.o', '.globl f\nf: ret\n'))
    assert t.elf('lib.so').soname == 'lib.so.1'


def test_output_joined(t):
    t.ld('first', '-ojoined', t.asm('a.o', '.globl _start\n_start: ret\n'), '-o', 'first')
    assert not t.exists('joined')


@pytest.mark.parametrize('words', [['-L', '.', '-l', 'pair'], ['-L.', '-lpair'],
                                   ['-L.', '-l:libpair.so'], ['--library-path=.', '--library=pair'],
                                   ['--library-path', '.', '--library', 'pair']])
def test_library(t, words):
    main = two_libraries(t)
    t.ld('a', main, *words)
    assert t.elf('a').needed == ['libpair.so']


@deviates(lld='takes the name as it is')
@pytest.mark.parametrize('file, wanted', [('%', 'out.map'), ('%.txt', 'out.txt'), ('dir', 'dir/out.map'),
                                          ('dir/%', 'dir/out.map')])
def test_map_file_names(t, file, wanted):
    t.write('dir/x', '')
    t.ld('out', f'-Map={file}', t.asm('a.o', '.globl _start\n_start: ret\n'))
    assert t.exists(wanted)


def runpath(t, *args, env=None):
    t.asm('a.o', '.globl f\nf: ret\n')
    t.link('lib.so', '-shared', '--enable-new-dtags', 'a.o', *args, via=None, env=env)
    return t.elf('lib.so').dyn_strings('RUNPATH')


@deviates(lld='does not look there')
def test_run_path_from_the_environment(t):
    assert runpath(t, env={'LD_RUN_PATH': '/e'}) == ['/e']
    assert runpath(t, '-rpath', '/o', env={'LD_RUN_PATH': '/e'}) == ['/o']


@deviates(lld='takes everything for a directory')
def test_r_with_a_directory_or_a_file(t):
    t.write('dir/x', '')
    assert runpath(t, '-R', 'dir') == ['dir']
    t.asm('sym.o', '.globl thing\nthing = 42\n')
    assert runpath(t, '-R', 'sym.o') == []
    assert runpath(t, '-Rsym.o', '--just-symbols', 'sym.o', '--just-symbols=sym.o') == []


def test_r_with_what_is_no_file_here(t):
    assert runpath(t, '-R', '$ORIGIN/../lib') == ['$ORIGIN/../lib']


# -- -z ----------------------------------------------------------------------------------------------

def test_unknown_keyword_of_z_is_a_warning(t):
    main = t.asm('a.o', '.globl _start\n_start: ret\n')
    t.ld('a', '-z', 'frobnicate', main).says('frobnicate', 'warning')
    t.ld('b', '--fatal-warnings', '-z', 'frobnicate', main, ok=False)
