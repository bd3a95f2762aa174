"""One exact leaky integrate-and-fire step over a population, and the events it causes.

    v <- leak(v) + I;   spike = [v >= threshold];   v <- v - threshold · spike       (soft reset, by subtraction)

All quantities are integers. The leak is a power of two, as hardware has it: 0 keeps v, +k multiplies it by 2^k (the
phase code's doubling), -k floors v / 2^k. Nothing is rounded anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeplug.realisation import Realisation

#: Neurons per block: an int32 membrane, threshold, current, spikes and code of so many stay in a core's second-level
#: cache, and torch runs one thread on them, so no step waits for other threads. No result or count depends on it.
_BLOCK = 1 << 15


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

    realisation: Realisation | None = None
    spikes: int = 0
    synops: int = 0
    membrane_updates: int = 0
    compares: int = 0
    steps: int = 0
    table_reads: int = 0

    def __add__(self, other: Events) -> Events:
        counts = (name for name in self.__dataclass_fields__ if name != "realisation")
        return Events(self.realisation, **{name: getattr(self, name) + getattr(other, name) for name in counts})

    def observe(self, membrane: Tensor, spikes: Tensor | None = None) -> None:
        """Told of every step of every population: the membranes before a reset, and the spikes of one with a threshold.

        Nothing is done with it here; what draws rasters overrides it.
        """

    @property
    def watched(self) -> bool:
        """Whether somebody listens to `observe`. Where nobody does, steps are not told, and populations run cut."""
        return type(self).observe is not Events.observe

    def input(self, spikes: Tensor, fan_out: int, *, graded: bool = True) -> None:
        """Count arriving spikes, each delivered to `fan_out` synapses. graded: a spike of value k counts k; else all
        are 0 or 1, and fewer than 2^31, so that 32 bits, three times as fast, hold their sum."""
        count = int(spikes.sum(dtype=torch.int64 if graded else torch.int32))
        self.spikes += count
        self.synops += count * fan_out


def integrate(membrane: Tensor, current: Tensor | int, events: Events, *, leak: int = 0) -> Tensor:
    """v <- leak(v) + I of neurons that only accumulate: no threshold, no spike. In place; returns the membrane.

    membrane: an integer tensor of the population's shape; current: an integer tensor that broadcasts to it.
    """
    _charge(membrane, current, leak, events)
    if events.watched:
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
    """One step of a population. Returns (spikes, membrane): spikes 0 or 1 in the membrane's dtype, the membrane itself.

    membrane: an integer tensor of the population's shape, stepped in place. current, threshold: integer tensors that
    broadcast to it.
    enabled: the go axon; where it is false, the neuron integrates but stays silent (an idle group must be silent
    although 0 >= 0).
    """
    _charge(membrane, current, leak, events)
    # Compared into integers: 0 or 1, ready to be multiplied and summed, is faster in torch than bool is.
    spikes = torch.ge(membrane, threshold, out=torch.empty_like(membrane))
    if enabled is not True:
        spikes *= enabled
    if events.watched:
        events.observe(membrane, spikes.to(torch.bool))
    events.compares += spikes.numel()
    events.input(spikes, fan_out, graded=False)
    membrane -= spikes * threshold
    return spikes, membrane


def population_step(current: Tensor, thresholds: Sequence[int], events: Events) -> Tensor:
    """One step of populations that rest at 0, one for each element of `current`, which all its neurons receive: how
    many of them fire; shape and dtype of `current`.

    thresholds: one a neuron, within the dtype. Neuron after neuron over all populations, so nothing is as large as all
    neurons together, unless watched.
    """
    if events.watched:
        membrane = current.unsqueeze(-1).expand(*current.shape, len(thresholds))
        order = torch.tensor(thresholds, dtype=current.dtype, device=current.device)
        events.observe(membrane, membrane >= order)
    fired = torch.zeros_like(current)
    spikes = torch.empty_like(fired)
    for threshold in thresholds:
        fired += torch.ge(current, threshold, out=spikes)
    events.membrane_updates += current.numel() * len(thresholds)
    events.compares += current.numel() * len(thresholds)
    events.input(fired, fan_out=1)
    return fired


def blocks(events: Events, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Neurons that know nothing of each other, given by tensors of one shape, in flat blocks that stay in cache.

    A contiguous tensor's blocks are views, to be written to. Whole, as they are, for whoever watches.
    """
    if events.watched or tensors[0].numel() <= _BLOCK:
        yield tensors
    else:
        yield from zip(*(x.reshape(-1).split(_BLOCK) for x in tensors), strict=True)


def _charge(membrane: Tensor, current: Tensor | int, leak: int, events: Events) -> None:
    """leak(v) + I in place, counted."""
    if leak > 0:
        membrane <<= leak
    elif leak < 0:
        membrane >>= -leak
    if isinstance(current, Tensor) or current:
        membrane += current
    events.membrane_updates += membrane.numel()
