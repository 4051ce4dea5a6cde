# Everything a developer or a newcomer does, by name. `make` alone explains.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test check bench storm proto lock clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

test: $(VENV)/dev.done ## run every test (TESTS="-k name" to choose)
	@$(BIN)/python -m pytest $(TESTS)

check: $(VENV)/dev.done ## lint, format, types, generated code, packages: what must hold before a push
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python proto/generate.py --check
	@sh proto/lint.sh
	@$(BIN)/python -m pip check

bench: $(VENV)/dev.done ## measure calls/s, latency and CPU per call against the floors, in one run
	@$(BIN)/python -m tests.bench

storm: $(VENV)/dev.done ## random schedules against the real service for half an hour (STORM_SECONDS=60 for less)
	@$(BIN)/python -m tests.storm

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
