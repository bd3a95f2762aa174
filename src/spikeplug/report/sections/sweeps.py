"""Measure what each number buys: one parameter of the numerics at a time, its accuracy and its cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.section import (
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
from spikeplug.numerics import Numerics
from spikeplug.report.capture import Call, calls
from spikeplug.report.comparison import Change, Comparison
from spikeplug.report.cost import updates_per_token
from spikeplug.report.sections import Row

# Operators whose piecewise exponential has the range `half_range`.
_GATES = frozenset({"silu", "gelu", "sigmoid", "tanh", "mish", "softplus"})


class Point(NamedTuple):
    """Hold one value of one parameter, and the numerics that have this value."""

    parameter: str
    value: float
    numerics: Numerics

    @property
    def key(self) -> str:
        """Return the key of the point's row: "PARAMETER/VALUE"."""
        return f"{self.parameter}/{self.value:g}"


def steps(comparison: Comparison) -> int:
    """Return how many rows are measured: one for the numerics of the run, and one per changed setting."""
    return 1 + len(list(points(comparison)))


def measure(comparison: Comparison, row: Row) -> None:
    """Measure error and cost: a row "numerics" for those of the run, then a row PARAMETER/VALUE per changed value."""
    kinds: list[tuple[Call, ...]] = []

    def work(numerics: Numerics, values: dict[str, Any]) -> dict[str, Any]:
        if not kinds:
            kinds.append(calls(comparison, comparison.settings.context // 2))
        cost = updates_per_token(kinds[0], numerics, comparison.realisation)
        differs = {"changed": changed(comparison.numerics, numerics)}
        return values | differs | comparison.figures(Change(numerics)) | cost

    row("numerics", partial(work, comparison.numerics, {}))
    for point in points(comparison):
        row(point.key, partial(work, point.numerics, {"parameter": point.parameter, "value": point.value}))


def changed(before: Numerics, after: Numerics) -> dict[str, Any]:
    """Return the fields of `after`, by name, that differ from `before`."""
    return {name: value for name, value in after.to_dict().items() if value != before.to_dict()[name]}


def points(comparison: Comparison) -> Iterator[Point]:
    """Yield every changed value to measure, parameter by parameter; values that make no valid numerics are left out."""
    base, quick = comparison.numerics, comparison.settings.quick
    piecewise = replace(base, exponential="piecewise", divide_last=False)
    if base.exponential == "shift":
        piecewise = replace(piecewise, segments=64)
    cordic = replace(base, norm="cordic")
    plan: list[tuple[str, Numerics, tuple[float, ...]]] = [
        ("bits", base, (4, 6, 8, 10, 12, 16) if quick else tuple(range(4, 17))),
        ("working_bits", base, tuple(range(base.bits + 1, 25)[:: 3 if quick else 1])),
        ("fraction_bits", base, (4, 6, 8, 10) if quick else tuple(range(4, 17))),
        ("softmax_half_range", piecewise, (5, 10) if quick else (3, 4, 5, 6, 8, 10, 12, 16)),
        ("piecewise_segments", piecewise, (16, 64) if quick else (8, 16, 32, 64, 128, 256)),
    ]
    if base.exponential == "shift":
        plan.insert(2, ("segments", base, (1, 4, 16, 64) if quick else tuple(2**k for k in range(9))))
    if _GATES & set(comparison.operators):
        plan.append(("half_range", piecewise, (3, 8) if quick else (2, 3, 4, 5, 6, 8, 10)))
    if {"rms_norm", "layer_norm", "vector_norm"} & set(comparison.operators):
        plan.append(("iterations", cordic, (2, 4, 8) if quick else (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)))
    for parameter, start, values in plan:
        for value in values:
            numerics = with_parameter(start, parameter, value)
            if numerics is not None:
                yield Point(parameter, value, numerics)


def with_parameter(start: Numerics, parameter: str, value: float) -> Numerics | None:
    """Return `start` with `parameter` set to `value`; None if there are no such numerics.

    For "bits", working_bits is raised above it if needed. For "fraction_bits" with the shift exponential, segments is
    lowered to at most 2^value.
    """
    fields: dict[str, Any] = {parameter.removeprefix("piecewise_"): value}
    if parameter == "bits":
        fields["working_bits"] = max(start.working_bits, int(value) + 1)
    elif parameter == "fraction_bits" and start.exponential == "shift":
        fields["segments"] = min(start.segments, 1 << int(value))
    try:
        return replace(start, **fields)
    except SpikeplugError:
        return None


_WORDS = {
    "bits": "n = log2(T·L): fraction bits of an operator's output",
    "working_bits": "P: bits of operands inside an operator",
    "segments": "segments of the table of 2^-x",
    "fraction_bits": "F: fraction bits of an exponent",
    "softmax_half_range": "H of softmax, piecewise exponential",
    "piecewise_segments": "K of the piecewise exponential",
    "half_range": "H of the gates (SiLU, GELU), piecewise exponential",
    "iterations": "CORDIC iterations per merge",
}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "pentagon", "hexagon")
_KINDS = (("mean_kl", "mean KL of the logits (nats)", "y"), ("change_percent", "perplexity change (%)", ""))


def view(rows: Rows, header: dict[str, Any]) -> Section:
    """Draw the error over the values of each parameter, and the error against the cost."""
    own = rows.get("numerics")
    swept = _by_parameter(rows)
    lead = "One number of the numerics at a time is changed; everything else stays as in the numerics of this run."
    headlines = []
    if own is not None:
        updates = number(own["updates_per_token"])
        lead += f" These numerics: {percent(own['change_percent'])}, {updates} neuron updates per token."
        headlines.append(Headline("Neuron updates", updates, "per token, by the model of cost below"))
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
        else "No value keeps the perplexity within 0.1 % of the exact one."
    )
    extra = {
        "softmax_half_range": "Here the exponential is piecewise and each probability is divided on its own. ",
        "half_range": "Here the exponential is piecewise. ",
        "piecewise_segments": "Here the exponential is piecewise and each probability is divided on its own. ",
        "iterations": "Here the norm is the CORDIC tree. ",
    }.get(parameter, "")
    return (
        f"{extra}{said} Where the curve is flat, more of it buys nothing: another number is the limit. "
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
            traces.append(_cloud("these numerics", [own], kind, marker={"size": 14, "symbol": "star"}))
        front = _front(everything, kind)
        if front:
            costs, errors = zip(*front, strict=True)
            stair = {"dash": "dot", "width": 1.5}
            traces.append(line("nothing is both cheaper and better", costs, errors, mode="lines", line=stair))
        drawings.append(Drawing(label, traces, axes("neuron updates per token", label, log="xy")))
    reading = (
        "Every point is one set of numerics: to the left is cheaper, below is better. The dotted line joins those that "
        "no other beats in both. Model of cost: membrane updates, idle ones included, of all spiking operators for one "
        "token. The events of every kind of row of the token in the middle of the window are predicted, which gives "
        "what a simulation counts, and multiplied by how often such a row occurs. Matrix products with weights are not "
        "counted."
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
    """Return (cost, error) of the points that no cheaper point beats in error, the cheapest first.

    cost   neuron updates per token
    kind   the error: "mean_kl", or "size" for |perplexity change| in per cent
    """
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
        f"Neuron updates per token of this run's numerics, by operator: {most} takes "
        f"{100 * costs[0] / max(1, sum(costs)):.0f} % of them."
    )
    layout = axes("neuron updates per token", "", showlegend=False)
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
        "updates per token",
        "differs in",
    ]
    fields = ("converted_perplexity", "change_percent", "standard_error_percent", "mean_kl", "agreement_percent")
    body = []
    for values in rows.values():
        differs = ", ".join(f"{name}={value}" for name, value in values["changed"].items())
        label = [values.get("parameter", "these numerics"), values.get("value")]
        body.append([*label, *(values[field] for field in fields), values["updates_per_token"], differs])
    return Table("All points", "sweeps", columns, body)
