# kld: build, test, install. `make help` lists the targets.
#
# Sources are found by wildcard: a new .c file needs no line here.
#   libkld     src/ formats/ arch/
#   kld        driver/ + libkld.a
# A variant (debug, asan, ubsan, tsan) is the same build with other flags in a folder of its own,
# build/<variant>/.

CC       = gcc
AR       = ar
CFLAGS   = -O2 -g
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
WARN     = -Wall -Wextra
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
RECOVER_asan  = -fno-sanitize-recover=all
RECOVER_ubsan = -fno-sanitize-recover=all
RECOVER_fuzz  = -fno-sanitize-recover=all

VFLAGS   = $(FLAGS_$(VARIANT)) $(RECOVER_$(VARIANT))
ALLFLAGS = $(STD) $(WARN) $(VFLAGS) $(SPLIT) $(VISIBLE) -pthread $(INCLUDE) $(CPPFLAGS)
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

B        = build$(if $(filter-out release,$(VARIANT)),/$(VARIANT))

LIB_SRC := $(sort $(wildcard src/*.c src/*/*.c formats/*/*.c arch/*/*.c))
CMD_SRC := $(sort $(wildcard driver/*.c))
HEADERS := $(sort $(wildcard include/*/*.h src/*.h src/*/*.h formats/*/*.h arch/*/*.h driver/*.h))
C_FILES := $(LIB_SRC) $(CMD_SRC) $(HEADERS) \
           $(sort $(wildcard test/*.c test/*.h test/*/*.c test/*/*.h examples/*.c examples/*/*.c))

LIB_OBJ  = $(LIB_SRC:%.c=$(B)/obj/%.o)
PIC_OBJ  = $(LIB_SRC:%.c=$(B)/pic/%.o)
CMD_OBJ  = $(CMD_SRC:%.c=$(B)/obj/%.o)

Q_0      = @
Q        = $(Q_$(V))
SAY_0    = @printf '  %-5s %s\n'
SAY_1    = @:
SAY      = $(SAY_$(V))

# --- build --------------------------------------------------------------------------------------

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:

.PHONY: all
all: $(B)/kld $(B)/libkld.a $(B)/libkld.so ## build/kld, build/libkld.a, build/libkld.so

.PHONY: variant
variant: $(B)/kld $(B)/libkld.a

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

$(B)/libkld.a: $(LIB_OBJ) $(B)/objects
	$(SAY) AR $@
	@rm -f $@
	$(Q)$(AR) rcs $@ $(LIB_OBJ)

$(B)/libkld.so: $(PIC_OBJ) $(B)/objects
	$(SAY) LINK $@
	$(Q)$(CC) $(VFLAGS) $(LDFLAGS) -shared -Wl,-soname,libkld.so.$(SOVER) -Wl,--gc-sections \
	    -Wl,--exclude-libs,ALL -Wl,-z,defs -Wl,-z,relro -o $@ $(PIC_OBJ) $(SO_LIBS)
	@ln -sf libkld.so $(B)/libkld.so.$(SOVER)

$(B)/kld: $(CMD_OBJ) $(B)/libkld.a $(B)/objects $(B)/static
	$(SAY) LINK $@
	$(Q)$(CC) $(VFLAGS) $(LDFLAGS) `cat $(B)/static` -Wl,--gc-sections \
	    -o $@ $(CMD_OBJ) $(B)/libkld.a $(LIBS)

# Whether a static link works here. (The link itself decides: an archive may itself need others.)
$(B)/static: $(B)/flags
	@echo 'int main(void) { return 0; }' > $@.c
	@if test -n '$(STATIC)' && $(CC) -static $@.c -o $@.out $(LIBS) 2>/dev/null; \
	 then echo '$(STATIC)'; else echo; fi > $@
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

.PHONY: FORCE
FORCE:

-include $(LIB_OBJ:.o=.d) $(PIC_OBJ:.o=.d) $(CMD_OBJ:.o=.d)

.PHONY: clean
clean: ## remove everything that was built
	rm -rf build

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z$$()A-Z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | \
	 sed 's/^$$(VARIANTS)/debug asan ubsan tsan/' | awk -F '\t' '{ printf "  %-24s %s\n", $$1, $$2 }'
