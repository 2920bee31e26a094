# Two commands do everything on a fresh machine with Python 3.11+ and make:
#   make demo    install into .venv, separate the song in examples/, print the figures
#   make test    install the developers' tools too, lint, check types, run all tests
# Variables: PYTHON (the interpreter), VENV (the environment), TORCH_INDEX (index of torch wheels: CPU or CUDA).

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SONG := examples/song/mix.flac

.PHONY: help demo test lint types unit listen clean
.DEFAULT_GOAL := help

help:
	@sed -n '2,4s/^# *//p' Makefile
	@echo "  make listen  pages that play context, result and mix of every verb, in listen/"
	@echo "  make clean   remove $(VENV), build, dist, separated, generated, accompanied, edited and listen, with all in them"

demo: $(VENV)/.core
	$(BIN)/stemwise separate $(SONG) --overwrite
	$(BIN)/python examples/demo.py separated/band/mix examples/song/stems $(SONG)

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest

listen: $(VENV)/.core
	$(BIN)/python -m stemwise.listen $(SONG) --out listen

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first and alone, so that TORCH_INDEX says where it comes from, and where nothing else does.
$(VENV)/.torch: constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch
	@touch $@

$(VENV)/.core: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) install --quiet --constraint constraints.txt --editable '.[train,eval,dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist separated generated accompanied edited listen
