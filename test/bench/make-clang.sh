#!/bin/bash
# A working `clang -cc1` with every target and clang's tools, linked statically from Debian's LLVM 14
# archives: 460 MB of input, built with -O2 -ffunction-sections and without debug info.
#   usage: make-clang.sh DEST
#   link-whole.rsp   --whole-archive: 2,500 objects, 200 MB of output
#   link-gc.rsp      the same with --gc-sections
#   link-lazy.rsp    the archives searched as usual, as the link of a real clang does
# libLLVMSupport.a is a copy with a member more, of which edits.json has a variant ("body").
. "$(dirname "$0")/lib.sh"
mkdir -p "${1:?usage: $0 DEST}"
cd "$1"
llvm=/usr/lib/llvm-14
compile="clang++-14 -O1 -fPIE -std=c++14 -fno-rtti -fno-exceptions -ffunction-sections
    $($llvm/bin/llvm-config --cppflags)"
$compile -c "$HERE/clang-main.cpp" -o main.o
for v in same body; do
    mkdir -p edits/$v
    $compile $([ $v = same ] || echo -DEDITED) -c "$HERE/clang-polly.cpp" -o edits/$v/polly.o
    cp $llvm/lib/libLLVMSupport.a edits/$v/
    ar rD edits/$v/libLLVMSupport.a edits/$v/polly.o
done
cp edits/same/libLLVMSupport.a .
echo '{"body": [["libLLVMSupport.a", "edits/same/libLLVMSupport.a", "edits/body/libLLVMSupport.a"]]}' \
    > edits.json
# Left out: archives that need libpfm, curl, ffi, libedit or grpc, and the fuzzers' main.
libs=$(ls $llvm/lib/libclang*.a $llvm/lib/libLLVM*.a $llvm/lib/libfindAllSymbols.a | grep -v -E \
    'Exegesis|Debuginfod|Interpreter|FuzzerCLI|FuzzMutate|LineEditor|clangdRemote|clangdMonitoring' |
    sed "s|^$llvm/lib/\(libLLVMSupport.a\)$|\1|")
system='-lrt -ldl -lm -lz3 -lz -ltinfo -lxml2 -lpthread'
cxx='clang++-14 -fno-lto -pie'
whole="main.o -Wl,--whole-archive $libs -Wl,--no-whole-archive $system"
capture link-whole $cxx $whole
capture link-gc $cxx -Wl,--gc-sections $whole
capture link-lazy $cxx -Wl,--gc-sections main.o -Wl,--start-group $libs -Wl,--end-group $system
cat > check.sh <<'END'
#!/bin/sh
# The linked compiler compiles, for two targets.
set -e
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
echo 'int f(int x) { return x * 3 + 1; }' > "$t/a.c"
"$1" -triple x86_64-linux-gnu -O2 -emit-obj "$t/a.c" -o "$t/a.o"
"$1" -triple riscv64-linux-gnu -O2 -S "$t/a.c" -o "$t/a.s"
grep -q 'f:' "$t/a.s"
END
chmod +x check.sh
