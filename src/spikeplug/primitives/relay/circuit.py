"""Build the accumulators of the relays: driven by spike trains, through synapses that are constants, gates or signs."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from spikeplug.circuit import Gate, Place, StageBuilder, held


def add(a: Tensor, b: Tensor | int, bits: int, scope: Place) -> Tensor:
    """Return a + b for integers |a|, |b| < 2^bits whose shapes broadcast. Two spike trains drive one neuron."""

    def build(stage: StageBuilder, *terms: int) -> int:
        low, high = (sum(ends) for ends in zip(*map(scope.bounds, terms), strict=True))
        sum_ = stage.neuron("", "accumulator", bits + 2, leak=1)
        for number, term in enumerate(terms, 1):
            stage.synapse(
                sum_, 1, stage.train("operand" if len(terms) == 1 else f"operand {number}", term, "bits", bits)
            )
        if bias:
            stage.synapse(sum_, bias, step=bits - 1)
        return stage.settled(sum_, bits, low + bias, high + bias)

    bias = b if isinstance(b, int) else 0
    return scope.each(build, *((a,) if isinstance(b, int) else (a, b)), dtype=torch.result_type(a, b))


def scale(x: Tensor, factor: int | Tensor, bits: int, scope: Place) -> Tensor:
    """Return x · factor, int64, for integers |x| < 2^bits. The factor, a constant, is the weight of the synapse."""
    largest = abs(factor) if isinstance(factor, int) else int(factor.abs().max()) if factor.numel() else 0

    def build(stage: StageBuilder, x: int, weight: int) -> int:
        (constant, _), ends = scope.bounds(weight), scope.bounds(x)
        product = stage.neuron("", "accumulator", bits + largest.bit_length() + 1, leak=1)
        stage.synapse(product, constant, stage.train("operand", x, "bits", bits))
        low, high = sorted(constant * end for end in ends)
        return stage.settled(product, bits, low, high)

    return scope.each(build, x, factor)


def select(condition: Tensor, a: Tensor | int, b: Tensor | int, bits: int, scope: Place) -> Tensor:
    """Return a where `condition` is true, else b, for integers |a|, |b| < 2^bits.

    The condition opens one of two synapses. One integer in place of a tensor sends no spikes: it is a bias.
    """

    def build(stage: StageBuilder, condition: int, a_: int, b_: int) -> int:
        gate = stage.train("gate", condition, "positive")
        chosen, last = stage.neuron("", "accumulator", bits + 1, leak=1), bits - 1
        trains = [x for x in (a, b) if not isinstance(x, int)]
        if not trains:
            last = 0
        for number, (given, signal, closes) in enumerate(((a, a_, False), (b, b_, True)), 1):
            opened = Gate(gate, closes)
            if isinstance(given, int):
                stage.synapse(chosen, given, opened, step=last)
            else:
                part = "operand" if len(trains) == 1 else f"operand {number}"
                stage.synapse(chosen, 1, stage.train(part, signal, "bits", bits), opened)
        (low_a, high_a), (low_b, high_b) = scope.bounds(a_), scope.bounds(b_)
        return stage.settled(chosen, last + 1, min(low_a, low_b), max(high_a, high_b))

    return scope.each(build, condition, a, b, dtype=torch.result_type(a, b))


def magnitude(x: Tensor, bits: int, scope: Place) -> Tensor:
    """Return |x| for integers |x| < 2^bits: spikes of either sign excite the same neuron."""

    def build(stage: StageBuilder, x: int) -> int:
        size = stage.neuron("", "accumulator", bits + 1, leak=1)
        stage.synapse(size, 1, stage.train("operand", x, "magnitude", bits))
        low, high = scope.bounds(x)
        return stage.settled(size, bits, max(0, low, -high), max(high, -low))

    return scope.each(build, x, dtype=x.dtype)


def signed(magnitude: Tensor, sign_of: Tensor, bits: int, scope: Place) -> Tensor:
    """Return `magnitude`, negated where `sign_of` < 0, for 0 <= magnitude < 2^bits: a spike inverts the synapse."""

    def build(stage: StageBuilder, size: int, sign_of: int) -> int:
        train, negative = stage.train("operand", size, "bits", bits), stage.train("sign", sign_of, "negative")
        value = stage.neuron("", "accumulator", bits + 1, leak=1)
        stage.synapse(value, 1, train, Gate(negative, closes=True))
        stage.synapse(value, -1, train, negative)
        (low, high), (lowest, highest) = scope.bounds(size), scope.bounds(sign_of)
        return stage.settled(value, bits, -high if lowest < 0 else low, high if highest >= 0 else -low)

    return scope.each(build, magnitude, sign_of, dtype=magnitude.dtype)


def shift(x: Tensor, places: Tensor, bits: int, left: int, scope: Place) -> Tensor:
    """Return floor(x · 2^places) in x's dtype, for 0 <= x < 2^bits and places <= left.

    The neuron listens for bits + places steps: fewer than bits leave out the low bits, more double the sum.
    """
    steps = bits + left
    width = min(steps + 1, torch.iinfo(x.dtype).bits)

    def build(stage: StageBuilder, x: int, listens: int) -> int:
        active = stage.train("places", listens, "until")
        value = stage.neuron("", "accumulator", width, leak=1, leaks_if=(Gate(active),))
        stage.synapse(value, 1, stage.train("operand", x, "bits", bits), active)
        most = min(scope.bounds(listens)[1], steps) - bits
        return stage.settled(value, steps, 0, _shifted(scope.bounds(x)[1], most))

    return scope.each(build, x, places + bits, dtype=x.dtype)


def round_half(x: Tensor, bits: int, scope: Place) -> Tensor:
    """Return floor(x/2 + 1/2) for integers |x| < 2^bits: the neuron that holds x adds 1, then halves once."""

    def build(stage: StageBuilder, x: int) -> int:
        first = stage.train("first", scope.builder.constant(1), "until")
        value = stage.neuron(
            "", "accumulator", bits + 2, leak=-1, leaks_if=(Gate(first, closes=True),), start=(held(x),)
        )
        stage.synapse(value, 1, step=0)
        low, high = scope.bounds(x)
        return stage.settled(value, 2, (low + 1) >> 1, (high + 1) >> 1)

    return scope.each(build, x, dtype=x.dtype)


def clamp(x: Tensor, low: int | None, high: int | None, bits: int, scope: Place) -> Tensor:
    """Return x limited to [low, high], for integers |x| <= 2^bits; None: no limit on that side.

    Each limit has one threshold neuron per element. If it fires, the limit replaces the element.
    """

    def build(stage: StageBuilder, x: int, *, limit: int, sign: int) -> int:
        beyond = stage.neuron("", "threshold", bits + 2, start=(held(x, sign),), threshold=(sign * limit,))
        value = stage.neuron("limited", "accumulator", bits + 2, start=(held(x),))
        stage.synapse(value, limit, beyond)
        stage.synapse(value, held(x, -1), beyond)
        lowest, highest = scope.bounds(x)
        if sign < 0:
            return stage.settled(value, 1, max(lowest, limit), max(highest, limit))
        return stage.settled(value, 1, min(lowest, limit), min(highest, limit))

    dtype = x.dtype
    for limit, name, sign in ((low, "low", -1), (high, "high", 1)):
        if limit is not None:
            x = (scope / name).each(partial(build, limit=limit, sign=sign), x, dtype=dtype)
    return x


def _shifted(x: int, places: int) -> int:
    return x << places if places >= 0 else x >> -places
