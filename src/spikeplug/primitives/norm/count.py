"""Predict what the neurons of norms do. No time step runs."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes.counting import ones
from spikeplug.neurons import Needs, Scope, reached
from spikeplug.primitives.compare import count as compare
from spikeplug.primitives.norm import closed
from spikeplug.primitives.norm.spec import CordicSpec, RootSpec
from spikeplug.primitives.product import count as product


def square_sum(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the sum of squares along the last dimension, kept with size 1, int64, for integers |x| < 2^bits."""
    product.gated(x, x, bits, scope / "square")
    return _summed(x, bits, Needs(fan_in=x.shape[-1], arriving_bits=2 * bits), scope)


def square_sum_ordered(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the sum of squares along the last dimension, kept with size 1, int64, for integers |x| < 2^bits.

    Of the 2^bits neurons of a number x, |x| fire.
    """
    neurons = 1 << bits
    compare.ordered(x, neurons, int(x.abs().sum()), bits + 2, scope / "square")
    odd = Needs(fan_in=x.shape[-1] * neurons, weight_bits=bits + 1, weights=neurons)  # 1, 3, ..., 2·neurons - 1
    return _summed(x, bits, odd, scope)


def _summed(x: Tensor, bits: int, needs: Needs, scope: Scope) -> Tensor:
    total = closed.square_sum(x)
    population = scope.population("accumulator", 2 * bits + x.shape[-1].bit_length() + 1, total.numel(), needs)
    population.synops += x.numel()
    population.updated(total.numel(), reached(total, total))
    population.steps += 1
    return total


def root_ordered(square: Tensor, spec: RootSpec, scope: Scope) -> Tensor:
    """Return floor(sqrt(square)), int64: so many of the 2^root_bits - 1 neurons of a number fire."""
    answer, neurons = closed.root(square, spec), (1 << spec.root_bits) - 1
    compare.ordered(square, neurons, int(answer.sum()), 2 * spec.root_bits + 1, scope)
    return answer


def root(square: Tensor, spec: RootSpec, scope: Scope) -> Tensor:
    """Return floor(sqrt(square)), int64, by one neuron per element: the ones of the root are its spikes.

    It is driven where one of the two bits that arrive in a step is 1.
    """
    answer, size = closed.root(square, spec), square.numel()
    square = square.to(torch.int64)
    fired, updates = ones(answer), size * spec.root_bits
    restoring = Needs(
        leak=4.0,
        threshold="moving",
        threshold_bits=spec.root_bits + 2,
        soft_reset=True,
        fan_in=2,  # for the two bits that arrive in a step
        weight_bits=2,
        weights=2,
    )
    neuron = scope.population("threshold", spec.root_bits + 3, size, restoring)
    neuron.sent(fired)
    neuron.updated(updates, ones((square | square >> 1) & _LOWER))
    neuron.compares += updates
    neuron.steps += spec.root_bits
    (scope / "root").population("accumulator", spec.root_bits + 1, size, Needs(leak=2.0)).updated(updates, fired)
    (scope / "square").population("input", 2, size).sent(ones(square))
    return answer


#: The lower bit of every pair of bits.
_LOWER = 0x5555555555555555


def cordic(x: Tensor, spec: CordicSpec, scope: Scope) -> Tensor:
    """Approximate the L2 norm of integers x >= 0 along the last dimension, kept with size 1, int64.

    There is no shorter way to the signs of y than the rotations themselves. They run, as in the closed form, for all
    merges of a level of the tree at once.
    """
    return closed.tree(x, lambda x, y, level: _merge(x, y, spec.merge_bits(level), spec, scope))


def _merge(x: Tensor, y: Tensor, bits: int, spec: CordicSpec, scope: Scope) -> Tensor:
    size = x.numel()
    of_y = Needs(leak=0.0, threshold="constant", arriving_bits=bits)
    sign = (scope / "sign").population("threshold", bits + 1, size, of_y)
    turned = Needs(gated=True, arriving_bits=bits)
    to_x, to_y = ((scope / name).population("accumulator", bits + 1, size, turned) for name in ("x", "y"))
    *turning, (x, _) = closed.rotations(x, y, spec)
    for k, (before, y) in enumerate(turning):
        sign.sent(int(torch.count_nonzero(y >= 0)), 2)
        for population, arriving in ((sign, y), (to_x, y >> k), (to_y, before >> k)):
            population.updated(size, reached(arriving, arriving))
    sign.compares += size * spec.iterations
    sign.steps += spec.iterations
    gain, arrived = scope / "gain", ones(x)
    constant = Needs(leak=2.0, weight_bits=spec.inverse_gain.bit_length())
    population = gain.population("accumulator", bits + spec.gain_bits + 1, size, constant)
    population.updated(size * bits, arrived)
    population.steps += bits
    (gain / "operand").population("input", 1, size).sent(arrived)
    return closed.without_gain(x, spec)
