"""Run a whole spiking model with other numerics, or with other levels of inputs and of keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from spikeplug.conversion.attention import PLUG, AttentionPlug
from spikeplug.conversion.plug import Plug, plug_of
from spikeplug.conversion.whole.coded import CodedPlug, EmbeddingPlug
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.numerics import Numerics


@contextmanager
def retuned(model: nn.Module, numerics: Numerics, levels: Whole) -> Iterator[None]:
    """Let a whole model compute with these numerics and levels in the block; afterwards it has its own again.

    levels   its `inputs` and `cache` count. Weights stay the integers that they are, rounded for the model's own levels

    What was excluded stays exact.
    """
    plugs = [plug for module in model.modules() if (plug := plug_of(module)) is not None and plug.numerics is not None]
    before = [(plug, dict(vars(plug))) for plug in plugs]
    attending: list[tuple[nn.Module, AttentionPlug]] = [
        (module, vars(module)[PLUG]) for module in model.modules() if PLUG in vars(module)
    ]
    try:
        for plug in plugs:
            _retune(plug, numerics, levels)
        for module, attention in attending:
            if attention.numerics is not None:
                setattr(module, PLUG, replace(attention, numerics=numerics, levels=levels.cache))
        yield
    finally:
        for plug, state in before:
            vars(plug).update(state)
        for module, attention in attending:
            setattr(module, PLUG, attention)


def _retune(plug: Plug, numerics: Numerics, levels: Whole) -> None:
    plug.numerics = numerics
    if isinstance(plug, CodedPlug) and not isinstance(plug, EmbeddingPlug):
        plug.levels = levels.inputs
