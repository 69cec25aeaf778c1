"""Programs of others, edited again and again: Lua and SQLite from Debian's source packages, built by
their own Makefiles, and a Cargo workspace.

The source packages come through apt, from where this machine gets its packages, once: they stay in
build/sources. Without dpkg-source, or without a way to fetch them, these cases are skipped.
"""

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import inc
from inc import PLAIN
from inc import VERIFY
from inc import Report
from kldtest import KLD
from kldtest import REPO
from kldtest import only
from test_rust import cargo  # noqa: F401 (a fixture)
from test_rust import one_toolchain

pytestmark = only('x86_64')

SOURCES = REPO / 'build' / 'sources'
OPTIONS = '' if PLAIN else '-Wl,--incremental,--incremental-report'
# Of ten edits of one function body or another.
SHARE = 8


def command(*args, cwd, env=None, timeout=600, ok=True):
    done = subprocess.run([str(a) for a in args], cwd=cwd, capture_output=True, text=True,
                          errors='replace', stdin=subprocess.DEVNULL, timeout=timeout, check=False,
                          env={**os.environ, 'LC_ALL': 'C', **(env or {})})
    assert not ok or done.returncode == 0, f'{args}\n{done.stdout}{done.stderr}'
    return done


def fetch(package):
    """The folder with the files of a Debian source package, or None."""
    SOURCES.mkdir(parents=True, exist_ok=True)
    with open(SOURCES / 'lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return fetch_alone(package)


def fetch_alone(package):
    folder = SOURCES / package
    if list(folder.glob('*.dsc')):
        return folder
    parts = SOURCES / 'apt'
    for sub in 'parts', 'lists/partial', 'cache/archives/partial':
        (parts / sub).mkdir(parents=True, exist_ok=True)
    for name, pattern, new in (('sources.list', r'(?m)^deb\s', 'deb-src '),
                               ('sources.list.d', r'(?m)^(Types:\s*)deb\s*$', r'\1deb-src')):
        place = Path('/etc/apt') / name
        files = place.glob('debian*.sources') if place.is_dir() else [place] if place.exists() else []
        for file in files:
            target = parts / 'parts' / (file.name if file.suffix == '.sources' else 'main.list')
            target.write_text(re.sub(pattern, new, file.read_text()))
    options = [o for key, value in (('Etc::SourceList', '/dev/null'), ('Etc::SourceParts', parts / 'parts'),
                                    ('State::Lists', parts / 'lists'), ('Cache', parts / 'cache'))
               for o in ('-o', f'Dir::{key}={value}')]
    options += ['-o', 'APT::Sandbox::User=root', '-o', 'Acquire::Retries=2']
    try:
        if not list((parts / 'lists').glob('*Sources*')):
            command('apt-get', *options, 'update', cwd=parts)
        folder.mkdir(exist_ok=True)
        command('apt-get', *options, 'source', '--download-only', package, cwd=folder)
    except (AssertionError, OSError, subprocess.TimeoutExpired):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return folder


@pytest.fixture
def source(t, request):
    """A copy of the source package that the test names, in the test's folder."""
    package = request.param
    if not shutil.which('dpkg-source'):
        pytest.skip('dpkg-source is not installed (the package dpkg-dev)')
    folder = fetch(package)
    if not folder:
        pytest.skip(f'the source package {package} cannot be had here')
    command('dpkg-source', '--no-check', '--skip-patches', '-x', next(folder.glob('*.dsc')),
            t.path / package, cwd=t.path)
    return t.path / package


class Made:
    """A program that `make` links; edits, and what the links report."""

    def __init__(self, folder, make, out):
        self.folder, self.make, self.out = folder, make, out
        self.outcomes = []
        report = self.build()
        assert PLAIN or report.outcome == 'FULL', report.result

    def build(self):
        done = command('make', '-j2', *self.make, cwd=self.folder)
        assert (self.folder / self.out).exists()
        return None if PLAIN else Report.of(done)

    def edit(self, name, old, new):
        file = self.folder / name
        text = file.read_text(errors='surrogateescape')
        assert text.count(old) == 1, f'{old!r} occurs {text.count(old)} times in {name}'
        file.write_text(text.replace(old, new), errors='surrogateescape')
        report = self.build()
        assert PLAIN or report.outcome in ('PATCHED', 'FELL_BACK_FULL'), report.result
        self.outcomes.append((name, report and report.outcome, report and report.slug))
        return report

    def patched_enough(self):
        patched = [o for _, o, _ in self.outcomes].count('PATCHED')
        assert PLAIN or patched >= SHARE, self.outcomes


# -- Lua ------------------------------------------------------------------------------------------

LUA_SCRIPT = r'''
    local function show(...)
        local words = table.pack(...)
        for i = 1, words.n do words[i] = tostring(words[i]) end
        io.write(table.concat(words, " "), "\n")
    end
    show(_VERSION, tostring(true), tostring(nil), math.type(1), ("abc"):reverse(), ("x"):rep(3, ","))
    local t = {}
    for i = 1, 200 do t[i] = (i * 7919) % 211 end
    table.sort(t)
    show(t[1], t[100], t[200], select("#", table.unpack(t)))
    show(pcall(error, {}) and 1 or 0, select(2, pcall(function() return nil + 1 end)))
    show(select(2, pcall(table.insert, t, 1, 2, 3)), select(2, load("for x do end")))
    local co = coroutine.wrap(function(a) for i = 1, 3 do a = a + coroutine.yield(a) end return a end)
    show(co(1), co(2), co(3), co(4))
    local mt = setmetatable({}, {__index = function(_, k) return k .. "!" end,
                                 __call = function(_, n) return n * 2 end,
                                 __close = function() show("closed") end})
    show(mt.key, mt(21))
    do local guard <close> = mt end
    show(string.format("%5.2f %d %s %q", 1 / 3, 42, "s", "q\n"), ("k=v, a=b"):gsub("(%w+)=(%w+)", "%2=%1"))
    local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
    show(fib(20), #tostring(print) > 0, 7 // 2, 7 % -3, 1 << 10, 5 // 0.0)
    collectgarbage()
    local garbage = 0
    for i = 1, 20000 do local x = {i, tostring(i)}; garbage = garbage + #x[2] end
    show(garbage, collectgarbage("count") < 4000)
    show(utf8.char(228, 8364), utf8.len("\u{e4}"), os.time({year = 2020, month = 1, day = 1, hour = 12}) > 0)
    goto done
    show("not reached")
    ::done::
    show(require("math") == math, debug.traceback("trace", 1):match("^trace"), string.pack("<i4", 7):byte(1, 4))
'''
LUA_EDITS = [
    ('lbaselib.c', 'lua_pushliteral(L, LUA_VERSION);', 'lua_pushliteral(L, "Lua, edited");'),
    ('lauxlib.c', '"true" : "false"', '"TRUE" : "FALSE"'),
    ('lstrlib.c', '    p[i] = s[l - i - 1];\n', '    p[i] = (char)(s[l - i - 1] - (s[l - i - 1] == \'b\'));\n'),
    ('ltablib.c', '"wrong number of arguments to \'insert\'"', '"insert was given some other number of arguments"'),
    ('lparser.c', '"\'=\' or \'in\' expected"', '"a = or an in was expected"'),
    ('ldebug.c', '"attempt to %s a %s value%s"', '"cannot %s this %s value%s"'),
    ('lvm.c', 'lua_Integer luaV_mod (lua_State *L, lua_Integer m, lua_Integer n) {',
     'static int twice (int n) { return 2 * n; }\n'
     'lua_Integer luaV_mod (lua_State *L, lua_Integer m, lua_Integer n) {\n'
     '  static volatile int calls; calls += twice(1);\n' + '  if (calls == -7) return calls * 3;\n' * 40),
    ('lgc.c', 'void luaC_fullgc (lua_State *L, int isemergency) {',
     'void luaC_fullgc (lua_State *L, int isemergency) {\n' + '  if (isemergency == 77) luaC_step(L);\n' * 100),
    ('lcorolib.c', 'static int luaB_yield (lua_State *L) {',
     'static const char *const words[] = {"yield", "resume"};\nstatic int luaB_yield (lua_State *L) {\n'
     '  if (words[1][0] == 0) return luaL_error(L, "%s", words[0]);\n'),
    ('lmathlib.c', 'lua_pushstring(L, (lua_isinteger(L, 1)) ? "integer" : "float");',
     'lua_pushstring(L, (lua_isinteger(L, 1)) ? "whole" : "float");'),
]


@pytest.mark.parametrize('source', ['lua5.4'], indirect=True)
def test_lua(t, source):
    src = source / 'src'
    common = ['SYSCFLAGS=-DLUA_USE_LINUX', 'SYSLIBS=-Wl,-E -ldl', 'MYCFLAGS=-g', 'CC=gcc -std=gnu99']
    driver = f'-B {t.linker_dir}'
    (src / 'script.lua').write_text(LUA_SCRIPT)
    lua = Made(src, [*common, f'MYLDFLAGS={driver} {OPTIONS}', 'lua'], 'lua')
    seen = [command('./lua', 'script.lua', cwd=src).stdout]
    assert 'Lua 5.4 true nil integer cba x,x,x' in seen[0]
    for name, old, new in LUA_EDITS:
        lua.edit(name, old, new)
        command('make', *common, f'MYLDFLAGS={driver}', 'LUA_T=plain', 'plain', cwd=src)
        seen.append(command('./lua', 'script.lua', cwd=src).stdout)
        assert seen[-1] == command('./plain', 'script.lua', cwd=src).stdout
        if VERIFY:
            flags = f'MYLDFLAGS={driver} -Wl,--incremental,--incremental-verify'
            command('make', *common, flags, '-W', 'lua.o', 'lua', cwd=src)
    assert len(set(seen)) == 8  # (three edits change nothing that is printed)
    assert 'Lua, edited TRUE nil whole caa' in seen[-1]
    line = inc.addr2line(t, src / 'lua', t.elf(src / 'lua').symbol('luaV_mod').value)
    assert line.startswith('lvm.c:'), line
    lua.patched_enough()


# -- SQLite ---------------------------------------------------------------------------------------

SQLITE_SCRIPT = r'''
CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, value REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
INSERT INTO t SELECT i, 'name ' || (i * 7919 % 503), i / 3.0 FROM n;
CREATE INDEX t_name ON t(name);
SELECT count(*), sum(value), min(name), max(name), round(avg(value), 3) FROM t;
SELECT group_concat(name, '|') FROM (SELECT name FROM t ORDER BY name LIMIT 5);
BEGIN; DELETE FROM t WHERE id % 2; SELECT count(*), changes(), total_changes() > 0 FROM t; ROLLBACK;
UPDATE t SET name = upper(name) WHERE id BETWEEN 10 AND 20;
SELECT name, typeof(value), length(name), substr(name, 2, 3), hex(name) FROM t WHERE id = 15;
SELECT a.id, b.id FROM t a JOIN t b ON a.id = b.id + 100 WHERE a.name LIKE '%9%' ORDER BY a.id DESC LIMIT 3;
SELECT date('2020-02-28', '+2 days'), strftime('%j', '2021-12-31'), julianday('2000-01-01 12:00');
SELECT json_extract('{"a":[1,{"b":2}]}', '$.a[1].b'), printf('%5.1f|%-5s|%x', 2.25, 'ab', 255);
SELECT sum(value) OVER (ORDER BY id ROWS 2 PRECEDING) FROM t LIMIT 3;
CREATE VIEW v AS SELECT id * 2 AS d FROM t; SELECT max(d) FROM v; EXPLAIN QUERY PLAN SELECT * FROM t WHERE name = 'x';
CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET value = -1 WHERE id = new.id; END;
INSERT INTO t VALUES(1000, 'new', 5); SELECT value FROM t WHERE id = 1000;
SELECT abs(-3), coalesce(NULL, 'c'), nullif(1, 1), 'a' IN ('a', 'b'), CASE 1 WHEN 1 THEN 'one' END, quote(x'00ff');
SELECT no_such_function(1);
SELECT * FROM no_such_table;
PRAGMA integrity_check;
VACUUM; SELECT count(*) FROM sqlite_master;
'''
SQLITE_EDITS = [
    ('src/func.c', '"integer", "real", "text"', '"integer", "a real number", "text"'),
    ('src/build.c', '"no such view" : "no such table"', '"no such view" : "no table of that name"'),
    ('src/wherecode.c', '"SEARCH" : "SCAN"', '"LOOK UP" : "LOOK AT ALL OF"'),
    ('src/resolve.c', '"no such function: %#T", pExpr', '"no function of that name: %#T", pExpr'),
    ('src/date.c', '"%03d",nDay+1', '"%05d",nDay+1'),
    ('src/pragma.c', 'aOp[2].p4.z = "ok";', 'aOp[2].p4.z = "all is well";'),
    ('src/vdbe.c', '  Op *aOp = p->aOp;          /* Copy of p->aOp */',
     '  static volatile int edited;\n  Op *aOp = p->aOp + (edited++ == -1);'),
    ('src/btree.c', 'int sqlite3BtreeCursorHasMoved(BtCursor *pCur){\n',
     'int sqlite3BtreeCursorHasMoved(BtCursor *pCur){\n' + '  if( pCur==(BtCursor*)7 ) return 7;\n' * 100),
    ('src/printf.c', "  if( (*cnt)<=0 ) return '0';", "  if( (*cnt)<=0 )\n\n    return '0' + (*cnt == -77);"),
    ('src/select.c', '  if( p==0 || pParse->nErr ){',
     '  static const char *const edits[] = {"one", "two"};\n'
     '  if( p==0 || edits[pParse->nErr & 1][0]==0 || pParse->nErr ){'),
]


def sqlite_makefile(folder):
    """Makefile.linux-gcc is a template: its settings, for here."""
    (folder / 'Makefile').write_text('\n'.join([
        'TOP = .', 'BCC = gcc -O0', 'THREADLIB = -lpthread -lm -ldl', 'TLIBS =', 'EXE =',
        'OPTS = -DSQLITE_THREADSAFE=1 -DSQLITE_OMIT_LOAD_EXTENSION',
        'TCC = gcc -O0 -g -w', 'AR = ar cr', 'RANLIB = ranlib', 'SO = so', 'SHPREFIX = lib', 'READLINE_FLAGS =',
        'LIBREADLINE =', 'include $(TOP)/main.mk', '']))


@pytest.mark.skipif(not shutil.which('tclsh'), reason='tclsh is not installed')
@pytest.mark.parametrize('source', ['sqlite3'], indirect=True)
def test_sqlite(t, source):
    sqlite_makefile(source)
    (source / 'script.sql').write_text(SQLITE_SCRIPT)
    # Their rule compiles shell.c and links in one command; the object has to keep its name.
    options = f'SHELL_OPT=-save-temps=obj -B {t.linker_dir} '
    sqlite = Made(source, [options + OPTIONS, 'sqlite3'], 'sqlite3')

    def run(program):
        shell = f'./{program} -batch :memory: < script.sql 2>&1'
        return command('sh', '-c', shell, cwd=source, ok=False).stdout

    seen = [run('sqlite3')]
    assert 'no such table' in seen[0] and 'SEARCH t USING' in seen[0] and '\nok\n' in seen[0]
    for name, old, new in SQLITE_EDITS:
        sqlite.edit(name, old, new)
        command('gcc', '-B', t.linker_dir, '-o', 'plain', 'sqlite3-shell.o', 'libsqlite3.a', '-lpthread',
                '-lm', '-ldl', cwd=source)
        seen.append(run('sqlite3'))
        assert seen[-1] == run('plain')
        if VERIFY:
            flags = f'{options} -Wl,--incremental,--incremental-verify'
            command('make', flags, '-W', 'libsqlite3.a', 'sqlite3', cwd=source)
    assert len(set(seen)) == 7 and 'all is well' in seen[-1] and 'no table of that name' in seen[-1]
    address = t.elf(source / 'sqlite3').symbol('sqlite3BtreeCursorHasMoved').value
    assert inc.addr2line(t, source / 'sqlite3', address).startswith('btree.c:')
    sqlite.patched_enough()


# -- Cargo ----------------------------------------------------------------------------------------

CARGO = {
    'Cargo.toml': '[workspace]\nmembers = ["shapes", "app"]\nresolver = "2"\n',
    'shapes/Cargo.toml': '[package]\nname = "shapes"\nversion = "1.0.0"\nedition = "2021"\n',
    'shapes/src/lib.rs': r'''
        pub trait Shape { fn area(&self) -> u64; fn name(&self) -> String; }
        pub struct Square(pub u64);
        pub struct Oblong(pub u64, pub u64);
        impl Shape for Square {
            fn area(&self) -> u64 { self.0 * self.0 /* SQUARE */ }
            fn name(&self) -> String { format!("square of {}", self.0) }
        }
        impl Shape for Oblong {
            fn area(&self) -> u64 { self.0 * self.1 }
            fn name(&self) -> String { "an oblong".to_string() }
        }
        #[inline(never)]
        pub fn check(n: u64) -> Result<u64, String> {
            if n > 50 { panic!("too large: {n}") }
            /* CHECK */
            if n % 7 == 0 { Err(format!("{n} by seven")) } else { Ok(n) }
        }
        #[cfg(test)]
        mod tests { #[test] fn areas() { use super::*; assert!(Square(2).area() >= 4); } }
    ''',
    'app/Cargo.toml': '[package]\nname = "app"\nversion = "1.0.0"\nedition = "2021"\n'
                      '[dependencies]\nshapes = { path = "../shapes" }\n',
    'app/src/main.rs': r'''
        use shapes::*;
        fn sum(shapes: &[Box<dyn Shape>]) -> u64 { shapes.iter().map(|s| s.area()).sum() }
        fn main() {
            let shapes: Vec<Box<dyn Shape>> = vec![Box::new(Square(3)), Box::new(Oblong(2, 5))];
            println!("{} {}", sum(&shapes), shapes[0].name());
            for n in [3, 14, 51] {
                match std::panic::catch_unwind(|| check(n)) {
                    Ok(r) => println!("{r:?}"),
                    Err(e) => println!("panic {}", e.downcast_ref::<String>().unwrap()),
                }
            }
            /* MAIN */
        }
    ''',
}
CARGO_EDITS = [
    ('app/src/main.rs', '/* MAIN */', '/* MAIN */ println!("one more");'),
    ('app/src/main.rs', '.sum() }', '.sum::<u64>() + 1 }'),
    ('shapes/src/lib.rs', 'self.0 * self.0 /*', 'self.0 * self.0 + 100 /*'),
    ('shapes/src/lib.rs', '{} by seven'.format('{n}'), '{n} is seven times something'),
    ('shapes/src/lib.rs', '/* CHECK */', '/* CHECK */\n' + 'if n == 12345 { return Ok(n * 3 + 1) }\n' * 30),
    ('shapes/src/lib.rs', 'an oblong', 'a longer name of an oblong'),
    ('app/src/main.rs', 'println!("one more");', 'let v: Vec<u64> = (1..4).collect(); println!("{v:?}");'),
    ('app/src/main.rs', '/* MAIN */', '/* MAIN */ println!("{}", shapes[1].name());'),
    ('shapes/src/lib.rs', 'n % 7 == 0', 'n % 7 == 0 && n > 0'),
    ('shapes/src/lib.rs', '+ 100 /*', '+ 200 /*'),
]


def check_cargo_reports(text):
    """The second link is the one that sees what Cargo does. Some edits make rustc split the crate in another
    way; the others are of bodies, in the program and in the library."""
    reports = [Report.parse(text, s.removeprefix('incremental: ')) for s in text.splitlines()]
    outcomes = [r.outcome for r in reports]
    assert len(reports) == 1 + len(CARGO_EDITS) and outcomes[0] == 'FULL', text
    assert outcomes[2] == outcomes[3] == 'PATCHED', text
    assert {r.slug for r in reports[2:]} <= {None, 'inputs', 'archive'}, text


@one_toolchain
def test_cargo_workspace(t, cargo, tmp_path):
    """Debug mode. rustc names its objects, and the folder of its list of symbols, anew each time; Cargo
    removes the program before it is linked, and leaves its other name, in target/debug, in place."""
    folder = tmp_path / 'workspace'
    for name, text in CARGO.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    cargo.folder = folder
    flags = cargo.environment['RUSTFLAGS']
    incremental = '' if PLAIN else f' -C link-arg={OPTIONS}'
    said = tmp_path / 'said'
    said.touch()
    (tmp_path / 'bin').mkdir()
    linker = tmp_path / 'bin' / 'ld.kld'
    # What it links is gone when rustc has ended.
    verify = f'&& {os.path.abspath(KLD)} "$@" --incremental-verify >> {said}' if VERIFY else ''
    linker.write_text(f'#!/bin/sh\n{os.path.abspath(KLD)} "$@" >> {said} {verify}\n')
    linker.chmod(0o755)
    plain = {**cargo.environment, 'CARGO_TARGET_DIR': str(folder / 'plain'), 'CARGO_INCREMENTAL': '1'}
    ours = {**cargo.environment, 'RUSTFLAGS': flags + incremental, 'CARGO_INCREMENTAL': '1',
            'PATH': f'{linker.parent}:{cargo.environment["PATH"]}'}

    def output(environment, target):
        cargo.environment = environment
        cargo('build', '--offline', '-q')
        return command(folder / target / 'debug' / 'app', cwd=folder).stdout

    seen = [output(ours, 'target')]
    assert seen[0].startswith('19 square of 3\n')
    for name, old, new in CARGO_EDITS:
        text = (folder / name).read_text()
        assert text.count(old) == 1
        (folder / name).write_text(text.replace(old, new))
        seen.append(output(ours, 'target'))
        assert seen[-1] == output(plain, 'plain')
    assert len(set(seen)) == 8
    cargo.environment = ours
    if not PLAIN:
        check_cargo_reports(said.read_text())
    assert 'test result: ok. 1 passed' in cargo('test', '--offline')
