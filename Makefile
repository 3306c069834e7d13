# bigmodel-lab. Every target works alone on a clean clone: it builds the environment it needs, says so, and is quick the
# second time. Python >= 3.11 and make are all that must be there.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PYTHON ?= python3
JOBS ?= 2

# An active conda or mamba environment (other than base) is used as it is; otherwise we keep a venv of our own.
ifneq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
  ENV := $(CONDA_PREFIX)
  INSTALL := "$(ENV)/bin/python" tools/conda_ready.py
else
  ENV := .venv
  INSTALL := $(PYTHON) tools/make_venv.py --lock requirements.lock "$(ENV)"
endif
READY := $(ENV)/.bigmodel-lab-ready
PY := "$(ENV)/bin/python"
# A thread pool that spins while it waits makes everything else on a busy machine many times slower; NumPy's keeps a core
# for a tenth of a second after every product, and a second thread of numba or torch then gains nothing.
export OMP_WAIT_POLICY ?= PASSIVE
export OPENBLAS_THREAD_TIMEOUT ?= 4
export PATH := $(abspath $(ENV))/bin:$(PATH)

.PHONY: help env lab test test-lowest test-newest test-bounds notebooks pretrained book serve bench lint format doctor lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

env: $(READY)  ## build the environment, or do nothing if it is there

$(READY): requirements.lock pyproject.toml tools/jupyterlab_overrides.json
	@$(INSTALL)
	@"$(ENV)/bin/python" -m pip install --quiet --no-deps --no-build-isolation --disable-pip-version-check -e .
	@touch "$@"
	@echo "environment ready in $(ENV)"

lab: env  ## open JupyterLab on the start page
	@"$(ENV)/bin/jupyter" lab --LabApp.default_url=/lab/tree/chapters/README.md \
	  $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS)

test: env  ## all tests, notebooks included (executed, outputs compared): about 14 minutes
	@echo "tests and notebooks, $(JOBS) at a time; TESTS='-k name' runs a part"
	@$(PY) -m pytest --nbval -n $(JOBS) --dist loadfile $(TESTS)

test-lowest test-newest: test-%:  ## all tests with the lowest (newest) versions that pyproject.toml allows
	@$(PYTHON) tools/make_venv.py --bounds $* .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@PATH="$(abspath .venv-$*)/bin:$$PATH" BIGMODEL_LAB_BOUNDS=$* \
	  .venv-$*/bin/python -m pytest --nbval -n $(JOBS) --dist loadfile $(TESTS)

test-bounds: env  ## the kernels with array bounds checked, in a cache of their own
	@cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT && \
	  NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR="$$cache" $(PY) -m pytest tests/ops tests/text $(TESTS)

notebooks: env  ## execute every notebook in place and store its outputs (NB=path for one)
	@$(PY) -m bigmodel_lab.book.notebooks run $(NB)
	@$(PY) tools/readme_picture.py

pretrained: env  ## train the small GPT that ships afresh, into runs/pretrained (20 minutes; Ctrl-C and again: it goes on)
	@$(PY) -m bigmodel_lab.train.pretrain runs/pretrained

book: env  ## render the book into book/
	@mdbook build
	@echo "the book is in book/index.html"

serve: env  ## render the book, open it, and render again on every save
	@mdbook serve --open

bench: env  ## time our kernels beside naive and reference versions; writes benchmarks/results/
	@for b in benchmarks/[a-z]*.py; do echo "== $$b"; $(PY) "$$b" $(BENCH) || exit 1; done

lint: env  ## formatting, lint, notebooks in their normal form
	@"$(ENV)/bin/ruff" check .
	@"$(ENV)/bin/ruff" format --check .
	@$(PY) -m bigmodel_lab.book.notebooks check

format: env  ## let ruff format and mend what it can
	@"$(ENV)/bin/ruff" check --fix .
	@"$(ENV)/bin/ruff" format .

doctor: env  ## is this machine ready? names what is wrong and how to mend it
	@$(PY) -m bigmodel_lab.course.doctor

lock: ## resolve pyproject.toml afresh and write requirements.lock and environment.yml
	@$(PYTHON) tools/make_venv.py --bounds newest .venv-newest
	@.venv-newest/bin/python tools/write_lock.py

clean:  ## remove what the targets above made, environments included
	rm -rf .venv .venv-lowest .venv-newest .cache book chapters/_assets .pytest_cache .ruff_cache
