"""What has broken incremental links elsewhere, a number each; 6 and 8 concern other formats.

1-5 and 17-25 are here, what concerns files and their state (7, 9-16, 26-28) is in
test_inc_files.py and test_inc_kills.py.
"""

import random
import shutil

import pytest

import inc
from inc import SPLIT
from inc import Core
from inc import Link
from inc import Sources
from inc import incremental_only
from kldtest import only
from test_debuggers import CRITICS
from test_debuggers import frames
from test_debuggers import gdb
from test_debuggers import lldb
from test_debuggers import lldb_frames
from test_debuggers import new_complaints

GROWN = inc.growth('    n += n == 12345;', 60)
LAYOUTS = pytest.mark.parametrize('split', [SPLIT, ()], ids=['split', 'unit'])


def grow(sources, file, *names):
    """Marks /* NAME */ are where functions grow; a comment stays, so that they can again."""
    pairs = []
    for name in names:
        pairs += [f'/* {name} */', f'/* {name} */\n{GROWN}']
    return sources.edit(file, *pairs)


# -- 1: everything that holds the address of a function -------------------------------------------

MOVED = r'''
    #include <stdio.h>
    int plain(int n)
    {
        /* plain */
        return n + 1;
    }
    extern int other_name(int n) __attribute__((alias("plain")));
    static int local(int n)
    {
        /* local */
        return n + 2;
    }
    int switching(int n)
    {
        /* switching */
        switch (n) {
        case 0: return 11;
        case 1: return local(4);
        case 2: return 31;
        case 3: return plain(5);
        case 4: return 17;
        case 5: return 3;
        default: return 99;
        }
    }
    int labels(int n)
    {
        static const void *const to[] = {&&one, &&two, &&three};
        /* labels */
        goto *to[n % 3];
    one: return 1;
    two: return 2;
    three: return 3;
    }
    int started;
    __attribute__((constructor)) static void start(void)
    {
        int n = 0;
        /* start */
        started += 5 + n;
    }
    __attribute__((destructor)) static void stop(void)
    {
        int n = 6;
        /* stop */
        printf("stopped %d\n", n);
    }
    int is_plain(int (*f)(int))
    {
        return f == plain;
    }
    int (*const table[])(int) = {plain, local, switching, labels};
    int (*writable[])(int) = {plain, local, switching, labels};
'''
MOVED_IFUNC = r'''
    static int chosen_one(int n)
    {
        /* chosen_one */
        return n * 3;
    }
    static void *resolver(void)
    {
        int n = 0;
        /* resolver */
        return n ? (void *)0 : (void *)chosen_one;
    }
    int chosen(int n) __attribute__((ifunc("resolver")));
'''
MOVED_USER = r'''
    #include <dlfcn.h>
    #include <stdio.h>
    int plain(int), other_name(int), switching(int), labels(int), chosen(int);
    int is_plain(int (*)(int));
    extern int (*const table[])(int);
    extern int (*writable[])(int);
    extern int started;
    int report(void)
    {
        int (*volatile f)(int) = plain;
        int (*volatile c)(int) = chosen;
        printf("%d %d %d %d\n", plain(1), other_name(2), chosen(3), c(4));
        for (int i = 0; i < 4; i++)
            printf("%d %d ", table[i](i), writable[i](2 * i));
        for (int i = 0; i < 7; i++)
            printf("%d %d ", switching(i), labels(i));
        printf("\nstarted %d, same %d %d %d %d\n", started, f == table[0], f == writable[0],
               f == other_name, is_plain(f));
    #ifdef DYNAMIC
        printf("dlsym %d %d\n", dlsym(RTLD_DEFAULT, "plain") == (void *)f,
               ((int (*)(int))dlsym(RTLD_DEFAULT, "switching"))(3));
    #endif
        fflush(stdout);
        return 0;
    }
'''
MOVED_SAYS = '''2 3 9 12
1 1 3 4 31 17 1 1 11 1 6 2 31 3 6 1 17 2 3 3 99 1 
started 5, same 1 1 1 1
'''


