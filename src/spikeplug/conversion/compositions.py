"""Compose torch functions from others that are themselves redirected: the same arguments, the same result.

Everything here is written in torch functions and runs under the redirection.
So a part whose operator was not chosen stays exact.
NotImplemented leaves the call as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeplug.operators.record import rounded_once

# erf(x) = tanh(x·q(x²)) to 3e-6 on [0, 4], by a weighted least-squares fit of artanh(erf(x)). Beyond, erf > 1 - 2e-8.
_ERF = (1.1283581721, 0.1029329053, -0.0004967891, -0.0004151532, 0.0000322460)
_ERF_END = 4.0
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

_POWERS: dict[float, Callable[[Tensor], Tensor]] = {
    1: torch.clone,
    2: torch.square,
    3: lambda x: x * torch.square(x),
    0.5: torch.sqrt,
    -0.5: torch.rsqrt,
    -1: torch.reciprocal,
    4: lambda x: torch.square(torch.square(x)),
    -2: lambda x: torch.reciprocal(torch.square(x)),
}


def common_type(a: Tensor, b: Tensor) -> torch.dtype:
    """Return `torch.result_type` of two tensors, at least one of them floating.

    torch.compile does not know that function.
    """
    if (a.dim() == 0) != (b.dim() == 0):
        larger = a if a.dim() else b
        if larger.is_floating_point():
            return larger.dtype
    return torch.promote_types(a.dtype, b.dtype)


def power(input: Any, exponent: Any) -> Any:
    """Return input^exponent; NotImplemented unless one is a tensor and the other a tensor or a real number."""
    if isinstance(exponent, Tensor):
        # Not exp2: its argument would be rounded twice.
        if isinstance(input, Tensor):
            return _tensor_power(input, exponent)
        positive = isinstance(input, (int, float)) and input > 0
        return rounded_once(exponent, lambda x: torch.exp(x * math.log(input))) if positive else NotImplemented
    if not isinstance(exponent, (int, float)):
        return NotImplemented
    run = _POWERS.get(exponent, lambda x: _tensor_power(x, torch.full_like(x, exponent)))
    return rounded_once(input, run)


def power_of(input: Tensor, other: Any) -> Any:
    """Return other^input, with the arguments of `__rpow__`."""
    return power(other, input)


def _tensor_power(base: Tensor, exponent: Tensor) -> Tensor:
    """Return exp(exponent·ln|base|), with the sign that whole exponents give; x⁰ = 1 and 1ˣ = 1 for every x."""
    dtype = common_type(base, exponent)
    wide = torch.promote_types(dtype, torch.float32)
    base, exponent = base.to(wide), exponent.to(wide)
    size = torch.exp(exponent * torch.log(base.abs())).masked_fill((exponent == 0) | (base == 1), 1.0)
    whole, even = exponent == exponent.floor(), exponent * 0.5 == (exponent * 0.5).floor()
    signed = torch.where(torch.signbit(base) & whole & ~even, -size, size)
    return signed.masked_fill((base < 0) & base.isfinite() & ~whole, torch.nan).to(dtype)


def polar(input: Tensor, angle: Tensor) -> Tensor:
    """Return input·exp(i·angle), complex."""
    return torch.complex(input * torch.cos(angle), input * torch.sin(angle))


def expm1(input: Tensor) -> Tensor:
    """Return exp(x) - 1, rounded once."""
    return rounded_once(input, lambda x: torch.exp(x) - 1)


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Any:
    """Return max(x) - max(log_softmax(x)): log_softmax(x) is x minus this. NotImplemented for several dims."""
    if not isinstance(dim, int):
        if len(dim) != 1:
            return NotImplemented
        (dim,) = dim
    largest = input.amax(dim, keepdim=keepdim)
    return torch.where(largest.isinf(), largest, largest - torch.log_softmax(input, dim).amax(dim, keepdim=keepdim))


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """Return softmax(-x)."""
    return torch.nn.functional.softmax(-input, dim, dtype=dtype)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Return x above 0, and alpha·(exp(x) - 1) below."""
    return _joined(input, rounded_once(input.clamp(max=0), lambda x: (torch.exp(x) - 1) * alpha), inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Return x above 0, and alpha·(exp(x/alpha) - 1) below."""
    below = rounded_once(input.clamp(max=0), lambda x: (torch.exp(x * (1 / alpha)) - 1) * alpha)
    return _joined(input, below, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return elu with torch's fixed alpha and scale."""
    output = elu(input, _SELU_ALPHA) * _SELU_SCALE
    return input.copy_(output) if inplace else output


def _joined(input: Tensor, below: Tensor, inplace: bool) -> Tensor:
    output = torch.where(input > 0, input, below)
    return input.copy_(output) if inplace else output


def tanhshrink(input: Tensor) -> Tensor:
    """Return x - tanh(x)."""
    return input - torch.tanh(input)


def softsign(input: Tensor) -> Tensor:
    """Return x / (1 + |x|)."""
    return torch.div(input, input.abs() + 1)


def erf(input: Tensor) -> Tensor:
    """Return erf(x) = tanh(x·q(x²)), q a polynomial; see `_ERF` for its error."""

    def run(x: Tensor) -> Tensor:
        x = x.clamp(-_ERF_END, _ERF_END)
        factor, squared = torch.full_like(x, _ERF[-1]), x * x
        for coefficient in reversed(_ERF[:-1]):
            factor = factor * squared + coefficient
        return torch.tanh(x * factor)

    return rounded_once(input, run)


def erfc(input: Tensor) -> Tensor:
    """Return 1 - erf(x)."""
    return 1 - torch.erf(input)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Return x / max(‖x‖_p, eps) along `dim`."""
    return torch.div(input, torch.linalg.vector_norm(input, p, dim, True).clamp_min(eps))


def cosine_similarity(input: Tensor, other: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Return the dot product along `dim` of both inputs, normalised."""
    input, other = torch.broadcast_tensors(input, other)
    directions = [torch.nn.functional.normalize(x, 2.0, dim, eps) for x in (input, other)]
    return (directions[0] * directions[1]).sum(dim)


def variance(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    """Return the variance over `dim`, with the arguments of `torch.var`."""
    if isinstance(dim, bool):  # torch.var(x, unbiased)
        dim, unbiased = None, dim
    if correction is None:
        correction = 0 if unbiased is False else 1
    dims = tuple(range(input.dim())) if dim is None else dim
    mean = input.mean(dims, keepdim=True)
    freedom = input.numel() // max(mean.numel(), 1) - correction
    factor = 1 / freedom if freedom > 0 else math.nan
    return torch.square(input - mean).sum(dims, keepdim=keepdim) * factor


def deviation(*args: Any, **kwargs: Any) -> Tensor:
    """Return the standard deviation, with the arguments of `torch.std`."""
    return torch.sqrt(torch.var(*args, **kwargs))


def batch_norm(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Return the batch norm of given statistics; takes the arguments of `F.batch_norm` or of `torch.batch_norm`.

    `torch.batch_norm` has another order of arguments and no defaults.
    With running statistics, a channel is scaled and shifted. Only the root in the scale is not a synaptic weight.
    NotImplemented while training, and without running statistics.
    """
    affine, running = "weight bias", "running_mean running_var"
    order = f"{affine} {running}" if len(args) + len(kwargs) == 8 else f"{running} {affine}"
    given = dict(zip(f"{order} training momentum eps".split(), args, strict=False)) | kwargs
    mean, variance = given["running_mean"], given["running_var"]
    if given.get("training") or mean is None or variance is None:
        return NotImplemented
    scale, shift = torch.rsqrt(variance + given.get("eps", 1e-5)), given.get("bias")
    if given.get("weight") is not None:
        scale = scale * given["weight"]
    shift = -mean * scale if shift is None else shift - mean * scale
    channels = (-1, *[1] * (input.dim() - 2))
    return (input * scale.view(channels) + shift.view(channels)).to(input.dtype)


def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:  # noqa: N803
    """Solve A·X = B by forward substitution, row by row: matrix products, and reciprocals of the diagonal."""
    matrix, right = A, B
    if not left:  # X·A = B is Aᵀ·Xᵀ = Bᵀ
        return solve_triangular(matrix.mT, right.mT, upper=not upper, unitriangular=unitriangular).mT
    if upper:  # backward substitution is forward substitution of the flipped system
        return solve_triangular(matrix.flip(-2, -1), right.flip(-2), upper=False, unitriangular=unitriangular).flip(-2)
    if not unitriangular:
        inverse = torch.reciprocal(matrix.diagonal(dim1=-2, dim2=-1))[..., None]
        matrix, right = matrix * inverse, right * inverse
    lead = torch.broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
    solved = right[..., :1, :].expand(*lead, -1, -1)
    for row in range(1, matrix.shape[-1]):
        step = slice(row, row + 1)
        solved = torch.cat([solved, right[..., step, :] - matrix[..., step, :row] @ solved], -2)
    return solved
