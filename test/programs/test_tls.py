"""Thread-local storage: every access model in every kind of output, and their relaxations."""

import pytest

from kldtest import KINDS
from kldtest import deviates
from kldtest import only

MODELS = ['global-dynamic', 'local-dynamic', 'initial-exec', 'local-exec']

# Two objects that share thread-local variables, initialised and not; each of three threads counts
# in its own copies.
MAIN = r'''
    #include <pthread.h>
    #include <stdio.h>
    extern __thread int shared_value, shared_zero;
    static __thread char padding = 'p';
    static __thread int local_value = 100;
    static __thread int local_zero;
    int *address_of_shared(void), add_to_shared(int);
    static void *work(void *arg)
    {
        long n = (long)arg;
        for (long i = 0; i < n; i++) {
            local_value++;
            local_zero += 2;
            shared_zero += 3;
            add_to_shared(4);
        }
        if (&shared_value != address_of_shared() || padding != 'p')
            return (void *)-1L;
        return (void *)(long)(local_value + local_zero + shared_zero + shared_value);
    }
    int main(void)
    {
        pthread_t a, b;
        void *result_a, *result_b;
        pthread_create(&a, 0, work, (void *)1L);
        pthread_create(&b, 0, work, (void *)10L);
        pthread_join(a, &result_a);
        pthread_join(b, &result_b);
        printf("%ld %ld %ld\n", (long)result_a, (long)result_b, (long)work((void *)2L));
        return 0;
    }
'''
SHARED = r'''
    __thread long before[3] = { 1, 2, 3 };
    __thread int shared_value = 1000;
    __thread int shared_zero;
    int *address_of_shared(void) { return &shared_value; }
    int add_to_shared(int n) { return shared_value += n; }
'''
EXPECT = '1110 1200 1120\n'
TLS_RELOCS = {'DTPMOD', 'DTPOFF', 'TPOFF', 'TLSDESC'}


@pytest.mark.parametrize('model', MODELS)
def test_model_in_executable(t, compiler, kind, opt, model):
    flags = (opt, '-pthread', f'-ftls-model={model}', *kind.cflags)
    t.link('app', *kind.ldflags, '-pthread', t.cc('a.o', MAIN, *flags), t.cc('b.o', SHARED, *flags))
    if t.target.name != 'riscv64' or model == 'local-exec' or kind.name == 'static':
        assert not TLS_RELOCS & {r.kind for r in t.elf('app').dynrelocs}
    t.run('app', expect=EXPECT)


@pytest.mark.parametrize('model', MODELS[:3])
def test_position_independent_model_in_executable(t, compiler, kind, opt, model):
    """Objects compiled for a shared object; the linker relaxes what it can."""
    flags = (opt, '-pthread', '-fPIC', f'-ftls-model={model}')
    t.link('app', *kind.ldflags, '-pthread', t.cc('a.o', MAIN, *flags), t.cc('b.o', SHARED, *flags))
    t.run('app', expect=EXPECT)


@pytest.mark.parametrize('model', MODELS[:3])
def test_model_in_shared_object(t, compiler, opt, model):
    """All of the program's code in a shared object."""
    flags = (opt, '-pthread', '-fPIC', f'-ftls-model={model}')
    a = t.cc('a.o', MAIN.replace('int main', 'int library_main'), *flags)
    b = t.cc('b.o', SHARED, *flags)
    t.link('liba.so', '-shared', '-pthread', a, b)
    m = t.cc('m.o', 'int library_main(void); int main(void) { return library_main(); }')
    t.link('app', m, 'liba.so')
    t.run('app', expect=EXPECT)


@pytest.mark.parametrize('pie', [('-fPIE', '-pie'), ('-fno-pie', '-no-pie')], ids=['pie', 'no-pie'])
@pytest.mark.parametrize('model', MODELS[:3])
def test_variable_of_a_shared_object(t, compiler, opt, pie, model):
    library_model = 'global-dynamic' if model == 'local-dynamic' else model
    t.link('libb.so', '-shared', t.cc('b.o', SHARED, opt, '-fPIC', f'-ftls-model={library_model}'))
    a = t.cc('a.o', MAIN, opt, '-pthread', pie[0], f'-ftls-model={library_model}')
    t.link('app', pie[1], '-pthread', a, 'libb.so')
    t.run('app', expect=EXPECT)


