# Mainspring: one task runner.  `make` prints this list.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# The first Python that is new enough; `make PYTHON=...` names another.
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
endif
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Everything below needs the environment; it is made from the hashed lock and nothing else.
$(READY): requirements/dev.txt requirements/bootstrap.txt pyproject.toml
	@echo "Setting up $(VENV) from requirements/dev.txt (once; about a minute)"
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed; none is on the PATH"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(READY)

.PHONY: install
install: $(READY) ## Create .venv from the lock (every other target does it when needed)

.PHONY: demo
demo: $(READY) ## The whole loop on this machine: commit, serve, refuse, canary, revert, crash
	$(BIN)/mainspring demo

.PHONY: test
test: $(READY) operator-env ## Every test (TESTFLAGS="-k gates -x" for some)
	$(BIN)/python -m tests.support.halves $(TESTFLAGS)

.PHONY: operator-env
operator-env: $(READY) ## Make .venv-operator: the operator's lock and our wheel, nothing else
	@$(BIN)/python -m tests.support.operator_env

.PHONY: unit
unit: $(READY) ## The fast tests only
	$(BIN)/python -m pytest tests/unit $(TESTFLAGS)

.PHONY: load
load: $(READY) ## Ten minutes of requests while everything changes; none may fail, all are logged (MINUTES=10)
	MAINSPRING_LOAD_MINUTES=$(or $(MINUTES),10) $(BIN)/python -m pytest -q -s tests/e2e/test_e2e_load.py

.PHONY: crash
crash: $(READY) ## Kill the controller at every write of a story; hours. CRASH="--shard 1/4 --minutes 30"
	$(BIN)/python -m tests.crash.crash_enumeration $(CRASH)

.PHONY: faults
faults: $(READY) ## Kill the operator at every write to a real API server; an hour. FAULTS="--minutes 30"
	$(BIN)/python -m tests.faults.enumeration $(FAULTS)

.PHONY: walk
walk: $(READY) ## Walk the plan through random worlds; SEEDS="--first 0 --seeds 100"
	$(BIN)/python -m tests.simulation $(SEEDS)

.PHONY: mutants
mutants: $(READY) ## Plant faults in copies of the plan; the walks must find each; MUTANTS="--jobs 2"
	$(BIN)/python -m tests.simulation.mutants $(MUTANTS)

.PHONY: fmt
fmt: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .

.PHONY: generate
generate: $(READY) ## Write crds/, and the copies in the chart, from the kinds
	$(BIN)/python -m controller.api.crd crds
	$(BIN)/python -m controller.api.crd helm/mainspring/files/crds

.PHONY: lint
lint: $(READY) ## Style and simple mistakes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

.PHONY: types
types: $(READY) ## Strict types
	$(BIN)/mypy

.PHONY: contracts
contracts: $(READY) ## Rooms and floors
	$(BIN)/lint-imports

.PHONY: verify
verify: generate lint types contracts ## What CI checks: generated files, lint, types, contracts
	@git diff --exit-code -- crds || { echo "crds/ differs from the kinds: commit what 'make generate' wrote"; exit 1; }
	@test -z "$$(git status --porcelain -- crds)" || { echo "crds/ has files that are not committed"; exit 1; }

.PHONY: lock
lock: $(READY) ## Write the lock files anew (the newest versions within the bounds)
	$(BIN)/uv pip compile -q pyproject.toml --upgrade --extra operator --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/constraints.txt -o requirements/operator.txt
	$(BIN)/uv pip compile -q pyproject.toml --upgrade --extra local --extra operator --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/operator.txt -o requirements/dev.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra jobs --extra s3 --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/dev.txt -o requirements/jobs.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra server --extra onnx --extra xgboost --extra lightgbm --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/dev.txt -o requirements/server.txt
	$(BIN)/uv pip compile -q pyproject.toml --extra great-expectations --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/dev.txt -o requirements/great-expectations.txt
	awk '/^[a-z]/{p=0} /^uv==/{p=1} p && !/#/' requirements/dev.txt > requirements/bootstrap.txt
	echo hatchling | $(BIN)/uv pip compile -q - --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c requirements/dev.txt -o requirements/build.txt

.PHONY: bench
bench: $(READY) ## Measure: the command line, decisions, the store; the operator on a real API server (half an hour)
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.plan
	$(BIN)/python -m benchmarks.repository
	$(BIN)/python -m benchmarks.cluster --models 1000 5000

.PHONY: ranges
ranges: $(READY) ## Measure what benchmarks/ranges.json promises, and the champion gate; five minutes
	$(BIN)/python -m benchmarks.check
	$(BIN)/python -m benchmarks.champion_gate

.PHONY: cluster
cluster: $(READY) ## A shell with a Kubernetes of its own, our kinds, kubectl and helm; for root a node, too
	@$(BIN)/python -m tests.cluster shell

.PHONY: clean
clean: ## Remove the environment and what tests and the demo left
	rm -rf $(VENV) .venv-operator .mainspring .mypy_cache .ruff_cache .pytest_cache .hypothesis
