# Everything runs in .venv. The stamp files in it say what is installed, so a second `make` installs nothing.

# The newest of the three that is tested with and that starts: a name on the path may be pyenv's, of none.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c '$(FITS)' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
SMOKE := build/smoke/$(notdir $(VENV))
FUZZ_SECONDS ?= 600
FUZZED := tests/config/test_load.py tests/config/test_known_tokens.py tests/data/test_shard_fuzz.py \
	tests/data/test_tokenizer_fuzz.py tests/training/test_config_fuzz.py tests/preview/test_rest_fuzz.py

.DEFAULT_GOAL := help
.PHONY: help install train test test-long coverage test-pytorch architectures faults fuzz mutation smoke lint bench clean
.DELETE_ON_ERROR:

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

install: $(VENV)/.installed ## create .venv and install the package

train: $(VENV)/.installed $(VENV)/.installed-quickstart ## train, evaluate and export the quickstart (configs/quickstart.yaml)
	$(BIN)/tfmlm train configs/quickstart.yaml

test: $(VENV)/.installed-dev $(VENV)/.installed-quickstart ## run the tests of minutes; ARGS="-k masking" runs some
	$(BIN)/pytest -m "not long" $(ARGS)

test-long: $(VENV)/.installed-dev $(VENV)/.installed-quickstart ## run the others: kills, several workers, whole runs, browsers
	$(BIN)/pytest -m long $(ARGS)

# Not a part of the two above: on Python 3.11 it makes all code half again as slow.
coverage: $(VENV)/.installed-dev $(VENV)/.installed-quickstart ## run both with coverage, which must reach 97 %
	$(BIN)/pytest --cov $(ARGS)

test-pytorch: $(VENV)/.installed-dev .venv-pytorch/.installed ## compare model folders with PyTorch and transformers 5, and run the card's code there
	TFMLM_PYTORCH_PYTHON=.venv-pytorch/bin/python $(BIN)/pytest -n 0 tests/training/test_pytorch.py tests/hub/card/test_usage.py

architectures: $(VENV)/.installed-dev .venv-pytorch/.installed ## take every architecture the whole way, and write docs/architectures.md
	TF_CPP_MIN_LOG_LEVEL=3 TFMLM_PYTORCH_PYTHON=.venv-pytorch/bin/python $(BIN)/python -m tests.training.whole_way docs/architectures.md

faults: $(VENV)/.installed-dev ## bring about every fault of the README's table, 20 kills among them, and print it
	TFMLM_KILLS=20 $(BIN)/pytest -n 0 -m fault

fuzz: $(VENV)/.installed-dev ## fuzz what reads configurations, shards, tokenizers, models and requests, FUZZ_SECONDS (600) in all
	TF_CPP_MIN_LOG_LEVEL=3 TFMLM_FUZZ_SECONDS=$$(($(FUZZ_SECONDS) / $(words $(FUZZED)))) $(BIN)/pytest -n 0 -s --show-capture=no $(FUZZED)

mutation: $(VENV)/.installed-mutation ## change masking, packing, loss and checkpoints in one place at a time: do the tests notice?
	$(BIN)/python -m tests.mutation $(ARGS)

smoke: $(VENV)/.installed ## install, a tiny run, an export and answers; VENV=.venv-3.13 PYTHON=python3.13 tries another Python
	rm -rf $(SMOKE)
	$(BIN)/tfmlm doctor
	$(BIN)/tfmlm train configs/scratch.yaml run.name=smoke run.output_dir=$(SMOKE)/run export.dir=$(SMOKE)/exports \
		export.text_signature=require train.max_steps=20 data.max_rows=2000
	$(BIN)/tfmlm predict $(SMOKE)/run 'Return the [MASK] of the list.' --json
	$(BIN)/tfmlm predict $(SMOKE)/exports/smoke 'Return the [MASK] of the list.' --json

lint: $(VENV)/.installed-dev ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed $(VENV)/.installed-quickstart ## measure ours against the stock recipe
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove .venv and caches; runs/ and saved_models/ stay, they hold results
	rm -rf .venv .venv-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find tfmlm tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo 'Python 3.11, 3.12 or 3.13 is needed; say where: make PYTHON=/path/to/python3' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.installed-mutation: $(VENV)/.installed-dev
	$(PIP) -c constraints.txt -e '.[mutation]'
	@touch $@

# --no-deps: requirements/quickstart.txt gives the reason.
$(VENV)/.installed-quickstart: requirements/quickstart.txt $(VENV)/.installed
	$(PIP) --no-deps --require-hashes -r requirements/quickstart.txt
	@touch $@

.venv-pytorch/.installed:
	$(PYTHON) -m venv .venv-pytorch
	.venv-pytorch/bin/python -m pip install --disable-pip-version-check torch==2.13.0 transformers==5.24.0
	@touch $@
