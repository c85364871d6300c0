# The few commands that people need; the build itself is CMakeLists.txt.
#
#   make            release build (build/release/bin)
#   make check      the quick inner loop: unit, exhaustive and simulated tests, model, include rules; under a minute
#   make test       everything, from a bare Debian 12 as root: packages, build, check, sanitizers, the real lab
#   make demo       a guest moves, twice: plain and with LMO (as root)
#   make sweep      every pair of faults in the simulator: about an hour of processor time
#   make contract   the REST API against proto/openapi.yaml, by a tool of others (npm); part of `make test`
#   make fuzz       every decoder, FUZZ_MINUTES=10 each (clang)
#   make bench      figures, as ratios within one run
#   make faults     fault campaigns: all on the simulator and simulated workers, the hard ones on the lab (as root)
#   make soak       random requests and faults on simulated workers, SOAK_MINUTES=10, SOAK_SEED=
#   make deb        Debian packages lmo-coordinator, lmo-worker, lmo-cli in build/deb, clean under lintian
#   make deb-check  and installs, upgrades and removes them in a Debian 12 of its own (as root)
#   make versions   migrations between this version and the one before it, coordinator and workers mixed
#   make tsan-check unit tests (fakes and simulated workers included) under ThreadSanitizer
#   make asan tsan clang debug faults-build   other builds (faults-build: with fault points, pre-production only)
#   make docs       docs/cli-reference.md from the tables of commands and options
#   make format lint                source style, static analysis
#   make clean
SHELL := /bin/bash
BUILD := build
JOBS ?= $(shell nproc)
# ninja where it is installed, make otherwise; a build directory keeps the generator that it began with.
ifndef CMAKE_GENERATOR
ifneq ($(shell command -v ninja),)
export CMAKE_GENERATOR := Ninja
endif
endif

# Recipes of `test` and `demo` install packages first: nothing may be looked up before.
.PHONY: contract fuzz fuzz-build tsan-check docs deb deb-check versions all release debug asan tsan clang faults faults-build soak check test sweep demo bench format format-check lint clean setup tools-present
.DEFAULT_GOAL := all

all: release

tools-present:
	@command -v cmake >/dev/null && command -v pkg-config >/dev/null && command -v gcc >/dev/null || \
	    { echo "cmake, pkg-config and gcc are needed: run deploy/setup.sh as root first" >&2; exit 1; }

# $(call build,preset)
define build
	@if [ ! -f $(BUILD)/$(1)/CMakeCache.txt ]; then cmake --preset $(1) >$(BUILD)/$(1).log 2>&1 || \
	    { cat $(BUILD)/$(1).log >&2; rm -f $(BUILD)/$(1)/CMakeCache.txt; exit 1; }; fi
	@cmake --build $(BUILD)/$(1) --parallel $(JOBS)
endef

release debug asan tsan clang: tools-present
	@mkdir -p $(BUILD)
	$(call build,$@)

# Only the programs: tests of the library are for the other builds.
FAULTY := lmod lmo-worker lmo lmo-simworkers lmo-simctl lmo-fakeclock
faults-build: tools-present
	@mkdir -p $(BUILD)
	@if [ ! -f $(BUILD)/faults/CMakeCache.txt ]; then cmake --preset faults >$(BUILD)/faults.log 2>&1 || \
	    { cat $(BUILD)/faults.log >&2; rm -f $(BUILD)/faults/CMakeCache.txt; exit 1; }; fi
	@cmake --build $(BUILD)/faults --parallel $(JOBS) --target $(FAULTY)

check: release
	@tests/tally --build $(BUILD) rules unit exhaust sim model

setup:
	@deploy/setup.sh

# One after the other, whatever -j says: the build needs the packages, and the lab needs the cores.
test: setup
	@$(MAKE) --no-print-directory release asan faults-build fuzz-build || { echo "FAILED build"; echo "0 passed, 1 failed"; exit 1; }
	@tests/tally --build $(BUILD) rules unit exhaust sim sweep model-full asan api fuzz cli faults service lab

# All pairs of faults from a switch-over on: an hour of processor time; tests/sim/README.md has the figures.
sweep: release
	@tests/tally --build $(BUILD) sweep-full

FUZZ_MINUTES ?= 10
fuzz-build: tools-present
	@mkdir -p $(BUILD)
	@if [ ! -f $(BUILD)/fuzz/CMakeCache.txt ]; then cmake --preset fuzz >$(BUILD)/fuzz.log 2>&1 || \
	    { cat $(BUILD)/fuzz.log >&2; rm -f $(BUILD)/fuzz/CMakeCache.txt; exit 1; }; fi
	@cmake --build $(BUILD)/fuzz --parallel $(JOBS) --target fuzzers

fuzz: fuzz-build
	@tests/fuzz/run --build $(BUILD) --minutes $(FUZZ_MINUTES)

contract: release
	@tests/api/contract --build $(BUILD)

tsan-check: tsan
	@tests/tally --build $(BUILD) tsan

demo: setup
	@$(MAKE) --no-print-directory release
	@tests/demo/demo

deb:
	@deploy/deb $(BUILD)/deb

deb-check: release deb
	@tests/tally --build $(BUILD) packages

versions: release
	@tests/tally --build $(BUILD) versions

SOAK_MINUTES ?= 10
SOAK_SEED ?= 0
faults: setup
	@$(MAKE) --no-print-directory release faults-build
	@tests/faults/lmo-faults --target sim,simworkers,lab

soak: faults-build
	@tests/faults/lmo-faults --soak $(SOAK_MINUTES) --seed $(SOAK_SEED)

bench: release
	@cmake --build $(BUILD)/release --parallel $(JOBS) --target benches
	@if [ -x tests/bench/run ]; then tests/bench/run; else \
	    for b in tests/bench/*.c; do [ -f "$$b" ] && $(BUILD)/release/bin/$$(basename "$$b" .c); done; fi

SOURCES = $(shell find lmo workers proto tests deploy -name '*.[ch]' -not -path '*/generated/*')

# The reference of the command line, from its tables.
docs: release
	@$(BUILD)/release/bin/lmo-docs reference docs/cli-reference.md

format:
	@clang-format -i $(SOURCES)

format-check:
	@clang-format --dry-run -Werror $(SOURCES)

lint: release
	@clang-tidy --quiet -p $(BUILD)/release $(filter lmo/%.c workers/%.c proto/%.c,$(SOURCES))
	@shellcheck -x $$(grep -rlE '^#!.*\b(ba)?sh' --include='*' deploy tests .ci 2>/dev/null)

clean:
	@rm -rf $(BUILD)/release $(BUILD)/debug $(BUILD)/asan $(BUILD)/tsan $(BUILD)/clang $(BUILD)/faults $(BUILD)/fuzz $(BUILD)/*.log
