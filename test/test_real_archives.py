"""Programs out of archives that nobody here wrote: Python, SQLite, OpenSSL, glibc, libstdc++, musl.

Everything is linked as the packages' own users would do it, and does some work of its trade.
"""

import hashlib
import shutil
from pathlib import Path

import pytest

from kldtest import only

pytestmark = only('x86_64')

LIB = Path('/usr/lib/x86_64-linux-gnu')
PYTHON = Path('/usr/lib/python3.11')
STATIC_KINDS = {'static': ('-fno-pie', '-static', '-no-pie'),
                'static-pie': ('-fPIE', '-static-pie')}


def needs(package, *files):
    """Skips the test if one of the files is not there."""
    for file in files:
        if not Path(file).exists():
            pytest.skip(f'{file} is not here: install {package}')


@pytest.fixture(params=STATIC_KINDS)
def static(request):
    """The flags of a static executable: for compiling, and for linking."""
    compile_flag, *link_flags = STATIC_KINDS[request.param]
    return compile_flag, link_flags


# -- Python --------------------------------------------------------------------------------------

PYTHON_MAIN = r'''
    #include <Python.h>
    int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
'''


def link_python(t, *flags):
    """The interpreter, linked as Debian links its own: extension modules find the C API in it."""
    archive = PYTHON / 'config-3.11-x86_64-linux-gnu' / 'libpython3.11.a'
    needs('libpython3.11-dev', archive, '/usr/include/python3.11/Python.h')
    main = t.cc('main.o', PYTHON_MAIN, '-O1', '-I/usr/include/python3.11')
    t.link('python', '-no-pie', *flags, '-Wl,-export-dynamic', '-Wl,-Bsymbolic-functions', main,
           archive, '-lexpat', '-lz', '-lm')


@pytest.mark.parametrize('case', ['test_grammar', 'test_json', 'test_re', 'test_threading'])
def test_python_passes_its_own_tests(t, case):
    link_python(t)
    # The package libpython3.11-stdlib has the folder, but only the testsuite has the tests.
    if not list((PYTHON / 'test').glob(f'{case}*')):
        pytest.skip(f'no {case} in {PYTHON}/test: install libpython3.11-testsuite')
    said = t.run('python', '-m', 'test', '--tempdir', t.path, '--timeout', '100', case,
                 env={'LD_LIBRARY_PATH': '', 'PYTHONHASHSEED': '1'})
    assert 'Tests result: SUCCESS' in said.stdout


def test_python_loads_extension_modules(t):
    """Modules of the standard library that are shared objects bind to the program's exports."""
    link_python(t, '-Wl,--gc-sections', '-Wl,-z,now', '-Wl,-O2')
    code = ('import ctypes, json, decimal, _ctypes, sys\n'
            'print(ctypes.pythonapi.Py_IsInitialized(), decimal.Decimal("0.1") * 3,\n'
            '      json.dumps({"a": [1, None]}), sys.executable.endswith("python"))\n')
    t.run('python', '-c', code, expect='1 0.3 {"a": [1, null]} True\n')
    assert 'PyObject_Call' in t.elf('python').exports()


# -- SQLite and OpenSSL --------------------------------------------------------------------------

SQLITE_MAIN = r'''
    #include <sqlite3.h>
    #include <stdio.h>
    #include <stdlib.h>
    static int row(void *tag, int columns, char **values, char **names)
    {
        printf("%s", (const char *)tag);
        for (int i = 0; i < columns; i++)
            printf(" %s=%s", names[i], values[i] ? values[i] : "NULL");
        printf("\n");
        return 0;
    }
    static void run(sqlite3 *db, const char *tag, const char *sql)
    {
        char *error = NULL;
        if (sqlite3_exec(db, sql, row, (void *)tag, &error)) {
            printf("%s: %s\n", sql, error);
            exit(1);
        }
    }
    int main(void)
    {
        sqlite3 *db;
        if (sqlite3_open("test.db", &db))
            return 2;
        run(db, "", "create table city(id integer primary key, name text unique, people int);"
                    "create index by_people on city(people);"
                    "begin");
        for (int i = 1; i <= 2000; i++) {
            char sql[100];
            snprintf(sql, sizeof sql, "insert into city(name, people) values('c%d', %d)", i,
                     i * 7919 % 2003);
            run(db, "", sql);
        }
        run(db, "", "commit");
        run(db, "sum", "select count(*) n, sum(people) s, round(avg(people), 2) a from city");
        run(db, "top", "select name, people from city order by people desc limit 2");
        run(db, "join", "select count(*) n from city a join city b on a.id = b.people + 1");
        run(db, "text", "select upper(group_concat(name, '+')) t from city where id < 4");
        run(db, "check", "pragma integrity_check");
        return sqlite3_close(db);
    }
'''
SQLITE_SAYS = '''\
sum n=2000 s={sum} a={avg:.2f}
top name=c{top} people=2002
top name=c{next} people=2001
join n={join}
text t=C1+C2+C3
check integrity_check=ok
'''


