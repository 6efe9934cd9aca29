# The project's commands. Each one makes its own environment; all it needs is make and Python 3.11+.

PYTHON ?= python3
# That of python3 is .venv. One of another Python, as in `make test PYTHON=python3.13`, is beside it.
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
UV := $(BIN)/uv
SYNCED := $(VENV)/.synced
REPORT := build/contract.json
FAULTS := build/faults.json
# What takes time in the tests with brokers is waiting: for leases, delays, restarts. So many run side by side.
WORKERS ?= 8
# After ten failures no further one tells more. `exec`: a shell in between would keep SIGTERM to itself.
PYTEST := exec $(BIN)/pytest --quiet --dist worksteal --numprocesses $(WORKERS) --maxfail 10 --durations 15 --durations-min 1
MINUTES ?= 10
SECONDS ?= 60
THREADS ?= 32
JOBS ?= 100000
ROUNDS ?= 100
GENERATED ?= 0
BENCH := build/bench
# Each library that is measured has an environment of its own: they don't agree on the versions of what they need.
PEERS := $(patsubst benchmarks/environments/%.txt,$(BENCH)/%/.synced,$(wildcard benchmarks/environments/*.txt))
# These need a newer Python than the rest, and Oban a C compiler and that Python's headers: erlpack has no wheels.
NEWER := incumbent oban
MEASURE := $(BIN)/python -m benchmarks run --rounds 5 --scale 0.2 --backlogs 1000 10000 100000 1000000
FULL := $(foreach name,local redis rabbitmq postgresql,$(BENCH)/results/$(name).json)
FOLDERS := $(shell find src domain ports application adapters cli contract_tests/suite testing/kit -type d -not -name __pycache__)

export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON := $(BIN)/python
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport VIRTUAL_ENV PYTHONPATH
# The tests start hundreds of processes, which would each compile all that they import.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo check test test-fast test-brokers test-e2e test-long test-all brokers test-docker matrix soak stress hangs fuzz mutants lint format docs bench bench-full bench-report clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(UV) ## run the example on every backend
	@$(UV) sync --quiet --frozen --inexact --no-dev --extra redis --extra rabbitmq --extra postgresql
	@echo "==> the example"
	@$(BIN)/python examples/example_new_consumer.py

test: brokers test-fast test-brokers ## that this checkout works on every backend, in 9 minutes: all but what is marked long

test-fast: lint ## its first part: lint and all of tests/, without a broker
	@echo "==> tests/: each layer, the pages and the examples, the type checkers"
	@$(PYTEST) -m "not long" tests

test-brokers: brokers ## its second part: all that needs brokers
	@echo "==> contract_tests/ and e2e/: the contract of every backend in profile quick, what users do, what brokers suffer"
	@$(PYTEST) -m "not long" --contract-profile quick contract_tests e2e

test-e2e: brokers ## what of that test-long doesn't repeat
	@echo "==> e2e/: what users do, what brokers suffer"
	@$(PYTEST) -m "not long" e2e

test-long: brokers ## the rest: the contract in profile ci, the fault matrix, the wheel, the pages made from tests
	@echo "==> contract_tests/: the contract of every backend in profile ci, broken and changed adapters, any seed"
	@$(PYTEST) --contract-report $(REPORT) contract_tests
	@echo "==> tests/ and e2e/: what is marked long, as the fault matrix, the wheel and a short soak"
	@$(PYTEST) -m long tests e2e
	@echo "==> docs/capabilities.md is what the contract suite found"
	@$(BIN)/python -m mindtrace.jobs.contract.capability_matrix $(REPORT) --check docs/capabilities.md
	@echo "==> docs/faults.md has the rows of the fault matrix"
	@$(BIN)/python e2e/faults/report.py $(FAULTS) --check docs/faults.md

test-all: test test-long soak test-docker ## both of these, 10 minutes of soak, and the contract in containers: an hour

brokers: $(SYNCED) ## say which brokers and databases the tests use, and how to get what is missing
	@echo "==> the brokers"
	@PYTHONPATH=testing $(BIN)/python -m brokers

check: lint ## while you work, two minutes: lint, and tests/ but for its pages
	@echo "==> tests/ but for docs/: each layer, the type checkers"
	@$(PYTEST) -m "not long" tests --ignore tests/docs

lint: $(SYNCED) ## ruff, mypy, the layers
	@echo "==> ruff"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@echo "==> mypy"
	@$(BIN)/mypy
	@echo "==> layers"
	@$(BIN)/lint-imports --no-logo

format: $(SYNCED) ## fix what ruff can fix, and write the files that are mirrored
	@$(BIN)/python testing/mirror.py
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

test-docker: $(SYNCED) ## the contract on Redis and RabbitMQ in containers
	@$(UV) sync --quiet --frozen --inexact --all-extras --group docker
	@export TESTCONTAINERS_RYUK_DISABLED=true PYTHONPATH=testing && \
	  redis=$$($(BIN)/python -m brokers.docker_images redis) && rabbitmq=$$($(BIN)/python -m brokers.docker_images rabbitmq) && \
	  echo "==> the contract on $$redis and $$rabbitmq" && \
	  MINDTRACE_JOBS_TEST_REDIS=docker://$$redis MINDTRACE_JOBS_TEST_RABBITMQ=docker://$$rabbitmq \
	  $(BIN)/pytest --quiet --contract-profile quick contract_tests/test_redis.py contract_tests/test_rabbitmq.py

soak: $(SYNCED) ## minutes of work under faults: MINUTES=10 BACKENDS="sqlite redis rabbitmq postgresql" SEED=1; CLUSTERS=1
	@PYTHONPATH=testing $(BIN)/python -m soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(CLUSTERS),--clusters) $(BACKENDS)

stress: $(SYNCED) ## many threads on one client: SECONDS=60 THREADS=32 BACKENDS="memory sqlite redis rabbitmq postgresql"
	@PYTHONPATH=testing $(BIN)/python -m stress --seconds $(SECONDS) --threads $(THREADS) $(BACKENDS)

hangs: $(SYNCED) ## handlers that hang beside load, each ended in time: ROUNDS=100 BACKENDS="sqlite redis rabbitmq postgresql"
	@PYTHONPATH=testing $(BIN)/python -m hangs --rounds $(ROUNDS) $(BACKENDS)

fuzz: $(SYNCED) ## mutated envelopes into each backend: JOBS=100000 SEED=1 BACKENDS="memory sqlite redis rabbitmq postgresql"
	@PYTHONPATH=testing $(BIN)/python -m fuzz --jobs $(JOBS) $(if $(SEED),--seed $(SEED)) $(BACKENDS)

mutants: $(SYNCED) ## put faults into the adapters, and see whether the suite finds them: BACKENDS="local …" GENERATED=20 SEED=1
	@PYTHONPATH=testing $(BIN)/python -m mutants --generated $(GENERATED) $(if $(SEED),--seed $(SEED)) $(BACKENDS)

docs: $(SYNCED) ## generate docs/lifecycle.md, and docs/capabilities.md from a run of the contract suite
	@PYTHONPATH=testing $(BIN)/python -m lifecycle_page > docs/lifecycle.md
	@$(PYTEST) contract_tests --contract-report $(REPORT)
	@$(BIN)/python -m mindtrace.jobs.contract.capability_matrix $(REPORT) > docs/capabilities.md

matrix: $(SYNCED) ## run the fault matrix, and generate docs/faults.md from what it found
	@$(PYTEST) e2e/faults
	@$(BIN)/python e2e/faults/report.py $(FAULTS) > docs/faults.md

bench: $(SYNCED) $(PEERS) ## measure the parts, and other libraries beside this one, in a few minutes
	@$(BIN)/pytest --quiet benchmarks/microbenchmarks --benchmark-only
	@$(BIN)/python -m benchmarks run --rounds 1 --scale 0.2 --out $(BENCH)/results/quick.json

bench-full: $(SYNCED) $(PEERS) ## the same with medians of five, backlogs of up to a million, and a snapshot that is held: an hour or more
	@$(MEASURE) --broker memory --broker sqlite --out $(BENCH)/results/local.json
	@$(MEASURE) --broker redis --out $(BENCH)/results/redis.json
	@$(MEASURE) --broker rabbitmq --out $(BENCH)/results/rabbitmq.json
	@$(MEASURE) --broker postgresql --held 10 --out $(BENCH)/results/postgresql.json

bench-report: $(SYNCED) $(PEERS) ## write docs/benchmarks.md and its plots from the results of bench-full
	@$(BENCH)/plots/bin/python -m benchmarks.plots $(FULL)
	@$(BIN)/python -m benchmarks report $(FULL)

clean: ## remove the environments and all that was built
	@rm -rf .venv .venv-* build dist *.egg-info .benchmarks .hypothesis .*_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The package is installed as links to its files, so an edit needs nothing, and a file that came or went, which its
# folder's date shows, needs a new set of links.
$(SYNCED): pyproject.toml uv.lock $(FOLDERS) | $(UV)
	@echo "==> installing what uv.lock names"
	@$(UV) sync --quiet --frozen --all-extras --reinstall-package mindtrace-jobs
	@touch $@

# Where one of NEWER can't be installed it is left out, and the run says so.
$(BENCH)/%/.synced: benchmarks/environments/%.txt | $(UV)
	@echo "==> installing what benchmarks/environments/$*.txt names"
	@$(UV) venv --quiet --clear --python "$(if $(filter $*,$(NEWER)),>=3.12,$(BIN)/python)" $(@D) && \
	  $(UV) pip install --quiet --python $(@D) --requirement $< || \
	  { echo "$* can't be installed"; rm -rf $(@D); mkdir -p $(@D); $(if $(filter $*,$(NEWER)),true,false); }
	@touch $@

$(UV):
	@command -v $(PYTHON) >/dev/null || \
	  { echo "No $(PYTHON) here: install Python 3.11 or newer, or name it, as in 'make test PYTHON=python3.12'."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), and 3.11 is needed: name a newer one, as in 'make test PYTHON=python3.12'."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments: install its venv package (on Debian and Ubuntu, python3-venv)."; exit 1; }
	@echo "==> making $(VENV) with $$($(PYTHON) --version), this once"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet 'uv>=0.8,<1'
