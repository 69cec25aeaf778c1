"""What tools that read programs make of the output: gdb, lldb, readelf, eu-elflint, llvm-dwarfdump.

The debuggers have to find their way. The others complain of this and that in whatever a linker writes: here
they must not find more than they find in the output of ld.bfd from the same objects.
"""

import re
import shutil
from collections import Counter

import pytest

from kldtest import only

pytestmark = only('x86_64')

PROGRAM = r'''
    #include <stdexcept>
    #include <string>
    #include <vector>
    #include <cstdio>
    int library(int n);
    thread_local int own = 41;
    static int zeroed[100];
    struct Guard {
        int number;
        ~Guard()
        {
            std::printf("guard %d\n", number); /* IN THE GUARD */
        }
    };
    template <class T> static T thrower(T depth)
    {
        Guard guard = { depth };
        if (depth == 0)
            throw std::runtime_error("at the end"); /* THE THROW */
        return thrower(depth - 1) + guard.number;
    }
    static int handler(int depth)
    {
        std::vector<std::string> words = { "one", "two" };
        try {
            return thrower(depth);
        } catch (const std::exception &e) {
            std::printf("%s %s\n", e.what(), words[0].c_str()); /* THE HANDLER */
        }
        return library(own + zeroed[7]);
    }
    int main(int argc, char **)
    {
        std::printf("%d\n", handler(argc + 1));
        return 0;
    }
'''
LIBRARY = r'''
    static int table[] = { 1, 2, 3 };
    __attribute__((noinline)) static int deeper(int n)
    {
        return n + table[n % 3]; /* IN THE LIBRARY */
    }
    int library(int n) { return deeper(n) + 1; }
'''
SAYS = 'guard 0\nguard 1\nguard 2\nat the end one\n45\n'

KINDS = {
    'pie': ['-pie'],
    'no-pie': ['-no-pie'],
    'static': ['-static'],
    'static-pie': ['-static-pie'],
    'gc-sections': ['-Wl,--gc-sections', '-Wl,-z,now'],
    'compressed': ['-Wl,--compress-debug-sections=zlib'],
    'separate': ['-Wl,-z,separate-code', '-Wl,--hash-style=both', '-Wl,-z,pack-relative-relocs'],
}


def line_of(source, words):
    return next(n for n, line in enumerate(source.split('\n'), 1) if words in line)


def compile_both(t, *flags, library_flags=()):
    main = t.cxx('main.o', PROGRAM, '-g', '-O0', '-fPIE', '-ffunction-sections', *flags)
    part = t.cxx('library.o', LIBRARY, '-g', '-O0', *(library_flags or ['-fPIE']), *flags)
    return main, part


# -- gdb -----------------------------------------------------------------------------------------

def gdb(t, program, *commands):
    if not shutil.which('gdb'):
        pytest.skip('gdb is not installed')
    arguments = [a for c in ['set pagination off', 'set width 0', 'set breakpoint pending off',
                             'set debuginfod enabled off', *commands] for a in ('-ex', c)]
    said = t.tool('gdb', '-nx', '-batch', *arguments, '--args', f'./{program}',
                  env={'LD_LIBRARY_PATH': str(t.path), 'HOME': str(t.path)})
    if re.search('ptrace: Operation not permitted|Cannot trace|Could not trace', said.stderr):
        pytest.skip('processes cannot be traced here: gdb has to be allowed to use ptrace')
    return said.stdout


def frames(text):
    """[(function, file:line or '')] of each backtrace in what gdb said."""
    found, current = [], None
    for line in text.split('\n'):
        m = re.match(r'#(\d+) +(?:0x\w+ in )?([^(]+?) ?(?:<\w+>)? ?\(.*?(?: at \S*?([\w.]+:\d+))?$', line)
        if m:
            if m[1] == '0':
                current = []
                found.append(current)
            current.append((m[2], m[3] or ''))
    return found


def lldb(t, program, *commands):
    """What it said; None if there is none here that can run a program."""
    if not shutil.which('lldb'):
        return None
    arguments = [a for c in ['settings set symbols.enable-external-lookup false',
                             'settings set stop-disassembly-display never', *commands] for a in ('-o', c)]
    said = t.tool('lldb', '-x', '-b', *arguments, f'./{program}', ok=None,
                  env={'LD_LIBRARY_PATH': str(t.path), 'HOME': str(t.path), 'TERM': 'dumb'})
    return None if re.search('ptrace|lost connection|unable to (find|locate) lldb-server', said.stderr) \
        else said.stdout


