"""Compute the norm of a vector: sqrt(Σ x²)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeplug.codes import Coded, as_input, as_real, decode, encode
from spikeplug.numerics import Numerics
from spikeplug.operators.errors import length_error
from spikeplug.operators.norms.length import length_integers, norm_range
from spikeplug.operators.operands import EXPONENTS, Operands
from spikeplug.operators.ratio import EXPONENT_BITS, normalise
from spikeplug.operators.record import Operator, Spelling
from spikeplug.operators.rows import along, by_rows
from spikeplug.primitives.arithmetic import Arithmetic


def vector_norm(x: Tensor, dim: int = -1, keepdim: bool = False, *, on: Arithmetic) -> Tensor:
    """Return sqrt(Σ x²) along `dim`; x's shape without `dim` (or with 1 there), x's dtype.

    The result has numerics.bits significant bits with all numerics. The vector shares one power-of-two scale.
    numerics.norm chooses squares and root, or the CORDIC tree.
    The result is right even where x² overflows its dtype.
    A vector with NaN gives NaN; otherwise one with an infinity gives +inf.
    Errors: SpikeplugError for a non-floating tensor, a dim that x does not have, or a vector that is too long.
    """
    as_real(x, "vector_norm")
    rows = along(dim, x, "vector_norm")
    if x.numel() == 0:
        output = x.new_zeros((*rows.shape[:-1], 1))
    else:
        output = by_rows(lambda block: _rows(as_real(block, "vector_norm"), on), rows)
    return output.movedim(-1, dim) if keepdim and x.dim() else output.squeeze(-1)


def vector_norm_integers(code: Coded, on: Arithmetic) -> Coded:
    """Return the code of the norm of each vector of a code, (..., 1), of numerics.bits significant bits."""
    length = length_integers(code.mantissa, None, on)
    # The CORDIC tree's constant gain may round a length up to one bit more.
    quotient, places = normalise(length.integers, length.bits + 1, on.numerics.bits, on)
    exponent = on.add(code.exponent, places, EXPONENT_BITS, "exponent") + length.dropped
    return Coded(quotient, exponent, on.numerics.bits, "vector")


def _rows(x: Tensor, on: Arithmetic) -> Tensor:
    code = encode(as_input(x, on.numerics), on.numerics.working_bits)
    output = decode(vector_norm_integers(code, on), x.dtype)
    if code.nonfinite is None:
        return output
    output = output.masked_fill(code.nonfinite.any(-1, keepdim=True), math.inf)
    return output.masked_fill(torch.isnan(x).any(-1, keepdim=True), math.nan)


def exact(x: Tensor, dim: int, keepdim: bool) -> Tensor:
    """Return sqrt(Σ x²) along the dimension `dim` in float arithmetic; keepdim keeps it, with size 1."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)
    return norm


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact| for the norm along the last dimension; (..., 1).

    It is the norm times the relative errors of the spiking length and of rounding to numerics.bits significant bits.
    """
    length = length_error(x.shape[-1], numerics)
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm * (length + 2.0**-numerics.bits * (1 + length))


def _norm(operator: Callable[..., Tensor], input: Tensor, p: Any = None, dim: Any = None, *args: Any, **kw: Any) -> Any:
    order = kw.pop("ord", p)
    if dim is None and input.dim() == 2 and isinstance(order, (int, float)):
        return NotImplemented  # torch.linalg.norm means the matrix
    return _vector_norm(operator, input, order, dim, *args, **kw)


def _vector_norm(
    operator: Callable[..., Tensor],
    input: Tensor,
    ord: Any = None,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Any:
    if ord not in (2, "fro", None):
        return NotImplemented
    x = input if dtype is None else input.to(dtype)
    if dim is None:
        length = operator(x.flatten(), 0, False)
        return length.view((1,) * x.dim()) if keepdim else length
    if not isinstance(dim, int) and len(dim) != 1:
        return NotImplemented
    return operator(x, dim if isinstance(dim, int) else dim[0], keepdim)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    bits = on.numerics.working_bits - 1
    mantissa = given.vector("x", -1 << bits, 1 << bits, torch.int32)
    return vector_norm_integers(Coded(mantissa, given.shared("exponent", *EXPONENTS), bits, "vector"), on)


RECORD = Operator(
    name="vector_norm",
    family="norm",
    formula="sqrt(Σ x²) along `dim`",
    spiking=vector_norm,
    integers=integers,
    exact=exact,
    inputs=("residual",),
    settings=(-1, False),
    scale="element",
    bound=bound,
    input_range=norm_range,
    spellings=(Spelling(("norm",), _norm), Spelling(("vector_norm",), _vector_norm)),
    aten=("norm", "native_norm", "renorm"),
)
