#!/usr/bin/env python3
"""N object files, to see how a linker's cost grows with their number.

    make-synthetic.py DEST [-n 1000] [--cc clang++] [--opt '-O1 -g'] [--archives 0] [--run '']
                      [--cross riscv64]

A few C++ templates are compiled by the real compiler, so debug info, COMDAT groups, .eh_frame,
mergeable strings and relocations are real. Each of the N objects is one template whose fixed-width
placeholders in symbol names, debug strings and literals are replaced by numbers.

Each object has functions in sections of their own that call each other, functions of four other
objects, inline functions that every object has and some that one in ten has (COMDAT), data with
pointers, string literals (some the same everywhere, some its own), a thread-local, and a static
constructor in one of eight. The program prints a checksum that is the same whatever linked it:
`check.sh OUTPUT` compares it with that of the first output it saw. For another CPU the cross compiler
is GCC's, whose linker relaxation is on, qemu runs the output, and the file `triple` names the linkers
that know no other CPU than theirs.

link.rsp and link-gc.rsp are the ld command lines. edits.json names variants of one object, for
relinks: {name: [[object, variant A, variant B]]}; in "body" a function has grown, "addfn" has a
function more, in "touch" nothing has changed.
"""

import argparse
import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WIDTH = 7                                # digits of a number
TEMPLATES = 8
FUNCTIONS = 50                           # of a template


def placeholder(letter):
    return letter * WIDTH


SELF = placeholder('Q')
NEIGHBOURS = [placeholder(c) for c in 'JKVZ']
POOL = [placeholder(c) for c in 'ABCDEFGH']

HEADER = r'''
typedef unsigned u32;
typedef unsigned long u64;
extern "C" void bench_sink(const char *, u32);
extern "C" u32 bench_total;
namespace shared {
template <typename T> struct Vec {
  T *b, *e;
  u64 cap;
  __attribute__((noinline)) T &at(u64 i) {
    if (b + i >= e)
      bench_sink("shared::Vec<T>::at: out of range", (u32)i);
    return b[i];
  }
};
struct Node { Node *left, *right; u32 key; const char *name; virtual u32 eval(u32) const; };
struct Pair : Node { Vec<Node *> kids; u32 eval(u32) const override; };
%s
__attribute__((noinline)) inline u32 mix(u32 a, u32 b) {
  a ^= b * 2654435761u;
  a = (a << 7) | (a >> 25);
  return a + b;
}
template <int N> __attribute__((noinline)) u32 fold(u32 a) {
  u32 r = a;
  for (int i = 0; i < N; i++)
    r = mix(r, (u32)i * N);
  return r;
}
}
'''


def header():
    """The part that every unit has: types enough to give its debug info some weight."""
    rnd = random.Random(7)
    types = ['u32', 'u64', 'const char *', 'void *', 'short', 'double']
    records = []
    for i in range(40):
        fields = ' '.join(f'{rnd.choice(types)} field_{i}_{j};' for j in range(rnd.randint(3, 10)))
        methods = ' '.join(f'u32 method_{i}_{j}(u32, const Record{i} &) const;' for j in range(3))
        records.append(f'struct Record{i} {{ {fields} {methods} }};')
    return HEADER % '\n'.join(records)


def statement(rnd, step, function, unit):
    """One line of a function's body. Calls go to later functions only, and not deep."""
    kind = rnd.randint(0, 9)
    if kind < 4:
        callee = rnd.randint(min(function + 1, FUNCTIONS - 1), FUNCTIONS - 1)
        where = SELF if kind < 2 else rnd.choice(NEIGHBOURS)
        if function + 1 < FUNCTIONS:
            return f'x = shared::mix(x, tu{where}_f{callee}(x ^ {step}, d - 1));'
    if kind == 4:
        return f'x = pool_{rnd.choice(POOL)}(x);'
    if kind == 5:
        return f'bench_sink("object {SELF} function {function} message {step}", x);'
    if kind == 6:
        return f'bench_sink("a literal that every object has, number {rnd.randint(0, 60)}", x);'
    if kind == 7:
        return f'x ^= tu{SELF}_data[x & 31] + (counters[x & 15] += tu{SELF}_table[x % 6u].k);'
    if kind == 8:
        return f'x = shared::fold<{rnd.randint(2, 12)}>(x); tls_{unit} += x;'
    cases = ' '.join(f'case {c}: x {rnd.choice("+^*-")}= {rnd.randint(3, 1 << 20)}u; break;'
                     for c in range(8))
    return f'switch (x & 7) {{ {cases} }}'


