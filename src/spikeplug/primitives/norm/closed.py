"""Compute the norms in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
    return tree(x, lambda x, y, _: _merge(x, y, spec))


def tree(x: Tensor, merge: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
    """Merge two numbers along the last dimension at a time, until one is left; int64. A 0 fills up an odd number.

    merge: merge(x, y, level) returns what x and y become; level counts from 0, the leaves.
    """
    numbers, level = x.to(torch.int64), 0
    while numbers.shape[-1] > 1:
        if numbers.shape[-1] % 2:
            numbers = torch.nn.functional.pad(numbers, (0, 1))
        numbers, level = merge(numbers[..., 0::2], numbers[..., 1::2], level), level + 1
    return numbers


def rotations(x: Tensor, y: Tensor, spec: CordicSpec) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield x and y, with guard bits, before every rotation of their merge, and after the last."""
    x, y = x << spec.guard_bits, y << spec.guard_bits
    for k in range(spec.iterations):
        yield x, y
        sign = torch.where(y >= 0, 1, -1)
        x, y = x + sign * (y >> k), y - sign * (x >> k)
    yield x, y


def without_gain(x: Tensor, spec: CordicSpec) -> Tensor:
    """Return x without its gain and guard bits, rounded to nearest."""
    drop = spec.guard_bits + spec.gain_bits
    return (x * spec.inverse_gain + (1 << (drop - 1))) >> drop


def _merge(x: Tensor, y: Tensor, spec: CordicSpec) -> Tensor:
    *_, (x, _) = rotations(x, y, spec)
    return without_gain(x, spec)
