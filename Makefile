# Everything runs in .venv, which the first target that needs it creates. To start afresh: make clean.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PYTEST_ARGS ?=
# Processes that share the tests. Those of NNI's experiments mostly wait.
TEST_PROCESSES ?= 2

BIN := $(VENV)/bin
INPUTS := setup.py pyproject.toml constraints.txt nni_supernet_ext/_compat/startup.py
# torch==2.13.0 also admits a local CPU build such as 2.13.0+cpu, and pip prefers it where it can see one.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo_digits.py

test: $(VENV)/.installed-for-tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-for-tests
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

bench: $(VENV)/.installed-for-tests
	$(BIN)/python benchmarks/overhead.py

clean:
	rm -rf $(VENV)

$(VENV)/.installed: $(INPUTS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	touch $@

$(VENV)/.installed-for-tests: $(VENV)/.installed
	$(INSTALL) '.[test,benchmark]'
	touch $@
