"""Compressed debug sections, in and out."""

import struct
import zlib

import pytest

from kldtest import deviates

SOURCE = '''
struct thing { int member; struct thing *next; };
static struct thing *walk(struct thing *t) { while (t->next) t = t->next; return t; }
int main(void) { struct thing a = {1, 0}, b = {2, &a}; return walk(&b)->member - 1; }
'''
FORMATS = ['zlib', 'zstd']
CHDR = '<IIQQ'


def debug_info(t, name):
    text = t.tool('readelf', '--debug-dump=info', name).stdout
    assert 'DW_TAG_structure_type' in text
    return text[text.index('Compilation Unit'):]


def unpacked(t, name, section):
    t.objcopy('--decompress-debug-sections', name, name + '.plain')
    return t.elf(name + '.plain').section(section).data


# -- inputs -------------------------------------------------------------------------------------

@deviates(strict=False, lld='its 14 knows no zstd')
@pytest.mark.parametrize('how', FORMATS)
def test_compressed_inputs_are_unpacked(t, compiler, how):
    plain = t.cc('plain.o', SOURCE, '-g')
    t.objcopy(f'--compress-debug-sections={how}', plain, 'packed.o')
    assert 'C' in t.elf('packed.o').section('.debug_info').flags
    t.link('a', plain)
    t.link('b', 'packed.o')
    assert t.elf('a').bytes == t.elf('b').bytes
    t.run('b')


@deviates(lld='has dropped them')
@pytest.mark.parametrize('flags', ([], ['-Wl,--gc-sections'], ['-r', '-nostdlib']))
def test_gnu_zdebug_inputs_are_unpacked(t, flags):
    """What compilers wrote before SHF_COMPRESSED: .zdebug_info with a header of its own."""
    many = SOURCE + '\n'.join(f'int padding_{i}(int a) {{ return a + {i}; }}' for i in range(200))
    plain = t.cc('plain.o', many, '-g', '-gdwarf-4', '-ffunction-sections')
    t.objcopy('--compress-debug-sections=zlib-gnu', plain, 'packed.o')
    assert t.elf('packed.o').section('.zdebug_info')
    t.link('a', *flags, plain)
    t.link('b', *flags, 'packed.o')
    a, b = t.elf('a'), t.elf('b')
    assert [s.name for s in b.sections if 'zdebug' in s.name] == []
    for name in '.debug_info', '.debug_line', '.debug_ranges', '.debug_str':
        assert a.section(name).data == b.section(name).data, name
    assert debug_info(t, 'b')


def test_malformed_zdebug(t):
    t.objcopy('--compress-debug-sections=zlib-gnu', t.cc('a.o', SOURCE, '-g'), 'b.o')
    s = t.elf('b.o').section('.zdebug_info')
    data = bytearray(t.elf('b.o').bytes)
    at = s.offset + 4
    data[at:at + 8] = struct.pack('>Q', 1 << 60)
    t.write('b.o', bytes(data))
    t.link('app', 'b.o', ok=False).says('b.o', '.zdebug_info', 'cannot be true')


def corrupt(t, how, change):
    """An object whose compressed .debug_info is changed by change(bytearray)."""
    t.objcopy(f'--compress-debug-sections={how}', t.cc('a.o', SOURCE, '-g'), 'b.o')
    elf = t.elf('b.o')
    s = elf.section('.debug_info')
    data = bytearray(elf.bytes)
    part = bytearray(s.data)
    change(part)
    data[s.offset:s.end - s.addr + s.offset] = part
    t.write('b.o', bytes(data))


def put(offset, fmt, value):
    return lambda data: struct.pack_into(fmt, data, offset, value)


def flip(data):
    for i in range(30, len(data)):
        data[i] ^= 0x5a