def sqlite_says():
    people = [i * 7919 % 2003 for i in range(1, 2001)]
    return SQLITE_SAYS.format(sum=sum(people), avg=sum(people) / 2000,
                              top=people.index(2002) + 1, next=people.index(2001) + 1,
                              join=sum(p < 2000 for p in people))


@pytest.mark.parametrize('flags', [['-pie'], ['-static'], ['-static-pie'],
                                   ['-Wl,--gc-sections', '-Wl,--icf=all']], ids=' '.join)
def test_sqlite_builds_a_database_and_queries_it(t, flags):
    needs('libsqlite3-dev', LIB / 'libsqlite3.a', '/usr/include/sqlite3.h')
    main = t.cc('main.o', SQLITE_MAIN, '-O1')
    t.link('app', *flags, main, LIB / 'libsqlite3.a', '-lm')
    t.run('app', expect=sqlite_says())


CRYPTO_MAIN = r'''
    #include <openssl/evp.h>
    #include <stdio.h>
    #include <string.h>
    int main(int argc, char **argv)
    {
        static char text[100000];
        memset(text, 'k', sizeof text);
        for (int i = 1; i < argc; i++) {
            unsigned char digest[EVP_MAX_MD_SIZE];
            unsigned length;
            EVP_MD *md = EVP_MD_fetch(NULL, argv[i], NULL);
            if (!md || !EVP_Digest(text, sizeof text, digest, &length, md, NULL))
                return 1;
            printf("%s ", argv[i]);
            for (unsigned n = 0; n < length; n++)
                printf("%02x", digest[n]);
            printf("\n");
            EVP_MD_free(md);
        }
        unsigned char key[32] = {1}, iv[12] = {2}, sealed[64], tag[16], opened[64];
        int n, end;
        EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
        if (!EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, iv) ||
            !EVP_EncryptUpdate(c, sealed, &n, (const unsigned char *)"a secret text", 13) ||
            !EVP_EncryptFinal_ex(c, sealed + n, &end) ||
            !EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, 16, tag) ||
            !EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, iv) ||
            !EVP_DecryptUpdate(c, opened, &n, sealed, 13) ||
            !EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, 16, tag) ||
            !EVP_DecryptFinal_ex(c, opened + n, &end))
            return 2;
        printf("%.*s\n", n + end, opened);
        EVP_CIPHER_CTX_free(c);
        return 0;
    }
'''


@pytest.mark.parametrize('flags', [['-pie'], ['-static'], ['-static-pie']], ids=' '.join)
def test_libcrypto_hashes(t, flags):
    """Its assembly has tables of its own in the code, and picks functions by the CPU."""
    needs('libssl-dev', LIB / 'libcrypto.a', '/usr/include/openssl/evp.h')
    main = t.cc('main.o', CRYPTO_MAIN, '-O1')
    t.link('app', *flags, main, LIB / 'libcrypto.a', '-ldl', '-lpthread')
    names = {'SHA256': 'sha256', 'SHA512': 'sha512', 'SHA1': 'sha1', 'MD5': 'md5',
             'SHA3-256': 'sha3_256', 'BLAKE2b512': 'blake2b'}
    text = b'k' * 100000
    says = ''.join(f'{n} {hashlib.new(h, text).hexdigest()}\n' for n, h in names.items())
    t.run('app', *names, expect=says + 'a secret text\n')


# -- the C and C++ libraries ---------------------------------------------------------------------