def template(unit, edit=''):
    """C++ of template number unit. edit 'body': its first function is longer; 'addfn': there is a
    function more."""
    rnd = random.Random(1000 + unit)
    lines = [header()]
    for tu in [SELF] + NEIGHBOURS:
        lines += [f'extern "C" u32 tu{tu}_f{i}(u32, u32);' for i in range(FUNCTIONS)]
    for pool in POOL:
        lines.append(f'extern "C" __attribute__((noinline)) inline u32 pool_{pool}(u32 x) {{'
                     ' static const u32 t[4] = {1, 3, 5, 7};'
                     ' for (u32 i = 0; i < 4; i++) x = shared::mix(x, t[i]);'
                     f' bench_sink("pooled {pool}", 0); return x; }}')
    numbers = ', '.join(str(rnd.randint(1, 1 << 30)) for _ in range(32))
    lines += [
        f'struct Row{SELF} {{ const char *name; u32 (*fn)(u32, u32); u32 k; shared::Record{unit} *r; }};',
        f'extern "C" Row{SELF} tu{SELF}_table[];',
        f'static __thread u32 tls_{unit};',
        f'static u32 counters[{16 + unit}];',
        f'extern "C" {{ u32 tu{SELF}_data[32] = {{ {numbers} }}; }}']
    if unit % 8 == 3:
        lines.append(f'static struct Init{SELF} {{ Init{SELF}() {{ bench_total += 3; }} }} init;')
    for i in range(FUNCTIONS + (edit == 'addfn')):
        body = [f'if (d == 0 || d > 8) return x + {rnd.randint(1, 99)}u;']
        body += [statement(rnd, s, i, unit) for s in range(rnd.randint(3, 9))]
        if edit == 'body' and i == 0:
            body += [f'bench_sink("edited, line {line}", x);' for line in range(12)]
        lines.append('extern "C" u32 tu%s_f%d(u32 x, u32 d) {\n  %s\n  return x;\n}' %
                     (SELF, i, '\n  '.join(body)))
    rows = ', '.join('{"table %s entry %d", tu%s_f%d, %d, nullptr}' %
                     (SELF, row, rnd.choice([SELF] + NEIGHBOURS), rnd.randint(0, FUNCTIONS - 1),
                      rnd.randint(1, 999)) for row in range(6))
    lines += [f'extern "C" {{ Row{SELF} tu{SELF}_table[] = {{ {rows} }}; }}',
              f'extern "C" u32 tu{SELF}_entry(u32 x) {{ return tu{SELF}_f0(x, 4); }}']
    return '\n'.join(lines) + '\n'


def main_unit(count):
    numbers = [f'{i:0{WIDTH}}' for i in range(count)]
    return '\n'.join([
        header(),
        'extern "C" int printf(const char *, ...);',
        'extern "C" { u32 bench_total; u64 sunk;',
        'void bench_sink(const char *s, u32) {',
        '  u32 h = 0; while (*s) h = h * 31 + (unsigned char)*s++; sunk += h; }',
        *(f'u32 tu{n}_entry(u32);' for n in numbers), '}',
        'static u32 (*const all[])(u32) = {', *(f'tu{n}_entry,' for n in numbers), '};',
        'int main() {',
        '  u32 r = bench_total;',
        '  for (u64 i = 0; i < sizeof all / sizeof *all; i++) r = r * 33 + all[i]((u32)i);',
        '  printf("%u %lu %u\\n", r, sunk, bench_total);',
        '}', ''])


