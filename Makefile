# The few commands that people need; the build itself is CMakeLists.txt.
#
#   make            release build (build/release/bin)
#   make check      the quick inner loop: unit, exhaustive and simulated tests, include rules; under a minute
#   make test       everything, from a bare Debian 12 as root: packages, build, check, sanitizers, the real lab
#   make demo       a guest moves, twice: plain and with LMO (as root)
#   make sweep      every pair of faults in the simulator: hours
#   make bench      figures, as ratios within one run
#   make asan tsan clang debug faults   other builds (faults: with named fault points, pre-production only)
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
.PHONY: all release debug asan tsan clang faults check test sweep demo bench format format-check lint clean setup tools-present
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

release debug asan tsan clang faults: tools-present
	@mkdir -p $(BUILD)
	$(call build,$@)

check: release
	@tests/tally --build $(BUILD) rules unit exhaust sim

setup:
	@deploy/setup.sh

# One after the other, whatever -j says: the build needs the packages, and the lab needs the cores.
test: setup
	@$(MAKE) --no-print-directory release asan || { echo "FAILED build"; echo "0 passed, 1 failed"; exit 1; }
	@tests/tally --build $(BUILD) rules unit exhaust sim sweep asan api lab

# All pairs of faults from the switch-over on: hours; tests/sim/README.md has the figures.
sweep: release
	@tests/tally --build $(BUILD) sweep-full

demo: setup
	@$(MAKE) --no-print-directory release
	@tests/demo/demo

bench: release
	@cmake --build $(BUILD)/release --parallel $(JOBS) --target benches
	@if [ -x tests/bench/run ]; then tests/bench/run; else \
	    for b in tests/bench/*.c; do [ -f "$$b" ] && $(BUILD)/release/bin/$$(basename "$$b" .c); done; fi

SOURCES = $(shell find lmo workers proto tests deploy -name '*.[ch]' -not -path '*/generated/*')

format:
	@clang-format -i $(SOURCES)

format-check:
	@clang-format --dry-run -Werror $(SOURCES)

lint: release
	@clang-tidy --quiet -p $(BUILD)/release $(filter lmo/%.c workers/%.c proto/%.c,$(SOURCES))
	@shellcheck -x $$(grep -rlE '^#!.*\b(ba)?sh' --include='*' deploy tests .ci 2>/dev/null)

clean:
	@rm -rf $(BUILD)/release $(BUILD)/debug $(BUILD)/asan $(BUILD)/tsan $(BUILD)/clang $(BUILD)/*.log
