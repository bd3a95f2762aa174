"""Operators that treat each vector on its own: one kernel over all rows, the few odd rows by the closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeplug.kernels.cpu.launch import launch
from spikeplug.kernels.cpu.memory import floats, integers, truths
from spikeplug.kernels.cpu.verbs import inlined


@inlined
def rows_of(block):
    """(x, its bits, output, flags) of a block that `by_rows` made: words 4 to 7 are x, output, flags and the width."""
    rows, width = block[0], block[7]
    return (
        floats(block[4], rows, width),
        integers(block[4], rows, width),
        floats(block[5], rows, width),
        truths(block[6], 1, rows)[0],
    )


def by_rows(kernel: Any, x: Tensor, closed: Callable[[Tensor], Tensor], *arguments: Tensor | int | float) -> Tensor:
    """The kernel over the vectors along the last dimension of x; x's shape and dtype.

    closed: the operator on the rows (float32) that the kernel left: those with NaN, infinities or saturations, which
    are so computed, and counted, in one place only.
    """
    rows = x.reshape(-1, x.shape[-1]).to(torch.float32).contiguous()
    output, flags = torch.empty_like(rows), torch.zeros(rows.shape[0], dtype=torch.bool)
    if launch(kernel, *rows.shape, rows, output, flags, rows.shape[1], *arguments):
        output[flags] = closed(rows[flags])
    return output.to(x.dtype).view(x.shape)
