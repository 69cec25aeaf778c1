"""Programs of several files, made at random, and edits of them.

A program calls its functions in order and prints what each has made of everything it touched: data
of its own and of other files, literals, thread-local variables, tables of functions, virtual
functions, exceptions. `fuel` bounds the calls, whatever calls what. A seed decides all of it.

As a command it edits programs and links them incrementally until it is stopped, or fails:

    python3 test/link-incremental/randomprogram.py [--seed N] [--steps N] [--target CPU]
"""

import argparse
import copy
import os
import random
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from inc import DirectLink  # noqa: E402
from inc import PLAIN  # noqa: E402
from inc import SPLIT  # noqa: E402
from kldtest import KLD  # noqa: E402
from kldtest import TARGETS  # noqa: E402
from kldtest import Workspace  # noqa: E402

KINDS = ['exe', 'shared', 'static']
WORDS = 'alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omikron pi'.split()

COMMON = '''
extern int fuel;
extern __thread unsigned tls_all;
unsigned text_sum(const char *text);
'''
COMMON_CXX = '''
struct Error { unsigned value; };
struct Guard { unsigned *at; unsigned add; ~Guard(); };
struct Shape { virtual unsigned area(unsigned x); virtual unsigned edge(unsigned x); };
struct Circle : Shape { unsigned area(unsigned x) override; };
struct Square : Shape { unsigned area(unsigned x) override; unsigned edge(unsigned x) override; };
Shape *shape_of(unsigned n);
template <unsigned N> __attribute__((noinline)) unsigned twist(unsigned x)
{
    static unsigned seen;
    seen += N;
    return (x << N | x >> (32 - N)) + seen;
}
'''
# What the first file has beside its random functions.
BASE = '''
int fuel;
__thread unsigned tls_all = 3;
unsigned text_sum(const char *text)
{
    unsigned sum = 5381;
    while (*text)
        sum = sum * 33 + (unsigned char)*text++;
    return sum;
}
'''
BASE_CXX = '''
Guard::~Guard() { *at += add; }
static Circle circle;
static Square square;
static Shape shape;
Shape *shape_of(unsigned n)
{
    Shape *const shapes[] = {&circle, &square, &shape};
    return shapes[n % 3];
}
'''
# Every file touches all that it has, and refers to what edits may need: they seldom refer to a name
# that the program did not know.
FIXED = '''
unsigned fixed{0}(unsigned x)
{{
    if (fuel-- <= 0)
        return x;
    tls_own{0} += x;
    tls_all ^= tls_own{0};
    x += text_sum("fixed {0}") ^ tls_all;
{1}{2}    return x;
}}
'''
FIXED_CXX = '''    Guard guard = {{&tls_own{0}, x}};
    try {{
        if (x & 1)
            throw Error{{x}};
        x += twist<3>(x) + twist<7>(x) + shape_of(x)->area(x);
    }} catch (const Error &e) {{
        x += e.value >> 1;
    }}
'''
MAIN = '''
int printf(const char *, ...);
{declarations}
static const struct {{ const char *name; unsigned (*f)(unsigned); }} all[] = {{
{rows}}};
int main({void})
{{
    unsigned x = 7;
    for (unsigned n = 0; n < sizeof all / sizeof *all; n++) {{
        for (int again = 0; again < 6; again++) {{
            fuel = 40;
            {call}
        }}
        printf("%s %08x\\n", all[n].name, x);
    }}
    return (int)(x & 63);
}}
'''
CALL_CXX = '''try {
            x = x * 31 + all[n].f(x + n);
        } catch (const Error &e) {
            x ^= e.value + 1;
        }'''


@dataclass
class Data:
    """An array of numbers, of texts ('text') or of functions ('table')."""
    name: str
    kind: str
    static: bool
    items: list
    const: bool = False

    def declaration(self):
        const = 'const ' if self.const else ''
        return {'number': f'{const}unsigned {self.name}[{len(self.items)}]',
                'text': f'const char *{const}{self.name}[{len(self.items)}]',
                'table': f'unsigned (*{const}{self.name}[{len(self.items)}])(unsigned)'}[self.kind]

    def definition(self):
        linkage = 'static ' if self.static else 'extern ' if self.const else ''
        text = self.declaration()
        items = ', '.join(map(str, self.items))
        values = '' if self.kind == 'number' and not any(self.items) and not self.const else \
            f' = {{{items}}}'
        forward = f'{linkage}{text};\n' if linkage == 'extern ' else ''
        return forward + ('static ' if self.static else '') + text + values + ';\n'


