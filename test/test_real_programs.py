"""A program of 100,000 lines, the JavaScript engine Duktape, compiled with -O2 -g, linked in every way
and set to work. Debian's package duktape-dev has its source."""

from pathlib import Path

import pytest

SOURCE = Path('/usr/share/duktape')

pytestmark = pytest.mark.skipif(not (SOURCE / 'duktape.c').exists(),
                                reason='the package duktape-dev is not installed')

MAIN = r'''
    #include <duktape.h>
    #include <stdio.h>
    static duk_ret_t say(duk_context *ctx)
    {
        puts(duk_safe_to_string(ctx, 0));
        return 0;
    }
    static void fatal(void *data, const char *text)
    {
        printf("fatal: %s %d\n", text, data == NULL);
    }
    int main(int argc, char **argv)
    {
        static char script[1 << 20];
        FILE *file = fopen(argv[argc - 1], "r");
        size_t length = fread(script, 1, sizeof script, file);
        duk_context *ctx = duk_create_heap(NULL, NULL, NULL, NULL, fatal);
        duk_push_c_function(ctx, say, 1);
        duk_put_global_string(ctx, "say");
        int failed = duk_peval_lstring(ctx, script, length);
        if (failed)
            puts(duk_safe_to_string(ctx, -1));
        duk_destroy_heap(ctx);
        return failed != 0;
    }
'''
SCRIPT = r'''
    function sieve(n) {
        var composite = new Uint8Array(n), count = 0;
        for (var i = 2; i < n; i++) {
            if (composite[i]) continue;
            count++;
            for (var j = i * i; j < n; j += i) composite[j] = 1;
        }
        return count;
    }
    function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
    say('primes ' + sieve(20000) + ', fib ' + fib(18));

    var words = 'the quick brown fox jumps over the lazy dog'.split(' ');
    say(words.sort().join(' '));
    say(words.map(function (w) { return w.length; }).reduce(function (a, b) { return a + b; }));
    say('2026-11-26'.replace(/(\d+)-(\d+)-(\d+)/, '$3.$2.$1') + ' ' + /(a+)+b/.test('aaaac'));
    say(JSON.stringify(JSON.parse('{"a":[1,2.5,null,true],"b":{"c":"\\u00e9\\n"}}')));
    say([Math.sqrt(2), Math.sin(1), Math.pow(2, 0.5) * Math.exp(1), 1 / 3, 1e21, -0.1]
        .map(function (x) { return x.toFixed(9); }).join(' '));

    function depth(n) { try { throw new Error('level ' + n); } catch (e) {
        return n ? depth(n - 1) : e.message; } finally { caught++; } }
    var caught = 0;
    say(depth(50) + ', ' + caught);
    try { null.x; } catch (e) { say(e instanceof TypeError); }
    try { (function f() { f(); })(); } catch (e) { say(e.name); }

    var objects = [];
    for (var i = 0; i < 20000; i++) objects[i % 100] = { name: 'n' + i, next: objects[(i + 1) % 100] };
    say(objects[99].name + ' ' + objects[0].next.name);
    say(new Date(86400000 * 365).toISOString() + ' ' + parseInt('zz', 36) + ' ' + (255).toString(2));
    say(encodeURIComponent('\u20ac & x') + ' ' + 'abc'.charCodeAt(1) + ' ' + [3, 20, 100].sort());
'''
EXPECTED = '''primes 2262, fib 2584
brown dog fox jumps lazy over quick the the
35
26.11.2026 false
{"a":[1,2.5,null,true],"b":{"c":"\N{LATIN SMALL LETTER E WITH ACUTE}\\n"}}
1.414213562 0.841470985 3.844231028 0.333333333 1e+21 -0.100000000
level 0, 51
true
RangeError
n19999 n19801
1971-01-01T00:00:00.000Z 1295 11111111
%E2%82%AC%20%26%20x 98 100,20,3
'''


def test_javascript_engine(t):
    flags = ['-O2', '-g', '-w', '-fPIC', f'-I{SOURCE}', '-ffunction-sections', '-fdata-sections']
    t.tool(*t.driver(), '-c', *flags, SOURCE / 'duktape.c', '-o', 'duktape.o')
    main = t.cc('main.o', MAIN, *flags)
    t.write('script.js', SCRIPT)
    t.ar('libduktape.a', 'duktape.o')
    t.link('libduktape.so', '-shared', '-Wl,-soname,libduktape.so,-z,defs', 'duktape.o', '-lm')
    t.ld('whole.o', '-r', main, 'duktape.o')
    archive = [main, 'libduktape.a', '-lm']
    for name, *args in (('pie', '-pie', *archive), ('static', '-static', '-no-pie', *archive),
                        ('shared', '-pie', main, 'libduktape.so'), ('r', '-pie', 'whole.o', '-lm'),
                        ('small', '-no-pie', '-Wl,--gc-sections', *archive)):
        t.link(name, *args)
        t.run(name, 'script.js', expect=EXPECTED)
    address = hex(t.elf('pie').symbol('duk_create_heap').value)
    assert 'duk_api_heap.c:' in t.tool('addr2line', '-e', 'pie', address).stdout
