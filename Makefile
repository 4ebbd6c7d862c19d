PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test trust lint bench clients oldest clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)  ## convert small random checkpoints there and back, train one, and ask it what it sees
	PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/demo.sh

test: $(STAMP)  ## run the tests on two cores
	$(BIN)/pytest -q -n 2 --dist worksteal

trust: $(STAMP)  ## try hostile input, broken disks and kills, far more often than the tests do, and count
	MMCONVERT_TRUST=thorough $(BIN)/pytest -q -n 2 --dist worksteal tests/trust

lint: $(STAMP)  ## ruff (rules and format) and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMP)  ## measure every number that the README gives
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt -e ".[bench]"
	$(BIN)/python benchmarks/convert.py
	$(BIN)/python benchmarks/large.py
	$(BIN)/python benchmarks/train.py

clients: $(STAMP)  ## have real programs read what mmconvert writes: releases of transformers, and Cerebras' own library
	$(BIN)/python -m tests.clients

oldest: $(STAMP)  ## run the tests with the oldest releases that are allowed, in an environment of their own
	test -x .oldest/bin/python || $(PYTHON) -m venv .oldest
	.oldest/bin/python -m pip install --quiet -c constraints/lowest.txt -e ".[train,plot,test]"
	.oldest/bin/python -m pytest -q -n 2

clean:  ## remove builds, caches and the demo's output; virtual environments stay
	rm -rf build dist demo *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o \( -path ./.clients -o -path ./.oldest \) -prune -o -type d -name __pycache__ -exec rm -rf {} +

$(STAMP): pyproject.toml constraints/cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints/cpu.txt -e ".[train,plot,test,dev]"
	@touch $@
