"""kld linked by kld: the second stage passes a part of the suite as the first one does.

The objects are those of build/; only the link is done again, into a folder of the test.
"""

import os
import re
import subprocess
import sys

import pytest

from kldtest import KLD
from kldtest import REPO
from kldtest import TIMEOUT
from kldtest import linker_family
from kldtest import only

pytestmark = only('x86_64')

VARIANT = os.environ.get('KLD_VARIANT', 'release')

# Files that exercise most of the linker in little time.
SUBSET = ['test/programs/test_c_programs.py', 'test/programs/test_constructors.py',
          'test/programs/test_symbols.py']
CASES = 'two_files or test_constructors or wrap or visibility or priorities'


def makefile_variable(name):
    text = (REPO / 'Makefile').read_text()
    return re.search(rf'^{name} *:?= *(.*)$', text, re.M)[1].split()


def objects():
    folder = REPO / 'build' / 'obj'
    found = [(folder / source).with_suffix('.o') for source in makefile_variable('CMD_SRC')]
    if VARIANT != 'release' or not all(f.exists() for f in found):
        pytest.skip('only where the release variant was built')
    return found


def link_kld(t, out, *flags):
    """As the Makefile does."""
    t.link(out, '-pthread', *flags, '-Wl,--gc-sections', *objects(), REPO / 'build' / 'libkld-parts.a',
           *makefile_variable('LIBS'))
    version = t.tool(f'./{out}', '--version').stdout
    assert version == subprocess.run([KLD, '--version'], capture_output=True, text=True,
                                     timeout=TIMEOUT).stdout


@pytest.mark.parametrize('flags', [['-static', '-no-pie'], ['-pie', '-Wl,-z,now'],
                                   ['-static-pie', '-Wl,--icf=all'],
                                   ['-pie', '-Wl,--icf=safe', '-Wl,-O2', '-s']], ids=' '.join)
def test_second_stage_links_the_third_which_is_the_same(t, flags):
    """The bytes of what it links are those that the first stage gives."""
    if linker_family() != 'kld':
        pytest.skip('the linker under test is not kld')
    link_kld(t, 'second', *flags)
    command = t.commands[-2].command
    folder = t.path / 'again'
    folder.mkdir()
    (folder / 'ld').symlink_to(t.path / 'second')
    t.tool(*[folder if a == str(t.linker_dir) else 'third' if a == 'second' else a
             for a in command])
    assert (t.path / 'third').read_bytes() == (t.path / 'second').read_bytes()


def test_second_stage_passes_the_suite(t):
    if linker_family() != 'kld':
        pytest.skip('the linker under test is not kld')
    link_kld(t, 'second', '-static', '-no-pie')
    command = [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '-p', 'no:xdist',
               '--basetemp', t.path / 'tmp', '-k', CASES, *SUBSET]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=4 * TIMEOUT,
                          env={**os.environ, 'KLD': str(t.path / 'second'), 'PYTEST_ADDOPTS': '',
                               'PYTHONDONTWRITEBYTECODE': '1'})
    passed = re.search(r'(\d+) passed', done.stdout)
    assert done.returncode == 0 and passed and int(passed[1]) >= 50, done.stdout
