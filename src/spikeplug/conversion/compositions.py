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
    """Return the dtype that torch gives the sum of two tensors, at least one of them floating.

    It is that of `torch.result_type`, which torch.compile does not know.
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
    """Return exp(input) - 1, computed in float32 at least and rounded to the input's dtype only at the end."""
    return rounded_once(input, lambda x: torch.exp(x) - 1)


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Any:
    """Return ln(sum(exp(input))) over one dimension, computed as max(input) - max(log_softmax(input)).

    NotImplemented for several dimensions.
    """
    if not isinstance(dim, int):
        if len(dim) != 1:
            return NotImplemented
        (dim,) = dim
    largest = input.amax(dim, keepdim=keepdim)
    return torch.where(largest.isinf(), largest, largest - torch.log_softmax(input, dim).amax(dim, keepdim=keepdim))


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """Return softmax(-input) over `dim`. `_stacklevel` has no effect."""
    return torch.nn.functional.softmax(-input, dim, dtype=dtype)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Return, elementwise, x where the input x is above 0, and alpha·(exp(x) - 1) elsewhere."""
    return _joined(input, rounded_once(input.clamp(max=0), lambda x: (torch.exp(x) - 1) * alpha), inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """Return, elementwise, x where the input x is above 0, and alpha·(exp(x/alpha) - 1) elsewhere."""
    below = rounded_once(input.clamp(max=0), lambda x: (torch.exp(x * (1 / alpha)) - 1) * alpha)
    return _joined(input, below, inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return 1.0507·elu(input, alpha=1.6733): torch's selu, with its two constants."""
    output = elu(input, _SELU_ALPHA) * _SELU_SCALE
    return input.copy_(output) if inplace else output


def _joined(input: Tensor, below: Tensor, inplace: bool) -> Tensor:
    output = torch.where(input > 0, input, below)
    return input.copy_(output) if inplace else output


def tanhshrink(input: Tensor) -> Tensor:
    """Return input - tanh(input)."""
    return input - torch.tanh(input)


def softsign(input: Tensor) -> Tensor:
    """Return input / (1 + |input|)."""
    return torch.div(input, input.abs() + 1)


def erf(input: Tensor) -> Tensor:
    """Return erf(input), elementwise, computed as tanh(x·q(x²)) with a polynomial q fitted to the error function.

    The formula is off by at most 3e-6.
    """

    def run(x: Tensor) -> Tensor:
        x = x.clamp(-_ERF_END, _ERF_END)
        factor, squared = torch.full_like(x, _ERF[-1]), x * x
        for coefficient in reversed(_ERF[:-1]):
            factor = factor * squared + coefficient
        return torch.tanh(x * factor)

    return rounded_once(input, run)


def erfc(input: Tensor) -> Tensor:
    """Return 1 - erf(input)."""
    return 1 - torch.erf(input)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Return input / max(‖input‖_p, eps), with the p-norm taken along `dim`."""
    return torch.div(input, torch.linalg.vector_norm(input, p, dim, True).clamp_min(eps))


def cosine_similarity(input: Tensor, other: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Return the dot product along `dim` of both inputs, each first divided by its length (at least `eps`)."""
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
    """Return the batch norm of the input by its running statistics, as in evaluation: (input - mean) / std per channel.

    args, kwargs  the other arguments of `F.batch_norm`, or of `torch.batch_norm`, which has another order of them

    Each channel is scaled and shifted by constants. Only the reciprocal root of the variance takes a spiking operator.
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
    """Return the solution X of A·X = B with a triangular A, with the arguments of `torch.linalg.solve_triangular`.

    It substitutes row by row. This takes matrix products, and the reciprocals of A's diagonal.
    """
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
    """Return softmax(input), with the arguments of `torch._softmax`; in float32 if `half_to_float`."""
    return torch.softmax(input, dim, torch.float32 if half_to_float else None)


def raw_log_softmax(input: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """Return log_softmax(input), with the arguments of `torch._log_softmax`; in float32 if `half_to_float`."""
    return torch.log_softmax(input, dim, torch.float32 if half_to_float else None)


def gumbel_softmax(input: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """Return softmax((input + noise) / tau) over `dim`, with Gumbel noise drawn by torch's generator.

    If `hard`, returns the one-hot vector of its largest element, with the gradient of the softmax. `eps` has no effect.
    """
    noise = -torch.log(torch.empty_like(input).exponential_())
    soft = torch.softmax((input + noise) / tau, dim)
    if not hard:
        return soft
    chosen = torch.zeros_like(input).scatter_(dim, soft.argmax(dim, keepdim=True), 1.0)
    return chosen - soft.detach() + soft


def distance(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    """Return the p-norm of input - other over all elements: a tensor without dimensions."""
    length: Tensor = torch.linalg.vector_norm(input - other, p)
    return length


def pairwise_distance(input: Tensor, other: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """Return the p-norm of input - other + eps over the last dimension."""
    length: Tensor = torch.linalg.vector_norm(input - other + eps, p, -1, keepdim)
    return length


def cdist(input: Tensor, other: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """Return the p-norm distance of each row of `input` to each row of `other`.

    An input of (..., P, M) and another of (..., R, M) give (..., P, R). `compute_mode` has no effect.
    """
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
    """Return the loss of each element, or their mean or sum, as the arguments of one of torch's losses ask.

    reduction             "none", "mean" or "sum", or the integer 0, 1 or 2 that torch's ops use
    size_average, reduce  torch's older arguments for the same, as bools; an integer here is an op's `reduction`
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
    """Return (input - target)², reduced as `reduction` says: the mean by default. NotImplemented with a `weight`."""
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
    """Return -target·ln(x) - (1 - target)·ln(1 - x) for the input x, times `weight`, reduced as `reduction` says.

    Each logarithm is at least -100, as in torch.
    """
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
    """Return (1 - target)·x + w·ln(1 + exp(-x)) for the input x, times `weight`, reduced as `reduction` says.

    w is 1 + (pos_weight - 1)·target, or 1 without `pos_weight`.
    """
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
    """Return target·(ln(target) - input), reduced as `reduction` says; 0 where the target is 0.

    input   logarithms of probabilities
    target  probabilities, or their logarithms if `log_target`
    """
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
    """Return -ln(softmax(input)) at the target class, with the arguments and reductions of `F.cross_entropy`.

    target  index of a class (integer dtype), or the probability of each class (floating dtype)
    """
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
    """Return `weight`, one number per class, in a shape that broadcasts to `values`, whose classes lie along `dim`."""
    return weight.view(-1, *[1] * (values.dim() - dim - 1))