@LAYOUTS
@pytest.mark.parametrize('kind', ['pie', 'no-pie', 'static', 'shared'])
def test_h01_whatever_refers_to_a_moved_function(t, kind, split):
    """Calls, GOT, PLT, tables, jump tables, init and fini arrays, IFUNCs, aliases, dlsym."""
    flags = ['-fno-pie'] if kind in ('no-pie', 'static') else ['-fPIC']
    if kind != 'static':
        flags.append('-DDYNAMIC')
    if t.target.name == 'x86_64':
        flags.append('-Wa,-mrelax-relocations=no')  # loads from the GOT stay what they are
    s = Sources(t, *flags, *split, moved_c=MOVED, user_c=MOVED_USER, ifunc_c=MOVED_IFUNC,
                main_c='int report(void);\nint main(void) { return report(); }')
    if kind == 'shared':
        link = Link(t, 'libmoved.so', '-shared', 'moved.o', 'user.o', 'ifunc.o')
        link.full()
        t.link('app', 'main.o', 'libmoved.so')
    else:
        form = ['-static', '-no-pie'] if kind == 'static' else [f'-{kind}', '-rdynamic']
        link = Link(t, 'app', *form, 'main.o', 'moved.o', 'user.o', 'ifunc.o')
        link.full()
    expect = MOVED_SAYS + ('' if kind == 'static' else 'dlsym 1 6\n') + 'stopped 6\n'
    t.run('app', expect=expect)
    for names in (['plain'], ['local'], ['switching'], ['labels'], ['start'], ['stop'],
                  ['plain', 'local', 'labels'], ['plain']):
        grow(s, 'moved.c', *names)
        link.patched()
        t.run('app', expect=expect)
    for name in 'chosen_one', 'resolver', 'chosen_one':
        grow(s, 'ifunc.c', name)
        link.right()  # an IFUNC that has moved itself may be too much
        t.run('app', expect=expect)


def test_h01_function_compared_across_modules(t):
    """A function of the program whose address the library takes, and the other way round."""
    s = Sources(t, '-fPIC', lib_c='''
        int in_app(int);
        int in_lib(int n) { return n + 1; }
        int (*app_from_lib(void))(int) { return in_app; }
        int (*lib_from_lib(void))(int) { return in_lib; }
        ''')
    t.link('libx.so', '-shared', 'lib.o')
    s.flags = ('-fno-pie', *SPLIT)
    s.set('moved.c', 'int in_app(int n)\n{\n    /* in_app */\n    return n + 2;\n}')
    s.set('main.c', '''
        int in_app(int), in_lib(int), (*app_from_lib(void))(int), (*lib_from_lib(void))(int);
        int (*const pointers[])(int) = {in_app, in_lib};
        int main(void)
        {
            return (app_from_lib() == in_app) + (lib_from_lib() == in_lib) * 2 +
                (pointers[0] == app_from_lib()) * 4 + (pointers[1] == lib_from_lib()) * 8 +
                (app_from_lib()(3) == 5) * 16;
        }''')
    app = Link(t, 'app', '-no-pie', 'main.o', 'moved.o', 'libx.so')
    app.full()
    app.run(status=31)
    for _ in range(2):
        grow(s, 'moved.c', 'in_app')
        app.patched()
        app.run(status=31)


CXX = r'''
    #include <cstdio>
    #include <stdexcept>
    #include <unwind.h>
    struct Say { int number; ~Say() { printf("unwound %d\n", number); } };
    struct Base {
        virtual int value(int n) { return n; }
        virtual ~Base() {}
    };
    struct Moved : Base {
        int value(int n) override
        {
            /* value */
            return n + 40;
        }
    };
    static int start(int n)
    {
        /* start */
        return n + 3;
    }
    int initialised = start(4);
    int frames_seen, own_frames;
    static void *itself; // thrower as unwinding knows it: a pointer to it may be to a jump to it
    static _Unwind_Reason_Code frame(_Unwind_Context *context, void *)
    {
        int here = 0;
        void *pc = reinterpret_cast<void *>(_Unwind_GetIPInfo(context, &here) - 1);
        frames_seen++;
        own_frames += _Unwind_FindEnclosingFunction(pc) == itself;
        return _URC_NO_REASON;
    }
    void thrower(int n)
    {
        Say say = {n};
    inside:
        itself = _Unwind_FindEnclosingFunction(&&inside);
        /* thrower */
        if (n > 0)
            thrower(n - 1);
        else
            _Unwind_Backtrace(frame, nullptr);
        if (n == 0)
            throw std::runtime_error("caught");
    }
    int catcher(int n)
    {
        /* catcher */
        try {
            thrower(n);
        } catch (const std::runtime_error &e) {
            puts(e.what());
            return 1;
        }
        return 0;
    }
    Base *make(int n)
    {
        return n ? new Moved : new Base;
    }
'''
CXX_MAIN = r'''
    #include <cstdio>
    struct Base { virtual int value(int n); virtual ~Base(); };
    Base *make(int);
    int catcher(int);
    extern int initialised, frames_seen, own_frames;
    int main()
    {
        int caught = catcher(2);
        Base *one = make(0), *two = make(1);
        printf("%d %d %d %d, %d %d\n", caught, initialised, one->value(1), two->value(2),
               frames_seen > 4, own_frames);
        delete one;
        delete two;
    }
'''
CXX_SAYS = 'unwound 0\nunwound 1\nunwound 2\ncaught\n1 7 1 42, 1 3\n'


