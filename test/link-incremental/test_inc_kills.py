"""Relinks that are killed: at each of their writes, before it and in the middle of it, and at random
times. What is left under the output's name is a whole program or nothing, and the next run makes
the right one. (Hazard 9.)"""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

import inc
from inc import SPLIT
from inc import Core
from inc import DirectLink
from inc import Sources
from inc import incremental_only
from kldtest import TIMEOUT
from kldtest import only

pytestmark = only('x86_64')

KILLED = 99
# No patch of a small program needs so many writes.
MOST = 400

TEXT = r'''
    #include <stdio.h>
    static const char *const names[] = {{"one", "number {0}"}};
    static int twice(int n) {{ return 2 * n; }}
    int part(void)
    {{
        {1}
        printf("%s %d\n", names[1], twice({0}));
        return 0;
    }}
'''


@pytest.fixture(scope='module')
def killat(tmp_path_factory):
    """The tracer, where processes may be traced."""
    program = tmp_path_factory.mktemp('killat') / 'killat'
    source = Path(__file__).with_name('killat.c')
    subprocess.run(['gcc', '-std=gnu17', '-O1', '-o', program, source], check=True)
    if subprocess.run([program, '9', 'whole', 'true'], capture_output=True, check=False).returncode:
        pytest.skip('processes cannot be traced here')
    return program


class Victim:
    """A program of three files, and edits that change its code, data and debug information."""

    def __init__(self, t, split, *options):
        self.t, self.options = t, [] if inc.PLAIN else ['--incremental', *options]
        self.s = Sources(t, *split, part_c=TEXT.format(0, ''), other_c='int other = 1;',
                         main_c='int part(void);\nextern int other;\n'
                                'int main(void) { return part() + other; }')
        self.link = DirectLink(t, 'app', '-Wl,--build-id', 'main.o', 'part.o', 'other.o')
        self.link.full(*options)
        self.n = self.good = 0  # the edit, and the last one that was linked undisturbed

    def edit(self):
        """Half of the edits make the function grow, so that it moves, the others make it shrink."""
        self.n += 1
        grown = inc.growth('if (names[0][0] == 7) return 7;', 60 * (self.n % 2) + self.n % 7)
        self.s.set('part.c', TEXT.format(self.n, grown))
        self.s.set('other.c', f'int other = {self.n % 5 + 1};')

    def says(self, n):
        return f'number {n} {2 * n}\n', n % 5 + 1

    def check_what_is_left(self):
        """Nothing, or a program of before (and then older than its inputs, so that make links
        again), or the new one."""
        if not self.link.path.exists():
            return 'nothing'
        done = subprocess.run([self.link.path], capture_output=True, text=True, timeout=TIMEOUT,
                              check=False)
        said = done.stdout, done.returncode
        assert said in [self.says(n) for n in range(self.good, self.n + 1)], said
        if said == self.says(self.n):
            return 'new'
        assert os.stat(self.link.path).st_mtime_ns <= os.stat(self.t.path / 'part.o').st_mtime_ns
        return 'old'

    def check_next(self):
        """The next run, and one more edit."""
        self.link(*self.options[1:])
        self.check()
        self.edit()
        report = self.link(*self.options[1:])
        assert inc.PLAIN or report.outcome == 'PATCHED', report.result
        self.check()

    def check(self):
        expect, status = self.says(self.n)
        self.link.run(expect=expect, status=status)
        self.link.verify()
        self.good = self.n


class RemovedVictim(Victim):
    """The output is removed before each link. named: it has another name, in whose place the next one is
    put, as Cargo does; so that it is patched as a copy."""

    def __init__(self, t, split, named):
        super().__init__(t, split)
        self.other = t.path / 'other-name' if named else None
        self.named = 0
        self.link.path.unlink()
        self.link.falls_back('no-output')
        self.take_name()

    def take_name(self):
        if self.other:
            self.other.unlink(missing_ok=True)
            os.link(self.link.path, self.other)
            self.named = self.n

    def edit(self):
        super().edit()
        self.link.path.unlink(missing_ok=True)

    def check_what_is_left(self):
        left = super().check_what_is_left()
        assert left != 'old'
        self.check_other()
        return left

    def check_other(self):
        if self.other:
            done = subprocess.run([self.other], capture_output=True, text=True, timeout=TIMEOUT,
                                  check=False)
            assert (done.stdout, done.returncode) == self.says(self.named)

    def check_next(self):
        self.link.path.unlink(missing_ok=True)
        super().check_next()

    def check(self):
        super().check()
        self.check_other()
        self.take_name()


def link_and_kill(killat, number, how, victim):
    """Whether the link came to its end: it makes fewer than `number` calls that change a file."""
    done = subprocess.run([killat, str(number), how, *victim.link.command(*victim.options)],
                          cwd=victim.t.path, timeout=TIMEOUT, capture_output=True, check=False)
    assert done.returncode in (0, 1, KILLED), done
    return done.returncode == 0


@pytest.mark.parametrize('how', ['whole', 'half'])
@pytest.mark.parametrize('split', [SPLIT, ()], ids=['split', 'unit'])
def test_h09_killed_at_every_write_of_a_patch(t, killat, how, split):
    victim, left = Victim(t, split), []
    for number in range(1, MOST):
        victim.edit()
        if link_and_kill(killat, number, how, victim):
            victim.check()
            break
        left.append(victim.check_what_is_left())
        victim.check_next()
    else:
        pytest.fail(f'is not done after {MOST} writes')
    assert len(left) >= 3, left


