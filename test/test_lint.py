"""The source text: formatting, warnings of both compilers, headers that stand alone."""

import subprocess

import pytest

from kldtest import REPO


@pytest.mark.parametrize('part', ['format', 'warnings', 'headers'])
def test_lint(part):
    done = subprocess.run(['tools/lint', part], cwd=REPO, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f'tools/lint {part}:\n{done.stdout}'