@dataclass
class Function:
    name: str
    static: bool = False
    method: str = ''
    statements: list = field(default_factory=list)  # of (kind, text)

    def head(self):
        if self.method:
            return f'unsigned {self.method}(unsigned x)'
        noinline = '__attribute__((noinline)) ' if self.name.startswith('sn') else ''
        return f'{"static " if self.static else ""}{noinline}unsigned {self.name}(unsigned x)'

    def text(self):
        body = ''.join(f'    {text}\n' for _, text in self.statements)
        return f'{self.head()}\n{{\n    if (fuel-- <= 0)\n        return x;\n{body}    return x;\n}}\n'


@dataclass
class Unit:
    number: int
    place: str  # 'exe', 'archive' or 'library'
    functions: list = field(default_factory=list)
    data: list = field(default_factory=list)
    comment: int = 0
    extra: list = field(default_factory=list)  # what gate edits have added


class Program:
    def __init__(self, seed, lang='c', kind='exe', split=False):
        self.rng = random.Random(f'{seed} {lang} {kind} {split}')
        self.lang, self.kind = lang, kind
        self.cxx = lang == 'c++'
        self.suffix = '.cc' if self.cxx else '.c'
        self.flags = [self.rng.choice(['-O0', '-O0', '-O1', '-O2']), '-g', '-w',
                      *(SPLIT if split else ()), *(['-fPIC'] if kind == 'shared' else [])]
        self.serial, self.toggle, self.main_text = 0, False, ''
        places = ['exe', 'exe', 'exe', 'archive', 'archive'] + ['library'] * (kind == 'exe')
        self.units = [Unit(n, place) for n, place in enumerate(places)]
        for unit in self.units:
            for static in (False, False, True, True):
                unit.functions.append(Function(self.name('sf' if static else 'fn', unit), static))
            if self.cxx and unit.number < 3:
                unit.functions += [Function(m, method=m) for m in (
                    ['Shape::area', 'Shape::edge'], ['Circle::area'], ['Square::area', 'Square::edge'])
                    [unit.number]]
            for kind_, static, const in [('number', False, False), ('number', True, False),
                                         ('number', True, True), ('text', True, False),
                                         ('text', True, True)]:
                unit.data.append(self.new_data(unit, kind_, static, const))
        for unit in self.units:
            unit.data += [self.new_data(unit, 'table', True, True),
                          self.new_data(unit, 'table', False, False)]
        for unit in self.units:
            for function in unit.functions:
                for _ in range(self.rng.randrange(2, 7)):
                    self.add_statement(unit, function)

    # -- names and things ------------------------------------------------------------------------

    def name(self, prefix, unit):
        self.serial += 1
        return f'{prefix}{unit.number}_{self.serial}'

    def literal(self):
        r = self.rng
        return '"' + ' '.join(r.choice(WORDS) for _ in range(r.choice([0, 1, 2, 2, 3, 5, 20]))) + '"'

    def number(self):
        r = self.rng
        return r.choice([r.randrange(10), r.randrange(1 << 8), r.randrange(1 << 31)])

    def new_data(self, unit, kind, static, const):
        r = self.rng
        count = 4 if kind != 'number' else r.choice([1, 3, 8, 40])
        if kind == 'number':
            items = [0] * count if r.random() < 0.2 else [self.number() for _ in range(count)]
        elif kind == 'text':
            items = [self.literal() for _ in range(count)]
        else:
            items = [r.choice(self.callees(unit)) for _ in range(count)]
        return Data(self.name('d', unit), kind, static, items, const)

    def callees(self, unit):
        """Names of functions that a file may call: all of its own, and what it can see elsewhere."""
        found = [f.name for f in unit.functions if not f.method]
        if unit.place != 'library':
            found += [f.name for u in self.units if u is not unit for f in u.functions
                      if not f.static and not f.method]
        return found

    def arrays(self, unit, kind):
        found = [d for d in unit.data if d.kind == kind]
        if unit.place != 'library':
            found += [d for u in self.units if u is not unit and u.place != 'library'
                      for d in u.data if d.kind == kind and not d.static]
        return found

    # -- statements ------------------------------------------------------------------------------

    STATEMENTS = ['sum', 'sum', 'data', 'literal', 'text', 'call', 'call', 'if', 'switch', 'own', 'tls',
                  'table', 'local', 'double', 'address', 'loop']
    STATEMENTS_CXX = ['try', 'throw', 'virtual', 'guard', 'twist']

    def statement(self, unit, kind):
        r = self.rng
        n, m = self.number(), self.number()
        if kind == 'sum':
            return f'x = x * {n | 1}u + {m}u;'
        if kind == 'data':
            d = r.choice(self.arrays(unit, 'number'))
            at = f'{d.name}[x % {len(d.items)}]'
            write = '' if d.const or r.random() < 0.5 else f'{at} += {n}u; '
            return f'{write}x ^= {at} + {m}u;'
        if kind == 'literal':
            return f'x += text_sum({self.literal()});'
        if kind == 'text':
            d = r.choice(self.arrays(unit, 'text'))
            return f'x += text_sum({d.name}[x % 4]);'
        if kind == 'call':
            return f'x ^= {r.choice(self.callees(unit))}(x + {n}u);'
        if kind == 'if':
            return f'if (x & {m | 1}u) x += {n}u; else x = x * 5 - {m}u;'
        if kind == 'switch':
            cases = ' '.join(f'case {i}: x += {self.number()}u; break;' for i in range(r.randrange(5, 12)))
            return f'switch (x % 12) {{ {cases} default: x ^= {n}u; }}'
        if kind == 'own':
            self.serial += 1
            items = ', '.join(str(self.number()) for _ in range(4))
            const = r.random() < 0.4
            change = '' if const else f'own{self.serial}[x % 4] += {n}u; '
            return (f'{{ static {"const " * const}unsigned own{self.serial}[] = {{{items}}}; {change}'
                    f'x ^= own{self.serial}[x % 3]; }}')
        if kind == 'tls':
            own = f'tls_own{unit.number}'
            return r.choice([f'{own} += x; x ^= {own};', f'x += tls_all + {n}u;', f'tls_all ^= x * {m}u;'])
        if kind == 'table':
            return f'x ^= {r.choice(self.arrays(unit, "table")).name}[x % 4](x + {m}u);'
        if kind == 'local':
            return (f'{{ unsigned v[6], i; for (i = 0; i < 6; i++) v[i] = x * (i + {n % 97}); '
                    f'x ^= v[x % 6]; }}')
        if kind == 'double':
            return f'x ^= (unsigned)((x & 1023) * {n % 5000}.{m % 89 + 10} + {m % 7}.5);'
        if kind == 'address':
            table = r.choice(self.arrays(unit, 'table'))
            return f'x += ({table.name}[{n % 4}] == {r.choice(self.callees(unit))});'
        if kind == 'loop':
            return f'for (unsigned i = 0; i < {n % 9 + 1}; i++) x = (x << 3 | x >> 29) ^ {m}u;'
        if kind == 'try':
            return (f'try {{ x ^= {r.choice(self.callees(unit))}(x); '
                    f'if (x % {n % 5 + 2} == 0) throw Error{{x}}; }}'
                    f' catch (const Error &e) {{ x += e.value ^ {m}u; }}')
        if kind == 'throw':
            return f'if (x % {n % 11 + 5} == 1) throw Error{{x + {m}u}};'
        if kind == 'virtual':
            return f'x ^= shape_of(x + {n}u)->{r.choice(["area", "edge"])}(x);'
        if kind == 'guard':
            return f'{{ Guard g = {{&tls_own{unit.number}, {n}u}}; x ^= {r.choice(self.callees(unit))}(x); }}'
        assert kind == 'twist'
        return f'x = twist<{r.choice([3, 7])}>(x);'

    def add_statement(self, unit, function, kinds=None):
        r = self.rng
        every = self.STATEMENTS + self.STATEMENTS_CXX * self.cxx
        kind = r.choice(kinds or every)
        function.statements.insert(r.randrange(len(function.statements) + 1),
                                   (kind, self.statement(unit, kind)))

    # -- texts -----------------------------------------------------------------------------------

    def text(self, unit):
        own = {d.name for d in unit.data} | {f.name for f in unit.functions}
        body = ''.join(d.definition() for d in unit.data)
        functions = ''.join(f.text() for f in unit.functions)
        used = set(re.findall(r'\b(?:fn|sf|sn|d)\d+_\d+\b', body + functions)) - own
        known = {f.name: f'unsigned {f.name}(unsigned);\n' for u in self.units for f in u.functions}
        known |= {d.name: f'extern {d.declaration()};\n' for u in self.units for d in u.data}
        linkage = ''.join(known[n] for n in sorted(used))
        forward = ''.join(f.head() + ';\n' for f in unit.functions if not f.method)
        fixed = FIXED.format(unit.number, FIXED_CXX.format(unit.number) if self.cxx else '',
                             self.walk(unit))
        return (f'/* file {unit.number} {"*" * unit.comment} */\n' + '\n' * (unit.comment % 7) + COMMON +
                COMMON_CXX * self.cxx + linkage + forward +
                f'static __thread unsigned tls_own{unit.number};\n' + ''.join(unit.extra) + body +
                (BASE + BASE_CXX * self.cxx) * (unit.number == 0) + functions + fixed)

    def walk(self, unit):
        """Looks at all data of the file and calls its static functions."""
        text = ''
        for d in unit.data:
            item = f'{d.name}[n]'
            use = {'number': f'x = x * 3 + {item};', 'text': f'x += text_sum({item});',
                   'table': self.call(item, 'x + n')}[d.kind]
            text += f'    for (unsigned n = 0; n < {len(d.items)}; n++) {{ {use} }}\n'
        for f in unit.functions:
            if f.static:
                text += f'    {self.call(f.name, "x")}\n'
        return text

    def call(self, function, argument):
        call = f'fuel = 12; x = x * 31 + {function}({argument});'
        return f'try {{ {call} }} catch (const Error &e) {{ x ^= e.value + 1; }}' if self.cxx else call

    def main(self):
        names = [f.name for u in self.units for f in u.functions if not f.static and not f.method]
        names += [f'fixed{u.number}' for u in self.units]
        return COMMON + COMMON_CXX * self.cxx + MAIN.format(
            declarations=''.join(f'unsigned {n}(unsigned);\n' for n in names),
            rows=''.join(f'    {{"{n}", {n}}},\n' for n in names), void='' if self.cxx else 'void',
            call=CALL_CXX if self.cxx else 'x = x * 31 + all[n].f(x + n);').replace(
                'int printf', 'extern "C" int printf' if self.cxx else 'int printf')

    # -- ordinary edits: the changed files ---------------------------------------------------------

    def pick(self):
        unit = self.rng.choice(self.units)
        return unit, self.rng.choice(unit.functions)

    def edit_constant(self):
        unit, f = self.pick()
        if f.statements:
            n = self.rng.randrange(len(f.statements))
            kind = f.statements[n][0]
            f.statements[n] = kind, self.statement(unit, kind)
        else:
            self.add_statement(unit, f)
        return [unit]

    def edit_insert(self):
        unit, f = self.pick()
        for _ in range(self.rng.choice([1, 1, 2, 4])):
            self.add_statement(unit, f)
        return [unit]

    def edit_delete(self):
        unit, f = self.pick()
        if f.statements:
            del f.statements[self.rng.randrange(len(f.statements))]
        return [unit]

    def edit_literal(self):
        unit, f = self.pick()
        self.add_statement(unit, f, ['literal'])
        return [unit]

    def edit_grow(self):
        unit, f = self.pick()
        for _ in range(self.rng.randrange(20, 100)):
            self.add_statement(unit, f, ['sum', 'if', 'literal', 'switch', 'local', 'loop'])
        del f.statements[160:]
        return [unit]

    def edit_shrink(self):
        unit = max(self.units, key=lambda u: sum(len(f.statements) for f in u.functions))
        f = max(unit.functions, key=lambda f: len(f.statements))
        del f.statements[2:]
        return [unit]

    def edit_local_variable(self):
        unit, f = self.pick()
        self.add_statement(unit, f, ['local'])
        return [unit]

    def edit_static_function(self):
        """A new one, called from another."""
        unit, caller = self.pick()
        f = Function(self.name(self.rng.choice(['sf', 'sn']), unit), True)
        for _ in range(3):
            self.add_statement(unit, f)
        unit.functions.insert(self.rng.randrange(len(unit.functions) + 1), f)
        caller.statements.append(('call', f'x += {f.name}(x);'))
        return [unit]

    def edit_drop_static(self):
        """One that only functions of its file use, with its uses."""
        unit = self.rng.choice(self.units)
        droppable = [f for f in unit.functions if f.static]
        if len(droppable) > 2:
            gone = self.rng.choice(droppable).name
            others = [f.name for f in unit.functions if f.name != gone and not f.method]
            unit.functions = [f for f in unit.functions if f.name != gone]
            for f in unit.functions:
                f.statements = [s for s in f.statements if not re.search(rf'\b{gone}\b', s[1])]
            for d in unit.data:
                d.items = [others[0] if i == gone else i for i in d.items]
        return [unit]

    def edit_call(self):
        unit, f = self.pick()
        self.add_statement(unit, f, ['call', 'address', 'table'])
        return [unit]

    def edit_static_data(self):
        unit, f = self.pick()
        self.add_statement(unit, f, ['own'])
        return [unit]

    def edit_data_value(self):
        unit = self.rng.choice(self.units)
        d = self.rng.choice(unit.data)
        n = self.rng.randrange(len(d.items))
        d.items[n] = {'number': self.number, 'text': self.literal,
                      'table': lambda: self.rng.choice(self.callees(unit))}[d.kind]()
        return [unit]

    def edit_order(self):
        """Functions of a file change places."""
        unit = self.rng.choice(self.units)
        self.rng.shuffle(unit.functions)
        return [unit]

    def edit_comment(self):
        unit = self.rng.choice(self.units)
        unit.comment = self.rng.randrange(30)
        return [unit]

    def edit_nothing(self):
        return [self.rng.choice(self.units)]

    def edit_two(self):
        return self.edit_constant() + self.edit_insert()

    ORDINARY = ['constant', 'constant', 'insert', 'insert', 'delete', 'literal', 'grow', 'shrink',
                'local_variable', 'static_function', 'static_function', 'drop_static', 'call',
                'static_data', 'data_value', 'data_value', 'order', 'comment', 'nothing', 'two']

    # -- edits that change more than bodies ----------------------------------------------------------

    def gate_new_global(self):
        unit, caller = self.pick()
        f = Function(self.name('fn', unit))
        self.add_statement(unit, f)
        unit.functions.append(f)
        caller.statements.append(('call', f'x += {f.name}(x);'))
        return [unit]

    def gate_new_global_that_main_calls(self):
        return [*self.gate_new_global(), None]

    def gate_global_to_static(self):
        """One that only its own file uses."""
        for unit in self.units:
            for f in unit.functions:
                others = ''.join(self.text(u) for u in self.units if u is not unit) + self.main_text
                if not f.static and not f.method and not re.search(rf'\b{f.name}\b', others):
                    f.static = True
                    return [unit]
        return self.gate_new_global()

    def gate_data_size(self):
        """Of an array that others may use: those are compiled again, too."""
        unit = self.rng.choice([u for u in self.units if u.place != 'library'])
        d = next(d for d in unit.data if d.kind == 'number' and not d.static)
        d.items = d.items[:1] * self.rng.choice([1, 50, 3000])
        for u in self.units:
            for f in u.functions:
                f.statements = [s for s in f.statements if not re.search(rf'\b{d.name}\b', s[1])]
        return list(self.units)

    def gate_tls(self):
        unit = self.rng.choice(self.units)
        name = self.name('t', unit)
        unit.extra.append(f'__attribute__((used)) static __thread unsigned {name}[{self.rng.randrange(1, 9)}]'
                          f'{self.rng.choice(["", " = {7}"])};\n')
        return [unit]

    def gate_constructor(self):
        unit = self.rng.choice(self.units)
        name = self.name('c', unit)
        unit.extra.append(f'static unsigned v{name}; __attribute__((constructor)) static void {name}'
                          f'({"" if self.cxx else "void"}) {{ v{name} = tls_own{unit.number}++; }}\n')
        return [unit]

    def gate_weak(self):
        """A function of the file becomes weak, or is no longer."""
        unit = self.rng.choice(self.units)
        f = next(f for f in unit.functions if not f.static and not f.method)
        line = f'__attribute__((weak)) unsigned {f.name}(unsigned x);\n'
        if line in unit.extra:
            unit.extra.remove(line)
        else:
            unit.extra.append(line)
        return [unit]

    def gate_array(self):
        unit = self.rng.choice(self.units)
        unit.extra.append(f'__attribute__((used, section("walked"))) static unsigned '
                          f'{self.name("w", unit)} = 4;\n')
        return [unit]

    def gate_new_file(self):
        unit = Unit(len(self.units), self.rng.choice(['exe', 'archive']))
        self.units.append(unit)
        unit.functions = [Function(self.name('fn', unit)), Function(self.name('sf', unit), True)]
        for kind in 'number', 'text', 'table':
            unit.data.append(self.new_data(unit, kind, True, True))
        for f in unit.functions:
            for _ in range(3):
                self.add_statement(unit, f)
        return [unit, None]

    def gate_option(self):
        self.toggle = not self.toggle
        return []

    def gate_undefined(self):
        """A function of libc that nobody has called before, perhaps."""
        unit, f = self.pick()
        name = self.rng.choice(['abs', 'rand', 'getpid', 'getuid', 'labs', 'clock'])
        arg = {'abs': 'int', 'labs': 'long'}.get(name, '' if self.cxx else 'void')
        linkage = 'extern "C" ' if self.cxx else ''
        unit.extra.append(f'{linkage}{"long" if name in ("labs", "clock") else "int"} {name}({arg});\n')
        call = f'{name}({"5" if name in ("abs", "labs") else ""})'
        f.statements.append(('libc', f'if (fuel > 100000) x += {call};'))
        return [unit]

    GATES = ['new_global', 'new_global_that_main_calls', 'global_to_static', 'data_size', 'tls',
             'constructor', 'weak', 'array', 'new_file', 'option', 'undefined']

    # -- a step ------------------------------------------------------------------------------------

    def step(self, gates=0.1):
        """An edit: its name, whether it is an ordinary one, the files that changed (None: main)."""
        ordinary = self.rng.random() >= gates
        name = self.rng.choice(self.ORDINARY if ordinary else self.GATES)
        before = copy.deepcopy(self.units)
        units = getattr(self, ('edit_' if ordinary else 'gate_') + name)()
        if ordinary and self.rng.random() < 0.08 and len(units) == 1:
            name = 'undone ' + name  # nothing has changed in the end
            self.units = before
            units = [self.units[units[0].number]]
        return name, ordinary, units


