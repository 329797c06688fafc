# `make demo` and `make test` are all a fresh checkout needs: each makes .venv and installs what it uses. `make quick` gives a
# first verdict within a minute, `make test-all` runs what takes long by its nature, too.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
# Installing does not compile, the first import does, and keeps it, whatever the shell says: else each of Ray's processes
# would compile torch and all that it imports again, for seconds.
export PYTHONDONTWRITEBYTECODE :=
# A file of tests shares what is dear to make, such as a Ray: it stays in one process. The longest come first.
# One process more than there are cores: jobs wait for their own processes to start.
export PYTEST_XDIST_AUTO_NUM_WORKERS := $(shell expr $$(nproc) + 1)
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
QUICK := $(addprefix tests/unit/,jobs/closing jobs/console jobs/sending jobs/test_cli.py model schemas pipeline/naming pipeline/settings) \
	--ignore tests/unit/model/hub

.PHONY: demo quick test test-all check clean

demo: .venv/installed
	$(BIN)/tagstream demo --store demo-store

quick: check
	@echo "Unit tests of what has no Ray: recognizer, schemas, settings, names, what verbs share ..."
	$(PYTEST) -m "not long" $(QUICK)

test: check
	@echo "All tests but those that take long by their nature (make test-all): unit, integration, end to end ..."
	$(PYTEST) -m "not long"

test-all: check
	@echo "All tests, with soaks, several nodes, benchmarks in small and exhaustive faults ..."
	$(PYTEST)

check: .venv/installed-dev
	@echo "Lint, format, types, and who may import whom ..."
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/python:
	$(PYTHON) -m venv --upgrade-deps .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (about a minute) ..."
	$(PIP) --editable .
	touch $@

# All at once: pip takes as long for what is installed already as for what is not.
.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv, with what the tests need (about a minute) ..."
	$(PIP) --editable '.[dev]'
	touch .venv/installed $@

clean:
	rm -rf .venv demo-store demo-store.html
