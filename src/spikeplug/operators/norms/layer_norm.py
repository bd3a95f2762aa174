"""Compute LayerNorm: RMSNorm of the centred vector."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.codes import Coded, as_input, as_real, decode, encode, power_of_two
from spikeplug.numerics import Numerics
from spikeplug.operators.norms.length import EPS, check_norm, norm_range, normed_bound
from spikeplug.operators.norms.rms_norm import rms_norm_integers
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import normalise
from spikeplug.operators.record import Operator, Spelling
from spikeplug.operators.rows import by_rows
from spikeplug.primitives.arithmetic import Arithmetic

#: Widest centred vector, its extension included.
_WIDEST = 60


def layer_norm_integers(mantissa: Tensor, extension: Tensor, on: Arithmetic) -> Coded:
    """Return the code of c·sqrt(d) / ‖[c, extension]‖ with c = d·mantissa - Σ mantissa, the centred vector; int64.

    mantissa   int32 (..., d), magnitudes at most 2^(P-1), P = numerics.working_bits
    extension  int64 (..., 1) at the scale of c, below 2^60: one more element, which stands for eps

    c is exact. One shift then brings [c, extension] to P - 1 bits, and the integers of RMSNorm do the rest.
    """
    width, dimension = on.numerics.working_bits, mantissa.shape[-1]
    # Codes from 0 on, so that one population sums them: an offset common to all falls out of c.
    code = on.add(mantissa.to(torch.int64), 1 << (width - 1), width, "offset")
    total = on.accumulate(code, width + 1)
    wide = width + 2 + dimension.bit_length()
    centred = on.add(on.scale(code, dimension, width + 1, "scale"), -total, wide, "centred")
    size = torch.cat([on.magnitude(centred, wide + 1), extension], -1)
    shifted, _ = normalise(size, _WIDEST, width - 1, on)
    vector = on.signed(shifted[..., :-1], centred, width).to(torch.int32)
    return rms_norm_integers(vector, shifted[..., -1:].to(torch.int32), on)


def layer_norm(x: Tensor, eps: float, *, on: Arithmetic) -> Tensor:
    """Return (x - mean(x)) / sqrt(variance(x) + eps) over the last dimension; shape and dtype of x.

    A constant vector gives 0, also for eps = 0. A vector with NaN or an infinity gives NaN, as in torch.
    Errors: SpikeplugError for a non-floating or 0-dimensional tensor, eps < 0, or too many channels for working_bits.
    """
    check_norm("layer_norm", x, eps)
    if x.numel() == 0:
        return torch.empty_like(x)
    return by_rows(lambda rows: _rows(as_real(rows, "layer_norm"), eps, on), x)


def _rows(x: Tensor, eps: float, on: Arithmetic) -> Tensor:
    dimension = x.shape[-1]
    extended = math.sqrt(eps * dimension)
    code = encode(as_input(x, on.numerics), on.numerics.working_bits, floor=extended)
    # At the scale of the centred integers, which is 2^exponent / d; float64, as those have more than 24 bits.
    extension = (extended * dimension * power_of_two(-code.exponent, torch.float64)).round_().to(torch.int64)
    output = decode(layer_norm_integers(code.mantissa, extension, on), x.dtype)
    return output if code.nonfinite is None else output.masked_fill(code.nonfinite.any(-1, keepdim=True), math.nan)


def exact(x: Tensor, eps: float) -> Tensor:
    """Return (x - mean) / sqrt(variance + eps) over the last dimension, in float arithmetic."""
    return F.layer_norm(x, x.shape[-1:], None, None, eps)


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, in x's shape: q + B(|y| + q), where y is the exact output.

    q is the effect of coding x. B(z) is the error of the root-mean-square normalisation for outputs of size z.
    """
    dimension = x.shape[-1]
    centred = x - x.mean(-1, keepdim=True)
    norm = (centred.square().sum(-1, keepdim=True) + EPS * dimension).sqrt()
    size = centred.abs() * math.sqrt(dimension) / norm
    step = (
        x.abs().amax(-1, keepdim=True).clamp(min=math.sqrt(EPS * dimension)) * 2.0 ** (2 - numerics.working_bits) / norm
    )
    rho = math.sqrt(dimension + 1) / 2 * step
    coding = torch.where(rho < 1, (math.sqrt(dimension) * step + size * rho) / (1 - rho).clamp(min=1e-300), math.inf)
    return coding + normed_bound(size + coding, torch.ones_like(norm), numerics)


def _layer_norm(
    operator: Callable[..., Tensor],
    input: Tensor,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    shape = tuple(normalized_shape)
    weight, bias = (None if value is None else value.flatten() for value in (weight, bias))
    normed = operator(input.flatten(-len(shape)), eps, weight=weight, bias=bias)
    return normed.view(input.shape).to(input.dtype)


def _group_norm(
    operator: Callable[..., Tensor],
    input: Tensor,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    normed = operator(input.reshape(input.shape[0], num_groups, -1), eps)
    normed, channels = normed.view(input.shape), (-1, *[1] * (input.dim() - 2))
    if weight is not None:
        normed = normed * weight.view(channels)
    return normed if bias is None else normed + bias.view(channels)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    bound = 1 << on.numerics.working_bits - 1
    extension = given.shared("extension", 0, bound * given.elements)
    return layer_norm_integers(given.vector("x", -bound, bound, torch.int32), extension, on)


RECORD = Operator(
    name="layer_norm",
    family="norm",
    formula="(x - mean) / sqrt(variance + eps) · weight + bias over the last dimension",
    spiking=layer_norm,
    integers=integers,
    exact=exact,
    inputs=("residual",),
    settings=(EPS,),
    scale="vector",
    bound=bound,
    largest=lambda numerics: 8.0,
    input_range=norm_range,
    spellings=(Spelling(("layer_norm",), _layer_norm), Spelling(("group_norm",), _group_norm)),
    aten=("native_layer_norm", "native_group_norm"),
)
