# gqa_t5x: `make` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help reproduce test lint wheel-test clean

SCALE ?= laptop
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
SUPPORTED := import sys, venv, ensurepip; \
  sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
CORE := import gqa_t5x; from gqa_t5x import Transformer; print(gqa_t5x.__file__)

help:  ## List these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' \
	  Makefile
	@echo "PYTHON=python3.12 chooses the Python that makes $(VENV)."

reproduce: $(INSTALLED)  ## The paper's Table 1 on this machine; SCALE=smoke: quick.
	$(RUN) -m gqa_t5x reproduce --scale $(SCALE)

test: lint $(INSTALLED)  ## Lint, all tests, and the wheel from an empty folder.
	$(RUN) -m pytest -q -n 2
	@$(MAKE) --no-print-directory wheel-test

lint: $(INSTALLED)  ## Check the style.
	$(RUN) -m ruff check .

wheel-test: $(INSTALLED)  ## Build the wheel; run it from an empty folder.
	rm -rf build
	$(RUN) -m pip wheel --quiet --no-deps --no-build-isolation \
	  --wheel-dir build/wheel .
	$(RUN) -m pip install --quiet --no-deps --target build/wheel-test \
	  build/wheel/*.whl
	empty=$$(mktemp -d) && trap 'rm -rf "$$empty"' EXIT && cd "$$empty" && \
	  export PYTHONPATH='$(CURDIR)/build/wheel-test' && \
	  '$(CURDIR)/$(RUN)' -c '$(CORE)' | grep -F "$$PYTHONPATH" && \
	  '$(CURDIR)/$(RUN)' -m gqa_t5x reproduce --scale smoke

clean:  ## Remove the environment and what was built.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

# The stamp is written last, so an interrupted installation is taken up again.
$(INSTALLED): constraints.txt setup.py
	@chosen=''; for python in $(or $(PYTHON),python3.13 python3.12 python3.11 \
	  python3); do \
	  if $$python -c '$(SUPPORTED)' >/dev/null 2>&1; then \
	    chosen=$$python; break; fi; done; \
	if [ -z "$$chosen" ]; then \
	  echo 'expected Python 3.11, 3.12 or 3.13 with its venv module, found' \
	    'none; install one, or say where it is: make PYTHON=/path/to/python3.12' \
	    >&2; exit 2; fi; \
	echo "Installing into $(VENV) with $$chosen, once: about 2.5 GB, some" \
	  'minutes.' >&2; \
	if ! $(RUN) -c '$(SUPPORTED)' 2>/dev/null; then \
	  $$chosen -m venv --clear $(VENV); fi
	@$(RUN) -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[all]'
	@touch $@
