"""--incremental-verify: silent about what is right, and no byte can be wrong without its saying so.

The hashes of the output would notice any change; reseal.c makes them fit what has been changed, so
that it is noticed by what the bytes have to be."""

import os
import random
import subprocess

import pytest

import inc
from inc import SPLIT
from inc import Link
from inc import Sources
from inc import Stamp
from inc import incremental_only
from kldtest import REPO
from kldtest import only
from test_units import CFLAGS
from test_units import LIB
from test_units import LIBS

pytestmark = incremental_only

C = r'''
    #include <stdio.h>
    #include <string.h>
    int helper(int n);
    extern int number;
    __thread int mine = 4;
    static int local = 3;
    int (*pointer)(int) = helper;
    const char *names[] = {"one", "two", "three"};
    int main(void)
    {
        printf("%s %d %d\n", names[local % 3], helper(number), mine);
        return pointer(1) == 2 && strlen(names[2]) == 5 ? 0 : 1;
    }
'''
PART = r'''
    #include <stdio.h>
    int number = 5;
    static int table[4] = {{1, 2}};
    int helper(int n)
    {{
        {0}
        if (n > 100)
            puts("large {1}");
        return n + table[n & 1] - 1;
    }}
'''
CXX = r'''
    #include <stdexcept>
    #include <string>
    #include <iostream>
    extern "C" int helper(int n);
    struct Base { virtual ~Base() {} virtual int value() const { return 1; } };
    struct Derived : Base { int value() const override { return 2; } };
    thread_local int mine = 7;
    static int check(int n)
    {
        if (n > 2)
            throw std::runtime_error("too large");
        return n;
    }
    int main()
    {
        Base *base = new Derived;
        try {
            check(base->value() + helper(1));
        } catch (std::exception &e) {
            std::cout << e.what() << mine << std::string("a longer string than fits inside") << "\n";
        }
        delete base;
    }
'''


def grown(n):
    return PART.format(inc.growth('if (table[n & 1] == 9) puts("nine");', 40 * n), n)


@pytest.mark.parametrize('flags', [('-O1',), ('-O2', *SPLIT), ('-O0', '-fPIC', *SPLIT)],
                         ids=['unit', 'split', 'pic'])
@pytest.mark.parametrize('kind', ['-pie', '-no-pie', '-static', '-shared', '-Wl,--gc-sections'])
def test_silent(t, kind, flags):
    """What has been linked, and what has been patched."""
    if kind == '-shared' and '-fPIC' not in flags:
        pytest.skip('not for a library')
    s = Sources(t, *flags, main_c=C, part_c=grown(0))
    t.ar('libpart.a', 'part.o')
    app = Link(t, 'app', kind, 'main.o', 'libpart.a')
    app.full()
    app.verify()
    for n in 1, 3, 2, 0:
        s.set('part.c', grown(n))
        t.ar('libpart.a', 'part.o')
        app.right()
    if kind != '-shared':
        app.run(status=0)


@pytest.mark.parametrize('kind', ['-pie', '-static'])
def test_silent_about_exceptions(t, kind):
    s = Sources(t, '-O1', *SPLIT, main_cc=CXX, part_c=grown(0))
    app = Link(t, 'app', kind, 'main.o', 'part.o', via='c++')
    app.full()
    app.verify()
    s.set('part.c', grown(2))
    app.right()
    s.edit('main.cc', 'too large', 'much too large')
    app.right()
    app.run(expect='much too large7a longer string than fits inside\n')


def test_without_incremental(t):
    """--incremental need not be asked for along with it."""
    Sources(t, *SPLIT, main_c=C, part_c=grown(0))
    app = Link(t, 'app', 'main.o', 'part.o')
    app.full()
    before = Stamp.of(app.path), Stamp.of(app.state)
    said = t.tool(*app.command('--incremental-verify'))
    assert said.stdout == said.stderr == ''
    assert before == (Stamp.of(app.path), Stamp.of(app.state))


# -- what does not belong together ----------------------------------------------------------------

