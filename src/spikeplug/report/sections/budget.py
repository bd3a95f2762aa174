"""Measure the error budget: what each site costs if it alone is coded, and what is saved if it alone is exact.

A site is an operator in a module of every layer, or a part of one, such as the input of the down projections. Sites
come from a run of the model (spikeplug.conversion.sites), and no integer changes: at an exact site, the float function
of what reaches it takes the operator's place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from spikeplug.conversion.sites import Group
from spikeplug.measurement.section import (
    Drawing,
    Headline,
    Plot,
    Rows,
    Section,
    Table,
    Values,
    axes,
    line,
    number,
    percent,
    positive,
)
from spikeplug.report.arms import Change
from spikeplug.report.comparison import Comparison, figures_of, standard_error
from spikeplug.report.sections import Row

#: Where a group lies that holds all sites of one kind.
EVERYWHERE = "everywhere"


def groups(comparison: Comparison) -> list[Group]:
    """Return the groups of sites to measure: each by itself, and all of one kind together where there are several."""
    kinds: dict[str, list[Group]] = {}
    for group in comparison.groups:
        kinds.setdefault(group.what, []).append(group)
    together = [
        Group(what, EVERYWHERE, frozenset().union(*(group.sites for group in members)))
        for what, members in kinds.items()
        if len(members) > 1
    ]
    return [*comparison.groups, *together]


def steps(comparison: Comparison) -> int:
    """Return the number of rows: nothing and everything coded, and two per group of sites."""
    return 2 + 2 * len(groups(comparison))


def measure(comparison: Comparison, row: Row) -> None:
    """Measure with different sites coded.

    nothing         no site; what is left is the rounding of floats
    everything      all sites: the spiking model
    alone/GROUP     only the sites of a group
    without/GROUP   all but those
    """
    numerics = comparison.numerics
    row("nothing", partial(comparison.figures, Change(numerics, coded=frozenset())))
    row("everything", partial(comparison.figures, Change(numerics)))
    for group in groups(comparison):
        row(f"alone/{group.name}", partial(_alone, comparison, group))
    for group in groups(comparison):
        row(f"without/{group.name}", partial(_without, comparison, group))


def _alone(comparison: Comparison, group: Group) -> dict[str, Any]:
    return _named(group) | comparison.figures(Change(comparison.numerics, coded=group.sites))


def _without(comparison: Comparison, group: Group) -> dict[str, Any]:
    """Return the figures with all sites coded but those of the group, and the divergence that this saves, in nats."""
    found = comparison.predictions(Change(comparison.numerics, exact=group.sites))
    saved = comparison.predictions(Change(comparison.numerics)).kl - found.kl
    figures = {"saved_kl": float(saved.mean()), "standard_error_saved_kl": standard_error(saved)}
    return _named(group) | figures_of(found) | figures


def _named(group: Group) -> dict[str, Any]:
    return {"what": group.what, "where": group.where}


def view(rows: Rows, header: dict[str, Any]) -> Section:
    """Draw what each site costs, the costliest first."""
    alone = _of(rows, "alone")
    alone = dict(sorted(alone.items(), key=lambda item: -(item[1]["mean_kl"] or 0.0)))
    sites, kinds = _labels_of_sites(alone), _labels_of_kinds(alone)
    everything = rows.get("everything")
    lead = "What the rounding at each site costs: if it alone is coded, and what is saved if it alone is exact."
    parts: list[Plot | Table] = []
    headlines = []
    if sites and everything is not None:
        first = next(iter(sites))
        lead = (
            f"Everything coded costs {_with_error(everything, 'mean_kl', 'standard_error_kl')} nats per prediction, "
            f"perplexity {percent(everything['change_percent'])}. The costliest site by itself is {sites[first]}: "
            f"{_with_error(alone[first], 'mean_kl', 'standard_error_kl')} nats. All sites, each by itself, add up to "
            f"{number(sum(alone[name]['mean_kl'] or 0.0 for name in sites))} nats."
        )
        note = f"nats, if {sites[first]} alone is coded"
        headlines.append(Headline("Costliest site", number(alone[first]["mean_kl"]), note))
    if sites:
        parts.append(_plot(rows, {"by site": sites, "by kind": kinds}))
        parts.append(_table("Error budget by kind", "budget-kinds", rows, kinds))
        parts.append(_table("Error budget by site", "budget", rows, sites))
    return Section("budget", "Error budget by site", lead, parts, headlines)


def _of(rows: Rows, kind: str) -> dict[str, Values]:
    return {key.split("/", 1)[1]: values for key, values in rows.items() if key.startswith(f"{kind}/")}


def _labels_of_sites(alone: Mapping[str, Values]) -> dict[str, str]:
    """Return short names of the single sites by their names: what, and the end of where."""
    sites = {name: values for name, values in alone.items() if values["where"] != EVERYWHERE}
    short = {name: f"{values['what']}, {_end(values['where'])}" for name, values in sites.items()}
    counts = Counter(short.values())
    return {name: label if counts[label] == 1 else name for name, label in short.items()}


def _labels_of_kinds(alone: Mapping[str, Values]) -> dict[str, str]:
    """Return the names of kinds of sites by the name of the row that holds all sites of the kind."""
    several = {values["what"] for values in alone.values() if values["where"] == EVERYWHERE}
    return {
        name: values["what"]
        for name, values in alone.items()
        if values["where"] == EVERYWHERE or values["what"] not in several
    }


def _end(where: str) -> str:
    """Return the end of a path: what follows its last number, or, if it ends with one, what is numbered."""
    *_, last = where.removesuffix(".*").split("*.")
    return f"{last.rpartition('.')[2]}.*" if where.endswith(".*") else last


def _with_error(values: Values, figure: str, deviation: str) -> str:
    return f"{number(values[figure])} ± {number(values[deviation], 2)}"


#: What is drawn, by the label of the drawing: the title of its axis, whether that is logarithmic, and its two series:
#: name, kind of row, figure and its standard error.
_DRAWN: dict[str, tuple[str, bool, tuple[tuple[str, str, str, str], ...]]] = {
    "divergence": (
        "mean KL of the logits (nats)",
        True,
        (
            ("it alone is coded", "alone", "mean_kl", "standard_error_kl"),
            ("saved if it alone is exact", "without", "saved_kl", "standard_error_saved_kl"),
        ),
    ),
    "perplexity": (
        "perplexity change (%)",
        False,
        (
            ("it alone is coded", "alone", "change_percent", "standard_error_percent"),
            ("all but it are coded", "without", "change_percent", "standard_error_percent"),
        ),
    ),
}
_SYMBOLS = ("circle", "x-thin-open")


def _plot(rows: Rows, shown: Mapping[str, Mapping[str, str]]) -> Plot:
    """Return the figure of the budget. shown: by a title, the labels of the groups that it shows by their names."""
    height = 200 + 24 * max(map(len, shown.values()))
    drawings = [
        Drawing(f"{what}, {title}", *_drawn(rows, labels, height, *_DRAWN[what]))
        for title, labels in shown.items()
        for what in _DRAWN
    ]
    predictions = next(values["predictions"] for key, values in rows.items() if key.startswith("alone/"))
    reading = (
        f"On {predictions:,} predictions. A dot is the divergence from the exact model if this site alone is coded, in "
        "all layers; a cross, by how much the divergence of the whole falls if this site alone is exact (drawn where "
        "that is more than its standard error). Whiskers are one standard error, as if predictions were independent. "
        "If errors simply added up, both would be equal, and the dots would add up to everything coded. The dotted "
        "line is the model with nothing coded: what is left is the rounding of floats."
    )
    return Plot("What each site costs", drawings, reading, height=height)


def _drawn(
    rows: Rows,
    labels: Mapping[str, str],
    height: int,
    title: str,
    log: bool,
    series: Sequence[tuple[str, str, str, str]],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return traces and layout of a drawing: a dot per group and series, and lines of everything and nothing coded."""
    traces, places = [], list(labels.values())
    for (name, kind, figure, deviation), symbol in zip(series, _SYMBOLS, strict=True):
        x, errors = ([_value(rows, f"{kind}/{group}", field) for group in labels] for field in (figure, deviation))
        if log:  # a whisker down to 0 would cross the whole scale
            x = [value if (value or 0.0) > (error or 0.0) else None for value, error in zip(x, errors, strict=True)]
        whiskers = {"type": "data", "array": errors, "thickness": 1}
        marker = {"size": 9, "symbol": symbol, "line": {"width": 2 if symbol.endswith("open") else 0}}
        traces.append(line(name, x, places, mode="markers", marker=marker, error_x=whiskers))
    for key, dash in (("everything", "dash"), ("nothing", "dot")):
        ends = [_value(rows, key, series[0][2])] * 2
        how = {"mode": "lines", "line": {"dash": dash, "width": 1.5}}
        traces.append(line(f"{key} coded", positive(ends) if log else ends, [places[0], places[-1]], **how))
    layout = axes(title, "", log="x" if log else "")
    layout["yaxis"] |= {"autorange": "reversed", "type": "category", "dtick": 1}
    below = -64 / (height - 110)  # of the axes: room for the numbers and the title of the lower one
    return traces, layout | {"legend": {"orientation": "h", "y": below, "yanchor": "top", "x": 0}}


def _value(rows: Rows, key: str, field: str) -> float | None:
    return rows[key][field] if key in rows else None


def _table(title: str, name: str, rows: Rows, labels: Mapping[str, str]) -> Table:
    columns = ["coded", "KL", "± KL", "change %", "± %", "KL saved", "± saved", "rest %", "± rest"]
    figures = ("mean_kl", "standard_error_kl", "change_percent", "standard_error_percent")
    others = ("saved_kl", "standard_error_saved_kl", "change_percent", "standard_error_percent")
    places = [(key, "", key) for key in ("everything", "nothing") if key in rows]
    places += [(f"alone/{group}", f"without/{group}", label) for group, label in labels.items()]
    body = [
        [label, *(_value(rows, alone, field) for field in figures), *(_value(rows, without, field) for field in others)]
        for alone, without, label in places
    ]
    return Table(title, name, columns, body, open=True)
