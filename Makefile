# What a person types. Each of run, lab and test sets everything up from nothing: Python and make are enough.
#
#   make run PRESET=smoke     another size: smoke, tiny, human (people's recordings: slmlab fetch), base, paper
#   make run FRESH=1          train everything anew instead of using what is shipped
#   make run PYTHON=/path/to/python3.12
#   make run PIP_EXTRA="--extra-index-url https://download.pytorch.org/whl/cpu"
#                             on Linux PyPI's torch brings several GB of CUDA libraries; this takes the small CPU build
#   make run UV=1             install with uv instead of pip (PIP_EXTRA="--torch-backend cpu" for the CPU build)

PRESET ?= tiny
ARMS ?= authentic,entropy,lively,equal-hours,alone,helped,alone-scratch,helped-scratch
EXTENT ?= full
FRESH ?=
PIP_EXTRA ?=
PYTEST_ARGS ?=
LAB_ARGS ?=
ONLY ?=
UV ?=
VENV ?= .venv

BIN := $(VENV)/bin
NEW_ENOUGH := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))

# The first Python of the PATH that will do; asked only when an environment must be made.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)

yes = $(filter-out 0 no false,$(1))

ifneq ($(call yes,$(UV)),)
MAKE_VENV = uv venv --seed --python "$$python" $(VENV)
INSTALL = VIRTUAL_ENV=$(abspath $(VENV)) uv pip install
else
MAKE_VENV = "$$python" -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run lab notebooks paper test lint format bench clean

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.installed  ## set up, then the chain, the notebooks and the report at PRESET=tiny, into runs/<preset>/ (FRESH=1 trains anew)
	@echo "== slmlab run, preset $(PRESET)"
	@$(BIN)/slmlab run --preset $(PRESET) $(if $(call yes,$(FRESH)),--fresh)

lab: $(VENV)/.installed  ## set up, then JupyterLab on the notebooks (LAB_ARGS="--no-browser --port 8899")
	@echo "== JupyterLab on notebooks/00_tour.ipynb; if no browser opens: put /tree/00_tour.ipynb behind the /lab of the address below (Ctrl-C twice ends it)"
	@$(BIN)/jupyter labextension disable --level=sys_prefix "@jupyterlab/apputils-extension:announcements" >/dev/null 2>&1 || true  # it asks in every notebook
	@PRESET=$(PRESET) $(BIN)/python -m jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS) notebooks/00_tour.ipynb

notebooks: $(VENV)/.installed  ## execute the series at PRESET=tiny in place, without sounds: before a commit (ONLY=03 for one)
	@$(BIN)/python -m slmlab.notebook.series $(PRESET) $(ONLY)

paper: $(VENV)/.installed  ## both studies at three seeds, what D1 to D6 compare at ten: only runs that have no rows yet (hours; EXTENT=core for the core claims)
	@$(BIN)/slmlab sweep --preset $(PRESET) --arms $(ARMS) --seeds 0,1,2
	@$(BIN)/slmlab align $(EXTENT) --preset $(PRESET) --seed 0 1 2
	@$(BIN)/slmlab align core --preset $(PRESET) --language vi --only sft,dpo,dgsa --seed 3 4 5 6 7 8 9
ifeq ($(EXTENT),full)
	@$(BIN)/slmlab align full --preset $(PRESET) --language vi --only dgsa.no-preference --seed 3 4 5 6 7 8 9
endif
	@$(BIN)/slmlab report --preset $(PRESET)

test: lint  ## set up, then lint, types, the direction of imports and the tests
	@echo "== pytest, two processes"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev  ## what test checks without running anything
	@echo "== ruff: rules, then layout"
	@$(BIN)/python -m ruff check
	@$(BIN)/python -m ruff format --check
	@echo "== mypy"
	@$(BIN)/python -m mypy
	@echo "== import-linter: the floors"
	@$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## mend layout and what ruff can mend
	@$(BIN)/python -m ruff check --fix --exit-zero
	@$(BIN)/python -m ruff format

bench: $(VENV)/.installed-dev  ## measure every figure the project promises, into runs/<preset>/bench.json
	@echo "== slmlab bench, preset $(PRESET)"
	@$(BIN)/slmlab bench --preset $(PRESET)

clean:  ## remove the environment and the tools' caches; runs/ and cache/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info

# pip is the last thing that an environment is given, so one half made is made again.
$(BIN)/pip:
	@python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
		echo "slmlab needs Python 3.11 to 3.14 and found none on the PATH: install one from https://www.python.org/downloads/, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	elif ! "$$python" -c '' 2>/dev/null; then \
		echo "PYTHON=$$python does not run: name a Python 3.11 to 3.14, as in make PYTHON=/path/to/python3.12" >&2; exit 1; \
	elif ! "$$python" -c '$(NEW_ENOUGH)'; then \
		echo "slmlab needs Python 3.11 to 3.14, but PYTHON=$$python is $$("$$python" --version 2>&1): name another, as in make PYTHON=/path/to/python3.12" >&2; exit 1; \
	elif ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "PYTHON=$$python lacks the venv module: install it (Debian and Ubuntu: apt install python3-venv), or name another Python" >&2; exit 1; \
	fi; \
	echo "== making $(VENV) with $$("$$python" --version)"; \
	$(MAKE_VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "== installing slmlab into $(VENV): minutes the first time, seconds later"
	@$(INSTALL) --constraint constraints.txt $(PIP_EXTRA) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "== installing slmlab with its tests' tools into $(VENV): minutes the first time, seconds later"
	@$(INSTALL) --constraint constraints.txt $(PIP_EXTRA) --editable ".[dev]"
	@touch $@ $(VENV)/.installed
