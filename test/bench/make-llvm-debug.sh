#!/bin/bash
# llvm-tblgen and llvm-objdump of LLVM 19 at -O0 -g: 150 and 490 objects, most of them members of
# archives; merging the strings of the debug info dominates. Compiling them takes ten minutes on two
# CPUs and 1.4 GB. The source is that of Debian's package.
#   usage: make-llvm-debug.sh DEST
#   link-tblgen.rsp, link-objdump.rsp
. "$(dirname "$0")/lib.sh"
mkdir -p "${1:?usage: $0 DEST}"
cd "$1"
version=19.1.7
sha256=ae498f3bc58ae2d9f64ef5f0c035c4240152bf015a5b7738b15c22e93bdc97ce
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
# apt's downloader, as it knows the proxies of this machine. It leaves alone what is there and whole.
/usr/lib/apt/apt-helper download-file \
    "$mirror/pool/main/l/llvm-toolchain-19/llvm-toolchain-19_$version.orig.tar.xz" \
    "$PWD/llvm.tar.xz" SHA256:$sha256
mkdir -p src
tar xf llvm.tar.xz -C src --strip-components=1 --wildcards '*/llvm/*' '*/cmake/*' '*/third-party/*' \
    --exclude='*/test/*' --exclude='*/unittests/*' --exclude='*/docs/*'
rm llvm.tar.xz
off='ENABLE_ZLIB ENABLE_ZSTD ENABLE_LIBXML2 ENABLE_LIBEDIT INCLUDE_TESTS
    INCLUDE_BENCHMARKS INCLUDE_EXAMPLES INCLUDE_DOCS ENABLE_BINDINGS ENABLE_ASSERTIONS'
cmake -G Ninja -S src/llvm -B build -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19 \
    -DCMAKE_BUILD_TYPE=Debug '-DCMAKE_C_FLAGS_DEBUG=-O0 -g' '-DCMAKE_CXX_FLAGS_DEBUG=-O0 -g' \
    -DLLVM_TARGETS_TO_BUILD=X86 -DLLVM_TABLEGEN=/usr/lib/llvm-19/bin/llvm-tblgen \
    $(printf -- '-DLLVM_%s=OFF ' $off) > cmake.log
ninja -C build -j"$JOBS" llvm-tblgen llvm-objdump > ninja.log
# The response files' relative paths start there.
echo build > cwd
for t in tblgen objdump; do
    command=$(ninja -C build -t commands "llvm-$t" | tail -n 1)
    command=${command#*&& }
    command=${command% && :}
    (cd build && eval "capture ../link-$t ${command/-o bin\/llvm-$t/}")
done
cat > check.sh <<'END'
#!/bin/sh
"$1" --version | grep -q 'LLVM version 19'
END
chmod +x check.sh
