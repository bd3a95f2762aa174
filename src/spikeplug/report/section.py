"""What a page is made of: sections of plots, tables and headline numbers, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Values = Mapping[str, Any]
#: Rows of one study: values by key, in the order in which they were measured.
Rows = Mapping[str, Values]


@dataclass(frozen=True)
class Drawing:
    """One picture: plotly's traces and layout. Colours come from the page's theme, so traces name none."""

    label: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """A picture, or several to choose from, and how to read it in plain words.

    small: two fit beside each other. first: the drawing to show first.
    """

    title: str
    drawings: Sequence[Drawing]
    reading: str
    small: bool = False
    first: int = 0


@dataclass(frozen=True)
class Table:
    """Rows of numbers (None: not a number) and words. `name` is that of its CSV file. open: shown unasked."""

    title: str
    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    open: bool = False


@dataclass(frozen=True)
class Headline:
    """One of the numbers on top of the page."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Section:
    """A study as people see it. `lead` is its answer in a sentence or two."""

    name: str
    title: str
    lead: str
    parts: Sequence[Plot | Table]
    headlines: Sequence[Headline] = field(default=())


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits; thousands with commas, millions in words."""
    if value is None or not math.isfinite(value):
        return "not a number"
    if value == 0:
        return "0"
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if size <= abs(value) < 1000 * size:
            return f"{value / size:.{digits}g} {word}"
    if abs(value) >= 1e4:
        return f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.{digits - 1}e}"
    if abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """A change, with its sign."""
    if value is None or not math.isfinite(value):
        return "not a number"
    return f"{value:+,.0f} %" if abs(value) >= 1000 else f"{value:+.3g} %" if abs(value) >= 1e-3 else f"{value:+.1g} %"


def line(name: str, x: Sequence[Any], y: Sequence[Any], **how: Any) -> dict[str, Any]:
    """A line with its points."""
    return {"type": "scatter", "mode": "lines+markers", "name": name, "x": list(x), "y": list(y), **how}


def bars(name: str, x: Sequence[Any], y: Sequence[Any], **how: Any) -> dict[str, Any]:
    """A bar for each x."""
    return {"type": "bar", "name": name, "x": list(x), "y": list(y), **how}


def axes(
    x: str, y: str, *, log: str = "", whole: Mapping[str, tuple[int, int]] | None = None, **more: Any
) -> dict[str, Any]:
    """Titles; `log` names the logarithmic axes ("", "x", "y" or "xy"), `whole` first and last of those that count."""
    layout: dict[str, Any] = {}
    for name, title in (("x", x), ("y", y)):
        # 10⁻³, not "m"; few numbers between two powers of ten.
        axis: dict[str, Any] = {"title": {"text": title}, "exponentformat": "power", "minexponent": 4}
        if name in log:
            axis |= {"type": "log", "nticks": 7}
        if whole and name in whole:
            first, last = whole[name]
            axis |= {"dtick": max(1, math.ceil((last - first) / 15)), "range": [first - 0.5, last + 0.5]}
        layout[f"{name}axis"] = axis
    return layout | more


def doubling(axis: dict[str, Any], last: float) -> None:
    """Ticks at 1, 2, 4, ... up to `last` on a logarithmic axis."""
    axis |= {"tickmode": "array", "tickvals": [2**k for k in range(max(1, math.ceil(last)).bit_length())]}


def positive(values: Sequence[float | None]) -> list[float | None]:
    """For a logarithmic axis: 0 becomes a gap, not a line to the bottom."""
    return [value if value else None for value in values]
