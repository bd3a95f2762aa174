"""Operators that treat each vector on its own: one kernel over all rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spikeplug.kernels.cpu.launch import empty_like, launch
from spikeplug.kernels.cpu.memory import COUNT, OWN, floats, integers
from spikeplug.kernels.cpu.verbs import inlined

#: The words of every block that `by_rows` makes; a kernel's own begin at PARAMETERS.
X, OUTPUT, WIDTH = range(OWN, OWN + 3)
PARAMETERS = OWN + 3

#: Elements of a row that are brought through all loops at once: what lies between the loops stays in the nearest cache.
CHUNK = 1024


@inlined
def rows_of(block):
    """(x, its bits, output) of a block that `by_rows` made."""
    rows, width = block[COUNT], block[WIDTH]
    return floats(block[X], rows, width), integers(block[X], rows, width), floats(block[OUTPUT], rows, width)


def by_rows(kernel: Any, x: Tensor, *words: Tensor | int | float) -> Tensor | None:
    """The kernel over the vectors along the last dimension of x; x's shape and dtype.

    None if a row has what the kernel leaves to the closed form: NaN, infinities, saturations. Those are computed, and
    counted, in one place only.
    """
    rows = (x if x.dtype is torch.float32 else x.to(torch.float32)).contiguous()
    output = empty_like(rows)
    width = x.shape[-1]
    if launch(kernel, rows.numel() // width, width, rows, output, width, *words):
        return None
    return output if output.dtype is x.dtype else output.to(x.dtype)
