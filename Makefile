# The two commands of the README are `make demo` and `make test`; either may come first on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# What a profile is installed from: a change here installs it again.
NEEDS := pyproject.toml constraints.txt

.PHONY: help demo test lint bench clean

help:
	@echo "make demo    simulate, inspect and report a small lot -> runs/demo/report.html"
	@echo "make test    run the tests"
	@echo "make lint    style, types and the import contracts"
	@echo "make bench   measure speed beside the named peers"
	@echo "make clean   remove the environment, caches and runs"

demo: $(VENV)/installed-base
	$(BIN)/python -m waferlens demo --out runs/demo

# One thread a worker: two workers with two threads each would only wait for one another.
test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-test
	$(BIN)/python benchmarks/hole_networks.py
	$(BIN)/python benchmarks/simulate_hole.py
	$(BIN)/python benchmarks/simulate_package.py
	$(BIN)/python benchmarks/package_networks.py
	$(BIN)/python benchmarks/inspect_lot.py runs/bench --images 10000
	$(BIN)/python benchmarks/level_range_rms.py
	$(BIN)/python benchmarks/registration.py
	$(BIN)/python benchmarks/golden_ops.py
	$(BIN)/python benchmarks/simulate_wafer.py
	$(BIN)/python benchmarks/gridding.py
	$(BIN)/python benchmarks/sync.py
	$(BIN)/python benchmarks/inspect_swath.py runs/bench-swath --bundle wafer-fast

# The stamps lie inside the environment, so that whoever removes it removes them too.
$(VENV)/installed-base: $(NEEDS) | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/installed-test: $(NEEDS) | $(BIN)/python
	$(PIP) -e '.[train,formats,sam,dev]'
	touch $@ $(VENV)/installed-base

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "waferlens needs Python 3.11 or newer; name one: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) runs build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