def lldb_frames(text):
    """The same of its `bt`, which has a star at the first frame; where it stops it shows one without.
    gdb ends at main, lldb with what has called that."""
    found = []
    for line in text.split('\n'):
        m = re.match(r' +(\* )?frame #(\d+): 0x\w+ [^`]+`(?:int )?(?:::)?(.*?)(?: at ([\w.]+:\d+)(?::\d+)?)?$',
                     line)
        if m and m[1]:
            found.append([])
        if m and (m[1] or m[2] != '0') and 'main' not in [f for f, _ in found[-1]]:
            found[-1].append((re.sub(r'[(<].*| \+ \d+$', '', m[3]), m[4] or ''))
    return found


def check_session(t, flags):
    main, part = 'main.o', 'library.o'
    t.link('app', *flags, main, part, via='c++')
    t.run('app', expect=SAYS)
    guard, handler, library = (line_of(s, w) for s, w in (
        (PROGRAM, 'IN THE GUARD'), (PROGRAM, 'THE HANDLER'), (LIBRARY, 'IN THE LIBRARY')))
    # The guard's destructor runs while an exception passes: the unwinder is between the frames.
    said = gdb(t, 'app', f'break main.cc:{guard}', f'break main.cc:{handler}',
               f'break library.cc:{library}', 'run', 'backtrace', 'print number', 'delete 1',
               'continue', 'backtrace', 'print depth', 'continue', 'backtrace', 'print table',
               'finish', 'continue')
    in_guard, in_handler, in_library = frames(said)
    assert in_guard[0] == ('Guard::~Guard', f'main.cc:{guard}'), said
    names = [f for f, _ in in_guard]
    assert names[-2:] == ['handler', 'main'], said
    assert [f for f in names if f.startswith('thrower')] == ['thrower'] * 3
    assert in_handler[0] == ('handler', f'main.cc:{handler}'), said
    assert [f for f, _ in in_handler] == ['handler', 'main']
    assert in_library[0] == ('deeper', f'library.cc:{library}')
    assert [f for f, _ in in_library] == ['deeper', 'library', 'handler', 'main']
    assert '$2 = 2' in said and '$3 = {1, 2, 3}' in said
    assert 'Value returned is $' in said and 'exited normally' in said


def test_gdb_breaks_and_shows_a_backtrace_through_an_exception(t, compiler):
    compile_both(t)
    for flags in KINDS.values():
        check_session(t, flags)


def test_gdb_in_a_shared_object(t, compiler):
    main, part = compile_both(t, library_flags=['-fPIC'])
    t.link('liblibrary.so', '-shared', part, via='c++')
    t.link('app', main, 'liblibrary.so', via='c++')
    library = line_of(LIBRARY, 'IN THE LIBRARY')
    said = gdb(t, 'app', 'set breakpoint pending on', f'break library.cc:{library}', 'run',
               'backtrace', 'print table[2]', 'continue')
    assert [f for f, _ in frames(said)[0]] == ['deeper', 'library', 'handler', 'main'], said
    assert '$1 = 3' in said and 'exited normally' in said


def test_gdb_stops_at_the_throw(t, compiler):
    """catch throw: the breakpoint is in libstdc++, at a probe or at __cxa_throw."""
    main, part = compile_both(t)
    t.link('app', main, part, via='c++')
    throw = line_of(PROGRAM, 'THE THROW')
    said = gdb(t, 'app', 'catch throw', 'run', 'backtrace', 'continue')
    trace = frames(said)[0]
    assert [f for f, _ in trace[1:]] == ['thrower'] * 3 + ['handler', 'main'], said
    assert trace[1][1] == f'main.cc:{throw}'


def test_gdb_unwinds_what_has_no_symbols(t):
    """Without .symtab and debug information the unwind table is what is left."""
    main = t.cc('main.o', r'''
        #include <signal.h>
        __attribute__((noinline)) void third(int n) { raise(n + 5); __asm__ volatile(""); }
        __attribute__((noinline)) void second(int n) { third(n); __asm__ volatile(""); }
        int main(int argc, char **argv) { second(argc); __asm__ volatile(""); return 0; }
        ''', '-O2', '-fomit-frame-pointer', '-fno-inline', '-fno-optimize-sibling-calls')
    t.link('app', '-s', '-Wl,-E', main)
    said = gdb(t, 'app', 'run', 'backtrace')
    assert [f for f, _ in frames(said)[0]][-3:] == ['third', 'second', 'main'], said


