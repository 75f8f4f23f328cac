# Two commands set everything up: `make demo` and `make test`. `make` alone lists all.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON_IN := .venv/bin/python

.PHONY: help demo test bench bench-full lint deep soak env clean lock docs

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## the whole story on a PostgreSQL, Kafka and Connect of its own (ROWS=… scales it, KEEP=1 leaves it up)
	@scripts/environment.sh demo
	@$(PYTHON_IN) -m cdc_lake demo $(if $(ROWS),--rows $(ROWS)) $(if $(KEEP),--keep)

test: env ## all tests: first those without a stack, side by side; then those that share one real stack
	@$(PYTHON_IN) -m pytest -q -m "not stack and not slow" -n 2
	@$(PYTHON_IN) -m pytest -q -m "stack and not slow" -n 2 --dist loadfile

bench: env ## figures, beside the naive loop's in the same run
	@$(PYTHON_IN) -m benchmarks

bench-full: env ## the same with the sizes and the peers that take long (Spark needs Java 17)
	@$(PYTHON_IN) -m benchmarks --full

lint: env ## style and strict types
	@$(PYTHON_IN) -m ruff check .
	@$(PYTHON_IN) -m ruff format --check .
	@$(PYTHON_IN) -m mypy

deep: env ## ten times the random cases of the models, and of the simulation (DEPTH=… SEEDS=…)
	@DEPTH=$(or $(DEPTH),10) SEEDS=$(or $(SEEDS),20000) $(PYTHON_IN) -m pytest -q -m "not stack and not slow" -n 2

soak: env ## the tests that take long; MINUTES=30 is how long the living shop has to survive (NEMESIS=… its seed)
	@MINUTES=$(or $(MINUTES),30) $(PYTHON_IN) -m pytest -q -s -m slow

env: ## the development environment in .venv, from requirements.lock
	@scripts/environment.sh dev

docs: env ## write the reference pages and schemas again, from the code, and build the site into build/site
	@$(PYTHON_IN) scripts/generate_reference.py
	@$(PYTHON_IN) scripts/build_site.py

RESOLVE := uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
lock: ## resolve pyproject.toml again into the lock files (needs uv)
	$(RESOLVE) --extra embedded --extra fast --extra notebooks --extra otel --extra lineage --extra service --extra serve --extra registry --group dev --group build -o requirements.lock
	$(RESOLVE) --extra embedded --extra fast --extra service --extra serve --group build -c requirements.lock -o requirements-demo.lock
	$(RESOLVE) --extra fast --extra otel --extra lineage --extra serve --extra registry --group build -c requirements.lock -o requirements-image.lock

clean: ## stop the embedded stack; remove its data, the environment and the caches (a lake stays)
	@if [ -x $(PYTHON_IN) ] && [ -e .cdc-lake ]; then $(PYTHON_IN) -m cdc_lake down --wipe; fi
	@rm -rf .venv .cdc-lake build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
