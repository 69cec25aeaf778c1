"""The fuzzers of test/fuzz over their seeds, and over what earlier runs of `make fuzz` have kept.

No libFuzzer is needed: a small main() gives each file to the fuzzer's function, in a block of exactly
its size. The seeds are also given cut short and with bytes changed, the same ones every time.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from kldtest import REPO
from kldtest import TIMEOUT

FUZZ = REPO / 'test' / 'fuzz'
PARTS = Path(os.environ.get('KLD_LIB') or REPO / 'build' / 'libkld-parts.a')
CFLAGS = shlex.split(os.environ.get('KLD_CFLAGS', ''))
LIBS = ['-lb2', '-lnettle', '-liberty', '-lzstd', '-lz', '-pthread']
NAMES = sorted(f.stem[5:] for f in FUZZ.glob('fuzz_*.c'))
MOST = 300  # of the files that earlier runs have kept

MAIN = r'''
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void give(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

/* argv: how many changed copies of each, then the files */
int main(int argc, char **argv)
{
    static uint8_t data[1 << 22];
    uint32_t dice = 1;
    for (int i = 2; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        size_t size = file ? fread(data, 1, sizeof(data), file) : 0;
        if (!file)
            return 1;
        fclose(file);
        fprintf(stderr, "%s\n", argv[i]); /* the last one is the culprit */
        give(data, size);
        for (int k = 0; size && k < atoi(argv[1]); k++) {
            uint8_t *at[4], was[4];
            for (int b = 0; b < 4; b++) {
                dice = dice * 1664525 + 1013904223;
                at[b] = &data[(dice >> 4) % size];
                was[b] = *at[b];
                *at[b] = (uint8_t)(b & 1 ? dice >> 24 : "\0\1\x7f\xff"[dice >> 30]);
            }
            give(data, k % 4 ? size : (dice >> 4) % size);
            for (int b = 4; b-- > 0;)
                *at[b] = was[b];
        }
    }
    return 0;
}
'''


@pytest.mark.parametrize('name', NAMES)
def test_corpus(tmp_path, name):
    (tmp_path / 'main.c').write_text(MAIN)
    command = ['gcc', '-std=gnu17', '-g', '-O1', *CFLAGS, '-I', REPO, '-I', REPO / 'include', '-o',
               tmp_path / 'replay', tmp_path / 'main.c', FUZZ / f'fuzz_{name}.c', PARTS, *LIBS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    seeds = sorted((FUZZ / 'seeds' / name).iterdir())
    kept = sorted((REPO / 'build' / 'fuzz' / 'corpus' / name).glob('*'))[:MOST]
    assert seeds, 'a fuzzer without seeds'
    for changes, files in (('100', seeds), ('0', kept)):
        done = subprocess.run([tmp_path / 'replay', changes, *files], capture_output=True,
                              text=True, errors='replace', timeout=TIMEOUT)
        assert done.returncode == 0, f'status {done.returncode}\n{done.stderr[-6000:]}'