# -- the critics ---------------------------------------------------------------------------------

def complaints(t, *command, pattern):
    """The messages of a tool with how often they occur, numbers and names of files aside."""
    if not shutil.which(command[0]):
        pytest.skip(f'{command[0]} is not installed')
    done = t.tool('sh', '-c', '"$@"; true', 'sh', *command)
    found = Counter()
    for line in (done.stdout + done.stderr).split('\n'):
        if re.search(pattern, line):
            line = re.sub(r'0x[0-9a-f]+|\b\d+\b', 'N', line.strip())
            found[re.sub(r'\[ *N\]', '[N]', re.sub(r'\S*\.(bfd|kld)\b', 'FILE', line))] += 1
    return found


def new_complaints(t, out, *command, pattern):
    """What a tool finds in OUT.kld only."""
    theirs = complaints(t, *command, f'{out}.bfd', pattern=pattern)
    ours = complaints(t, *command, f'{out}.kld', pattern=pattern)
    return {m: n for m, n in ours.items() if m not in theirs}


CRITICS = {
    'readelf': (['readelf', '-aW', '--debug-dump=frames'], 'readelf: |[Ww]arning|[Ee]rror:|<corrupt'),
    'elflint': (['eu-elflint', '--gnu-ld'], '^(?!No errors)'),
    'dwarfdump': (['llvm-dwarfdump', '--verify'], '^(error|warning)'),
}

OUTPUTS = {
    **KINDS,
    'shared': ['-shared'],
    'versions': ['-shared', '-Wl,--version-script=script', '-Wl,-soname,libx.so.1'],
    'symbolic': ['-shared', '-Wl,-Bsymbolic', '-Wl,-z,now', '-Wl,--hash-style=sysv'],
    'stripped': ['-pie', '-s'],
    'no debug': ['-pie', '-Wl,-S', '-Wl,-x'],
    'export': ['-pie', '-Wl,-E', '-Wl,-rpath,$ORIGIN', '-Wl,-z,nodlopen'],
    'emit-relocs': ['-no-pie', '-Wl,--emit-relocs'],
    'relocatable': ['-r', '-nostdlib'],
    'no relro': ['-no-pie', '-Wl,-z,norelro', '-Wl,-z,noseparate-code', '-Wl,--build-id=none'],
}
EXTRA = r'''
    extern "C" {
    int exported_data = 5;
    static int first(void) { return 1; }
    int (*choose(void))(void) { return first; }
    __attribute__((ifunc("choose"))) int chosen(void);
    __thread int tls_data = 9;
    __thread int tls_zero;
    static int *const pointers[] = { &exported_data, &exported_data + 1 };
    int *pick(int n) { return n ? pointers[n & 1] : tls_zero ? &tls_data : &tls_zero; }
    int call(void) { return chosen(); }
    }
'''


@pytest.mark.parametrize('dwarf', ['gcc-5', 'clang-5', 'gcc-4'])
def test_critics_find_no_more_than_with_bfd(t, dwarf):
    t.compiler, version = dwarf.split('-')
    flags = [f'-gdwarf-{version}', '-fPIC']
    objects = [*compile_both(t, *flags, library_flags=flags),
               t.cxx('extra.o', EXTRA, '-g', *flags)]
    t.write('script', 'V1 { global: call; pick; exported_data; tls_data; local: *; };\n'
                      'V2 { global: extern "C++" { "library(int)"; }; } V1;\n')
    failures = []
    for name, link_flags in OUTPUTS.items():
        t.link('out.kld', *link_flags, *objects, via='c++')
        t.tool(*t.driver('c++'), '-fuse-ld=bfd', '-o', 'out.bfd', *link_flags, *objects)
        for command, pattern in CRITICS.values():
            new = new_complaints(t, 'out', *command, pattern=pattern)
            failures += [f'{name}: {command[0]} finds {n} x {m}' for m, n in new.items()]
    assert not failures, 'not found in the output of ld.bfd:\n' + '\n'.join(failures)
