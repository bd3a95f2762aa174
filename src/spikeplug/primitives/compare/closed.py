"""Compare integers in closed form."""

from __future__ import annotations

from torch import Tensor

from spikeplug.fixedpoint import bit_length


def maximum(x: Tensor) -> Tensor:
    """Return the largest integer along the last dimension, in x's dtype; (..., d) gives (..., 1)."""
    return x if x.shape[-1] == 1 else x.amax(-1, keepdim=True)


def leading_one(x: Tensor) -> Tensor:
    """Return the number of binary digits of each integer x >= 0 (1 for 1, 3 for 4, 0 for 0); int64."""
    return bit_length(x)


def reaches(x: Tensor, threshold: Tensor | int) -> Tensor:
    """Return whether x >= threshold, elementwise; bool."""
    return x >= threshold
