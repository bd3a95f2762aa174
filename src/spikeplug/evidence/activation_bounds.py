"""Our proven bounds of the activations: |spiking - exact| <= bound(x), elementwise, for any config.

Proofs: operators/README.md for the shift exponential with scales of the vector's own, docs/ops.md for the other forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spikeplug.config import SpikeConfig
from spikeplug.evidence.parts import falling_error, output_rounding, relative, weight_error

#: Without shift_scaling, inputs are fixed-point numbers up to 2^10. Nothing is promised of what saturates there.
_FIXED_RANGE = 1024.0


def _coding(x: Tensor, config: SpikeConfig) -> Tensor:
    """Half a step of a fixed-point input."""
    half = torch.full_like(x, 2.0 ** -(config.fraction_bits + 1))
    return half.masked_fill(x.abs() >= _FIXED_RANGE, math.inf)


def _gated(
    x: Tensor, config: SpikeConfig, exponent: Callable[[Tensor], Tensor], exact: Tensor, *, curved: bool = False
) -> Tensor:
    """x·σ(g): |x|·(error of σ) + the input's coding + the output's rounding."""
    unit, share = 2.0**-config.working_bits, torch.sigmoid(exponent(x))
    slope = 2.0 ** -(config.fraction_bits + 2) if curved else 0.0  # the step of a curved input, slope at most 0.4
    if config.exponential == "shift":
        share_error = share * (1 - share) * relative(weight_error(config, curved=curved)) + slope + unit
    else:
        share_error = published_share_error(exponent(x), config, curved=curved) + slope + unit
    if not config.shift_scaling:
        return x.abs() * share_error + _coding(x, config) * (share + share_error) + output_rounding(exact, config)
    error = x.abs() * share_error + x.abs().amax(-1, keepdim=True) * 4 * unit
    # By chords, 1 + t reaches 1 + exp(H): the step is then that of the largest |x|, however small the outputs.
    rounded = output_rounding(exact if config.exponential == "shift" else x, config)
    return error * (1 + 2.0 ** (1 - config.bits)) + rounded


def published_share_error(g: Tensor, config: SpikeConfig, *, curved: bool = False) -> Tensor:
    """Of 1/(1 + t), t = exp(-g) by chords on [-H, H], 0 and exp(H) outside: with |t̂ - t| <= D, D/((1+t)·(1+t-D))."""
    share = torch.sigmoid(g)
    lost = falling_error(g, config, config.half_range, curved=curved)
    t = (-g).clamp(max=config.half_range + 1).exp()
    inside = lost.absolute / ((1 + t) * (1 + t - lost.absolute).clamp(min=1e-300))
    saturated = torch.sigmoid(torch.tensor(-config.half_range, dtype=g.dtype)) * (1 + 2.0**-15)
    return torch.where(lost.above, torch.maximum(inside * lost.near, (saturated - share).abs()), inside)


def gelu_exponent(x: Tensor) -> Tensor:
    """ln(Φ(x) / Φ(-x)), by log-erfc of both sides, finite everywhere."""
    exponent: Tensor = torch.special.log_ndtr(x) - torch.special.log_ndtr(-x)
    return exponent


def silu(x: Tensor, *, config: SpikeConfig) -> Tensor:
    return _gated(x, config, lambda x: x, torch.nn.functional.silu(x))


def gelu(x: Tensor, *, config: SpikeConfig) -> Tensor:
    return _gated(x, config, gelu_exponent, torch.nn.functional.gelu(x), curved=True)


def sigmoid(x: Tensor, *, config: SpikeConfig) -> Tensor:
    """σ' · ε + 2^(1-P), then the output's rounding; the published form as in `published_share_error`."""
    y, unit = torch.sigmoid(x), 2.0**-config.working_bits
    if config.exponential == "shift":
        error = y * (1 - y) * relative(weight_error(config)) + 2 * unit
    else:
        error = published_share_error(x, config) + unit
    return error * (1 + 2.0 ** (1 - config.bits)) + output_rounding(y, config)


def tanh(x: Tensor, *, config: SpikeConfig) -> Tensor:
    """(1 - t)/(1 + t) moves by 2D/((1+t)(1+t-D)) with t by D."""
    y, unit = torch.tanh(x), 2.0**-config.working_bits
    if config.exponential == "shift":
        error = (1 - y * y) / 2 * relative(weight_error(config, fine=True)) + 4 * unit
    else:
        t, lost = (-2 * x.abs()).exp(), falling_error(2 * x.abs(), config, config.half_range).absolute
        error = 2 * lost / ((1 + t) * (1 + t - lost).clamp(min=1e-300)) + 4 * unit
    return error * (1 + 2.0 ** (1 - config.bits)) + output_rounding(y, config)


def mish(x: Tensor, *, config: SpikeConfig) -> Tensor:
    """The factor moves by at most 0.323 times a relative error of t, and by at most 1 times an absolute one."""
    y, unit = torch.nn.functional.mish(x), 2.0**-config.working_bits
    if config.exponential == "shift":
        factor = torch.full_like(x, relative(weight_error(config)) / 3) + 4 * unit
    else:
        factor = falling_error(x.abs(), config, config.half_range).absolute + 4 * unit
    if not config.shift_scaling:
        return x.abs() * factor + _coding(x, config) * (1 + factor) + output_rounding(y, config)
    error = x.abs() * factor + x.abs().amax(-1, keepdim=True) * 8 * unit
    return error * (1 + 2.0 ** (1 - config.bits)) + output_rounding(y, config, 2.5)


def softplus(x: Tensor, *, config: SpikeConfig) -> Tensor:
    """Two trains, max(x, 0) and ln(1 + t), each with its own rounding; beta 1, threshold 20."""
    unit, lsb = 2.0**-config.working_bits, 2.0**-config.bits
    if config.exponential == "shift":
        logarithm = torch.sigmoid(-x.abs()) * relative(weight_error(config))
    else:
        t, lost = (-x.abs()).exp(), falling_error(x.abs(), config, config.half_range).absolute
        logarithm = lost / (1 + t - lost).clamp(min=1e-300)
    logarithm = logarithm + 4 * unit
    if config.shift_scaling:
        top = x.abs().amax(-1, keepdim=True) * 2 * unit + x.clamp(min=0).amax(-1, keepdim=True) * lsb
        error = (logarithm + lsb + top) * (1 + 2.0 ** (1 - config.bits))
    else:
        table = 1 / (8 * 4.0 ** math.ceil(config.bits / 2))
        error = logarithm + table + (1 + math.log(2)) * lsb + _coding(x, config)
    return error + torch.where(x > 20, (-x).exp(), 0.0)  # F.softplus itself is linear there


def relu_squared(x: Tensor, *, config: SpikeConfig) -> Tensor:
    """2x·c + c², c the coding of x, then the output's rounding."""
    positive = x.clamp(min=0)
    if config.shift_scaling:
        code = x.abs().amax(-1, keepdim=True) * 2.0 ** (1 - config.working_bits)
    else:
        code = _coding(x, config)
    y = positive.square()
    return (2 * positive * code + code * code) * (1 + 2.0 ** (1 - config.bits)) + output_rounding(y, config, 1.0)
