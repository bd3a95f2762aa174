"""Compute SiLU: x·σ(x)."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.codes import Coded
from spikeplug.numerics import Numerics
from spikeplug.operators.gates.gate import Gate, gated, gated_bound, gated_integers, input_range, largest
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator, elementwise, no_settings
from spikeplug.primitives.arithmetic import Arithmetic

GATE = Gate()


def silu(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return x·σ(x), elementwise; x's shape and dtype. -inf gives NaN, as in torch."""
    return gated(x, GATE, on)


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact| of x·σ(x), in x's shape."""
    return gated_bound(x, numerics, lambda x: x, F.silu(x))


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return gated_integers(given.amplitude(), given.opening(), GATE, on)


RECORD = Operator(
    name="silu",
    family="gate",
    formula="x·σ(x)",
    spiking=silu,
    integers=integers,
    exact=F.silu,
    inputs=("gate",),
    scale="vector",
    grid="exponent",
    bound=bound,
    largest=largest,
    input_range=input_range,
    spellings=elementwise("silu"),
    modules={"torch.nn.SiLU": no_settings, "transformers.activations.SiLUActivation": no_settings},
    aten=("silu",),
    module="SiLU",
)
