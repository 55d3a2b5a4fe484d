# Two commands: `make repro` runs the whole pipeline, `make test` passes the tests. Both set everything up in .venv first.

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
# DVC starts `python` as PATH finds it, so the environment has to come first.
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: repro test check matrix clean

repro: .venv/installed
	$(RUN) $(BIN)/dvc repro
	$(RUN) $(BIN)/python -m pipeline summary

test: .venv/installed-test
	$(RUN) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Every Python and every set of dependencies that are allowed; an hour and some ten gigabytes.
matrix: .venv/installed-matrix
	$(RUN) $(BIN)/python -m tests.robustness.matrix

# pip would compile every module of every package, which takes longer than to download them, and most are never
# imported. Python compiles each at its first import, and here keeps it whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

# A stamp is older than these files after a `git pull` that changed them, so the environment follows.
.venv/bin/activate .venv/Scripts/activate:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | $(BIN)/activate
	$(INSTALL) -e .
	touch $@

.venv/installed-test: .venv/installed
	$(INSTALL) -e ".[test]"
	touch $@

.venv/installed-dev: .venv/installed-test
	$(INSTALL) -e ".[dev]"
	touch $@

.venv/installed-matrix: .venv/installed-test
	$(INSTALL) -e ".[matrix]"
	touch $@

clean:
	rm -rf .venv build *.egg-info
