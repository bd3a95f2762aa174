"""How errors build up, drawn."""

from __future__ import annotations

import math
from typing import Any

from spikeplug.report.section import (
    Drawing,
    Headline,
    Plot,
    Rows,
    Section,
    Table,
    axes,
    doubling,
    line,
    number,
    percent,
    positive,
)

ARMS = {"chosen": "this numerics", "published": "published recipe"}


def view(rows: Rows, header: dict[str, Any]) -> Section:
    residual, attention, position = (_of(rows, kind) for kind in ("residual", "attention", "position"))
    parts: list[Plot | Table] = []
    headlines: list[Headline] = []
    lead = "How the error grows from layer to layer, and with the number of tokens there are to look at."
    if residual:
        last = {name: values["depths"][-1] for name, values in residual.items()}
        said = "; ".join(f"{ARMS[name]} {number(end['relative_error'])} of its length" for name, end in last.items())
        lead = f"After the last layer the residual stream is off by: {said}."
        headlines.append(
            Headline(
                "Error after the last layer",
                number(last["chosen"]["relative_error"]) if "chosen" in last else number(None),
                "of the residual stream's length",
            )
        )
        parts += [_growth(residual), _cosine(residual), _depth_table(residual)]
    if attention and any(values["kl"] for values in attention.values()):
        parts.append(_heads(attention))
    if position:
        parts += [_positions(position), _position_table(position)]
        if "chosen" in position:
            headlines[:0] = _overall(position["chosen"])
    return Section("propagation", "How errors build up", lead, parts, headlines)


def _of(rows: Rows, kind: str) -> dict[str, Any]:
    return {name: rows[f"{kind}/{name}"] for name in ARMS if f"{kind}/{name}" in rows}


def _overall(values: Any) -> list[Headline]:
    exact, spiking = values["exact_perplexity"], values["converted_perplexity"]
    deviation, agreement = values["standard_error_percent"], values["agreement_percent"]
    return [
        Headline(
            "Perplexity",
            percent(values["change_percent"]),
            f"exact {number(exact, 5)}, spiking {number(spiking, 5)} (± {number(deviation, 2)} %)",
        ),
        Headline("Same next token", f"{number(agreement, 4)} %", f"of {values['predictions']:,} predictions"),
        Headline("Divergence of the logits", number(values["mean_kl"]), "nats, mean of a prediction"),
    ]


def _growth(residual: dict[str, Any]) -> Plot:
    traces = []
    for name, values in residual.items():
        depths = [point["depth"] for point in values["depths"]]
        traces.append(line(ARMS[name], depths, positive([point["relative_error"] for point in values["depths"]])))
        largest = positive([point["largest_of_a_token"] for point in values["depths"]])
        traces.append(line(f"{ARMS[name]}, worst token", depths, largest, line={"dash": "dot", "width": 1}))
    values = next(iter(residual.values()))["depths"]
    growth = ""
    if len(values) > 2 and values[1]["relative_error"] and values[-1]["relative_error"]:
        growth = (
            f" From the first layer to the last it grows by a factor of "
            f"{number(values[-1]['relative_error'] / values[1]['relative_error'])} over {len(values) - 2} layers."
        )
    reading = (
        "Each point is the distance between the exact and the spiking residual stream after a layer, as a share of its "
        "length; dotted, the worst single token. A flat line means that layers do not amplify earlier errors; a sudden "
        "fall, that the stream itself became longer there, as a few channels of some tokens do; a "
        f"straight climb on this logarithmic scale means that every layer multiplies them.{growth}"
    )
    return Plot(
        "Relative error of the residual stream",
        [Drawing("", traces, axes("layers passed", "relative error", log="y", whole={"x": (0, depths[-1])}))],
        reading,
    )


def _cosine(residual: dict[str, Any]) -> Plot:
    depths = [point["depth"] for point in next(iter(residual.values()))["depths"]]
    traces = [
        line(
            ARMS[name],
            depths,
            positive([point["cosine_distance"] for point in values["depths"]]),
        )
        for name, values in residual.items()
    ]
    reading = (
        "1 minus the mean cosine between exact and spiking vectors: how far they point in another direction, whatever "
        "their length. 0, which a logarithmic scale cannot show, is the same direction."
    )
    layout = axes("layers passed", "1 - cosine", log="y", whole={"x": (0, depths[-1])})
    return Plot("Direction of the residual stream", [Drawing("", traces, layout)], reading)


