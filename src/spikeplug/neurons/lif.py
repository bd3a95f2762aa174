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
    membrane: Tensor,
    current: Tensor | int,
    scope: Scope,
    *,
    leak: int = 0,
    leaking: Tensor | None = None,
    driven: int | None = None,
) -> Tensor:
    """Step neurons that only add up: scale the membrane by 2^leak, add `current`, in place; return the membrane.

    membrane: an integer tensor of the population's shape; current: an integer tensor that broadcasts to it, or an
    integer: a bias.
    leaking: for leak = 1 or -1, 0 or 1 per neuron, in the membrane's dtype; neurons with 0 skip it. None: all leak.
    driven: how many neurons an input arrives at; None: those whose current is not 0, none for a bias. Inputs may cancel
    in the current, or meet a synapse of weight 0: then the caller counts them.
    """
    population = scope.population("accumulator")
    population.updated(membrane.numel(), reached(membrane, current) if driven is None else driven)
    _charge(membrane, current, leak, leaking)
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
    driven: int | None = None,
    fan_out: int = 1,
    levels: int = 1,
) -> tuple[Tensor, Tensor]:
    """Step neurons with a threshold, and return (spikes, membrane); spikes are 0 or 1 in the membrane's dtype.

    A neuron scales its membrane by 2^leak, adds `current`, and fires where the threshold is reached, which is then
    subtracted.

    membrane: an integer tensor of the population's shape, stepped in place. current, threshold: integer tensors that
    broadcast to it.
    enabled: bool or 0/1; where it is false, the neuron integrates but stays silent.
    driven: how many neurons an input arrives at; None: those whose current is not 0.
    fan_out: the number of synapses that each spike is counted for.
    levels: neurons per element. They share its membrane; neuron i = 1, 2, ... has the threshold i · `threshold`, and
    each that fires subtracts `threshold` once. Spikes are then their number, 0 to `levels`.
    """
    population = scope.population("threshold")
    arrived = reached(membrane, current) if driven is None else driven
    population.updated(membrane.numel() * levels, arrived * levels)
    _charge(membrane, current, leak)
    # Compared into integers: 0 or 1, ready to be multiplied and summed, is faster in torch than bool is.
    spikes = torch.ge(membrane, threshold, out=torch.empty_like(membrane))
    for neuron in range(2, levels + 1):
        spikes += membrane >= neuron * threshold
    if enabled is not True:
        spikes *= enabled
    if scope.watched and levels == 1:
        scope.observe(population, membrane, spikes.to(torch.bool))
    elif scope.watched:  # the neurons of an element along a last dimension; those that fire are the first ones
        order = torch.arange(levels, device=membrane.device)
        scope.observe(population, membrane.unsqueeze(-1).expand(*membrane.shape, levels), spikes.unsqueeze(-1) > order)
    population.compares += spikes.numel() * levels
    population.send(spikes, fan_out, graded=levels > 1)
    if isinstance(threshold, Tensor):
        membrane.addcmul_(spikes, threshold, value=-1)
    else:
        membrane.sub_(spikes, alpha=threshold)
    return spikes, membrane


def ternary_step(
    membrane: Tensor,
    current: Tensor | int,
    threshold: Tensor | int,
    scope: Scope,
    *,
    rising: Tensor,
    falling: Tensor,
    driven: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Step neurons that send spikes of both signs, and return (spikes, membrane); spikes are -1, 0 or 1.

    A neuron adds `current`. It sends 1 where v >= threshold, and -1 where v < 0. The threshold times the spike is then
    subtracted. Each step compares twice.

    membrane: an integer tensor of the population's shape, stepped in place. current, threshold: integer tensors that
    broadcast to it.
    rising, falling: bool tensors; where one is false, that sign is not sent.
    driven: how many neurons an input arrives at; None: those whose current is not 0.
    """
    population = scope.population("threshold")
    population.updated(membrane.numel(), reached(membrane, current) if driven is None else driven)
    _charge(membrane, current, 0)
    upper, lower = (membrane >= threshold) & rising, (membrane < 0) & falling
    if scope.watched:
        scope.observe(population, membrane, upper | lower)
    population.compares += 2 * membrane.numel()
    population.sent(int(torch.count_nonzero(upper | lower)))
    spikes = upper.to(membrane.dtype) - lower.to(membrane.dtype)
    membrane -= spikes * threshold
    return spikes, membrane


def population_step(current: Tensor, thresholds: Sequence[int], scope: Scope) -> Tensor:
    """Return, for each element of the integer tensor `current`, how many of `thresholds` it reaches.

    Each element has a population with one neuron per threshold. All neurons start at 0 and receive the element.
    The result has the shape and dtype of `current`, which must also hold the thresholds.
    Memory does not grow with the number of thresholds, unless `scope` has an observer.
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
    population.updated(current.numel() * len(thresholds), reached(current, current) * len(thresholds))
    population.compares += current.numel() * len(thresholds)
    population.send(fired)
    return fired


def reached(neurons: Tensor, arriving: Tensor | int) -> int:
    """Return at how many of the neurons an input arrives in this step: where `arriving`, which broadcasts, is not 0.

    An integer is a bias: it arrives at none.
    """
    if not isinstance(arriving, Tensor) or not arriving.numel():
        return 0
    return int(torch.count_nonzero(arriving)) * (neurons.numel() // arriving.numel())


def blocks(scope: Scope, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield tensors of one shape, an element per independent neuron, cut into flat blocks that fit the cache.

    The blocks of a contiguous tensor are views, which may be written to. With an observer, the tensors come uncut.
    """
    if scope.watched or tensors[0].numel() <= _BLOCK:
        yield tensors
    else:
        yield from zip(*(x.reshape(-1).split(_BLOCK) for x in tensors), strict=True)


def row_blocks(scope: Scope, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield tensors (..., any) of the same leading shape, cut into blocks of whole rows that fit the cache.

    For neurons that depend on others of their row. With an observer, the tensors come uncut.
    """
    widest = max(x.shape[-1] for x in tensors)
    if scope.watched or tensors[0][..., 0].numel() * widest <= _BLOCK:
        yield tensors
    else:
        yield from zip(*(x.reshape(-1, x.shape[-1]).split(max(1, _BLOCK // widest)) for x in tensors), strict=True)


def _charge(membrane: Tensor, current: Tensor | int, leak: int, leaking: Tensor | None = None) -> None:
    """Scale the membrane by 2^leak (rounding down), where `leaking` is 1 or None, then add `current`, in place."""
    if leak:
        places = abs(leak) if leaking is None else leaking
        if leak > 0:
            membrane <<= places
        else:
            membrane >>= places
    if isinstance(current, Tensor) or current:
        membrane += current
