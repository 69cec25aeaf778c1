"""The same objects linked by ld.bfd, ld.lld and kld: what others see of the output agrees.

Others are programs that bind to a library, ld.so, and whoever runs the program. So these are
compared: what is exported and imported, with versions; needed libraries, flags of the dynamic
section; dynamic relocations that name a symbol; what may be read, written and executed, and what
is read-only after relocation; what the program prints.

kld agrees with ld.bfd, or DEVIATIONS says why not. Where it does not, the message tells whether it
agrees with ld.lld, which differs from ld.bfd in more places.
"""

from collections import Counter
from dataclasses import dataclass

import pytest



@dataclass(frozen=True)
class Case:
    """objects: {name: (source, *flags)}; links: [(output, *arguments)], the last one is run.

    In arguments, {d} is the folder of this linker's outputs.
    """
    objects: dict
    links: list
    files: dict = None
    lang: str = 'c'


# (case, output, fact): why kld differs from ld.bfd there. A deviation that is gone is an error.
PROTECTED = ('the address of a protected function of the library itself is a relative relocation, as '
             'in lld: ld.so need not look up what is bound already')
ALIASES = ('where data is copied into the program, all its names move there and are exported, as in '
           'lld: with ld.bfd the library goes on using its own bytes under the names that the program '
           'does not mention')
DEVIATIONS = {
    ('visibility', 'libx.so', 'relocations'): PROTECTED,
    ('visibility no-pie', 'libx.so', 'relocations'): PROTECTED,
    ('version globs', 'libx.so', 'relocations'): PROTECTED,
    ('flags', 'libx.so', 'relocations'): PROTECTED,
    ('hash tables', 'libx.so', 'relocations'): PROTECTED,
    **{(case, 'app', fact): ALIASES for case in ('copies', 'copies in pie')
       for fact in ('exports', 'kinds of exports', 'symbols', 'output')},
}
# The same for other CPUs: what is here is added, what is None does not hold there.
POINTERS = ('pointers in writable data to an imported function are filled in by ld.so, as for x86-64 and '
            'in lld: with ld.bfd they lead to its PLT entry')
FOR_OTHERS = {
    ('no-pie', 'app', 'relocations'): POINTERS,
    ('c++ no-pie', 'app', 'relocations'): POINTERS,
    ('addresses in no-pie', 'app', 'relocations'): POINTERS,
    ('tls initial exec', 'libx.so', 'flags'): 'ld.bfd sets DF_STATIC_TLS for x86-64 only',
    ('packed relocations', 'app', 'needed versions'): 'ld.bfd packs for x86-64 only',
    **{key: None for key in DEVIATIONS if key[0] == 'copies in pie'},  # nothing is copied in a PIE
}

