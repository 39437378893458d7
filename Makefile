# Everything a checkout needs: Python 3.11 or newer, make, and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A file's tests stay in one process: they share what its fixtures made.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile
READY := $(VENV)/.ready

# The constraints reach the build of the package too, so a fresh machine builds with what we built with.
PIP := PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip
# protoc finds its mypy plugins on the path.
PROTOC := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto
PROTOS := proto/qbroker_proto/v1/*.proto

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo prose test fast cover bench lint format types imports proto proto-check settings changelog check lock wheel clean

help:         ## say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("qbroker needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": name another, as in make test PYTHON=python3.12")'
	@echo "installing into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY) ## run the census of the standard library: broker, worker and 1,000 tasks
	$(BIN)/python docs/examples/census

prose: $(READY) ## compare the docstrings of the standard library: one workflow of 700 tasks
	$(BIN)/python docs/examples/prose

test: $(READY) ## run the whole suite, real processes included
	$(PYTEST)

fast: $(READY) ## run what needs no processes
	$(PYTEST) -m "not e2e"

cover: $(READY) ## run the whole suite and show the lines and branches it never met
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: $(READY) ## measure what a task costs: make bench ARGS="--cases publish-1 --runs 1"
	$(BIN)/python tests/bench/run.py $(ARGS)

lint: $(READY) ## look for faults of form, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(READY) ## mend the form
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

types: $(READY) ## check the types, of tests and examples too
	$(BIN)/mypy
	MYPYPATH=docs/examples/census $(BIN)/mypy docs/examples/census
	MYPYPATH=docs/examples/prose $(BIN)/mypy docs/examples/prose

imports: $(READY) ## check the layers
	$(BIN)/lint-imports

proto: $(READY) ## generate Python from the .proto files
	$(PROTOC) --python_out=proto --pyi_out=proto --grpc_python_out=proto --mypy_grpc_out=proto $(PROTOS)

# Needs no git: an exported tree is checked like a clone.
proto-check: $(READY) ## fail if the generated code is not what would be generated now
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	$(PROTOC) --python_out=$$out --pyi_out=$$out --grpc_python_out=$$out --mypy_grpc_out=$$out $(PROTOS) && \
	diff -ru -x __pycache__ -x __init__.py -x '*.proto' $$out/qbroker_proto/v1 proto/qbroker_proto/v1 || \
	{ echo "the generated code is not what the .proto files say: run make proto"; exit 1; }

settings: $(READY) ## write the tables of docs/settings.md
	$(BIN)/python -m tests.docs.settings_page

changelog: $(READY) ## show the changelog that the fragments make
	$(BIN)/towncrier build --draft --version next

check: lint types imports proto-check test ## everything a change must pass

lock:         ## make constraints.txt again from the newest releases pyproject.toml allows
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	$(PYTHON) -m venv $$tmp/venv && \
	$$tmp/venv/bin/python -m pip install --quiet --upgrade hatchling editables '.[dev]' && \
	{ echo "# Made by make lock: what every checkout is installed, built and tested with."; \
	  $$tmp/venv/bin/python -m pip freeze --exclude qbroker; } > $$tmp/constraints.txt && \
	mv $$tmp/constraints.txt constraints.txt

wheel: $(READY) ## build a wheel into dist/
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .

clean:        ## remove what was made
	rm -rf $(VENV) dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
