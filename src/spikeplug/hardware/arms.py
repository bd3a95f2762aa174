"""Compare ways to compute one token: our spikes, the published groups, and the same model without spikes.

    ours      the spiking operators of the model as it is converted
    paper     the same operators in the preset paper: ordered groups, a division per probability. A graded spike counts
              as one, in favour of this arm
    off-chip  nonlinear operators as float32 on a processor outside of the chip, with the transfers there and back
    int8      the whole model in int8, without spikes
    qnn       the whole model with inputs of as many bits as a spike code has levels: ceil(log2(T·L + 1)) (Yan et al.)
    float32   the whole model in float32

What is compared is what the recipe converts: the nonlinear operators, or the whole model. Accounting of arms without
spikes (Lemaire et al., arXiv 2210.13107): every weight is read once, every input read and every output written once, in
memories of their size; a nonlinear operator takes a float32 multiply-add per number in and a division per
number out. An exponential has no citable price, so these arms cost at least what is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from spikeplug.errors import SpikeplugError
from spikeplug.hardware.pricing import MEMORY_TERMS, energy
from spikeplug.hardware.tables import CostTable, load_table
from spikeplug.hardware.workload import Token, Work
from spikeplug.measurement.section import number

#: Name -> what it is.
ARMS = {
    "ours": "spiking, as converted",
    "paper": "spiking, preset paper: ordered groups",
    "off-chip": "nonlinear operators in float32 on another processor, with transfers",
    "int8": "int8, without spikes",
    "qnn": "integers of equal bits, without spikes",
    "float32": "float32, without spikes",
}
OURS = "ours"
#: Arms of whole models without spikes.
_DENSE = ("int8", "qnn", "float32")
#: The table with the prices of transfers and of float arithmetic outside of a chip, whatever the chip.
_OUTSIDE = "digital45"
TRAFFIC = "traffic"
TRANSFERS = "transfers"


@dataclass(frozen=True)
class Cost:
    """Hold what an arm costs for one token by one table.

    low, high  pJ; they differ where a price is a range. What has no price is not in them
    terms      what it is made of, in pJ: the low end
    moved      bytes moved from and to memories on the chip and off it
    refusal    why the arm has no total by this table, as a sentence; None: it has one
    """

    arm: str
    table: CostTable
    context: int
    low: Fraction = Fraction()
    high: Fraction = Fraction()
    terms: dict[str, Fraction] = field(default_factory=dict)
    refusal: str | None = None
    moved: Fraction = Fraction()

    @property
    def traffic(self) -> Fraction | None:
        """Return the share of traffic with memories on and off the chip; None where the prices do not tell."""
        moved = [cost for term, cost in self.terms.items() if term in MEMORY_TERMS or term in (TRAFFIC, TRANSFERS)]
        return sum(moved, Fraction()) / self.low if moved and self.low else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; energies in pJ, None where the total is refused."""
        refused = self.refusal is not None
        return {
            "arm": self.arm,
            "table": self.table.name,
            "context": self.context,
            "low": None if refused else float(self.low),
            "high": None if refused else float(self.high),
            "priced": float(self.low),
            "terms": {term: float(cost) for term, cost in self.terms.items()},
            "bytes": float(self.moved),
            "refusal": self.refusal,
        }


def check_arms(names: Sequence[str], whole: bool) -> tuple[str, ...]:
    """Return the arms of these names, ours first.

    Errors: SpikeplugError for an unknown arm, and for one that cannot be compared with what the recipe converts.
    """
    for name in names:
        if name not in ARMS:
            raise SpikeplugError(f"unknown arm {name!r}: choose out of {', '.join(ARMS)}.")
        if (reason := not_of_recipe(name, whole)) is not None:
            raise SpikeplugError(reason)
    return (OURS, *(name for name in ARMS if name in names and name != OURS))


def arms_of(whole: bool) -> tuple[str, ...]:
    """Return the arms that can be compared with what the recipe converts."""
    return tuple(name for name in ARMS if not_of_recipe(name, whole) is None)


def not_of_recipe(arm: str, whole: bool) -> str | None:
    """Return why an arm cannot be compared with what the recipe converts, as a sentence; None if it can."""
    if arm == "paper" and whole:
        return (
            "the arm paper cannot be compared with a whole model: ordered groups are published for nonlinear operators "
            "only; give --recipe operators."
        )
    if arm in _DENSE and not whole:
        return (
            f"the arm {arm} cannot be compared with nonlinear operators alone: it prices matrix products, which the "
            "recipe operators leaves in float and does not count; give --recipe whole."
        )
    return None


def costs(
    tokens: dict[str, Token], tables: Iterable[CostTable], names: Sequence[str], levels: int, hops: int
) -> list[Cost]:
    """Return what every arm costs by every table, at one context.

    tokens  "ours", and "paper" if that is asked for: the counted token
    levels  T·L of the inputs of linear layers, for the arm qnn
    """
    found = []
    for table in tables:
        for name in names:
            if name in tokens:
                found.append(_spiking(name, table, tokens[name], hops))
            elif name == "off-chip":
                found.append(_off_chip(table, tokens[OURS], hops))
            else:
                found.append(_dense(name, table, tokens[OURS], levels))
    return found


