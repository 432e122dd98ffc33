# Every command a person needs. `make help` lists them; CI calls the same targets.
SHELL := /bin/bash
PYTHON := python3
PY := .venv/bin/python
PIP := -m pip install -q --disable-pip-version-check
PYTEST := $(PY) -m pytest -n 2 --dist worksteal

COMPILE := .venv/bin/uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11

# Another project's environment, active in this shell, must not leak into ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PIP_USER PIP_TARGET PIP_PREFIX

.DEFAULT_GOAL := help
.PHONY: help run demo test check lint fmt bench bench-gate chaos chaos-many growth soak fuzz audit redis postgres chromium \
  prometheus alertmanager nginx cc lock clean

help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/ready ## Start the gateway on this machine; without ANTHROPIC_API_KEY, with a simulated Claude API behind it
	@$(PY) -m gateway run --demo

demo: .venv/ready-dev ## Play a workload of three workspaces through a gateway and print what caching saved
	@$(PY) -m gateway demo

test: redis postgres chromium prometheus alertmanager nginx cc .venv/ready-dev .venv-legacy/ready ## Install what the tests need, then run all of them
	@$(PYTEST)

check: lint test ## All that CI does: lint, types, import contracts, tests

lint: .venv/ready-dev ## Style, types and the contracts between floors
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@$(PY) -m mypy
	@$(PY) .venv/bin/lint-imports

fmt: .venv/ready-dev ## Format, and mend what can be mended safely
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

bench: redis nginx cc .venv/ready-dev ## CPU, memory and latency beside nginx, in one run (a quarter of an hour, quiet)
	@$(PY) -m tests.bench.run --out bench-results/bench.json --markdown bench-results/bench.md

bench-gate: redis nginx cc .venv/ready-dev ## Its CPU alone, against the multiples of nginx in tests/bench/baseline.json
	@$(PY) -m tests.bench.run --gate --out bench-results/gate.json

SEED := 1
SEEDS := 1..20
chaos: redis .venv/ready-dev ## Break a running gateway in ways that SEED draws, and compare its books with the bill
	@$(PY) -m tests.chaos.run --seed $(SEED)

chaos-many: redis .venv/ready-dev ## The same with many seeds (SEEDS=1..20), and a table of what broke
	@$(PY) -m tests.chaos.run --seeds $(SEEDS)

growth: redis postgres .venv/ready-dev ## How cost grows: curves of CPU, memory and disk (half an hour; needs cc)
	@$(PY) -m tests.bench.growth --out docs/capacity/growth.json --charts docs/capacity

MINUTES := 60
soak: redis .venv/ready-dev ## Mixed traffic with faults for MINUTES, and whether anything grows or is booked wrongly
	@$(PY) -m tests.soak.run --minutes $(MINUTES)

SECONDS := 600
fuzz: redis .venv/ready-dev ## Send what nobody thought of to whatever reads strangers' bytes, for SECONDS; new examples for all properties
	@$(PY) -m tests.fuzz.run --seconds $(SECONDS)
	@$(PYTEST) -q --hypothesis-profile=seeking tests/property

audit: .venv/ready-dev ## Ask a public database for known weaknesses of the locked packages
	@$(PY) -c 'import socket; socket.create_connection(("api.osv.dev", 443), 5)' 2>/dev/null \
	  || { echo "The database cannot be reached from here: nothing was audited." >&2; exit 0; }; \
	.venv/bin/uv tool run -q pip-audit -s osv --disable-pip --require-hashes -r requirements.txt -r requirements-extras.txt

redis:
	@command -v redis-server valkey-server >/dev/null || .ci/apt-install redis-server

postgres: # Debian keeps its programs off PATH
	@compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || .ci/apt-install postgresql

chromium:
	@command -v chromium >/dev/null || .ci/apt-install chromium

prometheus: # With promtool
	@command -v prometheus >/dev/null || .ci/apt-install prometheus

alertmanager: # With amtool
	@command -v prometheus-alertmanager >/dev/null || .ci/apt-install prometheus-alertmanager

nginx:
	@command -v nginx >/dev/null || .ci/apt-install nginx-light

cc: # With the headers of the C library
	@command -v cc >/dev/null || .ci/apt-install build-essential

lock: .venv/ready-dev ## Resolve the dependencies anew into the lock files
	$(COMPILE) pyproject.toml -o requirements.txt
	$(COMPILE) -c requirements.txt --all-extras pyproject.toml -o requirements-extras.txt
	$(COMPILE) --group build -o requirements-build.txt
	$(COMPILE) -c requirements.txt pyproject.toml --group dev --group build -o requirements-dev.txt
	$(COMPILE) --group legacy -o requirements-legacy.txt

clean: ## Remove environments and caches; var/, with keys and books, stays
	rm -rf .venv .venv-legacy bench-results .hypothesis .*_cache
	find gateway tests -name __pycache__ -prune -exec rm -rf {} +

# The environments are made from the lock files alone, every package checked by hash.
.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed: apt-get install python3, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/apt-install python3-venv
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/ready: .venv/python requirements.txt requirements-build.txt pyproject.toml
	@echo "Setting up .venv (once)"
	@$(PY) $(PIP) --require-hashes -r requirements.txt -r requirements-build.txt
	@$(PY) $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	@echo "Adding what tests and checks need (once)"
	@$(PY) $(PIP) --require-hashes -r requirements-dev.txt
	@touch $@

# An older SDK on the older API version and key header, beside the current one: the tests drive both.
.venv-legacy/ready: requirements-legacy.txt .venv/python
	@echo "Setting up .venv-legacy with an older SDK (once)"
	@$(PYTHON) -m venv .venv-legacy
	@.venv-legacy/bin/python $(PIP) --require-hashes -r requirements-legacy.txt
	@touch $@
