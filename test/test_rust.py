"""Rust: a Cargo workspace, built and tested with the linker under test as rustc's linker.

Everything in it is a path crate, so that nothing is fetched. It is built once for each toolchain
that is here: the one on the PATH, and Debian's if that is another.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

import pytest

from kldtest import KLD
from kldtest import TIMEOUT
from kldtest import only

pytestmark = only('x86_64')

WORKSPACE = {
    'Cargo.toml': '''
        [workspace]
        members = ["macros", "shapes", "plugin", "app"]
        resolver = "2"
        [profile.release]
        debug = 1
        [profile.small]
        inherits = "release"
        panic = "abort"
        opt-level = "z"
        strip = true
    ''',

    # A compiler plug-in: a shared object that rustc loads while it builds `shapes` and `app`.
    'macros/Cargo.toml': '''
        [package]
        name = "macros"
        version = "1.0.0"
        edition = "2021"
        [lib]
        proc-macro = true
        doctest = false
    ''',
    'macros/src/lib.rs': r'''
        use proc_macro::{TokenStream, TokenTree};
        use std::collections::BTreeMap;

        /// Adds `fn name() -> &'static str` to a struct.
        #[proc_macro_derive(Named)]
        pub fn named(input: TokenStream) -> TokenStream {
            let words: Vec<String> = input.into_iter().filter_map(|t| match t {
                TokenTree::Ident(i) => Some(i.to_string()),
                _ => None,
            }).collect();
            let at = words.iter().position(|w| w == "struct").expect("a struct");
            let name = &words[at + 1];
            format!("impl Named for {name} {{ fn name() -> &'static str {{ \"{name}\" }} }}")
                .parse().unwrap()
        }

        /// Counts its words at compile time.
        #[proc_macro]
        pub fn count_words(input: TokenStream) -> TokenStream {
            let mut counts = BTreeMap::new();
            for token in input {
                *counts.entry(token.to_string()).or_insert(0usize) += 1;
            }
            let rows: String = counts.iter().map(|(w, n)| format!("(\"{w}\", {n}usize),")).collect();
            format!("&[{rows}]").parse().unwrap()
        }
    ''',

    # A library with a build script, which is a program that is linked and run before it.
    'shapes/Cargo.toml': '''
        [package]
        name = "shapes"
        version = "2.3.4"
        edition = "2021"
        build = "build.rs"
        [dependencies]
        macros = { path = "../macros" }
        [lib]
        doctest = false
    ''',
    'shapes/build.rs': r'''
        use std::{env, fs, path::Path};
        fn main() {
            let out = env::var("OUT_DIR").unwrap();
            let squares: Vec<String> = (0..20).map(|n| (n * n).to_string()).collect();
            let table = format!("pub static SQUARES: [u32; 20] = [{}];\n", squares.join(", "));
            fs::write(Path::new(&out).join("table.rs"), table).unwrap();
            println!("cargo:rustc-env=BUILT_BY=script {}", env::var("CARGO_PKG_VERSION").unwrap());
            println!("cargo:rerun-if-changed=build.rs");
        }
    ''',
    'shapes/src/lib.rs': r'''
        use std::cell::RefCell;
        use std::collections::HashMap;
        use std::sync::atomic::{AtomicUsize, Ordering};
        include!(concat!(env!("OUT_DIR"), "/table.rs"));
        pub static BUILT_BY: &str = env!("BUILT_BY");
        pub static DROPPED: AtomicUsize = AtomicUsize::new(0);

        pub trait Named { fn name() -> &'static str; }
        pub trait Shape: Send { fn area(&self) -> f64; }
        #[derive(macros::Named)] pub struct Circle(pub f64);
        #[derive(macros::Named)] pub struct Square(pub f64);
        impl Shape for Circle { fn area(&self) -> f64 { std::f64::consts::PI * self.0 * self.0 } }
        impl Shape for Square { fn area(&self) -> f64 { self.0 * self.0 } }
        impl Drop for Circle { fn drop(&mut self) { DROPPED.fetch_add(1, Ordering::SeqCst); } }

        thread_local!(static SEEN: RefCell<HashMap<u32, u32>> = RefCell::new(HashMap::new()));

        /// How often this thread has asked for n.
        pub fn ask(n: u32) -> u32 {
            SEEN.with(|s| { let mut s = s.borrow_mut(); let c = s.entry(n).or_insert(0); *c += 1; *c })
        }

        #[inline(never)]
        pub fn square_of(n: usize) -> u32 {
            let _guard = Circle(n as f64);
            if n >= SQUARES.len() { panic!("no square of {n}") }
            SQUARES[n]
        }

        #[cfg(test)]
        mod tests {
            use super::*;
            #[test] fn names() { assert_eq!((Circle::name(), Square::name()), ("Circle", "Square")); }
            #[test] fn squares() { assert_eq!(square_of(12), 144); }
            #[test] #[should_panic(expected = "no square of 99")] fn too_large() { square_of(99); }
            #[test] fn own_counts() {
                ask(1); ask(1);
                assert_eq!(std::thread::spawn(|| ask(1)).join().unwrap(), 1);
                assert_eq!(ask(1), 3);
            }
        }
    ''',
    'shapes/tests/outside.rs': r'''
        use shapes::*;
        #[test] fn dyn_shapes() {
            let shapes: Vec<Box<dyn Shape>> = vec![Box::new(Circle(1.0)), Box::new(Square(2.0))];
            let area: f64 = shapes.iter().map(|s| s.area()).sum();
            assert!((area - 7.14159).abs() < 1e-4);
        }
        #[test] fn counts_words() {
            let counts: &[(&str, usize)] = macros::count_words!(a b a c a);
            assert_eq!(counts, [("a", 3), ("b", 1), ("c", 1)]);
        }
        #[test] fn panic_reaches_the_join() {
            let error = std::thread::spawn(|| square_of(20)).join().unwrap_err();
            assert_eq!(error.downcast_ref::<String>().unwrap(), "no square of 20");
        }
        #[test] #[ignore] fn ignored() { panic!() }
    ''',

    # The C library that other languages load.
    'plugin/Cargo.toml': '''
        [package]
        name = "plugin"
        version = "1.0.0"
        edition = "2021"
        [lib]
        crate-type = ["cdylib", "staticlib"]
        [dependencies]
        shapes = { path = "../shapes" }
    ''',
    'plugin/src/lib.rs': r'''
        use std::ffi::CString;
        use std::os::raw::{c_char, c_int};
        #[no_mangle] pub static PLUGIN_VERSION: c_int = 7;
        /// -1 where there is none: the panic does not leave the library.
        #[no_mangle] pub extern "C" fn plugin_square(n: c_int) -> c_int {
            std::panic::catch_unwind(|| shapes::square_of(n as usize) as c_int).unwrap_or(-1)
        }
        #[no_mangle] pub extern "C" fn plugin_text(n: c_int) -> *mut c_char {
            let words: Vec<String> = (0..n).map(|i| format!("{i}:{}", shapes::ask(i as u32 % 2)))
                .collect();
            CString::new(words.join(" ")).unwrap().into_raw()
        }
        #[no_mangle] pub unsafe extern "C" fn plugin_free(s: *mut c_char) { drop(CString::from_raw(s)) }
    ''',

    'app/Cargo.toml': '''
        [package]
        name = "app"
        version = "1.0.0"
        edition = "2021"
        [dependencies]
        shapes = { path = "../shapes" }
    ''',
    'app/src/main.rs': r'''
        use shapes::*;
        use std::panic;
        use std::sync::{mpsc, atomic::Ordering};
        struct Loud(&'static str);
        impl Drop for Loud { fn drop(&mut self) { println!("dropped {}", self.0); } }
        fn deep(n: usize) -> u32 {
            let _loud = if n % 10 == 0 { Some(Loud("at ten")) } else { None };
            if n == 0 { square_of(1000) } else { deep(n - 1) + 1 }
        }
        fn main() {
            println!("{BUILT_BY} {} {}", Circle::name(), square_of(7));
            let (tx, rx) = mpsc::channel();
            let threads: Vec<_> = (0..4).map(|i| {
                let tx = tx.clone();
                std::thread::spawn(move || { for _ in 0..=i { tx.send(ask(9)).unwrap(); } })
            }).collect();
            drop(tx);
            println!("sum {}", rx.iter().sum::<u32>());
            for t in threads { t.join().unwrap(); }
            panic::set_hook(Box::new(|info| println!("hook: {}", info.location().unwrap().file()
                                                                     .ends_with("lib.rs"))));
            match panic::catch_unwind(|| deep(20)) {
                Ok(n) => println!("no panic: {n}"),
                Err(e) => println!("caught: {}", e.downcast_ref::<String>().unwrap()),
            }
            println!("circles {}", DROPPED.load(Ordering::SeqCst));
            let _ = panic::take_hook();
            let _last = Loud("main");
            if std::env::args().count() > 1 { square_of(55); }
        }
    ''',
}

APP_SAYS = '''\
script 2.3.4 Circle 49
sum 20
hook: true
dropped at ten
dropped at ten
dropped at ten
caught: no square of 1000
circles 2
dropped main
'''

# Loads the cdylib, or is linked with the staticlib.
C_USER = r'''
    #include <dlfcn.h>
    #include <stdio.h>
    #ifdef LOAD
    #define GET(name) (*(__typeof__(&name))dlsym(library, #name))
    #else
    #define GET(name) name
    #endif
    extern int PLUGIN_VERSION;
    int plugin_square(int);
    char *plugin_text(int);
    void plugin_free(char *);
    int main(void)
    {
    #ifdef LOAD
        void *library = dlopen(LOAD, RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            puts(dlerror());
            return 1;
        }
    #endif
        char *text = GET(plugin_text)(4);
        printf("%d %d %d %s\n", GET(PLUGIN_VERSION), GET(plugin_square)(9), GET(plugin_square)(99), text);
        GET(plugin_free)(text);
        return 0;
    }
'''
C_USER_SAYS = '7 81 -1 0:1 1:1 2:2 3:2\n'


@dataclass
class Cargo:
    """A toolchain at work in a workspace of its own."""
    command: str
    environment: dict
    folder: object

    def __call__(self, *args):
        done = subprocess.run([self.command, *args], cwd=self.folder, env=self.environment,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              timeout=2 * TIMEOUT)
        assert done.returncode == 0, f'cargo {args}:\n{done.stdout}{done.stderr}'
        return done.stdout


def toolchains():
    """The folders of the toolchains that are here, under names for the tests."""
    found = {}
    path = shutil.which('cargo')
    if path:
        found['cargo'] = os.path.dirname(path)
    if os.path.exists('/usr/bin/cargo') and found.get('cargo') != '/usr/bin':
        found['debian'] = '/usr/bin'
    return found


# Building takes far longer than linking: some cases are for the first toolchain only.
one_toolchain = pytest.mark.parametrize('cargo', list(toolchains())[:1] or ['cargo'], indirect=True)


def accepts(rustc, flags, env):
    return subprocess.run([rustc, *flags, '--print', 'cfg'], env=env, timeout=TIMEOUT,
                          capture_output=True).returncode == 0


@pytest.fixture(scope='module', params=toolchains() or ['cargo'])
def cargo(request, tmp_path_factory):
    where = toolchains().get(request.param)
    if not where:
        pytest.skip('cargo is not installed')
    for tool in 'rustc', 'clang':
        if not shutil.which(tool, path=f'{where}:/usr/bin'):
            pytest.skip(f'{tool} is not installed')
    folder = tmp_path_factory.mktemp('rust')
    for name, text in WORKSPACE.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    bin = folder / 'bin'
    bin.mkdir()
    # clang takes the name for its linker from -fuse-ld=; the wrapper notes that it was called.
    wrapper = bin / 'ld.kld'
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {folder}/links\nexec {os.path.abspath(KLD)} "$@"\n')
    wrapper.chmod(0o755)
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(('CARGO_', 'RUSTFLAGS', 'RUSTC', 'RUSTDOC'))}
    env['PATH'] = f'{bin}:{where}:/usr/bin:/bin'
    env['LC_ALL'] = 'C'
    flags = ['-C', 'linker=clang', '-C', 'link-arg=-fuse-ld=kld']
    # rustc 1.90 and later would choose a linker of its own; before, there is no such option.
    if accepts(f'{where}/rustc', ['-C', 'linker-features=-lld'], env):
        flags += ['-C', 'linker-features=-lld']
    env |= {'RUSTFLAGS': ' '.join(flags), 'RUSTC': f'{where}/rustc', 'CARGO_NET_OFFLINE': 'true',
            'CARGO_BUILD_JOBS': '2', 'CARGO_TERM_COLOR': 'never', 'CARGO_INCREMENTAL': '0'}
    return Cargo(f'{where}/cargo', env, folder)


def use_from_c(t, cargo, profile):
    built = cargo.folder / 'target' / profile
    user = t.cc('user.o', C_USER, f'-DLOAD="{built}/libplugin.so"')
    t.link('user', user, '-ldl')
    t.run('user', expect=C_USER_SAYS)
    exports = t.elf(built / 'libplugin.so').exports()
    assert exports == {'PLUGIN_VERSION', 'plugin_square', 'plugin_text', 'plugin_free'}
    t.link('linked', t.cc('linked.o', C_USER), built / 'libplugin.a', '-lpthread', '-ldl', '-lm')
    t.run('linked', expect=C_USER_SAYS)


def run_app(t, cargo, profile):
    shutil.copy(cargo.folder / 'target' / profile / 'app', t.path / 'app')
    t.run('app', expect=APP_SAYS)
    said = t.run('app', 'panic', status=101, env={'RUST_BACKTRACE': '1'})
    said.says('no square of 55', 'app::main', re.compile(r'at .*app/src/main\.rs:\d+'))


def test_workspace(t, cargo):
    """Built, tested and run without optimisation: proc-macro, build script, cdylib, panics."""
    cargo('build', '--offline', '--workspace')
    links = (cargo.folder / 'links').read_text().splitlines()
    assert [line for line in links if 'libmacros' in line]
    assert [line for line in links if 'build_script_build' in line]
    said = cargo('test', '--offline', '--workspace')
    assert said.count('test result: ok.') >= 3
    for test in 'tests::too_large - should panic', 'panic_reaches_the_join', 'tests::own_counts':
        assert f'test {test} ... ok' in said
    run_app(t, cargo, 'debug')
    use_from_c(t, cargo, 'debug')


@one_toolchain
def test_optimised_workspace(t, cargo):
    cargo('build', '--offline', '--workspace', '--release')
    run_app(t, cargo, 'release')
    use_from_c(t, cargo, 'release')


@one_toolchain
def test_stripped_without_unwinding(t, cargo):
    """panic=abort and strip=true: rustc has the linker strip."""
    cargo('build', '--offline', '-p', 'app', '--profile', 'small')
    app = cargo.folder / 'target' / 'small' / 'app'
    shutil.copy(app, t.path / 'app')
    assert not t.elf('app').symbols
    said = t.run('app', status=-6).stdout
    assert said.startswith('script 2.3.4 Circle 49\nsum 20\nhook: true\n')


def test_dynamic_std(t, cargo):
    """-C prefer-dynamic: the program takes the standard library from libstd-*.so."""
    rustc = cargo.environment['RUSTC']
    t.write('main.rs', r'''
        use std::collections::BTreeMap;
        fn main() {
            let caught = std::panic::catch_unwind(|| { let v: Vec<i32> = vec![]; v[std::env::args().count()] });
            let map: BTreeMap<i32, String> = (0..3).map(|i| (i, format!("<{i}>"))).collect();
            println!("{} {:?}", caught.is_err(), map);
        }
    ''')
    t.tool(rustc, *cargo.environment['RUSTFLAGS'].split(), '-C', 'prefer-dynamic', '-o', 'app',
           'main.rs', env=cargo.environment)
    assert [n for n in t.elf('app').needed if n.startswith('libstd-')]
    root = subprocess.run([rustc, '--print', 'sysroot'], env=cargo.environment, text=True,
                          capture_output=True, timeout=TIMEOUT, check=True).stdout.strip()
    folders = [f'{root}/lib', f'{root}/lib/rustlib/x86_64-unknown-linux-gnu/lib']
    t.run('app', env={'LD_LIBRARY_PATH': ':'.join(folders)},
          expect='true {0: "<0>", 1: "<1>", 2: "<2>"}\n')
