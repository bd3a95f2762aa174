"""Show the results of a study as tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table

from spikeplug.evidence.facts import Facts, code_text, mean_events
from spikeplug.evidence.published import Figure
from spikeplug.evidence.results import BoundRow, Row, Study
from spikeplug.measurement.table import saturation_table


def tables(found: Study) -> list[RenderableType]:
    """Return the tables of errors, baselines, facts, published figures, bounds and saturations, without empty ones."""
    spiking = [row for row in found.rows if row.method == "spiking"]
    compared = [row for row in found.rows if any(row.name == other.name for other in found.rows if other is not row)]
    names = {row.name for row in found.rows if row.method != "spiking"}
    parts: list[tuple[Collection[object], RenderableType]] = [
        (spiking, error_table(spiking)),
        (names, baseline_table([row for row in compared if row.name in names])),
        (found.facts, facts_table(found.facts)),
        (found.figures, figure_table(found.figures)),
        (found.bounds, bound_table(found.bounds)),
    ]
    return [table for content, table in parts if content] + [saturation_table(found.saturations)]


def error_table(rows: Sequence[Row]) -> Table:
    """Return a table with one row per operator or primitive, dimension and distribution."""
    table = _table("Spiking against float64", "operator", "d", "inputs")
    for name in ("max", "mean", "MSE", "bias", "max rel.", "mean rel.", "max LSB", "mean LSB", "KL", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    last = ""
    for row in rows:
        m = row.measures
        figures = (m.max_error, m.mean_error, m.mse, m.bias, m.max_relative, m.mean_relative, m.max_lsb, m.mean_lsb)
        table.add_row(
            "" if row.name == last else row.name,
            _dimension(row.dimension),
            row.distribution,
            *(_number(value) for value in (*figures, m.mean_kl, m.lost)),
        )
        last = row.name
    return table


def baseline_table(rows: Sequence[Row]) -> Table:
    """Return the mean error per method, with one column per dimension, in blocks per operator and distribution."""
    dimensions = sorted({row.dimension or 0 for row in rows})
    table = _table("Compared with the baselines: mean |error| / mean |exact|", "operator", "inputs", "method")
    for dimension in dimensions:
        table.add_column(f"d = {dimension}" if dimension else "", justify="right", no_wrap=True)
    values = {(r.name, r.distribution, r.method, r.dimension or 0): r.measures.mean_relative for r in rows}
    last = ("", "")
    for name, distribution, method in dict.fromkeys(key[:3] for key in sorted_blocks(rows)):
        cells = (_number(values.get((name, distribution, method, dimension))) for dimension in dimensions)
        same = (name, distribution) == last
        table.add_row("" if same else name, "" if same else distribution, method, *cells)
        last = (name, distribution)
    return table


def sorted_blocks(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Return (operator, distribution, method), grouped by operator and distribution, in order of first appearance."""
    names = list(dict.fromkeys(row.name for row in rows))
    kinds = list(dict.fromkeys(row.distribution for row in rows))
    keys = [(row.name, row.distribution, row.method) for row in rows]
    return sorted(keys, key=lambda key: (names.index(key[0]), kinds.index(key[1])))


#: Number of verbs in the table, those with the most neurons; the JSON file has all.
_SHOWN = 3


def facts_table(found: Sequence[Facts]) -> Table:
    """Return a table with one row per operator."""
    table = _table("What they are made of (vectors of 8)", "operator", "neurons")
    for name in ("tables, bytes", "spikes / output", "synops / output", "steps"):
        table.add_column(name, justify="right")
    for name in ("output scale", "input"):
        table.add_column(name)
    for facts in found:
        largest = sorted(facts.populations.items(), key=lambda item: -item[1])[:_SHOWN]
        neurons = f"{facts.neurons:,}: " + ", ".join(f"{count:,} {verb}" for verb, count in largest)
        spikes, synops = mean_events(facts)
        scale = facts.scale if facts.smallest is None else f"{facts.scale}, up to {facts.largest:g}"
        cells = (f"{facts.table_bytes:.0f}", f"{spikes:,.0f}", f"{synops:,.0f}", f"{facts.steps:,}")
        table.add_row(facts.operator, neurons, *cells, scale, facts.input_range)
    if found:
        table.caption = f"code of every output: {code_text(found[0])}"
    return table


def figure_table(found: Sequence[Figure]) -> Table:
    """Return a table with one row per published figure and reading."""
    table = _table("Published mean errors, both sides floored to 1/256", "operator", "d", "reading")
    for name in ("published", "here", "ratio", "max · 256"):
        table.add_column(name, justify="right")
    for figure in found:
        table.add_row(
            figure.operator,
            _dimension(figure.dimension),
            figure.reading,
            _number(figure.published),
            _number(figure.mean),
            f"{figure.ratio:.2f}",
            f"{figure.max_steps:.0f}",
        )
    return table


def bound_table(rows: Sequence[BoundRow]) -> Table:
    """Return a table with one row per bound: the violation or, if there is none, the tightest point."""
    table = _table("Bounds and the worst found", "operator", "d", "bound of")
    for name in ("bound there", "worst found", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("holds", "how", "where"):
        table.add_column(name)
    for row in rows:
        worst = row.worst
        table.add_row(
            row.name,
            _dimension(row.dimension),
            row.source,
            _number(worst.bound),
            _number(worst.error),
            f"{worst.ratio:.3g}",
            "yes" if row.holds else "NO",
            f"{worst.method}, {worst.tried:,}",
            f"[{worst.element}] of " + "; ".join(_vector(vector) for vector in worst.inputs),
        )
    return table


def _vector(vector: Sequence[float]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in vector[:4])
    return f"({shown}{', …' if len(vector) > 4 else ''})"


def _dimension(dimension: int | None) -> str:
    return "" if dimension is None else str(dimension)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table
