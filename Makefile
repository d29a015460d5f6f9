# make demo, make test: each makes .venv, installs the tested versions (constraints.txt) and runs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := pyproject.toml constraints.txt

.PHONY: help demo test slow check bench clean

help:
	@echo "make demo   the whole journey on a miniature universe, some five minutes; open demo/report.html"
	@echo "make test   the tests"
	@echo "make slow   the tests that take longer"
	@echo "make check  ruff and mypy"
	@echo "make bench  the benchmarks"
	@echo "make clean  remove .venv and demo"

demo: .venv/installed
	$(BIN)/velfield demo demo

test: .venv/installed-dev
	$(BIN)/python -m pytest

slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-dev
	for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "velfield needs Python 3.11 to 3.13: $$($(PYTHON) --version) is not; try make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet 'pip>=25.1'
	@touch $@

.venv/installed: .venv/made $(SOURCES)
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) install --quiet -c constraints.txt --group dev
	@touch $@

clean:
	rm -rf .venv demo
