# `make` prints this help. The first command creates .venv from uv.lock.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin

# Values of the command line reach the recipes as they are: Make would expand $(…) in them, such as in names of folders.
given := $(foreach name,$(.VARIABLES),$(if $(filter command line,$(origin $(name))),$(name)))
$(foreach name,$(given),$(eval override $(name) := $$(value $(name)))$(eval export $(name)))

##@ Use
run: $(VENV)/.ready ## Run the pipeline on this machine: DATA=demo|folder|address|kaggle PRESET=demo|cpu|full OUT=folder, any parameter
	@$(BIN)/python -m counterweight run --make

plan: $(VENV)/.ready ## Plan a run in seconds: detectable effect, time, memory, cost: DATA=… PRESET=… OUT=plan.json, any parameter
	@$(BIN)/python -m counterweight plan --make

evaluate: $(VENV)/.ready ## Evaluate a finished run: RUN=folder|address EXTERNAL=folder|address OUT=folder; or pool folds: RUN=run1,run2,…
	@$(BIN)/python -m counterweight evaluate --make

predict: $(VENV)/.ready ## Score new images: RUN=folder|address DATA=folder|address ARM=name OUT=folder
	@$(BIN)/python -m counterweight predict --make

export: $(VENV)/.ready $(if $(filter onnx,$(FORMAT)),$(VENV)/.export) ## Export a run's model or images: RUN=folder|address FORMAT=savedmodel|onnx|folder ARM=name OUT=folder
	@$(BIN)/python -m counterweight export --make

demo: $(VENV)/.demo ## Show a run's models on a local page: RUN=folder|address HOST=127.0.0.1 PORT=7860
	@$(BIN)/python -m counterweight demo --make

runs: $(VENV)/.ready ## List the finished runs in a folder, and write its index page: DIR=runs
	@$(BIN)/python -m counterweight runs --make

compare: $(VENV)/.ready ## Compare two finished runs: RUN=a,b OUT=compare.html
	@$(BIN)/python -m counterweight compare --make

##@ On a cluster: docs/guides/kubeflow.md, docs/guides/operations.md
compile: $(VENV)/.ready ## Write the pipeline to build/pipeline.yaml: PLACEMENT=file.yaml
	@$(BIN)/python -m counterweight compile --make

images: $(VENV)/.ready ## Build the images of the phases with Docker or Podman: PHASES=train_gan,… GPU=tensorflow|jax
	@$(BIN)/python -m counterweight images --make

push: $(VENV)/.ready ## Build and push the images, and write docker/digests.json: REGISTRY=host/path, and as above
	@$(BIN)/python -m counterweight push --make

submit: $(VENV)/.ready ## Start a run: OUT=address DATA=demo|kaggle|address PRESET=… PARAMS=file.yaml WAIT=1 TIMEOUT=seconds, any parameter
	@$(BIN)/python -m counterweight submit --make

schedule: $(VENV)/.ready ## Sync recurring runs with manifests/schedules.yaml: DRY_RUN=1 prints the plan
	@$(BIN)/python -m counterweight schedule --make

release: $(VENV)/.ready ## Release the current pipeline to the schedules
	@$(BIN)/python -m counterweight release --make

prune: $(VENV)/.ready ## List or remove runs, versions and schedules of this tool: REMOVE=… OLDER=days DRY_RUN=1
	@$(BIN)/python -m counterweight prune --make

logs: $(VENV)/.ready ## Show a run's tasks and failure reasons: RUN=id TASK=name; WAIT=1 follows it until it finishes
	@$(BIN)/python -m counterweight logs --make

terminate: $(VENV)/.ready ## Cancel a run: RUN=id
	@$(BIN)/python -m counterweight terminate --make

##@ Develop
test: $(VENV)/.ready ## Run the unit and integration tests
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder tests/unit tests/integration

test-e2e: $(VENV)/.ready ## Run whole pipelines, in processes and containers, and trainings that are killed
	@$(BIN)/python -m pytest tests/e2e

test-all: test test-e2e ## Run all tests

check: $(VENV)/.ready ## Check format, lint, types, style, the lock file and generated files
	@$(BIN)/uv lock --check --quiet
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m scripts.check_style .
	@$(BIN)/codespell README.md docs components counterweight tests scripts benchmarks manifests presets *.md pipeline.py
	@$(BIN)/hadolint docker/Dockerfile docker/*/Dockerfile components/*/Dockerfile
	@$(BIN)/yamllint --strict .
	@$(BIN)/python -m scripts.generate --check

format: $(VENV)/.ready ## Format the code
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

phase: $(VENV)/.ready ## Create a phase from a template: NAME=name
	@$(BIN)/python -m scripts.new_phase --make

generate: $(VENV)/.ready ## Regenerate the reference pages and tests/golden/pipeline.yaml from the code
	@$(BIN)/python -m scripts.generate

verify: $(VENV)/.ready ## Regenerate, and fail if a file changed
	@$(BIN)/python -m scripts.generate --check

docs: $(VENV)/.ready ## Build the documentation site into build/site, with strict link checks
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --locked --inexact --quiet --python $(BIN)/python --group docs
	@$(BIN)/zensical build --strict --config-file zensical.toml

bench: $(VENV)/.bench ## Measure the published figures: DATA=folder for the benchmarks on real images
	@$(BIN)/python -m benchmarks --make

##@ Set up
setup: $(VENV)/.ready ## Create the environment from uv.lock
lock: ## Re-resolve dependencies after a change in pyproject.toml
	@PYTHON="$(PYTHON)" UV_VERSION="$(UV_VERSION)" scripts/setup.sh "$(VENV)" uv
	@$(BIN)/uv lock

pin: ## Check that docker/Dockerfile names the base image by digest, or write one: DIGEST=sha256:…
	@$(PYTHON) -m scripts.pin_base_image "$(DIGEST)"

clean: ## Delete build outputs and the task cache; keep the results in runs/
	rm -rf build runs/.cache .pytest_cache .ruff_cache .mypy_cache

help: ## Print this help
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: uv.lock pyproject.toml
	@PYTHON="$(PYTHON)" UV_VERSION="$(UV_VERSION)" scripts/setup.sh "$(VENV)"

# Only `export FORMAT=onnx` needs the converter.
$(VENV)/.export: $(VENV)/.ready
	@echo "export: installing the ONNX converter" >&2
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --locked --inexact --quiet --python $(BIN)/python --group export && touch $@

# Only `demo` needs Gradio.
$(VENV)/.demo: $(VENV)/.ready
	@echo "demo: installing Gradio" >&2
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --locked --inexact --quiet --python $(BIN)/python --group demo && touch $@

# Only the tests of Azure need its emulator, which is not a Python package.
AZURITE_FOLDER ?= $(HOME)/.cache/counterweight/azurite
$(VENV)/.azurite: $(VENV)/.ready
	@[ -d "$(AZURITE_FOLDER)/node_modules/azurite" ] || \
	  npm install --silent --no-audit --no-fund --omit=optional --prefix "$(AZURITE_FOLDER)" azurite@3.37.0 >/dev/null
	@touch $@

# Only `bench` needs PyTorch; other targets neither install nor remove it.
$(VENV)/.bench: $(VENV)/.ready
	@echo "bench: installing PyTorch to compare with" >&2
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --locked --inexact --quiet --python $(BIN)/python --group bench && touch $@ || \
	  echo "bench: PyTorch cannot be installed; its figures will be missing" >&2

.PHONY: run plan evaluate predict export demo runs compare compile images push submit schedule release prune logs terminate test test-e2e test-all check phase generate verify docs format bench setup lock pin clean help
