"""Symbol versions, and which symbols a module exports or keeps to itself."""

import re

import pytest

from kldtest import KINDS
from kldtest import deviates

FUNCTIONS = r'''
    int f(void) { return 1; }
    int g(void) { return 2; }
    int helper_one(void) { return 3; }
    int helper_two(void) { return 4; }
    int data_item = 5;
'''
ALL = {'f', 'g', 'helper_one', 'helper_two', 'data_item'}


MAIN_TOO = deviates(strict=False, bfd='exports what the GOT of a riscv64 program has')


def shared(t, name, source, *args, lang='c'):
    t.link(name, '-shared', t.cc(f'{name}.o', source, '-fPIC', lang=lang), *args,
           via='c++' if lang == 'c++' else 'cc')
    return t.elf(name)


def versioned(t, script, source=FUNCTIONS, *args, lang='c', name='libx.so'):
    """A shared object with a version script, reduced to what it exports."""
    t.write('x.map', script)
    return shared(t, name, source, '-Wl,--version-script=x.map', *args, lang=lang) \
        .versioned_exports()


# -- version scripts ----------------------------------------------------------------------------

def test_anonymous_script_limits_the_exports(t, compiler):
    assert versioned(t, '{ global: f; data_item; local: *; };') == {'f', 'data_item'}
    assert t.elf('libx.so').dyn('VERDEF') is None


def test_named_versions(t, compiler):
    exports = versioned(t, 'V1 { global: f; local: *; }; V2 { global: g; data_item; } V1;')
    assert exports == {'f@@V1', 'g@@V2', 'data_item@@V2'}


def test_program_remembers_the_versions(t, compiler):
    versioned(t, 'V1 { global: f; local: *; }; V2 { global: g; } V1;')
    m = t.cc('m.o', 'int f(void), g(void); int main(void) { return f() + g(); }')
    t.link('app', m, 'libx.so')
    elf = t.elf('app')
    assert (elf.dynsym('f').version, elf.dynsym('g').version) == ('V1', 'V2')
    assert {(file, name) for file, name, _ in elf.verneeds.values() if file == 'libx.so'} \
        == {('libx.so', 'V1'), ('libx.so', 'V2')}
    t.run('app', status=3)


def test_missing_version_is_noticed_by_the_dynamic_linker(t):
    versioned(t, 'V2 { global: f; local: *; };')
    t.link('app', t.cc('m.o', 'int f(void); int main(void) { return f(); }'), 'libx.so')
    versioned(t, 'V1 { global: f; local: *; };')
    assert "version `V2' not found" in t.run('app', status=1).stderr


@deviates(lld='takes one parent only')
def test_version_definitions_and_their_parents(t):
    versioned(t, 'V1 { global: f; local: *; }; V2 { g; } V1; V3 { data_item; } V1 V2;', FUNCTIONS,
              '-Wl,-soname,libx.so.9')
    defs = {name: (sorted(parents), base)
            for name, parents, base in t.elf('libx.so').verdefs.values()}
    assert defs == {'libx.so.9': ([], True), 'V1': ([], False), 'V2': (['V1'], False),
                    'V3': (['V1', 'V2'], False)}


def test_base_version_is_the_file_name_without_soname(t):
    versioned(t, 'V1 { f; };')
    assert [name for name, _, base in t.elf('libx.so').verdefs.values() if base] == ['libx.so']


@pytest.mark.parametrize('pattern, matches', [
    ('helper_*', {'helper_one', 'helper_two'}),
    ('*_one', {'helper_one'}),
    ('?', {'f', 'g'}),
    ('[a-f]', {'f'}),
    ('[!a-f]', {'g'}),
    ('[^a-f]', {'g'}),
    ('helper_[ot]*', {'helper_one', 'helper_two'}),
    ('*e*o*', {'helper_one', 'helper_two'}),
    ('data_item', {'data_item'}),
])
def test_globs(t, pattern, matches):
    assert versioned(t, f'{{ global: {pattern}; local: *; }};') == matches


def test_exact_name_beats_glob(t):
    """Whatever the order, and also when the glob names a version."""
    exports = versioned(t, 'V1 { global: helper_*; local: *; }; V2 { global: helper_two; } V1;')
    assert exports == {'helper_one@@V1', 'helper_two@@V2'}


def test_exact_local_beats_global_glob(t):
    assert versioned(t, '{ global: *; local: helper_one; };') == ALL - {'helper_one'}