CALLS_X = '#include <stdio.h>\nint x(int); int main(void) { printf("%d\\n", x(4)); return 0; }'
HELLO = r'''
    #include <stdio.h>
    #include <stdlib.h>
    const char *const words[] = { "hello", "world" };
    int counter = 1, zeroed[10];
    static int (*volatile pointer)(const char *) = puts;
    int main(int argc, char **argv)
    {
        printf("%s %s %d\n", words[0], words[argc], counter + zeroed[argc]);
        return pointer(getenv("HOME") ? "home" : "") < 0;
    }
'''
CXX = r'''
    #include <iostream>
    #include <map>
    #include <stdexcept>
    #include <string>
    struct Base { virtual ~Base() {} virtual int f() { return 1; } };
    struct Derived : Base { int f() override { return 2; } };
    template <class T> struct Store { static T value; };
    template <class T> T Store<T>::value = 7;
    thread_local std::string own = "own";
    int main()
    {
        std::map<int, std::string> m = { { 1, "one" }, { 2, "two" } };
        Base *b = new Derived;
        try { m.at(3); } catch (const std::out_of_range &e) { std::cout << "caught "; }
        std::cout << m[b->f()] << own << Store<int>::value << dynamic_cast<Derived *>(b)->f() << "\n";
        delete b;
    }
'''
VISIBLE = r'''
    #define V(v) __attribute__((visibility(#v)))
    int plain = 1; V(hidden) int hidden = 2; V(protected) int guarded = 3; V(internal) int inner = 4;
    const int constant = 5; int zero; __attribute__((weak)) int weak = 6;
    V(hidden) int hidden_function(void) { return hidden; }
    V(protected) int protected_function(void) { return guarded + inner; }
    int overridden(void) { return 1; }
    __attribute__((weak)) int weak_function(void) { return 2; }
    static int local(void) { return 3; }
    int (*table[])(void) = { overridden, weak_function, local, hidden_function, protected_function };
    int x(int n)
    {
        int sum = plain + constant + zero + weak + n;
        for (int i = 0; i < 5; i++)
            sum = sum * 3 + table[i]();
        return sum + overridden() + protected_function();
    }
'''
OVERRIDES = r'''
    #include <stdio.h>
    int x(int); int overridden(void) { return 100; }
    extern int plain, weak, zero;
    int *address = &weak;
    int main(void) { plain = 50; printf("%d %d %d\n", x(1), *address, zero); return 0; }
'''
VERSIONED = r'''
    __asm__(".symver old_x, x@V1");
    __asm__(".symver new_x, x@@V2");
    int old_x(int n) { return n + 1; }
    int new_x(int n) { return n + 2; }
    int y(void) { return 5; }
    int z = 8, secret = 9;
'''
USES_OLD = r'''
    #include <stdio.h>
    __asm__(".symver old_x, x@V1");
    int old_x(int); int x(int); int y(void); extern int z;
    int main(void) { printf("%d %d %d %d\n", old_x(1), x(1), y(), z); return 0; }
'''
NAMESPACES = r'''
    namespace one { int f(int n) { return n; } int g() { return 1; } struct S { virtual ~S(); int v; }; S::~S() {} }
    namespace two { int f(double d) { return (int)d; } }
    extern "C" { int x(int n) { return one::f(n) + two::f(2.5) + one::g(); } int x_private = 3; }
    int (*keep)() = one::g;
'''
DATA = r'''
    int table[4] = { 1, 2, 3, 4 };
    extern int alias[4] __attribute__((alias("table")));
    extern int weak_alias[4] __attribute__((weak, alias("table")));
    const int fixed[2] = { 7, 8 };
    const char *const names[] = { "a", "b" };
    int x(int n) { return table[n & 3] + alias[0] + weak_alias[1]; }
    int (*address_of_x(void))(int) { return x; }
'''
COPIES = r'''
    #include <stdio.h>
    extern int alias[4]; extern const int fixed[2]; extern const char *const names[];
    int x(int); int (*address_of_x(void))(int);
    int main(void)
    {
        alias[0] = 10;
        printf("%d %d %s %d\n", x(4), fixed[1], names[1], address_of_x() == x);
        return 0;
    }
'''
TLS_LIB = r'''
    __thread int exported = 3, zero; static __thread int own = 4, more;
    __attribute__((visibility("hidden"))) __thread int hidden = 5;
    int x(int n) { exported += n; own++; return exported + zero + own + more + hidden; }
'''
TLS_MAIN = r'''
    #include <stdio.h>
    int x(int); extern __thread int exported; static __thread int mine = 20; __thread int global = 30;
    int main(void) { mine += x(2); exported++; printf("%d %d %d\n", mine, exported, global + x(1)); return 0; }
'''
IFUNC = r'''
    static int one(int n) { return n + 1; }
    static int (*choose(void))(int) { return one; }
    int x(int) __attribute__((ifunc("choose")));
    __attribute__((visibility("hidden"))) int inner(int) __attribute__((ifunc("choose")));
    int (*pointer)(int) = x, (*inner_pointer)(int) = inner;
    int call(int n) { return x(n) + inner(n) + pointer(n) + inner_pointer(n); }
'''
IFUNC_MAIN = r'''
    #include <stdio.h>
    int x(int), call(int); extern int (*pointer)(int);
    int (*mine)(int) = x;
    int main(void) { printf("%d %d %d\n", x(1), call(2), mine == pointer && mine == &x); return 0; }
'''
SETS = r'''
    #include <stdio.h>
    #define KEPT __attribute__((section("kept_set"), used))
    KEPT static int a = 1; KEPT static int b = 2;
    extern int __start_kept_set[], __stop_kept_set[];
    __attribute__((section(".text.unused"))) int unused(void) { puts("unused"); return 1; }
    int dead_data[100] = { 1 };
    __attribute__((constructor(200))) static void first(void) { puts("first"); }
    __attribute__((destructor)) static void last(void) { puts("last"); }
    int main(void) { printf("%d %d\n", (int)(__stop_kept_set - __start_kept_set), b + *__start_kept_set); return 0; }
'''
MERGED = r'''
    .section .rodata.addresses,"aM",%progbits,8
    .globl addresses
    addresses: .8byte f - ., 5
    .section .rodata.str,"aMS",%progbits,1
    one: .string "suffix"
    two: .string "a suffix"
    .section .text.f,"ax",%progbits
    .globl f
    .type f, %function
    f: .cfi_startproc
    load_address addresses
    load_address one
    load_address two
    ret
    .cfi_endproc
    .section .note.GNU-stack,"",%progbits
'''
MERGED_MAIN = r'''
    #include <stdio.h>
    const char *f(void);
    int main(void) { puts(f()); return 0; }
'''
WEAK = r'''
    #include <stdio.h>
    __attribute__((weak)) extern int missing_data; __attribute__((weak)) int missing(void);
    __attribute__((weak, visibility("hidden"))) int hidden_missing(void);
    int x(int n) { return missing ? missing() : n + !&missing_data + !hidden_missing; }
'''
WRAPPED = r'''
    #include <stdio.h>
    int x(int n) { return n; } int other(int n) { return n * 2; }
    int __real_x(int); int __wrap_x(int n) { return __real_x(n) + 100; }
    extern int alias(int); extern char mark[];
'''
WRAP_MAIN = r'''
    #include <stdio.h>
    int x(int), alias(int); extern char mark[];
    int main(void) { printf("%d %d %d\n", x(1), alias(4), (int)(long)mark); return 0; }
'''
COMMON = r'''
    #include <stdio.h>
    int a; char big[5000]; long b; extern int initialised;
    int main(void) { printf("%d %d %ld %d\n", a, big[4999], b, initialised); return 0; }
'''
ARCHIVED = 'int from_archive(void) { return 3; } int in_archive = 4;'
USES_ARCHIVE = 'int from_archive(void); extern int in_archive; int x(int n) { return n + from_archive() + in_archive; }'

