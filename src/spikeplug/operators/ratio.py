"""Scale an output, to a power of two per vector or to a fixed step; and divide, as most operators do last."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from spikeplug.codes import Coded, Granularity, fixed, in_blocks
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.divide import DivideSpec
from spikeplug.saturation import record

#: Bits of an exponent: scales of float64 and the distances of attention's keys lie within ±2^13.
EXPONENT_BITS = 13


def normalise(magnitude: Tensor, width: int, bits: int, on: Arithmetic, least: int = 0) -> tuple[Tensor, Tensor]:
    """Return (q, exponent): magnitude ≈ q·2^exponent, so that q of each vector's largest element has `bits` bits.

    magnitude  int64 (..., d), 0 <= magnitude < 2^width <= 2^62; a vector is the last dimension
    least      a vector's largest element is known to be 0, or at least 2^least: lower thresholds need no neuron
    q          int64 (..., d)
    exponent   integers (..., 1)

    The vector's leading one sets one shift for all elements. A left shift is exact.
    A right shift rounds to nearest (half up), off by at most 1/2, so q <= 2^bits.
    """
    position = on.leading_one(on.maximum(magnitude, width) >> least, width - least)
    places = on.add(-position, bits + 1 - least, 7, "places")  # one guard bit, which is rounded away
    shifted = on.shift(magnitude, places, width, bits + 1)
    return on.round_half(shifted, bits + 1), 1 - places


def fixed_step(magnitude: Tensor, fraction_bits: int, width: int, on: Arithmetic) -> Tensor:
    """Drop fraction bits of a magnitude until n = `on.numerics.bits` of them are left; same shape and dtype.

    magnitude      integers, 0 <= magnitude < 2^width, which stand for magnitude·2^-fraction_bits
    fraction_bits  more than n

    With `on.numerics.shift_scaling`, the result is rounded to nearest (off by at most 1/2 of its last bit).
    Without, it is floored, as published (low by less than 1 of its last bit).
    """
    drop = fraction_bits - on.numerics.bits
    if on.numerics.shift_scaling:
        return on.round_half(magnitude >> (drop - 1), width)
    return magnitude >> drop


@dataclass(frozen=True)
class Ratio:
    """Divide vectors: y = A / B · 2^exponent, A >= 0 along the last dimension; the numerics decide how y is scaled.

    numerator_bits    A < 2^numerator_bits
    denominator_bits  B < 2^denominator_bits
    largest_output    the largest y that the neurons of the published (fixed-step) form represent; they are
                      2^n · largest_output, n = numerics.bits
    per_element       True: B has the shape of A and at least working_bits bits; False: B is (..., 1), of any size
    channels          True: the vector's elements are channels, and each `numerics.scale_block` of them has its own
                      scale; False (elements are attention's keys): the whole vector has one scale
    """

    numerator_bits: int
    denominator_bits: int
    largest_output: int
    per_element: bool = False
    channels: bool = True

    def __call__(self, numerator: Tensor, denominator: Tensor, exponent: Tensor | int, on: Arithmetic) -> Coded:
        """Return the code of y = numerator / denominator · 2^exponent: int64 mantissa q, in the shape of `numerator`.

        n is numerics.bits.
        With shift_scaling, each vector is shifted until its largest element fills working_bits.
        The division gives n + 1 bits, and the last one is rounded away: q differs from y in units of the result's
        scale by at most 1/2 + 2^(n+3-working_bits).
        Without, q = min(floor(2^n · y), 2^n · largest_output), with the fixed step 2^-n; exponent must be an int <= 0.
        """
        bits = on.numerics.bits
        if on.numerics.shift_scaling:
            block = on.numerics.scale_block if self.channels else None
            return in_blocks(partial(self.scaled, on=on), block, numerator, denominator, exponent)
        assert isinstance(exponent, int)  # a fixed step needs a fixed scale; negative as fraction bits are
        limit = self.largest_output << bits
        # 2^n·A must fit 60 bits. The bits dropped from A lie as far below the lowest output bit as A is wide.
        drop = max(0, self.numerator_bits + bits - 60)
        places = -exponent - drop
        spec = DivideSpec(self.numerator_bits - drop, self.denominator_bits + places, bits, limit)
        quotient = on.divide(numerator >> drop, denominator << places, spec)
        if self.largest_output > 1:  # a quotient of at most 1 fills its group without saturating
            record(f"{on.operator}: quotient at the size of the group", quotient >= limit)
        return fixed(quotient, bits, limit.bit_length())

    def scaled(self, numerator: Tensor, denominator: Tensor, exponent: Tensor | int, on: Arithmetic) -> Coded:
        """Return the code of numerator / denominator · 2^exponent, one power-of-two scale per vector; int64 mantissa.

        It does so whether numerics.shift_scaling is set or not.
        """
        bits, width, denominator_bits = on.numerics.bits, on.numerics.working_bits, self.denominator_bits
        # The leading one of the largest element sets the shift of the whole vector.
        top = on.maximum(numerator, self.numerator_bits, "numerator/maximum")
        places = on.add(-on.leading_one(top, self.numerator_bits, "numerator/leading_one"), width, 7, "places")
        numerator = on.shift(numerator, places, self.numerator_bits, width, "numerator/shift")
        exponent = on.add(-places, exponent, EXPONENT_BITS, "exponent")
        if not self.per_element:
            position = on.leading_one(denominator, denominator_bits, "denominator/leading_one")
            places = on.add(-position, width, 7, "places")
            denominator = on.shift(denominator, places, denominator_bits, width, "denominator/shift")
            exponent, denominator_bits = on.add(exponent, places, EXPONENT_BITS, "exponent"), width
        # A < 2^P and B >= 2^(P-1) now, so the quotient stays below 2: a group of 2^(n+2) neurons never saturates.
        spec = DivideSpec(width, denominator_bits, bits + 1, limit=4 << bits)
        quotient = on.round_half(on.divide(numerator, denominator, spec), bits + 2)
        granularity: Granularity = "element" if exponent.shape[-1] == quotient.shape[-1] == 1 else "vector"
        return Coded(quotient, exponent - bits, bits + 1, granularity)
