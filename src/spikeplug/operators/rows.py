"""Operators that treat each vector on its own are run over blocks of vectors, so that temporaries stay in cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Elements per block. The result does not depend on it.
BLOCK = 1 << 17


def by_rows(operator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """operator applied to x of shape (..., d) as (rows, d) blocks; the result has x's shape and dtype."""
    rows = x.reshape(-1, x.shape[-1])
    step = max(1, BLOCK // x.shape[-1])
    if rows.shape[0] <= step:
        return operator(rows).to(x.dtype).view(x.shape)
    output = torch.empty_like(rows, memory_format=torch.contiguous_format)
    for first in range(0, rows.shape[0], step):
        output[first : first + step] = operator(rows[first : first + step])
    return output.view(x.shape)