PIC = '-fPIC'
EXE = '-fPIE'
FIXED = '-fno-pie'


def library(source, *link_flags, main=CALLS_X, main_flags=(EXE,), app_flags=('-pie',), lib_flags=(),
            files=None):
    """libx.so, and a program that needs it."""
    return Case({'x.o': (source, PIC, *lib_flags), 'm.o': (main, *main_flags)},
                [('libx.so', '-shared', '-Wl,-soname,libx.so', *link_flags, 'x.o'),
                 ('app', *app_flags, 'm.o', '-L{d}', '-lx')], files)


def program(source, compile_flag, *link_flags, **more):
    return Case({'m.o': (source, compile_flag)}, [('app', *link_flags, 'm.o', '-lstdc++')], **more)


CASES = {
    'pie': program(HELLO, EXE, '-pie'),
    'no-pie': program(HELLO, FIXED, '-no-pie'),
    'static': program(HELLO, FIXED, '-static', '-no-pie'),
    'static-pie': program(HELLO, EXE, '-static-pie'),
    'now': program(HELLO, EXE, '-pie', '-Wl,-z,relro,-z,now'),
    'norelro': program(HELLO, EXE, '-pie', '-Wl,-z,norelro,-z,lazy'),
    'one text segment': program(HELLO, EXE, '-pie', '-Wl,-z,noseparate-code'),
    'c++': program(CXX, EXE, '-pie', lang='c++'),
    'c++ no-pie': program(CXX, FIXED, '-no-pie', lang='c++'),
    'visibility': library(VISIBLE, main=OVERRIDES),
    'visibility no-pie': library(VISIBLE, main=OVERRIDES, main_flags=[FIXED], app_flags=['-no-pie']),
    'Bsymbolic': library(VISIBLE, '-Wl,-Bsymbolic', main=OVERRIDES, main_flags=[PIC]),
    'Bsymbolic-functions': library(VISIBLE, '-Wl,-Bsymbolic-functions', main=OVERRIDES,
                                   main_flags=[PIC]),
    'dynamic list': library(VISIBLE, '-Wl,--dynamic-list=list', main=OVERRIDES, main_flags=[PIC],
                            files={'list': '{ overridden; plain; };'}),
    'versions': library(VERSIONED, '-Wl,--version-script=script', main=USES_OLD, files={
        'script': 'V1 { global: x; y; local: *; }; V2 { global: x; z; } V1;'}),
    'version globs': library(VISIBLE, '-Wl,--version-script=script', main=CALLS_X, files={
        'script': 'A { global: x; pl*; *_function; local: *; }; B { global: over?idden; } A;'}),
    'c++ versions': Case(
        {'x.o': (NAMESPACES, PIC)},
        [('libx.so', '-shared', '-Wl,--version-script=script', 'x.o')],
        {'script': 'L { global: x; extern "C++" { one::*; "two::f(double)"; vtable*; typeinfo*; };'
                   ' local: *; };'}, 'c++'),
    'copies': library(DATA, main=COPIES, main_flags=[FIXED], app_flags=['-no-pie']),
    'copies in pie': library(DATA, main=COPIES),
    'addresses in no-pie': library(
        DATA, main='#include <stdio.h>\nint x(int); int (*address_of_x(void))(int); int (*p)(int) = x;'
        'int main(void) { printf("%d %d\\n", p == address_of_x(), p(1)); return 0; }',
        main_flags=[FIXED], app_flags=['-no-pie']),
    'tls': library(TLS_LIB, main=TLS_MAIN),
    'tls descriptors': library(TLS_LIB, main=TLS_MAIN, lib_flags=['{descriptors}']),
    'tls initial exec': library(TLS_LIB, main=TLS_MAIN, lib_flags=['-ftls-model=initial-exec']),
    'tls static': Case({'x.o': (TLS_LIB, PIC), 'm.o': (TLS_MAIN, FIXED)},
                       [('app', '-static', '-no-pie', 'm.o', 'x.o')]),
    'ifunc in a library': library(IFUNC, main=IFUNC_MAIN, main_flags=[PIC]),
    'ifunc pie': Case({'x.o': (IFUNC, EXE), 'm.o': (IFUNC_MAIN, EXE)}, [('app', '-pie', 'm.o', 'x.o')]),
    'ifunc no-pie': Case({'x.o': (IFUNC, FIXED), 'm.o': (IFUNC_MAIN, FIXED)},
                         [('app', '-no-pie', 'm.o', 'x.o')]),
    'ifunc static': Case({'x.o': (IFUNC, FIXED), 'm.o': (IFUNC_MAIN, FIXED)},
                         [('app', '-static', '-no-pie', 'm.o', 'x.o')]),
    'gc': Case({'m.o': (SETS, EXE, '-fdata-sections', '-ffunction-sections')},
               [('app', '-pie', '-Wl,--gc-sections', 'm.o')]),
    'gc of a library': library(VISIBLE, '-Wl,--gc-sections', '-Wl,--version-script=script',
                               lib_flags=['-ffunction-sections', '-fdata-sections'],
                               files={'script': '{ global: x; local: *; };'}),
    'merged with relocations': Case(
        {'f.o': (MERGED, 'asm'), 'm.o': (MERGED_MAIN, EXE)},
        [('app', '-pie', '-Wl,--gc-sections', 'm.o', 'f.o')]),
    'export dynamic': program(HELLO, EXE, '-pie', '-Wl,--export-dynamic'),
    'exports by name': program(HELLO, EXE, '-pie', '-Wl,--export-dynamic-symbol=w*',
                               '-Wl,--dynamic-list=list', files={'list': '{ counter; };'}),
    'weak pie': Case({'x.o': (WEAK, EXE), 'm.o': (CALLS_X, EXE)}, [('app', '-pie', 'm.o', 'x.o')]),
    'weak in a library': library(WEAK),
    'wrap and defsym': Case({'x.o': (WRAPPED, EXE), 'm.o': (WRAP_MAIN, FIXED)}, [
        ('app', '-no-pie', '-Wl,--wrap=x', '-Wl,--defsym=alias=other', '-Wl,--defsym=mark=0x1234',
         'm.o', 'x.o')]),
    'common': Case({'m.o': (COMMON, EXE, '-fcommon'),
                    'i.o': ('int initialised = 6; int a; char big[10];', EXE, '-fcommon')},
                   [('app', '-pie', 'm.o', 'i.o')]),
    'as needed': Case(
        {'a.o': ('int a(void) { return 1; }', PIC), 'x.o': ('int x(int n) { return n; }', PIC),
         'm.o': (CALLS_X, EXE)},
        [('liba.so', '-shared', '-Wl,-soname,liba.so.1', 'a.o'),
         ('libx.so', '-shared', '-Wl,-soname,libx.so', 'x.o', '-Wl,--no-as-needed', '-lm'),
         ('app', '-Wl,--as-needed', '-Wl,-rpath-link={d}', 'm.o', '-L{d}', '-la', '-lx')]),
    'archive without exports': Case(
        {'a.o': (ARCHIVED, PIC), 'x.o': (USES_ARCHIVE, PIC), 'm.o': (CALLS_X, EXE)},
        [('libx.so', '-shared', '-Wl,--exclude-libs=ALL', 'x.o', 'liba.a'),
         ('app', 'm.o', '-L{d}', '-lx')]),
    'packed relocations': program(HELLO, EXE, '-pie', '-Wl,-z,pack-relative-relocs'),
    'flags': library(VISIBLE, '-Wl,-z,nodelete,-z,initfirst,-z,nodlopen,-z,origin',
                     '-Wl,-rpath,$ORIGIN/lib', '-Wl,--enable-new-dtags', '-Wl,-z,now'),
    'hash tables': library(VISIBLE, '-Wl,--hash-style=both', '-Wl,-z,defs'),
}