def test_specific_glob_beats_the_star(t):
    """A lone star is the weakest pattern, wherever it stands."""
    exports = versioned(t, 'V1 { global: *; }; V2 { global: helper_*; } V1;')
    assert {'helper_one@@V2', 'helper_two@@V2', 'f@@V1'} <= exports


@deviates(lld='takes them as globs')
def test_quoted_names_are_no_globs(t):
    t.asm('odd.o', '.globl star\nstar = 5\n.globl axb\naxb = 6\n')
    t.objcopy('--redefine-sym', 'star=a*b', 'odd.o')
    assert versioned(t, '{ global: "a*b"; local: *; };', FUNCTIONS, 'odd.o') == {'a*b'}


def test_comments_and_line_breaks(t):
    script = '''/* first */
        V1 { # a comment to the end of the line
          global:
            f; /* in between
                  on two lines */ g;
          local: *;
        };
    '''
    assert versioned(t, script) == {'f@@V1', 'g@@V1'}


CXX = r'''
    namespace space {
        int open(int n) { return n; }
        int open(const char *) { return 2; }
        int closed() { return 3; }
        struct Type { void method(); virtual ~Type(); };
        void Type::method() {}
        Type::~Type() {}
    }
    extern "C" int plain() { return 4; }
'''


def test_cxx_patterns(t, compiler):
    exports = versioned(t, '''V1 {
        global:
            extern "C++" { space::open*; "space::Type::method()"; vtable?for?space::Type; };
            plain;
        local: *;
    };''', CXX, lang='c++')
    assert exports == {'_ZN5space4openEi@@V1', '_ZN5space4openEPKc@@V1',
                       '_ZN5space4Type6methodEv@@V1', '_ZTVN5space4TypeE@@V1', 'plain@@V1'}


def test_cxx_exact_name(t):
    exports = versioned(t, '''{ global: extern "C++" { "space::open(int)"; };
                               extern "C" { plain; }; local: *; };''', CXX, lang='c++')
    assert exports == {'_ZN5space4openEi', 'plain'}


def test_cxx_patterns_can_hide(t):
    exports = versioned(t, '''{ global: *;
        local: extern "C++" { space::Type::*; *for?space::Type; }; };''', CXX, lang='c++')
    assert exports == {'_ZN5space4openEi', '_ZN5space4openEPKc', '_ZN5space6closedEv', 'plain'}


def test_undefined_symbol_in_a_script_is_no_error(t):
    assert versioned(t, '{ global: f; nowhere; local: *; };') == {'f'}


def test_undefined_version_option(t):
    t.write('x.map', 'V1 { global: f; nowhere; local: *; };')
    x = t.cc('x.o', FUNCTIONS, '-fPIC')
    t.link('libx.so', '-shared', '-Wl,--version-script=x.map', '-Wl,--no-undefined-version', x,
           ok=False).says('nowhere')
    t.link('libx.so', '-shared', '-Wl,--version-script=x.map', '-Wl,--undefined-version', x)


def test_syntax_error_in_a_script(t):
    t.write('x.map', 'V1 { global: f;\n local: * \n')
    x = t.cc('x.o', FUNCTIONS, '-fPIC')
    t.link('libx.so', '-shared', '-Wl,--version-script=x.map', x, ok=False).says('x.map')


@deviates(lld='does not look')
def test_unknown_parent_version(t):
    t.write('x.map', 'V2 { global: f; } V1;\n')
    x = t.cc('x.o', FUNCTIONS, '-fPIC')
    t.link('libx.so', '-shared', '-Wl,--version-script=x.map', x, ok=False).says('V1')


def test_missing_script(t):
    x = t.cc('x.o', FUNCTIONS, '-fPIC')
    t.link('libx.so', '-shared', '-Wl,--version-script=no.map', x, ok=False).says('no.map')


def test_hidden_symbols_stay_hidden(t, compiler):
    """A script cannot export what the object hides."""
    exports = versioned(t, '{ global: *; };', r'''
        __attribute__((visibility("hidden"))) int secret(void) { return 1; }
        int open(void) { return secret(); }''')
    assert exports == {'open'}


def test_local_symbols_are_bound_at_link_time(t):
    """What the script makes local needs no symbol lookup, PLT or GOT relocation."""
    versioned(t, '{ global: use; local: *; };',
              FUNCTIONS + 'int use(void) { return f() + data_item; } int *p = &data_item;')
    elf = t.elf('libx.so')
    assert [elf.dynrelocs_of(n) for n in ('f', 'data_item')] == [[], []]
    t.link('app', t.cc('m.o', 'int use(void); int main(void) { return use(); }'), 'libx.so')
    t.run('app', status=6)


