"""Activations beside the gates, in integers: tanh, softplus, mish, relu_squared. All of t = exp(-|x|), t <= 1."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
from torch import Tensor

from spikeplug.coding import Coded
from spikeplug.fixedpoint import shift_right
from spikeplug.numerics import Numerics
from spikeplug.operators.blocks import in_blocks
from spikeplug.operators.gates import FIXED_RANGE_BITS, amplitude_bits, falling, scale_of
from spikeplug.operators.logarithm import logarithm_integers
from spikeplug.operators.ratio import Ratio, signed
from spikeplug.operators.scaling import normalise
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.exponential import ShiftExponential


def tanh_fraction_bits(numerics: Numerics) -> int:
    """Fraction bits of tanh's exponent: 4 more than elsewhere (the piecewise table has its own), 16 at most."""
    return min(16, numerics.fraction_bits + 4) if numerics.exponential == "shift" else numerics.fraction_bits


@lru_cache
def _fine(fraction_bits: int, segments: int, width: int) -> ShiftExponential:
    return ShiftExponential(fraction_bits, min(8 * segments, 1 << fraction_bits), width)


def tanh_integers(negative: Tensor, distance: Tensor, numerics: Numerics, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): tanh(x) = ±(1 - t)/(1 + t), t = exp(-2|x|), is q·2^exponent, int64. Odd, to the bit.

    negative: bool, x < 0; distance: 2|x|, `tanh_fraction_bits` fraction bits.
    """
    one = 1 << numerics.working_bits
    fine = None
    if numerics.exponential == "shift":
        fine = _fine(tanh_fraction_bits(numerics), numerics.segments, numerics.working_bits)
    t = falling(distance, "tanh", numerics, on, fine)
    ratio = Ratio("tanh", numerics.working_bits + 1, numerics.working_bits + 2, largest_output=1, per_element=True)
    quotient, exponent = ratio(one - t, one + t, 0, numerics, on)
    return torch.where(negative, -quotient, quotient), exponent


def softplus_integers(
    code: Coded, distance: Tensor, linear: Tensor, numerics: Numerics, on: Arithmetic
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """((q, e), (r, f)): max(x, 0) is q·2^e and log2(1 + exp(-|β·x|)) is r·2^f, int64: two trains into one synapse sum.

    code: x, `encode_amplitude`; distance: |β·x|; linear: bool, where the logarithm is cut off.
    """
    width = numerics.working_bits
    t = falling(distance, "softplus", numerics, on)
    octaves = logarithm_integers(t + (1 << width), -width, 1.0, numerics, on)
    positive = code.mantissa.clamp(min=0).to(torch.int64)
    positive_part = scaled(positive, code.exponent, numerics.fraction_bits, numerics)
    zero = torch.zeros((), dtype=torch.int32, device=octaves.device)
    return positive_part, scaled(octaves.masked_fill(linear, 0), zero - width, width, numerics)


def mish_integers(code: Coded, distance: Tensor, numerics: Numerics, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): x·tanh(ln(1 + exp(x))) is q·2^exponent, int64. code: x, `encode_amplitude`; distance: |x|.

    With t = exp(-|x|): x·(1 + 2t)/(1 + 2t + 2t²) for x >= 0, x·(t² + 2t)/(t² + 2t + 2) for x < 0.
    """
    bits, width = amplitude_bits(numerics), numerics.working_bits
    t = falling(distance, "mish", numerics, on)
    square = on.gate(t, t, width + 1) >> width
    negative = code.mantissa < 0
    factor = torch.where(negative, square, 1 << width) + 2 * t
    half_total = (factor >> 1) + torch.where(negative, 1 << width, square)
    numerator = on.gate(code.mantissa.abs(), factor, bits)
    ratio = Ratio("mish", bits + width + 2, width + 2, 1 << FIXED_RANGE_BITS, per_element=True)
    quotient, exponent = ratio(numerator, half_total, scale_of(code, numerics) - 1, numerics, on)
    return signed(quotient, code.mantissa), exponent


def relu_squared_integers(code: Coded, numerics: Numerics, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): max(x, 0)² is q·2^exponent, int64. code: x, `encode_amplitude`."""
    positive = code.mantissa.clamp(min=0)
    square = on.gate(positive, positive, amplitude_bits(numerics))
    return scaled(square, 2 * code.exponent, 2 * numerics.fraction_bits, numerics)


def scaled(magnitude: Tensor, exponent: Tensor, fraction_bits: int, numerics: Numerics) -> tuple[Tensor, Tensor]:
    """magnitude·2^exponent as (q, exponent) of the output: n bits of each vector, or the fixed step 2^-n, floored.

    magnitude: int64 >= 0. fraction_bits: -exponent of a fixed-point input, which has no finer step than that.
    """
    if numerics.shift_scaling:
        quotient, places = in_blocks(partial(normalise, bits=numerics.bits), numerics.scale_block, magnitude)
        return quotient, exponent + places
    drop = max(0, fraction_bits - numerics.bits)
    return shift_right(magnitude, drop), exponent + drop
