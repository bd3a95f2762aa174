"""Where the error sits: in which heads it is made, in which channels of the residual stream it lies."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeplug.library import OPERATORS
from spikeplug.report.bench import Bench, Change
from spikeplug.report.capture import Watch
from spikeplug.report.studies import Row

_TOP = 10


def steps(bench: Bench) -> int:
    """Heads and channels."""
    return 2


def measure(bench: Bench, row: Row) -> None:
    """heads, channels."""
    row("heads", partial(_heads, bench))
    row("channels", partial(_channels, bench))


def _heads(bench: Bench) -> dict[str, Any]:
    """What each head adds by itself: ‖ŷ - y‖/‖y‖ of its output for the same input; (calls, heads), in the order of the
    layers. Empty where attention is not one operator."""
    grid: list[list[float]] = []

    def heard(name: str, arguments: tuple[Any, ...], output: Tensor) -> None:
        # A softmax with heads is attention too, written out by the model.
        if name == "attention" or (name == "softmax" and output.dim() == 4):
            exact = OPERATORS[name].exact(*arguments).double()
            apart = torch.linalg.vector_norm(output.double() - exact, dim=(0, 2, 3))
            grid.append((apart / torch.linalg.vector_norm(exact, dim=(0, 2, 3)).clamp(min=1e-300)).tolist())

    with bench.converted(Change(bench.numerics)), Watch(heard):
        bench.model(input_ids=bench.windows[:1], use_cache=False)
    return {"relative_error": grid}


def _channels(bench: Bench) -> dict[str, Any]:
    """Of each depth of the residual stream: the channels with most error energy Σ_t (x̂ - x)² and its share of all;
    those with the largest root mean square, in medians of all channels, and their share of the error energy. Of the
    last depth, both figures of every channel."""
    depths = []
    streams = zip(bench.residual_stream(None), bench.residual_stream(Change(bench.numerics)), strict=True)
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
