"""Compute the norms in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.fixedpoint import bit_length
from spikeplug.primitives.norm.spec import CordicSpec, RootSpec


def square_sum(x: Tensor) -> Tensor:
    """Return the sum of squares along the last dimension, int64; (..., d) gives (..., 1)."""
    wide = x.to(torch.int64)
    return (wide * wide).sum(-1, keepdim=True)


def root(square: Tensor, spec: RootSpec) -> Tensor:
    """Return floor(sqrt(square)), int64, by Newton's iteration in integers, which descends to the floor."""
    present = square > 0
    square = square.to(torch.int64).clamp(min=1)
    # Start at 2^ceil(bits/2): above sqrt(S), by a factor of at most 2. Every step doubles the correct bits; two more
    # steps let the floors settle.
    estimate = torch.ones_like(square) << ((bit_length(square) + 1) >> 1)
    for _ in range(spec.root_bits.bit_length() + 2):
        estimate = torch.minimum(estimate, (estimate + torch.div(square, estimate, rounding_mode="trunc")) >> 1)
    return estimate * present


def cordic(x: Tensor, spec: CordicSpec) -> Tensor:
    """Approximate the L2 norm of integers x >= 0 along the last dimension, kept with size 1, int64.

    A binary tree merges two numbers at a time into the root of their sum of squares, by CORDIC rotations.
    """
    level = x.to(torch.int64)
    while level.shape[-1] > 1:
        if level.shape[-1] % 2:
            level = torch.nn.functional.pad(level, (0, 1))
        level = _merge(level[..., 0::2], level[..., 1::2], spec)
    return level


def _merge(x: Tensor, y: Tensor, spec: CordicSpec) -> Tensor:
    x, y = x << spec.guard_bits, y << spec.guard_bits
    for k in range(spec.iterations):
        sign = torch.where(y >= 0, 1, -1)
        x, y = x + sign * (y >> k), y - sign * (x >> k)
    drop = spec.guard_bits + spec.gain_bits
    return (x * spec.inverse_gain + (1 << (drop - 1))) >> drop
