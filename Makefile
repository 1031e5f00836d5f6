# The interface to this repository; .ci/run calls the same targets.
#
#   make demo       set everything up, compress two small networks on real images
#   make test       set everything up, run the tests (make test-slow: the long ones)
#   make check      format, lint, types, import fences
#   make docs       the documentation, in site/; fails on any warning
#
# PYTHON=python3.12 chooses another Python, VENV=dir another place for the virtual environment.

PYTHON ?= python3
VENV ?= .venv
DEMO_OUT ?= runs/demo
BIN := $(VENV)/bin
STAMP := $(VENV)/.hirelc-installed
DOCS_STAMP := $(VENV)/.hirelc-docs-installed

.PHONY: all setup demo test test-slow check docs clean
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

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e '.[docs]'
	touch $@

# mkdocs 1 is pinned, so the theme's advertisement about mkdocs 2 tells nothing
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
