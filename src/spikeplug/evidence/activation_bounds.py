"""Our proven bounds of the activations: |spiking - exact| <= bound(x), elementwise, for any numerics.

Proofs: operators/README.md for the shift exponential with scales of the vector's own, docs/ops.md for the other forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spikeplug.evidence.parts import falling_error, output_rounding, relative, weight_error
from spikeplug.numerics import Numerics

#: Without shift_scaling, inputs are fixed-point numbers up to 2^10. Nothing is promised of what saturates there.
_FIXED_RANGE = 1024.0


def _coding(x: Tensor, numerics: Numerics) -> Tensor:
    """Half a step of a fixed-point input."""
    half = torch.full_like(x, 2.0 ** -(numerics.fraction_bits + 1))
    return half.masked_fill(x.abs() >= _FIXED_RANGE, math.inf)


def _gated(
    x: Tensor, numerics: Numerics, exponent: Callable[[Tensor], Tensor], exact: Tensor, *, curved: bool = False
) -> Tensor:
    """x·σ(g): |x|·(error of σ) + the input's coding + the output's rounding."""
    unit, share = 2.0**-numerics.working_bits, torch.sigmoid(exponent(x))
    slope = 2.0 ** -(numerics.fraction_bits + 2) if curved else 0.0  # the step of a curved input, slope at most 0.4
    if numerics.exponential == "shift":
        share_error = share * (1 - share) * relative(weight_error(numerics, curved=curved)) + slope + unit
    else:
        share_error = published_share_error(exponent(x), numerics, curved=curved) + slope + unit
    if not numerics.shift_scaling:
        return x.abs() * share_error + _coding(x, numerics) * (share + share_error) + output_rounding(exact, numerics)
    error = x.abs() * share_error + x.abs().amax(-1, keepdim=True) * 4 * unit
    # By chords, 1 + t reaches 1 + exp(H): the step is then that of the largest |x|, however small the outputs.
    rounded = output_rounding(exact if numerics.exponential == "shift" else x, numerics)
    return error * (1 + 2.0 ** (1 - numerics.bits)) + rounded


def published_share_error(g: Tensor, numerics: Numerics, *, curved: bool = False) -> Tensor:
    """Of 1/(1 + t), t = exp(-g) by chords on [-H, H], 0 and exp(H) outside: with |t̂ - t| <= D, D/((1+t)·(1+t-D))."""
    share = torch.sigmoid(g)
    lost = falling_error(g, numerics, numerics.half_range, curved=curved)
    t = (-g).clamp(max=numerics.half_range + 1).exp()
    inside = lost.absolute / ((1 + t) * (1 + t - lost.absolute).clamp(min=1e-300))
    saturated = torch.sigmoid(torch.tensor(-numerics.half_range, dtype=g.dtype)) * (1 + 2.0**-15)
    return torch.where(lost.above, torch.maximum(inside * lost.near, (saturated - share).abs()), inside)


def gelu_exponent(x: Tensor) -> Tensor:
    """ln(Φ(x) / Φ(-x)), by log-erfc of both sides, finite everywhere."""
    exponent: Tensor = torch.special.log_ndtr(x) - torch.special.log_ndtr(-x)
    return exponent


def silu(x: Tensor, *, numerics: Numerics) -> Tensor:
    return _gated(x, numerics, lambda x: x, torch.nn.functional.silu(x))


def gelu(x: Tensor, *, numerics: Numerics) -> Tensor:
    return _gated(x, numerics, gelu_exponent, torch.nn.functional.gelu(x), curved=True)


def sigmoid(x: Tensor, *, numerics: Numerics) -> Tensor:
    """σ' · ε + 2^(1-P), then the output's rounding; the published form as in `published_share_error`."""
    y, unit = torch.sigmoid(x), 2.0**-numerics.working_bits
    if numerics.exponential == "shift":
        error = y * (1 - y) * relative(weight_error(numerics)) + 2 * unit
    else:
        error = published_share_error(x, numerics) + unit
    return error * (1 + 2.0 ** (1 - numerics.bits)) + output_rounding(y, numerics)


def tanh(x: Tensor, *, numerics: Numerics) -> Tensor:
    """(1 - t)/(1 + t) moves by 2D/((1+t)(1+t-D)) with t by D."""
    y, unit = torch.tanh(x), 2.0**-numerics.working_bits
    if numerics.exponential == "shift":
        error = (1 - y * y) / 2 * relative(weight_error(numerics, fine=True)) + 4 * unit
    else:
        t, lost = (-2 * x.abs()).exp(), falling_error(2 * x.abs(), numerics, numerics.half_range).absolute
        error = 2 * lost / ((1 + t) * (1 + t - lost).clamp(min=1e-300)) + 4 * unit
    return error * (1 + 2.0 ** (1 - numerics.bits)) + output_rounding(y, numerics)


def mish(x: Tensor, *, numerics: Numerics) -> Tensor:
    """The factor moves by at most 0.323 times a relative error of t, and by at most 1 times an absolute one."""
    y, unit = torch.nn.functional.mish(x), 2.0**-numerics.working_bits
    if numerics.exponential == "shift":
        factor = torch.full_like(x, relative(weight_error(numerics)) / 3) + 4 * unit
    else:
        factor = falling_error(x.abs(), numerics, numerics.half_range).absolute + 4 * unit
    if not numerics.shift_scaling:
        return x.abs() * factor + _coding(x, numerics) * (1 + factor) + output_rounding(y, numerics)
    error = x.abs() * factor + x.abs().amax(-1, keepdim=True) * 8 * unit
    return error * (1 + 2.0 ** (1 - numerics.bits)) + output_rounding(y, numerics, 2.5)


def softplus(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Two trains, max(x, 0) and ln(1 + t), each with its own rounding; beta 1, threshold 20."""
    unit, lsb = 2.0**-numerics.working_bits, 2.0**-numerics.bits
    if numerics.exponential == "shift":
        logarithm = torch.sigmoid(-x.abs()) * relative(weight_error(numerics))
    else:
        t, lost = (-x.abs()).exp(), falling_error(x.abs(), numerics, numerics.half_range).absolute
        logarithm = lost / (1 + t - lost).clamp(min=1e-300)
    logarithm = logarithm + 4 * unit
    if numerics.shift_scaling:
        top = x.abs().amax(-1, keepdim=True) * 2 * unit + x.clamp(min=0).amax(-1, keepdim=True) * lsb
        error = (logarithm + lsb + top) * (1 + 2.0 ** (1 - numerics.bits))
    else:
        table = 1 / (8 * 4.0 ** math.ceil(numerics.bits / 2))
        error = logarithm + table + (1 + math.log(2)) * lsb + _coding(x, numerics)
    return error + torch.where(x > 20, (-x).exp(), 0.0)  # F.softplus itself is linear there


def relu_squared(x: Tensor, *, numerics: Numerics) -> Tensor:
    """2x·c + c², c the coding of x, then the output's rounding."""
    positive = x.clamp(min=0)
    if numerics.shift_scaling:
        code = x.abs().amax(-1, keepdim=True) * 2.0 ** (1 - numerics.working_bits)
    else:
        code = _coding(x, numerics)
    y = positive.square()
    return (2 * positive * code + code * code) * (1 + 2.0 ** (1 - numerics.bits)) + output_rounding(y, numerics, 1.0)
