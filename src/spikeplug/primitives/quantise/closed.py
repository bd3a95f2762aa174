"""Quantise in closed form: vectorised integers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spikeplug.primitives.quantise.spec import QuantiseSpec


def quantise(x: Tensor, threshold: Tensor | int, spec: QuantiseSpec) -> Tensor:
    """Return the sum of the spikes for each x, int64, in units of the firing threshold; see README.md.

    x: integers (..., d). threshold: integers that broadcast to x, such as one per channel (d,) or per vector (..., 1).
    Errors: SpikeplugError for operands that `spec.operands` refuses.
    """
    x, threshold = spec.operands(x, threshold)
    if spec.bounds:
        return _floor(2 * x + spec.start(threshold), 2 * threshold).clamp(*spec.bounds)
    total = torch.zeros_like(x)
    for weight, _, spikes in spikes_by_run(x, threshold, spec):
        total += weight * spikes
    return total * x.sign() if spec.signed else total


def spikes_by_run(x: Tensor, threshold: Tensor, spec: QuantiseSpec) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (weight, time steps, spikes) for each run of time steps: how many spikes each x sends in them.

    Of the population for negative numbers, if there is one, these are the spikes for negative x.
    """
    left = 2 * spec.pace * (x.abs() if spec.signed else x) + spec.start(threshold)
    for weight, steps in spec.runs:
        unit = 2 * spec.pace * weight * threshold
        spikes = _floor(left, unit).clamp(0, spec.levels * steps)
        left = left - spikes * unit
        yield weight, steps, spikes


def _floor(x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode="floor")
