"""Shared by all tests: a thread for each process of tests, a clean ledger before each test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("COLUMNS", None)  # lines are as wide as without a terminal, also in a process of pytest-xdist
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def one_thread_of_several() -> None:
    """Give each of several processes of tests (pytest-xdist) one thread, which its subprocesses do not inherit."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def clean_ledger() -> Iterator[None]:
    """Saturations of one test must not be seen by another."""
    from spikeplug.saturation import reset_saturations

    reset_saturations()
    yield
    reset_saturations()
