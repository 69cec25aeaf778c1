"""What the test files share: a workspace per test that compiles, links, runs and inspects.

The linker under test is build/kld, or $KLD. Pointing KLD at another linker checks the tests
themselves: what only holds for kld, or is known not to hold for one of the others, is marked with
`deviates`.
"""

import functools
import os
import re
import shlex
import shutil
import struct
import subprocess
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import pytest

from elfview import Elf

REPO = Path(__file__).resolve().parent.parent
KLD = os.environ.get('KLD') or str(REPO / 'build' / 'kld')

# Nothing a test does takes longer; a loop in the linker should not hang the suite.
TIMEOUT = int(os.environ.get('KLD_TEST_TIMEOUT', '120'))

SUFFIXES = {'c': '.c', 'c++': '.cc', 'asm': '.S'}

# Assembly that differs by CPU, under one name for all; every assembly source begins with these.
# What else the cases write is the same everywhere: nop, ret, %progbits, .4byte and .8byte.
#   do_call F        load_address X (relative to here)        load_tls X (its offset, from the GOT)
#   do_exit STATUS, for programs without libc
MACROS = {
    'x86_64': r'''
        .macro do_call f; call \f; .endm
        .macro load_address x; lea \x(%rip), %rax; .endm
        .macro load_tls x; mov \x@gottpoff(%rip), %rax; .endm
        .macro do_exit status; mov $\status, %edi; mov $60, %eax; syscall; .endm
        ''',
    'aarch64': r'''
        .macro do_call f; bl \f; .endm
        .macro load_address x; adrp x0, \x; add x0, x0, :lo12:\x; .endm
        .macro load_tls x; adrp x0, :gottprel:\x; ldr x0, [x0, :gottprel_lo12:\x]; .endm
        .macro do_exit status; mov x0, \status; mov x8, 93; svc 0; .endm
        ''',
    'riscv64': r'''
        .macro do_call f; call \f; .endm
        .macro load_address x; lla a0, \x; .endm
        .macro load_tls x; la.tls.ie a0, \x; .endm
        .macro do_exit status; li a0, \status; li a7, 93; ecall; .endm
        ''',
}


@dataclass(frozen=True)
class Target:
    """A CPU that the cases run for: its compilers, and what runs its programs here."""
    name: str
    emulation: str
    interp: str
    triple: str = ''
    runner: tuple = ()

    @property
    def native(self):
        return not self.triple

    @functools.lru_cache
    def has(self, kind):
        """Whether its C library is made for this kind of program."""
        return kind != 'static-pie' or '/' in subprocess.run(
            [*self.command('gcc'), '-print-file-name=rcrt1.o'], capture_output=True, text=True,
            timeout=TIMEOUT).stdout

    def is_here(self):
        """Whether programs can be built for it and run."""
        return all(shutil.which(c[0]) for c in (self.command('g++'), self.runner or ['sh']))

    def command(self, compiler):
        """The command for one of gcc, g++, clang, clang++, ar, objcopy, nm, ..."""
        if self.native or compiler.startswith('llvm-'):
            return [compiler]
        if compiler.startswith('clang'):
            return [compiler, f'--target={self.triple}']
        return [f'{self.triple}-{compiler}']

    def other_linker(self, family):
        """The path of 'bfd', 'lld', 'gold' or 'mold' for this CPU, or None if it is not here."""
        prefix = f'{self.triple}-' if self.triple and family in ('bfd', 'gold') else ''
        path = shutil.which(f'{prefix}ld.{family}')
        if path and family == 'lld' and self.name == 'riscv64':
            version = subprocess.run([path, '--version'], capture_output=True, text=True).stdout
            if int(re.search(r'LLD (\d+)', version)[1]) < 15:  # cannot relax
                return None
        return path


TARGETS = {t.name: t for t in [
    Target('x86_64', 'elf_x86_64', '/lib64/ld-linux-x86-64.so.2'),
    Target('aarch64', 'aarch64linux', '/lib/ld-linux-aarch64.so.1', 'aarch64-linux-gnu',
           ('qemu-aarch64', '-L', '/usr/aarch64-linux-gnu')),
    Target('riscv64', 'elf64lriscv', '/lib/ld-linux-riscv64-lp64d.so.1', 'riscv64-linux-gnu',
           ('qemu-riscv64', '-L', '/usr/riscv64-linux-gnu')),
]}


