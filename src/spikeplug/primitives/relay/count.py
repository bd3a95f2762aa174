"""Predict what accumulators that spike trains drive do. No time step runs.

A neuron is driven in a step in which any of its trains sends: in the digits that are 1 in any of its operands.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes.counting import ones
from spikeplug.neurons import Needs, Scope, reached
from spikeplug.primitives.relay import closed


def add(a: Tensor, b: Tensor | int, bits: int, scope: Scope) -> Tensor:
    """Return a + b for integers |a|, |b| < 2^bits whose shapes broadcast."""
    total = closed.add(a, b)
    _driven([a] if isinstance(b, int) else [a, b], total, bits, bits + 2, scope)
    return total


def scale(x: Tensor, factor: int | Tensor, bits: int, scope: Scope) -> Tensor:
    """Return x · factor, int64, for integers |x| < 2^bits."""
    product = closed.scale(x, factor)
    largest = abs(factor) if isinstance(factor, int) else int(factor.abs().max()) if factor.numel() else 0
    width = bits + largest.bit_length() + 1
    _driven([x], product, bits, width, scope, Needs(leak=2.0, weight_bits=largest.bit_length(), weights=2))
    return product


def select(condition: Tensor, a: Tensor | int, b: Tensor | int, bits: int, scope: Scope) -> Tensor:
    """Return a where the bool tensor `condition` is true, else b, for integers |a|, |b| < 2^bits."""
    chosen = closed.select(condition, a, b)
    (scope / "gate").population("input", 1, condition.numel()).sent(int(torch.count_nonzero(condition)), 2)
    trains = [x for x in (a, b) if isinstance(x, Tensor)]
    if trains:
        constant = max((abs(x).bit_length() for x in (a, b) if isinstance(x, int)), default=1)
        needs = Needs(leak=2.0, fan_in=len(trains) + 1, weight_bits=max(1, constant), gated=True)
        _driven(trains, chosen, bits, bits + 1, scope, needs)
    return chosen


def magnitude(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return |x| for integers |x| < 2^bits."""
    _driven([x], x, bits, bits + 1, scope, Needs(leak=2.0))
    return closed.magnitude(x)


def signed(magnitude: Tensor, sign_of: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return `magnitude`, negated where `sign_of` < 0, for 0 <= magnitude < 2^bits."""
    turned = closed.signed(magnitude, sign_of)
    negative = int(torch.count_nonzero(sign_of < 0))
    (scope / "sign").population("input", 1, sign_of.numel()).sent(negative)
    _driven([magnitude], turned, bits, bits + 1, scope, Needs(leak=2.0, fan_in=2, weights=2, gated=True))
    return turned


def shift(x: Tensor, places: Tensor, bits: int, left: int, scope: Scope) -> Tensor:
    """Return floor(x · 2^places) in x's dtype, for 0 <= x < 2^bits and places <= left; places may be negative."""
    shifted, steps = closed.shift(x, places), bits + left
    arrived = ones(x) * (shifted.numel() // max(1, x.numel()))
    (scope / "operand").population("input", 1, shifted.numel()).sent(arrived)
    width = min(steps + 1, torch.iinfo(x.dtype).bits)
    population = scope.population("accumulator", width, shifted.numel(), Needs(leak=2.0, gated=True))
    population.updated(shifted.numel() * steps, arrived)
    population.steps += steps
    return shifted


def round_half(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return floor(x/2 + 1/2) for integers |x| < 2^bits: a bias and a leak, both idle."""
    halving = Needs(leak=0.5, fan_in=0, weight_bits=0, weights=0, arriving_bits=0)
    population = scope.population("accumulator", bits + 2, x.numel(), halving)
    population.updated(2 * x.numel(), 0)
    population.steps += 2
    return closed.round_half(x)


def clamp(x: Tensor, low: int | None, high: int | None, bits: int, scope: Scope) -> Tensor:
    """Return x limited to [low, high], for integers |x| <= 2^bits; None: no limit on that side."""
    for limit, name in ((low, "low"), (high, "high")):
        if limit is None:
            continue
        decides = Needs(threshold="constant", threshold_bits=abs(limit).bit_length(), arriving_bits=bits + 1)
        population = (scope / name).population("threshold", bits + 2, x.numel(), decides)
        population.sent(int(torch.count_nonzero(x <= limit if name == "low" else x >= limit)))
        population.updated(x.numel(), reached(x, x))
        population.compares += x.numel()
        population.steps += 1
        x = closed.clamp(x, limit, None) if name == "low" else closed.clamp(x, None, limit)
    return x


def _driven(
    trains: list[Tensor], answer: Tensor, bits: int, width: int, scope: Scope, needs: Needs | None = None
) -> None:
    """Count the spikes of trains of `bits` bits, which broadcast to `answer`, and the updates of its neurons.

    needs: of a neuron; None: synapses of weight 1 and -1, for the two signs of each train.
    """
    size, arrived = answer.numel(), 0
    for number, x in enumerate(trains):
        name = "operand" if len(trains) == 1 else f"operand {number + 1}"
        spikes, fan_out = ones(x), size // max(1, x.numel())
        (scope / name).population("input", 1, x.numel()).sent(spikes, fan_out)
        arrived = spikes * fan_out
    if len(trains) == 2:
        either = trains[0].abs() | trains[1].abs()
        arrived = ones(either) * (size // max(1, either.numel()))
    needs = Needs(leak=2.0, fan_in=len(trains), weights=2) if needs is None else needs
    population = scope.population("accumulator", width, size, needs)
    population.updated(size * bits, arrived)
    population.steps += bits
