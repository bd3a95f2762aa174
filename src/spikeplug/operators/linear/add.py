"""Add two spike codes: the residual stream's sum, a mask, and every other sum of a whole spiking model."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import Coded
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.pair import of_pair
from spikeplug.operators.linear.scaled import sum_integers
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator
from spikeplug.primitives.arithmetic import Arithmetic


def add(a: Tensor, b: Tensor, *, on: Arithmetic) -> Tensor:
    """Return a + b, broadcast; each element is a code of numerics.bits bits and a sign with its own power of two.

    NaN, infinities, and numbers from 2^96 on, such as a mask's, give what torch's sum gives, and change no other.
    Errors: SpikeplugError for tensors that are not floating.
    """
    return of_pair(a, b, sum_integers, torch.add, on)


def bound(a: Tensor, b: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|: half a step of each input's code, the guard bits, then the rounding."""
    given = (a.abs() + b.abs()) * (2.0**-24 + 2.0**-46)
    return given + ((a + b).abs() + given) * 2.0**-numerics.bits


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return sum_integers(given.received("a"), given.received("b"), on.numerics.bits, on)


RECORD = Operator(
    name="add",
    family="linear",
    formula="a + b",
    spiking=add,
    integers=integers,
    exact=torch.add,
    inputs=("residual", "residual"),
    scale="element",
    elementwise=True,
    bound=bound,
    input_range=lambda numerics: "24 bits per element",
)
