#!/bin/bash
# Rust hello world, of rustc's own runtime and standard library: link.rsp.
#   usage: make-rust-hello.sh DEST
. "$(dirname "$0")/lib.sh"
mkdir -p "${1:?usage: $0 DEST}"
cd "$1"
# Debian's, where another is installed as well: that may bring a linker of its own.
rustc=rustc
[ ! -x /usr/bin/rustc ] || rustc=/usr/bin/rustc
cat > hello.rs <<'END_RS'
fn main() {
    println!("hello, world");
}
END_RS
# What rustc calls as the linker keeps the objects, which are temporary files, and the arguments.
cat > keep <<'END_KEEP'
#!/bin/bash
for a; do
    if [[ $a = */*.o && -f $a ]]; then
        cp "$a" "${a##*/}"
        a=${a##*/}
    fi
    args+=("$a")
done
printf '%s\0' "${args[@]}" > args
END_KEEP
chmod +x keep
mkdir rustc
$rustc -O -C linker=./keep hello.rs -o rustc/hello
mapfile -d '' -t args < args
kept=()
for ((i = 0; i < ${#args[@]}; i++)); do
    if [ "${args[i]}" = -o ]; then i=$((i + 1)); else kept+=("${args[i]}"); fi
done
capture link gcc -fno-use-linker-plugin "${kept[@]}"
cat > check.sh <<'END_CHECK'
#!/bin/sh
[ "$("$1")" = 'hello, world' ]
END_CHECK
chmod +x check.sh
