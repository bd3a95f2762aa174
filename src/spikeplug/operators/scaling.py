"""Output scales: a power of two of the vector's own, or a fixed step."""

from __future__ import annotations

from torch import Tensor

from spikeplug.fixedpoint import bit_length, halve_to_nearest, shift, shift_right
from spikeplug.numerics import Numerics


def normalise(magnitude: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(q, exponent): magnitude ≈ q·2^exponent, shifted so that each vector's largest element has `bits` bits; int64.

    magnitude: int64 (..., d) >= 0, below 2^62. The vector's leading one sets one shift for all: left is exact, right
    rounds to nearest (half up), off by at most 1/2, so q <= 2^bits. exponent: (..., 1).
    """
    places = bits - bit_length(magnitude.amax(-1, keepdim=True))
    return halve_to_nearest(shift(magnitude, places + 1)), -places


def fixed_step(magnitude: Tensor, fraction_bits: int, numerics: Numerics) -> Tensor:
    """magnitude >= 0 with fraction_bits > n fraction bits, brought to n = numerics.bits of them.

    Rounded to nearest (off by at most 1/2 LSB); without shift_scaling floored, as published (low by less than 1).
    """
    drop = fraction_bits - numerics.bits
    if numerics.shift_scaling:
        return halve_to_nearest(shift_right(magnitude, drop - 1))
    return shift_right(magnitude, drop)
