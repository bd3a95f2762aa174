"""Torch functions made of others that are themselves redirected: the same arguments, the same answer.

Everything here is written in torch functions and run under the redirection, so a part whose operator was not chosen
stays exact. NotImplemented means that this call stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeplug.operators.record import rounded_once

# erf(x) = tanh(x·q(x²)) to 3e-6 on [0, 4], beyond which it is 1 - 2e-8: a weighted least-squares fit of artanh(erf(x)).
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
    """`torch.result_type` of two tensors, one of them floating, which torch.compile does not know."""
    if (a.dim() == 0) != (b.dim() == 0):
        larger = a if a.dim() else b
        if larger.is_floating_point():
            return larger.dtype
    return torch.promote_types(a.dtype, b.dtype)


def power(input: Any, exponent: Any) -> Any:
    if isinstance(exponent, Tensor):
        # Not by exp2, whose argument would be rounded twice.
        if isinstance(input, Tensor):
            return _tensor_power(input, exponent)
        positive = isinstance(input, (int, float)) and input > 0
        return rounded_once(exponent, lambda x: torch.exp(x * math.log(input))) if positive else NotImplemented
    if not isinstance(exponent, (int, float)):
        return NotImplemented
    run = _POWERS.get(exponent, lambda x: _tensor_power(x, torch.full_like(x, exponent)))
    return rounded_once(input, run)


def power_of(input: Tensor, other: Any) -> Any:
    return power(other, input)


def _tensor_power(base: Tensor, exponent: Tensor) -> Tensor:
    """exp(exponent·ln|base|), with the sign that whole exponents give; x⁰ = 1ˣ = 1 whatever x is."""
    dtype = common_type(base, exponent)
    wide = torch.promote_types(dtype, torch.float32)
    base, exponent = base.to(wide), exponent.to(wide)
    size = torch.exp(exponent * torch.log(base.abs())).masked_fill((exponent == 0) | (base == 1), 1.0)
    whole, even = exponent == exponent.floor(), exponent * 0.5 == (exponent * 0.5).floor()
    signed = torch.where(torch.signbit(base) & whole & ~even, -size, size)
    return signed.masked_fill((base < 0) & base.isfinite() & ~whole, torch.nan).to(dtype)


def polar(input: Tensor, angle: Tensor) -> Tensor:
    return torch.complex(input * torch.cos(angle), input * torch.sin(angle))


def expm1(input: Tensor) -> Tensor:
    return rounded_once(input, lambda x: torch.exp(x) - 1)


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Any:
    """max(x) - max(log_softmax(x)): a logarithm of a softmax is x less this."""
    if not isinstance(dim, int):
        if len(dim) != 1:
            return NotImplemented
        (dim,) = dim
    largest = input.amax(dim, keepdim=keepdim)
    return torch.where(largest.isinf(), largest, largest - torch.log_softmax(input, dim).amax(dim, keepdim=keepdim))


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    return torch.nn.functional.softmax(-input, dim, dtype=dtype)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, alpha·(eˣ - 1) below."""
    return _joined(input, rounded_once(input.clamp(max=0), lambda x: (torch.exp(x) - 1) * alpha), inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    below = rounded_once(input.clamp(max=0), lambda x: (torch.exp(x * (1 / alpha)) - 1) * alpha)
    return _joined(input, below, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    output = elu(input, _SELU_ALPHA) * _SELU_SCALE
    return input.copy_(output) if inplace else output


def _joined(input: Tensor, below: Tensor, inplace: bool) -> Tensor:
    output = torch.where(input > 0, input, below)
    return input.copy_(output) if inplace else output


def tanhshrink(input: Tensor) -> Tensor:
    return input - torch.tanh(input)


def softsign(input: Tensor) -> Tensor:
    return torch.div(input, input.abs() + 1)


def erf(input: Tensor) -> Tensor:
    def run(x: Tensor) -> Tensor:
        x = x.clamp(-_ERF_END, _ERF_END)
        factor, squared = torch.full_like(x, _ERF[-1]), x * x
        for coefficient in reversed(_ERF[:-1]):
            factor = factor * squared + coefficient
        return torch.tanh(x * factor)

    return rounded_once(input, run)


def erfc(input: Tensor) -> Tensor:
    return 1 - torch.erf(input)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    return torch.div(input, torch.linalg.vector_norm(input, p, dim, True).clamp_min(eps))


def cosine_similarity(input: Tensor, other: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    input, other = torch.broadcast_tensors(input, other)
    directions = [torch.nn.functional.normalize(x, 2.0, dim, eps) for x in (input, other)]
    return (directions[0] * directions[1]).sum(dim)


def variance(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
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
    return torch.sqrt(torch.var(*args, **kwargs))


def batch_norm(input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`F.batch_norm`, or `torch.batch_norm`, which has another order and no defaults.

    With running statistics a channel is scaled and shifted; only the root in the scale is no synaptic weight.
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
    """Forward substitution, row by row: matrix products, and quotients by the diagonal."""
    matrix, right = A, B
    if not left:  # X·A = B is Aᵀ·Xᵀ = Bᵀ
        return solve_triangular(matrix.mT, right.mT, upper=not upper, unitriangular=unitriangular).mT
    if upper:  # backwards is forwards, upside down
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
