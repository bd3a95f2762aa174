"""Operators that treat each vector on its own: one kernel over all rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spikeplug.kernels.cpu.launch import launch
from spikeplug.kernels.cpu.memory import floats, integers
from spikeplug.kernels.cpu.verbs import inlined


@inlined
def rows_of(block):
    """(x, its bits, output) of a block that `by_rows` made: words 5 to 7 are x, output and the width."""
    rows, width = block[0], block[7]
    return floats(block[5], rows, width), integers(block[5], rows, width), floats(block[6], rows, width)


def by_rows(kernel: Any, x: Tensor, *words: Tensor | int | float) -> Tensor | None:
    """The kernel over the vectors along the last dimension of x; x's shape and dtype.

    None if a row has what the kernel leaves to the closed form: NaN, infinities, saturations. Those are computed, and
    counted, in one place only.
    """
    rows = x.to(torch.float32).contiguous()
    output = torch.empty_like(rows)
    width = x.shape[-1]
    if launch(kernel, rows.numel() // width, width, rows, output, width, *words):
        return None
    return output.to(x.dtype)
