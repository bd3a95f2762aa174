"""Add, scale, gate, sign, shift, round and clamp integers in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug import fixedpoint


def add(a: Tensor, b: Tensor | int) -> Tensor:
    """Return a + b, broadcast."""
    return a + b


def scale(x: Tensor, factor: int) -> Tensor:
    """Return x · factor, int64."""
    return x.to(torch.int64) * factor


def select(condition: Tensor, a: Tensor | int, b: Tensor | int) -> Tensor:
    """Return a where `condition` (bool) is true, else b; broadcast."""
    return torch.where(condition, a, b)


def magnitude(x: Tensor) -> Tensor:
    """Return |x|."""
    return x.abs()


def signed(magnitude: Tensor, sign_of: Tensor) -> Tensor:
    """Return `magnitude` with the sign of `sign_of`; 0 counts as positive."""
    return torch.where(sign_of < 0, -magnitude, magnitude)


def shift(x: Tensor, places: Tensor) -> Tensor:
    """Return floor(x · 2^places) of x >= 0; `places` may be negative."""
    return fixedpoint.shift(x, places)


def round_half(x: Tensor) -> Tensor:
    """Return floor(x/2 + 1/2): drop the lowest bit, rounding half up."""
    return fixedpoint.halve_to_nearest(x)


def clamp(x: Tensor, low: int | None, high: int | None) -> Tensor:
    """Return x clamped to [low, high]; None means no limit."""
    return x.clamp(low, high)
