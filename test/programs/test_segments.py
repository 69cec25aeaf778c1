"""What the output looks like to the kernel and to ld.so: segments, protection, notes."""

import pytest

from kldtest import KINDS
from kldtest import deviates
from kldtest import only

HELLO = r'''
    #include <stdio.h>
    int data = 3;
    int *const pointer = &data;
    int main(void) { puts("hello"); return *pointer; }
'''


def hello(t, *flags, kind='pie', out='app', source=HELLO):
    kind = KINDS[kind]
    t.link(out, *kind.ldflags, t.cc(f'{out}.o', source, *kind.cflags), *flags)
    t.run(out, expect='hello\n', status=3)
    return t.elf(out)


def pages(segment, size=4096):
    """The numbers of the pages of the file that are mapped for a segment."""
    return set(range(segment.offset // size, -(-(segment.offset + segment.filesz) // size)))


def test_segments_obey_the_rules_of_the_loader(t, kind):
    elf = hello(t, kind=kind.name)
    loads = elf.loads()
    for p in loads:
        assert p.vaddr % p.align == p.offset % p.align
        assert p.filesz <= p.memsz
        assert p.align & (p.align - 1) == 0 and p.align >= 4096
    for before, after in zip(loads, loads[1:]):
        assert before.vaddr + before.memsz <= after.vaddr
    assert loads[0].offset == 0
    assert not [p for p in loads if 'W' in p.flags and 'X' in p.flags]


def test_headers_are_loaded(t, kind):
    elf = hello(t, kind=kind.name)
    first = elf.loads()[0]
    assert elf.phoff + 56 * len(elf.segments) <= first.filesz
    phdr = elf.segment('PHDR')
    if kind.dynamic:
        assert phdr.vaddr == first.vaddr + elf.phoff
        assert elf.segments.index(phdr) < elf.segments.index(elf.segment('INTERP'))
        assert elf.segments.index(elf.segment('INTERP')) < elf.segments.index(first)


def test_sections_lie_in_segments_of_their_kind(t, kind):
    elf = hello(t, kind=kind.name)
    for s in elf.sections:
        if 'A' not in s.flags or not s.size or (s.type == 'NOBITS' and 'T' in s.flags):
            continue
        p = elf.load_of(s.addr)
        assert p and s.end <= p.vaddr + p.memsz, f'{s} is not loaded'
        assert 'W' not in s.flags or 'W' in p.flags, f'{s} is not writable'
        assert 'X' not in s.flags or 'X' in p.flags, f'{s} is not executable'
        if s.type != 'NOBITS':
            assert s.offset - p.offset == s.addr - p.vaddr


def test_sections_do_not_overlap(t, kind):
    elf = hello(t, kind=kind.name)
    loaded = sorted((s for s in elf.sections if 'A' in s.flags and s.size
                     and not (s.type == 'NOBITS' and 'T' in s.flags)), key=lambda s: s.addr)
    for before, after in zip(loaded, loaded[1:]):
        assert before.end <= after.addr, f'{before} and {after}'
    in_file = sorted((s for s in elf.sections if s.type not in ('NULL', 'NOBITS') and s.size),
                     key=lambda s: s.offset)
    for before, after in zip(in_file, in_file[1:]):
        assert before.offset + before.size <= after.offset, f'{before} and {after}'


def test_addresses_obey_section_alignment(t, kind):
    for s in hello(t, kind=kind.name).sections:
        if 'A' in s.flags and s.align:
            assert s.addr % s.align == 0, s


def test_separate_code_shares_no_page_with_data(t):
    elf = hello(t, '-Wl,-z,separate-code')
    code = [p for p in elf.loads() if 'X' in p.flags]
    data = [p for p in elf.loads() if 'X' not in p.flags]
    assert code and 'R' in {p.flags for p in data}
    for c in code:
        for d in data:
            assert not pages(c) & pages(d)


def test_noseparate_code_saves_pages(t):
    small = hello(t, '-Wl,-z,noseparate-code', out='small')
    large = hello(t, '-Wl,-z,separate-code', out='large')
    assert len(small.bytes) < len(large.bytes)


@deviates(bfd='not known to it')
@pytest.mark.parametrize('options, one', [(['--no-rosegment'], True),
                                          (['--no-rosegment', '--rosegment'], False)])
def test_no_rosegment(t, options, one):
    elf = hello(t, '-Wl,-z,separate-code', *(f'-Wl,{o}' for o in options))
    flags = [p.flags for p in elf.loads() if 'W' not in p.flags]
    assert ('R' not in flags) == one
    assert any('X' in f for f in flags)
    t.run('app', status=3)


@deviates(strict=False, bfd='leaves .got out for riscv64')
def test_relro_covers_what_is_constant_after_relocation(t):
    elf = hello(t, '-Wl,-z,relro', '-Wl,-z,now')
    relro = elf.segment('GNU_RELRO')
    for name in ('.dynamic', '.init_array', '.fini_array', '.data.rel.ro', '.got'):
        s = elf.section(name)
        if s:
            assert relro.vaddr <= s.addr and s.end <= relro.vaddr + relro.memsz, name
    for name in ('.data', '.bss'):
        s = elf.section(name)
        assert not relro.vaddr <= s.addr < relro.vaddr + relro.memsz, name


def test_relro_ends_on_a_page(t, kind):
    """ld.so protects whole pages: the end of the region must not be rounded down."""
    elf = hello(t, '-Wl,-z,relro', kind=kind.name)
    relro = elf.segment('GNU_RELRO')
    assert (relro.vaddr + relro.memsz) % 4096 == 0


WRITE_TO_CONSTANT = r'''
    extern char *const table[];
    char *const table[] = { (char *)table, 0 };
    int main(void) { *(char *volatile *)&table[1] = "written"; return 0; }
'''


@pytest.mark.parametrize('name', ['pie', 'static-pie'])
def test_relro_is_enforced(t, name):
    kind = KINDS[name]
    a = t.cc('a.o', WRITE_TO_CONSTANT, *kind.cflags)
    t.link('guarded', *kind.ldflags, '-Wl,-z,relro', a)
    t.run('guarded', status=-11)
    t.link('open', *kind.ldflags, '-Wl,-z,norelro', a)
    t.run('open')
    assert t.elf('open').segment('GNU_RELRO') is None


@deviates(strict=False, bfd='not for riscv64')
@pytest.mark.parametrize('mode', ['now', 'lazy'])
def test_got_for_functions_is_protected_when_bound_at_start(t, mode):
    elf = hello(t, '-Wl,-z,relro', f'-Wl,-z,{mode}')
    slot = next(r.offset for r in elf.dynrelocs if r.symbol == 'puts')
    relro = elf.segment('GNU_RELRO')
    assert (relro.vaddr <= slot < relro.vaddr + relro.memsz) == (mode == 'now')


def test_stack_is_not_executable(t, kind):
    assert hello(t, kind=kind.name).segment('GNU_STACK').flags == 'RW'


def test_execstack_option(t):
    assert hello(t, '-Wl,-z,execstack').segment('GNU_STACK').flags == 'RWX'


WANTS_EXECUTABLE_STACK = '.section .note.GNU-stack,"x",%progbits\n'


@deviates(lld='wants -z execstack')
def test_objects_may_ask_for_an_executable_stack(t):
    x = t.asm('x.o', WANTS_EXECUTABLE_STACK)
    assert hello(t, x).segment('GNU_STACK').flags == 'RWX'
    assert hello(t, x, '-Wl,-z,noexecstack', out='app2').segment('GNU_STACK').flags == 'RW'


@deviates(strict=False, lld='wants -z execstack')
def test_objects_without_stack_note_get_an_executable_stack(t):
    """On x86-64, whose first programs had no such notes. Elsewhere there is nothing to guess."""
    t.asm('x.o', '.globl unused\nunused: ret\n')
    t.cc('a.o', 'int main(void) { return 0; }')
    result = t.link('app', 'a.o', 'x.o')
    if t.target.name == 'x86_64':
        result.says('x.o', 'GNU-stack')
    else:
        result.silent()
    flags = 'RWX' if t.target.name == 'x86_64' else 'RW'
    assert t.elf('app').segment('GNU_STACK').flags == flags


def test_stack_size_option(t):
    elf = hello(t, '-Wl,-z,stack-size=0x123000')
    assert elf.segment('GNU_STACK').memsz == 0x123000


@pytest.mark.parametrize('size', [0x1000, 0x10000, 0x200000])
def test_max_page_size(t, size):
    elf = hello(t, f'-Wl,-z,max-page-size={size:#x}')
    assert all(p.align == size for p in elf.loads())


@deviates(lld='refuses the option')
def test_text_segment_option(t):
    kind = KINDS['no-pie']
    a = t.cc('a.o', HELLO, *kind.cflags)
    t.link('app', *kind.ldflags, '-Wl,-Ttext-segment=0x800000', a)
    assert t.elf('app').loads()[0].vaddr == 0x800000
    t.run('app', expect='hello\n', status=3)


@deviates(bfd='since 2.41 only')
def test_image_base_option(t):
    kind = KINDS['no-pie']
    t.link('app', *kind.ldflags, '-Wl,--image-base=0x800000', t.cc('a.o', HELLO, *kind.cflags))
    assert t.elf('app').loads()[0].vaddr == 0x800000
    t.run('app', expect='hello\n', status=3)


NO_LIBC = r'''
    .globl _start
    _start:
    #if defined(__x86_64__)
        mov $60, %eax
        mov value(%rip), %edi
        syscall
    #elif defined(__aarch64__)
        adrp x0, value
        ldr w0, [x0, :lo12:value]
        mov x8, #93
        svc #0
    #else
        lw a0, value
        li a7, 93
        ecall
    #endif
    .data
    value: .4byte 42
    .section .note.GNU-stack,"",%progbits
'''


def test_omagic_puts_all_in_one_writable_segment(t):
    t.asm('a.o', NO_LIBC)
    t.ld('app', '-N', 'a.o')
    elf = t.elf('app')
    assert [p.flags for p in elf.loads()] == ['RWX']
    t.run('app', status=42)


def test_nmagic_does_not_align_sections_to_pages(t):
    t.asm('a.o', NO_LIBC)
    t.ld('app', '-n', 'a.o')
    elf = t.elf('app')
    assert all(p.align < 4096 for p in elf.loads())


def test_eh_frame_header(t, compiler, kind):
    a = t.cc('a.o', HELLO + 'int other(void) { return data; }', '-fasynchronous-unwind-tables',
             *kind.cflags)
    t.link('app', *kind.ldflags, '-Wl,--eh-frame-hdr', a)
    elf = t.elf('app')
    segment, section = elf.segment('GNU_EH_FRAME'), elf.section('.eh_frame_hdr')
    assert (segment.vaddr, segment.memsz) == (section.addr, section.size)
    count = int.from_bytes(section.data[8:12], 'little')
    assert section.size == 12 + 8 * count and count >= 2
    starts = [int.from_bytes(section.data[i:i + 4], 'little', signed=True)
              for i in range(12, section.size, 8)]
    assert starts == sorted(starts)
    assert elf.symbol('main').value - section.addr in starts


def test_no_eh_frame_header(t):
    elf = hello(t, '-Wl,--no-eh-frame-hdr')
    assert elf.section('.eh_frame_hdr') is None and elf.segment('GNU_EH_FRAME') is None


GNU_BUILD_ID = 3


@pytest.mark.parametrize('style, size', [('sha1', 20), ('md5', 16), ('uuid', 16)])
def test_build_id_styles(t, style, size):
    assert len(hello(t, f'-Wl,--build-id={style}').note('GNU', GNU_BUILD_ID)) == size


def test_build_id_given_or_refused(t):
    assert hello(t, '-Wl,--build-id=0x0123456789ABCdef').note('GNU', GNU_BUILD_ID).hex() \
        == '0123456789abcdef'
    assert hello(t, '-Wl,--build-id=none').note('GNU', GNU_BUILD_ID) is None
    assert hello(t, '-Wl,--build-id=none', '-Wl,--build-id').note('GNU', GNU_BUILD_ID)
    assert hello(t, '-Wl,--build-id', '-Wl,--build-id=none').note('GNU', GNU_BUILD_ID) is None


def test_build_id_depends_on_the_content_only(t):
    def build_id(out, source):
        return hello(t, '-Wl,--build-id', source=source, out=out).note('GNU', GNU_BUILD_ID)
    first = build_id('app', HELLO)
    assert build_id('app', HELLO) == first
    assert build_id('app', HELLO.replace('int data', 'int extra = 9; int data')) != first


def test_notes_are_loaded_and_joined(t):
    """Two .note sections with different owners, one NOTE segment each alignment at most."""
    t.asm('x.o', r'''
        .section .note.custom,"a",%note
        .balign 4
        .4byte 7, 4, 0x55
        .asciz "Custom"
        .byte 0
        .4byte 0x01020304
        .section .note.GNU-stack,"",%progbits
        ''')
    assert hello(t, 'x.o').note('Custom', 0x55) == b'\x04\x03\x02\x01'


@only('x86_64', 'aarch64')
def test_gnu_property_is_the_common_part(t):
    """IBT and SHSTK, or BTI and PAC, stay only if every object has them."""
    def property_of(elf):
        section = elf.section('.note.gnu.property')
        return section.data[16:] if section else b''
    number, flag, every, one = {
        'x86_64': (0xc0000002, '-fcf-protection', 'full', 'branch'),
        'aarch64': (0xc0000000, '-mbranch-protection', 'standard', 'bti')}[t.target.name]
    feature_1_and = number.to_bytes(4, 'little')
    flags = ('-nostdlib', '-Wl,-e,main')
    t.cc('a.o', 'int main(void) { return 0; }', f'{flag}={every}')
    t.cc('b.o', 'int f(void) { return 0; }', f'{flag}={every}')
    t.cc('c.o', 'int g(void) { return 0; }', f'{flag}={one}')
    t.cc('d.o', 'int h(void) { return 0; }', f'{flag}=none')
    t.link('both', *flags, 'a.o', 'b.o')
    t.link('ibt', *flags, 'a.o', 'c.o')
    t.link('none', *flags, 'a.o', 'd.o')
    assert feature_1_and + b'\4\0\0\0\3\0\0\0' in property_of(t.elf('both'))
    assert t.elf('both').segment('GNU_PROPERTY')
    assert feature_1_and + b'\4\0\0\0\1\0\0\0' in property_of(t.elf('ibt'))
    assert feature_1_and not in property_of(t.elf('none'))


def test_compiler_comments_are_merged(t):
    """.comment holds each version string once."""
    t.cc('a.o', HELLO)
    t.cc('b.o', 'int unused;')
    t.link('app', 'a.o', 'b.o')
    strings = t.elf('app').section('.comment').data.rstrip(b'\0').split(b'\0')
    assert len(strings) == len(set(strings))
    assert any(s.startswith(b'GCC:') for s in strings)


def test_empty_and_unknown_sections_pass_through(t):
    t.asm('x.o', r'''
        .section .empty_section,"aw",%progbits
        .section my_section,"a",%progbits
        .4byte 0x61626364
        .section .not_loaded,"",%progbits
        .4byte 0x65666768
        .section .note.GNU-stack,"",%progbits
        ''')
    elf = hello(t, 'x.o')
    assert elf.section('my_section').data == b'dcba'
    assert elf.section('.not_loaded').data == b'hgfe'
    assert elf.section('.not_loaded').addr == 0


def test_sections_are_gathered_by_prefix(t):
    t.asm('x.o', r'''
        .section .text.hot.f,"ax",%progbits
        .4byte 0
        .section .rodata.x,"a",%progbits
        .4byte 0
        .section .data.rel.ro.x,"aw",%progbits
        .4byte 0
        .section .data.x,"aw",%progbits
        .4byte 0
        .section .bss.x,"aw",%nobits
        .zero 4
        .section .tbss.x,"awT",%nobits
        .zero 4
        .section .note.GNU-stack,"",%progbits
        ''')
    names = hello(t, 'x.o').section_names()
    assert not [n for n in names if n.endswith('.x') or n == '.text.hot.f']
    assert {'.text', '.rodata', '.data.rel.ro', '.data', '.bss', '.tbss'} <= set(names)
