"""The parts of a page as plain data: sections of plots, tables and headline numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Values = Mapping[str, Any]
#: Rows of one section: values by key, in the order in which they were measured.
Rows = Mapping[str, Values]


@dataclass(frozen=True)
class Drawing:
    """One picture: traces and layout as plotly takes them, without colours (the page sets these), and a label."""

    label: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """A figure of the page: one drawing, or several to choose from by their labels.

    reading   how to read the figure, in plain words
    small     two small figures fit side by side
    first     index of the drawing to show first
    height    in pixels; None: as most figures
    """

    title: str
    drawings: Sequence[Drawing]
    reading: str
    small: bool = False
    first: int = 0
    height: int | None = None


@dataclass(frozen=True)
class Table:
    """A table of the page; cells are numbers, words, or None where a number is missing.

    name   name of the CSV file of the table
    open   whether the table is shown without a click, and on the command line
    """

    title: str
    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    open: bool = False


@dataclass(frozen=True)
class Headline:
    """One of the key figures at the top of the page: what it is, its value as text, and a remark."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Section:
    """One section of the page.

    name        its HTML id, for links
    lead        what the section found, in a sentence or two
    parts       its plots and tables in order
    headlines   its key figures, shown at the top of the page
    """

    name: str
    title: str
    lead: str
    parts: Sequence[Plot | Table]
    headlines: Sequence[Headline] = field(default=())


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text with `digits` significant digits; NaN, infinities and None give "not a number".

    From 10,000 on it is a whole number with commas, from 1e6 on "2.5 million" or "2.5 billion". Below 1e-3 and from
    1e12 on it has an exponent.
    """
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
    """Return a change, given in per cent, as text with its sign, such as "+1.25 %"; "not a number" for NaN or None."""
    if value is None or not math.isfinite(value):
        return "not a number"
    return f"{value:+,.0f} %" if abs(value) >= 1000 else f"{value:+.3g} %" if abs(value) >= 1e-3 else f"{value:+.1g} %"


def line(name: str, x: Sequence[Any], y: Sequence[Any], **how: Any) -> dict[str, Any]:
    """Return a plotly trace of a line with markers at its points. how: further keys of the trace."""
    return {"type": "scatter", "mode": "lines+markers", "name": name, "x": list(x), "y": list(y), **how}


def bars(name: str, x: Sequence[Any], y: Sequence[Any], **how: Any) -> dict[str, Any]:
    """Return a plotly trace with a bar of height y at each x. how: further keys of the trace."""
    return {"type": "bar", "name": name, "x": list(x), "y": list(y), **how}


def axes(
    x: str, y: str, *, log: str = "", whole: Mapping[str, tuple[int, int]] | None = None, **more: Any
) -> dict[str, Any]:
    """Return a plotly layout of two axes with the titles x and y.

    log     which axes are logarithmic: "", "x", "y" or "xy"
    whole   "x" or "y" -> (first, last) value, for axes of whole numbers
    more    further keys of the layout
    """
    layout: dict[str, Any] = {}
    for name, title in (("x", x), ("y", y)):
        # 10⁻³, not "m"; few ticks between two powers of ten.
        axis: dict[str, Any] = {"title": {"text": title}, "exponentformat": "power", "minexponent": 4}
        if name in log:
            axis |= {"type": "log", "nticks": 7}
        if whole and name in whole:
            first, last = whole[name]
            axis |= {"dtick": max(1, math.ceil((last - first) / 15)), "range": [first - 0.5, last + 0.5]}
        layout[f"{name}axis"] = axis
    return layout | more


def doubling(axis: dict[str, Any], last: float) -> None:
    """Change a plotly axis in place: put its ticks at the powers of two from 1 up to `last`."""
    axis |= {"tickmode": "array", "tickvals": [2**k for k in range(max(1, math.ceil(last)).bit_length())]}


def positive(values: Sequence[float | None]) -> list[float | None]:
    """Return the values with None in place of 0, so that a line on a logarithmic axis has a gap there."""
    return [value if value else None for value in values]


def heatmap(grid: Sequence[Sequence[float | None]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return plotly traces and layout of a heatmap of log10 of `grid`: one row of values per layer, one value per head.

    Rows may differ in length. None and 0 are gaps.
    """
    width = max(map(len, grid))
    trace = {
        "type": "heatmap",
        "z": [[math.log10(x) if x else None for x in row] + [None] * (width - len(row)) for row in grid],
        "x": list(range(1, width + 1)),
        "y": list(range(1, len(grid) + 1)),
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": "log₁₀"}, "thickness": 12},
        "hovertemplate": "layer %{y}, head %{x}: 10^%{z:.2f}<extra></extra>",
    }
    return [trace], axes("head", "layer", whole={"x": (1, width), "y": (1, len(grid))})
