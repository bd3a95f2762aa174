"""Rasters: spikes and membranes of small populations, recorded while they are simulated."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from spikeplug.neurons import Events

# What is kept of a population: spikes of so many neurons of so many groups, and a few membranes.
_GROUPS, _NEURONS, _TRACES = 12, 64, 6


@dataclass(eq=False)
class Recorder(Events):
    """Counts events like any other, and keeps what `observe` is told, one population after the other.

    A population is what one line of one call of a primitive steps: the restoring neuron of a division, say. Of a large
    one, evenly spaced neurons are kept.
    """

    populations: list[Population] = field(default_factory=list)
    _by_line: dict[tuple[FrameType, int, int], Population] = field(default_factory=dict)

    def observe(self, membrane: Tensor, spikes: Tensor | None = None) -> None:
        primitive = sys._getframe(2)  # whoever called integrate or lif_step
        key = (primitive, primitive.f_lineno, membrane.numel())
        if key not in self._by_line:
            name = primitive.f_code.co_name.strip("_")
            size = membrane.shape[-1] if membrane.dim() else 1
            self._by_line[key] = Population(name, membrane.numel() // max(1, size), size, spikes is not None)
            self.populations.append(self._by_line[key])
        self._by_line[key].keep(membrane, spikes)

    def done(self) -> None:
        """Let go of the calls."""
        self._by_line.clear()


@dataclass
class Population:
    """primitive: the simulating function; threshold: whether it spikes. Each step adds to the lists.

    The neurons are so many groups (an element's quotient, say) of `size` neurons, and numbered through.
    """

    primitive: str
    groups: int
    size: int
    threshold: bool
    membranes: list[list[int]] = field(default_factory=list)
    spikes: list[list[int]] = field(default_factory=list)

    def keep(self, membrane: Tensor, spikes: Tensor | None) -> None:
        """One step."""
        self.membranes.append(membrane.reshape(-1)[self.traced].tolist())
        if spikes is not None:
            fired = spikes.expand(membrane.shape).reshape(-1)[self.shown]
            self.spikes.append(self.shown[fired].tolist())

    @property
    def shown(self) -> Tensor:
        """Whose spikes are kept."""
        return (_spread(self.groups, _GROUPS)[:, None] * self.size + _spread(self.size, _NEURONS)).flatten()

    @property
    def traced(self) -> Tensor:
        """Whose membranes are kept: one neuron of each group, or several of one."""
        if self.groups == 1:
            return _spread(self.size, _TRACES)
        return _spread(self.groups, _TRACES) * self.size + self.size // 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values: spikes as [step, neuron] pairs."""
        return {
            "primitive": self.primitive,
            "groups": self.groups,
            "size": self.size,
            "threshold": self.threshold,
            "steps": len(self.membranes),
            "spikes": [[step, neuron] for step, fired in enumerate(self.spikes) for neuron in fired],
            "traced": self.traced.tolist(),
            "membranes": [list(trace) for trace in zip(*self.membranes, strict=True)],
        }


def _spread(count: int, most: int) -> Tensor:
    """At most so many places, evenly spaced from the first to the last."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().to(torch.int64)
