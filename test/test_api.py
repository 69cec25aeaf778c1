"""The library as a host sees it: each CASE(name) of the programs in test/api is a test here.

The programs know kld/kld.h and nothing else. What they link, and what the command makes of it, is
prepared here.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from kldtest import KLD
from kldtest import REPO
from kldtest import TIMEOUT

# What a host links with; $KLD_LIB is its neighbour.
LIB = str(Path(os.environ.get('KLD_LIB') or REPO / 'build' / 'libkld.a').with_name('libkld.a'))
VARIANT = os.environ.get('KLD_VARIANT', 'release')
CFLAGS = shlex.split(os.environ.get('KLD_CFLAGS', ''))
LIBS = ['-lb2', '-lnettle', '-liberty', '-lzstd', '-lz', '-pthread']
API = REPO / 'test' / 'api'

# 1,000 links where nothing watches them; a sanitizer makes each many times slower.
LINKS = '1000' if VARIANT in ('release', 'debug') else '100'

CASES = [(file.stem, name) for file in sorted(API.glob('test_*.c'))
         for name in re.findall(r'^CASE\((\w+)\)', file.read_text(), re.M)]

A = r'''
int b_value(int);
static const char text[] = "some text";
__attribute__((used)) int unused_function(void) { return text[1]; }
void _start(void)
{
    long status = b_value(text[0]) - 's';
    __asm__ volatile("syscall" : : "a"(60L), "D"(status));
    for (;;) {}
}
'''

# What becomes of b.c, by folder.
EDITS = {
    'same': 'int b_value(int x) { return x; }',
    'edited': 'int b_value(int x) { return x + 1; }',
    'grown': '''int b_value(int x)
                 {
                     int rest = x;
                     for (int i = 0; i < 7; i++)
                         __asm__ volatile(".fill 100, 1, 0x90" : "+r"(rest));
                     return rest + 2;
                 }''',
    'global': 'int b_value(int x) { return x + 3; } int more(void) { return 1; }',
}

# An object of which there are several versions: what is replaced, by name.
CONTENT = r'''
extern int one(int), two(int);
static const char *const names[] = {"some", "names"};
__attribute__((noinline)) static int local(int n) { return names[n & 1][n]; }
int get(int n) { return local(n) + 10; }
int sum(int n) { return one(n) + get(n); }
int data[4] = {1, 2, 3, 4};
int many[100];
'''
VERSIONS = {
    'first': (),
    'again': (),
    'byte': ('+ 10', '+ 11'),
    'call': ('one(n)', 'two(n)'),
    'weak': ('int get', '__attribute__((weak)) int get'),
    'hidden': ('int many', '__attribute__((visibility("hidden"))) int many'),
}

HELLO = r'''
#include <stdio.h>
#include <stdlib.h>
static __thread int calls = 40;
int main(void) { calls += 2; printf("%d\n", calls); return getenv("no such thing") != NULL; }
'''


def run(path, *command):
    done = subprocess.run(command, cwd=path, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, f'{command}\n{done.stdout}{done.stderr}'
    return done.stdout


def system_file(path, name):
    return run(path, 'gcc', f'-print-file-name={name}').strip()


def large(path):
    """An object with enough names for them to be interned in parallel, and strings to be merged."""
    lines = ['.globl _start', '_start:', '.quad names0']
    for i in range(15000):
        lines += [f'.globl names{i}', f'names{i}: .long wanted{i}', f'.globl wanted{i}',
                  f'.weak wanted{i}']
    lines.append('.section .rodata.str1.1,"aMS",@progbits,1')
    lines += [f'.asciz "string number {i % 700}"' for i in range(3000)]
    (path / 'large.s').write_text('\n'.join(lines) + '\n')
    run(path, 'gcc', '-c', 'large.s')


def content(path):
    """The versions of CONTENT, each compiled under the same name; and one that is put together in
    another way: its tables elsewhere, its symbols in another order."""
    for name, words in VERSIONS.items():
        folder = path / 'content' / name
        folder.mkdir(parents=True)
        text = CONTENT.replace(*words) if words else CONTENT
        (folder / 'content.c').write_text(text)
        run(folder, 'gcc', '-c', '-O1', '-fno-pic', '-fno-inline', '-ffunction-sections',
            '-fdata-sections', '-o', f'../{name}.o', 'content.c')
    run(path / 'content', 'objcopy', '--globalize-symbol=local', 'first.o', 'step.o')
    run(path / 'content', 'objcopy', '--localize-symbol=local', 'step.o', 'other.o')
    assert (path / 'content' / 'first.o').read_bytes() != \
        (path / 'content' / 'other.o').read_bytes()


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Inputs, command lines, and what the command makes of them."""
    path = tmp_path_factory.mktemp('api')
    (path / 'a.c').write_text(A)
    (path / 'b.c').write_text('int b_value(int x) { return x; }')
    (path / 'c.c').write_text('int b_value(int x) { return x + 1; }')
    (path / 'bad.c').write_text('int gone(void); int b_value(int x) { return x + gone(); }')
    (path / 'hello.c').write_text(HELLO)
    for name in 'a', 'b', 'c', 'bad', 'hello':
        run(path, 'gcc', '-c', '-O1', '-fno-pic', '-ffunction-sections' if name == 'hello'
            else '-fno-asynchronous-unwind-tables', f'{name}.c')
    for name, text in EDITS.items():
        (path / name).mkdir()
        (path / name / 'b.c').write_text(text)
        run(path / name, 'gcc', '-c', '-O1', '-fno-pic', '-fno-asynchronous-unwind-tables', 'b.c')
    run(path, 'ar', 'rcs', 'lib.a', 'b.o')
    run(path, 'ar', 'rcs', 'lib2.a', 'edited/b.o')
    run(path, 'ar', 'rcs', 'twice.a', 'b.o', 'c.o')
    (path / 'bad.o').rename(path / 'full.o')
    # Only the function that refers to what is not there.
    run(path, 'objcopy', '--redefine-sym', 'b_value=other', 'full.o', 'bad.o')
    large(path)
    content(path)
    static = [system_file(path, f) for f in ('crt1.o', 'crti.o', 'crtbeginT.o')]
    dynamic = [system_file(path, f) for f in ('crt1.o', 'crti.o', 'crtbegin.o')]
    end = [system_file(path, f) for f in ('crtend.o', 'crtn.o')]
    libs = [system_file(path, f) for f in ('libgcc.a', 'libgcc_eh.a', 'libc.a')]
    commands = {
        'small': ['a.o', 'lib.a', '--gc-sections', '--build-id=sha1'],
        'dynamic': [*dynamic, 'hello.o', system_file(path, 'libc.so'), *end, '--build-id',
                    '--eh-frame-hdr', '-dynamic-linker', '/lib64/ld-linux-x86-64.so.2'],
        'static': ['-static', *static, 'hello.o', '--start-group', *libs, '--end-group', *end,
                   '--gc-sections', '--icf=all', '--build-id'],
        'large': ['large.o', 'b.o', '--gc-sections', '--build-id'],
    }
    for kind, words in commands.items():
        (path / f'{kind}.args').write_text(''.join(f'{word}\n' for word in words))
        run(path, KLD, *words, '-o', f'{kind}.out')
    for kind, says in ('small', ''), ('dynamic', '42\n'), ('static', '42\n'):
        assert run(path, f'./{kind}.out') == says
    return path


