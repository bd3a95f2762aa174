"""The example tasks, without lm-eval's own 14 thousand, and a tiny model lm-eval can pad."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")  # before datasets: as HF_HUB_OFFLINE in tests/conftest.py

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_model import byte_tokenizer, save_tiny_model

    path = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = tokenizer.pad_token = "Ā"  # byte 0
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the example tasks, from where their paths start."""
    import datasets
    import lm_eval.tasks
    import lm_eval.utils

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    manager = partial(lm_eval.tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", manager)
    monkeypatch.setattr(lm_eval.utils, "setup_logging", lambda level: None)  # its handler would outlive the test
    return Path("examples", "lm-eval")
