"""Compare integers in closed form."""

from __future__ import annotations

from torch import Tensor

from spikeplug.fixedpoint import bit_length


def maximum(x: Tensor) -> Tensor:
    """Return the largest integer over the last dimension, kept as 1, in x's dtype."""
    return x.amax(-1, keepdim=True)


def leading_one(x: Tensor) -> Tensor:
    """Return the position of the leading one of x >= 0, plus one (0 for x = 0); int64."""
    return bit_length(x)


def reaches(x: Tensor, threshold: Tensor | int) -> Tensor:
    """Return whether x >= threshold, elementwise; bool."""
    return x >= threshold
