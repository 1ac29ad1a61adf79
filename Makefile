# `make` or `make help` is the menu.
VENV := .venv
BIN := $(VENV)/bin
PY ?= python3

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint audit format bench faults fuzz docs clean

help: ## this menu
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(VENV)/.ready-test ## all set-up: virtual environment, packages, what tests need from Debian

$(VENV)/.ready: pyproject.toml constraints.txt scripts/setup.sh
	PY=$(PY) scripts/setup.sh runtime
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	scripts/setup.sh dev
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready-dev
	scripts/setup.sh test
	@touch $@

demo: $(VENV)/.ready ## the whole platform with virtual meters, on this machine, until Ctrl-C
	$(BIN)/meterway demo $(ARGS)

test: $(VENV)/.ready-test ## all tests, with a real broker, database, serial line and browser
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/.ready-dev ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready-dev ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

audit: $(VENV)/.ready-dev ## pinned versions, licences and known vulnerabilities of what Meterway runs on
	$(BIN)/python scripts/audit.py

bench: $(VENV)/.ready-test ## speed beside named peers, in the same run
	$(BIN)/python -m bench $(ARGS)

$(VENV)/.ready-faults: $(VENV)/.ready-test
	scripts/setup.sh faults
	@touch $@

faults: $(VENV)/.ready-faults ## lost and duplicated under every fault, with real processes (ARGS=--quick for minutes)
	PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

fuzz: $(VENV)/.ready-test ## everything that reads what a network says, and the API, for longer (ARGS=10 for minutes)
	METERWAY_FUZZ_MINUTES=$(or $(ARGS),5) $(BIN)/pytest tests/fuzz --timeout=0

docs: $(VENV)/.ready ## regenerate the pages that are made from the code
	$(BIN)/python scripts/make_docs.py

clean: ## remove the virtual environment and caches (never data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
