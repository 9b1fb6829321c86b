# Every target does its own set-up: a Python from 3.11 on, pip and make are all a machine needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
BUILD_INPUTS := pyproject.toml constraints.txt proto/build_hook.py $(wildcard proto/santacoder/*/v1/*.proto)
# What a machine for GPU work has not, when it has torch, triton, transformers, grpcio and pytest.
STAGED_PACKAGES := grpcio-health-checking==1.84.0 grpcio-reflection==1.84.0 grpcio-status==1.84.0 \
  googleapis-common-protos structlog prometheus-client uvloop accelerate psutil
# Of these what no run reads, and our own packages, which are run from the checkout.
UNSTAGED := santacoder_client santacoder_router santacoder_shard bin accelerate/test_utils
STAGED_PLATFORMS := manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64
# A machine without .venv, to which .stage was brought, has the rest in its own Python.
ifeq ($(wildcard $(BIN)/python),)
  STAGED := $(wildcard .stage/site)
endif
GPU_SETUP := $(if $(STAGED),,$(VENV)/.dev)
GPU_PYTHON := $(if $(STAGED),PYTHONPATH=client:router:shard:.stage/site $(PYTHON),$(BIN)/python)
GPU_FAULTS := S1,S2,S6,S10,S21,S22,S23,X1
# Processes of tests: most wait for what they have started.
TEST_PROCESSES ?= 2
LINTED := proto/build_hook.py client router shard models benchmarks tests

.DEFAULT_GOAL := help
.PHONY: help demo serve soak test gpu-test faults faults-gpu check proto bench bench-gpu bench-router overload clean wheel-test stage demo-train demo-evaluate scheduler-bugs bad-inputs fuzz test-optimized audit

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or later is needed; got $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(BUILD_INPUTS) | $(BIN)/python
	$(PIP) -e '.[serve]'
	@touch $@

$(VENV)/.dev: $(BUILD_INPUTS) | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.serve

demo: $(VENV)/.serve ## Serve the demo checkpoint, complete and infill with it, stop
	$(BIN)/python models/demo/demo.py

serve: $(VENV)/.serve ## Serve the demo checkpoint until Ctrl-C (MODEL=..., ARGS="--tp 2" for others)
	$(BIN)/santacoder-serve $(if $(MODEL),--model $(MODEL)) $(ARGS)

test: $(VENV)/.dev ## Run every test that needs no GPU
	$(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

gpu-test: $(GPU_SETUP) ## Run the tests that need a GPU (ARGS=--long for those of minutes, too)
	$(GPU_PYTHON) -m pytest -q --confcutdir=tests/gpu -W default tests/gpu $(ARGS)

faults: $(VENV)/.dev ## Run the tests of every fault, long ones too, and print their table (FAULTS=S1,S2 for some)
	$(BIN)/python -m pytest -q --long --faults=$(or $(FAULTS),all) $(ARGS)

faults-gpu: $(GPU_SETUP) ## The same of the faults that GPUs have
	$(GPU_PYTHON) -m pytest -q --confcutdir=tests/gpu -W default --long --faults=$(or $(FAULTS),$(GPU_FAULTS)) tests/gpu $(ARGS)

scheduler-bugs: $(VENV)/.dev ## Seed 247 bugs into the scheduler, one by one, and count those its simulation finds (about 3 minutes)
	$(BIN)/python tests/router/core/bugs/hunt.py $(ARGS)

fuzz: $(VENV)/.dev ## Give foreign bytes to every reader (ARGS="--raw 100000000 --structured 1000000 --files 1000000 --live 10000")
	PYTHONPATH=tests $(BIN)/python -W ignore -m fuzz.fuzz $(ARGS)

bad-inputs: $(VENV)/.dev ## Print the table of bad inputs: number, input, way in, answer (the tests try every row)
	@PYTHONPATH=tests $(BIN)/python -m bad_inputs.table

test-optimized: $(VENV)/.dev ## Run every test with Python's -O, in all processes: nothing may rest on an assert
	PYTHONOPTIMIZE=1 $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile -W "ignore:assertions not in test modules" $(ARGS)

audit: $(VENV)/.dev ## Ask pip-audit for known weaknesses of every installed package (needs the network)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip --disable-pip-version-check install -q pip-audit
	$(BIN)/python -m pip freeze --exclude-editable >$(VENV)/audit/installed.txt
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r $(VENV)/audit/installed.txt $(ARGS)

check: $(VENV)/.dev ## Formatting, lint, types, import rules, proto rules
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/ruff check $(LINTED)
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/architecture

proto: $(VENV)/.dev ## Generate messages and stubs from the .proto files
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/build_hook.py

soak: $(VENV)/.dev ## A mixed load for long, with a fault a minute (ARGS="--minutes 60 --faults wire")
	$(BIN)/python -u tests/soak/run.py $(ARGS)

bench: $(VENV)/.dev ## Compare with transformers on the CPU, real shape (about 15 minutes, 12 GB)
	$(BIN)/python benchmarks/cpu.py $(ARGS)

bench-gpu: $(GPU_SETUP) ## Compare with transformers on a GPU, part by part (ARGS="--part decode")
	$(GPU_PYTHON) benchmarks/gpu.py $(ARGS)

bench-router: $(VENV)/.dev ## Measure the router itself over a mock shard group (about 70 s)
	$(BIN)/python benchmarks/router.py $(ARGS)

overload: $(VENV)/.dev ## Ask more of a service than it can do, by class and by ten (about 13 minutes; ARGS="--service mock --seconds 20")
	$(BIN)/python benchmarks/overload.py $(ARGS)

wheel-test: $(VENV)/.dev ## Build the wheel; run the SDK and router tests on it (PYTHONS="python3.12 python3.13")
	tests/wheel_test.sh "$(CURDIR)/$(BIN)/python" $(or $(strip $(PYTHONS)),$(PYTHON))

stage: $(VENV)/.dev ## Put what a GPU machine without network needs beside the checkout into .stage
	mkdir -p .stage
	rm -rf .stage/site
	$(PIP) --no-deps --no-compile --target .stage/site .
	$(PIP) --no-deps --no-compile --only-binary=:all: --python-version 3.12 --implementation cp \
	  $(addprefix --platform ,$(STAGED_PLATFORMS)) --target .stage/site $(STAGED_PACKAGES)
	rm -rf $(addprefix .stage/site/,$(UNSTAGED))
	$(PYTHON) models/demo/corpus.py --archive .stage/stdlib.tar.gz

demo-train: ## Train the demo checkpoint (needs a GPU, torch, transformers)
	$(PYTHON) models/demo/train.py --output models/demo/checkpoint $(ARGS)

demo-evaluate: $(VENV)/.dev ## Measure the demo checkpoint on its held-out files
	$(BIN)/python models/demo/evaluate.py $(ARGS)

clean: ## Remove everything that was built
	rm -rf $(VENV) .stage build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find proto \( -name '*_pb2*.py' -o -name '*_pb2*.pyi' \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
