"""The command line: its table, --help and the manual agree; every spelling is understood; what is
wrong is said. Nothing is linked here; what options do to a link is in test_option_effects.py."""

import ast
import json
import os
import re
import subprocess
from dataclasses import dataclass

import pytest

from kldtest import KLD
from kldtest import REPO
from kldtest import TIMEOUT
from kldtest import linker_family


@dataclass(frozen=True)
class Option:
    names: tuple
    value: str
    action: str
    option: str
    argument: str
    help: str
    z: bool
    group: str

    @property
    def arity(self):
        if not self.value:
            return 'none'
        return 'optional' if self.value.startswith('[') else 'required'

    @property
    def supported(self):
        return self.action != 'UNSUPPORTED'

    def spelled(self):
        """As --help and the manual show the names."""
        return [f'-z {n}' if self.z else f'-{n}' if len(n) == 1 else f'--{n}' for n in self.names]


def read_table():
    """The rows of driver/gnu.def, which reads as Python once the comments are gone."""
    text = re.sub(r'/\*.*?\*/', '', (REPO / 'driver/gnu.def').read_text(), flags=re.S)
    rows, group = [], None
    for statement in ast.parse(text).body:
        call = statement.value
        if call.func.id == 'KLD_GROUP':
            group = call.args[0].value
            continue
        names, value, action, option, argument, text = call.args
        rows.append(Option(tuple(n.value for n in names.args), value.value or None, action.id,
                           option.value or None, argument.value or None, text.value,
                           call.func.id == 'KLD_Z', group))
    return rows


pytestmark = pytest.mark.skipif(linker_family() != 'kld', reason="it is about kld's own table")
TABLE = read_table()
GROUPS = list(dict.fromkeys(o.group for o in TABLE))
SPELLED = [s for o in TABLE for s in o.spelled()]

# Values for the options that do not take any text.
VALUES = {
    'a': 'shared', 'b': 'elf', 'color-diagnostics': 'never', 'compress-debug-sections': 'zlib',
    'demangle': 'gnu-v3', 'diagnostics': 'text', 'hash-style': 'gnu', 'icf': 'safe',
    'm': 'elf_x86_64', 'oformat': 'elf64-x86-64', 'orphan-handling': 'warn',
    'section-start': '.data=0x10', 'start-stop-visibility': 'hidden',
    'unresolved-symbols': 'ignore-all', 'verbose': '2', 'z': 'now',
}

# What has to stand before or after an option to make sense of it.
BEFORE = {'end-group': ['--start-group'], 'end-lib': ['--start-lib'], 'pop-state': ['--push-state'],
          'F': ['-shared'], 'f': ['-shared']}
AFTER = {'start-group': ['--end-group'], 'start-lib': ['--end-lib']}


def kld(*args, status=0, env=None, cwd=None):
    """Runs the command. Without inputs -v makes that no error; with some, --print-sysroot ends
    before they are linked."""
    done = subprocess.run([KLD, *args], capture_output=True, text=True, errors='replace',
                          stdin=subprocess.DEVNULL, timeout=TIMEOUT, cwd=cwd,
                          env={**os.environ, 'LC_ALL': 'C', **(env or {})})
    assert done.returncode == status, f'status {done.returncode}: {args}\n{done.stdout}{done.stderr}'
    return done


def value_for(option):
    if option.action == 'CHOOSE':
        return next(w.split(':')[0] for w in option.argument.split() if w[0] != ':')
    return VALUES.get(option.names[0], '1')


def variants(option):
    """The ways to write an option with one of its names."""
    value = value_for(option)
    for name in option.names:
        if name.endswith('*'):
            name = name[:-1] + 'something'
        if option.z:
            word = f'{name}={value}' if option.arity == 'required' else name
            yield ['-z', word]
            yield [f'-z{word}']
        elif len(name) == 1:
            if option.arity == 'required':
                yield [f'-{name}', value]
                yield [f'-{name}{value}']
            else:
                yield [f'-{name}']
            if option.arity == 'optional':
                yield [f'-{name}{value}']
        else:
            for dashes in ['--'] if name[0] == 'o' else ['-', '--']:
                if option.arity == 'required':
                    yield [f'{dashes}{name}', value]
                else:
                    yield [f'{dashes}{name}']
                if option.arity != 'none':
                    yield [f'{dashes}{name}={value}']


# -- the table, the help, the manual -----------------------------------------------------------------