def _spiking(name: str, table: CostTable, token: Token, hops: int) -> Cost:
    found = energy(token.events, table, hops=hops, graded=name == "paper")
    return Cost(name, table, token.context, found.priced, found.priced, found.terms, found.refusal, found.moved)


def _off_chip(table: CostTable, token: Token, hops: int) -> Cost:
    """Price nonlinear operators outside of the chip; those that are linear keep their spikes."""
    outside = load_table(_OUTSIDE)
    assert outside.transfer is not None
    low, high = outside.transfer
    works = [work for work in token.work if not work.linear]
    words = Fraction(32 * sum(work.numbers_in + work.weights + work.numbers_out for work in works), 64)
    terms = {TRANSFERS: words * low, "float arithmetic": _float_arithmetic(works, outside)}
    inside = energy(token.events, table, hops=hops).only({work.operator for work in token.work if work.linear})
    for term, cost in inside.terms.items():
        terms[term] = terms.get(term, Fraction()) + cost
    least = sum(terms.values(), Fraction())
    most, moved = least + words * (high - low), inside.moved + words * 8
    return Cost("off-chip", table, token.context, least, most, terms, inside.refusal, moved)


def _dense(name: str, table: CostTable, token: Token, levels: int) -> Cost:
    """Price the model without spikes, in the technology of the table."""
    if table.memory is None or not table.arithmetic:
        return Cost(name, table, token.context, refusal=_no_dense([name], [table.name]))
    prices, weight_bits = table.arithmetic, 32 if name == "float32" else 8
    bits = {"int8": 8, "float32": 32}.get(name, levels.bit_length())
    # The energy of a multiplication grows as the product of its widths.
    product = prices["int8_multiply"] * Fraction(bits * weight_bits, 64) + prices["int32_add"]
    if name == "float32":
        product = prices["float32_multiply_add"]
    arithmetic = nonlinear = traffic = weights = read = Fraction()
    for work in token.work:
        moved = (work.numbers_in + work.numbers_out) * bits
        read += Fraction(moved + work.weights * weight_bits, 8)
        traffic += Fraction(moved, 32) * table.memory.price(max(work.numbers_in, work.numbers_out) * bits)
        weights += Fraction(work.weights * weight_bits, 32) * table.memory.price(work.weights * weight_bits)
        if work.linear or work.macs:
            arithmetic += (work.macs or work.numbers_out) * product
        if not work.linear:
            nonlinear += _float_arithmetic([work], table)
    terms = {"arithmetic": arithmetic, "float arithmetic": nonlinear, TRAFFIC: traffic, "weight traffic": weights}
    total = sum(terms.values(), Fraction())
    return Cost(name, table, token.context, total, total, terms, moved=read)


def _float_arithmetic(works: Iterable[Work], table: CostTable) -> Fraction:
    prices = table.arithmetic
    return sum(
        (
            (work.macs or work.numbers_in) * prices["float32_multiply_add"]
            + work.numbers_out * prices["float32_divide"]
            for work in works
        ),
        Fraction(),
    )


def verdicts(found: Sequence[Cost]) -> list[str]:
    """Return what the costs say, in sentences: how many times each arm ours costs, or why that cannot be said.

    One per table and arm, at the longest context; arms that a table cannot price share one sentence.
    """
    longest = max((cost.context for cost in found), default=0)
    costs, sentences = [cost for cost in found if cost.context == longest], []
    for ours in costs:
        if ours.arm == OURS and ours.refusal is not None:
            sentences.append(_sentence(ours.refusal))
        elif ours.arm == OURS:
            others = (one for one in costs if one.table == ours.table and one is not ours and one.refusal is None)
            sentences += [_verdict(ours, other) for other in others if ours.low and other.low]
    arms = dict.fromkeys(cost.arm for cost in costs if cost.arm in _DENSE and cost.refusal is not None)
    if arms:
        tables = dict.fromkeys(cost.table.name for cost in costs if cost.arm in arms and cost.refusal is not None)
        sentences.append(_sentence(_no_dense(tuple(arms), tuple(tables))))
    return sentences


def _no_dense(arms: Sequence[str], tables: Sequence[str]) -> str:
    plural = "s" if len(arms) > 1 else ""
    have = "these tables have" if len(tables) > 1 else "that table has"
    return (
        f"the arm{plural} {', '.join(arms)} cannot be compared by {', '.join(tables)}: {have} no prices of memory "
        f"and of arithmetic without spikes in the same technology; compare by {_OUTSIDE}."
    )


def _verdict(ours: Cost, other: Cost) -> str:
    """Return who costs how many times the other, in a sentence."""
    least, most = ours.low / other.high, ours.low / other.low
    if most < 1:
        who, times, whom = f"the {other.arm} arm", (1 / most, 1 / least), "ours"
    else:
        who, times, whom = "ours", (least, most), f"the {other.arm} arm"
    ends = " to ".join(dict.fromkeys(number(float(end)) for end in times))
    unsure = ", so neither is cheaper for certain" if least < 1 < most else ""
    traffic = "" if ours.traffic is None else f"; memory traffic is {100 * float(ours.traffic):.1f} % of ours"
    load = "; the price is one of another load" if ours.table.scope == "all-in" else ""
    where = f"by {ours.table.name} at a context of {ours.context:,}"
    return _sentence(f"{who} costs {ends} times as much as {whom} {where}{unsure}{traffic}{load}.")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
