#!/usr/bin/env python3
"""A link that is mostly debug info: C++ units that include much of LLVM's and clang's headers.

    make-debug.py DEST [--copies 12]

Each source below is compiled once with -O0 -g. Each object becomes several by replacing the digits
in its names, as a program has many files that include the same headers: debug info, strings, COMDAT
groups and relocations are the compiler's, and repeat as much as they do in real programs. They are
linked with the LLVM archives they need (link.rsp). edits.json has a variant of one of them ("body"),
one of the largest, in which a function is longer.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LLVM = Path('/usr/lib/llvm-14')
DIGITS = '7777777'                       # what is replaced, in symbols and in debug info

UNITS = {
    'visitor': '''
#include "clang/AST/RecursiveASTVisitor.h"
struct Visitor_N : clang::RecursiveASTVisitor<Visitor_N> {
  unsigned calls = 0;
  bool VisitCallExpr(clang::CallExpr *) { calls++; return true; }
};
static unsigned visit(clang::Decl *d) {
  Visitor_N v;
#ifdef EDITED
  for (unsigned i = 0; i < 3; i++)
    if (d && v.calls < i)
      v.calls += i * 5;
#endif
  if (d) v.TraverseDecl(d);
  return v.calls;
}
unsigned unit_N(unsigned x) { return x + visit(nullptr); }
''',
    'matchers': '''
#include "clang/ASTMatchers/ASTMatchFinder.h"
#include "clang/ASTMatchers/ASTMatchers.h"
using namespace clang::ast_matchers;
unsigned unit_N(unsigned x) {
  MatchFinder finder;
  finder.addMatcher(functionDecl(hasName("f"), parameterCountIs(x)).bind("f"), nullptr);
  finder.addMatcher(callExpr(callee(functionDecl(isInline()))).bind("c"), nullptr);
  return x * 3;
}
''',
    'codegen': '''
#include "llvm/CodeGen/MachineFunction.h"
#include "llvm/CodeGen/SelectionDAG.h"
#include "llvm/CodeGen/TargetLowering.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/Verifier.h"
unsigned unit_N(unsigned x) {
  llvm::LLVMContext context;
  llvm::Module module("unit_N", context);
  llvm::IRBuilder<> build(context);
  auto *f = llvm::Function::Create(llvm::FunctionType::get(build.getInt32Ty(), false),
                                   llvm::Function::ExternalLinkage, "f", module);
  build.SetInsertPoint(llvm::BasicBlock::Create(context, "entry", f));
  build.CreateRet(build.getInt32(x));
  return llvm::verifyModule(module) ? 0 : x + 5;
}
''',
    'frontend': '''
#include "clang/Frontend/CompilerInstance.h"
#include "clang/Lex/PreprocessorOptions.h"
#include "clang/Sema/Sema.h"
#include "llvm/ADT/MapVector.h"
unsigned unit_N(unsigned x) {
  llvm::MapVector<unsigned, std::string> names;
  clang::LangOptions options;
  for (unsigned i = 0; i < x % 9; i++) names[i * x] = "name";
  return names.size() + options.CPlusPlus + x;
}
''',
    'library': '''
#include <algorithm>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <unordered_map>
#include <vector>
struct Record_N { std::string name; std::vector<std::map<int, std::set<std::string>>> parts; };
unsigned unit_N(unsigned x) {
  std::unordered_map<std::string, Record_N> all;
  std::regex word("[a-z]+[0-9]*");
  std::ostringstream text;
  for (unsigned i = 0; i < x % 7; i++) {
    text << "name" << i;
    if (std::regex_match(text.str(), word)) all[text.str()].parts.resize(i);
  }
  std::vector<unsigned> sizes;
  for (auto &e : all) sizes.push_back(e.second.parts.size());
  std::sort(sizes.begin(), sizes.end(), std::greater<unsigned>());
  return std::async(std::launch::deferred, [&] { return unsigned(sizes.size()); }).get() + x;
}
''',
}
LIBRARIES = ['clangASTMatchers', 'clangAST', 'clangLex', 'clangBasic', 'LLVMFrontendOpenMP',
             'LLVMTransformUtils', 'LLVMAnalysis', 'LLVMProfileData', 'LLVMDebugInfoDWARF',
             'LLVMObject', 'LLVMBitReader', 'LLVMMCParser', 'LLVMMC', 'LLVMDebugInfoCodeView',
             'LLVMTextAPI', 'LLVMCore', 'LLVMRemarks', 'LLVMBitstreamReader', 'LLVMBinaryFormat',
             'LLVMSupport', 'LLVMDemangle']


EDITED = 'visitor'


def compile_units(folder, jobs):
    """The objects' bytes by unit name; that of 'edited' is EDITED's variant."""
    cppflags = subprocess.run([LLVM / 'bin/llvm-config', '--cppflags'], capture_output=True,
                              text=True, check=True).stdout.split()

    for name, text in UNITS.items():
        (folder / f'{name}.cpp').write_text(text.replace('_N', '_' + DIGITS))

    def one(name):
        source, *variant = [f'{EDITED}.cpp', '-DEDITED'] if name == 'edited' else [f'{name}.cpp']
        subprocess.run(['clang++-14', *variant, '-O0', '-g', '-fstandalone-debug', '-std=c++14', '-fno-rtti',
                        '-fPIE', *cppflags, '-c', source, '-o', f'{name}.o'], cwd=folder, check=True)
        return name, (folder / f'{name}.o').read_bytes()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return dict(pool.map(one, [*UNITS, 'edited']))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('dest', type=Path)
    parser.add_argument('--copies', type=int, default=12)
    args = parser.parse_args()
    objects = args.dest / 'o'
    sources = args.dest / 'units'
    objects.mkdir(parents=True, exist_ok=True)
    sources.mkdir(exist_ok=True)
    for variable in ('LIBRARY_PATH', 'CPATH', 'C_INCLUDE_PATH', 'CPLUS_INCLUDE_PATH'):
        os.environ.pop(variable, None)

    units = compile_units(sources, int(os.environ.get('JOBS', '2')))
    edited = units.pop('edited')
    names, numbers = [], []
    for copy in range(args.copies):
        for i, (name, data) in enumerate(units.items()):
            number = f'{copy * len(units) + i:0{len(DIGITS)}}'
            (objects / f'{name}{copy}.o').write_bytes(
                data.replace(b'_' + DIGITS.encode(), b'_' + number.encode()))
            names.append(f'o/{name}{copy}.o')
            numbers.append(number)
    edits = args.dest / 'edits'
    edits.mkdir(exist_ok=True)
    number = f'{list(units).index(EDITED):0{len(DIGITS)}}'
    for name, data in ('same', units[EDITED]), ('body', edited):
        (edits / f'{name}.o').write_bytes(data.replace(b'_' + DIGITS.encode(), b'_' + number.encode()))
    (args.dest / 'edits.json').write_text(json.dumps(
        {'body': [[f'o/{EDITED}0.o', 'edits/same.o', 'edits/body.o']]}, indent=1))
    with open(args.dest / 'main.cpp', 'w') as f:
        f.write('#include <cstdio>\n')
        f.writelines(f'unsigned unit_{n}(unsigned);\n' for n in numbers)
        f.write('int main() {\n  unsigned sum = 1;\n')
        f.writelines(f'  sum += unit_{n}(sum % 100);\n' for n in numbers)
        f.write('  std::printf("%u\\n", sum);\n}\n')
    subprocess.run(['clang++-14', '-O0', '-g', '-fPIE', '-c', 'main.cpp'], cwd=args.dest, check=True)
    command = ['clang++-14', '-fno-lto', '-pie', 'main.o', *names, f'-L{LLVM}/lib',
               '-Wl,--start-group', *(f'-l:lib{x}.a' for x in LIBRARIES), '-Wl,--end-group',
               '-lrt', '-ldl', '-lm', '-lz', '-ltinfo', '-lpthread', '-o', 'KLD_OUT', '-###']
    shown = subprocess.run(command, cwd=args.dest, capture_output=True, text=True, check=True).stderr
    response = subprocess.run([sys.executable, HERE / 'capture.py'], input=shown, text=True,
                              capture_output=True, check=True).stdout
    (args.dest / 'link.rsp').write_text(response)
    check = args.dest / 'check.sh'
    check.write_text('#!/bin/sh\n# The same number as the first output that was checked.\n'
                     'cd "$(dirname "$0")" && got=$("$1") || exit 1\n'
                     '[ -f expect ] || echo "$got" > expect\n[ "$got" = "$(cat expect)" ]\n')
    check.chmod(0o755)


main()
