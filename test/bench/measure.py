#!/usr/bin/env python3
"""Times linkers on link workloads, interleaved, and prints a table for each.

    measure.py WORKLOAD... --linker NAME[:MODE]='COMMAND [OPTION...]' ... [-n 7]
               [--floor FLOOR] [--ref mold[,NAME...]] [--threads N] [--fork] [--keep]
               [--edit NAME] [--quiet SHARE] [--prio N] [--json FILE]

A WORKLOAD is a response file that a make-* script has written. Each linker is started as
`COMMAND @WORKLOAD -o OUT OPTION...` from the workload's folder (or from the one that its file `cwd`
names), the output on the workload's file system. For a workload of another CPU (its file `triple` says
so) ld.bfd and ld.gold are those of the cross toolchain. After a round that is not counted, which warms the
page cache and whose outputs are checked with the workload's check.sh, each round runs every linker
once, in an order of its own, since what ran before changes the state of the machine. Short runs get
more rounds, up to ten times as many.

  wall   ms from start to exit, the median; and the least
  x ref  the median's ratio to that of --ref, a column for each. For another CPU, where mold is old
         or has no target, "mold" is the faster one of mold and lld.
  all    ms until the last descendant is gone
  cpu    ms, user and system, of all processes; x cpu, the ratio to the first --ref
  peak   MB of resident memory of all processes at one time: mapped files count
  anon   MB of that that is no file's (RssAnon): heap and stacks. Both are sampled each 0.2 ms in
         the round that does not count, of short runs the largest of five. What is taken and given
         back between two samples is missed; some kernels' counts lag by up to 64 pages a thread.
  other  share of the CPUs that was taken by others meanwhile, by /proc/stat. A run where it is above
         --quiet is repeated, at most --tries times, and the least disturbed one counts; `again` tells
         how many of them there were. The kernel's clock is too coarse for runs below 0.1 s. Where it
         is high nevertheless the row says little. Ratios are worth more than times.

--floor is floor.c, compiled. Its row is what it takes one thread to read the inputs (of archives the
members that are linked, of shared libraries nothing) and to write an output of the smallest size.

A linker that would leave a child behind gets --no-fork, so that all its work is in `wall`; --fork
leaves that out. The output, and an incremental linker's state, is removed before each run; with --keep
it stays. With --edit, before each round the objects that edits.json names are replaced by variant A
and B in turn. What an incremental link meets is the linker's MODE; the output stays in all of them:

  keep      nothing else
  relink    the edit is new to it
  null      it has been run on the edit already, which is not counted
  fallback  -z lazy and -z now in turn, so that the state is of no use

Where --incremental-report is among the options, a run counts only if it says what MODE promises:
PATCHED with a changed file, PATCHED without, FELL_BACK_FULL, and FULL without a MODE. Otherwise the
linker has failed. Kept outputs are checked again after the last round, with --incremental-verify too
if the linker is incremental.
"""

import argparse
import json
import os
import random
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

MB = 1e6
CPUS = os.sched_getaffinity(0)
TICK = 1 / os.sysconf('SC_CLK_TCK')
# What --incremental-report must say, by mode.
REPORTS = {'': 'FULL', 'relink': 'PATCHED: [1-9]', 'null': 'PATCHED: 0 ',
           'fallback': 'FELL_BACK_FULL', 'keep': ''}
FAMILIES = [('mold', 'mold'), ('LLD', 'lld'), ('GNU gold', 'gold'), ('kld', 'kld'), ('GNU ld', 'bfd')]


ONE_THREAD = ('bfd', 'gold', 'floor')    # those that leave the other CPUs idle


def busy():
    """CPU seconds that have been spent on our CPUs, those of the host (steal) included."""
    names = {f'cpu{n}' for n in CPUS}
    with open('/proc/stat') as f:
        rows = [[int(x) for x in line.split()[1:9]] for line in f if line.split()[0] in names]
    return sum(sum(v) - v[3] - v[4] for v in rows) * TICK


