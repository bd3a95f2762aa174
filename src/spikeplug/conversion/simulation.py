"""Count the events of a converted model: simulate every spiking operator neuron by neuron, or predict its events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from rich.table import Table
from torch import nn

from spikeplug import nn as spiking
from spikeplug.conversion.attention import PLUG
from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.tracking import Running
from spikeplug.errors import SpikeplugError
from spikeplug.library.dispatch import counted_by
from spikeplug.neurons import COUNTS, Events, Population, total
from spikeplug.numerics import Numerics
from spikeplug.presets import as_realisation
from spikeplug.realisation import Realisation


@dataclass(frozen=True)
class SimulatedEntry:
    """Count one operator in one module, over all its calls.

    path      module path; empty for the model itself; children of the module have their own entries
    operator  name of the operator
    calls     number of executions
    events    the events of all these executions together
    """

    path: str
    operator: str
    calls: int
    events: Events


class Simulation:
    """Hold the events of a simulated or counted model so far; complete when the `with` block is left.

    realisation: the neurons that are simulated; None: those of the preset with each operator's numerics.
    predicted: whether the events are predicted, without time steps.
    """

    def __init__(self, running: Running, realisation: Realisation | None = None, predicted: bool = False) -> None:
        self.realisation, self.predicted = realisation, predicted
        self._running, self._lock = running, Lock()
        self._events: dict[tuple[str, str], Events] = {}
        self._calls: Counter[tuple[str, str]] = Counter()

    def wants(self) -> bool:
        """Return whether the model is running; operators run outside of it are not counted."""
        return self._running.inside

    def add(self, operator: str, events: Events) -> None:
        """Count one call of `operator` with its events, at the path of the module that is running."""
        place = (self._running.path, operator)
        with self._lock:
            self._calls[place] += 1
            self._events[place] = self._events.get(place, self._none()) + events

    @property
    def entries(self) -> tuple[SimulatedEntry, ...]:
        """Return one entry per path and operator, in order of first execution."""
        with self._lock:
            return tuple(
                SimulatedEntry(path, operator, self._calls[path, operator], events)
                for (path, operator), events in self._events.items()
            )

    @property
    def total(self) -> Events:
        """Return all events. Steps are summed over operators, as if no two ran side by side."""
        return self._none() + total(entry.events for entry in self.entries)

    @property
    def operators(self) -> dict[str, Events]:
        """Return the events per operator."""
        return self._summed(lambda entry: entry.operator)

    @property
    def modules(self) -> dict[str, Events]:
        """Return the events per module path."""
        return self._summed(lambda entry: entry.path)

    @property
    def populations(self) -> dict[str, Population]:
        """Return the counts of every population by its name, such as "softmax/divide", over the whole model."""
        return self.total.populations

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        entries = [
            {"path": e.path, "operator": e.operator, "calls": e.calls, "events": e.events.to_dict()}
            for e in self.entries
        ]
        return {"total": self.total.to_dict(), "entries": entries}

    def table(self) -> Table:
        """Return a Rich table: one row per operator, and their total. Counts from 100,000 on are rounded."""
        table = Table("operator", title="events, predicted" if self.predicted else "events of the simulation")
        for title in ("calls", *(name.replace("_", " ") for name in COUNTS)):
            table.add_column(title, justify="right")
        calls: Counter[str] = Counter()
        for entry in self.entries:
            calls[entry.operator] += entry.calls
        for name, events in (*self.operators.items(), ("total", self.total)):
            count = calls.total() if name == "total" else calls[name]
            table.add_row(name, *map(_short, (count, *events.totals().values())))
        return table

    def __str__(self) -> str:
        total, calls = self.total, sum(entry.calls for entry in self.entries)
        how = "counted" if self.predicted else "simulated"
        return f"{calls} operators {how}: {total}" if calls else "no spiking operator executed"

    def _none(self) -> Events:
        return Events(self.realisation, predicted=self.predicted)

    def _summed(self, key: Callable[[SimulatedEntry], str]) -> dict[str, Events]:
        found: dict[str, Events] = {}
        for entry in self.entries:
            found[key(entry)] = found.get(key(entry), self._none()) + entry.events
        return found


@contextmanager
def simulate(model: nn.Module, realisation: Realisation | str | None = None) -> Iterator[Simulation]:
    """Simulate a converted model, or one made of `spikeplug.nn`: `with simulate(model) as simulation: model(**x)`.

    In the block, every spiking operator that the model (or a module of it) executes runs neuron by neuron and step by
    step.
    Its events are counted: `simulation.total`, `.operators`, `.modules`, `.populations`.
    Outputs and gradients equal those of the closed form bit for bit.
    What stays in floats (such as matrix products) runs as usual and is not counted.

    realisation: which neurons simulate, or the name of a preset; None: those of the preset with each operator's
    numerics, the default for numerics of no preset. It changes events, no output.

    This thread's (or asyncio task's) runs are simulated, no other's. Blocks may be nested: an operator is counted in
    every block whose model runs it, and simulated once for each realisation. An error inside leaves what was counted
    until then. What torch.compile has taken apart is simulated too, and counted at the path of the compiled module.

    Raises SpikeplugError if `model` is not a torch module, or has no spiking operator, and for an unknown preset.
    """
    with _events_of(model, realisation, "simulate", predicted=False) as simulation:
        yield simulation


@contextmanager
def count(model: nn.Module, realisation: Realisation | str | None = None) -> Iterator[Simulation]:
    """Count the events of a converted model without simulating it: `with count(model) as counted: model(**x)`.

    The events are predicted from the integers in closed form. They equal those of `simulate` in every field, as do the
    outputs and gradients. No time step runs, so it takes a small part of the time; memory is that of the closed forms.
    Everything else is as for `simulate`.
    """
    with _events_of(model, realisation, "count", predicted=True) as counted:
        yield counted


@contextmanager
def _events_of(
    model: nn.Module, realisation: Realisation | str | None, name: str, *, predicted: bool
) -> Iterator[Simulation]:
    if not isinstance(model, nn.Module):
        raise SpikeplugError(f"{name} takes a torch module, not a {type(model).__name__}: give it a converted model.")
    if not any(is_spiking(module) for module in model.modules()):
        raise SpikeplugError(f"{type(model).__name__} is not converted: call spikeplug.convert(model) first.")
    neurons = None if realisation is None else as_realisation(realisation, Numerics())
    with Running(model) as running:
        simulation = Simulation(running, neurons, predicted)
        with counted_by(simulation):
            yield simulation


def is_spiking(module: nn.Module) -> bool:
    """Return whether a module is converted, or one of `spikeplug.nn`."""
    return plug_of(module) is not None or PLUG in vars(module) or isinstance(module, spiking.SpikingModule)


def _short(count: int) -> str:
    if count < 100_000:
        return f"{count:,}"
    rounded = f"{count:.2e}"
    exponent = int(rounded.split("e")[1])
    thousands = min(exponent // 3, 6)
    return f"{float(rounded) / 10 ** (3 * thousands):.{max(0, 2 - exponent % 3)}f}{'kMGTPE'[thousands - 1]}"
