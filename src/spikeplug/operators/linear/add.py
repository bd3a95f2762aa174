"""Add two vectors of spike codes: the residual stream's sum, and every other sum of a whole spiking model."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.numerics import Numerics
from spikeplug.operators.linear.pair import of_pair
from spikeplug.operators.linear.scaled import sum_integers
from spikeplug.operators.record import Operator
from spikeplug.primitives.arithmetic import Arithmetic


def add(a: Tensor, b: Tensor, *, on: Arithmetic) -> Tensor:
    """Return a + b, broadcast, as a code of numerics.bits bits and a sign per vector along the last dimension.

    NaN, infinities, and numbers from 2^96 on, such as a mask's, give what torch's sum gives, and change no other.
    Errors: SpikeplugError for tensors that are not floating.
    """
    return of_pair(a, b, sum_integers, torch.add, on)


def bound(a: Tensor, b: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|: half a step of the output's code, and half a step of each input's."""
    total = a + b
    first, second = torch.broadcast_tensors(a, b)
    given = (first.abs().amax(-1, keepdim=True) + second.abs().amax(-1, keepdim=True)) * 2.0**-24
    largest = total.abs().amax(-1, keepdim=True) + given
    error: Tensor = largest * 2.0**-numerics.bits + given
    return error.expand(total.shape)


RECORD = Operator(
    name="add",
    family="linear",
    formula="a + b",
    spiking=add,
    exact=torch.add,
    inputs=("residual", "residual"),
    scale="vector",
    bound=bound,
    input_range=lambda numerics: "24 bits below each vector's largest magnitude",
)
