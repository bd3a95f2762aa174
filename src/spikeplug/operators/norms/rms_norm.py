"""Compute RMSNorm: x·sqrt(d) / ‖[x, sqrt(eps·d)]‖."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeplug.codes import Coded, as_input, as_real, decode, encode, power_of_two
from spikeplug.numerics import Numerics
from spikeplug.operators.gates.gate import with_sign_of
from spikeplug.operators.norms.length import EPS, check_norm, length_integers, norm_range, normed_bound
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import Ratio
from spikeplug.operators.record import Operator, Spelling
from spikeplug.operators.rows import by_rows
from spikeplug.primitives.arithmetic import Arithmetic

#: Fraction bits of the constant sqrt(d).
SQRT_BITS = 16


def rms_norm_integers(mantissa: Tensor, extension: Tensor, on: Arithmetic) -> Coded:
    """Return the code of x·sqrt(d) / ‖[x, extension]‖ for x = mantissa, with an int64 mantissa (..., d).

    mantissa   int32 (..., d), magnitudes at most 2^(P-1), P = numerics.working_bits
    extension  int32 (..., 1) at the same scale, at most 2^(P-1): sqrt(eps·d), one more element that stands for eps

    The scale of x and extension cancels, so it is not needed.
    The norm needs no shift: the encoder already puts the largest magnitude within a factor of 4 of 2^(P-1).
    """
    length = length_integers(mantissa, extension, on)
    dimension, width = mantissa.shape[-1], on.numerics.working_bits
    root_dimension = math.isqrt(dimension << 2 * SQRT_BITS)  # floor(sqrt(d) · 2^SQRT_BITS): an integer constant
    numerator = on.scale(on.magnitude(mantissa, width), root_dimension, width, "sqrt(d)")
    ratio = Ratio(width + root_dimension.bit_length(), length.bits, 2 << dimension.bit_length() // 2)
    # What the length lost in bits, the scale has.
    quotient = ratio(numerator, length.integers, -SQRT_BITS - length.dropped, on)
    return with_sign_of(quotient, mantissa, on)


def rms_norm(x: Tensor, eps: float, *, on: Arithmetic) -> Tensor:
    """Return x / sqrt(mean(x²) + eps) over the last dimension; shape and dtype of x.

    A vector of zeros gives 0. As in torch, a vector with ±inf gives 0, and NaN at the infinities; one with NaN gives
    NaN.
    Errors: SpikeplugError for a non-floating or 0-dimensional tensor, or eps < 0.
    """
    check_norm("rms_norm", x, eps)
    if x.numel() == 0:
        return torch.empty_like(x)
    return by_rows(lambda rows: _rows(as_real(rows, "rms_norm"), eps, on), x)


def _rows(x: Tensor, eps: float, on: Arithmetic) -> Tensor:
    extended = math.sqrt(eps * x.shape[-1])
    code = encode(as_input(x, on.numerics), on.numerics.working_bits, floor=extended)
    extension = (extended * power_of_two(-code.exponent, x.dtype)).round_().to(torch.int32)
    output = decode(rms_norm_integers(code.mantissa, extension, on), x.dtype)
    if code.nonfinite is None:
        return output
    broken = code.nonfinite.any(-1, keepdim=True)
    output = torch.where(broken, torch.where(code.nonfinite, torch.nan, 0.0), output)
    return torch.where(torch.isnan(x).any(-1, keepdim=True), torch.nan, output)


def exact(x: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x²) + eps) over the last dimension, in float arithmetic."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, in x's shape: |y|·ε/(1-ε) plus the errors of coding x and of rounding y.

    y is the exact output, and ε the relative error of the spiking length.
    """
    dimension = x.shape[-1]
    root = (x.square().sum(-1, keepdim=True) + EPS * dimension).sqrt()
    share = x.abs().amax(-1, keepdim=True).clamp(min=math.sqrt(EPS * dimension)) / root
    return normed_bound(x * math.sqrt(dimension) / root, share, numerics)


def _call(
    operator: Callable[..., Tensor], input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Tensor:
    shape = tuple(normalized_shape)
    # torch's own rule: that of the type it computes in, which for short floats is float32.
    eps = torch.finfo(torch.promote_types(input.dtype, torch.float32)).eps if eps is None else eps
    flat = None if weight is None else weight.flatten()
    return operator(input.flatten(-len(shape)), eps, weight=flat).view(input.shape)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    bound = 1 << on.numerics.working_bits - 1
    mantissa, extension = given.vector("x", -bound, bound), given.shared("extension", 0, bound)
    return rms_norm_integers(mantissa.to(torch.int32), extension.to(torch.int32), on)


RECORD = Operator(
    name="rms_norm",
    family="norm",
    formula="x / sqrt(mean(x²) + eps) · weight over the last dimension",
    spiking=rms_norm,
    integers=integers,
    exact=exact,
    inputs=("residual",),
    settings=(EPS,),
    scale="vector",
    bound=bound,
    largest=lambda numerics: 8.0,
    input_range=norm_range,
    spellings=(Spelling(("rms_norm",), _call),),
)
