"""Notes that the linker makes: build ids, package metadata."""

import re
import shutil

import pytest

from kldtest import KINDS
from kldtest import deviates
from kldtest import only

SIZES = {'fast': 16, 'md5': 16, 'sha1': 20, 'tree': 20, 'sha256': 32, 'uuid': 16}
BUILD_ID, PACKAGE = 3, 0xcafe1a7e

styles = deviates(bfd='has fewer styles', strict=False)

pytestmark = deviates(strict=False, gold='keeps to rules of its own',
                      lld='keeps to rules of its own', mold='keeps to rules of its own')


def source(n=1):
    return f'#include <stdio.h>\nint main(void) {{ puts("{n}"); return 0; }}'


def program(t, *flags, out='app', n=1, kind='pie'):
    kind = KINDS[kind]
    t.link(out, t.cc(f'a{n}.o', source(n), *kind.cflags), *kind.ldflags, *flags)
    t.run(out, expect=f'{n}\n')
    return t.elf(out)


def build_id(elf):
    return elf.note('GNU', BUILD_ID)


@styles
@pytest.mark.parametrize('style', sorted(SIZES))
def test_styles(t, style):
    elf = program(t, f'-Wl,--build-id={style}')
    assert len(build_id(elf)) == SIZES[style]
    assert len(set(build_id(elf))) > 4, 'the id looks empty'
    assert elf.section('.note.gnu.build-id').type == 'NOTE'
    assert elf.section('.note.gnu.build-id').align == 4


def test_default_is_sha1(t, kind):
    assert len(build_id(program(t, '-Wl,--build-id', kind=kind.name))) == 20


def test_none(t):
    elf = program(t, '-Wl,--build-id=sha1', '-Wl,--build-id=none')
    assert build_id(elf) is None and not elf.section('.note.gnu.build-id')


def test_hexadecimal(t):
    elf = program(t, '-Wl,--build-id=0x12-34:aBcd')
    assert build_id(elf) == bytes.fromhex('1234abcd')


@pytest.mark.parametrize('text', ['0x', '0xabc', '0xzz', 'sha512'])
def test_unknown_style_is_ignored(t, text):
    a = t.cc('a.o', source())
    t.link('app', a, '-Wl,--build-id=' + text).says('style', 'ignored')
    t.run('app', expect='1\n')


@styles
@pytest.mark.parametrize('style', [s for s in sorted(SIZES) if s != 'uuid'])
def test_same_inputs_give_the_same_id(t, style):
    flag = f'-Wl,--build-id={style}'
    first = build_id(program(t, flag, out='one'))
    assert build_id(program(t, flag, out='two')) == first
    assert build_id(program(t, flag, '-Wl,--no-threads', out='three')) == first
    assert (t.path / 'one').read_bytes() == (t.path / 'two').read_bytes()


@styles
@pytest.mark.parametrize('style', sorted(SIZES))
def test_other_inputs_give_another_id(t, style):
    flag = f'-Wl,--build-id={style}'
    assert build_id(program(t, flag, n=1)) != build_id(program(t, flag, n=2))


def test_any_change_of_the_output_changes_the_id(t):
    """Also far behind the note, and in what is not loaded."""
    big = 'const char big[3000000] = {1}; __asm__(".section .extra\\n.byte %d");'
    ids = set()
    for n in (1, 2):
        a = t.cc('a.o', source() + big % n)
        t.link('app', a, '-Wl,--build-id')
        ids.add(build_id(t.elf('app')))
    assert len(ids) == 2


@styles
def test_uuids_differ(t):
    ids = {build_id(program(t, '-Wl,--build-id=uuid', out=o)) for o in ('one', 'two')}
    assert len(ids) == 2
    for i in ids:
        assert i[6] >> 4 == 4 and i[8] >> 6 == 2


def test_id_is_found_by_tools(t):
    elf = program(t, '-Wl,--build-id')
    if not shutil.which('readelf'):
        pytest.skip('readelf is not installed')
    text = t.tool('readelf', '-nW', 'app').stdout
    assert re.search(r'Build ID: (\w+)', text)[1] == build_id(elf).hex()


def test_stripping_does_not_change_the_id(t):
    elf = program(t, '-Wl,--build-id')
    t.tool(*t.target.command('strip'), '-o', 'stripped', 'app')
    assert build_id(t.elf('stripped')) == build_id(elf)


def note_of(elf, name):
    """Owner, type and contents of the note in a section."""
    data = elf.section(name).data
    assert data[:4] == b'\4\0\0\0'
    size = int.from_bytes(data[4:8], 'little')
    return data[12:15].decode(), int.from_bytes(data[8:12], 'little'), data[16:16 + size]


def test_id_of_a_relocatable_object(t):
    t.ld('all.o', '-r', t.cc('a.o', source()), '--build-id')
    assert len(note_of(t.elf('all.o'), '.note.gnu.build-id')[2]) == 20


@deviates(bfd='keeps both', strict=False)
def test_ids_of_inputs_are_replaced(t):
    t.ld('all.o', '-r', t.cc('a.o', source()), '--build-id')
    t.link('app', 'all.o', '-Wl,--build-id=0xabcd')
    section = t.elf('app').section('.note.gnu.build-id')
    assert section.size == 16 + 4 and build_id(t.elf('app')) == b'\xab\xcd'


JSON = '{"type":"deb","name":"kld"}'


def test_package_metadata(t):
    t.ld('app', '-r', t.cc('a.o', source()), f'--package-metadata={JSON}')
    assert note_of(t.elf('app'), '.note.package') == ('FDO', PACKAGE, JSON.encode() + b'\0')


@deviates(bfd='newer versions do', strict=False)
@pytest.mark.parametrize('text, expected', [
    ('%7B%22a%22%3a1%7d', '{"a":1}'),
    ('%[lbrace]%[quot]a%[quot]:[1%[comma]%[space]2]%[rbrace]', '{"a":[1, 2]}'),
    ('100%', '100%'),
    ('%zz%[none]%2', '%zz%[none]%2'),
])
def test_package_metadata_with_escapes(t, text, expected):
    elf = program(t, f'-Wl,--package-metadata={text}')
    assert elf.note('FDO', PACKAGE) == expected.encode() + b'\0'


def test_empty_package_metadata_means_none(t):
    t.link('app', t.cc('a.o', source()), '-Wl,--package-metadata=')
    assert not t.elf('app').section('.note.package')


@deviates(bfd='newer versions decode it', strict=False)
@only('x86_64')
def test_notes_of_one_alignment_share_a_segment(t):
    elf = program(t, '-Wl,--build-id', f'-Wl,--package-metadata={JSON.replace(",", "%2C")}')
    segments = [p for p in elf.segments if p.type == 'NOTE']
    assert len({p.align for p in segments}) == len(segments)
    owners = [(n.owner, n.type) for n in elf.notes]
    assert ('GNU', BUILD_ID) in owners and ('FDO', PACKAGE) in owners
