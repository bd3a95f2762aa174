"""Price events: counts times a table of prices, as energy by operator, module and population.

    energy = Σ over populations   Σ over terms   count · price

Where a table has a price of memory in place of events, every synaptic operation reads a weight of 8 bits, and reads and
writes a membrane; every update reads and writes a membrane; a spike is an event of 32 bits, written and read once; a
table read reads an entry. A membrane has as many words of 32 bits as its width needs. Each access has the price of the
smallest memory that holds all weights, membranes or entries of the population (Lemaire et al., arXiv 2210.13107).

Sums are fractions: an energy is exactly linear in the counts of populations of given sizes and fan-out, and a total is
exactly the sum of its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    """

    path: str
    operator: str
    population: str
    terms: Mapping[str, Fraction]
    unpriced: Mapping[str, int]

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
    def memory_share(self) -> float:
        """Return which part of the priced energy is traffic to and from memory; 0 if the table does not tell."""
        traffic = sum((cost for term, cost in self.terms.items() if term in MEMORY_TERMS), Fraction())
        return float(traffic / self.priced) if self.priced else 0.0

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

    def rich_table(self) -> Table:
        """Return a Rich table: one row per term, by this table and those beside it."""
        energies = (self, *self.beside)
        table = titled("Energy by term", "term", numbers=[energy.table.title for energy in energies])
        for term in (*TERMS, *MEMORY_TERMS):
            cells = [_cell(energy, term) for energy in energies]
            if any(cells):
                table.add_row(term.replace("_", " "), *cells)
        table.add_row("total", *("refused" if one.unpriced else joules(one.priced) for one in energies))
        return table

    def __str__(self) -> str:
        return "; ".join(f"{one.table.headline}: {one.refusal or joules(one.total)}" for one in (self, *self.beside))


def energy(events: Events | Simulation, table: CostTable | str | Path = "loihi1-davies", *, hops: int = 0) -> Energy:
    """Return the energy of events by a table of prices.

    events  what `spikeplug.count`, `simulate` or an operator counted
    table   the name of a table (`hardware.table_names()`), a TOML file, or a table
    hops    hops that each packet takes; 0: placement is not looked at

    Errors: SpikeplugError for no events, an unknown table, or a file that is no valid table.
    """
    if isinstance(hops, bool) or not isinstance(hops, int) or hops < 0:
        raise SpikeplugError(f"hops is {hops!r}: give a whole number of 0 or more.")
    first, *others = with_companions([load_table(table)])
    places = list(_places(events))
    if not any(population.spikes or population.membrane_updates for _, _, found in places for population in found):
        raise SpikeplugError("no events were counted, so there is nothing to price: run the model while they are.")
    steps = sum(population.steps for _, _, found in places for population in found)
    beside = tuple(Energy(one, hops, _parts(places, one, hops), steps) for one in others)
    return Energy(first, hops, _parts(places, first, hops), steps, beside)


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


def _parts(places: Iterable[_Place], table: CostTable, hops: int) -> tuple[Part, ...]:
    parts = []
    for path, operator, populations in places:
        by_name = {population.name: population for population in populations}
        for population in populations:
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
                terms |= _traffic(population, _receiver(population, by_name), table)
            unpriced = {
                term: count
                for term, count in counts.items()
                if count and term not in table.prices and term not in table.included
            }
            priced = {term: cost for term, cost in terms.items() if cost}
            parts.append(Part(path, operator, population.name, priced, unpriced))
    return tuple(parts)


def _traffic(population: Population, receiver: Population, table: CostTable) -> dict[str, Fraction]:
    memory = table.memory
    assert memory is not None
    # As many synapses as its neurons have, each with the fan-out of the mean spike.
    fan_out = Fraction(population.synops, population.spikes) if population.spikes else Fraction(1)
    words, own = _words(receiver.width), _words(population.width)
    membrane = memory.price(receiver.neurons * words * 32)
    update = memory.price(population.neurons * own * 32)
    return {
        "weight traffic": population.synops * _WEIGHT * memory.price(population.neurons * fan_out * 8),
        "membrane traffic": 2 * (population.synops * words * membrane + population.membrane_updates * own * update),
        "table traffic": population.table_reads * own * update,
        "event traffic": 2 * population.spikes * memory.price(0),
    }


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


def _words(width: int) -> int:
    """Return the words of 32 bits of a membrane."""
    return max(1, -(-width // 32))


def _cell(energy: Energy, term: str) -> str:
    if energy.unpriced.get(term):
        return "unpriced"
    cost = energy.terms.get(term)
    if cost:
        return joules(cost)
    return "included" if term in energy.table.included else ""


def _floats(values: Mapping[str, Fraction]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