def test_variables_across_shared_objects(t, compiler, opt):
    flags = (opt, '-pthread', '-fPIC')
    t.link('libb.so', '-shared', t.cc('b.o', SHARED, *flags))
    t.link('liba.so', '-shared', t.cc('a.o', MAIN.replace('int main', 'int go'), *flags), 'libb.so')
    m = t.cc('m.o', 'int go(void); __thread int own = 3; int main(void) { return go() + own; }')
    t.link('app', m, 'liba.so', 'libb.so')
    t.run('app', expect=EXPECT, status=3)


def test_without_plt(t, compiler, kind, opt):
    """__tls_get_addr called through the GOT."""
    flags = (opt, '-pthread', '-fPIC', '-fno-plt')
    a, b = t.cc('a.o', MAIN, *flags), t.cc('b.o', SHARED, *flags)
    t.link('app', *kind.ldflags, '-pthread', a, b)
    t.run('app', expect=EXPECT)


def test_relocatable_output(t, compiler, kind):
    flags = ('-pthread', '-fPIC')
    t.ld('ab.o', '-r', t.cc('a.o', MAIN, *flags), t.cc('b.o', SHARED, *flags))
    t.link('app', *kind.ldflags, '-pthread', 'ab.o')
    t.run('app', expect=EXPECT)


def test_debug_info_of_thread_local_variables(t, compiler, kind):
    flags = ('-g', '-pthread', *kind.cflags)
    t.link('app', *kind.ldflags, '-pthread', t.cc('a.o', MAIN, *flags), t.cc('b.o', SHARED, *flags))
    t.run('app', expect=EXPECT)


@only('x86_64')
@deviates(strict=False, lld='lld 14 does not know the sequence')
@pytest.mark.parametrize('dialect', ['gnu', 'gnu2'])
@pytest.mark.parametrize('model', MODELS[:2])
def test_large_code_model(t, model, dialect):
    """__tls_get_addr is reached through a register: longer sequences, relaxed all the same."""
    flags = ('-O2', '-pthread', '-fPIC', '-mcmodel=large', f'-ftls-model={model}',
             f'-mtls-dialect={dialect}')
    a, b = t.cc('a.o', MAIN, *flags), t.cc('b.o', SHARED, *flags)
    t.link('app', '-pie', '-pthread', a, b)
    t.run('app', expect=EXPECT)
    if model == 'global-dynamic':
        t.link('libb.so', '-shared', b)
        t.link('app2', '-pie', '-pthread', a, 'libb.so')
        t.run('app2', expect=EXPECT)


# -- descriptors --------------------------------------------------------------------------------

def descriptors(t):
    """Flags for code that uses TLS descriptors."""
    return (f'-mtls-dialect={"gnu2" if t.target.name == "x86_64" else "desc"}', '-pthread', '-fPIC')


@only('x86_64', 'aarch64')
def test_descriptors_in_executable(t, kind, opt):
    a, b = t.cc('a.o', MAIN, opt, *descriptors(t)), t.cc('b.o', SHARED, opt, *descriptors(t))
    t.link('app', *kind.ldflags, '-pthread', a, b)
    assert 'TLSDESC' not in {r.kind for r in t.elf('app').dynrelocs}
    t.run('app', expect=EXPECT)


@only('x86_64', 'aarch64')
@pytest.mark.parametrize('mode', ['lazy', 'now'])
def test_descriptors_in_shared_object(t, opt, mode):
    a = t.cc('a.o', MAIN.replace('int main', 'int go'), opt, *descriptors(t))
    b = t.cc('b.o', SHARED, opt, *descriptors(t))
    t.link('liba.so', '-shared', '-pthread', f'-Wl,-z,{mode}', a, b)
    assert 'TLSDESC' in t.elf('liba.so').dynrelocs_of('shared_value')
    t.link('app', t.cc('m.o', 'int go(void); int main(void) { return go(); }'), 'liba.so')
    t.run('app', expect=EXPECT)


