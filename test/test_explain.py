"""What the link says of itself: map, cross references, traces, --why-extract, --time, --stats."""

import re

from kldtest import deviates

KLD_ONLY = deviates(bfd='another form', lld='another form', gold='another form',
                    mold='another form')


def inputs(t):
    a = t.cc('a.o', 'int from_lib(void); static int value = 3; int *address = &value;'
                    'int main(void) { return from_lib(); }')
    t.ar('libx.a', t.cc('x.o', 'int deeper(void); int from_lib(void) { return deeper(); }'),
         t.cc('y.o', 'int deeper(void) { return 0; }'), t.cc('z.o', 'int not_wanted;'))
    return [a, '-L.', '-lx']


def rows(text):
    """(address, size, alignment, indent, rest) of each row of a map."""
    found = []
    for line in text.split('\n')[1:]:
        match = re.match(r' *([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+) +(\d+) ( *)(\S.*)$', line)
        if not match:
            break
        found.append((int(match[1], 16), int(match[2], 16), int(match[3]), len(match[4]), match[5]))
    return found


@deviates(bfd='another form', gold='another form', mold='no indent of symbols')
def test_map_agrees_with_the_output(t):
    t.link('app', '-Wl,-Map=app.map', *inputs(t))
    table = rows(t.read('app.map'))
    elf = t.elf('app')
    sections = {name: (address, size) for address, size, _, indent, name in table if indent == 0}
    for section in elf.sections:
        if section.name in ('.text', '.data', '.dynamic', '.eh_frame'):
            assert sections[section.name] == (section.addr, section.size)
    symbols = {name: address for address, _, _, indent, name in table if indent == 16}
    for symbol in elf.symbols:
        if symbol.name in ('main', 'from_lib', 'deeper', 'address'):
            assert symbols[symbol.name] == symbol.value
    places = [name for _, _, _, indent, name in table if indent == 8]
    assert any(p.endswith('libx.a(y.o):(.text)') for p in places)


@deviates(bfd='another form', gold='another form')
def test_print_map_goes_to_stdout(t):
    result = t.link('app', '-Wl,--print-map', *inputs(t)).silent()
    assert 'VMA' in result.stdout and 'from_lib' in result.stdout


@deviates(mold='has none')
def test_cross_references(t):
    result = t.link('app', '-Wl,--cref', *inputs(t))
    table = result.stdout[result.stdout.index('Symbol'):]
    assert re.search(r'^from_lib +\S*libx\.a\(x\.o\)\n +a\.o$', table, re.M)


def test_trace_symbol(t):
    result = t.link('app', '-Wl,--trace-symbol=deeper', *inputs(t))
    text = result.stdout + result.stderr
    assert re.search(r'libx\.a\(x\.o\): reference to deeper', text)
    assert re.search(r'libx\.a\(y\.o\): definition of deeper', text)


@deviates(mold='to the error stream')
def test_trace(t):
    result = t.link('app', '-Wl,--trace', *inputs(t))
    assert re.search(r'^a\.o$', result.stdout, re.M)


@deviates(bfd='has none', gold='has none', mold='has none')
def test_why_extract(t):
    t.link('app', '-Wl,--why-extract=why', *inputs(t))
    lines = t.read('why').split('\n')
    assert lines[0] == 'reference\textracted\tsymbol'
    assert './libx.a(x.o)\t./libx.a(y.o)\tdeeper' in lines
    assert 'a.o\t./libx.a(x.o)\tfrom_lib' in lines
    assert not any('z.o' in line for line in lines)


@KLD_ONLY
def test_time_and_stats(t):
    result = t.link('app', '-Wl,--time,--stats', *inputs(t)).silent()
    for word in 'load', 'resolve', 'write', 'total', 'object files', 'peak memory':
        assert re.search(rf'^ *{word}', result.stdout, re.M)