# -- what is compared --------------------------------------------------------------------------------

# Names that a linker makes, and leaves out or exports as it likes.
OWN_NAMES = {'_edata', '_end', '__bss_start', 'edata', 'end', '_init', '_fini', '_etext', 'etext',
             '_GLOBAL_OFFSET_TABLE_', '_DYNAMIC', '__dso_handle', '__data_start', 'data_start',
             '__TMC_END__', '__executable_start', '__ehdr_start',
             # aarch64; riscv64
             '__bss_start__', '_bss_end__', '__bss_end__', '__end__',
             '__BSS_END__', '__DATA_BEGIN__', '__SDATA_BEGIN__', '__global_pointer$'}


def permissions(elf, section):
    """'RX', 'RW', 'RW relro', ... of an address of a section in memory."""
    if 'T' in section.flags and section.type == 'NOBITS':
        return 'no memory'
    last = section.end - 1  # ld.bfd protects the first three words of .got.plt alone
    p = elf.load_of(last)
    r = elf.segment('GNU_RELRO')
    return p.flags + (' relro' if r and r.vaddr <= last < r.vaddr + r.memsz else '')


def relocations(elf):
    """Dynamic relocations that name a symbol.

    Where a function has a pointer in the GOT or in data anyway, calls may use that one: ld.bfd does so
    for x86-64 only. So its place in the PLT does not count.
    """
    pointers = {r.symbol for r in elf.dynrelocs if r.kind != 'JUMP_SLOT'}
    return {f'{r.kind} {r.symbol}{r.addend:+}' for r in elf.dynrelocs
            if r.symbol and (r.kind != 'JUMP_SLOT' or r.symbol not in pointers)}