@only('x86_64', 'aarch64')
def test_descriptor_of_imported_variable_in_executable(t, opt):
    """Relaxed to initial-exec: the offset is known once all modules are loaded."""
    t.link('libb.so', '-shared', t.cc('b.o', SHARED, opt, *descriptors(t)))
    t.link('app', '-pie', '-pthread', t.cc('a.o', MAIN, opt, *descriptors(t)), 'libb.so')
    assert t.elf('app').dynrelocs_of('shared_value') == ['TPOFF']
    t.run('app', expect=EXPECT)


@only('x86_64')
def test_descriptors_and_tls_get_addr_in_one_object(t):
    a = t.cc('a.o', MAIN.replace('int main', 'int go'), '-pthread', '-fPIC')
    b = t.cc('b.o', SHARED, *descriptors(t))
    t.link('liba.so', '-shared', '-pthread', a, b)
    t.link('app', t.cc('m.o', 'int go(void); int main(void) { return go(); }'), 'liba.so')
    t.run('app', expect=EXPECT)


# -- relocations --------------------------------------------------------------------------------

@only('x86_64', 'aarch64')
def test_imported_variable_is_relaxed_to_initial_exec(t, compiler):
    t.link('libb.so', '-shared', t.cc('b.o', SHARED, '-fPIC'))
    a = t.cc('a.o', MAIN, '-pthread', '-fPIC')
    t.link('app', '-pie', '-pthread', a, 'libb.so')
    assert t.elf('app').dynrelocs_of('shared_value') == ['TPOFF']


@only('x86_64', 'riscv64')
def test_global_dynamic_uses_a_pair_of_relocations(t, compiler):
    t.link('libb.so', '-shared', t.cc('b.o', SHARED, '-fPIC'))
    elf = t.elf('libb.so')
    assert elf.dynrelocs_of('shared_value') == ['DTPMOD', 'DTPOFF']
    pair = sorted(r.offset for r in elf.dynrelocs if r.symbol == 'shared_value')
    assert pair[1] == pair[0] + 8
    assert 'STATIC_TLS' not in elf.dyn_flags()


@only('x86_64')
def test_local_dynamic_needs_one_module_relocation(t, compiler):
    source = ''.join(f'static __thread int v{i} = {i}; int *f{i}(void) {{ return &v{i}; }}\n'
                     for i in range(5))
    a = t.cc('a.o', source, '-fPIC', '-ftls-model=local-dynamic')
    b = t.cc('b.o', source.replace('f', 'g'), '-fPIC', '-ftls-model=local-dynamic')
    t.link('liba.so', '-shared', a, b)
    kinds = [r.kind for r in t.elf('liba.so').dynrelocs]
    assert kinds.count('DTPMOD') == 1 and 'DTPOFF' not in kinds


def test_hidden_variable_has_its_offset_in_place(t, compiler):
    source = r'''
        __attribute__((visibility("hidden"))) __thread int x = 4, y = 5;
        int sum(void) { return x + y; }
    '''
    t.link('liba.so', '-shared', t.cc('a.o', source, '-fPIC', '-ftls-model=global-dynamic'))
    assert 'DTPOFF' not in {r.kind for r in t.elf('liba.so').dynrelocs}
    t.link('app', t.cc('m.o', 'int sum(void); int main(void) { return sum(); }'), 'liba.so')
    t.run('app', status=9)


def test_initial_exec_in_shared_object_is_flagged(t, compiler):
    t.link('libb.so', '-shared', t.cc('b.o', SHARED, '-fPIC', '-ftls-model=initial-exec'))
    assert 'STATIC_TLS' in t.elf('libb.so').dyn_flags()
    assert t.elf('libb.so').dynrelocs_of('shared_value') == ['TPOFF']


def test_local_exec_in_shared_object_is_refused(t, compiler):
    b = t.cc('b.o', SHARED, '-fPIC', '-ftls-model=local-exec')
    t.link('libb.so', '-shared', b, ok=False).says('b.o', 'shared_value')


@deviates(lld='does not look')
def test_mixing_thread_local_and_ordinary_is_refused(t):
    t.cc('a.o', 'extern int value; int main(void) { return value; }')
    t.cc('b.o', '__thread int value = 3;')
    t.link('app', 'a.o', 'b.o', ok=False).says('value', 'a.', 'b.o', 'TLS')


