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


def float_power(input: Any, exponent: Any) -> Any:
    """Return input^exponent in float64."""
    input, exponent = (x.double() if isinstance(x, Tensor) else x for x in (input, exponent))
    return power(input, exponent)


def raw_softmax(input: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """Return softmax(x), with the arguments of `torch._softmax`."""
    return torch.softmax(input, dim, torch.float32 if half_to_float else None)


def raw_log_softmax(input: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """Return log_softmax(x), with the arguments of `torch._log_softmax`."""
    return torch.log_softmax(input, dim, torch.float32 if half_to_float else None)


def gumbel_softmax(input: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """Return softmax((x + g) / tau), g the noise that torch draws; one-hot if `hard`, with the gradient of the soft."""
    noise = -torch.log(torch.empty_like(input).exponential_())
    soft = torch.softmax((input + noise) / tau, dim)
    if not hard:
        return soft
    chosen = torch.zeros_like(input).scatter_(dim, soft.argmax(dim, keepdim=True), 1.0)
    return chosen - soft.detach() + soft


def distance(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    """Return ‖x - y‖_p over all elements."""
    length: Tensor = torch.linalg.vector_norm(input - other, p)
    return length


def pairwise_distance(input: Tensor, other: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """Return ‖x - y + eps‖_p over the last dimension."""
    length: Tensor = torch.linalg.vector_norm(input - other + eps, p, -1, keepdim)
    return length


def cdist(input: Tensor, other: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """Return ‖x_i - y_j‖_p; (..., P, M) and (..., R, M) give (..., P, R)."""
    length: Tensor = torch.linalg.vector_norm(input[..., :, None, :] - other[..., None, :, :], p, -1)
    return length


def variance_and_mean(input: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Return the variance and the mean, with the arguments of `torch.var_mean`."""
    return torch.var(input, dim, *args, **kwargs), _mean(input, dim, *args, **kwargs)


def deviation_and_mean(input: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Return the standard deviation and the mean, with the arguments of `torch.std_mean`."""
    return torch.std(input, dim, *args, **kwargs), _mean(input, dim, *args, **kwargs)


def _mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    return input.mean(None if isinstance(dim, bool) else dim, keepdim)


def _reduced(loss: Tensor, reduction: Any, size_average: Any = None, reduce: Any = None) -> Tensor:
    """Return what torch's losses return for a reduction: a name, or an integer in torch's ops.

    size_average, reduce  the two arguments that it replaced; where ops have the integer
    """
    for given in (size_average, reduce):
        reduction = given if type(given) is int else reduction
    if isinstance(size_average, bool) or isinstance(reduce, bool):
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    if reduction in ("none", 0):
        return loss
    return loss.mean() if reduction in ("mean", 1) else loss.sum()


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    weight: Any = None,
) -> Any:
    """Return the mean of (x - target)²; NotImplemented with weights."""
    if weight is not None:
        return NotImplemented
    return _reduced(torch.square(input - target), reduction, size_average, reduce)


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Return -target·ln x - (1 - target)·ln(1 - x), each logarithm at least -100 as in torch."""
    loss = -target * torch.log(input).clamp_min(-100) - (1 - target) * torch.log(1 - input).clamp_min(-100)
    return _reduced(loss if weight is None else loss * weight, reduction, size_average, reduce)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
) -> Tensor:
    """Return (1 - target)·x + ln(1 + exp(-x)), the second term weighted for positive targets."""
    if isinstance(size_average, Tensor):  # torch's own function has no size_average
        pos_weight, size_average = size_average, None
    rest = torch.nn.functional.softplus(-input)
    rest = rest if pos_weight is None else rest * (1 + (pos_weight - 1) * target)
    loss = (1 - target) * input + rest
    return _reduced(loss if weight is None else loss * weight, reduction, size_average, reduce)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Return target·(ln target - x), x being logarithms; 0 where the target is 0."""
    if log_target:
        loss = torch.exp(target) * (target - input)
    else:
        loss = target * (torch.log(target.clamp_min(torch.finfo(target.dtype).tiny)) - input)
    if reduction == "batchmean":
        return loss.sum() / input.shape[0]
    return _reduced(loss, reduction, size_average, reduce)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return -ln softmax(x) at the target, which is a class or the probability of each class."""
    dim = 1 if input.dim() > 1 else 0
    logs, classes = torch.log_softmax(input, dim), input.shape[dim]
    nll, legacy = torch.nn.functional.nll_loss, {"size_average": size_average, "reduce": reduce}
    if not target.is_floating_point():
        if not label_smoothing:
            return nll(logs, target, weight, ignore_index=ignore_index, reduction=reduction, **legacy)
        # The smooth part is that of a class of its own: its logarithm is the mean, weighted.
        scaled = logs if weight is None else logs * _along(weight, logs, dim)
        smooth = -scaled.sum(dim).masked_fill(target == ignore_index, 0.0)
        each = nll(logs, target, weight, ignore_index=ignore_index, reduction="none")
        loss = (1 - label_smoothing) * each + label_smoothing / classes * smooth
        if reduction != "mean" or any(value is not None for value in legacy.values()):
            return _reduced(loss, reduction, **legacy)
        counted = target != ignore_index
        total = counted.sum() if weight is None else weight[target.clamp_min(0)].masked_fill(~counted, 0.0).sum()
        return torch.div(loss.sum(), total.to(loss.dtype))
    target = target * (1 - label_smoothing) + label_smoothing / classes
    logs = logs if weight is None else logs * _along(weight, logs, dim)
    loss = -(logs * target).sum(dim)
    return _reduced(loss.mean() if loss.dim() and reduction == "mean" else loss, reduction, **legacy)


def _along(weight: Tensor, values: Tensor, dim: int) -> Tensor:
    """Return the weight of each class, broadcastable to the values."""
    return weight.view(-1, *[1] * (values.dim() - dim - 1))
