# Every job is one command, on a fresh machine too: set-up happens by itself, and once.

PYTHON ?= python3
DATA ?= ../shared/data
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
PHANTOM := runs/phantom

# -qq: no warnings about package indexes of the machine; errors are still shown.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test coverage docs lint format fuzz inject real client peers bench-peers demo-model graphs clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)  ## Segment a phantom CT: DICOM in, mask, picture and Dice in demo-out/
	@rm -rf demo-out
	$(BIN)/medseg demo -o demo-out

# One thread a worker: two workers with two threads each would fight for two cores.
test: export OMP_NUM_THREADS = 1
test: export MKL_NUM_THREADS = 1
test: lint  ## Lint, types, import contracts, tests and notebooks
	$(BIN)/pytest tests notebooks --nbmake -n $(WORKERS) --dist worksteal --durations=25

coverage: export OMP_NUM_THREADS = 1
coverage: export MKL_NUM_THREADS = 1
coverage: $(READY_DEV)  ## The tests again, with the share of lines and branches that they run, at least 90 %
	$(BIN)/pytest tests -n $(WORKERS) --dist worksteal --cov --cov-report=term

lint: $(READY_DEV)  ## All checks that run no code of ours
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/nbstripout --verify notebooks/*.ipynb

format: $(READY_DEV)  ## Format the code, sort imports, strip notebook outputs
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/nbstripout notebooks/*.ipynb

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY_DEV)  ## Build the documentation in site/; warnings and broken links are errors
	$(BIN)/mkdocs build --quiet

fuzz: export OMP_NUM_THREADS = 1
fuzz: $(READY_DEV)  ## Damage 2,000 scans and models by chance: each is read or refused (minutes)
	$(BIN)/python tests/support/fuzzing.py --count $(or $(COUNT),2000) --seed $(or $(SEED),0)

inject: export OMP_NUM_THREADS = 1
inject: $(READY_DEV)  ## Run commands under 500 faults: signals, closed pipes, lost files, full disks (an hour)
	$(BIN)/python tests/support/fault_injection.py --count $(or $(COUNT),500) --seed $(or $(SEED),0)

real: $(READY)  ## Train and evaluate on real scans (hours): docs/results.md; DATA=folder
	$(BIN)/python benchmarks/real_data.py --data $(DATA)

client: .venv-client/.ready  ## Install the client of MONAI Label alone; the tests of the server use it

# Without the 60 packages of its server. It imports cgi, which Python has no longer.
.venv-client/.ready:
	$(PYTHON) -m venv .venv-client
	.venv-client/bin/python -m pip install -qq --disable-pip-version-check requests 'legacy-cgi; python_version >= "3.13"'
	.venv-client/bin/python -m pip install -qq --disable-pip-version-check --no-deps 'monailabel==0.8.*'
	@touch $@

peers: export OMP_NUM_THREADS = 1
peers: $(READY_DEV) .venv-peers/.ready-peers  ## Compare imported models with nnU-Net and lungmask (minutes)
	$(BIN)/pytest tests/benchmarks/test_peers.py

.venv-peers/.ready-peers:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -qq --disable-pip-version-check nnunetv2 lungmask
	@touch $@

bench-peers: $(READY)  ## Set up MONAI, nnU-Net, TorchIO and lungmask, and medseg alone, for benchmarks/speed
	$(PYTHON) -m venv .venv-plain
	.venv-plain/bin/python -m pip install -qq --disable-pip-version-check -e '.[fast]'
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -qq --disable-pip-version-check -e . nnunetv2 torchio lungmask

demo-model: $(READY)  ## Train the shipped phantom model again, from nothing
	rm -rf $(PHANTOM)
	$(BIN)/medseg phantom $(PHANTOM)/cases --cases 25
	$(BIN)/medseg train phantom_lungs $(PHANTOM)/cases/manifest.csv -o $(PHANTOM)/run
	cp $(PHANTOM)/run/model.safetensors medseg/models/phantom_lungs.safetensors

graphs: $(READY)  ## Export the graphs of lung_ct and lung_ct_context again, after weights have changed
	$(BIN)/python benchmarks/shipped_graphs.py

clean:  ## Remove the environment, caches and demo-out; runs/ stays
	rm -rf $(VENV) demo-out .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache .coverage .coverage.*

$(READY): pyproject.toml | $(BIN)/pip
	@echo "Installing medseg into $(VENV): some minutes the first time."
	$(PIP) -e .
	@touch $@

$(READY_DEV): pyproject.toml | $(BIN)/pip
	@echo "Installing medseg and its development tools into $(VENV): some minutes the first time."
	$(PIP) -e '.[dev]'
	@touch $(READY) $@

$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) here; install Python >= 3.11, or make PYTHON=/path/to/python ..."; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "error: medseg needs Python >= 3.11, $(PYTHON) is %d.%d; try make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
