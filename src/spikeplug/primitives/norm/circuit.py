"""Build norms: squares by gating or by a population, the restoring root, the CORDIC tree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.circuit import Gate, Held, Place, StageBuilder, Wiring, held, state
from spikeplug.primitives.norm.closed import tree
from spikeplug.primitives.norm.simulate import check_ordered
from spikeplug.primitives.norm.spec import CordicSpec, RootSpec


def square_sum(x: Tensor, bits: int, scope: Place) -> Tensor:
    """Return the sum of squares along the last dimension, kept with size 1, int64, for integers |x| < 2^bits.

    x is sent bit by bit; each spike opens a synapse whose weight is x itself. All squares of a vector drive one neuron.
    """

    def square(stage: StageBuilder, x: int) -> int:
        low, high = scope.bounds(x)
        size = max(-low, high)
        neuron = stage.neuron("", "accumulator", bits + size.bit_length() + 1, leak=1)
        stage.synapse(neuron, held(x), stage.train("operand", x, "bits", bits))
        return stage.settled(neuron, bits, 0, size * size)

    return _summed((scope / "square").each(square, x), bits, scope)


def square_sum_ordered(x: Tensor, bits: int, scope: Place) -> Tensor:
    """Return the sum of squares along the last dimension, kept with size 1, int64, for integers |x| < 2^bits.

    Neuron k = 1, 2, ... of a population per number fires iff |x| >= k, and has the weight 2k - 1.
    """
    check_ordered(1 << bits)

    def square(stage: StageBuilder, x: int) -> int:
        low, high = scope.bounds(x)
        train = stage.train("operand", x, "magnitude", 1, digits=bits)
        neurons = [stage.neuron("", "threshold", bits + 2, threshold=(k,)) for k in range(1, (1 << bits) + 1)]
        total = stage.neuron("sum", "accumulator", 2 * bits + 2)
        for k, neuron in enumerate(neurons, 1):
            stage.synapse(neuron, 1, train)
            stage.synapse(total, 2 * k - 1, neuron)
        return stage.settled(total, 1, 0, max(-low, high) ** 2)

    return _summed((scope / "square").each(square, x), bits, scope)


def _summed(squares: Tensor, bits: int, scope: Place) -> Tensor:
    def build(stage: StageBuilder, row: list[int]) -> int:
        total = stage.neuron("", "accumulator", 2 * bits + len(row).bit_length() + 1)
        for number in row:
            stage.synapse(total, held(number))
        low, high = (sum(ends) for ends in zip(*map(scope.bounds, row), strict=True))
        return stage.settled(total, 1, low, high)

    return scope.rows(build, squares, dtype=torch.int64)


def root_ordered(square: Tensor, spec: RootSpec, scope: Place) -> Tensor:
    """Return floor(sqrt(square)), int64, in one time step: neuron k fires iff square >= k²; the count is the root."""
    check_ordered(1 << spec.root_bits)

    def build(stage: StageBuilder, square: int) -> int:
        train = stage.train("operand", square, "graded")
        neurons = [
            stage.neuron("", "threshold", 2 * spec.root_bits + 1, leak=None, threshold=(k * k,))
            for k in range(1, 1 << spec.root_bits)
        ]
        for neuron in neurons:
            stage.synapse(neuron, 1, train)
        return stage.counted(neurons)

    return scope.each(build, square)


def root(square: Tensor, spec: RootSpec, scope: Place) -> Tensor:
    """Return floor(sqrt(square)), int64, by one neuron per element, which finds one bit of the root per step.

    Its membrane v becomes 4v + the next two bits of `square`, highest first. It fires iff v >= 4Q + 1, where Q is the
    root so far.
    """

    def build(stage: StageBuilder, square: int) -> int:
        bits = spec.root_bits
        digits = stage.train("square", square, "bits", bits, digits=2)
        readout = 1  # the number of the second neuron
        neuron = stage.neuron("", "threshold", bits + 3, leak=2, threshold=(Held(readout, state=True, factor=4), 1))
        answer = stage.neuron("root", "accumulator", bits + 1, leak=1)
        stage.synapse(neuron, 1, digits)
        stage.synapse(answer, 1, neuron)
        return stage.settled(answer, bits, 0, math.isqrt(min(scope.bounds(square)[1], (1 << 2 * bits) - 1)))

    return scope.each(build, square)


def cordic(x: Tensor, spec: CordicSpec, scope: Place) -> Tensor:
    """Approximate the L2 norm of integers x >= 0 along the last dimension, kept with size 1, int64.

    In each rotation of a merge, a neuron tells the sign of the second number: it decides whether to add or to subtract.
    """

    def merge(x: Tensor, y: Tensor, level: int) -> Tensor:
        bits = spec.merge_bits(level)
        return scope.each(lambda _, x, y: _merged(x, y, bits, spec, scope), x, y)

    return tree(x, merge)


def _merged(x: int, y: int, bits: int, spec: CordicSpec, scope: Place) -> int:
    guard, most = 1 << spec.guard_bits, 1 << bits
    stage = scope.stage()
    sign = stage.neuron("sign", "threshold", bits + 1, leak=None, threshold=(0,))
    first = stage.neuron("x", "accumulator", bits + 1, start=(held(x, guard),))
    second = stage.neuron("y", "accumulator", bits + 1, start=(held(y, guard),))
    stage.synapse(sign, state(second))
    for k in range(spec.iterations):
        for neuron, other, factor in ((first, second, 1), (second, first, -1)):
            stage.synapse(neuron, state(other, factor, k), sign, step=k)
            stage.synapse(neuron, state(other, -factor, k), Gate(sign, closes=True), step=k)
    rotated = stage.settled(first, spec.iterations, 0, most - 1)
    # A constant synapse removes the gain.
    stage, drop = (scope / "gain").stage(), spec.guard_bits + spec.gain_bits
    total = stage.neuron("", "accumulator", bits + spec.gain_bits + 1, leak=1)
    stage.synapse(total, spec.inverse_gain, stage.train("operand", rotated, "bits", bits))
    product = stage.settled(total, bits, 0, (most - 1) * spec.inverse_gain)
    rounded = scope.builder.wire(product, Wiring(0, offset=1 << drop - 1))
    return scope.builder.wire(rounded, Wiring(0, places=drop))
