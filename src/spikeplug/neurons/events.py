"""Count what populations of neurons do: the currency of every energy model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.neurons.needs import Needs
from spikeplug.presets import as_numerics, as_realisation
from spikeplug.realisation import Realisation

#: input        a spike train that arrives: spikes and their deliveries, no membrane
#: threshold    neurons with a firing threshold
#: accumulator  neurons that only sum: a membrane, no threshold
#: table        memory that a spike reads
Kind = Literal["input", "threshold", "accumulator", "table"]
COUNTS = ("spikes", "synops", "membrane_updates", "driven_updates", "compares", "steps", "table_reads")


@dataclass
class Population:
    """The counts of one named population.

    name              operator/verb/part, for example "softmax/divide/quotient"
    width             bits of a membrane, its sign included; for a table, of an entry; for an input, spikes per step
    neurons           the most neurons (for a table: entries) that one call had
    spikes            spikes sent (a graded spike of value k counts k)
    synops            synaptic operations: spikes times fan-out
    membrane_updates  neuron updates: one neuron in one time step
    driven_updates    those in whose step an input arrives: a spike, or a number handed over whole that is not 0. The
                      others are idle: only leak, bias and threshold are evaluated
    compares          threshold compares
    steps             time steps, summed over calls; populations that run side by side count them once
    table_reads       table entries read
    needs             what a neuron needs of a chip; None: not said, as in a simulation. It is not a count, so it takes
                      no part in comparisons and records
    """

    name: str
    kind: Kind
    width: int = 0
    neurons: int = 0
    spikes: int = 0
    synops: int = 0
    membrane_updates: int = 0
    driven_updates: int = 0
    compares: int = 0
    steps: int = 0
    table_reads: int = 0
    needs: Needs | None = field(default=None, compare=False, repr=False)

    def add(self, other: Population) -> None:
        """Add the counts of another call of the same population."""
        self.grow(other.width, other.neurons, other.needs)
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def grow(self, width: int, neurons: int, needs: Needs | None) -> None:
        """Keep the largest width, neurons and needs so far."""
        self.width, self.neurons = max(self.width, width), max(self.neurons, neurons)
        if needs is not None:
            self.needs = needs if self.needs is None else self.needs.joined(needs)

    def send(self, spikes: Tensor, fan_out: int = 1, *, graded: bool = True) -> int:
        """Count spikes, each delivered to `fan_out` synapses; return how many.

        graded: a spike of value k counts k. Otherwise all are 0 or 1 and fewer than 2^31, so that int32, which is three
        times as fast, holds their sum.
        """
        count = int(spikes.sum(dtype=torch.int64 if graded else torch.int32))
        self.sent(count, fan_out)
        return count

    def sent(self, count: int, fan_out: int = 1) -> None:
        """Count `count` spikes, each delivered to `fan_out` synapses."""
        self.spikes += count
        self.synops += count * fan_out

    def updated(self, neurons: int, driven: int) -> None:
        """Count one update of each of `neurons` neurons; an input arrives at `driven` of them."""
        self.membrane_updates += neurons
        self.driven_updates += driven

    @property
    def idle_updates(self) -> int:
        """Return the updates in whose step no input arrives."""
        return self.membrane_updates - self.driven_updates

    def to_dict(self) -> dict[str, Any]:
        """Return name, kind, width, neurons and all counts as plain values for JSON."""
        return {name: getattr(self, name) for name in ("name", "kind", "width", "neurons", *COUNTS)}


#: Called at every step of every population with membranes before the reset, and bool spikes where there is a threshold.
Observer = Callable[[Population, Tensor, Tensor | None], None]


@dataclass
class Events:
    """The populations of a simulation and what they did.

    realisation  which neurons compute it, or the name of a preset; None: those of the preset that has the operator's
                 numerics
    observer     called at every step of every population; None: nobody, and populations run in blocks
    populations  by name, in the order of their first step
    predicted    whether operators predict their events, without time steps, in place of simulating them; the counts are
                 the same

    Not neurons, and not counted: encoding and decoding, where numbers enter and leave; a constant place by which the
    bits of a spike train are split or joined, which is a choice of time steps; the sign of a synapse; a constant added
    to an exponent, which says where a number's point is; copies, views and reshapes.
    Errors: SpikeplugError for a realisation of another type or an unknown preset, and for an observer of a prediction.
    """

    realisation: Realisation | None = None
    observer: Observer | None = field(default=None, repr=False, compare=False)
    populations: dict[str, Population] = field(default_factory=dict)
    predicted: bool = field(default=False, kw_only=True, compare=False)

    def __post_init__(self) -> None:
        if self.realisation is not None:
            self.realisation = as_realisation(self.realisation, as_numerics(None))
        if self.predicted and self.observer is not None:
            raise SpikeplugError("an observer watches time steps, which a prediction does not run: simulate instead.")

    def population(
        self, name: str, kind: Kind, width: int = 0, neurons: int = 0, needs: Needs | None = None
    ) -> Population:
        """Return the population of that name, made at its first call; it keeps the largest of what is given."""
        found = self.populations.get(name)
        if found is None:
            found = self.populations[name] = Population(name, kind)
        found.grow(width, neurons, needs)
        return found

    def add(self, other: Events) -> None:
        """Add the counts of other events, population by population."""
        for population in other.populations.values():
            self.population(population.name, population.kind).add(population)

    def __add__(self, other: Events) -> Events:
        total = Events(self.realisation, predicted=self.predicted)
        total.add(self)
        total.add(other)
        return total

    @property
    def spikes(self) -> int:
        return self._total("spikes")

    @property
    def synops(self) -> int:
        return self._total("synops")

    @property
    def membrane_updates(self) -> int:
        return self._total("membrane_updates")

    @property
    def driven_updates(self) -> int:
        return self._total("driven_updates")

    @property
    def idle_updates(self) -> int:
        return self.membrane_updates - self.driven_updates

    @property
    def compares(self) -> int:
        return self._total("compares")

    @property
    def steps(self) -> int:
        return self._total("steps")

    @property
    def table_reads(self) -> int:
        return self._total("table_reads")

    def _total(self, name: str) -> int:
        return sum(getattr(population, name) for population in self.populations.values())

    def totals(self) -> dict[str, int]:
        """Return every count, summed over the populations."""
        return {name: self._total(name) for name in COUNTS}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: the totals and every population."""
        return {**self.totals(), "populations": [population.to_dict() for population in self.populations.values()]}

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in self.totals().items())


@dataclass(frozen=True)
class Scope:
    """Name the populations of one integer function: it counts into those of `events` whose names begin with `name`.

    `scope / "segment"` is the scope whose name is `name` + "/segment".
    """

    events: Events
    name: str

    def __truediv__(self, part: str) -> Scope:
        return Scope(self.events, f"{self.name}/{part}")

    def population(self, kind: Kind, width: int = 0, neurons: int = 0, needs: Needs | None = None) -> Population:
        """Return the population with the name of this scope, made at the first call, to count into."""
        return self.events.population(self.name, kind, width, neurons, needs)

    @property
    def watched(self) -> bool:
        """Tell whether an observer sees every step."""
        return self.events.observer is not None

    def observe(self, population: Population, membrane: Tensor, spikes: Tensor | None = None) -> None:
        """Give the observer, if there is one, the population with its membranes before the reset, and its spikes."""
        if self.events.observer is not None:
            self.events.observer(population, membrane, spikes)


def total(events: Iterable[Events]) -> Events:
    """Return new events with the counts of all the given ones added up, population by population."""
    found = Events()
    for each in events:
        found.add(each)
    return found
