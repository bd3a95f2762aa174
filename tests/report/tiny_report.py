"""Runs of a report on the tiny model."""

from __future__ import annotations

from pathlib import Path

from tiny_model import byte_tokenizer, tiny_model

from spikeplug.measurement.recipes import Recipe
from spikeplug.report import RunFolder, Settings, run

FACTS = {"name": "tiny", "type": "llama", "parameters": 1, "dtype": "float32"}
SETTINGS = {"context": 16, "tokens": 32, "quick": True}
WHOLE = Recipe(name="whole", tokens=64)


def run_tiny(out: Path, progress=None, **settings) -> RunFolder:
    """Run the studies of the settings on the tiny model into `out`."""
    return run(tiny_model(), byte_tokenizer(), Settings(**{**SETTINGS, **settings}), out, FACTS, progress)