@dataclass
class Run:
    wall: float
    all: float
    user: float
    system: float
    peak: int
    anon: int
    status: int
    other: float = 0.0

    @property
    def cpu(self):
        return self.user + self.system


@dataclass
class Linker:
    name: str
    mode: str
    command: list
    family: str
    version: str
    options: list = field(default_factory=list)
    runs: list = field(default_factory=list)
    failure: str = ''
    size: int = 0
    state: int = 0
    peak: int = 0
    anon: int = 0
    again: int = 0
    spent: float = 0.0

    def median(self, what):
        return statistics.median(getattr(r, what) for r in self.runs)


@dataclass
class Workload:
    name: str
    response: Path
    folder: Path
    cwd: Path
    triple: str = ''


def linker_of(text, args):
    name, _, command = text.partition('=')
    name, _, mode = name.partition(':')
    if mode not in REPORTS:
        sys.exit(f'measure: no mode {mode}: ' + ', '.join(filter(None, REPORTS)))
    command = shlex.split(command)
    path = shutil.which(command[0])
    if not path:
        sys.exit(f'measure: no {command[0]}')
    command[0] = os.path.abspath(path)
    said = subprocess.run([path, '--version'], capture_output=True, text=True).stdout
    family = next((f for word, f in FAMILIES if word in said), '?')
    options = command[1:]
    if not args.fork:
        helped = subprocess.run([path, '--help'], capture_output=True, text=True).stdout
        if '--no-fork' in helped:
            options.append('--no-fork')
    if args.threads:
        if family == 'gold':
            options += ['--threads', f'--thread-count={args.threads}'] if args.threads > 1 else []
        elif family == 'mold':
            options.append(f'--thread-count={args.threads}')
        elif family != 'bfd':
            options.append(f'--threads={args.threads}')
    return Linker(name, mode or ('keep' if args.keep else ''), command[:1], family,
                  said.split('\n')[0], options)


def workload_of(path):
    path = Path(path).resolve()
    folder = path.parent
    kind = path.stem.removeprefix('link').removeprefix('-')
    cwd = folder
    if (folder / 'cwd').exists():
        cwd = (folder / (folder / 'cwd').read_text().strip()).resolve()
    cross = folder / 'triple'
    triple = cross.read_text().strip() if cross.exists() else ''
    return Workload(folder.name + (f' {kind}' if kind else ''), path, folder, cwd, triple)


def for_cpu(linker, triple):
    """Takes the linker of the cross toolchain where the given one knows its own CPU only."""
    if not triple or linker.family not in ('bfd', 'gold'):
        return
    path = shutil.which(f'{triple}-ld.{linker.family}')
    if path:
        linker.command[0] = path
    else:
        linker.failure = f'no {triple}-ld.{linker.family}'


def members(archive):
    """(name, offset, size) of the members of a GNU archive."""
    with open(archive, 'rb') as f:
        if f.read(8) != b'!<arch>\n':
            return
        names = b''
        while len(header := f.read(60)) == 60:
            name, size, start = header[:16].rstrip(), int(header[48:58]), f.tell()
            if name == b'//':
                names = f.read(size)
            elif name[:1] == b'/' and name[1:].isdigit():
                name = names[int(name[1:]):].split(b'/\n')[0]
            yield name.removesuffix(b'/').decode(), start, size
            f.seek(start + size + size % 2)


def parts_read(trace, cwd):
    """(file, offset, length) of what a linker has read that says `trace`: FILE and ARCHIVE(MEMBER)."""
    archives = {}
    for line in trace.splitlines():
        name, _, member = line.removeprefix('trace: ').partition('(')
        if re.search(r'\.so[.\d]*$', name) or not (cwd / name).is_file():
            continue
        if not member:
            yield name, 0, (cwd / name).stat().st_size
            continue
        if name not in archives:
            archives[name] = {}
            for found, *where in members(cwd / name):
                archives[name].setdefault(found, []).append(where)
        # Members may have the same name: they are named in the order that they have in the archive.
        found = archives[name].get(member.removesuffix(')'))
        if found:
            yield name, *found.pop(0)


