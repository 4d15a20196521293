# Everything a newcomer needs: `make demo`, `make test`. Each sets the environment up first.
.DEFAULT_GOAL := help
.PHONY: help setup demo test thorough faults bench lint audit format ui clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv from the machine, else from PyPI into a folder of its own
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
STAMP := $(VENV)/.complete

help: ## Show this help
	@echo "crossreg: train once, get the regularization learned"; echo
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Build the environment in .venv from the lock file

demo: $(STAMP) ## Compare one run that learns its regularization with a tuned population, on handwritten digits
	@$(BIN)/python -m crossreg.jobs.demo $(DEMO)

# three files at a time, of one thread each: a file waits for processes to start while another computes. What takes
# longer than `timeout` in pyproject.toml fails; what Python cannot interrupt ends the run a little later, and is named.
# Ray's workers, which are nice to all others, would starve beside tests that compute
TEST := env OMP_NUM_THREADS=1 RAY_worker_niceness=0 $(BIN)/python -m pytest
test: $(STAMP) ## Run the tests (PYTEST="-m 'not slow'" passes options on)
	exec $(TEST) --numprocesses 3 --dist loadfile --no-loadscope-reorder \
	  --max-worker-restart 0 -o faulthandler_timeout=1500 -o faulthandler_exit_on_timeout=true $(PYTEST)

thorough: $(STAMP) ## Run the longest of the tests, which `make test` leaves out (ten minutes)
	exec $(TEST) -m thorough --numprocesses 3 --dist loadfile $(PYTEST)

faults: $(STAMP) ## Start a whole cluster and break it in every way we know (an hour and a half; needs PostgreSQL)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults --timeout 3600 $(PYTEST)

bench: $(STAMP) ## Measure what noise, rho steps, Ray and tracking cost, against their goals (half an hour; an idle machine)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(BENCH)

lint: $(STAMP) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(STAMP) ## Ask which locked dependencies have known vulnerabilities
	@$(UV) export --frozen --no-emit-project --no-hashes --all-extras --quiet | $(BIN)/python .ci/audit.py

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: $(STAMP) ## Open the MLflow UI on the runs made here
	@$(BIN)/crossreg ui

clean: ## Remove the environment and caches; runs stay
	rm -rf $(VENV) .uv .pytest_cache .mypy_cache .ruff_cache

.uv/bin/uv:
	@echo "uv is missing; fetching it from PyPI"
	@$(PYTHON) -m venv .uv >/dev/null 2>&1 && .uv/bin/python -m pip install --quiet uv \
	  || { rm -rf .uv; $(PYTHON) -m pip install --quiet --target .uv uv; } \
	  || { echo "cannot fetch uv: $(PYTHON) has neither venv nor pip; install uv and try again" >&2; exit 1; }

$(STAMP): pyproject.toml uv.lock $(filter .uv/bin/uv,$(UV))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(UV) sync --locked --python $(PYTHON) --compile-bytecode --quiet
	@touch $@
