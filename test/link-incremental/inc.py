"""What the tests of incremental links share: a link that is repeated after edits, what it reports,
and the fixture.

KLD_INC_PLAIN=1 checks the tests themselves: all links are plain full ones (by any linker), and what
only incremental links promise is not asserted. KLD_INC_VERIFY=0 leaves --incremental-verify out.
"""

import json
import os
import re
import shlex
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from kldtest import KLD
from kldtest import Result
from kldtest import TIMEOUT

PLAIN = bool(os.environ.get('KLD_INC_PLAIN'))
VERIFY = not PLAIN and os.environ.get('KLD_INC_VERIFY') != '0'
FIXTURE = Path(__file__).parent / 'fixture'
SPLIT = ('-ffunction-sections', '-fdata-sections')

incremental_only = pytest.mark.skipif(PLAIN, reason='checks nothing with plain links')

# Why a link fell back. The numbers belong to the linker; what they are called is fixed here.
SLUGS = {
    'no-output', 'output-changed', 'output-busy', 'output-read-only', 'state-damaged',
    'state-version', 'state-untrusted', 'options', 'inputs', 'search', 'script', 'shared-library',
    'archive', 'new-global', 'removed-global', 'symbol-changed', 'undefined', 'comdat', 'tls',
    'section', 'no-room', 'mode', 'slots', 'too-many', 'unsupported', 'errors',
}
# What a state that somebody has damaged may be taken for.
DISTRUST = ('state-damaged', 'state-version', 'state-untrusted', 'output-changed')

REPORT = re.compile(
    r'(?P<full>FULL)(: (?P<note>.+))?|'
    r'PATCHED: (?P<files>\d+) files? changed, (?P<atoms>\d+) atoms? written, (?P<moved>\d+) moved, '
    r'(?P<references>\d+) references?|'
    r'FELL_BACK_FULL: (?P<number>\d+) (?P<slug>[a-z-]+): (?P<text>.+)')


@dataclass
class Report:
    """What --incremental-report said; the numbers are those of PATCHED, as integers."""
    result: Result
    outcome: str = None
    files: int = 0
    atoms: int = 0
    moved: int = 0
    references: int = 0
    slug: str = None
    text: str = None

    @classmethod
    def of(cls, result):
        lines = [s for s in result.stdout.splitlines()
                 if s.startswith('incremental: ') and not re.search(r' {3,}\d+$', s)]
        assert len(lines) == 1, f'not exactly one line is the report:\n{result}'
        return cls.parse(result, lines[0].removeprefix('incremental: '))

    @classmethod
    def parse(cls, result, line):
        found = REPORT.fullmatch(line)
        assert found, f'is not a report: {line!r}\n{result}'
        slug = found['slug']
        assert slug is None or slug in SLUGS, f'an unknown reason:\n{result}'
        numbers = {n: int(found[n] or 0) for n in ('files', 'atoms', 'moved', 'references')}
        outcome = 'FULL' if found['full'] else 'FELL_BACK_FULL' if slug else 'PATCHED'
        return cls(result, outcome, slug=slug, text=found['text'] or found['note'], **numbers)

    def nothing(self):
        """Nothing had changed, and nothing was written."""
        assert PLAIN or (self.outcome, self.files, self.atoms, self.moved, self.references) == (
            'PATCHED', 0, 0, 0, 0), self.result
        return self


@dataclass(frozen=True)
class Stamp:
    """A file at one moment: what a link that changes nothing leaves as it is."""
    data: bytes
    inode: int
    mtime: int

    @classmethod
    def of(cls, path):
        stat = os.stat(path)
        return cls(Path(path).read_bytes(), stat.st_ino, stat.st_mtime_ns)


