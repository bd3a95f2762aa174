"""Show a costing as Rich tables and sentences."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from rich.console import RenderableType
from rich.table import Table

from spikeplug.hardware.arms import ARMS, Cost
from spikeplug.hardware.costing import Costing
from spikeplug.hardware.pricing import Energy, joules
from spikeplug.hardware.tables import INCLUDED, TERMS
from spikeplug.measurement.section import number
from spikeplug.measurement.table import titled

_COUNTED = ("spikes", "synops", "driven_updates", "idle_updates", "compares", "table_reads", "steps")
#: Modules and populations that are shown; all are in the JSON file.
_MOST = 10


def parts(found: Costing) -> list[RenderableType]:
    """Return tables of counts, energies, arms and break-even lines, and the sentences that they come to."""
    shown: list[RenderableType] = [_sources(found), _counts(found), _terms(found)]
    if found.whole or len(found.energies[0].by("operator")) > 1:
        shown.append(_grouped(found, "operator", "Energy by operator"))
    shown += [_grouped(found, "path", "Energy by module"), _grouped(found, "population", "Energy by population")]
    shown.append(_arms(found))
    if found.lines:
        shown += [_per_value(found), _lines(found)]
    return [*shown, *found.verdicts]


def _sources(found: Costing) -> Table:
    table = titled("Tables of prices", "table", "prices of", "source")
    for energy in found.energies:
        table.add_row(energy.table.name, energy.table.headline, energy.table.citation)
    return table


def _counts(found: Costing) -> Table:
    table = titled("Counted in one token", "context", numbers=[name.replace("_", " ") for name in _COUNTED])
    for token in found.tokens:
        events = token.events.total
        table.add_row(f"{token.context:,}", *(number(getattr(events, name)) for name in _COUNTED))
    return table


def _terms(found: Costing) -> Table:
    table = _per_table(found, "Energy by term", "term")
    for term in dict.fromkeys([*TERMS, *(term for energy in found.energies for term in energy.terms)]):
        cells = [energy.cell(term) for energy in found.energies]
        if set(cells) - {"", INCLUDED}:
            table.add_row(term.replace("_", " "), *cells)
    table.add_row("total", *map(_total, found.energies))
    seconds = [energy.seconds for energy in found.energies]
    table.add_row("seconds, at least", *("" if one is None else f"{one:.3g}" for one in seconds))
    return table


def _grouped(found: Costing, key: Literal["operator", "path", "population"], title: str) -> Table:
    groups = [energy.by(key) for energy in found.energies]
    names = found.dearest(key)
    left = len(names) - _MOST
    table = _per_table(found, title if left <= 0 else f"{title}: the {_MOST} dearest", key)
    for name in names[:_MOST]:
        table.add_row(name or "the model", *(joules(group[name]) for group in groups))
    if left > 0:
        rest = [sum((group[name] for name in names[_MOST:]), Fraction()) for group in groups]
        table.add_row(f"{left:,} others", *map(joules, rest))
    return table


def _per_table(found: Costing, title: str, first: str) -> Table:
    context = found.tokens[-1].context
    names = [f"{energy.table.name}{' (in part)' * bool(energy.unpriced)}" for energy in found.energies]
    return titled(f"{title}, context {context:,}", first, numbers=names)


def _arms(found: Costing) -> Table:
    table = titled("Energy per token", "arm", "context", numbers=[energy.table.name for energy in found.energies])
    places = dict.fromkeys((cost.arm, cost.context) for cost in found.costs)
    by_table = {(cost.arm, cost.context, cost.table.name): cost for cost in found.costs}
    for arm, context in sorted(places, key=lambda place: (list(ARMS).index(place[0]), place[1])):
        cells = [_cost(by_table[arm, context, energy.table.name]) for energy in found.energies]
        table.add_row(arm, f"{context:,}", *cells)
    return table


def _per_value(found: Costing) -> Table:
    table = titled("Spikes per input of a linear layer, measured", "T·L", numbers=("phase code", "count code"))
    for one in found.per_value:
        table.add_row(f"{one.levels}", f"{one.phase:.2f}", f"{one.count:.2f}")
    return table


def _lines(found: Costing) -> Table:
    table = titled(
        "Break-even with int8",
        "counted in both",
        "weights in",
        numbers=("spikes per value", "T·L, phase", "T·L, count"),
    )
    for line in found.lines:
        levels = [line.most_levels(found.per_value, code) for code in ("phase", "count")]
        memory = "" if line.kib is None else f"{float(line.kib):g} KiB"
        cells = ("none measured" if one is None else f"up to {one}" for one in levels)
        table.add_row(line.what, memory, f"{float(line.spikes):.2f}", *cells)
    return table


def _cost(cost: Cost) -> str:
    if cost.refusal is not None:
        return "refused"
    return joules(cost.low) if cost.low == cost.high else f"{joules(cost.low)} – {joules(cost.high)}"


def _total(energy: Energy) -> str:
    return "refused" if energy.unpriced else joules(energy.priced)
