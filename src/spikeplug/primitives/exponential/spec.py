"""Specify the two exponentials and their tables. Every entry is made from its formula when the spec is built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from spikeplug.errors import SpikeplugError
from spikeplug.fixedpoint import constant
from spikeplug.primitives.interpolation import Interpolation


@dataclass(frozen=True)
class ShiftExponential:
    """Specify 2^-x for x >= 0: with x = k + f (whole and fractional part), 2^-x is 2^-f, from a table, shifted by k.

    fraction_bits  F; the input is an integer d = x·2^F, 0 <= d < 2^31
    segments       S, a power of two: 2^-f is interpolated between knots t_j = round(2^P · 2^(-j/S))
    weight_bits    P; the output is an integer close to 2^-x · 2^P: fixed point with P fraction bits

    Error against 2^(P-x), in LSB: above by at most 2^P·(ln 2 / S)²/8 + 3/2, below by at most 3/2 (proof: README.md).
    Errors: SpikeplugError for a field out of its domain.
    """

    fraction_bits: int
    segments: int
    weight_bits: int

    def __post_init__(self) -> None:
        if not 0 <= self.fraction_bits <= 16 or not 2 <= self.weight_bits <= 30:
            raise SpikeplugError("fraction_bits must lie in [0, 16] and weight_bits in [2, 30].")
        if self.segments < 1 or self.segments & (self.segments - 1) or self.segments > 1 << self.fraction_bits:
            raise SpikeplugError(f"segments is {self.segments}; it must be a power of two up to 2^fraction_bits.")

    @cached_property
    def table(self) -> Interpolation:
        """Return the table of 2^-f on [0, 1]: knots round(2^P · 2^(-j/S)), j = 0..S (P weight_bits, S segments)."""
        return Interpolation.of(
            lambda f: 2.0**-f,
            end=1.0,
            segments=self.segments,
            input_bits=self.fraction_bits,
            output_bits=self.weight_bits,
        )

    @property
    def table_bytes(self) -> float:
        """Return the size of the knots in bytes, bit-packed."""
        return self.table.table_bytes


@dataclass(frozen=True)
class PiecewiseExponential:
    """Specify exp(x) by K chords on [-H, H]; it is 0 below -H, and exp(H) from H on.

    half_range      H
    segments        K
    fraction_bits   F; the input is the integer x·2^F, any int32
    output_bits     P; the output is an integer close to exp(x) · 2^P: fixed point with P fraction bits
    slope_bits      bits of a chord's slope
    intercept_bits  bits of exp at the start of a segment

    Segment j starts at x_j = round((-H + 2Hj/K)·2^F).
    Each slope and intercept has a power-of-two scale of its own.
    Slopes from exp(-H) to exp(H) would not fit 8 bits of one fixed-point format.
    Errors: SpikeplugError for a field out of its domain.
    """

    half_range: float
    segments: int
    fraction_bits: int
    output_bits: int
    slope_bits: int = 8
    intercept_bits: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.half_range <= 16 or self.segments < 1:
            raise SpikeplugError("half_range (H) must lie in (0, 16] and segments (K) be at least 1.")
        if not 0 <= self.fraction_bits <= 16 or not 2 <= self.output_bits <= 30:
            raise SpikeplugError("fraction_bits must lie in [0, 16] and output_bits in [2, 30].")
        if len(set(self.knots)) != len(self.knots):
            raise SpikeplugError(
                f"{self.segments} segments on [-{self.half_range}, {self.half_range}] are narrower than the input step "
                f"2^-{self.fraction_bits}; use fewer segments or more fraction_bits."
            )

    @cached_property
    def knots(self) -> tuple[int, ...]:
        """Return where the segments begin and where the last one ends, integers of `fraction_bits` fraction bits."""
        step = 2 * self.half_range / self.segments
        return tuple(constant(-self.half_range + j * step, self.fraction_bits) for j in range(self.segments + 1))

    @cached_property
    def intercepts(self) -> tuple[int, ...]:
        """Return exp at each knot, integers of `output_bits` fraction bits (`intercept_bits` significant)."""
        values = (math.exp(knot / (1 << self.fraction_bits)) for knot in self.knots)
        return tuple(_shifted(*_significant(value, self.intercept_bits), self.output_bits) for value in values)

    @cached_property
    def slopes(self) -> tuple[tuple[int, int], ...]:
        """Return (m, s) per segment: the chord rises by m·2^-s output LSB per input LSB.

        m has `slope_bits` bits. A negative s is a left shift.
        """
        unit = 1 << self.fraction_bits
        pairs = []
        for left, right in zip(self.knots, self.knots[1:], strict=False):
            slope = (math.exp(right / unit) - math.exp(left / unit)) / (right - left) * 2**self.output_bits
            pairs.append(_significant(slope, self.slope_bits))
        return tuple(pairs)

    @property
    def table_bytes(self) -> float:
        """Return the size in bytes: slopes of 8 bits and intercepts of 16, each with 6 bits of scale."""
        return (self.segments * (self.slope_bits + 6) + (self.segments + 1) * (self.intercept_bits + 6)) / 8


def _significant(value: float, bits: int) -> tuple[int, int]:
    """Return (m, s) with value ≈ m·2^-s and m of exactly `bits` bits, rounded to nearest."""
    places = bits - math.frexp(value)[1]
    mantissa = constant(math.ldexp(value, places), 0)
    return (mantissa >> 1, places - 1) if mantissa >> bits else (mantissa, places)


def _shifted(mantissa: int, places: int, fraction_bits: int) -> int:
    """Return round(mantissa · 2^-places · 2^fraction_bits): fixed point with `fraction_bits` fraction bits."""
    return constant(math.ldexp(mantissa, -places), fraction_bits)
