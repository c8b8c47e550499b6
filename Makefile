.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RIVALS := $(VENV)/.rivals
OLD_TORCHDISTILL := outputs/bench/torchdistill-1.1.4

.PHONY: help install demo test slurm check lint format types docs notebooks site table bench clean

help: ## explain every target
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(STAMP) ## create .venv and install into it; done once, and again when pyproject.toml or constraints change

# Debian keeps the venv module in a package of its own; as root we fetch it, else we say what to do.
$(STAMP): pyproject.toml constraints.txt constraints-dev.txt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q && apt-get install -y -q python3-venv; } \
	  || { echo "python3 has no venv module: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-dev.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## the main job: a teacher, the student alone, the student with KD, on real images; 3 minutes on 2 cores
	$(BIN)/distill

test: $(STAMP) ## all tests but those that need a SLURM cluster
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --durations=40 --durations-min=5 -m 'not slurm'

slurm: $(STAMP) ## the tests on a SLURM cluster of this machine alone, as root on Debian: tests/slurm; 6 minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm -rs

check: lint types ## lint, format check, types and the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not slurm'

lint: $(STAMP) ## lint and format check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## rewrite the code in the house's format, and mend what can be mended by machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## static types
	$(BIN)/mypy

docs: $(STAMP) ## write docs/methods and the README's list of methods from conf/method
	$(BIN)/python -m scripts.make.method_docs

notebooks: $(STAMP) ## run the notebooks of the docs, and store what they put out
	$(BIN)/python -m scripts.make.notebooks

site: $(STAMP) ## build the pages and the reference as a site: outputs/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

table: $(STAMP) ## measure the README's table: five seeds of the default experiment, about 6 minutes on 2 cores
	$(BIN)/python -m scripts.measure.default

# Two versions of torchdistill, since the newer one has no cache. The older one finds its dependencies in the venv.
$(RIVALS): $(STAMP) constraints-bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-bench.txt -e '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(OLD_TORCHDISTILL) torchdistill==1.1.4
	@touch $@

bench: $(RIVALS) ## measure docs/performance.md: step times against torchdistill and a hand-written loop; an idle hour
	$(BIN)/python -m scripts.benchmark

clean: ## remove the environment and caches; runs under outputs/ stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
