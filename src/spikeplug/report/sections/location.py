"""Measure where the error is: the heads that make it, and the channels of the residual stream that hold it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeplug.library import OPERATORS
from spikeplug.measurement.section import Drawing, Headline, Plot, Rows, Section, Table, axes, heatmap, line, number
from spikeplug.report.arms import Change
from spikeplug.report.capture import Watch
from spikeplug.report.comparison import Comparison
from spikeplug.report.sections import Row

_TOP = 10


def steps(comparison: Comparison) -> int:
    """Return the number of rows, 2: "heads" and "channels"."""
    return 2


def measure(comparison: Comparison, row: Row) -> None:
    """Measure two rows: "heads" (error that each head adds) and "channels" (where the residual error lies)."""
    row("heads", partial(_heads, comparison))
    row("channels", partial(_channels, comparison))


def _heads(comparison: Comparison) -> dict[str, Any]:
    """Return the error that each head adds by itself: ‖ŷ - y‖/‖y‖, ŷ its spiking and y its exact output for one input.

    Shape: (calls, heads), in the order of the layers. Empty where the model does not compute attention by one operator.
    """
    grid: list[list[float]] = []

    def observe(name: str, arguments: tuple[Any, ...], output: Tensor) -> None:
        # A softmax with heads is attention too, in the model's own code.
        if name == "attention" or (name == "softmax" and output.dim() == 4):
            exact = OPERATORS[name].exact(*arguments).double()
            apart = torch.linalg.vector_norm(output.double() - exact, dim=(0, 2, 3))
            grid.append((apart / torch.linalg.vector_norm(exact, dim=(0, 2, 3)).clamp(min=1e-300)).tolist())

    with comparison.converted(Change(comparison.numerics)) as model, Watch(observe):
        model(input_ids=comparison.windows[:1], use_cache=False)
    return {"relative_error": grid}


def _channels(comparison: Comparison) -> dict[str, Any]:
    """Return the channels with most error and the largest channels, at each depth of the residual stream.

    Error energy of a channel: (x̂ - x)² summed over tokens, x̂ converted and x exact. Share: its part of the whole.
    Size: root mean square of x over tokens.
    depths         for each depth, "by_error" and "by_size": the 10 channels with most error energy and with largest
                   size, each with its size (over the median size of all channels) and its share
    size, energy   size and error energy of every channel after the last layer
    """
    depths = []
    both = (comparison.residual_stream(change) for change in (None, Change(comparison.numerics)))
    streams = zip(*both, strict=True)
    energy = size = torch.empty(0)
    for depth, (exact, converted) in enumerate(streams):
        energy = (converted.double() - exact.double()).square().sum(0)
        size = exact.double().square().mean(0).sqrt()
        share = energy / energy.sum().clamp(min=1e-300)
        relative = size / size.median().clamp(min=1e-300)
        depths.append(
            {"depth": depth, "by_error": _top(share, relative, share), "by_size": _top(relative, relative, share)}
        )
    return {"depths": depths, "size": size.tolist(), "energy": energy.tolist()}


def _top(order: Tensor, size: Tensor, share: Tensor) -> list[dict[str, Any]]:
    channels = order.argsort(descending=True, stable=True)[:_TOP].tolist()
    return [{"channel": c, "size_in_medians": float(size[c]), "share": float(share[c])} for c in channels]


def view(rows: Rows, header: dict[str, Any]) -> Section:
    """Draw the error of each head, and the share of the error in a few channels."""
    parts: list[Plot | Table] = []
    whole = header["arguments"]["recipe"]["name"] == "whole"
    lead = "In which heads the error is made, and in which channels of the residual stream it lies."
    headlines: list[Headline] = []
    heads, channels = rows.get("heads"), rows.get("channels")
    if heads is not None and heads["relative_error"]:
        parts += [_plot_of_heads(heads["relative_error"], whole), _head_table(heads["relative_error"])]
    if channels is not None:
        last = channels["depths"][-1]
        top, count = last["by_error"][0], len(last["by_error"])
        share, alone = (100 * sum(c["share"] or 0.0 for c in some) for some in (last["by_error"], [top]))
        lead = (
            f"After the last layer, the {count} channels with most error, of {len(channels['size'])}, hold {share:.1f} "
            f"% of its energy; channel {top['channel']} alone {alone:.1f} %."
        )
        if whole:
            lead += " Channels are those of the stream as the whole model keeps it: rotated, where its weights fold."
        headlines.append(Headline("Error in one channel", f"{alone:.1f} %", f"channel {top['channel']}, last layer"))
        parts += [_concentration(channels["depths"]), _scatter(channels), _channel_table(channels["depths"])]
    return Section("location", "Where the error sits", lead, parts, headlines)


def _plot_of_heads(grid: list[list[float | None]], whole: bool) -> Plot:
    worst = max((x or 0.0, i + 1, j + 1) for i, row in enumerate(grid) for j, x in enumerate(row))
    reading = (
        "What each head adds by itself: the error of its output, as a share of the output's length, for the same input "
        f"as an exact head. Errors of earlier layers are not in it. Worst: layer {worst[1]}, head {worst[2]}, "
        f"{number(worst[0])}."
    )
    if whole:
        reading += " Its inputs are codes of queries, keys and values; the error budget says what these cost."
    return Plot("Error made in each head", [Drawing("", *heatmap(grid))], reading)


def _concentration(depths: list[dict[str, Any]]) -> Plot:
    x = [point["depth"] for point in depths]
    traces = []
    for kind, label in (("by_error", "channels with most error"), ("by_size", "largest channels (outliers)")):
        count = len(depths[0][kind])
        shares = [100 * sum(channel["share"] or 0.0 for channel in point[kind]) for point in depths]
        traces.append(line(f"{count} {label}", x, shares))
    reading = (
        "How much of the error's energy lies in a few channels of the residual stream: in the ten that have most of "
        "it, and in the ten with the largest values. Where both lines lie high and together, the outlier channels "
        "hold the error: it is large there because the values are."
    )
    layout = axes("layers passed", "share of the error energy (%)", whole={"x": (0, x[-1])})
    return Plot("Error energy in a few channels", [Drawing("", traces, layout)], reading)


def _scatter(channels: Any) -> Plot:
    energy = [value if value else None for value in channels["energy"]]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": channels["size"],
        "y": energy,
        "text": [f"channel {i}" for i in range(len(energy))],
        "hovertemplate": "%{text}<br>size %{x:.3g}, error energy %{y:.3g}<extra></extra>",
        "marker": {"size": 6, "opacity": 0.6},
    }
    layout = axes("root mean square of the channel", "error energy", log="xy", showlegend=False)
    reading = (
        "Every point is a channel after the last layer. A rising cloud means that the error of a channel follows its "
        "size; points high above the cloud are channels with more error than their size explains."
    )
    return Plot("Size and error of every channel", [Drawing("", [trace], layout)], reading)


def _head_table(grid: list[list[float | None]]) -> Table:
    body = [[i, j, x] for i, row in enumerate(grid, 1) for j, x in enumerate(row, 1)]
    return Table("Head by head", "location-heads", ["layer", "head", "relative error"], body)


def _channel_table(depths: list[dict[str, Any]]) -> Table:
    body = []
    for point in depths:
        chosen = {channel["channel"]: channel for kind in ("by_error", "by_size") for channel in point[kind]}
        for channel in chosen.values():
            body.append(
                [point["depth"], channel["channel"], channel["size_in_medians"], 100 * (channel["share"] or 0.0)]
            )
    columns = ["layers passed", "channel", "size (medians)", "share of error energy %"]
    return Table("Largest channels and those with most error", "location-channels", columns, body)
