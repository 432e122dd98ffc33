# Every command a person needs. `make help` lists them; CI calls the same targets.
SHELL := /bin/bash
PY := .venv/bin/python
PYTEST := $(PY) -m pytest -n 2 --dist worksteal

COMPILE := .venv/bin/uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11

.DEFAULT_GOAL := help
.PHONY: help run demo test check lint fmt bench redis lock clean

help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/ready ## Start the gateway on this machine; without ANTHROPIC_API_KEY, with a simulated Claude API behind it
	@$(PY) -m gateway run --demo

demo: .venv/ready-dev ## Play a workload of three workspaces through a gateway and print what caching saved
	@$(PY) -m gateway demo

test: .venv/ready-dev .venv-legacy/ready redis ## Install what the tests need, then run all of them
	@$(PYTEST)

check: lint test ## All that CI does: lint, types, import contracts, tests

lint: .venv/ready-dev ## Style, types and the contracts between floors
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

fmt: .venv/ready-dev ## Format, and mend what can be mended safely
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: .venv/ready-dev ## CPU and memory per request beside nginx, in one run (needs cc and nginx)
	@$(PY) -m tests.bench.run

redis:
	@tests/support/install-redis.sh

lock: .venv/ready-dev ## Resolve the dependencies anew into the lock files
	$(COMPILE) pyproject.toml -o requirements.txt
	$(COMPILE) --group build -o requirements-build.txt
	$(COMPILE) -c requirements.txt pyproject.toml --group dev --group build -o requirements-dev.txt
	$(COMPILE) --group legacy -o requirements-legacy.txt

clean: ## Remove environments and local state
	rm -rf .venv .venv-legacy var bench-results

# The environments are made from the lock files alone, every package checked by hash.
.venv/python:
	@command -v python3 >/dev/null || { echo "python3 is missing: apt-get install python3 python3-venv" >&2; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; this is $$(python3 --version)" >&2; exit 1; }
	@python3 -m venv .venv >/dev/null 2>&1 || { \
	  echo "python3-venv is missing; installing it"; \
	  { apt-get update -qq && apt-get install -y -qq python3-venv; } >/dev/null \
	    || { echo "could not: run 'apt-get install python3-venv' as root, then try again" >&2; exit 1; }; \
	  rm -rf .venv; python3 -m venv .venv; }
	@touch $@

.venv/ready: .venv/python requirements.txt requirements-build.txt pyproject.toml
	@echo "Setting up .venv (once)"
	@$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.txt -r requirements-build.txt
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	@echo "Adding what tests and checks need (once)"
	@$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

# An older SDK on the older API version and key header, beside the current one: the tests drive both.
.venv-legacy/ready: requirements-legacy.txt .venv/python
	@echo "Setting up .venv-legacy with an older SDK (once)"
	@python3 -m venv .venv-legacy
	@.venv-legacy/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-legacy.txt
	@touch $@
