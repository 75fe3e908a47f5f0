# Everything a newcomer or a maintainer types; `make` alone lists it.
.DEFAULT_GOAL := help
VENV := .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Workers for the tests; each keeps to one thread.
JOBS ?= 2
# What `make test-fast` looks at, but for what is marked slow.
FAST := $(addprefix tests/, models distillation reports config data)

.PHONY: help setup demo test test-fast lint docs bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*## "} {printf "  make %-9s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv and install the project with its tools

$(STAMP): pyproject.toml
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP) ## the default run: a distilled student on drawn letters, minutes on a CPU
	$(BIN)/metakd train

test: $(STAMP) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

test-fast: $(STAMP) ## formulas, configuration and errors, data, statistics: no whole runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not slow" $(FAST)

lint: $(STAMP) ## style, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP) ## make a site of docs/ in docs/_build/html; a warning is an error
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

bench: $(STAMP) ## seconds per meta-iteration of every algorithm, against a plain loop
	$(BIN)/python scripts/bench.py

clean: ## remove what tools and builds left behind; keeps .venv and outputs
	rm -rf build dist docs/_build docs/api .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find metakd tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
