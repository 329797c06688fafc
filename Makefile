# `make demo` and `make test` are all a fresh checkout needs: each makes .venv and installs what it uses.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
# Installing does not compile, the first import does, and keeps it, whatever the shell says: else each of Ray's processes
# would compile torch and all that it imports again, for seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check clean

demo: .venv/installed
	$(BIN)/tagstream demo --store demo-store

test: check
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (about a minute) ..."
	$(PIP) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing what the tests need ..."
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo-store demo-store.html
