PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
FOLDERS := $(shell find snn_deploy exporters hw_profiles -type d -not -name __pycache__)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q install -c constraints.txt

.PHONY: demo test slow peers peers-full mutants lint bench clean

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

demo: $(VENV)/.demo
	@mkdir -p demo
	@echo "== train: a spiking conv net with ASGL on handwritten digits"
	$(BIN)/snn-deploy train examples/digits.toml -o demo/model.pt
	@echo; echo "== export for Loihi 2"
	$(BIN)/snn-deploy export demo/model.pt --target loihi2 -o demo/build
	@echo; echo "== replay the whole test split through the event-driven simulator"
	$(BIN)/snn-deploy sim demo/build --input demo/digits-test.npz
	@echo; echo "== train/deploy parity"
	$(BIN)/snn-deploy verify demo/build --model demo/model.pt --input demo/digits-test.npz \
	  --max-accuracy-drop 0.5
	@echo; echo "== energy per layer"
	$(BIN)/snn-deploy energy demo/build --input demo/digits-test.npz \
	  --profile loihi1-davies2018 --host-profile cmos45
	@echo; echo "The files are in demo/: model.pt, digits-test.npz and build/."

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2

# The papers' networks in full; takes a quarter of an hour.
slow: $(VENV)/.test
	$(BIN)/python -m pytest -n 1 -m slow

# Other people's software that ours is compared with, each in an environment of its own.
PEERS_PYTHON ?= python3.11
.peers/lava/.made: tests/peers/lava-requirements.txt
	rm -rf .peers/lava && $(PEERS_PYTHON) -m venv .peers/lava \
	  && .peers/lava/bin/python -m pip --disable-pip-version-check -q install \
	       --no-deps --ignore-requires-python -r $< \
	  && touch $@

.peers/training/.made: benchmarks/training-requirements.txt
	rm -rf .peers/training && $(PEERS_PYTHON) -m venv .peers/training \
	  && .peers/training/bin/python -m pip --disable-pip-version-check -q install --no-deps -r $< \
	  && touch $@

# Lava runs in its own process; the packages of .peers/training come after ours on the path, and so
# must be made with the same Python.
peers: $(VENV)/.test .peers/lava/.made .peers/training/.made
	SNN_DEPLOY_LAVA_PYTHON=$(CURDIR)/.peers/lava/bin/python \
	  SNN_DEPLOY_MODULES="$$(echo $(CURDIR)/.peers/training/lib/python3.*/site-packages)" \
	  $(BIN)/python -m pytest tests/peers -n 2 -rP

# Plants wrong rules in copies of the project; takes half an hour.
mutants: $(VENV)/.test
	$(BIN)/python -m tests.mutation.planted

peers-full: export SNN_DEPLOY_PEER_NETS := 200
peers-full: peers

# The exporters and profiles live in top-level folders but are installed inside the package; type
# checkers follow files, so they are shown the package as it is installed.
lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf .types && mkdir -p .types
	cp -rs $(CURDIR)/snn_deploy .types/
	cp -rs $(CURDIR)/exporters $(CURDIR)/hw_profiles .types/snn_deploy/
	cd .types && ../$(BIN)/mypy --config-file ../pyproject.toml -p snn_deploy

# Eight minutes for the table, the rest as long again; `python -m benchmarks --quick` for less.
bench: $(VENV)/.test .peers/training/.made .peers/lava/.made
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.onnx_engine
	PYTHONPATH=$(CURDIR) .peers/training/bin/python benchmarks/training.py

clean:
	rm -rf .venv .peers .types build demo dist *.egg-info
