"""Fixtures: `t` is the workspace, `target`, `compiler` and `kind` run a case once for each."""

import os
from pathlib import Path

import pytest

from kldtest import KINDS
from kldtest import KLD
from kldtest import TARGETS
from kldtest import Workspace
from kldtest import linker_family


def pytest_addoption(parser):
    parser.addoption('--targets',
                     help='CPUs to run the cases for, separated by commas (default: x86_64; where '
                          'the CPU can matter those as well that have a compiler and an emulator '
                          'here)')


# CPUs that everything in CPU_MATTERS runs for, beside x86-64, where their tools are here.
OTHERS = ('aarch64', 'riscv64')
# Files and folders in which the CPU can matter; the other files run for x86-64 only, and cases of
# test/arch say where they belong.
CPU_MATTERS = {
    'arch', 'link-incremental', 'programs', 'test_bad_input', 'test_compress', 'test_determinism',
    'test_eh_frame', 'test_explain', 'test_gc', 'test_icf', 'test_merge', 'test_option_effects',
    'test_property', 'test_real_programs', 'test_relocatable', 'test_side_by_side', 'test_symtab',
    'test_undefined', 'test_warnings',
}


def default_targets(file):
    others = [name for name in OTHERS if TARGETS[name].is_here()]
    return ['x86_64', *(others if {file.stem, file.parent.name} & CPU_MATTERS else [])]


def pytest_configure(config):
    config.addinivalue_line('markers', 'deviates(**reasons): fails with that other linker')
    config.addinivalue_line('markers', 'only(*targets): belongs to these CPUs')
    if not Path(KLD).exists():
        pytest.exit(f'there is no linker at {KLD}: run make, or set KLD', returncode=2)
    config.family = linker_family()


def pytest_generate_tests(metafunc):
    if 'target' in metafunc.fixturenames:
        given = metafunc.config.getoption('targets')
        names = given.split(',') if given else default_targets(metafunc.definition.path)
        mark = metafunc.definition.get_closest_marker('only')
        names = [n for n in names if not mark or n in mark.args]
        metafunc.parametrize('target', names, indirect=True, scope='session')


def is_possible(item):
    """Not so for kinds of programs that the target's C library is not made for."""
    params = getattr(item, 'callspec', None) and item.callspec.params or {}
    kind, target = params.get('kind'), params.get('target')
    return not hasattr(kind, 'name') or target not in TARGETS or TARGETS[target].has(kind.name)


def pytest_collection_modifyitems(config, items):
    items[:] = filter(is_possible, items)
    for item in items:
        for mark in item.iter_markers('deviates'):
            if config.family in mark.kwargs:
                item.add_marker(pytest.mark.xfail(reason=mark.kwargs[config.family],
                                                  strict=mark.kwargs['strict']))


@pytest.fixture(scope='session')
def target(request):
    return TARGETS[request.param]


@pytest.fixture(scope='session')
def linker_dir(tmp_path_factory):
    """A folder for `-B` in which `ld` is the linker under test."""
    folder = tmp_path_factory.mktemp('linker')
    (folder / 'ld').symlink_to(os.path.abspath(KLD))
    return folder


@pytest.fixture
def t(tmp_path, target, linker_dir):
    return Workspace(tmp_path, target, linker_dir)


@pytest.fixture(params=['gcc', 'clang'])
def compiler(request, t):
    t.compiler = request.param
    return request.param


@pytest.fixture(params=['-O0', '-O2'])
def opt(request):
    return request.param


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request):
    return request.param