LIBC_MAIN = r'''
    #include <errno.h>
    #include <locale.h>
    #include <math.h>
    #include <pthread.h>
    #include <regex.h>
    #include <setjmp.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/wait.h>
    #include <time.h>
    #include <unistd.h>
    #include <wchar.h>
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static pthread_key_t key;
    static _Thread_local long own = 5;
    static long total;
    static jmp_buf back;
    static void forget(void *p) { pthread_mutex_lock(&lock); total += (long)p; pthread_mutex_unlock(&lock); }
    static void make_key(void) { pthread_key_create(&key, forget); }
    static void *work(void *arg)
    {
        pthread_once(&once, make_key);
        pthread_setspecific(key, (void *)1000);
        for (int i = 0; i < 100; i++)
            own += (long)arg;
        forget((void *)own);
        errno = (int)(long)arg;
        return (void *)(long)errno;
    }
    static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
    static void bye(void) { puts("bye"); }
    int main(int argc, char **argv)
    {
        setlocale(LC_ALL, "C");
        atexit(bye);
        pthread_t threads[4];
        for (long i = 0; i < 4; i++)
            pthread_create(&threads[i], NULL, work, (void *)i);
        long statuses = 0;
        for (int i = 0; i < 4; i++) {
            void *status;
            pthread_join(threads[i], &status);
            statuses += (long)status;
        }
        printf("threads %ld %ld %ld\n", total, statuses, own);
        int numbers[] = { 9, 3, 7, 1 };
        qsort(numbers, 4, sizeof *numbers, by_value);
        printf("sorted %d %d %d %d\n", numbers[0], numbers[1], numbers[2], numbers[3]);
        printf("maths %.6f %.6f %a %Lg\n", sin(argc), pow(argc + 1, 0.5), 1.0 / 3, 1e-4000L);
        regex_t re;
        regmatch_t m;
        regcomp(&re, "b[a-c]+d", REG_EXTENDED);
        int found = regexec(&re, "xxbacd", 1, &m, 0);
        printf("regex %d %d\n", found, (int)m.rm_so);
        regfree(&re);
        wchar_t wide[20];
        swprintf(wide, 20, L"%ls-%d", L"wide", 3);
        printf("wide %ls %zu\n", wide, wcslen(wide));
        if (!setjmp(back))
            longjmp(back, 1);
        char *copy = strdup(strrchr("a/b/string", '/')), *end;
        printf("string %s %zu %.3g\n", copy, strspn(copy, "/gnirts"), strtod("2.5e3x", &end));
        free(copy);
        struct tm tm = { .tm_year = 100, .tm_mday = 31, .tm_hour = 12 };
        char date[40];
        strftime(date, sizeof date, "%Y-%m-%d %A", &tm);
        printf("date %s\n", date);
        fflush(stdout);
        int status = 0;
        pid_t child = fork();
        if (!child)
            _exit(17);
        waitpid(child, &status, 0);
        printf("child %d %s\n", WEXITSTATUS(status), strerror(ENOENT));
        return argv[argc] != NULL;
    }
'''
LIBC_SAYS = '''\
threads 4620 6 5
sorted 1 3 7 9
maths 0.841471 1.414214 0x1.5555555555555p-2 1e-4000
regex 0 2
wide wide-3 6
string /string 7 2.5e+03
date 2000-01-31 Sunday
child 17 No such file or directory
bye
'''


@pytest.mark.parametrize('extra', [[], ['-Wl,--gc-sections', '-Wl,--icf=safe'],
                                   ['-Wl,-z,separate-code', '-Wl,-z,now', '-s']],
                         ids=['plain', 'gc icf', 'separate'])
def test_static_glibc(t, compiler, static, extra):
    compile_flag, link_flags = static
    main = t.cc('main.o', LIBC_MAIN, '-O2', '-pthread', compile_flag)
    t.link('app', *link_flags, '-pthread', *extra, main, '-lm')
    assert not t.elf('app').segment('INTERP')
    t.run('app', expect=LIBC_SAYS)


