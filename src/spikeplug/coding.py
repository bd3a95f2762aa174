"""Numbers <-> integers <-> spikes.

Real <-> integer: `encode` gives each vector one power-of-two scale, found by the leading one of its largest magnitude;
`encode_octaves` is the fixed-point current of the exponential. Integer <-> spikes: count (rate), phase (binary) and
population codes over T steps with L levels; time is the first dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.saturation import record

_MANTISSA_BITS = {torch.float32: 23, torch.float64: 52}
_BIAS = {torch.float32: 127, torch.float64: 1023}
_INTEGER = {torch.float32: torch.int32, torch.float64: torch.int64}


class Coded(NamedTuple):
    """x = mantissa · 2^exponent (rounded to nearest, even on ties): mantissa int32 of x's shape, exponent int32 with
    the coded dimension kept as 1. `nonfinite` marks the elements that have no code (coded as 0), or is None."""

    mantissa: Tensor
    exponent: Tensor
    nonfinite: Tensor | None


def as_real(x: Tensor, operator: str) -> Tensor:
    """x as float32 or float64, for encoding. Errors: not a tensor, not a floating dtype."""
    if not isinstance(x, Tensor):
        raise SpikeplugError(f"{operator} takes a torch tensor, not a {type(x).__name__}; use torch.as_tensor first.")
    if not x.dtype.is_floating_point:
        raise SpikeplugError(f"{operator} takes a floating-point tensor, not {x.dtype}; call .float() first.")
    return x if x.dtype in _BIAS else x.to(torch.float32)


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """2^exponent, exactly, by writing the exponent field; exponents beyond the normal range take its nearest end."""
    bias = _BIAS[dtype]
    biased = (exponent.to(_INTEGER[dtype]) + bias).clamp(1, 2 * bias)
    return (biased << _MANTISSA_BITS[dtype]).view(dtype)


def encode(x: Tensor, bits: int, *, floor: float = 0.0, twos_complement: bool = False) -> Coded:
    """Code each vector along the last dimension with `bits` bits, sign included: |mantissa| <= 2^(bits-1).

    The scale 2^exponent is the smallest power of two that holds both the largest magnitude and `floor` (a value the
    vector is extended by, such as RMSNorm's sqrt(eps)). |x - mantissa·2^exponent| <= 2^(exponent-1): half an LSB.
    x: float32 or float64. The step is never below 2^-126 (float64: 2^-1022): smaller vectors lose low bits, and
    denormal ones code as 0.

    twos_complement: |mantissa| <= 2^(bits-1) - 1, which is as many bits in memory. What would round to 2^(bits-1) is
    off by less than an LSB, which of a vector's largest magnitude is still less than 2^(1-bits).
    """
    largest = _largest_magnitude(x)
    nonfinite = None
    if not bool(torch.isfinite(largest).all()):
        nonfinite = ~torch.isfinite(x)
        record("input: not finite", nonfinite)
        x = x.masked_fill(nonfinite, 0.0)
        largest = _largest_magnitude(x)
    largest = largest.clamp(min=floor)
    exponent = _scale(largest, bits)
    mantissa = (x * power_of_two(-exponent, x.dtype)).round_()
    if twos_complement:
        most = (1 << (bits - 1)) - 1
        mantissa.clamp_(-most, most)
    return Coded(mantissa.to(torch.int32), exponent, nonfinite)


def encode_for_product(x: Tensor, bits: int) -> Coded:
    """Code each vector along the last dimension so that the inner product of any two such codes fits 2·bits bits.

    The scale is the smallest power of two, from that of `encode` on, for which |mantissa| <= 2^(bits-1) - 1 and
    Σ mantissa² < 2^(2·bits-1). By Cauchy and Schwarz |a·b| < 2^(2·bits-1) then, sign and all in 2·bits bits.
    |x - mantissa·2^exponent| <= 2^(exponent-1). x: float32 or float64, finite.
    """
    exponent = _scale(_largest_magnitude(x), bits)
    most, limit = (1 << (bits - 1)) - 1, 1 << (2 * bits - 1)
    while True:
        mantissa = decode(x, -exponent, x.dtype).round_().to(torch.int32)
        square = mantissa.to(torch.int64).square_().sum(-1, keepdim=True)
        beyond = (_largest_magnitude(mantissa) > most) | (square >= limit)
        if not bool(beyond.any()):
            return Coded(mantissa, exponent, None)
        exponent = exponent + beyond.to(torch.int32)


def received(x: Tensor, bits: int | None) -> Tensor:
    """x as a spike train of `bits` bits and a sign carries it: each vector along the last dimension rounded at its own
    power of two, |error| <= 2^-(bits+1) of that; NaN and infinities as they are. None: x itself.

    `encode` with at least bits + 2 bits loses nothing more. x: float32 or float64; the same is returned.
    """
    if bits is None:
        return x
    finite = torch.isfinite(x)
    exponent = _scale(_largest_magnitude(x.masked_fill(~finite, 0.0)), bits + 1)
    return torch.where(finite, decode((x * power_of_two(-exponent, x.dtype)).round_(), exponent, x.dtype), x)


def _scale(largest: Tensor, bits: int) -> Tensor:
    """The exponent of an LSB, int32, with which `largest` fills bits - 1 bits."""
    exponent = torch.frexp(largest).exponent.to(torch.int32) - (bits - 1)
    # A zero vector has any scale; the lowest is never ahead of another's where scales are compared (attention).
    bias = _BIAS[largest.dtype]
    return exponent.masked_fill(largest == 0, -bias).clamp(1 - bias, bias)


def decode(mantissa: Tensor, exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """mantissa · 2^exponent in float32 or float64; exact while |mantissa| fits the dtype's significand.

    The scale is applied in two halves, so that a result within range is not lost to a scale beyond it.
    """
    half = exponent >> 1
    return mantissa.to(dtype) * power_of_two(half, dtype) * power_of_two(exponent - half, dtype)


def affine(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """x·weight + bias, of decoded numbers: both are part of the synapses of what follows."""
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def encode_fixed(x: Tensor, fraction_bits: int, low: int, high: int) -> Tensor:
    """round(x · 2^fraction_bits) clamped to [low, high], int32; x finite or infinite, float32 or float64."""
    return (x * (1 << fraction_bits)).clamp_(low, high).round_().to(torch.int32)


def _largest_magnitude(x: Tensor) -> Tensor:
    if x.shape[-1] == 0:
        return x.new_zeros((*x.shape[:-1], 1))
    return torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True))


def count_code(values: Tensor, steps: int, levels: int) -> Tensor:
    """Rate code: values in [0, T·L] -> spike counts (T, ...), each at most L, spread as evenly as integers allow.

    Step t sends floor((t+1)·q/T) - floor(t·q/T). Errors: T or L < 1, a value outside [0, T·L].
    """
    _check_positive(steps=steps, levels=levels)
    _check_values(values, steps * levels, f"T·L = {steps * levels}")
    time = torch.arange(steps + 1, device=values.device).view(-1, *[1] * values.dim())
    return (time * values.to(torch.int64) // steps).diff(dim=0)


def count_decode(spikes: Tensor) -> Tensor:
    """Sum over time: the value of a count code."""
    return spikes.sum(0)


def phase_code(values: Tensor, steps: int) -> Tensor:
    """Binary code: values in [0, 2^T) -> bits (T, ...), most significant first. Errors: T < 1, value out of range."""
    return torch.stack([bit.clone() for bit in phases(values, steps)])


def phases(values: Tensor, steps: int, dtype: torch.dtype | None = None) -> Iterator[Tensor]:
    """The steps of `phase_code`, one after the other, in one tensor: each holds until the next is taken.

    dtype: theirs, wide enough for T bits; default: that of the values.
    """
    _check_positive(steps=steps)
    _check_values(values, (1 << steps) - 1, f"2^T - 1 = {(1 << steps) - 1}")
    values = values if dtype is None else values.to(dtype)
    bit = torch.empty_like(values)
    for place in range(steps - 1, -1, -1):
        yield torch.bitwise_right_shift(values, place, out=bit).bitwise_and_(1)


def phase_decode(spikes: Tensor) -> Tensor:
    """v <- 2v + spike over time: the value of a phase code, int64."""
    total = torch.zeros_like(spikes[0], dtype=torch.int64)
    for spike in spikes:
        total = 2 * total + spike
    return total


def population_code(values: Tensor, neurons: int) -> Tensor:
    """Thermometer code: values in [0, N] -> (N, ...) of 0/1, the first `value` neurons firing. Errors: as above."""
    _check_positive(neurons=neurons)
    _check_values(values, neurons, f"N = {neurons}")
    order = torch.arange(1, neurons + 1, device=values.device).view(-1, *[1] * values.dim())
    return (values >= order).to(torch.int64)


def population_decode(spikes: Tensor) -> Tensor:
    """How many neurons fired."""
    return spikes.sum(0)


def _check_positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise SpikeplugError(f"{name} is {count}; it must be at least 1.")


def _check_values(values: Tensor, high: int, name: str) -> None:
    if values.dtype.is_floating_point:
        raise SpikeplugError(f"a spike code carries integers, not {values.dtype}; encode the values first.")
    if values.numel() and (int(values.min()) < 0 or int(values.max()) > high):
        raise SpikeplugError(f"a value lies outside [0, {name}]; use more steps or levels, or saturate first.")
