# `make` alone lists the targets. Everything runs in .venv, which is set up from the requirements when they change.
PYTHON ?= $(shell for each in python3.11 python3.12 python3.13 python3; do \
	$$each -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$each && break; done)
VENV := .venv
BIN := $(VENV)/bin
# What Kaggle and Colab have, in an environment of its own: on their Python, else on the newest there is.
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions
FLOOR_PYTHON ?= $(shell for each in python3.12 $(wildcard $(PYENV)/3.12.*/bin/python) python3.13 \
	$(wildcard $(PYENV)/3.13.*/bin/python) $(PYTHON); do $$each -c pass 2>/dev/null && echo $$each && break; done)
FLOOR := .venv-floor
# Test files at a time, whose fixtures are made once a file: three on two cores, as many tests wait for something; of the
# slow ones two. ARGS="-n 0" runs one after the other.
SIDE_BY_SIDE := -n 3 --dist loadfile
# About this repository, processes and plain files: the same on any version of what is in it.
NOT_ON_FLOOR := package parallel cluster store pcm ration device_several sample stages chance reliability fuzz benchmarks recorders \
	detections sites wheel kernels kaggle_places kaggle_push kaggle_session kaggle_wheels report_browser
# What computes on the device, but for the building of Keras' own backbones.
ON_THE_DEVICE := layers models batches training classifier

.DEFAULT_GOAL := help
.PHONY: help run pictures test test-all test-floor test-jax lint format notebooks drift bench fuzz soak audit

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.run: requirements.txt pyproject.toml
	$(if $(PYTHON),,$(error no Python 3.11, 3.12 or 3.13 was found; name one: make PYTHON=/path/to/python3.11))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	touch $@

run: $(VENV)/.run ## run the six notebooks on the sample data set (ARGS="--config paper --data-dir DIR" for others)
	$(BIN)/birdlib run $(ARGS)

pictures: run ## draw the README's picture again, from the sample data set
	cp runs/sample/figures/06_soundscape.png docs/images/soundscape.png

test: $(VENV)/.dev ## run the fast tests
	$(BIN)/pytest $(SIDE_BY_SIDE) $(ARGS)

test-all: test test-jax test-floor ## run all tests: the fast ones, those under jax and on the floor, and the slow ones
	$(BIN)/pytest -n 2 --dist loadfile -m slow $(ARGS)

test-jax: $(VENV)/.dev ## run the tests of what computes on the device under jax
	KERAS_BACKEND=jax $(BIN)/pytest $(SIDE_BY_SIDE) $(ON_THE_DEVICE:%=tests/test_%.py) \
		-k "not backbones_build and not weights_file and not preprocessing_is_the_backbones_own"
	KERAS_BACKEND=jax $(BIN)/pytest -m slow tests/test_training.py -k everything_on_the_device

$(FLOOR)/.floor: requirements-floor.txt
	$(if $(FLOOR_PYTHON),,$(error no Python 3.11, 3.12 or 3.13 was found; name one: make test-floor FLOOR_PYTHON=/path/to/it))
	$(FLOOR_PYTHON) -m venv --clear $(FLOOR)
	$(FLOOR)/bin/pip install --quiet --requirement requirements-floor.txt
	touch $@

test-floor: $(FLOOR)/.floor ## run the tests and the tiny series on what Kaggle and Colab have
	@echo "the floor: $$($(FLOOR)/bin/python -V), TensorFlow, Keras and the rest as in requirements-floor.txt"
	PYTHONPATH=$(CURDIR) $(FLOOR)/bin/python -m pytest $(SIDE_BY_SIDE) $(NOT_ON_FLOOR:%=--ignore=tests/test_%.py) $(ARGS)

lint: $(VENV)/.dev ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(VENV)/.dev ## derive the .ipynb files from their .py sources
	$(BIN)/python tools/derive_notebooks.py

drift: notebooks ## fail if an .ipynb is not what its source gives
	@git status --porcelain -- 'notebooks/*.ipynb'
	@test -z "$$(git status --porcelain -- 'notebooks/*.ipynb')"

bench: $(VENV)/.dev ## run a benchmark of benchmarks/ (make bench ONLY=input)
	$(if $(ONLY),,$(error name one: make bench ONLY=input))
	$(BIN)/python benchmarks/$(ONLY).py $(ARGS)

fuzz: $(VENV)/.dev ## throw mutated audio files at the decoder (make fuzz ARGS="--cases 20000 --seed 1")
	$(BIN)/python tools/fuzz_audio.py $(ARGS)

soak: $(VENV)/.dev ## kill a run at random moments and compare its results (make soak ARGS="--kills 50")
	$(BIN)/python tools/soak.py $(ARGS)

audit: $(VENV)/.dev ## look the installed packages up in the database of known vulnerabilities
	$(BIN)/pip freeze --exclude-editable > $(VENV)/installed.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement $(VENV)/installed.txt
