"""--reproduce: an archive from which the same link runs elsewhere; --chroot."""

import subprocess
import tarfile

import kldtest

SOURCE = '#include <stdio.h>\nint twice(int);\nint main(void) { printf("%d\\n", twice(21)); }\n'


def make_inputs(t):
    (t.path / 'sub').mkdir()
    t.cc('sub/main.o', SOURCE)
    t.ar('sub/libtwice.a', t.cc('twice.o', 'int twice(int x) { return 2 * x; }\n'))


def test_reproduced_link_gives_the_same_bytes(t):
    make_inputs(t)
    t.link('prog', 'sub/main.o', '-Lsub', '-ltwice', '-Wl,--reproduce=there.tar')
    with tarfile.open(t.path / 'there.tar') as tar:
        names = tar.getnames()
        tar.extractall(t.path / 'unpacked')
    assert all(name.startswith('there/') and '..' not in name for name in names)
    assert any(name.endswith('sub/libtwice.a') for name in names)
    for gone in ('sub/main.o', 'sub/libtwice.a', 'twice.o'):
        (t.path / gone).unlink()
    subprocess.run([str(kldtest.KLD), '@response.txt'], cwd=t.path / 'unpacked/there', check=True,
                   timeout=60)
    assert (t.path / 'unpacked/there/prog').read_bytes() == (t.path / 'prog').read_bytes()
    t.run('unpacked/there/prog', expect='42\n')


def test_failed_link_is_reproduced_too(t):
    make_inputs(t)
    t.link('prog', 'sub/main.o', '-Wl,--reproduce=there.tar', ok=False).says('twice')
    with tarfile.open(t.path / 'there.tar') as tar:
        assert 'there/response.txt' in tar.getnames()


def test_unwritable_archive_is_an_error(t):
    make_inputs(t)
    t.link('prog', 'sub/main.o', '-Lsub', '-ltwice', '-Wl,--reproduce=no/such/there.tar',
           ok=False).says('no/such/there.tar')
