"""Step a population of leaky integrate-and-fire neurons, exactly, and count the events.

    v <- leak(v) + I;   spike = [v >= threshold];   v <- v - threshold · spike       (soft reset, by subtraction)

All quantities are integers. The leak is a power of two, as hardware has it: 0 keeps v, +k multiplies it by 2^k (the
phase code's doubling), -k floors v / 2^k. Nothing is rounded anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from spikeplug.neurons.events import Scope

#: Neurons per block: an int32 membrane, threshold, current, spikes and code of this many stay in a core's second-level
#: cache, and torch runs one thread on them, so no step waits for other threads. No result or count depends on it.
_BLOCK = 1 << 15


def integrate(
    membrane: Tensor, current: Tensor | int, scope: Scope, *, leak: int = 0, leaking: Tensor | None = None
) -> Tensor:
    """Step neurons that only accumulate, v <- leak(v) + I, in place; return the membrane.

    membrane: an integer tensor of the population's shape; current: an integer tensor that broadcasts to it.
    leaking: for a leak of one place, 0 or 1 per neuron in the membrane's dtype: only those of 1 leak. None: all do.
    """
    population = scope.population("accumulator")
    _charge(membrane, current, leak, leaking)
    population.membrane_updates += membrane.numel()
    if scope.watched:
        scope.observe(population, membrane)
    return membrane


def lif_step(
    membrane: Tensor,
    current: Tensor | int,
    threshold: Tensor | int,
    scope: Scope,
    *,
    leak: int = 0,
    enabled: Tensor | bool = True,
    fan_out: int = 1,
) -> tuple[Tensor, Tensor]:
    """Step neurons with a threshold; return (spikes, membrane): spikes 0 or 1 in the membrane's dtype, the membrane.

    membrane: an integer tensor of the population's shape, stepped in place. current, threshold: integer tensors that
    broadcast to it.
    enabled: the go axon; where it is false, the neuron integrates but stays silent (an idle group must be silent
    although 0 >= 0).
    """
    population = scope.population("threshold")
    _charge(membrane, current, leak)
    population.membrane_updates += membrane.numel()
    # Compared into integers: 0 or 1, ready to be multiplied and summed, is faster in torch than bool is.
    spikes = torch.ge(membrane, threshold, out=torch.empty_like(membrane))
    if enabled is not True:
        spikes *= enabled
    if scope.watched:
        scope.observe(population, membrane, spikes.to(torch.bool))
    population.compares += spikes.numel()
    population.send(spikes, fan_out, graded=False)
    if isinstance(threshold, Tensor):
        membrane.addcmul_(spikes, threshold, value=-1)
    else:
        membrane.sub_(spikes, alpha=threshold)
    return spikes, membrane


def population_step(current: Tensor, thresholds: Sequence[int], scope: Scope) -> Tensor:
    """Step ordered populations that rest at 0, one per element of `current`, which all its neurons receive.

    Returns how many neurons fire, in the shape and dtype of `current`. thresholds: one per neuron, within the dtype.
    Neuron after neuron over all populations, so nothing is as large as all neurons together, unless watched.
    """
    population = scope.population("threshold")
    if scope.watched:
        membrane = current.unsqueeze(-1).expand(*current.shape, len(thresholds))
        order = torch.tensor(thresholds, dtype=current.dtype, device=current.device)
        scope.observe(population, membrane, membrane >= order)
    fired = torch.zeros_like(current)
    spikes = torch.empty_like(fired)
    for threshold in thresholds:
        fired += torch.ge(current, threshold, out=spikes)
    population.membrane_updates += current.numel() * len(thresholds)
    population.compares += current.numel() * len(thresholds)
    population.send(fired)
    return fired


def blocks(scope: Scope, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield independent neurons, given by tensors of one shape, in flat blocks that stay in cache.

    A contiguous tensor's blocks are views, to be written to. Where somebody watches, all come whole, as they are.
    """
    if scope.watched or tensors[0].numel() <= _BLOCK:
        yield tensors
    else:
        yield from zip(*(x.reshape(-1).split(_BLOCK) for x in tensors), strict=True)


def row_blocks(scope: Scope, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield rows whose neurons depend on each other, given by tensors (..., any) of the same rows, as `blocks` does."""
    widest = max(x.shape[-1] for x in tensors)
    if scope.watched or tensors[0][..., 0].numel() * widest <= _BLOCK:
        yield tensors
    else:
        yield from zip(*(x.reshape(-1, x.shape[-1]).split(max(1, _BLOCK // widest)) for x in tensors), strict=True)


def _charge(membrane: Tensor, current: Tensor | int, leak: int, leaking: Tensor | None = None) -> None:
    """Apply leak(v) + I in place."""
    if leak:
        places = abs(leak) if leaking is None else leaking
        if leak > 0:
            membrane <<= places
        else:
            membrane >>= places
    if isinstance(current, Tensor) or current:
        membrane += current
