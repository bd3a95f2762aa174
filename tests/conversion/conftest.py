"""Run each test of this folder on one thread. The fixture `family` runs a test once per model type."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)
