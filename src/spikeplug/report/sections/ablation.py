"""Measure what does the damage: each operator alone, each layer alone, and a growing share of the layers."""

from __future__ import annotations

from functools import partial
from typing import Any

from spikeplug.measurement.section import (
    Drawing,
    Headline,
    Plot,
    Rows,
    Section,
    Table,
    Values,
    axes,
    bars,
    line,
    number,
    percent,
    positive,
)
from spikeplug.report.arms import Change
from spikeplug.report.comparison import Comparison
from spikeplug.report.sections import Row

SHARES = (0, 25, 50, 75, 100)
_QUICK_LAYERS = 8


def steps(comparison: Comparison) -> int:
    """Return the number of rows: one per operator, one for all operators, one per layer, one per share of layers."""
    return len(comparison.operators) + 1 + len(_layers(comparison)) + len(SHARES)


def measure(comparison: Comparison, row: Row) -> None:
    """Convert parts of the model and measure each, a row per part. The key of a row names the part.

    operator/NAME   one operator; operator/all: every operator
    share/PERCENT   that share of the layers
    layer/NUMBER    one layer, counted from 1
    """
    for name in comparison.operators:
        row(f"operator/{name}", partial(comparison.figures, Change(comparison.numerics, operators=(name,))))
    row("operator/all", partial(comparison.figures, Change(comparison.numerics)))
    for share in SHARES:
        row(f"share/{share}", partial(_share, comparison, share))
    for index in _layers(comparison):
        change = Change(comparison.numerics, layers=(index,))
        row(f"layer/{index + 1}", partial(comparison.figures, change))


def _layers(comparison: Comparison) -> tuple[int, ...]:
    count = len(comparison.layers)
    return comparison.layers.spread(min(count, _QUICK_LAYERS) if comparison.settings.quick else count)


def _share(comparison: Comparison, share: int) -> dict[str, Any]:
    """Return the figures of a model with `share` per cent of the layers converted, evenly spread over the depth.

    Modules outside the layers stay exact. "layers" holds the numbers of the converted layers, from 1.
    """
    chosen = comparison.layers.spread(round(len(comparison.layers) * share / 100))
    change = Change(comparison.numerics, layers=chosen) if chosen else None
    return {"layers": [index + 1 for index in chosen], **comparison.figures(change)}


_KINDS = (("change_percent", "perplexity change (%)"), ("mean_kl", "mean KL of the logits (nats)"))


def view(rows: Rows, header: dict[str, Any]) -> Section:
    """Draw the damage by operator, by layer and by share."""
    operators, shares, layers = (_of(rows, kind) for kind in ("operator", "share", "layer"))
    alone = {name: values for name, values in operators.items() if name != "all"}
    parts: list[Plot | Table] = []
    headlines = []
    lead = "Which operator and which layer does the damage."
    if alone:
        worst = max(alone, key=lambda name: alone[name]["mean_kl"] or 0.0)
        together = operators.get("all", {}).get("change_percent")
        lead = (
            f"{worst} alone moves the logits most ({number(alone[worst]['mean_kl'])} nats, perplexity "
            f"{percent(alone[worst]['change_percent'])}); all operators together {percent(together)}."
        )
        note = f"{number(alone[worst]['mean_kl'])} nats when it alone is replaced"
        headlines.append(Headline("Costliest operator", worst, note))
        parts.append(_bars("One operator at a time", operators, "operator", _OPERATORS))
    if shares:
        parts.append(_shares(shares))
    if layers:
        parts.append(_bars("One layer at a time", {int(name): layers[name] for name in layers}, "layer", _LAYERS))
    if rows:
        parts.append(_table(rows))
    return Section("ablation", "What does the damage", lead, parts, headlines)


_OPERATORS = (
    "Only the named operator is replaced, in every layer; the rest is exact. The divergence shows what perplexity "
    "cannot: an error may lower the perplexity by chance."
)
_LAYERS = (
    "Only this layer is converted; all others are exact. The highest are the layers to keep exact first (by "
    "--exclude). If errors simply added up, the whole model would have the sum of them all."
)


def _of(rows: Rows, kind: str) -> dict[str, Values]:
    return {key.split("/", 1)[1]: values for key, values in rows.items() if key.startswith(f"{kind}/")}


def _bars(title: str, values: dict[Any, Values], axis: str, reading: str) -> Plot:
    names = list(values)
    drawings = []
    for kind, label in reversed(_KINDS):
        heights = [values[name][kind] for name in names]
        whole = {"x": (1, names[-1])} if axis == "layer" else None
        trace = bars(label, names, heights)
        if kind == "mean_kl":  # a logarithmic scale has no zero, from which a bar could start
            trace = line(label, names, positive(heights), mode="markers", marker={"size": 12})
        layout = axes(axis, label, log="y" if kind == "mean_kl" else "", whole=whole, showlegend=False)
        drawings.append(Drawing(label, [trace], layout))
    return Plot(title, drawings, reading)


def _shares(shares: dict[str, Values]) -> Plot:
    x = [int(name) for name in shares]
    drawings = [
        Drawing(
            label,
            [line(label, x, [shares[name][kind] for name in shares])],
            axes("layers converted (%)", label, showlegend=False),
        )
        for kind, label in reversed(_KINDS)
    ]
    reading = (
        "A growing share of the layers is converted, evenly spread over the depth; modules outside the layers stay "
        "exact. 0 % is exactly 0. A straight line means that the errors of layers add up; a curve upwards, that they "
        "amplify each other."
    )
    return Plot("A growing share of the layers", drawings, reading)


def _table(rows: Rows) -> Table:
    fields = ("change_percent", "standard_error_percent", "mean_kl", "max_kl", "agreement_percent")
    columns = ["replaced", "perplexity", "change %", "± %", "mean KL", "max KL", "same token %"]
    names = {"operator": "{} alone", "share": "{} % of the layers", "layer": "layer {} alone"}
    body = []
    for key, values in rows.items():
        kind, name = key.split("/", 1)
        label = "everything" if key == "operator/all" else names[kind].format(name)
        body.append([label, values["converted_perplexity"], *(values[field] for field in fields)])
    return Table("All replacements", "ablation", columns, body)