@dataclass(frozen=True)
class Kind:
    """A kind of executable: how its objects are compiled and how the driver is asked for it."""
    name: str
    cflags: tuple
    ldflags: tuple
    dynamic: bool
    pie: bool


KINDS = {k.name: k for k in [
    Kind('static', ('-fno-pie',), ('-static', '-no-pie'), False, False),
    Kind('static-pie', ('-fPIE',), ('-static-pie',), False, True),
    Kind('pie', ('-fPIE',), ('-pie',), True, True),
    Kind('no-pie', ('-fno-pie',), ('-no-pie',), True, False),
]}


@dataclass
class Result:
    command: list
    status: int
    stdout: str
    stderr: str

    def says(self, *texts):
        """Each text occurs in the standard error; a compiled pattern is searched for."""
        for text in texts:
            pattern = text if isinstance(text, re.Pattern) else re.compile(re.escape(text))
            found = pattern.search(self.stderr)
            assert found, f'{text!r} is not in the messages:\n{self}'
        return self

    def silent(self):
        assert self.stderr == '', f'messages were not expected:\n{self}'
        return self

    def __str__(self):
        return (f'$ {shlex.join(map(str, self.command))}\n[status {self.status}]\n'
                f'{self.stdout}{self.stderr}')


def linker_family():
    """Which linker is under test: 'kld', 'bfd', 'lld', 'gold' or 'mold'."""
    first = subprocess.run([KLD, '--version'], capture_output=True, text=True,
                           timeout=TIMEOUT).stdout.split('\n')[0]
    for word, family in (('kld', 'kld'), ('LLD', 'lld'), ('GNU gold', 'gold'), ('mold', 'mold'),
                         ('GNU ld', 'bfd')):
        if word in first:
            return family
    return 'kld'


def deviates(strict=True, **reasons):
    """Marks a case that another linker is known to fail: @deviates(lld='why').

    strict=False: only for some of its parameters.
    """
    return pytest.mark.deviates(strict=strict, **reasons)


def only(*targets):
    """Marks a case that belongs to some CPUs only: @only('x86_64')."""
    return pytest.mark.only(*targets)


