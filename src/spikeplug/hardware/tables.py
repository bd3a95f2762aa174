"""Read tables of prices: what each counted event costs on a chip, with the source of every figure.

A table is a TOML file. Prices are exact: a price of 23.6 pJ is the fraction 236/10, so that energies add up exactly.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from spikeplug.errors import SpikeplugError, shown

#: What is counted and can have a price in pJ per event, with its meaning.
TERMS: Mapping[str, str] = {
    "spikes": "spikes sent, by neurons and by inputs: encoding is charged, too",
    "messages": "packets: one per spike, as if all its synapses were on one core",
    "hops": "packets times the hops that are asked for",
    "synops": "synaptic operations",
    "driven_updates": "neuron updates in whose step an input arrives",
    "idle_updates": "neuron updates in whose step none arrives",
    "compares": "compares with a firing threshold",
    "table_reads": "table entries read",
}
#: The price of a term whose energy lies in that of another.
INCLUDED = "included"
#: What an all-in price has in it already.
_NEVER_ADDED = ("hops", "driven_updates", "idle_updates")
_EVIDENCE = ("silicon", "simulated", "regressed", "pre-silicon", "reported")
_SCOPES = ("marginal", "all-in")
_TEXTS = ("title", "chip", "technology", "voltage", "evidence", "scope", "citation")
_SECTIONS = ("prices", "latency", "memory", "arithmetic", "transfer")
_ARITHMETIC = ("int8_multiply", "int32_add", "float32_multiply_add", "float32_divide")
_NONE_FOUND = "none_found"
_FOLDER = Path(__file__).with_name("tables")


@dataclass(frozen=True)
class Memory:
    """Hold what moving 32 bits to or from a memory costs, by the size of the memory.

    kib  sizes in KiB, rising
    pj   pJ per 32 bits, for each size
    """

    kib: tuple[Fraction, ...]
    pj: tuple[Fraction, ...]

    def price(self, bits: Fraction | int) -> Fraction:
        """Return the pJ per 32 bits of a memory of `bits`, on straight lines between the sizes.

        A smaller memory has the price of the smallest. What exceeds the largest lies in several of its size.
        """
        size = min(max(Fraction(bits) / 8192, self.kib[0]), self.kib[-1])
        for place in range(1, len(self.kib)):
            low, high = self.kib[place - 1], self.kib[place]
            if size <= high:
                return self.pj[place - 1] + (self.pj[place] - self.pj[place - 1]) * (size - low) / (high - low)
        return self.pj[-1]


@dataclass(frozen=True)
class CostTable:
    """Hold the prices of one source. All energies are in pJ, exact.

    name        its file's name, by which it is asked for
    title       name for people
    chip, technology, voltage   what the figures are of
    evidence    silicon, simulated, regressed, pre-silicon or reported (a paper that does not say how)
    scope       marginal: the price of one more event; all-in: all power of the chip over its events
    citation    the source
    notes       what a reader must know
    prices      term -> pJ per event; a counted term that is neither here nor included has no price
    included    terms whose energy lies in the price of another
    memory      the price of moving bits; None: memory is in the prices
    arithmetic  operation -> pJ, of what other arms compute in the same technology; empty: not known
    transfer    (low, high) pJ per 64 bits to or from a memory outside of the chip; None: not known
    step        seconds per time step; None: the source has none
    beside      names of tables that are always shown beside this one
    """

    name: str
    title: str
    chip: str
    technology: str
    voltage: str
    evidence: str
    scope: str
    citation: str
    prices: Mapping[str, Fraction]
    included: frozenset[str]
    notes: str = ""
    memory: Memory | None = None
    arithmetic: Mapping[str, Fraction] = field(default_factory=dict)
    transfer: tuple[Fraction, Fraction] | None = None
    step: Fraction | None = None
    beside: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """Return chip, technology, voltage, evidence and scope in a line."""
        voltage = "" if self.voltage == "not stated" else f", {self.voltage}"
        return f"{self.title} ({self.technology}{voltage}; {self.evidence}; {self.scope})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; prices in pJ."""
        return {
            **{name: getattr(self, name) for name in ("name", *_TEXTS, "notes")},
            "prices": {term: float(price) for term, price in self.prices.items()},
            "included": sorted(self.included),
            "seconds_per_step": None if self.step is None else float(self.step),
        }


