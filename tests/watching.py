"""Watch a simulation: every membrane and threshold fits the width its population states, and no name has two kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spikeplug.neurons import Events, Kind, Needs, Population, Scope, lif
from spikeplug.primitives.compare import simulate as compare
from spikeplug.primitives.divide import simulate as divide
from spikeplug.primitives.interpolation import simulate as interpolation
from spikeplug.primitives.norm import simulate as norm
from spikeplug.primitives.quantise import simulate as quantise
from spikeplug.primitives.relay import simulate as relay
from spikeplug.realisation import Realisation


def fits(x: Tensor | int, width: int) -> bool:
    """Return whether all of x are integers of `width` bits, their sign included."""
    low, high = (x, x) if isinstance(x, int) else (int(end) for end in torch.aminmax(x)) if x.numel() else (0, 0)
    return -(1 << width) <= 2 * low and 2 * high < 1 << width


class Watching(Events):
    """Count, and check every step: kinds, widths, and that spikes are bool; `seen` holds (name, neurons, spikes)."""

    def __init__(self, realisation: Realisation | None = None) -> None:
        super().__init__(realisation, observer=self._see)
        self.seen: list[tuple[str, int, int]] = []

    def population(
        self, name: str, kind: Kind, width: int = 0, neurons: int = 0, needs: Needs | None = None
    ) -> Population:
        found = super().population(name, kind, width, neurons, needs)
        assert found.kind == kind, f"{name} is a population of {found.kind} and of {kind} neurons"
        return found

    def _see(self, population: Population, membrane: Tensor, spikes: Tensor | None) -> None:
        assert fits(membrane, population.width), f"{population} is too narrow for {torch.aminmax(membrane)}"
        assert spikes is None or (spikes.dtype == torch.bool and population.kind == "threshold")
        self.seen.append((population.name, membrane.numel(), 0 if spikes is None else int(spikes.sum())))

    def check(self) -> None:
        """Check what is left when the simulation is over: names, kinds, widths, and that nothing else was counted."""
        for name, population in self.populations.items():
            assert name == population.name
            assert all(part and part == part.strip() for part in name.split("/")), name
            assert population.width > 0, f"{name} states no width"
            assert population.neurons > 0, f"{name} has no neurons"
            if population.kind == "input":
                assert not population.membrane_updates
            assert 0 <= population.driven_updates <= population.membrane_updates, name
            if population.kind != "threshold":
                assert not population.compares
            assert (population.kind == "table") == bool(population.table_reads), name
        assert sum(neurons for _, neurons, _ in self.seen) == self.membrane_updates


@pytest.fixture
def thresholds_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check every firing threshold against the width of its population, in all primitives."""

    def lif_step(membrane: Tensor, current: Any, threshold: Any, scope: Scope, **how: Any) -> Any:
        width = scope.population("threshold").width
        highest = threshold * how.get("levels", 1)
        assert fits(highest, width), f"{scope.name} of {width} bits is too narrow for its thresholds"
        return lif.lif_step(membrane, current, threshold, scope, **how)

    def ternary_step(membrane: Tensor, current: Any, threshold: Tensor, scope: Scope, **how: Any) -> Any:
        assert fits(threshold, scope.population("threshold").width), scope.name
        return lif.ternary_step(membrane, current, threshold, scope, **how)

    def population_step(current: Tensor, thresholds: Any, scope: Scope) -> Tensor:
        width = scope.population("threshold").width
        assert all(fits(threshold, width) for threshold in thresholds), f"{scope.name}: {width} bits"
        return lif.population_step(current, thresholds, scope)

    for module in (compare, divide, interpolation, norm, quantise, relay):
        steps = (lif_step, ternary_step, population_step)
        for name, wrapped in ((step.__name__, step) for step in steps):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, wrapped)
