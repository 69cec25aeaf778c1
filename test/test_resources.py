"""Many links on one machine: tokens of make's jobserver, --memory-limit, and who ends when."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kldtest import KLD
from kldtest import TIMEOUT
from kldtest import only

pytestmark = only('x86_64')

FILES, SIZE = 48, 1 << 20


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """48 MB of data, with strings, names and relocations enough for threads to be worth it."""
    path = tmp_path_factory.mktemp('resources')
    chance = random.Random(7)
    names = []
    for n in range(FILES):
        (path / f'{n}.bin').write_bytes(chance.randbytes(SIZE))
        functions = ''.join(f'.globl f{n}_{k}\nf{n}_{k}: .quad blob{n}, f{(n + 1) % FILES}_{k}\n'
                            for k in range(500))
        strings = ''.join(f'.string "string {k} of {n % 9}"\n' for k in range(500))
        (path / f'{n}.s').write_text(f'.data\n{functions}\nblob{n}: .incbin "{n}.bin"\n'
                                     f'.section .rodata.str1.1,"aMS",@progbits,1\n{strings}'
                                     '.section .note.GNU-stack,""\n')
        subprocess.run(['gcc', '-c', f'{n}.s'], cwd=path, check=True)
        names.append(f'{n}.o')
    (path / 'all.rsp').write_text('\n'.join(['-pie', '-e', 'f0_0', '--build-id', *names]))
    return path


# A small process in between: what is resident where a process is started from counts as its own.
MEASURE = '''
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], close_fds=False)
_, status, usage = os.wait4(child.pid, 0)
print("peak", usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
'''


def link(path, out, *args, **how):
    """What it wrote to stdout, and its peak of resident memory in bytes."""
    done = subprocess.run([sys.executable, '-c', MEASURE, KLD, '@all.rsp', '-o', out, '--stats', *args],
                          cwd=path, text=True, stdout=subprocess.PIPE, timeout=TIMEOUT, check=False, **how)
    assert done.returncode == 0
    return done.stdout, int(re.search(r'peak (\d+)', done.stdout).group(1)) * 1024


without_sanitizers = pytest.mark.skipif(
    any(name in Path(KLD).read_bytes() for name in (b'__asan_init', b'__tsan_init')),
    reason='sanitizers have memory of their own')


@without_sanitizers
def test_memory_limit(inputs):
    # (One thread: how much more several have depends on which of them come to do what.)
    _, plain = link(inputs, 'plain', '--threads=1')
    _, limited = link(inputs, 'limited', '--threads=1', '--memory-limit=8M')
    assert (inputs / 'plain').read_bytes() == (inputs / 'limited').read_bytes()
    assert plain > FILES * SIZE and limited < plain - FILES * SIZE / 4


def test_memory_limit_that_is_none(inputs):
    said = subprocess.run([KLD, '@all.rsp', '--memory-limit=8X'], cwd=inputs, text=True,
                          capture_output=True, timeout=TIMEOUT)
    assert said.returncode == 1 and "'8X' is not a number" in said.stderr


@pytest.mark.parametrize('tokens', [0, 1, 5])
def test_jobserver(inputs, tokens):
    """Threads beyond the first one need a token each, which is there again in the end."""
    at, to = os.pipe()
    try:
        os.set_blocking(at, False)
        os.write(to, b'+' * tokens)
        said, _ = link(inputs, f'with-{tokens}', pass_fds=(at, to),
                       env={**os.environ, 'MAKEFLAGS': f' -j9 --jobserver-auth={at},{to}'})
        threads = int(re.search(r'threads\D+(\d+)', said).group(1))
        assert threads == min(len(os.sched_getaffinity(0)), 1 + tokens)
        left = os.read(at, 100) if tokens else b''
        assert left == b'+' * tokens
    finally:
        os.close(at)
        os.close(to)


# -- who is left behind ------------------------------------------------------------------------------

# Prints what the linker wrote, and how many processes there were. Those that outlive their parents are ours.
COUNT = '''
import ctypes, os, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
linker = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
print(linker.stdout.read().decode())
_, status = os.waitpid(linker.pid, 0)
count = 1
try:
    while True:
        _, other = os.wait()
        status |= other
        count += 1
except ChildProcessError:
    pass
print("processes", count)
sys.exit(os.waitstatus_to_exitcode(status))
'''


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp('large')
    with open(path / 'zeros', 'wb') as f:
        f.truncate(80 << 20)
    (path / 'large.s').write_text('.globl _start\n_start: nop\n.data\n.incbin "zeros"\n'
                                  '.section .note.GNU-stack,""\n')
    (path / 'small.s').write_text('.globl _start\n_start: nop\n.section .note.GNU-stack,""\n')
    for name in 'large', 'small':
        subprocess.run(['gcc', '-c', f'{name}.s'], cwd=path, check=True)
    return path


@without_sanitizers
@pytest.mark.skipif(os.environ.get('KLD_VARIANT', 'release') != 'release',
                    reason='other variants end in the ordinary way, for the sake of their tools')
@pytest.mark.parametrize('name, options, count', [
    ('large', [], 2), ('large', ['--no-fork'], 1), ('large', ['--no-detach'], 1),
    ('large', ['--no-fork', '--fork'], 2), ('small', [], 1)])
def test_memory_is_left_to_a_child(large, name, options, count):
    """Which ends, and was not seen by who reads the output."""
    done = subprocess.run([sys.executable, '-c', COUNT, KLD, f'{name}.o', '-o', 'out', '--trace', *options],
                          cwd=large, text=True, capture_output=True, timeout=TIMEOUT, check=False)
    assert done.stdout.split() == [f'{name}.o', 'processes', str(count)]
    assert done.returncode == 0, done.stderr
