"""One exact leaky integrate-and-fire step over a population, and the events it causes.

    v <- leak(v) + I;   spike = [v >= threshold];   v <- v - threshold · spike       (soft reset, by subtraction)

All quantities are integers. The leak is a power of two, as hardware has it: 0 keeps v, +k multiplies it by 2^k (the
phase code's doubling), -k floors v / 2^k. Nothing is rounded anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Events:
    """What a simulation did; the currency of every energy model.

    spikes            spikes sent (a graded spike of value k counts k)
    synops            synaptic operations: spikes times fan-out
    membrane_updates  neuron updates, idle ones included
    compares          threshold compares
    steps             time steps, summed over the primitives that ran one after the other
    table_reads       table entries read

    Not neurons, and not counted: the row's maximum, the leading one that sets a vector's shift, variable shifts of a
    whole vector, the rounding of the guard bit, signs, constant products inside a table read.
    """

    spikes: int = 0
    synops: int = 0
    membrane_updates: int = 0
    compares: int = 0
    steps: int = 0
    table_reads: int = 0

    def __add__(self, other: Events) -> Events:
        return Events(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})

    def observe(self, membrane: Tensor, spikes: Tensor | None = None) -> None:
        """Told of every step of every population: the membranes before a reset, and the spikes of one with a threshold.

        Nothing is done with it here; what draws rasters overrides it.
        """

    def input(self, spikes: Tensor, fan_out: int) -> None:
        """Count arriving spikes, each delivered to `fan_out` synapses."""
        count = int(spikes.sum())
        self.spikes += count
        self.synops += count * fan_out


def integrate(membrane: Tensor, current: Tensor | int, events: Events, *, leak: int = 0) -> Tensor:
    """leak(v) + I of a neuron that only accumulates: no threshold, no spike. Returns the new membrane."""
    membrane = _charged(membrane, current, leak, events)
    events.observe(membrane)
    return membrane


def lif_step(
    membrane: Tensor,
    current: Tensor | int,
    threshold: Tensor | int,
    events: Events,
    *,
    leak: int = 0,
    enabled: Tensor | bool = True,
    fan_out: int = 1,
) -> tuple[Tensor, Tensor]:
    """One step of a population. Returns (spikes, membrane), `spikes` bool.

    membrane, current, threshold: integer tensors that broadcast to the population's shape.
    enabled: the go axon; where it is false, the neuron integrates but stays silent (an idle group must be silent
    although 0 >= 0).
    """
    membrane = _charged(membrane, current, leak, events)
    spikes = (membrane >= threshold) & torch.as_tensor(enabled, device=membrane.device)
    events.observe(membrane, spikes)
    events.compares += spikes.numel()
    events.input(spikes, fan_out)
    return spikes, membrane - spikes * torch.as_tensor(threshold, device=membrane.device)


def _charged(membrane: Tensor, current: Tensor | int, leak: int, events: Events) -> Tensor:
    """leak(v) + I, counted."""
    decayed = membrane << leak if leak >= 0 else membrane >> -leak
    membrane = decayed + current
    events.membrane_updates += membrane.numel()
    return membrane