class Link:
    """An output that is linked again and again: by the compiler driver, or (via=None) the linker.

    args may be changed between links.
    """

    def __init__(self, t, out, *args, via='cc'):
        self.t, self.out, self.args, self.via = t, out, list(args), via

    @property
    def path(self):
        return self.t.path / self.out

    @property
    def state(self):
        return self.t.path / f'{self.out}.kldstate'

    def command(self, *options, out=None):
        t = self.t
        if self.via is None:
            command = [KLD, *([] if t.target.native else ['-m', t.target.emulation])]
        else:
            command = [*t.driver('c++' if self.via == 'c++' else 'c'), '-B', t.linker_dir]
            options = [f'-Wl,{option}' for option in options]
        return [*command, '-o', out or self.out, *self.args, *options]

    def plain(self, out='plain'):
        """A full link without any of this, to another name."""
        return self.t.tool(*self.command(out=out))

    def __call__(self, *options, ok=True, env=None, out=None):
        """Links; the report, of which nothing is asserted."""
        if PLAIN:
            return Report(self.t.tool(*self.command(out=out), ok=ok, env=env))
        result = self.t.tool(*self.command('--incremental', '--incremental-report', *options,
                                           out=out), ok=ok, env=env)
        return Report.of(result) if ok else Report(result)

    def at_once(self, count):
        """So many links at the same time, all of which have to succeed."""
        command = self.command(*([] if PLAIN else ['--incremental']))
        jobs = [subprocess.Popen(command, cwd=self.t.path, stderr=subprocess.PIPE, text=True)
                for _ in range(count)]
        for job in jobs:
            error = job.communicate(timeout=TIMEOUT)[1]
            assert job.returncode == 0, error

    def full(self, *options, **more):
        """The first link."""
        report = self(*options, **more)
        assert PLAIN or report.outcome == 'FULL', report.result
        return report

    def patched(self, *options, verify=True, **more):
        """Has to be a patch, and a right one."""
        report = self(*options, **more)
        assert PLAIN or report.outcome == 'PATCHED', report.result
        if verify:
            self.verify(*[o for o in options if o.startswith('--incremental-state')])
        return report

    def falls_back(self, *slugs, options=(), **more):
        """Has to be a full link for one of these reasons; the same as from scratch."""
        assert SLUGS.issuperset(slugs)
        report = self(*options, **more)
        assert PLAIN or report.outcome == 'FELL_BACK_FULL', report.result
        assert PLAIN or not slugs or report.slug in slugs, report.result
        assert PLAIN or self.path.read_bytes() == self.from_scratch(*options, **more), \
            f'is not what a link from scratch writes:\n{report.result}'
        return report

    def right(self, *options, **more):
        """Patched or fallen back, as the linker likes: it has to be right."""
        report = self(*options, **more)
        assert PLAIN or report.outcome in ('PATCHED', 'FELL_BACK_FULL'), report.result
        self.verify(*options, **more)
        return report

    def from_scratch(self, *options, **more):
        """The bytes of a first --incremental link of the same inputs, in another folder."""
        folder = self.t.path / 'scratch'
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        options = [o for o in options if not o.startswith('--incremental-state')]
        out = f'scratch/{Path(self.out).name}'
        report = self(*options, **{**more, 'out': out})
        assert PLAIN or report.outcome == 'FULL', report.result
        return (self.t.path / out).read_bytes()

    def verify(self, *options, ok=True, env=None):
        """--incremental-verify says nothing, or (ok=False) an error, and changes nothing. The result,
        if ok=None allows either."""
        if not VERIFY:
            return
        before = Stamp.of(self.path), [Stamp.of(f) for f in [self.state] if f.exists()]
        result = self.t.tool(*self.command('--incremental', '--incremental-verify', *options), ok=ok,
                             env=env)
        if result.status == 0:
            assert result.stdout == result.stderr == '', f'not silent:\n{result}'
        else:
            result.says('error: ')
        assert before == (Stamp.of(self.path), [Stamp.of(f) for f in [self.state] if f.exists()])
        return result

    def stats(self):
        """A link with --stats: {'full links': 1, 'patched': 2, ...}"""
        report = self('--stats')
        rows = re.findall(r'^(?:incremental: )?(.*?) +(\d+)$', report.result.stdout, re.M)
        return {what.strip(): int(number) for what, number in rows}

    def elf(self):
        return self.t.elf(self.out)

    def run(self, *args, **expected):
        return self.t.run(self.out, *args, **expected)