@pytest.mark.parametrize('name', ['pie', 'no-pie'])
def test_script_for_a_program(t, name):
    """Names that a library needs are exported from the program with their version."""
    kind = KINDS[name]
    t.write('app.map', 'APP { global: callback; local: *; };')
    shared(t, 'libx.so', 'int callback(void); int f(void) { return callback(); }')
    m = t.cc('m.o', 'int f(void); int callback(void) { return 9; } int main(void) { return f(); }',
             *kind.cflags)
    t.link('app', *kind.ldflags, m, 'libx.so', '-Wl,--version-script=app.map')
    assert t.elf('app').dynsym('callback').version == 'APP'
    t.run('app', status=9)


# -- .symver ------------------------------------------------------------------------------------

SYMVER = r'''
    int f_old(void) { return 1; }
    int f_mid(void) { return 2; }
    int f_new(void) { return 3; }
    __asm__(".symver f_old, f@V1");
    __asm__(".symver f_mid, f@V2");
    __asm__(".symver f_new, f@@V3");
'''
SYMVER_MAP = 'V1 { local: f_*; }; V2 { } V1; V3 { } V2;'


def test_several_versions_of_one_symbol(t, compiler):
    exports = versioned(t, SYMVER_MAP, SYMVER)
    assert {e for e in exports if e.startswith('f@')} == {'f@V1', 'f@V2', 'f@@V3'}
    m = t.cc('m.o', r'''
        int f(void), f1(void), f2(void);
        __asm__(".symver f1, f@V1");
        __asm__(".symver f2, f@V2");
        int main(void) { return f() * 100 + f2() * 10 + f1(); }''')
    t.link('app', m, 'libx.so')
    assert {s.version for s in t.elf('app').dynsyms if s.name == 'f'} == {'V1', 'V2', 'V3'}
    t.run('app', status=(300 + 20 + 1) % 256)


def test_symver_attribute(t):
    exports = versioned(t, 'V1 { global: f; local: *; }; V2 { } V1;', r'''
        __attribute__((symver("f@V1"))) int f_old(void) { return 1; }
        __attribute__((symver("f@@V2"))) int f_new(void) { return 2; }''')
    assert exports == {'f@V1', 'f@@V2'}


def test_only_a_default_version_satisfies_plain_references(t):
    versioned(t, 'V1 { global: f; local: *; };', r'''
        int f_old(void) { return 1; }
        __asm__(".symver f_old, f@V1");''')
    m = t.cc('m.o', 'int f(void); int main(void) { return f(); }')
    t.link('app', m, 'libx.so', ok=False).says('f')


def test_default_version_satisfies_references_in_the_same_output(t, compiler):
    """f@@V1 is also the f that other objects of the library call."""
    t.write('x.map', 'V1 { global: f; use; local: *; };')
    a = t.cc('a.o', 'int impl(void) { return 6; } __asm__(".symver impl, f@@V1");', '-fPIC')
    b = t.cc('b.o', 'int f(void); int use(void) { return f(); }', '-fPIC')
    t.link('libx.so', '-shared', '-Wl,--version-script=x.map', '-Wl,-z,defs', b, a)
    t.link('app', t.cc('m.o', 'int use(void); int main(void) { return use(); }'), 'libx.so')
    t.run('app', status=6)


def test_symver_to_an_unknown_version_is_an_error(t):
    t.write('x.map', 'V1 { global: f; local: *; };')
    x = t.cc('x.o', 'int impl(void) { return 6; } __asm__(".symver impl, f@V9");', '-fPIC')
    t.link('libx.so', '-shared', '-Wl,--version-script=x.map', x, ok=False).says('V9')


def test_versioned_reference_needs_that_version(t):
    versioned(t, 'V1 { global: f; local: *; };')
    m = t.cc('m.o', 'int f9(void); __asm__(".symver f9, f@V9"); int main(void) { return f9(); }')
    t.link('app', m, 'libx.so', ok=False).says('f@V9')


# Of the first glibc for that CPU.
OLDEST = {'x86_64': 'GLIBC_2.2.5', 'aarch64': 'GLIBC_2.17', 'riscv64': 'GLIBC_2.27'}


