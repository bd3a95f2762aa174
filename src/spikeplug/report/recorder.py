"""Record rasters: spikes and membranes of small populations while they are simulated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

# What is kept of a population: spikes of some neurons of some groups, and a few membranes.
_GROUPS, _NEURONS, _TRACES = 12, 64, 6


class Population(Protocol):
    """List what a raster needs to know of a `neurons.Population`: name, kind, and width in bits."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def width(self) -> int: ...


@dataclass
class Raster:
    """Hold the spikes and membranes of some neurons of one population, step by step.

    name, kind, width   of the population; width in bits
    groups, size        `groups` groups (one per element of the input) of `size` neurons each; neurons are numbered
                        throughout, from 0
    membranes           per step, the membranes of the neurons in `traced`
    spikes              per step, the numbers of the neurons in `shown` that fired
    """

    name: str
    kind: str
    width: int
    groups: int
    size: int
    membranes: list[list[int]] = field(default_factory=list)
    spikes: list[list[int]] = field(default_factory=list)

    def keep(self, membrane: Tensor, spikes: Tensor | None) -> None:
        """Add one time step.

        membrane  integers, of the shape of the whole population
        spikes    nonzero where a neuron fired, broadcastable to `membrane`; None for a population without thresholds
        """
        self.membranes.append(membrane.reshape(-1)[self.traced].tolist())
        fired = self.shown[:0] if spikes is None else self._fired(membrane, spikes)
        self.spikes.append(fired.tolist())

    def _fired(self, membrane: Tensor, spikes: Tensor) -> Tensor:
        return self.shown[spikes.expand(membrane.shape).reshape(-1)[self.shown].to(torch.bool)]

    @property
    def shown(self) -> Tensor:
        """Return the numbers of the neurons whose spikes are kept."""
        return (_spread(self.groups, _GROUPS)[:, None] * self.size + _spread(self.size, _NEURONS)).flatten()

    @property
    def traced(self) -> Tensor:
        """Return the numbers of the neurons whose membranes are kept: one per group, or several of one group.

        At most 6.
        """
        if self.groups == 1:
            return _spread(self.size, _TRACES)
        return _spread(self.groups, _TRACES) * self.size + self.size // 2

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; spikes are [step, neuron] pairs, membranes one list per traced neuron."""
        return {
            "name": self.name,
            "kind": self.kind,
            "width": self.width,
            "groups": self.groups,
            "size": self.size,
            "steps": len(self.membranes),
            "spikes": [[step, neuron] for step, fired in enumerate(self.spikes) for neuron in fired],
            "traced": self.traced.tolist(),
            "membranes": [list(trace) for trace in zip(*self.membranes, strict=True)],
        }


class Recorder:
    """Observe a simulation (`neurons.Events`): keep one raster per population and shape, in the order they start."""

    def __init__(self) -> None:
        self._rasters: dict[tuple[str, torch.Size], Raster] = {}

    def __call__(self, population: Population, membrane: Tensor, spikes: Tensor | None = None) -> None:
        """Keep one step of a population: its membranes before a reset, and its spikes if it has a threshold."""
        key = (population.name, membrane.shape)
        if key not in self._rasters:
            size = membrane.shape[-1] if membrane.dim() else 1
            groups = membrane.numel() // max(1, size)
            self._rasters[key] = Raster(population.name, population.kind, population.width, groups, size)
        self._rasters[key].keep(membrane, spikes)

    @property
    def rasters(self) -> list[Raster]:
        """Return all rasters recorded so far, in the order of their first steps."""
        return list(self._rasters.values())


def _spread(count: int, most: int) -> Tensor:
    """Return at most `most` indices, int64, evenly spaced from 0 to count - 1."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().to(torch.int64)
