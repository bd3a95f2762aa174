"""What does the damage, drawn."""

from __future__ import annotations

from typing import Any

from spikeplug.report.section import (
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

_KINDS = (("change_percent", "perplexity change (%)"), ("mean_kl", "mean KL of the logits (nats)"))


def view(rows: Rows, header: dict[str, Any]) -> Section:
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
    "Only the named operator is replaced, in every layer; the rest is exact. The divergence tells apart what "
    "perplexity "
    "cannot: an error may by luck lower the perplexity."
)
_LAYERS = (
    "Only this layer is converted; all others are exact. The highest are the layers to keep exact first (by "
    "--exclude). "
    "The sum of all of them is what would come out if errors simply added up."
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
        if kind == "mean_kl":  # a logarithmic scale has no ground for a bar to stand on
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
        "A growing share of the layers is converted, evenly spread over the depth; what lies outside the layers stays "
        "exact. 0 % is exactly 0. A straight line means that the layers' errors add up; a curve upwards, that they "
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
