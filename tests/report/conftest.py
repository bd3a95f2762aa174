"""One run of every study on the tiny model, and one on its whole form, shared by all tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import save_tiny_model
from tiny_report import WHOLE, run_tiny

from spikeplug.report import RunFolder


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> RunFolder:
    return run_tiny(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="session")
def finished_whole(tmp_path_factory) -> RunFolder:
    return run_tiny(tmp_path_factory.mktemp("report") / "run", recipe=WHOLE)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))
