"""The same inputs and options give the same bytes, whatever the threads, the folder, the run."""

import os
import shutil
import subprocess

import pytest

from kldtest import KLD
from kldtest import TIMEOUT

SOURCE = r'''
#include <map>
#include <string>
#include <vector>
struct Shape{n} {{ virtual ~Shape{n}() {{}} virtual double area() const {{ return {n}.5; }} }};
template <int N> struct Table {{ std::map<std::string, int> map; static int count; }};
template <int N> int Table<N>::count = N;
thread_local int own{n} = {n};
static std::vector<std::string> words{{"a word", "another word", "word {n}", "word of all"}};
int work{n}(int x)
{{
    Table<{n}> t;
    Shape{n} s;
    t.map["key " + std::to_string(x)] = own{n}++ + Table<0>::count;
    try {{ if (x == {n}) throw words[1]; }} catch (const std::string &w) {{ return w.size(); }}
    return t.map.size() + s.area() + words.size();
}}
'''

FILES = 8


@pytest.fixture(scope='module')
def sources(tmp_path_factory, target):
    """Objects of one library, plain and with debug information that is compressed."""
    path = tmp_path_factory.mktemp('determinism')
    declared = ''.join(f'int work{n}(int);' for n in range(FILES))
    called = ' + '.join(f'work{n}({n % 3})' for n in range(FILES))
    (path / 'main.cc').write_text(f'{declared}\nint main() {{ return ({called}) == 0; }}\n')
    for n in range(FILES):
        (path / f'w{n}.cc').write_text(SOURCE.format(n=n))
    (path / 'v.map').write_text('V1 { global: extern "C++" { "work1(int)"; work2*; }; };\n'
                                'V2 { global: extern "C++" { work*; }; local: *; } V1;\n')
    names = ['main', *(f'w{n}' for n in range(FILES))]
    for name in names:
        subprocess.run([*target.command('g++'), '-c', '-g1', '-O1', '-fPIC', f'{name}.cc'], cwd=path,
                       check=True)
    subprocess.run([*target.command('ar'), 'rcs', 'libw.a', *(f'w{n}.o' for n in range(FILES))],
                   cwd=path, check=True)
    return path


OBJECTS = [f'w{n}.o' for n in range(FILES)]
KINDS = {
    'static': ['-static', 'main.o', 'libw.a', '-Wl,--gc-sections,--icf=all,--build-id=sha1'],
    'pie-debug': ['-pie', 'main.o', *OBJECTS, '-Wl,--build-id,-z,pack-relative-relocs'],
    'shared-versions': ['-shared', *OBJECTS, '-Wl,--version-script=v.map,--build-id=md5'],
    'compressed': ['main.o', 'libw.a', '-Wl,--compress-debug-sections=zlib,--build-id=fast'],
    'relocatable': ['-r', '-nostdlib', *OBJECTS],
}


class Linker:
    """One kind of link, to be repeated in several ways."""

    def __init__(self, sources, linker_dir, target, args):
        self.sources = sources
        self.args = [*target.command('g++'), '-B', linker_dir, *args]

    def __call__(self, path, *more, cwd=None, env=None):
        done = subprocess.run([*self.args, *more, '-o', path], cwd=cwd or self.sources, text=True,
                              capture_output=True, timeout=TIMEOUT, env={**os.environ, **(env or {})})
        assert done.returncode == 0, done.stderr
        return path.read_bytes()


@pytest.fixture(params=KINDS)
def linker(request, sources, linker_dir, target):
    return Linker(sources, linker_dir, target, KINDS[request.param])


def test_threads_and_runs(linker, tmp_path):
    first = linker(tmp_path / 'out', '-Wl,--threads=1')
    for run, threads in enumerate((1, 2, 2, 4, 16, 16)):
        again = linker(tmp_path / 'out', f'-Wl,--threads={threads}')
        assert again == first, f'run {run}: {threads} threads'
    assert linker(tmp_path / 'out', '-Wl,--no-threads') == first


def test_folder_and_surroundings(linker, sources, tmp_path):
    first = linker(tmp_path / 'out', '-Wl,--threads=2')
    other = tmp_path / 'a' / 'folder of another name'
    shutil.copytree(sources, other)
    env = {'TZ': 'Asia/Kathmandu', 'LC_ALL': 'C.UTF-8', 'HOME': str(other), 'X': 'y' * 3000}
    assert linker(other / 'out', cwd=other, env=env) == first
    for file in other.glob('*.o'):
        os.utime(file, (1, 1))
    assert linker(other / 'out', cwd=other) == first


def test_map_and_messages(sources, target, tmp_path):
    """What is said does not depend on threads either."""
    linker = [KLD] if target.native else [KLD, '-m', target.emulation]
    said = set()
    for threads in 1, 2, 4, 16:
        done = subprocess.run([*linker, f'--threads={threads}', 'main.o', *OBJECTS, '-o',
                               tmp_path / 'out', '--error-limit=50'], cwd=sources, text=True,
                              capture_output=True, timeout=TIMEOUT)
        assert done.returncode == 1 and 'undefined symbol' in done.stderr
        said.add(done.stderr)
    assert len(said) == 1
    maps = set()
    for threads in 1, 4:
        done = subprocess.run([*linker, f'--threads={threads}', 'main.o', *OBJECTS, '-o',
                               tmp_path / 'out', '--unresolved-symbols=ignore-all', '-Map=-',
                               '--cref', '--print-gc-sections', '--gc-sections'], cwd=sources,
                              text=True, capture_output=True, timeout=TIMEOUT)
        assert done.returncode == 0, done.stderr
        maps.add(done.stdout)
    assert len(maps) == 1 and len(maps.pop()) > 10000
