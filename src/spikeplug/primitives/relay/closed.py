"""Add, scale, gate, sign, shift, round and clamp integers in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug import fixedpoint


def add(a: Tensor, b: Tensor | int) -> Tensor:
    """Return a + b elementwise, for integer tensors whose shapes broadcast; b may be one integer."""
    return a + b


def scale(x: Tensor, factor: int | Tensor) -> Tensor:
    """Return the integer tensor x times the integer constant `factor`, or one constant per element, as int64."""
    return x.to(torch.int64) * factor


def select(condition: Tensor, a: Tensor | int, b: Tensor | int) -> Tensor:
    """Return a where `condition` (bool) is true, else b; broadcast."""
    return torch.where(condition, a, b)


def magnitude(x: Tensor) -> Tensor:
    """Return the absolute value of each element of the integer tensor x, in x's dtype."""
    return x.abs()


def signed(magnitude: Tensor, sign_of: Tensor) -> Tensor:
    """Return `magnitude`, negated where `sign_of` < 0; both are integer tensors."""
    return torch.where(sign_of < 0, -magnitude, magnitude)


def shift(x: Tensor, places: Tensor) -> Tensor:
    """Return floor(x · 2^places) for integers x >= 0: a left shift, or a right shift where `places` is negative."""
    return fixedpoint.shift(x, places)


def round_half(x: Tensor) -> Tensor:
    """Return floor(x/2 + 1/2): half of each integer x, rounded to the nearest integer, halves up."""
    return fixedpoint.halve_to_nearest(x)


def clamp(x: Tensor, low: int | None, high: int | None) -> Tensor:
    """Return x with each element limited to [low, high]; None means no limit on that side."""
    return x.clamp(low, high)
