"""Test every way of running a converted model: each is right, or is refused with a sentence. There is no third."""

from __future__ import annotations

import pytest
import torch
from all_ways import WAYS
from way import Way, judge


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("way", [way for group in WAYS.values() for way in group], ids=lambda way: way.name)
def test_right_or_refused(way: Way) -> None:
    verdict = judge(way)
    assert verdict.kind == ("refused" if way.refused else "right"), verdict.detail
