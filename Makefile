PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
FOLDERS := $(shell find snn_deploy exporters hw_profiles -type d -not -name __pycache__)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q install -c constraints.txt

.PHONY: demo test lint bench clean

# The demo needs the training extra, the tests a few packages more; each has its own stamp.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt $(FOLDERS) | $(VENV)/bin/python
	$(PIP) -e '.[train]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(FOLDERS) | $(VENV)/bin/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: pyproject.toml constraints.txt $(FOLDERS) | $(VENV)/bin/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.test $(VENV)/.demo
