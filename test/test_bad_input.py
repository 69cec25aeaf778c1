"""Objects, libraries and archives that are malformed, cut off or hostile.

Each gets one clear error that names the file, the place and the problem; never a crash, an endless
loop or memory without end. The cases are real files with a field or a few changed.
"""

import random
import resource
import struct
import subprocess
from dataclasses import dataclass

import pytest

from kldtest import KLD

SOURCE = r'''
int puts(const char *);
extern int outside, weak_one __attribute__((weak));
int common_one[100] __attribute__((common));
static int local[4] = {1, 2, 3, 4};
static int zeros[300];
_Thread_local int thread = 5;
_Thread_local int thread_zero;
int *pointer = &local[1];
int *const constant[] = {&outside, &weak_one, &zeros[3]};
static inline __attribute__((noinline)) int helper(int x) { return x + zeros[x & 7]; }
int used(int x)
{
    puts("text of the object");
    thread += x;
    return helper(x) + local[x & 3] + outside + thread_zero + common_one[x & 7];
}
__attribute__((constructor)) static void first(void) { zeros[0] = 1; }
'''

CXX = r'''
template <class T> struct Box { T x; virtual ~Box() {} T get() { return x; } };
inline int shared_inline() { static int n; return ++n; }
int cxx(int x)
{
    Box<int> b;
    b.x = x;
    try { if (x > 3) throw x; } catch (int y) { return y; }
    return b.get() + shared_inline();
}
'''

FIXED = r'''
int used(int);
int outside = 3;
int main(void) { return used(1); }
'''

EHDR = {'type': (16, 'H'), 'machine': (18, 'H'), 'version': (20, 'I'), 'entry': (24, 'Q'),
        'phoff': (32, 'Q'), 'shoff': (40, 'Q'), 'flags': (48, 'I'), 'ehsize': (52, 'H'),
        'phentsize': (54, 'H'), 'phnum': (56, 'H'), 'shentsize': (58, 'H'), 'shnum': (60, 'H'),
        'shstrndx': (62, 'H')}
SHDR = {'name': (0, 'I'), 'type': (4, 'I'), 'flags': (8, 'Q'), 'addr': (16, 'Q'),
        'offset': (24, 'Q'), 'size': (32, 'Q'), 'link': (40, 'I'), 'info': (44, 'I'),
        'addralign': (48, 'Q'), 'entsize': (56, 'Q')}
SYM = {'name': (0, 'I'), 'info': (4, 'B'), 'other': (5, 'B'), 'shndx': (6, 'H'), 'value': (8, 'Q'),
       'size': (16, 'Q')}
RELA = {'offset': (0, 'Q'), 'type': (8, 'I'), 'sym': (12, 'I'), 'addend': (16, 'q')}

ALLOC, MERGE, STRINGS, COMPRESSED = 2, 0x10, 0x20, 0x800
SYMTAB, NOBITS, REL, GROUP = 2, 8, 9, 17
TOP_BIT, HUGE = 1 << 63, (1 << 64) - 1


