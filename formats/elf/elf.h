/* elf.h - the on-disk layout of ELF64 (gABI), and what of it system headers may lack. */
#ifndef KLD_ELF_ELF_H
#define KLD_ELF_ELF_H

#include <elf.h>

#ifndef SHT_RELR
#define SHT_RELR 19
#define DT_RELRSZ 35
#define DT_RELR 36
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

#endif