def test_names_are_unique():
    twice = [s for s in SPELLED if SPELLED.count(s) > 1]
    assert not twice, twice


def test_rows_set_options_of_the_session():
    known = set(re.findall(r'KLD_OPTION\(\w+, \w+, "([^"]+)"',
                           (REPO / 'src/options.def').read_text()))
    wrong = [o for o in TABLE
             if o.option and o.action != 'STATE' and o.option not in known]
    assert not wrong, wrong


def test_groups_hold_what_they_say():
    for option in TABLE:
        assert (option.group == 'Not supported') == (not option.supported), option
        if option.action == 'NO_EFFECT':
            assert option.group == 'Without effect', option


@pytest.mark.parametrize('group', GROUPS)
def test_rows_are_sorted(group):
    names = [(o.z, o.names[0].lower()) for o in TABLE if o.group == group]
    assert names == sorted(names)


def test_help_lists_what_is_supported():
    listed = []
    for line in kld('--help').stdout.split('\n'):
        if line.startswith('  -'):
            spelling = re.split(r'\s{2,}', line[2:])[0]
            for one in spelling.split(', '):
                listed.append(re.match(r'-z [a-z][^=\[]*|--?[^\s=\[]+', one).group())
    assert sorted(listed) == sorted(s for o in TABLE if o.supported for s in o.spelled())


def test_manual_lists_all():
    text = (REPO / 'man/kld.1').read_text()
    options = text[text.index('.Sh OPTIONS'):text.index('.Sh ENVIRONMENT')]
    listed = []
    for line in re.findall(r'^\.It (.*)', options, re.M):
        for one in line.split(' , '):
            words = one.replace('\\&', '').split()
            assert words[0] == 'Fl', line
            listed.append(f'-z {words[3]}' if words[1] == 'z' and words[2] == 'Cm'
                          else f'-{words[1]}')
    assert sorted(listed) == sorted(SPELLED)


def test_manual_groups_as_the_table_does():
    headings = re.findall(r'^\.Ss (.*)', (REPO / 'man/kld.1').read_text(), re.M)
    assert [h for h in headings if h in GROUPS] == GROUPS


# -- spellings ---------------------------------------------------------------------------------------

@pytest.mark.parametrize('group', [g for g in GROUPS if g != 'Not supported'])
def test_every_spelling_is_understood(group):
    for option in TABLE:
        if option.group != group or option.action == 'FLAVOUR':
            continue
        for words in variants(option):
            first = option.names[0]
            done = kld(*BEFORE.get(first, []), *words, *AFTER.get(first, []),
                       '--print-sysroot')
            assert done.stderr == '', words


def test_unsupported_options_are_named():
    for option in TABLE:
        if option.supported:
            continue
        for words in variants(option):
            done = kld(*words, '-v', status=1)
            assert re.search(r"error: option '[^']+' is not supported", done.stderr), words
            assert done.stderr.count('\n') == 1, done.stderr


@pytest.mark.parametrize('word', ['--frobnicate', '-frobnicate-', '--frobnicate=1', '-j',
                                  '-nostartfiles'])
def test_unknown_option(word):
    said = kld(word, '-v', status=1).stderr
    if word.startswith('-f') and word[1] != '-':     # -f LIBRARY
        assert 'is only for --shared' in said
    else:
        assert f"error: unknown option '{word}'" in said


def test_unknown_option_suggests_a_near_one():
    assert "did you mean '--as-needed'?" in kld('--as-neeeded', status=1).stderr


def test_all_errors_are_shown():
    said = kld('--frobnicate', '--gdb-index', '-z', 'max-page-size', status=1).stderr
    assert said.count('error:') == 3


@pytest.mark.parametrize('words', [['-o'], ['--soname'], ['-soname'], ['-z'], ['--wrap']])
def test_missing_value(words):
    assert f"error: option '{words[0]}' needs a value" in kld(*words, status=1).stderr


@pytest.mark.parametrize('word', ['--as-needed=yes', '-shared=1', '--version=2'])
def test_value_for_an_option_without(word):
    name = word.split('=')[0]
    assert f"error: option '{name}' takes no value" in kld(word, status=1).stderr


@pytest.mark.parametrize('words', [['--whole'], ['--no-whole'], ['-no-whole'], ['--sona=x'],
                                   ['--sona', 'x'], ['--export-dynamic-symbol-l', 'x']])
def test_abbreviations(words):
    kld(*words, '-v')


