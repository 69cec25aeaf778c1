# kld: build, test, install. `make help` lists the targets.
#
# Sources are found by wildcard: a new .c file needs no line here.
#   libkld     src/ formats/ arch/, and of driver/ all but what only a process of its own needs
#   kld        the rest of driver/ + libkld.a
# A variant (debug, asan, ubsan, tsan) is the same build with other flags in a folder of its own,
# build/<variant>/.

CC       = gcc
AR       = ar
# -O3 for 2 to 3% of the time of links, small and large ones
CFLAGS   = -O3 -g
LDFLAGS  =
PREFIX   = /usr/local
DESTDIR  =
PYTHON   = /usr/bin/python3
CLANG    = clang
FORMAT   = clang-format
V        = 0

# release, debug, asan, ubsan or tsan; set by the targets of these names
VARIANT  = release

# --- flags --------------------------------------------------------------------------------------

STD      = -std=gnu17
WARN     = -Wall -Wextra -Werror=implicit-function-declaration
DEFINES  = -D_GNU_SOURCE=
INCLUDE  = -Iinclude -I.
SPLIT    = -ffunction-sections -fdata-sections
VISIBLE  = -fvisibility=hidden

FLAGS_release = $(CFLAGS) -DNDEBUG
FLAGS_debug   = -O0 -g3 -DKLD_DEBUG
FLAGS_asan    = -O1 -g -fno-omit-frame-pointer -DKLD_DEBUG -fsanitize=address,undefined
FLAGS_ubsan   = -O1 -g -fno-omit-frame-pointer -DKLD_DEBUG -fsanitize=undefined
FLAGS_tsan    = -O1 -g -fno-omit-frame-pointer -DKLD_DEBUG -fsanitize=thread
FLAGS_fuzz    = -O1 -g -fno-omit-frame-pointer -DKLD_DEBUG \
                -fsanitize=fuzzer-no-link,address,undefined
STRICT_asan   = -fno-sanitize-recover=all
STRICT_ubsan  = -fno-sanitize-recover=all
STRICT_fuzz   = -fno-sanitize-recover=all

VFLAGS   = $(FLAGS_$(VARIANT)) $(STRICT_$(VARIANT))
ALLFLAGS = $(STD) $(WARN) $(VFLAGS) $(SPLIT) $(VISIBLE) -pthread $(DEFINES) $(INCLUDE) $(CPPFLAGS)
WERROR_1 = -Werror

# What libkld uses of the system. libiberty exists as an archive only; libb2.so would bring OpenMP's
# runtime into every host, the few functions used of the archive do not.
LIBS     = -lb2 -lnettle -liberty -lzstd -lz -pthread
SO_LIBS  = $(LIBS:-lb2=-l:libb2.a)

# The command is linked statically where every archive is there (it starts faster), and never with
# a sanitizer. STATIC= on the command line forces a dynamic link.
STATIC   = $(if $(filter release debug,$(VARIANT)),-static)

VERSION := $(or $(shell sed -n 's/^\#define KLD_VERSION_STRING *"\(.*\)".*/\1/p;s/^\#define KLD_VERSION *"\(.*\)".*/\1/p' include/kld/kld.h 2>/dev/null),0.1.0)
SOVER    = 0

# --- files --------------------------------------------------------------------------------------

OBJCOPY ?= objcopy
B        = build$(if $(filter-out release,$(VARIANT)),/$(VARIANT))