@deviates(strict=False, bfd='says it differently', lld='says it differently')
@pytest.mark.parametrize('how', FORMATS)
@pytest.mark.parametrize('change, message', [
    pytest.param(put(0, '<I', 77), 'neither zlib nor zstd', id='kind'),
    pytest.param(put(8, '<Q', 1 << 60), 'cannot be true', id='bomb'),
    pytest.param(put(8, '<Q', 3), 'corrupt', id='too-much'),
    pytest.param(put(8, '<Q', 4000), 'corrupt', id='too-little'),
    pytest.param(flip, 'corrupt', id='data'),
])
def test_malformed_inputs(t, how, change, message):
    corrupt(t, how, change)
    t.link('app', 'b.o', ok=False).says('b.o', '.debug_info', message)


# -- outputs ------------------------------------------------------------------------------------

@deviates(lld='aligns the header to 1, and its 14 knows no zstd')
@pytest.mark.parametrize('how', FORMATS)
def test_outputs_are_compressed(t, compiler, how):
    objects = [t.cc('a.o', SOURCE, '-g')]
    objects += [t.cc(f'{n}.o', SOURCE.replace('main', f'f{n}'), '-g') for n in range(8)]
    t.link('plain', *objects)
    t.link('packed', f'-Wl,--compress-debug-sections={how}', *objects)
    t.run('packed')
    s = t.elf('packed').section('.debug_info')
    kind, _, size, align = struct.unpack_from(CHDR, s.data)
    plain = t.elf('plain').section('.debug_info')
    assert 'C' in s.flags and s.align == 8
    assert (kind, size, align) == (FORMATS.index(how) + 1, plain.size, plain.align)
    assert s.size < plain.size
    if how == 'zlib':
        assert zlib.decompress(s.data[24:]) == plain.data
    assert unpacked(t, 'packed', '.debug_info') == plain.data
    assert debug_info(t, 'packed') == debug_info(t, 'plain')


@deviates(strict=False, bfd='knows no --threads=N', lld='its 14 knows no zstd')
@pytest.mark.parametrize('how', FORMATS)
def test_large_sections_are_compressed_in_pieces(t, how):
    lines = ['.globl _start', '_start: ret', '.section .debug_thing,""']
    lines += [f'.8byte {i * i}, _start' for i in range(200_000)]
    t.asm('a.o', '\n'.join(lines) + '\n')
    t.ld('plain', 'a.o')
    plain = t.elf('plain').section('.debug_thing').data
    outputs = []
    for threads in 1, 3:
        t.ld('packed', f'--compress-debug-sections={how}', f'--threads={threads}', 'a.o')
        outputs.append(t.elf('packed').bytes)
    assert outputs[0] == outputs[1]
    assert t.elf('packed').section('.debug_thing').size < len(plain) / 2
    assert unpacked(t, 'packed', '.debug_thing') == plain


@deviates(lld='compresses it, and its 14 knows no zstd')
@pytest.mark.parametrize('how', FORMATS)
def test_what_would_grow_stays(t, how):
    t.asm('a.o', '.globl _start\n_start: ret\n.section .debug_small,""\n.4byte 1\n')
    t.ld('app', f'--compress-debug-sections={how}', 'a.o')
    s = t.elf('app').section('.debug_small')
    assert 'C' not in s.flags and s.data == b'\1\0\0\0'


def test_only_debug_sections_are_compressed(t):
    t.link('app', '-Wl,--compress-debug-sections=zlib', t.cc('a.o', SOURCE, '-g'))
    compressed = {s.name for s in t.elf('app').sections if 'C' in s.flags}
    assert compressed and all(name.startswith('.debug_') for name in compressed)


@deviates(lld='its 14 knows no zstd')
def test_a_debugger_reads_it(t):
    t.link('app', '-Wl,--compress-debug-sections=zstd', t.cc('a.o', SOURCE, '-g'))
    assert 'a.c:3' in t.tool('addr2line', '-e', 'app', hex(t.elf('app').symbol('walk').value)).stdout
