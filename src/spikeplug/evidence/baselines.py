"""Compute the baselines: methods to compare with, and the published method in float, each from its formula.

All functions take and return float64; vectors lie along the last dimension.
Where a source leaves a choice open ("Left open by the source: ..."), the text says which was made.
None runs in integers: a baseline shows what a formula loses, not what an implementation adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeplug.evidence.subjects import EPS

# --- The published recipe in float: Yuan et al., ICML 2026, arXiv 2605.20289 ---


def published_exp(x: Tensor, half_range: float = 5.0, segments: int = 64) -> Tensor:
    """Return exp(x), float64, with exp replaced by `segments` equal chords on [-half_range, half_range].

    Below that range the result is 0; above it, exp(half_range).
    """
    width = 2 * half_range / segments
    left = ((x + half_range) / width).floor().clamp(0, segments - 1) * width - half_range
    chord = left.exp() * (1 + math.expm1(width) / width * (x - left))
    return torch.where(x < -half_range, 0.0, torch.where(x > half_range, math.exp(half_range), chord))


def floored(y: Tensor, bits: int = 8) -> Tensor:
    """Return y rounded towards zero to multiples of 2^-bits: the step of an output that 2^bits spike levels carry."""
    return (y * 2.0**bits).trunc() * 2.0**-bits


def published_softmax(x: Tensor, half_range: float = 5.0, *, subtract: bool = True) -> Tensor:
    """Return softmax over the last dimension with `published_exp`, the exponential by chords, in place of exp.

    half_range  the chords cover [-half_range, half_range]
    subtract    True: subtract each vector's maximum first; False: take exp of x itself
    """
    weight = published_exp(x - x.amax(-1, keepdim=True) if subtract else x, half_range)
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-300)


def published_silu(x: Tensor, half_range: float = 5.0) -> Tensor:
    """Return x / (1 + e), where e is exp(-x) by 64 equal chords on [-half_range, half_range] (`published_exp`)."""
    return x / (1 + published_exp(-x, half_range))


def polar_norm(x: Tensor, iterations: int = 8) -> Tensor:
    """Return the Euclidean length ‖x‖ along the last dimension, which becomes 1.

    The magnitudes are sorted, then merged in pairs in a binary tree. Each merge replaces (a, b) by sqrt(a² + b²),
    computed by `iterations` CORDIC rotations.
    """
    level = x.abs().sort(-1, descending=True).values
    gain = math.prod(math.sqrt(1 + 4.0**-k) for k in range(iterations))
    while level.shape[-1] > 1:
        level = torch.nn.functional.pad(level, (0, level.shape[-1] % 2))
        a, b = level[..., 0::2], level[..., 1::2]
        for k in range(iterations):
            sign = torch.where(b >= 0, 1.0, -1.0)
            a, b = a + sign * b * 2.0**-k, b - sign * a * 2.0**-k
        level = a / gain
    return level


def published_rms_norm(x: Tensor, iterations: int = 8, *, eps: float = EPS) -> Tensor:
    """Return RMSNorm by `polar_norm`, the CORDIC length: x·sqrt(d) / ‖[x, sqrt(eps·d)]‖, d the length of a vector.

    The appended element brings eps under the root. With eps = 0 nothing is appended.
    iterations  CORDIC rotations per merge
    """
    root = math.sqrt(x.shape[-1])
    extended = torch.nn.functional.pad(x, (0, 1), value=math.sqrt(eps) * root) if eps else x
    return x * root / polar_norm(extended, iterations).clamp(min=1e-300)


# --- Exponentials and sigmoids ---


def pade_exp(x: Tensor) -> Tensor:
    """Return exp of x <= 0 by the [3/3] Padé approximant at 0 of exp(x/8), to the 8th power.

    Source: Baker, Graves-Morris, 1996.
    Left open by the source: the order and the range reduction.
    """
    y = x.clamp(min=-40) / 8
    even, odd = 120 + 12 * y * y, y * (60 + y * y)
    return ((even + odd) / (even - odd)).clamp(min=0) ** 8


def pade_softmax(x: Tensor) -> Tensor:
    """Return softmax over the last dimension, with exp replaced by a Padé approximant (`pade_exp`)."""
    weight = pade_exp(x - x.amax(-1, keepdim=True))
    return weight / weight.sum(-1, keepdim=True)


def pade_silu(x: Tensor) -> Tensor:
    """Return x·(1 + tanh(u))/2, u = x/2, with tanh replaced by its [3/2] Padé approximant.

    The approximant is u(15 + u²)/(15 + 6u²), clamped to [-1, 1].
    """
    u = (x / 2).clamp(-40, 40)
    return x * (1 + (u * (15 + u * u) / (15 + 6 * u * u)).clamp(-1, 1)) / 2


def pwl_silu(x: Tensor) -> Tensor:
    """Return SiLU, x·σ(x), with the sigmoid σ replaced by PLAN: linear pieces with power-of-two slopes.

    Source: Amin, Curtis, Hayes-Gill, IEE Proc. Circuits Devices Syst. 144(6), 1997.
    """
    a = x.abs()
    y = torch.where(a < 1, a / 4 + 0.5, torch.where(a < 2.375, a / 8 + 0.625, a / 32 + 0.84375)).clamp(max=1)
    return x * torch.where(x < 0, 1 - y, y)


# --- Softmax without exp ---


def hardmax(x: Tensor) -> Tensor:
    """Return 1 at the largest element of each vector and 0 elsewhere; k equal largest elements get 1/k each."""
    top = (x == x.amax(-1, keepdim=True)).to(x.dtype)
    return top / top.sum(-1, keepdim=True)


def sorbet_softmax(x: Tensor) -> Tensor:
    """Return softmax with powers of two: w / 2^ceil(log2 Σw), where w = 2^floor(x - max) and Σ runs over the vector.

    Source: Tang et al., Sorbet, ICML 2025 (arXiv 2409.15298).
    Left open by the source: x is not multiplied by log2(e) to turn e^x into 2^x, as its training absorbs the factor;
    the divisor rounds up.
    """
    weight: Tensor = torch.exp2((x - x.amax(-1, keepdim=True)).floor())
    return weight / torch.exp2(weight.sum(-1, keepdim=True).log2().ceil())


# --- RMSNorm without a root ---


def sorbet_norm(x: Tensor) -> Tensor:
    """Return x / 2^round(log2 rms), rms the root mean square of the vector: a norm that needs only a bit shift.

    Source: Tang et al., Sorbet, ICML 2025.
    Left open by the source: rounding is to nearest.
    """
    return x / torch.exp2((x.square().mean(-1, keepdim=True) + EPS).sqrt().log2().round())


def blockwise_rms_norm(x: Tensor, block: int) -> Tensor:
    """Return RMSNorm by blocks: each element over the root mean square of its block of `block` consecutive channels.

    The last block may be shorter. Tables show block = 32 and 64.
    """
    pad = -x.shape[-1] % block
    blocks = torch.nn.functional.pad(x, (0, pad)).unflatten(-1, (-1, block))
    count = torch.nn.functional.pad(torch.ones_like(x), (0, pad)).unflatten(-1, (-1, block)).sum(-1, keepdim=True)
    normed: Tensor = blocks / (blocks.square().sum(-1, keepdim=True) / count + EPS).sqrt()
    return normed.flatten(-2)[..., : x.shape[-1]]


# --- I-BERT: Kim et al., ICML 2021 (arXiv 2101.01321), the polynomials and the iteration in real numbers ---


def i_exp(x: Tensor) -> Tensor:
    """Return exp(x) for x <= 0, by a second-degree polynomial and a power of two.

    x is split as p - z·ln 2, with an integer z >= 0 and p in (-ln 2, 0].
    The result is 2^-z·(0.3585(p + 1.353)² + 0.344).
    """
    z = (-x / math.log(2)).floor()
    p = x + z * math.log(2)
    return (0.3585 * (p + 1.353) ** 2 + 0.344) * torch.exp2(-z)


def i_softmax(x: Tensor) -> Tensor:
    """Return softmax over the last dimension, with exp replaced by I-BERT's polynomial (`i_exp`)."""
    weight = i_exp(x - x.amax(-1, keepdim=True))
    return weight / weight.sum(-1, keepdim=True)


