"""Build the comparisons: a race of phase codes, an ordered population, a single threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.circuit import Place, StageBuilder, held, state


def maximum(x: Tensor, bits: int, scope: Place) -> Tensor:
    """Return the largest x along the last dimension, kept with size 1, for integers |x| <= 2^bits, by a race.

    Each element sends the bits of x + 2^bits. A racer fires on a 1, unless it is out: it was
    silent when another fired.
    """
    if x.shape[-1] == 1:
        return x  # one element: nothing to compare
    racers, steps = x.shape[-1], bits + 2

    def build(stage: StageBuilder, row: list[int]) -> int:
        trains = [stage.train("code", number, "bits", steps) for number in row]
        racing = [stage.neuron("race", "threshold", 2, leak=None, threshold=(1,)) for _ in row]
        winner = stage.neuron("winner", "threshold", racers.bit_length() + 1, leak=None, threshold=(1,))
        lost = [stage.neuron("lost", "accumulator", 2, ceiling=1) for _ in row]
        best = stage.neuron("", "accumulator", min(steps + 1, 64), leak=1)
        for train, racer, loser in zip(trains, racing, lost, strict=True):
            stage.synapse(racer, 1, train)
            stage.synapse(racer, state(loser, -1))  # inhibits from the step after it lost
            stage.synapse(winner, 1, racer)
            stage.synapse(loser, 1, winner)
            stage.synapse(loser, -1, racer)
        stage.synapse(best, 1, winner)
        low, high = (max(ends) for ends in zip(*map(scope.bounds, row), strict=True))
        return stage.settled(best, steps, low, high)

    return (scope.rows(build, x + (1 << bits), dtype=x.dtype) - (1 << bits)).to(x.dtype)


def leading_one(x: Tensor, bits: int, scope: Place) -> Tensor:
    """Return the number of binary digits of each integer 0 <= x < 2^bits (0 for 0), int64.

    One neuron per power of two, with that power as threshold; the spikes of one step are counted.
    """

    def build(stage: StageBuilder, x: int) -> int:
        train = stage.train("operand", x, "graded")
        neurons = [stage.neuron("", "threshold", bits + 1, leak=None, threshold=(1 << place,)) for place in range(bits)]
        for neuron in neurons:
            stage.synapse(neuron, 1, train)
        return stage.counted(neurons)

    return scope.each(build, x)


def reaches(x: Tensor, threshold: Tensor | int, bits: int, scope: Place) -> Tensor:
    """Return a bool tensor: whether x >= threshold. One neuron per element decides it in one time step."""

    def build(stage: StageBuilder, x: int, threshold: int) -> int:
        neuron = stage.neuron("", "threshold", bits + 2, start=(held(x),), threshold=(held(threshold),))
        return stage.counted((neuron,))

    return scope.each(build, x, threshold, dtype=torch.bool)