def test_reference_with_the_version_of_libc(t):
    version = OLDEST[t.target.name]
    m = t.cc('m.o', r'''
        #include <string.h>
        void *old_memcpy(void *, const void *, size_t);
        __asm__(".symver old_memcpy, memcpy@VERSION");
        int main(void) { int a = 7, b; old_memcpy(&b, &a, sizeof b); return b; }'''
             .replace('VERSION', version))
    t.link('app', m)
    assert t.elf('app').dynsym('memcpy').version == version
    t.run('app', status=7)


def test_weak_versions(t):
    """A version that only weak references need is marked weak."""
    versioned(t, 'V1 { global: f; local: *; }; V2 { global: g; } V1;')
    m = t.cc('m.o', r'''
        int f(void);
        __attribute__((weak)) int g(void);
        int main(void) { return f() + (g ? g() : 0); }''', '-fPIC')
    t.link('app', m, 'libx.so')
    flags = {name: weak for file, name, weak in t.elf('app').verneeds.values() if file == 'libx.so'}
    assert flags.keys() == {'V1', 'V2'} and flags['V1'] is False
    t.run('app', status=3)


def test_version_numbers_are_consistent(t):
    """Indices of needed and defined versions share one space and do not collide."""
    versioned(t, 'A1 { global: f; local: *; };', FUNCTIONS, name='liba.so')
    t.write('y.map', 'B1 { global: h; local: *; }; B2 { global: k; } B1;')
    y = t.cc('y.o', r'''
        #include <stdio.h>
        int f(void); int h(void) { puts(""); return f(); } int k(void) { return 0; }''', '-fPIC')
    t.link('liby.so', '-shared', '-Wl,--version-script=y.map', y, 'liba.so')
    elf = t.elf('liby.so')
    assert not elf.verdefs.keys() & elf.verneeds.keys()
    assert {name for _, name, _ in elf.verneeds.values()} >= {'A1', OLDEST[t.target.name]}
    assert elf.dynsym('f').version == 'A1' and elf.dynsym('k').version == 'B2'


@deviates(lld='not known to lld 14')
def test_default_symver(t):
    """All exports get the soname as their version."""
    elf = shared(t, 'libx.so', FUNCTIONS, '-Wl,--default-symver', '-Wl,-soname,libx.so.3')
    assert elf.versioned_exports() >= {f'{n}@@libx.so.3' for n in ALL}
    m = t.cc('m.o', 'int f(void); int main(void) { return f(); }')
    t.link('app', m, 'libx.so')
    assert t.elf('app').dynsym('f').version == 'libx.so.3'


def versions_defined(elf):
    return {(s.name, s.version, s.type, s.bind, s.value) for s in elf.dynsyms
            if s.section == 'ABS' and s.name == s.version}


@deviates(lld='has none', mold='has none')
@pytest.mark.parametrize('args', [('-shared',), ('-pie',)])
def test_a_symbol_for_each_version(t, args):
    """Also for one that nothing else has: Debian's lists of symbols name them."""
    t.write('x.map', 'V1 { global: f; local: *; }; V2 { } V1; V3 { global: g; } V2;')
    t.link('x', *args, t.cc('x.o', FUNCTIONS + 'int main(void) { return 0; }', '-fPIC'),
           '-Wl,--version-script=x.map')
    elf = t.elf('x')
    assert versions_defined(elf) == {(v, v, 'OBJECT', 'GLOBAL', 0) for v in ('V1', 'V2', 'V3')}
    assert {s.name for s in elf.symbols if s.section == 'ABS'} >= {'V1', 'V2', 'V3'}


@deviates(lld='has none', mold='has none')
def test_symbols_of_versions_are_found_at_run_time(t):
    versioned(t, 'V1 { global: f; local: *; }; V2 { } V1;')
    t.link('app', '-pie', t.cc('m.o', r'''
        #define _GNU_SOURCE
        #include <dlfcn.h>
        int main(void) {
            void *lib = dlopen("./libx.so", RTLD_NOW);
            dlerror();
            dlvsym(lib, "V2", "V2");
            return !lib || dlerror() != 0 || dlsym(lib, "V9") != 0;
        }''', '-fPIE'), '-ldl')
    t.run('app')


@deviates(lld='has none', mold='has none', bfd='takes it for a second definition')
def test_definition_with_the_name_of_a_version(t):
    versioned(t, 'V1 { global: *; }; V2 { };', 'int V1 = 5; int f(void) { return V1; }')
    elf = t.elf('libx.so')
    assert elf.dynsym('V1').section != 'ABS' and elf.dynsym('V1').size == 4
    assert elf.dynsym('V2').section == 'ABS'