class DirectLink(Link):
    """A link as the compiler driver would have it done, without the driver."""
    cache = None

    def command(self, *options, out=None):
        key = tuple(map(str, self.args))
        if not self.cache or self.cache[0] != key:
            said = self.t.tool(*super().command(out='@OUT@'), '-###').stderr
            line = [s for s in said.splitlines() if s.startswith(' ') and 'collect2' in s][-1]
            self.cache = key, [KLD, *shlex.split(line)[1:]]
        place = [out or self.out if word == '@OUT@' else word for word in self.cache[1]]
        return [*place, *options]


def json_report(result):
    """The message with id "incremental" under --diagnostics=json, as a Report."""
    objects = [json.loads(s) for s in (result.stdout + result.stderr).splitlines()
               if s.startswith('{')]
    texts = [o['text'] for o in objects if o.get('id') == 'incremental']
    assert len(texts) == 1, result
    return Report.parse(result, texts[0].removeprefix('incremental: '))


class Sources:
    """Source files that are edited and compiled again."""

    def __init__(self, t, *flags, **files):
        """files: name_c='text' for name.c, name_cc for C++."""
        self.t, self.flags = t, flags
        for name, text in files.items():
            self.set(name.replace('_cc', '.cc').replace('_c', '.c'), text)

    def compile(self, name):
        t = self.t
        out = str(Path(name).with_suffix('.o'))
        lang = 'c++' if name.endswith('.cc') else 'c'
        t.tool(*t.driver(lang), '-c', '-g', '-fasynchronous-unwind-tables', *self.flags, name,
               '-o', out)
        return out

    def set(self, name, text):
        self.t.write(name, text)
        return self.compile(name)

    def edit(self, name, *pairs):
        """edit(name, old, new, old, new ...): each text has to occur once."""
        text = self.t.read(name)
        for old, new in zip(pairs[::2], pairs[1::2]):
            assert text.count(old) == 1, f'{old!r} occurs {text.count(old)} times in {name}'
            text = text.replace(old, new)
        return self.set(name, text)


class Core(Sources):
    """The fixture: libcore.a and two programs that use it, with what they return."""
    UNITS = ['arith.c', 'table.c', 'state.c', 'weakdef.c', 'optional.c']

    def __init__(self, t, *flags, link=('-Wl,--build-id',)):
        super().__init__(t, *flags)
        for file in sorted(FIXTURE.iterdir()):
            shutil.copy(file, t.path)
        for file in sorted(FIXTURE.glob('*.c')):
            self.compile(file.name)
        self.archive()
        self.a = Link(t, 'app_a', *link, 'app_a.o', 'libcore.a')
        self.b = Link(t, 'app_b', *link, 'app_b.o', 'libcore.a')
        self.apps = self.a, self.b

    def archive(self):
        self.t.ar('libcore.a', *[u.replace('.c', '.o') for u in self.UNITS])

    def set(self, name, text):
        out = super().set(name, text)
        if name in self.UNITS:
            self.t.ar('libcore.a', out)
        return out

    def full(self):
        for app in self.apps:
            app.full()
        return self

    def run(self, a, b):
        """Both programs, and the statuses that they have to return."""
        self.a.run(status=a)
        self.b.run(status=b)


def addresses(elf):
    """{(name, type): address} of the symbols that are unique."""
    found = {}
    for s in elf.symbols:
        if s.name and s.type in ('FUNC', 'OBJECT', 'NOTYPE') and s.section != 'UNDEF':
            found.setdefault((s.name, s.type), set()).add(s.value)
    return {k: v.pop() for k, v in found.items() if len(v) == 1}


def code(elf, name):
    """The bytes of a function."""
    s = elf.symbol(name)
    return elf.at(s.value, s.size)


