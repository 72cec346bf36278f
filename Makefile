# What people run. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

# The data mirror lies beside the repository in development and CI; elsewhere everything comes from its own source.
ifeq ($(origin MATDARWIN_MIRROR),undefined)
ifneq ($(wildcard ../shared/data/SHA256SUMS),)
export MATDARWIN_MIRROR := $(abspath ../shared/data)
endif
endif

# Processes that test side by side, one file after the other in each; a core each.
WORKERS ?= 2

# Fast tests first.
TESTS := tests/unit $(filter-out tests/unit,$(patsubst %/,%,$(sort $(dir $(wildcard tests/*/test_*.py)))))

.PHONY: help setup demo test lint format results bench clean
.DEFAULT_GOAL := help

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

setup: $(VENV)/.dev ## make .venv with all that development needs

demo: $(VENV)/.run ## train, score and predict on real data, in minutes; writes demo/report.html
	@$(PY) -m matdarwin demo

test: $(VENV)/.dev ## all tests but those that need a GPU, the fast ones first
	@OMP_NUM_THREADS=1 $(PY) -m pytest $(TESTS) -m "not gpu" -n $(WORKERS) --dist loadfile

lint: $(VENV)/.dev ## ruff and mypy
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

format: $(VENV)/.dev ## let ruff lay the code out
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

results: $(VENV)/.run ## tables of docs/results.md and README.md from results/
	@$(PY) -m matdarwin.studies.tables

bench: $(VENV)/.dev ## measure the speed of data, prediction, number formats, training, screening and serving; writes results/bench (trains what is missing, but for the model of make demo: over an hour)
	@$(PY) benchmarks/data.py
	@$(PY) benchmarks/predict.py
	@$(PY) benchmarks/formats.py
	@$(PY) benchmarks/train.py
	@$(PY) benchmarks/options.py
	@$(PY) benchmarks/screen.py
	@$(PY) benchmarks/serve.py

clean: ## remove what tools and the demonstration left; checkpoints, fetched data and .venv stay
	rm -rf demo dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp stands for an installation that was finished with these very requirements.
$(VENV)/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "matdarwin needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1); give another: make PYTHON=python3.11 ..." >&2; exit 1; }
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); fi
	@echo "installing matdarwin into $(VENV) (some minutes the first time)"
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing the tools for tests and lint into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
