"""Incremental links and the files around them: the output, its state, the inputs' times, the options.

Numbers are those of the hazards; see test_inc_hazards.py.
"""

import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import inc
from inc import DISTRUST
from inc import SPLIT
from inc import Core
from inc import Link
from inc import Sources
from inc import Stamp
from inc import incremental_only
from kldtest import KLD
from kldtest import TIMEOUT
from kldtest import only
from test_faults import small_disk  # noqa: F401 (a fixture)

pytestmark = only('x86_64')

PROGRAM = 'static volatile int value = {};\nint main(void)\n{{\n    return value;\n}}\n'


class Small:
    """A program of one object that returns a number, and ready-made objects for some numbers."""

    def __init__(self, t, numbers=5, *flags):
        self.t, s = t, Sources(t, *SPLIT)
        self.objects = {}
        for n in range(1, numbers + 1):
            s.set('main.c', PROGRAM.format(n))
            self.objects[n] = (t.path / 'main.o').read_bytes()
        self.link = Link(t, 'app', *flags, 'main.o')
        self.number = 0
        self.take()
        self.link.full()

    def take(self):
        """The object for another number than before."""
        self.number = self.number % len(self.objects) + 1
        self.t.write('main.o', self.objects[self.number])

    def run(self):
        self.link.run(status=self.number)


@pytest.fixture
def small(t):
    return Small(t)


# -- 7: an output that is in use ------------------------------------------------------------------

WAITER = r'''
    #include <stdio.h>
    int number(void) { return 1; }
    int main(void)
    {
        char line[9];
        puts("ready");
        fflush(stdout);
        while (fgets(line, sizeof line, stdin)) {
            printf("%d\n", number());
            fflush(stdout);
        }
        return 0;
    }
'''


def ask(process):
    process.stdin.write('?\n')
    process.stdin.flush()
    return process.stdout.readline()


def start(t, *command):
    process = subprocess.Popen(command, cwd=t.path, text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, env={**os.environ, 'LD_LIBRARY_PATH': '.'})
    assert process.stdout.readline() == 'ready\n'
    return process


def test_h07_running_program(t):
    """It goes on undisturbed; the new one takes the name."""
    s = Sources(t, *SPLIT, main_c=WAITER)
    app = Link(t, 'app', 'main.o')
    app.full()
    with start(t, './app') as process:
        assert ask(process) == '1\n'
        s.edit('main.c', 'return 1;', 'return 2;')
        app.right()
        assert ask(process) == '1\n'
        t.tool('sh', '-c', 'test "$(echo | ./app | tail -n 1)" = 2')
        s.edit('main.c', 'return 2;', 'return 3;')
        app.patched()  # the new file is used by nobody
        assert ask(process) == '1\n'
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def test_h07_running_program_and_nothing_to_do(t):
    Sources(t, *SPLIT, main_c=WAITER)
    app = Link(t, 'app', 'main.o')
    app.full()
    with start(t, './app') as process:
        before = Stamp.of(app.path)
        app.patched().nothing()
        assert inc.PLAIN or Stamp.of(app.path) == before
        process.stdin.close()


def test_h07_library_of_a_running_program(t):
    s = Sources(t, *SPLIT, '-fPIC', lib_c='int number(void) { return 1; }',
                main_c=WAITER.replace('int number(void) { return 1; }', 'int number(void);'))
    lib = Link(t, 'libx.so', '-shared', 'lib.o')
    lib.full()
    t.link('app', 'main.o', 'libx.so')
    with start(t, './app') as process:
        s.edit('lib.c', 'return 1;', 'return 2;')
        lib.right()
        assert ask(process) == '1\n'
        process.stdin.close()
    t.tool('sh', '-c', 'test "$(echo | LD_LIBRARY_PATH=. ./app | tail -n 1)" = 2')


def test_h07_open_elsewhere(small):
    """Somebody reads it, or maps it: what he sees does not change while he does."""
    with open(small.link.path, 'rb') as file:
        before = file.read()
        small.take()
        small.link.right()
        file.seek(0)
        assert file.read() == before
    small.run()
    small.take()
    small.link.patched()
    small.run()


# -- 10: an output that is not the one that was written -------------------------------------------

def strip(t):
    t.tool('strip', 'app')


def strip_debug(t):
    t.objcopy('--strip-debug', 'app')


def add_section(t):
    t.write('note', 'text')
    t.objcopy('--add-section', '.extra=note', 'app')


def copy_over(t):
    """Equal bytes, in the same file, but somebody else's."""
    shutil.copy(t.path / 'app', t.path / 'copy')
    shutil.copy(t.path / 'copy', t.path / 'app')


def another_file(t):
    shutil.copy2(t.path / 'app', t.path / 'copy')
    os.replace(t.path / 'copy', t.path / 'app')


def another_program(t):
    shutil.copy('/bin/true', t.path / 'app')


def cut_short(t):
    os.truncate(t.path / 'app', 1000)


def empty(t):
    os.truncate(t.path / 'app', 0)


def longer(t):
    with open(t.path / 'app', 'ab') as file:
        file.write(b'more')


