# `make test` and `make serve` work on a machine that has Python 3.11 or newer, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/requirements.sha256
# What is installed follows the text of these files, not their dates, which a fresh clone sets anew.
REQUIREMENTS := requirements.txt requirements-dev.txt
HASH := $(shell cat $(REQUIREMENTS) | $(PYTHON) -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')

.DEFAULT_GOAL := help
.PHONY: help venv demo serve test judges lint types check clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv:  ## Make the virtual environment and install what is pinned (once per version of the requirements)
	@if [ "$$(cat $(STAMP) 2>/dev/null)" != "$(HASH)" ]; then $(MAKE) --no-print-directory install; fi

.PHONY: install
install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=…")'
	@echo "Installing into $(VENV) (a few minutes the first time: torch is large) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -r requirements-dev.txt
	@echo "$(HASH)" > $(STAMP)

demo: venv .env  ## Store and ask as two users over HTTP, from nothing
	@echo "Migrating (the first time, this also makes the embedded Postgres) ..."
	@$(BIN)/python manage.py migrate --verbosity 0
	@$(BIN)/python manage.py demo

.env:
	@$(BIN)/python manage.py generate_keys --env-file .env

serve: venv .env  ## Migrate, then serve on http://127.0.0.1:8000
	@$(BIN)/python manage.py migrate --verbosity 0
	@echo "Serving on http://$${BIND:-127.0.0.1:8000} without TLS; INSECURE_HTTP=0 behind a proxy that has it"
	@INSECURE_HTTP=$${INSECURE_HTTP:-1} $(BIN)/gunicorn -c project/gunicorn.py project.wsgi

test: venv  ## Run the tests, two files at a time, each on a throw-away Postgres
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=95

judges:  ## Install what judges the clients, into .venv-judges; the tests then run it
	@test -x .venv-judges/bin/python || $(PYTHON) -m venv .venv-judges
	.venv-judges/bin/python -m pip install --disable-pip-version-check --quiet -r clients/python/judges/requirements.txt

lint: venv  ## Lint and check the formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv  ## Check the types
	$(BIN)/mypy

check: venv  ## Check the project, its migrations and a production's settings
	.ci/check $(BIN)/python

clean:  ## Remove caches and the virtual environment; .data and .env stay
	rm -rf $(VENV) .venv-judges .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage coverage.xml htmlcov
	find . -name __pycache__ -type d -not -path './.data/*' -prune -exec rm -rf {} +