class Bench:
    def __init__(self, args, linkers, workload):
        self.args = args
        self.linkers = linkers
        self.workload = workload
        self.out = workload.folder / 'out'
        self.out.mkdir(exist_ok=True)
        for linker in linkers:
            for_cpu(linker, workload.triple)
        self.turns = 0
        self.parts = []
        self.floor = None
        self.edits = []
        if args.edit:
            edits = json.loads((workload.folder / 'edits.json').read_text())[args.edit]
            self.edits = [[workload.folder / name for name in edit] for edit in edits]
        elif args.floor and not args.keep:
            self.add_floor()

    def add_floor(self):
        """The last linker. What is read is asked of one that names members of archives."""
        tracers = [l for f in ('lld', 'mold') for l in self.linkers if l.family == f and not l.failure]
        for tracer in tracers:
            said = subprocess.run([*self.argv(tracer), '--trace'], cwd=self.workload.cwd,
                                  capture_output=True, text=True)
            self.remove(tracer)
            if said.returncode == 0:
                self.parts = list(parts_read(said.stdout, self.workload.cwd))
                (self.out / 'parts').write_text(''.join(f'{o} {n} {f}\n' for f, o, n in self.parts))
                self.floor = Linker('floor', '', [self.args.floor], 'floor', 'read and write')
                self.linkers.append(self.floor)
                return

    def output(self, linker):
        return self.out / linker.name

    def state(self, linker):
        return self.out / f'{linker.name}.kldstate'

    def remove(self, linker):
        self.output(linker).unlink(missing_ok=True)
        self.state(linker).unlink(missing_ok=True)

    def argv(self, linker):
        if linker.family == 'floor':
            return [*linker.command, str(self.out / 'parts'), str(self.output(linker)),
                    str(linker.size)]
        return [*linker.command, f'@{self.workload.response}', '-o', str(self.output(linker)),
                *linker.options]

    def run(self, linker, sample=False, expected=None):
        """One run; in the mode 'null' another before it. expected: what the report must say."""
        if expected is None:
            expected = REPORTS[linker.mode]
            if linker.mode == 'null':
                self.run(linker, expected='')
        if not linker.mode:
            self.remove(linker)
        argv = self.argv(linker)
        if linker.mode == 'fallback':
            self.turns += 1
            argv += ['-z', 'now' if self.turns & 1 else 'lazy']
        log = self.out / f'{linker.name}.log'
        before = busy()
        text = subprocess.run([self.args.timer, *(['-s'] if sample else []), log, *argv],
                              cwd=self.workload.cwd, capture_output=True, text=True, check=True).stdout
        numbers = text.split()
        run = Run(*map(float, numbers[:4]), *map(int, numbers[4:]))
        run.other = max(0.0, (busy() - before - run.cpu) / (run.all * len(CPUS)))
        linker.spent += run.all
        said = log.read_text(errors='replace').strip()
        if run.status:
            linker.failure = said[:400] or f'status {run.status}'
        elif ('--incremental-report' in linker.options
              and not re.search('incremental: ' + expected, said)):
            linker.failure = f'not {expected}: {said[-300:]}'
        return run

    def disturbed(self, linker, run):
        """Others had more of the CPUs than --quiet, and those that this linker would have used."""
        idle = 1 - 1 / len(CPUS) if linker.family in ONE_THREAD else 0
        return run.all > 10 * TICK and run.other > self.args.quiet + idle

    def rerun(self, linker, turn, sample=False):
        """Once more in the same round."""
        if linker.mode == 'relink':      # the edit has to be new to it again
            self.replace(1 - turn)
            self.run(linker, expected='')
            self.replace(turn)
        return self.run(linker, sample)

    def quiet_run(self, linker, turn):
        run = self.run(linker)
        for _ in range(self.args.tries):
            if linker.failure or not self.disturbed(linker, run):
                break
            linker.again += 1
            time.sleep(0.5)
            again = self.rerun(linker, turn)
            if again.other < run.other:
                run = again
        return run

    def replace(self, turn):
        """Puts variant A or B of the edited objects in place."""
        for name, a, b in self.edits:
            new = name.with_suffix('.new')
            shutil.copyfile(b if turn else a, new)
            new.rename(name)

    def first_round(self):
        """Warms up, checks the outputs and samples memory."""
        self.replace(1)
        for linker in [l for l in self.linkers if l.mode and not l.failure]:
            self.remove(linker)
            self.run(linker, expected='')
        self.replace(0)
        for linker in [l for l in self.linkers if not l.failure]:
            if linker is self.floor:
                linker.size = min((l.size for l in self.linkers if l.size), default=0)
            runs = [self.run(linker, sample=True)]
            while len(runs) < 5 and runs[0].all < 0.1 and not linker.failure:
                runs.append(self.rerun(linker, 0, sample=True))
            linker.peak, linker.anon = max(r.peak for r in runs), max(r.anon for r in runs)
            if not linker.failure and linker is not self.floor:
                linker.size = self.output(linker).stat().st_size
                linker.state = self.state(linker).stat().st_size if self.state(linker).exists() else 0
                self.check(linker)

    def check(self, linker):
        script = self.workload.folder / 'check.sh'
        if script.exists() and subprocess.run([script, self.output(linker)],
                                              stdout=subprocess.DEVNULL,
                                              stdin=subprocess.DEVNULL).returncode:
            linker.failure = 'the output does not do what it should'

    def last_round(self):
        """Back to variant A, by one more relink: has it stayed right through all the edits?"""
        self.replace(0)
        for linker in self.linkers:
            if not linker.mode or linker.failure:
                continue
            self.run(linker, expected='')
            if not linker.failure:
                self.check(linker)
            if '--incremental' in linker.options and linker.mode != 'fallback':
                said = subprocess.run([*self.argv(linker), '--incremental-verify'], text=True,
                                      cwd=self.workload.cwd, capture_output=True)
                if said.returncode:
                    linker.failure = f'--incremental-verify: {said.stderr}'

    def measure(self):
        self.first_round()
        rnd = random.Random(1)
        end = time.monotonic() + self.args.least
        for turn in range(10 * self.args.n):
            if turn >= self.args.n and time.monotonic() > end:
                break
            self.replace((turn + 1) & 1)
            for linker in rnd.sample(self.linkers, len(self.linkers)):
                if linker.failure or (linker.runs and linker.spent > self.args.budget):
                    continue
                run = self.quiet_run(linker, (turn + 1) & 1)
                if not linker.failure:
                    linker.runs.append(run)
                    linker.peak = max(linker.peak, run.peak)
        self.last_round()
        if not self.args.keep_outputs:
            shutil.rmtree(self.out)

    def references(self, good):
        """What each --ref stands for here."""
        for ref in self.args.ref.split(','):
            names = ('mold', 'lld') if ref == 'mold' and self.workload.triple else (ref,)
            yield next((l for l in good if l.name in names), None)

    def good(self):
        return sorted((l for l in self.linkers if l.runs and not l.failure),
                      key=lambda l: l.median('wall'))

    def table(self):
        good = self.good()
        refs = list(self.references(good))
        names = [l.name if l else ref for l, ref in zip(refs, self.args.ref.split(','))]
        states = any(l.state for l in good)
        rows = [['linker', 'wall ms', 'least', *(f'x {name}' for name in names), 'all ms', 'cpu ms',
                 'x cpu', 'peak MB', 'anon MB', 'out MB', *(['state MB'] if states else []), 'runs',
                 'again', 'other']]

        def ratio(l, ref, what):
            r = l.median(what) / ref.median(what) if ref and ref.median(what) else None
            return '' if r is None else f'{r:.2f}' if r > 0.1 else f'{r:.4f}'
        for l in good:
            rows.append([l.name, f'{l.median("wall") * 1e3:.1f}',
                         f'{min(r.wall for r in l.runs) * 1e3:.1f}',
                         *(ratio(l, ref, 'wall') for ref in refs),
                         f'{l.median("all") * 1e3:.1f}', f'{l.median("cpu") * 1e3:.1f}',
                         ratio(l, refs[0], 'cpu'),
                         f'{l.peak / MB:.1f}', f'{l.anon / MB:.1f}', f'{l.size / MB:.1f}',
                         *([f'{l.state / MB:.1f}' if l.state else ''] if states else []),
                         str(len(l.runs)), str(l.again),
                         f'{l.median("other") * 100:.0f}%' if l.median('all') > 10 * TICK else ''])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for number, row in enumerate(rows):
            cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
            yield '| ' + ' | '.join(cells) + ' |'
            if number == 0:
                yield '|' + '|'.join('-' * (w + 2) if i == 0 else '-' * (w + 1) + ':'
                                     for i, w in enumerate(widths)) + '|'
        for l in self.linkers:
            if l not in good:
                yield f'{l.name} failed: {(l.failure or "no run").splitlines()[0][:200]}'

    def result(self):
        return {
            'workload': self.workload.name, 'edit': self.args.edit, 'keep': self.args.keep,
            'ref': next((l.name for l in self.references(self.good()) if l), ''),
            'inputs': len(self.parts), 'bytes': sum(n for _, _, n in self.parts),
            'cpus': len(CPUS), 'load': os.getloadavg(), 'time': time.time(),
            'linkers': [{**asdict(l), 'argv': self.argv(l)} for l in self.linkers]}


