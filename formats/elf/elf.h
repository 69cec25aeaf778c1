/* elf.h - the on-disk layout of ELF64 (gABI), and what of it system headers may lack. */
#ifndef KLD_ELF_ELF_H
#define KLD_ELF_ELF_H

#include <elf.h>

#ifndef SHT_RELR
#define SHT_RELR   19
#define DT_RELRSZ  35
#define DT_RELR    36
#define DT_RELRENT 37
#endif
#ifndef SHT_CREL
#define SHT_CREL 0x40000014
#endif
#ifndef SHT_LLVM_ADDRSIG
#define SHT_LLVM_ADDRSIG 0x6fff4c03
#endif
#ifndef SHF_GNU_RETAIN
#define SHF_GNU_RETAIN (1 << 21)
#endif
#ifndef SHT_X86_64_UNWIND
#define SHT_X86_64_UNWIND 0x70000001
#endif
#ifndef SHF_EXCLUDE
#define SHF_EXCLUDE 0x80000000
#endif
#ifndef ELFCOMPRESS_ZSTD
#define ELFCOMPRESS_ZSTD 2
#endif

/* Archive members are only 2-aligned: structures in a mapped file are read through these. */
typedef Elf64_Ehdr elf_ehdr __attribute__((aligned(1)));
typedef Elf64_Shdr elf_shdr __attribute__((aligned(1)));
typedef Elf64_Sym elf_sym __attribute__((aligned(1)));
typedef Elf64_Rela elf_rela __attribute__((aligned(1)));
typedef Elf64_Dyn elf_dyn __attribute__((aligned(1)));
typedef Elf64_Verdef elf_verdef __attribute__((aligned(1)));
typedef Elf64_Verdaux elf_verdaux __attribute__((aligned(1)));
typedef uint16_t elf_half __attribute__((aligned(1)));
typedef uint32_t elf_word __attribute__((aligned(1)));

#endif
