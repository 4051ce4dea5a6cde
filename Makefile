# Everything a developer or a newcomer does, by name. `make` alone explains.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

DEVNET := tests/parts/devnet

.DEFAULT_GOAL := help
.PHONY: help run devnet npm test check bench storm restarts proto lock clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Installed from the locks, with hashes; again only when a lock or the project file changed.
$(VENV)/run.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the clearinghouse into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.done: $(VENV)/run.done requirements-dev.lock
	@echo "installing what the tests need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

run: $(VENV)/run.done ## start everything embedded, with a demo gateway, and say how to call it
	@exec $(BIN)/clearinghouse dev

# Looked for before anything is installed: its chain is an anvil node, which npm installs from its lock.
npm:
	@test -e $(DEVNET)/node_modules/.installed-from || command -v npm >/dev/null || { \
	  echo "make devnet needs npm, which comes with Node.js 20 or newer: get it from nodejs.org or your system's packages" >&2; \
	  echo "(its chain is an anvil node for Linux on x86-64; make run needs none of it)" >&2; exit 1; }

devnet: npm $(VENV)/dev.done ## start a chain with a funded sender, an orchestrator and the service over it (docs/devnet.md)
	@exec $(BIN)/python -m tests.devnet start

# Most tests wait for sockets, clocks and other processes: two for each processor are busy enough.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$(( n < 4 ? 2 * n : 8 )))

test: $(VENV)/dev.done ## run every test, some side by side (TESTS="-k name" to choose, WORKERS=0 for one by one)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

check: $(VENV)/dev.done ## lint, format, types, generated code, packages: what must hold before a push
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python proto/generate.py --check
	@sh proto/lint.sh
	@$(BIN)/python -m pip check

bench: $(VENV)/dev.done ## measure calls/s, latency and CPU per call, coverage, the chain's history, a month's end and usage against the floors
	@$(BIN)/python -m tests.bench
	@echo && $(BIN)/python -m tests.bench.hot_path
	@echo && $(BIN)/python -m tests.bench.coverage_database
	@echo && $(BIN)/python -m tests.bench.history
	@echo && $(BIN)/python -m tests.bench.closing
	@echo && $(BIN)/python -m tests.bench.month_end
	@echo && $(BIN)/python -m tests.bench.usage_rollups
	@echo && $(BIN)/python -m tests.bench.statements

storm: $(VENV)/dev.done ## property tests with seeds nobody has tried, workers killed at every step of an invoice and a top-up, random schedules for half an hour (STORM_SECONDS=60 for less)
	@STORM_SEED=fresh $(BIN)/python -m pytest -q -m hypothesis
	@STORM_KILLS=all STORM_SEED=$${STORM_SEED:-fresh} $(BIN)/python -m pytest -q tests/settlement/test_kills.py
	@$(BIN)/python -m tests.storm

restarts: $(VENV)/dev.done ## kill or stop the leading worker a thousand times, at random (RESTARTS=100 for fewer)
	@$(BIN)/python -m tests.restarts

proto: $(VENV)/dev.done ## generate the Python code of proto/ again
	@$(BIN)/python proto/generate.py

# Pinned with hashes for Python 3.11 to 3.13 on any platform. No index address is written down.
lock: ## resolve the dependencies anew and pin them
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade --extra embedded --group build pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade --extra embedded --group build --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## remove what was built and cached (the data in .clearinghouse stays)
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