@LAYOUTS
@pytest.mark.parametrize('kind', ['pie', 'no-pie', 'static'])
def test_h01_h02_virtual_functions_and_exceptions(t, kind, split):
    """Vtables, thrown through, caught in, and unwound through moved functions."""
    flags = ['-fPIE' if kind == 'pie' else '-fno-pie']
    s = Sources(t, *flags, *split, moved_cc=CXX, main_cc=CXX_MAIN)
    app = Link(t, 'app', f'-{kind}', *(['-no-pie'] if kind == 'static' else []),
               '-Wl,--eh-frame-hdr', 'main.o', 'moved.o', via='c++')
    app.full()
    app.run(expect=CXX_SAYS)
    for names in (['thrower'], ['catcher'], ['value'], ['start'], ['thrower', 'catcher'],
                  ['thrower', 'value', 'start']):
        grow(s, 'moved.cc', *names)
        app.patched()
        app.run(expect=CXX_SAYS)
        inc.check_unwind(app.elf(), '_Z7throweri', '_Z7catcheri', 'main')


@LAYOUTS
def test_h02_new_and_removed_unwind_records(t, split):
    """Functions with and without landing pads come and go."""
    s = Sources(t, *split, main_cc=r'''
        struct Guard { int *at; ~Guard() { ++*at; } };
        static int depth;
        __attribute__((used)) static void keep() { Guard g = {&depth}; } // (its destructor is no news)
        static void deep(int n) { if (n) deep(n - 1); else throw 7; }
        /* HERE */
        int main()
        {
            try { deep(3); /* CALL */ } catch (int n) { return n + depth; }
        }''')
    app = Link(t, 'app', 'main.o', via='c++')
    app.full()
    app.run(status=7)
    text = t.read('main.cc')
    for count in 1, 5, 2, 0, 3:
        functions, call = '', 'deep(3)'
        for n in range(count):
            functions += f'static void f{n}() {{ Guard g = {{&depth}}; {call}; }}\n'
            call = f'f{n}()'
        s.set('main.cc', text.replace('/* HERE */', functions).replace('deep(3); /* CALL */', call + ';'))
        app.patched()
        app.run(status=7 + count)
        inc.check_unwind(app.elf(), 'main', '_ZL4deepi', *[f'_ZL2f{n}v' for n in range(count)])


# -- 3: debug information -------------------------------------------------------------------------

DEBUGGED = r'''
    extern "C" int printf(const char *, ...);
    struct Error { const char *what; };
    int helper(int n);
    struct Guard {
        int number;
        ~Guard()
        {
            printf("guard %d\n", number); /* IN THE GUARD */
        }
    };
    template <class T> static T thrower(T n)
    {
        Guard guard = {n};
        /* thrower */
        if (n == 0)
            throw Error{"thrown"}; /* THE THROW */
        return thrower(n - 1) + guard.number;
    }
    static int handler(int n)
    {
        /* handler */
        try {
            return thrower(n);
        } catch (const Error &e) {
            printf("%s\n", e.what); /* THE HANDLER */
        }
        return helper(n);
    }
    int main(int argc, char **)
    {
        return handler(argc) - 10;
    }
'''
DEBUGGED_HELPER = r'''
    static int table[] = {7, 8, 9};
    static int deeper(int n)
    {
        int deep_local = n + table[n % 3];
        /* deeper */
        return deep_local; /* IN THE HELPER */
    }
    int helper(int n)
    {
        return deeper(n) + 1;
    }
'''


def edited_at_random(app, sources, texts, steps, seed):
    """Lines, names, literals and sizes of functions change; each link is a patch."""
    rng = random.Random(seed)
    for step in range(steps):
        file, mark = rng.choice([('main.cc', 'thrower'), ('main.cc', 'handler'),
                                 ('helper.cc', 'deeper')])
        added = '\n' * rng.randrange(4) + rng.choice([
            f'static volatile int seen_{step}; seen_{step}++;',
            f'const char *text = "text {step}"; (void)text;',
            inc.growth('n += n == 12345;', rng.randrange(1, 40)),
            '{ struct { int a, b; } local = {n, n}; n = local.a; }'])
        sources.set(file, texts[file].replace(f'/* {mark} */', f'/* {mark} */ {added}'))
        app.right()
        app.run()


