"""The output as a file: where it is written, how it gets its name, what happens when it can not."""

import os
import subprocess
import time

import pytest

from kldtest import KLD
from kldtest import deviates

MAIN = 'int main(void) { return 0; }'


@pytest.fixture
def obj(t):
    return t.cc('a.o', MAIN)


def leftovers(t):
    return [f for f in os.listdir(t.path) if f.startswith('.kld')]


def test_mode_follows_the_umask(t, obj):
    t.link('app', obj)
    t.tool('sh', '-c', f'umask 027; {KLD} -r a.o -o r.o; umask 077; {KLD} -shared a.o -o s.so')
    assert os.stat(t.path / 'r.o').st_mode & 0o777 in (0o640, 0o750)
    assert os.stat(t.path / 's.so').st_mode & 0o777 == 0o700


def test_a_running_program_can_be_replaced(t, obj):
    t.link('app', t.cc('s.o', '#include <unistd.h>\nint main(void) { pause(); return 0; }'))
    running = subprocess.Popen([t.path / 'app'])
    try:
        time.sleep(0.05)
        t.tool(KLD, '-r', obj, '-o', 'app')
    finally:
        running.kill()
        running.wait()


@deviates(mold='writes through the link')
def test_a_symbolic_link_is_replaced(t, obj):
    """As GNU ld, gold and lld do."""
    t.write('real', 'text')
    os.symlink('real', t.path / 'out')
    t.tool(KLD, '-r', obj, '-o', 'out')
    assert not (t.path / 'out').is_symlink()
    assert t.read('real') == 'text'


@deviates(lld='replaces the link')
def test_a_dangling_link_is_written_through(t, obj):
    os.makedirs(t.path / 'dir')
    os.symlink('dir/real', t.path / 'out')
    t.tool(KLD, '-r', obj, '-o', 'out')
    assert (t.path / 'out').is_symlink() and (t.path / 'dir/real').is_file()


def test_dev_null(t, obj):
    t.tool(KLD, '-r', obj, '-o', '/dev/null')
    assert not os.path.isfile('/dev/null')


@deviates(bfd='seeks in its output')
def test_a_pipe(t, obj):
    t.tool(KLD, '-r', obj, '-o', 'r.o')
    t.tool('sh', '-c', f'mkfifo pipe; cat pipe > copy & {KLD} -r a.o -o pipe && wait')
    assert (t.path / 'copy').read_bytes() == (t.path / 'r.o').read_bytes()


@deviates(gold='wants to map its output', mold='wants to map its output', lld='dies of it')
def test_a_full_disk(t, obj):
    t.tool(KLD, '-r', obj, '-o', '/dev/full', ok=False).says('No space left on device')


@pytest.mark.parametrize('out, text', [('none/app', 'No such file or directory'),
                                       ('.', 'directory'), ('a.o/app', 'Not a directory')])
def test_impossible_names(t, obj, out, text):
    result = t.tool(KLD, '-r', obj, '-o', out, ok=False).says(text)
    assert result.stderr.count('error') <= 1 or 'kld' not in result.stderr


def test_an_unwritable_directory(t, obj):
    if os.geteuid() == 0:
        pytest.skip('root may write anywhere')
    os.makedirs(t.path / 'dir', mode=0o555)
    t.tool(KLD, '-r', obj, '-o', 'dir/app', ok=False).says('Permission denied')


@deviates(bfd='removes it', gold='removes it')
def test_a_failed_link_leaves_the_previous_output(t):
    t.write('app', 'previous')
    t.cc('b.o', 'int gone(void); int main(void) { return gone(); }')
    t.tool(KLD, 'b.o', '-o', 'app', ok=False)
    assert t.read('app') == 'previous'
    assert not leftovers(t)


def test_no_temporary_file_stays(t, obj):
    t.link('app', obj)
    assert not leftovers(t)


@deviates(gold='has two sections of that name', mold='has two sections of that name')
def test_zeros_between_contents_take_no_room_on_the_disk(t):
    t.asm('zeros.o', '''
        .section .data.a,"aw",%progbits
        .long 1
        .section .data.b,"aw",%nobits
        .zero 64 << 20
        .section .data.c,"aw",%progbits
        .long 2
        .section .note.GNU-stack,"",%progbits''')
    t.link('app', t.cc('m.o', MAIN), 'zeros.o')
    stat = os.stat(t.path / 'app')
    assert stat.st_size > 64 << 20 > 8 * 512 * stat.st_blocks


def test_job_tokens_come_back(t):
    """make complains at its end when tokens are missing, or there are too many."""
    t.cc('a.o', 'static int x; int *get(void); static int *p(void) { return &x; }')
    os.makedirs(t.path / 'many')
    for i in range(800):  # enough for threads to be worth it
        os.link(t.path / 'a.o', t.path / f'many/{i}.o')
    t.write('Makefile', f'all: a b c\na b c:\n\t+@{KLD} -r many/*.o -o $@\n')
    t.tool('make', '-j3', env={'MAKEFLAGS': ''}).silent()


@deviates(bfd='does not escape names', gold='does not escape names', mold='other escapes')
def test_dependency_file(t):
    t.cc('a b.o', MAIN)
    t.ar('lib$x.a', t.cc('#c.o', 'int c;'))
    t.tool(KLD, '-r', 'a b.o', '--whole-archive', 'lib$x.a', '--dependency-file=app.d', '-o', 'app')
    t.write('Makefile', 'app:\n\t@echo made\ninclude app.d\n')
    quiet = {'MAKEFLAGS': 'r'}
    assert 'up to date' in t.tool('make', 'app', env=quiet).stdout
    for name in 'a b.o', 'lib$x.a':
        later = time.time() + 60
        os.utime(t.path / name, (later, later))
        assert 'made' in t.tool('make', 'app', env=quiet).stdout
        os.utime(t.path / name, (1, 1))
    os.unlink(t.path / 'a b.o')
    assert 'made' in t.tool('make', 'app', env=quiet).stdout
