"""One run of every study on the tiny model, shared by all tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import byte_tokenizer, save_tiny_model, tiny_model

from spikeplug.report import RunFolder, Settings, run

FACTS = {"name": "tiny", "type": "llama", "parameters": 1, "dtype": "float32"}
SETTINGS = {"context": 16, "tokens": 32, "quick": True}


def run_tiny(out: Path, progress=None, **settings) -> RunFolder:
    return run(tiny_model(), byte_tokenizer(), Settings(**{**SETTINGS, **settings}), out, FACTS, progress)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> RunFolder:
    return run_tiny(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))
