"""C++ programs: exceptions, templates and inline functions across files, RTTI, the library."""

import pytest

from kldtest import KINDS

# One program whose two files share a header: a template, an inline function with a static, a class
# with a virtual table, exceptions that cross from one file to the other, and a string stream.
HEADER = r'''
    #include <iostream>
    #include <sstream>
    #include <stdexcept>
    #include <string>
    #include <vector>
    struct Shape {
        virtual ~Shape() = default;
        virtual std::string name() const { return "shape"; }
        virtual double area() const = 0;
    };
    struct Error : std::runtime_error {
        int code;
        Error(const std::string &text, int code) : std::runtime_error(text), code(code) {}
    };
    inline int &instance_counter() { static int counter; return counter; }
    template <class T> struct Registry {
        static std::vector<T> items;
        static void add(T item) { items.push_back(item); instance_counter()++; }
    };
    template <class T> std::vector<T> Registry<T>::items;
    Shape *make_square(double side);
    void throw_at_depth(int depth);
    void *counter_address();
'''
MAIN = HEADER + r'''
    struct Circle : Shape {
        std::string name() const override { return "circle"; }
        double area() const override { return 3; }
    };
    struct Guard { const char *what; ~Guard() { std::cout << what << ' '; } };
    int main()
    {
        Registry<Shape *>::add(new Circle);
        Registry<Shape *>::add(make_square(2));
        for (Shape *s : Registry<Shape *>::items)
            std::cout << s->name() << s->area() << ' ';
        try {
            Guard guard = { "unwound" };
            throw_at_depth(5);
        } catch (const Error &e) {
            std::cout << e.what() << e.code << ' ';
        }
        try {
            throw_at_depth(-1);
        } catch (int n) {
            std::cout << n << ' ';
        } catch (...) {
            std::cout << "wrong handler ";
        }
        std::ostringstream out;
        out << (dynamic_cast<Circle *>(Registry<Shape *>::items[1]) == nullptr)
            << (counter_address() == &instance_counter()) << instance_counter();
        std::cout << out.str() << std::endl;
        return 3;
    }
'''
OTHER = HEADER + r'''
    struct Square : Shape {
        double side;
        explicit Square(double side) : side(side) {}
        std::string name() const override { return "square"; }
        double area() const override { return side * side; }
    };
    Shape *make_square(double side)
    {
        Registry<Shape *>::add(new Square(side));
        return new Square(side + 1);
    }
    void throw_at_depth(int depth)
    {
        std::string local = "deep";
        if (depth < 0)
            throw -depth * 42;
        if (depth == 0)
            throw Error(local + "error", 17);
        throw_at_depth(depth - 1);
        instance_counter()--;
    }
    void *counter_address() { return &instance_counter(); }
'''
EXPECT = 'circle3 square4 square9 unwound deeperror17 42 113\n'


@pytest.mark.parametrize('debug', ['-g0', '-g'])
def test_executable_of_two_files(t, compiler, kind, opt, debug):
    a, b = (t.cxx(n, source, opt, debug, *kind.cflags) for n, source in
            (('a.o', MAIN), ('b.o', OTHER)))
    t.link('app', *kind.ldflags, a, b, via='c++')
    t.run('app', expect=EXPECT, status=3)


def test_exceptions_and_types_across_a_shared_object(t, compiler, opt):
    t.link('libother.so', '-shared', t.cxx('b.o', OTHER, opt, '-fPIC'), via='c++')
    for name, kind in (('pie', KINDS['pie']), ('nopie', KINDS['no-pie'])):
        t.link(name, *kind.ldflags, t.cxx(f'{name}.o', MAIN, opt, *kind.cflags), 'libother.so',
               via='c++')
        t.run(name, expect=EXPECT, status=3)


def test_relocatable_output(t, compiler):
    a, b = t.cxx('a.o', MAIN, '-O2', '-g'), t.cxx('b.o', OTHER, '-O2', '-g')
    t.ld('ab.o', '-r', a, b)
    t.link('app', 'ab.o', via='c++')
    t.run('app', expect=EXPECT, status=3)


def test_static_libraries_of_the_compiler(t, compiler):
    """Shared libc, but libstdc++ and libgcc inside the program."""
    a, b = t.cxx('a.o', MAIN), t.cxx('b.o', OTHER)
    t.link('app', '-static-libstdc++', '-static-libgcc', a, b, via='c++')
    assert not [n for n in t.elf('app').needed if 'stdc++' in n or 'gcc' in n]
    t.run('app', expect=EXPECT, status=3)