@pytest.fixture
def app(t):
    s = Sources(t, '-O1', *SPLIT, main_c=C, part_c=grown(0))
    link = Link(t, 'app', 'main.o', 'part.o', '-Wl,--build-id=none')
    link.sources = s
    link.full()
    return link


def says(app, text, *options):
    said = app.t.tool(*app.command('--incremental-verify', *options), ok=False)
    assert 'error: ' in said.stderr and text in said.stderr, said


def test_no_state(app):
    app.state.unlink()
    says(app, 'there is no state')


def test_no_output(app):
    app.path.unlink()
    says(app, 'cannot open')


def test_state_of_another_output(app):
    app.t.tool('cp', 'app', 'copy')
    os.rename(app.t.path / 'copy', app.path)
    says(app, 'not the file that the state belongs to')


def test_other_options(app):
    says(app, 'options', '-z,now')


def test_other_inputs(app):
    app.args.append('extra.o')
    app.sources.set('extra.c', 'int extra;')
    says(app, 'inputs')


@pytest.mark.parametrize('edit, text', [
    (('number = 5', 'number = 6'), 'part.o'),
    (('{1, 2}', '{1, 2, 7}'), 'part.o'),
    (('int number = 5', 'long number = 5'), 'number'),
    (('int number = 5', 'int another, number = 5'), 'part.o'),
    (('large', 'Large'), 'mergeable contents'),
])
def test_inputs_that_have_changed_since(app, edit, text):
    app.sources.edit('part.c', *edit)
    says(app, text)


def test_undefined(app):
    app.sources.edit('part.c', 'int helper', 'int other')
    says(app, 'part.o')


def test_running_and_read_only(app):
    """Neither is in the way of looking."""
    app.path.chmod(0o555)
    with open(app.path, 'rb'):
        app.verify()


# -- every byte -----------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def reseal(tmp_path_factory):
    program = tmp_path_factory.mktemp('reseal') / 'reseal'
    source = REPO / 'test' / 'link-incremental' / 'reseal.c'
    subprocess.run(['gcc', '-std=gnu17', '-O1', *CFLAGS, '-I', REPO, '-I', REPO / 'include', '-o',
                    program, source, LIB, *LIBS], check=True)
    return program


class Flipper:
    """A patched program, in which bytes are changed one at a time."""

    def __init__(self, t, reseal, *flags):
        self.t, self.reseal = t, reseal
        s = Sources(t, *flags, main_cc=CXX, part_c=grown(0))
        args = ['main.o', 'part.o', '-Wl,--build-id=none']
        self.link = inc.DirectLink(t, 'app', *args, via='c++')
        self.link.full()
        s.set('part.c', grown(2))
        self.link.patched()
        self.data, self.state = self.link.path.read_bytes(), self.link.state.read_bytes()

    def put(self, data, seal=True):
        """In place: the same file, of the same time."""
        times = os.stat(self.link.path)
        with open(self.link.path, 'r+b') as file:
            file.write(data)
        os.utime(self.link.path, ns=(times.st_atime_ns, times.st_mtime_ns))
        with open(self.link.state, 'r+b') as file:
            file.write(self.state)
        if seal:
            self.t.tool(self.reseal, 'app', 'app.kldstate')

    def notices(self, offset, seal=True):
        data = bytearray(self.data)
        data[offset] ^= 0x41
        self.put(data, seal)
        said = self.link.verify(ok=None)
        return said is None or said.status == 1


@only('x86_64')
@pytest.mark.parametrize('flags', [('-O1',), ('-O1', *SPLIT)], ids=['unit', 'split'])
def test_notices(t, reseal, flags):
    flipper = Flipper(t, reseal, *flags)
    chance = random.Random(1)
    flipper.put(flipper.data)
    flipper.link.verify()
    missed = []
    for s in flipper.link.elf().sections:
        if s.type in ('NULL', 'NOBITS') or not s.size:
            continue
        for _ in range(min(s.size, 6)):
            at = chance.randrange(s.size)
            if not flipper.notices(s.offset + at):
                missed.append((s.name, at))
    assert not missed
    assert flipper.notices(flipper.link.elf().section('.text').offset, seal=False)
