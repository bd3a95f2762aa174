"""The memory that a conversion needs follows from the shapes of weights."""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from spikeplug.conversion.whole.needs import memory_needed


def needed(model: nn.Module, calibrated: bool = True, mapped: bool = False) -> int:
    return memory_needed(model, calibrated, mapped)


def test_what_counts() -> None:
    nothing = needed(nn.Module())
    with torch.device("meta"):
        square, wide, thrice = nn.Linear(4096, 4096, False), Conv1D(8, 40_000), nn.ModuleList()
        thrice.extend(nn.Linear(4096, 4096, False) for _ in range(3))
        table = nn.Embedding(1000, 4096)
    weights = 4096 * 4096
    # Without calibration: float32 weights, and one of them in float64; each further layer adds its weights alone.
    assert needed(square, calibrated=False) - nothing == 4 * weights + 8 * weights
    assert needed(thrice, calibrated=False) - nothing == 3 * 4 * weights + 8 * weights
    assert needed(square, calibrated=False, mapped=True) - nothing == weights + 8 * weights
    # With it: the Hessian of the widest input, whatever the number of outputs. A table has none.
    assert needed(square) > needed(square, calibrated=False)
    assert needed(table) == needed(table, calibrated=False)
    assert needed(wide) - nothing > 4 * 8 * 40_000**2
