"""What goes wrong around a link: the disk is full, a signal comes, an input is not there or changes.

test_output_file.py has what concerns the output's name.
"""

import os
import resource
import signal
import subprocess
import time

import pytest

from kldtest import KLD
from kldtest import TIMEOUT
from kldtest import deviates

MAIN = 'int main(void) { return 0; }'
BIG = '__attribute__((section(".data"))) char big[3 << 20] = {1};\n' + MAIN


def leftovers(folder):
    return [f for f in os.listdir(folder) if f.startswith('.kld')]


def open_fifo(path):
    """The writing end, once somebody reads."""
    end = time.monotonic() + 30
    while True:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.set_blocking(fd, True)
            return open(fd, 'wb')
        except OSError:
            assert time.monotonic() < end, 'nobody reads'
            time.sleep(0.01)


def small_files():
    """As `ulimit -f`: what is written beyond a megabyte fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


@deviates(bfd='dies of a signal', gold='dies of a signal', lld='dies of a signal',
          mold='dies of a signal')
@pytest.mark.parametrize('threads', [1, 4])
def test_file_size_limit(t, threads):
    t.cc('a.o', BIG)
    done = subprocess.run([KLD, f'--threads={threads}', '-r', 'a.o', '-o', 'out'], cwd=t.path,
                          capture_output=True, text=True, timeout=TIMEOUT, preexec_fn=small_files)
    assert done.returncode == 1, done
    assert 'File too large' in done.stderr and done.stderr.count('error') == 1
    assert not t.exists('out') and not leftovers(t.path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte, where that can be had."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', folder]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip('may not mount a file system')
    yield folder
    subprocess.run(['umount', '-l', folder], check=False)


@deviates(lld='dies of a signal', mold='dies of a signal', gold='dies of a signal')
@pytest.mark.parametrize('threads', [1, 4])
def test_full_disk(t, small_disk, threads):
    t.cc('a.o', BIG)
    (small_disk / 'out').write_text('previous')
    done = subprocess.run([KLD, f'--threads={threads}', '-r', 'a.o', '-o', 'disk/out'], cwd=t.path,
                          capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 1, done
    assert 'disk/out' in done.stderr and 'No space left on device' in done.stderr
    assert not leftovers(small_disk)


@deviates(bfd='removes it', gold='dies of a signal', lld='dies of a signal', mold='dies of a signal')
def test_full_disk_keeps_the_previous_output(t, small_disk):
    t.cc('a.o', BIG)
    (small_disk / 'out').write_text('previous')
    t.tool(KLD, '-r', 'a.o', '-o', 'disk/out', ok=False)
    assert (small_disk / 'out').read_text() == 'previous'


@deviates(bfd='writes into the file itself', gold='waits for the input', lld='waits for the input',
          mold='waits for the input')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_leaves_no_temporary_file(t, number):
    """The map goes to a pipe that nobody reads: the link stops when its output is written."""
    t.cc('a.o', MAIN)
    t.write('out', 'previous')
    os.mkfifo(t.path / 'map')
    def heed():  # a job in the background of a shell ignores SIGINT
        signal.signal(number, signal.SIG_DFL)
    with subprocess.Popen([KLD, '-r', 'a.o', '-o', 'out', '-Map=map'], cwd=t.path,
                          preexec_fn=heed) as linker:
        end = time.monotonic() + 30
        while not leftovers(t.path) and time.monotonic() < end:
            time.sleep(0.01)
        assert leftovers(t.path), 'was not waiting'
        linker.send_signal(number)
        assert linker.wait(TIMEOUT) == -number
    assert not leftovers(t.path)
    assert t.read('out') == 'previous'


def test_an_ignored_signal_stays_ignored(t):
    """nohup, and what a shell runs in the background."""
    t.cc('a.o', MAIN)
    os.mkfifo(t.path / 'a.fifo')
    script = f'trap "" HUP INT; exec {KLD} -r a.fifo -o out'
    with subprocess.Popen(['sh', '-c', script], cwd=t.path) as linker:
        time.sleep(0.05)
        with open_fifo(t.path / 'a.fifo') as fifo:  # it is waiting to read
            linker.send_signal(signal.SIGINT)
            linker.send_signal(signal.SIGHUP)
            time.sleep(0.05)
            fifo.write((t.path / 'a.o').read_bytes())
        assert linker.wait(TIMEOUT) == 0
    assert t.exists('out')


@pytest.mark.parametrize('args, texts', [
    (['gone.o'], ['gone.o', 'No such file or directory']),
    (['a.o', 'gone.a', 'gone.so'], ['gone.a', 'gone.so']),
    (['a.o', '-L.', '-lgone'], ['-lgone']),
    (['a.o', '-l:gone.a'], ['gone.a']),
    (['a.o', '.'], ['.', 'directory']),
    (['a.o', 'a.o/b.o'], ['a.o/b.o', 'Not a directory']),
    (['a.o', '--version-script=gone.map'], ['gone.map', 'No such file or directory']),
    (['a.o', '--dynamic-list=gone.list'], ['gone.list', 'No such file or directory']),
    (['@gone.rsp'], ['gone.rsp']),
    (['a.o', 'text'], ['text']),
], ids=['object', 'two', 'library', 'exact', 'folder', 'below-a-file', 'version-script',
        'dynamic-list', 'response', 'text'])
def test_missing_inputs(t, args, texts):
    t.cc('a.o', MAIN)
    t.write('text', 'this is not an object')
    t.tool(KLD, *args, '-shared', '-o', 'out', ok=False).says(*texts)
    assert not t.exists('out') and not leftovers(t.path)


def test_all_missing_inputs_are_named(t):
    result = t.tool(KLD, 'x.o', 'y.o', '-lz1', '-lz2', '-o', 'out', ok=False)
    assert [w for w in ('x.o', 'y.o', '-lz1', '-lz2') if w not in result.stderr] == []


def test_an_unreadable_input(t):
    t.cc('a.o', MAIN)
    os.chmod(t.path / 'a.o', 0)
    if os.access(t.path / 'a.o', os.R_OK):
        pytest.skip('root may read anything')
    t.tool(KLD, '-r', 'a.o', '-o', 'out', ok=False).says('a.o', 'Permission denied')


@deviates(strict=False, bfd='reads only what it needs', gold='dies of a signal',
          lld='dies of a signal', mold='dies of a signal')
def test_an_input_that_shrinks(t):
    """An object is cut short while it is mapped: a message, no output, no temporary file."""
    t.cc('a.o', BIG)
    os.mkfifo(t.path / 'b.o')
    with subprocess.Popen([KLD, '-r', 'a.o', 'b.o', '-o', 'out'], cwd=t.path, text=True,
                          stderr=subprocess.PIPE) as linker:
        with open_fifo(t.path / 'b.o') as fifo:  # a.o has been mapped by now
            time.sleep(0.1)
            os.truncate(t.path / 'a.o', 100)
            fifo.write(b'')
        error = linker.communicate(timeout=TIMEOUT)[1]
    assert linker.returncode != 0 and 'error: ' in error
    assert not t.exists('out') and not leftovers(t.path)


@deviates(bfd='knows no other way', gold='other words', lld='other words', mold='other words')
@pytest.mark.parametrize('option', ['-Map=none/map', '--dependency-file=none/d',
                                    '--reproduce=none/r.tar', '--why-extract=none/w'])
def test_reports_that_cannot_be_written(t, option):
    t.cc('a.o', MAIN)
    t.tool(KLD, '-r', 'a.o', '-o', 'out', option, ok=False).says('none/', 'No such file')
    assert not t.exists('out') and not leftovers(t.path)


def test_closed_standard_streams(t):
    """The output must not become file 1 or 2 and be written over by messages."""
    t.cc('a.o', MAIN)
    t.tool('sh', '-c', f'{KLD} -r a.o -o one <&- >&- 2>&-; {KLD} -r a.o -o two')
    assert (t.path / 'one').read_bytes() == (t.path / 'two').read_bytes()


@deviates(bfd='says nothing', gold='says nothing', lld='says nothing', mold='says nothing')
def test_a_full_standard_output(t):
    t.cc('a.o', MAIN)
    t.tool('sh', '-c', f'{KLD} -r a.o -o out --print-map >/dev/full', ok=False).says('output')


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (40 << 20, 40 << 20))


@pytest.mark.skipif(os.environ.get('KLD_VARIANT', 'release') not in ('release', 'debug'),
                    reason='sanitizers need their address space')
@deviates(strict=False, bfd='has room', gold='has room', lld='dies of it', mold='dies of it')
def test_no_memory(t):
    """Address space for the program and little more: exit status 1 and a word on why."""
    t.asm('a.o', '.data\n.fill 60 << 20, 1, 1\n')
    done = subprocess.run([KLD, '-r', 'a.o', '-o', 'out'], cwd=t.path, capture_output=True,
                          text=True, timeout=TIMEOUT, preexec_fn=limit_memory, check=False)
    assert done.returncode == 1 and 'memory' in done.stderr, done
    assert not t.exists('out') and not leftovers(t.path)