@pytest.mark.parametrize('word', ['--no-w', '--e', '--export-dynamic-sym'])
def test_ambiguous_abbreviations(word):
    assert 'unknown option' in kld(word, '-v', status=1).stderr


def test_letters_without_values_may_share_a_dash():
    kld('-sx', '-v')
    kld('-qEv')


def test_one_dash_before_o_is_the_output():
    """-omagic writes to the file `magic`; --omagic is an option."""
    kld('-omagic', '--omagic', '-Map=%', '--print-sysroot')
    assert 'unknown option' not in kld('-oformat', '-v').stderr


def test_words_after_two_dashes_are_inputs():
    assert '--version' in kld('--', '--version', status=1).stderr


# -- -z ----------------------------------------------------------------------------------------------

def test_unknown_keyword_of_z_is_a_warning():
    assert "warning: unknown keyword '-z frobnicate' is ignored" in kld('-z', 'frobnicate', '-v').stderr


def test_keyword_of_z_without_its_value():
    assert "'-z stack-size' needs a value" in kld('-z', 'stack-size', '-v', status=1).stderr


def test_keyword_of_z_with_a_value_too_many():
    assert "'-z now' takes no value" in kld('-z', 'now=1', '-v', status=1).stderr


@pytest.mark.parametrize('words, said', [
    (['-z', 'max-page-size=many'], "'many' is not a number"),
    (['--threads=x'], "'x' is not a number"),
    (['--hash-style=md5'], "'md5' is not one of both, sysv, gnu, none"),
    (['--unresolved-symbols=some'], "'some' is not one of"),
    (['--icf=most'], "'most' is not one of"),
    (['-m', 'vax'], "emulation 'vax' is not supported"),
    (['--oformat=binary'], "'binary' is not supported"),
    (['-b', 'srec'], "'srec' is not supported"),
    (['-Ttext=north'], "'north' is not a hexadecimal number"),
    (['--section-start=.text'], "'.text' is not NAME=ADDRESS"),
    (['--section-start==10'], "'=10' is not NAME=ADDRESS"),
    (['-a', 'both'], "'both' is not one of"),
    (['--diagnostics=xml'], "'xml' is not one of text, json"),
    (['-Map=%%', '-v'], 'more than one'),
    (['-T', 'x.ld'], 'full linker scripts are not supported yet'),
    (['-v', '-flavor', 'gnu'], 'has to be the first option'),
])
def test_bad_value(words, said):
    done = kld(*words, '-v', status=1)
    assert said in done.stderr and done.stderr.count('error:') == 1


# -- states ------------------------------------------------------------------------------------------

def test_pop_without_push():
    assert '--pop-state without --push-state' in kld('--pop-state', '-v', status=1).stderr


def test_end_group_without_start():
    assert 'no group has begun' in kld('-)', '-v', status=1).stderr


def test_group_without_end_is_a_warning():
    assert 'warning: missing --end-group' in kld('-(', '-v').stderr


def test_nested_lib():
    assert '--start-lib inside' in kld('--start-lib', '--start-lib', '-v', status=1).stderr
    assert '--end-lib without' in kld('--end-lib', '-v', status=1).stderr


# -- response files ----------------------------------------------------------------------------------

@pytest.mark.parametrize('text, word', [
    ("'two words'", 'two words'),
    ('"two words"', 'two words'),
    (r'two\ words', 'two words'),
    (r"'back\\slash'", r'back\slash'),
    (r'"q\"uote"', 'q"uote'),
    (r"'q\'uote'", "q'uote"),
    (r'plain\x', 'plainx'),
    ('''pre'mid "dle'"po'st"''', '''premid "dlepo'st'''),
    ("''", ''),
    ("'never ends", 'never ends'),
    ('ends\\', 'ends'),
    ('a\\\nb', 'a\nb'),
])
def test_response_file_quoting(tmp_path, text, word):
    (tmp_path / 'r').write_text(f'--sysroot={text}')
    assert kld('--print-sysroot', '@r', cwd=tmp_path).stdout == word + '\n'


@pytest.mark.parametrize('space', [' ', '\n', '\t', '\r\n', '\v', '\f', ' \n\t '])
def test_response_file_white_space(tmp_path, space):
    (tmp_path / 'r').write_text(f'{space}--sysroot{space}a{space}--print-sysroot{space}')
    assert kld('@r', cwd=tmp_path).stdout == 'a\n'


