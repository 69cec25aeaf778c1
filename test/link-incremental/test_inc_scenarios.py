"""The scenarios of incremental links, on the hand-written fixture: an edit that fits, one that has
grown, the gate, several outputs, determinism, nothing to do."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

import inc
from inc import SPLIT
from inc import Core
from inc import Link
from inc import Sources
from inc import Stamp
from inc import incremental_only
from kldtest import REPO

# What a host links with; $KLD_LIB is its neighbour.
LIB = Path(os.environ.get('KLD_LIB') or REPO / 'build' / 'libkld.a').with_name('libkld.a')
LIBS = ['-lb2', '-lnettle', '-liberty', '-lzstd', '-lz', '-pthread']

GET = 'arith_add(rows[n & 7], 10)'
GET_EDITED = 'arith_add(rows[n & 7], 20)'
SUM = '    return sum;'
# More than 10 KB of code on every CPU, and 1 more than before.
SUM_GROWN = inc.growth('    sum = arith_add(sum, arith_mul(sum, 0));', 600) + \
    '\n    sum = arith_add(sum, 1);\n' + SUM


@pytest.fixture
def core(t):
    return Core(t, *SPLIT).full()


def build_id(elf):
    return elf.note('GNU', 3)


def differing(before, after, skip=()):
    """Names of the loaded sections of which bytes differ."""
    return {s.name for s in after.sections
            if 'A' in s.flags and s.name not in skip and before.section(s.name).data != s.data}


# -- A: in slack ----------------------------------------------------------------------------------

def test_a_edit_that_fits(core):
    before = core.a.elf()
    resolutions = core.a.stats().get('whole-program resolutions')
    core.edit('table.c', GET, GET_EDITED)
    for app in core.apps:
        report = app.patched()
        assert inc.PLAIN or report.files == 1 and report.moved == 0 and report.atoms >= 1
    core.run(56, 58)
    if inc.PLAIN:
        return
    after = core.a.elf()
    assert core.a.stats()['whole-program resolutions'] == resolutions == 1
    assert inc.addresses(after) == inc.addresses(before)
    assert build_id(after) and build_id(after) != build_id(before)
    frames = {'.eh_frame', '.eh_frame_hdr'}
    assert differing(before, after, frames) == {'.text', '.note.gnu.build-id'}


def test_a_only_the_slot_of_the_function_differs(core):
    before = core.a.elf()
    core.edit('table.c', GET, GET_EDITED)
    core.a.patched()
    if inc.PLAIN:
        return
    after = core.a.elf()
    start = after.symbol('tbl_get').value
    end = min(s.value for s in after.symbols if s.type == 'FUNC' and s.value > start)
    text = after.section('.text')
    low, high = start - text.addr, end - text.addr
    old, new = before.section('.text').data, text.data
    assert old[:low] == new[:low] and old[high:] == new[high:] and old != new


def test_a_lines_of_edited_and_other_functions(core):
    """Two lines more: the functions of the unit behind it are found at their new lines."""
    core.edit('table.c', '    return ' + GET, '    n += 8;\n\n    return ' + GET_EDITED)
    core.a.patched()
    elf = core.a.elf()
    for file, name in (('table.c', 'tbl_get'), ('table.c', 'tbl_sum'), ('arith.c', 'arith_mul'),
                       ('app_a.c', 'main')):
        inc.check_line(core.t, 'app_a', elf, file, name)
    core.a.run(status=56)


def test_a_many_times(core):
    """And back again: an output that has been patched is as good as new."""
    for n in range(2, 30):
        core.edit('table.c', f', {n - 1 if n > 2 else 10})', f', {n})')
        core.a.patched()
        core.a.run(status=36 + n)
    core.b.patched()
    core.run(65, 67)


def test_a_data(core):
    core.edit('state.c', '{1, 0, 2', '{5, 0, 2', '"core"', '"door"')
    before = core.b.elf()
    for app in core.apps:
        app.patched()
    core.run(58, 61)
    assert inc.PLAIN or differing(before, core.b.elf()) == {'.data', '.note.gnu.build-id'}


def test_a_read_only_data(core):
    core.edit('table.c', '{3, 1, 4, 1', '{3, 1, 6, 1')
    for app in core.apps:
        app.patched()
    core.run(52, 52)


# -- B: growth ------------------------------------------------------------------------------------

def test_b_growth(core):
    before = core.a.elf()
    old = before.symbol('tbl_sum').value
    core.edit('table.c', SUM, SUM_GROWN)
    for app in core.apps:
        report = app.patched()
        assert inc.PLAIN or report.moved >= 1
    core.run(47, 49)
    after = core.a.elf()
    new = after.symbol('tbl_sum')
    assert new.size > before.symbol('tbl_sum').size + 10000
    if inc.PLAIN:
        return
    assert new.value != old
    assert inc.island_target(after, old) == new.value
    for caller in 'main', 'tbl_get', 'arith_add', '_start':
        assert inc.code(after, caller) == inc.code(before, caller), caller
    was, now = inc.addresses(before), inc.addresses(after)
    assert {k for k in was if was[k] != now.get(k)} == {('tbl_sum', 'FUNC')}
    inc.check_unwind(after, 'tbl_sum', 'tbl_get', 'main')
    inc.check_line(core.t, 'app_a', after, 'table.c', 'tbl_sum')


def test_b_growth_again_makes_no_chain(core):
    """The first address leads to the function itself each time, and slots that became free are
    used again."""
    original = core.t.read('table.c')
    old, places = core.a.elf().symbol('tbl_sum').value, set()
    size = core.a.path.stat().st_size
    for n in range(12):
        text = inc.growth('    sum = arith_add(sum, 0);', 20 + 30 * (n % 3))
        core.set('table.c', original.replace(SUM, f'{text}\n    sum += {n};\n{SUM}'))
        core.a.patched()
        core.a.run(status=46 + n)
        elf = core.a.elf()
        places.add(elf.symbol('tbl_sum').value)
        if not inc.PLAIN and elf.symbol('tbl_sum').value != old:
            assert inc.island_target(elf, old) == elf.symbol('tbl_sum').value
    assert inc.PLAIN or 1 < len(places) < 6
    assert inc.PLAIN or core.a.path.stat().st_size <= size + 65536


def test_b_shrinks_again(core):
    """Back to what it was: it may stay where it is, the program has to be right."""
    text = core.t.read('table.c')
    core.edit('table.c', SUM, SUM_GROWN)
    core.a.patched()
    core.set('table.c', text)
    core.a.patched()
    core.a.run(status=46)
    core.b.right()
    core.b.run(status=48)


def test_b_new_function_of_the_unit(core):
    """New local symbols, literals and unwind records come with every real edit."""
    core.edit('table.c', 'int tbl_sum(void)\n{', '''static __attribute__((noinline)) int twice(int n)
{
    static const char text[] = "a new text";
    return 2 * n + (text[n & 7] == 0);
}

int tbl_sum(void)
{''', SUM, '    return twice(sum);')
    for app in core.apps:
        app.patched()
    core.run(77, 79)
    elf = core.a.elf()
    inc.check_unwind(elf, 'twice', 'tbl_sum')
    assert inc.addr2line(core.t, 'app_a', elf.symbol('twice').value).startswith('table.c:')
    core.edit('table.c', 'twice(sum)', 'sum', '''static __attribute__((noinline)) int twice(int n)
{
    static const char text[] = "a new text";
    return 2 * n + (text[n & 7] == 0);
}

''', '')
    core.a.patched()
    core.a.run(status=46)
    assert core.a.elf().symbol('twice') is None


# -- units without a section per function ---------------------------------------------------------

SHIFTED = r'''
    #include <stdio.h>
    static int first = 1;
    static int second = 2;
    int third = 3;
    static int before(int n) { return n + first; }
    static int edited(int n)
    {
        return n * second; /* HERE */
    }
    static int behind(int n) { return n - third; }
    int last(int n) { return behind(n) + before(n); }
    static int (*const table[])(int) = {before, edited, behind, last};
    int (*call(int n))(int) { return table[n & 3]; }
    int body(int n) { return edited(n) + behind(n); }
    int *pick(int n) { return n ? &third : &second; }
    '''
USER = r'''
    #include <stdio.h>
    int last(int), body(int), (*call(int))(int), *pick(int);
    extern int third;
    int (*const mine)(int) = last;
    int main(void)
    {
        for (int n = 0; n < 4; n++)
            printf("%d ", call(n)(10));
        printf("%d %d %d %d %d %d\n", body(5), last(6), mine == call(3), *pick(0), *pick(1), third);
        return 0;
    }
    '''


@pytest.mark.parametrize('kind', ['pie', 'no-pie', 'static'])
@pytest.mark.parametrize('level', ['-O0', '-O2'])
def test_an_edit_in_the_middle_of_a_unit(t, kind, level):
    """By default a unit's code is one section: what is behind the edit shifts, and all that refers
    to it is applied anew."""
    flags = [level, '-fno-inline', '-fPIE' if kind == 'pie' else '-fno-pie']
    s = Sources(t, *flags, unit_c=SHIFTED, user_c=USER)
    app = Link(t, 'app', f'-{kind}', *(['-no-pie'] if kind == 'static' else []),
               '-Wl,--build-id,--eh-frame-hdr', 'user.o', 'unit.o')
    app.full()
    app.run(expect='11 20 7 18 12 10 1 2 3 3\n')
    s.edit('unit.c', 'return n * second; /* HERE */',
           'int sum = 0;\nfor (int i = 0; i < n; i++)\nsum += second * (i < 100);\nreturn sum + 1;')
    app.patched()
    app.run(expect='11 21 7 18 13 10 1 2 3 3\n')
    elf = app.elf()
    inc.check_unwind(elf, 'behind', 'last', 'body', 'main')
    for name in 'before', 'edited', 'behind', 'last', 'body':
        inc.check_line(t, 'app', elf, 'unit.c', name)


def test_an_edit_that_shifts_data(t):
    s = Sources(t, unit_c=SHIFTED, user_c=USER)
    app = Link(t, 'app', 'user.o', 'unit.o')
    app.full()
    s.edit('unit.c', 'static int second = 2;', 'static int added[5] = {4, 4, 4, 4, 4};\n'
           'static int second = 2;', 'return n * second;', 'return n * second + added[n % 5];')
    app.patched()
    app.run(expect='11 24 7 18 16 10 1 2 3 3\n')


def test_a_unit_that_outgrows_its_slot(t):
    """All of its functions move."""
    s = Sources(t, unit_c=SHIFTED, user_c=USER)
    app = Link(t, 'app', 'user.o', 'unit.o')
    app.full()
    s.edit('unit.c', 'return n * second; /* HERE */',
           inc.growth('n = n * second / 2 + third - 3;', 300) + '\nreturn n * second;')
    app.patched()
    app.run(expect='11 20 7 18 12 10 1 2 3 3\n')
    inc.check_unwind(app.elf(), 'before', 'edited', 'behind', 'last', 'body', 'main')


# -- C: the gate ----------------------------------------------------------------------------------

def gate(core, *slugs):
    """Both programs fall back, equal one linked from scratch, and can be patched again."""
    for app in core.apps:
        app.falls_back(*slugs)
        app.verify()
        app.patched().nothing()


def test_c_new_global(core):
    core.edit('state.c', 'char g_name', 'int g_new = 9;\nchar g_name')
    gate(core, 'new-global', 'archive')
    core.run(46, 48)


def test_c_globals_of_an_object(t):
    """Which is linked itself, and not out of an archive."""
    core = Core(t, *SPLIT)
    app = Link(t, 'app', 'app_a.o', *[u.replace('.c', '.o') for u in Core.UNITS])
    app.full()
    core.edit('state.c', 'char g_name', 'int g_new = 9;\nchar g_name')
    report = app.falls_back('new-global')
    assert inc.PLAIN or 'state.o' in report.text and 'g_new' in report.text
    core.edit('state.c', 'int g_new = 9;', 'int g_other = 9;')
    app.falls_back('new-global', 'removed-global')
    core.edit('state.c', 'int g_other = 9;', '')
    app.falls_back('removed-global')
    core.edit('weakdef.c', '__attribute__((weak)) int', 'int')
    app.falls_back('symbol-changed')
    core.edit('table.c', '#include', '#include <stdlib.h>\n#include', GET, f'{GET} + atoi("0")')
    app.falls_back('undefined')
    app.run(status=46)


def test_c_removed_global(core):
    core.edit('state.c', 'char g_name', 'int g_new = 9;\nchar g_name')
    gate(core)
    core.edit('state.c', 'int g_new = 9;\n', '')
    gate(core, 'removed-global', 'archive')
    core.run(46, 48)
    assert core.a.elf().symbol('g_new') is None


def test_c_a_static_that_becomes_global_and_back(core):
    core.edit('table.c', 'static const int rows', 'const int rows')
    gate(core, 'new-global', 'archive')
    core.edit('table.c', 'const int rows', 'static const int rows')
    gate(core, 'removed-global', 'archive')
    core.run(46, 48)


def test_c_weak_to_strong_and_back(core):
    core.edit('weakdef.c', '__attribute__((weak)) int', 'int', 'return 1', 'return 3')
    core.a.falls_back('symbol-changed')
    core.a.run(status=48)
    core.edit('weakdef.c', 'int feature_level', '__attribute__((weak)) int feature_level')
    core.a.falls_back('symbol-changed')
    core.a.run(status=48)


def test_c_a_strong_definition_beside_the_weak_one(core):
    """Of an object that is linked anyway: it wins now."""
    core.edit('app_a.c', 'int main', 'int feature_level(void)\n{\n    return 5;\n}\n\nint main')
    core.a.falls_back('new-global', 'symbol-changed', 'archive')
    core.a.run(status=50)


def test_c_reference_to_another_member(core):
    core.edit('table.c', GET, f'opt_helper({GET})')
    gate(core, 'undefined')
    core.run(53, 55)
    core.edit('table.c', f'opt_helper({GET})', GET)  # the member would not be extracted any more
    gate(core, 'undefined')
    core.run(46, 48)
    assert core.a.elf().symbol('opt_helper') is None


def test_c_reference_to_another_function_of_libc(core):
    core.edit('table.c', '#include', '#include <stdlib.h>\n#include', GET, f'{GET} + atoi("0")')
    gate(core, 'undefined')
    core.run(46, 48)


def test_c_data_outgrows_its_slack(core):
    core.edit('state.c', '#include "core.h"', '', 'int g_config[8]', 'int g_config[4096]')
    gate(core, 'no-room', 'symbol-changed')
    core.run(46, 48)


def test_c_visibility(core):
    core.edit('arith.c', 'int arith_mul', '__attribute__((visibility("hidden"))) int arith_mul')
    gate(core, 'symbol-changed')
    core.run(46, 48)


def test_c_type_of_a_symbol(core):
    """A function becomes an IFUNC."""
    core.edit('arith.c', 'int arith_mul(int a, int b)\n{\n    return a * b;\n}', '''
        static int mul(int a, int b) { return a * b; }
        static void *choose(void) { return (void *)mul; }
        int arith_mul(int a, int b) __attribute__((ifunc("choose")));''')
    gate(core, 'symbol-changed')
    core.run(46, 48)


def test_c_alignment(core):
    core.edit('state.c', 'int g_config', '__attribute__((aligned(4096))) int g_config')
    gate(core, 'section', 'symbol-changed', 'no-room')
    core.run(46, 48)


def test_c_kind_of_section(core):
    core.edit('arith.c', 'int arith_mul', '__attribute__((section(".text.unlikely.x"))) int arith_mul')
    for app in core.apps:
        app.right()
    core.edit('state.c', 'int g_config',
              '__attribute__((section("other_data"))) int g_config')
    gate(core, 'section', 'symbol-changed')
    core.run(46, 48)
    assert core.a.elf().symbol('g_config').section == 'other_data'


def test_c_constructor(core):
    core.edit('state.c', 'char g_name', '''__attribute__((constructor)) static void start(void)
{
    g_config[1] = 2;
}

char g_name''')
    gate(core, 'section')
    core.run(48, 50)


def test_c_common(t):
    s = Sources(t, '-fcommon', main_c='int shared[4];\nint main(void) { return shared[3]; }',
                other_c='int shared[2];\nint *other(void) { return shared; }')
    app = Link(t, 'app', 'main.o', 'other.o')
    app.full()
    s.edit('other.c', 'shared[2]', 'shared[64]')
    app.falls_back('symbol-changed')
    assert app.elf().symbol('shared').size == 256
    s.edit('other.c', 'shared[64];', 'shared[4] = {1, 2, 3, 4};')
    app.falls_back('symbol-changed')
    app.run(status=4)


def comdat(t):
    inline = 'inline __attribute__((noinline)) int shared(int n) { return n + 10; }\n'
    sources = Sources(t, one_cc=inline + 'int one() { return shared(1); }',
                      two_cc=inline + 'int two() { return shared(2); }',
                      main_cc='int one(), two();\nint main() { return one() + two(); }')
    app = Link(t, 'app', 'main.o', 'one.o', 'two.o', via='c++')
    app.full()
    app.run(status=23)
    return sources, app


def test_c_comdat_owner(t):
    """The file whose copy of an inline function is in the program has none any more."""
    s, app = comdat(t)
    s.set('one.cc', 'int one() { return 100; }')
    app.falls_back('comdat')
    app.run(status=112)


def test_c_comdat_of_another_file_goes(t):
    """The copy of a file that was not taken."""
    s, app = comdat(t)
    s.set('two.cc', 'int two() { return 100; }')
    app.right()
    app.run(status=111)


def test_c_comdat_new(t):
    s, app = comdat(t)
    s.edit('one.cc', 'return shared(1);', 'return another(shared(1));', 'int one()',
           'inline __attribute__((noinline)) int another(int n) { return n + 1; }\nint one()')
    app.falls_back('comdat', 'new-global')
    app.run(status=24)


def test_c_body_of_the_comdat_owner(t):
    """Not at the gate: the group stays, its content is another one."""
    s, app = comdat(t)
    s.edit('one.cc', 'n + 10', 'n + 11')
    app.patched()
    app.run(status=25)


def test_c_tls(t):
    s = Sources(t, main_c='__thread int a = 1;\nint other(void);\n'
                          'int main(void) { return a + other(); }',
                other_c='__thread int b = 2;\nint other(void) { return b; }')
    app = Link(t, 'app', 'main.o', 'other.o')
    app.full()
    s.edit('other.c', 'b = 2', 'b = 5')  # its template is data as any other
    app.patched()
    app.run(status=6)
    s.edit('other.c', '__thread int b', 'static __thread int more[3] = {1, 1, 1};\n__thread int b',
           'return b', 'return b + more[1]')
    app.falls_back('tls', 'section')
    app.run(status=7)
    s.edit('other.c', 'more[3] = {1, 1, 1}', 'more[3]')  # from .tdata to .tbss
    app.falls_back('tls', 'section')
    app.run(status=6)


LIBRARY = 'int lib_get(void) { return 5; }\nint lib_data[2] = {1, 2};\n'
LIBRARY_USER = 'int lib_get(void);\nextern int lib_data[2];\n' \
               'int main(void) { return lib_get() + lib_data[1]; }'


def with_library(t):
    s = Sources(t, '-fPIC', lib_c=LIBRARY)
    s.flags = ('-fno-pie',)
    s.set('main.c', LIBRARY_USER)
    s.flags = ('-fPIC',)
    t.link('libx.so', '-shared', 'lib.o')
    app = Link(t, 'app', '-no-pie', 'main.o', 'libx.so')
    app.full()
    app.run(status=7)
    return s, app


def test_c_shared_library_with_another_body(t):
    """Its interface is the same: nothing to do."""
    s, app = with_library(t)
    before = Stamp.of(app.path)
    s.edit('lib.c', 'return 5', 'return 6')
    t.link('libx.so', '-shared', 'lib.o')
    app.patched()
    assert inc.PLAIN or Stamp.of(app.path) == before
    app.run(status=8)


@pytest.mark.parametrize('old, new, status', [
    ('int lib_get', 'int lib_new(void) { return 1; }\nint lib_get', 7),
    ('int lib_data[2]', 'int lib_data[200]', 7),
    ('int lib_data', '__attribute__((weak)) int lib_data', 7),
], ids=['symbol', 'size', 'binding'])
def test_c_shared_library_interface(t, old, new, status):
    s, app = with_library(t)
    s.edit('lib.c', old, new)
    t.link('libx.so', '-shared', 'lib.o')
    app.falls_back('shared-library')
    app.run(status=status)


def test_c_shared_library_needs_another_name(t):
    _, app = with_library(t)
    t.link('libx.so', '-shared', '-Wl,-soname,liby.so', 'lib.o')
    app.falls_back('shared-library')
    assert app.elf().needed[0] == 'liby.so'


@pytest.mark.parametrize('option', ['-Wl,-z,now', '-Wl,--hash-style=sysv', '-Wl,-rpath,/opt',
                                    '-rdynamic', '-Wl,--gc-sections', '-Wl,-Bsymbolic', '-no-pie',
                                    '-Wl,--defsym=extra=5', '-Wl,--incremental-code-slack=50'])
def test_c_option(core, option):
    app = core.a
    app.args.insert(0, option)
    app.falls_back('options', 'inputs')  # (a driver takes another crt1.o for -no-pie)
    app.patched().nothing()
    app.run(status=46)
    app.args.remove(option)
    app.falls_back('options', 'inputs')
    app.run(status=46)


@pytest.mark.parametrize('option', ['-Wl,--threads=1', '-Wl,--color-diagnostics=always', '-Wl,--stats'])
def test_c_options_that_do_not_matter(core, option):
    """They change what is said, or how it is worked, but not the output."""
    core.a.args.insert(0, option)
    core.a.patched().nothing()


def test_c_inputs(core):
    t, app = core.t, core.a
    extra = t.cc('extra.o', 'int extra(void) { return 1; }')
    more = t.cc('more.o', 'int more(void) { return 1; }')
    app.args += [extra, more]
    app.falls_back('inputs')
    app.args[-2:] = [more, extra]
    app.falls_back('inputs')
    app.args.pop()
    app.falls_back('inputs')
    assert app.elf().symbol('more') and not app.elf().symbol('extra')
    app.run(status=46)


def test_c_earlier_library(t):
    """One that was not there is found first now; then it is gone again."""
    main = t.cc('main.o', 'int f(void);\nint main(void) { return f(); }')
    for folder, n in ('late', 1), ('early', 2):
        t.write(f'{folder}/here', '')
        t.ar(f'{folder}/libf.a', t.cc(f'{folder}.o', f'int f(void) {{ return {n}; }}'))
    (t.path / 'early').rename(t.path / 'away')
    app = Link(t, 'app', '-Learly', '-Llate', main, '-lf')
    app.full()
    app.run(status=1)
    (t.path / 'away').rename(t.path / 'early')
    app.falls_back('search')
    app.run(status=2)
    app.patched().nothing()
    (t.path / 'early' / 'libf.a').unlink()
    app.falls_back('search', 'inputs')
    app.run(status=1)


def test_c_shared_library_beside_the_archive(t):
    """libf.so in the folder where libf.a was found is preferred."""
    main = t.cc('main.o', 'int f(void);\nint main(void) { return f(); }')
    t.ar('libf.a', t.cc('f1.o', 'int f(void) { return 1; }'))
    app = Link(t, 'app', '-L.', main, '-lf')
    app.full()
    t.link('libf.so', '-shared', t.cc('f2.o', 'int f(void) { return 2; }', '-fPIC'))
    app.falls_back('search')
    app.run(status=2)


def test_c_script(t):
    """A version script, a dynamic list and a linker script of inputs."""
    f = t.cc('f.o', 'int f(void) { return 1; }\nint g(void) { return 2; }', '-fPIC')
    t.write('versions', 'V1 { global: f; local: *; };\n')
    lib = Link(t, 'lib.so', '-shared', '-Wl,--version-script=versions', f)
    lib.full()
    t.write('versions', 'V1 { global: f; g; local: *; };\n')
    lib.falls_back('script')
    assert lib.elf().versioned_exports() == {'f@@V1', 'g@@V1'}

    main = t.cc('main.o', 'int main(void) { return 0; }')
    t.write('list', '{ nothing; };\n')
    app = Link(t, 'app', '-Wl,--dynamic-list=list', '-pie', main, 'f.o')
    app.full()
    t.write('list', '{ g; };\n')
    app.falls_back('script')
    assert 'g' in app.elf().exports()

    t.write('libtext.a', 'INPUT(f.o)\n')
    app = Link(t, 'app2', main, 'libtext.a')
    app.full()
    t.write('libtext.a', '/* again */ INPUT(f.o)\n')
    app.right()
    t.cc('h.o', 'int h(void) { return 1; }')
    t.write('libtext.a', 'INPUT(f.o h.o)\n')
    app.falls_back('script', 'inputs')
    assert app.elf().symbol('h')


# -- D: several outputs ---------------------------------------------------------------------------

def test_d_both_programs(core):
    """One edit after another, now this program linked first and now that one."""
    base, value = core.t.read('table.c'), 10
    for n, statement in enumerate(['', 'n += 8;', inc.growth('n += 8;', 500), 'n += 16;']):
        value += 1
        core.set('table.c', base.replace('    return ' + GET,
                                         f'{statement}\n    return ' + GET.replace('10', str(value))))
        for app in core.apps[::(-1) ** n]:
            app.patched()
        core.run(36 + value, 38 + value)
    core.edit('state.c', 'char g_name', 'int g_new = 9;\nchar g_name')
    core.edit('table.c', f', {value})', f', {value + 1})')
    for app in core.apps:
        app.falls_back('new-global', 'archive')
    core.run(37 + value, 39 + value)


def test_d_only_one_is_linked(core):
    """The other one catches up with several edits later."""
    core.edit('table.c', GET, GET_EDITED)
    core.a.patched()
    core.edit('arith.c', 'return a * b', 'return a * b * 2')
    core.a.patched()
    core.a.run(status=87)
    core.b.run(status=48)
    core.b.patched()
    core.b.run(status=91)


# -- E: determinism -------------------------------------------------------------------------------

def test_e_first_links_are_equal(core):
    """Whatever the number of threads; and the state is, too, where it is not of these files."""
    for threads in 1, 2, 5:
        assert inc.PLAIN or core.a.from_scratch(f'--threads={threads}') == core.a.path.read_bytes()


def test_e_equal_patches(t):
    """The same edit of equal programs gives equal programs, in another folder too."""
    outputs = []
    for folder in 'one', 'two':
        where = type(t)(t.path / folder, t.target, t.linker_dir)
        where.path.mkdir()
        core = Core(where, *SPLIT, '-ffile-prefix-map=%s=.' % where.path).full()
        core.edit('table.c', GET, GET_EDITED, SUM, SUM_GROWN)
        core.a.patched()
        outputs.append(core.a.path.read_bytes())
    assert outputs[0] == outputs[1]


def test_e_compiled_twice(core):
    """The same object, and nothing is written; one that differs in a byte: only that atom is."""
    first = (core.t.path / 'table.o').read_bytes()
    core.compile('table.c')
    assert (core.t.path / 'table.o').read_bytes() == first
    core.archive()
    core.a.patched().nothing()
    core.edit('state.c', '{1, 0', '{2, 0')
    report = core.a.patched()
    assert inc.PLAIN or (report.files, report.moved) == (1, 0), report.result


@pytest.fixture(scope='module')
def content_ids(tmp_path_factory):
    """Calls kld_obj_content_id and kld_obj_atom_ids: ids(object) is (id, {section: id})."""
    program = tmp_path_factory.mktemp('contentids') / 'contentids'
    subprocess.run(['gcc', '-std=gnu17', '-O1', *shlex.split(os.environ.get('KLD_CFLAGS', '')),
                    '-I', REPO / 'include', '-o', program,
                    Path(__file__).with_name('contentids.c'), LIB, *LIBS], check=True)

    def ids(path):
        said = subprocess.run([program, path], check=True, capture_output=True, text=True).stdout
        lines = [line.split(' ') for line in said.splitlines()]
        assert lines[0][0] == 'object' and {line[0] for line in lines[1:]} == {'atom'}
        return lines[0][1], {line[2]: line[1] for line in lines[1:]}

    return ids


def test_e_content_ids(core, content_ids):
    """Compiled twice: the same ids. One byte edited: that of the object, and of exactly one atom."""
    path = core.t.path / 'table.o'
    path.rename(core.t.path / 'first.o')
    core.compile('table.c')
    first, atoms = content_ids(core.t.path / 'first.o')
    assert content_ids(path) == (first, atoms)
    core.edit('table.c', GET, GET_EDITED)
    edited, edited_atoms = content_ids(path)
    assert edited != first
    assert edited_atoms.keys() == atoms.keys()
    assert [name for name in atoms if atoms[name] != edited_atoms[name]] == ['.text.tbl_get']


# -- F: nothing -----------------------------------------------------------------------------------

def unchanged(app, action=lambda: None):
    before = Stamp.of(app.path)
    action()
    for _ in range(2):
        app.patched().nothing()
        assert inc.PLAIN or Stamp.of(app.path) == before


def test_f_nothing_changed(core):
    unchanged(core.a)
    assert inc.PLAIN or core.a.stats()['whole-program resolutions'] == 1


def test_f_touched(core):
    def touch():
        for name in 'app_a.o', 'libcore.a':
            os.utime(core.t.path / name)
    unchanged(core.a, touch)


def test_f_rewritten(core):
    """Other inodes, the same content: what an archive of a build cache restores."""
    def rewrite():
        for name in 'app_a.o', 'libcore.a':
            data = (core.t.path / name).read_bytes()
            (core.t.path / name).unlink()
            core.t.write(name, data)
    unchanged(core.a, rewrite)


def test_f_older(core):
    """A restored older file: by its content, not by its time."""
    def restore():
        for name in 'app_a.o', 'libcore.a':
            os.utime(core.t.path / name, (1e9, 1e9))
    unchanged(core.a, restore)


def test_f_edited_and_restored(core):
    """The program is the first one's equal in what it does."""
    text = core.t.read('table.c')
    core.edit('table.c', GET, GET_EDITED)
    core.a.patched()
    core.set('table.c', text)
    core.a.patched()
    core.a.run(status=46)


@incremental_only
def test_f_without_the_option(core):
    """No state is read or written, and the output is that of any other link."""
    t, state = core.t, core.a.state.read_bytes()
    core.a.plain('other')
    assert not t.exists('other.kldstate')
    core.a.state.write_bytes(b'not a state')
    core.a.plain('app_a')
    assert core.a.state.read_bytes() == b'not a state' != state
    assert core.a.path.read_bytes() == (t.path / 'other').read_bytes()
    core.a.args.append('-Wl,--incremental,--no-incremental')
    core.a.plain('third')
    assert (t.path / 'third').read_bytes() == (t.path / 'other').read_bytes()
    assert not t.exists('third.kldstate')
