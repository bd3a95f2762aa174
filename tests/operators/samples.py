"""Small arguments for every operator: the inputs and settings of its record, and what else runs other lines of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from spikeplug.evidence.distributions import gaussian
from spikeplug.evidence.subjects import Subject
from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS
from spikeplug.presets import as_realisation

_HUGE = torch.tensor([[1e12, 0.0, -1e30, 1e12], [3.0, -2.0, -1e30, 0.5]])
_BIAS = torch.tensor([0.5, -1.25, 0.0])
_ATTENTION = (_BIAS, 0.25, 2.0, torch.tensor([0.75]))
#: Arguments after the tensors, in place of the record's settings.
_OTHER_SETTINGS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "gelu": (("tanh",), ("quick",)),
    "softplus": ((0.5, 1.0),),
    "attention": (_ATTENTION,),
    "attention_weights": (_ATTENTION,),
}
#: Whole argument lists.
_OTHER_ARGUMENTS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "softmax": ((_HUGE, -1),),
    "log_softmax": ((_HUGE, -1),),
    "softplus": ((torch.tensor([[25.0, 1.0]]), 1.0, 20.0),),
}
SAMPLES = tuple(RECORDS)


def samples(name: str, *, few: bool = False, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Any, ...]]:
    """Yield arguments of the operator. few: two numbers only, for populations of one neuron per output level."""
    subject = Subject(RECORDS[name])
    rows, dimension = (1, 2) if few else (2, 5)
    inputs = subject.inputs(gaussian(1), rows, 3 if subject.attends else dimension)
    for settings in (RECORDS[name].settings, *_OTHER_SETTINGS.get(name, ())):
        given = subject.arguments(inputs)[: len(inputs)]
        yield tuple(x.to(dtype) if isinstance(x, Tensor) else x for x in (*given, *settings))
    yield from _OTHER_ARGUMENTS.get(name, ())


def run(name: str, *, numerics: Numerics, events: Events | None = None, few: bool | None = None) -> list[Tensor]:
    """Return the operator's results for all samples. few: None is whether the division is ordered."""
    if few is None:
        realisation = as_realisation(events.realisation if events is not None else None, numerics)
        few = realisation.division == "ordered"
    return [OPERATORS[name](*given, numerics=numerics, events=events) for given in samples(name, few=few)]