CMD_SRC := driver/main.c driver/report.c driver/leave.c
LIB_SRC := $(sort $(wildcard src/*.c src/*/*.c formats/*/*.c arch/*/*.c) \
                  $(filter-out $(CMD_SRC),$(wildcard driver/*.c)))
HEADERS := $(sort $(wildcard include/*/*.h src/*.h src/*/*.h formats/*/*.h arch/*/*.h driver/*.h))
C_FILES := $(LIB_SRC) $(CMD_SRC) $(HEADERS) \
           $(sort $(wildcard test/*.c test/*.h test/*/*.c test/*/*.h examples/*.c examples/*/*.c))

LIB_OBJ  = $(LIB_SRC:%.c=$(B)/obj/%.o)
PIC_OBJ  = $(LIB_SRC:%.c=$(B)/pic/%.o)
CMD_OBJ  = $(CMD_SRC:%.c=$(B)/obj/%.o)

# V=1 shows the commands, -s shows nothing
Q_0      = @
Q        = $(Q_$(V))
SAY_0    = @$(if $(findstring s,$(firstword -$(MAKEFLAGS))),:,printf '  %-5s %s\n')
SAY_1    = @:
SAY      = $(SAY_$(V))

# --- build --------------------------------------------------------------------------------------

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:

.PHONY: all
all: $(B)/kld $(B)/libkld.a $(B)/libkld-parts.a $(B)/libkld.so ## build/kld, libkld.a, libkld.so

.PHONY: variant
variant: $(B)/kld $(B)/libkld.a $(B)/libkld-parts.a

VARIANTS = debug asan ubsan tsan
.PHONY: $(VARIANTS)
$(VARIANTS): ## build/<variant>/kld and libkld.a: assertions, or sanitizers as well
	@$(MAKE) --no-print-directory VARIANT=$@ variant

$(B)/obj/%.o: %.c $(B)/flags
	$(SAY) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALLFLAGS) $(WERROR_$(WERROR)) -fPIE -MMD -MP -c $< -o $@

$(B)/pic/%.o: %.c $(B)/flags
	$(SAY) PIC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALLFLAGS) $(WERROR_$(WERROR)) -fPIC -MMD -MP -c $< -o $@

# One member in which only the public names are left global: the host's own names cannot clash with
# those of kld. The command, the unit tests and the fuzzers, which call what is inside, use
# libkld-parts.a.
$(B)/libkld.a: $(LIB_OBJ) $(B)/objects
	$(SAY) AR $@
	@rm -f $@
	$(Q)$(CC) -r -nostdlib -o $(B)/libkld.o $(LIB_OBJ)
	$(Q)$(OBJCOPY) --localize-hidden $(B)/libkld.o
	$(Q)$(AR) rcs $@ $(B)/libkld.o

$(B)/libkld-parts.a: $(LIB_OBJ) $(B)/objects
	$(SAY) AR $@
	@rm -f $@
	$(Q)$(AR) rcs $@ $(LIB_OBJ)

$(B)/libkld.so: $(PIC_OBJ) $(B)/objects
	$(SAY) LINK $@
	$(Q)$(CC) $(VFLAGS) $(LDFLAGS) -shared -Wl,-soname,libkld.so.$(SOVER) -Wl,--gc-sections \
	    -Wl,--exclude-libs,ALL -Wl,-z,defs -Wl,-z,relro -o $@ $(PIC_OBJ) $(SO_LIBS)
	@ln -sf libkld.so $(B)/libkld.so.$(SOVER)

$(B)/kld: $(CMD_OBJ) $(B)/libkld-parts.a $(B)/objects $(B)/static
	$(SAY) LINK $@
	$(Q)$(CC) $(VFLAGS) $(LDFLAGS) `cat $(B)/static` -Wl,--gc-sections \
	    -o $@ $(CMD_OBJ) $(B)/libkld-parts.a $(LIBS)

# Whether a static link works here. (The link itself decides: an archive may itself need others.)
# Where it did not, packages may have come since.
$(B)/static: $(B)/flags $(if $(shell cat $(B)/static 2>/dev/null),,FORCE)
	@echo 'int main(void) { return 0; }' > $@.c
	@if test -n '$(STATIC)' && $(CC) -static $@.c -o $@.out $(LIBS) 2>/dev/null; \
	 then echo '$(STATIC)'; else echo; fi > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
	@rm -f $@.c $@.out

# Stamps: rewritten only when their text changes, so that other flags or a removed source rebuild
# what depends on them. Two `make` calls may run at once, hence the process id.
define stamp
	@mkdir -p $(B)
	@printf '%s\n' '$(1)' > $@.$$$$; if cmp -s $@.$$$$ $@; then rm -f $@.$$$$; \
	 else mv -f $@.$$$$ $@; fi
endef

$(B)/flags: FORCE
	$(call stamp,$(CC) $(ALLFLAGS) $(LDFLAGS) $(STATIC))

