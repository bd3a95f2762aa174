"""Multiply by gating: a phase-coded spike train opens the synapse of the other operand, bit by bit.

v <- 2v + bit(t)·b        after all bits of a: v = a·b
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes.spikes import phases, scheduled
from spikeplug.fixedpoint import matrix_product
from spikeplug.neurons import Scope, blocks, integrate, reached
from spikeplug.realisation import Schedule


def gate(spikes: Tensor, value: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return spikes · value, elementwise, int64, for integers 0 <= spikes < 2^bits.

    The bits of `spikes` arrive in `bits` time steps, highest first; each 1 adds `value` to a sum that doubles per step.
    """
    spikes, value = torch.broadcast_tensors(spikes, value)
    product = torch.zeros(value.shape, dtype=torch.int64, device=value.device)
    if bits == 0:
        return product
    value_bits = magnitude_bits(value)
    population = scope.population("accumulator", bits + value_bits + 1, value.numel())
    train = (scope / "operand").population("input", 1, value.numel())
    # |v| <= (2^bits - 1)·|value| at every step. So int32, twice as fast, suffices for bits + value_bits <= 31.
    dtype = torch.int32 if bits + value_bits <= 31 else torch.int64
    for operand, synapse, target in blocks(scope, spikes, value, product):
        synapse, membrane = synapse.to(dtype), torch.zeros_like(target, dtype=dtype)
        for bit in phases(operand, bits, dtype):
            arrived = train.send(bit, graded=False)
            integrate(membrane, bit * synapse, scope, leak=1, driven=arrived)
        target.copy_(membrane)
    population.steps += bits
    return product


def accumulate(weight: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the sum along the last dimension, kept with size 1, int64, for integers 0 <= weight < 2^bits.

    The bits of all elements of a row arrive at one neuron, highest first; its sum doubles at each step.
    """
    return dot(weight, None, bits, scope)


def dot(weight: Tensor, value: Tensor | None, bits: int, scope: Scope) -> Tensor:
    """Return weight (..., m, k) @ value (..., k, n); int64.

    weight: integers 0 <= weight < 2^bits, sent bit by bit, highest first.
    value: integers, the weights of the synapses; None is a column of ones.
    At each step, the neurons add the rows of `value` whose element of `weight` sends a spike.
    A float64 GEMM gives it exactly, as `matrix_product` keeps every partial sum within 2^53.
    """
    value_bits, fan_out = (0, 1) if value is None else (magnitude_bits(value), value.shape[-1])
    membrane: Tensor | None = None
    train = (scope / "operand").population("input", 1, weight.numel())
    width = bits + value_bits + max(1, weight.shape[-1]).bit_length() + 1
    for bit in phases(weight, bits, torch.int32 if bits <= 31 else torch.int64):
        train.send(bit, fan_out, graded=False)
        arrived = bit.sum(-1, keepdim=True, dtype=torch.int32)
        current = arrived if value is None else matrix_product(bit, value, 0, value_bits)
        if membrane is None:
            membrane = torch.zeros_like(current, dtype=torch.int64)
            scope.population("accumulator", width, membrane.numel())
        integrate(membrane, current, scope, leak=1, driven=reached(membrane, arrived))
    assert membrane is not None
    scope.population("accumulator").steps += bits
    return membrane


def signed_dot(
    a: Tensor, b: Tensor, bits: int, scope: Scope, schedule: Schedule = "bits", constant: bool = False
) -> Tensor:
    """Return a (..., m, k) @ b (..., k, n), int64, for integers |a| < 2^bits.

    schedule: how the integers of a are sent, see `Realisation`; it changes events, no sum.
    constant: whether b holds constants, not data; a simulation does the same with both.

    One population sends the positive elements of a, through synapses of weight b. Another sends the magnitudes of the
    negative ones, through synapses of -b. Both drive the same neurons.
    """
    if schedule != "bits":
        return _scheduled_dot(a, b, bits, scope, schedule)
    populations, wide = torch.cat([a.clamp(min=0), (-a).clamp(min=0)], -1), b.to(torch.int64)
    return dot(populations, torch.cat([wide, -wide], -2), bits, scope)


def _scheduled_dot(a: Tensor, b: Tensor, bits: int, scope: Scope, schedule: Schedule) -> Tensor:
    """Return a @ b, with the integers of a sent in another schedule than their bits."""
    value_bits, fan_out = magnitude_bits(b), b.shape[-1]
    train = (scope / "operand").population("input", bits, 2 * a.numel())
    width = bits + value_bits + max(1, a.shape[-1]).bit_length() + 2
    membrane: Tensor | None = None
    for spikes, leak in scheduled(a, bits, schedule):
        sent = spikes.abs()
        train.send(sent, fan_out)
        current = matrix_product(spikes, b, bits, value_bits)
        if membrane is None:
            membrane = torch.zeros_like(current, dtype=torch.int64)
            scope.population("accumulator", width, membrane.numel())
        integrate(membrane, current, scope, leak=leak, driven=reached(membrane, sent.sum(-1, keepdim=True)))
        scope.population("accumulator").steps += 1
    assert membrane is not None
    return membrane


def magnitude_bits(x: Tensor) -> int:
    """Return how many binary digits the largest |x| has; 0 if x is empty."""
    return max(abs(int(end)) for end in torch.aminmax(x)).bit_length() if x.numel() else 0
