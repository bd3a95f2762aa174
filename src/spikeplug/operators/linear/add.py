"""Add two vectors of spike codes: the residual stream's sum, and every other sum of a whole spiking model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spikeplug.codes import as_real, decode
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.scaled import received, sum_integers
from spikeplug.operators.record import Operator
from spikeplug.primitives.arithmetic import Arithmetic


def add(a: Tensor, b: Tensor, *, on: Arithmetic) -> Tensor:
    """Return a + b, broadcast, as a code of numerics.bits bits and a sign per vector along the last dimension.

    NaN, infinities, and numbers from 2^96 on, such as a mask's, give what torch's sum gives, and change no other.
    Errors: SpikeplugError for tensors that are not floating.
    """
    dtype = torch.result_type(a, b)
    a, b = as_real(a, on.operator), as_real(b, on.operator)
    shape = torch.broadcast_shapes(a.shape, b.shape)
    if 0 in shape:
        return (a + b).to(dtype)
    a, b, undefined = finite_vectors(a, b, torch.add)
    output = decode(sum_integers(received(a), received(b), on.numerics.bits, on), a.dtype)
    return restored(output, undefined).reshape(shape).to(dtype)


#: Numbers of this size and more, such as those of a mask, have no code; they pass as they are.
HUGE = 2.0**96


def finite_vectors(
    a: Tensor, b: Tensor, exact: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a and b with at least one dimension, and what has no code set to 0; and what `exact` gives there.

    NaN, infinities and numbers from HUGE on have no code. The third is (2, ...): the results of `exact`, and 1 where
    they count; None if everything has a code.
    """
    a, b = torch.atleast_1d(a), torch.atleast_1d(b)
    dtype = torch.promote_types(a.dtype, b.dtype)
    a, b = a.to(dtype), b.to(dtype)
    coded_a, coded_b = a.abs() < HUGE, b.abs() < HUGE
    if bool(coded_a.all()) and bool(coded_b.all()):
        return a, b, None
    undefined = torch.stack([exact(a, b), (~(coded_a & coded_b)).to(dtype)])
    return a.masked_fill(~coded_a, 0.0), b.masked_fill(~coded_b, 0.0), undefined


def restored(output: Tensor, undefined: Tensor | None) -> Tensor:
    """Return the output with the results of what has no code, as `finite_vectors` gives them, put in."""
    return output if undefined is None else torch.where(undefined[1] != 0, undefined[0], output)


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
