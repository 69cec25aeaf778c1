"""Undefined and duplicate symbols: who refers to them, where, and what may have been meant."""

import re

import pytest

from kldtest import deviates

PROSE = deviates(bfd='other words', lld='other words', gold='other words', mold='other words')
pytestmark = PROSE


def undefined(t, source, *args, lang='c', cflags=()):
    obj = t.cc('a.o', source, *cflags, lang=lang)
    return t.link('app', obj, *args, via='c++' if lang == 'c++' else 'cc', ok=False)


def test_names_the_object_section_and_function(t):
    undefined(t, 'int gone(void); int main(void) { return gone(); }').says(
        re.compile(r'error: undefined symbol: gone\n'
                   r'>>> referenced by a\.o:\(\.text(\.startup)?\+0x[0-9a-f]+\), function main'))


@pytest.mark.parametrize('flags', [('-gdwarf-3',), ('-gdwarf-4',), ('-gdwarf-5',),
                                   ('-g', '-ffunction-sections'), ('-g', '-gz')])
def test_names_the_line_of_source(t, compiler, flags):
    undefined(t, 'int gone(void);\nint other(void) { return 3; }\n'
                 'int main(void)\n{\n    return other() +\n        gone();\n}',
              cflags=flags).says(re.compile(r'>>> referenced by .*a\.c:6\n>>> +a\.o:\('))


def test_shows_three_references_of_many(t):
    result = undefined(t, 'int gone(void);' + ''.join(
        f'int f{i}(void) {{ return gone(); }}' for i in range(8)) + 'int main(void) { return 0; }')
    assert result.stderr.count('>>> referenced by') == 3
    result.says('function f0', 'function f2', '>>> referenced 5 more times')


def test_first_references_in_input_order(t):
    objects = [t.cc(f'f{i}.o', f'int gone(void); int f{i}(void) {{ return gone(); }}')
               for i in range(6)]
    main = t.cc('main.o', 'int main(void) { return 0; }')
    for threads in 1, 4:
        result = t.link('app', main, *reversed(objects), f'-Wl,--threads={threads}', ok=False)
        assert re.findall(r'referenced by (\S+):', result.stderr) == ['f5.o', 'f4.o', 'f3.o']


def test_demangles(t):
    source = 'namespace n { int f(int, char *); } int main() { return n::f(1, 0); }'
    undefined(t, source, lang='c++').says('undefined symbol: n::f(int, char*)')
    assert '_ZN1n1fEiPc' in undefined(t, source, '-Wl,--no-demangle', lang='c++').stderr


@pytest.mark.parametrize('wanted, there', [
    ('read_file', 'read_files'), ('counter', 'Counter'),
    ('process', 'procses'), ('process', 'proces'), ('process', 'prozess')])
def test_suggests_a_near_miss(t, wanted, there):
    lib = t.cc('lib.o', f'int {there}(void) {{ return 0; }}')
    undefined(t, f'int {wanted}(void); int main(void) {{ return {wanted}(); }}', lib).says(
        f'>>> did you mean: {there}\n>>> defined in: lib.o')


def test_suggests_nothing_far_away(t):
    lib = t.cc('lib.o', 'int ab(void) { return 0; } int something(void) { return 0; }')
    result = undefined(t, 'int ac(void); int main(void) { return ac(); }', lib)
    assert 'did you mean' not in result.stderr


def test_suggests_extern_c(t):
    c = t.cc('c.o', 'int plain(int x) { return x; }')
    undefined(t, 'int plain(int); int main() { return plain(1); }', c, lang='c++').says(
        'undefined symbol: plain(int)', '>>> did you mean: extern "C" plain')
    cxx = t.cxx('cxx.o', 'int mangled(int x) { return x; }')
    undefined(t, 'int mangled(int); int main(void) { return mangled(1); }', cxx).says(
        '>>> did you mean to declare mangled(int) as extern "C"?')


def test_explains_a_missing_vtable(t):
    undefined(t, 'struct S { virtual void key(); }; S s; int main() { return 0; }',
              lang='c++').says('undefined symbol: vtable for S', 'key function')


def test_says_when_the_symbol_is_hidden(t):
    undefined(t, '__attribute__((visibility("hidden"))) int gone(void);'
                 'int main(void) { return gone(); }').says('undefined hidden symbol: gone')


def test_error_limit(t):
    source = ''.join(f'int gone{i}(void);' for i in range(30)) + 'int main(void) { return ' + \
        '+'.join(f'gone{i}()' for i in range(30)) + '; }'
    result = undefined(t, source).says('too many errors emitted')
    assert len(re.findall('undefined symbol', result.stderr)) == 20
    result = undefined(t, source, '-Wl,--error-limit=0')
    assert len(re.findall('undefined symbol', result.stderr)) == 30
    assert 'too many' not in result.stderr


def test_warning_instead(t):
    t.link('app', '-Wl,--warn-unresolved-symbols',
           t.cc('a.o', 'int gone(void); int main(int c, char **v) { return c > 9 ? gone() : 0; }')
           ).says('warning: undefined symbol: gone')
    t.run('app')


@pytest.mark.parametrize('option', ['--unresolved-symbols=ignore-all',
                                    '--unresolved-symbols=ignore-in-object-files'])
def test_ignored(t, option):
    t.link('app', f'-Wl,{option}', t.cc('a.o', 'int gone(void);'
           'int main(int c, char **v) { return c > 9 ? gone() : 0; }')).silent()


def test_duplicates_name_both_places(t):
    a = t.cc('a.o', 'int twice(void) { return 0; } int main(void) { return 0; }')
    b = t.cc('b.o', 'int twice(void) { return 1; }')
    t.link('app', a, b, ok=False).says('duplicate symbol: twice', 'a.o', 'b.o')