$(B)/objects: FORCE
	$(call stamp,$(LIB_SRC) $(CMD_SRC))

# States of incremental links are good for one linker only: KLD_BUILD in src/incremental/state.c.
SOURCES_ID := $(shell cat $(LIB_SRC) $(HEADERS) $(wildcard src/*.def src/*/*.def arch/*/*.def) | \
                     sha1sum | cut -c 1-16)
$(B)/source-id: FORCE
	$(call stamp,$(SOURCES_ID))

$(B)/obj/src/incremental/state.o $(B)/pic/src/incremental/state.o: $(B)/source-id
$(B)/obj/src/incremental/state.o $(B)/pic/src/incremental/state.o: \
    DEFINES += -DKLD_BUILD='"$(SOURCES_ID) $(VARIANT)"'

.PHONY: FORCE
FORCE:

-include $(LIB_OBJ:.o=.d) $(PIC_OBJ:.o=.d) $(CMD_OBJ:.o=.d)

# --- install ------------------------------------------------------------------------------------

BINDIR     = $(PREFIX)/bin
LIBDIR     = $(PREFIX)/lib
LIBEXECDIR = $(PREFIX)/libexec/kld
INCLUDEDIR = $(PREFIX)/include
MANDIR     = $(PREFIX)/share/man

# Other names of the command: a flavour each, and in libexec what compilers look for (gcc -B DIR).
BIN_NAMES     = ld.kld ld64.kld kld-link
LIBEXEC_NAMES = ld ld.bfd ld.gold ld.lld ld.mold

.PHONY: install
install: all ## copy to PREFIX (/usr/local), below DESTDIR if that is set
	install -d $(addprefix $(DESTDIR),$(BINDIR) $(LIBDIR)/pkgconfig $(LIBEXECDIR) $(INCLUDEDIR)/kld)
	install -m 755 $(B)/kld $(DESTDIR)$(BINDIR)/kld
	for n in $(BIN_NAMES); do ln -sfn kld $(DESTDIR)$(BINDIR)/$$n || exit; done
	for n in $(LIBEXEC_NAMES); do \
	    ln -sfnr $(DESTDIR)$(BINDIR)/kld $(DESTDIR)$(LIBEXECDIR)/$$n || exit; done
	install -m 644 $(B)/libkld.a $(DESTDIR)$(LIBDIR)/libkld.a
	install -m 755 $(B)/libkld.so $(DESTDIR)$(LIBDIR)/libkld.so.$(VERSION)
	ln -sfn libkld.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libkld.so.$(SOVER)
	ln -sfn libkld.so.$(SOVER) $(DESTDIR)$(LIBDIR)/libkld.so
	install -m 644 $(wildcard include/kld/*.h) $(DESTDIR)$(INCLUDEDIR)/kld
	sed -e 's|@PREFIX@|$(PREFIX)|;s|@LIBDIR@|$(LIBDIR)|;s|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	    -e 's|@VERSION@|$(VERSION)|;s|@LIBS@|$(LIBS)|' kld.pc.in > $(B)/kld.pc
	install -m 644 $(B)/kld.pc $(DESTDIR)$(LIBDIR)/pkgconfig/kld.pc
ifneq ($(wildcard man/kld.1),)
	install -d $(DESTDIR)$(MANDIR)/man1
	install -m 644 man/kld.1 $(DESTDIR)$(MANDIR)/man1/kld.1
endif

.PHONY: uninstall
uninstall: ## remove what install has put there
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,kld $(BIN_NAMES))
	rm -f $(addprefix $(DESTDIR)$(LIBEXECDIR)/,$(LIBEXEC_NAMES))
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,libkld.a libkld.so libkld.so.$(SOVER) \
	    libkld.so.$(VERSION) pkgconfig/kld.pc)
	rm -f $(addprefix $(DESTDIR)$(INCLUDEDIR)/kld/,$(notdir $(wildcard include/kld/*.h)))
	rm -f $(DESTDIR)$(MANDIR)/man1/kld.1
	-rmdir $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(INCLUDEDIR)/kld 2>/dev/null

# --- check --------------------------------------------------------------------------------------

.PHONY: check
check: ## the test suite; installs what it needs when run as root
	@tools/apt-deps build check
	@$(MAKE) --no-print-directory all
	@PYTHON=$(PYTHON) tools/check $(TESTS)

.PHONY: check-debug check-asan check-ubsan check-tsan
check-debug check-asan check-ubsan check-tsan: check-%: ## the suite on that variant
	@tools/apt-deps build check
	@$(MAKE) --no-print-directory all $*
	@PYTHON=$(PYTHON) tools/check $* $(TESTS)

.PHONY: lint
lint: ## format, warnings of gcc and clang, headers that stand alone
	@tools/lint format warnings headers

.PHONY: format
format: ## reformat every .c and .h
	$(FORMAT) -i $(C_FILES)

.PHONY: tidy
tidy: ## clang-tidy, slow
	printf '%s\n' $(LIB_SRC) $(CMD_SRC) | \
	xargs -P 2 -n 1 -I{} clang-tidy --quiet {} -- $(STD) $(DEFINES) $(INCLUDE) -DKLD_DEBUG

# Each test/fuzz/fuzz_NAME.c is a fuzzer; its seeds are in test/fuzz/seeds/NAME/, what it finds stays
# in build/fuzz/corpus/NAME/. FUZZ=NAME runs one, FUZZ_TIME is in seconds for each.
FUZZ_TIME = 60
FUZZ     := $(patsubst test/fuzz/fuzz_%.c,%,$(sort $(wildcard test/fuzz/fuzz_*.c)))

.PHONY: fuzz
fuzz: ## run the fuzzers, FUZZ_TIME=60 seconds each
	@$(MAKE) --no-print-directory VARIANT=fuzz CC=$(CLANG) $(FUZZ:%=build/fuzz/fuzz_%)
	@set -e; for f in $(FUZZ); do \
	    mkdir -p build/fuzz/corpus/$$f build/fuzz/seeds/$$f; \
	    seeds=test/fuzz/seeds/$$f; test -d $$seeds || seeds=; \
	    echo "fuzz_$$f: $(FUZZ_TIME) seconds"; \
	    build/fuzz/fuzz_$$f -max_total_time=$(FUZZ_TIME) -rss_limit_mb=4096 -timeout=20 \
	        -print_final_stats=1 -verbosity=0 -artifact_prefix=build/fuzz/$$f- \
	        build/fuzz/corpus/$$f $$seeds </dev/null; \
	done

$(B)/fuzz_%: test/fuzz/fuzz_%.c $(B)/libkld-parts.a
	$(SAY) LINK $@
	$(Q)$(CC) $(ALLFLAGS) -fsanitize=fuzzer -MMD -MP -MF $@.d -o $@ $< $(B)/libkld-parts.a $(LIBS)

-include $(wildcard build/fuzz/fuzz_*.d)

# --- show and measure ---------------------------------------------------------------------------

.PHONY: demo
demo: ## build kld, link a small program with it, edit it, link it again
	@tools/apt-deps build
	@$(MAKE) --no-print-directory $(B)/kld
	@tools/demo

.PHONY: soak
soak: ## random edits and relinks of random programs, until it is stopped or finds something
	@$(MAKE) --no-print-directory all
	$(PYTHON) test/link-incremental/randomprogram.py

.PHONY: bench bench-quick bench-record
bench: ## kld beside ld.bfd, ld.gold, ld.lld and mold, on large links (see test/bench/README.md)
bench-quick: ## the same on hello world and 1,000 synthetic objects
bench-record: ## bench, kept in test/bench/results and shown in README.md
bench bench-quick bench-record:
	@tools/apt-deps build bench
	@$(MAKE) --no-print-directory all
	@test/bench/run $(patsubst bench,full,$(@:bench-%=%))

# --- the rest -----------------------------------------------------------------------------------

.PHONY: clean
clean: ## remove everything that was built
	rm -rf build

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-zA-Z$$()][^:]*\):.*## \(.*\)/\1\t\2/p' Makefile | \
	 sed 's/^$$(VARIANTS)/$(VARIANTS)/' | awk -F '\t' '{ printf "  %-46s %s\n", $$1, $$2 }'
