# make serve | test | lint | bench. Everything goes into .venv; nothing is installed twice unless pyproject.toml changes.

PORT ?= $(or $(SCPALM_PORT),8000)
# Extra that `make serve` installs: cpu or gpu.
EXTRA ?= cpu
# Processes that run tests; each file of tests stays in one of them.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Where there is no GPU, this version is asked for by name before torch is asked for by range: it has a build for CPUs,
# which pip prefers wherever it is on offer, and which is a tenth of the size.
CPU_TORCH := torch==2.13.0

.PHONY: help serve test lint bench constraints clean
.DELETE_ON_ERROR:

help:
	@echo "make serve   serve the embedded model on PORT ($(PORT))"
	@echo "make test    lint, types, import rules and every test"
	@echo "make lint    the same without the tests"
	@echo "make bench   the tables of tests/bench"
	@echo "make constraints  renew deploy/constraints.txt, the versions in the image"
	@echo "make clean   remove .venv and caches"

serve: $(VENV)/.serve-$(EXTRA)
	SCPALM_PORT=$(PORT) exec $(BIN)/scpalm serve

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	@set -e; for file in tests/bench/bench_*.py tests/bench/service.py; do echo "== $$file"; PYTHONPATH=. $(BIN)/python $$file; done

constraints: $(BIN)/python
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; set -e; \
		$(BIN)/python -m venv $$folder/venv; \
		$$folder/venv/bin/python -m pip --disable-pip-version-check install --quiet '.[cpu]'; \
		{ echo "# Versions in the image: what '.[cpu]' needs. Renewed by make constraints."; \
		  $$folder/venv/bin/python -m pip freeze --exclude scpalm; } > $$folder/constraints.txt; \
		cp $$folder/constraints.txt deploy/constraints.txt; \
		$$folder/venv/bin/python -m pip --disable-pip-version-check install --quiet --dry-run --ignore-installed \
			--constraint deploy/constraints.txt --report $$folder/gpu.json '.[gpu]'; \
		$$folder/venv/bin/python deploy/pin_gpu.py $$folder/gpu.json > deploy/constraints-gpu.txt

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# The first interpreter that is new enough and can make a virtual environment; PYTHON=... names another.
$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
		if $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "$$python -m venv $(VENV)"; exec $$python -m venv $(VENV); \
		fi; \
	done; \
	echo "No Python >= 3.11 with the venv module was found. Install one (Debian: apt install python3-venv), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	exit 1

$(VENV)/.serve-%: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[$*]'
	@# The cells of `scpalm sample`: one file of this package is read and none of its code, so its dependencies are left out.
	$(PIP) install --quiet --no-deps 'celltypist>=1.6,<2'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@if ! command -v nvidia-smi >/dev/null 2>&1; then \
		echo "$(PIP) install $(CPU_TORCH)"; \
		$(PIP) install --quiet '$(CPU_TORCH)' || echo "No build of $(CPU_TORCH) for this Python: pip chooses another." >&2; \
	fi
	$(PIP) install --quiet --editable '.[dev]'
	@# The tests of many workers want a real Redis, which pip does not have in a release that is new enough.
	@if ! command -v redis-server >/dev/null 2>&1; then \
		echo "redis-server (7 or later) is not there: apt-get install redis-server"; \
		if [ "$$(id -u)" != 0 ] || ! { export DEBIAN_FRONTEND=noninteractive; install="timeout 120 apt-get install -y -q redis-server"; \
			$$install >/dev/null 2>&1 || { timeout 120 apt-get update -q >/dev/null 2>&1 && $$install >/dev/null 2>&1; }; }; then \
			echo "It could not be installed from here: the tests that need it are skipped." >&2; \
		fi; \
	fi
	@# [dev] holds all that serving on a CPU needs.
	@touch $(VENV)/.serve-cpu $@
