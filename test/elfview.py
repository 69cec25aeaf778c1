"""A small reader for 64-bit little-endian ELF files, so that tests ask questions instead of
scraping the text of readelf.

It is deliberately separate from the linker's own reader and trusts nothing it does not need: it is
the second opinion on what the linker wrote. Flags and types are given as the short words people
use ('LOAD', 'RX', 'WEAK', 'RELATIVE'), the same for every CPU.
"""

import struct
from collections import namedtuple
from pathlib import Path

Segment = namedtuple('Segment', 'type flags offset vaddr paddr filesz memsz align')
Symbol = namedtuple('Symbol', 'name value size bind type vis section version default')
Reloc = namedtuple('Reloc', 'offset kind symbol addend number')
Note = namedtuple('Note', 'owner type desc')

FILE_TYPES = {1: 'REL', 2: 'EXEC', 3: 'DYN', 4: 'CORE'}
MACHINES = {62: 'x86_64', 183: 'aarch64', 243: 'riscv64'}

SECTION_TYPES = {
    0: 'NULL', 1: 'PROGBITS', 2: 'SYMTAB', 3: 'STRTAB', 4: 'RELA', 5: 'HASH', 6: 'DYNAMIC',
    7: 'NOTE', 8: 'NOBITS', 9: 'REL', 11: 'DYNSYM', 14: 'INIT_ARRAY', 15: 'FINI_ARRAY',
    16: 'PREINIT_ARRAY', 17: 'GROUP', 18: 'SYMTAB_SHNDX', 19: 'RELR', 0x6ffffff6: 'GNU_HASH',
    0x6ffffffd: 'VERDEF', 0x6ffffffe: 'VERNEED', 0x6fffffff: 'VERSYM', 0x70000001: 'X86_64_UNWIND',
    0x70000003: 'ATTRIBUTES',
}
# The letters are those of readelf's legend; R is SHF_GNU_RETAIN.
SECTION_FLAGS = [
    (0x1, 'W'), (0x2, 'A'), (0x4, 'X'), (0x10, 'M'), (0x20, 'S'), (0x40, 'I'), (0x80, 'L'),
    (0x200, 'G'), (0x400, 'T'), (0x800, 'C'), (0x200000, 'R'), (0x80000000, 'E'),
]
SEGMENT_TYPES = {
    0: 'NULL', 1: 'LOAD', 2: 'DYNAMIC', 3: 'INTERP', 4: 'NOTE', 6: 'PHDR', 7: 'TLS',
    0x6474e550: 'GNU_EH_FRAME', 0x6474e551: 'GNU_STACK', 0x6474e552: 'GNU_RELRO',
    0x6474e553: 'GNU_PROPERTY',
}
SYMBOL_BINDS = {0: 'LOCAL', 1: 'GLOBAL', 2: 'WEAK', 10: 'UNIQUE'}
SYMBOL_TYPES = {0: 'NOTYPE', 1: 'OBJECT', 2: 'FUNC', 3: 'SECTION', 4: 'FILE', 5: 'COMMON',
                6: 'TLS', 10: 'IFUNC'}
SYMBOL_VIS = ['DEFAULT', 'INTERNAL', 'HIDDEN', 'PROTECTED']
SPECIAL_SECTIONS = {0: 'UNDEF', 0xfff1: 'ABS', 0xfff2: 'COMMON'}

DYNAMIC_TAGS = {
    1: 'NEEDED', 2: 'PLTRELSZ', 3: 'PLTGOT', 4: 'HASH', 5: 'STRTAB', 6: 'SYMTAB', 7: 'RELA',
    8: 'RELASZ', 9: 'RELAENT', 10: 'STRSZ', 11: 'SYMENT', 12: 'INIT', 13: 'FINI', 14: 'SONAME',
    15: 'RPATH', 16: 'SYMBOLIC', 20: 'PLTREL', 21: 'DEBUG', 22: 'TEXTREL', 23: 'JMPREL',
    24: 'BIND_NOW', 25: 'INIT_ARRAY', 26: 'FINI_ARRAY', 27: 'INIT_ARRAYSZ', 28: 'FINI_ARRAYSZ',
    29: 'RUNPATH', 30: 'FLAGS', 32: 'PREINIT_ARRAY', 33: 'PREINIT_ARRAYSZ', 35: 'RELRSZ',
    36: 'RELR', 37: 'RELRENT', 0x6ffffef5: 'GNU_HASH', 0x6ffffef6: 'TLSDESC_PLT',
    0x6ffffef7: 'TLSDESC_GOT', 0x6ffffff0: 'VERSYM', 0x6ffffff9: 'RELACOUNT',
    0x6ffffffb: 'FLAGS_1', 0x6ffffffc: 'VERDEF', 0x6ffffffd: 'VERDEFNUM', 0x6ffffffe: 'VERNEED',
    0x6fffffff: 'VERNEEDNUM', 0x6ffffefb: 'DEPAUDIT', 0x6ffffefc: 'AUDIT', 0x7ffffffd: 'AUXILIARY',
    0x7fffffff: 'FILTER',
}
DF = {'ORIGIN': 1, 'SYMBOLIC': 2, 'TEXTREL': 4, 'BIND_NOW': 8, 'STATIC_TLS': 16}
DF_1 = {'NOW': 1, 'GLOBAL': 2, 'NODELETE': 8, 'INITFIRST': 0x20, 'NOOPEN': 0x40, 'ORIGIN': 0x80,
        'INTERPOSE': 0x400, 'NODEFLIB': 0x800, 'NODUMP': 0x1000, 'GLOBAUDIT': 0x1000000,
        'PIE': 0x8000000}

