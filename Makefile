# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` need Python 3.11, g++, make and perl; everything else comes into .venv
# and build, and nothing outside this folder is touched.
#
#   make demo      ten handwritten digits through the generated Verilog; ends with build/demo/report.html
#   make soc       ten digits through a simulated LiteX system; needs gcc-riscv64-unknown-elf and
#                  `.venv/bin/pip install '.[soc]'`
#   make test      lint, tests and short regressions
#   make check     these, types, and what continuous integration runs beside them
#   make regress   the long regressions
#   make docs      the site, build/site/index.html; needs no network, to build or to read
#   make formal    proofs without bound; needs ABC, Debian's berkeley-abc
#   make signoff   proofs, mutants, coverage, corrupted programs and a soak, then docs/signoff.md; hours
#   make soak      random networks on random machines, SEEDS=100 of them; a minute each
#   make clean     remove what was built; `make distclean` removes .venv as well
#
# PIP_FLAGS=... is passed to pip: PyTorch's index of CPU builds has much smaller ones, for instance.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: demo soc test types thorough check docs formal signoff soak regress venv clean distclean tools

PYTHON ?= python3
JOBS ?= 2
SEEDS ?= 100
FIRST ?= 0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -q

# Caches of pip, of the WebAssembly tools and of matplotlib stay in this folder too.
export XDG_CACHE_HOME := $(CURDIR)/.cache
export XDG_CONFIG_HOME := $(CURDIR)/.cache/config
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Hundreds of processes import the same modules: each would compile them, and two all tests.
unexport PYTHONDONTWRITEBYTECODE
# One thread for each of the $(JOBS) test processes.
export OMP_NUM_THREADS ?= 1

demo: venv
	$(BIN)/python -m examples.demo

soc: venv
	$(BIN)/python -m examples.litex

test: venv
	$(BIN)/ruff check .
	$(PYTEST)

types: venv
	$(BIN)/mypy

# Types beside the tests: a processor is idle at the end of either.
check: test
	$(MAKE) --no-print-directory -j2 types thorough

thorough: venv
	$(PYTEST) -m 'thorough and not slow'

docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo 'site: build/site/index.html'

formal: venv
	$(BIN)/python -m formal

# A run that is stopped goes on where it was.
signoff: formal
	$(BIN)/python -m formal.mutants
	$(BIN)/python -m sim.coverage
	$(BIN)/python -m sim.corrupt
	$(BIN)/python -m sim.soak --seeds $(SEEDS) --first $(FIRST)
	$(BIN)/python -m formal.signoff --runs build

# The next seeds: FIRST=100.
soak: venv
	$(BIN)/python -m sim.soak --seeds $(SEEDS) --first $(FIRST)

regress: venv
	$(BIN)/python -m pytest -n $(JOBS) -q -m slow

venv: $(STAMP)

$(STAMP): requirements.lock pyproject.toml | tools
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# The first thing that is missing, as one line.
define MISSING
$(shell \
command -v $(PYTHON) >/dev/null || \
    { echo "$(PYTHON) not found: install Python 3.11 or newer, or name one with PYTHON=..."; exit; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
    { echo "$(PYTHON) is older than 3.11: name a newer one with PYTHON=..."; exit; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
    { echo "$(PYTHON) can't make virtual environments: on Debian, apt install python3-venv"; exit; }; \
command -v g++ >/dev/null || command -v c++ >/dev/null || \
    { echo "no C++ compiler: on Debian, apt install g++"; exit; }; \
command -v perl >/dev/null || echo "perl not found: on Debian, apt install perl")
endef

tools:
	$(if $(MISSING),$(error $(MISSING)))

clean:
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .cache
