# Every target sets up what it needs: a venv, the pinned dependencies, this project; the next call finds them there.
#
#   PYTHON=python3.12 make run      another Python (3.10 to 3.13), for a venv that does not exist yet
#   VENV=/elsewhere/venv make test  another place for the venv
#   TESTS_AT_ONCE=4 make test       so many tests at the same time, each in a process of its own; 0 = one after another

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
TESTS_AT_ONCE ?= 2
PYTEST = $(BIN)/python -m pytest -q -n $(TESTS_AT_ONCE) --dist loadgroup
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check

.DEFAULT_GOAL = help
.PHONY: help run test test-slow test-all lint format claims bench model setup

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 18

run: $(READY)  ## post-train the embedded team; ends in a table and a report
	$(BIN)/python workflows/run.py --site local

test: $(READY)  ## all tests but the slow ones
	$(PYTEST) -m "not slow"

test-slow: $(READY)  ## the slow ones alone
	$(PYTEST) -m slow

test-all: $(READY)  ## all tests
	$(PYTEST)

lint: $(READY)  ## style and likely mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet . || { echo 'some files are not formatted: make format'; exit 1; }

format: $(READY)  ## format and sort what can be done by machine
	$(BIN)/ruff check --quiet --fix --exit-zero .
	$(BIN)/ruff format --quiet .

claims: $(READY)  ## remake the figures of docs/results.md; hours
	$(BIN)/python workflows/run.py claims --site local

bench: $(READY)  ## speed and memory against TRL, which it installs; a table and runs/benchmarks.json
	@$(PIP) -c constraints.txt -e '.[bench]' || echo 'TRL cannot be installed here: no baseline'
	$(BIN)/python tests/benchmarks/main.py

model: $(READY)  ## remake the embedded model
	$(BIN)/python workflows/run.py pretrain --site local export=apps/data/embedded

setup: $(READY)  ## the environment alone

# torch first and by itself: whatever build of it is found here, the rest must not replace it
$(READY): pyproject.toml constraints.txt
	@echo 'setting up $(VENV) (some minutes, once) …'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) -c constraints.txt -e '.[dev,tasks,mpi]'
	@touch $@
