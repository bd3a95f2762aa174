"""Count the spikes at the inputs of linear layers of a whole spiking model, from the codes, without simulating neurons.

An input is the level m of a step. In a phase code it is sent as the binary digits of |m|: a spike for every digit 1, so
a level costs popcount(|m|) spikes; the sign is the line that carries them. A block's shift of m moves the spikes to
earlier phases, and adds none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.whole.coded import CodedPlug, EmbeddingPlug
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.levels import Levels, level_integers, rotated
from spikeplug.operators.linear.scaled import received
from spikeplug.primitives.arithmetic import Closed

#: What is counted, in words for people.
COUNTED = "spikes at the inputs of linear layers, phase code: the binary digits 1 of every level |m|"


@dataclass
class InputSpikes:
    """Count what the inputs of one layer have sent: `spikes`, over `levels` levels (vectors times channels)."""

    spikes: int = 0
    levels: int = 0


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
        levels = level_integers(rotated(received(rows), plug.rotation, on), plug.levels, plug.block, on)
        self._counts.spikes += spikes_of(levels)
        self._counts.levels += levels.mantissa.numel()


def spikes_of(levels: Levels) -> int:
    """Return the number of spikes of a phase code of these levels: the sum of popcount(|m|)."""
    magnitude = levels.mantissa.abs()
    return sum(int(((magnitude >> digit) & 1).sum()) for digit in range(levels.bits + 1))
