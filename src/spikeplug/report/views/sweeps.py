"""What each number of a numerics buys, drawn: accuracy by value, and accuracy against cost."""

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
    doubling,
    line,
    number,
    percent,
    positive,
)

_WORDS = {
    "bits": "n = log2(T·L): fraction bits of an operator's output",
    "working_bits": "P: bits of what is computed with inside an operator",
    "segments": "segments of the table of 2^-x",
    "fraction_bits": "F: fraction bits of an exponent",
    "softmax_half_range": "H of softmax, piecewise exponential",
    "piecewise_segments": "K of the piecewise exponential",
    "half_range": "H of the gates (SiLU, GELU), piecewise exponential",
    "iterations": "CORDIC iterations a merge",
}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "pentagon", "hexagon")
_KINDS = (("mean_kl", "mean KL of the logits (nats)", "y"), ("change_percent", "perplexity change (%)", ""))


def view(rows: Rows, header: dict[str, Any]) -> Section:
    own = rows.get("numerics")
    swept = _by_parameter(rows)
    lead = "One number of the numerics at a time is changed; everything else stays as in this run's numerics."
    headlines = []
    if own is not None:
        updates = number(own["updates_per_token"])
        lead += f" This numerics: {percent(own['change_percent'])}, {updates} neuron updates a token."
        headlines.append(Headline("Neuron updates", updates, "a token, by the model of cost below"))
    parts: list[Plot | Table] = []
    if swept:
        parts += [_lines(name, swept[name], own) for name in swept]
        parts.append(_pareto(swept, own))
    if own is not None and own["by_operator"]:
        parts.append(_shares(own))
    if rows:
        parts.append(_table(rows))
    return Section("sweeps", "What each number buys", lead, parts, headlines)


def _by_parameter(rows: Rows) -> dict[str, list[Values]]:
    found: dict[str, list[Values]] = {}
    for key, values in rows.items():
        if key != "numerics":
            found.setdefault(values["parameter"], []).append(values)
    return found


def _lines(parameter: str, points: list[Values], own: Values | None) -> Plot:
    x = [point["value"] for point in points]
    many = parameter in ("segments", "piecewise_segments")
    drawings = []
    for kind, label, log in _KINDS:
        y = [point[kind] for point in points]
        deviation = [point["standard_error_percent"] for point in points]
        bars = {"error_y": {"type": "data", "array": deviation, "thickness": 1}} if kind == "change_percent" else {}
        trace = line(label, x, positive(y) if log else y, **bars)
        layout = axes(_WORDS[parameter], label, log=("x" if many else "") + log, showlegend=False)
        if many:
            doubling(layout["xaxis"], max(x))
        drawings.append(Drawing(label, [trace], layout))
    return Plot(_title(parameter), drawings, _reading(parameter, points), small=True)


def _title(parameter: str) -> str:
    names = {
        "softmax_half_range": "Range of the piecewise exponential: softmax",
        "half_range": "Range of the piecewise exponential: gates",
        "piecewise_segments": "Segments of the piecewise exponential",
        "segments": "Size of the table",
        "iterations": "CORDIC iterations",
        "bits": "Bits of the output",
        "working_bits": "Working bits",
        "fraction_bits": "Fraction bits of the exponent",
    }
    return names[parameter]


def _reading(parameter: str, points: list[Values]) -> str:
    good = [p["value"] for p in points if p["change_percent"] is not None and abs(p["change_percent"]) <= 0.1]
    said = (
        f"Values within 0.1 % of the exact perplexity: {', '.join(f'{value:g}' for value in good)}."
        if good
        else ("No value keeps the perplexity within 0.1 % of the exact one.")
    )
    extra = {
        "softmax_half_range": "Here the exponential is piecewise and each probability is divided on its own. ",
        "half_range": "Here the exponential is piecewise. ",
        "piecewise_segments": "Here the exponential is piecewise and each probability is divided on its own. ",
        "iterations": "Here the norm is the CORDIC tree. ",
    }.get(parameter, "")
    return (
        f"{extra}{said} Where the curve is flat, more of it buys nothing: another number of the numerics is the limit. "
        "Whiskers are one standard error."
    )