class Session:
    """A random program in a folder, its links, and the checks after each step."""

    def __init__(self, t, seed, lang='c', kind='exe', split=False):
        self.t, self.kind = t, kind
        self.program = Program(seed, lang, kind, split)
        self.history = [f'seed {seed} {lang} {kind} split={split} {" ".join(self.program.flags)}']
        self.texts, self.outcomes = {}, []
        via = 'c++' if lang == 'c++' else 'cc'
        self.link = DirectLink(t, 'libprogram.so' if kind == 'shared' else 'app', via=via)
        for unit in self.program.units:
            self.compile(unit)
        self.compile(None)
        self.arguments()
        self.link.full()
        if kind == 'shared':
            t.tool(*t.driver(lang), '-B', t.linker_dir, '-o', 'app', 'main.o', '-L.', '-lprogram')
        self.check()

    def compile(self, unit):
        """A file if its text has changed (and, to the same object, if it has not), main for None."""
        t, p = self.t, self.program
        name = f'u{unit.number}' if unit else 'main'
        text = p.text(unit) if unit else p.main()
        if not unit:
            p.main_text = text
        t.write(name + p.suffix, text)
        t.tool(*t.driver(p.lang), '-c', *p.flags, *(['-fPIC'] if unit and unit.place == 'library' else []),
               name + p.suffix, '-o', f'{name}.o')
        if unit and unit.place == 'archive':
            t.ar('libu.a', f'{name}.o')
        elif unit and unit.place == 'library':
            t.tool(*t.driver(p.lang), '-B', t.linker_dir, '-shared', '-o', 'libl.so', f'{name}.o')

    def arguments(self):
        p, kind = self.program, self.kind
        objects = [f'u{u.number}.o' for u in p.units if u.place == 'exe']
        args = ['-Wl,-z,now'] if p.toggle else []
        if kind == 'shared':
            args += ['-shared', *objects, '-Wl,--whole-archive', 'libu.a', '-Wl,--no-whole-archive']
        else:
            args += ['-static'] * (kind == 'static') + ['main.o', *objects, 'libu.a']
            if any(u.place == 'library' for u in p.units):
                args += ['-rdynamic', '-L.', '-ll']
        self.link.args = args

    def run(self, folder=''):
        program = 'app' if self.kind == 'shared' or not folder else f'{folder}/app'
        t = self.t
        path = f'{t.path / folder}:{t.path}'
        done = t.tool(*t.target.runner, f'./{program}', ok=None, env={'LD_LIBRARY_PATH': path})
        return done.status, done.stdout

    def check(self):
        """The same as a plain link's."""
        (self.t.path / 'plain').mkdir(exist_ok=True)
        self.link.plain(f'plain/{self.link.out}')
        ours, plain = self.run(), self.run('plain')
        assert plain[1], 'the plain program says nothing'
        assert ours == plain, f'{ours}\nbut a plain link:\n{plain}'

    def step(self, gates=0.1):
        name, ordinary, units = self.program.step(gates)
        self.history.append(name + ''.join(f' {u.number if u else "main"}' for u in units))
        for unit in {id(u): u for u in units}.values():
            self.compile(unit)
        self.arguments()
        if None in units and self.kind == 'shared':
            # main may need what the library is to get; the library knows nothing of main.
            report = self.link()
            self.t.tool(*self.t.driver(self.program.lang), '-B', self.t.linker_dir, '-o', 'app', 'main.o',
                        '-L.', '-lprogram')
        else:
            report = self.link()
        assert PLAIN or report.outcome in ('PATCHED', 'FELL_BACK_FULL'), report.result
        self.history[-1] += f': {report.outcome} {report.slug or ""}'
        self.outcomes.append((ordinary, report.outcome, report.slug))
        self.check()
        self.link.verify()

    def steps(self, count, gates=0.1):
        for _ in range(count):
            self.step(gates)
        return self.outcomes

    def told(self):
        return '\n'.join(self.history)


