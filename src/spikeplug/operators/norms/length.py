"""Compute lengths of vectors, and say what the norms share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.codes import as_real
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.errors import length_error, output_rounding
from spikeplug.operators.gates.gate import narrow_range
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.norm import CordicSpec, RootSpec

#: eps of the norms in tests and measurements.
EPS = 1e-5


def length_bits(dimension: int, numerics: Numerics, operator: str) -> int:
    """Return the bits of ‖[x, extension]‖ <= 2^(P-1)·sqrt(d + 1), which exceed P by at most half those of d.

    Errors: SpikeplugError for a vector too long for working_bits, in the operator's name.
    """
    width, growth = numerics.working_bits, (dimension.bit_length() + 1) // 2
    if width + growth > 31:
        raise SpikeplugError(f"{operator} over {dimension} channels needs working_bits <= {31 - growth}, not {width}.")
    return width + growth


def length_integers(mantissa: Tensor, extension: Tensor | None, on: Arithmetic) -> tuple[Tensor, int]:
    """Return (‖[mantissa, extension]‖, its bits) over the last dimension, int64 (..., 1).

    mantissa: int32 (..., d), extension: int32 (..., 1) or None, magnitudes at most 2^(P-1).
    Errors: SpikeplugError for a vector too long for working_bits.
    """
    numerics, width = on.numerics, on.numerics.working_bits
    bits = length_bits(mantissa.shape[-1], numerics, on.operator)
    if numerics.norm == "root":
        square = on.square_sum(mantissa, width)
        if extension is not None:
            square = on.add(square, on.square_sum(extension, width, "extension"), 2 * bits, "extended")
        length = on.root(square, RootSpec(bits))
    else:
        magnitude = on.magnitude(mantissa, width)
        length = on.cordic(
            magnitude if extension is None else torch.cat([magnitude, extension], -1),
            CordicSpec(numerics.iterations, width),
        )
    return length, bits


def check_norm(operator: str, x: Tensor, eps: float) -> None:
    """Raise SpikeplugError for a non-floating or 0-dimensional x, or eps < 0."""
    as_real(x, operator)
    if x.dim() == 0:
        raise SpikeplugError(f"{operator} needs at least one dimension to normalise over; reshape the scalar to (1,).")
    if not (isinstance(eps, (int, float)) and 0 <= eps <= 1e30):  # beyond, sqrt(eps·d) may leave float32
        raise SpikeplugError(f"{operator} got eps={eps}; it must be a number from 0 to 1e30.")


def normed_bound(exact: Tensor, share: Tensor, numerics: Numerics) -> Tensor:
    """Return |y|·ε/(1-ε), the elements' coding, and the output's rounding.

    share: the vector's (extended) largest element over its norm.
    """
    dimension = exact.shape[-1]
    length = length_error(dimension, numerics) + 2.0**-16 / math.sqrt(dimension)
    coding = share * math.sqrt(dimension) * 2.0 ** (3 - numerics.working_bits)
    return exact.abs() * length / (1 - length) + coding + output_rounding(exact, numerics)


def norm_range(numerics: Numerics) -> str:
    """Say how many bits a vector's code has."""
    return narrow_range(numerics) if numerics.input_bits is not None else f"{numerics.working_bits} bits a vector"
