"""Where the error sits, drawn."""

from __future__ import annotations

import math
from typing import Any

from spikeplug.report.section import Drawing, Headline, Plot, Rows, Section, Table, axes, line, number


def view(rows: Rows, header: dict[str, Any]) -> Section:
    parts: list[Plot | Table] = []
    lead = "In which heads the error is made, and in which channels of the residual stream it lies."
    headlines: list[Headline] = []
    heads, channels = rows.get("heads"), rows.get("channels")
    if heads is not None and heads["relative_error"]:
        parts += [_heads(heads["relative_error"]), _head_table(heads["relative_error"])]
    if channels is not None:
        last = channels["depths"][-1]
        top, count = last["by_error"][0], len(last["by_error"])
        share, alone = (100 * sum(c["share"] or 0.0 for c in some) for some in (last["by_error"], [top]))
        lead = (
            f"After the last layer, the {count} channels with most error, of {len(channels['size'])}, hold {share:.1f} "
            f"% of its energy; channel {top['channel']} alone {alone:.1f} %."
        )
        headlines.append(Headline("Error in one channel", f"{alone:.1f} %", f"channel {top['channel']}, last layer"))
        parts += [_concentration(channels["depths"]), _scatter(channels), _channel_table(channels["depths"])]
    return Section("location", "Where the error sits", lead, parts, headlines)


def _heads(grid: list[list[float | None]]) -> Plot:
    width = max(map(len, grid))
    flat = [(x or 0.0, i + 1, j + 1) for i, row in enumerate(grid) for j, x in enumerate(row)]
    worst = max(flat)
    trace = {
        "type": "heatmap",
        "z": [[math.log10(x) if x else None for x in row] + [None] * (width - len(row)) for row in grid],
        "x": list(range(1, width + 1)),
        "y": list(range(1, len(grid) + 1)),
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": "log₁₀"}, "thickness": 12},
        "hovertemplate": "layer %{y}, head %{x}: 10^%{z:.2f}<extra></extra>",
    }
    reading = (
        "What each head adds by itself: the error of its output, as a share of the output's length, when it is given "
        "the "
        f"same input as an exact head. Earlier layers' errors are not in it. Worst: layer {worst[1]}, head {worst[2]}, "
        f"{number(worst[0])}."
    )
    layout = axes("head", "layer", whole={"x": (1, width), "y": (1, len(grid))})
    return Plot("Error made in each head", [Drawing("", [trace], layout)], reading)


def _concentration(depths: list[dict[str, Any]]) -> Plot:
    x = [point["depth"] for point in depths]
    traces = []
    for kind, label in (("by_error", "channels with most error"), ("by_size", "largest channels (outliers)")):
        count = len(depths[0][kind])
        shares = [100 * sum(channel["share"] or 0.0 for channel in point[kind]) for point in depths]
        traces.append(line(f"{count} {label}", x, shares))
    reading = (
        "How much of the error's energy lies in a few channels of the residual stream: in the ten that have most of "
        "it, "
        "and in the ten with the largest values. Where both lines lie high and together, the outlier channels carry "
        "the "
        "error: it is large there because the values are."
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
        "size; "
        "points high above the cloud are channels with more error than their size explains."
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