class Patch:
    """The bytes of an ELF file, to be changed by field."""

    def __init__(self, data):
        self.data = bytearray(data)
        self.shoff = self.get(EHDR, 0, 'shoff')
        self.nsections = self.get(EHDR, 0, 'shnum')
        names = self.field(self.get(EHDR, 0, 'shstrndx'), 'offset')
        self.names = {}
        for i in range(self.nsections):
            start = names + self.field(i, 'name')
            self.names.setdefault(self.data[start:self.data.index(0, start)].decode(), i)

    def get(self, table, base, name):
        offset, code = table[name]
        return struct.unpack_from('<' + code, self.data, base + offset)[0]

    def put(self, table, base, fields):
        for name, value in fields.items():
            offset, code = table[name]
            struct.pack_into('<' + code, self.data, base + offset, value)
        return self

    def section(self, which):
        return self.names[which] if isinstance(which, str) else which

    def field(self, section, name):
        return self.get(SHDR, self.shoff + 64 * self.section(section), name)

    def header(self, **fields):
        return self.put(EHDR, 0, fields)

    def set(self, section, **fields):
        return self.put(SHDR, self.shoff + 64 * self.section(section), fields)

    def at(self, section, offset=0):
        """Where a byte of the section is in the file."""
        return self.field(section, 'offset') + offset

    def poke(self, section, offset, data):
        start = self.at(section, offset)
        self.data[start:start + len(data)] = data
        return self

    def word(self, section, offset=0):
        return struct.unpack_from('<I', self.data, self.at(section, offset))[0]

    def last(self, section, byte):
        return self.poke(section, self.field(section, 'size') - 1, byte)

    def symbol_number(self, name, table='.symtab'):
        strings = self.at(self.field(table, 'link'))
        for i in range(self.field(table, 'size') // 24):
            start = strings + self.get(SYM, self.at(table, 24 * i), 'name')
            if self.data[start:start + len(name) + 1] == name.encode() + b'\0':
                return i
        raise KeyError(name)

    def symbol(self, which, table='.symtab', **fields):
        number = self.symbol_number(which, table) if isinstance(which, str) else which
        return self.put(SYM, self.at(table, 24 * number), fields)

    def rela(self, section, number, **fields):
        return self.put(RELA, self.at(section, 24 * number), fields)

    def group(self, size, signature, *members):
        """Makes .comment a COMDAT group."""
        words = struct.pack(f'<{1 + len(members)}I', 1, *members)
        return self.set('.comment', type=GROUP, flags=0, size=size, info=signature,
                        link=self.section('.symtab')).poke('.comment', 0, words)


@dataclass
class Files:
    """Real files, made once."""
    object: bytes
    cxx: bytes
    debug: bytes
    shared: bytes
    archive: bytes
    path: object
    raw: object
    run: object


def limits():
    """What a link of these files may use. Sanitizers reserve address space that they do not use."""
    with open(KLD, 'rb') as file:
        program = file.read()
    sanitized = b'__asan_init' in program or b'__tsan_init' in program

    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
        if not sanitized:
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    return limit


@pytest.fixture(scope='module')
def files(tmp_path_factory, target):
    path = tmp_path_factory.mktemp('bad')
    limit = limits()

    def tool(*command):
        subprocess.run(command, cwd=path, check=True, capture_output=True)

    (path / 'a.c').write_text(SOURCE)
    (path / 'b.cc').write_text(CXX)
    (path / 'main.c').write_text(FIXED)
    (path / 'v.map').write_text('V1 { global: used; local: *; }; V2 { global: pointer; } V1;')
    flags = ('-O1', '-fno-pic', '-ffunction-sections', '-fasynchronous-unwind-tables')
    gcc, linker = target.command('gcc'), [KLD, *([] if target.native else ['-m', target.emulation])]
    tool(*gcc, '-c', *flags, 'a.c', '-o', 'a.o')
    tool(*target.command('g++'), '-c', *flags, 'b.cc', '-o', 'b.o')
    tool(*gcc, '-c', '-g', '-gz=zlib', *flags, 'a.c', '-o', 'debug.o')
    tool(*gcc, '-c', *flags, 'main.c', '-o', 'main.o')
    tool(*gcc, '-shared', '-fPIC', '-O1', '-fuse-ld=bfd', '-Wl,--version-script=v.map', 'a.c',
         '-o', 'liba.so')
    tool(*target.command('ar'), 'rcs', 'liba.a', 'a.o', 'b.o')

    def raw(*args):
        """A link with these arguments, which may fail but only in good order."""
        done = subprocess.run([*linker, '--threads=1', '-o', 'out', *args], cwd=path, text=True,
                              capture_output=True, errors='replace', timeout=60, preexec_fn=limit,
                              stdin=subprocess.DEVNULL)
        assert done.returncode in (0, 1), f'status {done.returncode}\n{done.stderr[-4000:]}'
        assert 'internal error' not in done.stderr, done.stderr
        assert len(done.stderr) < 1 << 20
        assert not done.returncode or ': error: ' in done.stderr
        return done

    def run(data, *args, name='bad.o'):
        """(status, standard error) of a link with these bytes among its inputs."""
        (path / name).write_bytes(data)
        done = raw('main.o', name, '-e', 'main', '--unresolved-symbols=ignore-all', *args)
        return done.returncode, done.stderr

    def read(name):
        return (path / name).read_bytes()

    return Files(read('a.o'), read('b.o'), read('debug.o'), read('liba.so'), read('liba.a'), path,
                 raw, run)


def test_the_files_are_good_as_they_are(files):
    for data, name in ((files.object, 'bad.o'), (files.cxx, 'bad.o'), (files.debug, 'bad.o'),
                       (files.shared, 'bad.so'), (files.archive, 'bad.a')):
        assert files.run(data, name=name) == (0, '')


# What is changed in a.o, and what the error says besides the name of the file. None: it may be
# linked, or not; what counts is that nothing bad happens.
OBJECT_CASES = {
    'machine': (lambda p: p.header(machine=0x1234), 'machine'),
    'class': (lambda p: p.data.__setitem__(4, 1), '64-bit'),
    'byte-order': (lambda p: p.data.__setitem__(5, 2), 'little-endian'),
    'type': (lambda p: p.header(type=4), 'neither'),
    'shoff-outside': (lambda p: p.header(shoff=1 << 40), 'section header table'),
    'shoff-at-the-top': (lambda p: p.header(shoff=HUGE), 'section header table'),
    'shentsize': (lambda p: p.header(shentsize=63), 'section headers'),
    'shnum': (lambda p: p.header(shnum=0xfe00), 'section header table'),
    'shnum-in-section-0': (lambda p: p.header(shnum=0).set(0, size=HUGE), 'section header table'),
    'shstrndx-outside': (lambda p: p.header(shstrndx=500), 'section 500'),
    'shstrndx-no-strings': (lambda p: p.header(shstrndx=1), 'section 1 is not a string table'),
    'shstrndx-in-section-0': (lambda p: p.header(shstrndx=0xffff).set(0, link=1 << 30), 'section'),
    'section-name': (lambda p: p.set('.data', name=1 << 30), 'name at 0x40000000'),
    'section-offset': (lambda p: p.set('.text.used', offset=1 << 40), 'past the end of the file'),
    'section-size': (lambda p: p.set('.text.used', size=HUGE), 'past the end of the file'),
    'section-wraps': (lambda p: p.set('.text.used', offset=HUGE, size=2), 'past the end'),
    'section-alignment': (lambda p: p.set('.text.used', addralign=3), 'alignment 0x3'),
    'section-alignment-63': (lambda p: p.set('.text.used', addralign=TOP_BIT), 'alignment'),
    'zeros-without-end': (lambda p: p.set('.bss', size=TOP_BIT), 'too large'),
    'zeros-almost-without-end': (lambda p: p.set('.bss', size=HUGE), 'too large'),
    'zeros-beyond-the-address-space': (lambda p: p.set('.bss', size=1 << 60), 'too large'),
    'thread-local-zeros': (lambda p: p.set('.tbss', size=1 << 62), 'too large'),
    'zeros-among-data': (lambda p: p.set('.comment', type=NOBITS, size=1 << 60), 'too large'),
    'zeros-in-the-file': (lambda p: p.set('.comment', type=NOBITS, size=1 << 38), 'too large'),
    'symtab-entsize': (lambda p: p.set('.symtab', entsize=23), 'not 24 bytes'),
    'symtab-size': (lambda p: p.set('.symtab', size=p.field('.symtab', 'size') - 1), '24 bytes'),
    'symtab-link': (lambda p: p.set('.symtab', link=200), 'string table'),
    'symtab-links-to-itself': (lambda p: p.set('.symtab', link=p.section('.symtab')),
                               'string table'),
    'symtab-info': (lambda p: p.set('.symtab', info=99999), 'first global symbol'),
    'symtab-info-zero': (lambda p: p.set('.symtab', info=0), 'first global symbol'),
    'second-symtab': (lambda p: p.set('.comment', type=SYMTAB), 'second symbol table'),
    'strtab-unterminated': (lambda p: p.last('.strtab', b'x'), 'null-terminated'),
    'strtab-empty': (lambda p: p.set('.strtab', size=0), 'string table'),
    'symbol-name': (lambda p: p.symbol('used', name=1 << 31), 'name at 0x80000000'),
    'local-symbol-name': (lambda p: p.symbol('local', name=1 << 31), 'name at 0x80000000'),
    'symbol-section': (lambda p: p.symbol('used', shndx=500), 'section index 500 out of range'),
    'local-symbol-section': (lambda p: p.symbol('local', shndx=500), 'section index 500'),
    'symbol-without-xindex': (lambda p: p.symbol('used', shndx=0xffff), 'section index'),
    'symbol-value': (lambda p: p.symbol('used', value=HUGE), None),
    'symbol-in-the-string-table': (lambda p: p.symbol('used', shndx=p.section('.strtab')), None),
    'local-among-globals': (lambda p: p.symbol('used', info=2), 'binding 0'),
    'strange-binding': (lambda p: p.symbol('used', info=0x52), 'binding 5'),
    'strange-type': (lambda p: p.symbol('used', info=0x1e), None),
    'ifunc-in-data': (lambda p: p.symbol('local', info=0x0a), None),
    'thread-local-type-elsewhere': (lambda p: p.symbol('used', info=0x16), None),
    'common-without-end': (lambda p: p.symbol('common_one', size=TOP_BIT), 'too large'),
    'common-alignment': (lambda p: p.symbol('common_one', value=TOP_BIT), 'alignment'),
    'common-alignment-odd': (lambda p: p.symbol('common_one', value=3), 'alignment'),
    'rela-entsize': (lambda p: p.set('.rela.text.used', entsize=16), 'not 24 bytes'),
    'rela-size': (lambda p: p.set('.rela.text.used', size=25), 'not 24 bytes'),
    'rela-info': (lambda p: p.set('.rela.text.used', info=500), 'section 500'),
    'rela-info-zero': (lambda p: p.set('.rela.text.used', info=0), 'section 0'),
    'rela-for-itself': (lambda p: p.set('.rela.text.used', info=p.section('.rela.text.used')),
                        None),
    'rela-link': (lambda p: p.set('.rela.text.used', link=500), 'section 500'),
    'rela-twice': (lambda p: p.set('.rela.init_array', info=p.section('.text.used')),
                   'second relocation table'),
    'rela-for-zeros': (lambda p: p.set('.rela.text.used', info=p.section('.bss')),
                       'without contents'),
    'rela-as-rel': (lambda p: p.set('.rela.text.used', type=REL), 'without addends'),
    'relocation-symbol': (lambda p: p.rela('.rela.text.used', 0, sym=912), 'symbol index 912'),
    'relocation-type': (lambda p: p.rela('.rela.text.used', 0, type=250), 'relocation'),
    'relocation-type-large': (lambda p: p.rela('.rela.text.used', 0, type=0xffffffff),
                              'relocation'),
    'relocation-offset': (lambda p: p.rela('.rela.text.used', 0, offset=1 << 40),
                          'outside of the section'),
    'relocation-at-the-top': (lambda p: p.rela('.rela.text.used', 0, offset=HUGE),
                              'outside of the section'),
    'relocation-at-the-end': (
        lambda p: p.rela('.rela.text.used', 0, offset=p.field('.text.used', 'size') - 1),
        'outside of the section'),
    'eh-frame-length': (lambda p: p.poke('.eh_frame', 0, b'\xf0\xff\xff\x7f'), '.eh_frame'),
    'eh-frame-length-64': (lambda p: p.poke('.eh_frame', 0, b'\xff' * 12), '.eh_frame'),
    'eh-frame-cut': (lambda p: p.set('.eh_frame', size=13), '.eh_frame'),
    'eh-frame-version': (lambda p: p.poke('.eh_frame', 8, b'\x77'), None),
    'eh-frame-augmentation': (lambda p: p.poke('.eh_frame', 9, b'\xff' * 12), None),
    'eh-frame-cie-pointer': (lambda p: p.poke('.eh_frame', 8 + p.word('.eh_frame'),
                                              b'\xff\xff\xff\x7f'), '.eh_frame'),
    'merge-entsize': (lambda p: p.set('.comment', flags=MERGE | STRINGS, entsize=1 << 20), None),
    'merge-entsize-max': (lambda p: p.set('.comment', flags=MERGE, entsize=0xffffffff), None),
    'merge-unterminated': (lambda p: p.last('.comment', b'x'), 'terminated'),
    'merge-zeros': (lambda p: p.set('.bss', flags=ALLOC | MERGE, entsize=4, size=1 << 20), None),
    'compressed-garbage': (lambda p: p.set('.comment', flags=COMPRESSED), 'compressed'),
    'compressed-short': (lambda p: p.set('.comment', flags=COMPRESSED, size=3), 'too short'),
    'compressed-zeros': (lambda p: p.set('.bss', flags=COMPRESSED), 'too short'),
    'group-of-itself': (lambda p: p.group(8, 2, p.section('.comment')), None),
    'group-signature': (lambda p: p.group(8, 9999, 2), 'symbol index 9999'),
    'group-size': (lambda p: p.group(7, 2, 2), 'group of 7 bytes'),
}


@pytest.mark.parametrize('options', [(), ('-pie', '--gc-sections', '--icf=all', '--emit-relocs'),
                                     ('-r',)], ids=['plain', 'pie', 'r'])
@pytest.mark.parametrize('name', OBJECT_CASES)
def test_object(files, name, options):
    change, text = OBJECT_CASES[name]
    patch = Patch(files.object)
    change(patch)
    status, stderr = files.run(patch.data, *options)
    if text and not options:
        assert status == 1, 'was linked'
        assert 'bad.o' in stderr or text == 'too large', stderr
        assert text in stderr, stderr
        assert stderr.count('error: ') <= 3, stderr


def edit(data, change):
    patch = Patch(data)
    change(patch)
    return bytes(patch.data)


def test_member_of_a_discarded_group(files):
    """Two objects have the group; the second one's list of members is bad."""
    def change(p):
        group = next(i for i in range(p.nsections) if p.field(i, 'type') == GROUP)
        p.poke(group, 4, struct.pack('<I', 77777))
    (files.path / 'bad.o').write_bytes(edit(files.cxx, change))
    (files.path / 'first.o').write_bytes(files.cxx)
    done = files.raw('first.o', 'bad.o', '-r')
    assert done.returncode == 1
    assert 'bad.o: section ' in done.stderr and 'group member 77777 out of range' in done.stderr


def chdr(**fields):
    """Changes the header of a compressed section."""
    table = {'type': (0, 'I'), 'size': (8, 'Q'), 'align': (16, 'Q')}
    return lambda p: p.put(table, p.at('.debug_info'), fields)


@pytest.mark.parametrize('change, text', [
    (chdr(type=99), 'neither zlib nor zstd'),
    (chdr(type=2), 'corrupt'),
    (chdr(size=HUGE), 'cannot be true'),
    (chdr(size=1 << 40), 'cannot be true'),
    (chdr(size=5), 'corrupt'),
    (chdr(size=100000), 'corrupt'),
    (chdr(align=3), 'alignment 0x3'),
    (chdr(align=TOP_BIT), 'alignment'),
    (lambda p: p.poke('.debug_info', 24, b'garbage'), 'corrupt'),
    (lambda p: p.set('.debug_info', size=40), 'corrupt'),
], ids=['type', 'other-type', 'size-max', 'size-huge', 'size-small', 'size-large', 'align-3',
        'align-max', 'garbage', 'cut'])
def test_compressed_section(files, change, text):
    status, stderr = files.run(edit(files.debug, change))
    assert status == 1 and 'bad.o' in stderr and text in stderr


VERDEF = {'version': (0, 'H'), 'flags': (2, 'H'), 'ndx': (4, 'H'), 'cnt': (6, 'H'),
          'hash': (8, 'I'), 'aux': (12, 'I'), 'next': (16, 'I')}


def verdef(offset, **fields):
    return lambda p: p.put(VERDEF, p.at('.gnu.version_d', offset), fields)


def dynamic(tag, value):
    """Changes the value of the first entry of that tag."""
    def change(p):
        for at in range(p.at('.dynamic'), p.at('.dynamic') + p.field('.dynamic', 'size'), 16):
            if struct.unpack_from('<Q', p.data, at)[0] == tag:
                struct.pack_into('<Q', p.data, at + 8, value)
                return
        raise KeyError(tag)
    return change


SHARED_CASES = {
    'no-sections': (lambda p: p.header(shoff=0, shnum=0, shstrndx=0), 'without a dynamic section'),
    'dynamic-link': (lambda p: p.set('.dynamic', link=0), 'string table'),
    'dynamic-size': (lambda p: p.set('.dynamic', size=1 << 40), 'past the end'),
    'dynamic-odd-size': (lambda p: p.set('.dynamic', size=17), None),
    'needed': (dynamic(1, 1 << 40), 'dynamic entry'),
    'dynsym-link': (lambda p: p.set('.dynsym', link=p.section('.dynsym')), 'string table'),
    'dynsym-entsize': (lambda p: p.set('.dynsym', entsize=16), '24 bytes'),
    'dynsym-info': (lambda p: p.set('.dynsym', info=77777), None),
    'dynsym-offset': (lambda p: p.set('.dynsym', offset=HUGE), 'past the end'),
    'dynstr': (lambda p: p.set('.dynstr', size=0), 'string table'),
    'symbol-name': (lambda p: p.symbol('used', '.dynsym', name=1 << 30), 'name at 0x40000000'),
    'symbol-size': (lambda p: p.symbol('pointer', '.dynsym', size=HUGE), None),
    'symbol-section': (lambda p: p.symbol('pointer', '.dynsym', shndx=60000), None),
    'symbol-value': (lambda p: p.symbol('pointer', '.dynsym', value=HUGE), None),
    'versions-cut': (lambda p: p.set('.gnu.version', size=2), 'versions for 1 of'),
    'version-index': (lambda p: p.poke('.gnu.version', 2, b'\xff\xff' * 8), None),
    'verdef-loop': (verdef(0, next=1), None),
    'verdef-to-itself': (verdef(0, next=0xffffffff), 'version definition'),
    'verdef-aux': (verdef(0x1c, aux=0xfffffff0), 'version definition'),
    'verdef-index': (verdef(0x1c, ndx=0x7fff), None),
    'verdef-cut': (lambda p: p.set('.gnu.version_d', size=10), 'cut off'),
    'verdef-link': (lambda p: p.set('.gnu.version_d', link=1), 'string table'),
}


@pytest.mark.parametrize('options', [(), ('-no-pie', '--no-as-needed')], ids=['plain', 'needed'])
@pytest.mark.parametrize('name', SHARED_CASES)
def test_shared_library(files, name, options):
    change, text = SHARED_CASES[name]
    status, stderr = files.run(edit(files.shared, change), *options, name='bad.so')
    if text:
        assert status == 1 and 'bad.so' in stderr and text in stderr, stderr


def test_copy_relocation_of_absurd_size(files, target):
    """A program that copies a variable of 2^63 bytes out of a library."""
    (files.path / 'user.c').write_text('extern int *pointer; int main(void) { return *pointer; }')
    subprocess.run([*target.command('gcc'), '-c', '-O1', '-fno-pic', 'user.c'], cwd=files.path,
                   check=True)
    data = edit(files.shared, lambda p: p.symbol('pointer', '.dynsym', size=TOP_BIT))
    (files.path / 'bad.so').write_bytes(data)
    done = files.raw('user.o', 'bad.so', '--unresolved-symbols=ignore-all')
    assert done.returncode == 1 and 'too large' in done.stderr


def member(name, size, data=b''):
    return f'{name:<16}{"0":<12}{"0":<6}{"0":<6}{"644":<8}{size:<10}`\n'.encode() + data


@pytest.mark.parametrize('data, text', [
    (b'!<arch>\n' + member('a.o/', 1000), 'archive'),
    (b'!<arch>\n' + member('a.o/', 'xyz'), 'archive'),
    (b'!<arch>\n' + member('a.o/', -5), 'archive'),
    (b'!<arch>\n' + member('a.o/', 9999999999), 'archive'),
    (b'!<arch>\n' + b'a.o/', 'archive'),
    (b'!<arch>\n' + member('/99', 4, b'abcd'), 'archive'),
    (b'!<arch>\n' + member('/', 4, b'\xff\xff\xff\xff'), 'archive'),
    (b'!<arch>\n' + member('/', 12, b'\0\0\0\1\xff\xff\xff\xffabc\0'), 'archive'),
    (b'!<arch>\n' + member('/', 13, b'\0\0\0\1\0\0\0\x08main\0'), None),
    (b'!<arch>\n' + member('/SYM64/', 8, b'\xff' * 8), 'archive'),
    (b'!<thin>\n' + member('gone.o/', 100), 'gone.o'),
    (b'!<thin>\n' + member('bad.a/', 100), None),
], ids=['cut', 'no-number', 'negative', 'huge', 'header-cut', 'long-name', 'index-count',
        'index-unterminated', 'index-of-the-index', 'index-64', 'thin-gone', 'thin-of-itself'])
@pytest.mark.parametrize('options', [(), ('-u', 'abc'), ('-u', 'abc', '--whole-archive')],
                         ids=['plain', 'wanted', 'whole'])
def test_archive(files, data, text, options):
    (files.path / 'bad.a').write_bytes(data)
    done = files.raw('main.o', *options, 'bad.a', '-e', 'main', '--unresolved-symbols=ignore-all')
    if text and options == ('-u', 'abc'):
        assert done.returncode == 1 and 'bad.a' in done.stderr and text in done.stderr


def lengths(size, count):
    """Where a file is cut: densely in its header, then evenly, then around its end."""
    return sorted({*range(0, 70, 7), *range(70, size, max(1, size // count)),
                   *range(max(0, size - 130), size, 9)})


@pytest.mark.parametrize('which, name', [('object', 'bad.o'), ('cxx', 'bad.o'),
                                         ('shared', 'bad.so'), ('archive', 'bad.a')])
def test_cut_off(files, which, name):
    data = getattr(files, which)
    for size in lengths(len(data), 40):
        status, stderr = files.run(data[:size], name=name)
        if size and name != 'bad.a':
            assert status == 1 and name in stderr, f'{size} bytes'


@pytest.mark.parametrize('which, name, options', [
    ('object', 'bad.o', ()),
    ('object', 'bad.o', ('-pie', '--gc-sections', '--icf=all')),
    ('object', 'bad.o', ('-r',)),
    ('cxx', 'bad.o', ('--gc-sections',)),
    ('cxx', 'bad.o', ('-shared', '--emit-relocs')),
    ('debug', 'bad.o', ('--compress-debug-sections=zlib',)),
    ('shared', 'bad.so', ()),
    ('archive', 'bad.a', ('--whole-archive',)),
], ids=['object', 'object-pie', 'object-r', 'cxx', 'cxx-shared', 'debug', 'shared', 'archive'])
def test_changed_bytes(files, which, name, options):
    """One to eight bytes at random places, where it hurts more often: headers and tables."""
    data = getattr(files, which)
    dice = random.Random(f'{which} {options}')
    tables = [range(64)]
    if which != 'archive':
        patch = Patch(data)
        tables.append(range(patch.shoff, patch.shoff + 64 * patch.nsections))
        tables += [range(patch.at(i), patch.at(i) + patch.field(i, 'size'))
                   for i in range(patch.nsections)
                   if patch.field(i, 'type') not in (0, NOBITS) and patch.field(i, 'size')]
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 8))):
            table = dice.choice(tables) if dice.random() < 0.9 else range(len(data))
            changed[dice.choice(table)] = dice.choice((0, 1, 0x7f, 0x80, 0xff, dice.randrange(256)))
        files.run(changed, *options, name=name)


# -- link-time optimisation ----------------------------------------------------------------------

def test_gimple_without_machine_code(t):
    a = t.cc('a.o', 'int main(void) { return 0; }', '-flto', '-fno-fat-lto-objects')
    t.link('app', a, '-fno-lto', ok=False).says('a.o', 'GIMPLE', '-ffat-lto-objects')


def test_gimple_beside_machine_code(t):
    a = t.cc('a.o', 'int main(void) { return 3; }', '-flto', '-ffat-lto-objects')
    t.link('app', a, '-fno-lto')
    t.run('app', status=3)
    t.ld('r.o', '-r', a)
    assert not [s.name for s in t.elf('r.o').sections if 'lto' in s.name]