def _heads(attention: dict[str, Any]) -> Plot:
    drawings = []
    tokens = next(iter(attention.values()))["tokens"]
    for name, values in attention.items():
        for kind, label in (("kl", "KL divergence"), ("variation", "total variation")):
            grid = values[kind]
            # Layers may have different numbers of heads.
            width = max(map(len, grid))
            logs = [[_log(x) for x in row] + [None] * (width - len(row)) for row in grid]
            trace = {
                "type": "heatmap",
                "z": logs,
                "x": list(range(1, width + 1)),
                "y": list(range(1, len(grid) + 1)),
                "colorscale": "Viridis",
                "colorbar": {"title": {"text": "log₁₀"}, "thickness": 12},
                "hovertemplate": "layer %{y}, head %{x}: 10^%{z:.2f}<extra></extra>",
            }
            drawings.append(
                Drawing(
                    f"{label}, {ARMS[name]}",
                    [trace],
                    axes("head", "layer", whole={"x": (1, width), "y": (1, len(grid))}),
                )
            )
    means = {name: _mean(values["kl"]) for name, values in attention.items()}
    said = ", ".join(f"{ARMS[name]} {number(mean)}" for name, mean in means.items())
    reading = (
        f"Every cell is a head, on the first {tokens} tokens: mean over its rows of the divergence (nats) of the "
        "spiking "
        f"from the exact attention probabilities, or of half the sum of their differences. Mean divergence: {said}. "
        "A probability rounded to 0 counts as 2^-30 in the divergence, which would be infinite. Errors of earlier "
        "layers are in it: bright rows deep down may only hand on what they were given."
    )
    return Plot("Attention probabilities, head by head", drawings, reading)


def _positions(position: dict[str, Any]) -> Plot:
    drawings = []
    for kind, label, log in (
        ("mean_kl", "KL divergence (nats)", "xy"),
        ("change_percent", "perplexity change (%)", "x"),
    ):
        traces = [
            line(
                ARMS[name],
                [math.sqrt(bucket["from"] * bucket["to"]) for bucket in values["buckets"]],
                [bucket[kind] or (None if kind == "mean_kl" else 0.0) for bucket in values["buckets"]],
                text=[f"positions {bucket['from']} to {bucket['to']}" for bucket in values["buckets"]],
            )
            for name, values in position.items()
        ]
        layout = axes("position in the window (tokens)", label, log=log)
        doubling(layout["xaxis"], traces[0]["x"][-1])
        drawings.append(Drawing(label, traces, layout))
    reading = (
        "Predictions sorted by how many tokens they can look at, in buckets that double. A line that rises to the "
        "right "
        "means that errors grow with the context: it is what flooring probabilities to a fixed step does."
    )
    return Plot("Error by position in the context", drawings, reading)


def _depth_table(residual: dict[str, Any]) -> Table:
    columns = ["layers passed"]
    for name in residual:
        columns += [f"{ARMS[name]}: relative error", "worst token", "1 - cosine"]
    fields = ("relative_error", "largest_of_a_token", "cosine_distance")
    depths = zip(*(values["depths"] for values in residual.values()), strict=True)
    body = [[arms[0]["depth"], *(arm[field] for arm in arms for field in fields)] for arms in depths]
    return Table("Layer by layer", "propagation-layers", columns, body)


def _position_table(position: dict[str, Any]) -> Table:
    columns = ["from position", "to"]
    for name in position:
        columns += [f"{ARMS[name]}: mean KL", "max KL", "perplexity change %"]
    buckets = zip(*(values["buckets"] for values in position.values()), strict=True)
    body = [
        [arms[0]["from"], arms[0]["to"], *(arm[f] for arm in arms for f in ("mean_kl", "max_kl", "change_percent"))]
        for arms in buckets
    ]
    return Table("Position by position", "propagation-positions", columns, body)


def _log(value: float | None) -> float | None:
    return math.log10(value) if value else None


def _mean(grid: list[list[float | None]]) -> float | None:
    values = [x for row in grid for x in row if x is not None]
    return sum(values) / len(values) if values else None
