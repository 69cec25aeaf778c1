"""What build systems ask a linker before they use it, and what they make of the answers.

Each case repeats the question of one of them, or, where it is installed, lets it ask itself.
"""

import os
import re
import shutil
import subprocess

import pytest

from kldtest import KLD
from kldtest import TIMEOUT
from kldtest import deviates

MAIN = 'int main(void) { return 0; }\n'


def say(*args):
    """Both streams, as `$LD ... 2>&1 </dev/null` reads them."""
    done = subprocess.run([KLD, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


def shell(script):
    """Runs a piece of a configure script with $LD; returns what it prints."""
    done = subprocess.run(['sh', '-c', script], env={**os.environ, 'LD': KLD, 'LC_ALL': 'C'}, text=True,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- libtool, gnulib, autoconf -----------------------------------------------------------------------

@deviates(lld='says LLD first, and GNU further on')
def test_first_line_is_that_of_gnu_ld():
    for option in '-v', '-V', '--version':
        assert re.match(r'GNU ld \(.*\) \d+\.\d+', say(option))


def test_libtool_finds_gnu_ld():
    assert shell('''case `$LD -v 2>&1 </dev/null` in
        *GNU* | *'with BFD'*) echo yes ;;
        *) echo no ;;
    esac''') == 'yes'


@deviates(lld='0.x and 1.x are not its versions either')
def test_libtool_finds_anonymous_versions():
    """A version below 2.11 in the text makes libtool give up --version-script."""
    line = say('-v').split('\n')[0]
    assert not re.search(r' [01]\.| 2\.[0-9]\.| 2\.10\.', line)
    assert 'LLD' not in line


def test_libtool_finds_elf_among_the_targets():
    assert shell("$LD --help 2>&1 | grep ': supported targets:.* elf' >/dev/null && echo yes") == 'yes'


@deviates(lld='lists no emulations')
def test_help_lists_the_emulations():
    for emulation in ('elf_x86_64', 'aarch64linux', 'elf64lriscv'):
        assert re.search(rf': supported emulations:.* {emulation}\b', say('--help'))
        assert f'   {emulation}\n' in say('-V')
    for name in ('elf64-x86-64', 'elf64-littleaarch64', 'elf64-littleriscv'):
        assert re.search(rf': supported targets:.* {name}\b', say('--help'))
    assert 'elf_x86_64' in say('-V')


@deviates(bfd='links for Windows too')
def test_libtool_finds_no_auto_import():
    assert 'auto-import' not in say('--help')


@pytest.mark.parametrize('option', [
    '--as-needed', '-Bdynamic', '-Bstatic', '-Bsymbolic-functions', '--build-id', '--demangle',
    '--dependency-file', '--dynamic-list', '--eh-frame-hdr', '--exclude-libs', '--gc-sections',
    '--hash-style', '--no-dynamic-linker', '--no-undefined', '-plugin', '--push-state', '-rpath', '-shared',
    '--sort-section', '-soname', '--sysroot', '--version-script', '--warn-common', '--wrap',
])
def test_help_lists_what_configure_scripts_look_for(option):
    assert option in say('--help')


@pytest.mark.parametrize('keyword', ['combreloc', 'now', 'pack-relative-relocs', 'relro'])
@deviates(lld='has no list of -z')
def test_help_lists_keywords_of_z(keyword):
    assert f'-z {keyword}' in say('--help')


@deviates(lld='lists less')
def test_gcc_configure_finds_compressed_debug_sections():
    for kind in 'zlib-gabi', 'zstd':
        assert shell('$LD --help 2>&1 | '
                     f"grep -- '--compress-debug-sections.*\\<{kind}\\>' >/dev/null && echo yes")


# -- versions ----------------------------------------------------------------------------------------

@deviates(lld='is not GNU ld')
def test_kernel_reads_the_version():
    """The kernel's build takes the last word of the first line, after "GNU ld"."""
    words = say('--version').split('\n')[0].split()
    assert words[:2] == ['GNU', 'ld']
    major, minor = words[-1].split('.')[:2]
    assert (int(major), int(minor)) >= (2, 30)


@deviates(lld='is not GNU ld')
def test_gcc_and_glibc_configure_read_the_version():
    line = say('--version').split('\n')[0]
    greedy = re.match(r'.*GNU ld.* ([0-9]+\.[0-9.]*)', line)
    assert greedy and float(greedy.group(1)) >= 2.25
    assert shell(r"$LD --version 2>/dev/null | sed 1q | "
                 r"sed -n -e 's,^.*[	 ]\([0-9][0-9]*\.[0-9][0-9]*.*\)$,\1,p'").startswith('2.')


@deviates(lld='is LLD')
def test_meson_takes_it_for_gnu_ld(t):
    said = t.tool('gcc', '-B', t.linker_dir, '-Wl,--version')
    first = said.stdout.split('\n')[0]
    assert 'GNU' in said.stdout
    for other in 'LLD', 'gold', 'mold', 'Snapdragon', 'eld':
        assert other not in first


# -- through compilers -------------------------------------------------------------------------------

def test_version_through_a_compiler(t, compiler):
    t.write('main.c', MAIN)
    for word in '-Wl,--version', '-Wl,-v':
        said = t.link('a.out', word, 'main.c') if word == '-Wl,-v' else t.tool(
            *t.driver(), '-B', t.linker_dir,
            *([f'--ld-path={t.linker_dir}/ld'] if compiler == 'clang' else []), word, 'main.c')
        assert 'GNU ld' in said.stdout or 'LLD' in said.stdout


@deviates(lld='minds the name of its file')
def test_gcc_finds_it_under_the_names_of_others(t, tmp_path):
    """gcc -fuse-ld=X looks for ld.X in the folder of -B."""
    folder = tmp_path / 'names'
    folder.mkdir()
    for name in 'bfd', 'gold', 'lld', 'mold':
        (folder / f'ld.{name}').symlink_to(os.path.abspath(KLD))
        said = t.tool('gcc', '-B', folder, f'-fuse-ld={name}', '-Wl,--version')
        assert said.stdout == say('--version')


@pytest.mark.parametrize('flag', [
    '--as-needed', '--defsym=nothing=0', '--no-undefined', '--hash-style=gnu', '-z,relro,-z,now',
    '-z,noexecstack', '-O1', '--sort-common', '--no-copy-dt-needed-entries', '--warn-common',
    '--fatal-warnings', '-Bsymbolic-functions', '--no-keep-memory',
    '--gc-sections', '--build-id=sha1', '--exclude-libs=ALL', '--version-script=/dev/null',
])
def test_flag_checks_succeed(t, flag):
    """AX_CHECK_LINK_FLAG, check_linker_flag() and has_link_argument() link a program with it."""
    t.write('main.c', MAIN)
    if flag.startswith('--version-script'):
        t.write('script', '{ global: *; };')
        flag = '--version-script=script'
    t.link('a.out', f'-Wl,--fatal-warnings,{flag}', 'main.c')
    t.run('a.out')


def test_flag_checks_fail_for_unknown_flags(t):
    t.write('main.c', MAIN)
    t.link('a.out', '-Wl,--frobnicate', 'main.c', ok=False)


# -- the systems themselves --------------------------------------------------------------------------

def test_cmake_project(t):
    if not shutil.which('cmake'):
        pytest.skip('cmake is not installed')
    t.write('CMakeLists.txt', '''cmake_minimum_required(VERSION 3.13)
project(probe C)
include(CheckLinkerFlag OPTIONAL)
add_library(part SHARED part.c)
add_executable(app main.c)
target_link_libraries(app part)
''')
    t.write('part.c', 'int part(void) { return 0; }\n')
    t.write('main.c', 'int part(void);\nint main(void) { return part(); }\n')
    flags = f'-B{t.linker_dir}'
    t.tool('cmake', '-S', '.', '-B', 'b', '-DCMAKE_C_COMPILER=gcc', f'-DCMAKE_C_FLAGS={flags}')
    t.tool('cmake', '--build', 'b')
    t.run('b/app')


def test_meson_project(t):
    if not shutil.which('meson') or not shutil.which('ninja'):
        pytest.skip('meson or ninja is not installed')
    t.write('meson.build', '''project('probe', 'c')
cc = meson.get_compiler('c')
message('linker: ' + cc.get_linker_id())
if not cc.has_link_argument('-Wl,--as-needed') or cc.has_link_argument('-Wl,--frobnicate')
  error('link arguments')
endif
part = shared_library('part', 'part.c')
executable('app', 'main.c', link_with: part)
''')
    t.write('part.c', 'int part(void) { return 0; }\n')
    t.write('main.c', 'int part(void);\nint main(void) { return part(); }\n')
    said = t.tool('meson', 'setup', 'b', env={'CC': f'gcc -B{t.linker_dir}'})
    assert re.search(r'linker: ld\.(bfd|lld)', said.stdout)
    t.tool('ninja', '-C', 'b')
    t.run('b/app')


def test_autoconf_project(t):
    """AC_PROG_CC and the check for GNU ld of gettext and gnulib, without the macro files."""
    if not shutil.which('autoconf'):
        pytest.skip('autoconf is not installed')
    t.write('configure.ac', '''AC_INIT([probe], [1])
AC_PROG_CC
AC_SEARCH_LIBS([sqrt], [m])
ac_prog=`($CC -print-prog-name=ld) 2>&5`
case `$ac_prog -v 2>&1 </dev/null` in
*GNU* | *'with BFD'*) echo gnu ld: yes;;
esac
AC_OUTPUT
''')
    t.tool('autoconf')
    said = t.tool('./configure', env={'CC': f'gcc -B{t.linker_dir}'})
    assert 'gnu ld: yes' in said.stdout