def patched_share(outcomes):
    """Of ordinary edits."""
    ordinary = [outcome for is_ordinary, outcome, _ in outcomes if is_ordinary]
    return ordinary.count('PATCHED') / max(1, len(ordinary))


def soak(seed, steps, target):
    """Program after program, until stopped."""
    began, count, outcomes = time.monotonic(), 0, []
    while not steps or count < steps:
        rng = random.Random(seed)
        lang, kind, split = rng.choice(['c', 'c++']), rng.choice(KINDS), rng.random() < 0.5
        folder = Path(tempfile.mkdtemp(prefix='kld-soak-'))
        linker = folder / 'linker'
        linker.mkdir()
        (linker / 'ld').symlink_to(os.path.abspath(KLD))
        session, size = None, rng.choice([20, 60, 200])
        try:
            session = Session(Workspace(folder, TARGETS[target], linker), seed, lang, kind, split)
            for _ in range(min(size, steps - count) if steps else size):
                session.step()
                session.t.commands.clear()
                count += 1
        except AssertionError as error:
            print(f'{error}\n\n{session.told() if session else ""}\n'
                  f'FAILED: --seed {seed} --target {target} '
                  f'(step {len(session.outcomes) if session else 0}); files in {folder}')
            return 1
        outcomes += session.outcomes
        shutil.rmtree(folder)
        print(f'seed {seed}: {lang} {kind}{" split" * split}, {len(session.outcomes)} steps, '
              f'{100 * patched_share(session.outcomes):.0f}% of ordinary edits patched; '
              f'in all {count} steps, {(time.monotonic() - began) / count:.3f} s each', flush=True)
        seed += 1
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--seed', type=int, default=int(time.time()))
    parser.add_argument('--steps', type=int, default=0, help='0: until stopped')
    parser.add_argument('--target', default='x86_64', choices=TARGETS)
    args = parser.parse_args()
    return soak(args.seed, args.steps, args.target)


if __name__ == '__main__':
    sys.exit(main())