def signed(value, bits):
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def island_target(elf, at):
    """Where the jump at an address leads to (for CET and BTI a landing pad may be before it), or
    None if there is none."""
    data = elf.at(at, 24)
    word = lambda n: struct.unpack_from('<I', data, n)[0]
    if elf.machine == 'x86_64':
        skip = 4 if data.startswith(b'\xf3\x0f\x1e\xfa') else 0
        if data[skip] == 0xe9:
            return at + skip + 5 + struct.unpack_from('<i', data, skip + 1)[0]
        return None
    if elf.machine == 'aarch64':
        skip = 4 if word(0) & 0xffffff3f == 0xd503241f else 0
        first, second, third = word(skip), word(skip + 4), word(skip + 8)
        if first >> 26 == 5:  # b
            return at + skip + 4 * signed(first, 26)
        if first & 0x9f000000 == 0x90000000 and third & 0xfffffc1f == 0xd61f0000:  # adrp add br
            page = signed((first >> 5 & 0x7ffff) << 2 | first >> 29 & 3, 21)
            return (at + skip & ~0xfff) + (page << 12) + (second >> 10 & 0xfff)
        return None
    first, second = word(0), word(4)
    if first & 0xfff == 0x6f:  # j
        bits = (first >> 31) << 20 | (first >> 12 & 0xff) << 12 | (first >> 20 & 1) << 11 | \
            (first >> 21 & 0x3ff) << 1
        return at + signed(bits, 21)
    if first & 0x7f == 0x17 and second & 0x7f == 0x67 and not second >> 7 & 31:  # auipc, jr
        return at + signed(first & ~0xfff, 32) + signed(second >> 20, 12)
    return None


def growth(statement, count):
    """A statement many times, a line each."""
    return '\n'.join([statement] * count)


def addr2line(t, out, address):
    """'file:line' without folders."""
    return t.tool('addr2line', '-e', out, hex(address)).stdout.strip().split('/')[-1]


def line_of(text, what):
    return text[:text.index(what)].count('\n') + 1


def check_line(t, out, elf, file, name):
    """A function's start is at one of its own lines."""
    source = t.read(file)
    start = re.search(rf'\b{name}\(.*\)\s*\{{', source)
    first = source[:start.start()].count('\n') + 1
    last = first + source[start.start():].split('}')[0].count('\n') + 1
    said = addr2line(t, out, elf.symbol(name).value)
    assert said in [f'{file}:{n}' for n in range(first, last + 1)], f'{name}: {said}'


def unwind_rows(elf):
    """Rows of .eh_frame_hdr, which have to be sorted, lead to live records, and agree with them:
    {function's address: (address of its record, length of the function)}."""
    s, frame = elf.section('.eh_frame_hdr'), elf.section('.eh_frame')
    assert s.data[:4] == bytes([1, 0x1b, 3, 0x3b])
    start, count = struct.unpack_from('<iI', s.data, 4)
    assert s.addr + 4 + start == frame.addr and 12 + 8 * count <= s.size
    rows = [(s.addr + pc, s.addr + fde)
            for pc, fde in struct.iter_unpack('<ii', s.data[12:12 + 8 * count])]
    assert rows == sorted(rows), 'not sorted'
    found = {}
    for pc, fde in rows:
        offset = fde - frame.addr
        length, back, begin, size = struct.unpack_from('<IIiI', frame.data, offset)
        assert length and back and fde + 8 + begin == pc, f'{fde:#x} is no record of {pc:#x}'
        cie = offset + 4 - back
        assert struct.unpack_from('<I', frame.data, cie + 4)[0] == 0, 'has no CIE'
        found[pc] = fde, size
    return found


def check_unwind(elf, *names):
    """These functions have their record."""
    rows = unwind_rows(elf)
    for name in names:
        s = elf.symbol(name)
        assert s.value in rows and rows[s.value][1] == s.size, (name, s, rows)
