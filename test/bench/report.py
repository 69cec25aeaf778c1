#!/usr/bin/env python3
"""What measure.py has measured, in short: a table, a chart, a record that can be kept.

    report.py RESULTS.json... [--svg FILE] [--record FOLDER [--readme README.md]]

Prints for each workload kld's numbers relative to those of the reference (mold; for other CPUs the
faster one of mold and lld), and the time per object where a workload comes in two sizes. --svg draws
the same as bars. --record writes FOLDER/DATE-CPU.json and .svg: medians instead of each run, a
description of the machine, no names of hosts or folders. --readme then shows that chart there, between
the comments `<!-- bench -->` and `<!-- /bench -->`.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
MB = 1e6
TIMES = ('wall', 'all', 'user', 'system', 'other')

# All of them are seen on a light and on a dark page.
COLOURS = {'kld': '#e8590c', 'mold': '#2b8a8a', 'lld': '#4c8dd6', 'gold': '#c29a1f', 'bfd': '#8d939b'}
OTHERS = ['#a76fd0', '#5c9e4a', '#c2608a']
INK = '#768390'
FLOOR = '#d6336c'


def medians(result):
    """What is kept of a workload: one number for many runs, nothing that names this machine."""
    kept = {key: result.get(key) for key in ('workload', 'edit', 'keep', 'ref', 'inputs', 'bytes', 'cpus')}
    kept['linkers'] = []
    for l in result['linkers']:
        row = {'name': l['name'], 'mode': l['mode'], 'family': l['family'], 'version': l['version'],
               'options': [o for o in l['options'] if '/' not in o]}
        kept['linkers'].append(row)
        if l['failure'] or not l['runs']:
            row['failed'] = True
            continue
        row.update((t, round(statistics.median(r[t] for r in l['runs']), 6)) for t in TIMES)
        if row['all'] < 0.1:             # too short to tell
            del row['other']
        row['cpu'] = round(statistics.median(r['user'] + r['system'] for r in l['runs']), 6)
        row['least'] = min(r['wall'] for r in l['runs'])
        row.update((key, l[key]) for key in ('size', 'state', 'peak', 'anon', 'again'))
        row['runs'] = len(l['runs'])
    return kept


def ran(workload):
    return {l['name']: l for l in workload['linkers'] if not l.get('failed')}


def ratio(workload, name, what):
    rows = ran(workload)
    ref = rows.get(workload['ref'])
    if name not in rows or not ref or not ref[what]:
        return None
    return rows[name][what] / ref[what]


def links(workloads):
    """Those that the table and the chart are about: full links."""
    return [w for w in workloads if not w['edit'] and not w['keep']]


def growth(workloads):
    """(files, files of the larger one, {linker: (us a file, of the larger one)}) by name."""
    named = {w['workload']: w for w in links(workloads)}
    for name, large in named.items():
        base = re.fullmatch(r'(.+)-\d+', name)
        small = named.get(base[1]) if base else None
        if small and small['inputs'] and large['inputs']:
            yield name, small['inputs'], large['inputs'], {
                l: (ran(small)[l]['wall'] / small['inputs'] * 1e6,
                    ran(large)[l]['wall'] / large['inputs'] * 1e6)
                for l in ran(small) if l in ran(large)}


def short(value):
    return '' if value is None else f'{value:.2f}'


def table(workloads):
    yield '| kld | x | wall | (floor) | cpu | (floor) | peak | anon | wall ms | cpu ms | peak MB | anon MB |'
    yield '|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|'
    for w in links(workloads):
        kld = ran(w).get('kld')
        cells = [w['workload'], w['ref'], short(ratio(w, 'kld', 'wall')), short(ratio(w, 'floor', 'wall')),
                 short(ratio(w, 'kld', 'cpu')), short(ratio(w, 'floor', 'cpu')),
                 short(ratio(w, 'kld', 'peak')), short(ratio(w, 'kld', 'anon'))]
        cells += [f'{kld[what] * 1e3:.1f}' for what in ('wall', 'cpu')] if kld else ['failed', '']
        cells += [f'{kld[what] / MB:.1f}' for what in ('peak', 'anon')] if kld else ['', '']
        yield '| ' + ' | '.join(cells) + ' |'
    for name, few, many, rows in growth(workloads):
        yield f'\n| {name}: us an object | of {few:,} | of {many:,} | ratio |\n|---|--:|--:|--:|'
        for linker, (small, large) in rows.items():
            yield f'| {linker} | {small:.1f} | {large:.1f} | {large / small:.2f} |'


def said(*command):
    """What a tool prints that may not be here."""
    if not shutil.which(command[0]):
        return ''
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def returns_memory():
    """Whether the machine gives free memory back to its host: README.md."""
    order = Path('/sys/module/page_reporting/parameters/page_reporting_order')
    return order.exists() and 0 <= int(order.read_text()) <= 10


def description(folder):
    """The machine, in so far as it matters and tells nothing about whose it is."""
    cpuinfo = Path('/proc/cpuinfo').read_text()
    model = re.search(r'^(?:model name|Model)\s*: (.*)', cpuinfo, re.M)
    memory = int(re.search(r'MemTotal:\s+(\d+)', Path('/proc/meminfo').read_text())[1])
    system = re.search(r'PRETTY_NAME="?([^"\n]*)', Path('/etc/os-release').read_text())
    return {'cpu': model[1].strip() if model else platform.machine(), 'cpus': os.cpu_count(),
            'virtual': ' hypervisor' in cpuinfo, 'returns memory': returns_memory(),
            'memory': f'{memory / 2**20:.0f} GiB', 'kernel': re.match(r'[\d.]*\d', platform.release())[0],
            'system': system[1] if system else '',
            'filesystem': said('findmnt', '-n', '-o', 'FSTYPE', '-T', folder),
            'commit': said('git', '-C', HERE, 'describe', '--always', '--dirty')}


def slug(cpu):
    words = re.sub(r'\((r|tm)\)|\bcpu\b|processor|\d+-core|@.*', ' ', cpu.lower())
    return re.sub('[^a-z0-9]+', '-', words).strip('-') or 'cpu'


class Chart:
    """Two panels, wall and CPU time, as bars: the reference is the line at 1."""
    LABEL, PANEL, VALUE, GAP = 150, 280, 34, 16
    BAR, PAD = 9, 12
    MOST = 2.5                           # longer bars end here, with their number

    def __init__(self, workloads, caption):
        self.parts = []
        self.y = 0
        self.workloads = [w for w in links(workloads) if ran(w)]
        names = dict.fromkeys(n for w in self.workloads for n in ran(w) if n not in ('floor', w['ref']))
        spare = iter(OTHERS * 9)
        self.colours = {n: COLOURS.get(n) or next(spare) for n in names}
        self.width = self.LABEL + 2 * (self.PANEL + self.VALUE) + self.GAP
        self.legend()
        for w in self.workloads:
            self.group(w)
        for line in caption:
            self.y += 15
            self.text(0, self.y, line, size=10)
        self.y += 8

    def text(self, x, y, text, size=11, anchor='start', fill=INK):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
                          f'fill="{fill}">{escape(text)}</text>')

    def rect(self, x, y, width, height, fill):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
                          f'fill="{fill}"/>')

    def panels(self):
        for i, what in enumerate(('wall', 'cpu')):
            yield self.LABEL + i * (self.PANEL + self.VALUE + self.GAP), what

    def legend(self):
        self.text(0, 13, 'What a link costs, mold = 1 (shorter is better)', size=13)
        x = 0
        for name, colour in [*self.colours.items(), ('floor: read and write only', FLOOR)]:
            self.rect(x, 24, 9, 9, colour)
            self.text(x + 13, 33, name)
            x += 32 + 6.5 * len(name)
        for x, what in self.panels():
            self.text(x, 52, {'wall': 'wall time', 'cpu': 'CPU time'}[what])
        self.y = 58

    def group(self, w):
        names = [n for n in self.colours if n in ran(w) and n != w['ref']]
        height = max(len(names), 2) * self.BAR
        self.text(0, self.y + self.BAR, w['workload'])
        about = f'{w["inputs"]:,} files, {w["bytes"] / MB:,.0f} MB' if w['inputs'] else ''
        about += '' if w['ref'] == 'mold' else f', {w["ref"] or "nothing"} = 1'
        self.text(0, self.y + self.BAR + 11, about.removeprefix(', '), size=9)
        unit = self.PANEL / self.MOST
        for left, what in self.panels():
            for i, name in enumerate(names):
                r = ratio(w, name, what)
                if r is not None:
                    y = self.y + i * self.BAR
                    self.rect(left, y, min(r, self.MOST) * unit, self.BAR - 1.5, self.colours[name])
                    self.text(left + min(r, self.MOST) * unit + 3, y + self.BAR - 2, f'{r:.2f}', size=9)
            self.rect(left + unit, self.y - 3, 1, height + 5, INK)
            r = ratio(w, 'floor', what)
            if r is not None:
                self.rect(left + min(r, self.MOST) * unit - 1, self.y - 2, 2, height + 3, FLOOR)
        self.y += height + self.PAD

    def svg(self):
        return '\n'.join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.y}" '
            f'width="{self.width}" height="{self.y}" font-family="sans-serif" role="img">',
            '<title>Wall and CPU time of links relative to mold</title>', *self.parts, '</svg>', ''])


def caption(workloads, machine, date):
    for name, few, many, rows in growth(workloads):
        yield (f'Time per object of {many:,} against {few:,}: ' +
               ', '.join(f'{n} {large / small:.2f}' for n, (small, large) in rows.items()))
    used = max(w['cpus'] for w in workloads)
    cpus = f'{used} CPUs' if used == machine['cpus'] else f'{used} of {machine["cpus"]} CPUs'
    yield (f'{date}, {machine["cpu"]}, {cpus}, {machine["memory"]}, '
           f'Linux {machine["kernel"]}')
    versions = {l['name']: l['version'] for w in links(workloads) for l in w['linkers']
                if l['family'] not in ('floor', 'kld')}
    yield ', '.join(re.sub(r' \(.*', '', v) if n not in ('gold', 'bfd') else v for n, v in versions.items())


def record(args, workloads, machine, date, svg):
    args.record.mkdir(parents=True, exist_ok=True)
    stem = f'{date}-{slug(machine["cpu"])}'
    # A line for each linker: a record is to be read, too, and compared with others.
    groups = [json.dumps({**w, 'linkers': 0})[:-2] + '[\n  ' +
              ',\n  '.join(json.dumps(l) for l in w['linkers']) + ']}' for w in workloads]
    (args.record / f'{stem}.json').write_text(
        f'{{"date": "{date}",\n"machine": {json.dumps(machine)},\n"workloads": [\n ' +
        ',\n '.join(groups) + ']}\n')
    picture = args.record / f'{stem}.svg'
    picture.write_text(svg)
    print(f'recorded: {args.record / stem}.json, .svg')
    if args.readme:
        link = os.path.relpath(picture, args.readme.parent)
        new = f'<!-- bench -->\n![Wall and CPU time of links relative to mold]({link})\n<!-- /bench -->'
        old = args.readme.read_text()
        args.readme.write_text(re.sub(r'<!-- bench -->.*?<!-- /bench -->', lambda _: new, old, flags=re.S))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', nargs='+', type=Path)
    parser.add_argument('--svg', type=Path)
    parser.add_argument('--record', type=Path, metavar='FOLDER')
    parser.add_argument('--readme', type=Path)
    args = parser.parse_args()
    results = [r for path in args.results for r in json.loads(path.read_text())]
    workloads = [medians(r) for r in results]
    newest = max(r['time'] for r in results)
    date = datetime.datetime.fromtimestamp(newest, datetime.timezone.utc).date().isoformat()
    machine = description(args.results[0].resolve().parent)
    print('\n'.join(table(workloads)))
    svg = Chart(workloads, caption(workloads, machine, date)).svg()
    if args.svg:
        args.svg.write_text(svg)
    if args.record:
        record(args, workloads, machine, date, svg)


main()