@only('x86_64')
def test_initial_exec_in_every_register(t):
    """The encodings of %r12 and %rsp are special cases of the relaxation."""
    registers = ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'r8', 'r9', 'r10', 'r11', 'r12',
                 'r13', 'r14', 'r15']
    body = ''.join(f'''
        mov x@gottpoff(%rip), %{r}
        cmpl $77, %fs:(%{r})
        jne 9f
        mov %fs:0, %{r}
        add x@gottpoff(%rip), %{r}
        cmpl $77, (%{r})
        jne 9f
        ''' for r in registers)
    t.asm('a.o', f'''
        .globl check
        check:
            push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
            {body}
            mov %rsp, %r15
            mov %fs:0, %rsp
            add x@gottpoff(%rip), %rsp
            mov (%rsp), %ebx
            mov %r15, %rsp
            cmp $77, %ebx
            jne 9f
            mov $1, %eax
            jmp 8f
        9:  mov $0, %eax
        8:  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
            ret
        .section .note.GNU-stack,"",@progbits
        ''')
    for kind in KINDS.values():
        t.link('app', *kind.ldflags, 'a.o', t.cc('m.o', r'''
            __thread int gap = 1, x = 77;
            int check(void);
            int main(void) { return check(); }''', *kind.cflags))
        t.run('app', status=1)


# -- layout -------------------------------------------------------------------------------------

@pytest.mark.parametrize('align', [16, 64, 256, 4096])
def test_alignment(t, compiler, kind, align):
    """In the first thread and in others, with sizes that are no multiple of it."""
    a = t.cc('a.o', r'''
        #include <pthread.h>
        #include <stdint.h>
        __thread char first = 1;
        _Alignas(ALIGN) __thread char aligned[3] = { 2 };
        __thread char middle = 3;
        __thread char zero[5];
        _Alignas(ALIGN) __thread char aligned_zero[7];
        static void *check(void *arg)
        {
            char *volatile p = aligned, *volatile q = aligned_zero;
            int bad = (uintptr_t)p % ALIGN || (uintptr_t)q % ALIGN;
            bad |= first != 1 || aligned[0] != 2 || middle != 3 || zero[4] || aligned_zero[6];
            return (void *)(intptr_t)bad;
        }
        int main(void)
        {
            pthread_t thread;
            void *result;
            pthread_create(&thread, 0, check, 0);
            pthread_join(thread, &result);
            return (int)(intptr_t)result * 2 + (int)(intptr_t)check(0);
        }''', f'-DALIGN={align}', '-pthread', *kind.cflags)
    t.link('app', *kind.ldflags, '-pthread', a)
    assert t.elf('app').segment('TLS').align == align
    t.run('app')


def test_alignment_between_modules(t, compiler):
    t.link('liba.so', '-shared', t.cc('l.o', r'''
        __thread char c = 1;
        _Alignas(512) __thread char big[9] = { 4 };
        char *get(void) { return big; }''', '-fPIC'))
    a = t.cc('a.o', r'''
        #include <stdint.h>
        __thread short mine = 5;
        _Alignas(128) __thread int own = 6;
        extern __thread char big[9];
        char *get(void);
        int main(void)
        {
            char *volatile p = big;
            int *volatile q = &own;
            return (uintptr_t)p % 512 || get() != big || (uintptr_t)q % 128 ? 99
                : mine + own + big[0];
        }''')
    t.link('app', a, 'liba.so')
    t.run('app', status=15)


def test_zeroed_part_takes_no_room(t, kind):
    """.tbss occupies neither the file nor addresses that .bss or .data would get."""
    a = t.cc('a.o', r'''
        static __thread char big[1 << 20];
        static __thread int value = 4;
        int after[4] = { 1, 2, 3, 4 };
        int main(void) { return big[1000] + value + after[3]; }''', *kind.cflags)
    t.link('app', *kind.ldflags, a)
    elf = t.elf('app')
    tls = elf.segment('TLS')
    assert tls.memsz >= 1 << 20 and tls.filesz < 4096
    assert (elf.loads()[-1].vaddr + elf.loads()[-1].memsz) - elf.loads()[0].vaddr < 1 << 20
    t.run('app', status=8)


