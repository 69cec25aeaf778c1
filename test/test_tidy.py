"""The rules of the house that a reader relies on and that would decay unless they were tests.

They look at the sources and at libkld.a, whose members are those of libkld-parts.a.
"""

import os
import re
import shlex
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from kldtest import REPO

LIB = Path(os.environ.get('KLD_LIB') or REPO / 'build' / 'libkld-parts.a')
PUBLIC_LIB = LIB.with_name('libkld.a')
VARIANT = os.environ.get('KLD_VARIANT', 'release')
ROOTS = ['include', 'src', 'formats', 'arch', 'driver']

# The one file that names concrete formats and CPUs in the core.
REGISTRY = 'src/targets.c'

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<(kld/[^>]+)>)', re.M)
COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*|("(?:\\.|[^"\\\n])*")', re.S)

CONCRETE = re.compile(r'''
    \b(?: Elf(?:32|64)?_\w+ | elf(?:32|64)?_\w+ | ELF(?:32|64)?(?:_\w+)? | \w*_elf\b
        | (?:SHT|SHF|STT|STB|STV|PT|DT|EM|ET|ELFOSABI|NT)_[A-Z]\w*
        | R_(?:X86_64|AARCH64|RISCV|386|ARM64|AMD64)\w*
        | coff_\w+ | COFF\w* | IMAGE_[A-Z]\w*
        | macho_\w+ | MACHO\w* | Mach-?O | LC_[A-Z]\w* | MH_[A-Z]\w*
        | \w*(?:x86[-_]64|aarch64|amd64|riscv)\w* | \w*(?:AARCH64|RISCV)\w*
        | x64_\w+ | a64_\w+ | rv64_\w+ )\b''', re.X)

# What a library must not do to the process that it runs in, by the name that it calls it by.
FORBIDDEN = {
    'the process ends': ['_Exit', '__assert_fail', '_exit', 'abort', 'exit', 'quick_exit', 'atexit',
                         'on_exit'],
    'the process changes': ['chdir', 'chroot', 'fchdir', 'putenv', 'setenv', 'setlocale', 'setrlimit',
                            'setvbuf', 'umask', 'unsetenv', 'clearenv', 'tzset', 'srand', 'srandom'],
    'signals': ['__sysv_signal', 'sigaction', 'signal', 'sigaltstack', 'pthread_sigmask',
                'sigprocmask', 'raise', 'kill', 'alarm', 'setitimer'],
    'the environment': ['environ', '__environ', 'getenv', 'secure_getenv'],
    'standard streams': ['__fprintf_chk', '__printf_chk', '__vfprintf_chk', '__vprintf_chk', 'fputs',
                         'fprintf', 'fputc', 'fwrite', 'perror', 'printf', 'putchar', 'puts',
                         'stderr', 'stdin', 'stdout', 'vfprintf', 'vprintf'],
    'state of libc shared by threads': ['strtok', 'strerror', 'getopt', 'getopt_long', 'localtime',
                                        'gmtime', 'ctime', 'rand', 'random', 'tmpnam', 'readdir_r',
                                        'basename', 'dirname'],
    'other processes': ['fork', 'vfork', 'system', 'popen', 'execv', 'execve', 'execvp'],
}


def sources(*suffixes):
    """Paths below ROOTS, relative to the repository."""
    found = [p.relative_to(REPO) for root in ROOTS for s in suffixes
             for p in (REPO / root).rglob('*' + s)]
    return sorted(str(p) for p in found)


def code(path):
    """The text without comments; line breaks stay, so that lines can be counted."""
    def blank(match):
        return match.group(1) or '\n' * match.group(0).count('\n')
    return COMMENT.sub(blank, (REPO / path).read_text())


def complain(what, lines):
    assert not lines, f'{what}:\n' + '\n'.join(f'  {line}' for line in lines)


# -- the sources ------------------------------------------------------------------------------------

def included_file(path, name):
    """Where an #include of the tree leads: from the root, from include/, or from beside the file."""
    for base in (REPO / path).parent, REPO, REPO / 'include':
        if (base / name).exists():
            return os.path.relpath((base / name).resolve(), REPO)
    return None