@pytest.mark.parametrize('how', ['whole', 'half'])
def test_h09_killed_at_every_write_of_the_first_link(t, killat, how):
    victim = Victim(t, SPLIT)
    for number in range(1, MOST):
        for file in victim.link.path, victim.link.state:
            file.unlink(missing_ok=True)
        victim.edit()
        ended = link_and_kill(killat, number, how, victim)
        assert victim.check_what_is_left() in ('nothing', 'new')
        victim.check_next()
        if ended:
            break
    else:
        pytest.fail(f'is not done after {MOST} writes')


@pytest.mark.parametrize('how', ['whole', 'half'])
def test_h09_killed_at_every_write_of_a_fall_back(t, killat, how):
    victim = Victim(t, SPLIT)
    for number in range(1, MOST):
        victim.edit()
        text = t.read('other.c')
        victim.s.set('other.c', f'{text}\nint global_{number};')
        ended = link_and_kill(killat, number, how, victim)
        victim.check_what_is_left()
        victim.link(*victim.options[1:])
        victim.check()
        if ended:
            break
    else:
        pytest.fail(f'is not done after {MOST} writes')


@incremental_only
@pytest.mark.parametrize('how', ['whole', 'half'])
@pytest.mark.parametrize('named', [False, True], ids=['alone', 'named'])
def test_h09_killed_at_every_write_of_an_output_that_is_removed(t, killat, how, named):
    victim, left = RemovedVictim(t, SPLIT, named), []
    for number in range(1, MOST):
        victim.edit()
        if link_and_kill(killat, number, how, victim):
            victim.check()
            break
        left.append(victim.check_what_is_left())
        victim.check_next()
    else:
        pytest.fail(f'is not done after {MOST} writes')
    assert {'nothing', 'new'} == set(left), left


# What a link finds that has to do with the kept name, but for edits of an output that is removed.
FOUND = {
    'none yet': lambda victim: (victim.link.patched(), RemovedVictim.edit(victim)),
    'nothing to do': lambda victim: victim.link.path.unlink(),
    'fall back': lambda victim: (RemovedVictim.edit(victim), victim.s.set(
        'other.c', f'{victim.t.read("other.c")}\nint global_{victim.n};')),
    'output is there': Victim.edit,
}


@incremental_only
@pytest.mark.parametrize('found', FOUND)
def test_h09_killed_at_every_write_around_a_kept_name(t, killat, found):
    victim, kept = RemovedVictim(t, SPLIT, False), t.path / 'app.kldstate.kept'
    for number in range(1, MOST):
        for _ in range(2):
            victim.link.path.unlink(missing_ok=True)
            victim.link(*victim.options[1:])
        assert kept.exists()
        FOUND[found](victim)
        ended = link_and_kill(killat, number, 'whole', victim)
        Victim.check_what_is_left(victim)
        victim.link(*victim.options[1:])
        victim.check()
        if ended:
            break
    else:
        pytest.fail(f'is not done after {MOST} writes')
    assert number > 3


@incremental_only
@pytest.mark.parametrize('how', ['whole', 'half'])
def test_h09_killed_at_every_write_with_a_state_elsewhere(t, killat, how):
    """On another file system, if there is one: nothing can be renamed across."""
    state = Path('/dev/shm') / f'kld-test-{os.getpid()}'
    victim = Victim(t, SPLIT, f'--incremental-state={state}')
    try:
        for number in range(1, MOST):
            victim.edit()
            done = subprocess.run([killat, str(number), how, *victim.link.command(*victim.options)],
                                  cwd=t.path, timeout=TIMEOUT, capture_output=True, check=False)
            if done.returncode == 0:
                break
            victim.check_what_is_left()
            victim.link(*victim.options[1:])
            expect, status = victim.says(victim.n)
            victim.link.run(expect=expect, status=status)
    finally:
        state.unlink(missing_ok=True)


@incremental_only
def test_h09_the_reason_after_a_kill(t, killat):
    """A patch that was killed between its writes is known as such."""
    core, slugs = Core(t, *SPLIT), set()
    app = DirectLink(t, 'app_a', *core.a.args)
    app.full()
    for number in range(1, 60):
        core.edit('table.c', f'{9 + number})', f'{10 + number})')
        done = subprocess.run([killat, str(number), 'whole', *app.command('--incremental')],
                              cwd=t.path, timeout=TIMEOUT, check=False)
        if done.returncode == 0:
            break
        slugs.add(app().slug)
        app.run(status=46 + number)
    assert slugs <= {None, 'state-untrusted', 'no-output', 'output-changed', 'state-damaged'}, slugs
    assert slugs & {'state-untrusted', 'no-output'}


@pytest.mark.parametrize('seed', range(2))
def test_h09_killed_at_random_times(t, seed):
    rng, victim = random.Random(seed), Victim(t, SPLIT if seed else ())
    command = victim.link.command(*victim.options)
    began = time.monotonic()
    subprocess.run(command, cwd=t.path, check=True, timeout=TIMEOUT)
    usual = time.monotonic() - began
    for _ in range(40):
        victim.edit()
        with subprocess.Popen(command, cwd=t.path, stderr=subprocess.DEVNULL,
                              start_new_session=True) as job:
            time.sleep(rng.random() * usual)
            os.killpg(job.pid, 9)
        victim.check_what_is_left()
        if rng.random() < 0.3:  # several times in a row
            continue
        victim.link(*victim.options[1:])
        victim.check()
