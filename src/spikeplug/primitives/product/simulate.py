"""Products by gating: a phase-coded spike train opens the synapse of the other operand, bit by bit.

v <- 2v + bit(t)·b        after all bits of a: v = a·b
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.coding import phase_code
from spikeplug.neurons import Events, integrate


def gate(spikes: Tensor, value: Tensor, bits: int, events: Events) -> Tensor:
    """spikes · value elementwise, 0 <= spikes < 2^bits, in `bits` steps; int64."""
    spikes, value = torch.broadcast_tensors(spikes.to(torch.int64), value.to(torch.int64))
    membrane = torch.zeros_like(value)
    if bits == 0:
        return membrane
    for bit in phase_code(spikes, bits):
        events.input(bit, fan_out=1)
        membrane = integrate(membrane, bit * value, events, leak=1)
    events.steps += bits
    return membrane


def accumulate(weight: Tensor, bits: int, events: Events) -> Tensor:
    """Sum over the last dimension, kept as 1: every phase-coded spike drives one common neuron."""
    ones = torch.ones(weight.shape[-1], 1, dtype=torch.int64, device=weight.device)
    return dot(weight, ones, bits, events)


def dot(weight: Tensor, value: Tensor, bits: int, events: Events) -> Tensor:
    """weight (..., m, k) @ value (..., k, n), 0 <= weight < 2^bits phase-coded, value in the synapses; int64."""
    membrane: Tensor | None = None
    value = value.to(torch.int64)
    for bit in phase_code(weight.to(torch.int64), bits):
        events.input(bit, fan_out=value.shape[-1])
        current = bit @ value
        resting = torch.zeros_like(current) if membrane is None else membrane
        membrane = integrate(resting, current, events, leak=1)
    events.steps += bits
    assert membrane is not None
    return membrane
