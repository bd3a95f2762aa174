"""Find where spikes cost as much as arithmetic without them: spikes per value, levels of a code, length of the context.

A linear layer without spikes takes one multiply-accumulate per weight. With spikes it takes an addition per weight and
spike of the input, and each time it reads the weight again, and reads and writes the membrane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from spikeplug.hardware.arms import OURS, Cost
from spikeplug.hardware.tables import CostTable
from spikeplug.hardware.workload import SpikesPerValue

_WEIGHT_BITS = 8


@dataclass(frozen=True)
class Line:
    """Hold the spikes per value at which a spiking layer costs as much as one in int8.

    table   name of the table with the prices
    what    what is counted in both
    kib     size of the memory that holds the weights, in KiB; None: memory is not counted
    """

    table: str
    what: str
    kib: Fraction | None
    spikes: Fraction

    def most_levels(self, measured: Sequence[SpikesPerValue], code: str) -> int | None:
        """Return the most levels T·L whose measured spikes per value stay at or below the line; None if none do."""
        return max((one.levels for one in measured if getattr(one, code) <= self.spikes), default=None)


def lines(table: CostTable) -> list[Line]:
    """Return the break-even lines of a table with prices of int8 arithmetic and of memory; none for other tables."""
    if table.memory is None or not table.arithmetic:
        return []
    add = table.arithmetic["int32_add"]
    product = table.arithmetic["int8_multiply"] + add
    found = [Line(table.name, "arithmetic alone", None, product / add)]
    membrane = 2 * table.memory.price(0)
    for what, more in (("weights read, too", Fraction()), ("weights and membranes", membrane)):
        for kib, price in zip(table.memory.kib, table.memory.pj, strict=True):
            read = Fraction(_WEIGHT_BITS, 32) * price
            found.append(Line(table.name, what, kib, (product + read) / (add + read + more)))
    return found


@dataclass(frozen=True)
class Growth:
    """Hold how the least cost of an arm grows from the shortest to the longest measured context, by one table.

    start, slope  pJ per token without context, and more per token of context: the line through both ends
    crossing      context at which ours costs as much; None: nowhere beyond the shortest
    ranged        whether the arm's prices are ranges, of which this is the low end
    """

    arm: str
    table: CostTable
    start: Fraction
    slope: Fraction
    crossing: Fraction | None
    ranged: bool


def growths(found: Sequence[Cost]) -> list[Growth]:
    """Return the growth of every arm with a total, by every table that ours has a total by; none for one context."""
    groups: dict[tuple[str, str], list[Cost]] = {}
    for cost in found:
        if cost.refusal is None:
            groups.setdefault((cost.table.name, cost.arm), []).append(cost)
    result = []
    for (table, arm), costs in groups.items():
        ours = groups.get((table, OURS), [])
        if len(ours) < 2:
            continue
        (start, slope), (own_start, own_slope) = _line(costs), _line(ours)
        crossing = None
        if own_slope != slope:
            at = (start - own_start) / (own_slope - slope)
            crossing = at if at >= min(cost.context for cost in costs) else None
        ranged = any(cost.low != cost.high for cost in costs)
        result.append(Growth(arm, costs[0].table, start, slope, crossing, ranged))
    return result


def context_sentences(found: Sequence[Growth]) -> list[str]:
    """Return, per arm, where ours costs more, and the contexts at which both cost the same, in sentences."""
    ours = {growth.table.name: growth for growth in found if growth.arm == OURS}
    always: dict[tuple[str, str], list[str]] = {}
    sentences = []
    for growth in found:
        own, arm = ours[growth.table.name], f"the {growth.arm} arm{' at its least price' * growth.ranged}"
        if growth.arm == OURS:
            continue
        if growth.crossing is None:
            cheaper = own.start + own.slope < growth.start + growth.slope
            always.setdefault(("less" if cheaper else "more", arm), []).append(growth.table.name)
        else:
            sentences.append(
                f"Ours breaks even with {arm} by {growth.table.name} at a context of about "
                f"{float(growth.crossing):,.0f}, and costs {'more' if own.slope > growth.slope else 'less'} beyond it: "
                "on the line through the shortest and the longest context."
            )
    for (how, arm), tables in always.items():
        sentences.append(f"Ours costs {how} than {arm} at the shortest context and beyond by {', '.join(tables)}.")
    return sentences


def _line(costs: Sequence[Cost]) -> tuple[Fraction, Fraction]:
    first, last = (choose(costs, key=lambda cost: cost.context) for choose in (min, max))
    slope = (last.low - first.low) / (last.context - first.context)
    return first.low - slope * first.context, slope
