"""Price events: counts times a table of prices, as energy by operator, module and population.

    energy = Σ over populations   Σ over terms   count · price

Where a table has a price of memory in place of events, every synaptic operation reads a weight of 8 bits, and reads and
writes a membrane; every update reads and writes a membrane; a spike is an event of 32 bits, written and read once; a
table read reads an entry. A membrane has as many words of 32 bits as its width needs. Each access has the price of a
memory that holds all weights, membranes or entries of the population (Lemaire et al., arXiv 2210.13107).

Sums are fractions: an energy is exactly linear in the counts of populations of given sizes and fan-out, and a total is
exactly the sum of its parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from spikeplug.conversion.simulation import Simulation
from spikeplug.errors import SpikeplugError
from spikeplug.hardware.tables import TERMS, CostTable, load_table, with_companions
from spikeplug.measurement.table import titled
from spikeplug.neurons import Events, Population

#: Bits of a weight, in words of 32.
_WEIGHT = Fraction(8, 32)
#: Terms of the traffic between memory and arithmetic, for tables with a price of memory.
MEMORY_TERMS: Mapping[str, str] = {
    "weight traffic": "weights read from memory",
    "membrane traffic": "membranes read from memory and written to it",
    "table traffic": "table entries read from memory",
    "event traffic": "spikes written to memory and read from it",
}


@dataclass(frozen=True)
class Part:
    """Hold what one population costs.

    path, operator, population   where it is; path and operator are empty for events that say neither
    terms                        term -> pJ
    unpriced                     term without a price -> its count
    moved                        bytes that are moved from and to memories, where these are apart from the neurons
    """

    path: str
    operator: str
    population: str
    terms: Mapping[str, Fraction]
    unpriced: Mapping[str, int]
    moved: Fraction

    @property
    def priced(self) -> Fraction:
        """Return the pJ of all terms that have a price."""
        return sum(self.terms.values(), Fraction())


@dataclass(frozen=True)
class Energy:
    """Hold the energy of events by one table of prices.

    table   its prices
    hops    hops per packet
    parts   one per population (and module and operator, where events say so)
    steps   time steps, added up as if nothing ran side by side
    beside  the same events by the tables that are always shown beside this one
    """

    table: CostTable
    hops: int
    parts: tuple[Part, ...]
    steps: int
    beside: tuple[Energy, ...] = ()

    @property
    def priced(self) -> Fraction:
        """Return the pJ of everything that has a price; the total only if nothing is `unpriced`."""
        return sum((part.priced for part in self.parts), Fraction())

    @property
    def unpriced(self) -> dict[str, int]:
        """Return each term that was counted and has no price, with its count."""
        found: dict[str, int] = {}
        for part in self.parts:
            for term, count in part.unpriced.items():
                found[term] = found.get(term, 0) + count
        return found

    @property
    def refusal(self) -> str | None:
        """Return why there is no total, as a sentence; None if there is one."""
        if not self.unpriced:
            return None
        terms = ", ".join(f"{term.replace('_', ' ')} ({count:,})" for term, count in self.unpriced.items())
        return (
            f"no total by {self.table.name}: it has no price for {terms}; see the sums of what is priced, or add "
            "prices in a table of your own."
        )

    @property
    def total(self) -> Fraction:
        """Return the pJ of all events. Errors: SpikeplugError if a counted term has no price."""
        if self.refusal is not None:
            raise SpikeplugError(self.refusal)
        return self.priced

    @property
    def joules(self) -> float:
        """Return the total in joules. Errors: SpikeplugError if a counted term has no price."""
        return float(self.total) * 1e-12

    @property
    def seconds(self) -> float | None:
        """Return the least latency: the time steps, one after the other; None if the table has no time per step."""
        return None if self.table.step is None else float(self.steps * self.table.step)

    @property
    def terms(self) -> dict[str, Fraction]:
        """Return the pJ of each priced term, over all populations."""
        found: dict[str, Fraction] = {}
        for part in self.parts:
            for term, cost in part.terms.items():
                found[term] = found.get(term, Fraction()) + cost
        return found

    @property
    def moved(self) -> Fraction:
        """Return the bytes that are moved from and to memories, where these are apart from the neurons."""
        return sum((part.moved for part in self.parts), Fraction())

    def only(self, operators: Collection[str]) -> Energy:
        """Return the energy of these operators alone."""
        parts = tuple(part for part in self.parts if part.operator in operators)
        return Energy(self.table, self.hops, parts, self.steps)

    def by(self, key: Literal["operator", "path", "population"]) -> dict[str, Fraction]:
        """Return the pJ of what is priced, summed by operator, module path or population."""
        found: dict[str, Fraction] = {}
        for part in self.parts:
            name = getattr(part, key)
            found[name] = found.get(name, Fraction()) + part.priced
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; energies in pJ. "total" is None where the total is refused."""
        return {
            "table": self.table.to_dict(),
            "hops": self.hops,
            "total": None if self.unpriced else float(self.priced),
            "priced": float(self.priced),
            "unpriced": self.unpriced,
            "refusal": self.refusal,
            "steps": self.steps,
            "seconds": self.seconds,
            "terms": _floats(self.terms),
            **{f"by_{key}": _floats(self.by(key)) for key in ("operator", "path", "population")},
            "beside": [energy.to_dict() for energy in self.beside],
        }

    def cell(self, term: str) -> str:
        """Return the energy of a term as text: "unpriced" and "included" where it has none of its own, "" if none."""
        if self.unpriced.get(term):
            return "unpriced"
        cost = self.terms.get(term)
        return joules(cost) if cost else "included" if term in self.table.included else ""

    def rich_table(self) -> Table:
        """Return a Rich table: one row per term, by this table and those beside it."""
        energies = (self, *self.beside)
        table = titled("Energy by term", "term", numbers=[energy.table.title for energy in energies])
        for term in (*TERMS, *MEMORY_TERMS):
            cells = [energy.cell(term) for energy in energies]
            if any(cells):
                table.add_row(term.replace("_", " "), *cells)
        table.add_row("total", *("refused" if one.unpriced else joules(one.priced) for one in energies))
        return table

    def __str__(self) -> str:
        return "; ".join(f"{one.table.headline}: {one.refusal or joules(one.total)}" for one in (self, *self.beside))


