"""The bench: that it measures, draws and records. Nothing here looks at how long something took."""

import json
import platform
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from kldtest import KLD
from kldtest import REPO
from kldtest import TIMEOUT

BENCH = REPO / 'test' / 'bench'


def python(script, *args):
    done = subprocess.run([sys.executable, BENCH / script, *args], capture_output=True, text=True,
                          timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def linker(name, walls, failure=''):
    run = {'all': 1.0, 'user': 0.5, 'system': 0.25, 'peak': 1, 'anon': 1, 'status': 0, 'other': 0.0}
    return {'name': name, 'mode': '', 'family': name, 'version': f'{name} 1.0', 'command': ['/home/me/x'],
            'options': [], 'failure': failure, 'size': 1000, 'state': 0, 'peak': 5000, 'anon': 1000,
            'again': 0, 'runs': [{**run, 'wall': w} for w in walls], 'argv': ['/home/me/x']}


def workload(name, linkers, inputs=10, ref='mold', edit=''):
    return {'workload': name, 'edit': edit, 'keep': False, 'ref': ref, 'inputs': inputs, 'bytes': 12345678,
            'cpus': 2, 'load': [0, 0, 0], 'time': 1700000000.0, 'linkers': linkers}


@pytest.fixture
def results(tmp_path):
    path = tmp_path / 'full.json'
    path.write_text(json.dumps([
        workload('small', [linker('kld', [0.3, 0.1, 0.2]), linker('mold', [0.4]), linker('floor', [0.1])]),
        workload('small-20', [linker('kld', [0.4]), linker('mold', [1.6]), linker('<&>', [90])], 20),
        workload('cross', [linker('kld', [1]), linker('lld', [2]), linker('mold', [], 'no target: /home/me')],
                 ref='lld'),
        workload('edited', [linker('kld', [1])], 0, 'kld', 'body')]))
    return path


def test_summary(results):
    rows = [[c.strip() for c in line.split('|')] for line in python('report.py', results).splitlines()]
    def has(*cells):
        return any(row[1:len(cells) + 1] == list(cells) for row in rows)
    assert has('small', 'mold', '0.50', '0.25') and has('cross', 'lld', '0.50')
    assert has('kld', '20000.0', '20000.0', '1.00')
    assert 'edited' not in [row[1] for row in rows if len(row) > 1]


def test_chart(results, tmp_path):
    python('report.py', results, '--svg', tmp_path / 'a.svg')
    root = ElementTree.parse(tmp_path / 'a.svg').getroot()
    width, height = (float(root.get(a)) for a in ('width', 'height'))
    texts = [e.text for e in root.iter() if e.tag.endswith('text')]
    assert {'small', 'small-20', 'cross', '<&>', '0.25', '56.25'} <= set(texts)
    assert any('small' not in t and 'lld = 1' in t for t in texts)
    for e in root.iter():
        if e.tag.endswith('rect'):
            x, y, w, h = (float(e.get(a)) for a in ('x', 'y', 'width', 'height'))
            assert 0 <= x and x + w <= width and 0 <= y and y + h <= height


def test_record(results, tmp_path):
    readme = tmp_path / 'README.md'
    readme.write_text('before\n<!-- bench -->\nstale\n<!-- /bench -->\nafter\n')
    folder = tmp_path / 'kept' / 'here'
    for _ in range(2):
        python('report.py', results, '--record', folder, '--readme', readme)
    (record,) = folder.glob('2023-11-14-*.json')
    text = record.read_text()
    kept = json.loads(text)
    assert kept['machine']['cpus'] > 0 and 'GiB' in kept['machine']['memory']
    assert [w['workload'] for w in kept['workloads']] == ['small', 'small-20', 'cross', 'edited']
    kld, mold, floor = kept['workloads'][0]['linkers']
    assert (kld['wall'], kld['least'], kld['cpu'], kld['runs']) == (0.2, 0.1, 0.75, 3)
    assert (mold['wall'], floor['wall']) == (0.4, 0.1)
    assert kept['workloads'][2]['linkers'][2]['failed']
    assert '/home' not in text and f'"{platform.node()}"' not in text
    text = readme.read_text()
    assert text.startswith('before\n<!-- bench -->\n') and text.endswith('\n<!-- /bench -->\nafter\n')
    assert 'stale' not in text and f'(kept/here/{record.stem}.svg)' in text
    assert (folder / f'{record.stem}.svg').exists()


def test_readme_shows_a_chart_that_is_there():
    """What --readme replaces is there, and refers to nothing that is not."""
    text = (REPO / 'README.md').read_text()
    section = text.split('<!-- bench -->')[1].split('<!-- /bench -->')[0]
    if '](' in section:
        assert (REPO / section.split('](')[1].split(')')[0]).exists()


def build(t, *tools):
    for tool in tools:
        t.tool('gcc', '-std=gnu17', '-O2', '-Wall', '-Wextra', '-Werror', '-pthread', BENCH / f'{tool}.c',
               '-o', tool)


def test_measure(t):
    """One run of each, and the floor reads what is linked, not the whole archive."""
    lld = shutil.which('ld.lld') or pytest.skip('no ld.lld')
    build(t, 'timer', 'floor')
    used = 'used_and_with_a_long_name.o'
    t.cc('a.o', 'void used(void); void _start(void) { used(); }')
    t.ar('libx.a', t.cc('unused.o', 'char unused[5000] = {1};'), t.cc(used, 'void used(void) {}'))
    t.write('link.rsp', 'a.o\nlibx.a\n')
    python('measure.py', t.path / 'link.rsp', '--linker', f'kld={KLD}', '--linker', f'lld={lld}', '-n', '1',
           '--least', '0', '--ref', 'lld', '--timer', t.path / 'timer', '--floor', t.path / 'floor',
           '--keep-outputs', '--json', t.path / 'out.json')
    (result,) = json.loads(t.read('out.json'))

    def size(name):
        return (t.path / name).stat().st_size
    assert (result['inputs'], result['bytes']) == (2, size('a.o') + size(used))
    assert [l['name'] for l in result['linkers'] if l['runs']] == ['kld', 'lld', 'floor']
    assert min(l['peak'] for l in result['linkers']) > 0
    assert size('out/floor') == min(size('out/kld'), size('out/lld'))


def test_disturbed_runs_are_repeated(t):
    """Others always have more than -1 of the CPUs; a run must be long for their share to be known."""
    build(t, 'timer')
    t.cc('a.o', 'void _start(void) {}')
    t.write('link.rsp', 'a.o\n')
    slow = t.write('slow', f'#!/bin/sh\nsleep 0.15\nexec {KLD} "$@"\n')
    (t.path / slow).chmod(0o755)
    python('measure.py', t.path / 'link.rsp', '--linker', f'kld={t.path / slow}', '-n', '2', '--least', '0',
           '--quiet', '-1', '--tries', '2', '--timer', t.path / 'timer', '--json', t.path / 'out.json')
    (result,) = json.loads(t.read('out.json'))
    assert (len(result['linkers'][0]['runs']), result['linkers'][0]['again']) == (2, 4)
