# Needs Python >= 3.11 with venv, a C++17 compiler and make; the rest is installed into $(VENV).
#
#   make demo     build for this machine, train a network on handwritten digits, compare kernels with NumPy
#   make test     build also what only tests use, run the whole suite          (TESTS=tests/test_errors.py: a part of it;
#                                                                               JOBS=1: in one process, default: two)
#   make bench    measure                                                      (AREAS="gemm conv": some areas)
#   make lint     ruff, and clang-format on the C++ files
#   make asan     the kernels' tests under the address and undefined-behaviour sanitizers
#   make sass     compile the CUDA kernels for all architectures, and hold bars on their machine code (needs nvcc, no GPU)
#   make gpu      build for this machine's GPU, run the suite on it, measure  (needs nvcc and a GPU)
#   make docs     the documentation as web pages, in build/docs/html
#   make wheel    a wheel with every target, in dist/, built in isolation; fails if it is too large: 3 MiB, or 12 MB with CUDA
#   make clean    remove what was built; distclean: the virtual environment too
#
# PYTHON=python3.12 chooses the interpreter, VENV=dir the environment's place, WERROR=ON makes warnings errors, and
# TARGETS="base;avx2" the targets (default: this machine's best, and base). CUDA=ON builds the CUDA kernels too (needs nvcc),
# for this machine's GPU or, with ARCHITECTURES=release (or "80;90"), for those; in a wheel always for all.

PYTHON ?= python3
VENV ?= .venv
TARGETS ?= native
WERROR ?= OFF
CUDA ?= OFF
TESTS ?=
AREAS ?=
PYTEST_FLAGS ?=
JOBS ?= 2

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := $(VENV)/bin
# tests/conftest.py says what belongs together.
PARALLEL := $(if $(filter-out 1,$(JOBS)),-n $(JOBS) --no-loadscope-reorder)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
BUILD := build/make
SOURCES := $(shell find csrc cuda cmake python/fastdl -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu*' -o -name '*.cmake' -o -name 'CMakeLists.txt' -o -name '*.py' -o -path '*/data/files/*' \)) \
	CMakeLists.txt pyproject.toml README.md LICENSE
# A copy made for the tests holds all that the demo needs.
INSTALLED := $(firstword $(wildcard $(VENV)/.installed-test) $(VENV)/.installed-demo)

# $(call stage,what,command): run a command, say what it is and how long it took.
stage = @echo "== $(1)"; start=$$(date +%s); { $(2); } || { code=$$?; echo "== $(1): failed"; exit $$code; }; \
	echo "== $(1): $$(( $$(date +%s) - start )) s"

# Built in place, without isolation: the objects of the last build are reused. What pip prints matters only if it fails.
install = FASTDL_TARGETS='$(TARGETS)' FASTDL_TEST_TARGETS=$(1) FASTDL_WERROR=$(WERROR) \
	FASTDL_CUDA=$(CUDA) FASTDL_CUDA_ARCHITECTURES='$(ARCHITECTURES)' \
	$(PIP) install --no-build-isolation --config-settings build-dir=$(BUILD) '.[plot,progress]'

.PHONY: help demo test bench lint asan sass gpu docs wheel clean distclean FORCE
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# Changes when what is built does.
OPTIONS = $(TARGETS) $(WERROR) $(CUDA) $(ARCHITECTURES)
$(VENV)/.options: FORCE
	@mkdir -p $(VENV); echo '$(OPTIONS)' | cmp -s - $@ || echo '$(OPTIONS)' > $@

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON): expected Python 3.11 or newer; choose one with make PYTHON=..."; exit 1; }
	$(call stage,virtual environment in $(VENV),test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
		$(PIP) install --upgrade 'pip>=25.1'; $(PIP) install --group build)
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.ready $(VENV)/.options $(SOURCES)
	$(call stage,build and install,$(call install,OFF))
	@touch $@

$(VENV)/.installed-test: $(VENV)/.ready $(VENV)/.options $(SOURCES)
	$(call stage,build and install with the test targets,$(call install,ON))
	@touch $(VENV)/.installed-demo $@

$(VENV)/.group-%: $(VENV)/.ready
	$(call stage,packages for $*,$(PIP) install --group $*)
	@touch $@

demo: $(INSTALLED)
	$(call stage,demo,$(BIN)/fastdl demo)

test: $(VENV)/.installed-test $(VENV)/.group-test
	$(call stage,objects of each instruction set,$(BIN)/python tools/check_isa_objects.py $(BUILD))
	$(call stage,tests,FASTDL_BUILD_DIR=$(BUILD) $(BIN)/python -m pytest $(PARALLEL) $(PYTEST_FLAGS) $(TESTS))

bench: $(INSTALLED)
	$(call stage,benchmarks,$(BIN)/fastdl bench $(AREAS))

lint: $(VENV)/.group-lint
	$(call stage,ruff,$(BIN)/ruff check .)
	$(call stage,clang-format,$(BIN)/clang-format --dry-run -Werror \
		$$(find csrc tests/cpp -name '*.h' -o -name '*.cpp'))

# The Python files of the tree and sanitized modules, side by side in a package of its own.
ASAN := build/asan
asan: $(VENV)/.group-test
	$(call stage,build with sanitizers,tools/sanitized.sh $(BIN)/python $(ASAN) build)
	$(call stage,tests under the sanitizers,tools/sanitized.sh $(BIN)/python $(ASAN) test $(PARALLEL) $(PYTEST_FLAGS) $(TESTS))

sass: $(VENV)/.group-sass
	$(call stage,machine code of the CUDA kernels,$(BIN)/python tools/sass.py)

gpu: CUDA = ON
gpu: $(VENV)/.installed-test $(VENV)/.group-test
	$(call stage,CuPy for the GPU,cupy=$$($(BIN)/python tools/cupy_for_build.py) && $(PIP) install "$$cupy")
	$(call stage,the suite with the GPU,FASTDL_BUILD_DIR=$(BUILD) $(BIN)/python -m pytest $(PARALLEL) $(PYTEST_FLAGS) \
		$(or $(TESTS),-k 'cuda or gpu or device'))
	$(call stage,benchmarks,$(BIN)/python benchmarks/gpu.py $(AREAS))

docs: $(VENV)/.group-docs $(INSTALLED)
	$(call stage,documentation,$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs/html)

MOST_BYTES := $(if $(filter OFF,$(CUDA)),3145728,12000000)
wheel: $(VENV)/.ready
	$(call stage,wheel with every target,rm -rf dist; FASTDL_TARGETS=all FASTDL_CUDA=$(CUDA) \
		FASTDL_CUDA_ARCHITECTURES=release $(PIP) wheel --no-deps --wheel-dir dist .; ls -l dist; \
		size=$$(wc -c < dist/*.whl); echo "wheel: $$size bytes of at most $(MOST_BYTES)"; [ $$size -le $(MOST_BYTES) ])

clean:
	rm -rf build dist $(VENV)/.installed-demo $(VENV)/.installed-test

distclean: clean
	rm -rf $(VENV)
