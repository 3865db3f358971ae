# make serve | test | lint | docs | bench. All packages are installed into .venv, and again only if pyproject.toml changes.

PORT ?= $(or $(SCPALM_PORT),8000)
# The extra of pyproject.toml that `make serve` installs: cpu or gpu.
EXTRA ?= cpu
# Number of processes that run tests. The tests of a file all run in one process.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Without a GPU, install exactly this version before pip resolves torch by range. It has a build for CPUs, which pip
# prefers if the index offers it, and which is a tenth of the size.
CPU_TORCH := torch==2.13.0

.PHONY: help serve test lint docs bench page constraints sbom audit clean
.DELETE_ON_ERROR:

help:
	@echo "make serve        serve the packaged model on PORT ($(PORT))"
	@echo "make test         run make lint, then all tests"
	@echo "make lint         check style, types and import rules"
	@echo "make docs         build the documentation into build/docs"
	@echo "make bench        run the benchmarks in tests/bench"
	@echo "make page         build the page at / again (app/web; needs node 20 or later)"
	@echo "make constraints  update the versions and hashes of the images (deploy/constraints*.txt, deploy/requirements-*.txt)"
	@echo "make sbom         list what the images contain (CycloneDX, build/sbom)"
	@echo "make audit        look for known vulnerabilities; ADVISORIES is a folder of OSV files"
	@echo "make clean        remove .venv and caches"

serve: $(VENV)/.serve-$(EXTRA)
	SCPALM_PORT=$(PORT) exec $(BIN)/scpalm serve

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -q -n -W --keep-going -b html -c docs . build/docs
	@echo "build/docs/index.html"

bench: $(VENV)/.dev
	@set -e; for file in tests/bench/bench_*.py tests/bench/service.py; do echo "== $$file"; PYTHONPATH=. $(BIN)/python $$file; done

# The built files are committed, so only who changes app/web/src needs this.
page:
	cd app/web && npm ci && npm run build

constraints: $(BIN)/python
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; set -e; \
		$(BIN)/python -m venv $$folder/venv; \
		$$folder/venv/bin/python -m pip --disable-pip-version-check install --quiet '.[cpu]'; \
		{ echo "# Versions in the image: the packages of '.[cpu]'. Updated by make constraints."; \
		  $$folder/venv/bin/python -m pip freeze --exclude scpalm; } > $$folder/constraints.txt; \
		cp $$folder/constraints.txt deploy/constraints.txt; \
		$$folder/venv/bin/python -m pip --disable-pip-version-check install --quiet --dry-run --ignore-installed \
			--constraint deploy/constraints.txt --report $$folder/gpu.json '.[gpu]'; \
		$$folder/venv/bin/python deploy/pin_gpu.py $$folder/gpu.json > deploy/constraints-gpu.txt; \
		$$folder/venv/bin/python deploy/pin_hashes.py

# Bills of materials of the images, in build/sbom: CycloneDX JSON from the files that the images are installed with.
sbom: $(VENV)/.dev
	@mkdir -p build/sbom; for image in api cpu gpu; do \
		$(BIN)/cyclonedx-py requirements deploy/requirements-$$image.txt --pyproject pyproject.toml --mc-type application \
			--output-reproducible --output-format JSON --output-file build/sbom/scpalm-$$image.cdx.json; \
	done
	@echo build/sbom

# Known vulnerabilities of the packages in the images. ADVISORIES is a folder with files in OSV format.
audit: $(BIN)/python
	$(BIN)/python deploy/audit.py --advisories $(ADVISORIES) deploy/requirements-*.txt

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# Use the first interpreter that is new enough and can create a virtual environment. PYTHON=... chooses another one.
$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
		if $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "$$python -m venv $(VENV)"; exec $$python -m venv $(VENV); \
		fi; \
	done; \
	echo "No Python >= 3.11 with the venv module was found. Install one (Debian: apt install python3-venv), or give its path: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	exit 1

$(VENV)/.serve-%: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable '.[$*,integrate]'
	@# For `scpalm sample`, which reads one data file of this package. Its code is not used, so skip its dependencies.
	$(PIP) install --quiet --no-deps 'celltypist>=1.6,<2'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@if ! command -v nvidia-smi >/dev/null 2>&1; then \
		echo "$(PIP) install $(CPU_TORCH)"; \
		$(PIP) install --quiet '$(CPU_TORCH)' || echo "There is no build of $(CPU_TORCH) for this Python; pip will choose another version." >&2; \
	fi
	$(PIP) install --quiet --editable '.[dev]'
	@# Tests with several workers need a real Redis. The releases of redis-server on PyPI are too old.
	@if ! command -v redis-server >/dev/null 2>&1; then \
		echo "redis-server (7 or later) is missing: apt-get install redis-server"; \
		if [ "$$(id -u)" != 0 ] || ! { export DEBIAN_FRONTEND=noninteractive; install="timeout 120 apt-get install -y -q redis-server"; \
			$$install >/dev/null 2>&1 || { timeout 120 apt-get update -q >/dev/null 2>&1 && $$install >/dev/null 2>&1; }; }; then \
			echo "redis-server could not be installed. Tests that need it are skipped, and fail in CI." >&2; \
		fi; \
	fi
	@# Tests of the page drive a real browser.
	@if ! command -v chromium >/dev/null 2>&1 && ! command -v google-chrome >/dev/null 2>&1; then \
		echo "chromium is missing: apt-get install chromium"; \
		if [ "$$(id -u)" != 0 ] || ! { export DEBIAN_FRONTEND=noninteractive; install="timeout 300 apt-get install -y -q chromium"; \
			$$install >/dev/null 2>&1 || { timeout 120 apt-get update -q >/dev/null 2>&1 && $$install >/dev/null 2>&1; }; }; then \
			echo "chromium could not be installed. Tests of the page are skipped." >&2; \
		fi; \
	fi
	@# [dev] includes everything that [cpu] does.
	@touch $(VENV)/.serve-cpu $@
