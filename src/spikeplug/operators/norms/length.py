"""Compute lengths of vectors; check and bound what all norms share."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from spikeplug.codes import as_real
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.errors import length_error, output_rounding
from spikeplug.operators.gates.gate import narrow_range
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.norm import CordicSpec, RootSpec

#: Widest root of an int64.
ROOT_BITS = 31
#: Elements of a part whose squares are summed at once: 2^16 squares of 2·23 bits fit int64.
PART = 1 << 16
#: Longest vector: LayerNorm's centred integers, 2·P + log2(d) bits and more, and the divisions stay within 60 bits.
LONGEST = 1 << 30
#: eps of the norms in tests and measurements.
EPS = 1e-5


class Length(NamedTuple):
    """Hold the lengths of vectors x of integers: ‖x‖ ≈ integers · 2^dropped.

    integers  int64 (..., 1), below 2^bits
    dropped   how many low bits of a length are lost, so that the rest fits; 0 except for very long vectors
    """

    integers: Tensor
    bits: int
    dropped: int


@lru_cache(maxsize=256)  # asked before every call of a kernel
def length_places(dimension: int, numerics: Numerics, operator: str) -> tuple[int, int]:
    """Return (bits, dropped): how wide the length of a vector is, and how many of its low bits are lost.

    The vector x has d = `dimension` elements of P = numerics.working_bits bits, and one more, the extension (for eps).
    ‖[x, extension]‖ <= 2^(P-1)·sqrt(d + 1) exceeds P bits by at most half the bits of d.
    A root of an int64 has 31 bits. Beyond that, the sum of squares loses 2·dropped low bits, and the length `dropped`.
    Errors: SpikeplugError for a vector that is too long, in the operator's name.
    """
    width, growth = numerics.working_bits, (dimension.bit_length() + 1) // 2
    if numerics.norm == "cordic":
        most = 62 - width - CordicSpec.guard_bits - CordicSpec.gain_bits
        if growth > most:
            raise SpikeplugError(
                f"{operator} over {dimension} elements is too long for the CORDIC tree: use norm='root', or fewer "
                "working_bits."
            )
        return width + growth, 0
    if dimension > LONGEST:
        raise SpikeplugError(
            f"{operator} over {dimension} elements is too long: normalise at most {LONGEST} at a time."
        )
    return min(width + growth, ROOT_BITS), max(0, width + growth - ROOT_BITS)


def length_integers(mantissa: Tensor, extension: Tensor | None, on: Arithmetic) -> Length:
    """Return the length of each vector [mantissa, extension], along the last dimension.

    mantissa: int32 (..., d), extension: int32 (..., 1) or None, magnitudes at most 2^(P-1), P = numerics.working_bits.
    Errors: SpikeplugError for a vector that is too long.
    """
    numerics, width = on.numerics, on.numerics.working_bits
    bits, dropped = length_places(mantissa.shape[-1], numerics, on.operator)
    if numerics.norm == "root":
        square = _square_sum(mantissa, dropped, on)
        if extension is not None:
            square = on.add(square, on.square_sum(extension, width, "extension") >> 2 * dropped, 2 * bits, "extended")
        length = on.root(square, RootSpec(bits))
    else:
        magnitude = on.magnitude(mantissa, width)
        length = on.cordic(
            magnitude if extension is None else torch.cat([magnitude, extension], -1),
            CordicSpec(numerics.iterations, width),
        )
    return Length(length, bits, dropped)


def _square_sum(mantissa: Tensor, dropped: int, on: Arithmetic) -> Tensor:
    """Return Σ x² / 2^(2·dropped), floored, with x = mantissa (..., d), summed over d; int64 (..., 1).

    A vector that is too long is summed in parts whose sums fit int64. Each part is floored, so that their sum fits too.
    """
    width = on.numerics.working_bits
    if not dropped:
        return on.square_sum(mantissa, width)
    first, *others = mantissa.split(PART, -1)
    total = on.square_sum(first, width) >> 2 * dropped
    for part in others:
        total = on.add(total, on.square_sum(part, width) >> 2 * dropped, 62, "parts")
    return total


def check_norm(operator: str, x: Tensor, eps: float) -> None:
    """Raise SpikeplugError for a non-floating or 0-dimensional x, or eps < 0."""
    as_real(x, operator)
    if x.dim() == 0:
        raise SpikeplugError(f"{operator} needs at least one dimension to normalise over; reshape the scalar to (1,).")
    if not (isinstance(eps, (int, float)) and 0 <= eps <= 1e30):  # beyond, sqrt(eps·d) may leave float32
        raise SpikeplugError(f"{operator} got eps={eps}; it must be a number from 0 to 1e30.")


def normed_bound(exact: Tensor, share: Tensor, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact| for a normalised output y = exact, in its shape.

    It adds |y|·ε/(1-ε), with ε the relative error of the spiking length, the error of coding the input's elements, and
    the output's rounding.
    share  (..., 1): the input vector's largest element (eps included) divided by its norm
    """
    dimension = exact.shape[-1]
    length = length_error(dimension, numerics) + 2.0**-16 / math.sqrt(dimension)
    coding = share * math.sqrt(dimension) * 2.0 ** (3 - numerics.working_bits)
    if length >= 1:  # nothing can be promised of so few bits
        return torch.full_like(exact, math.inf)
    return exact.abs() * length / (1 - length) + coding + output_rounding(exact, numerics)


def norm_range(numerics: Numerics) -> str:
    """Return how many bits the code of an input vector has, as text for reports ("22 bits per vector")."""
    return narrow_range(numerics) if numerics.input_bits is not None else f"{numerics.working_bits} bits per vector"