def test_sections_collected_with_exceptions(t, compiler, kind, opt):
    """--gc-sections keeps the tables of what is kept, and unwinding still works."""
    flags = (opt, '-ffunction-sections', '-fdata-sections', *kind.cflags)
    unused = '''void never_called()
        { try { throw_at_depth(3); } catch (Error &) { instance_counter()++; } }'''
    a, b = t.cxx('a.o', MAIN, *flags), t.cxx('b.o', OTHER + unused, *flags)
    t.link('app', *kind.ldflags, '-Wl,--gc-sections', a, b, via='c++')
    assert not [s for s in t.elf('app').symbols if 'never_called' in s.name]
    t.run('app', expect=EXPECT, status=3)


def test_without_plt(t, compiler, kind):
    a, b = (t.cxx(n, source, '-O2', '-fno-plt', *kind.cflags) for n, source in
            (('a.o', MAIN), ('b.o', OTHER)))
    t.link('app', *kind.ldflags, a, b, via='c++')
    t.run('app', expect=EXPECT, status=3)


def test_objects_of_both_compilers(t):
    b = t.cxx('b.o', OTHER)
    t.compiler = 'clang'
    a = t.cxx('a.o', MAIN)
    t.link('app', a, b, via='c++')
    t.run('app', expect=EXPECT, status=3)


# -- one definition of each ---------------------------------------------------------------------

INLINE = r'''
    inline int &variable() { static int value = 5; return value; }
    template <class T> struct Box { static T content; };
    template <class T> T Box<T>::content = 7;
    inline int weak_function() { return 1; }
'''
INLINE_LIBRARY = INLINE + r'''
    int *NAME_variable() { return &variable(); }
    int *NAME_content() { return &Box<int>::content; }
    int (*NAME_function())() { return weak_function; }
'''
INLINE_MAIN = INLINE + r'''
    #include <cstdio>
    int *one_variable(), *one_content(), *two_variable(), *two_content();
    int (*one_function())(), (*two_function())();
    int main()
    {
        std::printf("%d%d%d%d%d%d\n", &variable() == one_variable(), &variable() == two_variable(),
                    &Box<int>::content == one_content(), &Box<int>::content == two_content(),
                    weak_function == one_function(), weak_function == two_function());
        return variable() + *one_content();
    }
'''


def library_source(name):
    return INLINE_LIBRARY.replace('NAME', name)


@pytest.mark.parametrize('name', ['pie', 'no-pie'])
def test_inline_things_are_unique_across_shared_objects(t, compiler, name):
    kind = KINDS[name]
    for lib in ('one', 'two'):
        t.link(f'lib{lib}.so', '-shared', t.cxx(f'{lib}.o', library_source(lib), '-fPIC'),
               via='c++')
    a = t.cxx('a.o', INLINE_MAIN, *kind.cflags)
    t.link('app', *kind.ldflags, a, 'libone.so', 'libtwo.so', via='c++')
    t.run('app', expect='111111\n', status=12)


def test_inline_things_are_unique_within_a_program(t, compiler, kind, opt):
    objects = [t.cxx(f'{lib}.o', library_source(lib), opt, *kind.cflags) for lib in ('one', 'two')]
    t.link('app', *kind.ldflags, t.cxx('a.o', INLINE_MAIN, opt, *kind.cflags), *objects, via='c++')
    t.run('app', expect='111111\n', status=12)


def test_unique_binding_is_kept(t):
    """gcc marks such variables STB_GNU_UNIQUE, so that even dlopen with RTLD_LOCAL shares them."""
    for lib in ('one', 'two'):
        t.link(f'lib{lib}.so', '-shared', t.cxx(f'{lib}.o', library_source(lib), '-fPIC'),
               via='c++')
    elf = t.elf('libone.so')
    assert elf.dynsym('_ZZ8variablevE5value').bind == 'UNIQUE'
    a = t.cxx('a.o', r'''
        #include <cstdio>
        #include <dlfcn.h>
        int main()
        {
            void *one = dlopen("./libone.so", RTLD_NOW | RTLD_LOCAL);
            void *two = dlopen("./libtwo.so", RTLD_NOW | RTLD_LOCAL);
            auto f = reinterpret_cast<int *(*)()>(dlsym(one, "_Z12one_variablev"));
            auto g = reinterpret_cast<int *(*)()>(dlsym(two, "_Z12two_variablev"));
            std::printf("%d\n", f() == g());
        }''')
    t.link('app', a, via='c++')
    t.run('app', expect='1\n')