LIBSTDCXX_MAIN = r'''
    #include <algorithm>
    #include <atomic>
    #include <chrono>
    #include <filesystem>
    #include <future>
    #include <iomanip>
    #include <iostream>
    #include <locale>
    #include <map>
    #include <memory>
    #include <mutex>
    #include <numeric>
    #include <random>
    #include <sstream>
    #include <stdexcept>
    #include <thread>
    #include <typeinfo>
    #include <unordered_map>
    #include <vector>
    struct Base { virtual ~Base() = default; virtual int f() const { return 1; } };
    struct Left : virtual Base { int f() const override { return 2; } };
    struct Right : virtual Base {};
    struct Both : Left, Right { int f() const override { return Left::f() + 40; } };
    static std::map<std::string, std::vector<int>> global = { { "one", { 1 } }, { "two", { 2, 2 } } };
    thread_local std::string own = "main";
    static int thrower(int depth)
    {
        std::unique_ptr<int> p(new int(depth));
        return depth ? thrower(depth - 1) + *p : throw std::out_of_range("deep");
    }
    int main()
    {
        for (const auto &[name, numbers] : global)
            std::cout << name << std::accumulate(numbers.begin(), numbers.end(), 0) << ' ';
        Both both;
        const Base &base = both;
        std::cout << base.f() << ' ' << (dynamic_cast<const Right *>(&base) != nullptr) << '\n';
        try { thrower(20); } catch (const std::logic_error &e) { std::cout << e.what() << '\n'; }
        try { std::rethrow_exception(std::async(std::launch::async, [] {
                  try { throw std::string("crossed"); } catch (...) { return std::current_exception(); }
              }).get());
        } catch (const std::string &s) { std::cout << s << '\n'; }
        std::once_flag once;
        std::atomic<int> sum = 0;
        std::vector<std::thread> threads;
        for (int i = 0; i < 4; i++)
            threads.emplace_back([&, i] {
                std::call_once(once, [&] { sum += 1000; });
                own = std::to_string(i);
                sum += std::stoi(own);
            });
        for (auto &thread : threads)
            thread.join();
        std::cout << own << ' ' << sum << '\n';
        std::ostringstream out;
        out.imbue(std::locale::classic());
        out << std::setw(8) << std::setfill('*') << std::fixed << std::setprecision(2) << 3.14159;
        std::cout << out.str() << ' ' << std::quoted("q\"") << '\n';
        std::mt19937 random(5489);
        random.discard(9999);
        std::cout << random() << ' ' << std::filesystem::path("/a/b.cc").extension() << '\n';
        std::wcout << L"wide" << std::endl;
        return 0;
    }
'''
LIBSTDCXX_SAYS = '''\
one1 two4 42 1
deep
crossed
main 1006
****3.14 "q\\""
4123659995 ".cc"
wide
'''


def test_static_libstdcxx(t, compiler):
    """Compiling takes far longer than linking: one object for all kinds of output."""
    main = t.cxx('main.o', LIBSTDCXX_MAIN, '-std=c++17', '-O1', '-pthread', '-fPIE',
                 '-ffunction-sections')
    for kind in ['-static', '-no-pie'], ['-static-pie']:
        for extra in [], ['-Wl,--gc-sections', '-Wl,--icf=all'], ['-Wl,--icf=safe', '-s']:
            t.link('app', *kind, '-pthread', *extra, main, via='c++')
            assert not t.elf('app').segment('INTERP')
            t.run('app', expect=LIBSTDCXX_SAYS)
    t.link('app', '-static-libstdc++', '-static-libgcc', '-pthread', main, via='c++')
    assert not [n for n in t.elf('app').needed if 'stdc++' in n or 'gcc' in n]
    t.run('app', expect=LIBSTDCXX_SAYS)


@pytest.mark.parametrize('flags', [['-static'], ['-static', '-Wl,--gc-sections'], []],
                         ids=['static', 'gc', 'dynamic'])
def test_musl(t, flags):
    """musl-gcc's specs call the linker in a way of their own: -nostdlib and all files by path."""
    if not shutil.which('musl-gcc'):
        pytest.skip('musl-gcc is not installed: install musl-tools')
    t.write('main.c', LIBC_MAIN)
    t.tool('musl-gcc', '-O2', '-c', '-o', 'main.o', 'main.c')
    t.tool('musl-gcc', '-B', t.linker_dir, *flags, '-o', 'app', 'main.o')
    assert bool(t.elf('app').segment('INTERP')) == (not flags)
    t.run('app', expect=LIBC_SAYS)