@only('x86_64')
@LAYOUTS
def test_h02_unwind_record_of_nothing_here(t, split):
    """One that is about an absolute address has no row: those of the file are not found by its code."""
    s = Sources(t, *split, main_cc=r'''
        asm(".section .eh_frame,\"a\",@unwind\n"
            "1: .long 3f - 2f\n 2: .long 0\n .byte 1\n .asciz \"zR\"\n .uleb128 1\n .sleb128 -8\n"
            " .byte 16\n .uleb128 1\n .byte 0x1b, 0x0c, 7, 8\n .balign 4\n"
            "3: .long 5f - 4f\n 4: .long 4b - 1b, 4096, 16\n .uleb128 0\n .balign 4\n"
            "5: .previous\n");
        void thrower(int n)
        {
            /* thrower */
            throw n;
        }
        int catcher(int n)
        {
            /* catcher */
            try { thrower(n); } catch (int caught) { return caught; }
            return 0;
        }
        int main() { return catcher(7); }''')
    app = Link(t, 'app', 'main.o', via='c++')
    app.full()
    app.run(status=7)
    for names in ['thrower'], ['catcher'], ['thrower', 'catcher']:
        grow(s, 'main.cc', *names)
        app.patched()
        app.run(status=7)
        inc.check_unwind(app.elf(), '_Z7throweri', '_Z7catcheri', 'main')


def check_stops(said, lines, stops):
    """At the breakpoints of `lines`: in the guard, in the handler, in the helper."""
    in_guard, in_handler, in_helper = stops
    assert in_guard[0] == ('Guard::~Guard', lines[0]), said
    assert [f.split('<')[0] for f, _ in in_guard[1:] if f.startswith(('thrower', 'handler', 'main'))] \
        == ['thrower'] * 2 + ['handler', 'main'], said
    names = [[f for f, _ in stop] for stop in stops]
    assert in_handler[0] == ('handler', lines[1]) and names[1] == ['handler', 'main'], said
    assert in_helper[0][1] == lines[2] and names[2] == ['deeper', 'helper', 'handler', 'main'], said


@only('x86_64')
@LAYOUTS
@pytest.mark.parametrize('compiler', ['gcc', 'clang'])
def test_h03_debugger_and_critics_after_100_edits(t, compiler, split):
    t.compiler = compiler
    texts = {'main.cc': DEBUGGED, 'helper.cc': DEBUGGED_HELPER}
    s = Sources(t, '-fPIE', *split, main_cc=DEBUGGED, helper_cc=DEBUGGED_HELPER)
    app = Link(t, 'app', '-pie', 'main.o', 'helper.o', via='c++')
    app.full()
    edited_at_random(app, s, texts, 100 if compiler == 'gcc' else 30, seed=len(split))
    app.verify()

    main, helper, elf = t.read('main.cc'), t.read('helper.cc'), app.elf()
    for name, file in (('main', 'main.cc'), ('_ZL7handleri', 'main.cc'), ('_Z6helperi', 'helper.cc'),
                       ('_ZL6deeperi', 'helper.cc')):
        said = inc.addr2line(t, 'app', elf.symbol(name).value)
        assert said.startswith(f'{file}:') and not said.endswith(':0'), (name, said)
    lines = [f'main.cc:{inc.line_of(main, "IN THE GUARD")}',
             f'main.cc:{inc.line_of(main, "THE HANDLER")}',
             f'helper.cc:{inc.line_of(helper, "IN THE HELPER")}']
    stops = ['run', 'bt', 'delete 1', 'continue', 'bt', 'continue', 'bt']
    said = gdb(t, 'app', *[f'break {line}' for line in lines], *stops, 'print deep_local',
               'print table', 'finish', 'continue')
    check_stops(said, lines, frames(said))
    assert '$1 = 9' in said and '$2 = {7, 8, 9}' in said and 'exited normally' in said
    said = lldb(t, 'app', *[f'breakpoint set -l {line.split(":")[1]} -f {line.split(":")[0]}'
                            for line in lines],
                *[c.replace('delete', 'breakpoint delete') for c in stops], 'print deep_local',
                'print table', 'finish', 'continue')
    if said is not None:
        check_stops(said, lines, lldb_frames(said))
        assert '$0 = 9' in said and '[0] = 7, [1] = 8, [2] = 9' in said, said
        assert 'exited with status = 0' in said, said

    # They find nothing that they do not find in a plain link's output.
    app.plain('out.bfd')
    shutil.copy(app.path, t.path / 'out.kld')
    found = [f'{command[0]}: {n} x {text}' for command, pattern in CRITICS.values()
             for text, n in new_complaints(t, 'out', *command, pattern=pattern).items()
             # eu-elflint does not expect R_*_NONE, which the psABIs have for relocations that are not.
             if 'relocation type invalid for the file type' not in text]
    sections = 'info,abbrev,decodedline,aranges,Ranges,str,line-str,loc,frames-interp'
    found += new_complaints(t, 'out', 'readelf', f'--debug-dump={sections}',
                            pattern='readelf: |[Ww]arning|[Bb]ogus|<corrupt')
    assert not found, '\n'.join(found)


