"""Render how a model compares with chips as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spikeplug.hardware.chips import LIMITS
from spikeplug.hardware.fit import Fit, overview_row, row
from spikeplug.measurement.page import render_sections
from spikeplug.measurement.section import Drawing, Headline, Plot, Section, Table, axes, bars

_COLUMNS = (
    "limit",
    "verdict",
    "needed",
    "limit is",
    "beyond",
    "exceeding",
    "largest need",
    "evidence",
    "source",
    "names",
)
_READING = (
    "1 is the limit: a bar above it exceeds. The axis is logarithmic. Limits that are no numbers, and those without a "
    "public number, are in the table."
)


def fit_page(record: Mapping[str, Any], fits: Sequence[Fit]) -> str:
    """Return the HTML page of `spikeplug fit`.

    record  its JSON values, for the facts; fits: one per chip, of the same events
    Errors: SpikeplugError if plotly is not installed.
    """
    arguments, machine = record["arguments"], record["environment"]
    of = f"{record['model']['name']}, recipe {arguments['recipe']}: the last of {arguments['context']:,} tokens. "
    return render_sections(
        [_chips(fits), *map(_chip, fits)],
        title="spikeplug: neurons against the limits of chips",
        heading="Does it fit a chip?",
        subtitle=of + "Compared with published limits, each by itself; nothing ran on a chip.",
        command="spikeplug fit",
        facts={**machine, "commit": record["commit"] or "not run from a checkout", **arguments},
    )


def _chips(fits: Sequence[Fit]) -> Section:
    first = fits[0]
    rows = [overview_row(verdicts) for verdicts in zip(*(found.verdicts for found in fits), strict=True)]
    table = Table("Verdicts", "verdicts", ["limit", "needed", *(found.chip.name for found in fits)], rows, open=True)
    headlines = [
        Headline("neurons", f"{first.neurons:,}", "of one token, all there at once"),
        Headline("synapses", f"{first.synapses:,}", "of these neurons"),
        Headline("hops", f"{first.router_hops:,.0f}", f"of packets, at {first.hops:g} per spike"),
    ]
    return Section("chips", "Chips", " ".join(f"{found}." for found in fits), [table], headlines)


def _chip(found: Fit) -> Section:
    numbers = [v for v in found.verdicts if v.needed and _is_number(v.needed) and _is_number(v.allowed)]
    names = [LIMITS[verdict.limit][0] for verdict in numbers]
    trace = bars("need / limit", names, [verdict.needed / verdict.allowed for verdict in numbers])
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": {"dash": "dot"}}
    layout = axes("limit", "need / limit", log="y", shapes=[line])
    plots = [Plot("Needs in units of the limit", [Drawing("", [trace], layout)], _READING)] if numbers else []
    rows = [
        (*row(v), v.evidence, " ".join(filter(None, (v.source, v.note))), ", ".join(v.names)) for v in found.verdicts
    ]
    name = found.chip.name
    table = Table(f"{name}, limit by limit", _id(name), _COLUMNS, rows, open=True)
    return Section(_id(name), f"{name} ({found.chip.technology})", f"{found}. {found.chip.note}", [*plots, table])


def _id(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value not in (float("inf"), 0)