def facts(elf):
    """What others see of an output, by name."""
    versions = {n for n, _, _ in elf.verdefs.values()}
    imports = Counter(s.name + (f'@{s.version}' if s.version else '') + (' weak' * (s.bind == 'WEAK'))
                      for s in elf.dynsyms if s.name and s.section == 'UNDEF')
    exported = [s for s in elf.dynsyms if s.name and s.section != 'UNDEF' and s.bind != 'LOCAL'
                and s.name not in OWN_NAMES]
    plain = [s for s in exported if s.section != 'ABS' or s.name != s.version]
    sections = {s.name: permissions(elf, s) for s in elf.sections
                if 'A' in s.flags and s.size > (24 if s.name == '.got.plt' else 0)}
    stack = elf.segment('GNU_STACK')
    return {
        'type': elf.type,
        'needed': elf.needed,
        'soname': elf.soname,
        'runpath': elf.dyn_strings('RUNPATH') + elf.dyn_strings('RPATH'),
        'interpreter': elf.interp,
        'exports': elf.versioned_exports() - OWN_NAMES,
        'kinds of exports': {(s.name, s.type, s.bind, s.vis, s.size) for s in plain},
        'imports': dict(imports),
        'versions': {(n, *p) for n, p, base in elf.verdefs.values() if not base},
        'needed versions': {(f, n) for f, n, _ in elf.verneeds.values()},
        'flags': elf.dyn_flags(),
        'relocations': relocations(elf),
        'permissions': sections,
        'kinds of segments': {p.flags for p in elf.loads()},
        'stack': stack and stack.flags,
        # ld.bfd leaves hidden names global here.
        'symbols': {s.name for s in elf.symbols if s.bind != 'LOCAL' and s.section != 'UNDEF'
                    and s.vis in ('DEFAULT', 'PROTECTED')} - OWN_NAMES - versions,
    }


