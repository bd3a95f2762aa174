"""Compute tanh: ±(1 - t)/(1 + t), t = exp(-2|x|)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.codes import Coded, decode, encode_distance
from spikeplug.numerics import Numerics
from spikeplug.operators.errors import falling_error, output_rounding, relative, weight_error
from spikeplug.operators.exponentials import falling
from spikeplug.operators.finite import elementwise
from spikeplug.operators.gates.gate import input_range, with_sign_of
from spikeplug.operators.operands import Operands
from spikeplug.operators.ratio import Ratio
from spikeplug.operators.record import Operator
from spikeplug.operators.record import elementwise as spelt
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.exponential import ShiftExponential


def fine_fraction_bits(numerics: Numerics) -> int:
    """Return the fraction bits of 2|x|, the exponent in tanh: 4 more than numerics.fraction_bits, 16 at most.

    With the piecewise exponential, they are numerics.fraction_bits.
    """
    return min(16, numerics.fraction_bits + 4) if numerics.exponential == "shift" else numerics.fraction_bits


@lru_cache
def _fine(fraction_bits: int, segments: int, width: int) -> ShiftExponential:
    return ShiftExponential(fraction_bits, min(8 * segments, 1 << fraction_bits), width)


def tanh_integers(sign_of: Tensor, distance: Tensor, on: Arithmetic) -> Coded:
    """Return the code of tanh(x) = ±(1 - t)/(1 + t), t = exp(-2|x|), with an int64 mantissa.

    sign_of   int32, negative where x is negative
    distance  2|x| as integers with `fine_fraction_bits(numerics)` fraction bits

    tanh(-x) is exactly -tanh(x).
    """
    numerics, width = on.numerics, on.numerics.working_bits
    one = 1 << width
    fine = None
    if numerics.exponential == "shift":
        fine = _fine(fine_fraction_bits(numerics), numerics.segments, width)
    t = falling(distance, on, fine)
    above, below = on.add(-t, one, width + 1, "1 - t"), on.add(t, one, width + 1, "1 + t")
    quotient = Ratio(width + 1, width + 2, largest_output=1, per_element=True)(above, below, 0, on)
    return with_sign_of(quotient, sign_of, on)


def tanh_rows(x: Tensor, on: Arithmetic) -> Tensor:
    """Return tanh of finite float32 or float64 vectors, in x's dtype."""
    distance = encode_distance(x, 2.0, fine_fraction_bits(on.numerics), on.numerics)
    return decode(tanh_integers(-(x < 0).to(torch.int32), distance, on), x.dtype)


def tanh(x: Tensor, *, on: Arithmetic) -> Tensor:
    """Return tanh(x), elementwise; x's shape and dtype. tanh(-x) is exactly -tanh(x).

    With the shift exponential, the exponent's step is up to 16 times finer than in other activations (see README.md).
    """
    return elementwise(lambda x: tanh_rows(x, on), x, on, ends=(-1.0, 1.0))


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact|, in x's shape.

    With t = exp(-2|x|): if t changes by D, (1 - t)/(1 + t) changes by at most 2D/((1+t)(1+t-D)).
    """
    y, unit = torch.tanh(x), 2.0**-numerics.working_bits
    if numerics.exponential == "shift":
        error = (1 - y * y) / 2 * relative(weight_error(numerics, fine=True)) + 4 * unit
    else:
        t, lost = (-2 * x.abs()).exp(), falling_error(2 * x.abs(), numerics, numerics.half_range).absolute
        error = 2 * lost / ((1 + t) * (1 + t - lost).clamp(min=1e-300)) + 4 * unit
    return error * (1 + 2.0 ** (1 - numerics.bits)) + output_rounding(y, numerics)


def integers(given: Operands, on: Arithmetic) -> Coded:
    """Return the code of the operator, from integers that are given."""
    distance = given.distance(fine_fraction_bits(on.numerics))
    return tanh_integers(given.vector("sign", -1, 0, torch.int32), distance, on)


RECORD = Operator(
    name="tanh",
    family="curve",
    formula="(exp(x) - exp(-x)) / (exp(x) + exp(-x)), accurate near 0 too",
    spiking=tanh,
    integers=integers,
    exact=torch.tanh,
    inputs=("gate",),
    scale="vector",
    grid="exponent",
    bound=bound,
    input_range=input_range,
    spellings=spelt("tanh"),
    aten=("tanh",),
    module="Tanh",
)
