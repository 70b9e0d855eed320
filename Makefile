# Everything here works from a bare checkout with nothing but Python >= 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: help demo test check check-scale check-engine fix docs toybox clean

help:            ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.installed   ## install, then the six methods on the toybox: out/demo/index.html
	$(BIN)/scumble demo -o out/demo

test: $(VENV)/.developer   ## install, then run the whole test suite
	$(if $(CHROMIUM),,@echo "No chromium is here, so the browser tests are left out.")
	$(BIN)/python -m pytest -n auto $(if $(CHROMIUM),,-m "not browser")

check: $(VENV)/.developer  ## style, types, layers, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check-scale: $(VENV)/.developer  ## what needs the extra "scale": Ray Data, parquet, WebDataset
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[scale]'
	$(BIN)/python -m pytest tests/scale/check_scale.py

check-engine: $(VENV)/.developer  ## the data engine at size: 400 pairs, killed five times, the same bytes
	PYTHONPATH=tests $(BIN)/python -m pytest -s tests/scale/check_engine.py

fix: $(VENV)/.developer    ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.developer   ## serve the documentation on localhost
	$(BIN)/mkdocs serve

toybox: $(VENV)/.installed ## train the toybox from nothing (hours on a CPU, minutes a stage on a GPU)
	$(BIN)/python -m recipes.toybox.run --stage all

clean:           ## remove the environment and everything built
	rm -rf $(VENV) build dist site out src/*.egg-info

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.developer: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]'
	@touch $@ $(VENV)/.installed