def compare(fact, ours, theirs):
    """A line on what differs, or None."""
    if fact == 'permissions':  # of sections that both have
        ours, theirs = ({n: p for n, p in a.items() if n in b}
                        for a, b in ((ours, theirs), (theirs, ours)))
    if ours == theirs:
        return None
    if isinstance(ours, dict):
        ours, theirs = set(ours.items()), set(theirs.items())
    if isinstance(ours, set):
        return f'{fact}: only here {sorted(ours - theirs)}, only there {sorted(theirs - ours)}'
    return f'{fact}: {ours} here, {theirs} there'


def leave_out(target, out, fact, ours, theirs):
    """Takes out of the facts what ld.bfd does for riscv64 alone: it exports from a program what that
    refers to through the GOT, imports weak names without relocations, flags text relocations that are
    not there, keeps the GOT and the slots of the PLT in one section, and shortens other calls."""
    if target.name != 'riscv64':
        return ours, theirs
    if fact == 'permissions':
        return ({n: p for n, p in f.items() if n != '.got'} for f in (ours, theirs))
    if fact == 'flags':
        return ([f for f in flags if f not in ('TEXTREL', 'STATIC_TLS')] for flags in (ours, theirs))
    if fact == 'imports':
        return ({n: k for n, k in f.items() if not n.startswith('_ITM_')} for f in (ours, theirs))
    if fact == 'kinds of exports':
        ours, theirs = ({(n, kind, *_[:2], kind == 'FUNC' or _[2]) for n, kind, *_ in f}
                        for f in (ours, theirs))
    if out == 'app' and fact in ('exports', 'kinds of exports'):
        return ours, theirs & ours
    return ours, theirs


def link_all(t, case, linker):
    """Links the outputs in a folder of the linker's name; returns their names."""
    (t.path / linker).mkdir()
    outputs = []
    for out, *args in case.links:
        args = [f'{linker}/{out}', *[a.replace('{d}', linker) for a in args]]
        if linker == 'kld':
            t.link(*args)
        else:  # for some CPUs it is not the default of ld.bfd
            t.link_with(linker, args[0], '-Wl,-z,separate-code', *args[1:])
        outputs.append(out)
    return outputs


# What asks a compiler for TLS descriptors; where nothing does, or they are what it does anyway,
# the case is that of another model.
DESCRIPTORS = {'x86_64': '-mtls-dialect=gnu2', 'aarch64': '-mtls-dialect=desc', 'riscv64': '-fPIC'}


@pytest.mark.parametrize('name', CASES)
def test_agrees(t, name):
    case = CASES[name]
    for file, text in (case.files or {}).items():
        t.write(file, text)
    for obj, (source, *flags) in case.objects.items():
        if flags == ['asm']:
            t.asm(obj, source)
        else:
            flags = [f.replace('{descriptors}', DESCRIPTORS[t.target.name]) for f in flags]
            t.cc(obj, source, '-O1', *flags, lang=case.lang)
    if 'a.o' in case.objects:
        t.ar('liba.a', 'a.o')
    linkers = [n for n in ('bfd', 'lld') if t.target.other_linker(n)]
    if 'bfd' not in linkers:
        pytest.skip(f'no ld.bfd for {t.target.name} is installed')
    seen = {}
    for linker in ['kld', *linkers]:
        outputs = link_all(t, case, linker)
        for out in outputs:
            seen[linker, out] = facts(t.elf(f'{linker}/{out}'))
        if outputs[-1] == 'app':
            environment = {'LD_LIBRARY_PATH': str(t.path / linker), 'HOME': '/'}
            seen[linker, 'app']['output'] = t.run(f'{linker}/app', env=environment).stdout
    deviations = DEVIATIONS if t.target.native else {**DEVIATIONS, **FOR_OTHERS}
    wrong = []
    for out in outputs:
        for fact, ours in seen['kld', out].items():
            theirs = seen['bfd', out][fact]
            ours, theirs = leave_out(t.target, out, fact, ours, theirs)
            line = compare(fact, ours, theirs)
            if deviations.get((name, out, fact)):
                if not line and t.target.name != 'riscv64':
                    wrong.append(f'{out}: {fact}: agrees now, no deviation')
            elif line:
                lld = seen.get(('lld', out))
                also = ' (as lld)' if lld and not compare(fact, ours, lld[fact]) else ''
                wrong.append(f'{out}: {line}{also}')
    assert not wrong, '\n'.join(wrong)
