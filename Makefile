# Everything here sets itself up: a fresh machine needs Python 3.11 to 3.13 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# pip reads the lock as constraints: it says which version, pyproject says which packages.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c requirements.lock $(TORCH)

# Tests start dozens of processes that import the package: they compile it once.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help lab demo browser test docs soak lint checkpoints bench lock clean

help:  ## show this list
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' Makefile | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] < (3, 14) or sys.exit("Python 3.11 to 3.13 is needed, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml requirements.lock | $(BIN)/python
	$(INSTALL) -e ".[city,text]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) -e ".[app,city,cluster,text,hf,docs,dev]"
	@touch $@

lab: $(VENV)/.installed  ## open the start page in JupyterLab
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir=. notebooks/00_start.ipynb

demo: $(VENV)/.installed  ## the same without a browser: report, figures and table in demo/
	$(BIN)/nextlat-viz demo

lint: $(VENV)/.installed-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

browser: $(VENV)/.installed-dev
	$(BIN)/python tests/browser/chromium.py

# The browser is looked for first: what is missing is reported before the minutes of tests. mypy takes one core for a
# minute, so it runs beside the tests. A third process has the cores busy while the browser's waits.
test: browser  ## everything: lint, unit tests, doctests, notebooks, and JupyterLab in Chromium
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@nice $(BIN)/mypy & types=$$!; \
	  $(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder; tests=$$?; \
	  wait $$types || { echo "mypy failed: its errors are above, or run make lint"; exit 1; }; exit $$tests

docs: $(VENV)/.installed-dev  ## build the documentation site in build/docs; warnings are errors
	$(BIN)/python docs/build.py

soak: $(VENV)/.installed-dev  ## endurance tests at full length: thousands of events, every kill point, every mutation
	$(BIN)/pytest --soak -m soak

checkpoints: $(VENV)/.installed  ## train everything that is shipped again (hours; `python checkpoints/build.py --list` says how many)
	$(BIN)/python checkpoints/build.py

bench: $(VENV)/.installed-dev  ## every claim of speed, each beside what a user would use instead
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/worlds.py
	$(BIN)/python benchmarks/extract.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/probes.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/widgets.py 2000 100000
	$(BIN)/python benchmarks/studio.py

lock: pyproject.toml  ## resolve the newest versions afresh into requirements.lock
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --disable-pip-version-check $(TORCH) ".[app,city,cluster,text,hf,docs,dev]"
	(echo '# What the project was tested with: constraints for pip, so it serves every platform. Made by `make lock`.'; \
	  build/lock/bin/python -m pip freeze --all --exclude pip --exclude nextlat-viz | sed -E 's/\+[a-z0-9.]+$$//') > build/requirements.lock
	mv build/requirements.lock requirements.lock
	rm -rf build/lock

clean:  ## remove the environment, caches and build products
	rm -rf $(VENV) build dist artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