@dataclass
class Workspace:
    """A folder of its own for one test, and the tools at work in it.

    All names are relative to the folder. `compiler` is 'gcc' or 'clang'; the links that go through
    a compiler use the linker under test.
    """
    path: Path
    target: Target
    linker_dir: Path
    compiler: str = 'gcc'
    commands: list = field(default_factory=list)

    # -- files ----------------------------------------------------------------------------------

    def write(self, name, content):
        """Creates a file (text or bytes) and the folders above it; returns its name."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content)
        return name

    def read(self, name):
        return (self.path / name).read_text(errors='replace')

    def exists(self, name):
        return (self.path / name).exists()

    def elf(self, name):
        return Elf(self.path / name)

    # -- commands -------------------------------------------------------------------------------

    def tool(self, *command, ok=True, env=None):
        """Runs any command in the folder. ok=False: it has to fail, but not by a signal; None: either."""
        command = [str(c) for c in command]
        done = subprocess.run(command, cwd=self.path, capture_output=True, text=True,
                              errors='replace', stdin=subprocess.DEVNULL, timeout=TIMEOUT,
                              env={**os.environ, 'LC_ALL': 'C', **(env or {})})
        result = Result(command, done.returncode, done.stdout, done.stderr)
        self.commands.append(result)
        assert done.returncode >= 0, f'died by signal {-done.returncode}:\n{result}'
        if ok:
            assert done.returncode == 0, f'failed:\n{result}'
        elif ok is False:
            assert done.returncode != 0, f'should have failed:\n{result}'
        return result

    def driver(self, lang='c'):
        """The command of the compiler driver for C or C++."""
        plus = {'gcc': 'g++', 'clang': 'clang++'}
        return self.target.command(plus[self.compiler] if lang == 'c++' else self.compiler)

    def cc(self, name, source, *flags, lang='c'):
        """Compiles C ('c'), C++ ('c++') or assembly ('asm') to the object `name`; returns it."""
        file = self.write(str(Path(name).with_suffix(SUFFIXES[lang])), source)
        compiler = self.target.command('gcc') if lang == 'asm' else self.driver(lang)
        self.tool(*compiler, '-c', '-o', name, *flags, file)
        return name

    def cxx(self, name, source, *flags):
        return self.cc(name, source, *flags, lang='c++')

    def asm(self, name, source, *flags):
        file = Path(name).with_suffix('.S').name
        return self.cc(name, MACROS[self.target.name] + f'# 1 "{file}"\n' + source, *flags, lang='asm')

    def link(self, out, *args, via='cc', ok=True, env=None):
        """Links `out`. via: 'cc' and 'c++' for the driver of this workspace, None for the linker.

        ok=False: the link has to fail with an ordinary error and must leave no output.
        """
        if via is None:
            emulation = [] if self.target.native else ['-m', self.target.emulation]
            command = [KLD, *emulation]
        else:
            command = [*self.driver('c++' if via == 'c++' else 'c'), '-B', self.linker_dir]
            if self.compiler == 'clang':
                command.append(f'--ld-path={self.linker_dir}/ld')
            if '-static-pie' in args and not self.target.has('static-pie'):
                pytest.skip(f'no static PIE for {self.target.name} here')
        (self.path / out).unlink(missing_ok=True)
        result = self.tool(*command, '-o', out, *args, ok=ok, env=env)
        if ok:
            assert self.exists(out), f'no output was written:\n{result}'
        else:
            assert 'signal' not in result.stderr, f'the linker crashed:\n{result}'
            assert not self.exists(out), f'a failed link left its output behind:\n{result}'
        return result

    def link_with(self, family, out, *args, via='cc'):
        """The same by another linker; skips the test where that is not installed."""
        linker = self.target.other_linker(family)
        if not linker:
            pytest.skip(f'no ld.{family} for {self.target.name} is installed')
        if via is None:
            emulation = [] if self.target.native else ['-m', self.target.emulation]
            return self.tool(linker, *emulation, '-o', out, *args)
        folder = self.path / f'.{family}'
        folder.mkdir(exist_ok=True)
        (folder / 'ld').unlink(missing_ok=True)
        (folder / 'ld').symlink_to(linker)
        return self.tool(*self.driver('c++' if via == 'c++' else 'c'), '-B', folder, '-o', out, *args)

    def ld(self, out, *args, ok=True):
        """Calls the linker itself."""
        return self.link(out, *args, via=None, ok=ok)

    def ar(self, name, *members, flags='rcs', tool='ar'):
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        self.tool(*self.target.command(tool), *flags.split(), name, *members)
        return name

    def objcopy(self, *args, tool='objcopy'):
        return self.tool(*self.target.command(tool), *args)

    def nm(self, name, *flags):
        return self.tool(*self.target.command('nm'), *flags, name).stdout

    def run(self, exe, *args, expect=None, status=0, env=None):
        """Runs a program from the folder, which is on its library path, and checks what it says.

        expect: the whole standard output, or None when it does not matter. The status of a program
        that died by signal N is -N.
        """
        command = [*self.target.runner, f'./{exe}', *map(str, args)]
        done = subprocess.run(command, cwd=self.path, capture_output=True, text=True,
                              errors='replace', stdin=subprocess.DEVNULL, timeout=TIMEOUT,
                              env={**os.environ, 'LC_ALL': 'C', 'LD_LIBRARY_PATH': str(self.path),
                                   **(env or {})})
        result = Result(command, done.returncode, done.stdout, done.stderr)
        assert done.returncode == status, f'expected status {status}:\n{result}'
        if expect is not None:
            assert done.stdout == expect, f'expected {expect!r}:\n{result}'
        return result


def renumber(t, name, old, new):
    """Changes the type of relocations that the assembler does not know yet."""
    data = bytearray((t.path / name).read_bytes())
    shoff, = struct.unpack_from('<Q', data, 40)
    shentsize, shnum = struct.unpack_from('<HH', data, 58)
    for i in range(shnum):
        at = shoff + i * shentsize
        kind, = struct.unpack_from('<I', data, at + 4)
        offset, size = struct.unpack_from('<QQ', data, at + 24)
        for rel in range(offset, offset + size, 24) if kind == 4 else ():
            if struct.unpack_from('<I', data, rel + 8)[0] == old:
                struct.pack_into('<I', data, rel + 8, new)
    (t.path / name).write_bytes(data)
