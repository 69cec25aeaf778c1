#!/usr/bin/env python3
"""Turns what `cc -### ... -o KLD_OUT` prints into a response file with the linker's arguments.

One argument a line; the linker, -o and the plugin for link-time optimisation are left out.
"""

import os
import re
import shlex
import sys

LINKER = re.compile(r'(ld|collect2|ld\.\w+|mold)$')


def linker_arguments(text):
    line = [l for l in text.split('\n') if 'KLD_OUT' in l and not l.startswith('COLLECT_')][-1]
    argv = shlex.split(line)
    while not LINKER.search(argv[0]):
        argv.pop(0)                      # settings of the environment before the command
    return argv[1:]


def plain(argv):
    seen = set()
    words = iter(argv)
    for word in words:
        if word in ('-o', '-plugin'):
            next(words)
            continue
        if word.startswith(('-plugin-opt', '-fuse-ld')):
            continue
        if word.startswith('-L') and len(word) > 2:
            word = '-L' + os.path.normpath(word[2:])
            if word in seen:
                continue
            seen.add(word)
        elif word.startswith('/') and '/../' in word and os.path.exists(word):
            word = os.path.normpath(word)
        yield word


def main():
    for word in plain(linker_arguments(sys.stdin.read())):
        print(shlex.quote(word) if word else '""')


main()