# -- 4: size --------------------------------------------------------------------------------------

@only('x86_64')
@incremental_only
@LAYOUTS
def test_h04_size_after_1000_edits(t, split):
    """A few objects take turns, and with each of them names, literals and sizes."""
    s = Sources(t, '-ffreestanding', *split)
    start = s.set('start.c', r'''
        int part(int n);
        void _start(void)
        {
            long status = part(3);
            __asm__ volatile("syscall" : : "a"(60L), "D"(status));
            for (;;) {}
        }''')
    variants = []
    for n in range(12):
        s.set('part.c', f'''
            struct type_{n} {{ int member_{n}, other; }};
            static int local_{n}(int n) {{ struct type_{n} s = {{n, {n}}}; return s.other; }}
            static const char *volatile text = "literal number {n} {'x' * (17 * n % 40)}";
            int part(int n)
            {{
                {inc.growth('n += n == 12345;', 53 * n % 90)}
                return local_{n}(n) + (text[0] - 'l');
            }}''')
        variants.append((t.path / 'part.o').read_bytes())
    app = Link(t, 'app', start, 'part.o', via=None)
    app.full()
    sizes, outcomes = [], []
    for n in range(1000):
        t.write('part.o', variants[n * 7 % 12])
        outcomes.append(app().outcome)
        if n % 100 == 99:
            app.verify()
            sizes.append((app.path.stat().st_size, app.state.stat().st_size))
    assert outcomes.count('PATCHED') >= 900
    assert all(now <= 1.1 * then + 4096 for size in sizes for now, then in zip(size, sizes[0])), sizes
    app.run(status=999 * 7 % 12)


@only('x86_64')
def test_h04_addresses_of_the_largest_unit(t):
    """clang's .debug_addr leaves no room between units: one with an address more moves as a whole."""
    def unit(count):
        return ''.join(f'static int f{n}(int n) {{ return n + {n}; }}\n' for n in range(count)) + \
            'int main() { int n = 0;\n' + \
            ''.join(f'n = f{n}(n);\n' for n in range(count)) + 'return n & 127; }\n'

    def build(name, text):
        t.write(f'{name}.c', text)
        t.tool('clang', '-c', '-g', '-gdwarf-5', '-ffunction-sections', f'{name}.c', '-o', f'{name}.o')

    build('main', unit(900))
    build('other', 'int other(int n) { return n; }\n')
    app = Link(t, 'app', 'main.o', 'other.o')
    app.full()
    for count in 902, 903, 904:
        build('main', unit(count))
        app.patched()
        app.run(status=sum(range(count)) & 127)


# -- 5: the build id ------------------------------------------------------------------------------

@pytest.mark.parametrize('style', ['sha1', 'md5', 'uuid'])
def test_h05_build_id(t, style):
    s = Sources(t, *SPLIT, main_c='int value = 1;\nint main(void) { return value - 1; }')
    app = Link(t, 'app', f'-Wl,--build-id={style}', 'main.o')
    app.full()
    seen = [app.elf().note('GNU', 3)]
    for n in range(2, 8):
        s.edit('main.c', f'value - {n - 1};', f'value - {n};', f'value = {n - 1};', f'value = {n};')
        app.patched()
        app.run()
        seen.append(app.elf().note('GNU', 3))
        app.patched().nothing()
        assert inc.PLAIN or app.elf().note('GNU', 3) == seen[-1]
    assert len(set(seen)) == 7 and len({len(i) for i in seen}) == 1


# -- 17: versioned aliases ------------------------------------------------------------------------

def test_h17_versioned_alias(t):
    t.write('versions', 'V1 { f; };\nV2 { f; local: *; } V1;\n')
    s = Sources(t, '-fPIC', lib_c='''
        __asm__(".symver one, f@V1");
        __asm__(".symver two, f@@V2");
        int one(void) { return 1; }
        int two(void) { return 2; }''')
    lib = Link(t, 'libx.so', '-shared', '-Wl,--version-script=versions', 'lib.o')
    lib.full()
    s.edit('lib.c', 'return 2', 'return 3')
    lib.patched()
    s.edit('lib.c', 'one, f@V1', 'one, f@@V2', 'two, f@@V2', 'two, f@V1')
    lib.right()
    t.link('app', t.cc('main.o', 'int f(void);\nint main(void) { return f(); }'), 'libx.so')
    t.run('app', status=1)