def test_comdat_keeps_the_first_group(t):
    """Definitions of one inline function differ (against the rules): the first file's is used."""
    source = 'inline int f() { return VALUE; } int (*NAME())() { return f; }'
    for name in ('x', 'y'):
        t.cxx(f'{name}.o', source, f'-DVALUE={1 if name == "x" else 2}', f'-DNAME=get_{name}')
    t.cxx('m.o', r'''
        int (*get_x())(), (*get_y())();
        int main() { return get_x()() * 10 + get_y()(); }''')
    t.link('xy', 'm.o', 'x.o', 'y.o', via='c++')
    t.run('xy', status=11)
    t.link('yx', 'm.o', 'y.o', 'x.o', via='c++')
    t.run('yx', status=22)


def test_discarded_groups_leave_no_frames(t, compiler):
    """Each kept function has one frame description, the duplicates none."""
    objects = [t.cxx(f'o{i}.o', f'inline int f(int n) {{ return n ? f(n - 1) + 1 : 0; }}'
                     f'int g{i}(int n) {{ return f(n); }}') for i in range(10)]
    t.link('liba.so', '-shared', '-nostdlib', *objects, '-fPIC', via='c++')
    elf = t.elf('liba.so')
    header, text = elf.section('.eh_frame_hdr'), elf.section('.text')
    starts = [header.addr + int.from_bytes(header.data[i:i + 4], 'little', signed=True)
              for i in range(12, header.size, 8)]
    assert len([s for s in starts if text.addr <= s < text.end]) == 11


# -- the run-time library -----------------------------------------------------------------------

def test_rtti_across_shared_objects(t, compiler, opt):
    header = r'''
        #include <typeinfo>
        struct Base { virtual ~Base() {} };
        struct Left : virtual Base { virtual int left() { return 1; } };
        struct Right : virtual Base { virtual int right() { return 2; } };
        struct Both : Left, Right { int right() override { return 3; } };
        Base *make();
        const std::type_info &type();
    '''
    t.link('liba.so', '-shared', t.cxx('l.o', header + r'''
        Base *make() { return new Both; }
        const std::type_info &type() { return typeid(Both); }''', opt, '-fPIC'), via='c++')
    a = t.cxx('a.o', header + r'''
        #include <cstdio>
        int main()
        {
            Base *b = make();
            Left *l = dynamic_cast<Left *>(b);
            Right *r = dynamic_cast<Right *>(l);
            std::printf("%d%d %d%d%d\n", l->left(), r->right(), dynamic_cast<Both *>(r) == b,
                        typeid(*b) == type(), typeid(Both) == type());
        }''', opt)
    t.link('app', a, 'liba.so', via='c++')
    t.run('app', expect='13 111\n')


def test_exception_types_of_a_plugin(t, compiler):
    """Thrown in a library that was opened at run time, caught by the program by its type."""
    header = 'struct Failure { int code; virtual ~Failure() {} };'
    t.link('plugin.so', '-shared',
           t.cxx('p.o', header + 'extern "C" void fail(int n) { Failure f; f.code = n; throw f; }',
                 '-fPIC'), via='c++')
    a = t.cxx('a.o', header + r'''
        #include <dlfcn.h>
        int main()
        {
            void *plugin = dlopen("./plugin.so", RTLD_NOW);
            auto fail = reinterpret_cast<void (*)(int)>(dlsym(plugin, "fail"));
            try { fail(31); } catch (Failure &f) { return f.code; }
        }''')
    t.link('app', '-rdynamic', a, via='c++')
    t.run('app', status=31)


def test_exception_through_a_c_callback(t, compiler):
    """Unwinding passes through frames of another shared object without handlers."""
    t.link('libc1.so', '-shared', t.cc('c.o', 'void call(void (*f)(void)) { f(); }', '-fPIC',
                                       '-fexceptions'))
    a = t.cxx('a.o', r'''
        extern "C" void call(void (*f)());
        static void thrower() { throw 8; }
        int main() { try { call(thrower); } catch (int n) { return n; } return 1; }''')
    t.link('app', a, 'libc1.so', via='c++')
    t.run('app', status=8)


