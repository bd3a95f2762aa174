"""Specify a function by its values at equally spaced points, with straight lines between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spikeplug.errors import SpikeplugError
from spikeplug.fixedpoint import constant


@dataclass(frozen=True)
class Interpolation:
    """Specify a function by S straight lines (chords) between its values at equally spaced points.

    knots      the function at x = j·2^rest_bits, j = 0..S, in output LSB
    rest_bits  input bits within a segment

    Input: integer 0 <= x <= S·2^rest_bits; the caller clamps. j is the segment of x, and r the rest.
    Output: knots[j], moved towards knots[j+1] by floor(|knots[j+1] - knots[j]|·r / 2^rest_bits).
    The output is thus rounded towards knots[j].
    Errors: SpikeplugError for fewer than two knots, and for widths that do not fit.
    """

    knots: tuple[int, ...]
    rest_bits: int

    def __post_init__(self) -> None:
        if len(self.knots) < 2:
            raise SpikeplugError(f"an interpolation needs two knots or more, not {len(self.knots)}.")
        if not 0 <= self.rest_bits <= 30 or self.domain > 1 << 31:
            raise SpikeplugError(f"rest_bits is {self.rest_bits}; it must lie in [0, 30], and the domain within 2^31.")
        if max(map(abs, self.knots)).bit_length() + self.rest_bits > 60:
            raise SpikeplugError("a knot times 2^rest_bits must fit 60 bits: use fewer output bits or more segments.")

    @classmethod
    def of(
        cls, function: Callable[[float], float], *, end: float, segments: int, input_bits: int, output_bits: int
    ) -> Interpolation:
        """Return the interpolation of `function` on [0, end]: knots round(2^output_bits · function(j·end/S)).

        Inputs have `input_bits` fraction bits.
        Errors: SpikeplugError unless a segment is a power of two of input steps wide.
        """
        width = end / segments * (1 << input_bits)
        if width < 1 or width != int(width) or int(width) & (int(width) - 1):
            raise SpikeplugError(f"{segments} segments on [0, {end}] are no power of two of 2^-{input_bits} wide.")
        knots = (constant(function(end * j / segments), output_bits) for j in range(segments + 1))
        return cls(tuple(knots), int(width).bit_length() - 1)

    @property
    def segments(self) -> int:
        """Return S, the number of chords."""
        return len(self.knots) - 1

    @property
    def domain(self) -> int:
        """Return the largest input of the function, an integer: segments · 2^rest_bits."""
        return self.segments << self.rest_bits

    @property
    def table_bytes(self) -> float:
        """Return the size of the knots in bytes, bit-packed, each with a sign."""
        return len(self.knots) * (max(map(abs, self.knots)).bit_length() + 1) / 8