def test_response_file_in_a_response_file(tmp_path):
    (tmp_path / 'r').write_text('--print-sysroot @"next one" --gc-sections')
    (tmp_path / 'next one').write_text('--sysroot=deep')
    assert kld('@r', cwd=tmp_path).stdout == 'deep\n'


def test_response_file_that_names_itself(tmp_path):
    (tmp_path / 'r').write_text('-v @r')
    assert 'too many response files' in kld('@r', cwd=tmp_path, status=1).stderr


def test_response_file_that_is_a_directory(tmp_path):
    assert 'is a directory' in kld('@.', cwd=tmp_path, status=1).stderr


def test_response_file_that_is_not_there_is_an_input(tmp_path):
    assert '@nowhere' in kld('@nowhere', cwd=tmp_path, status=1).stderr


def test_response_file_from_a_pipe():
    done = subprocess.run([KLD, '@/dev/stdin'], input='--sysroot=piped --print-sysroot', text=True,
                          capture_output=True, timeout=TIMEOUT)
    assert done.stdout == 'piped\n'


def test_empty_response_file(tmp_path):
    (tmp_path / 'r').write_text('')
    assert 'no input files' in kld('@r', cwd=tmp_path, status=1).stderr


# -- messages ----------------------------------------------------------------------------------------

@pytest.mark.parametrize('where', ['before', 'after', 'response file'])
def test_messages_as_json(tmp_path, where):
    (tmp_path / 'r').write_text('--diagnostics=json')
    wrong = ['--frobnicate="\\\n\x01', '-z', 'frob\udcff']
    words = {'before': ['--diagnostics=json', *wrong], 'after': [*wrong, '-diagnostics', 'json'],
             'response file': [*wrong, '@r']}[where]
    said = [json.loads(line) for line in kld(*words, cwd=tmp_path, status=1).stderr.splitlines()]
    assert [(m['severity'], m['id']) for m in said] == [('error', 'unknown-option'),
                                                        ('warning', 'unknown-keyword')]
    assert '--frobnicate="\\\n\x01' in said[0]['text']
    assert 'frob\ufffd' in said[1]['text']


def test_colours():
    assert '\033' not in kld('--frobnicate', status=1).stderr
    assert '\033' in kld('--frobnicate', '--color-diagnostics', status=1).stderr
    assert '\033' in kld('--frobnicate', '--color-diagnostics=always', status=1).stderr
    assert '\033' not in kld('--frobnicate', '--color-diagnostics=always', '--no-color-diagnostics',
                             status=1).stderr


def test_no_input_files():
    assert kld(status=1).stderr == 'kld: error: no input files\n'
    assert 'no input files' in kld('--as-needed', status=1).stderr


def test_printing_to_a_full_disk_is_an_error():
    with open('/dev/full', 'w') as full:
        done = subprocess.run([KLD, '--help'], stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=TIMEOUT)
    assert done.returncode == 1 and 'cannot write' in done.stderr


# -- flavours ----------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['kld', 'ld', 'ld.kld', 'ld.bfd', 'ld.gold', 'ld.lld', 'ld.mold',
                                  'x86_64-linux-gnu-ld'])
def test_names_of_gnu_ld(tmp_path, name):
    link = tmp_path / name
    link.symlink_to(os.path.abspath(KLD))
    done = subprocess.run([link, '-v'], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0 and done.stdout.startswith('GNU ld')


@pytest.mark.parametrize('name, flavour', [('ld64.kld', 'darwin'), ('ld64', 'darwin'),
                                           ('ld64.lld', 'darwin'), ('kld-link', 'link'),
                                           ('lld-link', 'link'), ('link.exe', 'link')])
def test_names_of_other_flavours(tmp_path, name, flavour):
    link = tmp_path / name
    link.symlink_to(os.path.abspath(KLD))
    done = subprocess.run([link, '--version'], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 1
    assert f'the {flavour} flavour' in done.stderr and 'not built yet' in done.stderr


@pytest.mark.parametrize('words', [['-flavor', 'gnu'], ['--flavor', 'gnu'], ['-flavor=gnu'],
                                   ['--flavor=ld']])
def test_flavour_option(tmp_path, words):
    link = tmp_path / 'ld64.kld'
    link.symlink_to(os.path.abspath(KLD))
    subprocess.run([link, *words, '-v'], check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT)


def test_unknown_flavour():
    assert "unknown flavour 'vms'" in kld('-flavor', 'vms', status=1).stderr
    assert 'unknown flavour' in kld('-flavor', status=1).stderr