def edited(t):
    """A byte, at the time of before."""
    stat = os.stat(t.path / 'app')
    with open(t.path / 'app', 'r+b') as file:
        file.seek(stat.st_size // 2)
        file.write(b'!')
    os.utime(t.path / 'app', ns=(stat.st_atime_ns, stat.st_mtime_ns))


DISTURBED = [strip, strip_debug, add_section, copy_over, another_file, another_program, cut_short,
             empty, longer, edited]


@pytest.mark.parametrize('edit', [True, False], ids=['edit', 'same'])
@pytest.mark.parametrize('disturb', DISTURBED, ids=[f.__name__ for f in DISTURBED])
def test_h10_the_output_is_another(small, disturb, edit):
    disturb(small.t)
    if edit:
        small.take()
    small.link.falls_back('output-changed')
    small.run()
    small.take()
    small.link.patched()
    small.run()


def test_h10_an_older_output_is_restored(small):
    shutil.copy2(small.link.path, small.t.path / 'saved')
    small.take()
    small.link.patched()
    shutil.copy2(small.t.path / 'saved', small.link.path)
    small.link.falls_back('output-changed')
    small.run()


def test_h10_an_older_output_and_its_state_are_restored(small):
    """As a build cache does: they agree with each other, and not with the inputs."""
    for name in 'app', 'app.kldstate':
        if small.t.exists(name):
            shutil.copy2(small.t.path / name, small.t.path / f'saved-{name}')
    small.take()
    small.link.patched()
    for name in 'app', 'app.kldstate':
        if small.t.exists(name):
            os.replace(small.t.path / f'saved-{name}', small.t.path / name)
    small.link.right()
    small.run()


@incremental_only
def test_h10_the_state_of_another_output(t):
    core = Core(t, *SPLIT).full()
    shutil.copy2(core.b.state, core.a.state)
    core.edit('table.c', '10)', '20)')
    core.a.falls_back('output-changed', 'options', 'inputs', *DISTRUST)
    core.b.patched()
    core.run(56, 58)


def test_h10_a_plain_link_in_between(small):
    """It writes another output under the name; the state does not know of it."""
    small.take()
    small.link.plain('app')
    small.run()
    small.take()
    small.link.falls_back('output-changed')
    small.run()


# -- 11: times ------------------------------------------------------------------------------------

def test_h11_same_size_and_time(small):
    """Another content in the same file, of the same size, at the same time to the nanosecond."""
    stat = os.stat(small.t.path / 'main.o')
    for _ in range(4):
        small.take()
        os.utime(small.t.path / 'main.o', ns=(stat.st_atime_ns, stat.st_mtime_ns))
        now = os.stat(small.t.path / 'main.o')
        assert (now.st_size, now.st_mtime_ns, now.st_ino) == (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        small.link.patched()
        small.run()


@pytest.mark.parametrize('time', [0, 1, 1e9, 4e9], ids=['epoch', 'archive', 'past', 'future'])
def test_h11_any_time(small, time):
    """Fixed times, as tools for reproducible builds set them; clocks that are wrong."""
    for _ in range(3):
        small.take()
        os.utime(small.t.path / 'main.o', (time, time))
        small.link.patched()
        small.run()


def test_h11_edits_in_quick_succession(small):
    for _ in range(30):
        small.take()
        small.link.patched(verify=False)
        small.run()
    small.link.verify()


def test_h11_replaced_by_rename(small):
    for _ in range(3):
        stat = os.stat(small.t.path / 'main.o')
        small.take()
        os.replace(small.t.path / 'main.o', small.t.path / 'new')
        os.utime(small.t.path / 'new', ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.replace(small.t.path / 'new', small.t.path / 'main.o')
        small.link.patched()
        small.run()


def test_h11_older_archive(t):
    """An archive whose members have no times, restored with an older time than the output's."""
    core = Core(t, *SPLIT).full()
    core.edit('table.c', '10)', '20)')
    os.utime(t.path / 'libcore.a', (1e9, 1e9))
    core.a.patched()
    core.a.run(status=56)


def age(path, days=3):
    """What nobody has changed for days; its other times are of now."""
    then = time.time() - days * 86400
    os.utime(path, (then, then))


def test_h11_archive_that_was_old(t):
    """Of one that nobody seems to work on there are no hashes, until somebody does."""
    core = Core(t, *SPLIT)
    age(t.path / 'libcore.a')
    core.full()
    core.edit('table.c', '10)', '20)')
    core.a.falls_back('archive')
    core.a.run(status=56)
    for before, now, status in ('20)', '30)', 66), ('30)', '10)', 46):
        core.edit('table.c', before, now)
        core.a.patched()
        core.a.run(status=status)


def test_h11_full_link_takes_over_what_is_known_of_archives(t):
    core = Core(t, *SPLIT).full()
    age(t.path / 'libcore.a')
    core.a.patched()
    core.a.args.append('-Wl,-z,now')
    core.a.falls_back('options')
    core.edit('table.c', '10)', '20)')
    core.a.patched()
    core.a.run(status=56)


@pytest.mark.parametrize('other', ['code', 'names'])
def test_h11_full_link_takes_over_nothing_that_has_changed(t, other):
    """A relink that gave up had read the archive before, or had only seen that it was another."""
    s = Sources(t, *SPLIT, one_c='int one(void) { return 1; }', two_c='int two(void) { return 2; }',
                main_c='int one(void), two(void); int main(void) { return one() * 10 + two(); }')
    for name in 'one', 'two':
        t.ar(f'lib{name}.a', f'{name}.o')
    app = Link(t, 'app', 'main.o', 'libone.a', 'libtwo.a')
    app.full()
    app.run(status=12)
    first = (t.path / 'one.o').read_bytes()
    s.set('one.c', 'int one(void) { return 3; }')
    t.ar('libone.a', 'one.o')
    if other == 'names':
        s.set('two.c', 'int two(void) { return 2; } int three(void) { return 3; }')
        t.ar('libtwo.a', 'two.o')
    else:
        s.set('main.c', 'int one(void), two(void); int main(void) { return one() * 10 + two(); } int more;')
    app.falls_back()
    app.run(status=32)
    t.write('one.o', first)
    t.ar('libone.a', 'one.o')
    app.patched()
    app.run(status=12)


# -- 12: files that are deleted -------------------------------------------------------------------

def test_h12_no_output(small):
    small.link.path.unlink()
    small.link.falls_back('no-output')
    small.run()
    small.take()
    small.link.patched()


@incremental_only
def test_h12_no_state(small):
    small.link.state.unlink()
    small.take()
    small.link.full()
    small.run()
    small.take()
    small.link.patched()
    small.link.path.unlink()
    small.link.state.unlink()
    small.link.full()
    small.run()


def test_h12_output_is_a_link(small):
    """A symbolic link to the output is not a regular file of that name."""
    t = small.t
    (t.path / 'app').rename(t.path / 'real')
    (t.path / 'app').symlink_to('real')
    small.take()
    small.link.right()
    small.run()


@incremental_only
def test_h12_output_has_a_second_name(small):
    """A hard link: `cp -l` of a build folder; the other name keeps what it had."""
    os.link(small.link.path, small.t.path / 'other')
    before = (small.t.path / 'other').read_bytes()
    small.take()
    small.link()
    small.run()
    small.link.verify()
    small.t.run('other', status=1)
    assert (small.t.path / 'other').read_bytes() == before


# -- 13: a folder that moves ----------------------------------------------------------------------

def test_h13_moved_build_folder(t):
    folder = type(t)(t.path / 'old', t.target, t.linker_dir)
    folder.path.mkdir()
    core = Core(folder, *SPLIT).full()
    folder.path.rename(t.path / 'new')
    folder.path = t.path / 'new'
    core.edit('table.c', '10)', '20)')
    core.a.right()
    core.b.right()
    core.run(56, 58)
    assert not t.exists('old')


@pytest.mark.parametrize('command', ['cp -r', 'cp -a'])
def test_h13_copied_build_folder(t, command):
    """The copy is a build of its own: nothing happens to the first one."""
    folder = type(t)(t.path / 'old', t.target, t.linker_dir)
    folder.path.mkdir()
    core = Core(folder, *SPLIT, link=(f'-L{folder.path}',)).full()
    t.tool('sh', '-c', f'{command} old new')
    before = {f.name: Stamp.of(f) for f in folder.path.iterdir()}
    folder.path = t.path / 'new'
    core.edit('table.c', '10)', '20)')
    core.a.falls_back()
    core.a.run(status=56)
    core.a.patched().nothing()
    assert before == {f.name: Stamp.of(f) for f in (t.path / 'old').iterdir()}


def test_h13_another_working_directory(t):
    """The same command from elsewhere means other files."""
    where = []
    for name, n in ('one', 1), ('two', 2):
        folder = type(t)(t.path / name, t.target, t.linker_dir)
        folder.path.mkdir()
        Sources(folder, *SPLIT, main_c=PROGRAM.format(n))
        where.append(Link(folder, '../app', 'main.o'))
    where[0].full()
    t.run('app', status=1)
    where[1].right()
    t.run('app', status=2)
    where[0].right()
    t.run('app', status=1)


# -- 14: options and the environment --------------------------------------------------------------

def test_h14_environment(small):
    """LD_RUN_PATH is part of what the output is made of."""
    small.link.right(env={'LD_RUN_PATH': '/somewhere'})
    small.t.tool(*small.link.command(out='plain'), env={'LD_RUN_PATH': '/somewhere'})
    for tag in 'RPATH', 'RUNPATH':
        assert small.link.elf().dyn_strings(tag) == small.t.elf('plain').dyn_strings(tag)


def test_h14_response_file(t):
    s = Sources(t, *SPLIT, main_c=PROGRAM.format(1))
    t.write('args', 'main.o -z now')
    app = Link(t, 'app', '-Wl,@args')
    app.full()
    s.set('main.c', PROGRAM.format(2))
    app.patched()
    app.run(status=2)
    t.write('args', 'main.o -z lazy')
    app.falls_back('options')


def test_h14_clang_and_gcc(t):
    """Drivers pass names of temporary files that differ each time."""
    for compiler in 'gcc', 'clang':
        t.compiler = compiler
        folder = type(t)(t.path / compiler, t.target, t.linker_dir, compiler)
        folder.path.mkdir()
        core = Core(folder, *SPLIT).full()
        core.edit('table.c', '10)', '20)')
        core.a.patched()
        core.a.run(status=56)


def test_h14_a_driver_that_compiles_and_links(t):
    """The object is a temporary file under another name each time."""
    t.write('main.c', PROGRAM.format(1))
    app = Link(t, 'app', 'main.c')
    app.full()
    t.write('main.c', PROGRAM.format(2))
    app.patched(verify=False)  # (which would compile once more)
    app.run(status=2)


# -- 15, 16: libraries ----------------------------------------------------------------------------

def test_h15_shared_library_in_an_earlier_folder(t):
    for folder, n in ('early', 2), ('late', 1):
        t.write(f'{folder}/.keep', '')
        t.link(f'{folder}/libf.so', '-shared', '-Wl,-soname,' + str(t.path / folder / 'libf.so'),
               t.cc(f'{folder}.o', f'int f(void) {{ return {n}; }}', '-fPIC'))
    (t.path / 'early/libf.so').rename(t.path / 'early/libf')
    main = t.cc('main.o', 'int f(void);\nint main(void) { return f(); }')
    app = Link(t, 'app', '-Learly', '-Llate', main, '-lf')
    app.full()
    app.run(status=1)
    (t.path / 'early/libf').rename(t.path / 'early/libf.so')
    app.falls_back('search')
    app.run(status=2)
    shutil.rmtree(t.path / 'early')
    app.falls_back('search', 'inputs')
    app.run(status=1)


def archive(t):
    for name, text in (('one', 'int one(void) { return 1; }'), ('two', 'int two(void) { return 2; }'),
                       ('extra', 'int extra(void) { return 4; }'), ('again', 'int one(void) { return 8; }')):
        t.cc(f'{name}.o', text, '-g', *SPLIT)
    t.ar('libx.a', 'one.o', 'two.o')
    main = t.cc('main.o', 'int one(void), two(void);\nint main(void) { return one() + two(); }')
    app = Link(t, 'app', main, 'libx.a')
    app.full()
    app.run(status=3)
    return app


def test_h16_member_added_that_nobody_needs(t):
    app = archive(t)
    t.ar('libx.a', 'extra.o')
    app.right()
    app.run(status=3)
    assert not app.elf().symbol('extra')


def test_h16_member_added_that_comes_first(t):
    app = archive(t)
    (t.path / 'libx.a').unlink()
    t.ar('libx.a', 'again.o', 'one.o', 'two.o')
    app.falls_back('archive')
    app.run(status=10)


def test_h16_order_of_members(t):
    app = archive(t)
    t.ar('libx.a', 'again.o')
    app.right()
    app.run(status=3)
    (t.path / 'libx.a').unlink()
    t.ar('libx.a', 'two.o', 'again.o', 'one.o')
    app.falls_back('archive')
    app.run(status=10)


def test_h16_member_replaced_by_one_of_another_name(t):
    """As rustc names its objects anew with each build."""
    app = archive(t)
    (t.path / 'libx.a').unlink()
    shutil.copy(t.path / 'one.o', t.path / 'renamed.o')
    t.ar('libx.a', 'renamed.o', 'two.o')
    app.patched()
    app.run(status=3)


@pytest.mark.parametrize('symbols', [True, False], ids=['file symbols', 'none'])
def test_h16_all_members_have_other_names(t, symbols):
    """Contents and names change together; the names of the last time come back as those of others."""
    app, names = archive(t), {'one': 'one.o', 'two': 'two.o'}
    for n, (one, two) in enumerate([('x.o', 'y.o'), ('y.o', 'x.o'), ('y.o', 'x.o'), ('a-longer-name.o', 'y.o'),
                                    ('same.o', 'same.o'), ('one.o', 'two.o')], 5):
        t.cc('one.o', f'static int more;\nint one(void) {{ return {n} + more; }}', '-g', *SPLIT)
        names = {'one': one, 'two': two}
        (t.path / 'libx.a').unlink()
        for source, name in names.items():
            t.write(f'{source}/.keep', '')
            shutil.copy(t.path / f'{source}.o', t.path / source / name)
            if not symbols:  # then the linker makes some, of the names of the members
                t.objcopy('--strip-debug', '--strip-symbol=one.c', '--strip-symbol=two.c', f'{source}/{name}')
        t.tool('ar', 'qcs', 'libx.a', *[f'{source}/{name}' for source, name in names.items()])
        report = app()
        assert n == 5 or inc.PLAIN or report.outcome == 'PATCHED', report.result
        app.verify()
        app.run(status=n + 2)
        if not symbols:
            files = [s.name for s in app.elf().symbols if s.type == 'FILE']
            assert one in files


def test_h16_members_without_names(t):
    """With --whole-archive they are part of the link; the index does not list them."""
    s = Sources(t, *SPLIT, main_c='int one(void);\nint main(void) { return one(); }',
                one_c='int one(void) { return 1; }')
    say = '#include <stdio.h>\nstatic __attribute__((constructor)) void f(void) {{ puts("{}"); }}'.format
    for name in 'abc':
        s.set(f'{name}.c', say(name))
    app = Link(t, 'app', 'main.o', '-Wl,--whole-archive', 'libx.a', '-Wl,--no-whole-archive')

    def link(members, outcome, expect):
        (t.path / 'libx.a').unlink(missing_ok=True)
        t.ar('libx.a', *members.split())
        report = app()
        assert inc.PLAIN or report.outcome == outcome, report.result
        app.verify()
        app.run(status=1, expect=expect)

    link('one.o a.o', 'FULL', 'a\n')
    link('one.o a.o b.o', 'FELL_BACK_FULL', 'a\nb\n')
    link('one.o b.o a.o', 'FELL_BACK_FULL', 'b\na\n')
    link('b.o one.o a.o', 'FELL_BACK_FULL', 'b\na\n')
    link('b.o one.o c.o', 'FELL_BACK_FULL', 'b\nc\n')
    link('b.o one.o', 'FELL_BACK_FULL', 'b\n')
    s.set('b.c', say('B'))
    link('b.o one.o', 'PATCHED', 'B\n')


def test_h16_member_removed(t):
    """Its symbol is found nowhere now; then it is there again."""
    app = archive(t)
    before = app.path.read_bytes()
    t.tool('ar', 'd', 'libx.a', 'two.o')
    said = app(ok=False)
    said.result.says('undefined', 'two')
    assert not app.path.exists() or app.path.read_bytes() == before
    t.ar('libx.a', 'two.o')
    app()
    app.verify()
    app.run(status=3)


def test_h16_thin_archive(t):
    app = archive(t)
    (t.path / 'libx.a').unlink()
    t.ar('libx.a', 'one.o', 'two.o', flags='rcsT')
    app.right()
    app.run(status=3)
    t.cc('two.o', 'int two(void) { return 6; }', '-g', *SPLIT)  # the archive itself stays
    app.patched()
    app.run(status=7)


def test_h16_same_member_twice(t):
    """Two members of one name."""
    app = archive(t)
    for folder, n in ('x', 3), ('y', 5):
        t.write(f'{folder}/.keep', '')
        t.cc(f'{folder}/m.o', f'int {folder}_f(void) {{ return {n}; }}', *SPLIT)
    t.tool('ar', 'qcs', 'libm2.a', 'x/m.o', 'y/m.o')
    main = t.cc('user.o', 'int x_f(void), y_f(void);\nint main(void) { return x_f() * 10 + y_f(); }')
    app = Link(t, 'app2', main, 'libm2.a')
    app.full()
    app.run(status=35)
    t.cc('y/m.o', 'int y_f(void) { return 6; }', *SPLIT)
    (t.path / 'libm2.a').unlink()
    t.tool('ar', 'qcs', 'libm2.a', 'x/m.o', 'y/m.o')
    app.patched()
    app.run(status=36)


# -- 26: reasons, in every form -------------------------------------------------------------------

@incremental_only
def test_h26_report_is_one_line(small):
    said = small.link().result
    assert said.stdout == 'incremental: PATCHED: 0 files changed, 0 atoms written, 0 moved, 0 references\n'
    assert said.stderr == ''
    quiet = small.t.tool(*small.link.command('--incremental'))
    assert quiet.stdout == quiet.stderr == ''


@incremental_only
def test_h26_json(t):
    core = Core(t, *SPLIT)
    say = lambda: inc.json_report(t.tool(*core.a.command(
        '--incremental', '--incremental-report', '--diagnostics=json')))
    assert say().outcome == 'FULL'
    core.edit('table.c', '10)', '20)')
    report = say()
    assert report.outcome == 'PATCHED' and report.files == 1
    core.edit('state.c', 'char g_name', 'int g_new;\nchar g_name')
    assert say().slug in ('new-global', 'archive')


@incremental_only
def test_h26_numbers_of_reasons_differ(t):
    core, numbers = Core(t, *SPLIT), {}
    core.a.args[-1:] = [u.replace('.c', '.o') for u in core.UNITS]
    core.a.full()
    def note(report):
        number = report.result.stdout.split('FELL_BACK_FULL: ')[1].split()[0]
        assert numbers.setdefault(report.slug, number) == number
    note((core.a.path.unlink(), core.a())[1])
    core.edit('state.c', 'char g_name', 'int g_new = 1;\nchar g_name')
    note(core.a())
    core.edit('state.c', 'int g_new = 1;\n', '')
    note(core.a())
    core.a.args.insert(0, '-Wl,-z,now')
    note(core.a())
    core.a.args.append(t.cc('extra.o', 'int extra;'))
    note(core.a())
    assert len(numbers) == 5 == len(set(numbers.values()))


@incremental_only
def test_h26_counters(t):
    core = Core(t, *SPLIT).full()
    core.edit('table.c', '10)', '20)')
    core.a.patched()
    core.edit('state.c', 'char g_name', 'int g_new = 1;\nchar g_name')
    core.a()
    stats = core.a.stats()
    assert {k: v for k, v in stats.items() if k in ('full links', 'patched', 'fell back')} in (
        {'full links': 1, 'patched': 2, 'fell back': 1}, {'full links': 2, 'patched': 2, 'fell back': 1})
    assert stats['whole-program resolutions'] == 2


@incremental_only
@pytest.mark.parametrize('option, via', [
    ('-r', None), ('--emit-relocs', 'cc'), ('--icf=all', 'cc'), ('-s', 'cc'),
    ('--compress-debug-sections=zlib', 'cc')])
def test_h26_what_cannot_be_patched_is_said(t, option, via):
    s = Sources(t, *SPLIT, main_c=PROGRAM.format(1))
    app = Link(t, 'app', option if via is None else f'-Wl,{option}', 'main.o', via=via)
    first = app()
    assert first.outcome in ('FULL', 'FELL_BACK_FULL')
    s.set('main.c', PROGRAM.format(2))
    second = app()
    assert second.slug == 'mode' or second.outcome == 'FULL' and second.text
    assert first.result.stderr.count('warning') <= 1
    if via:
        app.run(status=2)


# -- 27: two links at once ------------------------------------------------------------------------

@pytest.mark.parametrize('edit', [True, False], ids=['edit', 'same'])
def test_h27_links_at_once(small, edit):
    """All succeed; the output is right, and so is what comes after."""
    for _ in range(12):
        if edit:
            small.take()
        small.link.at_once(3)
        small.run()
        small.link()
        small.run()
        small.link.verify()
    small.take()
    small.link.patched()
    small.run()


def test_h27_links_of_different_inputs_to_one_output(t):
    """Whoever is last wins, with a whole program."""
    links = []
    for n in 1, 2:
        Sources(t, *SPLIT, **{f'm{n}_c': PROGRAM.format(n)})
        links.append(Link(t, 'app', f'm{n}.o'))
    for _ in range(10):
        jobs = [subprocess.Popen(link.command(*([] if inc.PLAIN else ['--incremental'])), cwd=t.path)
                for link in links]
        assert [job.wait(TIMEOUT) for job in jobs] == [0, 0]
        done = subprocess.run([t.path / 'app'], timeout=TIMEOUT, check=False)
        assert done.returncode in (1, 2)
        links[1]()
        links[1].run(status=2)
        links[1].verify()


# -- 28: no room, no permission -------------------------------------------------------------------

def fill(folder):
    """Leaves no room."""
    with open(folder / 'filler', 'wb', buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


def test_h28_full_disk_at_a_patch(t, small_disk):
    """A patch or an error; the program is a whole one, or not there; and with room all is right."""
    s = Sources(t, *SPLIT, main_c=PROGRAM.format(1))
    app = Link(t, 'disk/app', 'main.o')
    app.full()
    for n, size in (2, 3), (3, 3000), (4, 3):
        fill(small_disk)
        s.set('main.c', PROGRAM.format(n).replace('value = ', 'more[%d] = {7}, value = ' % size)
              .replace('return value', 'return value + more[0] - 7'))
        options = [] if inc.PLAIN else ['--incremental']
        done = subprocess.run(app.command(*options), cwd=t.path, capture_output=True, text=True,
                              timeout=TIMEOUT, check=False)
        assert done.returncode in (0, 1), done
        if done.returncode == 0:
            app.run(status=n)
        else:
            assert 'No space left on device' in done.stderr
            if app.path.exists():
                assert subprocess.run([app.path], check=False).returncode == n - 1
        (small_disk / 'filler').unlink()
        app()
        app.run(status=n)
        app.verify()


@incremental_only
def test_h28_no_room_for_the_state(t, small_disk):
    """The program is linked all the same."""
    s = Sources(t, *SPLIT, main_c=PROGRAM.format(1))
    fill(small_disk)
    app = Link(t, 'app', 'main.o')
    option = '--incremental-state=disk/state'
    said = app(option).result
    assert said.stderr.count('warning') == 1 and 'state' in said.stderr, said
    app.run(status=1)
    (small_disk / 'filler').unlink()
    s.set('main.c', PROGRAM.format(2))
    app(option)
    app.run(status=2)
    s.set('main.c', PROGRAM.format(3))
    app.patched(option)
    app.run(status=3)


@incremental_only
def test_h28_folder_of_the_state_is_not_there(small):
    said = small.link('--incremental-state=none/state').result
    assert said.stderr.count('warning') == 1 and 'state' in said.stderr, said
    small.run()


@pytest.fixture
def as_nobody(t):
    """Runs commands as a user whom permissions concern, in a folder of his."""
    if os.geteuid():
        pytest.skip('only root may run commands as somebody else')
    folder = Path(tempfile.mkdtemp())
    shutil.copy(KLD, folder / 'kld')
    os.chown(folder, 65534, 65534)
    for n in 1, 2, 3:
        name = t.cc(f'm{n}.o', PROGRAM.format(n).replace('main', '_start'), *SPLIT, '-ffreestanding')
        shutil.copy(t.path / name, folder)

    def run(*options, status=0):
        options = [o for o in options if not inc.PLAIN or 'incremental' not in o]
        done = subprocess.run([folder / 'kld', '-o', 'out/app', 'main.o', *options], cwd=folder,
                              user=65534, group=65534, capture_output=True, text=True,
                              timeout=TIMEOUT, check=False)
        assert done.returncode == status, done
        return done

    def take(n):
        shutil.copy(folder / f'm{n}.o', folder / 'main.o')
        os.chmod(folder / 'main.o', 0o644)
    run.folder, run.take = folder, take
    (folder / 'out').mkdir()
    os.chown(folder / 'out', 65534, 65534)
    yield run
    shutil.rmtree(folder)


def test_h28_output_that_may_not_be_written(as_nobody):
    """It is replaced, as every linker does."""
    run = as_nobody
    run.take(1)
    run('--incremental')
    os.chmod(run.folder / 'out/app', 0o555)
    run.take(2)
    said = run('--incremental', '--incremental-report')
    assert inc.PLAIN or ' output-read-only: ' in said.stdout or 'PATCHED' in said.stdout
    run('--incremental', '-o', 'out/other')
    assert (run.folder / 'out/app').read_bytes() == (run.folder / 'out/other').read_bytes()


def test_h28_folder_that_may_not_be_written(as_nobody):
    """The output itself may be: as with a plain link, it is written, or an error says why not."""
    run = as_nobody
    run.take(1)
    run('--incremental')
    os.chmod(run.folder / 'out', 0o555)
    run.take(2)
    run('--incremental')
    run('--incremental', '-o', 'other')
    assert (run.folder / 'out/app').read_bytes() == (run.folder / 'other').read_bytes()
    os.chmod(run.folder / 'out', 0o755)
    run.take(3)
    run('--incremental')
    run('--incremental', '--incremental-verify')


def test_h28_neither_folder_nor_output_may_be_written(as_nobody):
    run = as_nobody
    run.take(1)
    run('--incremental')
    before = Stamp.of(run.folder / 'out/app')
    os.chmod(run.folder / 'out', 0o555)
    os.chmod(run.folder / 'out/app', 0o555)
    run.take(2)
    said = run('--incremental', status=1)
    assert 'out/app' in said.stderr and 'Permission denied' in said.stderr
    assert Stamp.of(run.folder / 'out/app') == before


@incremental_only
def test_h28_state_that_may_not_be_written_or_read(as_nobody):
    run = as_nobody
    run.take(1)
    run('--incremental')
    for mode in 0o444, 0:
        os.chmod(run.folder / 'out/app.kldstate', mode)
        for n in 2, 3:
            run.take(n)
            run('--incremental')
            run('--incremental', '-o', 'out/other')
            os.remove(run.folder / 'out/other.kldstate')
            assert b'' != (run.folder / 'out/app').read_bytes()
        run('--incremental', '--incremental-verify')


# -- a state that is damaged ----------------------------------------------------------------------

def survives(small, data):
    """With this state and an edit: right, patched or not."""
    small.link.state.write_bytes(data)
    small.take()
    report = small.link()
    small.run()
    # What a patch had no use for is damaged as before.
    said = small.link.verify(ok=None if report.outcome == 'PATCHED' else True)
    assert not said or not said.status or 'error: the state is damaged' in said.stderr
    return report


@incremental_only
def test_state_cut_short(small):
    size = small.link.state.stat().st_size
    lengths = [1, 4, 8, 15, 16, 63, 64, 100, 512, 4095, 4096, 4097]
    for length in sorted({*lengths, *range(size // 20, size, size // 20), size - 1}):
        if length < size:
            state = small.link.state.read_bytes()
            report = survives(small, state[:length])
            assert report.slug in DISTRUST, f'{length} of {size} bytes: {report.result}'


@incremental_only
def test_state_that_is_longer(small):
    report = survives(small, small.link.state.read_bytes() + bytes(5000))
    assert report.outcome == 'PATCHED' or report.slug in DISTRUST


@incremental_only
@pytest.mark.parametrize('seed', range(2))
def test_state_with_flipped_bits(small, seed):
    """At the front, where all is looked at, and anywhere."""
    rng = random.Random(seed)
    size = small.link.state.stat().st_size
    places = [*rng.sample(range(128), 40), *rng.sample(range(128, min(size, 4096)), 30),
              *[rng.randrange(size) for _ in range(80)]]
    for place in places:
        state = bytearray(small.link.state.read_bytes())
        state[min(place, len(state) - 1)] ^= 1 << rng.randrange(8)
        survives(small, bytes(state))


@incremental_only
def test_state_with_blocks_of_zeros(small):
    """What a power failure may leave."""
    size = small.link.state.stat().st_size
    for start in range(0, size, max(512, size // 16)):
        state = bytearray(small.link.state.read_bytes())
        state[start:start + 512] = bytes(min(512, len(state) - start))
        survives(small, bytes(state))


@incremental_only
@pytest.mark.parametrize('garbage', [b'', b'\0', bytes(4096), bytes(range(256)) * 300, b'text\n' * 100,
                                     b'\x7fELF' + bytes(10000), b'\xff' * 70000],
                         ids=['empty', 'nul', 'zeros', 'bytes', 'text', 'elf', 'ones'])
def test_state_that_is_none(small, garbage):
    report = survives(small, garbage)
    assert report.outcome == 'FULL' or report.slug in DISTRUST
    small.take()
    small.link.patched()


@incremental_only
def test_state_that_is_a_folder(small):
    small.link.state.unlink()
    small.link.state.mkdir()
    small.take()
    small.link()
    small.run()


@incremental_only
def test_state_of_an_earlier_link(small):
    """The output was patched since: it is not the one that this state knows."""
    state = small.link.state.read_bytes()
    small.take()
    small.link.patched()
    report = survives(small, state)
    assert report.slug in DISTRUST, report.result


@incremental_only
def test_state_after_an_error(small):
    """A link that fails leaves the good output; the next one is right."""
    t = small.t
    before = Stamp.of(small.link.path)
    t.cc('main.o', 'int missing(void);\nint main(void) { return missing(); }', *SPLIT)
    for _ in range(2):
        small.link(ok=False).result.says('undefined', 'missing')
        assert not small.link.path.exists() or Stamp.of(small.link.path) == before
    t.write('main.o', b'not an object')
    small.link(ok=False)
    (t.path / 'main.o').unlink()
    small.link(ok=False).result.says('main.o', 'No such file')
    small.take()
    small.link()
    small.run()
    small.link.verify()


# -- the other options ----------------------------------------------------------------------------

@incremental_only
def test_state_elsewhere(small):
    """--incremental-state=FILE: another file means another history."""
    t = small.t
    small.link.state.unlink()
    t.write('states/.keep', '')
    option = '--incremental-state=states/app'
    small.link.full(option)
    small.take()
    small.link.patched(option)
    small.run()
    assert not small.link.state.exists() and t.exists('states/app')
    small.take()
    small.link.full('--incremental-state=states/other')
    small.run()
    small.take()
    small.link.falls_back('output-changed', options=[option])
    small.run()


@incremental_only
def test_two_outputs_with_one_state(t):
    core = Core(t, *SPLIT)
    option = '--incremental-state=state'
    core.a.full(option)
    for app, status in (core.b, 48), (core.a, 46), (core.b, 48):
        report = app(option)
        assert report.outcome != 'PATCHED', report.result
        app.run(status=status)


@incremental_only
def test_full_on_request(small):
    small.take()
    small.link.full('--incremental-full')
    small.run()
    small.take()
    small.link.patched()
    small.run()


@incremental_only
def test_named_changes(t):
    """--incremental-changed=FILE: only what it lists is looked at."""
    text = 'int f{0}(void) {{ return {1}; }}\n'.format
    s = Sources(t, *SPLIT, a_c=text(1, 10), b_c=text(2, 20),
                main_c='int f1(void), f2(void);\nint main(void) { return f1() + f2(); }')
    app = Link(t, 'app', 'main.o', 'a.o', 'b.o')
    app.full()
    s.set('a.c', text(1, 11))
    s.set('b.c', text(2, 22))
    option = '--incremental-changed=changed'
    t.write('changed', 'a.o\n')
    app.patched(option, verify=False)
    app.run(status=31)
    t.write('changed', '')
    app.patched(option, verify=False).nothing()
    app.run(status=31)
    t.write('changed', 'main.o\nb.o\nnot-an-input.o\n')
    app.patched(option)
    app.run(status=33)
    app.patched().nothing()
    t.write('changed', 'a.o')
    s.set('a.c', text(1, 12) + text(3, 30))
    app.falls_back('new-global', options=[option])
    app.run(status=34)


@incremental_only
def test_named_changes_of_a_file_that_is_not_there(small):
    """All are looked at then."""
    small.take()
    small.link('--incremental-changed=none')
    small.run()


@incremental_only
@pytest.mark.parametrize('code, data', [(0, 0), (100, 100), (300, 0)])
def test_slack(t, code, data):
    core = Core(t, *SPLIT)
    plain = core.a.plain() and (t.path / 'plain').stat().st_size
    options = [f'--incremental-code-slack={code}', f'--incremental-data-slack={data}']
    core.a.full(*options)
    core.edit('table.c', '10)', '20)')
    core.a.right(*options)
    core.a.run(status=56)
    assert core.a.path.stat().st_size >= plain


@incremental_only
@pytest.mark.parametrize('option', ['--incremental-code-slack=-1', '--incremental-code-slack=many',
                                    '--incremental-data-slack='])
def test_slack_that_is_none(small, option):
    small.link(option, ok=False).result.says('slack')


def test_many_files_at_once(t):
    """Nearly all have changed: patched or not, and right."""
    s = Sources(t, *SPLIT)
    names = [f'f{n}' for n in range(30)]
    text = 'int {0}(void) {{ return {1}; }}\n'.format
    for name in names:
        s.set(f'{name}.c', text(name, 1))
    s.set('main.c', ''.join(f'int {n}(void);\n' for n in names) + 'int main(void) { return ' +
          ' + '.join(f'{n}()' for n in names) + '; }')
    app = Link(t, 'app', 'main.o', *[f'{n}.o' for n in names])
    app.full()
    app.run(status=30)
    for count in 30, 10, 29:
        for name in names[:count]:
            s.set(f'{name}.c', text(name, 3))
        app.right()
        for name in names[count:]:
            s.set(f'{name}.c', text(name, 1))
        app.right()
        app.run(status=3 * count + (30 - count))


def test_entries_of_the_got_run_out(t):
    """An edit refers to 600 functions of a shared library that are known, but had no slot yet."""
    count = 600
    s = Sources(t, '-fPIC', *SPLIT, many_c=''.join(f'int f{n}(void) {{ return {n}; }}\n'
                                                   for n in range(count)))
    s.set('user.c', 'int user(void) { return 0; }')
    lib = Link(t, 'libx.so', '-shared', 'user.o', 'many.o')
    lib.full()
    t.link('app', t.cc('main.o', 'int user(void);\nint main(void) { return user() & 127; }'), 'libx.so')
    for few in 1, 3, count:
        s.set('user.c', ''.join(f'int f{n}(void);\n' for n in range(few)) +
              'int user(void) {\nint sum = 0;\n' + ''.join(f'sum += f{n}();\n' for n in range(few)) +
              'return sum;\n}')
        if few < count:
            lib.patched()
        else:
            lib.falls_back('slots', 'no-room', 'undefined')
        t.run('app', status=sum(range(few)) & 127)