def table_names() -> tuple[str, ...]:
    """Return the names of the tables that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml") if path.stem != _NONE_FOUND))


def load_table(table: CostTable | str | Path) -> CostTable:
    """Return the table of that name, or that a TOML file holds; a table is returned as it is.

    Errors: SpikeplugError for an unknown name, a chip without published prices, and a file that is no valid table.
    """
    if isinstance(table, CostTable):
        return table
    if not isinstance(table, (str, Path)):
        raise SpikeplugError(f"table is {shown(table)}: give one of {', '.join(table_names())}, or a TOML file.")
    if isinstance(table, str) and table in table_names():
        return _packaged(table)
    if isinstance(table, str) and (reason := _none_found().get(table)):
        raise SpikeplugError(f"there is no table {table}: {reason}; choose one of {', '.join(table_names())}.")
    path = Path(table).expanduser()
    if path.suffix != ".toml":
        raise SpikeplugError(
            f"unknown table {shown(str(table))}: give one of {', '.join(table_names())}, or a TOML file."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path that no file can have
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SpikeplugError(f"cannot read the table {path}: {reason}; give a TOML file.") from error
    return read_table(text, path.stem, str(path))


def with_companions(tables: list[CostTable]) -> list[CostTable]:
    """Return the tables, each once, and after each those that are always shown beside it."""
    found: dict[str, CostTable] = {}
    for table in tables:
        for one in (table, *map(load_table, table.beside)):
            found.setdefault(one.name, one)
    return list(found.values())


def read_table(text: str, name: str, place: str) -> CostTable:
    """Return the table that a TOML text holds.

    place  the file, for messages

    Errors: SpikeplugError, naming file and field, for missing or unknown fields, and for prices that are negative or no
    numbers.
    """
    try:
        values = tomllib.loads(text, parse_float=Fraction)
    except (tomllib.TOMLDecodeError, ValueError) as error:  # ValueError: inf and nan, which are no fractions
        raise SpikeplugError(f"{place} is not valid TOML ({error}): correct it.") from error
    fields = _Fields(values, place)
    fields.known("", values, (*_TEXTS, "notes", "beside", *_SECTIONS))
    texts = {key: fields.text(key) for key in _TEXTS}
    for key, choices in (("evidence", _EVIDENCE), ("scope", _SCOPES)):
        if texts[key] not in choices:
            raise fields.wrong(key, texts[key], f"choose one of {', '.join(choices)}")
    prices, included = _prices(fields, texts["scope"])
    transfer = fields.section("transfer", ("low", "high"))
    arithmetic = fields.section("arithmetic", _ARITHMETIC)
    latency = fields.section("latency", ("step",))
    return CostTable(
        name=name,
        prices=prices,
        included=included,
        notes=fields.text("notes") if "notes" in values else "",
        memory=_memory(fields),
        arithmetic=arithmetic,
        transfer=(transfer["low"], transfer["high"]) if transfer else None,
        step=latency.get("step"),
        beside=fields.names("beside"),
        **texts,
    )


class _Fields:
    """The values of a file, read one by one. Errors: SpikeplugError, naming the file and the field."""

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self._values, self._place = values, place

    def wrong(self, name: str, value: object, remedy: str) -> SpikeplugError:
        value = f"{float(value):g}" if isinstance(value, Fraction) else shown(value)
        return SpikeplugError(f"{name} is {value} in {self._place}: {remedy}.")

    def known(self, section: str, values: Mapping[str, Any], names: tuple[str, ...]) -> None:
        for name in values:
            if name not in names:
                where = f"{section}.{name}" if section else name
                raise SpikeplugError(f"{where} is unknown in {self._place}: use {', '.join(names)}.")

    def text(self, name: str) -> str:
        value = self._values.get(name)
        if value is None:
            raise SpikeplugError(f"{name} is missing in {self._place}: add it, as a text.")
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(name, value, "give a text")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        value = self._values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.wrong(name, value, "give a list of names of tables")
        return tuple(value)

    def table(self, name: str) -> Mapping[str, Any]:
        value = self._values.get(name, {})
        if not isinstance(value, Mapping):
            raise self.wrong(name, value, f"give a section [{name}]")
        return value

    def number(self, name: str, value: object) -> Fraction:
        if isinstance(value, bool) or not isinstance(value, (int, Fraction)):
            raise self.wrong(name, value, "give a number of 0 or more")
        if value < 0:
            raise self.wrong(name, value, "give a number of 0 or more")
        return Fraction(value)

    def section(self, name: str, keys: tuple[str, ...]) -> dict[str, Fraction]:
        """Return a section of numbers: all keys, or none where the file has no such section."""
        values = self.table(name)
        self.known(name, values, keys)
        for key in keys:
            if values and key not in values:
                raise SpikeplugError(f"{name}.{key} is missing in {self._place}: add it, as a number.")
        return {key: self.number(f"{name}.{key}", value) for key, value in values.items()}

    def missing(self, name: str, remedy: str) -> SpikeplugError:
        return SpikeplugError(f"{name} is missing in {self._place}: {remedy}.")


def _prices(fields: _Fields, scope: str) -> tuple[dict[str, Fraction], frozenset[str]]:
    """Return the prices by term, and the terms that others include. A price may be the name of another term."""
    given = fields.table("prices")
    fields.known("prices", given, tuple(TERMS))
    prices: dict[str, Fraction] = {}
    included, aliases = set(), {}
    for term, price in given.items():
        if price == INCLUDED:
            included.add(term)
        elif isinstance(price, str) and price in TERMS:
            aliases[term] = price
        else:
            prices[term] = fields.number(f"prices.{term}", price)
    if not prices:
        raise fields.missing("prices", f"add a section [prices] with a number for one of {', '.join(TERMS)}")
    for term, other in aliases.items():
        if other not in prices:
            raise fields.wrong(f"prices.{term}", other, "name a term that has a price")
        prices[term] = prices[other]
    if scope == "all-in":
        for term in _NEVER_ADDED:
            if term in prices:
                raise fields.wrong(f"prices.{term}", prices[term], "leave it out, an all-in price has it in it")
        included |= set(TERMS) - set(prices)
    return prices, frozenset(included)


def _memory(fields: _Fields) -> Memory | None:
    values = fields.table("memory")
    if not values:
        return None
    names = ("kib", "pj_per_32_bits")
    fields.known("memory", values, names)
    lists = []
    for name in names:
        found = values.get(name)
        if not isinstance(found, list) or not found:
            raise fields.missing(f"memory.{name}", "add it, as a list of numbers")
        lists.append(tuple(fields.number(f"memory.{name}", value) for value in found))
    sizes, prices = lists
    if len(sizes) != len(prices) or list(sizes) != sorted(set(sizes)):
        raise fields.wrong("memory.kib", [float(size) for size in sizes], "give rising sizes, one for each price")
    return Memory(sizes, prices)


@cache
def _packaged(name: str) -> CostTable:
    text = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    return read_table(text, name, f"{name}.toml")


def _none_found() -> Mapping[str, str]:
    return tomllib.loads((_FOLDER / f"{_NONE_FOUND}.toml").read_text(encoding="utf-8"))