# -- 18: merged strings ---------------------------------------------------------------------------

STRINGS = r'''
    #include <stdio.h>
    extern const char *const strings[];
    const char *other(int n);
    int main(void)
    {
        printf("%s %s %s %s|", "shared text", "a longer shared text", "only mine", other(0));
        printf("%s %s %s %d %d\n", strings[0], strings[1], other(1), strings[1] == strings[2],
               other(2) == strings[2]);
        return 0;
    }
'''
STRINGS_OTHER = r'''
    const char *const strings[] = {"shared text", "pooled", "pooled"};
    const char *other(int n)
    {
        static const char own[] = "pooled array";
        return n == 0 ? "text" : n == 1 ? "EDITED" : n == 2 ? strings[1] : own;
    }
'''


@pytest.mark.parametrize('level', ['-O0', '-O2'])
def test_h18_literals(t, level):
    """One is edited; all users of the pool, and of its tails, see what they should."""
    s = Sources(t, level, *SPLIT, main_c=STRINGS, other_c=STRINGS_OTHER)
    app = Link(t, 'app', 'main.o', 'other.o')
    app.full()
    say = 'shared text a longer shared text only mine text|shared text pooled {} 1 1\n'.format
    app.run(expect=say('EDITED'))
    for literal in ('edited', 'a', '', 'somewhat longer than it was', 'a longer shared text', 'text',
                    'shared text', 'pooled', 'only mine', 'X' * 500, 'EDITED'):
        s.set('other.c', STRINGS_OTHER.replace('EDITED', literal))
        # An optimised program may get a kind of debug section that it had not.
        app.patched() if level == '-O0' else app.right()
        app.run(expect=say(literal))
    s.set('main.c', STRINGS.replace('only mine', 'only its'))
    app.patched()
    app.run(expect=say('EDITED').replace('mine', 'its'))


def test_h18_numbers(t):
    """Merged constants of four, eight and sixteen bytes."""
    source = r'''
        #include <stdio.h>
        float f(float n) { return n * 1.5f + 2.25f; }
        double g(double n) { return n * 1.5 + 2.25; }
        '''
    s = Sources(t, '-O2', *SPLIT, one_c=source, two_c=source.replace('f(', 'f2(').replace('g(', 'g2('),
                main_c=r'''
        #include <stdio.h>
        float f(float), f2(float);
        double g(double), g2(double);
        int main(void) { printf("%.3f %.3f %.3f %.3f\n", f(2), g(2), f2(2), g2(2)); return 0; }''')
    app = Link(t, 'app', 'main.o', 'one.o', 'two.o')
    app.full()
    app.run(expect='5.250 5.250 5.250 5.250\n')
    s.edit('two.c', '1.5f + 2.25f', '3.5f + 0.125f', '1.5 + 2.25', '2.25 + 1.75')
    app.patched()
    app.run(expect='5.250 5.250 7.125 6.250\n')


# -- 19: arrays that code walks -------------------------------------------------------------------

WALKED = r'''
    #include <stdio.h>
    extern const int __start_numbers[], __stop_numbers[];
    int main(void)
    {
        int sum = 0;
        for (const int *n = __start_numbers; n < __stop_numbers; n++)
            sum += *n;
        printf("%d %d\n", (int)(__stop_numbers - __start_numbers), sum);
        return 0;
    }
'''


def test_h19_arrays_have_no_holes(t):
    item = '__attribute__((used, section("numbers"))) static const int a{} = {};\n'.format
    s = Sources(t, *SPLIT, main_c=WALKED, one_c=item(1, 1) + item(2, 2), two_c=item(3, 3))
    app = Link(t, 'app', 'main.o', 'one.o', 'two.o')
    app.full()
    app.run(expect='3 6\n')
    s.edit('one.c', '= 2', '= 20')
    app.patched()
    app.run(expect='3 24\n')
    s.set('one.c', item(1, 1) + item(2, 2) + item(4, 4))
    app.falls_back('section')
    app.run(expect='4 10\n')
    s.set('one.c', item(1, 1))
    app.falls_back('section')
    app.run(expect='2 4\n')


