# Kinema's commands; `make` lists them. Everything that they make stands in .venv, or outside the clone:
# the control plane of the tests in $KINEMA_CACHE (default ~/.cache/kinema), Go's own caches where Go keeps them.

.POSIX:
.SUFFIXES:
.DELETE_ON_ERROR:

VENV = .venv
BIN = $(VENV)/bin
UV = uv

# The first interpreter that Kinema runs on; python3 where there is none, so that the message names it.
PYTHON = $$(for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo "$$python" && exit; done; echo python3)

.PHONY: help demo test lint bench bench-optimizer bench-extender fidelity soak demo-cluster docs lock clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F '|' '{ printf "%-21s %s\n", $$1, $$2 }'

demo: $(VENV)/.runtime ## one whole iteration on a simulated cluster: no cluster, no cloud account
	@$(BIN)/kinema simulate

test: $(VENV)/.development ## every test; builds a real control plane with Go on first use
	@$(BIN)/python -m pytest -m "not soak" -rs

lint: $(VENV)/.development ## style, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.development ## short benchmarks: plans of small clusters, a few minutes
	@$(BIN)/python -m benchmarks.optimizer --short --time-limit 15 --verify-limit 20 --naive-limit 20

bench-optimizer: $(VENV)/.development ## every plan and what it is compared with, an hour; ARGS="--only solvers" for a part
	@$(BIN)/python -m benchmarks.optimizer $(ARGS)

fidelity: $(VENV)/.development ## 2,000 pods rolled on a real control plane, an hour; ARGS="--only two-plans" for a part
	@$(BIN)/python -m tests.controlplane.fidelity $(ARGS)

bench-extender: $(VENV)/.development ## the real scheduler with and without the extender, an hour; ARGS="--short" for a minute
	@$(BIN)/python -m benchmarks.extender $(ARGS)

soak: $(VENV)/.development ## long runs: thousands of seeds
	@$(BIN)/python -m pytest -m soak -rs

demo-cluster: $(VENV)/.development ## the iteration, live on a real control plane; up for kubectl until Ctrl-C
	@$(BIN)/python -m tests.controlplane.demo

docs: $(VENV)/.development ## write docs/settings.md again
	@$(BIN)/python -m tools.document_settings

lock: ## pin every dependency again, with hashes (needs uv)
	@for part in "requirements.lock" "requirements-dev.lock --group dev"; do \
	$(UV) pip compile pyproject.toml --quiet --extra planner --extra gcp --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file $$part \
	|| exit; done

clean: ## remove what the other commands made in the clone
	@rm -rf $(VENV) build dist kinema.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The stamps: a second run finds them newer than the locks and installs nothing.
$(VENV)/.runtime: requirements.lock pyproject.toml tools/install
	@echo "Installing into $(VENV) (once, about a minute) …"
	@PYTHON="$(PYTHON)" tools/install packages $(VENV) requirements.lock
	@tools/install project $(VENV) -e
	@touch $@

$(VENV)/.development: requirements-dev.lock pyproject.toml tools/install
	@echo "Installing into $(VENV) (once, about a minute) …"
	@PYTHON="$(PYTHON)" tools/install packages $(VENV) requirements-dev.lock
	@tools/install project $(VENV) -e
	@touch $@
