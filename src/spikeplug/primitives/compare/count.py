"""Predict what the neurons of comparisons do. No time step runs."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes.counting import ones
from spikeplug.neurons import Needs, Scope, reached, row_blocks
from spikeplug.primitives.compare import closed


def maximum(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the largest x along the last dimension, kept with size 1, for integers |x| <= 2^bits; count its race.

    The winner sends the phase code of the largest element. An element fires with the winner up to its first digit that
    differs: in the ones of the common beginning of both codes.
    """
    largest, racers, steps = closed.maximum(x), x.shape[-1], bits + 2
    if racers == 1:
        return x
    dtype = torch.int32 if steps <= 31 else torch.int64
    # A racer is driven by its digit and kept in by its own spike; the winner's spike takes it out.
    racer = Needs(leak=0.0, threshold="constant", threshold_bits=1, fan_in=3, weights=2)
    race = (scope / "race").population("threshold", 2, x.numel(), racer)
    for part, top in row_blocks(scope, x, largest):
        code, best = part.to(dtype) + (1 << bits), top.to(dtype) + (1 << bits)
        race.updated(part.numel() * steps, ones(code))
        differing = code.bitwise_xor_(best)
        for places in (1, 2, 4, 8, 16, 32):  # a 1 at the highest place that differs, and at every place below it
            if places < steps:
                differing |= differing >> places
        race.sent(ones(differing.bitwise_not_().bitwise_and_(best)))
    won = ones(largest.to(dtype) + (1 << bits))
    race.compares += x.numel() * steps
    any_racer = Needs(leak=0.0, threshold="constant", threshold_bits=1, fan_in=racers)
    winner = (scope / "winner").population("threshold", racers.bit_length() + 1, largest.numel(), any_racer)
    winner.sent(won, racers + 1)
    winner.updated(largest.numel() * steps, won)
    winner.compares += largest.numel() * steps
    readout = scope.population("accumulator", min(steps + 1, 64), largest.numel(), Needs(leak=2.0))
    readout.updated(largest.numel() * steps, won)
    readout.steps += steps
    return largest


def leading_one(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the number of binary digits of each integer 0 <= x < 2^bits: so many of its `bits` neurons fire."""
    position = closed.leading_one(x)
    ordered(x, bits, int(position.sum()), bits + 1, scope)
    return position


def reaches(x: Tensor, threshold: Tensor | int, bits: int, scope: Scope) -> Tensor:
    """Return a bool tensor: whether x >= threshold, for integers of at most 2^bits in magnitude that broadcast."""
    fired = closed.reaches(x, threshold)
    if isinstance(threshold, Tensor):
        decides = Needs(threshold="operand", threshold_bits=bits + 1, arriving_bits=bits + 1)
    else:
        decides = Needs(threshold="constant", threshold_bits=abs(threshold).bit_length(), arriving_bits=bits + 1)
    population = scope.population("threshold", bits + 2, fired.numel(), decides)
    population.sent(int(torch.count_nonzero(fired)))
    population.updated(fired.numel(), reached(fired, x))
    population.compares += fired.numel()
    population.steps += 1
    return fired


def ordered(x: Tensor, neurons: int, fired: int, width: int, scope: Scope) -> None:
    """Count one step of ordered populations, `neurons` for each element of x, which receive it; `fired` of all fire."""
    decides = Needs(threshold="constant", threshold_bits=width - 1, arriving_bits=width - 1)
    population = scope.population("threshold", width, x.numel() * neurons, decides)
    population.sent(fired)
    population.updated(x.numel() * neurons, reached(x, x) * neurons)
    population.compares += x.numel() * neurons
    population.steps += 1