def test_h19_init_array(t):
    function = '__attribute__((constructor{})) static void f{}(void) {{ say({}); }}\n'.format
    s = Sources(t, *SPLIT, say_c=r'''
        #include <stdio.h>
        void say(int n) { printf("%d ", n); }
        int main(void) { return 0; }''', one_c='void say(int);\n' + function('', 1, 1),
                two_c='void say(int);\n' + function('(200)', 2, 2) + function('', 3, 3))
    app = Link(t, 'app', 'say.o', 'one.o', 'two.o')
    app.full()
    app.run(expect='2 1 3 ')
    s.edit('two.c', 'say(3)', 'say(4)', 'say(2)', inc.growth('say(0);', 30))
    app.patched()
    app.run(expect='0 ' * 30 + '1 4 ')
    s.edit('one.c', 'say(1)', 'say(5)', '__attribute__', function('', 6, 6) + '__attribute__')
    app.falls_back('section')
    app.run()
    assert sorted(app.run().stdout.split()[30:]) == ['4', '5', '6']


# -- 20: sizes that others see --------------------------------------------------------------------

def test_h20_exported_data(t):
    """Its size is part of the interface: programs copy it."""
    s = Sources(t, '-fPIC', *SPLIT, lib_c='int data[4] = {1, 2, 3, 4};\nint *in_lib(void) { return data; }')
    lib = Link(t, 'libx.so', '-shared', 'lib.o')
    lib.full()
    s.flags = ('-fno-pie', *SPLIT)
    s.set('main.c', 'extern int data[];\nint *in_lib(void);\n'
                    'int main(void) { return data[3] + (data == in_lib()) * 10; }')
    app = Link(t, 'app', '-no-pie', 'main.o', 'libx.so')
    app.full()
    app.run(status=14)
    s.flags = ('-fPIC', *SPLIT)
    s.edit('lib.c', '3, 4}', '3, 5}')
    lib.patched()
    app.patched().nothing()
    app.run(status=15)
    s.edit('lib.c', '[4] = {1, 2, 3, 5}', '[6] = {1, 2, 3, 6, 7, 8}')
    lib.falls_back('symbol-changed')
    app.falls_back('shared-library')
    app.run(status=16)


def test_h20_size_of_a_function_does_not_matter(t):
    """Exported functions may have another size: nobody copies them."""
    s = Sources(t, '-fPIC', *SPLIT, lib_c='int f(int n)\n{\n    /* f */\n    return n + 4;\n}')
    lib = Link(t, 'libx.so', '-shared', 'lib.o')
    lib.full()
    app = Link(t, 'app', t.cc('main.o', 'int f(int);\nint main(void) { return f(1); }'), 'libx.so')
    app.full()
    grow(s, 'lib.c', 'f')
    lib.patched()
    app.patched().nothing()
    app.run(status=5)
    symbol = lib.elf().dynsym('f')
    assert symbol.value == lib.elf().symbol('f').value and symbol.size == lib.elf().symbol('f').size


# -- 21: shared libraries that are patched themselves ---------------------------------------------

def test_h21_dependents_of_a_patched_library(t):
    s = Sources(t, '-fPIC', *SPLIT, lib_c='int f(void) { return 4; }\nint spare(void) { return 0; }')
    lib = Link(t, 'libx.so', '-shared', 'lib.o')
    lib.full()
    app = Link(t, 'app', t.cc('main.o', 'int f(void);\nint main(void) { return f(); }'), 'libx.so')
    app.full()
    for n in range(5, 9):
        s.edit('lib.c', f'return {n - 1}', f'return {n}')
        lib.patched()
        app.patched().nothing()
        app.run(status=n)
    s.edit('lib.c', 'int spare(void) { return 0; }', '')
    lib.falls_back('removed-global')
    app.falls_back('shared-library')
    app.run(status=8)


# -- 22: collected sections -----------------------------------------------------------------------

def test_h22_dead_and_live(t):
    """What an edit no longer uses may stay; what it needs again has to come back."""
    s = Sources(t, *SPLIT, main_c='''
        int f(int), g(int);
        int main(void) { return f(1); }''', other_c='''
        static int table[3] = {1, 2, 3};
        int f(int n) { return n + 10; }
        int g(int n) { return n + table[1] + 20; }''')
    app = Link(t, 'app', '-Wl,--gc-sections', 'main.o', 'other.o')
    app.full()
    app.run(status=11)
    assert not app.elf().symbol('g')
    s.edit('main.c', 'f(1)', 'g(1)')
    app.right()
    app.run(status=23)
    s.edit('other.c', '20', '30')
    app.right()
    app.run(status=33)
    s.edit('main.c', 'g(1)', 'f(1)')
    app.right()
    app.run(status=11)
    s.edit('other.c', '{1, 2, 3}', '{1, 4, 3}', '+ 10', '+ 11')
    app.right()
    s.edit('main.c', 'f(1)', 'f(1) + g(1)')
    app.right()
    app.run(status=47)


# -- 23: moved again and again --------------------------------------------------------------------