def i_gelu(x: Tensor) -> Tensor:
    """Return GELU with erf replaced by a polynomial L: x/2·(1 + L(x/sqrt 2)).

    L(u) = sgn(u)·(a(min(|u|, -b) + b)² + 1), with a = -0.2888 and b = -1.769.
    """
    u = x / math.sqrt(2)
    return x / 2 * (1 + u.sign() * (-0.2888 * (u.abs().clamp(max=1.769) - 1.769) ** 2 + 1))


def i_sqrt(n: Tensor, iterations: int = 4) -> Tensor:
    """Return floor(sqrt(n)), or slightly more where the iteration has not converged.

    n           integers below 2^53, held in float64
    iterations  steps of Newton's iteration x <- floor((x + floor(n/x))/2); 4 as published

    The iteration starts at 2^ceil(b/2), b the number of bits of n.
    """
    bits = torch.frexp(n.clamp(min=1)).exponent
    x = torch.exp2(((bits + 1) // 2).to(n.dtype))
    for _ in range(iterations):
        x = torch.minimum(x, ((x + (n / x.clamp(min=1)).floor()) / 2).floor())
    return x * (n > 0)


def i_rms_norm(x: Tensor) -> Tensor:
    """Return x over its root mean square, with the integer root `i_sqrt`.

    The mean square is rounded to multiples of 2^-16, so its root has 8 fraction bits.
    Left open by the source: that step of 2^-16.
    """
    mean = ((x.square().mean(-1, keepdim=True) + EPS) * 2.0**16).round()
    return x * 2.0**8 / i_sqrt(mean).clamp(min=1)


# --- Output quantisers: the exact operator, then few levels ---


def xnor(y: Tensor) -> Tensor:
    """Return sgn(y)·mean|y|: every element gets the mean magnitude of its vector, with its own sign.

    Source: Rastegari et al., XNOR-Net, ECCV 2016.
    Left open by the source: the tensor to quantise; here the outputs.
    """
    return y.sign() * y.abs().mean(-1, keepdim=True)


def dorefa(y: Tensor, bits: int = 4) -> Tensor:
    """Return y with magnitudes rounded to multiples of y_max / (2^bits - 1), y_max the largest |y| of the vector.

    Source: Zhou et al., DoReFa-Net, 2016 (arXiv 1606.06160).
    Left open by the source: the range, here [-y_max, y_max].
    The steps lie in [0, y_max] for either sign, as two populations carry them.
    """
    top, levels = y.abs().amax(-1, keepdim=True).clamp(min=1e-300), 2**bits - 1
    quantised: Tensor = (y / top * levels).round() / levels * top
    return quantised


@dataclass(frozen=True)
class Baseline:
    """Hold one baseline: a float function that approximates an operator of one input.

    name         shown in tables
    operator     name of the operator it is compared with
    approximate  the function, float64 to float64
    of_output    True if `approximate` takes the operator's exact output; False if it takes the operator's input
    """

    name: str
    operator: str
    approximate: Callable[[Tensor], Tensor]
    of_output: bool = False


BASELINES = (
    Baseline("published, float", "softmax", published_softmax),
    Baseline("published, float, 8-bit floor", "softmax", lambda x: floored(published_softmax(x))),
    Baseline("published, float, H = 10, 8-bit floor", "softmax", lambda x: floored(published_softmax(x, 10.0))),
    Baseline("Padé", "softmax", pade_softmax),
    Baseline("hardmax", "softmax", hardmax),
    Baseline("Sorbet power-of-two", "softmax", sorbet_softmax),
    Baseline("I-BERT i-exp", "softmax", i_softmax),
    Baseline("published, float", "silu", published_silu),
    Baseline("published, float, 8-bit floor", "silu", lambda x: floored(published_silu(x))),
    Baseline("Padé", "silu", pade_silu),
    Baseline("PWL sigmoid (PLAN)", "silu", pwl_silu),
    Baseline("I-BERT i-gelu", "gelu", i_gelu),
    Baseline("published, float", "rms_norm", published_rms_norm),
    Baseline("published, float, 8-bit floor", "rms_norm", lambda x: floored(published_rms_norm(x))),
    Baseline("Sorbet bit shift", "rms_norm", sorbet_norm),
    Baseline("blockwise 32", "rms_norm", lambda x: blockwise_rms_norm(x, 32)),
    Baseline("blockwise 64", "rms_norm", lambda x: blockwise_rms_norm(x, 64)),
    Baseline("I-BERT i-sqrt", "rms_norm", i_rms_norm),
    *(
        Baseline(name, operator, function, of_output=True)
        for operator in ("softmax", "silu", "rms_norm")
        for name, function in (("XNOR of the output", xnor), ("DoReFa 4 bit of the output", dorefa))
    ),
)
