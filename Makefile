# apstream: `make demo` shows it, `make test` tests it, `make check` reads it, `make bench` times it.
# Everything is installed into .venv on first use; nothing is needed but Python 3.11 or newer.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Override with `make test ARGS="-k wcs"`. Full-size cases take minutes: `make test ARGS=` runs them too.
ARGS ?= -m "not slow"

.PHONY: help install demo test check style types contracts architecture bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     simulate a night, run the daemon on it, show what was found"
	@echo "make test     all tests but the full-size ones (ARGS=... goes to pytest)"
	@echo "make check    ruff, mypy, import contracts, architecture tests"
	@echo "make bench    time the stages, and the peers where they are installed"
	@echo "make install  only the environment, in $(VENV)"
	@echo "make clean    remove the environment and all caches"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@scripts/make-venv $(VENV)
	@touch $@

demo: install
	@rm -rf demo-night
	$(BIN)/apstream demo --out demo-night

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: style types contracts architecture

style: install
	$(BIN)/python -m ruff check .

types: install
	$(BIN)/python -m mypy --strict

contracts: install
	$(BIN)/lint-imports

architecture: install
	$(BIN)/python -m pytest -q tests/architecture

bench: install
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf $(VENV) demo-night .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find apstream tests benchmarks services -name __pycache__ -type d -prune -exec rm -rf {} +
