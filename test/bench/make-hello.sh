#!/bin/bash
# C hello world: link-dynamic.rsp (PIE), link-static.rsp, link-static-pie.rsp; and one in C++, with iostreams
# and a map, link-cxx.rsp (PIE).
#   usage: make-hello.sh DEST
. "$(dirname "$0")/lib.sh"
mkdir -p "${1:?usage: $0 DEST}"
cd "$1"
cat > hello.c <<'END'
#include <stdio.h>

int main(void)
{
    puts("hello, world");
    return 0;
}
END
gcc -O2 -fPIE -c hello.c
cat > hello-cxx.cc <<'END'
#include <iostream>
#include <map>
#include <string>

int main()
{
    std::map<std::string, std::string> greetings{{"hello", "world"}};
    for (const auto &[what, whom] : greetings)
        std::cout << what << ", " << whom << std::endl;
}
END
g++ -O2 -fPIE -c hello-cxx.cc
capture link-dynamic gcc -fno-use-linker-plugin -pie hello.o
capture link-static gcc -fno-use-linker-plugin -no-pie -static hello.o
capture link-static-pie gcc -fno-use-linker-plugin -static-pie hello.o
capture link-cxx g++ -fno-use-linker-plugin -pie hello-cxx.o
cat > check.sh <<'END'
#!/bin/sh
[ "$("$1")" = 'hello, world' ]
END
chmod +x check.sh
