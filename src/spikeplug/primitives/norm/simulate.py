"""Compute norms by neurons: squares by gating or by a population, the restoring root, the CORDIC tree."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes.counting import ones
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Scope, integrate, lif_step, population_step
from spikeplug.primitives.norm.closed import tree
from spikeplug.primitives.norm.spec import CordicSpec, RootSpec
from spikeplug.primitives.product.simulate import gate

#: Neurons per ordered population that can be simulated.
MOST_ORDERED = 1 << 16


def square_sum(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the sum of squares along the last dimension, kept with size 1, int64, for integers |x| < 2^bits.

    |x| is sent bit by bit; each spike opens a synapse whose weight is |x| itself.
    All squares of a vector drive one neuron.
    """
    magnitude = x.to(torch.int64).abs()
    return _summed(gate(magnitude, magnitude, bits, scope / "square"), bits, scope)


def square_sum_ordered(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the sum of squares along the last dimension, kept with size 1, int64, for integers |x| < 2^bits.

    A population of 2^bits neurons with the thresholds 1, 2, 3, ... squares each number in one time step.

    Errors: SpikeplugError if that is more neurons than can be simulated.
    """
    check_ordered(1 << bits)
    return _summed(square_population(x.abs(), 1 << bits, scope / "square"), bits, scope)


def _summed(squares: Tensor, bits: int, scope: Scope) -> Tensor:
    total = squares.new_zeros(*squares.shape[:-1], 1)
    population = scope.population("accumulator", 2 * bits + squares.shape[-1].bit_length() + 1, total.numel())
    population.synops += squares.numel()
    population.steps += 1
    return integrate(total, squares.sum(-1, keepdim=True), scope)


def square_population(x: Tensor, neurons: int, scope: Scope) -> Tensor:
    """Return x² for integers 0 <= x <= neurons, in one time step.

    Neuron k = 1, 2, ..., `neurons` fires iff x >= k, and has the weight 2k - 1. Those that fire sum up to x².
    """
    order = torch.arange(1, neurons + 1, device=x.device)
    resting = torch.zeros(*x.shape, neurons, dtype=torch.int64, device=x.device)
    scope.population("threshold", neurons.bit_length() + 1, resting.numel()).steps += 1
    spikes, _ = lif_step(resting, x.to(torch.int64).unsqueeze(-1), order, scope)
    return (spikes * (2 * order - 1)).sum(-1)


def root_population(square: Tensor, neurons: int, scope: Scope) -> Tensor:
    """Return floor(sqrt(square)), at most `neurons`, in one time step.

    Neuron k = 1, 2, ..., `neurons` fires iff square >= k²; the number of neurons that fire is the root.
    """
    scope.population("threshold", 2 * neurons.bit_length() + 1, square.numel() * neurons).steps += 1
    return population_step(square.to(torch.int64), [k * k for k in range(1, neurons + 1)], scope)


def root_ordered(square: Tensor, spec: RootSpec, scope: Scope) -> Tensor:
    """Return floor(sqrt(square)), int64, in one time step: neuron k fires iff square >= k²; the count is the root.

    Errors: SpikeplugError if it needs more neurons than can be simulated.
    """
    check_ordered(1 << spec.root_bits)
    return root_population(square, (1 << spec.root_bits) - 1, scope)


def root(square: Tensor, spec: RootSpec, scope: Scope) -> Tensor:
    """Return floor(sqrt(square)), int64, by one neuron per element, which finds one bit of the root per step.

    Its membrane v becomes 4v + the next two bits of `square`, highest first. Q is the root so far.
    It fires iff v >= 4Q + 1, which is then subtracted from v. Q becomes 2Q + 1 if it fires, else 2Q.
    """
    square = square.to(torch.int64)
    membrane, answer = torch.zeros_like(square), torch.zeros_like(square)
    neuron = scope.population("threshold", spec.root_bits + 3, square.numel())
    readout = scope / "root"
    readout.population("accumulator", spec.root_bits + 1, square.numel())
    train = (scope / "square").population("input", 2, square.numel())
    for step in range(spec.root_bits - 1, -1, -1):
        pair = (square >> (2 * step)) & 3
        train.send((pair & 1) + (pair >> 1))
        spikes, membrane = lif_step(membrane, pair, 4 * answer + 1, scope, leak=2)
        integrate(answer, spikes, readout, leak=1)
    neuron.steps += spec.root_bits
    return answer


def cordic(x: Tensor, spec: CordicSpec, scope: Scope) -> Tensor:
    """Approximate the L2 norm of integers x >= 0 along the last dimension, kept with size 1, int64.

    A binary tree merges two numbers at a time into the root of their sum of squares, by CORDIC rotations.
    In each rotation, a neuron tells the sign of the second number, which decides whether to add or to subtract.
    """
    return tree(x, lambda x, y, level: _merge(x, y, spec.merge_bits(level), spec, scope))


def _merge(x: Tensor, y: Tensor, bits: int, spec: CordicSpec, scope: Scope) -> Tensor:
    size = x.numel()
    (scope / "sign").population("threshold", bits + 1, size).steps += spec.iterations
    for name in ("x", "y"):
        (scope / name).population("accumulator", bits + 1, size)
    x, y = x << spec.guard_bits, y << spec.guard_bits
    for k in range(spec.iterations):
        upper, _ = lif_step(torch.zeros_like(y), y, 0, scope / "sign", fan_out=2)
        # A spike adds the shifted other coordinate; no spike subtracts it.
        sign = 2 * upper - 1
        to_x, to_y = sign * (y >> k), -sign * (x >> k)
        integrate(x, to_x, scope / "x")
        integrate(y, to_y, scope / "y")
    # A constant synapse removes the gain: one spike train of x, one neuron.
    gain = scope / "gain"
    population = gain.population("accumulator", bits + spec.gain_bits + 1, size)
    (gain / "operand").population("input", 1, size).sent(ones(x))
    total = torch.zeros_like(x)
    for place in range(bits - 1, -1, -1):
        integrate(total, ((x >> place) & 1) * spec.inverse_gain, gain, leak=1)
    population.steps += bits
    drop = spec.guard_bits + spec.gain_bits
    return (total + (1 << (drop - 1))) >> drop


def check_ordered(neurons: int) -> None:
    if neurons > MOST_ORDERED:
        raise SpikeplugError(
            f"an ordered norm needs {neurons:,} neurons per number here, more than the {MOST_ORDERED:,} that can be "
            "simulated: use norm='restoring', or fewer working_bits."
        )
