"""Quantise by neurons, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, repeat

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Scope, blocks, integrate, lif_step, ternary_step
from spikeplug.primitives.quantise import closed
from spikeplug.primitives.quantise.spec import QuantiseSpec


def quantise(x: Tensor, threshold: Tensor | int, spec: QuantiseSpec, scope: Scope) -> Tensor:
    """Return the sum of the spikes for each x, int64, in units of the firing threshold θ, which broadcasts to x.

    A membrane holds twice x (times T if x is paced), so that half a threshold is an integer.
    Without bounds, one population receives the positive x and another the magnitudes of the negative ones.
    """
    x, threshold = spec.operands(x, threshold)
    answer = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    scope.population("threshold", spec.width, x.numel() * spec.levels * spec.populations).steps += spec.steps
    (scope / "total").population("accumulator", spec.total_width, x.numel()).steps += spec.steps
    dtype = torch.int32 if spec.width <= 32 else torch.int64
    for current, unit, target in blocks(scope, x, threshold, answer):
        current, unit = current.to(dtype), unit.to(dtype)
        if spec.bounds:
            sums, _ = _both_signs(chain([current], repeat(0, spec.steps - 1)), unit, spec, scope)
            target.copy_(sums)
        else:
            target.copy_(_one_sign_each(current, unit, spec, scope))
    return answer


def _one_sign_each(x: Tensor, threshold: Tensor, spec: QuantiseSpec, scope: Scope) -> Tensor:
    current = 2 * torch.stack((x.clamp(min=0), (-x).clamp(min=0)) if spec.signed else (x,))
    membrane = spec.start(threshold).expand(current.shape).clone()
    total = torch.zeros_like(x)
    for time, weight in enumerate(spec.weights):
        arriving = current if spec.paced or time == 0 else 0
        unit = 2 * spec.pace * weight * threshold
        spikes, membrane = lif_step(membrane, arriving, unit, scope, levels=spec.levels)
        sent = spikes[0] - spikes[1] if spec.signed else spikes[0]
        integrate(total, weight * sent, scope / "total")
    return total


def settle(train: Tensor, threshold: Tensor | int, spec: QuantiseSpec, scope: Scope) -> tuple[Tensor, Tensor]:
    """Return the spikes that a neuron with bounds sends while x arrives in parts, and how far it is from settled.

    train: the parts of x, integers (time, ...); all sums of first parts fit the spec. threshold broadcasts to x.
    Returns spikes (time, ...), int64, and the time steps that each neuron still needs, int64; 0: it has settled. Then
    its spikes add up to the closed form of the sum of all parts, in whatever order and sizes they arrived.
    Errors: SpikeplugError for a spec without bounds, and for operands that it refuses.
    """
    if spec.bounds is None:
        raise SpikeplugError("only a neuron with bounds takes back spikes as its input changes: use st_bif.")
    if not len(train):
        raise SpikeplugError("the input has no time step; give its parts along the first dimension.")
    so_far, units = spec.operands(train.cumsum(0), threshold)
    scope.population("threshold", spec.width, units[0].numel()).steps += len(train)
    (scope / "total").population("accumulator", spec.total_width, units[0].numel()).steps += len(train)
    sums, spikes = _both_signs(train.to(torch.int64), units[0], spec, scope)
    return torch.stack(spikes), (closed.quantise(so_far[-1], units[0], spec) - sums).abs()


def _both_signs(
    train: Iterable[Tensor | int], threshold: Tensor, spec: QuantiseSpec, scope: Scope
) -> tuple[Tensor, list[Tensor]]:
    """Return the sum of the spikes of ST-BIF neurons, and the spikes of each time step."""
    assert spec.bounds is not None
    low, high = spec.bounds
    membrane, total = spec.start(threshold).clone(), torch.zeros_like(threshold)
    sent = []
    for part in train:
        spikes, membrane = ternary_step(
            membrane, 2 * part, 2 * threshold, scope, rising=total < high, falling=total > low
        )
        integrate(total, spikes, scope / "total")
        sent.append(spikes)
    return total, sent