@LAYOUTS
def test_h23_all_functions_of_a_unit_move_again_and_again(t, split):
    """They call each other and are called from elsewhere; nothing is left to go through an island
    that leads to another one."""
    names = 'abcdef'
    text = ''.join(f'''
        int {n}(int);
        int {n}(int n) {{ /* {n} */
            return n <= 0 ? {i} : {names[(i + 1) % 6]}(n - 1) + 1; }}
        ''' for i, n in enumerate(names))
    text = ''.join(f'int {n}(int);\n' for n in names) + text
    s = Sources(t, *split, unit_c=text, main_c=''.join(f'int {n}(int);\n' for n in names) + '''
        #include <stdio.h>
        int main(void) { printf("%d %d %d %d %d %d\\n", a(7), b(6), c(5), d(4), e(3), f(2)); return 0; }
        ''')
    app = Link(t, 'app', 'main.o', 'unit.o')
    app.full()
    expect = app.run().stdout
    first = {n: app.elf().symbol(n).value for n in names}
    for step in range(6):
        for n in names[step % 2::2]:
            text = text.replace(f'/* {n} */', f'/* {n} */\n' + inc.growth('n += n == 12345;', 9))
        s.set('unit.c', text)
        report = app.right()
        app.run(expect=expect)
        if inc.PLAIN or report.outcome != 'PATCHED' or not split:
            first = {n: app.elf().symbol(n).value for n in names}
            continue
        elf = app.elf()
        for n in names:
            now = elf.symbol(n).value
            assert now == first[n] or inc.island_target(elf, first[n]) == now, n


# -- 24: relro ------------------------------------------------------------------------------------

@pytest.mark.parametrize('flags', ['-Wl,-z,relro,-z,now', '-Wl,-z,relro,-z,lazy', '-Wl,-z,norelro',
                                   '-Wl,-z,noseparate-code'])
def test_h24_relocated_constants(t, flags):
    s = Sources(t, '-fPIE', *SPLIT, main_c=r'''
        #include <stdio.h>
        #include <string.h>
        static int one(void) { return 1; }
        static int two(void) { return 2; }
        static int (*const table[])(void) = {one, two /* MORE */};
        static const char *const names[] = {"one", "two"};
        int data[] = {4, 5};
        int *const where[] = {data, data + 1};
        int main(void)
        {
            int sum = *where[0] + *where[1] + (int)strlen(names[1]);
            for (unsigned n = 0; n < sizeof table / sizeof *table; n++)
                sum += table[n]();
            return sum;
        }''')
    app = Link(t, 'app', '-pie', flags, 'main.o')
    app.full()
    app.run(status=15)
    s.edit('main.c', '{one, two', '{two, one', '"two"', '"twelve"')
    app.patched()
    app.run(status=18)
    s.edit('main.c', '/* MORE */', ', two /* MORE */')  # in its slack, with a relocation more
    app.right()
    app.run(status=20)
    relro = app.elf().segment('GNU_RELRO')
    assert relro is None or 'norelro' in flags or relro.memsz


# -- 25: what verification finds ------------------------------------------------------------------

@incremental_only
@pytest.mark.parametrize('section', ['.text', '.data', '.rodata', '.eh_frame', '.symtab', '.dynamic',
                                     '.debug_info', '.debug_line', '.dynsym', '.got',
                                     '.note.gnu.build-id', '.shstrtab'])
def test_h25_verification_finds_a_changed_byte(t, section):
    core = Core(t).full()
    core.edit('table.c', '10)', '20)')
    core.a.patched()
    s = core.a.elf().section(section)
    with open(core.a.path, 'r+b') as file:
        file.seek(s.offset + s.size // 2)
        byte = file.read(1)[0]
        file.seek(s.offset + s.size // 2)
        file.write(bytes([byte ^ 0x10]))
    core.a.verify(ok=False)


@incremental_only
def test_h25_verification_finds_an_edit_that_was_not_linked(t):
    core = Core(t).full()
    core.edit('table.c', '10)', '20)')
    core.a.verify(ok=False)
    core.a.patched()


@incremental_only
def test_h25_verification_without_a_state(t):
    core = Core(t).full()
    core.a.state.unlink()
    core.a.verify(ok=False)
    assert not core.a.state.exists()


def test_h25_a_patched_program_does_what_a_plain_one_does(t):
    core = Core(t, *SPLIT).full()
    core.edit('table.c', '10)', '20)', '    return sum;', GROWN.replace('n ', 'sum ') + '\n    return sum;')
    core.a.patched()
    core.a.plain()
    t.run('plain', status=56)
    core.a.run(status=56)
    assert core.a.elf().exports() == t.elf('plain').exports()
    assert core.a.elf().needed == t.elf('plain').needed