def _pareto(swept: dict[str, list[Values]], own: Values | None) -> Plot:
    drawings = []
    for kind, label in (("mean_kl", "mean KL of the logits (nats)"), ("size", "|perplexity change| (%)")):
        traces = []
        for (parameter, points), symbol in zip(swept.items(), _SYMBOLS, strict=False):
            traces.append(_cloud(_title(parameter), points, kind, marker={"size": 9, "symbol": symbol}))
        everything = [point for points in swept.values() for point in points]
        if own is not None:
            everything.append(own)
            traces.append(_cloud("this numerics", [own], kind, marker={"size": 14, "symbol": "star"}))
        front = _front(everything, kind)
        if front:
            costs, errors = zip(*front, strict=True)
            stair = {"dash": "dot", "width": 1.5}
            traces.append(line("nothing is both cheaper and better", costs, errors, mode="lines", line=stair))
        drawings.append(Drawing(label, traces, axes("neuron updates a token", label, log="xy")))
    reading = (
        "Every point is a numerics: to the left is cheaper, below is better; the dotted line joins those that no other "
        "beats in both. Model of cost: membrane updates, idle ones included, of all spiking operators for one token, "
        "from "
        "neuron-by-neuron simulations of real rows cut to 8 and 16 elements (attention: keys), extended in proportion "
        "to "
        "the model's widths and multiplied by how often each operator runs; ordered groups are simulated at n = 5 and "
        "6 "
        "and scaled by their size. Matrix products with weights are not in it."
    )
    return Plot("Accuracy against cost", drawings, reading)


def _cloud(name: str, points: list[Values], kind: str, **how: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [point["updates_per_token"] for point in points],
        "y": positive([_size(point, kind) for point in points]),
        "text": [f"{point['value']:g}" if "value" in point else "" for point in points],
        "hovertemplate": "%{text}<br>%{x:,} updates, %{y:.3g}",
        **how,
    }


def _size(point: Values, kind: str) -> float | None:
    if kind != "size":
        return point[kind]  # type: ignore[no-any-return]
    return None if point["change_percent"] is None else abs(point["change_percent"])


def _front(points: list[Values], kind: str) -> list[tuple[float, float]]:
    """Corners of the stair below which no point lies, the cheapest first."""
    sized = [(float(point["updates_per_token"]), _size(point, kind)) for point in points]
    front: list[tuple[float, float]] = []
    for cost, error in sorted((cost, error) for cost, error in sized if error):
        if not front or error < front[-1][1]:
            front.append((cost, error))
    return front


def _shares(own: Values) -> Plot:
    names = sorted(own["by_operator"], key=lambda name: -own["by_operator"][name])
    costs = [own["by_operator"][name] for name in names]
    trace = {"type": "bar", "x": costs, "y": names, "orientation": "h"}
    most = names[0]
    reading = (
        f"Neuron updates a token of this run's numerics, by operator: {most} takes "
        f"{100 * costs[0] / max(1, sum(costs)):.0f} % of them."
    )
    layout = axes("neuron updates a token", "", showlegend=False)
    return Plot("Where the updates go", [Drawing("", [trace], layout)], reading)


def _table(rows: Rows) -> Table:
    columns = [
        "parameter",
        "value",
        "perplexity",
        "change %",
        "± %",
        "mean KL",
        "same token %",
        "updates a token",
        "differs in",
    ]
    fields = ("converted_perplexity", "change_percent", "standard_error_percent", "mean_kl", "agreement_percent")
    body = []
    for values in rows.values():
        differs = ", ".join(f"{name}={value}" for name, value in values["changed"].items())
        label = [values.get("parameter", "this numerics"), values.get("value")]
        body.append([*label, *(values[field] for field in fields), values["updates_per_token"], differs])
    return Table("All points", "sweeps", columns, body)
