# The project's tasks; `make` alone lists them.
#
# Everything a task makes lies in this folder: .venv is the environment, .build holds caches, the
# engine and what the demo leaves when it fails. `make clean` takes both away.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory

bin := .venv/bin
generator := .build/gen
# Written last, so a step that was cut off is done again.
runtime := .venv/runtime.done
develop := .venv/develop.done
generate := $(generator)/generate.done

# Each tool keeps its cache here instead of in the home directory.
cache := $(CURDIR)/.build/cache
export XDG_CACHE_HOME := $(cache)
export PIP_CACHE_DIR := $(cache)/pip
export BUF_CACHE_DIR := $(cache)/buf
export MYPY_CACHE_DIR := $(cache)/mypy
export RUFF_CACHE_DIR := $(cache)/ruff
export HYPOTHESIS_STORAGE_DIRECTORY := $(cache)/hypothesis
export COVERAGE_FILE := $(cache)/coverage
# pip asks rustc for its version, and rustup's stand-in for rustc makes its folder when asked.
export RUSTUP_HOME := $(cache)/rustup
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A server that somebody runs, or an address that somebody set, is not what the tasks speak to.
unexport GPUCTL_ADDRESS
# Else each daemon of the tests compiles all of it anew, which takes as long as the rest of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup engine prometheus tmux vllm demo test test-vllm check fix proto bench prove clean

help: ## List the tasks
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(develop) $(generate) engine prometheus tmux ## Install all that the other tasks use (each also does so itself)

engine: $(runtime) ## Find, fetch or build a real llama-server and print its path
	@packaging/get_engine.sh

prometheus: ## Find or fetch a real Prometheus, for the tests, and print its folder
	@packaging/get_prometheus.sh

tmux: ## Find or fetch a tmux, for the tests, and print its path
	@packaging/get_tmux.sh

vllm: ## Find or install a vLLM that runs on the CPU (2.5 GB) and print its path
	@packaging/vllm/get_vllm.sh

demo: $(runtime) ## Show the main job from start to end, on this machine's RAM and simulated cards
	@engine=$$(packaging/get_engine.sh | tail -n 1); \
	LLAMA_SERVER=$$engine $(bin)/python packaging/demo.py

# Their tests start no daemon and compute all the time; the others mostly wait for one.
beside := $(addprefix tests/,ledger models proof/seeded telemetry/forecast telemetry/history)

test: $(develop) $(generate) check ## Run every check, then every test, the real llama-server included
	@engine=$$(packaging/get_engine.sh | tail -n 1); \
	tmux=$$(packaging/get_tmux.sh | tail -n 1); \
	prometheus=$$(packaging/get_prometheus.sh | tail -n 1); \
	folder=$$(mktemp -d /tmp/gpud-test.XXXXXX); other=; \
	trap '[ -z "$$other" ] || kill $$other 2>/dev/null || true; rm -rf "$$folder"' EXIT; \
	export LLAMA_SERVER=$$engine PROMETHEUS_BIN=$$prometheus TMUX_BIN=$$tmux TMPDIR=$$folder; \
	if [ -n "$(strip $(TESTS))" ]; then $(bin)/python -m pytest $(TESTS); exit; fi; \
	$(bin)/python -m pytest $(beside) >"$$folder/beside.log" 2>&1 & other=$$!; \
	failed=0; $(bin)/python -m pytest $(addprefix --ignore=,$(beside)) || failed=$$?; \
	wait $$other || failed=$$?; other=; cat "$$folder/beside.log"; exit $$failed

test-vllm: $(develop) ## Run the tests on the real vLLM, which is installed for them (minutes, 2.5 GB)
	@program=$$(packaging/vllm/get_vllm.sh | tail -n 1); \
	folder=$$(mktemp -d /tmp/gpud-vllm-test.XXXXXX); trap 'rm -rf "$$folder"' EXIT; \
	VLLM=$$program TMPDIR=$$folder $(bin)/python -m pytest -m vllm tests/vllm

check: $(develop) ## Run the checks alone: lints, format, types, layers, API rules
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/mypy packaging
	$(bin)/lint-imports --no-logo --cache-dir $(cache)/import-linter
	$(bin)/buf lint proto

fix: $(develop) ## Mend what the linters can mend, and format
	$(bin)/ruff check --fix
	$(bin)/ruff format

proto: $(generate) ## Generate gpud/v1 from proto/
	proto/generate.sh $(CURDIR)/$(generator)/bin/python $(CURDIR)

bench: $(develop) ## Measure against the floors and print the table (minutes; never part of the tests)
	@engine=$$(packaging/get_engine.sh | tail -n 1); \
	folder=$$(mktemp -d /tmp/gpud-bench.XXXXXX); trap 'rm -rf "$$folder"' EXIT; \
	LLAMA_SERVER=$$engine TMPDIR=$$folder $(bin)/python -m tests.bench $(BENCH)

proofs := .build/proofs

prove: $(develop) ## Prove all that takes too long for the tests, and write its table (up to an hour)
	@engine=$$(packaging/get_engine.sh | tail -n 1); \
	folder=$$(mktemp -d /tmp/gpud-prove.XXXXXX); trap 'rm -rf "$$folder"' EXIT; \
	rm -rf $(proofs); failed=0; \
	GPUD_PROVE=1 GPUD_PROOF_RESULTS=$(CURDIR)/$(proofs) LLAMA_SERVER=$$engine TMPDIR=$$folder \
		timeout 90m $(bin)/python -m pytest -m proof $(PROOFS) || failed=1; \
	$(bin)/python -m tests.proof.table $(proofs) && exit $$failed

clean: ## Remove the environment, the engine and all caches
	rm -rf .venv .build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(runtime): pyproject.toml packaging/create_environment.sh
	@packaging/create_environment.sh .venv
	$(bin)/python -m pip install --quiet --editable .
	@touch $@

$(develop): $(runtime)
	$(bin)/python packaging/dependency_group.py dev | $(bin)/python -m pip install --quiet --requirement /dev/stdin
	@touch $@

# Apart from .venv: the generator is pinned old and would hold the runtime's own packages back.
$(generate): $(runtime)
	@packaging/create_environment.sh $(generator)
	$(bin)/python packaging/dependency_group.py generate | $(generator)/bin/python -m pip install --quiet --requirement /dev/stdin
	@touch $@
