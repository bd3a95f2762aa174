"""Render a run as one self-contained HTML page: ratios, curves of growth, and all rows as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from spikeplug.bench.cases import ARMS
from spikeplug.bench.results import COLUMNS, Growth, Row, growths
from spikeplug.bench.table import by_case, times
from spikeplug.measurement.page import render_sections
from spikeplug.measurement.section import Drawing, Headline, Plot, Section, Table

_LEADS = {
    "operators": ("Operators", "At the shapes of two models, each compared with torch's own op and a plain copy."),
    "simulated": ("With the simulation", "A few rows, on which the step-by-step simulation is measured too."),
    "layer": ("One decoder layer", "The first layer, on the inputs it has in the model."),
    "model": ("Whole model", "Prefill and decode, on the same weights."),
}


def bench_page(record: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return the HTML page of a run.

    record  JSON values of the run (`make_bench_record`), for the facts; rows: its figures
    Errors: SpikeplugError if plotly is not installed.
    """
    machine = record["environment"]
    sections = [
        _ratios(name, [row for row in rows if row.section == name])
        for name in _LEADS
        if any(row.section == name for row in rows)
    ]
    if found := growths(rows):
        sections.insert(1, _growth(found, [row for row in rows if row.section == "growth"]))
    return render_sections(
        sections,
        title="spikeplug: speed compared with torch's exact operators",
        heading="Speed of the spiking operators",
        subtitle=f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}; "
        f"measured {record['created'][:10]}{', quick run' if record['arguments']['quick'] else ''}",
        command="spikeplug bench",
        facts={**machine, "commit": record["commit"] or "not run from a checkout", **record["arguments"]},
    )


def _ratios(name: str, rows: Sequence[Row]) -> Section:
    title, lead = _LEADS[name]
    traces: list[dict[str, Any]] = []
    for arm in ARMS:  # all of them, so that an arm has one colour on the whole page
        of = [row for row in rows if row.arm == arm != "exact" and row.times_exact is not None]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": arm,
                "showlegend": bool(of),
                "marker": {"size": 9},
                "x": [row.times_exact for row in of],
                "y": [_label(row) for row in of],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [row.times_exact_high - row.times_exact for row in of],  # type: ignore[operator]
                    "arrayminus": [row.times_exact - row.times_exact_low for row in of],  # type: ignore[operator]
                },
            }
        )
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 1, "x1": 1, "line": {"dash": "dot"}}
    layout = {
        "xaxis": {"type": "log", "title": {"text": "time / time of torch's exact op"}},
        "yaxis": {"type": "category", "autorange": "reversed", "dtick": 1},
        "shapes": [line],
    }
    reading = (
        "1 (dotted) is torch's exact op; further left is faster. Points are medians over interleaved rounds, whiskers "
        "their quartiles; the axis is logarithmic."
    )
    plot = Plot(f"{title}: time over torch's exact op", [Drawing("", traces, layout)], reading)
    return Section(name, title, lead, [plot, _table(title, name, rows)], _headlines(name, rows))


def _growth(found: Sequence[Growth], rows: Sequence[Row]) -> Section:
    plots = []
    for operator, axis in dict.fromkeys((growth.operator, growth.axis) for growth in found):
        of = [growth for growth in found if (growth.operator, growth.axis) == (operator, axis)]
        traces = [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": growth.arm + ("" if growth.exponent is None else f" (p = {growth.exponent:.2f})"),
                "x": list(growth.sizes),
                "y": list(growth.seconds),
            }
            for growth in sorted(of, key=lambda growth: ARMS.index(growth.arm))
        ]
        layout = {
            "xaxis": {"type": "log", "title": {"text": of[0].what}},
            "yaxis": {"type": "log", "title": {"text": "seconds"}},
            "legend": {"orientation": "h", "y": -0.4, "yanchor": "top", "x": 0},
        }
        reading = "Both axes are logarithmic: a line of slope p is a time that grows as the size to the power p."
        plots.append(Plot(f"{operator} over its {axis}", [Drawing("", traces, layout)], reading, small=True))
    lead = "How times grow with the length and the width of an operator's input."
    return Section("growth", "Growth", lead, [*plots, _table("Growth", "growth", rows)])


def _headlines(name: str, rows: Sequence[Row]) -> list[Headline]:
    if name != "model":
        return []
    found = []
    for case in by_case(rows):
        kernel = case["kernel"]
        if kernel.times_exact is not None and "simulated" not in case:
            found.append(Headline(f"{kernel.name}, {kernel.shape}", f"{times(kernel.times_exact)}×", "time over exact"))
    return found


def _label(row: Row) -> str:
    """Return the row's name, model and shape as a short label; the shape without heads, which the table shows."""
    shape = re.sub(r"^\S+ heads of \d+, ", "", row.shape)
    model = "" if row.section in ("layer", "model") else row.model
    return ", ".join(part for part in (row.name, model, shape) if part)


def _table(title: str, name: str, rows: Sequence[Row]) -> Table:
    columns = COLUMNS[1:]
    return Table(title, name, columns, [[_cell(getattr(row, column)) for column in columns] for row in rows])


def _cell(value: Any) -> Any:
    return ("yes" if value else "NO") if isinstance(value, bool) else value