def may_include(path, target):
    """The arrows between the folders."""
    here, there = Path(path).parts, Path(target).parts
    if there[0] == 'include':
        return True
    if here[0] == 'include':
        return False
    if here[0] == 'driver':
        return there[0] == 'driver'
    if here[0] == 'src':
        return there[0] == 'src' or (path == REGISTRY and there[0] in ('formats', 'arch'))
    if here[0] == 'formats':
        return there[0] in ('formats', 'arch', 'src')
    if here[0] == 'arch':
        if there[0] == 'formats':        # x64_elf.c may include formats/elf/
            return Path(path).stem.endswith('_' + there[1])
        return there[0] == 'src' or there[:2] == here[:2]
    return False


def test_include_arrows():
    wrong = []
    for path in sources('.c', '.h', '.def'):
        text = code(path)
        for match in INCLUDE.finditer(text):
            name = match.group(1) or match.group(2)
            target = included_file(path, name)
            line = text.count('\n', 0, match.start()) + 1
            if target and not may_include(path, target):
                wrong.append(f'{path}:{line}: {name}')
    complain('includes against the arrows', wrong)


def test_core_names_no_format_and_no_cpu():
    wrong = []
    for path in sources('.c', '.h', '.def'):
        if not path.startswith('src/') or path == REGISTRY:
            continue
        for number, line in enumerate(code(path).split('\n'), 1):
            if line.lstrip().startswith('#include'):
                continue
            wrong += [f'{path}:{number}: {word}' for word in CONCRETE.findall(line)]
    complain('words of one format or CPU in the core', wrong)


def test_base_names_are_unique():
    """An archive keeps one member of a name, and debuggers and people go by it as well."""
    by_name = defaultdict(list)
    for path in sources('.c'):
        by_name[Path(path).name].append(path)
    complain('files of one name', [' '.join(p) for p in by_name.values() if len(p) > 1])


def test_header_guards():
    wrong = []
    for path in sources('.h'):
        guard = re.match(r'\s*#ifndef (\w+)\n#define (\w+)\n', code(path).lstrip())
        if not guard or guard.group(1) != guard.group(2):
            wrong.append(path)
    complain('headers that do not start with their include guard', wrong)


# -- libkld.a ---------------------------------------------------------------------------------------

def nm(archive):
    """(member, name, type letter) of each symbol."""
    if not archive.exists():
        pytest.skip(f'{archive} is not there')
    text = subprocess.run(['nm', '-A', '-P', str(archive)], capture_output=True, text=True,
                          check=True).stdout
    rows = (re.match(r'.*\[(.*)\]: (\S+) (\S)', line) for line in text.split('\n'))
    return [row.groups() for row in rows if row]


@pytest.fixture(scope='module')
def symbols():
    return nm(LIB)


def of_sanitizers(name):
    return re.match(r'_?_?(asan|ubsan|tsan|sancov|sanitizer|odr_asan|lsan)', name.lstrip('.'))


def test_no_writable_globals(symbols):
    """Types d b c s g in either case: .data, .bss (.tbss and .tdata count as such), COMMON, small
    data; and .data.rel.ro, which the loader writes once, is fine."""
    constant = relocated_constants()
    wrong = [f'{member}: {name} ({kind})' for member, name, kind in symbols
             if kind in 'dDbBcCsSgG' and (member, name) not in constant and not of_sanitizers(name)]
    complain('writable objects in libkld.a', wrong)


def relocated_constants():
    """(member, name) of what lies in .data.rel.ro and the like: const tables of pointers."""
    text = subprocess.run(['objdump', '-t', str(LIB)], capture_output=True, text=True,
                          check=True).stdout
    found, member = set(), None
    for line in text.split('\n'):
        header = re.match(r'(\S+):\s+file format', line)
        if header:
            member = header.group(1)
        elif '.data.rel.ro' in line:
            found.add((member, line.split()[-1]))
    return found