@pytest.fixture(scope='session')
def program(tmp_path_factory):
    """Builds a test program when it is first needed."""
    path = tmp_path_factory.mktemp('programs')

    def build(stem):
        if not (path / stem).exists():
            run(path, 'gcc', '-std=gnu17', '-g', '-O1', '-Wall', '-Wextra', '-Werror', *CFLAGS,
                '-I', str(REPO / 'include'), '-o', stem, str(API / f'{stem}.c'), LIB, *LIBS)
        return path / stem

    return build


@pytest.mark.parametrize('stem, case', CASES, ids=[f'{s}-{c}' for s, c in CASES])
def test_case(program, folder, stem, case):
    env = {**os.environ, 'KLD_TEST_LINKS': LINKS}
    if VARIANT in ('release', 'debug'):
        env['KLD_TEST_RESIDENT'] = '1'
    done = subprocess.run([program(stem), case], cwd=folder, capture_output=True, text=True,
                          timeout=TIMEOUT, env=env)
    assert done.returncode == 0, f'status {done.returncode}\n{done.stdout}{done.stderr}'


def test_example(folder, tmp_path):
    """examples/link_twice.c: two programs out of one process."""
    run(tmp_path, 'gcc', '-std=c11', '-D_POSIX_C_SOURCE=200809L', '-Wall', '-Wextra', '-Werror',
        *CFLAGS, '-I', str(REPO / 'include'), '-o', 'link_twice',
        str(REPO / 'examples' / 'link_twice.c'), LIB, *LIBS)
    run(folder, tmp_path / 'link_twice', tmp_path / 'full', tmp_path / 'small', 'a.o', 'b.o')
    run(tmp_path, './full')
    run(tmp_path, './small')
    assert b'b_value' in (tmp_path / 'full').read_bytes()
    assert b'b_value' not in (tmp_path / 'small').read_bytes()
    failed = subprocess.run([tmp_path / 'link_twice', 'x', 'y', 'bad.o'], cwd=folder, text=True,
                            capture_output=True, timeout=TIMEOUT)
    assert failed.returncode == 1
    assert 'x: error [undefined-symbol]: undefined symbol: gone' in failed.stderr
    assert not (folder / 'x').exists()