def test_zeroed_variables_only(t, compiler, kind):
    """A .tbss without .tdata, so that the segment is empty in the file."""
    a = t.cc('a.o', r'''
        static __thread int x, y[10];
        int main(void) { x += 3; y[9] += 4; return x + y[9] + y[0]; }''', *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', status=7)


def test_segment_covers_both_sections(t, compiler):
    t.link('app', t.cc('a.o', SHARED + 'int main(void) { return add_to_shared(0) == 1000; }'))
    elf = t.elf('app')
    tls, data, zero = elf.segment('TLS'), elf.section('.tdata'), elf.section('.tbss')
    assert (tls.vaddr, tls.filesz) == (data.addr, data.size)
    assert tls.memsz == zero.end - data.addr
    assert tls.flags == 'R'


def test_symbol_values_are_offsets_in_the_segment(t, compiler):
    t.link('app', t.cc('a.o', SHARED + 'int main(void) { return 0; }'), '-Wl,--export-dynamic')
    elf = t.elf('app')
    for symbol in (elf.symbol('shared_value'), elf.dynsym('shared_value')):
        assert symbol.type == 'TLS'
        image = elf.section('.tdata').data
        assert int.from_bytes(image[symbol.value:symbol.value + 4], 'little') == 1000
    assert elf.symbol('shared_zero').value >= elf.section('.tdata').size


def test_pointers_in_the_initial_image(t, compiler, kind):
    """Relocations apply to .tdata before the first thread copies it."""
    a = t.cc('a.o', r'''
        static int target = 6;
        int puts(const char *);
        static __thread int *pointer = &target;
        static __thread int (*function)(const char *) = puts;
        int main(void) { function("pointed"); return *pointer; }''', *kind.cflags)
    t.link('app', *kind.ldflags, a)
    t.run('app', expect='pointed\n', status=6)


def test_many_variables_in_many_objects(t, kind):
    objects = [t.cc(f'o{i}.o', f'__thread int v{i} = {i}; __thread char c{i}; int get{i}(void)'
                    f'{{ return v{i} + c{i}; }}', '-ffunction-sections', '-fdata-sections',
                    *kind.cflags) for i in range(12)]
    calls = ' + '.join(f'get{i}()' for i in range(12))
    protos = ''.join(f'int get{i}(void);' for i in range(12))
    m = t.cc('m.o', f'{protos} int main(void) {{ return {calls}; }}', *kind.cflags)
    t.link('app', *kind.ldflags, m, *objects)
    t.run('app', status=66)
    t.link('app-gc', *kind.ldflags, '-Wl,--gc-sections', m, *objects)
    t.run('app-gc', status=66)


# -- dlopen -------------------------------------------------------------------------------------

PLUGIN_HOST = r'''
    #include <dlfcn.h>
    #include <pthread.h>
    #include <stdio.h>
    static int (*next)(void);
    static void *work(void *arg) { next(); return (void *)(long)next(); }
    int main(void)
    {
        void *handle = dlopen("./plugin.so", RTLD_NOW), *result;
        pthread_t thread;
        if (!handle)
            return puts(dlerror()), 1;
        next = (int (*)(void))dlsym(handle, "next");
        next();
        next();
        pthread_create(&thread, 0, work, 0);
        pthread_join(thread, &result);
        printf("%d %ld\n", next(), (long)result);
        return dlclose(handle);
    }
'''
PLUGIN = r'''
    static __thread int hidden = 10;
    __thread int opened = 100;
    static __thread char zero[300];
    int next(void) { return ++hidden + ++opened + ++zero[299]; }
'''


@pytest.mark.parametrize('model', MODELS[:3])
def test_opened_plugin(t, compiler, opt, model):
    t.link('plugin.so', '-shared', t.cc('p.o', PLUGIN, opt, '-fPIC', f'-ftls-model={model}'))
    t.link('app', '-pthread', t.cc('a.o', PLUGIN_HOST, '-pthread'))
    t.run('app', expect='119 116\n')


@only('x86_64', 'aarch64')
@pytest.mark.parametrize('mode', ['lazy', 'now'])
def test_opened_plugin_with_descriptors(t, opt, mode):
    t.link('plugin.so', '-shared', f'-Wl,-z,{mode}', t.cc('p.o', PLUGIN, opt, *descriptors(t)))
    t.link('app', '-pthread', t.cc('a.o', PLUGIN_HOST, '-pthread'))
    t.run('app', expect='119 116\n')
