"""Measure how errors build up: residual stream by layer, attention rows by head, logits by position in the window."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeplug.library import OPERATORS
from spikeplug.measurement.section import (
    Drawing,
    Headline,
    Plot,
    Rows,
    Section,
    Table,
    axes,
    doubling,
    heatmap,
    line,
    number,
    percent,
    positive,
)
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.report.arms import Change
from spikeplug.report.capture import Watch
from spikeplug.report.comparison import Comparison, figures_of, perplexity_change
from spikeplug.report.sections import Row

# Attention rows are compared on this many tokens, as all probabilities of all heads are kept at once.
_ATTENTION_TOKENS = 128
# Stands for a probability that was rounded to 0, for which a divergence would be infinite.
SMALLEST = 2.0**-30


def arms(comparison: Comparison) -> dict[str, Numerics]:
    """Return the numerics to compare, by name: "chosen", those of the run, and "published", the published recipe.

    Only "chosen" if both are the same, and of a whole model: the published recipe makes none.
    """
    chosen, published = {"chosen": comparison.numerics}, PRESETS["paper"].numerics
    return chosen if comparison.whole or comparison.numerics == published else chosen | {"published": published}


def steps(comparison: Comparison) -> int:
    """Return the number of rows: three for each numerics that is compared."""
    return 3 * len(arms(comparison))


def measure(comparison: Comparison, row: Row) -> None:
    """Measure three rows for each ARM, "chosen" or "published": residual/ARM, attention/ARM and position/ARM.

    residual    error of the residual stream after each layer
    attention   distance of the attention probabilities of each head
    position    error of the predictions by position in the window
    """
    for name, numerics in arms(comparison).items():
        row(f"residual/{name}", partial(_residual, comparison, numerics))
        row(f"attention/{name}", partial(_attention, comparison, numerics))
        row(f"position/{name}", partial(_position, comparison, numerics))


def _residual(comparison: Comparison, numerics: Numerics) -> dict[str, Any]:
    """Return the error of the residual stream before the first layer (depth 0) and after each, on the first window.

    With x exact and x̂ converted: ‖x̂ - x‖/‖x‖ over all tokens, the largest of one token, and 1 minus the mean cosine.
    """
    streams = zip(comparison.residual_stream(None), comparison.residual_stream(Change(numerics)), strict=True)
    return {"depths": [{"depth": depth, **_apart(x, y)} for depth, (x, y) in enumerate(streams)]}


def _apart(exact: Tensor, converted: Tensor) -> dict[str, float]:
    x, y = exact.double(), converted.double()
    lengths, differences = x.norm(dim=-1), (y - x).norm(dim=-1)
    cosine = torch.nn.functional.cosine_similarity(x, y, dim=-1)
    return {
        "relative_error": float(differences.norm() / lengths.norm()),
        "largest_of_a_token": float((differences / lengths.clamp(min=1e-300)).max()),
        # Rounding may make the cosine of equal vectors a little less than 1.
        "cosine_distance": 0.0 if torch.equal(x, y) else max(0.0, 1.0 - float(cosine.mean())),
    }


@torch.inference_mode()
def _attention(comparison: Comparison, numerics: Numerics) -> dict[str, Any]:
    """Return how far spiking attention probabilities q are from the exact ones p, as means over the rows of each head.

    kl          (layers, heads): KL divergence in nats
    variation   (layers, heads): total variation Σ|p - q|/2

    Both are empty where the model returns no probabilities.
    """
    ids = comparison.windows[:1, :_ATTENTION_TOKENS]
    exact, spiking = _exact_weights(comparison, ids), _spiking_weights(comparison, ids, numerics)
    if [p.shape for p in exact] != [q.shape for q in spiking]:
        exact = spiking = []
    kl, variation = [], []
    for p, q in zip(exact, spiking, strict=True):
        p, q = p[0].double(), q[0].double()
        ratio = p.clamp(min=SMALLEST).log() - q.clamp(min=SMALLEST).log()
        kl.append((p * ratio).sum(-1).clamp(min=0.0).mean(-1).tolist())
        variation.append(((p - q).abs().sum(-1) / 2).mean(-1).tolist())
    return {"tokens": ids.shape[1], "kl": kl, "variation": variation}


def _exact_weights(comparison: Comparison, ids: Tensor) -> list[Tensor]:
    """Return the attention probabilities of every layer that has any, (1, heads, queries, keys) each."""
    model = comparison.model
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")  # other implementations of transformers return no probabilities
        given = model(input_ids=ids, use_cache=False, output_attentions=True).get("attentions")
    except (ValueError, ImportError):  # a model without an eager attention
        given = None
    finally:
        model.set_attn_implementation(before)
    return [weights for weights in given or () if weights is not None]


def _spiking_weights(comparison: Comparison, ids: Tensor, numerics: Numerics) -> list[Tensor]:
    """Return the attention probabilities of the converted model, one (1, heads, queries, keys) tensor per layer.

    Not every model returns them, so they are computed from the inputs of each attention.
    """
    found: list[Tensor] = []

    def observe(name: str, arguments: tuple[Any, ...], output: Tensor) -> None:
        if name == "attention":
            query, key, _, *how = arguments
            found.append(OPERATORS["attention_weights"](query, key, *how, numerics=numerics))
        elif name == "softmax" and output.dim() == 4:  # attention in the model's own code
            found.append(output.clone())

    with comparison.converted(Change(numerics)) as model, Watch(observe):
        model(input_ids=ids, use_cache=False)
    return found


def _position(comparison: Comparison, numerics: Numerics) -> dict[str, Any]:
    """Return errors of the predictions by position in the window, in buckets of positions 1, 2-3, 4-7 and so on.

    The prediction at position t can attend to t tokens.
    """
    found = comparison.predictions(Change(numerics))
    length = found.kl.shape[1]
    edges = [2**k for k in range(length.bit_length())]
    buckets = []
    for start in edges:
        inside = slice(start - 1, min(2 * start - 1, length))
        kl = found.kl[:, inside]
        rise = found.converted[:, inside] - found.exact[:, inside]
        buckets.append(
            {
                "from": start,
                "to": inside.stop,
                "mean_kl": float(kl.mean()),
                "max_kl": float(kl.max()),
                "change_percent": perplexity_change(rise)[0],
            }
        )
    return {"buckets": buckets, **figures_of(found)}


#: In words: the numerics of the run, and the published recipe.
ARMS = {"chosen": "these numerics", "published": "published recipe"}


def view(rows: Rows, header: dict[str, Any]) -> Section:
    """Draw the error by layer, by attention head and by position in the window."""
    residual, attention, position = (_of(rows, kind) for kind in ("residual", "attention", "position"))
    parts: list[Plot | Table] = []
    headlines: list[Headline] = []
    lead = "How the error grows from layer to layer, and with the number of tokens in the context."
    if residual:
        last = {name: values["depths"][-1] for name, values in residual.items()}
        said = "; ".join(f"{ARMS[name]} {number(end['relative_error'])} of its length" for name, end in last.items())
        lead = f"After the last layer the residual stream is off by: {said}."
        if header["arguments"]["recipe"]["name"] == "whole":
            lead += (
                " It is compared in the basis to which the weights were rotated, with the same model coding nothing. "
                "The published recipe makes no whole model, so it is not beside it."
            )
        headlines.append(
            Headline(
                "Error after the last layer",
                number(last["chosen"]["relative_error"]) if "chosen" in last else number(None),
                "of the residual stream's length",
            )
        )
        parts += [_growth(residual), _cosine(residual), _depth_table(residual)]
    if attention and any(values["kl"] for values in attention.values()):
        parts.append(_plot_of_heads(attention))
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
        Headline("Divergence of the logits", number(values["mean_kl"]), "nats, mean per prediction"),
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
        "length; dotted, the worst token. A flat line means that layers do not amplify earlier errors; a sudden "
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


def _plot_of_heads(attention: dict[str, Any]) -> Plot:
    tokens = next(iter(attention.values()))["tokens"]
    drawings = [
        Drawing(f"{label}, {ARMS[name]}", *heatmap(values[kind]))
        for name, values in attention.items()
        for kind, label in (("kl", "KL divergence"), ("variation", "total variation"))
        if values[kind]
    ]
    means = {name: _mean(values["kl"]) for name, values in attention.items()}
    said = ", ".join(f"{ARMS[name]} {number(mean)}" for name, mean in means.items())
    reading = (
        f"Every cell is a head, on the first {tokens} tokens: the mean over its rows of the divergence (nats) of the "
        "spiking from the exact attention probabilities, or of half the sum of their differences. Mean divergence: "
        f"{said}. A probability rounded to 0 counts as 2^-30 in the divergence, which would be infinite. Errors of "
        "earlier layers are included, so bright rows deep down may only pass on the errors of their input."
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
        "Predictions sorted by how many tokens they can attend to, in buckets that double. A line that rises to the "
        "right means that errors grow with the context, as flooring probabilities to a fixed step makes them."
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


def _mean(grid: list[list[float | None]]) -> float | None:
    values = [x for row in grid for x in row if x is not None]
    return sum(values) / len(values) if values else None