# What a dynamic relocation asks of ld.so, under one name for all CPUs.
RELOC_KINDS = {
    'x86_64': {0: 'NONE', 1: 'ABS64', 2: 'PC32', 4: 'PLT32', 5: 'COPY', 6: 'GLOB_DAT',
               7: 'JUMP_SLOT', 8: 'RELATIVE', 10: 'ABS32', 16: 'DTPMOD', 17: 'DTPOFF',
               18: 'TPOFF', 36: 'TLSDESC', 37: 'IRELATIVE'},
    'aarch64': {0: 'NONE', 257: 'ABS64', 1024: 'COPY', 1025: 'GLOB_DAT', 1026: 'JUMP_SLOT',
                1027: 'RELATIVE', 1028: 'DTPMOD', 1029: 'DTPOFF', 1030: 'TPOFF', 1031: 'TLSDESC',
                1032: 'IRELATIVE'},
    'riscv64': {0: 'NONE', 2: 'ABS64', 3: 'RELATIVE', 4: 'COPY', 5: 'JUMP_SLOT', 7: 'DTPMOD',
                9: 'DTPOFF', 11: 'TPOFF', 58: 'IRELATIVE'},
}


def _string(table, offset):
    return table[offset:table.index(b'\0', offset)].decode()


class Section:
    def __init__(self, elf, index, raw):
        (self.name_offset, kind, flags, self.addr, self.offset, self.size, self.link, self.info,
         self.align, self.entsize) = struct.unpack_from('<IIQQQQIIQQ', raw)
        self.elf = elf
        self.index = index
        self.name = ''
        self.type = SECTION_TYPES.get(kind, hex(kind))
        self.flags = ''.join(letter for bit, letter in SECTION_FLAGS if flags & bit)

    @property
    def end(self):
        return self.addr + self.size

    @property
    def data(self):
        if self.type == 'NOBITS':
            return bytes(self.size)
        return self.elf.bytes[self.offset:self.offset + self.size]

    def __repr__(self):
        return f'<{self.name} {self.type} {self.flags} {self.addr:#x}+{self.size:#x}>'


