# The interface to this repository; .ci/run calls the same targets.
#
#   make demo       set everything up, compress two small networks on real images
#   make test       set everything up, run the tests (make test-slow: the long ones)
#   make check      format, lint, types, import fences
#
# PYTHON=python3.12 chooses another Python, VENV=dir another place for the virtual environment.

PYTHON ?= python3
VENV ?= .venv
DEMO_OUT ?= runs/demo
BIN := $(VENV)/bin
STAMP := $(VENV)/.hirelc-installed

.PHONY: all setup demo test test-slow check clean
.DELETE_ON_ERROR:

all: check test

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/make_venv
	scripts/make_venv "$(PYTHON)" "$(VENV)"
	$(BIN)/python -m pip install -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -c constraints.txt -e '.[test,dev]'
	touch $@

demo: setup
	$(BIN)/hirelc demo --out $(DEMO_OUT)

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
