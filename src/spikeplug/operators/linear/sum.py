"""Sum along one dimension: a pooled mean, a weighted sum of experts."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import Coded, as_real, decode
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.receiver import RECEIVED_BITS, in_vectors, received
from spikeplug.operators.linear.scaled import coded
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator
from spikeplug.operators.rows import along, by_rows
from spikeplug.primitives.arithmetic import Arithmetic


def sum_of_integers(code: Coded, bits: int, on: Arithmetic) -> Coded:
    """Return the code of the sum of each vector of a received code, (..., 1), in `bits` bits with an exponent each."""
    vectors, width = in_vectors(code, RECEIVED_BITS, on), RECEIVED_BITS
    mantissa = on.signed(vectors.mantissa, code.mantissa, width, "receiver/sign")
    positive = on.accumulate(on.clamp(mantissa, 0, None, width, "positive"), width, "positive/sum")
    negative = on.accumulate(on.clamp(-mantissa, 0, None, width, "negative"), width, "negative/sum")
    total_bits = width + mantissa.shape[-1].bit_length()
    return coded(on.add(positive, -negative, total_bits), vectors.exponent, total_bits + 1, bits, on)


def sum_along(x: Tensor, dim: int = -1, *, on: Arithmetic) -> Tensor:
    """Return the sum along `dim`, kept with size 1; each is a code of numerics.bits bits and a sign of its own.

    A vector with NaN or an infinity gives what torch's sum gives.
    Errors: SpikeplugError for a tensor that is not floating, or a dim that it does not have.
    """
    as_real(x, on.operator)
    rows = along(dim, x, on.operator)
    if x.numel() == 0:
        return x.sum(dim, keepdim=True)

    def of(x: Tensor) -> Tensor:
        finite = torch.isfinite(x)
        output = decode(sum_of_integers(received(x.masked_fill(~finite, 0.0)), on.numerics.bits, on), x.dtype)
        broken = ~finite.all(-1, keepdim=True)
        return torch.where(broken, x.sum(-1, keepdim=True), output) if bool(broken.any()) else output

    total = by_rows(lambda part: of(as_real(part, on.operator)), rows)
    return total.reshape(()) if x.dim() == 0 else total.movedim(-1, dim)


def exact(x: Tensor, dim: int) -> Tensor:
    """Return the sum along `dim`, kept with size 1, in float arithmetic."""
    return x.sum(dim, keepdim=True)


def bound(x: Tensor, dim: int = -1, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|: half a step of each input, and the output's rounding."""
    given = x.abs().amax(dim, keepdim=True) * (x.shape[dim] * 2.0**-24)
    error: Tensor = given + (x.sum(dim, keepdim=True).abs() + given) * 2.0**-numerics.bits
    return error


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    return sum_of_integers(given.received_vector(), on.numerics.bits, on)


RECORD = Operator(
    name="sum",
    family="linear",
    formula="Σ x along one dimension",
    spiking=sum_along,
    integers=integers,
    exact=exact,
    inputs=("residual",),
    settings=(-1,),
    scale="element",
    bound=bound,
    input_range=lambda numerics: "24 bits below each vector's largest magnitude",
)
