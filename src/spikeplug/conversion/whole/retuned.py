"""Run a whole spiking model with other numerics, or with other levels of inputs and of keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from spikeplug.conversion.attention import PLUG
from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.whole.coded import CodedPlug
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.numerics import Numerics


@contextmanager
def retuned(model: nn.Module, numerics: Numerics, levels: Whole) -> Iterator[None]:
    """Let a whole model compute with these numerics and levels in the block; afterwards it has its own again.

    levels   its `inputs` and `cache` count. Weights stay the integers that they are, rounded for the model's own levels

    What was excluded stays exact.
    """
    before: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    try:
        for module in model.modules():
            plug, attention = plug_of(module), vars(module).get(PLUG)
            if plug is not None and plug.numerics is not None:
                put(plug, "numerics", numerics)
                if isinstance(plug, CodedPlug):
                    put(plug, "levels", levels.inputs)
            if attention is not None and attention.numerics is not None:
                put(module, PLUG, replace(attention, numerics=numerics, levels=levels.cache))
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
