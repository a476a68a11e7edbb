# Everything a checkout needs. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first Python that fits; override with `make demo PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	  "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# One stamp says "what the lock file asks for is installed": it is older than whatever changes what should be.
STAMP := $(VENV)/.installed
CODE := open_dalle dalle_model datasets flows tests benchmarks examples docs
# What `make test` runs: the tests without these marks.
FAST := "not slow and not long and not gpu and not fuzz"
# A change is judged by the same examples every time (Hypothesis' profile "ci" derives them from the test); `make fuzz` looks for new ones.
SAME := --hypothesis-profile=ci
export DO_NOT_TRACK := 1

.PHONY: help setup demo up down test test-slow test-long test-torch-min fuzz test-gpu gpu check bench soak chaos format docs lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make the virtual environment and install from the lock file (the other targets do it by themselves)

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or 3.12 (found: $$(python3 --version 2>&1)); install one or say make PYTHON=/path/to/it" >&2; exit 1; }
	@echo "==> virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(VENV)/tools/bin/uv || { echo "==> uv, which installs the rest (in $(VENV)/tools)"; \
	  $(PYTHON) -m venv $(VENV)/tools && $(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check uv; }
	@echo "==> $$(grep -cE '^[a-z0-9]' requirements.lock) packages from requirements.lock, each checked against its hash (a few minutes the first time: torch is large)"
	@$(VENV)/tools/bin/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@echo "==> this checkout, as an editable install"
	@$(VENV)/tools/bin/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
	@echo "==> ready: $(BIN)/dalle --help"

demo: $(STAMP)  ## the whole pipeline, from web pages to reranked pictures (about ten minutes on 2 cores)
	@$(BIN)/dalle demo

up: $(STAMP)  ## serve a data root: Prefect server, deployments, schedules, workers, until Ctrl-C or make down (SITE=site.toml)
	@$(BIN)/dalle up $(if $(SITE),--site $(SITE))

down: $(STAMP)  ## end what make up started, from another terminal, and whatever was left by one that was killed (SITE=site.toml)
	@$(BIN)/dalle down $(if $(SITE),--site $(SITE))

test: $(STAMP)  ## all tests but the slow ones and those that need a GPU
	@echo "==> pytest, without the tests marked slow or gpu"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(SAME) -m $(FAST)

test-slow: $(STAMP)  ## the tests that take minutes: whole pipelines, kill and resume, deployments
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile $(SAME) -m "slow and not long and not gpu" $$(grep -rl "mark\.slow" tests --include="test_*.py")

test-long: $(STAMP)  ## tests that CI has no time for: networks of full size, Ray that is killed, thousands of odd pictures
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(SAME) -m "long and not gpu" $$(grep -rl "mark\.long" tests --include="test_*.py")

test-torch-min: $(STAMP)  ## the tests of dalle_model on the oldest torch that pyproject.toml allows (an environment of its own, 2 GB)
	@test -x .venv-torch-min/bin/pytest || { $(PYTHON) -m venv .venv-torch-min; $(VENV)/tools/bin/uv pip install --quiet \
	  --python .venv-torch-min/bin/python --editable '.[train,dev]' $(shell grep -oE '(torch|torchvision)>=[0-9.]+' pyproject.toml | sed 's/>=/~=/; s/$$/.0/'); }
	@.venv-torch-min/bin/python -m pytest -m $(FAST) tests/dalle_model

fuzz: $(STAMP)  ## readers of other people's files, fuzzed by bytes, then by structure for an hour (MINUTES=60 JOBS=auto)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m fuzz tests/dalle_datasets
	@end=$$((SECONDS + 60 * $(or $(MINUTES),60))); while [ $$SECONDS -lt $$end ]; do echo "==> structures, $$SECONDS s"; \
	  OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -x -n $(or $(JOBS),auto) --hypothesis-profile=fuzz tests/dalle_datasets/test_structures.py || exit 1; done

test-gpu:  ## the tests that need a GPU, with the Python at hand: open-dalle[train] and pytest are enough
	@python -m pytest -m gpu tests/on_gpu

gpu:  ## everything that only a GPU can tell, in eight minutes, with the Python at hand: results in gpu-results/
	@python benchmarks/on_gpu.py --minutes $(or $(MINUTES),8) --out $(or $(OUT),gpu-results)

check: $(STAMP)  ## what a change must pass: format, lint, types, import contracts, tests
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(SAME) -m $(FAST)

soak: $(STAMP)  ## an installation left alone for half an hour while a site and a folder change (MINUTES=30): report in soak-results/
	@$(BIN)/python benchmarks/soak.py --minutes $(or $(MINUTES),30) --out $(or $(OUT),soak-results)

bench: $(STAMP)  ## print the figures of benchmarks/ (results are kept in benchmarks/RESULTS.md by hand)
	@for script in benchmarks/bench_*.py; do echo "==> $$script"; $(BIN)/python "$$script" || exit 1; done

chaos: $(STAMP)  ## kill flows, jobs, workers, server, all at once for half an hour (MINUTES=30); tables must be as undisturbed ones
	@$(BIN)/python benchmarks/chaos.py --minutes $(or $(MINUTES),30)

format: $(STAMP)  ## format the code and sort the imports
	$(BIN)/ruff check --fix-only --quiet $(CODE)
	$(BIN)/ruff format $(CODE)

docs: $(STAMP)  ## write the reference pages anew from the code and build the documentation site in build/site
	$(BIN)/python docs/write_reference.py
	$(BIN)/mkdocs build --strict --quiet

lock: $(STAMP)  ## write requirements.lock anew from pyproject.toml, at the newest versions that fit
	$(VENV)/tools/bin/uv pip compile --quiet --upgrade pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url -o requirements.lock

clean:  ## delete the virtual environment, caches and build products; data/ stays
	rm -rf $(VENV) .venv-torch-min dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
