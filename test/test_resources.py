"""Many links on one machine: tokens of make's jobserver, and --memory-limit."""

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


@pytest.mark.skipif(any(name in Path(KLD).read_bytes() for name in (b'__asan_init', b'__tsan_init')),
                    reason='sanitizers have memory of their own')
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