class Elf:
    def __init__(self, path):
        self.path = Path(path)
        self.bytes = self.path.read_bytes()
        assert self.bytes[:4] == b'\x7fELF', f'{path} is not ELF'
        assert self.bytes[4:6] == b'\x02\x01', f'{path} is not 64-bit little-endian'
        (kind, machine, _, self.entry, self.phoff, self.shoff, self.flags, _, phentsize, phnum,
         shentsize, shnum, shstrndx) = struct.unpack_from('<HHIQQQIHHHHHH', self.bytes, 16)
        self.type = FILE_TYPES[kind]
        self.machine = MACHINES[machine]
        self.sections = self._read_sections(shentsize, shnum, shstrndx)
        self.segments = [self._segment(self.phoff + i * phentsize) for i in range(phnum)]
        self.dynamic = self._read_dynamic()
        self.verdefs, self.verneeds = self._read_versions()
        self.symbols = self._read_symbols('SYMTAB')
        self.dynsyms = self._read_symbols('DYNSYM')

    # -- sections and segments ------------------------------------------------------------------

    def _read_sections(self, entsize, count, names_index):
        if not self.shoff:
            return []
        first = Section(self, 0, self.bytes[self.shoff:])
        count = count or first.size
        if names_index == 0xffff:
            names_index = first.link
        sections = [Section(self, i, self.bytes[self.shoff + i * entsize:]) for i in range(count)]
        names = sections[names_index].data
        for s in sections:
            s.name = _string(names, s.name_offset)
        return sections

    def _segment(self, offset):
        kind, flags, off, vaddr, paddr, filesz, memsz, align = struct.unpack_from(
            '<IIQQQQQQ', self.bytes, offset)
        letters = ''.join(c for bit, c in ((4, 'R'), (2, 'W'), (1, 'X')) if flags & bit)
        return Segment(SEGMENT_TYPES.get(kind, hex(kind)), letters, off, vaddr, paddr, filesz,
                       memsz, align)

    def section(self, name):
        """The section of that name, or None."""
        return next((s for s in self.sections if s.name == name), None)

    def section_names(self):
        return [s.name for s in self.sections]

    def segment(self, kind):
        """The first segment of that type, or None."""
        return next((p for p in self.segments if p.type == kind), None)

    def loads(self):
        return [p for p in self.segments if p.type == 'LOAD']

    def load_of(self, addr):
        """The LOAD segment that holds an address."""
        return next((p for p in self.loads() if p.vaddr <= addr < p.vaddr + p.memsz), None)

    def at(self, addr, size=8):
        """The bytes that the file puts at an address."""
        p = self.load_of(addr)
        assert p, f'nothing is loaded at {addr:#x}'
        start = addr - p.vaddr
        data = self.bytes[p.offset + start:p.offset + min(start + size, p.filesz)]
        return data + bytes(size - len(data))

    def word(self, addr):
        return struct.unpack('<Q', self.at(addr, 8))[0]

    # -- the dynamic section --------------------------------------------------------------------

    def _read_dynamic(self):
        p = self.segment('DYNAMIC')
        if not p:
            return []
        entries = []
        for offset in range(p.offset, p.offset + p.filesz, 16):
            tag, value = struct.unpack_from('<QQ', self.bytes, offset)
            if tag == 0:
                break
            entries.append((DYNAMIC_TAGS.get(tag, hex(tag)), value))
        return entries

    def dyn(self, tag):
        """The value of the first dynamic entry with that tag, or None."""
        return next((v for t, v in self.dynamic if t == tag), None)

    def dyn_strings(self, tag):
        return [self._dynstr(v) for t, v in self.dynamic if t == tag]

    def dyn_flags(self):
        """DT_FLAGS and DT_FLAGS_1 as a set of names; those of FLAGS_1 are prefixed with '1.'."""
        names = {n for n, bit in DF.items() if (self.dyn('FLAGS') or 0) & bit}
        return names | {'1.' + n for n, bit in DF_1.items() if (self.dyn('FLAGS_1') or 0) & bit}

    @property
    def needed(self):
        return self.dyn_strings('NEEDED')

    @property
    def soname(self):
        return next(iter(self.dyn_strings('SONAME')), None)

    def _dynstr(self, offset):
        addr = self.dyn('STRTAB') + offset
        p = self.load_of(addr)
        return _string(self.bytes, p.offset + addr - p.vaddr)

    @property
    def interp(self):
        p = self.segment('INTERP')
        return p and self.bytes[p.offset:p.offset + p.filesz].rstrip(b'\0').decode()

    # -- versions -------------------------------------------------------------------------------

    def _read_versions(self):
        """({index: (name, [parents], is_base)}, {index: (file, name, is_weak)})"""
        defs, needs = {}, {}
        addr = self.dyn('VERDEF')
        for _ in range(self.dyn('VERDEFNUM') or 0):
            _, flags, index, count, _, aux, step = struct.unpack('<HHHHIII', self.at(addr, 20))
            names, a = [], addr + aux
            for _ in range(count):
                name, next_aux = struct.unpack('<II', self.at(a, 8))
                names.append(self._dynstr(name))
                a += next_aux
            defs[index] = (names[0], names[1:], bool(flags & 1))
            addr += step
        addr = self.dyn('VERNEED')
        for _ in range(self.dyn('VERNEEDNUM') or 0):
            _, count, file, aux, step = struct.unpack('<HHIII', self.at(addr, 16))
            a = addr + aux
            for _ in range(count):
                _, flags, index, name, next_aux = struct.unpack('<IHHII', self.at(a, 16))
                needs[index & 0x7fff] = (self._dynstr(file), self._dynstr(name), bool(flags & 2))
                a += next_aux
            addr += step
        return defs, needs

    # -- symbols --------------------------------------------------------------------------------

    def _read_symbols(self, kind):
        table = next((s for s in self.sections if s.type == kind), None)
        if not table:
            return []
        strings = self.sections[table.link].data
        far = next((s.data for s in self.sections
                    if s.type == 'SYMTAB_SHNDX' and s.link == table.index), None)
        versym = kind == 'DYNSYM' and self.section('.gnu.version')
        data, symbols = table.data, []
        for i in range(len(data) // 24):
            name, info, other, shndx, value, size = struct.unpack_from('<IBBHQQ', data, i * 24)
            if shndx == 0xffff:
                shndx = struct.unpack_from('<I', far, i * 4)[0]
                section = self.sections[shndx].name
            elif shndx in SPECIAL_SECTIONS:
                section = SPECIAL_SECTIONS[shndx]
            else:
                section = self.sections[shndx].name
            version, default = None, True
            if versym:
                number = struct.unpack_from('<H', versym.data, i * 2)[0]
                default = not number & 0x8000
                number &= 0x7fff
                if number in self.verneeds:
                    version = self.verneeds[number][1]
                elif number > 1:
                    version = self.verdefs[number][0]
            symbols.append(Symbol(_string(strings, name), value, size,
                                  SYMBOL_BINDS.get(info >> 4, info >> 4),
                                  SYMBOL_TYPES.get(info & 15, info & 15), SYMBOL_VIS[other & 3],
                                  section, version, default))
        return symbols

    def symbol(self, name):
        """The symbol of .symtab with that name (a global one if there are several), or None."""
        found = [s for s in self.symbols if s.name == name]
        return next((s for s in found if s.bind != 'LOCAL'), found[0] if found else None)

    def dynsym(self, name, version=None):
        return next((s for s in self.dynsyms
                     if s.name == name and version in (None, s.version)), None)

    def exports(self):
        """Names of the symbols that other modules can bind to."""
        return {s.name for s in self.dynsyms if s.name and s.section != 'UNDEF'
                and s.bind != 'LOCAL'}

    def versioned_exports(self):
        """The same as 'foo', 'foo@@V' or 'foo@V'; version names themselves left out."""
        return {s.name + (f'{"@@" if s.default else "@"}{s.version}' if s.version else '')
                for s in self.dynsyms if s.name and s.section != 'UNDEF' and s.bind != 'LOCAL'
                and not (s.section == 'ABS' and s.name == s.version)}

    def imports(self):
        return {s.name for s in self.dynsyms if s.name and s.section == 'UNDEF'}

    # -- relocations ----------------------------------------------------------------------------

    def _relocs(self, data, symbols):
        kinds = RELOC_KINDS[self.machine]
        for offset, info, addend in struct.iter_unpack('<QQq', data):
            symbol = symbols[info >> 32].name if info >> 32 else ''
            number = info & 0xffffffff
            yield Reloc(offset, kinds.get(number, str(number)), symbol, addend, number)

    def relocs_in(self, name):
        """The relocations of one SHT_RELA section, by its name."""
        s = self.section(name)
        if not s:
            return []
        symbols = self.dynsyms if self.sections[s.link].type == 'DYNSYM' else self.symbols
        return list(self._relocs(s.data, symbols))

    @property
    def dynrelocs(self):
        """All that ld.so applies, in the order of DT_RELR, DT_RELA, DT_JMPREL."""
        found = [Reloc(addr, 'RELATIVE', '', self.word(addr), 0) for addr in self.relr()]
        for table, size in (('RELA', 'RELASZ'), ('JMPREL', 'PLTRELSZ')):
            if self.dyn(table) is not None:
                found += self._relocs(self.at(self.dyn(table), self.dyn(size)), self.dynsyms)
        return found

    def dynrelocs_of(self, symbol):
        """Kinds of the dynamic relocations against a symbol, sorted."""
        return sorted(r.kind for r in self.dynrelocs if r.symbol == symbol)

    def relr(self):
        """The addresses that DT_RELR encodes."""
        if self.dyn('RELR') is None:
            return []
        addresses, base = [], 0
        for word, in struct.iter_unpack('<Q', self.at(self.dyn('RELR'), self.dyn('RELRSZ'))):
            if not word & 1:
                addresses.append(word)
                base = word + 8
            else:
                addresses += [base + 8 * i for i in range(63) if word >> (i + 1) & 1]
                base += 63 * 8
        return addresses

    # -- notes ----------------------------------------------------------------------------------

    @property
    def notes(self):
        found = []
        for p in self.segments:
            if p.type != 'NOTE':
                continue
            data, at = self.bytes[p.offset:p.offset + p.filesz], 0
            align = 8 if p.align == 8 else 4
            while at + 12 <= len(data):
                namesz, descsz, kind = struct.unpack_from('<III', data, at)
                owner = data[at + 12:at + 12 + namesz].rstrip(b'\0').decode()
                start = (at + 12 + namesz + align - 1) & -align
                found.append(Note(owner, kind, data[start:start + descsz]))
                at = (start + descsz + align - 1) & -align
        return found

    def note(self, owner, kind):
        return next((n.desc for n in self.notes if (n.owner, n.type) == (owner, kind)), None)