def test_uncaught_exception_terminates(t, compiler, kind):
    t.link('app', *kind.ldflags, t.cxx('a.o', 'int main() { throw 1; }', *kind.cflags), via='c++')
    assert 'terminate called' in t.run('app', status=-6).stderr


def test_thread_local_objects_are_constructed_and_destroyed(t, compiler, kind, opt):
    header = r'''
        #include <atomic>
        struct Counted { static std::atomic<int> made, gone; int n; Counted(); ~Counted(); };
        extern thread_local Counted object;
        inline thread_local Counted inline_object;
    '''
    a = t.cxx('a.o', header + r'''
        #include <cstdio>
        #include <thread>
        static int use() { return object.n + inline_object.n; }
        int main()
        {
            int total = 0;
            std::thread one([&] { total += use(); });
            one.join();
            std::thread two([&] { total += use(); });
            two.join();
            std::printf("%d %d %d\n", total, Counted::made.load(), Counted::gone.load());
        }''', opt, '-std=c++17', '-pthread', *kind.cflags)
    b = t.cxx('b.o', header + r'''
        std::atomic<int> Counted::made, Counted::gone;
        Counted::Counted() : n(5) { made++; }
        Counted::~Counted() { gone++; }
        thread_local Counted object;''', opt, '-std=c++17', '-pthread', *kind.cflags)
    t.link('app', *kind.ldflags, '-pthread', a, b, via='c++')
    t.run('app', expect='20 4 4\n')


def test_thread_local_object_of_a_shared_object(t, compiler):
    header = 'struct S { int n; S(); ~S(); }; extern thread_local S object;'
    t.link('liba.so', '-shared', t.cxx('l.o', header + r'''
        #include <cstdio>
        S::S() : n(6) { std::puts("made"); }
        S::~S() { std::puts("gone"); }
        thread_local S object;''', '-fPIC'), via='c++')
    t.link('app', t.cxx('a.o', header + 'int main() { return object.n; }'), 'liba.so', via='c++')
    t.run('app', expect='made\ngone\n', status=6)


def test_weak_thread_local_initialiser_is_absent(t, compiler, kind):
    """An extern thread_local may have an initialiser function or none: a weak reference decides."""
    a = t.cxx('a.o', 'extern thread_local int plain; int main() { return plain; }', *kind.cflags)
    b = t.cxx('b.o', 'thread_local int plain = 9;', *kind.cflags)
    t.link('app', *kind.ldflags, a, b, via='c++')
    t.run('app', status=9)


@pytest.mark.parametrize('name', ['static', 'static-pie', 'pie'])
def test_threads_mutexes_and_futures(t, compiler, name):
    kind = KINDS[name]
    a = t.cxx('a.o', r'''
        #include <condition_variable>
        #include <future>
        #include <iostream>
        #include <mutex>
        #include <numeric>
        #include <thread>
        #include <vector>
        int main()
        {
            std::mutex mutex;
            std::condition_variable ready;
            int arrived = 0;
            std::vector<std::thread> threads;
            for (int i = 0; i < 4; i++)
                threads.emplace_back([&] {
                    std::lock_guard<std::mutex> lock(mutex);
                    arrived++;
                    ready.notify_one();
                });
            {
                std::unique_lock<std::mutex> lock(mutex);
                ready.wait(lock, [&] { return arrived == 4; });
            }
            for (auto &thread : threads)
                thread.join();
            auto bad = std::async(std::launch::async, []() -> int { throw 5; });
            try { bad.get(); } catch (int n) { arrived += n; }
            std::cout << arrived << std::endl;
        }''', '-pthread', '-O1', *kind.cflags)
    t.link('app', *kind.ldflags, '-pthread', a, via='c++')
    t.run('app', expect='9\n')


