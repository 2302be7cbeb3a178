# The verbs of this repository. Each calls what it needs; `make setup` starts from Python 3.11 and pip alone.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
LOCK := requirements-dev.lock

# What is installed is named by a hash of what decides it, so that changing any of it installs again. The list of files is
# part of it because a strict editable install links file by file (in exchange, type checkers see the package).
LOCK_HASH := $(shell cat $(LOCK) | sha256sum | cut -c1-16)
TREE_HASH := $(shell { cat pyproject.toml $(LOCK); find chaos client node proto raft -name '*.py' -o -name '*.pyi' | LC_ALL=C sort; } \
	| sha256sum | cut -c1-16)
LOCKED := .venv/.locked-$(LOCK_HASH)
INSTALLED := .venv/.installed-$(TREE_HASH)

# Tests that start processes of their own share the machine with nothing else.
ALONE := $(wildcard tests/integration tests/packaging)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint sim sim-quick sim-long chaos judge mutants proto bench lock

# Of `make sim`; without FIRST the first seed is drawn, and printed.
SEEDS ?= 200
FIRST ?=
# Of `make chaos`; without it a seed is drawn, and printed.
SEED ?=
SIM := $(BIN)/python -m quorumlog.chaos.sim

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile

setup: $(INSTALLED) ## make .venv from nothing, as the lock file says

$(LOCKED): | $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "quorumlog needs Python 3.11 or newer")'
	$(BIN)/pip install --quiet --require-hashes --requirement $(LOCK)
	rm -f .venv/.locked-* && touch $@

$(INSTALLED): $(LOCKED)
	rm -rf build
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable . --config-settings editable_mode=strict
	rm -f .venv/.installed-* && touch $@

demo: setup ## three nodes, real data, a leader killed; under a minute
	$(BIN)/python -m quorumlog.demo

test: setup ## everything that proves it
	$(BIN)/pytest -n 2 --dist loadfile $(addprefix --ignore=,$(ALONE)) tests
	$(if $(ALONE),$(BIN)/pytest $(ALONE))

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p quorumlog
	$(BIN)/mypy tests

sim: setup ## SEEDS=n FIRST=k: whole clusters under virtual time and faults; a seed is two simulated minutes
	$(SIM) --seeds $(SEEDS) $(if $(FIRST),--first $(FIRST)) --keep-going

sim-quick: setup ## the same for three minutes, with seeds drawn now
	$(SIM) --seeds 100000 --for-seconds 170

sim-long: setup ## 10,000 seeds; what was green on the same code is not run again, so it may be broken off
	$(SIM) --seeds 10000 --first 1 --record chaos/long-run.txt --keep-going

chaos: setup ## real processes under a mix of all faults, about three minutes; SEED=k repeats the schedule of a run
	$(BIN)/quorumlog chaos run --seconds 140 --faults all --workloads log,groups $(if $(SEED),--seed $(SEED))

judge: setup ## 10,000 legal histories and no alarm; what judges runs of chaos is itself judged
	QUORUMLOG_HISTORIES=10000 $(BIN)/pytest -n 2 tests/chaos/test_judge.py

mutants: setup ## each known bug, put into a copy, is caught; what is known for this tree is not run again
	$(BIN)/python -m tests.mutants

proto: setup ## generate the Python code of proto/*.proto
	PYTHON=$(CURDIR)/$(BIN)/python proto/generate

bench: setup ## throughput and latency of three nodes on this machine
	$(BIN)/quorumlog bench produce --output json
	$(BIN)/quorumlog bench latency --output json

lock: ## resolve the lock file anew (needs uv)
	uv pip compile --quiet --generate-hashes --python-version 3.11 --no-header --no-annotate --upgrade \
		--extra dev --extra node --extra fast --output-file $(LOCK) pyproject.toml
