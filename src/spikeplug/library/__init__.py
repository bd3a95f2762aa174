"""Register every operator as a torch op: `OPERATORS` is what functions, modules and converted models call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from spikeplug.library.dispatch import Operator
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import LINEAR, RECORDS
from spikeplug.operators.record import Operator as Record
from spikeplug.primitives.arithmetic import arithmetic


def _spiking(record: Record) -> Callable[..., Tensor]:
    @torch.no_grad()
    def run(*arguments: Any, numerics: Numerics, events: Events | None = None) -> Tensor:
        return record.spiking(*arguments, on=arithmetic(record.name, numerics, events))

    return run


OPERATORS: Mapping[str, Operator] = {
    record.name: Operator(record.name, record.schema, _spiking(record), record.exact)
    for record in (*RECORDS.values(), *LINEAR.values())
}
for _operator in OPERATORS.values():
    _operator.register()
