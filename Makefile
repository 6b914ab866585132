# Everything that is done to this project. `make check` is what has to pass.
PYTHON ?= python3
BIN := .venv/bin
# three processes, for a third of the time they wait for programs; one thread each, as the models are small
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist worksteal
CODE := dlrun hydra_plugins tests benchmarks examples deploy
# an existing folder of data sets beside the checkout, if DLRUN_DATA does not say otherwise
export DLRUN_DATA ?= $(abspath $(wildcard ../shared/data))
ifeq ($(DLRUN_DATA),)
unexport DLRUN_DATA
endif

.DEFAULT_GOAL := help
.PHONY: help setup train test check faults fuzz audit dist bench bench-peers bench-all gallery ui clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed ## make .venv and install dlrun into it, every version pinned

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

train: setup ## train on handwritten digits: seconds, no download
	$(BIN)/dlrun train +experiment=digits

test: setup ## run the tests
	$(PYTEST)

check: setup ## format, lint, types and tests, all without a complaint
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(PYTEST)

faults: setup ## cause real faults (kills, full disks, power cuts, bad servers), TRIES=20 of each: hours; docs/faults.md
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m faults tests/faults --tries $(or $(TRIES),20)

fuzz: setup ## give each reader of files from strangers ten minutes of wrong ones (MINUTES=1 READERS="csv png"); hours
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) $(READERS)
	$(if $(READERS),,$(BIN)/python -m tests.fuzz.pages --minutes $(or $(MINUTES),10))

audit: setup ## compare the installed versions with those of known faults (asks a service on the network)
	test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/pip install --quiet pip-audit; }
	$(BIN)/python -m pip freeze --exclude-editable > .venv-audit/installed.txt
	.venv-audit/bin/pip-audit --no-deps --disable-pip --requirement .venv-audit/installed.txt

dist: setup ## make the files of a release, the same bytes from the same commit, with dist/SHA256SUMS
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist .
	cd dist && sha256sum *.whl *.tar.gz > SHA256SUMS && cat SHA256SUMS

bench: setup ## measure what dlrun costs, in a quarter of an hour, into benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

bench-peers: setup .venv-peers/.installed ## measure beside other trainers, in their own .venv-peers: most of an hour
	$(BIN)/python -m benchmarks frameworks processes targets

bench-all: setup .venv-peers/.installed ## measure everything: hours
	$(BIN)/python -m benchmarks --all

.venv-peers/.installed: benchmarks/peers/requirements.txt benchmarks/peers/constraints.txt constraints.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --constraint constraints.txt \
		--constraint benchmarks/peers/constraints.txt --requirement benchmarks/peers/requirements.txt
	touch $@

gallery: setup ## run the studies that take up to 40 minutes each (MINUTES=600); one page of all in outputs/gallery
	$(BIN)/python -m benchmarks.gallery --minutes $(or $(MINUTES),40)

ui: setup ## open MLflow on the runs in outputs/
	$(BIN)/dlrun ui

clean: ## remove what setup made and what tools cached (never outputs/)
	rm -rf .venv .venv-peers .venv-audit .pytest_cache .ruff_cache .mypy_cache build dist
