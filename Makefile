# Everything runs in .venv. The stamp files in it say what is installed, so a second `make` installs nothing.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
FUZZ_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help install train test test-long coverage test-pytorch faults fuzz mutation lint bench clean
.DELETE_ON_ERROR:

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

install: .venv/.installed ## create .venv and install the package

train: .venv/.installed .venv/.installed-quickstart ## train, evaluate and export the quickstart (configs/quickstart.yaml)
	$(BIN)/tfmlm train configs/quickstart.yaml

test: .venv/.installed-dev .venv/.installed-quickstart ## run the tests of minutes; ARGS="-k masking" runs some
	$(BIN)/pytest -m "not long" $(ARGS)

test-long: .venv/.installed-dev .venv/.installed-quickstart ## run the others: kills, several workers, whole runs, browsers
	$(BIN)/pytest -m long $(ARGS)

# Not a part of the two above: on Python 3.11 it makes all code half again as slow.
coverage: .venv/.installed-dev .venv/.installed-quickstart ## run both with coverage, which must reach 97 %
	$(BIN)/pytest --cov $(ARGS)

test-pytorch: .venv/.installed-dev .venv-pytorch/.installed ## compare model folders with PyTorch and transformers 5, and run the card's code there
	TFMLM_PYTORCH_PYTHON=.venv-pytorch/bin/python $(BIN)/pytest -n 0 tests/training/test_pytorch.py tests/hub/card/test_usage.py

faults: .venv/.installed-dev ## bring about every fault of the README's table, 20 kills among them, and print it
	TFMLM_KILLS=20 $(BIN)/pytest -n 0 -m fault

fuzz: .venv/.installed-dev ## fuzz the configuration loader and the reader of shards, FUZZ_SECONDS (600) in all
	TF_CPP_MIN_LOG_LEVEL=3 TFMLM_FUZZ_SECONDS=$$(($(FUZZ_SECONDS) / 2)) $(BIN)/pytest -n 0 -s tests/test_config_fuzz.py tests/data/test_shard_fuzz.py

mutation: .venv/.installed-mutation ## change masking, packing, loss and checkpoints in one place at a time: do the tests notice?
	$(BIN)/python -m tests.mutation $(ARGS)

lint: .venv/.installed-dev ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.installed .venv/.installed-quickstart ## measure ours against the stock recipe
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove .venv and caches; runs/ and saved_models/ stay, they hold results
	rm -rf .venv .venv-pytorch build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find tfmlm tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

.venv/.installed-mutation: .venv/.installed-dev
	$(PIP) -c constraints.txt -e '.[mutation]'
	@touch $@

# --no-deps: requirements/quickstart.txt gives the reason.
.venv/.installed-quickstart: requirements/quickstart.txt .venv/.installed
	$(PIP) --no-deps --require-hashes -r requirements/quickstart.txt
	@touch $@

.venv-pytorch/.installed:
	$(PYTHON) -m venv .venv-pytorch
	.venv-pytorch/bin/python -m pip install --disable-pip-version-check torch==2.13.0 transformers==5.24.0
	@touch $@