@pytest.mark.parametrize('name', ['static', 'pie'])
def test_regex_locale_and_streams(t, compiler, name):
    """Templates by the hundred, and much of libstdc++."""
    kind = KINDS[name]
    a = t.cxx('a.o', r'''
        #include <algorithm>
        #include <iomanip>
        #include <iostream>
        #include <map>
        #include <regex>
        #include <sstream>
        int main()
        {
            std::regex pattern("([a-z]+)=([0-9]+)");
            std::string text = "one=1, two=22, three=333";
            std::map<std::string, int> values;
            for (std::sregex_iterator i(text.begin(), text.end(), pattern), end; i != end; ++i)
                values[(*i)[1]] = std::stoi((*i)[2]);
            for (auto &[name, value] : values)
                std::cout << name << std::setw(5) << std::hex << value << ' ';
            std::istringstream in("3.5 word");
            double d;
            std::string word;
            in >> d >> word;
            std::cout << d << word << std::endl;
            try { std::regex broken("("); } catch (const std::regex_error &e) { return 4; }
        }''', '-std=c++17', '-ffunction-sections', *kind.cflags)
    t.link('app', *kind.ldflags, '-Wl,--gc-sections', a, via='c++')
    t.run('app', expect='one    1 three  14d two   16 3.5word\n', status=4)


def test_initialisation_order_of_globals(t, compiler, kind):
    """In the order of the command line, streams first, destroyed in reverse."""
    source = r'''
        #include <iostream>
        namespace {
        struct Say { Say() { std::cout << "+NAME "; } ~Say() { std::cout << "-NAME "; } };
        }
        static Say NAME;
    '''
    a, b = (t.cxx(f'{n}.o', source.replace('NAME', n), *kind.cflags) for n in 'ab')
    m = t.cxx('m.o', '#include <iostream>\nint main() { std::cout << "main "; }', *kind.cflags)
    t.link('app', *kind.ldflags, b, m, a, via='c++')
    t.run('app', expect='+b +a main -a -b ')


def test_virtual_tables_across_shared_objects(t, compiler, opt):
    """The key function and so the table live in the library; the program derives from the class."""
    header = 'struct Base { virtual int f(); virtual ~Base(); int g() { return f() + 1; } };'
    t.link('liba.so', '-shared', t.cxx('l.o', header + r'''
        int Base::f() { return 10; }
        Base::~Base() {}''', opt, '-fPIC'), via='c++')
    for name in ('pie', 'no-pie'):
        kind = KINDS[name]
        a = t.cxx('a.o', header + r'''
            struct Derived : Base { int f() override { return Base::f() * 2; } };
            int main() { Base b; Derived d; Base *p = &d; return p->g() + b.g(); }
            ''', opt, *kind.cflags)
        t.link('app', *kind.ldflags, a, 'liba.so', via='c++')
        t.run('app', status=32)


def test_cold_and_hot_parts(t, compiler):
    """-O2 splits functions: the handler of an exception lies in .text.unlikely."""
    a = t.cxx('a.o', r'''
        #include <cstdio>
        __attribute__((cold, noinline)) static void complain(int n)
        {
            std::printf("bad %d\n", n);
            throw n;
        }
        __attribute__((noinline)) int work(int n) { if (n > 3) complain(n); return n; }
        int main(int argc, char **)
        {
            try { return work(argc + 3); } catch (int n) { return n * 2; }
        }
        ''', '-O2', '-freorder-functions' if t.compiler == 'gcc' else '-O2')
    t.link('app', a, via='c++')
    t.run('app', expect='bad 4\n', status=8)


def test_backtrace_through_frames(t, compiler, kind):
    """_Unwind_Backtrace walks from a nested call to main by .eh_frame_hdr."""
    a = t.cxx('a.o', r'''
        #include <cstdio>
        #include <unwind.h>
        static int frames;
        static _Unwind_Reason_Code count(struct _Unwind_Context *, void *)
        {
            frames++;
            return _URC_NO_REASON;
        }
        __attribute__((noinline)) int nest(int n)
        {
            volatile int result = n ? nest(n - 1) + 1 : (_Unwind_Backtrace(count, nullptr), 0);
            return result;
        }
        int main() { int n = nest(20); std::printf("%d %d\n", n, frames >= 22); }
        ''', '-O1', *kind.cflags)
    t.link('app', *kind.ldflags, a, via='c++')
    t.run('app', expect='20 1\n')


def test_undefined_symbol_is_named_as_in_the_source(t, compiler):
    a = t.cxx('a.o', r'''
        namespace space { template <class T> struct S { void f(T, const char *); }; }
        int main() { space::S<int> s; s.f(1, ""); }''')
    t.link('app', a, via='c++', ok=False).says('space::S<int>::f(int, char const*)')


def test_missing_virtual_table(t, compiler):
    a = t.cxx('a.o', r'''
        struct Base { virtual void f(); };
        int main() { Base b; (void)b; }''')
    t.link('app', a, via='c++', ok=False).says('vtable for Base')
