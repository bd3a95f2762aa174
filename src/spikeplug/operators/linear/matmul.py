"""Multiply two matrices of spike codes: attention written out, a router, whatever has no weight of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import Coded, as_real, decode, encode
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.scaled import coded
from spikeplug.operators.ratio import EXPONENT_BITS
from spikeplug.operators.record import Operator
from spikeplug.primitives.arithmetic import Arithmetic


def matmul_integers(a: Coded, b: Coded, bits: int, on: Arithmetic) -> Coded:
    """Return the code of a·bᵀ in `bits` bits, one exponent per row of a.

    a  mantissa (..., m, k), an exponent per row;  b  mantissa (..., n, k), an exponent per row

    Each sum is shifted to the largest exponent among the rows of b; what is dropped lies a.bits + b.bits octaves below
    the largest product.
    """
    sums = on.signed_dot(a.mantissa, b.mantissa.transpose(-1, -2), a.bits + 1, b.bits + 1, name="sums")
    width = a.bits + b.bits + a.mantissa.shape[-1].bit_length() + 1
    exponents = b.exponent.transpose(-1, -2)
    highest = on.maximum(exponents, EXPONENT_BITS, "exponent/maximum")
    places = on.add(exponents, -highest, EXPONENT_BITS, "places")
    size = on.shift(on.magnitude(sums, width, "sums/magnitude"), places, width, 0, "sums/shift")
    exponent = on.add(a.exponent, highest, EXPONENT_BITS, "exponent/sum")
    return coded(on.signed(size, sums, width, "sums/sign"), exponent, width, bits, on)


def matmul(a: Tensor, b: Tensor, *, on: Arithmetic) -> Tensor:
    """Return a @ b for a (..., m, k) and b (..., k, n); a code of numerics.bits bits and a sign per row of the result.

    Rows of a and columns of b are taken in numerics.bits bits and a sign, a power of two each. A row of a, or column of
    b, with NaN or an infinity gives NaN.
    Errors: SpikeplugError for tensors that are not floating, or whose shapes do not fit.
    """
    dtype = torch.result_type(a, b)
    a, b = as_real(a, on.operator), as_real(b, on.operator)
    if a.dim() < 2 or b.dim() < 2 or a.shape[-1] != b.shape[-2]:
        raise SpikeplugError(
            f"{on.operator} got {tuple(a.shape)} and {tuple(b.shape)}: give (..., m, k) and (..., k, n)."
        )
    if 0 in (*a.shape, *b.shape):
        return (a @ b).to(dtype)
    real = torch.promote_types(a.dtype, b.dtype)
    broken = ~torch.isfinite(a).all(-1, keepdim=True) | ~torch.isfinite(b).all(-2, keepdim=True)
    rows, columns = (
        encode(x.to(real).masked_fill(~torch.isfinite(x), 0.0).contiguous(), on.numerics.bits + 1)
        for x in (a, b.transpose(-1, -2))
    )
    output = decode(matmul_integers(rows, columns, on.numerics.bits, on), real)
    return output.masked_fill(broken, torch.nan).to(dtype)


def bound(a: Tensor, b: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|: half a step of each operand through the other, then the rounding."""
    row, column = a.abs().amax(-1, keepdim=True), b.abs().amax(-2, keepdim=True)
    step, terms = 2.0**-numerics.bits, a.shape[-1]
    error = step * (row * b.abs().sum(-2, keepdim=True) + a.abs().sum(-1, keepdim=True) * column)
    error = error + step * step * terms * row * column
    error = error + row * column.amax(-1, keepdim=True) * 2.0 ** (2 - 2 * numerics.bits)
    largest = ((a @ b).abs() + error).amax(-1, keepdim=True)
    total: Tensor = error + largest * step
    return total


RECORD = Operator(
    name="matmul",
    family="linear",
    formula="a·b, matrices",
    spiking=matmul,
    exact=torch.matmul,
    inputs=("residual", "matrix"),
    scale="vector",
    bound=bound,
    input_range=lambda numerics: f"{numerics.bits} bits below each vector's largest magnitude",
)