class Maker:
    def __init__(self, args):
        self.args = args
        self.dest = Path(args.dest).resolve()
        (self.dest / 't').mkdir(parents=True, exist_ok=True)
        self.pattern = re.compile(('(' + '|'.join([SELF] + NEIGHBOURS + POOL) + ')').encode())
        self.parts = {}
        for unit in range(TEMPLATES):
            self.parts[unit, ''] = self.compile(f't{unit}', template(unit))
        for edit in ('body', 'addfn'):
            self.parts[1, edit] = self.compile(f't1-{edit}', template(1, edit))

    def compile(self, name, text):
        """The object's bytes, cut at the placeholders."""
        (self.dest / 't' / f'{name}.cpp').write_text(text)
        subprocess.run(shlex.split(self.args.cc) + shlex.split(self.args.opt) +
                       ['-fPIE', '-ffunction-sections', '-fdata-sections', '-fno-rtti',
                        '-fno-exceptions', '-fasynchronous-unwind-tables', '-std=c++17', '-w',
                        '-c', f'{name}.cpp', '-o', f'{name}.o'], check=True, cwd=self.dest / 't')
        return self.pattern.split((self.dest / 't' / f'{name}.o').read_bytes())

    def emit(self, path, number, edit=''):
        rnd = random.Random(1000003 + number)
        count = self.args.n
        pool = max(8, min(5000, count // 2 + 8))
        values = {SELF: number, NEIGHBOURS[0]: (number + 1) % count}
        values.update((n, rnd.randrange(count)) for n in NEIGHBOURS[1:])
        # The pooled names of one object must differ: one of each residue class.
        values.update((p, rnd.randrange(pool) // 8 * 8 + i) for i, p in enumerate(POOL))
        text = {k.encode(): b'%0*d' % (WIDTH, v) for k, v in values.items()}
        parts = self.parts[number % TEMPLATES, edit]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b''.join(text[p] if i & 1 else p for i, p in enumerate(parts)))

    def objects(self):
        names = []
        for i in range(self.args.n):
            names.append(f'o/{i // 100:03}/tu{i:0{WIDTH}}.o')
            self.emit(self.dest / names[-1], i)
        self.compile('main', main_unit(self.args.n))
        (self.dest / 't/main.o').rename(self.dest / 'main.o')
        return names

    def archives(self, names):
        libs = []
        for i in range(0, len(names), self.args.archives):
            libs.append(f'lib{len(libs):05}.a')
            (self.dest / libs[-1]).unlink(missing_ok=True)
            subprocess.run(['ar', 'rcs', libs[-1]] + names[i:i + self.args.archives], check=True,
                           cwd=self.dest)
        return ['--start-group', *libs, '--end-group']

    def response(self, name, options, inputs):
        """The compiler is shown one stand-in; the inputs are put in its place."""
        (self.dest / 'STANDIN.o').touch()
        shown = subprocess.run(shlex.split(self.args.ldcc or self.args.cc) +
                               ['-pie', *options, 'main.o', 'STANDIN.o', '-o', 'KLD_OUT', '-###'],
                               capture_output=True, text=True, check=True, cwd=self.dest).stderr
        (self.dest / 'STANDIN.o').unlink()
        lines = subprocess.run([sys.executable, HERE / 'capture.py'], input=shown, text=True,
                               capture_output=True, check=True).stdout.split('\n')
        at = lines.index('STANDIN.o')
        lines[at:at + 1] = inputs
        (self.dest / name).write_text('\n'.join(lines))

    def variants(self, names):
        edits = {}
        for edit in ('', 'body', 'addfn'):
            self.emit(self.dest / f'edits/tu1-{edit or "same"}.o', 1, edit)
            edits[edit or 'touch'] = [[names[1], 'edits/tu1-same.o', f'edits/tu1-{edit or "same"}.o']]
        (self.dest / 'edits.json').write_text(json.dumps(edits, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dest')
    parser.add_argument('-n', type=int, default=1000)
    parser.add_argument('--cc', default='clang++')
    parser.add_argument('--ldcc', help='asked for the ld command line (default: --cc)')
    parser.add_argument('--opt', default='-O1 -g')
    parser.add_argument('--archives', type=int, default=0, help='objects an archive; 0: none')
    parser.add_argument('--cross', metavar='CPU', help='aarch64, riscv64: sets --cc and --run')
    parser.add_argument('--run', default='', help='what runs the output, e.g. qemu-riscv64 -L DIR')
    args = parser.parse_args()
    triple = args.cross and f'{args.cross}-linux-gnu'
    if args.cross:
        args.cc = f'{triple}-g++'
        args.run = f'qemu-{args.cross} -L /usr/{triple}'
    for variable in ('LIBRARY_PATH', 'CPATH', 'C_INCLUDE_PATH', 'CPLUS_INCLUDE_PATH'):
        os.environ.pop(variable, None)
    maker = Maker(args)
    (maker.dest / 'expect').unlink(missing_ok=True)
    names = maker.objects()
    inputs = maker.archives(names) if args.archives else names
    maker.response('link.rsp', [], inputs)
    maker.response('link-gc.rsp', ['-Wl,--gc-sections'], inputs)
    if not args.archives:
        maker.variants(names)
    if args.cross:
        (maker.dest / 'triple').write_text(triple + '\n')
    check = maker.dest / 'check.sh'
    check.write_text('#!/bin/sh\n# The same checksum as the first output that was checked.\n'
                     f'cd "$(dirname "$0")" && got=$({args.run} "$1") || exit 1\n'
                     '[ -f expect ] || echo "$got" > expect\n[ "$got" = "$(cat expect)" ]\n')
    check.chmod(0o755)


main()
