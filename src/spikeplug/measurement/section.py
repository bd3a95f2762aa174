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
    """One picture: traces and layout of plotly. The page's theme has the colours, so traces name none."""

    label: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """A picture, or several to choose from, and how to read it in plain words.

    small   two such plots fit side by side
    first   the drawing to show first
    """

    title: str
    drawings: Sequence[Drawing]
    reading: str
    small: bool = False
    first: int = 0


@dataclass(frozen=True)
class Table:
    """Rows of numbers (None: not a number) and words.

    name   of its CSV file
    open   whether it is shown without a click
    """

    title: str
    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    open: bool = False


@dataclass(frozen=True)
class Headline:
    """One of the numbers at the top of the page."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Section:
    """One section of the page. `lead` is its answer in a sentence or two."""

    name: str
    title: str
    lead: str
    parts: Sequence[Plot | Table]
    headlines: Sequence[Headline] = field(default=())


def number(value: float | None, digits: int = 3) -> str:
    """Return three significant digits; thousands with commas, millions in words."""
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
    """Return a change in per cent with its sign."""
    if value is None or not math.isfinite(value):
        return "not a number"
    return f"{value:+,.0f} %" if abs(value) >= 1000 else f"{value:+.3g} %" if abs(value) >= 1e-3 else f"{value:+.1g} %"


def line(name: str, x: Sequence[Any], y: Sequence[Any], **how: Any) -> dict[str, Any]:
    """Return a plotly trace of a line with its points."""
    return {"type": "scatter", "mode": "lines+markers", "name": name, "x": list(x), "y": list(y), **how}


def bars(name: str, x: Sequence[Any], y: Sequence[Any], **how: Any) -> dict[str, Any]:
    """Return a plotly trace with a bar for each x."""
    return {"type": "bar", "name": name, "x": list(x), "y": list(y), **how}


def axes(
    x: str, y: str, *, log: str = "", whole: Mapping[str, tuple[int, int]] | None = None, **more: Any
) -> dict[str, Any]:
    """Return the layout of two axes with these titles.

    log     the logarithmic axes: "", "x", "y" or "xy"
    whole   axis -> (first, last), for axes of whole numbers
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
    """Put ticks at 1, 2, 4, ... up to `last` on a logarithmic axis."""
    axis |= {"tickmode": "array", "tickvals": [2**k for k in range(max(1, math.ceil(last)).bit_length())]}


def positive(values: Sequence[float | None]) -> list[float | None]:
    """Return the values for a logarithmic axis: 0 becomes a gap instead of a line to the bottom."""
    return [value if value else None for value in values]


def heatmap(grid: Sequence[Sequence[float | None]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return traces and layout of log10 of a (layers, heads) grid. Layers may have different numbers of heads."""
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