def test_no_writable_sections():
    """The same from the section headers, for what has no symbol."""
    if not LIB.exists():
        pytest.skip(f'{LIB} is not there')
    if VARIANT not in ('release', 'debug'):
        pytest.skip('sanitizers have data of their own in every member')
    text = subprocess.run(['readelf', '-SW', str(LIB)], capture_output=True, text=True,
                          check=True).stdout
    wrong, member = [], None
    for line in text.split('\n'):
        header = re.match(r'File: .*\((.*)\)', line)
        if header:
            member = header.group(1)
        row = re.match(r'\s*\[\s*\d+\] (\.\S+)\s+\S+\s+\S+ \S+ (\S+) \S+\s+(\S+)', line)
        if row and int(row.group(2), 16) and 'W' in row.group(3) and 'A' in row.group(3) \
                and not row.group(1).startswith('.data.rel.ro'):
            wrong.append(f'{member}: {row.group(1)}, {int(row.group(2), 16)} bytes')
    complain('writable sections in libkld.a', wrong)


def prefixes(path):
    """kld_ everywhere; in formats/ and arch/ also that of the folder: elf_, x64_ (as its files)."""
    folder = Path(path).parts[0]
    if folder == 'formats':
        return 'kld_', Path(path).parts[1] + '_'
    if folder == 'arch':
        return 'kld_', Path(path).name.split('_')[0] + '_'
    return ('kld_',)


def test_external_names_have_a_prefix(symbols):
    where = {Path(path).stem + '.o': path for path in sources('.c')}
    wrong = [f'{where.get(member, member)}: {name}' for member, name, kind in symbols
             if kind in 'TDBRCVWGS' and not of_sanitizers(name)
             and not name.startswith(prefixes(where.get(member, member)))]
    complain('external names without a prefix', wrong)


def test_external_names_are_unique(symbols):
    where = defaultdict(list)
    for member, name, kind in symbols:
        if kind in 'TDBRCVW' and not of_sanitizers(name):
            where[name].append(member)
    complain('names defined twice', [f'{n}: {m}' for n, m in where.items() if len(m) > 1])


def declared():
    """The functions that the public headers declare."""
    text = ''.join((REPO / path).read_text() for path in sources('.h') if path.startswith('include/'))
    return set(re.findall(r'^KLD_API [^;(]*?(\w+)\(', text, re.M))


def test_only_public_names_are_global():
    """In libkld.a as it is installed: the host's own names cannot clash with those inside."""
    found = {name for _, name, kind in nm(PUBLIC_LIB)
             if kind in 'TDBRCVWGS' and not of_sanitizers(name)}
    complain('global names of libkld.a that kld.h does not declare', sorted(found - declared()))
    complain('functions of kld.h that libkld.a does not define', sorted(declared() - found))


def test_a_host_links_with_the_library(tmp_path):
    """What is installed is enough, and the host may have names that are used inside."""
    if not PUBLIC_LIB.exists():
        pytest.skip(f'{PUBLIC_LIB} is not there')
    (tmp_path / 'host.c').write_text('''
        #include <kld/kld.h>
        #include <stdio.h>
        int kld_arena_alloc = 1, kld_link_run = 2;
        int main(void) { puts(kld_version()); return kld_arena_alloc + kld_link_run - 3; }''')
    flags = shlex.split(os.environ.get('KLD_CFLAGS', ''))
    subprocess.run(['gcc', *flags, f'-I{REPO}/include', 'host.c', str(PUBLIC_LIB), '-lb2', '-lnettle',
                    '-liberty', '-lzstd', '-lz', '-pthread', '-o', 'host'], cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / 'host'], capture_output=True, text=True, check=True).stdout
    assert re.match(r'\d+\.\d+', said)


@pytest.mark.parametrize('what', FORBIDDEN)
def test_library_leaves_the_process_alone(symbols, what):
    if VARIANT != 'release' and what == 'the process ends':
        pytest.skip('assertions of this variant abort')
    wrong = sorted(f'{member}: {name}' for member, name, kind in symbols
                   if kind in 'Uw' and name in FORBIDDEN[what])
    complain(f'libkld.a calls what concerns {what}', wrong)
