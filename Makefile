# midsource: `make help` lists what there is.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed
DEV     = $(VENV)/.developing
LOCK    = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
          --no-annotate --no-header --quiet

.PHONY: help demo test crash tour check docs lock clean
help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 18

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

$(DEV): $(STAMP) requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $(DEV)

demo: $(STAMP)   ## both halves, sandbox, 10 000 people, one real delivery; then leaves the console running
	$(BIN)/midsource demo

test: $(DEV)   ## the whole test suite, on a real PostgreSQL out of a wheel; whole homes by themselves at the end
	$(BIN)/pytest --numprocesses 4 --dist loadfile --ignore tests/story --ignore tests/crash
	$(BIN)/pytest --numprocesses 3 --dist loadfile tests/story tests/crash

ROUNDS ?= 200
REPORT ?= crash-report.md
crash: $(DEV)  ## kill -9 of every process, 200 deliveries of 20 000 people (SEED=n repeats, ROUNDS=n, REPORT=file)
	$(BIN)/python -m tests.crash --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) --report $(REPORT)

tour: $(DEV)   ## every page with 0, 1 and 1 000 000 rows: times, faults, pictures in tour/ (ROWS=n, TOUR=folder); needs chromium
	$(BIN)/pytest tests/web/tour.py

check: $(DEV)  ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DEV)   ## write docs/reference from the code
	$(BIN)/python -m midsource.cli.reference docs/reference

lock:            ## pin every dependency with its hash (needs uv)
	$(LOCK) --extra build --output-file requirements.lock
	$(LOCK) --extra build --extra dev --constraints requirements.lock --output-file requirements-dev.lock

clean:           ## remove the environment and caches (never a home folder with data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
