# `make` prints this help. Everything is set up on first use: .venv is made from uv.lock.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin

##@ Use
run: $(VENV)/.ready ## Run the whole graph here: DATA=demo|folder|gs://…|kaggle PRESET=demo|cpu|full OUT=folder, and any parameter, e.g. seed=2
	@$(BIN)/python -m tools.run --make

evaluate: $(VENV)/.ready ## Judge a finished run on outside data: RUN=folder|gs://… EXTERNAL=folder|gs://… OUT=folder; or pool folds: RUN=run1,run2,…
	@$(BIN)/python -m tools.evaluate --make

compile: $(VENV)/.ready ## Write the pipeline for a cluster to build/pipeline.yaml
	@$(BIN)/python -m tools.compile

##@ Develop
test: $(VENV)/.ready ## Run the tests
	@$(BIN)/python -m pytest

check: $(VENV)/.ready ## Check format, lint, types and the lock file
	@$(BIN)/uv lock --check --quiet
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/yamllint --strict .

format: $(VENV)/.ready ## Format the code
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(VENV)/.ready ## Measure what the README claims: DATA=folder for the benchmarks on real images
	@$(BIN)/python -m benchmarks --make

##@ Set up
setup: $(VENV)/.ready ## Make the environment from uv.lock
lock: ## Resolve the dependencies anew, after a change in pyproject.toml
	@PYTHON="$(PYTHON)" UV_VERSION="$(UV_VERSION)" tools/setup.sh "$(VENV)" uv
	@$(BIN)/uv lock

clean: ## Delete what was built and the cache of finished tasks; the results in runs/ stay
	rm -rf build runs/.cache .pytest_cache .ruff_cache .mypy_cache

help: ## Print this help
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: uv.lock pyproject.toml
	@PYTHON="$(PYTHON)" UV_VERSION="$(UV_VERSION)" tools/setup.sh "$(VENV)"

.PHONY: run evaluate compile test check format bench setup lock clean help
