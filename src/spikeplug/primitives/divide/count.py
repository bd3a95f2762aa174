"""Predict what the neurons of a division do. No time step runs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spikeplug.codes.counting import ones, steps_of_any_count
from spikeplug.neurons import Needs, Scope
from spikeplug.primitives.divide import closed
from spikeplug.primitives.divide.spec import DivideSpec


def ordered_group(numerator: Tensor, denominator: Tensor, spec: DivideSpec, scope: Scope, *, steps: int = 1) -> Tensor:
    """Return floor(2^n·A / B), int64, as the number of neurons that fire, of N = spec.largest neurons per element.

    All neurons of a group are driven in a step in which A or B sends, and by the go spike, which B > 0 relays.
    There is no limit on N, nor on the width of a membrane.
    """
    spec.check(numerator, denominator)
    quotient = closed.divide(numerator, denominator, replace(spec, limit=spec.largest))
    numerator, denominator = torch.broadcast_tensors(numerator.to(torch.int64), denominator.to(torch.int64))
    size, neurons = numerator.numel(), spec.largest
    width = max(spec.numerator_bits + spec.fraction_bits, (neurons - 1).bit_length() + spec.denominator_bits) + 2
    present = int(torch.count_nonzero(denominator))
    rates = [-(-(1 << bits) // steps) for bits in (spec.numerator_bits, spec.denominator_bits)]
    member = Needs(
        threshold="constant",
        threshold_bits=1,
        fan_in=3,  # of A, of B and of the go spike
        weight_bits=max(spec.fraction_bits + 2, (2 * neurons).bit_length()),
        weights=3,
        arriving_bits=max(rates).bit_length(),
    )
    group = scope.population("threshold", width, size * neurons, member)
    for name, x, rate in zip(("numerator", "denominator"), (numerator, denominator), rates, strict=True):
        (scope / name).population("input", rate, size).sent(int(x.sum()), neurons)
    (scope / "go").population("input", 1, size).sent(present, neurons)
    driven = steps_of_any_count(torch.stack((numerator, denominator), -1), steps)
    group.sent(int(quotient.sum()))
    group.updated(size * neurons * (steps + 1), (driven + present) * neurons)
    group.compares += size * neurons
    group.steps += steps + 1
    return quotient


def restoring_neuron(numerator: Tensor, denominator: Tensor, spec: DivideSpec, scope: Scope) -> Tensor:
    """Return floor(2^n·A / B), int64, from the spike train of one neuron per element.

    The train is the binary expansion of the quotient, also where it is above `spec.limit`: its ones are the spikes.
    """
    spec.check(numerator, denominator)
    expansion = closed.divide(numerator, denominator, replace(spec, limit=None))
    size, steps = expansion.numel(), spec.numerator_bits + spec.fraction_bits
    arrived, fired = ones(numerator) * (size // max(1, numerator.numel())), ones(expansion)
    go = bool((denominator == 0).any())  # without a denominator, a neuron must stay silent: an axon gates it
    restoring = Needs(leak=2.0, threshold="operand", threshold_bits=spec.denominator_bits, soft_reset=True, gated=go)
    neuron = scope.population("threshold", spec.denominator_bits + 2, size, restoring)
    neuron.sent(fired)
    neuron.updated(size * steps, arrived)
    neuron.compares += size * steps
    neuron.steps += steps
    (scope / "numerator").population("input", 1, size).sent(arrived)
    width = spec.largest.bit_length() + (1 if spec.limit is None else 2)
    (scope / "quotient").population("accumulator", width, size, Needs(leak=2.0)).updated(size * steps, fired)
    return expansion if spec.limit is None else expansion.clamp(max=spec.limit)
