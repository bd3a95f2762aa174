"""Count the spikes at the inputs of linear layers of a whole spiking model, from the codes, without simulating neurons.

An input is the level m of a step. In a phase code it is sent as the binary digits of |m|: a spike for every digit 1, so
a level costs as many spikes; the sign is the line that carries them. In blocks, m is the level times its block's
shares of the step, as the layer's membranes receive it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeplug.codes.counting import ones
from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.whole.coded import CodedPlug, EmbeddingPlug
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.linear import input_levels
from spikeplug.primitives.arithmetic import Closed

#: What is counted, in words for people.
COUNTED = "spikes at the inputs of linear layers, phase code: the binary digits 1 of every level |m|"


@dataclass
class InputSpikes:
    """Count what the inputs of one layer have sent, over `levels` levels (vectors times channels).

    spikes     of the phase code
    magnitude  the sum of |m|: the spikes that a count code would send
    """

    spikes: int = 0
    levels: int = 0
    magnitude: int = 0


@contextmanager
def counting_spikes(model: nn.Module) -> Iterator[dict[str, InputSpikes]]:
    """Count the spikes at the inputs of the model's linear layers and convolutions, within the `with` block.

    Yields counts by module path. A level that several layers read is counted at each of them. Vectors with NaN or an
    infinity count nothing. A model without integer weights has no such layers.
    """
    counts: dict[str, InputSpikes] = {}
    plugs: list[CodedPlug] = []
    for path, module in model.named_modules():
        plug = plug_of(module)
        if isinstance(plug, CodedPlug) and not isinstance(plug, EmbeddingPlug):
            counts[path] = InputSpikes()
            plug.watch = _Counter(counts[path])
            plugs.append(plug)
    try:
        yield counts
    finally:
        for plug in plugs:
            plug.watch = None


class _Counter:
    def __init__(self, counts: InputSpikes) -> None:
        self._counts = counts

    @torch.no_grad()
    def __call__(self, plug: CodedPlug, x: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1]).to(torch.float32)
        rows = rows[torch.isfinite(rows).all(-1)]
        if not rows.numel():
            return
        on = Closed(plug.numerics or Numerics(), "linear")
        mantissa = input_levels(rows, plug.levels, plug.block, plug.rotation, on).mantissa
        self._counts.spikes += ones(mantissa)
        self._counts.levels += mantissa.numel()
        self._counts.magnitude += int(mantissa.abs().sum(dtype=torch.int64))
