"""Render a costing as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from spikeplug.hardware.arms import ARMS, OURS
from spikeplug.hardware.costing import Costing
from spikeplug.hardware.pricing import joules
from spikeplug.measurement.page import render_sections
from spikeplug.measurement.section import Drawing, Headline, Plot, Section, Table, axes, bars, line

#: Populations and modules in a plot; the tables have all.
_MOST = 20
_JOULES = "joules"


def costing_page(record: Mapping[str, Any], found: Costing) -> str:
    """Return the HTML page of a costing. record: its JSON values (`make_costing_record`), for the facts.

    Errors: SpikeplugError if plotly is not installed.
    """
    sections = [_arms(found), _groups(found), _context(found)]
    if found.lines:
        sections.append(_break_even(found))
    sections.append(_sources(found))
    name = record["model"]["name"]
    what = "the whole model" if found.whole else "the nonlinear operators"
    return render_sections(
        [section for section in sections if section.parts],
        title=f"{name}: what a spiking token costs",
        heading="What a spiking token costs",
        subtitle=f"{name}, {what}; counts times tables of published prices; computed {record['created'][:10]}",
        command="spikeplug energy",
        facts={**record["environment"], "commit": record["commit"] or "not run from a checkout", **record["arguments"]},
    )


def _arms(found: Costing) -> Section:
    drawings = []
    for context in dict.fromkeys(cost.context for cost in found.costs):
        traces = []
        for arm in ARMS:  # all of them, so that an arm has one colour on the whole page
            costs = [one for one in found.costs if (one.arm, one.context) == (arm, context) and one.refusal is None]
            error = {"type": "data", "symmetric": False, "array": [_j(one.high - one.low) for one in costs]}
            names, values = [one.table.title for one in costs], [_j(one.low) for one in costs]
            traces.append(bars(arm, names, values, error_y=error, showlegend=bool(costs)))
        drawings.append(Drawing(f"context {context:,}", traces, axes("", _JOULES, log="y", barmode="group")))
    rows = [[cost.arm, cost.context, cost.table.name, *_ends(cost), cost.refusal or ""] for cost in found.costs]
    table = Table(
        "Energy per token", "arms", ["arm", "context", "table", "least J", "most J", "remark"], rows, open=True
    )
    said = Table("In words", "verdicts", ["finding"], [[sentence] for sentence in found.verdicts], open=True)
    plot = Plot(
        "Energy per token, by table of prices",
        drawings,
        "Arms are compared within one table only; a whisker is a range of prices. An arm that a table cannot price is "
        "left out. The axis is logarithmic.",
        first=len(drawings) - 1,
    )
    used = {one.arm for one in found.costs}
    arms = [f"{name}: {what}" for name, what in ARMS.items() if name in used]
    headlines = [
        Headline(f"ours, {one.table.title}", joules(one.low), f"per token, context {one.context:,}")
        for one in found.costs
        if one.arm == OURS and one.refusal is None and one.context == found.tokens[-1].context
    ]
    return Section("arms", "Arms", f"{'; '.join(arms)}.", [plot, table, said], headlines)


def _groups(found: Costing) -> Section:
    parts: list[Plot | Table] = []
    context = found.tokens[-1].context
    kinds: dict[Literal["operator", "path", "population"], str]
    kinds = {"operator": "By operator", "path": "By module", "population": "By population"}
    for key, title in kinds.items():
        groups = [(one.table, one.by(key)) for one in found.energies]
        names = found.dearest(key)
        shown = names[:_MOST]
        drawings = []
        for table, group in groups:
            values, labels = [_j(group[name]) for name in shown], [name or "the model" for name in shown]
            layout = axes(_JOULES, "") | {"showlegend": False}
            layout["yaxis"] |= {"type": "category", "autorange": "reversed", "automargin": True, "dtick": 1}
            drawings.append(Drawing(table.title, [bars(table.title, values, labels, orientation="h")], layout))
        reading = "What is priced; of a table without a total, the sum of what has a price."
        more = "" if len(names) <= _MOST else f": the {_MOST} dearest of {len(names)}"
        parts.append(Plot(f"{title}{more}", drawings, reading, first=found.leading, height=120 + 22 * len(shown)))
        rows = [[name, *(_j(group[name]) for _, group in groups)] for name in names]
        parts.append(Table(title, f"by_{key}", [key, *(f"{table.name}, J" for table, _ in groups)], rows))
    terms = list(dict.fromkeys(term for one in found.energies for term in one.terms))
    rows = [
        [
            term.replace("_", " "),
            *(_j(one.terms[term]) if term in one.terms else one.cell(term) for one in found.energies),
        ]
        for term in terms
    ]
    parts.append(Table("By term", "by_term", ["term", *(f"{one.table.name}, J" for one in found.energies)], rows))
    return Section("parts", "Where it goes", f"One token at a context of {context:,}, spiking.", parts)


def _context(found: Costing) -> Section:
    if not found.growths:
        return Section("context", "Context", "", [])
    drawings = []
    for table in {growth.table.name: growth.table for growth in found.growths}.values():
        traces = []
        for arm in ARMS:
            costs = [one for one in found.costs if one.table == table and one.arm == arm and one.refusal is None]
            if costs:
                traces.append(line(arm, [one.context for one in costs], [_j(one.low) for one in costs]))
        drawings.append(Drawing(table.title, traces, axes("context, tokens", _JOULES, log="xy")))
    names = ["arm", "table", "J without context", "J per token of context", "break-even with ours, context"]
    rows = [
        [one.arm, one.table.name, _j(one.start), _j(one.slope), None if one.crossing is None else float(one.crossing)]
        for one in found.growths
    ]
    reading = "The energy of one token over the tokens that it attends to; both axes are logarithmic."
    plot = Plot("Energy per token over the context", drawings, reading)
    return Section(
        "context", "Context", "How arms grow with the context.", [plot, Table("Growth", "growth", names, rows)]
    )


def _break_even(found: Costing) -> Section:
    levels = [one.levels for one in found.per_value]
    traces = [
        line("phase code, measured", levels, [one.phase for one in found.per_value]),
        line("count code, measured", levels, [one.count for one in found.per_value]),
    ]
    for one in found.lines:
        memory = "" if one.kib is None else f", {float(one.kib):g} KiB"
        traces.append(line(f"{one.what}{memory}", levels, [float(one.spikes)] * len(levels), mode="lines"))
    plot = Plot(
        "Spikes per input of a linear layer",
        [Drawing("", traces, axes("levels T·L of the code", "spikes per value", log="xy"))],
        "Where a measured code lies above a line, spikes cost more than an int8 multiply-accumulate, if what the line "
        "names is counted.",
    )
    rows = [
        [one.what, None if one.kib is None else float(one.kib), float(one.spikes)]
        + [one.most_levels(found.per_value, code) for code in ("phase", "count")]
        for one in found.lines
    ]
    columns = ["counted in both", "weights in, KiB", "spikes per value", "T·L, phase code", "T·L, count code"]
    lead = "The spikes per value at which a spiking layer costs as much as one in int8."
    return Section(
        "break-even", "Break-even", lead, [plot, Table("Break-even lines", "break_even", columns, rows, open=True)]
    )


def _sources(found: Costing) -> Section:
    columns = ["table", "technology", "voltage", "evidence", "scope", "source", "notes"]
    rows = [
        [table.name, table.technology, table.voltage, table.evidence, table.scope, table.citation, table.notes]
        for table in (one.table for one in found.energies)
    ]
    return Section(
        "sources",
        "Tables of prices",
        "Where every price comes from.",
        [Table("Sources", "sources", columns, rows, open=True)],
    )


def _ends(cost: Any) -> tuple[float | None, float | None]:
    return (None, None) if cost.refusal is not None else (_j(cost.low), _j(cost.high))


def _j(pj: Any) -> float:
    """Return joules."""
    return float(pj) * 1e-12
