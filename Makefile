# `make` prints this help. Everything is set up on first use: .venv is made from uv.lock.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin

##@ Use
run: $(VENV)/.ready ## Run the whole graph here: DATA=demo|folder|gs://…|kaggle PRESET=demo|cpu|full OUT=folder, and any parameter, e.g. seed=2
	@$(BIN)/python -m counterweight.run --make

evaluate: $(VENV)/.ready ## Judge a finished run on outside data: RUN=folder|gs://… EXTERNAL=folder|gs://… OUT=folder; or pool folds: RUN=run1,run2,…
	@$(BIN)/python -m counterweight.evaluate --make

##@ On a cluster: docs/submit.md, docs/operations.md
compile: $(VENV)/.ready ## Write the pipeline to build/pipeline.yaml: PLACEMENT=file.yaml
	@$(BIN)/python -m counterweight.compile

images: $(VENV)/.ready ## Build the phases' images with Docker or Podman: PHASES=train_gan,… GPU=tensorflow|jax
	@$(BIN)/python -m counterweight.build_images build --make

push: $(VENV)/.ready ## Build and push the images, and write docker/digests.json: REGISTRY=host/path, and as above
	@$(BIN)/python -m counterweight.build_images push --make

submit: $(VENV)/.ready ## Start a run: OUT=gs://… DATA=demo|kaggle|gs://… PRESET=… PARAMS=file.yaml WAIT=1 TIMEOUT=seconds, any parameter
	@$(BIN)/python -m counterweight.submit --make

schedule: $(VENV)/.ready ## Make the recurring runs equal to manifests/schedules.yaml: DRY_RUN=1 tells what it would do
	@$(BIN)/python -m counterweight.schedule --make

logs: $(VENV)/.ready ## Tell a run's tasks and why they failed: RUN=id TASK=name; WAIT=1 follows it to its end
	@$(BIN)/python -m counterweight.logs --make

terminate: $(VENV)/.ready ## End a run: RUN=id
	@$(BIN)/python -m counterweight.terminate --make

##@ Develop
test: $(VENV)/.ready ## Run the unit and integration tests (minutes)
	@$(BIN)/python -m pytest -n auto --dist loadfile tests/unit tests/integration

test-all: $(VENV)/.ready ## Run all tests, with whole pipeline runs and containers
	@$(BIN)/python -m pytest -n auto --dist loadfile tests/unit tests/integration
	@$(BIN)/python -m pytest tests/e2e

check: $(VENV)/.ready ## Check format, lint, types and the lock file
	@$(BIN)/uv lock --check --quiet
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/hadolint docker/Dockerfile components/*/Dockerfile
	@$(BIN)/yamllint --strict .

format: $(VENV)/.ready ## Format the code
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(VENV)/.bench ## Measure what the README claims: DATA=folder for the benchmarks on real images
	@$(BIN)/python -m benchmarks --make

##@ Set up
setup: $(VENV)/.ready ## Make the environment from uv.lock
lock: ## Resolve the dependencies anew, after a change in pyproject.toml
	@PYTHON="$(PYTHON)" UV_VERSION="$(UV_VERSION)" scripts/setup.sh "$(VENV)" uv
	@$(BIN)/uv lock

clean: ## Delete what was built and the cache of finished tasks; the results in runs/ stay
	rm -rf build runs/.cache .pytest_cache .ruff_cache .mypy_cache

help: ## Print this help
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: uv.lock pyproject.toml
	@PYTHON="$(PYTHON)" UV_VERSION="$(UV_VERSION)" scripts/setup.sh "$(VENV)"

# PyTorch, which only bench needs; the other targets neither install nor remove it.
$(VENV)/.bench: $(VENV)/.ready
	@echo "bench: installing PyTorch to compare with" >&2
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --locked --inexact --quiet --python $(BIN)/python --group bench && touch $@ || \
	  echo "bench: PyTorch can't be installed here: its figures will be missing" >&2

.PHONY: run evaluate compile images push submit schedule logs terminate test test-all check format bench setup lock clean help