@deviates(lld='leaves it undefined', mold='leaves it undefined')
def test_reference_to_the_name_of_a_version(t):
    versioned(t, 'V1 { global: *; };', 'extern char V1[]; void *f(void) { return V1; }')
    assert t.elf('libx.so').dynsym('V1').section == 'ABS'


@deviates(lld='marks none', mold='marks none', gold='marks none')
def test_a_version_without_symbols_is_weak(t):
    versioned(t, 'V1 { global: f; local: *; }; V2 { } V1; V3 { global: nothing; } V2;')
    flags = t.tool('readelf', '-VW', 'libx.so').stdout
    assert re.search(r'Flags: WEAK +Index: 3 +Cnt: 2 +Name: V2', flags)
    assert flags.count('WEAK') == 1


@deviates(lld='marks none', mold='marks none')
def test_what_a_library_has_is_in_no_version_of_the_program(t):
    """Not even a variable that is copied, whose version has the same number."""
    versioned(t, 'V1 { global: data_item; local: *; };')
    m = t.cc('m.o', 'extern int data_item; int main(void) { return data_item; }', '-fno-pie')
    t.link('app', '-no-pie', m, 'libx.so', '-Wl,--version-script=' + t.write('a.map', 'W1 { };'))
    t.run('app', status=5)
    assert re.search(r'Flags: WEAK +Index: 2 +Cnt: 1 +Name: W1', t.tool('readelf', '-VW', 'app').stdout)


# -- what a program exports ---------------------------------------------------------------------

PROGRAM = r'''
    int hook_one(void) { return 1; }
    int hook_two(void) { return 2; }
    int other(void) { return 3; }
    int main(void) { return 0; }
'''


def program_exports(t, *args):
    t.link('app', t.cc('m.o', PROGRAM), *args)
    t.run('app')
    return t.elf('app').exports() & {'hook_one', 'hook_two', 'other', 'main'}


@MAIN_TOO
def test_program_exports_nothing_by_itself(t, compiler):
    assert program_exports(t) == set()


@pytest.mark.parametrize('option', ['-Wl,-E', '-Wl,--export-dynamic', '-rdynamic'])
def test_export_dynamic(t, compiler, option):
    assert program_exports(t, option) == {'hook_one', 'hook_two', 'other', 'main'}


@MAIN_TOO
def test_no_export_dynamic_wins_when_last(t):
    assert program_exports(t, '-Wl,-E', '-Wl,--no-export-dynamic') == set()


@MAIN_TOO
def test_program_exports_what_libraries_refer_to(t):
    shared(t, 'libx.so', 'int hook_one(void); int use(void) { return hook_one(); }')
    assert program_exports(t, '-Wl,--no-as-needed', 'libx.so') == {'hook_one'}


@MAIN_TOO
def test_program_exports_what_libraries_define_too(t):
    """The program's definition interposes the library's."""
    shared(t, 'libx.so', 'int other(void) { return 1; }')
    assert program_exports(t, '-Wl,--no-as-needed', 'libx.so') == {'other'}


@MAIN_TOO
def test_export_dynamic_symbol(t):
    assert program_exports(t, '-Wl,--export-dynamic-symbol=hook_two') == {'hook_two'}
    assert program_exports(t, '-Wl,--export-dynamic-symbol=hook_*') == {'hook_one', 'hook_two'}


@MAIN_TOO
def test_export_dynamic_symbol_list(t):
    t.write('list', '{ hook_one; oth*; };')
    assert program_exports(t, '-Wl,--export-dynamic-symbol-list=list') == {'hook_one', 'other'}


def test_exported_symbols_survive_gc(t):
    m = t.cc('m.o', PROGRAM, '-ffunction-sections')
    t.link('app', '-Wl,--gc-sections', '-Wl,--export-dynamic-symbol=hook_two', m)
    assert t.elf('app').symbol('hook_two') and not t.elf('app').symbol('hook_one')


@MAIN_TOO
def test_dynamic_list_of_a_program(t):
    t.write('list', '{ hook_one; hook_t*; };')
    assert program_exports(t, '-Wl,--dynamic-list=list') == {'hook_one', 'hook_two'}


