"""The C unit tests in test/unit: each CASE(name) of each file is a test here."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from kldtest import REPO
from kldtest import TIMEOUT

LIB = os.environ.get('KLD_LIB') or str(REPO / 'build' / 'libkld-parts.a')
CFLAGS = shlex.split(os.environ.get('KLD_CFLAGS', ''))
LIBS = ['-lb2', '-lnettle', '-liberty', '-lzstd', '-lz', '-pthread']
UNIT = REPO / 'test' / 'unit'

CASES = [(file.stem, name) for file in sorted(UNIT.glob('test_*.c'))
         for name in re.findall(r'^CASE\((\w+)\)', file.read_text(), re.M)]


@pytest.fixture(scope='session')
def program(tmp_path_factory):
    """Builds the program of a file of cases when it is first needed."""
    folder = tmp_path_factory.mktemp('unit')

    def build(stem):
        out = folder / stem
        if not out.exists():
            command = ['gcc', '-std=gnu17', '-g', '-O1', '-Wall', '-Wextra', '-Werror', *CFLAGS,
                       '-I', REPO, '-I', REPO / 'include', '-o', out, UNIT / f'{stem}.c', LIB, *LIBS]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
            assert done.returncode == 0, done.stderr
        return out

    return build


@pytest.mark.parametrize('stem, case', CASES, ids=[f'{s}-{c}' for s, c in CASES])
def test_unit(program, stem, case):
    done = subprocess.run([program(stem), case], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr
