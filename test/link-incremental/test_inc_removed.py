"""Incremental links of an output that somebody removes before each of them, as Cargo does: the second
name that it has then, and what may have become of the file of that name.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from inc import SPLIT
from inc import Link
from inc import Sources
from inc import Stamp
from inc import incremental_only
from kldtest import TIMEOUT
from kldtest import only
from test_faults import small_disk  # noqa: F401 (a fixture)
from test_inc_files import PROGRAM
from test_inc_files import WAITER
from test_inc_files import Small
from test_inc_files import as_nobody  # noqa: F401 (a fixture)
from test_inc_files import ask
from test_inc_files import fill
from test_inc_files import start

pytestmark = [only('x86_64'), incremental_only]


def kept_of(link):
    return Path(f'{link.state}.kept')


def names_of(path):
    return os.stat(path).st_nlink


def learn(link):
    """What a link cannot know before it has seen it once."""
    assert not kept_of(link).exists()
    link.path.unlink()
    link.falls_back('no-output')
    assert os.path.samefile(link.path, kept_of(link))


class Removed(Small):
    """A program that is removed before each link."""

    def __init__(self, t):
        super().__init__(t)
        learn(self.link)
        self.run()

    @property
    def kept(self):
        return kept_of(self.link)

    def remove(self):
        self.link.path.unlink()
        self.take()

    def patched(self, *options):
        """With the next number."""
        self.remove()
        report = self.link.patched(*options)
        assert report.atoms
        self.run()
        assert os.path.samefile(self.link.path, self.kept)


@pytest.fixture
def removed(t):
    return Removed(t)


# -- patches --------------------------------------------------------------------------------------

def test_patched_from_then_on(removed):
    for _ in range(4):
        removed.patched()
    assert names_of(removed.kept) == 2
    assert sorted(f.name for f in removed.t.path.glob('app*')) == ['app', 'app.kldstate', 'app.kldstate.kept']


def test_in_place_if_nobody_else_has_it(removed):
    """Where the file system says who has it: where an output with one name is patched in place."""
    t = removed.t
    other = Link(t, 'other', 'main.o')
    other.full()
    inode = other.path.stat().st_ino
    removed.take()
    other.patched()
    in_place = other.path.stat().st_ino == inode
    inode = removed.kept.stat().st_ino
    removed.patched()
    assert (removed.kept.stat().st_ino == inode) == in_place


def test_other_names_keep_what_they_have(removed):
    """Cargo gives each program a name in another folder, and leaves it there until it has a new one."""
    t = removed.t
    for n in range(3):
        os.link(removed.link.path, t.path / f'copy{n}')
        before, number = Stamp.of(t.path / f'copy{n}'), removed.number
        removed.patched()
        assert Stamp.of(t.path / f'copy{n}') == before
        t.run(f'copy{n}', status=number)
        assert names_of(t.path / f'copy{n}') == 1


def test_running_program(t):
    """What it runs from has no name any more but the one that is kept."""
    s = Sources(t, *SPLIT, main_c=WAITER)
    app = Link(t, 'app', 'main.o')
    app.full()
    learn(app)
    with start(t, './app') as process:
        s.edit('main.c', 'return 1;', 'return 2;')
        app.path.unlink()
        app.patched()
        assert ask(process) == '1\n'
        t.tool('sh', '-c', 'test "$(echo | ./app | tail -n 1)" = 2')
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize('names', [0, 1])
def test_nothing_to_do_but_to_be_there(removed, names):
    """The output is new, as whoever compares times expects; other names do not notice."""
    t = removed.t
    os.utime(t.path / 'main.o')
    if names:
        os.link(removed.link.path, t.path / 'copy')
        before = Stamp.of(t.path / 'copy')
    for _ in range(2):
        data, mode = removed.link.path.read_bytes(), os.stat(removed.link.path).st_mode
        removed.link.path.unlink()
        removed.link.patched().nothing()
        removed.run()
        assert removed.link.path.read_bytes() == data and os.stat(removed.link.path).st_mode == mode
        assert os.stat(removed.link.path).st_mtime_ns >= os.stat(t.path / 'main.o').st_mtime_ns
        if names:
            assert Stamp.of(t.path / 'copy') == before
    removed.patched()


def test_fall_backs_in_between(removed):
    """For another reason: the full link keeps its output, too."""
    t = removed.t
    removed.link.args.insert(0, '-Wl,-z,now')
    removed.remove()
    removed.link.falls_back('options')
    removed.run()
    removed.patched()
    removed.link.path.unlink()
    removed.link.full('--incremental-full')
    removed.run()
    removed.patched()
    data = t.path.joinpath('main.o').read_bytes()
    t.write('main.o', b'not an object')
    removed.link.path.unlink()
    removed.link(ok=False)
    t.write('main.o', data)
    removed.link.patched().nothing()
    removed.patched()


@pytest.mark.parametrize('damage', [b'no state', bytes(8192)], ids=['text', 'zeros'])
def test_state_that_is_damaged(removed, damage):
    removed.link.state.write_bytes(damage)
    removed.remove()
    removed.link()
    removed.run()
    removed.patched()


def test_output_is_a_symbolic_link(removed):
    """Its target is removed."""
    t = removed.t
    removed.link.path.rename(t.path / 'real')
    removed.link.path.symlink_to('real')
    removed.take()
    removed.link.patched()
    (t.path / 'real').unlink()
    removed.link.falls_back('no-output')
    (t.path / 'real').unlink()
    removed.take()
    removed.link.patched()
    removed.run()
    assert removed.link.path.is_symlink() and os.path.samefile(t.path / 'real', removed.kept)


def test_verify_wants_the_output(removed):
    removed.link.path.unlink()
    said = removed.t.tool(*removed.link.command('--incremental', '--incremental-verify'), ok=False)
    said.says('cannot open app')
    assert removed.kept.exists() and not removed.link.path.exists()


# -- an output that stays -------------------------------------------------------------------------

def test_output_stays_again(removed):
    """It has one name again, and is patched as ever."""
    for _ in range(3):
        removed.take()
        removed.link.patched()
        removed.run()
        assert not removed.kept.exists() and names_of(removed.link.path) == 1
    learn(removed.link)
    removed.patched()


def test_output_stays_and_there_is_nothing_to_do(removed):
    before = Stamp.of(removed.link.path)
    for _ in range(2):
        removed.link.patched().nothing()
        assert not removed.kept.exists() and Stamp.of(removed.link.path) == before


@pytest.mark.parametrize('option', [None, '--incremental-full'])
def test_output_stays_and_is_linked_fully(removed, option):
    removed.take()
    if option:
        removed.link.full(option)
    else:
        removed.link.plain('app')
        removed.link.falls_back('output-changed')
    removed.run()
    assert not removed.kept.exists() and names_of(removed.link.path) == 1
    removed.take()
    removed.link.patched()
    removed.run()


# -- a kept file that is another ------------------------------------------------------------------

def edited(kept):
    """A byte, at the time of before."""
    stat = os.stat(kept)
    with open(kept, 'r+b') as file:
        file.seek(stat.st_size // 2)
        file.write(b'!')
    os.utime(kept, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def edited_between(kept):
    """Where there is nothing: behind all contents, or at a hole."""
    stat, data = os.stat(kept), kept.read_bytes()
    with open(kept, 'r+b') as file:
        file.seek(data.index(bytes(256)) + 128)
        file.write(b'!')
    os.utime(kept, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def touched(kept):
    os.utime(kept)


def replaced(kept):
    shutil.copy2(kept, f'{kept}-copy')
    os.replace(f'{kept}-copy', kept)


def another_program(kept):
    shutil.copy('/bin/true', kept)


def cut_short(kept):
    os.truncate(kept, 1000)


def longer(kept):
    with open(kept, 'ab') as file:
        file.write(b'more')


def empty(kept):
    os.truncate(kept, 0)


def gone(kept):
    kept.unlink()


def symbolic_link(kept):
    kept.rename(kept.with_name('elsewhere'))
    kept.symlink_to('elsewhere')


def dangling_link(kept):
    kept.unlink()
    kept.symlink_to('elsewhere')


def folder(kept):
    kept.unlink()
    kept.mkdir()


def fifo(kept):
    kept.unlink()
    os.mkfifo(kept)


TAMPERED = [edited, edited_between, touched, replaced, another_program, cut_short, longer, empty, gone,
            symbolic_link, dangling_link, folder, fifo]


@pytest.mark.parametrize('edit', [True, False], ids=['edit', 'same'])
@pytest.mark.parametrize('tamper', TAMPERED, ids=[f.__name__ for f in TAMPERED])
def test_kept_file_is_another(removed, tamper, edit):
    t, kept = removed.t, removed.kept
    removed.link.path.unlink()
    tamper(kept)
    mode = os.lstat(kept).st_mode if os.path.lexists(kept) else None
    elsewhere = Stamp.of(t.path / 'elsewhere') if t.exists('elsewhere') else None
    if edit:
        removed.take()
    removed.link.falls_back('no-output', 'output-changed')
    removed.run()
    assert elsewhere is None or Stamp.of(t.path / 'elsewhere') == elsewhere
    assert elsewhere or not t.exists('elsewhere')
    if tamper in (symbolic_link, dangling_link, folder, fifo):
        assert os.lstat(kept).st_mode == mode  # it is left alone
        shutil.rmtree(kept) if tamper is folder else kept.unlink()
        learn(removed.link)
    removed.patched()


def test_kept_file_of_an_earlier_link(removed):
    """The state and the kept name were put back: they agree with each other, not with the inputs."""
    t = removed.t
    os.link(removed.kept, t.path / 'saved')
    shutil.copy2(removed.link.state, t.path / 'state')
    removed.patched()
    os.replace(t.path / 'saved', removed.kept)
    removed.link.path.unlink()
    removed.link.falls_back('no-output')
    os.link(removed.kept, t.path / 'saved')
    removed.patched()
    os.replace(t.path / 'state', removed.link.state)
    removed.link.path.unlink()
    removed.link()
    removed.run()
    removed.link.verify()


def test_state_of_another_output(t):
    """Both are removed; each state finds the kept file of the other."""
    Sources(t, *SPLIT, one_c=PROGRAM.format(1), two_c=PROGRAM.format(2))
    links = [Link(t, 'a', 'one.o'), Link(t, 'b', 'two.o')]
    for link in links:
        link.full()
        learn(link)
    os.rename(t.path / 'a.kldstate.kept', t.path / 'c')
    os.rename(t.path / 'b.kldstate.kept', t.path / 'a.kldstate.kept')
    os.rename(t.path / 'c', t.path / 'b.kldstate.kept')
    for n, link in enumerate(links, 1):
        link.path.unlink()
        link.falls_back('no-output')
        link.run(status=n)


# -- where it is ----------------------------------------------------------------------------------

def test_state_elsewhere(removed):
    t = removed.t
    t.write('states/.keep', '')
    option = '--incremental-state=states/app'
    removed.link.full(option)
    for outcome in 'FELL_BACK_FULL', 'PATCHED', 'PATCHED':
        removed.remove()
        report = removed.link(option)
        assert report.outcome == outcome, report.result
        removed.run()
        removed.link.verify(option)
        assert os.path.samefile(removed.link.path, t.path / 'states/app.kept')


def test_state_on_another_file_system(t):
    """A file has names on its own one alone: nothing is kept."""
    state = Path('/dev/shm') / f'kld-test-{os.getpid()}'
    if not state.parent.exists() or os.stat(state.parent).st_dev == os.stat(t.path).st_dev:
        pytest.skip('there is one file system')
    Sources(t, *SPLIT, main_c=PROGRAM.format(1))
    app, option = Link(t, 'app', 'main.o'), f'--incremental-state={state}'
    try:
        app.full(option)
        for _ in range(3):
            app.path.unlink()
            app.falls_back('no-output', options=[option])
            app.run(status=1)
            assert not Path(f'{state}.kept').exists()
        app.patched(option).nothing()
    finally:
        state.unlink(missing_ok=True)


def test_state_is_removed_as_well(removed):
    """A rule that cleans up does not know of the kept file: it stays until it is needed again."""
    inode = removed.kept.stat().st_ino
    removed.link.path.unlink()
    removed.link.state.unlink()
    removed.link.full()
    removed.take()
    removed.link.patched()
    removed.run()
    assert removed.kept.stat().st_ino == inode
    removed.link.path.unlink()
    removed.link.falls_back('no-output')
    removed.patched()
    assert removed.kept.stat().st_ino != inode


# -- several links, no room, no permission --------------------------------------------------------

@pytest.mark.parametrize('edit', [True, False], ids=['edit', 'same'])
def test_links_at_once(removed, edit):
    for _ in range(12):
        removed.link.path.unlink()
        if edit:
            removed.take()
        removed.link.at_once(3)
        removed.run()
        removed.link.path.unlink()
        removed.link()
        removed.run()
        removed.link.verify()
    removed.link.path.unlink()
    removed.link()
    removed.patched()


def test_full_disk(t, small_disk):
    """Two names, so that a copy is needed, for which there is no room."""
    s = Sources(t, *SPLIT, main_c=PROGRAM.format(1))
    app = Link(t, 'disk/app', 'main.o')
    app.full()
    learn(app)
    for n in 2, 3:
        os.link(app.path, small_disk / f'copy{n}')
        app.path.unlink()
        fill(small_disk)
        s.set('main.c', PROGRAM.format(n))
        done = subprocess.run(app.command('--incremental'), cwd=t.path, capture_output=True, text=True,
                              timeout=TIMEOUT, check=False)
        assert done.returncode == 1 and 'No space left on device' in done.stderr
        assert not app.path.exists()
        assert subprocess.run([small_disk / f'copy{n}'], check=False).returncode == n - 1
        (small_disk / 'filler').unlink()
        app()
        app.run(status=n)
        app.verify()


def test_folders_that_may_not_be_written(as_nobody):
    """That of the output: an error, as always. That of the state: nothing is kept."""
    run = as_nobody
    (run.folder / 'states').mkdir(mode=0o777)
    os.chmod(run.folder / 'states', 0o777)
    options = ['--incremental', '--incremental-report', '--incremental-state=states/app']

    def link(n, status=0, verify=True):
        run.take(n)
        (run.folder / 'out/app').unlink(missing_ok=True)
        os.chmod(run.folder / 'out', 0o555 if status else 0o755)
        said = run(*options, status=status)
        if not status:
            run('--incremental', '-o', 'out/other')
            os.remove(run.folder / 'out/other.kldstate')
            assert (run.folder / 'out/app').stat().st_size == (run.folder / 'out/other').stat().st_size
        if not status and verify:
            run('--incremental', '--incremental-verify', options[2])
        return said

    link(1)
    assert 'no-output' in link(2).stdout
    assert 'PATCHED' in link(3).stdout
    said = link(1, status=1)
    assert 'out/app' in said.stderr and 'Permission denied' in said.stderr
    assert 'PATCHED' in link(2).stdout
    os.chmod(run.folder / 'states', 0o555)
    assert 'output-read-only' in link(3, verify=False).stdout  # nor is there a state
    os.chmod(run.folder / 'states', 0o777)
    link(1)
    assert 'PATCHED' in link(2).stdout