def test_cxx_names_in_a_dynamic_list(t):
    t.write('list', '{ extern "C++" { space::open*; }; plain; };')
    m = t.cxx('m.o', CXX + 'int main() { return 0; }')
    t.link('app', m, '-Wl,--dynamic-list=list', via='c++')
    assert {e for e in t.elf('app').exports() if 'space' in e or e == 'plain'} \
        == {'_ZN5space4openEi', '_ZN5space4openEPKc', 'plain'}


@deviates(strict=False, lld='not known to it')
@pytest.mark.parametrize('option, names', [
    ('--dynamic-list-cpp-new', {'_Znwm', '_ZdlPv'}),
    ('--dynamic-list-cpp-typeinfo', {'_ZTI1T', '_ZTS1T'}),
])
def test_dynamic_lists_of_cxx(t, option, names):
    m = t.cc('m.o', r'''
        #include <cstdlib>
        struct T { virtual ~T() { } };
        void *operator new(size_t n) { return malloc(n); }
        void operator delete(void *p) noexcept { free(p); }
        int main() { T *t = new T; delete t; return 0; }''', lang='c++')
    t.link('app', m, via='c++')
    assert not t.elf('app').exports() & {'_ZTI1T', '_ZTS1T'}
    t.link('app', m, f'-Wl,{option}', via='c++')
    t.run('app')
    assert t.elf('app').exports() >= names


def test_dynamic_list_of_a_shared_object(t):
    """All is exported, but only what is listed can be interposed."""
    t.write('list', '{ f; };')
    elf = shared(t, 'libx.so', FUNCTIONS + 'int use(void) { return f() * 10 + g(); }',
                 '-Wl,--dynamic-list=list')
    assert elf.exports() >= ALL
    m = t.cc('m.o', r'''
        int use(void);
        int f(void) { return 7; }
        int g(void) { return 8; }
        int main(void) { return use(); }''')
    t.link('app', m, 'libx.so')
    t.run('app', status=72)


# -- binding within a shared object -------------------------------------------------------------

INTERPOSED = r'''
    int f(void) { return 1; }
    int value = 10;
    int use(void) { return f() + value; }
'''
INTERPOSER = r'''
    int use(void);
    int f(void) { return 2; }
    int value = 20;
    int main(void) { return use(); }
'''


@pytest.mark.parametrize('option, status', [
    ('-Bno-symbolic', 22),
    ('-Bsymbolic', 11),
    ('-Bsymbolic-functions', 21),
])
def test_symbolic_binding(t, compiler, option, status):
    elf = shared(t, 'libx.so', INTERPOSED, f'-Wl,{option}')
    assert ('SYMBOLIC' in elf.dyn_flags() or elf.dyn('SYMBOLIC') is not None) \
        == (option == '-Bsymbolic')
    t.link('app', t.cc('m.o', INTERPOSER), 'libx.so')
    t.run('app', status=status)


@deviates(bfd='2.40 does not know it')
def test_symbolic_binding_of_non_weak_functions(t):
    shared(t, 'libx.so', INTERPOSED + '''
        __attribute__((weak)) int w(void) { return 100; }
        int use_w(void) { return w() + f(); }''', '-Wl,-Bsymbolic-non-weak-functions')
    m = t.cc('m.o', r'''
        int use_w(void);
        int f(void) { return 2; }
        int w(void) { return 50; }
        int main(void) { return use_w(); }''')
    t.link('app', m, 'libx.so')
    t.run('app', status=51)


def test_symbolic_in_a_program_changes_nothing(t):
    m = t.cc('m.o', 'int f(void) { return 4; } int main(void) { return f(); }')
    t.link('app', '-Wl,-Bsymbolic', m)
    t.run('app', status=4)


def test_symbolic_functions_with_versions(t, compiler):
    t.write('x.map', 'V1 { global: use; f; value; local: *; };')
    shared(t, 'libx.so', INTERPOSED, '-Wl,-Bsymbolic-functions', '-Wl,--version-script=x.map')
    assert t.elf('libx.so').dynrelocs_of('f') == []
    t.link('app', t.cc('m.o', INTERPOSER), 'libx.so')
    t.run('app', status=21)


def test_function_addresses_under_symbolic_functions(t):
    """Bound inside: the library then has its own idea of the address, as documented."""
    shared(t, 'libx.so', 'int f(void) { return 1; } void *get(void) { return (void *)f; }',
           '-Wl,-Bsymbolic-functions')
    assert t.elf('libx.so').dynrelocs_of('f') == []