def prioritise(nice):
    if not nice:
        return
    if os.getpid() == os.getpgid(0):     # the first process of a job cannot leave it
        child = os.fork()
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.setsid()
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    # Where sessions are scheduled as groups, the value counts within the group only: hence a session
    # of its own, whose group gets it as well.
    autogroup = Path('/proc/self/autogroup')
    if autogroup.exists():
        autogroup.write_text(str(nice))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('workloads', nargs='+')
    parser.add_argument('--linker', action='append', default=[], required=True)
    parser.add_argument('-n', type=int, default=7, help='rounds')
    parser.add_argument('--budget', type=float, default=60, metavar='SECONDS',
                        help='a linker that has used these on a workload takes no further part in it')
    parser.add_argument('--least', type=float, default=4, metavar='SECONDS',
                        help='more than -n rounds until these have passed')
    parser.add_argument('--quiet', type=float, default=0.1, metavar='SHARE',
                        help='repeat a run during which others took more of the CPUs')
    parser.add_argument('--tries', type=int, default=3, help='how often')
    parser.add_argument('--ref', default='mold')
    parser.add_argument('--threads', type=int, default=0)
    parser.add_argument('--fork', action='store_true')
    parser.add_argument('--keep', action='store_true')
    parser.add_argument('--keep-outputs', action='store_true', help='for a look at them afterwards')
    parser.add_argument('--edit', default='')
    parser.add_argument('--prio', type=int, default=0, metavar='N',
                        help='nice value; one below 0 (as root) keeps others away')
    parser.add_argument('--json', type=Path)
    parser.add_argument('--floor', type=os.path.abspath, help='floor.c, compiled')
    parser.add_argument('--timer', required=True, type=os.path.abspath, help='timer.c, compiled')
    args = parser.parse_args()
    prioritise(args.prio)
    results = []
    shown = False
    for path in args.workloads:
        linkers = [linker_of(text, args) for text in args.linker]
        if not shown:
            shown = True
            print(f'{len(CPUS)} CPUs, load {os.getloadavg()[0]:.1f}; ' +
                  '; '.join(f'{l.name}: ' + ' '.join([l.version, *l.options]) for l in linkers))
        bench = Bench(args, linkers, workload_of(path))
        bench.measure()
        kind = f', edit {args.edit}' if args.edit else ', output kept' if args.keep else ''
        print(f'\n### {bench.workload.name}{kind}\n')
        print('\n'.join(bench.table()), flush=True)
        results.append(bench.result())
        if args.json:
            args.json.write_text(json.dumps(results, indent=1))


main()
