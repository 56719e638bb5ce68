# Everything here runs on a plain Linux x86-64 machine without a GPU. `make` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# Used only where pip's own configuration offers no CPU build of torch.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1+cpu/p' requirements/overrides.txt)

# No model hub, no usage reports: nothing leaves the machine unless a command is asked to.
export HF_HUB_OFFLINE ?= 1
export VLLM_NO_USAGE_STATS ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
export DO_NOT_TRACK ?= 1

# Python versions the packages are locked for; ensurepip is missing where Debian's python3-venv is. Override: PYTHON=...
SUITABLE := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	if $$python -c '$(SUITABLE)' >/dev/null 2>&1; then echo $$python; break; fi; done)

define need_python
@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(SUITABLE)' 2>/dev/null; then \
	echo "No usable Python ($(or $(PYTHON),none found)): 3.11 or 3.12 with the venv module is needed." >&2; \
	echo "Install it (Debian 12: apt-get install python3 python3-venv), or name it: make venv PYTHON=/path/to/python3.11" >&2; \
	exit 1; fi
endef

# $(call torch_source,PIP): pip options that find the CPU build. Empty where pip's configuration already offers it.
torch_source = $$($(1) install --dry-run --quiet --no-deps --ignore-installed '$(TORCH)' >/dev/null 2>&1 || \
	echo --index-url $(TORCH_INDEX))

.PHONY: help venv demo pipeline test test-all lint format docs dashboards pictures screenshots bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.installed ## make .venv with every locked package and this project in it
	@$(BIN)/python -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || \
		{ echo "libnuma is missing, without which vLLM computes nothing (Debian: apt-get install libnuma1)." >&2; exit 1; }
	@command -v g++ >/dev/null || \
		echo "Warning: g++ is missing. vLLM's compiled mode needs it (Debian: apt-get install g++); eager mode does not." >&2

# --no-deps: the lock is the whole set. With dependencies, pip would bring in the torchvision that fails beside the CPU
# build of torch (see requirements/overrides.txt).
# torch goes in first and by its full local version: the plain pin of the lock alone would take the CUDA build from PyPI.
$(VENV)/.packages: requirements/cpu.lock requirements/overrides.txt
	$(need_python)
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/pip install --quiet --no-deps '$(TORCH)' $(call torch_source,$(BIN)/pip)
	$(BIN)/pip install --quiet --no-deps -r requirements/cpu.lock
	@$(BIN)/python -c 'import sys, torch; \
		torch.version.cuda is None or sys.exit(f"torch {torch.__version__} is a CUDA build: run make clean venv")'
	@touch $@

$(VENV)/.installed: $(VENV)/.packages pyproject.toml
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv ## the whole system on this machine, in one command
	$(BIN)/python -m multiverse.demo

pipeline: venv ## curate, train, serve and evaluate, small, with the built-in model: about ten minutes
	$(BIN)/python -m multiverse.pipeline

test: venv ## tests that take seconds each
	$(BIN)/python -m pytest -m "not slow"

test-all: venv ## all tests: real vLLM, Ray, object store, a ten-minute fine-tune
	$(BIN)/python -m pytest

lint: venv ## every static check; needs no network
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/codespell

format: venv ## put the code into the form that lint asks for
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: venv ## write what is generated below docs/ anew: tasks, configuration, architecture's pictures
	$(BIN)/python -m multiverse.commands.tasks > docs/tasks.md
	$(BIN)/python -m multiverse.commands.reference > docs/configuration.md
	$(BIN)/python -m docs.drawing

dashboards: venv ## write dashboards/generated/ anew
	$(BIN)/python -m dashboards

pictures: venv ## draw docs/dashboard-*.png anew, of a run under load (needs Debian's prometheus)
	MULTIVERSE_PICTURES=docs $(BIN)/python -m pytest tests/integration/test_dashboards_live.py

screenshots: venv ## take docs/playground*.png anew, of the served model (needs Debian's chromium)
	MULTIVERSE_PICTURES=docs $(BIN)/python -m pytest tests/integration/test_page.py -k pictures

bench: venv ## the small speed grid, held against the ratios of docs/results/bench-small.json: under ten minutes
	$(BIN)/multiverse bench speed --small

# uv does not read pip's configuration, so pip fetches torch and uv gets the folder it lies in. It is told the full local
# version, since the plain one brings the CUDA libraries in; the lock keeps the plain one (see requirements/overrides.txt).
lock: ## write requirements/*.lock anew (network); UPGRADE=--upgrade for newer versions
	$(need_python)
	tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	"$(PYTHON)" -m venv "$$tmp/uv"; \
	"$$tmp/uv/bin/pip" install --quiet uv; \
	"$$tmp/uv/bin/pip" download --quiet --no-deps --only-binary :all: --python-version 3.11 --dest "$$tmp/wheels" \
		'$(TORCH)' $(call torch_source,"$$tmp/uv/bin/pip"); \
	sed 's/^torch==.*/$(TORCH)/' requirements/overrides.txt > "$$tmp/overrides.txt"; \
	cp requirements/*.lock "$$tmp"; \
	compile() { "$$tmp/uv/bin/uv" pip compile pyproject.toml --python-version 3.11 --no-annotate --no-header --quiet \
		$(UPGRADE) -o "$$tmp/$$1.lock" "$${@:2}"; }; \
	compile cpu --extra cpu --extra dev --override "$$tmp/overrides.txt" --find-links "$$tmp/wheels"; \
	compile gpu --extra gpu --python-platform x86_64-manylinux_2_28; \
	for side in cpu gpu; do \
		{ sed -n '/^#/p' requirements/$$side.lock; sed -e '/^#/d' -e 's/+cpu$$//' "$$tmp/$$side.lock"; } > "$$tmp/new"; \
		cp "$$tmp/new" requirements/$$side.lock; \
	done

clean: ## remove the environment, caches and builds
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist platform/*.egg-info
	find platform tests -name __pycache__ -type d -prune -exec rm -rf {} +
