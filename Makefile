# The commands for development. Requires make and Python 3.11 or newer; everything else is installed into .venv.
#
#   make demo [MARKET=DIR]   a recorded crash on the paper venue: detection, closing, report
#   make test [TESTS=path] [K=name]   the tests; a test that applies to every venue runs at one, which varies by commit
#   make test-venues [TESTS=] [K=]    these tests at all other venues; both commands together run every test
#   make test-bots [K=nautilus]   the classes for bots against the real packages, which it installs into BOTS= (a cache);
#                            .ci/run runs ccxt, nautilus_trader and a fight over a lock; freqtrade takes minutes, hummingbot to build, too
#   make baselines           compare recorded stores, recordings, plans and documents with their earlier results
#   make attack              hostile clocks, disks, sinks, locks, responses and templates; part of the tests
#   make soak [VENUE=okx]    an hour of faults of all kinds at once, in virtual time (SECONDS=, SEED=)
#   make check               ruff, mypy --strict, the import contracts
#   make docs                the documentation as a site, in site/
#   make reference           regenerate docs/reference/ from the code
#   make screens             draw the pictures of docs/screens.md again (needs Chromium)
#   make bench [PARTS="replay tick"]   the published numbers, next to their references (at most ten minutes)
#   make bench-long          the published numbers that take longer: long closes, memory, polling, latency, worlds
#   make mutants [PACKAGES=engine] [SAMPLE=200]   mutation tests: change one place at a time, check that a test fails (hours)
#   make evidence [PART=calm]   docs/evidence.md from recorded bars, in parts, and what changed on it (DATE=, BOOKS=, SEED=)
#   make lock                regenerate constraints.txt from pyproject.toml

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test test-venues test-bots baselines attack soak check docs reference screens bench bench-long mutants evidence lock clean

# Tests start many interpreters, which share compiled bytecode.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
# The environments of bots are kept here: 2 GB with all four.
BOTS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/killswitch-bots
BIN := $(VENV)/bin
WORKERS ?= 2
TESTS ?= tests
# Explicitly selected tests run at every venue.
NAMED := $(filter-out tests,$(TESTS))$(K)
DATE ?= $(shell date +%F)
BOOKS ?= 3
PART ?= all
SEED ?= 7
VENUE ?= binance
SECONDS ?= 3600
# worksteal: an idle process takes tests from a busy one.
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt

demo: $(VENV)/.installed
	$(BIN)/ksctl demo $(if $(MARKET),--market $(MARKET))

test: $(VENV)/.installed-dev
	$(PYTEST) $(if $(NAMED),,-m 'not venues') $(if $(filter-out tests,$(TESTS)),,--ignore=tests/bots) $(if $(K),-k '$(K)') $(TESTS)

test-venues: $(VENV)/.installed-dev
	$(PYTEST) -m venues $(if $(K),-k '$(K)') $(TESTS)

test-bots: $(VENV)/.installed-dev
	KILLSWITCH_BOTS='$(BOTS)' $(BIN)/pytest -m bots $(if $(K),-k '$(K)') tests/bots

baselines: $(VENV)/.installed-dev
	$(BIN)/python -m tests.baselines

attack: $(VENV)/.installed-dev
	$(PYTEST) tests/attack

soak: $(VENV)/.installed-dev
	$(BIN)/python -m tests.attack.soak $(VENUE) $(SECONDS) $(SEED)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests tools
	$(BIN)/lint-imports

docs: reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html; to search it too: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

reference: $(VENV)/.installed-dev
	$(BIN)/python -m tools.reference

screens: $(VENV)/.installed-dev
	$(BIN)/python -m tools.screens

bench: $(VENV)/.installed-bench
	$(BIN)/python -m tests.bench $(PARTS)

bench-long: $(VENV)/.installed-bench
	$(BIN)/python -m tests.bench long

mutants: $(VENV)/.installed-mutants
	$(BIN)/python -m tests.mutants $(PACKAGES) $(if $(SAMPLE),--sample=$(SAMPLE))

evidence: $(VENV)/.installed-dev
	$(BIN)/python -m tests.evidence --date $(DATE) --part $(PART) --books $(BOOKS) --seed $(SEED) --jobs $(WORKERS)

lock: $(BIN)/python
	$(BIN)/python -m pip install --quiet 'uv>=0.9'
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --all-extras --group pyproject.toml:dev --group pyproject.toml:bench --group pyproject.toml:clocks --group pyproject.toml:mutants \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file constraints.txt pyproject.toml

clean:
	rm -rf $(VENV) build dist demo-run site

# A recent Python that can create environments; PYTHON=… selects another.
$(BIN)/python:
	@for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	  if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "creating $(VENV) with $$("$$candidate" --version)"; "$$candidate" -m venv $(VENV); \
	    $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.3'; exit 0; \
	  fi; \
	done; \
	echo 'No Python 3.11 or newer with venv found. Install one (on Debian: apt install python3 python3-venv), or run make PYTHON=/path/to/python3.' >&2; \
	exit 1

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing killswitch into $(VENV)"
	@$(INSTALL) --editable '.[market,ccxt,prove]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing the packages for tests and checks into $(VENV)"
	@$(INSTALL) --group dev
	@$(INSTALL) --group clocks || echo 'libfaketime could not be built (it needs a C compiler): tests that need it are skipped' >&2
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "installing the programs that benchmarks compare with into $(VENV)"
	@$(INSTALL) --group bench
	@touch $@

$(VENV)/.installed-mutants: $(VENV)/.installed-dev
	@echo "installing the mutation testing tool into $(VENV)"
	@$(INSTALL) --group mutants
	@touch $@