def energy(
    events: Events | Simulation,
    table: CostTable | str | Path = "loihi1-davies",
    *,
    hops: int = 0,
    graded: bool = False,
) -> Energy:
    """Return the energy of events by a table of prices.

    events  what `spikeplug.count`, `simulate` or an operator counted
    table   the name of a table (`hardware.table_names()`), a TOML file, or a table
    hops    hops that each packet takes; 0: placement is not looked at
    graded  False: a graded spike of value k is k spikes. True: it is one, so that each neuron receives at most one from
            an input per driven update

    Errors: SpikeplugError for no events, an unknown table, or a file that is no valid table.
    """
    if isinstance(hops, bool) or not isinstance(hops, int) or hops < 0:
        raise SpikeplugError(f"hops is {hops!r}: give a whole number of 0 or more.")
    first, *others = with_companions([load_table(table)])
    places = list(_places(events))
    if not any(population.spikes or population.membrane_updates for _, _, found in places for population in found):
        raise SpikeplugError("no events were counted, so there is nothing to price: run the model while they are.")
    steps = sum(population.steps for _, _, found in places for population in found)
    beside = tuple(Energy(one, hops, _parts(places, one, hops, graded), steps) for one in others)
    return Energy(first, hops, _parts(places, first, hops, graded), steps, beside)


def joules(pj: Fraction | float) -> str:
    """Return an energy, given in pJ, as text with three digits and its unit."""
    value = float(pj)
    for unit, size in (("J", 1e12), ("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} pJ"


_Place = tuple[str, str, list[Population]]


def _places(events: Events | Simulation) -> Iterable[_Place]:
    """Yield path, operator and populations."""
    if isinstance(events, Events):
        yield "", "", list(events.populations.values())
    elif isinstance(events, Simulation):
        for entry in events.entries:
            yield entry.path, entry.operator, list(entry.events.populations.values())
    else:
        raise SpikeplugError(
            f"energy takes events, not a {type(events).__name__}: count them in `with spikeplug.count(model) as "
            "counted`, and give it counted."
        )


def _parts(places: Iterable[_Place], table: CostTable, hops: int, graded: bool) -> tuple[Part, ...]:
    parts = []
    for path, operator, populations in places:
        by_name = {population.name: population for population in populations}
        for counted in populations:
            receiver = _receiver(counted, by_name)
            population = _as_packets(counted, receiver) if graded else counted
            counts = {
                "spikes": population.spikes,
                "messages": population.spikes,
                "hops": population.spikes * hops,
                "synops": population.synops,
                "driven_updates": population.driven_updates,
                "idle_updates": population.idle_updates,
                "compares": population.compares,
                "table_reads": population.table_reads,
            }
            terms = {term: count * table.prices[term] for term, count in counts.items() if term in table.prices}
            if table.memory is not None:
                for term, words, bits in _accesses(population, receiver):
                    terms[term] = terms.get(term, Fraction()) + words * table.memory.price(bits)
            unpriced = {
                term: count
                for term, count in counts.items()
                if count and term not in table.prices and term not in table.included
            }
            priced = {term: cost for term, cost in terms.items() if cost}
            moved = sum((words for _, words, _ in _accesses(population, receiver)), Fraction())
            parts.append(Part(path, operator, population.name, priced, unpriced, 4 * moved))
    return tuple(parts)


def _accesses(population: Population, receiver: Population) -> Iterator[tuple[str, Fraction, Fraction]]:
    """Yield term, words of 32 bits that are moved, and bits of the memory that they are moved from or to."""
    # As many synapses as its neurons have, each with the fan-out of the mean spike.
    fan_out = Fraction(population.synops, population.spikes) if population.spikes else Fraction(1)
    yield "weight traffic", population.synops * _WEIGHT, population.neurons * fan_out * 8
    for counted, what in ((population.synops, receiver), (population.membrane_updates, population)):
        words = _words(what.width)
        yield "membrane traffic", Fraction(2 * counted * words), Fraction(what.neurons * words * 32)
    words = _words(population.width)
    yield "table traffic", Fraction(population.table_reads * words), Fraction(population.neurons * words * 32)
    yield "event traffic", Fraction(2 * population.spikes), Fraction(0)


def _receiver(population: Population, by_name: Mapping[str, Population]) -> Population:
    """Return the population whose membranes an input's spikes reach: the nearest whose name its own name begins with.

    What sends spikes of its own, and an input without such a population, stands for its receivers.
    """
    if population.kind != "input":
        return population
    name = population.name
    while "/" in name:
        name = name.rsplit("/", 1)[0]
        found = by_name.get(name)
        if found is not None and found.kind in ("threshold", "accumulator"):
            return found
    return population


def _as_packets(population: Population, receiver: Population) -> Population:
    """Return an input whose graded spikes are one each: no more arrive than there are driven updates."""
    if population.kind != "input" or population.width == 1 or population.synops <= receiver.driven_updates:
        return population
    spikes = -(-population.spikes * receiver.driven_updates // population.synops)
    return replace(population, spikes=spikes, synops=receiver.driven_updates)


def _words(width: int) -> int:
    """Return the words of 32 bits of a membrane."""
    return max(1, -(-width // 32))


def _floats(values: Mapping[str, Fraction]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
