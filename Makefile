# `make help` lists what can be made.

VENV ?= .venv
SCALE ?= laptop
EXPERIMENT ?= table1
OUTPUT_DIR ?= reproduce_$(SCALE)

# A name may exist and not run (pyenv), or lack venv (Debian). On 3.13 a part is
# compiled, so it is not the first choice.
PYTHONS = $(or $(PYTHON),python3.12 python3.13 python3.11 python3)
IS_GOOD = import sys, ensurepip, venv; \
  sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed
CONSTRAINTS = -c constraints.txt
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet \
  $(CONSTRAINTS)

.PHONY: help reproduce test fast-test test-all-pythons test-newest lint \
  wheel-test install torture site readme-figures clean distclean
.DEFAULT_GOAL := help

help: ## Show this.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 29
	@echo 'Variables: SCALE=smoke|laptop OUTPUT_DIR=DIR PYTHON=python3.12'

reproduce: $(INSTALLED) ## Run the paper's pipeline and write its report.
	$(BIN)/gqa-t5x reproduce --scale $(SCALE) --experiment $(EXPERIMENT) \
	  --output_dir $(OUTPUT_DIR)

test: lint ## Lint, all tests, and the wheel from an empty directory.
	@# What takes longest first: files with few tests, which xdist keeps for last.
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	  --nbmake --nbmake-timeout=1800 notebooks tests
	$(MAKE) wheel-test

fast-test: $(INSTALLED) ## The tests that are not marked slow.
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-all-pythons: ## The fast tests with each Python that is here.
	@for version in 3.11 3.12 3.13; do \
	  if python$$version -c '$(IS_GOOD)' 2>/dev/null; then \
	    $(MAKE) fast-test VENV=.venv-$$version PYTHON=python$$version || exit; \
	  else \
	    echo "no python$$version here"; \
	  fi; \
	done

test-newest: ## The fast tests with the newest versions of all packages.
	$(MAKE) fast-test VENV=.venv-newest CONSTRAINTS=--upgrade

lint: $(INSTALLED) ## Check the style.
	$(BIN)/python -m ruff check .

wheel-test: $(INSTALLED) ## Build the wheel and run it from an empty directory.
	.ci/wheel-test $(BIN)/python

install: $(INSTALLED) ## Make the environment in .venv.

# The stamp comes last: an interrupted installation is taken up again.
$(INSTALLED): constraints.txt setup.py
	@for python in $(PYTHONS); do \
	  if "$$python" -c '$(IS_GOOD)' 2>/dev/null; then \
	    echo "Installing into $(VENV) with $$python: some minutes, 3.5 GB"; \
	    test -x $(BIN)/python || "$$python" -m venv $(VENV); \
	    exit; \
	  fi; \
	done; \
	echo "gqa_t5x needs Python 3.11, 3.12 or 3.13 with venv, tried:" \
	  "$(PYTHONS); install one, or: make PYTHON=/path/to/python3.12" >&2; \
	exit 1
	@# seqio's only dependency without a wheel for Python 3.13.
	$(PIP) editdistance 2>/dev/null || $(PIP) ./.ci/editdistance
	$(PIP) -e '.[all]'
	@touch $@

torture: $(INSTALLED) ## Kill commands, fill their disks; over half an hour.
	TORTURE=1 $(BIN)/python -m pytest tests/test_disks.py
	$(BIN)/python -m tests.torture --output results/torture.json

site: $(INSTALLED) ## Build docs/ as a web site in site/.
	$(BIN)/python -m mkdocs build --quiet

readme-figures: $(INSTALLED) ## Fill README's and docs' tables from results/.
	$(BIN)/python -m gqa_t5x.experiments.documents

clean: ## Remove what tests and builds leave.
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove the environment too.
	rm -rf $(VENV)
